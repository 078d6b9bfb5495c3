"""Flatten, unflatten and map a state."""

from __future__ import annotations

import time
from typing import Any

import jax

from benchmarks.measure import Table, interleaved
from benchmarks.states import all_kinds

TITLE = "Trees: flatten, unflatten, map (CPU time of the thread)"


def tables(quick: bool) -> list[Table]:
    """One table per operation, at 1,000 variables."""
    states = all_kinds(1000)
    flat = {kind: jax.tree.flatten(state) for kind, state in states.items()}
    operations: dict[str, dict[str, Any]] = {
        "jax.tree.leaves": {kind: _bind(jax.tree.leaves, state) for kind, state in states.items()},
        "jax.tree.unflatten": {
            kind: _bind(jax.tree.unflatten, structure, leaves) for kind, (leaves, structure) in flat.items()
        },
        "jax.tree.map of the identity": {kind: _bind(jax.tree.map, _identity, state) for kind, state in states.items()},
        "equality of two tree structures": {
            kind: _bind(structure.__eq__, jax.tree.structure(states[kind])) for kind, (_, structure) in flat.items()
        },
    }
    goals = {"jax.tree.leaves": 1.2}
    return [
        Table(
            f"{operation}, 1,000 variables",
            "us",
            interleaved(cases, rounds=11 if quick else 101, calls=20, clock=time.thread_time),
            base="raw tuple",
            goals={"jv.Variables": goals[operation]} if operation in goals else {},
        )
        for operation, cases in operations.items()
    ]


def _identity(leaf: Any) -> Any:
    return leaf


def _bind(function: Any, *args: Any) -> Any:
    return lambda: function(*args)

"""What one assignment costs beside the addition that it makes, and what donation saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxvars as jv
from benchmarks import states
from benchmarks.measure import AGAIN, Table, interleaved

TITLE = "Assignment"


def tables(quick: bool) -> list[Table]:
    """Additions, replacements, donation."""
    rounds = 21 if quick else 201
    return [
        _additions(rounds, "a Python number", 1.0),
        _additions(rounds, "a device scalar", jnp.float32(1) + 0),
        _replacements(rounds),
        _donation(7 if quick else 31),
    ]


def _additions(rounds: int, what: str, delta: Any) -> Table:
    name = "s5/t0/v0"
    add: Any = jax.jit(lambda x, y: x + y)
    raw, again = [jnp.float32(0) + 0], [jnp.float32(0) + 0]
    flat = [dict(zip(states.names(1000), states.values(1000), strict=True))]
    held = [states.variables(1000)]

    def bare(cell: list[Any]) -> Callable[[], Any]:
        def call() -> Any:
            cell[0] = add(cell[0], delta)
            return cell[0]

        return call

    def dict_copy() -> Any:
        flat[0] = {**flat[0], name: add(flat[0][name], delta)}
        return flat[0]

    def ours() -> Any:
        held[0] = jv.assign_add(held[0], name, delta)
        return held[0]

    samples = interleaved(
        {
            "bare jitted add": bare(raw),
            "bare jitted add" + AGAIN: bare(again),
            "jv.assign_add": ours,
            "dict copy and jitted add": dict_copy,
        },
        rounds=rounds,
        calls=200,
        settle=jax.block_until_ready,
    )
    return Table(
        f"add {what} to 1 of 1,000 scalars", "us", samples, base="bare jitted add", goals={"jv.assign_add": 1.25}
    )


def _replacements(rounds: int) -> Table:
    """Only the container: what `assign` does once it has the new value."""
    cases: dict[str, Any] = {}
    for count in (1_000, 10_000, 100_000):
        value = jnp.float32(1) + 0
        pairs = {f"v{i}": value for i in range(count)}
        # One shared buffer: nothing computes here, and 100,000 of them would take long to make.
        variables = jv.Variables.from_specs(
            (states.VariableSpec(name, (), jnp.dtype("float32")), value) for name in pairs
        )
        held = [variables._set("v0", value)]

        def replace(held: list[Any] = held, value: Any = value, name: str = f"v{count // 2}") -> None:
            held[0] = held[0]._set(name, value)

        cases[f"replace 1 of {count:,}"] = replace
        if count <= 10_000:
            copied = [pairs]

            def copy(copied: list[Any] = copied, value: Any = value) -> None:
                copied[0] = {**copied[0], "v1": value}

            cases[f"dict copy of {count:,}"] = copy
    return Table(
        "replace one value, nothing computed",
        "us",
        interleaved(cases, rounds=rounds, calls=20),
        limits={"replace 1 of 100,000": 30.0},
    )


def _donation(rounds: int) -> Table:
    """64 MiB: with donation the buffer is reused, without it a second one is written."""
    size = 2**24
    cases: dict[str, Any] = {}
    pointers: dict[str, set[int]] = {}
    for donate in (False, True):
        held = [jv.Variables({"big": jnp.zeros(size), "small": jnp.zeros(())})]
        delta = jnp.ones(size)
        seen = pointers.setdefault("donated" if donate else "kept", set())

        def add(held: list[Any] = held, delta: Any = delta, donate: bool = donate, seen: Any = seen) -> Any:
            held[0] = jax.block_until_ready(jv.assign_add(held[0], "big", delta, donate=donate))
            seen.add(held[0]["big"].unsafe_buffer_pointer())
            return held[0]

        cases[f"jv.assign_add, donate={donate}"] = add
    samples = interleaved(cases, rounds=rounds, scale=1e3)
    return Table(
        "add 64 MiB to 1 variable of 64 MiB",
        "ms",
        samples,
        base="jv.assign_add, donate=False",
        note=f"Different buffers seen: {len(pointers['kept'])} without donation, {len(pointers['donated'])} with it.",
    )

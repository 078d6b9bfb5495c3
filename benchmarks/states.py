"""The same N scalars as states of several kinds."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

import jaxvars as jv
from benchmarks.measure import AGAIN
from jaxvars.spec import VariableSpec


def names(count: int) -> list[str]:
    """N names in nested scopes, ten variables to each: ``s0/t3/v7``."""
    return [f"s{i // 100}/t{i // 10 % 10}/v{i % 10}" for i in range(count)]


def values(count: int) -> list[Any]:
    """N scalars, each in a buffer of its own."""
    return [jnp.float32(i) + 0 for i in range(count)]


def variables(count: int) -> jv.Variables:
    """N scalars as `jv.Variables`."""
    pairs = zip(names(count), values(count), strict=True)
    return jv.Variables.from_specs((VariableSpec(name, (), jnp.dtype("float32")), value) for name, value in pairs)


def nested(count: int) -> dict[str, Any]:
    """N scalars as a dict of dicts, as Haiku and Linen keep parameters."""
    tree: dict[str, Any] = {}
    for name, value in zip(names(count), values(count), strict=True):
        *scopes, last = name.split("/")
        inner = tree
        for scope in scopes:
            inner = inner.setdefault(scope, {})
        inner[last] = value
    return tree


def all_kinds(count: int) -> dict[str, Any]:
    """One state per kind, the raw tuple first and once more as a control."""
    return {
        "raw tuple": tuple(values(count)),
        "raw tuple" + AGAIN: tuple(values(count)),
        "jv.Variables": variables(count),
        "flat dict": dict(zip(names(count), values(count), strict=True)),
        "nested dict": nested(count),
    }

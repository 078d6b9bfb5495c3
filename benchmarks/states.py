"""The same N scalars as states of several kinds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv
from benchmarks import peers
from benchmarks.measure import AGAIN
from jaxvars.spec import VariableSpec


def names(count: int) -> list[str]:
    """N names in nested scopes, ten variables to each: ``s0/t3/v7``."""
    return [f"s{i // 100}/t{i // 10 % 10}/v{i % 10}" for i in range(count)]


def values(count: int) -> list[Any]:
    """N scalars, each in a buffer of its own."""
    return jax.device_put([np.float32(i) for i in range(count)])


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


def frozen(count: int) -> Any:
    """N scalars as Linen's FrozenDict."""
    from flax.core import freeze

    return freeze(nested(count))


def nnx_module(count: int) -> Any:
    """N scalars as parameters of nested NNX modules."""
    from flax import nnx

    class Node(nnx.Module):
        pass

    root = Node()
    for name, value in zip(names(count), values(count), strict=True):
        *scopes, last = name.split("/")
        node = root
        for scope in scopes:
            if not hasattr(node, scope):
                setattr(node, scope, Node())
            node = getattr(node, scope)
        setattr(node, last, nnx.Param(value))
    return root


def equinox_module(count: int) -> Any:
    """N scalars as an Equinox module with a list of modules of ten fields each."""
    import equinox

    class Block(equinox.Module):
        v0: Any
        v1: Any
        v2: Any
        v3: Any
        v4: Any
        v5: Any
        v6: Any
        v7: Any
        v8: Any
        v9: Any

    class Stack(equinox.Module):
        blocks: list[Any]

    every = values(count)
    return Stack([Block(*every[start : start + 10]) for start in range(0, count, 10)])


def all_kinds(count: int) -> dict[str, Any]:
    """One state per kind, the raw tuple first and once more as a control; peers where they are installed."""
    found = {
        "raw tuple": tuple(values(count)),
        "raw tuple" + AGAIN: tuple(values(count)),
        "jv.Variables": variables(count),
        "flat dict": dict(zip(names(count), values(count), strict=True)),
        "nested dict (Haiku, Linen)": nested(count),
    }
    if peers.linen():
        from flax import nnx

        found["Linen FrozenDict"] = frozen(count)
        found["NNX State"] = nnx.state(nnx_module(count))
    if peers.equinox():
        found["Equinox modules"] = equinox_module(count)
    return found

"""The arithmetic of ``assign*``, ``scatter_*`` and ``count_up_to``: pure functions of the old value.

No checks and no names: `jaxvars.values` and `jaxvars.scatter` check. Inside a frame these functions run under
the frame's own trace; outside, `jitted` gives them compiled. Duplicate indices count in order, as in TF1
(update: the last wins), on every device. Indices out of range are dropped, negative ones too: where they are
known they were refused before, and a traced program cannot raise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

__all__ = ["UPDATES", "count_up_to"]

Array = jax.Array
Kernel = Callable[[Array, Array, Array], Array]


def _assign(current: Array, value: Array) -> Array:
    del current
    return value


def count_up_to(current: Array, limit: Array) -> Array:
    """Return ``current + 1``, or `current` where it has reached `limit`."""
    return jnp.where(current < limit, current + jnp.ones_like(current), current)


def _in_place(current: Array, dimensions: slice = slice(None)) -> dict[str, Any]:
    """What keeps a result spread as the old value is, where mesh axes are Explicit and JAX must be told."""
    sharding = jax.typeof(current).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return {}
    return {"out_sharding": sharding.update(spec=PartitionSpec(*sharding.spec[dimensions]))}


# Kernels: scatter along the first axis, indices of shape (m,) within [0, n] where n means: drop this row.


def _rows_update(current: Array, rows: Array, updates: Array) -> Array:
    # Which of several writes to one row wins is undefined in XLA, so all but the last are dropped first.
    count = current.shape[0]
    order = jnp.arange(rows.shape[0], dtype=jnp.int32)
    last = jnp.full((count,), -1, jnp.int32).at[rows].max(order, mode="drop")
    wins = last.at[rows].get(mode="fill", fill_value=-1) == order
    return current.at[jnp.where(wins, rows, count)].set(updates, mode="drop", **_in_place(current))


def _rows_add(current: Array, rows: Array, updates: Array) -> Array:
    return current.at[rows].add(updates, mode="drop", **_in_place(current))


def _rows_sub(current: Array, rows: Array, updates: Array) -> Array:
    return current.at[rows].subtract(updates, mode="drop", **_in_place(current))


def _rows_min(current: Array, rows: Array, updates: Array) -> Array:
    return current.at[rows].min(updates, mode="drop", **_in_place(current))


def _rows_max(current: Array, rows: Array, updates: Array) -> Array:
    return current.at[rows].max(updates, mode="drop", **_in_place(current))


def _one_by_one(operation: Callable[[Array, Array], Array]) -> Kernel:
    """A kernel that applies `operation` row after row.

    For products and quotients: XLA's scatter has no gradient for products with duplicates, leaves the order
    of rounding open, and has no division at all. On CPU the loop is as fast as the scatter.
    """

    def kernel(current: Array, rows: Array, updates: Array) -> Array:
        def step(value: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
            row, update = item
            old = value.at[row].get(mode="fill", fill_value=1, **_in_place(value, slice(1, None)))
            return value.at[row].set(operation(old, update), mode="drop", **_in_place(value)), None

        return lax.scan(step, current, (rows, updates))[0]

    return kernel


def _along_first_axis(kernel: Kernel) -> Kernel:
    """``scatter_*``: indices of any shape, updates of shape indices.shape + current.shape[1:]."""

    def scatter(current: Array, indices: Array, updates: Array) -> Array:
        count = math.prod(indices.shape)
        rows = _in_range(jnp.reshape(indices, (count,)), current.shape[0])
        return kernel(current, rows, jnp.reshape(updates, (count, *current.shape[1:])))

    return scatter


def _at_points(kernel: Kernel) -> Kernel:
    """``scatter_nd_*``: the last axis of indices is a point in the leading axes of current."""

    def scatter(current: Array, indices: Array, updates: Array) -> Array:
        depth = indices.shape[-1]
        leading, trailing = current.shape[:depth], current.shape[depth:]
        count, total = math.prod(indices.shape[:-1]), math.prod(leading)
        points = jnp.reshape(indices, (count, depth))
        rows = jnp.zeros((count,), points.dtype)
        outside = jnp.zeros((count,), bool)
        for axis, size in enumerate(leading):
            rows = rows * size + points[:, axis]
            outside = outside | (points[:, axis] < 0) | (points[:, axis] >= size)
        rows = jnp.where(outside, total, rows)
        flat = kernel(jnp.reshape(current, (total, *trailing)), rows, jnp.reshape(updates, (count, *trailing)))
        return jnp.reshape(flat, current.shape)

    return scatter


def _in_range(rows: Array, count: int) -> Array:
    """Send negative indices, which JAX would count from the end, past the end, where they are dropped."""
    return jnp.where(rows < 0, count, rows)


_KERNELS: dict[str, Kernel] = {
    "update": _rows_update,
    "add": _rows_add,
    "sub": _rows_sub,
    "mul": _one_by_one(lax.mul),
    "div": _one_by_one(lax.div),
    "min": _rows_min,
    "max": _rows_max,
}

# Operation -> (current, value) -> new, or (current, indices, updates) -> new.
UPDATES: dict[str, Callable[..., Any]] = {
    "assign": _assign,
    "assign_add": lax.add,
    "assign_sub": lax.sub,
    "count_up_to": count_up_to,
    **{f"scatter_{name}": _along_first_axis(kernel) for name, kernel in _KERNELS.items()},
    **{f"scatter_nd_{name}": _at_points(_KERNELS[name]) for name in ("update", "add", "sub")},
}


def _own_copy(current: Array, value: Array) -> Array:
    """`value` in a buffer of its own: jit would hand an argument that it returns straight through."""
    del current
    return jnp.copy(value)


@functools.cache
def jitted(op: str, donate: bool) -> Callable[..., Any]:
    """Return the update of `op` jitted, for values on one device; `donate` gives up the old value."""
    return _jit(op, donate, None)


@functools.lru_cache(maxsize=1024)
def jitted_sharded(op: str, donate: bool, sharding: jax.sharding.Sharding) -> Callable[..., Any]:
    """As `jitted`, with the result placed as the old value was."""
    return _jit(op, donate, sharding)


def _jit(op: str, donate: bool, sharding: jax.sharding.Sharding | None) -> Callable[..., Any]:
    function = _own_copy if op == "assign" else UPDATES[op]
    options: dict[str, Any] = {} if sharding is None else {"out_shardings": sharding}
    # An unused donated argument would be dropped, and its buffer neither reused nor freed.
    return jax.jit(function, donate_argnums=(0,) if donate else (), keep_unused=donate, inline=True, **options)

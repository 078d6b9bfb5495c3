"""Results of operations for which JAX wants to be told how they are spread, where mesh axes are Explicit.

With Auto axes (what `jv.placement.mesh` makes) XLA decides, and all of this is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

__all__ = ["spread_as", "spread_convolved", "spread_over"]


def spread_over(*parts: tuple[jax.Array, Sequence[int | None]]) -> NamedSharding | None:
    """Return how a result is spread whose dimensions are those of its operands.

    Args:
      *parts: (operand, axes): which dimensions of the operand the next ones of the result are, None for one that is
        whole on each device.

    Returns:
      The sharding, in which an axis of the mesh stands once, where it comes first; None without Explicit axes.
    """
    meshes = [sharding.mesh for sharding in (jax.typeof(operand).sharding for operand, _ in parts) if _says(sharding)]
    if not meshes:
        return None
    taken: set[str] = set()
    entries: list[Any] = []
    for operand, axes in parts:
        spec = jax.typeof(operand).sharding.spec
        entries.extend(_free(None if axis is None else spec[axis], taken) for axis in axes)
    return NamedSharding(meshes[0], PartitionSpec(*entries))


def spread_as(like: jax.Array, shape: tuple[int, ...]) -> NamedSharding | None:
    """Return how an array is spread that broadcasts against `like`; None without Explicit axes."""
    lead = like.ndim - len(shape)
    return spread_over((like, [lead + i if size == like.shape[lead + i] else None for i, size in enumerate(shape)]))


def spread_convolved(x: jax.Array, kernel: jax.Array, layout: str, out: int) -> NamedSharding | None:
    """Return how a convolution is spread where JAX does not say: batches as in `x`, channels as in the kernel.

    Args:
      x: the input, in `layout`.
      kernel: the filter.
      layout: the data format.
      out: the dimension of the kernel that is the output's channels.

    Returns:
      The sharding; None without Explicit axes, or where both kernel and input channels are whole on each device.
    """
    channels = jax.typeof(x).sharding.spec[layout.index("C")]
    if channels is None and not any(jax.typeof(kernel).sharding.spec):
        return None
    where = {"N": (x, [layout.index("N")]), "C": (kernel, [out])}
    return spread_over(*(where.get(axis, (x, [None])) for axis in layout))


def _says(sharding: Any) -> bool:
    """Whether the type of an array says over which axes it is spread."""
    return AxisType.Explicit in getattr(sharding.mesh, "axis_types", ())


def _free(entry: Any, taken: set[str]) -> Any:
    """The axes of one dimension that no other has, which are taken from then on."""
    names = () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
    free = tuple(name for name in names if name not in taken)
    taken.update(free)
    return free[0] if len(free) == 1 else free or None

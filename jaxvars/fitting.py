"""From the `PartitionSpec` that a rule wants to the one that a shape can have, with what was left out and why.

JAX refuses a spec longer than the rank, and an axis that does not divide its dimension. A rule is written once for many
variables, so it is fitted to each: what a shape cannot have is left out, and the variable is replicated there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

__all__ = ["axes_of", "entry_axes", "fit", "fitted", "restricted"]


def entry_axes(entry: Any) -> tuple[str, ...]:
    """Return the mesh axes over which one dimension of a spec is spread."""
    if entry is None or entry is PartitionSpec.UNCONSTRAINED:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def axes_of(spec: PartitionSpec) -> Iterator[str]:
    """Yield the mesh axes that a spec names, in order, each as often as it is named."""
    for entry in spec:
        yield from entry_axes(entry)


def fit(
    spec: PartitionSpec, shape: tuple[int, ...], axis_sizes: Mapping[str, int]
) -> tuple[PartitionSpec, tuple[str, ...]]:
    """Return what a shape can have of the spec that is wanted for it, and what was left out.

    Args:
      spec: what is wanted; as long as the rank or not.
      shape: the shape of the whole array.
      axis_sizes: mesh axis -> size.

    Returns:
      A spec that JAX accepts for this shape, without ``None`` at its end, and one reason for each thing left out: an
      axis that does not divide its dimension, that the mesh lacks or that was taken before, entries beyond the rank.

    Example:
      >>> from jax.sharding import PartitionSpec as P
      >>> fit(P("model", None, None), (8,), {"data": 3, "model": 2})
      (P('model',), ("('model', None, None) trimmed to rank 1",))
      >>> fit(P("data", "model"), (10, 4), {"data": 3, "model": 2})
      (P(None, 'model'), ("'data' (3) does not divide 10",))
    """
    rank = len(shape)
    reasons: list[str] = []
    if len(spec) > rank:
        reasons.append(f"{tuple(spec)} trimmed to rank {rank}")
    entries: list[Any] = []
    taken: set[str] = set()
    for entry, size in zip(spec, shape, strict=False):
        if entry is PartitionSpec.UNCONSTRAINED:
            entries.append(entry)
            continue
        kept, left_out = _fit_dimension(entry_axes(entry), size, axis_sizes, taken)
        reasons.extend(left_out)
        entries.append(kept[0] if len(kept) == 1 else kept or None)
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries), tuple(reasons)


def _fit_dimension(
    names: tuple[str, ...], size: int, axis_sizes: Mapping[str, int], taken: set[str]
) -> tuple[tuple[str, ...], list[str]]:
    """The axes that one dimension can have, which are taken from then on, and why the others are left out."""
    kept: list[str] = []
    reasons: list[str] = []
    pieces = 1
    for name in names:
        if name not in axis_sizes:
            reasons.append(f"{name!r} is no axis of the mesh")
        elif name in taken:
            reasons.append(f"{name!r} is taken by another dimension")
        elif size % (pieces * axis_sizes[name]):
            product = " x ".join(f"{axis!r} ({axis_sizes[axis]})" for axis in [*kept, name])
            reasons.append(f"{product} does not divide {size}")
        else:
            pieces *= axis_sizes[name]
            kept.append(name)
            taken.add(name)
    return tuple(kept), reasons


def restricted(spec: PartitionSpec, axes: Collection[str]) -> PartitionSpec:
    """Return a spec over just these mesh axes: dimensions are not spread over the others.

    Example:
      >>> from jax.sharding import PartitionSpec as P
      >>> restricted(P(("data", "model"), "data"), {"model"})
      P('model', None)
    """
    entries: list[Any] = []
    for entry in spec:
        if entry is PartitionSpec.UNCONSTRAINED:
            entries.append(entry)
            continue
        names = tuple(name for name in entry_axes(entry) if name in axes)
        entries.append(names[0] if len(names) == 1 else names or None)
    return PartitionSpec(*entries)


def fitted(sharding: Any, shape: tuple[int, ...]) -> Any:
    """Return a sharding as this shape can have it; one that is no `NamedSharding` as it is."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    spec, _ = fit(sharding.spec, shape, sharding.mesh.shape)
    return NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)

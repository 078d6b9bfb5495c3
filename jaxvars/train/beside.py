"""Where the slots of an optimizer lie: beside their variables, on the mesh that those are spread over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxvars.buffers import is_concrete
from jaxvars.keeping import kept
from jaxvars.spec import VariableSpec, is_hole
from jaxvars.variables import Variables

__all__ = ["beside", "note_beside"]


def beside(params: Variables, primaries: Sequence[str | None], values: Sequence[Any]) -> list[Any]:
    """Return the first values of slots, each spread as its variable is.

    What belongs to all variables, or has another shape than its own, is whole on every device of their mesh: else the
    first step would move it there, and the second one be compiled anew for that.

    Args:
      params: the variables.
      primaries: of each value, the name of its variable, or None.
      values: arrays, tracers or holes.
    """
    if not params._layout.placed:
        return list(values)
    meshes = {leaf.sharding.mesh for leaf in params._leaves if _is_spread(leaf)}
    whole = NamedSharding(meshes.pop(), PartitionSpec()) if len(meshes) == 1 else None
    return [_placed(params, primary, value, whole) for primary, value in zip(primaries, values, strict=True)]


def _placed(params: Variables, primary: str | None, value: Any, whole: NamedSharding | None) -> Any:
    if primary is not None:
        position = params._layout.index[primary]
        leaf, note = params._leaf(position), params._layout.placement[position]
        if not isinstance(note, PartitionSpec):
            return value
        if leaf.shape == value.shape:
            return value.update(sharding=leaf.sharding) if is_hole(value) else kept(note, leaf, value)
    if whole is None or not (is_hole(value) or is_concrete(value)):
        return value
    return value.update(sharding=whole) if is_hole(value) else jax.device_put(value, whole)


def note_beside(specs: Mapping[str, VariableSpec], primary: str | None, value: Any) -> Any:
    """Return the placement that the spec of a slot notes."""
    if primary is None:
        return PartitionSpec() if _is_spread(value) else None
    note = specs[primary].placement
    return PartitionSpec() if isinstance(note, PartitionSpec) and specs[primary].shape != value.shape else note


def _is_spread(leaf: Any) -> bool:
    """Whether a value or hole lies on a mesh, as far as that is known."""
    return (is_hole(leaf) or is_concrete(leaf)) and isinstance(leaf.sharding, NamedSharding)

"""What is assigned to a variable stays where the variable is spread.

Inside ``jit`` XLA chooses how results are spread, and it may spread the new value of a variable otherwise than the old
one: moving averages of a spread batch came out spread themselves. A constraint says what the variable's rule wants. JAX
tells the mesh of a tracer, not how it is spread over Auto axes, so that is taken from the note in the layout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvars.fitting import axes_of, fit

if TYPE_CHECKING:
    from jaxvars.state import State

__all__ = ["kept", "kept_values"]


def kept_values(variables: State, values: dict[str, Any]) -> dict[str, Any]:
    """Return new values of some variables, spread as these are."""
    layout = variables._layout
    if not layout.placed:
        return values
    return {key: kept(layout.placement[i := layout.index[key]], variables._leaf(i), new) for key, new in values.items()}


def kept(note: Any, old: Any, new: Any) -> Any:
    """Return the new value of a variable, spread as the variable is.

    Args:
      note: the placement in the variable's spec; only a `PartitionSpec` counts.
      old: its value before, on which the mesh is found; a value of another shape keeps nothing.
      new: its value, on any devices; a tracer inside a transform.
    """
    if not isinstance(note, PartitionSpec) or isinstance(old, jax.ShapeDtypeStruct) or old.shape != new.shape:
        return new
    if isinstance(old, Tracer):
        return _constrained(note, jax.typeof(old).sharding, new)
    home = getattr(old, "sharding", None)
    if not isinstance(home, NamedSharding):
        return new
    if isinstance(new, Tracer):
        return _constrained(home.spec, home, new)
    return new if new.sharding.is_equivalent_to(home, new.ndim) else jax.device_put(new, home)


def _constrained(note: PartitionSpec, own: NamedSharding, new: Any) -> Any:
    mesh = own.mesh
    kinds = set(mesh.axis_types)
    if mesh.empty or AxisType.Manual in kinds or not set(axes_of(note)) <= set(mesh.axis_names):
        return new
    if AxisType.Explicit in kinds:  # then JAX does know, and does not let a constraint change it
        return new if jax.typeof(new).sharding.spec == own.spec else jax.sharding.reshard(new, own)
    spec, _ = fit(note, new.shape, mesh.shape)
    return jax.lax.with_sharding_constraint(new, NamedSharding(mesh, spec))

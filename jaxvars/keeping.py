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

from jaxvars.fitting import axes_of, fit, restricted

if TYPE_CHECKING:
    from jaxvars.state import State

_HOST = "pinned_host"

__all__ = ["kept", "kept_values", "lies", "spread"]


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
        known = jax.typeof(old)
        kind = _HOST if known.memory_space == jax.memory.Space.Host else None
        if not known.sharding.mesh.empty and jax.typeof(new).sharding.mesh.empty:
            # Of nothing on the mesh: then the old value has to say on which devices that is, or jit would drop it.
            new = jax.lax.optimization_barrier((new, jax.lax.stop_gradient(old)))[0]
        return _constrained(note, known.sharding, kind, new)
    home = getattr(old, "sharding", None)
    if not isinstance(home, NamedSharding):
        return new
    if isinstance(new, Tracer):
        return _constrained(home.spec, home, home.memory_kind, new)
    return new if lies(new, home) else jax.device_put(new, home)


def lies(value: jax.Array, home: NamedSharding) -> bool:
    """Return whether a value is spread like this, over this very mesh: JAX does not compute with those of two."""
    own = value.sharding
    return own == home or (getattr(own, "mesh", None) == home.mesh and own.is_equivalent_to(home, value.ndim))


def _constrained(note: PartitionSpec, own: NamedSharding, memory_kind: str | None, new: Any) -> Any:
    mesh = own.mesh
    if mesh.empty or AxisType.Manual in mesh.axis_types or not set(axes_of(note)) <= set(mesh.axis_names):
        return new
    return spread(new, NamedSharding(mesh, fit(note, new.shape, mesh.shape)[0], memory_kind=memory_kind))


def spread(value: Any, sharding: NamedSharding) -> Any:
    """Return a tracer spread over a mesh; its shape can have that.

    Over Auto axes a constraint tells XLA, over Explicit ones the type says it, and JAX wants each by its own name.
    """
    mesh = sharding.mesh
    axes = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    explicit = [name for name, kind in axes.items() if kind == AxisType.Explicit]
    if explicit:
        value = jax.sharding.reshard(value, NamedSharding(mesh, restricted(sharding.spec, explicit)))
    automatic = [name for name, kind in axes.items() if kind == AxisType.Auto]
    if automatic:
        spec = restricted(sharding.spec, automatic)
        value = jax.lax.with_sharding_constraint(value, NamedSharding(mesh, spec))
    # A constraint alone would leave it in the memory of the devices, and a transfer alone would not spread it.
    return jax.device_put(value, sharding) if sharding.memory_kind == _HOST else value

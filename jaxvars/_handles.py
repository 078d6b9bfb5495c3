"""TF1's functions over a handle: ``jv.assign(v, value)`` inside a model is ``v.assign(value)``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvars import _compat
from jaxvars._arguments import value_as_array
from jaxvars.buffers import copied
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, TransformError
from jaxvars.refusals import at_site
from jaxvars.values import prepare
from jaxvars.variable import Variable
from jaxvars.variables import Variables

__all__ = ["HANDLE", "on_handle"]

#: The default of a function's last argument: where it is not given, the first one is a handle.
HANDLE: Any = object()


def on_handle(op: str, handle: Any, values: tuple[Any, ...], donate: bool, validate_shape: bool = True) -> jax.Array:
    """Do to the handle what its method `op` does, after a look at the arguments."""
    if isinstance(handle, Variables):
        raise InvalidTypeError(
            f"jv.{op}: the last argument is missing{at_site()}. Write: variables = jv.{op}(variables, ref, ...)"
        )
    if not isinstance(handle, Variable):
        raise InvalidTypeError(
            f"jv.{op} takes the variables first, got {type(handle).__name__}{at_site()}. Write: variables = "
            f"jv.{op}(variables, ref, ...), or inside a model: jv.{op}(v, ...) with the handle v of a variable"
        )
    if donate:
        raise InvalidArgumentError(f"jv.{op}: donate= is for states, not for the handle {handle.name}{at_site()}.")
    if not validate_shape:
        return _assign_any_shape(handle, values[0])
    return getattr(handle, op)(*values)


def _assign_any_shape(handle: Variable, value: Any) -> jax.Array:
    """``tf.assign(v, value, validate_shape=False)``."""
    slot = handle._slot
    slot.frame.check_open(slot, "assign")
    shape = tuple(value_as_array(value).shape)
    if shape == slot.shape:
        return handle.assign(value)
    partitioned = getattr(slot, "whole", slot).partitioning is not None
    if partitioned or slot.ref is not None or _compat.current_trace() is not slot.frame.trace:
        why = "is partitioned" if partitioned else "is written inside a JAX transform, where shapes are fixed"
        raise TransformError(
            f"assign with validate_shape=False: variable {slot.key} {why}; its shape is {slot.shape}, that of the "
            f"value {shape}{at_site()}."
        )
    new = copied(jnp.asarray(prepare("assign", slot.key, shape, slot.dtype, value, slot.defined_at)))
    slot.frame.write(slot, new)
    # While specs are made a write counts for nothing, but code that follows relies on the new shape.
    slot.value, slot.shape = new, shape
    return new

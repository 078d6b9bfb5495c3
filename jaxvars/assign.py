"""``jv.assign`` and its family: pure functions from `Variables` to `Variables` that change one value.

Only the touched variable goes through a jitted function, compiled once per shape and dtype: a jit over the
whole state would copy all the others. Inside ``jit``, ``grad``, ``vmap`` or ``scan`` the same functions take
tracers. Inside a model they also take the handle instead of state and name, as TF1's functions did.
"""

from __future__ import annotations

from typing import Any, overload

import jax

from jaxvars._assigning import counted, set_other_shape, set_value, updated
from jaxvars._handles import HANDLE, on_handle
from jaxvars.variable import Variable
from jaxvars.variables import Variables

__all__ = ["assign", "assign_add", "assign_sub", "count_up_to"]


@overload
def assign(
    variables: Variables, ref: Any, value: Any, *, donate: bool = False, validate_shape: bool = True
) -> Variables: ...
@overload
def assign(
    ref: Variable, value: Any, /, *, validate_shape: bool = True, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def assign(
    variables: Any,
    ref: Any,
    value: Any = HANDLE,
    *,
    donate: bool = False,
    validate_shape: bool = True,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with the value of one replaced (TF1: ``tf.assign``).

    Args:
      variables: the state.
      ref: name, handle or spec of the variable. It may be uninitialized.
      value: of exactly the variable's shape: nothing is broadcast. Ints become floats where the variable is
        float; float to int, bool to number and number to bool raise.
      donate: reuse the buffer of the old value, which can then no longer be read from the old state.
      validate_shape: ``False`` takes a value of another shape, which becomes the variable's.
      use_locking: accepted for TF1's sake, with a handle.
      name: accepted for TF1's sake, with a handle.

    Returns:
      The new state. The value is strong-typed, in a buffer of its own, placed where the old one was. Inside a model,
      called with a handle as ``jv.assign(v, value)``, the new value, as ``v.assign(value)`` does.

    Raises:
      NotFoundError: no such variable (a `KeyError`); the nearest names are listed.
      InvalidArgumentError: another shape, or an integer that the dtype cannot hold (a `ValueError`).
      InvalidTypeError: a value of another kind (a `TypeError`).

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"bias": jnp.zeros(2), "step": 0})
      >>> variables = jv.assign(variables, "bias", [1, 2])
      >>> variables["bias"]
      Array([1., 2.], dtype=float32)
      >>> jv.assign(variables, "bias", 1.0)
      Traceback (most recent call last):
      ...
      jaxvars.errors.InvalidArgumentError: assign of "bias": Shapes must be equal rank, but are 1 and 0. ...
      >>> with jv.VariableStore(variables=variables):
      ...     step = jv.get_variable("step", [], "int32")
      ...     jv.assign(step, 7)
      Array(7, dtype=int32)
    """
    if value is HANDLE:
        return on_handle("assign", variables, (ref,), donate, validate_shape)
    if not validate_shape:
        return set_other_shape(variables, ref, value, donate)
    return set_value(variables, ref, value, donate)


@overload
def assign_add(variables: Variables, ref: Any, value: Any, *, donate: bool = False) -> Variables: ...
@overload
def assign_add(ref: Variable, value: Any, /, *, use_locking: Any = None, name: Any = None) -> jax.Array: ...
def assign_add(
    variables: Any, ref: Any, value: Any = HANDLE, *, donate: bool = False, use_locking: Any = None, name: Any = None
) -> Any:
    """Return `variables` with `value` added to one of them (TF1: ``tf.assign_add``).

    Args and errors are those of `assign`; besides, an uninitialized variable raises `FailedPreconditionError`
    and a bool variable `InvalidTypeError`.

    Example:
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"step": 0})
      >>> int(jv.assign_add(variables, "step", 1)["step"])
      1
    """
    if value is HANDLE:
        return on_handle("assign_add", variables, (ref,), donate)
    return updated("assign_add", variables, ref, value, donate)


@overload
def assign_sub(variables: Variables, ref: Any, value: Any, *, donate: bool = False) -> Variables: ...
@overload
def assign_sub(ref: Variable, value: Any, /, *, use_locking: Any = None, name: Any = None) -> jax.Array: ...
def assign_sub(
    variables: Any, ref: Any, value: Any = HANDLE, *, donate: bool = False, use_locking: Any = None, name: Any = None
) -> Any:
    """Return `variables` with `value` subtracted from one of them (TF1: ``tf.assign_sub``).

    Args and errors are those of `assign_add`.

    Example:
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"lives": 3})
      >>> int(jv.assign_sub(variables, "lives", 1)["lives"])
      2
    """
    if value is HANDLE:
        return on_handle("assign_sub", variables, (ref,), donate)
    return updated("assign_sub", variables, ref, value, donate)


@overload
def count_up_to(variables: Variables, ref: Any, limit: int, *, donate: bool = False) -> Variables: ...
@overload
def count_up_to(ref: Variable, limit: int, /, *, name: Any = None) -> jax.Array: ...
def count_up_to(variables: Any, ref: Any, limit: Any = HANDLE, *, donate: bool = False, name: Any = None) -> Any:
    """Return `variables` with an integer counter one higher, unless it has reached `limit`.

    TF1's ``tf.count_up_to`` returned the value before; that is ``variables[ref]`` here. Under a JAX
    transform, where the count is not known, the counter stays at `limit` instead of raising.

    Raises:
      OutOfRangeError: the counter has reached `limit`; the state is unchanged.
      InvalidTypeError: the variable is not an integer.

    Example:
      >>> import jaxvars as jv
      >>> variables = jv.count_up_to(jv.Variables({"epoch": 0}), "epoch", 1)
      >>> jv.count_up_to(variables, "epoch", 1)
      Traceback (most recent call last):
      ...
      jaxvars.errors.OutOfRangeError: count_up_to on "epoch": Reached limit of 1.
    """
    if limit is HANDLE:
        return on_handle("count_up_to", variables, (ref,), donate)
    return counted(variables, ref, limit, donate)

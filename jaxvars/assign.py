"""``jv.assign`` and its family: pure functions from `Variables` to `Variables` that change one value.

Only the touched variable goes through a jitted function, compiled once per shape and dtype: a jit over the
whole state would copy all the others. Inside ``jit``, ``grad``, ``vmap`` or ``scan`` the same functions take
tracers.
"""

from __future__ import annotations

from typing import Any

from jaxvars._assigning import counted, scattered, set_value, updated
from jaxvars.variables import Variables

__all__ = [
    "assign",
    "assign_add",
    "assign_sub",
    "count_up_to",
    "scatter_add",
    "scatter_div",
    "scatter_max",
    "scatter_min",
    "scatter_mul",
    "scatter_nd_add",
    "scatter_nd_sub",
    "scatter_nd_update",
    "scatter_sub",
    "scatter_update",
]


def assign(variables: Variables, ref: Any, value: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with the value of one replaced (TF1: ``tf.assign``).

    Args:
      variables: the state.
      ref: name, handle or spec of the variable. It may be uninitialized.
      value: of exactly the variable's shape: nothing is broadcast. Ints become floats where the variable is
        float; float to int, bool to number and number to bool raise.
      donate: reuse the buffer of the old value, which can then no longer be read from the old state.

    Returns:
      The new state. The value is strong-typed, in a buffer of its own, placed where the old one was.

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
    """
    return set_value(variables, ref, value, donate)


def assign_add(variables: Variables, ref: Any, value: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with `value` added to one of them (TF1: ``tf.assign_add``).

    Args and errors are those of `assign`; besides, an uninitialized variable raises `FailedPreconditionError`
    and a bool variable `InvalidTypeError`.

    Example:
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"step": 0})
      >>> int(jv.assign_add(variables, "step", 1)["step"])
      1
    """
    return updated("assign_add", variables, ref, value, donate)


def assign_sub(variables: Variables, ref: Any, value: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with `value` subtracted from one of them (TF1: ``tf.assign_sub``).

    Args and errors are those of `assign_add`.

    Example:
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"lives": 3})
      >>> int(jv.assign_sub(variables, "lives", 1)["lives"])
      2
    """
    return updated("assign_sub", variables, ref, value, donate)


def count_up_to(variables: Variables, ref: Any, limit: int, *, donate: bool = False) -> Variables:
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
    return counted(variables, ref, limit, donate)


def scatter_update(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with rows of one replaced (TF1: ``tf.scatter_update``).

    Args:
      variables: the state.
      ref: name, handle or spec of the variable, of rank 1 or more.
      indices: integers of any shape, positions along the first axis. Of equal ones the last wins.
      updates: of shape indices.shape + variable.shape[1:], or a scalar.
      donate: as in `assign`.

    Raises:
      InvalidArgumentError: shapes that do not fit, or an index out of range (a negative one too). Under a JAX
        transform indices are not known; then updates out of range are dropped.
      InvalidTypeError: indices that are not integers, or updates that `assign` would refuse.
      FailedPreconditionError: the variable is uninitialized.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"table": jnp.zeros(3)})
      >>> jv.scatter_update(variables, "table", [0, 0, 2], [1.0, 2.0, 3.0])["table"]
      Array([2., 0., 3.], dtype=float32)
      >>> jv.scatter_update(variables, "table", [3], [1.0])
      Traceback (most recent call last):
      ...
      jaxvars.errors.InvalidArgumentError: scatter_update on "table": indices[0] = 3 is not in [0, 3).
    """
    return scattered("scatter_update", variables, ref, indices, updates, donate)


def scatter_add(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with `updates` added to rows of one; equal indices accumulate. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_add(jv.Variables({"t": jnp.zeros(3)}), "t", [0, 0, 2], [1.0, 2.0, 3.0])["t"]
      Array([3., 0., 3.], dtype=float32)
    """
    return scattered("scatter_add", variables, ref, indices, updates, donate)


def scatter_sub(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with `updates` subtracted from rows of one. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_sub(jv.Variables({"t": jnp.zeros(3)}), "t", [0, 0], [1.0, 2.0])["t"]
      Array([-3.,  0.,  0.], dtype=float32)
    """
    return scattered("scatter_sub", variables, ref, indices, updates, donate)


def scatter_mul(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with rows of one multiplied, once per index. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_mul(jv.Variables({"t": jnp.ones(2)}), "t", [1, 1], [2.0, 3.0])["t"]
      Array([1., 6.], dtype=float32)
    """
    return scattered("scatter_mul", variables, ref, indices, updates, donate)


def scatter_div(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with rows of one divided, once per index. See `scatter_update`.

    Integers are divided towards zero, as in TF1.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_div(jv.Variables({"t": jnp.ones(2)}), "t", [1, 1], [2.0, 4.0])["t"]
      Array([1.   , 0.125], dtype=float32)
    """
    return scattered("scatter_div", variables, ref, indices, updates, donate)


def scatter_min(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with rows of one lowered to `updates` where those are less. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_min(jv.Variables({"t": jnp.ones(2)}), "t", [0, 1], [0.5, 2.0])["t"]
      Array([0.5, 1. ], dtype=float32)
    """
    return scattered("scatter_min", variables, ref, indices, updates, donate)


def scatter_max(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with rows of one raised to `updates` where those are more. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_max(jv.Variables({"t": jnp.ones(2)}), "t", [0, 1], [0.5, 2.0])["t"]
      Array([1., 2.], dtype=float32)
    """
    return scattered("scatter_max", variables, ref, indices, updates, donate)


def scatter_nd_update(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with points or slices of one replaced (TF1: ``tf.scatter_nd_update``).

    Args:
      variables: the state.
      ref: name, handle or spec of the variable.
      indices: integers of shape [..., K], points in the first K axes. Of equal ones the last wins.
      updates: of shape indices.shape[:-1] + variable.shape[K:].
      donate: as in `assign`.

    Raises:
      The same errors as `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"t": jnp.zeros((2, 2))})
      >>> jv.scatter_nd_update(variables, "t", [[0, 1], [1, 0]], [5.0, 6.0])["t"]
      Array([[0., 5.],
             [6., 0.]], dtype=float32)
    """
    return scattered("scatter_nd_update", variables, ref, indices, updates, donate)


def scatter_nd_add(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with `updates` added at points or slices of one. See `scatter_nd_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_nd_add(jv.Variables({"t": jnp.zeros(2)}), "t", [[1], [1]], [5.0, 6.0])["t"]
      Array([ 0., 11.], dtype=float32)
    """
    return scattered("scatter_nd_add", variables, ref, indices, updates, donate)


def scatter_nd_sub(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables:
    """Return `variables` with `updates` subtracted at points or slices of one. See `scatter_nd_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_nd_sub(jv.Variables({"t": jnp.zeros(2)}), "t", [[1], [1]], [5.0, 6.0])["t"]
      Array([  0., -11.], dtype=float32)
    """
    return scattered("scatter_nd_sub", variables, ref, indices, updates, donate)

"""``jv.scatter_add`` and its family: as `jaxvars.assign`, for some rows or points of one variable."""

from __future__ import annotations

from typing import Any, overload

import jax

from jaxvars._assigning import scattered
from jaxvars._handles import HANDLE, on_handle
from jaxvars.variable import Variable
from jaxvars.variables import Variables

__all__ = [
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


@overload
def scatter_update(
    variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False
) -> Variables: ...
@overload
def scatter_update(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_update(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with rows of one replaced (TF1: ``tf.scatter_update``).

    Args:
      variables: the state.
      ref: name, handle or spec of the variable, of rank 1 or more.
      indices: integers of any shape, positions along the first axis. Of equal ones the last wins.
      updates: of shape indices.shape + variable.shape[1:], or a scalar.
      donate: as in `assign`.
      use_locking: accepted for TF1's sake, with a handle.
      name: accepted for TF1's sake, with a handle.

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
    if updates is HANDLE:
        return on_handle("scatter_update", variables, (ref, indices), donate)
    return scattered("scatter_update", variables, ref, indices, updates, donate)


@overload
def scatter_add(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables: ...
@overload
def scatter_add(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_add(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with `updates` added to rows of one; equal indices accumulate. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_add(jv.Variables({"t": jnp.zeros(3)}), "t", [0, 0, 2], [1.0, 2.0, 3.0])["t"]
      Array([3., 0., 3.], dtype=float32)
    """
    if updates is HANDLE:
        return on_handle("scatter_add", variables, (ref, indices), donate)
    return scattered("scatter_add", variables, ref, indices, updates, donate)


@overload
def scatter_sub(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables: ...
@overload
def scatter_sub(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_sub(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with `updates` subtracted from rows of one. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_sub(jv.Variables({"t": jnp.zeros(3)}), "t", [0, 0], [1.0, 2.0])["t"]
      Array([-3.,  0.,  0.], dtype=float32)
    """
    if updates is HANDLE:
        return on_handle("scatter_sub", variables, (ref, indices), donate)
    return scattered("scatter_sub", variables, ref, indices, updates, donate)


@overload
def scatter_mul(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables: ...
@overload
def scatter_mul(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_mul(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with rows of one multiplied, once per index. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_mul(jv.Variables({"t": jnp.ones(2)}), "t", [1, 1], [2.0, 3.0])["t"]
      Array([1., 6.], dtype=float32)
    """
    if updates is HANDLE:
        return on_handle("scatter_mul", variables, (ref, indices), donate)
    return scattered("scatter_mul", variables, ref, indices, updates, donate)


@overload
def scatter_div(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables: ...
@overload
def scatter_div(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_div(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with rows of one divided, once per index. See `scatter_update`.

    Integers are divided towards zero, as in TF1.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_div(jv.Variables({"t": jnp.ones(2)}), "t", [1, 1], [2.0, 4.0])["t"]
      Array([1.   , 0.125], dtype=float32)
    """
    if updates is HANDLE:
        return on_handle("scatter_div", variables, (ref, indices), donate)
    return scattered("scatter_div", variables, ref, indices, updates, donate)


@overload
def scatter_min(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables: ...
@overload
def scatter_min(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_min(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with rows of one lowered to `updates` where those are less. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_min(jv.Variables({"t": jnp.ones(2)}), "t", [0, 1], [0.5, 2.0])["t"]
      Array([0.5, 1. ], dtype=float32)
    """
    if updates is HANDLE:
        return on_handle("scatter_min", variables, (ref, indices), donate)
    return scattered("scatter_min", variables, ref, indices, updates, donate)


@overload
def scatter_max(variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False) -> Variables: ...
@overload
def scatter_max(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_max(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with rows of one raised to `updates` where those are more. See `scatter_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_max(jv.Variables({"t": jnp.ones(2)}), "t", [0, 1], [0.5, 2.0])["t"]
      Array([1., 2.], dtype=float32)
    """
    if updates is HANDLE:
        return on_handle("scatter_max", variables, (ref, indices), donate)
    return scattered("scatter_max", variables, ref, indices, updates, donate)


@overload
def scatter_nd_update(
    variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False
) -> Variables: ...
@overload
def scatter_nd_update(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_nd_update(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with points or slices of one replaced (TF1: ``tf.scatter_nd_update``).

    Args:
      variables: the state.
      ref: name, handle or spec of the variable.
      indices: integers of shape [..., K], points in the first K axes. Of equal ones the last wins.
      updates: of shape indices.shape[:-1] + variable.shape[K:].
      donate: as in `assign`.
      use_locking: accepted for TF1's sake, with a handle.
      name: accepted for TF1's sake, with a handle.

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
    if updates is HANDLE:
        return on_handle("scatter_nd_update", variables, (ref, indices), donate)
    return scattered("scatter_nd_update", variables, ref, indices, updates, donate)


@overload
def scatter_nd_add(
    variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False
) -> Variables: ...
@overload
def scatter_nd_add(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_nd_add(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with `updates` added at points or slices of one. See `scatter_nd_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_nd_add(jv.Variables({"t": jnp.zeros(2)}), "t", [[1], [1]], [5.0, 6.0])["t"]
      Array([ 0., 11.], dtype=float32)
    """
    if updates is HANDLE:
        return on_handle("scatter_nd_add", variables, (ref, indices), donate)
    return scattered("scatter_nd_add", variables, ref, indices, updates, donate)


@overload
def scatter_nd_sub(
    variables: Variables, ref: Any, indices: Any, updates: Any, *, donate: bool = False
) -> Variables: ...
@overload
def scatter_nd_sub(
    ref: Variable, indices: Any, updates: Any, /, *, use_locking: Any = None, name: Any = None
) -> jax.Array: ...
def scatter_nd_sub(
    variables: Any,
    ref: Any,
    indices: Any,
    updates: Any = HANDLE,
    *,
    donate: bool = False,
    use_locking: Any = None,
    name: Any = None,
) -> Any:
    """Return `variables` with `updates` subtracted at points or slices of one. See `scatter_nd_update`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.scatter_nd_sub(jv.Variables({"t": jnp.zeros(2)}), "t", [[1], [1]], [5.0, 6.0])["t"]
      Array([  0., -11.], dtype=float32)
    """
    if updates is HANDLE:
        return on_handle("scatter_nd_sub", variables, (ref, indices), donate)
    return scattered("scatter_nd_sub", variables, ref, indices, updates, donate)

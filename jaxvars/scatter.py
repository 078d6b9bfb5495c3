"""TF1's checks of ``scatter_*`` and ``scatter_nd_*``: shapes, dtypes, and indices where they are known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.values import check_operation, convert, defined_text

__all__ = ["prepare_scatter"]

# Rows are counted in int32, JAX's integer without x64.
_MAX_ROWS = 2**31 - 1


def prepare_scatter(
    op: str,
    key: str,
    current_shape: tuple[int, ...],
    current_dtype: Any,
    indices: Any,
    updates: Any,
    defined_at: str = "",
) -> tuple[Any, Any]:
    """Return (indices, updates) ready for the update function of `op`, after TF1's checks.

    Args:
      op: ``"scatter_add"``, ``"scatter_nd_update"``, ...
      key: the variable's name.
      current_shape: its shape.
      current_dtype: its dtype.
      indices: integers of any shape along the first axis; for ``scatter_nd_*`` of shape [..., K], points in
        the first K axes.
      updates: of shape indices.shape + current_shape[1:], or a scalar; for ``scatter_nd_*`` of shape
        indices.shape[:-1] + current_shape[K:].
      defined_at: ``"file.py:line"`` of the variable, for error texts.

    Raises:
      InvalidTypeError: indices that are not integers, updates whose dtype does not convert.
      InvalidArgumentError: shapes that do not fit, or an index out of range where indices are known.
    """
    check_operation(op, key, current_dtype, defined_at)
    points = _as_indices(op, key, indices, defined_at)
    nd = op.startswith("scatter_nd_")
    expected = (_expected_nd if nd else _expected_rows)(op, key, current_shape, points, defined_at)
    values = convert(op, key, updates, current_dtype)
    if values.shape == () and expected != () and not nd:
        values = jnp.broadcast_to(values, expected)  # TF1 allows this one broadcast
    if tuple(values.shape) != expected:
        rule = (
            "updates.shape = indices.shape[:-1] + params.shape[indices.shape[-1]:]"
            if nd
            else "updates.shape = indices.shape + params.shape[1:] or updates.shape = []"
        )
        raise InvalidArgumentError(
            f'{op} on "{key}": Must have {rule}, got updates.shape {tuple(values.shape)}, '
            f"indices.shape {tuple(points.shape)}, params.shape {current_shape}: expected {expected}."
            + defined_text(defined_at)
        )
    if op == "scatter_div":
        _check_divisor(op, key, values, defined_at)
    if not isinstance(points, Tracer):
        points = _check_range(op, key, current_shape, points, nd, defined_at)
    return points, values


def _as_indices(op: str, key: str, indices: Any, defined_at: str) -> Any:
    if callable(getattr(indices, "__jax_array__", None)):
        indices = indices.__jax_array__()
    if not isinstance(indices, jax.Array):
        leaves = jax.tree.leaves(indices)
        traced = any(isinstance(leaf, jax.Array) for leaf in leaves)
        indices = jnp.asarray(indices) if traced else np.asarray(indices)
        if not traced and indices.size == 0 and not leaves:
            indices = indices.astype(np.int32)  # an empty list has no dtype of its own
    if not jnp.issubdtype(indices.dtype, np.integer):
        raise InvalidTypeError(
            f'{op} on "{key}": indices must be integers, got {indices.dtype}.' + defined_text(defined_at)
        )
    return indices


def _expected_rows(op: str, key: str, shape: tuple[int, ...], indices: Any, defined_at: str) -> tuple[int, ...]:
    if not shape:
        raise InvalidArgumentError(
            f'{op} on "{key}": the variable must have rank at least 1, its shape is (). '
            f"Use assign{'_' + op.removeprefix('scatter_') if op[8:] in ('add', 'sub') else ''}."
            + defined_text(defined_at)
        )
    return (*indices.shape, *shape[1:])


def _expected_nd(op: str, key: str, shape: tuple[int, ...], indices: Any, defined_at: str) -> tuple[int, ...]:
    depth = indices.shape[-1] if indices.ndim else 0
    if not 1 <= depth <= len(shape):
        raise InvalidArgumentError(
            f'{op} on "{key}": the last dimension of indices must be between 1 and the rank of the variable; '
            f"saw: {depth} vs. {len(shape)} (indices.shape {tuple(indices.shape)}, params.shape {shape})."
            + defined_text(defined_at)
        )
    if np.prod(shape[:depth], dtype=np.float64) > _MAX_ROWS:
        raise InvalidArgumentError(
            f'{op} on "{key}": more than {_MAX_ROWS} points in shape {shape[:depth]}. Use scatter_* on its rows.'
        )
    return (*indices.shape[:-1], *shape[depth:])


def _check_divisor(op: str, key: str, values: Any, defined_at: str) -> None:
    """Raise for a known integer zero, for which XLA would return -1."""
    integers = jnp.issubdtype(values.dtype, np.integer)
    if integers and not isinstance(values, Tracer) and bool((np.asarray(values) == 0).any()):
        raise InvalidArgumentError(f'{op} on "{key}": Integer division by zero.' + defined_text(defined_at))


def _check_range(op: str, key: str, shape: tuple[int, ...], indices: Any, nd: bool, defined_at: str) -> Any:
    """Raise for the first index out of range, in TF1's words; return the indices, NumPy ones as int32."""
    known = np.asarray(indices)
    limits = np.asarray(shape[: known.shape[-1]] if nd else shape[:1])
    wrong = (known < 0) | (known >= (limits if nd else limits[0]))
    if wrong.any():
        if nd:
            place = np.argwhere(wrong.any(axis=-1))[0]
            found = f"{known[tuple(place)].tolist()} does not index into shape {list(shape)}"
        else:
            place = np.argwhere(wrong)[0]
            found = f"{known[tuple(place)]} is not in [0, {shape[0]})"
        at = f"[{', '.join(map(str, place.tolist()))}]" if len(place) else ""
        raise InvalidArgumentError(f'{op} on "{key}": indices{at} = {found}.' + defined_text(defined_at))
    return known.astype(np.int32) if isinstance(indices, np.ndarray) else indices

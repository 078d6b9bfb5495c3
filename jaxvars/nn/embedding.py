"""Rows of tables by number (`tf.nn.embedding_lookup`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.nn._explicit import spread_over

__all__ = ["embedding_lookup", "embedding_lookup_sparse"]


def embedding_lookup(
    params: Any,
    ids: Any,
    partition_strategy: str = "mod",
    name: str | None = None,
    validate_indices: bool = True,
    max_norm: float | None = None,
) -> jax.Array:
    """Look up rows of a table (`tf.nn.embedding_lookup`).

    Args:
      params: ``[rows, ...]``, or a list of such tables, or a partitioned variable, which together hold the rows.
        As in TF1 a partitioned variable counts as its list of parts: pass ``partition_strategy="div"`` to find
        row ``i`` of the whole under the id ``i``.
      ids: ints of any shape. A row that does not exist is nan, as the largest int or true for other dtypes.
      partition_strategy: where row ``i`` of a list of n is. "mod": in part ``i % n`` at ``i // n``. "div": one
        part after the other, where the first parts are one longer if the rows do not divide evenly.
      name: accepted for TF1's sake, without effect.
      validate_indices: accepted for TF1's sake, without effect.
      max_norm: scale down rows that are longer than this.

    Returns:
      ``ids.shape + params.shape[1:]``.

    Raises:
      InvalidArgumentError: no tables, tables of different widths, or another strategy.
      InvalidTypeError: ids that are no ints.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> table = jnp.arange(8.0).reshape(4, 2)
      >>> print(jv.nn.embedding_lookup(table, [3, 0]))
      [[6. 7.]
       [0. 1.]]
      >>> print(jv.nn.embedding_lookup([table[:2], table[2:]], [1, 2], partition_strategy="mod"))
      [[4. 5.]
       [2. 3.]]
    """
    del name, validate_indices
    tables = _tables(params)
    numbers = jnp.asarray(ids)
    if not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise InvalidTypeError(f"embedding_lookup: ids are ints, got {numbers.dtype}. Cast: ids.astype(jnp.int32)")
    if partition_strategy not in ("mod", "div"):
        raise InvalidArgumentError(
            f'embedding_lookup: Unrecognized partition strategy: {partition_strategy!r}. It is "mod" or "div".'
        )
    if len(tables) == 1:
        table, position = tables[0], numbers
    else:
        table = jnp.concatenate(tables)
        position = _positions(numbers, [len(part) for part in tables], partition_strategy)
    position = jnp.where(position < 0, len(table), position)  # else JAX counts from the end
    rows = _taken(table, position)
    if max_norm is not None:
        axes = tuple(range(numbers.ndim, rows.ndim))
        length = jnp.sqrt(jnp.sum(jnp.square(rows), axis=axes, keepdims=True))
        rows = rows * max_norm / jnp.maximum(length, max_norm)
    return rows


def _taken(table: jax.Array, position: jax.Array) -> jax.Array:
    """The rows at these places; nan at those that are none."""
    spread = spread_over((position, range(position.ndim)), (table, range(1, table.ndim)))
    if spread is None:
        return jnp.take(table, position, axis=0, mode="fill")
    return table.at[position].get(mode="fill", out_sharding=spread)


def embedding_lookup_sparse(
    params: Any,
    sp_ids: Any,
    sp_weights: Any,
    partition_strategy: str = "mod",
    name: str | None = None,
    combiner: str | None = None,
    max_norm: float | None = None,
) -> jax.Array:
    """Combine the rows of a table that each example lists (`tf.nn.embedding_lookup_sparse`).

    Args:
      params: as in `embedding_lookup`.
      sp_ids: which rows, as a sparse matrix: an object with ``indices`` ``[n, 2]``, ``data`` (or ``values``)
        ``[n]``, ints, and ``shape``, such as `jax.experimental.sparse.BCOO`; its first index is the example.
      sp_weights: None for 1, or a sparse matrix of the same indices with the weights.
      partition_strategy: as in `embedding_lookup`.
      name: accepted for TF1's sake, without effect.
      combiner: "sum"; "mean" (the default), divided by the sum of the weights; "sqrtn", divided by the root of the
        sum of their squares.
      max_norm: as in `embedding_lookup`.

    Returns:
      ``[examples] + params.shape[1:]``; 0 for an example without rows.

    Raises:
      InvalidArgumentError: another combiner, or weights that do not fit.
      InvalidTypeError: `sp_ids` is not sparse, or as `embedding_lookup`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jax.experimental.sparse import BCOO
      >>> import jaxvars as jv
      >>> ids = BCOO((jnp.array([0, 2, 1]), jnp.array([[0, 0], [0, 1], [1, 0]])), shape=(2, 2))
      >>> print(jv.nn.embedding_lookup_sparse(jnp.eye(3), ids, None, combiner="sum"))
      [[1. 0. 1.]
       [0. 1. 0.]]
    """
    del name
    how = "mean" if combiner is None else combiner
    if how not in ("sum", "mean", "sqrtn"):
        raise InvalidArgumentError(
            f'embedding_lookup_sparse: combiner must be one of "mean", "sqrtn" or "sum", got {how!r}'
        )
    numbers = _values(sp_ids)
    rows = embedding_lookup(params, numbers, partition_strategy, max_norm=max_norm)
    weights = jnp.ones(numbers.shape, rows.dtype) if sp_weights is None else _values(sp_weights).astype(rows.dtype)
    if weights.shape != numbers.shape:
        raise InvalidArgumentError(
            f"embedding_lookup_sparse: {numbers.shape[0]} ids and {weights.shape} weights: they share their indices"
        )
    examples, segment = int(sp_ids.shape[0]), jnp.asarray(sp_ids.indices)[:, 0]
    spread = weights.reshape(-1, *[1] * (rows.ndim - 1))
    total = jax.ops.segment_sum(rows * spread, segment, examples)
    if how == "sum":
        return total
    size = jax.ops.segment_sum(weights if how == "mean" else jnp.square(weights), segment, examples)
    size = size if how == "mean" else jnp.sqrt(size)
    size = size.reshape(-1, *[1] * (rows.ndim - 1))
    return jnp.where(size == 0, 0, total / jnp.where(size == 0, 1, size))


def _values(sparse: Any) -> jax.Array:
    values = getattr(sparse, "values", None) if not hasattr(sparse, "data") else sparse.data
    if values is None or not hasattr(sparse, "indices") or not hasattr(sparse, "shape"):
        raise InvalidTypeError(
            "embedding_lookup_sparse takes sparse matrices such as jax.experimental.sparse.BCOO((values, indices), "
            f"shape=...), got {type(sparse).__name__}. For ids in a dense array write jv.nn.embedding_lookup"
        )
    return jnp.asarray(values)


def _tables(params: Any) -> list[jax.Array]:
    # A partitioned variable is told by its parts: this floor does not depend on where it is made.
    parts = params if isinstance(params, list | tuple) else list(params) if hasattr(params, "as_tensor") else [params]
    tables = [jnp.asarray(part) for part in parts]
    if not tables:
        raise InvalidArgumentError("embedding_lookup: Length of params is currently 0. Need at least one param.")
    shapes = [table.shape for table in tables]
    if any(table.ndim == 0 or shape[1:] != shapes[0][1:] for table, shape in zip(tables, shapes, strict=True)):
        raise InvalidArgumentError(f"embedding_lookup: params are tables [rows, ...] of one width, got shapes {shapes}")
    return tables


def _positions(ids: jax.Array, sizes: Sequence[int], strategy: str) -> jax.Array:
    """Where the rows are in the concatenated parts; -1 for a row that does not exist."""
    count = len(sizes)
    if strategy == "mod":
        part, inside = ids % count, ids // count
    else:
        each, longer = divmod(sum(sizes), count)
        # The first parts hold one row more than the others.
        part = jnp.maximum(ids // (each + 1), (ids - longer) // max(each, 1))
        inside = jnp.where(part < longer, ids % (each + 1), (ids - longer) % max(each, 1))
    exists = (ids >= 0) & (part < count)
    part = jnp.where(exists, part, 0)
    exists &= inside < jnp.asarray(np.asarray(sizes))[part]
    return jnp.where(exists, jnp.asarray(np.cumsum([0, *sizes[:-1]]))[part] + inside, -1)

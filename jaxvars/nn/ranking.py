"""The largest elements (`tf.nn.top_k`, `tf.nn.in_top_k`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError

__all__ = ["TopK", "in_top_k", "top_k"]


class TopK(NamedTuple):
    """The largest elements of each row.

    Attributes:
      values: ``[..., k]``, largest first.
      indices: ``[..., k]``, int32, where they were.
    """

    values: jax.Array
    indices: jax.Array


def top_k(input: Any, k: int = 1, sorted: bool = True, name: str | None = None) -> TopK:
    """Find the `k` largest elements along the last axis (`tf.nn.top_k`).

    Args:
      input: ``[..., n]`` with n >= k. Of equal elements the first comes first.
      k: how many.
      sorted: accepted for TF1's sake; they are sorted always.
      name: accepted for TF1's sake, without effect.

    Returns:
      ``values`` and ``indices``, each ``[..., k]``.

    Raises:
      InvalidArgumentError: a scalar, or rows shorter than `k`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> values, indices = jv.nn.top_k(jnp.array([1.0, 9.0, 5.0]), k=2)
      >>> print(values, indices)
      [9. 5.] [1 2]
    """
    del name, sorted
    x = jnp.asarray(input)
    if x.ndim == 0 or k < 0 or x.shape[-1] < k:
        raise InvalidArgumentError(f"top_k: input must have at least k columns, got shape {x.shape} and k={k}")
    values, indices = jax.lax.top_k(x, k)
    return TopK(values, indices)


def in_top_k(predictions: Any, targets: Any, k: int, name: str | None = None) -> jax.Array:
    """Say of each example whether its target is among the `k` best predictions (`tf.nn.in_top_k`).

    All classes that tie for the last place are in.

    Args:
      predictions: ``[batch, classes]``, floating.
      targets: ``[batch]``, ints. A target out of range, or with a prediction that is not finite, is not in.
      k: how many count.
      name: accepted for TF1's sake, without effect.

    Returns:
      ``[batch]``, bool.

    Raises:
      InvalidArgumentError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.in_top_k(jnp.array([[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]]), jnp.array([2, 0]), 2))
      [ True False]
    """
    del name
    scores, wanted = jnp.asarray(predictions), jnp.asarray(targets)
    if scores.ndim != 2 or wanted.shape != scores.shape[:1]:
        raise InvalidArgumentError(
            f"in_top_k: predictions are [batch, classes] and targets [batch], got {scores.shape} and {wanted.shape}"
        )
    inside = (wanted >= 0) & (wanted < scores.shape[1])
    index = jnp.where(inside, wanted, 0).reshape(-1, 1)
    chosen = jnp.take_along_axis(scores, index, 1, mode="fill")
    # A nan anywhere compares as not larger, as in TensorFlow, which asks for finite values of the target only.
    larger = jnp.sum((scores > chosen).astype(jnp.int32), 1)
    return inside & jnp.isfinite(chosen).reshape(-1) & (larger < k)

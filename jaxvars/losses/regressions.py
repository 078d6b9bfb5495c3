"""Losses of predicted values (`tf.losses`)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError
from jaxvars.losses.collected import collect_loss
from jaxvars.losses.weighted import Reduction, as_weights, divided, present, reduced
from jaxvars.scopes import GraphKeys

__all__ = [
    "absolute_difference",
    "cosine_distance",
    "huber_loss",
    "log_loss",
    "mean_pairwise_squared_error",
    "mean_squared_error",
]


def absolute_difference(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Return the mean of ``|predictions - labels|`` (`tf.losses.absolute_difference`).

    In a model the loss also joins a collection, which `get_total_loss` sums; outside of one it is only returned.

    Args:
      labels: the truth, of the shape of `predictions`.
      predictions: any array.
      weights: a number, or an array of the rank of the predictions, with lengths 1 or theirs.
      scope: the name scope of the loss, for `get_losses`.
      loss_collection: the collection that the loss joins; None for none.
      reduction: one of `Reduction`; by default the mean over elements whose weight is not 0.

    Returns:
      A float32 scalar (float64 for float64 predictions); with `Reduction.NONE` an array like `predictions`.

    Raises:
      InvalidArgumentError: shapes that differ, weights that cannot be broadcast, an argument missing.
      FailedPreconditionError: inside a JAX transform of a model; pass ``loss_collection=None`` and return the loss.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.losses.absolute_difference([1.0, 2.0], [3.0, 6.0]))
      3.0
    """
    truth, guess = pair("absolute_difference", labels, predictions)
    loss = reduced("absolute_difference", jnp.abs(guess - truth), weights, reduction)
    return collect_loss(loss, scope, "absolute_difference", loss_collection)


def mean_squared_error(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Return the mean of ``(predictions - labels) ** 2`` (`tf.losses.mean_squared_error`).

    Args, result and errors as `absolute_difference`.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.losses.mean_squared_error([1.0, 2.0], [3.0, 6.0]))
      10.0
    """
    truth, guess = pair("mean_squared_error", labels, predictions)
    loss = reduced("mean_squared_error", jnp.square(guess - truth), weights, reduction)
    return collect_loss(loss, scope, "mean_squared_error", loss_collection)


def huber_loss(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    delta: float = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Return the mean of half the squares of small errors, and of the size of large ones (`tf.losses.huber_loss`).

    ``0.5 * e ** 2`` where the error ``|e|`` is at most `delta`, else ``delta * (|e| - delta / 2)``. Other arguments,
    result and errors as `absolute_difference`.

    Args:
      labels: the truth, of the shape of `predictions`.
      predictions: any array.
      weights: as in `absolute_difference`, as what follows.
      delta: where the loss becomes linear.
      scope: likewise.
      loss_collection: likewise.
      reduction: likewise.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.losses.huber_loss([0.0, 0.0], [1.0, 3.0]))
      1.5
    """
    truth, guess = pair("huber_loss", labels, predictions)
    error = jnp.abs(guess - truth)
    small = jnp.minimum(error, delta)
    loss = reduced("huber_loss", 0.5 * small * small + delta * (error - small), weights, reduction)
    return collect_loss(loss, scope, "huber_loss", loss_collection)


def log_loss(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    epsilon: float = 1e-7,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Return the mean cross entropy of predicted probabilities of yes or no (`tf.losses.log_loss`).

    ``-labels * log(predictions + epsilon) - (1 - labels) * log(1 - predictions + epsilon)``. Other arguments, result
    and errors as `absolute_difference`. Of logits, `sigmoid_cross_entropy` is more exact.

    Args:
      labels: probabilities, of the shape of `predictions`.
      predictions: probabilities.
      weights: as in `absolute_difference`, as what follows.
      epsilon: keeps the logarithm finite.
      scope: likewise.
      loss_collection: likewise.
      reduction: likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jnp.exp(-jv.losses.log_loss([1.0, 0.0], [0.25, 0.75])).round(4))
      0.25
    """
    truth, guess = pair("log_loss", labels, predictions)
    losses = -truth * jnp.log(guess + epsilon) - (1 - truth) * jnp.log(1 - guess + epsilon)
    loss = reduced("log_loss", losses, weights, reduction)
    return collect_loss(loss, scope, "log_loss", loss_collection)


def cosine_distance(
    labels: Any,
    predictions: Any,
    axis: int | None = None,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
    dim: int | None = None,
) -> jax.Array:
    """Return the mean of one minus the cosine of vectors of length 1 (`tf.losses.cosine_distance`).

    ``1 - sum(labels * predictions)`` along `axis`. Other arguments, result and errors as `absolute_difference`.

    Args:
      labels: vectors, of the shape of `predictions`.
      predictions: vectors of length 1, see `jv.nn.l2_normalize`.
      axis: the axis of a vector.
      weights: as in `absolute_difference`, where the losses have length 1 along `axis`.
      scope: as in `absolute_difference`, as what follows.
      loss_collection: likewise.
      reduction: likewise.
      dim: the older name of `axis`.

    Raises:
      InvalidArgumentError: no axis, or both `axis` and `dim`.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.losses.cosine_distance([[1.0, 0.0]], [[0.0, 1.0]], axis=1))
      1.0
    """
    if axis is not None and dim is not None:
        raise InvalidArgumentError("cosine_distance: Cannot specify both 'axis' and 'dim': write axis")
    along = dim if axis is None else axis
    if along is None:
        raise InvalidArgumentError("cosine_distance: You must specify argument `axis`, the axis of a vector: axis=-1")
    truth, guess = pair("cosine_distance", labels, predictions)
    if not -guess.ndim <= along < guess.ndim:
        raise InvalidArgumentError(f"cosine_distance: axis {along} is out of range for predictions of {guess.shape}")
    losses = 1 - jnp.sum(truth * guess, along, keepdims=True)
    loss = reduced("cosine_distance", losses, weights, reduction)
    return collect_loss(loss, scope, "cosine_distance_loss", loss_collection)


def mean_pairwise_squared_error(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
) -> jax.Array:
    """Return how much differences between elements are off, squared (`tf.losses.mean_pairwise_squared_error`).

    For each example, the mean over all pairs of elements of ``((p_i - p_j) - (l_i - l_j)) ** 2``; the sum of that
    over the examples, each times its weight.

    Args:
      labels: ``[batch, ...]``, of the shape of `predictions`.
      predictions: any array of rank 1 or more.
      weights: a number, or one per example with the rank of the predictions; an example of weight 0 has no loss.
      scope: the name scope of the loss, for `get_losses`.
      loss_collection: the collection that the loss joins; None for none.

    Returns:
      A float32 scalar (float64 for float64 predictions).

    Raises:
      InvalidArgumentError: shapes that differ, a scalar, or weights that cannot be broadcast.
      FailedPreconditionError: inside a JAX transform of a model; pass ``loss_collection=None`` and return the loss.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.losses.mean_pairwise_squared_error([[1.0, 2.0]], [[1.0, 5.0]]))
      9.0
    """
    op = "mean_pairwise_squared_error"
    truth, guess = pair(op, labels, predictions)
    if guess.ndim == 0:
        raise InvalidArgumentError(f"{op}: predictions are [batch, ...], got a scalar")
    error = guess - truth
    factors = as_weights(op, weights, error)
    inner = tuple(range(1, error.ndim))
    count = jnp.sum(present(factors, error), inner, keepdims=True)
    squares = divided(jnp.sum(jnp.square(error), inner, keepdims=True), jnp.maximum(count - 1, 0))
    square = divided(jnp.square(jnp.sum(error, inner, keepdims=True)), jnp.maximum(count * (count - 1), 0))
    total = jnp.sum(2 * (squares - square) * factors)
    loss = jnp.where(jnp.sum(count) > 0, total, 0)
    return collect_loss(loss, scope, op, loss_collection)


def pair(
    op: str, labels: Any, predictions: Any, label: str = "labels", prediction: str = "predictions"
) -> tuple[jax.Array, jax.Array]:
    """Return labels and predictions as arrays of one shape and floating dtype, at least float32."""
    for argument, value in ((label, labels), (prediction, predictions)):
        if value is None:
            raise InvalidArgumentError(f"{op}: {argument} must not be None.")
    truth, guess = jnp.asarray(labels), jnp.asarray(predictions)
    if truth.shape != guess.shape:
        raise InvalidArgumentError(
            f"{op}: Shapes {guess.shape} and {truth.shape} are incompatible: {prediction} and {label} have one shape. "
            f"Reshape one: jnp.reshape({label}, {prediction}.shape)"
        )
    dtype = jnp.promote_types(guess.dtype, jnp.float32)
    return truth.astype(dtype), guess.astype(dtype)

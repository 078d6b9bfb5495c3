"""Means over all batches (`tf.metrics`)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxvars.metrics._running import (
    Collections,
    Metric,
    agreeing,
    metric_scope,
    metric_variable,
    ratio,
    returned,
    weights_like,
)

__all__ = [
    "accuracy",
    "mean",
    "mean_absolute_error",
    "mean_cosine_distance",
    "mean_relative_error",
    "mean_squared_error",
    "mean_tensor",
    "percentage_below",
    "root_mean_squared_error",
]


def mean(
    values: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the weighted mean of all values so far (`tf.metrics.mean`).

    Variables ``<scope>/total`` and ``<scope>/count``, in LOCAL_VARIABLES and METRIC_VARIABLES; the scope is `name`, or
    ``mean``, ``mean_1``, ... Each call counts its values at once: there is no update op to run, but ``model.apply``
    returns the new variables, which must be kept. `jv.metrics.reset` starts anew.

    Args:
      values: any array.
      weights: None for 1, a number, or an array of the rank of the values with lengths 1 or theirs.
      metrics_collections: collections that the result joins.
      updates_collections: likewise.
      name: the scope's name, taken as it is.

    Returns:
      ``(value, update_op)``, as in TF1; both are the mean with this batch, a float32 scalar.

    Raises:
      InvalidArgumentError: weights that cannot be broadcast.
      FailedPreconditionError: outside of a frame.
      TransformError: under ``vmap``, which cannot carry the assignment.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.metrics.mean(x)[0])
      >>> _, variables = model.apply(model.init(0, jnp.zeros(3)), jnp.array([1.0, 2.0, 3.0]))
      >>> value, variables = model.apply(variables, jnp.array([6.0, 6.0, 6.0]))
      >>> print(value, variables["mean/count"])
      4.0 6.0
    """
    array = jnp.asarray(values).astype(jnp.float32)
    factors = weights_like("mean", weights, array)
    with metric_scope(name, "mean"):
        total = metric_variable((), "total").assign_add(jnp.sum(array * factors))
        count = metric_variable((), "count").assign_add(jnp.sum(factors))
    return returned(ratio(total, count), metrics_collections, updates_collections)


def mean_tensor(
    values: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the weighted mean of each element over all calls so far (`tf.metrics.mean_tensor`).

    Variables ``<scope>/total_tensor`` and ``<scope>/count_tensor``. Args, result and errors as `mean`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.mean_tensor(jnp.array([1.0, 2.0]))[0])
      [1. 2.]
    """
    array = jnp.asarray(values).astype(jnp.float32)
    factors = weights_like("mean_tensor", weights, array)
    with metric_scope(name, "mean"):
        total = metric_variable(array.shape, "total_tensor").assign_add(array * factors)
        count = metric_variable(array.shape, "count_tensor").assign_add(factors)
    return returned(ratio(total, count), metrics_collections, updates_collections)


def accuracy(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return how often predictions were the labels (`tf.metrics.accuracy`).

    Variables ``accuracy/total`` and ``accuracy/count``. Weights, result and errors as `mean`.

    Args:
      labels: the truth, of the shape of `predictions`.
      predictions: classes, not logits: ``jnp.argmax(logits, -1)``.
      weights: as in `mean`, as what follows.
      metrics_collections: likewise.
      updates_collections: likewise.
      name: likewise.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0) as store:
      ...     print(jv.metrics.accuracy([1, 2, 3], [1, 0, 3])[0])
      ...     print(list(store.variables))
      0.6666667
      ['accuracy/count', 'accuracy/total']
    """
    truth, guess = agreeing("accuracy", labels, predictions)
    right = guess.astype(truth.dtype) == truth
    return mean(right, weights, metrics_collections, updates_collections, name or "accuracy")


def mean_absolute_error(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the mean of ``|predictions - labels|`` (`tf.metrics.mean_absolute_error`); as `accuracy` otherwise.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.mean_absolute_error([1.0, 2.0], [3.0, 6.0])[0])
      3.0
    """
    truth, guess = agreeing("mean_absolute_error", labels, predictions)
    error = jnp.abs(guess - truth)
    return mean(error, weights, metrics_collections, updates_collections, name or "mean_absolute_error")


def mean_squared_error(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the mean of ``(predictions - labels) ** 2`` (`tf.metrics.mean_squared_error`); as `accuracy` otherwise.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.mean_squared_error([1.0, 2.0], [3.0, 6.0])[0])
      10.0
    """
    truth, guess = agreeing("mean_squared_error", labels, predictions)
    error = jnp.square(guess - truth)
    return mean(error, weights, metrics_collections, updates_collections, name or "mean_squared_error")


def root_mean_squared_error(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the root of `mean_squared_error` (`tf.metrics.root_mean_squared_error`).

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.root_mean_squared_error([1.0, 2.0], [1.0, 4.0])[0])
      1.4142135
    """
    value, _ = mean_squared_error(labels, predictions, weights, None, None, name or "root_mean_squared_error")
    return returned(jnp.sqrt(value), metrics_collections, updates_collections)


def mean_relative_error(
    labels: Any,
    predictions: Any,
    normalizer: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the mean of ``|predictions - labels| / normalizer`` (`tf.metrics.mean_relative_error`).

    Where the normalizer, of the shape of the labels, is 0, so is the error. As `accuracy` otherwise.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.mean_relative_error([1.0, 2.0], [3.0, 6.0], [2.0, 0.0])[0])
      0.5
    """
    truth, guess = agreeing("mean_relative_error", labels, predictions)
    scale, guess = agreeing("mean_relative_error", normalizer, guess)
    error = ratio(jnp.abs(truth - guess), scale)
    return mean(error, weights, metrics_collections, updates_collections, name or "mean_relative_error")


def mean_cosine_distance(
    labels: Any,
    predictions: Any,
    dim: int,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the mean of one minus the cosine of vectors of length 1 (`tf.metrics.mean_cosine_distance`).

    `dim` is the axis of a vector; weights have length 1 along it. As `accuracy` otherwise.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.mean_cosine_distance([[1.0, 0.0]], [[0.0, 1.0]], dim=1)[0])
      1.0
    """
    truth, guess = agreeing("mean_cosine_distance", labels, predictions)
    cosine = jnp.sum(truth * guess, dim, keepdims=True)
    value, _ = mean(cosine, weights, None, None, name or "mean_cosine_distance")
    return returned(1 - value, metrics_collections, updates_collections)


def percentage_below(
    values: Any,
    threshold: float,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return how large a part of the values is below a threshold (`tf.metrics.percentage_below`).

    Variables under ``percentage_below_threshold``. As `mean` otherwise.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.percentage_below([1.0, 2.0, 3.0, 4.0], 2.0)[0])
      0.25
    """
    below = jnp.asarray(values) < threshold
    return mean(below, weights, metrics_collections, updates_collections, name or "percentage_below_threshold")

"""Counts of right and wrong answers over all batches (`tf.metrics`)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError
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
    "auc",
    "false_negatives",
    "false_positives",
    "mean_iou",
    "mean_per_class_accuracy",
    "precision",
    "recall",
    "true_negatives",
    "true_positives",
]

_EPSILON = 1e-7


def true_positives(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Count what was predicted and is so (`tf.metrics.true_positives`).

    Variable ``true_positives/count``. Labels and predictions are bools, or numbers that are 0 or not. As
    `jv.metrics.mean` otherwise, but that the result is a sum of weights.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.true_positives([1, 1, 0], [1, 0, 1])[0])
      1.0
    """
    arguments = (labels, predictions, weights, metrics_collections, updates_collections, name)
    return _count("true_positives", True, True, *arguments)


def true_negatives(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Count what was not predicted and is not so (`tf.metrics.true_negatives`); as `true_positives`.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.true_negatives([1, 0, 0], [0, 0, 0])[0])
      2.0
    """
    arguments = (labels, predictions, weights, metrics_collections, updates_collections, name)
    return _count("true_negatives", False, False, *arguments)


def false_positives(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Count what was predicted and is not so (`tf.metrics.false_positives`); as `true_positives`.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.false_positives([1, 0, 0], [1, 1, 1])[0])
      2.0
    """
    arguments = (labels, predictions, weights, metrics_collections, updates_collections, name)
    return _count("false_positives", False, True, *arguments)


def false_negatives(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Count what was not predicted and is so (`tf.metrics.false_negatives`); as `true_positives`.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.false_negatives([1, 1, 0], [0, 1, 0])[0])
      1.0
    """
    arguments = (labels, predictions, weights, metrics_collections, updates_collections, name)
    return _count("false_negatives", True, False, *arguments)


def _count(
    metric: str,
    label: bool,
    prediction: bool,
    labels: Any,
    predictions: Any,
    weights: Any,
    metrics_collections: Collections,
    updates_collections: Collections,
    name: str | None,
) -> Metric:
    """Count where label and prediction are these two."""
    truth, guess = agreeing(metric, labels, predictions)
    hits = (truth.astype(bool) == label) & (guess.astype(bool) == prediction)
    factors = weights_like(metric, weights, hits)
    with metric_scope(name, metric):
        count = metric_variable((), "count").assign_add(jnp.sum(jnp.where(hits, factors, 0)))
    return returned(count, metrics_collections, updates_collections)


def precision(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return how much of what was predicted is so (`tf.metrics.precision`); arguments as `true_positives`.

    Variables ``precision/true_positives/count`` and ``precision/false_positives/count``. 0 where nothing was predicted.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.precision([1, 0, 1, 0], [1, 1, 1, 1])[0])
      0.5
    """
    with metric_scope(name, "precision"):
        right, _ = true_positives(labels, predictions, weights)
        wrong, _ = false_positives(labels, predictions, weights)
    return returned(ratio(right, right + wrong), metrics_collections, updates_collections)


def recall(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return how much of what is so was predicted (`tf.metrics.recall`); arguments as `true_positives`.

    Variables ``recall/true_positives/count`` and ``recall/false_negatives/count``. 0 where nothing is so.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.recall([1, 1, 1, 1], [1, 0, 0, 0])[0])
      0.25
    """
    with metric_scope(name, "recall"):
        found, _ = true_positives(labels, predictions, weights)
        missed, _ = false_negatives(labels, predictions, weights)
    return returned(ratio(found, found + missed), metrics_collections, updates_collections)


def mean_per_class_accuracy(
    labels: Any,
    predictions: Any,
    num_classes: int,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the mean over classes of how often each was recognized (`tf.metrics.mean_per_class_accuracy`).

    Variables ``mean_accuracy/total`` and ``mean_accuracy/count``, ``[num_classes]``. A class that never came counts
    as never recognized. Labels and predictions are ints in ``[0, num_classes)``; as `jv.metrics.mean` otherwise.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.mean_per_class_accuracy([0, 1, 1, 1], [0, 0, 1, 0], 2)[0])
      0.6666667
    """
    truth, guess, factors = _flat_classes("mean_per_class_accuracy", labels, predictions, weights)
    with metric_scope(name, "mean_accuracy"):
        total = metric_variable((num_classes,), "total").scatter_add(truth, factors)
        count = metric_variable((num_classes,), "count").scatter_add(truth, jnp.where(truth == guess, factors, 0))
    return returned(jnp.mean(ratio(count, total)), metrics_collections, updates_collections)


def mean_iou(
    labels: Any,
    predictions: Any,
    num_classes: int,
    weights: Any = None,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    name: str | None = None,
) -> Metric:
    """Return the mean over classes of intersection over union (`tf.metrics.mean_iou`).

    Variable ``mean_iou/total_confusion_matrix`` ``[num_classes, num_classes]``, float32 where TF1 has float64. Classes
    that came neither as label nor as prediction do not count. As `mean_per_class_accuracy` otherwise.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.metrics.mean_iou([0, 1, 1, 1], [0, 0, 1, 1], 3)[0])
      0.5833334
    """
    truth, guess, factors = _flat_classes("mean_iou", labels, predictions, weights)
    with metric_scope(name, "mean_iou"):
        matrix = metric_variable((num_classes, num_classes), "total_confusion_matrix")
        counts = matrix.scatter_nd_add(jnp.stack([truth, guess], 1), factors)
    both = jnp.diagonal(counts)
    either = jnp.sum(counts, 0) + jnp.sum(counts, 1) - both
    value = ratio(jnp.sum(ratio(both, either)), jnp.sum((either != 0).astype(jnp.float32)))
    return returned(value, metrics_collections, updates_collections)


def _flat_classes(metric: str, labels: Any, predictions: Any, weights: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    truth, guess = agreeing(metric, labels, predictions)
    factors = weights_like(metric, weights, truth)
    return truth.astype(jnp.int32).reshape(-1), guess.astype(jnp.int32).reshape(-1), factors.reshape(-1)


def auc(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    num_thresholds: int = 200,
    metrics_collections: Collections = None,
    updates_collections: Collections = None,
    curve: str = "ROC",
    name: str | None = None,
    summation_method: str = "trapezoidal",
) -> Metric:
    """Approximate the area under a curve by counts at some thresholds (`tf.metrics.auc`).

    Variables ``auc/true_positives``, ``false_negatives``, ``true_negatives``, ``false_positives``,
    ``[num_thresholds]``. As `jv.metrics.mean` otherwise.

    Args:
      labels: bools, or numbers that are 0 or not, of the shape of `predictions`.
      predictions: probabilities in [0, 1].
      weights: as in `jv.metrics.mean`.
      num_thresholds: how many thresholds, evenly spaced.
      metrics_collections: as in `jv.metrics.mean`, as the next.
      updates_collections: likewise.
      curve: "ROC", or "PR" for precision over recall.
      name: the scope's name, taken as it is.
      summation_method: "trapezoidal", "minoring", "majoring", or for "PR" "careful_interpolation".

    Raises:
      InvalidArgumentError: an unknown curve or method, or fewer than two thresholds.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     area, _ = jv.metrics.auc([0, 0, 1, 1], [0.0, 0.5, 0.3, 0.9])
      >>> print(f"{area:.3f}")
      0.750
    """
    methods = ("trapezoidal", "minoring", "majoring", "careful_interpolation")
    if curve not in ("ROC", "PR") or summation_method not in methods or num_thresholds < 2:
        raise InvalidArgumentError(
            f"auc: curve must be either ROC or PR, {curve!r} is unknown; summation_method is one of {methods}, got "
            f"{summation_method!r}; num_thresholds is at least 2, got {num_thresholds}"
        )
    if curve == "ROC" and summation_method == methods[3]:
        raise InvalidArgumentError("auc: careful_interpolation is for curve='PR'; of a ROC write trapezoidal")
    truth, guess = agreeing("auc", labels, predictions)
    factors = weights_like("auc", weights, guess).reshape(1, -1)
    inner = [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
    limits = jnp.asarray([-_EPSILON, *inner, 1 + _EPSILON], jnp.float32).reshape(-1, 1)
    above, so = guess.reshape(1, -1) > limits, truth.astype(bool).reshape(1, -1)
    with metric_scope(name, "auc"):
        tp, fn, tn, fp = (
            metric_variable((num_thresholds,), part).assign_add(jnp.sum(jnp.where(hits, factors, 0), 1))
            for part, hits in (
                ("true_positives", so & above),
                ("false_negatives", so & ~above),
                ("true_negatives", ~so & ~above),
                ("false_positives", ~so & above),
            )
        )
    if summation_method == methods[3]:
        area = _interpolated(tp, fn, fp)
    else:
        found = (tp + _EPSILON) / (tp + fn + _EPSILON)
        x, y = (fp / (fp + tn + _EPSILON), found) if curve == "ROC" else (found, (tp + _EPSILON) / (tp + fp + _EPSILON))
        heights = {"trapezoidal": (y[:-1] + y[1:]) / 2, "minoring": jnp.minimum(y[:-1], y[1:])}
        area = jnp.sum((x[:-1] - x[1:]) * heights.get(summation_method, jnp.maximum(y[:-1], y[1:])))
    return returned(area, metrics_collections, updates_collections)


def _interpolated(tp: jax.Array, fn: jax.Array, fp: jax.Array) -> jax.Array:
    """The area under precision over recall where true positives grow evenly with all positives between thresholds."""
    positives = tp + fp
    rise = tp[:-1] - tp[1:]
    slope = ratio(rise, jnp.maximum(positives[:-1] - positives[1:], 0))
    start = tp[1:] - slope * positives[1:]
    known = (positives[:-1] > 0) & (positives[1:] > 0)
    growth = jnp.where(known, ratio(positives[:-1], jnp.maximum(positives[1:], 0)), 1)
    return jnp.sum(ratio(slope * (rise + start * jnp.log(growth)), jnp.maximum(tp[1:] + fn[1:], 0)))

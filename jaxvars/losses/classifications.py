"""Losses of predicted classes (`tf.losses`)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvars import nn
from jaxvars.errors import InvalidArgumentError
from jaxvars.losses.collected import collect_loss
from jaxvars.losses.regressions import pair
from jaxvars.losses.weighted import Reduction, reduced
from jaxvars.scopes import GraphKeys

__all__ = ["hinge_loss", "sigmoid_cross_entropy", "softmax_cross_entropy", "sparse_softmax_cross_entropy"]


def softmax_cross_entropy(
    onehot_labels: Any,
    logits: Any,
    weights: Any = 1.0,
    label_smoothing: float = 0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Return the mean cross entropy of a softmax and class probabilities (`tf.losses.softmax_cross_entropy`).

    In a model the loss also joins a collection, which `get_total_loss` sums; outside of one it is only returned.

    Args:
      onehot_labels: ``[batch, classes]``, probabilities. No gradients flow into them.
      logits: ``[batch, classes]``, before the softmax.
      weights: a number, or one per example: ``[batch]``.
      label_smoothing: how much of each label is spread evenly over all classes.
      scope: the name scope of the loss, for `get_losses`.
      loss_collection: the collection that the loss joins; None for none.
      reduction: one of `Reduction`; by default the mean over examples whose weight is not 0.

    Returns:
      A scalar in the dtype of `logits`; with `Reduction.NONE` one value per example.

    Raises:
      InvalidArgumentError: shapes that differ, weights that cannot be broadcast, an argument missing.
      InvalidTypeError: integer logits.
      FailedPreconditionError: inside a JAX transform of a model; pass ``loss_collection=None`` and return the loss.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> logits = jnp.log(jnp.array([[0.25, 0.75]]))
      >>> print(jnp.exp(-jv.losses.softmax_cross_entropy([[0, 1]], logits)))
      0.75
    """
    op = "softmax_cross_entropy"
    scores, truth = _same_shape(op, logits, onehot_labels, "onehot_labels")
    truth = truth.astype(scores.dtype)
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + label_smoothing / scores.shape[-1]
    losses = nn.softmax_cross_entropy_with_logits(labels=truth, logits=scores)
    return collect_loss(reduced(op, losses, weights, reduction), scope, f"{op}_loss", loss_collection)


def sparse_softmax_cross_entropy(
    labels: Any,
    logits: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Return the mean cross entropy of a softmax and class numbers (`tf.losses.sparse_softmax_cross_entropy`).

    Args:
      labels: ``[batch]`` or ``[batch, 1]``, ints in ``[0, classes)``; the loss of another label is nan.
      logits: ``[batch, classes]``, before the softmax.
      weights: a number, or one per example: ``[batch]`` or ``[batch, 1]``.
      scope: as in `softmax_cross_entropy`, as what follows.
      loss_collection: likewise.
      reduction: likewise.

    Returns:
      A scalar in the dtype of `logits`; with `Reduction.NONE` one value per example.

    Raises:
      As `softmax_cross_entropy`; InvalidTypeError for labels that are no ints.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> logits = jnp.log(jnp.array([[0.25, 0.75]]))
      >>> print(jnp.exp(-jv.losses.sparse_softmax_cross_entropy([1], logits)))
      0.75
    """
    op = "sparse_softmax_cross_entropy"
    for argument, value in (("labels", labels), ("logits", logits)):
        if value is None:
            raise InvalidArgumentError(f"{op}: {argument} must not be None.")
    scores, numbers, factors = jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(weights)
    if numbers.ndim == scores.ndim and numbers.shape[-1] == 1:
        numbers = numbers.reshape(numbers.shape[:-1])
    if factors.ndim == numbers.ndim + 1 and factors.shape[-1] == 1:
        factors = factors.reshape(factors.shape[:-1])
    losses = nn.sparse_softmax_cross_entropy_with_logits(labels=numbers, logits=scores)
    return collect_loss(reduced(op, losses, factors, reduction), scope, f"{op}_loss", loss_collection)


def sigmoid_cross_entropy(
    multi_class_labels: Any,
    logits: Any,
    weights: Any = 1.0,
    label_smoothing: float = 0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Return the mean cross entropy of sigmoids and probabilities (`tf.losses.sigmoid_cross_entropy`).

    Args:
      multi_class_labels: ``[batch, classes]``, probabilities, each class on its own.
      logits: ``[batch, classes]``, before the sigmoid.
      weights: a number, or an array of the rank of the logits with lengths 1 or theirs.
      label_smoothing: how much of each label is drawn towards 1/2.
      scope: as in `softmax_cross_entropy`, as what follows.
      loss_collection: likewise.
      reduction: likewise.

    Returns:
      A scalar in the dtype of `logits`; with `Reduction.NONE` an array like `logits`.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jnp.exp(-jv.losses.sigmoid_cross_entropy([[0.0, 1.0]], [[0.0, 0.0]])))
      0.5
    """
    op = "sigmoid_cross_entropy"
    scores, truth = _same_shape(op, logits, multi_class_labels, "multi_class_labels")
    truth = truth.astype(scores.dtype)
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + 0.5 * label_smoothing
    losses = nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=scores)
    return collect_loss(reduced(op, losses, weights, reduction), scope, f"{op}_loss", loss_collection)


def hinge_loss(
    labels: Any,
    logits: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Return the mean of how far logits are from the right side of 1 or -1 (`tf.losses.hinge_loss`).

    ``max(0, 1 - logits)`` where the label is 1, ``max(0, 1 + logits)`` where it is 0.

    Args:
      labels: 0 or 1, of the shape of `logits`.
      logits: any array.
      weights: a number, or an array of the rank of the logits with lengths 1 or theirs.
      scope: as in `softmax_cross_entropy`, as what follows.
      loss_collection: likewise.
      reduction: likewise.

    Returns:
      A float32 scalar (float64 for float64 logits); with `Reduction.NONE` an array like `logits`.

    Raises:
      As `softmax_cross_entropy`.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.losses.hinge_loss([1.0, 0.0], [0.5, 1.0]))
      1.25
    """
    truth, scores = pair("hinge_loss", labels, logits, "labels", "logits")
    losses = jax.nn.relu(1 - (2 * truth - 1) * scores)
    return collect_loss(reduced("hinge_loss", losses, weights, reduction), scope, "hinge_loss", loss_collection)


def _same_shape(op: str, logits: Any, labels: Any, label: str) -> tuple[jax.Array, jax.Array]:
    """Logits, in their own dtype, and labels of their shape."""
    pair(op, labels, logits, label, "logits")
    return jnp.asarray(logits), jnp.asarray(labels)

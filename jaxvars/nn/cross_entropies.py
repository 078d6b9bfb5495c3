"""Cross entropies of logits, one value per example or element (`tf.nn`)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "log_poisson_loss",
    "sigmoid_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits_v2",
    "sparse_softmax_cross_entropy_with_logits",
    "weighted_cross_entropy_with_logits",
]


def softmax_cross_entropy_with_logits_v2(
    labels: Any, logits: Any, axis: int | None = None, name: str | None = None, dim: int | None = None
) -> jax.Array:
    """Return the cross entropy of a softmax and class probabilities (`tf.nn.softmax_cross_entropy_with_logits_v2`).

    Args:
      labels: probabilities, of the shape of `logits` or one that broadcasts to it. Gradients flow into them.
      logits: ``[..., classes]``, floating, before the softmax.
      axis: the axis of the classes, by default the last.
      name: accepted for TF1's sake, without effect.
      dim: the older name of `axis`.

    Returns:
      ``[...]``: one value per example, in the dtype of `logits`. float16 and bfloat16 are computed in float32.

    Raises:
      InvalidArgumentError: shapes that do not fit, an argument missing, or both `axis` and `dim`.
      InvalidTypeError: integer logits.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> logits = jnp.log(jnp.array([[0.25, 0.75]]))
      >>> print(jnp.exp(-jv.nn.softmax_cross_entropy_with_logits_v2(jnp.array([[0.0, 1.0]]), logits)))
      [0.75]
    """
    del name
    if axis is not None and dim is not None:
        raise InvalidArgumentError("softmax_cross_entropy_with_logits: Cannot specify both 'axis' and 'dim'")
    given = dim if axis is None else axis
    over = -1 if given is None else given
    scores, probabilities = _pair("softmax_cross_entropy_with_logits", labels, logits)
    if scores.ndim == 0 or not -scores.ndim <= over < scores.ndim:
        raise InvalidArgumentError(
            f"softmax_cross_entropy_with_logits: axis {over} is out of range for logits of shape {scores.shape}"
        )
    wide = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    losses = -jnp.sum(probabilities.astype(wide.dtype) * jax.nn.log_softmax(wide, over), over)
    return losses.astype(scores.dtype)


def softmax_cross_entropy_with_logits(
    _sentinel: Any = None,
    labels: Any = None,
    logits: Any = None,
    dim: int = -1,
    name: str | None = None,
    axis: int | None = None,
) -> jax.Array:
    """Return the cross entropy of a softmax and class probabilities (`tf.nn.softmax_cross_entropy_with_logits`).

    As `softmax_cross_entropy_with_logits_v2`, but no gradients flow into the labels, and all arguments are given
    by name, as in TF1.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> logits = jnp.log(jnp.array([[0.25, 0.75]]))
      >>> print(jnp.exp(-jv.nn.softmax_cross_entropy_with_logits(labels=jnp.array([[0.0, 1.0]]), logits=logits)))
      [0.75]
    """
    _named("softmax_cross_entropy_with_logits", _sentinel, labels, logits)
    fixed = jax.lax.stop_gradient(jnp.asarray(labels))
    return softmax_cross_entropy_with_logits_v2(fixed, logits, dim if axis is None else axis, name)


def sparse_softmax_cross_entropy_with_logits(
    _sentinel: Any = None, labels: Any = None, logits: Any = None, name: str | None = None
) -> jax.Array:
    """Return the cross entropy of a softmax and class numbers (`tf.nn.sparse_softmax_cross_entropy_with_logits`).

    Args:
      _sentinel: keeps arguments from being given by position, as in TF1.
      labels: ``[...]``, ints in ``[0, classes)``. The loss of another label is nan, as TF1's is on a GPU.
      logits: ``[..., classes]``, floating.
      name: accepted for TF1's sake, without effect.

    Returns:
      ``[...]``: one value per example, in the dtype of `logits`. float16 and bfloat16 are computed in float32.

    Raises:
      InvalidArgumentError: shapes that do not fit, an argument missing, or arguments by position.
      InvalidTypeError: labels that are no ints, or integer logits.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> logits = jnp.log(jnp.array([[0.25, 0.75]]))
      >>> print(jnp.exp(-jv.nn.sparse_softmax_cross_entropy_with_logits(labels=jnp.array([1]), logits=logits)))
      [0.75]
    """
    del name
    op = "sparse_softmax_cross_entropy_with_logits"
    _named(op, _sentinel, labels, logits)
    scores, numbers = _floating(op, logits), jnp.asarray(labels)
    if not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise InvalidTypeError(f"{op}: labels are ints, got {numbers.dtype}. Cast: labels.astype(jnp.int32)")
    if scores.ndim != numbers.ndim + 1 or scores.shape[:-1] != numbers.shape:
        raise InvalidArgumentError(
            f"{op}: `labels.shape.rank` must equal `logits.shape.rank - 1`, and the shapes be equal but for the "
            f"classes. Received: labels.shape={numbers.shape} and logits.shape={scores.shape}"
        )
    logs = jax.nn.log_softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)))
    index = jnp.where(numbers < 0, scores.shape[-1], numbers)  # else JAX counts from the end
    chosen = jnp.take_along_axis(logs, index.reshape(*index.shape, 1), -1, mode="fill")
    return -chosen.reshape(numbers.shape).astype(scores.dtype)


def sigmoid_cross_entropy_with_logits(
    _sentinel: Any = None, labels: Any = None, logits: Any = None, name: str | None = None
) -> jax.Array:
    """Return the cross entropy of sigmoids and probabilities (`tf.nn.sigmoid_cross_entropy_with_logits`).

    Args:
      _sentinel: keeps arguments from being given by position, as in TF1.
      labels: probabilities of the shape of `logits`.
      logits: any floating array, before the sigmoid.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array like `logits`.

    Raises:
      InvalidArgumentError: shapes that differ, an argument missing, or arguments by position.
      InvalidTypeError: integer logits.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> loss = jv.nn.sigmoid_cross_entropy_with_logits(labels=jnp.array([1.0]), logits=jnp.zeros(1))
      >>> print(jnp.exp(-loss))
      [0.5]
    """
    del name
    op = "sigmoid_cross_entropy_with_logits"
    _named(op, _sentinel, labels, logits)
    x, z = _equal(op, labels, logits)
    positive, size = _parts(x)
    return positive - x * z + jnp.log1p(jnp.exp(-size))


def weighted_cross_entropy_with_logits(
    labels: Any = None, logits: Any = None, pos_weight: Any = None, name: str | None = None, targets: Any = None
) -> jax.Array:
    """Return the cross entropy of sigmoids where positives count more (`tf.nn.weighted_cross_entropy_with_logits`).

    ``labels * -log(sigmoid(logits)) * pos_weight + (1 - labels) * -log(1 - sigmoid(logits))``.

    Args:
      labels: probabilities of the shape of `logits`.
      logits: any floating array, before the sigmoid.
      pos_weight: a number, or an array that broadcasts against `logits`.
      name: accepted for TF1's sake, without effect.
      targets: the older name of `labels`.

    Returns:
      An array like `logits`.

    Raises:
      InvalidArgumentError: shapes that differ, an argument missing, or both `labels` and `targets`.
      InvalidTypeError: integer logits.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> loss = jv.nn.weighted_cross_entropy_with_logits(jnp.array([1.0]), jnp.zeros(1), 3.0)
      >>> print(jnp.exp(-loss))
      [0.125]
    """
    del name
    op = "weighted_cross_entropy_with_logits"
    if labels is not None and targets is not None:
        raise InvalidArgumentError(f"{op}: Cannot specify both 'labels' and 'targets': write labels")
    given = targets if labels is None else labels
    if given is None or logits is None or pos_weight is None:
        raise InvalidArgumentError(f"{op}: labels, logits and pos_weight must be provided")
    x, z = _equal(op, given, logits)
    weight = jnp.asarray(pos_weight, x.dtype)
    weight = weight.reshape((1,) * (x.ndim - weight.ndim) + weight.shape)
    positive, size = _parts(x)
    return (1 - z) * x + (1 + (weight - 1) * z) * (jnp.log1p(jnp.exp(-size)) + size - positive)


def log_poisson_loss(
    targets: Any, log_input: Any, compute_full_loss: bool = False, name: str | None = None
) -> jax.Array:
    """Return the negative log likelihood of counts whose log rate is predicted (`tf.nn.log_poisson_loss`).

    Args:
      targets: the counts, of the shape of `log_input`.
      log_input: the logarithm of the rate, floating.
      compute_full_loss: whether to add Stirling's approximation of ``log(targets!)``, where targets > 1.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array like `log_input`: ``exp(c) - z * c``, and with the approximation
      ``z * log(z) - z + 0.5 * log(2 * pi * z)``.

    Raises:
      InvalidArgumentError: shapes that differ.
      InvalidTypeError: an integer `log_input`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.log_poisson_loss(jnp.array([2.0]), jnp.zeros(1)))
      [1.]
    """
    del name
    c, z = _equal("log_poisson_loss", targets, log_input, "targets", "log_input")
    loss = jnp.exp(c) - c * z
    if compute_full_loss:
        # log(0) would make the gradient of what is not chosen nan.
        safe = jnp.where(z > 1, z, 1)
        stirling = safe * jnp.log(safe) - safe + 0.5 * jnp.log(2 * math.pi * safe)
        loss = loss + jnp.where(z > 1, stirling, 0)
    return loss


def _named(op: str, sentinel: Any, labels: Any, logits: Any) -> None:
    if sentinel is not None:
        raise InvalidArgumentError(f"Only call `{op}` with named arguments: jv.nn.{op}(labels=..., logits=...)")
    if labels is None or logits is None:
        raise InvalidArgumentError(f"{op}: Both labels and logits must be provided")


def _floating(op: str, logits: Any, argument: str = "logits") -> jax.Array:
    x = jnp.asarray(logits)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InvalidTypeError(f"{op}: {argument} are floating numbers, got {x.dtype}: {argument}.astype(jnp.float32)")
    return x


def _parts(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``max(x, 0)`` and ``|x|``. At 0 both have the slopes of one side, which together give that of the loss."""
    return jnp.where(x >= 0, x, 0), jnp.where(x >= 0, x, -x)


def _pair(op: str, labels: Any, logits: Any) -> tuple[jax.Array, jax.Array]:
    """Logits and labels, broadcast against each other."""
    x, z = _floating(op, logits), jnp.asarray(labels)
    if x.ndim != z.ndim or any(a != b and 1 not in (a, b) for a, b in zip(x.shape, z.shape, strict=False)):
        raise InvalidArgumentError(
            f"{op}: logits and labels must be broadcastable: logits_size={x.shape} labels_size={z.shape}"
        )
    x, z = jnp.broadcast_arrays(x, z)
    return x, z


def _equal(
    op: str, labels: Any, logits: Any, label: str = "labels", logit: str = "logits"
) -> tuple[jax.Array, jax.Array]:
    """Logits and labels of one shape and dtype."""
    x, z = _floating(op, logits, logit), jnp.asarray(labels)
    if x.shape != z.shape:
        raise InvalidArgumentError(
            f"{op}: `{logit}` and `{label}` must have the same shape, got {x.shape} vs {z.shape}"
        )
    return x, z.astype(x.dtype)

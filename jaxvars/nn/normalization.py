"""Moments and normalization (`tf.nn`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.nn._windows import batched, layout_of

__all__ = [
    "batch_normalization",
    "fused_batch_norm",
    "l2_normalize",
    "local_response_normalization",
    "lrn",
    "moments",
    "weighted_moments",
]

# TensorFlow's fused kernel never goes below cuDNN's smallest epsilon, on any device.
SMALLEST_FUSED_EPSILON = 1.001e-5


def moments(
    x: Any,
    axes: int | Sequence[int],
    shift: Any = None,
    name: str | None = None,
    keep_dims: bool | None = None,
    keepdims: bool | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return mean and (biased) variance over some axes (`tf.nn.moments`).

    Args:
      x: any floating array. float16 and bfloat16 are summed in float32.
      axes: the axes to reduce.
      shift: accepted for TF1's sake, without effect.
      name: likewise.
      keep_dims: whether to keep the reduced axes with length 1.
      keepdims: its newer name.

    Returns:
      ``(mean, variance)``, in the dtype of `x`.

    Raises:
      InvalidArgumentError: both `keep_dims` and `keepdims`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> mean, variance = jv.nn.moments(jnp.array([1.0, 3.0]), [0])
      >>> print(mean, variance)
      2.0 1.0
    """
    del name, shift
    keep = _keep("moments", keep_dims, keepdims)
    array = jnp.asarray(x)
    wide = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    over = (axes,) if isinstance(axes, int) else tuple(axes)
    mean = jnp.mean(wide, axis=over, keepdims=True)
    variance = jnp.mean(jnp.square(wide - jax.lax.stop_gradient(mean)), axis=over, keepdims=keep)
    mean = mean if keep else jnp.squeeze(mean, over)
    return mean.astype(array.dtype), variance.astype(array.dtype)


def weighted_moments(
    x: Any,
    axes: int | Sequence[int],
    frequency_weights: Any,
    name: str | None = None,
    keep_dims: bool | None = None,
    keepdims: bool | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance over some axes, where elements count differently (`tf.nn.weighted_moments`).

    Args:
      x: any floating array.
      axes: the axes to reduce.
      frequency_weights: how often each element counts; broadcasts against `x`.
      name: accepted for TF1's sake, without effect.
      keep_dims: whether to keep the reduced axes with length 1.
      keepdims: its newer name.

    Returns:
      ``(mean, variance)``, in the dtype of `x`; nan where all weights are 0.

    Raises:
      InvalidArgumentError: both `keep_dims` and `keepdims`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> mean, variance = jv.nn.weighted_moments(jnp.array([1.0, 3.0, 9.0]), [0], jnp.array([1.0, 1.0, 0.0]))
      >>> print(mean, variance)
      2.0 1.0
    """
    del name
    keep = _keep("weighted_moments", keep_dims, keepdims)
    array = jnp.asarray(x)
    wide = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    weights = jnp.asarray(frequency_weights).astype(wide.dtype)
    rank = max(wide.ndim, weights.ndim)
    wide, weights = jnp.broadcast_arrays(_lifted(wide, rank), _lifted(weights, rank))
    over = (axes,) if isinstance(axes, int) else tuple(axes)
    total = jnp.sum(weights, axis=over, keepdims=True)
    mean = jnp.sum(wide * weights, axis=over, keepdims=True) / total
    variance = jnp.sum(jnp.square(wide - mean) * weights, axis=over, keepdims=True) / total
    if not keep:
        mean, variance = jnp.squeeze(mean, over), jnp.squeeze(variance, over)
    return mean.astype(array.dtype), variance.astype(array.dtype)


def _keep(op: str, keep_dims: bool | None, keepdims: bool | None) -> bool:
    if keep_dims is not None and keepdims is not None:
        raise InvalidArgumentError(f"{op}: Cannot specify both 'keep_dims' and 'keepdims': write keepdims")
    return bool(keep_dims or keepdims)


def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    offset: Any,
    scale: Any,
    variance_epsilon: Any,
    name: str | None = None,
) -> jax.Array:
    """Normalize by a given mean and variance (`tf.nn.batch_normalization`).

    ``(x - mean) / sqrt(variance + epsilon) * scale + offset``. The layer that keeps moving averages is
    `jv.layers.batch_normalization`.

    Args:
      x: any array.
      mean: an array that broadcasts against `x`, as the following.
      variance: likewise.
      offset: likewise, or None for 0 (often called beta).
      scale: likewise, or None for 1 (often called gamma).
      variance_epsilon: a small number.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array like `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.batch_normalization(jnp.array([3.0]), 1.0, 4.0, None, None, 0.0))
      [1.]
    """
    del name
    array = jnp.asarray(x)
    rank = array.ndim
    # Each has its own rank: in `layer_norm` the moments have that of the input, factor and offset that of what follows.
    inverse = jax.lax.rsqrt(_lifted(jnp.asarray(variance), rank) + variance_epsilon)
    if scale is not None:
        inverse = inverse * _lifted(jnp.asarray(scale), rank)
    shift = -_lifted(jnp.asarray(mean), rank) * inverse
    if offset is not None:
        shift = shift + _lifted(jnp.asarray(offset), rank)
    return array * inverse.astype(array.dtype) + shift.astype(array.dtype)


def fused_batch_norm(
    x: Any,
    scale: Any,
    offset: Any,
    mean: Any = None,
    variance: Any = None,
    epsilon: float = 0.001,
    data_format: str = "NHWC",
    is_training: bool = True,
    name: str | None = None,
    exponential_avg_factor: float = 1.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalize images by the moments of the batch, or by given ones (`tf.nn.fused_batch_norm`).

    Args:
      x: ``[batch, height, width, channels]``, or channels second with "NCHW"; floating.
      scale: one factor per channel.
      offset: one offset per channel.
      mean: one mean per channel to normalize by, when not training; when training the running mean that
        `exponential_avg_factor` mixes with, or None.
      variance: likewise.
      epsilon: added to the variance; at least 1.001e-5, as in TF1.
      data_format: "NHWC" or "NCHW"; "NDHWC" or "NCDHW" for volumes.
      is_training: whether to use the moments of the batch.
      name: accepted for TF1's sake, without effect.
      exponential_avg_factor: the part of the batch in the running moments that are returned.

    Returns:
      ``(y, mean, variance)``: the result in the dtype of `x`; when training the batch's moments, the variance
      unbiased, mixed with the running ones; else what was given.

    Raises:
      InvalidArgumentError: a shape or format that does not fit; not training without mean and variance.
      InvalidTypeError: integers.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> x = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
      >>> y, mean, variance = jv.nn.fused_batch_norm(x, jnp.ones(1), jnp.zeros(1))
      >>> print(mean, variance)
      [2.] [2.]
    """
    del name
    layout = layout_of(data_format, 3 if len(data_format) == 5 else 2, "fused_batch_norm")
    array = batched(x, "fused_batch_norm", layout)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InvalidTypeError(f"fused_batch_norm takes floating numbers, got {array.dtype}: x.astype(jnp.float32)")
    wide = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    axis = layout.index("C")
    if is_training:
        used_mean, used_variance = moments(wide, [i for i in range(wide.ndim) if i != axis])
        count = wide.size // max(wide.shape[axis], 1)
        running = [used_mean, used_variance * (count / max(count - 1, 1))]
        if mean is not None and variance is not None and exponential_avg_factor != 1.0:
            part = exponential_avg_factor
            given = (jnp.asarray(mean), jnp.asarray(variance))
            running = [old * (1 - part) + new * part for old, new in zip(given, running, strict=True)]
    elif mean is None or variance is None:
        raise InvalidArgumentError("fused_batch_norm: mean and variance must be given when is_training=False")
    else:
        used_mean, used_variance = jnp.asarray(mean), jnp.asarray(variance)
        running = [used_mean, used_variance]
    shape = [1] * wide.ndim
    shape[axis] = wide.shape[axis]
    center, spread, shift, factor = (jnp.asarray(p).reshape(shape) for p in (used_mean, used_variance, offset, scale))
    y = batch_normalization(wide, center, spread, shift, factor, max(epsilon, SMALLEST_FUSED_EPSILON))
    return y.astype(array.dtype), running[0], running[1]


def l2_normalize(
    x: Any,
    axis: int | Sequence[int] | None = None,
    epsilon: float = 1e-12,
    name: str | None = None,
    dim: int | Sequence[int] | None = None,
) -> jax.Array:
    """Scale to length 1 along some axes (`tf.nn.l2_normalize`).

    ``x / sqrt(max(sum(x ** 2), epsilon))``.

    Args:
      x: any floating array.
      axis: the axis or axes whose elements make one vector; None for all.
      epsilon: the smallest squared length that is divided by.
      name: accepted for TF1's sake, without effect.
      dim: the older name of `axis`.

    Returns:
      An array like `x`.

    Raises:
      InvalidArgumentError: both `axis` and `dim`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.l2_normalize(jnp.array([3.0, 4.0])))
      [0.6 0.8]
    """
    del name
    if axis is not None and dim is not None:
        raise InvalidArgumentError("l2_normalize: Cannot specify both 'axis' and 'dim': write axis")
    array = jnp.asarray(x)
    given = dim if axis is None else axis
    over = given if given is None or isinstance(given, int | np.integer) else tuple(given)
    squares = jnp.sum(jnp.square(array), axis=over, keepdims=True)
    return array * jax.lax.rsqrt(jnp.maximum(squares, epsilon))


def local_response_normalization(
    input: Any,
    depth_radius: int = 5,
    bias: float = 1.0,
    alpha: float = 1.0,
    beta: float = 0.5,
    name: str | None = None,
) -> jax.Array:
    """Divide by the strength of the neighbouring channels (`tf.nn.local_response_normalization`, `tf.nn.lrn`).

    ``input / (bias + alpha * sum(input[..., d - depth_radius : d + depth_radius + 1] ** 2)) ** beta``.

    Args:
      input: ``[batch, height, width, channels]``, floating.
      depth_radius: how many channels count on each side.
      bias: an offset, positive so that nothing is divided by 0.
      alpha: a factor.
      beta: an exponent.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array like `input`.

    Raises:
      InvalidArgumentError: another rank, or a negative radius.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.lrn(jnp.ones([1, 1, 1, 3]), depth_radius=1, beta=1.0).ravel())
      [0.33333334 0.25       0.33333334]
    """
    del name
    x = batched(input, "local_response_normalization", "NHWC")
    if depth_radius < 0:
        raise InvalidArgumentError(f"local_response_normalization: depth_radius is at least 0, got {depth_radius}")
    squares = jax.lax.reduce_window(
        jnp.square(x),
        np.asarray(0, x.dtype),
        jax.lax.add,
        (1, 1, 1, 2 * depth_radius + 1),
        (1, 1, 1, 1),
        [(0, 0), (0, 0), (0, 0), (depth_radius, depth_radius)],
    )
    return x * (bias + alpha * squares) ** (-beta)


lrn = local_response_normalization
"""TF1's short name of `local_response_normalization`."""


def _lifted(array: jax.Array, rank: int) -> jax.Array:
    """`array` with leading axes of length 1, so that no rank is promoted silently."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim < rank else array

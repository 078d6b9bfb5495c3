"""The few `tf.nn` operations whose arguments differ from JAX's: convolution, pooling, bias, moments.

Activations and losses are not here: `jax.nn` and `optax` have them under nearly the same names. Every
argument that is an array may be a `jv.Variable` handle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["avg_pool", "batch_normalization", "bias_add", "conv2d", "max_pool", "moments"]

Padding = str | Sequence[Sequence[int]]


class _Window(NamedTuple):
    """The arguments of a window that slides over an image, as JAX takes them."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]


def conv2d(
    input: Any,
    filter: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    data_format: str = "NHWC",
    dilations: int | Sequence[int] = 1,
    name: str | None = None,
) -> jax.Array:
    """Convolve images with a bank of filters (`tf.nn.conv2d`).

    Args:
      input: ``[batch, height, width, channels]``, or ``[batch, channels, height, width]`` with "NCHW".
      filter: ``[height, width, in_channels, out_channels]`` in either format. If `in_channels` divides the
        channels of the input, the convolution is grouped.
      strides: an int, ``[h, w]``, or four ints in the order of `data_format`.
      padding: "SAME", "VALID", or explicit pairs: two for height and width, or four with ``[0, 0]`` for the
        others.
      data_format: "NHWC" or "NCHW".
      dilations: as `strides`; the distance between the filter's points.
      name: accepted for TF1's sake, without effect: there are no ops to name.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: shapes, strides, padding or format that do not fit.
      InvalidTypeError: `input` and `filter` have different dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.conv2d(jnp.ones([1, 28, 28, 3]), jnp.ones([5, 5, 3, 8]), strides=[1, 2, 2, 1]).shape
      (1, 14, 14, 8)
    """
    del name
    x, kernel = _image(input, "conv2d", data_format), jnp.asarray(filter)
    if kernel.ndim != 4:
        raise InvalidArgumentError(
            f"conv2d: the filter is [height, width, in_channels, out_channels], got shape {kernel.shape}"
        )
    if x.dtype != kernel.dtype:
        raise InvalidTypeError(
            f'conv2d: the input is {x.dtype} and the filter {kernel.dtype}. Cast one: input.astype("{kernel.dtype}")'
        )
    channels, expected = x.shape[data_format.index("C")], kernel.shape[2]
    if expected == 0 or channels % expected:
        raise InvalidArgumentError(
            f"conv2d: depth of input ({channels}) is not a multiple of input depth of filter ({expected}). "
            f"input {x.shape} in {data_format}, filter {kernel.shape}"
        )
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=_spatial(strides, "strides", data_format),
        padding=_spatial_padding(padding, data_format),
        rhs_dilation=_spatial(dilations, "dilations", data_format),
        dimension_numbers=(data_format, "HWIO", data_format),
        feature_group_count=channels // expected,
    )


def max_pool(
    value: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    data_format: str = "NHWC",
    name: str | None = None,
) -> jax.Array:
    """Take the maximum over windows of an image (`tf.nn.max_pool`).

    Args:
      value: ``[batch, height, width, channels]``, or as `data_format` says.
      ksize: the window: an int, ``[h, w]``, or four ints in the order of `data_format`.
      strides: as `ksize`.
      padding: "SAME", "VALID", or explicit pairs, as in `conv2d`. What is padded never wins.
      data_format: "NHWC" or "NCHW".
      name: accepted for TF1's sake, without effect.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: shapes, window, strides, padding or format that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
      >>> print(jv.nn.max_pool(x, 2, 2, "VALID").reshape(2, 2))
      [[ 5.  7.]
       [13. 15.]]
    """
    del name
    x = _image(value, "max_pool", data_format)
    window = _window(ksize, strides, padding, data_format)
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    lowest = np.asarray(-np.inf if floating else np.iinfo(x.dtype).min, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, window.size, window.strides, window.padding)


def avg_pool(
    value: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    data_format: str = "NHWC",
    name: str | None = None,
) -> jax.Array:
    """Take the mean over windows of an image (`tf.nn.avg_pool`).

    What is padded does not count: at an edge the sum is divided by the number of elements inside the image.

    Args:
      value: ``[batch, height, width, channels]``, or as `data_format` says; floating.
      ksize: the window: an int, ``[h, w]``, or four ints in the order of `data_format`.
      strides: as `ksize`.
      padding: "SAME", "VALID", or explicit pairs, as in `conv2d`.
      data_format: "NHWC" or "NCHW".
      name: accepted for TF1's sake, without effect.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: shapes, window, strides, padding or format that do not fit.
      InvalidTypeError: integers.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.avg_pool(jnp.ones([1, 3, 3, 1]), 2, 2, "SAME").reshape(2, 2))
      [[1. 1.]
       [1. 1.]]
    """
    del name
    x = _image(value, "avg_pool", data_format)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InvalidTypeError(f"avg_pool takes floating numbers, got {x.dtype}: value.astype(jnp.float32)")
    window = _window(ksize, strides, padding, data_format)

    def total(array: Any) -> jax.Array:
        zero = np.asarray(0, array.dtype)
        return jax.lax.reduce_window(array, zero, jax.lax.add, window.size, window.strides, window.padding)

    if window.padding == "VALID":
        return total(x) / math.prod(window.size)
    # One image of one channel is enough to count, and folds to a constant when compiled.
    shape = [x.shape[i] if axis in "HW" else 1 for i, axis in enumerate(data_format)]
    return total(x) / total(jnp.ones(shape, x.dtype))


def bias_add(value: Any, bias: Any, data_format: str | None = None, name: str | None = None) -> jax.Array:
    """Add a bias to each channel (`tf.nn.bias_add`).

    Args:
      value: any array of rank 2 or more.
      bias: a vector with one number per channel.
      data_format: None or "N...C" when channels are last, "NC..." when they are second.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array like `value`.

    Raises:
      InvalidArgumentError: shapes or format that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.bias_add(jnp.zeros([1, 2]), jnp.array([1.0, 2.0])))
      [[1. 2.]]
    """
    del name
    x, b = jnp.asarray(value), jnp.asarray(bias)
    if data_format is not None and not (data_format.startswith("NC") or data_format.endswith("C")):
        raise InvalidArgumentError(f"bias_add: data_format is N...C or NC..., got {data_format!r}")
    second = data_format is not None and data_format.startswith("NC") and data_format != "NC"
    axis = 1 if second else -1
    if x.ndim < 2 or b.ndim != 1 or b.shape[0] != x.shape[axis]:
        raise InvalidArgumentError(
            f"bias_add: the bias is a vector with one number per channel; value {x.shape}, bias {b.shape}"
        )
    shape = [1] * x.ndim
    shape[axis] = b.shape[0]
    return x + b.reshape(shape)


def moments(
    x: Any, axes: int | Sequence[int], keep_dims: bool = False, name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return mean and (biased) variance over some axes (`tf.nn.moments`).

    Args:
      x: any floating array. float16 and bfloat16 are summed in float32.
      axes: the axes to reduce.
      keep_dims: whether to keep them with length 1.
      name: accepted for TF1's sake, without effect.

    Returns:
      ``(mean, variance)``, in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> mean, variance = jv.nn.moments(jnp.array([1.0, 3.0]), [0])
      >>> print(mean, variance)
      2.0 1.0
    """
    del name
    array = jnp.asarray(x)
    wide = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    over = (axes,) if isinstance(axes, int) else tuple(axes)
    mean = jnp.mean(wide, axis=over, keepdims=True)
    variance = jnp.mean(jnp.square(wide - jax.lax.stop_gradient(mean)), axis=over, keepdims=keep_dims)
    mean = mean if keep_dims else jnp.squeeze(mean, over)
    return mean.astype(array.dtype), variance.astype(array.dtype)


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
    inverse = jax.lax.rsqrt(jnp.asarray(variance) + variance_epsilon)
    if scale is not None:
        inverse = inverse * jnp.asarray(scale)
    shift = -jnp.asarray(mean) * inverse
    if offset is not None:
        shift = shift + jnp.asarray(offset)
    rank = array.ndim
    return array * _lifted(inverse, rank).astype(array.dtype) + _lifted(shift, rank).astype(array.dtype)


def _lifted(array: jax.Array, rank: int) -> jax.Array:
    """`array` with leading axes of length 1, so that no rank is promoted silently."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape) if array.ndim < rank else array


def _image(value: Any, op: str, data_format: str) -> jax.Array:
    if data_format not in ("NHWC", "NCHW"):
        raise InvalidArgumentError(f'{op}: data_format is "NHWC" or "NCHW", got {data_format!r}')
    x = jnp.asarray(value)
    if x.ndim != 4:
        raise InvalidArgumentError(f"{op}: the input is {', '.join(data_format)}, of rank 4; got shape {x.shape}")
    return x


def _spatial(value: Any, argument: str, data_format: str) -> tuple[int, int]:
    """Height and width of an argument given as one int, two, or four."""
    sizes = (value,) if isinstance(value, int | np.integer) else tuple(value)
    if len(sizes) == 1:
        sizes *= 2
    if len(sizes) == 4:
        if any(size != 1 for size, axis in zip(sizes, data_format, strict=True) if axis in "NC"):
            raise InvalidArgumentError(
                f"{argument} of batch and channels must be 1, got {list(sizes)} in {data_format}"
            )
        sizes = tuple(size for size, axis in zip(sizes, data_format, strict=True) if axis in "HW")
    if len(sizes) != 2 or any(int(size) < 1 for size in sizes):
        raise InvalidArgumentError(f"{argument} is a positive int, [h, w] or four ints, got {value!r}")
    return int(sizes[0]), int(sizes[1])


def _spatial_padding(padding: Any, data_format: str) -> str | tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        if padding.upper() in ("SAME", "VALID"):
            return padding.upper()
        raise InvalidArgumentError(f'padding is "SAME", "VALID" or explicit pairs, got {padding!r}')
    pairs = tuple(tuple(int(n) for n in pair) for pair in cast("Sequence[Sequence[int]]", padding))
    if len(pairs) == 4:
        if any(pair != (0, 0) for pair, axis in zip(pairs, data_format, strict=True) if axis in "NC"):
            raise InvalidArgumentError(f"batch and channels cannot be padded, got {padding!r} in {data_format}")
        pairs = tuple(pair for pair, axis in zip(pairs, data_format, strict=True) if axis in "HW")
    if len(pairs) != 2 or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise InvalidArgumentError(f"explicit padding is [[top, bottom], [left, right]], got {padding!r}")
    return cast("tuple[tuple[int, int], ...]", pairs)


def _window(ksize: Any, strides: Any, padding: Any, data_format: str) -> _Window:
    """A pooling window over all four axes."""

    def spread(pair: Sequence[Any], other: Any) -> tuple[Any, ...]:
        parts = iter(pair)
        return tuple(next(parts) if axis in "HW" else other for axis in data_format)

    pads = _spatial_padding(padding, data_format)
    return _Window(
        spread(_spatial(ksize, "ksize", data_format), 1),
        spread(_spatial(strides, "strides", data_format), 1),
        pads if isinstance(pads, str) else spread(pads, (0, 0)),
    )

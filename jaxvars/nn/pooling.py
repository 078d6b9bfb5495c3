"""Pooling in one, two and three dimensions (`tf.nn`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.nn._windows import (
    Padding,
    Window,
    batched,
    check_fits,
    layout_of,
    spatial,
    spatial_axes,
    spatial_padding,
    window,
)

__all__ = [
    "avg_pool",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "pool",
]


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
    return _max_pool("max_pool", value, ksize, strides, padding, data_format, 2)


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
    return _avg_pool("avg_pool", value, ksize, strides, padding, data_format, 2)


def max_pool1d(
    input: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    data_format: str = "NWC",
    name: str | None = None,
) -> jax.Array:
    """Take the maximum over windows of a sequence (`tf.nn.max_pool1d`).

    Args:
      input: ``[batch, width, channels]``, or channels second with "NCW".
      ksize: the window: an int, or three ints.
      strides: as `ksize`.
      padding: as in `max_pool`.
      data_format: "NWC" or "NCW".
      name: accepted for TF1's sake, without effect.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.max_pool1d(jnp.arange(6.0).reshape(1, 6, 1), 2, 2, "VALID").ravel())
      [1. 3. 5.]
    """
    del name
    return _max_pool("max_pool1d", input, ksize, strides, padding, data_format, 1)


def max_pool2d(
    input: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    data_format: str = "NHWC",
    name: str | None = None,
) -> jax.Array:
    """Take the maximum over windows of an image (`tf.nn.max_pool2d`): `max_pool` under its newer name.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.max_pool2d(jnp.ones([1, 4, 4, 1]), 2, 2, "VALID").shape
      (1, 2, 2, 1)
    """
    return max_pool(input, ksize, strides, padding, data_format, name)


def max_pool3d(
    input: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    data_format: str = "NDHWC",
    name: str | None = None,
) -> jax.Array:
    """Take the maximum over windows of a volume (`tf.nn.max_pool3d`).

    Args:
      input: ``[batch, depth, height, width, channels]``, or channels second with "NCDHW".
      ksize: the window: an int, ``[d, h, w]``, or five ints.
      strides: as `ksize`.
      padding: as in `max_pool`.
      data_format: "NDHWC" or "NCDHW".
      name: accepted for TF1's sake, without effect.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.max_pool3d(jnp.ones([1, 4, 4, 4, 2]), 2, 2, "VALID").shape
      (1, 2, 2, 2, 2)
    """
    del name
    return _max_pool("max_pool3d", input, ksize, strides, padding, data_format, 3)


def avg_pool1d(
    input: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    data_format: str = "NWC",
    name: str | None = None,
) -> jax.Array:
    """Take the mean over windows of a sequence (`tf.nn.avg_pool1d`); arguments as `max_pool1d`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.avg_pool1d(jnp.arange(6.0).reshape(1, 6, 1), 2, 2, "VALID").ravel())
      [0.5 2.5 4.5]
    """
    del name
    return _avg_pool("avg_pool1d", input, ksize, strides, padding, data_format, 1)


def avg_pool2d(
    input: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    data_format: str = "NHWC",
    name: str | None = None,
) -> jax.Array:
    """Take the mean over windows of an image (`tf.nn.avg_pool2d`): `avg_pool` under its newer name.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.avg_pool2d(jnp.ones([1, 4, 4, 1]), 2, 2, "VALID").shape
      (1, 2, 2, 1)
    """
    return avg_pool(input, ksize, strides, padding, data_format, name)


def avg_pool3d(
    input: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    data_format: str = "NDHWC",
    name: str | None = None,
) -> jax.Array:
    """Take the mean over windows of a volume (`tf.nn.avg_pool3d`); arguments as `max_pool3d`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.avg_pool3d(jnp.ones([1, 4, 4, 4, 2]), 2, 2, "VALID").shape
      (1, 2, 2, 2, 2)
    """
    del name
    return _avg_pool("avg_pool3d", input, ksize, strides, padding, data_format, 3)


def pool(
    input: Any,
    window_shape: Sequence[int],
    pooling_type: str,
    padding: Padding,
    dilation_rate: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    name: str | None = None,
    data_format: str | None = None,
) -> jax.Array:
    """Pool in one to three dimensions, also with dilated windows (`tf.nn.pool`).

    Args:
      input: ``[batch, <spatial axes>, channels]``, or channels second.
      window_shape: one int per spatial axis.
      pooling_type: "AVG" or "MAX".
      padding: "SAME", "VALID", or explicit pairs; only "VALID" together with dilation.
      dilation_rate: one int per spatial axis; None for 1. Not together with strides.
      strides: likewise; not larger than the window, as TF1's devices disagree there.
      name: accepted for TF1's sake, without effect.
      data_format: None for channels last.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: an argument that does not fit, or two that do not go together.
      InvalidTypeError: the mean of integers.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.pool(jnp.arange(6.0).reshape(1, 6, 1), [2], "MAX", "VALID", dilation_rate=[3]).ravel())
      [3. 4. 5.]
    """
    del name
    dims = len(window_shape)
    if pooling_type not in ("AVG", "MAX") or not 1 <= dims <= 3:
        raise InvalidArgumentError(
            f'pool: pooling_type is "AVG" or "MAX" and window_shape one to three ints, got {pooling_type!r} and '
            f"{list(window_shape)}"
        )
    layout = layout_of(data_format, dims, "pool")
    size = spatial(window_shape, "window_shape", layout)
    steps = spatial(1 if strides is None else strides, "strides", layout)
    rates = spatial(1 if dilation_rate is None else dilation_rate, "dilation_rate", layout)
    _check_together(size, steps, rates, spatial_padding(padding, layout))
    x = batched(input, "pool", layout)
    if max(rates) == 1:
        plain = _max_pool if pooling_type == "MAX" else _avg_pool
        return plain("pool", x, size, steps, padding, layout, dims)
    return _dilated_pool(x, size, pooling_type, rates, layout)


def _check_together(size: tuple[int, ...], steps: tuple[int, ...], rates: tuple[int, ...], padding: Any) -> None:
    received = f"Received: window_shape={list(size)}, strides={list(steps)}, dilation_rate={list(rates)}"
    if max(rates) > 1 and max(steps) > 1:
        raise InvalidArgumentError(
            f"pool: `strides > 1` not supported in conjunction with `dilation_rate > 1`. {received}"
        )
    if max(rates) > 1 and padding != "VALID":
        raise InvalidArgumentError(
            f"pool: pooling with {padding!r} padding is not implemented for `dilation_rate` > 1. {received}. Pad "
            'before: jnp.pad(x, ...), padding="VALID"'
        )
    if any(step > width for step, width in zip(steps, size, strict=True)):
        raise InvalidArgumentError(f"pool: `strides` > `window_shape` not supported. {received}")


def _dilated_pool(
    x: jax.Array, size: tuple[int, ...], pooling_type: str, rates: tuple[int, ...], layout: str
) -> jax.Array:
    if pooling_type == "AVG":
        _check_floating("pool", x)
    axes = spatial_axes(layout)
    reach = [(n - 1) * rate + 1 for n, rate in zip(size, rates, strict=True)]
    check_fits("pool", "VALID", [x.shape[i] for i in axes], reach, layout)
    widths, dilation = (dict(zip(axes, numbers, strict=True)) for numbers in (size, rates))
    start, combine = (_lowest(x), jax.lax.max) if pooling_type == "MAX" else (np.asarray(0, x.dtype), jax.lax.add)
    pooled = jax.lax.reduce_window(
        x,
        start,
        combine,
        [widths.get(i, 1) for i in range(x.ndim)],
        (1,) * x.ndim,
        "VALID",
        window_dilation=[dilation.get(i, 1) for i in range(x.ndim)],
    )
    return pooled if pooling_type == "MAX" else pooled / math.prod(size)


def _max_pool(op: str, value: Any, ksize: Any, strides: Any, padding: Any, data_format: str, dims: int) -> jax.Array:
    layout = layout_of(data_format, dims, op)
    x = batched(value, op, layout)
    sliding = window(op, x, ksize, strides, padding, layout)
    return jax.lax.reduce_window(x, _lowest(x), jax.lax.max, sliding.size, sliding.strides, sliding.padding)


def _lowest(x: jax.Array) -> Any:
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return np.asarray(-np.inf if floating else np.iinfo(x.dtype).min, x.dtype)


def _avg_pool(op: str, value: Any, ksize: Any, strides: Any, padding: Any, data_format: str, dims: int) -> jax.Array:
    layout = layout_of(data_format, dims, op)
    x = batched(value, op, layout)
    _check_floating(op, x)
    sliding = window(op, x, ksize, strides, padding, layout)
    if sliding.padding == "VALID":
        return _total(x, sliding) / math.prod(sliding.size)
    # One image of one channel is enough to count, and folds to a constant when compiled.
    shape = [1 if axis in "NC" else x.shape[i] for i, axis in enumerate(layout)]
    return _total(x, sliding) / _total(jnp.ones(shape, x.dtype), sliding)


def _check_floating(op: str, x: jax.Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InvalidTypeError(f"{op} takes floating numbers, got {x.dtype}: value.astype(jnp.float32)")


def _total(x: jax.Array, sliding: Window) -> jax.Array:
    zero = np.asarray(0, x.dtype)
    return jax.lax.reduce_window(x, zero, jax.lax.add, sliding.size, sliding.strides, sliding.padding)

"""Convolutions in one, two and three dimensions (`tf.nn`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError
from jaxvars.nn._explicit import spread_convolved
from jaxvars.nn._grouped import convolve_by_places, is_over_several_axes
from jaxvars.nn._windows import (
    Padding,
    batched,
    check_fits,
    layout_of,
    same_dtype,
    spatial,
    spatial_axes,
    spatial_padding,
)

__all__ = [
    "atrous_conv2d",
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "depthwise_conv2d",
    "depthwise_conv2d_native",
    "separable_conv2d",
]

_KERNELS = {1: "WIO", 2: "HWIO", 3: "DHWIO"}
_KERNEL_AXES = {1: "width", 2: "height, width", 3: "depth, height, width"}


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
    return _convolve("conv2d", input, filter, strides, padding, layout_of(data_format, 2, "conv2d"), dilations)


def conv1d(
    value: Any,
    filters: Any,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    use_cudnn_on_gpu: bool | None = None,
    data_format: str | None = None,
    name: str | None = None,
    dilations: int | Sequence[int] | None = None,
) -> jax.Array:
    """Convolve sequences with a bank of filters (`tf.nn.conv1d`).

    Args:
      value: ``[batch, width, channels]``, or ``[batch, channels, width]`` with "NCW".
      filters: ``[width, in_channels, out_channels]``.
      stride: an int, or three ints in the order of `data_format`.
      padding: "SAME", "VALID", or explicit pairs, as in `conv2d`.
      use_cudnn_on_gpu: accepted for TF1's sake, without effect.
      data_format: "NWC" (the default) or "NCW"; TF1's old spellings "NHWC" and "NCHW" mean the same.
      name: accepted for TF1's sake, without effect.
      dilations: as `stride`; the distance between the filter's points.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: shapes, stride, padding or format that do not fit.
      InvalidTypeError: `value` and `filters` have different dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.conv1d(jnp.ones([1, 10, 3]), jnp.ones([3, 3, 8]), 1, "VALID").shape
      (1, 8, 8)
    """
    del name, use_cudnn_on_gpu
    spelled = {"NHWC": "NWC", "NCHW": "NCW"}.get(data_format or "", data_format)
    layout = layout_of(spelled, 1, "conv1d")
    return _convolve("conv1d", value, filters, stride, padding, layout, 1 if dilations is None else dilations)


def conv3d(
    input: Any,
    filter: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    data_format: str = "NDHWC",
    dilations: int | Sequence[int] = 1,
    name: str | None = None,
) -> jax.Array:
    """Convolve volumes with a bank of filters (`tf.nn.conv3d`).

    Args:
      input: ``[batch, depth, height, width, channels]``, or channels second with "NCDHW".
      filter: ``[depth, height, width, in_channels, out_channels]``.
      strides: an int, ``[d, h, w]``, or five ints in the order of `data_format`.
      padding: "SAME", "VALID", or explicit pairs, as in `conv2d`.
      data_format: "NDHWC" or "NCDHW".
      dilations: as `strides`; the distance between the filter's points.
      name: accepted for TF1's sake, without effect.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: shapes, strides, padding or format that do not fit.
      InvalidTypeError: `input` and `filter` have different dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.conv3d(jnp.ones([1, 4, 8, 8, 3]), jnp.ones([3, 3, 3, 3, 2]), 2).shape
      (1, 2, 4, 4, 2)
    """
    del name
    return _convolve("conv3d", input, filter, strides, padding, layout_of(data_format, 3, "conv3d"), dilations)


def convolution(
    input: Any,
    filter: Any,
    padding: Padding,
    strides: int | Sequence[int] | None = None,
    dilation_rate: int | Sequence[int] | None = None,
    name: str | None = None,
    data_format: str | None = None,
) -> jax.Array:
    """Convolve in as many dimensions as the filter has (`tf.nn.convolution`).

    Args:
      input: ``[batch, <one to three spatial axes>, channels]``, or channels second.
      filter: ``[<spatial axes>, in_channels, out_channels]``.
      padding: "SAME", "VALID", or explicit pairs, as in `conv2d`.
      strides: an int or one per spatial axis; None for 1.
      dilation_rate: likewise; TF1 takes no strides together with it.
      name: accepted for TF1's sake, without effect.
      data_format: None for channels last, or one of `conv1d`, `conv2d`, `conv3d`.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: shapes, strides, padding or format that do not fit, or strides with dilation.
      InvalidTypeError: `input` and `filter` have different dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.convolution(jnp.ones([1, 9, 3]), jnp.ones([3, 3, 2]), "VALID", dilation_rate=2).shape
      (1, 5, 2)
    """
    del name
    dims = jnp.ndim(filter) - 2
    if dims not in _KERNELS:
        raise InvalidArgumentError(
            f"convolution: the filter is [one to three spatial axes, in_channels, out_channels], "
            f"got shape {jnp.shape(filter)}"
        )
    layout = layout_of(data_format, dims, "convolution")
    steps = 1 if strides is None else strides
    rate = 1 if dilation_rate is None else dilation_rate
    if max(spatial(steps, "strides", layout)) > 1 and max(spatial(rate, "dilation_rate", layout)) > 1:
        raise InvalidArgumentError(
            "convolution: `strides > 1` not supported in conjunction with `dilation_rate > 1`, as in TF1. "
            f"Received: strides={steps} and dilation_rate={rate}. jv.nn.conv{dims}d takes both."
        )
    return _convolve("convolution", input, filter, steps, padding, layout, rate)


def atrous_conv2d(value: Any, filters: Any, rate: int, padding: Padding, name: str | None = None) -> jax.Array:
    """Convolve images with dilated filters (`tf.nn.atrous_conv2d`).

    Args:
      value: ``[batch, height, width, channels]``.
      filters: ``[height, width, in_channels, out_channels]``.
      rate: the distance between the filter's points, a positive int.
      padding: "SAME", "VALID", or explicit pairs, as in `conv2d`.
      name: accepted for TF1's sake, without effect.

    Returns:
      ``[batch, height, width, out_channels]``.

    Raises:
      As `conv2d`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.atrous_conv2d(jnp.ones([1, 9, 9, 3]), jnp.ones([3, 3, 3, 2]), 2, "VALID").shape
      (1, 5, 5, 2)
    """
    del name
    return _convolve("atrous_conv2d", value, filters, 1, padding, "NHWC", rate)


def depthwise_conv2d(
    input: Any,
    filter: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    rate: int | Sequence[int] | None = None,
    name: str | None = None,
    data_format: str | None = None,
    dilations: int | Sequence[int] | None = None,
) -> jax.Array:
    """Convolve each channel with filters of its own (`tf.nn.depthwise_conv2d`).

    Args:
      input: ``[batch, height, width, channels]``, or channels second with "NCHW".
      filter: ``[height, width, in_channels, multiplier]``. Channel ``k`` makes the output channels
        ``k * multiplier`` and following.
      strides: an int, ``[h, w]``, or four ints in the order of `data_format`.
      padding: "SAME", "VALID", or explicit pairs, as in `conv2d`.
      rate: the distance between the filter's points: an int or ``[h, w]``.
      name: accepted for TF1's sake, without effect.
      data_format: "NHWC" (the default) or "NCHW".
      dilations: the newer name of `rate`.

    Returns:
      ``[batch, height, width, channels * multiplier]``, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: shapes, strides, padding or format that do not fit, or both `rate` and `dilations`.
      InvalidTypeError: `input` and `filter` have different dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.depthwise_conv2d(jnp.ones([1, 8, 8, 3]), jnp.ones([3, 3, 3, 2]), [1, 1, 1, 1], "SAME").shape
      (1, 8, 8, 6)
    """
    del name
    if rate is not None and dilations is not None:
        raise InvalidArgumentError("depthwise_conv2d: Cannot specify both 'rate' and 'dilations': write one of them")
    layout = layout_of(data_format, 2, "depthwise_conv2d")
    x, kernel = batched(input, "depthwise_conv2d", layout), jnp.asarray(filter)
    channels = x.shape[layout.index("C")]
    if kernel.ndim != 4 or kernel.shape[2] != channels:
        raise InvalidArgumentError(
            f"depthwise_conv2d: the filter is [height, width, in_channels, multiplier] with the {channels} channels "
            f"of the input, got shape {kernel.shape}. input {x.shape} in {layout}"
        )
    flat = kernel.reshape(*kernel.shape[:2], 1, channels * kernel.shape[3])
    given = rate if dilations is None else dilations
    return _convolve("depthwise_conv2d", x, flat, strides, padding, layout, 1 if given is None else given)


depthwise_conv2d_native = depthwise_conv2d
"""TF1's second name of `depthwise_conv2d`."""


def separable_conv2d(
    input: Any,
    depthwise_filter: Any,
    pointwise_filter: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    rate: int | Sequence[int] | None = None,
    name: str | None = None,
    data_format: str | None = None,
    dilations: int | Sequence[int] | None = None,
) -> jax.Array:
    """Convolve each channel on its own, then mix the channels of each point (`tf.nn.separable_conv2d`).

    Args:
      input: ``[batch, height, width, channels]``, or channels second with "NCHW".
      depthwise_filter: ``[height, width, in_channels, multiplier]``.
      pointwise_filter: ``[1, 1, in_channels * multiplier, out_channels]``.
      strides: as in `depthwise_conv2d`, as the following.
      padding: likewise.
      rate: likewise.
      name: accepted for TF1's sake, without effect.
      data_format: "NHWC" (the default) or "NCHW".
      dilations: the newer name of `rate`.

    Returns:
      ``[batch, height, width, out_channels]``, in the layout and dtype of the input.

    Raises:
      As `depthwise_conv2d`; InvalidArgumentError where the two filters do not fit together.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> x = jnp.ones([1, 8, 8, 3])
      >>> jv.nn.separable_conv2d(x, jnp.ones([3, 3, 3, 2]), jnp.ones([1, 1, 6, 5]), 2, "SAME").shape
      (1, 4, 4, 5)
    """
    layout = layout_of(data_format, 2, "separable_conv2d")
    depthwise, pointwise = jnp.shape(depthwise_filter), jnp.shape(pointwise_filter)
    fits = len(depthwise) == len(pointwise) == 4 and pointwise[:3] == (1, 1, depthwise[2] * depthwise[3])
    if not fits:
        raise InvalidArgumentError(
            "separable_conv2d: the pointwise filter is [1, 1, in_channels * multiplier, out_channels], "
            f"got shape {pointwise} for a depthwise filter {depthwise}"
        )
    deep = depthwise_conv2d(input, depthwise_filter, strides, padding, rate, name, layout, dilations)
    return _convolve("separable_conv2d", deep, pointwise_filter, 1, "VALID", layout, 1)


def _convolve(op: str, value: Any, filters: Any, strides: Any, padding: Any, layout: str, dilations: Any) -> jax.Array:
    dims = len(layout) - 2
    x, kernel = batched(value, op, layout), jnp.asarray(filters)
    if kernel.ndim != len(layout):
        raise InvalidArgumentError(
            f"{op}: the filter is [{_KERNEL_AXES[dims]}, in_channels, out_channels], got shape {kernel.shape}"
        )
    same_dtype(op, x, kernel)
    channels, expected = x.shape[layout.index("C")], kernel.shape[-2]
    if expected == 0 or channels % expected or kernel.shape[-1] % (channels // expected or 1):
        raise InvalidArgumentError(
            f"{op}: depth of input ({channels}) is not a multiple of input depth of filter ({expected}), or the "
            f"groups do not divide its output. input {x.shape} in {layout}, filter {kernel.shape}"
        )
    steps = spatial(strides, "strides", layout)
    rates = spatial(dilations, "dilations", layout)
    pads = spatial_padding(padding, layout)
    reach = [(size - 1) * rate + 1 for size, rate in zip(kernel.shape, rates, strict=False)]
    check_fits(op, pads, [x.shape[i] for i in spatial_axes(layout)], reach, layout)
    if channels != expected and is_over_several_axes(x, kernel):
        return convolve_by_places(x, kernel, steps, rates, pads, layout)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=steps,
        padding=pads,
        rhs_dilation=rates,
        dimension_numbers=(layout, _KERNELS[dims], layout),
        feature_group_count=channels // expected,
        out_sharding=spread_convolved(x, kernel, layout, -1),
    )

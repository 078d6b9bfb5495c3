"""Transposed convolutions (`tf.nn.conv2d_transpose` and its relatives): the gradients of convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError
from jaxvars.nn._explicit import spread_convolved
from jaxvars.nn._windows import (
    Padding,
    batched,
    layout_of,
    same_dtype,
    spatial,
    spatial_axes,
    spatial_padding,
    static_pads,
)

__all__ = ["atrous_conv2d_transpose", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose"]

# The filter's last axis is the channels of the input here: the one that this is the gradient of came out there.
_KERNELS = {1: "WOI", 2: "HWOI", 3: "DHWOI"}


def conv2d_transpose(
    value: Any,
    filter: Any,
    output_shape: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    data_format: str = "NHWC",
    name: str | None = None,
    dilations: int | Sequence[int] | None = None,
) -> jax.Array:
    """Transpose a convolution of images (`tf.nn.conv2d_transpose`).

    It is the gradient of `conv2d` by its input: a convolution of the output with these arguments has the shape
    of `value`.

    Args:
      value: ``[batch, height, width, in_channels]``, or channels second with "NCHW".
      filter: ``[height, width, out_channels, in_channels]``: the input's channels are last.
      output_shape: four ints in the order of `data_format`. Several sizes have the same convolution, so it says
        which one is meant.
      strides: an int, ``[h, w]``, or four ints in the order of `data_format`.
      padding: "SAME", "VALID", or explicit pairs: those of the convolution.
      data_format: "NHWC" or "NCHW".
      name: accepted for TF1's sake, without effect.
      dilations: as `strides`; the distance between the filter's points.

    Returns:
      An array of `output_shape`, in the dtype of `value`.

    Raises:
      InvalidArgumentError: shapes, strides, padding or format that do not fit.
      InvalidTypeError: `value` and `filter` have different dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.conv2d_transpose(jnp.ones([1, 7, 7, 3]), jnp.ones([5, 5, 8, 3]), [1, 14, 14, 8], 2).shape
      (1, 14, 14, 8)
    """
    del name
    layout = layout_of(data_format, 2, "conv2d_transpose")
    return _transpose("conv2d_transpose", value, filter, output_shape, strides, padding, layout, dilations)


def conv1d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    data_format: str = "NWC",
    dilations: int | Sequence[int] | None = None,
    name: str | None = None,
) -> jax.Array:
    """Transpose a convolution of sequences (`tf.nn.conv1d_transpose`).

    Args:
      input: ``[batch, width, in_channels]``, or channels second with "NCW".
      filters: ``[width, out_channels, in_channels]``.
      output_shape: three ints in the order of `data_format`.
      strides: an int, or three ints.
      padding: as in `conv2d_transpose`.
      data_format: "NWC" or "NCW".
      dilations: as `strides`.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array of `output_shape`.

    Raises:
      As `conv2d_transpose`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.nn.conv1d_transpose(jnp.ones([1, 5, 3]), jnp.ones([3, 2, 3]), [1, 10, 2], 2).shape
      (1, 10, 2)
    """
    del name
    layout = layout_of(data_format, 1, "conv1d_transpose")
    return _transpose("conv1d_transpose", input, filters, output_shape, strides, padding, layout, dilations)


def conv3d_transpose(
    value: Any,
    filter: Any,
    output_shape: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    data_format: str = "NDHWC",
    name: str | None = None,
    dilations: int | Sequence[int] | None = None,
) -> jax.Array:
    """Transpose a convolution of volumes (`tf.nn.conv3d_transpose`).

    Args:
      value: ``[batch, depth, height, width, in_channels]``, or channels second with "NCDHW".
      filter: ``[depth, height, width, out_channels, in_channels]``.
      output_shape: five ints in the order of `data_format`.
      strides: an int, ``[d, h, w]``, or five ints.
      padding: as in `conv2d_transpose`.
      data_format: "NDHWC" or "NCDHW".
      name: accepted for TF1's sake, without effect.
      dilations: as `strides`.

    Returns:
      An array of `output_shape`.

    Raises:
      As `conv2d_transpose`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> x, kernel = jnp.ones([1, 2, 2, 2, 3]), jnp.ones([3, 3, 3, 1, 3])
      >>> jv.nn.conv3d_transpose(x, kernel, [1, 4, 4, 4, 1], 2).shape
      (1, 4, 4, 4, 1)
    """
    del name
    layout = layout_of(data_format, 3, "conv3d_transpose")
    return _transpose("conv3d_transpose", value, filter, output_shape, strides, padding, layout, dilations)


def atrous_conv2d_transpose(
    value: Any, filters: Any, output_shape: Any, rate: int, padding: Padding, name: str | None = None
) -> jax.Array:
    """Transpose a convolution of images with dilated filters (`tf.nn.atrous_conv2d_transpose`).

    Args:
      value: ``[batch, height, width, in_channels]``.
      filters: ``[height, width, out_channels, in_channels]``.
      output_shape: four ints.
      rate: the distance between the filter's points, a positive int.
      padding: as in `conv2d_transpose`.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array of `output_shape`.

    Raises:
      As `conv2d_transpose`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> x, kernel = jnp.ones([1, 5, 5, 3]), jnp.ones([3, 3, 2, 3])
      >>> jv.nn.atrous_conv2d_transpose(x, kernel, [1, 9, 9, 2], 2, "VALID").shape
      (1, 9, 9, 2)
    """
    del name
    return _transpose("atrous_conv2d_transpose", value, filters, output_shape, 1, padding, "NHWC", rate)


def _transpose(
    op: str, value: Any, filters: Any, output_shape: Any, strides: Any, padding: Any, layout: str, dilations: Any
) -> jax.Array:
    dims = len(layout) - 2
    x, kernel = batched(value, op, layout), jnp.asarray(filters)
    shape = _output_shape(op, output_shape, x, layout)
    channel = layout.index("C")
    if kernel.ndim != len(layout) or kernel.shape[-1] != x.shape[channel] or kernel.shape[-2] != shape[channel]:
        raise InvalidArgumentError(
            f"{op}: the filter is [spatial axes, out_channels, in_channels]; output_shape does not match the "
            f"filter's output channels, or the input its input channels: input {x.shape} and output_shape "
            f"{list(shape)} in {layout}, filter {kernel.shape}"
        )
    same_dtype(op, x, kernel)
    axes = spatial_axes(layout)
    steps = spatial(strides, "strides", layout)
    rates = spatial(1 if dilations is None else dilations, "dilations", layout)
    sizes, wanted = [x.shape[i] for i in axes], [shape[i] for i in axes]
    reach = [(size - 1) * rate + 1 for size, rate in zip(kernel.shape, rates, strict=False)]
    pads = static_pads(spatial_padding(padding, layout), wanted, reach, steps)
    expected = [
        max(-(-(size + sum(pad) - width + 1) // step), 0)
        for size, pad, width, step in zip(wanted, pads, reach, steps, strict=True)
    ]
    if sizes != expected or shape[0] != x.shape[0]:
        raise InvalidArgumentError(
            f"{op}: Size of out_backprop doesn't match computed: a convolution of output_shape {list(shape)} in "
            f"{layout} has the batch and spatial sizes {[shape[0], *expected]}, the input has {[x.shape[0], *sizes]}"
        )
    return jax.lax.conv_general_dilated(
        x,
        jnp.flip(kernel, range(dims)),
        window_strides=(1,) * dims,
        padding=[
            # From the points that are strides apart to the wanted size, less what the convolution had padded.
            (width - 1 - pad[0], want + pad[0] - (size - 1) * step - 1)
            for want, pad, size, width, step in zip(wanted, pads, sizes, reach, steps, strict=True)
        ],
        lhs_dilation=steps,
        rhs_dilation=rates,
        dimension_numbers=(layout, _KERNELS[dims], layout),
        out_sharding=spread_convolved(x, kernel, layout, -2),
    )


def _output_shape(op: str, output_shape: Any, x: jax.Array, layout: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in np.asarray(output_shape).reshape(-1))
    except (TypeError, ValueError, jax.errors.JAXTypeError) as error:
        raise InvalidArgumentError(
            f"{op}: output_shape is {len(layout)} ints known when the model is traced, got {output_shape!r}. "
            "Take sizes from x.shape."
        ) from error
    if len(shape) != len(layout):
        raise InvalidArgumentError(f"{op}: output_shape is {len(layout)} ints in {layout}, got {list(shape)}")
    return shape

"""Convolution and pooling layers for images (`tf.layers`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers import zeros_initializer
from jaxvars.layers._scope import add_weight, finish, floating_input, layer_scope

__all__ = ["average_pooling2d", "conv2d", "max_pooling2d"]

Function = Callable[[Any], Any]
_FORMATS = {"channels_last": "NHWC", "channels_first": "NCHW"}


@add_arg_scope
def conv2d(
    inputs: Any,
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = (1, 1),
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: int | Sequence[int] = (1, 1),
    activation: Function | None = None,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = zeros_initializer,
    kernel_regularizer: Function | None = None,
    bias_regularizer: Function | None = None,
    activity_regularizer: Function | None = None,
    kernel_constraint: Function | None = None,
    bias_constraint: Function | None = None,
    trainable: bool = True,
    name: str | None = None,
    reuse: Any = None,
) -> jax.Array:
    """Convolve images with filters and add a bias (`tf.layers.conv2d`).

    Variables ``<scope>/kernel`` ``[height, width, in, filters]`` and ``<scope>/bias`` ``[filters]``; the
    scope is `name`, or ``conv2d``, ``conv2d_1``, ...

    Args:
      inputs: ``[batch, height, width, channels]``, or ``[batch, channels, height, width]``; floating. The
        variables have its dtype.
      filters: the number of output channels.
      kernel_size: an int or ``(height, width)``.
      strides: likewise.
      padding: "valid" or "same".
      data_format: "channels_last" or "channels_first".
      dilation_rate: an int or ``(height, width)``.
      activation: a function such as `jax.nn.relu`, or None.
      use_bias: whether there is a bias.
      kernel_initializer: None for the scope's, by default glorot_uniform.
      bias_initializer: zeros.
      kernel_regularizer: ``value -> loss``, added to the scope's own.
      bias_regularizer: likewise.
      activity_regularizer: a loss of the output, for REGULARIZATION_LOSSES.
      kernel_constraint: ``value -> value``, applied by optimizers after each update.
      bias_constraint: likewise.
      trainable: whether optimizers touch the variables.
      name: the scope's name, taken as it is: a second use needs `reuse`.
      reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them.

    Returns:
      The result, in the layout of the input.

    Raises:
      InvalidArgumentError: the input is not of rank 4, or an argument is out of range.
      InvalidTypeError: integer inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.conv2d(x, 8, 5, padding="same"))
      >>> variables = model.init(0, jnp.ones([1, 28, 28, 3]))
      >>> variables["conv2d/kernel"].shape, model(variables, jnp.ones([1, 28, 28, 3])).shape
      ((5, 5, 3, 8), (1, 28, 28, 8))
    """
    x = floating_input(inputs, "conv2d", 4, exactly=True)
    layout = _layout(data_format, "conv2d")
    height, width = _pair(kernel_size, "conv2d: kernel_size")
    (count,) = set(_pair(filters, "conv2d: filters"))
    with layer_scope(name, "conv2d", reuse):
        kernel = add_weight(
            "kernel",
            (height, width, x.shape[layout.index("C")], count),
            x.dtype,
            initializer=kernel_initializer,
            regularizer=kernel_regularizer,
            constraint=kernel_constraint,
            trainable=trainable,
        )
        y = nn.conv2d(
            x,
            kernel,
            strides=_pair(strides, "conv2d: strides"),
            padding=_padding(padding, "conv2d"),
            data_format=layout,
            dilations=_pair(dilation_rate, "conv2d: dilation_rate"),
        )
        if use_bias:
            bias = add_weight(
                "bias",
                (count,),
                x.dtype,
                initializer=bias_initializer,
                regularizer=bias_regularizer,
                constraint=bias_constraint,
                trainable=trainable,
            )
            y = nn.bias_add(y, bias, layout)
        return finish(y, "conv2d", activation, activity_regularizer)


@add_arg_scope
def max_pooling2d(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """Take the maximum over windows of an image (`tf.layers.max_pooling2d`).

    Args:
      inputs: ``[batch, height, width, channels]``, or ``[batch, channels, height, width]``.
      pool_size: an int or ``(height, width)``.
      strides: likewise.
      padding: "valid" or "same".
      data_format: "channels_last" or "channels_first".
      name: accepted for TF1's sake, without effect.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: the input is not of rank 4, or an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.max_pooling2d(jnp.ones([1, 28, 28, 3]), 2, 2).shape
      (1, 14, 14, 3)
    """
    return _pool(nn.max_pool, "max_pooling2d", inputs, pool_size, strides, padding, data_format, name)


@add_arg_scope
def average_pooling2d(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """Take the mean over windows of an image (`tf.layers.average_pooling2d`).

    What "same" pads does not count: the mean is over the elements inside the image.

    Args:
      inputs: ``[batch, height, width, channels]``, or ``[batch, channels, height, width]``; floating.
      pool_size: an int or ``(height, width)``.
      strides: likewise.
      padding: "valid" or "same".
      data_format: "channels_last" or "channels_first".
      name: accepted for TF1's sake, without effect.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: the input is not of rank 4, or an argument is out of range.
      InvalidTypeError: integer inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.average_pooling2d(jnp.ones([1, 7, 7, 3]), 2, 2, padding="same").shape
      (1, 4, 4, 3)
    """
    return _pool(nn.avg_pool, "average_pooling2d", inputs, pool_size, strides, padding, data_format, name)


def _pool(
    pool: Callable[..., jax.Array],
    layer: str,
    inputs: Any,
    pool_size: Any,
    strides: Any,
    padding: str,
    data_format: str,
    name: str | None,
) -> jax.Array:
    return pool(
        inputs,
        _pair(pool_size, f"{layer}: pool_size"),
        _pair(strides, f"{layer}: strides"),
        _padding(padding, layer),
        _layout(data_format, layer),
        name,
    )


def _layout(data_format: str, layer: str) -> str:
    if data_format not in _FORMATS:
        raise InvalidArgumentError(f'{layer}: data_format is "channels_last" or "channels_first", got {data_format!r}')
    return _FORMATS[data_format]


def _padding(padding: Any, layer: str) -> str:
    if not isinstance(padding, str) or padding.lower() not in ("valid", "same"):
        raise InvalidArgumentError(f'{layer}: padding is "valid" or "same", got {padding!r}')
    return padding.upper()


def _pair(value: Any, argument: str) -> tuple[int, int]:
    sizes = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(sizes) != 2 or any(size != int(size) or size < 1 for size in sizes):
        raise InvalidArgumentError(f"{argument} is a positive int or a pair of them, got {value!r}")
    return int(sizes[0]), int(sizes[1])

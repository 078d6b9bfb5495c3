"""Transposed convolution layers (`tf.layers.conv2d_transpose`, `conv3d_transpose`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.initializers import zeros_initializer
from jaxvars.layers._convolution import ConvolutionLayer
from jaxvars.layers.base import Function, WeightRules

__all__ = ["Conv2DTranspose", "Conv3DTranspose", "conv2d_transpose", "conv3d_transpose"]

_CONVOLUTIONS = {2: nn.conv2d_transpose, 3: nn.conv3d_transpose}


class _ConvTranspose(ConvolutionLayer):
    """What transposed convolutions of any number of dimensions share."""

    _shrinks = False

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str = "channels_last",
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
        dtype: Any = None,
        *,
        _scope: Any = None,
        _reuse: Any = None,
    ) -> None:
        super().__init__(
            activation,
            use_bias,
            WeightRules(kernel_initializer, kernel_regularizer, kernel_constraint),
            WeightRules(bias_initializer, bias_regularizer, bias_constraint),
            activity_regularizer,
            trainable,
            name,
            dtype,
            _scope=_scope,
            _reuse=_reuse,
        )
        self._set_window(filters, kernel_size, strides, padding, data_format)

    def build(self, input_shape: Any) -> None:
        """Make kernel and bias."""
        shape = (*self.kernel_size, self.filters, input_shape[self._layout.index("C")])
        self._add("kernel", shape, self._kernel)
        if self.use_bias:
            self._add("bias", (self.filters,), self._bias)

    def call(self, inputs: jax.Array) -> jax.Array:
        """Spread out and add."""
        shape = self._output_shape(inputs.shape)
        transpose = _CONVOLUTIONS[self._dims]
        y = transpose(inputs, self.kernel, shape, self.strides, self.padding, self._layout)
        return self._finish(nn.bias_add(y, self.bias, self._layout) if self.use_bias else y)

    def _output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The largest output whose convolution has the shape of the input."""
        windows = iter(zip(self.kernel_size, self.strides, strict=True))
        wanted: list[int] = []
        for axis, size in zip(self._layout, shape, strict=True):
            if axis in "NC":
                wanted.append(size if axis == "N" else self.filters)
                continue
            width, step = next(windows)
            wanted.append(size * step + (max(width - step, 0) if self.padding == "VALID" else 0))
        return tuple(wanted)


class Conv2DTranspose(_ConvTranspose):
    """Transpose a convolution of images (`tf.layers.Conv2DTranspose`): an object whose calls share variables.

    Takes the arguments of `conv2d_transpose` but `inputs` and `reuse`, and a `dtype`; its name is made unique.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     layer = jv.layers.Conv2DTranspose(2, 3, padding="same")
      ...     return layer(layer(x))
      >>> len(jv.transform(net).specs(jnp.ones([1, 8, 8, 2])))
      2
    """

    _dims = 2


class Conv3DTranspose(_ConvTranspose):
    """Transpose a convolution of volumes (`tf.layers.Conv3DTranspose`): an object whose calls share variables.

    Takes the arguments of `conv3d_transpose` but `inputs` and `reuse`, and a `dtype`; its name is made unique.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     layer = jv.layers.Conv3DTranspose(2, 3, padding="same")
      ...     return layer(layer(x))
      >>> len(jv.transform(net).specs(jnp.ones([1, 4, 4, 4, 2])))
      2
    """

    _dims = 3


@add_arg_scope
def conv2d_transpose(
    inputs: Any,
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
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
    """Transpose a convolution of images and add a bias (`tf.layers.conv2d_transpose`).

    Variables ``<scope>/kernel`` ``[height, width, filters, in]`` and ``<scope>/bias`` ``[filters]``; the
    scope is `name`, or ``conv2d_transpose``, ``conv2d_transpose_1``, ...

    Args:
      inputs: ``[batch, height, width, channels]``, or channels second; floating. The variables have its dtype.
      filters: the number of output channels.
      kernel_size: an int or one per spatial axis, as what follows.
      strides: the steps of the window.
      padding: "valid" or "same".
      data_format: "channels_last" or "channels_first".
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
      >>> model = jv.transform(lambda x: jv.layers.conv2d_transpose(x, 8, 5, 2, padding="same"))
      >>> {key: leaf.shape for key, leaf in model.specs(jnp.ones([1, 14, 14, 3])).items()}
      {'conv2d_transpose/bias': (8,), 'conv2d_transpose/kernel': (5, 5, 8, 3)}
    """
    layer = Conv2DTranspose(
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        activation,
        use_bias,
        kernel_initializer,
        bias_initializer,
        kernel_regularizer,
        bias_regularizer,
        activity_regularizer,
        kernel_constraint,
        bias_constraint,
        trainable,
        name,
        _scope=name,
        _reuse=reuse,
    )
    return layer(inputs)


@add_arg_scope
def conv3d_transpose(
    inputs: Any,
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
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
    """Transpose a convolution of volumes and add a bias (`tf.layers.conv3d_transpose`).

    Variables ``<scope>/kernel`` ``[depth, height, width, filters, in]`` and ``<scope>/bias`` ``[filters]``; the
    scope is `name`, or ``conv3d_transpose``, ``conv3d_transpose_1``, ...

    Args:
      inputs: ``[batch, depth, height, width, channels]``, or channels second; floating. The variables have its dtype.
      filters: the number of output channels.
      kernel_size: an int or one per spatial axis, as `strides`.
      strides: as in `conv2d_transpose`, as what follows.
      padding: likewise.
      data_format: likewise.
      activation: likewise.
      use_bias: likewise.
      kernel_initializer: likewise.
      bias_initializer: likewise.
      kernel_regularizer: likewise.
      bias_regularizer: likewise.
      activity_regularizer: likewise.
      kernel_constraint: likewise.
      bias_constraint: likewise.
      trainable: likewise.
      name: likewise.
      reuse: likewise.

    Returns:
      The result, in the layout of the input.

    Raises:
      InvalidArgumentError: the input is not of rank 5, or an argument is out of range.
      InvalidTypeError: integer inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.conv3d_transpose(x, 8, 3, 2))
      >>> {key: leaf.shape for key, leaf in model.specs(jnp.ones([1, 4, 4, 4, 3])).items()}
      {'conv3d_transpose/bias': (8,), 'conv3d_transpose/kernel': (3, 3, 3, 8, 3)}
    """
    layer = Conv3DTranspose(
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        activation,
        use_bias,
        kernel_initializer,
        bias_initializer,
        kernel_regularizer,
        bias_regularizer,
        activity_regularizer,
        kernel_constraint,
        bias_constraint,
        trainable,
        name,
        _scope=name,
        _reuse=reuse,
    )
    return layer(inputs)

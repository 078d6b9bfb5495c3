"""Convolution layers (`tf.layers.conv1d`, `conv2d`, `conv3d`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.initializers import zeros_initializer
from jaxvars.layers._convolution import ConvolutionLayer
from jaxvars.layers.base import Function, WeightRules

__all__ = ["Conv1D", "Conv2D", "Conv3D", "conv1d", "conv2d", "conv3d"]

_CONVOLUTIONS = {1: nn.conv1d, 2: nn.conv2d, 3: nn.conv3d}


class _Conv(ConvolutionLayer):
    """What convolutions of any number of dimensions share."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str = "channels_last",
        dilation_rate: int | Sequence[int] = 1,
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
        self._set_window(filters, kernel_size, strides, padding, data_format, dilation_rate)

    def build(self, input_shape: Any) -> None:
        """Make kernel and bias."""
        shape = (*self.kernel_size, input_shape[self._layout.index("C")], self.filters)
        self._add("kernel", shape, self._kernel)
        if self.use_bias:
            self._add("bias", (self.filters,), self._bias)

    def call(self, inputs: jax.Array) -> jax.Array:
        """Convolve and add."""
        padding: Any = self.padding
        if padding == "CAUSAL":
            padding = [((self.kernel_size[0] - 1) * self.dilation_rate[0], 0)]
        convolve: Any = _CONVOLUTIONS[self._dims]
        y = convolve(inputs, self.kernel, self.strides, padding, data_format=self._layout, dilations=self.dilation_rate)
        return self._finish(nn.bias_add(y, self.bias, self._layout) if self.use_bias else y)


class Conv1D(_Conv):
    """Convolve sequences (`tf.layers.Conv1D`): an object whose calls share variables.

    Takes the arguments of `conv1d` but `inputs` and `reuse`, and a `dtype`; its name is made unique.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     layer = jv.layers.Conv1D(2, 3, padding="same")
      ...     return layer(layer(x))
      >>> len(jv.transform(net).specs(jnp.ones([1, 8, 2])))
      2
    """

    _dims = 1


class Conv2D(_Conv):
    """Convolve images (`tf.layers.Conv2D`): an object whose calls share variables.

    Takes the arguments of `conv2d` but `inputs` and `reuse`, and a `dtype`; its name is made unique.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     layer = jv.layers.Conv2D(2, 3, padding="same")
      ...     return layer(layer(x))
      >>> len(jv.transform(net).specs(jnp.ones([1, 8, 8, 2])))
      2
    """

    _dims = 2


class Conv3D(_Conv):
    """Convolve volumes (`tf.layers.Conv3D`): an object whose calls share variables.

    Takes the arguments of `conv3d` but `inputs` and `reuse`, and a `dtype`; its name is made unique.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     layer = jv.layers.Conv3D(2, 3, padding="same")
      ...     return layer(layer(x))
      >>> len(jv.transform(net).specs(jnp.ones([1, 5, 5, 5, 2])))
      2
    """

    _dims = 3


@add_arg_scope
def conv2d(
    inputs: Any,
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: int | Sequence[int] = 1,
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
      inputs: ``[batch, height, width, channels]``, or channels second; floating. The variables have its dtype.
      filters: the number of output channels.
      kernel_size: an int or one per spatial axis, as what follows.
      strides: the steps of the window.
      padding: "valid" or "same".
      data_format: "channels_last" or "channels_first".
      dilation_rate: the distance between the kernel's points; not together with strides.
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
      >>> {key: leaf.shape for key, leaf in model.specs(jnp.ones([1, 28, 28, 3])).items()}
      {'conv2d/bias': (8,), 'conv2d/kernel': (5, 5, 3, 8)}
    """
    layer = Conv2D(
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
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
def conv1d(
    inputs: Any,
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: int | Sequence[int] = 1,
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
    """Convolve sequences with filters and add a bias (`tf.layers.conv1d`).

    Variables ``<scope>/kernel`` ``[width, in, filters]`` and ``<scope>/bias`` ``[filters]``; the
    scope is `name`, or ``conv1d``, ``conv1d_1``, ...

    Args:
      inputs: ``[batch, width, channels]``, or channels second; floating. The variables have its dtype.
      filters: the number of output channels.
      kernel_size: an int or one per axis, as `strides` and `dilation_rate`.
      strides: as in `conv2d`, as what follows.
      padding: likewise, or "causal": no output sees later inputs.
      data_format: likewise.
      dilation_rate: likewise.
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
      InvalidArgumentError: the input is not of rank 3, or an argument is out of range.
      InvalidTypeError: integer inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.conv1d(x, 8, 5, padding="causal"))
      >>> {key: leaf.shape for key, leaf in model.specs(jnp.ones([1, 28, 3])).items()}
      {'conv1d/bias': (8,), 'conv1d/kernel': (5, 3, 8)}
    """
    layer = Conv1D(
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
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
def conv3d(
    inputs: Any,
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: int | Sequence[int] = 1,
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
    """Convolve volumes with filters and add a bias (`tf.layers.conv3d`).

    Variables ``<scope>/kernel`` ``[depth, height, width, in, filters]`` and ``<scope>/bias`` ``[filters]``; the
    scope is `name`, or ``conv3d``, ``conv3d_1``, ...

    Args:
      inputs: ``[batch, depth, height, width, channels]``, or channels second; floating. The variables have its dtype.
      filters: the number of output channels.
      kernel_size: an int or one per axis, as `strides` and `dilation_rate`.
      strides: as in `conv2d`, as what follows.
      padding: likewise.
      data_format: likewise.
      dilation_rate: likewise.
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
      >>> model = jv.transform(lambda x: jv.layers.conv3d(x, 8, 3, strides=2))
      >>> {key: leaf.shape for key, leaf in model.specs(jnp.ones([1, 9, 9, 9, 3])).items()}
      {'conv3d/bias': (8,), 'conv3d/kernel': (3, 3, 3, 3, 8)}
    """
    layer = Conv3D(
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
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

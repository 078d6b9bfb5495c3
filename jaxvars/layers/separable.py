"""Separable convolution layers (`tf.layers.separable_conv1d`, `separable_conv2d`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.initializers import zeros_initializer
from jaxvars.layers._arguments import positive
from jaxvars.layers._convolution import ConvolutionLayer
from jaxvars.layers.base import Function, WeightRules

__all__ = ["SeparableConv1D", "SeparableConv2D", "separable_conv1d", "separable_conv2d"]


class _SeparableConv(ConvolutionLayer):
    """What separable convolutions of any number of dimensions share. Their kernels are two."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str = "channels_last",
        dilation_rate: int | Sequence[int] = 1,
        depth_multiplier: int = 1,
        activation: Function | None = None,
        use_bias: bool = True,
        depthwise_initializer: Any = None,
        pointwise_initializer: Any = None,
        bias_initializer: Any = zeros_initializer,
        depthwise_regularizer: Function | None = None,
        pointwise_regularizer: Function | None = None,
        bias_regularizer: Function | None = None,
        activity_regularizer: Function | None = None,
        depthwise_constraint: Function | None = None,
        pointwise_constraint: Function | None = None,
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
            WeightRules(depthwise_initializer, depthwise_regularizer, depthwise_constraint),
            WeightRules(bias_initializer, bias_regularizer, bias_constraint),
            activity_regularizer,
            trainable,
            name,
            dtype,
            _scope=_scope,
            _reuse=_reuse,
        )
        self._pointwise = WeightRules(pointwise_initializer, pointwise_regularizer, pointwise_constraint)
        self._set_window(filters, kernel_size, strides, padding, data_format, dilation_rate)
        self.depth_multiplier: int = positive(depth_multiplier, f"{self._kind}: depth_multiplier")

    def build(self, input_shape: Any) -> None:
        """Make both kernels and the bias."""
        channels = input_shape[self._layout.index("C")]
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self._add("depthwise_kernel", shape, self._kernel)
        shape = (*(1,) * self._dims, channels * self.depth_multiplier, self.filters)
        self._add("pointwise_kernel", shape, self._pointwise)
        if self.use_bias:
            self._add("bias", (self.filters,), self._bias)

    @property
    def depthwise_kernel(self) -> Any:
        """The handle of the kernel of each channel, after the first call."""
        return self._weight("depthwise_kernel")

    @property
    def pointwise_kernel(self) -> Any:
        """The handle of the kernel that mixes channels, after the first call."""
        return self._weight("pointwise_kernel")

    def call(self, inputs: jax.Array) -> jax.Array:
        """Convolve each channel, mix, and add."""
        depthwise, pointwise = jnp.asarray(self.depthwise_kernel), jnp.asarray(self.pointwise_kernel)
        padding, steps, rates, layout = self.padding, self.strides, self.dilation_rate, self._layout
        x, before = inputs, layout.index("W")
        if self._dims == 1:  # an image of height 1
            if padding == "CAUSAL":
                reach = (self.kernel_size[0] - 1) * rates[0]
                x = jnp.pad(x, [(reach, 0) if axis == "W" else (0, 0) for axis in layout])
                padding = "VALID"
            x, depthwise, pointwise = jnp.expand_dims(x, before), depthwise[None], pointwise[None]
            steps, rates, layout = (1, *steps), (1, *rates), layout.replace("W", "HW")
        y = nn.separable_conv2d(x, depthwise, pointwise, steps, padding, rates, data_format=layout)
        if self._dims == 1:
            y = jnp.squeeze(y, before)
        return self._finish(nn.bias_add(y, self.bias, self._layout) if self.use_bias else y)


class SeparableConv1D(_SeparableConv):
    """Convolve each channel of sequences, then mix (`tf.layers.SeparableConv1D`): its calls share variables.

    Takes the arguments of `separable_conv1d` but `inputs` and `reuse`, and a `dtype`; its name is made unique.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     layer = jv.layers.SeparableConv1D(2, 3, padding="same")
      ...     return layer(layer(x))
      >>> len(jv.transform(net).specs(jnp.ones([1, 8, 2])))
      3
    """

    _dims = 1


class SeparableConv2D(_SeparableConv):
    """Convolve each channel of images, then mix (`tf.layers.SeparableConv2D`): its calls share variables.

    Takes the arguments of `separable_conv2d` but `inputs` and `reuse`, and a `dtype`; its name is made unique.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     layer = jv.layers.SeparableConv2D(2, 3, padding="same")
      ...     return layer(layer(x))
      >>> len(jv.transform(net).specs(jnp.ones([1, 8, 8, 2])))
      3
    """

    _dims = 2


@add_arg_scope
def separable_conv2d(
    inputs: Any,
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: int | Sequence[int] = 1,
    depth_multiplier: int = 1,
    activation: Function | None = None,
    use_bias: bool = True,
    depthwise_initializer: Any = None,
    pointwise_initializer: Any = None,
    bias_initializer: Any = zeros_initializer,
    depthwise_regularizer: Function | None = None,
    pointwise_regularizer: Function | None = None,
    bias_regularizer: Function | None = None,
    activity_regularizer: Function | None = None,
    depthwise_constraint: Function | None = None,
    pointwise_constraint: Function | None = None,
    bias_constraint: Function | None = None,
    trainable: bool = True,
    name: str | None = None,
    reuse: Any = None,
) -> jax.Array:
    """Convolve each channel of images, then mix the channels (`tf.layers.separable_conv2d`).

    Variables ``<scope>/depthwise_kernel`` ``[height, width, in, depth_multiplier]``, ``<scope>/pointwise_kernel``
    ``[1, 1, in * depth_multiplier, filters]`` and ``<scope>/bias`` ``[filters]``; the scope is `name`, or
    ``separable_conv2d``, ``separable_conv2d_1``, ...

    Args:
      inputs: ``[batch, height, width, channels]``, or channels second; floating. The variables have its dtype.
      filters: the number of output channels.
      kernel_size: an int or one per spatial axis, as what follows.
      strides: the steps of the window.
      padding: "valid" or "same".
      data_format: "channels_last" or "channels_first".
      dilation_rate: the distance between the kernel's points; not together with strides.
      depth_multiplier: how many filters each channel has.
      activation: a function such as `jax.nn.relu`, or None.
      use_bias: whether there is a bias.
      depthwise_initializer: None for the scope's, by default glorot_uniform.
      pointwise_initializer: likewise.
      bias_initializer: zeros.
      depthwise_regularizer: ``value -> loss``, added to the scope's own.
      pointwise_regularizer: likewise.
      bias_regularizer: likewise.
      activity_regularizer: a loss of the output, for REGULARIZATION_LOSSES.
      depthwise_constraint: ``value -> value``, applied by optimizers after each update.
      pointwise_constraint: likewise.
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
      >>> model = jv.transform(lambda x: jv.layers.separable_conv2d(x, 8, 3, depth_multiplier=2))
      >>> variables = model.specs(jnp.ones([1, 9, 9, 3]))
      >>> variables["separable_conv2d/depthwise_kernel"].shape, variables["separable_conv2d/pointwise_kernel"].shape
      ((3, 3, 3, 2), (1, 1, 6, 8))
    """
    layer = SeparableConv2D(
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
        depth_multiplier,
        activation,
        use_bias,
        depthwise_initializer,
        pointwise_initializer,
        bias_initializer,
        depthwise_regularizer,
        pointwise_regularizer,
        bias_regularizer,
        activity_regularizer,
        depthwise_constraint,
        pointwise_constraint,
        bias_constraint,
        trainable,
        name,
        _scope=name,
        _reuse=reuse,
    )
    return layer(inputs)


@add_arg_scope
def separable_conv1d(
    inputs: Any,
    filters: int,
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: int | Sequence[int] = 1,
    depth_multiplier: int = 1,
    activation: Function | None = None,
    use_bias: bool = True,
    depthwise_initializer: Any = None,
    pointwise_initializer: Any = None,
    bias_initializer: Any = zeros_initializer,
    depthwise_regularizer: Function | None = None,
    pointwise_regularizer: Function | None = None,
    bias_regularizer: Function | None = None,
    activity_regularizer: Function | None = None,
    depthwise_constraint: Function | None = None,
    pointwise_constraint: Function | None = None,
    bias_constraint: Function | None = None,
    trainable: bool = True,
    name: str | None = None,
    reuse: Any = None,
) -> jax.Array:
    """Convolve each channel of sequences, then mix the channels (`tf.layers.separable_conv1d`).

    Variables ``<scope>/depthwise_kernel`` ``[width, in, depth_multiplier]``, ``<scope>/pointwise_kernel``
    ``[1, in * depth_multiplier, filters]`` and ``<scope>/bias`` ``[filters]``; the scope is `name`, or
    ``separable_conv1d``, ``separable_conv1d_1``, ...

    Args:
      inputs: ``[batch, width, channels]``, or channels second; floating. The variables have its dtype.
      filters: the number of output channels.
      kernel_size: an int or one per spatial axis, as `strides` and `dilation_rate`.
      strides: as in `separable_conv2d`, as what follows.
      padding: likewise, or "causal": no output sees later inputs.
      data_format: likewise.
      dilation_rate: likewise.
      depth_multiplier: likewise.
      activation: likewise.
      use_bias: likewise.
      depthwise_initializer: likewise.
      pointwise_initializer: likewise.
      bias_initializer: likewise.
      depthwise_regularizer: likewise.
      pointwise_regularizer: likewise.
      bias_regularizer: likewise.
      activity_regularizer: likewise.
      depthwise_constraint: likewise.
      pointwise_constraint: likewise.
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
      >>> variables = jv.transform(lambda x: jv.layers.separable_conv1d(x, 8, 3)).specs(jnp.ones([1, 9, 3]))
      >>> variables["separable_conv1d/depthwise_kernel"].shape, variables["separable_conv1d/pointwise_kernel"].shape
      ((3, 3, 1), (1, 3, 8))
    """
    layer = SeparableConv1D(
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
        depth_multiplier,
        activation,
        use_bias,
        depthwise_initializer,
        pointwise_initializer,
        bias_initializer,
        depthwise_regularizer,
        pointwise_regularizer,
        bias_regularizer,
        activity_regularizer,
        depthwise_constraint,
        pointwise_constraint,
        bias_constraint,
        trainable,
        name,
        _scope=name,
        _reuse=reuse,
    )
    return layer(inputs)

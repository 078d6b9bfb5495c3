"""Dense, flatten and dropout layers (`tf.layers`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers import zeros_initializer
from jaxvars.layers._arguments import positive, training_flag
from jaxvars.layers._kernel import KernelLayer, checked_input
from jaxvars.layers.base import Function, Layer, WeightRules

__all__ = ["Dense", "Dropout", "Flatten", "dense", "dropout", "flatten"]


class Dense(KernelLayer):
    """Multiply by a matrix and add a bias (`tf.layers.Dense`). Calls of one object share its variables.

    Args:
      units: the number of outputs.
      activation: as in `dense`, as what follows.
      use_bias: likewise.
      kernel_initializer: likewise.
      bias_initializer: likewise.
      kernel_regularizer: likewise.
      bias_regularizer: likewise.
      activity_regularizer: likewise.
      kernel_constraint: likewise.
      bias_constraint: likewise.
      trainable: likewise.
      name: the scope's name, made unique: ``d``, ``d_1``, ...
      dtype: of the variables; None for the input's.

    Raises:
      InvalidArgumentError: `units` not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     square = jv.layers.Dense(4)
      ...     return square(square(x))
      >>> list(jv.transform(net).specs(jnp.ones([2, 4])))
      ['dense/bias', 'dense/kernel']
    """

    def __init__(
        self,
        units: int,
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
        self.units: int = positive(units, "dense: units")

    def check(self, inputs: Any) -> jax.Array:
        """Refuse a rank below 2 and integers."""
        return self._checked(inputs, 2)

    def build(self, input_shape: Any) -> None:
        """Make kernel and bias."""
        shape = (input_shape[-1], self.units)
        self._add("kernel", shape, self._kernel)
        if self.use_bias:
            self._add("bias", (self.units,), self._bias)

    def call(self, inputs: jax.Array) -> jax.Array:
        """Multiply and add."""
        y = inputs @ jnp.asarray(self.kernel)
        return self._finish(nn.bias_add(y, self.bias) if self.use_bias else y)


@add_arg_scope
def dense(
    inputs: Any,
    units: int,
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
    """Multiply by a matrix and add a bias (`tf.layers.dense`).

    Variables ``<scope>/kernel`` ``[features, units]`` and ``<scope>/bias`` ``[units]``; the scope is `name`,
    or ``dense``, ``dense_1``, ...

    Args:
      inputs: ``[batch, ..., features]``, floating; the variables have its dtype.
      units: the number of outputs.
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
      ``[batch, ..., units]``.

    Raises:
      InvalidArgumentError: rank below 2, `units` not positive, or what `get_variable` refuses.
      InvalidTypeError: integer inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.dense(x, 10, name="logits"))
      >>> list(model.specs(jnp.ones([2, 4])))
      ['logits/bias', 'logits/kernel']
    """
    layer = Dense(
        units,
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


class Flatten(Layer):
    """Make a matrix with one row per example (`tf.layers.Flatten`).

    Args:
      data_format: as in `flatten`.
      name: accepted for TF1's sake.

    Raises:
      InvalidArgumentError: another format.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.Flatten()(jnp.ones([2, 3, 4])).shape
      (2, 12)
    """

    _has_variables = False

    def __init__(self, data_format: str = "channels_last", name: str | None = None) -> None:
        super().__init__(name=name)
        if data_format not in ("channels_last", "channels_first"):
            raise InvalidArgumentError(
                f'flatten: data_format is "channels_last" or "channels_first", got {data_format!r}'
            )
        self.data_format = data_format

    def call(self, inputs: Any) -> jax.Array:
        """Reshape."""
        x = jnp.asarray(inputs)
        if x.ndim == 0:
            raise InvalidArgumentError("flatten: the input needs a batch axis, got a scalar")
        if self.data_format == "channels_first" and x.ndim > 2:
            x = jnp.moveaxis(x, 1, -1)
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@add_arg_scope
def flatten(inputs: Any, name: str | None = None, data_format: str = "channels_last") -> jax.Array:
    """Make a matrix with one row per example (`tf.layers.flatten`).

    Args:
      inputs: ``[batch, ...]``; a vector becomes a column.
      name: accepted for TF1's sake, without effect.
      data_format: "channels_last", or "channels_first": then the channels are moved last before, so that
        a `dense` behind it has the same kernel in both formats.

    Returns:
      ``[batch, product of the others]``.

    Raises:
      InvalidArgumentError: a scalar, or another format.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.flatten(jnp.ones([2, 3, 4])).shape
      (2, 12)
    """
    return Flatten(data_format, name)(inputs)


class Dropout(Layer):
    """Set a random part of the elements to 0 and scale up the rest (`tf.layers.Dropout`).

    Args:
      rate: as in `dropout`, as what follows.
      noise_shape: likewise.
      seed: likewise.
      name: accepted for TF1's sake.

    Raises:
      InvalidArgumentError: a rate outside of [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> drop = jv.layers.Dropout(0.5)
      >>> print(drop(jnp.ones([2])), drop(jnp.ones([2]), training=False))
      [1. 1.] [1. 1.]
    """

    _has_variables = False

    def __init__(
        self,
        rate: Any = 0.5,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if isinstance(rate, int | float) and not 0 <= rate < 1:
            raise InvalidArgumentError(f"dropout: rate must be a scalar in the range [0, 1), got {rate}")
        self.rate = rate
        self.noise_shape = noise_shape
        self.seed = seed

    def call(self, inputs: Any, training: Any = False) -> jax.Array:
        """Drop when training; else return the inputs."""
        x = checked_input(inputs, "dropout", 0)
        is_training = training_flag(training)
        if is_training is False:
            return x
        dropped = nn.dropout(x, noise_shape=self.noise_shape, seed=self.seed, rate=self.rate)
        return dropped if is_training is True else jnp.where(is_training, dropped, x)


@add_arg_scope
def dropout(
    inputs: Any,
    rate: Any = 0.5,
    noise_shape: Sequence[int | None] | None = None,
    seed: int | None = None,
    training: Any = False,
    name: str | None = None,
) -> jax.Array:
    """Set a random part of the elements to 0 and scale up the rest (`tf.layers.dropout`).

    The random numbers come from `jv.next_rng_key`: pass ``rng=`` to ``model.apply``. TensorFlow has
    another generator, so the mask is not TensorFlow's.

    Args:
      inputs: any floating array.
      rate: the part that becomes 0; a number in [0, 1) or a traced scalar.
      noise_shape: the shape of the mask, which broadcasts against the input; None in it takes the input's
        length. ``[None, 1, 1, None]`` drops whole channels of an image.
      seed: an int that tells this call's mask from others of the same key.
      training: a bool, or a traced bool; when False the input is returned.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array like the input.

    Raises:
      InvalidArgumentError: a rate outside of [0, 1), or a `noise_shape` that does not fit.
      FailedPreconditionError: outside of a frame, or no ``rng`` was given.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.dropout(x, rate=0.25, training=True))
      >>> out, _ = model.apply(jv.Variables({}), jnp.ones([1000]), rng=0)
      >>> sorted(set(out.tolist()))
      [0.0, 1.3333333730697632]
    """
    return Dropout(rate, noise_shape, seed, name)(inputs, training=training)

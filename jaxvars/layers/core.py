"""Dense, flatten and dropout layers (`tf.layers`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.arg_scope import add_arg_scope
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.initializers import zeros_initializer
from jaxvars.layers._scope import add_weight, finish, floating_input, layer_scope
from jaxvars.nn import bias_add
from jaxvars.store import next_rng_key

__all__ = ["dense", "dropout", "flatten"]

Function = Callable[[Any], Any]


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
      >>> list(model.init(0, jnp.ones([2, 4])))
      ['logits/bias', 'logits/kernel']
    """
    x = floating_input(inputs, "dense", 2)
    units = _positive(units, "dense: units")
    with layer_scope(name, "dense", reuse):
        kernel = add_weight(
            "kernel",
            (x.shape[-1], units),
            x.dtype,
            initializer=kernel_initializer,
            regularizer=kernel_regularizer,
            constraint=kernel_constraint,
            trainable=trainable,
        )
        y = x @ jnp.asarray(kernel)
        if use_bias:
            bias = add_weight(
                "bias",
                (units,),
                x.dtype,
                initializer=bias_initializer,
                regularizer=bias_regularizer,
                constraint=bias_constraint,
                trainable=trainable,
            )
            y = bias_add(y, bias)
        return finish(y, "dense", activation, activity_regularizer)


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
    del name
    x = jnp.asarray(inputs)
    if data_format not in ("channels_last", "channels_first"):
        raise InvalidArgumentError(f'flatten: data_format is "channels_last" or "channels_first", got {data_format!r}')
    if x.ndim == 0:
        raise InvalidArgumentError("flatten: the input needs a batch axis, got a scalar")
    if data_format == "channels_first" and x.ndim > 2:
        x = jnp.moveaxis(x, 1, -1)
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


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
    del name
    x = floating_input(inputs, "dropout", 0)
    if isinstance(rate, int | float) and not 0 <= rate < 1:
        raise InvalidArgumentError(f"dropout: rate must be a scalar in the range [0, 1), got {rate}")
    if training is False or training is None or (isinstance(rate, int | float) and rate == 0):
        return x
    key = next_rng_key()
    if seed is not None:
        key = jax.random.fold_in(key, seed)
    keep = 1.0 - jnp.asarray(rate, jnp.promote_types(x.dtype, jnp.float32))
    mask = jax.random.bernoulli(key, keep, _noise_shape(x, noise_shape))
    dropped = jnp.where(mask, x / keep.astype(x.dtype), jnp.zeros_like(x))
    return dropped if training is True else jnp.where(jnp.asarray(training, bool), dropped, x)


def _noise_shape(x: jax.Array, noise_shape: Sequence[int | None] | None) -> tuple[int, ...]:
    if noise_shape is None:
        return x.shape
    wanted = tuple(noise_shape)
    if len(wanted) != x.ndim or any(w not in (None, 1, n) for w, n in zip(wanted, x.shape, strict=True)):
        raise InvalidArgumentError(
            f"dropout: noise_shape must broadcast against the input {x.shape}, got {list(wanted)}"
        )
    return tuple(n if w is None else w for w, n in zip(wanted, x.shape, strict=True))


def _positive(value: Any, argument: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{argument} is a positive int, got {value!r}") from None
    if number < 1 or number != value:
        raise InvalidArgumentError(f"{argument} is a positive int, got {value!r}")
    return number

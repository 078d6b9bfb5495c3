"""Small operations that TF1 code names: biases, activations with TF1's defaults, dropout (`tf.nn`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.nn._explicit import spread_as
from jaxvars.store import next_rng_key

__all__ = ["bias_add", "crelu", "dropout", "l2_loss", "leaky_relu", "relu_layer", "xw_plus_b", "zero_fraction"]


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


def xw_plus_b(x: Any, weights: Any, biases: Any, name: str | None = None) -> jax.Array:
    """Multiply by a matrix and add a bias (`tf.nn.xw_plus_b`).

    Args:
      x: ``[batch, features]``.
      weights: ``[features, units]``.
      biases: ``[units]``.
      name: accepted for TF1's sake, without effect.

    Returns:
      ``[batch, units]``.

    Raises:
      InvalidArgumentError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.xw_plus_b(jnp.ones([1, 2]), jnp.ones([2, 3]), jnp.arange(3.0)))
      [[2. 3. 4.]]
    """
    del name
    rows, matrix = jnp.asarray(x), jnp.asarray(weights)
    if rows.ndim != 2 or matrix.ndim != 2 or rows.shape[1] != matrix.shape[0]:
        raise InvalidArgumentError(
            f"xw_plus_b: Matrix size-incompatible: x is [batch, features] and weights [features, units], got "
            f"{rows.shape} and {matrix.shape}"
        )
    return bias_add(rows @ matrix, biases)


def relu_layer(x: Any, weights: Any, biases: Any, name: str | None = None) -> jax.Array:
    """Multiply by a matrix, add a bias, keep what is positive (`tf.nn.relu_layer`); arguments as `xw_plus_b`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.relu_layer(jnp.ones([1, 2]), jnp.ones([2, 2]), jnp.array([-3.0, 1.0])))
      [[0. 3.]]
    """
    return jax.nn.relu(xw_plus_b(x, weights, biases, name))


def leaky_relu(features: Any, alpha: Any = 0.2, name: str | None = None) -> jax.Array:
    """Return ``max(x, alpha * x)`` (`tf.nn.leaky_relu`). TF1's slope is 0.2; that of `jax.nn.leaky_relu` is 0.01.

    Args:
      features: any array; integers become float32.
      alpha: the slope below 0.
      name: accepted for TF1's sake, without effect.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.leaky_relu(jnp.array([-1.0, 2.0])))
      [-0.2  2. ]
    """
    del name
    x = jnp.asarray(features)
    x = x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.integer) else x
    return jax.nn.leaky_relu(x, alpha)


def crelu(features: Any, name: str | None = None, axis: int = -1) -> jax.Array:
    """Return the positive parts of `x` and of ``-x``, one after the other (`tf.nn.crelu`).

    Args:
      features: any array.
      name: accepted for TF1's sake, without effect.
      axis: the axis along which they are joined, which becomes twice as long.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.crelu(jnp.array([-1.0, 2.0])))
      [0. 2. 1. 0.]
    """
    del name
    x = jnp.asarray(features)
    return jax.nn.relu(jnp.concatenate([x, -x], axis))


def l2_loss(t: Any, name: str | None = None) -> jax.Array:
    """Return half the sum of squares (`tf.nn.l2_loss`).

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.l2_loss(jnp.array([1.0, 3.0])))
      5.0
    """
    del name
    return jnp.sum(jnp.square(jnp.asarray(t))) / 2


def zero_fraction(value: Any, name: str | None = None) -> jax.Array:
    """Return the part of the elements that are 0, a float32 scalar; nan of no elements (`tf.nn.zero_fraction`).

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.zero_fraction(jnp.array([0, 1, 0, 3])))
      0.5
    """
    del name
    return jnp.mean((jnp.asarray(value) == 0).astype(jnp.float32))


def dropout(
    x: Any,
    keep_prob: Any = None,
    noise_shape: Sequence[int | None] | None = None,
    seed: int | None = None,
    name: str | None = None,
    rate: Any = None,
) -> jax.Array:
    """Set a random part of the elements to 0 and scale up the rest (`tf.nn.dropout`).

    The random numbers come from `jv.next_rng_key`: pass ``rng=`` to ``model.apply``. TensorFlow has
    another generator, so the mask is not TensorFlow's. Always drops; `jv.layers.dropout` has a `training`.

    Args:
      x: any floating array.
      keep_prob: the part that stays: a number in (0, 1] or a traced scalar. Or give `rate`.
      noise_shape: the shape of the mask, which broadcasts against `x`; None in it takes the length of `x`.
        ``[None, 1, 1, None]`` drops whole channels of an image.
      seed: an int that tells this call's mask from others of the same key.
      name: accepted for TF1's sake, without effect.
      rate: the part that becomes 0: a number in [0, 1) or a traced scalar. The newer way.

    Returns:
      An array like `x`.

    Raises:
      InvalidArgumentError: a rate outside of [0, 1), both or neither of `keep_prob` and `rate`, or a
        `noise_shape` that does not fit.
      InvalidTypeError: integers.
      FailedPreconditionError: outside of a frame, or no ``rng`` was given.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.nn.dropout(x, keep_prob=0.75))
      >>> out, _ = model.apply(jv.Variables({}), jnp.ones([1000]), rng=0)
      >>> sorted(set(out.tolist()))
      [0.0, 1.3333333730697632]
    """
    del name
    array = jnp.asarray(x)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InvalidTypeError(f"dropout takes floating numbers, got {array.dtype}. Cast: x.astype(jnp.float32)")
    part = _rate(keep_prob, rate)
    shape = _noise_shape(array, noise_shape)
    if not isinstance(part, jax.Array) and part == 0:
        return array
    key = next_rng_key()
    if seed is not None:
        key = jax.random.fold_in(key, seed)
    keep = 1.0 - jnp.asarray(part, jnp.promote_types(array.dtype, jnp.float32))
    mask = jax.random.bernoulli(key, keep, shape, out_sharding=spread_as(array, shape))
    return jnp.where(mask, array / keep.astype(array.dtype), jnp.zeros_like(array))


def _rate(keep_prob: Any, rate: Any) -> Any:
    if keep_prob is not None and rate is not None:
        raise InvalidArgumentError("dropout: Cannot specify both 'keep_prob' and 'rate': write rate")
    if keep_prob is None and rate is None:
        raise InvalidArgumentError("dropout: `rate` must be provided, the part of the elements that become 0")
    part = rate if keep_prob is None else 1 - keep_prob
    if isinstance(part, int | float | np.number) and not 0 <= float(part) < 1:
        raise InvalidArgumentError(
            f"dropout: rate must be a scalar in the range [0, 1) and keep_prob in (0, 1], got "
            f"{f'rate={rate}' if keep_prob is None else f'keep_prob={keep_prob}'}"
        )
    return part


def _noise_shape(x: jax.Array, noise_shape: Sequence[int | None] | None) -> tuple[int, ...]:
    if noise_shape is None:
        return x.shape
    wanted = tuple(noise_shape)
    if len(wanted) != x.ndim or any(w not in (None, 1, n) for w, n in zip(wanted, x.shape, strict=True)):
        raise InvalidArgumentError(
            f"dropout: noise_shape must broadcast against the input {x.shape}, got {list(wanted)}"
        )
    return tuple(n if w is None else w for w, n in zip(wanted, x.shape, strict=True))

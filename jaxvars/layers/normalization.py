"""Batch normalization with moving averages that are assigned in place (`tf.layers`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers import ones_initializer, zeros_initializer
from jaxvars.layers._scope import add_weight, floating_input, layer_scope

__all__ = ["batch_normalization"]

Function = Callable[[Any], Any]

# TensorFlow's fused kernel never goes below cuDNN's smallest epsilon, on any device.
_SMALLEST_FUSED_EPSILON = 1.001e-5


@add_arg_scope
def batch_normalization(
    inputs: Any,
    axis: int | Sequence[int] = -1,
    momentum: Any = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    beta_initializer: Any = zeros_initializer,
    gamma_initializer: Any = ones_initializer,
    moving_mean_initializer: Any = zeros_initializer,
    moving_variance_initializer: Any = ones_initializer,
    beta_regularizer: Function | None = None,
    gamma_regularizer: Function | None = None,
    beta_constraint: Function | None = None,
    gamma_constraint: Function | None = None,
    training: Any = False,
    trainable: bool = True,
    name: str | None = None,
    reuse: Any = None,
    fused: bool | None = None,
) -> jax.Array:
    """Normalize each channel by the batch's, or the remembered, mean and variance (`tf.layers`).

    Variables ``<scope>/gamma``, ``beta`` (trainable), ``moving_mean``, ``moving_variance`` (not); the scope
    is `name`, or ``batch_normalization``, ``batch_normalization_1``, ... When training, the moving averages
    are assigned here and now, even inside ``lax.scan``: there are no UPDATE_OPS to run, but ``model.apply``
    returns the new variables, which must be kept.

    As in TF1 the *fused* form differs a little: it feeds the unbiased variance, ``N / (N - 1)`` times the
    batch's, into ``moving_variance``, and its epsilon is at least 1.001e-5. It is used for inputs of rank 4
    with `axis` 1, 3 or -1, unless ``fused=False``.

    Args:
      inputs: ``[batch, ..., channels]``, floating. float16 and bfloat16 have float32 variables.
      axis: the axis or axes of the channels; all others are averaged over. Each combination of indices along
        several axes has its own statistics.
      momentum: the part of the moving averages that stays at each step.
      epsilon: added to the variance.
      center: whether there is an offset, beta.
      scale: whether there is a factor, gamma.
      beta_initializer: zeros.
      gamma_initializer: ones.
      moving_mean_initializer: zeros.
      moving_variance_initializer: ones.
      beta_regularizer: ``value -> loss``, added to the scope's own.
      gamma_regularizer: likewise.
      beta_constraint: ``value -> value``, applied by optimizers after each update.
      gamma_constraint: likewise.
      training: True to use and remember the batch's statistics, False to use the remembered ones; may be a
        traced bool, so that one compiled function serves both.
      trainable: whether optimizers touch beta and gamma.
      name: the scope's name, taken as it is: a second use needs `reuse`.
      reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them.
      fused: None or True for TF1's choice, False never.

    Returns:
      An array like `inputs`.

    Raises:
      InvalidArgumentError: an axis out of range, or what `get_variable` refuses.
      InvalidTypeError: integer inputs.
      TransformError: training under ``vmap``, which cannot carry the assignment.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x, training):
      ...     return jv.layers.batch_normalization(x, training=training, momentum=0.5, name="bn")
      >>> model = jv.transform(net)
      >>> x = jnp.array([[1.0], [3.0]])
      >>> variables = model.init(0, x, False)
      >>> _, variables = model.apply(variables, x, True)
      >>> print(variables["bn/moving_mean"])
      [1.]
    """
    x = floating_input(inputs, "batch_normalization", 1)
    axes = _axes(axis, x.ndim)
    with layer_scope(name, "batch_normalization", reuse):
        gamma, beta = (
            add_weight(
                weight,
                _parameter_shape(x, axes),
                _parameter_dtype(x),
                initializer=initializer,
                regularizer=regularizer,
                constraint=constraint,
                trainable=trainable,
            )
            if wanted
            else None
            for weight, wanted, initializer, regularizer, constraint in (
                ("gamma", scale, gamma_initializer, gamma_regularizer, gamma_constraint),
                ("beta", center, beta_initializer, beta_regularizer, beta_constraint),
            )
        )
        moving = _Moments(
            *(
                add_weight(
                    weight,
                    _parameter_shape(x, axes),
                    _parameter_dtype(x),
                    initializer=initializer,
                    trainable=False,
                )
                for weight, initializer in (
                    ("moving_mean", moving_mean_initializer),
                    ("moving_variance", moving_variance_initializer),
                )
            )
        )
        use_fused = fused is not False and x.ndim == 4 and axes in ((1,), (3,))
        used = _statistics(x, axes, moving, training, momentum, use_fused)
        if use_fused:
            epsilon = max(epsilon, _SMALLEST_FUSED_EPSILON)
        wide = x.astype(_parameter_dtype(x))
        shape = tuple(n if i in axes else 1 for i, n in enumerate(x.shape))
        offset, factor = (None if p is None else jnp.asarray(p).reshape(shape) for p in (beta, gamma))
        mean, variance = used.mean.reshape(shape), used.variance.reshape(shape)
        y = nn.batch_normalization(wide, mean, variance, offset, factor, epsilon)
        return y.astype(x.dtype)


class _Moments(NamedTuple):
    """Mean and variance: variables, or values."""

    mean: Any
    variance: Any


def _statistics(
    x: jax.Array, axes: tuple[int, ...], moving: _Moments, training: Any, momentum: Any, fused: bool
) -> _Moments:
    """The mean and variance to normalize by; when training the moving averages are assigned."""
    remembered = _Moments(*(jnp.asarray(variable) for variable in moving))
    if training is False or training is None:
        return remembered
    others = tuple(i for i in range(x.ndim) if i not in axes)
    wide = x.astype(remembered.mean.dtype)
    shape = remembered.mean.shape
    batch = _Moments(*(moment.reshape(shape) for moment in nn.moments(wide, others)))
    count = math.prod(x.shape[i] for i in others)
    unbiased = batch.variance * (count / max(count - 1, 1)) if fused else batch.variance
    # A traced flag selects values: a write in a branch of `cond` would not work in loops under grad.
    is_training = None if training is True else jnp.asarray(training, bool)
    rate = 1 - jnp.asarray(momentum, remembered.mean.dtype)
    for variable, old, new in zip(moving, remembered, (batch.mean, unbiased), strict=True):
        step = jax.lax.stop_gradient((old - new) * rate)
        variable.assign(old - (step if is_training is None else jnp.where(is_training, step, 0)))
    if is_training is None:
        return batch
    return _Moments(*(jnp.where(is_training, new, old) for new, old in zip(batch, remembered, strict=True)))


def _axes(axis: int | Sequence[int], rank: int) -> tuple[int, ...]:
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(sorted(i + rank if i < 0 else i for i in given))
    if not axes or len(set(axes)) < len(axes) or axes[0] < 0 or axes[-1] >= rank:
        raise InvalidArgumentError(
            f"batch_normalization: axis is one or several of 0 to {rank - 1} (the input's rank is {rank}), got {axis!r}"
        )
    return axes


def _parameter_shape(x: jax.Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    """TF1's shapes: a vector for one axis, else the input's rank with 1 for what is averaged over."""
    if len(axes) == 1:
        return (x.shape[axes[0]],)
    return tuple(n if i in axes else 1 for i, n in enumerate(x.shape))


def _parameter_dtype(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)

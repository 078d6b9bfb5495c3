"""Batch normalization with moving averages that are assigned in place (`tf.layers`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers import as_initializer, ones_initializer, zeros_initializer
from jaxvars.layers._arguments import positive, training_flag
from jaxvars.layers._kernel import checked_input
from jaxvars.layers.base import Function, Layer, WeightRules
from jaxvars.nn.normalization import SMALLEST_FUSED_EPSILON
from jaxvars.scopes import get_variable_scope

__all__ = ["BatchNormalization", "batch_normalization"]


class _Moments(NamedTuple):
    """A mean and a variance, with length 1 along the axes they were averaged over."""

    mean: jax.Array
    variance: jax.Array


class BatchNormalization(Layer):
    """Normalize each channel (`tf.layers.BatchNormalization`): `batch_normalization` as an object.

    Takes the arguments of `batch_normalization` but `inputs`, `training` and `reuse`, and `dtype`. Its name is made
    unique, and all its calls share, and update, the same variables.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     return jv.layers.BatchNormalization(momentum=0.5)(x, training=True)
      >>> x = jnp.array([[1.0], [3.0]])
      >>> _, variables = jv.transform(net).apply(jv.transform(net).init(0, x), x)
      >>> print(variables["batch_normalization/moving_mean"])
      [1.]
    """

    def __init__(
        self,
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
        renorm: bool = False,
        renorm_clipping: dict[str, Any] | None = None,
        renorm_momentum: Any = 0.99,
        fused: bool | None = None,
        trainable: bool = True,
        virtual_batch_size: int | None = None,
        adjustment: Callable[[tuple[int, ...]], tuple[Any, Any]] | None = None,
        name: str | None = None,
        dtype: Any = None,
        *,
        _scope: Any = None,
        _reuse: Any = None,
    ) -> None:
        super().__init__(trainable, name, dtype, _scope=_scope, _reuse=_reuse)
        self.axis = axis
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.renorm = renorm
        self.renorm_clipping: dict[str, Any] = dict(renorm_clipping or {})
        self.renorm_momentum = renorm_momentum
        self.fused = fused
        self.adjustment = adjustment
        self.virtual_batch_size: int | None = None
        self._beta = WeightRules(beta_initializer, beta_regularizer, beta_constraint)
        self._gamma = WeightRules(gamma_initializer, gamma_regularizer, gamma_constraint)
        self._moving_initializers = (moving_mean_initializer, moving_variance_initializer)
        if unknown := sorted(set(self.renorm_clipping) - {"rmax", "rmin", "dmax"}):
            raise InvalidArgumentError(
                f"batch_normalization: Received invalid keys for `renorm_clipping` argument: {unknown}. "
                "Supported values: 'rmax', 'rmin', 'dmax'."
            )
        if virtual_batch_size is not None:
            self.virtual_batch_size = positive(virtual_batch_size, "batch_normalization: virtual_batch_size")
            if adjustment is not None:
                raise InvalidArgumentError(
                    "batch_normalization: When using `virtual_batch_size`, adjustment cannot be specified"
                )

    def check(self, inputs: Any) -> jax.Array:
        """Refuse integers, axes out of range, and batches that cannot be divided."""
        x = checked_input(inputs, "batch_normalization", 1, dtype=self.dtype)
        axes = self._axes(x.ndim)
        if self.virtual_batch_size is not None and (0 in axes or x.shape[0] % self.virtual_batch_size):
            raise InvalidArgumentError(
                "batch_normalization: When using `virtual_batch_size`, the batch dimension must be 0, `axis` cannot "
                f"include 0, and virtual_batch_size must divide the batch. Received: axis={self.axis}, "
                f"virtual_batch_size={self.virtual_batch_size}, inputs {x.shape}"
            )
        return x

    # Variables

    def build(self, input_shape: Any) -> None:
        """Make gamma, beta, and the moving averages."""
        axes = self._axes(len(input_shape))
        # TF1's shapes: a vector for one axis, else the input's rank with 1 for what is averaged over.
        shape = tuple(n if i in axes else 1 for i, n in enumerate(input_shape))
        if self.virtual_batch_size is not None:
            shape = (shape[0], 1, *shape[1:])
        elif len(axes) == 1:
            shape = (input_shape[axes[0]],)
        dtype = jnp.promote_types(self.dtype or self._input_dtype, jnp.float32)
        for name, wanted, rules in (("gamma", self.scale, self._gamma), ("beta", self.center, self._beta)):
            if wanted:
                self._add(name, shape, rules, dtype)
        with _without_partitioner():
            mean, variance = self._moving_initializers
            moving = {"moving_mean": mean, "moving_variance": variance}
            if self.renorm:
                deviation = _root_of(variance)
                moving |= {"moving_stddev": deviation, "renorm_mean": mean, "renorm_stddev": deviation}
            for name, initializer in moving.items():
                self.add_weight(name, shape, dtype, initializer, trainable=False)

    @property
    def gamma(self) -> Any:
        """The handle of the factor, after the first call; None without one."""
        return self._weight("gamma") if self.scale else None

    @property
    def beta(self) -> Any:
        """The handle of the offset, after the first call; None without one."""
        return self._weight("beta") if self.center else None

    @property
    def moving_mean(self) -> Any:
        """The handle of the moving mean, after the first call."""
        return self._weight("moving_mean")

    @property
    def moving_variance(self) -> Any:
        """The handle of the moving variance, after the first call."""
        return self._weight("moving_variance")

    # Computing

    def call(self, inputs: jax.Array, training: Any = False) -> jax.Array:
        """Normalize; when training, by the batch's moments, and assign the moving averages."""
        is_training = training_flag(training)
        x = inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32))
        axes = self._axes(x.ndim)
        parts = self.virtual_batch_size is not None and is_training is not False
        if parts:
            x = x.reshape(self.virtual_batch_size or 1, -1, *x.shape[1:])
            axes = tuple(i + 1 for i in axes)
        shape = tuple(n if i in axes else 1 for i, n in enumerate(x.shape))
        remembered = _Moments(*(jnp.asarray(v).reshape(shape) for v in (self.moving_mean, self.moving_variance)))
        factor, offset = (None if v is None else jnp.asarray(v).reshape(shape) for v in (self.gamma, self.beta))
        used = remembered
        if is_training is not False:
            others = [i for i in range(x.ndim) if i not in axes and not (parts and i == 1)]
            batch = _Moments(*nn.moments(x, others, keepdims=True))
            if self.adjustment is not None:
                change = tuple(jnp.asarray(part) for part in self.adjustment(x.shape))
                factor, offset = _composed((change[0], change[1]), factor, offset, is_training)
            new = _Moments(*(jnp.mean(m, 1, keepdims=True) for m in batch)) if parts else batch
            if self.renorm:
                correction = self._renormalize(new, is_training)
                factor, offset = _composed(correction, factor, offset, is_training)
            self._remember(new, math.prod(x.shape[i] for i in others), is_training)
            used = _Moments(*(_chosen(is_training, a, b) for a, b in zip(batch, remembered, strict=True)))
        epsilon = max(self.epsilon, SMALLEST_FUSED_EPSILON) if self._is_fused(inputs.ndim) else self.epsilon
        y = nn.batch_normalization(x, used.mean, used.variance, offset, factor, epsilon)
        return y.reshape(inputs.shape).astype(inputs.dtype)

    def _axes(self, rank: int) -> tuple[int, ...]:
        given = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        axes = tuple(sorted(i + rank if i < 0 else i for i in given))
        if not axes or len(set(axes)) < len(axes) or axes[0] < 0 or axes[-1] >= rank:
            raise InvalidArgumentError(
                f"batch_normalization: axis is one or several of 0 to {rank - 1} (the input's rank is {rank}), got "
                f"{self.axis!r}"
            )
        return axes

    def _is_fused(self, rank: int) -> bool:
        """Whether TensorFlow computes this by its fused kernel."""
        plain = not self.renorm and self.virtual_batch_size is None and self.adjustment is None
        fits = rank in (4, 5) and self._axes(rank) in ((1,), (rank - 1,))
        return self.fused is not False and plain and fits

    def _remember(self, new: _Moments, count: int, is_training: bool | jax.Array) -> None:
        """Assign the moving averages."""
        variance = new.variance
        if self._is_fused(new.mean.ndim):
            variance = variance * (count / max(count - 1, 1))
        _move(self.moving_mean, new.mean, self.momentum, is_training)
        if not self.renorm:
            _move(self.moving_variance, variance, self.momentum, is_training)
            return
        deviation = _move(self._weight("moving_stddev"), jnp.sqrt(variance + self.epsilon), self.momentum, is_training)
        moved = jax.nn.relu(jnp.square(deviation) - self.epsilon)
        old = jnp.asarray(self.moving_variance)
        self.moving_variance.assign(jax.lax.stop_gradient(_chosen(is_training, moved, old)))

    def _renormalize(self, new: _Moments, is_training: bool | jax.Array) -> tuple[jax.Array, jax.Array]:
        """The correction by the renorm variables as they were, which are then moved."""
        mean, deviation = self._weight("renorm_mean"), self._weight("renorm_stddev")
        found = jnp.sqrt(new.variance + self.epsilon)
        shape = new.mean.shape
        known = jnp.maximum(jnp.asarray(deviation).reshape(shape), math.sqrt(self.epsilon))
        r = found / known
        d = (new.mean - jnp.asarray(mean).reshape(shape)) / known
        r = jnp.clip(r, self.renorm_clipping.get("rmin"), self.renorm_clipping.get("rmax"))
        if (limit := self.renorm_clipping.get("dmax")) is not None:
            d = jnp.clip(d, -limit, limit)
        _move(mean, new.mean, self.renorm_momentum, is_training)
        _move(deviation, found, self.renorm_momentum, is_training)
        return jax.lax.stop_gradient(r), jax.lax.stop_gradient(d)


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
    renorm: bool = False,
    renorm_clipping: dict[str, Any] | None = None,
    renorm_momentum: Any = 0.99,
    fused: bool | None = None,
    virtual_batch_size: int | None = None,
    adjustment: Callable[[tuple[int, ...]], tuple[Any, Any]] | None = None,
) -> jax.Array:
    """Normalize each channel by the batch's, or the remembered, mean and variance (`tf.layers`).

    Variables ``<scope>/gamma``, ``beta`` (trainable), ``moving_mean``, ``moving_variance`` (not); the scope
    is `name`, or ``batch_normalization``, ``batch_normalization_1``, ... When training, the moving averages
    are assigned here and now, even inside ``lax.scan``: there are no UPDATE_OPS to run, but ``model.apply``
    returns the new variables, which must be kept.

    As in TF1 the *fused* form differs a little: it feeds the unbiased variance, ``N / (N - 1)`` times the
    batch's, into ``moving_variance``, and its epsilon is at least 1.001e-5. It is used for inputs of rank 4
    and 5 whose `axis` is 1 or the last, unless ``fused=False`` or one of `renorm`, `virtual_batch_size`, `adjustment`
    is given.

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
      renorm: whether to use batch renormalization (https://arxiv.org/abs/1702.03275), with three more variables that
        are not trainable: ``moving_stddev``, ``renorm_mean``, ``renorm_stddev``.
      renorm_clipping: limits of its correction: numbers or scalars under "rmin", "rmax", "dmax".
      renorm_momentum: the part of the renorm variables that stays at each step.
      fused: None or True for TF1's choice, False never.
      virtual_batch_size: normalize parts of the batch on their own when training. As in TF1, example ``i`` of the
        batch belongs to part ``i % (batch / virtual_batch_size)``, and the variables have the input's rank plus one.
      adjustment: when training, a function of the input's shape that returns a factor and an offset, applied between
        normalization and gamma and beta.

    Returns:
      An array like `inputs`.

    Raises:
      InvalidArgumentError: an axis out of range, a batch that `virtual_batch_size` does not divide, or what
        `get_variable` refuses.
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
    layer = BatchNormalization(
        axis,
        momentum,
        epsilon,
        center,
        scale,
        beta_initializer,
        gamma_initializer,
        moving_mean_initializer,
        moving_variance_initializer,
        beta_regularizer,
        gamma_regularizer,
        beta_constraint,
        gamma_constraint,
        renorm,
        renorm_clipping,
        renorm_momentum,
        fused,
        trainable,
        virtual_batch_size,
        adjustment,
        name,
        _scope=name,
        _reuse=reuse,
    )
    return layer(inputs, training=training)


def _chosen(is_training: bool | jax.Array, then: jax.Array, otherwise: jax.Array) -> jax.Array:
    """One of two values. A traced flag selects: a write in a branch of `cond` would not work in loops under grad."""
    return then if is_training is True else jnp.where(is_training, then, otherwise)


def _move(variable: Any, new: jax.Array, momentum: Any, is_training: bool | jax.Array) -> jax.Array:
    """Assign the moving average of a variable; returns its value."""
    old = jnp.asarray(variable)
    step = jax.lax.stop_gradient((old - new.reshape(old.shape)) * (1 - jnp.asarray(momentum, old.dtype)))
    return variable.assign(old - _chosen(is_training, step, jnp.zeros_like(step)))


def _composed(
    change: tuple[jax.Array, jax.Array], factor: Any, offset: Any, is_training: bool | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Factor and offset of first ``x * r + d``, when training, and then gamma and beta."""
    r, d = (_chosen(is_training, part, jnp.full_like(part, idle)) for part, idle in zip(change, (1, 0), strict=True))
    if factor is not None:
        r, d = r * factor, d * factor
    return r, d if offset is None else d + offset


@contextmanager
def _without_partitioner() -> Generator[None, None, None]:
    """Moving averages are never partitioned, as in TF1."""
    scope = get_variable_scope()
    partitioner = scope.partitioner
    scope.set_partitioner(None)
    try:
        yield
    finally:
        scope.set_partitioner(partitioner)


def _root_of(initializer: Any) -> Any:
    """An initializer whose values are the square roots of those of another."""

    def root(key: Any, shape: Any, dtype: Any) -> jax.Array:
        made = as_initializer(initializer, shape, dtype, "moving_stddev")
        return jnp.sqrt(made.initializer(key, made.shape, made.dtype))

    # The default needs no compilation.
    return initializer if initializer is ones_initializer else root

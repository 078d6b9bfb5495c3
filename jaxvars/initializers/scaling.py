"""Initializers whose scale follows the shape: variance scaling (Glorot, He, LeCun), uniform unit scaling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers._base import FLOAT32, Shape
from jaxvars.initializers.random import Draw, FloatInitializer

__all__ = [
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "LecunNormal",
    "LecunUniform",
    "UniformUnitScaling",
    "VarianceScaling",
    "compute_fans",
]

_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("normal", "uniform", "truncated_normal", "untruncated_normal")

# The standard deviation of a standard normal truncated at +-2: dividing by it restores the variance asked
# for.
_TRUNCATED_STDDEV = 0.87962566103423978


def compute_fans(shape: Shape) -> tuple[int, int]:
    """Return (fan in, fan out) of a kernel: the last two axes times the receptive field before them.

    Args:
      shape: ``(..., in, out)``; rank 0 counts as (1, 1), rank 1 as (n, n), as in TF1.

    Example:
      >>> compute_fans((5, 5, 3, 32)), compute_fans((7,)), compute_fans(())
      ((75, 800), (7, 7), (1, 1))
    """
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def _variance_scaling(shape: Shape, scale: float, mode: str, distribution: str) -> Draw:
    fan_in, fan_out = compute_fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    variance = scale / max(1.0, fan)
    if distribution == "uniform":
        limit = math.sqrt(3 * variance)
        return Draw("uniform", -limit, limit)
    if distribution == "untruncated_normal":
        return Draw("normal", 0.0, math.sqrt(variance))
    return Draw("truncated_normal", 0.0, math.sqrt(variance) / _TRUNCATED_STDDEV)


@dataclass(frozen=True, repr=False)
class VarianceScaling(FloatInitializer):
    """Values of variance ``scale / max(1, fan)`` (TF1: ``tf.variance_scaling_initializer``).

    Args:
      scale: a positive number.
      mode: which fan: "fan_in" (inputs), "fan_out" (outputs) or "fan_avg" (their mean).
      distribution: "truncated_normal" (also called "normal"; its variance is corrected for the truncation),
        "untruncated_normal" or "uniform".
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Raises:
      InvalidArgumentError: a `scale` that is not positive, an unknown `mode` or `distribution`.

    Example:
      >>> import jax, jaxvars as jv
      >>> w = jv.variance_scaling_initializer(2.0, "fan_out", "uniform")(jax.random.key(0), [100, 6])
      >>> bool(abs(w).max() <= 1.0)
      True
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = None
    dtype: Any = FLOAT32
    spelling: ClassVar[str] = "jv.initializers.variance_scaling"
    numbers: ClassVar[tuple[str, ...]] = ("scale",)

    def __post_init__(self) -> None:
        FloatInitializer.__post_init__(self)
        distribution = str(self.distribution).lower()
        if not self.scale > 0:
            raise InvalidArgumentError(f"Argument `scale` must be a positive float. Received: {self.scale}")
        if self.mode not in _MODES:
            raise InvalidArgumentError(f"Argument `mode` should be one of {_MODES}. Received: {self.mode!r}")
        if distribution not in _DISTRIBUTIONS:
            raise InvalidArgumentError(
                f"Argument `distribution` should be one of {_DISTRIBUTIONS}. Received: {self.distribution!r}"
            )
        object.__setattr__(self, "distribution", distribution)

    def draw_for(self, shape: Shape) -> Draw:
        """The limit or standard deviation for a shape."""
        return _variance_scaling(shape, self.scale, self.mode, self.distribution)


@dataclass(frozen=True, repr=False)
class _Preset(FloatInitializer):
    """Variance scaling with everything but the seed and dtype chosen."""

    seed: int | None = None
    dtype: Any = FLOAT32
    preset: ClassVar[tuple[float, str, str]]

    def draw_for(self, shape: Shape) -> Draw:
        """The limit or standard deviation for a shape."""
        return _variance_scaling(shape, *self.preset)


class GlorotUniform(_Preset):
    """Uniform within ``sqrt(6 / (in + out))``: the default (TF1: ``tf.glorot_uniform_initializer``).

    Args:
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> w = jv.glorot_uniform_initializer()(jax.random.key(0), [100, 50])
      >>> bool(abs(w).max() <= 0.2)
      True
    """

    spelling: ClassVar[str] = "jv.initializers.glorot_uniform"
    preset: ClassVar[tuple[float, str, str]] = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Preset):
    """Truncated normal of stddev ``sqrt(2 / (in + out))`` (TF1: ``tf.glorot_normal_initializer``).

    Args:
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> jv.glorot_normal_initializer()(jax.random.key(0), [3, 4]).shape
      (3, 4)
    """

    spelling: ClassVar[str] = "jv.initializers.glorot_normal"
    preset: ClassVar[tuple[float, str, str]] = (1.0, "fan_avg", "truncated_normal")


class HeNormal(_Preset):
    """Truncated normal of stddev ``sqrt(2 / in)`` (TF1: ``tf.initializers.he_normal``).

    Args:
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> jv.initializers.he_normal()(jax.random.key(0), [3, 4]).shape
      (3, 4)
    """

    spelling: ClassVar[str] = "jv.initializers.he_normal"
    preset: ClassVar[tuple[float, str, str]] = (2.0, "fan_in", "truncated_normal")


class HeUniform(_Preset):
    """Uniform within ``sqrt(6 / in)`` (TF1: ``tf.initializers.he_uniform``).

    Args:
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> jv.initializers.he_uniform()(jax.random.key(0), [3, 4]).shape
      (3, 4)
    """

    spelling: ClassVar[str] = "jv.initializers.he_uniform"
    preset: ClassVar[tuple[float, str, str]] = (2.0, "fan_in", "uniform")


class LecunNormal(_Preset):
    """Truncated normal of stddev ``sqrt(1 / in)`` (TF1: ``tf.initializers.lecun_normal``).

    Args:
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> jv.initializers.lecun_normal()(jax.random.key(0), [3, 4]).shape
      (3, 4)
    """

    spelling: ClassVar[str] = "jv.initializers.lecun_normal"
    preset: ClassVar[tuple[float, str, str]] = (1.0, "fan_in", "truncated_normal")


class LecunUniform(_Preset):
    """Uniform within ``sqrt(3 / in)`` (TF1: ``tf.initializers.lecun_uniform``).

    Args:
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> jv.initializers.lecun_uniform()(jax.random.key(0), [3, 4]).shape
      (3, 4)
    """

    spelling: ClassVar[str] = "jv.initializers.lecun_uniform"
    preset: ClassVar[tuple[float, str, str]] = (1.0, "fan_in", "uniform")


@dataclass(frozen=True, repr=False)
class UniformUnitScaling(FloatInitializer):
    """Uniform within ``factor * sqrt(3 / n)`` (TF1: ``tf.uniform_unit_scaling_initializer``).

    n is the product of all axes but the last. TF1 calls it outdated:
    ``variance_scaling_initializer(distribution="uniform")`` does the same for matrices.

    Args:
      factor: multiplies the limit.
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> w = jv.uniform_unit_scaling_initializer(factor=2.0)(jax.random.key(0), [3, 4])
      >>> bool(abs(w).max() <= 2.0)
      True
    """

    factor: float = 1.0
    seed: int | None = None
    dtype: Any = FLOAT32
    spelling: ClassVar[str] = "jv.initializers.uniform_unit_scaling"
    numbers: ClassVar[tuple[str, ...]] = ("factor",)

    def draw_for(self, shape: Shape) -> Draw:
        """The limit for a shape."""
        limit = math.sqrt(3 / max(1, math.prod(shape[:-1]))) * self.factor
        return Draw("uniform", -limit, limit)

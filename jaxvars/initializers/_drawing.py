"""Random floats whose bits do not depend on the program around them.

XLA may fuse a multiplication and the addition that follows into one rounding, and on CPUs it does so in one
program and not in the next: `jax.random.normal` of the same key differs in the last bit between, say, a
sharded and an unsharded program. A sharding, an outer ``jit`` or ``vmap`` must not change a single bit of a
variable, so the inverse error function is written out here, with every product fenced off from the addition
that follows it.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.initializers._base import Shape
from jaxvars.initializers._threefry import element_bits, is_elementwise

__all__ = ["TRUNCATION", "fence", "normal", "normal_of_unit", "uniform", "unit_of_bits"]

TRUNCATION = 2.0  # standard deviations: TF1's, for all truncated normals

# Polynomials in w = -log(1 - x**2) for erfinv(x) / x in single precision: M. Giles, "Approximating the erfinv
# function", GPU Computing Gems, 2010. The first is for w < 5 around 2.5, the second in sqrt(w) around 3.
_CENTRE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


def fence(product: jax.Array) -> jax.Array:
    """Return `product` unchanged, in a way that no compiler fuses into the addition that follows.

    The limit changes no finite number, but the compilers do not know that the product is one.
    """
    return jnp.maximum(product, jnp.finfo(product.dtype).min)


def uniform(key: jax.Array, shape: Shape, dtype: Any, low: float, high: float) -> jax.Array:
    """Draw uniform values in [low, high); rounding may return `high` itself.

    Args:
      key: a PRNG key.
      shape: any shape.
      dtype: float32 or float64.
      low: the lower end.
      high: the upper end.
    """
    unit = _unit(key, shape, dtype)
    if low == -high:
        return (2 * unit - 1) * high  # 2 * unit - 1 is exact
    return fence(unit * (high - low)) + low


def normal(key: jax.Array, shape: Shape, dtype: Any, stddev: float, truncated: bool = False) -> jax.Array:
    """Draw normal values of mean 0.

    Args:
      key: a PRNG key.
      shape: any shape.
      dtype: float32 or float64. In float64 the last bit is left to XLA.
      stddev: the standard deviation.
      truncated: keep within `TRUNCATION` standard deviations, as if redrawing what lies beyond.

    Returns:
      An array of that shape and dtype; never infinite.
    """
    unit = _unit(key, shape, dtype)
    factor = math.sqrt(2) * stddev  # one constant: two would be multiplied with each other, or not
    if not truncated:
        return normal_of_unit(unit, None, factor, None)
    return normal_of_unit(unit, math.erf(TRUNCATION / math.sqrt(2)), factor, abs(TRUNCATION * stddev))


def normal_of_unit(unit: jax.Array, squeeze: Any, factor: Any, bound: Any) -> jax.Array:
    """Return normal values for uniform ones in [0, 1).

    Args:
      unit: an array, float32 or float64.
      squeeze: how much of (-1, 1) the inverse error function sees: its value at the truncation, None for all.
      factor: multiplies what it returns.
      bound: the largest absolute value, None for none.
    """
    # Odd multiples of eps, exactly: symmetric, and neither 0 nor +-1.
    x = 2 * unit - (1 - jnp.finfo(unit.dtype).eps)
    if squeeze is not None:
        x = fence(x * squeeze)
    inverse = jax.lax.erf_inv(x) if unit.dtype == np.float64 else _inverse_erf(x)
    values = inverse * factor
    return values if bound is None else jnp.clip(values, -bound, bound)


def _unit(key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
    """The values of ``jax.random.uniform(key, shape, dtype)``."""
    if dtype == np.float32 and is_elementwise(jax.random.key_impl(key)) and math.prod(shape) < 2**32:
        return unit_of_bits(element_bits(jax.random.key_data(key), shape))
    return jax.random.uniform(key, shape, dtype)


def unit_of_bits(bits: jax.Array) -> jax.Array:
    """Return the float32 in [0, 1) that ``jax.random.uniform`` makes of 32 random bits."""
    one_to_two = (bits >> np.uint32(9)) | np.uint32(0x3F800000)
    return jax.lax.bitcast_convert_type(one_to_two, jnp.float32) - np.float32(1)


def _inverse_erf(x: jax.Array) -> jax.Array:
    """The inverse error function of float32 in (-1, 1), within a few units in the last place."""
    size = jnp.abs(x)
    w = -_log((1 - size) * (1 + size))
    centre = w < 5
    t = jnp.where(centre, w - 2.5, jnp.sqrt(w) - 3)
    result = jnp.where(centre, np.float32(_CENTRE[0]), np.float32(_TAIL[0]))
    for near, far in zip(_CENTRE[1:], _TAIL[1:], strict=True):
        result = fence(result * t) + jnp.where(centre, np.float32(near), np.float32(far))
    return result * x


def _log(y: jax.Array) -> jax.Array:
    """The natural logarithm of normal float32 numbers: XLA's own may round differently from program to program."""
    bits = jax.lax.bitcast_convert_type(y, jnp.int32)
    exponent = (bits >> 23) - 127
    mantissa = jax.lax.bitcast_convert_type((bits & 0x7FFFFF) | 0x3F800000, jnp.float32)  # in [1, 2)
    large = mantissa > math.sqrt(2)
    mantissa = jnp.where(large, mantissa * 0.5, mantissa)
    exponent = jnp.where(large, exponent + 1, exponent).astype(jnp.float32)
    # log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172: the series up to s**11.
    s = (mantissa - 1) / (mantissa + 1)
    square = s * s
    series = jnp.float32(1 / 11)
    for odd in (9, 7, 5, 3, 1):
        series = fence(series * square) + np.float32(1 / odd)
    return fence(exponent * np.float32(math.log(2))) + fence(2 * s * series)

"""Random numbers of many variables from one compiled program, whatever their shapes.

With JAX's default keys element i of a variable depends on the variable's key and on i only, so a program need not know
a shape: it takes a list of runs, each the number of its first element, a key and the numbers of a distribution, and
returns the elements. Compiling is nearly all the time that a first initialization takes, and this is compiled once.

The values are those of `random.draw` to the last bit: the formulas are the same ones (`_drawing`), and what is a
constant there and a parameter here is fenced in the same way.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.initializers._base import DType
from jaxvars.initializers._drawing import TRUNCATION, fence, normal_of_unit, unit_of_bits
from jaxvars.initializers._threefry import threefry2x32
from jaxvars.initializers.random import Draw, below

__all__ = ["COLUMNS", "DTYPES", "RUN", "RUNS", "launch", "numbers_of"]

RUN = 128  # consecutive elements; what a variable's last run has beyond its end is thrown away
RUNS = 512  # per launch: 256 KB of values, so that they are still in the cache when they are copied
COLUMNS = 7  # first element, two words of the key, four numbers

# Drawn in float32, then rounded.
DTYPES = (np.dtype(np.float32), np.dtype(jnp.bfloat16), np.dtype(np.float16))

# Within these bounds no intermediate result overflows or becomes subnormal, where programs may differ.
_LEAST, _LARGEST = 1e-30, 1e30


def numbers_of(how: Draw, dtype: DType) -> np.ndarray[Any, Any] | None:
    """The four numbers of a distribution as the program takes them, or None where it might round otherwise.

    Args:
      how: the distribution.
      dtype: one of `DTYPES`.
    """
    family, a, b = how
    if not all(_is_ordinary(value) for value in (a, b)):
        return None
    if family == "uniform":
        if a >= b:
            return None
        symmetric = a == -b
        spread, low, factor = (2.0, -1.0, b) if symmetric else (b - a, a, 1.0)
        if not _is_ordinary(spread):
            return None
        return np.asarray([spread, low, factor, np.inf if symmetric else below(b, dtype)], np.float32)
    if b == 0:
        return None
    truncated = family == "truncated_normal"
    squeeze, bound = (math.erf(TRUNCATION / math.sqrt(2)), abs(TRUNCATION * b)) if truncated else (1.0, np.inf)
    # Adding -0.0 changes nothing, not even the sign of a zero.
    return np.asarray([squeeze, math.sqrt(2) * b, bound, a if a else -0.0], np.float32)


def _is_ordinary(value: float) -> bool:
    exact = not isinstance(value, int) or abs(value) < 2**31
    return exact and (value == 0 or _LEAST <= abs(value) <= _LARGEST)


@functools.partial(jax.jit, static_argnames="family")
def launch(rows: Any, *, family: str) -> jax.Array:
    """Draw `RUNS` runs.

    Args:
      rows: uint32 ``[RUNS, COLUMNS]``: per run the number of its first element, the key's two words, and the bits of
        the four numbers of `numbers_of`.
      family: ``"uniform"`` or ``"normal"``, truncated or not.

    Returns:
      float32 ``[RUNS, RUN]``.
    """
    first, key_0, key_1, *numbers = (rows[:, column : column + 1] for column in range(COLUMNS))
    count = first + jax.lax.broadcasted_iota(jnp.uint32, (RUNS, RUN), 1)
    word_0, word_1 = threefry2x32((key_0, key_1), (jnp.zeros_like(count), count))
    unit = unit_of_bits(word_0 ^ word_1)
    p, q, r, s = (jax.lax.bitcast_convert_type(number, jnp.float32) for number in numbers)
    if family == "uniform":
        return jnp.minimum((fence(unit * p) + q) * r, s)
    return fence(normal_of_unit(unit, p, q, r)) + s

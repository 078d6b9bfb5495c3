"""Random initializers: uniform, normal, truncated normal, and the shared way they draw.

Every float is drawn in float32 (float64 for float64) and then rounded to the dtype asked for: JAX's own
16-bit draws have 7 to 10 random bits only, which cuts off a normal's tails. The bits are the same in every
program that draws them (see `_drawing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars._arguments import is_integer
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.initializers._base import FLOAT32, DType, Initializer, Shape
from jaxvars.initializers._drawing import fence, normal, uniform

__all__ = [
    "Draw",
    "FloatInitializer",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "below",
    "draw",
    "draw_of",
]


class Draw(NamedTuple):
    """One of the three families that nearly all initializers belong to, with its two numbers.

    ``normal`` and ``truncated_normal`` (redrawn beyond two standard deviations): mean `a`, standard deviation
    `b`. ``uniform``: in [a, b).
    """

    family: Literal["normal", "truncated_normal", "uniform"]
    a: float
    b: float


def draw(how: Draw, key: jax.Array, shape: Shape, dtype: DType) -> jax.Array:
    """Draw an array.

    Args:
      how: the family and its numbers.
      key: a PRNG key.
      shape: any shape.
      dtype: a floating dtype.
    """
    work = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    family, a, b = how
    if family == "uniform":
        values = uniform(key, shape, work, a, b).astype(dtype)
        return jnp.minimum(values, below(b, dtype)) if -b != a < b else values
    values = normal(key, shape, work, b, family == "truncated_normal")
    return (fence(values) + a if a else values).astype(dtype)


def below(limit: float, dtype: DType) -> np.ndarray[Any, Any]:
    """The largest number of `dtype` below `limit`: rounding must not return the excluded end of [a, b)."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(limit).astype(dtype)
    return rounded if float(rounded) < limit else np.nextafter(rounded, np.asarray(jnp.finfo(dtype).min, dtype))


class FloatInitializer(Initializer):
    """Base of the initializers that draw floats: a seed, a floating dtype, a `Draw` for each shape.

    Args:
      seed: an integer: the values then depend on it alone, not on the key or the variable's name, so two
        variables with one seed are equal (as in TF1).
      dtype: the dtype when the call names none.

    Raises:
      InvalidArgumentError: `dtype` is not floating.
      InvalidTypeError: the seed is no integer; on use: the dtype asked for is not floating.
    """

    seed: int | None
    floating: ClassVar[bool] = True

    def draw_for(self, shape: Shape) -> Draw:
        """The family and numbers for a shape."""
        raise TypeError(f"{type(self).__name__} must define draw_for.")

    def check(self, shape: Shape, dtype: DType) -> None:
        """Refuse every dtype that is not floating."""
        if not jnp.issubdtype(dtype, np.floating):
            advice = (
                "For complex variables use jax.nn.initializers, for example jax.nn.initializers.normal(0.1)."
                if jnp.issubdtype(dtype, np.complexfloating)
                else "Use zeros, ones, constant or random_uniform(minval, maxval) instead."
            )
            raise InvalidTypeError(f"{self!r} makes floating point values, but {dtype} was asked for. {advice}")

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        return draw(self.draw_for(shape), self._key(key), shape, dtype)


@dataclass(frozen=True, repr=False)
class RandomNormal(FloatInitializer):
    """Normal values (TF1: ``tf.random_normal_initializer``; its default stddev is 1.0, not Keras' 0.05).

    Args:
      mean: the mean.
      stddev: the standard deviation.
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> jv.random_normal_initializer(stddev=0.1)(jax.random.key(0), [5, 5, 1, 32]).dtype
      dtype('float32')
    """

    mean: float = 0.0
    stddev: float = 1.0
    seed: int | None = None
    dtype: Any = FLOAT32
    spelling: ClassVar[str] = "jv.initializers.random_normal"
    numbers: ClassVar[tuple[str, ...]] = ("mean", "stddev")

    def draw_for(self, shape: Shape) -> Draw:
        """The same for every shape."""
        return Draw("normal", self.mean, self.stddev)


@dataclass(frozen=True, repr=False)
class TruncatedNormal(FloatInitializer):
    """Normal values, redrawn beyond two standard deviations (TF1: ``tf.truncated_normal_initializer``).

    As in TF1 nothing is rescaled: the sample's standard deviation is 0.88 times `stddev`.

    Args:
      mean: the mean before truncation.
      stddev: the standard deviation before truncation.
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Example:
      >>> import jax, jaxvars as jv
      >>> w = jv.truncated_normal_initializer(stddev=0.1)(jax.random.key(0), [1000])
      >>> bool(abs(w).max() <= 0.2)
      True
    """

    mean: float = 0.0
    stddev: float = 1.0
    seed: int | None = None
    dtype: Any = FLOAT32
    spelling: ClassVar[str] = "jv.initializers.truncated_normal"
    numbers: ClassVar[tuple[str, ...]] = ("mean", "stddev")

    def draw_for(self, shape: Shape) -> Draw:
        """The same for every shape."""
        return Draw("truncated_normal", self.mean, self.stddev)


@dataclass(frozen=True, repr=False)
class RandomUniform(Initializer):
    """Uniform values in [minval, maxval), floats or integers (TF1: ``tf.random_uniform_initializer``).

    Args:
      minval: the lower end, included.
      maxval: the upper end, excluded; None means 1 for floats, and is refused for integers.
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Raises:
      InvalidArgumentError: on use: an integer dtype without `maxval`, or an empty range of integers, or one
        that the dtype does not hold.
      InvalidTypeError: on use: float ends for an integer dtype, or a bool or complex dtype.

    Example:
      >>> import jax, jaxvars as jv
      >>> sorted(set(jv.random_uniform_initializer(0, 3)(jax.random.key(0), [99], "int32").tolist()))
      [0, 1, 2]
    """

    minval: float = 0
    maxval: float | None = None
    seed: int | None = None
    dtype: Any = FLOAT32
    spelling: ClassVar[str] = "jv.initializers.random_uniform"
    numbers: ClassVar[tuple[str, ...]] = ("minval", "maxval")

    def check(self, shape: Shape, dtype: DType) -> None:
        """Refuse ranges that the dtype does not have."""
        if is_integer(dtype):
            self._check_integers(dtype)
        elif not jnp.issubdtype(dtype, np.floating):
            raise InvalidTypeError(f"{self!r} makes numbers: dtype must be floating or integer, not {dtype}.")

    def _check_integers(self, dtype: DType) -> None:
        low, high = self.minval, self.maxval
        if high is None:
            raise InvalidArgumentError(f"Must specify maxval for integer dtype {dtype}, in {self!r}.")
        for end in (low, high):
            if not isinstance(end, int):
                raise InvalidTypeError(f"Expected {dtype}, but got {end!r} of type 'float' in {self!r}.")
        limits = jnp.iinfo(dtype)
        if not limits.min <= low < high <= limits.max + 1:
            raise InvalidArgumentError(f"Need minval < maxval within {dtype}, got {low} and {high} in {self!r}.")

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        if not is_integer(dtype):
            return draw(self._floats(), self._key(key), shape, dtype)
        assert self.maxval is not None  # `check` refused it
        return jax.random.randint(self._key(key), shape, self.minval, self.maxval, dtype)

    def _floats(self) -> Draw:
        return Draw("uniform", self.minval, 1 if self.maxval is None else self.maxval)


def draw_of(initializer: Any, shape: Shape, dtype: DType) -> Draw | None:
    """Return the draw of ``initializer(key, shape, dtype)`` where that is all it does, else None.

    Args:
      initializer: any callable.
      shape: the shape.
      dtype: the dtype.

    Example:
      >>> draw_of(RandomNormal(stddev=0.5), (2,), np.dtype("float32"))
      Draw(family='normal', a=0.0, b=0.5)
    """
    kind = type(initializer)
    if isinstance(initializer, FloatInitializer) and _is_plain(kind, FloatInitializer):
        return initializer.draw_for(shape)
    if isinstance(initializer, RandomUniform) and _is_plain(kind, RandomUniform) and not is_integer(dtype):
        return initializer._floats()
    return None


def _is_plain(kind: type, base: type) -> bool:
    """Whether a subclass calls, takes its key and makes its values as `base` does."""
    return all(getattr(kind, name) is getattr(base, name) for name in ("__call__", "_key", "_values", "draws"))

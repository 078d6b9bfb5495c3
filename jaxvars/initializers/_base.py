"""What all initializers share: small frozen objects, called as ``init(key, shape, dtype)``."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxvars._arguments import as_dtype, is_fully_defined, shape_as_tuple
from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["FLOAT32", "DType", "Initializer", "Shape", "floating_dtype", "number", "seed_key"]

Shape: TypeAlias = tuple[int, ...]
DType: TypeAlias = np.dtype[Any]

FLOAT32 = np.dtype(np.float32)  # what TF1 takes when nobody names a dtype


class Initializer:
    """Base class of the initializers: a value, made from a key, for a shape and dtype.

    An initializer is called with JAX's own signature, ``init(key, shape, dtype=None)``, so
    `jax.nn.initializers` and these are interchangeable. It is frozen, hashable and picklable, and equal
    objects make equal values: compiled code is kept per initializer, shape and dtype. Subclasses are frozen
    dataclasses that define `_values`.

    Example:
      >>> import jax, jaxvars as jv
      >>> init = jv.initializers.random_normal(stddev=0.1)
      >>> init(jax.random.key(0), [2, 3]).shape
      (2, 3)
      >>> init
      jv.initializers.random_normal(stddev=0.1)
    """

    dtype: Any
    seed: int | None
    spelling: ClassVar[str] = ""  # the public name, for repr
    numbers: ClassVar[tuple[str, ...]] = ()  # the fields that are hyper-parameters
    floating: ClassVar[bool] = False  # whether the dtype must be a floating one
    is_joint: ClassVar[bool] = False  # whether no part can be made without the others
    placement: Any = None  # the axes of a mesh over which the variable wants to be spread

    def __post_init__(self) -> None:
        """Check the arguments where the user wrote them, and make them plain Python values."""
        settled: dict[str, Any] = {"dtype": (floating_dtype if self.floating else as_dtype)(self.dtype)}
        for name in self.numbers:
            value = getattr(self, name)
            settled[name] = None if value is None else number(value, name)
        seed = getattr(self, "seed", None)
        if seed is not None:
            seed_key(seed)
            settled["seed"] = int(seed)
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    def __call__(self, key: jax.Array | None, shape: Any, dtype: Any = None) -> jax.Array:
        """Make a value.

        Args:
          key: a JAX PRNG key; None where none is needed (constants, an explicit ``seed=``).
          shape: the shape, an int or a sequence of ints.
          dtype: the dtype; None takes the constructor's, float32 by default as in TF1.

        Returns:
          An array of that shape and dtype, never weakly typed.

        Raises:
          InvalidArgumentError: the shape is one this initializer cannot make.
          InvalidTypeError: the dtype is one this initializer cannot make.
        """
        dims = shape_as_tuple(shape)
        if not is_fully_defined(dims):
            raise InvalidArgumentError(f"{self!r} needs a fully defined shape, got {shape!r}.")
        kind = as_dtype(self.dtype if dtype is None else dtype)
        self.check(dims, kind)
        if self.needs_key and key is None:
            raise InvalidArgumentError(f"{self!r} makes random values: call it as init(key, shape, dtype).")
        return self._values(key, dims, kind)

    @property
    def draws(self) -> bool:
        """Whether the values are random: subclasses that draw have a field ``seed``."""
        return hasattr(self, "seed")

    @property
    def needs_key(self) -> bool:
        """Whether the value depends on the key: not for constants, nor with an explicit ``seed=``."""
        return self.draws and self.seed is None

    def check(self, shape: Shape, dtype: DType) -> None:
        """Raise if this initializer cannot make `shape` in `dtype`; costs no array."""

    def constant_value(self, shape: Shape, dtype: DType) -> np.ndarray[Any, Any] | None:
        """The value where it is known without JAX, as a new array at each call; else None."""
        return None

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        """The value, for a checked shape and dtype."""
        value = self.constant_value(shape, dtype)
        if value is None:
            raise TypeError(f"{type(self).__name__} must define _values or constant_value.")
        return jnp.asarray(value)

    def _key(self, key: jax.Array | None) -> jax.Array:
        """The key to draw with: the explicit seed's, else the variable's."""
        seed = getattr(self, "seed", None)
        return seed_key(seed) if seed is not None or key is None else key

    def __repr__(self) -> str:
        name = self.spelling or type(self).__name__
        fields = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        given = [(f.name, getattr(self, f.name)) for f in fields if f.repr and getattr(self, f.name) != f.default]
        shown = [f"{key}={value!s}" if key == "dtype" else f"{key}={value!r}" for key, value in given]
        return f"{name}({', '.join(shown)})"


def number(value: Any, argument: str) -> int | float:
    """Return a hyper-parameter as a Python number (ints stay ints), so that the initializer hashes.

    Raises:
      InvalidTypeError: it is no real number, or a traced one.
    """
    if isinstance(value, Tracer):
        raise InvalidTypeError(
            f"Argument `{argument}` is a traced value: an initializer needs Python numbers. "
            "Pass a function that makes the value: initializer=lambda key, shape, dtype: ..."
        )
    if isinstance(value, int | float):
        return value
    if getattr(value, "ndim", None) == 0 and np.asarray(value).dtype.kind not in "cOSU":
        return np.asarray(value).item()
    raise InvalidTypeError(f"Argument `{argument}` must be a number, got {value!r}.")


def seed_key(seed: Any) -> jax.Array:
    """Return ``jax.random.key(seed)`` for an integer seed, refusing what JAX would silently cut.

    Without x64 JAX keeps the low 32 bits of a seed only, so that ``2**32`` and ``0`` would give equal values.

    Raises:
      InvalidTypeError: the seed is no integer.
      InvalidArgumentError: the seed has too many bits.
    """
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer):
        raise InvalidTypeError(f"A seed must be an integer, got {seed!r} of type {type(seed).__name__!r}.")
    low, high = (-(2**63), 2**63) if jax.config.read("jax_enable_x64") else (-(2**31), 2**32)
    if not low <= seed < high:
        raise InvalidArgumentError(
            f"The seed {seed} has more bits than JAX keeps here: it must be in [{low}, {high}). "
            "Write for example seed % 2**32."
        )
    return jax.random.key(int(seed))


def floating_dtype(dtype: Any) -> DType:
    """Return the `dtype` of an initializer that makes floats; TF1 refuses others in the constructor already.

    Raises:
      InvalidArgumentError: it is no floating dtype.
    """
    try:
        found = as_dtype(dtype)
    except InvalidTypeError:
        found = None
    if found is None or not jnp.issubdtype(found, np.floating):
        raise InvalidArgumentError(f"Argument `dtype` is expected to be floating point. Received: {dtype!r}.")
    return found

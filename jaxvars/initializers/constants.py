"""Initializers without random numbers: zeros, ones, constant, identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxvars._arguments import cast_host_value, is_integer
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.initializers._base import FLOAT32, DType, Initializer, Shape

__all__ = ["Constant", "Identity", "Ones", "Zeros"]


@dataclass(frozen=True, repr=False)
class _Filled(Initializer):
    """The same number everywhere."""

    dtype: Any = FLOAT32
    number: ClassVar[int]

    def constant_value(self, shape: Shape, dtype: DType) -> np.ndarray[Any, Any]:
        """An array of that number."""
        # A view of one element: a sharded or very large variable never exists on the host as a whole.
        return np.broadcast_to(np.asarray(self.number, dtype), shape)

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        return jnp.full(shape, self.number, dtype)


class Zeros(_Filled):
    """Zeros; False for bool (TF1: ``tf.zeros_initializer``).

    Args:
      dtype: the dtype when the call names none.

    Example:
      >>> import jaxvars as jv
      >>> jv.zeros_initializer()(None, [2], "int32").tolist()
      [0, 0]
    """

    spelling: ClassVar[str] = "jv.initializers.zeros"
    number: ClassVar[int] = 0


class Ones(_Filled):
    """Ones; True for bool (TF1: ``tf.ones_initializer``).

    Args:
      dtype: the dtype when the call names none.

    Example:
      >>> import jaxvars as jv
      >>> jv.ones_initializer()(None, [2]).tolist()
      [1.0, 1.0]
    """

    spelling: ClassVar[str] = "jv.initializers.ones"
    number: ClassVar[int] = 1


@dataclass(frozen=True, repr=False, eq=False)
class Constant(Initializer):
    """The given number or numbers (TF1: ``tf.constant_initializer``).

    The elements of `value` are laid into the shape in row-major order; when there are fewer than needed **the
    last is repeated**, so one number fills everything. Floats do not become ints, and numbers do not become
    bools.

    Args:
      value: a number, a (nested) list or tuple of numbers, or an array. A copy is kept.
      dtype: the dtype when the call names none.
      verify_shape: require that `value` has exactly the shape asked for.

    Raises:
      InvalidTypeError: `value` is not made of numbers; on use: a float for an int dtype, or (with
        `verify_shape`) another shape.
      InvalidArgumentError: on use: more elements than the shape holds, or a number that the dtype cannot
        hold.

    Example:
      >>> import jaxvars as jv
      >>> jv.constant_initializer([1, 2, 3])(None, [2, 2]).tolist()
      [[1.0, 2.0], [3.0, 3.0]]
    """

    value: Any = 0
    dtype: Any = FLOAT32
    verify_shape: bool = False
    _elements: np.ndarray[Any, Any] = field(init=False, repr=False, default_factory=lambda: np.zeros(0))
    spelling: ClassVar[str] = "jv.initializers.constant"

    def __post_init__(self) -> None:
        Initializer.__post_init__(self)
        object.__setattr__(self, "_elements", _constant_elements(self.value))
        if not isinstance(self.value, int | float | complex):
            object.__setattr__(self, "value", self._elements)  # what the caller later writes into it must not count

    def check(self, shape: Shape, dtype: DType) -> None:
        """Refuse too many elements, and with `verify_shape` any other shape."""
        if self.verify_shape and self._elements.shape != shape:
            raise InvalidTypeError(
                f"Expected Tensor's shape: {shape}, got {self._elements.shape}, with verify_shape=True."
            )
        cast_host_value(self._elements, dtype)  # TF1 complains of the dtype first
        size = int(np.prod(shape))
        if self._elements.size > size > 0:
            raise InvalidArgumentError(
                f"Too many elements provided. Takes at most {size} for shape {shape}, but got {self._elements.size}."
            )

    def constant_value(self, shape: Shape, dtype: DType) -> np.ndarray[Any, Any]:
        """The array: the elements in row-major order, then the last one again and again."""
        elements = cast_host_value(self._elements, dtype).reshape(-1)
        size = int(np.prod(shape))
        if elements.size == 1:
            return np.broadcast_to(elements[0].copy(), shape)
        result = np.zeros(size, dtype)
        result[: elements.size] = elements[:size]
        if 0 < elements.size < size:
            result[elements.size :] = elements[-1]
        return result.reshape(shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constant):
            return NotImplemented
        if self is other:
            return True
        mine, theirs = self._elements, other._elements
        return (
            (self._note(), mine.dtype, mine.shape) == (other._note(), theirs.dtype, theirs.shape)
            and mine.tobytes() == theirs.tobytes()  # bytes, so that a NaN equals itself and 0.0 is not -0.0
        )

    def __hash__(self) -> int:
        head = self._elements.reshape(-1)[:64].tobytes()  # enough to tell most apart; a pretrained matrix may be large
        return hash((self._note(), self._elements.shape, head))

    def _note(self) -> tuple[Any, bool]:
        return self.dtype, self.verify_shape

    def __repr__(self) -> str:
        size = self._elements.size
        value = repr(self._elements.tolist()) if size <= 8 else f"<{size} elements, shape {self._elements.shape}>"
        return f"{self.spelling}({value}{', verify_shape=True' if self.verify_shape else ''})"


def _constant_elements(value: Any) -> np.ndarray[Any, Any]:
    """A private read-only copy of the elements, in the dtype NumPy gives them."""
    kind = f"Invalid type for initial value={value!r:.60} of type: {type(value).__name__}. "
    if isinstance(value, Tracer):
        raise InvalidTypeError(f"{kind}A traced value is an initializer by itself: write initializer=value.")
    if value is None or isinstance(value, str | bytes | dict | set):
        raise InvalidTypeError(f"{kind}Expected a number, a list or tuple of numbers, or an array.")
    try:
        elements = np.array(value)
    except ValueError as error:
        raise InvalidArgumentError(f"The rows of the initial value differ in length: {error}") from error
    if not (jnp.issubdtype(elements.dtype, np.number) or elements.dtype == np.bool_):
        raise InvalidTypeError(f"{kind}Expected a number, a list or tuple of numbers, or an array.")
    elements.setflags(write=False)
    return elements


@dataclass(frozen=True, repr=False)
class Identity(Initializer):
    """The identity matrix times `gain`, for 2-D variables (TF1: ``tf.initializers.identity``).

    Args:
      gain: the number on the diagonal.
      dtype: the dtype when the call names none; a floating one.

    Raises:
      InvalidArgumentError: `dtype` is not floating; on use: the shape is not 2-D.
      InvalidTypeError: on use: a float `gain` for an int dtype.

    Example:
      >>> import jaxvars as jv
      >>> jv.identity_initializer(gain=2.0)(None, [2, 3]).tolist()
      [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    """

    gain: float = 1.0
    dtype: Any = FLOAT32
    spelling: ClassVar[str] = "jv.initializers.identity"
    numbers: ClassVar[tuple[str, ...]] = ("gain",)
    floating: ClassVar[bool] = True

    def check(self, shape: Shape, dtype: DType) -> None:
        """Refuse shapes that are no matrix, and a float `gain` in an int dtype."""
        if len(shape) != 2:
            raise InvalidArgumentError(
                f"The tensor to initialize, specified by argument `shape` must be two-dimensional. "
                f"Received shape={shape}"
            )
        if dtype == np.bool_ or (is_integer(dtype) and not isinstance(self.gain, int)):
            raise InvalidTypeError(
                f"Expected {dtype}, but got gain={self.gain!r} of type {type(self.gain).__name__!r}."
            )

    def constant_value(self, shape: Shape, dtype: DType) -> np.ndarray[Any, Any]:
        """The matrix."""
        rows, columns = shape
        return np.eye(rows, columns, dtype=dtype) * np.asarray(self.gain, dtype)

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        return jnp.eye(*shape, dtype=dtype) * jnp.asarray(self.gain, dtype)

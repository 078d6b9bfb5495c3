"""What users may write for a dtype, a shape or a constant value, turned into one form.

**dtypes.** Strings (TF1's ``"float"``, ``"double"``, ``"half"`` included), NumPy and ``jnp`` dtypes,
TensorFlow dtypes, the Python types, and anything with a ``.dtype`` (a variable, an array, a spec). As in TF1
the Python types are 32 bits wide: ``float`` is float32, ``int`` is int32. When JAX runs without
``jax_enable_x64`` the 64-bit dtypes are narrowed exactly as ``jnp`` narrows them (float64 -> float32,
int64 -> int32, uint64 -> uint32, complex128 -> complex64), but a *value* that does not survive the narrowing
is refused.

**values.** Python numbers and (nested) lists of them are int32, float32 or bool, as in TF1; arrays keep their
own dtype.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.core import Tracer

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = [
    "NAMED_DTYPES",
    "as_dtype",
    "cast_host_value",
    "check_dtype_change",
    "is_fully_defined",
    "is_integer",
    "shape_as_tuple",
    "value_as_array",
    "value_dtype",
]

# TF1's own meanings where they differ from NumPy's (np.dtype("float") is float64).
_NAMED: dict[Any, str] = {
    float: "float32",
    int: "int32",
    bool: "bool",
    complex: "complex128",
    "float": "float32",
    "int": "int32",
}
_INT32 = np.iinfo(np.int32)
#: Names that mean the same with and without x64; almost every call asks for one of these.
NAMED_DTYPES: dict[Any, np.dtype[Any]] = {
    name: np.dtype(name) for name in ("float32", "float16", "int32", "uint8", "bool")
}
_FIXED = frozenset(NAMED_DTYPES.values())


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the NumPy dtype that `dtype` names, narrowed if JAX runs without x64.

    Args:
      dtype: a string, a Python, NumPy, ``jnp`` or TensorFlow type, or an object with a ``.dtype``.

    Returns:
      A number or bool dtype that JAX arrays can have in this process (or JAX's dtype of random keys).

    Raises:
      InvalidTypeError: `dtype` is no dtype, or one that JAX has no arrays of (strings, objects, dates).

    Example:
      >>> as_dtype("float"), as_dtype(int), as_dtype(jnp.bfloat16)
      (dtype('float32'), dtype('int32'), dtype(bfloat16))
    """
    if type(dtype) is str and dtype in NAMED_DTYPES:
        return NAMED_DTYPES[dtype]
    if isinstance(dtype, np.dtype) and dtype in _FIXED:
        return cast("np.dtype[Any]", dtype)
    if isinstance(dtype, str | type | np.dtype):  # these hash
        return _written_dtype(cast(Any, dtype), jax.config.read("jax_enable_x64"))
    extended = _extended_dtype(dtype)
    return extended if extended is not None else _array_dtype(_numpy_dtype(dtype))


@functools.lru_cache(maxsize=256)
def _written_dtype(dtype: Any, x64: bool) -> np.dtype[Any]:
    return _array_dtype(_numpy_dtype(dtype))


def _array_dtype(found: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that arrays of `found` have in this process."""
    if jnp.issubdtype(found, np.number) or found == np.bool_:
        return np.dtype(dtypes.canonicalize_dtype(found))
    advice = ""
    if found.kind in "SUO":
        advice = " JAX has no string or object arrays: keep text outside the variables."
    raise InvalidTypeError(f"dtype {found} cannot be the dtype of a variable: it must be a number or bool.{advice}")


def _extended_dtype(dtype: Any) -> Any:
    """JAX's own dtypes, which NumPy has none of: that of random keys."""
    for candidate in (dtype, None if isinstance(dtype, type) else getattr(dtype, "dtype", None)):
        scalar = getattr(candidate, "type", None)
        if isinstance(scalar, type) and issubclass(scalar, dtypes.extended):
            return candidate
    return None


def _numpy_dtype(dtype: Any) -> np.dtype[Any]:
    if isinstance(dtype, np.dtype):
        return cast("np.dtype[Any]", dtype)
    if isinstance(dtype, str):
        dtype = dtype.removesuffix("_ref")  # TF1 prints the dtype of a variable as "float32_ref"
        if dtype == "string":
            return np.dtype(object)
    if dtype is not None:
        named = _NAMED.get(dtype) if isinstance(dtype, str | type) else None
        tensorflow = getattr(dtype, "as_numpy_dtype", None)
        of_object = None if isinstance(dtype, type) else getattr(dtype, "dtype", None)
        try:
            return np.dtype(next(d for d in (named, tensorflow, of_object, dtype) if d is not None))
        except TypeError:
            pass
    raise InvalidTypeError(f"{dtype!r} is not a dtype: write for example jnp.float32, 'bfloat16' or int.")


def is_integer(dtype: Any) -> bool:
    """Whether `dtype` is a signed or unsigned integer dtype (bool is not)."""
    return bool(jnp.issubdtype(dtype, np.integer))


def shape_as_tuple(shape: Any) -> tuple[int | None, ...] | None:
    """Return `shape` as a tuple; None inside stands for an unknown dimension, None for an unknown rank.

    Args:
      shape: None, an int, a sequence of ints and Nones, a 1-D integer array, or an object with ``as_list()``
        (``tf.TensorShape``).

    Raises:
      InvalidTypeError: a dimension is not an integer.
      InvalidArgumentError: a dimension is negative.

    Example:
      >>> shape_as_tuple(3), shape_as_tuple([None, 2]), shape_as_tuple(None)
      ((3,), (None, 2), None)
    """
    if shape is None:
        return None
    if type(shape) in (list, tuple):  # of plain ints, the usual case
        for d in shape:
            if type(d) is not int or d < 0:
                break
        else:
            return tuple(shape)
    if hasattr(shape, "as_list"):
        if getattr(shape, "rank", 0) is None:  # tf.TensorShape(None)
            return None
        shape = shape.as_list()
    if isinstance(shape, str | bytes | dict):
        raise InvalidTypeError(f"{shape!r} is not a shape: write an int or a list of ints.")
    if isinstance(shape, Iterable) and getattr(shape, "ndim", 1) == 1:
        return tuple(_dimension(d, shape) for d in cast("Iterable[Any]", shape))
    return (_dimension(shape, shape),)


def _dimension(dimension: Any, shape: Any) -> int | None:
    if dimension is None:
        return None
    if isinstance(dimension, Tracer):
        raise InvalidTypeError(
            f"shape {shape!r} holds a traced value: the shape of a variable must be known when the model is "
            "traced, so take it from x.shape or a Python int."
        )
    try:
        size = None if isinstance(dimension, bool | np.bool_) else operator.index(dimension)
    except TypeError:
        size = None
    if size is None:
        raise InvalidTypeError(
            f"Dimension value must be an integer or None, got {dimension!r} of type "
            f"{type(dimension).__name__!r} in shape {shape!r}."
        )
    if size < 0:
        raise InvalidArgumentError(f"Dimension {size} must be >= 0, in shape {shape!r}.")
    return size


def is_fully_defined(shape: tuple[int | None, ...] | None) -> TypeGuard[tuple[int, ...]]:
    """Whether every dimension of `shape` is known."""
    return shape is not None and None not in shape


def value_dtype(value: Any) -> np.dtype[Any]:
    """Return the dtype of a variable made from `value`: an array's own, TF1's 32-bit ones for Python numbers.

    Raises:
      InvalidTypeError: `value` cannot become an array of numbers.
      InvalidArgumentError: `value` is a list whose rows differ in length.

    Example:
      >>> value_dtype(3), value_dtype([1, 2.5]), value_dtype(np.zeros(2, np.float16))
      (dtype('int32'), dtype('float32'), dtype('float16'))
    """
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return as_dtype(value)
    return as_dtype(_python_dtype(_python_array(value)))


def value_as_array(value: Any) -> np.ndarray[Any, Any] | jax.Array:
    """Return `value` as an array of `value_dtype`: a jax.Array as it is, everything else as NumPy.

    The result may be `value` itself. Without x64, a 64-bit value that the narrower dtype cannot hold is
    refused.

    Raises:
      InvalidTypeError: `value` cannot become an array of numbers.
      InvalidArgumentError: ragged lists, or numbers that do not fit.
    """
    dtype = value_dtype(value)
    if isinstance(value, jax.Array):
        return value
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if hasattr(value, "__jax_array__"):
            return jnp.asarray(value)
        return cast_host_value(np.asarray(value), dtype)
    array = _python_array(value)
    if isinstance(array, jax.Array):
        return array.astype(dtype)
    return cast_host_value(array, dtype)


def _python_array(value: Any) -> np.ndarray[Any, Any] | jax.Array:
    """An array from Python numbers and nested sequences, which may hold arrays and tracers."""
    if value is None or isinstance(value, str | bytes | dict | set | frozenset):
        raise InvalidTypeError(_not_a_value(value))
    if any(isinstance(leaf, jax.Array) or hasattr(leaf, "__jax_array__") for leaf in jax.tree.leaves(value)):
        return jnp.asarray(value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidArgumentError(f"{_short(value)} is not a value: its rows differ in length ({error}).") from error
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        raise InvalidTypeError(_not_a_value(value))
    return array


def _python_dtype(array: np.ndarray[Any, Any] | jax.Array) -> DTypeLike:
    if isinstance(array, jax.Array):
        return array.dtype
    if array.dtype.kind in "iu":
        # TF1 takes int64 for Python ints beyond 32 bits; without x64 the value is then refused, not wrapped.
        fits = not array.size or (array.min() >= _INT32.min and array.max() <= _INT32.max)
        return np.dtype(np.int32 if fits else np.int64)
    return np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype


def _not_a_value(value: Any) -> str:
    return (
        f"{_short(value)} of type {type(value).__name__!r} is not a value for a variable. "
        "Expected a number, a list or tuple of numbers, or an array."
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_dtype_change(found: Any, wanted: Any) -> None:
    """Refuse a change of dtype that TF1 refuses: float into int, complex into real, a number into bool.

    Raises:
      InvalidTypeError: the change would lose more than precision.
    """
    order = (np.bool_, np.integer, np.floating, np.complexfloating)
    kinds = [next((i for i, kind in enumerate(order) if jnp.issubdtype(d, kind)), -1) for d in (found, wanted)]
    if kinds[0] > kinds[1] or -1 in kinds:
        raise InvalidTypeError(f"Expected {np.dtype(wanted)}, but got a value of type {np.dtype(found)}.")


def cast_host_value(value: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return `value` in `dtype`, refusing what would not be the same number.

    Args:
      value: any NumPy array of numbers.
      dtype: the dtype wanted.

    Returns:
      `value` itself when it has that dtype already, a new array otherwise.

    Raises:
      InvalidTypeError: float into int, complex into real, a number into bool.
      InvalidArgumentError: an integer out of range, or a finite number that would become infinite.
    """
    if value.dtype == dtype:
        return value
    if not value.size:
        return np.zeros(value.shape, dtype)
    check_dtype_change(value.dtype, dtype)
    if is_integer(dtype):
        limits = jnp.iinfo(dtype)
        low, high = int(value.min()), int(value.max())
        if low < limits.min or high > limits.max:
            raise InvalidArgumentError(_does_not_fit(low if low < limits.min else high, dtype))
        return value.astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        result = value.astype(dtype)
    finite = cast("Callable[[Any], np.ndarray[Any, Any]]", np.isfinite)
    lost = finite(value) & ~finite(result)
    if lost.any():
        raise InvalidArgumentError(_does_not_fit(value[lost].flat[0], dtype))
    return result


def _does_not_fit(number: Any, dtype: np.dtype[Any]) -> str:
    advice = ""
    narrowed = (np.dtype(d) for d in (np.int32, np.uint32, np.float32, np.complex64))
    if dtype in narrowed and not jax.config.read("jax_enable_x64"):
        advice = ' For 64-bit values run jax.config.update("jax_enable_x64", True) first.'
    return f"The value {number} does not fit {dtype}.{advice}"

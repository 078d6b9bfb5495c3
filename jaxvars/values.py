"""What may be stored in a variable: TF1's strictness about shape and dtype, in one place.

`prepare` is asked by ``jv.assign*``, by ``Variable.assign*`` inside a frame and by ``Variables.replace``. It
never broadcasts, turns ints into floats but never floats into ints, keeps bools and numbers apart, and
returns a value in exactly the variable's dtype (strong-typed, so that a Python scalar costs no second
compilation).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.buffers import is_weak
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, JaxvarsError

__all__ = [
    "ARITHMETIC",
    "check_operation",
    "convert",
    "defined_text",
    "is_number",
    "prepare",
    "prepare_limit",
    "shape_problem",
]

# Operations that compute with the old value: not defined on bools and random keys.
ARITHMETIC = frozenset(
    {"assign_add", "assign_sub", "count_up_to"}
    | {f"scatter_{name}" for name in ("add", "sub", "mul", "div", "min", "max", "nd_add", "nd_sub")}
)


def defined_text(defined_at: str) -> str:
    """A line for an error text saying where the variable was defined, "" if unknown."""
    return f"\n  Variable defined at {defined_at}." if defined_at else ""


def shape_problem(current: tuple[int, ...], given: tuple[int, ...]) -> str:
    """Say in TF1's words how two shapes that must be equal differ."""
    if len(current) != len(given):
        return f"Shapes must be equal rank, but are {len(current)} and {len(given)}"
    axis = next(i for i, (a, b) in enumerate(zip(current, given, strict=True)) if a != b)
    return f"Dimension {axis} in both shapes must be equal, but are {current[axis]} and {given[axis]}"


@functools.lru_cache(maxsize=1024)
def _kind(dtype: Any) -> str:
    """b(ool), i(nteger), f(loat), c(omplex), k(ey), or ? for what cannot be a value."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return "k"
    for kind, family in (("b", np.bool_), ("i", np.integer), ("f", np.floating), ("c", np.complexfloating)):
        if jnp.issubdtype(dtype, family):
            return kind
    return "?"


# (kind of the value, kind of the variable) pairs that may convert without asking.
_WIDENS = frozenset({"bb", "ff", "cc", "if", "ic", "fc"})
_PYTHON_TYPES = frozenset({bool, int, float, complex})
_PYTHON = {"b": "bool", "i": "int", "f": "float", "c": "complex", "k": "jax.random.key", "?": "float"}


def is_number(dtype: Any) -> bool:
    """Return whether values of `dtype` can be added: neither bools nor random keys."""
    return _kind(dtype) in "ifc"


def check_operation(op: str, key: str, dtype: Any, defined_at: str = "") -> None:
    """Raise `InvalidTypeError` where `op` is not defined on this dtype, such as adding to a bool."""
    if op in ARITHMETIC and not is_number(dtype):
        raise InvalidTypeError(
            f'{op} on "{key}": not defined for dtype {dtype}. Use assign.' + defined_text(defined_at)
        )


def prepare(
    op: str, key: str, current_shape: tuple[int, ...], current_dtype: Any, value: Any, defined_at: str = ""
) -> Any:
    """Return `value` as something of exactly the variable's dtype, after TF1's checks.

    Args:
      op: the operation, for error texts: ``"assign"``, ``"assign_add"``, ...
      key: the variable's name.
      current_shape: its shape, which the value's must equal.
      current_dtype: its dtype.
      value: a Python number or nested list, a NumPy or JAX array, a tracer, or a variable handle.
      defined_at: ``"file.py:line"`` of the variable, for error texts.

    Returns:
      A NumPy array, a `jax.Array` or a tracer of `current_shape` and `current_dtype`, strong-typed.

    Raises:
      InvalidTypeError: float into int, bool into number, number into bool, or no array at all.
      InvalidArgumentError: another shape, or an integer that the dtype cannot hold.
    """
    check_operation(op, key, current_dtype, defined_at)
    try:
        array = convert(op, key, value, current_dtype)
    except JaxvarsError as error:
        raise type(error)(f"{error}{defined_text(defined_at)}") from None
    if tuple(array.shape) != tuple(current_shape):
        raise InvalidArgumentError(_shape_text(op, key, tuple(current_shape), tuple(array.shape), defined_at))
    return array


def prepare_limit(key: str, shape: tuple[int, ...], dtype: Any, limit: Any, defined_at: str = "") -> Any:
    """Return the limit of a ``count_up_to`` in the counter's dtype, after TF1's checks of both.

    Raises:
      InvalidTypeError: the counter or the limit is not an integer.
      InvalidArgumentError: the counter or the limit is not of shape ().
    """
    wrong = InvalidTypeError if not jnp.issubdtype(dtype, np.integer) else InvalidArgumentError if shape else None
    if wrong is not None:
        raise wrong(
            f'count_up_to on "{key}": the variable must be an integer of shape (), it is {dtype} of shape {shape}.'
            + defined_text(defined_at)
        )
    return prepare("count_up_to", key, (), dtype, limit, defined_at)


def _shape_text(op: str, key: str, current: tuple[int, ...], given: tuple[int, ...], defined_at: str) -> str:
    problem = shape_problem(current, given)
    text = f'{op} of "{key}": {problem}. The variable has shape {current}, the value {given}.'
    try:
        fits = np.broadcast_shapes(current, given) == current
    except ValueError:
        fits = False
    # TF1 never broadcasts in an assignment: a scalar into a vector is more often a mistake than meant.
    advice = f" Nothing is broadcast; if it is meant, pass: jnp.broadcast_to(value, {current})" if fits else ""
    return text + advice + defined_text(defined_at)


def convert(op: str, key: str, value: Any, dtype: Any) -> Any:
    """Return `value` in `dtype`, of whatever shape it has; the dtype half of `prepare`."""
    if callable(getattr(value, "__jax_array__", None)):  # None on tracers
        value = value.__jax_array__()
    if isinstance(value, jax.Array):
        return _convert_jax(op, key, value, dtype)
    if not isinstance(value, np.ndarray | np.generic) and _holds_jax(value):
        return _convert_jax(op, key, jnp.asarray(value), dtype)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f'{op} of "{key}": the value is not an array: {error}') from None
    if array.dtype == object and isinstance(value, int):
        return _convert_huge(op, key, value, dtype)
    return _convert_numpy(op, key, value, array, dtype)


def _holds_jax(value: Any) -> bool:
    return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))


def _convert_jax(op: str, key: str, value: jax.Array, dtype: Any) -> Any:
    if value.dtype == dtype:
        return jax.lax.convert_element_type(value, dtype) if is_weak(value) else value
    source, target = _kind(value.dtype), _kind(dtype)
    # Two integer dtypes: only where every value fits, or where the value came from a Python number.
    integers = source == target == "i" and (is_weak(value) or np.can_cast(value.dtype, dtype))
    if source + target in _WIDENS or integers:
        return jax.lax.convert_element_type(value, dtype)
    raise InvalidTypeError(_dtype_text(op, key, value.dtype, dtype, f"jnp.asarray(value, jnp.{dtype})"))


def _convert_numpy(op: str, key: str, value: Any, array: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    """`array`, which is `value` as NumPy sees it, in `dtype`."""
    source, target = _kind(array.dtype), _kind(dtype)
    if source + target == "ii":
        _check_range(op, key, array, dtype)
    elif source + target not in _WIDENS:
        number = type(value).__name__ if type(value) in _PYTHON_TYPES else ""
        fix = f"{_PYTHON[target]}(value)" if number else f"np.asarray(value).astype(jnp.{dtype})"
        raise InvalidTypeError(_dtype_text(op, key, f"a Python {number}" if number else array.dtype, dtype, fix))
    return _numpy_cast(array, dtype)


def _convert_huge(op: str, key: str, value: int, dtype: Any) -> np.ndarray[Any, Any]:
    """A Python int beyond 64 bits, which NumPy has no dtype for."""
    if _kind(dtype) in "fc":
        return _numpy_cast(np.asarray(float(value)), dtype)
    raise InvalidArgumentError(f'{op} of "{key}": {value} does not fit {dtype}.')


def _numpy_cast(array: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):  # 1e300 becomes inf in float32, as in TF1
        return array.astype(dtype)


def _check_range(op: str, key: str, array: np.ndarray[Any, Any], dtype: Any) -> None:
    if not array.size or np.can_cast(array.dtype, dtype):
        return
    info = jnp.iinfo(dtype)
    low, high = int(array.min()), int(array.max())
    if low < int(info.min) or high > int(info.max):
        wrong = low if low < int(info.min) else high
        raise InvalidArgumentError(
            f'{op} of "{key}": {wrong} does not fit {dtype}, which holds {int(info.min)} to {int(info.max)}.'
        )


def _dtype_text(op: str, key: str, given: Any, dtype: Any, fix: str) -> str:
    if _kind(dtype) == "k" or (isinstance(given, np.dtype) and _kind(given) == "?"):
        return f'{op} of "{key}": expected a value of {dtype}, got {given}.'
    return (
        f'{op} of "{key}": expected {dtype}, got {given}, which is not converted silently. If it is meant, pass: {fix}'
    )

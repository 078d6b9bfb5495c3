"""From what a user passes as ``initializer=`` to one callable ``(key, shape, dtype)``, with TF1's checks."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.core import Tracer

from jaxvars._arguments import as_dtype, is_fully_defined, shape_as_tuple, value_as_array, value_dtype
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, JaxvarsError
from jaxvars.initializers._base import DType, Initializer, Shape
from jaxvars.initializers._calling import ZeroArgument, adapt, instantiate, takes_no_arguments

__all__ = [
    "InitializerFunction",
    "Normalized",
    "Value",
    "as_initializer",
    "check_constant_dtype",
    "check_constant_without_shape",
    "constant_dtype",
    "default_initializer",
    "is_constant",
    "needs_key",
]

InitializerFunction: TypeAlias = Callable[..., Any]
_T = TypeVar("_T")

# JAX's constants, and ours for them: these need no key and no compilation.
_SAME = ((jax.nn.initializers.zeros, "zeros"), (jax.nn.initializers.ones, "ones"))


class Normalized(NamedTuple):
    """What makes the value of a new variable, ``initializer(key, shape, dtype)``, and its shape and dtype."""

    initializer: InitializerFunction
    shape: Shape
    dtype: DType


class Value(Initializer):
    """The initializer of a variable that was given a value: it returns that value.

    Args:
      value: anything `value_as_array` takes. NumPy arrays are copied, so that later writes into them do not
        count.
    """

    __slots__ = ("dtype", "value")

    def __init__(self, value: Any) -> None:
        array = value_as_array(value)
        self.value = array if isinstance(array, jax.Array) else np.array(array)
        self.dtype = as_dtype(array)

    def check(self, shape: Shape, dtype: DType) -> None:
        """Refuse any shape but the value's."""
        if tuple(self.value.shape) != shape:
            raise InvalidArgumentError(f"The initial value has shape {tuple(self.value.shape)}, not {shape}.")

    def constant_value(self, shape: Shape, dtype: DType) -> np.ndarray[Any, Any] | None:
        """A new array; None for a traced value, and for random keys, which NumPy cannot hold."""
        if isinstance(self.value, Tracer) or jnp.issubdtype(self.dtype, dtypes.extended):
            return None
        return np.array(self.value, dtype)

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        if jnp.issubdtype(dtype, dtypes.extended):
            return jnp.copy(self.value)
        # lax.convert_element_type also makes a weakly typed tracer strong.
        return jax.lax.convert_element_type(jnp.array(self.value), dtype)

    def __repr__(self) -> str:
        return f"<the value {self.dtype}{list(self.value.shape)}>"


def is_constant(initializer: Any) -> bool:
    """Whether `initializer` is itself the value (an array, number or list), not something that makes it."""
    return initializer is not None and not callable(initializer)


def constant_dtype(initializer: Any, name: str) -> DType:
    """Return the dtype of a constant initializer: Python ints are int32, floats float32, arrays keep theirs.

    Raises:
      InvalidTypeError: it is no value (a dict, a string, an object).
      InvalidArgumentError: it is a list whose rows differ in length.
    """
    return _named(value_dtype, initializer, name)


def _named(function: Callable[[Any], _T], value: Any, name: str) -> _T:
    """Return ``function(value)``; its errors then name the variable."""
    try:
        return function(value)
    except JaxvarsError as error:
        raise type(error)(f'The initializer of variable "{name}": {error}') from error


def check_constant_dtype(initializer: Any, dtype: Any, name: str) -> None:
    """Refuse a constant initializer of another dtype than the one given explicitly (TF1's first check).

    Args:
      initializer: any initializer; callables pass.
      dtype: the dtype argument of the call itself, None when it was not given. The scope's does not count.
      name: the variable.

    Raises:
      InvalidArgumentError: the two differ. Without x64 a float64 array counts as float32, as everywhere in
        JAX.
    """
    if dtype is None or not is_constant(initializer):
        return
    found, wanted = constant_dtype(initializer, name), as_dtype(dtype)
    if found != wanted:
        raise InvalidArgumentError(
            f"Initializer type '{found}' and explicit dtype '{wanted}' don't match. Variable {name} takes "
            f"the dtype of its value: leave out dtype=, or write initializer=jnp.asarray(value, '{wanted}')."
        )


def check_constant_without_shape(initializer: Any, shape: Any, name: str) -> None:
    """Refuse a shape given along with a constant initializer, even one that agrees, as TF1 does.

    Raises:
      InvalidArgumentError: both are given.
    """
    if shape is not None and is_constant(initializer):
        raise InvalidArgumentError(
            f'If initializer is a constant, do not specify shape. Variable "{name}" takes the shape of its '
            "value: leave out shape=, or write initializer=jv.constant_initializer(value)."
        )


def default_initializer(dtype: Any, name: str) -> Initializer:
    """Return the initializer of a variable that has none: Glorot uniform for floats, zeros for ints and bool.

    Raises:
      InvalidArgumentError: there is no default for the dtype (complex).

    Example:
      >>> default_initializer("float32", "w"), default_initializer(bool, "flag")
      (jv.initializers.glorot_uniform(), jv.initializers.zeros())
    """
    found = as_dtype(dtype)
    if jnp.issubdtype(found, np.floating):
        return _plain("glorot_uniform")
    if jnp.issubdtype(found, np.integer) or found == np.bool_:
        return _plain("zeros")
    raise InvalidArgumentError(
        f"An initializer for variable {name} of {found} is required: write for example "
        "initializer=jv.zeros_initializer()."
    )


@functools.cache
def _plain(name: str) -> Initializer:
    """The initializer of this name, made without arguments; its module is imported by the first model that needs it."""
    return getattr(importlib.import_module("jaxvars.initializers"), name)()


def needs_key(initializer: InitializerFunction) -> bool:
    """Whether a normalized initializer needs a key: constants, seeded and TF1-style ones do not."""
    return bool(getattr(initializer, "needs_key", True))


def as_initializer(initializer: Any, shape: Any, dtype: Any, name: str) -> Normalized:
    """Turn what a user passed as ``initializer=`` into one callable, with the variable's shape and dtype.

    Accepted: None (the default for the dtype); an initializer of `jv.initializers` or its class;
    `jax.nn.initializers` functions and anything called ``(key, shape, dtype)``; TF1-style callables
    ``(shape, dtype=, partition_info=)``; without a shape, callables that need no arguments; and values:
    arrays, numbers, nested lists. A value, or what a callable without arguments returns, decides the dtype
    itself, as in TF1: `dtype` is then not looked at (`check_constant_dtype` is for that).

    Args:
      initializer: see above.
      shape: None, or anything `shape_as_tuple` takes.
      dtype: the variable's dtype: the argument, else the scope's.
      name: the variable, for errors.

    Returns:
      (initializer, shape, dtype); ``filling.fill`` checks that what the initializer returns agrees.

    Raises:
      InvalidArgumentError: a constant with a shape; no initializer and no shape; a shape with unknown
        dimensions; a callable that needs arguments without a shape.
      InvalidTypeError: an initializer that is no value and not callable, does not take arguments though there
        is a shape, or cannot make the dtype.

    Example:
      >>> as_initializer([23, 42], None, "float32", "v").dtype
      dtype('int32')
    """
    dims = shape_as_tuple(shape)
    if is_constant(initializer):
        check_constant_without_shape(initializer, dims, name)
        value = _named(Value, initializer, name)
        return Normalized(value, tuple(value.value.shape), value.dtype)
    if initializer is None:
        if dims is None:
            own = name.rsplit("/", 1)[-1]
            raise InvalidArgumentError(
                f"Variable {name} did not get an initializer, so its `shape` argument must be specified. "
                "Write one of:\n"
                f"    jv.get_variable({own!r}, [2, 3])                           # TF1's default initializer\n"
                f"    jv.get_variable({own!r}, initializer=jnp.zeros([2, 3]))    # the value's own shape"
            )
        initializer = default_initializer(dtype, name)
        if not is_fully_defined(dims):
            raise InvalidArgumentError(
                f"Shape of a new variable ({name}) must be fully defined, but instead was {dims}."
            )
    made = instantiate(initializer, name)
    if is_fully_defined(dims):
        return _with_shape(made, dims, as_dtype(dtype), name)
    if not takes_no_arguments(made):
        raise InvalidArgumentError(
            f'The initializer passed is not valid. Variable "{name}" has '
            f"{'no shape' if dims is None else f'the shape {dims}'}, so its initializer should be a value "
            f"or a callable with no arguments, but it is {made!r}. Give the variable a fully defined shape=."
        )
    return _without_shape(made, name)


def _with_shape(made: Any, shape: Shape, dtype: DType, name: str) -> Normalized:
    adapted = next((_plain(ours) for function, ours in _SAME if made is function), None) or adapt(made, name)
    if isinstance(adapted, Initializer):
        try:
            adapted.check(shape, dtype)
        except JaxvarsError as error:
            raise type(error)(f'Variable "{name}": {error}') from error
    return Normalized(adapted, shape, dtype)


def _without_shape(made: Callable[[], Any], name: str) -> Normalized:
    """Find out shape and dtype by running the function abstractly: no arrays are made, none is kept."""
    dtypes: list[DType] = []

    def run() -> Any:
        value = _checked_value(made(), name)
        dtypes.append(constant_dtype(value, name))
        return jnp.asarray(value)

    shape = cast("tuple[int, ...]", jax.eval_shape(run).shape)
    return Normalized(ZeroArgument(made), shape, dtypes[-1])


def _checked_value(value: Any, name: str) -> Any:
    if callable(value) and not hasattr(value, "__jax_array__"):
        raise InvalidTypeError(
            f'The initializer of variable "{name}" returned the function {value!r:.80}, not a value: '
            "is a pair of parentheses missing, as in initializer=jax.nn.initializers.glorot_uniform()?"
        )
    return value

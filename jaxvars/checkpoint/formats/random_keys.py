"""Typed random keys in files: stored as the plain unsigned array behind them, and made keys again."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError

__all__ = ["KEY_DTYPES", "implementation", "is_key_dtype", "key_dtype", "stored_form"]

# The names of JAX's key dtypes, and of the generators they belong to.
KEY_DTYPES = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}


def is_key_dtype(dtype: Any) -> bool:
    """Whether values of this dtype are random keys."""
    # Asking JAX takes microseconds, and this is asked for each of 10,000 variables.
    return not isinstance(dtype, np.dtype) and bool(jnp.issubdtype(dtype, jax.dtypes.prng_key))


def stored_form(shape: tuple[int, ...], dtype: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and dtype of the plain array behind a value; its own, but for random keys."""
    if not is_key_dtype(dtype):
        return shape, np.dtype(dtype)
    more, numbers = _numbers_of_one_key(dtype)
    return (*shape, *more), numbers


@functools.cache
def _numbers_of_one_key(dtype: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), dtype))
    return tuple(data.shape), np.dtype(data.dtype)


def implementation(dtype: Any) -> str:
    """Return the generator that keys of this dtype belong to.

    Raises:
      InvalidArgumentError: it is none of JAX's own.
    """
    known = KEY_DTYPES.get(str(dtype))
    if known is None:
        raise InvalidArgumentError(f"Cannot store values of dtype {dtype}: only JAX's own kinds of random keys.")
    return known


@functools.cache
def key_dtype(name: str) -> Any:
    """Return the key dtype of that name (one of `KEY_DTYPES`)."""
    return jax.eval_shape(lambda: jax.random.key(0, impl=KEY_DTYPES[name])).dtype

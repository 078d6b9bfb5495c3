"""Whether two initializers are certain to make the same values, so that they can share compiled code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from types import CodeType, FunctionType
from typing import Any, cast

import numpy as np

from jaxvars.initializers._base import Initializer
from jaxvars.initializers._calling import Adapted
from jaxvars.initializers._normalize import Value

__all__ = ["identity_of"]

_PLAIN = (int, float, complex, bool, str, bytes, type(None), np.dtype, np.generic, type)


def identity_of(initializer: Callable[..., Any]) -> Hashable | None:
    """Return a hashable that equal initializers share, or None if there is no telling.

    Initializers of `jv.initializers` are values themselves. JAX's are closures, and
    ``jax.nn.initializers.glorot_uniform()`` in a model's body is a new one at every call, so they are
    compared by their code and what it closes over. A function of the user's may read globals, attributes or
    the clock: no.

    Args:
      initializer: a callable ``(key, shape, dtype)``.

    Returns:
      A hashable that keeps no array alive, or None.
    """
    if isinstance(initializer, Value):
        return None  # its array must not stay alive in a cache
    if isinstance(initializer, Initializer):
        try:
            hash(initializer)
        except TypeError:
            return None
        return type(initializer), initializer
    if isinstance(initializer, Adapted):
        inner = identity_of(initializer.function)
        way = (initializer.needs_key, initializer.shape, initializer.dtype, initializer.partition_info)
        return None if inner is None else ("adapted", inner, way)
    return _of_function(initializer)


def _of_function(function: Any) -> Hashable | None:
    if isinstance(function, functools.partial):
        partial = cast("functools.partial[Any]", function)
        inner = _of_function(partial.func)
        bound = _plain((partial.args, tuple(sorted(partial.keywords.items()))))
        return None if inner is None or bound is None else ("partial", inner, bound)
    if not isinstance(function, FunctionType) or not _is_of_jax(function):
        return None
    code: CodeType = function.__code__
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    bound = _plain((tuple(cells), function.__defaults__, tuple(sorted((function.__kwdefaults__ or {}).items()))))
    return None if bound is None else ("jax", code, bound)


def _is_of_jax(function: FunctionType) -> bool:
    return str(function.__globals__.get("__name__", "")).split(".", 1)[0] == "jax"


def _plain(value: Any) -> Hashable | None:
    """A hashable form of plain immutable values that tells 1, 1.0 and True apart; None for anything else."""
    if isinstance(value, tuple):
        parts = [_plain(part) for part in cast("tuple[Any, ...]", value)]
        return None if None in parts else ("tuple", *parts)
    if isinstance(value, FunctionType):
        return _of_function(value)
    if isinstance(value, _PLAIN):
        return type(value), repr(value) if isinstance(value, float | complex | np.generic) else value
    return None

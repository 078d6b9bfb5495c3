"""The arguments of a call without their values: a key of what is known about calls like it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidTypeError
from jaxvars.interop.trees import is_array

__all__ = ["MAX_CALLS", "AbstractCall", "looked_up"]

#: Of how many different calls what is known is kept.
MAX_CALLS = 256


class AbstractCall(NamedTuple):
    """The arguments of a call, arrays by shape and dtype only; hashable if all else among them is.

    Attributes:
      structure: of ``(args, kwargs)``.
      leaves: each beside its type (``1`` and ``True`` are equal): arrays as ShapeDtypeStructs, all else as it is.
    """

    structure: Any
    leaves: tuple[tuple[type, Any], ...]

    @classmethod
    def of(cls, args: Any, kwargs: Any) -> Self:
        """Return what is known of a call's arguments."""
        leaves, structure = jax.tree.flatten((args, kwargs))
        typed = [
            (jax.Array, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)) if is_array(leaf) else (type(leaf), leaf)
            for leaf in leaves
        ]
        return cls(structure, tuple(typed))

    @property
    def arguments(self) -> tuple[Any, Any]:
        """(args, kwargs), in which arrays are ShapeDtypeStructs."""
        return self.with_arrays(self.arrays)

    @property
    def arrays(self) -> list[jax.ShapeDtypeStruct]:
        """The arrays among the arguments."""
        return [leaf for kind, leaf in self.leaves if kind is jax.Array]

    def with_arrays(self, arrays: list[Any]) -> tuple[Any, Any]:
        """Return (args, kwargs) with these arrays."""
        remaining = iter(arrays)
        leaves = [next(remaining) if kind is jax.Array else leaf for kind, leaf in self.leaves]
        return jax.tree.unflatten(self.structure, leaves)

    def evaluated(self, function: Callable[..., Any], called: Callable[..., Any] | None = None) -> Any:
        """Return the shapes of ``function(args, kwargs)``; nothing is computed.

        Args:
          function: what is evaluated.
          called: the method that takes the arguments, for the error text; None where it is not known.

        Raises:
          InvalidTypeError: a bool or an int on which Python decides is an array.
        """
        try:
            return jax.eval_shape(lambda arrays: function(*self.with_arrays(arrays)), self.arrays)
        except jax.errors.ConcretizationTypeError as error:
            if called is None or not (switches := self._switches(called)):
                raise
            names = " or ".join(f"`{name}`" for name in switches)
            raise InvalidTypeError(
                f"{_shown(called)}: Python decides by its argument {names}, which is traced. Pass it as True or False; "
                f'under jit write: jax.jit(model.apply, static_argnames="{switches[0]}")'
            ) from error

    def _switches(self, called: Callable[..., Any]) -> list[str]:
        """The names of the arguments that are a single bool or, if there is none, int."""
        args, kwargs = self.arguments
        named = dict(zip(inspect.signature(called).parameters, args, strict=False)) | kwargs
        scalars = {name: value.dtype for name, value in named.items() if is_array(value) and value.shape == ()}
        bools = [name for name, dtype in scalars.items() if dtype == jnp.bool_]
        return bools or [name for name, dtype in scalars.items() if jnp.issubdtype(dtype, jnp.integer)]


def _shown(called: Any) -> str:
    """A method of a module as its class names it."""
    return (called.func if isinstance(called, functools.partial) else called).__qualname__.removesuffix(".__call__")


def looked_up(function: Any, *args: Any) -> Any:
    """Call a function that `functools.lru_cache` keeps the results of; past the cache where an argument has no hash."""
    try:
        hash(args)
    except TypeError:  # such as a module with a list among its fields
        return function.__wrapped__(*args)
    return function(*args)

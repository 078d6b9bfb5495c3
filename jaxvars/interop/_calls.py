"""The arguments of a call without their values: a key of what is known about calls like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax

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

    def evaluated(self, function: Callable[..., Any]) -> Any:
        """Return the shapes of ``function(args, kwargs)``; nothing is computed."""
        return jax.eval_shape(lambda arrays: function(*self.with_arrays(arrays)), self.arrays)


def looked_up(function: Any, *args: Any) -> Any:
    """Call a function that `functools.lru_cache` keeps the results of; past the cache where an argument has no hash."""
    try:
        hash(args)
    except TypeError:  # such as a module with a list among its fields
        return function.__wrapped__(*args)
    return function(*args)

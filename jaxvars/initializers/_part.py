"""The initial values of several variables that one function makes: the state of a module of another library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax

from jaxvars.initializers._base import DType, Initializer, Shape

__all__ = ["MakeAll", "Part"]

#: From a random key to the values of all variables, by their paths below the scope. Hashable, if it can be.
MakeAll: TypeAlias = Callable[[jax.Array], Mapping[str, jax.Array]]


class Part(Initializer):
    """Initializes one of the variables whose values one function makes.

    `filling.fill` calls the function once for all variables of one scope, with that scope's key,
    ``fold_in(key, name_hash(scope))``. Called by itself, with a key of its own, it makes all and returns one.

    Args:
      make: makes all.
      path: the variable's path below the scope, which is what its name ends with.
      made: its value, where `make` has run already.
      placement: the axes of a mesh over which the module wants it spread, or None.
    """

    seed = None
    dtype = None

    def __init__(self, make: MakeAll, path: str, made: Any = None, placement: Any = None) -> None:
        self.make = make
        self.path = path
        self.made = made
        self.placement = placement

    def scope_of(self, name: str) -> str:
        """Return the scope of the module, of whose variables `name` is this one."""
        return name.removesuffix(self.path).removesuffix("/")

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        if self.made is not None:
            return self.made
        assert key is not None
        return self.make(key)[self.path].astype(dtype)

    def __repr__(self) -> str:
        return f"{self.make!r}, of which {self.path}"

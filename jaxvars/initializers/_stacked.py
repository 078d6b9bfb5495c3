"""The initial value of a variable that holds those of several layers, stacked: each as under its layer's own name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.initializers._base import DType, Shape
from jaxvars.initializers._normalize import needs_key
from jaxvars.spec import Hole

__all__ = ["Stacked", "moved"]


@dataclass(frozen=True)
class Stacked:
    """Initializes a variable of shape ``[layers, ...]`` with what the layers' own variables would start from.

    `filling.fill` fills `layers` and stacks them. Called by itself, with one key for all, it draws other numbers.

    Args:
      parts: by the layers' names of the variable their initializers, ``(key, shape, dtype)``.

    Example:
      >>> import jaxvars as jv
      >>> both = Stacked((("layer_0/b", jv.ones_initializer()), ("layer_1/b", jv.ones_initializer())))
      >>> both(None, (2, 3), "float32").shape
      (2, 3)
    """

    parts: tuple[tuple[str, Callable[..., Any]], ...]

    @classmethod
    def of(cls, function: Callable[..., Any], scope: str, scopes: Sequence[str], name: str) -> Stacked:
        """Return the initializer of a variable `name`, each layer's being `function`.

        Args:
          function: the initializer of one layer; itself one of stacked layers, where they nest.
          scope: the scope of the stacked variables, with "/".
          scopes: those of the layers, with "/".
          name: the name below.
        """
        return cls(tuple((layer + name, moved(function, scope, layer)) for layer in scopes))

    @property
    def needs_key(self) -> bool:
        """Whether the values are random."""
        return any(needs_key(function) for _, function in self.parts)

    def layers(self, whole: Any, sharding: jax.sharding.Sharding | None = None) -> dict[str, Hole]:
        """Return by name the hole of each layer, of the stacked variable `whole`."""
        shape, dtype = whole.shape[1:], whole.dtype
        return {name: Hole(shape, dtype, sharding=sharding, initializer=function) for name, function in self.parts}

    def __call__(self, key: jax.Array | None, shape: Shape, dtype: DType) -> Any:
        """Make the whole."""
        keys = [None if key is None else jax.random.fold_in(key, number) for number in range(len(self.parts))]
        made = [function(own, shape[1:], dtype) for own, (_, function) in zip(keys, self.parts, strict=True)]
        return jnp.stack([jnp.asarray(value) for value in made])

    def __repr__(self) -> str:
        return f"{self.parts[0][1]!r}, for each of {len(self.parts)} layers"


def moved(initializer: Any, old_scope: str, new_scope: str) -> Any:
    """Return an initializer as it is in another scope: a `Stacked` one knows names."""
    if not isinstance(initializer, Stacked):
        return initializer
    return Stacked(
        tuple(
            (new_scope + name.removeprefix(old_scope), moved(function, old_scope, new_scope))
            for name, function in initializer.parts
        )
    )

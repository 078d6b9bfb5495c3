"""The state of a module of another library as variables: what they are, and what makes their first values."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars._compat import used_arguments
from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers._part import MakeAll, Part
from jaxvars.interop._calls import MAX_CALLS, AbstractCall, looked_up
from jaxvars.interop.collections import PARAMS, collection_leaves, names_of
from jaxvars.spec import leaf_dtype, leaf_shape

__all__ = ["KEY", "CallInit", "GivenInit", "ModuleInit", "ModuleVariable", "module_variables"]

#: Stands for a random key where nothing is computed.
KEY = jax.eval_shape(lambda: jax.random.key(0))


class ModuleVariable(NamedTuple):
    """One array of a module's state.

    Attributes:
      path: its name below the module's scope.
      collection: what the library calls the group that it is in; it joins a collection of that name.
      shape: its shape.
      dtype: its dtype.
      trainable: whether optimizers touch it.
      initializer: a `Part`, or the value itself.
    """

    path: str
    collection: str
    shape: tuple[int, ...]
    dtype: Any
    trainable: bool
    initializer: Any


class ModuleInit:
    """What makes a module's first values: from a key, by their names below the scope. Hashable, if what it holds is."""

    @property
    def depends(self) -> bool:
        """Whether values depend on those of a call's arguments, and not on their shapes alone."""
        return False

    def __call__(self, key: jax.Array) -> dict[str, Any]:
        """Return the values, where they do not depend on the arguments."""
        raise NotImplementedError

    def values(self, key: jax.Array, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the values for these arguments."""
        return self(key)


class CallInit(ModuleInit):
    """A library's ``init`` for calls like one, with arguments."""

    call: AbstractCall

    def tree(self, key: jax.Array, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the values in one tree, collection -> tree of arrays."""
        raise NotImplementedError

    def shapes(self) -> dict[str, Any]:
        """Return the tree of shapes and dtypes."""
        return self.call.evaluated(lambda args, kwargs: jax.eval_shape(lambda key: self.tree(key, args, kwargs), KEY))

    def values(self, key: jax.Array, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the values for these arguments."""
        return _by_name(self.tree(key, args, kwargs))

    def __call__(self, key: jax.Array) -> dict[str, Any]:
        if self.depends:
            raise InvalidArgumentError(
                "its module computes initial values from the values of its arguments. Write:\n"
                "    variables = model.init(rng, *args)    # with arrays, not jax.ShapeDtypeStruct"
            )
        zeros = [jnp.zeros(array.shape, array.dtype) for array in self.call.arrays]
        return self.values(key, *self.call.with_arrays(zeros))

    @property
    def depends(self) -> bool:
        """Whether values depend on those of the arguments, and not on their shapes alone."""
        return looked_up(_depends, self)


@functools.lru_cache(maxsize=MAX_CALLS)
def _depends(init: CallInit) -> bool:
    def tree(key: Any, arrays: list[Any]) -> Any:
        return init.tree(key, *init.call.with_arrays(arrays))

    arrays = init.call.arrays
    if not arrays:
        return False
    # What a program does not need, `jax.jit` leaves out.
    used = used_arguments(jax.jit(tree).lower(KEY, arrays))
    return used is None or max(used, default=0) > 0


class GivenInit(ModuleInit):
    """The values of a module that exists, by name."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.given = values

    def __call__(self, key: jax.Array) -> dict[str, Any]:
        return dict(self.given)

    def __repr__(self) -> str:
        return "the module's own values"


def _by_name(tree: Any) -> dict[str, Any]:
    leaves = collection_leaves(tree)
    return {name: leaves[where] for where, name in names_of(leaves).items()}


def module_variables(
    leaves: Mapping[tuple[str, str], Any], make: MakeAll, homes: Mapping[tuple[str, str], Any] | None = None
) -> tuple[ModuleVariable, ...]:
    """Return the variables of a module's arrays, by (collection, path), in that order; `make` makes their values.

    Args:
      leaves: arrays or ShapeDtypeStructs.
      make: from a key to the values, by name.
      homes: the axes of a mesh over which the module wants some spread.
    """
    names = names_of(leaves)
    homes = homes or {}
    return tuple(
        ModuleVariable(
            names[where],
            where[0],
            leaf_shape(leaf),
            leaf_dtype(leaf),
            where[0] == PARAMS,
            Part(make, names[where], placement=homes.get(where)),
        )
        for where, leaf in leaves.items()
    )

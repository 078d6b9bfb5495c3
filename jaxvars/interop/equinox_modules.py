"""Equinox modules inside a scope: their arrays are variables of the scope."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxvars.errors import InvalidTypeError
from jaxvars.initializers._part import Part
from jaxvars.interop._calls import MAX_CALLS, looked_up
from jaxvars.interop._module_layer import ModuleLayer, plain_call
from jaxvars.interop._module_variables import KEY, GivenInit, ModuleInit, ModuleVariable
from jaxvars.interop._packages import require
from jaxvars.interop.collections import PARAMS, STATE
from jaxvars.interop.trees import is_array, path_name
from jaxvars.spec import leaf_dtype, leaf_shape

if TYPE_CHECKING:
    import equinox as eqx

__all__ = ["EquinoxLayer", "equinox"]


def equinox(
    module: eqx.Module | Callable[..., eqx.Module], name: str | None = None, *, trainable: bool = True
) -> EquinoxLayer:
    """Return an Equinox module as a layer: inside a model it is called as the module is.

    Its arrays are variables under their paths, ``"scope/layers/0/weight"``; those of floats are trainable. An Equinox
    module changes nothing when it is called: what its call returns is returned, a new ``eqx.nn.State`` included.

    Args:
      module: a module, whose arrays are the initial values; or a function of a random key that makes one, which is
        called with the key `module_key`, by one compiled program.
      name: the name of the scope; None for the class's name, made unique.
      trainable: whether optimizers touch the arrays of floats.

    Raises:
      InvalidTypeError: neither a module nor a function.
      Its calls raise what `jv.get_variable` and the module raise.

    Example:
      >>> import equinox as eqx, jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     return jv.interop.equinox(lambda key: eqx.nn.Linear(3, 2, key=key), "fc")(x)
      >>> list(jv.transform(net).init(0, jnp.ones(3)))
      ['fc/bias', 'fc/weight']
    """
    eqx = require("equinox", "jv.interop.equinox")
    if isinstance(module, eqx.Module):
        return EquinoxLayer(module, name, trainable, type(module).__name__)
    if not callable(module):
        raise InvalidTypeError(
            f"jv.interop.equinox takes an eqx.Module or a function of a key, got {module!r:.60}. Write: "
            "jv.interop.equinox(lambda key: Net(key=key))"
        )
    return EquinoxLayer(module, name, trainable, type(looked_up(_abstract, module)).__name__)


class EquinoxLayer(ModuleLayer):
    """What `equinox` returns."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with the variables of its scope as its arrays; see `equinox`."""
        import equinox as eqx

        args, kwargs = plain_call(args, kwargs)
        with self._opened() as frame:
            if isinstance(self.module, eqx.Module):
                module, init = self.module, GivenInit(_arrays(self.module))
            else:
                module, init = looked_up(_abstract, self.module), EquinoxInit(self.module)
            wanted = _variables(module, init)
            values = iter(self._values(frame, wanted, init, (), {}))
            # Part by part in the order of the leaves, which is that of `wanted`.
            filled = jax.tree.map(lambda leaf: next(values) if is_array(leaf) else leaf, module)
            return filled(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class EquinoxInit(ModuleInit):
    """The making of a module: from a key to its arrays, by path."""

    make: Callable[..., Any]

    def __call__(self, key: jax.Array) -> dict[str, Any]:
        return _arrays(self.make(key))

    def __repr__(self) -> str:
        return getattr(self.make, "__qualname__", repr(self.make))


@functools.lru_cache(maxsize=MAX_CALLS)
def _abstract(make: Callable[..., Any]) -> Any:
    """The module that a function makes, with shapes in the place of its arrays."""
    import equinox as eqx

    module = eqx.filter_eval_shape(make, KEY)
    if not isinstance(module, eqx.Module):
        raise InvalidTypeError(f"jv.interop.equinox: {make!r:.60} returned {type(module).__name__}, not an eqx.Module.")
    return module


def _variables(module: Any, init: ModuleInit) -> list[ModuleVariable]:
    given = isinstance(init, GivenInit)
    variables: list[ModuleVariable] = []
    for path, leaf in _arrays(module).items():
        floats = jnp.issubdtype(leaf_dtype(leaf), jnp.inexact)
        initializer = leaf if isinstance(leaf, Tracer) else Part(init, path, jnp.asarray(leaf) if given else None)
        collection = PARAMS if floats else STATE
        variables.append(ModuleVariable(path, collection, leaf_shape(leaf), leaf_dtype(leaf), floats, initializer))
    return variables


def _arrays(module: Any) -> dict[str, Any]:
    """Path -> array of a module."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(module) if is_array(leaf)}

"""A jaxvars model as a Haiku module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from jaxvars.interop._packages import require
from jaxvars.interop._wrapping import as_model, given, specs_of
from jaxvars.interop.collections import PARAMS, STATE
from jaxvars.spec import VariableSpec
from jaxvars.transform import Model
from jaxvars.variables import Variables

if TYPE_CHECKING:
    import haiku as hk

__all__ = ["as_haiku"]


def as_haiku(model: Model | Callable[..., Any], name: str | None = None) -> hk.Module:
    """Return a jaxvars model as a Haiku module, inside a function that ``hk.transform_with_state`` transforms.

    The trainable variables are its parameters, under the scopes they have, the others its state:
    ``"tower/fc/kernel"`` is ``params["net/tower/fc"]["kernel"]``. `jv.next_rng_key` draws from Haiku's key. Initial
    values are those that ``model.init`` makes with a key of ``hk.next_rng_key``.

    Args:
      model: a model, or the function of one.
      name: the name of the module; None for ``"jaxvars_model"``.

    Returns:
      The module. To take the values back, without the module's name:
      ``theirs = jv.interop.from_haiku(params, state).rename({"net/": ""})``, ``variables.replace(theirs)``.

    Raises:
      InvalidTypeError: neither a model nor a function.

    Example:
      >>> import haiku as hk, jax, jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.dense(x, 2, name="fc"))
      >>> theirs = hk.transform(lambda x: jv.interop.as_haiku(model, "net")(x))
      >>> jax.tree.map(jnp.shape, theirs.init(jax.random.key(0), jnp.ones([1, 3])))
      {'net/fc': {'bias': (2,), 'kernel': (3, 2)}}
    """
    require("haiku", "jv.interop.as_haiku")
    return _module_class()(as_model(model, "as_haiku"), name)


@functools.cache
def _module_class() -> Any:
    import haiku as hk

    class JaxvarsModel(hk.Module):
        """What `as_haiku` returns."""

        def __init__(self, model: Model, name: str | None) -> None:
            super().__init__(name)
            self.model = model

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            specs = specs_of(self.model, args, kwargs)
            initial = self.model.init(hk.next_rng_key(), *args, **kwargs) if hk.running_init() else specs
            scopes = _scopes(specs)
            variables = _gotten(specs, initial, scopes)
            out, after = self.model.apply(variables, *args, rng=hk.maybe_next_rng_key(), **kwargs)
            if not hk.running_init():
                for name in after:
                    if after[name] is not variables[name]:
                        scopes[_scope_of(name)].put(name, after[name])
            return out

    return JaxvarsModel


@functools.cache
def _scope_class() -> Any:
    import haiku as hk

    class Scope(hk.Module):
        """A module that stands for a scope of variables."""

        def __call__(self, name: str) -> Scope:
            """Return the scope of that name below this one."""
            return Scope(name)

        def get(self, *args: Any) -> Any:
            """Return a value of this scope."""
            return _get(*args)

        def put(self, *args: Any) -> None:
            """Set a state of this scope."""
            _put(*args)

    return Scope


def _get(name: str, spec: VariableSpec, initial: Any) -> Any:
    """The value that Haiku holds in the module that runs; while it initializes, the initial one becomes that."""
    import haiku as hk

    get = hk.get_parameter if spec.trainable else hk.get_state
    return get(name.rpartition("/")[2], spec.shape, spec.dtype, init=lambda *_: initial)


def _put(name: str, value: Any) -> None:
    import haiku as hk

    hk.set_state(name.rpartition("/")[2], value)


def _gotten(specs: Variables, initial: Variables, scopes: Mapping[str, Any]) -> Variables:
    """The model's variables, with the values that Haiku holds."""
    groups: dict[str, dict[str, Any]] = {PARAMS: {}, STATE: {}}
    for name, spec in specs.variable_specs.items():
        value = scopes[_scope_of(name)].get(name, spec, initial[name])
        groups[PARAMS if spec.trainable else STATE][name] = value
    return given(specs, groups)


def _scopes(specs: Variables) -> dict[str, Any]:
    """The modules that stand for the scopes of a model, below the module that runs, which is the scope ""."""
    make = _scope_class()
    scopes: dict[str, Any] = {"": SimpleNamespace(get=_get, put=_put)}
    for name in specs:
        for scope in reversed(list(_and_above(_scope_of(name)))):
            if scope not in scopes:
                above, _, own = scope.rpartition("/")
                scopes[scope] = scopes[above](own) if above else make(own)
    return scopes


def _and_above(scope: str) -> Iterator[str]:
    """A scope and those around it, innermost first."""
    while scope:
        yield scope
        scope = _scope_of(scope)


def _scope_of(name: str) -> str:
    return name.rpartition("/")[0]

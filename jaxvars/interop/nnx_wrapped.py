"""A jaxvars model as a Flax NNX module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from jaxvars.interop._wrapping import as_model, given, specs_of
from jaxvars.interop.collections import PARAMS, STATE
from jaxvars.interop.nnx_values import named_state, value_of
from jaxvars.interop.trees import check_values
from jaxvars.transform import Model
from jaxvars.variables import Variables

if TYPE_CHECKING:
    from flax import nnx

__all__ = ["as_nnx"]


def as_nnx(model: Model | Callable[..., Any], rng: Any, *args: Any, **kwargs: Any) -> nnx.Module:
    """Return a jaxvars model as a Flax NNX module, with values.

    Trainable variables are ``nnx.Param``, the others an ``nnx.Variable`` of their own type; each is an attribute of the
    module of its scope: ``module.tower.fc.kernel`` is ``"tower/fc/kernel"``. A call sets the variables that the model
    assigns, as NNX modules do. `jv.next_rng_key` draws from what a call is given as ``rngs=``.

    Args:
      model: a model, or the function of one.
      rng: ``nnx.Rngs``, a key or an int seed, for ``model.init``; or `Variables`, whose values are taken as they are.
      *args: the model's arguments, of which shapes and dtypes count.
      **kwargs: the model's keyword arguments.

    Returns:
      The module. To take the values back: ``variables.replace(jv.interop.from_nnx(module))``.

    Raises:
      InvalidTypeError: neither a model nor a function.
      NotFoundError, InvalidArgumentError: `rng` is variables, and some are missing or differ; all are listed.
      What ``model.init`` raises.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import jaxvars as jv
      >>> module = jv.interop.as_nnx(lambda x: jv.layers.dense(x, 2, name="fc"), nnx.Rngs(0), jnp.ones([1, 3]))
      >>> module.fc.kernel.shape, module(jnp.ones([1, 3])).shape
      ((3, 2), (1, 2))
    """
    from flax import nnx

    model = as_model(model, "as_nnx")
    if isinstance(rng, Variables):
        specs = model.specs(*args, **kwargs)
        check_values(
            rng, {name: jax.ShapeDtypeStruct(hole.shape, hole.dtype) for name, hole in specs.items()}, "as_nnx"
        )
        variables = Variables.from_specs([(rng.variable_specs[name], rng[name]) for name in specs])
    else:
        variables = model.init(_key(rng), *args, **kwargs)
    module, scope, state = _classes()
    root = module(model)
    for name, spec in variables.variable_specs.items():
        _set(root, name, variables[name], nnx.Param if spec.trainable else state, scope)
    return root


def _set(module: Any, name: str, value: Any, kind: type, scope: type) -> None:
    """Set a variable as an attribute, below attributes that stand for its scopes."""
    *scopes, own = name.split("/")
    for each in scopes:
        if each not in vars(module):  # not hasattr(): a scope may have the name of a method
            setattr(module, each, scope())
        module = vars(module)[each]
    setattr(module, own, kind(value))


def _key(rng: Any) -> Any:
    """A key of ``nnx.Rngs``, of a stream of it, or what was given."""
    return rng() if callable(rng) else rng


@functools.cache
def _classes() -> tuple[Any, Any, Any]:
    from flax import nnx

    class ModelState(nnx.Variable[Any]):
        """A variable of a jaxvars model that is not trainable."""

    class Scope(nnx.Module):
        """The variables of a scope, as attributes."""

    class JaxvarsModule(nnx.Module):
        """What `as_nnx` returns."""

        def __init__(self, model: Model) -> None:
            self._jaxvars_model = model

        def __call__(self, *args: Any, rngs: Any = None, **kwargs: Any) -> Any:
            """Run the model; sets what it assigns."""
            model = self._jaxvars_model
            held = named_state(nnx.state(self))
            groups: dict[str, dict[str, Any]] = {PARAMS: {}, STATE: {}}
            for name, leaf in held.items():
                groups[PARAMS if isinstance(leaf, nnx.Param) else STATE][name] = value_of(leaf)
            variables = given(specs_of(model, args, kwargs), groups)
            out, after = model.apply(variables, *args, rng=_key(rngs), **kwargs)
            changed = [name for name in after if after[name] is not variables[name]]
            flat = [(tuple(name.split("/")), held[name].replace(after[name])) for name in changed]
            nnx.update(self, nnx.from_flat_state(flat))
            return out

    return JaxvarsModule, Scope, ModelState

"""A jaxvars model as a Flax Linen module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxvars.interop._wrapping import as_model, given, grouped, specs_of
from jaxvars.interop.collections import PARAMS, STATE, flat, nested
from jaxvars.transform import Model
from jaxvars.variables import Variables

if TYPE_CHECKING:
    import flax.linen

__all__ = ["as_linen"]


def as_linen(
    model: Model | Callable[..., Any], name: str | None = None, *, stream: str = "dropout"
) -> flax.linen.Module:
    """Return a jaxvars model as a Flax Linen module, to be used by itself or inside other modules.

    Its ``params`` are the trainable variables, nested by scope. The others are its collection ``state``, which it
    changes when ``mutable=["state"]`` is given, as BatchNorm does ``batch_stats``. ``module.init`` makes what
    ``model.init`` makes with the module's own key; values that exist go in by ``jv.interop.to_linen(variables)``.

    Args:
      model: a model, or the function of one.
      name: the name of the module inside another one.
      stream: the random stream of `jv.next_rng_key`: ``module.apply(..., rngs={"dropout": key})``.

    Returns:
      The module. To take the values back: ``variables.replace(jv.interop.from_linen(tree))``.

    Raises:
      InvalidTypeError: neither a model nor a function.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxvars as jv
      >>> module = jv.interop.as_linen(lambda x: jv.layers.dense(x, 2, name="fc"))
      >>> tree = module.init(jax.random.key(0), jnp.ones([1, 3]))
      >>> jax.tree.map(jnp.shape, tree)
      {'params': {'fc': {'bias': (2,), 'kernel': (3, 2)}}}
    """
    return _module_class()(as_model(model, "as_linen"), stream, name=name)


@functools.cache
def _module_class() -> Any:
    import flax.linen as nn

    class JaxvarsModule(nn.Module):
        """What `as_linen` returns."""

        model: Model
        stream: str

        @nn.compact
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            variables = self._initialized(args, kwargs) if self.is_initializing() else self._given(args, kwargs)
            rng = self.make_rng(self.stream) if self.has_rng(self.stream) else None
            out, after = self.model.apply(variables, *args, rng=rng, **kwargs)
            if not self.is_initializing():
                self._put(variables, after)
            return out

        def _initialized(self, args: Any, kwargs: Any) -> Variables:
            variables = self.model.init(self.make_rng("params"), *args, **kwargs)
            for top, value in _by_scope(variables, PARAMS):
                self.param(top, lambda _, value=value: value)
            for top, value in _by_scope(variables, STATE):
                self.variable(STATE, top, lambda value=value: value)
            return variables

        def _given(self, args: Any, kwargs: Any) -> Variables:
            groups = {
                group: flat(tree, "as_linen") for group, tree in self.variables.items() if group in (PARAMS, STATE)
            }
            return given(specs_of(self.model, args, kwargs), groups)

        def _put(self, before: Variables, after: Variables) -> None:
            for group, values in grouped(after).items():
                changed = {name.split("/")[0] for name, value in values.items() if value is not before[name]}
                for top, value in _by_scope(after, group):
                    if top in changed:
                        self.put_variable(group, top, value)

    return JaxvarsModule


def _by_scope(variables: Variables, group: str) -> Any:
    """The first part of names -> the nested dicts below, of one group."""
    return nested(grouped(variables).get(group, {}), "as_linen").items()

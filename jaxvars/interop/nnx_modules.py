"""Flax NNX modules inside a scope: their state is variables of the scope."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.core import Tracer

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.initializers._part import Part
from jaxvars.interop._calls import MAX_CALLS, looked_up
from jaxvars.interop._module_layer import ModuleLayer, plain_call
from jaxvars.interop._module_variables import GivenInit, ModuleInit, ModuleVariable
from jaxvars.interop.nnx_values import collection_name, flat_state, named_state, value_of, with_value
from jaxvars.spec import leaf_dtype, leaf_shape

if TYPE_CHECKING:
    from flax import nnx as flax_nnx

__all__ = ["NnxLayer", "nnx"]


def nnx(
    module: flax_nnx.Module | Callable[..., flax_nnx.Module],
    name: str | None = None,
    *,
    trainable: bool = True,
    training: bool | None = None,
) -> NnxLayer:
    """Return a Flax NNX module as a layer: inside a model it is called as the module is.

    Its state is variables under its paths, ``"scope/layers/0/kernel"``: those of type ``nnx.Param`` trainable, all
    others not, each in a collection of its type's name (``params``, ``batch_stats``, ``RngCount``, ...). What a call
    changes is assigned in place, inside ``jit``, ``scan`` and ``remat`` too. References that the module shares are one
    variable. Random streams of the module are state as well, so that dropout needs no other key. What a call sows
    (``nnx.Intermediate``) is dropped.

    Regularizers of the scope apply to the trainable variables, custom getters to everything, initializers to nothing.
    Sharding metadata is noted in the specs, for ``jv.placement.apply(specs, mesh)``.

    Args:
      module: a module, whose values are the initial ones; or a function of ``rngs`` that makes one, which is better
        inside a model: it is called with ``nnx.Rngs(key)``, the key being `module_key`, by one compiled program.
      name: the name of the scope; None for the class's name, made unique.
      trainable: whether optimizers touch the parameters.
      training: True calls the module's ``train()`` before each call, False its ``eval()``, None neither.

    Returns:
      The layer. A call takes the module's arguments, and ``method=``, the name of another method.

    Raises:
      InvalidTypeError: neither a module nor a function.
      Its calls raise what `jv.get_variable` and the module raise.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import jaxvars as jv
      >>> def net(x):
      ...     return jv.interop.nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs), "fc")(x)
      >>> list(jv.transform(net).init(0, jnp.ones([1, 3])))
      ['fc/bias', 'fc/kernel']
    """
    from flax import linen
    from flax import nnx as flax_nnx

    if isinstance(module, linen.Module) or (isinstance(module, type) and issubclass(module, linen.Module)):
        raise InvalidTypeError(
            f"jv.interop.nnx takes an nnx.Module, got {module!r:.60} of Flax Linen. Write: jv.interop.linen(module)"
        )
    if isinstance(module, flax_nnx.Module):
        return NnxLayer(module, name, trainable, type(module).__name__, training)
    if not callable(module):
        raise InvalidTypeError(
            f"jv.interop.nnx takes an nnx.Module or a function of rngs, got {module!r:.60}. Write: "
            "jv.interop.nnx(lambda rngs: Net(rngs=rngs))"
        )
    return NnxLayer(module, name, trainable, looked_up(_abstract, module).kind, training)


class NnxLayer(ModuleLayer):
    """What `nnx` returns."""

    def __init__(self, module: Any, name: str | None, trainable: bool, kind: str, training: bool | None) -> None:
        super().__init__(module, name, trainable, kind)
        self._training = training

    def __call__(self, *args: Any, method: str = "__call__", **kwargs: Any) -> Any:
        """Call the module on the variables of its scope; see `nnx`."""
        from flax import nnx as flax_nnx

        args, kwargs = plain_call(args, kwargs)
        with self._opened() as frame:
            described = self._described()
            values = self._values(frame, described.variables, described.init, (), {})
            before = {variable.path: value for variable, value in zip(described.variables, values, strict=True)}
            module = flax_nnx.merge(described.graphdef, with_value(described.state, before))
            if self._training is not None:
                module.train() if self._training else module.eval()
            out = getattr(module, method)(*args, **kwargs)
            self._assign(frame, before, self._changed(module, before))
            return out

    def _described(self) -> _Described:
        from flax import nnx as flax_nnx

        if not isinstance(self.module, flax_nnx.Module):
            return looked_up(_abstract, self.module)
        graphdef, state = flax_nnx.split(self.module)
        values = {name: value_of(leaf) for name, leaf in named_state(state).items()}
        return _of(type(self.module).__name__, graphdef, state, GivenInit(values), values)

    def _changed(self, module: Any, before: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """The (path, value) of all state after a call."""
        from flax import nnx as flax_nnx

        flax_nnx.pop(module, flax_nnx.Intermediate)
        after = named_state(flax_nnx.state(module))
        new = [name for name in after if name not in before]
        if new:
            raise InvalidArgumentError(
                f"{self.scope_name}: a call of {type(module).__name__} made state that the new module does not have: "
                f"{', '.join(new)}. A model's variables are the same in each call: make them in __init__."
            )
        return [(name, value_of(leaf)) for name, leaf in after.items()]


class _Described(NamedTuple):
    """What is known of a module without its values.

    Attributes:
      kind: the name of its class.
      graphdef: its structure.
      state: its state; a tree of ``nnx.Variable``, with any values.
      variables: of the state.
      init: what makes the values.
    """

    kind: str
    graphdef: Any
    state: Any
    variables: tuple[ModuleVariable, ...]
    init: Any


@dataclasses.dataclass(frozen=True)
class NnxInit(ModuleInit):
    """The making of a module: from a key to the values of its state, by path."""

    make: Callable[..., Any]

    def __call__(self, key: jax.Array) -> dict[str, Any]:
        from flax import nnx as flax_nnx

        state = flax_nnx.state(_made(self.make, key))
        return {name: value_of(leaf) for name, leaf in named_state(state).items()}

    def __repr__(self) -> str:
        return getattr(self.make, "__qualname__", repr(self.make))


def _made(make: Callable[..., Any], key: Any) -> Any:
    """The module, its values where JAX puts them: where variables live is said in the specs."""
    from flax import nnx as flax_nnx

    with flax_nnx.use_eager_sharding(False):  # else a module with sharding metadata needs a mesh to be made
        return make(flax_nnx.Rngs(key))


@functools.lru_cache(maxsize=MAX_CALLS)
def _abstract(make: Callable[..., Any]) -> _Described:
    """What is known of the module that a function makes; no value is computed."""
    from flax import nnx as flax_nnx

    module = flax_nnx.eval_shape(lambda: _made(make, 0))
    if not isinstance(module, flax_nnx.Module):
        raise InvalidTypeError(f"jv.interop.nnx: {make!r:.60} returned {type(module).__name__}, not an nnx.Module.")
    graphdef, state = flax_nnx.split(module)
    return _of(type(module).__name__, graphdef, state, NnxInit(make), {})


def _of(kind: str, graphdef: Any, state: Any, init: Any, values: Mapping[str, Any]) -> _Described:
    from flax import nnx as flax_nnx

    homes = {name: value_of(leaf) for name, leaf in flat_state(flax_nnx.get_partition_spec(state)).items()}
    variables: list[ModuleVariable] = []
    for name, leaf in named_state(state).items():
        value = value_of(leaf)
        home = homes.get(name)
        initializer: Any = values.get(name)
        if not isinstance(initializer, Tracer):  # a module that is made while the model is traced has no values yet
            placement = home if home is not None and any(axis is not None for axis in home) else None
            initializer = Part(init, name, initializer, placement)
        is_param = isinstance(leaf, flax_nnx.Param)
        variables.append(
            ModuleVariable(name, collection_name(leaf), leaf_shape(value), leaf_dtype(value), is_param, initializer)
        )
    return _Described(kind, graphdef, state, tuple(variables), init)

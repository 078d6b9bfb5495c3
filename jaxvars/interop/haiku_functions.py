"""Functions that Haiku transformed, inside a scope: their parameters and state are variables of the scope."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax

from jaxvars.errors import InvalidTypeError
from jaxvars.frame import Frame
from jaxvars.frames import HandFrame, SpecsFrame
from jaxvars.interop._calls import MAX_CALLS, AbstractCall, looked_up
from jaxvars.interop._module_layer import ModuleLayer, plain_call
from jaxvars.interop._module_variables import CallInit, ModuleVariable, module_variables
from jaxvars.interop._packages import require
from jaxvars.interop.collections import PARAMS, STATE, collection_leaves, own_path
from jaxvars.store import next_rng_key

if TYPE_CHECKING:
    import haiku as hk

__all__ = ["HaikuLayer", "haiku"]

Tree: TypeAlias = dict[str, dict[str, Any]]


def haiku(
    transformed: hk.Transformed | hk.TransformedWithState, name: str | None = None, *, trainable: bool = True
) -> HaikuLayer:
    """Return what ``hk.transform`` or ``hk.transform_with_state`` made as a layer, called as the function is.

    Parameters are trainable variables ``"scope/mlp/~/linear_0/w"``: the name of Haiku's module, kept as it is, and of
    the parameter. State is variables that are not trainable, in the collection ``"state"``, assigned in place where the
    function changes it. Calls of one object share the variables, as do those of one name in a scope that reuses.

    Initial values are those of ``transformed.init`` with the key `module_key`, made by one compiled program. A function
    that draws random numbers gets a fresh key of `jv.next_rng_key` in each call. Regularizers of the scope apply to the
    parameters, custom getters to everything, initializers of the scope to nothing.

    Args:
      transformed: a pair of functions ``(init, apply)``.
      name: the name of the scope; None for ``"haiku"``, made unique.
      trainable: whether optimizers touch the parameters.

    Raises:
      InvalidTypeError: not what Haiku's transforms return.
      Its calls raise what `jv.get_variable` and the function raise.

    Example:
      >>> import haiku as hk, jax.numpy as jnp
      >>> import jaxvars as jv
      >>> mlp = hk.transform(lambda x: hk.nets.MLP([4, 2])(x))
      >>> variables = jv.transform(lambda x: jv.interop.haiku(mlp, "net")(x)).init(0, jnp.ones([1, 3]))
      >>> list(variables)[:2]
      ['net/mlp/~/linear_0/b', 'net/mlp/~/linear_0/w']
    """
    hk = require("haiku", "jv.interop.haiku")
    if not isinstance(transformed, hk.Transformed | hk.TransformedWithState):
        raise InvalidTypeError(
            f"jv.interop.haiku takes what hk.transform returns, got {transformed!r:.60}. Write: "
            "jv.interop.haiku(hk.transform_with_state(fn))"
        )
    return HaikuLayer(transformed, name, trainable, "haiku")


class HaikuLayer(ModuleLayer):
    """What `haiku` returns."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on the variables of its scope; see `haiku`."""
        args, kwargs = plain_call(args, kwargs)
        with self._opened() as frame:
            init = HaikuInit(self.module, AbstractCall.of(args, kwargs))
            wanted = self._wanted(frame, init)
            values = self._values(frame, wanted, init, args, kwargs)
            key = next_rng_key() if looked_up(_draws, init, wanted) else None
            out, after = applied(self.module, *_trees(wanted, values), key, args, kwargs)
            before = {variable.path: value for variable, value in zip(wanted, values, strict=True)}
            paths = {_own_path(variable): variable.path for variable in wanted if variable.collection == STATE}
            changed = {f"{module}/{name}": value for module, branch in after.items() for name, value in branch.items()}
            self._assign(frame, before, [(paths[path], value) for path, value in changed.items()])
            return out

    def _wanted(self, frame: Frame, init: HaikuInit) -> Sequence[ModuleVariable]:
        """The variables of the function: those that are there, or else those of `init`.

        Haiku initializes many a function with other arguments than it is called with (``is_training=True``).
        """
        known = self._known(frame)
        if known and not isinstance(frame, SpecsFrame | HandFrame):
            return known
        try:
            return looked_up(_variables, init)
        except Exception:
            if known:
                return known
            raise


@dataclasses.dataclass(frozen=True)
class HaikuInit(CallInit):
    """``transformed.init`` for calls like one."""

    transformed: Any
    call: AbstractCall

    def tree(self, key: jax.Array, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the values as Haiku makes them, in one tree."""
        made = self.transformed.init(key, *args, **kwargs)
        params, state = made if _has_state(self.transformed) else (made, {})
        return {PARAMS: params, STATE: state}

    def __repr__(self) -> str:
        return "transformed.init"


def applied(transformed: Any, params: Any, state: Any, key: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Call a transformed function; returns its result and its state, ``{}`` where it has none."""
    if _has_state(transformed):
        return transformed.apply(params, state, key, *args, **kwargs)
    return transformed.apply(params, key, *args, **kwargs), {}


def _has_state(transformed: Any) -> bool:
    import haiku as hk

    return isinstance(transformed, hk.TransformedWithState)


@functools.lru_cache(maxsize=MAX_CALLS)
def _variables(init: HaikuInit) -> tuple[ModuleVariable, ...]:
    """What the function makes in calls like one."""
    return module_variables(collection_leaves(init.shapes()), init)


@functools.lru_cache(maxsize=MAX_CALLS)
def _draws(init: HaikuInit, variables: tuple[ModuleVariable, ...]) -> bool:
    """Whether the function cannot be called without a random key."""
    shapes = [jax.ShapeDtypeStruct(variable.shape, variable.dtype) for variable in variables]

    def call(args: Any, kwargs: Any) -> None:
        jax.eval_shape(lambda values: applied(init.transformed, *_trees(variables, values), None, args, kwargs), shapes)

    try:
        init.call.evaluated(call)
    except ValueError as error:
        if "PRNGKey" not in str(error):
            raise
        return True
    return False


def _trees(variables: Sequence[ModuleVariable], values: Sequence[Any]) -> tuple[Tree, Tree]:
    """The values as (params, state): module name -> parameter name -> value."""
    trees: dict[str, Tree] = {PARAMS: {}, STATE: {}}
    for variable, value in zip(variables, values, strict=True):
        module, _, name = _own_path(variable).rpartition("/")
        trees[variable.collection].setdefault(module, {})[name] = value
    return trees[PARAMS], trees[STATE]


def _own_path(variable: ModuleVariable) -> str:
    """The path of a variable as Haiku knows it."""
    return own_path(variable.path, variable.collection)

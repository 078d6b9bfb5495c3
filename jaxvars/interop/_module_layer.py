"""`ModuleLayer`: a module of another library inside a scope; its state is variables of the scope."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars._keys import as_key, variable_key
from jaxvars.errors import InvalidArgumentError
from jaxvars.frame import Frame, current_frame, trace_key
from jaxvars.frames import HandFrame
from jaxvars.initializers._part import Part
from jaxvars.layers.base import Layer, snake_case
from jaxvars.regularizers import no_regularizer
from jaxvars.scopes import AUTO_REUSE, GraphKeys, VariableScope, variable_scope
from jaxvars.spec import Hole
from jaxvars.store import get_variable
from jaxvars.variable import Variable

__all__ = ["ModuleLayer", "ModuleVariable", "module_key", "plain_call"]


def module_key(rng: Any, scope: str) -> jax.Array:
    """Return the random key with which a module of another library, used in a scope, is initialized.

    The values do not depend on what else the model has: ``model.init(rng, ...)`` gives the module's variables the
    values of the library's own ``init`` with this key.

    Args:
      rng: a key or an int seed, as `model.init` gets it.
      scope: the full name of the module's scope, such as ``"encoder/dense"``.

    Raises:
      InvalidArgumentError: `rng` is no key.

    Example:
      >>> import flax.linen as nn, jax.numpy as jnp
      >>> import jaxvars as jv
      >>> x = jnp.ones([1, 2])
      >>> variables = jv.transform(lambda x: jv.interop.linen(nn.Dense(3), "fc")(x)).init(0, x)
      >>> own = nn.Dense(3).init(jv.interop.module_key(0, "fc"), x)
      >>> bool((variables["fc/kernel"] == own["params"]["kernel"]).all())
      True
    """
    return variable_key(as_key(rng), scope)


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


class ModuleLayer(Layer):
    """The base class of modules in a scope: gets their variables, and assigns what a call has changed.

    The scope is the one of that name, taken as it is, so that `reuse` of the scopes around it decides whether a second
    module of the same name shares the variables. Without a name it is that of the class, made unique. Later calls of
    one object share the variables of the first, and make those that only they need, as a module with several methods
    has them.

    Args:
      module: the module.
      name: the name of the scope, or None.
      trainable: whether optimizers touch the module's parameters.
      kind: the name of the class, where there is no `name`.
    """

    def __init__(self, module: Any, name: str | None, trainable: bool, kind: str) -> None:
        super().__init__(trainable, name, _scope=name)
        self.module = module
        self._class_name = snake_case(kind)

    @property
    def _base_name(self) -> str:
        return self._given_name or self._class_name

    def __repr__(self) -> str:
        return f"<jaxvars module layer {self._base_name!r} of {type(self.module).__name__}>"

    @contextmanager
    def _opened(self) -> Generator[Frame, None, None]:
        """Open the scope for one call."""
        frame = current_frame(f"jv.interop ({self._base_name})")
        with self._entered(frame, None):
            try:
                yield frame
            finally:
                self._places[frame].let_go(frame)

    @contextmanager
    def _entered(self, frame: Frame, scope: str | VariableScope | None) -> Generator[bool, None, None]:
        place = self._places.get(frame)
        if place is None:
            with super()._entered(frame, scope) as is_first:
                yield is_first
            return
        reuse = place.scope.reuse or AUTO_REUSE
        with variable_scope(place.scope, reuse=reuse, auxiliary_name_scope=False):
            yield False

    def _values(self, frame: Frame, wanted: Sequence[ModuleVariable]) -> list[Any]:
        """Make or share the variables, in the scope that is open, and return their values."""
        scope = self._places[frame].scope.name
        made = _made_together(frame, scope, wanted)
        return [self._value(frame, variable, made.get(variable.path, variable.initializer)) for variable in wanted]

    def _value(self, frame: Frame, wanted: ModuleVariable, initializer: Any) -> Any:
        variable = get_variable(
            wanted.path,
            wanted.shape if callable(initializer) else None,
            wanted.dtype,
            initializer,
            regularizer=None if wanted.trainable else no_regularizer,
            trainable=wanted.trainable and self.trainable,
            collections=[GraphKeys.GLOBAL_VARIABLES, wanted.collection],
        )
        place = self._places[frame]
        if isinstance(variable, Variable):
            place.keys[wanted.path] = variable.key
            return variable.value
        place.made[wanted.path] = variable
        return jnp.asarray(variable)

    def _assign(self, frame: Frame, before: Mapping[str, Any], after: Iterable[tuple[str, Any]]) -> None:
        """Assign the variables that a call has changed: those with another value than `before`, by path."""
        place = self._places[frame]
        for path, value in after:
            if value is before[path]:
                continue
            if path not in place.keys:
                raise InvalidArgumentError(
                    f"{place.scope.name}/{path} is written by the module, and a custom getter or a partitioner of the "
                    "scope has put something else in its place. Open the module's scope without it."
                )
            frame.slots[place.keys[path]].handle.assign(value)


def _made_together(frame: Frame, scope: str, wanted: Sequence[ModuleVariable]) -> dict[str, Any]:
    """In a store kept by hand, which fills each variable as it is made: the missing ones, made in one go."""
    if not isinstance(frame, HandFrame) or frame.rng is None:
        return {}
    missing = [
        variable
        for variable in wanted
        if isinstance(variable.initializer, Part)
        and (key := f"{scope}/{variable.path}") not in frame.slots
        and not frame.holds(key)
    ]
    if not missing:
        return {}
    holes = {
        f"{scope}/{variable.path}": Hole(variable.shape, variable.dtype, initializer=variable.initializer)
        for variable in missing
    }
    from jaxvars.filling import fill  # as the frames do

    with frame.at_frame_level(), trace_key(None):
        values = fill(holes, frame.rng)
    return {
        variable.path: Part(variable.initializer.make, variable.path, value)
        for variable, value in zip(missing, values.values(), strict=True)
    }


def plain_call(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments of a call with the values of handles in their place."""
    return jax.tree.map(lambda leaf: leaf, (args, kwargs))

"""`ModuleLayer`: a module of another library inside a scope; its state is variables of the scope."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars._keys import as_key, variable_key
from jaxvars.defining import DefiningFrame
from jaxvars.errors import InvalidArgumentError
from jaxvars.frame import Frame, current_frame, trace_key
from jaxvars.frames import HandFrame, SpecsFrame
from jaxvars.initializers._part import Part
from jaxvars.interop._module_variables import ModuleInit, ModuleVariable
from jaxvars.interop.collections import PARAMS, STATE
from jaxvars.layers.base import Layer, snake_case
from jaxvars.regularizers import no_regularizer
from jaxvars.scopes import AUTO_REUSE, GraphKeys, VariableScope, variable_scope
from jaxvars.spec import Hole
from jaxvars.store import get_variable
from jaxvars.variable import Variable

__all__ = ["ModuleLayer", "module_key", "plain_call"]


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
        frame = current_frame(f"the module {self._base_name!r} of jv.interop")
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

    def _values(
        self, frame: Frame, wanted: Sequence[ModuleVariable], init: ModuleInit, args: Any, kwargs: Any
    ) -> list[Any]:
        """Make or share the variables, in the scope that is open, and return their values."""
        made = self._made(frame, wanted, init, args, kwargs)
        return [self._value(frame, variable, made.get(variable.path, variable.initializer)) for variable in wanted]

    def _made(
        self, frame: Frame, wanted: Sequence[ModuleVariable], init: ModuleInit, args: Any, kwargs: Any
    ) -> dict[str, Any]:
        """The initial values, or what makes them, of new variables for which ``wanted.initializer`` will not do.

        That serves where all are made at once, after the model has run. A store kept by hand makes its variables one by
        one, and of some modules the values depend on the arguments: then they are computed here.
        """
        scope = self._places[frame].scope.name
        missing = _missing(frame, scope, wanted)
        if not missing or frame.rng is None or not isinstance(frame, SpecsFrame | HandFrame):
            return {}
        if init.depends:
            values = init.values(module_key(frame.rng, scope), args, kwargs)
        elif isinstance(frame, HandFrame):
            values = _filled(frame, scope, missing)
        else:
            return {}
        by_hand = isinstance(frame, HandFrame)
        return {v.path: Part(init, v.path, values[v.path]) if by_hand else values[v.path] for v in missing}

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

    def _known(self, frame: Frame) -> list[ModuleVariable]:
        """The variables of the module that were made already in this frame, or given to it."""
        prefix = f"{self._places[frame].scope.name}/"
        given: Any = getattr(frame, "given", None)
        specs: dict[str, Any] = dict(given.variable_specs) if given is not None else {}
        specs |= {slot.key: slot for slot in frame.slots.values()}
        return [
            ModuleVariable(name.removeprefix(prefix), theirs[0], spec.shape, spec.dtype, spec.trainable, None)
            for name, spec in sorted(specs.items())
            if name.startswith(prefix) and (theirs := [c for c in spec.collections if c in (PARAMS, STATE)])
        ]

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


def _missing(frame: Frame, scope: str, wanted: Sequence[ModuleVariable]) -> list[ModuleVariable]:
    """Those that neither were made in this frame nor given to it."""
    names = {variable.path: f"{scope}/{variable.path}" for variable in wanted}
    return [
        variable
        for variable in wanted
        if isinstance(frame, DefiningFrame)
        and names[variable.path] not in frame.slots
        and not frame.holds(names[variable.path])
    ]


def _filled(frame: HandFrame, scope: str, variables: Sequence[ModuleVariable]) -> dict[str, Any]:
    """The values of new variables, made in one go."""
    holes = {f"{scope}/{v.path}": Hole(v.shape, v.dtype, initializer=v.initializer) for v in variables}
    from jaxvars.filling import fill  # here, as in the frames

    with frame.at_frame_level(), trace_key(None):  # what is compiled is shared with all other frames
        values = fill(holes, frame.rng)
    return dict(zip((v.path for v in variables), values.values(), strict=True))


def plain_call(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments of a call with the values of handles in their place."""
    return jax.tree.map(lambda leaf: leaf, (args, kwargs))

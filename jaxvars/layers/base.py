"""`Layer`: an object with variables of its own, which all its calls share (`tf.layers.Layer`)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp

from jaxvars import _compat
from jaxvars._source import class_name
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError
from jaxvars.frame import Frame, current_frame
from jaxvars.regularizers import sum_regularizer
from jaxvars.scopes import GraphKeys, VariableScope, get_variable_scope, name_scope, variable_scope
from jaxvars.store import get_collection, get_variable
from jaxvars.variable import Variable

__all__ = ["Function", "Layer", "WeightRules", "snake_case"]

Function = Callable[[Any], Any]


class WeightRules(NamedTuple):
    """How one variable of a layer is made, and what it costs."""

    initializer: Any = None
    regularizer: Function | None = None
    constraint: Function | None = None


class _Place(NamedTuple):
    """Where a layer's variables are in one frame: the scope of its first call, and names -> keys.

    `made` holds by name what a custom getter returned in place of a handle: a cast, an average, a stopped gradient.
    """

    scope: VariableScope
    keys: dict[str, str]
    made: dict[str, Any]

    def let_go(self, frame: Frame) -> None:
        """Keep nothing that a getter made inside a transform, which ends before the frame does."""
        self.made.update({name: _GONE for name, value in self.made.items() if _compat.is_leaked(value, frame.trace)})


_GONE = object()


class Layer:
    """An object with variables of its own (`tf.layers.Layer`): the base class of all layers, and of your own.

    The first call makes the variables, in a scope of the layer's name: ``dense``, ``dense_1``, ... within the scope
    that is open then. Every later call shares them, wherever it is. A layer may be made outside of the model; each
    run of the model is a first call of its own.

    A subclass makes its variables in `build` and computes in `call`:

    Args:
      trainable: whether optimizers touch the variables.
      name: the name of the scope, made unique: ``d``, ``d_1``, ... None for the name of the class.
      dtype: of the variables; None for the dtype of the first input.
      _scope: the scope itself, taken as it is, as in TF1.
      _reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them, as in TF1.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> class Scale(jv.layers.Layer):
      ...     def build(self, input_shape):
      ...         self.factor = self.add_weight("factor", input_shape[-1:], initializer=jv.ones_initializer())
      ...     def call(self, inputs):
      ...         return inputs * self.factor
      >>> def net(x):
      ...     scale = Scale()
      ...     return scale(scale(x))
      >>> variables = jv.transform(net).init(0, jnp.ones([3]))
      >>> list(variables)
      ['scale/factor']
    """

    #: Layers without variables compute outside of a model too.
    _has_variables = True

    def __init__(
        self,
        trainable: bool = True,
        name: str | None = None,
        dtype: Any = None,
        *,
        _scope: str | VariableScope | None = None,
        _reuse: Any = None,
    ) -> None:
        self.trainable = trainable
        self.dtype = dtype
        self._given_name = name
        self._scope = _scope
        self._reuse = _reuse
        self._places: WeakKeyDictionary[Frame, _Place] = WeakKeyDictionary()
        self._built_in: ref[Frame] | None = None
        self._input_dtype: Any = None

    def build(self, input_shape: Any) -> None:
        """Make the variables, with `add_weight`. Runs inside the layer's scope, once in each run of the model."""

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the output. Runs inside the layer's scope."""
        return inputs

    def check(self, inputs: Any) -> Any:
        """Return the inputs as arrays; refuse what does not fit before anything is made."""
        return inputs

    def __call__(self, inputs: Any, *args: Any, scope: str | VariableScope | None = None, **kwargs: Any) -> Any:
        """Make the variables at the first call, share them at the next, and compute.

        Args:
          inputs: an array, or a list or dict of arrays.
          *args: further arguments of `call`.
          scope: the scope of the first call, in place of the layer's name.
          **kwargs: likewise.

        Returns:
          What `call` returns.

        Raises:
          FailedPreconditionError: outside of a frame, for a layer with variables.
          InvalidArgumentError: what `get_variable` refuses.
        """
        inputs = self.check(inputs)
        if not self._has_variables:
            return self.call(inputs, *args, **kwargs)
        frame = current_frame(class_name(self))
        with self._entered(frame, scope) as is_first:
            # What a getter made belongs to the trace that it was made in: each call asks the getter again.
            stale = self._built_in is None or self._built_in() is not frame or self._places[frame].made
            if is_first or stale:
                leaves = jax.tree.leaves(inputs)
                self._input_dtype = jnp.result_type(leaves[0]) if leaves else None
                self._built_in = ref(frame)
                self.build(jax.tree.map(jnp.shape, inputs))
            try:
                return self.call(inputs, *args, **kwargs)
            finally:
                self._places[frame].let_go(frame)

    def apply(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layer: TF1's other spelling."""
        return self(inputs, *args, **kwargs)

    @contextmanager
    def _entered(self, frame: Frame, scope: str | VariableScope | None) -> Generator[bool, None, None]:
        """Open the layer's scope; yields whether this is the first call in the frame."""
        place = self._places.get(frame)
        if place is not None:
            with (
                variable_scope(place.scope, reuse=True, auxiliary_name_scope=False) as entered,
                name_scope(entered.original_name_scope),
            ):
                yield False
            return
        target = self._scope if scope is None else scope
        # With reuse and without a name it is the plain default name, as in TF1: ``dense`` finds ``dense``.
        if target is None and self._reuse:
            target = self._base_name
        with variable_scope(target, default_name=self._base_name, reuse=self._reuse) as entered:
            self._places[frame] = _Place(entered, {}, {})
            try:
                yield True
            except BaseException:
                # A first call that failed fixed nothing.
                del self._places[frame]
                raise

    # Variables

    def add_weight(
        self,
        name: str,
        shape: Any = None,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Function | None = None,
        trainable: bool = True,
        constraint: Function | None = None,
        partitioner: Any = None,
        collections: Sequence[str] | None = None,
    ) -> Any:
        """Make or share a variable of the layer: for `build` and `call`.

        Args:
          name: its name in the layer's scope.
          shape: as in `jv.get_variable`, as what follows.
          dtype: by default the layer's, else that of the first input.
          initializer: None for the scope's.
          regularizer: added to the one that the scope gives to each of its variables, as in TF1.
          trainable: whether optimizers touch it; never for a layer that is not trainable.
          constraint: ``value -> value``, applied by optimizers after each update.
          partitioner: None for the scope's.
          collections: those that it joins; None for the usual.

        Returns:
          The handle.

        Raises:
          FailedPreconditionError: not called from `build` or `call`.
          As `jv.get_variable`.
        """
        place = self._places.get(current_frame(f"{class_name(self)}.add_weight"))
        if place is None:
            raise FailedPreconditionError(
                f"{type(self).__name__}.add_weight is called in build or call, where the scope of the layer is known. "
                f"Move it: def build(self, input_shape): self.w = self.add_weight({name!r}, ...)"
            )
        inherited = get_variable_scope().regularizer
        if regularizer is not None and inherited is not None:
            regularizer = sum_regularizer([inherited, regularizer])
        variable = get_variable(
            name,
            shape,
            dtype or self.dtype or self._input_dtype,
            initializer=initializer,
            regularizer=regularizer,
            trainable=trainable and self.trainable,
            constraint=constraint,
            partitioner=partitioner,
            collections=collections,
        )
        if isinstance(variable, Variable):
            place.keys[name] = variable.key  # not the handle, which would keep the frame alive
        else:
            place.made[name] = variable
        return variable

    add_variable = add_weight

    def _add(self, name: str, shape: tuple[int, ...], rules: WeightRules, dtype: Any = None) -> Any:
        """Make or share a variable by its rules."""
        initializer, regularizer, constraint = rules
        return self.add_weight(name, shape, dtype, initializer, regularizer, constraint=constraint)

    def _weight(self, name: str) -> Any:
        """The handle of one variable, of the frame that is open."""
        frame = current_frame(f"{class_name(self)}.{name}")
        place = self._places.get(frame)
        if place is not None and place.made.get(name, _GONE) is not _GONE:
            return place.made[name]
        if place is None or name not in place.keys:
            raise FailedPreconditionError(
                f"The layer {self.name!r} has no {name} yet: its variables are made by its first call in this run of "
                f"the model. Call the layer first, then read layer.{name}."
            )
        return frame.slots[place.keys[name]].handle

    # What the layer is and has

    @property
    def _kind(self) -> str:
        """The name of the class as TF1 writes names."""
        return snake_case(type(self).__name__)

    @property
    def _base_name(self) -> str:
        return self._given_name or self._kind

    @property
    def name(self) -> str:
        """The name that was given; else that of the scope after the first call, and before it of the class."""
        if self._given_name:
            return self._given_name
        frame = self._built_in() if self._built_in is not None else None
        place = self._places.get(frame) if frame is not None else None
        return self._base_name if place is None else place.scope.name.rpartition("/")[2]

    @property
    def scope_name(self) -> str:
        """The full name of the layer's scope, after the first call."""
        place = self._places.get(current_frame(f"{class_name(self)}.scope_name"))
        if place is None:
            raise InvalidArgumentError(
                f'No name available for layer scope because the layer "{self.name}" has not been used yet. The scope '
                "name is determined the first time the layer instance is called: call the layer first."
            )
        return place.scope.name

    @property
    def built(self) -> bool:
        """Whether the layer was called in this frame."""
        return current_frame(f"{class_name(self)}.built") in self._places

    @built.setter
    def built(self, value: bool) -> None:
        """Accepted, since TF1's subclasses set it in `build`; a layer knows by itself."""

    @property
    def variables(self) -> list[Any]:
        """The handles of the layer's variables in this frame, trainable ones first; [] before the first call."""
        return [*self.trainable_variables, *self.non_trainable_variables]

    @property
    def trainable_variables(self) -> list[Any]:
        """Those that optimizers touch."""
        return [variable for variable in self._handles() if variable.trainable]

    @property
    def non_trainable_variables(self) -> list[Any]:
        """Those that they do not."""
        return [variable for variable in self._handles() if not variable.trainable]

    weights = variables
    trainable_weights = trainable_variables
    non_trainable_weights = non_trainable_variables

    def _handles(self) -> list[Any]:
        frame = current_frame(f"{class_name(self)}.variables")
        place = self._places.get(frame)
        return [] if place is None else [frame.slots[key].handle for key in place.keys.values()]

    @property
    def losses(self) -> list[Any]:
        """The regularization losses of the layer's variables."""
        return get_collection(GraphKeys.REGULARIZATION_LOSSES, re.escape(self.scope_name + "/"))

    @property
    def updates(self) -> list[Any]:
        """[]: moving averages are assigned where they are computed."""
        return []

    def count_params(self) -> int:
        """Return how many numbers the layer's variables hold."""
        return sum(math.prod(variable.shape) for variable in self._handles())


def snake_case(name: str) -> str:
    """Return the name of a class as TF1 writes names: ``SeparableConv2D`` is ``separable_conv2d``."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    return f"private{snake}" if snake.startswith("_") else snake

"""`RNNCell`: one step of a recurrent network, with TF1's rules for where its variables live."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp

from jaxvars._source import class_name
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.frame import Frame, current_frame
from jaxvars.regularizers import sum_regularizer
from jaxvars.scopes import NameGraph, VariableScope, get_variable_scope, name_scope, variable_scope
from jaxvars.store import get_variable
from jaxvars.variable import Variable

__all__ = ["Function", "RNNCell", "check_cell", "dims"]

Function = Callable[..., Any]


class _Place(NamedTuple):
    """Where a cell's variables are in one frame: fixed by its first call there."""

    scope: VariableScope
    outer: VariableScope | None


class RNNCell:
    """One step of a recurrent network (``tf.nn.rnn_cell.RNNCell``); the base class of your own cells.

    A subclass gives `state_size`, `output_size` and ``call(inputs, state)``, which returns ``(output,
    new_state)`` and makes its variables with `jv.get_variable`. The first call of a cell in a frame opens a
    scope of the cell's name, made unique, and later calls of the same object share those variables, wherever
    they are. Two cells of one name in one scope, as a rule, are refused as in TF1: pass ``reuse=True``, or call
    them in scopes of their own.

    A cell may be made outside of the model and used in many frames: in each it starts anew.

    Args:
      trainable: whether optimizers touch the variables that `add_weight` makes.
      name: the scope's name; by default the class's, ``MyCell`` as ``my_cell``.
      dtype: of the variables that `add_weight` makes; by default the inputs'.
      _reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> class Decay(jv.nn.rnn_cell.RNNCell):
      ...     state_size = output_size = 3
      ...     def call(self, inputs, state):
      ...         rate = jv.get_variable("rate", [3], initializer=jv.ones_initializer())
      ...         state = inputs + state * jnp.reshape(rate, [1, 3])
      ...         return state, state
      >>> model = jv.transform(lambda x: jv.nn.dynamic_rnn(Decay(), x, dtype="float32")[0])
      >>> x = jnp.ones([2, 5, 3])
      >>> variables = model.init(0, x)
      >>> list(variables), model(variables, x).shape
      (['rnn/decay/rate'], (2, 5, 3))
    """

    # Of the class, so that a subclass need not call super().__init__().
    trainable: bool = True
    _given_name: str | None = None
    _dtype: Any = None
    _reuse: Any = None
    _input_dtype: Any = None
    # The frame that what `build` left behind belongs to: one inside another may come between two calls.
    _built_in: weakref.ref[NameGraph] | None = None
    # Where a call enters: own cells of users, unlike TF1's own, first re-enter the surrounding scope.
    _enters_surroundings = True

    def __init__(
        self, trainable: bool = True, name: str | None = None, dtype: Any = None, *, _reuse: Any = None
    ) -> None:
        self.trainable = trainable
        self._given_name = name
        self._dtype = dtype
        self._reuse = _reuse

    # What subclasses give

    @property
    def state_size(self) -> Any:
        """The sizes of the state: an int, or a structure (tuple, `LSTMStateTuple`, dict) of ints.

        A `jax.ShapeDtypeStruct` stands for a state of higher rank: its shape is that of one example.
        """
        raise InvalidTypeError(_incomplete(self, "state_size"))

    @property
    def output_size(self) -> Any:
        """The sizes of the output, likewise."""
        raise InvalidTypeError(_incomplete(self, "output_size"))

    def build(self, input_shape: Any) -> None:
        """Prepare the first call in a frame; a subclass may make its variables here with `add_weight`.

        Args:
          input_shape: the shape of the inputs.
        """

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """Compute ``(output, new_state)``; each subclass has its own."""
        raise InvalidTypeError(_incomplete(self, "call(inputs, state)"))

    # Calling

    def __call__(self, inputs: Any, state: Any, scope: str | VariableScope | None = None) -> tuple[Any, Any]:
        """Run one step.

        Args:
          inputs: ``[batch, depth]``, or a structure of such.
          state: arrays ``[batch, size]`` in the structure of `state_size`.
          scope: the scope of the variables in place of the cell's name. Only the first call decides.

        Returns:
          ``(output, new_state)``.

        Raises:
          FailedPreconditionError: outside of a frame.
          InvalidArgumentError: what `get_variable` refuses.
        """
        frame = current_frame(class_name(self))
        if not self._enters_surroundings:
            return self._step(frame, inputs, state, scope, None)
        place = self._places.get(frame.graph)
        outer = place.outer if place and place.outer else get_variable_scope()
        with variable_scope(outer if scope is None else scope, custom_getter=self._noting_getter) as entered:
            if scope is not None:
                return self._step(frame, inputs, state, entered, None)
            return self._step(frame, inputs, state, None, outer)

    def _step(
        self, frame: Frame, inputs: Any, state: Any, scope: str | VariableScope | None, outer: VariableScope | None
    ) -> tuple[Any, Any]:
        place = self._places.get(frame.graph)
        own = place.scope if place else self._open(scope)
        reuse = True if place else self._reuse
        leaves = jax.tree.leaves(inputs)
        self._input_dtype = jnp.result_type(leaves[0]) if leaves else None
        with (
            variable_scope(own, reuse=reuse, auxiliary_name_scope=False) as entered,
            name_scope(entered.original_name_scope),
        ):
            if self._built_in is None or self._built_in() is not frame.graph:
                self.build(jax.tree.map(jnp.shape, inputs))
                self._built_in = weakref.ref(frame.graph)
            keywords = {"scope": entered} if "scope" in inspect.signature(self.call).parameters else {}
            result = self.call(inputs, state, **keywords)
        # Only now: a first call that raised has fixed nothing.
        self._places.setdefault(frame.graph, _Place(own, outer))
        return result

    def _open(self, scope: str | VariableScope | None) -> VariableScope:
        """Find the scope of the variables: the given one, or the cell's name, made unique unless it shares."""
        name = self.name
        with variable_scope(scope or name if self._reuse else scope, default_name=name) as opened:
            return opened

    @property
    def _places(self) -> WeakKeyDictionary[NameGraph, _Place]:
        return self.__dict__.setdefault("_places_by_graph", WeakKeyDictionary())

    # Variables

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Function | None = None,
        trainable: bool = True,
        constraint: Function | None = None,
        partitioner: Any = None,
    ) -> Variable:
        """Make or share a variable of the cell; for `build` and `call`.

        Args:
          name: the name in the cell's scope.
          shape: a sequence of ints.
          dtype: by default the cell's, which is by default that of the inputs.
          initializer: None for the scope's.
          regularizer: ``value -> loss``, added to the scope's own.
          trainable: whether optimizers touch it, if the cell is trainable.
          constraint: ``value -> value``, applied by optimizers after each update.
          partitioner: None for the scope's.

        Returns:
          The handle.
        """
        inherited = get_variable_scope().regularizer
        if regularizer is not None and inherited is not None:
            regularizer = sum_regularizer([inherited, regularizer])
        variable = get_variable(
            name,
            tuple(shape),
            dtype or self._dtype or self._input_dtype or "float32",
            initializer=initializer,
            regularizer=regularizer,
            trainable=trainable and self.trainable,
            constraint=constraint,
            partitioner=partitioner,
        )
        self._note(variable)
        return variable

    add_variable = add_weight

    def _note(self, variable: Any) -> None:
        # Names, not handles: a handle keeps its frame alive.
        if isinstance(variable, Variable):
            keys = self.__dict__.setdefault("_keys_by_graph", WeakKeyDictionary())
            keys.setdefault(current_frame().graph, {})[variable.key] = None

    def _noting_getter(self, getter: Function, *args: Any, **kwargs: Any) -> Any:
        variable = getter(*args, **kwargs)
        self._note(variable)
        return variable

    @property
    def variables(self) -> list[Variable]:
        """The variables that the cell made or shared in this frame, as handles; [] before its first call."""
        frame = current_frame(f"{class_name(self)}.variables")
        return [frame.slots[key].handle for key in self.__dict__.get("_keys_by_graph", {}).get(frame.graph, ())]

    @property
    def weights(self) -> list[Variable]:
        """The same as `variables`."""
        return self.variables

    @property
    def trainable_variables(self) -> list[Variable]:
        """Those of `variables` that are trainable."""
        return [variable for variable in self.variables if variable.trainable]

    @property
    def trainable_weights(self) -> list[Variable]:
        """The same as `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """Those of `variables` that are not trainable."""
        return [variable for variable in self.variables if not variable.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The same as `non_trainable_variables`."""
        return self.non_trainable_variables

    # Names

    @property
    def name(self) -> str:
        """The name that the cell's scope is asked to have: given, or made from the class's."""
        return self._given_name or _snake_case(type(self).__name__)

    @property
    def scope_name(self) -> str:
        """The full name of the scope of the variables, known after the first call in this frame."""
        place = self._places.get(current_frame(f"{class_name(self)}.scope_name").graph)
        if place is None:
            raise InvalidArgumentError(
                f"No name available for layer scope because the layer {self.name!r} has not been used yet: its first "
                "call decides."
            )
        return place.scope.name

    # States

    def zero_state(self, batch_size: int, dtype: Any) -> Any:
        """Return a state of zeros.

        Args:
          batch_size: the number of examples.
          dtype: of the state.

        Returns:
          Arrays ``[batch_size, size]`` in the structure of `state_size`.

        Example:
          >>> import jaxvars as jv
          >>> state = jv.nn.rnn_cell.BasicLSTMCell(3).zero_state(2, "float32")
          >>> state.h.shape
          (2, 3)
        """
        return jax.tree.map(lambda size: jnp.zeros((int(batch_size), *dims(size)), dtype), self.state_size)

    def get_initial_state(self, inputs: Any = None, batch_size: int | None = None, dtype: Any = None) -> Any:
        """Return the state to start from: zeros, for the batch and dtype of `inputs`, or as given.

        Args:
          inputs: ``[batch, ...]``, or None.
          batch_size: given without `inputs`.
          dtype: likewise.

        Raises:
          InvalidArgumentError: neither is given, or both and they differ.
        """
        if inputs is not None:
            x = jnp.asarray(inputs)
            if batch_size is not None and batch_size != x.shape[0]:
                raise InvalidArgumentError(
                    "batch size from input tensor is different from the input param. Input tensor batch: "
                    f"{x.shape[0]}, batch_size: {batch_size}"
                )
            if dtype is not None and jnp.dtype(dtype) != x.dtype:
                raise InvalidArgumentError(
                    f"dtype from input tensor is different from the input param. Input tensor dtype: {x.dtype}, "
                    f"dtype: {dtype}"
                )
            batch_size, dtype = x.shape[0], x.dtype
        if batch_size is None or dtype is None:
            raise InvalidArgumentError(
                "batch_size and dtype cannot be None while constructing initial state: "
                f"batch_size={batch_size}, dtype={dtype}"
            )
        return self.zero_state(batch_size, dtype)


def check_cell(argument: str, cell: Any) -> None:
    """Raise unless `cell` has what an `RNNCell` has, as TF1 checks it.

    Raises:
      InvalidTypeError: says all that is missing.
    """
    missing = [f"'{name}' property is missing" for name in ("output_size", "state_size") if not hasattr(cell, name)]
    if not hasattr(cell, "zero_state") and not hasattr(cell, "get_initial_state"):
        missing.append("either 'zero_state' or 'get_initial_state' method is required")
    if not callable(cell):
        missing.append("is not callable")
    if missing or isinstance(cell, type):
        raise InvalidTypeError(
            f"The argument {argument!r} ({cell!r:.80}) is not an RNNCell: {', '.join(missing) or 'it is a class'}. "
            "Write for example: jv.nn.rnn_cell.LSTMCell(128)"
        )


def dims(size: Any) -> tuple[int, ...]:
    """The shape of one example's state or output, from an entry of `state_size` or `output_size`."""
    return tuple(size.shape) if isinstance(size, jax.ShapeDtypeStruct) else (int(size),)


def _snake_case(name: str) -> str:
    """TF1's default scope of a class: ``BasicLSTMCell`` is ``basic_lstm_cell``."""
    words = re.sub(r"(.)([A-Z][a-z][a-z0-9]+)", r"\1_\2", name)
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    return "private" + snake if snake.startswith("_") else snake


def _incomplete(cell: RNNCell, what: str) -> str:
    return (
        f"Abstract method: {type(cell).__name__} has no {what}. A cell has state_size, output_size and "
        "call(self, inputs, state), which returns (output, new_state)."
    )

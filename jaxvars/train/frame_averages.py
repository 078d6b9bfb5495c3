"""What `ExponentialMovingAverage` does inside a model: TF1's way, with shadows made at the first `apply`.

Which shadow belongs to what is kept among the frame's collections: it ends with the frame, and goes back with the other
names when JAX runs a body again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxvars._arguments import value_as_array
from jaxvars.buffers import is_concrete
from jaxvars.defining import DefiningFrame
from jaxvars.errors import InvalidTypeError, NotFoundError, nearest_names
from jaxvars.frame import Frame, current_frame
from jaxvars.frames import SpecsFrame
from jaxvars.initializers import zeros_initializer
from jaxvars.scopes import GraphKeys, device, name_scope
from jaxvars.spec import is_hole
from jaxvars.store import get_collection, global_variables, trainable_variables
from jaxvars.train.averaging import all_or_nothing, is_averaged_dtype, make_debias, make_shadow, update
from jaxvars.variable import Variable

__all__ = ["FrameAverages"]

_TENSOR = "tensor"  # JAX's arrays have no names


class _Item(NamedTuple):
    """What is averaged: a variable's handle, or a value under a name."""

    thing: Any
    name: str

    @property
    def dtype(self) -> Any:
        return self.thing.dtype if isinstance(self.thing, Variable) else value_as_array(self.thing).dtype

    @property
    def value(self) -> jax.Array:
        return self.thing.value if isinstance(self.thing, Variable) else jnp.asarray(value_as_array(self.thing))


class _Entry(NamedTuple):
    """One average of this frame: of what, where, and the two variables that correct its start from 0."""

    stands_for: Callable[[], Any]
    average: Variable
    debias: tuple[Variable, Variable] | None = None


class FrameAverages:
    """The averages of one `ExponentialMovingAverage` in whichever frame is open.

    Args:
      name: the name of the shadows.
      zero_debias: whether averages of values are corrected for their start from 0.
      key: a collection of its own, for what it knows of a frame.
    """

    def __init__(self, name: str, zero_debias: bool, key: str) -> None:
        self._name = name
        self._zero_debias = zero_debias
        self._key = key

    def apply(self, var_list: Any, rest_of: Callable[[Callable[[str], Any]], Any]) -> list[jax.Array]:
        """Make the shadows that are missing, and move all of them; return their new values."""
        with all_or_nothing("jv.train.ExponentialMovingAverage.apply") as frame:
            items = _items(var_list)
            _check_dtypes(items)
            entries = [self._entry(frame, item) for item in items]
            with name_scope(self._name):
                rest = rest_of(lambda name: _named(frame, name).value)
                return [self._moved(frame, *pair, rest) for pair in zip(items, entries, strict=True)]

    def average(self, thing: Any) -> Variable | None:
        """The shadow of a variable or value, None where there is none."""
        entry = self._found(current_frame("jv.train.ExponentialMovingAverage.average"), _whole(thing))
        return None if entry is None else entry.average

    def average_name(self, thing: Any) -> str:
        """The name of the shadow, also before it is made."""
        frame = current_frame("jv.train.ExponentialMovingAverage.average_name")
        whole = _whole(thing)
        entry = self._found(frame, whole)
        if entry is not None:
            return entry.average.key
        below = whole.key if isinstance(whole, Variable) else _TENSOR
        return frame.graph.unique_variable_name(f"{below}/{self._name}", take=False)

    def variables_to_restore(self, moving_avg_variables: Iterable[Any] | None) -> dict[str, Any]:
        """Name in a checkpoint -> handle; see `ExponentialMovingAverage.variables_to_restore`."""
        if moving_avg_variables is None:
            moving_avg_variables = [*trainable_variables(), *get_collection(GraphKeys.MOVING_AVERAGE_VARIABLES)]
        averaged = {handle.key: handle for handle in map(_whole, moving_avg_variables)}
        names = {self.average_name(handle): handle for handle in averaged.values()}
        for handle in map(_whole, global_variables()):
            if handle.key not in averaged and handle.key not in names:
                names[handle.key] = handle
        return names

    def _found(self, frame: Frame, thing: Any) -> _Entry | None:
        entries: list[_Entry] = frame.graph.collections.get(self._key)
        return next((entry for entry in reversed(entries) if entry.stands_for() is thing), None)

    def _entry(self, frame: Frame, item: _Item) -> _Entry:
        entry = self._found(frame, item.thing)
        if entry is None:
            average = self._of_variable(item.thing) if isinstance(item.thing, Variable) else self._of_value(item)
            entry = _Entry(_reference(item.thing), average)
            frame.graph.collections.add(self._key, entry)
        return entry

    def _of_variable(self, handle: Variable) -> Variable:
        members = GraphKeys.MOVING_AVERAGE_VARIABLES
        with device(None), device(_home_of(handle)):  # beside its variable, whatever the open blocks say
            shadow = make_shadow(f"{handle.key}/{self._name}", handle.initialized_value, None, handle.dtype)
        if not any(member is handle for member in get_collection(members)):
            frame = current_frame()
            assert isinstance(frame, DefiningFrame)
            frame.collect(members, handle)
        return shadow

    def _of_value(self, item: _Item) -> Variable:
        shape = list(item.value.shape)
        return make_shadow(f"{item.name}/{self._name}", zeros_initializer(), shape, item.dtype)

    def _moved(self, frame: Frame, item: _Item, entry: _Entry, rest: Any) -> jax.Array:
        if self._zero_debias and entry.debias is None and not isinstance(item.thing, Variable):
            entry = entry._replace(debias=make_debias(entry.average))
            frame.graph.collections.add(self._key, entry)
        with name_scope("AssignMovingAvg"):
            return update(entry.average, item.value, rest, entry.debias)


def _home_of(handle: Variable) -> Any:
    """What `device` takes to put another variable where this one lives."""
    slot = handle._slot
    value: Any = slot.frame.holes.get(slot.key) if isinstance(slot.frame, SpecsFrame) else slot.value
    sharding = value.sharding if is_hole(value) or is_concrete(value) else None
    if isinstance(slot.placement, PartitionSpec) and isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, slot.placement)
    return handle.device or None


def _items(var_list: Any) -> list[_Item]:
    """What to average, each once."""
    if var_list is None:
        var_list = trainable_variables()
    if isinstance(var_list, str | Variable) or not isinstance(var_list, Iterable):
        raise InvalidTypeError(
            f"ExponentialMovingAverage.apply takes a list of variables and values, or a dict of values by name, got "
            f"{type(var_list).__name__}. Write: ema.apply([v]), ema.apply({{'total_loss': loss}})"
        )
    if isinstance(var_list, Mapping):
        pairs = list(cast("Mapping[str, Any]", var_list).items())
    else:
        pairs = [(_TENSOR, thing) for thing in cast("Iterable[Any]", var_list)]
    wrong = [thing for _, thing in pairs if isinstance(thing, str)]
    if wrong:
        raise InvalidTypeError(
            f"ExponentialMovingAverage.apply inside a model takes handles and values, got the name {wrong[0]!r}. "
            "Outside of a model write: variables = ema.apply(variables, [name, ...])"
        )
    items = [_Item(_whole(thing), name) for name, thing in pairs]
    return list({id(item.thing): item for item in items}.values())


def _whole(thing: Any) -> Any:
    """The handle of the whole where `thing` is a slice of a partitioned variable, else `thing`."""
    slot = getattr(thing._slot, "whole", thing._slot) if isinstance(thing, Variable) else None
    return thing if slot is None or slot.handle is None else slot.handle


def _check_dtypes(items: Sequence[_Item]) -> None:
    wrong = [f"{getattr(item.thing, 'name', item.name)} is {item.dtype}" for item in items if not _is_averaged(item)]
    if wrong:
        raise InvalidTypeError(f"The variables must be half, float, or double: {', '.join(wrong)}")


def _is_averaged(item: _Item) -> bool:
    return is_averaged_dtype(item.dtype)


def _reference(thing: Any) -> Callable[[], Any]:
    """A weak reference where there can be one: a value of a scan's body must not outlive it."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


def _named(frame: Frame, name: str) -> Variable:
    key = name.removesuffix(":0")
    slot = frame.slots.get(key)
    if slot is None:
        near = nearest_names(key, frame.slots)
        raise NotFoundError(
            f'ExponentialMovingAverage: variable "{key}" has not been made in this run of the model.'
            + (f" Nearest: {', '.join(near)}." if near else "")
        )
    return slot.handle

"""The short way of `get_variable`: a variable that is there, asked for without anything unusual.

Almost every call is one, at each trace of each layer, so the way past getters, creators, partitioners and TF1's
checks in their order is walked only where it may make a difference. Whatever is not plain, an error included, is left
to the long way: `jaxvars.scopes.request` and `DefiningFrame.get`.
"""

from __future__ import annotations

from typing import Any

from jax import ShapeDtypeStruct

from jaxvars._arguments import NAMED_DTYPES, as_dtype
from jaxvars.defining import DefiningFrame
from jaxvars.definition import Definition
from jaxvars.frame import Slot
from jaxvars.scopes.context import current
from jaxvars.scopes.scope import ROOT_DEFAULTS
from jaxvars.variable import Variable

__all__ = ["quick_get"]


def quick_get(
    frame: DefiningFrame,
    name: Any,
    shape: Any,
    dtype: Any,
    initializer: Any,
    regularizer: Any,
    trainable: Any,
    collections: Any,
    constraint: Any,
) -> Variable | None:
    """Return the handle of a variable, or None where the long way has to decide; that costs a touch at most.

    Args:
      frame: the open frame.
      name: as the user gave it to `get_variable`, like those that follow.
      shape: see `name`.
      dtype: see `name`.
      initializer: see `name`.
      regularizer: see `name`.
      trainable: see `name`.
      collections: see `name`.
      constraint: see `name`.
    """
    context = current.get()
    if context is None or context.creators or frame.recording is not None or type(name) is not str or not name:
        return None
    scope = context.scope
    defaults = scope._defaults
    if defaults is not ROOT_DEFAULTS:
        if defaults.custom_getter is not None or defaults.partitioner is not None:
            return None
        if initializer is None:
            initializer = defaults.initializer
        if regularizer is None:
            regularizer = defaults.regularizer
    if initializer is not None and not callable(initializer):
        return None
    if regularizer is not None and not callable(regularizer):
        return None
    frame.touch(3)
    name = scope.prefix + name
    slot = frame._by_store_key.get(name)
    is_new = slot is None
    if slot is None:
        slot = frame.given_slot(name)
        if slot is None:
            if constraint is None:
                constraint = defaults.constraint
            plain = trainable is None or bool(trainable)
            wanted = defaults.dtype if dtype is None else dtype
            asked = Definition(name, shape, wanted, initializer, collections, plain, constraint)
            return None if scope._reuse is True else _made(frame, asked, regularizer)
    elif slot.partitioning is not None or (slot.gotten and not scope._reuse):
        return None
    if dtype is None:
        dtype = defaults.dtype
    if (NAMED_DTYPES[dtype] if type(dtype) is str and dtype in NAMED_DTYPES else as_dtype(dtype)) != slot.dtype:
        return None
    if isinstance(slot.value, ShapeDtypeStruct) or not (shape is None or _is_shape(shape, slot.shape)):
        return None
    if is_new:
        return _taken(frame, slot, name, collections, regularizer)
    if not slot.gotten:
        slot.asked = collections
        frame._join(slot, regularizer)
    return slot.handle


def _made(frame: DefiningFrame, asked: Definition, regularizer: Any) -> Variable | None:
    """Make a variable where that takes none of the model's code, else return None."""
    if f"{asked.name}/part_0" in frame._by_store_key:
        return None
    slot = frame.make_plain(asked)
    return None if slot is None else _taken(frame, slot, asked.name, asked.collections, regularizer)


def _taken(frame: DefiningFrame, slot: Slot, name: str, collections: Any, regularizer: Any) -> Variable:
    """Give a new slot its name."""
    frame.graph.variable_op_name(name)
    frame._by_store_key[name] = frame.slots[name] = slot
    slot.asked = collections
    frame._join(slot, regularizer)
    return slot.handle


def _is_shape(asked: Any, found: tuple[int, ...]) -> bool:
    """Whether a shape is plainly the one that is there."""
    kind = type(asked)
    if (kind is not list and kind is not tuple) or tuple(asked) != found:
        return False
    return all(type(size) is int for size in asked) if found else True

"""TF2's object graph: which object a tensor belongs to, and the name that its variable had in TF1's sense.

TF2 stores a variable under the path by which it is reached (``model/layer-1/kernel/.ATTRIBUTES/VARIABLE_VALUE``),
and beside the tensors a message that lists all objects. That message also has the name of each variable
(``dense/kernel``), by which a model that is written with scopes knows it.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxvars.checkpoint.formats.protos import as_bytes, as_int, fields
from jaxvars.errors import DataLossError

__all__ = ["GRAPH_KEY", "tf1_names"]

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"


class _Slot(NamedTuple):
    variable: int
    name: str
    node: int


class _Node(NamedTuple):
    """An object: the name and key of its value if it is a variable, and the slots that it keeps for others."""

    full_name: str
    key: str
    slots: list[_Slot]


def tf1_names(data: bytes, what: str) -> dict[str, str]:
    """Return TF1 name -> key in the checkpoint, of all variables in a TrackableObjectGraph.

    A slot of an optimizer that has no name of its own is called as TF1 would: the name of its variable, "/", the
    name of the slot. A name that stands for several variables is left out.

    Args:
      data: the message.
      what: names it in errors.

    Raises:
      DataLossError: it is damaged.
    """
    nodes = [_node(as_bytes(value, what), what) for number, value in fields(data, what) if number == 1]
    keys: dict[str, set[str]] = {}
    for node in nodes:
        if node.full_name and node.key:
            keys.setdefault(node.full_name, set()).add(node.key)
        for slot in node.slots:
            if not (slot.variable < len(nodes) and slot.node < len(nodes)):
                raise DataLossError(f"{what} is damaged: slot {slot.name!r} refers to an object that is not there.")
            owner, value = nodes[slot.variable].full_name, nodes[slot.node]
            if owner and slot.name and value.key and not value.full_name:
                keys.setdefault(f"{owner}/{slot.name}", set()).add(value.key)
    return {name: next(iter(found)) for name, found in keys.items() if len(found) == 1}


def _node(data: bytes, what: str) -> _Node:
    full_name = key = ""
    slots: list[_Slot] = []
    for number, value in fields(data, what):
        if number == 2:
            texts = {part: _text(text, what) for part, text in fields(as_bytes(value, what), what) if part in (1, 2, 3)}
            if texts.get(1) == _VALUE:
                full_name, key = texts.get(2, ""), texts.get(3, "")
        elif number == 3:
            slots.append(_slot(as_bytes(value, what), what))
    return _Node(full_name, key, slots)


def _slot(data: bytes, what: str) -> _Slot:
    numbers = {1: 0, 3: 0}
    name = ""
    for number, value in fields(data, what):
        if number == 2:
            name = _text(value, what)
        elif number in numbers:
            numbers[number] = as_int(value, what)
    return _Slot(numbers[1], name, numbers[3])


def _text(value: int | bytes, what: str) -> str:
    return as_bytes(value, what).decode("utf-8", "backslashreplace")

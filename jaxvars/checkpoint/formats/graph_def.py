"""The variables of a TF1 graph as its ``.meta`` file (MetaGraphDef) or SavedModel lists them, without TensorFlow.

Collections hold a VariableDef for each variable: its name, and where it lies in a larger one if it is a slice of a
partitioned variable. Shape and dtype are attributes of its node in the graph.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

from jaxvars.checkpoint.formats import tf_types
from jaxvars.checkpoint.formats.protos import as_bytes, as_int, fields, parse_shape, read_varint, signed
from jaxvars.checkpoint.formats.tensor_slice import TensorSlice
from jaxvars.errors import DataLossError

__all__ = ["GraphVariable", "Part", "Shape", "meta_graph_variables", "saved_model_variables"]

# None is an unknown rank; -1 in it an unknown dimension.
Shape = tuple[int, ...] | None

_FIRST_COLLECTIONS = ("variables", "local_variables", "trainable_variables")
# TF1's collections whose entries are VariableDefs.
_VARIABLE_COLLECTIONS = (
    *_FIRST_COLLECTIONS,
    "global_step",
    "metric_variables",
    "model_variables",
    "moving_average_variables",
    "trainable_resource_variables",
)
_VARIABLE_OPS = (b"VariableV2", b"VarHandleOp", b"Variable", b"AutoReloadVariable")
_LARGEST_DIM = 1 << 48
_MOST_ELEMENTS = 1 << 58


class Part(NamedTuple):
    """What is a slice of a partitioned variable: of which, its whole shape, and where it lies there."""

    full_name: str
    full_shape: tuple[int, ...]
    where: TensorSlice


@dataclasses.dataclass(slots=True)
class GraphVariable:
    """One variable of a graph.

    Attributes:
      name: the name of its operation.
      shape: its shape, as far as the graph says.
      dtype: TensorFlow's number.
      collections: those it is in, the usual ones first.
      part: of which variable it is a slice, None for an ordinary one.
    """

    name: str
    shape: Shape
    dtype: int
    collections: list[str]
    part: Part | None


class _Node(NamedTuple):
    shape: Shape
    dtype: int


def saved_model_variables(data: bytes, what: str) -> list[GraphVariable]:
    """Return the variables of all graphs in a SavedModel; those of the first graph come first, each name once.

    Raises:
      DataLossError: the message is damaged.
    """
    found: dict[str, GraphVariable] = {}
    for number, value in fields(data, what):
        if number == 2:
            for variable in meta_graph_variables(as_bytes(value, what), what):
                found.setdefault(variable.name, variable)
    return list(found.values())


def meta_graph_variables(data: bytes, what: str) -> list[GraphVariable]:
    """Return the variables of a MetaGraphDef in the order of its collections, the global ones first.

    Raises:
      DataLossError: the message is damaged.
    """
    nodes: dict[str, _Node] = {}
    collections: dict[str, tuple[int, list[bytes]]] = {}
    for number, value in fields(data, what):
        if number == 2:
            for part, node in fields(as_bytes(value, what), what):
                if part == 1:
                    _add_node(nodes, as_bytes(node, what), what)
        elif number == 4:
            name, kind, entries = _collection(as_bytes(value, what), what)
            collections[name] = kind, entries
    order = [*_FIRST_COLLECTIONS, *sorted(collections.keys() - set(_FIRST_COLLECTIONS))]
    found: dict[str, GraphVariable] = {}
    for name in order:
        kind, entries = collections.get(name, (0, []))
        members = _members(name, kind, entries, what)
        for variable, part in members:
            if variable not in found:
                if name not in _VARIABLE_COLLECTIONS:
                    continue  # a collection of other things, or of tensors
                node = nodes.get(variable)
                if node is None:
                    raise DataLossError(f"{what} is damaged: variable {variable!r} is not in the graph.")
                found[variable] = GraphVariable(variable, node.shape, node.dtype, [], part)
            joined = found[variable].collections
            if name not in joined[-1:]:
                joined.append(name)
    return list(found.values())


def _collection(data: bytes, what: str) -> tuple[str, int, list[bytes]]:
    """Return the name of a collection, the kind of its list (1 names of nodes, 2 messages), and the entries."""
    name, kind = "", 0
    entries: list[bytes] = []
    for number, value in fields(data, what):
        if number == 1:
            name = _text(value, what)
        elif number == 2:
            for kind, content in fields(as_bytes(value, what), what):
                if kind in (1, 2):
                    entries = [as_bytes(entry, what) for _, entry in fields(as_bytes(content, what), what)]
    return name, kind, entries


def _members(name: str, kind: int, entries: Iterable[bytes], what: str) -> list[tuple[str, Part | None]]:
    """The variables that a collection names; a collection of messages of another kind names none."""
    if kind == 1:
        return [(_operation(_text(entry, what)), None) for entry in entries]
    if kind == 2 and name in _VARIABLE_COLLECTIONS:
        return [_variable_def(entry, what) for entry in entries]
    return []


def _variable_def(data: bytes, what: str) -> tuple[str, Part | None]:
    name = ""
    part: Part | None = None
    for number, value in fields(data, what):
        if number == 1:
            name = _operation(_text(value, what))
        elif number == 4:
            part = _part(as_bytes(value, what), what)
    if not name:
        raise DataLossError(f"{what} is damaged: a variable without name.")
    return name, part


def _part(data: bytes, what: str) -> Part | None:
    """What a SaveSliceInfoDef says; None where it says nothing."""
    full_name = ""
    numbers: dict[int, list[int]] = {2: [], 3: [], 4: []}
    for number, value in fields(data, what):
        if number == 1:
            full_name = _text(value, what)
        elif number in numbers:
            numbers[number] += _packed(value, what)
    if not full_name:
        return None
    full, starts, lengths = (tuple(numbers[number]) for number in (2, 3, 4))
    absurd = any(not 0 <= value < _LARGEST_DIM for value in (*full, *starts, *lengths))
    if absurd or not len(full) == len(starts) == len(lengths) or math.prod(full) > _MOST_ELEMENTS:
        raise DataLossError(f"{what} is damaged: a slice of {full_name!r} that does not fit it.")
    return Part(full_name, full, TensorSlice(tuple(zip(starts, lengths, strict=True))))


def _add_node(nodes: dict[str, _Node], data: bytes, what: str) -> None:
    if not any(op in data for op in _VARIABLE_OPS):  # most nodes: spares decoding them
        return
    name, op = "", b""
    shape: Shape = None
    dtype = 0
    for number, value in fields(data, what):
        if number == 1:
            name = _text(value, what)
        elif number == 2:
            op = as_bytes(value, what)
        elif number == 5:
            attribute = dict(fields(as_bytes(value, what), what))
            content = as_bytes(attribute.get(2, b""), what)
            if attribute.get(1) == b"shape":
                shape = _shape(content, what)
            elif attribute.get(1) == b"dtype":
                dtype = next((as_int(number, what) for kind, number in fields(content, what) if kind == 6), 0)
    if op in _VARIABLE_OPS:
        tf_types.type_name(dtype, f"{what}, variable {name!r},")
        nodes[name] = _Node(shape, dtype)


def _shape(data: bytes, what: str) -> Shape:
    """The shape in an AttrValue."""
    message = next((as_bytes(value, what) for kind, value in fields(data, what) if kind == 7), b"")
    dims: list[int] = []
    for number, value in fields(message, what):
        if number == 3 and as_int(value, what):
            return None
        if number == 2:
            sizes = [as_int(size, what) for part, size in fields(as_bytes(value, what), what) if part == 1]
            dims.append(signed(sizes[-1]) if sizes else 0)
    if min(dims, default=0) >= 0:
        return parse_shape(message, what)
    if min(dims) < -1 or max(dims) >= _LARGEST_DIM:
        raise DataLossError(f"{what} is damaged: no variable has the shape {dims[:8]}.")
    return tuple(dims)


def _packed(value: int | bytes, what: str) -> list[int]:
    """Numbers, packed into bytes or one by itself."""
    if isinstance(value, int):
        return [signed(value)]
    numbers: list[int] = []
    position = 0
    while position < len(value):
        number, position = read_varint(value, position, what)
        numbers.append(signed(number))
    return numbers


def _operation(tensor: str) -> str:
    return tensor.rpartition(":")[0] or tensor


def _text(value: int | bytes, what: str) -> str:
    return as_bytes(value, what).decode("utf-8", "backslashreplace")

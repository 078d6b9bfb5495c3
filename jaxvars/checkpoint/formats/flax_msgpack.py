"""Files of `flax.serialization` (``to_bytes``, ``msgpack_serialize``; Hugging Face's ``flax_model.msgpack``).

Names, shapes and dtypes are found without reading the values, and a tensor is read alone, by its range. The
format has no checksum: a flipped bit in a value shows nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.dtype_names import plain_dtype
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.msgpack_values import Extension, Node, Text, looks_like_msgpack, read_node, read_tree
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["MsgpackSource", "looks_like_msgpack"]

# Flax's numbers of its own types.
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_LONGEST_DTYPE_NAME = 64
_MOST_DIMS = 64  # NumPy's limit
_LARGEST = 1 << 62
_PIECE = 1 << 24
_Pairs = list[tuple[str, Node]]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """What is known of one value.

    Attributes:
      ranges: (offset, bytes) of the parts of its values; () where `value` is the value itself.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    type_name: str
    ranges: tuple[tuple[int, int], ...] = ()
    value: Any = None
    problem: str = ""


class MsgpackSource:
    """A msgpack file of Flax, open for reading.

    Nested dicts are read as flat names, ``params/dense/kernel``; lists and tuples have numbers as names.
    Python's numbers are scalars, strings are scalars of bytes; None is listed and cannot be read.

    Args:
      path: the file.

    Raises:
      NotFoundError: there is no such file.
      InvalidArgumentError: it holds no map of names, or two values of one name.
      DataLossError: it is damaged.
    """

    format = "msgpack"

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = RangedFile(path)
        self._leaves: dict[str, _Leaf] = {}
        try:
            self._add(read_tree(self._file), "")
        except BaseException:
            self.close()
            raise
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(name, leaf.shape, leaf.dtype, leaf.type_name, leaf.problem)
            for name, leaf in self._leaves.items()
        }

    def _add(self, pairs: _Pairs, prefix: str) -> None:
        for key, node in pairs:
            name = prefix + key
            if isinstance(node, list) and _CHUNKED not in dict(node):
                self._add(node, f"{name}/")
                continue
            if name in self._leaves:
                raise InvalidArgumentError(
                    f"{self.path} holds two values that are both called {name!r} when its tree is written as flat "
                    "names. Load it with flax.serialization, and write: Variables.from_nested(tree)"
                )
            what = f"{self.path} is damaged: {name!r}"
            self._leaves[name] = self._chunked(node, what) if isinstance(node, list) else self._leaf(node, what)

    def _leaf(self, node: Any, what: str) -> _Leaf:
        if isinstance(node, list):
            raise DataLossError(f"{what} consists of parts that are no arrays.")
        if isinstance(node, Extension):
            return self._extension(node, what)
        if isinstance(node, Text):
            return _Leaf((), np.dtype(object), "string", ((node.offset, node.size),))
        if node is None:
            return _Leaf((), np.dtype(object), "None", problem="it is None")
        value = np.asarray(node)
        return _Leaf((), value.dtype, value.dtype.name, value=value)

    def _extension(self, node: Extension, what: str) -> _Leaf:
        if node.code not in (_ARRAY, _COMPLEX, _SCALAR):
            kind = f"extension {node.code}"
            return _Leaf((), np.dtype(object), kind, problem=f"its type is {kind}, which is none of Flax's")
        parts = _values(read_node(self._file, node.offset, node.size))
        if node.code == _COMPLEX:
            if len(parts) != 2 or not all(isinstance(part, (int, float)) for part in parts):
                raise DataLossError(f"{what} is no complex number.")
            value = np.asarray(complex(*parts))
            return _Leaf((), value.dtype, value.dtype.name, value=value)
        return self._array(parts, what)

    def _array(self, parts: list[Any], what: str) -> _Leaf:
        if len(parts) != 3 or not all(isinstance(part, Text) for part in parts[1:]):
            raise DataLossError(f"{what} is no array of shape, dtype and values.")
        shape = _shape(parts[0], what)
        type_name = self._text(parts[1], _LONGEST_DTYPE_NAME, what)
        values = parts[2]
        dtype = plain_dtype(type_name)
        if dtype is None:
            problem = f"its dtype is {type_name}, which has no array of numbers"
            return _Leaf(shape, np.dtype(object), type_name, problem=problem)
        _check_size(shape, dtype, values.size, what)
        return _Leaf(shape, dtype, dtype.name, ((values.offset, values.size),))

    def _chunked(self, pairs: _Pairs, what: str) -> _Leaf:
        """An array that Flax cut into pieces, as msgpack holds no value of more than 4 GiB."""
        fields = dict(pairs)
        shape = _shape(_in_order(fields.get("shape"), what), what)
        chunks = [self._leaf(node, what) for _, node in _in_order(fields.get("chunks"), what)]
        kinds = {chunk.dtype for chunk in chunks}
        if len(kinds) != 1 or any(chunk.problem or len(chunk.ranges) != 1 for chunk in chunks):
            raise DataLossError(f"{what} consists of parts that do not fit together.")
        dtype = kinds.pop()
        ranges = tuple(chunk.ranges[0] for chunk in chunks)
        if dtype == np.dtype(object):
            raise DataLossError(f"{what} consists of parts that are no arrays.")
        _check_size(shape, dtype, sum(size for _, size in ranges), what)
        return _Leaf(shape, dtype, dtype.name, ranges)

    def _text(self, text: Text, most: int, what: str) -> str:
        if text.size > most:
            raise DataLossError(f"{what} has a dtype whose name has {text.size} characters.")
        return self._file.read(text.offset, text.size, "a dtype").decode("utf-8", "backslashreplace")

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as a new array in the file's dtype.

        Raises:
          InvalidArgumentError: it has no values that can be read.
          DataLossError: the file became shorter, or a value is impossible.
        """
        leaf = self._leaves[name]
        if leaf.problem:
            raise InvalidArgumentError(f"Cannot read {name!r} of {self.path}: {leaf.problem}.")
        if not leaf.ranges:
            return leaf.value.copy()
        what = f"tensor {name!r}"
        if leaf.dtype == np.dtype(object):
            text = np.empty((), object)
            text[()] = self._file.read(*leaf.ranges[0], what)
            return text
        if len(leaf.ranges) == 1:
            octets = self._file.read_array(*leaf.ranges[0], what)
        else:
            octets = self._joined(leaf.ranges, what)
        if leaf.dtype == np.dtype(bool) and octets.size and octets.max() > 1:
            raise DataLossError(f"{self.path} is damaged: {what} has values that are neither true nor false.")
        return octets.view(leaf.dtype).reshape(leaf.shape)

    def _joined(self, ranges: tuple[tuple[int, int], ...], what: str) -> npt.NDArray[np.uint8]:
        octets = np.empty(sum(size for _, size in ranges), np.uint8)
        done = 0
        for offset, size in ranges:
            for start in range(0, size, _PIECE):
                piece = self._file.read_array(offset + start, min(_PIECE, size - start), what)
                octets[done : done + piece.size] = piece
                done += piece.size
        return octets

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) in the order in which the values lie in the file."""
        for name in sorted(names, key=lambda name: self._leaves[name].ranges):
            yield name, self.read(name)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _values(node: Node) -> list[Any]:
    """The elements of a list, [] for anything else."""
    return [value for _, value in node] if isinstance(node, list) else []


def _shape(node: Any, what: str) -> tuple[int, ...]:
    sizes = tuple(_values(node))
    if not isinstance(node, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise DataLossError(f"{what} has no shape.")
    return sizes


def _in_order(node: Any, what: str) -> _Pairs:
    """The entries "0", "1", ... of a map, as Flax writes lists."""
    fields = dict(node) if isinstance(node, list) else None
    if fields is None or fields.keys() != {str(number) for number in range(len(fields))}:
        raise DataLossError(f"{what} is cut into parts that are not numbered.")
    return [(str(number), fields[str(number)]) for number in range(len(fields))]


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], size: int, what: str) -> None:
    # Zeros count as ones: NumPy also refuses arrays without elements whose other dimensions are absurd.
    absurd = len(shape) > _MOST_DIMS or math.prod(dim or 1 for dim in shape) * dtype.itemsize > _LARGEST
    if absurd or math.prod(shape) * dtype.itemsize != size:
        raise DataLossError(f"{what} of shape {shape} and {dtype} claims {size} bytes.")

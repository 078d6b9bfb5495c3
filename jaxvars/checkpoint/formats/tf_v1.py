"""TensorFlow's V1 checkpoints (2015 to 2017): one table file that holds the values too, or several shards.

The first entry lists all tensors and their slices; every other entry is one slice, as a TensorProto with one
field of values. Their checksum is the table's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats import tf_types
from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.files import RangedFile, shard_files
from jaxvars.checkpoint.formats.protos import as_bytes, as_int, fields, parse_shape
from jaxvars.checkpoint.formats.table import Table
from jaxvars.checkpoint.formats.tensor_slice import TensorSlice, check_tiling, parse_slice, slice_key
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["TableCheckpoint"]

# dtype number -> (field of the TensorProto, dtype of its values); other integers are in field 7 as numbers.
_PLAIN_FIELDS: dict[int, tuple[int, Any]] = {
    1: (5, "<f4"),
    2: (6, "<f8"),
    8: (9, "<c8"),
    18: (12, "<c16"),
}
_NUMBER_FIELDS = {9: 10, 10: 11, 14: 13, 19: 13, 22: 16, 23: 17}
_SMALL_INTEGER_FIELD = 7
_STRING_FIELD = 8
_HALF_FIELD = 13


@dataclass(slots=True)
class _Entry:
    key: bytes
    dtype: int
    shape: tuple[int, ...]
    slices: list[tuple[TensorSlice, Table]] = field(default_factory=list[tuple[TensorSlice, Table]])


class TableCheckpoint:
    """A V1 checkpoint, open for reading.

    Args:
      path: the file, or the common prefix of files ``path-?????-of-?????``.

    Raises:
      DataLossError: a table is damaged.
    """

    format = "tf_v1"

    def __init__(self, path: str) -> None:
        self.path = path
        self._files = [RangedFile(name) for name in ([path] if os.path.isfile(path) else shard_files(path))]
        self._entries: dict[str, _Entry] = {}
        for file in self._files:
            self._read_list(Table(file), file.path)
        self.tensors: Mapping[str, TensorInfo] = {name: _info(name, e) for name, e in self._entries.items()}

    def _read_list(self, table: Table, what: str) -> None:
        first = table.get(b"")
        meta = None if first is None else next((v for n, v in fields(first, what) if n == 1), None)
        if meta is None:
            raise DataLossError(f"{what} is a table, but not a TensorFlow checkpoint: it lists no tensors.")
        for number, value in fields(as_bytes(meta, what), what):
            if number == 1:
                self._add(as_bytes(value, what), table, what)

    def _add(self, data: bytes, table: Table, what: str) -> None:
        key, dtype, shape = b"", 0, ()
        slices: list[TensorSlice] = []
        for number, value in fields(data, what):
            if number == 1:
                key = as_bytes(value, what)
            elif number == 2:
                shape = parse_shape(as_bytes(value, what), what)
            elif number == 3:
                dtype = as_int(value, what)
            elif number == 4:
                slices.append(parse_slice(as_bytes(value, what), what))
        name = key.decode("utf-8", "backslashreplace")
        tf_types.type_name(dtype, f"{what}, tensor {name!r},")
        known = self._entries.setdefault(name, _Entry(key, dtype, shape))
        if (known.key, known.dtype, known.shape) != (key, dtype, shape):
            raise DataLossError(f"{what}: tensor {name!r} has another shape or dtype in another shard.")
        known.slices += [(part, table) for part in slices]

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as a new array in the file's dtype.

        Raises:
          InvalidArgumentError: it is of a type that has no values.
          DataLossError: the file is damaged.
        """
        entry = self._entries[name]
        dtype = tf_types.numpy_dtype(entry.dtype)
        what = f"tensor {name!r}"
        if dtype is None:
            raise InvalidArgumentError(f"Cannot read {what} of {self.path}: {self.tensors[name].problem}.")
        check_tiling([part for part, _ in entry.slices], entry.shape, f"{self.path}, {what},")
        if len(entry.slices) == 1 and entry.slices[0][0].shape(entry.shape) == entry.shape:
            return self._read_slice(entry, *entry.slices[0], what)
        parts = [(part, self._read_slice(entry, part, table, what)) for part, table in entry.slices]
        whole = np.empty(entry.shape, dtype)
        for part, values in parts:
            whole[part.index(entry.shape)] = values
        return whole

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) one after the other."""
        for name in names:
            yield name, self.read(name)

    def _read_slice(self, entry: _Entry, part: TensorSlice, table: Table, what: str) -> npt.NDArray[Any]:
        what = f"{self.path}, {what},"
        stored = table.get(slice_key(entry.key, part))
        proto = _inner(_inner(stored, 2, what), 3, what)
        shape = part.shape(entry.shape)
        values = _values(proto, entry.dtype, what)
        if values.size != math.prod(shape):
            raise DataLossError(f"{what} is damaged: {values.size} values for the shape {shape}.")
        return values.reshape(shape)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def _info(name: str, entry: _Entry) -> TensorInfo:
    dtype = tf_types.numpy_dtype(entry.dtype)
    kind = tf_types.type_name(entry.dtype, name)
    if dtype is None:
        problem = f"its type is {kind}, which has no array of values outside TensorFlow"
        return TensorInfo(name, entry.shape, np.dtype(object), kind, problem)
    return TensorInfo(name, entry.shape, dtype, kind)


def _inner(message: bytes | None, wanted: int, what: str) -> bytes:
    """The message in field `wanted` of a message."""
    found = None if message is None else next((v for n, v in fields(message, what) if n == wanted), None)
    if found is None:
        raise DataLossError(f"{what} is damaged: its values are missing.")
    return as_bytes(found, what)


def _values(proto: bytes, number: int, what: str) -> npt.NDArray[Any]:
    """The values in a TensorProto, as a flat array."""
    dtype = tf_types.numpy_dtype(number)
    assert dtype is not None
    if number in _PLAIN_FIELDS:
        wanted, stored = _PLAIN_FIELDS[number]
        chunks = [_plain(value, np.dtype(stored)) for found, value in fields(proto, what) if found == wanted]
        raw = b"".join(chunks)
        if len(raw) % dtype.itemsize:
            raise DataLossError(f"{what} is damaged: {len(raw)} bytes are no whole number of {dtype} values.")
        return np.frombuffer(raw, stored).astype(dtype)  # a copy: bytes are not writable
    if number == tf_types.STRING:
        texts = [as_bytes(value, what) for found, value in fields(proto, what) if found == _STRING_FIELD]
        strings = np.empty(len(texts), object)
        strings[:] = texts
        return strings
    wanted = _NUMBER_FIELDS.get(number, _SMALL_INTEGER_FIELD)
    parts = [_numbers(value, what) for found, value in fields(proto, what) if found == wanted]
    numbers = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    if wanted == _HALF_FIELD:
        return numbers.astype(np.uint16).view(dtype)
    return numbers.astype(np.int64).astype(dtype) if dtype.kind != "u" else numbers.astype(dtype)


def _plain(value: int | bytes, stored: np.dtype[Any]) -> bytes:
    """Packed values come as bytes; single ones as the unsigned number behind them."""
    if isinstance(value, bytes):
        return value
    width = stored.itemsize // 2 if stored.kind == "c" else stored.itemsize
    return value.to_bytes(8, "little")[:width]


def _numbers(value: int | bytes, what: str) -> npt.NDArray[np.uint64]:
    """Decode packed varints, all at once: each ends at a byte below 128."""
    if isinstance(value, int):
        return np.array([value], np.uint64)
    octets = np.frombuffer(value, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if octets.size and (ends.size == 0 or ends[-1] != octets.size - 1):
        raise DataLossError(f"{what} is damaged: a number runs past its end.")
    starts = np.concatenate([np.zeros(min(1, ends.size), np.intp), ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.size and int(lengths.max()) > 10:
        raise DataLossError(f"{what} is damaged: a number is longer than 64 bits.")
    result = np.zeros(ends.size, np.uint64)
    for place in range(int(lengths.max(initial=0))):
        has = lengths > place
        digits = octets[starts[has] + place].astype(np.uint64) & np.uint64(0x7F)
        result[has] |= digits << np.uint64(7 * place)
    return result

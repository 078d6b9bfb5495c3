"""TensorFlow's V2 checkpoints ("tensor bundles"): ``P.index`` and ``P.data-00000-of-00001``, ...

The index is a table of entries, one per tensor; the data files hold the raw values. Partitioned variables
appear once, whole; strings are object arrays of bytes; bfloat16 and float8 come as `ml_dtypes` types.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats import tf_types
from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.bundle_strings import read_strings
from jaxvars.checkpoint.formats.crc32c import crc32c, unmask
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.protos import as_bytes, as_int, fields, parse_shape, signed
from jaxvars.checkpoint.formats.table import Table
from jaxvars.checkpoint.formats.tensor_slice import TensorSlice, check_tiling, parse_slice, slice_key
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError

__all__ = ["Header", "TensorBundle", "data_path", "is_bundle_index", "parse_header"]

_SUPPORTED_VERSION = 1
_MOST_SHARDS = 99_999  # the file names have five digits


@dataclass(frozen=True, slots=True)
class _Entry:
    key: bytes
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[TensorSlice, ...]


def is_bundle_index(path: str) -> bool:
    """Whether the table file at `path` is the index of a V2 bundle (else it is a whole V1 checkpoint).

    Raises:
      DataLossError: the table is damaged.
    """
    with RangedFile(path) as file:
        first = next(iter(Table(file).entries()), None)
    if first is None or first[0]:
        return False
    # V1 begins with a message (field 1 as bytes); V2 begins with the number of shards (field 1 as a number).
    return all(number != 1 or isinstance(value, int) for number, value in fields(first[1], path))


class Header(NamedTuple):
    """What the first entry of an index says of all files.

    Attributes:
      num_shards: the number of data files, which is part of their names.
      byte_order: "<" or ">".
    """

    num_shards: int
    byte_order: str


def parse_header(data: bytes, what: str) -> Header:
    """Return what a BundleHeaderProto says.

    Raises:
      DataLossError: it is damaged.
      InvalidArgumentError: it was written for newer readers.
    """
    num_shards, byte_order = 0, "<"
    version: dict[int, int] = {}
    bad: list[int] = []
    for number, value in fields(data, what):
        if number == 1:
            num_shards = as_int(value, what)
        elif number == 2 and as_int(value, what):
            byte_order = ">"
        elif number == 3:
            for part, amount in fields(as_bytes(value, what), what):
                if part == 3:
                    bad.append(amount if isinstance(amount, int) else _SUPPORTED_VERSION)
                else:
                    version[part] = as_int(amount, what)
    if not 0 < num_shards <= _MOST_SHARDS:
        raise DataLossError(f"{what} is damaged: it claims {num_shards} data files.")
    if version.get(2, 0) > _SUPPORTED_VERSION or _SUPPORTED_VERSION in bad:
        raise InvalidArgumentError(f"{what} was written for newer readers (version {version.get(2, 0)}).")
    return Header(num_shards, byte_order)


def data_path(prefix: str, shard: int, num_shards: int) -> str:
    """Return the path of a data file."""
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


class TensorBundle:
    """A V2 checkpoint, open for reading.

    Args:
      prefix: the path without ``.index``.

    Raises:
      NotFoundError: there is no index file.
      DataLossError: the index is damaged.
      InvalidArgumentError: the bundle is of a kind that this reader does not know.
    """

    format = "tf"

    def __init__(self, prefix: str) -> None:
        self.path = prefix
        self._index = prefix + ".index"
        self._files: dict[int, RangedFile] = {}
        self._entries: dict[str, _Entry] = {}
        self._by_key: dict[bytes, _Entry] = {}
        self._read_index()
        self._shard_sizes = self._stat_shards()
        self.tensors: Mapping[str, TensorInfo] = {name: self._info(name, e) for name, e in self._entries.items()}

    def _read_index(self) -> None:
        with RangedFile(self._index) as file:
            entries = Table(file).entries()
            key, header = next(entries, (b"?", b""))
            if key:
                raise DataLossError(f"{self._index} is a table without the header of a TensorFlow checkpoint.")
            self._header = parse_header(header, self._index)
            for key, value in entries:
                self._by_key[key] = _parse_entry(key, value, f"{self._index}, entry {_text(key)!r},")
        hidden = {slice_key(e.key, part) for e in self._by_key.values() for part in e.slices}
        for key, entry in self._by_key.items():
            if key not in hidden:
                self._entries[_text(key)] = entry

    def _data_path(self, shard: int) -> str:
        return data_path(self.path, shard, self._header.num_shards)

    def _stat_shards(self) -> dict[int, int]:
        """The sizes of the data files that are there."""
        sizes: dict[int, int] = {}
        for shard in {e.shard for e in self._by_key.values() if not e.slices}:
            try:
                sizes[shard] = os.stat(self._data_path(shard)).st_size
            except OSError:
                continue
        return sizes

    def _info(self, name: str, entry: _Entry) -> TensorInfo:
        dtype = tf_types.numpy_dtype(entry.dtype)
        return TensorInfo(
            name,
            entry.shape,
            np.dtype(object) if dtype is None else dtype,
            tf_types.type_name(entry.dtype, name),
            self._problem(entry),
        )

    def _problem(self, entry: _Entry) -> str:
        """Why the values of `entry` cannot be read, as far as that shows without reading them."""
        if tf_types.numpy_dtype(entry.dtype) is None:
            kind = tf_types.type_name(entry.dtype, "")
            return f"its type is {kind}, which has no array of values outside TensorFlow"
        for part in self._stored_parts(entry):
            if part is None:
                return "the index lacks one of its slices"
            if part.shard not in self._shard_sizes:
                return f"the data file {os.path.basename(self._data_path(part.shard))} is missing"
            if part.offset + part.size > self._shard_sizes[part.shard]:
                return f"the data file {os.path.basename(self._data_path(part.shard))} is cut short"
        return ""

    def _stored_parts(self, entry: _Entry) -> list[_Entry | None]:
        """The entries that hold the bytes: itself, or those of its slices."""
        if not entry.slices:
            return [entry]
        return [self._by_key.get(slice_key(entry.key, part)) for part in entry.slices]

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as a new array in the file's dtype, checked against its checksum.

        Raises:
          NotFoundError: its data file is missing.
          InvalidArgumentError: it is of a type that has no values (variant, resource).
          DataLossError: the values do not match their checksum, or the file is cut short.
        """
        entry = self._entries[name]
        what = f"tensor {name!r}"
        if tf_types.numpy_dtype(entry.dtype) is None:
            raise InvalidArgumentError(f"Cannot read {what} of {self.path}: {self._problem(entry)}.")
        if not entry.slices:
            return self._read_entry(entry, what)
        parts = self._stored_parts(entry)
        check_tiling(entry.slices, entry.shape, f"{self._index}, {what},")
        for part, where in zip(parts, entry.slices, strict=True):
            if part is None or part.slices or part.dtype != entry.dtype or part.shape != where.shape(entry.shape):
                raise DataLossError(f"{self._index} is damaged: a slice of {what} is missing or does not fit.")
        whole = np.empty(entry.shape, tf_types.numpy_dtype(entry.dtype))
        for part, where in zip(parts, entry.slices, strict=True):
            assert part is not None
            whole[where.index(entry.shape)] = self._read_entry(part, what)
        return whole

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) in the order in which the values lie in the files."""
        order = {name: (e.shard, e.offset) for name in names for e in [self._entries[name]]}
        for name in sorted(order, key=order.__getitem__):
            yield name, self.read(name)

    def _read_entry(self, entry: _Entry, what: str) -> npt.NDArray[Any]:
        file = self._file(entry.shard, what)
        if entry.dtype % 100 == tf_types.STRING:
            if self._header.byte_order != "<":
                raise InvalidArgumentError(f"Cannot read {what} of {self.path}: strings of a big-endian machine.")
            octets = file.read_array(entry.offset, entry.size, what).tobytes()
            return read_strings(octets, entry.shape, entry.crc, f"{file.path}, {what},")
        dtype = tf_types.numpy_dtype(entry.dtype)
        assert dtype is not None
        if entry.size != math.prod(entry.shape) * dtype.itemsize:
            raise DataLossError(
                f"{self._index} is damaged: {what} of shape {entry.shape} and {dtype} claims {entry.size} bytes."
            )
        raw = file.read_array(entry.offset, entry.size, what)
        if crc32c(raw) != unmask(entry.crc):
            raise DataLossError(f"{file.path} is damaged: the values of {what} do not match their checksum.")
        return _as_native(raw, dtype, self._header.byte_order).reshape(entry.shape)

    def _file(self, shard: int, what: str) -> RangedFile:
        if shard not in self._files:
            path = self._data_path(shard)
            if not os.path.exists(path):
                raise NotFoundError(
                    f"Cannot read {what}: its data file {path} does not exist. The index {self._index} alone "
                    f"holds names and shapes: copy {os.path.basename(self.path)}.data-* to its folder."
                )
            self._files[shard] = RangedFile(path)
        return self._files[shard]

    def close(self) -> None:
        """Close the data files."""
        for file in self._files.values():
            file.close()


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def _as_native(raw: npt.NDArray[np.uint8], dtype: np.dtype[Any], byte_order: str) -> npt.NDArray[Any]:
    if byte_order == "<" or dtype.itemsize == 1:
        return raw.view(dtype)
    width = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    return np.ascontiguousarray(raw.reshape(-1, width)[:, ::-1]).reshape(-1).view(dtype)


def _parse_entry(key: bytes, data: bytes, what: str) -> _Entry:
    """Return the entry that a BundleEntryProto describes, its numbers checked for sense."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: tuple[int, ...] = ()
    slices: list[TensorSlice] = []
    for number, value in fields(data, what):
        if number == 2:
            shape = parse_shape(as_bytes(value, what), what)
        elif number == 7:
            slices.append(parse_slice(as_bytes(value, what), what))
        elif number in numbers:
            numbers[number] = signed(as_int(value, what))
    if min(numbers.values()) < 0 or numbers[3] > _MOST_SHARDS:
        raise DataLossError(f"{what} is damaged: a negative size or offset.")
    tf_types.type_name(numbers[1], what)
    return _Entry(key, numbers[1], shape, numbers[3], numbers[4], numbers[5], numbers[6], tuple(slices))

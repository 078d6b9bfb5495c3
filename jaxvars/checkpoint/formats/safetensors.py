"""safetensors files, and the sharded ones of Hugging Face.

Read without the library: the header is a short JSON text, and this way every length is checked against the
file first, values land in arrays of our own (not in a mapping), and one call reads many small tensors.
Files that jaxvars wrote have a record of the variables in their metadata, with a checksum for each.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.atomic import whole_file
from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.file_record import (
    check_record,
    entry_of,
    parse_record,
    record_text,
    refuse_names,
    shown_type,
)
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.orbax_record import Entry
from jaxvars.checkpoint.formats.outgoing import Outgoing, refuse_strings
from jaxvars.checkpoint.formats.raw_arrays import as_array, as_octets, read_pieces
from jaxvars.checkpoint.formats.safetensors_header import (
    LARGEST_HEADER,
    METADATA,
    Header,
    Stored,
    header_bytes,
    read_header,
    tensor_type,
)
from jaxvars.checkpoint.formats.safetensors_index import is_index, read_index
from jaxvars.checkpoint.formats.stored_parts import Checksum, StoredPart
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError, some_names
from jaxvars.spec import VariableSpec

__all__ = ["SafetensorsSource", "save_safetensors"]

_FORMAT = "A safetensors file"
_RECORD = "jaxvars"
_MARK = ("written_by", "jaxvars")  # a second sign that the file is ours, should the record's name be damaged
_ANY_CHECKSUM = 0xFFFFFFFF
_DIGITS = 10  # of a checksum


class SafetensorsSource:
    """A safetensors file, or the files of an index, open for reading.

    Args:
      path: the file, or an index of shards (``model.safetensors.index.json``). A shard that is missing matters
        only for its own tensors.

    Raises:
      NotFoundError: there is no such file.
      DataLossError: a file is damaged.
      InvalidArgumentError: an index names a file outside its folder.
    """

    format = "safetensors"

    def __init__(self, path: str) -> None:
        self.path = path
        self._entries: dict[str, Entry] | None = None
        self._missing: dict[str, str] = {}
        self._places: dict[str, Stored] = {}
        self._file_of: dict[str, RangedFile] = {}
        file = RangedFile(path)
        if is_index(file):
            with file:
                self._open_shards(read_index(file))
        else:
            header = read_header(file)
            self._places = header.tensors
            self._file_of = dict.fromkeys(self._places, file)
            self._entries = _entries(header, path)
        self.tensors: Mapping[str, TensorInfo] = {
            **{name: self._info(name, stored) for name, stored in self._places.items()},
            **{name: _missing_info(name, shard) for name, shard in self._missing.items()},
        }
        if self._entries is not None:
            check_record(self._entries, self.tensors, path)

    def _open_shards(self, shards: Mapping[str, str]) -> None:
        headers: dict[str, tuple[RangedFile, Header]] = {}
        for shard in sorted(set(shards.values())):
            if os.path.isfile(shard):
                file = RangedFile(shard)
                headers[shard] = (file, read_header(file))
        for name, shard in shards.items():
            if shard not in headers:
                self._missing[name] = shard
                continue
            file, header = headers[shard]
            if name not in header.tensors:
                raise DataLossError(f"{self.path} says that tensor {name!r} is in {shard}, and it is not there.")
            self._places[name] = header.tensors[name]
            self._file_of[name] = file

    @property
    def specs(self) -> Mapping[str, VariableSpec] | None:
        """The variables as they were saved, None for a file of another program."""
        return None if self._entries is None else {name: entry.spec for name, entry in self._entries.items()}

    def _info(self, name: str, stored: Stored) -> TensorInfo:
        if stored.dtype is None:
            problem = f"its type is {stored.type_name}, which NumPy has no dtype for"
            return TensorInfo(name, stored.shape, np.dtype(object), stored.type_name, problem)
        entry = None if self._entries is None else self._entries.get(name)
        return TensorInfo(name, stored.shape, stored.dtype, shown_type(entry, stored.dtype))

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as a new array in the file's dtype, checked against its checksum if it has one.

        Raises:
          NotFoundError: its file is missing.
          InvalidArgumentError: it is of a type that NumPy does not have.
          DataLossError: the values do not match their checksum, or the file became shorter.
        """
        return next(self.read_many([name]))[1]

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) in the order in which the values lie in the files; raises as `read` does."""
        pieces: dict[RangedFile, list[tuple[str, int, int]]] = {}
        for name in dict.fromkeys(names):
            self._check_readable(name)
            stored = self._places[name]
            pieces.setdefault(self._file_of[name], []).append((name, stored.start, stored.end - stored.start))
        for file in pieces:
            for name, octets in read_pieces(file, pieces[file]):
                yield name, self._checked(name, octets, file)

    def stored_parts(self, name: str) -> list[StoredPart] | None:
        """Return where a tensor lies row by row, None where it must be read as a whole. `read` says what is wrong."""
        stored, info = self._places.get(name), self.tensors[name]
        if stored is None or info.problem or not info.shape:
            return None
        value = None if self._entries is None else self._entries[name].crc32c
        checksum = None if value is None else Checksum("crc32c", value)
        index = tuple(slice(0, dim) for dim in info.shape)
        return [StoredPart(self._file_of[name], stored.start, info.dtype, index, checksum)]

    def _check_readable(self, name: str) -> None:
        if name in self._missing:
            raise NotFoundError(
                f"Cannot read tensor {name!r}: its file {self._missing[name]} does not exist. "
                f"Copy it to the folder of {self.path}."
            )
        if self.tensors[name].problem:
            raise InvalidArgumentError(f"Cannot read tensor {name!r} of {self.path}: {self.tensors[name].problem}.")

    def _checked(self, name: str, octets: npt.NDArray[np.uint8], file: RangedFile) -> npt.NDArray[Any]:
        checksum = None if self._entries is None else self._entries[name].crc32c
        if checksum is not None and crc32c(octets) != checksum:
            raise DataLossError(f"{file.path} is damaged: the values of {name!r} do not match their checksum.")
        info = self.tensors[name]
        return as_array(octets, info.dtype, info.shape, f"{file.path}, tensor {name!r},")

    def close(self) -> None:
        """Close the files."""
        for file in set(self._file_of.values()):
            file.close()


def _missing_info(name: str, shard: str) -> TensorInfo:
    problem = f"the file {os.path.basename(shard)} is missing, and its shape and type with it"
    return TensorInfo(name, (), np.dtype(object), "unknown", problem)


def _entries(header: Header, path: str) -> dict[str, Entry] | None:
    """The variables by our record, None for a file of another program."""
    record = header.metadata.get(_RECORD)
    if record is not None:
        return parse_record(record, path)
    if header.metadata.get(_MARK[0]) == _MARK[1]:
        raise DataLossError(f"{path} is damaged: jaxvars wrote it, and its record of variables is missing.")
    return None


def save_safetensors(items: Sequence[Outgoing], path: str) -> None:
    """Write a safetensors file at `path`; one that is there is replaced only when the new one is complete.

    The library and other programs read it. Values are taken one after the other. Random keys are stored as
    the numbers behind them.

    Args:
      items: the variables.
      path: the file.

    Raises:
      InvalidArgumentError: the format cannot hold some of them: strings, complex128, 4-bit integers.
      FailedPreconditionError: the disk refuses.
    """
    _refuse(items)
    placed = _placed(items)
    entries = {item.name: entry_of(item, _ANY_CHECKSUM) for item in items}
    room = len(_header(entries, placed)) + _DIGITS
    room = (room + 7) // 8 * 8
    if room - 8 > LARGEST_HEADER:
        raise InvalidArgumentError(
            f"{_FORMAT} may describe its tensors in {LARGEST_HEADER} bytes, and {len(items)} variables need {room}. "
            'Write: format="orbax"'
        )
    with whole_file(path) as file:
        file.write(bytes(room))
        for item, _ in placed:
            octets = as_octets(item)
            file.write(octets.data)
            if octets.size:
                entries[item.name] = dataclasses.replace(entries[item.name], crc32c=crc32c(octets))
        file.seek(0)
        file.write(_header(entries, placed, room))


def _header(entries: Mapping[str, Entry], placed: Sequence[tuple[Outgoing, Stored]], room: int = 0) -> bytes:
    metadata = {_MARK[0]: _MARK[1], _RECORD: record_text(entries.values())}
    return header_bytes(((item.name, stored) for item, stored in placed), metadata, room)


def _placed(items: Sequence[Outgoing]) -> list[tuple[Outgoing, Stored]]:
    """Each variable with its place, counted from the first value: wide types first, so that all are aligned."""
    placed: list[tuple[Outgoing, Stored]] = []
    position = 0
    known = [(item, item.shape, item.dtype) for item in items]
    for item, shape, dtype in sorted(known, key=lambda row: (-row[2].itemsize, row[0].name)):
        end = position + math.prod(shape) * dtype.itemsize
        placed.append((item, Stored(tensor_type(dtype) or "", dtype, shape, position, end)))
        position = end
    return placed


def _refuse(items: Sequence[Outgoing]) -> None:
    refuse_strings(items, _FORMAT)
    refuse_names(items, _FORMAT)
    others = [f"{item.name} ({item.dtype})" for item in items if tensor_type(item.dtype) is None]
    if others:
        raise InvalidArgumentError(
            f'{_FORMAT} has no type for {some_names(others)}. Write: format="orbax", or format="npz"'
        )
    if any(item.name == METADATA for item in items):
        raise InvalidArgumentError(
            f"{_FORMAT} cannot hold a variable of the name {METADATA!r}, which the format itself uses. "
            f'Rename it first: variables.rename({{"{METADATA}": "new name"}})'
        )

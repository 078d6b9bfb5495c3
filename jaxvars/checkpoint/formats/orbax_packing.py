"""The file of jaxvars inside an Orbax checkpoint: the small variables, and the record of all variables.

Orbax takes a millisecond or two for each array, however small. So variables of at most `LARGEST_PACKED` bytes lie
back to back in this one file, and only larger ones are Orbax arrays. Layout:

    values | record, JSON: {"version": 2, "variables": {...}} | trailer: bytes of values, bytes of record,
                                                                crc32c of the record and these numbers, magic

A variable's entry in the record says where its values begin, and has their crc32c. The record is read first, then of
the values only what is asked for.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.orbax_layout import packed_path
from jaxvars.checkpoint.formats.orbax_record import Entry, decode_variables, encode_variables
from jaxvars.errors import DataLossError

__all__ = ["LARGEST_PACKED", "PackedFile", "PackedWriter"]

LARGEST_PACKED = 1 << 16  # beyond it the bytes take Orbax as long as the call
_NUMBERS = struct.Struct("<QQ")
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"jaxvars pack"
_TRAILER_BYTES = _NUMBERS.size + _CHECKSUM.size + len(_MAGIC)
_MOST_BYTES_AT_ONCE = 1 << 22


class PackedWriter:
    """The file being written: add the small variables, then finish with the entries of all.

    Args:
      folder: the checkpoint, where there is no such file yet.
    """

    def __init__(self, folder: str) -> None:
        self._file = open(packed_path(folder), "xb")  # noqa: SIM115 - closed by __exit__
        self._position = 0

    def add(self, array: npt.NDArray[Any]) -> int:
        """Write the values and return where they begin."""
        begin = self._position
        self._write(array.reshape(-1).view(np.uint8).data if array.size else b"")
        return begin

    def finish(self, entries: Iterable[Entry]) -> None:
        """Write the record, and flush the file to the disk."""
        record = json.dumps(encode_variables(entries), separators=(",", ":")).encode()
        numbers = _NUMBERS.pack(self._position, len(record))
        self._write(record + numbers + _CHECKSUM.pack(crc32c(record + numbers)) + _MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write(self, data: Any) -> None:
        self._file.write(data)
        self._position += len(data)

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class PackedFile:
    """The file, open for reading from any thread.

    Args:
      folder: the checkpoint.

    Attributes:
      entries: all variables of the checkpoint, in the order in which they were saved; each is decoded when it is used.

    Raises:
      DataLossError: it is damaged.
      InvalidArgumentError: a newer jaxvars wrote it.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file = RangedFile(packed_path(folder))
        self._identity = _identity(self._file.path)
        self.entries: Mapping[str, Entry] = decode_variables(self._record(), folder)

    def _record(self) -> Any:
        file = self._file
        trailer = file.read(max(0, file.size - _TRAILER_BYTES), min(_TRAILER_BYTES, file.size), "its end")
        if len(trailer) == _TRAILER_BYTES and trailer.endswith(_MAGIC):
            values, length = _NUMBERS.unpack_from(trailer)
            if values + length + _TRAILER_BYTES == file.size:
                record = file.read(values, length, "the record of variables")
                if crc32c(trailer[: _NUMBERS.size], crc32c(record)) == _CHECKSUM.unpack_from(trailer, _NUMBERS.size)[0]:
                    self._values_end = values
                    return _parsed(record, file.path)
        raise DataLossError(f"{file.path} is damaged: its record of variables does not match its checksum.")

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, values) of variables that lie in this file; neighbors are read at once.

        Raises:
          DataLossError: the file is damaged.
        """
        for begin, end, run in _runs([(name, self.entries[name]) for name in names]):
            if end > self._values_end:
                raise DataLossError(f"{self._file.path} is damaged: {run[-1][0]!r} should lie beyond its values.")
            octets = self._file.read_array(begin, end - begin, "the values of small variables")
            for name, entry in run:
                part = octets[_begin(entry) - begin :][: _size(entry)]
                # A copy: every variable has memory of its own, which JAX may keep.
                yield name, part.view(entry.dtype).reshape(entry.shape).copy()

    def was_replaced(self) -> bool:
        """Whether another checkpoint, or none, is now where this one was opened."""
        return _identity(self._file.path) != self._identity

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _parsed(record: bytes, path: str) -> Any:
    try:
        return json.loads(record)
    except (ValueError, RecursionError):
        raise DataLossError(
            f"{path} is damaged: its record of variables is not the text that jaxvars writes."
        ) from None


def _runs(entries: Sequence[tuple[str, Entry]]) -> Iterator[tuple[int, int, list[tuple[str, Entry]]]]:
    """Yield (begin, end, entries that lie there without gaps)."""
    run: list[tuple[str, Entry]] = []
    begin = end = 0
    for name, entry in sorted(entries, key=lambda item: (_begin(item[1]), _size(item[1]))):
        if run and (_begin(entry) != end or end - begin >= _MOST_BYTES_AT_ONCE):
            yield begin, end, run
            run = []
        if not run:
            begin = end = _begin(entry)
        run.append((name, entry))
        end += _size(entry)
    if run:
        yield begin, end, run


def _begin(entry: Entry) -> int:
    assert isinstance(entry.at, int)
    return entry.at


def _size(entry: Entry) -> int:
    return math.prod(entry.shape) * entry.dtype.itemsize

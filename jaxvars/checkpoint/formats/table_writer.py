"""Writing TensorFlow's table file, byte by byte as TensorFlow writes the index of a V2 checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO

from jaxvars.checkpoint.formats.crc32c import crc32c, mask
from jaxvars.checkpoint.formats.protos import write_varint
from jaxvars.checkpoint.formats.table import FOOTER_MAGIC

__all__ = ["write_table"]

_BLOCK_SIZE = 262_144
_RESTART_INTERVAL = 16
_HANDLES_SIZE = 40
_RAW = b"\x00"  # the type of a block without compression


def write_table(file: BinaryIO, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """Write a table.

    Args:
      file: open for writing, empty.
      entries: (key, value) with the keys strictly ascending.
    """
    writer = _TableWriter(file)
    block = _Block(_RESTART_INTERVAL)
    pending: tuple[bytes, bytes] | None = None  # the last block: its last key, its place
    index = _Block(1)
    for key, value in entries:
        if pending is not None:
            index.add(_separator(pending[0], key), pending[1])
            pending = None
        block.add(key, value)
        if block.size >= _BLOCK_SIZE:
            pending = key, writer.add(block)
            block = _Block(_RESTART_INTERVAL)
    if block.last_key is not None:
        pending = block.last_key, writer.add(block)
    if pending is not None:
        index.add(_successor(pending[0]), pending[1])
    handles = writer.add(_Block(_RESTART_INTERVAL)) + writer.add(index)
    file.write(handles.ljust(_HANDLES_SIZE, b"\0") + FOOTER_MAGIC)


class _Block:
    """Entries that share the beginnings of their keys; every `interval`th key is written in full."""

    def __init__(self, interval: int) -> None:
        self.last_key: bytes | None = None
        self._interval = interval
        self._parts: list[bytes] = []
        self._restarts = [0]
        self._since_restart = 0
        self._length = 0

    @property
    def size(self) -> int:
        """Bytes of the block as it would be written now."""
        return self._length + 4 * (len(self._restarts) + 1)

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_restart < self._interval:
            shared = _shared_length(self.last_key or b"", key)
        else:
            self._restarts.append(self._length)
            self._since_restart = 0
        head = write_varint(shared) + write_varint(len(key) - shared) + write_varint(len(value))
        entry = head + key[shared:] + value
        self._parts.append(entry)
        self._length += len(entry)
        self._since_restart += 1
        self.last_key = key

    def contents(self) -> bytes:
        return b"".join(self._parts) + _fixed(self._restarts) + _fixed([len(self._restarts)])


class _TableWriter:
    """Appends blocks, each followed by its type and checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0

    def add(self, block: _Block) -> bytes:
        """Write the block and return its handle: where it lies and its size."""
        contents = block.contents()
        check = mask(crc32c(contents + _RAW))
        self._file.write(contents + _RAW + check.to_bytes(4, "little"))
        handle = write_varint(self._offset) + write_varint(len(contents))
        self._offset += len(contents) + len(_RAW) + 4
        return handle


def _fixed(numbers: Sequence[int]) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def _shared_length(left: bytes, right: bytes) -> int:
    most = min(len(left), len(right))
    if left[:most] == right[:most]:
        return most
    return next(place for place in range(most) if left[place] != right[place])


def _separator(last: bytes, following: bytes) -> bytes:
    """A short key from `last` on, below `following`."""
    place = _shared_length(last, following)
    if place < min(len(last), len(following)) and last[place] < 0xFF and last[place] + 1 < following[place]:
        return last[:place] + bytes([last[place] + 1])
    return last


def _successor(key: bytes) -> bytes:
    """A short key from `key` on."""
    place = next((place for place, octet in enumerate(key) if octet != 0xFF), len(key))
    return key[:place] + bytes([key[place] + 1]) if place < len(key) else key

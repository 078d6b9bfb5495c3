"""TensorFlow's table file (LevelDB's SSTable): the index of a V2 checkpoint, and a whole V1 checkpoint.

A table is a sorted map from bytes to bytes, cut into checksummed blocks; the last 48 bytes point to the
block that indexes the others.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

from jaxvars.checkpoint.formats.crc32c import crc32c, unmask
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.protos import read_varint
from jaxvars.checkpoint.formats.snappy import decompress
from jaxvars.errors import DataLossError

__all__ = ["FOOTER_MAGIC", "Table"]

FOOTER_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # one byte of compression type, four of checksum
_LONGEST_KEY = 1 << 16
# Keys are stored as differences, so a hostile block could expand to far more than its size.
_MOST_KEY_BYTES_PER_BLOCK = 1 << 26
_MOST_KEY_GROWTH = 100  # of all keys together; names that share long scopes grow about tenfold
_LARGEST_KEPT_BLOCK = 1 << 24


class _Handle(NamedTuple):
    offset: int
    size: int


class Table:
    """A table file, open for reading. Only the index block is read on opening.

    Args:
      file: the open file; the caller keeps and closes it.

    Raises:
      DataLossError: the footer or the index block is damaged.
    """

    def __init__(self, file: RangedFile) -> None:
        self._file = file
        self._what = file.path
        if file.size < _FOOTER_SIZE:
            raise DataLossError(f"{self._what} is cut short: {file.size} bytes hold no table.")
        footer = file.read(file.size - _FOOTER_SIZE, _FOOTER_SIZE, "the footer")
        if footer[-8:] != FOOTER_MAGIC:
            raise DataLossError(f"{self._what} is not a TensorFlow table, or its end is missing.")
        _, position = self._handle(footer, 0)
        index, _ = self._handle(footer, position)
        self._kept: tuple[_Handle | None, dict[bytes, bytes]] = None, {}
        self._last_keys: list[bytes] = []
        self._handles: list[_Handle] = []
        end = 0
        for key, value in self._block(index):
            handle, _ = self._handle(value, 0)
            if handle.offset < end:  # also bounds the work: no block is reached twice
                raise DataLossError(f"{self._what} is damaged: its blocks overlap.")
            end = handle.offset + handle.size + _TRAILER_SIZE
            self._last_keys.append(key)
            self._handles.append(handle)

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every (key, value), keys ascending.

        Raises:
          DataLossError: a block is damaged or the keys are out of order.
        """
        last: bytes | None = None
        left = max(_MOST_KEY_BYTES_PER_BLOCK, _MOST_KEY_GROWTH * self._file.size)
        for handle in self._handles:
            for key, value in self._block(handle):
                left -= len(key)
                if left < 0 or (last is not None and key <= last):
                    raise DataLossError(f"{self._what} is damaged: its keys are out of order, or impossibly long.")
                last = key
                yield key, value

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it is not there. Reads one block, and keeps it for its neighbors."""
        position = bisect.bisect_left(self._last_keys, key)
        if position == len(self._handles):
            return None
        handle = self._handles[position]
        if handle.size > _LARGEST_KEPT_BLOCK:
            return next((value for found, value in self._block(handle) if found == key), None)
        kept, entries = self._kept
        if kept != handle:
            entries = dict(self._block(handle))
            self._kept = handle, entries
        return entries.get(key)

    def _handle(self, data: bytes, position: int) -> tuple[_Handle, int]:
        offset, position = read_varint(data, position, self._what)
        size, position = read_varint(data, position, self._what)
        return _Handle(offset, size), position

    def _contents(self, handle: _Handle) -> bytes:
        what = f"the block at byte {handle.offset}"
        raw = self._file.read(handle.offset, handle.size + _TRAILER_SIZE, what)
        stored = int.from_bytes(raw[-4:], "little")
        if crc32c(memoryview(raw)[:-4]) != unmask(stored):
            raise DataLossError(f"{self._what} is damaged: {what} does not match its checksum.")
        kind = raw[-5]
        if kind == 0:
            return raw[:-_TRAILER_SIZE]
        if kind == 1:
            return decompress(raw[:-_TRAILER_SIZE], f"{self._what}, {what},")
        raise DataLossError(f"{self._what}: {what} uses compression {kind}, which TensorFlow never wrote.")

    def _block(self, handle: _Handle) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries of one block: each key shares a prefix with the one before it."""
        data = self._contents(handle)
        restarts = int.from_bytes(data[-4:], "little") if len(data) >= 4 else -1
        end = len(data) - 4 * (restarts + 1)
        if restarts < 0 or end < 0:
            raise DataLossError(f"{self._what} is damaged: the block at byte {handle.offset} has no entries.")
        key, position, key_bytes = b"", 0, 0
        while position < end:
            shared, unshared, size = data[position : position + 3]
            if shared | unshared | size < 0x80:  # three numbers of one byte, as they mostly are
                position += 3
            else:
                shared, position = read_varint(data, position, self._what)
                unshared, position = read_varint(data, position, self._what)
                size, position = read_varint(data, position, self._what)
            after_key = position + unshared
            key_bytes += shared + unshared
            if (
                shared > len(key)
                or after_key + size > end
                or shared + unshared > _LONGEST_KEY
                or key_bytes > _MOST_KEY_BYTES_PER_BLOCK
            ):
                raise DataLossError(f"{self._what} is damaged: an entry runs past its block.")
            key = key[:shared] + data[position:after_key]
            position = after_key + size
            yield key, data[after_key:position]

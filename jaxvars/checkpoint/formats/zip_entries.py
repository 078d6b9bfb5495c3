"""The entries of a zip archive as byte ranges of a file: stored or deflated, every size bounded, CRCs checked.

Many small entries are read at once, any thread may read, and none is unpacked beyond what its bytes can be.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.raw_arrays import read_pieces
from jaxvars.checkpoint.formats.zip_directory import Listed, read_directory
from jaxvars.errors import DataLossError

__all__ = ["ZipEntry", "beginning", "read_entries", "zip_entries"]

_LOCAL = struct.Struct("<4s5H3L2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1
_STORED, _DEFLATED = 0, 8
_MOST_RATIO = 1032  # deflate: 258 bytes from 2 bits
_GUESSED_BEGINNING = 256
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry.

    Attributes:
      name: its name in the archive.
      start: where its bytes begin in the file.
      packed: how many they are.
      size: how many they are when they are unpacked.
      crc: their CRC-32.
      is_deflated: whether they are deflated, else they are stored as they are.
      problem: why the entry cannot be read, "" if it can.
      head: the first bytes in the file, as far as they were read already.
    """

    name: str
    start: int
    packed: int
    size: int
    crc: int
    is_deflated: bool
    problem: str
    head: bytes


def zip_entries(file: RangedFile) -> dict[str, ZipEntry]:
    """Return the entries by name, in the order of the directory.

    Raises:
      DataLossError: the archive is damaged.
    """
    found = read_directory(file)
    listed = {entry.name: entry for entry in found}
    if len(listed) != len(found):
        raise DataLossError(f"{file.path} is damaged: two of its entries have one name.")
    # What stands before each entry is checked against the directory.
    pieces = [(entry.name, entry.offset, _guessed_size(file, entry)) for entry in found]
    heads = {name: head.tobytes() for name, head in read_pieces(file, pieces)}
    entries = {name: _entry(file, entry, heads[name]) for name, entry in listed.items()}
    end = 0
    for name, entry in sorted(listed.items(), key=lambda item: item[1].offset):
        # Else a few bytes could stand for any number of large entries.
        if entry.offset < end:
            raise DataLossError(f"{file.path} is damaged: entry {name!r} overlaps the one before it.")
        end = entries[name].start + entry.packed
    return entries


def _guessed_size(file: RangedFile, listed: Listed) -> int:
    if listed.offset + _LOCAL.size > file.size:
        raise DataLossError(f"{file.path} is damaged: entry {listed.name!r} should lie outside the file.")
    return min(_LOCAL.size + len(listed.raw_name) + _GUESSED_BEGINNING, file.size - listed.offset)


def _entry(file: RangedFile, listed: Listed, head: bytes) -> ZipEntry:
    what = f"{file.path}, entry {listed.name!r},"
    magic, _, _, _, _, _, _, _, _, length, extra = _LOCAL.unpack_from(head)
    if magic != _LOCAL_MAGIC or head[_LOCAL.size : _LOCAL.size + length] != listed.raw_name:
        raise DataLossError(f"{what} is damaged: its own header does not match the directory.")
    before = _LOCAL.size + length + extra
    start = listed.offset + before
    if start + listed.packed > file.size:
        raise DataLossError(f"{what} is damaged or cut short: its end lies outside the file.")
    deflated = listed.method == _DEFLATED
    problem = ""
    if listed.flags & _ENCRYPTED:
        problem = "the entry is encrypted"
    elif listed.method not in (_STORED, _DEFLATED):
        problem = f"the entry is compressed by method {listed.method}, and only deflate is known"
    most = listed.packed * (_MOST_RATIO if deflated else 1)
    if not problem and (listed.size > most or (not deflated and listed.size != most)):
        raise DataLossError(f"{what} is damaged: it claims {listed.size} bytes out of {listed.packed}.")
    head = head[before : before + listed.packed]
    return ZipEntry(listed.name, start, listed.packed, listed.size, listed.crc, deflated, problem, head)


def beginning(file: RangedFile, entry: ZipEntry, size: int) -> bytes:
    """Return the first `size` bytes of an entry, fewer if it has fewer. Their CRC is not checked.

    Raises:
      DataLossError: they cannot be unpacked.
    """
    size = min(size, entry.size)
    if not entry.is_deflated:
        have = len(entry.head) >= size
        return entry.head[:size] if have else file.read(entry.start, size, f"entry {entry.name!r}")
    data = b""
    for packed in (entry.head, None):  # what was read already is most often enough
        octets = packed if packed is not None else file.read(entry.start, min(entry.packed, _CHUNK), entry.name)
        data = _inflate(zlib.decompressobj(-zlib.MAX_WBITS), octets, size, _what(file, entry))
        if len(data) >= size:
            break
    return data


def read_entries(file: RangedFile, entries: Sequence[ZipEntry]) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield (name, bytes in an array of their own) in the order of the file, checked against their CRC.

    Raises:
      DataLossError: they do not match it, cannot be unpacked, or the file became shorter.
    """
    by_name = {entry.name: entry for entry in entries}
    stored = [(entry.name, entry.start, entry.packed) for entry in entries if not entry.is_deflated]
    for name, octets in read_pieces(file, stored):
        yield name, _checked(file, by_name[name], octets)
    for entry in sorted((entry for entry in entries if entry.is_deflated), key=lambda entry: entry.start):
        yield entry.name, _checked(file, entry, _inflated(file, entry))


def _checked(file: RangedFile, entry: ZipEntry, octets: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if zlib.crc32(octets.data) != entry.crc:
        raise DataLossError(f"{_what(file, entry)} is damaged: its bytes do not match their checksum.")
    return octets


def _inflated(file: RangedFile, entry: ZipEntry) -> npt.NDArray[np.uint8]:
    """Unpack an entry piece by piece, never more than it claims."""
    what = _what(file, entry)
    octets = np.empty(entry.size, np.uint8)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    done = position = 0
    while position < entry.packed or stream.unconsumed_tail:
        packed = stream.unconsumed_tail
        if not packed:
            packed = file.read(entry.start + position, min(_CHUNK, entry.packed - position), what)
            position += len(packed)
        # One byte more than there should be, so that an entry that goes on is noticed.
        data = _inflate(stream, packed, min(_CHUNK, entry.size - done + 1), what)
        if (stream.eof and (stream.unused_data or position < entry.packed)) or done + len(data) > entry.size:
            raise DataLossError(f"{what} is damaged: it goes on after its end.")
        octets[done : done + len(data)] = np.frombuffer(data, np.uint8)
        done += len(data)
        if stream.eof:
            break
    if done != entry.size or not stream.eof:
        raise DataLossError(f"{what} is damaged: it unpacks to {done} bytes and claims {entry.size}.")
    return octets


def _inflate(stream: Any, packed: bytes, most: int, what: str) -> bytes:
    if not most:  # to zlib, 0 means without limit
        return b""
    try:
        return stream.decompress(packed, most)
    except zlib.error as error:
        raise DataLossError(f"{what} is damaged: it cannot be unpacked ({error}).") from None


def _what(file: RangedFile, entry: ZipEntry) -> str:
    return f"{file.path}, entry {entry.name!r},"

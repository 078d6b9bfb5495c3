"""The directory at the end of a zip archive, where all entries are listed.

Read without Python's zipfile, which takes a damaged directory for a shorter one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.errors import DataLossError

__all__ = ["Listed", "read_directory"]

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR_MAGIC, _LOCATOR_SIZE = b"PK\x06\x07", 20
_END_64 = struct.Struct("<4sQ2H2L4Q")  # with sizes of 64 bits; stands before the locator
_END_64_MAGIC = b"PK\x06\x06"
_LISTED = struct.Struct("<4s6H3L5H2L")
_LISTED_MAGIC = b"PK\x01\x02"
_LONGEST_COMMENT = 0xFFFF
_UTF8 = 0x800
_WIDE_FIELD, _SEE_WIDE_FIELD = 1, 0xFFFFFFFF


class Listed(NamedTuple):
    """What the directory says of one entry: sizes are of its bytes in the file and unpacked, `offset` of its header."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def read_directory(file: RangedFile) -> list[Listed]:
    """Return the entries of an archive.

    Raises:
      DataLossError: it is damaged, or no archive.
    """
    start, size, count, shift = _find(file)
    data = file.read(start, size, "the directory")
    found: list[Listed] = []
    position = 0
    while position < size and len(found) < count:
        if position + _LISTED.size > size:
            break
        fields = _LISTED.unpack_from(data, position)
        names = position + _LISTED.size
        extra = names + fields[10]
        comment = extra + fields[11]
        position = comment + fields[12]
        if fields[0] != _LISTED_MAGIC or position > size:
            break
        raw, (packed, unpacked, offset) = data[names:extra], _wide(data[extra:comment], fields, file)
        name = _text(raw, fields[3], file)
        found.append(Listed(name, raw, fields[3], fields[4], fields[7], packed, unpacked, offset + shift))
    if position != size or len(found) != count:
        raise DataLossError(f"{file.path} is damaged: its directory should list {count} entries, and does not.")
    return found


def _find(file: RangedFile) -> tuple[int, int, int, int]:
    """Where the directory begins, its size, its number of entries, and what stands before the archive."""
    tail_size = min(file.size, _END.size + _LONGEST_COMMENT + _LOCATOR_SIZE + _END_64.size)
    tail = file.read(file.size - tail_size, tail_size, "the end of the archive")
    place = tail.rfind(_END_MAGIC)
    if place < 0 or place + _END.size > tail_size:
        raise DataLossError(f"{file.path} is cut short, or no zip archive: it has no directory at its end.")
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, place)
    locator = place - _LOCATOR_SIZE
    if locator >= 0 and tail.startswith(_LOCATOR_MAGIC, locator):
        place = locator - _END_64.size
        if place < 0 or not tail.startswith(_END_64_MAGIC, place):
            raise DataLossError(f"{file.path} is damaged: the end of its directory is missing.")
        *_, count, size, offset = _END_64.unpack_from(tail, place)
    start = file.size - tail_size + place - size
    if start < 0 or offset > start:
        raise DataLossError(f"{file.path} is damaged: its directory of {size} bytes should begin at byte {offset}.")
    return start, size, count, start - offset


def _wide(extra: bytes, fields: tuple[int, ...], file: RangedFile) -> tuple[int, int, int]:
    """The packed and the unpacked size and the offset, of which a field of 64 bits holds the large ones."""
    packed, size, offset = fields[8], fields[9], fields[16]
    wide = _wide_values(extra)
    try:
        # The order in the field is another than in the entry.
        size = next(wide) if size == _SEE_WIDE_FIELD else size
        packed = next(wide) if packed == _SEE_WIDE_FIELD else packed
        offset = next(wide) if offset == _SEE_WIDE_FIELD else offset
    except StopIteration:
        raise DataLossError(f"{file.path} is damaged: its directory lacks the size of a large entry.") from None
    return packed, size, offset


def _wide_values(extra: bytes) -> Iterator[int]:
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == _WIDE_FIELD:
            octets = extra[position : position + size]
            return iter([int.from_bytes(octets[at : at + 8], "little") for at in range(0, len(octets) - 7, 8)])
        position += size
    return iter(())


def _text(name: bytes, flags: int, file: RangedFile) -> str:
    try:
        return name.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        raise DataLossError(f"{file.path} is damaged: its directory has a name that is no text.") from None

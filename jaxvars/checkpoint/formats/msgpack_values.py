"""The structure of a msgpack file: maps, lists and where the values lie, without reading the values.

Every length is held against the bytes that are left before it is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["Extension", "Node", "Text", "looks_like_msgpack", "read_node", "read_tree"]

_WINDOW = 1 << 16
_LONGEST_KEY = 1 << 16
_MOST_LEVELS = 100
_MOST_NODES = 1 << 20
# First byte -> bytes of the length that follows it.
_BINARY = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSION = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSION = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # -> bytes of the value itself
_LIST, _MAP = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


@dataclass(frozen=True, slots=True)
class Text:
    """A string or a string of bytes: where it lies."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Extension:
    """A value of a type of the application's own: its number, and where the bytes lie."""

    code: int
    offset: int
    size: int


# A map is a list of pairs, so that a key that comes twice is seen; numbers, bools and None are themselves.
Node = Text | Extension | list[tuple[str, "Node"]] | int | float | bool | None


def looks_like_msgpack(head: bytes, size: int) -> bool:
    """Whether a file is a msgpack map whose first key is a string, as far as its beginning tells.

    Args:
      head: the first bytes of the file (some hundred).
      size: the size of the file.
    """
    if len(head) < 3:
        return False
    first = head[0]
    if 0x81 <= first <= 0x8F:
        count, at = first & 0x0F, 1
    elif first in _MAP:
        count, at = int.from_bytes(head[1 : 1 + _MAP[first]], "big"), 1 + _MAP[first]
    else:
        return False
    if len(head) < at + 2 or not 0 < count <= size // 2:
        return False
    if 0xA0 <= head[at] <= 0xBF:
        length, start = head[at] & 0x1F, at + 1
    elif head[at] in _TEXT:
        start = at + 1 + _TEXT[head[at]]
        length = int.from_bytes(head[at + 1 : start], "big")
    else:
        return False
    if start + length >= size or length > _LONGEST_KEY:
        return False
    try:
        key = head[start : start + length].decode()
    except UnicodeDecodeError as error:
        if start + length <= len(head) or error.start < len(head) - start - 3:
            return False
        key = ""  # only its last character is cut off, by the end of `head`
    return key.isprintable() and head[start + length : start + length + 1] != b"\xc1"  # which begins no value


def read_tree(file: RangedFile) -> list[tuple[str, Node]]:
    """Return the map, or the list, that a file holds.

    Raises:
      InvalidArgumentError: the file holds something else.
      DataLossError: it is damaged or cut short.
    """
    cursor = _Cursor(file, 0, file.size)
    node = _node(cursor, 0)
    if not isinstance(node, list):
        raise InvalidArgumentError(f"{file.path} is a msgpack file without a map of names.")
    if cursor.position != file.size:
        raise DataLossError(f"{file.path} is damaged: {file.size - cursor.position} bytes follow its end.")
    return node


def read_node(file: RangedFile, offset: int, size: int) -> Node:
    """Return the value in a range of the file, which it must fill: what an extension holds."""
    cursor = _Cursor(file, offset, offset + size)
    node = _node(cursor, 0)
    if cursor.position != offset + size:
        raise DataLossError(f"{file.path} is damaged: the value at byte {offset} does not fill its {size} bytes.")
    return node


class _Cursor:
    """A place in a range of a file; small reads are served from a window."""

    def __init__(self, file: RangedFile, start: int, end: int) -> None:
        self.file = file
        self.position = start
        self.nodes = 0
        self._end = end
        self._window = b""
        self._window_start = start

    def left(self) -> int:
        return self._end - self.position

    def take(self, count: int) -> bytes:
        """Return the next few bytes."""
        at = self.position - self._window_start
        if at < 0 or at + count > len(self._window):
            self.check(count)
            size = min(max(count, _WINDOW), self.left())
            self._window, self._window_start, at = self.file.read(self.position, size, "a value"), self.position, 0
        self.position += count
        return self._window[at : at + count]

    def skip(self, count: int) -> int:
        """Pass over bytes; return where they begin."""
        self.check(count)
        self.position += count
        return self.position - count

    def check(self, count: int) -> None:
        if count > self.left():
            raise DataLossError(
                f"{self.file.path} is damaged or cut short: a value at byte {self.position} claims {count} bytes, "
                f"of which there are {self.left()}."
            )

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")


def _node(cursor: _Cursor, level: int) -> Node:
    cursor.nodes += 1
    if level > _MOST_LEVELS or cursor.nodes > _MOST_NODES:
        raise DataLossError(f"{cursor.file.path} is damaged: it is nested deeper, or in more parts, than any state.")
    first = cursor.take(1)[0]
    if first < 0x80 or first >= 0xE0:
        return first if first < 0x80 else first - 0x100
    if first in _NUMBERS:
        form = _NUMBERS[first]
        value: Any = struct.unpack(form, cursor.take(struct.calcsize(form)))[0]
        return value
    if first in _CONSTANTS:
        return _CONSTANTS[first]
    count = _count(cursor, first, _MAP, 0x80, 0x0F)
    if count is not None:
        return _children(cursor, count, level, keys=True)
    count = _count(cursor, first, _LIST, 0x90, 0x0F)
    if count is not None:
        return _children(cursor, count, level, keys=False)
    size = _text_size(cursor, first)
    if size is not None:
        return Text(cursor.skip(size), size)
    if first in _FIXED_EXTENSION or first in _EXTENSION:
        size = _FIXED_EXTENSION[first] if first in _FIXED_EXTENSION else cursor.number(_EXTENSION[first])
        code = cursor.number(1)
        return Extension(code if code < 0x80 else code - 0x100, cursor.skip(size), size)
    raise DataLossError(f"{cursor.file.path} is damaged: byte {cursor.position - 1} begins no msgpack value.")


def _count(cursor: _Cursor, first: int, widths: dict[int, int], fixed: int, mask: int) -> int | None:
    """The length of a value of one kind, None where `first` begins another kind."""
    if first in widths:
        return cursor.number(widths[first])
    return first & mask if first & ~mask == fixed else None


def _text_size(cursor: _Cursor, first: int) -> int | None:
    return _count(cursor, first, {**_TEXT, **_BINARY}, 0xA0, 0x1F)


def _children(cursor: _Cursor, count: int, level: int, keys: bool) -> list[tuple[str, Node]]:
    cursor.check(count * (2 if keys else 1))  # each takes at least one byte
    return [(_key(cursor, level) if keys else str(number), _node(cursor, level + 1)) for number in range(count)]


def _key(cursor: _Cursor, level: int) -> str:
    start = cursor.position
    first = cursor.take(1)[0]
    size = _text_size(cursor, first)
    if size is not None and size <= _LONGEST_KEY:
        return cursor.take(size).decode("utf-8", "backslashreplace")
    if first < 0x80 or first >= 0xE0 or first in _NUMBERS:
        cursor.position = start
        number = _node(cursor, level)
        if type(number) is int:
            return str(number)
    raise InvalidArgumentError(f"{cursor.file.path} has a key at byte {start} that is no name.")

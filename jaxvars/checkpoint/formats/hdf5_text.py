"""Texts in HDF5 files, read without libhdf5: attributes that are texts, and the heaps where strings lie.

libhdf5 takes memory for a string by the length that the file claims, and walks some damaged heaps for ever.
Here each length is held against the file first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from jaxvars.errors import DataLossError

__all__ = ["DESCRIPTOR", "Octets", "Texts", "heap_objects"]

DESCRIPTOR = 16  # bytes of a string's length, the address of its heap and its number there
_HEAP_HEAD, _HEAP_HEADER, _OBJECT_HEADER = b"GCOL\x01", 16, 16
_LAYOUT, _ATTRIBUTE, _CONTINUATION = 0x08, 0x0C, 0x10
_CHUNKED, _FIXED_ARRAY = 2, 3  # a class of layouts; a kind of index of chunks, which newer versions of HDF5 write
_FIXED_TEXT, _VARIABLE = 3, 9
_MOST_BLOCKS = 1000
_MOST_EXPANSION = 16
_ALWAYS_ALLOWED = 1 << 26


class Octets(Protocol):
    """A range of bytes to read from: a `RangedFile`, or a part of one."""

    path: str
    size: int

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Return `size` bytes at `offset`; `what` names them in the error."""
        ...

    def read_into(self, octets: npt.NDArray[np.uint8], offset: int, what: str) -> None:
        """Fill `octets` from a range that is known to be there."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Texts:
    """The texts of one file.

    Args:
      octets: the file.
      base: where its addresses begin.
    """

    def __init__(self, octets: Octets, base: int) -> None:
        self._octets = octets
        self._base = base
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def attribute(self, address: int, name: str) -> list[str]:
        """Return the attribute of the object at `address`: a text or a list of texts, [] where it is none.

        Raises:
          DataLossError: the object is damaged.
        """
        for kind, message in self._messages(self._base + address):
            if kind == _ATTRIBUTE:
                found = self._attribute(message)
                if found is not None and found[0] == name.encode():
                    return [text.decode("utf-8", "backslashreplace") for text in found[1]]
        return []

    def strings(self, descriptors: bytes) -> list[bytes]:
        """Return the strings that descriptors point at.

        Raises:
          DataLossError: they point at no strings, or at more than the file can hold.
        """
        found: list[bytes] = []
        total = 0
        for start in range(0, len(descriptors), DESCRIPTOR):
            length = int.from_bytes(descriptors[start : start + 4], "little")
            address = int.from_bytes(descriptors[start + 4 : start + 12], "little")
            number = int.from_bytes(descriptors[start + 12 : start + 16], "little")
            total += length
            if total > max(_ALWAYS_ALLOWED, _MOST_EXPANSION * self._octets.size):
                raise DataLossError(f"{self._octets.path} is damaged: its strings are larger than the file can hold.")
            found.append(self._string(address, number, length) if length else b"")
        return found

    def chunk_count(self, address: int) -> int | None:
        """Return how many chunks the index of the dataset at `address` has places for.

        Returns:
          The number, None for an index that grows, or that does not tell.

        Raises:
          DataLossError: the dataset is damaged.
        """
        for kind, message in self._messages(self._base + address):
            if kind != _LAYOUT or len(message) < 5 or message[0] < 4 or message[1] != _CHUNKED:
                continue
            at = 5 + message[3] * message[4]  # after the sizes of a chunk
            index = int.from_bytes(message[at + 2 : at + 10], "little")
            if message[at : at + 1] == bytes([_FIXED_ARRAY]) and index < self._octets.size:
                head = self._octets.read(self._base + index, 16, "an index of chunks")
                return int.from_bytes(head[8:], "little")
        return None

    def _string(self, address: int, number: int, length: int) -> bytes:
        if address not in self._heaps:
            self._heaps[address] = heap_objects(self._octets, self._base + address)
        offset, size = self._heaps[address].get(number, (0, -1))
        if size != length:
            raise DataLossError(
                f"{self._octets.path} is damaged: a string of {length} bytes is not where it should be."
            )
        return self._octets.read(offset, size, "a string")

    def _messages(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield (kind, bytes) of the messages in an object's header."""
        octets = self._octets
        prefix = octets.read(start, min(16, max(0, octets.size - start)), "an object")
        newer = prefix.startswith(b"OHDR")
        if newer:
            flags = octets.read(start, 6, "an object")[5]
            at = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            blocks = [(at + width, int.from_bytes(octets.read(at, width, "an object"), "little"))]
            head = 6 if flags & 0x04 else 4
        elif prefix[:1] == b"\x01":
            blocks, head = [(start + 16, int.from_bytes(prefix[8:12], "little"))], 8
        else:
            raise DataLossError(f"{octets.path} is damaged: there is no object at byte {start}.")
        for count, (block, size) in enumerate(blocks):  # grows while it is gone through
            if count > _MOST_BLOCKS:
                raise DataLossError(f"{octets.path} is damaged: the object at byte {start} has no end.")
            data, at = octets.read(block, size, "an object"), 0
            while at + head <= size:
                kind = data[at] if newer else int.from_bytes(data[at : at + 2], "little")
                length = int.from_bytes(data[at + 1 : at + 3] if newer else data[at + 2 : at + 4], "little")
                message = data[at + head : at + head + length]
                if kind == _CONTINUATION and len(message) >= 16:
                    more, bytes_of_it = (int.from_bytes(message[i : i + 8], "little") for i in (0, 8))
                    # Newer blocks begin with a signature and end with a checksum.
                    blocks.append((self._base + more + 4 * newer, max(0, bytes_of_it - 8 * newer)))
                else:
                    yield kind, message
                at += head + length

    def _attribute(self, message: bytes) -> tuple[bytes, list[bytes]] | None:
        """Return the name and the texts of an attribute, None for one of another kind."""
        if len(message) < 9 or message[0] not in (1, 2, 3) or (message[0] > 1 and message[1]):
            return None
        lengths = [int.from_bytes(message[i : i + 2], "little") for i in (2, 4, 6)]
        at, parts = 9 if message[0] == 3 else 8, list[bytes]()
        for length in lengths:
            parts.append(message[at : at + length])
            at += (length + 7) // 8 * 8 if message[0] == 1 else length
        name, kind, space = parts
        count, data = _count(space), message[at:]
        if count is None or len(kind) < 8:
            return None
        width = int.from_bytes(kind[4:8], "little")
        if not 0 < width <= len(data) // max(count, 1):
            return None
        if kind[0] & 0x0F == _FIXED_TEXT:
            texts = [data[i * width : (i + 1) * width].rstrip(b"\0") for i in range(count)]
        elif kind[0] & 0x0F == _VARIABLE and kind[1] & 0x0F == 1 and width == DESCRIPTOR:
            texts = self.strings(data[: count * DESCRIPTOR])
        else:
            return None
        return name.rstrip(b"\0"), texts


def _count(space: bytes) -> int | None:
    """The number of elements of a dataspace, None for one that is empty or unknown."""
    if len(space) < 4 or space[0] not in (1, 2) or (space[0] == 2 and space[3] == 2):
        return None
    start = 8 if space[0] == 1 else 4
    sizes = [space[start + 8 * i : start + 8 * i + 8] for i in range(space[1])]
    return math.prod(int.from_bytes(size, "little") for size in sizes)


def heap_objects(octets: Octets, start: int) -> dict[int, tuple[int, int]]:
    """Return {number: (offset, bytes)} of the strings in a heap.

    Raises:
      DataLossError: there is no heap, or its lengths are impossible.
    """
    header = octets.read(start, _HEAP_HEADER, "a heap of strings")
    size = int.from_bytes(header[8:16], "little")
    if not header.startswith(_HEAP_HEAD) or size > octets.size - start:
        raise DataLossError(f"{octets.path} is damaged: there is no heap of strings at byte {start}.")
    heap, at = octets.read(start, size, "a heap of strings"), _HEAP_HEADER
    found: dict[int, tuple[int, int]] = {}
    while at + _OBJECT_HEADER <= size:
        number = int.from_bytes(heap[at : at + 2], "little")
        length = int.from_bytes(heap[at + 8 : at + 16], "little")
        step = _OBJECT_HEADER + (length + 7) // 8 * 8 if number else length  # number 0 is the free space
        if not step or at + step > size:
            raise DataLossError(f"{octets.path} is damaged: the strings at byte {start} have impossible lengths.")
        if number:
            found[number] = (start + at + _OBJECT_HEADER, length)
        at += step
    return found

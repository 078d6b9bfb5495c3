"""Decoding of raw snappy blocks (the one compression that TensorFlow's old tables use)."""

from __future__ import annotations

from jaxvars.checkpoint.formats.protos import read_varint
from jaxvars.errors import DataLossError

__all__ = ["decompress"]

# The densest element copies 64 bytes with 3: a block that claims to grow more than this is not snappy.
_MOST_GROWTH = 22


def decompress(data: bytes, what: str) -> bytes:
    """Return the decompressed bytes of one raw snappy block (no framing).

    Args:
      data: a varint, the length of the result, then literals and copies.
      what: names the block in errors.

    Raises:
      DataLossError: the block is damaged.
    """
    length, position = read_varint(data, 0, what)
    if length > _MOST_GROWTH * len(data):
        raise DataLossError(f"{what} is damaged: {len(data)} compressed bytes cannot hold {length}.")
    out = bytearray()
    while position < len(data):
        tag = data[position]
        if tag & 3 == 0:
            size, start = _literal(data, position, what)
            out += data[start : start + size]
            position = start + size
        else:
            size, offset, position = _copy(data, position, what)
            _repeat(out, offset, size, what)
        if len(out) > length:
            raise DataLossError(f"{what} is damaged: it holds more than the {length} bytes it claims.")
    if len(out) != length:
        raise DataLossError(f"{what} is damaged: it claims {length} bytes and holds {len(out)}.")
    return bytes(out)


def _literal(data: bytes, position: int, what: str) -> tuple[int, int]:
    """The size of a literal and where its bytes start."""
    size, start = data[position] >> 2, position + 1
    if size >= 60:  # 60..63: the size follows in 1..4 bytes
        extra = size - 59
        size = int.from_bytes(data[start : start + extra], "little")
        start += extra
    if start + size + 1 > len(data):
        raise DataLossError(f"{what} is damaged: a compressed literal runs past its end.")
    return size + 1, start


def _copy(data: bytes, position: int, what: str) -> tuple[int, int, int]:
    """The size and the distance of a copy, and the position after it."""
    tag = data[position]
    width = (0, 1, 2, 4)[tag & 3]
    chunk = data[position + 1 : position + 1 + width]
    if len(chunk) < width:
        raise DataLossError(f"{what} is damaged: a compressed copy runs past its end.")
    offset = int.from_bytes(chunk, "little")
    if tag & 3 == 1:
        return (tag >> 2 & 7) + 4, offset | tag >> 5 << 8, position + 2
    return (tag >> 2) + 1, offset, position + 1 + width


def _repeat(out: bytearray, offset: int, size: int, what: str) -> None:
    """Append `size` bytes that begin `offset` back; the copy may overlap what it writes."""
    if not 0 < offset <= len(out):
        raise DataLossError(f"{what} is damaged: a compressed copy points before its start.")
    start = len(out) - offset
    pattern = bytes(out[start : start + size])
    while len(pattern) < size:
        pattern += pattern
    out += pattern[:size]

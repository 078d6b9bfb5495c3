"""Decoding (and a little encoding) of protocol buffers: varints and fields, every length bounded.

The handful of messages in TensorFlow's files need no generated code. A field that runs past its message
raises `DataLossError`; nothing is allocated from a length that the bytes at hand do not cover.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from jaxvars.errors import DataLossError

__all__ = [
    "VARINT",
    "FIXED64",
    "BYTES",
    "FIXED32",
    "as_bytes",
    "as_int",
    "fields",
    "parse_shape",
    "read_varint",
    "signed",
    "write_field",
    "write_varint",
]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
_MOST_DIMS = 64  # NumPy's limit
_LARGEST_DIM = 1 << 48
_MOST_ELEMENTS = 1 << 58


def read_varint(data: bytes, position: int, what: str) -> tuple[int, int]:
    """Return the unsigned 64-bit varint at `position`, and the position after it."""
    if position < len(data) and data[position] < 0x80:  # most numbers are small
        return data[position], position + 1
    value = shift = 0
    for _ in range(_MOST_VARINT_BYTES):
        if position >= len(data):
            raise DataLossError(f"{what} is damaged: a number runs past its end.")
        octet = data[position]
        position += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            if value >> 64:
                break
            return value, position
        shift += 7
    raise DataLossError(f"{what} is damaged: a number is longer than 64 bits.")


def write_varint(value: int) -> bytes:
    """Return the varint of a number from 0 to 2**64 - 1."""
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def write_field(number: int, wire: int, value: int | bytes) -> bytes:
    """Return one field of a message; a number that is 0 is left out, as proto3 does.

    Args:
      number: the field.
      wire: `VARINT`, `FIXED32` or `BYTES`.
      value: a number from 0 on, or bytes.
    """
    if isinstance(value, bytes):
        return write_varint(number << 3 | wire) + write_varint(len(value)) + value
    if not value:
        return b""
    return write_varint(number << 3 | wire) + (value.to_bytes(4, "little") if wire == FIXED32 else write_varint(value))


def signed(value: int) -> int:
    """Return the int64 that a varint's unsigned value stands for."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes, what: str) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) in file order: int for numbers (fixed ones unsigned), bytes for the rest.

    Args:
      data: the message.
      what: names the message in errors.
    """
    position, end = 0, len(data)
    while position < end:
        tag, position = read_varint(data, position, what)
        wire = tag & 7
        if wire == VARINT:
            value, position = read_varint(data, position, what)
            yield tag >> 3, value
            continue
        if wire == BYTES:
            size, position = read_varint(data, position, what)
        elif wire == FIXED32:
            size = 4
        elif wire == FIXED64:
            size = 8
        else:
            raise DataLossError(f"{what} is damaged: it has a field of unknown kind {wire}.")
        if tag >> 3 == 0 or size > end - position:
            raise DataLossError(f"{what} is damaged: a field runs past its end.")
        chunk = data[position : position + size]
        position += size
        yield tag >> 3, chunk if wire == BYTES else int.from_bytes(chunk, "little")


def as_int(value: int | bytes, what: str) -> int:
    """Return `value` if the file gave a number there."""
    if isinstance(value, bytes):
        raise DataLossError(f"{what} is damaged: it has bytes where a number belongs.")
    return value


def as_bytes(value: int | bytes, what: str) -> bytes:
    """Return `value` if the file gave bytes there."""
    if isinstance(value, int):
        raise DataLossError(f"{what} is damaged: it has a number where bytes belong.")
    return value


def parse_shape(data: bytes, what: str) -> tuple[int, ...]:
    """Return the shape that a TensorShapeProto describes; every dimension is known and sensible."""
    dims: list[int] = []
    for number, value in fields(data, what):
        if number == 2:
            size = 0
            for part, amount in fields(as_bytes(value, what), what):
                if part == 1:
                    size = signed(as_int(amount, what))
            dims.append(size)
        elif number == 3 and as_int(value, what):
            raise DataLossError(f"{what} is damaged: a stored tensor of unknown rank.")
    # Zeros count as ones: NumPy also refuses arrays without elements whose other dimensions are absurd.
    absurd = any(not 0 <= dim < _LARGEST_DIM for dim in dims) or math.prod(dim or 1 for dim in dims) > _MOST_ELEMENTS
    if len(dims) > _MOST_DIMS or absurd:
        raise DataLossError(f"{what} is damaged: no tensor has the shape {dims[:8]}.")
    return tuple(dims)

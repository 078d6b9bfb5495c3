"""String tensors of V2 bundles: lengths, a checksum of the lengths, then the bytes."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.crc32c import crc32c, mask, unmask
from jaxvars.checkpoint.formats.protos import read_varint, write_varint
from jaxvars.errors import DataLossError, InvalidTypeError

__all__ = ["encode_strings", "read_strings"]


def encode_strings(array: npt.NDArray[Any], what: str) -> tuple[bytes, int]:
    """Return the bytes of an entry and its (unmasked) checksum.

    Args:
      array: an object array of bytes, or of str, which is stored as UTF-8.
      what: names the tensor in errors.

    Raises:
      InvalidTypeError: an element is something else.
    """
    texts = [_encoded(text, what) for text in array.ravel().tolist()]
    lengths = [len(text) for text in texts]
    running = _crc_of_lengths(lengths)
    check = mask(running).to_bytes(4, "little")
    body = check + b"".join(texts)
    return b"".join(map(write_varint, lengths)) + body, crc32c(body, running)


def _encoded(text: object, what: str) -> bytes:
    if isinstance(text, str):
        return text.encode("utf-8", "surrogateescape")
    if isinstance(text, bytes):
        return bytes(text)
    raise InvalidTypeError(
        f"Cannot save {what}: its elements are {type(text).__name__}, and only bytes and str can be stored as strings."
    )


def read_strings(data: bytes, shape: tuple[int, ...], stored_crc: int, what: str) -> npt.NDArray[Any]:
    """Return an object array of bytes.

    Args:
      data: all bytes of the entry.
      shape: the tensor's shape.
      stored_crc: the entry's (masked) checksum.
      what: names the entry in errors.

    Raises:
      DataLossError: a length or a checksum is wrong.
    """
    count = math.prod(shape)
    if count > len(data):  # each length takes at least one byte
        raise DataLossError(f"{what} is damaged: {len(data)} bytes cannot hold {count} strings.")
    lengths: list[int] = []
    position = 0
    for _ in range(count):
        length, position = read_varint(data, position, what)
        lengths.append(length)
    start = position + 4
    if start + sum(lengths) != len(data):
        raise DataLossError(f"{what} is damaged: its strings do not fill its {len(data)} bytes.")
    running = _crc_of_lengths(lengths)
    if running != unmask(int.from_bytes(data[position:start], "little")):
        raise DataLossError(f"{what} is damaged: the lengths of its strings do not match their checksum.")
    if crc32c(memoryview(data)[position:], running) != unmask(stored_crc):
        raise DataLossError(f"{what} is damaged: its strings do not match their checksum.")
    strings = np.empty(count, object)
    for number, length in enumerate(lengths):
        strings[number] = data[start : start + length]
        start += length
    return strings.reshape(shape)


def _crc_of_lengths(lengths: list[int]) -> int:
    """The checksum runs over fixed-width lengths: 4 bytes each, 8 for one that needs more."""
    packed = b"".join(struct.pack("<I" if length <= 0xFFFFFFFF else "<Q", length) for length in lengths)
    return crc32c(packed)

"""CRC-32C (Castagnoli), the checksum of TensorFlow's tables and tensors, and of our own checkpoints.

`google_crc32c` computes it at several GB/s where it is installed (``pip install "jaxvars[legacy]"``).
Without it NumPy does: the data is cut into equal lanes, all lanes go through the table together, and
their registers are folded in pairs. That gives some hundred MB/s, so checksums are never skipped.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["crc32c", "mask", "unmask"]

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_ALL_ONES = 0xFFFFFFFF
_Words = npt.NDArray[np.uint32]

# (bytes in a lane, fewest lanes that are worth the NumPy calls); what is left over goes byte by byte.
_LANES = ((1024, 4096), (64, 64))
_MOST_LANES = 4096


def crc32c(data: bytes | bytearray | memoryview | npt.NDArray[Any], value: int = 0) -> int:
    """Return the CRC-32C of `data`, continuing from `value`.

    Args:
      data: any C-contiguous buffer.
      value: the checksum of what came before, 0 at the start.

    Returns:
      An unsigned 32-bit integer.

    Example:
      >>> hex(crc32c(b"123456789"))
      '0xe3069283'
    """
    octets = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else _octets(data)
    fast = _google_crc32c()
    if fast is not None:
        return int(fast(value, octets))
    return _with_numpy(octets, value)


def mask(value: int) -> int:
    """Return TensorFlow's stored form of a checksum (so that a file of checksums can be checksummed)."""
    return (((value >> 15) | (value << 17)) + _MASK_DELTA) & _ALL_ONES


def unmask(stored: int) -> int:
    """Return the checksum whose stored form is `stored`."""
    rotated = (stored - _MASK_DELTA) & _ALL_ONES
    return ((rotated >> 17) | (rotated << 15)) & _ALL_ONES


def _octets(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


@functools.cache
def _google_crc32c() -> Callable[[int, npt.NDArray[np.uint8]], int] | None:
    """The C implementation, or None where it is absent or only its own slow Python fallback is there."""
    try:
        library: Any = importlib.import_module("google_crc32c")
    except ImportError:
        return None
    return library.extend if library.implementation == "c" else None


def _with_numpy(octets: npt.NDArray[np.uint8], value: int) -> int:
    register = value ^ _ALL_ONES
    position = 0
    for lane, fewest in _LANES:
        while octets.size - position >= lane * fewest:
            # A power of two of lanes, so that folding in pairs ends in one register.
            lanes = min(1 << ((octets.size - position) // lane).bit_length() - 1, _MOST_LANES)
            block = octets[position : position + lane * lanes].reshape(lanes, lane)
            register = _block_register(block, register)
            position += lane * lanes
    table = _byte_table()
    for octet in octets[position:].tobytes():
        register = table[(register ^ octet) & 0xFF] ^ (register >> 8)
    return register ^ _ALL_ONES


def _block_register(block: npt.NDArray[np.uint8], register: int) -> int:
    """Run `block` (lanes, lane bytes) through the register: all lanes at once, then folded in pairs."""
    low, high = _word_tables()
    words = np.ascontiguousarray(block.view("<u4").T)
    registers = np.zeros(block.shape[0], np.uint32)
    registers[0] = register  # the register is linear: the other lanes may start from zero
    for column in words:
        registers ^= column
        registers = low[registers & np.uint32(0xFFFF)] ^ high[registers >> np.uint32(16)]
    length = block.shape[1]
    while registers.size > 1:
        registers = _advance(registers[0::2], length) ^ registers[1::2]
        length *= 2
    return int(registers[0])


def _advance(registers: _Words, length: int) -> _Words:
    """Return each register after `length` more zero bytes."""
    result = np.zeros_like(registers)
    for bit, image in enumerate(_zeros_matrix(length)):
        result ^= ((registers >> np.uint32(bit)) & np.uint32(1)) * np.uint32(image)
    return result


@functools.cache
def _byte_table() -> tuple[int, ...]:
    table: list[int] = []
    for octet in range(256):
        register = octet
        for _ in range(8):
            register = (register >> 1) ^ (_POLYNOMIAL if register & 1 else 0)
        table.append(register)
    return tuple(table)


@functools.cache
def _word_tables() -> tuple[_Words, _Words]:
    """Tables that take the low and the high half of a 32-bit word, four bytes of data in two look-ups."""
    images = _zeros_matrix(4)
    halves = np.zeros((2, 1 << 16), np.uint32)
    values = np.arange(1 << 16, dtype=np.uint32)
    for bit in range(16):
        chosen = (values >> np.uint32(bit)) & np.uint32(1)
        halves[0] ^= chosen * np.uint32(images[bit])
        halves[1] ^= chosen * np.uint32(images[16 + bit])
    return halves[0], halves[1]


@functools.cache
def _zeros_matrix(length: int) -> tuple[int, ...]:
    """What each of the 32 register bits becomes after `length` zero bytes (`length` a power of two)."""
    if length == 1:
        table = _byte_table()
        return tuple(table[(1 << bit) & 0xFF] ^ ((1 << bit) >> 8) for bit in range(32))
    half = _zeros_matrix(length // 2)
    return tuple(_times(half, image) for image in half)


def _times(matrix: tuple[int, ...], register: int) -> int:
    result = 0
    for bit in range(32):
        if register >> bit & 1:
            result ^= matrix[bit]
    return result

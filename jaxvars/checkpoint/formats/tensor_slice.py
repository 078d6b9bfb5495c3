"""Slices of partitioned variables: where each lies in the whole, and the key it is stored under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.protos import BYTES, VARINT, as_bytes, as_int, fields, signed, write_field
from jaxvars.errors import DataLossError

__all__ = ["TensorSlice", "check_tiling", "even_slices", "parse_slice", "slice_key", "write_slice"]

_MOST_SLICES = 10_000  # each is held against each


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """Per dimension (start, length); length -1 means the whole dimension."""

    extents: tuple[tuple[int, int], ...]

    def shape(self, full: Sequence[int]) -> tuple[int, ...]:
        """The slice's shape within a tensor of shape `full`."""
        return tuple(dim if length < 0 else length for (_, length), dim in zip(self.extents, full, strict=True))

    def index(self, full: Sequence[int]) -> tuple[slice, ...]:
        """The index of the slice in a tensor of shape `full`."""
        shape = self.shape(full)
        return tuple(slice(start, start + dim) for (start, _), dim in zip(self.extents, shape, strict=True))


def parse_slice(data: bytes, what: str) -> TensorSlice:
    """Return the slice that a TensorSliceProto describes."""
    extents: list[tuple[int, int]] = []
    for number, value in fields(data, what):
        if number != 1:
            continue
        start, length = 0, -1
        for part, amount in fields(as_bytes(value, what), what):
            if part == 1:
                start = signed(as_int(amount, what))
            elif part == 2:
                length = signed(as_int(amount, what))
        if start < 0 or length < -1 or (length == -1 and start):
            raise DataLossError(f"{what} is damaged: a slice from {start} of length {length}.")
        extents.append((start, length))
    return TensorSlice(tuple(extents))


def write_slice(part: TensorSlice) -> bytes:
    """Return the TensorSliceProto of a slice without empty extents; a whole dimension has neither start nor length."""
    extents = (write_field(1, VARINT, start) + write_field(2, VARINT, max(0, length)) for start, length in part.extents)
    return b"".join(write_field(1, BYTES, extent) for extent in extents)


def even_slices(shape: Sequence[int], partition: tuple[int, int] | None) -> list[TensorSlice]:
    """Return the slices that TensorFlow's partitioners cut; the first ones are longer by one where it does not divide.

    Args:
      shape: the whole shape.
      partition: (axis, number of slices), or None.

    Returns:
      The slices; none for a tensor that is stored in one piece.
    """
    axis, count = partition or (0, 1)
    axis += len(shape) if axis < 0 else 0
    if count < 2 or not 0 <= axis < len(shape) or 0 in shape:
        return []
    count = min(count, shape[axis])
    length, longer = divmod(shape[axis], count)
    starts = [number * length + min(number, longer) for number in range(count + 1)]
    # TensorFlow's partitioned variables give the length of whole dimensions too.
    extents = [[(0, dim) for dim in shape] for _ in range(count)]
    for number, extent in enumerate(extents):
        extent[axis] = (starts[number], starts[number + 1] - starts[number])
    return [TensorSlice(tuple(extent)) for extent in extents] if count > 1 else []


def check_tiling(slices: Sequence[TensorSlice], full: Sequence[int], what: str) -> None:
    """Check, before memory is taken for the whole, that the slices cover it and do not overlap.

    Raises:
      DataLossError: a slice lies outside, slices overlap, or a part is missing.
    """
    if not 0 < len(slices) <= _MOST_SLICES:
        raise DataLossError(f"{what} is damaged: it is cut into {len(slices)} slices.")
    if any(len(part.extents) != len(full) for part in slices):
        raise DataLossError(f"{what} is damaged: a slice has another number of dimensions than {tuple(full)}.")
    starts = np.array([[start for start, _ in part.extents] for part in slices], object).reshape(len(slices), -1)
    shapes = np.array([part.shape(full) for part in slices], object).reshape(len(slices), -1)
    ends = starts + shapes
    if (ends > np.array(full, object)).any():
        raise DataLossError(f"{what} is damaged: a slice lies outside the shape {tuple(full)}.")
    if int(shapes.prod(axis=1).sum()) != int(np.prod(np.array(full, object))):
        raise DataLossError(f"{what} is damaged: its {len(slices)} slices do not cover the shape {tuple(full)}.")
    if _overlap(starts, ends):
        raise DataLossError(f"{what} is damaged: its slices overlap.")


def _overlap(starts: npt.NDArray[Any], ends: npt.NDArray[Any]) -> bool:
    first, last = starts.astype(np.int64), ends.astype(np.int64)
    cut = [axis for axis in range(first.shape[1]) if np.ptp(first[:, axis]) or np.ptp(last[:, axis])]
    if len(cut) == 1:  # along one axis, as TensorFlow's partitioners do
        order = np.lexsort((last[:, cut[0]], first[:, cut[0]]))
        return bool((last[order[:-1], cut[0]] > first[order[1:], cut[0]]).any())
    for row in range(1, len(first)):
        meets = (first[:row] < last[row]) & (first[row] < last[:row])
        if meets.all(axis=1).any():
            return True
    return False


def slice_key(name: bytes, part: TensorSlice) -> bytes:
    """Return the table key under which a slice of `name` is stored (TensorFlow's ordered code)."""
    key = b"\x00" + _ordered_bytes(name) + _ordered_count(len(part.extents))
    return key + b"".join(_ordered_signed(start) + _ordered_signed(length) for start, length in part.extents)


def _ordered_bytes(text: bytes) -> bytes:
    escapes = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}
    return b"".join(escapes.get(octet, bytes([octet])) for octet in text) + b"\x00\x01"


def _ordered_count(value: int) -> bytes:
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def _ordered_signed(value: int) -> bytes:
    """Big endian, in as few bytes as also hold a header: one bit per byte, flipped into the number."""
    magnitude = ~value if value < 0 else value
    size = (magnitude.bit_length() + 7) // 7
    header = ((1 << size) - 1) << (7 * size)
    return ((value & ((1 << 8 * size) - 1)) ^ header).to_bytes(size, "big")

"""Raw arrays in files: shapes checked before memory is taken for them, many small ones read at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.files import Memory, RangedFile
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["as_array", "as_octets", "checked_shape", "read_pieces"]

_MOST_DIMS = 64  # NumPy's limit
_LARGEST = 1 << 62
_LARGE_PIECE = 1 << 17  # from here on a piece is read straight into its own array
_MOST_AT_ONCE = 1 << 20  # small enough that the copies find it in the processor's cache
_WIDEST_GAP = 1 << 14


def checked_shape(shape: Any, itemsize: int, what: str) -> tuple[int, ...]:
    """Return the shape that a file claims, once it is a list of numbers that NumPy can make an array of.

    Args:
      shape: what the file has in its place.
      itemsize: bytes of one element.
      what: names the tensor in the error.

    Raises:
      DataLossError: it is no such list.
    """
    numbers = isinstance(shape, list | tuple) and set(map(type, shape)) <= {int}  # not bool, which is an int too
    if not numbers or min(shape, default=0) < 0:
        raise DataLossError(f"{what} is damaged: its shape is no list of numbers.")
    # Zeros count as ones: NumPy also refuses arrays without elements whose other dimensions are absurd.
    largest = math.prod(shape) or math.prod(dim or 1 for dim in shape)
    if len(shape) > _MOST_DIMS or largest * itemsize > _LARGEST:
        raise DataLossError(f"{what} is damaged: no array can have the shape it claims ({len(shape)} dimensions).")
    return tuple(shape)


def read_pieces(
    file: RangedFile, pieces: Iterable[tuple[str, int, int]]
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield each piece of a file as a new array that nothing else refers to, in the order of the file.

    Small neighbors are read together and copied out; large pieces are read into their own arrays.

    Args:
      file: the file.
      pieces: (name, offset, size). They may overlap.

    Raises:
      DataLossError: a piece lies outside the file.
    """
    group: list[tuple[str, int, int]] = []
    end, memory = 0, Memory()
    for piece in sorted(pieces, key=lambda piece: piece[1]):
        name, offset, size = piece
        if group and (offset - end > _WIDEST_GAP or offset + size - group[0][1] > _MOST_AT_ONCE):
            yield from _read_group(file, group, end)
            group = []
        if size >= _LARGE_PIECE:
            what = f"tensor {name!r}"
            octets = file.memory_for(offset, size, what, memory)
            file.read_into(octets, offset, what)
            yield name, octets
            continue
        end = max(end, offset + size) if group else offset + size
        group.append(piece)
    if group:
        yield from _read_group(file, group, end)


def _read_group(
    file: RangedFile, group: list[tuple[str, int, int]], end: int
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    start = group[0][1]
    what = f"tensor {group[0][0]!r}" + (f" and {len(group) - 1} that follow it" if len(group) > 1 else "")
    octets = file.read_array(start, end - start, what)
    for name, offset, size in group:
        yield name, octets[offset - start : offset - start + size].copy()


def as_array(
    octets: npt.NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...], what: str
) -> npt.NDArray[Any]:
    """Return bytes that nobody else uses as an array in C order.

    Raises:
      DataLossError: a boolean is neither 0 nor 1.
    """
    if dtype.kind == "b" and octets.size and octets.max() > 1:
        raise DataLossError(f"{what} is damaged: a boolean is neither 0 nor 1.")
    return octets.view(dtype).reshape(shape)


def as_octets(item: Outgoing) -> npt.NDArray[Any]:
    """Return the values of a variable that is to be written, as flat bytes; they may share its memory.

    Raises:
      InvalidArgumentError: the values are not of the shape that was announced.
    """
    array = item.array()
    if array.shape != item.shape:
        raise InvalidArgumentError(
            f"Cannot save {item.name!r}: it should have shape {list(item.shape)}, and has {list(array.shape)}."
        )
    return array.reshape(-1).view(np.uint8)

"""Where in files the values of a tensor lie, row by row, so that a reader need not read all of it.

Rows are those along the first axis. The checksum of bytes that several readers share is put together from the
checksums of what each has read.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.raw_arrays import as_array

__all__ = ["Checksum", "Span", "StoredPart", "read_rows"]

_POLYNOMIALS = {"crc32c": 0x82F63B78, "crc32": 0xEDB88320}
_ONE = 1 << 31  # the polynomial 1: the coefficients stand in the reverse order


class Checksum(NamedTuple):
    """The checksum of a run of bytes.

    Attributes:
      kind: "crc32c", or "crc32", that of zip archives.
      value: the checksum.
      before: bytes that it covers too, before the values.
    """

    kind: str
    value: int
    before: bytes = b""

    def of(self, octets: Any) -> int:
        """Return the checksum of other bytes, of the same kind."""
        return crc32c(octets) if self.kind == "crc32c" else zlib.crc32(octets)

    def is_of(self, pieces: Iterable[tuple[int, int]]) -> bool:
        """Whether this is the checksum of pieces that lie one after the other, each given as (checksum, bytes).

        Example:
          >>> whole = Checksum("crc32", zlib.crc32(b"123456789"))
          >>> whole.is_of([(zlib.crc32(b"1234"), 4), (zlib.crc32(b"56789"), 5)])
          True
        """
        joined, polynomial = self.of(self.before), _POLYNOMIALS[self.kind]
        for value, size in pieces:
            joined = _times(joined, _shift(8 * size, polynomial), polynomial) ^ value
        return joined == self.value


def _times(a: int, b: int, polynomial: int) -> int:
    """The product of two polynomials over the field of two elements, modulo a third."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ (polynomial if b & 1 else 0)
    return product


@functools.lru_cache(maxsize=256)
def _shift(bits: int, polynomial: int) -> int:
    """X to the power of `bits`."""
    result, square = _ONE, _ONE >> 1
    while bits:
        if bits & 1:
            result = _times(result, square, polynomial)
        square = _times(square, square, polynomial)
        bits >>= 1
    return result


class Span(NamedTuple):
    """Rows of a tensor whose bytes have one checksum.

    Attributes:
      rows: the first row, and the one after the last.
      row_bytes: how many bytes of a row it covers.
      checksum: the checksum.
    """

    rows: tuple[int, int]
    row_bytes: int
    checksum: Checksum


@dataclass(frozen=True, slots=True, eq=False)
class StoredPart:
    """A box of a tensor whose values lie in a file as they are, in C order.

    Attributes:
      file: the file.
      offset: where the first value begins.
      dtype: the dtype of the bytes, with their order; as wide as the tensor's.
      index: where in the tensor the box lies; its slices have no open ends.
      checksum: that of all the bytes, None if there is none.
    """

    file: RangedFile
    offset: int
    dtype: np.dtype[Any]
    index: tuple[slice, ...]
    checksum: Checksum | None

    @property
    def rows(self) -> tuple[int, int]:
        """The first row, and the one after the last."""
        return self.index[0].start, self.index[0].stop

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row of the box."""
        return tuple(part.stop - part.start for part in self.index[1:])

    @property
    def row_bytes(self) -> int:
        """How many bytes a row of the box has."""
        return math.prod(self.row_shape) * self.dtype.itemsize


def read_rows(
    parts: Sequence[StoredPart], info: TensorInfo, begin: int, end: int
) -> tuple[npt.NDArray[Any], list[int | None]]:
    """Read some rows of a tensor.

    Args:
      parts: where the tensor lies; boxes that together are all of it.
      info: the tensor.
      begin: the first row.
      end: the row after the last.

    Returns:
      The rows, as a new array in the tensor's dtype that nothing else refers to; and for each part the checksum of the
      bytes that were read of it, None where it has none, or nothing was read of it.

    Raises:
      DataLossError: the file became shorter, or a boolean is neither 0 nor 1.
    """
    found: list[int | None] = []
    rows = np.empty((end - begin, *info.shape[1:]), info.dtype) if len(parts) > 1 else np.empty(0)
    what = f"tensor {info.name!r}"
    for part in parts:
        first, last = part.rows
        low, high = max(begin, first), min(end, last)
        if low >= high:
            found.append(None)
            continue
        octets = part.file.read_array(part.offset + (low - first) * part.row_bytes, (high - low) * part.row_bytes, what)
        found.append(None if part.checksum is None else part.checksum.of(octets))
        stored = part.dtype if not part.dtype.isnative else info.dtype
        values = as_array(octets, stored, (high - low, *part.row_shape), f"{part.file.path}, {what},")
        values = values.astype(info.dtype, copy=False)
        if len(parts) == 1:
            rows = values
        else:
            rows[(slice(low - begin, high - begin), *part.index[1:])] = values
    return rows, found

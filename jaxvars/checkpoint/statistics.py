"""What the values of a tensor are like: range, mean, zeros, NaNs, a checksum; in pieces, so that memory stays small."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.reader import CheckpointReader

__all__ = ["Statistics", "checksum", "statistics", "tensor_statistics"]

_PIECE = 1 << 20  # elements that are widened to 64 bits at once


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """What the values of one tensor are like.

    Of complex numbers it is the absolute values that count; of booleans, False is 0 and True is 1.

    Attributes:
      min: the smallest finite value, exact for integers of 64 bits; None if there is none, and for strings.
      max: the largest finite value.
      mean: the mean of the finite values.
      std: their standard deviation (divided by their number).
      zeros: how many are zero (of strings: empty).
      nans: how many are not a number.
      infinities: how many are infinite.
      crc32c: the checksum of the bytes in C order (of strings: see `checksum`).
    """

    min: int | float | None
    max: int | float | None
    mean: float | None
    std: float | None
    zeros: int
    nans: int
    infinities: int
    crc32c: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, the checksum as eight hexadecimal digits."""
        return {**dataclasses.asdict(self), "crc32c": f"{self.crc32c:08x}"}


def statistics(reader: CheckpointReader, names: Iterable[str]) -> Iterator[tuple[str, Statistics]]:
    """Yield (name, `Statistics`), in any order, of those of `names` that can be read."""
    readable = [name for name in names if not reader.tensors[name].problem]
    for name, array in reader.source.read_many(readable):
        yield name, tensor_statistics(array)


def tensor_statistics(array: npt.NDArray[Any]) -> Statistics:
    """Return what the values of an array are like.

    Example:
      >>> tensor_statistics(np.array([0.0, 2.0, np.inf], np.float32))
      Statistics(min=0.0, max=2.0, mean=1.0, std=1.0, zeros=1, nans=0, infinities=1, crc32c=3363392803)
    """
    array = np.asarray(array)
    running = _Running()
    if array.dtype == np.dtype(object):
        running.zeros = sum(not text for text in array.ravel().tolist())
    elif array.dtype == np.dtype(bool) or jnp.issubdtype(array.dtype, np.number):
        flat = array.reshape(-1)
        for start in range(0, flat.size, _PIECE):
            running.add(_widened(flat[start : start + _PIECE]))
    return running.result(checksum(array))


def checksum(array: npt.NDArray[Any]) -> int:
    """Return the CRC-32C of the bytes in C order; of strings, of each one's length (8 bytes) followed by its bytes."""
    if array.dtype != np.dtype(object):
        return crc32c(np.ascontiguousarray(array)) if array.size else 0
    value = 0
    for text in array.ravel().tolist():
        octets = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
        value = crc32c(len(octets).to_bytes(8, "little") + octets, value)
    return value


def _widened(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values as a type that NumPy computes with: plain integers stay, all else becomes float64."""
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "b" or jnp.issubdtype(values.dtype, np.integer):  # int4 has no minimum of its own
        return values.astype(np.int8)
    if values.dtype.kind == "c":
        return np.abs(values.astype(np.complex128))
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float64)


class _Running:
    """Sums that grow piece by piece. Means are merged, not sums, so that nothing overflows or cancels."""

    def __init__(self) -> None:
        self.zeros = self.nans = self.infinities = 0
        self._count = 0
        self._mean = self._squares = 0.0
        self._min: int | float | None = None
        self._max: int | float | None = None

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in more values, integers or float64."""
        self.zeros += int(np.count_nonzero(values == 0))
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                nans = int(np.count_nonzero(np.isnan(values)))
                self.nans += nans
                self.infinities += int(values.size - np.count_nonzero(finite)) - nans
                values = values[finite]
        if not values.size:
            return
        least, most = values.min().item(), values.max().item()
        self._min = least if self._min is None else min(self._min, least)
        self._max = most if self._max is None else max(self._max, most)
        self._merge(values.astype(np.float64, copy=False))

    def _merge(self, values: npt.NDArray[np.float64]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean())
            squares = float(np.square(values - mean).sum())
        whole = self._count + values.size
        step = mean - self._mean
        self._mean += step * (values.size / whole)
        self._squares += squares + step * step * (self._count / whole) * values.size
        self._count = whole

    def result(self, crc: int) -> Statistics:
        """Return the statistics of all values so far."""
        mean = self._mean if self._count and math.isfinite(self._mean) else None
        std = math.sqrt(self._squares / self._count) if mean is not None else None
        std = std if std is not None and math.isfinite(std) else None
        return Statistics(self._min, self._max, mean, std, self.zeros, self.nans, self.infinities, crc)

"""What every format offers to the reader: names with shapes and dtypes, and one read function."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Source", "TensorInfo"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a checkpoint says about one tensor without reading its values.

    Attributes:
      name: the name in the file.
      shape: the full shape (of all slices together, for a partitioned variable).
      dtype: the file's dtype; `object` for strings, whose elements are bytes.
      type_name: the dtype as the format calls it ("float32", "string", "variant").
      problem: why the values cannot be read, "" if they can.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    type_name: str
    problem: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values in memory (for strings: of the references to them)."""
        return self.size * self.dtype.itemsize


class Source(Protocol):
    """An open checkpoint in one format.

    Where a format's files hold values as they are in memory, its source also has ``stored_parts(name)``: the
    `stored_parts.StoredPart` boxes of which a tensor is made, or None for one that must be read as a whole. Orbax's has
    ``read_onto(targets)``, which reads each process's shards.
    """

    @property
    def format(self) -> str:
        """Short name of the format: "tf", "orbax", ..."""
        ...

    @property
    def path(self) -> str:
        """The path that opens this very checkpoint again."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        ...

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as a new array in the file's dtype, checked against its checksum."""
        ...

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array), in any order; formats that read better in groups do so here."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...

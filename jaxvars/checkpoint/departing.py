"""From the tensors of one checkpoint to what the writer of another is given: values that are read when it asks.

All of it is NumPy, in the file's dtypes: nothing is narrowed because JAX has no 64 bits. At most one large tensor and
some small ones are in memory at a time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.checkpoint.formats.random_keys import is_key_dtype
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.renaming import Renamed
from jaxvars.checkpoint.statistics import checksum
from jaxvars.errors import InvalidArgumentError
from jaxvars.spec import DEFAULT_COLLECTIONS, VariableSpec

__all__ = ["Departure", "cast_dtype", "departing"]

_Array = npt.NDArray[Any]

# Some formats have a high price per call, and writers take tensors in orders of their own: small ones are read in
# groups, and the latest groups are kept.
_SMALL = 1 << 20
_GROUP = 1 << 26
_GROUPS_KEPT = 4


class Departure:
    """One tensor on its way from a checkpoint into another: reads when asked, and notes what it gave.

    Attributes:
      item: what the writer is given.
      checksum: that of the values, None until somebody asked for them.
      meter: called as ``meter(name, nbytes)`` when somebody did, and when they were compared.
    """

    def __init__(self, spec: VariableSpec, read: Callable[[], _Array]) -> None:
        self.item: Outgoing = Outgoing(spec, self._values)
        self.checksum: int | None = None
        self.meter: Callable[[str, int], object] = _no_meter
        self._read = read

    def _values(self) -> _Array:
        values = self._read()
        if self.checksum is None:
            self.checksum = checksum(values)
            self.meter(self.item.name, self.item.nbytes)
        return values

    def matches(self, values: _Array) -> bool:
        """Whether values that were read back are those that were given to the writer."""
        if self.checksum is None:  # no writer asks for what has no elements
            self.item.plain_array()
        same = checksum(values.astype(self.item.plain_dtype, copy=False)) == self.checksum
        self.meter(self.item.name, self.item.nbytes)
        return same


def _no_meter(name: str, nbytes: int) -> None:
    del name, nbytes


def departing(reader: CheckpointReader, items: Sequence[Renamed], dtype: np.dtype[Any] | None) -> list[Departure]:
    """Return the tensors on their way out.

    Args:
      reader: the open checkpoint.
      items: its tensors, with their new names and transforms. One with a transform is read at once: only its values
        show what shape it gets.
      dtype: the dtype for all floating tensors, None to leave them as they are.
    """
    read = _reading(reader, [item.info for item in items])
    known = reader.variable_specs
    return [_departure(item, read, known.get(item.info.name), dtype) for item in items]


def _departure(
    item: Renamed,
    read: Callable[[str], _Array],
    known: VariableSpec | None,
    dtype: np.dtype[Any] | None,
) -> Departure:
    def values() -> _Array:
        array = read(item.info.name)
        array = array if item.transform is None else item.transformed(array.copy())
        return array if dtype is None or not _is_floating(array.dtype) else _converted(array, dtype, item)

    if item.transform is not None:
        example = values()
        spec = dataclasses.replace(_spec(item.info, known), shape=example.shape, dtype=example.dtype, file_dtype="")
    else:
        spec = _spec(item.info, known)
        if dtype is not None and _is_floating(spec.dtype):
            spec = dataclasses.replace(spec, dtype=dtype, file_dtype="")
    return Departure(dataclasses.replace(spec, key=item.name), values)


def _reading(reader: CheckpointReader, infos: Sequence[TensorInfo]) -> Callable[[str], _Array]:
    """A function that reads a tensor; small ones come from groups that were read at once."""
    groups: list[list[str]] = [[]]
    group_of: dict[str, int] = {}
    size = 0
    for info in infos:
        if info.nbytes > _SMALL:
            continue
        if size > _GROUP:
            groups.append([])
            size = 0
        groups[-1].append(info.name)
        group_of[info.name] = len(groups) - 1
        size += info.nbytes

    @functools.lru_cache(maxsize=_GROUPS_KEPT)
    def group(number: int) -> dict[str, _Array]:
        return dict(reader.source.read_many(groups[number]))

    def read(name: str) -> _Array:
        return group(group_of[name])[name] if name in group_of else reader.source.read(name)

    return read


def _spec(info: TensorInfo, known: VariableSpec | None) -> VariableSpec:
    """What the new checkpoint says of a tensor: what the old one says, and the dtype that its values have there."""
    if known is None:  # strings
        return VariableSpec(info.name, info.shape, info.dtype, False, DEFAULT_COLLECTIONS[:1])
    if is_key_dtype(known.dtype) or known.dtype == info.dtype:
        return known
    return dataclasses.replace(known, dtype=info.dtype, file_dtype="")


def cast_dtype(text: Any) -> np.dtype[Any]:
    """Return the floating dtype that `text` names.

    Raises:
      InvalidArgumentError: it names none.
    """
    try:
        dtype = jnp.dtype(text)
    except (TypeError, ValueError):
        dtype = np.dtype(object)
    if not _is_floating(dtype):
        raise InvalidArgumentError(
            f"jv.checkpoint.convert: cast={text!r:.80} is no floating dtype, such as 'bfloat16'. "
            "It is for floating tensors; all others stay as they are."
        )
    return dtype


def _is_floating(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _converted(array: _Array, dtype: np.dtype[Any], item: Renamed) -> _Array:
    """The values in another floating dtype; a finite one that becomes infinite raises."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
    if not np.array_equal(np.isfinite(result), np.isfinite(array)):
        raise InvalidArgumentError(f"{item.info.name} is {array.dtype} and holds values that do not fit {dtype}.")
    return result

"""Which variables of a restore are read shard by shard, and by whom: the format's files, or Orbax."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from jaxvars.checkpoint.arriving import converted
from jaxvars.checkpoint.formats.random_keys import is_key_dtype
from jaxvars.checkpoint.matching import PlanRow
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.shares import Evidence, evidence_of, read_share, row_ranges
from jaxvars.spec import leaf_dtype

__all__ = ["Read", "read_shards"]

# Smaller tensors are read whole, many at once, and cut.
_WORTH_BYTES = 1 << 20
# Orbax holds all that it reads at once in memory once more: so many bytes, or this part of all.
_BYTES_AT_ONCE = 1 << 24
_PART_AT_ONCE = 8


class Read(NamedTuple):
    """A variable that was read, and what is left to check of it, if anything."""

    row: PlanRow
    value: jax.Array
    evidence: Evidence | None


class _Wanted(NamedTuple):
    row: PlanRow
    dtype: np.dtype[Any]
    sharding: Sharding
    ranges: Mapping[Any, tuple[int, int]]

    @property
    def source(self) -> str:
        return self.row.sources[0]

    @property
    def nbytes(self) -> int:
        """Bytes on a device."""
        return math.prod(self.sharding.shard_shape(self.row.shape)) * self.dtype.itemsize


def read_shards(
    reader: CheckpointReader, rows: Sequence[PlanRow], targets: Mapping[str, Any], shardings: Mapping[str, Sharding]
) -> Iterator[Read]:
    """Yield those variables that can be read shard by shard, in an order that all processes agree on.

    Args:
      reader: the open checkpoint.
      rows: rows without problems.
      targets: per variable its value or hole.
      shardings: where they are to be put, of those that may not be put anywhere.
    """
    wanted = [
        each
        for row in rows
        if row.target in shardings and (each := _wanted(row, targets[row.target], shardings[row.target]))
    ]
    if hasattr(reader.source, "read_onto"):
        yield from _read_arrays(reader, wanted)
    elif hasattr(reader.source, "stored_parts"):
        yield from _read_parts(reader, wanted)


def _wanted(row: PlanRow, target: Any, sharding: Sharding) -> _Wanted | None:
    """What to read of a variable, None where a tensor must be whole: for a transform, a random key, a small one."""
    dtype = leaf_dtype(target)
    if row.transform is not None or len(row.sources) != 1 or is_key_dtype(dtype):
        return None
    if math.prod(row.shape) * dtype.itemsize < _WORTH_BYTES:
        return None
    ranges = row_ranges(sharding, row.shape)
    if ranges is None or (sharding.is_fully_addressable and len(set(ranges.values())) == 1):
        return None
    return _Wanted(row, dtype, sharding, ranges)


def _read_parts(reader: CheckpointReader, wanted: Sequence[_Wanted]) -> Iterator[Read]:
    source: Any = reader.source
    for each in wanted:
        parts = source.stored_parts(each.source)
        if parts is None:
            continue
        convert = functools.partial(converted, each.row, dtype=each.dtype, path=reader.path)
        info = reader.tensors[each.source]
        yield Read(each.row, *read_share(parts, info, reader.path, each.sharding, each.ranges, convert))


def _read_arrays(reader: CheckpointReader, wanted: Sequence[_Wanted]) -> Iterator[Read]:
    source: Any = reader.source
    able = [each for each in wanted if each.row.kind == "restore" and source.is_array(each.source)]
    # Where this process can read all of it, it does so unless what it reads by shards can be checked as well.
    able = [each for each in able if not each.sharding.is_fully_addressable or _is_checked(source, each)]
    for group in _groups(able):
        # One tensor may go into several variables.
        targets = {
            each.source: jax.ShapeDtypeStruct(each.row.shape, each.dtype, sharding=each.sharding) for each in group
        }
        values = source.read_onto(targets)
        for each in group:
            value = values.pop(each.source)
            spans = source.spans(each.source)
            evidence = evidence_of(value, each.source, reader.path, spans, each.ranges) if spans else None
            yield Read(each.row, value, evidence)


def _is_checked(source: Any, each: _Wanted) -> bool:
    return bool(source.spans(each.source)) and each.sharding.shard_shape(each.row.shape)[1:] == each.row.shape[1:]


def _groups(wanted: Sequence[_Wanted]) -> Iterator[list[_Wanted]]:
    """Cut into lists of different tensors, small enough to be held twice."""
    group: list[_Wanted] = []
    sizes = [each.nbytes * max(1, len(each.sharding.addressable_devices)) for each in wanted]
    size, most = 0, max(_BYTES_AT_ONCE, sum(sizes) // _PART_AT_ONCE)
    for each, nbytes in zip(wanted, sizes, strict=True):
        if group and (size + nbytes > most or each.source in {other.source for other in group}):
            yield group
            group, size = [], 0
        group.append(each)
        size += nbytes
    if group:
        yield group

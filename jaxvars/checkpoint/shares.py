"""Reading what is this process's own of a sharded variable, and no more, straight to where it lives.

A format says where the rows of a tensor lie (`stored_parts`). Each process reads the rows that its shards need, once,
and cuts the other axes. The checksum of a tensor that several processes have read is checked when they tell each other
those of what each has read, so that all of it is checked though nobody reads all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Sharding, SingleDeviceSharding

from jaxvars._making import host_memory, own_part
from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.stored_parts import Span, StoredPart, read_rows
from jaxvars.checkpoint.together import told_by_all
from jaxvars.errors import DataLossError

__all__ = ["Evidence", "check_evidence", "evidence_of", "read_share", "row_ranges"]

_Array: TypeAlias = npt.NDArray[Any]
Range: TypeAlias = tuple[int, int]  # the first row, and the one after the last


class Evidence(NamedTuple):
    """What must be checked of a tensor, and what this process has seen of it.

    Attributes:
      name: the tensor.
      path: the file or checkpoint.
      spans: what has checksums.
      ranges: the rows that the processes read, each range by one or more of them.
      found: (number of the span, number of the range) -> the checksum of the bytes they share.
      is_common: whether the tensor lies on several processes.
    """

    name: str
    path: str
    spans: Sequence[Span]
    ranges: Sequence[Range]
    found: dict[tuple[int, int], int]
    is_common: bool

    def common(self) -> list[tuple[int, int]]:
        """The (span, range) that have bytes in common, in an order that all processes agree on."""
        return [
            (i, j)
            for i, span in enumerate(self.spans)
            for j, rows in enumerate(self.ranges)
            if _common(span.rows, rows)
        ]


def row_ranges(sharding: Sharding, shape: tuple[int, ...]) -> dict[Any, Range] | None:
    """Return the rows that each device holds, None where they are not equal or separate, or have no elements."""
    if not shape or 0 in shape:
        return None
    sharding.shard_shape(shape)  # raises where the axes do not divide
    indices: Mapping[Any, Any] = sharding.devices_indices_map(shape)
    ranges = {device: index[0].indices(shape[0])[:2] for device, index in indices.items()}
    end = 0
    for first, last in sorted(set(ranges.values())):
        if first != end:
            return None
        end = last
    return ranges if end == shape[0] else None


def read_share(
    parts: Sequence[StoredPart],
    info: TensorInfo,
    path: str,
    sharding: Sharding,
    ranges: Mapping[Any, Range],
    convert: Callable[[_Array], _Array],
) -> tuple[jax.Array, Evidence]:
    """Read the shards of this process.

    Args:
      parts: where the tensor lies.
      info: the tensor.
      path: the checkpoint, for the error.
      sharding: where the variable lives.
      ranges: its `row_ranges`.
      convert: called with the rows that were read; returns them in the variable's dtype.

    Returns:
      The array, and what `check_evidence` needs.
    """
    indices: Mapping[Any, Any] = sharding.addressable_devices_indices_map(info.shape)
    order = sorted(set(ranges.values()))
    found: dict[tuple[int, int], int] = {}
    shards: dict[Any, jax.Array] = {}
    dtype = convert(np.empty((0, *info.shape[1:]), info.dtype)).dtype
    for number, (begin, end) in enumerate(order):
        here = [device for device in indices if ranges[device] == (begin, end)]
        if not here:
            continue
        rows, checksums = read_rows(parts, info, begin, end)
        found.update({(part, number): value for part, value in enumerate(checksums) if value is not None})
        shards.update(_put(convert(rows), {device: indices[device][1:] for device in here}, sharding))
        del rows
    array = jax.make_array_from_single_device_arrays(
        info.shape, sharding, [shards[device] for device in indices], dtype=dtype
    )
    jax.block_until_ready(array)  # the memory of what was read is free before more is read
    spans = [Span(part.rows, part.row_bytes, part.checksum) for part in parts if part.checksum is not None]
    assert len(spans) in (0, len(parts))
    return array, Evidence(info.name, path, spans, order, found, not sharding.is_fully_addressable)


def evidence_of(
    array: jax.Array, name: str, path: str, spans: Sequence[Span], ranges: Mapping[Any, Range]
) -> Evidence | None:
    """Return what `check_evidence` needs of an array that was read otherwise, None unless each shard has whole rows."""
    row_shape = array.shape[1:]
    order = sorted(set(ranges.values()))
    found: dict[tuple[int, int], int] = {}
    if array.sharding.shard_shape(array.shape)[1:] != row_shape:
        return None
    for shard in array.addressable_shards:
        number = order.index(ranges[shard.device])
        first = order[number][0]
        for position, span in enumerate(spans):
            common = _common(span.rows, order[number])
            if common and (position, number) not in found:
                octets = np.asarray(shard.data)[common[0] - first : common[1] - first]
                found[position, number] = span.checksum.of(octets)
    return Evidence(name, path, spans, order, found, not array.sharding.is_fully_addressable)


def _put(rows: _Array, columns: Mapping[Any, Any], sharding: Sharding) -> dict[Any, jax.Array]:
    """Put rows on devices, of each what it holds of the other axes; replicas do not share their memory."""
    put: dict[Any, jax.Array] = {}
    seen: set[str] = set()
    for device, index in columns.items():
        part = own_part(rows, (slice(None), *index))
        if repr(index) in seen and part.size == rows.size:
            part = host_memory(part.shape, part.dtype)
            part[...] = rows
        seen.add(repr(index))
        put[device] = jax.device_put(part, SingleDeviceSharding(device, memory_kind=sharding.memory_kind))
    return put


def check_evidence(evidence: Sequence[Evidence], what: str) -> None:
    """Check what was read against the checksums; where several processes have read, all must call it.

    Args:
      evidence: of all that was read, in an order that all processes agree on.
      what: what they do together, for the error.

    Raises:
      DataLossError: values do not match their checksum, or no process has read some; raised in every process.
    """
    for each in evidence:
        if not each.is_common:
            _check(each)
    common = [each for each in evidence if each.is_common and each.spans]
    if not common:
        return
    said = [[each.found.get(key) for key in each.common()] for each in common]
    told: list[Any] = told_by_all(said, what)
    for number, each in enumerate(common):
        for position, key in enumerate(each.common()):
            values = {process[number][position] for process in told} - {None}
            if len(values) > 1:
                raise _wrong_values(each)
            if values:
                each.found[key] = values.pop()
        _check(each)


def _check(evidence: Evidence) -> None:
    for number, span in enumerate(evidence.spans):
        pieces = [
            (evidence.found.get((number, position)), (common[1] - common[0]) * span.row_bytes)
            for position, rows in enumerate(evidence.ranges)
            if (common := _common(span.rows, rows))
        ]
        known = [(value, size) for value, size in pieces if value is not None]
        if len(known) < len(pieces) or not span.checksum.is_of(known):
            raise _wrong_values(evidence)


def _common(a: Range, b: Range) -> Range | None:
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low < high else None


def _wrong_values(evidence: Evidence) -> DataLossError:
    return DataLossError(f"{evidence.path} is damaged: the values of {evidence.name!r} do not match their checksum.")

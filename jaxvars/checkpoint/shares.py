"""Reading what is this process's own of a sharded variable, and no more, straight to where it lives.

A format says where the rows of a tensor lie (`stored_parts`). Each process reads the rows that its shards need, once,
and cuts the other axes. The checksum of a tensor that several processes have read is checked when they tell each other
those of what each has read, so that all of it is checked though nobody reads all of it.
"""

from __future__ import annotations

import bisect
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

    def overlaps(self) -> list[range]:
        """Per span the numbers of the ranges that have bytes in common with it; ranges follow one another."""
        begins = [begin for begin, _ in self.ranges]
        return [
            range(bisect.bisect_right(begins, first) - 1, bisect.bisect_left(begins, last) if first < last else 0)
            for first, last in (span.rows for span in self.spans)
        ]

    def matches(self, span: int, ranges: range) -> bool | None:
        """Whether a span has its checksum, None where not all of its ranges have been seen."""
        pieces = [self.found.get((span, number)) for number in ranges]
        known = [value for value in pieces if value is not None]
        if len(known) < len(pieces):
            return None
        rows, row_bytes, checksum = self.spans[span]
        sizes = [(min(rows[1], self.ranges[n][1]) - max(rows[0], self.ranges[n][0])) * row_bytes for n in ranges]
        return checksum.is_of(zip(known, sizes, strict=True))


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
        if not each.is_common and not all(each.matches(span, ranges) for span, ranges in enumerate(each.overlaps())):
            raise _wrong_values(each)
    common = [each for each in evidence if each.is_common and each.spans]
    if common:
        _check_together(common, what)


def _check_together(evidence: Sequence[Evidence], what: str) -> None:
    """Check what several processes have read.

    Who has read all of a span checks it alone. Of the others the processes tell each other what they have seen: with
    the layout that was saved that is nothing, however many pieces there are.
    """
    overlaps = [each.overlaps() for each in evidence]
    wrong: list[int] = []
    seen: list[tuple[int, int, int, int]] = []
    for number, (each, spans) in enumerate(zip(evidence, overlaps, strict=True)):
        if any(each.matches(span, ranges) is False for span, ranges in enumerate(spans)):
            wrong.append(number)
        seen += [(number, *key, value) for key, value in each.found.items() if len(spans[key[0]]) > 1]
    told: list[Any] = told_by_all([wrong, seen], what)
    wrong = [number for process, _ in told for number in process]
    if wrong:
        raise _wrong_values(evidence[min(wrong)])
    for _, process in told:
        for number, span, position, value in process:
            if evidence[number].found.setdefault((span, position), value) != value:
                raise _wrong_values(evidence[number])
    for each, spans in zip(evidence, overlaps, strict=True):
        if not all(each.matches(span, ranges) for span, ranges in enumerate(spans) if len(ranges) > 1):
            raise _wrong_values(each)


def _common(a: Range, b: Range) -> Range | None:
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low < high else None


def _wrong_values(evidence: Evidence) -> DataLossError:
    return DataLossError(f"{evidence.path} is damaged: the values of {evidence.name!r} do not match their checksum.")

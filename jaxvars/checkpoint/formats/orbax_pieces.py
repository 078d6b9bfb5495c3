"""Checksums of arrays that no process holds whole: one for each piece that was saved.

Each process checksums the pieces that it holds, and all tell each other. A reader verifies the pieces that it reads
whole: all of them when it reads the array, or when its own pieces are as large as those that were saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvars.checkpoint.formats.crc32c import crc32c

__all__ = ["Bounds", "Piece", "bounds_of", "checksum_pieces", "pieces_match"]

Bounds: TypeAlias = tuple[tuple[int, int], ...]  # begin and end along each axis
Piece: TypeAlias = tuple[Bounds, int]


def bounds_of(index: tuple[slice, ...], shape: tuple[int, ...]) -> Bounds:
    """Return the bounds of a piece that JAX gives as slices."""
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def checksum_pieces(arrays: Mapping[str, jax.Array]) -> dict[str, tuple[Piece, ...]]:
    """Return the pieces of each array with their checksums; all processes must call it."""
    if not arrays:
        return {}
    places = {name: _bounds(array) for name, array in arrays.items()}
    numbers = {(name, bounds): number for number, (name, bounds) in enumerate(_pairs(places))}
    own = np.zeros(len(numbers), np.uint32)
    for name, array in arrays.items():
        for shard in array.addressable_shards:
            own[numbers[name, bounds_of(shard.index, array.shape)]] = crc32c(np.asarray(shard.data))
    # Who does not hold a piece has 0 for it; those who do agree.
    checksums = _largest_of_all(own)
    return {
        name: tuple((piece, int(checksums[numbers[name, piece]])) for piece in bounds)
        for name, bounds in places.items()
    }


def _largest_of_all(own: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The largest of all processes at each place: each gets as much as it gave, however many there are."""
    if jax.process_count() == 1:
        return own
    devices: dict[int, Any] = {}
    for device in jax.devices():
        devices.setdefault(device.process_index, device)
    mesh = Mesh(np.array([devices[process] for process in sorted(devices)]), ("process",))
    rows = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("process")), own[np.newaxis])
    return np.asarray(jax.jit(_largest, out_shardings=NamedSharding(mesh, PartitionSpec()))(rows))


def _largest(rows: jax.Array) -> jax.Array:
    return rows.max(axis=0)


def pieces_match(pieces: Iterable[Piece], value: npt.NDArray[Any], bounds: Bounds) -> bool:
    """Whether the pieces that lie within a part of an array have their checksums.

    Args:
      pieces: the pieces of the array.
      value: the values of the part.
      bounds: where in the array the part lies.
    """
    return all(
        crc32c(value[tuple(slice(b - low, e - low) for (b, e), (low, _) in zip(piece, bounds, strict=True))])
        == checksum
        for piece, checksum in pieces
        if all(low <= b and e <= high for (b, e), (low, high) in zip(piece, bounds, strict=True))
    )


def _bounds(array: jax.Array) -> list[Bounds]:
    """The different pieces of an array, in an order that all processes agree on."""
    indices = array.sharding.devices_indices_map(array.shape).values()
    return sorted({bounds_of(index, array.shape) for index in indices})


def _pairs(places: Mapping[str, list[Bounds]]) -> Iterable[tuple[str, Bounds]]:
    return ((name, bounds) for name, several in places.items() for bounds in several)

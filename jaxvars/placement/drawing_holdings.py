"""Who holds what: from the shardings of variables to the pieces that each device holds, and their bytes.

Only shardings are asked, never values: what other processes hold, what specs ask for, and meshes that are only
described (`jax.sharding.AbstractMesh`) count as what is here does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jax.core import Tracer
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jaxvars.buffers import is_deleted
from jaxvars.errors import InvalidArgumentError
from jaxvars.placement.homes import Device, resolve
from jaxvars.placement.packed import PackedVariables
from jaxvars.scopes.device_scope import SOFT
from jaxvars.spec import is_hole, leaf_dtype, leaf_nbytes, leaf_shape
from jaxvars.summary import describe
from jaxvars.variables import Variables

__all__ = ["Holding", "Place", "Spread", "holdings"]


class Place(NamedTuple):
    """Where bytes lie: the memory of a device.

    Attributes:
      name: ``"cpu:3"``; ``"data=0, model=3"`` on a mesh without devices; a device string that names none here.
      memory: the kind of memory, "" for the device's own.
      process: the process that the device belongs to, None where it is not known.
    """

    name: str
    memory: str = ""
    process: int | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.memory}".rstrip()


class Spread(NamedTuple):
    """How one value lies on places.

    Attributes:
      places: numbers of the places.
      pieces: into how many pieces each dimension is cut.
      piece: per place the piece that it holds, counted along the last dimension first.
      elements: per place how many elements that piece has.
    """

    places: npt.NDArray[np.int64]
    pieces: tuple[int, ...]
    piece: npt.NDArray[np.int64]
    elements: npt.NDArray[np.int64]


class Holding(NamedTuple):
    """A variable, or a buffer of several, and where it lies.

    Attributes:
      name: of the variable.
      scope: the scope that it is counted under.
      text: its dtype and shape.
      nbytes: one copy.
      itemsize: bytes of an element.
      rule: the sharding's rule in words, "" for a device.
      spread: where it lies, None where that is not known.
      reason: why it is not known.
    """

    name: str
    scope: str
    text: str
    nbytes: int
    itemsize: int
    rule: str
    spread: Spread | None
    reason: str = ""

    @property
    def held(self) -> int:
        """Bytes on all places together."""
        return 0 if self.spread is None else int(self.spread.elements.sum()) * self.itemsize


def holdings(variables: Variables, depth: int) -> tuple[list[Place], list[Holding]]:
    """Return the places that the variables name, and where each variable lies.

    Args:
      variables: values or specs.
      depth: how many parts of a name make its scope.
    """
    places = _Places()
    found: list[Holding] = []
    for name, leaf, place, note in _leaves(variables):
        where = _where(place, note)
        spread, reason = places.spread(where, leaf_shape(leaf)) if not isinstance(where, str) else (None, where)
        nbytes = leaf_nbytes(leaf)
        found.append(
            Holding(
                name,
                "/".join(name.split("/")[:-1][:depth]) or "(no scope)",
                describe(leaf),
                nbytes,
                int(leaf_dtype(leaf).itemsize) if nbytes else 0,
                str(tuple(where.spec)) if isinstance(where, NamedSharding) else "",
                spread,
                reason,
            )
        )
    return places.ordered(sorted(found, key=lambda holding: holding.name))


def _leaves(variables: Variables) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield name, shape and dtype, what has the sharding, and the placement's note; packed values are not cut out."""
    notes = variables._layout.placement
    if not isinstance(variables, PackedVariables):
        for key, leaf, note in zip(variables, variables._leaves, notes, strict=True):
            yield key, leaf, leaf, note
        return
    packing, members = variables._packing, variables._abstract()._leaves
    for number, (path, child) in enumerate(zip(packing.key_paths, variables._children, strict=True)):
        sharding = getattr(child, "sharding", None)
        if sharding is not None and not sharding.is_fully_replicated:
            yield path.key, child, child, None
            continue
        for position in packing.members(number):
            yield packing.layout.keys[position], members[position], child, notes[position]


def _where(leaf: Any, note: Any) -> Sharding | Place | str:
    """The sharding of a value or hole, a place that has only a name, or why there is none."""
    if isinstance(leaf, Tracer):
        return "traced: where it will lie is not known yet"
    if is_deleted(leaf):
        return "deleted"
    sharding = getattr(leaf, "sharding", None)
    if sharding is not None:
        return sharding
    if not is_hole(leaf):
        return "not an array of JAX"
    if isinstance(note, PartitionSpec):
        return f"wants {tuple(note)} of a mesh that is not given"
    if not note:
        return "JAX will choose"
    text = note.removesuffix(SOFT)
    try:
        device = resolve(text, soft_placement=text != note)
    except InvalidArgumentError:
        device = None
    return Place(text) if device is None else SingleDeviceSharding(device)


class _Places:
    """Numbers for places, and where values of a sharding lie among them; each found once."""

    def __init__(self) -> None:
        self._numbers: dict[Place, int] = {}
        self._order: dict[Place, Any] = {}
        self._meshes: dict[Any, npt.NDArray[np.int64]] = {}
        self._spreads: dict[Any, tuple[Spread | None, str]] = {}

    def spread(self, where: Sharding | Place, shape: tuple[int, ...]) -> tuple[Spread | None, str]:
        """Return how a value of this shape lies there; None and the reason where it cannot."""
        found = self._spreads.get((where, shape))
        if found is None:
            try:
                found = self._spread(where, shape), ""
            except ValueError as error:
                found = None, str(error)
            self._spreads[where, shape] = found
        return found

    def _spread(self, where: Sharding | Place, shape: tuple[int, ...]) -> Spread:
        if isinstance(where, Place):
            numbers = np.array([self._number(where, (2, where.name))])
            return Spread(numbers, (1,) * len(shape), np.zeros(1, np.int64), np.array([math.prod(shape)]))
        if isinstance(where, NamedSharding):
            pieces, piece = _pieces_of_mesh(where, shape)
            return Spread(
                self._of_mesh(where), pieces, piece, np.full(piece.size, math.prod(shape) // math.prod(pieces))
            )
        return self._asked(where, shape)

    def _asked(self, where: Sharding, shape: tuple[int, ...]) -> Spread:
        """For shardings that are not a mesh with a rule: JAX says which part each device holds."""
        parts = where.devices_indices_map(shape)
        bounds = np.array(
            [[part.indices(size)[:2] for part, size in zip(index, shape, strict=True)] for index in parts.values()],
            np.int64,
        ).reshape(len(parts), len(shape), 2)
        begins = [np.unique(bounds[:, axis, 0], return_inverse=True) for axis in range(len(shape))]
        pieces = tuple(len(different) for different, _ in begins)
        piece = np.zeros(len(parts), np.int64)
        for count, (_, number) in zip(pieces, begins, strict=True):
            piece = piece * count + number
        numbers = np.array([self._of_device(device, where.memory_kind) for device in parts], np.int64)
        return Spread(numbers, pieces, piece, np.prod(bounds[:, :, 1] - bounds[:, :, 0], axis=1, dtype=np.int64))

    def _of_mesh(self, where: NamedSharding) -> npt.NDArray[np.int64]:
        """The numbers of a mesh's devices, in its order."""
        key = where.mesh, where.memory_kind
        numbers = self._meshes.get(key)
        if numbers is None:
            mesh = where.mesh
            if isinstance(mesh, AbstractMesh):
                memory = where.memory_kind or ""
                axes = [range(size) for size in mesh.shape.values()]
                grid = (
                    np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes)) if axes else np.zeros((1, 0))
                )
                names = [", ".join(f"{a}={int(i)}" for a, i in zip(mesh.shape, row, strict=True)) for row in grid]
                order = (self._number(Place(name, memory), (1, i)) for i, name in enumerate(names))
            else:
                order = (self._of_device(device, where.memory_kind) for device in mesh.devices.flat)
            numbers = self._meshes[key] = np.fromiter(order, np.int64)
        return numbers

    def _of_device(self, device: Device, memory: str | None) -> int:
        own = memory is None or memory == device.default_memory().kind
        place = Place(f"{device.platform}:{device.id}", "" if own else str(memory), device.process_index)
        return self._number(place, (0, device.platform, device.id))

    def _number(self, place: Place, order: Any) -> int:
        self._order.setdefault(place, (place.memory, order))
        return self._numbers.setdefault(place, len(self._numbers))

    def ordered(self, found: Sequence[Holding]) -> tuple[list[Place], list[Holding]]:
        """Renumber the places: own memories first; devices by platform and id, those of abstract meshes, mere names."""
        places = sorted(self._numbers, key=self._order.__getitem__)
        new = np.zeros(len(places), np.int64)
        for number, place in enumerate(places):
            new[self._numbers[place]] = number
        return places, [
            holding
            if (spread := holding.spread) is None
            else holding._replace(spread=spread._replace(places=new[spread.places]))
            for holding in found
        ]


def _pieces_of_mesh(where: NamedSharding, shape: tuple[int, ...]) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
    """Into how many pieces a rule cuts each dimension, and the piece of each device in the order of its mesh.

    Raises:
      ValueError: the rule does not fit the shape.
    """
    sizes = dict(where.mesh.shape)
    axes = [_axes(entry) for entry in where.spec]
    if len(axes) > len(shape):
        raise ValueError(f"{tuple(where.spec)} is for more dimensions than its {len(shape)}")
    axes += [()] * (len(shape) - len(axes))
    grid = np.indices(tuple(sizes.values())).reshape(len(sizes), -1)
    coordinates = dict(zip(sizes, grid, strict=True))
    piece = np.zeros(math.prod(sizes.values()), np.int64)
    pieces: list[int] = []
    for number, (size, names) in enumerate(zip(shape, axes, strict=True)):
        count = math.prod(sizes[name] for name in names)
        if size % count:
            raise ValueError(f"{tuple(where.spec)} cuts dimension {number} of size {size} into {count} pieces")
        pieces.append(count)
        for name in names:
            piece = piece * sizes[name] + coordinates[name]
    return tuple(pieces), piece


def _axes(entry: Any) -> tuple[str, ...]:
    """The mesh axes over which one dimension is spread."""
    if isinstance(entry, str):
        return (entry,)
    return tuple(entry) if isinstance(entry, tuple) else ()

"""`Packing`: which variables share a buffer, and where in it each lies. Static: holds no array.

JAX spends some microseconds on each array that enters or leaves a jitted function, however small it is. Small
variables that are laid into one buffer cost one array together. Variables share a buffer when an update of the
buffer as a whole is right for all of them: same dtype, trainable flag and home. Slots (``w/Adam``) lie in the order
of their variables in buffers of their own, so that an optimizer works on whole buffers, too.
"""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import DictKey

from jaxvars import views
from jaxvars.buffers import is_concrete
from jaxvars.layout import Layout
from jaxvars.spec import leaf_nbytes
from jaxvars.state import State

__all__ = ["Group", "Packing", "PackingRule", "home_of", "packing_of"]

_lock = threading.RLock()
_packings: weakref.WeakValueDictionary[Any, Packing] = weakref.WeakValueDictionary()


class PackingRule(NamedTuple):
    """What a user asked for.

    Attributes:
      max_bytes: size of the largest variable that is packed.
      separate: (pattern, label) pairs; variables of different labels never share a buffer.
    """

    max_bytes: int
    separate: tuple[tuple[Any, Any], ...] = ()


class Group(NamedTuple):
    """Variables that share one buffer, in the order in which they lie there.

    Attributes:
      positions: their positions in the layout.
      shapes: their shapes.
    """

    positions: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]


class Packing:
    """The static half of a packed state. One object per content: made by `_intern` only.

    Attributes:
      layout: the layout of the variables.
      groups: one per buffer.
      rule: how it came about; not compared.
      loose: positions of the variables that are not packed; their values follow the buffers.
      where: per position (group, place in the group), or (None, number of the child) of a loose variable.
      sizes: per group the number of elements of each member.
      offsets: per group where each member begins.
    """

    __slots__ = ("__weakref__", "_key_paths", "groups", "layout", "loose", "offsets", "rule", "sizes", "where")

    def __init__(self, layout: Layout, groups: tuple[Group, ...], rule: PackingRule) -> None:
        self.layout: Layout = layout
        self.groups: tuple[Group, ...] = groups
        self.rule: PackingRule = rule
        where: dict[int, tuple[int | None, int]] = {
            position: (number, place)
            for number, group in enumerate(groups)
            for place, position in enumerate(group.positions)
        }
        self.loose: tuple[int, ...] = tuple(position for position in range(len(layout)) if position not in where)
        where.update((position, (None, len(groups) + i)) for i, position in enumerate(self.loose))
        self.where: dict[int, tuple[int | None, int]] = where
        self.sizes: tuple[list[int], ...] = tuple([math.prod(shape) for shape in group.shapes] for group in groups)
        self.offsets: tuple[list[int], ...] = tuple(
            list(itertools.accumulate(sizes, initial=0))[:-1] for sizes in self.sizes
        )
        self._key_paths: tuple[Any, ...] | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is Packing and self.layout == other.layout and self.groups == other.groups)

    def __hash__(self) -> int:
        return hash(self.layout)

    def __reduce__(self) -> Any:
        return _intern, (self.layout, self.groups, self.rule)

    @property
    def key_paths(self) -> tuple[Any, ...]:
        """One `DictKey` per child; that of a buffer names its first variable and how many follow."""
        if self._key_paths is None:
            keys = self.layout.keys
            buffers = [f"{keys[group.positions[0]]} and {len(group.positions) - 1} more" for group in self.groups]
            self._key_paths = tuple(map(DictKey, [*buffers, *(keys[position] for position in self.loose)]))
        return self._key_paths

    def children_of(self, positions: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the children that hold exactly these variables, None where a buffer holds others too."""
        numbers: set[int] = set()
        for position in positions:
            group, place = self.where[position]
            numbers.add(place if group is None else group)
        held = sum(len(self.groups[n].positions) if n < len(self.groups) else 1 for n in numbers)
        return tuple(sorted(numbers)) if held == len(positions) else None

    def members(self, child: int) -> tuple[int, ...]:
        """Return the positions of the variables that a child holds, in the order in which they lie there."""
        buffers = len(self.groups)
        return self.groups[child].positions if child < buffers else (self.loose[child - buffers],)

    def child_of(self, positions: tuple[int, ...]) -> int | None:
        """Return the child that holds exactly these variables in this order, or None."""
        number, place = self.where[positions[0]]
        if number is None:
            return place if len(positions) == 1 else None
        return number if self.groups[number].positions == positions else None

    def part(self, numbers: tuple[int, ...], positions: tuple[int, ...], layout: Layout) -> Packing:
        """Return the packing of these children alone, which hold the variables at `positions`, of layout `layout`."""

        def make() -> Packing:
            new = {position: i for i, position in enumerate(positions)}
            groups = tuple(
                Group(tuple(new[p] for p in self.groups[n].positions), self.groups[n].shapes)
                for n in numbers
                if n < len(self.groups)
            )
            return _intern(layout, groups, self.rule)

        # The layout keeps it: a packing is small, and the layouts of views are few.
        return layout.cached(("jaxvars.packing", self, numbers), make)


def _intern(layout: Layout, groups: tuple[Group, ...], rule: PackingRule) -> Packing:
    with _lock:
        # By identity of the layout, whose notes are not compared; the packing keeps it alive.
        packing = _packings.get((id(layout), groups))
        if packing is None:
            packing = _packings[id(layout), groups] = Packing(layout, groups, rule)
        return packing


def packing_of(state: State, rule: PackingRule) -> Packing:
    """Return how the variables of a state are packed by a rule."""
    labels: Mapping[int, Any] = {}
    if rule.separate:
        labels = views.mapped(state, list(rule.separate), "packed", allow_unmatched=True)
    layout = state._layout
    kinds = [
        None if layout.constraints[i] is not None else _kind(leaf, rule.max_bytes)
        for i, leaf in enumerate(state._leaves)
    ]
    families: dict[Hashable, list[tuple[int, int]]] = {}
    for position, kind in enumerate(kinds):
        if kind is None:
            continue
        owner, suffix = _owner(state, position)
        alike = (kind, layout.trainable[position], labels.get(position))
        if owner is None:
            families.setdefault(alike, []).append((position, position))
        elif kinds[owner] is not None:
            # A slot lies with its kind, in the order of the variables, apart from slots of variables elsewhere.
            alike = (*alike, suffix, kinds[owner], layout.trainable[owner], labels.get(owner))
            families.setdefault(alike, []).append((owner, position))
    members = [tuple(position for _, position in sorted(family)) for family in families.values() if len(family) > 1]
    leaves = state._leaves
    groups = tuple(Group(positions, tuple(leaves[p].shape for p in positions)) for positions in sorted(members))
    return _intern(layout, groups, rule)


def _kind(leaf: Any, max_bytes: int) -> Hashable | None:
    """Dtype and home of a value that can share a buffer, else None."""
    if not isinstance(leaf, jax.Array) or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return None
    if not 0 < leaf_nbytes(leaf) <= max_bytes:
        return None
    home: Any = None
    if is_concrete(leaf):
        if not leaf.sharding.is_fully_replicated:
            return None
        home = home_of(leaf)
    return leaf.dtype, home


def home_of(array: jax.Array) -> jax.sharding.Sharding | None:
    """Return where a buffer goes that is made of such values, and they when cut out of it; None where JAX may choose.

    On a mesh that is all of it, whatever the rank that the partition spec was written for.
    """
    home = array.sharding if array.committed else None
    if isinstance(home, NamedSharding):
        return NamedSharding(home.mesh, PartitionSpec(), memory_kind=home.memory_kind)
    return home


def _owner(state: State, position: int) -> tuple[int | None, str]:
    """The variable of which this one is a slot (named below it, of its shape, not trainable), and the slot's name."""
    layout = state._layout
    key, end = layout.keys[position], len(layout.keys[position])
    if layout.trainable[position]:
        return None, ""
    shape = state._leaf(position).shape
    while (end := key.rfind("/", 0, end)) > 0:
        owner = layout.index.get(key[:end])
        if owner is not None and getattr(state._leaf(owner), "shape", None) == shape:
            return owner, key[end:]
    return None, ""

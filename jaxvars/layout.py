"""`Layout`: the static half of `Variables`, one object per structure for the life of any user.

JAX compares the static half of a pytree on every call of a jitted function, so it must be cheap to compare
and one and the same object wherever the structure is the same: after a rebuild, an unpickling, a copy, in
another thread. Layouts are therefore interned, in two parts. The `Core` is what is compared: names, trainable
flags, collections, constraints. The `Layout` adds notes that are never compared (where a variable was
defined, creation order, placement): two layouts with one core are equal, whatever their notes say.
"""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from jax.tree_util import DictKey

from jaxvars.spec import Constraint, Placement, VariableSpec

__all__ = ["Core", "Layout", "Notes", "make_layout"]

T = TypeVar("T")

# Reentrant, because a garbage collection inside the locked region may run code that builds a layout.
_lock = threading.RLock()
_cores: weakref.WeakValueDictionary[Any, Core] = weakref.WeakValueDictionary()
_layouts: weakref.WeakValueDictionary[Any, Layout] = weakref.WeakValueDictionary()

# Views (trainable, scope(...), ...) kept per layout. They are few in a program; the bound only guards against
# a loop that makes up a new pattern each time.
_MAX_VIEWS = 256

CoreFields: TypeAlias = tuple[
    tuple[str, ...], tuple[bool, ...], tuple[tuple[str, ...], ...], tuple[Constraint | None, ...]
]


class Notes(NamedTuple):
    """What is known of each variable beside what is compared; per key, but for the order of creation.

    Attributes:
      placement: a device string, `PartitionSpec` or None.
      defined_at: ``"file.py:line"`` or "".
      file_dtype: the dtype of the checkpoint that the value came from, "" where it is the variable's own.
      partition: (axis, number of slices) or None.
      creation_order: the keys in the order in which they were created.
    """

    placement: tuple[Placement, ...]
    defined_at: tuple[str, ...]
    file_dtype: tuple[str, ...]
    partition: tuple[tuple[int, int] | None, ...]
    creation_order: tuple[str, ...]

    def subset(self, positions: Sequence[int], keys: Sequence[str]) -> Notes:
        """Return the notes of the variables at these positions, which have these keys."""
        kept = set(keys)
        return Notes(
            tuple(self.placement[i] for i in positions),
            tuple(self.defined_at[i] for i in positions),
            tuple(self.file_dtype[i] for i in positions),
            tuple(self.partition[i] for i in positions),
            tuple(key for key in self.creation_order if key in kept),
        )


# Below this size one flat copy is as fast as two short ones.
_FLAT_LIMIT = 128


def _chunk_bits(size: int) -> int:
    """Log2 of the chunk length for `size` leaves, about half of log2(size); 0 means not chunked."""
    return 0 if size <= _FLAT_LIMIT else round((size.bit_length() - 0.5) / 2)


class Core:
    """What two equal layouts share. Compared by identity: make it with `_intern_core` only.

    Attributes:
      keys: the names, sorted.
      trainable: per key, whether it is trainable.
      collections: per key, its collections.
      constraints: per key, its constraint or None.
      index: name -> position.
      bits: log2 of the chunk length in which a state of this size keeps its values, 0 for not chunked.
    """

    __slots__ = (
        "__weakref__",
        "_key_paths",
        "bits",
        "collections",
        "constraints",
        "index",
        "keys",
        "trainable",
    )

    def __init__(
        self,
        keys: tuple[str, ...],
        trainable: tuple[bool, ...],
        collections: tuple[tuple[str, ...], ...],
        constraints: tuple[Constraint | None, ...],
    ) -> None:
        self.keys: tuple[str, ...] = keys
        self.trainable: tuple[bool, ...] = trainable
        self.collections: tuple[tuple[str, ...], ...] = collections
        self.constraints: tuple[Constraint | None, ...] = constraints
        self.index: dict[str, int] = {key: i for i, key in enumerate(keys)}
        self.bits: int = _chunk_bits(len(keys))
        self._key_paths: tuple[Any, ...] | None = None

    @property
    def key_paths(self) -> tuple[Any, ...]:
        """One `DictKey` per variable, so that JAX, optax and Orbax print names."""
        if self._key_paths is None:
            self._key_paths = tuple(DictKey(key) for key in self.keys)
        return self._key_paths


def _constraint_identity(constraint: Constraint | None) -> Any:
    """What makes two constraints the same.

    A lambda in a model's text is a new function object at each run of the model. Without closure and
    defaults its code is all there is to it, and code objects compare by value: so running a cell again does
    not retrace.
    """
    if isinstance(constraint, types.FunctionType):
        plain = constraint.__closure__ is None and not constraint.__defaults__ and not constraint.__kwdefaults__
        if plain:
            return constraint.__code__, constraint.__module__
    return constraint


def _intern_core(fields: CoreFields) -> Core:
    identity = (*fields[:3], tuple(_constraint_identity(c) for c in fields[3]))
    with _lock:
        core = _cores.get(identity)
        if core is None:
            core = _cores[identity] = Core(*fields)
        return core


class Layout:
    """Names, trainable flags, collections and constraints in key order, with notes.

    Hashable, equal to any layout of the same core, independent of shapes and dtypes (the leaves know those).
    Holds no array, mesh or device. Make it with `make_layout`.

    Attributes:
      core: the compared part.
      notes: the rest.
      placed: whether any variable has a placement.
    """

    __slots__ = (
        "__weakref__",
        "_views",
        "bits",
        "core",
        "index",
        "keys",
        "notes",
        "placed",
    )

    def __init__(self, core: Core, notes: Notes) -> None:
        self.core: Core = core
        self.keys: tuple[str, ...] = core.keys
        self.index: dict[str, int] = core.index
        self.bits: int = core.bits
        self.notes: Notes = notes
        self.placed: bool = notes.placement.count(None) != len(notes.placement)
        self._views: dict[Any, Any] = {}

    def __eq__(self, other: object) -> bool:
        return self is other or (type(other) is Layout and self.core is other.core)

    def __hash__(self) -> int:
        return hash(self.core)

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        shown = ", ".join(self.keys[:3]) + (", ..." if len(self.keys) > 3 else "")
        return f"Layout({len(self.keys)} variables: {shown})"

    def __copy__(self) -> Layout:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Layout:
        return self

    def __reduce__(self) -> Any:
        return _intern_layout, (self._fields, self.notes)

    @property
    def placement(self) -> tuple[Placement, ...]:
        """Per key a device string, `PartitionSpec` or None."""
        return self.notes.placement

    @property
    def defined_at(self) -> tuple[str, ...]:
        """Per key ``"file.py:line"`` or ""."""
        return self.notes.defined_at

    @property
    def creation_order(self) -> tuple[str, ...]:
        """The keys in the order in which they were created."""
        return self.notes.creation_order

    @property
    def trainable(self) -> tuple[bool, ...]:
        """Per key, whether it is trainable."""
        return self.core.trainable

    @property
    def collections(self) -> tuple[tuple[str, ...], ...]:
        """Per key, its collections."""
        return self.core.collections

    @property
    def constraints(self) -> tuple[Constraint | None, ...]:
        """Per key, its constraint or None."""
        return self.core.constraints

    def spec(self, position: int, shape: tuple[int, ...], dtype: Any) -> VariableSpec:
        """Return the spec of the variable at `position`, whose shape and dtype its value knows."""
        core, notes = self.core, self.notes
        return VariableSpec(
            core.keys[position],
            shape,
            dtype,
            core.trainable[position],
            core.collections[position],
            notes.placement[position],
            notes.defined_at[position],
            core.constraints[position],
            notes.file_dtype[position],
            notes.partition[position],
        )

    def cached(self, name: Any, make: Callable[[], T]) -> T:
        """Return ``make()``, computed once per layout and `name` (hashable, holding no array)."""
        try:
            return self._views[name]
        except KeyError:
            pass
        made = make()
        if len(self._views) >= _MAX_VIEWS:
            self._views.clear()
        self._views[name] = made
        return made

    def with_placement(self, placement: Mapping[int, Placement]) -> Layout:
        """Return the layout with the placement of these positions replaced."""
        changed = tuple(placement.get(i, note) for i, note in enumerate(self.notes.placement))
        return _intern_layout(self._fields, self.notes._replace(placement=changed))

    def with_file_dtypes(self, file_dtypes: Mapping[int, str]) -> Layout:
        """Return the layout with the dtypes in the file of these positions replaced."""
        changed = tuple(file_dtypes.get(i, note) for i, note in enumerate(self.notes.file_dtype))
        return (
            self
            if changed == self.notes.file_dtype
            else _intern_layout(self._fields, self.notes._replace(file_dtype=changed))
        )

    def subset(self, positions: Sequence[int]) -> Layout:
        """Return the layout of the variables at these ascending positions."""
        if len(positions) == len(self.keys):
            return self
        keys, trainable, collections, constraints = self._fields
        kept = tuple(keys[i] for i in positions)
        fields = (
            kept,
            tuple(trainable[i] for i in positions),
            tuple(collections[i] for i in positions),
            tuple(constraints[i] for i in positions),
        )
        return _intern_layout(fields, self.notes.subset(positions, kept))

    @property
    def _fields(self) -> CoreFields:
        core = self.core
        return core.keys, core.trainable, core.collections, core.constraints


def _intern_layout(fields: CoreFields, notes: Notes) -> Layout:
    with _lock:
        core = _intern_core(fields)
        # The core is in the key by identity: the layout keeps it alive as long as the entry exists.
        layout = _layouts.get((id(core), notes))
        if layout is None:
            layout = _layouts[id(core), notes] = Layout(core, notes)
        return layout


def make_layout(specs: Sequence[VariableSpec]) -> Layout:
    """Return the interned layout of these specs, given in creation order, with distinct keys."""
    ordered = sorted(specs, key=lambda spec: spec.key)
    fields = (
        tuple(spec.key for spec in ordered),
        tuple(spec.trainable for spec in ordered),
        tuple(spec.collections for spec in ordered),
        tuple(spec.constraint for spec in ordered),
    )
    notes = Notes(
        tuple(spec.placement for spec in ordered),
        tuple(spec.defined_at for spec in ordered),
        tuple(spec.file_dtype for spec in ordered),
        tuple(spec.partition for spec in ordered),
        tuple(spec.key for spec in specs),
    )
    return _intern_layout(fields, notes)

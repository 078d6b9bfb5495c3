"""Orbax checkpoints: the one module that reads through Orbax, so that its pitfalls are met in one place.

* One flat level of names: nested trees whose components contain dots lose values silently.
* Names, shapes and dtypes come from our record and are compared before Orbax reads: it casts float to int
  silently, and hands back the request itself for a name it lacks.
* Values are checksummed: most flipped bits in an Orbax checkpoint load silently.
* Small variables, and those without elements, which Orbax refuses, lie in a file of ours: `orbax_packing`.
* Always explicit targets: without them Orbax asks for the devices of the machine that saved.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.files import list_folder
from jaxvars.checkpoint.formats.freed_memory import give_back
from jaxvars.checkpoint.formats.orbax_calls import calling_orbax
from jaxvars.checkpoint.formats.orbax_layout import packed_path
from jaxvars.checkpoint.formats.orbax_packing import PackedFile
from jaxvars.checkpoint.formats.orbax_pieces import bounds_of, pieces_match
from jaxvars.checkpoint.formats.orbax_record import (
    EMPTY,
    Entry,
    Lazily,
    decode_record,
    described_variables,
    read_metadata_file,
)
from jaxvars.checkpoint.formats.stored_parts import Checksum, Span
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError
from jaxvars.spec import VariableSpec

__all__ = ["OrbaxSource", "orbax_module"]

_ITEM = "state"  # the name under which Orbax's `save` files a tree
_MOST_BYTES_AT_ONCE = 1 << 28
_Path = tuple[Any, ...]


def orbax_module() -> Any:
    """Return Orbax's v1 API, imported on first use."""
    from orbax.checkpoint import v1

    return v1


class OrbaxSource:
    """An Orbax checkpoint, open for reading: one of ours, or anyone's.

    Trees of other programs are read as flat names, ``params/dense/kernel``. Where a checkpoint holds several
    trees, each one's name comes first.

    Args:
      path: the folder.

    Raises:
      DataLossError: the checkpoint is damaged.
      NotFoundError: it was removed meanwhile.
    """

    format = "orbax"

    def __init__(self, path: str) -> None:
        self.path = path
        if not os.path.isdir(path):
            raise NotFoundError(f"Checkpoint does not exist (any more): {path}")
        self._packed = PackedFile(path) if os.path.lexists(packed_path(path)) else None
        # Record version 1, which had no such file, lies in the metadata.
        self._entries: Mapping[str, Entry] | None = (
            self._packed.entries if self._packed else decode_record(_custom_metadata(path), path)
        )
        # name -> (item, key path in the item's tree); ours are the tree's own keys.
        self._places: dict[str, tuple[str | None, _Path]] = {}
        self._trees: dict[str | None, Any] = {}
        if self._entries is None:
            self.tensors: Mapping[str, TensorInfo] = self._foreign_tensors()
        else:
            self.tensors = described_variables(self._entries, path)

    @property
    def specs(self) -> Mapping[str, VariableSpec] | None:
        """The variables as they were saved, None for a checkpoint of another program."""
        entries = self._entries
        return None if entries is None else Lazily(entries, lambda name, _: entries[name].spec)

    def _foreign_tensors(self) -> dict[str, TensorInfo]:
        root, items = _items(self.path)
        ocp = orbax_module()
        tensors: dict[str, TensorInfo] = {}
        for item in items:
            named: dict[str, Any] = {} if item is None else {"checkpointable_name": item}
            with calling_orbax(DataLossError, f"Cannot read the names in {self.path}"), ocp.Context():
                self._trees[item] = ocp.metadata(root, **named).metadata
            prefix = f"{item}/" if len(items) > 1 else ""
            for keys, leaf in _leaves(self._trees[item]):
                name = prefix + "/".join(_component(key) for key in keys)
                if name in tensors:
                    raise InvalidArgumentError(
                        f"{self.path} holds two values that are both called {name!r} when its tree is "
                        "written as flat names. Load it with Orbax, and write: Variables.from_nested(tree)"
                    )
                tensors[name] = _foreign_info(name, leaf)
                self._places[name] = (item, keys)
        self._root = root
        return tensors

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as an array in the file's dtype, checked against its checksum."""
        return next(iter(self.read_many([name])))[1]

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) in groups that Orbax reads at once.

        Raises:
          DataLossError: the values do not match their checksum or what the checkpoint says of them.
        """
        for group in self._groups(names):
            if self._entries is None:
                yield from self._read_foreign(group)
            else:
                yield from self._read_ours(self._entries, group)

    def _groups(self, names: Iterable[str]) -> Iterator[list[str]]:
        group: list[str] = []
        size = 0
        for name in names:
            group.append(name)
            size += self.tensors[name].nbytes
            if size >= _MOST_BYTES_AT_ONCE:
                yield group
                group, size = [], 0
        if group:
            yield group

    def _read_ours(self, entries: Mapping[str, Entry], names: list[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        try:
            for name, value in self._stored(entries, names):
                entry = entries[name]
                yield name, self._checked(name, value, entry)
        except DataLossError:
            if self._packed is not None and self._packed.was_replaced():
                raise DataLossError(
                    f"{self.path} was replaced or removed while it was being read. Read it again from the start."
                ) from None
            raise

    def _stored(self, entries: Mapping[str, Entry], names: list[str]) -> Iterator[tuple[str, Any]]:
        """Yield what is stored, from where it is stored."""
        if self._packed is not None:
            yield from self._packed.read_many([name for name in names if isinstance(entries[name].at, int)])
        for name in names:
            if entries[name].at == EMPTY:
                yield name, np.empty(entries[name].shape, entries[name].dtype)
        arrays = {name: entries[name] for name in names if entries[name].at == ""}
        values = self._load({name: _target(entry.shape, entry.dtype) for name, entry in arrays.items()})
        for name in arrays:
            yield name, values.pop(name)

    def read_onto(self, targets: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Read Orbax arrays straight onto the shardings of `targets`: of each process its own shards, and no more.

        Nothing is checked but the saved pieces that lie within one of them; `spans` says what else there is to check.

        Raises:
          DataLossError: a piece does not match its checksum.
        """
        if self._entries is None:
            return dict(self._load_foreign(targets))
        result = self._load(dict(targets))
        for name, array in result.items():
            pieces = self._entries[name].pieces
            for shard in array.addressable_shards if pieces and self.spans(name) is None else ():
                if not pieces_match(pieces, np.asarray(shard.data), bounds_of(shard.index, array.shape)):
                    raise self._wrong_values(name)
        return result

    def is_array(self, name: str) -> bool:
        """Whether a variable is an Orbax array, which `read_onto` can read."""
        return not self.tensors[name].problem and (self._entries is None or self._entries[name].at == "")

    def spans(self, name: str) -> list[Span] | None:
        """Return the rows of a variable that have checksums, None where it has none, or not of whole rows."""
        entry = None if self._entries is None else self._entries[name]
        if entry is None or not entry.shape:
            return None
        row_bytes = math.prod(entry.shape[1:]) * entry.dtype.itemsize
        if entry.crc32c is not None:
            return [Span((0, entry.shape[0]), row_bytes, Checksum("crc32c", entry.crc32c))]
        whole_rows = tuple((0, dim) for dim in entry.shape[1:])
        if not entry.pieces or any(bounds[1:] != whole_rows for bounds, _ in entry.pieces):
            return None
        return [Span(bounds[0], row_bytes, Checksum("crc32c", value)) for bounds, value in entry.pieces]

    def _load(self, targets: dict[str, Any]) -> dict[str, Any]:
        """Load a part of our flat tree: every other name is left out by a placeholder."""
        assert self._entries is not None
        if not targets:
            return {}
        ocp = orbax_module()
        stored = [name for name, entry in self._entries.items() if entry.at == ""]
        tree = {name: targets.get(name, ocp.PLACEHOLDER) for name in stored}
        with calling_orbax(DataLossError, f"Cannot read {self.path}"), _alone():
            loaded = ocp.load(self.path, tree, checkpointable_name=_ITEM)
        give_back(sum(self.tensors[name].nbytes for name in targets))
        return {name: loaded[name] for name in targets}

    def _read_foreign(self, names: list[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        for name in names:
            if self.tensors[name].problem:
                raise InvalidArgumentError(f"Cannot read {name!r} of {self.path}: {self.tensors[name].problem}.")
        for name, value in self._load_foreign(dict.fromkeys(names)):
            yield name, self._checked(name, np.asarray(value), self.tensors[name])

    def _load_foreign(self, targets: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of another program's trees; where a target is None the value is NumPy's."""
        ocp = orbax_module()
        for item, tree in self._trees.items():
            wanted = {self._places[name][1]: name for name in targets if self._places[name][0] == item}
            if not wanted:
                continue

            def target(keys: _Path, leaf: Any, wanted: dict[_Path, str] = wanted) -> Any:
                if keys not in wanted:
                    return ocp.PLACEHOLDER
                if targets[wanted[keys]] is not None:
                    return targets[wanted[keys]]
                return _target(leaf.shape, leaf.dtype) if hasattr(leaf, "shape") else leaf

            named: dict[str, Any] = {} if item is None else {"checkpointable_name": item}
            abstract = jax.tree_util.tree_map_with_path(target, tree)
            with calling_orbax(DataLossError, f"Cannot read {self.path}"), _alone():
                loaded = ocp.load(self._root, abstract, **named)
            for keys, value in jax.tree_util.tree_leaves_with_path(loaded):
                if keys in wanted:
                    yield wanted[keys], value

    def _checked(self, name: str, value: Any, entry: Entry | TensorInfo) -> npt.NDArray[Any]:
        """The value, when it is what the checkpoint says of it; checksums are in our entries only."""
        shape, dtype = entry.shape, entry.dtype
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != dtype:
            raise DataLossError(
                f"{self.path} is damaged: {name!r} should be {dtype} of shape {shape}, and is "
                f"{getattr(value, 'dtype', type(value).__name__)} of shape {getattr(value, 'shape', ())}."
            )
        if isinstance(entry, Entry):
            whole = entry.crc32c is None or crc32c(value) == entry.crc32c
            if not whole or not pieces_match(entry.pieces, value, tuple((0, size) for size in shape)):
                raise self._wrong_values(name)
        return value

    def _wrong_values(self, name: str) -> DataLossError:
        return DataLossError(f"{self.path} is damaged: the values of {name!r} do not match their checksum.")

    def close(self) -> None:
        """Close our own file; Orbax keeps none open between reads."""
        if self._packed is not None:
            self._packed.close()


def _alone() -> Any:
    """A context in which Orbax reads without waiting for other processes: one that failed would not come."""
    ocp = orbax_module()
    own = jax.process_index()
    if jax.process_count() == 1:
        return ocp.Context()
    return ocp.Context(
        multiprocessing_options=ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    )


def _custom_metadata(path: str) -> Any:
    return read_metadata_file(path).get("custom_metadata")


def _foreign_info(name: str, leaf: Any) -> TensorInfo:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return TensorInfo(name, tuple(leaf.shape), np.dtype(leaf.dtype), np.dtype(leaf.dtype).name)
    if isinstance(leaf, (bool, int, float)):
        dtype = np.asarray(leaf).dtype
        return TensorInfo(name, (), dtype, dtype.name)
    kind = type(leaf).__name__
    return TensorInfo(name, (), np.dtype(object), kind, f"its type is {kind}, which has no array of values")


def _items(path: str) -> tuple[str, list[str | None]]:
    """Return the folder to give to Orbax, and the names of the trees in it."""
    if not os.path.isfile(os.path.join(path, "_CHECKPOINT_METADATA")):
        parent, name = os.path.split(path)
        if os.path.isfile(os.path.join(parent, "_CHECKPOINT_METADATA")):
            return parent, [name]  # the path is one tree of a larger checkpoint
    inner = [n for n in list_folder(path) if os.path.isfile(os.path.join(path, n, "_METADATA"))]
    return path, [*inner] if inner else [None]


def _leaves(tree: Any) -> list[tuple[_Path, Any]]:
    return list(jax.tree_util.tree_leaves_with_path(tree))


def _component(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _target(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """A NumPy target that takes no memory: Orbax looks only at its type, shape and dtype."""
    return np.broadcast_to(np.zeros((), dtype), shape)

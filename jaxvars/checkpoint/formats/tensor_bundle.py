"""TensorFlow's V2 checkpoints ("tensor bundles"): ``P.index`` and ``P.data-00000-of-00001``, ...

The index is a table of entries, one per tensor; the data files hold the raw values. Partitioned variables
appear once, whole; strings are object arrays of bytes; bfloat16 and float8 come as `ml_dtypes` types.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats import tf_types
from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.bundle_index import Entry, data_path, key_text, read_index
from jaxvars.checkpoint.formats.bundle_strings import read_strings
from jaxvars.checkpoint.formats.crc32c import crc32c, unmask
from jaxvars.checkpoint.formats.files import Memory, RangedFile
from jaxvars.checkpoint.formats.object_graph import GRAPH_KEY, tf1_names
from jaxvars.checkpoint.formats.protos import fields
from jaxvars.checkpoint.formats.stored_parts import Checksum, StoredPart
from jaxvars.checkpoint.formats.table import Table
from jaxvars.checkpoint.formats.tensor_slice import check_tiling, slice_key
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError

__all__ = ["TensorBundle", "is_bundle_index"]

_READERS = 2  # threads that copy from the system's cache, which takes longer than checking
_Wait: TypeAlias = Callable[[], npt.NDArray[np.uint8]]
_LEAST_AHEAD, _MOST_AHEAD = 1 << 18, 1 << 26  # smaller tensors are not worth a thread; larger ones take memory


def is_bundle_index(path: str) -> bool:
    """Whether the table file at `path` is the index of a V2 bundle (else it is a whole V1 checkpoint).

    Raises:
      DataLossError: the table is damaged.
    """
    with RangedFile(path) as file:
        first = next(iter(Table(file).entries()), None)
    if first is None or first[0]:
        return False
    # V1 begins with a message (field 1 as bytes); V2 begins with the number of shards (field 1 as a number).
    return all(number != 1 or isinstance(value, int) for number, value in fields(first[1], path))


class TensorBundle:
    """A V2 checkpoint, open for reading.

    Args:
      prefix: the path without ``.index``.

    Raises:
      NotFoundError: there is no index file.
      DataLossError: the index is damaged.
      InvalidArgumentError: the bundle is of a kind that this reader does not know.
    """

    format = "tf"

    def __init__(self, prefix: str) -> None:
        self.path = prefix
        self._index = prefix + ".index"
        self._files: dict[int, RangedFile] = {}
        self._header, self._by_key = read_index(self._index)
        hidden = {slice_key(e.key, part) for e in self._by_key.values() for part in e.slices}
        self._entries = {key_text(key): entry for key, entry in self._by_key.items() if key not in hidden}
        self._shard_sizes = self._stat_shards()
        self.tensors: Mapping[str, TensorInfo] = {info.name: info for info in self._infos()}

    @functools.cached_property
    def aliases(self) -> Mapping[str, str]:
        """TF1 name -> name in `tensors`, for variables that TF2 stored under the paths of objects.

        Raises:
          DataLossError: the list of objects is damaged (tensors can be read by their names all the same).
        """
        info = self.tensors.get(GRAPH_KEY)
        if info is None or info.problem:
            return {}
        what = f"{self.path}, {GRAPH_KEY},"
        graph = self.read(GRAPH_KEY)
        if graph.dtype != np.dtype(object) or graph.shape:
            raise DataLossError(f"{what} is damaged: it is no single string.")
        names = tf1_names(graph.item(), what)
        return {name: key for name, key in names.items() if key in self.tensors and name not in self.tensors}

    def _data_path(self, shard: int) -> str:
        return data_path(self.path, shard, self._header.num_shards)

    def _stat_shards(self) -> dict[int, int]:
        """The sizes of the data files that are there."""
        sizes: dict[int, int] = {}
        for shard in {e.shard for e in self._by_key.values() if not e.slices}:
            try:
                sizes[shard] = os.stat(self._data_path(shard)).st_size
            except OSError:
                continue
        return sizes

    def _infos(self) -> Iterator[TensorInfo]:
        kinds: dict[int, tuple[np.dtype[Any] | None, str]] = {}
        for name, entry in self._entries.items():
            number = entry.dtype
            if number not in kinds:
                kinds[number] = tf_types.numpy_dtype(number), tf_types.type_name(number, name)
            dtype, kind = kinds[number]
            problem = "" if dtype is not None and self._is_there(entry) else self._problem(entry)
            yield TensorInfo(name, entry.shape, np.dtype(object) if dtype is None else dtype, kind, problem)

    def _is_there(self, entry: Entry) -> bool:
        """Whether the bytes that an entry itself refers to are in their file."""
        return not entry.slices and entry.offset + entry.size <= self._shard_sizes.get(entry.shard, -1)

    def _problem(self, entry: Entry) -> str:
        """Why the values of `entry` cannot be read, as far as that shows without reading them."""
        if tf_types.numpy_dtype(entry.dtype) is None:
            kind = tf_types.type_name(entry.dtype, "")
            return f"its type is {kind}, which has no array of values outside TensorFlow"
        for part in self._stored_parts(entry):
            if part is None:
                return "the index lacks one of its slices"
            if part.shard not in self._shard_sizes:
                return f"the data file {os.path.basename(self._data_path(part.shard))} is missing"
            if part.offset + part.size > self._shard_sizes[part.shard]:
                return f"the data file {os.path.basename(self._data_path(part.shard))} is cut short"
        return ""

    def _stored_parts(self, entry: Entry) -> list[Entry | None]:
        """The entries that hold the bytes: itself, or those of its slices."""
        if not entry.slices:
            return [entry]
        return [self._by_key.get(slice_key(entry.key, part)) for part in entry.slices]

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as a new array in the file's dtype, checked against its checksum.

        Raises:
          NotFoundError: its data file is missing.
          InvalidArgumentError: it is of a type that has no values (variant, resource).
          DataLossError: the values do not match their checksum, or the file is cut short.
        """
        entry = self._entries[name]
        what = _what(name)
        if tf_types.numpy_dtype(entry.dtype) is None:
            raise InvalidArgumentError(f"Cannot read {what} of {self.path}: {self._problem(entry)}.")
        if not entry.slices:
            return self._read_entry(entry, what)
        parts = self._stored_parts(entry)
        check_tiling(entry.slices, entry.shape, f"{self._index}, {what},")
        for part, where in zip(parts, entry.slices, strict=True):
            if part is None or part.slices or part.dtype != entry.dtype or part.shape != where.shape(entry.shape):
                raise DataLossError(f"{self._index} is damaged: a slice of {what} is missing or does not fit.")
        whole = np.empty(entry.shape, tf_types.numpy_dtype(entry.dtype))
        for part, where in zip(parts, entry.slices, strict=True):
            assert part is not None
            whole[where.index(entry.shape)] = self._read_entry(part, what)
        return whole

    def stored_parts(self, name: str) -> list[StoredPart] | None:
        """Return where a tensor lies row by row, None where it must be read as a whole. `read` says what is wrong."""
        entry = self._entries[name]
        dtype = tf_types.numpy_dtype(entry.dtype)
        if dtype is None or not entry.shape or (self._header.byte_order != "<" and dtype.itemsize > 1):
            return None
        parts: list[StoredPart] = []
        if entry.slices:
            check_tiling(entry.slices, entry.shape, f"{self._index}, {_what(name)},")
        for part, where in zip(self._stored_parts(entry), entry.slices or [None], strict=True):
            shape = entry.shape if where is None else where.shape(entry.shape)
            if part is None or not _is_plain(part) or (part.dtype, part.shape) != (entry.dtype, shape):
                return None
            if part.offset + part.size > self._shard_sizes.get(part.shard, -1):
                return None
            index = tuple(slice(0, dim) for dim in shape) if where is None else where.index(entry.shape)
            checksum = Checksum("crc32c", unmask(part.crc))
            parts.append(StoredPart(self._file(part.shard, _what(name)), part.offset, dtype, index, checksum))
        return parts

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) in the order in which the values lie in the files.

        While one tensor is checked, and used by the caller, the next ones are being read, unless they are very large.
        """
        queue = iter(sorted(dict.fromkeys(names), key=self._place))
        memory = Memory()
        ahead: deque[tuple[str, _Wait | None]] = deque()
        with ThreadPoolExecutor(_READERS) as pool:
            while True:
                for name in itertools.islice(queue, _READERS + 1 - len(ahead)):
                    ahead.append((name, self._read_ahead(pool, name, memory)))
                if not ahead:
                    return
                name, wait = ahead.popleft()
                yield name, self._values(self._entries[name], wait(), _what(name)) if wait else self.read(name)

    def _place(self, name: str) -> tuple[int, int]:
        entry = self._entries[name]
        first = self._stored_parts(entry)[0] or entry
        return first.shard, first.offset

    def _read_ahead(self, pool: ThreadPoolExecutor, name: str, memory: Memory) -> _Wait | None:
        """Begin to read a tensor's bytes; returns the function that waits for them, None where it is not worth it."""
        entry, what = self._entries[name], _what(name)
        if not (_LEAST_AHEAD <= entry.size <= _MOST_AHEAD and self._is_there(entry) and _is_plain(entry)):
            return None
        file = self._file(entry.shard, what)
        octets = file.memory_for(entry.offset, entry.size, what, memory)
        done = pool.submit(file.read_into, octets, entry.offset, what)

        def wait() -> npt.NDArray[np.uint8]:
            done.result()
            return octets

        return wait

    def _read_entry(self, entry: Entry, what: str) -> npt.NDArray[Any]:
        if entry.dtype % 100 == tf_types.STRING:
            if self._header.byte_order != "<":
                raise InvalidArgumentError(f"Cannot read {what} of {self.path}: strings of a big-endian machine.")
            file = self._file(entry.shard, what)
            octets = file.read(entry.offset, entry.size, what)
            return read_strings(octets, entry.shape, entry.crc, f"{file.path}, {what},")
        if not _is_plain(entry):
            raise DataLossError(
                f"{self._index} is damaged: {what} of shape {entry.shape} and {tf_types.numpy_dtype(entry.dtype)} "
                f"claims {entry.size} bytes."
            )
        file = self._file(entry.shard, what)
        octets = file.memory_for(entry.offset, entry.size, what)
        file.read_into(octets, entry.offset, what)
        return self._values(entry, octets, what)

    def _values(self, entry: Entry, raw: npt.NDArray[np.uint8], what: str) -> npt.NDArray[Any]:
        """The bytes of an entry, checked, as an array."""
        if crc32c(raw) != unmask(entry.crc):
            path = self._data_path(entry.shard)
            raise DataLossError(f"{path} is damaged: the values of {what} do not match their checksum.")
        dtype = tf_types.numpy_dtype(entry.dtype)
        assert dtype is not None
        return _as_native(raw, dtype, self._header.byte_order).reshape(entry.shape)

    def _file(self, shard: int, what: str) -> RangedFile:
        if shard not in self._files:
            path = self._data_path(shard)
            if not os.path.exists(path):
                raise NotFoundError(
                    f"Cannot read {what}: its data file {path} does not exist. The index {self._index} alone "
                    f"holds names and shapes: copy {os.path.basename(self.path)}.data-* to its folder."
                )
            self._files[shard] = RangedFile(path)
        return self._files[shard]

    def close(self) -> None:
        """Close the data files."""
        for file in self._files.values():
            file.close()


def _what(name: str) -> str:
    return f"tensor {name!r}"


def _is_plain(entry: Entry) -> bool:
    """Whether the entry holds numbers, as many bytes as its shape takes."""
    dtype = tf_types.numpy_dtype(entry.dtype)
    if dtype is None or dtype.hasobject or entry.slices:
        return False
    return entry.size == math.prod(entry.shape) * dtype.itemsize


def _as_native(raw: npt.NDArray[np.uint8], dtype: np.dtype[Any], byte_order: str) -> npt.NDArray[Any]:
    if byte_order == "<" or dtype.itemsize == 1:
        return raw.view(dtype)
    width = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    return np.ascontiguousarray(raw.reshape(-1, width)[:, ::-1]).reshape(-1).view(dtype)

"""HDF5 files through h5py, made safe: what it may read, and what becomes of its errors.

* Nothing outside the file is opened: links, virtual datasets and external storage are named, never followed.
* Filters that libhdf5 would load from a plugin folder are refused.
* A shape is a claim; it is held against the bytes that are stored before memory is taken for it.
* libhdf5 reads through us. Some damaged heaps make it loop for ever; they are found on the way and refused.
* Texts are read without it (see `hdf5_text`).
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.hdf5_text import DESCRIPTOR, Octets, Texts, heap_objects
from jaxvars.errors import DataLossError, InvalidArgumentError, JaxvarsError, UnavailableError

__all__ = ["Dataset", "Hdf5File"]

_LONGEST_TEXT = 300
_MOST_OBJECTS = 1 << 20
_MOST_LEVELS = 100
_PIECE = 1 << 24
# No claim up to this size is checked; beyond it, no more than gzip could have packed into what is stored.
_UNCHECKED = 1 << 26
_MOST_EXPANSION = 1100
_HEAP_HEAD = b"GCOL\x01\0\0\0"
_LARGEST_METADATA_READ = 1 << 20
_GZIP, _FLETCHER32 = 1, 3
_FLETCHER32_BYTES = 4
_KNOWN_FILTERS = (_GZIP, 2, _FLETCHER32, 32000)  # shuffle, lzf: those that take no memory by a claim


@dataclass(frozen=True, slots=True)
class Dataset:
    """What an HDF5 file says about one dataset.

    Attributes:
      path: where it lies, without a leading slash, as h5py spells it.
      shape: its shape.
      dtype: the dtype of the values in memory; `object` for strings, whose elements are bytes.
      type_name: the dtype's name.
      problem: why the values cannot be read, "" if they can.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    type_name: str
    problem: str = ""


class Hdf5File:
    """An HDF5 file, open for reading.

    Attributes:
      path: the file.
      datasets: all its datasets, and the links that are not followed, in the order of their paths. A group that
        is linked more than once is entered once.

    Args:
      octets: its bytes; closed with the file.

    Raises:
      UnavailableError: h5py is not installed.
      InvalidArgumentError: the file is of an unusual kind.
      DataLossError: it is damaged, or no HDF5 file.
    """

    def __init__(self, octets: Octets) -> None:
        self.path: str = octets.path
        self._octets = octets
        self._file: Any = None
        try:
            import h5py
        except ImportError:
            raise UnavailableError(
                f'Reading {self.path} needs h5py, which is not installed. Run: pip install "jaxvars[legacy]"'
            ) from None
        with self._calling(f"{self.path} is damaged, or no HDF5 file"):
            self._file = h5py.File(_FileObject(octets), "r")
            widths = tuple(self._file.id.get_create_plist().get_sizes())
            base = self._file.userblock_size
        if widths != (8, 8):
            raise InvalidArgumentError(f"{self.path} is an HDF5 file with addresses of an unusual width, {widths}.")
        self._texts = Texts(octets, base)
        self._found: dict[str, Any] = {}  # the datasets of h5py
        self._groups: dict[str, int] = {}  # where the groups' headers lie
        with self._calling(f"Cannot list the datasets of {self.path}"):
            self.datasets: list[Dataset] = sorted(self._walk(), key=lambda dataset: dataset.path)

    @contextlib.contextmanager
    def _calling(self, what: str) -> Generator[None, None, None]:
        """Turn any exception of h5py into a `DataLossError` of one line."""
        try:
            yield
            return
        except JaxvarsError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataLossError(f"{what}: {reason[:_LONGEST_TEXT].rstrip('.')}.")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._octets.close()

    def _walk(self) -> Iterator[Dataset]:
        import h5py

        root = self._file["/"]
        entered = {_address(root)}
        self._groups[""] = _address(root)
        waiting: list[tuple[str, Any, int]] = [("", root, 0)]
        count = 0
        while waiting:
            prefix, group, level = waiting.pop()
            for name in group:
                path = prefix + name
                count += 1
                if count > _MOST_OBJECTS or level > _MOST_LEVELS:
                    raise DataLossError(f"{self.path} is damaged: it claims more objects than any checkpoint has.")
                problem = _link_problem(group, name)
                if problem:
                    yield _unreadable(path, "link", problem)
                    continue
                child = group[name]
                if isinstance(child, h5py.Dataset):
                    self._found[path] = child
                    yield self._describe(path, child)
                elif isinstance(child, h5py.Group) and (address := _address(child)) not in entered:
                    entered.add(address)
                    self._groups[path] = address
                    waiting.append((f"{path}/", child, level + 1))

    def _describe(self, path: str, found: Any) -> Dataset:
        import h5py

        plan = found.id.get_create_plist()
        # Asking a virtual dataset for its shape would open the files that it gathers.
        if plan.get_layout() == h5py.h5d.VIRTUAL:
            return _unreadable(path, "virtual", "its values are gathered from other datasets or files")
        if plan.get_external_count():
            return _unreadable(path, "external", "its values lie in another file, which is not opened")
        if found.shape is None:
            return _unreadable(path, "empty", "it has no values")
        try:
            stored = found.dtype
        except TypeError:
            return _unreadable(path, "unknown", "its type has no counterpart in NumPy", found.shape)
        dtype = self._loaded_dtype(found, stored)
        if dtype is None:
            return _unreadable(path, str(stored), f"its type is {stored}, which is no number or text", found.shape)
        type_name = "string" if dtype == np.dtype(object) else dtype.name
        return Dataset(path, found.shape, dtype, type_name, self._storage_problem(found, plan, stored))

    def _loaded_dtype(self, found: Any, stored: np.dtype[Any]) -> np.dtype[Any] | None:
        """The dtype of the values in memory, None for types that are not read."""
        import h5py

        if h5py.check_string_dtype(stored) is not None:
            return np.dtype(object)
        if stored.kind in "biufc":
            return np.dtype(stored.newbyteorder("=").str)  # without h5py's notes on it
        # Keras keeps bfloat16 as pairs of bytes without a meaning, and says so in an attribute.
        if stored == np.dtype("V2") and self._texts.attribute(_address(found), "dtype") == ["bfloat16"]:
            return np.dtype(ml_dtypes.bfloat16)
        return None

    def _storage_problem(self, found: Any, plan: Any, stored: np.dtype[Any]) -> str:
        size = self._octets.size
        filters = _filters(plan)
        for code in filters:
            if code not in _KNOWN_FILTERS:
                return f"it is compressed by filter {code}, which is not known here"
        if _FLETCHER32 in filters[:-1]:
            return "what is checked by its checksum is compressed once more"
        # libhdf5 looks for chunks beyond the end of an index that is too short.
        places = self._texts.chunk_count(_address(found)) if found.chunks else None
        if places is not None and places != _most_chunks(found):
            return "its index of chunks does not fit its shape"
        nbytes = math.prod(found.shape) * stored.itemsize
        kept = min(found.id.get_storage_size(), size)
        chunk = math.prod(found.chunks) * stored.itemsize if found.chunks else 0
        largest = max(nbytes, chunk)
        if largest > _UNCHECKED and largest > _MOST_EXPANSION * kept:
            return f"it claims {largest} bytes, of which the file holds {kept}"
        offset = _offset(found)
        if not found.chunks and offset is not None and offset + nbytes > size:
            return "the file is cut short"
        if stored.kind == "O" and kept and (offset is None or found.chunks):
            return "its strings are not stored in one piece"
        return ""

    def read(self, dataset: Dataset) -> npt.NDArray[Any]:
        """Return the values of a dataset as a new array.

        Raises:
          DataLossError: the file is damaged.
        """
        what = f"Cannot read {dataset.path!r} of {self.path}"
        with self._calling(what):
            found = self._found[dataset.path]
            stored, offset = found.dtype, _offset(found)
            self._check_chunks(found, what)
        if stored.kind == "O":
            return self._read_strings(dataset, offset)
        values = np.empty(dataset.shape, stored)
        if values.size:
            with self._calling(what):
                found.read_direct(values)
        if dataset.dtype == np.dtype(ml_dtypes.bfloat16):
            return values.view(dataset.dtype)
        return values.astype(dataset.dtype, copy=False)

    def _check_chunks(self, found: Any, what: str) -> None:
        """Refuse chunks that are too small for their checksum, or unpack to too much, which libhdf5 does not look at.

        Chunks that could grow large are unpacked here, piece by piece: libhdf5 unpacks them whole.
        """
        filters = _filters(found.id.get_create_plist())
        if _GZIP not in filters and _FLETCHER32 not in filters:
            return
        most = math.prod(found.chunks) * found.dtype.itemsize
        least = _FLETCHER32_BYTES if _FLETCHER32 in filters else 0
        suspects: list[Any] = []

        def note(chunk: Any) -> None:
            if chunk.size < least or (_GZIP in filters and chunk.size * _MOST_EXPANSION > most + _UNCHECKED):
                suspects.append(chunk)

        found.id.chunk_iter(note)
        if any(chunk.size < least for chunk in suspects):
            raise DataLossError(f"{what}: a chunk is smaller than its checksum.")
        for chunk in suspects:
            packed = self._octets.read(chunk.byte_offset, chunk.size, "a chunk")
            stream, size = zlib.decompressobj(), 0
            while packed and not stream.eof:
                try:
                    size += len(stream.decompress(packed, _PIECE))
                except zlib.error:
                    break  # for libhdf5 to judge, or stored as it is
                if size > most + _PIECE:
                    raise DataLossError(f"{what}: a chunk of {most} bytes unpacks to more.")
                packed = stream.unconsumed_tail

    def _read_strings(self, dataset: Dataset, offset: int | None) -> npt.NDArray[Any]:
        strings = np.empty(dataset.shape, object)
        if offset is None:  # never written
            strings[...] = b""
            return strings
        descriptors = self._octets.read(offset, strings.size * DESCRIPTOR, f"{dataset.path!r}")
        strings.reshape(-1)[:] = self._texts.strings(descriptors)
        return strings

    def text_attribute(self, group: str, name: str) -> list[str] | None:
        """Return an attribute of a group that is a text or a list of texts.

        Attributes that newer versions of HDF5 keep apart from their object, as it has many, are not found.

        Args:
          group: the path of the group, "" for the root.
          name: the attribute's name.

        Returns:
          The texts, [] where there is no such attribute, None where there is no such group.
        """
        address = self._groups.get(group.strip("/"))
        if address is None:
            return None
        with self._calling(f"Cannot read the names in {self.path}"):
            return self._texts.attribute(address, name)


def _unreadable(path: str, type_name: str, problem: str, shape: tuple[int, ...] = ()) -> Dataset:
    return Dataset(path, shape, np.dtype(object), type_name, problem)


def _filters(plan: Any) -> list[int]:
    """The numbers of the filters that chunks went through, the last one last."""
    return [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]


def _most_chunks(found: Any) -> int | None:
    """How many chunks a dataset can have, None where there is no end."""
    if None in found.maxshape:
        return None
    return math.prod(-(-size // chunk) for size, chunk in zip(found.maxshape, found.chunks, strict=True))


def _offset(found: Any) -> int | None:
    """Where the values lie in one piece; None where they were never written, or lie otherwise."""
    return found.id.get_offset() if found.id.get_storage_size() else None


def _address(item: Any) -> int:
    import h5py

    low_level: Any = h5py  # its stubs lack this module
    return low_level.h5o.get_info(item.id).addr


def _link_problem(group: Any, name: str) -> str:
    import h5py

    try:
        link = group.get(name, getlink=True)
    except TypeError:
        return "it is a link of an unknown kind, which is not followed"
    if isinstance(link, h5py.HardLink):
        return ""
    if isinstance(link, h5py.ExternalLink):
        return f"it is a link to another file ({link.filename!r}), which is not followed"
    return f"it is a link to {getattr(link, 'path', '?')!r}, which is not followed"


class _FileObject:
    """What h5py asks of a file object, over `Octets`."""

    def __init__(self, octets: Octets) -> None:
        self._octets = octets
        self._position = 0
        self._checked_heaps: set[int] = set()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._octets.size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        return self._octets.read(self._position, size, "a part of the file")

    def readinto(self, buffer: Any) -> int:
        # All or nothing: h5py does not look at how much was read.
        view = memoryview(buffer).cast("B")
        start, size = self._position, len(view)
        if size <= _LARGEST_METADATA_READ:
            view[:] = self._checked(start, size)
        else:
            self._checked(start, len(_HEAP_HEAD))
            self._checked(start + size - 1, 1)
            self._octets.read_into(np.frombuffer(view, np.uint8), start, "a part of the file")
        self._position = start + size
        return size

    def _checked(self, start: int, size: int) -> bytes:
        """Read, and look at the heaps in it: `heap_objects` raises where libhdf5 would not come to an end."""
        # With what is around, as a heap's beginning may have been read in two parts.
        first = max(0, start - len(_HEAP_HEAD) + 1)
        last = max(start + size, min(self._octets.size, start + size + len(_HEAP_HEAD) - 1))
        found = self._octets.read(first, last - first, "a part of the file")
        at = found.find(_HEAP_HEAD)
        while at >= 0:
            if first + at not in self._checked_heaps:
                self._checked_heaps.add(first + at)
                heap_objects(self._octets, first + at)
            at = found.find(_HEAP_HEAD, at + 1)
        return found[start - first : start - first + size]

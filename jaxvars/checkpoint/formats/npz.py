"""NumPy's .npz files: zip archives of .npy arrays. Pickles in them are never loaded.

Files that jaxvars wrote have one entry more, a record of the variables. bfloat16 and its like, which NumPy
saves as bytes without a type, are stored as unsigned integers, and the record says what they are.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.atomic import whole_file
from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.file_record import (
    check_record,
    dtype_in_file,
    entry_of,
    parse_record,
    record_text,
    refuse_names,
    shown_type,
)
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.npy_header import LARGEST_BEGINNING, NpyHeader, header_size, parse_npy_header
from jaxvars.checkpoint.formats.orbax_record import Entry
from jaxvars.checkpoint.formats.outgoing import Outgoing, refuse_strings
from jaxvars.checkpoint.formats.raw_arrays import as_array, as_octets
from jaxvars.checkpoint.formats.stored_parts import Checksum, StoredPart
from jaxvars.checkpoint.formats.zip_entries import ZipEntry, beginning, read_entries, zip_entries
from jaxvars.errors import DataLossError, InvalidArgumentError
from jaxvars.spec import VariableSpec

__all__ = ["RECORD_NAME", "NpzSource", "save_npz"]

RECORD_NAME = "__jaxvars__.json"
_FORMAT = "A .npz file"
_SUFFIX = ".npy"
_LARGEST_RECORD = 100_000_000
_LONGEST_NAME = 65_000  # bytes; zip has 16 bits for the length
_LARGE = 1 << 30  # from here on an entry gets zip's 64-bit sizes


class _Array(NamedTuple):
    """An array of the archive: its entry, its header, the header's size."""

    entry: ZipEntry
    header: NpyHeader
    skip: int


class NpzSource:
    """A .npz file, open for reading. Names are those of the entries without ``.npy``; other entries are left out.

    Args:
      path: the file.

    Raises:
      NotFoundError: there is no such file.
      DataLossError: it is damaged.
      InvalidArgumentError: a newer jaxvars wrote it.
    """

    format = "npz"

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = RangedFile(path)
        entries = zip_entries(self._file)
        record = entries.get(RECORD_NAME)
        self._entries: dict[str, Entry] | None = None if record is None else self._read_record(record)
        self._arrays: dict[str, _Array] = {}
        tensors: dict[str, TensorInfo] = {}
        for entry in entries.values():
            if entry.name.endswith(_SUFFIX):
                name = entry.name.removesuffix(_SUFFIX)
                tensors[name] = self._open_entry(name, entry)
        self.tensors: Mapping[str, TensorInfo] = tensors
        if self._entries is not None:
            check_record(self._entries, tensors, path)

    def _read_record(self, entry: ZipEntry) -> dict[str, Entry]:
        if entry.problem or entry.size > _LARGEST_RECORD:
            raise DataLossError(f"{self.path} is damaged: its record of variables cannot be read.")
        [(_, octets)] = read_entries(self._file, [entry])
        return parse_record(octets.tobytes().decode("ascii", "replace"), self.path)

    def _open_entry(self, name: str, entry: ZipEntry) -> TensorInfo:
        if entry.problem:
            return TensorInfo(name, (), np.dtype(object), "unknown", entry.problem)
        what = f"{self.path}, tensor {name!r},"
        skip = header_size(beginning(self._file, entry, LARGEST_BEGINNING), what)
        text = beginning(self._file, entry, skip)
        if len(text) < skip:
            raise DataLossError(f"{what} is cut short.")
        header = parse_npy_header(text, what)
        if header.dtype is None:
            return TensorInfo(name, header.shape, np.dtype(object), header.type_name, header.problem)
        self._arrays[name] = _Array(entry, header, skip)
        saved = None if self._entries is None else self._entries.get(name)
        dtype = _meant_dtype(saved, header.dtype.newbyteorder("="))
        info = TensorInfo(name, header.shape, dtype, shown_type(saved, dtype))
        if info.nbytes != entry.size - skip:
            raise DataLossError(f"{what} is damaged: {dtype} of shape {info.shape} in {entry.size - skip} bytes.")
        return info

    @property
    def specs(self) -> Mapping[str, VariableSpec] | None:
        """The variables as they were saved, None for a file of another program."""
        return None if self._entries is None else {name: entry.spec for name, entry in self._entries.items()}

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return one tensor as a new array in C order and the machine's byte order, checked against its checksum.

        Raises:
          InvalidArgumentError: it holds Python objects, or bytes of an unknown type.
          DataLossError: the values do not match their checksum, or the file became shorter.
        """
        return next(self.read_many([name]))[1]

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) in the order of the file, compressed ones last; raises as `read` does."""
        names = list(dict.fromkeys(names))
        for name in names:
            if self.tensors[name].problem:
                raise InvalidArgumentError(f"Cannot read tensor {name!r} of {self.path}: {self.tensors[name].problem}.")
        for entry_name, octets in read_entries(self._file, [self._arrays[name].entry for name in names]):
            name = entry_name.removesuffix(_SUFFIX)
            yield name, self._values(name, octets)

    def stored_parts(self, name: str) -> list[StoredPart] | None:
        """Return where an array lies row by row, None where it must be read as a whole. `read` says what is wrong."""
        info = self.tensors[name]
        if info.problem or not info.shape:
            return None
        entry, header, skip = self._arrays[name]
        if entry.is_deflated or header.is_fortran or header.dtype is None:
            return None
        checksum = Checksum("crc32", entry.crc, beginning(self._file, entry, skip))
        index = tuple(slice(0, dim) for dim in info.shape)
        return [StoredPart(self._file, entry.start + skip, header.dtype, index, checksum)]

    def _values(self, name: str, octets: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        _, header, skip = self._arrays[name]
        info = self.tensors[name]
        octets = octets[skip:]
        assert header.dtype is not None
        if skip % header.dtype.alignment:
            octets = octets.copy()
        what = f"{self.path}, tensor {name!r},"
        shape = info.shape[::-1] if header.is_fortran else info.shape
        if not header.dtype.isnative:
            array = as_array(octets, header.dtype, shape, what).astype(info.dtype)
        else:
            array = as_array(octets, info.dtype, shape, what)
        return np.ascontiguousarray(array.T).reshape(info.shape) if header.is_fortran else array

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _meant_dtype(saved: Entry | None, stored: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that the integers in a file of ours stand for."""
    meant = stored if saved is None else dtype_in_file(saved)
    return meant if _stored_dtype(meant) == stored else stored


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in the file: NumPy's own, or the unsigned integer of the same size."""
    return dtype if issubclass(dtype.type, np.bool_ | np.number) else np.dtype(f"u{dtype.itemsize}")


def save_npz(items: Sequence[Outgoing], path: str) -> None:
    """Write a .npz file at `path`, uncompressed; one that is there is replaced only when the new one is complete.

    `np.load` reads it. Values are taken one after the other. Random keys are stored as the numbers behind them.

    Args:
      items: the variables.
      path: the file.

    Raises:
      InvalidArgumentError: the format cannot hold some of them: strings, or names that are too long.
      FailedPreconditionError: the disk refuses.
    """
    refuse_strings(items, _FORMAT)
    refuse_names(items, _FORMAT)
    for item in items:
        if len(item.name.encode()) > _LONGEST_NAME:
            raise InvalidArgumentError(
                f"{_FORMAT} cannot hold names of more than {_LONGEST_NAME} bytes: {item.name[:60]!r}... "
                'Write: format="orbax"'
            )
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for item in items:
            header = _npy_header(item)
            _add(archive, item.name + _SUFFIX, header, as_octets(item).data)
        _add(archive, RECORD_NAME, record_text(map(entry_of, items)).encode())


def _add(archive: zipfile.ZipFile, name: str, *parts: bytes | memoryview) -> None:
    info = zipfile.ZipInfo()
    info.filename = name  # as it is: ZipInfo(name) cuts it at a zero byte
    with archive.open(info, "w", force_zip64=sum(map(len, parts)) >= _LARGE) as stream:
        for part in parts:
            stream.write(part)


def _npy_header(item: Outgoing) -> bytes:
    header = io.BytesIO()
    fields = {
        "descr": np.lib.format.dtype_to_descr(_stored_dtype(item.dtype)),
        "fortran_order": False,
        "shape": item.shape,
    }
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()

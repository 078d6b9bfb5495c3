"""Models of Keras 3 (``.keras``): a zip archive with the weights as an HDF5 file and the configuration as JSON.

The configuration gives names of layers, and that is all: no layer is made from it, no code in it is run.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.hdf5 import Hdf5Source
from jaxvars.checkpoint.formats.hdf5_text import Octets
from jaxvars.checkpoint.formats.keras_names import objects_of_config
from jaxvars.checkpoint.formats.zip_entries import ZipEntry, read_entries, zip_entries
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["KerasZipSource"]

_WEIGHTS, _CONFIG, _METADATA = "model.weights.h5", "config.json", "metadata.json"
_PIECE = 1 << 24
_LARGEST_JSON = 1 << 26
_BEFORE_KERAS_3 = ("depthwise_conv1d", "depthwise_conv2d")  # their variables had other names then


class KerasZipSource(Hdf5Source):
    """A ``.keras`` model, open for reading its weights.

    Names are those of the weights file in it, ``layers/dense/vars/0``; aliases such as ``head/kernel`` are
    made where the file tells the names of the layers. The archive's checksum is verified when it is opened.

    Args:
      path: the file.

    Raises:
      UnavailableError: h5py is not installed.
      NotFoundError: there is no such file.
      InvalidArgumentError: it is an archive without such weights.
      DataLossError: it is damaged.
    """

    format = "keras"

    def __init__(self, path: str) -> None:
        file = RangedFile(path)
        try:
            octets, objects = _open_archive(file)
        except BaseException:
            file.close()
            raise
        super().__init__(path, octets, objects)


class _Part:
    """A range of a file."""

    def __init__(self, file: RangedFile, start: int, size: int) -> None:
        self.path = file.path
        self.size = size
        self._file, self._start = file, start

    def read(self, offset: int, size: int, what: str) -> bytes:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise DataLossError(
                f"{self.path} is damaged or cut short: {what} should lie at bytes {offset} to {offset + size} "
                f"of {_WEIGHTS}, which has {self.size}."
            )
        return self._file.read(self._start + offset, size, what)

    def read_into(self, octets: npt.NDArray[np.uint8], offset: int, what: str) -> None:
        self._file.read_into(octets, self._start + offset, what)

    def close(self) -> None:
        self._file.close()


class _Unpacked(_Part):
    """The bytes of an entry that was compressed, in memory."""

    def __init__(self, file: RangedFile, data: npt.NDArray[np.uint8]) -> None:
        super().__init__(file, 0, data.size)
        self._data = data

    def read(self, offset: int, size: int, what: str) -> bytes:
        if offset < 0 or size < 0 or offset + size > self.size:
            return super().read(offset, size, what)  # raises
        return self._data[offset : offset + size].tobytes()

    def read_into(self, octets: npt.NDArray[np.uint8], offset: int, what: str) -> None:
        octets[:] = self._data[offset : offset + octets.size]


def _open_archive(file: RangedFile) -> tuple[Octets, dict[str, tuple[str, str]]]:
    """Return the weights' bytes, and what the configuration says of the layers."""
    entries = zip_entries(file)
    if _WEIGHTS not in entries:
        raise InvalidArgumentError(
            f"{file.path} holds no {_WEIGHTS}: it is no model that Keras 3 saved with its weights as HDF5."
        )
    return _open_weights(file, entries[_WEIGHTS]), _read_objects(file, entries)


def _open_weights(file: RangedFile, entry: ZipEntry) -> Octets:
    if entry.problem:
        raise InvalidArgumentError(f"Cannot read {_WEIGHTS} of {file.path}: {entry.problem}.")
    if entry.is_deflated:
        [(_, unpacked)] = read_entries(file, [entry])
        return _Unpacked(file, unpacked)
    part = _Part(file, entry.start, entry.size)
    checksum = 0
    for start in range(0, entry.size, _PIECE):
        checksum = zlib.crc32(part.read(start, min(_PIECE, entry.size - start), _WEIGHTS), checksum)
    if checksum != entry.crc:
        raise DataLossError(f"{file.path} is damaged: {_WEIGHTS} does not match its checksum.")
    return part


def _read_objects(file: RangedFile, entries: Mapping[str, ZipEntry]) -> dict[str, tuple[str, str]]:
    config, metadata = (_read_json(file, entries.get(name)) for name in (_CONFIG, _METADATA))
    objects = objects_of_config(config)
    version = str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
    if not version.startswith("3."):
        objects = {path: ("" if kind in _BEFORE_KERAS_3 else kind, name) for path, (kind, name) in objects.items()}
    return objects


def _read_json(file: RangedFile, entry: ZipEntry | None) -> Any:
    """Return what an entry says, None where it says nothing that can be read: it only gives aliases."""
    if entry is None or entry.problem or entry.size > _LARGEST_JSON:
        return None
    [(_, octets)] = read_entries(file, [entry])
    try:
        return json.loads(octets.tobytes())
    except (ValueError, RecursionError):
        return None

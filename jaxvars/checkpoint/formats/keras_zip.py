"""Models of Keras 3 (``.keras``): a zip archive with the weights as an HDF5 file and the configuration as JSON.

The configuration gives names of layers, and that is all: no layer is made from it, no code in it is run.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from typing import Any

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.hdf5 import Hdf5Source
from jaxvars.checkpoint.formats.hdf5_text import Octets
from jaxvars.checkpoint.formats.keras_names import objects_of_config
from jaxvars.errors import DataLossError, InvalidArgumentError, JaxvarsError

__all__ = ["KerasZipSource"]

_WEIGHTS, _CONFIG, _METADATA = "model.weights.h5", "config.json", "metadata.json"
_LOCAL_HEADER = 30
_PIECE = 1 << 24
_LARGEST_JSON = 1 << 26
_UNCHECKED = 1 << 26
_MOST_EXPANSION = 1100  # deflate packs at most 1032 bytes into one
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

    def close(self) -> None:
        self._file.close()


class _Unpacked(_Part):
    """The bytes of a member that was compressed, in memory."""

    def __init__(self, file: RangedFile, data: bytes) -> None:
        super().__init__(file, 0, len(data))
        self._data = data

    def read(self, offset: int, size: int, what: str) -> bytes:
        if offset < 0 or size < 0 or offset + size > self.size:
            return super().read(offset, size, what)  # raises
        return self._data[offset : offset + size]


def _open_archive(file: RangedFile) -> tuple[Octets, dict[str, tuple[str, str]]]:
    """Return the weights' bytes, and what the configuration says of the layers."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if _WEIGHTS not in members:
                raise InvalidArgumentError(
                    f"{file.path} holds no {_WEIGHTS}: it is no model that Keras 3 saved with its weights as HDF5."
                )
            objects = _read_objects(archive, members)
            return _open_weights(file, archive, members[_WEIGHTS]), objects
    except JaxvarsError:
        raise
    except Exception as error:  # zipfile has a dozen kinds for a damaged archive
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise DataLossError(f"{file.path} is damaged: {reason[:300].rstrip('.')}.")


def _open_weights(file: RangedFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Octets:
    size, packed = member.file_size, member.compress_size
    if packed > file.size or (size > _UNCHECKED and size > _MOST_EXPANSION * packed):
        raise DataLossError(f"{file.path} is damaged: {_WEIGHTS} claims {size} bytes, of which {packed} are stored.")
    if member.flag_bits & 1:
        raise InvalidArgumentError(f"{file.path} is encrypted.")
    if member.compress_type != zipfile.ZIP_STORED:
        return _Unpacked(file, archive.read(member))
    if size != packed:
        raise DataLossError(f"{file.path} is damaged: {_WEIGHTS} claims {size} bytes, of which {packed} are stored.")
    with archive.open(member):
        pass  # checks that the header before the bytes is this member's
    header = file.read(member.header_offset, _LOCAL_HEADER, f"the header of {_WEIGHTS}")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    part = _Part(file, member.header_offset + _LOCAL_HEADER + lengths, size)
    checksum = 0
    for start in range(0, size, _PIECE):
        checksum = zlib.crc32(part.read(start, min(_PIECE, size - start), _WEIGHTS), checksum)
    if checksum != member.CRC:
        raise DataLossError(f"{file.path} is damaged: {_WEIGHTS} does not match its checksum.")
    return part


def _read_objects(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> dict[str, tuple[str, str]]:
    config, metadata = (_read_json(archive, members.get(name)) for name in (_CONFIG, _METADATA))
    objects = objects_of_config(config)
    version = str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
    if not version.startswith("3."):
        objects = {path: ("" if kind in _BEFORE_KERAS_3 else kind, name) for path, (kind, name) in objects.items()}
    return objects


def _read_json(archive: zipfile.ZipFile, member: zipfile.ZipInfo | None) -> Any:
    """Return what a member says, None where it says nothing that can be read: it only gives aliases."""
    if member is None or member.file_size > _LARGEST_JSON:
        return None
    data = archive.read(member)
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None

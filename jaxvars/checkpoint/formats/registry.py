"""The formats there are: who reads one, who writes one. A format's module is imported when it is used."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from jaxvars.checkpoint.formats.base import Source
from jaxvars.checkpoint.formats.outgoing import Outgoing, Writer
from jaxvars.checkpoint.paths import Location
from jaxvars.errors import InvalidArgumentError, nearest_names

__all__ = ["SUFFIXES", "WRITERS", "format_to_write", "open_source"]

_READERS: dict[str, tuple[str, str]] = {
    "tf": ("tensor_bundle", "TensorBundle"),
    "tf_v1": ("tf_v1", "TableCheckpoint"),
    "orbax": ("orbax", "OrbaxSource"),
    "safetensors": ("safetensors", "SafetensorsSource"),
    "npz": ("npz", "NpzSource"),
    "msgpack": ("flax_msgpack", "MsgpackSource"),
    "hdf5": ("hdf5", "Hdf5Source"),
    "keras": ("keras_zip", "KerasZipSource"),
}


def _found(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"jaxvars.checkpoint.formats.{module}"), name)


def open_source(location: Location) -> Source:
    """Open the checkpoint at a location with the reader of its format."""
    opener: Callable[[str], Source] = _found(*_READERS[location.format])
    return opener(location.path)


def _writer(module: str, name: str) -> Writer:
    def write(items: Sequence[Outgoing], path: str) -> None:
        _found(module, name)(items, path)

    return write


WRITERS: dict[str, Writer] = {
    "orbax": _writer("orbax_save", "save_orbax"),
    "tf": _writer("bundle_writer", "save_bundle"),
    "safetensors": _writer("safetensors", "save_safetensors"),
    "npz": _writer("npz", "save_npz"),
}
SUFFIXES = {".safetensors": "safetensors", ".npz": "npz"}
# A folder under one of these names would be taken for such a file.
_FOREIGN = {
    "h5": "HDF5 files",
    "hdf5": "HDF5 files",
    "keras": "Keras files",
    "msgpack": "msgpack files",
    "pt": "PyTorch files",
    "pth": "PyTorch files",
    "bin": "PyTorch files",
    "pb": "TensorFlow graphs",
}
_FOREIGN_PATH = re.compile(rf"\.({'|'.join(_FOREIGN)})(-\d+)?", re.IGNORECASE)  # a Saver adds the step


def format_to_write(format: str | None, path: str) -> str:
    """Return the format to write: the one that is asked for, else by the path's suffix, else Orbax.

    Raises:
      InvalidArgumentError: there is no writer for it, the text lists those there are; or none is asked for, and the
        suffix is that of another program's files.
    """
    if format is None:
        suffix = os.path.splitext(path)[1]
        foreign = _FOREIGN_PATH.fullmatch(suffix)
        if foreign:
            raise InvalidArgumentError(
                f"{path}: jaxvars does not write {_FOREIGN[foreign[1].lower()]}. Write .safetensors or .npz, or "
                'format="orbax" if a folder of this name is meant.'
            )
        return SUFFIXES.get(suffix.lower(), "orbax")
    if format in WRITERS:
        return format
    near = nearest_names(str(format), WRITERS)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    only = f" {format!r} is only read." if format in _READERS else ""
    raise InvalidArgumentError(
        f"There is no checkpoint format {format!r} to save in.{only} "
        f"Formats: {', '.join(map(repr, sorted(WRITERS)))}.{hint}"
    )

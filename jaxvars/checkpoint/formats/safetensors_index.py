"""Sharded safetensors as Hugging Face writes them: ``model.safetensors.index.json`` names each tensor's file.

{"metadata": {"total_size": 123}, "weight_map": {"embed.weight": "model-00001-of-00002.safetensors", ...}}
"""

from __future__ import annotations

import ntpath
import os
import posixpath

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.safetensors_header import LARGEST_HEADER, parse_json
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["is_index", "read_index"]


def is_index(file: RangedFile) -> bool:
    """Whether the file is the index of shards rather than a safetensors file.

    An index is JSON. The length at the beginning of a safetensors file ends in zero bytes, which JSON never has.
    """
    head = file.read(0, min(8, file.size), "the beginning")
    return b"\0" not in head and head.lstrip()[:1] == b"{"


def read_index(file: RangedFile) -> dict[str, str]:
    """Return {tensor: path of its file}.

    Raises:
      DataLossError: it is damaged.
      InvalidArgumentError: it names a file outside its own folder.
    """
    if file.size > LARGEST_HEADER:
        raise DataLossError(f"{file.path} is no index of safetensors files: it has {file.size} bytes.")
    parts = parse_json(file.read(0, file.size, "the index"), file.path)
    names = parts.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataLossError(f'{file.path} is no index of safetensors files: it has no "weight_map" of file names.')
    folder = os.path.dirname(file.path)
    paths = {name: os.path.join(folder, _plain_name(name, file.path)) for name in set(names.values())}
    return {tensor: paths[name] for tensor, name in names.items()}


def _plain_name(name: str, what: str) -> str:
    plain = posixpath.basename(name) == ntpath.basename(name) == name
    if not plain or name in ("", ".", "..") or "\0" in name:
        raise InvalidArgumentError(
            f"{what} says that tensors lie in {name!r}. The files of an index lie in its own folder, so this is "
            "not followed."
        )
    return name

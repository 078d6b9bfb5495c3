"""The file of an exported model: a checked container of a JSON description and programs of `jax.export`.

``magic (16 bytes) | version, length of the description, length of the programs | SHA-256 of both | description |
programs``, whose names and lengths the description has. Everything is checked before anything is interpreted, and
nothing in it is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from jaxvars.checkpoint.formats.atomic import whole_file
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError

__all__ = ["read_graph_file", "write_graph_file"]

_MAGIC = b"\x89jaxvars-graph\r\n"
_VERSION = 1
_HEAD = struct.Struct("<16sIQQ32s")
_MAX_DESCRIPTION = 1 << 28


def write_graph_file(path: str, description: dict[str, Any], programs: Mapping[str, bytes | bytearray]) -> None:
    """Write the file beside `path` and rename it when it is complete; makes the folder.

    Args:
      path: the file.
      description: anything that JSON holds.
      programs: name -> program.

    Raises:
      FailedPreconditionError: the disk or folder refuses.
    """
    sizes = {name: len(program) for name, program in programs.items()}
    text = json.dumps({**description, "programs": sizes}, separators=(",", ":")).encode()
    body = b"".join(programs.values())
    digest = hashlib.sha256(text)
    digest.update(body)
    head = _HEAD.pack(_MAGIC, _VERSION, len(text), len(body), digest.digest())
    with whole_file(path) as file:
        file.write(head + text)
        file.write(body)


def read_graph_file(path: str) -> tuple[dict[str, Any], dict[str, bytearray]]:
    """Return the description and the programs of a file that `write_graph_file` wrote.

    Raises:
      NotFoundError: there is no such file.
      InvalidArgumentError: it is another kind of file, or from a later version.
      DataLossError: it is damaged.
    """
    try:
        with open(path, "rb") as file:
            return _read(file, path)
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no exported model at {path}. Write one: jv.train.export_meta_graph({path!r}, model, *args)"
        ) from None
    except IsADirectoryError:
        raise InvalidArgumentError(
            f"{path} is a folder, not an exported model. If it is a checkpoint, its values are read by "
            f"jv.checkpoint.open({path!r})."
        ) from None


def _read(file: BinaryIO, path: str) -> tuple[dict[str, Any], dict[str, bytearray]]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(_HEAD.size)
    if head[: len(_MAGIC)] != _MAGIC[: len(head)] or not head:
        raise InvalidArgumentError(_other_file(path, head))
    if len(head) < _HEAD.size:
        raise DataLossError(f"The exported model {path} is cut off within its head: {size} bytes.")
    _, version, text_size, body_size, digest = _HEAD.unpack(head)
    if version > _VERSION:
        raise InvalidArgumentError(
            f"The exported model {path} has version {version} of the format, and this jaxvars reads {_VERSION}. "
            "Update jaxvars, or export the model again."
        )
    if text_size > _MAX_DESCRIPTION or size != _HEAD.size + text_size + body_size:
        raise DataLossError(
            f"The exported model {path} is cut off or damaged: it has {size} bytes and says "
            f"{_HEAD.size + text_size + body_size}. Export the model again."
        )
    text, body = file.read(text_size), bytearray(file.read(body_size))
    found = hashlib.sha256(text)
    found.update(body)
    if found.digest() != digest:
        raise DataLossError(f"The exported model {path} is damaged: its checksum is another. Export the model again.")
    try:
        description = json.loads(text)
        return description, _cut(body, description["programs"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataLossError(f"The exported model {path} has a description that makes no sense: {error!r}") from None


def _cut(body: bytearray, sizes: dict[str, int]) -> dict[str, bytearray]:
    """The programs by name; their lengths must add up."""
    programs: dict[str, bytearray] = {}
    start = 0
    for name, size in sizes.items():
        if not 0 <= size <= len(body) - start:
            raise ValueError(f"program {name!r} of {size} bytes")
        programs[name] = body[start : start + size]
        start += size
    return programs


def _other_file(path: str, head: bytes) -> str:
    if head[:1] == b"\n":  # the first field of TensorFlow's MetaGraphDef
        return (
            f"{path} is no model exported by jaxvars. It may be TensorFlow's own meta graph, whose operations JAX "
            "cannot run: write the model as a function of JAX, and restore the values into it: "
            "jv.checkpoint.restore(path, model.specs(...))"
        )
    return f"{path} is no model exported by jaxvars. Write one: jv.train.export_meta_graph({path!r}, model, *args)"

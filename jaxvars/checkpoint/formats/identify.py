"""What a file is, by its content: for choosing the reader, and for saying what a wrong file really is."""

from __future__ import annotations

import json
import os
import zipfile
from typing import NamedTuple

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.state_file import is_state_text
from jaxvars.checkpoint.formats.table import FOOTER_MAGIC

__all__ = ["STATE", "TABLE", "Kind", "describe_folder", "identify_file"]

_HEAD = 512
_GRAPH_MAGIC = b"\x89jaxvars-graph\r\n"
_INDEX_SUFFIX = ".safetensors.index.json"


class Kind(NamedTuple):
    """What a file is.

    Attributes:
      format: the reader's name, "" where there is none for it.
      text: a phrase for errors, such as ``"a PyTorch file (zip)"``; "" for a file of which nothing is known.
    """

    format: str
    text: str


TABLE = Kind("table", "a TensorFlow table")
STATE = Kind("state", "a `checkpoint` state file")

_PICKLE = "a Python pickle, which is never loaded: it could run any code"
_MAGICS: tuple[tuple[bytes, Kind], ...] = (
    (b"\x89HDF\r\n\x1a\n", Kind("hdf5", "an HDF5 file")),
    (_GRAPH_MAGIC, Kind("", "a model that jaxvars exported: load it with jv.train.import_meta_graph(path)")),
    (b"\x93NUMPY", Kind("", "a NumPy .npy file, one array without a name: load it with numpy.load")),
    (b"version https://git-lfs", Kind("", "a Git LFS pointer, not the file itself: run `git lfs pull`")),
    (b"\x1f\x8b", Kind("", "a gzip archive: unpack it first")),
    (b"BZh", Kind("", "a bzip2 archive: unpack it first")),
    (b"\xfd7zXZ", Kind("", "an xz archive: unpack it first")),
    (b"\x80\x02", Kind("", f"{_PICKLE} (an old PyTorch file, perhaps)")),
    (b"\x80\x03", Kind("", _PICKLE)),
    (b"\x80\x04", Kind("", _PICKLE)),
    (b"\x80\x05", Kind("", _PICKLE)),
)


def identify_file(path: str) -> Kind:
    """Return what the file is, by its content.

    Raises:
      NotFoundError: no such file.
      DataLossError: it cannot be read.
    """
    with RangedFile(path) as file:
        head = file.read(0, min(_HEAD, file.size), "the beginning")
        tail = file.read(max(0, file.size - 1024), min(1024, file.size), "the end")
        size = file.size
    if not size:
        return Kind("", "an empty file")
    if tail.endswith(FOOTER_MAGIC):
        return TABLE
    if is_state_text(head):
        return STATE
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _identify_zip(path)
    return _identify_without_magic(path, head, size)


def _identify_without_magic(path: str, head: bytes, size: int) -> Kind:
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return Kind("", "a web page: the download went wrong")
    if head[257:262] == b"ustar":
        return Kind("", "a tar archive: unpack it first")
    if _is_safetensors(head, size):
        return Kind("safetensors", "a safetensors file")
    if path.endswith(_INDEX_SUFFIX) or (head.lstrip().startswith(b"{") and b'"weight_map"' in head):
        return Kind("safetensors", "the index of a safetensors checkpoint in several files")
    if path.endswith(".meta") and head[:1] == b"\n":  # the first field of a MetaGraphDef
        return Kind("", "a TensorFlow graph without values: its variables are listed by jv.checkpoint.graph_variables")
    from jaxvars.checkpoint.formats.flax_msgpack import looks_like_msgpack

    if looks_like_msgpack(head, size):
        return Kind("msgpack", "a Flax msgpack file")
    return Kind("", "")


def _identify_zip(path: str) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:10_000]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = None
    if names is None:
        with RangedFile(path) as file:
            head = file.read(0, min(_HEAD, file.size), "the beginning")
        torch = b"/data.pkl" in head
        return Kind("", "a PyTorch file (zip), cut short" if torch else "a zip archive, cut short or damaged")
    if any(name.endswith("/data.pkl") for name in names):
        return Kind("", "a PyTorch file (zip): load it with torch, and save its tensors as safetensors or .npz")
    if "model.weights.h5" in names:
        return Kind("keras", "a Keras 3 model (.keras)")
    if any(name.endswith(".npy") for name in names):
        return Kind("npz", "a NumPy .npz file")
    return Kind("", "a zip archive: unpack it first")


def _is_safetensors(head: bytes, size: int) -> bool:
    header = int.from_bytes(head[:8], "little")
    return len(head) > 8 and 2 <= header <= size - 8 and head[8:9] == b"{"


def describe_folder(path: str, most: int = 5) -> str:
    """Return a phrase that lists what a folder holds, for errors."""
    names = sorted(os.listdir(path))
    if not names:
        return "the folder is empty"
    shown = ", ".join(json.dumps(name, ensure_ascii=False) for name in names[:most])
    return f"the folder holds {shown}" + (f" and {len(names) - most} more" if len(names) > most else "")

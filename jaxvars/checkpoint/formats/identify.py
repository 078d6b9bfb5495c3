"""What a file is, by its content: for choosing the reader, and for saying what a wrong file really is."""

from __future__ import annotations

import json
import os
import zipfile

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.state_file import is_state_text
from jaxvars.checkpoint.formats.table import FOOTER_MAGIC

__all__ = ["STATE", "TABLE", "describe_folder", "identify_file"]

TABLE = "a TensorFlow table"
STATE = "a `checkpoint` state file"

_HEAD = 512
_MAGICS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras saves .h5 files of this kind)"),
    (b"\x93NUMPY", "a NumPy .npy file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (
        b"\x80\x02",
        "a Python pickle (an old PyTorch file, perhaps), which is never loaded: it could run any code",
    ),
    (b"\x80\x03", "a Python pickle, which is never loaded: it could run any code"),
    (b"\x80\x04", "a Python pickle, which is never loaded: it could run any code"),
    (b"\x80\x05", "a Python pickle, which is never loaded: it could run any code"),
)


def identify_file(path: str) -> str:
    """Return what the file is: `TABLE`, `STATE`, or a phrase such as ``"a PyTorch file (zip)"``.

    An unknown file gives ``""``.

    Raises:
      NotFoundError: no such file.
      DataLossError: it cannot be read.
    """
    with RangedFile(path) as file:
        head = file.read(0, min(_HEAD, file.size), "the beginning")
        tail = file.read(max(0, file.size - 1024), min(1024, file.size), "the end")
        size = file.size
    if not size:
        return "an empty file"
    if tail.endswith(FOOTER_MAGIC):
        return TABLE
    if is_state_text(head):
        return STATE
    for magic, meaning in _MAGICS:
        if head.startswith(magic):
            return meaning
    if head.startswith(b"PK\x03\x04"):
        return _identify_zip(path)
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page: the download went wrong"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if _is_safetensors(head, size):
        return "a safetensors file"
    return ""


def _identify_zip(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:10_000]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = None
    if names is None:
        with RangedFile(path) as file:
            head = file.read(0, min(_HEAD, file.size), "the beginning")
        torch = b"/data.pkl" in head
        return "a PyTorch file (zip), cut short" if torch else "a zip archive, cut short"
    if any(name.endswith("/data.pkl") for name in names):
        return "a PyTorch file (zip): load it with torch, and save its tensors as safetensors or .npz"
    if "model.weights.h5" in names:
        return "a Keras 3 model (.keras)"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy .npz file"
    return "a zip archive: unpack it first"


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

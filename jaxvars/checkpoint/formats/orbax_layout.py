"""The folders of Orbax checkpoints as they lie on disk: recognized, and replaced safely, without Orbax.

Saving over a checkpoint goes: write a new folder beside it, move the old one aside, move the new one in,
delete the old one. A process killed in between leaves either the old folder in place, or aside, where
`previous_path` finds it. Processes that save in one folder at once take turns at moving.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket

from jaxvars.checkpoint.formats.atomic import sync_folder
from jaxvars.checkpoint.formats.locks import locked_folder

__all__ = [
    "clean_leftovers",
    "is_orbax_folder",
    "new_path",
    "packed_path",
    "previous_path",
    "replace_folder",
    "sync_files",
]

_MARKERS = ("_CHECKPOINT_METADATA", "orbax.checkpoint", "manifest.ocdbt", "_METADATA")
_PREVIOUS = ".jaxvars-previous"
_NEW = ".jaxvars-new-"
_UNFINISHED = ".orbax-checkpoint-tmp"
_PACKED = "variables.jaxvars"


def is_orbax_folder(path: str) -> bool:
    """Whether the folder holds an Orbax checkpoint (one that was finished)."""
    if _UNFINISHED in os.path.basename(path):
        return False
    return any(os.path.isfile(os.path.join(path, marker)) for marker in _MARKERS)


def packed_path(folder: str) -> str:
    """Return the path of the file that jaxvars adds to a checkpoint."""
    return os.path.join(folder, _PACKED)


def previous_path(path: str) -> str | None:
    """Return where the checkpoint at `path` was moved while it was being replaced, None if it was not."""
    aside = path + _PREVIOUS
    return aside if not os.path.lexists(path) and is_orbax_folder(aside) else None


def new_path(path: str, shared: bool = False) -> str:
    """Return the name under which a new checkpoint for `path` is written first.

    Args:
      path: where the checkpoint is to be in the end.
      shared: whether several processes write it together, and so must agree on the name.
    """
    return path + _NEW + ("shared" if shared else f"{_host()}-{os.getpid()}")


def sync_files(folder: str) -> None:
    """Flush all files of a folder to the disk."""
    for inner, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(inner, name), os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(inner)


def replace_folder(new: str, path: str) -> None:
    """Move the finished folder `new` to `path`; what was there is deleted last."""
    aside = path + _PREVIOUS
    with locked_folder(os.path.dirname(path)):
        if os.path.lexists(path):
            _delete(aside)
            os.rename(path, aside)
        try:
            os.rename(new, path)
        except OSError:
            if os.path.lexists(aside) and not os.path.lexists(path):
                os.rename(aside, path)
            raise
        sync_folder(os.path.dirname(path))
        if os.path.lexists(aside):
            # Half of it, should the process be killed now, must not be taken for a checkpoint once `path` is gone.
            os.rename(aside, new)
            _delete(new)


def clean_leftovers(path: str) -> None:
    """Delete what killed saves left beside `path`: folders of this host's dead processes."""
    folder, base = os.path.split(path)
    pattern = re.compile(rf"(.*){re.escape(_NEW + _host())}-(\d+)({re.escape(_UNFINISHED)}.*)?\Z", re.DOTALL)
    for name in os.listdir(folder):
        match = pattern.match(name)
        if match is None:
            continue
        ours = int(match[2]) == os.getpid() and match[1] == base
        if ours or not _is_running(int(match[2])):
            _delete(os.path.join(folder, name))


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname())[:64]


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # there os.kill would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _delete(path: str) -> None:
    """Delete a folder, or the symbolic link that stands for one (never what it points to)."""
    if os.path.islink(path):
        os.unlink(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

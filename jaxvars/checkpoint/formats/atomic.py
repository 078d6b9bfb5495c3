"""A file that appears whole: written beside its place, flushed to the disk, then moved there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Generator
from typing import BinaryIO

from jaxvars.checkpoint.formats.locks import lock
from jaxvars.errors import FailedPreconditionError, JaxvarsError

__all__ = ["sync_folder", "unfinished_file", "whole_file"]

_BUFFER = 1 << 20  # arrays that are larger go from their memory to the file directly


@contextlib.contextmanager
def whole_file(path: str) -> Generator[BinaryIO, None, None]:
    """Yield a file to write; when the block ends well, it replaces what is at `path`, else it is deleted.

    Makes the folder, and deletes what killed processes left of files for the same path. Of two processes that write one
    path at the same time each writes a file of its own, and the later wins.

    Raises:
      FailedPreconditionError: the disk or the folder refuses; what was at `path` is unchanged.
    """
    try:
        with unfinished_file(path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
            sync_folder(os.path.dirname(path))
    except JaxvarsError:  # of a value that could not be read: some are OSErrors too
        raise
    except OSError as error:
        raise FailedPreconditionError(
            f"Cannot write {path}: {error.strerror or error}. What was there before is unchanged."
        ) from error


@contextlib.contextmanager
def unfinished_file(path: str) -> Generator[BinaryIO, None, None]:
    """Yield a new hidden file beside `path`, which is deleted at the end unless it was moved.

    Its process holds a lock on it: so the files of dead processes are known, and deleted here.

    Raises:
      OSError: the disk or the folder refuses.
    """
    folder, base = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    _delete_abandoned(folder, base)
    file = _new_file(folder, base)
    with file:
        try:
            yield file
        finally:
            with contextlib.suppress(OSError):
                os.unlink(file.name)


def _new_file(folder: str, base: str) -> BinaryIO:
    while True:
        file = open(os.path.join(folder, f".{base[:80]}.{secrets.token_hex(8)}.tmp"), "xb", _BUFFER)  # noqa: SIM115
        held = lock(file.fileno(), wait=False)
        if held is None or (held and os.fstat(file.fileno()).st_nlink):
            return file
        file.close()  # somebody took it for abandoned, between the two lines


def _delete_abandoned(folder: str, base: str) -> None:
    pattern = re.compile(re.escape(f".{base[:80]}.") + r"[0-9a-f]{16}\.tmp\Z")
    for name in os.listdir(folder or "."):
        if pattern.match(name):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError), open(path, "rb") as file:  # somebody else may delete it first
                if lock(file.fileno(), wait=False):
                    os.unlink(path)


def sync_folder(folder: str) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

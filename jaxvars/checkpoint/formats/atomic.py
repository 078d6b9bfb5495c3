"""A file that appears whole: written beside its place, flushed to the disk, then moved there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Generator
from typing import BinaryIO

from jaxvars.errors import FailedPreconditionError, JaxvarsError

__all__ = ["sync_folder", "whole_file"]


@contextlib.contextmanager
def whole_file(path: str) -> Generator[BinaryIO, None, None]:
    """Yield a file to write; when the block ends well, it replaces what is at `path`, else it is deleted.

    Makes the folder, and deletes what killed processes left of files for the same path. Of two processes that write one
    path at the same time each writes a file of its own, and the later wins.

    Raises:
      FailedPreconditionError: the disk or the folder refuses; what was at `path` is unchanged.
    """
    folder, base = os.path.split(path)
    unfinished = os.path.join(folder, f".{base[:80]}.{secrets.token_hex(8)}.tmp")
    try:
        os.makedirs(folder or ".", exist_ok=True)
        _delete_abandoned(folder, base)
        with open(unfinished, "xb") as file:
            _lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(folder)
    except JaxvarsError:  # of a value that could not be read: some are OSErrors too
        raise
    except OSError as error:
        raise FailedPreconditionError(
            f"Cannot write {path}: {error.strerror or error}. What was there before is unchanged."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)


def _delete_abandoned(folder: str, base: str) -> None:
    """Delete unfinished files for `base` whose writer is gone: a process holds a lock on the file that it writes."""
    pattern = re.compile(re.escape(f".{base[:80]}.") + r"[0-9a-f]{16}\.tmp\Z")
    for name in os.listdir(folder or "."):
        if pattern.match(name):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError), open(path, "rb") as file:  # somebody else may delete it first
                if _lock(file.fileno()):
                    os.unlink(path)


def _lock(descriptor: int) -> bool:
    """Lock a file for this process, if no other has; False where that cannot be done."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sync_folder(folder: str) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

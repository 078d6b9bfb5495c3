"""Locks on files and folders: processes of one machine keep out of each other's way. They end with the process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

__all__ = ["lock", "locked_folder"]


def lock(descriptor: int, wait: bool) -> bool | None:
    """Lock an open file or folder until it is closed.

    Args:
      descriptor: of the file.
      wait: whether to wait while another process, or another descriptor of this one, holds it.

    Returns:
      True when it is locked, False when another holds it, None where the system has no such locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where a file that is in use cannot be moved or deleted anyway
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


@contextlib.contextmanager
def locked_folder(folder: str) -> Generator[None, None, None]:
    """Let one process at a time change which files of a folder make a checkpoint."""
    try:
        descriptor = os.open(folder or ".", os.O_RDONLY)
    except OSError:  # Windows opens no folders; a folder that is missing is the caller's affair
        yield
        return
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)

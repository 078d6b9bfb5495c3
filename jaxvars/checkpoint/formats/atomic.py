"""A file that appears whole: written beside its place, flushed to the disk, then moved there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator
from typing import BinaryIO, cast

from jaxvars.errors import FailedPreconditionError

__all__ = ["sync_folder", "whole_file"]


@contextlib.contextmanager
def whole_file(path: str) -> Generator[BinaryIO, None, None]:
    """Yield a file to write; when the block ends well, it replaces what is at `path`, else it is deleted.

    Makes the folder. Two processes that write one path at the same time: each writes a file of its own, the later wins.

    Raises:
      FailedPreconditionError: the disk or the folder refuses; what was at `path` is unchanged.
    """
    folder, base = os.path.split(path)
    unfinished = ""
    try:
        os.makedirs(folder or ".", exist_ok=True)
        prefix = f".{base[:80]}."
        with tempfile.NamedTemporaryFile(dir=folder or ".", prefix=prefix, suffix=".tmp", delete=False) as file:
            unfinished = file.name
            yield cast("BinaryIO", file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(unfinished, 0o666 & ~_umask())
        os.replace(unfinished, path)
        sync_folder(folder)
    except OSError as error:
        raise FailedPreconditionError(
            f"Cannot write {path}: {error.strerror or error}. What was there before is unchanged."
        ) from error
    finally:
        if unfinished:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)


def sync_folder(folder: str) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

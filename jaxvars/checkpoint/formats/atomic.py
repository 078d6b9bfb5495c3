"""A file that appears whole: written beside its place, flushed to the disk, then moved there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator
from typing import BinaryIO

from jaxvars.errors import FailedPreconditionError, JaxvarsError

__all__ = ["sync_folder", "whole_file"]


@contextlib.contextmanager
def whole_file(path: str) -> Generator[BinaryIO, None, None]:
    """Yield a file to write; when the block ends well, it replaces what is at `path`, else it is deleted.

    Makes the folder. Two processes that write one path at the same time: each writes a file of its own, the later wins.

    Raises:
      FailedPreconditionError: the disk or the folder refuses; what was at `path` is unchanged.
    """
    folder, base = os.path.split(path)
    unfinished = os.path.join(folder, f".{base[:80]}.{secrets.token_hex(8)}.tmp")
    try:
        os.makedirs(folder or ".", exist_ok=True)
        with open(unfinished, "xb") as file:
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


def sync_folder(folder: str) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

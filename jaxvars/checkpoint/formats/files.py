"""Reading byte ranges of a file, each checked against the file's length before memory is taken for it.

Files are read, not memory-mapped: a mapped file that somebody truncates kills the process, and JAX may
alias the mapping. One read into an array of our own costs the same as the copy that would be needed.
"""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import weakref
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.errors import DataLossError, NotFoundError

__all__ = ["RangedFile", "list_folder", "shard_files"]

# On a CPU, JAX takes memory that is aligned so as it is, and copies other memory.
_ALIGNMENT = 64
_WORTH_ALIGNING = 1 << 14
_SHARD_SUFFIX = re.compile(r"-(?:\d{5}|\?{5})-of-(?:\d{5}|\?{5})\Z")


class RangedFile:
    """A file open for reading ranges, from any thread. The handle keeps to the file it opened first."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            # Without waiting: a named pipe would keep us until somebody writes to it.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            raise NotFoundError(f"File does not exist: {path}") from None
        except OSError as error:
            raise DataLossError(f"Cannot read {path}: {error.strerror or error}.") from None
        # Closed when the last user is gone, without a warning: a reader need not be closed by hand.
        self._finalizer = weakref.finalize(self, os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise DataLossError(f"Cannot read {path}: it is {kind}, not a file.")
        self._file = io.FileIO(descriptor, "rb", closefd=False)
        self.size = status.st_size
        self._lock = threading.Lock()

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Return `size` bytes at `offset`; `what` names them in the error."""
        return self.read_array(offset, size, what).tobytes()

    def read_array(self, offset: int, size: int, what: str) -> npt.NDArray[np.uint8]:
        """Return `size` bytes at `offset` as a new array that nothing else refers to."""
        octets = self.memory_for(offset, size, what)
        self.read_into(octets, offset, what)
        return octets

    def memory_for(self, offset: int, size: int, what: str) -> npt.NDArray[np.uint8]:
        """Return new memory for `size` bytes at `offset`, after checking that the file has them."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise DataLossError(
                f"{self.path} is damaged or cut short: {what} should lie at bytes {offset} to "
                f"{offset + size}, but the file has {self.size}."
            )
        if size < _WORTH_ALIGNING:
            return np.empty(size, np.uint8)
        memory = np.empty(size + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        return memory[start : start + size]

    def read_into(self, octets: npt.NDArray[np.uint8], offset: int, what: str) -> None:
        """Fill `octets`, memory that `memory_for` gave for the same place."""
        view: memoryview[Any] = octets.data
        done = 0
        with self._lock:
            self._file.seek(offset)
            while done < len(view):
                count = self._file.readinto(view[done:])
                if not count:
                    raise DataLossError(f"{self.path} became shorter while {what} was being read.")
                done += count

    def close(self) -> None:
        """Close the file. Reading from it afterwards raises."""
        self._file.close()
        self._finalizer()

    def __enter__(self) -> RangedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def shard_files(prefix: str) -> list[str]:
    """Return the files ``<prefix>-?????-of-?????``, sorted (`prefix` may itself end in such a pattern)."""
    prefix = _SHARD_SUFFIX.sub("", prefix)
    folder, base = os.path.split(prefix)
    pattern = re.compile(re.escape(base) + r"-\d{5}-of-\d{5}\Z")
    return sorted(os.path.join(folder, name) for name in list_folder(folder) if pattern.match(name))


def list_folder(folder: str) -> list[str]:
    """Return the names in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):  # ValueError: a path with a zero byte in it
        return []

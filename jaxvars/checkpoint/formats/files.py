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
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.errors import DataLossError, NotFoundError

__all__ = ["Memory", "RangedFile", "list_folder", "shard_files"]

# On a CPU, JAX takes memory that is aligned so as it is, and copies other memory.
_ALIGNMENT = 64
_WORTH_ALIGNING = 1 << 14
_BLOCK = 1 << 24
_preadv: Callable[[int, list[memoryview[Any]], int], int] | None = getattr(os, "preadv", None)  # not on Windows
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
        self.size: int = status.st_size
        self._lock = threading.Lock()

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Return `size` bytes at `offset`; `what` names them in the error."""
        return self.read_array(offset, size, what).tobytes()

    def read_array(self, offset: int, size: int, what: str) -> npt.NDArray[np.uint8]:
        """Return `size` bytes at `offset` as a new array that nothing else refers to."""
        octets = self.memory_for(offset, size, what)
        self.read_into(octets, offset, what)
        return octets

    def memory_for(self, offset: int, size: int, what: str, memory: Memory | None = None) -> npt.NDArray[np.uint8]:
        """Return new memory for `size` bytes at `offset`, after checking that the file has them."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise DataLossError(
                f"{self.path} is damaged or cut short: {what} should lie at bytes {offset} to "
                f"{offset + size}, but the file has {self.size}."
            )
        return _aligned(size) if memory is None else memory.take(size)

    def read_into(self, octets: npt.NDArray[np.uint8], offset: int, what: str) -> None:
        """Fill `octets`, memory that `memory_for` gave for the same place."""
        view: memoryview[Any] = octets.data
        done = 0
        while done < len(view):
            count = self._read_at(view[done:], offset + done)
            if not count:
                raise DataLossError(f"{self.path} became shorter while {what} was being read.")
            done += count

    def _read_at(self, view: memoryview[Any], position: int) -> int:
        if _preadv is not None and not self._file.closed:  # threads need not wait for each other
            return _preadv(self._file.fileno(), [view], position)
        with self._lock:
            self._file.seek(position)
            return self._file.readinto(view) or 0

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


class Memory:
    """Memory for arrays that are read one after the other, several to a block.

    The system gives large blocks in large pages, several times faster than an array of a megabyte or two at a time.
    """

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self._used = 0

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return memory that nobody else has; very small and very large arrays get a block of their own."""
        if not _WORTH_ALIGNING <= size <= _BLOCK // 4:
            return _aligned(size)
        if self._used + size > self._block.size:
            self._block, self._used = _aligned(_BLOCK), 0
        taken = self._block[self._used : self._used + size]
        self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return taken


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    if size < _WORTH_ALIGNING:
        return np.empty(size, np.uint8)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


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

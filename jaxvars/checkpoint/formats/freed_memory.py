"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

__all__ = ["give_back"]

_WORTH_BYTES = 1 << 24


def give_back(nbytes: int) -> None:
    """Give back what was freed, where the system's allocator would keep it for the threads that had it.

    glibc keeps the buffers of Orbax's many threads in as many pools: after a read that is most of what was read.

    Args:
      nbytes: how much may have been freed; for little it is not worth the call.
    """
    trim = _malloc_trim()
    if trim is not None and nbytes >= _WORTH_BYTES:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], Any] | None:
    """The function of glibc, None where there is another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None

"""Sparing the garbage collector: a state is made of very many small objects, none of them in cycles."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator

__all__ = ["without_collecting"]


@contextlib.contextmanager
def without_collecting() -> Generator[None, None, None]:
    """Let no pass of the collector run in the block; with 10,000 variables they take a third of a restore's time.

    Each pass goes over all objects of the program, and new objects bring it on. What is made here is freed without it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

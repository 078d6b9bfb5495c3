"""Ctrl-C between two steps, not within one: a step has overwritten its old state before its new one is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["Hold", "held_interrupts"]


class Hold:
    """Holds an interrupt back while it is entered. A second one is not held: the first may wait for a stuck device."""

    def __init__(self) -> None:
        self._entered = False
        self._pending = False

    def __enter__(self) -> None:
        self._entered = True

    def __exit__(self, kind: Any, *_: object) -> None:
        self._entered = False
        pending, self._pending = self._pending, False
        if pending and kind is None:
            raise KeyboardInterrupt

    def handle(self, number: int, frame: Any) -> None:
        """Take an interrupt, as a handler of `signal.signal`."""
        if not self._entered or self._pending:
            raise KeyboardInterrupt
        self._pending = True


@contextmanager
def held_interrupts() -> Generator[Hold, None, None]:
    """Yield a `Hold` that handles Ctrl-C; it does nothing in other threads, or where a program has its own handler."""
    hold = Hold()
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield hold
        return
    signal.signal(signal.SIGINT, hold.handle)
    try:
        yield hold
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""Calling Orbax: one call at a time, and what it does when it fails made into one short error.

Orbax reads and writes many arrays at once in threads and event loops of its own. When one fails, each thread
above it logs the error with its whole stack, and the loop is closed under the others, which then complain when
they are done, from other threads or when they are collected: pages of text around the error itself. Those
complaints, and only those, are kept quiet while Orbax works for us.

Orbax numbers its operations in one series for the whole process, and confuses those of several threads (a save
beside a load fails now and then), so our calls wait for each other.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Generator
from typing import Any

from jaxvars.errors import JaxvarsError

__all__ = ["calling_orbax"]

_SETTLE_SECONDS = 0.05
_LONGEST_TEXT = 300
_LOOP_CLOSED = "Event loop is closed"
_NEVER_BEGUN = "was never awaited"  # a warning, where warnings are errors
_ABANDONED = ("Task was destroyed but it is pending", "exception was never retrieved", _LOOP_CLOSED)

# Of one thread several calls may be open: a save whose values another checkpoint has reads that one before it writes.
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def calling_orbax(kind: type[JaxvarsError], what: str, after: str = "") -> Generator[None, None, None]:
    """Turn any exception of the block into `kind`, with a text of one line: `what`, the reason, `after`."""
    with _one_at_a_time, _quiet():
        try:
            yield
            return
        except (JaxvarsError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.strerror:
                reason = error.strerror
            else:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            _let_go(error)
    raise kind(f"{what}: {reason[:_LONGEST_TEXT].rstrip('.')}.{after}")


def _let_go(error: BaseException) -> None:
    """Free the reads that the error's frames hold, now, while their complaints go unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine was never awaited
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = error.__context__ = error.__cause__ = None
        gc.collect()
        time.sleep(_SETTLE_SECONDS)
        gc.collect()


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keep the complaints of abandoned reads from the log and from `sys.unraisablehook`."""
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        text = str(unraisable.exc_value)
        if _LOOP_CLOSED not in text and _NEVER_BEGUN not in text:
            previous(unraisable)

    loggers = [logging.getLogger("asyncio"), logging.getLogger("absl")]
    sys.unraisablehook = hook
    for logger in loggers:
        logger.addFilter(_is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)
        if sys.unraisablehook is hook:
            sys.unraisablehook = previous


def _is_news(record: logging.LogRecord) -> bool:
    # What Orbax logs names no caller that could be told apart.
    return record.name != "absl" and not any(text in record.getMessage() for text in _ABANDONED)

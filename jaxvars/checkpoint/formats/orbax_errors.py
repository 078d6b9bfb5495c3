"""What Orbax does when it fails, made into one short error.

Orbax reads many arrays at once in event loops of its own. When one read fails it closes the loop under the
others, which then complain when they are done, from other threads or when they are collected: pages of text
after the error itself. Those complaints, and only those, are kept quiet while Orbax works for us.
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

__all__ = ["short_errors"]

_SETTLE_SECONDS = 0.05
_LONGEST_TEXT = 300
_LOOP_CLOSED = "Event loop is closed"
_ABANDONED = ("Task was destroyed but it is pending", "exception was never retrieved", _LOOP_CLOSED)

_lock = threading.Lock()
_users = 0
_previous_hook: Any = None


@contextlib.contextmanager
def short_errors(kind: type[JaxvarsError], what: str, after: str = "") -> Generator[None, None, None]:
    """Turn any exception of the block into `kind`, with a text of one line: `what`, the reason, `after`."""
    with _quiet():
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
    global _users, _previous_hook
    with _lock:
        _users += 1
        if _users == 1:
            _previous_hook, sys.unraisablehook = sys.unraisablehook, _hook
            logging.getLogger("asyncio").addFilter(_is_news)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                logging.getLogger("asyncio").removeFilter(_is_news)
                if sys.unraisablehook is _hook:
                    sys.unraisablehook = _previous_hook


def _hook(unraisable: Any) -> None:
    if _LOOP_CLOSED not in str(unraisable.exc_value):
        _previous_hook(unraisable)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _ABANDONED)

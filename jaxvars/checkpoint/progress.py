"""A progress bar for long reads: only where a person watches, or where one is asked for."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from jaxvars.errors import UnavailableError

__all__ = ["Progress", "progress_meter"]

Progress: TypeAlias = "bool | Callable[[str, int, int], object] | None"
Meter: TypeAlias = Callable[[str, int], object]

_LONG_WORK = 1 << 28  # bytes; less is read before a bar is drawn


@contextlib.contextmanager
def progress_meter(progress: Progress, total: int, what: str = "restore") -> Generator[Meter, None, None]:
    """Yield a function to call as ``meter(name, bytes_of_this_one)`` after each tensor; the bar says `what` is done."""
    if callable(progress):
        yield _calling(progress, total)
        return
    wanted = progress is True
    if progress is None:
        wanted = total >= _LONG_WORK and sys.stderr is not None and sys.stderr.isatty()
    bar = _bar(total, what, required=progress is True) if wanted else None
    if bar is None:
        yield lambda name, nbytes: None
        return
    with bar:
        yield lambda name, nbytes: bar.update(nbytes)


def _calling(report: Callable[[str, int, int], object], total: int) -> Meter:
    done = 0

    def meter(name: str, nbytes: int) -> None:
        nonlocal done
        done += nbytes
        report(name, done, total)

    return meter


def _bar(total: int, what: str, *, required: bool) -> Any:
    try:
        tqdm: Any = importlib.import_module("tqdm")
    except ImportError:
        if required:
            raise UnavailableError("progress=True needs tqdm. Run: pip install tqdm") from None
        return None
    return tqdm.tqdm(total=total, unit="B", unit_scale=True, desc=what)

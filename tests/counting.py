"""Counts that several tests take: what XLA compiles, Python calls, comparisons of layouts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import pytest

from jaxvars.layout import Core, Layout


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Count what XLA compiles."""
    events: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def python_calls(run: Callable[[], Any], within: str = "") -> int:
    """How many Python functions `run` calls, of those in files whose path starts with `within`."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(within)

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def layout_comparisons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by each call of ``__eq__`` or ``__hash__`` of a layout from now on."""
    calls: list[str] = []
    for cls in (Layout, Core):
        for name in ("__eq__", "__hash__"):
            original = getattr(cls, name)

            def counted(*args: Any, name: str = name, original: Any = original) -> Any:
                calls.append(name)
                return original(*args)

            monkeypatch.setattr(cls, name, counted)
    return calls

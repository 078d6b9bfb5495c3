"""The progress bar of `jv.train.run`: tqdm's, where a person watches. It shows a loss only when the device has it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from typing import Any

import jax

from jaxvars.errors import UnavailableError
from jaxvars.train.run_context import Hook, RunContext

__all__ = ["ProgressHook", "wants_bar"]

_SECONDS = 0.5  # between two looks at the loss, and two drawings of the bar


def wants_bar(progress: bool | None) -> bool:
    """Return whether to show a bar. None asks whether a person watches.

    Raises:
      UnavailableError: True, and tqdm is not installed.
    """
    installed = importlib.util.find_spec("tqdm") is not None
    if progress and not installed:
        raise UnavailableError("progress=True needs tqdm. Run: pip install tqdm")
    if progress is None:
        return (
            installed
            and jax.process_index() == 0
            and (_in_notebook() or (sys.stderr is not None and sys.stderr.isatty()))
        )
    return progress


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


class ProgressHook(Hook):
    """Draws the bar.

    Args:
      batches: how many batches there are, None where that is not known.
    """

    def __init__(self, batches: int | None) -> None:
        self._batches = batches
        self._bar: Any = None
        self._writer: Any = None
        self._loss: Any = None
        self._looked = 0.0

    def begin(self, run: RunContext) -> None:
        """Draw the bar at the first step of this run."""
        tqdm: Any = importlib.import_module("tqdm")
        ends = [run.last_step, None if self._batches is None else run.step + self._batches]
        total = min((end for end in ends if end is not None), default=None)
        # What goes to stderr is red in a notebook.
        file = sys.stdout if _in_notebook() else sys.stderr
        self._bar = tqdm.tqdm(
            total=total, initial=run.step, unit="step", file=file, mininterval=_SECONDS, dynamic_ncols=True
        )
        self._writer = run.writer
        run.writer = lambda text: tqdm.tqdm.write(text, file=sys.stdout)

    def after_step(self, run: RunContext) -> None:
        """Move the bar on."""
        now = time.monotonic()
        if self._loss is None:
            self._loss = run.loss
        if now - self._looked >= _SECONDS and _is_ready(self._loss):
            self._bar.set_postfix_str(f"loss={float(self._loss):.4g}", refresh=False)
            self._loss, self._looked = None, now
        self._bar.update(1)

    def end(self, run: RunContext) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            run.writer = self._writer
            if run.error is None and run.loss is not None:
                self._bar.set_postfix_str(f"loss={float(run.loss):.4g}", refresh=False)
            self._bar.close()


def _is_ready(loss: Any) -> bool:
    """Whether the device has computed it; a number of the host's always is."""
    ready = getattr(loss, "is_ready", None)
    return ready is None or ready()

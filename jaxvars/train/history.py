"""`HistoryHook`: loss and metrics of each step, for plots and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxvars.errors import InvalidArgumentError, NotFoundError, nearest_names
from jaxvars.train.hooks import values_of
from jaxvars.train.run_context import Hook, RunContext

__all__ = ["HistoryHook"]

# Losses stay on the device until so many have gathered; then the older half, long computed, is fetched at once.
_GATHERED = 256


class HistoryHook(Hook, Mapping[str, np.ndarray]):
    """Keeps loss and metrics by step: ``plt.plot(history["step"], history["loss"])``.

    A mapping from names to arrays, so ``pandas.DataFrame(dict(history))`` is a table. Training does not wait for it. It
    may look on in several runs, one after the other.

    Args:
      every_n_steps: keep those of each multiple of so many steps.

    Raises:
      InvalidArgumentError: a number that is not positive.

    Example:
      >>> import jaxvars as jv
      >>> step = jv.train.make_step(lambda v: v["w"] ** 2, jv.train.GradientDescentOptimizer(0.25))
      >>> history = jv.train.HistoryHook()
      >>> _ = jv.train.run(step, step.init(jv.Variables({"w": 1.0})), [()] * 3, hooks=[history])
      >>> print(list(history), history["step"], history["loss"])
      ['step', 'loss'] [1 2 3] [1.     0.25   0.0625]
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise InvalidArgumentError(f"every_n_steps is a positive number, got {every_n_steps}")
        self._every = every_n_steps
        self._rows: list[dict[str, Any]] = []
        self._fetched = 0

    def after_step(self, run: RunContext) -> None:
        """Keep this step."""
        if run.step % self._every:
            return
        self._rows.append({"step": run.step, **values_of(run)})
        if len(self._rows) - self._fetched >= _GATHERED:
            self._fetch(len(self._rows) - _GATHERED // 2)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the values of a name, one per step; waits for the device."""
        if name not in list(self):
            near = ", ".join(nearest_names(name, self)) or ", ".join(self)
            raise NotFoundError(f'the history has no "{name}". Nearest: {near}')
        self._fetch(len(self._rows))
        return np.asarray([row.get(name, np.nan) for row in self._rows])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows[-1] if self._rows else ("step", "loss"))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"<HistoryHook: {', '.join(self)} of {len(self._rows)} steps>"

    def _fetch(self, end: int) -> None:
        rows = self._rows[self._fetched : end]
        fetched = jax.device_get([list(row.values()) for row in rows])
        self._rows[self._fetched : end] = [
            dict(zip(row, values, strict=True)) for row, values in zip(rows, fetched, strict=True)
        ]
        self._fetched = end

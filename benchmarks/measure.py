"""Timing: cases that take turns in one process, in a new order each round, and processes started afresh.

A ratio is taken within a round, where both cases met the same noise, and the median of these is reported.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

AGAIN = " (again: A/A control)"


@dataclasses.dataclass
class Table:
    """Samples of several cases, and how to read them.

    Attributes:
      title: what one sample is.
      unit: of the samples: ``"us"``, ``"ms"`` or ``"s"``.
      samples: per case one figure per round.
      base: the case to which ratios are taken, or None.
      goals: per case the highest ratio to `base` wanted.
      limits: per case the highest median wanted, in `unit`.
      note: a line below the table.
    """

    title: str
    unit: str
    samples: dict[str, list[float]]
    base: str | None = None
    goals: dict[str, float] = dataclasses.field(default_factory=dict)
    limits: dict[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""

    def ratio(self, case: str) -> tuple[float, float, float]:
        """Median, 10th and 90th percentile of the ratios to the base, round by round."""
        assert self.base is not None
        ratios = np.array(self.samples[case]) / np.array(self.samples[self.base])
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        return float(middle), float(low), float(high)


def interleaved(
    cases: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    calls: int = 1,
    scale: float = 1e6,
    per: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    settle: Callable[[Any], Any] = lambda result: None,
) -> dict[str, list[float]]:
    """Time each case in turn, shuffled anew each round; garbage is collected between rounds, not within.

    Args:
      cases: functions without arguments; each runs twice beforehand.
      rounds: how many samples per case.
      calls: how many calls one sample is the mean of.
      scale: 1e6 for microseconds, 1e3 for milliseconds.
      per: how many things one call does; samples are per thing.
      clock: `time.thread_time` for what one thread computes by itself: other work on the machine adds less to it.
      settle: run on the last result outside the timed part (``jax.block_until_ready``).

    Returns:
      Per case its samples.
    """
    for case in cases.values():
        settle(case())
        settle(case())
    samples: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    shuffle = random.Random(0).shuffle
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            gc.collect()
            for name in order:
                case = cases[name]
                result: Any = None
                start = clock()
                for _ in range(calls):
                    result = case()
                elapsed = clock() - start
                settle(result)
                samples[name].append(elapsed / calls / per * scale)
    finally:
        gc.enable()
    return {name: samples[name] for name in cases}


def fresh_processes(programs: Mapping[str, Sequence[str]], *, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run Python programs in processes of their own, interleaved; each prints a JSON object as its last line.

    Args:
      programs: per case the arguments for the Python interpreter.
      rounds: how often each runs, after one run that is not counted (it fills file caches).

    Returns:
      Per case what each process printed.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    order = list(programs)
    shuffle = random.Random(0).shuffle
    for number in range(rounds + 1):
        shuffle(order)
        for name in order:
            done = subprocess.run([sys.executable, *programs[name]], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the benchmark process of {name!r} failed:\n{done.stderr}")
            if number:
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found

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


@dataclasses.dataclass(frozen=True)
class Claim:
    """A goal: what one case of a table may cost, beside another case or by itself. Exactly one bound is given.

    Examples::

        Claim("jv.Variables", "raw tuple", at_most=1.03)         # at most 1.03 times the raw tuple
        Claim("jv init", "jax.jit(Haiku init)", faster=8)        # at least 8 times as fast as Haiku
        Claim("import jaxvars", "import jax", plus=30)           # at most 30 units of the table more
        Claim("replace 1 of 100,000", at_most=30)                # at most 30 units of the table

    Attributes:
      case: the case that is judged.
      base: what it is compared with, round by round: any case of the same table. None: nothing.
      at_most: the highest ratio to `base`, or without a base the highest figure, in the table's unit.
      faster: the lowest ratio of `base` to `case`: "at least 8 times as fast".
      plus: by how much `case` may exceed `base`, in the table's unit.
    """

    case: str
    base: str | None = None
    at_most: float | None = None
    faster: float | None = None
    plus: float | None = None

    def __post_init__(self) -> None:
        if [self.at_most, self.faster, self.plus].count(None) != 2 or (self.base is None and self.at_most is None):
            raise ValueError(f"a claim has one bound, and without a base that is at_most: {self}")


@dataclasses.dataclass
class Table:
    """Samples of several cases, and how to read them.

    Attributes:
      title: what one sample is.
      unit: of the samples: ``"us"``, ``"ms"`` or ``"s"``.
      samples: per case one figure per round; NaN for a round in which the case did not run.
      base: the case to which ratios are taken, or None.
      goals: per case the highest ratio to `base` wanted: short for ``Claim(case, base, at_most=...)``.
      limits: per case the highest median wanted, in `unit`: short for ``Claim(case, at_most=...)``.
      note: a line below the table.
      claims: further goals, such as those that compare with a case other than `base`.
      size: how many things the table is about, where growth is shown.
    """

    title: str
    unit: str
    samples: dict[str, list[float]]
    base: str | None = None
    goals: dict[str, float] = dataclasses.field(default_factory=dict)
    limits: dict[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""
    claims: list[Claim] = dataclasses.field(default_factory=list)
    size: int | None = None

    def all_claims(self) -> list[Claim]:
        """`goals`, `limits` and `claims` as one list."""
        return [
            *(Claim(case, self.base, at_most=ratio) for case, ratio in self.goals.items()),
            *(Claim(case, at_most=limit) for case, limit in self.limits.items()),
            *self.claims,
        ]

    def ratio(self, case: str, base: str | None = None) -> tuple[float, float, float]:
        """Median, 10th and 90th percentile of the ratios to a case (by default the base), round by round."""
        against = self.base if base is None else base
        assert against is not None
        return spread(np.array(self.samples[case]) / np.array(self.samples[against]))

    def judge(self, claim: Claim) -> tuple[tuple[float, float, float], bool]:
        """What a claim is about (median, 10th and 90th percentile), and whether its median holds."""
        case = np.array(self.samples[claim.case])
        if claim.base is None:
            found = spread(case)
        elif claim.faster is not None:
            found = self.ratio(claim.base, claim.case)
            return found, found[0] >= claim.faster
        elif claim.plus is not None:
            found = spread(case - np.array(self.samples[claim.base]))
            return found, found[0] <= claim.plus
        else:
            found = self.ratio(claim.case, claim.base)
        assert claim.at_most is not None
        return found, found[0] <= claim.at_most


def spread(samples: Any) -> tuple[float, float, float]:
    """Median, 10th and 90th percentile of the samples that are no NaN."""
    low, middle, high = np.nanpercentile(np.asarray(samples, float), [10, 50, 90])
    return float(middle), float(low), float(high)


def exponent(sizes: Sequence[int], times: Sequence[float]) -> float:
    """The b of a * size**b that fits the times best, by least squares of the logarithms: 1 is linear growth."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def interleaved(
    cases: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    calls: int = 1,
    scale: float = 1e6,
    per: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    settle: Callable[[Any], Any] = lambda result: None,
    every: Mapping[str, int] | None = None,
    warm: int = 2,
) -> dict[str, list[float]]:
    """Time each case in turn, shuffled anew each round; garbage is collected between rounds, not within.

    Args:
      cases: functions without arguments.
      rounds: how many samples per case.
      calls: how many calls one sample is the mean of.
      scale: 1e6 for microseconds, 1e3 for milliseconds.
      per: how many things one call does; samples are per thing.
      clock: `time.thread_time` for what one thread computes by itself: other work on the machine adds less to it.
      settle: run on the last result outside the timed part (``jax.block_until_ready``).
      every: for slow cases: in every how many rounds they run; the other rounds' samples are NaN.
      warm: how often each case runs beforehand.

    Returns:
      Per case its samples.
    """
    for case in cases.values():
        for _ in range(warm):
            settle(case())
    samples: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    shuffle = random.Random(0).shuffle
    gc.disable()
    gc.collect()
    gc.freeze()  # a collection between rounds then looks only at what the cases left behind
    try:
        for number in range(rounds):
            shuffle(order)
            gc.collect()
            for name in order:
                if every is not None and number % every.get(name, 1):
                    samples[name].append(float("nan"))
                    continue
                case = cases[name]
                result: Any = None
                start = clock()
                for _ in range(calls):
                    result = case()
                elapsed = clock() - start
                settle(result)
                samples[name].append(elapsed / calls / per * scale)
    finally:
        gc.unfreeze()
        gc.enable()
    return {name: samples[name] for name in cases}


def fresh_processes(
    programs: Mapping[str, Sequence[str]], *, rounds: int, uncounted: int = 1
) -> dict[str, list[dict[str, float]]]:
    """Run Python programs in processes of their own, interleaved; each prints a JSON object as its last line.

    Args:
      programs: per case the arguments for the Python interpreter.
      rounds: how often each runs.
      uncounted: how often each runs beforehand, to fill file caches.

    Returns:
      Per case what each process printed.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    order = list(programs)
    shuffle = random.Random(0).shuffle
    for number in range(-uncounted, rounds):
        shuffle(order)
        for name in order:
            done = subprocess.run([sys.executable, *programs[name]], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the benchmark process of {name!r} failed:\n{done.stderr}")
            if number >= 0:
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found

"""How costs grow up to 100,000 variables, with the exponent that fits best: 1 is linear."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

import jaxvars as jv
from benchmarks import states
from benchmarks.measure import AGAIN, Table, exponent, interleaved

TITLE = "Growth with the number of variables (CPU time of the process)"

GOAL = 1.1  # the exponent that still counts as linear
SIZES = (100, 1000, 10_000, 100_000)
ROUNDS = 3
LEAST = 20_000  # variables that one sample is about, at least: few are gone through several times
ONES = 1000  # calls in a sample of an operation on one variable


class Subject:
    """A state of one size and what the operations need beside it."""

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        self.variables = states.variables(size)
        self.names = [*self.variables]
        self.flat = dict(self.variables)
        self.raw = tuple(self.flat.values())
        self.model = jv.transform(lambda: _scalars(size, jv.zeros_initializer()))
        self.reader = jv.transform(lambda: _scalars(size, None))
        self.step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree))
        self.packed = self.variables.packed()
        self.pickled = pickle.dumps(self.variables)
        self.folder, self._saves = folder, itertools.count()
        self.checkpoint = self.save()

    def save(self) -> str:
        """Save to a new path, which is returned."""
        return jv.checkpoint.save(self.variables, self.folder / f"{self.size}-{next(self._saves)}")

    def middle(self) -> str:
        """A name in the middle."""
        return self.names[self.size // 2]


def _scalars(size: int, initializer: Any) -> None:
    for block in range(size // 10):
        with jv.variable_scope(f"s{block // 10}"), jv.variable_scope(f"t{block % 10}"):
            for i in range(10):
                jv.get_variable(f"v{i}", [], initializer=initializer)


def _look_up(state: Any, names: Sequence[str]) -> None:
    for name in names:
        state[name]


@dataclasses.dataclass(frozen=True)
class Operation:
    """What is timed, and on how much: all variables, or one of them; slow ones run in one round only."""

    run: Callable[[Subject], Any]
    one: bool = False
    slow: bool = False
    largest: int = SIZES[-1]


FLATTEN = "flatten"
RENAME = [(r"s(\d+)/(.*)", r"layer\1/\2")]
BACK = [(r"layer(\d+)/(.*)", r"s\1/\2")]
OPERATIONS = {
    "raw tuple, flatten": Operation(lambda s: jax.tree.leaves(s.raw)),
    FLATTEN: Operation(lambda s: jax.tree.leaves(s.variables)),
    FLATTEN + AGAIN: Operation(lambda s: jax.tree.leaves(s.variables)),
    "map": Operation(lambda s: jax.tree.map(lambda x: x, s.variables)),
    "flat dict, look up every name": Operation(lambda s: _look_up(s.flat, s.names)),
    "look up every name": Operation(lambda s: _look_up(s.variables, s.names)),
    "variable_specs": Operation(lambda s: s.variables.variable_specs),
    # The executable of 100,000 results would take minutes to compile, for the raw tuple as well.
    "raw tuple, jitted step": Operation(lambda s: jax.block_until_ready(s.step(s.raw)), largest=10_000),
    "jitted step": Operation(lambda s: jax.block_until_ready(s.step(s.variables)), largest=10_000),
    "jitted step, packed": Operation(lambda s: jax.block_until_ready(s.step(s.packed))),
    "packed": Operation(lambda s: s.variables.packed()),
    "jv.assign to one, per call": Operation(lambda s: jv.assign(s.variables, s.middle(), 1.0), one=True),
    "replace every value": Operation(lambda s: s.variables.replace(s.flat)),
    "merge of two states": Operation(lambda s: s.variables | s.variables),
    "rename by a pattern": Operation(lambda s: s.variables.rename(RENAME), slow=True),
    "freeze by a pattern": Operation(lambda s: s.variables.freeze(".*/v3")),
    "to_nested": Operation(lambda s: s.variables.to_nested()),
    "summary, as text": Operation(lambda s: str(s.variables.summary()), slow=True),
    "scopes and get_variable, eager": Operation(lambda s: s.reader.apply(s.variables)),
    "specs of a model": Operation(lambda s: s.model.specs(), slow=True),
    "init of a model": Operation(lambda s: jax.block_until_ready(s.model.init(0)), slow=True),
    "pickle.dumps": Operation(lambda s: pickle.dumps(s.variables), slow=True),
    "pickle.loads": Operation(lambda s: pickle.loads(s.pickled), slow=True),
    "checkpoint, save": Operation(Subject.save, slow=True),
    "checkpoint, restore": Operation(lambda s: jv.checkpoint.restore(s.checkpoint, s.variables), slow=True),
    "checkpoint, plan by a pattern": Operation(
        lambda s: jv.checkpoint.plan(s.checkpoint, s.variables.rename(RENAME), rules=BACK), slow=True
    ),
}


def tables(quick: bool) -> list[Table]:
    """The exponents, then a table per size."""
    sizes = SIZES[:2] if quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        times = _times([Subject(size, Path(folder)) for size in sizes], 1 if quick else ROUNDS)
    fitted = sizes if quick else sizes[1:]  # what a call costs by itself would flatten the growth from 100
    exponents = {name: _exponents(by_size, fitted) for name, by_size in times.items()}
    limits = {name: GOAL for name in exponents if not name.startswith(("raw", "flat")) and AGAIN not in name}
    note = (
        "Least squares of log(time) over log(number of variables), round by round; the times are in the tables below. "
        "Once a state outgrows the processor's caches, the same work takes longer: see the raw tuple and the dict."
    )
    title = f"exponent of the growth from {fitted[0]:,} variables upwards"
    found = [Table(title, "", exponents, limits=limits, note=note)]
    for size in sizes:
        samples = {
            name: [time / (1 if OPERATIONS[name].one else size) for time in by_size[size]]
            for name, by_size in times.items()
            if size in by_size
        }
        found.append(Table(f"time per variable, of {size:,}", "us", samples, size=size))
    return found


def _exponents(by_size: dict[int, list[float]], sizes: Sequence[int]) -> list[float]:
    sizes = [size for size in sizes if size in by_size]
    return [exponent(sizes, times) for times in zip(*(by_size[size] for size in sizes), strict=True)]


def _times(subjects: list[Subject], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Per operation and size the microseconds that one call took, round by round."""
    cases: dict[str, Callable[[], Any]] = {}
    calls: dict[str, int] = {}
    for (name, operation), subject in itertools.product(OPERATIONS.items(), subjects):
        if subject.size <= operation.largest:
            case = f"{subject.size}: {name}"
            calls[case] = ONES if operation.one else max(1, LEAST // subject.size)
            cases[case] = _repeated(operation.run, subject, calls[case])
            if not operation.slow or subject.size < SIZES[-1]:
                operation.run(subject)  # compiles, and fills caches
    slow = [case for case in cases if OPERATIONS[case.partition(": ")[2]].slow]
    samples = interleaved(cases, rounds=rounds, every=dict.fromkeys(slow, rounds), warm=0, clock=time.process_time)
    found: dict[str, dict[int, list[float]]] = {name: {} for name in OPERATIONS}
    for case, times in samples.items():
        size, _, name = case.partition(": ")
        found[name][int(size)] = [time / calls[case] for time in times]
    return found


def _repeated(run: Callable[[Subject], Any], subject: Subject, calls: int) -> Callable[[], None]:
    def call() -> None:
        for _ in range(calls):
            run(subject)

    return call

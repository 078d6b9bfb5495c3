"""A mutation fuzzer over every reader of checkpoints: ``python tests/fuzz.py --mutations 200000 --seed 1 --jobs 2``.

A tiny checkpoint is damaged (`fuzz_mutations`), opened, asked everything and read whole. Allowed are

* one of jaxvars's errors, when it is opened or when a tensor is read, whose text names the file;
* or values. Where a checksum covers them, and the damage did not go through it, those that were there before.

Anything else is a finding: another exception, a warning, an array that is not what was announced, memory that the
tiny file cannot need, a file left open, more than ten seconds, a crash. Mutations run in child processes, and each
follows from (format, seed, number): ``--only tf --seed 1 --number 17`` runs one again. (Not to the byte for Orbax,
whose files have times and names of their own in them.)
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import multiprocessing
import os
import random
import re
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fuzz_mutations import damaged
from fuzz_seeds import FORMATS, REBUILT, Seed, seeds

from jaxvars import checkpoint
from jaxvars.checkpoint.graph_variables import graph_variables
from jaxvars.errors import JaxvarsError

__all__ = ["Finding", "Judge", "Tally", "little_memory", "run", "supervise", "table", "work"]

LONGEST_SECONDS = 10
MOST_BYTES = 64 << 20
# Of 100 mutations; what is slow gets fewer.
SHARES = {
    "tf": 24,
    "tf_v1": 16,
    "state": 8,
    "safetensors": 16,
    "npz": 16,
    "msgpack": 12,
    "hdf5": 5,
    "keras": 2.5,
    "orbax": 0.5,
    "graph": 4,
}
# C libraries reserve memory that they never touch.
_ROOMY = {"hdf5": 8 << 30, "keras": 8 << 30, "orbax": 8 << 30}
REFUSED, PARTLY, EQUAL, OTHER, FOUND = 1, 2, 3, 4, 5
_OUTCOMES = {
    REFUSED: "refused",
    PARTLY: "partly refused",
    EQUAL: "read equal",
    OTHER: "read, not guarded",
    FOUND: "findings",
}
_PART = 5_000
_MOST_ALONE = 8
_START_SECONDS = 300


class Wrong(Exception):
    """What was read is not what may be read."""


@dataclass(frozen=True)
class Finding:
    """One mutation that went wrong: what is needed to run it again, and what happened."""

    format: str
    number: int
    seed: str
    kind: str
    text: str

    @property
    def cause(self) -> str:
        """The same for findings that are most likely the same bug."""
        frames = re.findall(r'File "[^"]*/(\w+\.py)", line \d+, in (\w+)', self.text)
        return f"{self.format}: {self.kind} in {'/'.join(frames[-1]) if frames else self.text[:60]}"


@dataclass
class Tally:
    """What came of the mutations of one format."""

    outcomes: Counter[int] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)

    def add(self, other: Tally) -> None:
        """Take over what another one has."""
        self.outcomes += other.outcomes
        self.findings += other.findings
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)


# Reading

_Value = tuple[tuple[int, ...], str, Any]


def _read(path: str, together: bool) -> tuple[set[str], dict[str, _Value]]:
    """Ask a checkpoint everything. Returns all names, and the tensors that could be read.

    Raises:
      JaxvarsError: it cannot be opened.
      Wrong: what it says makes no sense.
    """
    values: dict[str, _Value] = {}
    with checkpoint.open(path) as reader:
        names = list(reader)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        _check(set(names) == set(shapes) == set(dtypes), "the listings differ")
        for name in names:
            name.encode("utf-8", "surrogatepass" if reader.format == "orbax" else "strict")  # its record holds any name
            repr(reader[name])
            _check(all(type(dim) is int and dim >= 0 for dim in shapes[name]), f"{name!r} has the shape {shapes[name]}")
        try:
            _check(set(reader.variable_specs) <= set(names), "there are specs of other names")
            _check(set(reader.aliases.values()) <= set(names), "an alias has no tensor")
            _check(not any(alias in names for alias in reader.aliases), "an alias is a name")
        except JaxvarsError as error:
            _check_text(error, path)
        found: dict[str, Any] = {}
        if together:
            try:
                found.update(reader.source.read_many(names))
            except JaxvarsError as error:
                _check_text(error, path)
        for name in [] if together else names:
            try:
                found[name] = reader.get_tensor(name)
            except JaxvarsError as error:
                _check_text(error, path)
        for name, array in found.items():
            _check(type(array) is np.ndarray and list(array.shape) == shapes[name] and array.dtype == dtypes[name],
                   f"{name!r} is not of the shape and dtype that were announced")  # fmt: skip
            _check(array.flags.c_contiguous and array.flags.writeable, f"{name!r} is not an array of its own")
            values[name] = _value(array)
    return set(names), values


def _read_graph(path: str, together: bool) -> tuple[set[str], dict[str, _Value]]:
    """Ask a graph for its variables; what they are takes the place of values."""
    variables = graph_variables(path)
    values: dict[str, _Value] = {}
    for name, spec in variables.variable_specs.items():
        name.encode()
        values[name] = (
            spec.shape,
            str(spec.dtype),
            (spec.trainable, spec.collections, spec.partition, spec.file_dtype),
        )
    return set(values), values


_READERS: dict[str, Callable[[str, bool], tuple[set[str], dict[str, _Value]]]] = {"graph": _read_graph}


def _value(array: np.ndarray) -> _Value:
    if array.dtype != object:
        return array.shape, array.dtype.name, array.tobytes()
    texts = array.ravel().tolist()
    _check(all(type(text) is bytes for text in texts), "a string is not made of bytes")
    return array.shape, "object", texts


def _check(is_right: bool, text: str) -> None:
    if not is_right:
        raise Wrong(text)


def _check_text(error: JaxvarsError, path: str) -> None:
    text = str(error)
    _check(os.path.dirname(path) in text, f"an error that names no file: {text}")


class Judge:
    """Damages the checkpoints of one format, one mutation after the other.

    Args:
      format: the format.
      checkpoints: its seeds.
      seed: the fuzzer's seed.
      folder: an empty folder to work in.
    """

    def __init__(self, format: str, checkpoints: list[Seed], seed: int, folder: str) -> None:
        self._format, self._seeds, self._seed = format, checkpoints, seed
        self._folders = [os.path.join(folder, str(number)) for number in range(len(checkpoints))]
        self._noise: list[str] = []
        self._read = _READERS.get(format, _read)
        self._known: dict[str, list[_Value]] = {}
        self._originals: list[dict[str, _Value]] = []
        # A whole file may take the place of another: what it says by itself may be read, too.
        self._whole: list[set[str]] = []
        for one, place in zip(checkpoints, self._folders, strict=True):
            for name, data in one.files.items():
                self._write(place, name, data)
        for one, place in zip(checkpoints, self._folders, strict=True):
            self._originals.append(self._learned(os.path.join(place, one.path)))
            for name in one.files if len(one.files) < _MOST_ALONE else ():
                with contextlib.suppress(JaxvarsError):
                    self._learned(os.path.join(place, name))

    def _learned(self, path: str) -> dict[str, _Value]:
        """Read a checkpoint that is whole, and note what is in it."""
        for together in (True, False):
            names, values = self._read(path, together)
        for name, value in values.items():
            self._known.setdefault(name, []).append(value)
        self._whole.append(names)
        return values

    def run(self, number: int) -> tuple[int, Finding | None]:
        """Run one mutation; returns its outcome, and what was found, if anything was."""
        rng = random.Random(f"{self._format}:{self._seed}:{number}")
        at = rng.randrange(len(self._seeds))
        one, place = self._seeds[at], self._folders[at]
        files, guarded = self._mutation(rng, one)
        path = os.path.join(place, one.path)
        for name, data in files.items():
            self._write(place, name, data)
        opened, most = _open_files(), _peak()
        kind = text = ""
        outcome = FOUND
        try:
            outcome = self._judged(path, number % 2 == 0, guarded, self._originals[at])
        except Wrong as error:
            kind, text = "Wrong", str(error)
        except Exception as error:
            kind, text = type(error).__name__, traceback.format_exc(limit=-12)
        if opened < _open_files() and self._format != "orbax":
            gc.collect()
            if opened < _open_files():
                outcome, kind, text = FOUND, "OpenFile", "a file was left open"
        if _peak() > most + MOST_BYTES:
            outcome, kind, text = FOUND, "Memory", f"{(_peak() - most) >> 20} MB"
        if self._noise:
            outcome, kind, text = FOUND, "Unraisable", self._noise.pop()
            self._noise.clear()
        for name in files:
            self._write(place, name, one.files.get(name))
        return outcome, Finding(self._format, number, one.name, kind, text) if outcome == FOUND else None

    def _judged(self, path: str, together: bool, guarded: bool, original: Mapping[str, _Value]) -> int:
        try:
            names, values = self._read(path, together)
        except JaxvarsError as error:
            _check_text(error, path)
            return REFUSED
        for name, value in values.items():
            # Another seed's values may come with a part of another seed's file.
            if guarded and value not in self._known.get(name, []):
                raise Wrong(f"{name!r} changed silently: {str(value)[:300]}")
        if guarded and not any(names >= whole for whole in self._whole):
            raise Wrong(f"names disappeared: {sorted(original.keys() - names)}")
        if names > values.keys():
            return PARTLY
        return EQUAL if values == original else OTHER

    def _mutation(self, rng: random.Random, one: Seed) -> tuple[dict[str, bytes | None], bool]:
        """Return the files that change, and whether checksums still guard the values."""
        if one.kinds and rng.random() < 0.5:
            kind, name = rng.choice(one.kinds)
            return dict(REBUILT[kind](rng, one, name)), False
        name = rng.choice(list(one.files))
        other = rng.choice(list(rng.choice(self._seeds).files.values()))
        if rng.random() < 0.03:
            return {name: rng.choice((None, b"", other, rng.randbytes(100)))}, one.guarded
        return {name: damaged(rng, one.files[name], other)}, one.guarded

    def _write(self, place: str, name: str, data: bytes | None) -> None:
        path = os.path.join(place, name)
        if data is None:
            os.unlink(path)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    def keep(self, number: int, folder: str) -> None:
        """Leave the damaged checkpoint of a mutation in a folder."""
        rng = random.Random(f"{self._format}:{self._seed}:{number}")
        one = self._seeds[rng.randrange(len(self._seeds))]
        for name, data in {**one.files, **self._mutation(rng, one)[0]}.items():
            if data is not None:
                self._write(folder, name, data)

    def _unraisable(self, noise: Any) -> None:
        # Orbax's reads that were given up may complain long after the error, whatever we do.
        given_up = re.search("Event loop is closed|was never awaited", str(noise.exc_value))
        if self._format != "orbax" or not given_up:
            self._noise.append(f"{noise.exc_value!r} in {noise.object!r}")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Make findings of what Python only prints: exceptions in destructors and in threads."""
        before = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = self._unraisable
        threading.excepthook = lambda noise: self._noise.append(f"{noise.exc_value!r} in a thread")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                yield
        finally:
            sys.unraisablehook, threading.excepthook = before


def _peak() -> int:
    """The most memory that this process ever had, in bytes."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _open_files() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 0


@contextlib.contextmanager
def little_memory(most: int = MOST_BYTES) -> Iterator[None]:
    """Let the process take only so much more memory, where the system can."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# Child processes


def work(format: str, checkpoints: list[Seed], seed: int, numbers: range, folder: str, answers: Any) -> None:
    """Run mutations and send (outcome, seconds, finding) of each, after a first message when all is ready."""
    judge = Judge(format, checkpoints, seed, folder)
    with judge.listening(), little_memory(_ROOMY.get(format, MOST_BYTES)):
        answers.send(None)
        for number in numbers:
            begin = time.perf_counter()
            outcome, finding = judge.run(number)
            answers.send((outcome, time.perf_counter() - begin, finding))
    answers.close()


def supervise(
    format: str, checkpoints: list[Seed], seed: int, numbers: range, work: Callable[..., None] = work
) -> Tally:
    """Run mutations in child processes: a new one after each that crashed or hung."""
    tally = Tally()
    context = multiprocessing.get_context("spawn")
    while numbers:
        receiver, sender = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(dir=_fast_folder(), ignore_cleanup_errors=True) as folder, receiver:
            child = context.Process(target=work, args=(format, checkpoints, seed, numbers, folder, sender), daemon=True)
            child.start()
            sender.close()
            end = _listen(receiver, numbers, tally)
            if end:
                child.kill()
            child.join()
        if not end:
            return tally
        number, kind = end
        text = f"exit code {child.exitcode}" if kind == "Crash" else f"more than {LONGEST_SECONDS} seconds"
        if number < 0:
            raise RuntimeError(f"The readers of {format} fail on whole checkpoints: {kind}, {text}.")
        tally.outcomes[FOUND] += 1
        tally.findings.append(Finding(format, number, "", kind, text))
        numbers = range(number + 1, numbers.stop)
    return tally


def _listen(receiver: Any, numbers: range, tally: Tally) -> tuple[int, str] | None:
    """Add up what a child sends. Returns the mutation that ended it and how, None if it came to its end."""
    for number in (-1, *numbers):
        if not receiver.poll(_START_SECONDS if number < 0 else LONGEST_SECONDS):
            return number, "Hang"
        try:
            answer = receiver.recv()
        except EOFError:
            return number, "Crash"
        if answer is None:
            continue
        outcome, seconds, finding = answer
        tally.outcomes[outcome] += 1
        tally.seconds += seconds
        tally.slowest = max(tally.slowest, (seconds, number))
        if finding is not None:
            tally.findings.append(finding)
    return None


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def _one_arena() -> Iterator[None]:
    """Keep children's glibc from reserving address space for each thread, which `little_memory` would count."""
    before = os.environ.get("MALLOC_ARENA_MAX")
    os.environ["MALLOC_ARENA_MAX"] = "1"
    try:
        yield
    finally:
        del os.environ["MALLOC_ARENA_MAX"]
        if before is not None:
            os.environ["MALLOC_ARENA_MAX"] = before


def run(
    mutations: int,
    seed: int = 1,
    jobs: int = 1,
    only: Sequence[str] = (),
    report: Callable[[str, Tally], None] | None = None,
) -> dict[str, Tally]:
    """Run that many mutations, spread over the formats.

    Args:
      mutations: how many in all.
      seed: another seed gives other mutations.
      jobs: how many child processes at once.
      only: the formats, all if there are none.
      report: called with a format and what came of a part of its mutations, when that is done.

    Returns:
      What came of them, by format.
    """
    chosen = [format for format in FORMATS if (not only or format in only) and seeds(format)]
    total = sum(SHARES[format] for format in chosen)
    tallies = {format: Tally() for format in chosen}

    def part(format: str, numbers: range) -> None:
        tally = supervise(format, seeds(format), seed, numbers)
        with adding:
            tallies[format].add(tally)
            if report:
                report(format, tally)

    adding = threading.Lock()
    with _one_arena(), ThreadPoolExecutor(jobs) as pool:
        waiting = []
        for format in chosen:
            count = max(1, round(mutations * SHARES[format] / total))
            parts = [range(start, min(start + _PART, count)) for start in range(0, count, _PART)]
            waiting += [pool.submit(part, format, numbers) for numbers in parts]
        for done in waiting:
            done.result()
    return tallies


def table(tallies: Mapping[str, Tally]) -> str:
    """What came of the mutations, as a table."""
    rows = [["format", "mutations", *_OUTCOMES.values(), "ms each", "slowest ms"]]
    for format, tally in tallies.items():
        count = tally.outcomes.total()
        slowest = f"{1000 * tally.slowest[0]:.0f} (number {tally.slowest[1]})"
        each = f"{1000 * tally.seconds / max(1, count):.2f}"
        rows.append([format, str(count), *(str(tally.outcomes[outcome]) for outcome in _OUTCOMES), each, slowest])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _again(format: str, seed: int, number: int, keep: str | None) -> int:
    """Run one mutation in this process, with all it says."""
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(format, seeds(format), seed, folder)
        if keep:
            judge.keep(number, keep)
        with judge.listening(), little_memory(_ROOMY.get(format, MOST_BYTES)):
            outcome, finding = judge.run(number)
    print(_OUTCOMES[outcome], "" if finding is None else f"({finding.seed}, {finding.kind})\n{finding.text}")
    return finding is not None


def main() -> int:
    """The command line. Returns 1 if anything was found."""
    parser = argparse.ArgumentParser(description="Damage tiny checkpoints and read them.")
    parser.add_argument("--mutations", type=int, default=20_000, help="how many, over all formats (20000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other mutations (1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (1)")
    parser.add_argument("--only", nargs="+", default=[], choices=list(FORMATS), metavar="FORMAT", help="these formats")
    parser.add_argument("--number", type=int, help="run this one mutation of the one format again")
    parser.add_argument("--keep", metavar="FOLDER", help="with --number: leave the damaged checkpoint there")
    options = parser.parse_args()
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(errors="backslashreplace")
    if options.number is not None:
        if len(options.only) != 1:
            parser.error("--number needs --only FORMAT")
        return _again(options.only[0], options.seed, options.number, options.keep)
    causes: Counter[str] = Counter()

    def report(format: str, tally: Tally) -> None:
        print(f"{time.strftime('%T')} {format}: {tally.outcomes.total()} in {tally.seconds:.0f} s", flush=True)
        for finding in tally.findings:
            causes[finding.cause] += 1
            if causes[finding.cause] <= 2:
                print(
                    f"--only {format} --seed {options.seed} --number {finding.number} ({finding.seed})\n{finding.text}"
                )

    tallies = run(options.mutations, options.seed, options.jobs, options.only, report)
    print(table(tallies))
    for cause, count in causes.most_common():
        print(f"{count:6} {cause}")
    return bool(causes)


if __name__ == "__main__":
    sys.exit(main())

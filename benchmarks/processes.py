"""Memory of several processes that share one model: what each takes to initialize, save and restore its share.

python -m benchmarks processes
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxvars as jv
from benchmarks.measure import Table
from jaxvars.spec import Hole

TITLE = "Memory of several processes"

ROWS, COLUMNS, COUNT = 4096, 2048, 8  # 32 MB each, 256 MB in all
VARIABLE = ROWS * COLUMNS * 4 / 1e6
MODEL = COUNT * VARIABLE
DEVICES = 2  # of each process
FORMATS = ("orbax", "tf", "safetensors", "npz")
_SMALL = 128  # rows of the variables that are saved and restored first, so that nothing is compiled or imported later


def tables(quick: bool) -> list[Table]:
    """2 and 4 processes."""
    return [_table(count, 1 if quick else 2) for count in (2, 4)]


def _table(count: int, rounds: int) -> Table:
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    run_processes = importlib.import_module("processes").run_processes
    samples: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found = run_processes(initialize_and_save, count, folder, devices=DEVICES)
            _write_other_formats(folder)
            for format in FORMATS:
                found += run_processes(restore, count, folder, format, devices=DEVICES)
        for one in found:
            for case, peak in one.items():
                samples.setdefault(case, []).append(peak)
    share = MODEL / count
    most = round(1.25 * share + VARIABLE)
    return Table(
        f"{count} processes: peak memory of each above what it had before, {MODEL:.0f} MB in {COUNT} variables, FSDP",
        "MB",
        samples,
        limits=dict.fromkeys(samples, most),
        note=f"The share of a process is {share:.0f} MB; the goal is 1.25 times that and one variable, {most} MB.",
    )


def _write_other_formats(folder: str) -> None:
    """What single processes would have written; in this process."""
    variables = jv.checkpoint.restore(f"{folder}/model.orbax", _holes(ROWS, None))
    for format in FORMATS[1:]:
        jv.checkpoint.save(variables, f"{folder}/model.{format}", format=format)
        jv.checkpoint.save(
            jv.Variables({name: value[:_SMALL] for name, value in variables.items()}),
            f"{folder}/small.{format}",
            format=format,
        )


# In each process.


def initialize_and_save(folder: str) -> dict[str, float]:
    """Peak of `init`, and of `save` with the values in place."""
    sharding = _sharding()
    small = jv.variables_initializer(_holes(_SMALL, sharding), 0)
    jv.checkpoint.save(small, f"{folder}/small.orbax")
    del small
    with _peak() as init:
        variables = jv.variables_initializer(_holes(ROWS, sharding), 0)
        jax.block_until_ready(variables)
    before = init.before
    with _peak(before) as save:
        jv.checkpoint.save(variables, f"{folder}/model.orbax")
    return {"init": init(), "save, Orbax": save()}


def restore(folder: str, format: str) -> dict[str, float]:
    """Peak of a restore."""
    sharding = _sharding()
    jv.checkpoint.restore(f"{folder}/small.{format}", _holes(_SMALL, sharding))
    with _peak() as peak:
        variables = jv.checkpoint.restore(f"{folder}/model.{format}", _holes(ROWS, sharding))
        jax.block_until_ready(variables)
    return {f"restore, {format}": peak()}


def _sharding() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))


def _holes(rows: int, sharding: Any) -> jv.Variables:
    initializer = jv.glorot_normal_initializer()
    return jv.Variables(
        {
            f"layer_{number}/kernel": Hole((rows, COLUMNS), "float32", sharding=sharding, initializer=initializer)
            for number in range(COUNT)
        }
    )


class _Peak:
    def __init__(self, before: float) -> None:
        self.before, self.most = before, 0.0

    def __call__(self) -> float:
        return self.most - self.before


@contextlib.contextmanager
def _peak(before: float | None = None) -> Generator[_Peak, None, None]:
    """The largest size of this process within the block."""
    gc.collect()
    found = _Peak(_resident() if before is None else before)
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            found.most = max(found.most, _resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def _resident() -> float:
    """Megabytes of memory that are this process's own, without what it maps of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no RssAnon in /proc/self/status")

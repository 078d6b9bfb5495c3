"""Saving and restoring, beside Orbax with its defaults, safetensors and (where there is one) TensorFlow's Saver.

TensorFlow works in a process of its own, in turn with the others: set ``JAXVARS_BENCH_TENSORFLOW`` to a Python that has
it, or have it in this environment.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import AGAIN, Table, fresh_processes
from benchmarks.tensorflow_peer import Peer, started

TITLE = "Checkpoints (file cache warm)"
BASE = "safetensors"
OURS = "jv.checkpoint (Orbax)"
ORBAX = "Orbax, its defaults"
TENSORFLOW = "TensorFlow"
_SAVER = Path(__file__).with_name("tensorflow_saver.py")


def tables(quick: bool) -> list[Table]:
    """All tables; a quick run has a tenth of the bytes."""
    scale = 10 if quick else 1
    rounds = 2 if quick else 5
    with tempfile.TemporaryDirectory(prefix="jaxvars-bench-") as folder, started(_SAVER) as tensorflow:
        many, large = (10_000 // scale, 256), (400, 650_000 // scale)
        found = [
            _round_trips(Path(folder), *many, rounds, {OURS: 2.0}, tensorflow),
            _round_trips(Path(folder), *large, rounds, {OURS: 2.5}, tensorflow),
            _bundle(Path(folder), *large, rounds, tensorflow),
            _waiting(Path(folder), *large, rounds),
        ]
        found += _names(Path(folder), many[0], 3 if quick else 7, tensorflow)
        found.append(_subset(Path(folder), many[0]))
    return found


# -- round trips ----------------------------------------------------------------------------------------------


def _arrays(count: int, size: int) -> dict[str, Any]:
    import numpy as np

    drawn = np.random.default_rng(0)
    return {f"layer_{i}/kernel": drawn.standard_normal(size, np.float32) for i in range(count)}


def _round_trips(
    folder: Path, count: int, size: int, rounds: int, goals: dict[str, float], tensorflow: Peer | None
) -> Table:
    import jax

    import jaxvars as jv

    arrays = {name: jax.device_put(array) for name, array in _arrays(count, size).items()}
    jax.block_until_ready(arrays)
    variables = jv.Variables(arrays)
    specs = jv.Variables({name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()})

    def ours(form: str) -> Callable[[Path], Any]:
        def case(path: Path) -> None:
            saved = jv.checkpoint.save(variables, path / "m", form)
            jax.block_until_ready(jv.checkpoint.restore(saved, specs))

        return case

    cases: dict[str, Callable[[Path], Any]] = {
        BASE: lambda path: _safetensors(arrays, path),
        BASE + AGAIN: lambda path: _safetensors(arrays, path),
        OURS: ours("orbax"),
        'jv.checkpoint, format="tf"': ours("tf"),
        'jv.checkpoint, format="safetensors"': ours("safetensors"),
        'jv.checkpoint, format="npz"': ours("npz"),
        ORBAX: lambda path: _orbax(arrays, path),
    }
    if tensorflow is not None:
        cases["TensorFlow's Saver"] = lambda path: tensorflow("save_and_restore", count, size, str(path / "m"))
    samples = _in_turn(folder, cases, rounds)
    table = Table(
        f"save and restore as JAX arrays: {count:,} arrays of {_size_text(4 * size)}", "s", samples, BASE, goals
    )
    by_us = [theirs / ours for theirs, ours in zip(samples[ORBAX], samples[OURS], strict=True)]
    table.note = (
        f"{ORBAX} takes {sorted(by_us)[len(by_us) // 2]:.1f} times as long as {OURS} "
        f"({min(by_us):.1f} to {max(by_us):.1f})."
        + (" TensorFlow's Saver restores into its session." if tensorflow is not None else "")
    )
    return table


def _in_turn(folder: Path, cases: dict[str, Callable[[Path], Any]], rounds: int) -> dict[str, list[float]]:
    """Each case in turn, each time into a new folder; one round beforehand is not counted."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for number in range(rounds + 1):
        order = order[1:] + order[:1]
        for name in order:
            path = folder / "case"
            path.mkdir()
            start = time.perf_counter()
            told = cases[name](path)
            elapsed = told if isinstance(told, float) else time.perf_counter() - start
            shutil.rmtree(path)
            if number:
                samples[name].append(elapsed)
    return samples


def _safetensors(arrays: dict[str, Any], path: Path) -> None:
    import jax
    from safetensors.flax import load_file, save_file

    save_file(arrays, str(path / "m.safetensors"))
    jax.block_until_ready(load_file(str(path / "m.safetensors")))


def _orbax(arrays: dict[str, Any], path: Path) -> None:
    import jax
    from orbax.checkpoint import v1 as ocp

    ocp.save(path / "m", arrays)
    jax.block_until_ready(ocp.load(path / "m"))


# -- TensorFlow's files ---------------------------------------------------------------------------------------


def _bundle(folder: Path, count: int, size: int, rounds: int, tensorflow: Peer | None) -> Table:
    import jax

    import jaxvars as jv

    arrays = _arrays(count, size)
    path = str(folder / "bundle")
    jv.checkpoint.save(jv.Variables(arrays), path, "tf")
    specs = jv.Variables({name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()})
    del arrays

    def ours() -> None:
        jax.block_until_ready(jv.checkpoint.restore(path, specs))

    cases: dict[str, Callable[[], Any]] = {"jv.checkpoint.restore": ours, "jv.checkpoint.restore" + AGAIN: ours}
    if tensorflow is not None:
        cases[TENSORFLOW] = lambda: tensorflow("read_all", path)
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            told = case()
            elapsed = told if isinstance(told, float) else time.perf_counter() - start
            if number:
                samples[name].append(elapsed)
    return Table(
        f"a TensorFlow V2 checkpoint of {_size_text(4 * count * size)}, {count} tensors, into JAX arrays, checksums on",
        "s",
        samples,
        TENSORFLOW if tensorflow is not None else "jv.checkpoint.restore",
        {"jv.checkpoint.restore": 1 / 1.5} if tensorflow is not None else {},
        note="TensorFlow: load_checkpoint and get_tensor of each, into NumPy arrays." if tensorflow is not None else "",
    )


# -- waiting for a save in the background -----------------------------------------------------------------------


def _waiting(folder: Path, count: int, size: int, rounds: int) -> Table:
    import jax
    from orbax.checkpoint import v1 as ocp

    import jaxvars as jv

    arrays = {name: jax.device_put(array) for name, array in _arrays(count, size).items()}
    variables = jv.Variables(arrays)
    jax.block_until_ready(variables)
    samples: dict[str, list[float]] = {"jv.checkpoint.save_async": [], "Orbax save_async": []}
    for number in range(rounds + 1):
        for name, call in (
            ("jv.checkpoint.save_async", lambda: jv.checkpoint.save_async(variables, folder / "ours")),
            ("Orbax save_async", lambda: ocp.save_async(folder / "theirs", arrays)),
        ):
            start = time.perf_counter()
            pending = call()
            elapsed = time.perf_counter() - start
            pending.result()
            if number:
                samples[name].append(elapsed)
            for path in ("ours", "theirs"):
                shutil.rmtree(folder / path, ignore_errors=True)
    return Table(
        f"how long a save of {_size_text(4 * count * size)} in the background keeps its caller waiting",
        "s",
        samples,
        limits={"jv.checkpoint.save_async": 0.15},
    )


# -- names, and a part ------------------------------------------------------------------------------------------

_LIST_OURS = """
import json, sys, time
import jaxvars as jv
path, small = sys.argv[1:]
jv.checkpoint.open(small)["w"]  # imports the reader
start = time.perf_counter()
with jv.checkpoint.open(path) as reader:
    names = [(name, reader.tensors[name].shape) for name in reader]
print(json.dumps({"seconds": time.perf_counter() - start, "count": len(names)}))
"""
_LIST_ORBAX = """
import json, sys, time
import jax
from orbax.checkpoint import v1 as ocp
start = time.perf_counter()
names = [(name, leaf.shape) for name, leaf in ocp.metadata(sys.argv[1]).metadata.items()]
print(json.dumps({"seconds": time.perf_counter() - start, "count": len(names)}))
"""
_READ_PART = """
import json, os, sys
import jax, jaxvars as jv
path, wanted = sys.argv[1], sys.argv[2:]
jv.checkpoint.restore(path, jv.Variables({wanted[0]: jax.ShapeDtypeStruct((256,), "float32")}))  # imports, and the like
def read():
    return int(open("/proc/self/io").read().split()[1])
before = read()
with jv.checkpoint.open(path) as reader:
    reader[wanted[0]]
opened = read()
jv.checkpoint.restore(path, jv.Variables({name: jax.ShapeDtypeStruct((256,), "float32") for name in wanted}))
print(json.dumps({"metadata": opened - before, "restore": read() - opened}))
"""


def _names(folder: Path, count: int, rounds: int, tensorflow: Peer | None) -> list[Table]:
    from orbax.checkpoint import v1 as ocp

    import jaxvars as jv

    arrays = _arrays(count, 256)
    ours, theirs, bundle = folder / "many", folder / "many-orbax", folder / "many-tf"
    jv.checkpoint.save(jv.Variables(arrays), ours)
    small, small_bundle = str(folder / "small"), str(folder / "small-tf")
    for path, form in ((small, "orbax"), (small_bundle, "tf")):
        jv.checkpoint.save(jv.Variables({"w": 1.0}), path, form)
    ocp.save(theirs, arrays)
    programs = {
        OURS: ["-c", _LIST_OURS, str(ours), small],
        OURS + AGAIN: ["-c", _LIST_OURS, str(ours), small],
        ORBAX: ["-c", _LIST_ORBAX, str(theirs)],
    }
    found = fresh_processes(programs, rounds=rounds)
    samples = {name: [run["seconds"] for run in runs] for name, runs in found.items()}
    tables = [Table(f"names and shapes of {count:,} arrays, after imports", "s", samples, OURS, limits={OURS: 0.1})]
    few = 6000
    jv.checkpoint.save(jv.Variables(dict(list(arrays.items())[:few])), bundle, "tf")
    found = fresh_processes({"jv.checkpoint.open": ["-c", _LIST_OURS, str(bundle), small_bundle]}, rounds=rounds)
    times = {name: [1e3 * run["seconds"] for run in runs] for name, runs in found.items()}
    if tensorflow is not None:
        times[TENSORFLOW] = [1e3 * tensorflow("names", str(bundle)) for _ in range(rounds)]
    title = f"names and shapes of {min(few, count):,} tensors of a TensorFlow V2 checkpoint, after imports"
    tables.append(Table(title, "ms", times, limits={"jv.checkpoint.open": 60}))
    return tables


def _subset(folder: Path, count: int) -> Table:
    wanted = [f"layer_{i * count // 5}/kernel" for i in range(5)]
    (run,) = fresh_processes({"read": ["-c", _READ_PART, str(folder / "many"), *wanted]}, rounds=1)["read"]
    files = [path for path in (folder / "many").rglob("*") if path.is_file()]
    metadata = max((path.stat().st_size for path in files if "METADATA" in path.name), default=0)
    return Table(
        f"bytes read for 5 of {count:,} arrays of 1 KB",
        "KB",
        {
            "to open it (names, shapes, checksums)": [run["metadata"] / 1e3],
            "to restore five, beyond that": [(run["restore"] - run["metadata"]) / 1e3],
            "largest metadata file": [metadata / 1e3],
        },
        limits={"to restore five, beyond that": 200, "largest metadata file": 2000},
        note="Counted by the system (rchar of /proc/self/io), so Linux only; all that is read counts, cached or not.",
    )


def _size_text(nbytes: int) -> str:
    return (
        f"{nbytes / 1e9:.2f} GB"
        if nbytes >= 1e9
        else f"{nbytes / 1e6:.1f} MB"
        if nbytes >= 1e6
        else f"{nbytes / 1e3:.0f} KB"
    )

"""What one variable, one piece of it, one process costs: the unit costs from which docs/scale.md is computed."""

from __future__ import annotations

import pickle
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import AbstractMesh

import jaxvars as jv
from benchmarks import units_together
from benchmarks.measure import Table, interleaved

TITLE = "Unit costs of many processes"

SIZES = (100, 1000, 5000)
# Processes and devices of each: so many pieces has each variable.
TOGETHER = ((2, 1), (2, 2), (4, 2))
COUNTS = (20, 60, 120)

# Names of cases that `scale_model` reads.
IN_MEMORY = "specs of a model, in memory"
PICKLED = "specs of a model, pickled"
SPECS = "specs of a model under jv.placement.rule"
FINGERPRINT = "fingerprint that processes compare"
DRAWING = "jv.placement.draw, 8,000 devices"
RECORD, RECORD_PIECE = "record of jaxvars, per variable", "record of jaxvars, per piece"
NAMES = "Orbax's names, per variable"
SHARDING, SHARDING_DEVICE = "Orbax's shardings, per variable", "Orbax's shardings, per variable and device"
ARRAYS = "Orbax's array metadata, per variable and process"
INDEX, INDEX_PIECE = "OCDBT's index, per variable", "OCDBT's index, per piece"
TOLD = "answers of the coordination service in a restore, per variable and process"
TOLD_PIECE = "answers of the coordination service in a restore, per piece and process"
GATHERED = "checksums that each process receives in a save, per piece"
GATHERED_PROCESS = "checksums that each process receives in a save, per piece and process"
FILES, FILES_PROCESS = "files, whatever the number of processes", "files, per process"
COLLECTIVES, BARRIERS = "save: collectives", "save: barriers"
LOADS, RESTORE_BARRIERS = "restore: loads of Orbax", "restore: barriers"
PREDICTED = "bytes read, over those that the units predict"
SAVE_PIECE = "save, per variable and device of a process"
SAVE_GB, RESTORE_GB = "save, per GB", "restore, per GB"


def tables(quick: bool) -> list[Table]:
    """All tables; a quick run has fewer variables and processes."""
    sizes, counts = (SIZES[:2], COUNTS[:2]) if quick else (SIZES, COUNTS)
    together = {pair: _together(units_together.measure, *pair, list(counts)) for pair in TOGETHER[: 2 if quick else 3]}
    metadata = _metadata(together)
    return [
        _sizes_of_specs(sizes),
        _times_of_specs(1000, 2 if quick else 7),
        metadata,
        _many(metadata, 200 if quick else 2000),
        _waits(together),
        _seconds(1 << 26 if quick else 1 << 28, 2 if quick else 5),
    ]


# -- names and specs ------------------------------------------------------------------------------------------


def _model(count: int) -> jv.Model:
    """A model of so many variables of [8000, 16], placed by a rule of 8,000 devices that are only described."""
    rule = jv.placement.rule(AbstractMesh((8000,), ("data",)), jv.placement.fsdp("data"))

    def model() -> None:
        with jv.device(rule):
            for i in range(count):
                scope, _, last = units_together.name(i).rpartition("/")
                with jv.variable_scope(scope):
                    jv.get_variable(last, [8000, 16])

    return jv.transform(model)


def _sizes_of_specs(sizes: Sequence[int]) -> Table:
    memory, pickled = [], []
    for size in sizes:
        model = _model(size)
        model.specs()  # what is kept once per process is no cost of these
        tracemalloc.start()
        specs = model.specs()
        memory.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        pickled.append(len(pickle.dumps(specs)))
    columns = [np.ones(len(sizes)), np.array(sizes)]
    return Table(
        "what each process keeps of a variable's description",
        "bytes",
        {IN_MEMORY: [_fit(columns, memory)[1]], PICKLED: [_fit(columns, pickled)[1]]},
        note=f"The slope over {', '.join(f'{size:,}' for size in sizes)} variables.",
    )


def _times_of_specs(count: int, rounds: int) -> Table:
    from jaxvars.placement import processes

    model = _model(count)
    specs = model.specs()
    cases: dict[str, Callable[[], Any]] = {
        SPECS: model.specs,
        FINGERPRINT: lambda: processes._records(specs),
        DRAWING: lambda: jv.placement.draw(specs).bytes_per_device,
    }
    samples = interleaved(cases, rounds=rounds, per=count, clock=time.thread_time, warm=1)
    return Table(f"processor time per variable, of {count:,}", "us", samples, size=count)


# -- checkpoints of several processes -------------------------------------------------------------------------


def _together(function: Callable[..., Any], processes: int, devices: int, *arguments: Any) -> list[Any]:
    """What a function returns in several processes that share a folder."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from processes import run_processes  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory(prefix="jaxvars-bench-") as folder:
        return run_processes(function, processes, folder, *arguments, devices=devices, timeout=900)


class _Points:
    """All measurements as columns: one row per number of processes, devices and variables."""

    def __init__(self, together: dict[tuple[int, int], list[Any]]) -> None:
        rows = [
            (processes, devices, *measured)
            for (processes, devices), found in together.items()
            for measured in zip(*found, strict=True)
        ]
        self.processes = np.array([row[0] for row in rows], float)
        self.devices = np.array([row[1] for row in rows], float)
        self.measured = [row[2:] for row in rows]  # one of each process, process 0 first
        self.variables = np.array([row[0]["variables"] for row in self.measured], float)
        self.pieces = self.variables * self.processes * self.devices
        self.ones = np.ones(len(rows))

    def files(self, *parts: str) -> Any:
        """Bytes of the files of which the path has one of these parts."""
        return np.array(
            [
                sum(size for file, size in row[0]["files"].items() if any(part in file for part in parts))
                for row in self.measured
            ],
            float,
        )

    def most(self, of: str, what: str) -> Any:
        """The largest figure that a process counted."""
        return np.array([max(one[of][what] for one in row) for row in self.measured], float)


def _metadata(together: dict[tuple[int, int], list[Any]]) -> Table:
    at = _Points(together)
    record = _fit([at.ones, at.variables, at.pieces], at.files("variables.jaxvars"))
    sharding = _fit([at.ones, at.variables, at.pieces], at.files("/_sharding"))
    names = _fit([at.ones, at.variables], at.files("/_METADATA"))
    arrays = _fit([at.processes, at.variables * at.processes], at.files("array_metadatas"))
    # Orbax keeps values and index in the same files; the values are known.
    index_bytes = at.files("/d/", "manifest.ocdbt") - at.variables * units_together.VARIABLE
    index = _fit([at.ones, at.variables, at.pieces], index_bytes)
    exchanged = [at.ones, at.processes, at.pieces, at.pieces * at.processes]
    gathered = _fit(exchanged, at.most("save", "gathered"))
    told = _fit([*exchanged[:2], at.variables * at.processes, exchanged[3]], at.most("restore", "told"))
    samples = {
        RECORD: record[1],
        RECORD_PIECE: record[2],
        NAMES: names[1],
        SHARDING: sharding[1],
        SHARDING_DEVICE: sharding[2],
        ARRAYS: arrays[1],
        INDEX: max(0.0, index[1]),
        INDEX_PIECE: index[2],
        GATHERED: gathered[2],
        GATHERED_PROCESS: max(0.0, round(gathered[3], 2)),
        TOLD: max(0.0, round(told[2], 1)),
        TOLD_PIECE: max(0.0, round(told[3], 2)),
    }
    kinds = ", ".join(f"{processes} x {devices}" for processes, devices in together)
    counts = ", ".join(f"{count:g}" for count in sorted(set(at.variables)))
    note = (
        f"Slopes, by least squares over {counts} variables of {units_together.VARIABLE >> 20} MiB, in {kinds} "
        "processes and devices of each; every variable has one piece on each device."
    )
    return Table("metadata of a checkpoint", "bytes", {case: [value] for case, value in samples.items()}, note=note)


def _many(metadata: Table, count: int) -> Table:
    """Whether the lines hold for many more variables, and more pieces, than they were drawn through."""
    from benchmarks.scale_model import Costs, Scenario  # which reads the names of the cases from here

    processes, devices, nbytes = 2, 4, 8192
    unit = {case: samples[0] for case, samples in metadata.samples.items()}
    costs = Costs(unit, Scenario("", count, processes * devices, processes=processes, devices=devices))
    at = _Points({(processes, devices): _together(units_together.measure, processes, devices, [count], nbytes)})
    predicted = {
        "record of jaxvars": (at.files("variables.jaxvars"), costs.record()),
        "Orbax's names": (at.files("/_METADATA"), costs.names()),
        "Orbax's shardings": (at.files("/_sharding"), costs.shardings()),
        "Orbax's array metadata": (at.files("array_metadatas"), costs.array_metadata()),
        "OCDBT's index": (at.files("/d/", "manifest.ocdbt") - count * nbytes, costs.index()),
    }
    samples = {case: [float(found[0]) / said] for case, (found, said) in predicted.items()}
    title = f"metadata of {count:,} variables in {processes * devices} pieces, over what these slopes predict"
    return Table(title, "", samples)


def _waits(together: dict[tuple[int, int], list[Any]]) -> Table:
    at = _Points(together)
    least = at.variables == at.variables.min()  # the values of a process fit into one file
    many = np.array([len(row[0]["files"]) for row in at.measured], float)
    files = _fit([at.ones[least], at.processes[least]], many[least])
    loads = at.most("restore", "loads")
    once = at.files("variables.jaxvars") + at.variables * units_together.VARIABLE / at.processes
    each = at.files("/_sharding", "/_METADATA") + at.files("array_metadatas") / at.processes
    each += at.files("/d/", "manifest.ocdbt") - at.variables * units_together.VARIABLE
    samples = {
        FILES: [files[0]],
        FILES_PROCESS: [files[1]],
        COLLECTIVES: at.most("save", "collectives").tolist(),
        BARRIERS: at.most("save", "barriers").tolist(),
        LOADS: loads.tolist(),
        RESTORE_BARRIERS: at.most("restore", "barriers").tolist(),
        PREDICTED: (at.most("restore", "read") / (once + loads * each)).tolist(),
    }
    return Table("files, and how often processes wait for each other", "", samples)


def _seconds(nbytes: int, rounds: int) -> Table:
    processes, devices = 2, 2
    small = _together(units_together.measure, processes, devices, [50, 150, 250], 8192)
    counts = np.array([one["variables"] for one in small[0]], float)
    times = [max(one["save"]["seconds"] for one in each) for each in zip(*small, strict=True)]
    saved, restored = _together(units_together.large, 1, 8, nbytes, rounds)[0]
    samples = {
        SAVE_PIECE: [_fit([np.ones(3), counts * devices], times)[1]],
        SAVE_GB: [seconds * 1e9 / nbytes for seconds in saved],
        RESTORE_GB: [seconds * 1e9 / nbytes for seconds in restored],
    }
    note = (
        f"Per variable: the slope over {', '.join(f'{count:g}' for count in counts)} variables of 8 KiB in {processes} "
        f"processes, all on one machine; per GB: 64 variables of {nbytes // 64 / 1e6:g} MB in one process, 8 devices."
    )
    return Table("time of a save and a restore", "s", samples, note=note)


def _fit(columns: Sequence[Any], values: Any) -> list[float]:
    """The factors of the columns whose sum comes closest to the values."""
    return [float(factor) for factor in np.linalg.lstsq(np.stack(columns, axis=1), np.asarray(values, float))[0]]

"""Measure sections, each in a process of its own, and write RESULTS.md with its picture."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import machine, peers
from benchmarks.report import document, section_text
from benchmarks.results import SectionResult, load, reduced, save, table_from

# A section is a module with `TITLE` and `tables(quick) -> list[Table]`.
SECTIONS = {
    "import": "benchmarks.importing",
    "dispatch": "benchmarks.dispatch",
    "trees": "benchmarks.trees",
    "trace": "benchmarks.trace",
    "remat": "benchmarks.remat",
    "scan_layers": "benchmarks.layer_scan",
    "assign": "benchmarks.assign",
    "train": "benchmarks.train_step",
    "packing": "benchmarks.packing",
    "init": "benchmarks.init",
    "recurrent": "benchmarks.recurrent",
    "checkpoint": "benchmarks.checkpoint",
    "processes": "benchmarks.processes",
    "scale": "benchmarks.scale",
    "units": "benchmarks.units",
}
SECTIONS = {name: module for name, module in SECTIONS.items() if importlib.util.find_spec(module)}
RESULTS = Path(__file__).parent / "RESULTS.md"
PICTURE = "RESULTS.svg"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("section", nargs="*", help=f"which ones (default: all): {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="few repetitions, and nothing is written")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing: write RESULTS.md from benchmarks/results"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.section if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if options.child:
        tables = importlib.import_module(SECTIONS[options.section[0]]).tables(options.quick)
        print(json.dumps([dataclasses.asdict(reduced(table)) for table in tables]))
        return 0
    if options.report:
        write_report()
        return 0
    return run_all(options.section or list(SECTIONS), options.section, options.quick)


def run_all(names: list[str], asked: list[str], quick: bool) -> int:
    """Measure sections one after the other; what each found is written at once, so that a failure loses no other."""
    command = " ".join(["python -m benchmarks", *asked])
    if os.environ.get(peers.TENSORFLOW_PYTHON):
        command = f"{peers.TENSORFLOW_PYTHON}=... {command}"
    failed: list[str] = []
    for name in names:
        section = measured(name, command, quick)
        if section is None:
            failed.append(name)
            continue
        print(section_text(section), flush=True)
        if not quick:
            save(section)
            write_report()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measured(name: str, command: str, quick: bool) -> SectionResult | None:
    """Run one section; None where it failed."""
    before, start = machine.load(), time.perf_counter()
    child = [sys.executable, "-m", "benchmarks", name, "--child", *(["--quick"] if quick else [])]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    return SectionResult(
        name=name,
        title=importlib.import_module(SECTIONS[name]).TITLE,
        command=command,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=machine.machine(),
        versions=machine.versions(),
        load=round(before, 1),
        seconds=round(time.perf_counter() - start, 1),
        tables=[table_from(fields) for fields in json.loads(done.stdout.splitlines()[-1])],
    )


def write_report() -> None:
    """Write RESULTS.md and the picture from what is kept of every section."""
    sections = load(SECTIONS)
    RESULTS.write_text(document(sections, PICTURE), encoding="utf-8")
    try:
        from benchmarks.picture import draw
    except ModuleNotFoundError as error:
        print(f"no picture: {error}", file=sys.stderr)
        return
    draw(sections, RESULTS.with_name(PICTURE))


if __name__ == "__main__":
    sys.exit(main())

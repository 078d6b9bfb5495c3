"""Run sections, each in a process of its own, print their tables and write RESULTS.md."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Table
from benchmarks.report import header, table_text

# A section is a module with `TITLE` and `tables(quick) -> list[Table]`.
SECTIONS = {
    "import": "benchmarks.importing",
    "dispatch": "benchmarks.dispatch",
    "trees": "benchmarks.trees",
    "trace": "benchmarks.trace",
    "assign": "benchmarks.assign",
    "init": "benchmarks.init",
    "recurrent": "benchmarks.recurrent",
    "checkpoint": "benchmarks.checkpoint",
}
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("section", nargs="*", help=f"which ones (default: all): {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="few repetitions, and RESULTS.md stays as it is")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.section if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if options.child:
        tables = importlib.import_module(SECTIONS[options.section[0]]).tables(options.quick)
        print(json.dumps([dataclasses.asdict(table) for table in tables]))
        return 0
    return run_all(options.section or list(SECTIONS), options.quick)


def run_all(names: list[str], quick: bool) -> int:
    """Run the sections one after the other; RESULTS.md is written when all of them ran in full."""
    loads: list[float] = []
    parts: list[str] = []
    for name in names:
        loads.append(os.getloadavg()[0])
        command = [sys.executable, "-m", "benchmarks", name, "--child", *(["--quick"] if quick else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"section {name} failed", file=sys.stderr)
            return 1
        tables = [Table(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]
        text = f"## {importlib.import_module(SECTIONS[name]).TITLE}\n\n" + "\n".join(map(table_text, tables))
        parts.append(text)
        print(text, flush=True)
    print(header("python -m benchmarks " + " ".join(names), loads), flush=True)
    if not quick and set(names) == set(SECTIONS):
        RESULTS.write_text(header("python -m benchmarks", loads) + "\n" + "\n".join(parts), encoding="utf-8")
        print(f"written: benchmarks/{RESULTS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

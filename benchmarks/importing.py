"""Import time, in processes of their own."""

from __future__ import annotations

from benchmarks import peers
from benchmarks.measure import AGAIN, Table, fresh_processes

TITLE = "Import"

_PROGRAM = """
import json, time
start = time.perf_counter()
import {module}
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""


def tables(quick: bool) -> list[Table]:
    """One table."""
    modules = {"import jax": "jax", "import jax" + AGAIN: "jax", "import jaxvars": "jaxvars"}
    if peers.haiku():
        modules["import haiku"] = "haiku"
    if peers.linen():
        modules["import flax.linen"] = "flax.linen"
    programs = {case: ["-c", _PROGRAM.format(module=module)] for case, module in modules.items()}
    found = fresh_processes(programs, rounds=3 if quick else 15)
    samples = {case: [run["seconds"] * 1e3 for run in runs] for case, runs in found.items()}
    least = {case: min(values) for case, values in samples.items()}
    extra = least["import jaxvars"] - least["import jax"]
    return [
        Table(
            "wall time of the import",
            "ms",
            samples,
            base="import jax",
            note=f"Least of all runs: jax {least['import jax']:.0f} ms, jaxvars {extra:+.0f} ms over it (goal: 30).",
        )
    ]

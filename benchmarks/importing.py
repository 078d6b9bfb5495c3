"""Import time, and how long until a first model has its variables, in processes of their own."""

from __future__ import annotations

import tempfile

from benchmarks import peers
from benchmarks.measure import AGAIN, Claim, Table, fresh_processes

TITLE = "Import"

JAX, JAXVARS = "import jax", "import jaxvars"

# Bytecode is read from a folder of the benchmark's own, which the uncounted first runs fill: as after an installation,
# and whatever PYTHONDONTWRITEBYTECODE says.
_PROGRAM = """
import sys
sys.dont_write_bytecode, sys.pycache_prefix = False, {cache!r}
import json, time
start = time.perf_counter()
{statements}
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""
# Another Python runs it.
_ELSEWHERE = """
import subprocess
print(subprocess.run([{python!r}, "-c", {program!r}], capture_output=True, text=True, check=True).stdout, end="")
"""


def tables(quick: bool) -> list[Table]:
    """Imports alone, and imports with a first init."""
    with tempfile.TemporaryDirectory(prefix="jaxvars-bench-") as cache:
        return [_imports(cache, 3 if quick else 21), _first_inits(cache, 3 if quick else 11)]


def _imports(cache: str, rounds: int) -> Table:
    modules = {JAX: "jax", JAX + AGAIN: "jax", JAXVARS: "jaxvars"}
    if peers.optax():
        modules["import optax"] = "optax"
    if peers.equinox():
        modules["import equinox"] = "equinox"
    if peers.haiku():
        modules["import haiku"] = "haiku"
    if peers.linen():
        modules |= {"import flax.linen": "flax.linen", "from flax import nnx": "flax.nnx"}
    programs = {case: _PROGRAM.format(cache=cache, statements=f"import {module}") for case, module in modules.items()}
    python = peers.tensorflow_python()
    if python is not None:
        program = _PROGRAM.format(cache=cache, statements="import tensorflow.compat.v1")
        programs["import tensorflow.compat.v1"] = _ELSEWHERE.format(python=python, program=program)
    samples = _milliseconds(programs, rounds)
    extra = min(samples[JAXVARS]) - min(samples[JAX])
    return Table(
        "wall time of the import, bytecode compiled",
        "ms",
        samples,
        base=JAX,
        claims=[Claim(JAXVARS, JAX, plus=30)],
        note=f"Least of all runs: jax {min(samples[JAX]):.0f} ms, jaxvars {extra:+.0f} ms over it.",
    )


_FIRST_INITS = {
    "jax.nn.initializers": """
import jax
x = jax.numpy.ones([1, 3])
jax.block_until_ready({"w": jax.nn.initializers.glorot_uniform()(jax.random.key(0), (3, 2))})
""",
    "jv.transform": """
import jaxvars as jv, jax
x = jax.numpy.ones([1, 3])
jax.block_until_ready(jv.transform(lambda x: x @ jv.get_variable("w", [3, 2])).init(0, x))
""",
    "hk.transform": """
import haiku as hk, jax
x = jax.numpy.ones([1, 3])
model = hk.transform(lambda x: x @ hk.get_parameter("w", [3, 2], init=hk.initializers.VarianceScaling()))
jax.block_until_ready(model.init(jax.random.key(0), x))
""",
    "nn.Dense (Linen)": """
import flax.linen as nn, jax
x = jax.numpy.ones([1, 3])
jax.block_until_ready(nn.Dense(2, use_bias=False).init(jax.random.key(0), x))
""",
}


def _first_inits(cache: str, rounds: int) -> Table:
    present = {"hk.transform": peers.haiku(), "nn.Dense (Linen)": peers.linen()}
    programs = {
        case: _PROGRAM.format(cache=cache, statements=statements)
        for case, statements in _FIRST_INITS.items()
        if present.get(case, True)
    }
    programs["jax.nn.initializers" + AGAIN] = programs["jax.nn.initializers"]
    return Table(
        "import, and a first model with one variable: what was left for later is paid here",
        "ms",
        _milliseconds(programs, rounds),
        base="jax.nn.initializers",
    )


def _milliseconds(programs: dict[str, str], rounds: int) -> dict[str, list[float]]:
    found = fresh_processes({case: ["-c", program] for case, program in programs.items()}, rounds=rounds)
    return {case: [run["seconds"] * 1e3 for run in runs] for case, runs in found.items()}

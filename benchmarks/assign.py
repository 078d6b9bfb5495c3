"""What one assignment costs beside the addition that it makes, and what donation saves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxvars as jv
from benchmarks import states
from benchmarks.measure import AGAIN, Claim, Table, fresh_processes, interleaved

TITLE = "Assignment"


def tables(quick: bool) -> list[Table]:
    """Additions, replacements, donation."""
    rounds = 21 if quick else 201
    return [
        _additions(rounds, "a Python number", 1.0),
        _additions(rounds, "a device scalar", jnp.float32(1) + 0),
        _replacements(rounds),
        *_donation(2 if quick else 9),
    ]


def _additions(rounds: int, what: str, delta: Any) -> Table:
    name = "s5/t0/v0"
    add: Any = jax.jit(lambda x, y: x + y)
    raw, again = [jnp.float32(0) + 0], [jnp.float32(0) + 0]
    flat = [dict(zip(states.names(1000), states.values(1000), strict=True))]
    held = [states.variables(1000)]

    def bare(cell: list[Any]) -> Callable[[], Any]:
        def call() -> Any:
            cell[0] = add(cell[0], delta)
            return cell[0]

        return call

    def dict_copy() -> Any:
        flat[0] = {**flat[0], name: add(flat[0][name], delta)}
        return flat[0]

    def ours() -> Any:
        held[0] = jv.assign_add(held[0], name, delta)
        return held[0]

    samples = interleaved(
        {
            "bare jitted add": bare(raw),
            "bare jitted add" + AGAIN: bare(again),
            "jv.assign_add": ours,
            "dict copy and jitted add": dict_copy,
        },
        rounds=rounds,
        calls=200,
        clock=time.thread_time,
        settle=jax.block_until_ready,
    )
    return Table(
        f"add {what} to 1 of 1,000 scalars (CPU time of the thread)",
        "us",
        samples,
        base="bare jitted add",
        goals={"jv.assign_add": 1.15},
    )


def _replacements(rounds: int) -> Table:
    """Only the container: what `assign` does once it has the new value."""
    cases: dict[str, Any] = {}
    for count in (1_000, 10_000, 100_000):
        value = jnp.float32(1) + 0
        pairs = {f"v{i}": value for i in range(count)}
        # One shared buffer: nothing computes here, and 100,000 of them would take long to make.
        variables = jv.Variables.from_specs(
            (states.VariableSpec(name, (), jnp.dtype("float32")), value) for name in pairs
        )
        held = [variables._set("v0", value)]

        def replace(held: list[Any] = held, value: Any = value, name: str = f"v{count // 2}") -> None:
            held[0] = held[0]._set(name, value)

        cases[f"replace 1 of {count:,}"] = replace
        if count <= 10_000:
            copied = [pairs]

            def copy(copied: list[Any] = copied, value: Any = value) -> None:
                copied[0] = {**copied[0], "v1": value}

            cases[f"dict copy of {count:,}"] = copy
    return Table(
        "replace one value, nothing computed",
        "us",
        interleaved(cases, rounds=rounds, calls=20),
        limits={"replace 1 of 100,000": 30.0},
    )


_BIG = """
import json, resource, sys, time
import jax, jax.numpy as jnp
import jaxvars as jv
from jaxvars.updates import jitted

donate = sys.argv[1] == "True"
size = 2**28
variables = jv.Variables({"big": jnp.zeros(size), "small": jnp.zeros(())})
delta = jax.block_until_ready(jnp.ones(size))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# The program is compiled without running it, so that the peak before is that of two arrays.
jitted("assign_add", donate).lower(variables["big"], delta).compile()
before, times, pointers = peak(), [], set()
for _ in range(6):
    start = time.perf_counter()
    variables = jax.block_until_ready(jv.assign_add(variables, "big", delta, donate=donate))
    times.append((time.perf_counter() - start) * 1e3)
    pointers.add(variables["big"].unsafe_buffer_pointer())
print(json.dumps({"ms": sorted(times[1:])[2], "extra": peak() - before, "buffers": len(pointers)}))
"""


def _donation(rounds: int) -> list[Table]:
    """1 GiB, in processes of their own: donation reuses the buffer, without it a second one is written."""
    if _available_bytes() < 6 * 2**30:
        return []
    programs = {f"jv.assign_add, donate={donate}": ["-c", _BIG, str(donate)] for donate in (False, True)}
    kept, donated = programs
    programs[kept + AGAIN] = programs[kept]
    found = fresh_processes(programs, rounds=rounds)
    buffers = {case: max(run["buffers"] for run in runs) for case, runs in found.items()}
    times = Table(
        "add 1 GiB to 1 variable of 1 GiB",
        "ms",
        {case: [run["ms"] for run in runs] for case, runs in found.items()},
        base=kept,
        claims=[Claim(donated, kept, faster=3)],
        note=f"Different buffers seen: {buffers[kept]} without donation, {buffers[donated]} with it.",
    )
    peaks = Table(
        "the same: how far the peak of the process's memory rises",
        "MB",
        {case: [run["extra"] for run in runs] for case, runs in found.items()},
        limits={donated: 16.0},
    )
    return [times, peaks]


def _available_bytes() -> int:
    """Memory that a program may take without swapping; 0 where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0

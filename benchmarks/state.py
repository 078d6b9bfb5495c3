"""What a state costs over bare JAX: ratios measured in one process, interleaved, medians.

Run: python benchmarks/state.py [N ...]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

import jaxvars as jv
from jaxvars.spec import VariableSpec

ROUNDS = 41


def microseconds(cases: dict[str, Callable[[], object]], calls: int) -> dict[str, float]:
    """Median time per call of each case; the cases take turns, so that noise meets all of them."""
    for case in cases.values():
        jax.block_until_ready(case())
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            start = time.perf_counter()
            for _ in range(calls):
                result = case()
            times[name].append((time.perf_counter() - start) / calls * 1e6)
            jax.block_until_ready(result)
    return {name: statistics.median(values) for name, values in times.items()}


def state_of(count: int) -> jv.Variables:
    """A state of `count` scalar variables, each in a buffer of its own."""
    return jv.Variables.from_specs(
        (VariableSpec(f"layer{i}/weights", (), "float32"), jnp.float32(i) + 0) for i in range(count)
    )


def report(title: str, times: dict[str, float], floor: str) -> None:
    """Print each case with its ratio to the floor."""
    print(title)
    for name, time_ in times.items():
        print(f"  {name:<42} {time_:10.2f} us   {time_ / times[floor]:6.3f} x")


def add_one(tree: object) -> object:
    """The step: every value plus one."""
    return jax.tree.map(lambda x: x + 1, tree)


def run(count: int) -> None:
    """Measure a state of `count` variables."""
    variables = state_of(count)
    raw, name = variables._leaves, f"layer{count // 2}/weights"
    calls = max(1, 2000 // count)
    step = jax.jit(add_one)
    times = microseconds(
        {
            "raw tuple": lambda: step(raw),
            "raw tuple again": lambda: step(raw),
            "Variables": lambda: step(variables),
        },
        calls,
    )
    report(f"jitted step, N={count}", times, "raw tuple")
    times = microseconds(
        {"raw tuple": lambda: jax.tree.leaves(raw), "Variables": lambda: jax.tree.leaves(variables)},
        calls * 10,
    )
    report(f"tree.leaves, N={count}", times, "raw tuple")
    add = jax.jit(lambda x, y: x + y)
    value, one = variables[name], jnp.float32(1) + 0
    changed = variables._set(name, value)
    times = microseconds(
        {
            "jitted add of a Python number": lambda: add(value, 1.0),
            "jitted add of a device scalar": lambda: add(value, one),
            "assign_add of a Python number": lambda: jv.assign_add(changed, name, 1.0),
            "assign_add of a device scalar": lambda: jv.assign_add(changed, name, one),
            "replace one entry, no arithmetic": lambda: changed._set(name, value),
            "read one": lambda: changed[name],
        },
        500,
    )
    report(f"assignment to 1 of N={count}", times, "jitted add of a Python number")


if __name__ == "__main__":
    for argument in sys.argv[1:] or ["10", "100", "1000"]:
        run(int(argument))

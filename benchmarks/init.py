"""The first and the later initializations of three models, each run in a process of its own.

A model is its variables only (`benchmarks.init_shapes`): all create the same ones, by their own means, and compute
nothing with them.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.init_shapes import MODELS, Entry
from benchmarks.measure import AGAIN, Claim, Table, fresh_processes

TITLE = "Initialization"

OURS, HAIKU, HAIKU_JIT, TENSORFLOW = "jv init", "Haiku init", "jax.jit(Haiku init)", "TF1 get_variable and initializer"
NNX, RAW = "NNX", "jax.nn.initializers by hand"

# All that a quick run does, and what is not run at all.
QUICK = {"resnet50": (OURS, OURS + AGAIN, TENSORFLOW), "deep": (OURS, OURS + AGAIN, HAIKU, TENSORFLOW)}
LEFT_OUT = {("deep", HAIKU_JIT)}  # compiles for minutes

# Per model how many times as fast as whom the first one is to be.
FASTER = {
    "resnet50": {HAIKU_JIT: 8, HAIKU: 12, TENSORFLOW: 1},
    "bert_base": {HAIKU_JIT: 2.2, HAIKU: 1.8, TENSORFLOW: 1},
    "deep": {HAIKU: 3.5, TENSORFLOW: 5},
}


def tables(quick: bool) -> list[Table]:
    """Cold and warm, for each model."""
    return [table for model in (QUICK if quick else MODELS) for table in _of_model(model, quick)]


def _of_model(model: str, quick: bool) -> list[Table]:
    methods = {OURS: "jaxvars", OURS + AGAIN: "jaxvars", RAW: "raw"}
    if peers.haiku():
        methods |= {HAIKU: "haiku", HAIKU_JIT: "haiku_jit"}
    if peers.linen():
        methods[NNX] = "nnx"
    if peers.tensorflow_python() is not None:
        methods[TENSORFLOW] = "tensorflow"
    cases = {
        case: ["-m", "benchmarks.init", method, model]
        for case, method in methods.items()
        if (model, case) not in LEFT_OUT and not (quick and case not in QUICK[model])
    }
    found = fresh_processes(cases, rounds=1 if quick else 2, uncounted=0)
    entries = MODELS[model]()
    size = sum(math.prod(shape) for _, _, shape, _ in entries)
    what = f"{model}, {len(entries):,} tensors, {size / 1e6:.1f} million elements"
    left = "".join(f" {case} is not run: it compiles for minutes." for name, case in LEFT_OUT if name == model)
    processor = ", ".join(f"{case} {min(run['processor'] for run in runs):.2f}" for case, runs in found.items())
    cold = Table(
        f"{what}: first init of a process; imports and the start of the backend are not counted",
        "s",
        {case: [run["cold"] for run in runs] for case, runs in found.items()},
        base=OURS,
        claims=[Claim(OURS, base, faster=factor) for base, factor in FASTER[model].items() if base in found],
        note=f"Processor seconds of all threads, least of the rounds: {processor}.{left}",
    )
    warm = Table(
        f"{what}: best of three later ones",
        "s",
        {case: [run["warm"] for run in runs] for case, runs in found.items()},
        base=OURS,
        claims=[Claim(OURS, HAIKU_JIT, at_most=1.1)] if HAIKU_JIT in found else [],
        note="Later ones run the Python of the model again, but for jax.jit and TF1's session.",
    )
    return [cold, warm]


# -- the methods ------------------------------------------------------------------------------------------------


def jaxvars(entries: list[Entry]) -> Callable[[int], Any]:
    import jaxvars as jv

    makers = {
        "he": jv.initializers.he_normal(),
        "small": jv.truncated_normal_initializer(stddev=0.02),
        "ones": jv.ones_initializer(),
        "zeros": jv.zeros_initializer(),
    }

    def net() -> None:
        for scope, name, shape, how in entries:
            with jv.variable_scope(scope):
                jv.get_variable(name, shape, initializer=makers[how])

    return jv.transform(net).init


def _jax_makers() -> dict[str, Any]:
    import jax

    makers = jax.nn.initializers
    small = makers.truncated_normal(0.02)
    return {"he": makers.he_normal(), "small": small, "ones": makers.ones, "zeros": makers.zeros}


def raw(entries: list[Entry]) -> Callable[[int], Any]:
    import jax

    makers = _jax_makers()

    def init(seed: int) -> Any:
        keys = jax.random.split(jax.random.key(seed), len(entries))
        return [makers[how](keys[number], shape) for number, (_, _, shape, how) in enumerate(entries)]

    return init


def _haiku_init(entries: list[Entry]) -> Callable[..., Any]:
    import haiku as hk

    makers = {
        "he": hk.initializers.VarianceScaling(2.0, "fan_in", "truncated_normal"),
        "small": hk.initializers.TruncatedNormal(0.02),
        "ones": hk.initializers.Constant(1.0),
        "zeros": hk.initializers.Constant(0.0),
    }

    def net() -> None:
        for scope, name, shape, how in entries:
            hk.get_parameter(f"{scope}/{name}".replace("/", "_"), shape, init=makers[how])

    return hk.transform(net).init


def haiku(entries: list[Entry]) -> Callable[[int], Any]:
    import jax

    init = _haiku_init(entries)
    return lambda seed: init(jax.random.key(seed))


def haiku_jit(entries: list[Entry]) -> Callable[[int], Any]:
    import jax

    jitted = jax.jit(_haiku_init(entries))
    return lambda seed: jitted(jax.random.key(seed))


def nnx(entries: list[Entry]) -> Callable[[int], Any]:
    from flax import nnx as flax_nnx

    makers = _jax_makers()

    class Net(flax_nnx.Module):
        def __init__(self, rngs: Any) -> None:
            for scope, name, shape, how in entries:
                value = makers[how](rngs.params(), shape)
                setattr(self, f"{scope}/{name}".replace("/", "_"), flax_nnx.Param(value))

    return lambda seed: flax_nnx.state(Net(flax_nnx.Rngs(seed)))


METHODS = {"jaxvars": jaxvars, "raw": raw, "haiku": haiku, "haiku_jit": haiku_jit, "nnx": nnx}


def tensorflow(model: str) -> None:
    """Run the program for TensorFlow, with the Python that has it, and print what it prints."""
    program = Path(__file__).with_name("tensorflow_init.py")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **os.environ}
    environment["PYTHONPATH"] = str(program.parent.parent)
    command = [str(peers.tensorflow_python()), str(program), model]
    subprocess.run(command, env=environment, check=True)


def main(method: str, model: str) -> None:
    """Time one method in this process."""
    if method == "tensorflow":
        tensorflow(model)
        return
    import jax
    import jax.numpy as jnp

    init = METHODS[method](MODELS[model]())
    jax.block_until_ready(jnp.zeros(3) + jax.random.key_data(jax.random.key(0))[0])  # starts the backend
    times: list[float] = []
    processor = [time.process_time()]
    for seed in range(4):
        start = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(init(seed)))
        times.append(time.perf_counter() - start)
        processor.append(time.process_time())
    print(json.dumps({"cold": times[0], "warm": min(times[1:]), "processor": processor[1] - processor[0]}))


if __name__ == "__main__":
    main(*sys.argv[1:])

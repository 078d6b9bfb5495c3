"""The first and the later initializations of a small convolutional net, in processes of their own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import peers
from benchmarks.measure import AGAIN, Table, fresh_processes

TITLE = "Initialization"

# Output channels of 3x3 convolutions, then units of dense layers: ten kernels, all of different shapes.
CONVOLUTIONS = (16, 24, 32, 48, 64, 96)
UNITS = (128, 64, 32, 10)


def tables(quick: bool) -> list[Table]:
    """Cold and warm."""
    methods = {"jv init": "jaxvars", "jv init" + AGAIN: "jaxvars", "jax.nn.initializers by hand": "raw"}
    if peers.haiku():
        methods |= {"Haiku init": "haiku", "jax.jit(Haiku init)": "haiku_jit"}
    programs = {case: ["-m", "benchmarks.init", method] for case, method in methods.items()}
    found = fresh_processes(programs, rounds=1 if quick else 5)
    base = "jax.jit(Haiku init)" if peers.haiku() else "jax.nn.initializers by hand"
    note = f"{len(CONVOLUTIONS)} convolutions and {len(UNITS)} dense layers, {2 * len(CONVOLUTIONS + UNITS)} variables."
    return [
        Table(
            "first init of a process; imports and the start of the backend are not counted",
            "s",
            {case: [run["cold"] for run in runs] for case, runs in found.items()},
            base=base,
            note=note,
        ),
        Table(
            "best of five later ones",
            "s",
            {case: [run["warm"] for run in runs] for case, runs in found.items()},
            base=base,
        ),
    ]


def jaxvars() -> Callable[[int], Any]:
    import jax
    import jax.numpy as jnp

    import jaxvars as jv

    def net(x: Any) -> Any:
        for number, channels in enumerate(CONVOLUTIONS):
            with jv.variable_scope(f"conv{number}"):
                kernel = jv.get_variable("w", [3, 3, x.shape[-1], channels], initializer=_glorot(jax))
                x = jax.nn.relu(jv.nn.conv2d(x, kernel) + jv.get_variable("b", [channels], initializer=jnp.zeros))
        x = x.mean((1, 2))
        for number, units in enumerate(UNITS):
            with jv.variable_scope(f"dense{number}"):
                kernel = jv.get_variable("w", [x.shape[-1], units], initializer=_glorot(jax))
                x = jax.nn.relu(x @ kernel + jv.get_variable("b", [units], initializer=jnp.zeros))
        return x

    model, images = jv.transform(net), jnp.zeros((1, 16, 16, 3))
    return lambda seed: model.init(seed, images)


def _glorot(jax: Any) -> Any:
    return jax.nn.initializers.glorot_uniform()


def _haiku_init() -> tuple[Any, Any]:
    import haiku as hk
    import jax
    import jax.numpy as jnp

    def glorot(shape: Any, dtype: Any) -> Any:
        return _glorot(jax)(hk.next_rng_key(), shape, dtype)

    def net(x: Any) -> Any:
        for channels in CONVOLUTIONS:
            x = jax.nn.relu(hk.Conv2D(channels, 3, w_init=glorot)(x))
        x = x.mean((1, 2))
        for units in UNITS:
            x = jax.nn.relu(hk.Linear(units, w_init=glorot)(x))
        return x

    return hk.transform(net).init, jnp.zeros((1, 16, 16, 3))


def haiku() -> Callable[[int], Any]:
    import jax

    init, images = _haiku_init()
    return lambda seed: init(jax.random.key(seed), images)


def haiku_jit() -> Callable[[int], Any]:
    import jax

    init, images = _haiku_init()
    jitted = jax.jit(init)
    return lambda seed: jitted(jax.random.key(seed), images)


def raw() -> Callable[[int], Any]:
    import jax
    import jax.numpy as jnp

    shapes: list[tuple[int, ...]] = []
    width = 3
    for channels in CONVOLUTIONS:
        shapes += [(3, 3, width, channels), (channels,)]
        width = channels
    for units in UNITS:
        shapes += [(width, units), (units,)]
        width = units

    def init(seed: int) -> Any:
        keys = jax.random.split(jax.random.key(seed), len(shapes))
        return [
            _glorot(jax)(key, shape) if len(shape) > 1 else jnp.zeros(shape)
            for key, shape in zip(keys, shapes, strict=True)
        ]

    return init


def main(method: str) -> None:
    """Time one method in this process."""
    import jax
    import jax.numpy as jnp

    init = {"jaxvars": jaxvars, "haiku": haiku, "haiku_jit": haiku_jit, "raw": raw}[method]()
    jax.block_until_ready(jnp.zeros(3) + jax.random.key_data(jax.random.key(0))[0])  # starts the backend
    times: list[float] = []
    for seed in range(6):
        start = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(init(seed)))
        times.append(time.perf_counter() - start)
    print(json.dumps({"cold": times[0], "warm": min(times[1:])}))


if __name__ == "__main__":
    main(sys.argv[1])

"""Small variables laid together in buffers, beside one array each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxvars as jv
from benchmarks import states
from benchmarks.measure import AGAIN, Claim, Table, interleaved

TITLE = "Packing"

COUNT = 1000
LAYERS, WIDTH, BATCH = COUNT // 2, 8, 16


def tables(quick: bool) -> list[Table]:
    """A step that does next to nothing, and one that trains."""
    return [_dispatch(quick, donate=False), _dispatch(quick, donate=True), _training(quick)]


def _dispatch(quick: bool, donate: bool) -> Table:
    cases = {
        kind: _stepping(lambda tree: jax.tree.map(lambda x: x + 1, tree), state, donate)
        for kind, state in {
            "raw tuple": tuple(states.values(COUNT)),
            "raw tuple" + AGAIN: tuple(states.values(COUNT)),
            "jv.Variables": states.variables(COUNT),
            "jv.Variables, packed": states.variables(COUNT).packed(),
        }.items()
    }
    return Table(
        f"state -> state, x + 1 on {COUNT:,} f32 scalars{', donated' if donate else ''}",
        "us",
        interleaved(cases, rounds=11 if quick else 101, calls=4, settle=jax.block_until_ready),
        base="raw tuple",
        goals={} if donate else {"jv.Variables, packed": 0.03},
    )


def _stepping(step: Callable[[Any], Any], state: Any, donate: bool) -> Callable[[], Any]:
    jitted = jax.jit(step, donate_argnums=(0,) if donate else ())
    present = [state]

    def call() -> Any:
        present[0] = jitted(present[0])
        return present[0]

    return call


# A deep and narrow multilayer perceptron: a kernel of 8 x 8 and a bias of 8 in each layer.

NAMES = [f"layer_{i}" for i in range(LAYERS)]


def with_jaxvars(x: jax.Array) -> jax.Array:
    for name in NAMES:
        with jv.variable_scope(name):
            kernel = jv.get_variable("kernel", [WIDTH, WIDTH], initializer=jv.orthogonal_initializer())
            x = jnp.tanh(x @ kernel + jv.get_variable("bias", [WIDTH], initializer=jv.zeros_initializer()))
    return x


def with_dict(params: Any, x: jax.Array) -> jax.Array:
    for name in NAMES:
        x = jnp.tanh(x @ params[f"{name}/kernel"] + params[f"{name}/bias"])
    return x


def _training(quick: bool) -> Table:
    model, x = jv.transform(with_jaxvars), jnp.linspace(-1.0, 1.0, BATCH * WIDTH).reshape(BATCH, WIDTH)
    variables = model.init(0, x)
    flat = dict(zip(variables, variables._leaves, strict=True))
    tx = optax.adam(1e-3)

    def stepping(loss: Callable[[Any], jax.Array], params: Any) -> tuple[Callable[[], Any], float]:
        def step(state: tuple[Any, Any]) -> tuple[Any, Any]:
            params, slots = state
            updates, slots = tx.update(jax.grad(loss)(params), slots, params)
            return optax.apply_updates(params, updates), slots

        call = _stepping(step, jax.tree.map(jnp.copy, (params, tx.init(params))), donate=True)
        start = time.process_time()
        jax.block_until_ready(call())
        return call, time.process_time() - start

    by_dict = lambda params: jnp.square(with_dict(params, x)).mean()  # noqa: E731
    by_model = lambda params: jnp.square(model(params, x)).mean()  # noqa: E731
    made = {
        "raw dict": stepping(by_dict, flat),
        "raw dict" + AGAIN: stepping(by_dict, flat),
        "jv.Variables": stepping(by_model, variables),
        "jv.Variables, packed": stepping(by_model, variables.packed()),
    }
    first = "; ".join(f"{name} {seconds:.0f} s" for name, (_, seconds) in made.items())
    samples = interleaved(
        {name: call for name, (call, _) in made.items()},
        rounds=11 if quick else 101,
        calls=2,
        scale=1e3,
        settle=jax.block_until_ready,
    )
    return Table(
        f"a training step of {COUNT:,} small variables ({LAYERS} dense layers of {WIDTH}, batch {BATCH}), "
        "optax.adam, donated",
        "ms",
        samples,
        base="raw dict",
        claims=[Claim("jv.Variables, packed", "raw dict", faster=5)],
        note=f"CPU time of the first step, compilation included: {first}.",
    )

"""What `jv.nn.dynamic_rnn` costs beside the same LSTM written by hand over ``lax.scan``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv
from benchmarks.measure import AGAIN, Table, interleaved

TITLE = "Recurrent networks"

BATCH, STEPS, DEPTH, UNITS = 32, 50, 64, 128
X = jnp.asarray(np.random.RandomState(0).standard_normal((BATCH, STEPS, DEPTH)), jnp.float32)
WHAT = f"an LSTM of {UNITS} units over [{BATCH}, {STEPS}, {DEPTH}], loss and gradients"
BASE = "lax.scan by hand"


def tables(quick: bool) -> list[Table]:
    """Steps, traces and compilations."""
    return [_steps(7 if quick else 41), _traces(5 if quick else 15), _compilations(3 if quick else 7)]


def by_hand(kernel: Any, bias: Any, x: Any) -> Any:
    def step(state: Any, now: Any) -> Any:
        c, h = state
        gates = jnp.concatenate([now, h], axis=1) @ kernel + bias.reshape(1, -1)
        i, j, f, o = jnp.split(gates, 4, axis=1)
        c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    zeros = jnp.zeros([x.shape[0], UNITS], x.dtype)
    return jax.lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))[1].swapaxes(0, 1)


def network(x: Any) -> Any:
    return jv.nn.dynamic_rnn(jv.nn.rnn_cell.LSTMCell(UNITS), x, dtype=x.dtype)[0]


MODEL = jv.transform(network)


def _losses() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Fresh functions, which JAX has never traced, and their arguments."""
    variables = MODEL.init(0, X)
    weights = variables["rnn/lstm_cell/kernel"], variables["rnn/lstm_cell/bias"]
    np.testing.assert_allclose(MODEL(variables, X), by_hand(*weights, X), rtol=1e-5, atol=1e-6)

    def hand(weights: Any, x: Any) -> Any:
        return jax.value_and_grad(lambda w: jnp.sum(jnp.square(by_hand(*w, x))))(weights)

    def ours(variables: Any, x: Any) -> Any:
        return jv.value_and_grad(lambda v: jnp.sum(jnp.square(MODEL(v, x))))(variables)

    return {BASE: (hand, (weights, X)), BASE + AGAIN: (hand, (weights, X)), "jv.nn.dynamic_rnn": (ours, (variables, X))}


def _steps(rounds: int) -> Table:
    cases: dict[str, Callable[[], Any]] = {}
    for name, (loss, arguments) in _losses().items():
        compiled = jax.jit(loss)
        cases[name] = lambda compiled=compiled, arguments=arguments: jax.block_until_ready(compiled(*arguments))
    return Table(
        f"a compiled step of {WHAT}",
        "ms",
        interleaved(cases, rounds=rounds, scale=1e3),
        base=BASE,
        goals={"jv.nn.dynamic_rnn": 1.05},
    )


def _fresh(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: loss(*arguments)


def _traces(rounds: int) -> Table:
    cases: dict[str, Callable[[], Any]] = {
        name: lambda loss=loss, arguments=arguments: jax.jit(_fresh(loss)).trace(*arguments)
        for name, (loss, arguments) in _losses().items()
    }
    samples = interleaved(cases, rounds=rounds, scale=1e3, clock=time.thread_time)
    return Table(f"tracing {WHAT} (CPU time of the thread)", "ms", samples, base=BASE)


def _compilations(rounds: int) -> Table:
    cases: dict[str, Callable[[], Any]] = {
        name: lambda loss=loss, arguments=arguments: jax.jit(_fresh(loss)).lower(*arguments).compile()
        for name, (loss, arguments) in _losses().items()
    }
    samples = interleaved(cases, rounds=rounds, scale=1e3, clock=time.process_time)
    return Table(
        f"tracing and compiling {WHAT} (CPU time of the process)",
        "ms",
        samples,
        base=BASE,
        goals={"jv.nn.dynamic_rnn": 1.1},
    )

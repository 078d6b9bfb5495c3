"""A deep transformer by `jv.scan_layers`, beside a Python loop over its layers and ``lax.scan`` by hand."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv
from benchmarks.measure import AGAIN, Claim, Table, fresh_processes, interleaved
from benchmarks.remat import SHAPES, WIDTH, layer

TITLE = "Scan over layers"

BATCH, LENGTH = 4, 32
DEPTHS = (12, 24, 48, 96)
LOOP = "Python loop over jv.variable_scope"
OURS = "jv.scan_layers"
STACKED = "jv.scan_layers, stored stacked"
BY_HAND = "lax.scan by hand, parameters stacked"
STACKING = "lax.scan by hand, parameters by layer, jnp.stack"
UNROLLED = "Python loop by hand, parameters as arguments"


def tables(quick: bool) -> list[Table]:
    """First steps in fresh processes, traces by depth, the gradient of rematerialized layers."""
    by_depth = [_traces(depth, 3 if quick else 11) for depth in DEPTHS]
    return [_first_steps(24 if quick else 96, 1 if quick else 3), *by_depth, _rematerialized(3 if quick else 15)]


def body(x: Any) -> Any:
    return layer({name: jv.get_variable(name, shape) for name, shape in SHAPES.items()}, x)


def _step(remat: bool) -> Callable[..., Any]:
    # A fresh function each time: JAX keeps the traces of functions it has seen.
    return jax.checkpoint(_fresh(layer), prevent_cse=False) if remat else layer


def by_hand(remat: bool, state: Any, x: Any) -> Any:
    step = _step(remat)
    return jax.lax.scan(lambda x, own: (step(own, x), None), x, state)[0].sum()


def stacking(remat: bool, state: Any, x: Any) -> Any:
    return by_hand(remat, jax.tree.map(lambda *layers: jnp.stack(layers), *state), x)


def unrolled(remat: bool, state: Any, x: Any) -> Any:
    step = _step(remat)
    for own in state:
        x = step(own, x)
    return x.sum()


LOSSES = {BY_HAND: by_hand, STACKING: stacking, UNROLLED: unrolled}


class Case:
    """A way to run the layers.

    Attributes:
      state: its variables, or arrays.
      loss: ``(state, x) -> loss``.
      gradients: ``(state, x) -> gradients``, in the form of `state`.
    """

    def __init__(self, name: str, depth: int, remat: bool = False) -> None:
        random = np.random.RandomState(0)
        draw = {k: random.standard_normal((depth, *shape)).astype(np.float32) * 0.05 for k, shape in SHAPES.items()}
        self.state: Any
        self.loss: Callable[..., Any]
        if name in (BY_HAND, STACKING, UNROLLED):
            stacked = {key: jnp.asarray(value) for key, value in draw.items()}
            by_layer = [{key: value[i] for key, value in stacked.items()} for i in range(depth)]
            self.state = stacked if name == BY_HAND else by_layer
            self.loss = functools.partial(LOSSES[name], remat)
            self.gradients: Callable[..., Any] = lambda state, x: jax.grad(self.loss)(state, x)
            return
        if name == STACKED:
            arrays = {f"layers/{key}": value for key, value in draw.items()}
        else:
            arrays = {f"layer_{i}/{key}": value[i] for key, value in draw.items() for i in range(depth)}
        self.state = jv.Variables(arrays)
        if name == LOOP:
            layers = jax.checkpoint(body) if remat else body

            def net(x: Any) -> Any:
                for number in range(depth):
                    with jv.variable_scope(f"layer_{number}"):
                        x = layers(x)
                return x
        else:
            stacked = "layers" if name == STACKED else None
            net = jv.scan_layers("layer_{}", depth, stacked=stacked, remat=remat)(body)
        model = jv.transform(net)
        self.loss = lambda state, x: model(state, x).sum()
        self.gradients = lambda state, x: jv.grad(self.loss)(state, x)

    def step(self, state: Any, x: Any) -> Any:
        """One step of gradient descent."""
        return jax.tree.map(lambda value, slope: value - 1e-3 * slope, state, self.gradients(state, x))


X = np.random.RandomState(1).standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)


def first_step(name: str, depth: int) -> None:
    """Print how long the first step of a process takes: to trace, to compile, to run."""
    case = Case(name, depth)
    x = jnp.asarray(X)
    jax.block_until_ready((case.state, jax.jit(lambda x: x + 1)(x)))
    start, used = time.perf_counter(), time.process_time()
    traced = jax.jit(case.step, donate_argnums=0).trace(case.state, x)
    tracing = time.perf_counter() - start
    compiled = traced.lower().compile()
    compiling = time.perf_counter() - start - tracing
    jax.block_until_ready(compiled(case.state, x))
    took = {"first": time.perf_counter() - start, "processor": time.process_time() - used}
    print(json.dumps(took | {"trace": tracing, "compile": compiling}))


def _first_steps(depth: int, rounds: int) -> Table:
    cases = [BY_HAND, BY_HAND + AGAIN, OURS, STACKED, LOOP]
    programs = {case: ["-m", "benchmarks.layer_scan", case.removesuffix(AGAIN), str(depth)] for case in cases}
    found = fresh_processes(programs, rounds=rounds)
    return Table(
        f"first step of training a transformer of {depth} layers in a fresh process: trace, compile, run",
        "s",
        {case: [run["first"] for run in runs] for case, runs in found.items()},
        base=BY_HAND,
        claims=[Claim(OURS, LOOP, faster=10), Claim(STACKED, LOOP, faster=10)],
        note=f"{len(SHAPES)} variables a layer, width {WIDTH}, batch [{BATCH}, {LENGTH}]. Of which tracing: "
        + ", ".join(f"{case} {np.median([run['trace'] for run in runs]):.2f} s" for case, runs in found.items())
        + ".",
    )


def _fresh(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: function(*arguments)


def _traced(case: Case) -> Callable[[], Any]:
    x = jax.ShapeDtypeStruct(X.shape, X.dtype)
    return lambda: jax.jit(_fresh(case.gradients)).trace(case.state, x)


def _traces(depth: int, rounds: int) -> Table:
    cases = {name: _traced(Case(name, depth)) for name in (BY_HAND, STACKING, OURS, STACKED, LOOP)}
    return Table(
        f"tracing the gradient of {depth} layers (CPU time of the thread)",
        "ms",
        interleaved(cases, rounds=rounds, scale=1e3, clock=time.thread_time),
        base=BY_HAND,
        size=depth,
    )


def _rematerialized(rounds: int) -> Table:
    names = (BY_HAND, STACKING, OURS, STACKED, UNROLLED, LOOP)
    cases = {name: _traced(Case(name, 48, remat=True)) for name in names}
    cases = {BY_HAND: cases[BY_HAND], BY_HAND + AGAIN: cases[BY_HAND]} | cases
    return Table(
        "tracing the gradient of 48 rematerialized layers (CPU time of the thread)",
        "ms",
        interleaved(cases, rounds=rounds, scale=1e3, clock=time.thread_time),
        base=BY_HAND,
        claims=[
            Claim(STACKED, BY_HAND, at_most=1.5),
            Claim(OURS, STACKING, at_most=1.5),
            Claim(OURS, UNROLLED, at_most=1.5),
        ],
    )


if __name__ == "__main__":
    first_step(sys.argv[1], int(sys.argv[2]))

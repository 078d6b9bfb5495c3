"""A deep transformer by `jv.scan_layers`, beside a Python loop over its layers and ``lax.scan`` by hand."""

from __future__ import annotations

import functools
import json
import math
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
from examples import bert

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


X = np.random.RandomState(1).standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)


# The first step: layers of BERT, in training, so with dropout

CONFIG = bert.BertConfig(hidden_size=WIDTH, num_attention_heads=4, intermediate_size=4 * WIDTH)
BIAS = jnp.zeros((BATCH, 1, 1, LENGTH), jnp.float32)


def _bert(name: str, depth: int) -> tuple[Any, Callable[..., Any]]:
    """The variables, and ``(variables, x, key) -> loss``."""

    def layers(x: Any) -> Any:
        if name != LOOP:
            stacked = None if name == OURS else "layers"
            return jv.scan_layers("layer_{}", depth, stacked=stacked)(bert.encoder_layer)(x, BIAS, CONFIG, True)
        for number in range(depth):
            with jv.variable_scope(f"layer_{number}"):
                x = bert.encoder_layer(x, BIAS, CONFIG, True)
        return x

    model = jv.transform(layers)
    random = np.random.RandomState(0)
    specs = model.specs(jax.ShapeDtypeStruct(X.shape, X.dtype))
    state = jv.Variables({k: random.standard_normal(v.shape).astype(np.float32) * 0.02 for k, v in specs.items()})
    if name == BY_HAND:
        return dict(state.scope("layers")), _bert_by_hand
    return state, lambda state, x, key: model.apply(state, x, rng=key)[0].sum()


def _bert_by_hand(state: Any, x: Any, key: Any) -> Any:
    def one(x: Any, each: Any) -> tuple[Any, None]:
        own, keys = each

        def dense(scope: str, x: Any) -> Any:
            return x @ own[f"layers/{scope}/kernel"] + own[f"layers/{scope}/bias"].reshape(1, 1, -1)

        def dropped(number: int, x: Any) -> Any:
            return jnp.where(jax.random.bernoulli(keys[number], 0.9, x.shape), x / 0.9, 0.0)

        def normal(scope: str, x: Any) -> Any:
            centred = x - x.mean(-1, keepdims=True)
            scale = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-12)
            gamma, beta = (own[f"layers/{scope}/LayerNorm/{k}"].reshape(1, 1, -1) for k in ("gamma", "beta"))
            return centred * scale * gamma + beta

        names = [f"attention/self/{part}" for part in ("query", "key", "value")]
        query, key_, value = (dense(name, x).reshape(BATCH, LENGTH, 4, -1) for name in names)
        scores = jnp.einsum("bfnh,btnh->bnft", query, key_) / math.sqrt(query.shape[-1])
        weights = dropped(0, jax.nn.softmax(scores + BIAS))
        attended = jnp.einsum("bnft,btnh->bfnh", weights, value).reshape(x.shape)
        x = normal("attention/output", x + dropped(1, dense("attention/output/dense", attended)))
        wide = bert.gelu(dense("intermediate/dense", x))
        return normal("output", x + dropped(2, dense("output/dense", wide))), None

    keys = jax.random.split(key, (len(state["layers/output/dense/bias"]), 3))
    return jax.lax.scan(one, x, (state, keys))[0].sum()


def first_step(name: str, depth: int) -> None:
    """Print how long the first step of a process takes: to trace, to compile, to run."""
    state, loss = _bert(name, depth)

    def step(state: Any, x: Any, key: Any) -> Any:
        slopes = jax.grad(loss)(state, x, key)
        return jax.tree.map(lambda value, slope: value - 1e-3 * slope, state, slopes)

    arguments = jax.block_until_ready((state, jnp.asarray(X), jax.random.key(0)))
    start, used = time.perf_counter(), time.process_time()
    traced = jax.jit(step, donate_argnums=0).trace(*arguments)
    tracing = time.process_time() - used
    jax.block_until_ready(traced.lower().compile()(*arguments))
    took = {"wall": time.perf_counter() - start, "processor": time.process_time() - used, "tracing": tracing}
    print(json.dumps(took))


def _first_steps(depth: int, rounds: int) -> Table:
    cases = [BY_HAND, BY_HAND + AGAIN, STACKED, OURS, LOOP]
    programs = {case: ["-m", "benchmarks.layer_scan", case.removesuffix(AGAIN), str(depth)] for case in cases}
    found = fresh_processes(programs, rounds=rounds)
    tracing = {case: np.median([run["tracing"] for run in runs]) for case, runs in found.items()}
    return Table(
        f"first step of training {depth} layers of BERT in a fresh process: trace, compile, run (its CPU time)",
        "s",
        {case: [run["processor"] for run in runs] for case, runs in found.items()},
        base=BY_HAND,
        claims=[Claim(STACKED, LOOP, faster=10)] if depth == DEPTHS[-1] else [],
        note=f"16 variables a layer, width {WIDTH}, batch [{BATCH}, {LENGTH}], dropout, gradient descent. Of which "
        f"tracing: {', '.join(f'{case} {value:.2f} s' for case, value in tracing.items())}. XLA compiles a kernel for "
        "each slice of a gradient that goes to a variable of its own, which layers stored stacked do not need.",
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

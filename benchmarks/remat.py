"""Tracing the gradient of a deep transformer whose layers are rematerialized, one module-level function for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxvars as jv
from benchmarks.measure import AGAIN, Claim, Table, interleaved
from benchmarks.peers import haiku

TITLE = "Rematerialized layers: tracing the gradient (CPU time of the thread)"

LAYERS = 48
WIDTH = 64
SHAPES = {
    "scale": (1, 1, WIDTH),
    "query_key_value": (WIDTH, 3 * WIDTH),
    "output": (WIDTH, WIDTH),
    "middle": (WIDTH, 4 * WIDTH),
    "middle_bias": (1, 1, 4 * WIDTH),
    "back": (4 * WIDTH, WIDTH),
    "back_bias": (1, 1, WIDTH),
}
X = jax.ShapeDtypeStruct((2, 16, WIDTH), "float32")


def tables(quick: bool) -> list[Table]:
    """One table."""
    return [_gradients(3 if quick else 11)]


def layer(parameters: Any, x: Any) -> Any:
    """Attention and a perceptron, as arrays in and out."""
    centred = x - x.mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6) * parameters["scale"]
    query, key, value = jnp.split(normal @ parameters["query_key_value"], 3, -1)
    weights = jax.nn.softmax(query @ jnp.swapaxes(key, -1, -2) / WIDTH**0.5)
    x = x + weights @ value @ parameters["output"]
    middle = jax.nn.gelu(x @ parameters["middle"] + parameters["middle_bias"])
    return x + middle @ parameters["back"] + parameters["back_bias"]


raw_block = jax.checkpoint(layer)


def with_arguments(parameters: Any, x: Any) -> Any:
    for own in parameters:
        x = raw_block(own, x)
    return x.sum()


@jax.checkpoint
def block(x: Any) -> Any:
    return layer({name: jv.get_variable(name, shape) for name, shape in SHAPES.items()}, x)


def with_jaxvars(x: Any) -> Any:
    for number in range(LAYERS):
        with jv.variable_scope(f"b{number}"):
            x = block(x)
    return x.sum()


def haiku_layer(x: Any) -> Any:
    import haiku as hk

    return layer({name: hk.get_parameter(name, shape, init=jnp.zeros) for name, shape in SHAPES.items()}, x)


def with_haiku(x: Any) -> Any:
    import haiku as hk

    for number in range(LAYERS):
        with hk.name_scope(f"b{number}"):
            x = hk.remat(haiku_layer)(x)
    return x.sum()


def _gradients(rounds: int) -> Table:
    model = jv.transform(with_jaxvars)
    arguments = [{name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in SHAPES.items()}] * LAYERS
    specs = jax.tree.map(lambda hole: jax.ShapeDtypeStruct(hole.shape, hole.dtype), model.specs(X))

    def traced(function: Callable[..., Any], parameters: Any) -> Callable[[], Any]:
        # A fresh function each time: JAX keeps the traces of functions it has seen.
        return lambda: jax.make_jaxpr(jax.grad(lambda *call: function(*call)))(parameters, X)

    ours = "jax.checkpoint over jv.get_variable"
    cases = {
        ours: traced(model, specs),
        ours + AGAIN: traced(model, specs),
        "jax.checkpoint, parameters as arguments": traced(with_arguments, arguments),
    }
    claims: list[Claim] = []
    if haiku():
        import haiku as hk

        haiku_model = hk.without_apply_rng(hk.transform(with_haiku))
        cases["hk.remat"] = traced(haiku_model.apply, jax.eval_shape(haiku_model.init, jax.random.key(0), X))
        claims = [Claim(ours, "hk.remat", at_most=1.0)]
    return Table(
        f"jax.make_jaxpr of the gradient of {LAYERS} layers",
        "ms",
        interleaved(cases, rounds=rounds, scale=1e3, clock=time.thread_time),
        base=ours,
        claims=claims,
        note="With its parameters as arguments JAX traces the layer once for all. The body that reads variables is "
        "traced for each layer, as in Haiku; `jv.scan_layers` traces it once.",
    )

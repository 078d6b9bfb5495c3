"""One JAX call that runs its body several times is one visit; two calls, and two branches, are two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxvars as jv

X = jnp.ones(3)


def layer(y: Any) -> Any:
    with jv.variable_scope(None, default_name="layer"):
        return y * jv.get_variable("w", [], initializer=jv.ones_initializer())


def widening(body: Callable[[Any], Any], x: Any) -> Any:
    """The carry begins as an int and becomes a float: JAX traces the body twice."""
    return jax.lax.scan(lambda c, _: (c + jnp.sum(body(x)), None), 0, length=3)[0]


def _disabled(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        with jax.disable_jit():
            return f(x)

    return run


ONE = {
    "straight": lambda x: widening(layer, x),
    "in a branch": lambda x: widening(lambda y: jax.lax.cond(True, layer, lambda z: z, y), x),
    "in a jit": lambda x: widening(jax.jit(layer), x),
    "in a checkpoint": lambda x: widening(jax.checkpoint(layer), x),
    "in a widening scan": lambda x: widening(lambda y: widening(layer, y), x),
    "maps of maps": lambda x: jax.lax.map(
        lambda row: jax.lax.map(layer, row, batch_size=2), jnp.ones((5, 3)), batch_size=2
    ),
    "associative scan": lambda x: jax.lax.associative_scan(lambda a, b: layer(a + b), jnp.ones(9)),
    "associative scan in a jit": jax.jit(lambda x: jax.lax.associative_scan(lambda a, b: layer(a + b), jnp.ones(9))),
    "loops without jit": _disabled(lambda x: jax.lax.fori_loop(0, 3, lambda i, c: layer(c), x)),
    "widening without jit": _disabled(lambda x: widening(jax.jit(layer), x)),
}
SEVERAL = {
    "two calls in a body": (lambda x: widening(lambda y: jax.jit(layer)(jax.jit(layer)(y)), x), 2),
    "a Python loop of calls": (lambda x: [x := jax.jit(layer)(x) for _ in range(3)][-1], 3),
    "branches of one function": (lambda x: jax.lax.cond(True, layer, layer, x), 2),
    "branches of one text": (lambda x: jax.lax.switch(1, [lambda y, i=i: layer(y) * i for i in range(3)], x), 3),
    "one jit twice": (lambda x: (lambda g: g(g(x)))(jax.jit(layer)), 2),
    "a tree map": (lambda x: jax.jit(lambda t: sum(jax.tree.leaves(jax.tree.map(layer, t))))((x, x)), 2),
}


@pytest.mark.parametrize("case", ONE)
def test_one_visit(case: str) -> None:
    model = jv.transform(ONE[case])
    variables = model.init(0, X)
    assert list(variables) == ["layer/w"]
    eager, jitted = model(variables, X), jax.jit(model.__call__)(variables, X)
    assert jnp.allclose(eager, jitted)


@pytest.mark.parametrize("case", SEVERAL)
def test_several_visits(case: str) -> None:
    fn, count = SEVERAL[case]
    model = jv.transform(fn)
    variables = model.init(0, X)
    assert list(variables) == ["layer/w", *(f"layer_{i}/w" for i in range(1, count))]
    assert jnp.allclose(model(variables, X), jax.jit(model.__call__)(variables, X))


def test_collections_and_counters_start_over() -> None:
    seen: list[Any] = []

    def body(y: Any) -> Any:
        jv.get_collection_ref("names").append(jv.get_variable_scope().name)
        return layer(y)

    def fn(x: Any) -> Any:
        out = widening(body, x)
        seen.append((jv.get_collection("names"), [v.key for v in jv.trainable_variables()]))
        return out

    model = jv.transform(fn)
    model.apply(model.init(0, X), X)
    assert seen == [([""], ["layer/w"])] * len(seen)

"""What naming costs while JAX traces a model, and while a model's variables are made."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxvars as jv
from benchmarks import states
from benchmarks.measure import AGAIN, Table, interleaved
from benchmarks.peers import equinox, haiku, linen

TITLE = "Tracing: reads and creation (CPU time of the thread)"

COUNT = 1000
SCOPES = [(f"s{i}", f"t{j}") for i in range(10) for j in range(10)]
X = jnp.float32(0)
SHAPE = jax.ShapeDtypeStruct((), "float32")


def tables(quick: bool) -> list[Table]:
    """Reads under a trace, the same without one, creation."""
    rounds = 11 if quick else 61
    return [_reads(rounds), _machinery(rounds), _creation(rounds)]


# The model, in each dialect: the sum of 1,000 scalars, ten to a scope, in two nested scopes.


def with_jaxvars(x: Any) -> Any:
    for outer, inner in SCOPES:
        with jv.variable_scope(outer), jv.variable_scope(inner):
            for k in range(10):
                x = x + jv.get_variable(f"v{k}", [])
    return x


def with_jaxvars_values(x: Any) -> Any:
    for outer, inner in SCOPES:
        with jv.variable_scope(outer), jv.variable_scope(inner):
            for k in range(10):
                x = x + jv.get_variable(f"v{k}", []).value
    return x


def with_dict(variables: Any, x: Any) -> Any:
    for outer, inner in SCOPES:
        for k in range(10):
            x = x + variables[f"{outer}/{inner}/v{k}"]
    return x


def with_haiku(x: Any) -> Any:
    import haiku as hk

    for outer, inner in SCOPES:
        with hk.name_scope(outer), hk.name_scope(inner):
            for k in range(10):
                x = x + hk.get_parameter(f"v{k}", [], init=jnp.zeros)
    return x


def _reads(rounds: int) -> Table:
    variables = states.variables(COUNT)
    flat = dict(zip(variables, variables._leaves, strict=True))
    model, values = jv.transform(with_jaxvars), jv.transform(with_jaxvars_values)

    def traced(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        # A fresh function each time: JAX keeps the traces of functions it has seen.
        return lambda: jax.make_jaxpr(lambda *call: function(*call))(*args)

    cases = {
        "flat dict": traced(with_dict, flat, X),
        "flat dict" + AGAIN: traced(with_dict, flat, X),
        "jv.get_variable": traced(lambda v, x: model.apply(v, x)[0], variables, X),
        "jv.get_variable(...).value": traced(lambda v, x: values.apply(v, x)[0], variables, X),
    }
    if haiku():
        import haiku as hk

        haiku_model = hk.without_apply_rng(hk.transform(with_haiku))
        cases["Haiku get_parameter"] = traced(haiku_model.apply, haiku_model.init(None, X), X)
    if linen():
        linen_model = _linen_model()
        params = jax.jit(linen_model.init)(jax.random.key(0), X)
        cases["Flax Linen param"] = traced(linen_model.apply, params, X)
        cases["Flax NNX merge and read"] = traced(*_with_nnx(), X)
    if equinox():
        cases["Equinox attributes"] = traced(with_modules, _equinox_module(), X)
    return Table(
        "jax.make_jaxpr of 1,000 reads and additions, two nested scopes, per variable",
        "us",
        interleaved(cases, rounds=rounds, per=COUNT, clock=time.thread_time),
        base="flat dict",
        goals={"jv.get_variable": 1.10},
        note="JAX's own share, tracing the addition, is in every row. The goal is for the handle as users write it, "
        "`x + jv.get_variable(...)`.",
    )


def with_modules(module: Any, x: Any) -> Any:
    """The model over modules that hold modules that hold arrays."""
    for outer, inner in SCOPES:
        own = getattr(getattr(module, outer), inner)
        for k in range(10):
            x = x + getattr(own, f"v{k}")
    return x


def _equinox_module() -> Any:
    import equinox

    leaf: Any = dataclasses.make_dataclass("Leaf", [f"v{k}" for k in range(10)], bases=(equinox.Module,))
    inner: Any = dataclasses.make_dataclass("Inner", [f"t{j}" for j in range(10)], bases=(equinox.Module,))
    outer: Any = dataclasses.make_dataclass("Outer", [f"s{i}" for i in range(10)], bases=(equinox.Module,))
    values = iter(states.values(COUNT))
    return outer(*(inner(*(leaf(*(next(values) for _ in range(10))) for _ in range(10))) for _ in range(10)))


def _with_nnx() -> tuple[Callable[..., Any], Any]:
    """A function of an `nnx.State`, and the state."""
    from flax import nnx

    class Node(nnx.Module):
        def __init__(self, children: dict[str, Any]) -> None:
            for name, child in children.items():
                setattr(self, name, child)

    values = iter(states.values(COUNT))

    def inner() -> Any:
        return Node({f"v{k}": nnx.Param(next(values)) for k in range(10)})

    module = Node({f"s{i}": Node({f"t{j}": inner() for j in range(10)}) for i in range(10)})
    graph, state = nnx.split(module)
    return lambda state, x: with_modules(nnx.merge(graph, state), x), state


def _linen_model() -> Any:
    import flax.linen as nn

    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for k in range(10):
                x = x + self.param(f"v{k}", nn.initializers.zeros, ())
            return x

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for j in range(10):
                x = Inner(name=f"t{j}")(x)
            return x

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for i in range(10):
                x = Outer(name=f"s{i}")(x)
            return x

    return Model()


def _machinery(rounds: int) -> Table:
    """No arithmetic: what the names alone cost."""
    variables = states.variables(COUNT)
    flat = dict(zip(variables, variables._leaves, strict=True))

    def read() -> None:
        for outer, inner in SCOPES:
            with jv.variable_scope(outer), jv.variable_scope(inner):
                for k in range(10):
                    jv.get_variable(f"v{k}", [])

    def scopes() -> None:
        for outer, inner in SCOPES:
            with jv.variable_scope(outer), jv.variable_scope(inner):
                pass

    def lookup() -> None:
        for outer, inner in SCOPES:
            for k in range(10):
                _ = flat[f"{outer}/{inner}/v{k}"]

    read_model, scope_model = jv.transform(read), jv.transform(scopes)
    return Table(
        "names only, eager, nothing computed, per variable",
        "us",
        interleaved(
            {
                "f-string and dict lookup": lookup,
                "jv.variable_scope, twice for ten variables": lambda: scope_model.apply(variables),
                "both scopes and jv.get_variable": lambda: read_model.apply(variables),
            },
            rounds=rounds,
            calls=3,
            per=COUNT,
            clock=time.thread_time,
        ),
    )


def _creation(rounds: int) -> Table:
    model = jv.transform(_make)

    cases: dict[str, Callable[[], Any]] = {
        "jv specs": lambda: model.specs(SHAPE),
        "jv specs" + AGAIN: lambda: model.specs(SHAPE),
    }
    if haiku():
        import haiku as hk

        haiku_model = hk.transform(_make_with_haiku)
        cases["Haiku init under eval_shape"] = lambda: jax.eval_shape(
            lambda key, x: haiku_model.init(key, x), jax.random.key(0), SHAPE
        )
    if linen():
        linen_model = _linen_model()
        cases["Flax Linen init under eval_shape"] = lambda: jax.eval_shape(
            lambda key, x: linen_model.init(key, x), jax.random.key(0), SHAPE
        )
    return Table(
        "creation of 1,000 variables, abstractly, per variable",
        "us",
        interleaved(cases, rounds=max(5, rounds // 4), per=COUNT, clock=time.thread_time),
        base="jv specs",
        limits={"jv specs": 10.0},
        note="The Linen model also computes a sum, as its modules cannot make a parameter otherwise.",
    )


def _make(x: Any) -> Any:
    for outer, inner in SCOPES:
        with jv.variable_scope(outer), jv.variable_scope(inner):
            for k in range(10):
                jv.get_variable(f"v{k}", [], initializer=jv.zeros_initializer())
    return x


def _make_with_haiku(x: Any) -> Any:
    import haiku as hk

    for outer, inner in SCOPES:
        with hk.name_scope(outer), hk.name_scope(inner):
            for k in range(10):
                hk.get_parameter(f"v{k}", [], init=jnp.zeros)
    return x

"""What lies on every step's or every trace's way: how many functions of ours run, and what JAX traces again."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from counting import python_calls

import jaxvars as jv

X = jax.ShapeDtypeStruct((), "float32")


def _calls(run: Callable[[], Any]) -> int:
    """How many Python functions of jaxvars `run` calls, once everything is warm."""
    package = os.path.dirname(jv.__file__) + os.sep
    run()
    return python_calls(run, within=package)


def _per_variable(run: Callable[[int], Callable[[], Any]]) -> float:
    """How many calls each further variable costs."""
    return (_calls(run(200)) - _calls(run(100))) / 100


def _model(count: int, use: Callable[[Any, Any], Any], **options: Any) -> jv.Model:
    def model_fn(x: Any) -> Any:
        with jv.variable_scope("scope", **options):
            for number in range(count):
                x = use(x, jv.get_variable(f"v{number}", [3], initializer=jv.zeros_initializer()))
        return x

    return jv.transform(model_fn)


def _nothing(x: Any, _: Any) -> Any:
    return x


REGULARIZED = {"regularizer": jv.regularizers.l2_regularizer(0.1), "initializer": jv.ones_initializer()}


@pytest.mark.parametrize("options", [{}, REGULARIZED], ids=["plain", "defaults of the scope"])
def test_reads(options: dict[str, Any]) -> None:
    variables = _model(200, _nothing).init(0, X)

    def run(count: int) -> Callable[[], Any]:
        model = _model(count, _nothing, **options)
        return lambda: model.apply(variables, jnp.float32(0))

    assert _per_variable(run) <= (23 if options else 21)  # a loss is kept, which is made and added


def test_reads_of_the_same_variable() -> None:
    variables = jv.Variables({"scope/v": jnp.zeros(3, "float32")})

    def run(count: int) -> Callable[[], Any]:
        def model_fn() -> None:
            with jv.variable_scope("scope", reuse=True):
                for _ in range(count):
                    jv.get_variable("v", [3])

        return lambda: jv.transform(model_fn).apply(variables)

    assert _per_variable(run) <= 8


def test_values_in_arithmetic() -> None:
    variables = _model(200, _nothing).init(0, X)

    def run(use: Callable[[Any, Any], Any]) -> Callable[[int], Callable[[], Any]]:
        def of(count: int) -> Callable[[], Any]:
            model = _model(count, use)
            return lambda: jax.make_jaxpr(lambda v, x: model.apply(v, x)[0])(variables, jnp.float32(0))

        return of

    with jax.numpy_rank_promotion("allow"):
        added = _per_variable(run(lambda x, handle: x + handle)) - _per_variable(run(_nothing))
    assert added <= 4


def test_creation_in_a_specs_pass() -> None:
    def run(count: int) -> Callable[[], Any]:
        model = _model(count, _nothing)
        return lambda: model.specs(X)

    assert _per_variable(run) <= 42


@pytest.mark.parametrize("delta", [jnp.float32(1), 1.0], ids=["a device scalar", "a Python number"])
def test_assign_add(delta: Any) -> None:
    variables = jv.Variables({f"v{number}": jnp.float32(number) for number in range(1000)})
    delta = delta + 0
    for _ in range(3):
        variables = jv.assign_add(variables, "v7", delta)
    assert _calls(lambda: jv.assign_add(variables, "v7", delta)) <= 5


# What JAX traces again


def test_library_functions_inside_of_module_level_layers_are_traced_once() -> None:
    bodies, helpers = [], []

    @jax.jit
    def helper(x: Any) -> Any:
        helpers.append(1)
        return jnp.tanh(x)

    @jax.checkpoint
    def block(x: Any) -> Any:
        bodies.append(1)
        return helper(x @ jv.get_variable("w", [2, 2]))

    def net(x: Any) -> Any:
        for number in range(6):
            with jv.variable_scope(f"b{number}"):
                x = block(x)
        return x.sum()

    model = jv.transform(net)
    variables = model.init(0, jnp.ones([1, 2]))
    bodies.clear()
    helpers.clear()
    for _ in range(2):
        jax.grad(lambda v: model(v, jnp.ones([1, 2])))(variables)
    assert len(variables) == 6
    assert len(bodies) == 12
    assert len(helpers) <= 1


@jax.jit
def _nested(x: Any) -> Any:
    return x * jv.get_variable("scale", [], initializer=jv.ones_initializer())


@jax.jit
def _layer(x: Any) -> Any:
    x = _nested(x) + jv.get_variable("bias", [], initializer=jv.zeros_initializer())
    with jv.variable_scope("more"):
        x = _nested(_nothing(x, None))
    return jax.lax.cond(x > 0, _nested_branch, _other_branch, x)


def _nested_branch(x: Any) -> Any:
    with jv.variable_scope("positive"):
        return _nested(x)


def _other_branch(x: Any) -> Any:
    with jv.variable_scope("negative"):
        return _nested(x)


def test_module_level_functions_that_touch_variables_are_traced_at_each_call() -> None:
    def net(x: Any) -> Any:
        for number in range(3):
            with jv.variable_scope(f"layer{number}"):
                x = _layer(x)
        return x

    model = jv.transform(net)
    variables = model.init(0, 1.0)
    one = ["bias", "more/scale", "negative/scale", "positive/scale", "scale"]
    assert list(variables) == [f"layer{number}/{name}" for number in range(3) for name in one]
    for number in range(3):
        for name in ("scale", "more/scale", "positive/scale"):
            variables = jv.assign(variables, f"layer{number}/{name}", float(number + 2))
    for _ in range(2):
        out, _ = jax.jit(lambda v: model.apply(v, 1.0))(variables)
        assert float(out) == (2.0 * 3.0 * 4.0) ** 3
        assert float(model(variables, 1.0)) == (2.0 * 3.0 * 4.0) ** 3


def test_a_write_between_two_calls_of_one_function_is_seen() -> None:
    @jax.jit
    def scaled(x: Any) -> Any:
        return x * jv.get_variable("scale", [], initializer=jv.ones_initializer())

    def net(x: Any) -> list[Any]:
        outs = []
        with jv.variable_scope("", reuse=jv.AUTO_REUSE):
            for number in range(4):
                outs.append(scaled(x))
                jv.get_variable("scale", []).assign(number + 2.0)
        return outs

    model = jv.transform(net)
    variables = model.init(0, 1.0)
    for apply in (model.apply, jax.jit(model.apply)):
        for _ in range(2):
            outs, _ = apply(variables, 1.0)
            assert [float(out) for out in outs] == [1.0, 2.0, 3.0, 4.0]

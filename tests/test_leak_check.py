"""Models pass JAX's leak check, wherever plain JAX does, and nothing is kept by a run that was given up."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv

X = np.array([1.0, 2.0, 3.0], np.float32)


@pytest.fixture
def checked() -> Iterator[None]:
    with jax.checking_leaks():
        yield


def _scan(f: Callable[[Any], Any], x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (f(c), None), x, length=3)[0]


def _count() -> Any:
    return jv.get_variable("count", [], initializer=jv.zeros_initializer(), trainable=False)


def _branch_in_loop(x: Any) -> Any:
    def step(y: Any) -> Any:
        w = jv.get_variable("w", [], initializer=jv.ones_initializer())
        return jax.lax.cond(y.sum() > 0, lambda z: z * w, lambda z: z, y)

    return _scan(step, x)


def _write_after_read(x: Any) -> Any:
    count = _count()
    return _scan(lambda y: y * count.assign(0.5 * count + 1), x)


def _keys(x: Any) -> Any:
    return _scan(lambda y: y + jax.random.uniform(jv.next_rng_key(), dtype="float32"), x)


def _body_traced_twice(x: Any) -> Any:
    def step(c: Any, y: Any) -> Any:
        return c + jv.get_variable("w", [], initializer=jv.ones_initializer()) * y, c

    return jax.lax.scan(step, 0, x)[0] + _count()


def _jit_of_remat(x: Any) -> Any:
    @jax.jit
    def block(y: Any) -> Any:
        with jv.variable_scope("block"):
            inner = jax.checkpoint(lambda z: jnp.sin(z * jv.get_variable("w", [], initializer=jv.ones_initializer())))
            return inner(y) + jv.get_variable("b", [], initializer=jv.zeros_initializer())

    return block(x)


MODELS = [_branch_in_loop, _write_after_read, _keys, _body_traced_twice, _jit_of_remat]


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize("fn", MODELS, ids=lambda fn: fn.__name__.strip("_"))
def test_models_pass(fn: Any) -> None:
    model = jv.transform(fn)
    variables = model.init(0, X)
    eager, _ = jv.transform(fn).apply(variables, X, rng=0)  # a model that knows nothing yet
    jitted, _ = jax.jit(lambda v, x: model.apply(v, x, rng=0))(variables, X)
    np.testing.assert_allclose(eager, jitted, rtol=1e-6)
    if variables.trainable:
        gradients = jv.grad(lambda v: jnp.sum(model.apply(v, X, rng=0)[0]))(variables)
        assert all(np.isfinite(value).all() for value in gradients.values())


@pytest.mark.usefixtures("checked")
def test_visits_are_told_apart_under_the_check_too() -> None:
    def step(y: Any) -> Any:
        return y * jv.get_variable("w", [], initializer=jv.ones_initializer())

    def nested(x: Any) -> Any:
        def body(y: Any) -> Any:
            return jax.jit(lambda z: step(z))(step(y))

        return _scan(body, x)

    for fn in (lambda x: _scan(step, _scan(step, x)), nested):
        with pytest.raises(ValueError, match="w already exists"):
            jv.transform(fn).specs(X)


_held: list[Any] = []


def _of_the_module(y: Any) -> Any:
    return y * _held[-1]


@pytest.mark.parametrize(
    "run", [jax.jit(_of_the_module), lambda x: jax.lax.cond(x[0] > 0, _of_the_module, lambda y: y, x)]
)
@pytest.mark.usefixtures("checked")
def test_plain_jax_keeps_what_a_function_of_a_module_closes_over(run: Any) -> None:
    """Why `leaks.py` leaves tests out: in jaxvars such a function needs no global to close over a tracer."""

    @jax.jit
    def outer(x: Any) -> Any:
        _held.append(x.sum())
        try:
            return run(x)
        finally:
            _held.clear()

    with pytest.raises(Exception, match="Leaked trace"):
        outer(X)


@pytest.mark.slow
@pytest.mark.usefixtures("checked")
def test_plain_jax_keeps_a_ref_that_a_differentiated_scan_writes() -> None:
    def loss(w: Any) -> Any:
        count = jax.new_ref(jnp.zeros(()), kind="no_grad_no_remat")

        def step(carry: Any, _: Any) -> Any:
            count[...] = count[...] + 1
            return carry * w, None

        return jnp.sum(jax.lax.scan(step, X, length=3)[0]), jax.freeze(count)

    with pytest.raises(Exception, match="Leaked trace"):
        jax.grad(loss, has_aux=True)(np.float32(1))


@pytest.mark.usefixtures("checked")
def test_a_handle_that_is_kept_keeps_no_initial_value() -> None:
    kept: list[Any] = []
    variables = jv.transform(lambda x: kept.append(jv.get_variable("v", initializer=x * 2))).init(0, X)
    np.testing.assert_array_equal(variables[kept[0]], 2 * X)


def _closes_over_an_array() -> weakref.ref[Any]:
    array = jnp.ones(8)

    def fn(x: Any) -> Any:
        def body(y: Any) -> Any:
            z = y * array
            return z * jv.get_variable("w", [], initializer=jv.ones_initializer())

        return jax.jit(body)(x * jv.get_variable("v", [], initializer=jv.ones_initializer()))

    model = jv.transform(fn)
    for _ in range(2):
        model.apply(jv.Variables({"v": np.float32(1), "w": np.float32(1)}), jnp.ones(8))
    return weakref.ref(array)


def test_eager_models_keep_nothing_that_their_functions_close_over() -> None:
    """The first call is given up at the touch of ``w`` inside, the next ones are staged."""
    array = _closes_over_an_array()
    gc.collect()
    assert array() is None

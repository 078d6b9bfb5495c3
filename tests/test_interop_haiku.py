"""Haiku functions in a scope, jaxvars models as Haiku modules, and their dicts, with the real library."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxvars as jv

hk = pytest.importorskip("haiku")

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def _function(x: Any, training: bool) -> Any:
    x = hk.nets.MLP([4, 3])(x)
    x = hk.BatchNorm(True, True, 0.9)(x, is_training=training)
    return hk.dropout(hk.next_rng_key(), 0.5, x) if training else x


THEIRS = hk.transform_with_state(_function)


def _net(x: Any, training: bool) -> Any:
    with jv.variable_scope("model"):
        return jv.interop.haiku(THEIRS, "net")(x, training)


def _equal(first: Any, second: Any, rtol: float = 0.0) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), first, second)


def test_values_and_results_are_those_of_haiku() -> None:
    model = jv.transform(_net)
    variables = model.init(1, X, True)
    assert "model/net/mlp/~/linear_0/w" in variables.trainable
    assert variables.variable_specs["model/net/batch_norm/~/mean_ema/hidden"].collections == ("variables", "state")
    params, state = THEIRS.init(jv.interop.module_key(1, "model/net"), X, True)
    _equal(jv.interop.to_haiku(variables, "model/net"), (params, state), rtol=1e-5)
    # Haiku itself cannot initialize for training=False; what is there will do.
    theirs = THEIRS.apply(params, state, None, X, False)[0]
    np.testing.assert_allclose(model(variables, X, False), theirs, rtol=1e-4, atol=1e-5)
    _, after = jax.jit(lambda v: model.apply(v, X, True, rng=0))(variables)
    _, state = THEIRS.apply(params, state, jax.random.key(0), X, True)
    _equal(jv.interop.to_haiku(after, "model/net")[1], state, rtol=1e-5)


def test_a_function_without_state_in_transforms() -> None:
    mlp = hk.transform(lambda x: hk.nets.MLP([3, 3])(x))

    def net(x: Any) -> Any:
        layer = jv.interop.haiku(mlp)
        return jax.lax.scan(lambda carry, _: (jax.checkpoint(layer)(carry), None), x, None, length=2)[0]

    model = jv.transform(net)
    variables = model.init(0, X)
    assert next(iter(variables)) == "haiku/mlp/~/linear_0/b"
    params, state = jv.interop.to_haiku(variables, "haiku")
    assert state == {}
    twice = mlp.apply(params, None, mlp.apply(params, None, X))
    np.testing.assert_allclose(model(variables, X), twice, rtol=1e-5)
    with jv.VariableStore(0) as store:
        jv.interop.haiku(mlp)(X)
    _equal(dict(store.variables), dict(variables))


def test_what_haiku_did_not_transform_is_refused() -> None:
    with pytest.raises(jv.errors.InvalidTypeError, match=r"jv\.interop\.haiku\(hk\.transform_with_state\(fn\)\)"):
        jv.interop.haiku(_function)  # pyright: ignore[reportArgumentType]


# Dicts

_modules = st.sampled_from(["linear", "mlp/~/linear_0", "~", "state", "state/x", "a/b"])
_dicts = st.dictionaries(
    _modules,
    st.dictionaries(st.sampled_from(["w", "b", "~x"]), st.just(np.ones(2, np.float32)), min_size=1),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(_dicts, _dicts, st.sampled_from(["", "net"]))
def test_dicts_come_back_as_they_were(params: Any, state: Any, prefix: str) -> None:
    try:
        variables = jv.interop.from_haiku(params, state, prefix)
    except jv.errors.InvalidArgumentError as error:
        assert "several collections get one name" in str(error)
        return
    if variables:
        _equal(jv.interop.to_haiku(variables, prefix), (params, state))


def test_dicts_that_would_not_come_back_are_refused() -> None:
    with pytest.raises(jv.errors.InvalidTypeError, match="'w/x' of 'linear'"):
        jv.interop.from_haiku({"linear": {"w/x": X}})
    with pytest.raises(jv.errors.InvalidTypeError, match="takes dicts"):
        jv.interop.from_haiku({"w": X})


# A model as a module


def _model(x: Any, training: bool = False) -> Any:
    scale = jv.get_variable("scale", [], initializer=jv.ones_initializer())
    with jv.variable_scope("tower"):
        x = jv.layers.dense(x, 4, name="fc")
        with jv.variable_scope("deep"):
            x = jv.layers.batch_normalization(x, training=training, name="norm")
    if training:
        x = x + jax.random.normal(jv.next_rng_key(), x.shape, x.dtype)
    return jv.layers.dense(x, 2, name="head") * scale


@pytest.mark.slow
def test_a_model_trains_in_haiku() -> None:
    theirs = hk.transform_with_state(lambda x, training: jv.interop.as_haiku(_model, "net")(x, training))
    params, state = theirs.init(jax.random.key(0), X, False)
    assert sorted(params) == ["net", "net/head", "net/tower/deep/norm", "net/tower/fc"]
    assert sorted(state["net/tower/deep/norm"]) == ["moving_mean", "moving_variance"]
    back = jv.interop.from_haiku(params, state).rename({"net/": ""})
    model = jv.transform(_model)
    np.testing.assert_allclose(theirs.apply(params, state, None, X, False)[0], model(back, X), rtol=1e-6)

    @jax.jit
    def step(params: Any, state: Any, slots: Any) -> Any:
        def loss(params: Any) -> Any:
            out, after = theirs.apply(params, state, jax.random.key(1), X, True)
            return (out**2).mean(), after

        (value, after), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, slots = tx.update(grads, slots)
        return value, optax.apply_updates(params, updates), after, slots

    tx = optax.sgd(0.05)
    slots, values = tx.init(params), []
    for _ in range(4):
        value, params, state, slots = step(params, state, slots)
        values.append(float(value))
    assert values[-1] < values[0]
    restored = model.init(0, X).replace(jv.interop.from_haiku(params, state).rename({"net/": ""}))
    assert float(np.abs(restored["tower/deep/norm/moving_mean"]).sum()) > 0


def test_calls_of_one_module_share() -> None:
    def net(x: Any) -> Any:
        module = jv.interop.as_haiku(lambda x: jv.layers.dense(x, 3, name="fc"), "net")
        return module(module(x))

    params = hk.transform(net).init(jax.random.key(0), X)
    assert list(params) == ["net/fc"]


def test_a_step_that_donates_leaves_the_dicts_whole() -> None:
    take = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    params = {"linear": {"w": jax.numpy.ones(3)}}
    take(jv.interop.from_haiku(params))
    variables = jv.interop.from_haiku(params, copy=False)
    take(jv.interop.to_haiku(variables))
    assert not variables["linear/w"].is_deleted()
    take(variables)
    assert params["linear"]["w"].is_deleted()

"""`Model.to_pure`: a model as plain functions of nested dicts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from interop_models import tower

import jaxvars as jv

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


MODEL = jv.transform(tower)


@pytest.fixture(scope="module")
def variables() -> jv.Variables:
    return MODEL.init(0, X)


def test_the_tree_is_plain(variables: jv.Variables) -> None:
    init_fn, _, tree = MODEL.to_pure(variables)
    assert sorted(tree) == ["params", "state"]
    assert jax.tree.map(jnp.shape, tree["state"]) == {"tower": {"norm": {"moving_mean": (4,), "moving_variance": (4,)}}}
    made = init_fn(0, X)
    assert jax.tree.structure(made) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, made, tree)
    assert all(type(leaf).__module__.startswith("jax") for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_a_user_of_jax_alone_trains_it(variables: jv.Variables) -> None:
    _, apply_fn, tree = MODEL.to_pure(variables)
    tx = optax.adam(0.1)

    def plain_loss(params: Any, tree: Any, key: Any) -> Any:
        out, after = apply_fn({**tree, "params": params}, X, True, rng=key)
        return (out**2).mean(), after

    @jax.jit
    def plain_step(tree: Any, slots: Any, key: Any) -> Any:
        (value, tree), grads = jax.value_and_grad(plain_loss, has_aux=True)(tree["params"], tree, key)
        updates, slots = tx.update(grads, slots)
        return value, {**tree, "params": optax.apply_updates(tree["params"], updates)}, slots

    optimizer = jv.train.Optimizer(tx)

    def loss(variables: jv.Variables, key: Any) -> Any:
        out, variables = MODEL.apply(variables, X, True, rng=key)
        return (out**2).mean(), variables

    @jax.jit
    def step(variables: jv.Variables, key: Any) -> Any:
        (value, variables), grads = jv.value_and_grad(loss, has_aux=True)(variables, key)
        return value, optimizer.apply_gradients(grads, variables)

    slots, ours = tx.init(tree["params"]), optimizer.init(variables)
    for key in jax.random.split(jax.random.key(0), 4):
        value, tree, slots = plain_step(tree, slots, key)
        same, ours = step(ours, key)
        np.testing.assert_allclose(value, same, rtol=1e-4)
    np.testing.assert_allclose(tree["params"]["head"]["kernel"], ours["head/kernel"], rtol=1e-3, atol=1e-4)
    mean = tree["state"]["tower"]["norm"]["moving_mean"]
    np.testing.assert_allclose(mean, ours["tower/norm/moving_mean"], rtol=1e-3, atol=1e-5)


def test_gradients_of_the_trainable_alone(variables: jv.Variables) -> None:
    _, apply_fn, tree = MODEL.to_pure(variables)
    grads = jax.jit(jax.grad(lambda params: apply_fn({**tree, "params": params}, X)[0].sum()))(tree["params"])
    assert jax.tree.structure(grads) == jax.tree.structure(tree["params"])
    np.testing.assert_allclose(grads["head"]["bias"], [4.0, 4.0])


def test_seeds_and_states_go_through_vmap(variables: jv.Variables) -> None:
    init_fn, apply_fn, _ = MODEL.to_pure(variables)
    trees = jax.vmap(init_fn, (0, None))(jax.random.split(jax.random.key(0), 3), X)
    out, _ = jax.vmap(apply_fn, (0, None))(trees, X)
    assert out.shape == (3, 4, 2)


def test_frozen_variables_and_slots_are_state(variables: jv.Variables) -> None:
    optimizer = jv.train.AdamOptimizer(0.1, var_list="tower/")
    state = optimizer.init(variables.freeze("head/"))
    init_fn, apply_fn, tree = MODEL.to_pure(state)
    assert sorted(tree["params"]) == ["tower"]
    assert sorted(tree["state"]["tower"]["fc"]["kernel"]) == ["Adam", "Adam_1"]
    assert sorted(tree["state"]["head"]) == ["bias", "kernel"]
    assert sorted(init_fn(0, X)["params"]) == ["tower"]
    out, after = apply_fn(tree, X)
    np.testing.assert_array_equal(out, MODEL(variables, X))
    assert jax.tree.structure(after) == jax.tree.structure(tree)


def test_packed_variables_and_donation(variables: jv.Variables) -> None:
    _, apply_fn, tree = MODEL.to_pure(variables.packed())
    out, _ = apply_fn(tree, X)
    np.testing.assert_allclose(out, MODEL(variables, X), rtol=1e-6)
    _, apply_fn, tree = MODEL.to_pure(variables)
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(tree)
    assert MODEL(variables, X).shape == (4, 2)  # the tree was a copy


def test_errors_speak_of_the_two_functions(variables: jv.Variables) -> None:
    init_fn, apply_fn, tree = MODEL.to_pure(variables)
    with pytest.raises(jv.errors.FailedPreconditionError, match="next_rng_key") as no_key:
        apply_fn(tree, X, training=True)
    with pytest.raises(jv.errors.InvalidArgumentError, match=r"init_fn\(0, \*args\)") as no_seed:
        init_fn(X)
    with pytest.raises(jv.errors.InvalidArgumentError, match=r"and the model asks for") as other_shape:
        apply_fn(tree, X[:, :2])
    assert "out, tree = apply_fn(tree, *args, rng=key)" in str(no_key.value)
    for caught in (no_key, no_seed, other_shape):
        assert not any(word in str(caught.value) for word in ("model.apply", "model.init", "VariableStore", "kept"))


def test_an_exported_program_needs_no_jaxvars(variables: jv.Variables) -> None:
    _, apply_fn, tree = MODEL.to_pure(variables)
    pytest.importorskip("flatbuffers")
    program = jax.export.export(jax.jit(lambda tree, x: apply_fn(tree, x)[0]))(tree, X).serialize()
    np.testing.assert_allclose(jax.export.deserialize(program).call(tree, X), MODEL(variables, X), rtol=1e-6)


def test_mistakes_are_named(variables: jv.Variables) -> None:
    _, apply_fn, tree = MODEL.to_pure(variables)
    with pytest.raises(jv.errors.InvalidTypeError, match="got keys head, tower"):
        apply_fn(tree["params"], X)
    del tree["params"]["head"]["bias"]
    with pytest.raises(jv.errors.NotFoundError, match="head/bias: missing") as caught:
        apply_fn(tree, X)
    assert str(caught.value).endswith("Write:\n    tree = init_fn(0, *args)    # makes all values anew")
    with pytest.raises(jv.errors.InvalidTypeError, match=r"to_pure takes jv\.Variables"):
        MODEL.to_pure(tree)  # pyright: ignore[reportArgumentType]
    with pytest.raises(jv.errors.InvalidArgumentError, match='"a" and "a/b"'):
        jv.transform(lambda: None).to_pure(jv.Variables({"a": 1.0, "a/b": 2.0}))


def test_a_trained_state_is_told_how_to_shed_its_slots(variables: jv.Variables) -> None:
    state = jv.train.AdamOptimizer(0.1).init(variables)
    with pytest.raises(jv.errors.InvalidArgumentError, match=r"variables\.select\(list\(model\.specs\(\*args\)\)\)"):
        state.to_nested()
    assert jax.tree.structure(state.select(list(MODEL.specs(X))).to_nested()) == jax.tree.structure(
        variables.to_nested()
    )

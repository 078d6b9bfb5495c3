"""Flax NNX modules in a scope, jaxvars models as NNX modules, and their states, with the real library."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from interop_models import tower

import jaxvars as jv

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


class Net(nnx.Module):
    """A list of layers, statistics, randomness, and a kernel under two names."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.tied = self.layers[0].kernel

    def __call__(self, x: Any) -> Any:
        x = self.drop(self.norm(self.layers[0](x))) @ self.tied[...]
        return self.layers[1](x)

    def head(self, x: Any) -> Any:
        return self.layers[1](x)


def _net(x: Any, training: bool | None = None) -> Any:
    with jv.variable_scope("model"):
        return jv.interop.nnx(Net, "net", training=training)(x)


def test_names_flags_and_collections() -> None:
    specs = jv.transform(_net).specs(X).variable_specs
    collections = {name.removeprefix("model/net/"): spec.collections[1] for name, spec in specs.items()}
    assert collections == {
        "drop/rngs/count": "RngCount",
        "drop/rngs/key": "RngKey",
        "layers/0/bias": "params",
        "layers/0/kernel": "params",
        "layers/1/bias": "params",
        "layers/1/kernel": "params",
        "norm/bias": "params",
        "norm/mean": "batch_stats",
        "norm/scale": "params",
        "norm/var": "batch_stats",
    }
    assert all(spec.trainable == (spec.collections[1] == "params") for spec in specs.values())


def test_values_and_results_are_those_of_the_module() -> None:
    model = jv.transform(_net)
    variables = model.init(2, X)
    module = Net(nnx.Rngs(jv.interop.module_key(2, "model/net")))
    for name, value in jv.interop.from_nnx(module, "model/net").items():
        assert value.dtype == variables[name].dtype
        if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(variables[name], value, rtol=1e-6)
    step = jax.jit(lambda v, x: model.apply(v, x, training=True))
    for _ in range(2):  # dropout goes on with the module's own stream, statistics with what they were
        out, variables = step(variables, X)
        np.testing.assert_allclose(out, module(X), rtol=1e-5, atol=1e-6)
    assert int(variables["model/net/drop/rngs/count"]) == 2
    module.eval()
    np.testing.assert_allclose(model(variables, X, training=False), module(X), rtol=1e-5, atol=1e-6)


def test_state_is_assigned_inside_a_scan() -> None:
    def net(x: Any) -> Any:
        norm = jv.interop.nnx(lambda rngs: nnx.BatchNorm(3, rngs=rngs), "norm")
        return jax.lax.scan(lambda carry, _: (norm(carry), None), x, None, length=3)[0]

    model = jv.transform(net)
    _, after = model.apply(model.init(0, X), X)
    norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    y = X
    for _ in range(3):
        y = norm(y)
    np.testing.assert_allclose(after["norm/mean"], norm.mean[...], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after["norm/var"], norm.var[...], rtol=1e-5)


def test_a_module_that_exists_gives_its_values() -> None:
    module = Net(nnx.Rngs(0))
    model = jv.transform(lambda x: jv.interop.nnx(module)(x, method="head"))
    variables = model.init(1, X)
    assert "net/layers/1/kernel" in variables
    np.testing.assert_allclose(model(variables, X), module.head(X), rtol=1e-6)
    floats = variables.select(lambda _, spec: jnp.issubdtype(spec.dtype, jnp.floating))
    jax.jit(lambda v: jax.tree.map(lambda x: x + 1, v), donate_argnums=0)(floats)
    assert module.layers[1].kernel[...].shape == (3, 2)  # was copied, so donation left it whole
    with jv.VariableStore(0) as store:
        jv.interop.nnx(module)(X)
    np.testing.assert_array_equal(store.variables["net/layers/0/kernel"], module.layers[0].kernel[...])


def test_a_module_made_in_the_model_has_values_of_the_model() -> None:
    model = jv.transform(lambda x: jv.interop.nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(4)), "fc")(x))
    variables = model.init(0, X)
    np.testing.assert_allclose(variables["fc/kernel"], nnx.Linear(3, 2, rngs=nnx.Rngs(4)).kernel[...], rtol=1e-6)


@pytest.mark.slow
def test_gradients_are_those_of_nnx() -> None:
    model = jv.transform(_net)
    variables = model.init(0, X)
    module = Net(nnx.Rngs(0))
    nnx.update(module, jv.interop.to_nnx(variables, module, "model/net"))
    grads = jv.grad(lambda v: (model.apply(v, X, training=False)[0] ** 2).sum())(variables)
    module.eval()
    theirs = nnx.grad(lambda module: (module(X) ** 2).sum())(module)
    for name, value in jv.interop.from_nnx(theirs, "model/net").items():
        np.testing.assert_allclose(grads[name], value, rtol=1e-4, atol=1e-5)


def test_sharding_metadata_is_noted() -> None:
    def make(rngs: Any) -> Any:
        init = nnx.with_partitioning(nnx.initializers.ones, (None, "model"))
        return nnx.Linear(3, 8, kernel_init=init, rngs=rngs)

    specs = jv.transform(lambda x: jv.interop.nnx(make, "fc")(x)).specs(X)
    assert specs.variable_specs["fc/kernel"].placement == jax.sharding.PartitionSpec(None, "model")
    assert specs.variable_specs["fc/bias"].placement is None


def test_what_a_call_sows_is_dropped_and_new_state_refused() -> None:
    class Grows(nnx.Module):
        def __init__(self, rngs: nnx.Rngs, kind: type) -> None:
            self.kind = kind

        def __call__(self, x: Any) -> Any:
            self.new = self.kind(x.sum())
            return x

    model = jv.transform(lambda x: jv.interop.nnx(lambda rngs: Grows(rngs, nnx.Intermediate))(x))
    assert list(model.init(0, X)) == []  # a module without variables
    np.testing.assert_array_equal(model(model.init(0, X), X), X)
    with pytest.raises(jv.errors.InvalidArgumentError, match=r"made state that the new module does not have: new"):
        jv.transform(lambda x: jv.interop.nnx(lambda rngs: Grows(rngs, nnx.Param))(x)).specs(X)
    with pytest.raises(jv.errors.InvalidTypeError, match="function of rngs"):
        jv.interop.nnx(3)  # pyright: ignore[reportArgumentType]


# States


def test_states_come_back() -> None:
    module = Net(nnx.Rngs(0))
    variables = jv.interop.from_nnx(module, "net")
    other = nnx.eval_shape(lambda: Net(nnx.Rngs(1)))
    state = jv.interop.to_nnx(variables, other, "net")
    merged = nnx.merge(nnx.graphdef(other), state)
    assert merged.tied is merged.layers[0].kernel
    before, after = nnx.state(module), nnx.state(merged)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    params = nnx.state(module, nnx.Param)
    assert list(jv.interop.from_nnx(params)) == [name.removeprefix("net/") for name in variables.trainable]
    with pytest.raises(jv.errors.NotFoundError, match=r"net/norm/mean: missing"):
        jv.interop.to_nnx(variables.trainable, module, "net")


# A model as a module


@pytest.mark.slow
def test_a_model_trains_in_nnx_as_here() -> None:
    model = jv.transform(tower)
    variables = model.init(0, X)
    module = jv.interop.as_nnx(model, variables, X)
    theirs = nnx.Optimizer(module, optax.adam(0.1), wrt=nnx.Param)
    ours = jv.train.Optimizer(optax.adam(0.1))
    variables = ours.init(variables)
    key = jax.random.key(3)

    @nnx.jit
    def their_step(module: Any, optimizer: Any) -> Any:
        value, grads = nnx.value_and_grad(lambda m: (m(X, True, rngs=key) ** 2).mean())(module)
        optimizer.update(module, grads)
        return value

    @jax.jit
    def our_step(variables: Any) -> Any:
        def loss(variables: Any) -> Any:
            out, variables = model.apply(variables, X, True, rng=key)
            return (out**2).mean(), variables

        (value, variables), grads = jv.value_and_grad(loss, has_aux=True)(variables)
        return value, ours.apply_gradients(grads, variables)

    for _ in range(3):
        value, variables = our_step(variables)
        np.testing.assert_allclose(their_step(module, theirs), value, rtol=1e-4)
    back = jv.interop.from_nnx(module)
    assert set(back.trainable) == set(model.specs(X).trainable)
    for name, value in variables.replace(back).items():
        np.testing.assert_allclose(value, variables[name], rtol=1e-3, atol=1e-4)


def test_a_model_as_a_module_with_seeds() -> None:
    module = jv.interop.as_nnx(tower, nnx.Rngs(0), X)
    assert module.tower.fc.kernel[...].shape == (3, 4)
    assert module(X).shape == (4, 2)
    first = module(X, training=True, rngs=nnx.Rngs(1))
    assert not np.array_equal(first, module(X, training=True, rngs=nnx.Rngs(2)))
    assert float(np.abs(module.tower.norm.moving_mean[...]).sum()) > 0
    with pytest.raises(jv.errors.FailedPreconditionError, match="rng"):
        module(X, training=True)


def test_a_step_that_donates_leaves_the_module_whole() -> None:
    take = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    take(jv.interop.from_nnx(module))
    variables = jv.interop.from_nnx(module, copy=False)
    take(jv.interop.to_nnx(variables, module))
    np.testing.assert_array_equal(variables["kernel"], module.kernel[...])
    take(variables)
    assert module.kernel[...].is_deleted()

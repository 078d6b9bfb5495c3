"""Flax Linen modules in a scope, jaxvars models as Linen modules, and the trees of both, with the real library."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxvars as jv

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


class Net(nn.Module):
    """Parameters, statistics and randomness."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.Dense(5)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(2)(x)


class Coder(nn.Module):
    """Two methods, with submodules made in `setup`, one of them shared."""

    def setup(self) -> None:
        self.first = nn.Dense(3)
        self.second = nn.Dense(3)

    def __call__(self, x: Any) -> Any:
        return self.decode(self.encode(x))

    def encode(self, x: Any) -> Any:
        return self.first(x)

    def decode(self, x: Any) -> Any:
        return self.second(self.second(x))


class Deep(nn.Module):
    """Three rematerialized layers, by `nn.scan`."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        def layer(module: Any, x: Any, _: None) -> tuple[Any, None]:
            return nn.BatchNorm(use_running_average=False)(nn.Dense(3)(x)), None

        axes = {"params": 0, "batch_stats": 0}
        scanned = nn.scan(nn.remat(layer), variable_axes=axes, split_rngs={"params": True}, length=3)
        return scanned(self, x, None)[0]


def _model(module: nn.Module, name: str | None = "net", **options: Any) -> jv.Model:
    def net(x: Any, **kwargs: Any) -> Any:
        with jv.variable_scope("model"):
            return jv.interop.linen(module, name, **options)(x, **kwargs)

    return jv.transform(net)


def _equal(first: Any, second: Any) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("module", [Net(), Coder(), Deep(), nn.Dense(2, param_dtype=jnp.bfloat16)], ids=repr)
def test_initial_values_and_results_are_those_of_the_module(module: nn.Module) -> None:
    model = _model(module)
    variables = model.init(3, X)
    own = jax.jit(module.init)(jv.interop.module_key(3, "model/net"), X)
    _equal(jv.interop.to_linen(variables, "model/net"), own)
    theirs, _ = module.apply(own, X, mutable=["batch_stats"])
    np.testing.assert_array_equal(model.apply(variables, X)[0], theirs)


def test_names_flags_and_collections() -> None:
    specs = _model(Net()).specs(X).variable_specs
    assert list(specs) == [
        "model/net/BatchNorm_0/bias",
        "model/net/BatchNorm_0/mean",
        "model/net/BatchNorm_0/scale",
        "model/net/BatchNorm_0/var",
        "model/net/Dense_0/bias",
        "model/net/Dense_0/kernel",
        "model/net/Dense_1/bias",
        "model/net/Dense_1/kernel",
    ]
    assert [name for name, spec in specs.items() if not spec.trainable] == [
        "model/net/BatchNorm_0/mean",
        "model/net/BatchNorm_0/var",
    ]
    assert specs["model/net/BatchNorm_0/mean"].collections == ("variables", "batch_stats")
    assert "params" in specs["model/net/Dense_0/kernel"].collections
    assert "test_interop_linen.py" in specs["model/net/Dense_0/kernel"].defined_at


def test_statistics_are_assigned_in_place() -> None:
    model = _model(Net())
    variables = model.init(0, X)
    _, after = jax.jit(lambda v, x: model.apply(v, x, rng=1, train=True))(variables, X)
    changed = [name for name in after if not np.array_equal(after[name], variables[name])]
    assert changed == ["model/net/BatchNorm_0/mean", "model/net/BatchNorm_0/var"]
    own = jv.interop.to_linen(variables, "model/net")
    _, theirs = Net().apply(own, X, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    _equal(jv.interop.to_linen(after, "model/net")["batch_stats"], theirs["batch_stats"])
    np.testing.assert_array_equal(model(variables, X), model(variables, X))  # nothing is assigned: a plain call


@pytest.mark.parametrize("transform", ["scan", "jit", "remat", "cond"])
def test_statistics_are_assigned_inside_transforms(transform: str) -> None:
    norm = nn.BatchNorm(use_running_average=False)

    def net(x: Any) -> Any:
        layer = jv.interop.linen(norm, "norm")
        if transform == "scan":
            return jax.lax.scan(lambda carry, _: (layer(carry), None), x, None, length=2)[0]
        if transform == "cond":
            x = layer(x)
            return jax.lax.cond(x.sum() < 1e9, layer, lambda x: x, x)
        wrap = jax.jit if transform == "jit" else jax.checkpoint
        return wrap(layer)(layer(x))

    model = jv.transform(net)
    variables = model.init(0, X)
    out, after = model.apply(variables, X)
    own = norm.init(jax.random.key(0), X)
    y, state = norm.apply(own, X, mutable=["batch_stats"])
    y, state = norm.apply({**own, **state}, y, mutable=["batch_stats"])
    np.testing.assert_allclose(out, y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after["norm/mean"], state["batch_stats"]["mean"], rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_gradients_are_those_of_flax() -> None:
    model = _model(Net())
    variables = model.init(0, X)
    grads = jv.grad(lambda v: (model.apply(v, X, train=True, rng=0)[0] ** 2).sum())
    assert list(grads(variables)) == list(variables.trainable)
    own = jv.interop.to_linen(variables, "model/net")
    plain = jv.grad(lambda v: (model(v, X) ** 2).sum())(variables)
    theirs = jax.grad(lambda params: (Net().apply({**own, "params": params}, X) ** 2).sum())(own["params"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        jv.interop.to_linen(plain, "model/net")["params"],
        theirs,
    )


def test_calls_of_one_layer_share_and_methods_add() -> None:
    def net(x: Any) -> Any:
        coder = jv.interop.linen(Coder(), "coder")
        code = coder(coder(x, method="encode"), method=Coder.encode)
        return coder(code, method="decode")

    variables = jv.transform(net).init(0, X)
    own = Coder().init(jv.interop.module_key(0, "coder"), X)
    _equal(jv.interop.to_linen(variables, "coder"), own)


def test_names_are_those_of_scopes() -> None:
    dense = nn.Dense(3)

    def net(x: Any) -> Any:
        x = jv.interop.linen(dense)(x)
        x = jv.interop.linen(dense)(x)
        with jv.variable_scope("shared", reuse=jv.AUTO_REUSE):
            return jv.interop.linen(dense, "fc")(jv.interop.linen(dense, "fc")(x))

    names = {name.rpartition("/")[0] for name in jv.transform(net).specs(X)}
    assert names == {"dense", "dense_1", "shared/fc"}

    def twice(x: Any) -> Any:
        return jv.interop.linen(dense, "fc")(jv.interop.linen(dense, "fc")(x))

    with pytest.raises(jv.errors.InvalidArgumentError, match="fc/bias already exists"):
        jv.transform(twice).specs(X)
    with pytest.raises(jv.errors.InvalidArgumentError, match="net/fc/bias does not exist"):

        def missing(x: Any) -> Any:
            with jv.variable_scope("net", reuse=True):
                return jv.interop.linen(dense, "fc")(x)

        jv.transform(missing).specs(X)


def test_a_store_by_hand_makes_the_same_values() -> None:
    for _ in range(2):
        with jv.VariableStore(0) as store:
            jv.interop.linen(Net(), "model/net")(X)
    _equal(dict(store.variables), dict(_model(Net()).init(0, X)))


def test_scopes_regularize_parameters_only_and_getters_see_all() -> None:
    asked: list[str] = []

    def half(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(name)
        value = getter(name, *args, **kwargs)
        return value * 0.5 if name.endswith("kernel") else value

    def net(x: Any) -> tuple[Any, Any]:
        regularizer = jv.regularizers.l2_regularizer(2.0)
        with jv.variable_scope("m", regularizer=regularizer, custom_getter=half):
            out = jv.interop.linen(Net(), "net")(x)
        return out, jv.losses.get_regularization_loss()

    model = jv.transform(net)
    variables = model.init(0, X)
    out, loss = model(variables, X)
    assert "m/net/BatchNorm_0/mean" in asked
    wanted = sum((value**2).sum() for value in variables.trainable.values())
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    halved = variables.replace({name: value * 0.5 for name, value in variables.items() if name.endswith("kernel")})
    np.testing.assert_allclose(out, Net().apply(jv.interop.to_linen(halved, "m/net"), X), rtol=1e-6)


class Sowing(nn.Module):
    """Sows a loss."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Dense(2)(x)
        self.sow("losses", "size", (x**2).sum())
        return x


def test_what_a_module_sows_joins_a_collection() -> None:
    def net(x: Any) -> Any:
        jv.interop.linen(Sowing(), "net", collect=["losses"])(x)
        return jv.get_collection("losses")

    model = jv.transform(net)
    variables = model.init(0, X)
    assert list(variables) == ["net/Dense_0/bias", "net/Dense_0/kernel"]
    (loss,) = model(variables, X)
    np.testing.assert_allclose(loss, (Sowing().apply(jv.interop.to_linen(variables, "net"), X) ** 2).sum(), rtol=1e-6)
    with pytest.raises(
        jv.errors.InvalidArgumentError, match=r"write: jv.interop.linen\(module, collect=\['losses'\]\)"
    ):
        _model(Sowing()).specs(X)


class Scaled(nn.Module):
    """Its first value depends on the argument, as with weight normalization."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return x / self.param("scale", lambda _: jnp.abs(x).max(axis=0, keepdims=True))


def test_values_that_depend_on_the_arguments() -> None:
    model = _model(Scaled())
    np.testing.assert_array_equal(model.init(0, X)["model/net/scale"], np.abs(X).max(axis=0, keepdims=True))
    with jv.VariableStore(0) as store:
        jv.interop.linen(Scaled(), "net")(X)
    np.testing.assert_array_equal(store.variables["net/scale"], np.abs(X).max(axis=0, keepdims=True))
    with pytest.raises(jv.errors.InvalidArgumentError, match="computed from the model's arguments"):
        model.init(0, jax.ShapeDtypeStruct(X.shape, X.dtype))


def test_axes_of_boxed_parameters_are_noted() -> None:
    kernel = nn.with_partitioning(nn.initializers.ones, (None, "model"))
    logical = nn.with_logical_partitioning(nn.initializers.zeros, ("heads",))
    model = _model(nn.Dense(8, kernel_init=kernel, bias_init=logical))
    with nn.logical_axis_rules([("heads", "model")]):
        specs = model.specs(X)
    P = jax.sharding.PartitionSpec
    assert specs.variable_specs["model/net/kernel"].placement == P(None, "model")
    assert specs.variable_specs["model/net/bias"].placement == P("model")
    spread = jv.placement.apply(specs, jv.placement.mesh(model=-1))
    variables = model.init(0, X, variables=spread)
    assert variables["model/net/kernel"].sharding.spec == P(None, "model")
    np.testing.assert_allclose(model(variables, X), X @ np.ones([3, 8], "float32"), rtol=1e-6)


def test_a_module_that_is_no_module_is_refused() -> None:
    with pytest.raises(jv.errors.InvalidTypeError, match=r"Write: jv.interop.linen\(Dense\(...\)\)"):
        jv.interop.linen(nn.Dense)  # pyright: ignore[reportArgumentType]
    with pytest.raises(jv.errors.FailedPreconditionError, match=r"jv\.transform"):
        jv.interop.linen(nn.Dense(2), "fc")(X)


# Trees

_names = st.sampled_from(["a", "b", "cache", "batch_stats", "kernel", "params"])
_leaves = st.builds(lambda n, dtype: np.arange(n).astype(dtype), st.integers(0, 3), st.sampled_from(["f4", "i4", "c8"]))
_trees = st.dictionaries(_names, st.recursive(_leaves, lambda t: st.dictionaries(_names, t, min_size=1), max_leaves=6))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["params", "cache", "batch_stats"]), _trees.filter(bool)),
    st.sampled_from(["", "m/n"]),
)
def test_trees_come_back_as_they_were(tree: Any, prefix: str) -> None:
    try:
        variables = jv.interop.from_linen(tree, prefix)
    except jv.errors.InvalidArgumentError as error:
        assert "several collections get one name" in str(error)
        return
    if variables:
        _equal(jv.interop.to_linen(variables, prefix), tree)


def test_collections_of_one_path() -> None:
    tree = {"params": {"x": jnp.ones(1)}, "cache": {"x": jnp.zeros(1), "cache": {"x": jnp.zeros(2)}}}
    variables = jv.interop.from_linen(tree)
    assert list(variables) == ["cache/cache/x", "cache/x", "x"]
    _equal(jv.interop.to_linen(variables), tree)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"kernel": X}, "arrays at the top: kernel"),
        ([X], "got list"),
        ({"params": {"a/b": X, 1: X}}, "'a/b' at the top\n  1 at the top"),
        (
            {"Conv_0": {"kernel": X}, "head": {"bias": X}},
            r'no collection "params", but Conv_0, head\. Write: .*"params": tree',
        ),
    ],
)
def test_what_is_no_tree_of_linen_is_refused(tree: Any, text: str) -> None:
    with pytest.raises(jv.errors.InvalidTypeError, match=text):
        jv.interop.from_linen(tree)


def test_collections_of_ones_own() -> None:
    assert list(jv.interop.from_linen({"params": {}, "mine": {"n": X}}, "a/")) == ["a/n"]
    assert not jv.interop.from_linen({})


def test_a_step_that_donates_leaves_the_tree_whole() -> None:
    tree = Net().init(jax.random.key(0), X)
    take = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    take(jv.interop.from_linen(tree, "net"))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(tree))
    variables = jv.interop.from_linen(tree, "net")
    take(jv.interop.to_linen(variables, "net"))
    assert not any(leaf.is_deleted() for leaf in variables.values())
    back = jv.interop.to_linen(variables, "net/", copy=False)
    take(jv.interop.from_linen(back, "net", copy=False))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(back)) and not jax.tree.leaves(tree)[0].is_deleted()


def test_a_traced_argument_by_which_python_decides() -> None:
    model = _model(Net())
    variables = model.init(0, X)
    apply: Any = jax.jit(model.apply)
    with pytest.raises(jv.errors.InvalidTypeError, match=r'Net: .*`train`, which is traced.*static_argnames="train"'):
        apply(variables, X, train=True)
    by_position = jv.transform(lambda x, train: jv.interop.linen(Net(), "net")(x, train))
    with pytest.raises(jv.errors.InvalidTypeError, match=r"Net: .*`train`, which is traced"):
        jax.jit(by_position.init)(0, X, True)
    _, apply_fn, tree = model.to_pure(variables)
    with pytest.raises(jv.errors.InvalidTypeError, match=r'jax\.jit\(apply_fn, static_argnames="train"'):
        jax.jit(apply_fn)(tree, X, train=True)
    out, _ = jax.jit(model.apply, static_argnames="train")(variables, X, train=True, rng=0)
    assert out.shape == (4, 2)


def test_a_module_of_the_other_flax_is_named() -> None:
    layer: Any = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    with pytest.raises(jv.errors.InvalidTypeError, match=r"Flax NNX\. Write: jv\.interop\.nnx\(module\)"):
        jv.interop.linen(layer)
    dense: Any = nn.Dense(2)
    with pytest.raises(jv.errors.InvalidTypeError, match=r"Flax Linen\. Write: jv\.interop\.linen\(module\)"):
        jv.interop.nnx(dense)


# A model as a module


def _net(x: Any, training: bool = False) -> Any:
    with jv.variable_scope("tower"):
        x = jv.layers.dense(x, 4, name="fc")
        x = jv.layers.batch_normalization(x, training=training, name="norm")
    if training:
        x = x + 0 * jax.random.normal(jv.next_rng_key(), x.shape, x.dtype)
    return jv.layers.dense(x, 2, name="head")


@pytest.mark.slow
def test_a_model_trains_in_flax_as_here() -> None:
    model = jv.transform(_net)
    variables = model.init(0, X)
    module = jv.interop.as_linen(model)
    tree = jv.interop.to_linen(variables)
    assert jax.tree.map(jnp.shape, module.init(jax.random.key(0), X)) == jax.tree.map(jnp.shape, tree)
    state = TrainState.create(apply_fn=module.apply, params=tree["params"], tx=optax.sgd(0.1, momentum=0.9))
    stats = tree["state"]
    optimizer = jv.train.Optimizer(optax.sgd(0.1, momentum=0.9))
    variables = optimizer.init(variables)

    @jax.jit
    def theirs(state: Any, stats: Any) -> Any:
        def loss(params: Any) -> Any:
            out, new = module.apply(
                {"params": params, "state": stats}, X, True, mutable=["state"], rngs={"dropout": jax.random.key(1)}
            )
            return (out**2).mean(), new["state"]

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        return value, state.apply_gradients(grads=grads), stats

    @jax.jit
    def ours(variables: Any) -> Any:
        def loss(variables: Any) -> Any:
            out, variables = model.apply(variables, X, True, rng=1)
            return (out**2).mean(), variables

        (value, variables), grads = jv.value_and_grad(loss, has_aux=True)(variables)
        return value, optimizer.apply_gradients(grads, variables)

    for _ in range(3):
        value, state, stats = theirs(state, stats)
        mine, variables = ours(variables)
        np.testing.assert_allclose(value, mine, rtol=1e-5)
    back = jv.interop.from_linen({"params": state.params, "state": stats})
    merged = variables.replace(back)
    for name in back:
        np.testing.assert_allclose(merged[name], variables[name], rtol=1e-4, atol=1e-5)


def test_a_model_inside_another_module() -> None:
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(1)(jv.interop.as_linen(_net, name="inner")(x))

    tree = Outer().init(jax.random.key(0), X)
    assert sorted(tree["params"]["inner"]) == ["head", "tower"]
    assert sorted(tree["state"]["inner"]["tower"]["norm"]) == ["moving_mean", "moving_variance"]
    assert Outer().apply(tree, X).shape == (4, 1)

"""Meshes with Explicit axes, where the type of an array says how it is spread, and abstract meshes.

What works there is the table of docs/explicit-axes.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars.fitting import fit

EXPLICIT = (AxisType.Explicit, AxisType.Explicit)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=EXPLICIT)


@pytest.fixture
def entered(mesh: Mesh) -> Iterator[Mesh]:
    with jax.set_mesh(mesh):
        yield mesh


def batch(mesh: Mesh, *shape: int) -> jax.Array:
    values = np.cos(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)
    return jax.device_put(values, NamedSharding(mesh, P("data")))


def over_columns(variables: jv.Variables, mesh: Mesh) -> jv.Variables:
    """Each variable spread over its last dimension, where that divides."""

    def home(value: Any) -> NamedSharding:
        wanted = P(*[None] * (value.ndim - 1), "model") if value.ndim else P()
        return NamedSharding(mesh, fit(wanted, value.shape, mesh.shape)[0])

    return variables.to({name: home(value) for name, value in variables.items()})


IMAGES, CHANNELS_FIRST, ROWS, IDS = (8, 6, 6, 4), (8, 4, 6, 6), (8, 4), (8,)


def scaled(x: Any) -> Any:
    return x * jv.get_variable("scale", [], initializer=jv.ones_initializer())


def kernel(**options: Any) -> Any:
    return jv.get_variable("kernel", [4, 6], **options)


def regularized(x: Any) -> Any:
    return x @ kernel(regularizer=jv.regularizers.l2_regularizer(1.0)) + jv.losses.get_regularization_loss()


def counted(x: Any) -> Any:
    """Writes inside of a loop."""

    def body(carry: Any, _: Any) -> Any:
        jv.get_variable("n", [], initializer=jv.zeros_initializer(), trainable=False).assign_add(1.0)
        return carry * 2, None

    return jax.lax.scan(body, scaled(x), None, length=3)[0]


def assigned(x: Any) -> Any:
    w = kernel()
    w.assign(w * 2)
    w.scatter_add([0, 1], jnp.ones([2, 6]))
    return x @ w


# What a model does -> the shape of its input, the model, and how its result is spread.
MODELS: dict[str, tuple[tuple[int, ...], Callable[[Any], Any], P]] = {
    "get_variable": (ROWS, lambda x: x @ kernel(), P("data", "model")),
    "dense": (ROWS, lambda x: jv.layers.dense(x, 6, activation=jax.nn.relu), P("data", "model")),
    "conv2d": (IMAGES, lambda x: jv.layers.conv2d(x, 8, 3), P("data", None, None, "model")),
    "channels first": (
        CHANNELS_FIRST,
        lambda x: jv.layers.conv2d(x, 8, 3, data_format="channels_first"),
        P("data", "model", None, None),
    ),
    "conv2d_transpose": (IMAGES, lambda x: jv.layers.conv2d_transpose(x, 8, 3), P("data", None, None, "model")),
    "separable_conv2d": (IMAGES, lambda x: jv.layers.separable_conv2d(x, 8, 3), P("data", None, None, "model")),
    "max_pooling2d": (IMAGES, lambda x: jv.layers.max_pooling2d(scaled(x), 2, 2), P("data", None, None, None)),
    "batch_normalization": (ROWS, lambda x: jv.layers.batch_normalization(x, training=True), P("data", "model")),
    "layer_norm": (ROWS, lambda x: jv.layers.layer_norm(x), P("data", "model")),
    "embedding": (IDS, lambda x: jv.layers.embedding(x.astype(jnp.int32), 16, 6), P("data", "model")),
    "dropout": (ROWS, lambda x: jv.layers.dropout(scaled(x), 0.5, training=True), P("data", None)),
    "random numbers": (ROWS, lambda x: scaled(x) + jax.random.normal(jv.next_rng_key()), P("data", None)),
    "remat": (ROWS, lambda x: jax.checkpoint(lambda y: y @ kernel())(x), P("data", "model")),
    "regularization": (ROWS, regularized, P("data", "model")),
    "scan": (ROWS, counted, P("data", None)),
    "assign": (ROWS, assigned, P("data", "model")),
}


def results(model: jv.Model, variables: jv.Variables, x: jax.Array) -> Any:
    """What a model returns, the state after it, and the gradients."""

    def loss(variables: jv.Variables) -> Any:
        out, after = model.apply(variables, x, rng=1)
        return jnp.sum(out**2), (out, after)

    (_, (out, after)), gradients = jv.value_and_grad(loss, has_aux=True)(variables)
    return out, after, gradients


def close(found: Any, expected: Any) -> None:
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def placed_alike(found: jv.Variables, variables: jv.Variables) -> None:
    for name, value in found.items():
        assert value.sharding.is_equivalent_to(variables[name].sharding, value.ndim), name


QUICK = {"dense", "conv2d", "embedding", "dropout", "batch_normalization", "assign"}
FEW = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]


@pytest.mark.parametrize("name", FEW)
def test_models_under_jit(name: str, mesh: Mesh) -> None:
    shape, net, spec = MODELS[name]
    model, x = jv.transform(net), batch(mesh, *shape)
    run = jax.jit(lambda variables, x: results(model, variables, x))
    one = model.init(0, x)
    variables = over_columns(one, mesh)
    found = run(variables, x)
    close(found, run(one, np.asarray(x)))
    assert found[0].sharding.is_equivalent_to(NamedSharding(mesh, spec), len(found[0].shape)), found[0].sharding
    placed_alike(found[1], variables)
    placed_alike(found[2], variables)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [True, False], ids=["variables spread", "variables whole"])
@pytest.mark.parametrize("name", MODELS)
def test_the_same_models_over_auto_axes(name: str, spread: bool) -> None:
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    shape, net, _ = MODELS[name]
    model, x = jv.transform(net), batch(mesh, *shape)
    run = jax.jit(lambda variables, x: results(model, variables, x))
    one = model.init(0, np.asarray(x))
    variables = over_columns(one, mesh) if spread else one.to(NamedSharding(mesh, P()))
    close(run(variables, x), run(one, np.asarray(x)))


@pytest.mark.parametrize("channels", [pytest.param(1, id="depthwise", marks=pytest.mark.slow), pytest.param(2, id="2")])
@pytest.mark.parametrize("layout", [pytest.param("NHWC", marks=pytest.mark.slow), "NCHW"])
def test_convolutions_in_groups_over_two_axes(channels: int, layout: str) -> None:
    # Here XLA doubles the gradient of the filter: it is summed over the axis over which nothing is spread too.
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    kernel = np.sin(np.arange(3 * 2 * channels * 8, dtype=np.float32)).reshape(3, 2, channels, 8)

    def loss(x: Any, kernel: Any) -> Any:
        out = jv.nn.conv2d(x, kernel, strides=2, padding="SAME", data_format=layout)
        return jnp.sum(jnp.sin(out)), out

    x = np.cos(np.arange(8 * 7 * 6 * 4, dtype=np.float32)).reshape((8, 7, 6, 4) if layout == "NHWC" else (8, 4, 7, 6))
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    expected = run(x, kernel)
    found = run(jax.device_put(x, NamedSharding(mesh, P("data"))), jax.device_put(kernel, NamedSharding(mesh, P())))
    close(found, expected)


@pytest.mark.parametrize("name", ["dense", *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n != "dense")])
def test_models_run_eagerly_in_their_mesh(name: str, entered: Mesh) -> None:
    shape, net, _ = MODELS[name]
    model, x = jv.transform(net), batch(entered, *shape)
    variables = over_columns(model.init(0, x), entered)
    found = results(model, variables, x)
    close(found, jax.jit(lambda variables, x: results(model, variables, x))(variables, x))
    placed_alike(found[1], variables)


# -- beside models


def state(mesh: Mesh) -> tuple[jv.Variables, jv.Variables]:
    one = jv.Variables(
        {
            "a/w": jnp.cos(jnp.arange(32.0)).reshape(8, 4),
            "a/b": jnp.arange(6.0),
            "n": jnp.zeros([], jnp.int32),
        }
    )
    spread = {"a/w": P("data", "model"), "a/b": P("model"), "n": P()}
    return one, one.to({name: NamedSharding(mesh, spec) for name, spec in spread.items()})


WORK: dict[str, Callable[[jv.Variables], Any]] = {
    "assign": lambda v: jv.assign(v, "a/w", np.ones([8, 4], np.float32)),
    "assign_add": lambda v: jv.assign_add(v, "a/b", jnp.ones([6])),
    "assign_sub, donated": lambda v: jv.assign_sub(jax.tree.map(jnp.copy, v), "a/b", jnp.ones([6]), donate=True),
    "count_up_to": lambda v: jv.count_up_to(v, "n", 5),
    "scatter_update": lambda v: jv.scatter_update(v, "a/w", [1, 7, 1], np.ones([3, 4], np.float32)),
    "scatter_add": lambda v: jv.scatter_add(v, "a/w", [1, 7, 1], np.ones([3, 4], np.float32)),
    "scatter_mul": lambda v: jv.scatter_mul(v, "a/w", [1, 7, 1], np.full([3, 4], 2, np.float32)),
    "scatter_max": lambda v: jv.scatter_max(v, "a/w", [1, 7, 1], np.ones([3, 4], np.float32)),
    "scatter_nd_add": lambda v: jv.scatter_nd_add(v, "a/w", [[1], [7]], np.ones([2, 4], np.float32)),
    "scatter_nd_add at points": lambda v: jv.scatter_nd_add(v, "a/w", [[1, 2], [7, 0]], np.ones([2], np.float32)),
    "replace": lambda v: v.replace({"a/w": np.ones([8, 4], np.float32)}),
    "|": lambda v: v | v.scope("a"),
    "copy_scope": lambda v: v.copy_scope("a", "b"),
    "rename": lambda v: v.rename([("a/(.*)", r"b/\1")]),
    "astype": lambda v: v.astype({"a/w": "bfloat16"}),
    "packed": lambda v: v.packed(),
    "packed, assigned": lambda v: jv.assign_add(v.packed(), "n", 1).unpacked(),
    "gradients": lambda v: jax.jit(jv.grad(lambda v: jnp.sum(jnp.sin(v["a/w"])) + jnp.sum(v["a/b"] ** 2)))(v),
    "gradient descent": lambda v: stepped(jv.train.GradientDescentOptimizer(0.1), v),
    "adam": lambda v: stepped(jv.train.AdamOptimizer(0.1), v),
    "momentum": lambda v: stepped(jv.train.MomentumOptimizer(0.1, 0.9), v),
    "moving averages": lambda v: averaged(v),
}


def stepped(optimizer: jv.train.Optimizer, variables: jv.Variables) -> jv.Variables:
    loss = jv.grad(lambda v: jnp.sum(jnp.sin(v["a/w"])) + jnp.sum(v["a/b"] ** 2))
    return jax.jit(lambda v: optimizer.apply_gradients(loss(v), v))(optimizer.init(variables))


def averaged(variables: jv.Variables) -> jv.Variables:
    ema = jv.train.ExponentialMovingAverage(0.5)
    state = jv.assign(ema.init(variables, ["a/w"]), "a/w", np.ones([8, 4], np.float32))
    return ema.averaged(ema.apply(state))


@pytest.mark.parametrize(
    "inside", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["outside of set_mesh", "in set_mesh"]
)
@pytest.mark.parametrize("name", WORK)
def test_state(name: str, inside: bool, mesh: Mesh) -> None:
    if name in ("scatter_sub", "scatter_min", "scatter_max") and jax.__version_info__ < (0, 10, 1):
        pytest.skip("there JAX does not ask how these results are spread")
    one, spread = state(mesh)
    with jax.set_mesh(mesh) if inside else contextlib.nullcontext():
        found = WORK[name](spread)
    expected = WORK[name](one)
    assert list(found) == list(expected)
    for key in found:
        np.testing.assert_allclose(np.asarray(found[key]), np.asarray(expected[key]), rtol=2e-6, err_msg=key)
        if key in spread:
            assert found[key].sharding.is_equivalent_to(spread[key].sharding, found[key].ndim), key


def test_made_in_the_mesh_by_a_rule(mesh: Mesh) -> None:
    def net(x: Any) -> Any:
        with jv.device(jv.placement.rule(mesh, jv.placement.fsdp(min_size=1))):
            return jv.layers.dense(x, 8)

    model, x = jv.transform(net), batch(mesh, *ROWS)
    variables = model.init(0, x)
    assert {name: value.sharding.spec for name, value in variables.items()} == {
        "dense/bias": P("data"), "dense/kernel": P(None, "data")
    }  # fmt: skip
    alone = jv.transform(lambda x: jv.layers.dense(x, 8)).init(0, x)
    np.testing.assert_array_equal(variables["dense/kernel"], alone["dense/kernel"])
    with jax.set_mesh(mesh):
        made = jax.jit(model.init)(0, x)
    placed_alike(made, variables)


@pytest.mark.parametrize("format", ["orbax", "npz"])
def test_saved_and_restored(format: str, mesh: Mesh, tmp_path: Path) -> None:
    one, spread = state(mesh)
    path = jv.checkpoint.save(spread, tmp_path / "model", format)
    found = jv.checkpoint.restore(path, jax.tree.map(jnp.zeros_like, spread))
    close(found, one)
    placed_alike(found, spread)


# -- abstract meshes


def test_specs_over_an_abstract_mesh() -> None:
    abstract = AbstractMesh((4, 2), ("data", "model"), axis_types=EXPLICIT)
    model = jv.transform(lambda x: jv.layers.dense(x, 6))
    specs = jv.placement.apply(model.specs(jnp.ones(ROWS)), abstract, [(".*kernel", P("data", "model")), (".*", P())])
    assert specs["dense/kernel"].sharding == NamedSharding(abstract, P("data", "model"))
    assert specs.variable_specs["dense/kernel"].placement == P("data", "model")
    with pytest.raises(jv.errors.InvalidArgumentError, match="AbstractMesh"):
        jv.placement.apply(model.init(0, jnp.ones(ROWS)), abstract, jv.placement.replicated())


# -- what JAX refuses, and what to write


def test_logits_whose_classes_are_spread(mesh: Mesh) -> None:
    logits = jax.device_put(np.ones([8, 6], np.float32), NamedSharding(mesh, P("data", "model")))
    labels = jnp.zeros([8], jnp.int32)

    def loss(logits: Any, labels: Any) -> Any:
        return jv.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)

    with jax.set_mesh(mesh):
        with pytest.raises(Exception, match="out_sharding"):
            jax.jit(loss)(logits, labels)
        jax.jit(lambda logits, labels: loss(jax.sharding.reshard(logits, P("data")), labels))(logits, labels)


def test_a_recurrent_network_begins_as_its_batch_is_spread(entered: Mesh) -> None:
    def net(x: Any, initial: Any = None) -> Any:
        return jv.nn.dynamic_rnn(jv.nn.rnn_cell.GRUCell(6), x, initial_state=initial, dtype=jnp.float32)[0]

    model, x = jv.transform(net), batch(entered, 8, 3, 4)
    variables = model.init(0, np.asarray(x)).to(NamedSharding(entered, P()))
    with pytest.raises(Exception, match="sharding"):
        jax.jit(model.apply)(variables, x)
    zeros = jnp.zeros([8, 6], jnp.float32, out_sharding=P("data"))
    assert jax.jit(model.apply)(variables, x, zeros)[0].shape == (8, 3, 6)

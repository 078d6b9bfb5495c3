"""Meshes: what rules and strategies want, what shapes can have of it, and that values stay where they are put."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from placements import skip_without_results_on_the_host

import jaxvars as jv
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.fitting import fit, restricted
from jaxvars.placement.owners import owners
from jaxvars.scopes.device_scope import VariableOp

SIZES = {"data": 4, "model": 2}


def grid(**options):
    return jv.placement.mesh(data=4, model=2, **options)


def spread(variables):
    """Name -> the spec that its value or hole has, None where it lies on one device."""
    return {name: getattr(value.sharding, "spec", None) for name, value in variables.items()}


def wanted(variables):
    return {name: spec.placement for name, spec in variables.variable_specs.items()}


def same_values(found, expected):
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def placed(function, what):
    """A model whose variables are made in a `jv.device` block."""

    def inside(*args, **kwargs):
        with jv.device(what):
            return function(*args, **kwargs)

    return jv.transform(inside)


# fit


@pytest.mark.parametrize(
    ("spec", "shape", "got", "reasons"),
    [
        (P(), (3, 3), P(), ()),
        (P("data"), (8, 3), P("data"), ()),
        (P(None, "model"), (3, 8), P(None, "model"), ()),
        (P("data", None), (8, 3), P("data"), ()),
        (P("model", None, None), (8,), P("model"), ("('model', None, None) trimmed to rank 1",)),
        (P("data"), (), P(), ("('data',) trimmed to rank 0",)),
        (P("data", "model"), (10, 4), P(None, "model"), ("'data' (4) does not divide 10",)),
        (P(("data", "model")), (8,), P(("data", "model")), ()),
        (P(("data", "model")), (4,), P("data"), ("'data' (4) x 'model' (2) does not divide 4",)),
        (P(("data", "model")), (2,), P("model"), ("'data' (4) does not divide 2",)),
        (P("data"), (0, 3), P("data"), ()),
        (P("data"), (1, 3), P(), ("'data' (4) does not divide 1",)),
        (P("data", "data"), (8, 8), P("data"), ("'data' is taken by another dimension",)),
        (P("other", "model"), (8, 8), P(None, "model"), ("'other' is no axis of the mesh",)),
        (P(P.UNCONSTRAINED, "data"), (3, 8), P(P.UNCONSTRAINED, "data"), ()),
    ],
)
def test_fit(spec, shape, got, reasons):
    assert fit(spec, shape, SIZES) == (got, reasons)
    if P.UNCONSTRAINED not in got:
        jax.device_put(np.zeros(shape), NamedSharding(grid(), got))  # JAX accepts it
    assert fit(got, shape, SIZES) == (got, ())


def test_restricted():
    assert restricted(P(("data", "model"), None, "data"), ["model"]) == P("model", None, None)


# meshes


def test_mesh():
    mesh = jv.placement.mesh(data=-1, model=2)
    assert dict(mesh.shape) == SIZES and mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert mesh.devices.tolist() == jax.make_mesh((4, 2), ("data", "model")).devices.tolist()
    assert jv.placement.mesh(devices=jax.devices()[:3], one=-1).size == 3
    assert grid(axis_types=AxisType.Explicit).axis_types == (AxisType.Explicit, AxisType.Explicit)
    assert grid(axis_types={"model": AxisType.Explicit}).axis_types == (AxisType.Auto, AxisType.Explicit)


@pytest.mark.parametrize(
    ("axes", "texts"),
    [
        ({}, ["no axis", "jv.placement.mesh(data=-1)"]),
        ({"data": 3}, ["there are 8 devices", "mesh(devices=jax.devices()[:3], data=3)"]),
        ({"data": 4, "model": 4}, ["data=4 x model=4 makes 16"]),
        ({"data": -1, "model": -1}, ["only one size may be -1"]),
        ({"data": -1, "model": 3}, ["model=3 does not divide the 8 devices"]),
        ({"data": 0, "model": "2"}, ["data=0", "model='2'"]),
        ({"data": 9, "axis_types": {"modle": AxisType.Auto}}, ["data=9", "no axis 'modle'"]),
        ({"data": 8, "axis_types": "auto"}, ["axis_types='auto'", "AxisType"]),
    ],
)
def test_mesh_refuses_all_at_once(axes, texts):
    with pytest.raises(InvalidArgumentError) as caught:
        jv.placement.mesh(**axes)
    assert all(text in str(caught.value) for text in texts), str(caught.value)


def test_batch():
    mesh = grid()
    tree = jv.placement.batch(mesh, {"x": np.arange(16.0).reshape(8, 2), "n": 3})
    assert spread(tree) == {"x": P("data"), "n": P()}
    np.testing.assert_array_equal(tree["x"], np.arange(16.0).reshape(8, 2))
    assert jv.placement.batch(mesh, np.ones(8), ("data", "model")).sharding.spec == P(("data", "model"))
    with pytest.raises(InvalidArgumentError, match=r"not a multiple of 4 .*\n  \['x'\]: shape \(6, 2\)"):
        jv.placement.batch(mesh, {"x": np.ones([6, 2])})
    with pytest.raises(InvalidArgumentError, match=r"no axis 'dat' \(nearest: data\)"):
        jv.placement.batch(mesh, np.ones(8), "dat")


# strategies


def op(name, *shape, partitions=None):
    return VariableOp(name, "", shape, np.dtype("float32"), None, partitions=partitions)


BOTH = jv.placement.fsdp(min_size=0, after=jv.placement.tensor_parallel())


@pytest.mark.parametrize(
    ("strategy", "asked", "spec"),
    [
        (jv.placement.replicated(), op("w", 8, 8), P()),
        (jv.placement.data_parallel(), op("w", 8, 8), P()),
        (jv.placement.fsdp(), op("w", 8, 8), P()),
        (jv.placement.fsdp(), op("w", 128, 128), P("data")),
        (jv.placement.fsdp(min_size=0), op("w", 6, 4), P(None, "data")),
        (jv.placement.fsdp(min_size=0), op("w", 6, 7), P(None, "data")),  # neither: the summary says so of the larger
        (jv.placement.fsdp(("data", "model"), 0), op("w", 4, 8), P(None, ("data", "model"))),
        (jv.placement.fsdp(min_size=0), op("s"), P()),
        (BOTH, op("dense/kernel", 6, 8), P("data", "model")),
        (BOTH, op("embeddings", 6, 8), P("model", "data")),
        (BOTH, op("dense/bias", 8), P("model")),  # no dimension is left
        (BOTH, op("scale", 8), P("data")),
        (jv.placement.fsdp(after=jv.placement.tensor_parallel()), op("dense/kernel", 6, 8), P(None, "model")),  # small
        (jv.placement.partitioned(), op("w", 8, 6), P()),
        (jv.placement.partitioned(), op("w", 8, 6, partitions=(1, 3)), P(None, "model")),
        (jv.placement.tensor_parallel(), op("conv/kernel", 3, 3, 4, 8), P(None, None, None, "model")),
        (jv.placement.tensor_parallel(), op("conv/bias", 8), P("model")),
        (jv.placement.tensor_parallel(), op("kernel", 8, 8), P(None, "model")),
        (jv.placement.tensor_parallel(), op("embedding/embeddings", 100, 8), P("model")),
        (jv.placement.tensor_parallel(), op("norm/gamma", 8), P()),
        (jv.placement.tensor_parallel({"down/": "row"}), op("down/kernel", 8, 4), P("model")),
        (jv.placement.tensor_parallel({"down/": "row"}), op("down/bias", 4), P()),
        (jv.placement.tensor_parallel({"down/": "row"}), op("up/kernel", 8, 4), P()),
        (jv.placement.tensor_parallel({"w": P("data"), ".*": jv.placement.fsdp(min_size=0)}), op("w", 8), P("data")),
        (jv.placement.tensor_parallel({"w": None, ".*": jv.placement.fsdp(min_size=0)}), op("v", 8), P("data")),
    ],
)
def test_strategies(strategy, asked, spec):
    assert strategy(asked, SIZES) == spec
    assert hash(strategy) == hash(strategy) and eval(repr(strategy), vars(jv.placement) | {"PartitionSpec": P, "P": P})


def test_tensor_parallel_knows_the_layers():
    """The names that `jv.layers` and the cells give are those that the strategy looks for."""

    def net(ids):
        x = jv.layers.Embedding(16, 8)(ids)
        x = jv.layers.dense(x, 8)
        _, state = jv.nn.dynamic_rnn(jv.nn.rnn_cell.LSTMCell(8), x, dtype=jnp.float32)
        return jv.layers.conv1d(x, 8, 3), state

    specs = placed(net, jv.placement.rule(grid(), jv.placement.tensor_parallel())).specs(jnp.zeros([4, 6], int))
    assert {len(spec) for name, spec in wanted(specs).items() if name.endswith("kernel")} == {2, 3}
    assert all("model" in spec for spec in wanted(specs).values()), wanted(specs)


def test_strategies_refuse():
    with pytest.raises(InvalidTypeError, match="axis is the name of a mesh axis"):
        jv.placement.fsdp(3)
    with pytest.raises(InvalidArgumentError, match="min_size is a number of elements"):
        jv.placement.fsdp(min_size=-1)
    with pytest.raises(InvalidTypeError, match="after is another strategy"):
        jv.placement.fsdp(after=P("model"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError, match=r"'column', 'row', a PartitionSpec"):
        jv.placement.tensor_parallel({"w": "columns"})


# rules in frames


def net(x, training=True):
    x = jv.layers.dense(x, 16, name="a")
    x = jv.layers.batch_normalization(x, training=training, name="bn")
    with jv.variable_scope("p", partitioner=jv.fixed_size_partitioner(3)):
        w = jv.get_variable("w", [16, 10])
    steps = jv.get_variable("steps", [], trainable=False, initializer=jv.zeros_initializer())
    steps.assign_add(1.0)
    u = jv.Variable(jnp.ones((16, 4)), name="u")
    local = jv.get_local_variable("local", [8], initializer=jv.zeros_initializer())
    return x @ w + u.sum() + local.sum()


FSDP = jv.placement.fsdp(min_size=0)
RULES = [(".*kernel", P("data", "model")), ("bn/.*", P("model")), ("p/w", jv.placement.partitioned("model"))]


@pytest.mark.parametrize("rules", [FSDP, RULES], ids=["fsdp", "rules"])
def test_a_model_on_a_mesh(rules):
    """Specs say it, init gives it with the bits of an unsharded init, and a step keeps it: eagerly and under jit."""
    mesh, x = grid(), np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    plain, model = jv.transform(net), placed(net, jv.placement.rule(mesh, rules))
    specs, expected = model.specs(x), plain.init(0, x)
    shardings = spread(specs)
    for variables in (model.init(0, x), jax.jit(model.init)(0, x)):
        same_values(variables, expected)
        assert spread(variables) == shardings and wanted(variables) == wanted(specs)
    variables = model.init(0, x)
    out, after = plain.apply(expected, x)
    for apply in (model.apply, jax.jit(model.apply))[rules is FSDP :]:  # eagerly once is enough
        found, moved = apply(variables, jv.placement.batch(mesh, x))
        np.testing.assert_allclose(found, out, rtol=1e-5, atol=1e-5)
        assert spread(moved) == shardings
        for name in after:
            np.testing.assert_allclose(moved[name], after[name], rtol=1e-5, atol=1e-5)
    if rules is RULES:
        assert shardings["a/kernel"] == P("data", "model") and shardings["bn/moving_mean"] == P("model")
        assert shardings["p/w"] == P("model") and shardings["u"] == P()
        assert model.specs(x).variable_specs["p/w"].partition == (0, 3)


def test_without_the_constraint_moving_averages_would_be_spread():
    """What `keeping` is for: XLA gives a moving average the sharding of the batch statistics."""
    mesh = grid()
    kernel, mean = jnp.ones([4, 8]), jnp.ones([8])
    kernel = jax.device_put(kernel, NamedSharding(mesh, P(None, "model")))
    mean = jax.device_put(mean, NamedSharding(mesh, P()))
    moved = jax.jit(lambda x, kernel, mean: 0.9 * mean + 0.1 * (x @ kernel).mean(0))(jnp.ones([8, 4]), kernel, mean)
    assert moved.sharding.spec == P("model")

    def net(x):
        with jv.device(jv.placement.rule(mesh, {"mean": None, ".*": P(None, "model")})):
            kernel = jv.get_variable("kernel", [4, 8])
        with jv.device(NamedSharding(mesh, P())):
            mean = jv.get_variable("mean", [8], trainable=False)
        return mean.assign(0.9 * mean + 0.1 * (x @ kernel).mean(0))

    model = jv.transform(net)
    _, after = jax.jit(model.apply)(model.init(0, jnp.ones([8, 4])), jnp.ones([8, 4]))
    assert after["mean"].sharding.spec == P()


def test_blocks_and_functions():
    mesh = grid()

    def net():
        with jv.device(jv.placement.rule(mesh, FSDP)):
            jv.get_variable("a", [8])
            with jv.device("/cpu:3"):
                jv.get_variable("inner_string_wins", [8])
            with jv.device(lambda op: NamedSharding(mesh, P("model"))):
                jv.get_variable("function", [8])
            with jv.device(jv.placement.rule(mesh, {"left": None})):
                jv.get_variable("left", [8])
                jv.get_variable("unmatched", [8])
            with jv.device(None):
                jv.get_variable("shut_out", [8])
        with (
            jv.device("/cpu:2"),
            jv.device(jv.placement.rule(mesh, lambda op: P("data") if op.shape == (8,) else None)),
        ):
            jv.get_variable("own", [8])
            jv.get_variable("none", [4])

    variables = jv.transform(net).init(0)
    assert {name: spec for name, spec in spread(variables).items() if spec is not None} == {
        "a": P("data"), "function": P("model"), "left": P("data"), "unmatched": P(), "own": P("data"),
    }  # fmt: skip
    assert variables["inner_string_wins"].device.id == 3 and variables["none"].device.id == 2
    assert wanted(variables)["shut_out"] is None


def test_a_partitioned_variable_is_asked_for_as_a_whole():
    asked = []

    def rule(op):
        asked.append((op.name, op.shape, op.partitions))
        return P("model")

    def net():
        return jv.get_variable("w", [5, 4], partitioner=jv.fixed_size_partitioner(2))[0]

    specs = placed(net, jv.placement.rule(grid(), rule)).specs()
    assert set(asked) == {("w", (5, 4), (2, 1))}
    # 5 rows in 2 pieces: TF1's slices may differ in length, JAX's may not, so it is whole everywhere.
    assert specs["w"].sharding.spec == P() and wanted(specs)["w"] == P("model")
    assert specs.summary().rows[0].left_out == "'model' (2) does not divide 5"


def test_a_store():
    mesh, x = grid(), jnp.ones([8, 4])
    with jv.VariableStore(0) as store, jv.device(jv.placement.rule(mesh, FSDP)):
        net(x)
    model = placed(net, jv.placement.rule(mesh, FSDP))
    assert spread(store.variables) == spread(model.specs(x))
    with store:
        jv.get_variable("steps", []).assign(2.0)
    assert spread(store.variables) == spread(model.specs(x))


@pytest.mark.parametrize("stacked", [None, "layers"])
def test_scan_layers(stacked):
    def layer(x):
        kernel = jv.get_variable("kernel", [8, 8])
        mean = jv.get_variable("mean", [8], trainable=False, initializer=jv.zeros_initializer())
        mean.assign_add(x.mean(0))
        return jnp.tanh(x @ kernel)

    def net(x):
        return jv.scan_layers("layer_{}", 2, stacked=stacked)(layer)(x)

    mesh, x = grid(), np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    model, plain = placed(net, jv.placement.rule(mesh, jv.placement.tensor_parallel())), jv.transform(net)
    variables, expected = model.init(0, x), plain.init(0, x)
    same_values(variables, expected)
    name = "layers/kernel" if stacked else "layer_1/kernel"
    assert variables[name].sharding.spec == (P(None, None, "model") if stacked else P(None, "model"))
    for apply in (model.apply, jax.jit(model.apply)):
        out, after = apply(variables, jv.placement.batch(mesh, x))
        np.testing.assert_allclose(out, plain.apply(expected, x)[0], rtol=1e-5, atol=1e-6)
        assert spread(after) == spread(variables)


# optimizers, averages, assignments


@pytest.mark.parametrize(
    "optimizer",
    [
        jv.train.AdamOptimizer(0.1),
        jv.train.Optimizer(optax.adafactor(0.1, min_dim_size_to_factor=2), name="Factored"),
    ],
    ids=["adam", "adafactor"],
)
def test_training_keeps_every_sharding_and_compiles_once(optimizer):
    def small(x):
        y = jv.layers.dense(x, 16, name="a")
        mean = jv.get_variable("mean", [16], trainable=False, initializer=jv.zeros_initializer())
        mean.assign(y.mean(0))
        return y

    mesh, x = grid(), jnp.ones([8, 4])
    model = placed(small, jv.placement.rule(mesh, RULES))
    average = jv.train.ExponentialMovingAverage(0.9)

    def made(rng):
        variables = average.init(optimizer.init(model.init(rng, x)))
        return jv.train.create_global_step(variables)

    variables = made(0)
    assert spread(jax.jit(made)(0))["a/kernel/ExponentialMovingAverage"] == P("data", "model")
    for name, slot in variables.items():
        owner = name.partition("/kernel/")[0] + "/kernel"
        if "/kernel/" in name and slot.shape == variables[owner].shape:
            assert slot.sharding == variables[owner].sharding, name
    assert all(spec is not None for spec in spread(variables).values()), "all on the mesh, counters too"
    holes = optimizer.init(model.specs(x))
    assert {name: spec for name, spec in spread(variables).items() if name in holes} == spread(holes)

    def loss(variables, x):
        out, variables = model.apply(variables, x)
        return (out**2).mean(), variables

    def step(variables, x):
        (_, variables), gradients = jv.value_and_grad(loss, has_aux=True)(variables, x)
        return average.apply(optimizer.apply_gradients(gradients, variables, global_step="global_step"))

    batch = jv.placement.batch(mesh, x)
    jitted = jax.jit(step)
    after = jitted(jitted(variables, batch), batch)
    assert spread(after) == spread(variables)
    assert jitted._cache_size() == 1
    assert int(after["global_step"]) == 2


def test_an_eager_step():
    variables = jv.placement.apply(jv.Variables({"w": jnp.ones([8, 8])}), grid(), P("data"))
    optimizer = jv.train.MomentumOptimizer(0.1, 0.9)
    gradients = {"w": jax.device_put(jnp.ones([8, 8]), NamedSharding(grid(), P(None, "model")))}
    after = optimizer.apply_gradients(gradients, optimizer.init(variables))
    assert spread(after) == {"w": P("data"), "w/Momentum": P("data")}


def test_averages_inside_a_model_lie_beside_their_variables():
    def net(x):
        y = jv.layers.dense(x, 16, name="a")
        jv.train.ExponentialMovingAverage(0.9).apply()
        return y

    variables = placed(net, jv.placement.rule(grid(), jv.placement.tensor_parallel())).init(0, jnp.ones([8, 4]))
    assert spread(variables)["a/kernel/ExponentialMovingAverage"] == P(None, "model")
    assert wanted(variables)["a/bias/ExponentialMovingAverage"] == P("model")


def test_pure_assignments():
    mesh = grid()
    variables = jv.placement.apply(jv.Variables({"w": jnp.ones([8, 8])}), mesh, P("data"))
    value = jax.device_put(jnp.zeros([8, 8]), NamedSharding(mesh, P(None, "model")))
    for assign in (jv.assign, jv.assign_add):
        for function in (assign, jax.jit(assign, static_argnums=1)):
            assert function(variables, "w", value)["w"].sharding.spec == P("data")


def test_a_value_in_the_memory_of_the_host_stays_there():
    home = NamedSharding(grid(), P("data"), memory_kind="pinned_host")
    skip_without_results_on_the_host()
    model = placed(lambda: jv.get_variable("w", [8]).assign(jnp.ones([8])), home)
    variables = model.init(0)
    for found in (jax.jit(model.init)(0), jax.jit(model.apply)(variables)[1], model.apply(variables)[1]):
        assert found["w"].sharding == variables["w"].sharding == home


def test_what_nothing_on_the_mesh_is_part_of():
    """jit drops an argument that nobody uses, and with it the devices of the mesh."""
    variables = jv.placement.apply(jv.Variables({"w": jnp.ones([8])}), grid(), P("data"))
    assign = jax.jit(lambda variables, value: jv.assign(variables, "w", value))
    assert assign(variables, jnp.zeros([8]))["w"].sharding == variables["w"].sharding
    gradient = jax.jit(jax.grad(lambda value, variables: (assign(variables, value)["w"] ** 2).sum()))
    np.testing.assert_array_equal(gradient(jnp.arange(8.0), variables), 2 * np.arange(8.0))
    rows = jax.jit(jax.vmap(assign, in_axes=(None, 0)))(variables, jnp.ones([3, 8]))
    np.testing.assert_array_equal(rows["w"], np.ones([3, 8]))


def test_gradients_of_what_is_assigned():
    """The constraint on an assigned value is linear: gradients go through it."""
    mesh = grid()
    variables = jv.placement.apply(jv.Variables({"w": jnp.arange(8.0)}), mesh, P("data"))

    def loss(variables):
        return (jv.assign(variables, "w", variables["w"] ** 2)["w"]).sum()

    np.testing.assert_array_equal(jax.jit(jv.grad(loss))(variables)["w"], 2 * np.arange(8.0))


def test_packed_states_leave_out_what_is_spread():
    variables = jv.Variables({"a": jnp.ones([8]), "b": jnp.ones([8]), "w": jnp.ones([8, 8])})
    mesh = grid()
    packed = jv.placement.apply(variables.packed(), mesh, {"w": P("data"), ".*": P()})
    assert len(jax.tree.leaves(packed)) == 2 and packed["w"].sharding.spec == P("data")
    assert len(jax.tree.leaves(jv.placement.apply(variables.packed(), mesh, FSDP))) == 3
    added = jax.jit(lambda v: jv.assign_add(v, "a", jnp.ones([8])))(packed)
    assert added["w"].sharding.spec == P("data") and float(added["a"].sum()) == 16


# apply


def state():
    values = {
        name: jnp.ones([8, 4]) for name in ("a/w", "a/w/Adam", "train/a/w/Adam_1", "a/w/ExponentialMovingAverage")
    }
    state = jv.Variables(values | {"a/b": jnp.ones([4]), "counter": jnp.zeros([], "int32")})
    return state.with_trainable({"a/[wb]": True, ".*": False})


def test_owners():
    found = owners(state().variable_specs)
    assert found == dict.fromkeys(["a/w/Adam", "train/a/w/Adam_1", "a/w/ExponentialMovingAverage"], "a/w")


def test_apply_to_a_state():
    mesh, before = grid(), state()
    after = jv.placement.apply(before, mesh, [("a/w", P("data", "model")), (".*/Adam", P("model")), (".*", P("data"))])
    same_values(after, before)
    assert type(after) is type(before) and after._layout == before._layout
    # A slot follows its variable where the rule that matches it would match that too, as a catch-all does.
    assert spread(after) == {
        "a/b": P("data"), "a/w": P("data", "model"), "a/w/Adam": P("model"), "counter": P(),
        "a/w/ExponentialMovingAverage": P("data", "model"), "train/a/w/Adam_1": P("data", "model"),
    }  # fmt: skip
    again = jv.placement.apply(after, mesh, [("a/w", P("data", "model")), (".*/Adam", P("model")), (".*", P("data"))])
    assert all(new is old for new, old in zip(again._leaves, after._leaves, strict=True)), "nothing is copied"


def test_apply_leaves_alone_and_goes_to_another_mesh():
    mesh, before = grid(), state()
    after = jv.placement.apply(before, mesh, [("a/b", None), (".*", P("data"))])
    assert after["a/b"] is before["a/b"]
    other = jv.placement.mesh(devices=jax.devices()[:2], data=2)
    moved = jv.placement.apply(after, other)
    same_values(moved, before)
    assert spread(moved) == {**spread(after), "a/b": P()} and moved["a/w"].sharding.mesh == other
    narrow = jv.placement.apply(after, jv.placement.mesh(devices=jax.devices()[:1], one=1))
    assert set(spread(narrow).values()) == {P()}
    assert wanted(narrow)["a/w"] == P("data"), "the wish stays, for the next mesh"


def test_a_mesh_of_other_axes_or_other_memory_is_another_place():
    variables = jv.placement.apply(jv.Variables({"w": jnp.ones([8])}), grid(), P("data"))
    explicit = jv.placement.apply(variables, grid(axis_types=AxisType.Explicit), P("data"))
    assert jax.typeof(explicit["w"]).sharding.spec == P("data")
    named = jv.placement.apply(variables, jv.placement.mesh(rows=4, columns=2), P("rows"))
    assert named["w"].sharding.spec == P("rows")
    host = NamedSharding(grid(), P("data"), memory_kind="pinned_host")
    on_host = variables.replace({"w": jax.device_put(variables["w"], host)})
    assert jv.placement.apply(on_host, grid(), P("data"))["w"].sharding == variables["w"].sharding


def test_apply_to_specs_and_under_jit():
    mesh, x = grid(), jnp.ones([8, 4])
    model = jv.transform(net)
    specs = jv.placement.apply(model.specs(x), mesh, RULES)
    assert spread(specs)["p/w"] == P("model"), "the note of the partitioner is enough"
    variables = model.init(0, x, variables=specs)
    assert spread(variables) == spread(specs)
    same_values(variables, model.init(0, x))
    under_jit = jax.jit(lambda variables: jv.placement.apply(variables, mesh, RULES))(model.init(0, x))
    assert spread(under_jit) == spread(specs)


def test_random_keys_and_empty_values():
    variables = jv.Variables({"key": jax.random.split(jax.random.key(0), 8), "empty": jnp.zeros([0, 4])})
    after = jv.placement.apply(variables, grid(), P("data"))
    assert spread(after) == {"key": P("data"), "empty": P("data")}


@pytest.mark.parametrize(
    ("arguments", "error", "texts"),
    [
        ((P("modle"),), InvalidArgumentError, ["data=4, model=2", "no axis 'modle' (nearest: model)"]),
        (
            ([("a/w", P("dat")), ("a/b", P("data", "data")), (".*", jv.placement.fsdp("all"))],),
            InvalidArgumentError,
            ["no axis 'dat' (nearest: data)", "rule 2", "named twice", "rule 3", "no axis 'all'"],
        ),
        (({"a/c": P(), "b": P()},), NotFoundError, ["2 of 2 rules match none", "nearest: a/"]),
        (({"a/w": "model", "a/b": 3},), InvalidTypeError, ['("a/w", "model")', '("a/b", 3)', "PartitionSpec(None"]),
        ((lambda op: "data",), InvalidTypeError, ["returned 'data' for variable a/b", "PartitionSpec"]),
    ],
)
def test_apply_refuses_all_at_once(arguments, error, texts):
    with pytest.raises(error) as caught:
        jv.placement.apply(state(), grid(), *arguments)
    assert all(text in str(caught.value) for text in texts), str(caught.value)


def test_wrong_calls():
    with pytest.raises(InvalidTypeError, match="takes Variables, a state or the specs of one, got dict"):
        jv.placement.apply({"w": jnp.ones(3)}, grid(), FSDP)
    with pytest.raises(InvalidTypeError, match="the mesh comes first, got fsdp"):
        jv.placement.apply(state(), FSDP, grid())
    with pytest.raises(InvalidTypeError, match=r"must return a device string or a jax.sharding.Sharding"):
        placed(net, lambda op: 3).specs(jnp.ones([8, 4]))


# replica_device_setter


def test_replica_device_setter_over_a_mesh():
    mesh = grid()
    big = jv.train.replica_device_setter(mesh=mesh)(op("w", 256, 128))
    assert big == NamedSharding(mesh, P("data"))
    rule = jv.train.replica_device_setter(mesh=mesh, ps_strategy=jv.placement.partitioned("model"))
    assert spread(placed(net, rule).specs(jnp.ones([8, 4])))["p/w"] == P("model")
    other = jv.placement.mesh(devices=jax.devices()[:2], ps=2)
    assert jv.train.replica_device_setter(mesh=other)(op("w", 256, 128)) == NamedSharding(other, P("ps"))
    with pytest.raises(InvalidArgumentError, match="two answers to one question"):
        jv.train.replica_device_setter(mesh=mesh, ps_tasks=2)
    with pytest.raises(InvalidTypeError, match=r"ps_strategy=jv.placement.fsdp\(\)"):
        greedy = jv.train.GreedyLoadBalancingStrategy(2, jv.train.byte_size_load_fn)
        jv.train.replica_device_setter(mesh=mesh, ps_strategy=greedy)
    with pytest.raises(InvalidTypeError, match="spreads variables over a mesh"):
        jv.train.replica_device_setter(ps_tasks=2, ps_strategy=FSDP)
    with pytest.raises(InvalidArgumentError, match=r"jv.train.replica_device_setter: the mesh has axes"):
        jv.train.replica_device_setter(mesh=mesh, ps_strategy=jv.placement.fsdp("dat"))


# the summary


def test_summary_says_what_was_left_out():
    mesh = grid()
    shapes = {"b": (8,), "odd": (10, 4), "w": (8, 4)}
    variables = jv.Variables({name: jnp.ones(shape, jnp.float32) for name, shape in shapes.items()})
    summary = jv.placement.apply(variables, mesh, P("data", "model")).summary()
    assert [(row.sharding, row.left_out) for row in summary.rows] == [
        ("('data',) over data=4, model=2", "('data', 'model') trimmed to rank 1"),
        ("(None, 'model') over data=4, model=2", "'data' (4) does not divide 10"),
        ("('data', 'model') over data=4, model=2", ""),
    ]
    assert summary.rows[0].device == "('data', 'model')"
    assert (summary.totals[-1].bytes, summary.totals[-1].device_bytes) == (320, 8 + 80 + 16)
    assert "left out" in str(summary) and "bytes per device" in summary._repr_html_()
    specs = jv.placement.apply(jv.transform(net).specs(jnp.ones([8, 4])), mesh, FSDP)
    assert specs.summary().rows[0].sharding == "uninitialized, ('data',) over data=4, model=2"
    assert "left out" not in str(variables.summary()) and "per device" not in str(variables.summary())


# abstract meshes and Explicit axes


def test_an_abstract_mesh():
    abstract, x = AbstractMesh((4, 2), ("data", "model")), jnp.ones([8, 4])
    model = placed(net, jv.placement.rule(abstract, RULES))
    specs = model.specs(x)
    assert spread(specs)["a/kernel"] == P("data", "model")
    assert str(specs.summary()).count("over data=4, model=2") == len(specs)
    assert jv.placement.apply(specs, abstract, FSDP)["u"].sharding.mesh == abstract
    with pytest.raises(InvalidArgumentError, match=r"(?s)AbstractMesh.*jv.placement.mesh\(data=4, model=2\)"):
        model.init(0, x)
    variables = model.init(0, x, variables=jv.placement.apply(specs, grid()))
    assert spread(variables) == spread(specs)
    with jax.set_mesh(grid()):
        under = model.init(0, x)
    assert spread(under) == spread(specs) and under["u"].is_fully_addressable
    same_values(under, jv.transform(net).init(0, x))
    with pytest.raises(InvalidArgumentError, match="have values, which need devices"):
        jv.placement.apply(variables, abstract, FSDP)


@pytest.mark.parametrize(
    "kinds", [AxisType.Explicit, {"data": AxisType.Explicit}, {"model": AxisType.Explicit}], ids=str
)
def test_explicit_axes(kinds):
    mesh = grid(axis_types=kinds)

    def net():
        w = jv.get_variable("w", [8, 4])
        sums = jv.get_variable("sums", [8], trainable=False, initializer=jv.zeros_initializer())
        sums.assign_add(jnp.ones([8]))
        return w

    rules = {"w": P("data", "model"), "sums": P("data")}
    model = placed(net, jv.placement.rule(mesh, rules))
    variables = model.init(0)
    expected = spread(variables)
    assert expected == rules
    same_values(variables, jv.transform(net).init(0))
    with jax.set_mesh(mesh):
        assert spread(jax.jit(model.init)(0)) == expected
        moved = jax.jit(lambda variables: jv.placement.apply(variables, mesh, P("model")))(variables)
    assert spread(moved)["sums"] == P("model")
    optimizer = jv.train.AdamOptimizer(0.1)
    trained = optimizer.init(variables)
    gradients = jax.tree.map(jnp.ones_like, variables.trainable)
    for found in (
        model.apply(variables)[1],
        jax.jit(model.apply)(variables)[1],
        jax.jit(lambda v: jv.assign(v, "sums", jnp.ones([8])))(variables),
        jax.jit(optimizer.apply_gradients)(gradients, trained),
    ):
        assert {name: found[name].sharding.is_equivalent_to(variables[name].sharding, variables[name].ndim)
                for name in variables} == {"w": True, "sums": True}  # fmt: skip

"""Packed states: everything that can be done with a state gives the same values, in fewer arrays."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from jaxvars.placement.packed import PackedVariables

LAYERS = 6


def net(x: jax.Array) -> jax.Array:
    for i in range(LAYERS):
        with jv.variable_scope(f"layer_{i}"):
            w = jv.get_variable("w", [4, 4])
            b = jv.get_variable("b", [4], initializer=jv.zeros_initializer())
            mean = jv.get_variable("mean", [4], trainable=False, initializer=jv.zeros_initializer())
            x = jnp.tanh(x @ w + b[None])
            mean.assign(0.9 * mean + 0.1 * x.mean(0))
    return x


MODEL = jv.transform(net)
X = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)


def loss(variables: jv.Variables, x: jax.Array) -> tuple[jax.Array, jv.Variables]:
    out, variables = MODEL.apply(variables, x)
    return (out**2).sum(), variables


@pytest.fixture(scope="module")
def plain() -> jv.Variables:
    return MODEL.init(0, X)


@pytest.fixture(scope="module")
def packed(plain: jv.Variables) -> jv.Variables:
    return plain.packed()


def leaf_count(tree: Any) -> int:
    return len(jax.tree.leaves(tree))


def assert_same(left: jv.Variables, right: jv.Variables, rtol: float = 0.0) -> None:
    assert list(left) == list(right)
    for key in left:
        assert left[key].dtype == right[key].dtype
        np.testing.assert_allclose(left[key], right[key], rtol=rtol, atol=rtol, err_msg=key)


# What a packed state is


def test_names_specs_and_values_stay(plain: jv.Variables, packed: jv.Variables) -> None:
    assert leaf_count(packed) == 2  # trainable and not
    assert isinstance(packed, jv.Variables)
    assert packed.variable_specs == plain.variable_specs
    assert (packed.size, packed.nbytes, len(packed)) == (plain.size, plain.nbytes, len(plain))
    assert packed.uninitialized == ()
    assert str(packed.summary()) == str(plain.summary())
    assert_same(plain, packed)
    assert_same(plain, packed.unpacked())
    assert "packed: 18 in 2 buffers, 0 alone" in repr(packed)
    assert plain.unpacked() is plain


def test_key_paths_name_the_variables(packed: jv.Variables) -> None:
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(packed)[0]]
    assert paths == ["['layer_0/b and 11 more']", "['layer_0/mean and 5 more']"]


def test_what_differs_in_kind_lies_apart() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    values: dict[str, Any] = {}
    for i in range(3):
        values[f"float/{i}"] = jnp.ones(3) * i
        values[f"int/{i}"] = jnp.arange(2) + i
        values[f"bool/{i}"] = jnp.array([True, False])
        values[f"half/{i}"] = jnp.ones(2, jnp.bfloat16)
        values[f"large/{i}"] = jnp.ones(100)
        values[f"empty/{i}"] = jnp.ones((0, 2))
        values[f"key/{i}"] = jax.random.key_data(jax.random.key(i))
        values[f"hole/{i}"] = jax.ShapeDtypeStruct((2,), "float32")
        values[f"spread/{i}"] = jax.device_put(jnp.arange(8.0), spread)
        values[f"everywhere/{i}"] = jax.device_put(jnp.arange(4.0), everywhere)
        values[f"elsewhere/{i}"] = jax.device_put(jnp.arange(4.0), jax.devices()[3])
    plain = jv.Variables(values).freeze("half/")
    packed = plain.packed(max_bytes=64)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(packed)[0]]
    buffers = {path.split("/")[0][2:] for path in paths if "more" in path}
    assert buffers == {"float", "int", "bool", "half", "key", "everywhere", "elsewhere"}
    for key in plain:
        if key.startswith("hole"):
            assert packed[key] == plain[key]
            continue
        np.testing.assert_array_equal(packed[key], plain[key])
        assert packed[key].sharding.is_equivalent_to(plain[key].sharding, plain[key].ndim), key
        assert packed[key].committed == plain[key].committed, key


def test_slots_lie_in_buffers_of_their_own(packed: jv.Variables) -> None:
    optimizer = jv.train.AdamOptimizer(1e-3)
    state = optimizer.init(packed)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
    assert [name for name in names if "Adam" in name] == [
        "['layer_0/b/Adam and 11 more']",
        "['layer_0/b/Adam_1 and 11 more']",
    ]


def test_wrong_arguments() -> None:
    variables = jv.Variables({"a": 1.0, "b": 2.0})
    with pytest.raises(InvalidArgumentError, match="size in bytes"):
        variables.packed(0)
    with pytest.raises(InvalidArgumentError, match="size in bytes"):
        variables.packed(max_bytes=True)
    with pytest.raises(NotFoundError, match="nothing"):
        variables.packed(separate={"nothing.*": 1})


# Under JAX


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_gradients_and_writes(wrap: Callable[..., Any], plain: jv.Variables, packed: jv.Variables) -> None:
    step = wrap(jv.value_and_grad(loss, has_aux=True))
    (value, after), gradients = step(plain, X)
    (packed_value, packed_after), packed_gradients = step(packed, X)
    np.testing.assert_allclose(value, packed_value, rtol=1e-6)
    assert jax.tree.structure(packed_after) == jax.tree.structure(packed)
    assert jax.tree.structure(packed_gradients) == jax.tree.structure(packed.trainable)
    assert_same(after, packed_after, 1e-6)
    assert_same(gradients, packed_gradients, 1e-6)


def test_jax_grad_scan_cond_and_vmap(plain: jv.Variables, packed: jv.Variables) -> None:
    def run(variables: jv.Variables, x: jax.Array) -> Any:
        def body(variables: jv.Variables, x: jax.Array) -> tuple[jv.Variables, jax.Array]:
            value, variables = loss(variables, x)
            variables = jax.lax.cond(
                value > 1.0, lambda v: jv.assign_add(v, "layer_3/b", jnp.ones(4)), lambda v: v, variables
            )
            return variables, value

        return jax.lax.scan(body, variables, jnp.stack([x, 2 * x]))

    after, values = jax.jit(run)(plain, X)
    packed_after, packed_values = jax.jit(run)(packed, X)
    np.testing.assert_allclose(values, packed_values, rtol=1e-6)
    assert_same(after, packed_after, 1e-6)

    grown = jax.vmap(lambda scale: jax.tree.map(lambda leaf: leaf * scale, packed))(jnp.arange(3.0))
    assert grown["layer_5/w"].shape == (3, 4, 4)
    np.testing.assert_array_equal(grown["layer_5/w"][2], 2 * plain["layer_5/w"])
    np.testing.assert_array_equal(grown.unpacked()["layer_5/w"], grown["layer_5/w"])

    gradient = jax.grad(lambda v: loss(v, X)[0])(packed)
    assert jax.tree.structure(gradient) == jax.tree.structure(packed)


@pytest.mark.slow
def test_more_variables_than_are_joined_in_one_step() -> None:
    plain = jv.Variables({f"v{i}": jnp.arange(i % 4 + 1.0) + i for i in range(100)})
    packed = jax.jit(lambda v: v.packed())(plain)
    assert leaf_count(packed) == 1
    assert_same(plain, packed)
    assert_same(plain, jax.jit(lambda v: v.unpacked())(packed))
    gradient = jax.jit(jax.grad(lambda v: sum((value**2).sum() for value in v.values())))(packed)
    assert_same(jax.tree.map(lambda leaf: 2 * leaf, plain), gradient)


def test_packing_inside_jit(plain: jv.Variables) -> None:
    packed = jax.jit(lambda v: v.packed())(plain)
    assert_same(plain, packed)
    assert leaf_count(packed) == 2
    assert_same(plain, jax.jit(lambda v: v.unpacked())(packed))


def test_a_closure_leaks_no_tracer(packed: jv.Variables) -> None:
    fresh = packed.unpacked().packed()
    total = jax.jit(lambda x: sum(value.sum() for value in fresh.values()) + x)
    first = total(1.0)
    assert all(not isinstance(leaf, jax.core.Tracer) for leaf in fresh._leaves)
    np.testing.assert_allclose(first, sum(float(value.sum()) for value in fresh.values()) + 1, rtol=1e-5)


def test_no_retrace_and_few_arguments(packed: jv.Variables) -> None:
    traces: list[int] = []

    @jax.jit
    def step(variables: jv.Variables) -> jv.Variables:
        traces.append(len(jax.tree.leaves(variables)))
        return jax.tree.map(lambda leaf: leaf + 1, variables)

    state = step(step(packed))
    step(pickle.loads(pickle.dumps(state)))
    step(jv.assign(state, "layer_0/b", jnp.ones(4)))
    step(state.unpacked().packed())
    assert traces == [2]


def test_donation(plain: jv.Variables) -> None:
    packed = plain.packed()
    kept = packed["layer_0/w"]
    step = jax.jit(lambda v: jax.tree.map(lambda leaf: leaf + 1, v), donate_argnums=0)
    after = step(packed)
    np.testing.assert_array_equal(kept, plain["layer_0/w"])  # a copy, not a view of what was donated
    np.testing.assert_array_equal(after["layer_0/w"], plain["layer_0/w"] + 1)
    with pytest.raises(FailedPreconditionError, match='"layer_1/w" is gone'):
        packed["layer_1/w"]
    with pytest.raises(FailedPreconditionError, match="is gone"):
        MODEL.apply(packed, X)


def test_the_jaxpr_of_a_step_has_no_slice_per_gradient(packed: jv.Variables) -> None:
    jaxpr = str(jax.make_jaxpr(jax.grad(lambda v: loss(v, X)[0]))(packed.trainable | packed))
    assert "pad[" not in jaxpr and "scatter" not in jaxpr


# Edits


EDITS: dict[str, Callable[[jv.Variables], jv.Variables]] = {
    "replace": lambda v: v.replace({"layer_3/b": [1, 2, 3, 4], "layer_4/b": jnp.ones(4)}),
    "replace by a hole": lambda v: v.replace({"layer_3/b": jax.ShapeDtypeStruct((4,), "float32")}),
    "merge a dict": lambda v: v | {"new": 1.0, "layer_3/b": np.ones(4, np.float32)},
    "merge a state": lambda v: v | jv.Variables({"new": 1.0}),
    "freeze": lambda v: v.freeze("layer_3/"),
    "with_trainable": lambda v: v.with_trainable({"layer_3/.*": False}),
    "rename": lambda v: v.rename({r"layer_(\d)/(.*)": r"block_\1/\2"}),
    "astype": lambda v: v.astype(jnp.bfloat16),
    "astype of some": lambda v: v.astype({"layer_3/.*": jnp.float16}),
    "copy_scope": lambda v: v.copy_scope("layer_3", "copy"),
    "to a device": lambda v: v.to(jax.devices()[1]),
    "assign": lambda v: jv.assign(v, "layer_3/b", [1, 2, 3, 4]),
    "assign another shape": lambda v: jv.assign(v, "layer_3/b", jnp.ones(2), validate_shape=False),
    "assign_add": lambda v: jv.assign_add(v, "layer_3/b", jnp.ones(4)),
    "assign_add, donated": lambda v: jv.assign_add(jax.tree.map(jnp.copy, v), "layer_3/b", jnp.ones(4), donate=True),
    "scatter_update": lambda v: jv.scatter_update(v, "layer_3/w", [1], jnp.ones((1, 4))),
    "scope": lambda v: v.scope("layer_3"),
    "select": lambda v: v.select([("layer_3/", None), "layer_.*/w"]),
    "collection": lambda v: v.collection("variables", scope="layer_1"),
    "trainable": lambda v: v.trainable,
    "non_trainable": lambda v: v.non_trainable,
    "global_step": lambda v: jv.train.create_global_step(v),
    "a view put back": lambda v: v | jax.tree.map(lambda leaf: 2 * leaf, v.trainable),
    "initialized": lambda v: MODEL.init(
        1, X, variables=v.replace({"layer_3/b": jax.ShapeDtypeStruct((4,), "float32")})
    ),
    "filled": lambda v: jv.variables_initializer(v, 0),
    "nested": lambda v: jv.Variables.from_nested(v.to_nested()),
    "pickled": lambda v: pickle.loads(pickle.dumps(v)),
    "constructed": lambda v: jv.Variables(v),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_do_what_they_do_unpacked(name: str, plain: jv.Variables, packed: jv.Variables) -> None:
    edit = EDITS[name]
    left, right = edit(plain), edit(packed)
    assert list(left) == list(right)
    assert left.variable_specs == right.variable_specs
    for key in left:
        if isinstance(left[key], jax.ShapeDtypeStruct):
            assert left[key] == right[key]
        else:
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)
    assert left.trainable.keys() == right.trainable.keys()


@pytest.mark.parametrize("name", ["replace", "freeze", "rename", "astype", "copy_scope", "merge a dict", "assign",
                                  "trainable", "a view put back", "global_step", "filled", "to a device"])  # fmt: skip
def test_what_is_made_of_a_packed_state_is_packed(name: str, packed: jv.Variables) -> None:
    assert leaf_count(EDITS[name](packed)) <= 8


def test_an_assignment_leaves_other_buffers_alone(packed: jv.Variables) -> None:
    after = jv.assign(packed, "layer_3/b", jnp.ones(4))
    same = [old is new for old, new in zip(jax.tree.leaves(packed), jax.tree.leaves(after), strict=True)]
    assert same == [False, True]


def test_a_merge_of_a_view_keeps_the_rest(packed: jv.Variables) -> None:
    merged = packed | jax.tree.map(lambda leaf: leaf * 2, packed.trainable)
    assert jax.tree.structure(merged) == jax.tree.structure(packed)
    assert jax.tree.leaves(merged)[1] is jax.tree.leaves(packed)[1]


def test_masks_and_labels(packed: jv.Variables) -> None:
    assert jax.tree.structure(packed.mask("layer_.*")) == jax.tree.structure(packed)
    with pytest.raises(InvalidArgumentError, match=r"cannot be told apart(.|\n)*separate="):
        packed.mask(".*/w")
    apart = packed.packed(separate={".*/w": "decay"})
    mask = apart.mask(".*/w")
    assert jax.tree.structure(mask) == jax.tree.structure(apart)
    assert mask["layer_3/w"] is True and mask["layer_3/b"] is False
    labels = apart.labels({".*/w": "slow"}, default="fast")
    assert labels["layer_3/w"] == "slow"
    assert leaf_count(apart.freeze("layer_3/")) == 4  # packed by the same rules again


def test_a_function_of_single_variables_is_refused(packed: jv.Variables) -> None:
    sums = jax.tree.map(jnp.sum, packed)
    with pytest.raises(InvalidArgumentError, match=r"packed into one buffer(.|\n)*unpacked"):
        sums["layer_0/b"]


# Training and files


def optimizers() -> dict[str, Any]:
    return {
        "Adam": jv.train.AdamOptimizer(1e-2),
        "decaying": jv.train.GradientDescentOptimizer(jv.train.exponential_decay(0.1, decay_steps=2, decay_rate=0.5)),
        "adamw": jv.train.Optimizer(optax.adamw(1e-2), name="W", elementwise=True),
        "lars": jv.train.Optimizer(optax.lars(1e-2), name="L"),  # norms of single variables
        "some": jv.train.AdamOptimizer(1e-2, var_list=[f"layer_{i}/w" for i in range(5)]),
    }


@pytest.mark.parametrize("name", optimizers())
def test_training(name: str, plain: jv.Variables, packed: jv.Variables) -> None:
    optimizer, average = optimizers()[name], jv.train.ExponentialMovingAverage(0.9)
    wrt = optimizer._var_list

    @jax.jit
    def step(variables: jv.Variables, x: jax.Array) -> jv.Variables:
        (_, variables), gradients = jv.value_and_grad(loss, has_aux=True, wrt=wrt)(variables, x)
        return average.apply(optimizer.apply_gradients(gradients, variables, global_step="global_step"))

    states = [jv.train.create_global_step(average.init(optimizer.init(v))) for v in (plain, packed)]
    structures = [jax.tree.structure(state) for state in states]
    for _ in range(2):
        states = [step(state, X) for state in states]
    assert [jax.tree.structure(state) for state in states] == structures
    assert_same(*states, 1e-5)
    assert_same(*[average.averaged(state) for state in states], 1e-5)
    assert_same(*[optimizer.slots(state) for state in states], 1e-5)
    assert leaf_count(states[1]) < 25
    assert optimizer.init(states[1]) is states[1]


def test_adam_takes_a_few_operations_whatever_the_number_of_variables(plain: jv.Variables) -> None:
    optimizer = jv.train.AdamOptimizer(1e-2)

    def equations(state: jv.Variables) -> int:
        gradients = jax.tree.map(jnp.ones_like, state.trainable)
        return len(jax.make_jaxpr(optimizer.apply_gradients)(gradients, optimizer.init(state)).jaxpr.eqns)

    half = plain.select([rf"layer_{i}/.*" for i in range(LAYERS // 2)])
    assert equations(plain.packed()) == equations(half.packed()) < equations(half)


def test_optax_by_hand(plain: jv.Variables, packed: jv.Variables) -> None:
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))

    @jax.jit
    def step(variables: jv.Variables, state: Any) -> tuple[jv.Variables, Any]:
        (_, variables), gradients = jv.value_and_grad(loss, has_aux=True)(variables, X)
        updates, state = tx.update(gradients, state, variables.trainable)
        return variables | optax.apply_updates(variables.trainable, updates), state

    ends = []
    for variables in (plain, packed):
        state = tx.init(variables.trainable)
        for _ in range(2):
            variables, state = step(variables, state)
        ends.append(variables)
        if variables is not plain:
            count = leaf_count(state)
    assert_same(*ends, 1e-5)
    assert count == 3  # mu, nu and the count


@pytest.mark.parametrize("format", ["orbax", "npz", "tf"])
def test_checkpoints(format: str, tmp_path: Any, plain: jv.Variables, packed: jv.Variables) -> None:
    path = jv.checkpoint.save(packed, tmp_path / "saved", format=format)
    assert sorted(jv.checkpoint.open(path)) == sorted(plain)
    into_plain = jv.checkpoint.restore(path, jax.tree.map(jnp.zeros_like, plain))
    into_packed = jv.checkpoint.restore(path, jax.tree.map(jnp.zeros_like, packed))
    assert_same(plain, into_plain)
    assert_same(plain, into_packed)
    assert jax.tree.structure(into_packed) == jax.tree.structure(packed)
    saver = jv.train.Saver()
    name = saver.save(packed, tmp_path / "run" / "model.ckpt")
    assert_same(plain, saver.restore(jax.tree.map(jnp.zeros_like, packed), name))


def test_a_store_over_a_packed_state(packed: jv.Variables) -> None:
    with jv.VariableStore(0, variables=packed) as store:
        with jv.variable_scope("layer_3"):
            b = jv.get_variable("b", [4])
            b.assign_add(jnp.ones(4))
        jv.get_variable("fresh", [2], initializer=jv.ones_initializer())
    np.testing.assert_array_equal(store.variables["layer_3/b"], jnp.ones(4))
    np.testing.assert_array_equal(store.variables["fresh"], jnp.ones(2))
    assert leaf_count(store.variables) == 2


SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
DTYPES = st.sampled_from(["float32", "bfloat16", "int32", "bool", "uint8", "complex64"])


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    variables=st.dictionaries(
        st.from_regex(r"[ab](/[abc]){0,2}", fullmatch=True), st.tuples(SHAPES, DTYPES), max_size=12
    ),
    frozen=st.integers(0, 2**12 - 1),
    limit=st.integers(1, 128),
    seed=st.integers(0, 100),
)
def test_any_state_packs_and_unpacks(
    variables: dict[str, tuple[tuple[int, ...], str]], frozen: int, limit: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    plain = jv.Variables(
        {key: jnp.asarray(random.integers(0, 100, shape)).astype(dtype) for key, (shape, dtype) in variables.items()}
    )
    plain = plain.with_trainable([(key, not (frozen >> i) & 1) for i, key in enumerate(plain)]) if len(plain) else plain
    packed = plain.packed(limit)
    assert isinstance(packed, PackedVariables)
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(packed)) == plain.size
    for group in packed._packing.groups:
        assert len({(plain[plain._layout.keys[i]].dtype, plain._layout.trainable[i]) for i in group.positions}) == 1
        assert all(plain[plain._layout.keys[i]].nbytes <= limit for i in group.positions)
    for state in (packed, packed.unpacked(), jax.jit(lambda v: v)(packed), pickle.loads(pickle.dumps(packed))):
        assert state.variable_specs == plain.variable_specs
        for key in plain:
            np.testing.assert_array_equal(state[key], plain[key])
    for key in list(plain)[:3]:
        changed = jv.assign(packed, key, jnp.zeros_like(plain[key]))
        for other in plain:
            np.testing.assert_array_equal(changed[other], 0 * plain[other] if other == key else plain[other])

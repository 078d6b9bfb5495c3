"""Optimizers, learning rate decays and the step counter, against figures that TensorFlow 1 recorded.

`tools/record_optimizer_goldens.py` made tests/golden/optimizers.json with `tf.compat.v1`.
"""

import json
import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from widths import INT

import jaxvars as jv
from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    NotFoundError,
    UnavailableError,
)
from jaxvars.spec import Hole, VariableSpec, is_hole

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optimizers.json").read_text())
NAMES = [
    "GradientDescentOptimizer",
    "MomentumOptimizer",
    "AdamOptimizer",
    "RMSPropOptimizer",
    "AdagradOptimizer",
    "AdadeltaOptimizer",
    "FtrlOptimizer",
]


def make(name, **kwargs):
    if name != "AdamOptimizer" and name != "AdadeltaOptimizer":
        kwargs = {"learning_rate": 0.1, **kwargs}
    if name == "MomentumOptimizer":
        kwargs = {"momentum": 0.9, **kwargs}
    return getattr(jv.train, name)(**kwargs)


@pytest.fixture
def variables():
    return jv.Variables({"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "b/w": np.ones(3, np.float32)})


def gradients_like(variables, value=1.0):
    return {key: jnp.full_like(variables[key], value) for key in ("a/w", "b/w")}


def assert_same(left, right):
    assert list(left) == list(right)
    for key in left:
        np.testing.assert_array_equal(np.asarray(left[key]), np.asarray(right[key]), err_msg=key)


# -- TF1's numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", list(GOLDEN["cases"]))
@pytest.mark.parametrize("jitted", [False, True])
def test_steps_are_tensorflows(case, jitted):
    golden = GOLDEN["cases"][case]
    states = golden["states"]
    optimizer = getattr(jv.train, golden["class"])(**golden["arguments"])
    variables = optimizer.init(jv.Variables({key: np.array(states[0][key], np.float32) for key in ("net/w", "net/b")}))
    step = jax.jit(optimizer.apply_gradients) if jitted else optimizer.apply_gradients
    for number, state in enumerate(states):
        if number:
            grads = {key: np.array(all_steps[number - 1], np.float32) for key, all_steps in GOLDEN["gradients"].items()}
            variables = step(grads, variables)
        assert sorted(variables) == sorted(state)
        for key, value in state.items():
            np.testing.assert_allclose(variables[key], np.float32(value), rtol=4e-6, atol=4e-7, err_msg=key)


def test_goes_on_from_any_step_of_tensorflow():
    """A run resumed from TensorFlow's state of step 2 ends where TensorFlow ended."""
    golden = GOLDEN["cases"]["adam"]
    optimizer = jv.train.AdamOptimizer()
    start = optimizer.init(jv.Variables({k: np.array(golden["states"][0][k], np.float32) for k in ("net/w", "net/b")}))
    variables = start._with_leaves(jnp.float32(golden["states"][2][key]) for key in start)
    for number in (2, 3):
        grads = {key: np.array(steps[number], np.float32) for key, steps in GOLDEN["gradients"].items()}
        variables = optimizer.apply_gradients(grads, variables)
    for key, value in golden["states"][4].items():
        np.testing.assert_allclose(variables[key], np.float32(value), rtol=4e-6, atol=4e-7)


@pytest.mark.parametrize("case", GOLDEN["schedules"], ids=lambda case: f"{case['name']}-{len(case['arguments'])}")
def test_decays_are_tensorflows(case):
    schedule = getattr(jv.train, case["name"])(**case["arguments"])
    jitted = jax.jit(schedule)
    for step, value in zip(case["steps"], case["values"], strict=True):
        np.testing.assert_allclose(schedule(step), value, rtol=2e-6, atol=1e-8)
        np.testing.assert_allclose(jitted(jnp.int32(step)), value, rtol=2e-6, atol=1e-8)
        position = "x" if case["name"] == "piecewise_constant" else "global_step"
        now = getattr(jv.train, case["name"])(**{position: jnp.int32(step)}, **case["arguments"])
        np.testing.assert_allclose(now, value, rtol=2e-6, atol=1e-8)


# -- names -----------------------------------------------------------------------------------------------


def check_names(key, variables):
    names = sorted(set(GOLDEN["names"][key]) - {"net/w", "net/b"})
    assert sorted(set(variables) - {"net/w", "net/b"}) == names


@pytest.fixture
def net():
    return jv.Variables({"net/w": jnp.ones((2, 3)), "net/b": jnp.ones(3)})


def test_two_adams_over_different_variables(net):
    first, second = jv.train.AdamOptimizer(var_list="net/w"), jv.train.AdamOptimizer(var_list="net/b")
    variables = second.init(first.init(net))
    check_names("apart", variables)
    after = second.apply_gradients({"net/b": jnp.ones(3)}, variables)
    assert float(after["beta1_power"]) == np.float32(0.9)
    np.testing.assert_allclose(after["beta1_power_1"], 0.81)
    after = first.apply_gradients({"net/w": jnp.ones((2, 3))}, after)
    np.testing.assert_allclose(after["beta1_power"], 0.81)
    np.testing.assert_allclose(after["beta1_power_1"], 0.81)


def test_two_adams_over_the_same_variables(net):
    first, second = (jv.train.AdamOptimizer(var_list="net/w", number=number) for number in (0, 1))
    variables = second.init(first.init(net))
    check_names("twice", variables)
    assert list(second.slots(variables)) == [
        "beta1_power_1",
        "beta2_power_1",
        "net/w/Adam_2",
        "net/w/Adam_3",
    ]
    after = second.apply_gradients({"net/w": jnp.ones((2, 3))}, variables)
    assert_same(first.slots(after), first.slots(variables))
    assert float(after["net/w/Adam_2"][0, 0]) != 0.0


def test_other_names_and_slots_without_shared_numbers(net):
    variables = net
    optimizers = [
        jv.train.AdamOptimizer(name="Mine", var_list="net/w"),
        jv.train.MomentumOptimizer(0.1, 0.9, var_list="net/w"),
        jv.train.MomentumOptimizer(0.1, 0.5, var_list="net/w", number=1),
    ]
    for optimizer in optimizers:
        variables = optimizer.init(variables)
    check_names("named", variables)
    after = optimizers[2].apply_gradients({"net/w": jnp.ones((2, 3))}, variables)
    assert float(after["net/w/Momentum"][0, 0]) == 0.0
    assert float(after["net/w/Momentum_1"][0, 0]) == 1.0


def test_two_adams_of_different_names(net):
    variables = jv.train.AdamOptimizer(var_list="net/w").init(net)
    mine = jv.train.AdamOptimizer(name="Mine", var_list="net/w")
    variables = mine.init(variables)
    assert {"beta1_power_1", "net/w/Mine", "net/w/Mine_1"} <= set(variables)
    after = mine.apply_gradients({"net/w": jnp.ones((2, 3))}, variables)
    assert float(after["beta1_power"]) == float(variables["beta1_power"])
    assert float(after["beta1_power_1"]) < float(variables["beta1_power_1"])


def test_names_survive_a_new_process(net):
    """New optimizer objects over unpickled variables find their own slots."""

    def pair():
        return jv.train.AdamOptimizer(var_list="net/w"), jv.train.AdamOptimizer(var_list="net/b")

    first, second = pair()
    variables = second.init(first.init(net))
    again = pickle.loads(pickle.dumps(variables))
    first, second = pair()
    assert second.init(first.init(again)) is again
    assert "beta1_power_1" in second.slots(again)
    assert "beta1_power" in first.slots(again)


def test_ftrl_slot_names(net):
    check_names("ftrl", jv.train.FtrlOptimizer(0.1, accum_name="acc", linear_name="lin", var_list="net/w").init(net))


def test_slot_flags(variables):
    result = make("AdamOptimizer").init(variables)
    for key in set(result) - set(variables):
        spec = result.variable_specs[key]
        assert not spec.trainable
        assert spec.collections == ("variables",)
        assert __file__ in spec.defined_at
    assert result._layout.creation_order[-6:] == (
        "beta1_power",
        "beta2_power",
        "a/w/Adam",
        "a/w/Adam_1",
        "b/w/Adam",
        "b/w/Adam_1",
    )


def test_get_slot(variables):
    optimizer = make("AdamOptimizer")
    result = optimizer.init(variables)
    assert optimizer.get_slot_names() == ["m", "v"]
    assert optimizer.get_slot(result, "a/w", "v") is result["a/w/Adam_1"]
    with pytest.raises(InvalidArgumentError, match="no slot 'momentum', only m, v"):
        optimizer.get_slot(result, "a/w", "momentum")


# -- any optax transformation ----------------------------------------------------------------------------

TRANSFORMATIONS = {
    "adam": optax.adam(0.1),
    "adamw_schedule": optax.adamw(optax.cosine_decay_schedule(0.1, 10), weight_decay=0.1),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9, nesterov=True)),
    "two_counts": optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(lambda n: -0.1 / (n + 1))),
    "adafactor": optax.adafactor(0.1, min_dim_size_to_factor=2),
    "lion": optax.lion(0.1),
    "inject": optax.inject_hyperparams(optax.rmsprop)(learning_rate=0.1, momentum=0.5),
    "multi_steps": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "noise": optax.chain(optax.add_noise(0.01, 0.5, 3), optax.sgd(0.1)),
    "masked": optax.masked(
        optax.adam(0.1),
        lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "a/w", tree),
    ),
    "partition": optax.partition(
        {"x": optax.adam(0.1), "y": optax.sgd(0.1, momentum=0.9)},
        lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: "xy"[path[0].key == "a/w"], tree),
    ),
    "ema": optax.chain(optax.sgd(0.1), optax.ema(0.9)),
}


@pytest.mark.parametrize("name", list(TRANSFORMATIONS))
def test_any_transformation_as_optax_does_it(name, variables):
    tx = TRANSFORMATIONS[name]
    optimizer = jv.train.Optimizer(tx)
    ours = optimizer.init(variables)
    params = dict(variables)
    state = tx.init(params)
    update = jax.jit(tx.update)
    step = jax.jit(optimizer.apply_gradients)
    for number in range(3):
        grads = {key: jnp.cos(params[key] + number) for key in params}
        ours = step(grads, ours)
        changes, state = update(grads, state, params)
        params = optax.apply_updates(params, changes)
        for key in params:
            np.testing.assert_allclose(ours[key], params[key], rtol=1e-6, atol=1e-7)
    leaves = jax.tree.leaves(optimizer.to_optax(ours))
    assert len(leaves) == len(jax.tree.leaves(state))
    assert not any(is_hole(leaf) or isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def test_field_names(variables):
    def names(tx, **kwargs):
        return sorted(set(jv.train.Optimizer(tx, **kwargs).init(variables)) - set(variables))

    assert names(optax.adam(0.1)) == [
        "Optimizer/count",
        "a/w/Optimizer/mu",
        "a/w/Optimizer/nu",
        "b/w/Optimizer/mu",
        "b/w/Optimizer/nu",
    ]
    assert names(optax.sgd(0.1, momentum=0.9), name="SGD", var_list="a/w") == ["a/w/SGD/trace"]
    assert names(TRANSFORMATIONS["two_counts"], var_list="a/w") == [
        "Optimizer/0/count",
        "Optimizer/1/count",
        "a/w/Optimizer/mu",
        "a/w/Optimizer/nu",
    ]
    assert "a/w/Optimizer/inner_states/y/inner_state/trace" in names(TRANSFORMATIONS["partition"])


def test_two_of_one_name_over_different_variables(variables):
    first, second = (jv.train.Optimizer(optax.adam(0.1), var_list=f"{scope}/w") for scope in "ab")
    state = second.init(first.init(variables))
    assert {"Optimizer/count", "Optimizer_1/count", "b/w/Optimizer_1/mu"} <= set(state)
    after = second.apply_gradients({"b/w": jnp.ones(3)}, state)
    assert (int(after["Optimizer/count"]), int(after["Optimizer_1/count"])) == (0, 1)


def test_to_and_from_optax(variables):
    optimizer = jv.train.Optimizer(optax.adam(0.1))
    started = optimizer.init(variables)
    state = optimizer.to_optax(started)
    params = jv.Variables(variables)
    _, state = optimizer.transformation.update(params, state, params)
    through_optax = optimizer.from_optax(state, started)
    assert int(through_optax["Optimizer/count"]) == 1
    np.testing.assert_allclose(through_optax["a/w/Optimizer/mu"], 0.1 * variables["a/w"], rtol=1e-6)
    directly = optimizer.apply_gradients(params, started)
    assert_same(optimizer.slots(directly), optimizer.slots(through_optax))
    assert_same(optimizer.from_optax(state, variables), through_optax)  # adds the slots as well
    with pytest.raises(InvalidArgumentError, match="no state of this optimizer"):
        optimizer.from_optax(optax.sgd(0.1).init(params), variables)


def test_extra_arguments_reach_the_transformation(variables):
    tx = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=0, factor=0.5, accumulation_size=1))
    optimizer = jv.train.Optimizer(tx)
    state = optimizer.init(variables)
    for value in (1.0, 2.0, 2.0):
        state = optimizer.apply_gradients(gradients_like(variables), state, value=value)
    assert float(state["Optimizer/scale"]) < 1.0


# -- init ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_init_again_keeps_everything(name, variables):
    optimizer = make(name)
    state = optimizer.apply_gradients(gradients_like(variables), optimizer.init(variables))
    assert optimizer.init(state) is state
    assert make(name).init(state) is state


def test_init_adds_slots_of_new_variables_only(variables):
    optimizer = make("AdamOptimizer")
    state = optimizer.apply_gradients(gradients_like(variables), optimizer.init(variables))
    spec = VariableSpec("c/w", (2,), np.float32)
    grown = jv.Variables.from_specs([*((state.variable_specs[key], state[key]) for key in state), (spec, jnp.zeros(2))])
    result = optimizer.init(grown)
    assert sorted(set(result) - set(grown)) == ["c/w/Adam", "c/w/Adam_1"]
    assert result["a/w/Adam"] is state["a/w/Adam"]
    assert float(result["beta1_power"]) == float(state["beta1_power"])


def test_holes_have_holes_for_slots_and_they_fill_themselves():
    specs = jv.Variables({"w": Hole((2,), np.float32)})
    optimizer = make("RMSPropOptimizer")
    holes = optimizer.init(specs)
    assert is_hole(holes["w/RMSProp"])
    filled = holes["w/RMSProp"].initializer(None, (2,), np.float32)
    np.testing.assert_array_equal(filled, [1.0, 1.0])
    assert optimizer.init(holes._set("w", jnp.ones(2)))["w/RMSProp"].tolist() == [1.0, 1.0]
    assert is_hole(jv.train.Optimizer(optax.adam(0.1)).init(specs)["Optimizer/count"])


def test_slots_take_dtype_and_sharding_of_their_variable():
    mesh = jax.make_mesh((len(jax.devices()),), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("x"))
    variables = jv.Variables({"w": jax.device_put(jnp.ones(16, jnp.bfloat16), sharding)})
    optimizer = make("AdamOptimizer", learning_rate=0.5)
    state = optimizer.init(variables)
    assert state["w/Adam"].dtype == jnp.bfloat16
    assert state["w/Adam"].sharding == sharding
    after = optimizer.apply_gradients({"w": jnp.ones(16, jnp.float32)}, state)
    assert after["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(after["w"], np.float32), 0.5, rtol=1e-2)


def test_init_in_jit_and_no_shared_buffers(variables):
    optimizer = jv.train.Optimizer(optax.chain(optax.adam(0.1), optax.ema(0.9)))
    outside, inside = optimizer.init(variables), jax.jit(optimizer.init)(variables)
    assert_same(outside, inside)
    step = jax.jit(optimizer.apply_gradients, donate_argnums=1)
    for state in (outside, inside):
        step(gradients_like(variables), state)
        assert all(state._leaves[i].is_deleted() for i in range(len(state)))
        variables = jv.Variables({"a/w": jnp.ones((2, 3)), "b/w": jnp.ones(3)})


def test_gradient_descent_needs_no_init(variables):
    after = make("GradientDescentOptimizer").apply_gradients(gradients_like(variables), variables)
    np.testing.assert_allclose(after["b/w"], 0.9)
    assert after._layout == variables._layout


# -- apply_gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_jit_donate_and_one_compilation(name, variables):
    optimizer = make(name)
    state = optimizer.init(variables)
    traces = []

    def loss(variables, x):
        traces.append(1)
        return jnp.mean((x @ variables["a/w"].T) ** 2) + jnp.sum(variables["b/w"] ** 2)

    def step(variables, x):
        value, grads = jv.value_and_grad(loss)(variables, x)
        return value, optimizer.apply_gradients(grads, variables)

    jitted = jax.jit(step, donate_argnums=0)
    x = jnp.ones((4, 3))
    expected = state
    for _ in range(5):
        first, expected = step(expected, x)
    traces.clear()
    state = jax.tree.map(jnp.copy, state)
    for _ in range(5):
        last, state = jitted(state, x)
    assert len(traces) == 1
    np.testing.assert_allclose(last, first, rtol=1e-4)
    assert last < 110.0
    assert state._layout == expected._layout


def test_missing_gradients_leave_variables_alone(variables):
    optimizer = make("MomentumOptimizer")
    state = optimizer.apply_gradients(gradients_like(variables), optimizer.init(variables))
    after = optimizer.apply_gradients({"a/w": jnp.ones((2, 3)), "b/w": None}, state)
    for key in ("b/w", "b/w/Momentum"):
        assert after[key] is state[key]
    assert float(after["a/w/Momentum"][0, 0]) == pytest.approx(1.9)


def test_pairs_as_in_tf1(variables):
    class Handle:
        key = "a/w"

    optimizer = make("GradientDescentOptimizer")
    pairs = [(jnp.ones((2, 3)), Handle()), (None, "b/w")]
    after = optimizer.apply_gradients(pairs, variables)
    np.testing.assert_allclose(after["a/w"], variables["a/w"] - 0.1, rtol=1e-6)
    assert after["b/w"] is variables["b/w"]


def test_global_step_counts(variables):
    optimizer = make("AdamOptimizer")
    state = optimizer.init(jv.train.create_global_step(variables))
    step = jax.jit(lambda grads, state: optimizer.apply_gradients(grads, state, global_step="global_step"))
    for _ in range(3):
        state = step(gradients_like(variables), state)
    assert int(state["global_step"]) == 3
    assert state["global_step"].dtype == INT


def test_schedules_read_the_step_before_it_counts(variables):
    rate = jv.train.piecewise_constant(boundaries=[0, 1], values=[1.0, 10.0, 100.0])
    optimizer = jv.train.GradientDescentOptimizer(rate)
    state = jv.train.create_global_step(variables)
    moves = []
    for _ in range(3):
        before = state["b/w"][0]
        state = optimizer.apply_gradients(gradients_like(variables), state, global_step="global_step")
        moves.append(float(before - state["b/w"][0]))
    assert moves == pytest.approx([1.0, 10.0, 100.0])
    # Without global_step= the counter is found by its collection and not counted.
    after = optimizer.apply_gradients(gradients_like(variables), state)
    assert int(after["global_step"]) == 3
    with pytest.raises(FailedPreconditionError, match=r"GradientDescent needs the step counter.*create_global_step"):
        optimizer.apply_gradients(gradients_like(variables), variables)


def test_optax_schedule_and_traced_rate(variables):
    optimizer = jv.train.GradientDescentOptimizer(optax.linear_schedule(1.0, 0.0, 4))
    state = jv.train.create_global_step(variables)._set("global_step", jnp.array(2))
    after = optimizer.apply_gradients(gradients_like(variables), state, global_step="global_step")
    np.testing.assert_allclose(after["b/w"], 0.5)

    @jax.jit
    def step(variables, rate):
        optimizer = jv.train.AdamOptimizer(rate)
        return optimizer.apply_gradients(gradients_like(variables), optimizer.init(variables))

    np.testing.assert_allclose(step(variables, 0.25)["b/w"], 0.75, rtol=1e-6)
    np.testing.assert_allclose(step(variables, 0.5)["b/w"], 0.5, rtol=1e-6)


def test_constraints_apply_after_the_update():
    def clip(value):
        return jnp.clip(value, -0.5, 0.5)

    spec = VariableSpec("w", (3,), np.float32, constraint=clip)
    variables = jv.Variables.from_specs([(spec, jnp.array([0.4, 0.0, -0.4]))])
    after = jv.train.GradientDescentOptimizer(1.0).apply_gradients({"w": jnp.array([-1.0, 0.25, 1.0])}, variables)
    np.testing.assert_allclose(after["w"], [0.5, -0.25, -0.5])

    bad = VariableSpec("w", (3,), np.float32, constraint=jnp.sum)
    variables = jv.Variables.from_specs([(bad, jnp.zeros(3))])
    with pytest.raises(InvalidArgumentError, match=r'constraint of "w" must keep the shape'):
        jv.train.GradientDescentOptimizer(1.0).apply_gradients({"w": jnp.ones(3)}, variables)


def test_complex_variables_go_downhill():
    variables = jv.Variables({"z": jnp.array(3.0 + 4.0j)})
    optimizer = jv.train.GradientDescentOptimizer(0.25)

    def loss(variables):
        return jnp.abs(variables["z"] - 1j) ** 2

    for _ in range(40):
        _, variables = optimizer.minimize(loss, variables)
    np.testing.assert_allclose(variables["z"], 1j, atol=1e-5)


def test_minimize(variables):
    optimizer = make("AdamOptimizer")
    state = optimizer.init(jv.train.create_global_step(variables))

    def loss(variables, scale):
        return scale * jnp.sum(variables["a/w"] ** 2)

    value, after = jax.jit(lambda v: optimizer.minimize(loss, v, 2.0, global_step="global_step"))(state)
    assert float(value) == 110.0
    assert int(after["global_step"]) == 1
    assert float(after["a/w"][0, 1]) < 1.0

    def assigning(variables, scale):
        return loss(variables, scale), variables._set("b/w", variables["b/w"] + 1)

    narrow = make("GradientDescentOptimizer", var_list="a/w")
    _, after = narrow.minimize(assigning, state, 2.0)
    np.testing.assert_array_equal(after["b/w"], [2.0, 2.0, 2.0])
    with pytest.raises(InvalidTypeError, match=r"returns the loss or \(loss, variables\)"):
        optimizer.minimize(lambda v: (loss(v, 1.0), "aux"), state)


def test_var_list_limits_the_optimizer(variables):
    optimizer = make("AdamOptimizer", var_list="a/")
    state = optimizer.init(variables)
    assert "b/w/Adam" not in state
    with pytest.raises(InvalidArgumentError, match=r"outside of the var_list of Adam: b/w"):
        optimizer.apply_gradients(gradients_like(variables), state)


# -- errors ----------------------------------------------------------------------------------------------


def test_apply_without_init(variables):
    with pytest.raises(
        FailedPreconditionError,
        match=r"slots missing for optimizer Adam: beta1_power.*"
        r"variables = optimizer\.init\(variables\)",
    ):
        make("AdamOptimizer").apply_gradients(gradients_like(variables), variables)
    with pytest.raises(FailedPreconditionError, match=r"slots missing for optimizer Optimizer: .*a/w/Optimizer/mu"):
        jv.train.Optimizer(optax.adam(0.1)).apply_gradients(gradients_like(variables), variables)


def test_new_variable_without_slots(variables):
    optimizer = make("MomentumOptimizer", var_list="a/w")
    state = optimizer.init(variables)
    with pytest.raises(FailedPreconditionError, match="slots missing for optimizer Momentum: b/w/Momentum"):
        make("MomentumOptimizer").apply_gradients(gradients_like(variables), state)


def test_bad_gradients_are_listed_together(variables):
    optimizer = make("GradientDescentOptimizer")
    with pytest.raises(NotFoundError, match=r"do not exist:\n.*a/v.*[Nn]earest.*a/w.*\n.*zzz"):
        optimizer.apply_gradients({"a/v": 1.0, "zzz": 2.0, "b/w": jnp.ones(3)}, variables)
    with pytest.raises(InvalidArgumentError, match=r"a/w: shape \(2, 3\), gradient \(3,\)\n  b/w: shape \(3,\)"):
        optimizer.apply_gradients({"a/w": jnp.ones(3), "b/w": jnp.ones((1, 3))}, variables)
    with pytest.raises(InvalidArgumentError, match="no gradients provided for any variable: a/w, b/w"):
        optimizer.apply_gradients({"a/w": None, "b/w": None}, variables)
    with pytest.raises(InvalidArgumentError, match="no variables provided"):
        optimizer.apply_gradients([], variables)
    with pytest.raises(InvalidArgumentError, match="more than one gradient for: a/w"):
        optimizer.apply_gradients([(jnp.ones((2, 3)), "a/w"), (jnp.ones((2, 3)), "a/w:0")], variables)
    with pytest.raises(InvalidArgumentError, match="the gradient is a hole"):
        optimizer.apply_gradients({"b/w": jax.ShapeDtypeStruct((3,), jnp.float32)}, variables)
    with pytest.raises(InvalidTypeError, match="pass grads"):
        optimizer.apply_gradients(jv.value_and_grad(lambda v: jnp.sum(v["b/w"]))(variables), variables)
    with pytest.raises(InvalidTypeError, match="mapping from names"):
        optimizer.apply_gradients(jnp.ones(3), variables)


def test_integers_and_holes(variables):
    optimizer = make("GradientDescentOptimizer")
    with pytest.raises(InvalidTypeError, match=f"n: {INT}"):
        optimizer.apply_gradients({"n": 1.0}, jv.Variables({"n": jnp.array(1)}))
    holes = jv.Variables({"w": jax.ShapeDtypeStruct((), jnp.float32)})
    with pytest.raises(FailedPreconditionError, match=r"without a value: w\..*model\.init"):
        optimizer.apply_gradients({"w": 1.0}, holes)
    with pytest.raises(InvalidArgumentError, match="nothing to optimize"):
        optimizer.init(jv.Variables({"n": jnp.array(1)}))
    state = make("MomentumOptimizer").init(variables)
    with pytest.raises(FailedPreconditionError, match="slots without value: a/w/Momentum"):
        hole = jax.ShapeDtypeStruct((2, 3), jnp.float32)
        make("MomentumOptimizer").apply_gradients(gradients_like(variables), state._set("a/w/Momentum", hole))


def test_slots_of_another_shape(variables):
    optimizer = make("MomentumOptimizer")
    state = optimizer.init(variables)._set("b/w/Momentum", jnp.zeros(4))
    for call in (optimizer.init, lambda v: optimizer.apply_gradients(gradients_like(variables), v)):
        with pytest.raises(InvalidArgumentError, match=r"b/w/Momentum: shape \(4,\), needs \(3,\)"):
            call(state)


def test_bad_global_step(variables):
    optimizer = make("GradientDescentOptimizer")
    grads = gradients_like(variables)
    with pytest.raises(NotFoundError, match=r'"global_step" does not exist.*create_global_step\(variables\)'):
        optimizer.apply_gradients(grads, variables, global_step="global_step")
    with pytest.raises(InvalidTypeError, match="does not have integer type: float32"):
        optimizer.apply_gradients(grads, variables, global_step="b/w")
    with pytest.raises(InvalidTypeError, match='Write: global_step="global_step"'):
        optimizer.apply_gradients(grads, variables, global_step=jnp.array(3))


def test_bad_constructors():
    with pytest.raises(InvalidTypeError, match=r"optax\.adam\(1e-3\), not float"):
        jv.train.Optimizer(0.1)
    with pytest.raises(InvalidArgumentError, match="must specify the optimizer name"):
        jv.train.AdamOptimizer(name="")
    with pytest.raises(InvalidArgumentError, match="must be positive"):
        jv.train.AdagradOptimizer(0.1, initial_accumulator_value=0.0)
    with pytest.raises(InvalidArgumentError, match=r"l1_regularization_strength -1\.0 needs to be positive or zero"):
        jv.train.FtrlOptimizer(0.1, l1_regularization_strength=-1.0)
    with pytest.raises(InvalidArgumentError, match=r"learning_rate_power 0\.5"):
        jv.train.FtrlOptimizer(0.1, learning_rate_power=0.5)
    with pytest.raises(InvalidArgumentError, match=r"counts optimizers from 0"):
        jv.train.AdamOptimizer(number=-1)


def test_missing_optax(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(UnavailableError, match=r'pip install "jaxvars\[train\]"'):
        jv.train.AdamOptimizer()


def test_bad_decays():
    with pytest.raises(InvalidArgumentError, match="exponential_decay needs decay_steps= and decay_rate="):
        jv.train.exponential_decay(0.1)
    with pytest.raises(InvalidArgumentError, match="decay_steps must be positive"):
        jv.train.cosine_decay(0.1, decay_steps=0)
    with pytest.raises(InvalidArgumentError, match="one value more than boundaries"):
        jv.train.piecewise_constant(boundaries=[1], values=[1.0])
    with pytest.raises(InvalidArgumentError, match="must ascend"):
        jv.train.piecewise_constant(boundaries=[2, 1], values=[1.0, 2.0, 3.0])
    with pytest.raises(InvalidTypeError, match="leave it out"):
        jv.train.exponential_decay(0.1, "global_step", 10, 0.5)


# -- the step counter ------------------------------------------------------------------------------------


def test_global_step_outside_of_a_frame(variables):
    assert jv.train.get_global_step(variables) is None
    with_step = jv.train.create_global_step(variables)
    spec = with_step.variable_specs["global_step"]
    assert (spec.shape, spec.dtype, spec.trainable) == ((), INT, False)
    assert spec.collections == ("variables", "global_step")
    assert int(jv.train.get_global_step(with_step)) == 0
    assert jv.train.get_or_create_global_step(with_step) is with_step
    assert list(jv.train.get_or_create_global_step(variables)) == list(with_step)
    with pytest.raises(InvalidArgumentError, match='"global_step" already exists'):
        jv.train.create_global_step(with_step)
    with pytest.raises(FailedPreconditionError, match="create_global_step"):
        jv.train.global_step(variables)
    with pytest.raises(InvalidTypeError, match='Existing "global_step" does not have integer type'):
        jv.train.get_global_step(jv.Variables({"global_step": jnp.array(1.0)}))
    with pytest.raises(InvalidTypeError, match='Existing "global_step" is not scalar'):
        jv.train.get_global_step(jv.Variables({"global_step": jnp.array([1])}))


def test_global_step_inside_a_frame():
    def model():
        assert jv.train.get_global_step() is None
        step = jv.train.get_or_create_global_step()
        assert jv.train.get_or_create_global_step() is step
        with pytest.raises(InvalidArgumentError, match="already exists"):
            jv.train.create_global_step()
        return step.assign_add(1)

    transformed = jv.transform(model)
    variables = transformed.init(0)
    assert variables.variable_specs["global_step"].collections == ("variables", "global_step")
    out, variables = transformed.apply(variables)
    assert (int(out), jv.train.global_step(variables)) == (1, 1)


# -- names under a scope -----------------------------------------------------------------------------------


def test_an_optimizer_built_in_a_scope_of_tf1_code():
    variables = jv.Variables({"train/w": jnp.ones(2), "b": jnp.ones(2)})
    optimizer = jv.train.AdamOptimizer(0.1, name="MyAdam", scope="train")
    started = optimizer.init(variables)
    assert [key for key in started._layout.creation_order if key not in variables] == [
        "train/beta1_power", "train/beta2_power",
        "train/train/w/MyAdam", "train/train/w/MyAdam_1", "train/b/MyAdam", "train/b/MyAdam_1",
    ]  # fmt: skip
    grads = jv.Variables({"train/w": jnp.ones(2), "b": jnp.ones(2)})
    stepped = optimizer.apply_gradients(grads, started)
    plain = jv.train.AdamOptimizer(0.1)
    np.testing.assert_array_equal(stepped["b"], plain.apply_gradients(grads, plain.init(variables))["b"])
    assert optimizer.get_slot(stepped, "b", "m").tolist() == stepped["train/b/MyAdam"].tolist()
    # Beside one of the same name in another scope, and one without a scope.
    both = jv.train.AdamOptimizer(0.1, name="MyAdam").init(stepped)
    assert {"beta1_power", "b/MyAdam", "b/MyAdam_1"} <= set(both) and "beta1_power_1" not in both
    other = jv.train.Optimizer(optax.sgd(0.1, momentum=0.9), "SGD", scope="train/").init(variables)
    assert "train/b/SGD/trace" in other


# -- sparse weights ----------------------------------------------------------------------------------------


def test_optimizers_for_sparse_weights_set_small_ones_to_zero():
    variables = jv.train.create_global_step(jv.Variables({"w": jnp.array([0.05, 1.0])}))
    grads = {"w": jnp.array([0.125, 1.0])}
    for optimizer in (
        jv.train.ProximalGradientDescentOptimizer(0.25, l1_regularization_strength=0.5),
        jv.train.ProximalAdagradOptimizer(0.25, l1_regularization_strength=0.5),
        jv.train.AdagradDAOptimizer(0.25, "global_step", l1_regularization_strength=0.5),
    ):
        started = optimizer.init(variables)
        after = jax.jit(lambda v, o=optimizer: o.apply_gradients(grads, v, "global_step"))(started)
        assert float(after["w"][0]) == 0.0 != float(after["w"][1])
        assert int(after["global_step"]) == 1 and optimizer.slots(after).keys() == started.keys() - variables.keys()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: jv.train.ProximalGradientDescentOptimizer(0.1, -1.0), InvalidArgumentError, "l1_regular"),
        (lambda: jv.train.ProximalAdagradOptimizer(0.1, 0.0), InvalidArgumentError, "initial_accumulator_value must"),
        (lambda: jv.train.AdagradDAOptimizer(0.1, "s", -0.1), InvalidArgumentError, "must be positive"),
        (lambda: jv.train.AdagradDAOptimizer(0.1, "s").apply_gradients({"w": 1.0}, jv.Variables({"w": 1.0})),
         NotFoundError, '"s" does not exist'),
    ],
)  # fmt: skip
def test_bad_optimizers_for_sparse_weights(make, error, text):
    with pytest.raises(error, match=text):
        make()


# What TF1 code gives


def test_minimize_of_a_loss(variables):
    optimizer = jv.train.GradientDescentOptimizer(0.1)
    write = r'loss, variables = optimizer\.minimize\(model\.apply, variables, \*args, global_step="global_step"\)'
    with pytest.raises(InvalidTypeError, match=f"without the variables.*\n.*{write}"):
        optimizer.minimize(lambda v: 0.0)
    for loss, kind in ((1.0, "a float"), (jnp.ones(()), "an array")):
        for rest in ((), (variables,)):
            with pytest.raises(InvalidTypeError, match=f"with {kind} first.*\n.*{write}"):
                optimizer.minimize(loss, *rest)
    with pytest.raises(InvalidTypeError, match="takes a Variables first, not dict"):
        optimizer.minimize(lambda v: 0.0, {})
    with pytest.raises(InvalidTypeError, match=r"1 in all.*pass model\.apply"):
        optimizer.minimize(lambda: 0.0, variables)


def test_minimize_in_a_model_or_store():
    def graph(x):
        w = jv.get_variable("w", [2])
        step = jv.train.get_or_create_global_step()
        return jv.train.GradientDescentOptimizer(0.1).minimize(jnp.sum(w * x), global_step=step)

    with pytest.raises(InvalidTypeError, match=r"with an array first.*\n?.*outside of the model"):
        jv.transform(graph).init(0, jnp.ones(2))
    with jv.VariableStore(0), pytest.raises(InvalidTypeError, match=r"with an array first.*\n?.*outside of the model"):
        graph(jnp.ones(2))


@pytest.mark.parametrize(
    ("make", "write"),
    [
        (
            lambda step: jv.train.exponential_decay(0.1, step, 100, 0.9),
            "exponential_decay(0.1, decay_steps=100, decay_rate=0.9)",
        ),
        (
            lambda step: jv.train.natural_exp_decay(0.1, step, 100, 0.9, True),
            "natural_exp_decay(0.1, decay_steps=100, decay_rate=0.9, staircase=True)",
        ),
        (
            lambda step: jv.train.inverse_time_decay(0.1, step, 100, 0.9),
            "inverse_time_decay(0.1, decay_steps=100, decay_rate=0.9)",
        ),
        (
            lambda step: jv.train.piecewise_constant(step, [10], [1.0, 0.5]),
            "piecewise_constant(boundaries=[10], values=[1.0, 0.5])",
        ),
        (
            lambda step: jv.train.polynomial_decay(0.1, step, 100),
            "polynomial_decay(0.1, decay_steps=100, end_learning_rate=0.0001, power=1.0)",
        ),
        (lambda step: jv.train.cosine_decay(0.1, step, 100), "cosine_decay(0.1, decay_steps=100, alpha=0.0)"),
    ],
)
def test_a_schedule_that_is_given_the_name_of_the_step(make, write):
    with pytest.raises(InvalidTypeError) as caught:
        make("global_step")
    assert str(caught.value).endswith(f"Write: jv.train.{write}")
    assert eval(f"jv.train.{write}")(7) == make(7)


@pytest.mark.parametrize(
    ("call", "write"),
    [
        ("get_global_step", "jv.train.global_step(variables)"),
        ("create_global_step", "variables = jv.train.create_global_step(variables)"),
        ("get_or_create_global_step", "variables = jv.train.get_or_create_global_step(variables)"),
    ],
)
def test_the_step_counter_of_no_frame(call, write):
    with pytest.raises(FailedPreconditionError) as caught:
        getattr(jv.train, call)()
    assert str(caught.value).startswith(f"jv.train.{call} was called outside of a frame") and write in str(caught.value)

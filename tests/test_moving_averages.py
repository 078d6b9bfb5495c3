"""`ExponentialMovingAverage` and `assign_moving_average`, with what TensorFlow's own moving_averages_test checks.

Tests of a behaviour that TensorFlow tests name it in their first line, in brackets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv

EMA = jv.train.ExponentialMovingAverage
assign_moving_average = jv.train.assign_moving_average
GLOBAL = jv.GraphKeys.GLOBAL_VARIABLES


def repeated(value: float, shape: Any) -> Any:
    return jnp.full(shape, value, jnp.float32)


def values(variables: Any) -> dict[str, Any]:
    return {key: np.asarray(value).tolist() for key, value in variables.items()}


def run(fn: Any, *args: Any, steps: int = 1) -> tuple[Any, Any]:
    """Initialize a model and apply it some times; the last result and the variables."""
    model = jv.transform(fn)
    variables, out = model.init(0, *args), None
    for _ in range(steps):
        out, variables = model.apply(variables, *args)
    return out, variables


# assign_moving_average


@pytest.mark.parametrize("debias", [False, True], ids=["plain", "debiased"])
def test_assign_moving_average(debias: bool) -> None:
    """[testAssignMovingAverageWithoutZeroDebias, testAssignMovingAverage]"""

    def net(value: Any) -> Any:
        var = jv.get_variable("var", initializer=jnp.array([0.0, 0.0] if debias else [10.0, 11.0]))
        return assign_moving_average(var, value, 0.25, zero_debias=debias), var.read_value()

    model = jv.transform(net)
    value = jnp.array([1.0, 2.0])
    variables = model.init(0, value)
    start, step, decay = np.asarray(variables["var"]), np.asarray(value), 0.25
    average = start
    for t in (1, 2, 3):
        (new, read), variables = model.apply(variables, value)
        average = average * decay + step * (1 - decay)
        np.testing.assert_allclose(new, average / (1 - decay**t) if debias else average, rtol=1e-6)
        np.testing.assert_array_equal(read, new)
        assert not debias or float(variables["var/local_step"]) == t
    assert sorted(variables) == (["var", "var/biased", "var/local_step"] if debias else ["var"])


@pytest.mark.parametrize("again", [False, True], ids=["new", "reuse"])
def test_names_of_the_debias_variables(again: bool) -> None:
    """[testAssignMovingAverageNewNamingMultipleCalls, ...WithReuse] The scope doubled, then ``_1``; reuse shares."""

    def net() -> None:
        with jv.variable_scope("scope1"), jv.variable_scope("scope2"):
            var = jv.get_variable("Var", [])
            assign_moving_average(var, 0.0, 0.99), assign_moving_average(var, 0.0, 0.9)
        if again:
            with jv.variable_scope("scope1", reuse=True), jv.variable_scope("scope2"):
                var = jv.get_variable("Var", [])
                assign_moving_average(var, 0.0, 0.99), assign_moving_average(var, 0.0, 0.9)

    below = "scope1/scope2/scope1/scope2/Var"
    assert list(jv.transform(net).specs()._layout.creation_order) == [
        "scope1/scope2/Var",
        *(f"{below}/{name}{end}" for end in ("", "_1") for name in ("biased", "local_step")),
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weighted_moving_average(dtype: str) -> None:
    """[testWeightedMovingAverage, testWeightedMovingAverageBfloat16]"""

    def net(value: Any, weight: Any) -> Any:
        return jv.train.weighted_moving_average(value, 0.5, weight)

    model = jv.transform(net)
    inputs = [(jnp.asarray(v, dtype), jnp.asarray(w, dtype)) for v, w in (([1.0, 2.0], 2.0), ([5.0, 8.0], 4.0))]
    variables, total, weights = model.init(0, *inputs[0]), np.zeros(2), 0.0
    for value, weight in inputs:
        out, variables = model.apply(variables, value, weight)
        total = total * 0.5 + 0.5 * np.asarray(value, np.float32) * float(weight)
        weights = weights * 0.5 + 0.5 * float(weight)
        assert out.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(out, np.float32), total / weights, rtol=1e-6 if dtype == "float32" else 1e-2
        )
    assert sorted(variables) == ["WeightedMovingAvg/value_x_weight", "WeightedMovingAvg/weight"]
    assert not variables.trainable


def test_names_and_collections_of_weighted_averages() -> None:
    def net() -> None:
        for name in (None, None, "mine"):
            jv.train.weighted_moving_average(jnp.ones([2, 3]), 0.5, jnp.ones([3]), collections=["c"], name=name)

    specs = jv.transform(net).specs()
    assert list(dict.fromkeys(key.split("/")[0] for key in specs._layout.creation_order)) == [
        "WeightedMovingAvg", "WeightedMovingAvg_1", "mine",
    ]  # fmt: skip
    assert {spec.collections for spec in specs.variable_specs.values()} == {("c",)}


def test_a_value_broadcasts_and_integers_become_floats() -> None:
    def net() -> Any:
        var = jv.get_variable("v", [2, 3], initializer=jv.zeros_initializer(), trainable=False)
        assign_moving_average(var, jnp.array([1, 2, 3]), 0.5, zero_debias=False)
        return assign_moving_average(var, 4, 0.5, zero_debias=False)

    assert run(net)[0].tolist() == [[2.25, 2.5, 2.75]] * 2


# ExponentialMovingAverage: values


@pytest.mark.parametrize("dim", [None, 5], ids=["scalar", "vector"])
@pytest.mark.parametrize("num_updates", [None, 1], ids=["no num_updates", "num_updates"])
@pytest.mark.parametrize("debias", [False, True], ids=["plain", "debias"])
def test_average_variables_in_a_model(dim: int | None, num_updates: int | None, debias: bool) -> None:
    """[testAverageVariables(No)NumUpdates_{Scalar, Vector}(_Debias)] Eight tests: names, flags, values of two steps."""
    shape = [] if dim is None else [dim]

    def net(step: Any) -> Any:
        ema = EMA(0.25, num_updates=num_updates, zero_debias=debias)
        v0 = jv.Variable(repeated(10.0, shape), name="v0")
        v1 = jv.Variable(repeated(30.0, shape), name="v1")
        # TF1 assigned between two runs of one graph; here each call of the model does both.
        v0.assign_add(jnp.broadcast_to(step, tuple(shape))), v1.assign_add(jnp.broadcast_to(step, tuple(shape)))
        ema.apply([v0, v1, (total := v0 + v1)])
        assert ema.average(v0) is not None
        assert [v.key for v in jv.moving_average_variables()] == ["v0", "v1"]
        averages = [ema.average(v) for v in (v0, v1, total)]
        assert [a.key for a in averages if a is not None and not a.trainable] == [
            "v0/ExponentialMovingAverage", "v1/ExponentialMovingAverage", "tensor/ExponentialMovingAverage",
        ]  # fmt: skip
        return [a.value for a in averages if a is not None]

    model = jv.transform(net)
    variables = model.init(0, 0.0)
    assert variables["v0/ExponentialMovingAverage"].tolist() == variables["v0"].tolist()
    assert not np.any(variables["tensor/ExponentialMovingAverage"])
    decay = 0.25 if num_updates is None else min(0.25, 2.0 / 11.0)
    expected = np.array([10.0, 30.0, 0.0])
    biased = 0.0
    for t, step in ((1, 0.0), (2, 1.0)):
        out, variables = model.apply(variables, step)
        now = np.array([10.0, 30.0, 40.0]) + np.array([step, step, 2 * step])
        biased = biased * decay + now[2] * (1 - decay)
        expected = expected * decay + now * (1 - decay)
        if debias:
            expected[2] = biased / (1 - decay**t)
        for found, wanted in zip(out, expected, strict=True):
            np.testing.assert_allclose(found, np.full(shape, wanted), rtol=1e-5)
        if debias:
            expected[2] = biased
    extra = ["tensor/ExponentialMovingAverage/biased", "tensor/ExponentialMovingAverage/local_step"] if debias else []
    assert len(variables) == 5 + len(extra) and all(key in variables for key in extra)


def test_average_variables_with_control_deps() -> None:
    """[testAverageVariablesWithControlDeps] A shadow begins at the initial value; the update sees the assigned one.

    Adapted: program order is the control dependency.
    """

    def net() -> Any:
        v0, v1 = jv.Variable(0.0, name="v0"), jv.Variable(10.0, name="v1")
        v1.assign_add(1.0)
        ema = EMA(0.25)
        ema.apply([v0, v1])
        return v1.read_value()

    model = jv.transform(net)
    variables = model.init(0)
    assert (float(variables["v1"]), float(variables["v1/ExponentialMovingAverage"])) == (10.0, 10.0)
    v1, variables = model.apply(variables)
    assert float(v1) == 11.0
    assert float(variables["v1/ExponentialMovingAverage"]) == 10.0 * 0.25 + 11.0 * 0.75


def test_apply_twice_outside_of_a_model() -> None:
    """[testBasicEager]"""
    ema = EMA(0.25)
    variables = ema.init(jv.Variables({"v0": 1.0, "v1": 2.0}))
    variables = ema.apply(variables)
    assert [float(ema.average(variables, key)) for key in ("v0", "v1")] == [1.0, 2.0]  # pyright: ignore
    variables = ema.apply(jv.assign(jv.assign(variables, "v0", 2.0), "v1", 4.0))
    assert [float(ema.average(variables, key)) for key in ("v0", "v1")] == [1.75, 3.5]  # pyright: ignore


# ExponentialMovingAverage: names


@pytest.mark.parametrize("debias", [True, False], ids=["debias", "no debias"])
@pytest.mark.parametrize("name", ["ExponentialMovingAverage", "foo"])
def test_names_of_averages(name: str, debias: bool) -> None:
    """[testAverageVariablesNames, testAverageVariablesNamesNoDebias]

    Adapted: arrays have no names; an average of one is named by the key of a dict.
    """
    found: dict[str, Any] = {}

    def net() -> None:
        v0, v1 = jv.Variable(10.0, name="v0"), jv.Variable(30.0, name="v1")
        v2 = jv.Variable(20.0, name="v2")  # not averaged
        ema = EMA(0.25, zero_debias=debias, name=name)
        assert [ema.average_name(v) for v in (v0, v1)] == [f"v0/{name}", f"v1/{name}"]
        ema.apply({"v0": v0, "v1": v1, "add": (total := v0 + v1)})
        assert [ema.average_name(v) for v in (v0, v1, total)] == [f"v0/{name}", f"v1/{name}", f"add/{name}"]
        assert ema.average(v2) is None
        found.update({file: handle.key for file, handle in ema.variables_to_restore().items()})

    specs = jv.transform(net).specs()
    extra = [f"add/{name}/biased", f"add/{name}/local_step"] if debias else []
    assert found == {f"{v}/{name}": v for v in ("v0", "v1", "v2")} | {key: key for key in [f"add/{name}", *extra]}
    assert list(specs._layout.creation_order) == [
        "v0", "v1", "v2", f"v0/{name}", f"v1/{name}", f"add/{name}", *extra,
    ]  # fmt: skip


@pytest.mark.parametrize("debias", [True, False], ids=["debias", "no debias"])
def test_names_respect_the_scope_of_apply(debias: bool) -> None:
    """[testAverageVariablesNamesRespectScope, ...NoDebias]"""
    found: list[dict[str, Any]] = []

    def net() -> None:
        with jv.variable_scope("scope1"):
            v0, v1 = jv.Variable(10.0, name="v0"), jv.Variable(30.0, name="v1")
        with jv.variable_scope("scope2"):
            ema = EMA(0.25, zero_debias=debias, name="foo")
            assert ema.average_name(v0) == "scope2/scope1/v0/foo"
            ema.apply({"": v0, "v1": v1, "scope1/add": v0 + v1})
            assert ema.average_name(v0) == "scope2/scope1/v0/foo"
        found.append({file: handle.key for file, handle in ema.variables_to_restore().items()})

    specs = jv.transform(net).specs()
    below = "scope2/scope2/scope1/add/foo"
    extra = [f"{below}/biased", f"{below}/local_step"] if debias else []
    shadows = [f"scope2/scope1/{name}/foo" for name in ("v0", "v1", "add")]
    assert list(specs._layout.creation_order) == ["scope1/v0", "scope1/v1", *shadows, *extra]
    own = {key: key for key in [shadows[2], *extra]}
    assert found == [{shadows[0]: "scope1/v0", shadows[1]: "scope1/v1"} | own]


def test_subset_of_variables_to_restore() -> None:
    """[testSubsetAverageVariablesNames]"""
    found: list[dict[str, Any]] = []

    def net() -> None:
        v0, v1 = jv.Variable(10.0, name="v0"), jv.Variable(30.0, name="v1")
        v2 = jv.Variable(20.0, name="v2")
        ema = EMA(0.25, name="foo_avg")
        assert ema.average_name(v0) == "v0/foo_avg"
        ema.apply([v0, v1])
        for subset in ([v0, v2], [v0, v1, v2], []):
            found.append({file: handle.key for file, handle in ema.variables_to_restore(subset).items()})

    variables = jv.transform(net).init(0)
    both = {"v0/foo_avg": "v0", "v2/foo_avg": "v2", "v1": "v1", "v1/foo_avg": "v1/foo_avg"}
    assert found[0] == both == EMA(0.25, name="foo_avg").variables_to_restore(variables, ["v0", "v2"])
    assert found[1] == {f"{v}/foo_avg": v for v in ("v0", "v1", "v2")}
    assert found[2] == {key: key for key in ("v0", "v1", "v2", "v0/foo_avg", "v1/foo_avg")}


def test_a_shadow_lives_where_its_variable_does() -> None:
    """[testAverageVariablesDeviceAssignment] Adapted: a device is a note of the variable."""

    def net() -> list[str]:
        with jv.device("/device:CPU:0"):
            v0 = jv.Variable(10.0, name="v0")
        v1 = jv.Variable(20.0, name="v1")
        ema = EMA(0.25)
        with jv.device("/job:worker"):
            ema.apply([v0, v1])
        return [v.device for v in jv.global_variables()]

    devices: list[str] = []
    model = jv.transform(lambda: devices.extend(net()))
    specs = model.specs().variable_specs
    assert devices == ["/device:CPU:0", "", "/device:CPU:0", ""]
    placed = EMA(0.25, name="other").init(model.specs()).variable_specs
    assert placed["v0/other"].placement == specs["v0"].placement == specs["v0/ExponentialMovingAverage"].placement


def test_a_second_average_of_one_name_is_numbered() -> None:
    names: list[Any] = []

    def net() -> None:
        v = jv.get_variable("v", [])
        for _ in range(2):
            ema = EMA(0.5)
            names.append(ema.average_name(v))
            ema.apply([v])
            names.append(ema.average(v).key)  # pyright: ignore
        assert [v.key for v in jv.moving_average_variables()] == ["v"]

    variables = jv.transform(net).init(0)
    assert names[:4] == ["v/ExponentialMovingAverage"] * 2 + ["v/ExponentialMovingAverage_1"] * 2
    first, second = EMA(0.5), EMA(0.25, number=1)
    assert [float(e.average(variables, "v")) for e in (first, second)] == [float(variables["v"])] * 2  # pyright: ignore
    other = second.init(first.init(jv.Variables({"v": 1.0})))
    assert list(other) == ["v", "v/ExponentialMovingAverage", "v/ExponentialMovingAverage_1"]
    other = second.apply(first.apply(jv.assign(other, "v", 2.0)))
    assert values(other)["v/ExponentialMovingAverage"] == 1.5
    assert values(other)["v/ExponentialMovingAverage_1"] == 1.75


# Beside a model


def state() -> jv.Variables:
    variables = jv.Variables({"net/w": jnp.array([1.0, 2.0]), "net/b": 1.0, "mean": 5.0})
    return jv.train.create_global_step(variables.freeze("mean"))


def test_init_adds_shadows_of_trainable_variables() -> None:
    variables = EMA(0.9).init(state())
    specs = variables.variable_specs
    assert [key for key in variables if key.endswith("Average")] == [
        "net/b/ExponentialMovingAverage", "net/w/ExponentialMovingAverage",
    ]  # fmt: skip
    shadow = specs["net/w/ExponentialMovingAverage"]
    assert (shadow.trainable, shadow.collections) == (False, (GLOBAL,))
    assert "test_moving_averages.py" in shadow.defined_at
    assert list(variables.collection(jv.GraphKeys.MOVING_AVERAGE_VARIABLES)) == ["net/b", "net/w"]
    assert specs["net/w"].trainable and not specs["mean"].trainable


@pytest.mark.parametrize(
    ("var_list", "chosen"),
    [(["mean"], ["mean"]), ("net/", ["net/b", "net/w"]), ([".*/w", "mean"], ["mean", "net/w"])],
)
def test_var_list_chooses(var_list: Any, chosen: list[str]) -> None:
    ema = EMA(0.9)
    variables = ema.init(state(), var_list)
    assert [key for key in variables if ema.average_name(key) in variables] == chosen
    assert ema.average(variables, "global_step") is None


def test_apply_moves_a_choice() -> None:
    ema = EMA(0.5)
    variables = ema.init(state())
    before = values(variables)
    variables = jv.assign(jv.assign(variables, "net/w", [3.0, 4.0]), "net/b", 3.0)
    after = values(ema.apply(variables, ["net/b"]))
    assert after["net/b/ExponentialMovingAverage"] == 2.0
    assert after["net/w/ExponentialMovingAverage"] == before["net/w/ExponentialMovingAverage"] == [1.0, 2.0]


def test_shadows_keep_their_values_when_init_is_called_again() -> None:
    ema = EMA(0.5)
    variables = jv.assign(ema.init(state(), ["net/w"]), "net/w/ExponentialMovingAverage", [7.0, 7.0])
    again = ema.init(variables)
    assert again["net/w/ExponentialMovingAverage"].tolist() == [7.0, 7.0]
    assert float(again["net/b/ExponentialMovingAverage"]) == 1.0


def test_shadows_of_holes_are_holes_until_init_is_called_again() -> None:
    ema = EMA(0.5)
    model = jv.transform(lambda: jv.get_variable("w", [2]) * 1.0)
    variables = ema.init(model.specs())
    assert list(variables.uninitialized) == ["w", "w/ExponentialMovingAverage"]
    with pytest.raises(RuntimeError, match="without value: w/ExponentialMovingAverage, w"):
        ema.apply(variables)
    variables = ema.init(model.init(0, variables=variables))
    assert variables["w/ExponentialMovingAverage"].tolist() == variables["w"].tolist()


def test_a_state_of_a_plain_dict_goes_on() -> None:
    ema = EMA(0.5)
    loaded = jv.Variables(dict(ema.init(jv.Variables({"w": 1.0}))))  # membership and flags are lost
    again = ema.init(loaded)
    assert list(again) == ["w", "w/ExponentialMovingAverage"]
    assert values(ema.apply(jv.assign(again, "w", 3.0)))["w/ExponentialMovingAverage"] == 2.0


def test_variables_on_several_devices() -> None:
    ema, devices = EMA(0.5, num_updates="global_step"), jax.devices()
    variables = ema.init(state()).to({"net/w(/.*)?": devices[1], "global_step": devices[2]})
    moved = ema.apply(jv.assign(variables, "net/w", [3.0, 4.0]))["net/w/ExponentialMovingAverage"]
    np.testing.assert_allclose(moved, [1 + 0.9 * 2, 2 + 0.9 * 2], rtol=1e-6)
    assert moved.devices() == {devices[1]}


def test_shadows_of_restored_variables_begin_at_their_values() -> None:
    def net() -> Any:
        v = jv.get_variable("v", [], initializer=jv.ones_initializer())
        EMA(0.5).apply([v])
        return v * 1.0

    variables = jv.transform(net).init(0, variables=jv.Variables({"v": np.float32(7)}))
    assert values(variables) == {"v": 7.0, "v/ExponentialMovingAverage": 7.0}
    with pytest.raises(KeyError, match=r"(?s)v/ExponentialMovingAverage.*model\.init"):
        jv.transform(net).apply(jv.Variables({"v": np.float32(7)}))


def test_averaged_puts_averages_in_place() -> None:
    ema = EMA(0.5)
    variables = ema.apply(jv.assign(ema.init(state()), "net/b", 3.0))
    averaged = ema.averaged(variables)
    assert jax.tree.structure(averaged) == jax.tree.structure(variables)
    assert values(averaged) == values(variables) | {"net/b": 2.0}
    assert float(variables["net/b"]) == 3.0


def pointers(variables: Any) -> set[int]:
    return {leaf.unsafe_buffer_pointer() for leaf in variables.values()}


def test_no_two_names_share_a_buffer() -> None:
    ema = EMA(0.0)
    step = jax.jit(ema.apply, donate_argnums=0)
    for make in (ema.init, jax.jit(ema.init)):
        variables = make(state())
        assert len(pointers(variables)) == len(variables) == 6
        for result in (ema.apply(variables), ema.averaged(variables), jax.jit(ema.averaged)(variables)):
            assert len(pointers(result)) == 6
        variables = step(step(variables))
        assert len(pointers(variables)) == 6


def test_inside_jit_and_scan_with_a_counter() -> None:
    ema = EMA(0.99, num_updates="global_step")

    def step(variables: Any, _: Any) -> Any:
        variables = jv.assign_add(jv.assign_add(variables, "global_step", 1), "net/b", 1.0)
        return ema.apply(variables), None

    start = ema.init(state())
    looped, _ = jax.jit(lambda v: jax.lax.scan(step, v, length=3))(start)
    by_hand, average = start, 1.0
    for n in (1, 2, 3):
        by_hand, _ = step(by_hand, None)
        decay = min(0.99, (1 + n) / (10 + n))
        average -= (1 - decay) * (average - (1.0 + n))
    for found in (looped, by_hand):
        np.testing.assert_allclose(found["net/b/ExponentialMovingAverage"], average, rtol=1e-6)


@pytest.mark.parametrize("given", [5, jnp.int32(5), np.float32(5)])
def test_num_updates_as_a_value(given: Any) -> None:
    def move(n: Any) -> Any:
        ema = EMA(0.9, num_updates=n)
        return ema.apply(jv.assign(ema.init(state()), "net/b", 2.0))["net/b/ExponentialMovingAverage"]

    np.testing.assert_allclose([move(given), jax.jit(move)(given)], 1.0 + (1 - 6 / 15), rtol=1e-6)


def test_the_decay_may_be_a_variable() -> None:
    variables = EMA("decay").init(state() | {"decay": 0.25}, ["net/b"])
    for ema in (EMA("decay"), EMA(jnp.float32(0.25))):
        moved = ema.apply(jv.assign(variables, "net/b", 3.0))
        assert float(moved["net/b/ExponentialMovingAverage"]) == 2.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str) -> None:
    ema = EMA(0.5)
    variables = ema.init(jv.Variables({"w": jnp.ones([2], dtype)}))
    variables = ema.apply(jv.assign(variables, "w", jnp.full([2], 3.0, dtype)))
    assert variables["w/ExponentialMovingAverage"].dtype == dtype
    assert variables["w/ExponentialMovingAverage"].tolist() == [2.0, 2.0]


def test_rounding_of_the_decay_is_that_of_tensorflow() -> None:
    ema = EMA(0.9999)
    variables = ema.apply(jv.assign(ema.init(jv.Variables({"w": 0.0})), "w", 1e4))
    assert float(variables["w/ExponentialMovingAverage"]) == np.float32(1e4) * (np.float32(1) - np.float32(0.9999))


def test_a_scope_of_tf1_code() -> None:
    ema = EMA(0.5, scope="train")
    variables = ema.init(state(), ["net/w"])
    assert "train/net/w/ExponentialMovingAverage" in variables
    assert ema.variables_to_restore(variables, ["net/w"])["train/net/w/ExponentialMovingAverage"] == "net/w"
    assert len(ema.apply(variables)) == len(variables)


# Restoring


def test_a_saver_restores_averages_into_the_variables(tmp_path: Path) -> None:
    ema = EMA(0.5)
    trained = ema.apply(jv.assign(ema.init(state()), "net/b", 3.0))
    path = jv.train.Saver().save(trained, str(tmp_path / "model"))
    into = state()
    names = ema.variables_to_restore(into)
    assert names == {
        "net/w/ExponentialMovingAverage": "net/w", "net/b/ExponentialMovingAverage": "net/b", "mean": "mean",
        "global_step": "global_step",
    }  # fmt: skip
    assert values(jv.train.Saver(names).restore(into, path)) == values(into) | {"net/b": 2.0}


def test_membership_outlives_the_model_run() -> None:
    def net() -> Any:
        v = jv.get_variable("v", [], initializer=jv.zeros_initializer(), trainable=False)
        w = jv.get_variable("w", [], trainable=False)
        jv.add_to_collection(jv.GraphKeys.MOVING_AVERAGE_VARIABLES, v)
        EMA(0.5).apply([w])
        return jv.moving_average_variables()

    keys: list[list[str]] = []
    model = jv.transform(lambda: keys.append([v.key for v in net()]))
    variables = model.init(0)
    model.apply(variables)
    assert keys[0] == keys[-1] == ["v", "w"]
    assert list(variables.collection("moving_average_variables")) == ["v", "w"]
    assert EMA(0.5).variables_to_restore(variables) == {
        "v/ExponentialMovingAverage": "v", "w/ExponentialMovingAverage": "w",
    }  # fmt: skip
    store = jv.VariableStore(0)
    for _ in range(2):  # a cell that runs twice
        with store:
            assert [v.key for v in net()] == ["v", "w"]
        assert list(store.variables.collection("moving_average_variables")) == ["v", "w"]


# Inside a model


def test_the_default_is_the_trainable_variables_so_far() -> None:
    def net() -> int:
        jv.get_variable("a", [])
        jv.get_variable("b", [], trainable=False)
        count = len(EMA(0.5).apply())
        jv.get_variable("c", [])
        return count

    count, variables = run(net)
    assert count == 1 and list(variables) == ["a", "a/ExponentialMovingAverage", "b", "c"]


def test_an_average_at_module_level_serves_every_frame() -> None:
    ema = EMA(0.5)

    def net() -> Any:
        v = jv.get_variable("v", [], initializer=jv.ones_initializer())
        assert ema.average(v) is None
        v.assign_add(1.0)
        ema.apply([v]), ema.apply([v])  # the second finds the shadow
        return ema.average(v).value  # pyright: ignore

    out, variables = run(net, steps=2)
    assert list(variables) == ["v", "v/ExponentialMovingAverage"]
    assert float(out) == float(variables["v/ExponentialMovingAverage"]) == 2.6875
    assert values(ema.apply(variables))["v/ExponentialMovingAverage"] == (2.6875 + 3.0) / 2


def test_inside_scan_and_jit() -> None:
    ema = EMA(0.5, zero_debias=True)

    def net(xs: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            v = jv.get_variable("v", [], initializer=jv.ones_initializer(), trainable=False)
            v.assign_add(x)
            ema.apply({"": v, "x": x})
            return carry, ema.average(x).value  # pyright: ignore

        return jax.lax.scan(body, None, xs)[1]

    xs = jnp.array([2.0, 4.0])
    for apply in (jv.transform(net).apply, jax.jit(jv.transform(net).apply)):
        variables = jv.transform(net).init(0, xs)
        out, variables = apply(variables, xs)
        np.testing.assert_allclose(out, [2.0, (0.5 * 2 / 2 + 4 / 2) / 0.75], rtol=1e-6)
        assert values(variables)["v/ExponentialMovingAverage"] == (2.0 + 7.0) / 2
        assert float(variables["x/ExponentialMovingAverage/local_step"]) == 2


def test_an_evaluation_reads_averages_through_a_getter() -> None:
    ema = EMA(0.5)

    def averaged(getter: Any, name: str, *args: Any, **options: Any) -> Any:
        found = ema.average(variable := getter(name, *args, **options))
        return variable if found is None else found

    def net() -> Any:
        with jv.variable_scope("net") as scope:
            v = jv.get_variable("v", [], initializer=jv.ones_initializer())
        v.assign_add(1.0)
        ema.apply([v])
        with jv.variable_scope(scope, reuse=True, custom_getter=averaged):
            return jv.get_variable("v", []) * 1.0

    assert float(run(net)[0]) == 1.5


def test_a_partitioner_of_the_scope_does_not_cut_the_shadow() -> None:
    def net() -> None:
        v = jv.get_variable("v", [4])
        with jv.variable_scope("s", partitioner=jv.fixed_size_partitioner(2)) as scope:
            EMA(0.5).apply([v])
            assert scope.partitioner is not None
            assert not hasattr(jv.global_variables()[-1], "part")

    assert list(jv.transform(net).specs()) == ["s/v/ExponentialMovingAverage", "v"]


def test_a_partitioned_variable_is_averaged_whole() -> None:
    def net() -> Any:
        ema = EMA(0.5)
        w = jv.get_variable("w", [4], initializer=jv.ones_initializer(), partitioner=jv.fixed_size_partitioner(2))
        ema.apply()  # TF1's list of trainable variables holds the slices
        assert ema.average(w) is ema.average(next(iter(w)))
        return {name: handle.key for name, handle in ema.variables_to_restore().items()}

    names: list[Any] = []
    variables = jv.transform(lambda: names.append(net())).init(0)
    assert {key: value.shape for key, value in variables.items()} == {"w": (4,), "w/ExponentialMovingAverage": (4,)}
    assert names[0] == {"w/ExponentialMovingAverage": "w"}


# What is wrong


def refused(kind: type[Exception], call: Any) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_what_is_not_floating() -> None:
    text = "The variables must be half, float, or double"
    counts = jv.Variables({"i": jnp.int32(1), "j": jnp.int32(2), "w": 1.0})
    assert text + ": i:0 is int32, j:0 is int32" in refused(TypeError, lambda: EMA(0.5).init(counts))

    def net() -> None:
        w = jv.get_variable("w", [])
        i = jv.get_variable("i", [], "int32")
        assert f"{text}: i:0 is int32" in refused(TypeError, lambda: EMA(0.5).apply([w, i, jnp.int32(1)]))
        assert text in refused(TypeError, lambda: assign_moving_average(i, 1, 0.5))

    assert list(jv.transform(net).specs()) == ["i", "w"]


def test_a_wrong_call_leaves_nothing_behind() -> None:
    def net() -> None:
        a, b = jv.get_variable("a", []), jv.get_variable("b", [])
        jv.get_variable("b/ExponentialMovingAverage", [])
        ema = EMA(0.5)
        assert "already exists" in refused(ValueError, lambda: ema.apply([a, b]))
        assert ema.average(a) is None and jv.moving_average_variables() == []
        ema.apply([a])
        assert ema.average(a).key == "a/ExponentialMovingAverage"  # pyright: ignore

    assert list(jv.transform(net).specs()) == ["a", "a/ExponentialMovingAverage", "b", "b/ExponentialMovingAverage"]


@pytest.mark.parametrize(
    ("kind", "text", "call"),
    [
        (ValueError, "between 0 and 1, got 1.5", lambda: EMA(1.5)),
        (ValueError, "must specify the name", lambda: EMA(0.5, name="a/")),
        (ValueError, "counts averages", lambda: EMA(0.5, number=-1)),
        (ValueError, "nothing to average", lambda: EMA(0.5).init(jv.Variables({}))),
        (KeyError, "nope", lambda: EMA(0.5).init(state(), ["nope"])),
        (TypeError, "variables = ema.init", lambda: EMA(0.5).init({"w": 1.0})),  # pyright: ignore
        (TypeError, "variables = ema.averaged", lambda: EMA(0.5).averaged(3)),  # pyright: ignore
        (TypeError, "variables = ema.apply", lambda: EMA(0.5).apply({"w": 1.0}, ["w"])),  # pyright: ignore
        (RuntimeError, "variables = ema.init", lambda: EMA(0.5).apply(state())),
        (RuntimeError, "variables = ema.init", lambda: EMA(0.5).apply(EMA(0.5).init(state()), ["mean"])),
        (RuntimeError, "variables = ema.init", lambda: EMA(0.5).averaged(state())),
        (KeyError, "global_stop", lambda: EMA(0.5, "global_stop").apply(EMA(0.5).init(state()))),
        (RuntimeError, "is not scalar", lambda: EMA(0.5, "net/w").apply(EMA(0.5).init(state()))),
        (KeyError, "nope", lambda: EMA(0.5).average(state(), "nope")),
        (TypeError, "takes the name or handle", lambda: EMA(0.5).average_name(3)),
        (RuntimeError, "jv.transform", lambda: EMA(0.5).apply([1.0])),
        (RuntimeError, "jv.transform", lambda: EMA(0.5).average("w")),
        (RuntimeError, "jv.transform", lambda: jv.train.weighted_moving_average(1.0, 0.5, 1.0)),
        (ValueError, "shadows of another shape", lambda: EMA(0.5).init(
            EMA(0.5).init(jv.Variables({"w": 1.0})) | jv.Variables({"w": jnp.ones(2)}))),
    ],
)  # fmt: skip
def test_wrong_calls(kind: type[Exception], text: str, call: Any) -> None:
    assert text in refused(kind, call)


@pytest.mark.parametrize(
    ("kind", "text", "call"),
    [
        (TypeError, "takes a list of variables and values", lambda v: EMA(0.5).apply(v)),
        (TypeError, "takes a list of variables and values", lambda v: EMA(0.5).apply("v")),
        (TypeError, "got the name 'v'", lambda v: EMA(0.5).apply(["v"])),
        (KeyError, 'variable "steps" has not been made', lambda v: EMA(0.5, "steps").apply([v])),
        (TypeError, "takes the handle of a variable", lambda v: assign_moving_average("v", 1.0, 0.5)),
        (ValueError, "does not broadcast", lambda v: assign_moving_average(v, jnp.ones(3), 0.5)),
        (ValueError, "between 0 and 1", lambda v: assign_moving_average(v, 1.0, -0.5)),
        (TypeError, "averages floats", lambda v: jv.train.weighted_moving_average(1, 0.5, 1.0)),
    ],
)
def test_wrong_calls_inside_a_model(kind: type[Exception], text: str, call: Any) -> None:
    def net() -> None:
        v = jv.get_variable("v", [2])
        assert text in refused(kind, lambda: call(v))
        with jv.variable_scope(None, "v/ExponentialMovingAverage") as scope:  # no counter moved
            assert scope.name == "v/ExponentialMovingAverage"

    assert list(jv.transform(net).specs()) == ["v"]

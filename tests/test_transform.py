"""`transform`: init, specs, apply, call, multi_transform, and how models behave as values."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars._keys import name_hash
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, NotFoundError

X = jnp.ones([2, 3])


def dense(x: Any, units: int = 4, name: str = "dense") -> Any:
    with jv.variable_scope(name):
        w = jv.get_variable("w", [x.shape[-1], units])
        b = jv.get_variable("b", [units], initializer=jv.zeros_initializer())
    return x @ w + b[None]


def net(x: Any) -> Any:
    return dense(dense(x, name="one"), name="two")


def test_specs_are_holes_and_compute_nothing() -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    specs = jv.transform(net).specs(jax.ShapeDtypeStruct((2, 3), "float32"))
    assert not compiled
    assert tuple(sorted(specs.uninitialized)) == ("one/b", "one/w", "two/b", "two/w")
    assert specs["one/w"].shape == (3, 4)
    assert "test_transform.py" in specs.variable_specs["one/w"].defined_at


def test_value_depends_on_key_and_name_only() -> None:
    def other(x: Any) -> Any:
        jv.get_variable("another", [7])
        return dense(dense(x, name="one"), name="two")

    key = jax.random.key(3)
    a, b = jv.transform(net).init(key, X), jv.transform(other).init(key, X)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    initializer = jv.initializers.glorot_uniform()
    expected = jax.jit(lambda k: initializer(jax.random.fold_in(k, name_hash("one/w")), (3, 4), "float32"))(key)
    np.testing.assert_array_equal(a["one/w"], expected)


@pytest.mark.parametrize("route", ["int seed", "jit", "vmap", "legacy key"])
def test_every_route_of_init_gives_the_same_bits(route: str) -> None:
    model = jv.transform(net)
    reference = model.init(jax.random.key(5), X)
    if route == "int seed":
        found = model.init(5, X)
    elif route == "jit":
        found = jax.jit(model.init)(jax.random.key(5), X)
    elif route == "vmap":
        found = jax.vmap(model.init, in_axes=(0, None))(jax.random.split(jax.random.key(0), 3), X)
        reference = model.init(jax.random.split(jax.random.key(0), 3)[1], X)
        found = jax.tree.map(lambda leaf: leaf[1], found)
    else:
        found = model.init(jax.random.PRNGKey(5), X)
    assert found._layout == reference._layout
    for name in reference:
        np.testing.assert_array_equal(found[name], reference[name])


def test_init_fills_only_what_is_missing() -> None:
    model = jv.transform(net)
    given = jv.Variables({"one/w": np.full([3, 4], 7, np.float32), "extra": jnp.zeros(2)})
    variables = model.init(0, X, variables=given)
    assert sorted(variables) == ["extra", "one/b", "one/w", "two/b", "two/w"]
    np.testing.assert_array_equal(variables["one/w"], 7.0)
    whole = model.init(0, X)
    np.testing.assert_array_equal(variables["two/w"], whole["two/w"])
    again = model.init(1, X, variables=variables)
    assert again["two/w"] is variables["two/w"]


def test_init_fills_holes_from_eval_shape_and_specs() -> None:
    model = jv.transform(net)
    whole = model.init(0, X)
    for holes in (model.specs(X), jax.eval_shape(lambda: whole)):
        filled = model.init(0, X, variables=holes)
        for name in whole:
            np.testing.assert_array_equal(filled[name], whole[name])


def test_init_refuses_values_that_do_not_fit_all_at_once() -> None:
    given = jv.Variables({"one/w": jnp.zeros([5, 4]), "two/b": jnp.zeros([4], "int32")})
    with pytest.raises(InvalidArgumentError) as caught:
        jv.transform(net).init(0, X, variables=given)
    assert "one/w: has shape (5, 4)" in str(caught.value) and "two/b: has dtype int32" in str(caught.value)


def test_initial_values_that_the_model_computes() -> None:
    """Rows 8, 29, 65: initial values from arrays and from other variables' initial values."""

    def fn(x: Any) -> Any:
        v = jv.get_variable("v", [3])
        jv.get_variable("w", initializer=v.initialized_value() + 1)
        jv.Variable(lambda: v * 0.2, name="u")
        return jv.get_variable("n", initializer=np.array([23, 42], np.int32))

    model = jv.transform(fn)
    for variables in (model.init(0, X), jax.jit(model.init)(0, X)):
        np.testing.assert_allclose(variables["w"], variables["v"] + 1, rtol=1e-6)
        np.testing.assert_allclose(variables["u"], variables["v"] * 0.2, rtol=1e-6)
        assert variables["n"].tolist() == [23, 42] and variables["n"].dtype == "int32"
    given = model.init(0, X, variables=jv.Variables({"v": np.full(3, 9, np.float32)}))
    np.testing.assert_array_equal(given["w"], 10.0)
    np.testing.assert_array_equal(model.init(0, jax.ShapeDtypeStruct((2, 3), "float32"))["n"], [23, 42])


def test_initial_value_of_the_arguments_needs_arrays() -> None:
    model = jv.transform(lambda x: jv.get_variable("mean", initializer=x.mean(0)))
    np.testing.assert_array_equal(model.init(0, X)["mean"], 1.0)
    with pytest.raises(InvalidArgumentError, match="computed from the model's arguments"):
        model.init(0, jax.ShapeDtypeStruct((2, 3), "float32"))


def test_writes_of_init_are_discarded() -> None:
    def fn() -> Any:
        return jv.get_variable("n", [], initializer=jv.zeros_initializer()).assign_add(1.0)

    model = jv.transform(fn)
    assert model.init(0)["n"] == 0.0


def test_apply_is_pure_and_keeps_the_layout_it_was_given() -> None:
    def fn(x: Any) -> Any:
        n = jv.get_variable("n", [], "int32", initializer=jv.zeros_initializer())
        n.assign_add(2)
        return dense(x)

    model = jv.transform(fn)
    variables = (model.init(0, X) | jv.Variables({"other": 1.0})).freeze("dense/.*")
    out, after = model.apply(variables, X)
    assert after._layout is variables._layout
    assert (variables["n"], after["n"]) == (0, 2)
    assert after["other"] is variables["other"] and after["dense/w"] is variables["dense/w"]
    assert not after.variable_specs["dense/w"].trainable
    assert out.shape == (2, 4)


def test_apply_lists_every_problem() -> None:
    model = jv.transform(net)
    variables = model.init(0, X)
    short = jv.Variables({"one/w": variables["one/w"], "two/weights": variables["two/w"]})
    with pytest.raises(NotFoundError) as caught:
        model.apply(short, X)
    text = str(caught.value)
    assert all(f"{name}: missing" in text for name in ("one/b", "two/b", "two/w"))
    assert "two/weights" in text and "model.init(0, *args, variables=variables)" in text
    with pytest.raises(FailedPreconditionError, match="uninitialized"):
        model.apply(model.specs(X), X)
    with pytest.raises(InvalidArgumentError, match=r"one/w: has dtype bfloat16.*\n.*two/w: has dtype bfloat16"):
        model.apply(variables.astype({".*/w": "bfloat16"}), X)
    with pytest.raises(InvalidTypeError, match=r"jv.Variables, got dict.*from_nested"):
        model.apply(dict(variables), X)  # pyright: ignore


def test_call_refuses_to_lose_an_assignment() -> None:
    model = jv.transform(lambda: jv.get_variable("n", [], initializer=jv.zeros_initializer()).assign_add(1.0))
    with pytest.raises(FailedPreconditionError, match=r"assigned n.*\n.*model.apply"):
        model(model.init(0))
    assert jv.transform(net)(jv.transform(net).init(0, X), X).shape == (2, 4)


def test_reserved_parameters_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"parameter.* 'rng'"):
        jv.transform(lambda x, rng: x)
    with pytest.raises(InvalidArgumentError, match="'rng' and 'variables'"):
        jv.transform(lambda variables, rng: None)
    with pytest.raises(InvalidTypeError):
        jv.transform(3)  # pyright: ignore


def test_arguments_that_are_no_arrays_stay_as_they_are() -> None:
    seen: list[Any] = []

    def fn(x: Any, training: bool, mode: str, f: Any) -> Any:
        seen.append((training, mode))
        assert training and mode == "a"
        return f(dense(x))

    model = jv.transform(fn)
    variables = model.init(0, X, True, mode="a", f=jnp.tanh)
    model.apply(variables, X, True, "a", f=jnp.tanh)
    assert set(seen) == {(True, "a")}


def test_multi_transform_shares_by_name() -> None:
    models = jv.multi_transform({"one": net, "two": lambda x: dense(x, name="one")})
    specs = models.specs(one=(X,), two=X)
    variables = models.init(0, one=X, two=X)
    assert list(specs) == list(variables) == ["one/b", "one/w", "two/b", "two/w"]
    assert models["two"](variables, X).shape == (2, 4)
    clash = jv.multi_transform({"a": dense, "b": lambda x: dense(x, units=5)})
    with pytest.raises(InvalidArgumentError, match="dense/w: has shape"):
        clash.init(0, a=X, b=X)
    with pytest.raises(InvalidArgumentError, match="lacking: two"):
        models.init(0, one=X)


def test_models_nest() -> None:
    inner = jv.transform(lambda x: dense(x, name="inner"))
    inner_variables = inner.init(0, X)

    def outer(x: Any) -> Any:
        a = jv.get_variable("a", [3, 3])
        y = inner(inner_variables, x @ a)
        with jv.variable_scope("after"):
            return y + jv.get_variable("b", [4])[None]

    model = jv.transform(outer)
    variables = model.init(0, X)
    assert list(variables) == ["a", "after/b"]
    eager, _ = model.apply(variables, X)
    jitted, _ = jax.jit(model.apply)(variables, X)
    np.testing.assert_allclose(eager, jitted, rtol=1e-6)


def test_threads_have_frames_of_their_own() -> None:
    model = jv.transform(lambda x: jax.jit(net)(x))
    variables = model.init(0, X)
    expected, _ = model.apply(variables, X)
    results: list[Any] = []

    def run(scale: float) -> None:
        scaled = jax.tree.map(lambda v: v * scale, variables)
        results.append((scale, model.apply(scaled, X)[0]))

    threads = [threading.Thread(target=run, args=(float(s),)) for s in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 5
    for scale, out in results:
        np.testing.assert_allclose(out, expected * scale**2, rtol=1e-5)


def test_one_trace_of_an_outer_jit_over_many_steps() -> None:
    traces: list[int] = []

    def fn(x: Any) -> Any:
        traces.append(1)
        n = jv.get_variable("n", [], "int32", initializer=jv.zeros_initializer())
        jax.lax.fori_loop(0, 2, lambda i, c: (n.assign_add(1), c)[1], 0)
        return dense(x)

    model = jv.transform(fn)
    variables = model.init(0, X)
    step = jax.jit(model.apply)
    traces.clear()
    for _ in range(5):
        _, variables = step(variables, X)
        variables = pickle.loads(pickle.dumps(variables)) if variables["n"] == 4 else variables
    assert len(traces) == 1 and variables["n"] == 10


def test_losses_and_regularizers_are_evaluated_once_at_frame_level() -> None:
    calls: list[Any] = []

    def regularizer(w: Any) -> Any:
        calls.append(w)
        return jnp.sum(w**2)

    def fn(x: Any) -> Any:
        def layer(y: Any) -> Any:
            return y * jv.get_variable("w", [], initializer=jv.constant_initializer(3.0), regularizer=regularizer)

        jax.checkpoint(layer)(x)
        with jv.variable_scope("", reuse=True):
            jax.lax.scan(lambda c, _: (layer(c), None), x, length=2)
        return sum(jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES))

    model = jv.transform(fn)
    variables = model.init(0, X)
    calls.clear()
    out, _ = model.apply(variables, X)
    assert out == 9.0 and len(calls) == 1
    assert jax.grad(lambda v: model.apply(v, X)[0])(variables)["w"] == 6.0


def test_nothing_of_a_frame_stays_alive() -> None:
    handles: list[Any] = []

    def fn(x: Any) -> Any:
        handles.append(jv.get_variable("w", [64, 3], initializer=jv.zeros_initializer()))
        return jax.jit(lambda y: y @ handles[-1].T)(x)

    model = jv.transform(fn)
    variables = model.init(0, X)
    model.apply(variables, X)
    leaf = weakref.ref(variables["w"])
    handle = handles[-1]
    with pytest.raises(FailedPreconditionError, match="that frame has ended"):
        handle + 1
    del variables
    gc.collect()
    assert leaf() is None and handle.key == "w"


def test_eager_models_that_need_concrete_values_run_eagerly() -> None:
    def fn(x: Any) -> Any:
        n = jv.get_variable("n", [], initializer=jv.zeros_initializer())
        jax.lax.fori_loop(0, 3, lambda i, c: (n.assign_add(1.0), c)[1], 0)
        return x * 2 if float(x.sum()) > 0 else x

    model = jv.transform(fn)
    variables = jv.Variables({"n": np.float32(0)})
    for _ in range(3):
        out, variables = model.apply(variables, X)
    assert variables["n"] == 9.0 and out[0, 0] == 2.0


def test_errors_after_an_inner_touch_are_those_of_the_model() -> None:
    """The first eager call is given up at the touch inside; what fails after it is explained as anywhere else."""

    def fn(x: Any, fails: bool = False) -> Any:
        y = jax.jit(lambda y: y * jv.get_variable("a", [], initializer=jv.ones_initializer()))(x)
        if fails:
            raise KeyError("mine")
        return y, jv.get_variable("b", [5])

    variables = jv.Variables({"a": np.float32(1), "b": np.zeros(3, np.float32)})
    with pytest.raises(InvalidArgumentError, match=r"b: has shape \(3,\), and the model asks for \(5,\)"):
        jv.transform(fn).apply(variables, X)
    with pytest.raises(KeyError, match="mine") as caught:
        jv.transform(fn).apply(variables, X, fails=True)
    assert caught.value.__context__ is None


def test_eager_models_see_changed_python_state() -> None:
    """A staged program is traced at every call: a global that changed counts, as in any eager code."""
    scale = 1.0

    def fn(x: Any) -> Any:
        return jax.jit(lambda y: y * jv.get_variable("w", [], initializer=jv.ones_initializer()) * scale)(x)

    model = jv.transform(fn)
    variables = model.init(0, X)
    for scale in (1.0, 2.0, 3.0):
        assert model(variables, X)[0, 0] == scale


def test_creators_see_every_variable_innermost_first() -> None:
    seen: list[tuple[str, str]] = []

    def creator(label: str) -> Any:
        def create(next_creator: Any, **arguments: Any) -> Any:
            seen.append((label, arguments["name"]))
            return next_creator(**{**arguments, "name": f"{arguments['name']}_{label}", "trainable": False})

        return create

    def fn() -> Any:
        with jv.variable_creator_scope(creator("a")), jv.variable_creator_scope(creator("b")), jv.name_scope("n"):
            u = jv.Variable(1.0, name="u")
            with jv.variable_scope("s"):
                w = jv.get_variable("w", [], initializer=jv.zeros_initializer())
        return u + w

    model = jv.transform(fn)
    variables = model.init(0)
    assert list(variables) == ["n/u_b_a", "s/w_b_a"]
    assert not variables.trainable
    assert seen == [("b", "u"), ("a", "u_b"), ("b", "s/w"), ("a", "s/w_b")]
    assert model(variables) == 1.0

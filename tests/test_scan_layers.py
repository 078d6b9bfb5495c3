"""`jv.scan_layers` beside the Python loop that it stands for: the same variables, numbers, writes, keys, gradients."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations

import jaxvars as jv
from examples import bert
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, JaxvarsError, TransformError

LAYERS = 3
X = jnp.asarray(np.random.RandomState(0).standard_normal((6, 4)), jnp.float32)


def by_loop(body: Callable[..., Any], n: int = LAYERS, name: str = "layer_{}") -> Callable[..., Any]:
    """What `scan_layers` stands for."""

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        for number in range(n):
            with jv.variable_scope(name.format(number)):
                x = body(x, *args, **kwargs)
        return x

    return call


def by_scan(body: Callable[..., Any], n: int = LAYERS, name: str = "layer_{}", **options: Any) -> Callable[..., Any]:
    return jv.scan_layers(name, n, **options)(body)


def count(name: str = "count") -> Any:
    return jv.get_variable(name, [], "int32", initializer=jv.zeros_initializer(), trainable=False)


def block(x: Any) -> Any:
    """A residual layer with all that TF1 does in one: regularizers, a moving average, dropout, a counter."""
    half = jv.regularizers.l2_regularizer(0.5)
    h = jv.layers.dense(x, 8, jnp.tanh, kernel_regularizer=half)
    mean = jv.get_variable("mean", [8], initializer=jv.zeros_initializer(), trainable=False)
    mean.assign(0.5 * mean + h.mean(axis=0))
    count().assign_add(1)
    with jv.variable_scope("out", regularizer=half):
        h = jv.layers.dense(jv.layers.dropout(h - mean.value.reshape(1, 8), 0.25, training=True), 4)
    return x + h


def light(x: Any) -> Any:
    """A layer that compiles at once."""
    seen = count()
    seen.assign(seen + 1)
    return jnp.tanh(x @ jv.get_variable("w", [4, 4], regularizer=jnp.sum))


def model_of(layers: Callable[..., Any]) -> jv.Model:
    """The layers with something before and after."""

    def net(x: Any) -> Any:
        x = jv.layers.dense(x, 4, name="first")
        with jv.variable_scope("encoder"):
            x = layers(x)
        x = x + jax.random.normal(jv.next_rng_key(), x.shape, x.dtype)
        losses = jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES)
        names = [[v.name for v in jv.get_collection(key)] for key in ("trainable_variables", "variables")]
        return jv.layers.dense(x, 2, name="last"), losses, names

    return jv.transform(net)


def assert_same_specs(ours: jv.Variables, loops: jv.Variables) -> None:
    assert ours._layout == loops._layout
    assert ours._layout.creation_order == loops._layout.creation_order
    assert ours.variable_specs == loops.variable_specs
    assert {k: s.defined_at for k, s in ours.variable_specs.items()} == {
        k: s.defined_at for k, s in loops.variable_specs.items()
    }


def assert_close(ours: Any, loops: Any, rtol: float = 2e-5) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(loops)
    for mine, its in zip(jax.tree.leaves(ours), jax.tree.leaves(loops), strict=True):
        if isinstance(its, str):
            assert mine == its
        else:
            assert (mine.shape, mine.dtype) == (its.shape, its.dtype)
            np.testing.assert_allclose(mine, its, rtol=rtol, atol=rtol)


def assert_equal(ours: jv.Variables, loops: jv.Variables) -> None:
    assert list(ours) == list(loops)
    for key in loops:
        np.testing.assert_array_equal(ours[key], loops[key], err_msg=key)


def applied(mode: str, model: jv.Model, variables: jv.Variables, x: Any) -> tuple[Any, jv.Variables]:
    def apply(variables: jv.Variables, x: Any) -> tuple[Any, jv.Variables]:
        (out, losses, _), after = model.apply(variables, x, rng=5)
        return (out, losses), after

    if mode == "jit":
        return jax.jit(apply)(variables, x)
    if mode == "vmap":
        return jax.vmap(apply, in_axes=(None, 0))(variables, jnp.stack([x, 2 * x]))
    if mode == "checkpoint":
        return jax.checkpoint(apply)(variables, x)
    return apply(variables, x)


# The loop and the scan


@pytest.fixture(scope="module")
def pair() -> tuple[jv.Model, jv.Model, jv.Variables]:
    """The model by loop, by scan, and its variables."""
    loops, ours = model_of(by_loop(block)), model_of(by_scan(block))
    return loops, ours, loops.init(0, X)


def test_specs_and_initial_bits(pair: tuple[jv.Model, jv.Model, jv.Variables]) -> None:
    loops, ours, variables = pair
    assert_same_specs(ours.specs(X), loops.specs(X))
    assert_equal(ours.init(0, X), variables)


def slow(*values: Any) -> list[Any]:
    """Parameters for the slower suite."""
    return [
        pytest.param(*value, marks=pytest.mark.slow)
        if isinstance(value, tuple)
        else pytest.param(value, marks=pytest.mark.slow)
        for value in values
    ]


@pytest.mark.parametrize("mode", ["eager", *slow("jit", "vmap", "checkpoint")])
def test_results_losses_and_writes(pair: tuple[jv.Model, jv.Model, jv.Variables], mode: str) -> None:
    loops, ours, variables = pair
    out, after = applied(mode, ours, variables, X)
    wanted, wanted_after = applied(mode, loops, variables, X)
    assert_close(out, wanted)
    assert_close(after, wanted_after)
    assert int(jnp.max(after["encoder/layer_2/count"])) == 1 and variables["encoder/layer_2/count"] == 0


def test_collections(pair: tuple[jv.Model, jv.Model, jv.Variables]) -> None:
    def names(model: jv.Model) -> Any:
        found: list[Any] = []

        def run() -> None:
            found.append(model.apply(pair[2], X, rng=5)[0][2])

        jax.eval_shape(run)
        return found

    assert names(pair[1]) == names(pair[0])


@pytest.mark.parametrize("remat", [*slow(True, False, jax.checkpoint_policies.dots_saveable)])
def test_gradients(pair: tuple[jv.Model, jv.Model, jv.Variables], remat: Any) -> None:
    loops, ours, variables = pair
    if remat is not False:
        ours = model_of(by_scan(block, remat=remat))

    def gradients(model: jv.Model) -> jv.Variables:
        def loss(variables: jv.Variables) -> Any:
            (out, losses, _), _ = model.apply(variables, X, rng=5)
            return jnp.sum(jnp.square(out)) + sum(losses)

        return jax.jit(jv.grad(loss))(variables)

    assert_close(gradients(ours), gradients(loops), rtol=3e-4)


def test_a_second_init_keeps_what_is_given(pair: tuple[jv.Model, jv.Model, jv.Variables]) -> None:
    _, ours, variables = pair
    part = variables.select(lambda key, spec: "layer_1" not in key)
    assert_equal(ours.init(0, X, variables=part), variables)


# Counts


def equations(jaxpr: Any) -> int:
    """The equations of a program, those of inner ones too; values of layers taken together or apart not counted."""
    found = 0
    for equation in jaxpr.eqns:
        found += equation.primitive.name not in ("stack", "unstack", "concatenate", "broadcast_in_dim", "squeeze")
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            found += equations(getattr(part, "jaxpr", part)) if hasattr(part, "eqns") else 0
    return found


@pytest.mark.parametrize("stacked", [None, "layers"])
def test_the_body_is_traced_as_often_for_any_depth(stacked: str | None) -> None:
    calls: list[int] = []

    def body(x: Any) -> Any:
        calls.append(1)
        return block(x)

    found: dict[int, tuple[int, int, int]] = {}
    for n in (2, 5, 9):
        model = jv.transform(by_scan(body, n, stacked=stacked))
        calls.clear()
        variables = model.init(0, X)
        at_init = len(calls)
        calls.clear()
        program = jax.make_jaxpr(lambda v, model=model: model.apply(v, X, rng=0))(variables)
        found[n] = at_init, len(calls), equations(program.jaxpr)
    assert found[2][:2] == ((2, 1) if stacked is None else (1, 1))
    assert found[2] == found[5] == found[9]


def test_one_compilation_of_an_eager_model() -> None:
    model = jv.transform(by_scan(lambda x: x * jv.get_variable("w", []) + count().assign_add(1)))
    variables = model.init(0, X)
    model.apply(variables, X)
    with compilations() as compiled:
        model.apply(variables, X)
    assert not compiled


# Options


def test_inputs_and_outputs_of_layers() -> None:
    rates = jnp.array([1.0, 2.0, 3.0], X.dtype)

    def body(x: Any, rate: Any, shift: float) -> Any:
        x = x * jv.get_variable("w", [], initializer=jv.ones_initializer()) * rate["a"] + shift
        return x, {"sum": x.sum()}

    model = jv.transform(lambda x: by_scan(body, xs={"a": rates}, has_ys=True)(x, shift=1.0))
    x, ys = model(model.init(0, X), X)
    wanted = X
    sums: list[Any] = []
    for rate in rates:
        wanted = wanted * rate + 1.0
        sums.append(wanted.sum())
    assert_close((x, ys), (wanted, {"sum": jnp.stack(sums)}))


@pytest.mark.parametrize("numbers", [range(3, 0, -1), ["low", "high"]], ids=["backwards", "words"])
def test_names_of_layers(numbers: Any) -> None:
    def body(x: Any) -> Any:
        return jnp.tanh(x @ jv.get_variable("w", [4, 4]))

    def loop(x: Any) -> Any:
        for number in numbers:
            with jv.variable_scope(f"block_{number}/deep"):
                x = body(x)
        return x

    ours = jv.transform(jv.scan_layers("block_{}/deep", numbers)(body))
    loops = jv.transform(loop)
    assert_same_specs(ours.specs(X), loops.specs(X))
    variables = loops.init(0, X)
    assert_close(ours(variables, X), loops(variables, X))


@pytest.mark.parametrize("unroll", [2, True])
def test_unroll(unroll: Any) -> None:
    ours, loops = jv.transform(by_scan(light, unroll=unroll)), jv.transform(by_loop(light))
    variables = ours.init(0, X)
    assert_close(ours.apply(variables, X), loops.apply(variables, X))


def test_as_a_decorator_of_a_tree() -> None:
    @jv.scan_layers("layer_{}", 2)
    def layers(state: Any) -> Any:
        """Its own text."""
        return {"x": state["x"] + jv.get_variable("w", []), "n": state["n"] + 1}

    assert layers.__doc__ == "Its own text."
    model = jv.transform(lambda x: layers({"x": x, "n": 0}))
    variables = model.init(0, X)
    out = model(variables, X)
    assert int(out["n"]) == 2
    np.testing.assert_allclose(out["x"], X + variables["layer_0/w"] + variables["layer_1/w"], rtol=1e-6)


def test_a_carry_that_begins_as_a_python_number() -> None:
    def body(x: Any) -> Any:
        count("n").assign_add(1)
        return x * jv.get_variable("w", [], initializer=jv.ones_initializer()) + 0.5

    ours, loops = jv.transform(lambda: by_scan(body)(1)), jv.transform(lambda: by_loop(body)(1))
    assert_same_specs(ours.specs(), loops.specs())
    variables = ours.init(0)
    (out, after), (wanted, wanted_after) = ours.apply(variables), loops.apply(variables)
    assert_close((out, after), (wanted, wanted_after))


# Around and within


CARRIERS: dict[str, Callable[[Any, Any], Any]] = {
    "jit": lambda f, x: jax.jit(f)(x),
    "checkpoint": lambda f, x: jax.checkpoint(f)(x),
    "scan": lambda f, x: jax.lax.scan(lambda c, _: (f(c), None), x, length=2)[0],
    "scan traced twice": lambda f, x: jax.lax.scan(lambda c, _: (jnp.sum(f(x)), None), cast(Any, 0), length=2)[0] + x,
    "cond": lambda f, x: jax.lax.cond(x[0, 0] > -100, f, lambda y: y, x),
}


CASES = [("scan", True), ("scan traced twice", False)]
SLOWER = [(name, learned) for name in CARRIERS for learned in (True, False) if (name, learned) not in CASES]


@pytest.mark.parametrize(("name", "learned"), [*CASES, *slow(*SLOWER)])
def test_inside_a_transform(name: str, learned: bool) -> None:
    def body(x: Any) -> Any:
        seen = count()
        seen.assign(seen + 1)
        return jnp.tanh(x @ jv.get_variable("w", [4, 4]))

    ours, loops = (jv.transform(lambda x, f=f: CARRIERS[name](f, x)) for f in (by_scan(body), by_loop(body)))
    variables = loops.init(0, X)
    if learned:
        assert_equal(ours.init(0, X), variables)
    assert_close(ours.apply(variables, X), loops.apply(variables, X))

    def gradients(model: jv.Model) -> Any:
        return jax.jit(jv.grad(lambda v: jnp.sum(model.apply(v, X)[0])))(variables)

    assert_close(gradients(ours), gradients(loops))


@pytest.mark.parametrize(("name", "learned"), [*CASES, *slow(*SLOWER)])
def test_transforms_inside_the_body(name: str, learned: bool) -> None:
    def body(x: Any) -> Any:
        def inner(y: Any) -> Any:
            seen = count()
            seen.assign(seen + 1)
            noise = 0.0 if name == "cond" else jax.random.normal(jv.next_rng_key(), dtype=X.dtype)
            return jnp.tanh(y @ jv.get_variable("w", [4, 4]) + noise)

        return CARRIERS[name](inner, x)

    def keyed(layers: Any) -> jv.Model:
        return jv.transform(lambda x: layers(x) + jax.random.normal(jv.next_rng_key(), dtype=X.dtype))

    ours, loops = keyed(by_scan(body)), keyed(by_loop(body))
    variables = loops.init(0, X)
    if learned:
        assert_equal(ours.init(0, X), variables)
    assert_close(ours.apply(variables, X, rng=2), loops.apply(variables, X, rng=2))


def test_keys_are_those_of_the_loop() -> None:
    def body(x: Any) -> Any:
        keys = [jv.next_rng_key(), jax.jit(jv.next_rng_key)(), jv.next_rng_key("other")]
        return x + jnp.stack([jax.random.key_data(key).astype(jnp.int32) for key in keys])

    start = jnp.zeros([3, 2], jnp.int32)

    def keyed(layers: Any) -> Any:
        def net() -> Any:
            first = jax.random.key_data(jv.next_rng_key())
            return first, layers(start), layers(start), jax.random.key_data(jv.next_rng_key())

        return jax.jit(lambda: jv.transform(net).apply(jv.Variables({}), rng=0)[0])()

    jax.tree.map(np.testing.assert_array_equal, keyed(by_scan(body)), keyed(by_loop(body)))


def test_variables_of_all_layers() -> None:
    def body(x: Any, shared: Any) -> Any:
        count("layer_calls").assign_add(1)
        shared[1].assign_add(1)
        return jnp.tanh(x @ shared[0] * jv.get_variable("scale", []))

    def net(layers: Any, x: Any) -> Any:
        shared = jv.get_variable("w", [4, 4]), count()
        return layers(x, shared)

    ours, loops = (jv.transform(lambda x, f=f: net(f, x)) for f in (by_scan(body), by_loop(body)))
    assert_same_specs(ours.specs(X), loops.specs(X))
    variables = loops.init(0, X)
    assert_close(ours.apply(variables, X), loops.apply(variables, X))
    assert ours.apply(variables, X)[1]["count"] == LAYERS


def test_variables_of_all_layers_by_a_shared_scope() -> None:
    def body(x: Any) -> Any:
        with jv.variable_scope(shared[0], reuse=jv.AUTO_REUSE):
            w = jv.get_variable("w", [4, 4])
        return x @ w + jv.get_variable("b", [], initializer=jv.zeros_initializer())

    shared: list[Any] = [None]

    def net(layers: Any, x: Any) -> Any:
        with jv.variable_scope("shared") as shared[0]:
            pass
        return layers(x)

    ours, loops = (jv.transform(lambda x, f=f: net(f, x)) for f in (by_scan(body), by_loop(body)))
    assert_same_specs(ours.specs(X), loops.specs(X))
    variables = loops.init(0, X)
    assert_close(ours.apply(variables, X), loops.apply(variables, X))


def test_nested() -> None:
    def inner(x: Any) -> Any:
        return light(x) + jax.random.normal(jv.next_rng_key(), dtype=X.dtype)

    def outer(way: Any) -> Any:
        def body(x: Any) -> Any:
            x = way(inner, 2, "sub_{}")(x)
            return jv.layers.dense(x, 4, name="end")

        return body

    ours, loops = model_of(by_scan(outer(by_scan))), model_of(by_loop(outer(by_loop)))
    assert_same_specs(ours.specs(X), loops.specs(X))
    variables = loops.init(0, X)
    assert_close(applied("jit", ours, variables, X), applied("jit", loops, variables, X))


def test_by_hand() -> None:
    def run(layers: Any) -> tuple[Any, jv.Variables]:
        with jv.VariableStore(0) as store:
            first = layers(X)
            with jv.variable_scope(jv.get_variable_scope(), reuse=True):
                second = layers(first)
        return second, store.variables

    ours, loops = run(by_scan(light)), run(by_loop(light))
    assert ours[1]._layout == loops[1]._layout
    assert_close(ours, loops)


# Where layers could differ: the body runs for each


def renamed_getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Regularizes one layer only, and computes in another dtype."""
    if name.endswith("layer_1/w"):
        kwargs["regularizer"] = jv.regularizers.l2_regularizer(1.0)
    return getter(name, *args, **kwargs) * 2.0


def creator(next_creator: Any, **kwargs: Any) -> Any:
    return next_creator(**(kwargs | {"trainable": not str(kwargs["name"]).endswith("layer_1/w")}))


def with_getter(x: Any) -> Any:
    with jv.variable_scope(jv.get_variable_scope(), custom_getter=renamed_getter):
        return x @ jv.get_variable("w", [4, 4])


def with_own_getter(x: Any) -> Any:
    return x @ jv.get_variable("w", [4, 4], custom_getter=renamed_getter)


def with_creator(x: Any) -> Any:
    with jv.variable_creator_scope(creator):
        return x @ jv.get_variable("w", [4, 4])


def with_tf_variable(x: Any) -> Any:
    return x * jv.Variable(2.0, name="scale") + jv.Variable(0.5)


def with_function(x: Any) -> Any:
    w = jv.get_variable("w", [4, 4])
    return x @ w + jv.get_variable("copy", initializer=lambda: w.initialized_value().sum() + 1.0)


def with_devices(x: Any) -> Any:
    with jv.device(lambda op: f"/cpu:{op.name[6]}"):
        return x @ jv.get_variable("w", [4, 4])


def with_template(x: Any) -> Any:
    template = jv.make_template("linear", lambda y: y @ jv.get_variable("w", [4, 4]))
    return template(template(x))


def with_slices(x: Any) -> Any:
    w = jv.get_variable("w", [4, 4], partitioner=jv.fixed_size_partitioner(2), regularizer=jnp.sum)
    first, second = w
    second.assign(second * 0.5)
    return (
        x @ w + first.value.sum() + jv.get_variable("v", [4, 2], partitioner=jv.fixed_size_partitioner(2)).value.sum()
    )


def with_memberships(x: Any) -> Any:
    w = jv.get_variable("w", [4, 4])
    jv.add_to_collection(jv.GraphKeys.MOVING_AVERAGE_VARIABLES, w)
    jv.add_to_collections(["variables_of", "pairs"], (w, w))
    jv.add_to_collection("names", "static")
    return x @ sum(jv.trainable_variables(jv.get_variable_scope().name))


SPECIAL = [
    with_getter, with_own_getter, with_creator, with_tf_variable, with_function, with_devices, with_template,
    with_slices, with_memberships,
]  # fmt: skip


@pytest.mark.parametrize("tf1_op_names", [False, True], ids=["", "op names"])
@pytest.mark.parametrize("body", [*SPECIAL, light], ids=lambda body: body.__name__)
def test_what_makes_layers_differ(body: Any, tf1_op_names: bool) -> None:
    def net(layers: Any, x: Any) -> Any:
        x = layers(x)
        return x, jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES), jv.get_collection("names")

    ours, loops = (
        jv.transform(lambda x, f=f: net(f, x), tf1_op_names=tf1_op_names) for f in (by_scan(body), by_loop(body))
    )
    specs = ours.specs(X)
    assert_same_specs(specs, loops.specs(X))
    assert [s.placement for s in specs.variable_specs.values()] == [
        s.placement for s in loops.specs(X).variable_specs.values()
    ]
    variables = loops.init(0, X)
    if body is with_devices:
        variables = variables.to(jax.devices()[0])
    else:
        assert_equal(ours.init(0, X), variables)
    assert_close(ours.apply(variables, X, rng=0), loops.apply(variables, X, rng=0))


def test_creators_around() -> None:
    def net(layers: Any, x: Any) -> Any:
        with jv.variable_creator_scope(creator):
            return layers(x)

    ours, loops = (jv.transform(lambda x, f=f: net(f, x)) for f in (by_scan(block), by_loop(block)))
    assert_same_specs(ours.specs(X), loops.specs(X))


# Sharing


def test_a_second_call_is_refused_and_shares_with_reuse() -> None:
    layers = by_scan(light)
    with pytest.raises(InvalidArgumentError, match="layer_0/count already exists"):
        jv.transform(lambda x: layers(layers(x))).specs(X)

    def net(layers: Any, x: Any) -> Any:
        x = layers(x)
        with jv.variable_scope(jv.get_variable_scope(), reuse=True):
            return layers(x)

    ours, loops = (jv.transform(lambda x, f=f: net(f, x)) for f in (by_scan(light), by_loop(light)))
    assert_same_specs(ours.specs(X), loops.specs(X))
    variables = loops.init(0, X)
    assert_close(ours.apply(variables, X), loops.apply(variables, X))


def test_one_layer_that_exists_is_refused() -> None:
    def net(x: Any) -> Any:
        with jv.variable_scope("layer_1"):
            jv.get_variable("w", [])
        return by_scan(lambda x: x * jv.get_variable("w", []))(x)

    with pytest.raises(InvalidArgumentError, match=r"layer_1/w already exists.*test_scan_layers\.py"):
        jv.transform(net).specs(X)


# Stored stacked


def stacked_of(layers: jv.Variables, prefix: str = "encoder/") -> dict[str, Any]:
    """What the stacked model holds, made of the values by layer."""
    found: dict[str, Any] = {}
    for key in layers:
        parts = re.fullmatch(rf"{prefix}layer_0/(.*)", key)
        if parts:
            values = [layers[f"{prefix}layer_{number}/{parts[1]}"] for number in range(LAYERS)]
            found[f"{prefix}layers/{parts[1]}"] = jnp.stack(values)
        elif "layer_" not in key:
            found[key] = layers[key]
    return found


@pytest.mark.slow
def test_stacked_in_full(pair: tuple[jv.Model, jv.Model, jv.Variables]) -> None:
    loops, _, by_layer = pair
    ours = model_of(by_scan(block, stacked="layers"))
    variables = ours.init(0, X)
    wanted = stacked_of(by_layer)
    assert sorted(wanted) == list(variables)
    for key in wanted:
        np.testing.assert_array_equal(variables[key], wanted[key], err_msg=key)
    assert_equal(jax.jit(ours.init)(0, X), variables)
    assert_equal(jv.variables_initializer(ours.specs(X), 0), variables)
    assert variables.variable_specs["encoder/layers/count"].trainable is False

    def loss(model: jv.Model, variables: jv.Variables) -> Any:
        (out, losses, _), after = model.apply(variables, X, rng=5)
        return jnp.sum(jnp.square(out)) + sum(losses), after

    (value, after), gradients = jax.jit(jv.value_and_grad(lambda v: loss(ours, v), has_aux=True))(variables)
    (its, its_after), its_gradients = jax.jit(jv.value_and_grad(lambda v: loss(loops, v), has_aux=True))(by_layer)
    np.testing.assert_allclose(value, its, rtol=1e-5)
    for mine, theirs in ((after, its_after), (gradients, its_gradients)):
        for key, array in stacked_of(theirs).items():
            np.testing.assert_allclose(mine[key], array, rtol=2e-3, atol=2e-4, err_msg=key)


def test_stacked_bits_results_and_gradients() -> None:
    loops, ours = jv.transform(by_loop(light)), jv.transform(by_scan(light, stacked="layers", remat=True))
    by_layer, variables = loops.init(0, X), ours.init(0, X)
    wanted = stacked_of(by_layer, "")
    assert sorted(wanted) == list(variables)
    for key in wanted:
        np.testing.assert_array_equal(variables[key], wanted[key], err_msg=key)
    out, after = ours.apply(variables, X)
    its, its_after = loops.apply(by_layer, X)
    assert_close((out, dict(after)), (its, stacked_of(its_after, "")))

    def gradients(model: jv.Model, variables: jv.Variables) -> jv.Variables:
        return jax.jit(jv.grad(lambda v: jnp.sum(jnp.square(model.apply(v, X)[0]))))(variables)

    assert_close(dict(gradients(ours, variables)), stacked_of(gradients(loops, by_layer), ""))


def test_stacked_constants_constraints_and_sharing() -> None:
    def body(x: Any) -> Any:
        w = jv.get_variable("w", [2], constraint=lambda w: w / w.sum(), initializer=jv.ones_initializer())
        with jv.variable_scope(jv.get_variable_scope(), reuse=True):
            again = jv.get_variable("w", [2])
            assert jv.get_variable("w") is w
        assert again is w and w.shape == (2,)
        return x * w[0] + jv.get_variable("c", initializer=[1, 2])[1] + jv.get_variable("traced", initializer=made[0])

    made: list[Any] = [None]

    def net(x: Any) -> Any:
        made[0] = x.sum() * 2.0
        return by_scan(body, stacked="all")(x)

    model = jv.transform(net)
    variables = model.init(0, jnp.ones(2))
    assert {key: value.shape for key, value in variables.items()} == {
        "all/w": (3, 2),
        "all/c": (3, 2),
        "all/traced": (3,),
    }
    assert variables["all/c"].dtype == jnp.int32 and variables["all/traced"].tolist() == [4.0] * 3
    constraint = variables.variable_specs["all/w"].constraint
    assert constraint is not None
    np.testing.assert_allclose(constraint(jnp.array([[1.0, 3.0], [2.0, 2.0], [0.0, 1.0]]))[0], [0.25, 0.75])
    np.testing.assert_allclose(model(variables, jnp.ones(2)), [19.0, 19.0])


@pytest.mark.parametrize(("outer", "inner"), [("outers", "inners"), (None, "inners"), ("outers", None)])
def test_stacked_nested(outer: str | None, inner: str | None) -> None:
    def deep(x: Any) -> Any:
        return jnp.tanh(x @ jv.get_variable("w", [4, 4]))

    def body(way: Any, x: Any) -> Any:
        return way(x) + jv.get_variable("b", [])

    loops = jv.transform(by_loop(lambda x: body(by_loop(deep, 2, "sub_{}"), x)))
    ours = jv.transform(by_scan(lambda x: body(by_scan(deep, 2, "sub_{}", stacked=inner), x), stacked=outer))
    by_layer, variables = loops.init(0, X), ours.init(0, X)
    for number in range(LAYERS):
        for sub in range(2):
            key = f"{outer or f'layer_{number}'}/{inner or f'sub_{sub}'}/w"
            value = variables[key]
            value = value[number] if outer else value
            value = value[sub] if inner else value
            np.testing.assert_array_equal(value, by_layer[f"layer_{number}/sub_{sub}/w"])
    assert_close(ours(variables, X), loops(by_layer, X))


def test_a_checkpoint_by_layer_restores_stacked_and_back(tmp_path: Path) -> None:
    loops, ours = model_of(by_loop(block)), model_of(by_scan(block, stacked="layers"))
    optimizer = jv.train.AdamOptimizer(0.1)
    trained = optimizer.init(loops.init(1, X))
    into = optimizer.init(ours.init(0, X))
    path = jv.checkpoint.save(trained, str(tmp_path / "layers.npz"))
    restored = jv.checkpoint.restore(path, into, rules=jv.rules.stack_layers("layer_{}", LAYERS, "layers"))
    wanted = stacked_of(trained)
    assert sorted(wanted) == list(restored) and "encoder/layers/dense/kernel/Adam_1" in restored
    for key in wanted:
        np.testing.assert_array_equal(restored[key], wanted[key])
    path = jv.checkpoint.save(restored, str(tmp_path / "stacked.npz"))
    back = jv.checkpoint.restore(
        path, optimizer.init(loops.init(0, X)), rules=jv.rules.unstack_layers("layer_{}", LAYERS, "layers")
    )
    assert_equal(back, trained)


def test_stacked_is_sharded_where_it_says() -> None:
    mesh = jax.make_mesh((2,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    wanted = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, None, "model"))
    layers = by_scan(lambda x: x @ jv.get_variable("w", [4, 4]), stacked="layers")
    plain = jv.transform(layers).init(0, X)
    variables = jv.transform(jv.device(wanted)(layers)).init(0, X)
    assert variables["layers/w"].sharding.is_equivalent_to(wanted, 3)
    np.testing.assert_array_equal(variables["layers/w"], plain["layers/w"])


# Refusals


def changes_shape(x: Any) -> Any:
    return jnp.concatenate([x, x], axis=1)


def changes_dtype(x: Any) -> Any:
    return x.astype(jnp.bfloat16)


def changes_structure(x: Any) -> Any:
    return (x,)


def collects(x: Any) -> Any:
    jv.add_to_collection("losses", x.sum())
    return x


def reads_losses(x: Any) -> Any:
    jv.get_variable("w", [2], regularizer=jnp.sum)
    jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES)
    return x


def depends_on_the_layer(x: Any) -> Any:
    names.append(1)
    return x * jv.get_variable(f"w{len(names)}", [])


def initial_value_inside(x: Any) -> Any:
    return x * jv.get_variable("w", initializer=x.sum())


def key_under_vmap(x: Any) -> Any:
    return x + jax.vmap(lambda y: y + jax.random.normal(jv.next_rng_key(), dtype=X.dtype))(x)


def write_under_vmap(x: Any) -> Any:
    seen = count()
    return x + jax.vmap(lambda y: seen.assign_add(1))(x)[0]


names: list[int] = []
REFUSED: list[tuple[Any, type[JaxvarsError], str]] = [
    (changes_shape, InvalidArgumentError, r"float32\[6, 4\] came in and float32\[6, 8\] came out"),
    (changes_dtype, InvalidArgumentError, r"float32.* came in and bfloat16.*astype"),
    (changes_structure, InvalidArgumentError, "returns what the next layer takes"),
    (collects, FailedPreconditionError, "Return the value"),
    (reads_losses, TransformError, "Read it after the call"),
    (depends_on_the_layer, InvalidArgumentError, r"'layer_1/' it asks for its variable 'w2'.*variable 'w1'"),
    (initial_value_inside, TransformError, "initializer"),
    (key_under_vmap, TransformError, "every example would get the same key"),
    (write_under_vmap, TransformError, "layer_0/count"),
]


@pytest.mark.parametrize(("body", "kind", "text"), REFUSED, ids=lambda p: getattr(p, "__name__", ""))
def test_refused(body: Any, kind: type[JaxvarsError], text: str) -> None:
    names.clear()
    model = jv.transform(by_scan(body))
    with pytest.raises(kind, match=text) as raised:
        model.apply(model.init(0, X, variables=None), X, rng=0)
    assert re.search(r"test_scan_layers\.py:\d+", str(raised.value)) or kind is FailedPreconditionError


def test_layers_that_are_unlike_are_refused() -> None:
    model = jv.transform(by_scan(lambda x: x + jv.get_variable("w", initializer=jnp.ones([4], X.dtype)).value.sum()))
    sizes = {"layer_0/w": 4, "layer_1/w": 4, "layer_2/w": 1}
    unlike = jv.Variables({key: jnp.ones(size, X.dtype) for key, size in sizes.items()})
    with pytest.raises(InvalidArgumentError, match="layer_2/w"):
        model.apply(unlike, X)

    def shared(x: Any) -> Any:
        with jv.variable_scope("", reuse=True):
            return by_scan(lambda x: x + jv.get_variable("w").value.sum())(x)

    with pytest.raises(InvalidArgumentError, match=r"layer_0/w is float32\[4\], and layer_2/w is float32\[1\]"):
        jv.transform(shared).apply(unlike, X)


def test_missing_layers_are_all_named() -> None:
    model = model_of(by_scan(block))
    variables = model.init(0, X).select(lambda key, spec: "layer_2" not in key)
    with pytest.raises(JaxvarsError, match=r"(?s)encoder/layer_2/count.*encoder/layer_2/out/dense/kernel"):
        model.apply(variables, X, rng=0)


def test_a_layer_object_from_outside_is_refused() -> None:
    def net(x: Any) -> Any:
        layer = jv.layers.Dense(4)
        return by_scan(layer)(x)

    with pytest.raises(InvalidArgumentError, match="a layer object or template is made in the body"):
        jv.transform(net).specs(X)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: jv.scan_layers("layer", 3), InvalidArgumentError, r"has a \{\} for its number"),
        (lambda: jv.scan_layers("layer_{}", 0), InvalidArgumentError, "at least one layer"),
        (lambda: jv.scan_layers("layer_{}", ["a", "a"]), InvalidArgumentError, "a name of its own"),
        (lambda: jv.scan_layers("layer_{}", 3, xs=jnp.ones(2)), InvalidArgumentError, "each of the 3 layers"),
        (lambda: jv.scan_layers("layer_{}", 3)(block)(X), FailedPreconditionError, "outside of a frame"),
    ],
)
def test_wrong_calls(call: Any, kind: type[JaxvarsError], text: str) -> None:
    with pytest.raises(kind, match=text):
        call()


def test_wrong_calls_of_layers() -> None:
    with jv.VariableStore(0):
        with pytest.raises(InvalidTypeError, match=r"'sum'.*Pass it after that one"):
            by_scan(lambda mode: mode)("sum")
        with pytest.raises(InvalidTypeError, match=r"returns \(carry, y\)"):
            by_scan(lambda x: x, has_ys=True)(X)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (lambda x: x * jv.Variable(1.0), "jv.Variable in the body"),
        (lambda x: x * jv.get_variable("w", [4], partitioner=jv.fixed_size_partitioner(2)), "partitioner"),
        (lambda x: x * jv.get_variable("w", initializer=lambda: jnp.ones(4)), "function without arguments"),
    ],
)
def test_refused_where_layers_are_stacked(body: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        jv.transform(by_scan(body, stacked="layers")).specs(X)


def test_an_error_in_the_body_leaves_no_trace() -> None:
    def body(x: Any) -> Any:
        count().assign_add(1)
        raise KeyError("mine")

    with jv.VariableStore(0) as store:
        seen = jv.get_variable("layer_0/count", [], "int32", initializer=jv.zeros_initializer(), trainable=False)
        with jv.variable_scope(jv.get_variable_scope(), reuse=jv.AUTO_REUSE), pytest.raises(KeyError, match="mine"):
            by_scan(body)(X)
        seen.assign_add(2)
        assert jv.get_variable("another", []).shape == ()
    assert store.variables["layer_0/count"] == 2


BERTS = [dataclasses.replace(bert.SMALL, scan_layers=scanned) for scanned in (False, True)]


def test_bert_by_scan() -> None:
    """The example, whose custom getter makes the body run for each layer."""
    loops, ours = BERTS
    batch: dict[str, Any] = bert.sums(np.random.RandomState(0), 2)[0]
    assert_same_specs(bert.pretraining.specs(ours, **batch), bert.pretraining.specs(loops, **batch))


@pytest.mark.slow
def test_bert_by_scan_with_dropout() -> None:
    loops, ours = BERTS
    batch: dict[str, Any] = bert.sums(np.random.RandomState(0), 2)[0]
    variables = bert.pretraining.init(0, loops, **batch)
    assert_close(
        *(bert.pretraining.apply(variables, config, **batch, training=True, rng=1)[0] for config in (ours, loops)),
        rtol=1e-4,
    )

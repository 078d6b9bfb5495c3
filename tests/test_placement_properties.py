"""State over any mesh equals state on one device, bit for bit, whatever the library does with it.

The meshes, partition specs and variables are those of `placements`. Where the elements of a sum are added in another
order (gradients of products, norms) or XLA fuses a step otherwise, the tolerance is `TOLERANCE`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from placements import (
    FLOATS,
    NUMBERS,
    POOL,
    assert_placed,
    assert_same,
    bits,
    holes,
    mesh_of,
    meshes,
    place,
    places,
    plain,
    specs,
)

import jaxvars as jv
from jaxvars.fitting import fit

# To the order of a reduction, and to the rounding of fused steps: a few units in the last place of float32.
TOLERANCE: dict[str, float] = {"rtol": 2e-6, "atol": 2e-6}


def depth(quick: int, deep: int) -> Any:
    """Numbers of examples: for each run of the tests, and for the slow ones."""
    return pytest.mark.parametrize("examples", [quick, pytest.param(deep, marks=pytest.mark.slow)])


def prove(examples: int, check: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """Run a property over the same examples each time, without shrinking, which would compile more and more."""
    options: Any = {"derandomize": True, "database": None, "phases": [Phase.explicit, Phase.generate]}
    settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow], **options)(
        given(*strategies)(check)
    )()


# -- fitting


@st.composite
def wanted(draw: st.DrawFn) -> tuple[Any, tuple[int, ...], PartitionSpec]:
    """A mesh, a shape, and any spec: axes in tuples, named twice, that the mesh lacks, beyond the rank."""
    mesh = draw(meshes())
    names = st.sampled_from([*mesh.axis_names, "absent"])
    entries = st.none() | names | st.lists(names, max_size=3).map(tuple)
    shape = tuple(draw(st.lists(st.integers(0, 12), max_size=3)))
    entries_drawn = draw(st.lists(entries, max_size=4))
    flat = [n for e in entries_drawn for n in ((e,) if isinstance(e, str) else e or ())]
    if len(set(flat)) < len(flat):  # JAX's own class refuses an axis named twice
        entries_drawn = entries_drawn[:1] if isinstance(entries_drawn[0], str) else []
    return mesh, shape, PartitionSpec(*entries_drawn)


@settings(max_examples=200, derandomize=True, database=None)
@given(wanted())
def test_what_fits_is_accepted_and_nothing_else_is_left_out(case: Any) -> None:
    mesh, shape, spec = case
    found, reasons = fit(spec, shape, mesh.shape)
    NamedSharding(mesh, found).shard_shape(shape)
    again, none = fit(found, shape, mesh.shape)
    assert again == found and not none
    assert bool(reasons) is not accepted(mesh, spec, shape)
    if not reasons:
        assert NamedSharding(mesh, found).is_equivalent_to(NamedSharding(mesh, spec), len(shape))


def accepted(mesh: Any, spec: PartitionSpec, shape: tuple[int, ...]) -> bool:
    """Whether JAX takes this spec for an array of this shape."""
    try:
        NamedSharding(mesh, spec).shard_shape(shape)
    except (ValueError, IndexError):
        return False
    return len(spec) <= len(shape)


# -- initialization


@depth(4, 12)
def test_initial_values(examples: int) -> None:
    def check(where: Any) -> None:
        made = jv.variables_initializer(holes(where), 0)
        assert_same(made, plain(where))
        assert_placed(made, where)

    prove(examples, check, places())


@depth(2, 6)
def test_initial_values_under_jit(examples: int) -> None:
    def check(where: Any, sharded_by: str) -> None:
        if sharded_by == "holes":
            made = jax.jit(lambda key: jv.variables_initializer(holes(where), key))(0)
        else:
            out = jax.tree.map(lambda hole: hole.sharding, holes(where))
            make = jax.jit(lambda key: jv.variables_initializer(holes(dict.fromkeys(where)), key), out_shardings=out)
            made = make(0)
        assert_same(made, plain(where), rounded=["a/function"])  # not ours: inside of a program XLA rounds as it likes
        assert_placed(made, where)

    prove(examples, check, places(), st.sampled_from(["holes", "caller"]))


# -- rules


POLICIES: dict[str, Any] = {
    "replicated": jv.placement.replicated(),
    "data_parallel": jv.placement.data_parallel(),
    "fsdp": jv.placement.fsdp(min_size=1),
    "fsdp of the large": jv.placement.fsdp(min_size=64),
}


@st.composite
def rules(draw: st.DrawFn, mesh: Any) -> list[tuple[str, Any]]:
    """Rules of which each may match some variables, and a last one that matches all."""
    patterns = draw(st.lists(st.sampled_from(["a/.*", "b/.*", ".*o.*", "a/normal"]), max_size=2, unique=True))
    policies = st.one_of(st.sampled_from(sorted(POLICIES)).map(POLICIES.get), specs(mesh))
    return [(pattern, draw(policies)) for pattern in [*patterns, ".*"]]


def placed_by(said: list[tuple[str, Any]], mesh: Any, name: str) -> NamedSharding:
    """Where the first rule that matches a variable puts it."""
    policy = next(policy for pattern, policy in said if re.fullmatch(pattern, name))
    if not isinstance(policy, PartitionSpec):
        shape, dtype, _ = POOL[name]
        policy = policy(jv.spec.VariableSpec(name, shape, dtype), mesh.shape)
    return NamedSharding(mesh, fit(policy, POOL[name][0], mesh.shape)[0])


@depth(3, 8)
def test_rules_and_strategies(examples: int) -> None:
    names = [name for name in POOL if name != "b/keys"]  # which `get_variable` does not make

    def check(chosen: list[str], data: st.DataObject) -> None:
        mesh = data.draw(meshes())
        said = data.draw(rules(mesh))

        def net() -> None:
            with jv.device(jv.placement.rule(mesh, said)):
                for name in chosen:
                    jv.get_variable(name, *POOL[name][:2], POOL[name][2])

        homes = {name: placed_by(said, mesh, name) for name in chosen}
        one, empty = plain(chosen), holes(dict.fromkeys(chosen))
        values = [
            jv.transform(net).init(0),
            jv.placement.apply(one, mesh, said, allow_unmatched=True),
            jv.variables_initializer(jv.placement.apply(empty, mesh, said, allow_unmatched=True), 0),
        ]
        for found in values:
            for name in chosen:
                assert bits(found[name]).tobytes() == bits(one[name]).tobytes(), name
            assert_placed(found, homes)

    prove(examples, check, st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True), st.data())


# -- assignments


@st.composite
def assignments(draw: st.DrawFn) -> tuple[str, Any, str, str, bool]:
    """(name, its place, operation, where the value comes from, donate)."""
    name = draw(st.sampled_from(NUMBERS))
    return (
        name,
        draw(place(draw(meshes()), name)),
        draw(st.sampled_from(["assign", "assign_add", "assign_sub"])),
        draw(st.sampled_from(["numpy", "anywhere", "another device", "there", "another layout"])),
        draw(st.booleans()),
    )


def brought(value: Any, origin: str, home: NamedSharding) -> Any:
    match origin:
        case "numpy":
            return value
        case "anywhere":
            return jnp.asarray(value)
        case "another device":
            return jax.device_put(value, jax.devices()[3])
        case "there":
            return jax.device_put(value, home)
        case _:
            return jax.device_put(value, NamedSharding(home.mesh, PartitionSpec()))


@depth(12, 40)
def test_assignments(examples: int) -> None:
    def check(case: Any) -> None:
        name, home, op, origin, donate = case
        other = "b/step" if name != "b/step" else "a/scalar"
        one = plain([name, other])
        spread = one.to({name: home, other: jax.devices()[5]})
        value = bits(one[name]) * 2
        expected = getattr(jv, op)(one, name, value)
        untouched = spread[other]
        found = getattr(jv, op)(spread, name, brought(value, origin, home), donate=donate)
        assert_same(found, expected)
        assert_placed(found, {name: home, other: untouched.sharding})
        assert found[other] is untouched

    prove(examples, check, assignments())


@depth(6, 20)
def test_scatters(examples: int) -> None:
    names = [name for name in NUMBERS if POOL[name][0] and POOL[name][0][0]]
    operations = ["update", "add", "sub", "mul", "div", "min", "max", "nd_update", "nd_add", "nd_sub"]

    def check(name: str, op: str, donate: bool, data: st.DataObject) -> None:
        home = data.draw(place(data.draw(meshes()), name))
        one = plain([name])
        rows, shape = one[name].shape[0], one[name].shape[1:]
        indices = np.array([rows - 1, 0, rows - 1])
        if op.startswith("nd_"):
            indices = indices[:, None]
        updates = np.arange(1, 3 * int(np.prod(shape)) + 1).reshape(3, *shape).astype(one[name].dtype)
        scatter = getattr(jv, f"scatter_{op}")
        expected = scatter(one, name, indices, updates)
        found = scatter(one.to(home), name, indices, updates, donate=donate)
        assert_same(found, expected)
        assert_placed(found, {name: home})

    prove(examples, check, st.sampled_from(names), st.sampled_from(operations), st.booleans(), st.data())


# -- models


def elementwise(names: Any) -> Callable[..., Any]:
    """A model whose every element is computed from that element alone, so that its bits cannot depend on the layout."""

    def net(factor: Any) -> Any:
        out = {}
        for name in names:
            shape, dtype, _ = POOL[name]
            v = jv.get_variable(name, shape, dtype, trainable=dtype == "float32")
            out[name] = v * 3 if dtype == "int32" else jnp.abs(v) * factor.astype(v.dtype)
            v.assign(v - out[name] if dtype == "int32" else out[name])
        return out

    return net


@depth(3, 10)
def test_apply(examples: int) -> None:
    def check(where: Any, how: str) -> None:
        model = jv.transform(elementwise(where))
        one, spread = plain(where), plain(where).to(where)
        run = {"eager": model.apply, "jit": jax.jit(model.apply), "donated": jax.jit(model.apply, donate_argnums=0)}[
            how
        ]
        out, after = run(spread, jnp.float32(0.5))
        expected, expected_after = jax.jit(model.apply)(one, jnp.float32(0.5))
        assert_same(jv.Variables(out), jv.Variables(expected))
        assert_same(after, expected_after)
        assert_placed(after, where)

    prove(examples, check, places(NUMBERS), st.sampled_from(["jit", "eager", "donated"]))


@depth(2, 6)
def test_gradients(examples: int) -> None:
    def loss(variables: jv.Variables) -> jax.Array:
        squares = [jnp.sum(jnp.sin(value) * value) for value in variables.values()]
        return sum(squares, jnp.sum(variables["a/orthogonal"].T @ variables["a/normal"]))

    def check(where: Any, jitted: bool) -> None:
        # The product is that of one matrix spread over its first dimension and one spread in any way.
        home = next(iter(where.values()))
        where = {**where, "a/orthogonal": home.update(spec=PartitionSpec()), "a/normal": where.get("a/normal", home)}
        where["a/normal"] = home.update(spec=fit(where["a/normal"].spec, (8, 12), home.mesh.shape)[0])
        step = jv.value_and_grad(loss)
        expected, expected_gradients = jax.jit(step)(plain(where))
        found, gradients = (jax.jit(step) if jitted else step)(plain(where).to(where))
        np.testing.assert_allclose(found, expected, rtol=2e-5)
        assert set(gradients) == set(where)
        for name in gradients:
            np.testing.assert_allclose(gradients[name], expected_gradients[name], err_msg=name, **TOLERANCE)

    prove(examples, check, places(FLOATS, most=2), st.sampled_from([True, True, True, False]))


# -- training


OPTIMIZERS: dict[str, Callable[[], jv.train.Optimizer]] = {
    "adam": lambda: jv.train.AdamOptimizer(1e-2),
    "momentum": lambda: jv.train.MomentumOptimizer(0.1, 0.9),
    "gradient descent": lambda: jv.train.GradientDescentOptimizer(0.1),
    "adagrad": lambda: jv.train.AdagradOptimizer(0.1),
    "rmsprop": lambda: jv.train.RMSPropOptimizer(0.1),
    "ftrl": lambda: jv.train.FtrlOptimizer(0.1),
}


def owner(name: str) -> str:
    """The variable of the pool to which a slot or average belongs."""
    return "/".join(name.split("/")[:2])


def with_slots(where: Any, state: jv.Variables) -> dict[str, Any]:
    """Where variables and slots of their shape should be; what all share may be anywhere."""
    return {
        name: where[owner(name)] for name in state if owner(name) in where and state[name].shape == POOL[owner(name)][0]
    }


@depth(2, 6)
def test_optimizers(examples: int) -> None:
    def check(where: Any, kind: str, jitted: bool) -> None:
        optimizer = OPTIMIZERS[kind]()
        one, spread = optimizer.init(plain(where)), optimizer.init(plain(where).to(where))
        assert_same(spread, one)
        homes = with_slots(where, spread)
        assert_placed(spread.select(lambda key, _: key in homes), homes)
        gradients = jv.Variables({name: jnp.cos(value) for name, value in plain(where).items()})
        step = jax.jit(optimizer.apply_gradients) if jitted else optimizer.apply_gradients
        expected = jax.jit(optimizer.apply_gradients)(gradients, one)
        found = step(gradients.to(where), spread)
        assert found.variable_specs == expected.variable_specs
        for name in found:
            np.testing.assert_allclose(found[name], expected[name], err_msg=name, **TOLERANCE)
        assert_placed(found.select(lambda key, _: key in homes), homes)

    prove(examples, check, places(FLOATS, most=2), st.sampled_from(sorted(OPTIMIZERS)), st.booleans())


@depth(3, 10)
def test_moving_averages(examples: int) -> None:
    def check(where: Any, jitted: bool) -> None:
        ema = jv.train.ExponentialMovingAverage(0.5)

        def moved(variables: jv.Variables) -> jv.Variables:
            twice = variables.replace({name: variables[name] * 2 for name in where})
            return (jax.jit(ema.apply) if jitted else ema.apply)(twice)

        one, spread = ema.init(plain(where)), ema.init(plain(where).to(where))
        homes = {name: where[owner(name)] for name in spread}
        for found, expected in [
            (spread, one),
            (after := moved(spread), expected_after := moved(one)),
            (ema.averaged(after), ema.averaged(expected_after)),
        ]:
            assert_same(found, expected)
            assert_placed(found, homes)

    prove(examples, check, places(FLOATS, most=2), st.booleans())


# -- edits


EDITS: dict[str, Callable[[jv.Variables], jv.Variables]] = {
    "copy_scope": lambda v: v.copy_scope("a", "copy") if has_a(v) else v,
    "rename": lambda v: v.rename([("a/(.*)", r"renamed/\1")], allow_unmatched=True),
    "astype": lambda v: v.astype({key: "float16" for key, spec in v.variable_specs.items() if spec.dtype == "float32"}),
    "select": lambda v: v.select(lambda key, _: not key.endswith("uniform")) or v,
    "replace": lambda v: v.replace({key: bits(v[key]) for key in v if not is_key(v[key])}),
    "replace by what is there": lambda v: v.replace({key: jnp.copy(value) for key, value in v.items()}),
    "|": lambda v: v | v.scope("a") if has_a(v) else v,
    "packed": lambda v: v.packed(),
    "unpacked": lambda v: v.unpacked(),
    "freeze": lambda v: v.freeze([(".*", None)]),
    "nested": lambda v: jv.Variables.from_nested(v.to_nested()),
    "tree.map": lambda v: jax.tree.map(lambda leaf: leaf, v),
    "assign": lambda v: jv.assign(v, last_number(v), jnp.ones_like(v[last_number(v)])) if last_number(v) else v,
}


def has_a(variables: jv.Variables) -> bool:
    return any(key.startswith("a/") for key in variables)


def is_key(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def last_number(variables: jv.Variables) -> str | None:
    return next((key for key, spec in variables.variable_specs.items() if spec.dtype == "int32"), None)


@depth(8, 20)
def test_edits_in_any_order(examples: int) -> None:
    def check(where: Any, edits: list[str]) -> None:
        one, spread = plain(where), plain(where).to(where)
        for edit in edits:
            one, spread = EDITS[edit](one), EDITS[edit](spread)
            assert_same(spread, one)
            assert_placed(spread, {name: home_after(name, where) for name in spread})

    prove(examples, check, places(), st.lists(st.sampled_from(sorted(EDITS)), min_size=1, max_size=4))


def home_after(name: str, where: Any) -> Any:
    scope, _, last = name.partition("/")
    return where[name if scope == "b" else f"a/{last}"]


# -- checkpoints


@depth(4, 12)
def test_restored_into_any_other_layout(examples: int) -> None:
    formats = ["orbax", "tf", "safetensors", "npz"]

    def check(where: Any, format: str, data: st.DataObject) -> None:
        one = plain(where)
        target_mesh = data.draw(meshes())
        there = {name: data.draw(place(target_mesh, name)) for name in where}
        with tempfile.TemporaryDirectory() as folder:
            path = jv.checkpoint.save(one.to(where), f"{folder}/model", format)
            into = holes(there) if data.draw(st.booleans()) else jax.tree.map(jnp.zeros_like, one).to(there)
            found = jv.checkpoint.restore(path, into)
        assert_same(found, one)
        assert_placed(found, there)

    names = [name for name in POOL if name != "b/keys"]  # of which only Orbax files have a notion
    prove(examples, check, places(names), st.sampled_from(formats), st.data())


# -- counts


def net(x: Any) -> Any:
    x = jv.layers.dense(x, 16, activation=jax.nn.relu, name="hidden")
    x = jv.layers.batch_normalization(x, training=True, name="norm")
    return jv.layers.dense(x, 8, name="logits")


def spread_rules(variables: jv.Variables, mesh: Any) -> dict[str, Any]:
    """Kernels over both axes, all else over the first one."""
    return {
        name: NamedSharding(mesh, fit(PartitionSpec("data", "model"), value.shape, mesh.shape)[0])
        for name, value in variables.items()
    }


def test_a_step_is_traced_and_compiled_once() -> None:
    mesh = mesh_of({"data": 4, "model": 2}, tuple(range(8)))
    model, optimizer = jv.transform(net), jv.train.AdamOptimizer(1e-2)
    x = jax.device_put(np.ones((8, 4), np.float32), NamedSharding(mesh, PartitionSpec("data")))
    variables = model.init(0, x)
    homes = spread_rules(variables, mesh)
    variables = optimizer.init(variables.to(homes))
    traces: list[None] = []

    @jax.jit
    def step(variables: jv.Variables, x: jax.Array) -> jv.Variables:
        traces.append(None)

        def loss(variables: jv.Variables) -> Any:
            out, variables = model.apply(variables, x)
            return jnp.mean(out**2), variables

        (_, variables), gradients = jv.value_and_grad(loss, has_aux=True)(variables)
        return optimizer.apply_gradients(gradients, variables)

    places_before = {name: value.sharding for name, value in variables.items()}
    variables = step(variables, x)
    assert_placed(variables, places_before)
    with compilations() as compiled, jax.transfer_guard("disallow"):
        for _ in range(3):
            variables = step(variables, x)
    assert len(traces) == 1 and not compiled
    assert_placed(variables, places_before)


def test_an_assignment_touches_one_variable_and_is_compiled_once() -> None:
    mesh = mesh_of({"data": 4, "model": 2}, (5, 2, 7, 0, 3, 6, 1, 4))
    homes = {name: NamedSharding(mesh, PartitionSpec("data")) for name in ("a/normal", "a/uniform", "b/drawn")}
    variables = before = plain(homes).to(homes)
    value = jax.device_put(np.ones((8, 12), np.float32), homes["a/normal"])
    variables = jv.assign_add(variables, "a/normal", value)
    with compilations() as compiled, jax.transfer_guard("disallow"):
        for _ in range(3):
            variables = jv.assign_add(variables, "a/normal", value)
            variables = jv.assign(variables, "b/drawn", variables["b/drawn"])
    assert len(compiled) <= 1  # the copy that an assigned value is
    assert variables["a/uniform"] is before["a/uniform"]
    assert_placed(variables, homes)
    np.testing.assert_array_equal(variables["a/normal"], np.asarray(before["a/normal"]) + 1 + 1 + 1 + 1)


def test_an_empty_variable_over_its_other_dimension() -> None:
    mesh = mesh_of({"data": 4, "model": 2}, tuple(range(8)))
    made = jv.variables_initializer(holes({"a/none": NamedSharding(mesh, PartitionSpec("data", "model"))}), 0)
    assert np.asarray(made["a/none"]).shape == (0, 4)

"""Views and edits of `Variables`: what is chosen, changed, copied, refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvars.errors import InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.spec import Hole, VariableSpec, is_hole
from jaxvars.variables import Variables


def gan():
    return Variables(
        {
            "gen/w": jnp.ones((2, 2)),
            "gen/bn/scale": jnp.ones(2),
            "gen_2/w": jnp.ones(3),
            "disc/w": jnp.ones(4),
            "step": np.int32(0),
        }
    ).freeze(["step", "gen/bn/"])


def values(variables):
    return {key: np.asarray(value).tolist() for key, value in variables.items()}


# -- views -----------------------------------------------------------------------------------------------


def test_trainable_and_non_trainable_split_the_state():
    variables = gan()
    assert list(variables.trainable) == ["disc/w", "gen/w", "gen_2/w"]
    assert list(variables.non_trainable) == ["gen/bn/scale", "step"]
    assert list(variables.collection("trainable_variables")) == list(variables.trainable)
    assert list(variables.collection("variables")) == list(variables)
    assert list(variables.collection("unknown")) == []


def test_collection_scope_is_tf1s_prefix_regex():
    variables = gan()
    assert list(variables.collection("variables", "gen")) == ["gen/bn/scale", "gen/w", "gen_2/w"]
    assert list(variables.collection("variables", "gen/")) == ["gen/bn/scale", "gen/w"]
    assert list(variables.collection("variables", ".*w:0$")) == ["disc/w", "gen/w", "gen_2/w"]
    with pytest.raises(InvalidArgumentError, match="not a regex"):
        variables.collection("variables", "(")


def test_scope_is_exact():
    variables = gan()
    assert list(variables.scope("gen")) == list(variables.scope("gen/")) == ["gen/bn/scale", "gen/w"]
    assert list(variables.scope("step")) == ["step"]
    assert list(variables.scope("")) == list(variables)
    with pytest.raises(NotFoundError, match=r'scope "gan".*Nearest: gen'):
        variables.scope("gan")


def test_select_takes_patterns_names_specs_functions_and_views():
    variables = gan()
    spec = variables.variable_specs["disc/w"]
    assert list(variables.select(".*/w")) == ["disc/w", "gen/w", "gen_2/w"]
    assert list(variables.select(["gen/", spec, "step:0"])) == ["disc/w", "gen/bn/scale", "gen/w", "step"]
    assert list(variables.select(spec)) == ["disc/w"]
    assert list(variables.select([("gen/bn/", None), "gen/"])) == ["gen/w"]
    assert list(variables.select(lambda key, spec: spec.size == 4)) == ["disc/w", "gen/w"]
    assert list(variables.select(variables.trainable)) == list(variables.trainable)
    with pytest.raises(NotFoundError, match="rule matches none"):
        variables.select("nothing/")
    assert list(variables.select("nothing/", allow_unmatched=True)) == []


def test_views_are_found_once_per_layout():
    variables = gan()
    other = variables._with_leaves(variables._leaves)
    for view in (
        lambda v: v.trainable,
        lambda v: v.scope("gen"),
        lambda v: v.select(["gen/", "step"]),
        lambda v: v.collection("variables", "gen"),
    ):
        assert view(variables)._layout is view(other)._layout
    all_trainable = Variables({"a": 1.0})
    assert all_trainable.trainable is all_trainable


def test_uninitialized_is_in_creation_order():
    pairs = [("b", Hole((), "float32")), ("c", np.float32(0)), ("a", Hole((), "float32"))]
    variables = Variables.from_specs((VariableSpec(k, (), "float32"), v) for k, v in pairs)
    assert variables.uninitialized == ("b", "a")


# -- replace and union -----------------------------------------------------------------------------------


def test_replace_converts_as_assign_and_leaves_the_old_state():
    variables = gan()
    changed = variables.replace({"gen/w": np.zeros((2, 2)), "step:0": 3})
    assert changed._layout is variables._layout
    assert int(changed["step"]) == 3 and changed["step"].dtype == jnp.int32 and not changed["step"].weak_type
    assert int(variables["step"]) == 0
    emptied = changed.replace({"step": jax.ShapeDtypeStruct((), "int32")})
    assert emptied.uninitialized == ("step",)


def test_replace_lists_all_problems_and_changes_nothing():
    variables = gan()
    with pytest.raises(NotFoundError) as caught:
        variables.replace({"gen/v": 1.0, "disc/w": [1.0], "step": 0.5, "stp": 1, "gen_2/w": np.zeros(3)})
    text = str(caught.value)
    assert "4 problems, nothing was changed" in text
    assert "Nearest: gen/w" in text and "both shapes must be equal" in text and "expected int32" in text
    with pytest.raises(InvalidArgumentError, match="given twice"):
        variables.replace({"step": 1, "step:0": 2})
    with pytest.raises(InvalidTypeError, match="takes a mapping"):
        variables.replace([("step", 1)])
    with pytest.raises(InvalidArgumentError, match="the hole"):
        variables.replace({"step": Hole((2,), "int32")})


def test_union_right_wins_but_a_hole_never_over_a_value():
    left = Variables({"a": 1.0, "b": 1.0, "h": Hole((), "float32")})
    right = Variables({"b": 2.0, "c": 2.0, "a": Hole((), "float32"), "h": 5.0}).freeze(["a", "b"])
    merged = left | right
    assert values(merged) == {"a": 1.0, "b": 2.0, "c": 2.0, "h": 5.0}
    assert list(merged.non_trainable) == ["b"]  # the description comes with the value
    assert (Variables({"h": Hole((), "float32")}) | Variables({"h": Hole((), "float32")})).uninitialized == ("h",)


def test_union_with_a_dict_keeps_the_description():
    left = Variables({"a": 1.0, "b": 1.0}).freeze("a")
    assert list((left | {"a": 2.0, "z": 3.0}).non_trainable) == ["a"]
    assert values({"a": 5.0, "y": 1.0} | left) == {"a": 1.0, "b": 1.0, "y": 1.0}
    with pytest.raises(TypeError):
        left | 3


def test_union_inside_jit_and_its_layout_is_planned_once():
    variables = gan()
    train = variables.trainable

    @jax.jit
    def step(v):
        return v | jax.tree.map(lambda x: x * 2, v.trainable)

    assert values(step(variables))["disc/w"] == [2.0] * 4
    assert (variables | train)._layout is (variables | train)._layout is variables._layout


# -- renaming, copying, casting, flags -------------------------------------------------------------------


def test_rename_swaps_rotates_and_transforms():
    variables = Variables({"a/w": jnp.arange(6.0).reshape(2, 3), "b/w": jnp.zeros(1), "c": 1})
    assert list(variables.rename({"a/": "b/", "b/": "a/"})) == ["a/w", "b/w", "c"]
    assert variables.rename({"a/": "b/", "b/": "a/"})["b/w"].shape == (2, 3)
    turned = variables.rename([("a/w", "a/k", jnp.transpose)])
    assert turned["a/k"].shape == (3, 2)
    holes = Variables({"w": Hole((2, 3), "float32")}).rename([("w", "k", jnp.transpose)])
    assert is_hole(holes["k"]) and holes["k"].shape == (3, 2)


def test_rename_refuses_clashes_and_idle_or_turned_rules():
    variables = Variables({"tower/w": 1.0, "tower/b": 1.0})
    with pytest.raises(InvalidArgumentError, match='several variables get one name:\n  "x" from tower/b, tower/w'):
        variables.rename([("tower/.*", "x")])
    with pytest.raises(InvalidArgumentError, match="non-empty"):
        variables.rename([("tower/w", "")])
    with pytest.raises(NotFoundError) as caught:
        variables.rename([(r"conv1/(.*)", r"tower/\1")])
    assert "turned round" in str(caught.value) and r'("tower/(.*)", r"conv1/\1")' in str(caught.value)
    with pytest.raises(InvalidArgumentError, match=r'transpose fails on "tower/w"|fails on "tower/w"'):
        variables.rename([("tower/w", "k", lambda x: x.reshape(7))])


def test_rename_keeps_notes_and_flags():
    spec = VariableSpec("a", (), "float32", trainable=False, collections=("variables",), defined_at="m.py:3")
    renamed = Variables.from_specs([(spec, np.float32(1))]).rename({"a": "b"})
    assert renamed.variable_specs["b"] == dataclasses.replace(spec, key="b")
    assert renamed.variable_specs["b"].defined_at == "m.py:3"


@given(st.permutations(range(5)))
@settings(max_examples=25, deadline=None)
def test_renaming_by_a_permutation_moves_values_and_back(order):
    variables = Variables({f"v{i}": np.float32(i) for i in range(5)})
    there = variables.rename({f"v{i}": f"v{j}" for i, j in enumerate(order)})
    assert [float(there[f"v{j}"]) for j in order] == [0.0, 1.0, 2.0, 3.0, 4.0]
    back = there.rename({f"v{j}": f"v{i}" for i, j in enumerate(order)})
    assert values(back) == values(variables) and back._layout == variables._layout


def test_copy_scope_makes_and_refreshes_a_target_network():
    variables = Variables({"q/a/w": jnp.ones(2), "q/h": Hole((), "float32"), "q_2": 1.0})
    copied = variables.copy_scope("q", "q_target", trainable=False)
    assert list(copied) == ["q/a/w", "q/h", "q_2", "q_target/a/w", "q_target/h"]
    assert copied.non_trainable.uninitialized == ("q_target/h",)
    assert copied["q_target/a/w"].unsafe_buffer_pointer() != copied["q/a/w"].unsafe_buffer_pointer()
    moved = copied.replace({"q/a/w": [5.0, 5.0]}).copy_scope("q", "q_target")
    assert moved["q_target/a/w"].tolist() == [5.0, 5.0] and moved._layout is copied._layout
    with pytest.raises(NotFoundError, match='scope "p"'):
        variables.copy_scope("p", "r")
    with pytest.raises(InvalidArgumentError, match="lies in the other"):
        variables.copy_scope("q", "q/a")
    with pytest.raises(InvalidArgumentError, match="lies in the other"):
        variables.copy_scope("", "all")
    with pytest.raises(InvalidArgumentError, match=r'"r/w" is float32 \(2,\)'):
        Variables({"q/w": 1.0, "r/w": np.ones(2, np.float32)}).copy_scope("q", "r")


def test_astype_casts_floats_or_what_the_rules_say():
    variables = Variables({"w": np.float32(1), "step": np.int32(1), "h": Hole((2,), "float32")})
    half = variables.astype(jnp.bfloat16)
    assert {k: str(s.dtype) for k, s in half.variable_specs.items()} == {
        "w": "bfloat16",
        "step": "int32",
        "h": "bfloat16",
    }
    assert half._layout is variables._layout and isinstance(half["h"], Hole)
    assert variables.astype({"step": "float32"})["step"].dtype == jnp.float32
    assert variables.astype([("w", None), ("[wh]", "float16")])["w"].dtype == jnp.float32
    with jax.enable_x64(False), pytest.raises(InvalidArgumentError, match="x64"):
        variables.astype("float64")


def test_freeze_and_with_trainable_move_the_collection_too():
    variables = Variables({"a/w": 1.0, "b/w": 1.0})
    frozen = variables.freeze("a/")
    assert frozen.variable_specs["a/w"].collections == ("variables",)
    assert frozen.with_trainable({"a/": True})._layout == variables._layout
    assert list(variables.with_trainable([("a/", True), (".*", False)]).trainable) == ["a/w"]


def test_labels_and_masks_have_the_same_structure():
    variables = gan()
    labels = variables.labels({"gen/": "g", "step": None}, default="d")
    assert jax.tree.structure(variables.mask("gen/")) == jax.tree.structure(variables)
    assert labels["gen/w"] == "g" and labels["disc/w"] == "d" and labels["step"] is None
    assert dict(variables.mask([("gen/bn/", False), "gen/"])) == {
        "disc/w": False,
        "gen/bn/scale": False,
        "gen/w": True,
        "gen_2/w": False,
        "step": False,
    }
    with pytest.raises(InvalidArgumentError, match="no rule matches disc/w, gen_2/w, step"):
        variables.labels({"gen/": "g"})


def test_to_moves_values_and_tells_holes():
    device = jax.devices()[3]
    mesh = Mesh(np.array(jax.devices()[:2]), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    variables = Variables({"w": jnp.ones(4), "h": Hole((4,), "float32"), "b": 1.0})
    moved = variables.to(device)
    assert moved["w"].devices() == {device} and moved["h"].sharding.device_set == {device}
    spread = variables.to({"[wh]": sharding})
    assert spread["w"].sharding == spread["h"].sharding == sharding
    assert spread["b"].devices() == {jax.devices()[0]}
    with pytest.raises(InvalidTypeError, match=r"jax\.devices"):
        variables.to("/gpu:0")


def test_edits_never_leave_two_names_on_one_buffer():
    variables = Variables({"a/w": jnp.ones(3), "b/w": jnp.zeros(3)})
    shared = variables["a/w"]
    for changed in (
        variables.replace({"b/w": shared}),
        variables | {"c": shared},
        variables | Variables({"c": shared}),
        variables.copy_scope("a", "c"),
        Variables.from_nested({"x": {"y": shared}, "z": shared}),
        variables.rename({"a/w": "q"}) | variables,
        variables.replace({"a/w": jnp.ones(3), "b/w": shared}),
    ):
        pointers = [leaf.unsafe_buffer_pointer() for leaf in changed._leaves]
        assert len(set(pointers)) == len(pointers)
        doubled = jax.jit(lambda v: jax.tree.map(lambda x: x * 2, v), donate_argnums=0)
        jax.block_until_ready(doubled(jax.tree.map(jnp.copy, changed)))


# -- nesting ---------------------------------------------------------------------------------------------


def test_nested_round_trip():
    variables = Variables({"a/b/w": 1.0, "a/c": 2.0, "d": 3.0})
    nested = variables.to_nested()
    assert set(nested) == {"a", "d"} and set(nested["a"]) == {"b", "c"}
    assert Variables.from_nested(nested)._layout is variables._layout
    frozen = variables.freeze("d")
    assert Variables.from_nested(frozen)._layout is Variables(frozen)._layout is frozen._layout
    assert set(variables.to_nested(sep="/b/")) == {"a", "a/c", "d"}


def test_to_nested_refuses_a_name_that_is_also_a_scope():
    with pytest.raises(InvalidArgumentError, match='"a" and "a/b/c"'):
        Variables({"a": 1.0, "a/b/c": 2.0}).to_nested()


def test_from_nested_takes_all_kinds_of_trees():
    @dataclasses.dataclass
    class Layer:
        kernel: object
        bias: object

    tree = {
        "layers": [Layer(1.0, (2.0, 3.0)), {"w": Hole((2,), "float32")}],
        0: jnp.ones(2),
        "inner": Variables({"x/y": 4.0}),
    }
    variables = Variables.from_nested(tree)
    assert list(variables) == [
        "0",
        "inner/x/y",
        "layers/0/bias/0",
        "layers/0/bias/1",
        "layers/0/kernel",
        "layers/1/w",
    ]
    with pytest.raises(InvalidArgumentError, match='"a/b" from'):
        Variables.from_nested({"a/b": 1.0, "a": {"b": 2.0}})
    with pytest.raises(InvalidTypeError, match="no names"):
        Variables.from_nested(3.0)


def test_optax_takes_states_labels_and_masks():
    variables = Variables({"body/w": jnp.ones(2), "head/w": jnp.ones(2)})
    grads = jax.tree.map(jnp.ones_like, variables)
    labels = variables.labels({"head/": "fast"}, default="none")
    optimizer = optax.partition({"fast": optax.sgd(1.0), "none": optax.set_to_zero()}, labels)
    updates, _ = optimizer.update(grads, optimizer.init(variables), variables)
    changed = optax.apply_updates(variables, updates)
    assert values(changed) == {"body/w": [1.0, 1.0], "head/w": [0.0, 0.0]}
    masked = optax.masked(optax.scale(3.0), variables.mask("body/"))
    updates, _ = masked.update(grads, masked.init(variables))
    assert values(updates) == {"body/w": [3.0, 3.0], "head/w": [1.0, 1.0]}
    assert changed._layout is variables._layout

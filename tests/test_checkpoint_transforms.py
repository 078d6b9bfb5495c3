"""Restores that change values on the way: several tensors into one variable, one into several, padded, cast."""

from __future__ import annotations

import bundle_writer as writer
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.rules import cast, concat, pad, reshape, split, stack, transpose, unstack

LAYERS = {f"layer_{i}/w": np.arange(6, dtype=np.float32).reshape(2, 3) + 10 * i for i in range(4)}
QKV = {f"att/{x}/kernel": np.full((4, 2), i, np.float32) for i, x in enumerate("qkv")}


@pytest.fixture
def path(tmp_path):
    words = {"words": np.arange(8, dtype=np.float32).reshape(4, 2), "step": np.array(7, np.int64)}
    writer.write_bundle(tmp_path / "m", {**LAYERS, **QKV, **words})
    return str(tmp_path / "m")


def holes(**shapes):
    return jv.Variables({name.replace("__", "/"): jax.ShapeDtypeStruct(s, "float32") for name, s in shapes.items()})


def test_layers_are_stacked(path) -> None:
    rules = [(r"layers/(.*)", [rf"layer_{i}/\1" for i in range(4)], stack())]
    plan = jv.checkpoint.plan(path, holes(layers__w=(4, 2, 3)), rules=rules)
    assert plan.ok and plan.nbytes == 4 * 24
    assert plan.rows[0].sources == tuple(LAYERS)
    assert "layer_0/w, layer_1/w, layer_2/w and 1 more via stack()" in str(plan)
    assert set(plan.unused) == {*QKV, "words", "step"}
    restored = jv.checkpoint.restore(path, holes(layers__w=(4, 2, 3)), rules=rules)
    np.testing.assert_array_equal(restored["layers/w"], np.stack(list(LAYERS.values())))


def test_each_is_transposed_before_they_are_stacked(path) -> None:
    rules = [(r"layers/(.*)", [rf"layer_{i}/\1" for i in range(4)], transpose(1, 0) >> stack())]
    restored = jv.checkpoint.restore(path, holes(layers__w=(4, 3, 2)), rules=rules)
    np.testing.assert_array_equal(restored["layers/w"], np.stack([w.T for w in LAYERS.values()]))


def test_query_key_and_value_become_one_kernel_and_three_again(path, tmp_path) -> None:
    into = holes(att__qkv__kernel=(4, 6))
    rules = [(r"(.*)/qkv/(.*)", [rf"\1/{x}/\2" for x in "qkv"], concat(axis=1))]
    fused = jv.checkpoint.restore(path, into, rules=rules)
    np.testing.assert_array_equal(fused["att/qkv/kernel"], np.concatenate(list(QKV.values()), axis=1))
    saved = jv.checkpoint.save(fused, tmp_path / "fused")
    back = [(rf"(.*)/{x}/(.*)", r"\1/qkv/\2", split(3, i, axis=1)) for i, x in enumerate("qkv")]
    apart = holes(**{f"att__{x}__kernel": (4, 2) for x in "qkv"})
    plan = jv.checkpoint.plan(saved, apart, rules=back)
    assert plan.nbytes == 4 * 6 * 4  # read once, though three variables take it
    for name, value in jv.checkpoint.restore(saved, apart, rules=back).items():
        np.testing.assert_array_equal(value, QKV[name])


def test_a_stack_comes_apart_by_the_number_in_the_name(path, tmp_path) -> None:
    stacked = jv.Variables({"layers/w": jnp.stack(list(LAYERS.values()))})
    saved = jv.checkpoint.save(stacked, tmp_path / "stacked")
    into = holes(**{name.replace("/", "__"): (2, 3) for name in LAYERS})
    rules = [(r"layer_(\d+)/(.*)", r"layers/\2", unstack(r"\1"))]
    for name, value in jv.checkpoint.restore(saved, into, rules=rules).items():
        np.testing.assert_array_equal(value, LAYERS[name])
    wrong = [(r"layer_(\d+)/(.*)", r"layers/\2", unstack(r"\2"))]
    with pytest.raises(InvalidArgumentError, match="'w', from the name layer_0/w, is no number"):
        jv.checkpoint.plan(saved, into, rules=wrong)
    with pytest.raises(InvalidArgumentError, match="invalid group reference 3"):
        jv.checkpoint.plan(saved, into, rules=[(r"layer_(\d+)/(.*)", r"layers/\2", unstack(r"\3"))])


def test_pad_grows_a_vocabulary(path) -> None:
    into = holes(words=(6, 2))
    restored = jv.checkpoint.restore(path, into, rules=[("words", "words", pad(fill=-1))])
    np.testing.assert_array_equal(restored["words"], [[0, 1], [2, 3], [4, 5], [6, 7], [-1, -1], [-1, -1]])


def test_pad_takes_new_rows_from_the_variables_own_initializer(path) -> None:
    model = jv.transform(lambda: jv.get_variable("words", [6, 2]) * 1)
    rules = [("words", "words", pad(fill="initializer", seed=3))]
    fresh = model.init(3)["words"]
    assert bool((fresh != 0).all())
    restored = jv.checkpoint.restore(path, model.specs(), rules=rules)["words"]
    np.testing.assert_array_equal(restored[:4], np.arange(8).reshape(4, 2))
    np.testing.assert_array_equal(restored[4:], fresh[4:])
    mine = jv.Variables({"words": jnp.full((6, 2), 9.0, jnp.float32)})
    np.testing.assert_array_equal(jv.checkpoint.restore(path, mine, rules=rules)["words"][4:], np.full((2, 2), 9))


def test_pad_makes_nothing_smaller(path) -> None:
    plan = jv.checkpoint.plan(path, holes(words=(3, 2)), rules=[("words", "words", pad())])
    assert plan.mismatched == ("words",) and "pad() cannot make [3, 2] of shape [4, 2]" in str(plan.error())


def test_an_explicit_cast_needs_no_cast_argument(path) -> None:
    into = jv.Variables({"words": jax.ShapeDtypeStruct((8,), "bfloat16")})
    rules = [("words", "words", cast("bfloat16") >> reshape(-1))]
    assert jv.checkpoint.restore(path, into, rules=rules)["words"].dtype == jnp.bfloat16


def test_all_problems_of_transforms_are_told_at_once_and_before_reading(path) -> None:
    into = holes(layers__w=(4, 2, 3), a=(9,), b=(2,))
    rules = [
        ("layers/w", ["layer_0/w", "words"], stack()),
        ("a", "words", reshape(9)),
        ("b", ["att/q/kernel", "att/z/kernel"], stack()),
    ]
    plan = jv.checkpoint.plan(path, into, rules=rules)
    assert plan.mismatched == ("a", "layers/w") and plan.missing == ("b",)
    text = str(plan.error())
    assert "reshape(9) does not go with shape [4, 2]" in text
    assert "one shape and dtype, not float32 [2, 3], float32 [4, 2]" in text
    assert "Key att/z/kernel not found" in text
    with pytest.raises(InvalidArgumentError, match="Nothing was restored"):
        jv.checkpoint.restore(path, into, rules=rules)


def test_several_tensors_left_over_are_a_problem(path) -> None:
    rules = [("w", ["layer_0/w", "layer_1/w"], transpose())]
    plan = jv.checkpoint.plan(path, holes(w=(3, 2)), rules=rules)
    assert "transpose() leaves 2 tensors: add stack() or concat()" in str(plan.error())


def test_a_function_gets_the_list(path) -> None:
    def average(values):
        return sum(values) / len(values)

    restored = jv.checkpoint.restore(path, holes(w=(2, 3)), rules=[("w", list(LAYERS), average)])
    np.testing.assert_array_equal(restored["w"], np.mean(list(LAYERS.values()), axis=0))


def test_a_tensor_named_twice_is_taken_twice(path) -> None:
    restored = jv.checkpoint.restore(path, holes(w=(2, 2, 3)), rules=[("w", ["layer_1/w"] * 2, stack())])
    np.testing.assert_array_equal(restored["w"], np.stack([LAYERS["layer_1/w"]] * 2))


def test_no_two_variables_share_memory(path) -> None:
    into = holes(a=(4, 2), b=(4, 2), c=(8,), d=(8,))
    rules = [("[ab]", "words"), ("[cd]", "words", reshape(8))]
    restored = jv.checkpoint.restore(path, into, rules=rules)
    pointers = {value.unsafe_buffer_pointer() for value in restored.values()}
    assert len(pointers) == 4


def test_rename_takes_one_tensor_at_a_time() -> None:
    variables = jv.Variables({"w": jnp.ones((2, 3))})
    assert variables.rename([("w", "v", transpose())])["v"].shape == (3, 2)
    with pytest.raises(InvalidTypeError, match="a name or None"):
        variables.rename([("w", ["a", "b"], stack())])


def test_the_dtype_in_the_file_is_remembered(path, tmp_path, without_x64) -> None:
    into = jv.Variables({"step": jax.ShapeDtypeStruct((), "int32"), "words": jax.ShapeDtypeStruct((4, 2), "float32")})
    restored = jv.checkpoint.restore(path, into)
    specs = restored.variable_specs
    assert (specs["step"].file_dtype, specs["words"].file_dtype) == ("int64", "")
    later = jv.assign_add(jax.jit(lambda v: v)(restored), "step", 1)
    assert later.variable_specs["step"].file_dtype == "int64"
    renamed = later.rename([("step", "count")])
    assert renamed.variable_specs["count"].file_dtype == "int64"
    # Our own checkpoints note it, and files of other programs are written in it.
    again = jv.checkpoint.restore(jv.checkpoint.save(later, tmp_path / "orbax"), into)
    assert again.variable_specs["step"].file_dtype == "int64" and again["step"].dtype == jnp.int32
    npz = jv.checkpoint.save(again, tmp_path / "out.npz")
    with jv.checkpoint.open(npz) as reader:
        assert reader["step"].dtype == np.int64 and int(np.asarray(reader["step"])) == 8
    # A value from a 32-bit file is a 32-bit value again.
    with np.load(npz) as arrays:
        np.savez(tmp_path / "narrow.npz", step=arrays["step"].astype(np.int32), words=arrays["words"])
    assert jv.checkpoint.restore(tmp_path / "narrow.npz", again).variable_specs["step"].file_dtype == ""


def test_a_missing_one_of_several_names_that_one(path) -> None:
    with pytest.raises(NotFoundError, match="Key layer_9/w not found"):
        jv.checkpoint.restore(path, holes(w=(2, 2, 3)), rules=[("w", ["layer_0/w", "layer_9/w"], stack())])

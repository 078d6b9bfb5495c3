"""Plans and restores: by rules, by assignment_map, all or nothing, with every problem at once."""

import json
import re
import sys
import types

import bundle_writer as writer
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.errors import (
    DataLossError,
    InvalidArgumentError,
    InvalidTypeError,
    JaxvarsError,
    NotFoundError,
    UnavailableError,
)
from jaxvars.spec import Hole, VariableSpec

OLD = {
    "tower/weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "tower/biases": np.array([1, 2, 3], np.float32),
    "logits/weights": np.ones((3, 10), np.float32),
    "logits/biases": np.zeros(10, np.float32),
    "global_step": np.array(1000, np.int64),
    "tower/weights/Momentum": np.zeros((2, 3), np.float32),
    "labels": writer.strings([b"cat", b"dog"]),
}


@pytest.fixture
def old(tmp_path):
    return writer.write_bundle(tmp_path / "model.ckpt", OLD)


def specs(**shapes):
    return jv.Variables(
        {name.replace("__", "/"): jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}
    )


MODEL = {
    "conv1__weights": ((2, 3), "float32"),
    "conv1__biases": ((3,), "float32"),
    "logits__biases": ((4,), "float32"),
    "logits__weights": ((3, 4), "float32"),
    "global_step": ((), "int32"),
}
RULES = [(r"conv1/(.*)", r"tower/\1"), (r"logits/.*", None)]


# Plans


@pytest.mark.usefixtures("without_x64")
def test_a_plan_prints_as_a_table(old):
    plan = checkpoint.plan(old, specs(**MODEL), rules=RULES)
    assert str(plan).splitlines() == [
        f"restore from {old} (tf, 7 tensors)",
        "",
        "  variable        shape   dtype    bytes  from",
        "  --------------  ------  -------  -----  ----------------------------",
        "  conv1/biases    [3]     float32   12 B  tower/biases",
        "  conv1/weights   [2, 3]  float32   24 B  tower/weights",
        "  global_step     []      int32      8 B  global_step (int64 to int32)",
        "  logits/biases   [4]     float32         (left as it is)",
        "  logits/weights  [3, 4]  float32         (left as it is)",
        "",
        "3 of 5 variables restored (44 B), 2 left as they are, 1 narrowed to 32 bits, 4 tensors of the file not used",
        "not used: labels, logits/biases, logits/weights, tower/weights/Momentum",
    ]
    assert plan.ok and plan.error() is None and plan.narrowed == ("global_step",)
    assert plan.left == ("logits/biases", "logits/weights") and plan.nbytes == 44 and len(plan) == 5
    assert [row.source for row in plan] == ["tower/biases", "tower/weights", "global_step", None, None]
    assert "<RestorePlan" in repr(plan)


@pytest.mark.usefixtures("without_x64")
def test_a_plan_goes_to_json_and_html(old):
    plan = checkpoint.plan(old, specs(**MODEL), rules=RULES)
    data = json.loads(plan.to_json())
    assert data["ok"] and data["unused"] == list(plan.unused) and data["bytes"] == 44
    assert data["rows"][0]["target"] == "conv1/biases" and data["rows"][0]["file_shape"] == [3]
    page = plan._repr_html_()
    assert page.count("<tr") == 6 and "tower/weights" in page and "<td" in page
    hostile = checkpoint.plan(old, specs(**{"a<b>": ((2,), "float32")}))
    assert "<b>" not in hostile._repr_html_()


@pytest.mark.usefixtures("without_x64")
def test_a_plan_reads_no_values(old, tmp_path):
    for file in tmp_path.glob("*.data-*"):
        file.write_bytes(b"\xff" * file.stat().st_size)
    assert checkpoint.plan(old, specs(**MODEL), rules=RULES).ok
    with pytest.raises(DataLossError, match="checksum"):
        checkpoint.restore(old, specs(**MODEL), rules=RULES)


@pytest.mark.usefixtures("without_x64")
def test_all_problems_come_at_once(old):
    into = specs(
        conv1__weights=((2, 3), "float32"),
        tower__biases=((4,), "float32"),
        logits__weights=((3, 10), "bfloat16"),
        labels=((2,), "float32"),
        global_step=((), "int32"),
    )
    plan = checkpoint.plan(old, into)
    assert not plan.ok and plan.missing == ("conv1/weights",)
    assert plan.mismatched == ("labels", "logits/weights", "tower/biases")
    with pytest.raises(InvalidArgumentError) as caught:
        checkpoint.restore(old, into)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"Cannot restore 4 variables of 5 from {old} (tf):"
    text = str(caught.value)
    assert "conv1/weights: Key conv1/weights not found in checkpoint. Likeliest: tower/weights" in text
    assert "Shape of variable tower/biases ([4]) doesn't match with shape of tensor tower/biases ([3])" in text
    assert "expected dtype bfloat16 does not equal original dtype float32" in text
    assert 'rules=[("conv1/weights", "tower/weights")]' in text and 'rules=[("tower/", None)]' in text
    assert "cast=True" in text and "Nothing was restored." in text


def test_missing_names_alone_raise_not_found_with_likely_sources(old):
    into = specs(conv1__weights=((2, 3), "float32"), conv1__biases=((3,), "float32"))
    with pytest.raises(NotFoundError) as caught:
        checkpoint.restore(old, into)
    assert isinstance(caught.value, KeyError)
    assert "conv1/biases: Key conv1/biases not found in checkpoint. Likeliest: tower/biases" in str(caught.value)
    row = checkpoint.plan(old, into).rows[1]
    assert row.suggestions[:2] == ("tower/weights", "tower/weights/Momentum")


def test_where_a_variable_was_defined_is_in_the_error(old):
    into = jv.Variables.from_specs(
        [(VariableSpec("x", (2,), "float32", defined_at="model.py:7"), Hole((2,), "float32"))]
    )
    with pytest.raises(NotFoundError, match=r"x \(defined at model.py:7\): Key x not found"):
        checkpoint.restore(old, into)


def test_an_unreadable_tensor_is_a_problem_even_when_not_strict(old, tmp_path):
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()
    into = specs(tower__biases=((3,), "float32"))
    plan = checkpoint.plan(old, into)
    assert plan.unreadable == ("tower/biases",) and "UNREADABLE tower/biases" in str(plan)
    with pytest.raises(DataLossError, match=r"data file model\.ckpt\.data-00000-of-00001 is missing"):
        checkpoint.restore(old, into, strict=False)


def test_a_large_plan_is_quick_and_stays_short(tmp_path):
    tensors = {f"old/{i:04d}/w": np.zeros(1, np.float32) for i in range(1500)}
    path = writer.write_bundle(tmp_path / "m", tensors, per_block=100)
    plan = checkpoint.plan(path, specs(**{f"new__{i:04d}__w": ((1,), "float32") for i in range(1500)}))
    assert len(plan.missing) == 1500 and "... and 1480 more" in str(plan.error())


def test_what_to_write_for_another_shape(old):
    shapes = {"tower__weights": (4, 3), "tower__biases": (3,), "logits__weights": (2, 5), "logits__biases": (5,)}
    into = specs(**{name: (shape, "float32") for name, shape in shapes.items()})

    def advice(*scopes):
        return str(checkpoint.plan(old, jv.Variables({name: into[name] for name in into.select(scopes)})).error())

    grown = advice("tower/")  # the biases fit, so the scope is not left out
    assert 'rules=[("tower/weights", None)]' in grown
    assert 'rules=[("tower/weights", "tower/weights", jv.rules.pad(fill="initializer"))]' in grown
    shrunk = advice("logits/")
    assert 'rules=[("logits/", None)]' in shrunk and "pad" not in shrunk


def test_several_missing_names_lead_to_proposed_rules(old):
    into = specs(net__weights=((5, 5, 1, 2), "float32"), net__bias=((3,), "float32"))
    advice = f"jv.checkpoint.plan({str(old)!r}, into, suggest=True).suggestion"
    with pytest.raises(NotFoundError) as caught:
        checkpoint.restore(old, into)
    assert advice in str(caught.value)
    with pytest.raises(NotFoundError) as caught:
        checkpoint.restore(old, into.select("net/bias"))
    assert advice not in str(caught.value)


# Restores


def test_values_names_and_flags(old):
    into = jv.Variables.from_specs(
        [
            (
                VariableSpec("tower/weights", (2, 3), "float32", False, ("variables",)),
                Hole((2, 3), "float32"),
            ),
            (VariableSpec("tower/biases", (3,), "float32"), jnp.zeros(3, jnp.float32)),
        ]
    )
    restored = checkpoint.restore(old, into)
    np.testing.assert_array_equal(restored["tower/weights"], OLD["tower/weights"])
    np.testing.assert_array_equal(restored["tower/biases"], OLD["tower/biases"])
    assert restored.variable_specs == into.variable_specs and restored._layout is into._layout
    np.testing.assert_array_equal(into["tower/biases"], np.zeros(3))
    assert isinstance(into["tower/weights"], Hole)


@pytest.mark.usefixtures("without_x64")
def test_rules_name_what_is_in_the_file_and_none_leaves_out(old):
    restored = checkpoint.restore(old, specs(**MODEL), rules=RULES)
    np.testing.assert_array_equal(restored["conv1/weights"], OLD["tower/weights"])
    assert restored["global_step"] == 1000 and restored["global_step"].dtype == jnp.int32
    assert isinstance(restored["logits/biases"], jax.ShapeDtypeStruct)


def test_a_plan_that_is_not_strict(old):
    into = specs(**MODEL)
    given = [("logits/", None), ("conv1/", "tower/"), ("global_step", "gone")]
    assert not checkpoint.plan(old, into, rules=given).ok
    plan = checkpoint.plan(old, into, rules=given, strict=False)
    assert plan.ok and plan.error() is None and plan.missing == ("global_step",) and plan.to_dict()["ok"]
    assert not any(line.startswith("!") for line in str(plan).splitlines())
    assert "b00020" not in plan._repr_html_()
    assert plan.restored == ("conv1/biases", "conv1/weights")
    restored = checkpoint.restore(old, into, rules=given, strict=False)
    assert set(restored.uninitialized) == {*plan.missing, *plan.left}


@pytest.mark.usefixtures("without_x64")
def test_advice_keeps_the_rules_that_were_given(old):
    into = specs(**MODEL)
    with pytest.raises(NotFoundError) as caught:
        checkpoint.restore(old, into, rules=[("logits/", None), ("conv1/", "nowhere/")])
    text = str(caught.value)
    assert 'rules=[("conv1/biases", "tower/biases"), ..., *rules]; or keep' in text
    assert "into, rules=rules, suggest=True).suggestion)" in text
    with pytest.raises(InvalidArgumentError) as caught:
        checkpoint.restore(old, into, rules=[("conv1/", "tower/")])
    assert 'rules=[("logits/", None), *rules].' in str(caught.value)
    with pytest.raises(NotFoundError) as caught:
        checkpoint.restore(old, specs(**{"global/step": MODEL["global_step"]}))
    assert 'rules=[("global/step", "global_step")]; or keep' in str(caught.value)


@pytest.mark.usefixtures("without_x64")
def test_a_plan_and_its_suggestion_are_rules(old):
    into = specs(**MODEL)
    plan = checkpoint.plan(old, into, rules=[("logits/", None)], suggest=True)
    assert plan.ok
    by_plan = checkpoint.restore(old, into, rules=plan)
    assert by_plan.uninitialized == checkpoint.restore(old, into, rules=plan.rules).uninitialized
    whole = checkpoint.plan(old, specs(**{name: MODEL[name] for name in MODEL if "logits" not in name}), suggest=True)
    assert checkpoint.plan(old, into.select("conv1/"), rules=whole.suggestion).rules == whole.rules[:2]


@pytest.mark.usefixtures("without_x64")
def test_a_hole_of_64_bits_is_narrowed_as_any_other(tmp_path):
    """Its dtype is one that JAX does not have: what does not fit must not be cut."""
    path = writer.write_bundle(tmp_path / "m", {"small": np.array(5), "large": np.array(2**40)})
    with checkpoint.open(path) as reader:
        holes = jv.Variables({name: jax.ShapeDtypeStruct(each.shape, each.dtype) for name, each in reader.items()})
    with pytest.raises(InvalidArgumentError, match=r"Tensor large .* holds values that do not fit int32"):
        checkpoint.restore(path, holes)
    restored = checkpoint.restore(path, holes, rules=[("large", None)])
    assert restored["small"].dtype == np.int32 and restored.variable_specs["small"].file_dtype == "int64"


def test_not_strict_leaves_what_is_in_into(old):
    into = jv.Variables(
        {"tower/biases": jnp.zeros(3, "float32"), "new": jnp.ones(2), "hole": jax.ShapeDtypeStruct((2,), "float32")}
    )
    restored = checkpoint.restore(old, into, strict=False)
    np.testing.assert_array_equal(restored["tower/biases"], [1, 2, 3])
    assert restored["new"].tolist() == [1, 1] and isinstance(restored["hole"], jax.ShapeDtypeStruct)


def test_a_rule_in_the_wrong_direction_is_shown_turned_round(old):
    with pytest.raises(NotFoundError, match=re.escape('Write: [("conv1/(.*)", r"tower/\\1")]')):
        checkpoint.restore(old, specs(**MODEL), rules=[(r"tower/(.*)", r"conv1/\1")])


def test_swapped_arguments_say_so(old):
    with pytest.raises(InvalidTypeError, match=re.escape(f"swapped. Write: jv.checkpoint.restore({old!r}, into)")):
        checkpoint.restore(specs(**MODEL), old)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"into is Variables.*not dict"):
        checkpoint.plan(old, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="path of a checkpoint is a string"):
        checkpoint.restore(7, specs(**MODEL))  # type: ignore[arg-type]


def test_a_rule_may_carry_a_function(old):
    into = specs(w=((3, 2), "float32"), b=((3,), "bfloat16"), s=((), "int32"))
    rules = [
        ("w", "tower/weights", np.transpose),
        ("b", "tower/biases", lambda x: x.astype(ml_dtypes.bfloat16)),
        ("s", "labels", lambda x: np.array(len(x), np.int32)),
    ]
    plan = checkpoint.plan(old, into, rules=rules)
    assert plan.ok and "tower/weights via transpose" in str(plan)
    restored = checkpoint.restore(old, into, rules=rules)
    np.testing.assert_array_equal(restored["w"], OLD["tower/weights"].T)
    assert restored["b"].dtype == jnp.bfloat16 and restored["s"] == 2


def test_a_function_that_gives_the_wrong_shape_or_fails_is_named(old):
    into = specs(w=((2, 3), "float32"))
    plan = checkpoint.plan(old, into, rules=[("w", "tower/weights", np.transpose)])
    assert plan.mismatched == ("w",) and "transpose makes it [3, 2] float32" in str(plan.error())

    def fails(x):
        raise RuntimeError("no")

    with pytest.raises(InvalidArgumentError, match=r"function fails of the rule for w failed.*RuntimeError: no"):
        checkpoint.restore(old, into, rules=[("w", "tower/weights", fails)])

    def late(x):
        return x.T if x.any() else x

    with pytest.raises(InvalidArgumentError, match=r"late of the rule for w gave shape \[3, 2\]"):
        checkpoint.restore(old, into, rules=[("w", "tower/weights", late)])


def test_two_names_never_share_a_buffer(old):
    into = specs(a=((2, 3), "float32"), b=((2, 3), "float32"))
    restored = checkpoint.restore(old, into, rules=[("a|b", "tower/weights")])
    donated = jax.jit(lambda x: x + 1, donate_argnums=0)(restored["a"])
    np.testing.assert_array_equal(restored["b"], OLD["tower/weights"])
    np.testing.assert_array_equal(donated, OLD["tower/weights"] + 1)


def test_nothing_is_restored_when_a_value_is_damaged(old, tmp_path):
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[raw.index(OLD["tower/weights"].tobytes())] ^= 1
    data.write_bytes(raw)
    into = jv.Variables({name: jnp.zeros_like(OLD[name]) for name in ("tower/biases", "tower/weights")})
    with pytest.raises(DataLossError, match="tensor 'tower/weights' do not match their checksum"):
        checkpoint.restore(old, into)
    assert not np.asarray(into["tower/biases"]).any()


# Dtypes


def bundle(tmp_path, **tensors):
    return writer.write_bundle(tmp_path / "dtypes", tensors)


@pytest.mark.usefixtures("without_x64")
@pytest.mark.parametrize(
    ("value", "narrow", "fits"),
    [
        (np.int64(2**31 - 1), "int32", True),
        (np.int64(-(2**31)), "int32", True),
        (np.int64(2**31), "int32", False),
        (np.int64(2**40), "int32", False),
        (np.float64(0.1), "float32", True),
        (np.float64(np.inf), "float32", True),
        (np.float64(np.nan), "float32", True),
        (np.float64(1e300), "float32", False),
    ],
)
def test_64_bits_are_narrowed_where_they_fit_and_raise_by_name_where_not(tmp_path, value, narrow, fits):
    path = bundle(tmp_path, x=np.array([value, value]))
    into = specs(x=((2,), narrow))
    assert checkpoint.plan(path, into).narrowed == ("x",)
    if fits:
        np.testing.assert_array_equal(checkpoint.restore(path, into)["x"], np.array([value, value], narrow))
        return
    with pytest.raises(InvalidArgumentError, match=rf"x of .* {value.dtype} and holds values that do not fit {narrow}"):
        checkpoint.restore(path, into)


@pytest.mark.parametrize(
    ("found", "want"),
    [
        ("float32", "bfloat16"),
        ("float64", "bfloat16"),
        ("int64", "int8"),
        ("int32", "uint8"),
        ("float16", "float32"),
    ],
)
def test_other_dtypes_need_cast(tmp_path, found, want):
    path = bundle(tmp_path, x=np.array([1, 2], found))
    into = specs(x=((2,), want))
    with pytest.raises(InvalidArgumentError, match=f"expected dtype {want} does not equal original dtype {found}"):
        checkpoint.restore(path, into)
    plan = checkpoint.plan(path, into, cast=True)
    assert plan.ok and f"x ({found} to {want})" in str(plan)
    restored = checkpoint.restore(path, into, cast=True)["x"]
    assert restored.dtype == want and restored.tolist() == [1, 2]


def test_cast_never_leaves_the_family_or_the_range(tmp_path):
    path = bundle(tmp_path, f=np.array([1.5], np.float32), i=np.array([-1], np.int32), big=np.array([300], np.int32))
    for name, want in (("f", "int32"), ("i", "float32"), ("i", "bool")):
        with pytest.raises(InvalidArgumentError, match="expected dtype"):
            checkpoint.restore(path, specs(**{name: ((1,), want)}), cast=True)
    for name in ("i", "big"):
        with pytest.raises(InvalidArgumentError, match="do not fit uint8"):
            checkpoint.restore(path, specs(**{name: ((1,), "uint8")}), cast=True)


def test_with_x64_nothing_is_narrowed(tmp_path):
    path = bundle(tmp_path, x=np.array([2**40, 1]))
    with jax.enable_x64(True):
        restored = checkpoint.restore(path, specs(x=((2,), "int64")))["x"]
        assert restored.dtype == np.int64 and restored.tolist() == [2**40, 1]


def test_bfloat16_and_bool_come_bit_for_bit(tmp_path):
    tensors = {"h": np.array([1.5, -0.0, np.inf], ml_dtypes.bfloat16), "b": np.array([True, False])}
    path = writer.write_bundle(tmp_path / "m", tensors)
    restored = checkpoint.restore(path, specs(h=((3,), "bfloat16"), b=((2,), "bool")))
    assert np.asarray(restored["h"]).tobytes() == tensors["h"].tobytes() and restored["b"].tolist() == [
        True,
        False,
    ]


# Random keys, tracing, progress


def test_typed_keys_come_from_the_raw_keys_of_other_programs(tmp_path):
    path = bundle(tmp_path, rng=np.array([0, 7], np.int64).astype(np.uint32).view(np.int32))
    into = jv.Variables({"rng": jax.random.key(0)})
    with pytest.raises(InvalidArgumentError, match="rng"):
        checkpoint.restore(path, into)
    restored = checkpoint.restore(path, into, rules=[("rng", "rng", lambda x: x.view(np.uint32))])
    assert restored["rng"].dtype == into["rng"].dtype
    np.testing.assert_array_equal(jax.random.key_data(restored["rng"]), [0, 7])


def test_restore_inside_jit_gives_constants(old):
    @jax.jit
    def total(variables):
        return checkpoint.restore(old, variables)["tower/biases"].sum()

    assert total(jv.Variables({"tower/biases": jnp.zeros(3, jnp.float32)})) == 6


def test_progress_is_reported(old, monkeypatch):
    calls = []
    into = specs(tower__biases=((3,), "float32"), tower__weights=((2, 3), "float32"))
    checkpoint.restore(old, into, progress=lambda *call: calls.append(call))
    assert calls == [("tower/biases", 12, 36), ("tower/weights", 36, 36)]
    shown = []

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, nbytes):
            shown.append(nbytes)

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=lambda **options: Bar()))
    checkpoint.restore(old, into, progress=True)
    assert shown == [12, 24]
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(UnavailableError, match="pip install tqdm"):
        checkpoint.restore(old, into, progress=True)
    checkpoint.restore(old, into, progress=False)


def test_every_error_is_ours(old):
    with pytest.raises(JaxvarsError):
        checkpoint.restore(old + "x", specs(**MODEL))

"""Two checkpoints against each other: names, shapes, dtypes, values; exact for 64 bits; in whatever formats."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import bundle_writer as writer
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from command_line import assert_error, run

import jaxvars as jv
from jaxvars.checkpoint import comparison
from jaxvars.checkpoint.comparison import Comparison, compare
from jaxvars.checkpoint.diff import diff
from jaxvars.errors import InvalidArgumentError, NotFoundError
from jaxvars.spec import Hole
from jaxvars.tour.data import CHECKPOINT

A = {
    "tower/weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "tower/biases": np.array([1, 2, 3], np.float32),
    "logits/weights": np.ones((3, 10), np.float32),
    "global_step": np.array(1000, np.int64),
    "only/a": np.zeros(2, np.float32),
    "half": np.ones(3, np.float32),
    "labels": writer.strings([b"cat", b"dog"]),
}
B = {
    **{name: value for name, value in A.items() if name != "only/a"},
    "tower/biases": np.array([1, 2.5, 3], np.float32),
    "logits/weights": np.ones((3, 4), np.float32),
    "half": np.array([1, 1, 0.5], ml_dtypes.bfloat16),
    "labels": writer.strings([b"cat", b"cow"]),
    "only/b": np.zeros(1, np.float32),
}


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str]:
    return writer.write_bundle(tmp_path / "a.ckpt", A), writer.write_bundle(tmp_path / "b.ckpt", B)


def integers(*values: int, dtype: Any = np.int64) -> np.ndarray:
    return np.array(values, dtype)


def floats(*values: float, dtype: Any = np.float64) -> np.ndarray:
    return np.array(values, dtype)


# Values


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (floats(), floats(), Comparison()),
        (floats(1, 2), floats(1, 2), Comparison()),
        (floats(0.0), floats(-0.0), Comparison()),
        (floats(math.nan, math.inf), floats(math.nan, math.inf), Comparison()),
        (floats(1, 2, 4), floats(1, 3, 2), Comparison(2, 2.0, 0.5)),
        (floats(math.nan, 1), floats(0, 1), Comparison(1, math.inf, math.inf)),
        (floats(math.inf, 1), floats(-math.inf, 1), Comparison(1, math.inf, math.inf)),
        (floats(1e308), floats(-1e308), Comparison(1, math.inf, math.inf)),
        (floats(1, dtype=np.float32), floats(1, dtype=ml_dtypes.bfloat16), Comparison()),
        (floats(1, 3, dtype=ml_dtypes.bfloat16), floats(1, 2, dtype=ml_dtypes.bfloat16), Comparison(1, 1.0, 1 / 3)),
        (integers(2**62), integers(2**62 + 1), Comparison(1, 1.0, 2.0**-62)),
        (integers(-(2**63)), integers(2**63 - 1), Comparison(1, 2.0**64, 2.0)),
        (integers(0, dtype=np.uint64), integers(2**64 - 1, dtype=np.uint64), Comparison(1, 2.0**64, 1.0)),
        (integers(2**53), integers(2**53 + 1, dtype=np.uint64), Comparison(1, 1.0, 2.0**-53)),
        (integers(-1), integers(2**64 - 1, dtype=np.uint64), Comparison(1, 2.0**64, 1.0)),
        (integers(1, -7, dtype=ml_dtypes.int4), integers(1, 7), Comparison(1, 14.0, 2.0)),
        (np.array([True, False]), np.array([True, True]), Comparison(1, 1.0, 1.0)),
        (np.array([3 + 4j]), np.array([0j]), Comparison(1, 5.0, 1.0)),
        (writer.strings([b"a", b"b"]), writer.strings([b"a", b"c"]), Comparison(1)),
        (writer.strings([b"1"]), integers(1), Comparison(1)),
    ],
)
def test_values(a: np.ndarray, b: np.ndarray, expected: Comparison) -> None:
    found = compare(a, b)
    assert found == pytest.approx(expected)
    assert compare(b, a) == pytest.approx(expected)


def test_tolerances() -> None:
    a, b = floats(1.0, 100.0, 0.0), floats(1.01, 101.0, 0.5)
    assert compare(a, b, rtol=0.01) == pytest.approx(Comparison(1, 0.5, 1.0))
    assert compare(a, b, atol=0.5).different == 1
    assert compare(a, b, rtol=0.01, atol=0.5).different == 0
    assert compare(floats(math.nan), floats(1.0), rtol=1, atol=1e300).different == 1
    assert compare(integers(10), integers(11), atol=1).different == 0


def test_values_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_PIECE", 7)
    a = np.zeros((5, 6), np.float32)
    b = a.copy()
    b[0, 0], b[4, 5], b[2, 2] = 1, 3, -2
    assert compare(a, b) == Comparison(3, 3.0, 1.0)
    assert compare(a.T, b.T) == Comparison(3, 3.0, 1.0)


# Checkpoints


def test_every_kind_of_difference(paths: tuple[str, str]) -> None:
    found = diff(*paths)
    assert (found.only_in_a, found.only_in_b, found.same) == (("only/a",), ("only/b",), False)
    assert found.equal == ("global_step", "tower/weights")
    kinds = {row.name: (row.kind, row.different, row.max_abs) for row in found.differences}
    assert kinds == {
        "half": ("dtype", 1, 0.5),
        "labels": ("values", 1, 0),
        "logits/weights": ("shape", 0, 0),
        "tower/biases": ("values", 1, 0.5),
    }
    text = {row.name: str(row) for row in found.differences}
    assert text["half"] == "float32 in A, bfloat16 in B; 1 of 3 differ, by at most 0.5 (relative 0.5)"
    assert text["labels"] == "1 of 2 differ"
    assert text["logits/weights"] == "[3, 10] in A, [3, 4] in B"
    assert text["tower/biases"] == "1 of 3 differ, by at most 0.5 (relative 0.2)"
    assert str(found).splitlines()[-1] == found.summary()
    assert found.summary().startswith("2 tensors equal, 4 different, 1 only in A (")
    assert [row.name for row in found.of_kind("values")] == ["labels", "tower/biases"]


def test_levels(paths: tuple[str, str]) -> None:
    specs = diff(*paths, level="specs")
    assert {row.name: row.kind for row in specs.differences} == {"half": "dtype", "logits/weights": "shape"}
    names = diff(*paths, level="names")
    assert names.differences == () and len(names.equal) == 6 and not names.same
    assert names.summary().startswith("6 names equal")
    with pytest.raises(InvalidArgumentError, match="'names', 'specs', 'values', not 'all'"):
        diff(*paths, level="all")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="not negative"):
        diff(*paths, rtol=-1)


def test_values_are_not_read_where_only_names_matter(tmp_path: Path) -> None:
    a, b = (writer.write_bundle(tmp_path / name, {"x": np.ones(3)}) for name in ("a", "b"))
    (tmp_path / "a.data-00000-of-00001").write_bytes(bytes(24))  # its checksum is wrong now
    assert diff(a, b, level="specs").same
    (tmp_path / "a.data-00000-of-00001").unlink()
    found = diff(a, b)
    assert found.differences[0].kind == "unreadable"
    assert str(found.differences[0]) == "in A: the data file a.data-00000-of-00001 is missing"
    assert diff(a, b, level="names").same


def test_rules_give_the_names_of_b(tmp_path: Path) -> None:
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    a = writer.write_bundle(tmp_path / "a", {"tower/w": kernel, "tower/b": np.zeros(3), "old": np.zeros(1)})
    b = writer.write_bundle(tmp_path / "b", {"conv1/w": kernel.T.copy(), "conv1/b": np.zeros(3)})
    rules = [("tower/w", "conv1/w", jv.rules.transpose(1, 0)), ("tower/", "conv1/")]
    found = diff(a, b, rules)
    assert found.equal == ("conv1/b", "conv1/w") and found.only_in_a == ("old",)
    assert found.renamed == {"tower/w": "conv1/w", "tower/b": "conv1/b"}
    assert diff(a, b, rules, level="specs").equal == ("conv1/b", "conv1/w")  # the transform's shape needs the values
    found = diff(a, b, [("tower/", "conv1/"), ("old", "new")])
    assert found.of_kind("shape")[0].name_a == "tower/w"
    assert ("only in A", "old", " (by the rules new)") in found.lines()
    with pytest.raises(InvalidArgumentError, match="several variables get one name"):
        diff(a, b, [("tower/.*", "conv1/w")])
    with pytest.raises(NotFoundError, match="would match turned round"):
        diff(a, b, [("conv1/(.*)", r"tower/\1")])
    with pytest.raises(InvalidArgumentError, match=r"rule for tower/w, float32 \[2, 3\], failed: ZeroDivisionError"):
        diff(a, b, [("tower/w", "conv1/w", lambda array: 1 / 0)])


def test_states_are_compared_as_checkpoints_are(tmp_path: Path) -> None:
    a = jv.Variables({"w": jnp.ones((2, 3)), "b": jnp.zeros(3), "key": jax.random.key(1)})
    b = a.replace({"w": a["w"].at[0, 0].set(3)})
    assert diff(a, a.replace({"b": jnp.zeros(3)})).same
    found = diff(a, b)
    assert str(found.differences[0]) == "1 of 6 differ, by at most 2 (relative 0.667)" and not found.same
    assert (found.path_a, found.format_b) == ("jv.Variables", "variables")
    path = jv.checkpoint.save(b, tmp_path / "b")
    assert diff(path, b).same and diff(b, path).same and not diff(a, path).same
    renamed = b.rename([("w", "v")])
    assert not diff(b, renamed).same and diff(b, renamed, rules=[("w", "v")]).same
    holes = jv.Variables({name: Hole(spec.shape, spec.dtype) for name, spec in a.variable_specs.items()})
    assert diff(a, holes, level="names").same
    assert [item.note for item in diff(a, holes).differences] == ["in B: it is uninitialized"] * 3
    inside = jax.jit(lambda x: diff(x, x, level="values").differences[0].note and x["b"])
    assert inside(a).shape == (3,)


@pytest.mark.usefixtures("without_x64")
def test_a_restored_state_equals_its_file_though_it_is_narrower(tmp_path: Path) -> None:
    old = writer.write_bundle(tmp_path / "old", {"step": np.array(5, np.int64), "other": np.array([1], np.int64)})
    state = jv.checkpoint.restore(old, jv.Variables({"step": Hole((), "int32"), "other": Hole((1,), "int32")}))
    assert diff(old, state).same and diff(state, old).same and diff(state, old, level="specs").same
    assert diff(jv.checkpoint.save(state, tmp_path / "new"), state).same
    state = state.replace({"step": jnp.array(6, jnp.int32)})
    assert [item.name for item in diff(old, state).differences] == ["step"]
    fresh = jv.Variables({"step": jnp.array(5, jnp.int32), "other": jnp.array([1], jnp.int32)})
    assert [item.kind for item in diff(old, fresh).differences] == ["dtype", "dtype"]


@pytest.mark.parametrize("format", ["orbax", "tf", "safetensors", "npz"])
def test_formats_against_each_other(tmp_path: Path, format: str) -> None:
    values = {"a/w": np.arange(6, dtype=np.float32), "b": np.array(3, np.int32), "c": np.ones(2, ml_dtypes.bfloat16)}
    path = jv.checkpoint.save(jv.Variables(values), tmp_path / "new", format=format)
    found = diff(path, writer.write_bundle(tmp_path / "old", values))
    assert found.same and found.format_a == format and found.format_b == "tf"
    assert len(found.equal) == 3


def test_many_small_and_some_large_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `jv.checkpoint.diff` is the function that hides its module.
    monkeypatch.setattr(importlib.import_module("jaxvars.checkpoint.diff"), "_MOST_BYTES_AT_ONCE", 1000)
    values = {f"v{i}": np.full(i, i, np.float32) for i in range(1, 60)}
    a = writer.write_bundle(tmp_path / "a", values)
    b = writer.write_bundle(tmp_path / "b", {**values, "v9": np.zeros(9, np.float32), "v59": np.zeros(59, np.float32)})
    seen: list[tuple[str, int, int]] = []
    found = diff(a, b, progress=lambda *step: seen.append(step))
    assert [row.name for row in found.differences] == ["v59", "v9"]  # in the order of the names
    assert len(found.equal) == 57
    assert len(seen) == 59 and seen[-1][1] == seen[-1][2] == 2 * sum(value.nbytes for value in values.values())


# The command


def test_command_says_same_and_different(capsys: pytest.CaptureFixture[str], paths: tuple[str, str]) -> None:
    assert run(capsys, "diff", CHECKPOINT, CHECKPOINT) == (0, "21 tensors equal, 0 different\n", "")
    done = run(capsys, "diff", *paths)
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["difference", "name"]
    assert lines[1] == "only in A   only/a"
    assert "values      tower/biases    1 of 3 differ, by at most 0.5 (relative 0.2)" in lines
    assert lines[-1].startswith("2 tensors equal, 4 different")
    done = run(capsys, "diff", *paths, "--names-only")
    assert done.code == 1 and "6 names equal, 0 different" in done.out
    done = run(capsys, "diff", *paths, "--no-values")
    assert done.code == 1 and "4 names with shape and dtype equal, 2 different" in done.out


def test_command_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a = writer.write_bundle(tmp_path / "a", {"x": np.array([1, np.nan])})
    b = writer.write_bundle(tmp_path / "b", {"x": np.array([1, 2.0])})
    done = run(capsys, "diff", a, b, "--json")
    assert done.code == 1
    content = done.json()
    assert (content["same"], content["only_in_a"], content["level"]) == (False, [], "values")
    row = content["differences"][0]
    assert (row["name"], row["kind"], row["different"], row["max_abs"]) == ("x", "values", 1, "Infinity")
    assert row["shape_a"] == [2]


def test_command_takes_tolerances_and_rules(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a = writer.write_bundle(tmp_path / "a", {"x/w": np.array([1.0, 100.0])})
    b = writer.write_bundle(tmp_path / "b", {"y/w": np.array([1.0, 101.0])})
    rules = tmp_path / "rules.json"
    rules.write_text('[["x/", "y/"]]')
    assert run(capsys, "diff", a, b, "--rules", rules).code == 1
    assert run(capsys, "diff", a, b, "--rules", rules, "--rtol", "0.01").code == 0
    assert run(capsys, "diff", a, b, "--rules", rules, "--atol", "1").code == 0
    rules.write_text('[["z/", "y/"]]')
    done = run(capsys, "diff", a, b, "--rules", rules)
    assert_error(done, "jaxvars diff: the rule matches none of the 1 names:\n  rule 1: ")
    assert "exchange" not in done.err


def test_command_with_the_rules_of_a_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """They go from the model to the file: the error says what to do, in the language of the file."""
    old = writer.write_bundle(tmp_path / "old", {"y/w": np.ones(2), "y/b": np.ones(1)})
    new = writer.write_bundle(tmp_path / "new", {"x/w": np.ones(2), "x/b": np.ones(1)})
    rules, turned = tmp_path / "rules.json", tmp_path / "turned.json"
    assert run(capsys, "plan", old, new, "--suggest", "--write-rules", rules).code == 0
    done = run(capsys, "diff", old, new, "--rules", rules)
    assert_error(done, "would match turned round", "exchange A and B")
    turned.write_text(done.err.split("\nWrite:\n")[1])
    assert run(capsys, "diff", old, new, "--rules", turned).code == 0
    assert run(capsys, "diff", new, old, "--rules", rules).code == 0
    done = run(capsys, "convert", old, tmp_path / "c.npz", "--rules", rules)
    assert_error(done, "would match turned round", "--into MODEL")
    turned.write_text(done.err.split("\nWrite:\n")[1])
    assert run(capsys, "convert", old, tmp_path / "c.npz", "--rules", turned).code == 0
    assert run(capsys, "convert", old, tmp_path / "d.npz", "--rules", rules, "--into", new).code == 0
    assert run(capsys, "diff", tmp_path / "c.npz", tmp_path / "d.npz").code == 0

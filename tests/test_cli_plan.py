"""`jaxvars plan`: what a restore would do, for models that the command line names in five ways."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundle_writer as writer
import jax
import numpy as np
import pytest
from command_line import assert_error, assert_one_line, run
from shared import shared_path

import jaxvars as jv
from jaxvars.checkpoint.rules_file import read_rules
from jaxvars.commands.model_spec import read_model
from jaxvars.tour.data import CHECKPOINT

WEIGHTS, BIASES = "digits_net/conv1/weights", "digits_net/conv1/biases"


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model.json", {"conv1/weights": [[5, 5, 1, 16], "float32"], "new/bias": [[3], "float32"]})


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write(tmp_path / "rules.json", [["conv1/", "digits_net/conv1/"], ["new/", None]])


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's module in the current folder."""
    text = (
        "import jax, jaxvars as jv\n"
        "print('loading')\n"
        f"specs = jv.Variables({{{WEIGHTS!r}: jax.ShapeDtypeStruct((5, 5, 1, 16), 'float32')}})\n"
        "class net:\n"
        "    def specs(): return specs\n"
        "def broken():\n"
        "    raise KeyError('no\\nkey')\n"
        "def leaves(): raise SystemExit(3)\n"
        "number = 5\n"
    )
    write(tmp_path / "users_model.py", text)
    monkeypatch.chdir(tmp_path)
    yield "users_model"
    sys.modules.pop("users_model", None)


# The plan


def test_a_plan_that_holds_and_one_that_does_not(capsys: pytest.CaptureFixture[str], model: Path, rules: Path) -> None:
    done = run(capsys, "plan", CHECKPOINT, model)
    assert (done.code, done.err) == (1, "")
    assert "MISSING conv1/weights" in done.out and "0 of 2 variables restored" in done.out
    done = run(capsys, "plan", CHECKPOINT, model, "--rules", rules)
    assert (done.code, done.err) == (0, "")
    assert "1 of 2 variables restored (1.6 KB), 1 left as they are" in done.out


def test_plan_for_machines_and_as_a_page(capsys: pytest.CaptureFixture[str], model: Path, rules: Path) -> None:
    content = run(capsys, "plan", CHECKPOINT, model, "--rules", rules, "--json").json()
    assert content["ok"] is True and content["missing"] == []
    assert [row["kind"] for row in content["rows"]] == ["restore", "left"]
    done = run(capsys, "plan", CHECKPOINT, model, "--html")
    assert done.code == 1
    assert done.out.startswith("<!doctype html><meta charset='utf-8'>") and "MISSING conv1/weights" in done.out


def test_rules_that_are_for_the_file(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    rules = tmp_path / "turned.json"
    rules.write_text(r'[["digits_net/conv(\\d)/weights", "nowhere/\\1"]]')
    done = run(capsys, "plan", CHECKPOINT, model, "--rules", rules)
    assert_error(done, "   matches 2 names in the file\nIn restore and plan a pattern matches the name in `into`;")


def test_cast(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    half = write(tmp_path / "half.json", {WEIGHTS: [[5, 5, 1, 16], "bfloat16"]})
    assert "DTYPE" in run(capsys, "plan", CHECKPOINT, half).out
    done = run(capsys, "plan", CHECKPOINT, half, "--cast")
    assert done.code == 0 and "(float32 to bfloat16)" in done.out


def test_rules_of_several_tensors_and_transforms(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    layers = {f"layer_{i}/w": np.full((2, 3), i, np.float32) for i in range(2)}
    path = writer.write_bundle(tmp_path / "old", layers)
    model = write(tmp_path / "model.json", {"layers/w": [[2, 3, 2], "float32"]})
    rule = ["layers/w", ["layer_0/w", "layer_1/w"], "stack() >> transpose(0, 2, 1)"]
    done = run(capsys, "plan", path, model, "--rules", write(tmp_path / "rules.json", [rule]))
    assert done.code == 0 and "stack() >> transpose(0, 2, 1)" in done.out


def test_suggested_rules(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    done = run(capsys, "plan", CHECKPOINT, model, "--suggest")
    assert "proposed rules:" in done.out
    proposed = write(tmp_path / "seen.json", done.out.partition("proposed rules:\n")[2])
    monkeypatch.chdir(tmp_path)
    done = run(capsys, "plan", CHECKPOINT, model, "--suggest", "--write-rules", "rules.json")
    assert "proposed rules" not in done.out
    written = read_rules("rules.json")
    assert done.out.endswith(f"\n{len(written)} rules written to rules.json\n")
    assert written == read_rules(proposed)
    after = run(capsys, "plan", CHECKPOINT, model, "--rules", "rules.json", "--json").json()
    assert {row["target"]: row["sources"] for row in after["rows"]}["conv1/weights"] == [WEIGHTS]
    done = run(capsys, "plan", CHECKPOINT, model, "--suggest", "--json")
    assert done.json()["rules"] and done.json()["unsure"] == {}


def test_unsure_rules_are_marked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = writer.write_bundle(tmp_path / "old", {name: np.zeros(7, np.float32) for name in ("qq", "zz")})
    model = write(tmp_path / "model.json", {"xx": [[7], "float32"]})
    done = run(capsys, "plan", path, model, "--suggest")
    line = next(line for line in done.out.splitlines() if line.startswith("unsure: "))
    assert line in ("unsure: xx, which may be zz instead", "unsure: xx, of which only the shape fits")
    assert "xx" in run(capsys, "plan", path, model, "--suggest", "--json").json()["unsure"]


def test_what_the_proposed_rules_leave_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shapes = {"emb": [[8192, 16], "float32"], "logits/kernel": [[10, 48], "float32"]}
    done = run(capsys, "plan", CHECKPOINT, write(tmp_path / "model.json", shapes), "--suggest")
    lines = done.out.splitlines()
    assert done.code == 0 and any(line.startswith("0 of 2 variables restored") for line in lines)
    assert "emb is left as it is: nothing in the file has its shape, [8192, 16]" in lines
    rule = '("logits/kernel", "digits_net/logits/weights", jv.rules.transpose(1, 0))'
    assert f"logits/kernel is left as it is: the file has it the other way round; write {rule}" in lines


# Models


def test_a_checkpoint_is_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "21 of 21 variables restored" in run(capsys, "plan", CHECKPOINT, CHECKPOINT).out
    texts = writer.write_bundle(tmp_path / "m", {"labels": writer.strings([b"a"]), "step": np.array(1, np.int64)})
    specs = read_model(texts).variable_specs
    assert list(specs) == ["step"] and specs["step"].dtype == np.int64


def test_flags_come_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variables = jv.Variables({"w": np.ones(2, np.float32), "step": np.int32(3)}).freeze("step")
    key = jv.Variables({"rng": jax.random.key(0)})
    path = jv.checkpoint.save(variables | key, tmp_path / "model")
    listing = write(tmp_path / "model.json", run(capsys, "inspect", path, "--json").out)
    assert (
        read_model(str(listing)).variable_specs == read_model(path).variable_specs == (variables | key).variable_specs
    )


def test_json_in_all_its_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {"a/w": ((2, 3), np.dtype(np.float32)), "é": ((), np.dtype(np.int64))}
    forms: list[Any] = [
        {"a/w": [[2, 3], "float32"], "é": [[], "int64"]},
        {"a/w": {"shape": [2, 3], "dtype": "float32"}, "é": {"dtype": "int64", "shape": []}},
        {
            "variables": [
                {"name": "a/w", "shape": [2, 3], "dtype": "float32"},
                {"name": "é", "shape": [], "dtype": "int64"},
            ]
        },
    ]
    for form in forms:
        for text in (json.dumps(form), "\ufeff \n" + json.dumps(form, ensure_ascii=False, indent=2)):
            specs = read_model(str(write(tmp_path / "model.json", text))).variable_specs
            assert {name: (spec.shape, spec.dtype) for name, spec in specs.items()} == wanted
    strings = {"variables": [{"name": "s", "shape": [2], "dtype": "string"}]}
    assert len(read_model(str(write(tmp_path / "model.json", strings)))) == 0


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('{"a": [[2], "float32"]\n"b": 1}', ("line 2, column 1",)),
        ("[1, 2]", ("describes no model",)),
        ('{"a": 5}', ("'a' is described as",)),
        ('{"a": [[2], "float31"]}', ("'float31' is not a dtype",)),
        ('{"a": [[2], "object"]}', ("'object' is not a dtype",)),
        ('{"a": [[2], "f4,i4"]}', ("is not a dtype",)),
        ('{"a": [[2], null]}', ("None is not a dtype",)),
        ('{"a": [[-2], "float32"]}', ("list of sizes", "[-2]")),
        ('{"a": [[true], "float32"]}', ("list of sizes",)),
        ('{"a": ["2", "float32"]}', ("list of sizes", "'2'")),
        ('{"a": {"dtype": "float32"}}', ("list of sizes",)),
        ('{"a": {"shape": [], "dtype": "float32", "collections": "x"}}', ("collections",)),
        ('{"a/": [[2], "float32"]}', ('"/"',)),
        ('{"": [[2], "float32"]}', ("name",)),
        ('{"a": [[2], "float32"], "a": [[2], "float32"]}', ('"a" is there twice',)),
        ('{"variables": [{"shape": []}]}', ("variable 1 has no name",)),
        ('{"variables": [' + '{"name": "a", "shape": [], "dtype": "int8"}, ' * 2 + "5]}", ("variable 3",)),
        (json.dumps({"variables": [{"name": "a", "shape": [], "dtype": "int8"}] * 2}), ("given twice: a",)),
        ('{"a": ' * 100_000, ("model.json",)),
        (b'{"\xff": 1}', ("UTF-8",)),
    ],
)
def test_bad_json_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | bytes, parts: tuple[str, ...]
) -> None:
    file = tmp_path / "model.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_one_line(run(capsys, "plan", CHECKPOINT, file), "model.json", *parts)


def test_a_model_on_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: Path, rules: Path
) -> None:
    def typed(text: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))

    typed(model.read_bytes())
    assert run(capsys, "plan", CHECKPOINT, "-", "--rules", rules).code == 0
    typed(rules.read_bytes())
    assert run(capsys, "plan", CHECKPOINT, model, "--rules", "-").code == 0
    typed(b"")
    assert_one_line(run(capsys, "plan", CHECKPOINT, "-"), "standard input, line 1, column 1")


def test_python_objects_are_models(capsys: pytest.CaptureFixture[str], module: str) -> None:
    for name in ("specs", "net.specs"):
        done = run(capsys, "plan", CHECKPOINT, f"{module}:{name}", "--json")
        assert done.code == 0 and done.json()["ok"] is True
        assert done.err in ("loading\n", "")  # once, and never among the results
        assert "users_model" in sys.modules
    assert "" not in sys.path[:1] and str(Path.cwd()) not in sys.path[:1]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("broken", ("KeyError", "no\\nkey", "(users_model.py:7)")),
        ("leaves", ("SystemExit: 3", "(users_model.py:8)")),
        ("number", ("is int", "model.specs(...)")),
        ("other", ("has no attribute 'other'",)),
    ],
)
def test_python_objects_that_are_no_models(
    capsys: pytest.CaptureFixture[str], module: str, name: str, parts: tuple[str, ...]
) -> None:
    done = run(capsys, "plan", CHECKPOINT, f"{module}:{name}")
    done = done._replace(err=done.err.removeprefix("loading\n"))
    assert_one_line(done, f"{module}:{name}", *parts)
    assert_one_line(run(capsys, "plan", CHECKPOINT, "no_such_module:x"), "No module named 'no_such_module'")


def test_a_graph_of_tensorflow_is_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    path = shared_path("checkpoints") / "synth" / "s_tf1_saver_v2" / "model.ckpt-1"
    done = run(capsys, "plan", path, f"{path}.meta", "--json")
    assert done.code == 0 and done.json()["rows"] and done.json()["missing"] == []


@pytest.mark.parametrize("text", ["net", "net.py", "./net.py"])
def test_a_module_without_a_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("raise AssertionError('nobody asked for it')")
    assert_one_line(run(capsys, "plan", CHECKPOINT, text), f"{text} is a Python module: write net:NAME, ")


def test_models_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert_one_line(run(capsys, "plan", CHECKPOINT, tmp_path / "model.json"), "no such checkpoint")
    assert_one_line(run(capsys, "plan", CHECKPOINT, tmp_path / "graph.meta"), "no such checkpoint")

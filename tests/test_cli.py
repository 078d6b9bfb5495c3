"""The command line: what it prints, its exit codes, one line for every mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxvars
from jaxvars.__main__ import main
from jaxvars.tour.data import CHECKPOINT
from jaxvars.tour.report import table


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, standard output, standard error."""
    try:
        code = main(arguments)
    except SystemExit as end:
        assert isinstance(end.code, int)
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def assert_one_line(code: int, out: str, err: str, *parts: str) -> None:
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in parts:
        assert part in err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"jaxvars {jaxvars.__version__}\n", "")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "tour" in out
    assert "inspect" in out
    code, out, _ = run(capsys, "tour", "--help")
    assert code == 0
    assert all(option in out for option in ("--output", "--steps", "--seed", "--resume"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("COMMAND", "--help")),
        (("sing",), ("'sing'", "tour", "inspect")),
        (("tour", "--stepz", "5"), ("--stepz",)),
        (("tour", "--steps", "many"), ("--steps", "whole number", "'many'")),
        (("tour", "--steps", "0"), ("--steps", "from 2")),
        (("tour", "--seed", "-1"), ("--seed", "from 0")),
        (("tour", "--seed", "1", "--resume", "x"), ("--seed", "--resume")),
        (("tour", "--output", "x", "--resume", "y"), ("--output", "--resume")),
        (("inspect",), ("PATH",)),
    ],
)
def test_bad_arguments_are_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(*run(capsys, *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_inspect_lists_a_tensorflow_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "inspect", str(CHECKPOINT))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["name", "shape", "dtype"]
    assert ["digits_net/conv1/weights", "[5, 5, 1, 16]", "float32"] in [re.split("  +", line) for line in lines]
    assert lines[-1].startswith("21 variables in ")
    assert not any(line.endswith(" ") for line in lines)


def test_inspect_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", str(CHECKPOINT), "--json")
    content = json.loads(out)
    assert code == 0
    assert content["path"] == str(CHECKPOINT)
    assert {"name": "global_step", "shape": [], "dtype": "int64"} in content["variables"]
    assert len(content["variables"]) == 21


def test_inspect_of_nothing_and_of_something_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert_one_line(*run(capsys, "inspect", str(tmp_path / "nothing")), "nothing")
    (tmp_path / "notes.txt").write_text("no checkpoint\n")
    assert_one_line(*run(capsys, "inspect", str(tmp_path / "notes.txt")), "notes.txt")


def test_inspect_of_a_damaged_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("model.ckpt-1200.index", "model.ckpt-1200.data-00000-of-00001"):
        content = bytearray((CHECKPOINT.parent / name).read_bytes())
        content[100] ^= 1
        (tmp_path / name).write_bytes(content)
    assert_one_line(*run(capsys, "inspect", str(tmp_path / "model.ckpt-1200")), "model.ckpt-1200")


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -m jaxvars inspect {CHECKPOINT} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["name", "shape", "dtype"]


def test_table_without_rows_is_its_header() -> None:
    assert table(["a", "bb"], []) == "a  bb"

"""The command line as a whole: exit codes, one line for every mistake, pipes, closed and full outputs, locales."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_one_line, run

import jaxvars
from jaxvars.checkpoint.plan_text import shown
from jaxvars.commands.output import emit, emit_json
from jaxvars.tour.data import CHECKPOINT
from jaxvars.tour.report import table

COMMANDS = ("tour", "inspect", "diff", "plan", "convert")


def in_bash(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which ``$J`` is the command line."""
    path = os.pathsep.join(filter(None, [str(Path(jaxvars.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    prepared = {**os.environ, "PYTHONPATH": path, "J": f"{sys.executable} -m jaxvars", "C": str(CHECKPOINT)}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        encoding="utf-8",
        check=False,
        cwd=cwd,
        env={**prepared, **environment},
    )


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"jaxvars {jaxvars.__version__}\n", "")
    done = run(capsys, "--help")
    assert done.code == 0
    assert all(command in done.out for command in COMMANDS)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("tour", ("--output", "--steps", "--seed", "--resume")),
        ("inspect", ("--filter", "--stats", "--values", "--full", "--aliases", "--json")),
        ("diff", ("--rtol", "--atol", "--names-only", "--no-values", "--rules", "--json")),
        ("plan", ("MODEL_SPEC", "--rules", "--suggest", "--write-rules", "--cast", "--json", "--html")),
        ("convert", ("--format", "--rules", "--into", "--drop", "--only", "--cast", "--no-verify", "--no-progress")),
    ],
)
def test_help_of_each_command(capsys: pytest.CaptureFixture[str], command: str, options: tuple[str, ...]) -> None:
    done = run(capsys, command, "--help")
    assert (done.code, done.err) == (0, "")
    assert all(option in done.out for option in options)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("COMMAND", "--help")),
        (("sing",), ("'sing'", *COMMANDS)),
        (("tour", "--stepz", "5"), ("--stepz",)),
        (("tour", "--steps", "many"), ("--steps", "whole number", "'many'")),
        (("tour", "--steps", "0"), ("--steps", "from 2")),
        (("tour", "--seed", "-1"), ("--seed", "from 0")),
        (("tour", "--seed", "1", "--resume", "x"), ("--seed", "--resume")),
        (("tour", "--output", "x", "--resume", "y"), ("--output", "--resume")),
        (("inspect",), ("PATH",)),
        (("inspect", CHECKPOINT, "--filter", "*"), ("--filter", "'*'", "not a regular expression")),
        (("inspect", CHECKPOINT, "--full"), ("--full", "--values")),
        (("inspect", CHECKPOINT, "--values", "global_step", "--stats"), ("--values", "one tensor")),
        (("diff", CHECKPOINT), ("B",)),
        (("diff", CHECKPOINT, CHECKPOINT, "--rtol", "-1"), ("--rtol", "from 0")),
        (("diff", CHECKPOINT, CHECKPOINT, "--atol", "nan"), ("--atol", "'nan'")),
        (("diff", CHECKPOINT, CHECKPOINT, "--names-only", "--no-values"), ("--names-only", "--no-values")),
        (("plan", CHECKPOINT, CHECKPOINT, "--json", "--html"), ("--json", "--html")),
        (("plan", CHECKPOINT, CHECKPOINT, "--write-rules", "r.json"), ("--write-rules", "--suggest")),
        (("plan", CHECKPOINT, "-", "--rules", "-"), ("standard input",)),
        (("convert", CHECKPOINT, "b", "--into", "-", "--rules", "-"), ("standard input",)),
        (("convert", CHECKPOINT, "b", "--format", "tff"), ("'tff'", "'tf'")),
        (("convert", CHECKPOINT, "b", "--format", "hdf5"), ("'hdf5' is only read",)),
        (("convert", CHECKPOINT, "b", "--cast", "int32"), ("cast='int32'", "floating")),
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
    assert_one_line(run(capsys, *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["inspect", "diff", "plan", "convert"])
def test_nothing_and_something_else_at_the_path(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    rest = () if command == "inspect" else (tmp_path / "b",) if command == "convert" else (CHECKPOINT,)
    assert_one_line(run(capsys, command, tmp_path / "nothing", *rest), "nothing", "there is no such checkpoint")
    (tmp_path / "notes.txt").write_text("no checkpoint\n")
    assert_one_line(run(capsys, command, tmp_path / "notes.txt", *rest), "notes.txt")
    assert_one_line(run(capsys, command, "gs://bucket/model", *rest), "gs://", "local folder")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_file_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    damaged = tmp_path / "model.ckpt-1200"
    for name in ("model.ckpt-1200.index", "model.ckpt-1200.data-00000-of-00001"):
        (tmp_path / name).write_bytes((CHECKPOINT.parent / name).read_bytes())
    data = tmp_path / "model.ckpt-1200.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    assert run(capsys, "inspect", damaged).code == 0  # reads no values
    for arguments in (
        ("inspect", damaged, "--stats"),
        ("inspect", damaged, "--values", "digits_net/conv1/biases/Momentum"),
        ("diff", damaged, CHECKPOINT),
        ("convert", damaged, tmp_path / "new.npz"),
    ):
        assert_one_line(run(capsys, *arguments), "model.ckpt-1200", "damaged", "digits_net/conv1/biases/Momentum")
    assert not (tmp_path / "new.npz").exists()
    index = tmp_path / "model.ckpt-1200.index"
    content = bytearray(index.read_bytes())
    content[100] ^= 1
    index.write_bytes(content)
    assert_one_line(run(capsys, "inspect", damaged), "model.ckpt-1200")


def test_an_interrupt_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxvars.checkpoint.open", interrupted)
    assert run(capsys, "inspect", CHECKPOINT) == (130, "", "jaxvars inspect: interrupted\n")


def test_too_large_a_tensor_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(path: object) -> None:
        raise MemoryError

    monkeypatch.setattr("jaxvars.checkpoint.open", too_large)
    assert_one_line(run(capsys, "inspect", CHECKPOINT), "memory")


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    done = in_bash("$J inspect $C | head -n 1; echo ${PIPESTATUS[@]}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["name", "shape", "dtype", "0", "0"]


@pytest.mark.slow
def test_commands_in_a_pipe(tmp_path: Path) -> None:
    done = in_bash(
        "$J convert $C new.npz >log && $J inspect new.npz --json | $J plan $C - && $J diff $C new.npz --json", tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    plan, _, found = done.stdout.partition("{")
    assert "21 of 21 variables restored" in plan
    assert json.loads("{" + found)["same"] is True
    assert (tmp_path / "log").read_text().endswith("(npz), verified\n")


@pytest.mark.slow
def test_a_full_or_closed_output(tmp_path: Path) -> None:
    if os.path.exists("/dev/full"):
        done = in_bash("$J inspect $C >/dev/full", tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "jaxvars inspect: [Errno 28] No space left on device\n"
    done = in_bash("$J diff $C $C --json >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_names_survive_every_locale(tmp_path: Path) -> None:
    np.savez(tmp_path / "modèle.npz", **{"couche/noyau_é_層": np.zeros(3)})
    done = in_bash("$J inspect modèle.npz", tmp_path, LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("couche/noyau_é_層  [3]")
    done = in_bash("$J inspect modèle.npz; $J inspect modèl.npz", tmp_path, LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stdout.splitlines()[1].startswith(r"couche/noyau_\xe9_\u5c64  [3]")
    assert done.stderr.startswith("jaxvars inspect:") and done.stderr.count("\n") == 1


def test_no_name_can_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("a\tb\n\x1b[2J\u202e é") == r"a\tb\n\x1b[2J\u202e é"
    emit("a\tb\n\x1b[2J\x9b\ud800 é")
    assert capsys.readouterr().out == "a\tb\n\\x1b[2J\\x9b\\ud800 é\n"


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"numbers": [1.5, float("nan"), (float("inf"), -float("inf"))], "é": None})
    assert json.loads(capsys.readouterr().out) == {"numbers": [1.5, "NaN", ["Infinity", "-Infinity"]], "é": None}


def test_table_without_rows_is_its_header() -> None:
    assert table(["a", "bb"], []) == "a  bb"


def test_table_columns_to_the_right() -> None:
    assert table(["a", "n", "t"], [["x", 10, "1e-05"], ["y", 2, ""]], right=["t"]).splitlines() == [
        "a   n      t",
        "x  10  1e-05",
        "y   2",
    ]

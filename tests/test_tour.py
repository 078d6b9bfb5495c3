"""The tour: its output, its picture, its second process, and that nothing is left half-written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.__main__ import main
from jaxvars.tour import program, steps
from jaxvars.tour.data import CHECKPOINT, few_labelled, read_digits, tensorflow_answers
from jaxvars.tour.finetune import digest, is_odd
from jaxvars.tour.model import OLD_NAMES, model
from jaxvars.tour.workspace import Workspace, read_notes

# The tour is written as its readers write: `conv + bias`, which is rank promotion.
pytestmark = pytest.mark.usefixtures("rank_promotion_allowed")

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def rank_promotion_allowed() -> Iterator[None]:
    with jax.numpy_rank_promotion("allow"):
        yield


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str
    folder: Path


def tour(*arguments: str, cwd: Path, terminal: bool = False) -> Run:
    """Run `python -m jaxvars tour` in a process of its own, its output going into pipes or to a terminal."""
    path = os.pathsep.join(filter(None, [str(Path(jv.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "jaxvars", "tour", *arguments]
    environment = {**os.environ, "PYTHONPATH": path, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    if terminal:
        return _in_terminal(command, cwd, environment)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    return Run(done.returncode, done.stdout, done.stderr, cwd)


def _in_terminal(command: list[str], cwd: Path, environment: dict[str, str]) -> Run:
    import pty
    import termios

    here, there = pty.openpty()
    termios.tcsetwinsize(there, (40, 120))
    with subprocess.Popen(command, stdout=there, stderr=there, cwd=cwd, env=environment) as process:
        os.close(there)
        chunks: list[bytes] = []
        try:
            while chunk := os.read(here, 65536):
                chunks.append(chunk)
        except OSError:  # Linux: the other side was closed
            pass
    os.close(here)
    return Run(process.returncode, b"".join(chunks).decode(), "", cwd)


@pytest.fixture(scope="module")
def short_tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One tour of six steps, in a folder of its own."""
    yield tour("--steps", "6", cwd=tmp_path_factory.mktemp("tour"))


@pytest.mark.slow
def test_the_tour_says_what_it_shows(short_tour: Run) -> None:
    assert short_tour.code == 0
    # On its very first run matplotlib may say that it collects the fonts of this machine.
    assert [text for text in short_tour.err.splitlines() if "atplotlib" not in text] == []
    for number in range(1, 7):
        assert f"\n{number}. " in short_tour.out
    assert "digits_net/conv1/weights/Momentum" in short_tour.out
    assert "TensorFlow 0.9861, jaxvars 0.9861" in short_tour.out
    assert "saved checkpoints/model.ckpt-4" in short_tour.out
    assert "resumed model.ckpt-4 at step 4" in short_tour.out
    assert "equal, bit for bit" in short_tour.out
    assert "jaxvars-tour/tour.png" in short_tour.out


@pytest.mark.slow
def test_the_restore_plan_is_shown(short_tour: Run) -> None:
    plan = short_tour.out.split("\n2. ")[1].split("\n3. ")[0]
    for new, old in [
        ("reader/stem/kernel", "digits_net/conv1/weights"),
        ("reader/norm/gamma", "digits_net/conv2/bn/gamma"),
    ]:
        assert any(new in row and old in row for row in plan.splitlines())


@pytest.mark.slow
def test_the_logits_are_tensorflows(short_tour: Run) -> None:
    found = re.search(r"largest difference between 3600 logits: (\S+)", short_tour.out)
    assert found is not None
    assert float(found[1]) < 1e-4


@pytest.mark.slow
def test_a_pipe_gets_no_control_characters(short_tour: Run) -> None:
    assert re.findall(r"[^\x20-\x7e\n]", short_tour.out) == []
    assert not any(line.endswith(" ") for line in short_tour.out.splitlines())


@pytest.mark.slow
def test_the_second_process_is_another_one(short_tour: Run) -> None:
    processes = set(re.findall(r"process (\d+)", short_tour.out))
    digests = set(re.findall(r": ([0-9a-f]{16})$", short_tour.out, flags=re.MULTILINE))
    assert len(processes) == 2
    assert len(digests) == 1


@pytest.mark.slow
def test_what_the_tour_leaves(short_tour: Run) -> None:
    folder = short_tour.folder / "jaxvars-tour"
    assert [path.name for path in short_tour.folder.iterdir()] == ["jaxvars-tour"]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "tour.json", "tour.png"]
    picture = (folder / "tour.png").read_bytes()
    assert picture.startswith(PNG)
    assert 10_000 < len(picture) < 120_000
    assert read_notes(folder).steps == 6


@pytest.mark.slow
def test_the_checkpoint_is_whole(short_tour: Run) -> None:
    latest = jv.train.latest_checkpoint(str(short_tour.folder / "jaxvars-tour" / "checkpoints"))
    assert latest is not None
    assert Path(latest).name == "model.ckpt-6"
    names = dict(jv.train.list_variables(latest))
    assert {"reader/stem/kernel", "reader/head/kernel", "reader/head/kernel/Adam", "global_step"} <= set(names)
    assert "reader/stem/kernel/Adam" not in names  # frozen: no slots
    assert int(jv.train.load_variable(latest, "global_step")) == 6


@pytest.mark.slow
def test_resume_goes_on_where_the_folder_moved(short_tour: Run, capsys: pytest.CaptureFixture[str]) -> None:
    moved = short_tour.folder / "moved elsewhere"
    (short_tour.folder / "jaxvars-tour").rename(moved)
    try:
        assert main(["tour", "--resume", str(moved)]) == 2
        assert "already at step 6" in capsys.readouterr().err
        assert main(["tour", "--resume", str(moved), "--steps", "8"]) == 0
        out = capsys.readouterr().out
    finally:
        moved.rename(short_tour.folder / "jaxvars-tour")
    assert "resumed model.ckpt-6 at step 6" in out
    assert "saved model.ckpt-8" in out


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run the tour in this process, and return the one line that it prints on standard error."""
    assert main(["tour", *arguments]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_output_that_is_a_file(capsys: pytest.CaptureFixture[str], output: Path) -> None:
    output.write_text("mine")
    assert "is a file" in complaint(capsys, "--output", str(output))
    assert "is a file" in complaint(capsys, "--output", str(output / "below"))
    assert output.read_text() == "mine"


def test_output_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    error = complaint(capsys, "--output", str(output / "deep" / "er"))
    assert "cannot write in the folder" in error
    assert "Permission denied" in error
    assert not output.exists()


def test_output_with_files_of_others(capsys: pytest.CaptureFixture[str], output: Path) -> None:
    output.mkdir()
    (output / "tour.png").write_text("mine")
    assert "not from an earlier tour" in complaint(capsys, "--output", str(output))
    assert (output / "tour.png").read_text() == "mine"


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")])
def test_a_missing_package(
    capsys: pytest.CaptureFixture[str],
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    error = complaint(capsys, "--output", str(output))
    assert package in error
    assert 'pip install "jaxvars[tour]"' in error
    assert not output.exists()


def test_resume_of_what_is_no_tour(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no tour in" in complaint(capsys, "--resume", str(tmp_path))
    (tmp_path / "tour.json").write_text("{")
    assert "damaged" in complaint(capsys, "--resume", str(tmp_path))
    (tmp_path / "tour.json").write_text('{"seed": 0, "steps": 6}')
    assert "no checkpoint in" in complaint(capsys, "--resume", str(tmp_path))


@pytest.mark.parametrize(
    ("stop", "code"),
    [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2), (steps.TourFailure("no"), 1)],
)
def test_whatever_stops_the_tour_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: BaseException,
    code: int,
) -> None:
    def saved(_: jv.Variables, folder: Path, step: int) -> None:
        (folder / "checkpoints").mkdir()
        raise stop

    monkeypatch.setattr(program.show, "saved", saved)
    complaint(capsys, "--steps", "2", "--output", str(tmp_path / "a" / "b"), code=code)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_that_fails_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(steps.TourFailure, match="exit code 1"):
        steps.second_process(tmp_path)
    with pytest.raises(steps.TourFailure, match="another way"):
        steps.same_digest("0" * 16, "1" * 16, 6)


def test_workspace_replaces_an_earlier_tour_and_nothing_else(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with Workspace(tmp_path) as folder:
            (folder / "tour.json").write_text(content)
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / content).touch()
        (tmp_path / "mine").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "mine", "tour.json"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["second"]
    assert (tmp_path / "tour.json").read_text() == "second"


def test_the_packaged_files_are_those_of_another_machine() -> None:
    folder = CHECKPOINT.parent
    assert "/home/mia/digits/model.ckpt-1200" in (folder / "checkpoint").read_text()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 150_000


def test_restored_logits_are_tensorflows_eagerly_and_jitted() -> None:
    _, test = read_digits()
    recorded = tensorflow_answers()
    np.testing.assert_array_equal(test.labels, recorded.labels)
    specs = model.specs(test.images, classes=10)
    variables = jv.checkpoint.restore(CHECKPOINT, specs, rules=OLD_NAMES)
    for run in (model, jax.jit(model, static_argnames="classes")):
        logits = run(variables, test.images, classes=10)
        np.testing.assert_allclose(logits, recorded.logits, atol=1e-4, rtol=0)


def test_few_labelled_images_are_balanced_and_repeatable() -> None:
    train, _ = read_digits()
    few = few_labelled(train, 3, seed=5)
    assert np.bincount(few.labels).tolist() == [3] * 10
    np.testing.assert_array_equal(few.images, few_labelled(train, 3, seed=5).images)
    assert (few.images != few_labelled(train, 3, seed=6).images).any()
    np.testing.assert_array_equal(is_odd(few).labels, few.labels % 2)


def test_digest_sees_one_bit_and_every_name() -> None:
    one = jv.Variables({"a": np.float32([1, 2]), "b": np.int32(3)})
    assert digest(one) == digest(jv.Variables({"b": np.int32(3), "a": np.float32([1, 2])}))
    others = [
        one.replace({"a": np.nextafter(np.float32([1, 2]), np.float32(9))}),
        one.rename([("a", "c")]),
        one.replace({"b": np.int32(4)}),
    ]
    assert len({digest(one), *map(digest, others)}) == 4


@pytest.mark.slow
def test_the_whole_tour_in_a_terminal(tmp_path: Path) -> None:
    began = time.perf_counter()
    whole = tour(cwd=tmp_path, terminal=True)
    assert whole.code == 0, whole.out
    assert time.perf_counter() - began < 90
    assert "\x1b[1m" in whole.out  # headings stand out
    assert re.search(r"training: .* \d+/300 ", whole.out)  # the progress bar
    restored, scratch = (float(part) for part in re.findall(r"(\d+\.\d)% (?:right with|from scratch)", whole.out))
    assert restored > scratch

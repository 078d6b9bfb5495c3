"""`jaxvars inspect`: lists, statistics, values, aliases; for people and for machines."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bundle_writer as writer
import ml_dtypes
import numpy as np
import pytest
from command_line import assert_one_line, run

import jaxvars as jv
from jaxvars.checkpoint import statistics
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.statistics import Statistics, checksum, tensor_statistics
from jaxvars.tour.data import CHECKPOINT

TENSORS = {
    "conv/w": np.array([[0.0, 2.0], [np.nan, -np.inf]], np.float32),
    "conv/b": np.array([1.5, -2], ml_dtypes.bfloat16),
    "step": np.array(2**62 + 1, np.int64),
    "flags": np.array([True, False, False]),
    "labels": writer.strings([b"cat", b"", b"\xff"]),
    "complex": np.array([3 + 4j, 0], np.complex64),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return writer.write_bundle(tmp_path / "model.ckpt", TENSORS)


def cells(text: str) -> list[list[str]]:
    return [re.split("  +", line) for line in text.splitlines()]


# Lists


def test_a_tensorflow_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "inspect", CHECKPOINT)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["name", "shape", "dtype"]
    assert ["digits_net/conv1/weights", "[5, 5, 1, 16]", "float32"] in cells(done.out)
    assert lines[-1] == f"21 variables in {CHECKPOINT} (tf): 23,605 elements, 94.4 KB"
    assert not any(line.endswith(" ") for line in lines)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    content = run(capsys, "inspect", CHECKPOINT, "--json").json()
    assert (content["path"], content["format"]) == (str(CHECKPOINT), "tf")
    assert (content["elements"], content["bytes"]) == (23605, 94424)
    assert {"name": "global_step", "shape": [], "dtype": "int64"} in content["variables"]
    assert len(content["variables"]) == 21


def test_json_of_our_own_has_flags_and_collections(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    variables = jv.Variables({"w": np.ones(2, np.float32), "step": np.int32(3)}).freeze("step")
    path = jv.checkpoint.save(variables, tmp_path / "model")
    rows = {row["name"]: row for row in run(capsys, "inspect", path, "--json").json()["variables"]}
    assert rows["w"]["trainable"] is True and rows["step"]["trainable"] is False
    assert rows["step"]["collections"] == list(variables.variable_specs["step"].collections)


def test_filter(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "inspect", CHECKPOINT, "--filter", "conv1/w|step$")
    names = [row[0] for row in cells(done.out)][1:-2]
    assert names == ["digits_net/conv1/weights", "digits_net/conv1/weights/Momentum", "global_step"]
    assert done.out.splitlines()[-1].startswith("3 of 21 variables in ")
    assert len(run(capsys, "inspect", CHECKPOINT, "--filter", "^d", "--json").json()["variables"]) == 20
    done = run(capsys, "inspect", CHECKPOINT, "--filter", "nothing")
    assert done.code == 0 and done.out.startswith("No name matches nothing.\n\n0 of 21 variables in ")


def test_what_cannot_be_read_is_listed_with_its_problem(capsys: pytest.CaptureFixture[str], path: str) -> None:
    Path(f"{path}.data-00000-of-00001").unlink()
    reason = "the data file model.ckpt.data-00000-of-00001 is missing"
    for options in ((), ("--stats",)):
        done = run(capsys, "inspect", path, *options)
        table, count = cells(done.out), len(TENSORS)
        assert done.code == 1 and "problem" not in table[0]
        assert next(row for row in table if row[0] == "step")[:3] == ["step", "[]", "int64"]
        assert done.out.splitlines()[-1] == f"{count} of {count} cannot be read: {reason}"
        assert done.out.count(reason) == 1
    row = run(capsys, "inspect", path, "--json", "--stats").json()["variables"][0]
    assert "is missing" in row["problem"] and "crc32c" not in row
    assert_one_line(run(capsys, "inspect", path, "--values", "step"), "step cannot be read", "is missing")


def test_some_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = writer.write_bundle(tmp_path / "m.ckpt", {"a": np.ones(2), "b": np.ones(2)}, shards=2)
    Path(f"{path}.data-00001-of-00002").unlink()
    done = run(capsys, "inspect", path)
    table = cells(done.out)
    assert done.code == 0 and table[0][-1] == "problem"
    assert sum(row[-1].endswith("is missing") for row in table[1:-2]) == 1
    assert "\n1 of 2 cannot be read: the data file m.ckpt.data-00001-of-00002 is missing\n" in done.out


def test_names_from_strangers_stay_on_their_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = writer.write_bundle(tmp_path / "m", {"evil\n\x1b[2J": np.zeros(2, np.float32)})
    done = run(capsys, "inspect", path)
    assert done.out.splitlines()[1] == r"evil\n\x1b[2J  [2]    float32"
    assert run(capsys, "inspect", path, "--json").json()["variables"][0]["name"] == "evil\n\x1b[2J"


def test_aliases(capsys: pytest.CaptureFixture[str], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxvars.checkpoint.formats.tensor_bundle import TensorBundle

    monkeypatch.setattr(TensorBundle, "aliases", {"dense/kernel": "conv/w", "dense_1/kernel": "conv/w"}, raising=False)
    done = run(capsys, "inspect", path, "--aliases")
    assert cells(done.out)[0][-1] == "also called"
    assert ["conv/w", "[2, 2]", "float32", "dense/kernel, dense_1/kernel"] in cells(done.out)
    assert "dense" not in run(capsys, "inspect", path).out
    rows = run(capsys, "inspect", path, "--aliases", "--filter", "dense_1", "--json").json()["variables"]
    assert [(row["name"], row["aliases"]) for row in rows] == [("conv/w", ["dense/kernel", "dense_1/kernel"])]
    assert run(capsys, "inspect", path, "--values", "dense/kernel").out.startswith("conv/w float32 [2, 2]\n")


# Statistics


def test_statistics(capsys: pytest.CaptureFixture[str], path: str) -> None:
    done = run(capsys, "inspect", path, "--stats")
    assert (done.code, done.err) == (0, "")
    table = {row[0]: row for row in cells(done.out)}
    assert table["name"] == ["name", "shape", "dtype", "min", "max", "mean", "std", "zeros", "nan", "inf", "crc32c"]
    assert table["conv/w"][3:10] == ["0", "2", "1", "1", "1", "1", "1"]
    assert table["step"][3:5] == [str(2**62 + 1)] * 2
    assert table["labels"][3:] == ["1", "0", "0", f"{checksum(TENSORS['labels']):08x}"]


def test_statistics_for_machines(capsys: pytest.CaptureFixture[str], path: str) -> None:
    rows: Mapping[str, Mapping[str, Any]] = {
        row["name"]: row for row in run(capsys, "inspect", path, "--stats", "--json").json()["variables"]
    }
    assert rows["step"]["min"] == rows["step"]["max"] == 2**62 + 1
    assert rows["labels"]["min"] is None and rows["labels"]["zeros"] == 1
    assert rows["empty"]["mean"] is None and rows["empty"]["crc32c"] == "00000000"
    for name, array in TENSORS.items():
        if array.dtype != object:
            assert rows[name]["crc32c"] == f"{crc32c(array) if array.size else 0:08x}"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([1, 2, 3], ml_dtypes.bfloat16), (1.0, 3.0, 2.0, math.sqrt(2 / 3), 0, 0, 0)),
        (np.array([-8, 7], ml_dtypes.int4), (-8, 7, -0.5, 7.5, 0, 0, 0)),
        (np.array([0, 2**64 - 1], np.uint64), (0, 2**64 - 1, 2.0**63, 2.0**63, 1, 0, 0)),
        (np.array([-(2**63), 2**63 - 1]), (-(2**63), 2**63 - 1, 0.0, 2.0**63, 0, 0, 0)),
        (np.array([True, False, True]), (0, 1, 2 / 3, math.sqrt(2 / 9), 1, 0, 0)),
        (np.array([3 + 4j, 0]), (0.0, 5.0, 2.5, 2.5, 1, 0, 0)),
        (np.array([np.nan, np.inf, -np.inf]), (None, None, None, None, 0, 1, 2)),
        (np.array([1e308, -1e308, 1e308]), (-1e308, 1e308, 1e308 / 3, None, 0, 0, 0)),
        (np.array([], np.float32), (None, None, None, None, 0, 0, 0)),
        (np.array(["text"]), (None, None, None, None, 0, 0, 0)),
    ],
)
@pytest.mark.parametrize("piece", [2, 1 << 20])
def test_statistics_of_all_dtypes(
    monkeypatch: pytest.MonkeyPatch, array: np.ndarray, expected: tuple[Any, ...], piece: int
) -> None:
    monkeypatch.setattr(statistics, "_PIECE", piece)
    found = tensor_statistics(array)
    assert (found.min, found.max) == expected[:2]
    assert type(found.min) is type(expected[0])
    assert (found.mean, found.std) == (pytest.approx(expected[2]), pytest.approx(expected[3]))
    assert (found.zeros, found.nans, found.infinities) == expected[4:]


def test_the_deviation_does_not_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_PIECE", 100)
    array = np.random.RandomState(0).normal(1e9, 1.0, 1000)
    found = tensor_statistics(array)
    assert found.mean == pytest.approx(array.mean(), rel=1e-15)
    assert found.std == pytest.approx(array.std(), rel=1e-6)
    assert tensor_statistics(array.reshape(50, 20).T).std == pytest.approx(array.std(), rel=1e-6)


def test_checksums_tell_strings_apart() -> None:
    assert checksum(writer.strings([b"ab", b"c"])) != checksum(writer.strings([b"a", b"bc"]))
    texts = np.array(["é"], object)
    assert checksum(texts) == checksum(writer.strings(["é".encode()]))
    assert checksum(np.arange(6).reshape(2, 3).T) == crc32c(np.arange(6).reshape(2, 3).T.copy())
    assert Statistics(None, None, None, None, 0, 0, 0, 10).to_dict()["crc32c"] == "0000000a"


# Values


def test_values(capsys: pytest.CaptureFixture[str], path: str, tmp_path: Path) -> None:
    assert run(capsys, "inspect", CHECKPOINT, "--values", "global_step:0") == (0, "global_step int64 []\n1200\n", "")
    assert run(capsys, "inspect", path, "--values", "conv/b").out == "conv/b bfloat16 [2]\n[1.5 -2]\n"
    assert run(capsys, "inspect", path, "--values", "labels").out == "labels string [3]\n[b'cat' b'' b'\\xff']\n"
    long = writer.write_bundle(tmp_path / "long", {"x": np.arange(2000, dtype=np.float32)})
    assert "..." in run(capsys, "inspect", long, "--values", "x").out
    done = run(capsys, "inspect", long, "--values", "x", "--full")
    assert "..." not in done.out and "1.234e+03" in done.out
    assert_one_line(run(capsys, "inspect", CHECKPOINT, "--values", "conv1/weight"), "Key conv1/weight not found")


def test_values_for_machines(capsys: pytest.CaptureFixture[str], path: str) -> None:
    def values(name: str) -> Any:
        return run(capsys, "inspect", path, "--values", name, "--json").json()["values"]

    assert values("conv/w") == [[0.0, 2.0], ["NaN", "-Infinity"]]
    assert values("conv/b") == [1.5, -2.0]
    assert values("step") == 2**62 + 1
    assert values("flags") == [True, False, False]
    assert values("labels") == ["cat", "", "\\xff"]
    assert values("complex") == [[3.0, 4.0], [0.0, 0.0]]
    assert values("empty") == []


def test_progress_is_drawn_on_standard_error_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "inspect", CHECKPOINT, "--stats", "--progress")
    assert done.code == 0 and "94.4k" in done.err
    assert run(capsys, "inspect", CHECKPOINT, "--stats") == (0, done.out, "")

"""Checkpoints in other formats and under other names: nothing is lost, overwritten or left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundle_writer as writer
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from checkpoint_states import state
from command_line import assert_error, assert_one_line, run

import jaxvars as jv
from jaxvars.checkpoint import departing
from jaxvars.checkpoint.convert import convert
from jaxvars.checkpoint.diff import diff
from jaxvars.errors import DataLossError, InvalidArgumentError, JaxvarsError, NotFoundError
from jaxvars.spec import Hole, VariableSpec
from jaxvars.tour.data import CHECKPOINT

FORMATS = ("orbax", "tf", "safetensors", "npz")
TENSORS = {
    "tower/weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "tower/biases": np.array([1, np.nan, -np.inf], np.float32),
    "double": np.array([[1.0, 1e-300]]),
    "step": np.array(2**62 + 1, np.int64),
    "half": np.array([1.5, -2, 3e38], ml_dtypes.bfloat16),
    "flags": np.array([True, False]),
    "small": np.array([-128, 127], np.int8),
    "complex": np.array([1 + 2j], np.complex64),
    "empty": np.zeros((0, 3), np.float32),
    "é.b/c": np.array([7], np.int32),
}


@pytest.fixture
def old(tmp_path: Path) -> str:
    return writer.write_bundle(tmp_path / "old.ckpt", TENSORS)


@pytest.fixture
def without_x64() -> Iterator[None]:
    with jax.enable_x64(False):
        yield


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def contents(path: str) -> dict[str, np.ndarray]:
    with jv.checkpoint.open(path) as reader:
        return {name: np.asarray(reader[name]) for name in reader}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Bit by bit."""
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype), name
        assert found[name].tobytes() == array.tobytes(), name


# Nothing is lost


@pytest.mark.parametrize("middle", FORMATS)
def test_there_and_back(tmp_path: Path, old: str, middle: str) -> None:
    tensors = TENSORS
    if middle == "safetensors":
        tensors = {name: array for name, array in TENSORS.items() if name != "complex"}
    first = convert(old, tmp_path / "middle", format=middle, drop=["complex"] if middle == "safetensors" else None)
    assert (first.format, first.source_format, first.verified) == (middle, "tf", True)
    assert first.left_out == (() if middle != "safetensors" else ("complex",))
    assert first.nbytes == sum(array.nbytes for array in tensors.values())
    assert_same(contents(first.path), tensors)
    for format in FORMATS:
        if format != "safetensors" or "complex" not in tensors:
            back = convert(first.path, tmp_path / "back", format=format)
            assert_same(contents(back.path), tensors)
            assert diff(old, back.path, rules=None).only_in_b == ()
            for name in listing(tmp_path):
                if name.startswith("back"):
                    remove(tmp_path / name)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_strings_go_where_there_are_strings(tmp_path: Path) -> None:
    tensors = {"labels": writer.strings([b"cat", b"", b"\xff\x00"]), "w": np.ones(2, np.float32)}
    old = writer.write_bundle(tmp_path / "old", tensors)
    found = contents(convert(old, tmp_path / "new", format="tf").path)
    assert found["labels"].tolist() == tensors["labels"].tolist()
    for format in ("orbax", "safetensors", "npz"):
        with pytest.raises(InvalidArgumentError, match="labels"):
            convert(old, tmp_path / f"new_{format}", format=format)
        assert not (tmp_path / f"new_{format}").exists()
        convert(old, tmp_path / f"new_{format}", format=format, drop="labels")


@pytest.mark.usefixtures("without_x64")
@pytest.mark.parametrize("format", FORMATS)
def test_flags_collections_and_keys_come_along(tmp_path: Path, format: str) -> None:
    variables = state()
    old = jv.checkpoint.save(variables, tmp_path / "old")
    new = convert(old, tmp_path / "new", format=format).path
    with jv.checkpoint.open(old) as before, jv.checkpoint.open(new) as after:
        if format != "tf":
            assert after.variable_specs == before.variable_specs
            assert after.variable_specs["step"].placement == "/cpu:0"
            assert [*(after.source.specs or ())] == [*before.source.specs]  # in the order of creation
        assert_same(contents(new), contents(old) | ({"step": np.array(5, after["step"].dtype)}))
    into = jv.Variables.from_specs((s, Hole(s.shape, s.dtype)) for s in variables.variable_specs.values())
    restored = jv.checkpoint.restore(new, into)
    assert jax.random.key_data(restored["rng"]).tolist() == jax.random.key_data(variables["rng"]).tolist()


@pytest.mark.usefixtures("without_x64")
def test_a_narrowed_value_gets_its_own_dtype_again(tmp_path: Path) -> None:
    old = writer.write_bundle(tmp_path / "old", {"step": np.array(7, np.int64)})
    variables = jv.checkpoint.restore(old, jv.Variables({"step": jax.ShapeDtypeStruct((), "int32")}))
    saved = jv.checkpoint.save(variables, tmp_path / "saved")
    assert contents(saved)["step"].dtype == np.int32
    for format in ("tf", "npz", "safetensors"):
        assert contents(convert(saved, tmp_path / format, format=format).path)["step"].dtype == np.int64


# Names


def test_rules_give_new_names_and_shapes(tmp_path: Path, old: str) -> None:
    rules = [
        ("tower/weights", "conv1/w", jv.rules.transpose(1, 0) >> jv.rules.cast("float16")),
        ("tower/", "conv1/"),
        ("step", "global_step", lambda array: array.reshape(1) + 1),
        ("half", None),
    ]
    done = convert(old, tmp_path / "new.npz", rules=rules, only=["tower/", "step", "half"])
    assert done.format == "npz"
    wanted = {
        "conv1/w": TENSORS["tower/weights"].T.astype(np.float16),
        "conv1/biases": TENSORS["tower/biases"],
        "global_step": np.array([2**62 + 2], np.int64),
        "half": TENSORS["half"],
    }
    assert_same(contents(done.path), wanted)
    assert done.sources["conv1/w"] == ("tower/weights",)
    assert "double" in done.left_out


def test_names_may_change_places(tmp_path: Path) -> None:
    old = writer.write_bundle(tmp_path / "old", {"a": np.zeros(2), "b": np.ones(3)})
    new = contents(convert(old, tmp_path / "new", format="tf", rules={"a": "b", "b": "a"}).path)
    assert (new["a"].shape, new["b"].shape) == ((3,), (2,))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rules": [("tower/.*", "x"), ("double|step", "y")]}, InvalidArgumentError, '(?s)"y" from .*"x" from '),
        ({"rules": [("conv1/(.*)", r"tower/\1")]}, NotFoundError, "would match turned round"),
        ({"rules": [("step", "")]}, InvalidArgumentError, "non-empty"),
        ({"rules": [("step", "s", jv.rules.transpose(0, 1))]}, JaxvarsError, "step"),
        ({"rules": [("step", "s", lambda array: "text")]}, InvalidArgumentError, "no array of numbers"),
        ({"rules": [("a", ["step", "half"], jv.rules.stack())]}, JaxvarsError, "replacement"),
        ({"only": "tower"}, NotFoundError, r"(?s)only.*tower"),
        ({"drop": ["step", "stepp"]}, NotFoundError, r"(?s)drop.*stepp"),
        ({"drop": ".*"}, InvalidArgumentError, "nothing of .* is left"),
        ({"cast": "int8"}, InvalidArgumentError, "no floating dtype"),
        ({"cast": "float99"}, InvalidArgumentError, "no floating dtype"),
        ({"cast": "float16"}, InvalidArgumentError, "half is bfloat16 and holds values that do not fit float16"),
        ({"format": "h5"}, InvalidArgumentError, "'h5'"),
    ],
)
@pytest.mark.parametrize("format", ["tf", "npz"])
def test_what_cannot_be_done_leaves_nothing_behind(
    tmp_path: Path, old: str, options: dict[str, Any], error: type[Exception], message: str, format: str
) -> None:
    before = listing(tmp_path)
    with pytest.raises(error, match=message):
        convert(old, tmp_path / "new", **{"format": format, **options})
    assert listing(tmp_path) == before


def test_cast_is_for_floating_tensors(tmp_path: Path, old: str) -> None:
    found = contents(convert(old, tmp_path / "new", format="npz", cast="float64", drop=["complex"]).path)
    assert {name: array.dtype.name for name, array in found.items() if array.dtype != np.float64} == {
        "step": "int64",
        "flags": "bool",
        "small": "int8",
        "é.b/c": "int32",
    }
    assert found["half"].tolist() == TENSORS["half"].astype(np.float64).tolist()


def test_other_names_of_the_format(tmp_path: Path, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxvars.checkpoint.formats.tensor_bundle import TensorBundle

    aliases = {"dense/kernel": "tower/weights", "dense/bias": "tower/biases", "other": "tower/biases"}
    monkeypatch.setattr(TensorBundle, "aliases", aliases, raising=False)
    done = convert(old, tmp_path / "new.npz", aliases=True, only="dense/.*", rules=[("dense/", "fc/")])
    assert done.sources == {"fc/kernel": ("tower/weights",), "fc/bias": ("tower/biases",)}


def test_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    old = writer.write_bundle(tmp_path / "old", {"a": np.zeros(2), "b": np.ones(3), "c": np.ones(3)}, shards=3)
    Path(f"{old}.data-00001-of-00003").unlink()
    with pytest.raises(InvalidArgumentError, match=r"1 of 3 tensors .* b \(the data file .* is missing\).*drop="):
        convert(old, tmp_path / "new.npz")
    assert set(contents(convert(old, tmp_path / "new.npz", drop="b").path)) == {"a", "c"}


# Into a model


def specs(**shapes: tuple[tuple[int, ...], str]) -> jv.Variables:
    pairs = {name.replace("__", "/"): VariableSpec(name.replace("__", "/"), *spec) for name, spec in shapes.items()}
    return jv.Variables.from_specs((spec, Hole(spec.shape, spec.dtype)) for spec in pairs.values())


def test_into_a_model(tmp_path: Path) -> None:
    layers = {f"layer_{i}/w": np.full((2, 3), i, np.float32) for i in range(3)}
    old = writer.write_bundle(
        tmp_path / "old", {**layers, "q": np.ones((2, 1)), "k": np.zeros((2, 2)), "s": np.array(5)}
    )
    into = specs(layers__w=((3, 2, 3), "float32"), qk=((2, 3), "float64"), step=((), "int64"), head=((4,), "float32"))
    rules = [
        ("layers/w", [f"layer_{i}/w" for i in range(3)], jv.rules.stack()),
        ("qk", ["q", "k"], jv.rules.concat(1)),
        ("step", "s"),
        ("head", None),
    ]
    done = convert(old, tmp_path / "new", into=into, rules=rules)
    wanted = {
        "layers/w": np.stack([layers[f"layer_{i}/w"] for i in range(3)]),
        "qk": np.concatenate([np.ones((2, 1)), np.zeros((2, 2))], 1),
        "step": np.array(5),
    }
    assert_same(contents(done.path), wanted)
    assert done.sources == {
        "layers/w": ("layer_0/w", "layer_1/w", "layer_2/w"),
        "qk": ("q", "k"),
        "step": ("s",),
    }
    assert done.left_out == ()
    assert [*done.sources] == ["layers/w", "qk", "step"]
    again = into.replace({"head": jnp.arange(4, dtype=jnp.float32)})  # a value of the model's own is written
    found = contents(convert(old, tmp_path / "new", into=again, rules=rules, drop="qk|step").path)
    assert set(found) == {"layers/w", "head"} and found["head"].tolist() == [0, 1, 2, 3]


def test_into_a_model_that_does_not_fit(tmp_path: Path, old: str) -> None:
    with pytest.raises(NotFoundError, match="missing not found in checkpoint"):
        convert(old, tmp_path / "new", into=specs(missing=((), "float32")))
    with pytest.raises(InvalidArgumentError, match="Shape of variable half"):
        convert(old, tmp_path / "new", into=specs(half=((4,), "bfloat16")))
    half = specs(half=((3,), "float32"))
    with pytest.raises(InvalidArgumentError, match="expected dtype float32"):
        convert(old, tmp_path / "new", into=half)
    with pytest.raises(InvalidArgumentError, match="cast is 'model' or None"):
        convert(old, tmp_path / "new", into=half, cast="float32")
    assert contents(convert(old, tmp_path / "new", into=half, cast="model").path)["half"].dtype == np.float32
    with pytest.raises(InvalidArgumentError, match="do not fit int32"):
        convert(old, tmp_path / "other", into=specs(step=((), "int32")), cast="model")
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("without_x64")
def test_into_a_model_of_32_bits_keeps_the_note(tmp_path: Path) -> None:
    old = writer.write_bundle(tmp_path / "old", {"step": np.array(5, np.int64)})
    into = specs(step=((), "int32"))
    assert contents(convert(old, tmp_path / "new", into=into).path)["step"].dtype == np.int32
    assert contents(convert(old, tmp_path / "new.npz", into=into).path)["step"].dtype == np.int64
    assert contents(convert(tmp_path / "new", tmp_path / "again", format="tf").path)["step"].dtype == np.int64


# Paths


@pytest.mark.parametrize("format", FORMATS)
def test_a_checkpoint_of_the_same_format_is_replaced(tmp_path: Path, old: str, format: str) -> None:
    convert(old, tmp_path / "new", format=format, only="step")
    convert(old, tmp_path / "new", format=format, only="flags")
    assert set(contents(str(tmp_path / "new"))) == {"flags"}
    others = [name for name in listing(tmp_path) if not name.startswith("old.ckpt")]
    wanted = {"tf": ["new.data-00000-of-00001", "new.index"]}
    assert others == wanted.get(format, ["new"])


@pytest.mark.parametrize("format", FORMATS)
def test_anything_else_is_never_overwritten(tmp_path: Path, old: str, format: str) -> None:
    notes = tmp_path / ("new.index" if format == "tf" else "new")
    notes.write_text("important")
    with pytest.raises(InvalidArgumentError):
        convert(old, tmp_path / "new", format=format)
    assert notes.read_text() == "important"
    notes.unlink()
    if format != "tf":
        notes.mkdir()
        (notes / "notes.txt").write_text("important")
        with pytest.raises(InvalidArgumentError):
            convert(old, tmp_path / "new", format=format)
        assert (notes / "notes.txt").read_text() == "important"
    for other in {"npz", "safetensors", "orbax"} - {format}:
        target = tmp_path / f"a_{other}"
        convert(old, target, format=other, drop="complex")
        with pytest.raises(InvalidArgumentError):
            convert(old, target, format=format)
        assert len(contents(str(target))) == 9
    with pytest.raises(InvalidArgumentError, match="'checkpoint' is the name"):
        convert(old, tmp_path / "checkpoint", format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_a_checkpoint_is_not_converted_onto_itself(tmp_path: Path, format: str) -> None:
    old = jv.checkpoint.save(jv.Variables({"a": jnp.ones(3)}), tmp_path / "old", format=format)
    os.symlink(tmp_path, tmp_path / "link")
    targets = [tmp_path / "old", tmp_path / "link" / "old"]
    if format == "orbax":
        targets += [tmp_path / "old" / "new", tmp_path / "link" / "old" / "a" / "b"]
    if format == "tf":
        targets += [tmp_path / "old.index", tmp_path / "old.data-00000-of-00001"]
    for target in targets:
        for other in FORMATS:
            with pytest.raises(InvalidArgumentError):
                convert(old, target, format=other)
            assert contents(old)["a"].tolist() == [1, 1, 1]
    with pytest.raises(InvalidArgumentError):
        convert(old, tmp_path)
    assert contents(old)["a"].tolist() == [1, 1, 1]


def test_a_checkpoint_in_several_files_is_not_written_over(tmp_path: Path) -> None:
    parts = {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)}
    for name, array in parts.items():
        jv.checkpoint.save(jv.Variables({name: array}), tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: f"{name}.safetensors" for name in parts}}))
    with pytest.raises(InvalidArgumentError, match="is the checkpoint that is converted, or a part of it"):
        convert(index, tmp_path / "b.safetensors")
    assert set(contents(convert(index, tmp_path / "whole.safetensors").path)) == {"a", "b"}
    old = writer.write_bundle(tmp_path / "old", parts, shards=2)
    with pytest.raises(InvalidArgumentError, match="or a part of it"):
        convert(old, f"{old}.data-00001-of-00002", format="npz")


def test_nothing_where_the_checkpoint_should_be(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such checkpoint"):
        convert(tmp_path / "old", tmp_path / "new")
    assert listing(tmp_path) == []


# How it goes


@pytest.mark.parametrize("format", FORMATS)
def test_what_does_not_read_back_is_an_error(
    tmp_path: Path, old: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that loses a bit: the writer gets other values than were noted.
    monkeypatch.setattr(departing.Departure, "matches", lambda self, values: self.item.name != "small")
    before = listing(tmp_path)
    with pytest.raises(DataLossError, match="small does not read back as it was written"):
        convert(old, tmp_path / "new", format=format, drop="complex")
    assert listing(tmp_path) == before
    assert len(contents(convert(old, tmp_path / "new", format=format, drop="complex", verify=False).path)) == 9
    with pytest.raises(DataLossError):
        convert(old, tmp_path / "new", format=format, drop="complex")
    assert (tmp_path / ("new.index" if format == "tf" else "new")).exists()  # there was one before


def test_checksums_are_of_the_values_given(tmp_path: Path, old: str) -> None:
    with jv.checkpoint.open(old) as reader:
        items = departing.departing(reader, [departing.Renamed("x", reader.tensors["double"])], None)
        assert items[0].matches(TENSORS["double"])
        assert not items[0].matches(TENSORS["double"] + 1)
        assert not items[0].matches(TENSORS["double"].astype(np.float32))


def test_damage_on_the_way_leaves_nothing_behind(tmp_path: Path, old: str) -> None:
    data = Path(f"{old}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    before = listing(tmp_path)
    for format in FORMATS:
        with pytest.raises(DataLossError, match="do not match their checksum"):
            convert(old, tmp_path / "new", format=format, drop="complex")
        assert listing(tmp_path) == before


def test_small_tensors_are_read_in_groups_and_large_ones_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departing, "_SMALL", 400)
    monkeypatch.setattr(departing, "_GROUP", 2000)
    values = {f"v{i}": np.full(30 if i % 7 else 150, i, np.float32) for i in range(120)}
    old = jv.checkpoint.save(jv.Variables(values), tmp_path / "old")
    seen: list[tuple[str, int, int]] = []
    done = convert(old, tmp_path / "new.safetensors", progress=lambda *step: seen.append(step))
    assert diff(old, done.path).same
    assert len(seen) == 240 and seen[-1][1] == seen[-1][2] == 2 * done.nbytes
    seen.clear()
    convert(old, tmp_path / "new.safetensors", progress=lambda *step: seen.append(step), verify=False)
    assert len(seen) == 120 and seen[-1][1] == seen[-1][2] == done.nbytes


def test_functions_may_change_what_they_are_given(tmp_path: Path, old: str) -> None:
    def doubled(array: np.ndarray) -> np.ndarray:
        array *= 2
        return array

    found = contents(convert(old, tmp_path / "new", format="npz", rules=[("tower/weights", "w", doubled)]).path)
    assert found["w"].tolist() == (TENSORS["tower/weights"] * 2).tolist()


def test_a_conversion_prints_as_a_line(tmp_path: Path) -> None:
    done = convert(CHECKPOINT, tmp_path / "new.npz")
    assert str(done) == f"21 variables, 94.4 KB: {CHECKPOINT} (tf) -> {tmp_path / 'new.npz'} (npz), verified"
    assert repr(done) == f"<Conversion: {done}>"
    done = convert(CHECKPOINT, tmp_path / "one.npz", only="global_step", verify=False)
    assert str(done).splitlines()[0].endswith("/one.npz (npz)")
    assert str(done).splitlines()[1].startswith("left out: digits_net/") and str(done).endswith(" and 12 more")
    assert repr(done) == f"<Conversion: {str(done).splitlines()[0]}>"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("model.h5", "HDF5 files"),
        ("all.HDF5", "HDF5 files"),
        ("model.keras", "Keras files"),
        ("model.msgpack", "msgpack files"),
        ("model.pt", "PyTorch files"),
        ("model.pth", "PyTorch files"),
        ("model.bin", "PyTorch files"),
        ("model.pb", "TensorFlow graphs"),
    ],
)
def test_a_suffix_of_another_program_does_not_become_a_folder(
    tmp_path: Path, old: str, name: str, files: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(tmp_path)
    variables = jv.Variables({"w": jnp.ones(2)})
    for write in (
        lambda path: convert(old, path),
        lambda path: jv.checkpoint.save(variables, path),
        lambda path: jv.checkpoint.save_async(variables, path),
        lambda path: jv.train.Saver().save(variables, path),
        lambda path: jv.train.Saver().save(variables, path, global_step=3),
    ):
        with pytest.raises(InvalidArgumentError, match=rf'{name}.*does not write {files}.*format="orbax"'):
            write(tmp_path / name)
    assert_one_line(run(capsys, "convert", old, tmp_path / name), name, files)
    assert listing(tmp_path) == before
    assert convert(old, tmp_path / name, format="orbax").format == "orbax"


# The command


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    new = tmp_path / "new.safetensors"
    done = run(capsys, "convert", CHECKPOINT, new)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"21 variables, 94.4 KB: {CHECKPOINT} (tf) -> {new} (safetensors), verified\n"
    assert run(capsys, "diff", CHECKPOINT, new).code == 0
    rules = tmp_path / "rules.json"
    rules.write_text(r'[["digits_net/conv1/(.*)", "a/\\1"]]')
    chosen = ("--rules", rules, "--only", "digits_net/conv1/", "--drop", ".*/Momentum", "--cast", "bfloat16")
    content = run(capsys, "convert", CHECKPOINT, tmp_path / "b.npz", *chosen, "--no-verify", "--json").json()
    assert content["sources"]["a/weights"] == ["digits_net/conv1/weights"]
    assert (content["format"], content["verified"], len(content["left_out"])) == ("npz", False, 19)
    assert contents(str(tmp_path / "b.npz"))["a/biases"].dtype == ml_dtypes.bfloat16
    done = run(capsys, "convert", CHECKPOINT, tmp_path / "c.npz", "--only", "global_step", "--format", "tf")
    assert done.out.startswith("1 variable, 8 B: ") and "\nleft out: digits_net/" in done.out
    assert done.out.endswith(" and 12 more\n")


def test_command_into_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, rules = tmp_path / "model.json", tmp_path / "rules.json"
    model.write_text('{"both": [[2, 16], "float32"]}')
    names = ["digits_net/conv1/biases", "digits_net/conv1/biases/Momentum"]
    rules.write_text(f'[["both", {names}, "stack()"]]'.replace("'", '"'))
    done = run(capsys, "convert", CHECKPOINT, tmp_path / "b", "--into", model, "--rules", rules)
    assert (done.code, done.err) == (0, "")
    assert contents(str(tmp_path / "b"))["both"].shape == (2, 16)
    assert_error(run(capsys, "convert", CHECKPOINT, tmp_path / "c", "--into", model), "Key both not found")


def test_command_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "notes.npz").write_text("important")
    assert_one_line(run(capsys, "convert", CHECKPOINT, tmp_path / "notes.npz"), "notes.npz", "Choose another name")
    assert_one_line(run(capsys, "convert", CHECKPOINT, CHECKPOINT), "is the checkpoint that is converted")
    assert listing(tmp_path) == ["notes.npz"]

"""Finding checkpoints: paths, state files, wrong files; `open`, `inspect`, and tf.train's questions."""

import os
import threading
import zipfile
from pathlib import Path

import bundle_writer as writer
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint import inspection, paths, tf1_api
from jaxvars.checkpoint.formats import state_file
from jaxvars.checkpoint.formats.state_file import CheckpointState
from jaxvars.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    JaxvarsError,
    NotFoundError,
)
from jaxvars.spec import VariableSpec

TENSORS = {"v1": np.ones(3, np.float32), "scope/v2": np.zeros((2, 2)), "step": np.array(7)}


@pytest.fixture
def bundle(tmp_path):
    return writer.write_bundle(tmp_path / "model.ckpt-7", TENSORS)


# Paths


def names(path):
    with checkpoint.open(path) as reader:
        return set(reader)


def test_every_way_to_name_a_bundle(tmp_path, bundle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    odd = writer.write_bundle(tmp_path / "odd name%[1]*", TENSORS)
    for path in (
        bundle,
        Path(bundle),
        f"{bundle}.index",
        "model.ckpt-7",
        "./model.ckpt-7",
        "~/model.ckpt-7",
        f"file://{bundle}",
        f"file://localhost{bundle}",
        "file://" + odd.replace("%", "%25").replace(" ", "%20"),
        odd,
    ):
        assert names(path) == set(TENSORS)


def test_a_folder_with_one_index_or_a_state_file(tmp_path, bundle):
    assert names(tmp_path) == set(TENSORS)
    writer.write_bundle(tmp_path / "model.ckpt-8", {"other": np.ones(1)})
    with pytest.raises(InvalidArgumentError, match=r"several checkpoints: model.ckpt-7, model.ckpt-8. Open one: "):
        checkpoint.open(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/run/model.ckpt-8"\n')
    assert names(tmp_path) == {"other"} == names(tmp_path / "checkpoint")


def test_a_saved_model_leads_to_its_variables(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"anything")
    with pytest.raises(NotFoundError, match="SavedModel without variables"):
        checkpoint.open(tmp_path)
    writer.write_bundle(tmp_path / "variables" / "variables", TENSORS)
    assert names(tmp_path) == set(TENSORS) == names(tmp_path / "variables")


def test_v1_files_and_their_shards(tmp_path):
    parts = {"emb": [[(0, 1), (0, 2)], [(1, 2), (0, 2)]]}
    emb = np.arange(6, dtype=np.float32).reshape(3, 2)
    writer.write_v1(tmp_path / "one.ckpt", {"emb": emb})
    assert checkpoint.open(tmp_path / "one.ckpt").format == "tf_v1"
    writer.write_v1(tmp_path / "m.ckpt-00000-of-00002", {"emb": emb}, {"emb": parts["emb"][:1]})
    writer.write_v1(tmp_path / "m.ckpt-00001-of-00002", {"emb": emb}, {"emb": parts["emb"][1:]})
    for path in ("m.ckpt", "m.ckpt-?????-of-00002"):
        with checkpoint.open(tmp_path / path) as reader:
            np.testing.assert_array_equal(reader["emb"], emb)
    with (
        checkpoint.open(tmp_path / "m.ckpt-00000-of-00002") as reader,
        pytest.raises(DataLossError, match="do not cover"),
    ):
        reader.get_tensor("emb")


def test_a_folder_of_one_v1_checkpoint(tmp_path, monkeypatch):
    emb = np.arange(6, dtype=np.float32).reshape(3, 2)
    one, parts = tmp_path / "one", tmp_path / "parts"
    for folder in (one, parts):
        folder.mkdir()
        (folder / "notes.txt").write_text("of long ago")
    writer.write_v1(one / "ckpt", {"emb": emb})
    assert names(one) == {"emb"}
    for number, slices in enumerate(([(0, 1), (0, 2)], [(1, 2), (0, 2)])):
        writer.write_v1(parts / f"export-0000{number}-of-00002", {"emb": emb}, {"emb": [slices]})
    with checkpoint.open(parts) as reader:
        np.testing.assert_array_equal(reader["emb"], emb)
    writer.write_v1(one / "other", {"other": emb})
    with pytest.raises(InvalidArgumentError, match=r"several checkpoints: ckpt, other. Open one: '.*/one/other'"):
        checkpoint.open(one)
    monkeypatch.setattr(paths, "_MOST_IDENTIFIED", 1)
    with pytest.raises(NotFoundError, match=r'the folder holds "ckpt", "notes\.txt", "other"'):
        checkpoint.open(one)


WRONG = {
    "empty": (b"", "an empty file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html>", "web page"),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "npy": (b"\x93NUMPY\x01\x00", r"\.npy"),
    "gz": (b"\x1f\x8b\x08" + bytes(30), "gzip"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "tar archive"),
    "pickle": (b"\x80\x04\x95" + bytes(30), "pickle.*never loaded"),
    "cut zip": (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "PyTorch file .zip., cut short"),
    "noise": (b"nothing known" * 10, "or its end is missing"),
    "cut state": (b'model_checkpoint_path: "x', "or its end is missing"),
    "state": (b'model_checkpoint_path: "x"\nwhat', "not a `checkpoint` state file"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_says_what_it_is(tmp_path, kind):
    data, text = WRONG[kind]
    path = tmp_path / "model.ckpt"
    path.write_bytes(data)
    with pytest.raises(JaxvarsError, match=text) as caught:
        checkpoint.open(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (["archive/data.pkl", "archive/data/0"], "PyTorch"),
        (["x"], "zip"),
    ],
)
def test_zips_are_told_apart(tmp_path, members, text):
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        for member in members:
            archive.writestr(member, b"")
    with pytest.raises(InvalidArgumentError, match=text):
        checkpoint.open(tmp_path / "model.ckpt")


@pytest.mark.parametrize("member", ["w.npy", "model.weights.h5"])
def test_a_zip_with_an_empty_member_is_damaged(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr(member, b"")
    with pytest.raises(DataLossError, match=r"model\.ckpt"):
        checkpoint.open(tmp_path / "model.ckpt")["w"]


def test_single_files_are_found_by_their_content(tmp_path):
    variables = jv.Variables({"a/b": np.arange(3, dtype=np.float32)})
    for form in ("npz", "safetensors"):
        folder = tmp_path / form
        checkpoint.save(variables, folder / "model.ckpt-7", form)
        assert checkpoint.open(folder / "model.ckpt-7").format == form
        os.rename(folder / "model.ckpt-7", folder / f"model.{form}")
        for path in (folder, folder / f"model.{form}"):  # a folder with one such file stands for it
            assert names(path) == {"a/b"}
        checkpoint.save(variables, folder / f"other.{form}")
        with pytest.raises(InvalidArgumentError, match=rf"several checkpoints: model\.{form}, other\.{form}"):
            checkpoint.open(folder)


def test_a_save_replaces_only_its_own_kind(tmp_path):
    variables = jv.Variables({"w": np.ones(2, np.float32)})
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    checkpoint.save(variables, tmp_path / "bundle", "tf")
    checkpoint.save(variables, tmp_path / "m.npz")
    checkpoint.save(variables, tmp_path / "orbax")
    for path, form, there in (
        ("notes", "npz", "an unknown file"),
        ("notes", "tf", "an unknown file"),
        ("folder", "safetensors", "a folder"),
        ("orbax", "tf", "a folder"),
        ("dangling", "npz", "something that is no file"),
        ("m.npz", "safetensors", r"a NumPy \.npz file"),
        ("bundle", "npz", "a TensorFlow checkpoint of that name"),
        ("bundle", "orbax", "a TensorFlow checkpoint of that name"),
        ("m.npz", "orbax", "not a checkpoint that jaxvars wrote"),
        ("checkpoint", "npz", "the name of the file in which a Saver notes"),
    ):
        with pytest.raises(InvalidArgumentError, match=there):
            checkpoint.save(variables, tmp_path / path, form)
    assert (tmp_path / "notes").read_text() == "mine"
    twice = jv.Variables({"w": np.full(2, 2, np.float32)})
    for path, form in (("bundle", "tf"), ("m.npz", None), ("orbax", None)):
        with checkpoint.open(checkpoint.save(twice, tmp_path / path, form)) as reader:
            np.testing.assert_array_equal(reader["w"], [2, 2])
    with pytest.raises(InvalidArgumentError, match="'hdf5' is only read"):
        checkpoint.save(variables, tmp_path / "x", "hdf5")


def test_what_is_not_there_comes_with_near_names(tmp_path, bundle):
    with pytest.raises(NotFoundError, match=r"Did you mean .*model.ckpt-7"):
        checkpoint.open(tmp_path / "model.ckpt-6")
    with pytest.raises(NotFoundError, match="there is no folder"):
        checkpoint.open(tmp_path / "none" / "x")
    (tmp_path / "void").mkdir()
    with pytest.raises(NotFoundError, match=r"Couldn't find 'checkpoint' file or checkpoints.*the folder is empty"):
        checkpoint.open(tmp_path / "void")
    with pytest.raises(InvalidArgumentError, match=r"Open the checkpoint: '.*model\.ckpt-7'"):
        checkpoint.open(f"{bundle}.data-00000-of-00001")
    os.rename(f"{bundle}.index", tmp_path / "renamed")
    with pytest.raises(DataLossError, match=r"index .* is missing"):
        checkpoint.open(f"{bundle}.data-00000-of-00001")
    with pytest.raises(InvalidArgumentError, match=r"call it NAME\.index again"):
        checkpoint.open(tmp_path / "renamed")
    for bad in ("gs://bucket/model.ckpt", "file://host/x", "", "a\0b", b"x"):
        with pytest.raises((InvalidArgumentError, InvalidTypeError)):
            checkpoint.open(bad)  # type: ignore[arg-type]


# State files


PATHS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(PATHS, st.lists(PATHS, max_size=3), st.lists(st.floats(0, 2e9), max_size=3), st.none() | st.floats(0, 2e9))
def test_a_state_file_gives_back_what_was_written(tmp_path_factory, latest, others, times, preserved):
    path = str(tmp_path_factory.mktemp("s") / "checkpoint")
    state = CheckpointState(latest, tuple(others), tuple(times), preserved)
    state_file.write_state(path, state)
    assert state_file.read_state(path) == state
    assert os.listdir(os.path.dirname(path)) == ["checkpoint"]


def test_state_files_as_protobuf_writes_them(tmp_path):
    path = tmp_path / "checkpoint"
    path.write_bytes(
        b'# a comment\nmodel_checkpoint_path: "a\\"b\\\\\\303\\251\\x41\\n" '
        b"all_model_checkpoint_paths: 'x'\n"
        b"all_model_checkpoint_timestamps: 1e3\nlast_preserved_timestamp: 2.5\nnew_field: SOME_ENUM\n"
    )
    assert state_file.read_state(str(path)) == CheckpointState('a"b\\éA\n', ("x",), (1000.0,), 2.5)
    path.write_text("")
    with pytest.raises(InvalidArgumentError, match="incomplete"):
        state_file.read_state(str(path))
    for text in ("model_checkpoint_path: x", 'model_checkpoint_path: "x"\nlast_preserved_timestamp: y', "{}"):
        path.write_text(text)
        with pytest.raises(DataLossError, match="not a `checkpoint` state file"):
            state_file.read_state(str(path))


@given(st.binary(max_size=60))
def test_any_bytes_as_a_state_file_give_a_state_or_our_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("s") / "checkpoint"
    path.write_bytes(b'model_checkpoint_path: "' + data)
    try:
        state_file.read_state(str(path))
    except JaxvarsError as error:
        assert str(path) in str(error)


# tf.train's questions


def test_update_get_and_latest(tmp_path, bundle):
    folder = str(tmp_path)
    assert tf1_api.latest_checkpoint(folder) is None and tf1_api.get_checkpoint_state(folder) is None
    tf1_api.update_checkpoint_state(folder, bundle)
    assert tf1_api.latest_checkpoint(folder) == bundle == tf1_api.latest_checkpoint(Path(folder))
    assert tf1_api.get_checkpoint_state(folder) == CheckpointState(bundle, (bundle,))
    older = os.path.join(folder, "model.ckpt-1")
    tf1_api.update_checkpoint_state(folder, bundle, [older], "other", [1.0, 2.0], 3.0)
    assert tf1_api.get_checkpoint_state(folder, "other") == CheckpointState(bundle, (older, bundle), (1.0, 2.0), 3.0)
    with pytest.raises(InvalidArgumentError, match="timestamps, if provided, must match"):
        tf1_api.update_checkpoint_state(folder, bundle, [older], None, [1.0])
    with pytest.raises(FailedPreconditionError, match="conflicts with path used for checkpoint state"):
        tf1_api.update_checkpoint_state(folder, os.path.join(folder, "checkpoint"))
    with pytest.raises(FailedPreconditionError, match="Cannot write"):
        tf1_api.update_checkpoint_state(os.path.join(folder, "none"), bundle)


def test_relative_paths_stay_relative(tmp_path, bundle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("run")
    for name in os.listdir("."):
        if name.startswith("model"):
            os.rename(name, os.path.join("run", name))
    tf1_api.update_checkpoint_state("run", "run/model.ckpt-7", ["run/model.ckpt-1"])
    text = (tmp_path / "run" / "checkpoint").read_text()
    assert text.splitlines()[:2] == [
        'model_checkpoint_path: "model.ckpt-7"',
        'all_model_checkpoint_paths: "model.ckpt-1"',
    ]
    assert tf1_api.latest_checkpoint("run") == os.path.join("run", "model.ckpt-7")
    assert tf1_api.get_checkpoint_state("run").all_model_checkpoint_paths == (
        "run/model.ckpt-1",
        "run/model.ckpt-7",
    )
    absolute = str(tmp_path / "run" / "model.ckpt-7")
    tf1_api.update_checkpoint_state(str(tmp_path / "run"), absolute, save_relative_paths=True)
    assert (tmp_path / "run" / "checkpoint").read_text().startswith('model_checkpoint_path: "model.ckpt-7"\n')
    os.rename("run", "moved")
    assert tf1_api.latest_checkpoint("moved") == os.path.join("moved", "model.ckpt-7")


def test_a_dead_absolute_path_is_found_in_its_own_folder(tmp_path, bundle):
    tf1_api.update_checkpoint_state(tmp_path, "/home/author/runs/model.ckpt-7")
    assert tf1_api.latest_checkpoint(tmp_path) == bundle
    for gone in ("/home/author/runs/model.ckpt-9", "zero\0byte"):
        tf1_api.update_checkpoint_state(tmp_path, gone)
        with pytest.raises(NotFoundError, match="does not exist"):
            checkpoint.open(tmp_path)
    assert tf1_api.latest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint").write_text("not text proto {")
    assert tf1_api.get_checkpoint_state(tmp_path) is None
    (tmp_path / "checkpoint").write_text("")
    with pytest.raises(ValueError, match="incomplete"):
        tf1_api.get_checkpoint_state(tmp_path)


def test_list_load_and_exists_on_every_format(tmp_path, bundle):
    orbax = checkpoint.save(jv.Variables({"v1": np.ones(3, np.float32), "b/c": np.zeros((2, 2))}), tmp_path / "o")
    v1 = writer.write_v1(tmp_path / "v1", {"v1": np.ones(3, np.float32)})
    assert tf1_api.list_variables(bundle) == [("scope/v2", [2, 2]), ("step", []), ("v1", [3])]
    assert tf1_api.list_variables(orbax) == [("b/c", [2, 2]), ("v1", [3])]
    for path in (bundle, orbax, v1):
        assert tf1_api.checkpoint_exists(path)
        np.testing.assert_array_equal(tf1_api.load_variable(path, "v1:0"), np.ones(3))
        reader = tf1_api.load_checkpoint(path)
        assert reader.has_tensor("v1") and not reader.has_tensor("v2")
        assert reader.get_variable_to_shape_map()["v1"] == [3]
        assert reader.get_variable_to_dtype_map()["v1"] == np.float32
    assert not tf1_api.checkpoint_exists(tmp_path / "none")
    with pytest.raises(NotFoundError, match="Key v3 not found in checkpoint"):
        tf1_api.load_variable(bundle, "v3")


# Readers


def test_a_reader_is_a_mapping_of_lazy_arrays(tmp_path, bundle):
    with checkpoint.open(bundle) as reader:
        assert list(reader) == ["scope/v2", "step", "v1"] and len(reader) == 3 and reader.format == "tf"
        assert "v1" in reader and "v1:0" in reader and "v2" not in reader and 3 not in reader
        lazy = reader["v1:0"]
        assert (lazy.name, lazy.shape, lazy.dtype, lazy.ndim, lazy.size, lazy.nbytes) == (
            "v1",
            (3,),
            np.float32,
            1,
            3,
            12,
        )
        assert len(lazy) == 3 and lazy[1] == 1 and "v1: float32 [3]" in repr(lazy)
        assert np.asarray(lazy, np.float64).dtype == np.float64 and jnp.asarray(lazy).sum() == 3
        assert isinstance(reader.get("nope"), type(None))
        with pytest.raises(NotFoundError, match=r"Key v not found in checkpoint .*3 tensors\. Nearest: v1"):
            reader["v"]
        with pytest.raises(InvalidTypeError, match="scalar"):
            len(reader["step"])
        assert reader.variable_specs["step"] == VariableSpec("step", (), "int64", False, ("variables",))
        assert reader.variable_specs["v1"].trainable and "3 tensors" in repr(reader)
    with pytest.raises(FailedPreconditionError, match="closed"):
        np.asarray(lazy)
    assert lazy.shape == (3,) and list(reader)
    reader.close()


def test_a_file_replaced_while_open_is_read_as_it_was_or_detected(tmp_path, bundle):
    reader = checkpoint.open(bundle)
    reader.get_tensor("v1")
    writer.write_bundle(tmp_path / "new", {name: value * 0 + 9 for name, value in TENSORS.items()})
    os.replace(tmp_path / "new.data-00000-of-00001", f"{bundle}.data-00000-of-00001")
    np.testing.assert_array_equal(reader.get_tensor("v1"), TENSORS["v1"])
    with pytest.raises(DataLossError, match="checksum"):
        checkpoint.open(bundle).get_tensor("v1")


def test_a_reader_serves_threads(tmp_path):
    tensors = {f"t{i}": np.full(1000, i, np.float32) for i in range(40)}
    reader = checkpoint.open(writer.write_bundle(tmp_path / "m", tensors, shards=4))
    failures = []

    def work():
        for name, expected in tensors.items():
            if reader.get_tensor(name)[0] != expected[0]:
                failures.append(name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# inspect


def test_inspect_prints_as_tf1_did(bundle, capsys):
    checkpoint.inspect(bundle)
    assert capsys.readouterr().out.splitlines() == [
        "tensor: scope/v2 (float64) [2, 2]",
        "tensor: step (int64) []",
        "tensor: v1 (float32) [3]",
        "# Total number of params: 8",
    ]
    checkpoint.inspect(bundle, "v1:0", count_exclude_pattern="scope/.*")
    assert capsys.readouterr().out.splitlines() == [
        "tensor: v1 (float32) [3]",
        "[1. 1. 1.]",
        "# Total number of params: 4",
    ]
    checkpoint.inspect(bundle, "v9")
    assert capsys.readouterr().out == "Tensor v9 not found in checkpoint\n"
    inspection.print_tensors_in_checkpoint_file(bundle, None, all_tensors=True)
    assert "tensor: step (int64) []\n7\n" in capsys.readouterr().out
    inspection.print_tensors_in_checkpoint_file(bundle, "x", all_tensors=False, all_tensor_names=True)
    assert capsys.readouterr().out.count("\n") == 4
    inspection.print_tensors_in_checkpoint_file(bundle, "v1", all_tensors=False)
    assert "[1. 1. 1.]" in capsys.readouterr().out


def test_inspect_shows_why_a_tensor_cannot_be_read(tmp_path, capsys):
    extra = [(b"x", writer.entry(21, [], 0, 0, 4, 0))]
    checkpoint.inspect(writer.write_bundle(tmp_path / "m", {}, extra=extra), values=True)
    assert "tensor: x (variant) []\n<its type is variant" in capsys.readouterr().out

"""HDF5 files and .keras archives: the real libraries' files, hand-made ones, damaged and hostile ones."""

import json
import random
import subprocess
import sys
import threading
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

from jaxvars.checkpoint.formats.hdf5 import Hdf5Source
from jaxvars.checkpoint.formats.keras_names import objects_of_config, snake_case
from jaxvars.checkpoint.formats.keras_zip import KerasZipSource
from jaxvars.errors import DataLossError, InvalidArgumentError, JaxvarsError, NotFoundError, UnavailableError

GOLDEN = Path(__file__).parent / "golden" / "keras"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def opened(path):
    return (KerasZipSource if str(path).endswith(".keras") else Hdf5Source)(str(path))


def read_all(path):
    """Read everything that can be read, through names alone."""
    source = opened(path)
    try:
        assert all(name in source.tensors for name in source.aliases.values())
        return dict(source.read_many(name for name, info in source.tensors.items() if not info.problem))
    finally:
        source.close()


def copied(source, target, edit):
    target.write_bytes(source.read_bytes())
    with h5py.File(target, "r+") as file:
        edit(file)
    return target


# What the libraries wrote


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("keras3.keras", "keras3"),
        ("keras3.weights.h5", "keras3"),
        ("keras2_weights.h5", "keras2_weights"),
        ("keras2_model.h5", "keras2_model"),
    ],
)
def test_every_variable_has_the_values_and_the_name_that_keras_gave_it(file, key):
    source = opened(GOLDEN / file)
    named = {name: name for name in source.tensors} | dict(source.aliases)
    for name, values in EXPECTED[key].items():
        read = source.read(named[name])
        info = source.tensors[named[name]]
        assert (read.shape, read.dtype) == (info.shape, info.dtype)
        np.testing.assert_array_equal(read.astype(np.float64), np.asarray(values))
    assert len(source.tensors) == len(EXPECTED[key])
    source.close()


def test_names_of_keras_2_are_those_of_its_weights_and_paths_are_aliases():
    source = opened(GOLDEN / "keras2_model.h5")
    assert source.format == "hdf5"
    assert {"first/kernel", "norm/moving_mean", "m/head/bias", "iteration"} <= source.tensors.keys()
    assert source.aliases["model_weights/first/first/kernel:0"] == "first/kernel"
    assert source.aliases["optimizer_weights/m/head/bias:0"] == "m/head/bias"
    assert source.tensors["iteration"].dtype == np.int64
    source.close()


@pytest.mark.parametrize("file", ["keras3.keras", "keras3.weights.h5"])
def test_names_of_keras_3_are_paths_and_names_of_layers_are_aliases(file):
    source = opened(GOLDEN / file)
    assert source.format == ("keras" if file.endswith(".keras") else "hdf5")
    # The layer called "dense" is the second of its class: its class alone would give the other one's values.
    assert source.aliases["dense/kernel"] == "layers/dense_1/vars/0"
    assert source.aliases["first/kernel"] == "layers/dense/vars/0"
    assert source.aliases["memory/lstm_cell/recurrent_kernel"] == "layers/lstm/cell/vars/1"
    assert source.tensors["layers/dense_1/vars/0"].dtype == ml_dtypes.bfloat16
    assert source.tensors["layers/dense_1/vars/0"].type_name == "bfloat16"
    assert not any("optimizer" in name for name in source.aliases.values())
    source.close()


def without_notes(file):
    groups = []
    file.visititems(lambda name, item: groups.append(item) if "name" in item.attrs else None)
    for group in groups:
        del group.attrs["name"]


def keras_archive(path, weights, config, version="3.9.0", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", config if isinstance(config, (str, bytes)) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return path


@pytest.fixture
def golden_config():
    with zipfile.ZipFile(GOLDEN / "keras3.keras") as archive:
        return json.loads(archive.read("config.json"))


def test_without_noted_names_the_configuration_gives_them_and_nothing_else_does(tmp_path, golden_config):
    bare = copied(GOLDEN / "keras3.weights.h5", tmp_path / "bare.h5", without_notes)
    assert not opened(bare).aliases
    source = opened(keras_archive(tmp_path / "m.keras", bare.read_bytes(), golden_config))
    assert source.aliases["dense/kernel"] == "layers/dense_1/vars/0"
    assert source.aliases["norm/moving_variance"] == "layers/batch_normalization/vars/3"
    assert not any("lstm" in name for name in source.aliases)  # its cell has no name there
    source.close()


def test_a_layer_of_the_users_own_has_no_names_of_variables(tmp_path, golden_config):
    bare = copied(GOLDEN / "keras3.weights.h5", tmp_path / "bare.h5", without_notes)
    for layer in golden_config["config"]["layers"]:
        if layer["config"]["name"] == "first":
            layer["module"] = "somewhere"
    source = opened(keras_archive(tmp_path / "m.keras", bare.read_bytes(), golden_config))
    assert "first/kernel" not in source.aliases and "dense/kernel" in source.aliases
    source.close()


def test_layers_of_inner_models_and_wrong_configurations():
    def layer(kind, name, layers=None):
        config = {"name": name} if layers is None else {"name": name, "layers": layers}
        return {"module": "keras.layers", "class_name": kind, "config": config}

    inner = layer("Functional", "inner", [layer("Conv2D", "c")])
    found = objects_of_config(layer("Sequential", "outer", [layer("Dense", "a"), inner, layer("Dense", "b")]))
    assert found["layers/dense_1"] == ("dense", "b")
    assert found["layers/functional/layers/conv2d"] == ("conv2d", "c")
    deep = layer("Sequential", "x", [])
    for _ in range(300):
        deep = layer("Sequential", "x", [deep])
    assert 0 < len(objects_of_config(deep)) < 300
    wrong = [None, [], 7, {"config": 3}, {"config": {"layers": 3}}, {"config": {"layers": [3]}}]
    assert [objects_of_config(config) for config in wrong] == [{}] * len(wrong)
    two_of_one_path = [layer("Dense", "a"), layer("Dense", "b"), layer("Dense_1", "c")]
    assert "layers/dense_1" not in objects_of_config(layer("Sequential", "x", two_of_one_path))


@pytest.mark.parametrize(
    ("name", "snake"),
    [("BatchNormalization", "batch_normalization"), ("Conv2DTranspose", "conv2d_transpose"), ("PReLU", "p_re_lu")],
)
def test_class_names_become_paths_as_in_keras(name, snake):
    assert snake_case(name) == snake


def numbered(path, layers):
    """A file as Keras 3 writes it: {component: (name, variables)}."""
    with h5py.File(path, "w") as file:
        for component, (name, variables) in layers.items():
            group = file.create_group(f"layers/{component}/vars")
            if name is not None:
                group.attrs["name"] = name
            for number, value in enumerate(variables):
                group[str(number)] = value
    return path


def test_unsure_names_are_no_aliases(tmp_path):
    f4, i1 = np.zeros(2, np.float32), np.zeros(2, np.int8)
    layers = {
        "dense": ("same", [f4]),
        "dense_1": ("same", [f4]),
        "dense_2": ("quantized", [i1, f4]),
        "dense_3": (None, [f4]),
        "batch_normalization": ("no_scale", [f4, f4, f4]),
        "my_layer": ("dense", [f4]),
        "embedding": ("layers/embedding/vars/0", [f4]),
    }
    source = opened(numbered(tmp_path / "x.weights.h5", layers))
    assert dict(source.aliases) == {"layers/embedding/vars/0/embeddings": "layers/embedding/vars/0"}
    source.close()


# Keras 1, and names that need care


def legacy(path, layers, root="", text=np.bytes_):
    """A file as Keras 1 and 2 write it: {layer: {weight: values}}."""
    with h5py.File(path, "w") as file:
        top = file.require_group(root) if root else file
        top.attrs["layer_names"] = np.array([text(layer) for layer in layers])
        for layer, weights in layers.items():
            group = top.create_group(layer)
            group.attrs["weight_names"] = np.array([text(name) for name in weights])
            for name, value in weights.items():
                group[name] = value
    return path


def test_keras_1(tmp_path):
    w, b = np.ones((8, 3, 3, 3), np.float32), np.zeros(8, np.float32)
    layers = {"convolution2d_1": {"convolution2d_1_W": w, "convolution2d_1_b": b}, "maxpooling2d_1": {}}
    source = opened(legacy(tmp_path / "vgg16_weights.h5", layers))
    assert set(source.tensors) == {"convolution2d_1_W", "convolution2d_1_b"}
    assert source.aliases == {f"convolution2d_1/convolution2d_1_{x}": f"convolution2d_1_{x}" for x in "Wb"}
    np.testing.assert_array_equal(source.read("convolution2d_1_W"), w)
    source.close()


def test_a_name_that_two_weights_have_is_no_name(tmp_path):
    one = np.ones(1, np.float32)
    layers = {
        "a": {"kernel:0": one, "bias:0": one},
        "b": {"kernel:0": 2 * one, "a/bias:0": one},
        "c": {"d/e:0": one},
        "d": {"e": one},
        "f": {"x": one, "x:0": one},
    }
    source = opened(legacy(tmp_path / "x.h5", layers, root="model_weights"))
    names = set(source.tensors)
    assert {"model_weights/a/kernel:0", "model_weights/b/kernel:0", "bias", "a/bias", "d/e", "e"} <= names
    assert {"model_weights/f/x", "model_weights/f/x:0"} <= names
    assert source.read("model_weights/b/kernel:0") == 2
    source.close()


def test_a_name_that_is_a_path_of_another_stays_with_the_path(tmp_path):
    one = np.ones(1, np.float32)
    source = opened(legacy(tmp_path / "x.h5", {"a": {"b/c:0": one}, "b": {"c": 2 * one}}))
    assert set(source.tensors) == {"a/b/c:0", "c"}
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["extra"] = 3 * one
        file["b/c2"] = one
    assert {"extra", "b/c2"} <= set(opened(tmp_path / "x.h5").tensors)
    source.close()


def test_long_lists_of_names_are_cut_into_pieces(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names0"] = np.array([b"a"])
        file.attrs["layer_names1"] = np.array([b"b"])
        for layer in "ab":
            group = file.create_group(layer)
            group.attrs["weight_names0"] = ["k:0"] if layer == "a" else []
            group["k:0"] = 1.0
    assert set(opened(tmp_path / "x.h5").tensors) == {"k", "b/k:0"}


def test_a_weight_that_is_listed_and_not_there(tmp_path):
    path = legacy(tmp_path / "x.h5", {"a": {"w": np.ones(1)}})
    with h5py.File(path, "r+") as file:
        del file["a/w"]
    with pytest.raises(DataLossError, match="lists a weight 'w', but has no dataset 'a/w'"):
        opened(path)


# Any HDF5 file

VALUES = {
    "f": np.arange(6, dtype=np.float32).reshape(2, 3),
    "h": np.ones(3, np.float16),
    "big_endian": np.arange(5, dtype=">f8"),
    "ints/i": np.int64(-7),
    "ints/u": np.array([1, 255], np.uint8),
    "flags": np.array([True, False]),
    "c": np.array([1 + 2j], np.complex64),
    "none": np.empty((0, 3)),
}


@pytest.mark.parametrize("kinds", [{}, {"libver": "latest"}, {"userblock_size": 1024}], ids=str)
def test_any_file(tmp_path, kinds):
    with h5py.File(tmp_path / "x.h5", "w", **kinds) as file:
        for name, value in VALUES.items():
            file[name] = value
        zipped = {"chunks": (7, 8), "compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("zipped", data=np.arange(600.0).reshape(20, 30), **zipped)
        file.create_dataset("grown", (0, 4), np.float32, maxshape=(None, None), chunks=(2, 2))
        file.create_dataset("small", data=np.arange(3.0), dtype="f4")
        file["texts"] = ["a", "", "groß"]
        file["text"] = "one"
        file["fixed"] = np.array([b"abc", b"d"])
        file.create_dataset("unwritten", (2,), h5py.string_dtype())
        file.attrs["layer_names"] = np.array([b"zipped"])  # not Keras': no such group
        file["vars/0"] = np.zeros(2)
        file["vars"].attrs["name"] = "a note"
    read = read_all(tmp_path / "x.h5")
    for name, value in VALUES.items():
        assert read[name].dtype == np.asarray(value).dtype.newbyteorder("=")
        assert read[name].dtype.isnative
        np.testing.assert_array_equal(read[name], value)
    np.testing.assert_array_equal(read["zipped"], np.arange(600.0).reshape(20, 30))
    assert read["grown"].shape == (0, 4)
    assert read["texts"].tolist() == [b"a", b"", "groß".encode()]
    assert read["text"].dtype == object and read["text"][()] == b"one"
    assert read["fixed"].tolist() == [b"abc", b"d"] and read["fixed"].dtype == object
    assert read["unwritten"].tolist() == [b"", b""]
    read["f"][0, 0] = 9  # an array of its own
    assert read_all(tmp_path / "x.h5")["f"][0, 0] == 0


def test_names_of_layers_in_a_file_of_a_newer_version(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 2), np.float32)
        group = file["layers/dense/vars"]
        for number in range(5):
            group.attrs[f"other{number}"] = np.zeros(40)  # so that the header is continued elsewhere
        group.attrs["name"] = "first"
    assert opened(tmp_path / "x.h5").aliases == {"first/kernel": "layers/dense/vars/0"}


def test_what_is_not_in_the_file_is_named_and_not_followed(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(3)
    (tmp_path / "raw").write_bytes(bytes(24))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["own"] = np.ones(2)
        file["linked_out"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
        file["loop"] = h5py.SoftLink("/loop")
        file["group/up"] = h5py.SoftLink("/")
        file["group/again"] = file["/"]
        file["twice"] = file["own"]
        layout = h5py.VirtualLayout((3,), np.float64)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (3,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (3,), np.float64, external=[(str(tmp_path / "raw"), 0, 24)])
        file["own_reference"] = np.array([file["own"].ref], h5py.ref_dtype)
        file["pairs"] = np.zeros(2, [("a", "f4"), ("b", "i4")])
        file["opaque"] = np.zeros(2, "V3")
        file["void"] = np.zeros(2, "V2")
        file["null"] = h5py.Empty("f4")
        file["lists"] = np.array([np.zeros(2), np.zeros(3)], h5py.vlen_dtype(np.float64))
        file.create_dataset("grown_texts", data=["a"], maxshape=(None,), dtype=h5py.string_dtype())
    source = opened(tmp_path / "x.h5")
    problems = {name: info.problem for name, info in source.tensors.items() if info.problem}
    assert set(source.tensors) - set(problems) == {"own", "twice"}
    assert "other.h5" in problems["linked_out"] and "not followed" in problems["loop"]
    assert set(problems) == {
        "linked_out", "loop", "group/up", "virtual", "raw", "own_reference", "pairs", "opaque", "void", "null",
        "lists", "grown_texts",
    }  # fmt: skip
    for name in problems:
        with pytest.raises(InvalidArgumentError, match=f"Cannot read '{name}'"):
            source.read(name)
    source.close()


def test_absurd_claims_and_unknown_filters(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("unwritten", (1 << 40,), np.float64)
        file.create_dataset("chunked", (1 << 40,), np.float64, chunks=(1 << 10,), compression="gzip")
        file.create_dataset("one_chunk", (4,), np.float64, maxshape=(None,), chunks=(1 << 27,), compression="gzip")
        file.create_dataset("fine", (1 << 10,), np.float64)
    source = opened(tmp_path / "x.h5")
    problems = {name for name, info in source.tensors.items() if "claims" in info.problem}
    assert problems == {"unwritten", "chunked", "one_chunk"}
    np.testing.assert_array_equal(source.read("fine"), np.zeros(1 << 10))
    source.close()
    with h5py.File(tmp_path / "y.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((4,))
        plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(file.id, b"odd", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), plan)
    assert "filter 32015" in opened(tmp_path / "y.h5").tensors["odd"].problem


def test_a_chunk_that_unpacks_to_more_than_it_should(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, size in (("bomb", 1 << 27), ("fine", 1 << 20)):
            dataset = file.create_dataset(name, (1 << 17,), np.float64, chunks=(1 << 17,), compression="gzip")
            data = np.random.default_rng(0).bytes(1 << 19) + bytes(size - (1 << 19))
            dataset.id.write_direct_chunk((0,), zlib.compress(data, 1))
    source = opened(tmp_path / "x.h5")
    assert source.read("fine")[-1] == 0
    with pytest.raises(DataLossError, match="a chunk of 1048576 bytes unpacks to more"):
        source.read("bomb")
    source.close()


def test_larger_values(tmp_path):
    values = np.arange(1 << 19, dtype=np.int64)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["plain"] = values
        file.create_dataset("zipped", data=values[: 1 << 18], chunks=(1 << 17,), compression="gzip", shuffle=True)
    weights = (tmp_path / "x.h5").read_bytes()
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        keras_archive(tmp_path / f"{kind}.keras", weights, {}, compression=kind)
    for path in tmp_path.iterdir():
        read = read_all(path)
        np.testing.assert_array_equal(read["plain"], values)
        np.testing.assert_array_equal(read["zipped"], values[: 1 << 18])


def test_a_reader_that_nobody_closed(tmp_path):
    path = legacy(tmp_path / "x.h5", {"a": {"w": np.ones(3, np.float32)}})
    source = opened(path)
    results = []
    threads = [threading.Thread(target=lambda: results.append(source.read("w").sum())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3.0] * 8
    code = (
        "import sys; from jaxvars.checkpoint.formats.hdf5 import Hdf5Source; s = Hdf5Source(sys.argv[1]); s.read('w')"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_file_and_no_h5py(tmp_path, monkeypatch):
    with pytest.raises(NotFoundError):
        opened(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5 at all" * 100)
    with pytest.raises(DataLossError, match="no HDF5 file"):
        opened(tmp_path / "text.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UnavailableError, match=r'pip install "jaxvars\[legacy\]"'):
        opened(GOLDEN / "keras2_weights.h5")


def test_a_file_that_is_exchanged_between_listing_and_reading(tmp_path):
    path = legacy(tmp_path / "x.h5", {"a": {"w": np.ones(3, np.float32)}})
    source = opened(path)
    path.write_bytes(b"")
    with pytest.raises(DataLossError):
        source.read("w")


# Archives


def test_a_compressed_archive(tmp_path, golden_config):
    weights = (GOLDEN / "keras3.weights.h5").read_bytes()
    path = keras_archive(tmp_path / "m.keras", weights, golden_config, compression=zipfile.ZIP_DEFLATED)
    stored, packed = read_all(GOLDEN / "keras3.keras"), read_all(path)
    assert stored.keys() == packed.keys()
    for name, value in stored.items():
        np.testing.assert_array_equal(value, packed[name])


def test_a_flipped_bit_in_an_archive_shows_in_its_checksum(tmp_path):
    data = bytearray((GOLDEN / "keras3.keras").read_bytes())
    with zipfile.ZipFile(GOLDEN / "keras3.keras") as archive:
        start = archive.getinfo("model.weights.h5").header_offset
    data[start + 20_000] ^= 1
    (tmp_path / "m.keras").write_bytes(data)
    with pytest.raises(DataLossError, match=r"model\.weights\.h5 does not match its checksum"):
        opened(tmp_path / "m.keras")


def test_archives_without_weights_and_with_odd_configurations(tmp_path):
    weights = (GOLDEN / "keras3.weights.h5").read_bytes()
    with zipfile.ZipFile(tmp_path / "none.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(InvalidArgumentError, match=r"holds no model\.weights\.h5"):
        opened(tmp_path / "none.keras")
    for config in (b"\xff\xfe", "[" * 100_000, '{"class_name": "Lambda", "config": {"code": "gASV"}}'):
        read_all(keras_archive(tmp_path / "odd.keras", weights, config))
    with pytest.raises(DataLossError):
        opened(keras_archive(tmp_path / "text.keras", b"no HDF5", {}))


def test_an_archive_that_unpacks_to_more_than_it_can_hold(tmp_path):
    path = keras_archive(tmp_path / "m.keras", bytes(1 << 20), {}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (1 << 31).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(DataLossError, match="claims 2147483648 bytes out of"):
            opened(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


# Damage


def test_strings_whose_heap_has_no_end(tmp_path):
    """A chain of lengths that stands still: libhdf5 would follow it for ever."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["first", "second"]
        file["texts"] = ["x" * 10] * 3
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL")
    data[start + 16 : start + 32] = bytes(16)
    path.write_bytes(data)
    with pytest.raises(DataLossError, match="strings at byte"):
        read_all(path)


@pytest.mark.parametrize("where", ["attribute", "dataset"])
def test_a_string_that_claims_more_than_the_file_holds(tmp_path, where):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["texts"] = ["a string of 23 letters."]
        file.attrs["layer_names"] = ["a string of 21 letter"]
    data = bytearray(path.read_bytes())
    length = {"attribute": 21, "dataset": 23}[where]
    heap = data.index(b"GCOL").to_bytes(8, "little")
    at = data.index(length.to_bytes(4, "little") + heap)
    data[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataLossError, match=r"strings are larger|not where it should be"):
        read_all(path)


def test_many_strings_in_one_place(tmp_path):
    """A thousand references to one large string: more than the file, and more than is allowed."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["texts"] = ["x" * (1 << 18), *["y" * 9] * 999]
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        start = file["texts"].id.get_offset()
    data[start : start + 16_000] = data[start : start + 16] * 1000
    path.write_bytes(data)
    with pytest.raises(DataLossError, match="larger than the file can hold"):
        read_all(path)


def survives(path):
    """Read a damaged file: either values or one of our errors."""
    try:
        read_all(path)
    except JaxvarsError:
        return False
    return True


def peak_memory():
    """The most bytes this process ever had, 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def damaged(data, seed):
    choice = random.Random(seed)
    octets = bytearray(data)
    if choice.random() < 0.15:
        return octets[: choice.randrange(len(octets))]
    used = [at for at, octet in enumerate(data) if octet]
    for _ in range(choice.choice([1, 1, 1, 3])):
        at = min(len(octets) - 1, max(0, choice.choice(used) + choice.randrange(-3, 4)))
        octets[at] = choice.choice([0, 255, choice.randrange(256), octets[at] ^ (1 << choice.randrange(8))])
    return octets


FILES = ["keras2_model.h5", "keras2_weights.h5", "keras3.weights.h5", "keras3.keras"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("seeds", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_files(tmp_path, file, seeds):
    data = (GOLDEN / file).read_bytes()
    path = tmp_path / file
    before, read = peak_memory(), 0
    for seed in range(seeds):
        path.write_bytes(damaged(data, seed))
        read += survives(path)
    assert read < seeds
    assert peak_memory() - before < 1 << 28


@pytest.mark.slow
def test_damaged_files_of_other_kinds(tmp_path):
    for kinds in ({}, {"libver": "latest"}):
        with h5py.File(tmp_path / "x.h5", "w", **kinds) as file:
            for name, value in VALUES.items():
                file[name] = value
            file.create_dataset("z", data=np.arange(600.0), chunks=(70,), compression="gzip", shuffle=True)
            file["texts"] = ["a", "bb", "ccc"]
            file.attrs["layer_names"] = [f"layer{number}" for number in range(30)]
        data = (tmp_path / "x.h5").read_bytes()
        for seed in range(500):
            (tmp_path / "y.h5").write_bytes(damaged(data, seed))
            survives(tmp_path / "y.h5")


@pytest.mark.parametrize("file", FILES)
def test_cut_short_at_any_length(tmp_path, file):
    data = (GOLDEN / file).read_bytes()
    path = tmp_path / file
    for size in [*range(0, len(data), len(data) // 60), len(data) - 1]:
        path.write_bytes(data[:size])
        assert not survives(path)

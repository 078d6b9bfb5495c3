"""safetensors files, one by one and sharded: ours, the library's, and those that nobody should have written."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from file_formats import (
    NAMES,
    STEPS,
    check_replacement,
    check_round_trip,
    damage,
    everything,
    filled,
    in_little_memory,
    noted,
    same,
    states,
    variable,
)
from hypothesis import given

from jaxvars.checkpoint.formats import safetensors_header
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.checkpoint.formats.safetensors import SafetensorsSource, save_safetensors
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError
from jaxvars.spec import VariableSpec

LIBRARY_READS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
                 "float16", "float32", "float64", "complex64", ml_dtypes.bfloat16)  # fmt: skip
LIBRARY_WRITES = (*LIBRARY_READS, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
                  ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float8_e8m0fnu)  # fmt: skip


def raw(header, values=b"", size=None):
    """A file with an arbitrary header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + values


def tensor(kind="F32", shape=(2,), start=0, end=8):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}


def written(folder, data, name="m.safetensors"):
    (folder / name).write_bytes(data)
    return str(folder / name)


def arrays(dtypes):
    names = [f"{np.dtype(dtype).name}/{number}" for number, dtype in enumerate(dtypes)]
    return {name: filled(dtype, (number % 3, 2) if number % 4 else (), number)
            for number, (name, dtype) in enumerate(zip(names, dtypes, strict=True))}  # fmt: skip


# Round trips


@given(states(LIBRARY_WRITES, without=["__metadata__"]))
def test_whatever_is_saved_comes_back(values):
    check_round_trip(save_safetensors, SafetensorsSource, values)


def test_specs_come_back(tmp_path):
    items = noted()
    save_safetensors(items, str(tmp_path / "m"))
    source = SafetensorsSource(str(tmp_path / "m"))
    for item, (name, spec) in zip(items, source.specs.items(), strict=True):
        same(source.read(name), item.array())
        notes = [(s.placement, s.file_dtype, s.partition) for s in (spec, item.spec)]
        assert spec == item.spec and notes[0] == notes[1]
    assert source.tensors["step"].dtype == np.int64  # as in the file it came from
    assert source.tensors["rng"].type_name == "key<fry>" and source.tensors["rng"].shape == (3, 2)


def test_the_library_reads_what_we_write(tmp_path):
    values = {**arrays(LIBRARY_READS), **{name: np.arange(3.0) for name in NAMES}}
    path = str(tmp_path / "m.safetensors")
    save_safetensors([variable(name, value) for name, value in values.items()], path)
    for name, found in safetensors.numpy.load_file(path).items():
        same(found, values.pop(name))
    assert not values
    with safetensors.safe_open(path, framework="np") as file:
        assert file.get_tensor("é 漢\n")[2] == 2 and file.metadata()["written_by"] == "jaxvars"


def test_we_read_what_the_library_writes(tmp_path):
    values = arrays(LIBRARY_WRITES)
    path = str(tmp_path / "m.safetensors")
    safetensors.numpy.save_file(values, path, metadata={"format": "np"})
    source = SafetensorsSource(path)
    assert source.format == "safetensors" and source.path == path and source.specs is None
    assert source.tensors.keys() == values.keys()
    for name, value in values.items():
        same(source.read(name), value)
        assert source.tensors[name].type_name == value.dtype.name
    assert dict.fromkeys(name for name, _ in source.read_many(values)) == dict.fromkeys(source.tensors)


def test_values_are_aligned_and_laid_out_as_the_library_does(tmp_path):
    values = arrays(LIBRARY_READS)
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    save_safetensors([variable(name, value) for name, value in values.items()], ours)
    safetensors.numpy.save_file(values, theirs)
    with open(ours, "rb") as one, open(theirs, "rb") as other:
        data, library = one.read(), other.read()
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0 and len(data) - size == len(library) - int.from_bytes(library[:8], "little")
    header = safetensors_header.parse_json(data[8 : 8 + size], "")
    assert all(header[name]["data_offsets"][0] % value.dtype.itemsize == 0 for name, value in values.items())


def test_small_and_large_values_come_from_any_thread(tmp_path):
    sizes = [1, 30_000, 200_000, 2, 100_000, 40_000, 7, 300_000] * 5
    values = {f"v{number}": filled("uint8", size, number) for number, size in enumerate(sizes)}
    path = str(tmp_path / "m")
    save_safetensors([variable(name, value) for name, value in values.items()], path)
    source = SafetensorsSource(path)
    found = dict(source.read_many(values))
    for name, value in values.items():
        same(found[name], value)
        assert not any(np.shares_memory(found[name], found[other]) for other in ("v0", "v2") if other != name)
    with ThreadPoolExecutor(4) as pool:
        for name, value in zip(values, pool.map(source.read, values), strict=True):
            same(value, values[name])
    assert [name for name, _ in source.read_many(["v3", "v3"])] == ["v3"]


def test_nothing_at_all_is_a_file_too(tmp_path):
    save_safetensors([], str(tmp_path / "m"))
    assert everything(SafetensorsSource, str(tmp_path / "m")) == ({}, [])
    assert safetensors.numpy.load_file(tmp_path / "m") == {}
    assert SafetensorsSource(written(tmp_path, raw({}))).tensors == {}


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Outgoing(VariableSpec("x", (1,), object), np.array([b"s"], object)), "cannot hold strings: x"),
        (variable("x", np.zeros(2, complex)), r"no type for x \(complex128\).*format=\"orbax\""),
        (variable("x", np.zeros(2, ml_dtypes.int4)), r"no type for x \(int4\)"),
        (variable("__metadata__", np.zeros(2)), "cannot hold a variable of the name '__metadata__'"),
        (variable("half\ud800", np.zeros(2)), "no Unicode text"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, item, text):
    with pytest.raises(InvalidArgumentError, match=text):
        save_safetensors([variable("fine", np.zeros(2)), item], str(tmp_path / "m"))
    assert not os.listdir(tmp_path)


def test_a_header_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    from jaxvars.checkpoint.formats import safetensors as module

    monkeypatch.setattr(module, "LARGEST_HEADER", 1000)
    with pytest.raises(InvalidArgumentError, match="20 variables need"):
        save_safetensors([variable(f"v{n}", np.zeros(1)) for n in range(20)], str(tmp_path / "m"))


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    check_replacement(save_safetensors, SafetensorsSource, tmp_path)


# Damage


@pytest.mark.parametrize("step", STEPS)
def test_flipped_bits_are_detected_or_harmless(tmp_path, step):
    path = str(tmp_path / "m")
    save_safetensors(noted(), path)
    assert damage(SafetensorsSource, path, step) < 0.04


@pytest.mark.parametrize("ours", [True, False])
def test_every_truncation_raises(tmp_path, ours):
    path = str(tmp_path / "m")
    values = {"w": np.arange(4.0), "b": np.ones(3, np.int8)}
    if ours:
        save_safetensors([variable(name, value) for name, value in values.items()], path)
    else:
        safetensors.numpy.save_file(values, path)
    for size in reversed(range(os.path.getsize(path))):
        os.truncate(path, size)
        with pytest.raises(DataLossError, match=r"damaged|cut short"):
            SafetensorsSource(path)


def test_a_file_that_becomes_shorter_raises(tmp_path):
    path = str(tmp_path / "m")
    save_safetensors([variable("w", np.arange(400_000.0)), variable("b", np.arange(4.0))], path)
    source = SafetensorsSource(path)
    os.truncate(path, os.path.getsize(path) - 100_000)
    with pytest.raises(DataLossError, match="became shorter"):
        dict(source.read_many(["b", "w"]))


HUGE = 1 << 40
HOSTILE = {
    "huge header": raw(b"", size=1 << 63),
    "header beyond the file": raw({}, size=99_999_999),
    "header beyond the limit": raw({}, size=100_000_001),
    "no header": raw(b""),
    "no JSON": raw(b"\xff" * 8),
    "no object": raw(b"[1, 2]  "),
    "more than an object": raw(b"{} {}"),
    "deep nesting": raw(b'{"a":' * 50_000),
    "deep lists": raw(b'{"a":' + b"[" * 50_000),
    "endless number": raw(b'{"a":' + b"9" * 50_000 + b"}"),
    "a name twice": raw(b'{"a":%s,"a":%s}' % ((json.dumps(tensor()).encode(),) * 2), bytes(8)),
    "a key twice": raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "half a surrogate pair": raw(b'{"\\ud800":{}}'),
    "metadata of numbers": raw({"__metadata__": {"a": 1}}),
    "metadata of lists": raw({"__metadata__": []}),
    "tensor of a number": raw({"x": 1}),
    "tensor without place": raw({"x": {"dtype": "F32", "shape": []}}),
    "three offsets": raw({"x": {**tensor(), "data_offsets": [0, 8, 8]}}, bytes(8)),
    "dtype of a list": raw({"x": tensor(kind=[])}, bytes(8)),
    "shape of a number": raw({"x": {**tensor(), "shape": 2}}, bytes(8)),
    "shape of truths": raw({"x": tensor(shape=[True, 2])}, bytes(8)),
    "shape of fractions": raw({"x": tensor(shape=[2.0])}, bytes(8)),
    "shape of texts": raw({"x": tensor(shape=["2"])}, bytes(8)),
    "negative shape": raw({"x": tensor(shape=[-1, -2])}, bytes(8)),
    "huge shape": raw({"x": tensor(shape=[HUGE], end=4 * HUGE)}, bytes(8)),
    "shape and place disagree": raw({"x": tensor(shape=[HUGE])}, bytes(8)),
    "absurd shape of nothing": raw({"x": tensor(shape=[0, 1 << 62], end=0)}),
    "too many dimensions": raw({"x": tensor(shape=[1] * 65, end=4)}, bytes(4)),
    "offsets of truths": raw({"x": tensor("U8", [1], False, True)}, bytes(1)),
    "offsets backwards": raw({"x": tensor(start=8, end=0)}, bytes(8)),
    "negative offset": raw({"x": tensor(start=-8, end=0)}, bytes(8)),
    "hole": raw({"x": tensor(start=4, end=12)}, bytes(12)),
    "hole between": raw({"x": tensor(), "y": tensor(start=12, end=20)}, bytes(20)),
    "overlap": raw({"x": tensor(), "y": tensor(start=4, end=12)}, bytes(12)),
    "the same place twice": raw({"x": tensor(), "y": tensor()}, bytes(8)),
    "more bytes than tensors": raw({"x": tensor()}, bytes(9)),
    "our mark without a record": raw({"__metadata__": {"written_by": "jaxvars"}}),
    "a record that is no record": raw({"__metadata__": {"jaxvars": "[]"}}),
    "a record that is no JSON": raw({"__metadata__": {"jaxvars": "["}}),
    "a record of nesting": raw({"__metadata__": {"jaxvars": '{"jaxvars":' * 5000}}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_raise_our_error_in_little_memory(tmp_path, kind):
    path = written(tmp_path, HOSTILE[kind])
    error = in_little_memory(lambda: SafetensorsSource(path))
    assert isinstance(error, DataLossError) and path in str(error) and len(str(error)) < 500


def test_a_long_header_is_not_read(tmp_path):
    path = written(tmp_path, raw({}, size=150_000_000))
    os.truncate(path, 200_000_000)  # takes no room on the disk
    assert "allows 100000000" in str(in_little_memory(lambda: SafetensorsSource(path)))


def test_a_boolean_is_0_or_1(tmp_path):
    source = SafetensorsSource(written(tmp_path, raw({"x": tensor("BOOL", [2], 0, 2)}, b"\1\2")))
    with pytest.raises(DataLossError, match=r"'x'.*boolean"):
        source.read("x")


def test_types_without_arrays_are_listed_and_refused_by_name(tmp_path):
    header = {"x": tensor("F6_E2M3", [4], 0, 3), "y": tensor("F32", [1], 3, 7)}
    source = SafetensorsSource(written(tmp_path, raw(header, bytes(7))))
    assert source.tensors["x"].shape == (4,) and "F6_E2M3" in source.tensors["x"].problem
    with pytest.raises(InvalidArgumentError, match=r"'x'.*F6_E2M3"):
        source.read("x")
    same(source.read("y"), np.zeros(1, np.float32))  # its place is odd, its array is aligned
    assert source.read("y").flags.aligned


# Records


def test_a_changed_value_is_named(tmp_path):
    path = str(tmp_path / "m")
    save_safetensors([variable("w", np.full(3, 1.25)), variable("b", np.zeros(3))], path)
    with open(path, "rb") as file:
        data = file.read()
    written(tmp_path, data.replace(np.float64(1.25).tobytes(), np.float64(1.5).tobytes(), 1), "m")
    source = SafetensorsSource(path)
    same(source.read("b"), np.zeros(3))
    with pytest.raises(DataLossError, match="values of 'w' do not match their checksum"):
        source.read("w")


def test_other_programs_may_change_our_files_without_the_record(tmp_path):
    path = str(tmp_path / "m")
    save_safetensors([variable("w", np.zeros(3)), variable("b", np.zeros(3))], path)
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    changed = {"w": np.ones(4), "c": np.ones(2)}
    safetensors.numpy.save_file(changed, path, metadata=metadata)
    with pytest.raises(DataLossError, match=r"another program changed it.*: b, c, w\."):
        SafetensorsSource(path)
    safetensors.numpy.save_file(changed, path)
    assert SafetensorsSource(path).specs is None
    record = json.loads(metadata["jaxvars"])
    record["jaxvars"]["version"] = 99
    safetensors.numpy.save_file(changed, path, metadata={"jaxvars": json.dumps(record)})
    with pytest.raises(InvalidArgumentError, match="newer jaxvars"):
        SafetensorsSource(path)


@pytest.mark.parametrize("field", ["shape", "dtype", "crc32c", "trainable", "collections", "placement", "file_dtype",
                                   "partition", "at"])  # fmt: skip
@pytest.mark.parametrize("junk", [None, -1, [], {}, "", "x", [[]], [-1], ["x"], [1e400], 1e400, "object", [[2]], True])
def test_records_that_somebody_made_up_raise_our_error(tmp_path, field, junk):
    variables = {"w": {"shape": [2], "dtype": "float32", "crc32c": crc32c(bytes(8)), field: junk}}
    record = {"version": 2, "crc32c": crc32c(json.dumps(variables, separators=(",", ":")).encode())}
    text = json.dumps({"jaxvars": {**record, "variables": variables}})
    path = written(tmp_path, raw({"__metadata__": {"jaxvars": text}, "w": tensor()}, bytes(8)))
    try:
        tensors, _ = everything(SafetensorsSource, path)
    except DataLossError as error:
        assert path in str(error)
    else:
        assert field not in ("shape", "dtype") and tensors["w"][3] == bytes(8)


# Shards


def shards(folder, index=None):
    """Two shards and their index."""
    values = {"a": np.arange(3.0), "b": np.ones(2, np.float32), "c": np.zeros((2, 2), np.int16)}
    safetensors.numpy.save_file({"a": values["a"], "b": values["b"]}, folder / "m-1.safetensors")
    safetensors.numpy.save_file({"c": values["c"], "unlisted": np.zeros(1)}, folder / "m-2.safetensors")
    names = {"a": "m-1.safetensors", "c": "m-2.safetensors", "b": "m-1.safetensors", **(index or {})}
    text = json.dumps({"metadata": {"total_size": 40}, "weight_map": names}, indent=2)
    return written(folder, text.encode(), "m.safetensors.index.json"), values


def test_shards_are_one_checkpoint(tmp_path, monkeypatch):
    path, values = shards(tmp_path)
    for place in (path, "m.safetensors.index.json"):
        monkeypatch.chdir(tmp_path)
        source = SafetensorsSource(place)
        assert source.path == place and source.specs is None and source.tensors.keys() == values.keys()
        for name, found in source.read_many(values):
            same(found, values[name])
        source.close()


@pytest.mark.parametrize("kind", ["missing", "pipe", "folder"])
def test_a_missing_shard_matters_only_for_its_tensors(tmp_path, kind):
    path, values = shards(tmp_path)
    shard = tmp_path / "m-2.safetensors"
    shard.unlink()
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            return
        os.mkfifo(shard)
    elif kind == "folder":
        shard.mkdir()
    source = SafetensorsSource(path)
    assert [name for name, info in source.tensors.items() if info.problem] == ["c"]
    same(source.read("b"), values["b"])
    with pytest.raises(NotFoundError, match=r"'c'.*m-2\.safetensors does not exist"):
        source.read("c")


def test_a_link_in_the_folder_is_followed(tmp_path):
    path, values = shards(tmp_path)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "m-2.safetensors").rename(tmp_path / "blobs" / "0123")
    (tmp_path / "m-2.safetensors").symlink_to(tmp_path / "blobs" / "0123")
    same(SafetensorsSource(path).read("c"), values["c"])


@pytest.mark.parametrize(
    "name", ["../m-1.safetensors", "/etc/passwd", "sub/m.safetensors", "..", ".", "", "c:x", "a\\b", "a\0b"]
)
def test_an_index_names_only_files_of_its_folder(tmp_path, name):
    path, _ = shards(tmp_path, {"evil": name})
    with pytest.raises(InvalidArgumentError, match="own folder"):
        SafetensorsSource(path)


def test_an_index_that_does_not_fit_is_damaged(tmp_path):
    path, _ = shards(tmp_path, {"d": "m-2.safetensors"})
    with pytest.raises(DataLossError, match=r"'d' is in .*m-2\.safetensors, and it is not there"):
        SafetensorsSource(path)
    path, _ = shards(tmp_path)
    for text in ("{", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map":' * 9999):
        written(tmp_path, text.encode().ljust(20), "m.safetensors.index.json")
        with pytest.raises(DataLossError, match="index"):
            SafetensorsSource(path)
    with pytest.raises(NotFoundError, match="does not exist"):
        SafetensorsSource(str(tmp_path / "absent"))


def test_a_damaged_shard_is_named(tmp_path):
    path, _ = shards(tmp_path)
    os.truncate(tmp_path / "m-2.safetensors", os.path.getsize(tmp_path / "m-2.safetensors") - 1)
    with pytest.raises(DataLossError, match=r"m-2\.safetensors is cut short"):
        SafetensorsSource(path)


def test_both_of_numpys_classes_of_one_integer_are_written(tmp_path) -> None:
    twins = {"a": np.ones(2, np.longlong), "b": np.ones(2, np.int64), "c": np.ones(2, np.ulonglong)}
    specs = [VariableSpec(name, array.shape, array.dtype) for name, array in twins.items()]
    save_safetensors([Outgoing(spec, twins[spec.key]) for spec in specs], str(tmp_path / "m"))
    assert [info.type_name for _, info in sorted(SafetensorsSource(str(tmp_path / "m")).tensors.items())] == [
        "int64",
        "int64",
        "uint64",
    ]

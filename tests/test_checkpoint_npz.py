""".npz files: ours, NumPy's of any age, other writers', and those that nobody should have written."""

import io
import os
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest
from file_formats import (
    NAMES,
    NATIVE,
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

from jaxvars.checkpoint.formats.npz import RECORD_NAME, NpzSource, save_npz
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError
from jaxvars.spec import VariableSpec

FOREIGN = (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4)


def npy(value, descr=None, text=None, version=1):
    """The bytes of a .npy array, with an arbitrary header."""
    descr = descr or value.dtype.str
    text = text or f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {value.shape}, }}"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + value.tobytes()


def archive(path, entries):
    """Write a zip file entry by entry: (name, content, {fields of its headers that are to lie})."""
    data, directory = b"", b""
    for name, content, lies in entries:
        fields = {"flags": 0x800, "method": 0, "crc": zlib.crc32(content), "size": len(content), "local": name}
        packed = content
        if lies.get("method") == 8:
            deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = deflate.compress(content) + deflate.flush() + lies.get("tail", b"")
        fields |= {"packed": len(packed), "offset": len(data)} | lies
        numbers = [fields["flags"], fields["method"], 0, 0, fields["crc"], fields["packed"], fields["size"]]
        local, central = fields["local"].encode(), name.encode()
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *numbers, len(central), 0, 0, 0, 0, 0,
                                 fields["offset"]) + central  # fmt: skip
        data += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *numbers, len(local), 0) + local + packed
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(data), 0)
    with open(path, "wb") as file:
        file.write(data + directory + end)
    return str(path)


# Round trips


@given(states((*NATIVE, *FOREIGN)))
def test_whatever_is_saved_comes_back(values):
    check_round_trip(save_npz, NpzSource, values)


def test_specs_come_back(tmp_path):
    items = noted()
    save_npz(items, str(tmp_path / "m"))
    source = NpzSource(str(tmp_path / "m"))
    for item, (name, spec) in zip(items, source.specs.items(), strict=True):
        same(source.read(name), item.array())
        notes = [(s.placement, s.file_dtype, s.partition) for s in (spec, item.spec)]
        assert spec == item.spec and notes[0] == notes[1]
    assert source.tensors["step"].dtype == np.int64  # as in the file it came from
    assert source.tensors["rng"].type_name == "key<fry>" and source.tensors["rng"].shape == (3, 2)
    assert source.tensors["h"].type_name == "bfloat16"


def test_numpy_reads_what_we_write(tmp_path):
    names = [name for name in NAMES if "\0" not in name and name != "a.npy"]  # NumPy takes "a.npy" for "a"
    values = {**{name: np.arange(3.0) for name in names}, "h": np.ones(2, ml_dtypes.bfloat16), "s": np.array(True)}
    path = str(tmp_path / "m.npz")
    save_npz([variable(name, value) for name, value in values.items()], path)
    with np.load(path) as file:
        assert set(file.files) == {*values, RECORD_NAME}
        same(file["h"].view(ml_dtypes.bfloat16), values["h"])
        for name in (*names, "s"):
            same(file[name], values[name])
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_we_read_what_numpy_writes(tmp_path, save):
    values = {f"{dtype}/{number}": filled(dtype, (3, 2, 4), number) for number, dtype in enumerate(NATIVE)}
    values |= {"é/漢": np.zeros((0, 3)), "scalar": np.array(3, np.int16), "large": np.arange(300_000)}
    turned = {
        **values,
        "big": np.arange(6, dtype=">i4").reshape(2, 3),
        "fortran": np.asfortranarray(values["float32/10"]),
        "both": np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
    }
    path = str(tmp_path / "m.npz")
    save(path, **turned)
    source = NpzSource(path)
    assert source.format == "npz" and source.path == path and source.specs is None
    assert source.tensors.keys() == turned.keys()
    for name, value in turned.items():
        native = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("="))
        native = native.reshape(value.shape)
        info = source.tensors[name]
        assert (info.shape, info.dtype, info.type_name) == (native.shape, native.dtype, native.dtype.name)
        same(source.read(name), native)
    found = dict(source.read_many(turned))
    assert found.keys() == turned.keys() and found["large"].flags.aligned
    assert not np.shares_memory(found["scalar"], found["é/漢"])
    source.close()


def test_names_are_names_and_never_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {name: np.full(2, float(number)) for number, name in enumerate(NAMES)}
    save_npz([variable(name, value) for name, value in values.items()], "m")
    source = NpzSource("m")
    for name, value in values.items():
        same(source.read(name), value)
    assert os.listdir(tmp_path) == ["m"] and os.listdir() == ["m"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3L,), }", ""),  # Python 2
        ("{'descr':'<f4','fortran_order':False,'shape':(3,)}", ""),
        ("{ \"shape\" : ( 3 , ) , 'fortran_order' : False,\n 'descr' : \"<f4\" }  \n", ""),
        ("{'descr': '=f4', 'fortran_order': True, 'shape': (3), }", ""),
        ("{'descr': '<V2', 'fortran_order': False, 'shape': (6,), }", "bfloat16"),
        ("{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }", "<U3"),
        ("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }", "M8"),
        ("{'descr': '<f16', 'fortran_order': False, 'shape': (1,), }", "f16"),
        ("{'descr': [('a', '<f4'), ('b', '<i4', (2,))], 'fortran_order': False, 'shape': (1,), }", "structured"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", "pickle"),
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_all_writers_are_understood(tmp_path, text, problem, version):
    value = np.arange(3, dtype=np.float32)
    path = archive(tmp_path / "m", [("x.npy", npy(value, text=text, version=version), {}), ("y.npy", npy(value), {})])
    source = NpzSource(path)
    assert problem in source.tensors["x"].problem and bool(problem) == bool(source.tensors["x"].problem)
    if problem:
        with pytest.raises(InvalidArgumentError, match="'x'") as caught:
            source.read("x")
        assert problem in str(caught.value)
    else:
        same(source.read("x"), value)
        assert source.read("x").flags.aligned
    same(source.read("y"), value)


def test_pickles_are_never_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "loaded"),)

    path = str(tmp_path / "m.npz")
    np.savez(path, x=np.array([Evil()], object), y=np.zeros(2), text=np.array(["a"]), half=np.ones(2, FOREIGN[0]))
    source = NpzSource(path)
    assert {name for name, info in source.tensors.items() if info.problem} == {"x", "text", "half"}
    for name in ("x", "half"):
        with pytest.raises(InvalidArgumentError, match=rf"'{name}'"):
            source.read(name)
    same(source.read("y"), np.zeros(2))
    assert os.listdir(tmp_path) == ["m.npz"]


def test_other_entries_are_left_out(tmp_path):
    path = archive(tmp_path / "m", [("x.npy", npy(np.zeros(2)), {}), ("README", b"text", {}), ("folder/", b"", {})])
    assert list(NpzSource(path).tensors) == ["x"]


def test_an_archive_may_have_something_before_it_and_a_comment(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, x=np.arange(3.0))
    path.write_bytes(b"#!/bin/sh\n" * 9 + path.read_bytes())
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"why not"
    same(NpzSource(str(path)).read("x"), np.arange(3.0))


def test_64_bit_sizes_are_read_and_written(tmp_path, monkeypatch):
    from jaxvars.checkpoint.formats import npz

    monkeypatch.setattr(npz, "_LARGE", 1)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    path = str(tmp_path / "m")
    save_npz([variable("w", np.arange(50.0)), variable("b", np.zeros(2))], path)
    with open(path, "rb") as file:
        assert b"PK\6\6" in file.read()  # the end record of a large archive
    same(NpzSource(path).read("w"), np.arange(50.0))
    with np.load(path) as file:
        same(file["w"], np.arange(50.0))


def test_nothing_at_all_is_a_file_too(tmp_path):
    save_npz([], str(tmp_path / "m"))
    assert everything(NpzSource, str(tmp_path / "m")) == ({}, [])
    assert NpzSource(archive(tmp_path / "n", [])).tensors == {}


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Outgoing(VariableSpec("x", (1,), object), np.array([b"s"], object)), "cannot hold strings: x"),
        (variable("half\ud800", np.zeros(2)), "no Unicode text"),
        (variable("long" * 20_000, np.zeros(2)), "more than 65000 bytes: 'longlong"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, item, text):
    with pytest.raises(InvalidArgumentError, match=text):
        save_npz([variable("fine", np.zeros(2)), item], str(tmp_path / "m"))
    assert not os.listdir(tmp_path)


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    check_replacement(save_npz, NpzSource, tmp_path)


# Damage


@pytest.mark.parametrize("step", STEPS)
def test_flipped_bits_are_detected_or_harmless(tmp_path, step):
    path = str(tmp_path / "m")
    save_npz(noted(), path)
    assert damage(NpzSource, path, step) < 0.2


@pytest.mark.parametrize("step", STEPS)
def test_flipped_bits_of_a_compressed_file_are_detected_or_harmless(tmp_path, step):
    path = str(tmp_path / "m.npz")
    np.savez_compressed(path, w=np.arange(4, dtype=np.float32).reshape(2, 2), b=np.ones(3, np.int8))
    assert damage(NpzSource, path, step) < 0.4


@pytest.mark.parametrize("save", [save_npz, np.savez, np.savez_compressed])
def test_every_truncation_raises(tmp_path, save):
    path = str(tmp_path / "m.npz")
    if save is save_npz:
        save_npz([variable("w", np.arange(4.0))], path)
    else:
        save(path, w=np.arange(4.0))
    for size in reversed(range(os.path.getsize(path))):
        os.truncate(path, size)
        with pytest.raises(DataLossError, match=r"damaged|cut short"):
            everything(NpzSource, path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_becomes_shorter_raises(tmp_path, save):
    path = str(tmp_path / "m.npz")
    save(path, w=np.random.default_rng(0).normal(size=400_000))
    source = NpzSource(path)
    os.truncate(path, os.path.getsize(path) - 100_000)
    with pytest.raises(DataLossError, match="became shorter"):
        source.read("w")


SMALL = np.arange(3, dtype=np.float32)
HUGE = 1 << 40


def header(shape, descr="<f4"):
    return npy(SMALL, text=f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")


def bomb(**lies):
    """50 MB of zeros behind the header of a small array."""
    return npy(np.zeros(0, np.uint8), text="{'descr': '|u1', 'fortran_order': False, 'shape': (300,), }") + bytes(
        50_000_000
    ), {"method": 8, **lies}


HOSTILE = {
    "huge shape": (header((HUGE,)), {}),
    "absurd shape": (header((1 << 62, 1 << 62)), {}),
    "absurd shape of nothing": (header((0, 1 << 62)), {}),
    "endless number": (header("(" + "9" * 5000 + ",)"), {}),
    "two numbers in one": (header("(3 3,)"), {}),
    "negative shape": (header("(-3,)"), {}),
    "too many dimensions": (header((1,) * 65), {}),
    "code for a shape": (header("(__import__('os').mkdir('x'),)"), {}),
    "no dictionary": (npy(SMALL, text="3"), {}),
    "endless nesting": (npy(SMALL, text="{'descr': " + "[" * 9000 + "}"), {}),
    "long header": (npy(SMALL, text=" " * 60_000 + "{}"), {}),
    "no shape": (npy(SMALL, text="{'descr': '<f4', 'fortran_order': False}"), {}),
    "a field twice": (npy(SMALL, text="{'shape': (3,), 'shape': (3,), 'descr': '<f4', 'fortran_order': False}"), {}),
    "order of another kind": (npy(SMALL, text="{'descr': '<f4', 'fortran_order': '<f4', 'shape': (3,)}"), {}),
    "type of another kind": (npy(SMALL, text="{'descr': True, 'fortran_order': False, 'shape': (3,)}"), {}),
    "shape of another kind": (npy(SMALL, text="{'descr': '<f4', 'fortran_order': False, 'shape': '3'}"), {}),
    "header beyond the end": (npy(SMALL)[:20], {}),
    "newer version": (npy(SMALL, version=4), {}),
    "no array": (b"just some text, longer than a header", {}),
    "nothing": (b"", {}),
    "claims more than its bytes": (npy(SMALL), {"size": HUGE >> 10}),
    "ends outside": (npy(SMALL), {"size": HUGE >> 10, "packed": HUGE >> 10}),
    "begins outside": (npy(SMALL), {"offset": HUGE >> 10}),
    "begins elsewhere": (npy(SMALL), {"offset": 3}),
    "wrong checksum": (npy(SMALL), {"crc": 1}),
    "another name": (npy(SMALL), {"local": "y.npy"}),
    "claims more than deflate can do": (npy(SMALL), {"method": 8, "size": HUGE >> 10}),
    "unpacks to more": bomb(size=10_000),
    "unpacks to one more": (npy(SMALL) + b"x", {"method": 8, "size": len(npy(SMALL))}),
    "unpacks to less": (header((4,)), {"method": 8, "size": len(header((4,))) + 4}),
    "goes on after its end": (npy(SMALL), {"method": 8, "tail": b"more"}),
    "is not deflated": (npy(SMALL), {"method": 8, "packed": 20}),
    "a record that is no record": (b"[]", {"name": RECORD_NAME}),
    "a record that is no JSON": (b"\xff", {"name": RECORD_NAME}),
    "a record of nesting": (b'{"jaxvars":' * 5000, {"name": RECORD_NAME}),
    "a record that is encrypted": (b"{}", {"name": RECORD_NAME, "flags": 1}),
    "a record of something else": (b'{"jaxvars":{"version":1,"crc32c":0,"variables":{}}}', {"name": RECORD_NAME}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_raise_our_error_in_little_memory(tmp_path, kind):
    content, lies = HOSTILE[kind]
    lies = dict(lies)
    path = archive(tmp_path / "m", [(lies.pop("name", "x.npy"), content, lies)])
    del content
    error = in_little_memory(lambda: everything(NpzSource, path))
    assert isinstance(error, DataLossError) and path in str(error) and len(str(error)) < 500
    assert os.listdir(tmp_path) == ["m"]


def test_two_entries_of_one_name_are_refused(tmp_path):
    path = archive(tmp_path / "m", [("x.npy", npy(SMALL), {}), ("x.npy", npy(SMALL), {})])
    with pytest.raises(DataLossError, match="one name"):
        NpzSource(path)


@pytest.mark.parametrize(("lies", "text"), [({"flags": 1}, "encrypted"), ({"method": 12}, "method 12")])
def test_entries_that_cannot_be_unpacked_are_listed_and_refused_by_name(tmp_path, lies, text):
    path = archive(tmp_path / "m", [("x.npy", npy(SMALL), lies), ("y.npy", npy(SMALL), {})])
    source = NpzSource(path)
    assert text in source.tensors["x"].problem
    with pytest.raises(InvalidArgumentError, match=rf"'x'.*{text}"):
        source.read("x")
    same(source.read("y"), SMALL)


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"\x93NUMPY" * 100, b"PK\5\6" + b"\xff" * 18, b"PK\6\7" * 40])
def test_what_is_no_archive_is_refused(tmp_path, data):
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(DataLossError, match=r"damaged|no zip archive"):
        NpzSource(str(path))
    with pytest.raises(NotFoundError, match="does not exist"):
        NpzSource(str(tmp_path / "absent"))


def test_a_directory_that_claims_more_than_the_file_is_refused(tmp_path):
    path = tmp_path / "m"
    archive(path, [("x.npy", npy(SMALL), {})])
    data = path.read_bytes()
    path.write_bytes(data[:-10] + struct.pack("<L", 0xFFFFFFF0) + data[-6:])
    assert isinstance(in_little_memory(lambda: NpzSource(str(path))), DataLossError)


def test_a_changed_record_is_detected(tmp_path):
    path = str(tmp_path / "m.npz")
    save_npz([variable("w", SMALL), variable("b", SMALL)], path)
    with zipfile.ZipFile(path) as file:
        record = file.read(RECORD_NAME)
    stream = io.BytesIO()
    np.save(stream, SMALL)
    for text, error, match in (
        (record, DataLossError, r"another program changed it.*: b\."),
        (record.replace(b"float32", b"float16"), DataLossError, "checksum"),
    ):
        archive(path, [("w.npy", stream.getvalue(), {}), (RECORD_NAME, text, {})])
        with pytest.raises(error, match=match):
            NpzSource(path)

"""Files of flax.serialization: written by Flax, by hand, damaged and hostile."""

import random
import tracemalloc

import flax.serialization
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvars.checkpoint.formats.flax_msgpack import MsgpackSource, looks_like_msgpack
from jaxvars.errors import DataLossError, InvalidArgumentError, JaxvarsError, NotFoundError

TREE = {
    "params": {
        "dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)},
        "embed": {"embedding": np.arange(8, dtype=np.float16).reshape(4, 2)},
    },
    "opt_state": [{"mu": np.zeros((0, 3))}, {}, (np.int32(5), jnp.arange(3))],
    "step": 3,
    "rate": 0.25,
    "flags": np.array([True, False]),
    "done": True,
    "turn": 1 - 2j,
    "large": 2**63,
    "half": np.float16(0.5),
    "f8": np.ones(2, ml_dtypes.float8_e4m3fn),
    "label": "a name",
    "nothing": None,
}


def source_of(tmp_path, data, name="x.msgpack"):
    (tmp_path / name).write_bytes(data)
    return MsgpackSource(str(tmp_path / name))


def read_all(source):
    try:
        return dict(source.read_many(name for name, info in source.tensors.items() if not info.problem))
    finally:
        source.close()


def flat(tree, prefix=""):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from flat(value, f"{prefix}{key}/")
    else:
        yield prefix[:-1], tree


def assert_as_flax_reads_it(data, read):
    expected = dict(flat(flax.serialization.msgpack_restore(data)))
    assert {name for name, value in expected.items() if value is not None} == read.keys()
    for name, value in read.items():
        known = expected[name]
        if isinstance(known, str):
            assert value.dtype == object and value[()] == known.encode()
            continue
        known = np.asarray(known)
        assert (value.shape, value.dtype) == (known.shape, known.dtype)
        np.testing.assert_array_equal(value, known)


def test_everything_that_flax_writes(tmp_path):
    data = flax.serialization.to_bytes(TREE)
    source = source_of(tmp_path, data)
    assert source.format == "msgpack"
    assert source.tensors["params/dense/bias"].dtype == ml_dtypes.bfloat16
    assert source.tensors["opt_state/0/mu"].shape == (0, 3)
    assert source.tensors["opt_state/2/0"].type_name == "int32"
    assert source.tensors["nothing"].problem == "it is None"
    with pytest.raises(InvalidArgumentError, match="Cannot read 'nothing'"):
        source.read("nothing")
    one = source.read("params/dense/kernel")
    one[0, 0] = 9  # an array of its own
    assert source.read("params/dense/kernel")[0, 0] == 0
    assert_as_flax_reads_it(data, read_all(source))


def test_arrays_that_flax_cuts_into_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 40)
    tree = {"a": {"w": np.arange(60, dtype=np.float32).reshape(3, 4, 5)}, "b": jnp.arange(50).astype(jnp.bfloat16)}
    data = flax.serialization.to_bytes(tree)
    assert data.count(b"__msgpack_chunked_array__") == 2
    source = source_of(tmp_path, data)
    assert {name: info.shape for name, info in source.tensors.items()} == {"a/w": (3, 4, 5), "b": (50,)}
    assert_as_flax_reads_it(data, read_all(source))


def test_lists_and_keys_that_are_numbers(tmp_path):
    data = flax.serialization.msgpack_serialize({"a": [np.ones(2), {"b": 1}], "n": {7: 2.0, -1: 3, 300: 4}})
    read = read_all(source_of(tmp_path, data))
    assert read.keys() == {"a/0", "a/1/b", "n/7", "n/-1", "n/300"}
    np.testing.assert_array_equal(read["a/0"], np.ones(2))


def test_listing_and_single_tensors_read_little(tmp_path):
    big = np.arange(1 << 21, dtype=np.float64)
    data = flax.serialization.to_bytes({"big": big, "small": np.ones(3), "bigger": {"big": big}})
    path = tmp_path / "x.msgpack"
    path.write_bytes(data)
    del data
    tracemalloc.start()
    try:
        source = MsgpackSource(str(path))
        np.testing.assert_array_equal(source.read("small"), np.ones(3))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(source.read("bigger/big"), big)
    assert [name for name, _ in source.read_many(["bigger/big", "small", "big"])] == ["big", "small", "bigger/big"]
    source.close()


NUMBERS = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.booleans(), st.none())
DTYPES = st.sampled_from(["float32", "float64", "float16", "int8", "uint16", "int64", "bool", "complex64", "bfloat16"])
SHAPES = st.lists(st.integers(0, 4), max_size=3)
ARRAYS = st.builds(
    lambda shape, dtype: (np.arange(int(np.prod(shape))).reshape(shape) % 2).astype(np.dtype(dtype)), SHAPES, DTYPES
)
KEYS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=40)
TREES = st.dictionaries(
    KEYS,
    st.recursive(st.one_of(ARRAYS, NUMBERS, KEYS), lambda t: st.dictionaries(KEYS, t, max_size=4), max_leaves=8),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_any_tree(tmp_path_factory, tree):
    data = flax.serialization.msgpack_serialize(tree)
    assert_as_flax_reads_it(data, read_all(source_of(tmp_path_factory.mktemp("tree"), data)))


# What is no such file


@pytest.mark.parametrize(
    "tree", [{"a": {"b": 1}, "a/b": 2}, {"a": [1], "a/0": 2}, {"": {"": 1}, "/": 2}], ids=["dict", "list", "empty"]
)
def test_two_values_of_one_name(tmp_path, tree):
    with pytest.raises(InvalidArgumentError, match=r"(?s)two values that are both called.*from_nested"):
        source_of(tmp_path, flax.serialization.msgpack_serialize(tree))


def test_a_key_that_comes_twice(tmp_path):
    with pytest.raises(InvalidArgumentError, match="both called 'a'"):
        source_of(tmp_path, b"\x82\xa1a\x01\xa1a\x02")


@pytest.mark.parametrize("value", [7, np.ones(3), None, "text"])
def test_a_file_without_names(tmp_path, value):
    with pytest.raises(InvalidArgumentError, match="without a map of names"):
        source_of(tmp_path, flax.serialization.msgpack_serialize(value))


def test_no_file(tmp_path):
    with pytest.raises(NotFoundError):
        MsgpackSource(str(tmp_path / "none"))


def array(shape, dtype, values, code=1):
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, values)))


CHUNKS = "__msgpack_chunked_array__"
HALF = {"0": array([2], "float32", bytes(8))}
WRONG = {
    "size": array([2], "float32", bytes(4)),
    "huge shape": array([1 << 62, 1 << 62], "float32", bytes(4)),
    "negative shape": array([-1], "float32", bytes(4)),
    "shape of bools": array([True], "float32", bytes(4)),
    "no shape": array(None, "float32", bytes(4)),
    "no dtype": array([1], None, bytes(4)),
    "long dtype": array([1], "float32" * 100, bytes(4)),
    "no values": array([1], "float32", None),
    "no array": msgpack.ExtType(1, msgpack.packb([1, 2])),
    "more": msgpack.ExtType(1, array([0], "float32", b"").data + b"\x01"),
    "empty": msgpack.ExtType(1, b""),
    "complex": msgpack.ExtType(2, msgpack.packb([1, "a"])),
    "chunks of another size": {CHUNKS: True, "shape": {"0": 3}, "chunks": HALF},
    "chunks with a gap": {CHUNKS: True, "shape": {"0": 2}, "chunks": {"1": HALF["0"]}},
    "chunks without shape": {CHUNKS: True, "chunks": HALF},
    "no chunks": {CHUNKS: True, "shape": {"0": 0}, "chunks": {}},
    "chunks of two dtypes": {CHUNKS: True, "shape": {"0": 4}, "chunks": HALF | {"1": array([2], "int32", bytes(8))}},
    "chunks of text": {CHUNKS: True, "shape": {"0": 2}, "chunks": {"0": "ab"}},
    "chunk in chunk": {CHUNKS: True, "shape": {"0": 2}, "chunks": {"0": {CHUNKS: True}}},
}


@pytest.mark.parametrize("kind", WRONG)
def test_values_that_do_not_fit(tmp_path, kind):
    with pytest.raises(DataLossError, match="damaged"):
        source_of(tmp_path, msgpack.packb({"w": WRONG[kind]}))


def test_bools_that_are_neither(tmp_path):
    source = source_of(tmp_path, msgpack.packb({"w": array([2], "bool", b"\x01\x02")}))
    with pytest.raises(DataLossError, match="neither true nor false"):
        source.read("w")


@pytest.mark.parametrize("dtype", ["object", "str32", "void16", "datetime64[ns]", "nonsense", "float32\0", "finfo"])
def test_dtypes_without_numbers_are_listed_and_not_read(tmp_path, dtype):
    values = {"w": array([1], dtype, bytes(8)), "own": msgpack.ExtType(9, b"abc"), "ok": array([1], "int8", b"\x05")}
    source = source_of(tmp_path, msgpack.packb(values))
    assert "extension 9" in source.tensors["own"].problem
    assert source.read("ok").tolist() == [5]
    with pytest.raises(InvalidArgumentError, match="Cannot read 'w'"):
        source.read("w")


HOSTILE = {
    "map of 4 billion": b"\xdf\xff\xff\xff\xff\xa1a",
    "list of 4 billion": b"\x81\xa1a\xdd\xff\xff\xff\xff\x01",
    "array of 4 GB": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    "long key": b"\x81\xdb\x00\x10\x00\x00" + bytes(1 << 20) + b"\x01",
    "no key": b"\x81\xc0\x01",
    "deep": b"\x81\xa1a" * 200_000 + b"\x01",
    "deep lists": b"\x81\xa1a" + b"\x91" * 200_000 + b"\x01",
    "reserved byte": b"\x81\xa1a\xc1",
    "trailing": b"\x81\xa1a\x01\x01",
    "empty": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files(tmp_path, kind):
    tracemalloc.start()
    try:
        with pytest.raises((DataLossError, InvalidArgumentError)):
            source_of(tmp_path, HOSTILE[kind])
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


# Damage


def survives(path):
    try:
        read_all(MsgpackSource(str(path)))
    except JaxvarsError:
        return False
    return True


def test_cut_short_at_any_length(tmp_path):
    data = flax.serialization.to_bytes(TREE)
    for size in [*range(0, len(data), 7), len(data) - 1]:
        (tmp_path / "x").write_bytes(data[:size])
        assert not survives(tmp_path / "x")


def test_a_file_that_became_shorter(tmp_path):
    source = source_of(tmp_path, flax.serialization.to_bytes({"a": np.ones(100)}))
    (tmp_path / "x.msgpack").write_bytes(b"\x81")
    with pytest.raises(DataLossError, match="became shorter"):
        source.read("a")


@pytest.mark.parametrize("seeds", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_damaged_files(tmp_path, monkeypatch, seeds):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 16)
    data = flax.serialization.to_bytes(TREE)
    choice = random.Random(7)
    tracemalloc.start()
    try:
        read = 0
        for _ in range(seeds):
            octets = bytearray(data)
            for _ in range(choice.choice([1, 1, 2, 5])):
                octets[choice.randrange(len(octets))] = choice.choice([0, 255, 0xC1, 0xDF, choice.randrange(256)])
            (tmp_path / "x").write_bytes(octets)
            read += survives(tmp_path / "x")
        assert 0 < read < seeds
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


# Detection


@pytest.mark.parametrize(
    ("keys", "length"), [(1, 1), (15, 31), (16, 32), (3, 300), (2, 1000), (70_000, 6), (1, 70), (1, 509)]
)
def test_the_beginning_of_a_file_tells(keys, length):
    tree = {("ä" * length)[: length - 6] + f"{number:06d}": 1 for number in range(keys)}
    data = msgpack.packb(tree)
    assert looks_like_msgpack(data[:512], len(data))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x80",
        b"\x80\x04\x95 a pickle",
        b"\x89PNG\r\n\x1a\n" + bytes(20),
        b"\x89HDF\r\n\x1a\n" + bytes(20),
        b"PK\x03\x04" + bytes(30),
        b"\x08\0\0\0\0\0\0\0{}      ",
        b"\x93NUMPY\x01\x00",
        b"\x81\x01\x02\x03",
        b"\x81\xa3\xff\xfe\xfd\x01",
        b"\x81\xa3a\0b\x01",
        b"\x81\xa1a\xc1",
        b"\x81\xa9short",
        b"\xdf\xff\xff\xff\xff\xa1a\x01",
        b"\x8f\xa1a\x01",
    ],
)
def test_the_beginning_of_other_files_tells(head):
    assert not looks_like_msgpack(head, len(head))

"""TensorFlow V2 and V1 checkpoints, read from files that these tests write byte by byte."""

import tracemalloc

import bundle_writer as writer
import ml_dtypes
import numpy as np
import pytest

from jaxvars.checkpoint.formats.tensor_bundle import TensorBundle
from jaxvars.checkpoint.formats.tf_v1 import TableCheckpoint
from jaxvars.errors import DataLossError, InvalidArgumentError, JaxvarsError, NotFoundError

RNG = np.random.default_rng(0)
TENSORS = {
    "a/bool": np.array([True, False, True]),
    "a/bytes": writer.strings([[b"", b"x"], [b"\x00\xff", b"long" * 50]]),
    "bfloat16": RNG.normal(size=(3, 2)).astype(ml_dtypes.bfloat16),
    "c/complex": (RNG.normal(size=4) + 1j).astype(np.complex64),
    "empty": np.zeros((0, 3), np.float32),
    "f16": np.array([1.5, -2], np.float16),
    "f32": RNG.normal(size=(2, 3, 2)).astype(np.float32),
    "f64": RNG.normal(size=5),
    "i64": np.array([-1, 2**62, 0]),
    "int8": np.array([[-128], [127]], np.int8),
    "no strings": writer.strings([]),
    "scalar": np.array(7, np.int32),
    "é/漢": np.array(1.0, np.float32),
}


def same(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tolist() == expected.tolist() if expected.dtype == object else found.tobytes() == expected.tobytes()


def check(bundle, tensors):
    assert set(bundle.tensors) == set(tensors)
    for name, expected in tensors.items():
        info = bundle.tensors[name]
        assert (info.shape, info.dtype, info.problem) == (expected.shape, expected.dtype, "")
        same(bundle.read(name), expected)
    for name, found in bundle.read_many(tensors):
        same(found, tensors[name])


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("compress", [False, True])
def test_every_dtype_comes_back(tmp_path, shards, compress):
    bundle = TensorBundle(writer.write_bundle(tmp_path / "m", TENSORS, shards=shards, compress=compress))
    check(bundle, TENSORS)
    bundle.close()


def test_values_are_aligned_and_our_own(tmp_path):
    tensors = {"a": writer.strings([b"odd"]), "b": np.arange(100, dtype=np.float32)}
    bundle = TensorBundle(writer.write_bundle(tmp_path / "m", tensors))
    first, second = bundle.read("b"), bundle.read("b")
    assert first.flags.aligned and first.flags.writeable and not np.shares_memory(first, second)


def test_a_big_endian_checkpoint_is_swapped(tmp_path):
    tensors = {name: TENSORS[name] for name in ("bfloat16", "c/complex", "f32", "i64", "int8", "a/bool")}
    check(TensorBundle(writer.write_bundle(tmp_path / "m", tensors, big=True)), tensors)
    bundle = TensorBundle(writer.write_bundle(tmp_path / "s", {"s": writer.strings([b"x"])}, big=True))
    with pytest.raises(InvalidArgumentError, match="big-endian"):
        bundle.read("s")


ROWS = [[(0, 4), (0, 3)], [(4, 2), (0, 3)], [(6, 1), (0, 3)]]
GRID = [[(0, 4), (0, 1)], [(0, 4), (1, 2)], [(4, 3), (0, 1)], [(4, 3), (1, 2)]]


@pytest.mark.parametrize("parts", [ROWS, GRID, ROWS[::-1]])
@pytest.mark.parametrize("shards", [1, 2])
def test_partitioned_variables_come_back_whole_under_one_name(tmp_path, parts, shards):
    tensors = {"emb": np.arange(21.0).reshape(7, 3), "emb/x": np.zeros(2, np.float32)}
    prefix = writer.write_bundle(tmp_path / "m", tensors, shards=shards, partitioned={"emb": parts})
    check(TensorBundle(prefix), tensors)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (ROWS[:1], "do not cover"),
        ([ROWS[0], [(5, 1), (0, 3)]], "do not cover"),
        ([ROWS[0], [(3, 2), (0, 3)]], "overlap"),
        ([ROWS[0], [(5, 2), (0, 3)]], "outside"),
        ([[(0, 6)]], "dimensions"),
    ],
)
def test_slices_that_do_not_fit_raise(tmp_path, parts, text):
    whole = writer.number(1, 2) + writer.message(2, writer.shape_proto([6, 3]))
    entry = whole + b"".join(writer.message(7, writer.slice_proto(part)) for part in parts)
    stored = [(writer.slice_key("x", part), writer.entry(2, [n for _, n in part], 0, 0, 0, 0)) for part in parts]
    prefix = writer.write_bundle(tmp_path / "m", {}, extra=[(b"x", entry), *dict(stored).items()])
    with pytest.raises(DataLossError, match=text):
        TensorBundle(prefix).read("x")


def test_a_slice_without_entry_is_a_known_problem(tmp_path):
    entry = writer.number(1, 1) + writer.message(2, writer.shape_proto([2]))
    entry += writer.message(7, writer.slice_proto([(0, 2)]))
    bundle = TensorBundle(writer.write_bundle(tmp_path / "m", {}, extra=[(b"x", entry)]))
    assert "slices" in bundle.tensors["x"].problem
    with pytest.raises(DataLossError, match="slice of tensor 'x' is missing"):
        bundle.read("x")


@pytest.mark.parametrize(("number", "kind"), [(20, "resource"), (21, "variant"), (29, "int4")])
def test_types_without_values_are_listed_and_refused_by_name(tmp_path, number, kind):
    extra = [(b"x", writer.entry(number, [], 0, 0, 4, 0))]
    bundle = TensorBundle(writer.write_bundle(tmp_path / "m", {"y": np.zeros(2)}, extra=extra))
    assert set(bundle.tensors) == {"x", "y"} and kind in bundle.tensors["x"].problem
    with pytest.raises(InvalidArgumentError, match=f"'x'.*{kind}"):
        bundle.read("x")
    same(bundle.read("y"), np.zeros(2))


def test_a_missing_shard_matters_only_for_its_tensors(tmp_path):
    tensors = {name: np.full(3, i, np.float32) for i, name in enumerate("abcd")}
    prefix = writer.write_bundle(tmp_path / "m", tensors, shards=2)
    (tmp_path / "m.data-00001-of-00002").unlink()
    bundle = TensorBundle(prefix)
    assert [name for name in sorted(tensors) if bundle.tensors[name].problem] == ["b", "d"]
    same(bundle.read("c"), tensors["c"])
    with pytest.raises(NotFoundError, match=r"m\.data-00001-of-00002 does not exist"):
        bundle.read("b")


def test_a_cut_data_file_is_a_known_problem(tmp_path):
    prefix = writer.write_bundle(tmp_path / "m", {"a": np.zeros(10), "b": np.zeros(10)})
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    bundle = TensorBundle(prefix)
    assert not bundle.tensors["a"].problem and "cut short" in bundle.tensors["b"].problem
    with pytest.raises(DataLossError, match=r"tensor 'b' should lie at bytes 80 to 160.*has 100"):
        bundle.read("b")


def read_everything(prefix):
    bundle = TensorBundle(prefix)
    try:
        return {name: bundle.read(name) for name in bundle.tensors}
    finally:
        bundle.close()


SMALL = {
    "w": np.arange(4, dtype=np.float32),
    "s": writer.strings([b"ab", b"c"]),
    "p": np.arange(6.0).reshape(3, 2),
}
PARTS = {"p": [[(0, 1), (0, 2)], [(1, 2), (0, 2)]]}


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_every_flipped_bit_of_a_bundle_is_detected_or_harmless(tmp_path, suffix):
    prefix = writer.write_bundle(tmp_path / "m", SMALL, partitioned=PARTS)
    path = tmp_path / f"m{suffix}"
    data = path.read_bytes()
    harmless = 0
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found = read_everything(prefix)
        except JaxvarsError as error:
            assert "m." in str(error)
            continue
        harmless += 1
        assert set(found) == set(SMALL)
        for name, values in found.items():
            same(values, SMALL[name])
    assert harmless < (8 * 60 if suffix == ".index" else 1)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_every_truncation_raises(tmp_path, suffix):
    prefix = writer.write_bundle(tmp_path / "m", SMALL, partitioned=PARTS)
    path = tmp_path / f"m{suffix}"
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(DataLossError):
            read_everything(prefix)


HUGE = 1 << 40
BOMBS = {
    "float of a huge shape": writer.entry(1, [HUGE], 0, 0, 4 * HUGE, 0),
    "size and shape disagree": writer.entry(1, [HUGE], 0, 0, 4, 0),
    "strings of a huge shape": writer.entry(7, [HUGE], 0, 0, 40, 0),
    "offset past the end": writer.entry(1, [1], 0, 1 << 62, 4, 0),
    "absurd dimension": writer.entry(1, [1 << 60], 0, 0, 4, 0),
    "empty with an absurd dimension": writer.entry(1, [0, 1 << 47, 1 << 47], 0, 0, 0, 0),
    "negative size": writer.entry(1, [1], 0, 0, -4, 0),
    "negative dimension": writer.entry(1, [-1], 0, 0, 4, 0),
    "shard that cannot be": writer.entry(1, [1], 1 << 40, 0, 4, 0),
    "unknown dtype": writer.entry(77, [1], 0, 0, 4, 0),
    "unknown rank": writer.number(1, 1) + writer.message(2, writer.number(3, 1)),
    "many dimensions": writer.entry(1, [1] * 300, 0, 0, 4, 0),
    "dtype is bytes": writer.message(1, b"x"),
    "shape is a number": writer.number(2, 3),
    "huge partitioned": writer.number(1, 1)
    + writer.message(2, writer.shape_proto([HUGE]))
    + writer.message(7, writer.slice_proto([(0, 1)])),
    "negative slice": writer.number(1, 1) + writer.message(7, writer.slice_proto([(-1, 1)])),
}


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_entries_raise_our_error_in_little_memory(tmp_path, name):
    prefix = writer.write_bundle(tmp_path / "m", {"a": np.zeros(100, np.float32)}, extra=[(b"x", BOMBS[name])])
    tracemalloc.start()
    try:
        with pytest.raises((DataLossError, NotFoundError)) as caught:
            TensorBundle(prefix).read("x")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert "x" in str(caught.value)


def test_headers_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "m.index"
    path.write_bytes(writer.table([(b"a", b"")]))
    with pytest.raises(DataLossError, match="without the header"):
        TensorBundle(str(tmp_path / "m"))
    path.write_bytes(writer.table([(b"", writer.header(min_consumer=2))]))
    with pytest.raises(InvalidArgumentError, match="newer readers"):
        TensorBundle(str(tmp_path / "m"))
    path.write_bytes(writer.table([(b"", writer.header(shards=0))]))
    with pytest.raises(DataLossError, match="0 data files"):
        TensorBundle(str(tmp_path / "m"))
    with pytest.raises(NotFoundError, match="does not exist"):
        TensorBundle(str(tmp_path / "n"))


@pytest.mark.parametrize("compress", [False, True])
def test_v1_tables_give_back_every_dtype(tmp_path, compress):
    names = ("a/bool", "a/bytes", "f16", "f32", "f64", "i64", "int8", "scalar", "empty")
    tensors = {name: TENSORS[name] for name in names}
    tensors["emb"] = np.arange(21, dtype=np.float32).reshape(7, 3)
    path = writer.write_v1(tmp_path / "model.ckpt", tensors, {"emb": GRID}, compress)
    checkpoint = TableCheckpoint(path)
    check(checkpoint, tensors)
    checkpoint.close()


def test_every_flipped_bit_of_a_v1_table_is_detected_or_harmless(tmp_path):
    tensors = {"w": SMALL["w"], "i": np.array([-3, 300], np.int16)}
    path = tmp_path / "model.ckpt"
    writer.write_v1(path, tensors)
    data = path.read_bytes()
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            checkpoint = TableCheckpoint(str(path))
            for name in tensors:
                same(checkpoint.read(name), tensors[name])
        except JaxvarsError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_random_damage_gives_the_same_values_or_our_error(tmp_path, kind):
    tensors = {name: SMALL[name] for name in ("w", "s")} | {"p": np.arange(6, dtype=np.float32).reshape(3, 2)}
    write = writer.write_bundle if kind == "v2" else writer.write_v1
    path = write(tmp_path / "m", tensors, partitioned=PARTS, compress=True)
    files = list(tmp_path.iterdir())
    originals = {file: file.read_bytes() for file in files}
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        file = files[random.integers(len(files))]
        data = bytearray(originals[file])
        start, size = random.integers(len(data)), random.integers(1, 12)
        junk = random.integers(0, 256, size, dtype=np.uint8).tobytes()
        end = start + [0, size, len(data), 1][random.integers(4)]
        data[start:end] = junk[: random.integers(size + 1)]
        file.write_bytes(data)
        try:
            source = TensorBundle(path) if kind == "v2" else TableCheckpoint(path)
            for name in source.tensors:
                same(source.read(name), tensors[name])
        except JaxvarsError:
            refused += 1
        file.write_bytes(originals[file])
    assert refused > 300

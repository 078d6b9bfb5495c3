"""Files that nobody should have written, and places where no file should be: one of our errors, soon, in little memory.

What single formats must refuse is tested with them; here is what may befall any of them, and what a random change
of a file (`fuzz`) hardly ever makes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import struct
import zipfile
import zlib

import bundle_writer as writer
import numpy as np
import pytest
from file_formats import in_little_memory
from fuzz_seeds import FORMATS, hdf5_headers, lookup3, seeds

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats.crc32c import crc32c, mask
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.table import Table
from jaxvars.checkpoint.formats.tensor_slice import TensorSlice, check_tiling
from jaxvars.errors import DataLossError, InvalidArgumentError, JaxvarsError, NotFoundError

READ_BY_OPEN = [format for format in FORMATS if format != "graph"]
ONE_FILE = [format for format in READ_BY_OPEN if format not in ("state", "orbax")]


@contextlib.contextmanager
def at_once(seconds=20):
    """Fail instead of waiting for ever, as on a pipe that nobody writes to."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def placed(folder, seed):
    """Write a seed's files; returns the path to open."""
    for name, data in seed.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / seed.path


def readable(reader):
    """The tensors that can be read; all others raise one of our errors."""
    values = {}
    for name in reader:
        with contextlib.suppress(JaxvarsError):
            values[name] = reader.get_tensor(name)
    return values


def opened_and_read(path):
    """What can be read of a checkpoint, None if it cannot be opened."""
    try:
        with checkpoint.open(path) as reader:
            return readable(reader)
    except JaxvarsError:
        return None


def unchanged(found, whole):
    """Whether all that was read is as it was before the damage."""
    return all(
        found[name].dtype == whole[name].dtype and found[name].tolist() == whole[name].tolist() for name in found or {}
    )


# Something else in the place of a file


def _pipe(path):
    os.mkfifo(path)


def _folder(path):
    path.mkdir()


def _loop(path):
    path.symlink_to(path.name)


def _nowhere(path):
    path.symlink_to("nothing-here")


def _zeros(path):
    path.symlink_to("/dev/zero")


PUTS = (_pipe, _folder, _loop, _nowhere, _zeros) if hasattr(os, "mkfifo") else (_folder,)


@pytest.mark.parametrize("put", PUTS)
@pytest.mark.parametrize("format", [format for format in READ_BY_OPEN if format != "orbax"])
def test_something_else_in_the_place_of_a_file(tmp_path, format, put):
    for number, seed in enumerate(seeds(format)):
        for name in seed.files:
            folder = tmp_path / f"{number}-{name.replace('/', '-')}"
            folder.mkdir()
            path = placed(folder, seed)
            whole = opened_and_read(path)
            (folder / name).unlink()
            put(folder / name)
            with at_once():
                assert unchanged(opened_and_read(path), whole)


@pytest.mark.parametrize("put", PUTS)
@pytest.mark.parametrize("name", ["variables.jaxvars", "_CHECKPOINT_METADATA"])
def test_something_else_in_the_place_of_a_file_of_orbax(tmp_path, name, put):
    variables = jv.Variables({"w": np.ones(3, np.float32)})
    path = checkpoint.save(variables, tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    put(tmp_path / "m" / name)
    with at_once():
        assert unchanged(opened_and_read(path), {"w": np.ones(3, np.float32)})


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "here").symlink_to(tmp_path)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (
        "file/below",
        "file/a/b.npz",
        "a",
        "b/x",
        "x" * 300,
        "/".join(["deep"] * 2000),
        "here/here/none",
        "\n",
        " ",
    ):
        with pytest.raises(NotFoundError):
            checkpoint.open(tmp_path / path)
        assert not jv.train.checkpoint_exists(str(tmp_path / path))
        assert jv.train.latest_checkpoint(str(tmp_path / path)) is None
    with pytest.raises(InvalidArgumentError):
        checkpoint.open(f"{tmp_path}/nul\0inside")


# Files that change while they are open


def _cut(path, data):
    os.truncate(path, len(data) // 2)


def _emptied(path, data):
    os.truncate(path, 0)


def _overwritten(path, data):
    with open(path, "r+b") as file:
        file.write(b"\xff" * len(data))


def _replaced(path, data):
    path.with_name("new").write_bytes(bytes(len(data)))
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [_cut, _emptied, _overwritten, _replaced])
@pytest.mark.parametrize("format", ONE_FILE)
def test_a_file_that_changes_while_it_is_open(tmp_path, format, change):
    for number, seed in enumerate(seeds(format)):
        (tmp_path / str(number)).mkdir()
        path = placed(tmp_path / str(number), seed)
        whole = opened_and_read(path)
        with checkpoint.open(path) as reader:
            for name, data in seed.files.items():
                change(tmp_path / str(number) / name, data)
            found = readable(reader)
        # Of a replaced file the old one is read to its end. The checksum of a .keras file is verified once, at first.
        if change is _replaced or (seed.guarded and format != "keras"):
            assert unchanged(found, whole)
        assert all(found[name].shape == whole[name].shape for name in found)


@pytest.mark.parametrize("format", ["tf", "safetensors", "npz", "orbax"])
@pytest.mark.parametrize("change", [_cut, _overwritten])
def test_large_tensors_that_change_while_they_are_read(tmp_path, format, change):
    """Large tensors are read ahead, or straight into their arrays."""
    arrays = {f"w{number}": np.full(100_000, number, np.float32) for number in range(4)}
    path = checkpoint.save(jv.Variables(arrays), tmp_path / "m", format=format)
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_size > 400_000]
    with checkpoint.open(path) as reader:
        found = {}
        for file in files:
            change(file, file.read_bytes())
        with at_once(), contextlib.suppress(JaxvarsError):
            found.update(reader.source.read_many(arrays))
    assert unchanged(found, arrays) and len(found) < 4


# State files


def test_state_files_that_lead_in_a_circle(tmp_path):
    state = tmp_path / "checkpoint"
    (tmp_path / "link").symlink_to("checkpoint")
    for name in ("checkpoint", "./checkpoint", "link", str(state), f"../{tmp_path.name}/checkpoint"):
        state.write_text(f"model_checkpoint_path: {json.dumps(name)}\n")
        for path in (tmp_path, state):
            with pytest.raises(DataLossError, match="such a file itself"):
                checkpoint.open(path)
    (tmp_path / "a").write_text('model_checkpoint_path: "checkpoint"')
    state.write_text('model_checkpoint_path: "a"')
    with pytest.raises(DataLossError, match="such a file itself"):
        checkpoint.open(tmp_path)


@pytest.mark.parametrize("noted", ["", ".", "..", "/", "//", "\\0", "\\n", "\\000x", "~", "x" * 5000, "../" * 3000])
def test_state_files_that_name_no_checkpoint(tmp_path, noted):
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{noted}"\n')
    with pytest.raises(NotFoundError):
        checkpoint.open(tmp_path)
    assert jv.train.latest_checkpoint(str(tmp_path)) is None


@pytest.mark.parametrize("escaped", [r"\8", r"\9", r"\x", r"\xg", r"\u12", r"\400", r"\777", r"\""])
def test_escapes_that_are_none(tmp_path, escaped):
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "m{escaped}"\n')
    with pytest.raises(NotFoundError):
        checkpoint.open(tmp_path)


def test_a_state_file_that_keeps_a_great_many_checkpoints_has_a_short_error(tmp_path):
    writer.write_bundle(tmp_path / "m-1", {"w": np.zeros(1)})
    os.link(tmp_path / "m-1.index", tmp_path / "m-2.index")
    kept = "".join(f'all_model_checkpoint_paths: "{"./" * number}m-{1 + number % 2}"\n' for number in range(2000))
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "gone"\n{kept}')
    with pytest.raises(NotFoundError, match="Still there") as caught:
        checkpoint.open(tmp_path)
    assert len(str(caught.value)) < 100_000


# TensorFlow's tables


def entry(shape, size=0, dtype=1):
    return writer.entry(dtype, shape, 0, 0, size, writer.masked(b""))


def bundle_of(folder, entries, data=b""):
    prefix = folder / "m"
    (folder / "m.index").write_bytes(writer.table([(b"", writer.header()), *entries]))
    (folder / "m.data-00000-of-00001").write_bytes(data)
    return prefix


def read_all(path):
    """Read every tensor; raises the first error."""
    with checkpoint.open(path) as reader:
        for name in reader:
            reader.get_tensor(name)


@pytest.mark.parametrize("shape", [[1] * 65, [0] * 65, [0, 1 << 47, 1 << 47], [0, *[1 << 20] * 4], [1 << 40] * 3])
def test_shapes_that_no_array_has(tmp_path, shape):
    prefix = bundle_of(tmp_path, [(b"w", entry(shape))])
    about = writer.message(1, b"w") + writer.message(2, writer.shape_proto(shape)) + writer.number(3, 1)
    part = writer.message(4, writer.message(1, b"") * len(shape))
    (tmp_path / "v1").write_bytes(writer.table([(b"", writer.message(1, writer.message(1, about + part)))]))
    for path in (prefix, tmp_path / "v1"):
        assert "no tensor has the shape" in str(in_little_memory(lambda path=path: read_all(path)))


def test_slices_of_a_tensor_without_elements_have_its_shape_or_raise(tmp_path):
    about = writer.message(1, b"w") + writer.message(2, writer.shape_proto([0, 5])) + writer.number(3, 1)
    part = writer.slice_proto([(0, 0), (0, 3)])
    saved = writer.message(2, writer.message(1, b"w") + writer.message(3, writer.message(5, b"")))
    entries = [(b"", writer.message(1, writer.message(1, about + writer.message(4, part))))]
    (tmp_path / "m").write_bytes(writer.table([*entries, (writer.slice_key("w", [(0, 0), (0, 3)]), saved)]))
    with checkpoint.open(tmp_path / "m") as reader:
        assert reader["w"].shape == (0, 5) == reader.get_tensor("w").shape


@pytest.mark.parametrize("count", [0, 10_001, 300_000])
def test_a_tensor_of_no_slices_or_too_many(count):
    with at_once(), pytest.raises(DataLossError, match=f"cut into {count} slices"):
        check_tiling([TensorSlice(((0, 1),))] * count, (count,), "it")


def test_a_variable_of_v1_without_slices(tmp_path):
    about = writer.message(1, b"w") + writer.message(2, writer.shape_proto([2])) + writer.number(3, 1)
    (tmp_path / "m").write_bytes(writer.table([(b"", writer.message(1, writer.message(1, about)))]))
    with pytest.raises(DataLossError, match="cut into 0 slices"):
        read_all(tmp_path / "m")


def test_keys_that_grow_from_block_to_block(tmp_path):
    """Each key is a few bytes more than the one before it, and stands for 60,000."""
    blocks = []
    for number in range(30):
        first = b"%03d" % number + bytes(60_000)
        rows = writer.varint(0) + writer.varint(len(first)) + writer.varint(0) + first
        for end in range(1000):
            tail = struct.pack(">H", end)
            rows += writer.varint(len(first)) + writer.varint(2) + writer.varint(0) + tail
        blocks.append((b"%03d\xff" % number, rows + struct.pack("<II", 0, 1)))
    path = tmp_path / "t"
    path.write_bytes(table_of_blocks(blocks))
    assert path.stat().st_size < 3_000_000

    def walk():
        with RangedFile(str(path)) as file:
            for _ in Table(file).entries():
                pass

    assert "impossibly long" in str(in_little_memory(walk, 20_000_000))


def table_of_blocks(blocks):
    out, index = b"", []
    for key, contents in [*blocks, (None, writer.block([]))]:
        index.append((key, writer.varint(len(out)) + writer.varint(len(contents))))
        out += contents + b"\0" + struct.pack("<I", mask(crc32c(contents + b"\0")))
    contents = writer.block(index[:-1], interval=1)
    handle = index[-1][1] + writer.varint(len(out)) + writer.varint(len(contents))
    out += contents + b"\0" + struct.pack("<I", mask(crc32c(contents + b"\0")))
    return out + handle.ljust(40, b"\0") + writer.MAGIC


# Deep nesting


DEEP_JSON = (b"[" * 200_000, b'{"a":' * 200_000, b'{"a":[' * 100_000 + b"]}" * 100_000)


@pytest.mark.parametrize("text", DEEP_JSON, ids=range(3))
def test_texts_nested_without_end(tmp_path, text):
    record = {"__metadata__": {"written_by": "jaxvars", "jaxvars": text.decode()}}
    header = json.dumps(record).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    (tmp_path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "c.safetensors.index.json").write_bytes(text)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("__jaxvars__.json", text)
        archive.writestr("x.npy", b"")
    numbers = struct.pack("<QQ", 0, len(text))
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "_CHECKPOINT_METADATA").write_bytes(text)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "_CHECKPOINT_METADATA").write_bytes(b"{}")
    checksum = struct.pack("<I", crc32c(text + numbers))
    (tmp_path / "f" / "variables.jaxvars").write_bytes(text + numbers + checksum + b"jaxvars pack")
    for path in sorted(tmp_path.iterdir()):
        with at_once(), pytest.raises(DataLossError):
            read_all(path)


# Names

ODD_NAMES = ("..", "../up", "/etc/passwd", "a\nb", "a\rb", "\x1b[2J", "~", "%s", "a//b", "é", "$(id)", "x" * 3000)


def test_odd_names_are_names_and_nothing_else(tmp_path):
    arrays = {name: np.array([number], np.float32) for number, name in enumerate(ODD_NAMES)}
    folder = tmp_path / "in"
    folder.mkdir()
    writer.write_bundle(folder / "m", arrays)
    writer.write_v1(folder / "v1", arrays)
    np.savez(folder / "m.npz", **arrays)
    # Variables have no "/" at the ends of their names.
    usual = jv.Variables({name: array for name, array in arrays.items() if name[0] != "/"})
    saved = [checkpoint.save(usual, folder / f"s{suffix}") for suffix in (".npz", ".safetensors", "-orbax")]
    before = sorted(tmp_path.rglob("*"))
    for path in (folder / "m", folder / "v1", folder / "m.npz", *saved):
        with checkpoint.open(path) as reader:
            values = readable(reader)
            assert list(reader) == sorted(values) == sorted(usual if path in saved else arrays)
        assert unchanged(values, arrays)
        restored = checkpoint.restore(path, usual)
        assert {name: float(restored[name][0]) for name in usual} == {name: arrays[name][0] for name in usual}
    assert sorted(tmp_path.rglob("*")) == before


# Archives


def test_entries_of_an_archive_that_overlap(tmp_path):
    """Many names for the same few compressed bytes, as in archives that unpack to more than any disk holds."""
    header = io.BytesIO()
    np.save(header, np.zeros(1_000_000, np.uint8))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    kernel = packer.compress(header.getvalue()) + packer.flush()
    size, crc = len(header.getvalue()), zlib.crc32(header.getvalue())
    inner, listed = kernel, []
    for number in range(50, 0, -1):  # each entry holds all those after it
        name = b"%02d.npy" % number
        inner = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, crc, len(inner), size, len(name), 0) + name + inner
        listed.append((name, len(inner)))
    data, directory = inner, b""
    for name, length in listed:
        offset = len(data) - length
        sizes = (crc, length - 30 - len(name), size, len(name))
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, *sizes, 0, 0, 0, 0, 0, offset) + name
    count = len(listed)
    ending = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(data), 0)
    (tmp_path / "m.npz").write_bytes(data + directory + ending)
    with pytest.raises(DataLossError, match=r"m\.npz is damaged: entry '\d\d\.npy' overlaps"):
        checkpoint.open(tmp_path / "m.npz")


# Records of ours that somebody made up


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [float("inf")]},
        {"shape": [True]},
        {"shape": ["1"]},
        {"shape": [1] * 65},
        {"shape": [0, 1 << 62, 1 << 62], "at": "empty"},
        {"shape": [1 << 62]},
        {"dtype": "O"},
        {"dtype": "a"},
        {"dtype": "finfo"},
        {"dtype": "f4,f4"},
        {"dtype": ["float32"]},
        {"partition": [float("inf"), 1]},
        {"collections": 3},
        {"placement": {"spec": 3}},
    ],
    ids=str,
)
def test_records_that_nobody_wrote(tmp_path, fields):
    entry = {"shape": [3], "dtype": "float32", "crc32c": 1, "at": 0, **fields}
    text = json.dumps({"version": 2, "variables": {"w": entry}}).encode()
    numbers = struct.pack("<QQ", 12, len(text))
    (tmp_path / "_CHECKPOINT_METADATA").write_bytes(b"{}")
    checksum = struct.pack("<I", crc32c(text + numbers))
    (tmp_path / "variables.jaxvars").write_bytes(bytes(12) + text + numbers + checksum + b"jaxvars pack")
    assert str(tmp_path) in str(in_little_memory(lambda: read_all(tmp_path)))


# Flax's msgpack


def flax_array(shape, dtype, values=b""):
    import msgpack

    return msgpack.ExtType(1, msgpack.packb((shape, dtype, values)))


@pytest.mark.parametrize(
    "dtype", ["a", "O", "f4", "8 an", "float32,float32", "(2,)float32", "finfo", "float32\n", "V4"]
)
def test_dtypes_of_msgpack_that_are_none(tmp_path, dtype):
    import msgpack

    (tmp_path / "m.msgpack").write_bytes(msgpack.packb({"w": flax_array([2], dtype, bytes(8))}))
    with checkpoint.open(tmp_path / "m.msgpack") as reader:
        assert reader["w"].shape == (2,) and "unreadable" in repr(reader["w"])
        with pytest.raises(InvalidArgumentError, match="has no array of numbers"):
            reader.get_tensor("w")


@pytest.mark.parametrize(
    "shape", [[1] * 65, [0] * 65, [0, 1 << 62, 1 << 62], [1 << 62, 1 << 62], [-1], [True], [[]], 2.5]
)
def test_shapes_of_msgpack_that_no_array_has(tmp_path, shape):
    import msgpack

    (tmp_path / "m.msgpack").write_bytes(msgpack.packb({"w": flax_array(shape, "float32")}))
    assert str(tmp_path) in str(in_little_memory(lambda: read_all(tmp_path / "m.msgpack")))


@pytest.mark.parametrize(
    "chunks",
    [{}, {"0": {}}, {"0": {"0": 1}}, {"0": [[1], [2, 3]]}, {"0": 1}, {"0": "text"}, {"1": b""}, [b""], 3, None],
    ids=str,
)
def test_pieces_of_msgpack_that_are_none(tmp_path, chunks):
    import msgpack

    whole = {"__msgpack_chunked_array__": True, "shape": {"0": 2}, "chunks": chunks}
    (tmp_path / "m.msgpack").write_bytes(msgpack.packb({"w": whole}))
    with pytest.raises(DataLossError, match=str(tmp_path)):
        read_all(tmp_path / "m.msgpack")


# HDF5: what ends the process when libhdf5 meets it


def hdf5_bytes(**options):
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w", libver=options.pop("libver", None)) as h5:
        h5.create_dataset("w", data=np.arange(120, dtype=np.float32).reshape(30, 4), **options)
        h5.create_dataset("other", data=np.ones(3))
    return file.getvalue()


def check_w_is_refused(path, data, text):
    path.write_bytes(data)
    with checkpoint.open(path) as reader:
        with pytest.raises(JaxvarsError, match=text):
            reader.get_tensor("w")
        assert reader.get_tensor("other").tolist() == [1, 1, 1]


def test_chunks_of_hdf5_that_are_smaller_than_their_checksum(tmp_path):
    data = hdf5_bytes(chunks=(10, 4), fletcher32=True)
    key = struct.pack("<LLQ", 164, 0, 10)  # in the tree of chunks: bytes, filters left out, first row
    assert data.count(key) == 1
    for size in (0, 3):
        check_w_is_refused(
            tmp_path / "m.h5", data.replace(key, struct.pack("<LLQ", size, 0, 10)), "smaller than its checksum"
        )


@pytest.mark.parametrize("rows", [31, 40, 300, 1 << 40])
@pytest.mark.parametrize("change_size", [False, True])
def test_an_index_of_chunks_of_hdf5_that_is_too_short(tmp_path, rows, change_size):
    data = hdf5_bytes(libver="latest", chunks=(10, 4), compression="gzip")
    most = data.find(struct.pack("<4Q", 30, 4, 30, 4)) + 16
    start, end = next(header for header in hdf5_headers(data) if header[0] < most < header[1])
    part = bytearray(data[start:end])
    for place in (most, most - 16) if change_size else (most,):
        part[place - start : place - start + 8] = struct.pack("<Q", rows)
    whole = data[:start] + part + lookup3(bytes(part)).to_bytes(4, "little") + data[end + 4 :]
    check_w_is_refused(tmp_path / "m.h5", whole, "its index of chunks does not fit its shape")

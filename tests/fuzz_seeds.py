"""Tiny checkpoints of every format, which `fuzz` damages, and damage that goes through their checksums.

A `Seed` is a checkpoint as a dict of files. `REBUILT` has, for kinds of files with checksums or lengths around
their parts, functions that damage a part and make whole what stands around it, so that the code behind the
checksum is reached.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import bundle_writer as writer
import ml_dtypes
import numpy as np
from fuzz_mutations import damaged, damaged_json, damaged_message, damaged_tree

import jaxvars as jv
from jaxvars import checkpoint
from jaxvars.checkpoint.formats.crc32c import crc32c, mask
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.table import Table

__all__ = ["FORMATS", "REBUILT", "Seed", "hdf5_headers", "lookup3", "seeds"]

Files = dict[str, bytes]


@dataclass(frozen=True)
class Seed:
    """A checkpoint that is to be damaged.

    Attributes:
      name: what it is.
      path: what is opened, within its folder; "" for the folder.
      files: its files.
      guarded: whether a checksum covers every value, so that damage may lose values but not change them.
      kinds: the functions of `REBUILT` that suit it, each with the file that it changes.
    """

    name: str
    path: str
    files: Mapping[str, bytes]
    guarded: bool = True
    kinds: tuple[tuple[str, str], ...] = ()


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Small arrays of most types, without strings."""
    rng = np.random.default_rng(seed)
    return {
        "conv/weights": rng.normal(size=(2, 3)).astype(np.float32),
        "conv/biases": rng.normal(size=3),
        "global_step": np.array(1234 + seed, np.int64),
        "mask": np.array([True, False, True]),
        "table": rng.integers(0, 100, (4, 2)).astype(np.int32),
        "small": rng.integers(-9, 9, 5).astype(np.int8),
        "half": rng.normal(size=2).astype(np.float16),
        "brain": rng.normal(size=2).astype(ml_dtypes.bfloat16),
        "none": np.zeros((0, 3), np.float32),
    }


def _texts(*values: str) -> np.ndarray:
    return writer.strings([value.encode() for value in values])


def _variables(seed: int = 0) -> jv.Variables:
    values = _arrays(seed)
    del values["conv/biases"], values["global_step"]  # of 64 bits
    return jv.Variables(values).with_trainable({"table": False, "mask": False})


def _collected(folder: str) -> Files:
    """The files in a folder, by their paths in it."""
    files: Files = {}
    for inner, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(inner, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, folder)] = file.read()
    return files


def _made(make: Callable[[str], Any]) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        return _collected(folder)


# TensorFlow


def _bundle(name: str, tensors: dict[str, np.ndarray], **options: Any) -> Seed:
    files = _made(lambda folder: writer.write_bundle(f"{folder}/m", tensors, **options))
    return Seed(name, "m", files, kinds=(("table", "m.index"), ("table", "m.index"), ("index entries", "m.index")))


def _graph_proto(names: Mapping[str, str]) -> bytes:
    """A TrackableObjectGraph: a root with a child per variable. `names` has TF1's name for each key."""
    nodes = b""
    root = b""
    for number, (key, full_name) in enumerate(names.items(), 1):
        root += writer.message(1, writer.number(1, number) + writer.message(2, key.split("/")[0].encode()))
        attribute = [
            writer.message(1, b"VARIABLE_VALUE"),
            writer.message(2, full_name.encode()),
            writer.message(3, key.encode()),
        ]
        nodes += writer.message(1, writer.message(2, b"".join(attribute)))
    return writer.message(1, root) + nodes


_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_ENDING = "/.ATTRIBUTES/VARIABLE_VALUE"
_GRAPH = _graph_proto(
    {f"net/kernel{_ENDING}": "dense/kernel", f"net/bias{_ENDING}": "dense/bias", f"step{_ENDING}": "step"}
)


def _graph_files(graph: bytes, lengths: list[int] | None = None) -> Files:
    """A bundle with an object graph; `lengths` may lie about it, with right checksums."""
    arrays = {
        f"net/kernel{_ENDING}": np.arange(6, dtype=np.float32).reshape(2, 3),
        f"net/bias{_ENDING}": np.ones(3, np.float32),
        f"step{_ENDING}": np.array(7),
    }
    data, entries = b"", [(b"", writer.header())]
    for name, array in arrays.items():
        raw = array.tobytes()
        entries.append((name.encode(), _bundle_entry(writer.DTYPES[array.dtype], array.shape, len(data), raw)))
        data += raw
    lengths = [len(graph)] if lengths is None else lengths
    packed = b"".join(struct.pack("<I" if length < 1 << 32 else "<Q", length) for length in lengths)
    check = mask(crc32c(packed))
    body = struct.pack("<I", check) + graph
    whole = mask(crc32c(body, crc32c(packed)))
    raw = b"".join(map(writer.varint, lengths)) + body
    entries.append((_GRAPH_KEY.encode(), writer.entry(7, (), 0, len(data), len(raw), whole)))
    return {"m.index": writer.table(entries), "m.data-00000-of-00001": data + raw}


def _bundle_entry(dtype: int, shape: tuple[int, ...], offset: int, raw: bytes) -> bytes:
    return writer.entry(dtype, shape, 0, offset, len(raw), mask(crc32c(raw)))


def _tf() -> list[Seed]:
    rows = [[(0, 1), (0, 2)], [(1, 3), (0, 2)]]
    words = _texts("", "a", "some longer text")
    ours = _made(lambda folder: checkpoint.save(_variables(), f"{folder}/m", format="tf"))
    return [
        _bundle("plain", {**_arrays(), "words": words}),
        _bundle("shards", {**_arrays(1), "words": words}, shards=3, partitioned={"table": rows}),
        _bundle("packed, big-endian", _arrays(2), big=True, compress=True, per_block=20),
        Seed("object graph", "m", _graph_files(_GRAPH), kinds=(("graph", ""), ("graph", ""), ("table", "m.index"))),
        Seed("ours", "m", ours, kinds=(("table", "m.index"),)),
    ]


def _tf_v1() -> list[Seed]:
    arrays = {**_arrays(), "words": _texts("", "a", "bc")}
    del arrays["brain"]
    rows = [[(0, 1), (0, 2)], [(1, 3), (0, 2)]]

    def shards(folder: str) -> None:
        for number, part in enumerate(rows):
            writer.write_v1(f"{folder}/m-{number:05d}-of-00002", {"table": arrays["table"]}, {"table": [part]})

    one = _made(lambda folder: writer.write_v1(f"{folder}/m", arrays, {"table": rows}))
    packed = _made(lambda folder: writer.write_v1(f"{folder}/m", arrays, compress=True))
    many = _made(shards)
    first = sorted(many)[0]
    return [
        Seed("one file", "m", one, kinds=(("table", "m"),)),
        Seed("packed", "m", packed, kinds=(("table", "m"), ("snappy", "m"))),
        Seed("shards", "m", many, kinds=(("table", first),)),
    ]


def _state() -> list[Seed]:
    text = (
        b'# a comment\nmodel_checkpoint_path: "m-2"\nall_model_checkpoint_paths: "m-1"\n'
        b'all_model_checkpoint_paths: "/gone/\\303\\251/m-2"\nall_model_checkpoint_timestamps: 1500000000.5\n'
        b"last_preserved_timestamp: 1.5e9\n"
    )
    files = _made(lambda folder: [writer.write_bundle(f"{folder}/m-{n}", {"w": np.array([n, 0.5])}) for n in (1, 2)])
    named = {"checkpoint": text}
    return [
        Seed("folder", "", {**files, **named}),
        Seed("file", "checkpoint", {**files, **named}),
        Seed(
            "saved model",
            "",
            {"saved_model.pb": b"", **{f"variables/variables{n[3:]}": d for n, d in files.items() if n[:3] == "m-1"}},
        ),
    ]


# Files of arrays


def _safetensors() -> list[Seed]:
    arrays = _arrays()
    del arrays["none"]
    kinds = (("safetensors", "m.safetensors"),)
    ours = _made(lambda folder: checkpoint.save(_variables(), f"{folder}/m.safetensors"))
    theirs = {
        "m.safetensors": _safetensors_file(_safetensors_header(arrays), b"".join(a.tobytes() for a in arrays.values()))
    }
    files: Files = {}
    where: dict[str, str] = {}
    for number, name in enumerate(arrays):
        part = f"m-{number % 2 + 1:05d}-of-00002.safetensors"
        where[name] = part
    for part in sorted(set(where.values())):
        some = {name: array for name, array in arrays.items() if where[name] == part}
        files[part] = _safetensors_file(_safetensors_header(some), b"".join(array.tobytes() for array in some.values()))
    index = {"metadata": {"total_size": 99}, "weight_map": where}
    sharded = {"m.safetensors.index.json": json.dumps(index, indent=2).encode(), **files}
    return [
        Seed("ours", "m.safetensors", ours, kinds=(*kinds, ("safetensors record", "m.safetensors"))),
        Seed("theirs", "m.safetensors", theirs, guarded=False, kinds=kinds),
        Seed("sharded", "m.safetensors.index.json", sharded, guarded=False,
             kinds=(("json", "m.safetensors.index.json"), ("safetensors", sorted(files)[0]))),
    ]  # fmt: skip


_SAFETENSORS_TYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "bool": "BOOL", "int32": "I32", "int8": "I8",
                      "float16": "F16", "bfloat16": "BF16"}  # fmt: skip


def _safetensors_header(arrays: Mapping[str, np.ndarray]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    end = 0
    for name, array in arrays.items():
        kind = _SAFETENSORS_TYPES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    return json.dumps(header).encode()


def _safetensors_file(header: bytes, values: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + values


def _npz() -> list[Seed]:
    arrays = _arrays()
    del arrays["brain"]
    arrays["order"] = np.asfortranarray(arrays["table"])
    arrays["big"] = np.arange(4, dtype=">f4")

    def saved(save: Any, **more: Any) -> bytes:
        file = io.BytesIO()
        save(file, **arrays, **more)
        return file.getvalue()

    kinds = (("zip", "m.npz"), ("npy", "m.npz"))
    ours = _made(lambda folder: checkpoint.save(_variables(), f"{folder}/m.npz"))
    return [
        Seed("ours", "m.npz", ours, kinds=(*kinds, ("npz record", "m.npz"))),
        Seed("stored", "m.npz", {"m.npz": saved(np.savez)}, kinds=kinds),
        Seed("deflated", "m.npz", {"m.npz": saved(np.savez_compressed, wide=np.zeros(3000))}, kinds=kinds),
    ]


def _msgpack() -> list[Seed]:
    if not _has("jaxvars.checkpoint.formats.flax_msgpack"):
        return []
    from flax import serialization

    arrays = _arrays()
    tree = {"params": {"conv": {"kernel": arrays["conv/weights"], "bias": arrays["conv/biases"]}, "h": arrays["brain"]},
            "opt": {"0": {"count": arrays["global_step"], "mask": arrays["mask"]}, "1": {}},
            "step": 7, "rate": 0.5, "name": "net", "done": None, "z": 1 + 2j, "flags": [True, False]}  # fmt: skip
    chunked = {"a": np.arange(40, dtype=np.float32), "b": arrays["small"], "s": np.float32(3)}
    largest, serialization.MAX_CHUNK_SIZE = serialization.MAX_CHUNK_SIZE, 64
    try:
        pieces = serialization.msgpack_serialize(chunked)
    finally:
        serialization.MAX_CHUNK_SIZE = largest
    whole = serialization.msgpack_serialize(tree)
    named = (("m.msgpack", "tree", whole), ("m.msgpack", "chunks", pieces))
    return [Seed(name, file, {file: data}, guarded=False, kinds=(("msgpack", file),)) for file, name, data in named]


def _hdf5_bytes(fill: Callable[[Any], None], **options: Any) -> bytes:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w", **options) as h5:
        fill(h5)
    return file.getvalue()


def _fill_keras_2(h5: Any) -> None:
    arrays = _arrays()
    h5.attrs["layer_names"] = [b"conv", b"dense"]
    h5.attrs["backend"] = b"tensorflow"
    for layer, name in (("conv", "conv/weights"), ("dense", "conv/biases")):
        group = h5.create_group(layer)
        group.attrs["weight_names"] = [f"{layer}/kernel:0".encode()]
        group[f"{layer}/kernel:0"] = arrays[name]


def _fill_keras_3(h5: Any) -> None:
    arrays = _arrays()
    for layer, name in (("conv2d", "conv/weights"), ("dense", "table")):
        group = h5.create_group(f"layers/{layer}/vars")
        h5[f"layers/{layer}"].attrs["name"] = f"my_{layer}"
        group["0"] = arrays[name]
    h5.create_group("vars")
    h5["optimizer/vars/0"] = arrays["global_step"]


def _fill_everything(h5: Any) -> None:
    import h5py

    arrays = _arrays()
    for name in ("conv/weights", "mask", "half", "none"):
        h5[name] = arrays[name]
    h5.create_dataset("packed", data=np.zeros((30, 4), np.float32), chunks=(10, 4), compression="gzip", shuffle=True)
    h5.create_dataset("checked", data=np.arange(12), chunks=(4,), fletcher32=True)
    h5.create_dataset("words", data=["a", "some longer text", ""], dtype=h5py.string_dtype())
    h5.create_dataset("fixed", data=np.array([b"ab", b"c"], "S3"))
    h5["link"] = h5py.SoftLink("/mask")
    h5["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
    h5["pair"] = np.zeros(2, [("a", "f4"), ("b", "i2")])


def _hdf5() -> list[Seed]:
    if not _has("jaxvars.checkpoint.formats.hdf5"):
        return []
    fills = {"keras 2": _fill_keras_2, "keras 3": _fill_keras_3, "everything": _fill_everything}
    old = [Seed(name, "m.h5", {"m.h5": _hdf5_bytes(fill)}, guarded=False) for name, fill in fills.items()]
    new = _hdf5_bytes(_fill_everything, libver="latest")
    return [*old, Seed("latest", "m.h5", {"m.h5": new}, guarded=False, kinds=(("hdf5", "m.h5"),))]


def _keras() -> list[Seed]:
    if not _has("jaxvars.checkpoint.formats.keras_zip"):
        return []
    layers = [
        {"class_name": kind, "config": {"name": name, "units": 3, "dtype": {"class_name": "DTypePolicy"}}}
        for kind, name in (("Conv2D", "my_conv2d"), ("Dense", "my_dense"))
    ]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}
    parts = {
        "metadata.json": json.dumps({"keras_version": "3.5.0"}).encode(),
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": _hdf5_bytes(_fill_keras_3),
    }
    kinds = (("zip", "m.keras"), ("keras config", "m.keras"))
    return [
        Seed(name, "m.keras", {"m.keras": _zipped(parts, method)}, kinds=kinds)
        for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED))
    ]


# Orbax, and TensorFlow's graphs


def _orbax() -> list[Seed]:
    from orbax.checkpoint import v1 as ocp

    variables = _variables() | jv.Variables({"large": np.zeros(20_000, np.float32)})
    ours = _made(lambda folder: checkpoint.save(_variables(), f"{folder}/m"))
    mixed = _made(lambda folder: checkpoint.save(variables, f"{folder}/m"))
    tree = {"params": {"w": np.arange(3, dtype=np.float32), "b": np.ones(2)}, "step": np.array(3)}
    theirs = _made(lambda folder: ocp.save(f"{folder}/m", tree))
    packed = "m/variables.jaxvars"
    return [
        Seed("ours", "m", ours, kinds=(("orbax record", packed),)),
        Seed("ours, with a large one", "m", mixed, kinds=(("orbax record", packed),)),
        Seed("theirs", "m", theirs, guarded=False, kinds=(("json", "m/_CHECKPOINT_METADATA"),)),
    ]


def _graph() -> list[Seed]:
    """A MetaGraphDef with plain, partitioned and unfinished variables, beside its checkpoint."""
    part, number = writer.message, writer.number

    def node(name: str, op: bytes, shape: bytes, dtype: int) -> bytes:
        attributes = {b"shape": part(7, shape), b"dtype": number(6, dtype)}
        body = part(1, name.encode()) + part(2, op)
        for key, value in attributes.items():
            body += part(5, part(1, key) + part(2, value))
        return part(1, body)

    def variable(name: str, piece: bytes = b"") -> bytes:
        return part(1, part(1, f"{name}:0".encode()) + part(2, b"init") + piece)

    def piece(start: int) -> bytes:
        return part(4, part(1, b"table") + part(2, bytes([4, 2])) + part(3, bytes([start, 0])) + part(4, bytes([2, 2])))

    nodes = (
        node("w", b"VariableV2", writer.shape_proto((2, 3)), 1)
        + node("table/part_0", b"VariableV2", writer.shape_proto((2, 2)), 3)
        + node("table/part_1", b"VariableV2", writer.shape_proto((2, 2)), 3)
        + node("step", b"VarHandleOp", b"", 9)
        + node("open", b"VarHandleOp", number(3, 1), 1)
        + node("add", b"AddV2", b"", 1)
    )
    variables = (
        variable("w") + variable("table/part_0", piece(0)) + variable("table/part_1", piece(2)) + variable("step")
    )
    variables += variable("open")
    lists = {b"variables": part(2, variables), b"trainable_variables": part(2, variable("w") + variable("open")),
             b"losses": part(1, part(1, b"add:0")), b"global_step": part(2, variable("step"))}  # fmt: skip
    data = part(1, part(5, b"1.15")) + part(2, nodes)
    for name, content in lists.items():
        data += part(4, part(1, name) + part(2, content))
    values = {"open": np.zeros(4, np.float32)}
    bundle = _made(lambda folder: writer.write_bundle(f"{folder}/m", values))
    kinds = (("message", "m.meta"), ("message", "m.meta"), ("message", "m.meta"))
    model = {"saved_model.pb": part(2, data), **{f"variables/variables{n[1:]}": d for n, d in bundle.items()}}
    return [
        Seed("meta", "m.meta", {**bundle, "m.meta": data}, guarded=False, kinds=kinds),
        Seed("saved model", "", model, guarded=False, kinds=(("message", "saved_model.pb"),)),
    ]


def _zipped(parts: Mapping[str, bytes], method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


FORMATS: dict[str, Callable[[], list[Seed]]] = {
    "tf": _tf,
    "tf_v1": _tf_v1,
    "state": _state,
    "safetensors": _safetensors,
    "npz": _npz,
    "msgpack": _msgpack,
    "hdf5": _hdf5,
    "keras": _keras,
    "orbax": _orbax,
    "graph": _graph,
}


@functools.cache
def seeds(format: str) -> list[Seed]:
    """The tiny checkpoints of a format, none where it has no reader yet."""
    return FORMATS[format]()


# Damage that goes through checksums


@functools.lru_cache(64)
def _entries(data: bytes) -> list[tuple[bytes, bytes]]:
    """The entries of a table that is whole."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "t")
        with open(path, "wb") as file:
            file.write(data)
        with RangedFile(path) as ranges:
            return list(Table(ranges).entries())


def _table(
    blocks: list[tuple[bytes, bytes]], index: bytes | None = None, pack: Callable[[bytes], bytes] | None = None
) -> bytes:
    """A table of blocks (last key, contents) that are taken as they are."""
    out, handles = b"", []

    def add(contents: bytes) -> bytes:
        nonlocal out
        packed = pack(contents) if pack else contents
        handle = writer.varint(len(out)) + writer.varint(len(packed))
        kind = bytes([pack is not None])
        out += packed + kind + struct.pack("<I", mask(crc32c(packed + kind)))
        return handle

    for key, contents in blocks:
        handles.append((key, add(contents)))
    handle = add(writer.block([])) + add(writer.block(handles, interval=1) if index is None else index)
    return out + handle.ljust(40, b"\0") + writer.MAGIC


def _rebuilt_table(rng: Random, seed: Seed, name: str) -> Files:
    """A table with damage in an entry, a key, the order, or in the bytes of a block."""
    entries = list(_entries(seed.files[name]))
    at = rng.randrange(len(entries))
    key, value = entries[at]
    kind = rng.random()
    if kind < 0.5:
        entries[at] = key, damaged_message(rng, value)
    elif kind < 0.6:
        entries[at] = damaged(rng, key, entries[0][0]), value
        if rng.random() < 0.7:
            entries.sort()
    elif kind < 0.7:
        entries[at:at] = [rng.choice(entries)] * rng.choice((0, 1, 40))
    chunks = [entries[start : start + 4] for start in range(0, len(entries), 4)]
    blocks = [(chunk[-1][0], writer.block(chunk)) for chunk in chunks]
    index = None
    if 0.7 <= kind < 0.95:
        at = rng.randrange(len(blocks))
        blocks[at] = blocks[at][0], damaged(rng, blocks[at][1], blocks[0][1])
    elif kind >= 0.95:
        index = damaged(rng, writer.block([(key, writer.varint(0) + writer.varint(len(data))) for key, data in blocks]))
    return {name: _table(blocks, index)}


def _rebuilt_entries(rng: Random, seed: Seed, name: str) -> Files:
    """An index in which several entries are damaged: sizes and shapes that agree with each other more often."""
    entries = [
        (key, damaged_message(rng, value) if rng.random() < 0.3 else value) for key, value in _entries(seed.files[name])
    ]
    return {name: _table([(chunk[-1][0], writer.block(chunk)) for chunk in (entries[:9], entries[9:]) if chunk])}


def _rebuilt_snappy(rng: Random, seed: Seed, name: str) -> Files:
    entries = _entries(seed.files[name])
    return {
        name: _table([(entries[-1][0], writer.block(entries))], pack=lambda data: damaged(rng, writer.snappy(data)))
    }


def _rebuilt_graph(rng: Random, seed: Seed, name: str) -> Files:
    graph = damaged_message(rng, _GRAPH)
    if rng.random() < 0.85:
        return _graph_files(graph)
    return _graph_files(graph, [rng.choice((0, 1, len(graph) - 1, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1))])


def _rebuilt_json(rng: Random, seed: Seed, name: str) -> Files:
    return {name: damaged_json(rng, seed.files[name])}


def _parts_of_safetensors(data: bytes) -> tuple[bytes, bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def _rebuilt_safetensors(rng: Random, seed: Seed, name: str) -> Files:
    header, values = _parts_of_safetensors(seed.files[name])
    return {name: _safetensors_file(damaged_json(rng, header), values)}


def _checked_record(tree: Any) -> Any:
    """A record that matches its checksum, whatever it says."""
    if isinstance(tree, dict) and isinstance(record := tree.get("jaxvars"), dict) and "variables" in record:
        text = json.dumps(record["variables"], separators=(",", ":")).encode("ascii", "replace")
        return {**tree, "jaxvars": {**record, "crc32c": crc32c(text)}}
    return tree


def _rebuilt_safetensors_record(rng: Random, seed: Seed, name: str) -> Files:
    header, values = _parts_of_safetensors(seed.files[name])
    tree = json.loads(header)
    record = tree["__metadata__"]["jaxvars"].encode()
    tree["__metadata__"]["jaxvars"] = damaged_json(rng, record, _checked_record).decode("latin1")
    return {name: _safetensors_file(json.dumps(tree).encode(), values)}


def _rebuilt_npz_record(rng: Random, seed: Seed, name: str) -> Files:
    parts = _unzipped(seed.files[name])
    record = "__jaxvars__.json"
    return {name: _zipped({**parts, record: damaged_json(rng, parts[record], _checked_record)}, zipfile.ZIP_STORED)}


@functools.lru_cache(64)
def _unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _rebuilt_zip(rng: Random, seed: Seed, name: str) -> Files:
    """An archive with a damaged entry or name, and right checksums."""
    parts = dict(_unzipped(seed.files[name]))
    chosen = rng.choice(list(parts))
    if rng.random() < 0.8:
        parts[chosen] = damaged(rng, parts[chosen])
    else:
        renamed = damaged(rng, chosen.encode()).decode("utf-8", "replace")[:1000]
        parts[renamed] = parts.pop(chosen)
    return {name: _zipped(parts, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))}


def _rebuilt_npy(rng: Random, seed: Seed, name: str) -> Files:
    """An archive with a damaged header of an array, whose length is right."""
    parts = dict(_unzipped(seed.files[name]))
    chosen = rng.choice([part for part in parts if part.endswith(".npy")])
    data = parts[chosen]
    end = 10 + int.from_bytes(data[8:10], "little")
    header = damaged(rng, data[10:end].rstrip() or b" ")[:60_000]
    version = rng.choice((data[6:8], data[6:8], b"\2\0", b"\3\0"))
    length = len(header).to_bytes(2 if version == data[6:8] else 4, "little")
    parts[chosen] = data[:6] + version + length + header + data[end:]
    return {name: _zipped(parts, zipfile.ZIP_STORED)}


def _rebuilt_keras_config(rng: Random, seed: Seed, name: str) -> Files:
    parts = _unzipped(seed.files[name])
    chosen = rng.choice(("config.json", "config.json", "metadata.json"))
    return {name: _zipped({**parts, chosen: damaged_json(rng, parts[chosen])}, zipfile.ZIP_STORED)}


def _rebuilt_orbax_record(rng: Random, seed: Seed, name: str) -> Files:
    """The file of small variables with another record, its checksum right."""
    data = seed.files[name]
    ending = b"jaxvars pack"
    values, length = struct.unpack_from("<QQ", data, len(data) - len(ending) - 20)
    record = damaged_json(rng, data[values : values + length])
    numbers = struct.pack("<QQ", values, len(record))
    return {name: data[:values] + record + numbers + struct.pack("<I", crc32c(record + numbers)) + ending}


def _rebuilt_msgpack(rng: Random, seed: Seed, name: str) -> Files:
    import msgpack

    def packed(value: Any) -> Any:
        return msgpack.packb(value, use_bin_type=True, strict_types=False, unicode_errors="surrogatepass")

    def unpacked(data: bytes) -> Any:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)

    def change(tree: Any) -> Any:
        """Damage below one of the extension types too, whose contents are messages themselves."""
        if isinstance(tree, msgpack.ExtType):
            if rng.random() < 0.2:
                return msgpack.ExtType(rng.randrange(128), tree.data)
            inner = damaged_tree(rng, unpacked(tree.data), _MSGPACK_VALUES)
            return msgpack.ExtType(tree.code, packed(inner))
        if isinstance(tree, dict) and tree and rng.random() < 0.9:
            key = rng.choice(list(tree))
            return {**tree, key: change(tree[key])}
        return damaged_tree(rng, tree, _MSGPACK_VALUES)

    return {name: packed(change(unpacked(seed.files[name])))}


_MSGPACK_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, float("nan"), (1 << 64) - 1, -(1 << 63), "", "..", "a/b", "x\0y", "float32", "object", "V8",
    "O", "bfloat16", b"", b"abcd", [], {}, [1 << 62, 4], [1] * 70, [[[[[[]]]]]], {"a": {}}, {1: 2},
    {"__msgpack_chunked_array__": True},
)  # fmt: skip


def _rebuilt_hdf5(rng: Random, seed: Seed, name: str) -> Files:
    """A file of HDF5's newer form with a damaged object header or superblock, whose checksum is right."""
    data = seed.files[name]
    start, end = rng.choice(hdf5_headers(data))
    part = damaged(rng, data[start:end])[: end - start].ljust(end - start, b"\0")
    return {name: data[:start] + part + lookup3(part).to_bytes(4, "little") + data[end + 4 :]}


@functools.lru_cache(64)
def hdf5_headers(data: bytes) -> list[tuple[int, int]]:
    """Where superblock and object headers lie; the checksum follows."""
    found = [(0, 44)]
    at = data.find(b"OHDR")
    while at >= 0:
        flags = data[at + 5]
        sizes = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        end = sizes + width + int.from_bytes(data[sizes : sizes + width], "little")
        if lookup3(data[at:end]).to_bytes(4, "little") == data[end : end + 4]:
            found.append((at, end))
        at = data.find(b"OHDR", at + 1)
    assert len(found) > 2 and lookup3(data[:44]).to_bytes(4, "little") == data[44:48]
    return found


def lookup3(data: bytes) -> int:
    """Bob Jenkins's hash, HDF5's checksum of metadata."""

    def turned(value: int, by: int) -> int:
        value &= 0xFFFFFFFF
        return value << by & 0xFFFFFFFF | value >> (32 - by)

    a = b = c = 0xDEADBEEF + len(data)
    for start in range(0, len(data), 12):
        x, y, z = struct.unpack("<3L", data[start : start + 12].ljust(12, b"\0"))
        a, b, c = a + x, b + y, c + z
        if start + 12 < len(data):
            a = a - c ^ turned(c, 4)
            c += b
            b = b - a ^ turned(a, 6)
            a += c
            c = c - b ^ turned(b, 8)
            b += a
            a = a - c ^ turned(c, 16)
            c += b
            b = b - a ^ turned(a, 19)
            a += c
            c = c - b ^ turned(b, 4)
            b += a
    c = (c ^ b) - turned(b, 14)
    a = (a ^ c) - turned(c, 11)
    b = (b ^ a) - turned(a, 25)
    c = (c ^ b) - turned(b, 16)
    a = (a ^ c) - turned(c, 4)
    b = (b ^ a) - turned(a, 14)
    c = (c ^ b) - turned(b, 24)
    return c & 0xFFFFFFFF


def _rebuilt_message(rng: Random, seed: Seed, name: str) -> Files:
    return {name: damaged_message(rng, seed.files[name])}


REBUILT: dict[str, Callable[[Random, Seed, str], Files]] = {
    "table": _rebuilt_table,
    "index entries": _rebuilt_entries,
    "snappy": _rebuilt_snappy,
    "graph": _rebuilt_graph,
    "json": _rebuilt_json,
    "safetensors": _rebuilt_safetensors,
    "safetensors record": _rebuilt_safetensors_record,
    "npz record": _rebuilt_npz_record,
    "zip": _rebuilt_zip,
    "npy": _rebuilt_npy,
    "keras config": _rebuilt_keras_config,
    "orbax record": _rebuilt_orbax_record,
    "msgpack": _rebuilt_msgpack,
    "message": _rebuilt_message,
    "hdf5": _rebuilt_hdf5,
}

"""A small writer of TensorFlow checkpoints, byte by byte, for testing the readers on files of any shape.

Written for these tests only, apart from the code under test: it has its own checksum and varints.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
DTYPES: dict[Any, int] = {
    np.dtype(np.float32): 1,
    np.dtype(np.float64): 2,
    np.dtype(np.int32): 3,
    np.dtype(np.uint8): 4,
    np.dtype(np.int16): 5,
    np.dtype(np.int8): 6,
    np.dtype(object): 7,
    np.dtype(np.complex64): 8,
    np.dtype(np.int64): 9,
    np.dtype(np.bool_): 10,
    np.dtype(ml_dtypes.bfloat16): 14,
    np.dtype(np.uint16): 17,
    np.dtype(np.float16): 19,
}


def crc(data: bytes) -> int:
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    value = crc(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def snappy(data: bytes) -> bytes:
    """Compress: a copy where the last 8 bytes repeat at a short distance, else literals."""
    out, position, pending = varint(len(data)), 0, b""

    def literal(chunk: bytes) -> bytes:
        return b"" if not chunk else bytes([61 << 2]) + struct.pack("<H", len(chunk) - 1) + chunk

    while position < len(data):
        found = data.rfind(data[position : position + 8], max(0, position - 2000), position + 7)
        if found < 0 or len(data) - position < 8 or found >= position:
            pending += data[position : position + 1]
            position += 1
            continue
        size = 8
        while size < 60 and position + size < len(data) and data[found + size] == data[position + size]:
            size += 1
        out += literal(pending) + bytes([(size - 1) << 2 | 2]) + struct.pack("<H", position - found)
        position, pending = position + size, b""
    return out + literal(pending)


def block(entries: Sequence[tuple[bytes, bytes]], interval: int = 16) -> bytes:
    out, restarts, last = b"", [], b""
    for position, (key, value) in enumerate(entries):
        shared = 0
        if position % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return out + b"".join(struct.pack("<I", place) for place in restarts) + struct.pack("<I", len(restarts))


def table(entries: Iterable[tuple[bytes, bytes]], per_block: int = 4, compress: bool = False) -> bytes:
    """The bytes of a table file."""
    entries = sorted(entries)
    out, index = b"", []

    def add(contents: bytes) -> bytes:
        nonlocal out
        packed = snappy(contents) if compress else contents
        kind = bytes([compress])
        handle = varint(len(out)) + varint(len(packed))
        out += packed + kind + struct.pack("<I", masked(packed + kind))
        return handle

    for start in range(0, len(entries), per_block):
        chunk = entries[start : start + per_block]
        index.append((chunk[-1][0], add(block(chunk))))
    handles = add(block([])) + add(block(index, interval=1))
    return out + handles.ljust(40, b"\0") + MAGIC


def shape_proto(shape: Sequence[int]) -> bytes:
    return b"".join(message(2, number(1, dim) if dim else b"") for dim in shape)


def slice_proto(extents: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(message(1, number(1, start) + number(2, length)) for start, length in extents)


def slice_key(name: str, extents: Sequence[tuple[int, int]]) -> bytes:
    """The key of a slice whose numbers are all below 64."""
    signed = bytes(value ^ 0x80 for pair in extents for value in pair)
    count = bytes([1, len(extents)]) if extents else b"\0"
    return b"\0" + name.encode() + b"\0\1" + count + signed


def encoded(array: np.ndarray, big: bool = False) -> tuple[bytes, int]:
    """The bytes of a tensor in a data file, and their masked checksum."""
    if array.dtype == object:
        texts = [bytes(text) for text in array.ravel()]
        lengths = b"".join(struct.pack("<I", len(text)) for text in texts)
        check = struct.pack("<I", masked(lengths))
        body = b"".join(texts)
        return b"".join(varint(len(text)) for text in texts) + check + body, masked(lengths + check + body)
    data = array.astype(array.dtype.newbyteorder(">")).tobytes() if big else array.tobytes()
    return data, masked(data)


def entry(dtype: int, shape: Sequence[int], shard: int, offset: int, size: int, check: int) -> bytes:
    return (
        number(1, dtype)
        + message(2, shape_proto(shape))
        + (number(3, shard) if shard else b"")
        + (number(4, offset) if offset else b"")
        + number(5, size)
        + varint(6 << 3 | 5)
        + struct.pack("<I", check)
    )


def header(shards: int = 1, big: bool = False, min_consumer: int = 0) -> bytes:
    version = number(1, 1) + (number(2, min_consumer) if min_consumer else b"")
    return number(1, shards) + (number(2, 1) if big else b"") + message(3, version)


def write_bundle(
    prefix: Path | str,
    tensors: dict[str, np.ndarray],
    *,
    shards: int = 1,
    partitioned: dict[str, Sequence[Sequence[tuple[int, int]]]] | None = None,
    big: bool = False,
    compress: bool = False,
    per_block: int = 4,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> str:
    """Write a V2 checkpoint; tensors go to the shards in turn, partitioned ones slice by slice."""
    data = [b""] * shards
    entries: list[tuple[bytes, bytes]] = [(b"", header(shards, big)), *extra]
    turn = 0

    def store(key: bytes, array: np.ndarray) -> None:
        nonlocal turn
        raw, check = encoded(array, big)
        shard = turn % shards
        entries.append((key, entry(DTYPES[array.dtype], array.shape, shard, len(data[shard]), len(raw), check)))
        data[shard] += raw
        turn += 1

    for name, array in sorted(tensors.items()):
        parts = (partitioned or {}).get(name)
        if parts is None:
            store(name.encode(), array)
            continue
        whole = number(1, DTYPES[array.dtype]) + message(2, shape_proto(array.shape))
        entries.append((name.encode(), whole + b"".join(message(7, slice_proto(part)) for part in parts)))
        for part in parts:
            index = tuple(slice(start, start + length) for start, length in part)
            store(slice_key(name, part), np.ascontiguousarray(array[index]))
    prefix = str(prefix)
    Path(prefix + ".index").write_bytes(table(entries, per_block, compress))
    for shard, raw in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(raw)
    return prefix


def tensor_proto(array: np.ndarray) -> bytes:
    """A TensorProto as V1 checkpoints have it: one field of values."""
    dtype = array.dtype
    if dtype == np.float32:
        return message(5, array.tobytes())
    if dtype == np.float64:
        return message(6, array.tobytes())
    if dtype.hasobject:
        return b"".join(message(8, text) for text in array.ravel())
    if dtype == np.float16:
        return message(13, b"".join(varint(int(value)) for value in array.view(np.uint16).ravel()))
    field = {np.dtype(np.int64): 10, np.dtype(np.bool_): 11}.get(dtype, 7)
    return message(field, b"".join(varint(int(value)) for value in array.ravel()))


def write_v1(
    path: Path | str,
    tensors: dict[str, np.ndarray],
    partitioned: dict[str, Sequence[Sequence[tuple[int, int]]]] | None = None,
    compress: bool = False,
) -> str:
    """Write a V1 checkpoint in one file."""
    meta, entries = b"", []
    for name, array in tensors.items():
        default = [[(0, dim) for dim in array.shape]]
        parts = (partitioned or {}).get(name, default)
        slices = b""
        for part in parts:
            slices += message(4, slice_proto(part))
            index = tuple(slice(start, start + length) for start, length in part)
            saved = message(1, name.encode()) + message(2, slice_proto(part))
            values = tensor_proto(np.ascontiguousarray(array[index]).reshape([n for _, n in part]))
            entries.append((slice_key(name, part), message(2, saved + message(3, values))))
        about = message(1, name.encode()) + message(2, shape_proto(array.shape)) + number(3, DTYPES[array.dtype])
        meta += message(1, about + slices)
    Path(path).write_bytes(table([(b"", message(1, meta)), *entries], compress=compress))
    return str(path)


def strings(values: Any) -> np.ndarray:
    """An object array of bytes."""
    flat = np.empty(math.prod(np.shape(values)), object)
    flat[:] = list(np.array(values, object).ravel())
    return flat.reshape(np.shape(values))

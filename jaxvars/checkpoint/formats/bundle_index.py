"""The index of a V2 checkpoint: one header, and one entry per tensor that says where its values lie."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from jaxvars.checkpoint.formats import tf_types
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.protos import as_bytes, as_int, fields, parse_shape, signed
from jaxvars.checkpoint.formats.table import Table
from jaxvars.checkpoint.formats.tensor_slice import TensorSlice, parse_slice
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["Entry", "Header", "data_path", "key_text", "read_header", "read_index"]

_SUPPORTED_VERSION = 1
_MOST_SHARDS = 99_999  # the file names have five digits

# Nearly every entry is exactly this: dtype, shape, perhaps shard, offset and size, checksum. One match takes a
# fraction of the time of decoding field by field; what does not match is decoded so.
_NUMBER = rb"([\x80-\xff]{0,7}[\x00-\x7f])"
_USUAL_ENTRY = re.compile(
    rb"\x08([\x01-\x7f])\x12([\x00-\x7f])((?:\x12[\x00-\x7f](?:\x08[\x80-\xff]{0,8}[\x00-\x7f])?)*)"
    rb"(?:\x18([\x00-\x7f]))?(?:\x20%b)?(?:\x28%b)?\x35(.{4})" % (_NUMBER, _NUMBER),
    re.DOTALL,
)


class Header(NamedTuple):
    """What the first entry of an index says of all files.

    Attributes:
      num_shards: the number of data files, which is part of their names.
      byte_order: "<" or ">".
    """

    num_shards: int
    byte_order: str


class Entry(NamedTuple):
    """One tensor, or one slice of a partitioned one.

    Attributes:
      key: the key in the table.
      dtype: TensorFlow's number.
      shape: the shape.
      shard: the number of the data file.
      offset: where its bytes begin there.
      size: how many they are.
      crc: their checksum, in its stored form.
      slices: of a partitioned tensor, whose slices have entries of their own.
    """

    key: bytes
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[TensorSlice, ...]


def data_path(prefix: str, shard: int, num_shards: int) -> str:
    """Return the path of a data file."""
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


def key_text(key: bytes) -> str:
    """Return the name that a key stands for."""
    return key.decode("utf-8", "backslashreplace")


def read_header(path: str) -> Header:
    """Return the header of an index.

    Raises:
      NotFoundError: there is no such file.
      DataLossError: it is damaged.
      InvalidArgumentError: it was written for newer readers.
    """
    with RangedFile(path) as file:
        return _header(next(Table(file).entries(), (b"?", b"")), path)


def read_index(path: str) -> tuple[Header, dict[bytes, Entry]]:
    """Return the header and all entries of an index.

    Raises:
      NotFoundError: there is no such file.
      DataLossError: it is damaged.
      InvalidArgumentError: it was written for newer readers.
    """
    with RangedFile(path) as file:
        entries = Table(file).entries()
        header = _header(next(entries, (b"?", b"")), path)
        return header, _parse_entries(entries, path)


def _header(first: tuple[bytes, bytes], what: str) -> Header:
    """Return what a BundleHeaderProto says."""
    key, data = first
    if key:
        raise DataLossError(f"{what} is a table without the header of a TensorFlow checkpoint.")
    num_shards, byte_order = 0, "<"
    version: dict[int, int] = {}
    bad: list[int] = []
    for number, value in fields(data, what):
        if number == 1:
            num_shards = as_int(value, what)
        elif number == 2 and as_int(value, what):
            byte_order = ">"
        elif number == 3:
            for part, amount in fields(as_bytes(value, what), what):
                if part == 3:
                    bad.append(amount if isinstance(amount, int) else _SUPPORTED_VERSION)
                else:
                    version[part] = as_int(amount, what)
    if not 0 < num_shards <= _MOST_SHARDS:
        raise DataLossError(f"{what} is damaged: it claims {num_shards} data files.")
    if version.get(2, 0) > _SUPPORTED_VERSION or _SUPPORTED_VERSION in bad:
        raise InvalidArgumentError(f"{what} was written for newer readers (version {version.get(2, 0)}).")
    return Header(num_shards, byte_order)


def _parse_entries(entries: Iterable[tuple[bytes, bytes]], path: str) -> dict[bytes, Entry]:
    result: dict[bytes, Entry] = {}
    shapes: dict[bytes, tuple[int, ...]] = {}  # few are different
    for key, data in entries:
        match = _USUAL_ENTRY.fullmatch(data)
        if match is None:
            result[key] = _parse_entry(key, data, path)
            continue
        dtype, shape_size, dims, shard, offset, size, crc = match.groups(b"\0")
        if shape_size[0] != len(dims) or not tf_types.is_known(dtype[0]):
            result[key] = _parse_entry(key, data, path)
            continue
        shape = shapes.get(dims)
        if shape is None:
            shape = shapes[dims] = parse_shape(dims, f"{path}, entry {key_text(key)!r},")
        crc = int.from_bytes(crc, "little")
        result[key] = Entry(key, dtype[0], shape, shard[0], _number(offset), _number(size), crc, ())
    return result


def _number(octets: bytes) -> int:
    """Decode a varint of at most 8 bytes."""
    value = 0
    for octet in reversed(octets):
        value = value << 7 | octet & 0x7F
    return value


def _parse_entry(key: bytes, data: bytes, path: str) -> Entry:
    """Return the entry that a BundleEntryProto describes, its numbers checked for sense."""
    what = f"{path}, entry {key_text(key)!r},"
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: tuple[int, ...] = ()
    slices: list[TensorSlice] = []
    for number, value in fields(data, what):
        if number == 2:
            shape = parse_shape(as_bytes(value, what), what)
        elif number == 7:
            slices.append(parse_slice(as_bytes(value, what), what))
        elif number in numbers:
            numbers[number] = signed(as_int(value, what))
    if min(numbers.values()) < 0 or numbers[3] > _MOST_SHARDS:
        raise DataLossError(f"{what} is damaged: a negative size or offset.")
    tf_types.type_name(numbers[1], what)
    return Entry(key, numbers[1], shape, numbers[3], numbers[4], numbers[5], numbers[6], tuple(slices))

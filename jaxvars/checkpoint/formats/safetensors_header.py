"""The beginning of a safetensors file: 8 bytes with its length, then JSON that says where each tensor lies.

{"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.raw_arrays import checked_shape
from jaxvars.errors import DataLossError

__all__ = ["LARGEST_HEADER", "METADATA", "Header", "Stored", "header_bytes", "parse_json", "read_header", "tensor_type"]

LARGEST_HEADER = 100_000_000  # the format's limit
METADATA = "__metadata__"
_LENGTH_BYTES = 8

_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "C64": np.dtype(np.complex64),
}
_NAMES = {dtype.type: name for name, dtype in _TYPES.items()}  # classes are looked up faster than dtypes


class Stored(NamedTuple):
    """One tensor: its type as the file calls it, None as dtype where NumPy has none, and where its bytes lie."""

    type_name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """What a file says of itself."""

    tensors: dict[str, Stored]
    metadata: dict[str, str]


def tensor_type(dtype: np.dtype[Any]) -> str | None:
    """Return the format's name of a dtype, None if it has none."""
    # C has two names for one type, and NumPy a class for each (longlong); the text of a dtype tells its size.
    return _NAMES.get(dtype.type) or (_NAMES.get(np.dtype(dtype.str).type) if dtype.kind in "biufc" else None)


def header_bytes(tensors: Iterable[tuple[str, Stored]], metadata: Mapping[str, str], room: int = 0) -> bytes:
    """Return the beginning of a file, up to its first value.

    Args:
      tensors: the tensors in the order of their values; their places are counted from the first value.
      metadata: texts to add.
      room: the length in all; spaces fill it up. 0 for what is needed and a multiple of 8.
    """
    parts: dict[str, Any] = {METADATA: dict(metadata)}
    for name, stored in tensors:
        parts[name] = {
            "dtype": stored.type_name,
            "shape": stored.shape,
            "data_offsets": (stored.start, stored.end),
        }
    text = json.dumps(parts, separators=(",", ":")).encode()
    size = room - _LENGTH_BYTES if room else (len(text) + 7) // 8 * 8
    assert len(text) <= size
    return size.to_bytes(_LENGTH_BYTES, "little") + text.ljust(size)


def read_header(file: RangedFile) -> Header:
    """Read and check the beginning of a file; nothing in it is believed that the file's length does not cover.

    Raises:
      DataLossError: it is damaged.
    """
    size = int.from_bytes(file.read(0, _LENGTH_BYTES, "the length of the header"), "little")
    if size > LARGEST_HEADER:
        raise DataLossError(
            f"{file.path} is damaged, or no safetensors file: it claims a header of {size} bytes, and the format "
            f"allows {LARGEST_HEADER}."
        )
    parts = parse_json(file.read(_LENGTH_BYTES, size, "the header"), f"The header of {file.path}")
    metadata: dict[str, str] = {}
    tensors: dict[str, Stored] = {}
    for name, fields in parts.items():
        if name == METADATA:
            metadata = _metadata(fields, file.path)
        else:
            tensors[name] = _stored(fields, _LENGTH_BYTES + size, f"{file.path}, tensor {name!r},")
    _check_places(tensors, _LENGTH_BYTES + size, file)
    return Header(tensors, metadata)


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `data`, whose names must be Unicode text and each of its own.

    Raises:
      DataLossError: it is none; `what` names it.
    """
    try:
        found = json.loads(data.decode(), object_pairs_hook=_object)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
        for name in found:
            name.encode()
    except (ValueError, RecursionError) as error:
        raise DataLossError(f"{what} is damaged: it is not the JSON text that it should be ({error}).") from None
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _metadata(fields: Any, what: str) -> dict[str, str]:
    if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
        raise DataLossError(f"{what} is damaged: its {METADATA} is not made of texts.")
    return fields


def _stored(fields: Any, base: int, what: str) -> Stored:
    try:
        kind, shape, (start, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise DataLossError(f"{what} is damaged: its type, shape and place should be there.") from None
    if type(start) is not int or type(end) is not int or not 0 <= start <= end or not isinstance(kind, str):
        raise DataLossError(f"{what} is damaged: its type or its place makes no sense.")
    dtype = _TYPES.get(kind)
    itemsize = 1 if dtype is None else dtype.itemsize
    shape = checked_shape(shape, itemsize, what)
    if dtype is not None and math.prod(shape) * itemsize != end - start:
        raise DataLossError(f"{what} is damaged: {kind} of shape {shape} in {end - start} bytes.")
    return Stored(kind, dtype, shape, base + start, base + end)


def _check_places(tensors: Mapping[str, Stored], base: int, file: RangedFile) -> None:
    """The values must follow each other without holes, up to the file's end."""
    position = base
    for name, stored in sorted(tensors.items(), key=lambda item: item[1][3:]):
        if stored.start != position:
            raise DataLossError(
                f"{file.path} is damaged: the values of {name!r} begin at byte {stored.start}, and those before "
                f"them end at {position}."
            )
        position = stored.end
    if position != file.size:
        kind = "cut short" if position > file.size else "damaged"
        raise DataLossError(f"{file.path} is {kind}: its values end at byte {position}, and it has {file.size}.")

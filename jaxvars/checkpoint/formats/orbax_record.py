"""What jaxvars writes about each variable beside its values, and reads back.

The record holds what the formats of others do not: trainable flags, collections, placement, and a checksum per
variable, or per piece of one. A variable's entry leaves out what is usual, so that 10,000 of them stay small:

    {"version": 2, "variables": {"conv1/weights": {"shape": [5, 5, 1, 32], "dtype": "float32", "crc32c": 456,
        "trainable": false, "collections": [...], "placement": "/cpu:0", "file_dtype": "int64", "partition": [0, 3],
        "at": 1024}}}

``"at"`` says where the values are when they are not an array of the variable's name in the format's own way. Where
nothing else protects the record, it has a ``"crc32c"`` of its variables. Version 1 is the same without
``"file_dtype"``, ``"partition"`` and numbers ``"at"``; in Orbax checkpoints it lay in the custom metadata.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from jax.sharding import PartitionSpec

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.dtype_names import plain_dtype
from jaxvars.checkpoint.formats.orbax_layout import packed_path
from jaxvars.checkpoint.formats.orbax_pieces import Bounds, Piece
from jaxvars.checkpoint.formats.random_keys import (
    KEY_DTYPES,
    implementation,
    is_key_dtype,
    key_dtype,
    stored_form,
)
from jaxvars.checkpoint.formats.raw_arrays import checked_shape
from jaxvars.errors import DataLossError, InvalidArgumentError
from jaxvars.spec import DEFAULT_COLLECTIONS, VariableSpec

__all__ = [
    "EMPTY",
    "Entry",
    "Lazily",
    "decode_record",
    "decode_variables",
    "described_variables",
    "dtype_name",
    "encode_record",
    "encode_variables",
    "is_ours",
    "marker",
    "named_dtype",
    "read_metadata_file",
]

_CHECKPOINT_METADATA = "_CHECKPOINT_METADATA"
EMPTY = "empty"
_KEY = "jaxvars"
_VERSION = 2
_READABLE = (1, 2)
_LARGEST_METADATA = 1 << 28
_DEFAULT = {True: DEFAULT_COLLECTIONS, False: DEFAULT_COLLECTIONS[:1]}
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One variable of the record.

    Attributes:
      spec: the variable (its dtype may be a random key's).
      shape: the shape of the stored array (a key's data has one dimension more).
      dtype: the dtype of the stored array.
      crc32c: the checksum of its bytes in C order, None where no process could see all of them.
      at: "" for an array of that name, `EMPTY` for an array without elements that the format cannot hold, a number for
        the first byte in the checkpoint's file of small variables.
      pieces: the checksums of its pieces, where there is none of the whole.
    """

    spec: VariableSpec
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    crc32c: int | None
    at: str | int = ""
    pieces: tuple[Piece, ...] = ()


class Lazily(Mapping[str, _T], Generic[_T]):
    """A mapping whose values are made when they are first used: listing 10,000 names makes none.

    Args:
      raw: what the values are made of.
      make: makes one, of its name and its raw form.
    """

    def __init__(self, raw: Mapping[str, Any], make: Callable[[str, Any], _T]) -> None:
        self.raw = raw
        self._make = make
        self._made: dict[str, _T] = {}

    def __getitem__(self, name: str) -> _T:
        try:
            return self._made[name]
        except KeyError:
            value = self._made[name] = self._make(name, self.raw[name])
            return value

    def __contains__(self, name: object) -> bool:
        return name in self.raw

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


def encode_variables(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the record that describes `entries`, kept in their order, for a place with a checksum of its own."""
    return {"version": _VERSION, "variables": {entry.spec.key: _encode(entry) for entry in entries}}


def decode_variables(record: Any, what: str) -> Mapping[str, Entry]:
    """Return the variables that a record describes, each decoded when it is first used.

    Args:
      record: the record, parsed, its checksum verified.
      what: names the checkpoint in errors.

    Raises:
      DataLossError: it makes no sense (here, or when a variable is decoded).
      InvalidArgumentError: a newer jaxvars wrote it.
    """
    version = record.get("version") if isinstance(record, dict) else None
    variables = record.get("variables") if isinstance(record, dict) else None
    if isinstance(version, int) and version not in _READABLE:
        raise InvalidArgumentError(
            f"{what} was written by a newer jaxvars (record version {version}). Run: pip install -U jaxvars"
        )
    if version not in _READABLE or not isinstance(variables, dict):
        raise DataLossError(f"{what} is damaged: its record of variables makes no sense.")

    return Lazily(variables, functools.partial(_sensibly, _decode, what))


def described_variables(entries: Mapping[str, Entry], what: str) -> Mapping[str, TensorInfo]:
    """Return what `TensorInfo` says of variables that `decode_variables` gave; cheaper than their entries.

    Args:
      entries: the variables.
      what: names the checkpoint in errors.
    """
    if isinstance(entries, Lazily):
        return Lazily(entries.raw, functools.partial(_sensibly, _describe, what))
    return {name: _describe(name, _encode(entry)) for name, entry in entries.items()}


def _sensibly(make: Callable[[str, Any], _T], what: str, name: str, fields: Any) -> _T:
    try:
        return make(name, fields)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, DataLossError) as error:
        raise DataLossError(f"{what} is damaged: its record of variable {name!r} makes no sense ({error}).") from None


def _describe(name: str, fields: dict[str, Any]) -> TensorInfo:
    dtype = named_dtype(fields["dtype"])
    shape = checked_shape(fields["shape"], dtype.itemsize, f"variable {name!r}")
    return TensorInfo(name, *stored_form(shape, dtype), fields["dtype"])


def encode_record(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the record as metadata in a file that has no checksum of its own for it."""
    record = encode_variables(entries)
    return {_KEY: {**record, "crc32c": _checksum(record["variables"])}}


def decode_record(custom: Any, what: str) -> dict[str, Entry] | None:
    """Return the variables that metadata describes, None if it is not jaxvars's.

    Args:
      custom: the metadata, parsed.
      what: names the checkpoint in errors.

    Raises:
      DataLossError: it does not match its checksum, or makes no sense.
      InvalidArgumentError: a newer jaxvars wrote it.
    """
    record = custom.get(_KEY) if isinstance(custom, dict) else None
    if not isinstance(record, dict):
        return None
    variables = record.get("variables")
    if record.keys() == {"version"}:
        raise DataLossError(f"{what} is damaged: {os.path.basename(packed_path(what))} is missing in it.")
    if not isinstance(variables, dict) or record.get("crc32c") != _checksum(variables):
        raise DataLossError(f"{what} is damaged: its record of variables does not match its checksum.")
    return dict(decode_variables(record, what))


def marker() -> dict[str, Any]:
    """Return the custom metadata that tells Orbax checkpoints of ours from those of others."""
    return {_KEY: {"version": _VERSION}}


def read_metadata_file(folder: str) -> dict[str, Any]:
    """Return the parsed top metadata file of an Orbax checkpoint, {} if it has none (old ones do not).

    Raises:
      DataLossError: it is damaged.
    """
    path = os.path.join(folder, _CHECKPOINT_METADATA)
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_METADATA + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataLossError(f"Cannot read {path}: {error.strerror or error}.") from None
    try:
        metadata = json.loads(data.decode())
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise DataLossError(f"{path} is damaged: it is not the JSON text that Orbax writes.")
    return metadata


def is_ours(folder: str) -> bool:
    """Whether jaxvars wrote the Orbax checkpoint in this folder (whatever its state is now)."""
    if os.path.lexists(packed_path(folder)):
        return True
    try:
        custom = read_metadata_file(folder).get("custom_metadata")
    except DataLossError:
        return False
    return isinstance(custom, dict) and _KEY in custom


def _checksum(variables: Mapping[str, Any]) -> int:
    return crc32c(json.dumps(variables, separators=(",", ":")).encode())


def _encode(entry: Entry) -> dict[str, Any]:
    spec = entry.spec
    fields: dict[str, Any] = {"shape": list(spec.shape), "dtype": dtype_name(spec.dtype)}
    if entry.crc32c is not None:
        fields["crc32c"] = entry.crc32c
    if not spec.trainable:
        fields["trainable"] = False
    if spec.collections != _DEFAULT[spec.trainable]:
        fields["collections"] = list(spec.collections)
    if spec.placement is not None:
        fields["placement"] = _encode_placement(spec.placement)
    if spec.file_dtype:
        fields["file_dtype"] = spec.file_dtype
    if spec.partition is not None:
        fields["partition"] = list(spec.partition)
    if entry.at != "":
        fields["at"] = entry.at
    if entry.pieces:
        fields["pieces"] = entry.pieces
    return fields


def _decode(name: str, fields: dict[str, Any]) -> Entry:
    trainable = bool(fields.get("trainable", True))
    dtype = named_dtype(fields["dtype"])
    spec = VariableSpec(
        name,
        checked_shape(fields["shape"], dtype.itemsize, f"variable {name!r}"),
        dtype,
        trainable,
        tuple(fields.get("collections", _DEFAULT[trainable])),
        _decode_placement(fields.get("placement")),
        file_dtype=str(fields.get("file_dtype", "")),
        partition=_decode_partition(fields.get("partition")),
    )
    shape, stored = stored_form(spec.shape, spec.dtype)
    checksum, at = fields.get("crc32c"), fields.get("at", "")
    somewhere = at >= 0 if isinstance(at, int) else at in ("", EMPTY) and (at == EMPTY) == (math.prod(shape) == 0)
    if not somewhere:
        raise ValueError(f"shape {shape} at {at!r}")
    return Entry(spec, shape, stored, checksum, at, _decode_pieces(fields.get("pieces", []), len(shape)))


@functools.cache
def dtype_name(dtype: Any) -> str:
    """Return the name under which `named_dtype` finds the dtype again."""
    if is_key_dtype(dtype):
        implementation(dtype)  # refuses kinds of keys that could not be read back
        return str(dtype)
    return np.dtype(dtype).name


@functools.cache
def named_dtype(name: str) -> Any:
    """Return the dtype of which `dtype_name` gave the name."""
    if name in KEY_DTYPES:
        return key_dtype(name)
    dtype = plain_dtype(name)
    if dtype is None:
        raise ValueError(f"there is no dtype {name!r}")
    return dtype


def _encode_placement(placement: str | PartitionSpec) -> Any:
    if isinstance(placement, str):
        return placement
    axes = [list(axis) if isinstance(axis, tuple) else axis for axis in placement]
    # Only names can be written down; an unconstrained axis is as good as an unsharded one here.
    return {"spec": [axis if isinstance(axis, (str, list)) else None for axis in axes]}


def _decode_placement(placement: Any) -> str | PartitionSpec | None:
    if placement is None or isinstance(placement, str):
        return placement
    return PartitionSpec(*(tuple(axis) if isinstance(axis, list) else axis for axis in placement["spec"]))


def _decode_partition(partition: Any) -> tuple[int, int] | None:
    if partition is None:
        return None
    axis, slices = partition
    return int(axis), int(slices)


def _decode_pieces(pieces: Any, rank: int) -> tuple[Piece, ...]:
    return tuple((_decode_bounds(bounds, rank), int(checksum)) for bounds, checksum in pieces)


def _decode_bounds(bounds: Any, rank: int) -> Bounds:
    if len(bounds) != rank:
        raise ValueError(f"a piece {bounds} of an array with {rank} axes")
    return tuple((int(begin), int(end)) for begin, end in bounds)

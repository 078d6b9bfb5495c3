"""What jaxvars writes about each variable into an Orbax checkpoint's custom metadata, and reads back.

The record holds what Orbax does not: trainable flags, collections, placement, and a checksum per variable.
It is checksummed itself. A variable's entry leaves out what is usual, so that 10,000 of them stay small:

    {"version": 1, "crc32c": 123, "variables": {"conv1/weights": {"shape": [5, 5, 1, 32], "dtype": "float32",
        "crc32c": 456, "trainable": false, "collections": [...], "placement": "/cpu:0", "at": "empty"}}}

``"at"`` says where the values are when they are not an Orbax array of the variable's name.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from jax.sharding import PartitionSpec

from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.random_keys import (
    KEY_DTYPES,
    implementation,
    is_key_dtype,
    key_dtype,
    stored_form,
)
from jaxvars.errors import DataLossError, InvalidArgumentError
from jaxvars.spec import DEFAULT_COLLECTIONS, VariableSpec

__all__ = [
    "EMPTY",
    "Entry",
    "decode_record",
    "dtype_name",
    "encode_record",
    "is_ours",
    "named_dtype",
    "read_metadata_file",
]

_CHECKPOINT_METADATA = "_CHECKPOINT_METADATA"
EMPTY = "empty"
_KEY = "jaxvars"
_VERSION = 1
_LARGEST_METADATA = 1 << 28
_DEFAULT = {True: DEFAULT_COLLECTIONS, False: DEFAULT_COLLECTIONS[:1]}


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One variable of the record.

    Attributes:
      spec: the variable (its dtype may be a random key's).
      shape: the shape of the stored array (a key's data has one dimension more).
      dtype: the dtype of the stored array.
      crc32c: the checksum of its bytes in C order, None where no process could see all of them.
      at: "" for an Orbax array of that name, `EMPTY` for an array without elements.
    """

    spec: VariableSpec
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    crc32c: int | None
    at: str = ""


def encode_record(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the custom metadata that describes `entries`, kept in their order."""
    variables = {entry.spec.key: _encode(entry) for entry in entries}
    return {_KEY: {"version": _VERSION, "crc32c": _checksum(variables), "variables": variables}}


def decode_record(custom: Any, what: str) -> dict[str, Entry] | None:
    """Return the variables that the custom metadata describes, None if it is not jaxvars's.

    Args:
      custom: the custom metadata of a checkpoint, parsed.
      what: names the checkpoint in errors.

    Raises:
      DataLossError: it does not match its checksum, or makes no sense.
      InvalidArgumentError: a newer jaxvars wrote it.
    """
    record = custom.get(_KEY) if isinstance(custom, dict) else None
    if not isinstance(record, dict):
        return None
    variables = record.get("variables")
    if not isinstance(variables, dict) or record.get("crc32c") != _checksum(variables):
        raise DataLossError(f"{what} is damaged: its record of variables does not match its checksum.")
    if record.get("version") != _VERSION:
        raise InvalidArgumentError(
            f"{what} was written by a newer jaxvars (record version {record.get('version')}). "
            "Run: pip install -U jaxvars"
        )
    try:
        return {name: _decode(name, entry) for name, entry in variables.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataLossError(f"{what} is damaged: its record of variables makes no sense ({error}).") from None


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
    if entry.at:
        fields["at"] = entry.at
    return fields


def _decode(name: str, fields: dict[str, Any]) -> Entry:
    trainable = bool(fields.get("trainable", True))
    dtype = named_dtype(fields["dtype"])
    spec = VariableSpec(
        name,
        tuple(fields["shape"]),
        dtype,
        trainable,
        tuple(fields.get("collections", _DEFAULT[trainable])),
        _decode_placement(fields.get("placement")),
    )
    shape, stored = stored_form(spec.shape, spec.dtype)
    checksum, at = fields.get("crc32c"), fields.get("at", "")
    if min(shape, default=0) < 0 or at not in ("", EMPTY) or (at == EMPTY) != (math.prod(shape) == 0):
        raise ValueError(f"variable {name!r} of shape {shape} at {at!r}")
    return Entry(spec, shape, stored, checksum, at)


def dtype_name(dtype: Any) -> str:
    """Return the name under which `named_dtype` finds the dtype again."""
    if is_key_dtype(dtype):
        implementation(dtype)  # refuses kinds of keys that could not be read back
        return str(dtype)
    return np.dtype(dtype).name


def named_dtype(name: str) -> Any:
    """Return the dtype of which `dtype_name` gave the name."""
    if name in KEY_DTYPES:
        return key_dtype(name)
    return np.dtype(getattr(ml_dtypes, name, name))


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

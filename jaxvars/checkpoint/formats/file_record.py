"""The record of variables in files whose formats have no place for trainable flags and collections.

It is the record that Orbax checkpoints of ours hold, as a JSON text. A file is ours when it has one; then
the tensors in the file must be those of the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.orbax_record import EMPTY, Entry, decode_record, dtype_name, encode_record
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.checkpoint.formats.random_keys import is_key_dtype
from jaxvars.errors import DataLossError, InvalidArgumentError, some_names

__all__ = ["check_record", "dtype_in_file", "entry_of", "parse_record", "record_text", "refuse_names", "shown_type"]


def entry_of(item: Outgoing, checksum: int | None = None) -> Entry:
    """Return the record's entry for a variable, as it is stored in the file.

    Args:
      item: the variable.
      checksum: the crc32c of its values, None where the format has its own.
    """
    shape = item.shape
    empty = 0 in shape
    return Entry(item.spec, shape, item.dtype, None if empty else checksum, EMPTY if empty else "")


def dtype_in_file(entry: Entry) -> np.dtype[Any]:
    """Return the dtype that the values have in the file: that of the variable, or the wider one it came from."""
    return np.dtype(entry.spec.file_dtype) if entry.spec.file_dtype else entry.dtype


def shown_type(entry: Entry | None, dtype: np.dtype[Any]) -> str:
    """Return what a tensor's type is called: that of its values, but random keys by their kind."""
    return dtype_name(entry.spec.dtype if entry is not None and is_key_dtype(entry.spec.dtype) else dtype)


def record_text(entries: Iterable[Entry]) -> str:
    """Return the record as an ASCII text."""
    return json.dumps(encode_record(entries), separators=(",", ":"))


def parse_record(text: str, what: str) -> dict[str, Entry]:
    """Return the variables that a record describes, in the order in which they were saved.

    Raises:
      DataLossError: it is damaged; `what` names the file.
      InvalidArgumentError: a newer jaxvars wrote it.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    try:
        entries = decode_record(record, what)
        for entry in (entries or {}).values():
            dtype_in_file(entry)
    except (TypeError, OverflowError):  # no dtype, an infinite dimension
        entries = None
    if entries is None:
        raise DataLossError(f"{what} is damaged: its record of variables cannot be read.")
    return entries


def check_record(entries: Mapping[str, Entry], tensors: Mapping[str, TensorInfo], what: str) -> None:
    """Check that a file holds just the tensors of its record.

    Raises:
      DataLossError: it does not.
    """
    differing = sorted(entries.keys() ^ tensors.keys())
    differing += [
        name
        for name, entry in entries.items()
        if name in tensors and (tensors[name].shape, tensors[name].dtype) != (entry.shape, dtype_in_file(entry))
    ]
    if differing:
        raise DataLossError(
            f"{what} is damaged, or another program changed it: it does not hold what its record says. "
            f"Names that differ: {some_names(differing)}."
        )


def refuse_names(items: Iterable[Outgoing], what: str) -> None:
    """Refuse names that are no Unicode text.

    Args:
      items: what is to be written.
      what: the format, as in ``"A .npz file"``.

    Raises:
      InvalidArgumentError: some are not.
    """
    for item in items:
        try:
            item.name.encode()
        except UnicodeEncodeError:
            raise InvalidArgumentError(
                f"{what} cannot hold the name {item.name!r}, which is no Unicode text (it has half of a surrogate "
                'pair). Rename it first: variables.rename({"old name": "new name"})'
            ) from None

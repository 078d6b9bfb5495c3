"""The record of variables in files whose formats have no place for trainable flags and collections.

It is the record that Orbax checkpoints of ours hold, as a JSON text. A file is ours when it has one; then
the tensors in the file must be those of the record.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.orbax_record import EMPTY, Entry, decode_record, dtype_name, encode_record
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["check_record", "entry_of", "parse_record", "record_text", "refuse_names", "type_name"]


def entry_of(item: Outgoing, checksum: int | None = None) -> Entry:
    """Return the record's entry for a variable, as it is stored in the file.

    Args:
      item: the variable. Where its dtype in files is wider than its own, the entry has that of the file.
      checksum: the crc32c of its values, None where the format has its own.
    """
    shape, dtype = item.shape, item.dtype
    spec = dataclasses.replace(item.spec, dtype=dtype) if item.spec.file_dtype else item.spec
    empty = 0 in shape
    return Entry(spec, shape, dtype, None if empty else checksum, EMPTY if empty else "")


def type_name(dtype: Any) -> str:
    """Return the name of a dtype, or of a kind of random keys."""
    return _plain_name(dtype.type) if isinstance(dtype, np.dtype) else dtype_name(dtype)


@functools.cache
def _plain_name(scalar: type[Any]) -> str:
    """NumPy puts the name together anew each time."""
    return dtype_name(scalar)


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
        entries = decode_record(json.loads(text), what)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
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
        if name in tensors and (tensors[name].shape, tensors[name].dtype) != (entry.shape, np.dtype(entry.dtype))
    ]
    if differing:
        raise DataLossError(
            f"{what} is damaged, or another program changed it: it does not hold what its record says. "
            f"Names that differ: {', '.join(differing[:5])}"
            f"{f' and {len(differing) - 5} more' if len(differing) > 5 else ''}."
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

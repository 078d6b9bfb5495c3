"""Writing TensorFlow's V2 checkpoints: ``P.index`` and ``P.data-00000-of-00001``, as TensorFlow itself writes them.

A checkpoint is two files and must change at once. The index is what makes it exist, and names its data files
by their number, so new values never go under a name that the present index refers to. Saving over a checkpoint goes:

1. write the values to a hidden file and flush it;
2. call it ``P.data-00000-of-00001``; where the present index refers to that name, ``P.data-00000-of-00002``;
3. replace the index, in one step: from here on the new checkpoint is there, until here the old one was;
4. delete the old data files; after ``-of-00002``, link the data under the usual name too, replace the index by one
   that refers to it, and drop the other name.

A process killed at any point leaves one of the two checkpoints, whole, under the same path, for every reader,
TensorFlow's included. What else it leaves (hidden files, data files without index) goes with the next save.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats import tf_types
from jaxvars.checkpoint.formats.atomic import sync_folder, unfinished_file, whole_file
from jaxvars.checkpoint.formats.bundle_index import data_path, read_header
from jaxvars.checkpoint.formats.bundle_strings import encode_strings
from jaxvars.checkpoint.formats.crc32c import crc32c, mask
from jaxvars.checkpoint.formats.files import list_folder
from jaxvars.checkpoint.formats.locks import locked_folder
from jaxvars.checkpoint.formats.orbax_layout import is_orbax_folder
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.checkpoint.formats.protos import BYTES, FIXED32, VARINT, write_field
from jaxvars.checkpoint.formats.table_writer import write_table
from jaxvars.checkpoint.formats.tensor_slice import TensorSlice, even_slices, slice_key, write_slice
from jaxvars.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    JaxvarsError,
    NotFoundError,
    some_names,
)

__all__ = ["save_bundle"]

_GLOBAL_STEP = "global_step"


def save_bundle(items: Sequence[Outgoing], prefix: str) -> None:
    """Write a V2 checkpoint; one that is at `prefix` is replaced at once, when the new one is complete.

    Values are taken one after the other. A variable whose spec notes a partition is stored in slices, as
    TensorFlow stores partitioned variables. TF1's global step is stored as int64, as TensorFlow's is.

    Args:
      items: what to write; the order does not matter.
      prefix: the path without ``.index``.

    Raises:
      InvalidArgumentError: names or dtypes that TensorFlow lacks, a name twice, or an Orbax checkpoint in the way.
      InvalidTypeError: an array of objects that are no strings.
      FailedPreconditionError: the disk or the folder refuses. What was there before is unchanged.
    """
    _check(items)
    if is_orbax_folder(prefix):
        raise InvalidArgumentError(
            f"Cannot save to {prefix}: an Orbax checkpoint of that name is there, and would no longer be found. "
            "Choose another name."
        )
    try:
        with unfinished_file(prefix + ".data") as file:
            entries = _write_values(file, items)
            file.flush()
            os.fsync(file.fileno())
            with locked_folder(os.path.dirname(prefix)):
                _commit(file.name, sorted(entries), prefix)
    except JaxvarsError:
        raise
    except OSError as error:
        raise FailedPreconditionError(
            f"Cannot write {prefix}: {error.strerror or error}. What was there before is unchanged."
        ) from error


def _check(items: Sequence[Outgoing]) -> None:
    """Refuse what TensorFlow has no form for, all of it at once, before anything is written."""
    _refuse([item.name for item in items if not _is_name(item.name)], "TensorFlow's files cannot have the names")
    counts = Counter(item.name for item in items)
    _refuse([name for name, count in counts.items() if count > 1], "These are given twice:")
    unknown = [f"{item.name} ({item.dtype})" for item in items if tf_types.type_number(item.dtype) is None]
    _refuse(unknown, "TensorFlow's files have no such dtype:")


def _refuse(names: Sequence[str], what: str) -> None:
    if names:
        raise InvalidArgumentError(f"Cannot save: {what} {some_names(list(map(repr, names)))}.")


def _is_name(name: str) -> bool:
    """The empty name is the header's, and names that begin with a zero byte are those of slices."""
    try:
        return bool(name.encode()) and not name.startswith("\0")
    except UnicodeEncodeError:
        return False


# The values.


class _Stored(NamedTuple):
    """Where values lie in the data file."""

    offset: int
    size: int
    crc: int


def _write_values(file: BinaryIO, items: Sequence[Outgoing]) -> list[tuple[bytes, bytes]]:
    """Write all values, and return the entries of the index."""
    entries: list[tuple[bytes, bytes]] = []
    offset = 0
    for item in sorted(items, key=lambda item: item.name.encode()):
        offset = _write_item(file, offset, item, entries)
    return entries


def _write_item(file: BinaryIO, offset: int, item: Outgoing, entries: list[tuple[bytes, bytes]]) -> int:
    """Write the values of a variable at `offset`, add its entries, and return where they end."""
    array, key = _array(item), item.name.encode()
    parts = even_slices(array.shape, item.spec.partition)
    pieces = [(key, array)]
    if parts:
        entries.append((key, _entry(array.dtype, array.shape, None, parts)))
        pieces = [(slice_key(key, part), array[part.index(array.shape)]) for part in parts]
    for name, values in pieces:
        stored = _append(file, offset, np.ascontiguousarray(values).reshape(values.shape), item.name)
        entries.append((name, _entry(values.dtype, values.shape, stored)))
        offset += stored.size
    return offset


def _array(item: Outgoing) -> npt.NDArray[Any]:
    array = item.array()
    if array.shape != item.shape:
        raise InvalidArgumentError(f"Cannot save {item.name}: its value has shape {array.shape}, not {item.shape}.")
    is_step = item.name == _GLOBAL_STEP or _GLOBAL_STEP in item.spec.collections
    return array.astype(np.int64) if is_step and array.dtype == np.int32 else array


def _append(file: BinaryIO, offset: int, array: npt.NDArray[Any], name: str) -> _Stored:
    if array.dtype.hasobject:
        data, crc = encode_strings(array, f"{name!r}")
        file.write(data)
        return _Stored(offset, len(data), mask(crc))
    octets = array.reshape(-1).view(np.uint8)
    file.write(octets.data)
    return _Stored(offset, octets.size, mask(crc32c(octets)))


# The messages of the index.


def _header(num_shards: int) -> bytes:
    """BundleHeaderProto of version 1."""
    return write_field(1, VARINT, num_shards) + write_field(3, BYTES, write_field(1, VARINT, 1))


def _entry(
    dtype: np.dtype[Any], shape: Sequence[int], stored: _Stored | None, parts: Sequence[TensorSlice] = ()
) -> bytes:
    """BundleEntryProto: where values lie, or which slices they are in."""
    number = tf_types.type_number(dtype)
    assert number is not None
    dims = b"".join(write_field(2, BYTES, write_field(1, VARINT, dim)) for dim in shape)
    message = write_field(1, VARINT, number) + write_field(2, BYTES, dims)
    if stored is not None:
        message += write_field(4, VARINT, stored.offset) + write_field(5, VARINT, stored.size)
        message += write_field(6, FIXED32, stored.crc)
    return message + b"".join(write_field(7, BYTES, write_slice(part)) for part in parts)


# The files.


def _commit(hidden: str, entries: Sequence[tuple[bytes, bytes]], prefix: str) -> None:
    """Make the values in `hidden` the checkpoint at `prefix`."""
    number = 2 if _present_number(prefix) == 1 else 1
    os.replace(hidden, data_path(prefix, 0, number))
    sync_folder(os.path.dirname(prefix))
    _write_index(prefix, entries, number)
    # The new checkpoint is there. What may go wrong now is no reason to say that it is not.
    with contextlib.suppress(OSError, FailedPreconditionError):
        _delete_data(prefix, number)
        if number > 1:
            os.link(data_path(prefix, 0, number), data_path(prefix, 0, 1))
            sync_folder(os.path.dirname(prefix))
            _write_index(prefix, entries, 1)
            _delete_data(prefix, 1)


def _write_index(prefix: str, entries: Sequence[tuple[bytes, bytes]], num_shards: int) -> None:
    with whole_file(prefix + ".index") as file:
        write_table(file, [(b"", _header(num_shards)), *entries])


def _present_number(prefix: str) -> int:
    """By which number the present index knows its data files; 0 without index, 1 where it cannot be read."""
    try:
        return read_header(prefix + ".index").num_shards
    except NotFoundError:
        return 0
    except (DataLossError, InvalidArgumentError):
        return 1


def _delete_data(prefix: str, kept: int) -> None:
    """Delete all data files of `prefix` but those ``-of-<kept>``."""
    folder, base = os.path.split(prefix)
    pattern = re.compile(re.escape(base) + r"\.data-\d{5}-of-(\d{5})\Z")
    for name in list_folder(folder or "."):
        match = pattern.match(name)
        if match and int(match[1]) != kept:
            os.unlink(os.path.join(folder, name))

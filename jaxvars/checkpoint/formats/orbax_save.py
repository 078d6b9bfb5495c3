"""Writing variables as an Orbax checkpoint: whole or not at all."""

from __future__ import annotations

import concurrent.futures
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
import numpy.typing as npt

from jaxvars.buffers import is_concrete
from jaxvars.checkpoint.formats.crc32c import crc32c
from jaxvars.checkpoint.formats.file_record import refuse_names
from jaxvars.checkpoint.formats.locks import locked_folder
from jaxvars.checkpoint.formats.orbax import orbax_module
from jaxvars.checkpoint.formats.orbax_calls import calling_orbax
from jaxvars.checkpoint.formats.orbax_layout import clean_leftovers, new_path, replace_folder, sync_files
from jaxvars.checkpoint.formats.orbax_packing import LARGEST_PACKED, PackedWriter
from jaxvars.checkpoint.formats.orbax_pieces import Piece, checksum_pieces
from jaxvars.checkpoint.formats.orbax_record import Entry, dtype_name, is_ours, marker
from jaxvars.checkpoint.formats.outgoing import Outgoing, refuse_strings
from jaxvars.checkpoint.formats.random_keys import is_key_dtype, stored_form
from jaxvars.checkpoint.together import all_or_none
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError

__all__ = ["save_orbax"]

# Orbax writes data files of this size side by side; one of 2 GB, its default, takes three times as long.
_DATA_FILE_BYTES = 1 << 24
_MOST_DATA_FILES = 256

# Of each array Orbax lists the devices, for those who load it and do not say where to: 16 bytes for a device. We always
# say, but each process reads the list all the same, so a list that would take longer than the values is left out.
_MOST_LISTED_DEVICES = 1 << 20

_Checksums: TypeAlias = tuple[int | None, tuple[Piece, ...]]  # of the whole, or of its pieces


def save_orbax(items: Sequence[Outgoing], path: str) -> None:
    """Write a checkpoint folder at `path`; one that is there is replaced only when the new one is complete.

    With several processes all must call it.

    Raises:
      InvalidArgumentError: something that is no checkpoint of this kind is in the way; strings.
      FailedPreconditionError: the disk refuses.
    """
    refuse_strings(items, "An Orbax checkpoint")
    refuse_names(items, "An Orbax checkpoint")
    for item in items:
        dtype_name(item.spec.dtype)  # refuses kinds of keys that could not be read back
    if jax.process_count() == 1:
        _write(items, path, new_path(path))
    else:
        _write_together(items, path)


def _check_place(path: str) -> None:
    """Refuse to replace anything but a checkpoint of our own."""
    if not os.path.isdir(os.path.dirname(path)):
        return
    with locked_folder(os.path.dirname(path)):
        if not os.path.lexists(path) or is_ours(path) or (os.path.isdir(path) and not os.listdir(path)):
            return
    raise InvalidArgumentError(
        f"Cannot save to {path}: what is there is not a checkpoint that jaxvars wrote, and saving would "
        "delete it. Choose another name."
    )


def _write(items: Sequence[Outgoing], path: str, new: str) -> None:
    shared = jax.process_count() > 1
    unchanged = " What was there before is unchanged."
    with calling_orbax(FailedPreconditionError, f"Cannot save to {path}", unchanged):
        # Once Orbax is at work its processes wait for each other: what can fail before that is tried before.
        with all_or_none(f"Cannot save to {path}"):
            _check_place(path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
        if not shared:
            clean_leftovers(path)
        try:
            checksums = _write_arrays([item for item in items if not _is_packed(item)], new)
            if jax.process_index() == 0:
                _write_packed(items, checksums, new)
                sync_files(new)
                replace_folder(new, path)
        finally:
            if not shared:
                clean_leftovers(path)


def _write_together(items: Sequence[Outgoing], path: str) -> None:
    """Write with all processes; when one fails, the others say so instead of waiting for it."""
    new = new_path(path, shared=True)
    try:
        with all_or_none(f"Cannot save to {path}"):
            _write(items, path, new)
    finally:
        if jax.process_index() == 0:
            shutil.rmtree(new, ignore_errors=True)


def _is_packed(item: Outgoing) -> bool:
    shape, dtype = stored_form(item.spec.shape, item.spec.dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    return nbytes == 0 or (nbytes <= LARGEST_PACKED and _is_whole(item.value))


def _is_whole(value: Any) -> bool:
    """Whether this process can see all of the value."""
    return not is_concrete(value) or value.is_fully_addressable or value.is_fully_replicated


def _write_arrays(items: Sequence[Outgoing], new: str) -> dict[str, _Checksums]:
    """Let Orbax write a checkpoint of the large variables; returns their checksums."""
    values = {item.name: _leaf(item) for item in items}
    pieces = checksum_pieces({name: value for name, value in values.items() if not _is_whole(value)})
    context = orbax_module().Context()
    saving = context.array.saving
    saving.use_compression = False  # float noise shrinks by 7 % and takes twice the time
    nbytes = sum(value.nbytes for value in values.values())
    saving.ocdbt_target_data_file_size = max(_DATA_FILE_BYTES, nbytes // _MOST_DATA_FILES)
    saving.enable_write_sharding_file = sum(map(_devices, values.values())) <= _MOST_LISTED_DEVICES
    context.memory.deepcopy_host_arrays = False  # nothing changes them before this returns
    # Orbax refuses an empty tree.
    tree = values or {"": np.zeros(1, np.uint8)}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        checksums = pool.submit(_checksums, {name: value for name, value in values.items() if name not in pieces})
        with context:
            orbax_module().save(new, tree, custom_metadata=marker(), overwrite=jax.process_count() > 1)
        return {name: (None, parts) for name, parts in pieces.items()} | checksums.result()


def _leaf(item: Outgoing) -> Any:
    """What Orbax is given: the host copy, but a sharded array as it is (Orbax writes it piece by piece)."""
    value = item.value
    if is_concrete(value) and len(value.sharding.device_set) > 1 and not value.is_fully_replicated:
        return jax.random.key_data(value) if is_key_dtype(value.dtype) else value
    return _host_array(item)


def _devices(value: Any) -> int:
    return len(value.sharding.device_set) if is_concrete(value) else 0


def _host_array(item: Outgoing) -> npt.NDArray[Any]:
    array = item.plain_array()
    shape, dtype = stored_form(item.spec.shape, item.spec.dtype)
    if array.shape != shape or array.dtype != dtype:
        raise InvalidArgumentError(
            f"Cannot save {item.name!r}: its value is {array.dtype} of shape {array.shape}, but the variable is "
            f"{dtype} of shape {shape}."
        )
    return array


def _checksums(values: Mapping[str, Any]) -> dict[str, _Checksums]:
    return {name: (crc32c(np.asarray(value)), ()) for name, value in values.items()}


def _write_packed(items: Sequence[Outgoing], checksums: Mapping[str, _Checksums], folder: str) -> None:
    with PackedWriter(folder) as writer:
        entries: list[Entry] = []
        for item in items:
            if item.name in checksums:
                whole, pieces = checksums[item.name]
                entries.append(Entry(item.spec, item.shape, item.plain_dtype, whole, pieces=pieces))
            else:
                array = _host_array(item)
                entries.append(Entry(item.spec, array.shape, array.dtype, crc32c(array), writer.add(array)))
        writer.finish(entries)

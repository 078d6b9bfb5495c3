"""Saving what several processes hold in a file of one: process 0 writes it, and asks for one variable after the other.

Only Orbax writes with all processes at once. For any other format each variable is brought together on process 0 when
its turn comes, in small pieces, so that beside the shards there is never more than one variable, and only there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from jaxvars.buffers import is_concrete
from jaxvars.checkpoint.formats.orbax_pieces import Bounds, bounds_of
from jaxvars.checkpoint.formats.outgoing import Outgoing, Writer
from jaxvars.checkpoint.formats.random_keys import is_key_dtype
from jaxvars.checkpoint.together import all_or_none, told_by_all

__all__ = ["write_gathered"]

_DONE = -1
_MOST_BYTES_AT_ONCE = 1 << 22  # each device of each process has them once


def write_gathered(items: Sequence[Outgoing], path: str, writer: Writer) -> None:
    """Let process 0 write a file of variables that several processes hold; all must call it.

    Raises:
      FailedPreconditionError: another process failed.
    """
    what = f"Cannot save to {path}"
    with all_or_none(what):
        if jax.process_index() == 0:
            try:
                writer([_asked_for(item, number, what) for number, item in enumerate(items)], path)
            finally:
                told_by_all(_DONE, what)
        else:
            while (number := told_by_all(None, what)[0]) != _DONE:
                _brought_together(items[number].value)


def _asked_for(item: Outgoing, number: int, what: str) -> Outgoing:
    if not is_concrete(item.value) or item.value.is_fully_addressable or item.value.is_fully_replicated:
        return item

    def value() -> npt.NDArray[Any]:
        told_by_all(number, what)
        return _brought_together(item.value)

    return Outgoing(item.spec, value)


def _brought_together(value: jax.Array) -> npt.NDArray[Any]:
    """The whole of an array on process 0, nothing elsewhere; all processes must call it."""
    if is_key_dtype(value.dtype):
        value = jax.random.key_data(value)
    own = jax.process_index()
    whole = np.empty(value.shape if own == 0 else (0,), value.dtype)
    here = {bounds_of(shard.index, value.shape): shard.data for shard in value.addressable_shards}
    for bounds, owner in sorted(_owners(value).items()):
        place = tuple(slice(begin, end) for begin, end in bounds)
        shape = tuple(end - begin for begin, end in bounds)
        if owner:
            octets = np.ascontiguousarray(here[bounds]).reshape(-1).view(np.uint8) if own == owner else None
            sent = _sent(octets, math.prod(shape) * value.dtype.itemsize, owner)
            if own == 0:
                whole[place] = sent.view(value.dtype).reshape(shape)
        elif own == 0:
            whole[place] = here[bounds]
    return whole


def _owners(value: jax.Array) -> dict[Bounds, int]:
    """The different pieces of an array, each with the first process that holds it."""
    owners: dict[Bounds, int] = {}
    for device, index in value.sharding.devices_indices_map(value.shape).items():
        process: int = device.process_index
        bounds = bounds_of(index, value.shape)
        owners[bounds] = min(process, owners.get(bounds, process))
    return owners


def _sent(octets: npt.NDArray[np.uint8] | None, nbytes: int, owner: int) -> npt.NDArray[np.uint8]:
    """Send bytes from one process to process 0; to the others too, who forget them."""
    from jax.experimental import multihost_utils

    received = np.empty(nbytes if jax.process_index() == 0 else 0, np.uint8)
    for begin in range(0, nbytes, _MOST_BYTES_AT_ONCE):
        end = min(begin + _MOST_BYTES_AT_ONCE, nbytes)
        said = np.zeros(end - begin, np.uint8) if octets is None else octets[begin:end]
        told = multihost_utils.broadcast_one_to_all(said, jax.process_index() == owner)
        if received.size:
            received[begin:end] = told
    return received

"""Device buffers behind the values: which are shared, which are gone, and who took them.

Donation hands a buffer to XLA, so two names must never share one, and a value whose buffer was donated must
say so when it is read. Both need questions about concrete arrays that tracers and holes do not answer.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

__all__ = [
    "buffer_id",
    "copied",
    "donated_by",
    "is_concrete",
    "is_deleted",
    "is_weak",
    "note_donation",
    "unshared",
]

# type -> whether it is a concrete device array. A dict lookup is five times cheaper than isinstance on the
# abstract class jax.Array, and this is asked at each read of a value.
_concrete_types: dict[type, bool] = {}

# id of a donated array -> (weak reference to it, what donated it). Entries go with their array.
_donations: dict[int, tuple[weakref.ref[Any], str]] = {}


def is_concrete(value: Any) -> bool:
    """Return whether `value` is a `jax.Array` with a buffer: not a tracer, hole or NumPy array."""
    kind = type(value)
    known = _concrete_types.get(kind)
    if known is None:
        known = issubclass(kind, jax.Array) and not issubclass(kind, Tracer)
        _concrete_types[kind] = known
    return known


def is_weak(value: Any) -> bool:
    """Return whether the array or tracer has the weak dtype of a Python number; random keys have not."""
    return getattr(value, "weak_type", False)


def is_deleted(value: Any) -> bool:
    """Return whether `value` is an array whose buffer was donated or deleted."""
    return is_concrete(value) and value.is_deleted()


def note_donation(array: Any, text: str) -> None:
    """Remember what donated `array`, for the error when it is read; keeps nothing alive."""
    number = id(array)
    _donations[number] = (weakref.ref(array, lambda _: _donations.pop(number, None)), text)


def donated_by(array: Any) -> str:
    """Return the text given to `note_donation` for this very array, "" if there is none."""
    entry = _donations.get(id(array))
    return entry[1] if entry is not None and entry[0]() is array else ""


def buffer_id(value: Any) -> int | None:
    """Return a number equal for arrays that may share a buffer; None for what has no buffer.

    Two `jax.Array` objects can share one buffer (``jax.device_put`` to where an array already is), so the
    address is asked, not the object. Never waits for the value to be computed.
    """
    if not is_concrete(value) or value.is_deleted():
        return None
    array = value.addressable_shards[0].data if _is_spread(value) else value
    pointer = getattr(array, "unsafe_buffer_pointer", None)
    if pointer is None or array.size == 0:  # random key arrays; empty arrays all have address 0
        return -id(value)
    return pointer()


def _is_spread(value: Any) -> bool:
    """Whether the array lies on several devices, some of them here."""
    sharding = value.sharding
    return len(sharding.device_set) > 1 and bool(sharding.addressable_devices)


def copied(value: Any) -> Any:
    """Return `value` in a buffer of its own: a concrete array is copied, everything else is returned."""
    return jnp.copy(value) if is_concrete(value) else value


def unshared(leaves: Iterable[Any]) -> tuple[Any, ...]:
    """Return `leaves` with each array copied that shares its buffer with an earlier one."""
    seen: set[int] = set()
    result: list[Any] = []
    for leaf in leaves:
        number = buffer_id(leaf)
        if number is not None and number in seen:
            leaf = copied(leaf)
        elif number is not None:
            seen.add(number)
        result.append(leaf)
    return tuple(result)

"""Running one initializer: which compiled code makes a value, where it is kept, what a value must be."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.core import Tracer

from jaxvars._arguments import as_dtype, cast_host_value, check_dtype_change, value_as_array
from jaxvars.buffers import copied
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.initializers import Initializer, needs_key
from jaxvars.initializers._identity import identity_of
from jaxvars.initializers._part import MakeAll, Part
from jaxvars.keeping import spread

__all__ = [
    "Maker",
    "Task",
    "constant_value",
    "host_memory",
    "make_now",
    "make_together",
    "make_traced",
    "own_part",
    "placed",
    "put",
]

Maker: TypeAlias = Callable[[Any], jax.Array]

# Enough for the distinct shapes of several large models; an executable is a few hundred kilobytes at most.
_MAX_EXECUTABLES = 1024
# Of whole modules, whose functions keep the module alive.
_MAX_PROGRAMS = 64
# A function that is not ours may round its last bit otherwise when XLA splits it over devices. Up to this size
# its value is made on one device, and then spread.
_WHOLE_BYTES = 1 << 24
# XLA takes over host memory that begins at a multiple of this.
_ALIGNMENT = 64


class Task(NamedTuple):
    """One hole to fill."""

    name: str
    initializer: Callable[..., Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sharding: jax.sharding.Sharding | None


def constant_value(task: Task) -> np.ndarray[Any, Any] | None:
    """The value where it is known without JAX, else None."""
    if not isinstance(task.initializer, Initializer):
        return None
    return task.initializer.constant_value(task.shape, task.dtype)


def put(host: np.ndarray[Any, Any], sharding: jax.sharding.Sharding | None) -> jax.Array:
    """Put an array on its devices; of one that several processes hold, each puts the parts that are its own.

    On a CPU the result may be the memory of `host` itself, which therefore must be the caller's own, in no
    other
    use: else a later write into it, or a donation, would show in two places.
    """
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(host, sharding)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: own_part(host, index), dtype=host.dtype)


def own_part(host: np.ndarray[Any, Any], index: Any) -> np.ndarray[Any, Any]:
    """Return ``host[index]`` in memory that does not keep all of `host` alive."""
    part = host[index]
    if part.size == host.size or 0 in part.strides:  # a view of one element is copied when it is put
        return part
    own = host_memory(part.shape, part.dtype)
    own[...] = part
    return own


def host_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return new host memory that JAX takes over on a CPU, without a copy."""
    nbytes = math.prod(shape) * dtype.itemsize
    room = np.empty(nbytes + _ALIGNMENT, np.uint8)
    skip = -room.ctypes.data % _ALIGNMENT
    return room[skip : skip + nbytes].view(dtype).reshape(shape)


def make_now(task: Task, row: np.ndarray[Any, Any] | None, impl: str, shared: dict[Hashable, Maker]) -> jax.Array:
    """Make a value on its devices.

    Args:
      task: the hole.
      row: the raw data of the variable's key, None if it needs none.
      impl: the name of the key's implementation.
      shared: code that serves for the rest of this call of ``fill`` only; written into.
    """
    if _is_value(task.initializer):
        return placed(_direct(task), task.sharding)
    if task.sharding is not None and _is_made_whole(task):
        return placed(make_now(task._replace(sharding=None), row, impl, shared), task.sharding)
    identity = identity_of(task.initializer)
    if identity is not None:
        kept = _Kept(identity, task.initializer)
        return _kept_executable(kept, task.shape, task.dtype, task.sharding, impl)(row)
    local = (id(task.initializer), task.shape, task.dtype, task.sharding)
    if local not in shared:
        ready, make = _prepare(task, row, impl)
        if make is None:
            return ready
        if not needs_key(task.initializer):
            return make(row)  # not shared: without a key it may well draw from a generator of its own
        shared[local] = make
    return shared[local](row)


def _is_value(initializer: Any) -> bool:
    """Whether an initializer of ours has its value at hand, traced or not."""
    return isinstance(initializer, Initializer) and not initializer.draws


def _is_made_whole(task: Task) -> bool:
    """Whether a sharded value is made on one device (of each process), then cut."""
    # XLA gives the shards of an empty value wrong shapes.
    if getattr(task.initializer, "is_joint", False) or 0 in task.shape:
        return True
    foreign = not isinstance(task.initializer, Initializer)
    return foreign and math.prod(task.shape) * task.dtype.itemsize <= _WHOLE_BYTES


def _direct(task: Task) -> jax.Array:
    return _strict(task.initializer(None, task.shape, task.dtype), task.shape, task.dtype)


def _prepare(task: Task, row: Any, impl: str) -> tuple[Any, Maker | None]:
    """Trace a function that may differ next time, such as a lambda over local values; no cache keeps it.

    A function that returns a ready array, say pretrained weights, is not compiled: the array would become
    part of the program. It is returned, on its devices, as the first result.
    """
    ready: list[Any] = []

    def make(row: Any) -> jax.Array:
        value = task.initializer(_unpack(row, impl), task.shape, task.dtype)
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
            ready.append(value)
        return _strict(value, task.shape, task.dtype)

    jitted = _jit(make, task.sharding)
    jitted.trace(row)  # the call that follows does not trace again
    if not ready:
        return None, jitted
    array = value_as_array(ready[0])
    if jnp.issubdtype(task.dtype, dtypes.extended):
        return jax.device_put(jnp.copy(array), task.sharding), None
    return put(np.array(cast_host_value(np.asarray(array), task.dtype)), task.sharding), None


class _Kept:
    """An initializer that is compared by its identity alone, as part of a cache key."""

    def __init__(self, identity: Hashable, initializer: Callable[..., Any]) -> None:
        self.identity, self.initializer = identity, initializer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


@functools.lru_cache(maxsize=_MAX_EXECUTABLES)
def _kept_executable(
    kept: _Kept,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    sharding: jax.sharding.Sharding | None,
    impl: str,
) -> Maker:
    def make(row: Any) -> jax.Array:
        return _strict(kept.initializer(_unpack(row, impl), shape, dtype), shape, dtype)

    return _jit(make, sharding)


def _jit(make: Maker, sharding: jax.sharding.Sharding | None) -> Any:
    return jax.jit(make) if sharding is None else jax.jit(make, out_shardings=sharding)


def _unpack(row: Any, impl: str) -> jax.Array | None:
    return None if row is None else jax.random.wrap_key_data(row, impl=impl)


def make_traced(task: Task, key: Any) -> jax.Array:
    """Make a value under a trace, from the variable's key.

    A `NamedSharding` becomes a constraint. A single device cannot be chosen inside ``jit``: its caller
    decides.
    """
    if _is_value(task.initializer):
        value = _direct(task)
    else:
        # Jitted here too: under vmap alone the operations would run one by one, and round otherwise.
        value = _traced_maker(task)(key)
    return placed(value, task.sharding) if isinstance(task.sharding, jax.sharding.NamedSharding) else value


def placed(value: jax.Array, sharding: jax.sharding.Sharding | None) -> jax.Array:
    """Put a value that was made elsewhere on its devices; under a trace, where that is possible."""
    if sharding is None:
        return value
    if not isinstance(value, Tracer):
        if sharding.is_fully_addressable or jnp.issubdtype(value.dtype, dtypes.extended):
            return jax.device_put(value, sharding)
        return put(np.asarray(value), sharding)  # JAX would send all of it round, to compare
    if isinstance(sharding, jax.sharding.NamedSharding):
        return cast(jax.Array, spread(value, sharding))
    return value


def _traced_maker(task: Task) -> Maker:
    identity = identity_of(task.initializer)
    if identity is not None:
        return _kept_traced(_Kept(identity, task.initializer), task.shape, task.dtype)
    return jax.jit(lambda key: _strict(task.initializer(key, task.shape, task.dtype), task.shape, task.dtype))


@functools.lru_cache(maxsize=_MAX_EXECUTABLES)
def _kept_traced(kept: _Kept, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Maker:
    return jax.jit(lambda key: _strict(kept.initializer(key, shape, dtype), shape, dtype))


def make_together(group: Sequence[Task], key: Any) -> list[jax.Array]:
    """Make the values of variables that one function makes (`Part`), in one compiled program."""
    parts = [cast(Part, task.initializer) for task in group]
    if all(part.made is not None for part in parts):
        return [copied(part.made) for part in parts]
    meshes = {getattr(task.sharding, "mesh", None) for task in group if task.sharding is not None}
    spread = len(meshes) == 1 and None not in meshes  # each device then makes its own part
    wanted = tuple(
        (part.path, task.shape, task.dtype, task.sharding if spread else None)
        for part, task in zip(parts, group, strict=True)
    )
    try:
        program = _kept_program(parts[0].make, wanted)
    except TypeError:  # not hashable, such as a module with a list among its fields
        program = _kept_program.__wrapped__(parts[0].make, wanted)
    return program(key)


@functools.lru_cache(maxsize=_MAX_PROGRAMS)
def _kept_program(make: MakeAll, wanted: tuple[tuple[str, tuple[int, ...], Any, Any], ...]) -> Callable[[Any], Any]:
    def values(key: Any) -> list[jax.Array]:
        made = make(key)
        return [_strict(made[path], shape, dtype) for path, shape, dtype, _ in wanted]

    shardings = [sharding for *_, sharding in wanted]
    return jax.jit(values) if shardings.count(None) == len(shardings) else jax.jit(values, out_shardings=shardings)


def _strict(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> jax.Array:
    """The value as a strongly typed array, after the checks TF1 makes of an initial value."""
    if callable(value) and not hasattr(value, "__jax_array__"):
        raise InvalidTypeError(
            f"it returned the function {value!r:.80}, not a value: is a pair of parentheses missing, as in "
            "initializer=jax.nn.initializers.glorot_uniform()?"
        )
    array = value_as_array(value)
    if tuple(array.shape) != shape:
        found = tuple(array.shape)
        raise InvalidArgumentError(f"it returned shape {found}, and the variable has shape {shape}.")
    if isinstance(array, np.ndarray):
        return jnp.array(cast_host_value(array, dtype))  # a copy: the user may write into theirs
    if as_dtype(array) != dtype:
        check_dtype_change(array.dtype, dtype)
    elif jnp.issubdtype(dtype, dtypes.extended):
        return array
    return jax.lax.convert_element_type(array, dtype)

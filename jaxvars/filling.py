"""Filling holes: from a random key and the names of uninitialized variables to their values.

The key of a variable is ``fold_in(key, name_hash(name))``, so its value depends on its name, shape, dtype and
initializer, and on nothing else: not on which other variables there are, nor on their order, nor on what a
checkpoint already supplied. Every route (eager, inside ``jit`` or ``vmap``, sharded) gives the bits of
``initializer(fold_in(key, name_hash(name)), shape, dtype)``. For the initializers of `jv.initializers` this
holds to the last bit (`initializers._drawing` sees to it; float64 excepted); a function of another library is
at XLA's mercy, which may round its last bit otherwise inside an outer ``jit`` or ``vmap``.

Constants are made by NumPy and put on the device without compiling anything. Compiling is nearly all the time a cold
start takes, so on CPUs the random numbers of nearly all initializers of ours come from one program that serves every
shape (`_runs`). What that does not cover comes from executables that are kept per (initializer, shape, dtype,
sharding).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.core import Tracer

from jaxvars._arguments import as_dtype
from jaxvars._keys import as_key, name_hash, variable_key
from jaxvars._making import Maker, Task, constant_value, host_memory, make_now, make_together, make_traced, placed, put
from jaxvars._runs import Drawn, are_usable, draw_all, drawn_by
from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    JaxvarsError,
)
from jaxvars.initializers import Initializer, needs_key
from jaxvars.initializers._part import Part
from jaxvars.initializers._threefry import fold_in_all

__all__ = ["fill"]

# Constants up to this size are sent to the device in one call; larger ones one by one, so that the host never
# holds two copies of a large model.
_SMALL_BYTES = 1 << 16
# Of a sharded variable that holds several layers so many bytes of layers are drawn together.
_LAYERS_BYTES = 1 << 25


def fill(holes: Mapping[str, Any], rng: Any) -> dict[str, jax.Array]:
    """Make the values of uninitialized variables.

    Args:
      holes: name -> hole: its shape, dtype, initializer, and sharding or None.
      rng: a key or int seed, possibly traced; None will do where no initializer needs randomness.

    Returns:
      name -> array, in the order of `holes`: strongly typed, no two sharing a buffer, each on its hole's
      sharding. Under an outer ``jit`` a `NamedSharding` is a constraint, and any other sharding is left to
      that ``jit``.

    Raises:
      FailedPreconditionError: some holes have no initializer; all are named.
      InvalidArgumentError: `rng` is missing or no key; an initializer raised, or returned another shape.
      InvalidTypeError: an initializer returned another dtype, or nothing.

    Example:
      >>> import jax, jaxvars as jv
      >>> from jaxvars.spec import Hole
      >>> filled = fill({"w": Hole((2, 3), "float32", initializer=jv.ones_initializer())}, None)
      >>> float(filled["w"].sum())
      6.0
    """
    stacked = [name for name, hole in holes.items() if hasattr(getattr(hole, "initializer", None), "layers")]
    if stacked:
        return _fill_stacked(holes, stacked, rng)
    parts = [name for name, hole in holes.items() if isinstance(getattr(hole, "initializer", None), Part)]
    if parts:
        return _fill_parts(holes, parts, rng)
    tasks = [_task(name, hole) for name, hole in holes.items()]
    _check(tasks, rng)
    random = [task for task in tasks if needs_key(task.initializer)]
    key = None if rng is None else as_key(rng)
    if isinstance(key, Tracer) or _is_tracing():
        return _fill_traced(tasks, random, key)
    return _fill_now(tasks, random, key)


def _fill_stacked(holes: Mapping[str, Any], stacked: Sequence[str], rng: Any) -> dict[str, jax.Array]:
    """Fill holes of which some hold several layers (`jv.scan_layers`), each filled by itself, under its own name."""
    filled = fill({name: hole for name, hole in holes.items() if name not in stacked}, rng)
    now = not isinstance(rng, Tracer) and not _is_tracing()
    for name in stacked:
        whole = holes[name]
        sharding = getattr(whole, "sharding", None)
        plain = not jnp.issubdtype(whole.dtype, dtypes.extended)
        if now and plain and isinstance(sharding, jax.sharding.NamedSharding):
            filled[name] = _stacked_onto(whole, sharding, rng)
            continue
        layers = fill(whole.initializer.layers(whole), rng)
        filled[name] = placed(jnp.stack(list(layers.values())), sharding)
    return {name: filled[name] for name in holes}


def _stacked_onto(whole: Any, sharding: jax.sharding.NamedSharding, rng: Any) -> jax.Array:
    """Fill a variable of several layers shard by shard: beside the shards there are never more than a few layers."""
    shape, dtype = tuple(whole.shape), as_dtype(whole.dtype)
    of_layer = jax.sharding.NamedSharding(
        sharding.mesh, jax.sharding.PartitionSpec(*sharding.spec[1:]), memory_kind=sharding.memory_kind
    )
    layers = list(whole.initializer.layers(whole, of_layer).items())
    indices: Mapping[Any, Any] = sharding.addressable_devices_indices_map(shape)
    made = {device: host_memory(sharding.shard_shape(shape), dtype) for device in indices}
    here = {device: range(*index[0].indices(shape[0])) for device, index in indices.items()}
    at_once = max(1, _LAYERS_BYTES * len(layers) // max(1, sum(part.nbytes for part in made.values())))
    for first in range(0, len(layers), at_once):
        group = fill(dict(layers[first : first + at_once]), rng)
        for number, layer in enumerate(group.values(), first):
            for shard in layer.addressable_shards:
                if number in here[shard.device]:
                    made[shard.device][number - here[shard.device].start] = shard.data
    arrays = [
        jax.device_put(host, jax.sharding.SingleDeviceSharding(device, memory_kind=sharding.memory_kind))
        for device, host in made.items()
    ]
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays, dtype=dtype)


def _fill_parts(holes: Mapping[str, Any], parts: Sequence[str], rng: Any) -> dict[str, jax.Array]:
    """Fill holes of which some are made together by one function, called once for each scope."""
    filled = fill({name: hole for name, hole in holes.items() if name not in parts}, rng)
    tasks = [_task(name, holes[name]) for name in parts]
    _check(tasks, rng)
    together: dict[tuple[int, str], list[Task]] = {}
    for task in tasks:
        part = cast(Part, task.initializer)
        together.setdefault((id(part.make), part.scope_of(task.name)), []).append(task)
    for (_, scope), group in together.items():
        try:
            made = make_together(group, variable_key(as_key(rng), scope))
        except Exception as error:
            raise _failed(group[0], error) from error
        filled |= {task.name: placed(value, task.sharding) for task, value in zip(group, made, strict=True)}
    return {name: filled[name] for name in holes}


def _task(name: str, hole: Any) -> Task:
    initializer: Any = getattr(hole, "initializer", None)  # a plain ShapeDtypeStruct has none
    return Task(name, initializer, tuple(hole.shape), as_dtype(hole.dtype), getattr(hole, "sharding", None))


def _check(tasks: Sequence[Task], rng: Any) -> None:
    """Report every problem that shows before anything is computed."""
    empty = [task.name for task in tasks if task.initializer is None]
    if empty:
        raise FailedPreconditionError(
            f"{_listed(empty)} uninitialized and without an initializer to fill from: a plain "
            "jax.ShapeDtypeStruct, or the result of jax.eval_shape, has none. Take the holes of "
            "model.specs(...), or give the values: variables.replace({name: value})."
        )
    keyless = [task.name for task in tasks if needs_key(task.initializer)] if rng is None else []
    if keyless:
        raise InvalidArgumentError(
            f"{_listed(keyless)} initialized with random values, and rng is None: "
            "pass an int seed or jax.random.key(seed)."
        )
    for task in tasks:
        if isinstance(task.initializer, Initializer):
            try:
                task.initializer.check(task.shape, task.dtype)
            except JaxvarsError as error:
                raise _failed(task, error) from error


def _listed(names: Sequence[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"Variable {quoted} is" if len(names) == 1 else f"Variables {quoted} are"


def _is_tracing() -> bool:
    """Whether arrays made here would be traced: then they become part of a program."""
    return isinstance(jax.device_put(np.int32(0)), Tracer)


# Eager.


def _fill_now(tasks: Sequence[Task], random: Sequence[Task], key: jax.Array | None) -> dict[str, jax.Array]:
    rows, impl = _key_rows(random, key)
    runs = are_usable(impl)
    shared: dict[Hashable, Maker] = {}
    filled: dict[str, Any] = dict.fromkeys(task.name for task in tasks)
    small: list[tuple[str, np.ndarray[Any, Any]]] = []
    drawn: dict[str, Drawn] = {}
    for task in tasks:
        try:
            host = constant_value(task)
            if host is not None and task.sharding is None and host.nbytes <= _SMALL_BYTES:
                small.append((task.name, host))
            elif host is not None:
                filled[task.name] = put(host, task.sharding)
            elif runs and (variable := drawn_by(task, rows.get(task.name))):
                drawn[task.name] = variable
            else:
                filled[task.name] = make_now(task, rows.get(task.name), impl, shared)
        except Exception as error:
            raise _failed(task, error) from error
    arrays = jax.device_put([host for _, host in small])
    filled.update(zip((name for name, _ in small), arrays, strict=True))
    filled.update(draw_all(drawn))
    return filled


def _key_rows(random: Sequence[Task], key: jax.Array | None) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    """The raw key data of each variable, and the name of the key's implementation."""
    if key is None or not random:
        return {}, ""
    hashes = np.asarray([name_hash(task.name) for task in random], np.uint32)
    impl = cast(str, jax.random.key_impl(key))
    if impl == "threefry2x32":
        data = fold_in_all(np.asarray(jax.random.key_data(key)), hashes)
    else:
        # Padded to a power of two, so that a differing number of variables seldom compiles this again.
        padded = np.zeros(max(8, 1 << (len(hashes) - 1).bit_length()), np.uint32)
        padded[: len(hashes)] = hashes
        data = np.asarray(_fold_in_all(key, padded))
    return {task.name: data[i] for i, task in enumerate(random)}, impl


@jax.jit
def _fold_in_all(key: jax.Array, hashes: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(key, hashes))


# Under a trace.


def _fill_traced(tasks: Sequence[Task], random: Sequence[Task], key: Any) -> dict[str, jax.Array]:
    keys: dict[str, Any] = {}
    if random:
        hashes = np.asarray([name_hash(task.name) for task in random], np.uint32)
        keys = dict(zip((task.name for task in random), _fold_in_each(key, hashes), strict=True))
    filled: dict[str, jax.Array] = {}
    for task in tasks:
        try:
            filled[task.name] = make_traced(task, keys.get(task.name))
        except Exception as error:
            raise _failed(task, error) from error
    return filled


@jax.jit
def _fold_in_each(key: jax.Array, hashes: jax.Array) -> list[jax.Array]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, hashes)
    return [keys[i] for i in range(len(hashes))]


def _failed(task: Task, error: Exception) -> JaxvarsError:
    """The error to raise from `error`, naming the variable: the same class, or the nearest one of ours."""
    kind = InvalidArgumentError
    if isinstance(error, JaxvarsError):
        kind = type(error)
    elif isinstance(error, TypeError):
        kind = InvalidTypeError
    elif isinstance(error, RuntimeError):
        kind = FailedPreconditionError
    what = "" if isinstance(error, JaxvarsError) else f"{type(error).__name__}: "
    function = getattr(task.initializer, "function", task.initializer)
    name = getattr(function, "__qualname__", None) or repr(function)
    return kind(
        f'Variable "{task.name}" ({task.dtype}{list(task.shape)}) could not be initialized by {name}: {what}{error}'
    )

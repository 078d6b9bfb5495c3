"""Filling holes: from a random key and the names of uninitialized variables to their values.

The key of a variable is ``fold_in(key, name_hash(name))``, so its value depends on its name, shape, dtype and
initializer, and on nothing else: not on which other variables there are, nor on their order, nor on what a
checkpoint already supplied. Every route (eager, inside ``jit`` or ``vmap``, sharded) gives the bits of
``jax.jit`` over ``initializer(fold_in(key, name_hash(name)), shape, dtype)``.

Constants are made by NumPy and put on the device without compiling anything. Random values come from
executables that are kept per (initializer, shape, dtype, sharding), because compiling them is nearly all the
time a cold start takes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxvars._arguments import as_dtype, cast_host_value, check_dtype_change, value_as_array
from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    JaxvarsError,
)
from jaxvars.initializers import Initializer, needs_key
from jaxvars.initializers._base import seed_key
from jaxvars.initializers._identity import identity_of

__all__ = ["as_key", "fill", "name_hash", "variable_key"]

# Enough for the distinct shapes of several large models; an executable is a few hundred kilobytes at most.
_MAX_EXECUTABLES = 1024
# Constants up to this size are sent to the device in one call; larger ones one by one, so that the host never
# holds two copies of a large model.
_SMALL_BYTES = 1 << 16

_Maker: TypeAlias = Callable[[Any], jax.Array]


class _Task(NamedTuple):
    """One hole to fill."""

    name: str
    initializer: Callable[..., Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sharding: jax.sharding.Sharding | None


def name_hash(name: str) -> int:
    """Return the 32-bit number that stands for a variable's name in its random key.

    It is the first four bytes, little-endian, of the BLAKE2b digest (digest size 4) of the UTF-8 name: the
    same in every process, Python and version of jaxvars.

    Example:
      >>> name_hash("conv1/weights")
      332803854
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def as_key(rng: Any) -> jax.Array:
    """Return the typed JAX key that a user's ``rng`` argument means.

    Args:
      rng: an int seed, a typed key of ``jax.random.key``, or a raw uint32 one of ``jax.random.PRNGKey``. May
        be traced.

    Raises:
      InvalidArgumentError: `rng` is None, an array of several keys, or anything else.

    Example:
      >>> import jax
      >>> bool(as_key(7) == jax.random.key(7))
      True
    """
    if rng is None:
        raise InvalidArgumentError(
            "A random key is needed and rng is None: pass an int seed or jax.random.key(seed)."
        )
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool | np.bool_):
        return seed_key(rng)
    dtype, shape = getattr(rng, "dtype", None), tuple(getattr(rng, "shape", ()))
    if dtype is None or not isinstance(rng, jax.Array | np.ndarray):
        raise InvalidArgumentError(_bad_rng(rng, f"got {rng!r:.80} of type {type(rng).__name__!r}"))
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        if shape:
            raise InvalidArgumentError(
                _bad_rng(
                    rng, f"got {dtype}{list(shape)}, that is {int(np.prod(shape))} keys where one is expected"
                )
            )
        return cast(jax.Array, rng)
    if not shape and jnp.issubdtype(dtype, np.integer):
        return jax.random.key(jnp.asarray(rng))
    if dtype == np.uint32 and len(shape) == 1:
        try:
            return jax.random.wrap_key_data(jnp.asarray(rng))
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(_bad_rng(rng, f"got uint32{list(shape)}: {error}")) from error
    raise InvalidArgumentError(_bad_rng(rng, f"got an array {dtype}{list(shape)}"))


def _bad_rng(rng: Any, found: str) -> str:
    several = " For several keys use jax.vmap." if getattr(rng, "ndim", 0) else ""
    return f"rng must be an int seed, jax.random.key(seed) or jax.random.PRNGKey(seed), {found}.{several}"


def variable_key(key: jax.Array, name: str) -> jax.Array:
    """Return the random key of the variable `name`: ``fold_in(key, name_hash(name))``.

    Example:
      >>> import jax
      >>> variable_key(jax.random.key(0), "conv1/weights").shape
      ()
    """
    return jax.random.fold_in(key, np.uint32(name_hash(name)))


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
    tasks = [_task(name, hole) for name, hole in holes.items()]
    _check(tasks, rng)
    random = [task for task in tasks if needs_key(task.initializer)]
    key = as_key(rng) if random else None
    if isinstance(key, Tracer) or _is_tracing():
        return _fill_traced(tasks, random, key)
    return _fill_now(tasks, random, key)


def _task(name: str, hole: Any) -> _Task:
    initializer = getattr(hole, "initializer", None)
    return _Task(name, initializer, tuple(hole.shape), as_dtype(hole.dtype), getattr(hole, "sharding", None))


def _check(tasks: Sequence[_Task], rng: Any) -> None:
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
    return f"Variable {quoted} is" if len(names) == 1 else f"{len(names)} variables are: {quoted}; they are"


def _is_tracing() -> bool:
    """Whether arrays made here would be traced: then they become part of a program."""
    return isinstance(jax.device_put(np.int32(0)), Tracer)


# Eager.


def _fill_now(tasks: Sequence[_Task], random: Sequence[_Task], key: jax.Array | None) -> dict[str, jax.Array]:
    rows, impl = _key_rows(random, key)
    makers: dict[Hashable, _Maker] = {}  # what cannot be kept for good is at least shared within this call
    filled: dict[str, Any] = dict.fromkeys(task.name for task in tasks)
    small: list[tuple[str, np.ndarray[Any, Any]]] = []
    for task in tasks:
        try:
            host = _host_value(task)
            if host is None:
                filled[task.name] = _make(task, impl, makers)(rows.get(task.name))
            elif task.sharding is None and host.nbytes <= _SMALL_BYTES:
                small.append((task.name, host))
            else:
                filled[task.name] = _put(host, task.sharding)
        except Exception as error:
            raise _failed(task, error) from error
    # may_alias=False: XLA must own the buffer, and no two variables may share one.
    arrays = jax.device_put([host for _, host in small], may_alias=False)
    filled.update(zip((name for name, _ in small), arrays, strict=True))
    return filled


def _key_rows(random: Sequence[_Task], key: jax.Array | None) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    """The raw key data of each variable, from one compiled call, and the name of the key's implementation."""
    if key is None:
        return {}, ""
    hashes = [name_hash(task.name) for task in random]
    # Padded to a power of two, so that a differing number of variables seldom compiles this again.
    padded = np.zeros(max(8, 1 << (len(hashes) - 1).bit_length()), np.uint32)
    padded[: len(hashes)] = hashes
    data = np.asarray(_fold_in_all(key, padded))
    return {task.name: data[i] for i, task in enumerate(random)}, cast(str, jax.random.key_impl(key))


@jax.jit
def _fold_in_all(key: jax.Array, hashes: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(key, hashes))


def _host_value(task: _Task) -> np.ndarray[Any, Any] | None:
    """The value where it is known without JAX."""
    if not isinstance(task.initializer, Initializer):
        return None
    return task.initializer.constant_value(task.shape, task.dtype)


def _put(host: np.ndarray[Any, Any], sharding: jax.sharding.Sharding | None) -> jax.Array:
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(host, sharding, may_alias=False)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _make(task: _Task, impl: str, makers: dict[Hashable, _Maker]) -> _Maker:
    """The function from raw key data to the value: kept if the initializer can be told from all others."""
    identity = identity_of(task.initializer)
    if identity is not None:
        kept = _Kept(identity, task.initializer)
        return _kept_executable(kept, task.shape, task.dtype, task.sharding, impl)
    local = (id(task.initializer), task.shape, task.dtype, task.sharding)
    if local in makers:
        return makers[local]
    return lambda row: _make_once(task, impl, row, functools.partial(makers.__setitem__, local))


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
) -> _Maker:
    def make(row: Any) -> jax.Array:
        return _strict(kept.initializer(_unpack(row, impl), shape, dtype), shape, dtype)

    return jax.jit(make) if sharding is None else jax.jit(make, out_shardings=sharding)


def _make_once(task: _Task, impl: str, row: Any, keep: Callable[[_Maker], None]) -> jax.Array:
    """Fill from a function that may differ next time (a lambda over local values); no cache keeps anything.

    A function that returns a ready array, such as pretrained weights, is not compiled: the array would become
    part of the program.
    """
    ready: list[Any] = []

    def make(row: Any) -> jax.Array:
        value = task.initializer(_unpack(row, impl), task.shape, task.dtype)
        if not isinstance(value, Tracer) and not any(
            isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)
        ):
            ready.append(value)
        return _strict(value, task.shape, task.dtype)

    jitted = jax.jit(make) if task.sharding is None else jax.jit(make, out_shardings=task.sharding)
    traced = jitted.trace(row)
    if ready:
        return _put(
            np.array(cast_host_value(np.asarray(value_as_array(ready[0])), task.dtype)), task.sharding
        )
    compiled = traced.lower().compile()
    if needs_key(
        task.initializer
    ):  # else it may well draw from a generator of its own: call it for each variable
        keep(compiled)
    return compiled(row)


def _unpack(row: Any, impl: str) -> jax.Array | None:
    return None if row is None else jax.random.wrap_key_data(row, impl=impl)


# Under a trace.


def _fill_traced(tasks: Sequence[_Task], random: Sequence[_Task], key: Any) -> dict[str, jax.Array]:
    keys: dict[str, Any] = {}
    if random:
        hashes = np.asarray([name_hash(task.name) for task in random], np.uint32)
        keys = dict(zip((task.name for task in random), _fold_in_each(key, hashes), strict=True))
    filled: dict[str, jax.Array] = {}
    for task in tasks:
        try:
            filled[task.name] = _trace(task, keys.get(task.name))
        except Exception as error:
            raise _failed(task, error) from error
    return filled


@jax.jit
def _fold_in_each(key: jax.Array, hashes: jax.Array) -> list[jax.Array]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, hashes)
    return [keys[i] for i in range(len(hashes))]


def _trace(task: _Task, key: Any) -> jax.Array:
    shape, dtype = task.shape, task.dtype
    if isinstance(task.initializer, Initializer) and not task.initializer.draws:
        value = _strict(task.initializer(None, shape, dtype), shape, dtype)
    else:
        # Jitted here too: under vmap alone the operations would run one by one, and round otherwise.
        value = _traced_maker(task)(key)
    if isinstance(task.sharding, jax.sharding.NamedSharding):
        return jax.lax.with_sharding_constraint(value, task.sharding)
    return value


def _traced_maker(task: _Task) -> _Maker:
    identity = identity_of(task.initializer)
    if identity is not None:
        return _kept_traced(_Kept(identity, task.initializer), task.shape, task.dtype)
    return jax.jit(lambda key: _strict(task.initializer(key, task.shape, task.dtype), task.shape, task.dtype))


@functools.lru_cache(maxsize=_MAX_EXECUTABLES)
def _kept_traced(kept: _Kept, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Maker:
    return jax.jit(lambda key: _strict(kept.initializer(key, shape, dtype), shape, dtype))


# Results.


def _strict(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> jax.Array:
    """The value as a strongly typed array, after the checks TF1 makes of an initial value."""
    if callable(value) and not hasattr(value, "__jax_array__"):
        raise InvalidTypeError(
            f"it returned the function {value!r:.80}, not a value: is a pair of parentheses missing, as in "
            "initializer=jax.nn.initializers.glorot_uniform()?"
        )
    array = value_as_array(value)
    if tuple(array.shape) != shape:
        raise InvalidArgumentError(
            f"it returned shape {tuple(array.shape)}, and the variable has shape {shape}."
        )
    if isinstance(array, np.ndarray):
        return jnp.asarray(cast_host_value(array, dtype))
    if as_dtype(array) != dtype:
        check_dtype_change(array.dtype, dtype)
    elif jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return array
    return jax.lax.convert_element_type(array, dtype)


def _failed(task: _Task, error: Exception) -> JaxvarsError:
    """The error to raise from `error`: of the same built-in kind, naming the variable."""
    kind = InvalidArgumentError
    if isinstance(error, JaxvarsError):
        kind = type(error)
    elif isinstance(error, TypeError):
        kind = InvalidTypeError
    elif isinstance(error, RuntimeError):
        kind = FailedPreconditionError
    what = "" if isinstance(error, JaxvarsError) else f"{type(error).__name__}: "
    return kind(
        f'Variable "{task.name}" ({task.dtype}{list(task.shape)}) could not be initialized by '
        f"{task.initializer!r}: {what}{error}"
    )

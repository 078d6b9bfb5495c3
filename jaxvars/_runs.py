"""Filling random variables run by run: cut into runs, launched many at a time, collected where they belong.

Only on CPUs, where a launch's values are copied from host memory into the variables' own, which JAX then takes over
without another copy. A shard of a sharded variable is cut by itself: what other processes hold is never made.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxvars._making import Task, host_memory
from jaxvars.initializers import needs_key
from jaxvars.initializers._base import Shape
from jaxvars.initializers._runs import COLUMNS, DTYPES, RUN, RUNS, launch, numbers_of
from jaxvars.initializers._threefry import is_elementwise
from jaxvars.initializers.random import draw_of

__all__ = ["Drawn", "are_usable", "draw_all", "drawn_by"]

_Array: TypeAlias = np.ndarray[Any, Any]
_Bounds: TypeAlias = tuple[tuple[int, int], ...]  # of each axis, where a part begins and ends
_Shards: TypeAlias = list[tuple[Any, _Bounds]]  # a device, None for the default one, and what it holds

# Launches that may wait to be collected: enough to keep the cores busy.
_AHEAD = max(4, 2 * (os.cpu_count() or 1))


class Drawn(NamedTuple):
    """A variable to draw.

    Attributes:
      shape: its shape.
      dtype: one of `initializers._runs.DTYPES`.
      shards: devices of this process, None for the default one, and which part of the variable each holds.
      sharding: its sharding or None.
      family: ``"uniform"`` or ``"normal"``.
      words: uint32 ``[6]``: the two of its key, and the bits of the distribution's four numbers.
    """

    shape: Shape
    dtype: np.dtype[Any]
    shards: _Shards
    sharding: jax.sharding.Sharding | None
    family: str
    words: _Array


class _Part(NamedTuple):
    """Rows of consecutive elements: the number of each row's first element, int64 ``[rows]``, and their place."""

    words: _Array
    first: _Array
    out: _Array

    @property
    def runs_per_row(self) -> int:
        """How many runs a row takes; the last one may go beyond it."""
        return -(-self.out.shape[1] // RUN)


# Conditions.


def are_usable(impl: str) -> bool:
    """Whether arrays made now go to a CPU, and their random bits are those that runs are made of.

    Args:
      impl: the name of the key's implementation.
    """
    if not is_elementwise(impl):
        return False
    config: Any = jax.config
    device = config.jax_default_device
    platform = jax.default_backend() if device is None else getattr(device, "platform", device)
    return platform == "cpu" and jax.sharding.get_abstract_mesh().empty


def drawn_by(task: Task, key: _Array | None) -> Drawn | None:
    """Return what fills a variable with the values its initializer has, or None where runs cannot.

    Args:
      task: the hole.
      key: the data of the variable's key; None where it needs none.

    Raises:
      ValueError: the axes do not divide among the devices of the sharding.
    """
    shape, dtype, sharding = task.shape, task.dtype, task.sharding
    if dtype not in DTYPES or not 0 < math.prod(shape) < 2**32 or key is None or not needs_key(task.initializer):
        return None
    if sharding is not None and not _is_plain(sharding):
        return None
    how = draw_of(task.initializer, shape, dtype)
    numbers = None if how is None else numbers_of(how, dtype)
    if how is None or numbers is None:
        return None
    family = "uniform" if how.family == "uniform" else "normal"
    words = np.concatenate([key, numbers.view(np.uint32)])
    return Drawn(shape, dtype, _shards(shape, sharding), sharding, family, words)


def _is_plain(sharding: jax.sharding.Sharding) -> bool:
    """Whether a sharding lies on CPUs, in the memory where arrays are put."""
    devices = sharding.device_set
    kinds = {None, *(device.default_memory().kind for device in devices)}
    return sharding.memory_kind in kinds and all(device.platform == "cpu" for device in devices)


def _shards(shape: Shape, sharding: jax.sharding.Sharding | None) -> _Shards:
    """Which part of a variable goes to which device of this process; None stands for the default one."""
    if sharding is None:
        return [(None, tuple((0, size) for size in shape))]
    sharding.shard_shape(shape)  # raises where the axes do not divide
    indices: Mapping[Any, Any] = sharding.addressable_devices_indices_map(shape)
    return [
        (device, tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True)))
        for device, index in indices.items()
    ]


# Variables.


def draw_all(variables: Mapping[str, Drawn]) -> dict[str, jax.Array]:
    """Draw variables, each on its sharding."""
    parts: dict[str, list[_Part]] = {}
    made: dict[str, dict[_Bounds, _Array]] = {}
    for name, drawn in variables.items():
        # Replicas of a shard are drawn once.
        made[name] = {bounds: _empty(bounds, drawn.dtype) for bounds in dict.fromkeys(b for _, b in drawn.shards)}
        parts.setdefault(drawn.family, []).extend(_part(drawn, *each) for each in made[name].items())
    for family, several in parts.items():
        _fill(family, several)
    whole = [name for name, drawn in variables.items() if drawn.sharding is None]
    arrays = dict(zip(whole, jax.device_put([next(iter(made[name].values())) for name in whole]), strict=True))
    return {
        name: arrays[name] if drawn.sharding is None else _placed(drawn, made[name])
        for name, drawn in variables.items()
    }


def _empty(bounds: _Bounds, dtype: np.dtype[Any]) -> _Array:
    return host_memory(tuple(stop - start for start, stop in bounds), dtype)


def _part(drawn: Drawn, bounds: _Bounds, out: _Array) -> _Part:
    """The elements within `bounds` of a variable as rows, as long as they can be."""
    axis, row = len(bounds), 1
    while axis and row == math.prod(drawn.shape[axis:]):
        axis -= 1
        row *= bounds[axis][1] - bounds[axis][0]
    first = np.zeros(1, np.int64)
    for number, (start, stop) in enumerate(bounds):
        inner = range(start, stop) if number < axis else [start]
        first = (first[:, None] * drawn.shape[number] + np.asarray(inner, np.int64)).reshape(-1)
    return _Part(drawn.words, first, out.reshape(len(first), row))


def _placed(drawn: Drawn, made: dict[_Bounds, _Array]) -> jax.Array:
    assert drawn.sharding is not None
    here: list[jax.Array] = []
    seen: set[_Bounds] = set()
    for device, bounds in drawn.shards:
        # Replicas do not share their memory.
        host = made[bounds].copy() if bounds in seen else made[bounds]
        here.append(jax.device_put(host, device))
        seen.add(bounds)
    return jax.make_array_from_single_device_arrays(drawn.shape, drawn.sharding, here, dtype=drawn.dtype)


# Launches.


def _fill(family: str, parts: Iterable[_Part]) -> None:
    """Write the values of `parts`, all of one family, into their places."""
    pending = deque(parts)
    running: deque[tuple[jax.Array, list[_Part]]] = deque()
    rows, used, inside = np.zeros((RUNS, COLUMNS), np.uint32), 0, list[_Part]()
    while pending:
        part, rest = _cut(pending.popleft(), RUNS - used)
        pending.extendleft(rest)
        runs = len(part.first) * part.runs_per_row
        first = part.first[:, None] + np.arange(0, part.runs_per_row * RUN, RUN)
        rows[used : used + runs, 0] = first.reshape(-1)  # beyond a part's end it may wrap around
        rows[used : used + runs, 1:] = part.words
        inside.append(part)
        used += runs
        if used == RUNS or not pending:
            running.append((launch(rows, family=family), inside))
            rows, used, inside = np.zeros((RUNS, COLUMNS), np.uint32), 0, []
        if len(running) > _AHEAD:
            _collect(*running.popleft())
    for values, inside in running:
        _collect(values, inside)


def _cut(part: _Part, room: int) -> tuple[_Part, list[_Part]]:
    """What fits into `room` runs, and the rest, the last of it first."""
    words, first, out = part
    rows = room // part.runs_per_row
    if rows >= len(first):
        return part, []
    if rows:
        return _Part(words, first[:rows], out[:rows]), [_Part(words, first[rows:], out[rows:])]
    size = room * RUN
    rest = [_Part(words, first[:1] + size, out[:1, size:])]
    if len(first) > 1:
        rest.insert(0, _Part(words, first[1:], out[1:]))
    return _Part(words, first[:1], out[:1, :size]), rest


def _collect(values: jax.Array, parts: list[_Part]) -> None:
    host, used = np.asarray(values), 0
    for part in parts:
        rows, columns = part.out.shape
        runs = rows * part.runs_per_row
        found = host[used : used + runs].reshape(rows, -1)[:, :columns]
        with np.errstate(over="ignore"):  # float16 has its infinity
            np.copyto(part.out, found, casting="unsafe")
        used += runs

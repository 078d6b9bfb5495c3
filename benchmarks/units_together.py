"""What several processes count while they save and restore together: files, bytes, and how often they wait."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxvars as jv
from jaxvars.checkpoint.formats import orbax_pieces
from jaxvars.checkpoint.formats.orbax import orbax_module
from jaxvars.spec import Hole

VARIABLE = 1 << 20  # bytes: smaller ones are read whole, and cut
KEY_VALUE = ("key_value_set", "key_value_set_bytes", "key_value_dir_get", "key_value_dir_get_bytes",
             "blocking_key_value_get", "blocking_key_value_get_bytes", "key_value_try_get", "key_value_delete",
             "key_value_increment")  # fmt: skip
COLLECTIVES = ("process_allgather", "sync_global_devices", "broadcast_one_to_all")


def name(number: int) -> str:
    """The name of a variable, as long as those of a transformer are."""
    return f"transformer/decoder/layer_{number // 10:04}/part_{number % 10}/kernel"


def measure(folder: str, counts: list[int], nbytes: int = VARIABLE) -> list[dict[str, Any]]:
    """Save and restore so many variables of so many bytes, all spread over all devices; each process runs this.

    Returns:
      Per count what this process counted, and for process 0 the sizes of the checkpoint's files.
    """
    jax.devices()  # the backend wants the client itself, before it is watched
    calls = Calls()
    calls.watch()
    found: list[dict[str, Any]] = []
    for number, count in enumerate([counts[0], *counts]):  # the first one fills caches
        path = f"{folder}/{number}"
        variables, specs = _state(count, nbytes)
        with calls.counting() as saving:
            start = time.perf_counter()
            jv.checkpoint.save(variables, path)
            saving["seconds"] = time.perf_counter() - start
        with calls.counting() as restoring:
            start, before = time.perf_counter(), _bytes_read()
            jax.block_until_ready(jv.checkpoint.restore(path, specs))
            restoring |= {"read": _bytes_read() - before, "seconds": time.perf_counter() - start}
        sizes = file_sizes(path) if jax.process_index() == 0 else {}
        found.append({"variables": count, "save": saving, "restore": restoring, "files": sizes})
    return found[1:]


def large(folder: str, nbytes: int, rounds: int) -> list[list[float]]:
    """Save and restore so many bytes in 64 variables, spread over all devices; returns the seconds of each."""
    variables, specs = _state(64, nbytes // 64)
    found: list[list[float]] = [[], []]
    for number in range(rounds + 1):  # the first one fills caches
        start = time.perf_counter()
        path = jv.checkpoint.save(variables, f"{folder}/{number}")
        saved = time.perf_counter()
        jax.block_until_ready(jv.checkpoint.restore(path, specs))
        for times, elapsed in zip(found, (saved - start, time.perf_counter() - saved), strict=True):
            times.append(elapsed)
    return [times[1:] for times in found]


def _state(count: int, nbytes: int = VARIABLE) -> tuple[jv.Variables, jv.Variables]:
    """Values of so many bytes, each with one piece per device, and their specs."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    where = NamedSharding(mesh, PartitionSpec("data"))
    value = np.arange(nbytes // 4, dtype=np.float32)
    arrays = {name(i): jax.make_array_from_callback(value.shape, where, (value + i).__getitem__) for i in range(count)}
    holes = {key: Hole(value.shape, value.dtype, sharding=where) for key in arrays}
    return jv.Variables(arrays), jv.Variables(holes)


def file_sizes(path: str) -> dict[str, int]:
    """The files of a checkpoint and their bytes."""
    return {str(file.relative_to(path)): file.stat().st_size for file in Path(path).rglob("*") if file.is_file()}


def _bytes_read() -> int:
    """What this process has read from files and sockets so far."""
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


class Calls:
    """Counts what makes processes wait for each other."""

    def __init__(self) -> None:
        self._found: dict[str, Any] | None = None
        self._depth = 0

    def watch(self) -> None:
        """Take the place of JAX's collectives between hosts and of the client of its coordination service."""
        from jax._src.distributed import global_state
        from jax.experimental import multihost_utils

        for function in COLLECTIVES:
            setattr(multihost_utils, function, self._collective(getattr(multihost_utils, function)))
        orbax_pieces._largest_of_all = self._collective(orbax_pieces._largest_of_all)
        module = orbax_module()
        module.load = self._loading(module.load)
        global_state.client = _Client(global_state.client, self._note)  # type: ignore[assignment]

    @contextlib.contextmanager
    def counting(self) -> Iterator[dict[str, Any]]:
        """Count what is called within the block."""
        self._found = {"collectives": 0, "barriers": 0, "key_value": 0, "gathered": 0, "told": 0, "loads": 0}
        try:
            yield self._found
        finally:
            self._found = None

    def _note(self, kind: str, amount: int = 1) -> None:
        if self._found is not None:
            self._found[kind] += amount

    def _collective(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            try:
                result = function(*args, **kwargs)
            finally:
                self._depth -= 1
            if not self._depth:  # one may be made of another
                self._note("collectives")
                self._note("gathered", sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(result)))
            return result

        return counted

    def _loading(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._note("loads")
            return function(*args, **kwargs)

        return counted


class _Client:
    """The client of the coordination service, with its calls counted."""

    def __init__(self, client: Any, note: Callable[[str, int], None]) -> None:
        self._client, self._note = client, note

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._client, attribute)
        if attribute == "wait_at_barrier":
            self._note("barriers", 1)
        return self._counted(value) if attribute in KEY_VALUE else value

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self._note("key_value", 1)
            self._note("told", _size(result))
            return result

        return counted


def _size(told: Any) -> int:
    """Bytes of what the coordination service answered."""
    if isinstance(told, (str, bytes)):
        return len(told)
    return sum(map(_size, told)) if isinstance(told, (list, tuple)) else 0

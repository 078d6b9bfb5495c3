"""`check_processes`: do all processes have the same variables? Asked before anything that they must do together.

Processes that run different text end up waiting in different collectives, for ever and without a word. So each tells
the others a fingerprint of its variables, and where they differ, what they are.
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from jaxvars.buffers import is_concrete
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.placement.telling import Absent, exchange, is_alone
from jaxvars.spec import is_hole, leaf_dtype, leaf_shape
from jaxvars.variables import Variables

__all__ = ["check_processes"]

_FIELDS = ("shape", "dtype", "trainable", "collections", "placement", "sharding")
_MOST_LINES = 20
_MOST_KINDS = 4  # of differing fingerprints whose variables are compared

_LONGER = "jv.placement.check_processes(model.specs(*args), timeout=3600)"

_lock = threading.Lock()  # the two exchanges of a comparison belong together

_Records = dict[str, list[str]]


class _Kind(NamedTuple):
    """Processes that have the same variables."""

    processes: list[int]
    records: _Records
    sites: Mapping[str, str]


def check_processes(specs: Variables, *, timeout: float = 300.0) -> None:
    """Raise, in every process, if the processes do not have the same variables.

    Compared are names, shapes, dtypes, trainable flags, collections, placements and shardings over several processes.
    `model.init`, `jv.checkpoint.restore` and `jv.checkpoint.save` begin with it, inside ``jit`` too, so all processes
    must call these, in the same order. With one process it does nothing. TF1's counterpart is a graph that the master
    hands to all workers, so that they cannot differ.

    Args:
      specs: the variables, with values or holes: ``model.specs(...)``.
      timeout: for how many seconds to wait for the other processes. `model.init` waits 300; where one of them may come
        later, call this before it.

    Raises:
      InvalidArgumentError: variables differ: which, in what, between which processes, and where they were defined.
      FailedPreconditionError: processes did not come in time, or have died: says which.

    Example:
      >>> import jax, jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.dense(x, 2))
      >>> jv.placement.check_processes(model.specs(jax.ShapeDtypeStruct((1, 3), "float32")), timeout=600)
    """
    if not isinstance(specs, Variables):
        raise InvalidTypeError(
            f"check_processes takes jv.Variables, got {type(specs).__name__}. Write: check_processes(model.specs(x))"
        )
    if is_alone():
        return
    # Variables that were compared before are compared again: the others may have come with different ones.
    records = _records(specs)
    fingerprint = hashlib.blake2b(json.dumps(records).encode(), digest_size=16).digest()
    with _lock:
        try:
            _compare(fingerprint, records, specs, timeout)
        except Absent as absent:
            raise FailedPreconditionError(_absent_text(absent.processes, timeout)) from absent


def _compare(fingerprint: bytes, records: _Records, specs: Variables, timeout: float) -> None:
    groups: dict[bytes, list[int]] = {}
    for process, said in exchange("fingerprints", fingerprint, timeout).items():
        groups.setdefault(said, []).append(process)
    if len(groups) == 1:
        return
    # The largest group first: what most processes have is probably what was meant.
    listed = sorted(groups.values(), key=lambda group: (-len(group), group))[:_MOST_KINDS]
    speaks = jax.process_index() in [group[0] for group in listed]
    own = json.dumps([records, dict(zip(specs._layout.keys, specs._layout.defined_at, strict=True))])
    told = exchange("variables", zlib.compress(own.encode()) if speaks else b"", timeout)
    kinds = [_Kind(group, *json.loads(zlib.decompress(told[group[0]]))) for group in listed]
    raise InvalidArgumentError(_difference_text(kinds, len(groups)))


# -- what is compared ----------------------------------------------------------------------------------------------


def _records(specs: Variables) -> _Records:
    """Name -> what must be the same in all processes, as text: see `_FIELDS`."""
    layout = specs._layout
    shardings: dict[Any, str] = {}
    rows = zip(layout.keys, specs._leaves, layout.trainable, layout.collections, layout.placement, strict=True)
    return {
        key: [
            str(leaf_shape(leaf)),
            _dtype_text(leaf_dtype(leaf)),
            str(trainable),
            ", ".join(sorted(collections)),
            "" if placement is None else str(placement),
            _sharding_text(leaf, shardings),
        ]
        for key, leaf, trainable, collections, placement in rows
    }


_dtype_text = functools.cache(str)  # NumPy takes 10 microseconds for each


def _sharding_text(leaf: Any, known: dict[Any, str]) -> str:
    """How a value is spread over several processes; "" for what each process has by itself."""
    sharding = leaf.sharding if is_hole(leaf) or is_concrete(leaf) else None
    if not isinstance(sharding, NamedSharding):
        return ""
    text = known.get(sharding)
    if text is None:
        text = known[sharding] = _mesh_text(sharding)
    return text


def _mesh_text(sharding: NamedSharding) -> str:
    mesh = sharding.mesh
    text = f"{sharding.spec} over {dict(mesh.shape)}"
    if isinstance(mesh, Mesh) and not sharding.is_fully_addressable:
        ids = [device.id for device in mesh.devices.flat]
        text += f" of devices {ids if len(ids) <= 8 else hashlib.blake2b(str(ids).encode(), digest_size=4).hexdigest()}"
    return text


# -- what the errors say -------------------------------------------------------------------------------------------


def _difference_text(kinds: Sequence[_Kind], groups: int) -> str:
    names = sorted(set().union(*(kind.records for kind in kinds)))
    lines = [line for name in names if (line := _difference(name, kinds))]
    shown = lines[:_MOST_LINES] + ([f"    and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else [])
    parts = " from ".join(_numbers(kind.processes) for kind in kinds)
    more = f" and {groups - len(kinds)} more groups" if groups > len(kinds) else ""
    return "\n".join(
        [
            f"The processes do not have the same variables: {len(lines)} "
            f"{'differs' if len(lines) == 1 else 'differ'}, {parts}{more} (this is process {jax.process_index()}).",
            *shown,
            "All processes must run the same text with arguments of the same shapes. Look for what each decides by "
            "itself (jax.process_index(), the number of its devices, its environment, its files, the order of a set) "
            "and for another version of the code. Compare before anything else with:\n"
            "    jv.placement.check_processes(model.specs(*args))",
        ]
    )


def _difference(name: str, kinds: Sequence[_Kind]) -> str:
    """In what a variable differs; "" where all have it alike."""
    having = [kind for kind in kinds if name in kind.records]
    if len(having) < len(kinds):
        return f"    {name}: only in {', '.join(_numbers(kind.processes) + _site(name, kind) for kind in having)}"
    found: list[str] = []
    for position, field in enumerate(_FIELDS):
        values = [kind.records[name][position] for kind in kinds]
        if len(set(values)) > 1:
            said = [
                f"{value or 'none'} in {_numbers(kind.processes)}" for value, kind in zip(values, kinds, strict=True)
            ]
            found.append(f"{field} {', '.join(said)}")
    return f"    {name}: {'; '.join(found)}{_sites(name, kinds)}" if found else ""


def _sites(name: str, kinds: Sequence[_Kind]) -> str:
    if len({kind.sites.get(name) for kind in kinds}) == 1:
        return _site(name, kinds[0])
    return "".join(f"{_site(name, kind)} in {_numbers(kind.processes)}" for kind in kinds)


def _site(name: str, kind: _Kind) -> str:
    return f" (defined at {site})" if (site := kind.sites.get(name)) else ""


def _absent_text(absent: Sequence[int], timeout: float) -> str:
    own = jax.process_index()
    if absent:
        text = (
            f"{_numbers(absent).capitalize()} did not come to compare variables with process {own}, which waited at "
            f"most {timeout:g} s. A process that has ended shows its own error; one that goes on does something else: "
            "model.init, jv.checkpoint.restore and jv.checkpoint.save are for all processes together."
        )
    else:
        text = f"Process {own} came to compare variables with the others when one of them had given up."
    return f"{text} To wait longer write, before them:\n    {_LONGER}"


def _numbers(processes: Sequence[int]) -> str:
    """Numbers of processes as text: ``process 3``, ``processes 0-2, 5``."""
    runs: list[list[int]] = []
    for process in processes:
        if runs and process == runs[-1][-1] + 1:
            runs[-1].append(process)
        else:
            runs.append([process])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return text and f"process{'es' if len(processes) > 1 else ''} {text}"

"""`jv.checkpoint.restore`: values of a checkpoint into variables, by name, all or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import Tracer
from jax.sharding import Sharding

from jaxvars._making import put
from jaxvars.buffers import is_concrete
from jaxvars.checkpoint.arriving import arriving
from jaxvars.checkpoint.collecting import without_collecting
from jaxvars.checkpoint.formats.random_keys import implementation, is_key_dtype
from jaxvars.checkpoint.mapping import AssignmentMap
from jaxvars.checkpoint.matching import PlanRow, narrowed_dtype
from jaxvars.checkpoint.plan import RestorePlan, as_variables, make_plan
from jaxvars.checkpoint.progress import Progress, progress_meter
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.checkpoint.shard_reading import read_shards
from jaxvars.checkpoint.shares import Evidence, check_evidence
from jaxvars.checkpoint.together import all_or_none, is_common
from jaxvars.placement.homes import fill_homes
from jaxvars.placement.processes import check_processes
from jaxvars.spec import Hole, VariableSpec, is_hole, leaf_dtype
from jaxvars.variables import Variables

__all__ = ["file_dtypes", "restore", "restore_from"]

# Values go to the devices in batches: one call for many is twice as fast, and holds so much of the host's memory.
_BATCH_BYTES = 1 << 27
_Arrived = tuple[PlanRow, npt.NDArray[Any]]


def restore(
    path: str | os.PathLike[str],
    into: Variables,
    rules: Any = None,
    assignment_map: AssignmentMap | None = None,
    strict: bool = True,
    progress: Progress = None,
    cast: bool = False,
) -> Variables:
    r"""Return `into` with the values that a checkpoint has for its names (TF1: `Saver.restore`).

    Names, flags, collections and placement are those of `into`; values go straight to the device or sharding
    of the value or hole they replace. Either all of the plan is carried out or an error is raised and nothing
    has changed. See the plan first with `jv.checkpoint.plan`.

    Args:
      path: the checkpoint, in any format, as for `jv.checkpoint.open`.
      into: the variables, or ``model.specs(...)``: holes are filled, values replaced.
      rules: (pattern, name in the file[, transform]) triples. The pattern matches the name in `into`, as a
        whole; None as the name leaves the variable as it is; the transform, one of `jv.rules` or a function, gets
        the file's values as a NumPy array and returns what to store. A list of names gives it a list of arrays.
        Names that no rule matches are looked up as they are.
      assignment_map: TF1's {name or scope in the file: variable, name or scope}, or a list of such pairs,
        instead of rules. Only mapped variables are touched.
      strict: whether a name that is not in the file is an error; if not, it keeps what is in `into`.
      progress: None shows a bar on a terminal for large files, True always, False never; or a function
        called as ``progress(name, bytes_done, bytes_in_all)``.
      cast: whether to convert where the dtype differs but is of the same family (float32 to bfloat16,
        int64 to int16). Integers that do not fit raise.

    Returns:
      New `Variables`. Tensors of the file that nothing asks for are no error.

    Raises:
      NotFoundError: there is no checkpoint; or names are missing: all of them, with the likeliest sources.
      InvalidArgumentError: shapes or dtypes differ (all of them); a 64-bit value does not fit 32 bits.
      DataLossError: the file is damaged, or a data file is missing.
      InvalidTypeError: path and into are swapped.

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> old = jv.Variables({"tower/weights": jax.numpy.ones((2, 3))})
      >>> path = jv.checkpoint.save(old, folder.name + "/model.ckpt")
      >>> new = jv.Variables({"conv1/weights": jax.ShapeDtypeStruct((2, 3), "float32")})
      >>> new = jv.checkpoint.restore(path, new, rules=[(r"conv1/(.*)", r"tower/\1")])
      >>> float(new["conv1/weights"].sum())
      6.0
      >>> folder.cleanup()
    """
    into = as_variables(path, into, "restore")
    check_processes(into)
    with without_collecting(), contextlib.ExitStack() as opened:
        with all_or_none(f"Cannot restore {path}", is_common(into._leaves)):
            reader = opened.enter_context(open_checkpoint(path))
            made = make_plan(reader, os.fspath(path), into, rules, assignment_map, cast, "restore", strict)
            error = made.error()
            if error is not None:
                raise error
        return restore_from(reader, made, into, progress)


def restore_from(reader: CheckpointReader, plan: RestorePlan, into: Variables, progress: Progress) -> Variables:
    """Carry out a plan that has no problems (missing variables are left as they are)."""
    rows = [row for row in plan.rows if row.is_restored]
    targets: dict[str, Any] = {row.target: into[row.target] for row in rows}
    if into._layout.placed:
        holes = {name: target for name, target in targets.items() if is_hole(target)}
        fill_homes(holes, into)
        targets |= holes
    rows = [_narrowed(row, targets) for row in rows]
    found = ((name, _sharding_of(target)) for name, target in targets.items())
    shardings = {name: sharding for name, sharding in found if sharding is not None}
    common = any(not sharding.is_fully_addressable for sharding in shardings.values())
    what = f"Cannot restore {plan.path}"
    values: dict[str, Any] = {}
    evidence: list[Evidence] = []
    with all_or_none(what, common), progress_meter(progress, plan.nbytes) as meter:
        for row, value, unchecked in read_shards(reader, rows, targets, shardings):
            values[row.target] = value
            evidence += [] if unchecked is None else [unchecked]
            meter(row.target, row.nbytes)
        rest = arriving(reader, [row for row in rows if row.target not in values], targets)
        for batch in _batches(rest):
            values.update(_placed([(row.target, array) for row, array in batch], targets, shardings))
            for row, _ in batch:
                meter(row.target, row.nbytes)
    check_evidence(evidence, what)
    layout = into._layout
    leaves = tuple(values.get(name, leaf) for name, leaf in zip(layout.keys, into._leaves, strict=True))
    return into._renewed(layout.with_file_dtypes(file_dtypes(reader, rows, into)), leaves)


def _narrowed(row: PlanRow, targets: dict[str, Any]) -> PlanRow:
    """The row; where a hole asks for 64 bits that JAX, as configured, does not have, one that narrows, checked."""
    target = targets[row.target]
    if not is_hole(target) or is_key_dtype(target.dtype) or narrowed_dtype(target.dtype) == target.dtype:
        return row
    dtype = narrowed_dtype(target.dtype)
    targets[row.target] = Hole(target.shape, dtype, sharding=target.sharding)
    return dataclasses.replace(row, kind="narrow" if row.kind == "restore" else row.kind, dtype=str(dtype))


def file_dtypes(reader: CheckpointReader, rows: list[PlanRow], into: Variables) -> dict[int, str]:
    """Per position of a restored variable its dtype in the file, where JAX's is narrower: to be written in again."""
    saved: Mapping[str, VariableSpec] = getattr(reader.source, "specs", None) or {}
    index = into._layout.index
    noted: dict[int, str] = {}
    for row in rows:
        earlier = saved.get(row.sources[0])
        if row.kind == "narrow" and row.transform is None:
            noted[index[row.target]] = row.file_dtype
        else:
            same = earlier is not None and earlier.file_dtype and str(earlier.dtype) == row.dtype
            noted[index[row.target]] = earlier.file_dtype if earlier is not None and same else ""
    return noted


def _batches(arrays: Iterable[_Arrived]) -> Iterator[list[_Arrived]]:
    """Cut into lists that hold about `_BATCH_BYTES`."""
    batch: list[_Arrived] = []
    size = 0
    for row, array in arrays:
        batch.append((row, array))
        size += array.nbytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _placed(
    arrays: list[tuple[str, npt.NDArray[Any]]], targets: Mapping[str, Any], shardings: Mapping[str, Sharding]
) -> dict[str, Any]:
    """Put host values where the variables live; random keys become keys again."""
    placed: dict[str, Any] = {}
    free: dict[str, npt.NDArray[Any]] = {}
    bound: dict[str, npt.NDArray[Any]] = {}
    for name, array in arrays:
        sharding, dtype = shardings.get(name), leaf_dtype(targets[name])
        array = np.asarray(array, order="C")
        if is_key_dtype(dtype):
            keys = jax.random.wrap_key_data(jnp.asarray(array), impl=implementation(dtype))
            placed[name] = keys if sharding is None else jax.device_put(keys, sharding)
        elif sharding is None:
            free[name] = array
        elif sharding.is_fully_addressable:
            bound[name] = array
        else:
            placed[name] = put(array, sharding)
    placed.update(zip(free, jax.device_put(list(free.values())), strict=True))
    theirs = [shardings[name] for name in bound]
    placed.update(zip(bound, jax.device_put(list(bound.values()), theirs), strict=True))
    return placed


def _sharding_of(target: Any) -> Any:
    """The sharding that a hole asks for or a value has; None for a value that is free to move."""
    if is_concrete(target) and not target.committed:
        return None
    return getattr(target, "sharding", None) if not isinstance(target, Tracer) else None

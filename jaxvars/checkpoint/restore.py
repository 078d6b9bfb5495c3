"""`jv.checkpoint.restore`: values of a checkpoint into variables, by name, all or nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import Tracer

from jaxvars.buffers import is_concrete
from jaxvars.checkpoint.formats.random_keys import implementation, is_key_dtype, stored_form
from jaxvars.checkpoint.mapping import AssignmentMap
from jaxvars.checkpoint.matching import PlanRow, narrowed_dtype
from jaxvars.checkpoint.plan import RestorePlan, as_variables, make_plan
from jaxvars.checkpoint.progress import Progress, progress_meter
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, JaxvarsError
from jaxvars.placement.homes import fill_homes
from jaxvars.spec import is_hole, leaf_dtype, leaf_shape
from jaxvars.variables import Variables

__all__ = ["restore", "restore_from"]


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
      rules: (pattern, name in the file[, function]) triples. The pattern matches the name in `into`, as a
        whole; None as the name leaves the variable as it is; the function gets the file's values as a NumPy
        array and returns what to store. Names that no rule matches are looked up as they are.
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
    with open_checkpoint(path) as reader:
        made = make_plan(reader, os.fspath(path), into, rules, assignment_map, cast, "restore")
        error = made.error(strict)
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
    values: dict[str, Any] = {}
    with progress_meter(progress, plan.nbytes) as meter:
        direct = _direct_targets(reader, rows, targets)
        values.update(_read_direct(reader, rows, direct))
        for row, array in _arrays(reader, [row for row in rows if row.target not in direct]):
            target = targets[row.target]
            values[row.target] = _placed(_converted(row, array, target, plan), target)
            meter(row.target, row.nbytes)
    leaves = (values.get(name, leaf) for name, leaf in zip(into._layout.keys, into._leaves, strict=True))
    return into._with_leaves(leaves)


def _arrays(reader: CheckpointReader, rows: list[PlanRow]) -> Iterator[tuple[PlanRow, npt.NDArray[Any]]]:
    """Read each tensor once; every variable gets an array of its own, so that no two share a buffer."""
    takers: dict[str, list[PlanRow]] = {}
    for row in rows:
        takers.setdefault(row.source or "", []).append(row)
    for source, array in reader.source.read_many(takers):
        first, *others = takers[source]
        for row in others:
            yield row, array.copy()
        yield first, array


def _converted(row: PlanRow, array: npt.NDArray[Any], target: Any, plan: RestorePlan) -> npt.NDArray[Any]:
    """Apply the row's function, then bring the dtype to the variable's where that is allowed."""
    if row.transform is not None:
        try:
            # A copy: the result may be a view, and JAX may keep the memory it is given.
            array = np.array(row.transform(array))
        except JaxvarsError:
            raise
        except Exception as error:
            raise InvalidArgumentError(
                f"The function {row.transform_name} of the rule for {row.target} failed on tensor "
                f"{row.source}, {row.file_dtype} {list(row.file_shape or ())}: "
                f"{type(error).__name__}: {error}"
            ) from error
    shape, dtype = stored_form(leaf_shape(target), leaf_dtype(target))
    if array.shape != shape:
        raise InvalidArgumentError(
            f"{row.transform_name} of the rule for {row.target} gave shape {list(array.shape)}; the variable "
            f"has {list(shape)}. Nothing was restored."
        )
    if array.dtype == dtype:
        return array
    if row.kind not in ("cast", "narrow") and narrowed_dtype(array.dtype) != dtype:
        raise InvalidTypeError(
            f"{row.transform_name} of the rule for {row.target} gave {array.dtype}; the variable is {dtype}. "
            "Nothing was restored."
        )
    return _narrowed(row, array, dtype, plan)


def _narrowed(row: PlanRow, array: npt.NDArray[Any], dtype: np.dtype[Any], plan: RestorePlan) -> npt.NDArray[Any]:
    """Convert within a family of dtypes; a value that does not fit raises."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
        if array.dtype.kind in "iu":
            fits = bool((result.astype(array.dtype) == array).all()) and bool(((result < 0) == (array < 0)).all())
        else:
            fits = bool((np.isfinite(result) == np.isfinite(array)).all())
    if not fits:
        x64 = ' Or keep 64 bits: jax.config.update("jax_enable_x64", True)' if row.kind == "narrow" else ""
        raise InvalidArgumentError(
            f"Tensor {row.source} of {plan.path} is {array.dtype} and holds values that do not fit {dtype}, "
            f"which variable {row.target} has. Nothing was restored.{x64}"
        )
    return result


def _placed(array: npt.NDArray[Any], target: Any) -> Any:
    """Put host values where the variable lives; random keys become keys again."""
    sharding = _sharding_of(target)
    dtype = leaf_dtype(target)
    if is_key_dtype(dtype):
        keys = jax.random.wrap_key_data(jnp.asarray(array), impl=implementation(dtype))
        return keys if sharding is None else jax.device_put(keys, sharding)
    array = np.asarray(array, order="C")
    if sharding is None:
        return jax.device_put(array)
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__, dtype=array.dtype)


def _sharding_of(target: Any) -> Any:
    """The sharding that a hole asks for or a value has; None for a value that is free to move."""
    if is_concrete(target) and not target.committed:
        return None
    return getattr(target, "sharding", None) if not isinstance(target, Tracer) else None


def _direct_targets(
    reader: CheckpointReader, rows: list[PlanRow], into: Mapping[str, Any]
) -> Mapping[str, jax.ShapeDtypeStruct]:
    """The variables that no process holds whole: Orbax can read them piece by piece onto their shardings."""
    if not hasattr(reader.source, "read_onto") or jax.process_count() == 1:
        return {}
    targets: dict[str, jax.ShapeDtypeStruct] = {}
    for row in rows:
        sharding = _sharding_of(into[row.target])
        plain = row.kind == "restore" and row.transform is None and math.prod(row.shape) > 0
        if plain and sharding is not None and not sharding.is_fully_addressable:
            dtype = leaf_dtype(into[row.target])
            if not is_key_dtype(dtype):
                targets[row.target] = jax.ShapeDtypeStruct(row.shape, dtype, sharding=sharding)
    return targets


def _read_direct(
    reader: CheckpointReader, rows: list[PlanRow], targets: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, Any]:
    if not targets:
        return {}
    source: Any = reader.source
    values: dict[str, Any] = {}
    for row in rows:
        if row.target in targets:
            loaded = source.read_onto({row.source: targets[row.target]})
            values[row.target] = loaded[row.source]
    return values

"""From the tensors of a file to the values of variables: read once each, put through the rules' transforms, converted.

All of it is NumPy: nothing here is narrowed because JAX has no 64 bits, and nothing is on a device yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.random_keys import stored_form
from jaxvars.checkpoint.matching import PlanRow, narrowed_dtype
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, JaxvarsError
from jaxvars.spec import leaf_dtype, leaf_shape

__all__ = ["arriving", "converted"]

_Array = npt.NDArray[Any]


def arriving(
    reader: CheckpointReader, rows: list[PlanRow], targets: Mapping[str, Any]
) -> Iterator[tuple[PlanRow, _Array]]:
    """Yield each row of a plan with the array that its variable gets, in any order.

    Args:
      reader: the open checkpoint.
      rows: rows without problems.
      targets: per variable its value or hole: what the array must fit.

    Raises:
      InvalidArgumentError: values do not fit the variable's dtype, or a transform fails.
      InvalidTypeError: a transform gives another dtype.
      DataLossError: the file is damaged.
    """
    for row, arrays, shared in _gathered(reader, rows):
        array = _transformed(row, arrays, shared)
        yield row, _fitting(row, array, targets[row.target], reader.path)


def _gathered(reader: CheckpointReader, rows: list[PlanRow]) -> Iterator[tuple[PlanRow, list[_Array], bool]]:
    """Read each tensor once; yield (row, its tensors, whether another row takes one of them too)."""
    takers: dict[str, list[PlanRow]] = {}
    for row in rows:
        for source in dict.fromkeys(row.sources):
            takers.setdefault(source, []).append(row)
    taken = {source: len(wanting) for source, wanting in takers.items()}
    here: dict[str, dict[str, _Array]] = {}
    for source, array in reader.source.read_many(list(takers)):
        for row in takers[source]:
            if len(row.sources) == 1:
                yield row, [array], taken[source] > 1
                continue
            parts = here.setdefault(row.target, {})
            parts[source] = array
            if len(parts) == len(set(row.sources)):
                del here[row.target]
                yield row, [parts[name] for name in row.sources], True


def _transformed(row: PlanRow, arrays: list[_Array], shared: bool) -> _Array:
    """What the row's transform makes of its tensors: an array that nobody else has."""
    if row.transform is None:
        return arrays[0].copy() if shared else arrays[0]
    try:
        result = np.asarray(row.transform(arrays if len(arrays) > 1 else arrays[0]))
        # JAX may keep the memory it is given: no two variables may have the same.
        return result.copy() if any(np.may_share_memory(result, array) for array in arrays) else result
    except JaxvarsError as error:
        raise type(error)(f"Variable {row.target}: {error}. Nothing was restored.") from error
    except Exception as error:
        raise InvalidArgumentError(
            f"The function {row.transform_name} of the rule for {row.target} failed on tensor "
            f"{row.source}, {row.file_dtype} {list(row.file_shape or ())}: {type(error).__name__}: {error}"
        ) from error


def _fitting(row: PlanRow, array: _Array, target: Any, path: str) -> _Array:
    """The array in the variable's dtype, where it may be converted to it."""
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
    return converted(row, array, dtype, path)


def converted(row: PlanRow, array: _Array, dtype: np.dtype[Any], path: str) -> _Array:
    """Convert within a family of dtypes; a value that does not fit raises."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
        if array.dtype.kind in "iu":
            fits = bool((result.astype(array.dtype) == array).all()) and bool(((result < 0) == (array < 0)).all())
        else:
            fits = bool((np.isfinite(result) == np.isfinite(array)).all())
    if not fits:
        x64 = ' Or keep 64 bits: jax.config.update("jax_enable_x64", True)' if row.kind == "narrow" else ""
        raise InvalidArgumentError(
            f"Tensor {row.source} of {path} is {array.dtype} and holds values that do not fit {dtype}, "
            f"which variable {row.target} has. Nothing was restored.{x64}"
        )
    return result

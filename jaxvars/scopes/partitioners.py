"""TF1's partitioners: functions that say into how many slices a variable is cut."""

from __future__ import annotations

import math
import re
from typing import Any

from jaxvars.errors import InvalidArgumentError
from jaxvars.scopes.slicing import Partitioner

__all__ = ["fixed_size_partitioner", "min_max_variable_partitioner", "variable_axis_size_partitioner"]


def fixed_size_partitioner(num_shards: int, axis: int = 0) -> Partitioner:
    """Return a partitioner that cuts an axis into a fixed number of slices (``tf.fixed_size_partitioner``).

    Args:
      num_shards: how many; an axis with fewer rows gets one slice per row.
      axis: which axis.

    Returns:
      A function for the ``partitioner`` argument of `get_variable` and `variable_scope`. It raises
      InvalidArgumentError for a variable that has no such axis.

    Example:
      >>> fixed_size_partitioner(5)(shape=(10, 10), dtype="float32")
      [5, 1]
    """

    def partitioner(shape: Any, **_: Any) -> list[int]:
        dims = _dims(shape)
        return _along(axis, dims, min(num_shards, dims[_checked(axis, dims)]))

    return partitioner


def variable_axis_size_partitioner(
    max_shard_bytes: int, axis: int = 0, bytes_per_string_element: int = 16, max_shards: int | None = None
) -> Partitioner:
    """Return a partitioner that keeps slices below a size (``tf.variable_axis_size_partitioner``).

    An axis is cut into as many slices as needed, at most one per row, which may then be larger.

    Args:
      max_shard_bytes: the largest slice in bytes.
      axis: which axis.
      bytes_per_string_element: what an element counts where the dtype is called with "string".
      max_shards: the most slices, or None; wins over `max_shard_bytes`.

    Returns:
      A function for the ``partitioner`` argument of `get_variable` and `variable_scope`. It raises
      InvalidArgumentError for a variable that has no such axis.

    Raises:
      InvalidArgumentError: a number that is not positive.

    Example:
      >>> variable_axis_size_partitioner(32)(shape=(4, 8), dtype="float32")
      [4, 1]
    """
    if max_shard_bytes < 1 or bytes_per_string_element < 1:
        raise InvalidArgumentError(
            "Both max_shard_bytes and bytes_per_string_element must be positive. Currently, max_shard_bytes is "
            f"{max_shard_bytes} and bytes_per_string_element is {bytes_per_string_element}."
        )
    if max_shards and max_shards < 1:
        raise InvalidArgumentError(f"max_shards must be positive, got {max_shards}.")

    def partitioner(shape: Any, dtype: Any) -> list[int]:
        dims = _dims(shape)
        rows = dims[_checked(axis, dims)]
        row_bytes = math.prod(dims) // max(rows, 1) * _element_size(dtype, bytes_per_string_element)
        rows_per_slice = max(1, max_shard_bytes // row_bytes) if row_bytes else max(rows, 1)
        slices = max(1, math.ceil(rows / rows_per_slice))
        return _along(axis, dims, min(max_shards, slices) if max_shards else slices)

    return partitioner


def min_max_variable_partitioner(
    max_partitions: int = 1, axis: int = 0, min_slice_size: int = 256 << 10, bytes_per_string_element: int = 16
) -> Partitioner:
    """Return a partitioner whose slices have a least size (``tf.min_max_variable_partitioner``).

    Args:
      max_partitions: the most slices.
      axis: which axis.
      min_slice_size: how many bytes a slice should have at least.
      bytes_per_string_element: what an element counts where the dtype is called with "string".

    Returns:
      A function for the ``partitioner`` argument of `get_variable` and `variable_scope`. It raises
      InvalidArgumentError for a variable that has no such axis.

    Example:
      >>> min_max_variable_partitioner(max_partitions=16)(shape=(1024, 1024), dtype="float32")
      [16, 1]
    """

    def partitioner(shape: Any, dtype: Any) -> list[int]:
        dims = _dims(shape)
        rows = dims[_checked(axis, dims)]
        wanted = math.ceil(math.prod(dims) * _element_size(dtype, bytes_per_string_element) / min_slice_size)
        return _along(axis, dims, max(1, min(rows, max_partitions, wanted)))

    return partitioner


def _dims(shape: Any) -> list[int]:
    return [int(dim) for dim in (shape.as_list() if hasattr(shape, "as_list") else shape)]


def _checked(axis: int, dims: list[int]) -> int:
    if not -len(dims) <= axis < len(dims):
        raise InvalidArgumentError(f"Cannot partition variable along axis {axis} when shape is only {tuple(dims)}.")
    return axis


def _along(axis: int, dims: list[int], count: int) -> list[int]:
    partitions = [1] * len(dims)
    partitions[axis] = count
    return partitions


def _element_size(dtype: Any, string_size: int) -> int:
    """Bytes per element, also of a dtype that is given by its name or as a scalar type."""
    for size in (getattr(dtype, "itemsize", None), getattr(dtype, "size", None)):
        if isinstance(size, int):
            return size
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", "")
    if name == "string":
        return string_size
    bits = re.search(r"\d+", name)
    return max(1, int(bits[0]) // 8) if bits else {"float": 4, "int": 4, "half": 2, "double": 8}.get(name, 1)

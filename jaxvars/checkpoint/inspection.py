"""`jv.checkpoint.inspect`: print what is in a checkpoint, in the words of TF1's `inspect_checkpoint`."""

from __future__ import annotations

import os
import re

import numpy as np

from jaxvars.checkpoint.plan_text import shown
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint

__all__ = ["inspect", "print_tensors_in_checkpoint_file"]


def inspect(
    path: str | os.PathLike[str],
    tensor_name: str = "",
    values: bool = False,
    count_exclude_pattern: str = "",
) -> None:
    """Print names, dtypes, shapes and, if asked, the values of a checkpoint (TF1: `inspect_checkpoint`).

    Args:
      path: the checkpoint, in any format.
      tensor_name: print this one with its values, instead of all.
      values: whether to print the values of all tensors too.
      count_exclude_pattern: names in which this regular expression is found do not count as parameters.

    Raises:
      NotFoundError: there is no checkpoint. (A missing tensor is printed as such, as TF1 did.)

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"v1": jax.numpy.ones(3), "v2": jax.numpy.zeros(2)})
      >>> path = jv.checkpoint.save(variables, folder.name + "/model.ckpt")
      >>> jv.checkpoint.inspect(path)
      tensor: v1 (float32) [3]
      tensor: v2 (float32) [2]
      # Total number of params: 5
      >>> jv.checkpoint.inspect(path, "v1")
      tensor: v1 (float32) [3]
      [1. 1. 1.]
      # Total number of params: 5
      >>> folder.cleanup()
    """
    with open_checkpoint(path) as reader:
        if tensor_name and tensor_name not in reader:
            print(f"Tensor {tensor_name} not found in checkpoint")
            return
        names = [reader.resolve(tensor_name)] if tensor_name else list(reader)
        for name in names:
            _print_tensor(reader, name, values or bool(tensor_name))
        counted = _count(reader, count_exclude_pattern)
    print(f"# Total number of params: {counted}")


def print_tensors_in_checkpoint_file(
    file_name: str | os.PathLike[str],
    tensor_name: str | None,
    all_tensors: bool,
    all_tensor_names: bool = False,
    count_exclude_pattern: str = "",
) -> None:
    """Print as TF1's function of this name does; `inspect` is the shorter form.

    Args:
      file_name: the checkpoint.
      tensor_name: the tensor to print, unless one of the next two is set.
      all_tensors: print all tensors with their values.
      all_tensor_names: print all names, dtypes and shapes.
      count_exclude_pattern: as for `inspect`.
    """
    single = "" if all_tensors or all_tensor_names else tensor_name or ""
    inspect(file_name, single, values=all_tensors, count_exclude_pattern=count_exclude_pattern)


def _print_tensor(reader: CheckpointReader, name: str, values: bool) -> None:
    info = reader.tensors[name]
    print(f"tensor: {shown(name)} ({info.type_name}) {list(info.shape)}")
    if not values:
        return
    print(f"<{info.problem}>" if info.problem else np.asarray(reader[name]))


def _count(reader: CheckpointReader, exclude: str) -> int:
    pattern = re.compile(exclude) if exclude else None
    return sum(info.size for info in reader.tensors.values() if pattern is None or not pattern.search(info.name))

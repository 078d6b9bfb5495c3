"""`jv.checkpoint.graph_variables`: the variables of a TF1 graph, without its Python code and without TensorFlow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxvars.checkpoint.formats import tf_types
from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.checkpoint.formats.graph_def import (
    GraphVariable,
    Shape,
    meta_graph_variables,
    saved_model_variables,
)
from jaxvars.checkpoint.formats.table import FOOTER_MAGIC
from jaxvars.checkpoint.formats.tensor_slice import check_tiling, even_slices
from jaxvars.checkpoint.matching import narrowed_dtype
from jaxvars.checkpoint.paths import local_path, locate
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError
from jaxvars.spec import GLOBAL_VARIABLES, TRAINABLE_VARIABLES, Hole, VariableSpec
from jaxvars.variables import Variables

__all__ = ["graph_variables"]

_META = ".meta"
_SAVED_MODEL = "saved_model.pb"
_OUR_GRAPHS = b"\x89jaxvars-graph\r\n"  # what jv.train.export_meta_graph writes
_TEXT = re.compile(rb"\s*(#[^\n]*\n\s*)*[a-z_]+\s*[:{]")
_HEAD = 256
_MOST_SHOWN = 5


def graph_variables(path: str | os.PathLike[str], local: bool = False) -> Variables:
    """Return the variables that a TF1 graph declares, all without values, from the ``.meta`` file beside a checkpoint.

    Names, shapes, dtypes, trainable flags, collections and the order of creation are the graph's. A partitioned
    variable is one variable under its whole name, as it is in the checkpoint. Without 64-bit types int64 becomes
    int32, and the note `VariableSpec.file_dtype` says so, as after a restore. Variables of strings are left out.
    A shape that the graph leaves open is taken from the checkpoint of the same name.

    Args:
      path: the ``.meta`` file, the checkpoint beside it, a folder with a `checkpoint` state file, or the folder
        (or ``saved_model.pb``) of a SavedModel.
      local: whether to list variables outside of TF1's collection GLOBAL_VARIABLES too (local ones, such as the
        counts behind metrics). A Saver does not save them.

    Returns:
      `Variables` of holes, to restore into: ``jv.checkpoint.restore(path, jv.checkpoint.graph_variables(path))``.

    Raises:
      NotFoundError: there is no such file.
      InvalidArgumentError: it is a text file, a model that jaxvars exported, or lists no variables; or shapes are
        open, and there is no checkpoint that has them.
      DataLossError: it is damaged.

    Example:
      >>> import jaxvars as jv
      >>> jv.checkpoint.graph_variables("run/model.ckpt-1000")
      Traceback (most recent call last):
      ...
      jaxvars.errors.NotFoundError: ...run/model.ckpt-1000.meta does not exist...
    """
    file_path = _graph_file(local_path(path))
    data = _content(file_path)
    read = saved_model_variables if os.path.basename(file_path) == _SAVED_MODEL else meta_graph_variables
    found = [v for v in read(data, file_path) if local or GLOBAL_VARIABLES in v.collections]
    if not found:
        raise InvalidArgumentError(
            f"{file_path} lists no variables in its collections, as graphs of TF1 do. The names in its checkpoint, "
            f"and those that TF2 has for them: reader = jv.checkpoint.open({os.fspath(path)!r}); "
            "list(reader); reader.aliases"
        )
    whole = _with_known_shapes(_joined(filter(_has_values, found), file_path), file_path)
    return Variables.from_specs((spec, Hole(spec.shape, spec.dtype)) for spec in map(_spec, whole))


def _graph_file(path: str) -> str:
    """Return the file that holds the graph."""
    if os.path.isdir(path):
        for name in (_SAVED_MODEL, "saved_model.pbtxt"):
            if os.path.isfile(os.path.join(path, name)):
                return os.path.join(path, name)
        path = locate(path).path
    beside = path.removesuffix(".index") + _META
    if os.path.isfile(beside):
        return beside
    if os.path.isfile(path) and not _is_table(path):
        return path
    if path.endswith((_META, ".pb")):
        raise NotFoundError(f"{path} does not exist.")
    raise NotFoundError(
        f"{beside} does not exist: the graph of a checkpoint is in the file of its name that ends in .meta. Without "
        f"it, jv.checkpoint.open({path!r}).variable_specs says what is known of the variables."
    )


def _is_table(path: str) -> bool:
    """Whether the file is a checkpoint (or its index) itself."""
    size = len(FOOTER_MAGIC)
    with RangedFile(path) as file:
        return file.size > size and file.read(file.size - size, size, "the end") == FOOTER_MAGIC


def _content(path: str) -> bytes:
    with RangedFile(path) as file:
        head = file.read(0, min(_HEAD, file.size), "the beginning")
        if head.startswith(_OUR_GRAPHS):
            raise InvalidArgumentError(
                f"{path} is a model that jaxvars exported. Its variables: jv.train.import_meta_graph({path!r}).specs"
            )
        if _TEXT.match(head):
            raise InvalidArgumentError(
                f"{path} is a graph in text form, which jaxvars does not read. Use the binary form: the .meta file "
                "that the Saver wrote beside the checkpoint, or saved_model.pb."
            )
        return file.read(0, file.size, "the graph")


class _Whole(NamedTuple):
    """A variable with all its slices together, and how it was cut."""

    name: str
    shape: Shape
    dtype: int
    collections: list[str]
    partition: tuple[int, int] | None


def _joined(found: Iterable[GraphVariable], what: str) -> list[_Whole]:
    """Join the slices of partitioned variables; a variable has its place where its first slice was."""
    groups: dict[str, list[GraphVariable]] = {}
    for variable in found:
        groups.setdefault(variable.name if variable.part is None else variable.part.full_name, []).append(variable)
    return [_join(name, variables, what) for name, variables in groups.items()]


def _join(name: str, variables: Sequence[GraphVariable], what: str) -> _Whole:
    first = variables[0]
    parts = [variable.part for variable in variables if variable.part is not None]
    if not parts and len(variables) == 1:
        return _Whole(name, first.shape, first.dtype, first.collections, None)
    if len(parts) < len(variables):
        raise InvalidArgumentError(f"{what}: {name!r} names a variable and a partitioned one, which no Saver can save.")
    full = parts[0].full_shape
    if any(part.full_shape != full for part in parts) or any(v.dtype != first.dtype for v in variables):
        raise DataLossError(f"{what} is damaged: the slices of {name!r} disagree on its shape or dtype.")
    slices = sorted((part.where for part in parts), key=lambda where: where.extents)
    check_tiling(slices, full, f"{what}, variable {name!r},")
    cuts = ((axis, len(slices)) for axis in range(len(full)))
    partition = next((cut for cut in cuts if even_slices(full, cut) == slices), None)
    return _Whole(name, full, first.dtype, first.collections, partition)


def _with_known_shapes(found: Sequence[_Whole], path: str) -> list[_Whole]:
    """Take shapes that the graph leaves open from the checkpoint of the same name."""
    unknown = [variable for variable in found if variable.shape is None or -1 in variable.shape]
    if not unknown:
        return list(found)
    saved = _checkpoint_tensors(path)
    absent = [variable.name for variable in unknown if not _fits(saved.get(variable.name), variable.shape)]
    if absent:
        more = f" and {len(absent) - _MOST_SHOWN} more" if len(absent) > _MOST_SHOWN else ""
        raise InvalidArgumentError(
            f"{path} leaves the shapes of {', '.join(absent[:_MOST_SHOWN])}{more} open (validate_shape=False), and no "
            "checkpoint of its name lies beside it to take them from. Put the .meta file beside its checkpoint."
        )
    return [
        variable._replace(shape=saved[variable.name].shape) if variable in unknown else variable for variable in found
    ]


def _fits(info: TensorInfo | None, shape: Shape) -> bool:
    if info is None or shape is None:
        return info is not None
    return len(info.shape) == len(shape) and all(want in (-1, dim) for dim, want in zip(info.shape, shape, strict=True))


def _checkpoint_tensors(path: str) -> Mapping[str, TensorInfo]:
    folder, name = os.path.split(path)
    prefix = folder if name == _SAVED_MODEL else path.removesuffix(_META)
    try:
        with open_checkpoint(prefix) as reader:
            return reader.tensors
    except NotFoundError:
        return {}


def _spec(variable: _Whole) -> VariableSpec:
    stored = tf_types.numpy_dtype(variable.dtype)
    assert stored is not None and variable.shape is not None
    dtype = narrowed_dtype(stored)
    return VariableSpec(
        variable.name,
        variable.shape,
        dtype,
        trainable=TRAINABLE_VARIABLES in variable.collections,
        collections=tuple(variable.collections),
        file_dtype="" if dtype == stored else stored.name,
        partition=variable.partition,
    )


def _has_values(variable: GraphVariable) -> bool:
    """Whether JAX has arrays of the variable's type (strings have none)."""
    stored = tf_types.numpy_dtype(variable.dtype)
    return stored is not None and not stored.hasobject

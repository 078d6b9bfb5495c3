"""`jv.checkpoint.save`: variables into a checkpoint, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence

from jax.core import Tracer

from jaxvars.checkpoint.collecting import without_collecting
from jaxvars.checkpoint.formats.identify import identify_file
from jaxvars.checkpoint.formats.outgoing import Outgoing, outgoing
from jaxvars.checkpoint.formats.registry import WRITERS, format_to_write
from jaxvars.checkpoint.formats.tensor_bundle import is_bundle_index
from jaxvars.checkpoint.gathering import write_gathered
from jaxvars.checkpoint.paths import STATE_FILE, local_path
from jaxvars.checkpoint.together import all_or_none, is_common
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, JaxvarsError, some_names
from jaxvars.placement.processes import check_processes
from jaxvars.spec import is_hole
from jaxvars.variables import Variables

__all__ = ["check_place", "check_values", "prepare", "save", "write"]


def save(variables: Variables, path: str | os.PathLike[str], format: str | None = None) -> str:
    """Write a checkpoint (TF1: `Saver.save` without its list of checkpoints; `jv.train.Saver` keeps that).

    Returns when the checkpoint is complete. One that is at `path` is replaced only then: a save that fails or
    is killed leaves it as it was.

    With several processes all must call it, and when one fails, all raise. Into an Orbax checkpoint each writes its own
    shards. A file of another format is written by process 0, which gets the variables that others hold one at a time.

    Args:
      variables: the variables; none may be a hole.
      path: where to; the folder above is made if needed. A string, a `pathlib.Path` or a ``file://`` URL.
      format: "orbax", "tf" (TensorFlow's own V2 files), "safetensors" or "npz"; None chooses by the suffix
        ``.safetensors`` or ``.npz``, else Orbax; the suffix of another program's files (``.h5``, ``.pt``) is refused.
        Values that were narrowed when a checkpoint was restored are written in that checkpoint's dtype again, but in
        Orbax, which notes it.

    Returns:
      `path`, as a string.

    Raises:
      InvalidTypeError: the arguments are swapped.
      FailedPreconditionError: variables are uninitialized, or under a JAX transformation; the disk refuses.
      InvalidArgumentError: there is no such format, or the suffix is that of one that is only read; something else is
        at `path`.

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"dense/kernel": jax.numpy.ones((2, 3))})
      >>> path = jv.checkpoint.save(variables, folder.name + "/model.ckpt")
      >>> jv.train.list_variables(path)
      [('dense/kernel', [2, 3])]
      >>> folder.cleanup()
    """
    target, chosen = prepare(variables, path, format)
    with without_collecting():
        write(outgoing(variables), target, chosen)
    return os.fspath(path)


def prepare(variables: Variables, path: str | os.PathLike[str], format: str | None) -> tuple[str, str]:
    """Check the arguments of a save; return the local path and the format.

    Raises:
      InvalidTypeError: the arguments are swapped.
      FailedPreconditionError: variables have no value to save.
      InvalidArgumentError: there is no such format, or the path is none.
    """
    if not isinstance(variables, Variables):
        hint = " The variables come first." if isinstance(path, Variables) else ""
        raise InvalidTypeError(
            f"jv.checkpoint.save(variables, path): variables is {type(variables).__name__}, not Variables.{hint}"
        )
    target = local_path(path)
    chosen = format_to_write(format, target)
    check_processes(variables)
    check_values(variables)
    return target, chosen


def write(items: Sequence[Outgoing], path: str, format: str) -> None:
    """Write variables to a local path.

    Raises:
      InvalidArgumentError: something else than a checkpoint of this format is at `path`.
      FailedPreconditionError: the disk refuses.
    """
    common = is_common(item.value for item in items)
    with all_or_none(f"Cannot save to {path}", common):
        check_place(path, format)
    if common and format != "orbax":
        write_gathered(items, path, WRITERS[format])
    else:
        WRITERS[format](items, path)


def check_place(path: str, format: str) -> None:
    """Refuse to replace what is no checkpoint of this format.

    Raises:
      InvalidArgumentError: something else is there.
    """
    if os.path.basename(path) == STATE_FILE:
        raise InvalidArgumentError(
            "'checkpoint' is the name of the file in which a Saver notes its checkpoints. Choose another name."
        )
    if format != "tf" and os.path.isfile(path + ".index"):
        raise InvalidArgumentError(
            f"Cannot save to {path}: a TensorFlow checkpoint of that name is there ({path}.index), and would "
            "be found first. Choose another name."
        )
    index = path + ".index"
    if format == "tf" and os.path.lexists(index) and not _is_bundle(index):
        raise InvalidArgumentError(
            f"Cannot save to {path}: {index} is there, and is no checkpoint of TensorFlow. Choose another name."
        )
    if format == "orbax" or not os.path.lexists(path):
        return  # what is in the way of a folder, the writer of folders knows
    there = "a folder" if os.path.isdir(path) else _other_file(path, format)
    if there:
        raise InvalidArgumentError(
            f"Cannot save to {path}: {there} is there, and saving would delete or hide it. Choose another name."
        )


def _is_bundle(path: str) -> bool:
    try:
        return is_bundle_index(path)
    except JaxvarsError:
        return False


def _other_file(path: str, format: str) -> str:
    """What a file is, "" if it is a checkpoint of this format."""
    if not os.path.isfile(path):  # a link to nothing, a device
        return "something that is no file"
    kind = identify_file(path)
    return "" if kind.format == format else kind.text or "an unknown file"


def check_values(variables: Variables) -> None:
    """Raise `FailedPreconditionError` where a variable has no value to save: a hole, a tracer, donated."""
    holes = [name for name, leaf in zip(variables, variables._leaves, strict=True) if is_hole(leaf)]
    if holes:
        raise FailedPreconditionError(
            f"Cannot save: attempting to use uninitialized values: {some_names(holes)}. "
            "Write: variables = jv.variables_initializer(variables, rng)"
        )
    traced = [name for name, leaf in zip(variables, variables._leaves, strict=True) if isinstance(leaf, Tracer)]
    if traced:
        raise FailedPreconditionError(
            f"Cannot save inside jit or another JAX transformation: {some_names(traced)} have no values there. "
            "Return the variables and save outside."
        )
    for name in variables:
        variables[name]  # a value that was donated raises, and says to what

"""`jv.checkpoint.save`: variables into a checkpoint, whole or not at all."""

from __future__ import annotations

import os

from jax.core import Tracer

from jaxvars.checkpoint.formats.registry import writer
from jaxvars.checkpoint.paths import local_path
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.spec import is_hole
from jaxvars.variables import Variables

__all__ = ["save"]


def save(variables: Variables, path: str | os.PathLike[str], format: str | None = None) -> str:
    """Write a checkpoint (TF1: `Saver.save` without its list of checkpoints; `jv.train.Saver` keeps that).

    Returns when the checkpoint is complete. One that is at `path` is replaced only then: a save that fails or
    is killed leaves it as it was. With several processes all must call it.

    Args:
      variables: the variables; none may be a hole.
      path: where to; the folder above is made if needed. A string, a `pathlib.Path` or a ``file://`` URL.
      format: "orbax", the default.

    Returns:
      `path`, as a string.

    Raises:
      InvalidTypeError: the arguments are swapped.
      FailedPreconditionError: variables are uninitialized, or under a JAX transformation; the disk refuses.
      InvalidArgumentError: there is no such format; something else is at `path`.

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"dense/kernel": jax.numpy.ones((2, 3))})
      >>> path = jv.checkpoint.save(variables, folder.name + "/model.ckpt")
      >>> jv.train.list_variables(path)
      [('dense/kernel', [2, 3])]
      >>> folder.cleanup()
    """
    if not isinstance(variables, Variables):
        hint = " The variables come first." if isinstance(path, Variables) else ""
        raise InvalidTypeError(
            f"jv.checkpoint.save(variables, path): variables is {type(variables).__name__}, not Variables.{hint}"
        )
    write = writer(format)
    target = local_path(path)
    _check_values(variables)
    if os.path.basename(target) == "checkpoint":
        raise InvalidArgumentError(
            "'checkpoint' is the name of the file in which a Saver notes its checkpoints. Choose another name."
        )
    write(variables, target)
    return os.fspath(path)


def _check_values(variables: Variables) -> None:
    holes = [name for name, leaf in zip(variables, variables._leaves, strict=True) if is_hole(leaf)]
    if holes:
        raise FailedPreconditionError(
            f"Cannot save: attempting to use uninitialized values: {_some(holes)}. "
            "Write: variables = jv.variables_initializer(variables, rng)"
        )
    traced = [name for name, leaf in zip(variables, variables._leaves, strict=True) if isinstance(leaf, Tracer)]
    if traced:
        raise FailedPreconditionError(
            f"Cannot save inside jit or another JAX transformation: {_some(traced)} have no values there. "
            "Return the variables and save outside."
        )
    for name in variables:
        variables[name]  # a value that was donated raises, and says to what


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

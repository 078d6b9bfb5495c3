"""What `Saver` does with its arguments: checks, step numbers, names in the file, opening what to restore."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from jax.core import Tracer

from jaxvars.checkpoint.paths import local_path
from jaxvars.checkpoint.plan import RestorePlan
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.gradients import subset
from jaxvars.spec import is_hole
from jaxvars.state import key_of
from jaxvars.variables import Variables

__all__ = [
    "NoCheckpointError",
    "check_plan",
    "check_variables",
    "make_folder",
    "open_saved",
    "path_text",
    "refuse_graph_arguments",
    "renamed",
    "step_number",
]


class NoCheckpointError(NotFoundError, InvalidArgumentError):
    """No checkpoint at a path: TF1 raised ValueError at first, NotFoundError later; code catches either."""


def refuse_graph_arguments(saver_def: Any, builder: Any) -> None:
    """Refuse the arguments of TF1's Saver that are parts of a graph."""
    for name, value in (("saver_def", saver_def), ("builder", builder)):
        if value is not None:
            raise InvalidArgumentError(
                f"Saver({name}=...): there is no graph to take a {name} from. Name the variables instead: "
                'Saver(var_list=["a/b"])'
            )


def check_variables(variables: Any, call: str) -> None:
    """Refuse what is no state."""
    if not isinstance(variables, Variables):
        raise InvalidTypeError(f"Saver.{call}: variables is {type(variables).__name__}, not Variables")


def path_text(path: Any) -> str:
    """The path as the user wrote it."""
    if not isinstance(path, str | os.PathLike):
        raise InvalidTypeError(f"Saver.save(variables, path): path is {type(path).__name__}, not a string")
    return str(os.fspath(cast("os.PathLike[str]", path)))


def step_number(step: Any, variables: Variables) -> int:
    """The step as an int: given as a number or array, or as the name or handle of a variable."""
    if key_of(step) is not None:
        step = variables[step]
    if is_hole(step) or isinstance(step, Tracer):
        raise FailedPreconditionError("global_step has no value here: save outside of jit, after initialization")
    array = np.asarray(step)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise InvalidTypeError(
            f"global_step is an integer, or the name or handle of an integer variable; got {step!r:.60}"
        )
    return int(array.reshape(()))


def renamed(variables: Variables, chosen: Mapping[str, str]) -> Variables:
    """The chosen variables under their names in the file."""
    specs = variables.variable_specs
    if all(key == name for key, name in chosen.items()):
        return subset(variables, tuple(sorted(chosen)))
    return Variables.from_specs(
        (dataclasses.replace(specs[key], key=name), variables[key]) for key, name in chosen.items()
    )


def make_folder(path: str) -> None:
    """Make the folder that a checkpoint goes into."""
    folder = os.path.dirname(local_path(path))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise FailedPreconditionError(f"cannot save: no folder {folder}: {error.strerror or error}") from None


def open_saved(path: Any) -> CheckpointReader:
    """Open a checkpoint to restore; TF1's errors where there is none."""
    if path is None:
        raise InvalidArgumentError("Can't load save_path when it is None.")
    try:
        return open_checkpoint(path)
    except NotFoundError as error:
        raise NoCheckpointError(f"The passed save_path is not a valid checkpoint: {path}\n{error}") from None


def check_plan(plan: RestorePlan) -> None:
    """Raise what is wrong with a restore by a saver."""
    error = plan.error()
    if error is not None:
        text = f"{error}\nrules=, strict= and cast= are arguments of jv.checkpoint.restore(path, variables, ...)."
        if plan.mismatched:
            text = f"Assign requires shapes and dtypes of both tensors to match.\n{text}"
        raise type(error)(text)

"""`init_from_checkpoint`: in a model, give variables made so far the initial values that a checkpoint has."""

from __future__ import annotations

import os

import jax

from jaxvars.checkpoint.initial_values import FromCheckpoint, OpenWhenRead
from jaxvars.checkpoint.mapping import AssignmentMap
from jaxvars.checkpoint.plan import make_plan
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.defining import DefiningFrame
from jaxvars.errors import FailedPreconditionError
from jaxvars.frame import current_frame, open_frame
from jaxvars.frames import HandFrame, InitialValuesFrame, SpecsFrame, slot_spec
from jaxvars.spec import Hole
from jaxvars.variables import Variables

__all__ = ["init_from_checkpoint"]


def init_from_checkpoint(ckpt_dir_or_file: str | os.PathLike[str], assignment_map: AssignmentMap) -> None:
    """Let the variables made so far begin with the values of a checkpoint (`tf.train.init_from_checkpoint`).

    Call it in the model function, after the variables that it names, as TF1 code does. `model.specs` then knows where
    the values come from, `model.init` and `jv.variables_initializer` read them instead of running the initializers,
    and `model.apply` is not concerned. In a `VariableStore` the variables that this block made take the values at
    once; those that had a value before keep it. Outside a model write ``variables = jv.checkpoint.restore(path,
    variables, assignment_map=...)``.

    Args:
      ckpt_dir_or_file: the checkpoint, in any format, as for `jv.checkpoint.open`.
      assignment_map: {name in the file: variable}, or a list of such pairs. A variable is a name or a handle; a scope
        in the file (``"old/"``) maps to a scope here (``"new/"``); ``"/"`` is the root.

    Raises:
      FailedPreconditionError: outside a frame; the text has the line to write.
      NotFoundError: there is no checkpoint.
      InvalidArgumentError: a name that is not in the file or names no variable, another shape or dtype: all problems
        at once, and nothing has changed. TF1's ``ValueError``.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = jv.checkpoint.save(jv.Variables({"old/w": jnp.ones(2)}), folder.name + "/model.ckpt")
      >>> def net():
      ...     with jv.variable_scope("tower"):
      ...         w = jv.get_variable("w", [2])
      ...     jv.train.init_from_checkpoint(path, {"old/": "tower/"})
      ...     return w * 2.0
      >>> jv.transform(net).init(0)["tower/w"]
      Array([1., 1.], dtype=float32)
      >>> folder.cleanup()
    """
    if open_frame() is None:
        raise FailedPreconditionError(
            "init_from_checkpoint works in a model function or in `with jv.VariableStore(0):`, after the variables it "
            "names were made. Outside, write:\n"
            f"    variables = jv.checkpoint.restore({os.fspath(ckpt_dir_or_file)!r}, variables, assignment_map=...)"
        )
    frame = current_frame("jv.train.init_from_checkpoint")
    if isinstance(frame, InitialValuesFrame):
        return  # the values were read already
    if isinstance(frame, SpecsFrame):
        for key, initializer in _initializers(frame, ckpt_dir_or_file, assignment_map).items():
            slot = frame.slots[key]
            hole = frame.holes[key] or Hole(slot.shape, slot.dtype)
            frame.holes[key] = hole.update(initializer=initializer)
    elif isinstance(frame, HandFrame):
        made = {slot.key for _, slot in frame.made}
        for key, initializer in _initializers(frame, ckpt_dir_or_file, assignment_map).items():
            if key in made:
                slot = frame.slots[key]
                with frame.at_frame_level():
                    value = initializer(None, slot.shape, slot.dtype)
                frame.write(slot, value)


def _initializers(
    frame: DefiningFrame, path: str | os.PathLike[str], assignment_map: AssignmentMap
) -> dict[str, FromCheckpoint]:
    """The initializer of each mapped variable."""
    into = Variables.from_specs(
        (slot_spec(slot, slot.partitioning), jax.ShapeDtypeStruct(slot.shape, slot.dtype))
        for slot in frame.slots.values()
    )
    with open_checkpoint(path) as reader:
        plan = make_plan(reader, os.fspath(path), into, None, assignment_map, False, "restore")
        error = plan.error()
        if error is not None:
            raise error
        opened = OpenWhenRead(reader.path)
    return {
        row.target: FromCheckpoint(opened.path, row.sources[0], opened, frame.slots[row.target].dtype)
        for row in plan.rows
        if row.is_restored
    }

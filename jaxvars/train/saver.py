"""`Saver`: numbered checkpoints in a folder, as TF1 kept them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import jax

from jaxvars.checkpoint.background import PendingSave, start
from jaxvars.checkpoint.collecting import without_collecting
from jaxvars.checkpoint.mapping import Want
from jaxvars.checkpoint.matching import make_rows
from jaxvars.checkpoint.paths import exists, local_path
from jaxvars.checkpoint.plan import RestorePlan
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.restore import restore_from
from jaxvars.checkpoint.save import prepare
from jaxvars.checkpoint.save import save as save_checkpoint
from jaxvars.checkpoint.tf1_api import update_checkpoint_state
from jaxvars.checkpoint.together import all_or_none, is_common
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.gradients import subset
from jaxvars.placement.processes import check_processes
from jaxvars.rules import Target, reshape
from jaxvars.spec import is_hole
from jaxvars.train._saving import (
    check_plan,
    check_variables,
    make_folder,
    open_saved,
    path_text,
    refuse_graph_arguments,
    renamed,
    step_number,
)
from jaxvars.train.retention import Retention, checkpoint_time, delete_checkpoint
from jaxvars.train.var_list import names_in_file
from jaxvars.variables import Variables

__all__ = ["Saver"]

# What a saver without var_list takes: TF1's GLOBAL_VARIABLES and SAVEABLE_OBJECTS.
_SAVED_COLLECTIONS = frozenset({"variables", "saveable_objects"})


class Saver:
    """Saves variables in numbered checkpoints and restores them (`tf.train.Saver`).

    Args:
      var_list: what to save and restore: None for all variables in GLOBAL_VARIABLES, a list of names or
        handles, or a dict ``{name in the file: name or handle}``. All slices of a partitioned variable stand for it.
      reshape: whether restore accepts a tensor of another shape with the same number of elements, row by row.
      sharded: accepted for TF1's sake, without effect: the format decides.
      max_to_keep: how many of its checkpoints the saver keeps: with each save beyond that the oldest is
        deleted. None or 0 keeps all.
      keep_checkpoint_every_n_hours: of the checkpoints to be deleted, one per so many hours stays.
      name: accepted for TF1's sake, without effect, as are `restore_sequentially` and `filename`.
      restore_sequentially: see `name`.
      saver_def: must be None: there is no graph.
      builder: must be None.
      defer_build: whether `build` must be called before the first save or restore. A saver without `var_list`
        chooses its variables at each save and restore anyway.
      allow_empty: whether saving nothing is no error.
      write_version: accepted for TF1's sake, without effect; see `format`.
      pad_step_number: whether step numbers in paths have at least 8 digits, so that they sort.
      save_relative_paths: whether the state file names checkpoints relative to its folder.
      filename: see `name`.
      format: what to write, as for `jv.checkpoint.save`; None is Orbax. Any format is restored.
      background: whether `save` returns at once and the checkpoint is written while training goes on, as with
        `jv.checkpoint.save_async`. A failure is raised by the next call of the saver, or by `wait`.

    Raises:
      InvalidTypeError: `var_list` is no list or dict of names or handles.
      InvalidArgumentError: one name or one variable is in it twice; `max_to_keep` is negative.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"w": jnp.array([1.0, 2.0])})
      >>> saver = jv.train.Saver(max_to_keep=2)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = saver.save(variables, folder + "/model.ckpt", global_step=100)
      ...     print(path.removeprefix(folder), jv.train.latest_checkpoint(folder) == path)
      ...     restored = saver.restore(jv.Variables({"w": jnp.zeros(2)}), path)
      /model.ckpt-100 True
      >>> print(restored["w"])
      [1. 2.]
    """

    def __init__(
        self,
        var_list: Sequence[Any] | Mapping[str, Any] | None = None,
        reshape: bool = False,
        sharded: bool = False,
        max_to_keep: int | None = 5,
        keep_checkpoint_every_n_hours: float = 10000.0,
        name: str | None = None,
        restore_sequentially: bool = False,
        saver_def: None = None,
        builder: None = None,
        defer_build: bool = False,
        allow_empty: bool = False,
        write_version: Any = None,
        pad_step_number: bool = False,
        save_relative_paths: bool = False,
        filename: str | None = None,
        format: str | None = None,
        background: bool = False,
    ) -> None:
        del sharded, name, restore_sequentially, write_version, filename
        refuse_graph_arguments(saver_def, builder)
        if defer_build and var_list is not None:
            raise InvalidArgumentError(
                "If `var_list` is provided then build cannot be deferred. Either set defer_build=False or "
                "var_list=None."
            )
        if max_to_keep is not None and max_to_keep < 0:
            raise InvalidArgumentError(f"max_to_keep is a count, or None to keep all; got {max_to_keep}")
        self._names = None if var_list is None else names_in_file(var_list)
        self._built = not defer_build
        self._reshape = reshape
        self._allow_empty = allow_empty
        self._pad_step_number = pad_step_number
        self._save_relative_paths = save_relative_paths
        self._format = format
        self._background = background
        self._pending: PendingSave | None = None
        self._retention = Retention(max_to_keep, keep_checkpoint_every_n_hours)

    def build(self) -> None:
        """End the waiting that ``defer_build=True`` asked for."""
        self._built = True

    def wait(self) -> None:
        """Wait until the save that goes on in the background is complete.

        Raises:
          FailedPreconditionError: it failed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    # -- save and restore --------------------------------------------------------------------------------

    def save(
        self,
        variables: Variables,
        save_path: str | os.PathLike[str],
        global_step: Any = None,
        latest_filename: str | None = None,
        meta_graph_suffix: str = "meta",
        write_meta_graph: bool = True,
        write_state: bool = True,
        *,
        format: None = None,
    ) -> str | None:
        """Save a checkpoint, note it in the folder's state file, delete the oldest beyond `max_to_keep`.

        The checkpoint is complete when this returns, unless the saver works in the background; one at the same path is
        replaced only then. With several processes all must call it.

        Args:
          variables: the variables; those that the saver saves must have values.
          save_path: the path, such as ``"run/model.ckpt"``; the folder is made if needed.
          global_step: appended to the path as ``-<step>``: an int, an array, or the name or handle of a variable.
          latest_filename: the state file's name, "checkpoint" by default.
          meta_graph_suffix: accepted for TF1's sake, without effect: there is no graph.
          write_meta_graph: likewise.
          write_state: whether to note the checkpoint and delete old ones.
          format: must be None: a saver writes one format, ``Saver(format="tf")``.

        Returns:
          The path with the step, for `restore`; None when there was nothing to save and that is allowed.

        Raises:
          NotFoundError: `var_list` or `global_step` names what does not exist.
          FailedPreconditionError: variables have no value (all are listed); the disk refuses; `build` is wanted; an
            earlier save in the background failed.
          InvalidArgumentError: nothing to save; a path that collides with the state file's.
          InvalidTypeError: swapped or wrong arguments.
        """
        del meta_graph_suffix, write_meta_graph
        if format is not None:
            raise InvalidTypeError(f"Saver.save: a saver writes one format. Write: jv.train.Saver(format={format!r})")
        check_variables(variables, "save(variables, path)")
        self._check_built("save")
        path = self._numbered(path_text(save_path), global_step, variables, latest_filename or "checkpoint")
        chosen = self._chosen(variables)
        if not chosen:
            return self._nothing(variables)
        holes = [key for key in chosen if is_hole(variables[key])]
        if holes:
            raise FailedPreconditionError(
                f"attempting to use uninitialized values: {', '.join(holes)}. Initialize them first: variables = "
                "jv.variables_initializer(variables, rng)"
            )
        self.wait()
        make_folder(path)
        part = renamed(variables, chosen)
        note = (lambda: self._note(path, latest_filename)) if write_state else (lambda: None)
        if self._background:
            target, form = prepare(part, path, self._format)
            self._pending = start(part, path, target, form, note)
        else:
            save_checkpoint(part, path, self._format)
            note()
        return path

    def restore(self, into: Variables, save_path: str | os.PathLike[str]) -> Variables:
        """Return `into` with the saver's variables as the checkpoint has them; all or nothing.

        Reads any format, TensorFlow's too. Extra tensors in the file are no error. For other names, or for what
        the file lacks, see `jv.checkpoint.restore`.

        Args:
          into: the variables to restore, with values or holes; others in it are left alone.
          save_path: the checkpoint, or a folder whose latest is meant.

        Returns:
          New variables in the layout of `into`.

        Raises:
          InvalidArgumentError: no checkpoint at `save_path` (also a NotFoundError); another shape or dtype.
          NotFoundError: names that are not in the checkpoint, all of them listed.
          DataLossError: the checkpoint is damaged.
        """
        if not isinstance(cast(object, into), Variables) and isinstance(save_path, Variables):
            raise InvalidTypeError(
                "Saver.restore: the arguments are swapped. Write: variables = saver.restore(variables, path)"
            )
        check_variables(into, "restore(variables, path)")
        self._check_built("restore")
        self.wait()
        chosen = self._chosen(into)
        if not chosen:
            self._nothing(into)
            return into
        part = subset(into, tuple(sorted(chosen)))
        check_processes(part)
        with without_collecting(), contextlib.ExitStack() as opened:
            with all_or_none(f"Cannot restore {save_path}", is_common(part._leaves)):
                reader = opened.enter_context(open_saved(save_path))
                plan = self._plan(reader, save_path, part, chosen)
                check_plan(plan)
            restored = restore_from(reader, plan, part, None)
        index, leaves = into._layout.index, list(into._leaves)
        for key, leaf in zip(restored, restored._leaves, strict=True):
            leaves[index[key]] = leaf
        file_dtypes = zip(restored, restored._layout.notes.file_dtype, strict=True)
        layout = into._layout.with_file_dtypes({index[key]: dtype for key, dtype in file_dtypes})
        return into._renewed(layout, leaves)

    # -- the list of checkpoints -------------------------------------------------------------------------

    @property
    def last_checkpoints(self) -> list[str]:
        """The checkpoints that were not deleted, oldest first; empty when all are kept."""
        return self._retention.paths

    def set_last_checkpoints(self, last_checkpoints: Sequence[str]) -> None:
        """Take over a list of checkpoints, oldest first.

        As in TF1 these have no time and so are not deleted; `set_last_checkpoints_with_time` and
        `recover_last_checkpoints` give times.

        Args:
          last_checkpoints: paths as `save` returned them.
        """
        self._retention.replace((os.fspath(path), float("inf")) for path in last_checkpoints)

    def set_last_checkpoints_with_time(self, last_checkpoints_with_time: Sequence[tuple[str, float]]) -> None:
        """Take over a list of (path, seconds since the epoch), oldest first.

        Args:
          last_checkpoints_with_time: the pairs.
        """
        self._retention.replace((os.fspath(path), float(when)) for path, when in last_checkpoints_with_time)

    def recover_last_checkpoints(self, checkpoint_paths: Iterable[str]) -> None:
        """Take over the checkpoints of an earlier process, so that they count for `max_to_keep`.

        Args:
          checkpoint_paths: paths, oldest first, such as ``all_model_checkpoint_paths`` of
            `jv.train.get_checkpoint_state`. Those that are gone are left out.
        """
        found = [(path, checkpoint_time(path)) for path in map(os.fspath, checkpoint_paths) if exists(local_path(path))]
        self._retention.replace((path, when) for path, when in found if when is not None)

    # -- parts -------------------------------------------------------------------------------------------

    def _check_built(self, what: str) -> None:
        if not self._built:
            raise FailedPreconditionError(
                f"`build()` should be called before {what} if defer_build==True. Write: saver.build()"
            )

    def _chosen(self, variables: Variables) -> dict[str, str]:
        """Variable -> name in the file; all unknown names in one error."""
        if self._names is None:
            rows = zip(variables, variables._layout.collections, strict=True)
            return {key: key for key, collections in rows if not _SAVED_COLLECTIONS.isdisjoint(collections)}
        chosen: dict[str, str] = {}
        missing: list[str] = []
        for in_file, ref in self._names.items():
            try:
                chosen[variables._resolve(ref)] = in_file
            except NotFoundError as error:
                missing.append(f"  {error}")
        if missing:
            raise NotFoundError("the saver's var_list names what is not there:\n" + "\n".join(missing))
        return chosen

    def _nothing(self, variables: Variables) -> None:
        if not self._allow_empty:
            raise InvalidArgumentError(
                f"No variables to save: none of the {len(variables)} is in GLOBAL_VARIABLES. Name them in "
                "Saver(var_list=...), or allow it: Saver(allow_empty=True)"
            )

    def _numbered(self, path: str, step: Any, variables: Variables, latest_filename: str) -> str:
        """The path with the step; an error where it would collide with the state file."""
        if os.path.split(latest_filename)[0]:
            raise InvalidArgumentError(f"'latest_filename' must not contain path components: {latest_filename!r}")
        if not os.path.basename(path):
            raise InvalidArgumentError(f"{path!r} is a folder: add a name, as in {path + 'model.ckpt'!r}")
        if step is not None:
            number = step_number(step, variables)
            return f"{path}-{number:08d}" if self._pad_step_number else f"{path}-{number}"
        if os.path.basename(path) == latest_filename:
            raise InvalidArgumentError(f"'latest_filename' collides with 'save_path': {latest_filename!r} and {path!r}")
        return path

    def _note(self, path: str, latest_filename: str | None) -> None:
        old = self._retention.add(path)
        if jax.process_index() != 0:
            return
        update_checkpoint_state(
            os.path.dirname(path),
            path,
            self.last_checkpoints,
            latest_filename,
            save_relative_paths=self._save_relative_paths,
        )
        # Last, so that the state file never names a checkpoint that is gone.
        if old is not None:
            delete_checkpoint(old)

    def _plan(
        self, reader: CheckpointReader, path: str | os.PathLike[str], part: Variables, chosen: Mapping[str, str]
    ) -> RestorePlan:
        """The plan of a restore by these names, with the function that reshapes where that is wanted."""
        wants: dict[str, Want] = {}
        for key, in_file in chosen.items():
            info, value = reader.tensors.get(in_file), part[key]
            other = info is not None and info.shape != value.shape and info.size == value.size
            wants[key] = Want((in_file,), reshape().bound(Target(key, value, str)) if self._reshape and other else None)
        rows = make_rows(reader, part, wants, False)
        return RestorePlan(os.fspath(path), reader.format, tuple(rows), (), len(reader))

"""The functions of ``tf.train`` that ask about checkpoints, on every format; `jaxvars.train` exports them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from jaxvars.checkpoint.formats.state_file import CheckpointState, read_state, write_state
from jaxvars.checkpoint.paths import STATE_FILE, exists, local_path, resolve_state_path
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.errors import DataLossError, FailedPreconditionError, InvalidArgumentError, NotFoundError

__all__ = [
    "CheckpointState",
    "checkpoint_exists",
    "generate_checkpoint_state_proto",
    "get_checkpoint_state",
    "latest_checkpoint",
    "list_variables",
    "load_checkpoint",
    "load_variable",
    "update_checkpoint_state",
]


def load_checkpoint(ckpt_dir_or_file: str | os.PathLike[str]) -> CheckpointReader:
    """Open a checkpoint (TF1's name of `jv.checkpoint.open`).

    Args:
      ckpt_dir_or_file: a path as for `jv.checkpoint.open`; of a Saver's folder, the latest checkpoint.

    Returns:
      A `CheckpointReader`, which also has TF1's `get_tensor`, `has_tensor`, `get_variable_to_shape_map`.

    Raises:
      NotFoundError: there is none.
    """
    return open_checkpoint(ckpt_dir_or_file)


def list_variables(ckpt_dir_or_file: str | os.PathLike[str]) -> list[tuple[str, list[int]]]:
    """Return (name, shape) of each tensor of a checkpoint, sorted by name.

    Args:
      ckpt_dir_or_file: a path as for `jv.checkpoint.open`.

    Raises:
      NotFoundError: there is no checkpoint.

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"b": jax.numpy.ones(3), "a/w": jax.numpy.ones((2, 3))})
      >>> path = jv.checkpoint.save(variables, folder.name + "/model.ckpt")
      >>> jv.train.list_variables(path)
      [('a/w', [2, 3]), ('b', [3])]
      >>> folder.cleanup()
    """
    with open_checkpoint(ckpt_dir_or_file) as reader:
        return [(name, list(reader.tensors[name].shape)) for name in reader]


def load_variable(ckpt_dir_or_file: str | os.PathLike[str], name: str) -> npt.NDArray[Any]:
    """Return the values of one tensor as a NumPy array in the file's dtype.

    Args:
      ckpt_dir_or_file: a path as for `jv.checkpoint.open`.
      name: its name; a trailing ``:0`` is accepted.

    Raises:
      NotFoundError: there is no such checkpoint or tensor.
    """
    with open_checkpoint(ckpt_dir_or_file) as reader:
        return reader.get_tensor(name)


def checkpoint_exists(checkpoint_prefix: str | os.PathLike[str]) -> bool:
    """Return whether there is a checkpoint at this path (its contents are not checked)."""
    return exists(local_path(checkpoint_prefix))


def get_checkpoint_state(
    checkpoint_dir: str | os.PathLike[str], latest_filename: str | None = None
) -> CheckpointState | None:
    """Return what the `checkpoint` state file of a folder says, relative paths joined with the folder.

    Args:
      checkpoint_dir: the folder.
      latest_filename: the state file's name, "checkpoint" by default.

    Returns:
      A `CheckpointState`, None if there is no state file or it cannot be understood.

    Raises:
      InvalidArgumentError: the file names no checkpoint.
    """
    folder = _folder(checkpoint_dir)
    try:
        state = read_state(os.path.join(folder, latest_filename or STATE_FILE))
    except (NotFoundError, DataLossError):
        return None
    return CheckpointState(
        os.path.join(folder, state.model_checkpoint_path),
        tuple(os.path.join(folder, path) for path in state.all_model_checkpoint_paths),
        state.all_model_checkpoint_timestamps,
        state.last_preserved_timestamp,
    )


def latest_checkpoint(checkpoint_dir: str | os.PathLike[str], latest_filename: str | None = None) -> str | None:
    """Return the path of the latest checkpoint that a Saver noted in a folder.

    A folder that was moved works too: a path that is dead now is looked up in the folder itself.

    Args:
      checkpoint_dir: the folder.
      latest_filename: the state file's name, "checkpoint" by default.

    Returns:
      The path, None if no checkpoint is noted or it is gone.

    Raises:
      InvalidArgumentError: the state file is incomplete.
    """
    folder = _folder(checkpoint_dir)
    state = get_checkpoint_state(folder, latest_filename)
    return None if state is None else resolve_state_path(state.model_checkpoint_path, folder)


def generate_checkpoint_state_proto(
    save_dir: str | os.PathLike[str],
    model_checkpoint_path: str | os.PathLike[str],
    all_model_checkpoint_paths: Sequence[str] | None = None,
    all_model_checkpoint_timestamps: Sequence[float] | None = None,
    last_preserved_timestamp: float | None = None,
) -> CheckpointState:
    """Return the state that `update_checkpoint_state` would write; in a relative folder, paths relative to it.

    Args:
      save_dir: the folder.
      model_checkpoint_path: the latest checkpoint.
      all_model_checkpoint_paths: all that are kept, oldest first; the latest is added if it is not last.
      all_model_checkpoint_timestamps: when each was saved, seconds since the epoch.
      last_preserved_timestamp: when one was last kept by `keep_checkpoint_every_n_hours`.

    Raises:
      InvalidArgumentError: the numbers of paths and timestamps differ.

    Example:
      >>> import jaxvars as jv
      >>> jv.train.generate_checkpoint_state_proto("run", "run/model-2", ["run/model-1"]).all_model_checkpoint_paths
      ('model-1', 'model-2')
    """
    paths, times = all_model_checkpoint_paths, all_model_checkpoint_timestamps
    return _state(_folder(save_dir), os.fspath(model_checkpoint_path), paths, times, last_preserved_timestamp, False)


def update_checkpoint_state(
    save_dir: str | os.PathLike[str],
    model_checkpoint_path: str | os.PathLike[str],
    all_model_checkpoint_paths: Sequence[str] | None = None,
    latest_filename: str | None = None,
    all_model_checkpoint_timestamps: Sequence[float] | None = None,
    last_preserved_timestamp: float | None = None,
    save_relative_paths: bool = False,
) -> None:
    """Write the `checkpoint` state file of a folder, at once: a reader sees the old or the new one, whole.

    Args:
      save_dir: the folder.
      model_checkpoint_path: the latest checkpoint.
      all_model_checkpoint_paths: all that are kept, oldest first; the latest is added if it is not last.
      latest_filename: the state file's name, "checkpoint" by default.
      all_model_checkpoint_timestamps: when each was saved, seconds since the epoch.
      last_preserved_timestamp: when one was last kept by `keep_checkpoint_every_n_hours`.
      save_relative_paths: whether absolute paths are written relative to the folder, so that it can be moved.

    Raises:
      InvalidArgumentError: the numbers of paths and timestamps differ.
      FailedPreconditionError: the checkpoint has the state file's own path; the folder cannot be written.
    """
    folder = _folder(save_dir)
    latest = os.fspath(model_checkpoint_path)
    target = os.path.join(folder, latest_filename or STATE_FILE)
    if os.path.abspath(target) == os.path.abspath(latest):
        raise FailedPreconditionError(
            f"Save path {latest!r} conflicts with path used for checkpoint state. Please use a different save path."
        )
    times = all_model_checkpoint_timestamps
    state = _state(folder, latest, all_model_checkpoint_paths, times, last_preserved_timestamp, save_relative_paths)
    if not os.path.isdir(folder or "."):
        raise FailedPreconditionError(f"Cannot write {target}: there is no folder {folder}.")
    write_state(target, state)


def _state(
    folder: str,
    latest: str,
    all_paths: Sequence[str] | None,
    times: Sequence[float] | None,
    preserved: float | None,
    relative: bool,
) -> CheckpointState:
    """The state, its paths as they are written."""
    paths = [os.fspath(path) for path in all_paths or ()]
    if not paths or paths[-1] != latest:
        paths.append(latest)
    timestamps = tuple(times or ())
    if timestamps and len(timestamps) != len(paths):
        raise InvalidArgumentError(
            "Checkpoint timestamps, if provided, must match checkpoint paths "
            f"(got paths {paths} and timestamps {list(timestamps)})."
        )

    def written(path: str) -> str:
        # As in TF1: in a relative folder, relative paths include it and are cut to what lies below it.
        if os.path.isabs(path) == os.path.isabs(folder) if relative else not os.path.isabs(folder):
            return path if os.path.isabs(path) and not relative else os.path.relpath(path, folder)
        return path

    return CheckpointState(written(latest), tuple(map(written, paths)), timestamps, preserved)


def _folder(path: str | os.PathLike[str]) -> str:
    """The folder as the user wrote it, so that relative paths stay relative; a URL becomes a path."""
    text = os.fspath(path)
    return local_path(text) if "://" in text else text

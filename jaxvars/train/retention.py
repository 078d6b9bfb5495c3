"""Which checkpoints a `Saver` keeps, and how one is deleted."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterable

from jaxvars.checkpoint.formats.identify import identify_file
from jaxvars.checkpoint.formats.orbax_layout import previous_path
from jaxvars.checkpoint.formats.orbax_record import is_ours
from jaxvars.checkpoint.formats.registry import SUFFIXES
from jaxvars.checkpoint.paths import local_path
from jaxvars.errors import JaxvarsError

__all__ = ["Retention", "checkpoint_time", "delete_checkpoint"]

_DELETED = ".jaxvars-deleted"
_SHARD = re.compile(r"\.data-\d{5}-of-\d{5}\Z")


class Retention:
    """TF1's list of kept checkpoints.

    Args:
      max_to_keep: how many; None or 0 for all, then no list is kept.
      every_n_hours: of the ones that fall out, one per so many hours is kept all the same.
    """

    def __init__(self, max_to_keep: int | None, every_n_hours: float) -> None:
        self._max_to_keep = max_to_keep
        self._period = every_n_hours * 3600
        self._next_kept = time.time() + self._period
        self._kept: list[tuple[str, float]] = []

    @property
    def paths(self) -> list[str]:
        """The kept checkpoints, oldest first."""
        return [path for path, _ in self._kept]

    def replace(self, checkpoints: Iterable[tuple[str, float]]) -> None:
        """Take over a list of (path, time of saving)."""
        self._kept = list(checkpoints)

    def add(self, path: str) -> str | None:
        """Note a checkpoint that was just saved; returns the one to delete, if any.

        One that is saved again moves to the end.
        """
        if not self._max_to_keep:
            return None
        self._kept = [item for item in self._kept if item[0] != path]
        self._kept.append((path, time.time()))
        if len(self._kept) <= self._max_to_keep:
            return None
        oldest, when = self._kept.pop(0)
        if when > self._next_kept:
            self._next_kept += self._period
            return None
        return oldest


def checkpoint_time(path: str) -> float | None:
    """When the checkpoint at `path` was written, None if there is none."""
    local = local_path(path)
    for file in (local + ".index", local):
        with contextlib.suppress(OSError):
            return os.path.getmtime(file)
    return None


def delete_checkpoint(path: str) -> None:
    """Delete a checkpoint that a saver wrote, and nothing else.

    A folder goes only if jaxvars's own record is in it; a file only if it is of a format that `save` writes; of a
    TensorFlow checkpoint the index, data and meta files of exactly this name. What cannot be deleted stays, with a
    warning, as in TF1: training goes on.
    """
    local = local_path(path)
    try:
        folder = previous_path(local) or local  # aside, where a save that would have replaced it was killed
        if os.path.isdir(folder):
            if not os.path.islink(folder) and is_ours(folder):
                _delete_folder(folder)
            return
        for file in _bundle_files(local) or _single_file(local):
            os.remove(file)
    except (OSError, JaxvarsError) as error:
        warnings.warn(f"could not delete the old checkpoint {path}: {error}", RuntimeWarning, stacklevel=3)


def _single_file(path: str) -> list[str]:
    return [path] if os.path.isfile(path) and identify_file(path).format in SUFFIXES.values() else []


def _delete_folder(folder: str) -> None:
    """Delete a folder, and what a process that was killed meanwhile left of others beside it."""
    # Moved aside first: half of a checkpoint must never look like a whole one, whenever the process ends.
    os.rename(folder, folder + _DELETED)
    for leftover in glob.glob(glob.escape(os.path.dirname(folder)) + "/*" + _DELETED):
        shutil.rmtree(leftover, ignore_errors=leftover != folder + _DELETED)


def _bundle_files(prefix: str) -> list[str]:
    """The files of the TensorFlow checkpoint `prefix`, the index first: without it the others mean nothing."""
    if not os.path.isfile(prefix + ".index"):
        return []
    shards = [file for file in glob.glob(glob.escape(prefix) + ".data-*") if _SHARD.fullmatch(file[len(prefix) :])]
    meta = [prefix + ".meta"] if os.path.isfile(prefix + ".meta") else []
    return [prefix + ".index", *sorted(shards), *meta]

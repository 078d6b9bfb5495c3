"""Waiting for the checkpoints that another process writes, as an evaluation job does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from jaxvars.checkpoint.tf1_api import latest_checkpoint

__all__ = ["checkpoints_iterator", "wait_for_new_checkpoint"]


def wait_for_new_checkpoint(
    checkpoint_dir: str | os.PathLike[str],
    last_checkpoint: str | None = None,
    seconds_to_sleep: float = 1.0,
    timeout: float | None = None,
) -> str | None:
    """Wait until a folder notes another latest checkpoint (TF1: `tf.contrib.training.wait_for_new_checkpoint`).

    Args:
      checkpoint_dir: the folder.
      last_checkpoint: the one that is known already, or None.
      seconds_to_sleep: how long to sleep between two looks.
      timeout: seconds to wait at most; None waits for ever.

    Returns:
      The path, or None when none came in time.

    Example:
      >>> import tempfile, jaxvars as jv
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     print(jv.train.wait_for_new_checkpoint(folder, timeout=0))
      None
    """
    end = None if timeout is None else time.time() + timeout
    while (path := latest_checkpoint(checkpoint_dir)) is None or path == last_checkpoint:
        if end is not None and time.time() + seconds_to_sleep > end:
            return None
        time.sleep(seconds_to_sleep)
    return path


def checkpoints_iterator(
    checkpoint_dir: str | os.PathLike[str],
    min_interval_secs: float = 0,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
) -> Iterator[str]:
    """Yield each new latest checkpoint of a folder as it is written (`tf.train.checkpoints_iterator`).

    A checkpoint that is followed by another while the loop is busy is left out.

    Args:
      checkpoint_dir: the folder.
      min_interval_secs: least number of seconds between two checkpoints.
      timeout: seconds to wait for a checkpoint; None waits for ever.
      timeout_fn: called after a timeout: True ends the iteration, False goes on waiting. None ends it.

    Yields:
      Paths, for `Saver.restore`.

    Example:
      >>> import tempfile, jaxvars as jv
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = jv.train.Saver().save(jv.Variables({"w": 1.0}), folder + "/model.ckpt", global_step=1)
      ...     print([found == path for found in jv.train.checkpoints_iterator(folder, timeout=0)])
      [True]
    """
    last: str | None = None
    while True:
        found = wait_for_new_checkpoint(checkpoint_dir, last, timeout=timeout)
        if found is None:
            if timeout_fn is None or timeout_fn():
                return
            continue
        began, last = time.time(), found
        yield found
        rest = began + min_interval_secs - time.time()
        if rest > 0:
            time.sleep(rest)

"""`jv.checkpoint.save_async`: a save that goes on in the background while training does."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxvars import _compat
from jaxvars.buffers import copied, is_concrete
from jaxvars.checkpoint.formats.outgoing import Outgoing, outgoing
from jaxvars.checkpoint.formats.random_keys import is_key_dtype
from jaxvars.checkpoint.save import check_place, prepare, write
from jaxvars.errors import UnavailableError
from jaxvars.variables import Variables

__all__ = ["PendingSave", "save_async", "start"]

# Copied on the host at once: cheaper than a copy on the device and a transfer.
_SMALL_BYTES = 1 << 16
_log = logging.getLogger("jaxvars.checkpoint")


class PendingSave:
    """A save that may still be going on. Made by `jv.checkpoint.save_async`.

    Attributes:
      path: where the checkpoint will be.
    """

    def __init__(self, path: str, future: concurrent.futures.Future[None]) -> None:
        self.path = path
        self._future = future

    def done(self) -> bool:
        """Return whether it is over, well or not."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> str:
        """Wait until the checkpoint is complete and return its path.

        Args:
          timeout: seconds to wait at most; None for as long as it takes.

        Raises:
          FailedPreconditionError: the save failed. What was at the path before is unchanged.
          UnavailableError: it is not over after `timeout` seconds.
        """
        try:
            self._future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise UnavailableError(f"The save of {self.path} is not over after {timeout} s.") from None
        return self.path

    def __repr__(self) -> str:
        state = "under way" if not self.done() else "failed" if self._future.exception() else "complete"
        return f"<PendingSave {self.path!r}: {state}>"


def save_async(variables: Variables, path: str | os.PathLike[str], format: str | None = None) -> PendingSave:
    """Start a save and return at once; training may go on, and donate the variables, while it is written.

    The values are those of the moment of the call: they are copied on their devices first, which takes their size in
    memory once more until the save is over. Saves are written one after the other, in the order of the calls. A program
    that ends waits for them. A failure is logged when it happens, and raised by `PendingSave.result`. With several
    processes the save is over when this returns.

    Args:
      variables: as for `jv.checkpoint.save`.
      path: as for `jv.checkpoint.save`.
      format: as for `jv.checkpoint.save`.

    Returns:
      A `PendingSave`.

    Raises:
      InvalidTypeError, FailedPreconditionError, InvalidArgumentError: what `jv.checkpoint.save` checks beforehand.

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"dense/kernel": jax.numpy.ones((2, 3))})
      >>> pending = jv.checkpoint.save_async(variables, folder.name + "/model.npz")
      >>> jv.train.list_variables(pending.result())
      [('dense/kernel', [2, 3])]
      >>> folder.cleanup()
    """
    target, chosen = prepare(variables, path, format)
    return start(variables, os.fspath(path), target, chosen)


def start(
    variables: Variables, path: str, target: str, format: str, then: Callable[[], None] | None = None
) -> PendingSave:
    """Start a save whose arguments were checked.

    Args:
      variables: what to save.
      path: as the user wrote it.
      target: the local path.
      format: the format.
      then: called in the background when the checkpoint is complete.
    """
    check_place(target, format)
    items = outgoing(variables)

    def work() -> None:
        write(items, target, format)
        if then is not None:
            then()

    future: concurrent.futures.Future[None]
    if jax.process_count() > 1:
        future = concurrent.futures.Future()
        work()
        future.set_result(None)
    else:
        items = _copies(items)
        future = _writer().submit(_reporting, work, path)
    return PendingSave(path, future)


@functools.cache
def _writer() -> concurrent.futures.ThreadPoolExecutor:
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="jaxvars-save")
    _compat.before_threads_end(pool.shutdown)  # Orbax writes in pools of its own
    return pool


def _reporting(work: Callable[[], None], path: str) -> None:
    """Do the work, and log a failure before anybody hears of it otherwise."""
    try:
        work()
    except BaseException as error:
        _log.error("Saving %s in the background failed: %s", path, error)
        raise


def _copies(items: Sequence[Outgoing]) -> list[Outgoing]:
    """The same variables with values that nobody donates; copies of large ones are only started here."""
    values: dict[int, Any] = {}
    large: dict[int, jax.Array] = {}
    for number, item in enumerate(items):
        value = item.value
        if not is_concrete(value) or is_key_dtype(value.dtype):
            values[number] = copied(value)
        elif value.nbytes > _SMALL_BYTES or len(value.sharding.device_set) > 1:
            large[number] = value
        else:
            values[number] = np.array(value)
    shardings = [value.sharding for value in large.values()]
    # Unlike jnp.copy this neither compiles nor waits, and a donation of the original waits for it.
    values.update(zip(large, jax.device_put(list(large.values()), shardings, may_alias=False), strict=True))
    return [Outgoing(item.spec, values[number]) for number, item in enumerate(items)]

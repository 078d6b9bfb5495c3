"""What several processes do together with one checkpoint: all of it, or an error in every one of them.

They tell each other by `telling.exchange`, which takes no device and never waits for ever.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import jax

from jaxvars.buffers import is_concrete
from jaxvars.errors import FailedPreconditionError, JaxvarsError
from jaxvars.placement.telling import Absent, exchange, is_alone
from jaxvars.spec import is_hole

__all__ = ["all_or_none", "is_common", "told_by_all"]

_SECONDS = 1200  # for the slowest disk among many
_LONGEST_TEXT = 300


def told_by_all(said: Any, what: str) -> list[Any]:
    """Return what each process says, in the order of their numbers; all must call it.

    Args:
      said: what JSON can hold.
      what: what they do together, for the error.

    Raises:
      FailedPreconditionError: one of them did not come.
    """
    if is_alone():
        return [said]
    try:
        told = exchange("checkpoints", json.dumps(said).encode(), _SECONDS)
    except Absent as absent:
        raise FailedPreconditionError(f"{what}: another process has ended, or did not come. See its error.") from absent
    return [json.loads(text) for text in told.values()]


def is_common(leaves: Iterable[Any]) -> bool:
    """Whether some of the values or holes lie on devices of several processes."""
    shardings = (getattr(leaf, "sharding", None) for leaf in leaves if is_hole(leaf) or is_concrete(leaf))
    return any(sharding is not None and not sharding.is_fully_addressable for sharding in shardings)


@contextlib.contextmanager
def all_or_none(what: str, together: bool = True) -> Generator[None, None, None]:
    """Raise at the end of the block, in every process, if the block failed in one of them.

    Args:
      what: what they do together, as in ``"Cannot save to run/model"``.
      together: whether they do it together at all; if not, an error is that of its own process.

    Raises:
      FailedPreconditionError: another process failed; the text has its error. Who failed raises its own.
    """
    if not together or jax.process_count() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    errors: Sequence[str | None] = told_by_all(None if failure is None else _text(failure), what)
    if failure is not None:
        raise failure
    failed = [f"process {number}: {text}" for number, text in enumerate(errors) if text is not None]
    if failed:
        raise FailedPreconditionError(f"{what}: another process failed. See its error. It is, in {failed[0]}")


def _text(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    name = type(error).__name__ if isinstance(error, JaxvarsError) else repr(type(error))
    return f"{name}: {lines[0][:_LONGEST_TEXT]}"

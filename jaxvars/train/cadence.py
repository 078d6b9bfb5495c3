"""When a hook has its turn: every so many steps, or every so many seconds (TF1: `SecondOrStepTimer`)."""

from __future__ import annotations

from time import monotonic

from jaxvars.errors import InvalidArgumentError

__all__ = ["Cadence"]


class Cadence:
    """Every so many steps or seconds.

    Steps are multiples of the number: a resumed run has its turns at the same steps as one that never stopped.

    Args:
      steps: the number of steps, or None.
      secs: the number of seconds, or None.
      names: what the caller calls the two, for errors.

    Raises:
      InvalidArgumentError: both or neither are given, or one is not positive.
    """

    def __init__(self, steps: int | None, secs: float | None, names: tuple[str, str]) -> None:
        if (steps is None) == (secs is None):
            raise InvalidArgumentError(f"exactly one of {names[0]} and {names[1]} should be provided.")
        for name, value in zip(names, (steps, secs), strict=True):
            if value is not None and not value > 0:
                raise InvalidArgumentError(f"{name} is a positive number, got {value}")
        self._steps = steps
        self._secs = secs
        self._since = 0.0

    def start(self) -> None:
        """Let the seconds count from now."""
        self._since = monotonic()

    def is_due(self, step: int) -> bool:
        """Return whether it is the turn after this step, and if so begin to wait for the next one."""
        if self._steps is not None:
            return step % self._steps == 0
        now = monotonic()
        if self._secs is None or now - self._since < self._secs:
            return False
        self._since = now
        return True

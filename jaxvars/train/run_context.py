"""`Hook`, which looks on while `jv.train.run` trains, and `RunContext`, which is what it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax

from jaxvars.errors import InvalidTypeError
from jaxvars.variables import Variables

__all__ = ["Hook", "RunContext"]


class RunContext:
    """What a run has come to, for its hooks (TF1: `tf.train.SessionRunContext`).

    Attributes:
      step: how many steps the variables have seen, as `global_step` says. A Python int, counted on the host: reading it
        does not wait for the device.
      last_step: the step to stop at, None where the run has no such limit.
      loss: the loss of the last step, an array on the device; None before the first one. ``float(run.loss)`` waits.
      metrics: what the loss function returned third, else None.
      variables: the variables after the last whole step. A hook may set it, and training goes on with what it set. With
        a step that donates they are gone after the next step: copy what is to be kept.
      writer: what `write` prints a line with.
      error: in `Hook.end` the exception that ended the run, None where it ended well.
    """

    def __init__(self, variables: Variables, step: int, last_step: int | None) -> None:
        self.step = step
        self.last_step = last_step
        self.loss: Any = None
        self.metrics: Any = None
        self.variables = variables
        self.error: BaseException | None = None
        self.writer: Callable[[str], object] = print if jax.process_index() == 0 else _say_nothing
        self._stop_requested = False

    def __repr__(self) -> str:
        return f"<RunContext: step {self.step}>"

    @property
    def should_stop(self) -> bool:
        """Whether no further step is taken."""
        return self._stop_requested or (self.last_step is not None and self.step >= self.last_step)

    def request_stop(self) -> None:
        """Let the run end after this step, as well as if the batches had run out."""
        self._stop_requested = True

    def write(self, text: str) -> None:
        """Print a line, above the progress bar where there is one; of several processes only the first does."""
        self.writer(text)

    def take(self, result: Any) -> None:
        """Take over what a step returned."""
        parts: tuple[Any, ...] = cast("tuple[Any, ...]", result) if isinstance(result, tuple) else (result,)
        if len(parts) not in (2, 3) or not isinstance(parts[1], Variables):
            raise InvalidTypeError(
                f"the step of a run returned {_kinds(result)}. It returns (loss, variables) or "
                "(loss, variables, metrics)"
            )
        self.loss, self.variables, self.metrics = parts if len(parts) == 3 else (*parts, None)
        self.step += 1


def _say_nothing(text: str) -> None:
    pass


def _kinds(result: Any) -> str:
    if isinstance(result, tuple):
        return f"({', '.join(type(part).__name__ for part in cast('tuple[Any, ...]', result))})"
    return f"one {type(result).__name__}"


class Hook:
    """Looks on while `jv.train.run` trains (TF1: `tf.train.SessionRunHook`). Subclass it, override what you need.

    `run` is the `RunContext`: the step number, loss, metrics and variables, and ``run.request_stop()``.

    Example:
      >>> import jaxvars as jv
      >>> class Stop(jv.train.Hook):
      ...     def after_step(self, run):
      ...         if run.loss < 0.1:  # waits for the device
      ...             run.request_stop()
      >>> step = jv.train.make_step(lambda v: v["w"] ** 2, jv.train.GradientDescentOptimizer(0.25))
      >>> variables = step.init(jv.Variables({"w": 1.0}))
      >>> print(jv.train.run(step, variables, [()] * 100, hooks=[Stop()])["global_step"])
      3
    """

    def begin(self, run: RunContext) -> None:
        """Called once, before the first step."""

    def after_step(self, run: RunContext) -> None:
        """Called after each step. The device may still be at work on it."""

    def end(self, run: RunContext) -> None:
        """Called once, at the end, however it came: ``run.error`` says whether by an exception or Ctrl-C."""

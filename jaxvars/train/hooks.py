"""The usual hooks of `jv.train.run`, under TF1's names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from numbers import Real
from time import monotonic
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import jax
import numpy as np

from jaxvars.checkpoint.tf1_api import get_checkpoint_state, latest_checkpoint
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, JaxvarsError
from jaxvars.train.cadence import Cadence
from jaxvars.train.run_context import Hook, RunContext
from jaxvars.train.saver import Saver

__all__ = [
    "CheckpointSaverHook",
    "FunctionHook",
    "LoggingHook",
    "NanLossDuringTrainingError",
    "NanTensorHook",
    "StepCounterHook",
    "StopAtStepHook",
]


_Hook = TypeVar("_Hook", bound=Hook)
_Params = ParamSpec("_Params")
_Init = Callable[Concatenate[_Hook, _Params], None]


def _takes_no_tensors(instead: str) -> Callable[[_Init[_Hook, _Params]], _Init[_Hook, _Params]]:
    """Refuse what TF1's hook took first: the tensors to look at."""

    def decorate(init: _Init[_Hook, _Params]) -> _Init[_Hook, _Params]:
        @functools.wraps(init)
        def checked(self: _Hook, *args: _Params.args, **kwargs: _Params.kwargs) -> None:
            if args and not isinstance(args[0], Real | None):
                raise InvalidTypeError(
                    f"{type(self).__name__} takes no tensors, got {type(args[0]).__name__}: a hook sees the loss of "
                    f"each step, and the metrics that the loss function returns. Write: {instead}"
                )
            init(self, *args, **kwargs)

        return checked

    return decorate


class NanLossDuringTrainingError(JaxvarsError, RuntimeError):
    """The loss is NaN (`tf.train.NanLossDuringTrainingError`)."""


class CheckpointSaverHook(Hook):
    """Saves at the beginning, every so many steps or seconds, and at the end (`tf.train.CheckpointSaverHook`).

    At the end also when that is an error or Ctrl-C: it then saves the variables after the last whole step; not when the
    loss was NaN. To go on from the latest checkpoint::

        path = jv.train.latest_checkpoint("run")
        if path:
            variables = jv.train.Saver().restore(variables, path)

    Args:
      checkpoint_dir: the folder, made if needed.
      save_secs: seconds between two saves. Not with several processes, whose clocks differ.
      save_steps: steps between two saves: after each multiple of it. Exactly one of the two is given.
      saver: the saver; None for ``Saver()``. To one that has saved nothing yet the checkpoints of the folder, up to the
        step at which the run begins, count as its own, so that `max_to_keep` holds for a resumed run too.
        ``Saver(background=True)`` writes while training goes on.
      checkpoint_basename: the name of the checkpoints, before the step number.

    Raises:
      InvalidArgumentError: both or neither of `save_secs` and `save_steps`; `save_secs` with several processes.
    """

    def __init__(
        self,
        checkpoint_dir: str | os.PathLike[str],
        save_secs: float | None = None,
        save_steps: int | None = None,
        saver: Saver | None = None,
        checkpoint_basename: str = "model.ckpt",
    ) -> None:
        self._cadence = Cadence(save_steps, save_secs, ("save_steps", "save_secs"))
        if save_secs is not None and jax.process_count() > 1:
            raise InvalidArgumentError("save_secs: all processes save together, after the same step. Give save_steps")
        self._folder = os.fspath(checkpoint_dir)
        self._path = os.path.join(self._folder, checkpoint_basename)
        self._saver = saver
        self._saved: int | None = None
        self._saved_path: str | None = None

    def begin(self, run: RunContext) -> None:
        """Save, unless this very step is the latest checkpoint already."""
        state = get_checkpoint_state(self._folder)
        present = [] if state is None else list(state.all_model_checkpoint_paths)
        # A run that begins before them may have been meant to go on from them: they are not its own to delete.
        own = [path for path in present if _step_of(path) <= run.step]
        if self._saver is None:
            self._saver = Saver()
        if not self._saver.last_checkpoints:
            self._saver.recover_last_checkpoints(own)
        if len(own) < len(present):
            run.write(
                f"{self._folder} has checkpoints up to step {max(map(_step_of, present))}, and this run begins at step "
                f"{run.step}. To go on from there: variables = jv.train.Saver().restore(variables, {self._folder!r})"
            )
        latest = latest_checkpoint(self._folder)
        if latest == f"{self._path}-{run.step}":
            self._saved, self._saved_path = run.step, latest
        else:
            self._save(run)
        self._cadence.start()

    def after_step(self, run: RunContext) -> None:
        """Save when it is time."""
        if self._cadence.is_due(run.step):
            self._save(run)

    def end(self, run: RunContext) -> None:
        """Save the last step, unless it has been saved, and wait until all is written."""
        if self._saver is None or isinstance(run.error, NanLossDuringTrainingError):
            return
        if self._saved != run.step:
            self._save(run)
        self._saver.wait()
        if run.error is not None:
            run.error.add_note(f"saved as {self._saved_path}")

    def _save(self, run: RunContext) -> None:
        self._saved_path = cast(Saver, self._saver).save(run.variables, self._path, global_step=run.step)
        self._saved = run.step


def _step_of(path: str) -> int:
    """The step number at the end of a checkpoint's path, 0 where there is none."""
    number = path.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


class StopAtStepHook(Hook):
    """Stops the run at a step (`tf.train.StopAtStepHook`). ``run(..., steps=last_step)`` does the same.

    Args:
      num_steps: how many steps to take from where the run begins.
      last_step: the step to stop at, counted from the first step of the first run. Exactly one of the two is given.

    Raises:
      InvalidArgumentError: both or neither are given.
    """

    def __init__(self, num_steps: int | None = None, last_step: int | None = None) -> None:
        if (num_steps is None) == (last_step is None):
            raise InvalidArgumentError("exactly one of num_steps and last_step should be provided.")
        self._num_steps = num_steps
        self._last_step = last_step

    def begin(self, run: RunContext) -> None:
        """Set the limit, unless the run has a lower one."""
        last = self._last_step if self._num_steps is None else run.step + self._num_steps
        run.last_step = last if run.last_step is None else min(run.last_step, cast(int, last))


class NanTensorHook(Hook):
    """Stops the run when the loss is NaN (`tf.train.NanTensorHook`). It waits for the device to read the loss.

    Put it before a `CheckpointSaverHook`, so that what follows from a NaN is not saved.

    Args:
      fail_on_nan_loss: whether to raise; otherwise the run ends as if the batches had run out.
      every_n_iter: read the loss after every so many steps only, so that the host can run ahead between them.

    Raises:
      NanLossDuringTrainingError: from the run, when the loss is NaN.
    """

    @_takes_no_tensors("jv.train.NanTensorHook()")
    def __init__(self, fail_on_nan_loss: bool = True, every_n_iter: int = 1) -> None:
        self._fail = fail_on_nan_loss
        self._cadence = Cadence(every_n_iter, None, ("every_n_iter", "every_n_secs"))

    def after_step(self, run: RunContext) -> None:
        """Look at the loss."""
        if not self._cadence.is_due(run.step) or not np.isnan(run.loss):
            return
        text = f"the loss is NaN at step {run.step}"
        if self._fail:
            raise NanLossDuringTrainingError(
                f"{text}. To find where it comes from, take this step in: with jax.debug_nans(True). Where gradients "
                "grow too large, write: make_step(..., clip=1.0)"
            )
        run.write(f"{text}: the run ends here")
        run.request_stop()


class LoggingHook(Hook):
    """Prints loss and metrics, after the first step and then regularly (`tf.train.LoggingTensorHook`).

    It waits for the device when it prints.

    Args:
      every_n_iter: print after each multiple of so many steps.
      every_n_secs: print after so many seconds. Exactly one of the two is given.
      at_end: print after the last step too.
      formatter: makes the line of the values, ``{"step": 100, "loss": 0.25, ...}``; metrics that are a mapping stand
        under their own names.

    Raises:
      InvalidTypeError: tensors are given: it prints what the step returns.
      InvalidArgumentError: both or neither of `every_n_iter` and `every_n_secs`.
    """

    @_takes_no_tensors("jv.train.LoggingHook(every_n_iter=100)")
    def __init__(
        self,
        every_n_iter: int | None = None,
        every_n_secs: float | None = None,
        at_end: bool = False,
        formatter: Callable[[dict[str, Any]], str] | None = None,
    ) -> None:
        self._cadence = Cadence(every_n_iter, every_n_secs, ("every_n_iter", "every_n_secs"))
        self._at_end = at_end
        self._formatter = _line if formatter is None else formatter
        self._printed: int | None = None

    def begin(self, run: RunContext) -> None:
        """Let the seconds count from here."""
        self._printed = None
        self._cadence.start()

    def after_step(self, run: RunContext) -> None:
        """Print when it is time."""
        if self._cadence.is_due(run.step) or self._printed is None:
            self._print(run)

    def end(self, run: RunContext) -> None:
        """Print the last step where that is wanted."""
        if self._at_end and run.loss is not None and self._printed != run.step:
            self._print(run)

    def _print(self, run: RunContext) -> None:
        values = values_of(run)
        fetched = jax.device_get(list(values.values()))
        run.write(self._formatter({"step": run.step, **dict(zip(values, fetched, strict=True))}))
        self._printed = run.step


def values_of(run: RunContext) -> dict[str, Any]:
    """Loss and metrics by name, on the device. Not to be passed through JAX, which sorts a dict."""
    metrics = run.metrics
    if metrics is None:
        return {"loss": run.loss}
    return {"loss": run.loss, **(metrics if isinstance(metrics, Mapping) else {"metrics": metrics})}


def _line(values: dict[str, Any]) -> str:
    step = values.pop("step")
    return f"step {step}: " + ", ".join(f"{name} = {_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    return f"{float(value):.6g}" if isinstance(value, np.ndarray | np.number) and value.ndim == 0 else str(value)


class StepCounterHook(Hook):
    """Prints steps per second (`tf.train.StepCounterHook`). It waits for the device when it does.

    The first step, which compiles, is left out of account.

    Args:
      every_n_steps: how many steps to take the time of.
      every_n_secs: how many seconds to count the steps of. Exactly one of the two is given.

    Attributes:
      steps_per_sec: the last figure, None before the first.

    Raises:
      InvalidArgumentError: both or neither are given.
    """

    def __init__(self, every_n_steps: int | None = None, every_n_secs: float | None = None) -> None:
        self._cadence = Cadence(every_n_steps, every_n_secs, ("every_n_steps", "every_n_secs"))
        self._since: tuple[int, float] | None = None
        self.steps_per_sec: float | None = None

    def begin(self, run: RunContext) -> None:
        """Wait for the first step of this run."""
        self._since = None

    def after_step(self, run: RunContext) -> None:
        """Take the time when it is due."""
        if self._since is None:
            self._since = (run.step, _when_done(run))
            self._cadence.start()
        elif self._cadence.is_due(run.step):
            (step, since), now = self._since, _when_done(run)
            self.steps_per_sec = (run.step - step) / (now - since)
            self._since = (run.step, now)
            run.write(f"step {run.step}: {self.steps_per_sec:.4g} steps per second")


def _when_done(run: RunContext) -> float:
    jax.block_until_ready(run.loss)
    return monotonic()


class FunctionHook(Hook):
    """Calls a function every so many steps or seconds, say to evaluate.

    Args:
      function: ``function(run)`` with the `RunContext`.
      every_n_steps: call it after each multiple of so many steps.
      every_n_secs: call it after so many seconds. Exactly one of the two is given.
      at_end: call it after the last step too, where the run ends well.

    Raises:
      InvalidTypeError: `function` is not callable.
      InvalidArgumentError: both or neither of `every_n_steps` and `every_n_secs`.

    Example:
      >>> import jaxvars as jv
      >>> step = jv.train.make_step(lambda v: v["w"] ** 2, jv.train.GradientDescentOptimizer(0.25))
      >>> variables = step.init(jv.Variables({"w": 1.0}))
      >>> show = jv.train.FunctionHook(lambda run: print(run.step, run.variables["w"]), every_n_steps=2)
      >>> variables = jv.train.run(step, variables, [()] * 4, hooks=[show])
      2 0.25
      4 0.0625
    """

    def __init__(
        self,
        function: Callable[[RunContext], object],
        every_n_steps: int | None = None,
        every_n_secs: float | None = None,
        at_end: bool = False,
    ) -> None:
        if not callable(function):
            raise InvalidTypeError(f"FunctionHook takes a function of the run first, not {type(function).__name__}")
        self._function = function
        self._cadence = Cadence(every_n_steps, every_n_secs, ("every_n_steps", "every_n_secs"))
        self._at_end = at_end
        self._called: int | None = None

    def begin(self, run: RunContext) -> None:
        """Let the seconds count from here."""
        self._called = None
        self._cadence.start()

    def after_step(self, run: RunContext) -> None:
        """Call the function when it is time."""
        if self._cadence.is_due(run.step):
            self._call(run)

    def end(self, run: RunContext) -> None:
        """Call it after the last step where that is wanted."""
        if self._at_end and run.error is None and self._called != run.step:
            self._call(run)

    def _call(self, run: RunContext) -> None:
        self._function(run)
        self._called = run.step

"""`run`: take a step per batch, and let hooks look on.

The loop never waits for the device: the step number is counted on the host, and losses stay on the device until a hook
reads one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import jax

from jaxvars.buffers import is_deleted
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.gradients import check_variables
from jaxvars.spec import is_hole
from jaxvars.train.global_steps import get_global_step
from jaxvars.train.interrupts import Hold, held_interrupts
from jaxvars.train.progress import ProgressHook, wants_bar
from jaxvars.train.run_context import Hook, RunContext
from jaxvars.train.step import Step, note_donated
from jaxvars.variables import Variables

__all__ = ["run"]


def run(
    step: Callable[..., Any],
    variables: Variables,
    batches: Iterable[Any],
    *,
    steps: int | None = None,
    hooks: Iterable[Hook] = (),
    progress: bool | None = None,
) -> Variables:
    """Train: take a step for each batch (TF1: the loop around a `tf.train.MonitoredTrainingSession`).

    It is this loop, with hooks::

        for batch in batches:
            loss, variables = step(variables, *batch)

    A run goes on from the step counter in `variables`: restore a checkpoint, and call it again. When it ends early, by
    an error or Ctrl-C, each hook's `end` is called, so that `CheckpointSaverHook` saves; then the exception goes on,
    with the variables after the last whole step as its attribute ``variables``.

    Args:
      step: what `make_step` made, or any function ``step(variables, *batch)`` that takes one step and returns
        ``(loss, variables)`` or ``(loss, variables, metrics)``.
      variables: the variables after ``step.init(variables)``. A step that donates overwrites them.
      batches: any iterable. A tuple or list is spread over the step's arguments; anything else, a dict or a named tuple
        too, is one argument.
      steps: the step to stop at, counted from the first step of the first run. None: when the batches run out, or a
        hook says so.
      hooks: what looks on, in this order, such as `CheckpointSaverHook`, `LoggingHook`, or your own `Hook`.
      progress: whether to show a progress bar: None where a person watches (a terminal, a notebook) and tqdm is
        installed.

    Returns:
      The variables after the last step.

    Raises:
      InvalidTypeError: something that is no hook, or a step that returns something else.
      InvalidArgumentError: negative `steps`.
      UnavailableError: ``progress=True`` without tqdm.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> step = jv.train.make_step(lambda v, x: (v["w"] - x) ** 2, jv.train.GradientDescentOptimizer(0.25))
      >>> variables = step.init(jv.Variables({"w": jnp.array(0.0)}))
      >>> history = jv.train.HistoryHook()
      >>> variables = jv.train.run(step, variables, [8.0, 8.0, 8.0], hooks=[history])
      >>> print(variables["w"], variables["global_step"], history["loss"])
      7.0 3 [64. 16.  4.]
    """
    check_variables(variables, "jv.train.run(step, variables, batches)")
    if steps is not None and steps < 0:
        raise InvalidArgumentError(f"steps is the number of the last step, counted from 0; got {steps}")
    context = RunContext(variables, _steps_so_far(variables), steps)
    watching = _checked(hooks)
    if wants_bar(progress):
        watching.append(ProgressHook(len(cast(Any, batches)) if hasattr(batches, "__len__") else None))
    with held_interrupts() as hold:
        _run(step, iter(batches), watching, context, hold)
    if isinstance(step, Step) and step.donate:
        note_donated(
            variables, "donated to jv.train.run; a run that was stopped has left it in its exception, error.variables"
        )
    if context.error is None:
        return context.variables
    _hand_over(context.error, context)
    try:
        raise context.error
    finally:
        context.error = None  # else the exception would hold itself, and the variables, by its traceback


def _run(
    step: Callable[..., Any], batches: Iterator[Any], hooks: Sequence[Hook], context: RunContext, hold: Hold
) -> None:
    """Run to the end, and let each hook that began end; an error is kept in the context."""
    begun: list[Hook] = []
    try:
        for hook in hooks:
            begun.append(hook)
            hook.begin(context)
        while not context.should_stop:
            try:
                batch = next(batches)
            except StopIteration:
                break
            with hold:
                context.take(step(context.variables, *_arguments(batch)))
            for hook in hooks:
                hook.after_step(context)
    except BaseException as error:
        context.error = error
    for hook in begun:
        try:
            hook.end(context)
        except BaseException as error:
            if context.error is None:
                context.error = error
            else:
                context.error.add_note(f"{type(hook).__name__}.end failed too: {error}")


def _arguments(batch: Any) -> Sequence[Any]:
    # A named tuple is somebody's batch as a whole.
    return batch if type(batch) in (tuple, list) else (batch,)


def _checked(hooks: Any) -> list[Hook]:
    if isinstance(hooks, Hook):
        raise InvalidTypeError(f"hooks is a list. Write: hooks=[{type(hooks).__name__}(...)]")
    given = list(hooks)
    for hook in given:
        if not isinstance(hook, Hook):
            what = f"the class {hook.__name__}" if isinstance(hook, type) else type(hook).__name__
            raise InvalidTypeError(
                f"a hook is an instance of jv.train.Hook, not {what}. For a function write: "
                "hooks=[jv.train.FunctionHook(function, every_n_steps=100)]"
            )
    return given


def _steps_so_far(variables: Variables) -> int:
    value = get_global_step(variables)
    return 0 if value is None or is_hole(value) else int(value)


def _hand_over(error: Any, context: RunContext) -> None:
    """Give the variables to the exception: the caller's own were overwritten by the first step."""
    if any(is_deleted(leaf) for leaf in jax.tree.leaves(context.variables)):
        error.add_note(
            f"jv.train.run stopped after step {context.step}, and the step that failed took its variables along"
        )
        return
    error.variables = context.variables
    error.add_note(
        f"jv.train.run stopped after step {context.step}. The variables after it: error.variables, where error is this "
        "exception (in a notebook: import sys; variables = sys.last_value.variables)"
    )

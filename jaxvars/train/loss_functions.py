"""What a training step is given as its loss function: TF1 code gives a loss, or the model function itself."""

from __future__ import annotations

import inspect
from typing import Any

from jaxvars.errors import InvalidTypeError
from jaxvars.gradients import check_variables

__all__ = ["check_loss_function", "check_minimize"]


def check_loss_function(call: str, loss_fn: Any, args: tuple[Any, ...]) -> None:
    """Raise where `loss_fn` has room for the batch, but not for the variables too."""
    try:
        parameters = inspect.signature(loss_fn)
    except (TypeError, ValueError):
        return
    if _has_room(parameters, 1 + len(args)) or not _has_room(parameters, len(args)):
        return
    name = getattr(loss_fn, "__name__", "loss_fn")
    raise InvalidTypeError(
        f"{call} calls the loss function with the variables and then the batch, {1 + len(args)} in all, and "
        f"{name}{parameters} does not take so many. Where it is the function of a model that returns its loss, pass "
        f"model.apply: model = jv.transform({name})"
    )


def check_minimize(loss_fn: Any, variables: Any) -> None:
    """Refuse what TF1's `minimize` took: a loss, which was a part of the graph, and nothing else."""
    if callable(loss_fn) and variables is not None:
        check_variables(variables, "optimizer.minimize(loss_fn, variables)")
        return
    kind = "an array" if hasattr(loss_fn, "dtype") else f"a {type(loss_fn).__name__}"
    what = "without the variables" if callable(loss_fn) else f"with {kind} first"
    raise InvalidTypeError(
        f"optimizer.minimize was called {what}. It takes a function that computes the loss, and the variables: a loss "
        "does not know what it was computed from. Write, outside of the model:\n"
        '    loss, variables = optimizer.minimize(model.apply, variables, *args, global_step="global_step")'
    )


def _has_room(parameters: inspect.Signature, count: int) -> bool:
    """Whether so many arguments can be given by position."""
    try:
        parameters.bind_partial(*range(count))
    except TypeError:
        return False
    return True

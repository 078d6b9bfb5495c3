"""Moving averages inside a model: `assign_moving_average`, `weighted_moving_average`, and the shadow variables.

The arithmetic is TF1's to the bit of the decay: ``1 - decay`` is rounded to float32 before it takes the variable's
dtype.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars._arguments import value_as_array
from jaxvars._source import user_site
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.frame import current_frame
from jaxvars.initializers import zeros_initializer
from jaxvars.scopes import GraphKeys, get_variable_scope, name_scope, variable_scope
from jaxvars.store import get_collection, get_variable
from jaxvars.undoing import go_back, mark
from jaxvars.values import prepare
from jaxvars.variable import Variable

__all__ = [
    "all_or_nothing",
    "assign_moving_average",
    "check_decay",
    "is_averaged_dtype",
    "make_debias",
    "make_shadow",
    "moved",
    "rest_of",
    "update",
    "weighted_moving_average",
]


def is_averaged_dtype(dtype: Any) -> bool:
    """Whether TF1 averages values of this dtype: half, bfloat16, float or double."""
    return jnp.issubdtype(dtype, np.floating) and jnp.finfo(dtype).bits >= 16


def rest_of(decay: Any) -> Any:
    """``1 - decay``, both in float32: 0.9999 there leaves 0.00010001659."""
    if isinstance(decay, int | float):
        return np.float32(1) - np.float32(decay)
    return np.float32(1) - jnp.asarray(decay, jnp.float32)


def moved(average: jax.Array, value: jax.Array, rest: Any) -> jax.Array:
    """The average, moved towards the value by `rest` of the way."""
    return average - (average - value) * jnp.asarray(rest).astype(average.dtype)


@contextmanager
def all_or_nothing(what: str) -> Generator[Any]:
    """Give the frame; where the block raises, take back the variables and names that it made."""
    frame = current_frame(what)
    frame.touch()
    before = mark(frame)
    try:
        yield frame
    except Exception:
        if frame.is_open:
            go_back(frame, before)
        raise


def make_shadow(name: str, initializer: Any, shape: Any, dtype: Any) -> Variable:
    """Make a variable beside another one: ``<scope>/<name>``, made unique, not trainable, never partitioned."""
    scope = get_variable_scope()
    with variable_scope(None, name, auxiliary_name_scope=False) as found:
        below = found.name[len(scope.prefix) :]
    partitioner = scope.partitioner
    scope.set_partitioner(None)
    try:
        return get_variable(below, shape, dtype, initializer, trainable=False)
    finally:
        scope.set_partitioner(partitioner)


def assign_moving_average(
    variable: Variable, value: Any, decay: Any, zero_debias: bool = True, name: str | None = None
) -> jax.Array:
    """Move a variable towards a value: ``variable -= (1 - decay) * (variable - value)``.

    TF1: ``moving_averages.assign_moving_average``. With `zero_debias` the variable is taken to have started from 0, and
    set to the average divided by ``1 - decay ** t``; two more variables below its name, ``biased`` and ``local_step``
    (``biased_1``, ... in a second call), keep the average and the count. As in TF1 their names hold the current scope
    twice: ``scope/scope/v/biased``.

    Args:
      variable: the handle of a floating-point variable, inside the model.
      value: of its shape, or one that broadcasts to it; integers become floats.
      decay: a number between 0 and 1, or a scalar array.
      zero_debias: whether to correct for the start from 0.
      name: name scope of the update (default ``"AssignMovingAvg"``).

    Returns:
      The new value of the variable.

    Raises:
      InvalidTypeError: no handle, or one of an integer or complex dtype.
      InvalidArgumentError: a shape that does not broadcast, or a decay outside of [0, 1].
      FailedPreconditionError: outside a frame.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0) as store:
      ...     mean = jv.get_variable("mean", [], initializer=jv.zeros_initializer(), trainable=False)
      ...     print(jv.train.assign_moving_average(mean, 10.0, decay=0.5))
      10.0
      >>> list(store.variables)
      ['mean', 'mean/biased', 'mean/local_step']
    """
    if not isinstance(cast(object, variable), Variable):
        raise InvalidTypeError(
            f"assign_moving_average takes the handle of a variable, got {variable!r:.60}{_at()}. Outside of a model "
            "write: variables = jv.assign(variables, ref, average)"
        )
    check_decay(decay)
    if not is_averaged_dtype(variable.dtype):
        raise InvalidTypeError(f"The variables must be half, float, or double: {variable.name} is {variable.dtype}.")
    # TF1 subtracts a Python number in double precision, and rounds then.
    rest = np.float32(1.0 - decay) if isinstance(decay, int | float) else rest_of(decay)
    new = _fitting(variable, value)
    with all_or_nothing("jv.train.assign_moving_average"), name_scope(name, "AssignMovingAvg"):
        if not zero_debias:
            return update(variable, new, rest)
        return update(variable, new, rest, make_debias(variable))


def check_decay(decay: Any) -> None:
    """Refuse a decay with which nothing converges."""
    if isinstance(decay, int | float) and not 0 <= decay <= 1:
        raise InvalidArgumentError(f"The decay of a moving average is between 0 and 1, got {decay!r}{_at()}.")


def _fitting(variable: Variable, value: Any) -> jax.Array:
    """The value in the variable's shape and dtype."""
    array = value_as_array(value)
    own = prepare("assign_moving_average", variable.key, tuple(array.shape), variable.dtype, array)
    try:
        return jnp.broadcast_to(own, tuple(variable.shape))
    except ValueError:
        raise InvalidArgumentError(
            f"assign_moving_average on {variable.key}: a value of shape {tuple(array.shape)} does not broadcast to "
            f"{tuple(variable.shape)}{_at()}."
        ) from None


def make_debias(variable: Variable) -> tuple[Variable, Variable]:
    """Make ``biased`` and ``local_step`` of a variable, under TF1's names."""
    with variable_scope(variable.key):
        zeros, dtype = zeros_initializer(), variable.dtype
        biased = get_variable(_unused("biased"), list(variable.shape), dtype, zeros, trainable=False)
        return biased, get_variable(_unused("local_step"), [], dtype, zeros, trainable=False)


def _unused(name: str) -> str:
    """`name`, or the first of ``name_1``, ... that no global variable of this scope has; under reuse, the name."""
    scope = get_variable_scope()
    if scope.reuse:
        return name
    taken = {handle.key for handle in get_collection(GraphKeys.GLOBAL_VARIABLES)}
    number, found = 0, name
    while scope.prefix + found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def update(
    average: Variable, value: jax.Array, rest: Any, debias: tuple[Variable, Variable] | None = None
) -> jax.Array:
    """Assign the next average, corrected for its start from 0 where the two variables of `debias` count."""
    if debias is None:
        return average.assign(moved(average.value, value, rest))
    biased, local_step = debias
    total = biased.assign(moved(biased.value, value, rest))
    steps = local_step.assign_add(1)
    decay = 1 - jnp.asarray(rest).astype(steps.dtype)
    return average.assign(total / (1 - decay**steps))


def weighted_moving_average(
    value: Any,
    decay: Any,
    weight: Any,
    truediv: bool = True,
    collections: Sequence[str] | None = None,
    name: str | None = None,
) -> jax.Array:
    """Return the moving average of ``value * weight`` divided by that of `weight`.

    TF1: ``moving_averages.weighted_moving_average``. The averages are variables that start from 0,
    ``WeightedMovingAvg/value_x_weight`` and ``WeightedMovingAvg/weight``.

    Args:
      value: a floating-point array.
      decay: a number between 0 and 1, or a scalar array.
      weight: the weight of this value: a scalar, or of a shape that broadcasts to the value's.
      truediv: accepted for TF1's sake: the values are floats.
      collections: names of the collections that the two variables join (default ``["variables"]``).
      name: name of the scope; the default name is made unique.

    Returns:
      The average, of the value's shape and dtype.

    Raises:
      InvalidTypeError: the value or weight is no float.
      FailedPreconditionError: outside a frame.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> with jv.VariableStore(0) as store:
      ...     print(jv.train.weighted_moving_average(jnp.array([3.0]), 0.5, 2.0))
      [3.]
      >>> list(store.variables)
      ['WeightedMovingAvg/value_x_weight', 'WeightedMovingAvg/weight']
    """
    del truediv
    check_decay(decay)
    value, weight = jnp.asarray(value), jnp.asarray(weight)
    for array in (value, weight):
        if not is_averaged_dtype(array.dtype):
            raise InvalidTypeError(f"weighted_moving_average averages floats, got {array.dtype}{_at()}.")
    zeros = zeros_initializer()
    options: dict[str, Any] = {"trainable": False, "collections": collections}
    with (
        all_or_nothing("jv.train.weighted_moving_average"),
        variable_scope(name, "WeightedMovingAvg"),
    ):
        total = get_variable("value_x_weight", list(value.shape), value.dtype, zeros, **options)
        weights = get_variable("weight", list(weight.shape), weight.dtype, zeros, **options)
        weighted = value * jnp.broadcast_to(weight, value.shape).astype(value.dtype)
        numerator = assign_moving_average(total, weighted, decay, zero_debias=False)
        denominator = assign_moving_average(weights, weight, decay, zero_debias=False)
        return numerator / jnp.broadcast_to(denominator, value.shape).astype(value.dtype)


def _at() -> str:
    site = user_site()
    return f" at {site}" if site else ""

"""TF1's learning rate decays, with TF1's argument names and numbers.

Without a `global_step` each returns a schedule: a function of the step, which is what optax calls a schedule
and what the optimizers here take as `learning_rate`. With a `global_step` it returns the rate at that step.

An optimizer calls its schedule with the step counter of the variables. The rate stands still unless each step is
counted: ``optimizer.minimize(loss_fn, variables, x, global_step="global_step")``. `jv.train.make_step` does it by
itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "Schedule",
    "cosine_decay",
    "exponential_decay",
    "inverse_time_decay",
    "natural_exp_decay",
    "piecewise_constant",
    "polynomial_decay",
]

Schedule = Callable[[Any], jax.Array]


def exponential_decay(
    learning_rate: Any,
    global_step: Any = None,
    decay_steps: Any = None,
    decay_rate: Any = None,
    staircase: bool = False,
) -> Schedule | jax.Array:
    """Multiply the rate by `decay_rate` every `decay_steps` steps (`tf.train.exponential_decay`).

    Args:
      learning_rate: the rate at step 0.
      global_step: None for a schedule, else the step (an int, array or handle) whose rate is wanted. A value
        of the step gives one value of the rate: for a rate that changes while training leave it out, and count the
        steps: ``optimizer.minimize(..., global_step="global_step")``.
      decay_steps: steps per factor.
      decay_rate: the factor.
      staircase: whether the rate changes only at whole multiples of `decay_steps`.

    Returns:
      A schedule ``step -> float32 scalar``, or the rate at `global_step`.

    Raises:
      InvalidArgumentError: `decay_steps` or `decay_rate` is missing, or `decay_steps` is not positive.

    Example:
      >>> import jaxvars as jv
      >>> rate = jv.train.exponential_decay(0.5, decay_steps=100, decay_rate=0.5)
      >>> print(rate(0), rate(200))
      0.5 0.125
      >>> print(jv.train.exponential_decay(0.5, 200, 100, 0.5))
      0.125
    """
    _require("exponential_decay", decay_steps=decay_steps, decay_rate=decay_rate)

    def schedule(step: jax.Array) -> jax.Array:
        return learning_rate * jnp.power(jnp.float32(decay_rate), _periods(step, decay_steps, staircase))

    return _finish(
        schedule,
        global_step,
        "exponential_decay",
        learning_rate,
        decay_steps=decay_steps,
        decay_rate=decay_rate,
        staircase=staircase,
    )


def natural_exp_decay(
    learning_rate: Any,
    global_step: Any = None,
    decay_steps: Any = None,
    decay_rate: Any = None,
    staircase: bool = False,
) -> Schedule | jax.Array:
    """``learning_rate * exp(-decay_rate * step / decay_steps)`` (`tf.train.natural_exp_decay`).

    Args:
      learning_rate: the rate at step 0.
      global_step: None for a schedule, else the step whose rate is wanted.
      decay_steps: steps per unit of the exponent.
      decay_rate: the speed of the decay.
      staircase: whether the rate changes only at whole multiples of `decay_steps`.

    Returns:
      A schedule ``step -> float32 scalar``, or the rate at `global_step`.

    Raises:
      InvalidArgumentError: as `exponential_decay`.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.train.natural_exp_decay(0.5, decay_steps=10, decay_rate=1.0)(0))
      0.5
    """
    _require("natural_exp_decay", decay_steps=decay_steps, decay_rate=decay_rate)

    def schedule(step: jax.Array) -> jax.Array:
        return learning_rate * jnp.exp(-decay_rate * _periods(step, decay_steps, staircase))

    return _finish(
        schedule,
        global_step,
        "natural_exp_decay",
        learning_rate,
        decay_steps=decay_steps,
        decay_rate=decay_rate,
        staircase=staircase,
    )


def inverse_time_decay(
    learning_rate: Any,
    global_step: Any = None,
    decay_steps: Any = None,
    decay_rate: Any = None,
    staircase: bool = False,
) -> Schedule | jax.Array:
    """``learning_rate / (1 + decay_rate * step / decay_steps)`` (`tf.train.inverse_time_decay`).

    Args:
      learning_rate: the rate at step 0.
      global_step: None for a schedule, else the step whose rate is wanted.
      decay_steps: steps per unit of the decay.
      decay_rate: the speed of the decay.
      staircase: whether the rate changes only at whole multiples of `decay_steps`.

    Returns:
      A schedule ``step -> float32 scalar``, or the rate at `global_step`.

    Raises:
      InvalidArgumentError: as `exponential_decay`.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.train.inverse_time_decay(0.5, decay_steps=10, decay_rate=1.0)(10))
      0.25
    """
    _require("inverse_time_decay", decay_steps=decay_steps, decay_rate=decay_rate)

    def schedule(step: jax.Array) -> jax.Array:
        return learning_rate / (1.0 + decay_rate * _periods(step, decay_steps, staircase))

    return _finish(
        schedule,
        global_step,
        "inverse_time_decay",
        learning_rate,
        decay_steps=decay_steps,
        decay_rate=decay_rate,
        staircase=staircase,
    )


def piecewise_constant(
    x: Any = None, boundaries: Sequence[Any] | None = None, values: Sequence[Any] | None = None
) -> Schedule | jax.Array:
    """A rate that changes at given steps (`tf.train.piecewise_constant`).

    ``values[0]`` up to and including step ``boundaries[0]``, ``values[1]`` up to and including
    ``boundaries[1]``, ..., ``values[-1]`` afterwards. (optax changes one step earlier.)

    Args:
      x: None for a schedule, else the step whose rate is wanted.
      boundaries: strictly ascending steps.
      values: the rates, one more than the boundaries.

    Returns:
      A schedule ``step -> float32 scalar``, or the rate at `x`.

    Raises:
      InvalidArgumentError: the lengths do not fit, or the boundaries do not ascend.

    Example:
      >>> import jaxvars as jv
      >>> rate = jv.train.piecewise_constant(boundaries=[10], values=[1.0, 0.5])
      >>> print(rate(10), rate(11))
      1.0 0.5
    """
    _require("piecewise_constant", boundaries=boundaries, values=values)
    assert boundaries is not None and values is not None
    if len(values) != len(boundaries) + 1:
        raise InvalidArgumentError(
            f"piecewise_constant needs one value more than boundaries, got {len(boundaries)} boundaries "
            f"and {len(values)} values"
        )
    if any(b <= a for a, b in itertools.pairwise(boundaries)):
        raise InvalidArgumentError(f"the boundaries must ascend, got {list(boundaries)}")
    edges, rates = jnp.asarray(boundaries), jnp.asarray(values, jnp.float32)

    def schedule(step: jax.Array) -> jax.Array:
        return rates[jnp.sum(step > edges)]

    return _finish(schedule, x, "piecewise_constant", boundaries=boundaries, values=values)


def polynomial_decay(
    learning_rate: Any,
    global_step: Any = None,
    decay_steps: Any = None,
    end_learning_rate: Any = 0.0001,
    power: Any = 1.0,
    cycle: bool = False,
) -> Schedule | jax.Array:
    """Go from `learning_rate` to `end_learning_rate` by a power law (`tf.train.polynomial_decay`).

    Args:
      learning_rate: the rate at step 0.
      global_step: None for a schedule, else the step whose rate is wanted.
      decay_steps: the step at which the end is reached.
      end_learning_rate: the rate from there on.
      power: the exponent; 1 is linear.
      cycle: past the end, start again over the next multiple of `decay_steps` instead of staying.

    Returns:
      A schedule ``step -> float32 scalar``, or the rate at `global_step`.

    Raises:
      InvalidArgumentError: `decay_steps` is missing or not positive.

    Example:
      >>> import jaxvars as jv
      >>> rate = jv.train.polynomial_decay(1.0, decay_steps=4, end_learning_rate=0.0)
      >>> print(rate(0), rate(1), rate(9))
      1.0 0.75 0.0
    """
    _require("polynomial_decay", decay_steps=decay_steps)

    def schedule(step: jax.Array) -> jax.Array:
        if cycle:
            span = decay_steps * jnp.maximum(1.0, jnp.ceil(step / decay_steps))
        else:
            span, step = jnp.float32(decay_steps), jnp.minimum(step, decay_steps)
        return (learning_rate - end_learning_rate) * jnp.power((span - step) / span, power) + end_learning_rate

    return _finish(
        schedule,
        global_step,
        "polynomial_decay",
        learning_rate,
        decay_steps=decay_steps,
        end_learning_rate=end_learning_rate,
        power=power,
        cycle=cycle,
    )


def cosine_decay(
    learning_rate: Any, global_step: Any = None, decay_steps: Any = None, alpha: Any = 0.0
) -> Schedule | jax.Array:
    """Go down to ``alpha * learning_rate`` along half a cosine (`tf.train.cosine_decay`).

    Args:
      learning_rate: the rate at step 0.
      global_step: None for a schedule, else the step whose rate is wanted.
      decay_steps: the step at which the end is reached.
      alpha: the end, as a fraction of `learning_rate`.

    Returns:
      A schedule ``step -> float32 scalar``, or the rate at `global_step`.

    Raises:
      InvalidArgumentError: `decay_steps` is missing or not positive.

    Example:
      >>> import jaxvars as jv
      >>> rate = jv.train.cosine_decay(1.0, decay_steps=10)
      >>> print(rate(0), rate(10))
      1.0 0.0
    """
    _require("cosine_decay", decay_steps=decay_steps)

    def schedule(step: jax.Array) -> jax.Array:
        done = jnp.minimum(step, decay_steps) / decay_steps
        cosine = 0.5 * (1.0 + jnp.cos(jnp.float32(math.pi) * done))
        return learning_rate * ((1.0 - alpha) * cosine + alpha)

    return _finish(schedule, global_step, "cosine_decay", learning_rate, decay_steps=decay_steps, alpha=alpha)


def _periods(step: jax.Array, decay_steps: Any, staircase: bool) -> jax.Array:
    periods = step / decay_steps
    return jnp.floor(periods) if staircase else periods


def _require(call: str, **arguments: Any) -> None:
    missing = [name for name, value in arguments.items() if value is None]
    if missing:
        raise InvalidArgumentError(f"{call} needs {' and '.join(f'{name}=' for name in missing)}")
    steps = arguments.get("decay_steps")
    if isinstance(steps, int | float) and steps <= 0:
        raise InvalidArgumentError(f"{call}: decay_steps must be positive, got {steps}")


def _finish(
    schedule: Callable[[jax.Array], jax.Array], step: Any, call: str, *first: Any, **named: Any
) -> Schedule | jax.Array:
    """The schedule in float32 as TF1 computes it, or its value at `step` when one is given."""

    def rate(step: Any) -> jax.Array:
        return jnp.asarray(schedule(jnp.asarray(step)), jnp.float32)

    if step is None:
        return rate
    if callable(step) or isinstance(step, str) or np.ndim(step) != 0:
        given = [f"{value!r:.40}" for value in first]
        given += [f"{name}={value!r:.40}" for name, value in named.items() if value is not False]
        raise InvalidTypeError(
            f"global_step must be a number, array or handle, not {step!r:.60}. For a rate that follows the training "
            "step leave it out: the optimizer calls the schedule with the step counter. "
            f"Write: jv.train.{call}({', '.join(given)})"
        )
    return rate(step)

"""TF1's optimizers for sparse weights: proximal steps and dual averaging, which set small weights to exactly 0."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError
from jaxvars.train import transformations as rules
from jaxvars.train.tf1_base import TF1Optimizer
from jaxvars.train.updates import counter_key
from jaxvars.variables import Variables

__all__ = ["AdagradDAOptimizer", "ProximalAdagradOptimizer", "ProximalGradientDescentOptimizer"]


class _DualAveragingState(NamedTuple):
    gradient_accumulator: Any
    gradient_squared_accumulator: Any


def _shrunk(value: jax.Array, by: Any) -> jax.Array:
    """The value moved towards 0 by `by`, and no further."""
    return jnp.sign(value) * jnp.maximum(jnp.abs(value) - by, 0)


def _proximal(l1: Any, l2: Any) -> rules.Rule:
    def rule(g: Any, value: Any, rate: Any) -> tuple[Any, tuple[()]]:
        return _shrunk(value - rate * g, rate * l1) / (1 + l2 * rate) - value, ()

    return rule


def _proximal_adagrad(l1: Any, l2: Any) -> rules.Rule:
    def rule(g: Any, value: Any, rate: Any, total: Any) -> tuple[Any, tuple[Any]]:
        total = total + g * g
        rate = rate * jax.lax.rsqrt(total)
        return _shrunk(value - rate * g, rate * l1) / (1 + l2 * rate) - value, (total,)

    return rule


def _dual_averaging(l1: Any, l2: Any) -> rules.Rule:
    def rule(g: Any, value: Any, rate_and_step: Any, total: Any, squares: Any) -> tuple[Any, tuple[Any, Any]]:
        rate, step = rate_and_step
        total, squares = total + g, squares + g * g
        solved = -rate * _shrunk(total, l1 * step) / (l2 * step * rate + jnp.sqrt(squares))
        return solved - value, (total, squares)

    return rule


class ProximalGradientDescentOptimizer(TF1Optimizer):
    """Gradient descent, then a step towards 0 (`tf.train.ProximalGradientDescentOptimizer`).

    Args:
      learning_rate: as in `GradientDescentOptimizer`.
      l1_regularization_strength: zero or positive; sets small weights to exactly 0.
      l2_regularization_strength: zero or positive.
      name: the optimizer's name.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.
      InvalidArgumentError: a negative strength.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> optimizer = jv.train.ProximalGradientDescentOptimizer(0.5, l1_regularization_strength=1.0)
      >>> print(optimizer.apply_gradients({"w": jnp.array([1.0, 4.0])}, jv.Variables({"w": jnp.ones(2)}))["w"])
      [ 0.  -0.5]
    """

    def __init__(
        self,
        learning_rate: Any,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        name: str = "ProximalGradientDescent",
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        l1, l2 = _strengths(l1_regularization_strength, l2_regularization_strength)
        super().__init__(
            rules.SGDState,
            _proximal(l1, l2),
            learning_rate,
            {},
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )


class ProximalAdagradOptimizer(TF1Optimizer):
    """Adagrad, then a step towards 0; slot ``<variable>/ProximalAdagrad`` (`tf.train.ProximalAdagradOptimizer`).

    Args:
      learning_rate: as in `GradientDescentOptimizer`.
      initial_accumulator_value: where the sum of squares starts; positive.
      l1_regularization_strength: zero or positive; sets small weights to exactly 0.
      l2_regularization_strength: zero or positive.
      name: the optimizer's name, and the slots'.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.
      InvalidArgumentError: a strength or accumulator of the wrong sign.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> list(jv.train.ProximalAdagradOptimizer(0.1).init(jv.Variables({"w": jnp.zeros(2)})))
      ['w', 'w/ProximalAdagrad']
    """

    def __init__(
        self,
        learning_rate: Any,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        name: str = "ProximalAdagrad",
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        _check_positive("initial_accumulator_value", initial_accumulator_value)
        l1, l2 = _strengths(l1_regularization_strength, l2_regularization_strength)
        super().__init__(
            rules.AdagradState,
            _proximal_adagrad(l1, l2),
            learning_rate,
            {"accumulator": initial_accumulator_value},
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )


class AdagradDAOptimizer(TF1Optimizer):
    """Adagrad by dual averaging, for sparse linear models (`tf.train.AdagradDAOptimizer`).

    Slots ``<variable>/AdagradDA`` (sum of gradients) and ``<variable>/AdagradDA_1`` (sum of their squares). The values
    are solved for anew in each step: what they were before does not count.

    Args:
      learning_rate: as in `GradientDescentOptimizer`.
      global_step: the name or handle of the step counter, which regularization grows with.
      initial_gradient_squared_accumulator_value: where the sum of squares starts; positive.
      l1_regularization_strength: zero or positive; sets small weights to exactly 0.
      l2_regularization_strength: zero or positive.
      name: the optimizer's name, and the slots'.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.
      InvalidArgumentError: a strength or accumulator of the wrong sign.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> variables = jv.train.create_global_step(jv.Variables({"w": jnp.zeros(2)}))
      >>> list(jv.train.AdagradDAOptimizer(0.1, "global_step").init(variables))
      ['global_step', 'w', 'w/AdagradDA', 'w/AdagradDA_1']
    """

    def __init__(
        self,
        learning_rate: Any,
        global_step: Any,
        initial_gradient_squared_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        name: str = "AdagradDA",
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        start = initial_gradient_squared_accumulator_value
        _check_positive("initial_gradient_squared_accumulator_value", start)
        l1, l2 = _strengths(l1_regularization_strength, l2_regularization_strength)

        def rate_and_step(step: Any) -> jax.Array:
            rate = learning_rate(step) if callable(learning_rate) else learning_rate
            # The rule sees the rate only, so the number of this step goes along in it.
            return jnp.stack([jnp.asarray(rate, jnp.float32), jnp.asarray(step + 1, jnp.float32)])

        super().__init__(
            _DualAveragingState,
            _dual_averaging(l1, l2),
            rate_and_step,
            {"gradient_accumulator": 0.0, "gradient_squared_accumulator": start},
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )
        self._wants_step = False  # it is passed on below
        self._step = global_step

    def apply_gradients(self, grads: Any, variables: Variables, global_step: Any = None, **extra: Any) -> Variables:
        """Take one step; see `Optimizer.apply_gradients`."""
        step = variables[counter_key(self._step, variables)]
        return super().apply_gradients(grads, variables, global_step, step=step, **extra)


def _strengths(l1: float, l2: float) -> tuple[float, float]:
    for name, value in (("l1_regularization_strength", l1), ("l2_regularization_strength", l2)):
        if value < 0.0:
            raise InvalidArgumentError(f"{name} {value} needs to be positive or zero")
    return l1, l2


def _check_positive(name: str, value: float) -> None:
    if value <= 0.0:
        raise InvalidArgumentError(f"{name} must be positive: {value}")

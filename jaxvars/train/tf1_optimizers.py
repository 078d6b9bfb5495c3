"""TF1's optimizers: the same names, arguments, defaults, slots and steps."""

from __future__ import annotations

from typing import Any

from jaxvars.errors import InvalidArgumentError
from jaxvars.train import transformations as rules
from jaxvars.train.tf1_base import TF1Optimizer

__all__ = [
    "AdadeltaOptimizer",
    "AdagradOptimizer",
    "AdamOptimizer",
    "FtrlOptimizer",
    "GradientDescentOptimizer",
    "MomentumOptimizer",
    "RMSPropOptimizer",
]


class GradientDescentOptimizer(TF1Optimizer):
    """``variable -= learning_rate * gradient`` (`tf.train.GradientDescentOptimizer`).

    Args:
      learning_rate: a number, a traced value, or a schedule of the global step (optax's or one of
        `jv.train`'s decays). A schedule reads the variable that ``apply_gradients(global_step=...)`` names,
        else the one in the collection "global_step", before it is counted up.
      name: the optimizer's name.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> optimizer = jv.train.GradientDescentOptimizer(0.5)
      >>> variables = jv.Variables({"w": jnp.array(3.0)})
      >>> print(optimizer.apply_gradients({"w": 2.0}, variables)["w"])
      2.0
    """

    def __init__(
        self,
        learning_rate: Any,
        name: str = "GradientDescent",
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        super().__init__(
            rules.SGDState, rules.sgd_rule, learning_rate, {}, name=name, var_list=var_list, number=number, scope=scope
        )


class MomentumOptimizer(TF1Optimizer):
    """Gradient descent with momentum; slot ``<variable>/Momentum`` (`tf.train.MomentumOptimizer`).

    Args:
      learning_rate: as in `GradientDescentOptimizer`.
      momentum: the factor of the sum of past gradients.
      name: the optimizer's name, and the slots'.
      use_nesterov: whether to step by the gradient expected after the step.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> optimizer = jv.train.MomentumOptimizer(0.5, momentum=0.9)
      >>> variables = optimizer.init(jv.Variables({"w": jnp.array(3.0)}))
      >>> variables = optimizer.apply_gradients({"w": 2.0}, variables)
      >>> print(variables["w"], variables["w/Momentum"])
      2.0 2.0
    """

    def __init__(
        self,
        learning_rate: Any,
        momentum: Any,
        name: str = "Momentum",
        use_nesterov: bool = False,
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        rule = rules.momentum_rule(momentum, use_nesterov)
        super().__init__(
            rules.MomentumState,
            rule,
            learning_rate,
            {"momentum": 0.0},
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )


class AdamOptimizer(TF1Optimizer):
    """Adam with TF1's epsilon (`tf.train.AdamOptimizer`).

    Slots ``<variable>/Adam`` (first moment) and ``<variable>/Adam_1`` (second), and the numbers
    ``beta1_power`` and ``beta2_power``. The rate is ``learning_rate * sqrt(1 - beta2^t) / (1 - beta1^t)`` and
    `epsilon` is added to the root of the *uncorrected* second moment; `optax.adam` corrects first.

    Args:
      learning_rate: as in `GradientDescentOptimizer`.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      epsilon: added to the denominator.
      name: the optimizer's name, and the slots'.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.train.AdamOptimizer(1e-3).init(jv.Variables({"w": jnp.ones(2)}))
      >>> list(variables)
      ['beta1_power', 'beta2_power', 'w', 'w/Adam', 'w/Adam_1']
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta1: Any = 0.9,
        beta2: Any = 0.999,
        epsilon: Any = 1e-8,
        name: str = "Adam",
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        super().__init__(
            rules.AdamState,
            rules.adam_rule(beta1, beta2, epsilon),
            learning_rate,
            {"m": 0.0, "v": 0.0},
            powers={"beta1_power": beta1, "beta2_power": beta2},
            adjust=rules.adam_rate,
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )


class RMSPropOptimizer(TF1Optimizer):
    """RMSProp (`tf.train.RMSPropOptimizer`).

    Slots ``<variable>/RMSProp`` (mean square, which starts at 1) and ``<variable>/RMSProp_1`` (momentum);
    when centered the mean is ``_1`` and the momentum ``_2``.

    Args:
      learning_rate: as in `GradientDescentOptimizer`.
      decay: decay of the mean square.
      momentum: the factor of past changes.
      epsilon: added under the root.
      centered: whether to divide by the standard deviation instead.
      name: the optimizer's name, and the slots'.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.train.RMSPropOptimizer(0.1).init(jv.Variables({"w": jnp.zeros(2)}))
      >>> print(variables["w/RMSProp"], variables["w/RMSProp_1"])
      [1. 1.] [0. 0.]
    """

    def __init__(
        self,
        learning_rate: Any,
        decay: Any = 0.9,
        momentum: Any = 0.0,
        epsilon: Any = 1e-10,
        centered: bool = False,
        name: str = "RMSProp",
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        make = rules.centered_rmsprop_rule if centered else rules.rmsprop_rule
        super().__init__(
            rules.CenteredRMSPropState if centered else rules.RMSPropState,
            make(decay, momentum, epsilon),
            learning_rate,
            {"rms": 1.0, "mg": 0.0, "momentum": 0.0} if centered else {"rms": 1.0, "momentum": 0.0},
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )


class AdagradOptimizer(TF1Optimizer):
    """Adagrad; slot ``<variable>/Adagrad`` (`tf.train.AdagradOptimizer`).

    Args:
      learning_rate: as in `GradientDescentOptimizer`.
      initial_accumulator_value: where the sum of squares starts; positive.
      name: the optimizer's name, and the slots'.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.
      InvalidArgumentError: `initial_accumulator_value` is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.train.AdagradOptimizer(0.1).init(jv.Variables({"w": jnp.zeros(2)}))
      >>> print(variables["w/Adagrad"])
      [0.1 0.1]
    """

    def __init__(
        self,
        learning_rate: Any,
        initial_accumulator_value: float = 0.1,
        name: str = "Adagrad",
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        if initial_accumulator_value <= 0.0:
            raise InvalidArgumentError(f"initial_accumulator_value must be positive: {initial_accumulator_value}")
        super().__init__(
            rules.AdagradState,
            rules.adagrad_rule,
            learning_rate,
            {"accumulator": initial_accumulator_value},
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )


class AdadeltaOptimizer(TF1Optimizer):
    """Adadelta; slots ``<variable>/Adadelta`` and ``_1`` (`tf.train.AdadeltaOptimizer`).

    Args:
      learning_rate: as in `GradientDescentOptimizer`. To match the paper use 1.0.
      rho: decay of both means.
      epsilon: added under both roots.
      name: the optimizer's name, and the slots'.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> list(jv.train.AdadeltaOptimizer().init(jv.Variables({"w": jnp.zeros(2)})))
      ['w', 'w/Adadelta', 'w/Adadelta_1']
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: Any = 0.95,
        epsilon: Any = 1e-8,
        name: str = "Adadelta",
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        super().__init__(
            rules.AdadeltaState,
            rules.adadelta_rule(rho, epsilon),
            learning_rate,
            {"accum": 0.0, "accum_update": 0.0},
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )


class FtrlOptimizer(TF1Optimizer):
    """Follow the regularized leader; slots ``<variable>/Ftrl`` and ``_1`` (`tf.train.FtrlOptimizer`).

    Args:
      learning_rate: as in `GradientDescentOptimizer`.
      learning_rate_power: how the rate falls with the sum of squares; zero or negative.
      initial_accumulator_value: where the sum of squares starts; zero or positive.
      l1_regularization_strength: zero or positive; sets small weights to exactly 0.
      l2_regularization_strength: zero or positive.
      name: the optimizer's name, and the slots'.
      accum_name: another name for the first slot.
      linear_name: another name for the second slot.
      l2_shrinkage_regularization_strength: zero or positive; added to the gradient.
      beta: added to the root of the sum of squares.
      var_list: what to optimize, as in `Optimizer`.
      number: as in `Optimizer`.
      scope: as in `Optimizer`.

    Raises:
      UnavailableError: optax is not installed.
      InvalidArgumentError: a strength, accumulator or power of the wrong sign.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> list(jv.train.FtrlOptimizer(0.1).init(jv.Variables({"w": jnp.zeros(2)})))
      ['w', 'w/Ftrl', 'w/Ftrl_1']
    """

    def __init__(
        self,
        learning_rate: Any,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        name: str = "Ftrl",
        accum_name: str | None = None,
        linear_name: str | None = None,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float | None = None,
        var_list: Any = None,
        *,
        number: int | None = None,
        scope: str = "",
    ) -> None:
        if learning_rate_power > 0.0:
            raise InvalidArgumentError(f"learning_rate_power {learning_rate_power} needs to be negative or zero")
        _check_not_negative(
            initial_accumulator_value=initial_accumulator_value,
            l1_regularization_strength=l1_regularization_strength,
            l2_regularization_strength=l2_regularization_strength,
            l2_shrinkage_regularization_strength=l2_shrinkage_regularization_strength,
        )
        super().__init__(
            rules.FtrlState,
            rules.ftrl_rule(
                learning_rate_power,
                l1_regularization_strength,
                l2_regularization_strength,
                l2_shrinkage_regularization_strength,
                beta or 0.0,
            ),
            learning_rate,
            {"accum": initial_accumulator_value, "linear": 0.0},
            bases={"accum": accum_name or name, "linear": linear_name or name},
            name=name,
            var_list=var_list,
            number=number,
            scope=scope,
        )


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if value < 0.0:
            raise InvalidArgumentError(f"{name} {value} needs to be positive or zero")

"""TF1's update rules as optax transformations.

optax has optimizers of the same names whose formulas differ: its Adam adds epsilon to another quantity, its
RMSProp and Adagrad start from other accumulators, it has no Ftrl. A run that goes on from a TF1 checkpoint
has to take the same steps, so the rules here are TF1's, one function of one variable each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.buffers import is_concrete
from jaxvars.errors import UnavailableError

__all__ = [
    "AdadeltaState",
    "AdagradState",
    "AdamState",
    "CenteredRMSPropState",
    "FtrlState",
    "MomentumState",
    "RMSPropState",
    "Rule",
    "SGDState",
    "adadelta_rule",
    "adagrad_rule",
    "adam_rate",
    "adam_rule",
    "centered_rmsprop_rule",
    "ftrl_rule",
    "momentum_rule",
    "require_optax",
    "rmsprop_rule",
    "sgd_rule",
    "transformation",
]

Rate = Any
# (gradient, value, learning rate, one argument per field of the state) -> (change of the value, new slots)
Rule = Callable[..., tuple[jax.Array, tuple[jax.Array, ...]]]


class SGDState(NamedTuple):
    """Nothing: gradient descent remembers nothing."""


class MomentumState(NamedTuple):
    """The sum of past gradients, each variable's own."""

    momentum: Any


class AdamState(NamedTuple):
    """First and second moments, and the powers of beta that correct their bias."""

    beta1_power: Any
    beta2_power: Any
    m: Any
    v: Any


class RMSPropState(NamedTuple):
    """The mean square of the gradients and the momentum."""

    rms: Any
    momentum: Any


class CenteredRMSPropState(NamedTuple):
    """The mean square and mean of the gradients and the momentum."""

    rms: Any
    mg: Any
    momentum: Any


class AdagradState(NamedTuple):
    """The sum of squared gradients."""

    accumulator: Any


class AdadeltaState(NamedTuple):
    """The mean squares of the gradients and of the updates."""

    accum: Any
    accum_update: Any


class FtrlState(NamedTuple):
    """The sum of squared gradients and the linear term."""

    accum: Any
    linear: Any


def require_optax() -> ModuleType:
    """Import optax, or say how to install it."""
    try:
        import optax
    except ImportError as error:
        raise UnavailableError(f'optimizers need optax ({error}). Run: pip install "jaxvars[train]"') from error
    return optax


def transformation(
    state_type: type[Any],
    rule: Rule,
    learning_rate: Any,
    slots: Mapping[str, float],
    powers: Mapping[str, Any] | None = None,
    adjust: Callable[..., Any] | None = None,
) -> Any:
    """Make an optax transformation of one update rule.

    Args:
      state_type: the named tuple of the state.
      rule: the update of one variable.
      learning_rate: a number, a traced value, or a schedule, which gets the `step` given to ``update``.
      slots: the value that each slot starts from, by field.
      powers: shared numbers that start as the given factor and are multiplied by it after each step.
      adjust: ``(rate, *powers) -> rate``, once per step.
    """
    powers = powers or {}

    def init(params: Any) -> Any:
        shared = {field: jnp.asarray(factor, jnp.float32) for field, factor in powers.items()}
        own = {field: jax.tree.map(functools.partial(_full_like, fill), params) for field, fill in slots.items()}
        return state_type(**shared, **own)

    def update(gradients: Any, state: Any, params: Any = None, *, step: Any = None, **_: Any) -> Any:
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        shared = {field: getattr(state, field) for field in powers}
        if adjust is not None:
            rate = adjust(jnp.asarray(rate), *shared.values())
        leaves, treedef = jax.tree.flatten(params)
        rates = {dtype: _rate(rate, dtype) for dtype in {leaf.dtype for leaf in leaves}}
        columns = [jax.tree.leaves(gradients), *(jax.tree.leaves(getattr(state, field)) for field in slots)]
        rows = zip(leaves, *columns, strict=True)
        results = [_apply(rule, value, rates[value.dtype], *row) for value, *row in rows]
        changes = jax.tree.unflatten(treedef, [change for change, _ in results])
        own = {field: jax.tree.unflatten(treedef, [new[i] for _, new in results]) for i, field in enumerate(slots)}
        later = {field: shared[field] * jnp.asarray(powers[field], jnp.float32) for field in powers}
        return changes, state_type(**later, **own)

    return require_optax().GradientTransformationExtraArgs(init, update)


def _rate(rate: Any, dtype: Any) -> jax.Array:
    """The learning rate in a variable's own (real) dtype: as float32 it would lift a bfloat16 variable."""
    return jnp.asarray(rate, jnp.finfo(dtype).dtype)


def _apply(
    rule: Rule, value: Any, rate: jax.Array, gradient: Any, *slots: Any
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Apply `rule` to one variable; all stays in the dtypes it has."""
    # JAX's gradient by a complex number is the conjugate of TensorFlow's, which points uphill.
    gradient = jnp.conj(gradient) if jnp.iscomplexobj(gradient) else gradient
    change, new = rule(gradient, value, rate, *slots)
    kept = tuple(slot.astype(old.dtype) for slot, old in zip(new, slots, strict=True))
    return change.astype(value.dtype), kept


def _full_like(fill: float, value: Any) -> Any:
    """An array of `fill` where `value` lies; constants of concrete variables need no compilation."""
    if is_concrete(value):
        # Committed to a device only if the value is: else the first step and the second would compile apart.
        home = value.sharding if value.committed else None
        return jax.device_put(np.full(value.shape, fill, value.dtype), home)
    return jnp.full_like(value, fill)


def _square(x: jax.Array) -> jax.Array:
    return x * jnp.conj(x) if jnp.iscomplexobj(x) else x * x


def _rest(decay: Any, like: jax.Array) -> Any:
    """``1 - decay`` as TF1 rounds it: `decay` in float32 first (0.999 there leaves 0.00100005, not 0.001)."""
    dtype = jnp.promote_types(like.dtype, jnp.float32)
    if isinstance(decay, int | float):  # a constant needs no traced operations
        return np.asarray(dtype.type(1) - dtype.type(decay), like.dtype)
    return (1 - jnp.asarray(decay, dtype)).astype(like.dtype)


def sgd_rule(g: jax.Array, value: jax.Array, rate: Rate) -> tuple[jax.Array, tuple[()]]:
    """``value -= rate * g``."""
    return -(rate * g), ()


def momentum_rule(momentum: Any, use_nesterov: bool) -> Rule:
    """``sum = momentum * sum + g; value -= rate * sum``, or Nesterov's form of it."""

    def rule(g: Any, value: Any, rate: Rate, total: Any) -> tuple[Any, tuple[Any]]:
        total = total * momentum + g
        step = g * rate + total * momentum * rate if use_nesterov else total * rate
        return -step, (total,)

    return rule


def adam_rate(rate: Any, beta1_power: Any, beta2_power: Any) -> Any:
    """Adam's learning rate at this step, with the correction of both biases."""
    return rate * jnp.sqrt(1 - beta2_power) / (1 - beta1_power)


def adam_rule(beta1: Any, beta2: Any, epsilon: Any) -> Rule:
    """Adam in the form before its paper's section 2.1: epsilon is added before the bias is corrected."""

    def rule(g: Any, value: Any, rate: Rate, m: Any, v: Any) -> tuple[Any, tuple[Any, Any]]:
        m = m + (g - m) * _rest(beta1, rate)
        v = v + (_square(g) - v) * _rest(beta2, rate)
        return -(m * rate / (jnp.sqrt(v) + epsilon)), (m, v)

    return rule


def rmsprop_rule(decay: Any, momentum: Any, epsilon: Any) -> Rule:
    """RMSProp with epsilon inside the root and the rate inside the momentum."""

    def rule(g: Any, value: Any, rate: Rate, rms: Any, mom: Any) -> tuple[Any, tuple[Any, Any]]:
        rms = rms + (_square(g) - rms) * _rest(decay, rate)
        mom = mom * momentum + g * rate / jnp.sqrt(rms + epsilon)
        return -mom, (rms, mom)

    return rule


def centered_rmsprop_rule(decay: Any, momentum: Any, epsilon: Any) -> Rule:
    """RMSProp by the variance of the gradients instead of their mean square."""

    def rule(g: Any, value: Any, rate: Rate, rms: Any, mg: Any, mom: Any) -> tuple[Any, tuple[Any, Any, Any]]:
        rms = rms + (_square(g) - rms) * _rest(decay, rate)
        mg = mg + (g - mg) * _rest(decay, rate)
        mom = mom * momentum + g * rate / jnp.sqrt(rms - _square(mg) + epsilon)
        return -mom, (rms, mg, mom)

    return rule


def adagrad_rule(g: Any, value: Any, rate: Rate, total: Any) -> tuple[Any, tuple[Any]]:
    """``sum += g * g; value -= rate * g / sqrt(sum)``, without an epsilon."""
    total = total + _square(g)
    return -(rate * g * jax.lax.rsqrt(total)), (total,)


def adadelta_rule(rho: Any, epsilon: Any) -> Rule:
    """Adadelta; the learning rate scales the change but not what is remembered of it."""

    def rule(g: Any, value: Any, rate: Rate, accum: Any, accum_update: Any) -> tuple[Any, tuple[Any, Any]]:
        accum = accum * rho + _square(g) * _rest(rho, rate)
        change = jnp.sqrt(accum_update + epsilon) * jax.lax.rsqrt(accum + epsilon) * g
        accum_update = accum_update * rho + _square(change) * _rest(rho, rate)
        return -(change * rate), (accum, accum_update)

    return rule


def ftrl_rule(power: Any, l1: Any, l2: Any, shrinkage: Any, beta: Any) -> Rule:
    """Follow the regularized leader: the value is solved for anew from the linear and quadratic terms."""

    def rule(g: Any, value: Any, rate: Rate, accum: Any, linear: Any) -> tuple[Any, tuple[Any, Any]]:
        ridge = l2 + beta / (2 * jnp.maximum(rate, 1e-36))
        new_accum = accum + _square(g)
        root, new_root = jnp.power(accum, -power), jnp.power(new_accum, -power)
        linear = linear + (g + 2 * shrinkage * value) - (new_root - root) / rate * value
        solved = (jnp.clip(linear, -l1, l1) - linear) / (new_root / rate + 2 * ridge)
        return solved - value, (new_accum, linear)

    return rule

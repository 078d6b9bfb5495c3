"""How losses of single elements become one number (`tf.losses.compute_weighted_loss`)."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError
from jaxvars.losses.collected import collect_loss
from jaxvars.scopes import GraphKeys

__all__ = ["Reduction", "as_weights", "compute_weighted_loss", "divided", "present", "reduced"]


class Reduction:
    """The ways to reduce losses, as in ``tf.losses.Reduction``.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.losses.absolute_difference([1.0, 1.0], [3.0, 5.0], reduction=jv.losses.Reduction.SUM))
      6.0
    """

    NONE: Final = "none"
    """No reduction: the weighted losses as they are."""
    SUM: Final = "weighted_sum"
    """The sum of the weighted losses."""
    SUM_OVER_BATCH_SIZE: Final = "weighted_sum_over_batch_size"
    """`SUM`, divided by the number of losses."""
    MEAN: Final = "weighted_mean"
    """`SUM`, divided by the sum of the weights."""
    SUM_BY_NONZERO_WEIGHTS: Final = "weighted_sum_by_nonzero_weights"
    """`SUM`, divided by the number of weights that are not 0: the default."""
    SUM_OVER_NONZERO_WEIGHTS: Final = "weighted_sum_by_nonzero_weights"
    """The old name of `SUM_BY_NONZERO_WEIGHTS`."""

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """Return the ways."""
        return (cls.NONE, cls.SUM, cls.MEAN, cls.SUM_OVER_BATCH_SIZE, cls.SUM_BY_NONZERO_WEIGHTS)

    @classmethod
    def validate(cls, key: Any) -> None:
        """Refuse what is no way.

        Raises:
          InvalidArgumentError: `key` is none of them.
        """
        if key not in cls.all():
            raise InvalidArgumentError(
                f"Invalid Reduction Key {key}. It is one of jv.losses.Reduction: NONE, SUM, MEAN, "
                "SUM_OVER_BATCH_SIZE, SUM_BY_NONZERO_WEIGHTS."
            )


def compute_weighted_loss(
    losses: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> jax.Array:
    """Weight losses, reduce them, and add the result to a collection (`tf.losses.compute_weighted_loss`).

    Args:
      losses: losses of single elements, ``[batch, ...]``.
      weights: a number, or an array of the rank of `losses` whose lengths are 1 or those of `losses`.
      scope: the name scope of the loss, for `get_losses`.
      loss_collection: the collection that the result joins; None for none. Outside of a model there are none.
      reduction: one of `Reduction`.

    Returns:
      A scalar; with `Reduction.NONE` an array like `losses`. In the dtype of the losses; float16 and bfloat16 are
      summed in float32.

    Raises:
      InvalidArgumentError: weights that cannot be broadcast, or an unknown reduction.
      FailedPreconditionError: inside a JAX transform of a model; pass ``loss_collection=None`` and return the loss.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.losses.compute_weighted_loss([1.0, 2.0, 3.0], weights=[1.0, 2.0, 0.0]))
      2.5
    """
    loss = reduced("compute_weighted_loss", jnp.asarray(losses), weights, reduction)
    return collect_loss(loss, scope, "weighted_loss", loss_collection)


def reduced(op: str, losses: jax.Array, weights: Any, reduction: str) -> jax.Array:
    """Return the weighted losses, reduced."""
    Reduction.validate(reduction)
    wide = losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
    factors = as_weights(op, weights, wide)
    weighted = wide * factors
    if reduction == Reduction.NONE:
        return weighted.astype(losses.dtype)
    total = jnp.sum(weighted)
    if reduction == Reduction.MEAN:
        total = divided(total, jnp.sum(jnp.broadcast_to(factors, wide.shape)))
    elif reduction == Reduction.SUM_BY_NONZERO_WEIGHTS:
        total = divided(total, jnp.sum(present(factors, wide)))
    elif reduction == Reduction.SUM_OVER_BATCH_SIZE:
        total = divided(total, jnp.asarray(wide.size, wide.dtype))
    return total.astype(losses.dtype)


def as_weights(op: str, weights: Any, values: jax.Array) -> jax.Array:
    """Return weights that broadcast against the values by TF1's rule: a scalar, or the same rank."""
    factors = jnp.asarray(weights).astype(values.dtype)
    if factors.ndim == 0:
        return factors.reshape((1,) * values.ndim)
    fits = factors.ndim == values.ndim and all(w in (1, n) for w, n in zip(factors.shape, values.shape, strict=True))
    if not fits:
        raise InvalidArgumentError(
            f"{op}: weights can not be broadcast to values. values.rank={values.ndim}. weights.rank={factors.ndim}. "
            f"values.shape={values.shape}. weights.shape={factors.shape}. Weights are a number, or have the rank of "
            "the values with lengths 1 or the same: jnp.reshape(weights, [-1, 1])"
        )
    return factors


def present(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Return 1 for each value whose weight is not 0, else 0."""
    return jnp.broadcast_to((weights != 0).astype(values.dtype), values.shape)


def divided(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Return the quotient, 0 where the denominator is 0; with finite gradients."""
    empty = denominator == 0
    return jnp.where(empty, 0, numerator / jnp.where(empty, 1, denominator))

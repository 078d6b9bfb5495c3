"""Losses that TF1 kept in collections (`tf.losses`)."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidTypeError
from jaxvars.scopes import GraphKeys
from jaxvars.store import get_collection
from jaxvars.transform import Model
from jaxvars.variables import Variables

__all__ = ["get_regularization_loss", "get_regularization_losses", "regularization_loss"]


def get_regularization_losses(scope: str | None = None) -> list[jax.Array]:
    """Return the regularization losses of this frame so far (`tf.losses.get_regularization_losses`).

    Args:
      scope: a regular expression for the beginning of the variables' names, or None for all.

    Returns:
      One scalar per variable that has a regularizer, and what `jv.add_to_collection` added.

    Raises:
      FailedPreconditionError: outside of a frame; there `regularization_loss` serves.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     _ = jv.get_variable("w", [2], initializer=jv.ones_initializer(), regularizer=lambda w: w.sum())
      ...     [float(loss) for loss in jv.losses.get_regularization_losses()]
      [2.0]
    """
    return get_collection(GraphKeys.REGULARIZATION_LOSSES, scope)


def get_regularization_loss(scope: str | None = None) -> jax.Array:
    """Return the sum of the regularization losses so far (`tf.losses.get_regularization_loss`).

    Call it in the model function, after the layers: losses in collections live as long as the frame.

    Args:
      scope: a regular expression for the beginning of the variables' names, or None for all.

    Returns:
      A float32 scalar (of the losses' dtype where they have another), 0 when there are none.

    Raises:
      FailedPreconditionError: outside of a frame; there `regularization_loss` serves.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     print(jv.losses.get_regularization_loss())
      0.0
    """
    losses = get_regularization_losses(scope)
    return sum(losses[1:], jnp.asarray(losses[0])) if losses else jnp.zeros((), jnp.float32)


def regularization_loss(model: Model, variables: Variables, *args: Any, **kwargs: Any) -> jax.Array:
    """Return the sum of a model's regularization losses, from outside.

    Runs the model and keeps nothing but the losses; under `jit` what they do not need is not computed.
    Differentiable by the variables.

    Args:
      model: what `jv.transform` returned.
      variables: its variables.
      *args: the model's arguments.
      **kwargs: the model's keyword arguments, and ``rng`` where it draws random numbers.

    Returns:
      A scalar, 0 when the model has no regularizers.

    Raises:
      InvalidTypeError: `model` is not a model.
      As `model.apply`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     return jv.layers.dense(x, 3, kernel_regularizer=jv.regularizers.l2_regularizer(2.0))
      >>> model = jv.transform(net)
      >>> variables = jv.Variables({"dense/kernel": jnp.ones([2, 3]), "dense/bias": jnp.ones(3)})
      >>> print(jv.losses.regularization_loss(model, variables, jnp.ones([1, 2])))
      6.0
    """
    if not isinstance(cast(object, model), Model):
        raise InvalidTypeError(f"regularization_loss takes a model from jv.transform first, not {type(model).__name__}")

    def only_losses(*args: Any, **kwargs: Any) -> jax.Array:
        model.fn(*args, **kwargs)
        return get_regularization_loss()

    loss, _ = Model(only_losses, tf1_op_names=model.tf1_op_names).apply(variables, *args, **kwargs)
    return loss

"""The collections of losses: what a model has added so far (`tf.losses`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.frame import open_frame
from jaxvars.scopes import GraphKeys, get_current_name_scope, name_scope
from jaxvars.scopes.collections import Pending
from jaxvars.store import add_to_collection, get_collection
from jaxvars.transform import Model
from jaxvars.variables import Variables

__all__ = [
    "add_loss",
    "collect_loss",
    "get_losses",
    "get_regularization_loss",
    "get_regularization_losses",
    "get_total_loss",
    "regularization_loss",
]


@dataclass(frozen=True, slots=True)
class _NamedLoss(Pending):
    """An entry of LOSSES, with the name by which scope filters find it."""

    value: Any
    name: str

    def resolve(self) -> Any:
        """Return the loss."""
        return self.value


# A frame looks at the leaves of what is collected, to refuse values of inner traces.
jax.tree_util.register_pytree_node(
    _NamedLoss, lambda loss: ((loss.value,), loss.name), lambda name, values: _NamedLoss(values[0], name)
)


def collect_loss(value: jax.Array, scope: str | None, default: str, loss_collection: str | None) -> jax.Array:
    """Add a loss to a collection, where one is open, under the name that TF1 gives its op; return it."""
    if open_frame() is not None:
        with name_scope(scope, default):  # taken whether or not the loss is collected
            name = f"{get_current_name_scope()}/value:0"
        if loss_collection is not None:
            add_to_collection(loss_collection, _NamedLoss(value, name))
    return value


def add_loss(loss: Any, loss_collection: str | None = GraphKeys.LOSSES) -> None:
    """Add a loss of your own to the collection (`tf.losses.add_loss`).

    Args:
      loss: a scalar.
      loss_collection: the collection; None adds nothing.

    Raises:
      FailedPreconditionError: outside of a frame, or a value computed inside a JAX transform (return it instead).

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     jv.losses.add_loss(2.0)
      ...     print(jv.losses.get_losses(), jv.losses.get_total_loss())
      [2.0] 2.0
    """
    if loss_collection is not None:
        add_to_collection(loss_collection, loss)


def get_losses(scope: str | None = None, loss_collection: str = GraphKeys.LOSSES) -> list[jax.Array]:
    """Return the losses added so far (`tf.losses.get_losses`).

    Args:
      scope: a regular expression for the beginning of the losses' names, or None for all. A loss of this module is
        named after the name scope it is in and itself: ``tower_0/mean_squared_error/value:0``.
      loss_collection: the collection.

    Returns:
      The losses, in the order they were added; regularization losses are not among them.

    Raises:
      FailedPreconditionError: outside of a frame.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     with jv.variable_scope("tower_0"):
      ...         _ = jv.losses.absolute_difference([1.0], [3.0])
      ...     _ = jv.losses.absolute_difference([1.0], [4.0])
      ...     print(jv.losses.get_losses(scope="tower_0/"))
      [Array(2., dtype=float32)]
    """
    return get_collection(loss_collection, scope)


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


def get_total_loss(
    add_regularization_losses: bool = True, name: str = "total_loss", scope: str | None = None
) -> jax.Array:
    """Return the sum of all losses so far (`tf.losses.get_total_loss`).

    Args:
      add_regularization_losses: whether those of the variables count.
      name: accepted for TF1's sake, without effect.
      scope: a regular expression for the beginning of the losses' names, or None for all.

    Returns:
      A scalar.

    Raises:
      FailedPreconditionError: outside of a frame.
      InvalidArgumentError: there are no losses.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     _ = jv.losses.absolute_difference([1.0], [3.0])
      ...     _ = jv.losses.mean_squared_error([1.0], [3.0])
      ...     print(jv.losses.get_total_loss())
      6.0
    """
    del name
    losses = get_losses(scope)
    if add_regularization_losses:
        losses = losses + get_regularization_losses(scope)
    if not losses:
        raise InvalidArgumentError(
            "get_total_loss: there are no losses in the collections"
            f"{'' if scope is None else f' under {scope!r}'}. Call it after those that add losses: "
            "jv.losses.mean_squared_error(labels, predictions), jv.losses.add_loss(loss)"
        )
    return sum(losses[1:], jnp.asarray(losses[0]))


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

"""What all metrics share: local variables that add up, and what a metric returns."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.losses.weighted import as_weights, divided
from jaxvars.scopes import GraphKeys, variable_scope
from jaxvars.store import add_to_collections
from jaxvars.variable import Variable
from jaxvars.variables import Variables

__all__ = ["Metric", "agreeing", "metric_scope", "metric_variable", "ratio", "reset", "returned", "weights_like"]

Metric = tuple[jax.Array, jax.Array]
Collections = str | Sequence[str] | None


@contextmanager
def metric_scope(name: str | None, default: str) -> Generator[None, None, None]:
    """Open the scope of a metric: `name` as it is, or the default name made unique."""
    with variable_scope(name, default_name=default):
        yield


def metric_variable(shape: tuple[int, ...], name: str, dtype: Any = "float32") -> Variable:
    """Make a variable of zeros that counts, in LOCAL_VARIABLES and METRIC_VARIABLES."""
    return Variable(
        np.zeros(shape, dtype),  # not JAX's, which inside a loop would belong to it
        trainable=False,
        collections=[GraphKeys.LOCAL_VARIABLES, GraphKeys.METRIC_VARIABLES],
        name=name,
    )


def returned(value: jax.Array, metrics_collections: Collections, updates_collections: Collections) -> Metric:
    """Return ``(value, update_op)``, which are one here, after adding them to the collections."""
    for collections in (metrics_collections, updates_collections):
        if collections:
            add_to_collections(collections, value)
    return value, value


def weights_like(metric: str, weights: Any, values: jax.Array) -> jax.Array:
    """Return one float32 weight for each value."""
    if weights is None:
        return jnp.ones(values.shape, jnp.float32)
    return jnp.broadcast_to(as_weights(metric, weights, values.astype(jnp.float32)), values.shape)


def agreeing(metric: str, labels: Any, predictions: Any) -> tuple[jax.Array, jax.Array]:
    """Return labels and predictions as arrays of one shape; a last axis of length 1 may be missing in one."""
    if labels is None or predictions is None:
        raise InvalidArgumentError(f"{metric}: labels and predictions must not be None.")
    truth, guess = jnp.asarray(labels), jnp.asarray(predictions)
    if guess.ndim == truth.ndim + 1 and guess.shape[-1] == 1:
        guess = guess.reshape(guess.shape[:-1])
    elif truth.ndim == guess.ndim + 1 and truth.shape[-1] == 1:
        truth = truth.reshape(truth.shape[:-1])
    if truth.shape != guess.shape:
        raise InvalidArgumentError(
            f"{metric}: Shapes {guess.shape} and {truth.shape} are incompatible: predictions and labels have one shape"
        )
    return truth, guess


def ratio(part: Any, whole: Any) -> jax.Array:
    """Return the quotient of two counts, 0 where nothing was counted."""
    return divided(jnp.asarray(part), jnp.asarray(whole))


def reset(variables: Variables) -> Variables:
    """Return the variables with those of all metrics at 0, for the next evaluation.

    TF1 ran ``tf.local_variables_initializer()``.

    Args:
      variables: the state, as `model.init` or `model.apply` returned it.

    Returns:
      The state; what is in METRIC_VARIABLES is 0.

    Raises:
      InvalidTypeError: no `jv.Variables`.

    Example:
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.metrics.mean(x)[0])
      >>> _, variables = model.apply(model.init(0, 4.0), 4.0)
      >>> value, _ = model.apply(jv.metrics.reset(variables), 8.0)
      >>> print(value)
      8.0
    """
    if not isinstance(variables, Variables):
        raise InvalidTypeError(f"reset takes jv.Variables, got {type(variables).__name__}")
    counted = variables.collection(GraphKeys.METRIC_VARIABLES)
    return variables.replace({key: jnp.zeros_like(value) for key, value in counted.items()})

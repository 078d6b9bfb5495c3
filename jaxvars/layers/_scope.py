"""What all layers share: the scope they open, and how they make their variables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.regularizers import sum_regularizer
from jaxvars.scopes import GraphKeys, get_variable_scope, variable_scope
from jaxvars.store import add_to_collection, get_variable

__all__ = ["add_weight", "finish", "floating_input", "layer_scope"]

Function = Callable[[Any], Any]


@contextlib.contextmanager
def layer_scope(name: str | None, default: str, reuse: Any) -> Generator[None, None, None]:
    """Open the scope of a layer: `name` as it is, or the default name made unique (``dense``, ``dense_1``).

    With reuse and without a name it is the plain default name, as in TF1: ``dense`` finds ``dense``.
    """
    if name is None and reuse:
        name = default
    with variable_scope(name, default_name=default, reuse=reuse):
        yield


def add_weight(
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    initializer: Any,
    regularizer: Function | None = None,
    constraint: Function | None = None,
    trainable: bool = True,
) -> Any:
    """Make or share a variable of the layer whose scope is open.

    As in TF1 the layer's own regularizer is added to the one that the scope gives to each of its variables.
    """
    inherited = get_variable_scope().regularizer
    if regularizer is not None and inherited is not None:
        regularizer = sum_regularizer([inherited, regularizer])
    return get_variable(
        name,
        shape,
        dtype,
        initializer=initializer,
        regularizer=regularizer,
        trainable=trainable,
        constraint=constraint,
    )


def floating_input(inputs: Any, layer: str, min_ndim: int, *, exactly: bool = False) -> jax.Array:
    """`inputs` as an array, after a check of its dtype and rank."""
    x = jnp.asarray(inputs)
    if x.ndim < min_ndim or (exactly and x.ndim != min_ndim):
        kind = "ndim" if exactly else "min_ndim"
        raise InvalidArgumentError(
            f"{layer}: the input is incompatible with the layer: expected {kind}={min_ndim}, found "
            f"ndim={x.ndim}. Full shape received: {x.shape}"
        )
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise InvalidTypeError(f"{layer} takes floating numbers, got {x.dtype}. Cast: inputs.astype(jnp.float32)")
    return x


def finish(x: jax.Array, layer: str, activation: Function | None, regularizer: Function | None) -> jax.Array:
    """Apply the activation, and collect the loss of the activity regularizer."""
    if activation is not None:
        if not callable(activation):
            raise InvalidTypeError(
                f"{layer}: activation is a function such as jax.nn.relu, or None, not {activation!r}"
            )
        x = activation(x)
    if regularizer is not None:
        loss = regularizer(x)
        if loss is not None:
            add_to_collection(GraphKeys.REGULARIZATION_LOSSES, loss)
    return x

"""Weight regularizers, as `tf.contrib.layers` had them.

A regularizer is a function of a variable's value that returns a scalar loss, or None for no loss. The ones
here are small frozen objects that hash and pickle.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "Regularizer",
    "l1_l2_regularizer",
    "l1_regularizer",
    "l2_regularizer",
    "no_regularizer",
    "sum_regularizer",
]

Regularizer: TypeAlias = Callable[[Any], jax.Array | None]


def no_regularizer(_: Any) -> None:
    """Return None: the regularizer that disables an inherited one (TF1: ``tf.no_regularizer``).

    ``regularizer=None`` means "take the scope's".

    Example:
      >>> import jaxvars as jv
      >>> jv.no_regularizer(1.0) is None
      True
    """
    return


@dataclass(frozen=True)
class _L1:
    """``scale * sum(|w|)``."""

    scale: Any

    def __call__(self, weights: Any) -> jax.Array:
        return jnp.sum(jnp.abs(_weights(weights))) * self.scale


@dataclass(frozen=True)
class _L2:
    """``scale * sum(w**2) / 2``."""

    scale: Any

    def __call__(self, weights: Any) -> jax.Array:
        array = _weights(weights)
        squares = jnp.square(jnp.abs(array) if jnp.iscomplexobj(array) else array)
        return jnp.sum(squares) * (0.5 * self.scale)


@dataclass(frozen=True)
class _Sum:
    """The sum of what several regularizers return."""

    parts: tuple[Regularizer, ...]

    def __call__(self, weights: Any) -> jax.Array | None:
        losses = [loss for loss in (part(weights) for part in self.parts) if loss is not None]
        return sum(losses[1:], losses[0]) if losses else None


def l1_regularizer(scale: Any, scope: str | None = None) -> Regularizer:
    """Return a function that computes ``scale * sum(|w|)`` (TF1: ``tf.contrib.layers.l1_regularizer``).

    Args:
      scale: a float or a float scalar array; 0.0 disables the regularizer.
      scope: accepted for TF1 code; there are no ops to name.

    Returns:
      A function from weights (floating or complex, any shape) to a scalar, or None if `scale` is 0.0.

    Raises:
      InvalidArgumentError: `scale` is an integer, as in TF1, or negative.
      InvalidTypeError: `scale` is not a number; on use: integer weights.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> float(jv.regularizers.l1_regularizer(0.5)(jnp.array([1.0, -2.0])))
      1.5
    """
    return _L1(_checked_scale(scale, "scale")) if not _is_zero(scale) else no_regularizer


def l2_regularizer(scale: Any, scope: str | None = None) -> Regularizer:
    """Return a function that computes ``scale * sum(w**2) / 2`` (TF1: ``tf.contrib.layers.l2_regularizer``).

    The factor 1/2 is TF1's (``tf.nn.l2_loss``); Keras' ``l2`` has none.

    Args:
      scale: a float or a float scalar array; 0.0 disables the regularizer.
      scope: accepted for TF1 code; there are no ops to name.

    Returns:
      A function from weights (floating or complex, any shape) to a scalar, or None if `scale` is 0.0.

    Raises:
      InvalidArgumentError: `scale` is an integer, as in TF1, or negative.
      InvalidTypeError: `scale` is not a number; on use: integer weights.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> float(jv.regularizers.l2_regularizer(0.1)(jnp.array([3.0, 4.0])))
      1.25
    """
    return _L2(_checked_scale(scale, "scale")) if not _is_zero(scale) else no_regularizer


def l1_l2_regularizer(scale_l1: Any = 1.0, scale_l2: Any = 1.0, scope: str | None = None) -> Regularizer:
    """Return the sum of `l1_regularizer` and `l2_regularizer` (TF1: ``tf.contrib.layers.l1_l2_regularizer``).

    Args:
      scale_l1: the scale of the L1 part; 0.0 leaves it out.
      scale_l2: the scale of the L2 part; 0.0 leaves it out.
      scope: accepted for TF1 code; there are no ops to name.

    Returns:
      A function from weights to a scalar, or None if both scales are 0.0.

    Raises:
      InvalidArgumentError: a scale is an integer or negative.
      InvalidTypeError: a scale is not a number.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> float(jv.regularizers.l1_l2_regularizer(1.0, 2.0)(jnp.array([2.0])))
      6.0
    """
    for name, scale in (("scale_l1", scale_l1), ("scale_l2", scale_l2)):
        _checked_scale(scale, name)
    both = sum_regularizer([l1_regularizer(scale_l1), l2_regularizer(scale_l2)])
    assert both is not None  # neither of the two is None
    return both


def sum_regularizer(regularizer_list: Iterable[Regularizer | None], scope: str | None = None) -> Regularizer | None:
    """Return a function that adds up several regularizers (TF1: ``tf.contrib.layers.sum_regularizer``).

    Args:
      regularizer_list: regularizers; Nones are left out.
      scope: accepted for TF1 code; there are no ops to name.

    Returns:
      A function from weights to the sum, None if every part returns None. None if the list holds no
      regularizer.

    Raises:
      InvalidTypeError: an entry is not callable.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> l1 = jv.regularizers.l1_regularizer(1.0)
      >>> both = jv.regularizers.sum_regularizer([l1, None, jv.no_regularizer])
      >>> float(both(jnp.array([2.0])))
      2.0
    """
    parts = tuple(part for part in regularizer_list if part is not None)
    for part in parts:
        if not callable(part):
            raise InvalidTypeError(f"A regularizer must be callable, got {part!r} in regularizer_list.")
    return _Sum(parts) if parts else None


def _is_zero(scale: Any) -> bool:
    return isinstance(scale, numbers.Real) and not isinstance(scale, numbers.Integral) and scale == 0.0


def _checked_scale(scale: Any, argument: str) -> Any:
    if isinstance(scale, numbers.Integral):
        raise InvalidArgumentError(f"{argument} cannot be an integer: {scale}. Write {float(scale)}.")
    if isinstance(scale, numbers.Real):
        if not float(scale) >= 0.0:
            raise InvalidArgumentError(f"Setting a {argument} less than 0 on a regularizer: {scale}")
        return float(scale)
    if isinstance(scale, jax.Array | np.ndarray) and scale.ndim == 0 and jnp.issubdtype(scale.dtype, np.floating):
        return scale
    raise InvalidTypeError(f"{argument} must be a float or a float scalar array, got {scale!r}.")


def _weights(weights: Any) -> jax.Array:
    array = jnp.asarray(weights)
    if not jnp.issubdtype(array.dtype, np.inexact):
        name = f" {weights.key!r}" if isinstance(getattr(weights, "key", None), str) else ""
        raise InvalidTypeError(
            f"A regularizer needs floating point weights, but{name} {array.dtype}{list(array.shape)} was "
            "given: give such a variable regularizer=jv.no_regularizer."
        )
    return array

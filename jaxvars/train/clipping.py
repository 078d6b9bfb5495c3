"""Clipping of gradients in a training step: by their global norm, as in TF1, or by an optax transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.variables import Variables

__all__ = ["Clip", "clip_by_global_norm", "global_norm", "gradient_clip"]

Clip: TypeAlias = Callable[[Variables, Variables], Variables]


def gradient_clip(clip: Any) -> Clip:
    """Return ``clip(gradients, params) -> gradients`` for what the user gave: None, a norm or an optax transformation.

    Raises:
      InvalidTypeError: `clip` is none of these.
      InvalidArgumentError: a norm that is not positive.
    """
    if clip is None:
        return lambda gradients, params: gradients
    if callable(getattr(clip, "init", None)) and callable(getattr(clip, "update", None)):
        return lambda gradients, params: _transformed(clip, gradients, params)
    if isinstance(clip, bool) or not isinstance(clip, int | float | np.number):
        raise InvalidTypeError(
            f"clip is the largest global norm, a number, or an optax transformation such as optax.clip(1.0), "
            f"not {type(clip).__name__}"
        )
    if not clip > 0:
        raise InvalidArgumentError(f"clip={clip}: the largest global norm of the gradients is a positive number")
    return lambda gradients, params: clip_by_global_norm(gradients, float(clip))[0]


def clip_by_global_norm(gradients: Any, clip_norm: Any) -> tuple[Any, jax.Array]:
    """Scale all gradients so that their global norm is at most `clip_norm` (TF1: `tf.clip_by_global_norm`).

    Args:
      gradients: any pytree of arrays, such as what `jv.grad` returned.
      clip_norm: the largest norm, a scalar.

    Returns:
      ``(gradients, norm)``: the gradients in their dtypes, and their global norm before, float32 or wider. Where the
      norm is not finite, all gradients are NaN, as in TF1: nothing hides that a step went wrong.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> gradients, norm = jv.train.clip_by_global_norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, 1.0)
      >>> print(norm, gradients["a"], gradients["b"])
      5.0 [0.6] [0.8]
    """
    norm = global_norm(gradients)
    scale = jnp.where(jnp.isfinite(norm), clip_norm * jnp.minimum(1 / norm, 1 / clip_norm), jnp.nan)
    return jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradients), norm


def global_norm(tree: Any) -> jax.Array:
    """Return the square root of the sum of all squares, float32 or wider (TF1: `tf.global_norm`).

    Args:
      tree: any pytree of arrays, such as what `jv.grad` returned.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.train.global_norm([jnp.array([3.0]), jnp.array([4.0])]))
      5.0
    """
    squares = [jnp.sum(jnp.square(jnp.abs(leaf).astype(_wide(leaf)))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, start=jnp.zeros((), jnp.float32)))


def _wide(leaf: Any) -> Any:
    """The real dtype to add squares in: 16 bits would overflow."""
    return jnp.promote_types(jnp.finfo(leaf.dtype).dtype, jnp.float32)


def _transformed(clip: Any, gradients: Variables, params: Variables) -> Variables:
    plain, params = gradients.unpacked(), params.unpacked()
    if jax.tree.leaves(jax.eval_shape(clip.init, params)):
        raise InvalidArgumentError(
            "clip= takes a transformation without state, and this one has state, which must be saved with the run. "
            "Write: optimizer = jv.train.Optimizer(optax.chain(clip, optax.adam(1e-3)))"
        )
    clipped, _ = clip.update(plain, clip.init(params), params)
    return gradients._with_leaves(clipped._leaves)

"""The orthogonal initializer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers._base import FLOAT32, DType, Shape
from jaxvars.initializers.random import Draw, FloatInitializer, draw

__all__ = ["Orthogonal", "orthogonalize"]


def orthogonalize(matrix: jax.Array) -> jax.Array:
    """Return the orthonormal factor Q of a tall matrix, made unique: R's diagonal is positive.

    Args:
      matrix: float [m, n] with m >= n.

    Returns:
      float [m, n] with orthonormal columns.
    """
    q, r = jnp.linalg.qr(matrix)
    return q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(q.dtype)[None, :]


@dataclass(frozen=True, repr=False)
class Orthogonal(FloatInitializer):
    """A random orthogonal matrix times `gain` (TF1: ``tf.orthogonal_initializer``).

    A shape of more than two axes is flattened to ``(product of all but the last, last)``. The columns are
    orthonormal, or the rows where there are more columns than rows.

    Args:
      gain: multiplies the matrix.
      seed: see `FloatInitializer`.
      dtype: the dtype when the call names none.

    Raises:
      InvalidArgumentError: on use: a shape of fewer than two axes.

    Example:
      >>> import jax, jax.numpy as jnp, jaxvars as jv
      >>> w = jv.orthogonal_initializer()(jax.random.key(0), [4, 2])
      >>> bool(jnp.allclose(w.T @ w, jnp.eye(2), atol=1e-5))
      True
    """

    gain: float = 1.0
    seed: int | None = None
    dtype: Any = FLOAT32
    spelling: ClassVar[str] = "jv.initializers.orthogonal"
    numbers: ClassVar[tuple[str, ...]] = ("gain",)
    is_joint: ClassVar[bool] = True

    def check(self, shape: Shape, dtype: DType) -> None:
        """Refuse scalars and vectors."""
        FloatInitializer.check(self, shape, dtype)
        if len(shape) < 2:
            raise InvalidArgumentError(
                "The tensor to initialize, specified by argument `shape` must be at least two-dimensional. "
                f"Received shape={shape}"
            )

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        if rows == 0 or columns == 0:
            return jnp.zeros(shape, dtype)
        work = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
        tall = (max(rows, columns), min(rows, columns))
        q = orthogonalize(draw(Draw("normal", 0.0, 1.0), self._key(key), tall, work))
        return ((q if rows >= columns else q.T) * self.gain).reshape(shape).astype(dtype)

"""Pooling layers (`tf.layers.max_pooling1d` to `average_pooling3d`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.layers._arguments import layout_of, padding_of, sizes
from jaxvars.layers.base import Layer

__all__ = [
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "average_pooling1d",
    "average_pooling2d",
    "average_pooling3d",
    "max_pooling1d",
    "max_pooling2d",
    "max_pooling3d",
]


class _Pooling(Layer):
    """What pooling layers share."""

    _has_variables = False
    _dims: int
    _pool: Callable[..., jax.Array]

    def __init__(
        self,
        pool_size: int | Sequence[int],
        strides: int | Sequence[int],
        padding: str = "valid",
        data_format: str = "channels_last",
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        layer, dims = self._kind, self._dims
        self.pool_size: tuple[int, ...] = sizes(pool_size, dims, f"{layer}: pool_size")
        self.strides: tuple[int, ...] = sizes(strides, dims, f"{layer}: strides")
        self.padding: str = padding_of(padding, layer)
        self.data_format = data_format
        self._layout = layout_of(data_format, dims, layer)

    def call(self, inputs: Any) -> jax.Array:
        """Pool."""
        pool = type(self)._pool
        return pool(inputs, self.pool_size, self.strides, self.padding, self._layout)


class MaxPooling1D(_Pooling):
    """Take the maximum over windows of sequences (`tf.layers.MaxPooling1D`): `max_pooling1d` as an object.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.MaxPooling1D(2, 2)(jnp.ones([1, 8, 2])).shape
      (1, 4, 2)
    """

    _dims = 1
    _pool = staticmethod(nn.max_pool1d)


class MaxPooling2D(_Pooling):
    """Take the maximum over windows of images (`tf.layers.MaxPooling2D`): `max_pooling2d` as an object.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.MaxPooling2D(2, 2)(jnp.ones([1, 8, 8, 2])).shape
      (1, 4, 4, 2)
    """

    _dims = 2
    _pool = staticmethod(nn.max_pool2d)


class MaxPooling3D(_Pooling):
    """Take the maximum over windows of volumes (`tf.layers.MaxPooling3D`): `max_pooling3d` as an object.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.MaxPooling3D(2, 2)(jnp.ones([1, 4, 4, 4, 2])).shape
      (1, 2, 2, 2, 2)
    """

    _dims = 3
    _pool = staticmethod(nn.max_pool3d)


class AveragePooling1D(_Pooling):
    """Take the mean over windows of sequences (`tf.layers.AveragePooling1D`): `average_pooling1d` as an object.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.AveragePooling1D(2, 2)(jnp.ones([1, 8, 2])).shape
      (1, 4, 2)
    """

    _dims = 1
    _pool = staticmethod(nn.avg_pool1d)


class AveragePooling2D(_Pooling):
    """Take the mean over windows of images (`tf.layers.AveragePooling2D`): `average_pooling2d` as an object.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.AveragePooling2D(2, 2)(jnp.ones([1, 8, 8, 2])).shape
      (1, 4, 4, 2)
    """

    _dims = 2
    _pool = staticmethod(nn.avg_pool2d)


class AveragePooling3D(_Pooling):
    """Take the mean over windows of volumes (`tf.layers.AveragePooling3D`): `average_pooling3d` as an object.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.AveragePooling3D(2, 2)(jnp.ones([1, 4, 4, 4, 2])).shape
      (1, 2, 2, 2, 2)
    """

    _dims = 3
    _pool = staticmethod(nn.avg_pool3d)


@add_arg_scope
def max_pooling2d(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """Take the maximum over windows of images (`tf.layers.max_pooling2d`).

    Args:
      inputs: ``[batch, height, width, channels]``, or ``[batch, channels, height, width]``.
      pool_size: an int or ``(height, width)``.
      strides: likewise.
      padding: "valid" or "same".
      data_format: "channels_last" or "channels_first".
      name: accepted for TF1's sake, without effect.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: the input is not of rank 4, or an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.max_pooling2d(jnp.ones([1, 8, 8, 2]), 2, 2).shape
      (1, 4, 4, 2)
    """
    return MaxPooling2D(pool_size, strides, padding, data_format, name)(inputs)


@add_arg_scope
def max_pooling1d(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """Take the maximum over windows of sequences (`tf.layers.max_pooling1d`).

    Args:
      inputs: ``[batch, width, channels]``, or channels second.
      pool_size: an int or ``(width,)``.
      strides: likewise.
      padding: as in `max_pooling2d`.
      data_format: likewise.
      name: likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.max_pooling1d(jnp.ones([1, 8, 2]), 2, 2).shape
      (1, 4, 2)
    """
    return MaxPooling1D(pool_size, strides, padding, data_format, name)(inputs)


@add_arg_scope
def max_pooling3d(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """Take the maximum over windows of volumes (`tf.layers.max_pooling3d`).

    Args:
      inputs: ``[batch, depth, height, width, channels]``, or channels second.
      pool_size: an int or ``(depth, height, width)``.
      strides: likewise.
      padding: as in `max_pooling2d`.
      data_format: likewise.
      name: likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.max_pooling3d(jnp.ones([1, 4, 4, 4, 2]), 2, 2).shape
      (1, 2, 2, 2, 2)
    """
    return MaxPooling3D(pool_size, strides, padding, data_format, name)(inputs)


@add_arg_scope
def average_pooling2d(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """Take the mean over windows of images (`tf.layers.average_pooling2d`).

    What "same" pads does not count: the mean is over the elements inside the image.

    Args:
      inputs: ``[batch, height, width, channels]``, or ``[batch, channels, height, width]``; floating.
      pool_size: an int or ``(height, width)``.
      strides: likewise.
      padding: "valid" or "same".
      data_format: "channels_last" or "channels_first".
      name: accepted for TF1's sake, without effect.

    Returns:
      The result, in the layout and dtype of the input.

    Raises:
      InvalidArgumentError: the input is not of rank 4, or an argument is out of range.
      InvalidTypeError: integer inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.average_pooling2d(jnp.ones([1, 8, 8, 2]), 2, 2).shape
      (1, 4, 4, 2)
    """
    return AveragePooling2D(pool_size, strides, padding, data_format, name)(inputs)


@add_arg_scope
def average_pooling1d(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """Take the mean over windows of sequences (`tf.layers.average_pooling1d`).

    Args:
      inputs: ``[batch, width, channels]``, or channels second; floating.
      pool_size: an int or ``(width,)``.
      strides: likewise.
      padding: as in `average_pooling2d`.
      data_format: likewise.
      name: likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.average_pooling1d(jnp.ones([1, 8, 2]), 2, 2).shape
      (1, 4, 2)
    """
    return AveragePooling1D(pool_size, strides, padding, data_format, name)(inputs)


@add_arg_scope
def average_pooling3d(
    inputs: Any,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """Take the mean over windows of volumes (`tf.layers.average_pooling3d`).

    Args:
      inputs: ``[batch, depth, height, width, channels]``, or channels second; floating.
      pool_size: an int or ``(depth, height, width)``.
      strides: likewise.
      padding: as in `average_pooling2d`.
      data_format: likewise.
      name: likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.layers.average_pooling3d(jnp.ones([1, 4, 4, 4, 2]), 2, 2).shape
      (1, 2, 2, 2, 2)
    """
    return AveragePooling3D(pool_size, strides, padding, data_format, name)(inputs)

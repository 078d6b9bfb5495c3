"""Convolutions in groups over a mesh of several axes, where XLA's own has a wrong gradient.

There (jax 0.10 to 0.12) XLA multiplies the gradient of the filter by the size of each axis over which nothing is
spread: data-parallel on a mesh of data and model axes, silently. It also gathers the whole batch on each device
(openxla/xla#47945). As a sum over the filter's places, of products that XLA spreads right, neither happens.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from jaxvars.nn._windows import Pads, spatial_axes, static_pads

__all__ = ["convolve_by_places", "is_over_several_axes"]


def is_over_several_axes(*operands: jax.Array) -> bool:
    """Whether an operand lies on a mesh that has more than one axis to spread it over."""
    meshes = [jax.typeof(operand).sharding.mesh for operand in operands]
    axes = [zip(mesh.axis_sizes, mesh.axis_types, strict=True) for mesh in meshes]
    return any(sum(size > 1 and kind != AxisType.Manual for size, kind in sizes) > 1 for sizes in axes)


def convolve_by_places(
    x: jax.Array,
    kernel: jax.Array,
    steps: Sequence[int],
    rates: Sequence[int],
    padding: str | Pads,
    layout: str,
) -> jax.Array:
    """Return a convolution in groups as a sum over the places of its filter.

    Args:
      x: the input, in `layout`.
      kernel: ``[spatial, channels of a group, out_channels]``.
      steps: the strides.
      rates: the dilations.
      padding: as `jax.lax.conv_general_dilated` takes it.
      layout: the data format.
    """
    axes, channel = spatial_axes(layout), layout.index("C")
    reach = [(size - 1) * rate + 1 for size, rate in zip(kernel.shape, rates, strict=False)]
    sizes = [x.shape[axis] for axis in axes]
    pads = static_pads(padding, sizes, reach, steps)
    counts = [
        max((size + sum(pad) - width) // step + 1, 0)
        for size, pad, width, step in zip(sizes, pads, reach, steps, strict=True)
    ]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(jnp.moveaxis(x, channel, -1), [(0, 0), *pads, (0, 0)]).astype(wide)
    result = jnp.zeros((), wide)
    for place in np.ndindex(*kernel.shape[: len(axes)]):
        first = [at * rate for at, rate in zip(place, rates, strict=True)]
        where = [
            slice(start, start + (count - 1) * step + 1 if count else start, step)
            for start, count, step in zip(first, counts, steps, strict=True)
        ]
        result = result + _products(padded[(slice(None), *where)], kernel[place].astype(wide))
    return jnp.moveaxis(result.astype(x.dtype), -1, channel)


def _products(piece: jax.Array, weights: jax.Array) -> jax.Array:
    """What one place of the filter adds: ``[..., channels]`` by ``[channels of a group, out_channels]``."""
    channels, (depth, out) = piece.shape[-1], weights.shape
    if depth == 1 and out == channels:
        return piece * weights.reshape((1,) * (piece.ndim - 1) + (out,))
    groups = channels // depth
    parts = piece.reshape(*piece.shape[:-1], groups, depth)
    return jnp.einsum("...gd,dgo->...go", parts, weights.reshape(depth, groups, -1)).reshape(*piece.shape[:-1], out)

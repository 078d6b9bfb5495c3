"""What convolutions and pooling share: data formats, strides, and how much is padded, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "Padding",
    "Pads",
    "Window",
    "batched",
    "check_fits",
    "layout_of",
    "same_dtype",
    "spatial",
    "spatial_axes",
    "spatial_padding",
    "static_pads",
    "window",
]

Padding = str | Sequence[Sequence[int]]
Pads = tuple[tuple[int, int], ...]
_LAYOUTS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}
_NAMES = {"D": "depth", "H": "height", "W": "width"}


class Window(NamedTuple):
    """The arguments of a window that slides over all axes, as `jax.lax.reduce_window` takes them."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str | Pads


def layout_of(data_format: str | None, dims: int, op: str) -> str:
    """Return the format, by default channels last, after a check that it has this many spatial axes."""
    formats = _LAYOUTS[dims]
    if data_format is None:
        return formats[0]
    if data_format not in formats:
        raise InvalidArgumentError(f'{op}: data_format is "{formats[0]}" or "{formats[1]}", got {data_format!r}')
    return data_format


def spatial_axes(layout: str) -> tuple[int, ...]:
    """Return the positions of depth, height and width."""
    return tuple(i for i, axis in enumerate(layout) if axis not in "NC")


def batched(value: Any, op: str, layout: str) -> jax.Array:
    """Return the input as an array, after a check of its rank."""
    x = jnp.asarray(value)
    if x.ndim != len(layout):
        raise InvalidArgumentError(
            f"{op}: the input is {', '.join(layout)}, of rank {len(layout)}; got shape {x.shape}"
        )
    return x


def same_dtype(op: str, x: jax.Array, kernel: jax.Array) -> None:
    """Refuse an input and a filter of different dtypes, as TF1 does."""
    if x.dtype != kernel.dtype:
        raise InvalidTypeError(
            f'{op}: the input is {x.dtype} and the filter {kernel.dtype}. Cast one: input.astype("{kernel.dtype}")'
        )


def spatial(value: Any, argument: str, layout: str) -> tuple[int, ...]:
    """Return depth, height and width of an argument given as one int, one per spatial axis, or one per axis."""
    dims = len(layout) - 2
    sizes = (value,) if isinstance(value, int | np.integer) else tuple(value)
    if len(sizes) == 1:
        sizes *= dims
    if len(sizes) == len(layout):
        if any(size != 1 for size, axis in zip(sizes, layout, strict=True) if axis in "NC"):
            raise InvalidArgumentError(f"{argument} of batch and channels must be 1, got {list(sizes)} in {layout}")
        sizes = tuple(size for size, axis in zip(sizes, layout, strict=True) if axis not in "NC")
    if len(sizes) != dims or any(int(size) < 1 for size in sizes):
        letters = ", ".join(axis.lower() for axis in layout if axis not in "NC")
        words = {3: "three", 4: "four", 5: "five"}[len(layout)]
        raise InvalidArgumentError(f"{argument} is a positive int, [{letters}] or {words} ints, got {value!r}")
    return tuple(int(size) for size in sizes)


def spatial_padding(padding: Any, layout: str) -> str | Pads:
    """Return "SAME", "VALID", or one pair for each spatial axis."""
    if isinstance(padding, str):
        if padding.upper() in ("SAME", "VALID"):
            return padding.upper()
        raise InvalidArgumentError(f'padding is "SAME", "VALID" or explicit pairs, got {padding!r}')
    pairs = tuple(tuple(int(n) for n in pair) for pair in cast("Sequence[Sequence[int]]", padding))
    if len(pairs) == len(layout):
        if any(pair != (0, 0) for pair, axis in zip(pairs, layout, strict=True) if axis in "NC"):
            raise InvalidArgumentError(f"batch and channels cannot be padded, got {padding!r} in {layout}")
        pairs = tuple(pair for pair, axis in zip(pairs, layout, strict=True) if axis not in "NC")
    if len(pairs) != len(layout) - 2 or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        form = {1: "[[left, right]]", 2: "[[top, bottom], [left, right]]"}.get(
            len(layout) - 2, "[[front, back], [top, bottom], [left, right]]"
        )
        raise InvalidArgumentError(f"explicit padding is {form}, got {padding!r}")
    return cast(Pads, pairs)


def static_pads(padding: str | Pads, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> Pads:
    """Return how much is padded before and after each spatial axis.

    Args:
      padding: what `spatial_padding` returned.
      sizes: the input's sizes.
      reach: the window's sizes, with its dilation.
      strides: the window's steps.
    """
    if not isinstance(padding, str):
        return padding
    if padding == "VALID":
        return ((0, 0),) * len(sizes)
    totals = [
        max((-(-size // stride) - 1) * stride + width - size, 0)
        for size, width, stride in zip(sizes, reach, strides, strict=True)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def check_fits(op: str, padding: str | Pads, sizes: Sequence[int], reach: Sequence[int], layout: str) -> None:
    """Refuse a window that is larger than what it slides over."""
    if padding == "SAME":
        return
    pads = ((0, 0),) * len(sizes) if isinstance(padding, str) else padding
    axes = [axis for axis in layout if axis not in "NC"]
    for axis, size, width, pad in zip(axes, sizes, reach, pads, strict=True):
        if size + sum(pad) < width:
            raise InvalidArgumentError(
                f"{op}: Negative dimension size caused by subtracting {width} from {size + sum(pad)}: the window is "
                f'larger than the {_NAMES[axis]} of the input. Use a smaller window, or padding="SAME".'
            )


def window(op: str, x: jax.Array, ksize: Any, strides: Any, padding: Any, layout: str) -> Window:
    """Return a pooling window over all axes, after a check that it fits into the input."""

    def spread(sizes: Sequence[Any], other: Any) -> tuple[Any, ...]:
        parts = iter(sizes)
        return tuple(other if axis in "NC" else next(parts) for axis in layout)

    size, pads = spatial(ksize, "ksize", layout), spatial_padding(padding, layout)
    check_fits(op, pads, [x.shape[i] for i in spatial_axes(layout)], size, layout)
    return Window(
        spread(size, 1),
        spread(spatial(strides, "strides", layout), 1),
        pads if isinstance(pads, str) else spread(pads, (0, 0)),
    )

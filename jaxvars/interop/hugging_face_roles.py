"""What a variable is to its layer, and how PyTorch and Flax call and lay out the same thing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxvars.rules import ValueTransform, reshape, transpose

__all__ = ["ROLES", "Role", "role_of"]

_Shape = Sequence[int]
_Layout = Callable[[_Shape], ValueTransform | None]


def _as_here(shape: _Shape) -> None:
    del shape


def _inputs_last(shape: _Shape) -> ValueTransform | None:
    """``[outputs, inputs, ...]``, PyTorch's order of dense and convolution kernels, into ``[..., inputs, outputs]``."""
    return transpose(*range(2, len(shape)), 1, 0) if len(shape) > 1 else None


def _outputs_first(shape: _Shape) -> ValueTransform | None:
    rank = len(shape)
    return transpose(rank - 1, rank - 2, *range(rank - 2)) if rank > 1 else None


def _depthwise_here(shape: _Shape) -> ValueTransform:
    return transpose(2, 3, 0, 1) >> reshape(*shape)


def _depthwise_flat(shape: _Shape) -> ValueTransform:
    return reshape(*shape[:2], 1, math.prod(shape[2:]))


def _depthwise_there(shape: _Shape) -> ValueTransform:
    return _depthwise_flat(shape) >> transpose(3, 2, 0, 1)


def _shaped_here(shape: _Shape) -> ValueTransform | None:
    return None if len(shape) == 2 else reshape(*shape)


def _matrix(shape: _Shape) -> ValueTransform | None:
    return None if len(shape) == 2 else reshape(*shape[-2:])


def _turned(shape: _Shape) -> ValueTransform:
    return transpose(1, 0) if len(shape) == 2 else transpose(1, 0) >> reshape(*shape)


class Role(NamedTuple):
    """What PyTorch and Flax make of one kind of variable.

    Attributes:
      torch: the last part of the name in PyTorch; the first is written, the others are found in files too. "" where the
        name of the module is all.
      flax: the last part of the name in Flax.
      from_torch: shape here -> the transform of PyTorch's values, None for none.
      to_torch: its inverse, of the same shape.
      from_flax: as `from_torch`, of Flax's values.
      averaged: whether it is an average, which Flax keeps in ``batch_stats``.
    """

    torch: tuple[str, ...]
    flax: str
    from_torch: _Layout = _as_here
    to_torch: _Layout = _as_here
    from_flax: _Layout = _as_here
    averaged: bool = False


# Google's first BERT files call scale and offset gamma and beta in PyTorch too.
ROLES = {
    "kernel": Role(("weight",), "kernel", _inputs_last, _outputs_first),
    "transposed_kernel": Role(("weight",), "kernel", from_flax=_turned),
    "plain_kernel": Role(("weight",), "kernel", _shaped_here, _matrix, _turned),
    "depthwise_kernel": Role(("weight",), "kernel", _depthwise_here, _depthwise_there, lambda shape: reshape(*shape)),
    "bias": Role(("bias",), "bias"),
    "gamma": Role(("weight", "gamma"), "scale"),
    "beta": Role(("bias", "beta"), "bias"),
    "moving_mean": Role(("running_mean",), "mean", averaged=True),
    "moving_variance": Role(("running_var",), "var", averaged=True),
    "embedding": Role(("weight", ""), "embedding"),
    "parameter": Role(("", "weight"), ""),
}

_BY_LAST_PART = (
    ("kernel|weights?|w", "kernel"),
    ("depthwise_(kernel|weights)", "depthwise_kernel"),
    ("bias|biases|b", "bias"),
    ("gamma|scale|g", "gamma"),
    ("beta|offset", "beta"),
    ("moving_mean", "moving_mean"),
    ("moving_variance", "moving_variance"),
    (".*embeddings?", "embedding"),
)


def role_of(name: str) -> str:
    """Return the role that the last part of a variable's name tells.

    Example:
      >>> [role_of(name) for name in ("fc/kernel", "bn/moving_mean", "words/embedding", "cls_token")]
      ['kernel', 'moving_mean', 'embedding', 'parameter']
    """
    last = name.rpartition("/")[2]
    return next((role for pattern, role in _BY_LAST_PART if re.fullmatch(pattern, last)), "parameter")

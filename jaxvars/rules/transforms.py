"""What a rule may do to values between file and variable, as values themselves: printed, joined, asked for shapes.

Each works on NumPy and on JAX arrays. One that is given a list of arrays (a rule that names several tensors) is applied
to each of them, but for `stack` and `concat`, which make one array of the list.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError
from jaxvars.rules import steps
from jaxvars.rules.steps import ValueTransform

__all__ = [
    "cast",
    "concat",
    "pad",
    "reshape",
    "slice",
    "split",
    "stack",
    "transpose",
    "unstack",
]


def transpose(*axes: int) -> ValueTransform:
    """Return the transform that permutes axes (`numpy.transpose`); without arguments it reverses them.

    Args:
      *axes: for each axis of the result the axis it comes from.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> jv.rules.transpose(2, 3, 1, 0)(np.ones((32, 16, 5, 5))).shape    # a PyTorch convolution's kernel
      (5, 5, 16, 32)
    """
    return steps.Transpose(tuple(operator.index(axis) for axis in axes))


def reshape(*shape: int) -> ValueTransform:
    """Return the transform that gives another shape, row by row.

    Args:
      *shape: the new shape, in which one size may be -1; without arguments the shape of the variable.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> jv.rules.reshape(768, -1)(np.ones((768, 12, 64))).shape
      (768, 768)
    """
    return steps.Reshape(tuple(operator.index(dim) for dim in shape) or None)


def stack(axis: int = 0) -> ValueTransform:
    r"""Return the transform that stacks several tensors of one shape along a new axis.

    The rule names the tensors: N layers of a file into one variable, for a model that scans over its layers.

    Args:
      axis: where the new axis is in the result.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> rule = (r"layers/(.*)", [rf"layer_{i}/\1" for i in range(12)], jv.rules.stack())
      >>> rule[2]([np.ones((4, 3))] * 12).shape
      (12, 4, 3)
    """
    return steps.Stack(operator.index(axis))


def unstack(index: int | str, axis: int = 0) -> ValueTransform:
    r"""Return the transform that takes one entry along an axis: one layer of a stacked tensor.

    Args:
      index: which one; a text is filled in from the rule's match first.
      axis: the axis, which is gone in the result.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> rule = (r"layer_(\d+)/(.*)", r"layers/\2", jv.rules.unstack(r"\1"))
      >>> jv.rules.unstack(3)(np.ones((12, 4, 3))).shape
      (4, 3)
    """
    return steps.Unstack(index if isinstance(index, str) else operator.index(index), operator.index(axis))


def concat(axis: int = 0) -> ValueTransform:
    r"""Return the transform that joins several tensors along an axis: query, key and value into one kernel.

    Args:
      axis: the axis.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> rule = (r"(.*)/qkv/kernel", [rf"\1/{x}/kernel" for x in ("query", "key", "value")], jv.rules.concat(axis=1))
      >>> rule[2]([np.ones((8, 4))] * 3).shape
      (8, 12)
    """
    return steps.Concat(operator.index(axis))


def split(sections: int | Sequence[int], index: int | str, axis: int = 0) -> ValueTransform:
    r"""Return the transform that cuts a tensor along an axis and takes one piece, the inverse of `concat`.

    Args:
      sections: how many equal pieces, or the sizes of all pieces.
      index: which piece; a text is filled in from the rule's match first.
      axis: the axis.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> rule = (r"(.*)/query/kernel", r"\1/qkv/kernel", jv.rules.split(3, 0, axis=1))
      >>> rule[2](np.ones((8, 12))).shape
      (8, 4)
    """
    sizes = operator.index(sections) if not isinstance(sections, Sequence) else tuple(map(operator.index, sections))
    if (sizes if isinstance(sizes, int) else len(sizes)) < 1:
        raise InvalidArgumentError(f"split({sections!r}, ...): at least one piece.")
    return steps.Split(sizes, index if isinstance(index, str) else operator.index(index), operator.index(axis))


def slice(start: int, stop: int | None = None, axis: int = 0) -> ValueTransform:
    """Return the transform that takes a range along an axis, as Python slices do: a smaller vocabulary.

    Args:
      start: the first index; negative ones count from the end.
      stop: the index after the last one, None for the end.
      axis: the axis.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> jv.rules.slice(0, 1000)(np.ones((1001, 64))).shape
      (1000, 64)
    """
    return steps.Slice(operator.index(start), None if stop is None else operator.index(stop), operator.index(axis))


def pad(fill: float | str = 0, seed: int = 0) -> ValueTransform:
    """Return the transform that makes a tensor as large as the variable, new entries at the ends: vocabulary growth.

    Args:
      fill: what the new entries are: a number, or ``"initializer"``: the variable's own value where it has one, else
        what its initializer gives with this seed, as ``model.init(seed, ...)`` would.
      seed: for ``fill="initializer"``.

    Example:
      >>> import tempfile, numpy as np, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> old = jv.Variables({"words": np.ones((3, 2), np.float32)})
      >>> path = jv.checkpoint.save(old, folder.name + "/old.npz")
      >>> new = jv.Variables({"words": np.full((4, 2), 7, np.float32)})
      >>> rules = [("words", "words", jv.rules.pad(fill="initializer"))]
      >>> print(jv.checkpoint.restore(path, new, rules=rules)["words"][2:])
      [[1. 1.]
       [7. 7.]]
      >>> folder.cleanup()
    """
    if isinstance(fill, str) and fill != "initializer":
        raise InvalidArgumentError(f'pad(fill={fill!r}): a number, or "initializer".')
    return steps.Pad(fill, operator.index(seed))


def cast(dtype: Any) -> ValueTransform:
    """Return the transform that converts to a dtype; integers that do not fit raise.

    Args:
      dtype: the dtype, such as ``"bfloat16"``.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> jv.rules.cast("bfloat16")(np.ones(3)).dtype
      dtype(bfloat16)
    """
    return steps.Cast(jnp.dtype(dtype).name)

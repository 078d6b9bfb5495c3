"""Initial values of partitioned variables: which initializers make the whole at once, and which slice by slice.

TF1 calls an initializer once per slice, with the slice's shape and ``partition_info``, and scales by the fans of the
whole. Here the value is one array:

* Zeros, ones, identity, values, and random numbers that are independent of each other (with the fans of the whole) are
  made at once. The distribution is TF1's, and the bits are those of the variable without a partitioner: cutting a
  variable into other slices changes no value.
* `constant`, `orthogonal`, and random initializers with a ``seed`` are run per slice, as the result is another: the
  constants begin anew in each slice, each slice is orthogonal, equal seeds make equal slices.
* TF1-style functions ``(shape, dtype, partition_info)`` are called per slice. JAX-style ones ``(key, shape, dtype)``
  are called once, as they could not know the whole's fans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars._arguments import value_as_array
from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers._base import DType, Initializer, Shape
from jaxvars.initializers._calling import Adapted, instantiate
from jaxvars.initializers._normalize import Normalized, as_initializer, needs_key
from jaxvars.initializers.constants import Constant
from jaxvars.initializers.matrices import Orthogonal
from jaxvars.initializers.random import FloatInitializer, draw
from jaxvars.scopes.slicing import Part, PartitionInfo, Partitioning

__all__ = ["InSlices", "sliced_initializer"]


def sliced_initializer(initializer: Any, partitioning: Partitioning, dtype: Any, name: str) -> Normalized:
    """Turn what a user passed as ``initializer=`` of a partitioned variable into one that makes the whole.

    Args:
      initializer: None or a callable; constants are cut by the caller.
      partitioning: the slices.
      dtype: the variable's.
      name: the variable, for errors.

    Returns:
      The initializer of the whole, with its shape and dtype.

    Raises:
      InvalidArgumentError, InvalidTypeError: as `as_initializer`, for a slice of the variable.

    Example:
      >>> import jaxvars as jv
      >>> made = sliced_initializer(jv.constant_initializer([1, 2]), Partitioning((4,), (2,)), "float32", "w")
      >>> made.initializer(None, (4,)).tolist()
      [1.0, 2.0, 1.0, 2.0]
    """
    made = instantiate(initializer, name)
    shapes = dict.fromkeys(part.shape for part in partitioning.parts)
    # At most two: the first slices may be longer by 1. Each is checked as TF1 checks it.
    normalized, *_ = [as_initializer(made, shape, dtype, name) for shape in shapes]
    function = normalized.initializer
    if isinstance(function, Constant):
        function = _ConstantInSlices(function, partitioning)
    elif _is_run_per_slice(function):
        function = InSlices(function, partitioning)
    return Normalized(function, partitioning.shape, normalized.dtype)


def _is_run_per_slice(function: Callable[..., Any]) -> bool:
    if isinstance(function, Initializer):
        return isinstance(function, Orthogonal) or (function.draws and not function.needs_key)
    return isinstance(function, Adapted) and not function.needs_key


@dataclass(frozen=True)
class InSlices:
    """An initializer of the whole that runs another one for each slice, and joins what that returns.

    Args:
      function: the initializer, ``(key, shape, dtype)``.
      partitioning: the slices.
    """

    function: Callable[..., Any]
    partitioning: Partitioning
    is_joint: ClassVar[bool] = True

    @property
    def needs_key(self) -> bool:
        """Whether the values are random."""
        return needs_key(self.function)

    def __call__(self, key: jax.Array | None, shape: Shape, dtype: DType) -> Any:
        """Make the whole."""
        made = [self._slice(key, number, dtype) for number in range(len(self.partitioning.parts))]
        join = jnp.concatenate if any(isinstance(value, jax.Array) for value in made) else np.concatenate
        return join(made, axis=self.partitioning.axis)

    def _slice(self, key: jax.Array | None, number: int, dtype: DType) -> Any:
        part = self.partitioning.parts[number]
        own = jax.random.fold_in(key, number) if key is not None and self.needs_key else None
        value = value_as_array(_run(self.function, own, part, self.partitioning.shape, dtype))
        if tuple(value.shape) != part.shape:
            raise InvalidArgumentError(
                f"for slice part_{number}, of shape {part.shape}, it returned shape {tuple(value.shape)}."
            )
        return value

    def __repr__(self) -> str:
        return f"{self.function!r}, run for each of {len(self.partitioning.parts)} slices,"


def _run(function: Callable[..., Any], key: Any, part: Part, whole: Shape, dtype: DType) -> Any:
    if isinstance(function, Adapted):
        return function(key, part.shape, dtype, PartitionInfo(list(whole), list(part.offset)))
    if isinstance(function, FloatInitializer) and not isinstance(function, Orthogonal):
        return draw(function.draw_for(whole), function._key(key), part.shape, dtype)
    return function(key, part.shape, dtype)


@dataclass(frozen=True, repr=False)
class _ConstantInSlices(Initializer):
    """The elements of a `constant` initializer, laid into each slice anew."""

    constant: Constant
    partitioning: Partitioning
    spelling: ClassVar[str] = "jv.initializers.constant"

    def __post_init__(self) -> None:
        """Nothing to settle: the constant is checked already."""

    @property
    def dtype(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The constant's own."""
        return self.constant.dtype

    def constant_value(self, shape: Shape, dtype: DType) -> np.ndarray[Any, Any]:
        """The whole, of which each slice begins with the first element."""
        parts = [self.constant.constant_value(part.shape, dtype) for part in self.partitioning.parts]
        return np.concatenate(parts, axis=self.partitioning.axis)

    def __repr__(self) -> str:
        return repr(self.constant)

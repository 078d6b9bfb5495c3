"""What is known of a variable before it has a value: `VariableSpec`, and `Hole`, in place of the value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

__all__ = [
    "DEFAULT_COLLECTIONS",
    "Hole",
    "VariableSpec",
    "is_hole",
    "leaf_dtype",
    "leaf_nbytes",
    "leaf_shape",
    "leaf_size",
]

Initializer: TypeAlias = Callable[[Any, tuple[int, ...], Any], Any]
Constraint: TypeAlias = Callable[[Any], Any]
Placement: TypeAlias = str | PartitionSpec | None

# The strings behind GraphKeys of the same names.
GLOBAL_VARIABLES = "variables"
LOCAL_VARIABLES = "local_variables"
TRAINABLE_VARIABLES = "trainable_variables"
_INTS = frozenset({int})
DEFAULT_COLLECTIONS: tuple[str, ...] = (GLOBAL_VARIABLES, TRAINABLE_VARIABLES)


@dataclasses.dataclass(frozen=True, slots=True)
class VariableSpec:
    """The static description of one variable; hashable, holds no array.

    Attributes:
      key: the name in `Variables`, in checkpoints and in rules, such as ``"conv1/weights"``.
      shape: the shape.
      dtype: the dtype, a `numpy.dtype` (or an extended JAX dtype for random keys).
      trainable: whether optimizers and `jv.grad` touch it.
      collections: names of the collections it belongs to.
      placement: a device string or a `PartitionSpec`. A note: not compared.
      defined_at: ``"file.py:line"`` of the first definition. A note: not compared.
      constraint: applied by optimizers after each update, or None.
      file_dtype: the dtype in the checkpoint that the value came from, where JAX's is narrower (``"int64"``); files of
        other programs are written in it again. "" where it is the same. A note: not compared.
      partition: (axis, number of slices) that a partitioner chose, or None. A note: not compared.

    Example:
      >>> from jaxvars.spec import VariableSpec
      >>> spec = VariableSpec("conv1/weights", (5, 5, 1, 32), "float32")
      >>> spec.name, spec.dtype, spec.size, spec.nbytes
      ('conv1/weights:0', dtype('float32'), 800, 3200)
    """

    key: str
    shape: tuple[int, ...]
    dtype: Any
    trainable: bool = True
    collections: tuple[str, ...] = DEFAULT_COLLECTIONS
    placement: Placement = dataclasses.field(default=None, compare=False)
    defined_at: str = dataclasses.field(default="", compare=False)
    constraint: Constraint | None = None
    file_dtype: str = dataclasses.field(default="", compare=False)
    partition: tuple[int, int] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        # Most specs are made from checked parts, ten thousand at a time.
        if type(self.shape) is not tuple or not _INTS.issuperset(map(type, self.shape)):
            object.__setattr__(self, "shape", tuple(int(dim) for dim in self.shape))
        if not isinstance(self.dtype, np.dtype) and not jnp.issubdtype(self.dtype, jax.dtypes.extended):
            object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if type(self.collections) is not tuple:
            object.__setattr__(self, "collections", tuple(self.collections))

    @property
    def name(self) -> str:
        """TF1's name of the variable: the key with ``:0``."""
        return f"{self.key}:0"

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * int(self.dtype.itemsize)


class Hole(jax.ShapeDtypeStruct):
    """The value of an uninitialized variable: a shape, a dtype, and the initializer that will fill it.

    A plain `jax.ShapeDtypeStruct` is a hole too, one without initializer. Two holes are equal when their
    shape, dtype and sharding are, as for `jax.ShapeDtypeStruct`.

    Args:
      shape: the shape.
      dtype: the dtype.
      sharding: where the value will be placed, or None.
      initializer: ``(key, shape, dtype) -> array``, or None.

    Example:
      >>> from jaxvars.spec import Hole
      >>> hole = Hole((2, 3), "float32")
      >>> hole.shape, hole.initializer is None
      ((2, 3), True)
    """

    __slots__ = ("initializer",)
    initializer: Initializer | None

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        *,
        sharding: Any = None,
        initializer: Initializer | None = None,
        **more: Any,
    ) -> None:
        super().__init__(shape, dtype, sharding=sharding, **more)
        object.__setattr__(self, "initializer", initializer)

    def update(self, **changes: Any) -> Hole:
        """Return a hole with some of shape, dtype, sharding and initializer replaced."""
        known: dict[str, Any] = {
            "shape": self.shape,
            "dtype": self.dtype,
            "sharding": self.sharding,
            "initializer": self.initializer,
        }
        return Hole(**{**known, **changes})

    def __reduce__(self) -> Any:
        return _make_hole, (self.shape, self.dtype, self.sharding, self.initializer)


def _make_hole(shape: Any, dtype: Any, sharding: Any, initializer: Any) -> Hole:
    return Hole(shape, dtype, sharding=sharding, initializer=initializer)


def is_hole(value: object) -> bool:
    """Return whether `value` stands for a variable without a value."""
    return isinstance(value, jax.ShapeDtypeStruct)


def leaf_shape(leaf: Any) -> tuple[int, ...]:
    """Return the shape of an array, tracer, hole or anything that a tree map put in a variable's place."""
    shape = getattr(leaf, "shape", None)
    return shape if isinstance(shape, tuple) else ()


def leaf_dtype(leaf: Any) -> Any:
    """Return the dtype of an array, tracer, hole or scalar; object for what has none (None, a string)."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None:
        return dtype
    if isinstance(leaf, bool | int | float | complex):
        return np.dtype(type(leaf))
    return np.dtype(object)


def leaf_size(leaf: Any) -> int:
    """Number of elements; 0 for what a tree map put there that is no number (a label, None)."""
    return 0 if leaf_dtype(leaf) == np.dtype(object) else math.prod(leaf_shape(leaf))


def leaf_nbytes(leaf: Any) -> int:
    """Size in bytes of one copy of the value, sharded or not, with or without a buffer."""
    return leaf_size(leaf) * int(leaf_dtype(leaf).itemsize)

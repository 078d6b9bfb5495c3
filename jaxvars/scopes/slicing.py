"""Slicing: what a partitioner is asked, what TF1 makes of its answer, and where the slices of a variable lie.

A partitioner is called as ``partitioner(shape=..., dtype=...)`` and returns one count per axis, of which at most
one may exceed 1. Partitioners written for TF1 find what they use: `FullShape` answers as a ``tf.TensorShape``,
`ElementType` as a ``tf.DType``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "Dimension",
    "ElementType",
    "FullShape",
    "Part",
    "PartitionInfo",
    "Partitioner",
    "Partitioning",
    "call_partitioner",
]

Partitioner: TypeAlias = Callable[..., Sequence[int]]


class Dimension(int):
    """A dimension: an int that also answers TF1's ``.value``."""

    __slots__ = ()

    @property
    def value(self) -> int:
        """The dimension as a plain int."""
        return int(self)


class FullShape(tuple[Dimension, ...]):
    """The shape that a partitioner is given: a tuple of ints that answers as a ``tf.TensorShape`` does.

    Example:
      >>> shape = FullShape([4, 2])
      >>> shape.as_list(), shape.ndims, shape[0].value, shape.num_elements()
      ([4, 2], 2, 4, 8)
    """

    __slots__ = ()

    def __new__(cls, dims: Iterable[int]) -> FullShape:
        """Make a shape of known dimensions."""
        return super().__new__(cls, map(Dimension, dims))

    @property
    def dims(self) -> list[Dimension]:
        """The dimensions."""
        return list(self)

    @property
    def ndims(self) -> int:
        """The number of dimensions."""
        return len(self)

    rank = ndims

    def as_list(self) -> list[int]:
        """Return the dimensions as plain ints."""
        return [int(dim) for dim in self]

    def num_elements(self) -> int:
        """Return the number of elements."""
        return math.prod(self)

    def is_fully_defined(self) -> bool:
        """Return True: a variable's shape is known."""
        return True


class ElementType:
    """The dtype that a partitioner is given: the variable's own, which also answers as a ``tf.DType`` does.

    Args:
      dtype: a dtype with ``name`` and ``itemsize``.

    Attributes:
      dtype: that dtype.
    """

    __slots__ = ("dtype",)

    def __init__(self, dtype: Any) -> None:
        self.dtype: Any = dtype

    @property
    def size(self) -> int:
        """Bytes per element."""
        return int(self.dtype.itemsize)

    @property
    def base_dtype(self) -> ElementType:
        """Itself: TF1's variables had a reference to a dtype."""
        return self

    @property
    def as_numpy_dtype(self) -> Any:
        """The scalar type."""
        return self.dtype.type

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dtype, name)

    def __eq__(self, other: object) -> bool:
        return self.dtype == (other.dtype if isinstance(other, ElementType) else other)

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return repr(self.dtype)


class Part(NamedTuple):
    """Where one slice lies in the whole."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def where(self) -> tuple[slice, ...]:
        """The index that cuts the slice out of the whole."""
        return tuple(slice(start, start + size) for start, size in zip(self.offset, self.shape, strict=True))


@dataclass(frozen=True)
class Partitioning:
    """A shape, cut into slices along at most one axis; the first slices are longer by 1 where it does not divide.

    Args:
      shape: the shape of the whole.
      partitions: how many slices along each axis, as `call_partitioner` returns them.

    Example:
      >>> [part.shape for part in Partitioning((5, 2), (3, 1)).parts]
      [(2, 2), (2, 2), (1, 2)]
    """

    shape: tuple[int, ...]
    partitions: tuple[int, ...]

    @property
    def axis(self) -> int:
        """The axis that is cut; 0 where none is."""
        return next((axis for axis, count in enumerate(self.partitions) if count > 1), 0)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The slices, in order."""
        axis, count = self.axis, self.partitions[self.axis]
        size, longer = divmod(self.shape[axis], count)
        parts: list[Part] = []
        start = 0
        for i in range(count):
            length = size + (i < longer)
            parts.append(Part(_with(axis, (0,) * len(self.shape), start), _with(axis, self.shape, length)))
            start += length
        return tuple(parts)


def _with(axis: int, values: tuple[int, ...], value: int) -> tuple[int, ...]:
    return (*values[:axis], value, *values[axis + 1 :])


class PartitionInfo:
    """Which slice an initializer makes: what TF1 passes as ``partition_info``.

    Args:
      full_shape: the shape of the whole.
      var_offset: where the slice begins, per axis.

    Raises:
      InvalidTypeError: an argument is not a list or tuple.
      InvalidArgumentError: they differ in length, or an offset is outside of the shape.

    Example:
      >>> info = PartitionInfo([4, 2], [2, 0])
      >>> info.single_slice_dim([2, 2]), info.single_offset([2, 2])
      (0, 2)
    """

    __slots__ = ("full_shape", "var_offset")

    def __init__(self, full_shape: list[int] | tuple[int, ...], var_offset: list[int] | tuple[int, ...]) -> None:
        _check_sequence("full_shape", full_shape)
        _check_sequence("var_offset", var_offset)
        if len(full_shape) != len(var_offset):
            raise InvalidArgumentError(
                f"Expected equal length, but `var_offset` is of length {len(var_offset)} while full_shape is of "
                f"length {len(full_shape)}."
            )
        for offset, size in zip(var_offset, full_shape, strict=True):
            if not 0 <= offset < size:
                raise InvalidArgumentError(
                    f"Expected 0 <= offset < shape but found offset={offset}, shape={size} for "
                    f"var_offset={list(var_offset)}, full_shape={list(full_shape)}."
                )
        self.full_shape: list[int] | tuple[int, ...] = full_shape
        self.var_offset: list[int] | tuple[int, ...] = var_offset

    def single_offset(self, shape: list[int] | tuple[int, ...]) -> int:
        """Return where the slice of this shape begins along the axis that is cut, 0 where none is.

        Raises:
          InvalidTypeError, InvalidArgumentError: as `single_slice_dim`.
        """
        axis = self.single_slice_dim(shape)
        return 0 if axis is None else self.var_offset[axis]

    def single_slice_dim(self, shape: list[int] | tuple[int, ...]) -> int | None:
        """Return the axis that is cut, None where a slice of this shape is the whole.

        Raises:
          InvalidTypeError: `shape` is not a list or tuple.
          InvalidArgumentError: it has another rank, exceeds the whole, or is smaller along two axes.
        """
        _check_sequence("shape", shape)
        full = list(self.full_shape)
        if len(shape) != len(full):
            raise InvalidArgumentError(
                f"Expected equal length, but received shape={list(shape)} of length {len(shape)} while "
                f"self.full_shape={full} is of length {len(full)}."
            )
        for axis, (offset, size) in enumerate(zip(self.var_offset, shape, strict=True)):
            if offset + size > full[axis]:
                raise InvalidArgumentError(
                    f"With self.var_offset={list(self.var_offset)}, a partition of shape={list(shape)} would exceed "
                    f"self.full_shape={full} in dimension {axis}."
                )
        cut = [axis for axis, size in enumerate(shape) if size != full[axis]]
        if len(cut) > 1:
            raise InvalidArgumentError(
                f"Cannot use single_slice_dim() with shape={list(shape)} and self.full_shape={full} since slice dim "
                f"could be either dimension {cut[0]} or {cut[1]}."
            )
        return cut[0] if cut else None

    def __repr__(self) -> str:
        return f"PartitionInfo(full_shape={self.full_shape}, var_offset={self.var_offset})"


def _check_sequence(name: str, value: object) -> None:
    if not isinstance(value, (list, tuple)):
        raise InvalidTypeError(f"`{name}` must be a sequence (like tuple or list) instead of {type(value).__name__}.")


def call_partitioner(partitioner: Partitioner, shape: tuple[int, ...], dtype: Any, what: str) -> Partitioning:
    """Ask a partitioner about a variable, and check its answer as TF1 does.

    Args:
      partitioner: called as ``partitioner(shape=FullShape, dtype=ElementType)``.
      shape: the variable's, fully defined.
      dtype: the variable's.
      what: the end of error texts: which variable, and where it was asked for.

    Raises:
      InvalidArgumentError: a shape of rank 0; an answer that is no sequence, of another length than the shape has
        axes, with a count below 1, with several above 1, or with more slices than the axis has rows.
      InvalidTypeError: an answer that does not consist of ints.
    """
    if not shape:
        raise InvalidArgumentError(
            f"A partitioned Variable must have rank at least 1, shape: (){what} Write shape=[] to leave a scalar whole."
        )
    answer: object = partitioner(shape=FullShape(shape), dtype=ElementType(dtype))
    counts = list(_counts(answer, what))
    if len(counts) != len(shape):
        raise InvalidArgumentError(
            f"Partitioner returned a partition list that does not match the Variable's rank: {counts} vs. {shape}{what}"
            " It returns one count per axis: [2, 1] cuts the rows of a matrix in two."
        )
    if any(count < 1 for count in counts):
        raise InvalidArgumentError(
            f"Partitioner returned zero partitions for some axes: {counts}{what} An axis that stays whole counts 1."
        )
    if sum(count > 1 for count in counts) > 1:
        raise InvalidArgumentError(
            f"Can only slice a variable along one dimension: shape: {shape}, partitioning: {counts}{what}"
        )
    partitioning = Partitioning(shape, tuple(counts))
    axis = partitioning.axis
    if counts[axis] > shape[axis]:
        raise InvalidArgumentError(
            f"Expected 0 <= offset < shape but found offset={shape[axis]}, shape={shape[axis]}: the partitioner cuts "
            f"axis {axis} of {list(shape)} into {counts[axis]} slices, more than it has rows{what}"
        )
    return partitioning


def _counts(answer: object, what: str) -> Iterator[int]:
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes):
        raise InvalidArgumentError(
            f"Partitioner must return a sequence, but saw: {answer!r}{what} It returns one count per axis: [2, 1]."
        )
    for count in cast("Sequence[Any]", answer):
        if isinstance(count, bool) or not hasattr(count, "__index__"):
            raise InvalidTypeError(f"Partitioner must return ints, but saw: {answer!r}{what}")
        yield int(count)

"""The transforms of `jv.rules` at work: how each changes values, and shapes before there are values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple
from typing import cast as typed

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "Cast",
    "Chain",
    "Concat",
    "Described",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Stack",
    "Target",
    "Transpose",
    "Unstack",
    "ValueTransform",
]

_Shape = tuple[int, ...]


class Described(NamedTuple):
    """Shape and dtype of an array that nobody has read yet."""

    shape: tuple[int, ...]
    dtype: Any


class Target(NamedTuple):
    r"""The variable that a transform works for.

    Attributes:
      key: its name.
      value: its value, or the hole in place of one.
      expand: fills the back-references (``\1``) of a text from the rule's match.
    """

    key: str
    value: Any
    expand: Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class ValueTransform:
    """Something to do to values on their way. Made by the functions of `jv.rules`, joined by ``>>``.

    Example:
      >>> import numpy as np, jaxvars as jv
      >>> both = jv.rules.transpose(1, 0) >> jv.rules.cast("float16")
      >>> both, both(np.ones((2, 3))).shape
      (transpose(1, 0) >> cast('float16'), (3, 2))
    """

    combines: ClassVar[bool] = False

    @property
    def __name__(self) -> str:
        return repr(self)

    def __call__(self, values: Any) -> Any:
        """Return what it makes of an array, or of a list of arrays."""
        return self._called(values)

    def _called(self, values: Any) -> Any:
        several = isinstance(values, list | tuple)
        if self.combines:
            return self._combined(list(typed("Sequence[Any]", values)) if several else [values])
        return [self._applied(each) for each in values] if several else self._applied(values)

    def described(self, inputs: Sequence[Described]) -> list[Described] | None:
        """Return shapes and dtypes of the results, None where they show only on real values.

        Raises:
          InvalidArgumentError: it does not work on arrays of these shapes.
        """
        return self._all_described(inputs)

    def _all_described(self, inputs: Sequence[Described]) -> list[Described] | None:
        return [self._combined_described(list(inputs))] if self.combines else [self._described(i) for i in inputs]

    def bound(self, target: Target) -> ValueTransform:
        """Return the transform with all filled in that depends on the variable it works for."""
        return self._bound(target)

    def _bound(self, target: Target) -> ValueTransform:
        del target
        return self

    def __rshift__(self, other: Callable[[Any], Any]) -> ValueTransform:
        return Chain((*_steps(self), *_steps(other)))

    def __rrshift__(self, other: Callable[[Any], Any]) -> ValueTransform:
        return Chain((*_steps(other), *_steps(self)))

    def _applied(self, array: Any) -> Any:
        raise AssertionError(self)

    def _combined(self, arrays: list[Any]) -> Any:
        raise AssertionError(self)

    def _described(self, given: Described) -> Described:
        raise AssertionError(self)

    def _combined_described(self, given: list[Described]) -> Described:
        raise AssertionError(self)


@dataclasses.dataclass(frozen=True, repr=False)
class Transpose(ValueTransform):
    """Axes in another order."""

    axes: _Shape

    def __repr__(self) -> str:
        return f"transpose({', '.join(map(str, self.axes))})"

    def _applied(self, array: Any) -> Any:
        return array.transpose(self.axes or None)

    def _described(self, given: Described) -> Described:
        axes = self.axes or tuple(range(len(given.shape)))[::-1]
        rank = len(given.shape)
        if sorted(axis % rank if rank else axis for axis in axes) != list(range(rank)):
            raise InvalidArgumentError(f"{self} does not go with shape {list(given.shape)}")
        return Described(tuple(given.shape[axis] for axis in axes), given.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Reshape(ValueTransform):
    """Another shape, row by row; without one that of the variable."""

    shape: _Shape | None

    def __repr__(self) -> str:
        return f"reshape({', '.join(map(str, self.shape or ()))})"

    def _bound(self, target: Target) -> ValueTransform:
        return Reshape(tuple(target.value.shape)) if self.shape is None else self

    def _applied(self, array: Any) -> Any:
        return array.reshape(self._described(Described(array.shape, array.dtype)).shape)

    def _described(self, given: Described) -> Described:
        if self.shape is None:
            raise InvalidArgumentError(f"{self} takes the shape of a variable that a tensor is restored into")
        size, known = math.prod(given.shape), math.prod(dim for dim in self.shape if dim >= 0)
        free = [dim for dim in self.shape if dim < 0]
        rest = size // known if known else 0
        if len(free) > 1 or min(free, default=-1) < -1 or known * (rest if free else 1) != size:
            raise InvalidArgumentError(f"{self} does not go with shape {list(given.shape)}")
        return Described(tuple(rest if dim < 0 else dim for dim in self.shape), given.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Stack(ValueTransform):
    """Several arrays along a new axis."""

    axis: int
    combines: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"stack({_axis_text(self.axis)})"

    def _combined(self, arrays: list[Any]) -> Any:
        return _numpy_of(arrays[0]).stack(arrays, self.axis)

    def _combined_described(self, given: list[Described]) -> Described:
        first = given[0]
        if any(each != first for each in given):
            raise InvalidArgumentError(f"{self} takes tensors of one shape and dtype, not {_listed(given)}")
        axis = _checked_axis(self, self.axis, len(first.shape) + 1, first.shape)
        return Described((*first.shape[:axis], len(given), *first.shape[axis:]), first.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Concat(ValueTransform):
    """Several arrays one after the other along an axis."""

    axis: int
    combines: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"concat({_axis_text(self.axis)})"

    def _combined(self, arrays: list[Any]) -> Any:
        return _numpy_of(arrays[0]).concatenate(arrays, self.axis)

    def _combined_described(self, given: list[Described]) -> Described:
        first = given[0]
        axis = _checked_axis(self, self.axis, len(first.shape), first.shape)
        rests = {(each.shape[:axis], each.shape[axis + 1 :], len(each.shape), each.dtype) for each in given}
        if len(rests) > 1:
            raise InvalidArgumentError(f"{self} takes tensors that differ only along the axis, not {_listed(given)}")
        joined = sum(each.shape[axis] for each in given)
        return Described((*first.shape[:axis], joined, *first.shape[axis + 1 :]), first.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Slice(ValueTransform):
    """A range along an axis."""

    start: int
    stop: int | None
    axis: int

    def __repr__(self) -> str:
        return f"slice({self.start}, {self.stop}{_axis_text(self.axis, ', ')})"

    def _applied(self, array: Any) -> Any:
        axis = _checked_axis(self, self.axis, array.ndim, array.shape)
        return array[(np.s_[:],) * axis + (np.s_[self.start : self.stop],)]

    def _described(self, given: Described) -> Described:
        axis = _checked_axis(self, self.axis, len(given.shape), given.shape)
        kept = len(range(given.shape[axis])[self.start : self.stop])
        return Described((*given.shape[:axis], kept, *given.shape[axis + 1 :]), given.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Unstack(ValueTransform):
    """One entry along an axis."""

    index: int | str
    axis: int

    def __repr__(self) -> str:
        return f"unstack({self.index!r}{_axis_text(self.axis, ', ')})"

    def _bound(self, target: Target) -> ValueTransform:
        return dataclasses.replace(self, index=_filled_index(self, self.index, target))

    def _applied(self, array: Any) -> Any:
        axis = _checked_axis(self, self.axis, array.ndim, array.shape)
        return array[(np.s_[:],) * axis + (_checked_index(self, self.index, array.shape[axis]),)]

    def _described(self, given: Described) -> Described:
        axis = _checked_axis(self, self.axis, len(given.shape), given.shape)
        _checked_index(self, self.index, given.shape[axis])
        return Described((*given.shape[:axis], *given.shape[axis + 1 :]), given.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Split(ValueTransform):
    """One of several pieces along an axis."""

    sections: int | _Shape
    index: int | str
    axis: int

    def __repr__(self) -> str:
        return f"split({self.sections!r}, {self.index!r}{_axis_text(self.axis, ', ')})"

    def _bound(self, target: Target) -> ValueTransform:
        return dataclasses.replace(self, index=_filled_index(self, self.index, target))

    def _piece(self, shape: _Shape) -> tuple[int, Slice]:
        axis = _checked_axis(self, self.axis, len(shape), shape)
        whole = shape[axis]
        if isinstance(self.sections, int):
            sizes = (whole // self.sections,) * self.sections
        else:
            sizes = self.sections
        if sum(sizes) != whole or min(sizes) < 0:
            raise InvalidArgumentError(f"{self} does not go with shape {list(shape)}")
        number = _checked_index(self, self.index, len(sizes))
        start = sum(sizes[:number])
        return axis, Slice(start, start + sizes[number], axis)

    def _applied(self, array: Any) -> Any:
        return self._piece(array.shape)[1](array)

    def _described(self, given: Described) -> Described:
        return self._piece(given.shape)[1]._described(given)


@dataclasses.dataclass(frozen=True, repr=False)
class Pad(ValueTransform):
    """As large as the variable, new entries at the ends."""

    fill: float | str
    seed: int
    target: Target | None = dataclasses.field(default=None, compare=False)

    def __repr__(self) -> str:
        arguments = [repr(self.fill) if self.fill else "", f"seed={self.seed}" if self.seed else ""]
        return f"pad({', '.join(filter(None, arguments))})"

    def _bound(self, target: Target) -> ValueTransform:
        return dataclasses.replace(self, target=target)

    def _applied(self, array: Any) -> Any:
        shape = self._described(Described(array.shape, array.dtype)).shape
        if self.fill != "initializer":
            widths = [(0, new - old) for old, new in zip(array.shape, shape, strict=True)]
            return _numpy_of(array).pad(array, widths, constant_values=np.asarray(self.fill).astype(array.dtype))
        whole = np.array(self._own_values(), array.dtype)
        whole[tuple(np.s_[:dim] for dim in array.shape)] = array
        return whole

    def _own_values(self) -> Any:
        assert self.target is not None
        key, value, _ = self.target
        if isinstance(value, jax.ShapeDtypeStruct):
            from jaxvars.filling import fill

            return fill({key: value}, self.seed)[key]
        return value

    def _described(self, given: Described) -> Described:
        if self.target is None:
            raise InvalidArgumentError(f"{self} makes a tensor as large as a variable that it is restored into")
        shape = tuple(self.target.value.shape)
        if len(shape) != len(given.shape) or any(new < old for old, new in zip(given.shape, shape, strict=True)):
            raise InvalidArgumentError(f"{self} cannot make {list(shape)} of shape {list(given.shape)}")
        return Described(shape, given.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Cast(ValueTransform):
    """Another dtype."""

    dtype: str

    def __repr__(self) -> str:
        return f"cast({self.dtype!r})"

    def _applied(self, array: Any) -> Any:
        dtype = jnp.dtype(self.dtype)
        if isinstance(array, jax.Array):
            if jax.dtypes.canonicalize_dtype(dtype) != dtype:
                raise InvalidArgumentError(
                    f'{self} needs 64-bit JAX here. Write: jax.config.update("jax_enable_x64", True)'
                )
            return array.astype(dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            result = array.astype(dtype)
        whole = jnp.issubdtype(array.dtype, np.integer) and jnp.issubdtype(dtype, np.integer)
        if whole and not (bool((result.astype(array.dtype) == array).all()) and ((result < 0) == (array < 0)).all()):
            raise InvalidArgumentError(f"{self}: a value of the {array.dtype} tensor does not fit")
        return result

    def _described(self, given: Described) -> Described:
        return Described(given.shape, jnp.dtype(self.dtype))


@dataclasses.dataclass(frozen=True, repr=False)
class Chain(ValueTransform):
    """One step after the other."""

    steps: tuple[Callable[[Any], Any], ...]

    def __repr__(self) -> str:
        return " >> ".join(_step_text(step) for step in self.steps)

    def _called(self, values: Any) -> Any:
        for step in self.steps:
            values = step(values)
        return values

    def _all_described(self, inputs: Sequence[Described]) -> list[Described] | None:
        now: list[Described] | None = list(inputs)
        for step in self.steps:
            now = step.described(now) if isinstance(step, ValueTransform) and now is not None else None
        return now

    def _bound(self, target: Target) -> ValueTransform:
        return Chain(tuple(s.bound(target) if isinstance(s, ValueTransform) else s for s in self.steps))


def _steps(transform: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], ...]:
    if not callable(transform):
        raise InvalidTypeError(f"A transform is joined with a transform or a function, not {transform!r:.60}")
    return transform.steps if isinstance(transform, Chain) else (transform,)


def _step_text(step: Callable[[Any], Any]) -> str:
    return repr(step) if isinstance(step, ValueTransform) else getattr(step, "__name__", repr(step))


def _axis_text(axis: int, before: str = "") -> str:
    return f"{before}axis={axis}" if axis else ""


def _listed(given: Sequence[Described]) -> str:
    return ", ".join(f"{each.dtype} {list(each.shape)}" for each in given[:6]) + (", ..." if len(given) > 6 else "")


def _numpy_of(array: Any) -> Any:
    return jnp if isinstance(array, jax.Array) else np


def _checked_axis(transform: ValueTransform, axis: int, rank: int, shape: _Shape) -> int:
    if not -rank <= axis < rank:
        raise InvalidArgumentError(f"{transform} does not go with shape {list(shape)}: there is no axis {axis}")
    return axis % rank


def _checked_index(transform: ValueTransform, index: int | str, count: int) -> int:
    if isinstance(index, str):
        raise InvalidArgumentError(f"{transform}: the index {index!r} is filled in from the match of a rule's pattern")
    if not -count <= index < count:
        raise InvalidArgumentError(f"{transform}: there are only {count}")
    return index % count


def _filled_index(transform: ValueTransform, index: int | str, target: Target) -> int:
    text = target.expand(index) if isinstance(index, str) else str(index)
    try:
        return int(text)
    except ValueError:
        raise InvalidArgumentError(f"{transform}: {text!r}, from the name {target.key}, is no number") from None

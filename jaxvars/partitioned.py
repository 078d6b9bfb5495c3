"""`PartitionedVariable`: one array under one name, which code may also take slice by slice, as TF1 stored it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, cast

import jax
import jax.numpy as jnp

from jaxvars._arguments import value_as_array
from jaxvars.errors import InvalidTypeError
from jaxvars.frame import Frame, Slot
from jaxvars.scopes.slicing import Part, Partitioning
from jaxvars.variable import Operation, Variable, register_handle

__all__ = ["PartitionedVariable", "Slice", "SliceConstraint", "part_slots"]


class PartitionedVariable(Variable):
    """A variable that a partitioner cut into slices. TF1: ``tf.PartitionedVariable``.

    `jv.get_variable` returns one where a partitioner applies. There is one array, under one name, in `Variables` and in
    checkpoints, as TF1's own checkpoints have it; a file written with other slices, or with none, restores as it is.
    The handle goes wherever an array goes. It is iterable over its slices, `Slice` handles with TF1's names
    ``w/part_0:0``, ``w/part_1:0``, ..., which the frame's collections list: to assign to a slice changes the whole.

    Its initial value is that of the whole: scaling initializers see the whole's fans, and random values are those of
    the variable without a partitioner. What TF1 makes differently per slice is made per slice: `constant_initializer`
    with a list, `orthogonal_initializer`, random initializers with a ``seed``, functions ``(shape, dtype)``.
    Regularizers and constraints are applied per slice too. Optimizers keep their slots under the whole name.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0) as store:
      ...     w = jv.get_variable(
      ...         "w", [4], initializer=jv.zeros_initializer(), partitioner=jv.fixed_size_partitioner(2)
      ...     )
      ...     first, second = w
      ...     _ = second.assign([1.0, 2.0])
      >>> w.name, second.name, second.shape
      ('w', 'w/part_1:0', (2,))
      >>> store.variables[w]
      Array([0., 0., 1., 2.], dtype=float32)
    """

    __slots__ = ("_slices", "partitioning")
    _slices: tuple[Slice, ...]
    partitioning: Partitioning

    def __new__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse to be called."""
        raise InvalidTypeError(
            "A PartitionedVariable is made by get_variable. Write:\n"
            "    w = jv.get_variable('w', shape, partitioner=jv.fixed_size_partitioner(2))"
        )

    @classmethod
    def over(cls, slot: Slot, parts: Sequence[PartSlot], partitioning: Partitioning) -> PartitionedVariable:
        """Return the handle of a new slot and of its slices."""
        handle = object.__new__(cls)
        handle._slot = slot
        handle.partitioning = partitioning
        handle._slices = tuple(Slice.of_part(part) for part in parts)
        slot.handle = handle
        return handle

    # Slices

    @property
    def name(self) -> str:
        """TF1's name: the key, without ``:0``."""
        return self._slot.key

    def __iter__(self) -> Iterator[Slice]:
        """Iterate over the slices."""
        return iter(self._slices)

    def __len__(self) -> int:
        """The number of slices."""
        return len(self._slices)

    def _get_variable_list(self) -> list[Slice]:
        return list(self._slices)

    def _get_partitions(self) -> list[int]:
        return list(self.partitioning.partitions)

    def as_tensor(self) -> jax.Array:
        """Return the value of the whole, as in TF1."""
        return self.value

    # Writing

    def _update(self, op: str, value: Any) -> jax.Array:
        return super()._update(op, self._joined(value))

    def _joined(self, value: Any) -> Any:
        """The whole of a list with a value for each slice, which TF1 takes too; anything else as it is."""
        if isinstance(value, PartitionedVariable):
            return value.value
        if not isinstance(value, list | tuple):
            return value
        values = cast("list[Any] | tuple[Any, ...]", value)
        if len(values) != len(self._slices):
            return value
        arrays = [value_as_array(item) for item in values]
        if [tuple(array.shape) for array in arrays] != [part.shape for part in self.partitioning.parts]:
            return value
        return jnp.concatenate(arrays, axis=self.partitioning.axis)

    def __repr__(self) -> str:
        slot = self._slot
        state = self._shown_value() if slot.frame.is_open else ", frame ended"
        cut = f"shape={slot.shape} partitions={self._get_partitions()}"
        return f"<jv.PartitionedVariable {slot.key!r} {cut} dtype={slot.dtype}{state}>"


class Slice(Variable):
    """One slice of a `PartitionedVariable`: a handle whose value is a part of the whole's.

    Reads cut it out of the whole, writes put it back. ``variables[s]`` is the slice of the whole in `variables`;
    elsewhere, in a Saver's `var_list`, in `wrt`, in rules, a slice stands for the whole, whose name is its `key`.
    """

    __slots__ = ()

    @classmethod
    def of_part(cls, slot: PartSlot) -> Slice:
        """Return a handle of this slot."""
        handle = object.__new__(cls)
        handle._slot = slot
        return handle

    @property
    def key(self) -> str:
        """The name of the whole in `Variables`, checkpoints and rules."""
        return self._part.whole.key

    @property
    def name(self) -> str:
        """TF1's name, such as ``"w/part_0:0"``."""
        return f"{self._part.key}:0"

    @property
    def op(self) -> Operation:
        """``s.op.name`` is TF1's name without ``:0``."""
        return Operation(self._part.key)

    @property
    def part(self) -> Part:
        """Where the slice lies in the whole: its offset and shape."""
        return self._part.part

    @property
    def _part(self) -> PartSlot:
        return cast(PartSlot, self._slot)

    def within(self, whole: Any) -> Any:
        """Return the part of a value of the whole that this slice is."""
        if isinstance(whole, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(self.part.shape, whole.dtype)
        return whole[self.part.where]

    def __repr__(self) -> str:
        state = "" if self._part.whole.frame.is_open else ", frame ended"
        return f"<jv.Slice {self._part.key!r} of {self.key!r} shape={self._part.shape} dtype={self.dtype}{state}>"


class PartSlot(Slot):
    """The slot of a slice: its value lives in the slot of the whole."""

    def __init__(self, whole: Slot, name: str, store_key: str, number: int, part: Part) -> None:
        self.whole = whole
        self.number = number
        self.part = part
        facts = whole.facts
        if isinstance(facts.constraint, SliceConstraint):
            facts = facts._replace(constraint=facts.constraint.function)
        super().__init__(cast(Frame, _InWhole(whole)), name, store_key, part.shape, whole.dtype, None, facts)

    @property
    def handle(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The slice's handle, found through the whole's: a reference of its own would be a circle."""
        return self.whole.handle._slices[self.number]

    @handle.setter
    def handle(self, handle: Any) -> None:
        """Nothing to keep."""


class _InWhole:
    """What a slice's handle takes for its frame: reads and writes that go to the whole."""

    __slots__ = ("whole",)

    def __init__(self, whole: Slot) -> None:
        self.whole = whole

    @property
    def is_open(self) -> bool:
        """Whether the frame is open."""
        return self.whole.frame.is_open

    def at_frame_level(self) -> Any:
        """Return a context manager under which JAX operations belong to the frame's own trace."""
        return self.whole.frame.at_frame_level()

    def check_open(self, slot: PartSlot, what: str) -> None:
        """Raise unless the frame is open."""
        self.whole.frame.check_open(slot, what)

    def read(self, slot: PartSlot) -> Any:
        """Return the current value of the slice."""
        return self.whole.frame.read(self.whole)[slot.part.where]

    def write(self, slot: PartSlot, value: Any) -> None:
        """Set the value of the slice within the whole."""
        frame = self.whole.frame
        frame.write(self.whole, frame.read(self.whole).at[slot.part.where].set(value))


def part_slots(whole: Slot, names: Sequence[str], partitioning: Partitioning) -> list[PartSlot]:
    """Return the slots of the slices of `whole`, under these names."""
    return [
        PartSlot(whole, name, f"{whole.key}/part_{number}", number, part)
        for number, (name, part) in enumerate(zip(names, partitioning.parts, strict=True))
    ]


class SliceConstraint(NamedTuple):
    """A constraint that is applied to each slice by itself, as TF1's optimizers did.

    Args:
      function: the user's constraint, ``value -> value``.
      partitioning: the slices.

    Example:
      >>> import jax.numpy as jnp
      >>> halves = SliceConstraint(lambda x: x / x.sum(), Partitioning((4,), (2,)))
      >>> print(halves(jnp.array([1.0, 1.0, 3.0, 1.0])))
      [0.5  0.5  0.75 0.25]
    """

    function: Callable[[Any], Any]
    partitioning: Partitioning

    def __call__(self, value: Any) -> Any:
        """Apply it to each slice of the whole."""
        parts = [self.function(value[part.where]) for part in self.partitioning.parts]
        return jnp.concatenate(parts, axis=self.partitioning.axis)


for _handle in (PartitionedVariable, Slice):
    register_handle(_handle)

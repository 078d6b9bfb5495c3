"""`LayerFrame`: the values of the variables of one layer, while `scan_layers` runs the body of that layer.

The body runs once, abstractly, and what it computes becomes the body of a ``lax.scan``. Meanwhile the variables of the
layer belong to this frame, whose own trace is that of the body: a read gives a stand-in for the layer's value, which
the scan replaces by a slice, and a write at the body's own level is a new value like any other, with gradients. Names,
collections and all other variables stay with the frame of the model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from jaxvars import _compat, refusals
from jaxvars.errors import TransformError
from jaxvars.frame import Frame, Slot
from jaxvars.frames import SpecsFrame

__all__ = ["LayerFrame", "advance_keys", "first_key"]


class _State(NamedTuple):
    """What of a slot is another thing inside of the body than outside."""

    frame: Frame
    shape: tuple[int, ...]
    value: Any
    ref: Any
    read_inside: bool
    written: bool


class LayerFrame(Frame):
    """See the module's docstring.

    Args:
      model: the frame of the model.
      around: the trace that `scan_layers` was called in.
      probe: the trace to make stand-ins in, around that of the body.
      sliced: ``value -> value`` of one layer, of what a variable has outside.
      layer_shape: ``shape -> shape`` that a variable has inside.
      first: the number of the first random key, a tracer of the body.
    """

    def __init__(
        self,
        model: Frame,
        around: Any,
        probe: Any,
        sliced: Callable[[Any], Any],
        layer_shape: Callable[[tuple[int, ...]], tuple[int, ...]],
        first: Any,
    ) -> None:
        super().__init__(rng=model.rng)
        self.written: set[str] = model.written
        self.trace = _compat.current_trace()
        self.is_open = True
        self.root: FrameType | None = sys._getframe(1)
        self.stand_ins: dict[Slot, Any] = {}
        self._model = model
        self._seen = model._seen
        self._around = around
        self._probe = probe
        self._sliced = sliced
        self._layer_shape = layer_shape
        self._first = first
        self._discards = isinstance(model, SpecsFrame)
        self._outside: dict[Slot, _State] = {}

    # Whose a variable is

    def adopt(self, slot: Slot) -> None:
        """Take a variable of the layer over."""
        if slot not in self._outside:
            self._outside[slot] = _state(slot)
            _restore(slot, _State(self, self._layer_shape(slot.shape), None, None, False, False))

    def release(self) -> None:
        """End the frame: give all variables back as they were."""
        for slot, state in self._outside.items():
            _restore(slot, state)
        self._outside.clear()
        self.stand_ins.clear()
        self.is_open = False
        self._key_ref = self.root = self.trace = self.rng = self._first = None
        self._around = self._probe = None

    @contextmanager
    def given_back(self, slot: Slot | None) -> Generator[None]:
        """Give a variable back for as long as the block lasts."""
        if slot is None or slot not in self._outside:
            yield
            return
        inside = _state(slot)
        _restore(slot, self._outside[slot])
        try:
            yield
        finally:
            self._outside[slot] = _state(slot)
            _restore(slot, inside)

    def results(self) -> dict[Slot, Any]:
        """Return the values that the body wrote, as they are at its end."""
        written = [slot for slot in self._outside if slot.written]
        return {slot: slot.value if slot.ref is None else slot.ref[...] for slot in written}

    # Values

    def touch(self, skip: int = 2) -> None:
        """Names are the model's."""
        self._model.touch(skip + 1)

    def _is_outside(self) -> bool:
        """Whether the running code computes for the frame of the model: an initial value, a regularization loss."""
        now = _compat.current_trace()
        return now is not self.trace and all(t is not self.trace for t in _compat.enclosing_traces(now, None))

    def read(self, slot: Slot) -> Any:
        """Return the value of the layer; outside of the body that of the variable it runs for."""
        if self._is_outside():
            with self.given_back(slot):
                return slot.frame.read(slot)
        self._stand_in(slot)
        return super().read(slot)

    def _stand_in(self, slot: Slot) -> None:
        """Make the stand-in for a value that is neither read nor written yet."""
        if slot.value is not None or slot.ref is not None:
            return
        with _compat.set_current_trace(self._around), self.given_back(slot):
            value = slot.frame.read(slot)
        with _compat.set_current_trace(self._probe):
            slot.value = self.stand_ins[slot] = self._sliced(value)

    def write(self, slot: Slot, value: Any) -> None:
        """Set the value of the layer."""
        self.check_open(slot, "assign")
        if not self._discards:
            super().write(slot, value)
            return
        # As in all specs, only that it is written counts.
        if _compat.current_trace() is not self.trace:
            self.touch()
            refusals.check_inner_write(self, slot)
            self.written.add(slot.key)
        elif _compat.is_leaked(value, self.trace):
            raise TransformError(refusals.leaked(slot))
        self._stand_in(slot)
        slot.written = True

    def _learn_write(self, slot: Slot) -> None:
        self._model._learn_write(slot)

    def _back_by_ref(self, slot: Slot) -> None:
        if not self._discards:
            self._stand_in(slot)
            super()._back_by_ref(slot)

    # Random keys

    def next_key(self, stream: str | None, axis_name: Any) -> Any:
        """Return a fresh random key: that which a loop over the layers would draw."""
        if _compat.current_trace() is not self._model.trace:
            refusals.check_inner_key(self._model, axis_name)
        return super().next_key(stream, axis_name)

    def _key_number(self, drawn: int) -> Any:
        return self._first + super()._key_number(drawn)

    @property
    def draws_keys(self) -> bool:
        """Whether the body has drawn a random key."""
        return self.keys_drawn > 0 or self._key_ref is not None

    def keys_after(self) -> tuple[Any, int | None]:
        """Return the number of the next random key, and how many were drawn, None where only the values tell."""
        if self._key_ref is None:
            return self._key_number(self.keys_drawn), self.keys_drawn
        return self._key_ref[...], None


def first_key(frame: Frame) -> Any:
    """Return the number of the next random key of a frame, usable where the caller runs."""
    now = _compat.current_trace()
    if frame._key_ref is None and now is frame.trace:
        return frame._key_number(frame.keys_drawn)
    counter = frame._key_counter()
    with _compat.set_current_trace(_compat.outside_maps(now, frame.trace)):
        return counter[...]


def advance_keys(frame: Frame, number: Any, drawn: int | None) -> None:
    """Note that random keys were drawn.

    Args:
      frame: the frame.
      number: the number of the next one.
      drawn: how many that were, or None.
    """
    now = _compat.current_trace()
    if frame._key_ref is None and now is frame.trace and drawn is not None:
        frame.keys_drawn += drawn
        return
    counter = frame._key_counter()
    with _compat.set_current_trace(_compat.outside_maps(now, frame.trace)):
        counter[...] = number


def _state(slot: Slot) -> _State:
    return _State(slot.frame, slot.shape, slot.value, slot.ref, slot.read_inside, slot.written)


def _restore(slot: Slot, state: _State) -> None:
    slot.frame, slot.shape, slot.value, slot.ref, slot.read_inside, slot.written = state

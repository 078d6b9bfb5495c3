"""Take back what a part of a model's code made, as if it had not run: names, counters, collections, variables."""

from __future__ import annotations

from typing import NamedTuple

from jaxvars.frame import Frame
from jaxvars.scopes.graph import NameSnapshot

__all__ = ["Mark", "go_back", "mark"]


class Mark(NamedTuple):
    """Where a frame stood."""

    slots: int
    gotten: int
    names: NameSnapshot


def mark(frame: Frame) -> Mark:
    """Remember where the frame stands, for `go_back`."""
    return Mark(len(frame.slots), len(frame._visits.gotten), frame.graph.snapshot())


def go_back(frame: Frame, to: Mark) -> None:
    """Take back what was made since, assignments to older variables excepted."""
    gotten = frame._visits.gotten
    for slot in gotten[to.gotten :]:
        slot.gotten = False
    del gotten[to.gotten :]
    for key in list(frame.slots)[to.slots :]:
        slot = frame.slots.pop(key)
        if slot.store_key is not None:
            frame._by_store_key.pop(slot.store_key, None)
        frame.forget(slot)
    frame.graph.restore(to.names)

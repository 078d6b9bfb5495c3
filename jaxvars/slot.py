"""`Slot`: one variable in one frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jaxvars.frame import Frame
    from jaxvars.scopes.slicing import Partitioning

__all__ = ["Facts", "Slot"]


class Facts(NamedTuple):
    """What is fixed about a variable, and known to its layout."""

    trainable: bool
    collections: tuple[str, ...]
    defined_at: str
    constraint: Callable[[Any], Any] | None
    placement: Any


class Slot:
    """One variable in one frame: what is fixed about it, and its value while the frame is open."""

    # What is so for most slots is the class's: one is made for each variable that is read.
    asked: Any = None  # the collections that the code itself names
    ref: Any = None
    handle: Any = None
    partitioning: Partitioning | None = None
    gotten = False
    read_inside = False
    written = False

    def __init__(
        self,
        frame: Frame,
        key: str,
        store_key: str | None,
        shape: tuple[int, ...],
        dtype: Any,
        value: Any,
        facts: Facts,
    ) -> None:
        self.frame = frame
        self.key = key
        self.store_key = store_key
        self.shape = shape
        self.dtype = dtype
        self.value = value
        self.facts = facts

    @property
    def trainable(self) -> bool:
        """Whether optimizers touch it."""
        return self.facts.trainable

    @property
    def collections(self) -> tuple[str, ...]:
        """The collections that it joins."""
        return self.facts.collections

    @property
    def defined_at(self) -> str:
        """``"file.py:line"``, "" if unknown."""
        return self.facts.defined_at

    @property
    def constraint(self) -> Callable[[Any], Any] | None:
        """What optimizers apply after each update, or None."""
        return self.facts.constraint

    @property
    def placement(self) -> Any:
        """A device string, a `PartitionSpec` or None."""
        return self.facts.placement

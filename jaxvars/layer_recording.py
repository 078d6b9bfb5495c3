"""What the body of `scan_layers` asks of the frame of the model: done for one layer, noted, done again for the others.

The body runs for the first layer; what it defined is then defined for the others from the notes, without running it.
Where the layers could differ all the same (a custom getter sees names, ``jv.Variable`` counts them, ...) the body runs
for each of them, abstractly.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, cast

import jax

from jaxvars._source import user_site
from jaxvars.defining import DefiningFrame
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, TransformError
from jaxvars.frame import Slot
from jaxvars.initializers import Initializer
from jaxvars.initializers._calling import takes_no_arguments
from jaxvars.initializers._stacked import Stacked, moved
from jaxvars.layer_frame import LayerFrame
from jaxvars.layer_storage import StackedVariables, Storage, check_alike
from jaxvars.refusals import at_site
from jaxvars.scopes import GraphKeys
from jaxvars.scopes.context import current
from jaxvars.scopes.device_scope import open_devices
from jaxvars.scopes.request import request_variable
from jaxvars.variable import Variable

__all__ = ["Asked", "Collected", "Event", "Recording"]


# What calls the true getter where no custom getter comes between.
_DIRECT = (request_variable.__code__, Storage.ask.__code__, StackedVariables.ask.__code__)


class Asked(NamedTuple):
    """A variable that the body got, or made by ``jv.Variable``, whose name is then None here."""

    name: str | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    slot: Slot
    of_layer: bool
    site: str
    gotten: int


class Collected(NamedTuple):
    """Something that the body added to a collection."""

    name: str
    value: Any
    gotten: int


Event: TypeAlias = Asked | Collected


class Recording:
    """Stands in front of the frame of the model while the body runs for one layer.

    Args:
      frame: the frame of the model.
      layer: the values of the layer.
      prefix: the scope of the layer, with "/".
      storage: how variables are kept.

    Attributes:
      events: what the body asked for, in order.
      tells: whether that tells what it would ask for in the other layers.
    """

    def __init__(self, frame: DefiningFrame, layer: LayerFrame, prefix: str, storage: Storage) -> None:
        self.events: list[Event] = []
        self.tells = not frame.tf1_op_names
        self._frame = frame
        self.layer = layer
        self.prefix = prefix
        self._storage = storage
        self._around: Recording | None = frame.recording
        self._behind = frame.get, frame.create_variable, frame.collect, frame.collected
        context = current.get()
        self._creators = () if context is None else context.creators
        self._devices = open_devices.get()

    @contextmanager
    def in_front(self) -> Generator[None]:
        """Let the body's calls come here, not to the frame."""
        with put_in_front(
            self._frame,
            recording=self,
            get=self.get,
            create_variable=self.create_variable,
            collect=self.collect,
            collected=self.collected,
            next_key=self.layer.next_key,
        ):
            yield

    def get(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The true getter."""
        if sys._getframe(1).f_code not in _DIRECT:
            self._does_not_tell()  # a custom getter, which knows the name
        self._forget_earlier_runs()
        self._look_for_differences(kwargs.get("initializer", args[2] if len(args) > 2 else None))
        known = self._frame._by_store_key.get(name)
        with self.layer.given_back(None if known is None else _whole(known)):
            handle = self._storage.ask(self._behind[0], self.prefix, name, args, kwargs)
        self._note(name, args, kwargs, handle, name.startswith(self.prefix))
        return handle

    def create_variable(self, **arguments: Any) -> Any:
        """What ``jv.Variable`` calls."""
        if len(self._storage.scopes) < len(self._storage.layers):
            raise InvalidArgumentError(
                f"jv.Variable in the body of jv.scan_layers(..., stacked=...){at_site()}: its name is counted, and "
                "would be another one in each layer. Write: jv.get_variable(name, shape, initializer=...)"
            )
        self._does_not_tell()
        self._forget_earlier_runs()
        handle = self._behind[1](**arguments)
        self._note(None, (), arguments, handle, True)
        return handle

    def collect(self, name: str, value: Any) -> None:
        """What ``jv.add_to_collection`` calls."""
        if not isinstance(value, Variable) and any(isinstance(leaf, Variable) for leaf in _leaves(value)):
            self._does_not_tell()
        self._forget_earlier_runs()
        self._behind[2](name, value)
        self.events.append(Collected(name, value, len(self._frame._visits.gotten)))

    def collected(self, name: str, scope: str | None) -> list[Any]:
        """What ``jv.get_collection`` calls."""
        if name == GraphKeys.REGULARIZATION_LOSSES:
            raise TransformError(
                f"The collection {name!r} is read in the body of jv.scan_layers{at_site()}, which runs once for all "
                "layers: it would hold the losses of one of them. Read it after the call."
            )
        return self._behind[3](name, scope)

    # The other layers

    def replayed(self, prefix: str) -> dict[Slot, Slot]:
        """Define for another layer what was noted here, without running the body.

        Args:
          prefix: the scope of that layer, which is open, with "/".

        Returns:
          The variables of this layer -> those of the other one.

        Raises:
          InvalidArgumentError: their shapes or dtypes differ.
        """
        found: dict[Slot, Slot] = {}
        for event in self.events:
            if isinstance(event, Collected):
                self._frame.collect(event.name, _replaced(event.value, found))
                continue
            slot = self._asked_again(event, prefix)
            if event.of_layer:
                check_alike(event.slot, slot)
                found[event.slot] = slot
        return found

    def _asked_again(self, event: Asked, prefix: str) -> Slot:
        assert event.name is not None
        name = prefix + event.name.removeprefix(self.prefix) if event.of_layer else event.name
        kwargs = dict(event.kwargs)
        if "initializer" in kwargs:
            kwargs["initializer"] = moved(kwargs["initializer"], self.prefix, prefix)
        with put_in_front(self._frame, _slot=_made_at(self._frame._slot, event.site)):
            handle = self._storage.ask(self._frame.get, prefix, name, event.args, kwargs)
        return _whole(handle._slot)

    def matched(self, other: Recording) -> dict[Slot, Slot]:
        """Return the variables of this layer -> those of another one, for which the body has run too.

        Raises:
          InvalidArgumentError: the body did not ask both times for the same, or for other shapes or dtypes.
        """
        ours, theirs = ([e for e in r.events if isinstance(e, Asked)] for r in (self, other))
        for number in range(max(len(ours), len(theirs))):
            asked, now = _told(ours, number, self.prefix), _told(theirs, number, other.prefix)
            if asked != now:
                raise InvalidArgumentError(
                    f"jv.scan_layers runs one body for all layers{at_site()}, but in {other.prefix!r} it asks for "
                    f"{now}, where it asked for {asked} in {self.prefix!r}. What depends on the layer comes in by xs=; "
                    "a layer object or template is made in the body; variables that all layers share are made before."
                )
        found: dict[Slot, Slot] = {}
        for mine, its in zip(ours, theirs, strict=True):
            if mine.of_layer:
                check_alike(mine.slot, its.slot)
                found[mine.slot] = its.slot
        return found

    def _does_not_tell(self) -> None:
        self.tells: bool = False
        if self._around is not None:
            self._around._does_not_tell()

    def _look_for_differences(self, initializer: Any) -> None:
        context = current.get()
        if context is None or context.creators is not self._creators or open_devices.get() is not self._devices:
            self._does_not_tell()
        foreign = callable(initializer) and not isinstance(initializer, Initializer | Stacked | type)
        if foreign and takes_no_arguments(initializer):
            self._does_not_tell()  # it may read variables of the layer

    def _note(
        self, name: str | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], handle: Any, of_layer: bool
    ) -> None:
        if not isinstance(handle, Variable):
            raise InvalidTypeError(
                f"A variable_creator_scope returned {type(handle).__name__} for variable {name or 'jv.Variable'}"
                f"{at_site()}, and jv.scan_layers needs a variable there. Use a Python loop over the layers."
            )
        slot = _whole(handle._slot)
        if of_layer:
            self.layer.adopt(slot)
        gotten = len(self._frame._visits.gotten)
        self.events.append(Asked(name, args, kwargs, slot, of_layer, user_site(), gotten))

    def _forget_earlier_runs(self) -> None:
        """Where JAX runs an inner function again, within one call, the frame forgets what that got before."""
        self._frame.touch()
        gotten = len(self._frame._visits.gotten)
        while self.events and self.events[-1].gotten > gotten:
            self.events.pop()


def _told(events: list[Asked], number: int, scope: str) -> str:
    """What the body asked for, in words that are the same for all layers."""
    if number >= len(events):
        return "nothing more"
    event = events[number]
    if event.name is None:
        return "a jv.Variable"
    return f"its variable {event.name.removeprefix(scope)!r}" if event.of_layer else f"variable {event.name!r}"


def _made_at(make: Callable[..., Slot], site: str) -> Callable[..., Slot]:
    def slot(*args: Any, **kwargs: Any) -> Slot:
        made = make(*args, **kwargs)
        made.facts = made.facts._replace(defined_at=site)
        return made

    return slot


def _replaced(value: Any, found: Mapping[Slot, Slot]) -> Any:
    """A handle of one layer replaced by that of another."""
    if not isinstance(value, Variable):
        return value
    slot = _whole(value._slot)
    return found[slot].handle if slot in found else value


def _whole(slot: Slot) -> Slot:
    """The slot itself; of a slice that of the whole."""
    return cast(Slot, getattr(slot, "whole", slot))


def _leaves(value: Any) -> list[Any]:
    return jax.tree.leaves(value, is_leaf=lambda leaf: isinstance(leaf, Variable))


_NOTHING = object()


@contextmanager
def put_in_front(frame: DefiningFrame, **members: Any) -> Generator[None]:
    """Give one frame these members, in front of its class's own, for as long as the block lasts.

    A question in those methods, whether layers are being scanned, would be asked at every read of every model.
    """
    own = vars(frame)
    before = {name: own.get(name, _NOTHING) for name in members}
    own.update(members)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _NOTHING:
                own.pop(name, None)
            else:
                own[name] = value

"""Visits: one run of a user function by one live JAX call, so that a body that JAX runs twice finds its names again.

``scan`` traces its body a second time when the carry changes dtype, ``lax.map`` with a batch size runs it for the rest,
``associative_scan`` calls it at each level. Those runs are one visit: handles, counters, scopes and collections go
back to where they were when it began. Two calls, and the branches of a ``cond``, are visits of their own: making the
same variable in both is refused, as in TF1.

A call is known by its stack frame, which lives as long as the call; a run by the stack frame of the user's function.
Both are kept until the next touch, which JAX's leak check would take for a leak: under the check they are referred to
weakly.
"""

from __future__ import annotations

import weakref
from types import CodeType, FrameType
from typing import Any, cast

import jax

from jaxvars._calls import BRANCHES, JaxCall
from jaxvars.scopes import NameGraph

__all__ = ["Visits"]


class _Visit:
    __slots__ = ("code", "entry", "gotten", "names", "run")

    def __init__(self, call: JaxCall, run: Any, gotten: int, names: Any) -> None:
        self.entry: Any = _stands_for(call.entry)
        self.code: CodeType = call.body.f_code
        self.run = run
        self.gotten = gotten
        self.names = names


class Visits:
    """The visits that are going on in one frame, outermost first, and the variables gotten so far.

    Args:
      graph: the names to take back when a body runs again.

    Attributes:
      going_on: the visits, empty where the code runs straight in the frame's function.
      gotten: the slots gotten so far.
    """

    def __init__(self, graph: NameGraph) -> None:
        self._graph = graph
        self.going_on: list[_Visit] = []
        self.gotten: list[Any] = []

    def update(self, calls: list[JaxCall]) -> None:
        """Note the JAX calls that the running code is in, innermost first."""
        if not calls and not self.going_on:
            return
        kept: list[_Visit] = []
        for call in reversed(calls):
            visit = self._of(call)
            run = _stands_for(call.body)
            if visit is None or (visit.run != run and not BRANCHES.isdisjoint(call.transforms)):
                visit = _Visit(call, run, len(self.gotten), self._graph.snapshot())
            elif visit.run != run:
                self._start_over(visit)
                visit.run = run
                # What was noted inside the earlier run is over.
                self.going_on = kept
            kept.append(visit)
        # A call that is not on the stack has ended: another one of the same function is another visit.
        self.going_on = kept

    def clear(self) -> None:
        """Forget everything: stack frames keep the values in them alive."""
        self.going_on.clear()
        self.gotten.clear()

    def _of(self, call: JaxCall) -> _Visit | None:
        entry = _stands_for(call.entry)
        for visit in self.going_on:
            if visit.entry == entry and visit.code is call.body.f_code:
                return visit
        return None

    def _start_over(self, visit: _Visit) -> None:
        for slot in self.gotten[visit.gotten :]:
            slot.gotten = False
        del self.gotten[visit.gotten :]
        self._graph.restore(visit.names)


class _Mark:
    """Put among the local variables of a stack frame, which itself cannot be referred to weakly; dies with it."""


def _stands_for(frame: FrameType) -> Any:
    """What stands for a stack frame, compared by ``==``."""
    if not cast(Any, jax.config).jax_check_tracer_leaks:
        return frame
    return weakref.ref(frame.f_locals.setdefault("__jaxvars_mark__", _Mark()))

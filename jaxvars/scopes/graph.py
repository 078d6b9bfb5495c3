"""`NameGraph`: the naming state of one frame, what a fresh ``tf.Graph`` was to TF1's names."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from jaxvars._source import user_site
from jaxvars.errors import FailedPreconditionError
from jaxvars.scopes.collections import Collections, CollectionsSnapshot
from jaxvars.scopes.context import Context, current
from jaxvars.scopes.counters import EMPTY
from jaxvars.scopes.device_scope import open_devices
from jaxvars.scopes.names import NameRegistry, check_scope_name, check_variable_name, is_variable_name
from jaxvars.scopes.scope import ROOT_DEFAULTS, new_scope

__all__ = ["NameGraph", "NameSnapshot", "current_graph"]

_serials = itertools.count(1)


class NameSnapshot(NamedTuple):
    """What `NameGraph.snapshot` returns; only for `NameGraph.restore` of the same graph."""

    graph_serial: int
    context: Context
    journal_length: int
    collections: CollectionsSnapshot


class NameGraph:
    """The names of one frame: op names, collections, and the root from which its scopes grow.

    The op names and the collections are shared by all threads that enter the graph; the current scope, the
    current name scope, the counters of default names and the variable creators belong to each thread or task.

    Example:
      >>> from jaxvars.scopes import get_variable_scope, variable_scope
      >>> graph = NameGraph()
      >>> with graph.as_current():
      ...     with variable_scope("a"), variable_scope("b") as scope:
      ...         print(scope.name, graph.variable_op_name("a/b/w"))
      a/b a/b/w
    """

    __slots__ = ("__weakref__", "collections", "names", "on_enter", "serial")

    def __init__(self, on_enter: Callable[[], None] | None = None) -> None:
        """Make an empty graph.

        Args:
          on_enter: called before a variable scope, name scope or creator scope of this graph is entered: a
            frame learns here that a body is being traced, before the body's names are counted.
        """
        self.names: NameRegistry = NameRegistry()
        self.collections: Collections = Collections()
        self.on_enter: Callable[[], None] | None = on_enter
        self.serial: int = next(_serials)

    def as_current(self) -> _Activation:
        """Return a context manager: names inside belong to this graph, beginning at a fresh root scope.

        Leaving brings back what was current before, also when scopes inside were left open.
        """
        return _Activation(self)

    def variable_op_name(self, full_name: str, take: bool = True) -> str:
        """Check the name of a new variable of ``get_variable`` and take its op name.

        Name scopes are ignored. The op name differs from `full_name` when a scope or op took that before.

        Args:
          full_name: scope prefix and name, such as ``"a/w"``.
          take: ``False`` only tells what the name would be: take it when the variable has been made.

        Returns:
          TF1's op name, such as ``"a/w"`` or ``"a/w_1"``: the key in TF1's checkpoints.

        Raises:
          InvalidArgumentError: the name is not legal; nothing is taken.
        """
        if not is_variable_name(full_name):
            check_variable_name(full_name)
        return self.names.unique(full_name, take)

    def unique_variable_name(self, name: str | None, take: bool = True) -> str:
        """Check and take the name of a new ``Variable``: current name scope and `name`, made unique.

        A name that ends in "/" is taken as it stands, as TF1 does for
        ``with name_scope(...) as scope: Variable(..., name=scope)``.

        Args:
          name: the given name; ``None`` or "" stands for ``"Variable"``.
          take: ``False`` only tells what the name would be.

        Returns:
          The variable's name.

        Raises:
          InvalidArgumentError: the name is not legal; nothing is taken.
        """
        return self.enter_name(name or "Variable", self.current_name_scope(), take)

    def current_name_scope(self) -> str:
        """Return the current name scope, "" when this graph is not the current one."""
        context = current.get()
        return context.name_scope if context is not None and context.graph is self else ""

    def enter_name(self, name: str, name_scope: str, take: bool = True) -> str:
        """Return the name scope that `name` opens inside `name_scope`, taking its name.

        Args:
          name: the name; with a trailing "/" it stands as it is.
          name_scope: the current name scope, "" at the root.
          take: ``False`` only tells what the name would be.

        Returns:
          The name, without trailing "/".

        Raises:
          InvalidArgumentError: the name is not legal; nothing is taken.
        """
        check_scope_name(name, nested=bool(name_scope))
        if name[-1] == "/":
            return name[:-1]
        return self.names.unique(f"{name_scope}/{name}" if name_scope else name, take)

    def snapshot(self) -> NameSnapshot:
        """Remember names, counters, collections and scope attributes as they are now, for `restore`.

        Costs a reference and one entry per collection. From the first one on, the graph notes its changes.

        Raises:
          FailedPreconditionError: this graph is not the current one.
        """
        journal = self.names.journal
        if journal is None:
            journal = self.names.journal = []
        return NameSnapshot(self.serial, self._context(), len(journal), self.collections.snapshot())

    def restore(self, snapshot: NameSnapshot) -> None:
        """Go back to the moment of `snapshot`, so that a body that runs again finds the same names.

        Undone are: taken names, counts of default names, collections, and what setters and
        ``reuse_variables`` changed. The scopes that are open now stay open. Changes that other threads made
        in the meantime are undone too: a body is traced twice within one call, on one thread.

        Args:
          snapshot: made by this graph.

        Raises:
          FailedPreconditionError: the snapshot is of another graph, or this graph is not the current one.
        """
        if snapshot.graph_serial != self.serial:
            raise FailedPreconditionError("The snapshot was made by another NameGraph; restore it there.")
        context = self._context()
        journal = self.names.journal
        while journal and len(journal) > snapshot.journal_length:
            journal.pop()()
        self.collections.restore(snapshot.collections)
        current.set(_recounted(context, snapshot.context))

    def _context(self) -> Context:
        context = current.get()
        if context is None or context.graph is not self:
            site = user_site()
            raise FailedPreconditionError(
                f"This NameGraph is not the current one{f' at {site}' if site else ''}: "
                "use it inside `with graph.as_current():`."
            )
        return context


def _recounted(now: Context, then: Context) -> Context:
    """The open scopes of `now` with the counts of `then`, level by level from the root.

    In the usual case both have the same levels. When the body entered scopes before its frame noticed that
    it runs again, those scopes are open already, and each level takes the counts of its like.
    """
    counted = _levels(then)
    parent: Context | None = None
    for depth, level in enumerate(_levels(now)):
        like = counted[min(depth, len(counted) - 1)]
        parent = Context(
            level.graph,
            level.scope,
            level.name_scope,
            like.counts,
            like.opened if depth < len(counted) else like.counts,
            level.creators,
            parent,
            level.owner,
        )
    return parent or now


def _levels(context: Context) -> list[Context]:
    """The records from the root of the frame to `context`."""
    levels = [context]
    while (parent := levels[-1].parent) is not None:
        levels.append(parent)
    levels.reverse()
    return levels


class _Activation:
    """The context manager of `NameGraph.as_current`."""

    __slots__ = ("_graph", "_outer")

    def __init__(self, graph: NameGraph) -> None:
        self._graph = graph
        self._outer: list[tuple[Context | None, Any]] = []

    def __enter__(self) -> NameGraph:
        root = new_scope("", False, "", ROOT_DEFAULTS)
        self._outer.append((current.get(), open_devices.get()))
        current.set(Context(self._graph, root, "", EMPTY, EMPTY, (), None, self))
        return self._graph

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        outer, devices = self._outer.pop()
        current.set(outer)
        open_devices.set(devices)


def current_graph() -> NameGraph | None:
    """Return the graph whose frame is current, ``None`` outside every frame.

    Example:
      >>> current_graph() is None
      True
    """
    context = current.get()
    return None if context is None else context.graph

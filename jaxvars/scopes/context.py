"""Where naming stands: one immutable record in one `ContextVar`, right under threads and asyncio.

Entering a scope sets a new record that points to the one before; leaving goes back to that one. A new thread
has no record, so it is outside every frame until it enters one; an asyncio task starts where it was created.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from jaxvars._source import user_site
from jaxvars.errors import FailedPreconditionError
from jaxvars.scopes.counters import Counts

if TYPE_CHECKING:
    from jaxvars.scopes.graph import NameGraph
    from jaxvars.scopes.scope import VariableScope

__all__ = ["Context", "Creator", "current", "improper_nesting", "leave", "outside_frame"]

Creator: TypeAlias = Callable[..., Any]


class Context:
    """The state of naming at one point of a program. Never changed after it was made."""

    # A plain class: made twice per scope, and a frozen dataclass or NamedTuple takes longer to make.
    __slots__ = ("counts", "creators", "graph", "name_scope", "opened", "owner", "parent", "scope")

    def __init__(
        self,
        graph: NameGraph,
        scope: VariableScope,
        name_scope: str,
        counts: Counts,
        opened: Counts,
        creators: tuple[Creator, ...],
        parent: Context | None,
        owner: object,
    ) -> None:
        self.graph: NameGraph = graph
        self.scope: VariableScope = scope
        self.name_scope: str = name_scope  # without the trailing "/"
        self.counts: Counts = counts
        self.opened: Counts = opened  # the counts just after `scope` was opened
        self.creators: tuple[Creator, ...] = creators  # of variable_creator_scope, outermost first
        self.parent: Context | None = parent  # what closing goes back to; None at the root of a frame
        self.owner: object = owner  # the context manager whose entry made this record


current: Final[ContextVar[Context | None]] = ContextVar("jaxvars_naming", default=None)


def leave(parent: Context, counts: Counts) -> None:
    """Go back to `parent`, which goes on counting from `counts`."""
    if counts is not parent.counts:
        parent = Context(
            parent.graph,
            parent.scope,
            parent.name_scope,
            counts,
            parent.opened,
            parent.creators,
            parent.parent,
            parent.owner,
        )
    current.set(parent)


def outside_frame(what: str) -> FailedPreconditionError:
    """Make the error for a call that needs a frame and has none.

    Args:
      what: the call as its author wrote it, the subject of the sentence, such as ``"jv.get_variable('w')"``.
    """
    site = user_site()
    return FailedPreconditionError(
        f"{what} was called outside of a frame{f' (at {site})' if site else ''}. Variables are made and read inside "
        "a model function or a VariableStore; a new thread enters its own. Write one of:\n"
        "    model = jv.transform(fn); variables = model.init(0, *args)\n"
        "    out, variables = model.apply(variables, *args)\n"
        "    with jv.VariableStore(0) as store: ...            # in a notebook; the values are in store.variables"
        + _OF_A_STATE.get(what.removeprefix("jv."), "")
    )


# How a state, outside of a frame, answers what these functions ask inside.
_OF_A_STATE = {
    "trainable_variables": "\n    variables.trainable                               # of a state, anywhere",
    "get_collection": "\n    variables.collection(name)                        # of a state, anywhere",
    "get_collection_ref": "\n    variables.collection(name)                        # of a state, anywhere",
    "global_variables": "\n    variables.collection('variables')                 # of a state, anywhere",
    "local_variables": "\n    variables.collection('local_variables')           # of a state, anywhere",
    "model_variables": "\n    variables.collection('model_variables')           # of a state, anywhere",
    "train.get_global_step": "\n    jv.train.global_step(variables)                   # of a state, anywhere",
    "train.create_global_step": "\n    variables = jv.train.create_global_step(variables)",
    "train.get_or_create_global_step": "\n    variables = jv.train.get_or_create_global_step(variables)",
    "moving_average_variables": "\n    variables.collection('moving_average_variables')  # of a state, anywhere",
}


def improper_nesting(message: str, context: Context | None) -> FailedPreconditionError:
    """Make the error for a context manager that is closed while it is not the innermost open one.

    Args:
      message: TF1's sentence, then which one was closed.
      context: the state now.
    """
    site = user_site()
    now = "no scope is open" if context is None else f"the innermost scope is {context.scope.name!r}"
    if context is not None and context.name_scope:
        now += f" with name scope {context.name_scope!r}"
    return FailedPreconditionError(
        f"{message}{f' at {site}' if site else ''}, but {now}. Close scopes in the reverse order of opening "
        "them: use `with` blocks or contextlib.ExitStack."
    )

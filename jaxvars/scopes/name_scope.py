"""`name_scope`: the prefix of op names, which `Variable` follows and `get_variable` ignores."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from jaxvars._source import user_site
from jaxvars.errors import InvalidTypeError
from jaxvars.scopes.context import Context, current, improper_nesting, leave, outside_frame
from jaxvars.scopes.decorator import ScopeDecorator

__all__ = ["get_current_name_scope", "name_scope"]


class name_scope(ScopeDecorator):
    """Context manager that opens a name scope and yields its name with a trailing "/" (``tf.name_scope``).

    A name that was used before gets ``_1``, ``_2``, ...; case is ignored. A name that ends in "/", such as
    the yielded string or a scope's ``original_name_scope``, is entered again exactly. ``None`` and "" go back
    to the root.

    Args:
      name: the name, or ``None`` for `default_name`.
      default_name: used when `name` is ``None``.
      values: ignored; TF1 found the graph with it.

    Raises:
      InvalidTypeError: a name is not a string.
      InvalidArgumentError: on entry, the name is not legal. Nothing changes.
      FailedPreconditionError: on entry outside a frame; on exit out of order, where nothing changes.

    Example:
      >>> from jaxvars.scopes import NameGraph
      >>> with NameGraph().as_current(), name_scope("tower") as outer, name_scope("conv") as inner:
      ...     print(outer, inner)
      tower/ tower/conv/
    """

    __slots__ = ("_name",)

    def __init__(self, name: str | None, default_name: str | None = None, values: Any = None) -> None:
        _check_string("default_name", default_name, "Did you mean to pass it as `values`? ")
        _check_string("name", name)
        self._name = (default_name if name is None else name) or ""

    @property
    def name(self) -> str:
        """The name as it was given, "" for none."""
        return self._name

    def __enter__(self) -> str:
        context = current.get()
        if context is None:
            raise outside_frame(f"jv.name_scope({self._name!r})")
        if context.graph.on_enter is not None:
            context.graph.on_enter()
            context = current.get() or context
        name = self._name
        opened = context.graph.enter_name(name, context.name_scope) if name else ""
        current.set(
            Context(
                context.graph,
                context.scope,
                opened,
                context.counts,
                context.opened,
                context.creators,
                context,
                self,
            )
        )
        return opened + "/" if opened else ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        context = current.get()
        if context is None or context.owner is not self or context.parent is None:
            raise improper_nesting(f"Improper nesting of name_scope. {self._name!r} is being closed", context)
        leave(context.parent, context.counts)

    def _again(self) -> Self:
        return type(self)(self._name)


def get_current_name_scope() -> str:
    """Return the current name scope without trailing "/": "" at the root and outside a frame.

    Example:
      >>> from jaxvars.scopes import NameGraph
      >>> with NameGraph().as_current(), name_scope("tower"), name_scope("conv"):
      ...     get_current_name_scope()
      'tower/conv'
    """
    context = current.get()
    return "" if context is None else context.name_scope


def _check_string(argument: str, value: object, hint: str = "") -> None:
    if value is None or isinstance(value, str):
        return
    site = user_site()
    raise InvalidTypeError(
        f"The {argument} of name_scope must be a string, got {value!r} ({type(value).__name__})"
        f"{f' at {site}' if site else ''}. {hint}Write for example jv.name_scope('tower')."
    )

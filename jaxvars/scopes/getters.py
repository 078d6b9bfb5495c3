"""Custom getters of scopes, and variable creators: the two hooks into making a variable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import CodeType, TracebackType
from typing import Any, Self, TypeAlias

from jaxvars.errors import InvalidTypeError
from jaxvars.scopes.context import Context, Creator, current, improper_nesting, leave, outside_frame
from jaxvars.scopes.decorator import ScopeDecorator

__all__ = ["Getter", "accepts", "compose_getters", "create_variable", "variable_creator_scope"]

Getter: TypeAlias = Callable[..., Any]

_TAKES_KEYWORDS = inspect.CO_VARKEYWORDS


def compose_getters(inner: Any, outer: Any) -> Any:
    """Return the custom getter of a scope that is given `inner`, inside a scope that has `outer`.

    The inner one is called first; the ``getter`` that it receives runs the outer one.

    Args:
      inner: the getter given to the scope.
      outer: the getter of the enclosing (or captured) scope, or ``None``.

    Returns:
      One getter. A getter that is not callable comes back as it is: ``get_variable`` refuses it.
    """
    if outer is None or not callable(inner):
        return inner
    return _ComposedGetter(inner, outer)


class _ComposedGetter:
    """Two getters in one; a class, so that a scope's getter prints well and pickles when its parts do."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, inner: Getter, outer: Getter) -> None:
        self._inner = inner
        self._outer = outer

    def __call__(self, getter: Getter, *args: Any, **kwargs: Any) -> Any:
        if "constraint" in kwargs and not accepts(self._inner, "constraint"):
            del kwargs["constraint"]
        return self._inner(partial(self._run_outer, getter), *args, **kwargs)

    def _run_outer(self, getter: Getter, *args: Any, **kwargs: Any) -> Any:
        if "constraint" in kwargs and not accepts(self._outer, "constraint"):
            del kwargs["constraint"]
        return self._outer(getter, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<custom getters {self._inner!r}, then {self._outer!r}>"


def accepts(function: Getter, keyword: str) -> bool:
    """Whether `function` takes the keyword argument, by name or by ``**kwargs``.

    Example:
      >>> accepts(lambda getter, name, **kwargs: None, "constraint")
      True
      >>> accepts(lambda getter, name, shape: None, "constraint")
      False
    """
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):  # a plain function: no need for the slow signature()
        if code.co_flags & _TAKES_KEYWORDS:
            return True
        return keyword in code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return True
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(p.kind is p.VAR_KEYWORD or (p.name == keyword and p.kind in named) for p in parameters)


class variable_creator_scope(ScopeDecorator):
    """Context manager: variables inside are made by `variable_creator` (``tf.variable_creator_scope``).

    Creators see ``Variable`` and ``get_variable`` alike, the innermost first. A creator calls `next_creator`
    to make the variable, with keywords that it may change, or returns something else.

    Args:
      variable_creator: called as ``variable_creator(next_creator, **kwargs)``.

    Raises:
      InvalidTypeError: `variable_creator` is not callable.
      FailedPreconditionError: on entry outside a frame; on exit out of order ("Exiting
        variable_creator_scope without proper nesting."), where nothing changes.

    Example:
      >>> from jaxvars.scopes import NameGraph
      >>> def rename(next_creator, **kwargs):
      ...     return next_creator(**(kwargs | {"name": "my_" + kwargs["name"]}))
      >>> with NameGraph().as_current(), variable_creator_scope(rename):
      ...     create_variable(lambda name: name, name="w")
      'my_w'
    """

    __slots__ = ("_creator",)

    def __init__(self, variable_creator: Creator) -> None:
        if not callable(variable_creator):
            raise InvalidTypeError(
                "variable_creator_scope needs a function fn(next_creator, **kwargs) that returns a variable; "
                f"got {variable_creator!r}."
            )
        self._creator = variable_creator

    def __enter__(self) -> None:
        context = current.get()
        if context is None:
            raise outside_frame("jv.variable_creator_scope(...)")
        if context.graph.on_enter is not None:
            context.graph.on_enter()
            context = current.get() or context
        current.set(
            Context(
                context.graph,
                context.scope,
                context.name_scope,
                context.counts,
                context.opened,
                (*context.creators, self._creator),
                context,
                self,
            )
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        context = current.get()
        if context is None or context.owner is not self or context.parent is None:
            raise improper_nesting("Exiting variable_creator_scope without proper nesting.", context)
        leave(context.parent, context.counts)

    def _again(self) -> Self:
        return type(self)(self._creator)


def has_creators() -> bool:
    """Whether a `variable_creator_scope` is open here."""
    context = current.get()
    return context is not None and bool(context.creators)


def create_variable(default_creator: Creator, **kwargs: Any) -> Any:
    """Make a variable through the creators of the open scopes, the innermost first, then `default_creator`.

    Args:
      default_creator: makes the variable from the keywords.
      **kwargs: what the variable is made from; creators may change them.

    Returns:
      What the innermost creator returns.

    Example:
      >>> create_variable(dict, name="w")
      {'name': 'w'}
    """
    context = current.get()
    creator = default_creator
    if context is not None:
        for outer_first in context.creators:
            creator = partial(outer_first, creator)
    return creator(**kwargs)

"""`arg_scope`: defaults of arguments for the functions called inside, as slim and contrib code had them.

A scope is a dict: decorated function -> its defaults by name. The current one is a context variable, so each thread
begins with none. Nothing in it belongs to a frame: an `arg_scope` may be opened around a model, in it, or nowhere near
one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import CodeType, FunctionType, TracebackType
from typing import Any, ParamSpec, Self, TypeAlias, TypeVar, cast

from jaxvars._source import user_site
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, nearest_names
from jaxvars.frame import open_frame
from jaxvars.scopes.decorator import ScopeDecorator

__all__ = [
    "ArgScope",
    "add_arg_scope",
    "arg_scope",
    "arg_scoped_arguments",
    "current_arg_scope",
    "has_arg_scope",
    "scoped_arguments",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

ArgScope: TypeAlias = dict[Callable[..., Any], dict[str, Any]]

_current: ContextVar[Mapping[Callable[..., Any], Mapping[str, Any]] | None] = ContextVar(
    "jaxvars_arg_scope", default=None
)
_MARK = "__jaxvars_arg_scope__"


class _State:
    """Whether any scope was ever opened: until then no function needs to look."""

    used = False


_state = _State()


def add_arg_scope(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let `arg_scope` give defaults to this function; a decorator (``slim.add_arg_scope``).

    Args:
      function: a function; what is called with arguments of its own keeps those.

    Returns:
      A function with the same signature, name and docstring.

    Raises:
      InvalidTypeError: it is not a function.

    Example:
      >>> import jaxvars as jv
      >>> @jv.add_arg_scope
      ... def block(x, depth=1, rate=1):
      ...     return x, depth, rate
      >>> with jv.arg_scope([block], depth=4, rate=2):
      ...     block("a"), block("b", 8), block("c", rate=1)
      (('a', 4, 2), ('b', 8, 2), ('c', 4, 1))
    """
    if not callable(function) or isinstance(function, type):
        raise InvalidTypeError(f"add_arg_scope decorates functions, got {function!r:.80}{_at()}.")
    if has_arg_scope(function):
        return function
    state, call = _state, _caller(function)

    def scoped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if state.used:
            return call(args, kwargs)
        return function(*args, **kwargs)

    made = functools.wraps(function)(_adopted(scoped, function))
    setattr(made, _MARK, made)
    return cast("Callable[_P, _R]", made)


def _adopted(scoped: Any, function: Any) -> Any:
    """`scoped` as a function of the module and name of the one it wraps.

    doctest collects only functions whose globals are the module's, and `jaxvars.visits` tells the bodies of one JAX
    call apart by their code.
    """
    home = getattr(inspect.unwrap(function), "__globals__", None)
    name = getattr(function, "__name__", "scoped")
    code: CodeType = scoped.__code__.replace(co_name=name)
    return FunctionType(code, scoped.__globals__ if home is None else home, name, None, scoped.__closure__)


def _caller(function: Callable[..., _R]) -> Callable[[tuple[Any, ...], dict[str, Any]], _R]:
    """Call `function` with what the current scope adds."""
    names = _positional(function)

    def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _R:
        _note_dependence()
        scope = _current.get()
        defaults = scope.get(function) if scope else None
        if not defaults:
            return function(*args, **kwargs)
        given = names[: len(args)]
        return function(*args, **{k: v for k, v in defaults.items() if k not in given} | kwargs)

    return call


def _note_dependence() -> None:
    """JAX would give a body traced under one scope to a call under another: let it be traced anew each time."""
    frame = open_frame()
    if frame is not None:
        frame.touch_python_state()


def _positional(function: Callable[..., Any]) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(name for name, p in _parameters(function).items() if p.kind in kinds)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin that does not say
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}


class arg_scope(ScopeDecorator):
    """Context manager: the functions called inside take these defaults (``slim.arg_scope``).

    Scopes nest: an inner one wins over an outer one, argument by argument, and what a call passes itself wins over
    both. A scope captured by ``as`` can be opened again later; it then stands alone, whatever is open around it.
    Works as a decorator too.

    Args:
      list_ops_or_scope: a list or tuple of functions, each decorated by `add_arg_scope` (the functions of `jv.layers`
        are); or a captured scope. Variables have `jv.variable_scope` for this.
      **kwargs: the defaults, by the names of the functions' arguments; none with a captured scope.

    Yields:
      The scope: a dict of dicts, which holds all defaults that are in force inside.

    Raises:
      InvalidTypeError: neither a list nor a captured scope, or an argument that a function does not take.
      InvalidArgumentError: a function that is not decorated, or arguments besides a captured scope.
      FailedPreconditionError: closed out of order.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> def net(x):
      ...     with jv.arg_scope([jv.layers.dense], activation=jnp.tanh, use_bias=False) as scope:
      ...         x = jv.layers.dense(x, 4, name="a")
      ...         with jv.arg_scope([jv.layers.dense], activation=None):
      ...             x = jv.layers.dense(x, 3, name="b")
      ...     with jv.arg_scope(scope):
      ...         return jv.layers.dense(x, 2, name="c", use_bias=True)
      >>> list(jv.transform(net).specs(jnp.ones([1, 5])))
      ['a/kernel', 'b/kernel', 'c/bias', 'c/kernel']
    """

    __slots__ = ("_captured", "_changes", "_entered")

    def __init__(self, list_ops_or_scope: Any, **kwargs: Any) -> None:
        self._captured: ArgScope | None = None
        self._changes: ArgScope = {}
        self._entered: list[tuple[ArgScope, Token[Any]]] = []
        if isinstance(list_ops_or_scope, dict):
            if kwargs:
                raise InvalidArgumentError(
                    f"When re-using a captured scope, arg_scope takes no further arguments{_at()}, got "
                    f"{', '.join(kwargs)}. Nest another: with jv.arg_scope(scope), jv.arg_scope([...], ...): ..."
                )
            self._captured = _copied(cast("ArgScope", list_ops_or_scope))
            return
        if not isinstance(list_ops_or_scope, list | tuple):
            raise InvalidTypeError(
                "The first argument of arg_scope must be a list or tuple of functions, or a captured scope, got "
                f"{list_ops_or_scope!r:.80}{_at()}. Write: jv.arg_scope([jv.layers.conv2d], padding='SAME')"
            )
        functions = cast("list[Callable[..., Any]]", list_ops_or_scope)
        _check(functions, kwargs)
        self._changes = {_key(function): dict(kwargs) for function in functions}

    def __enter__(self) -> ArgScope:
        _state.used = True
        outer = _current.get() or {}
        scope = self._captured
        if scope is None:
            scope = {key: dict(defaults) for key, defaults in outer.items()}
            for key, defaults in self._changes.items():
                scope[key] = scope.get(key, {}) | defaults
        self._entered.append((scope, _current.set(scope)))
        return _copied(scope)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._entered or _current.get() is not self._entered[-1][0]:
            raise FailedPreconditionError(f"Improper nesting of arg_scope{_at()}: an inner one is still open.")
        _, token = self._entered.pop()
        _current.set(None if token.old_value is Token.MISSING else token.old_value)

    def _again(self) -> Self:
        other = object.__new__(type(self))
        other._captured, other._changes, other._entered = self._captured, self._changes, []
        return other


def _check(functions: list[Callable[..., Any]], kwargs: Mapping[str, Any]) -> None:
    """Raise where a function has no scope or does not take an argument; all problems at once."""
    bare = [_name(function) for function in functions if not has_arg_scope(function)]
    if bare:
        raise InvalidArgumentError(
            f"{', '.join(bare)} {'is' if len(bare) == 1 else 'are'} not decorated with @add_arg_scope{_at()}: write "
            "@jv.add_arg_scope above the function, or block = jv.add_arg_scope(block)."
        )
    problems: list[str] = []
    for function in functions:
        parameters = _parameters(_key(function))
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            continue
        named = [name for name, p in parameters.items() if p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)]
        for wrong in [name for name in kwargs if name not in named]:
            near = nearest_names(wrong, named)
            hint = f", did you mean {' or '.join(near)}?" if near else f"; it takes {', '.join(named)}."
            problems.append(f"  {_name(function)} has no argument {wrong!r}{hint}")
    if problems:
        raise InvalidTypeError(
            f"arg_scope{_at()} gives arguments that its functions do not take:\n" + "\n".join(problems)
        )


def _key(function: Any) -> Callable[..., Any]:
    """The function below the decorator, under which a scope keeps its defaults."""
    return getattr(function, _MARK).__wrapped__


def _copied(scope: Mapping[Callable[..., Any], Mapping[str, Any]]) -> ArgScope:
    return {key: dict(defaults) for key, defaults in scope.items()}


def _name(function: Any) -> str:
    name = getattr(function, "__qualname__", None)
    return f"{getattr(function, '__module__', '')}.{name}" if name else repr(function)


def _at() -> str:
    site = user_site()
    return f" at {site}" if site else ""


def has_arg_scope(function: Callable[..., Any]) -> bool:
    """Return whether a function is decorated by `add_arg_scope`.

    Example:
      >>> import jaxvars as jv
      >>> jv.has_arg_scope(jv.layers.dense), jv.has_arg_scope(print)
      (True, False)
    """
    # What wraps a decorated function copies its attributes, but is another function.
    return getattr(function, _MARK, None) is function


def arg_scoped_arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the arguments of a decorated function that have defaults, which `arg_scope` is meant to replace.

    Raises:
      InvalidArgumentError: the function is not decorated.

    Example:
      >>> import jaxvars as jv
      >>> jv.arg_scoped_arguments(jv.layers.flatten)
      ('name', 'data_format')
    """
    _check([function], {})
    parameters = _parameters(_key(function)).items()
    return tuple(name for name, p in parameters if p.default is not p.empty and p.kind is not p.POSITIONAL_ONLY)


def current_arg_scope() -> ArgScope:
    """Return the scope that is open here, as ``with jv.arg_scope(...) as scope`` gives it; empty for none.

    Example:
      >>> import jaxvars as jv
      >>> with jv.arg_scope([jv.layers.dense], use_bias=False):
      ...     list(jv.current_arg_scope().values())
      [{'use_bias': False}]
    """
    return _copied(_current.get() or {})


def scoped_arguments(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return what the current scope gives to a decorated function.

    Example:
      >>> import jaxvars as jv
      >>> from jaxvars.arg_scope import scoped_arguments
      >>> with jv.arg_scope([jv.layers.dense], use_bias=False):
      ...     scoped_arguments(jv.layers.dense)
      {'use_bias': False}
    """
    scope = _current.get()
    return scope.get(_key(function), {}) if scope else {}

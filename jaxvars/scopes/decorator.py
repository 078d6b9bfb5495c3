"""Scopes as decorators: the function runs inside a fresh entry of the scope, at every call."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

__all__ = ["ScopeDecorator"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class ScopeDecorator(ABC):
    """Lets a context manager decorate functions, coroutine functions included.

    TF1's scopes were made by ``contextlib.contextmanager``, which gave them this in Python 3.
    """

    __slots__ = ()

    @abstractmethod
    def _again(self) -> Self:
        """Return a context manager like this one, not entered yet."""

    @abstractmethod
    def __enter__(self) -> Any:
        """Enter the scope."""

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the scope."""

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return `function`, to run inside this scope; a default name is made unique anew at each call."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return cast("Callable[_P, _R]", run_async)

        @functools.wraps(function)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with self._again():
                return function(*args, **kwargs)

        return run

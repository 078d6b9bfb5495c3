"""Names on their way out: they go on working, and warn, until the version that removes them.

The warning says since when, until when and what to write instead. It points at the caller's line, where Python shows it
once. `warnings.deprecated` (Python 3.13) does a part of this: it marks whole functions, and knows of no versions.

The policy is in CONTRIBUTING.md. Versions are written as literals, ``since="0.2", removed_in="0.4"``:
tests/test_deprecation.py reads them, and fails once the version has come that a deprecation names as its end.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from operator import attrgetter
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from jaxvars.errors import InvalidTypeError

__all__ = ["deprecated", "renamed_argument", "renamed_attributes"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
# The warning is for whoever wrote the call, which may have come through these.
_BETWEEN = ("jaxvars", "jax", "importlib", "_frozen_importlib")


def deprecated(
    what: str, *, instead: str, since: str, removed_in: str
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator for a function or method that goes away.

    Args:
      what: its public name, such as ``"jv.train.old()"``.
      instead: what to write instead.
      since: the version that deprecates it.
      removed_in: the version that will not have it any more.

    Returns:
      A decorator. The function does what it did; its ``__deprecated__`` is the text, as `warnings.deprecated` has it.

    Example:
      >>> @deprecated("jv.half()", instead="x / 2", since="0.2", removed_in="0.4")
      ... def half(x):
      ...     return x / 2
      >>> half.__deprecated__
      'jv.half() is deprecated since jaxvars 0.2 and will be removed in 0.4. Write: x / 2'
    """

    def mark(function: Callable[_P, _R]) -> Callable[_P, _R]:
        text = _text(what, instead, since, removed_in)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            _warn(text)
            return function(*args, **kwargs)

        vars(call)["__deprecated__"] = text
        return call

    return mark


def renamed_argument(
    old: str, new: str, *, since: str, removed_in: str
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator for a function or method that still takes the keyword `old` for its argument `new`.

    Args:
      old: the former name.
      new: the name in the function's signature.
      since: the version that renames it.
      removed_in: the version that will not take `old` any more.

    Returns:
      A decorator. A call with both names raises `InvalidTypeError`.

    Example:
      >>> @renamed_argument("keep_dims", "keepdims", since="0.2", removed_in="0.4")
      ... def total(x, keepdims=False):
      ...     return x, keepdims
      >>> total(1, keepdims=True)
      (1, True)
    """

    def mark(function: Callable[_P, _R]) -> Callable[_P, _R]:
        name = f"{function.__qualname__}()"
        text = _text(f"{old}= of {name}", f"{new}=", since, removed_in)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if old in kwargs:
                if new in kwargs:
                    raise InvalidTypeError(f"{name} was given {old}= and {new}=, its new name. Write {new}= alone")
                _warn(text)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return mark


def renamed_attributes(
    module: str,
    new_names: Mapping[str, str],
    *,
    since: str,
    removed_in: str,
    otherwise: Callable[[str], Any] | None = None,
) -> Callable[[str], Any]:
    """Return a module's ``__getattr__``, by which former names lead to what they are called now.

    Write ``__getattr__ = renamed_attributes(__name__, {"old": "new"}, since="0.2", removed_in="0.4")``.

    Args:
      module: the module's ``__name__``.
      new_names: former name -> name in the module now, or below it (``"train.Saver"``).
      since: the version that renames them.
      removed_in: the version that will not know the former names any more.
      otherwise: the module's ``__getattr__`` for all other names, where it has one already.

    Returns:
      The function; for an unknown name it raises ``AttributeError``.
    """
    public = "jv" + module.removeprefix("jaxvars") if module.startswith("jaxvars") else module
    texts = {old: _text(f"{public}.{old}", f"{public}.{new}", since, removed_in) for old, new in new_names.items()}

    def lookup(name: str) -> Any:
        if name in new_names:
            _warn(texts[name])
            return attrgetter(new_names[name])(sys.modules[module])
        if otherwise is not None:
            return otherwise(name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return lookup


def _text(what: str, instead: str, since: str, removed_in: str) -> str:
    return f"{what} is deprecated since jaxvars {since} and will be removed in {removed_in}. Write: {instead}"


def _warn(text: str) -> None:
    """Warn as `warnings.warn` does, at the caller's line, whatever lies between: `jax.jit`, say, or a decorator."""
    frame = _caller()
    warnings.warn_explicit(
        text,
        DeprecationWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _caller() -> FrameType:
    """The innermost call from outside of jaxvars and JAX; the outermost of all if there is none."""
    frame = sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _BETWEEN:
        frame = frame.f_back
    return frame

"""How a user's own initializer wants to be called: JAX's way, TF1's way, or without arguments.

JAX's way is ``f(key, shape, dtype)``, TF1's ``f(shape, dtype=..., partition_info=...)``. The parameter names
tell them
apart: ``shape`` first is TF1's way; anything before it is the key.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import jax

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.initializers._base import DType, Initializer, Shape

__all__ = ["Adapted", "ZeroArgument", "adapt", "instantiate", "takes_no_arguments"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_Way = Literal["positional", "keyword"]


class Adapted:
    """A user's initializer behind the signature ``(key, shape, dtype)``.

    Args:
      function: the user's initializer.
      needs_key: whether it takes a key, first.
      shape: how it takes the shape, None for not at all.
      dtype: how it takes the dtype.
      partition_info: whether it takes TF1's ``partition_info``, by keyword.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        needs_key: bool,
        shape: _Way | None = "positional",
        dtype: _Way | None = "positional",
        partition_info: bool = False,
    ) -> None:
        self.function = function
        self.needs_key = needs_key
        self.shape: _Way | None = shape
        self.dtype: _Way | None = dtype
        self.partition_info = partition_info

    def __call__(self, key: jax.Array | None, shape: Shape, dtype: DType, partition_info: Any = None) -> Any:
        """Call the user's function with what it takes; `partition_info` says which slice of a whole it makes."""
        arguments: list[Any] = [key] if self.needs_key else []
        keywords: dict[str, Any] = {}
        # TF1 gives the shape as a list, and ported code may add lists to it.
        given = shape if self.needs_key else list(shape)
        for name, way, value in (("shape", self.shape, given), ("dtype", self.dtype, dtype)):
            if way == "positional":
                arguments.append(value)
            elif way == "keyword":
                keywords[name] = value
        if self.partition_info:
            keywords["partition_info"] = partition_info
        return self.function(*arguments, **keywords)


class ZeroArgument:
    """A user's function without arguments behind the signature ``(key, shape, dtype)``."""

    needs_key = False

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def __call__(self, key: jax.Array | None, shape: Shape, dtype: DType) -> Any:
        """Call the function; whether the value has this shape and dtype is for the caller to check."""
        return self.function()


def instantiate(initializer: Any, name: str) -> Any:
    """Return an instance of an initializer class that was passed without ``()``, anything else as it is.

    Raises:
      InvalidTypeError: the class needs arguments.
    """
    if not isinstance(initializer, type):
        return initializer
    try:
        return initializer()
    except TypeError as error:
        raise InvalidTypeError(
            f'The initializer of variable "{name}" is the class {initializer.__name__}, which cannot be made '
            f"without arguments ({error}): write initializer={initializer.__name__}(...)."
        ) from error


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature
        return None


def takes_no_arguments(function: Callable[..., Any]) -> bool:
    """Whether `function` can be called without arguments."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = _parameters(function)
    return parameters is not None and all(p.default is not p.empty or p.kind in variadic for p in parameters)


def adapt(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return `function` as a callable of ``(key, shape, dtype)``.

    Args:
      function: an initializer of ours, one of JAX's, or one written for TF1.
      name: the variable, for errors.

    Returns:
      `function` itself if it is called JAX's way, else an `Adapted`.

    Raises:
      InvalidTypeError: it takes no arguments, though the variable has a shape.
      InvalidArgumentError: its parameters can be read neither way.
    """
    if isinstance(function, Initializer | Adapted | ZeroArgument):
        return function
    parameters = _parameters(function)
    if parameters is None:
        # NumPy's built-in makers (np.zeros, np.empty) have no signature, and are TF1's way.
        is_numpy = (getattr(function, "__module__", None) or "").startswith("numpy")
        return Adapted(function, needs_key=False, dtype="keyword") if is_numpy else function
    kinds = {p.kind for p in parameters}
    positional = [p.name for p in parameters if p.kind in _POSITIONAL]
    everything = positional + [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if inspect.Parameter.VAR_POSITIONAL in kinds and len(positional) < 3:
        return function
    if not positional:
        raise InvalidTypeError(
            f'The initializer of variable "{name}", {_describe(function)}, takes 0 positional arguments, but '
            "the variable has a shape. Leave out shape=, or let the initializer take (key, shape, dtype)."
        )
    if not _is_tf1(positional, kinds):
        return _adapt_jax(function, positional, everything, name)
    if "dtype" in everything or inspect.Parameter.VAR_KEYWORD in kinds:
        return Adapted(
            function,
            needs_key=False,
            dtype="keyword",
            partition_info="partition_info" in everything,
        )
    return Adapted(function, needs_key=False, dtype=None, partition_info="partition_info" in everything)


def _is_tf1(positional: list[str], kinds: set[Any]) -> bool:
    """Whether the first argument is the shape rather than a key."""
    if "shape" in positional:
        return positional[0] == "shape"
    if "dtype" in positional:
        return positional.index("dtype") == 1
    # TF1 always passes dtype= by name: a function without such a parameter was written for JAX.
    return len(positional) == 1 and inspect.Parameter.VAR_KEYWORD in kinds


def _adapt_jax(function: Callable[..., Any], positional: list[str], everything: list[str], name: str) -> Any:
    if len(positional) >= 3:
        return function
    if len(positional) == 2:
        return Adapted(function, needs_key=True, dtype="keyword" if "dtype" in everything else None)
    if "shape" in everything:  # functools.partial(jax.random.truncated_normal, lower=-2, upper=2)
        return Adapted(function, True, shape="keyword", dtype="keyword" if "dtype" in everything else None)
    raise InvalidArgumentError(
        f'The initializer passed is not valid. That of variable "{name}", {_describe(function)}, takes '
        f"({', '.join(everything)}): it should take (key, shape, dtype), as jax.nn.initializers do, or "
        "(shape, dtype), as TF1's did."
    )


def _describe(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)

"""Transforms as text, as rules files have them: read without running any code but that of `jv.rules`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from jaxvars.errors import InvalidArgumentError, nearest_names
from jaxvars.rules import transforms
from jaxvars.rules.steps import ValueTransform

__all__ = ["parse_transform"]

_KNOWN: dict[str, Callable[..., ValueTransform]] = {
    "cast": transforms.cast,
    "concat": transforms.concat,
    "pad": transforms.pad,
    "reshape": transforms.reshape,
    "slice": transforms.slice,
    "split": transforms.split,
    "stack": transforms.stack,
    "transpose": transforms.transpose,
    "unstack": transforms.unstack,
}
_LONGEST = 10_000


def parse_transform(text: str) -> ValueTransform:
    """Return the transform that a text stands for: what ``repr`` of it gives.

    Args:
      text: calls of `jv.rules` with literal arguments, joined by ``>>``.

    Raises:
      InvalidArgumentError: it is anything else.

    Example:
      >>> parse_transform("transpose(1, 0) >> cast('bfloat16')")
      transpose(1, 0) >> cast('bfloat16')
    """
    if len(text) > _LONGEST:
        raise InvalidArgumentError(f"A transform of {len(text)} characters.")
    try:
        return _transform(ast.parse(text.strip(), mode="eval").body, text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise InvalidArgumentError(f"{text!r:.200} is no transform: {error}") from None


def _transform(node: ast.expr, text: str) -> ValueTransform:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift):
        return _transform(node.left, text) >> _transform(node.right, text)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise InvalidArgumentError(
            f"{text!r:.200} is no transform. Transforms are calls of {', '.join(_KNOWN)}, joined by >>, "
            "as in transpose(1, 0) >> cast('bfloat16')"
        )
    name = node.func.id
    if name not in _KNOWN:
        near = nearest_names(name, _KNOWN)
        hint = f" Did you mean {near[0]}?" if near else f" There are {', '.join(_KNOWN)}."
        raise InvalidArgumentError(f"{text!r:.200}: there is no transform {name}.{hint}")
    if any(keyword.arg is None for keyword in node.keywords):
        raise InvalidArgumentError(f"{text!r:.200}: arguments of a transform are written out.")
    arguments: list[Any] = [ast.literal_eval(argument) for argument in node.args]
    named: dict[str, Any] = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg is not None}
    return _KNOWN[name](*arguments, **named)

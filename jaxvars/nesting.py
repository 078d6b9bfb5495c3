"""Between flat names and nested trees: ``{"a/b": x}`` and ``{"a": {"b": x}}``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, cast

import jax

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.state import State

__all__ = ["flat_items", "nested"]

_UNSET = object()


def nested(state: State, sep: str) -> dict[str, Any]:
    """Return the values as nested dicts, names split at `sep`."""
    if not isinstance(cast(object, sep), str) or not sep:
        raise InvalidArgumentError(f"to_nested: sep is a non-empty string, got {sep!r}")
    keys = state._layout.keys
    names = set(keys)
    parents = {key: [sep.join(parts[:n]) for n in range(1, len(parts))] for key in keys if (parts := key.split(sep))}
    clashes = [f'  "{up}" and "{key}"' for key in keys for up in parents[key] if up in names]
    if clashes:
        raise InvalidArgumentError(
            "\n".join(["to_nested: a name cannot be both a variable and a scope:", *clashes]) + "\nWrite one of:\n"
            "    variables.select(list(model.specs(*args)))    # the model's own, without slots and averages\n"
            "    variables.rename([(name, other_name)])"
        )
    tree: dict[str, Any] = {}
    for key, leaf in zip(keys, state._leaves, strict=True):
        *scopes, last = key.split(sep)
        node = tree
        for scope in scopes:
            node = node.setdefault(scope, {})
        node[last] = leaf
    return tree


def flat_items(tree: Any, sep: str) -> dict[str, Any]:
    """Return name -> leaf of a nested tree of mappings, sequences, dataclasses and other pytrees."""
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    for path, leaf in _walk(tree, ()):
        name = sep.join(path)
        place = " -> ".join(map(repr, path))
        if not name:
            raise InvalidTypeError(
                f"Variables.from_nested takes a nested mapping, got {type(tree).__name__}: no names in it."
            )
        if name in found:
            problems.append(f'  "{name}" from {places[name]} and from {place}')
        found[name], places[name] = leaf, place
    if problems:
        raise InvalidArgumentError("\n".join(["from_nested: several leaves get one name:", *problems]))
    return found


def _walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves with their paths. Mappings and dataclasses that JAX takes for leaves are entered too."""
    items: Any = _UNSET
    if isinstance(node, Mapping):
        items = cast("Mapping[Any, Any]", node).items()
    elif dataclasses.is_dataclass(node) and not isinstance(node, type) and not _is_value(node):
        items = [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node)]
    if items is not _UNSET:
        for key, child in items:
            yield from _walk(child, (*path, str(key)))
        return
    if isinstance(node, jax.ShapeDtypeStruct):
        yield path, node
        return
    children, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)
    for steps, child in children:
        if not steps:
            yield path, child
        else:
            yield from _walk(child, (*path, *map(_step_name, steps)))


def _is_value(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _step_name(step: Any) -> str:
    """The text of one step of a JAX key path: a dict key, an index or an attribute name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(step, attribute):
            return str(getattr(step, attribute))
    return str(step).strip(".[]'\"")

"""Choosing variables: the positions that a property, scope or rule set stands for, and the state of those."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from jaxvars.errors import InvalidArgumentError, NotFoundError, nearest_names
from jaxvars.spec import leaf_dtype, leaf_shape
from jaxvars.state import State

__all__ = ["chosen", "in_collection", "in_scope", "mapped", "taken", "view"]

S = TypeVar("S", bound=State)


def view(state: S, name: Any, positions: Callable[[], Iterable[int]]) -> S:
    """Return the state of just these ascending positions; found once per layout and `name`."""
    layout = state._layout

    def find() -> tuple[tuple[int, ...], Any]:
        found = tuple(positions())
        return found, layout.subset(found)

    found, smaller = layout.cached(name, find)
    return state if smaller is layout else state._part(found, smaller)


def taken(state: S, positions: tuple[int, ...]) -> S:
    """Return the state of just these ascending positions."""
    return state._part(positions, state._layout.subset(positions))


def in_scope(state: State, scope: str) -> list[int]:
    """Positions of the variable or scope of exactly this name and of everything below it."""
    name = scope.strip("/")
    keys = state._layout.keys
    found = [i for i, key in enumerate(keys) if not name or key == name or key.startswith(name + "/")]
    if not found:
        scopes = {key[:i] for key in keys for i, char in enumerate(key) if char == "/"}
        near = nearest_names(name, sorted(scopes))
        raise NotFoundError(
            f'scope "{name}" does not exist among these {len(keys)} variables.'
            + (f" Nearest: {', '.join(near)}." if near else "")
        )
    return found


def in_collection(state: State, key: str, scope: str | None) -> list[int]:
    """Positions of the members of a collection, whose names match TF1's prefix regex `scope`."""
    try:
        prefix = re.compile(scope) if scope else None
    except re.error as error:
        raise InvalidArgumentError(f'collection("{key}", scope={scope!r}): not a regex: {error}') from None
    layout = state._layout
    return [
        i
        for i, (name, collections) in enumerate(zip(layout.keys, layout.collections, strict=True))
        if key in collections and (prefix is None or prefix.match(f"{name}:0"))
    ]


def chosen(state: State, rules: Any, op: str, *, allow_unmatched: bool = False) -> tuple[int, ...]:
    """Return the positions that `rules` choose.

    Args:
      state: the state to choose from.
      rules: a pattern, name, handle or spec; a list of these (first match wins, (pattern, None) leaves out);
        a function ``(key, spec) -> bool``; or another state, for its names.
      op: the function they were given to, for error texts.
      allow_unmatched: accept patterns that match nothing.

    Raises:
      NotFoundError: a pattern matches nothing.
    """
    layout = state._layout
    if isinstance(rules, State):
        missing = [key for key in rules if key not in layout.index]
        if missing and not allow_unmatched:
            raise NotFoundError(f"{op}: these names do not exist here: {', '.join(missing)}")
        return tuple(i for i, key in enumerate(layout.keys) if key in rules)
    if callable(rules) and not isinstance(getattr(rules, "key", None), str):
        return _satisfying(state, cast("Callable[..., Any]", rules))

    def find() -> tuple[int, ...]:
        from jaxvars.rules import parse_patterns  # here: `import jaxvars` does without

        matches = parse_patterns(rules, op=op).resolve(layout.keys, allow_unmatched=allow_unmatched)
        found = [matches[key] for key in layout.keys]
        return tuple(i for i, match in enumerate(found) if match is not None and match.replacement)

    if isinstance(rules, str):
        return layout.cached(("chosen", rules, allow_unmatched), find)
    if isinstance(rules, list | tuple) and all(isinstance(rule, str) for rule in rules):
        return layout.cached(("chosen", tuple(rules), allow_unmatched), find)
    return find()


def _satisfying(state: State, predicate: Callable[..., Any]) -> tuple[int, ...]:
    layout = state._layout
    return tuple(
        i
        for i, (key, leaf) in enumerate(zip(layout.keys, state._leaves, strict=True))
        if predicate(key, layout.spec(i, leaf_shape(leaf), leaf_dtype(leaf)))
    )


def mapped(state: State, rules: Any, op: str, *, allow_unmatched: bool = False) -> dict[int, Any]:
    """Return position -> value for what rules pattern -> value say; positions without a rule are absent."""
    from jaxvars.rules import parse_values  # here: `import jaxvars` does without

    layout = state._layout
    matches = parse_values(rules, op=op).resolve(layout.keys, allow_unmatched=allow_unmatched)
    found = {layout.index[key]: match for key, match in matches.items()}
    return {i: match.replacement for i, match in found.items() if match is not None}

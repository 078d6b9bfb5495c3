"""`Variables`: the state of a model, an immutable mapping from names to arrays and one pytree node."""

from __future__ import annotations

from typing import Any

import jax

from jaxvars.layout import Layout
from jaxvars.state import State

__all__ = ["Variables"]


class Variables(State):
    """The state of a model: an immutable mapping from names to arrays, and one pytree node."""

    __slots__ = ()


def _flatten(variables: Variables) -> tuple[tuple[Any, ...], Layout]:
    return variables._leaves, variables._layout


def _flatten_with_keys(variables: Variables) -> tuple[tuple[tuple[Any, Any], ...], Layout]:
    layout = variables._layout
    return tuple(zip(layout.core.key_paths, variables._leaves, strict=True)), layout


def _unflatten(layout: Layout, children: Any) -> Variables:
    # Anything may come back in the place of a leaf (None, masks, shapes, tracers): nothing is checked.
    return Variables._of(layout, children if type(children) is tuple else tuple(children))


jax.tree_util.register_pytree_with_keys(Variables, _flatten_with_keys, _unflatten, _flatten)

"""A model for programs that know only functions and dicts: two functions, and nested dicts."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxvars.buffers import copied
from jaxvars.errors import InvalidTypeError, JaxvarsError
from jaxvars.interop._wrapping import grouped
from jaxvars.interop.collections import PARAMS, STATE, flat, nested
from jaxvars.spec import VariableSpec
from jaxvars.transform import Model
from jaxvars.variables import Variables

__all__ = ["to_pure"]

Tree: TypeAlias = dict[str, dict[str, Any]]


def to_pure(model: Model, variables: Variables) -> tuple[Callable[..., Tree], Callable[..., tuple[Any, Tree]], Tree]:
    """Return (init_fn, apply_fn, tree); see `Model.to_pure`."""
    specs = variables.variable_specs  # the functions must not keep the values alive

    def init_fn(rng: Any, *args: Any, **kwargs: Any) -> Tree:
        """Make new values: ``{"params": ..., "state": ...}``."""
        with _in_these_words():
            made = model.init(rng, *args, **kwargs)
        return _tree(_with_flags_of(made, specs))

    def apply_fn(tree: Tree, *args: Any, rng: Any = None, **kwargs: Any) -> tuple[Any, Tree]:
        """Run the model; returns its result, and the tree with what it has changed."""
        with _in_these_words():
            out, after = model.apply(_variables(tree, specs), *args, rng=rng, **kwargs)
        return out, _tree(after)

    return init_fn, apply_fn, jax.tree.map(copied, _tree(variables))  # to donate theirs leaves ours whole


# What the texts of errors say, and what that is where there are these functions.
_WORDS = [
    (r"out, variables = model\.apply\(variables, ", "out, tree = apply_fn(tree, "),
    (r"variables = model\.init\(0, \*args, variables=.*", "tree = init_fn(0, *args)    # makes all values anew"),
    (r"model\.init\(", "init_fn("),
    (r"jax\.jit\(model\.apply, ", "jax.jit(apply_fn, "),
    (r"\n    (kept = variables\.select|with jv\.VariableStore).*", ""),
]


@contextmanager
def _in_these_words() -> Generator[None]:
    """Let errors say what to write for somebody who has no model and no variables."""
    try:
        yield
    except JaxvarsError as error:
        text = str(error)
        for pattern, words in _WORDS:
            text = re.sub(pattern, words, text)
        error.args = (text,)
        raise


def _tree(variables: Variables) -> Tree:
    groups = grouped(variables)
    return {group: nested(groups.get(group, {}), "to_pure") for group in (PARAMS, STATE)}


def _with_flags_of(made: Variables, specs: Mapping[str, VariableSpec]) -> Variables:
    """The new variables, frozen or not as those are that the functions were made for."""
    flags = {
        re.escape(name): specs[name].trainable
        for name, spec in made.variable_specs.items()
        if name in specs and specs[name].trainable != spec.trainable
    }
    return made.with_trainable(flags) if flags else made


def _variables(tree: Any, specs: Mapping[str, VariableSpec]) -> Variables:
    """The variables of a tree: all but shape and dtype as in `specs`."""
    if not isinstance(tree, Mapping) or not set(tree) <= {PARAMS, STATE}:
        shown = f"keys {', '.join(map(str, tree))}" if isinstance(tree, Mapping) else type(tree).__name__
        raise InvalidTypeError(
            f'apply_fn takes a tree as init_fn returns it, {{"params": {{...}}, "state": {{...}}}}, got {shown}.'
        )
    pairs: list[tuple[VariableSpec, Any]] = []
    for group, branch in tree.items():
        for name, leaf in flat(branch, "apply_fn").items():
            value = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
            known = specs.get(name) or VariableSpec(name, value.shape, value.dtype, group == PARAMS)
            pairs.append((known, value))
    return Variables.from_specs(pairs)

"""The arguments of an exported model, by name: which are arrays, and which were fixed when it was exported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError, JaxvarsError
from jaxvars.spec import leaf_dtype, leaf_shape

__all__ = ["Argument", "described", "flat_arguments", "is_array", "matched", "shown"]


class Argument(NamedTuple):
    """One leaf of the arguments: where it is, such as ``"x['image']"``, and what."""

    name: str
    leaf: Any


def is_array(leaf: Any) -> bool:
    """Return whether a leaf becomes an input of the program; all else is fixed in it."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def flat_arguments(parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Argument]:
    """Return the leaves of a call's arguments, positional ones first.

    Args:
      parameters: the names of the positional parameters, where they are known.
      args: the positional arguments.
      kwargs: the keyword arguments.
    """
    tops = [(parameters[i] if i < len(parameters) else f"args[{i}]", value) for i, value in enumerate(args)]
    flat: list[Argument] = []
    for top, value in [*tops, *sorted(kwargs.items())]:
        for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
            flat.append(Argument(top + jax.tree_util.keystr(path), leaf))
    return flat


def described(argument: Argument) -> dict[str, Any]:
    """Return an argument as the file keeps it: shape and dtype of an array, the value of what is fixed."""
    leaf = argument.leaf
    if is_array(leaf):
        shape = [dim if isinstance(dim, int) else str(dim) for dim in leaf.shape]
        return {"name": argument.name, "shape": shape, "dtype": str(leaf.dtype)}
    if isinstance(leaf, bool | int | float | str):
        return {"name": argument.name, "fixed": leaf}
    return {"name": argument.name, "fixed_object": f"{leaf!r:.80}"}


def shown(description: Mapping[str, Any]) -> str:
    """Return an argument as a person reads it: ``x: float32[batch,3]``."""
    if "dtype" in description:
        return f"{description['name']}: {description['dtype']}[{','.join(map(str, description['shape']))}]"
    return f"{description['name']} = {description.get('fixed', description.get('fixed_object'))!r}"


def matched(descriptions: Iterable[Mapping[str, Any]], given: Sequence[Argument]) -> list[Any]:
    """Return the arrays that the program takes, in its order, from the arguments of a call.

    Raises:
      InvalidArgumentError: missing or unknown arguments, other shapes, other values of what was fixed: all of them.
      InvalidTypeError: only other dtypes.
    """
    descriptions = list(descriptions)
    by_name = {argument.name: argument.leaf for argument in given}
    known = {description["name"] for description in descriptions}
    problems: list[JaxvarsError] = [
        InvalidArgumentError(f"{name}: the exported model has no such argument")
        for name in by_name
        if name not in known
    ]
    arrays: list[Any] = []
    for description in descriptions:
        try:
            if "dtype" in description:
                arrays.append(_array(description, by_name))
            else:
                _check_fixed(description, by_name)
        except JaxvarsError as error:
            problems.append(error)
    if problems:
        kind = InvalidTypeError if all(isinstance(p, InvalidTypeError) for p in problems) else InvalidArgumentError
        lines = "\n".join(f"    {problem}" for problem in problems)
        takes = ", ".join(map(shown, descriptions)) or "none"
        raise kind(f"The arguments do not fit the exported model:\n{lines}\nIt takes {takes}.")
    return arrays


def _array(description: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    name = description["name"]
    if name not in given:
        raise InvalidArgumentError(f"{shown(description)} is missing")
    leaf = given[name]
    array = cast(Any, leaf if is_array(leaf) else jnp.asarray(leaf))
    shape, wanted = leaf_shape(array), description["shape"]
    fits = len(shape) == len(wanted) and all(isinstance(w, str) or w == d for w, d in zip(wanted, shape, strict=True))
    if not fits:
        raise InvalidArgumentError(f"{shown(description)} was given shape {list(shape)}")
    dtype = jax.dtypes.canonicalize_dtype(leaf_dtype(array)) if isinstance(array, np.ndarray) else leaf_dtype(array)
    if str(dtype) != description["dtype"]:
        raise InvalidTypeError(f"{shown(description)} was given dtype {dtype}")
    return array


def _check_fixed(description: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """What was fixed may be left out, or given again with the same value."""
    name = description["name"]
    if name not in given:
        return
    leaf = given[name]
    if "fixed" not in description or isinstance(leaf, bool) != isinstance(description["fixed"], bool):
        same = False
    else:
        same = isinstance(leaf, bool | int | float | str) and leaf == description["fixed"]
    if not same:
        raise InvalidArgumentError(f"{shown(description)} was fixed when the model was exported; leave it out")

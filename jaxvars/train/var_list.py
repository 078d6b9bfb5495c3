"""A saver's `var_list`: which variables, and under which names in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from jaxvars.checkpoint.slices import are_slices, whole_of
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.state import key_of
from jaxvars.variables import Variables

__all__ = ["names_in_file"]


def names_in_file(var_list: Any) -> dict[str, str]:
    """Name in the file -> variable, of a var_list; every problem of TF1's is an error here."""
    if isinstance(var_list, Variables):
        return {key: key for key in var_list}
    if isinstance(var_list, Mapping):
        names = {str(name): _key(ref) for name, ref in cast("Mapping[Any, Any]", var_list).items()}
        seen: dict[str, str] = {}
        for name, key in names.items():
            if key in seen:
                raise InvalidArgumentError(
                    f"The same saveable will be restored with two names: {key} as {seen[key]!r} and {name!r}"
                )
            seen[key] = name
        return names
    if isinstance(var_list, str) or not isinstance(var_list, Iterable) or hasattr(var_list, "key"):
        raise InvalidTypeError(
            f"Variables to save should be passed in a dict or a list, not {type(var_list).__name__}: "
            'Saver(var_list=["a/b"]) or Saver(var_list={"name in file": "a/b"})'
        )
    keys = [_key(ref) for ref in _whole(list(cast("Iterable[Any]", var_list)))]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise InvalidArgumentError(f"At least two variables have the same name: {', '.join(twice)}")
    return {key: key for key in keys}


def _whole(refs: list[Any]) -> list[Any]:
    """The list with slices of partitioned variables replaced by the name of the whole."""
    slices: dict[str, list[Any]] = {}
    for ref in refs:
        if are_slices([ref]):
            slices.setdefault(ref.key, []).append(ref)
    return [*(ref for ref in refs if not are_slices([ref])), *map(whole_of, slices.values())]


def _key(ref: Any) -> str:
    if are_slices(ref):
        return whole_of(ref)
    key = key_of(ref)
    if key is None:
        raise InvalidTypeError(
            f"Variable to save is not a Variable: it is {type(ref).__name__}; pass the name or the handle"
        )
    return key.removesuffix(":0")

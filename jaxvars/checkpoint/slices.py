"""Slices of a partitioned variable where a variable may be named: together they stand for the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

from jaxvars.errors import InvalidArgumentError
from jaxvars.partitioned import Slice

__all__ = ["are_slices", "whole_of"]


def are_slices(refs: Any) -> TypeGuard[Sequence[Slice]]:
    """Whether `refs` is a list or tuple of slices, as ``list(partitioned_variable)`` is."""
    return isinstance(refs, list | tuple) and bool(refs) and all(isinstance(ref, Slice) for ref in refs)


def whole_of(slices: Sequence[Slice]) -> str:
    """Return the name of the variable whose slices these are.

    Raises:
      InvalidArgumentError: they are of several variables, or some are missing.
    """
    names = list(dict.fromkeys(part.key for part in slices))
    if len(names) > 1:
        raise InvalidArgumentError(f"Slices must all be from the same variable; these are of {', '.join(names)}.")
    given = sum(math.prod(shape) for shape in {part.name: part.shape for part in slices}.values())
    wanted = math.prod(slices[0]._part.whole.shape)
    if given != wanted:
        raise InvalidArgumentError(
            f"{names[0]} has {wanted} elements, and the slices given have {given}. A checkpoint has one value for all "
            f"slices: write {names[0]!r}, or list(variable)."
        )
    return names[0]

"""The errors jaxvars raises, under TensorFlow's names.

Every error is a `JaxvarsError` and also the built-in exception that TF1 code of the same situation
caught (``ValueError`` for a name that already exists, ``KeyError`` for a missing name, ...), so that
ported ``except`` clauses keep working. Texts say what happened, to which variable, where it was first
defined, and the line to write instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "DataLossError",
    "FailedPreconditionError",
    "InvalidArgumentError",
    "InvalidTypeError",
    "JaxvarsError",
    "NotFoundError",
    "OutOfRangeError",
    "TransformError",
    "UnavailableError",
    "nearest_names",
    "some_names",
]


class JaxvarsError(Exception):
    """Base class of every error that jaxvars raises on purpose."""


class InvalidArgumentError(JaxvarsError, ValueError):
    """A value, shape, name or scope rule is wrong (TF1: ``ValueError``, ``InvalidArgumentError``)."""


class InvalidTypeError(JaxvarsError, TypeError):
    """A value of the wrong type or dtype, such as a float assigned to an int (TF1: ``TypeError``)."""


class NotFoundError(JaxvarsError, KeyError):
    """A name that is not there: in the variables, or in a checkpoint (TF1: ``NotFoundError``)."""

    def __str__(self) -> str:
        # KeyError shows repr(message), which would print the newlines of a longer text as "\n".
        return str(self.args[0]) if self.args else ""


class FailedPreconditionError(JaxvarsError, RuntimeError):
    """The call came at the wrong time: outside a frame, before initialization, after donation."""


class TransformError(FailedPreconditionError):
    """A use of a variable that this JAX transform cannot carry, such as a write under ``vmap``."""


class OutOfRangeError(JaxvarsError, IndexError):
    """An index or a counter beyond its limit (TF1: ``OutOfRangeError``)."""


class DataLossError(JaxvarsError, OSError):
    """A file is damaged: a checksum, length or structure is wrong (TF1: ``DataLossError``)."""


class UnavailableError(JaxvarsError, ImportError):
    """An optional package or a JAX feature that this call needs is missing."""


def nearest_names(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """Return the candidates that look most like `name`, best first.

    Names that end in the same last component come first, so that a forgotten scope is found.

    Args:
      name: the name that was not found.
      candidates: the names that exist.
      limit: how many to return at most.

    Returns:
      At most `limit` names, possibly none.

    Example:
      >>> nearest_names("conv1/weight", ["conv1/weights", "conv1/biases", "logits"])
      ['conv1/weights']
    """
    pool = list(dict.fromkeys(candidates))
    last = name.rsplit("/", 1)[-1]
    same_ending = [c for c in pool if c.rsplit("/", 1)[-1] == last and c != name]
    by_ending = difflib.get_close_matches(name, same_ending, n=limit, cutoff=0.0)
    by_look = difflib.get_close_matches(name, pool, n=limit, cutoff=0.6)
    return list(dict.fromkeys([*by_look, *by_ending]))[:limit]


def some_names(names: Sequence[str], most: int = 5) -> str:
    """Return the first of the names, and how many more there are, for an error's text.

    Example:
      >>> some_names(["a", "b", "c"], most=2)
      'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

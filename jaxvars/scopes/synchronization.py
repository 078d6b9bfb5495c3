"""TF1's enums for replicated variables; only ``ON_READ`` has an effect: such a variable is not trainable."""

from __future__ import annotations

import enum

from jaxvars._source import user_site
from jaxvars.errors import InvalidArgumentError

__all__ = ["VariableAggregation", "VariableSynchronization", "resolve_trainable"]


class VariableSynchronization(enum.Enum):
    """When the copies of a replicated variable are brought together (``tf.VariableSynchronization``)."""

    AUTO = 0
    NONE = 1
    ON_WRITE = 2
    ON_READ = 3


class VariableAggregation(enum.Enum):
    """How the copies of a replicated variable are brought together (``tf.VariableAggregation``)."""

    NONE = 0
    SUM = 1
    MEAN = 2
    ONLY_FIRST_REPLICA = 3


def resolve_trainable(trainable: object, synchronization: object, aggregation: object, name: str) -> bool:
    """Return whether a variable is trainable: as asked, else yes, unless it is synchronized on reading.

    Args:
      trainable: the user's argument, ``None`` when not given.
      synchronization: ``None`` or a `VariableSynchronization`.
      aggregation: ``None`` or a `VariableAggregation`.
      name: the variable's full name, for the error.

    Returns:
      The flag.

    Raises:
      InvalidArgumentError: `synchronization` or `aggregation` is of another type.

    Example:
      >>> resolve_trainable(None, VariableSynchronization.ON_READ, None, "w")
      False
    """
    if synchronization is not None and not isinstance(synchronization, VariableSynchronization):
        raise _bad_mode("synchronization", synchronization, "VariableSynchronization.ON_READ", name)
    if aggregation is not None and not isinstance(aggregation, VariableAggregation):
        raise _bad_mode("aggregation", aggregation, "VariableAggregation.MEAN", name)
    if trainable is None:
        return synchronization is not VariableSynchronization.ON_READ
    return bool(trainable)


def _bad_mode(argument: str, value: object, example: str, name: str) -> InvalidArgumentError:
    site = user_site()
    return InvalidArgumentError(
        f"Invalid variable {argument} mode: {value!r} for variable: {name}"
        f"{f' at {site}' if site else ''}. Write for example {argument}=jv.{example}."
    )

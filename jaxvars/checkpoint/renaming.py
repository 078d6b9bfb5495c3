"""Tensors of a checkpoint under other names, by rules in the direction of `rename`; for `diff` and `convert`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.errors import InvalidArgumentError, JaxvarsError
from jaxvars.rules import Match, new_name, parse_rules, rename_map

__all__ = ["Renamed", "renamed"]

_DIRECTION = "In diff and convert a pattern matches the name in the first checkpoint; the replacement is the new name."


class Renamed(NamedTuple):
    """One tensor under its new name.

    Attributes:
      name: the new name.
      info: the tensor, with its name in the file.
      transform: what its rule does to the values, or None.
    """

    name: str
    info: TensorInfo
    transform: Callable[[Any], Any] | None = None

    @property
    def transform_name(self) -> str:
        """A short name of the transform, "" without one."""
        return "" if self.transform is None else getattr(self.transform, "__name__", repr(self.transform))

    def transformed(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what the rule makes of the tensor's values.

        Raises:
          InvalidArgumentError: the rule's function fails, or returns no array.
        """
        if self.transform is None:
            return array
        try:
            result = np.asarray(self.transform(array), order="C")
        except JaxvarsError:
            raise
        except Exception as error:
            raise InvalidArgumentError(f"{self._whose()} failed: {type(error).__name__}: {error}") from error
        texts = result.dtype == array.dtype == np.dtype(object)
        if not (texts or result.dtype.kind == "b" or jnp.issubdtype(result.dtype, np.number)):
            raise InvalidArgumentError(f"{self._whose()} returned no array of numbers.")
        return result

    def _whose(self) -> str:
        info = self.info
        return f"The function {self.transform_name} of the rule for {info.name}, {info.type_name} {list(info.shape)},"


def renamed(tensors: Mapping[str, TensorInfo], rules: Any, op: str) -> list[Renamed]:
    """Return all tensors under their new names, in the same order.

    Args:
      tensors: the tensors by their present names.
      rules: as for ``Variables.rename``, or None.
      op: the user's function, for errors.

    Raises:
      NotFoundError: a rule matches no name.
      InvalidArgumentError: two names become one; all are listed.
    """
    if rules is None:
        return [Renamed(name, info) for name, info in tensors.items()]
    matches = rename_map(list(tensors), parse_rules(rules, op=op, direction=_DIRECTION))
    return [_renamed(name, info, matches[name]) for name, info in tensors.items()]


def _renamed(name: str, info: TensorInfo, match: Match | None) -> Renamed:
    if match is None:
        return Renamed(name, info)
    name = new_name(name, match)
    if match.rule.transform is None or info.dtype == np.dtype(object):
        return Renamed(name, info, match.rule.transform)
    return Renamed(name, info, match.transform_for(name, jax.ShapeDtypeStruct(info.shape, info.dtype)))

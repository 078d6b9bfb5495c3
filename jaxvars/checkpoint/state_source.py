"""Variables in memory, as the readers of files see a checkpoint: for comparing the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy.typing as npt
from jax.core import Tracer

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.spec import VariableSpec, is_hole
from jaxvars.variables import Variables

__all__ = ["StateSource"]


class StateSource:
    """A state as a source of tensors, in the dtypes that its variables have.

    Args:
      variables: the state.

    Attributes:
      format: "variables".
      path: what to call the state.
      tensors: its variables; random keys as the numbers behind them. What has no value here has a `problem`.
      specs: the specs of the variables.
    """

    format = "variables"
    path = "jv.Variables"

    def __init__(self, variables: Variables) -> None:
        self.specs: Mapping[str, VariableSpec] = variables.variable_specs
        self._items = {name: Outgoing(spec, variables[name]) for name, spec in self.specs.items()}
        self.tensors: Mapping[str, TensorInfo] = {name: _info(item) for name, item in self._items.items()}

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return the values of one variable on the host."""
        return self._items[name].plain_array()

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array)."""
        return ((name, self.read(name)) for name in names)

    def close(self) -> None:
        """There is nothing to close."""


def _info(item: Outgoing) -> TensorInfo:
    return TensorInfo(item.name, item.shape, item.plain_dtype, str(item.plain_dtype), _problem(item.value))


def _problem(value: Any) -> str:
    if is_hole(value):
        return "it is uninitialized"
    if isinstance(value, Tracer):
        return "it has no value inside jit or another JAX transformation"
    return "" if getattr(value, "is_fully_addressable", True) else "other processes have parts of it"

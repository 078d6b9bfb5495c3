"""Initial values that come from a checkpoint, read when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax

from jaxvars.checkpoint.plan import make_plan
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.checkpoint.restore import restore_from
from jaxvars.initializers._base import FLOAT32, DType, Initializer, Shape
from jaxvars.variables import Variables

__all__ = ["FromCheckpoint", "OpenWhenRead"]


class OpenWhenRead:
    """A checkpoint that is opened at the first read, once for all initializers that share this.

    Args:
      path: the path that opens it.
    """

    __slots__ = ("_reader", "path")

    def __init__(self, path: str) -> None:
        self.path: str = path
        self._reader: CheckpointReader | None = None

    def reader(self) -> CheckpointReader:
        """Return the open reader."""
        if self._reader is None:
            self._reader = open_checkpoint(self.path)
        return self._reader

    def __reduce__(self) -> Any:
        return OpenWhenRead, (self.path,)


@dataclass(frozen=True, repr=False)
class FromCheckpoint(Initializer):
    """The values of one tensor of a checkpoint.

    Args:
      path: the checkpoint.
      name: the tensor's name in it.
      opened: opens `path`.
      dtype: the variable's dtype.

    Raises:
      InvalidArgumentError: on use: the tensor has another shape or dtype by then.
      NotFoundError: on use: checkpoint or tensor are gone by then.
    """

    path: str
    name: str
    opened: OpenWhenRead = field(compare=False, repr=False)
    dtype: Any = FLOAT32
    spelling: ClassVar[str] = "FromCheckpoint"

    def _values(self, key: jax.Array | None, shape: Shape, dtype: DType) -> jax.Array:
        into = Variables({self.name: jax.ShapeDtypeStruct(shape, dtype)})
        reader = self.opened.reader()
        plan = make_plan(reader, self.path, into, None, None, False, "restore")
        error = plan.error()
        if error is not None:
            raise error
        return restore_from(reader, plan, into, False)[self.name]

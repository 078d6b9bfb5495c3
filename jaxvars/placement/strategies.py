"""Strategies: values that say, for a variable, over which axes of a mesh each of its dimensions is spread.

A strategy answers what it wants. What a shape cannot have of that is left out where the value is made (`fitting`), so a
strategy never has to refuse.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from jax.sharding import PartitionSpec

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.fitting import axes_of, entry_axes
from jaxvars.rules import RuleSet, parse_values

__all__ = [
    "DataParallel",
    "FullySharded",
    "Partitioned",
    "Replicated",
    "Strategy",
    "TensorParallel",
    "data_parallel",
    "fsdp",
    "partitioned",
    "replicated",
    "tensor_parallel",
]

Axis: TypeAlias = "str | tuple[str, ...]"


class Strategy(Protocol):
    """What says where variables go, written once for all of them."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh axes that it names."""
        ...

    def __call__(self, op: Any, axis_sizes: Mapping[str, int] | None = None) -> PartitionSpec:
        """Return what is wanted for an op-like object with ``name``, ``shape``, ``dtype`` and ``partitions``."""
        ...


def _axis_names(axis: Axis) -> tuple[str, ...]:
    return (axis,) if isinstance(axis, str) else axis


def _checked_axis(axis: Any, function: str) -> Any:
    names = (axis,) if isinstance(axis, str) else tuple(axis) if isinstance(axis, tuple | list) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidTypeError(f"{function}: axis is the name of a mesh axis, or a tuple of names, got {axis!r:.60}")
    return names[0] if len(names) == 1 else names


def _spread_along(dimension: int, rank: int, axis: Axis) -> PartitionSpec:
    """The spec that spreads one dimension, counted from either end."""
    at = dimension % rank
    return PartitionSpec(*(axis if i == at else None for i in range(at + 1)))


@dataclasses.dataclass(frozen=True)
class Replicated:
    """See `replicated`."""

    axes: tuple[str, ...] = ()

    def __call__(self, op: Any, axis_sizes: Mapping[str, int] | None = None) -> PartitionSpec:
        """See `Strategy`."""
        return PartitionSpec()

    def __repr__(self) -> str:
        return "replicated()"


@dataclasses.dataclass(frozen=True)
class _OverAxis:
    """What a strategy over one axis, or several taken as one, has in common with others."""

    axis: Axis

    @property
    def axes(self) -> tuple[str, ...]:
        """See `Strategy`."""
        return _axis_names(self.axis)


@dataclasses.dataclass(frozen=True)
class DataParallel(_OverAxis):
    """See `data_parallel`."""

    def __call__(self, op: Any, axis_sizes: Mapping[str, int] | None = None) -> PartitionSpec:
        """See `Strategy`."""
        return PartitionSpec()

    def __repr__(self) -> str:
        return f"data_parallel({self.axis!r})"


@dataclasses.dataclass(frozen=True)
class FullySharded:
    """See `fsdp`."""

    axis: Axis
    min_size: int
    after: Strategy | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """See `Strategy`."""
        return (*(self.after.axes if self.after else ()), *_axis_names(self.axis))

    def __call__(self, op: Any, axis_sizes: Mapping[str, int] | None = None) -> PartitionSpec:
        """See `Strategy`: the largest dimension that the axis divides; where it divides none, the largest."""
        shape = tuple(op.shape)
        first = PartitionSpec() if self.after is None else self.after(op, axis_sizes)
        entries = [*first, *[None] * (len(shape) - len(first))]
        free = [i for i in range(len(shape)) if not entry_axes(entries[i])]
        if not free or math.prod(shape) < self.min_size:
            return first
        pieces = math.prod((axis_sizes or {}).get(name, 1) for name in _axis_names(self.axis))
        dimension = max(free, key=lambda i: (shape[i] % pieces == 0, shape[i]))
        entries[dimension] = self.axis
        return PartitionSpec(*entries[: max(len(first), dimension + 1)])

    def __repr__(self) -> str:
        after = "" if self.after is None else f", after={self.after!r}"
        return f"fsdp({self.axis!r}, min_size={self.min_size}{after})"


@dataclasses.dataclass(frozen=True)
class Partitioned(_OverAxis):
    """See `partitioned`."""

    def __call__(self, op: Any, axis_sizes: Mapping[str, int] | None = None) -> PartitionSpec:
        """See `Strategy`: the dimension that the partitioner cuts."""
        cut = [i for i, count in enumerate(op.partitions or ()) if count > 1]
        return _spread_along(cut[0], len(op.shape), self.axis) if cut else PartitionSpec()

    def __repr__(self) -> str:
        return f"partitioned({self.axis!r})"


# What `jv.layers` and `jv.nn.rnn_cell` name their variables. The last dimension of a kernel is that of the outputs,
# along which a bias is added; a table of embeddings has one row per symbol.
_LAYERS: tuple[tuple[str, str], ...] = (
    (r"(.*/)?(kernel|pointwise_kernel|bias)", "column"),
    (r"(.*/)?(embeddings?|embedding_table)", "row"),
)
_WAYS = ("column", "row")


@dataclasses.dataclass(frozen=True)
class TensorParallel:
    """See `tensor_parallel`."""

    axis: Axis
    rules: tuple[tuple[str, Any], ...] | None
    _parsed: RuleSet = dataclasses.field(repr=False, compare=False)

    @property
    def axes(self) -> tuple[str, ...]:
        """See `Strategy`."""
        found = dict.fromkeys(_axis_names(self.axis))
        for rule in self._parsed.rules:
            given = rule.replacement
            found |= dict.fromkeys(axes_of(given) if isinstance(given, PartitionSpec) else getattr(given, "axes", ()))
        return tuple(found)

    def __call__(self, op: Any, axis_sizes: Mapping[str, int] | None = None) -> PartitionSpec:
        """See `Strategy`."""
        match = self._parsed.match(op.name)
        way = None if match is None else match.replacement
        rank = len(op.shape)
        if way is None or not rank:
            return PartitionSpec()
        if isinstance(way, PartitionSpec):
            return way
        if way == "column":
            return _spread_along(-1, rank, self.axis)
        if way == "row":
            # A bias is one for all inputs; that of stacked layers has two dimensions.
            is_bias = rank == 1 or op.name.endswith("bias")
            return PartitionSpec() if is_bias else _spread_along(-2, rank, self.axis)
        return way(op, axis_sizes)

    def __repr__(self) -> str:
        shown = "" if self.rules is None else f"{list(self.rules)!r}, "
        return f"tensor_parallel({shown}axis={self.axis!r})"


def replicated() -> Replicated:
    """Return the strategy under which every device holds every variable whole.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> mesh = jv.placement.mesh(data=-1)
      >>> variables = jv.placement.apply(jv.Variables({"w": jnp.ones([4])}), mesh, jv.placement.replicated())
      >>> variables["w"].is_fully_replicated
      True
    """
    return Replicated()


def data_parallel(axis: Axis = "data") -> DataParallel:
    """Return the strategy of data parallelism: variables are whole everywhere, the batch is spread (`batch`).

    XLA adds the gradients up over the axis. TF1's counterpart is between-graph replication with synchronous updates.

    Args:
      axis: the mesh axis of the batch.

    Example:
      >>> import jaxvars as jv
      >>> jv.placement.data_parallel()
      data_parallel('data')
    """
    return DataParallel(_checked_axis(axis, "data_parallel"))


def fsdp(axis: Axis = "data", min_size: int = 1 << 14, *, after: Strategy | None = None) -> FullySharded:
    """Return the strategy of fully sharded data parallelism: each device holds a piece of every large variable.

    The batch is spread over the same axis. XLA gathers a variable where it is used and lets go of it after that. What
    is spread is the largest dimension that the size of the axis divides; a variable without such a dimension is whole
    everywhere, and `Variables.summary` says so. Optimizer slots and moving averages follow their variable.

    Args:
      axis: the mesh axis, or several.
      min_size: variables with fewer elements stay whole: to gather them would cost more than they take.
      after: another strategy that is asked first, such as `tensor_parallel`; what it leaves whole is then spread too.

    Raises:
      InvalidArgumentError: `min_size` is negative.
      InvalidTypeError: `axis` names no axis, or `after` is no strategy.

    Example:
      >>> import jaxvars as jv
      >>> from jaxvars.scopes.device_scope import VariableOp
      >>> jv.placement.fsdp(min_size=0)(VariableOp("w", "", (6, 10), "float32", None), {"data": 2})
      P(None, 'data')
      >>> jv.placement.fsdp(min_size=0)(VariableOp("w", "", (6, 10), "float32", None), {"data": 3})
      P('data',)
      >>> both = jv.placement.fsdp(min_size=0, after=jv.placement.tensor_parallel())
      >>> both(VariableOp("dense/kernel", "", (6, 10), "float32", None), {"data": 2, "model": 2})
      P('data', 'model')
    """
    if min_size < 0:
        raise InvalidArgumentError(f"fsdp: min_size is a number of elements, got {min_size!r}")
    if after is not None and not (callable(after) and hasattr(after, "axes")):
        raise InvalidTypeError(
            f"fsdp: after is another strategy, such as jv.placement.tensor_parallel(), got {after!r:.60}"
        )
    return FullySharded(_checked_axis(axis, "fsdp"), min_size, after)


def partitioned(axis: Axis = "model") -> Partitioned:
    """Return the strategy that spreads the dimension that a partitioner cuts, for models that have TF1's partitioners.

    How many slices the partitioner asks for does not matter: the mesh says into how many pieces the dimension goes.
    What no partitioner cuts is whole everywhere.

    Args:
      axis: the mesh axis, or several.

    Example:
      >>> import jaxvars as jv
      >>> mesh = jv.placement.mesh(model=-1)
      >>> def net():
      ...     with jv.variable_scope("s", partitioner=jv.fixed_size_partitioner(3)):
      ...         return jv.get_variable("table", [64, 2])[0]
      >>> with jv.device(jv.placement.rule(mesh, jv.placement.partitioned("model"))):
      ...     specs = jv.transform(net).specs()
      >>> specs.variable_specs["s/table"].placement
      P('model',)
    """
    return Partitioned(_checked_axis(axis, "partitioned"))


def tensor_parallel(rules: Any = None, axis: Axis = "model") -> TensorParallel:
    """Return the strategy of tensor parallelism: kernels and tables are cut, and XLA cuts the computation with them.

    Args:
      rules: a dict or list of (pattern, way); the way is ``"column"`` (the last dimension, that of the outputs),
        ``"row"`` (the one before it, that of the inputs; a bias stays whole), a `PartitionSpec`, another strategy, or
        None for whole. None for the names of `jv.layers` and the cells of `jv.nn.rnn_cell`: kernels and biases by
        column, embeddings by row. What no rule matches is whole everywhere.
      axis: the mesh axis, or several.

    Raises:
      InvalidTypeError: a way that is none of these.

    Example:
      Two layers that need no exchange between them, the first by column, the second by row:

      >>> import jaxvars as jv
      >>> from jaxvars.scopes.device_scope import VariableOp
      >>> strategy = jv.placement.tensor_parallel({"up/": "column", "down/": "row"})
      >>> [strategy(VariableOp(f"{layer}/kernel", "", (8, 8), "float32", None)) for layer in ("up", "down")]
      [P(None, 'model'), P('model',)]
    """
    parsed = parse_values(_LAYERS if rules is None else rules, op="tensor_parallel")
    for rule in parsed.rules:
        way = rule.replacement
        if not (way is None or way in _WAYS or isinstance(way, PartitionSpec) or callable(way)):
            raise InvalidTypeError(
                f"tensor_parallel: rule {rule}: the way is 'column', 'row', a PartitionSpec, a strategy or None"
            )
    kept = None if rules is None else tuple((rule.pattern, rule.replacement) for rule in parsed.rules)
    return TensorParallel(_checked_axis(axis, "tensor_parallel"), kept, parsed)

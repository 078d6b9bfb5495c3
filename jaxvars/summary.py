"""The table of a state: one row per variable, totals per scope; as text, and as HTML in notebooks."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from jaxvars.buffers import is_concrete, is_deleted
from jaxvars.fitting import fit
from jaxvars.scopes import GraphKeys
from jaxvars.spec import is_hole, leaf_nbytes, leaf_shape, leaf_size
from jaxvars.state import State

__all__ = ["ScopeTotal", "Summary", "SummaryRow", "bytes_text", "describe", "rich_tables", "summarize"]

_COLUMNS = ("name", "shape", "dtype", "count", "bytes", "trainable", "collections", "sharding")
_STATISTICS = ("mean", "std", "min", "max")
_SOME_COLUMNS = ("device", "left out", *_STATISTICS)  # shown where a variable has something to say there
_RIGHT = frozenset({"count", "bytes", "variables", "bytes per device", *_STATISTICS})
_TOTAL_COLUMNS = ("scope", "variables", "count", "bytes")
_PER_DEVICE = "bytes per device"
# In a terminal: what is left out where the table is too wide, and from which length on names are folded all the same.
_EXPENDABLE = ("bytes", "collections", "sharding")
_WHOLE_NAME = 50
_RICH_GAP = 3  # between two columns


@dataclasses.dataclass(frozen=True, slots=True)
class SummaryRow:
    """One variable of the table.

    `sharding` says where the value lies, or ``"uninitialized"``; `device` where it is at home by its definition, a
    device or what a rule wants; `left_out` what its shape cannot have of that, and why; `device_bytes` the bytes that
    one device holds of it; `defined_at` the line that made it. `mean`, `std`, `min` and `max` are None unless asked for
    (of complex numbers they are those of the absolute values).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    bytes: int
    trainable: bool
    collections: tuple[str, ...]
    sharding: str
    device: str = ""
    left_out: str = ""
    device_bytes: int = 0
    defined_at: str = ""
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The row as texts, in column order; those that may be empty last."""
        numbers = (self.mean, self.std, self.min, self.max)
        return (
            self.name,
            str(self.shape),
            self.dtype,
            f"{self.count:,}",
            f"{self.bytes:,}",
            "yes" if self.trainable else "no",
            ", ".join(self.collections),
            self.sharding,
            self.device,
            self.left_out,
            *("" if number is None else f"{number:.4g}" for number in numbers),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ScopeTotal:
    """What the variables of one scope add up to; `device_bytes` is what one device holds that has a piece of each."""

    scope: str
    variables: int
    count: int
    bytes: int
    device_bytes: int = 0

    def cells(self) -> tuple[str, ...]:
        """The row as texts, in column order; the bytes of one device last."""
        return self.scope, f"{self.variables:,}", f"{self.count:,}", f"{self.bytes:,}", f"{self.device_bytes:,}"


@dataclasses.dataclass(frozen=True)
class Summary:
    """The table of a state. Printing it gives text, a notebook shows HTML, `rich` a table of its own.

    ``pandas.DataFrame(summary.rows)`` is the table as data. What rich prints leaves out columns that do not fit: bytes,
    collections, sharding, in this order.

    Attributes:
      rows: one per variable, in name order.
      totals: one per scope, and the total of all last.
    """

    rows: tuple[SummaryRow, ...]
    totals: tuple[ScopeTotal, ...]

    def _table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """Columns and rows; of some columns only those in which something stands."""
        names, cells = (*_COLUMNS, *_SOME_COLUMNS), [row.cells() for row in self.rows]
        shown = [i for i, name in enumerate(names) if name in _COLUMNS or any(line[i] for line in cells)]
        return [names[i] for i in shown], [[line[i] for i in shown] for line in cells]

    def _totals_table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """Columns and rows; the bytes of one device only where it does not hold all."""
        spread = any(total.device_bytes != total.bytes for total in self.totals)
        columns = (*_TOTAL_COLUMNS, _PER_DEVICE) if spread else _TOTAL_COLUMNS
        return columns, [total.cells()[: len(columns)] for total in self.totals]

    def __str__(self) -> str:
        table = _text_table(*self._table())
        return table + "\n\n" + _text_table(*self._totals_table())

    __repr__ = __str__

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        yield rich_tables(self._table_within(options.max_width), self._totals_table(), right=_RIGHT)

    def _table_within(self, width: int) -> tuple[Sequence[str], list[Sequence[str]]]:
        """Columns and rows for a terminal: names are whole, and the columns that one can do without go first."""
        columns, cells = self._table()
        at = columns.index("collections")
        rows = [
            [*line[:at], _own_collections(row), *line[at + 1 :]] for row, line in zip(self.rows, cells, strict=True)
        ]
        for column in _EXPENDABLE:
            if sum(_widths(columns, rows)) + _RICH_GAP * (len(columns) - 1) <= width:
                break
            at = columns.index(column)
            columns, *rows = [[*line[:at], *line[at + 1 :]] for line in (columns, *rows)]
        return columns, list(rows)

    def _repr_html_(self) -> str:
        total = self.totals[-1]
        size = bytes_text(total.bytes)
        variables, elements = _counted(total.variables, "variable"), _counted(total.count, "element")
        head = f"<b>Variables</b>: {variables}, {elements}, {size}"
        rows = _html_table(*self._table())
        totals = _html_table(*self._totals_table())
        # Long tables start closed: a notebook shows its last expression, meant to be read or not.
        opened = " open" if len(self.rows) <= 30 else ""
        return (
            f"<div>{head}<details{opened}><summary>by name</summary>{rows}</details>"
            f"<details><summary>by scope</summary>{totals}</details></div>"
        )


def summarize(state: State, depth: int = 1, statistics: bool = False) -> Summary:
    """Return the table of `state` with totals per scope, whose names have `depth` parts."""
    layout = state._layout
    found = _statistics(state._leaves) if statistics else {}
    rows = tuple(_row(state, position, leaf, found.get(position, {})) for position, leaf in enumerate(state._leaves))
    scopes: dict[str, list[SummaryRow]] = {}
    for key, row in zip(layout.keys, rows, strict=True):
        scopes.setdefault("/".join(key.split("/")[:-1][:depth]) or "(no scope)", []).append(row)
    totals = [_total(scope, members) for scope, members in scopes.items()]
    return Summary(rows, (*totals, _total("total", rows)))


def _row(state: State, position: int, leaf: Any, statistics: Mapping[str, float]) -> SummaryRow:
    layout = state._layout
    note, sharding = layout.placement[position], _known_sharding(leaf)
    return SummaryRow(
        name=layout.keys[position],
        shape=leaf_shape(leaf),
        dtype=_dtype_text(leaf),
        count=leaf_size(leaf),
        bytes=leaf_nbytes(leaf),
        trainable=layout.trainable[position],
        collections=layout.collections[position],
        sharding=_place_text(leaf),
        device=_home_text(note),
        left_out=_left_out(note, sharding, leaf_shape(leaf)),
        device_bytes=leaf_nbytes(leaf) if sharding is None else _device_bytes(leaf, sharding),
        defined_at=layout.defined_at[position],
        **statistics,
    )


def _statistics(leaves: Sequence[Any]) -> dict[int, dict[str, float]]:
    """Mean, standard deviation and range by position, of those that have numbers: one call for each set of devices."""
    groups: dict[frozenset[Any], list[int]] = {}
    for position, leaf in enumerate(leaves):
        if (
            is_concrete(leaf)
            and leaf.size
            and not is_deleted(leaf)
            and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
        ):
            groups.setdefault(frozenset(leaf.sharding.device_set), []).append(position)
    found: dict[int, dict[str, float]] = {}
    for positions in groups.values():
        numbers = jax.device_get(_moments([leaves[position] for position in positions]))
        for position, each in zip(positions, numbers, strict=True):
            found[position] = dict(zip(_STATISTICS, map(float, each), strict=True))
    return found


@jax.jit
def _moments(values: Sequence[jax.Array]) -> list[tuple[jax.Array, ...]]:
    real = [jnp.abs(x) if jnp.iscomplexobj(x) else x for x in values]
    wide = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in real]
    return [(x.mean(), x.std(), x.min(), x.max()) for x in wide]


def _known_sharding(leaf: Any) -> NamedSharding | None:
    """How a value or hole is spread over a mesh, None where it is not or nobody knows."""
    known = is_hole(leaf) or (is_concrete(leaf) and not leaf.is_deleted())
    return leaf.sharding if known and isinstance(leaf.sharding, NamedSharding) else None


def _left_out(note: Any, sharding: NamedSharding | None, shape: tuple[int, ...]) -> str:
    """What the shape cannot have of the spec that was wanted, and why."""
    if sharding is None or not isinstance(note, PartitionSpec):
        return ""
    _, reasons = fit(note, shape, sharding.mesh.shape)
    return "; ".join(reasons)


def _device_bytes(leaf: Any, sharding: NamedSharding) -> int:
    return math.prod(sharding.shard_shape(leaf.shape)) * int(leaf.dtype.itemsize)


def _home_text(placement: Any) -> str:
    return placement if isinstance(placement, str) else "" if placement is None else str(tuple(placement))


def _total(scope: str, rows: Sequence[SummaryRow]) -> ScopeTotal:
    return ScopeTotal(
        scope,
        len(rows),
        sum(row.count for row in rows),
        sum(row.bytes for row in rows),
        sum(row.device_bytes for row in rows),
    )


def describe(leaf: Any) -> str:
    """Return ``float32[2,3]`` for arrays, tracers and holes, the value itself for anything else."""
    if not hasattr(leaf, "dtype"):
        return f"{leaf!r:.40}"
    return f"{leaf.dtype}[{','.join(map(str, leaf_shape(leaf)))}]"


def _dtype_text(leaf: Any) -> str:
    return str(leaf.dtype) if hasattr(leaf, "dtype") else f"{leaf!r:.20}"


def _place_text(leaf: Any) -> str:
    if is_hole(leaf):
        sharding = _known_sharding(leaf)
        return "uninitialized" if sharding is None else f"uninitialized, {_spread_text(sharding)}"
    if is_deleted(leaf):
        return "deleted"
    if isinstance(leaf, Tracer):
        return "traced"
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return ""
    if isinstance(sharding, NamedSharding):
        return _spread_text(sharding)
    devices = sorted(sharding.device_set, key=lambda device: device.id)
    return ", ".join(f"{device.platform}:{device.id}" for device in devices)


def _spread_text(sharding: NamedSharding) -> str:
    axes = ", ".join(f"{name}={size}" for name, size in sharding.mesh.shape.items())
    host = ", pinned_host" if sharding.memory_kind == "pinned_host" else ""
    return f"{tuple(sharding.spec)} over {axes}{host}"


def bytes_text(count: int) -> str:
    """Return a size for people: ``1.5 MiB``."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count:,} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _own_collections(row: SummaryRow) -> str:
    """The collections without those that all variables and all trainable ones are in."""
    usual = (GraphKeys.GLOBAL_VARIABLES, GraphKeys.TRAINABLE_VARIABLES)
    return ", ".join(name for name in row.collections if name not in usual)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = _widths(columns, rows)
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(_text_line(columns, line, widths) for line in lines)


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(columns, *rows, strict=True)]


def _text_line(columns: Sequence[str], cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, cell, width in zip(columns, cells, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        texts = [
            f'<{tag} style="text-align:{"right" if column in _RIGHT else "left"}">{html.escape(cell)}</{tag}>'
            for column, cell in zip(columns, cells, strict=True)
        ]
        return f"<tr>{''.join(texts)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(columns, 'th')}</thead><tbody>{body}</tbody></table>"


def rich_tables(*parts: str | tuple[Sequence[str], Sequence[Sequence[str]]], right: Container[str] = ()) -> Any:
    """Return texts, and tables given as (columns, rows), as one thing that the package rich prints.

    Args:
      *parts: the texts and tables, from top to bottom.
      right: the columns that are aligned to the right.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown: list[Any] = []
    for part in parts:
        if shown:
            shown.append(Text())
        if isinstance(part, str):
            shown.append(Text(part))
            continue
        columns, rows = part
        shown.append(table := Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False))
        for column, width in zip(columns, _widths(columns, rows), strict=True):
            whole = column == "name" and width <= _WHOLE_NAME
            table.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=whole)
        for row in rows:
            table.add_row(*map(Text, row))  # as they are: rich would take "[3, 3]" for a style
    return Group(*shown)

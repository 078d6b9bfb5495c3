"""A drawing as HTML for notebooks: no scripts, no other files, and short for a thousand devices."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from jaxvars.placement.drawing_holdings import Holding, Place
from jaxvars.placement.drawing_shares import Layout, Share, coarse, grid, layouts, ranges
from jaxvars.placement.drawing_text import head, layout_head, left_over, lying, names, several
from jaxvars.summary import bytes_text

if TYPE_CHECKING:
    from jaxvars.placement.drawing import Drawing

__all__ = ["page"]

_OPEN_BARS = 32  # bars that are seen at once
_MOST_BARS = 1000
_MOST_LAYOUTS = 32
_OPEN_NAMES = 30  # variables up to which scopes start open
_STYLE = """
.jv-draw table{border-collapse:collapse;margin:2px 0 6px}
.jv-draw td,.jv-draw th{padding:1px 8px;text-align:left;font-weight:normal;border:0}
.jv-draw .jv-bar{display:flex;width:24em;height:.9em;background:rgba(128,128,128,.15)}
.jv-draw .jv-key{display:inline-block;width:.8em;height:.8em;margin:0 4px 0 12px}
.jv-draw .jv-grid td{border:1px solid rgba(128,128,128,.6);text-align:center;font-size:85%}
"""


def page(drawing: Drawing) -> str:
    """Return a `<div>` with its own styles: bars of devices, scopes with their variables, and grids of pieces."""
    colored = coarse(list(drawing.bytes_per_scope), drawing.table)
    legend = "".join(
        f'<span class="jv-key" style="background:{color}"></span>{_text(name)} {bytes_text(int(held.sum()))}'
        for name, color, held in colored
    )
    every = layouts(drawing.holdings)
    cut = [layout for layout in every if max(layout.spread.pieces, default=1) > 1]
    parts = [
        f"<style>{_STYLE}</style><b>Placement</b>: {_text(head(drawing))}",
        f"<div>{legend}</div>",
        _bars(drawing, [color for _, color, _ in colored]),
        *(f"<div>on no device: {_text(line)}</div>" for line in left_over(drawing.holdings)),
        _scopes(drawing, _wheres(every, drawing.places)),
        _grids(cut, drawing.places) if cut else "",
    ]
    return f'<div class="jv-draw">{"".join(parts)}</div>'


def _bars(drawing: Drawing, colors: Sequence[str]) -> str:
    largest = max((share.nbytes for share in drawing.shares), default=0)
    rows = [_bar(share, drawing.places, colors, largest) for share in drawing.shares[:_MOST_BARS]]
    shown = _table(rows[:_OPEN_BARS])
    rest = drawing.shares[_OPEN_BARS:]
    if not rest:
        return shown
    count = sum(len(share.places) for share in rest)
    said = f"{count:,} more, with {bytes_text(rest[-1].nbytes)} to {bytes_text(rest[0].nbytes)}"
    return shown + _details(said, _table(rows[_OPEN_BARS:]))


def _bar(share: Share, places: Sequence[Place], colors: Sequence[str], largest: int) -> str:
    held = [*share.by_scope[: len(colors) - 1], sum(share.by_scope[len(colors) - 1 :])]
    pieces = "".join(
        f'<i style="width:{100 * nbytes / largest:.3g}%;background:{color}"></i>'
        for nbytes, color in zip(held, colors, strict=True)
        if nbytes
    )
    members = [places[i] for i in share.places]
    each = " each" if len(members) > 1 else ""
    process = _processes(members)
    return (
        f'<tr><td title="{_text(ranges(members))}">{_text(lying(members))}{process}</td>'
        f'<td><div class="jv-bar">{pieces}</div></td><td>{bytes_text(share.nbytes)}{each}</td></tr>'
    )


def _processes(places: Sequence[Place]) -> str:
    """Which process holds the devices, where that says something."""
    found = sorted({place.process for place in places if place.process is not None})
    return f" (process {found[0]})" if len(found) == 1 and found[0] else ""


def _wheres(every: Sequence[Layout], places: Sequence[Place]) -> dict[str, str]:
    """By the variables' names where they lie: said once for all that are laid out alike."""
    found: dict[str, str] = {}
    for layout in every:
        where = lying([places[i] for i in sorted(layout.spread.places.tolist())])
        for holding in layout.holdings:
            found[holding.name] = _cut_text(holding, layout.spread.pieces) + where
    return found


def _cut_text(holding: Holding, pieces: tuple[int, ...]) -> str:
    if max(pieces, default=1) == 1:
        return ""
    rule = f" by {holding.rule}" if holding.rule else ""
    return f"{' x '.join(map(str, pieces))} pieces{rule} over "


def _scopes(drawing: Drawing, wheres: Mapping[str, str]) -> str:
    members: dict[str, list[Holding]] = {scope: [] for scope in drawing.bytes_per_scope}
    for holding in drawing.holdings:
        members[holding.scope].append(holding)
    opened = len(drawing.holdings) <= _OPEN_NAMES
    return "".join(
        _details(
            f"{scope}: {several(len(held), 'variable')}, {bytes_text(drawing.bytes_per_scope[scope])}",
            _table((_variable(holding, wheres) for holding in held), "variable", "", "one copy", "where"),
            opened,
        )
        for scope, held in members.items()
    )


def _variable(holding: Holding, wheres: Mapping[str, str]) -> str:
    where = wheres.get(holding.name, f"on no device: {holding.reason}")
    cells = (holding.name, holding.text, bytes_text(holding.nbytes), where)
    return f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _grids(cut: Sequence[Layout], places: Sequence[Place]) -> str:
    parts: list[str] = []
    for layout in cut[:_MOST_LAYOUTS]:
        rows = (f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in grid(layout.spread, places))
        parts += [f"<div>{_text(layout_head(layout, places))}<br>{_text(names(layout.holdings))}</div>"]
        parts += [f'<table class="jv-grid">{"".join(rows)}</table>']
    if cut[_MOST_LAYOUTS:]:
        parts += [f"<div>and {several(len(cut) - _MOST_LAYOUTS, 'more layout')}</div>"]
    return _details(f"{several(len(cut), 'way')} of cutting variables", "".join(parts))


def _details(said: str, inner: str, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{_text(said)}</summary>{inner}</details>"


def _table(rows: Iterable[str], *columns: str) -> str:
    top = f"<tr>{''.join(f'<th>{_text(column)}</th>' for column in columns)}</tr>" if columns else ""
    return f"<table>{top}{''.join(rows)}</table>"


def _text(text: str) -> str:
    return html.escape(text)

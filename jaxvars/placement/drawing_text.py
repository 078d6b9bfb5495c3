"""A drawing as text: a bar per device, and a small grid of devices for each way of cutting variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxvars.placement.drawing_holdings import Holding, Place
from jaxvars.placement.drawing_shares import Layout, grid, layouts, ranges
from jaxvars.summary import bytes_text

if TYPE_CHECKING:
    from jaxvars.placement.drawing import Drawing

__all__ = ["head", "layout_head", "left_over", "lying", "names", "several", "text"]

_NAMES = 4  # variables that are named for a layout, or among those that have no place
_GRID_WIDTH = 100
_LABEL = 40  # width of the longest label of a bar


def text(drawing: Drawing, devices: int, most_layouts: int, width: int) -> str:
    """The work of `Drawing.to_text`."""
    blocks = [head(drawing), *_bars(drawing, devices, width)]
    every = layouts(drawing.holdings)
    for layout in every[:most_layouts]:
        blocks += ["", *_layout(layout, drawing.places)]
    if every[most_layouts:]:
        count = sum(len(layout.holdings) for layout in every[most_layouts:])
        blocks += ["", f"{several(len(every) - most_layouts, 'more layout')}, of {several(count, 'variable')}"]
    reasons = left_over(drawing.holdings)
    if reasons:
        blocks += ["", *(f"on no device: {line}" for line in reasons)]
    return "\n".join(blocks)


def head(drawing: Drawing) -> str:
    """Return the line above a picture: how much there is, and how evenly it lies."""
    count, places = len(drawing.holdings), len({place.name for place in drawing.places})
    line = f"{several(count, 'variable')}, {bytes_text(drawing.nbytes)} in one copy"
    if not places:
        return line
    line += f"; {bytes_text(sum(drawing.bytes_per_device.values()))} on {several(places, 'device')}"
    if places > 1:
        line += f", the fullest with {drawing.imbalance:.2f} times the mean"
    processes = {place.process for place in drawing.places} - {None}
    return line + (f", of {len(processes):,} processes" if len(processes) > 1 else "")


def several(count: int, noun: str) -> str:
    """Return ``"1 device"`` or ``"2,000 devices"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _bars(drawing: Drawing, most: int, width: int) -> list[str]:
    shares = drawing.shares[:most]
    labels = [lying([drawing.places[i] for i in share.places]) for share in shares]
    column = max(map(len, labels), default=0)
    largest = max((share.nbytes for share in shares), default=0)
    lines = [
        f"{label.ljust(column)}  {'█' * _length(share.nbytes, largest, width):{width}}  {bytes_text(share.nbytes)}"
        + (" each" if len(share.places) > 1 else "")
        for label, share in zip(labels, shares, strict=True)
    ]
    rest = drawing.shares[most:]
    if rest:
        count = sum(len(share.places) for share in rest)
        lines.append(f"and {count:,} more, with {bytes_text(rest[-1].nbytes)} to {bytes_text(rest[0].nbytes)}")
    return lines


def _length(nbytes: int, largest: int, width: int) -> int:
    """A bar's length: nothing for no bytes only."""
    return max(1, round(width * nbytes / largest)) if nbytes else 0


def lying(places: Sequence[Place]) -> str:
    """Return the names of places, or how many they are and some of them where that is shorter."""
    name = ranges(places)
    return name if len(name) <= _LABEL else f"{len(places):,} devices: {name[: _LABEL - 16].rsplit(', ', 1)[0]}, ..."


def _layout(layout: Layout, places: Sequence[Place]) -> list[str]:
    lines = [layout_head(layout, places), "  " + names(layout.holdings)]
    return lines + (_grid(layout, places) if max(layout.spread.pieces, default=1) > 1 else [])


def layout_head(layout: Layout, places: Sequence[Place]) -> str:
    """Return how the variables of a layout are cut and where they are: ``4 x 2 pieces over cpu:0-7, 1.5 MiB``."""
    spread = layout.spread
    where = lying([places[i] for i in sorted(spread.places.tolist())])
    size = bytes_text(layout.nbytes)
    if max(spread.pieces, default=1) == 1:
        return f"whole on {where}: {size}" + (" in all" if len(spread.places) > 1 else "")
    rules = list(dict.fromkeys(holding.rule for holding in layout.holdings if holding.rule))
    rule = f" by {rules[0]}" if len(rules) == 1 else ""
    return f"{' x '.join(map(str, spread.pieces))} pieces{rule} over {where}: {size} in all"


def _grid(layout: Layout, places: Sequence[Place]) -> list[str]:
    """A box with a cell per piece, in which stand the numbers of its devices."""
    rows = grid(layout.spread, places)
    width = max(len(cell) for row in rows for cell in row)
    if len(rows[0]) * (width + 3) > _GRID_WIDTH:
        rows = grid(layout.spread, places, max(3, _GRID_WIDTH // (width + 3)))
    line = "─" * (width + 2)
    ends = {"top": "┌┬┐", "middle": "├┼┤", "bottom": "└┴┘"}

    def border(kind: str) -> str:
        left, between, right = ends[kind]
        return f"  {left}{between.join([line] * len(rows[0]))}{right}"

    drawn = [border("top")]
    for number, row in enumerate(rows):
        drawn += [border("middle")] if number else []
        drawn += ["  │" + "│".join(f" {cell:^{width}} " for cell in row) + "│"]
    return [*drawn, border("bottom")]


def names(holdings: Sequence[Holding]) -> str:
    """Return the first of the variables by name, dtype and shape, and how many more there are."""
    shown = [f"{holding.name} {holding.text}" for holding in holdings[:_NAMES]]
    more = len(holdings) - _NAMES
    return "; ".join([*shown, f"and {more:,} more"] if more > 0 else shown)


def left_over(holdings: Sequence[Holding]) -> list[str]:
    """Return a line per reason why variables have no place, with their bytes and names."""
    found: dict[str, list[Holding]] = {}
    for holding in holdings:
        if holding.spread is None:
            found.setdefault(holding.reason, []).append(holding)
    return [
        f"{bytes_text(sum(holding.nbytes for holding in members))}, {reason}: {names(members)}"
        for reason, members in found.items()
    ]

"""What the pictures of a drawing show: devices that hold the same, variables laid out alike, grids of pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jaxvars.placement.drawing_holdings import Holding, Place, Spread

__all__ = ["Layout", "Share", "alike", "coarse", "grid", "layouts", "ranges"]

# Of scopes, in the order of their bytes: hues that stay apart in print and for color-blind eyes.
_COLORS = ("#3b6fb6", "#e08a2c", "#3f9c76", "#b5507f", "#7a63b8", "#a8893a", "#4fa3c7", "#8c5a44")
_OTHER = "#9a9a9a"

_MOST_CELLS = 8  # of a row or column of a grid
_LONGEST_CELL = 16
_LAST_NUMBER = re.compile(r"(.*?)(\d+)")


class Share(NamedTuple):
    """Places that hold the same bytes of each scope.

    Attributes:
      places: numbers of the places.
      nbytes: what each of them holds.
      by_scope: the same by scope.
    """

    places: tuple[int, ...]
    nbytes: int
    by_scope: tuple[int, ...]


class Layout(NamedTuple):
    """Variables that are cut and spread alike.

    Attributes:
      spread: how; the number of elements is that of the first variable.
      holdings: the variables.
    """

    spread: Spread
    holdings: tuple[Holding, ...]

    @property
    def nbytes(self) -> int:
        """Bytes on all places together."""
        return sum(holding.held for holding in self.holdings)


def alike(table: npt.NDArray[np.int64]) -> list[Share]:
    """Return the rows of [places, scopes] that are equal together, the largest first."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(table.tolist()):
        found.setdefault(tuple(row), []).append(number)
    shares = [Share(tuple(places), sum(row), row) for row, places in found.items()]
    return sorted(shares, key=lambda share: -share.nbytes)


def coarse(
    names: Sequence[str], table: npt.NDArray[np.int64], most: int = len(_COLORS)
) -> list[tuple[str, str, npt.NDArray[np.int64]]]:
    """Return (name, color, bytes) of the first columns of [places, scopes], and what the others add up to."""
    shown = [(name, _COLORS[i], table[:, i]) for i, name in enumerate(names[:most])]
    rest = len(names) - most
    return [*shown, (f"{rest:,} more", _OTHER, table[:, most:].sum(axis=1))] if rest > 0 else shown


def layouts(holdings: Sequence[Holding]) -> list[Layout]:
    """Return variables that are cut into as many pieces, held by the same places, together; the most bytes first."""
    found: dict[Any, list[Holding]] = {}
    for holding in holdings:
        spread = holding.spread
        if spread is not None:
            pieces = spread.pieces if max(spread.pieces, default=1) > 1 else ()
            key = pieces, spread.places.tobytes(), spread.piece.tobytes()
            found.setdefault(key, []).append(holding)
    result = [Layout(members[0].spread, tuple(members)) for members in found.values() if members[0].spread is not None]
    return sorted(result, key=lambda layout: -layout.nbytes)


def grid(spread: Spread, places: Sequence[Place], most_columns: int = _MOST_CELLS) -> list[list[str]]:
    """Return rows of cells, each naming the places that hold one piece.

    The last dimension that is cut goes to the right, the others downwards. Of long rows and columns the middle is left
    out.
    """
    cut = [axis for axis, count in enumerate(spread.pieces) if count > 1]
    down = len(cut) == 1 and cut[0] < len(spread.pieces) - 1
    columns = 1 if down or not cut else spread.pieces[cut[-1]]
    count = int(np.prod(spread.pieces, dtype=np.int64))
    cells: list[list[int]] = [[] for _ in range(count)]
    for place, piece in zip(spread.places.tolist(), spread.piece.tolist(), strict=True):
        cells[piece].append(place)
    short = _common_start([places[i] for i in spread.places.tolist()])
    rows = _few([cells[i : i + columns] for i in range(0, count, columns)], _MOST_CELLS)
    return [
        [
            _cell([places[i] for i in sorted(cell)], short) if cell else "..."
            for cell in _few(row or [[]] * columns, most_columns)
        ]
        for row in rows
    ]


def _few(items: list[list[Any]], most: int) -> list[list[Any]]:
    """The items, or the first and the last ones with an empty one between."""
    return items if len(items) <= most else [*items[: most - 2], [], items[-1]]


def _cell(places: Sequence[Place], short: bool) -> str:
    name = ranges(places, short=short)
    return name if len(name) <= _LONGEST_CELL or len(places) == 1 else f"{len(places):,} devices"


def ranges(places: Sequence[Place], *, short: bool = False) -> str:
    """Return ``"cpu:0-3, cpu:6"``; without what comes before the numbers where that is to be short: ``"0-3, 6"``."""
    runs: list[tuple[str, str, int, int]] = []  # memory, text before the number, first and last number
    for place in places:
        match = _LAST_NUMBER.fullmatch(place.name)
        before, number = (match[1], int(match[2])) if match else (place.name, -1)
        if runs and match and runs[-1] == (place.memory, before, runs[-1][2], number - 1):
            runs[-1] = (*runs[-1][:3], number)
        else:
            runs.append((place.memory, before, number, number))
    return ", ".join(_run(*run, short=short) for run in runs)


def _run(memory: str, before: str, first: int, last: int, *, short: bool) -> str:
    numbers = "" if first < 0 else f"{first}" if first == last else f"{first}-{last}"
    return numbers if short and numbers else f"{before}{numbers} {memory}".rstrip()


def _common_start(places: Sequence[Place]) -> bool:
    """Whether the names are the same up to a number, so that the number says which is meant."""
    matches = [_LAST_NUMBER.fullmatch(place.name) for place in places]
    return len({(place.memory, match and match[1]) for place, match in zip(places, matches, strict=True)}) == 1

"""How the tour talks: headings, tables and lines that read the same in a terminal and in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence

__all__ = ["heading", "line", "table"]


def heading(text: str) -> None:
    """Print a heading, bold where standard output is a terminal that can."""
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    print(f"\n{text}" if plain else f"\n\x1b[1m{text}\x1b[0m", flush=True)


def line(text: str = "") -> None:
    """Print text, indented below its heading, at once (standard output may be a pipe)."""
    print("\n".join(f"  {part}".rstrip() for part in text.split("\n")), flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] = ()) -> str:
    """Return aligned columns: numbers, and the columns named in `right`, to the right, everything else to the left.

    Example:
      >>> print(table(["name", "size"], [["a/weights", 12], ["b", 3]]))
      name       size
      a/weights    12
      b             3
    """
    rows = [list(row) for row in rows]
    lines = [list(header), *[[str(cell) for cell in row] for row in rows]]
    columns = range(len(header))
    widths = [max(len(cells[column]) for cells in lines) for column in columns]
    numeric = [
        header[column] in right or all(isinstance(row[column], int | float) for row in rows) for column in columns
    ]

    def aligned(cells: list[str]) -> str:
        pairs = zip(cells, widths, numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in pairs)

    return "\n".join(aligned(cells).rstrip() for cells in lines)

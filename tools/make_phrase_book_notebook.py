"""Writes notebooks/text/09_phrase_book.md from docs/guide-rows.md, so that the 78 statements are written once.

    python tools/make_phrase_book_notebook.py && python tools/notebooks.py run 09_phrase_book

Each row is a cell of text, with TF1's form, and a cell of code, ours. The code is the row's, but for its assertions:
what they compare is printed, so that a reader sees it; an error that is expected is printed too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "guide-rows.md"
TEXT = ROOT / "notebooks" / "text" / "09_phrase_book.md"

# First row of each part -> its heading; the order is that of the guides.
PARTS = {
    1: "What a variable is, and making one",
    11: "Collections",
    18: "Devices",
    22: "First values",
    30: "Using and assigning",
    36: "Saving and restoring",
    52: "Sharing",
    61: "`tf.Variable`",
    72: "Names and reuse",
}

INTRODUCTION = """\
# The phrase book

TensorFlow's guides to variables make 78 statements. Here is each of them: TF1's form as text, ours as a cell that runs.
You learn how a line of TF1 that you know is said here, and see what it gives.

The text is made from [the table of the rows](../docs/guide-rows.md), whose right-hand sides are tests; here, what a
test asserts is printed. By subject, with many more phrases: [the phrase book as a page](../docs/phrase-book.md).

```python
# From a clone of the repository (there is no release yet):
# %pip install -e "..[notebooks]"
```

```python
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv

folder = tempfile.mkdtemp()  # the rows that save write here
```
"""

END = """
## What to read next

* [The phrase book by subject](../docs/phrase-book.md): layers, losses, training, and what has no counterpart.
* [Moving a TF1 model over](../docs/migration.md): one program before and after, and what differs.
* [Scopes and sharing](02_scopes_and_sharing.ipynb), [training](03_training.ipynb): the same, told as a story.
"""


class Row(NamedTuple):
    """A row of the table."""

    number: int
    statement: str
    theirs: str
    ours: str


def rows() -> list[Row]:
    """The rows of the table, in its order."""
    code = r"```python\n(.*?)\n```\n\n</td>"
    pattern = rf"<tr><td>(\d+)</td><td>\n\n(.*?)\n\n</td><td>\n\n{code}<td>\n\n{code}<td>"
    found = re.findall(pattern, TABLE.read_text("utf-8"), flags=re.DOTALL)
    return [Row(int(number), statement, theirs, ours) for number, statement, theirs, ours in found]


def notebook_text() -> str:
    """The whole text form."""
    return INTRODUCTION + "".join(_row_text(row) for row in rows()) + END


def _row_text(row: Row) -> str:
    heading = f"\n## {PARTS[row.number]}\n" if row.number in PARTS else ""
    statement = row.statement if row.statement.endswith((".", ")")) else f"{row.statement}."
    theirs = "\n".join(f"    {line}".rstrip() for line in row.theirs.splitlines())
    return f"{heading}\n**{row.number}.** {statement}\n\n{theirs}\n\n```python\n{shown(row.ours)}\n```\n"


def shown(code: str) -> str:
    """The code with its assertions turned into what they look at, printed."""
    lines = code.splitlines()
    asserts = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assert)]
    for node in sorted(asserts, key=lambda node: -node.lineno):
        indent = " " * node.col_offset
        prints = [f"{indent}print({looked_at})" for looked_at in dict.fromkeys(_looked_at(node.test, code))]
        lines[node.lineno - 1 : node.end_lineno] = prints
    return "\n".join(lines)


def _looked_at(test: ast.expr, code: str) -> Iterator[str]:
    """The expressions worth printing: of ``value == literal`` the value, of ``text in str(error)`` the error."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        for value in test.values:
            yield from _looked_at(value, code)
    elif isinstance(test, ast.Compare) and _source(test.comparators[-1], code) == "str(error)":
        yield "error"
    elif isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq) and _is_literal(test.comparators[-1]):
        yield _source(test.left, code)
    else:
        yield _source(test, code)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _source(node: ast.expr, code: str) -> str:
    return ast.get_source_segment(code, node) or ""


if __name__ == "__main__":
    TEXT.write_text(notebook_text(), "utf-8")

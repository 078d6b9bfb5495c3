"""docs/upstream-tests.md: the table of TensorFlow's behaviours is complete, and what it names exists."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs" / "upstream-tests.md"
COUNTS = {
    "variable_scope_test.py": 73,
    "saver_test.py": 42,
    "checkpoint_utils_test.py": 14,
    "moving_averages_test.py": 22,
    "partitioned_variables_test.py": 15,
    "init_ops_test.py": 56,
    "device_setter_test.py": 10,
}


class Row(NamedTuple):
    """One behaviour."""

    section: str
    upstream: str
    says: str
    kind: str
    state: str
    shown: tuple[str, ...]
    reason: str


def rows() -> list[Row]:
    found: list[Row] = []
    section = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.split(". ", 1)[1]
        elif line.startswith("| `"):
            upstream, says, kind, state, shown, reason = (cell.strip() for cell in line.strip("|").split(" |"))
            found.append(
                Row(section, upstream.strip("`"), says, kind, state, tuple(re.findall("`(.*?)`", shown)), reason)
            )
    return found


ROWS = rows()


@functools.cache
def described(file: str) -> dict[str, str]:
    """The tests of a module, with what they say of themselves."""
    found: dict[str, str] = {}
    for node in ast.parse((TESTS / file).read_text(encoding="utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for item in inside:
            if isinstance(item, ast.FunctionDef) and item.name.startswith("test"):
                found[prefix + item.name] = ast.get_docstring(item) or ""
    return found


def test_every_behaviour_is_in_the_table_once() -> None:
    assert Counter(row.section for row in ROWS) == COUNTS
    assert Counter(row.kind for row in ROWS) == {"A": 185, "B": 47}
    assert max(Counter((row.section, row.upstream) for row in ROWS).values()) == 1
    assert all(row.says for row in ROWS)


def test_every_state_has_what_it_needs() -> None:
    states = Counter(row.state for row in ROWS)
    assert states.keys() <= {"holds", "adapted", "left out"}
    for row in ROWS:
        assert bool(row.shown) == (row.state != "left out"), row
        assert bool(row.reason) == (row.state != "holds"), row
    text = " ".join(TABLE.read_text(encoding="utf-8").split())
    assert (
        f"{states['holds']} hold as they are, {states['adapted']} are adapted, {states['left out']} is left out" in text
    )


@pytest.mark.parametrize("section", COUNTS)
def test_every_test_that_is_named_exists(section: str) -> None:
    for row in ROWS:
        if row.section != section:
            continue
        for shown in row.shown:
            file, _, name = shown.partition("::")
            assert name in described(file), f"{row.upstream}: no test {shown}"
            says = described(file)[name]
            if file.startswith("test_upstream_"):
                assert "Upstream: " in says and row.upstream.split(".")[-1] in says, (
                    f"{shown} does not name {row.upstream}"
                )


def test_every_test_of_an_upstream_behaviour_is_in_the_table() -> None:
    named = {shown for row in ROWS for shown in row.shown}
    files = [path.name for path in TESTS.glob("test_upstream_*.py")]
    claimed = {
        f"{file}::{name}" for file in files for name, says in described(file).items() if says.startswith("Upstream:")
    }
    assert len(claimed) > 100 and claimed <= named, claimed - named

"""Each right-hand side of docs/phrase-book.md is run, in the order of the page."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

import jaxvars as jv

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "phrase-book.md"
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def _sections() -> list[tuple[str, int, str]]:
    """Heading, first line and text of each section, the beginning of the page first."""
    found: list[tuple[str, int, str]] = []
    line = 1
    for part in re.split(r"^(?=## )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        found.append((part.splitlines()[0].removeprefix("## "), line, part))
        line += part.count("\n")
    return found


def _rows(text: str, first_line: int) -> Iterator[tuple[list[str], int]]:
    """The cells of each row of a table, and its line."""
    for number, row in enumerate(text.splitlines(), first_line):
        if row.startswith("| ") and not row.startswith("| TF1 |"):
            yield row.strip("|").strip().split(" | "), number


def _run(code: str, line: int, names: dict[str, Any]) -> None:
    """Run one phrase; a mistake in it is reported at its line of the page."""
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile("\n" * (line - 1) + code, str(PAGE), "exec"), names)


PHRASES = [section for section in _sections()[1:] if not section[0].startswith("What has no counterpart")]


def test_every_row_has_two_sides() -> None:
    rows = [row for _, line, text in PHRASES for row in _rows(text, line)]
    assert len(rows) > 130
    assert not [line for cells, line in rows if len(cells) != 2 or not all(cells)]


@pytest.mark.slow
def test_the_right_hand_sides_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    setup = re.search(r"```python\n(.*?)```", _sections()[0][2], re.DOTALL)
    assert setup is not None
    names: dict[str, Any] = {}
    inside = [section for section in PHRASES if "Inside of a model" in section[2]]
    assert PHRASES[: len(inside)] == inside  # so that one frame serves them all
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        _run(setup[1], 1, names)
        with jv.VariableStore(0):
            ran = sum(_run_section(section, names) for section in inside)
        ran += sum(_run_section(section, names) for section in PHRASES[len(inside) :])
    assert ran > 150


def _run_section(section: tuple[str, int, str], names: dict[str, Any]) -> int:
    """Run the right-hand side of each row; return how many phrases there were."""
    _, line, text = section
    phrases = [(code, number) for cells, number in _rows(text, line) for code in _CODE.findall(cells[1])]
    for code, number in phrases:
        _run(code, number, names)
    return len(phrases)


# The notebook


def test_the_notebooks_text_is_made_from_the_rows() -> None:
    """After a change of docs/guide-rows.md: python tools/make_phrase_book_notebook.py."""
    tool = runpy.run_path(str(ROOT / "tools" / "make_phrase_book_notebook.py"))
    assert [row.number for row in tool["rows"]()] == list(range(1, 79))
    assert tool["TEXT"].read_text(encoding="utf-8") == tool["notebook_text"]()


def test_what_an_assertion_looks_at_is_printed() -> None:
    shown = runpy.run_path(str(ROOT / "tools" / "make_phrase_book_notebook.py"))["shown"]
    code = (
        'try:\n    f()\nexcept ValueError as error:\n    assert "no" in str(error)\n'
        "assert a == [1] and b is c\nassert d != 2  # why"
    )
    assert shown(code) == (
        "try:\n    f()\nexcept ValueError as error:\n    print(error)\nprint(a)\nprint(b is c)\nprint(d != 2)"
    )

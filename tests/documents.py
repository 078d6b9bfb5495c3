"""The programs in documents: found, run, and what they print."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, text and line, and what follows it at once as ``text``, else None."""

    language: str
    text: str
    line: int
    printed: str | None


def blocks(text: str) -> list[Block]:
    found = list(FENCE.finditer(text))
    result: list[Block] = []
    for match, after in zip(found, [*found[1:], None], strict=True):
        adjoins = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        line = text.count("\n", 0, match.start()) + 2
        result.append(Block(match[1], match[2], line, after[2] if after is not None and adjoins else None))
    return result


def programs(path: str) -> list[Block]:
    """The blocks of Python of a document, which is named by its path below the root."""
    return [block for block in blocks((ROOT / path).read_text(encoding="utf-8")) if block.language == "python"]


def run(code: str, path: str, line: int, names: dict[str, Any]) -> str:
    """Run code as if it stood at that line of that file; return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * (line - 1) + code, path, "exec"), names)
    return printed.getvalue()

"""Patterns without special characters, found by lookup: a rule for each of many names costs what one rule costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["Literals", "with_scopes"]

_PLAIN = re.compile(r"(?:[^.^$*+?{}\[\]\\|()]|\\[^a-zA-Z0-9])*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Literals:
    """Of ordered patterns those that stand for one name, or for all below one scope.

    Attributes:
      others: the numbers of all other patterns, in order.
      texts: per number of such a pattern the name, or the scope with its "/".
    """

    __slots__ = ("_below", "_whole", "others", "texts")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._whole: dict[str, int] = {}
        self._below: dict[str, int] = {}
        self.others: list[int] = []
        self.texts: dict[int, str] = {}
        for number, pattern in enumerate(patterns):
            if _PLAIN.fullmatch(pattern) is None or pattern == "/":
                self.others.append(number)
                continue
            text = self.texts[number] = _ESCAPE.sub(r"\1", pattern)
            (self._below if pattern.endswith("/") else self._whole).setdefault(text, number)
            self._whole.setdefault(pattern, number)  # a pattern equal to a name matches it, whatever it has

    def first(self, name: str) -> int | None:
        """Return the number of the first of these patterns that matches `name`, None where none does."""
        found = self._whole.get(name)
        end = name.find("/") + 1 if self._below and "\n" not in name else 0
        while end:
            below = self._below.get(name[:end])
            if below is not None and (found is None or below < found):
                found = below
            end = name.find("/", end) + 1
        return found


def with_scopes(names: Iterable[str]) -> set[str]:
    """Return the names and all scopes above them, as ``a/b/``."""
    found = set(names)
    found.update([name[: i + 1] for name in found for i, char in enumerate(name) if char == "/"])
    return found

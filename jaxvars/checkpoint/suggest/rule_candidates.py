"""Rules that one pair of names suggests: the names themselves, with what both have in common left open."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

__all__ = ["Candidate", "candidates", "exact", "varying_numbers"]

_Span: TypeAlias = "tuple[int, int, int]"  # first piece in the target, in the source, number of pieces

_SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|()]")
_SEPARATOR = re.compile(r"([/.:])")
_NUMBER = re.compile(r"(\d+)")
_MOST_CLOSED = 3  # components at each end of a common run that may stay as they are


class Candidate(NamedTuple):
    """A rule, and the text that all names begin with that it can match.

    Attributes:
      pattern: as in rules.
      replacement: as in rules.
      prefix: the beginning of all names that match.
    """

    pattern: str
    replacement: str | None
    prefix: str


def exact(target: str, source: str | None) -> Candidate:
    """Return the rule for one name alone."""
    return Candidate(_closed(_literal(target)), None if source is None else _template(source), target)


def varying_numbers(names: list[str]) -> dict[str, set[int]]:
    """Return for each name with its numbers left out, which of the numbers differ between the names."""
    values: dict[str, list[set[str]]] = {}
    for name in names:
        numbers = re.findall(r"\d+", name)
        known = values.setdefault(re.sub(r"\d+", "0", name), [set() for _ in numbers])
        for some, number in zip(known, numbers, strict=True):
            some.add(number)
    return {template: {n for n, some in enumerate(known) if len(some) > 1} for template, known in values.items()}


def candidates(target: str, source: str | None, varying: dict[str, set[int]]) -> Iterator[Candidate]:
    """Yield rules under which `target` becomes `source`, or is left alone where that is None.

    Args:
      target: a variable.
      source: the name in the file, or None.
      varying: what `varying_numbers` says of all variables.
    """
    if source is None:
        yield from _that_leave_alone(target)
        return
    varies = varying[re.sub(r"\d+", "0", target)]
    here, there = _SEPARATOR.split(target), _SEPARATOR.split(source)
    yield from _of_scopes(target, source, varies)
    for spans in _open_spans(_common_runs(here, there)):
        # Numbers further left are equal by chance more often than the last ones.
        for first in sorted({0, *sorted(varies)[1:]}) if varies else ():
            yield _with_open(here, there, spans, {number for number in varies if number >= first})
        if spans:
            yield _with_open(here, there, spans, set())


def _that_leave_alone(target: str) -> Iterator[Candidate]:
    parts = target.split("/")
    yield Candidate(".*", None, "")
    for size in range(1, len(parts)):
        scope = "/".join(parts[:size]) + "/"
        yield Candidate(_literal(scope), None, scope)
        yield Candidate(".*/" + _closed(_literal("/".join(parts[size:]))), None, "")


def _of_scopes(target: str, source: str, varies: set[int]) -> Iterator[Candidate]:
    """Rules that give all below a scope another scope."""
    here, there = target.split("/"), source.split("/")
    same = 0
    while same < min(len(here), len(there)) and here[-1 - same] == there[-1 - same]:
        same += 1
        scope, other = "/".join(here[:-same]), "/".join(there[:-same])
        for some in (varies, set[int]()) if scope and other else ():
            rule = _with_open([scope], [other], (), some)
            yield Candidate(f"{rule.pattern}/", f"{rule.replacement}/", rule.prefix)
        if not scope or not other:
            below = scope and f"{scope}/"
            yield Candidate(f"{_literal(scope)}/", _template(other) + "/", below)


def _common_runs(here: list[str], there: list[str]) -> list[_Span]:
    """Where both have the same components, from one component to another; separators are the odd pieces."""
    runs: list[_Span] = []
    for start, other, size in difflib.SequenceMatcher(None, here, there, autojunk=False).get_matching_blocks():
        skipped = start % 2
        size = size - skipped - (size - skipped + 1) % 2
        if size > 0 and (other + skipped) % 2 == 0:
            runs.append((start + skipped, other + skipped, size))
    return runs


def _open_spans(runs: list[_Span]) -> Iterator[tuple[_Span, ...]]:
    """Choices of what to leave open: nothing, a part of one run, one whole run and a part of a later one."""
    yield ()
    for number, run in enumerate(runs):
        for part in _parts(run):
            yield (part,)
            yield from ((earlier, part) for earlier in runs[:number])


def _parts(run: _Span) -> Iterator[_Span]:
    """The run, and what is left of it without some components at its ends."""
    start, other, size = run
    for left in range(0, min(size, 2 * _MOST_CLOSED), 2):
        for right in range(0, min(size - left, 2 * _MOST_CLOSED), 2):
            yield start + left, other + left, size - left - right


def _with_open(here: list[str], there: list[str], spans: tuple[_Span, ...], varies: set[int]) -> Candidate:
    """The rule with `spans` open to any text, and those numbers of the target open that `varies` names.

    Only numbers that the source has too, in the same order, can be open: rules do not count.
    """
    texts = _between(here, [(start, size) for start, _, size in spans])
    others = _between(there, [(start, size) for _, start, size in spans])
    numbers = _aligned(here, spans, varies, [number for text in others for number in re.findall(r"\d+", text)])
    pattern, groups, seen = "", 0, 0
    references: list[int] = []
    opened: dict[int, int] = {}
    for place, text in enumerate(texts):
        for piece in _NUMBER.split(text):
            is_number = piece.isdecimal()
            is_open = is_number and seen in numbers
            if is_open:
                groups += 1
                opened[numbers[seen]] = groups
            seen += is_number
            pattern += r"(\d+)" if is_open else _literal(piece)
        if place < len(spans):
            groups += 1
            references.append(groups)
            pattern += "(.*)"
    return Candidate(_closed(pattern), _filled(others, references, opened), _prefix(texts[0], numbers))


def _between(pieces: list[str], spans: list[tuple[int, int]]) -> list[str]:
    """The texts before, between and after the spans."""
    texts: list[str] = []
    place = 0
    for start, size in spans:
        texts.append("".join(pieces[place:start]))
        place = start + size
    return [*texts, "".join(pieces[place:])]


def _aligned(here: list[str], spans: tuple[_Span, ...], varies: set[int], others: list[str]) -> dict[int, int]:
    """{which of the numbers outside the spans: which of `others` is the same number}, for varying ones."""
    closed: list[tuple[bool, str]] = []
    count = 0
    for number, piece in enumerate(here):
        is_open = any(start <= number < start + size for start, _, size in spans)
        for found in re.findall(r"\d+", piece):
            if not is_open:
                closed.append((count in varies, found))
            count += 1
    values = [value for _, value in closed]
    same: dict[int, int] = {}
    for start, other, size in difflib.SequenceMatcher(None, values, others, autojunk=False).get_matching_blocks():
        same.update((start + step, other + step) for step in range(size) if closed[start + step][0])
    return same


def _filled(others: list[str], references: list[int], opened: dict[int, int]) -> str:
    """The replacement: the texts around the open spans, with references to groups."""
    replacement, seen = "", 0
    for place, text in enumerate(others):
        for piece in _NUMBER.split(text):
            if piece.isdecimal():
                group = opened.get(seen)
                seen += 1
                replacement += _template(piece) if group is None else rf"\g<{group}>"
            else:
                replacement += _template(piece)
        if place < len(references):
            replacement += rf"\g<{references[place]}>"
    return re.sub(r"\\g<(\d)>(?!\d)", r"\\\1", replacement)


def _prefix(text: str, numbers: dict[int, int]) -> str:
    """The part of the first text that stands before all that is open."""
    for number, found in enumerate(_NUMBER.finditer(text)):
        if number in numbers:
            return text[: found.start()]
    return text


def _template(text: str) -> str:
    return text.replace("\\", r"\\")


def _literal(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)


def _closed(pattern: str) -> str:
    """The pattern of a whole name: "/" at its end would make it a scope's, ":0" would be cut off."""
    if pattern.endswith(":0"):
        return pattern[:-2] + "[:]0"
    return pattern[:-1] + "[/]" if pattern.endswith("/") else pattern

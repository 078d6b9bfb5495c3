"""The shortest list of rules, found greedily, that gives each variable its name in the file."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxvars.checkpoint.suggest.name_parts import natural_key
from jaxvars.checkpoint.suggest.rule_candidates import Candidate, candidates, exact, varying_numbers
from jaxvars.rules import Rule, parse_rules

__all__ = ["agrees", "find_rules"]

Flags: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
_Wanted: TypeAlias = "Mapping[str, str | None]"

_MOST_CANDIDATES = 600
_MOST_TRIES = 12  # candidates that are tried as the last rule
_MOST_LAST = 4
_MOST_TO_TRY_WITH = 1500  # names
_OPEN_IS_LIKE = 30  # an open part makes a rule as much harder to read as so many letters


class _Effects(NamedTuple):
    """What candidates do with all names.

    Attributes:
      rules: the candidates.
      cost: how hard to read each is.
      right: per candidate and name, whether it gives the name that is wanted.
      wrong: per candidate and name, whether it matches and does not.
      moved: per name, whether it is to get another name, or None.
    """

    rules: list[Candidate]
    cost: Any
    right: Flags
    wrong: Flags
    moved: Flags


def find_rules(wanted: _Wanted) -> list[Rule]:
    """Return ordered rules by which each name of `wanted` gets what it is to get, neither more nor less.

    Args:
      wanted: for each variable the name in the file, or None. What no rule matches keeps its own name.
    """
    names = sorted(wanted)
    effects = _effects(names, wanted)
    chosen, left = _cover(effects, ())
    if len(names) <= _MOST_TO_TRY_WITH:
        chosen, left = _with_last_rules(effects, chosen, left)
    single = [exact(name, wanted[name]) for name in sorted((names[place] for place in left), key=natural_key)]
    rows, last = chosen
    some = [*(effects.rules[row] for row in rows), *single, *(effects.rules[row] for row in last)]
    rules = [Rule(rule.pattern, rule.replacement) for rule in some]
    return rules if agrees(rules, wanted) else _one_by_one(wanted)


def agrees(rules: Sequence[Rule], wanted: _Wanted) -> bool:
    """Return whether the rules do just what is wanted."""
    parsed = parse_rules(list(rules), op="suggest")
    found = {name: parsed.match(name) for name in wanted}
    return all((name if match is None else match.replacement) == wanted[name] for name, match in found.items())


def _one_by_one(wanted: _Wanted) -> list[Rule]:
    """A rule per name; the longest first, because a pattern also matches the name that is spelled as it is."""
    rules = [exact(name, source) for name, source in wanted.items() if source != name]
    return [Rule(rule.pattern, rule.replacement) for rule in sorted(rules, key=lambda rule: -len(rule.pattern))]


def _effects(names: list[str], wanted: _Wanted) -> _Effects:
    """The candidates that more than one pair suggests, and what they do."""
    varying = varying_numbers(names)
    count: Counter[Candidate] = Counter()
    for name in names:
        if wanted[name] != name:
            count.update(set(candidates(name, wanted[name], varying)))
    several = [rule for rule, times in count.items() if times > 1]
    rules = sorted(several, key=lambda rule: (-count[rule], _cost(rule), rule.pattern, rule.replacement or ""))[
        :_MOST_CANDIDATES
    ]
    right = np.zeros((len(rules), len(names)), bool)
    wrong = right.copy()
    for row, rule in enumerate(rules):
        one = parse_rules([(rule.pattern, rule.replacement)], op="suggest")
        for place in range(bisect_left(names, rule.prefix), len(names)):
            if not names[place].startswith(rule.prefix):
                break
            match = one.match(names[place])
            if match is not None:
                (right if match.replacement == wanted[names[place]] else wrong)[row, place] = True
    moved = np.array([wanted[name] != name for name in names], bool)
    return _Effects(rules, np.array([_cost(rule) for rule in rules], np.float64), right, wrong, moved)


def _cost(rule: Candidate) -> int:
    return len(rule.pattern) + len(rule.replacement or "") + _OPEN_IS_LIKE * rule.pattern.count(".*")


def _cover(effects: _Effects, last: tuple[int, ...]) -> tuple[tuple[list[int], tuple[int, ...]], Any]:
    """Choose rules that are right on all names that the rules before them leave, the most useful first.

    Args:
      effects: the candidates.
      last: those that come at the end: other rules, before them, have to take the names on which they are wrong.

    Returns:
      The chosen rows and the last ones; the places of names that need rules of their own.
    """
    needed = effects.moved.copy()
    for row in reversed(last):
        needed = (needed & ~effects.right[row]) | effects.wrong[row]
    left = np.ones(len(needed), bool)
    gain = effects.right[:, needed].sum(axis=1)
    harm = effects.wrong.sum(axis=1)
    chosen: list[int] = []
    while len(gain):
        row = int(np.where(harm == 0, gain - effects.cost / 1e4, -1).argmax())
        if harm[row] or gain[row] < 2:
            break
        chosen.append(row)
        taken = effects.right[row] & left
        gain = gain - effects.right[:, taken & needed].sum(axis=1)
        harm = harm - effects.wrong[:, taken].sum(axis=1)
        left &= ~taken
        needed &= ~taken
    return (chosen, last), np.flatnonzero(needed)


def _with_last_rules(
    effects: _Effects, chosen: tuple[list[int], tuple[int, ...]], left: Any
) -> tuple[tuple[list[int], tuple[int, ...]], Any]:
    """Put general rules at the end, after others for the names on which they are wrong, if that makes fewer rules."""
    useful = np.argsort(-effects.right[:, effects.moved].sum(axis=1), kind="stable")
    general = [int(row) for row in useful if effects.wrong[row].any()][:_MOST_TRIES]
    for _ in range(_MOST_LAST):
        last = chosen[1]
        tried = [_cover(effects, (row, *last)) for row in general if row not in last]
        if not tried:
            break
        best = min(tried, key=_length)
        if _length(best) >= _length((chosen, left)):
            break
        chosen, left = best
    return chosen, left


def _length(found: tuple[tuple[list[int], tuple[int, ...]], Any]) -> int:
    (rows, last), left = found
    return len(rows) + len(last) + len(left)

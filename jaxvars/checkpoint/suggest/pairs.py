"""Which tensor of a file belongs to which variable: of one shape and kind, by names, one to one."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from jaxvars.checkpoint.suggest.likeness import Floats, Likeness, Numbers, Side
from jaxvars.checkpoint.suggest.name_parts import COUNTER, bare, kind_of, mere_letters, natural_key, split

__all__ = ["Pair", "Shapes", "pair_names", "squeezed"]

Shapes: TypeAlias = "Mapping[str, tuple[int, ...]]"
Doubles: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
_Key: TypeAlias = "tuple[str, tuple[int, ...]]"  # kind and shape

_ROUNDS = 5
_CLEAR = 0.2  # a choice that is better than all others by this much is trusted fully
_LEAST_TRUST = 0.05
_CLOSE = 0.05  # a rival is a choice that is worse by less than this
_SAME = 0.01  # between choices that differ by less than this, natural order decides
_ORDER = 1e-3
_MOST_RIVALS = 3
_MOST_SWAPS = 50  # rounds of exchanges
_MOST_AT_ONCE = 1000  # names of one shape in one optimal assignment, whose time grows with the cube
_MOST_IN_GROUP = 5000
_FOLLOW = 0.5  # what it is worth to be where the rest of the layer is
_SAY_NOTHING = 0.1  # names that have less than this in common are no reason for a pair
_SAY_THE_SAME = 0.5  # counters are paired from here on


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Pair:
    """A variable and a tensor of the file.

    Attributes:
      target: the variable.
      source: the tensor.
      rivals: tensors that would do almost as well, the best first.
      by_name: whether the names, or those of the rest of the layer, speak for the pair; else only the shape does.
    """

    target: str
    source: str
    rivals: tuple[str, ...] = ()
    by_name: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class _Group:
    """Places of targets and sources of one shape and kind, in natural order."""

    key: _Key
    targets: Numbers
    sources: Numbers


@dataclasses.dataclass(slots=True)
class _Choice:
    """What is chosen in a group: targets and sources, pair by pair; how clearly; the next best sources."""

    targets: Numbers
    sources: Numbers
    margins: Doubles
    rivals: list[Numbers]


def pair_names(targets: Shapes, sources: Shapes, known: Mapping[str, str] | None = None) -> list[Pair]:
    """Return the pairs of variables and tensors that belong together, no name in two of them.

    Args:
      targets: shapes of the variables.
      sources: shapes of the file's tensors.
      known: pairs that are certain, of any shapes. They are not returned; the others are judged by them.
    """
    known = known or {}
    names, files = sorted(targets, key=natural_key), sorted(sources, key=natural_key)
    keys, file_keys = _keys(names, targets), _keys(files, sources)
    places, file_places = ({name: place for place, name in enumerate(some)} for some in (names, files))
    certain = [(places[target], file_places[source]) for target, source in known.items()]
    groups = list(_groups([key for key, _ in keys], [key for key, _ in file_keys], certain))
    if not groups:
        return []
    likeness = Likeness(_side(keys, groups, 0), _side(file_keys, groups, 1))
    choices: list[_Choice] = []
    for _ in range(_ROUNDS):
        before, choices = choices, [_choose(likeness, group) for group in groups]
        _follow(likeness, groups, choices)
        if before and all(np.array_equal(a.sources, b.sources) for a, b in zip(before, choices, strict=True)):
            break
        margins = np.concatenate([choice.margins for choice in choices])
        likeness.learn(*_joined(choices), np.clip(margins / _CLEAR, _LEAST_TRUST, 1).astype(np.float32))
    found = _judged(likeness, groups, choices, names, files)
    return [pair for pair in found if pair.target not in known]


def squeezed(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes without dimensions of 1: Haiku's scales have ``[1, 1, 1, C]``, slim's last kernel ``[1, 1, C, N]``."""
    return {name: tuple(dim for dim in shape if dim != 1) or shape for name, shape in shapes.items()}


def _keys(names: list[str], shapes: Shapes) -> list[tuple[_Key, str]]:
    """For each name what it has to share with its counterpart, kind and shape, and the name of the weight it is of."""
    found: list[tuple[_Key, str]] = []
    for name in names:
        kind, weight = kind_of(name, shapes[name], shapes)
        found.append(((kind, tuple(shapes[name])), weight))
    return found


def _groups(keys: list[_Key], file_keys: list[_Key], certain: list[tuple[int, int]]) -> Iterator[_Group]:
    """What can be paired; groups of thousands in pieces. What is certain is a group of its own, pair by pair."""
    found: dict[_Key, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, some in enumerate((keys, file_keys)):
        taken = {pair[side] for pair in certain}
        for place, key in enumerate(some):
            if place not in taken:
                found[key][side].append(place)
    for target, source in certain:
        yield _Group(keys[target], np.array([target]), np.array([source]))
    for key, (here, there) in found.items():
        if here and there:
            pieces = -(-max(len(here), len(there)) // _MOST_IN_GROUP)
            for one, two in zip(np.array_split(here, pieces), np.array_split(there, pieces), strict=True):
                yield _Group(key, one, two)


def _side(keys: list[tuple[_Key, str]], groups: list[_Group], side: int) -> Side:
    in_group = np.full(len(keys), -1)
    for number, group in enumerate(groups):
        in_group[(group.targets, group.sources)[side]] = number
    parts = [split(weight, shape) for (_, shape), weight in keys]
    return Side(parts, in_group.tolist(), len(groups))


def _joined(choices: list[_Choice]) -> tuple[Numbers, Numbers]:
    return np.concatenate([c.targets for c in choices]), np.concatenate([c.sources for c in choices])


def _follow(likeness: Likeness, groups: list[_Group], choices: list[_Choice]) -> None:
    """Choose once more, group by group, by where the rest of each layer went: a bias goes with its kernel."""
    votes = likeness.votes(*_joined(choices))
    for number, (group, choice) in enumerate(zip(groups, choices, strict=True)):
        if len(group.sources) == 1:
            continue
        likeness.count(votes, choice.targets, choice.sources, -1)
        own = likeness.voted(votes, choice.targets, choice.sources).diagonal()
        if (own < likeness.voted(votes, choice.targets, group.sources).max(axis=1)).any():  # else it would stay
            choices[number] = _choose(likeness, group, _FOLLOW * likeness.voted(votes, group.targets, group.sources))
        likeness.count(votes, choices[number].targets, choices[number].sources, 1)


def _choose(likeness: Likeness, group: _Group, more: Floats | float = 0.0) -> _Choice:
    """The best pairs of a group; `more` is added to what each is worth."""
    if len(group.targets) == len(group.sources) == 1:
        return _Choice(group.targets, group.sources, np.array([np.inf]), [np.array([], np.intp)])
    by_names = likeness.matrix(group.targets, group.sources)
    rows, columns = _assign(by_names + likeness.of_layers(group.targets, group.sources) + more)
    # How clear a choice is shows without what was concluded from the choice itself.
    margins, rivals = _second_best(by_names, rows, columns)
    return _Choice(group.targets[rows], group.sources[columns], margins, [group.sources[some] for some in rivals])


def _assign(alike: Floats) -> tuple[Numbers, Numbers]:
    """Rows and columns of the best assignment; of equal ones, that in natural order."""
    from scipy.optimize import linear_sum_assignment

    score = np.round(alike.astype(np.float64), 4)
    height, width = score.shape
    score -= _ORDER * (np.arange(height)[:, None] / height - np.arange(width) / width) ** 2
    if max(height, width) <= _MOST_AT_ONCE:
        rows, columns = linear_sum_assignment(score, maximize=True)
        return rows, _in_order(score, rows, columns)
    favorite, favorite_of = score.argmax(axis=1), score.argmax(axis=0)
    rows = np.flatnonzero(favorite_of[favorite] == np.arange(height))
    chosen = [(rows, favorite[rows])]
    left, free = np.setdiff1d(np.arange(height), rows), np.setdiff1d(np.arange(width), favorite[rows])
    pieces = max(-(-max(len(left), len(free)) // _MOST_AT_ONCE), 1)
    for some, others in zip(np.array_split(left, pieces), np.array_split(free, pieces), strict=True):
        rows, columns = linear_sum_assignment(score[np.ix_(some, others)], maximize=True)
        chosen.append((some[rows], others[columns]))
    return np.concatenate([rows for rows, _ in chosen]), np.concatenate([columns for _, columns in chosen])


def _in_order(score: Doubles, rows: Numbers, columns: Numbers) -> Numbers:
    """The columns, two of them exchanged where that brings them into order and costs next to nothing."""
    columns = columns.copy()
    for _ in range(_MOST_SWAPS):
        own, swapped = score[rows, columns], score[np.ix_(rows, columns)]
        cost = own[:, None] + own - swapped - swapped.T
        wrong = np.argwhere(np.triu((columns[:, None] > columns) & (cost < _SAME), 1))
        if not len(wrong):
            break
        moved: set[int] = set()
        for one, two in wrong[np.argsort(cost[tuple(wrong.T)], kind="stable")].tolist():
            if one not in moved and two not in moved:
                moved.update((one, two))
                columns[[one, two]] = columns[[two, one]]
    return columns


def _second_best(alike: Floats, rows: Numbers, columns: Numbers) -> tuple[Doubles, list[Numbers]]:
    """How much worse the best other choice for each row is, and the columns of choices that are hardly worse.

    Where another row has the column, that row gets ours.
    """
    own = alike[rows, columns]
    owner = np.full(alike.shape[1], -1)
    owner[columns] = np.arange(len(rows))
    taken = owner >= 0
    of_owner = owner[taken]
    margins = np.empty(len(rows))
    rivals: list[Numbers] = []
    for start in range(0, len(rows), 512):
        some = slice(start, start + 512)
        loss = own[some, None] - alike[rows[some]]
        loss[:, taken] += own[of_owner] - alike[np.ix_(rows[of_owner], columns[some])].T
        here = np.arange(loss.shape[0])
        loss[here, columns[some]] = np.inf
        margins[some] = loss.min(axis=1)
        best = np.argsort(loss, axis=1, kind="stable")[:, :_MOST_RIVALS]
        rivals.extend(near[loss[row, near] < _CLOSE] for row, near in zip(here, best, strict=True))
    return margins, rivals


def _judged(
    likeness: Likeness, groups: list[_Group], choices: list[_Choice], names: list[str], files: list[str]
) -> list[Pair]:
    """The pairs with what speaks for them; counters only where names do."""
    said = likeness.in_words(*_joined(choices))
    supported = likeness.whole_layers(*_joined(choices))
    refuted = likeness.opposed(*_joined(choices)) | (likeness.scattered(*_joined(choices)) & (said < _SAY_THE_SAME))
    letters, file_letters = mere_letters(names), mere_letters(files)
    pairs: list[Pair] = []
    place = 0
    for group, choice in zip(groups, choices, strict=True):
        for target, source, near in zip(choice.targets, choice.sources, choice.rivals, strict=True):
            name, file = names[target], files[source]
            if group.key[0] != COUNTER or said[place] >= _SAY_THE_SAME:
                spoken = said[place] >= _SAY_NOTHING or supported[place]
                is_letter = name in letters or file in file_letters
                by_name = _last(name) == _last(file) if is_letter else bool(spoken)
                by_name = name == file or (by_name and not refuted[place])
                others = near if by_name or len(near) else group.sources[group.sources != source][:_MOST_RIVALS]
                pairs.append(Pair(name, file, tuple(files[rival] for rival in others), by_name))
            place += 1
    return pairs


def _last(name: str) -> str:
    return bare(name).rpartition("/")[2]

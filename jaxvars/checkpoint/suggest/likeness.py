"""How alike two names are: from what they have in common, and from what a whole model's names tell of each other."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from jaxvars.checkpoint.suggest.name_parts import Parts

__all__ = ["Likeness", "Side"]

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Flags: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"

_MOST_TOKENS = 1500  # per side; the rarest of more say nothing but themselves
_MOST_LAYERS = 4000
_ROLES = ("", "kernel", "bias", "scale", "mean", "var", "table")
_ROLE_WEIGHT = 1.0
_OPPOSED = -1.0
_KNOWN = 0.5
_LAYER_WEIGHT = 0.3
_EVERYWHERE = 0.1  # the weight of a word that all names have; one that a single name has weighs 1
_SPELLING = 0.7  # what words of like spelling count for at most
_SURROUNDINGS = 0.6  # what words count for at most that occur with the same shapes
_LEARNED = 0.9  # what words count for at most that occur in the same pairs


class Side:
    """The names of one side, as tokens: its words, and each number together with what it counts.

    Args:
      parts: the parts of each name.
      groups: for each name, the number of its group, -1 if it has none: only names of one group can be a pair.
      num_groups: how many groups there are.
    """

    def __init__(self, parts: Sequence[Parts], groups: Sequence[int], num_groups: int) -> None:
        self.numbers: list[list[tuple[str, int]]] = _numbers(parts)
        self.roles: np.ndarray = np.array([_ROLES.index(part.role) for part in parts], np.intp)
        tokens = [[*part.words, *numbers] for part, numbers in zip(parts, self.numbers, strict=True)]
        self.layers: Numbers = _numbered([part.layer for part in parts])
        count = Counter(token for some in tokens for token in some)
        self.vocabulary: list[Any] = [token for token, _ in count.most_common(_MOST_TOKENS)]
        index = {token: number for number, token in enumerate(self.vocabulary)}
        size = len(self.vocabulary)
        longest = max((len(some) for some in tokens), default=0)
        # One more column, of a token that is like no other, fills up the rows.
        self.tokens: np.ndarray = np.full((len(parts), longest + 1), size, np.intp)
        for row, some in enumerate(tokens):
            known = [index[token] for token in some if token in index]
            self.tokens[row, : len(known)] = known
        share = np.array([count[token] for token in self.vocabulary], np.float32) / max(len(parts), 1)
        self.weights: np.ndarray = np.append(_EVERYWHERE + (1 - _EVERYWHERE) * np.sqrt(1 - share), 0).astype(np.float32)
        self.size: float = float(self.weights[self.tokens].sum(axis=1).mean()) if len(parts) else 0.0
        self.seen: np.ndarray = np.zeros((size, num_groups), np.float32)  # how often a token occurs in each group
        for row, group in zip(self.tokens, groups, strict=True):
            if group >= 0:
                self.seen[row[row < size], group] += 1

    def incidence(self, rows: Numbers, weighted: bool = True) -> Floats:
        """Which of the tokens each of the names `rows` has, by the tokens' weights."""
        matrix = np.zeros((len(rows), len(self.weights)), np.float32)
        matrix[np.arange(len(rows))[:, None], self.tokens[rows]] = 1
        return (matrix * self.weights if weighted else matrix)[:, :-1]


def _numbered(texts: Sequence[str]) -> Numbers:
    """A number for each different text."""
    index: dict[str, int] = {}
    for text in texts:
        index.setdefault(text, len(index) if len(index) < _MOST_LAYERS else _MOST_LAYERS)
    return np.array([index[text] for text in texts], np.intp)


def _numbers(parts: Sequence[Parts]) -> list[list[tuple[str, int]]]:
    """The numbers of each name that tell it from others; ``dense`` is the 0th where there is ``dense_1``."""
    values: dict[str, set[int]] = defaultdict(set)
    for part in parts:
        for counted, number in part.numbers:
            values[counted].add(number)
    found: list[list[tuple[str, int]]] = []
    for part in parts:
        numbers = list(part.numbers)
        has = {counted for counted, _ in numbers}
        for counted in part.unnumbered:
            if counted in values and counted not in has and 0 not in values[counted]:
                numbers.append((counted, 0))
        found.append(numbers)
    several: dict[str, set[int]] = defaultdict(set)
    for numbers in found:
        for counted, number in numbers:
            several[counted].add(number)
    return _with_ranks([[pair for pair in numbers if len(several[pair[0]]) > 1] for numbers in found])


def _with_ranks(found: list[list[tuple[str, int]]]) -> list[list[tuple[str, int]]]:
    """Add what a number would be if it were counted through: the third of the second block is the sixth of all."""
    places: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for numbers in found:
        for size in range(2, len(numbers) + 1):
            places[numbers[size - 1][0]].add(tuple(number for _, number in numbers[:size]))
    ranks = {
        counted: {place: rank for rank, place in enumerate(sorted(some))}
        for counted, some in places.items()
        if len({place[:-1] for place in some}) > 1
    }
    result: list[list[tuple[str, int]]] = []
    for numbers in found:
        more = [
            (f"{numbers[size - 1][0]}#", ranks[numbers[size - 1][0]][tuple(number for _, number in numbers[:size])])
            for size in range(2, len(numbers) + 1)
            if numbers[size - 1][0] in ranks
        ]
        result.append([*numbers, *more])
    return result


class Likeness:
    """How alike names of the two sides are; `learn` improves it by pairs that are likely.

    Args:
      targets: one side.
      sources: the other side.
    """

    def __init__(self, targets: Side, sources: Side) -> None:
        self.targets: Side = targets
        self.sources: Side = sources
        self._words = np.maximum(_same_words(targets, sources), _same_numbers(targets, sources))
        self._fixed = np.maximum(self._words, _same_surroundings(targets, sources))
        self._by_role = _roles()
        self._layers = np.zeros([side.layers.max(initial=-1) + 1 for side in (targets, sources)], np.float32)
        self._size = np.float32(max(targets.size + sources.size, 1.0))
        self._take(self._fixed)

    def _take(self, tokens: Floats) -> None:
        """Compare by `tokens`: how alike the tokens of the two sides are."""
        self._there, self._here = _padded(tokens), _padded(tokens.T)
        # What a name has alone counts less against it if something on the other side is like it.
        self._alone = 1 - _KNOWN * tokens.max(axis=1, initial=0)
        self._alone_there = 1 - _KNOWN * tokens.max(axis=0, initial=0)

    def matrix(self, rows: Numbers, columns: Numbers) -> Floats:
        """How alike the targets `rows` and the sources `columns` are: about 1 if they say the same, below 0 if not.

        What a name has alone counts against it by as much as what both have counts for them, whatever else they have:
        so names between which nothing decides are exactly as good.
        """
        of_targets, of_sources = self.targets.incidence(rows), self.sources.incidence(columns)
        common = of_targets @ _best(self._there, self.sources.tokens[columns])
        common += (of_sources @ _best(self._here, self.targets.tokens[rows])).T
        total = (of_targets @ self._alone)[:, None] + of_sources @ self._alone_there
        by_role = self._by_role[self.targets.roles[rows][:, None], self.sources.roles[columns]]
        return (2 * common - total) / self._size + _ROLE_WEIGHT * by_role

    def of_layers(self, rows: Numbers, columns: Numbers) -> Floats:
        """What to add for targets and sources whose layers have other pairs in common."""
        return _LAYER_WEIGHT * self._layers[self.targets.layers[rows][:, None], self.sources.layers[columns]]

    def in_words(self, rows: Numbers, columns: Numbers) -> Floats:
        """For pairs of targets and sources, the share of their words and numbers that are the same, as they stand."""
        here, there = self.targets.tokens[rows], self.sources.tokens[columns]
        alike = np.pad(self._words, ((0, 1), (0, 1)))[here[:, :, None], there[:, None, :]]
        weights, others = self.targets.weights[here], self.sources.weights[there]
        common = (alike.max(axis=2) * weights).sum(axis=1) + (alike.max(axis=1) * others).sum(axis=1)
        total = weights.sum(axis=1) + others.sum(axis=1)
        return common / np.maximum(total, 1e-6)

    def whole_layers(self, rows: Numbers, columns: Numbers) -> Flags:
        """For pairs of targets and sources, whether tensors of other roles join the same two layers."""
        here, there = self.targets.roles[rows], self.sources.roles[columns]
        roles: dict[tuple[int, int], set[int]] = defaultdict(set)
        layers = self._layers_of(rows, columns)
        for both, role, other in zip(layers, here.tolist(), there.tolist(), strict=True):
            if role and other and self._by_role[role, other] >= 0:
                roles[both].add(role)
        return np.array([len(roles[both]) > 1 for both in layers], bool)

    def opposed(self, rows: Numbers, columns: Numbers) -> Flags:
        """For pairs of targets and sources, whether their roles contradict each other."""
        return self._by_role[self.targets.roles[rows], self.sources.roles[columns]] < 0

    def scattered(self, rows: Numbers, columns: Numbers) -> Flags:
        """For pairs of targets and sources, whether others of the target's layer all went to other layers."""
        has_role = self.targets.roles[rows] > 0
        layers = self._layers_of(rows, columns)
        some = [both for both, has in zip(layers, has_role, strict=True) if has]
        count, together = Counter(layer for layer, _ in some), Counter(some)
        return has_role & [count[both[0]] > 1 and together[both] == 1 for both in layers]

    def _layers_of(self, rows: Numbers, columns: Numbers) -> list[tuple[int, int]]:
        return list(zip(self.targets.layers[rows].tolist(), self.sources.layers[columns].tolist(), strict=True))

    def votes(self, rows: Numbers, columns: Numbers) -> Floats:
        """How many of the pairs join each two layers."""
        votes = np.zeros_like(self._layers)
        self.count(votes, rows, columns, 1)
        return votes

    def count(self, votes: Floats, rows: Numbers, columns: Numbers, step: int) -> None:
        """Add the pairs to `votes`, or take them away."""
        np.add.at(votes, (self.targets.layers[rows], self.sources.layers[columns]), step)

    def voted(self, votes: Floats, rows: Numbers, columns: Numbers) -> Floats:
        """For targets and sources, the share of the target's layer that is in the source's layer."""
        some = votes[self.targets.layers[rows]]
        return (some / np.maximum(some.sum(axis=1), 1)[:, None])[:, self.sources.layers[columns]]

    def learn(self, rows: Numbers, columns: Numbers, trust: Floats) -> None:
        """Take for the same what occurs together in the pairs of `rows` and `columns`, as far as these are trusted."""
        of_targets = self.targets.incidence(rows, weighted=False)
        of_sources = self.sources.incidence(columns, weighted=False)
        together = (of_targets * trust[:, None]).T @ of_sources
        total = of_targets.sum(axis=0)[:, None] + of_sources.sum(axis=0)
        self._take(np.maximum(self._fixed, _LEARNED * _exclusive(2 * together / np.maximum(total, 1e-6))))
        layers, others = self.targets.layers[rows], self.sources.layers[columns]
        together = np.zeros_like(self._layers)
        np.add.at(together, (layers, others), trust)
        height, width = together.shape
        total = np.bincount(layers, minlength=height)[:, None] + np.bincount(others, minlength=width)
        self._layers = _exclusive(2 * together / np.maximum(total, 1).astype(np.float32))


def _padded(alike: Floats) -> Floats:
    """One more column, for what fills up the rows of tokens."""
    return np.pad(alike, ((0, 0), (0, 1)))


def _best(alike: Floats, tokens: Numbers) -> Floats:
    """For each token of one side, how alike the most alike token of each name of the other side is."""
    found = np.zeros((alike.shape[0], tokens.shape[0]), np.float32)
    for place in range(tokens.shape[1]):
        np.maximum(found, alike[:, tokens[:, place]], out=found)
    return found


def _exclusive(alike: Floats) -> Floats:
    """Lower what is not the best for both: a token has one counterpart."""
    best = np.maximum(alike.max(axis=1, initial=0)[:, None], alike.max(axis=0, initial=0))
    return alike * (alike / np.maximum(best, 1e-6)) ** 4


def _roles() -> Floats:
    """What two roles add: nothing where one is unknown, much less where they contradict each other."""
    alike = np.full((len(_ROLES), len(_ROLES)), _OPPOSED, np.float32)
    np.fill_diagonal(alike, 0.5)
    alike[0, :] = alike[:, 0] = 0
    table = _ROLES.index("table")
    for role in ("kernel", "scale"):
        alike[table, _ROLES.index(role)] = alike[_ROLES.index(role), table] = 0
    return alike


def _same_words(targets: Side, sources: Side) -> Floats:
    """Equal words, and words of like spelling, by their pairs of letters."""

    def letters(side: Side) -> Floats:
        matrix = np.zeros((len(side.vocabulary), 28 * 28), np.float32)
        for row, word in enumerate(side.vocabulary):
            if isinstance(word, str):
                codes = [27, *(min(max(ord(char) - 96, 0), 26) for char in word), 27]
                for one, two in itertools.pairwise(codes):
                    matrix[row, one * 28 + two] = 1
        return matrix

    one, two = letters(targets), letters(sources)
    total = one.sum(axis=1)[:, None] + two.sum(axis=1)
    alike = 2 * (one @ two.T) / np.maximum(total, 1)
    alike = np.where(alike > 0.5, _SPELLING * alike, 0).astype(np.float32)
    alike[_is_letter(targets)], alike[:, _is_letter(sources)] = 0, 0  # a first letter in common says nothing
    index = {word: number for number, word in enumerate(sources.vocabulary) if isinstance(word, str)}
    for row, word in enumerate(targets.vocabulary):
        if word in index:
            alike[row] = 0
            alike[row, index[word]] = 1
    return alike


def _is_letter(side: Side) -> Flags:
    return np.array([isinstance(word, str) and len(word) == 1 for word in side.vocabulary], bool)


def _same_surroundings(targets: Side, sources: Side) -> Floats:
    """Tokens that occur as often with the same shapes."""
    one, two = targets.seen, sources.seen
    total = one.sum(axis=1)[:, None] + two.sum(axis=1)
    alike = 2 * (np.sqrt(one) @ np.sqrt(two).T) / np.maximum(total, 1)
    is_word_1 = np.array([isinstance(word, str) for word in targets.vocabulary], bool)
    is_word_2 = np.array([isinstance(word, str) for word in sources.vocabulary], bool)
    alike = np.where(is_word_1[:, None] == is_word_2, alike, 0).astype(np.float32)
    crowd = np.maximum((alike > 0.95).sum(axis=1)[:, None], (alike > 0.95).sum(axis=0))
    # That a letter is the only word left is no reason to take it: of a and b, b is known for a bias.
    is_letter = _is_letter(targets)[:, None] | _is_letter(sources)
    alike[is_letter & (crowd == 1)] = 0
    return _SURROUNDINGS * _exclusive(alike) / np.maximum(crowd, 1)


def _same_numbers(targets: Side, sources: Side) -> Floats:
    """Numbers of one place in the order of what they count, if they count the same."""
    one, two = _counted(targets), _counted(sources)
    fits = [
        [_fit(values, others, targets.seen, sources.seen, "#" in counted + other) for other, others in two.items()]
        for counted, values in one.items()
    ]
    how_well = np.array([[fit for fit, _ in row] for row in fits], np.float32).reshape(len(one), len(two))
    how_well = _exclusive(how_well)
    alike = np.zeros((len(targets.vocabulary), len(sources.vocabulary)), np.float32)
    for row, values in enumerate(one.values()):
        for column, others in enumerate(two.values()):
            for value, place in fits[row][column][1].items():
                alike[values[value], others[place]] = how_well[row, column]
    return alike


def _counted(side: Side) -> dict[str, dict[int, int]]:
    """{what is counted: {number: its token}}."""
    found: dict[str, dict[int, int]] = defaultdict(dict)
    for token, pair in enumerate(side.vocabulary):
        if not isinstance(pair, str):
            found[pair[0]][pair[1]] = token
    return found


def _fit(
    values: Mapping[int, int], others: Mapping[int, int], seen: Floats, seen_there: Floats, ranks: bool
) -> tuple[float, dict[int, int]]:
    """How well two counts fit, from 0 to 1, and which number is which: equal ones, shifted, or in their order."""
    first, second = sorted(values), sorted(others)
    shifts = dict.fromkeys([0, second[0] - first[0], second[-1] - first[-1], 1, -1])
    guesses = [{value: value + shift for value in first if value + shift in others} for shift in shifts]
    guesses.append(dict(zip(first, second, strict=False)))
    here, there = seen[list(values.values())].sum(), seen_there[list(others.values())].sum()
    if not here or not there:
        return 0.0, {}
    fits: list[float] = []
    for places in guesses:
        common = sum(
            float(np.minimum(seen[values[value]], seen_there[others[place]]).sum()) for value, place in places.items()
        )
        fits.append(common / (here + there) + 0.5 * common / min(here, there))
    best = int(np.argmax(fits))
    if ranks and any(fit > fits[best] - 1e-6 and guesses[n] != guesses[best] for n, fit in enumerate(fits)):
        return 0.0, {}  # numbers of different kinds, and nothing tells where the count begins
    return fits[best], guesses[best]

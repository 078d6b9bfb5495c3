"""Rules for a whole model, proposed: which variable is which tensor of a file that somebody else named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from jaxvars.checkpoint.suggest.left import why_left
from jaxvars.checkpoint.suggest.pairs import pair_names, squeezed
from jaxvars.checkpoint.suggest.rule_list import find_rules
from jaxvars.rules import Rule, parse_rules, reshape

__all__ = ["Suggestion", "suggest_rules"]

_Shape: TypeAlias = tuple[int, ...]

_MOST_LEFT = 4


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A proposal of rules; prints as lines of Python to paste.

    Attributes:
      pairs: for each variable that gets values, the name in the file.
      rules: the rules that say so, as `jv.checkpoint.restore` takes them; None for variables that get none. Where only
        dimensions of 1 differ, they have the transform ``jv.rules.reshape()``.
      unsure: the variables to look at, with other names in the file that do as well or almost. Empty where there are
        none, but only the shape speaks for the pair.
      left: the variables for which the file has nothing; they stay as they are.
      reasons: why, for each of these. Where the file has one the other way round, as PyTorch keeps kernels, this is
        said together with the rule to write.
    """

    pairs: Mapping[str, str]
    rules: tuple[tuple[Any, ...], ...]
    unsure: Mapping[str, tuple[str, ...]]
    left: tuple[str, ...]
    reasons: Mapping[str, str]

    def __str__(self) -> str:
        remarks = self._remarks()
        lines = ["rules = ["]
        for number, rule in enumerate(self.rules):
            lines.extend(f"    {line}" for line in remarks.get(number, []))
            text = str(Rule(*rule[:2]))
            lines.append(f"    {text}," if len(rule) == 2 else f"    {text[:-1]}, jv.rules.{rule[2]}),")
        return "\n".join([*lines, "]", *remarks.get(-1, [])])

    def _remarks(self) -> dict[int, list[str]]:
        """Comments on what is unsure or left, by the number of the rule that decides it; -1 where none does."""
        rules = parse_rules(list(self.rules), op="suggest")
        found: dict[int, list[str]] = {}
        remarks = {target: f"unsure: {self._doubt(target, others)}" for target, others in self.unsure.items()}
        remarks |= {name: f"{name} is left as it is: {reason}" for name, reason in self.reasons.items()}
        for name, remark in remarks.items():
            match = rules.match(name)
            found.setdefault(-1 if match is None else match.number, []).append(remark)
        # What holds for one layer of a rule that takes many holds for all; each variable is left for its own reason.
        most = {number: 1 if number < 0 or self.rules[number][1] is not None else _MOST_LEFT for number in found}
        return {number: _comments(some, most[number]) for number, some in found.items()}

    def _doubt(self, target: str, others: tuple[str, ...]) -> str:
        if not others:
            return f"only its shape makes {target} {self.pairs[target]}"
        return f"{target} may be {' or '.join(others)} instead"


def suggest_rules(
    targets: Mapping[str, _Shape], sources: Mapping[str, _Shape], known: Mapping[str, str] | None = None
) -> Suggestion:
    r"""Propose rules by which variables get their values from a file with other names.

    Only equal shapes are paired, dimensions of 1 apart; each tensor with one variable, an optimizer's slots only with
    slots of the same kind. Names are compared by their words, whose usual synonyms are known, by the order of what they
    count, and by what the rest of the model says of a word: what is called "stage" wherever the file says "block" is
    taken for the same.

    Args:
      targets: shapes of the variables, by name.
      sources: shapes of the file's tensors, by name.
      known: pairs of variables and tensors that are certain, for which no rules are proposed: the rest is judged by
        them.

    Returns:
      A `Suggestion`. Its rules do exactly what its pairs say.

    Example:
      >>> new = {f"encoder/layer/{n}/norm/{part}": (8,) for n in range(12) for part in ("scale", "bias")}
      >>> old = {f"bert/layer_{n}/LayerNorm/{part}": (8,) for n in range(12) for part in ("gamma", "beta")}
      >>> print(suggest_rules(new, old | {f"{name}/Adam": (8,) for name in old}))
      rules = [
          (r"encoder/layer/(\d+)/norm/bias", r"bert/layer_\1/LayerNorm/beta"),
          (r"encoder/layer/(\d+)/norm/scale", r"bert/layer_\1/LayerNorm/gamma"),
      ]
    """
    known = known or {}
    found = sorted(pair_names(squeezed(targets), squeezed(sources), known))
    pairs = {pair.target: pair.source for pair in found}
    unsure = {pair.target: pair.rivals for pair in found if pair.rivals or not pair.by_name}
    rules = find_rules({name: pairs.get(name) for name in targets if name not in known})
    left = tuple(sorted(name for name in targets if name not in pairs and name not in known))
    reasons = why_left({name: targets[name] for name in left}, targets, sources, {**known, **pairs})
    reshaped = {name for name, source in pairs.items() if targets[name] != sources[source]}
    return Suggestion(pairs, _with_reshape(rules, reshaped), unsure, left, reasons)


def _with_reshape(rules: Sequence[Rule], reshaped: set[str]) -> tuple[tuple[Any, ...], ...]:
    """The rules as tuples; those that decide a name in `reshaped` also reshape."""
    matches = map(parse_rules(list(rules), op="suggest").match, reshaped) if reshaped else ()
    numbers = {match.number for match in matches if match is not None}
    transforms = [(reshape(),) if number in numbers else () for number in range(len(rules))]
    return tuple((rule.pattern, rule.replacement, *more) for rule, more in zip(rules, transforms, strict=True))


def _comments(remarks: list[str], most: int) -> list[str]:
    """Lines of comment: the first remarks, and how many more there are."""
    more = [f"# (and {len(remarks) - most} more under this rule)"] if len(remarks) > most else []
    return [*(f"# {remark}" for remark in remarks[:most]), *more]

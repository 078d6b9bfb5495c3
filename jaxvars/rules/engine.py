r"""Rules: ordered (pattern, replacement) pairs over variable names. One engine for all that takes ``rules=``.

A pattern is a regular expression that must match the whole name; the first rule that matches wins;
back-references (``\1``) in the replacement are filled in. Three conveniences:

* a pattern equal to a name matches it, whatever characters it has, and a trailing ``:0`` is ignored;
* a pattern that ends in ``/`` stands for everything below that scope, its replacement for the new scope
  (``("tower/", "conv1/")``), and ``"/"`` for the root; `glob` turns ``layer_*/kernel`` into a pattern;
* the replacement None leaves the name alone, or out: ``("logits/.*", None)``.

In a restore the replacement may be a list of names, whose tensors the rule's transform makes one of.

A rule that matches no name is an error, which lists all such rules at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from jaxvars._turned import turned
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, NotFoundError, nearest_names
from jaxvars.rules.literals import Literals, with_scopes
from jaxvars.rules.steps import Target, ValueTransform

__all__ = [
    "Instead",
    "Match",
    "Rule",
    "RuleSet",
    "Rules",
    "glob",
    "new_name",
    "parse_patterns",
    "parse_rules",
    "parse_values",
    "rename_map",
]

Rules: TypeAlias = "str | Sequence[Any] | Mapping[Any, Any]"
Transform: TypeAlias = Callable[[Any], Any]

_HINTS = 10  # rules without a match for which the nearest names are searched: each search goes through all names
_IN_A_LINE = 3  # rules to write instead
_BELOW = "_below_"  # the group that holds what follows a pattern ending in "/"


class Rule(NamedTuple):
    """One rule: a pattern over names, what to do with a name that matches, and with its value.

    Attributes:
      pattern: a regular expression for the whole name, or a scope ending in ``/``.
      replacement: the other name (in rename and restore), a tuple of names (in restore), a value (a label, a
        dtype), or None.
      transform: ``array -> array``, applied to the value on the way, or None. With several names it gets a list.
    """

    pattern: str
    replacement: Any = None
    transform: Transform | None = None

    def __str__(self) -> str:
        names = self.replacement if isinstance(self.replacement, tuple) else None
        listed = _literal(self.replacement) if names is None else f"[{', '.join(map(_literal, names))}]"
        shown = [_literal(self.pattern), listed]
        if self.transform is not None:
            shown.append(getattr(self.transform, "__name__", repr(self.transform)))
        return f"({', '.join(shown)})"


class Instead(NamedTuple):
    """What to write instead of rules that match no name: the second argument of their error.

    Attributes:
      problem: the error's text without these rules.
      rules: all rules, those without a match turned round.
    """

    problem: str
    rules: tuple[Rule, ...]


class Match(NamedTuple):
    """What the rules say of one name: the rule, its place in the list (from 0), the filled-in replacement."""

    rule: Rule
    number: int
    replacement: Any
    found: re.Match[str] | None = None

    def transform_for(self, key: str, value: Any) -> Transform | None:
        """Return the rule's transform for one variable: its back-references and target filled in."""
        transform = self.rule.transform
        return transform.bound(Target(key, value, self._expand)) if isinstance(transform, ValueTransform) else transform

    def _expand(self, text: str) -> str:
        try:
            return text if self.found is None else self.found.expand(text)
        except (re.error, IndexError) as error:
            raise InvalidArgumentError(
                f"rule {self.rule}: {text!r} in its transform does not fit the pattern: {error}"
            ) from None


class RuleSet:
    """Ordered rules, checked and compiled. Make it with `parse_rules`, `parse_values` or `parse_patterns`.

    Args:
      rules: the rules, in order.
      op: the function they were given to, for error texts.
      names: whether replacements are names, in which back-references and scopes are filled in.
      direction: one sentence saying which name the pattern matches and which the replacement is.
    """

    def __init__(self, rules: Iterable[Rule], *, op: str, names: bool = False, direction: str = "") -> None:
        self.rules: tuple[Rule, ...] = tuple(rules)
        self.op = op
        self.names = names
        self.direction = direction
        self._compiled = [_compile(rule, op, number, names) for number, rule in enumerate(self.rules)]
        self._literals = Literals([rule.pattern for rule in self.rules])

    def __len__(self) -> int:
        return len(self.rules)

    def match(self, name: str) -> Match | None:
        """Return what the first rule that matches says of `name`, None where no rule does."""
        literal = self._literals.first(name)
        for number in self._literals.others:
            if literal is not None and number > literal:
                break
            found = self.match_of(number, name)
            if found is not None:
                return found
        return None if literal is None else self.match_of(literal, name)

    def match_of(self, number: int, name: str) -> Match | None:
        """Return what one rule, by its number, says of `name`, None where it does not match."""
        rule = self.rules[number]
        found = self._compiled[number].fullmatch(name)
        if found is None:
            return Match(rule, number, rule.replacement) if rule.pattern == name else None
        if not self.names or rule.replacement is None:
            return Match(rule, number, rule.replacement, found)
        try:
            if isinstance(rule.replacement, tuple):
                replacement: Any = tuple(_expand(found, name) for name in rule.replacement)
            else:
                replacement = _expand(found, rule.replacement)
        except (re.error, IndexError) as error:
            raise InvalidArgumentError(
                f"{self.op}: rule {number + 1} {rule}: the replacement does not fit the pattern: {error}"
            ) from None
        return Match(rule, number, replacement, found)

    def resolve(
        self, names: Iterable[str], *, allow_unmatched: bool = False, in_file: Iterable[str] = ()
    ) -> dict[str, Match | None]:
        """Return what the rules say of each name.

        Args:
          names: the names, all of them.
          allow_unmatched: accept rules that match none of `names`.
          in_file: the names in the file that the replacements are about: the error says which patterns match these.

        Returns:
          For each name the `Match` of the first rule that matches it, None where no rule does.

        Raises:
          NotFoundError: some rules match no name at all; the text lists them.
        """
        names = list(names)
        result = {name: self.match(name) for name in names}
        if not allow_unmatched:
            won = {match.number for match in result.values() if match is not None}
            idle = [number for number in range(len(self.rules)) if number not in won]
            # A rule whose names were all taken by earlier rules did match: a last catch-all is no mistake.
            unmatched = self._without_name(idle, names)
            if unmatched:
                raise self._unmatched_error(unmatched, names, list(in_file))
        return result

    def _without_name(self, numbers: list[int], names: list[str]) -> list[int]:
        """Those of these rules that match none of the names."""
        texts = self._literals.texts
        known = with_scopes(names) if any(number in texts for number in numbers) else set[str]()

        def matches(number: int) -> bool:
            if number in texts:
                return texts[number] in known or self.rules[number].pattern in known
            return any(self.match_of(number, name) for name in names)

        return [number for number in numbers if not matches(number)]

    def _unmatched_error(self, unmatched: list[int], names: list[str], in_file: list[str]) -> NotFoundError:
        count = len(self.rules)
        subject = f"{len(unmatched)} of {count} rules match" if count > 1 else "the rule matches"
        lines = [f"{self.op}: {subject} none of the {len(names)} names:"]
        for place, number in enumerate(unmatched):
            hint = self._hint(number, names, in_file) if place < _HINTS else ""
            lines.append(f"  rule {number + 1}: {_line(self.rules[number], self.names)}{hint}")
        direction = f" {self.direction}" if self.direction else ""
        instead = self._turned(unmatched, names)
        if instead:
            lines.append(f"{'The rules' if len(unmatched) == count else 'Those'} would match turned round.{direction}")
        elif any(self.match_of(number, name) for number in unmatched[:_HINTS] for name in in_file):
            lines.append(direction.strip())
        problem = "\n".join(lines)
        if not instead:
            return NotFoundError(problem)
        return NotFoundError(f"{problem}\nWrite: {_listed(instead)}", Instead(problem, instead))

    def _hint(self, number: int, names: list[str], in_file: list[str]) -> str:
        """What may be meant by a rule without a match."""
        there = sum(self.match_of(number, name) is not None for name in in_file)
        if there:
            return f"   matches {there} {'name' if there == 1 else 'names'} in the file"
        pattern = self.rules[number].pattern
        near = _nearest(pattern, names)
        hint = f"   nearest: {', '.join(near)}" if near else ""
        ends = f".*{pattern}"
        if not self.names and not pattern.endswith("/") and any(re.fullmatch(ends, name) for name in names):
            hint += f"   a pattern matches whole names: write {_literal(ends)}"
        return hint

    def _turned(self, unmatched: list[int], names: list[str]) -> tuple[Rule, ...]:
        """All rules, those without a match turned round; none where that is no help."""
        if not self.names:
            return ()
        rules = list(self.rules)
        for number in unmatched:
            pair = turned(rules[number].pattern, rules[number].replacement)
            if pair is None:
                return ()
            rules[number] = Rule(*pair)
        back = RuleSet([rules[number] for number in unmatched], op=self.op, names=True)
        return tuple(rules) if any(back.match(name) for name in names) else ()


def glob(pattern: str) -> str:
    r"""Return the pattern that a glob stands for; what each of its wildcards matches is a group.

    Args:
      pattern: ``*`` matches within one component, ``**`` any number of them, ``?`` one character.

    Example:
      >>> import jaxvars as jv
      >>> (jv.rules.glob("layer_*/kernel"), r"block/\1/weights")
      ('layer_([^/]*)/kernel', 'block/\\1/weights')
    """
    wildcards = {"**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
    pieces = re.split(r"(\*\*|\*|\?)", pattern)
    return "".join(wildcards.get(piece) or re.escape(piece) for piece in pieces)


def parse_rules(rules: Rules, *, op: str, direction: str = "", several: bool = False) -> RuleSet:
    r"""Return the rules that give names new names.

    Args:
      rules: a list of (pattern, replacement[, transform]), one such tuple, or a dict pattern -> replacement.
      op: the function they were given to, for error texts.
      direction: one sentence saying which name the pattern matches.
      several: whether a replacement may be a list of names.

    Example:
      >>> rules = parse_rules([(r"tower/(.*)", r"conv1/\1"), ("logits/", None)], op="rename")
      >>> rules.match("tower/weights").replacement
      'conv1/weights'
      >>> rules.match("logits/bias").replacement is None
      True
    """
    parsed = [_as_rule(item, op) for item in _items(rules, pair=True)]
    for number, rule in enumerate(parsed):
        if isinstance(rule.replacement, list | tuple) and several:
            parsed[number] = _with_several(rule, op)
        elif not isinstance(rule.replacement, str | None):
            raise InvalidTypeError(f"{op}: rule {rule}: the replacement is a name or None")
    return RuleSet(parsed, op=op, names=True, direction=direction)


def _with_several(rule: Rule, op: str) -> Rule:
    """The rule with its list of names as a tuple."""
    names = tuple(cast("Sequence[Any]", rule.replacement))
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidTypeError(f"{op}: rule {rule}: the replacement is a name, a list of names, or None")
    if rule.transform is None:
        raise InvalidTypeError(
            f"{op}: rule {rule}: what becomes of several tensors? Add jv.rules.stack(), jv.rules.concat() or a function"
        )
    return rule._replace(replacement=names)


def parse_values(rules: Rules, *, op: str) -> RuleSet:
    """Return the rules that give names values: a dict or list of (pattern, value).

    Example:
      >>> parse_values({"logits/": "fast", ".*": "slow"}, op="labels").match("conv/w").replacement
      'slow'
    """
    return RuleSet([_as_rule(item, op) for item in _items(rules, pair=True)], op=op)


def parse_patterns(rules: Any, *, op: str) -> RuleSet:
    """Return the rules that choose names: a pattern, name, handle or spec, or a list of these.

    A (pattern, None) or (pattern, False) pair in the list leaves out what it matches.

    Example:
      >>> rules = parse_patterns([("generator/bn/", None), "generator/"], op="select")
      >>> bool(rules.match("generator/w").replacement), bool(rules.match("generator/bn/w").replacement)
      (True, False)
    """
    parsed = [
        _as_rule(item, op) if isinstance(item, tuple) else Rule(_as_pattern(item, op), True)
        for item in _items(rules, pair=False)
    ]
    return RuleSet(parsed, op=op)


def rename_map(names: Sequence[str], rules: RuleSet, *, allow_unmatched: bool = False) -> dict[str, Match | None]:
    """Return per name its match, after checking that all new names are valid and distinct.

    All names are replaced at once, so rules may rotate names (a -> b, b -> a).

    Raises:
      NotFoundError: a rule matches no name.
      InvalidArgumentError: two names become one, or a new name is empty; all are listed.
    """
    matches = rules.resolve(names, allow_unmatched=allow_unmatched)
    sources: dict[str, list[str]] = {}
    for name, match in matches.items():
        sources.setdefault(new_name(name, match), []).append(name)
    problems = [f'  "{new}" from {", ".join(old)}' for new, old in sources.items() if len(old) > 1]
    if problems:
        raise InvalidArgumentError("\n".join([f"{rules.op}: several variables get one name:", *problems]))
    wrong = [f'  {old[0]} -> "{new}"' for new, old in sources.items() if not new or new != new.strip("/")]
    if wrong:
        raise InvalidArgumentError("\n".join([f'{rules.op}: a name is non-empty, no "/" at its ends:', *wrong]))
    return matches


def new_name(name: str, match: Match | None) -> str:
    """Return the name that `match` gives; `name` itself without a match or with replacement None."""
    return name if match is None or match.replacement is None else match.replacement


def _items(rules: Any, *, pair: bool) -> list[Any]:
    """The rules one by one. A bare tuple is one rule where rules are pairs, else a sequence of patterns.

    What has rules (a plan, a suggestion) stands for them.
    """
    if pair and isinstance(getattr(rules, "rules", None), tuple):
        return list(rules.rules)
    if isinstance(rules, Mapping):
        return list(cast("Mapping[Any, Any]", rules).items())
    if isinstance(rules, str) or isinstance(getattr(rules, "key", None), str):
        return [rules]
    if isinstance(rules, tuple) and (isinstance(rules, Rule) or (pair and _looks_like_rule(rules))):
        return [rules]
    return list(rules) if isinstance(rules, Iterable) else [rules]


def _looks_like_rule(rules: tuple[Any, ...]) -> bool:
    return len(rules) in (2, 3) and not any(isinstance(part, tuple) for part in rules)


def _as_rule(item: Any, op: str) -> Rule:
    if isinstance(item, tuple) and 2 <= len(item) <= 3:
        pattern, replacement, *rest = item
        transform = rest[0] if rest else None
        if transform is not None and not callable(transform):
            raise InvalidTypeError(f"{op}: rule {item!r}: the third part is a function array -> array")
        return Rule(_as_pattern(pattern, op), replacement, transform)
    raise InvalidTypeError(f"{op}: a rule is a tuple (pattern, replacement) or (..., transform), got {item!r:.80}")


def _as_pattern(item: Any, op: str) -> str:
    if isinstance(item, str):
        return item.removesuffix(":0")
    key = getattr(item, "key", None)
    if isinstance(key, str):
        return re.escape(key)
    raise InvalidTypeError(f"{op}: a pattern is a string, handle or spec, got {type(item).__name__}: {item!r:.80}")


def _compile(rule: Rule, op: str, number: int, names: bool) -> re.Pattern[str]:
    pattern = rule.pattern
    scope = pattern.endswith("/")
    replacements = rule.replacement if isinstance(rule.replacement, tuple) else (rule.replacement,)
    if scope and names and any(isinstance(new, str) and new and not new.endswith("/") for new in replacements):
        raise InvalidArgumentError(
            f"{op}: rule {number + 1} {rule}: a scope is replaced by a scope. "
            f"Write: {Rule(pattern, f'{replacements[0]}/', rule.transform)}"
        )
    try:
        if scope:
            return re.compile(f"(?:{pattern})(?P<{_BELOW}>.*)" if pattern != "/" else f"(?P<{_BELOW}>.*)")
        return re.compile(pattern)
    except re.error as error:
        glob = pattern.startswith("*") or "/*" in pattern or "**" in pattern
        hint = ' A pattern is a regular expression: write ".*" for any text.' if glob else ""
        raise InvalidArgumentError(
            f"{op}: rule {number + 1} {rule}: not a regular expression: {error}.{hint}"
        ) from None


def _expand(found: re.Match[str], replacement: str) -> str:
    below = found.groupdict().get(_BELOW)
    if below is None:
        return found.expand(replacement)
    return found.expand(replacement.removeprefix("/")) + below


def _nearest(pattern: str, names: list[str]) -> list[str]:
    """The names most like `pattern`; where it is a scope, the scopes; where only its "/" lacks, that scope first."""
    if not pattern.endswith("/"):
        is_scope = any(name.startswith(f"{pattern}/") for name in names)
        return [f"{pattern}/"] * is_scope + nearest_names(pattern, names)
    scopes = {name[:i] for name in names for i, char in enumerate(name) if char == "/"}
    return [f"{scope}/" for scope in nearest_names(pattern[:-1], sorted(scopes))]


def _literal(value: Any) -> str:
    """`value` as it stands in a line of code: a raw string where it has backslashes."""
    if isinstance(value, str) and "\\" in value and '"' not in value:
        return f'r"{value}"'
    return f'"{value}"' if isinstance(value, str) and '"' not in value else repr(value)


def _listed(rules: Sequence[Rule]) -> str:
    """The rules as a list of Python, one a line where they are many."""
    texts = list(map(str, rules))
    return f"[{', '.join(texts)}]" if len(texts) <= _IN_A_LINE else "[\n    " + ",\n    ".join(texts) + ",\n]"


def _line(rule: Rule, names: bool) -> str:
    return str(rule) if names else _literal(rule.pattern)

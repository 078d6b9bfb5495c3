r"""Rules in a file: JSON, as people and programs write it.

A list of ``[pattern, replacement]`` or ``[pattern, replacement, "transform"]``, or an object
``{"pattern": "replacement"}``. The replacement null leaves a name as it is; a list of names stands for several tensors,
which the transform makes one of. Transforms are written as in Python: ``"transpose(1, 0) >> cast('bfloat16')"``.

    [["tower/(.*)", "conv1/\\1"],
     ["logits/", null],
     ["layers/kernel", ["layer_0/kernel", "layer_1/kernel"], "stack()"]]
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, cast

from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError
from jaxvars.rules import Rule, ValueTransform, parse_transform

__all__ = ["parse_rules_text", "read_json", "read_rules", "rules_text"]

_LONGEST = 1 << 26  # bytes of a JSON file that people or programs write by name
_FORM = 'a rule is [pattern, replacement] or [pattern, replacement, "transform"]'


def read_rules(path: str | os.PathLike[str]) -> list[Rule]:
    r"""Return the rules in a JSON file, ready for `jv.checkpoint.plan`, `convert`, ``Variables.rename`` and the others.

    Args:
      path: the file; "-" reads standard input.

    Raises:
      NotFoundError: there is no such file.
      InvalidArgumentError: it is not JSON (the text says in which line and column), or a rule in it is none (the text
        says which).

    Example:
      >>> import pathlib, tempfile, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> file = pathlib.Path(folder.name, "rules.json")
      >>> _ = file.write_text('[["tower/", "conv1/"], ["fc/kernel", "fc/w", "transpose(1, 0)"]]')
      >>> for rule in jv.checkpoint.read_rules(file):
      ...     print(rule)
      ("tower/", "conv1/")
      ("fc/kernel", "fc/w", transpose(1, 0))
      >>> folder.cleanup()
    """
    return parse_rules_text(*read_json(path))


def parse_rules_text(content: Any, what: str) -> list[Rule]:
    """Return the rules that parsed JSON describes; `what` names the file in errors.

    Raises:
      InvalidArgumentError: a rule is none.
    """
    if isinstance(content, dict):
        content = [list(pair) for pair in cast("dict[str, Any]", content).items()]
    if not isinstance(content, list):
        raise InvalidArgumentError(
            f'{what} holds no rules: they are a list, or an object {{"pattern": "replacement"}}.'
        )
    return [_rule(item, f"{what}, rule {number}") for number, item in enumerate(cast("list[Any]", content), 1)]


def _rule(item: Any, what: str) -> Rule:
    if not isinstance(item, list) or not 2 <= len(cast("list[Any]", item)) <= 3:
        raise InvalidArgumentError(f"{what}: {_FORM}, not {json.dumps(item):.80}")
    pattern, replacement, transform = [*cast("list[Any]", item), None][:3]
    if not isinstance(pattern, str):
        raise InvalidArgumentError(f"{what}: the pattern is a text, not {json.dumps(pattern):.80}")
    names = cast("list[Any]", replacement) if isinstance(replacement, list) else [replacement]
    if not (replacement is None or (names and all(isinstance(name, str) for name in names))):
        raise InvalidArgumentError(
            f"{what}: the replacement is a name, a list of names, or null, not {json.dumps(replacement):.80}"
        )
    if isinstance(replacement, list):
        replacement = tuple(names)
    if transform is None:
        return Rule(pattern, replacement)
    if not isinstance(transform, str):
        raise InvalidArgumentError(f"{what}: the transform is a text, not {json.dumps(transform):.80}")
    try:
        return Rule(pattern, replacement, parse_transform(transform))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{what}: {error}") from None


def rules_text(rules: Iterable[Any]) -> str:
    r"""Return the text of a rules file, one rule a line: what `read_rules` reads back.

    Args:
      rules: (pattern, replacement[, transform]) tuples.

    Raises:
      InvalidArgumentError: a transform is a plain function, which a file cannot hold.

    Example:
      >>> import jaxvars as jv
      >>> print(rules_text([(r"a/(.*)", r"b/\1"), ("c", None), ("d", "e", jv.rules.transpose(1, 0))]))
      [
       ["a/(.*)", "b/\\1"],
       ["c", null],
       ["d", "e", "transpose(1, 0)"]
      ]
    """
    lines = [_readable(_plain(Rule(*rule))) for rule in rules]
    return "[\n " + ",\n ".join(lines) + "\n]" if lines else "[]"


def _readable(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(content)


def _plain(rule: Rule) -> list[Any]:
    if rule.transform is None:
        return [rule.pattern, rule.replacement]
    if not isinstance(rule.transform, ValueTransform):
        raise InvalidArgumentError(
            f"rule {rule}: a file cannot hold a function, only the transforms of jv.rules, such as transpose(1, 0)."
        )
    text = repr(rule.transform)
    parse_transform(text)  # a chain may have a plain function in it
    return [rule.pattern, rule.replacement, text]


def read_json(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return what a JSON file holds, and what to call the file in errors.

    Args:
      path: the file; "-" reads standard input.

    Raises:
      NotFoundError: there is no such file.
      DataLossError: it cannot be read.
      InvalidArgumentError: it is not JSON, an object has a name twice, or it is larger than such files are.
    """
    what = "standard input" if os.fspath(path) == "-" else os.fspath(path)
    data = _octets(path, what)
    if len(data) > _LONGEST:
        raise InvalidArgumentError(f"{what} has more than {_LONGEST >> 20} MB, too many for a JSON file of names.")
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_doubles), what
    except json.JSONDecodeError as error:
        raise InvalidArgumentError(f"{what}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{what} is no text in UTF-8 (byte {error.start}).") from None
    except RecursionError:
        raise InvalidArgumentError(f"{what} is nested too deeply.") from None
    except ValueError as error:  # a name twice, or an endless number
        raise InvalidArgumentError(f"{what}: {error}") from None


def _octets(path: str | os.PathLike[str], what: str) -> bytes:
    try:
        if os.fspath(path) == "-":
            return sys.stdin.buffer.read(_LONGEST + 1)
        with open(path, "rb") as file:
            return file.read(_LONGEST + 1)
    except FileNotFoundError:
        raise NotFoundError(f"File does not exist: {what}") from None
    except OSError as error:
        raise DataLossError(f"Cannot read {what}: {error.strerror or error}.") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Python's own reading keeps the last of two equal names, silently."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{json.dumps(name)} is there twice")
        found[name] = value
    return found

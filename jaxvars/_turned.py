r"""Turn a rule round: ``(r"tower/(.*)", r"conv1/\1")`` becomes ``(r"conv1/(.*)", r"tower/\1")``.

Used for one hint only: rules written in the wrong direction. So it knows simple rules (literal text and
groups without nesting, each used once) and gives up on others.
"""

from __future__ import annotations

import re
from typing import Any

_SPECIAL = frozenset(r".^$*+?{}[]\|()")

# A piece of a pattern: literal text, or a group with its number.
_Piece = tuple[str, int]


def turned(pattern: str, replacement: Any) -> tuple[str, str] | None:
    r"""Return the rule that undoes (pattern, replacement), or None where there is no simple one.

    Example:
      >>> turned(r"layer(\d+)/w", r"block\1/kernel")
      ('block(\\d+)/kernel', 'layer\\1/w')
    """
    if not isinstance(replacement, str) or not replacement:
        return None
    source, target = _pattern_pieces(pattern), _replacement_pieces(replacement)
    if source is None or target is None:
        return None
    groups = {number: text for text, number in source if number}
    order = [number for _, number in target if number]
    if sorted(order) != sorted(groups):
        return None
    new_pattern = "".join(groups[number] if number else _escape(text) for text, number in target)
    new_replacement = "".join(
        f"\\{order.index(number) + 1}" if number else text.replace("\\", "\\\\") for text, number in source
    )
    return new_pattern, new_replacement


def _escape(text: str) -> str:
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def _pattern_pieces(pattern: str) -> list[_Piece] | None:
    """The literal texts and groups of `pattern`; None when it has anything else outside its groups."""
    pieces: list[_Piece] = []
    count = 0
    for found in re.finditer(r"(\([^()]*\))|\\(.)|([^\\()])|(.)", pattern, re.DOTALL):
        group, escaped, char, _ = found.groups()
        if group is not None and not group.startswith("(?"):
            count += 1
            pieces.append((group, count))
        elif escaped is not None and not escaped.isalnum():
            pieces.append((escaped, 0))
        elif char is not None and char not in _SPECIAL:
            pieces.append((char, 0))
        else:
            return None
    return pieces


def _replacement_pieces(replacement: str) -> list[_Piece] | None:
    pieces: list[_Piece] = []
    for found in re.finditer(r"\\(\d)|\\g<(\d+)>|([^\\])|(.)", replacement, re.DOTALL):
        short, long, char, _ = found.groups()
        if char is not None:
            pieces.append((char, 0))
        elif short is not None or long is not None:
            pieces.append(("", int(short or long)))
        else:
            return None
    return pieces

"""The counters behind ``default_name``: how often each variable scope was opened.

A table maps the full name of a scope to its count. Tables are never changed in place: opening or closing a
scope makes a new one. So each thread and each asyncio task counts for itself, and a snapshot is a reference.

TF1's rules: every open counts, also by a given name; a default name takes the first suffix whose count is
zero; leaving a scope forgets the counts below it, so that numbering starts again on re-entry; leaving a
captured scope brings back the whole table as it was just after opening.
"""

from __future__ import annotations

from typing import Final, TypeAlias

__all__ = ["EMPTY", "Counts", "close", "open_default", "open_scope"]

Counts: TypeAlias = dict[str, int]

EMPTY: Final[Counts] = {}

# Entries with a newline, which no scope name has. `_JUMPED` says that the table may hold scopes that are not
# children of an open scope. A name followed by `_HINT` holds the suffix from which to look for a free one.
_JUMPED = "\n"
_HINT = "\n"


def open_scope(counts: Counts, name: str, jump: bool) -> Counts:
    """Count one more opening of the scope `name`.

    Args:
      counts: the table so far.
      name: the scope's full name.
      jump: whether the scope is not a direct child of the current one: captured, or with "/" in its name.

    Returns:
      The new table.
    """
    opened = counts.copy()
    opened[name] = counts.get(name, 0) + 1
    if jump:
        opened[_JUMPED] = 1
    return opened


def open_default(counts: Counts, prefix: str, default_name: str) -> tuple[str, Counts]:
    """Find the unique name for `default_name` below `prefix` and count its opening.

    Args:
      counts: the table so far.
      prefix: the current scope's prefix: "" or its name with "/".
      default_name: the name to make unique.

    Returns:
      The name (without prefix), and the new table.

    Example:
      >>> name, counts = open_default(EMPTY, "net/", "layer")
      >>> name, open_default(counts, "net/", "layer")[0]
      ('layer', 'layer_1')
    """
    full = prefix + default_name
    jump = "/" in default_name
    if not counts.get(full):
        return default_name, open_scope(counts, full, jump)
    # Without the hint, N scopes of one default name would take N*N/2 lookups.
    suffix = counts.get(full + _HINT, 1)
    while counts.get(f"{full}_{suffix}"):
        suffix += 1
    opened = open_scope(counts, f"{full}_{suffix}", jump)
    opened[full + _HINT] = suffix + 1
    return f"{default_name}_{suffix}", opened


def close(counts: Counts, opened: Counts, name: str) -> Counts:
    """Forget the counts below the scope `name`, which is being left and was not a captured one.

    Args:
      counts: the table now.
      opened: the table just after the scope was opened.
      name: the scope's full name.

    Returns:
      The table with which the enclosing scope goes on.
    """
    if not name:
        return counts  # the scope "" at the root has no names of its own below it
    if _JUMPED not in counts:
        return opened  # all that was counted since is below `name`
    below = name + "/"
    return {key: count for key, count in counts.items() if not key.startswith(below)}

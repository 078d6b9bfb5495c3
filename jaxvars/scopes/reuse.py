"""`AUTO_REUSE` and the reuse rule that TF1 gives to nested scopes."""

from __future__ import annotations

import enum
from typing import Final, Literal, TypeAlias

__all__ = ["AUTO_REUSE", "Reuse", "check_reuse"]

from jaxvars._source import user_site
from jaxvars.errors import InvalidArgumentError


class _ReuseMode(enum.Enum):
    """The type of `AUTO_REUSE`: an enum, so that copies and pickles stay the one object."""

    AUTO_REUSE = 1

    def __repr__(self) -> str:
        return "AUTO_REUSE"


AUTO_REUSE: Final = _ReuseMode.AUTO_REUSE
"""Create a variable the first time its name is asked for, return it every later time (``tf.AUTO_REUSE``)."""

Reuse: TypeAlias = bool | Literal[_ReuseMode.AUTO_REUSE]
"""What a scope's reuse can be: ``False`` (make), ``True`` (get), ``AUTO_REUSE`` (get or make)."""


def check_reuse(reuse: object) -> Reuse:
    """Return the reuse argument with ``None`` as ``False``: TF1 treats the two alike, as "inherit".

    Args:
      reuse: what the user passed.

    Returns:
      ``False``, ``True`` or `AUTO_REUSE`.

    Raises:
      InvalidArgumentError: for any other value.

    Example:
      >>> check_reuse(None), check_reuse(True), check_reuse(AUTO_REUSE)
      (False, True, AUTO_REUSE)
    """
    if reuse is None or reuse is False:
        return False
    if reuse is True or reuse is AUTO_REUSE:
        return reuse
    site = user_site()
    raise InvalidArgumentError(
        f"The reuse parameter must be True or False or None, or jv.AUTO_REUSE; got {reuse!r}"
        f"{f' at {site}' if site else ''}.\n"
        "Write reuse=True to share variables that exist, reuse=jv.AUTO_REUSE to make or share them."
    )

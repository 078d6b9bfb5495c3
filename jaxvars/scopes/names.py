"""Which names are legal, and the registry that makes op names unique.

TF1 checks a name against the graph's rules when a name scope is opened or a variable is made, and gives
every scope and op a name of its own, compared without regard to case: ``a``, ``a_1``, ``A_2``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import lru_cache, partial

from jaxvars._source import user_site
from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["NameRegistry", "check_scope_name", "check_variable_name", "is_variable_name"]

_ROOT = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_NESTED = re.compile(r"[A-Za-z0-9_.\\/>-]*")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_.\\/>-]")


@lru_cache(maxsize=4096)
def _is_root_name(name: str) -> bool:
    return _ROOT.fullmatch(name) is not None


@lru_cache(maxsize=4096)
def _is_nested_name(name: str) -> bool:
    return _NESTED.fullmatch(name) is not None


@lru_cache(maxsize=1 << 15)
def is_variable_name(name: str) -> bool:
    """Whether `check_variable_name` lets a name pass."""
    return _ROOT.fullmatch(name.replace("/~/", "/")) is not None and name[-1] != "/"


def check_scope_name(name: str, nested: bool) -> None:
    """Check the name of a name scope as TF1 does.

    Args:
      name: the name, possibly with several components.
      nested: whether a name scope is open already, where a leading ``_``, ``-`` or ``/`` is legal too.

    Raises:
      InvalidArgumentError: the name has an illegal character.

    Example:
      >>> check_scope_name("tower_0", nested=False)
      >>> check_scope_name("my layer", nested=True)
      Traceback (most recent call last):
      jaxvars.errors.InvalidArgumentError: 'my layer' is not a valid scope name...
    """
    if nested:
        if not _is_nested_name(name):
            raise InvalidArgumentError(_complaint(name, repr(name), "scope name"))
    elif not _is_root_name(name):
        raise InvalidArgumentError(_complaint(name, repr(name), "root scope name"))


def check_variable_name(full_name: str) -> None:
    """Check the full name of a new variable: TF1's rule for names at the root of the graph.

    TF1 also took a name that ends in "/", and then gave the variable another name than asked for;
    that is refused here. A part "~" is legal here, as names from Haiku have it: ``mlp/~/linear_0/w``.

    Args:
      full_name: scope prefix and name, such as ``"conv1/weights"``.

    Raises:
      InvalidArgumentError: the name is not legal.

    Example:
      >>> check_variable_name("conv1/weights")
    """
    if not is_variable_name(full_name):
        raise InvalidArgumentError(_complaint(full_name, f"Variable name {full_name!r}", "root scope name"))


def reject_variable_name(name: object) -> None:
    """Raise the error for a variable's name that is empty, ``None`` or not a string.

    Raises:
      InvalidArgumentError: for an empty name and for ``None``.
      InvalidTypeError: for a value of another type.
    """
    site = user_site()
    where = f" at {site}" if site else ""
    remedy = 'Give the variable a name of its own, for example jv.get_variable("weights", [3, 4]).'
    if name is None or name == "":
        raise InvalidArgumentError(f"get_variable needs a name, got {name!r}{where}.\n{remedy}")
    kind = type(name).__name__
    raise InvalidTypeError(f"The name of a variable must be a string, got {name!r} ({kind}){where}.\n{remedy}")


def _complaint(name: str, subject: str, rule: str) -> str:
    """The text for an illegal name: what is allowed, where the call was, and a legal name near it."""
    site = user_site()
    legal = _ILLEGAL.sub("_", name).rstrip("/")
    if rule == "root scope name" or not legal:
        legal = legal.lstrip("_-/\\>") or "scope"
    first = "" if rule == "scope name" else ", and begins with a letter, a digit or '.'"
    return (
        f"{subject} is not a valid {rule}{f' (at {site})' if site else ''}. It consists of letters, digits "
        f"and the characters _ . \\ / > -{first}. For example: {legal!r}"
    )


class NameRegistry:
    """The names of scopes and ops taken in one frame, shared by its threads.

    Only whole names count: ``a/b`` does not take ``a``. Case is ignored.

    Example:
      >>> names = NameRegistry()
      >>> names.unique("a"), names.unique("A"), names.unique("a/b"), names.unique("a")
      ('a', 'A_1', 'a/b', 'a_2')
    """

    __slots__ = ("_lock", "_used", "journal")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Lower-case name -> how often it was asked for, which is where the search for a free suffix begins.
        self._used: dict[str, int] = {}
        self.journal: list[Callable[[], None]] | None = None
        """Where each change leaves the call that undoes it, while a snapshot is held; else ``None``."""

    def unique(self, name: str, take: bool = True) -> str:
        """Take `name`, or the first free one of ``name_1``, ``name_2``, ..., and return what was taken.

        Args:
          name: the wanted name.
          take: ``False`` only tells what would be taken.

        Returns:
          The name.
        """
        key = name.lower()
        used = self._used
        with self._lock:
            count = used.get(key)
            if count is None:  # the usual case; _mark is written out, for speed
                if take:
                    if self.journal is not None:
                        self.journal.append(partial(self._set, key, None))
                    used[key] = 1
                return name
            if take:
                self._mark(key, count + 1)
            while (candidate := f"{key}_{count}") in used:
                count += 1
            if take:
                self._mark(candidate, 1)
        return f"{name}_{count}"

    def _mark(self, key: str, count: int) -> None:
        if self.journal is not None:
            self.journal.append(partial(self._set, key, self._used.get(key)))
        self._used[key] = count

    def _set(self, key: str, count: int | None) -> None:
        if count is None:
            del self._used[key]
        else:
            self._used[key] = count

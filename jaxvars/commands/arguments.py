"""Arguments as commands take them: a parser whose errors are one line, and types that say what they want."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from collections.abc import Callable, Generator
from typing import Any, NoReturn

from jaxvars.checkpoint.plan_text import shown
from jaxvars.checkpoint.rules_file import rules_text
from jaxvars.commands.output import BAD_INPUT
from jaxvars.errors import NotFoundError
from jaxvars.rules.engine import Instead

__all__ = [
    "Commands",
    "Parser",
    "RULES_HELP",
    "add_json",
    "add_progress",
    "pattern",
    "rules_from_a_file",
    "tolerance",
    "whole_number",
]

Commands = Any  # what `add_subparsers` returns has no public name

RULES_HELP = "JSON file of [pattern, replacement] or [pattern, replacement, transform] lists; - reads standard input"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with one line."""
        self.exit(BAD_INPUT, f"{self.prog}: {shown(message)} (see {self.prog} --help)\n")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="machine-readable: one JSON object")


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add ``--progress`` and ``--no-progress``."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="draw a progress bar on standard error, or never (by default: on a terminal, for large files)",
    )


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return an argument type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return number

    return parse


def tolerance(text: str) -> float:
    """Read a number that is not negative."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, not {text!r}")
    return number


def pattern(text: str) -> re.Pattern[str]:
    """Read a regular expression."""
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None


@contextlib.contextmanager
def rules_from_a_file(advice: str = "") -> Generator[None, None, None]:
    """Let the error of rules that match nothing show what to write as a rules file has it.

    Args:
      advice: what else helps where the rules are those of the other direction.
    """
    try:
        yield
    except NotFoundError as error:
        for instead in error.args[1:]:
            if isinstance(instead, Instead):
                lines = [instead.problem, advice, "Write:", rules_text(instead.rules)]
                raise NotFoundError("\n".join(filter(None, lines))) from None
        raise

"""The command line: ``python -m jaxvars`` and the script ``jaxvars``. The commands are in `jaxvars.commands`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

import jaxvars as jv
from jaxvars.commands import convert, diff, inspect, plan, tour
from jaxvars.commands.arguments import Parser
from jaxvars.commands.output import BAD_INPUT, INTERRUPTED, OK, complain
from jaxvars.errors import JaxvarsError

__all__ = ["main"]

_TEXT = (
    "TF1's variable_scope, get_variable and Saver as pure JAX, and your old checkpoints. "
    "Exit codes: 0 all went well, 1 something to be shown did not hold (checkpoints differ, a plan has problems), "
    "2 bad input or a missing package, 130 interrupted."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
      arguments: what follows the program's name; by default those of this process.

    Returns:
      0 when all went well, 1 when something that was to be shown did not hold, 2 for bad input or a missing
      package (with the error on standard error), 130 when interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path with unusual letters must not end the program
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader (head, say) has seen enough
        _close_output()
        return OK
    except KeyboardInterrupt:
        return complain(options.command, "interrupted", INTERRUPTED)
    except (JaxvarsError, ImportError) as error:
        return complain(options.command, str(error), BAD_INPUT)
    except OSError as error:
        _settle_output()
        return complain(options.command, str(error), BAD_INPUT)
    except MemoryError:
        return complain(options.command, "there is not enough memory for the largest tensor", BAD_INPUT)


def _settle_output() -> None:
    """Close standard output if it is what failed: its disk is full, say."""
    try:
        sys.stdout.flush()
    except OSError:
        _close_output()


def _close_output() -> None:
    """Let standard output lead nowhere, so that Python does not complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="jaxvars", allow_abbrev=False, description=_TEXT)
    parser.add_argument("--version", action="version", version=f"jaxvars {jv.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (tour, inspect, diff, plan, convert):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())

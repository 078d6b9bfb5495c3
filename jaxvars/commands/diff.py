"""``jaxvars diff``: what two checkpoints have in common and where they differ."""

from __future__ import annotations

import argparse

from jaxvars.checkpoint.diff import CheckpointDiff, diff
from jaxvars.checkpoint.plan_text import shown
from jaxvars.checkpoint.rules_file import read_rules
from jaxvars.commands.arguments import RULES_HELP, Commands, add_json, add_progress, rules_from_a_file, tolerance
from jaxvars.commands.output import FAILED, OK, emit, emit_json, use_cpu
from jaxvars.tour.report import table

__all__ = ["add"]

_ADVICE = "For rules of `jaxvars plan` exchange A and B: the new names come first."
_TEXT = (
    "Compares two checkpoints of any formats: names, shapes, dtypes and values. One line for each difference; the exit "
    "code is 0 where there is none, 1 where there are some. Rules give A's names those of B: the pattern matches the "
    "name in A, the replacement is the name in B."
)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("diff", allow_abbrev=False, help="compare two checkpoints", description=_TEXT)
    parser.add_argument("a", metavar="A", help="a checkpoint")
    parser.add_argument("b", metavar="B", help="another one")
    closeness = "values agree within ATOL + RTOL * the larger of the two (default: %(default)g, NaN equals NaN)"
    parser.add_argument("--rtol", type=tolerance, default=0.0, metavar="RTOL", help=closeness)
    parser.add_argument("--atol", type=tolerance, default=0.0, metavar="ATOL", help="see --rtol")
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--names-only", action="store_true", help="compare names only")
    level.add_argument("--no-values", action="store_true", help="compare names, shapes and dtypes only")
    parser.add_argument("--rules", metavar="FILE", help=RULES_HELP)
    add_json(parser)
    add_progress(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    use_cpu()
    rules = None if options.rules is None else read_rules(options.rules)
    level = "names" if options.names_only else "specs" if options.no_values else "values"
    with rules_from_a_file(_ADVICE):
        found = diff(options.a, options.b, rules, options.rtol, options.atol, level, options.progress)
    if options.json:
        emit_json(found.to_dict())
    else:
        emit(_text(found))
    return OK if found.same else FAILED


def _text(found: CheckpointDiff) -> str:
    rows = [(what, shown(name), shown(details)) for what, name, details in found.lines()]
    lines = table(["difference", "name", ""], rows) + "\n\n" if rows else ""
    return lines + shown(found.summary())

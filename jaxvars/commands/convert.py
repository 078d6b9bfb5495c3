"""``jaxvars convert``: a checkpoint in another format, or under other names."""

from __future__ import annotations

import argparse

from jaxvars.checkpoint.convert import convert
from jaxvars.checkpoint.formats.registry import WRITERS
from jaxvars.checkpoint.rules_file import read_rules
from jaxvars.commands.arguments import RULES_HELP, Commands, add_json, add_progress, rules_from_a_file
from jaxvars.commands.model_spec import MODEL_HELP, read_model
from jaxvars.commands.output import OK, emit, emit_json, use_cpu
from jaxvars.errors import InvalidArgumentError

__all__ = ["add"]

_ADVICE = "Rules of `jaxvars plan` go with --into MODEL."

_TEXT = (
    "Writes a checkpoint in another format, or under other names, with nothing lost: 64-bit numbers, strings and "
    "bfloat16 stay what they are. Rules: the pattern matches the name in A, the replacement is the name in B; with "
    "--into the pattern matches the model's name, and the replacement is the name in A. REGEX matches whole names, or "
    "is a scope that ends in a slash."
)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert", allow_abbrev=False, help="write a checkpoint in another format", description=_TEXT
    )
    parser.add_argument("a", metavar="A", help="the checkpoint")
    parser.add_argument("b", metavar="B", help="the new one; a checkpoint of the same format that is there is replaced")
    parser.add_argument(
        "--format", metavar="F", help=f"{', '.join(sorted(WRITERS))} (default: by the suffix of B, else orbax)"
    )
    parser.add_argument("--rules", metavar="FILE", help=RULES_HELP)
    parser.add_argument("--into", metavar="MODEL_SPEC", help=f"write the variables of this model: {MODEL_HELP}")
    parser.add_argument("--drop", action="append", metavar="REGEX", help="leave these names out (may be repeated)")
    parser.add_argument("--only", action="append", metavar="REGEX", help="take these names only (may be repeated)")
    parser.add_argument(
        "--cast", metavar="DTYPE", help="write floating tensors as DTYPE; with --into: `model`, for the model's dtypes"
    )
    parser.add_argument(
        "--aliases", action="store_true", help="use the other names that the format has, as TF1's in files of TF2"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not read B back to compare it")
    add_json(parser)
    add_progress(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.rules == "-" and options.into == "-":
        raise InvalidArgumentError("standard input can be the model or the rules, not both")
    if options.into is None:
        use_cpu()
    with rules_from_a_file(_ADVICE if options.into is None else ""):
        done = convert(
            options.a,
            options.b,
            rules=None if options.rules is None else read_rules(options.rules),
            format=options.format,
            into=None if options.into is None else read_model(options.into),
            only=options.only,
            drop=options.drop,
            cast=options.cast,
            aliases=options.aliases,
            verify=not options.no_verify,
            progress=options.progress,
        )
    if options.json:
        emit_json(done.to_dict())
    else:
        emit(str(done))
    return OK

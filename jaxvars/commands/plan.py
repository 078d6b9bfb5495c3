"""``jaxvars plan``: what a restore would do."""

from __future__ import annotations

import argparse
import html
import os
from collections.abc import Sequence

from jaxvars import checkpoint
from jaxvars.checkpoint import RestorePlan
from jaxvars.checkpoint.formats.atomic import whole_file
from jaxvars.checkpoint.plan_text import shown
from jaxvars.checkpoint.rules_file import read_rules, rules_text
from jaxvars.commands.arguments import RULES_HELP, Commands, rules_from_a_file
from jaxvars.commands.model_spec import MODEL_HELP, read_model
from jaxvars.commands.output import FAILED, OK, emit, emit_json
from jaxvars.errors import InvalidArgumentError

__all__ = ["add"]

_TEXT = (
    "Says what jv.checkpoint.restore would do: for each variable of the model, which tensor it gets, and what does not "
    "fit. Reads names, shapes and dtypes only. The exit code is 0 where a restore would succeed, else 1. Rules: the "
    "pattern matches the model's name, the replacement is the name in the checkpoint."
)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("plan", allow_abbrev=False, help="what a restore would do", description=_TEXT)
    parser.add_argument("checkpoint", metavar="CKPT", help="the checkpoint to restore from")
    parser.add_argument("model", metavar="MODEL_SPEC", help=MODEL_HELP)
    parser.add_argument("--rules", metavar="FILE", help=RULES_HELP)
    parser.add_argument("--suggest", action="store_true", help="propose rules for what is missing, and print them")
    parser.add_argument("--write-rules", metavar="FILE", help="with --suggest: write the rules to this file instead")
    parser.add_argument("--cast", action="store_true", help="convert within a family of dtypes, as restore(cast=True)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="machine-readable: one JSON object")
    form.add_argument("--html", action="store_true", help="a page with the plan as a table")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.write_rules is not None and not options.suggest:
        raise InvalidArgumentError("--write-rules goes with --suggest")
    if options.rules == "-" and options.model == "-":
        raise InvalidArgumentError("standard input can be the model or the rules, not both")
    rules = None if options.rules is None else read_rules(options.rules)
    into = read_model(options.model)
    with rules_from_a_file():
        made = checkpoint.plan(options.checkpoint, into, rules, cast=options.cast, suggest=options.suggest)
    proposed = rules_text(made.rules) if options.suggest else ""
    if options.write_rules is not None:
        with whole_file(os.path.abspath(options.write_rules)) as file:
            file.write(f"{proposed}\n".encode())
        proposed = ""
    _print(made, proposed, options)
    return OK if made.ok else FAILED


def _print(made: RestorePlan, proposed: str, options: argparse.Namespace) -> None:
    unsure = made.suggestion.unsure if made.suggestion is not None else {}
    if options.json:
        doubts = {"unsure": {name: list(others) for name, others in unsure.items()}} if options.suggest else {}
        emit_json({**made.to_dict(), **doubts})
    elif options.html:
        head = f"<!doctype html><meta charset='utf-8'><title>{html.escape(made.path)}</title>"
        rules = f"<pre>{html.escape(proposed)}</pre>" if proposed else ""
        emit(f"{head}{made._repr_html_()}{rules}")
    else:
        emit(str(made))
        for name, others in unsure.items():
            emit(f"unsure: {shown(name)}, {_doubt(others)}")
        if proposed:
            emit(f"\nproposed rules:\n{proposed}")
        if options.write_rules is not None:
            emit(f"\n{len(made.rules)} rules written to {options.write_rules}")


def _doubt(others: Sequence[str]) -> str:
    return f"which may be {' or '.join(map(shown, others))} instead" if others else "of which only the shape fits"

"""``jaxvars tour``: the whole of jaxvars on real digits."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from jaxvars.commands.arguments import Commands, whole_number
from jaxvars.commands.output import FAILED, OK, complain, use_cpu
from jaxvars.errors import InvalidArgumentError, UnavailableError

__all__ = ["add"]

_NEEDS = {  # module: the package that pip knows
    "sklearn": "scikit-learn",
    "optax": "optax",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
}

_TEXT = (
    "Takes a convolutional network that TensorFlow 1 code trained on handwritten digits, restores it by name "
    "rules, checks its answers, fine-tunes it on a new task, saves it, resumes it in a second process and "
    "draws a picture. Takes less than 90 seconds on two cores; downloads nothing."
)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "tour", allow_abbrev=False, help="the whole of jaxvars on real digits", description=_TEXT
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("jaxvars-tour"),
        help="folder for checkpoints and picture (default: ./jaxvars-tour)",
    )
    where.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with an earlier tour from its latest checkpoint"
    )
    parser.add_argument(
        "--steps",
        type=whole_number(2, 1_000_000),
        metavar="N",
        help="fine-tuning steps (default: 300; with --resume, those of the earlier tour)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**31 - 1),
        metavar="N",
        help="seed of the new head and of the images to learn from (default: 0)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UnavailableError(f'{", ".join(missing)} not installed; run: pip install "jaxvars[tour]"')
    # The network is tiny, and two processes agree on every bit only where both sum in the same order.
    use_cpu()
    from jaxvars.tour import program, steps

    try:
        if options.resume is None:
            program.run_tour(options.output, options.steps or 300, options.seed or 0)
        elif options.seed is not None:
            raise InvalidArgumentError("--seed does not go with --resume: the earlier tour's seed holds")
        else:
            program.resume_tour(options.resume, options.steps)
    except steps.TourFailure as failure:
        return complain("tour", str(failure), FAILED)
    return OK

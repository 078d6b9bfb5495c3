"""The command line: ``python -m jaxvars`` and the script ``jaxvars``."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax

import jaxvars as jv
from jaxvars.errors import InvalidArgumentError, JaxvarsError, UnavailableError

__all__ = ["main"]

_TOUR_NEEDS = {  # module: the package that pip knows
    "sklearn": "scikit-learn",
    "optax": "optax",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
}

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
      arguments: what follows the program's name; by default those of this process.

    Returns:
      0 when all went well, 1 when something that was to be shown did not hold, 2 for bad input or a missing
      package (with one line on standard error), 130 when interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path with unusual letters must not end the program
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (head, say) has seen enough; Python must not complain when it closes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return _complain(options.command, "interrupted", INTERRUPTED)
    except (JaxvarsError, OSError, ImportError) as error:
        return _complain(options.command, str(error), BAD_INPUT)


def _complain(command: str, message: str, code: int) -> int:
    """Print one line on standard error and return the exit code."""
    print(f"jaxvars {command}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxvars",
        allow_abbrev=False,
        description="TF1's variable_scope, get_variable and Saver as pure JAX, and your old checkpoints.",
    )
    parser.add_argument("--version", action="version", version=f"jaxvars {jv.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    tour = commands.add_parser(
        "tour", allow_abbrev=False, help="the whole of jaxvars on real digits", description=_TOUR_TEXT
    )
    _add_tour(tour)
    inspect = commands.add_parser(
        "inspect", allow_abbrev=False, help="list what a checkpoint holds", description=_INSPECT_TEXT
    )
    _add_inspect(inspect)
    return parser


_TOUR_TEXT = (
    "Takes a convolutional network that TensorFlow 1 code trained on handwritten digits, restores it by name "
    "rules, checks its answers, fine-tunes it on a new task, saves it, resumes it in a second process and "
    "draws a picture. Takes less than 90 seconds on two cores; downloads nothing."
)


def _add_tour(parser: argparse.ArgumentParser) -> None:
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
        type=_whole_number(2, 1_000_000),
        metavar="N",
        help="fine-tuning steps (default: 300; with --resume, those of the earlier tour)",
    )
    parser.add_argument(
        "--seed",
        type=_whole_number(0, 2**31 - 1),
        metavar="N",
        help="seed of the new head and of the images to learn from (default: 0)",
    )
    parser.set_defaults(run=_tour)


def _whole_number(least: int, most: int) -> Callable[[str], int]:
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


def _tour(options: argparse.Namespace) -> int:
    missing = [package for module, package in _TOUR_NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UnavailableError(f"{', '.join(missing)} not installed; run: pip install 'jaxvars[tour]'")
    if not os.environ.get("JAX_PLATFORMS"):
        # The network is tiny, and two processes agree on every bit only where both sum in the same order.
        jax.config.update("jax_platforms", "cpu")
    from jaxvars.tour import program, steps

    try:
        if options.resume is None:
            program.run_tour(options.output, options.steps or 300, options.seed or 0)
        elif options.seed is not None:
            raise InvalidArgumentError("--seed does not go with --resume: the earlier tour's seed holds")
        else:
            program.resume_tour(options.resume, options.steps)
    except steps.TourFailure as failure:
        return _complain("tour", str(failure), FAILED)
    return OK


_INSPECT_TEXT = (
    "Lists name, shape and dtype of everything in a checkpoint: TensorFlow's (no TensorFlow needed) or ours. "
    "PATH is what a Saver was given or returned, such as old/model.ckpt-1200."
)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the checkpoint")
    parser.add_argument("--json", action="store_true", help="machine-readable: one JSON object")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from jaxvars.tour.report import table

    with jv.checkpoint.open(options.path) as reader:
        form = reader.format
        rows = [(name, list(info.shape), info.type_name) for name, info in sorted(reader.tensors.items())]
    if options.json:
        variables = [{"name": name, "shape": shape, "dtype": dtype} for name, shape, dtype in rows]
        print(json.dumps({"path": options.path, "format": form, "variables": variables}, indent=1))
    else:
        print(table(["name", "shape", "dtype"], rows))
        print(f"\n{len(rows)} variables in {options.path} ({form})")
    return OK


if __name__ == "__main__":
    sys.exit(main())

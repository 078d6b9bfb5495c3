"""Running the command line in the tests' own process, and what every mistake looks like."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from jaxvars.__main__ import main


class Run(NamedTuple):
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which must be strict JSON."""
        return json.loads(self.out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Run:
    """Run the command line in this process."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        assert isinstance(end.code, int)
        code = end.code
    return Run(code, *capsys.readouterr())


def assert_one_line(done: Run, *parts: str) -> None:
    """Check that the command failed on bad input, with one line that has these parts."""
    assert_error(done, *parts)
    assert done.err.count("\n") == 1


def assert_error(done: Run, *parts: str) -> None:
    """Check that the command failed on bad input, with an error that has these parts and nothing else."""
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(("jaxvars ", "jaxvars: "))
    assert done.err.endswith("\n") and "Traceback" not in done.err
    for part in parts:
        assert part in done.err

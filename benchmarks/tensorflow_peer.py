"""TensorFlow in a process of its own, which works when it is told to, in turn with the cases of this one.

A program for that process imports neither jaxvars nor JAX, has a class of methods that return seconds, and ends in
``serve(TheClass())``. Here ``started(program)`` gives a function: ``peer("method", argument, ...)`` runs it there.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from benchmarks import peers


class Peer:
    """The process, as a function."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors

    def __call__(self, *call: Any) -> float:
        """Run one method there and return the seconds it took, by the clock there.

        Raises:
          RuntimeError: the process has ended; says what it wrote on its standard error.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise RuntimeError(f"the process with TensorFlow ended at {call}:\n{self._errors.read()[-2000:]}")
        return float(json.loads(answer))


@contextlib.contextmanager
def started(program: Path) -> Iterator[Peer | None]:
    """Start a program with the Python that has TensorFlow; None where there is no TensorFlow."""
    python = peers.tensorflow_python()
    if python is None:
        yield None
        return
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **os.environ}
    environment["PYTHONPATH"] = str(program.parent.parent)
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [python, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            yield Peer(process, errors)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def serve(methods: Any) -> None:
    """Answer until the input ends: each line is a JSON list, a method and its arguments; the answer its seconds."""
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        call: Callable[..., float] = getattr(methods, method)
        print(json.dumps(call(*arguments)), flush=True)

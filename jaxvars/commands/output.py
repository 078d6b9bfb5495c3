"""What all commands share on their way out: exit codes, text that no name can break, JSON, how errors are printed."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any, cast

import jax

from jaxvars.checkpoint.plan_text import shown

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "OK", "complain", "emit", "emit_json", "use_cpu"]

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def emit(text: str) -> None:
    """Print text on standard output; control characters other than tabs and ends of lines are spelled out."""
    print("\n".join(map(_spelled_out, text.split("\n"))))


def _spelled_out(line: str) -> str:
    return line if line.isprintable() else "".join(c if c == "\t" else shown(c) for c in line)


def emit_json(content: Any) -> None:
    """Print one JSON object. Numbers that JSON does not have are texts: "NaN", "Infinity", "-Infinity"."""
    print(json.dumps(_finite(content), indent=1, allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        if math.isfinite(content):
            return content
        return "NaN" if math.isnan(content) else "Infinity" if content > 0 else "-Infinity"
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in cast("dict[str, Any]", content).items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in cast("list[Any]", content)]
    return content


def complain(command: str, message: str, code: int) -> int:
    """Print an error on standard error, line by line as it is, and return the exit code."""
    text = message.strip().removeprefix(f"jv.checkpoint.{command}: ")
    print(f"jaxvars {command}: " + "\n".join(map(_spelled_out, text.split("\n"))), file=sys.stderr)
    return code


def use_cpu() -> None:
    """Keep JAX off accelerators: looking into files must not take a GPU from whoever computes on it."""
    if not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")

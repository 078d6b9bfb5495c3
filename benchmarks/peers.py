"""Which peers are installed. A section leaves out those that are not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

TENSORFLOW_PYTHON = "JAXVARS_BENCH_TENSORFLOW"  # names a Python that has TensorFlow


def haiku() -> bool:
    """Whether dm-haiku can be imported."""
    return importlib.util.find_spec("haiku") is not None


def linen() -> bool:
    """Whether Flax can be imported."""
    return importlib.util.find_spec("flax") is not None


def equinox() -> bool:
    """Whether Equinox can be imported."""
    return importlib.util.find_spec("equinox") is not None


def optax() -> bool:
    """Whether optax can be imported."""
    return importlib.util.find_spec("optax") is not None


def tensorflow_python() -> str | None:
    """The Python that has TensorFlow: the one the environment names, else this one; None where neither has it."""
    named = os.environ.get(TENSORFLOW_PYTHON)
    if named is not None:
        return named
    return sys.executable if importlib.util.find_spec("tensorflow") is not None else None


def tensorflow_version() -> str | None:
    """The version of that TensorFlow, which is not imported for it."""
    python = tensorflow_python()
    if python is None:
        return None
    program = (
        "from importlib import metadata as m; print(*{m.version(d) for d in m.packages_distributions()['tensorflow']})"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None

"""What was measured on: the machine, the versions, how busy it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from benchmarks import peers

PACKAGES = (
    "jaxvars", "jax", "jaxlib", "numpy", "dm-haiku", "flax", "equinox", "optax", "orbax-checkpoint", "safetensors",
    "google-crc32c",
)  # fmt: skip


def machine() -> str:
    """Processor, system and Python."""
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.machine()}, {python}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def versions() -> str:
    """Of jaxvars (with its commit), JAX and the peers."""
    found = [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    found[0] += _commit()
    tensorflow = peers.tensorflow_version()
    return ", ".join([*found, f"TensorFlow {tensorflow}"] if tensorflow else found)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit in brackets, with a "+" where the package differs from it."""
    try:
        commit, changes = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--", "../jaxvars")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({commit}{'+' if changes else ''})"


def _git(*command: str) -> str:
    folder = Path(__file__).parent
    return subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]

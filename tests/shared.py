"""The test data that lies beside the repository, where it is there: tests that need it skip elsewhere."""

from pathlib import Path

import pytest


def shared_path(name: str) -> Path:
    """Return ``<repository>/../shared/<name>``, or skip the test."""
    path = Path(__file__).resolve().parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"needs the shared test data ({name})")
    return path

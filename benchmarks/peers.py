"""Which peers are installed. A section leaves out those that are not."""

from __future__ import annotations

import importlib.util


def haiku() -> bool:
    """Whether dm-haiku can be imported."""
    return importlib.util.find_spec("haiku") is not None


def linen() -> bool:
    """Whether Flax can be imported."""
    return importlib.util.find_spec("flax") is not None

"""Names of a package that are imported at their first use."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def imported(package: str, name: str, module: str, attribute: str | None = None) -> Any:
    """Import what a package has under a name, and keep it there: the next use finds it at once.

    Args:
      package: the package's ``__name__``.
      name: the name in the package.
      module: the module below the package that has it; a module of this very name is meant itself.
      attribute: its name in the module, where that is another one.
    """
    value = importlib.import_module(f"{package}.{module}")
    if attribute is not None or module != name:
        value = getattr(value, attribute or name)
    setattr(sys.modules[package], name, value)
    return value

"""The packages of the extra ``[interop]``, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from jaxvars.errors import UnavailableError


def require(module: str, what: str) -> Any:
    """Import a module of another library, or say which extra has it.

    Args:
      module: the module to import.
      what: what needs it, for the error.

    Raises:
      UnavailableError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnavailableError(
            f'{what} needs {module.partition(".")[0]} ({error}). Run: pip install "jaxvars[interop]"'
        ) from error

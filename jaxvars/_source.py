"""Where the user's own code called us: ``file.py:line`` for error texts."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import FrameType

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STDLIB = sysconfig.get_path("stdlib") + os.sep


def _is_library(filename: str) -> bool:
    """Whether the file belongs to jaxvars, JAX, the standard library or another installed package."""
    return filename.startswith((_PACKAGE, _STDLIB, "<frozen")) or f"{os.sep}site-packages{os.sep}" in filename


def user_site() -> str:
    """Return ``"path/file.py:line"`` of the innermost call that is not library code, "" if none.

    Costs a few microseconds: call it where a variable is made or an error is raised, not where one is read.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not _is_library(filename):
            return f"{filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""

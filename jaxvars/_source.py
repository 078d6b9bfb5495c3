"""Where the user's own code called us: ``file.py:line`` for error texts."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import FrameType

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_SCOPES = _PACKAGE + "scopes" + os.sep
_ASKS_GETTERS = _SCOPES + "request.py"
_LAYERS = _PACKAGE + "layers" + os.sep
_STDLIB = sysconfig.get_path("stdlib") + os.sep


def _is_library(filename: str) -> bool:
    """Whether the file belongs to jaxvars, JAX, the standard library or another installed package."""
    return filename.startswith((_PACKAGE, _STDLIB, "<frozen")) or f"{os.sep}site-packages{os.sep}" in filename


def user_site() -> str:
    """Return ``"path/file.py:line"`` of the innermost call that is not library code, "" if none.

    A custom getter is not where a variable is asked for: what called `get_variable` counts.

    Costs a few microseconds: call it where a variable is made or an error is raised, not where one is read.
    """
    frame: FrameType | None = sys._getframe(1)
    site = ""
    while frame is not None:
        filename = frame.f_code.co_filename
        if filename == _ASKS_GETTERS:
            site = ""  # all user code so far was a getter's
        elif not _is_library(filename):
            site = site or f"{filename}:{frame.f_lineno}"
        elif site and not filename.startswith(_SCOPES):
            break
        frame = frame.f_back
    return site


def layer_called() -> str:
    """Return the name of the function of `jaxvars.layers` that the user's code called, such as "dense", "" if none."""
    frame: FrameType | None = sys._getframe(1)
    name = ""
    while frame is not None and _is_library(frame.f_code.co_filename):
        if frame.f_code.co_filename.startswith(_LAYERS):
            name = frame.f_code.co_name
        frame = frame.f_back
    return name

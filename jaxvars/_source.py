"""Where the user's own code called us: ``file.py:line`` for error texts."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import FrameType
from typing import Any

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_SCOPES = _PACKAGE + "scopes" + os.sep
_ASKS_GETTERS = _SCOPES + "request.py"
_LAYERS = _PACKAGE + "layers" + os.sep
_STDLIB = sysconfig.get_path("stdlib") + os.sep


class _Kinds(dict[str, str]):
    """File name -> whose it is: ours (and which part), other library code, "" for the user's.

    A table, because the making of each variable asks for several stack frames.
    """

    def __missing__(self, filename: str) -> str:
        if filename == _ASKS_GETTERS:
            kind = "getters"
        elif filename.startswith(_SCOPES):
            kind = "scopes"
        elif filename.startswith((_PACKAGE, _STDLIB, "<frozen")) or f"{os.sep}site-packages{os.sep}" in filename:
            kind = "library"
        else:
            kind = ""
        self[filename] = kind
        return kind


_kinds = _Kinds()


def _cell(filename: str) -> tuple[str, ...]:
    """What a notebook calls the code of this name now, such as ``("Cell", "In[5]")``; empty for a file."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return (shell.compile.format_code_name(filename) or ()) if shell else ()


class _IsCell(dict[str, bool]):
    """File name -> whether it is a notebook's cell; its number is another one each time that it runs."""

    def __missing__(self, filename: str) -> bool:
        self[filename] = found = bool(_cell(filename))
        return found


_is_cell = _IsCell()


def _is_library(filename: str) -> bool:
    """Whether the file belongs to jaxvars, JAX, the standard library or another installed package."""
    return bool(_kinds[filename])


def user_site() -> str:
    """Return ``"path/file.py:line"`` of the innermost call that is not library code, "" if none.

    In a notebook it is ``"Cell In[5], line 2"``, as IPython's own tracebacks say.

    A custom getter is not where a variable is asked for: what called `get_variable` counts.

    Costs a few microseconds: call it where a variable is made or an error is raised, not where one is read.
    """
    frame: FrameType | None = sys._getframe(1)
    site = ""
    while frame is not None:
        filename, line = frame.f_code.co_filename, frame.f_lineno
        kind = _kinds[filename]
        if not kind:
            if not site:
                site = f"{' '.join(_cell(filename))}, line {line}" if _is_cell[filename] else f"{filename}:{line}"
        elif kind == "getters":
            site = ""  # all user code so far was a getter's
        elif site and kind != "scopes":
            break
        frame = frame.f_back
    return site


def class_name(value: Any) -> str:
    """Return the class of an object as its user writes it: ``jv.layers.Dense``, or the bare name of one's own class."""
    kind = type(value)
    package = kind.__module__.rpartition(".")[0]
    return f"jv{package.removeprefix('jaxvars')}.{kind.__name__}" if package.startswith("jaxvars") else kind.__name__


def layer_called() -> str:
    """Return the name of the function of `jaxvars.layers` that the user's code called, such as "dense", "" if none."""
    frame: FrameType | None = sys._getframe(1)
    name = ""
    while frame is not None and _is_library(frame.f_code.co_filename):
        if frame.f_code.co_filename.startswith(_LAYERS):
            name = frame.f_code.co_name
        frame = frame.f_back
    return name

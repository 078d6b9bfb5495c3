"""Fresh environments: made by uv where it is installed, else by venv and pip, which takes ten times as long."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SECONDS = 600
_SHOWN = 4000
_BIN = "Scripts" if os.name == "nt" else "bin"


class CommandFailed(Exception):
    """A command that did not end as it should; the text holds the end of what it printed."""


def run(command: Sequence[str | Path], cwd: Path, *, fails: bool = False) -> str:
    """What a command prints, both streams together; no setting of the caller's Python reaches it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "JAX_"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | {"JAX_PLATFORMS": "cpu", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if (done.returncode != 0) != fails:
        line = " ".join(str(part) for part in command)
        raise CommandFailed(f"{line}\nended with {done.returncode}:\n{done.stdout[-_SHOWN:]}")
    return done.stdout


@cache
def uv() -> str | None:
    """The program uv: beside this Python, else on the path."""
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    return beside or shutil.which("uv")


def interpreters(wanted: Sequence[str]) -> dict[str, Path]:
    """The Python of each version ("3.12") that is found on the path or among pyenv's."""
    found: dict[str, Path] = {}
    for version in wanted:
        pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
        on_path = shutil.which(f"python{version}")
        candidates = [*([Path(on_path)] if on_path else []), *reversed(pyenv)]
        if this := next((path for path in candidates if version_of(path) == version), None):
            found[version] = this
    return found


def version_of(python: Path) -> str | None:
    """Its version ("3.12"), None if it cannot make environments."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        return run([python, "-c", code], Path.cwd()).strip()
    except (CommandFailed, OSError):
        return None


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing in it, and an empty folder in which its programs run."""

    folder: Path
    work: Path

    @classmethod
    def fresh(cls, root: Path, name: str, python: Path) -> Environment:
        made = cls(root / name, Path(tempfile.mkdtemp(dir=root, prefix=f"{name}-work-")))
        command = [uv(), "venv", "--quiet", "--python", python] if uv() else [python, "-m", "venv"]
        run([*map(str, command), made.folder], root)
        return made

    @property
    def python(self) -> Path:
        return self.folder / _BIN / "python"

    def script(self, name: str, *arguments: str | Path) -> str:
        """What an installed script prints."""
        return run([self.folder / _BIN / name, *arguments], self.work)

    def program(self, *arguments: str | Path, cwd: Path | None = None, fails: bool = False) -> str:
        """What Python prints; the folder of a program is not on its path."""
        return run([self.python, "-P", *arguments], cwd or self.work, fails=fails)

    def install(self, *arguments: str | Path) -> None:
        self._packages("install", *arguments)

    def uninstall(self, *names: str) -> None:
        self._packages("uninstall", *([] if uv() else ["-y"]), *names)

    def versions(self, *names: str) -> str:
        """What is installed, such as ``jax 0.10.2``."""
        code = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
        return self.program("-c", code, *names).strip()

    def _packages(self, action: str, *arguments: str | Path) -> None:
        tool = uv()
        if tool:
            run([tool, "pip", action, "--quiet", "--python", self.python, *arguments], self.work)
        else:
            run([self.python, "-m", "pip", action, "--quiet", *arguments], self.work)

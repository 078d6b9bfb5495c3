"""Checks what a package index would get, away from the repository: the wheel and the source distribution.

    python tools/check_packages.py                              everything
    python tools/check_packages.py --only contents              what is in them
    python tools/check_packages.py --only extras --extra train  one extra
    python tools/check_packages.py --only install --python 3.13 one Python

contents  Both are built from the last commit; their files, metadata and README; built again they are the same bytes.
install   On each Python of pyproject.toml that is found: the wheel alone runs a program and the commands; then tests
          of the source distribution run with the installed wheel.
extras    Each extra in an environment of its own: what needs it says, without it, what to install, and runs after that.
oldest    The same as install, with the oldest version of everything that pyproject.toml allows.

Needs the extra [dev]. Environments are made by uv if it is there, else by pip.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from packages.contents import Packages, build, check
from packages.environments import CommandFailed, Environment, interpreters, uv
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
TRIALS = ROOT / "tools" / "packages" / "trials"
STEPS = ("contents", "install", "extras", "oldest")
# TensorFlow is too big for here: `pytest parity` has an environment of its own.
ELSEWHERE = ("parity",)
# Something of each part of jaxvars, and fast.
TESTS = ("cli", "convert", "deprecation", "import", "packaging", "saver", "transform")
_HINT = re.compile(r'pip install "(jaxvars\[\w+\])"')


def main() -> int:
    options = _arguments()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="jaxvars-packages-") as folder:
        root = Path(folder)
        packages = build(_last_commit(root / "tree"), root / "dist")
        print(f"built for {'uv' if uv() else 'pip'}: {packages.summary()}", flush=True)
        failed = _run(dict(_jobs(options, Trial(root, packages))), options.jobs)
    print(f"{time.perf_counter() - started:.0f} s in all; failed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    extras = [name for name in project()["optional-dependencies"] if name not in ELSEWHERE]
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--python", nargs="+", choices=pythons(), default=pythons(), metavar="VERSION")
    parser.add_argument("--extra", nargs="+", choices=extras, default=extras)
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="how many at once")
    return parser.parse_args()


# What pyproject.toml promises


def project() -> dict[str, Any]:
    """The table [project]."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pythons() -> list[str]:
    """The versions of Python, oldest first."""
    prefix = "Programming Language :: Python :: "
    found = [line.removeprefix(prefix) for line in project()["classifiers"] if line.startswith(prefix)]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def oldest() -> list[str]:
    """The lower bound of everything it asks for, as constraints."""
    lists = [project()["dependencies"], *project()["optional-dependencies"].values()]
    needs = [Requirement(line) for lines in lists for line in lines]
    return sorted({f"{need.name}=={bound.version}" for need in needs for bound in need.specifier})


def requirements_of(extra: str) -> list[str]:
    """The names of the packages that an extra adds, through other extras too."""
    needs = [Requirement(line) for line in project()["optional-dependencies"][extra]]
    ours = [inner for need in needs if need.name == "jaxvars" for inner in need.extras]
    return sorted(
        {need.name for need in needs if need.name != "jaxvars"}.union(*(requirements_of(inner) for inner in ours))
    )


# Jobs


def _last_commit(folder: Path) -> Path:
    """The tree as it was committed, without what else lies in its folder."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


def _jobs(options: argparse.Namespace, trial: Trial) -> Iterator[tuple[str, Callable[[], str]]]:
    found = interpreters(options.python)
    for version in options.python:
        if version not in found:
            print(f"SKIPPED: no Python {version} was found", flush=True)
    if not found:
        raise SystemExit("There is no Python to install the wheel with.")
    first = next(iter(found.values()))
    if "install" in options.only:
        for version, python in found.items():
            yield f"Python {version}", partial(trial.install, f"python{version}", python)
    if "oldest" in options.only:
        yield "oldest versions", partial(trial.install, "oldest", first, oldest())
    if "extras" in options.only:
        for extra in options.extra:
            yield f"extra {extra}", partial(trial.extra, extra, first)
    if "contents" in options.only:
        yield "contents", trial.contents


def _run(jobs: Mapping[str, Callable[[], str]], at_once: int) -> list[str]:
    """Do all of them, and return the names of those that failed."""
    failed: list[str] = []

    def do(name: str) -> None:
        started = time.perf_counter()
        try:
            outcome = jobs[name]()
        except (CommandFailed, subprocess.TimeoutExpired) as error:
            failed.append(name)
            outcome = f"FAILED: {error}"
        print(f"{name:16} {time.perf_counter() - started:4.0f} s  {outcome}", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(do, jobs))
    return failed


class Trial:
    """The two packages, tried in fresh environments; each method says what it saw, or raises `CommandFailed`."""

    def __init__(self, root: Path, packages: Packages) -> None:
        self._root = root
        self._packages = packages
        with tarfile.open(packages.sdist) as archive:
            archive.extractall(root / "unpacked", filter="data")
        (self._sdist,) = (root / "unpacked").iterdir()
        shutil.rmtree(self._sdist / "jaxvars")  # so that its tests take the installed one

    def contents(self) -> str:
        """In the packages is what belongs there."""
        if problems := check(self._packages):
            raise CommandFailed("\n".join(problems))
        return "files, metadata, README; built twice"

    def install(self, name: str, python: Path, constraints: Sequence[str] = ()) -> str:
        """The wheel alone, then with the tests of the source distribution."""
        pinned = self._root / f"{name}.txt"
        pinned.write_text("\n".join(constraints))
        environment = Environment.fresh(self._root, name, python)
        environment.install("-c", pinned, self._wheel())
        environment.program(TRIALS / "base.py")
        self._try_commands(environment)
        environment.install("-c", pinned, self._wheel("test"))
        tests = [f"tests/test_{name}.py" for name in TESTS]
        options = ["-n", "0", "-p", "no:cacheprovider"]
        if constraints:  # the oldest Matplotlib uses what the newest pyparsing deprecates
            options += ["-W", "default::DeprecationWarning"]
        printed = environment.program("-m", "pytest", *options, *tests, cwd=self._sdist)
        return f"{environment.versions('jax', 'flax', 'numpy')}; {printed.strip().splitlines()[-1]}"

    def _try_commands(self, environment: Environment) -> None:
        version = environment.script("jaxvars", "--version").strip()
        listed = environment.program("-m", "jaxvars", "inspect", "run/tf/model")  # which base.py wrote
        if version.replace(" ", "-") not in self._packages.wheel.name or "hidden/first/kernel" not in listed:
            raise CommandFailed(f"the commands printed\n{version}\n{listed}")

    def extra(self, name: str, python: Path) -> str:
        """An extra alone: its program asks for it where it is missing, and runs where it is there."""
        environment = Environment.fresh(self._root, name, python)
        program = TRIALS / f"{name}.py"
        if not program.exists():
            environment.install(self._wheel(name), "packaging")
            return environment.program(TRIALS / "listed.py", name).strip()
        environment.install(self._wheel())
        environment.uninstall(*requirements_of(name))  # Flax brings some of them
        asked = set(_HINT.findall(environment.program(program, self._sdist, fails=True)))
        if asked != {f"jaxvars[{name}]"}:
            raise CommandFailed(f"without its packages, {program.name} asks for {asked or 'nothing'}")
        environment.install(*asked)
        environment.program(program, self._sdist)
        return f"asked for {asked.pop()}, then ran"

    def _wheel(self, extra: str = "") -> str:
        return f"jaxvars{f'[{extra}]' if extra else ''} @ {self._packages.wheel.as_uri()}"


if __name__ == "__main__":
    raise SystemExit(main())

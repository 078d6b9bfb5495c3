"""What is in a wheel and a source distribution, and whether that is what belongs there."""

from __future__ import annotations

import hashlib
import re
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import Metadata

from packages.environments import run, uv

# Tracked, but of no use without the repository.
_ONLY_IN_THE_REPOSITORY = (".ci/", ".github/", ".gitattributes")
_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]*)\)")


@dataclass(frozen=True)
class Packages:
    """The two files that a package index gets, and the tree they are made from."""

    tree: Path
    wheel: Path
    sdist: Path
    problems: tuple[str, ...] = ()

    def summary(self) -> str:
        sizes = [f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in (self.wheel, self.sdist)]
        return f"{', '.join(sizes)}, {len(_in_wheel(self.wheel))} and {len(_in_sdist(self.sdist))} files"


def build(tree: Path, out: Path) -> Packages:
    """Build the source distribution and from it the wheel, then both again from the tree."""
    installer = ["--installer", "uv"] if uv() else []
    command = [sys.executable, "-m", "build", *installer, "--outdir"]
    run([*command, out, tree], tree)
    run([*command, out / "again", "--wheel", tree], tree)
    run([*command, out / "again", "--sdist", tree], tree)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    problems = [
        f"{path.name} differs when it is built {how}"
        for path, how in ((wheel, "from the tree instead of the source distribution"), (sdist, "again"))
        if _digest(path) != _digest(out / "again" / path.name)
    ]
    return Packages(tree, wheel, sdist, tuple(problems))


def check(packages: Packages) -> list[str]:
    """Everything that is wrong with them."""
    tracked = {str(path.relative_to(packages.tree)) for path in packages.tree.rglob("*") if path.is_file()}
    ours = {name for name in tracked if name.startswith("jaxvars/")}
    folder = "-".join(packages.wheel.name.split("-")[:2]) + ".dist-info"
    about = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"]
    released = {name for name in tracked if not name.startswith(_ONLY_IN_THE_REPOSITORY)}
    run([sys.executable, "-m", "twine", "check", "--strict", packages.wheel, packages.sdist], packages.tree)
    in_wheel, in_sdist = _in_wheel(packages.wheel), _in_sdist(packages.sdist)
    metadata = in_wheel[f"{folder}/METADATA"]
    return [
        *packages.problems,
        *_differences(packages.wheel, set(in_wheel), ours | {f"{folder}/{name}" for name in about}),
        *_differences(packages.sdist, set(in_sdist), released | {"PKG-INFO"}),
        *(["the two files have different metadata"] if in_sdist["PKG-INFO"] != metadata else []),
        *_in_metadata(metadata),
    ]


def _in_metadata(raw: bytes) -> list[str]:
    metadata = Metadata.from_email(raw)  # validated; raises an ExceptionGroup with all that is wrong
    text = metadata.description or ""
    return [
        *([] if len(text) > 1000 else ["the metadata has no description"]),
        *(f"a package index cannot follow the README's link to {link}" for link in _LINK.findall(text)),
    ]


def _differences(path: Path, found: set[str], wanted: set[str]) -> list[str]:
    return [
        *(f"{path.name} lacks {name}" for name in sorted(wanted - found)),
        *(f"{path.name} should not have {name}" for name in sorted(found - wanted)),
    ]


def _in_wheel(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _in_sdist(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        return {member.name.partition("/")[2]: _read(archive, member) for member in files}


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    return stream.read() if stream else b""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

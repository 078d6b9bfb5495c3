"""Draws the badges of the README: each says what `.ci/run` checks, read from the files that hold it.

Run ``python tools/draw_badges.py`` from the root of a clone (needs anybadge, of the extra ``[dev]``) after one of those
changed; a test says when.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "_static" / "badges"
BLUE, GREEN = "#2f6fc4", "#2a8a55"


def facts() -> dict[str, tuple[str, str]]:
    """The badges: a file name, and what stands on its left and right."""
    project = tomllib.loads(_read("pyproject.toml"))
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(project["project"]["classifiers"]))
    oldest = _found(r"jax==([\d.]+)", ".ci/run")
    types = project["tool"]["pyright"]["typeCheckingMode"]
    assert "pyright" in _read(".ci/run") and "ruff check" in _read(".ci/run") and "pytest parity" in _read(".ci/run")
    guides = _found(r"All (\d+) rows hold", "docs/guide-rows.md")
    examples = _found(r"about ([\d,]+) in each run of CI", "README.md")
    notebooks = len(list((ROOT / "notebooks").glob("*.ipynb")))
    return {
        "python": ("Python", " | ".join(pythons)),
        "jax": ("JAX", f"{oldest} to newest"),
        "tensorflow": ("beside TensorFlow", f"about {examples} examples"),
        "guides": ("TF1's guides", f"{guides} of {guides} statements"),
        "notebooks": ("notebooks", f"{notebooks} run"),
        "types": ("types", f"pyright {types}"),
        "lint": ("lint", "ruff"),
        "license": ("license", project["project"]["license"]),
    }


def draw(left: str, right: str) -> str:
    """One badge as SVG, the same each time."""
    import anybadge  # here: the test of the facts does without

    color = BLUE if left in ("Python", "JAX", "license") else GREEN
    badge = anybadge.Badge(left, right, default_color=color)
    badge.mask_str = "mask"  # by itself it counts the badges of a process
    return badge.badge_svg_text


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _found(pattern: str, path: str) -> str:
    found = re.search(pattern, _read(path))
    if found is None:
        raise ValueError(f"{path} has nothing like {pattern}")
    return found[1]


def main() -> None:
    """Write all badges."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, sides in facts().items():
        (FOLDER / f"{name}.svg").write_text(draw(*sides), encoding="utf-8")


if __name__ == "__main__":
    main()

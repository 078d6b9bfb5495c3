"""The README's badges say what the files say that they are drawn from."""

from __future__ import annotations

import html
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_badges_are_true() -> None:
    facts = runpy.run_path(str(ROOT / "tools" / "draw_badges.py"))["facts"]()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folder = ROOT / "docs" / "_static" / "badges"
    assert {path.stem for path in folder.iterdir()} == facts.keys()
    for name, sides in facts.items():
        drawn = (folder / f"{name}.svg").read_text(encoding="utf-8")
        for side in sides:
            assert f">{side}<" in html.unescape(drawn), f"{name}: run python tools/draw_badges.py"
        assert f"docs/_static/badges/{name}.svg" in readme

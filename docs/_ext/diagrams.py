"""``mermaid`` fences as pictures, one for light pages and one for dark ones: a page needs no script and no network.

The text in the fence is the only source. `tools/draw_diagrams.py` draws it with mermaid itself into docs/diagrams/,
under a name that is the hash of the text; a fence whose picture is missing is an error.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).resolve().parents[1] / "diagrams"
THEMES = ("light", "dark")


def picture(source: str, theme: str) -> Path:
    """The file with the drawing of a diagram's text."""
    name = hashlib.sha256(source.strip().encode()).hexdigest()[:12]
    return FOLDER / f"{name}-{theme}.svg"


def title(source: str) -> str:
    """What a diagram says of itself to those who cannot see it."""
    match = re.search(r"^\s*accTitle:\s*(.+)$", source, re.MULTILINE)
    return match[1].strip() if match else ""


class Mermaid(SphinxDirective):
    """A diagram's text, shown as the pictures that were drawn of it."""

    has_content = True

    def run(self) -> list[nodes.Node]:  # noqa: D102
        source = "\n".join(self.content)
        missing = [theme for theme in THEMES if not picture(source, theme).exists()]
        if missing or not title(source):
            raise self.error("a diagram has no picture (run tools/draw_diagrams.py) or no line `accTitle: ...`")
        return [
            nodes.image(uri=f"/diagrams/{picture(source, theme).name}", alt=title(source), classes=[f"only-{theme}"])
            for theme in THEMES
        ]


def setup(app: Sphinx) -> dict[str, Any]:  # noqa: D103
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Draw the mermaid fences of docs/ into docs/diagrams/, light and dark, with mermaid itself in headless Chromium.

    npm pack mermaid@11 && tar -xf mermaid-11.*.tgz
    python tools/draw_diagrams.py package/dist/mermaid.min.js

Pictures are named by their text's hash: what is drawn already stays, what no page shows any more is removed. The site
(docs/_ext/diagrams.py) refuses a fence without a picture. Needs the extra [dev]; Chromium is found on the PATH.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).resolve().parents[1] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

from diagrams import FOLDER, THEMES, picture  # noqa: E402

_FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTIONS = {
    # Labels as SVG text: a picture of a page is no web page, so HTML in it is not shown. One font that is everywhere.
    "htmlLabels": False,
    "flowchart": {"htmlLabels": False, "useMaxWidth": False, "nodeSpacing": 24, "rankSpacing": 30, "padding": 8},
    "sequence": {"useMaxWidth": False},
    "fontFamily": "sans-serif",
    "startOnLoad": False,
}
_COLOURS = {
    "light": {"primaryColor": "#e8f1fd", "primaryBorderColor": "#0b63c5", "primaryTextColor": "#1c2733",
              "lineColor": "#5b6b7c", "textColor": "#1c2733", "edgeLabelBackground": "#ffffff",
              "clusterBkg": "#f6f8fa", "clusterBorder": "#b6c2cf",
              "noteBkgColor": "#fff3dc", "noteTextColor": "#1c2733"},
    "dark": {"primaryColor": "#16304d", "primaryBorderColor": "#6cb0ff", "primaryTextColor": "#e6edf3",
             "lineColor": "#9fb0c0", "textColor": "#e6edf3", "edgeLabelBackground": "#131416",
             "clusterBkg": "#1b1f24", "clusterBorder": "#4b5a69",
             "noteBkgColor": "#4a3a12", "noteTextColor": "#f2e6c9"},
}  # fmt: skip


def draw(page: Page, source: str, theme: str) -> str:
    """The SVG text of a diagram."""
    options = _OPTIONS | {"theme": "base", "themeVariables": _COLOURS[theme]}
    name = picture(source, theme).stem
    svg: str = page.evaluate(
        "([name, source, options]) => { mermaid.initialize(options);"
        " return mermaid.render('d' + name, source).then(result => result.svg) }",
        [name, source, options],
    )
    return svg + "\n"


def main(mermaid: str) -> None:
    sources = [text for path in sorted(DOCS.glob("*.md")) for text in _FENCE.findall(path.read_text(encoding="utf-8"))]
    wanted = {picture(source, theme): (source, theme) for source in sources for theme in THEMES}
    for stale in set(FOLDER.glob("*.svg")) - set(wanted):
        stale.unlink()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<body></body>")
        page.add_script_tag(path=mermaid)
        for file, (source, theme) in wanted.items():
            if not file.exists():
                file.write_text(draw(page, source, theme), encoding="utf-8")
                print(file.name)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])

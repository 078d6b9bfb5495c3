"""Files of the repository in the site: notebooks, pages that include a file, and links that lead to one.

Pages are written so that they also read well in the repository: their links are relative paths. Before a page is
parsed, each link to a file becomes a link to the page that shows it, else one below `repository_url`, else plain text.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"(^(`{3,}|~{3,}).*?^\2[ ]*$)", re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(r"^```\{include\} (?P<path>\S+)\n(?P<options>(?::.*\n)*)```$", re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^)\s]+)\)")
_NO_FILE = re.compile(r"[a-z][a-z0-9+.-]*:|#", re.IGNORECASE)


def setup(app: Sphinx) -> dict[str, Any]:  # noqa: D103
    app.add_config_value("repository_url", "", "env", types=frozenset({str}))
    app.connect("builder-inited", _copy_notebooks)
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _copy_notebooks(app: Sphinx) -> None:
    """Copy notebooks/*.ipynb into docs/notebooks, where Sphinx finds them: only those that changed, and no others."""
    copies = DOCS / "notebooks"
    copies.mkdir(exist_ok=True)
    originals = {path.name: path for path in (ROOT / "notebooks").glob("*.ipynb")}
    for copy in copies.iterdir():
        if copy.name not in originals:
            copy.unlink()
    for name, original in originals.items():
        if not (copies / name).exists() or (copies / name).read_bytes() != original.read_bytes():
            shutil.copyfile(original, copies / name)


def _original(page: Path) -> Path:
    """The file of the repository that a page is, or is a copy of."""
    return ROOT / "notebooks" / page.name if page.parent == DOCS / "notebooks" else page


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    page = _original(Path(app.env.doc2path(docname)))
    if page.suffix == ".md":
        content[0] = _markdown(app, content[0], page)
    elif page.suffix == ".ipynb":
        content[0] = _notebook(content[0], functools.partial(_relinked, app, page=page))


def _notebook(text: str, relinked: Callable[[str], str]) -> str:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = relinked("".join(cell["source"]))
    return json.dumps(notebook)


def _markdown(app: Sphinx, text: str, page: Path) -> str:
    """The page with what it includes, all links relinked from the file they stand in."""
    parts: list[str] = []
    end = 0
    for include in _INCLUDE.finditer(text):
        file = (page.parent / include["path"]).resolve()
        app.env.note_dependency(str(file))
        parts += [_relinked(app, text[end : include.start()], page=page)]
        parts += [_relinked(app, _included(file, include["options"]), page=file)]
        end = include.end()
    return "".join([*parts, _relinked(app, text[end:], page=page)])


def _included(file: Path, options: str) -> str:
    """The text of a file, between the markers that the options name, as MyST's own include takes them."""
    text = file.read_text(encoding="utf-8")
    for option, marker in re.findall(r"^:([a-z-]+): (.*)$", options, re.MULTILINE):
        before, found, after = text.partition(marker)
        if not found or option not in ("start-after", "end-before"):
            raise ExtensionError(f"include of {file}: no such option, or not in the file: {option}: {marker}")
        text = after if option == "start-after" else before
    return text


def _relinked(app: Sphinx, text: str, *, page: Path) -> str:
    """The text with the links outside of its fences leading to pages, to the repository, or nowhere."""
    pieces = _FENCE.split(text)  # prose, fence, the fence's mark, prose, ...
    prose = [_LINK.sub(lambda link: _link(app, link, page), piece) for piece in pieces[::3]]
    return "".join(piece + fence for piece, fence in zip(prose, [*pieces[1::3], ""], strict=True))


def _link(app: Sphinx, link: re.Match[str], page: Path) -> str:
    path, hash_, anchor = link["target"].partition("#")
    file = (page.parent / path).resolve()
    if _NO_FILE.match(link["target"]) or not file.exists():
        return link[0]  # a web page, a place on this page, or a mistake, of which MyST warns
    inside = file.relative_to(ROOT).as_posix()
    shown_on = _pages(app).get(file)
    if link["image"]:
        target = f"/../{inside}"
    elif shown_on is not None:
        target = f"/{shown_on}{hash_}{anchor}"
    elif app.config.repository_url:
        target = f"{app.config.repository_url}/{inside}{hash_}{anchor}"
    else:
        return f"`{inside}`" if link["text"] in (path, inside, file.name) else link["text"]
    return f"{link['image']}[{link['text']}]({target})"


@functools.cache
def _pages(app: Sphinx) -> dict[Path, str]:
    """File of the repository -> page of the site that shows it, as its path below docs/."""
    return {ROOT / "README.md": "index.md"} | {
        shown: str(app.env.doc2path(docname, base=False))
        for docname in sorted(app.env.found_docs)
        for shown in _shows(Path(app.env.doc2path(docname)))
    }


def _shows(page: Path) -> list[Path]:
    """The page's own file, and the file that the page is nothing but an include of."""
    files = [_original(page)]
    if page.suffix == ".md" and (include := _INCLUDE.fullmatch(page.read_text(encoding="utf-8").strip())):
        files.append((page.parent / include["path"]).resolve())
    return files

"""The documentation site: its pages are complete and reachable, its examples run, and it builds without a warning."""

from __future__ import annotations

import html.parser
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from documents import ROOT, programs, run

import jaxvars as jv

DOCS = ROOT / "docs"
AS_MODEL_PY = ["docs/quick-start.md", "docs/errors.md"]  # their errors name lines, of a file that a reader may have
_GROUP = re.compile(r"^\.\. public-names:: (\S+)\n\n((?:   \S+\n)+)", re.MULTILINE)


@pytest.fixture
def _as_in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shutil.copytree(ROOT / "jaxvars/tour/data", tmp_path / "jaxvars/tour/data")
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_as_in_a_clone")
@pytest.mark.parametrize("path", AS_MODEL_PY)
def test_programs_print_what_stands_below_them(path: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in programs(path):
        printed = run(block.text, "model.py", 1, names).replace(f"{Path.cwd()}/", "")
        assert printed == (block.printed or ""), f"{path}:{block.line} prints something else"


def _documented() -> Counter[str]:
    """The names on the pages of docs/api, with their modules."""
    pages = [page.read_text(encoding="utf-8") for page in sorted((DOCS / "api").glob("*.rst"))]
    groups = [group for page in pages for group in _GROUP.findall(page)]
    return Counter(f"{module}.{name}" for module, names in groups for name in names.split())


def _public(module: str = "jaxvars") -> Iterator[str]:
    """All public names, with their modules, which are public where another public one offers them."""
    for name in importlib.import_module(module).__all__:
        if inspect.ismodule(getattr(importlib.import_module(module), name)):
            yield from _public(f"{module}.{name}")
        else:
            yield f"{module}.{name}"


def test_the_error_index_has_each_class_and_what_else_it_is() -> None:
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    for name in _public():
        module, _, short = name.rpartition(".")
        kind = getattr(importlib.import_module(module), short)
        if not (inspect.isclass(kind) and issubclass(kind, jv.JaxvarsError)) or kind is jv.JaxvarsError:
            continue
        assert re.search(rf"^\| \[`{short}`\]\(#{short.lower()}\).* \| `{kind.__bases__[-1].__name__}` \|", text, re.M)
        section = text.split(f"\n## {short}\n")[1].split("\n## ")[0]
        assert "```python\n" in section and "```text\n" in section, f"{short} has no example"


def test_the_reference_has_each_public_name_once() -> None:
    documented, public = _documented(), Counter(_public())
    missing, wrong = sorted((public - documented).elements()), sorted((documented - public).elements())
    assert not missing, "public, and on no page of docs/api"
    assert not wrong, "on a page of docs/api, and no public name, or twice"


def _pages() -> set[str]:
    """All pages of the site, notebooks included, as docnames."""
    found = [path for suffix in ("md", "rst") for path in DOCS.rglob(f"*.{suffix}") if "_build" not in path.parts]
    names = {path.relative_to(DOCS).with_suffix("").as_posix() for path in found}
    return names | {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}


def _entries(page: Path) -> Iterator[str]:
    """The docnames that the toctrees of a page list."""
    for options, listed in re.findall(r"^```\{toctree\}\n((?::[^\n]*\n)*)\n(.*?)^```", page.read_text(), re.M | re.S):
        for entry in listed.split():
            name = (page.parent / entry).relative_to(DOCS).as_posix()
            matching = re.compile(re.escape(name).replace(r"\*", "[^/]*"))
            yield from filter(matching.fullmatch, sorted(_pages())) if ":glob:" in options else [name]


def test_each_page_is_in_one_toctree_and_each_entry_is_a_page() -> None:
    listed = Counter(name for page in (DOCS / "index.md", DOCS / "api" / "index.md") for name in _entries(page))
    pages = Counter(_pages() - {"index"})
    missing, wrong = sorted((pages - listed).elements()), sorted((listed - pages).elements())
    assert not missing, "in no toctree"
    assert not wrong, "in a toctree, and no page, or twice"


def test_each_diagram_has_its_pictures_and_no_other_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    diagrams = importlib.import_module("diagrams")
    texts = [path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")]
    sources = [source for text in texts for source in re.findall(r"^```mermaid\n(.*?)^```$", text, re.M | re.S)]
    drawn = {diagrams.picture(source, theme) for source in sources for theme in diagrams.THEMES}
    assert sources and drawn == set(diagrams.FOLDER.glob("*.svg"))


class _Page(html.parser.HTMLParser):
    """What a page of the built site links to, what can be linked to in it, and what it loads from elsewhere."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("img", "script", "link", "object") and (source := values.get("src") or values.get("href")):
            self.loaded.append(source)


def _dead(site: Path, path: Path, page: _Page, pages: dict[Path, _Page]) -> Iterator[str]:
    for target in [*page.links, *page.loaded]:
        parts = urllib.parse.urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        file = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
        anchor = urllib.parse.unquote(parts.fragment)
        if not file.exists() or (anchor and file in pages and anchor not in pages[file].ids):
            yield f"{path.relative_to(site)}: {target}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_all_its_links_lead_somewhere(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_nb", "furo", "sphinx_copybutton", "sphinx_design"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-6000:]
    pages = {path: _Page(path) for path in tmp_path.rglob("*.html") if "_static" not in path.parts}
    assert {path.relative_to(tmp_path).with_suffix("").as_posix() for path in pages} >= _pages()
    assert not [link for path, page in pages.items() for link in _dead(tmp_path, path, page, pages)]
    elsewhere = re.compile(r"https?:|//")
    assert not [source for page in pages.values() for source in page.loaded if elsewhere.match(source)]
    assert jv.__version__ in (tmp_path / "index.html").read_text(encoding="utf-8")

"""What the documents show is run: every Python block, what it prints, the tables' right-hand sides, links, commands."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest

import jaxvars as jv

ROOT = Path(__file__).parents[1]
RUN = [
    "README.md",
    "docs/transforms.md",
    "docs/scan-layers.md",
    "docs/checkpoints.md",
    "docs/devices.md",
    "docs/meshes.md",
    "docs/explicit-axes.md",
    "docs/exported-models.md",
    "docs/migration.md",
    "docs/packing.md",
    "docs/scale.md",
    "docs/processes.md",
]
WRITTEN = [
    *RUN,
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/how-it-works.md",
    "docs/guide-rows.md",
    "docs/upstream-tests.md",
    "examples/README.md",
    "examples/multihost/README.md",
]
COMMANDS = ['pip install ".[tour]" && python -m jaxvars tour', 'pip install -e ".[test]" && pytest']
DATA = "jaxvars/tour/data"  # the packaged TensorFlow checkpoint, as a clone has it

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


class Block(NamedTuple):
    """A fenced block: its language, text and line, and what follows it at once as ``text``, else None."""

    language: str
    text: str
    line: int
    printed: str | None


def _blocks(text: str) -> list[Block]:
    found = list(_FENCE.finditer(text))
    blocks: list[Block] = []
    for match, after in zip(found, [*found[1:], None], strict=True):
        adjoins = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        line = text.count("\n", 0, match.start()) + 2
        blocks.append(Block(match[1], match[2], line, after[2] if after is not None and adjoins else None))
    return blocks


def _run(code: str, path: str, line: int, names: dict[str, Any]) -> str:
    """Run code of a document, reported under the document's own line numbers; return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * (line - 1) + code, str(ROOT / path), "exec"), names)
    return printed.getvalue()


def _run_document(path: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in _blocks((ROOT / path).read_text(encoding="utf-8")):
        if block.language == "python":
            printed = _run(block.text, path, block.line, names)
            if block.printed is not None:
                assert printed == block.printed, f"{path}:{block.line} prints something else"
    return names


def _table(text: str, after: str) -> Iterator[tuple[str, int]]:
    """The right-hand cells of the first table behind a phrase, with their lines."""
    start = text.index("|---", text.index(after))
    first = text.count("\n", 0, start) + 1
    for number, row in enumerate(text[start:].splitlines()[1:], first + 1):
        if not row.startswith("|"):
            return
        yield row.strip("|").split(" | ")[1], number


def _run_table(after: str, names: dict[str, Any]) -> None:
    for cell, line in _table((ROOT / "README.md").read_text(encoding="utf-8"), after):
        for code in _CODE.findall(cell):
            _run(code, "README.md", line, names)


@pytest.fixture(autouse=True)
def _as_in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder like the clone's root, and JAX's defaults: the documents are users' text."""
    shutil.copytree(ROOT / DATA, tmp_path / DATA)
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN[1:])
def test_documents_run(path: str) -> None:
    _run_document(path)


def test_readme_runs() -> None:
    names = _run_document("README.md")
    _run_table("Outside of the model function", names)
    with jv.VariableStore(0):
        _run_table("Inside the model function", names)


def test_the_plan_is_printed_first() -> None:
    block = _blocks((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert block.printed is not None and block.printed.startswith(f"restore from {DATA}/model.ckpt-1200 (tf, ")


def test_commands_are_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shell = [block.text.strip() for block in _blocks(text) if block.language == "sh"]
    assert shell == COMMANDS


@pytest.mark.parametrize("path", WRITTEN)
def test_links_lead_somewhere(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    targets = [t for t in _LINK.findall(_FENCE.sub("", text)) if not re.match(r"https?://|mailto:|#", t)]
    missing = [t for t in targets if not ((ROOT / path).parent / t.split("#")[0]).exists()]
    assert not missing

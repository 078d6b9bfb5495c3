"""What the documents show is run: every Python block, what it prints, the tables' right-hand sides, links, commands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from documents import FENCE, ROOT, blocks, programs, run

import jaxvars as jv

RUN = [
    "README.md",
    "docs/index.md",
    "docs/performance.md",
    "docs/scopes.md",
    "docs/transforms.md",
    "docs/scan-layers.md",
    "docs/checkpoints.md",
    "docs/devices.md",
    "docs/meshes.md",
    "docs/explicit-axes.md",
    "docs/exported-models.md",
    "docs/migration.md",
    "docs/packing.md",
    "docs/training.md",
    "docs/from-haiku-and-linen.md",
    "docs/interop.md",
    "docs/interop-files.md",
    "docs/scale.md",
    "docs/processes.md",
]
WRITTEN = [
    *RUN,
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/phrase-book.md",
    "docs/quick-start.md",
    "docs/errors.md",
    "docs/how-it-works.md",
    "docs/guide-rows.md",
    "docs/upstream-tests.md",
    "examples/README.md",
    "examples/multihost/README.md",
]
COMMANDS = ['pip install ".[tour]" && python -m jaxvars tour', 'pip install -e ".[test]" && pytest']
DATA = "jaxvars/tour/data"  # the packaged TensorFlow checkpoint, as a clone has it

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def _run_document(path: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in programs(path):
        printed = run(block.text, str(ROOT / path), block.line, names)
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
            run(code, str(ROOT / "README.md"), line, names)


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
    block = blocks((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert block.printed is not None and block.printed.startswith(f"restore from {DATA}/model.ckpt-1200 (tf, ")


def test_commands_are_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shell = [block.text.strip() for block in blocks(text) if block.language == "sh"]
    assert shell == COMMANDS


@pytest.mark.parametrize("path", WRITTEN)
def test_links_lead_somewhere(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    targets = [t for t in _LINK.findall(FENCE.sub("", text)) if not re.match(r"https?://|mailto:|#", t)]
    missing = [t for t in targets if not ((ROOT / path).parent / t.split("#")[0]).exists()]
    assert not missing

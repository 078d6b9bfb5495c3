"""Notebook 1 in a real JupyterLab: all cells run, twice, and tables and plots are in the page."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
from lab import OpenNotebook, find_browser, page, server

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
NAME = "01_variables"


@pytest.fixture
def browser() -> str:
    for package in ("jupyterlab", "playwright", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}, of the extra [dev]")
    found = find_browser()
    if found is None:
        pytest.skip("needs Chromium or Chrome on the PATH")
    return found


@pytest.fixture
def artifacts() -> Path:
    folder = Path(os.environ.get("JAXVARS_ARTIFACTS", REPOSITORY / "artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def stored_outputs() -> tuple[int, int, int]:
    """How many code cells, tables and plots the stored notebook has."""
    cells = json.loads((REPOSITORY / "notebooks" / f"{NAME}.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    data = [output.get("data", {}) for cell in code for output in cell["outputs"]]
    return len(code), sum("text/html" in kinds for kinds in data), sum("image/png" in kinds for kinds in data)


def check_rendered(notebook: OpenNotebook, tables: int, plots: int) -> None:
    assert notebook.texts('[data-mime-type="application/vnd.jupyter.error"]') == []
    assert notebook.texts('[data-mime-type="application/vnd.jupyter.stderr"]') == []
    assert notebook.shown(".jp-RenderedHTMLCommon details[open] table") == tables
    assert notebook.shown(".jp-RenderedImage img") == plots
    assert "my_variable" in notebook.texts(".jp-RenderedHTMLCommon details[open] td")


def test_all_cells_of_notebook_1_run_and_render(browser: str, artifacts: Path, tmp_path: Path) -> None:
    cells, tables, plots = stored_outputs()
    assert tables >= 3 and plots >= 3
    notebooks, scratch = tmp_path / "notebooks", tmp_path / "scratch"
    shutil.copytree(REPOSITORY / "notebooks", notebooks, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    scratch.mkdir()
    with server(notebooks, scratch) as address, page(browser, artifacts) as opened:
        notebook = OpenNotebook(opened, address, NAME)
        notebook.clear()
        assert notebook.shown(".jp-RenderedImage img") == 0
        notebook.run_all(cells)
        check_rendered(notebook, tables, plots)
        notebook.run_all(cells, since=cells)
        check_rendered(notebook, tables, plots)
        notebook.screenshot(artifacts / f"{NAME}.png")
    assert (artifacts / f"{NAME}.png").stat().st_size > 50_000

"""The notebooks: their two forms are one, what is stored is clean, and their cells can be run again."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("text/*.md"))


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    for package in ("jupytext", "nbclient"):
        pytest.importorskip(package, reason="needs the extra [notebooks]")
    spec = importlib.util.spec_from_file_location("notebooks_tool", REPOSITORY / "tools" / "notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def written(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a notebook of these cells, as text and with these outputs, in a folder of its own."""
    (tmp_path / "text").mkdir()
    monkeypatch.setattr(tool, "FOLDER", tmp_path)

    def write(cells: list[str], outputs: list[list[Any]] | None = None, tags: str = "") -> None:
        text = "# A title\n\n" + "\n".join(f"```python{tags}\n{cell}\n```\n" for cell in cells)
        tool.text_path("trial").write_text(text)
        if outputs is not None:
            notebook = tool.from_text("trial")
            for cell, cell_outputs in zip(notebook.cells[1:], outputs, strict=True):
                cell.outputs, cell.execution_count = cell_outputs, 1
            tool.stored_path("trial").write_text(tool.as_json(tool._assembled(notebook.cells)))

    return write


def stream(text: str, name: str = "stdout") -> Any:
    from nbformat.v4 import new_output

    return new_output("stream", name=name, text=text)


def test_both_forms_of_each_notebook_are_there() -> None:
    assert NAMES, "there are no notebooks"
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_stored_notebook_is_its_text_and_clean_outputs(tool: ModuleType, name: str) -> None:
    tool.check_stored(name)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_says_what_one_learns_and_what_to_read_next(name: str) -> None:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert prose[0].startswith("# ")
    assert len(prose[0].splitlines()) > 2, "the first cell has a title only"
    assert ".ipynb)" in prose[-1] and "next" in prose[-1].lower(), "the last cell has no links to read next"


def test_first_ten_code_cells_wrap_nothing_in_a_function() -> None:
    cells = json.loads((FOLDER / "01_variables.ipynb").read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for source in sources[:10]:
        wrapped = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.Lambda)]
        assert not wrapped, source


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs_and_its_cells_run_again(tool: ModuleType, name: str) -> None:
    tool.check(name)


# The tool finds what is wrong.


def test_a_clean_notebook_passes(tool: ModuleType, written: Any) -> None:
    written(["print(1)"], [[stream("1\n")]])
    tool.check_stored("trial")


def test_the_same_cells_are_the_same_bytes(tool: ModuleType, written: Any) -> None:
    written(["x = 1", "x = 1", "y = 2"], [[], [], []])
    cells = tool.from_text("trial").cells
    assert [cell.id for cell in cells] == [cell.id for cell in tool.from_text("trial").cells]
    assert len({cell.id for cell in cells}) == 4
    written(["new = 0", "x = 1", "x = 1", "y = 2"])
    assert [cell.id for cell in tool.from_text("trial").cells[2:]] == [cell.id for cell in cells[1:]]


def test_a_text_that_was_changed_is_found(tool: ModuleType, written: Any) -> None:
    written(["print(1)"], [[stream("1\n")]])
    written(["print(2)"])
    with pytest.raises(tool.NotebookError, match=r"(?s)trial, cell 2:.*print\(2\).*print\(1\).*notebooks.py run trial"):
        tool.check_stored("trial")
    written(["print(1)", "print(2)"])
    with pytest.raises(tool.NotebookError, match="3 cells in the text form, 2 in the stored one"):
        tool.check_stored("trial")


def test_a_notebook_without_its_other_form_is_found(tool: ModuleType, written: Any) -> None:
    written(["print(1)"])
    with pytest.raises(tool.NotebookError, match=r"there is no .*trial.ipynb.*notebooks.py run trial"):
        tool.check_stored("trial")
    written(["print(1)"], [[]])
    tool.text_path("trial").unlink()
    with pytest.raises(tool.NotebookError, match=r"there is no .*trial.md"):
        tool.check_stored("trial")


def test_stderr_and_errors_are_found(tool: ModuleType, written: Any) -> None:
    from nbformat.v4 import new_output

    written(["x = 1", "warn()"], [[], [stream("a warning\n", "stderr")]])
    with pytest.raises(tool.NotebookError, match=r"(?s)cell 3:.*warn\(\).*wrote to stderr.*a warning"):
        tool.check_stored("trial")
    traceback = ["\x1b[31mNameError\x1b[39m: name 'y' is not defined"]
    written(["y"], [[new_output("error", ename="NameError", evalue="y", traceback=traceback)]])
    with pytest.raises(tool.NotebookError, match="NameError: name 'y' is not defined"):
        tool.check_stored("trial")


def test_metadata_of_an_editor_is_found(tool: ModuleType, written: Any) -> None:
    written(["print(1)"], [[stream("1\n")]])
    path = tool.stored_path("trial")
    notebook = json.loads(path.read_text())
    notebook["cells"][1]["metadata"] = {"execution": {"iopub.execute_input": "2020-01-01T00:00:00Z"}}
    path.write_text(json.dumps(notebook, indent=1) + "\n")
    with pytest.raises(tool.NotebookError, match="metadata of an editor"):
        tool.check_stored("trial")


def test_a_large_notebook_is_found(tool: ModuleType, written: Any) -> None:
    written(["print(1)"], [[stream("x" * 500_000)]])
    with pytest.raises(tool.NotebookError, match="500 KB, more than 400"):
        tool.check_stored("trial")


def test_live_widgets_are_not_stored(tool: ModuleType, written: Any) -> None:
    from nbformat.v4 import new_output

    bar = new_output("display_data", data={tool.WIDGET: {"model_id": "1"}, "text/plain": "0%"})
    written(["bar()"], [[bar, stream("done\n")]])
    assert [output.output_type for output in tool.read_stored("trial").cells[1].outputs] == ["stream"]


def test_other_texts_are_found_and_other_pictures_are_not(tool: ModuleType, written: Any) -> None:
    from nbformat.v4 import new_output

    def picture(png: str) -> Any:
        return new_output("display_data", data={"image/png": png, "text/plain": "<Figure>"})

    def stored(outputs: list[Any], tags: str = "") -> Any:
        written(["show()"], [outputs], tags)
        return tool.read_stored("trial")

    tool._compare("trial", stored([picture("AAAA")]), stored([picture("BBBB")]))
    with pytest.raises(tool.NotebookError, match=r"(?s)cell 2:.*stored: .*1.*now: .*2.*tag the cell `varies`"):
        tool._compare("trial", stored([stream("1")]), stored([stream("2")]))
    with pytest.raises(tool.NotebookError, match="other than what is stored"):
        tool._compare("trial", stored([picture("AAAA")]), stored([]))
    varies = ' tags=["varies"]'
    tool._compare("trial", stored([stream("1")], varies), stored([stream("2")], varies))


@pytest.mark.slow
def test_run_executes_and_a_failure_changes_nothing(tool: ModuleType, written: Any) -> None:
    written(["print(6 * 7)"])
    tool.run("trial")
    before = tool.stored_path("trial").read_bytes()
    assert tool.read_stored("trial").cells[1].outputs[0].text == "42\n"
    tool.check("trial")
    written(["print(6 * 7)", "undefined"])
    with pytest.raises(tool.NotebookError, match=r"(?s)cell 3:.*undefined.*NameError"):
        tool.run("trial")
    assert tool.stored_path("trial").read_bytes() == before
    assert sorted(path.name for path in tool.FOLDER.iterdir()) == ["text", "trial.ipynb"]


@pytest.mark.slow
def test_a_cell_that_ends_its_kernel_is_found(tool: ModuleType, written: Any) -> None:
    written(["import os", "os._exit(1)"])
    with pytest.raises(tool.NotebookError, match=r"(?s)cell 3:.*os._exit.*killed its kernel"):
        tool.run("trial")


@pytest.mark.slow
def test_a_notebook_runs_where_it_lies_and_as_in_a_fresh_terminal(
    tool: ModuleType, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("MPLBACKEND", "agg")
    written(
        [
            "import os, jax",
            "print(os.getcwd(), jax.device_count(), jax.default_backend(), 'agg' in os.environ['MPLBACKEND'])",
        ]
    )
    tool.run("trial")
    assert tool.read_stored("trial").cells[2].outputs[0].text == f"{tool.FOLDER.resolve()} 1 cpu False\n"


@pytest.mark.slow
def test_a_cell_that_cannot_run_twice_is_found(tool: ModuleType, written: Any) -> None:
    written(["names = ['a']", "names.remove('a')"])
    tool.run("trial")
    with pytest.raises(tool.NotebookError, match=r"(?s)cell 3:.*names.remove\('a'\).*ValueError"):
        tool.check("trial")

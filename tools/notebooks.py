"""Makes the notebooks from their text forms, and checks them.

    python tools/notebooks.py run [NAME ...]      execute notebooks/text/NAME.md into notebooks/NAME.ipynb
    python tools/notebooks.py check [NAME ...]    the stored notebooks hold, and hold when their cells are run again

Without names, all of them. The text form is what is written and reviewed; a stored notebook is that text, its outputs
and nothing else: no times, no widgets, no metadata of an editor. Outputs of a cell tagged `varies` (times, paths) are
not compared, nor are pictures.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SECONDS = 60
KILOBYTES = 400
VARIES = "varies"
WIDGET = "application/vnd.jupyter.widget-view+json"

_TEXT_FORMAT = {"extension": ".md", "notebook_metadata_filter": "-all", "cell_metadata_filter": "tags,-all"}
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


class NotebookError(Exception):
    """What is wrong with a notebook, where, and what mends it."""


def names() -> list[str]:
    """The notebooks there are, by their text forms and by their stored forms."""
    return sorted({path.stem for path in [*FOLDER.glob("text/*.md"), *FOLDER.glob("*.ipynb")]})


def text_path(name: str) -> Path:
    return FOLDER / "text" / f"{name}.md"


def stored_path(name: str) -> Path:
    return FOLDER / f"{name}.ipynb"


def from_text(name: str) -> NotebookNode:
    """The notebook that the text form says, without outputs."""
    path = text_path(name)
    if not path.exists():
        raise NotebookError(f"{name}: there is no {path}, which is where a notebook is written")
    return _assembled(jupytext.reads(path.read_text("utf-8"), fmt="md").cells)


def read_stored(name: str) -> NotebookNode:
    path = stored_path(name)
    if not path.exists():
        raise NotebookError(f"{name}: there is no {path}. Write: python tools/notebooks.py run {name}")
    return nbformat.reads(path.read_text("utf-8"), as_version=4)


def as_text(notebook: NotebookNode) -> str:
    plain = copy.deepcopy(notebook)
    plain.metadata = {}
    return jupytext.writes(plain, fmt=dict(_TEXT_FORMAT))


def as_json(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook) + "\n"


def run(name: str) -> float:
    """Executes the text form, replaces the stored notebook once all of it has passed; returns the seconds."""
    notebook = from_text(name)
    if text_path(name).read_text("utf-8") != as_text(notebook):
        _replace(text_path(name), as_text(notebook))  # now: who edits on while cells run loses nothing
    with _kernel(notebook) as client:
        start = time.monotonic()
        _execute_all(name, client)
        seconds = time.monotonic() - start
    _replace(stored_path(name), as_json(_assembled(notebook.cells)))
    return seconds


def check_stored(name: str) -> None:
    """The two forms are one notebook, whose outputs are clean. Nothing is executed."""
    written, stored = from_text(name), read_stored(name)
    _check_paired(name, written, stored)
    for index, cell in enumerate(stored.cells):
        _check_outputs(name, index, cell)
    path = stored_path(name)
    if path.read_text("utf-8") != as_json(_assembled(stored.cells)):
        raise NotebookError(f"{path} has metadata of an editor. Write: python tools/notebooks.py run {name}")
    if path.stat().st_size > KILOBYTES * 1000:
        raise NotebookError(
            f"{path} has {path.stat().st_size // 1000} KB, more than {KILOBYTES}: make pictures smaller"
        )


def check(name: str) -> float:
    """Checks what is stored, executes it anew, then each cell twice in a row; returns the seconds of the first pass."""
    check_stored(name)
    stored, notebook = read_stored(name), from_text(name)
    with _kernel(notebook) as client:
        start = time.monotonic()
        _execute_all(name, client)
        seconds = time.monotonic() - start
        _compare(name, stored, notebook)
        _execute_all(name, client, times=2)
    if seconds > SECONDS:
        raise NotebookError(f"{name} takes {seconds:.0f} s, more than {SECONDS}")
    return seconds


# What is stored.


def _assembled(cells: Sequence[NotebookNode]) -> NotebookNode:
    """The same cells and outputs always give the same notebook, byte for byte."""
    made, seen, count = [], set(), 0
    for cell in cells:
        fields = {
            "id": _cell_id(cell.source, seen),
            "metadata": {"tags": list(cell.metadata.tags)} if cell.metadata.get("tags") else {},
        }
        if cell.cell_type != "code":
            made.append(nbformat.v4.new_markdown_cell(cell.source.strip("\n"), **fields))
            continue
        count += 1
        kept = [_clean_output(output, count) for output in cell.outputs if not _is_widget(output)]
        executed = count if cell.get("execution_count") else None
        made.append(nbformat.v4.new_code_cell(cell.source, outputs=kept, execution_count=executed, **fields))
    return nbformat.v4.new_notebook(cells=made, metadata=copy.deepcopy(_METADATA))


def _cell_id(source: str, seen: set[str]) -> str:
    """Follows the source: a cell that is put in elsewhere changes no other cell's id."""
    number = 0
    while (cell_id := hashlib.sha256(f"{number}{source}".encode()).hexdigest()[:8]) in seen:
        number += 1
    seen.add(cell_id)
    return cell_id


def _clean_output(output: NotebookNode, count: int) -> NotebookNode:
    cleaned = copy.deepcopy(output)
    if "metadata" in cleaned:
        cleaned.metadata = {}
    if "execution_count" in cleaned:
        cleaned.execution_count = count
    cleaned.pop("transient", None)
    return cleaned


def _is_widget(output: NotebookNode) -> bool:
    """A live progress bar: it shows in JupyterLab, and means nothing in a file."""
    return WIDGET in output.get("data", {})


def _replace(path: Path, text: str) -> None:
    """Writes the whole file or nothing."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(text)
    try:
        Path(file.name).chmod(0o644)
        os.replace(file.name, path)
    except OSError:
        Path(file.name).unlink()
        raise


# Executing.


@contextmanager
def _kernel(notebook: NotebookNode) -> Iterator[NotebookClient]:
    client = NotebookClient(
        notebook,
        timeout=SECONDS * 5,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
    )
    with client.setup_kernel(env=_environment(), cwd=str(FOLDER)):
        yield client


def _environment() -> dict[str, str]:
    """As a fresh terminal's: no fake devices and no plotting backend of the caller's."""
    kept = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "MPLBACKEND", "JAX_ENABLE_X64")}
    return {**kept, "JAX_PLATFORMS": "cpu"}


def _execute_all(name: str, client: NotebookClient, times: int = 1) -> None:
    for index, cell in enumerate(client.nb.cells):
        for _ in range(times if cell.cell_type == "code" else 0):
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                raise _wrong(name, index, cell, f"raised\n\n{error.traceback}") from None
            except CellTimeoutError:
                raise _wrong(name, index, cell, f"did not end in {client.timeout} s") from None
            except DeadKernelError:
                raise _wrong(name, index, cell, "killed its kernel") from None
            _check_outputs(name, index, cell)


# Comparing.


def _check_paired(name: str, written: NotebookNode, stored: NotebookNode) -> None:
    mend = f"Write: python tools/notebooks.py run {name}"
    if text_path(name).read_text("utf-8") != as_text(written):
        raise NotebookError(f"{text_path(name)} is not as jupytext writes it. {mend}")
    for index, (ours, theirs) in enumerate(zip(written.cells, stored.cells, strict=False)):
        if _written_part(ours) != _written_part(theirs):
            what = f"is not the same in the stored notebook, which has\n\n{theirs.source}"
            raise _wrong(name, index, ours, f"{what}\n\n{mend}")
    if len(written.cells) != len(stored.cells):
        counts = f"{len(written.cells)} cells in the text form, {len(stored.cells)} in the stored one"
        raise NotebookError(f"{name}: {counts}. {mend}")


def _written_part(cell: NotebookNode) -> tuple[str, str, list[str]]:
    return cell.cell_type, cell.source, cell.metadata.get("tags", [])


def _check_outputs(name: str, index: int, cell: NotebookNode) -> None:
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            raise _wrong(name, index, cell, "raised\n\n" + "\n".join(output.traceback))
        if output.output_type == "stream" and output.name == "stderr":
            raise _wrong(name, index, cell, f"wrote to stderr\n\n{output.text}")


def _compare(name: str, stored: NotebookNode, executed: NotebookNode) -> None:
    for index, (before, now) in enumerate(zip(stored.cells, executed.cells, strict=True)):
        if before.cell_type != "code" or VARIES in before.metadata.get("tags", []):
            continue
        expected, found = _comparable(before), _comparable(now)
        if expected != found:
            what = f"printed other than what is stored\n\nstored: {expected}\n\nnow:    {found}"
            raise _wrong(name, index, now, f"{what}\n\nIf it may differ each time, tag the cell `{VARIES}`.")


def _comparable(cell: NotebookNode) -> list[dict[str, str]]:
    """The texts of a cell's outputs; of a picture only that there is one."""
    return [
        {"stream": output.text}
        if output.output_type == "stream"
        else {kind: "" if kind.startswith("image/") else str(value) for kind, value in output.data.items()}
        for output in cell.outputs
        if not _is_widget(output)
    ]


def _wrong(name: str, index: int, cell: NotebookNode, what: str) -> NotebookError:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", what)
    return NotebookError(f"{name}, cell {index + 1}:\n\n{cell.source}\n\n{plain}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "check"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 01_variables; all of them if left out")
    arguments = parser.parse_args()
    failed = 0
    for name in [Path(given).stem for given in arguments.names] or names():
        try:
            seconds = run(name) if arguments.action == "run" else check(name)
        except NotebookError as error:
            failed += 1
            print(f"FAILED {error}\n", file=sys.stderr)
        else:
            print(f"{name}: {seconds:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

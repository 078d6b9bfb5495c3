"""The folder that the tour writes: complete, or as it was before."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError

__all__ = ["Notes", "Workspace", "read_notes", "write_notes"]

CHECKPOINTS = "checkpoints"
PICTURE = "tour.png"
NOTES = "tour.json"


class Workspace:
    """A hidden folder in or beside `output`; its content moves to `output` when all went well.

    Whatever stops the tour, an interrupt included, leaves `output` as it was and removes the hidden folder.

    Raises:
      InvalidArgumentError: `output` is a file, cannot be written, or holds files of the same names that are
        not those of an earlier tour.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self._stage = Path()

    def __enter__(self) -> Path:
        place = _nearest_existing(self.output)
        if not place.is_dir():
            raise InvalidArgumentError(f"the output folder {self.output} cannot be made: {place} is a file")
        _refuse_foreign_files(self.output)
        try:
            self._stage = Path(tempfile.mkdtemp(prefix=".jaxvars-tour-", dir=place))
        except OSError as error:
            raise InvalidArgumentError(f"cannot write in the folder {place}: {error.strerror}") from error
        return self._stage

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._move_in()
        finally:
            shutil.rmtree(self._stage, ignore_errors=True)

    def _move_in(self) -> None:
        """Put the new content in place; an earlier tour's goes away with the hidden folder."""
        self.output.mkdir(parents=True, exist_ok=True)
        earlier = self._stage / "earlier"
        earlier.mkdir()
        for new in [path for path in self._stage.iterdir() if path != earlier]:
            target = self.output / new.name
            if target.exists():
                target.rename(earlier / new.name)
            new.rename(target)


def _nearest_existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _refuse_foreign_files(output: Path) -> None:
    """Raise when the tour would overwrite files that no tour wrote."""
    if (output / NOTES).exists():
        return
    taken = [name for name in (CHECKPOINTS, PICTURE) if (output / name).exists()]
    if taken:
        raise InvalidArgumentError(
            f"{output / taken[0]} exists and is not from an earlier tour: choose another --output"
        )


@dataclass(frozen=True)
class Notes:
    """What a later process must know to go on, besides the variables."""

    seed: int
    steps: int


def write_notes(folder: Path, notes: Notes) -> None:
    """Write `notes` into the tour's folder."""
    (folder / NOTES).write_text(json.dumps(asdict(notes)) + "\n", encoding="utf-8")


def read_notes(folder: Path) -> Notes:
    """Read the notes of the tour in `folder`.

    Raises:
      NotFoundError: `folder` is not a folder that a tour wrote.
      DataLossError: the notes are damaged.
    """
    path = folder / NOTES
    if not path.is_file():
        raise NotFoundError(f"no tour in {folder} (no {NOTES}): run the tour with --output {folder} first")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Notes(seed=int(content["seed"]), steps=int(content["steps"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataLossError(f"{path} is damaged: run the tour again") from error

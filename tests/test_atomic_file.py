"""Files that appear whole: what is at the path at each moment, and what killed writers leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvars.checkpoint.formats.atomic import whole_file
from jaxvars.errors import DataLossError, FailedPreconditionError


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "f"
    for text in (b"one", b"two"):
        before = path.read_bytes() if path.exists() else None
        with whole_file(str(path)) as file:
            file.write(text)
            file.flush()
            assert (path.read_bytes() if path.exists() else None) == before
        assert path.read_bytes() == text
    assert os.listdir(path.parent) == ["f"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), DataLossError("lost"), KeyboardInterrupt()])
def test_a_failure_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    expected = FailedPreconditionError if type(error) is OSError else type(error)
    text = r"No space left.*is unchanged" if type(error) is OSError else None
    with pytest.raises(expected, match=text), whole_file(str(path)) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(FailedPreconditionError, match="Cannot write"), whole_file(str(tmp_path / "f" / "g")):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(FailedPreconditionError, match="Cannot write"), whole_file(str(tmp_path / "folder")):
        pass
    assert sorted(os.listdir(tmp_path)) == ["f", "folder"]


def test_modes_are_those_that_the_process_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(str(tmp_path / "f")) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    code = (
        "import os, signal, sys\nfrom jaxvars.checkpoint.formats.atomic import whole_file\n"
        "with whole_file(sys.argv[1]) as file:\n    file.write(b'half')\n    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    (tmp_path / ".f.notes.tmp").write_bytes(b"of somebody else")
    assert len(os.listdir(tmp_path)) == 2 and not path.exists()
    with whole_file(str(path)) as outer:
        outer.write(b"outer")
        with whole_file(str(path)) as inner:  # does not take the file of a writer that is at work for left over
            inner.write(b"inner")
        assert path.read_bytes() == b"inner"
    assert path.read_bytes() == b"outer"
    assert sorted(os.listdir(tmp_path)) == [".f.notes.tmp", "f"]

"""The small text file named ``checkpoint`` in which a Saver notes its checkpoints (CheckpointState)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxvars.checkpoint.formats.atomic import whole_file
from jaxvars.checkpoint.formats.files import RangedFile
from jaxvars.errors import DataLossError, InvalidArgumentError

__all__ = ["CheckpointState", "is_state_text", "read_state", "write_state"]

_LARGEST_STATE_FILE = 1 << 24
_LINE = re.compile(r"""\s*(?:\#[^\n]*\n\s*)*(\w+)\s*:\s*((?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|[^\s"']+)""")
_STRING_FIELDS = ("model_checkpoint_path", "all_model_checkpoint_paths")
_SIMPLE_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """What the state file holds (TF1: the proto of the same name).

    Attributes:
      model_checkpoint_path: the latest checkpoint.
      all_model_checkpoint_paths: all that were kept, oldest first, the latest included.
      all_model_checkpoint_timestamps: seconds since the epoch, one per path, or empty.
      last_preserved_timestamp: when `keep_checkpoint_every_n_hours` last kept one, None if never.
    """

    model_checkpoint_path: str
    all_model_checkpoint_paths: tuple[str, ...] = ()
    all_model_checkpoint_timestamps: tuple[float, ...] = ()
    last_preserved_timestamp: float | None = None


def is_state_text(head: bytes) -> bool:
    """Whether a file that begins with `head` is a state file."""
    match = _LINE.match(head.decode("utf-8", "replace"))
    return match is not None and match[1] in _STRING_FIELDS


def read_state(path: str) -> CheckpointState:
    """Return the state that the file holds, its paths exactly as written there.

    Raises:
      NotFoundError: no such file.
      InvalidArgumentError: it names no checkpoint (TF1: ``ValueError``).
      DataLossError: it is no state file, or cannot be read.
    """
    with RangedFile(path) as file:
        text = file.read(0, min(file.size, _LARGEST_STATE_FILE), "the text").decode("utf-8", "surrogateescape")
    values: dict[str, list[str]] = {}
    position = 0
    while match := _LINE.match(text, position):
        values.setdefault(match[1], []).append(match[2])
        position = match.end()
    if text[position:].strip():
        raise DataLossError(f"{path} is not a `checkpoint` state file: cannot read {text[position:][:40]!r}.")
    latest = [_unquote(value, path) for value in values.get("model_checkpoint_path", [])]
    if not latest:
        raise InvalidArgumentError(f"{path}: the state file is incomplete, it has no model_checkpoint_path.")
    return CheckpointState(
        latest[-1],
        tuple(_unquote(value, path) for value in values.get("all_model_checkpoint_paths", [])),
        tuple(_number(value, path) for value in values.get("all_model_checkpoint_timestamps", [])),
        next((_number(value, path) for value in values.get("last_preserved_timestamp", [])), None),
    )


def write_state(path: str, state: CheckpointState) -> None:
    """Write the state file so that a reader sees either the old or the new one, whole.

    Raises:
      FailedPreconditionError: the folder cannot be written.
    """
    lines = [f"model_checkpoint_path: {_quote(state.model_checkpoint_path)}"]
    lines += _lines("all_model_checkpoint_paths", map(_quote, state.all_model_checkpoint_paths))
    lines += _lines("all_model_checkpoint_timestamps", map(repr, state.all_model_checkpoint_timestamps))
    if state.last_preserved_timestamp is not None:
        lines.append(f"last_preserved_timestamp: {state.last_preserved_timestamp!r}")
    with whole_file(path) as file:
        file.write("\n".join([*lines, ""]).encode("utf-8", "surrogateescape"))


def _lines(field: str, values: Iterable[str]) -> Sequence[str]:
    return [f"{field}: {value}" for value in values]


def _number(value: str, path: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise DataLossError(f"{path} is not a `checkpoint` state file: {value!r} is no number.") from None


def _unquote(value: str, path: str) -> str:
    if value[0] not in "\"'":
        raise DataLossError(f"{path} is not a `checkpoint` state file: {value!r} is not in quotes.")

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code[0] in b"01234567":
            return bytes([int(code, 8) & 0xFF])
        if code[:1] in (b"x", b"X") and len(code) > 1:
            return bytes([int(code[1:], 16)])
        return _SIMPLE_ESCAPES.get(code, code)

    return _ESCAPE.sub(plain, value[1:-1].encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _quote(text: str) -> str:
    """Escape as protobuf's text format does: octal for everything but printable ASCII."""
    quoted: list[str] = []
    for octet in text.encode("utf-8", "surrogateescape"):
        char = chr(octet)
        if char in "\"\\'":
            quoted.append("\\" + char)
        elif char in "\n\r\t":
            quoted.append({"\n": r"\n", "\r": r"\r", "\t": r"\t"}[char])
        elif 0x20 <= octet < 0x7F:
            quoted.append(char)
        else:
            quoted.append(f"\\{octet:03o}")
    return '"' + "".join(quoted) + '"'

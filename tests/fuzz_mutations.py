"""Damage done to bytes, texts, trees and messages: what `fuzz` does to the files of a checkpoint.

Each function takes a `random.Random` and returns something new; the same random numbers give the same damage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import bundle_writer as writer

__all__ = ["damaged", "damaged_json", "damaged_message", "damaged_tree"]

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 16, 10**6, (1 << 31) - 1, 1 << 31,
           (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 48, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
TOKENS = (b"..", b"../", b"/", b"\0", b"\n", b'"', b"\\", b"{", b"}", b"[", b"]", b"[" * 2000, b'{"a":' * 500, b"null",
          b"NaN", b"1e999", b"-1", b"9" * 30, b"9" * 5000, b"\xed\xa0\x80", b"\\ud800", b"\xff\xfe", b"\x93NUMPY",
          b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x89HDF\r\n\x1a\n", b"\xc1", b"\xdd\xff\xff\xff\xff",
          b"\xc9\xff\xff\xff\xff\x01", b"%s%n", b":0", b"*", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80")  # fmt: skip


def damaged(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Bytes with one to three kinds of damage; `other` is what parts are spliced in from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_KINDS)(rng, data, other)
    return data


def _place(rng: Random, data: bytes) -> int:
    """Anywhere, but often near the beginning or the end, where headers and footers are."""
    if not data:
        return 0
    near = min(len(data), 64)
    anywhere = rng.randrange(len(data))
    return rng.choice((anywhere, anywhere, rng.randrange(near), len(data) - 1 - rng.randrange(near)))


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    start = _place(rng, data)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 16, 48, rng.randrange(len(data) + 1))))


def _flip(rng: Random, data: bytes, _: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes(octet ^ 1 << rng.randrange(8) for octet in data[at : at + 1]) + data[at + 1 :]


def _set(rng: Random, data: bytes, _: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _step(rng: Random, data: bytes, _: bytes) -> bytes:
    at = _place(rng, data)
    by = rng.choice((-1, 1, -2, 2, 16, -16))
    return data[:at] + bytes(octet + by & 0xFF for octet in data[at : at + 1]) + data[at + 1 :]


def _truncate(rng: Random, data: bytes, _: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] if rng.random() < 0.8 else data[at:]


def _extend(rng: Random, data: bytes, other: bytes) -> bytes:
    size = rng.choice((1, 8, 100, 1000))
    more = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size), data[:size], other[:size]))
    return data + more if rng.random() < 0.7 else more + data


def _delete(rng: Random, data: bytes, _: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _duplicate(rng: Random, data: bytes, _: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 10)) + data[end:]


def _swap(rng: Random, data: bytes, _: bytes) -> bytes:
    a, b, c, d = sorted((*_span(rng, data), *_span(rng, data)))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _overwrite(rng: Random, data: bytes, other: bytes) -> bytes:
    """Copy a part of these bytes, or of others, over another part."""
    source = rng.choice((data, other)) or data
    start, end = _span(rng, source)
    at = _place(rng, data)
    part = source[start:end]
    return data[:at] + part + data[at + len(part) :]


def _splice(rng: Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    share = rng.random()
    return data[: int(len(data) * share)] + other[int(len(other) * share) :]


def _run(rng: Random, data: bytes, _: bytes) -> bytes:
    """A run of one byte, written over or pushed in."""
    at, size = _place(rng, data), rng.choice((1, 2, 4, 8, 9, 10, 16, 100))
    run = rng.choice((b"\xff", b"\xff", b"\0", b"\x80", b"\x7f")) * size
    return data[:at] + run + data[at + (size if rng.random() < 0.7 else 0) :]


def _number(rng: Random, data: bytes, _: bytes) -> bytes:
    """A telling number of fixed width, either byte order."""
    at, width = _place(rng, data), rng.choice((1, 2, 4, 8))
    number = (rng.choice(NUMBERS) & (1 << 8 * width) - 1).to_bytes(width, rng.choice(("little", "big")))
    return data[:at] + number + data[at + width :]


def _varint(rng: Random, data: bytes, _: bytes) -> bytes:
    """A telling varint in the place of the one that begins here."""
    at = _place(rng, data)
    end = at
    while end < len(data) and data[end] & 0x80:
        end += 1
    return data[:at] + writer.varint(rng.choice(NUMBERS)) + data[end + 1 :]


def _digits(rng: Random, data: bytes, _: bytes) -> bytes:
    """A telling number in the place of one that is written out."""
    places = list(re.finditer(rb"\d+", data[:4096]))
    if not places:
        return _set(rng, data, b"")
    match = rng.choice(places)
    text = rng.choice((str(rng.choice(NUMBERS)).encode(), b"-1", b"1e9", b"0.5", b"9" * 400, b""))
    return data[: match.start()] + text + data[match.end() :]


def _token(rng: Random, data: bytes, _: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.choice(TOKENS) + data[at + rng.choice((0, 0, 1, 4)) :]


_KINDS: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    _flip, _flip, _flip, _set, _set, _step, _truncate, _extend, _delete, _duplicate, _swap, _overwrite, _splice, _run,
    _number, _number, _varint, _digits, _token,
)  # fmt: skip


# Messages of protocol buffers


def damaged_message(rng: Random, data: bytes, depth: int = 8) -> bytes:
    """A message with damage in one field, at any depth; the lengths around it are right again."""
    parts = _fields(data)
    if not parts:
        return damaged(rng, data)
    at = rng.randrange(len(parts))
    field, wire, value = parts[at]
    kind = rng.random()
    if kind < 0.1:
        del parts[at]
    elif kind < 0.2:
        parts[at:at] = [parts[at]] * rng.choice((1, 1, 3, 300))
    elif kind < 0.25:
        parts.insert(at, parts.pop(rng.randrange(len(parts))))
    elif kind < 0.35:
        parts[at] = _any_field(rng, rng.choice((field, field, rng.randrange(20), 1 << 28)))
    elif wire == 2:
        assert isinstance(value, bytes)
        inner = damaged_message(rng, value, depth - 1) if depth and rng.random() < 0.8 else damaged(rng, value)
        parts[at] = (field, 2, inner)
    else:
        parts[at] = (field, wire, rng.choice(NUMBERS))
    return b"".join(_encoded(*part) for part in parts)


def _any_field(rng: Random, field: int) -> tuple[int, int, int | bytes]:
    wire = rng.choice((0, 1, 2, 3, 4, 5, 6, 7))
    return field, wire, rng.randbytes(rng.randrange(12)) if wire == 2 else rng.choice(NUMBERS)


def _encoded(field: int, wire: int, value: int | bytes) -> bytes:
    tag = writer.varint(field << 3 | wire)
    if isinstance(value, bytes):
        return tag + writer.varint(len(value)) + value
    width = {1: 8, 5: 4}.get(wire)
    return tag + (writer.varint(value) if width is None else (value & (1 << 8 * width) - 1).to_bytes(width, "little"))


def _fields(data: bytes) -> list[tuple[int, int, int | bytes]]:
    """The fields of a message, none if it is none."""
    parts: list[tuple[int, int, int | bytes]] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value, end = _read_varint(data, at)
        wire = tag & 7
        if wire == 0:
            at = end
        elif wire == 2:
            value, at = data[end : end + value], end + value
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value, at = int.from_bytes(data[at : at + width], "little"), at + width
        else:
            return []
        if at > len(data) or tag >> 3 == 0:
            return []
        parts.append((tag >> 3, wire, value))
    return parts


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for end in range(at, min(len(data), at + 10)):
        value |= (data[end] & 0x7F) << shift
        shift += 7
        if data[end] < 0x80:
            return value, end + 1
    return value, len(data) + 1


# Trees, and the texts of JSON

_DEEP: Any = []
for _ in range(300):
    _DEEP = [_DEEP]
VALUES: tuple[Any, ...] = (None, True, False, -1, 0, 1, 1.5, float("nan"), float("inf"), 10**400, "", "a", "..", "a/b",
                           "/", "x\0y", "\n", "float32", "int4", "object", "V8", "O", "F32", "BOOL", [], {}, [0],
                           [-1], [[]], [1] * 70, {"a": 1}, [1 << 62, 4], [0, 1 << 63], _DEEP, *NUMBERS)  # fmt: skip


def damaged_tree(rng: Random, tree: Any, values: Sequence[Any] = VALUES) -> Any:
    """A tree of dicts, lists and plain values in which one place differs."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        changed = dict(tree)
        kind = rng.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2:
            changed[rng.choice((*tree, "", "..", "x\0y", "\ud800", "é", ":0", "/"))] = changed.pop(key)
        else:
            changed[key] = damaged_tree(rng, tree[key], values)
        return changed
    if isinstance(tree, list | tuple) and tree and rng.random() < 0.8:
        items = list(tree)
        at = rng.randrange(len(items))
        kind = rng.random()
        if kind < 0.15:
            del items[at]
        elif kind < 0.3:
            items[at:at] = [items[at]] * rng.choice((1, 1, 70))
        else:
            items[at] = damaged_tree(rng, items[at], values)
        return items
    if isinstance(tree, bytes):
        return damaged(rng, tree)
    if isinstance(tree, str) and rng.random() < 0.5:
        return damaged(rng, tree.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    if isinstance(tree, int) and rng.random() < 0.3:
        return tree + rng.choice((-1, 1, 2, 8))
    return rng.choice(values)


def damaged_json(rng: Random, text: bytes, change: Callable[[Any], Any] = lambda tree: tree) -> bytes:
    """A JSON text that differs in one value, or as bytes; `change` makes whole what belongs to the values."""
    if rng.random() < 0.25:
        return damaged(rng, text)
    tree = damaged_tree(rng, json.loads(text))
    return json.dumps(change(tree), separators=(",", ":")).encode()

"""The header of a .npy array: a Python literal of three fields, matched here and never evaluated."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from jaxvars.checkpoint.formats.raw_arrays import checked_shape
from jaxvars.errors import DataLossError

__all__ = ["LARGEST_BEGINNING", "NpyHeader", "header_size", "parse_npy_header"]

_MAGIC = b"\x93NUMPY"
LARGEST_BEGINNING = 12  # bytes that tell the header's size
_LARGEST_TEXT = 10_000  # NumPy's own limit
_FIELD = re.compile(
    r"""\s*(['"])(?P<name>descr|fortran_order|shape)\1\s*:\s*
    (?: (?P<quote>['"])(?P<text>[^'"\\]*)(?P=quote) | (?P<flag>True|False) | \((?P<dims>[\sL0-9,]*)\)
      | (?P<list>\[.*\]) )
    \s*(?:,|(?=\}))""",
    re.VERBOSE | re.DOTALL,
)
_PLAIN = re.compile(r"([<>|=]?)([biufc])([0-9]{1,2})")


class NpyHeader(NamedTuple):
    """What a .npy header says.

    Attributes:
      dtype: the dtype of the bytes in the file, None if they cannot be read.
      type_name: the dtype as the file calls it.
      problem: why they cannot be read, "" if they can.
      is_fortran: whether the first dimension varies fastest.
      shape: the shape.
    """

    dtype: np.dtype[Any] | None
    type_name: str
    problem: str
    is_fortran: bool
    shape: tuple[int, ...]


def header_size(beginning: bytes, what: str) -> int:
    """Return the number of bytes before the values.

    Args:
      beginning: at least the first `LARGEST_BEGINNING` bytes, or all there are.
      what: names the array in errors.

    Raises:
      DataLossError: this is no .npy array.
    """
    if len(beginning) < LARGEST_BEGINNING or not beginning.startswith(_MAGIC) or beginning[6] not in (1, 2, 3):
        raise DataLossError(f"{what} is damaged: it does not begin as a .npy array does.")
    start = 10 if beginning[6] == 1 else 12
    length = int.from_bytes(beginning[8:start], "little")
    if length > _LARGEST_TEXT:
        raise DataLossError(f"{what} is damaged: it claims a header of {length} bytes.")
    return start + length


def parse_npy_header(header: bytes, what: str) -> NpyHeader:
    """Return what a whole header says; `header_size` gives its size.

    Raises:
      DataLossError: it makes no sense.
    """
    start = 10 if header[6] == 1 else 12
    fields = _fields(header[start:].decode("utf-8" if header[6] == 3 else "latin1", "replace"), what)
    descr, flag, dims = fields.get("descr"), fields.get("fortran_order"), fields.get("shape")
    if descr is None or flag is None or dims is None or descr["flag"] or descr["dims"] or not flag["flag"]:
        raise DataLossError(f"{what} is damaged: its header lacks type, order or shape.")
    dtype, problem = (None, "its type is structured") if descr["list"] else _dtype(descr["text"] or "")
    shape = _shape(dims["dims"], what)
    checked_shape(shape, dtype.itemsize if dtype else 1, what)
    name = "structured" if descr["list"] else descr["text"] or ""
    return NpyHeader(dtype, name, problem, flag["flag"] == "True", shape)


def _fields(text: str, what: str) -> dict[str, re.Match[str]]:
    text = text.strip()
    found: dict[str, re.Match[str]] = {}
    position = 1
    while match := _FIELD.match(text, position):
        if match["name"] in found:
            break
        found[match["name"]] = match
        position = match.end()
    if not text.startswith("{") or text[position:].strip() != "}":
        raise DataLossError(f"{what} is damaged: its header is not what NumPy writes.")
    return found


def _shape(dims: str | None, what: str) -> tuple[int, ...]:
    try:
        # Python 2 wrote "(2L, 3L)".
        return tuple(int(dim.strip().removesuffix("L")) for dim in (dims or "").split(",") if dim.strip())
    except ValueError:
        raise DataLossError(f"{what} is damaged: its shape is no list of numbers.") from None


def _dtype(descr: str) -> tuple[np.dtype[Any] | None, str]:
    """The dtype, or why its values cannot be read."""
    match = _PLAIN.fullmatch(descr)
    if match is not None:
        kind, size = match[2], int(match[3])
        if (size == 1) if kind == "b" else size in {"f": (2, 4, 8), "c": (8, 16)}.get(kind, (1, 2, 4, 8)):
            order = match[1].replace("|", "=") or "="
            return np.dtype(f"{order}{kind}{size}"), ""
    if "O" in descr:
        return None, "it holds Python objects as a pickle, which is never loaded: it could run any code"
    if "V" in descr:
        return None, (
            f"its type is {descr}, bytes without meaning: so NumPy saves bfloat16, float8 and other types that are "
            "not its own. Read it with np.load and name the type, as in array.view(ml_dtypes.bfloat16)"
        )
    return None, f"its type is {descr}, which JAX has no arrays of"

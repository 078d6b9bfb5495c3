"""Two arrays against each other: how many values differ and by how much, in pieces, exact for 64-bit integers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

__all__ = ["Comparison", "compare"]

_PIECE = 1 << 20  # elements that are widened to 64 bits at once


class Comparison(NamedTuple):
    """How the values of two arrays of one shape differ.

    Attributes:
      different: how many values differ by more than the tolerances.
      max_abs: the largest absolute difference among these; infinite where only one is NaN or infinite, 0 for strings.
      max_rel: the largest difference among these, in proportion to the larger of the two absolute values.
    """

    different: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0


def compare(a: npt.NDArray[Any], b: npt.NDArray[Any], rtol: float = 0.0, atol: float = 0.0) -> Comparison:
    """Compare two arrays of one shape; their dtypes may differ.

    Two values agree when they are equal, both are NaN, or they differ by at most ``atol + rtol * larger``, where
    `larger` is the larger of their absolute values.

    Example:
      >>> compare(np.array([1.0, 2.0, np.nan]), np.array([1.0, 4.0, np.nan]))
      Comparison(different=1, max_abs=2.0, max_rel=0.5)
    """
    a, b = a.reshape(-1), b.reshape(-1)
    different, max_abs, max_rel = 0, 0.0, 0.0
    for start in range(0, a.size, _PIECE):
        found = _compare_piece(a[start : start + _PIECE], b[start : start + _PIECE], rtol, atol)
        different += found.different
        max_abs, max_rel = max(max_abs, found.max_abs), max(max_rel, found.max_rel)
    return Comparison(different, max_abs, max_rel)


def _compare_piece(a: npt.NDArray[Any], b: npt.NDArray[Any], rtol: float, atol: float) -> Comparison:
    if not (_is_number(a.dtype) and _is_number(b.dtype)):
        if a.dtype.kind == "V" and a.dtype != b.dtype:  # records, which cannot be compared
            return Comparison(a.size)
        return Comparison(int(np.count_nonzero(a != b)))
    if a.dtype == b.dtype and np.array_equal(_octets(a), _octets(b)):
        return Comparison()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        differences, larger = _integers(a, b) if _is_integer(a.dtype) and _is_integer(b.dtype) else _floats(a, b)
        outside = (differences > 0) & ~(differences <= atol + rtol * larger)
        if not outside.any():
            return Comparison()
        relative = differences[outside] / larger[outside]
        return Comparison(
            int(np.count_nonzero(outside)),
            float(differences[outside].max()),
            float(np.where(np.isfinite(relative), relative, math.inf).max()),
        )


def _integers(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Absolute differences and the larger absolute values. Differences are taken before they lose digits."""
    a, b = _plain(a), _plain(b)
    wide_a, wide_b = a.astype(np.uint64), b.astype(np.uint64)  # modulo 2**64, where subtraction is exact
    exact = np.where(a > b, wide_a - wide_b, wide_b - wide_a).astype(np.float64)
    a, b = a.astype(np.float64), b.astype(np.float64)
    rounded = np.abs(a - b)
    # A negative number and an unsigned one may be further apart than 64 bits can say.
    return np.where(rounded < 2.0**63, exact, rounded), np.maximum(np.abs(a), np.abs(b))


def _floats(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    kind = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    a, b = a.astype(kind), b.astype(kind)
    differences = np.abs(a - b)
    # A NaN against a number, and what overflows, differ by no number: infinitely.
    differences = np.where(
        (a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.where(np.isnan(differences), np.inf, differences)
    )
    larger = np.maximum(np.abs(a), np.abs(b))
    return differences, np.where(np.isfinite(larger), larger, 0.0)


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "b" or jnp.issubdtype(dtype, np.number)


def _is_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "b" or jnp.issubdtype(dtype, np.integer)


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values if values.dtype.kind in "iu" else values.astype(np.int8)


def _octets(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values).view(np.uint8)

"""Dtypes by the names that files give them: NumPy's own, and those that `ml_dtypes` adds (bfloat16, float8)."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["plain_dtype"]

# By name: C has two names for one integer, of which NumPy keeps the classes apart.
_PLAIN = {np.dtype(code).name: np.dtype(np.dtype(code).name) for code in "?bBhHiIlLqQefdFD"}


def plain_dtype(name: str) -> np.dtype[Any] | None:
    """Return the dtype that `numpy.dtype.name` calls so, None for names without plain values.

    Example:
      >>> plain_dtype("int64"), plain_dtype("bfloat16"), plain_dtype("object")
      (dtype('int64'), dtype(bfloat16), None)
    """
    if name in _PLAIN:
        return _PLAIN[name]
    scalar = getattr(ml_dtypes, name, None)
    return np.dtype(scalar) if isinstance(scalar, type) and issubclass(scalar, np.generic) else None

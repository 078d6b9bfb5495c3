"""TensorFlow's dtype numbers, and the NumPy dtypes that hold their values."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from jaxvars.errors import DataLossError

__all__ = ["STRING", "VARIANT", "is_known", "numpy_dtype", "type_name", "type_number"]

STRING, VARIANT = 7, 21

# Quantized integers are stored, and read by TensorFlow, as the plain integers.
_TYPES: dict[int, tuple[str, Any]] = {
    1: ("float32", np.float32),
    2: ("float64", np.float64),
    3: ("int32", np.int32),
    4: ("uint8", np.uint8),
    5: ("int16", np.int16),
    6: ("int8", np.int8),
    STRING: ("string", np.object_),
    8: ("complex64", np.complex64),
    9: ("int64", np.int64),
    10: ("bool", np.bool_),
    11: ("qint8", np.int8),
    12: ("quint8", np.uint8),
    13: ("qint32", np.int32),
    14: ("bfloat16", ml_dtypes.bfloat16),
    15: ("qint16", np.int16),
    16: ("quint16", np.uint16),
    17: ("uint16", np.uint16),
    18: ("complex128", np.complex128),
    19: ("float16", np.float16),
    20: ("resource", None),
    VARIANT: ("variant", None),
    22: ("uint32", np.uint32),
    23: ("uint64", np.uint64),
    24: ("float8_e5m2", ml_dtypes.float8_e5m2),
    25: ("float8_e4m3fn", ml_dtypes.float8_e4m3fn),
    26: ("float8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz),
    27: ("float8_e4m3b11fnuz", ml_dtypes.float8_e4m3b11fnuz),
    28: ("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
    29: ("int4", None),
    30: ("uint4", None),
}
_FIRST_REFERENCE_TYPE = 100  # TF1's float32_ref is 101


def _base(number: int) -> int:
    return number - _FIRST_REFERENCE_TYPE if number > _FIRST_REFERENCE_TYPE else number


def is_known(number: int) -> bool:
    """Whether there is a dtype of that number."""
    return _base(number) in _TYPES


def type_name(number: int, what: str) -> str:
    """Return TensorFlow's name of a dtype number.

    Raises:
      DataLossError: there is no such dtype; `what` names the entry.
    """
    known = _TYPES.get(_base(number))
    if known is None:
        raise DataLossError(f"{what} is damaged, or newer than this reader: dtype number {number}.")
    return known[0]


def numpy_dtype(number: int) -> np.dtype[Any] | None:
    """Return the dtype of the values in memory, None for types whose values cannot be read."""
    known = _TYPES.get(_base(number))
    return None if known is None or known[1] is None else np.dtype(known[1])


_NUMBERS: dict[np.dtype[Any], int] = {
    np.dtype(kind): number for number, (name, kind) in _TYPES.items() if kind is not None and not name.startswith("q")
}


def type_number(dtype: np.dtype[Any]) -> int | None:
    """Return TensorFlow's number of a dtype (`object` stands for strings), None where TensorFlow has no such dtype."""
    return _NUMBERS.get(np.dtype(dtype))

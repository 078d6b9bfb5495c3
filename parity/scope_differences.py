"""Compares what two runs of a program did."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from oracle_runner import TAKEN, category

from parity.scope_recorder import Failing, Recorder


def is_text(error: BaseException, pattern: str) -> bool:
    return re.search(pattern, str(error)) is not None


def same_error(theirs: BaseException, ours: BaseException) -> bool:
    """Whether our error is of TensorFlow's class, and of its category where its text has a known one."""
    if isinstance(theirs, IndexError):
        return isinstance(ours, IndexError | ValueError)  # an axis that is not there
    if is_text(theirs, "Tensor conversion requested dtype"):
        # TensorFlow has a TypeError for every other value of a wrong dtype.
        return isinstance(ours, TypeError)
    if category(theirs) == "bad_collections":
        return isinstance(ours, ValueError | TypeError)  # there may be another mistake, which jaxvars sees first
    for kind in (ValueError, TypeError, RuntimeError, Failing):
        if isinstance(theirs, kind):
            if not isinstance(ours, kind):
                return False
            break
    else:
        if type(theirs).__name__ != type(ours).__name__:
            return False
    known = category(theirs)
    if known == "init_value_dtype" and is_text(ours, r"expected (a value of )?\w+, got"):
        return True
    # jaxvars refuses an illegal name, and one that a jv.Variable has, first, whatever else is wrong.
    return known.startswith("other") or category(ours) in (known, "bad_name") or TAKEN in str(ours)


def differences(theirs: Recorder, ours: Recorder) -> Iterator[str]:
    """Where two runs differ; fields that one of them does not have are not compared."""
    for number, (left, right) in enumerate(zip(theirs.records, ours.records, strict=False)):
        what = left.get("statement") or f"record {number} of {len(theirs.records)}"
        if left.get("late") and not ours.side.values:
            continue
        if "error" in left or "error" in right:
            if "error" not in left or "error" not in right or not same_error(left["error"], right["error"]):
                yield f"{what}: TensorFlow {shown(left)}, jaxvars {shown(right)}"
            elif left["statement"]["do"] == "call":
                return  # what a failed call of a template made is there in TensorFlow, and not in jaxvars
            continue
        for text in field_differences(left, right):
            yield f"{what}: {text}"
    if len(theirs.records) != len(ours.records):
        yield f"TensorFlow executed {len(theirs.records)} statements, jaxvars {len(ours.records)}"


def field_differences(left: dict[str, Any], right: dict[str, Any]) -> Iterator[str]:
    """Where two records differ, in the fields that both have."""
    for key in left.keys() & right.keys() - {"statement"}:
        if key == "slices":
            for one, other in zip(left[key], right[key], strict=True):
                yield from field_differences(one, other)
        elif not same(left[key], right[key]):
            yield f"{key}: TensorFlow {left[key]!r}, jaxvars {right[key]!r}"


def shown(record: dict[str, Any]) -> str:
    if "error" not in record:
        return repr({key: value for key, value in record.items() if key != "statement"})
    return f"{type(record['error']).__name__}: {record['error']!s:.200}"


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        left, right = np.asarray(left), np.asarray(right)
        return left.dtype == right.dtype and left.shape == right.shape and np.array_equal(left, right, equal_nan=True)
    return bool(left == right)

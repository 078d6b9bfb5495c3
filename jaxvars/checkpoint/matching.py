"""One variable against one tensor: do shape and dtype fit, and if there is none, what may be meant."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.random_keys import stored_form
from jaxvars.checkpoint.mapping import Want
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.spec import VariableSpec
from jaxvars.variables import Variables

__all__ = ["PlanRow", "make_rows", "narrowed_dtype"]

_MOST_SUGGESTED_FOR = 100  # missing variables that get suggestions; comparing names costs time
_MOST_CANDIDATES = 500
_MOST_SUGGESTIONS = 3
_MOST_TRIAL_BYTES = 1 << 26  # a transform is tried on zeros of at most this size
_PROBLEMS = ("missing", "shape", "dtype", "unreadable")


@dataclasses.dataclass(frozen=True, slots=True)
class PlanRow:
    """One variable of a restore plan.

    Attributes:
      target: the variable.
      source: its name in the file, None where it is left as it is.
      kind: "restore", "narrow" (64 to 32 bits), "cast", "left", or a problem: "missing", "shape", "dtype",
        "unreadable".
      shape: the variable's shape.
      dtype: the variable's dtype.
      file_shape: the tensor's shape, None where there is none.
      file_dtype: the tensor's dtype as the file calls it, "" where there is none.
      nbytes: bytes to read.
      transform: the rule's function, or None.
      defined_at: where the variable was defined, "" if not known.
      note: why the tensor cannot be read, or what goes wrong.
      suggestions: for a missing one, the likeliest names in the file.
    """

    target: str
    source: str | None
    kind: str
    shape: tuple[int, ...]
    dtype: str
    file_shape: tuple[int, ...] | None = None
    file_dtype: str = ""
    nbytes: int = 0
    transform: Callable[[Any], Any] | None = None
    defined_at: str = ""
    note: str = ""
    suggestions: tuple[str, ...] = ()

    @property
    def is_restored(self) -> bool:
        """Whether the variable gets values from the file."""
        return self.kind in ("restore", "narrow", "cast")

    @property
    def is_problem(self) -> bool:
        """Whether a strict restore refuses."""
        return self.kind in _PROBLEMS

    @property
    def transform_name(self) -> str:
        """A short name of the transform, "" without one."""
        return "" if self.transform is None else getattr(self.transform, "__name__", repr(self.transform))

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["shape"] = list(self.shape)
        fields["file_shape"] = None if self.file_shape is None else list(self.file_shape)
        fields["transform"] = self.transform_name
        fields["suggestions"] = list(self.suggestions)
        return fields


def make_rows(reader: CheckpointReader, into: Variables, wants: Mapping[str, Want], cast: bool) -> list[PlanRow]:
    """Return a row for each variable of `into`."""
    rows = [_row(reader, spec, wants[name], cast) for name, spec in into.variable_specs.items()]
    missing = [number for number, row in enumerate(rows) if row.kind == "missing"][:_MOST_SUGGESTED_FOR]
    if missing:
        used = {row.source for row in rows if row.kind != "missing"}
        free = [info for name, info in reader.tensors.items() if name not in used]
        for number in missing:
            rows[number] = dataclasses.replace(rows[number], suggestions=_likeliest(rows[number], free))
    return rows


def _row(reader: CheckpointReader, spec: VariableSpec, want: Want, cast: bool) -> PlanRow:
    row = PlanRow(spec.key, None, "left", spec.shape, str(spec.dtype), defined_at=spec.defined_at)
    if want.source is None:
        return row
    if want.source not in reader:
        return dataclasses.replace(row, source=want.source, kind="missing", transform=want.transform)
    info = reader.tensors[reader.resolve(want.source)]
    row = dataclasses.replace(
        row,
        source=info.name,
        file_shape=info.shape,
        file_dtype=info.type_name,
        nbytes=info.nbytes,
        transform=want.transform,
    )
    if info.problem:
        return dataclasses.replace(row, kind="unreadable", note=info.problem)
    shape, dtype, note = info.shape, info.dtype, ""
    if want.transform is not None:
        found = _after_transform(want.transform, info)
        if found is None:  # it works on values only: checked when they are there
            return dataclasses.replace(row, kind="restore")
        shape, dtype = found
        note = f"{row.transform_name} makes it {list(shape)} {dtype}"
    want_shape, want_dtype = stored_form(spec.shape, spec.dtype)
    if shape != want_shape:
        return dataclasses.replace(row, kind="shape", note=note)
    return dataclasses.replace(row, kind=_dtype_kind(dtype, want_dtype, cast), note=note)


def _dtype_kind(found: np.dtype[Any], want: np.dtype[Any], cast: bool) -> str:
    if found == want:
        return "restore"
    if narrowed_dtype(found) == want:
        return "narrow"
    return "cast" if cast and _same_family(found, want) else "dtype"


def narrowed_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that JAX, as configured, has for values of `dtype` (int64 without x64: int32)."""
    return np.dtype(dtype) if dtype == np.dtype(object) else np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def _same_family(found: np.dtype[Any], want: np.dtype[Any]) -> bool:
    families = (np.floating, np.integer, np.complexfloating)
    return any(jnp.issubdtype(found, f) and jnp.issubdtype(want, f) for f in families)


def _after_transform(transform: Callable[[Any], Any], info: TensorInfo) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Shape and dtype of what `transform` makes of a tensor, None where that shows only on real values."""
    if info.dtype == np.dtype(object):
        return None
    if narrowed_dtype(info.dtype) == info.dtype:
        with contextlib.suppress(Exception):  # a function of NumPy arrays only
            # A fresh function: JAX keeps traces by function, and crashes on NumPy's compiled ones.
            result = jax.eval_shape(lambda x: transform(x), jax.ShapeDtypeStruct(info.shape, info.dtype))
            return tuple(result.shape), np.dtype(result.dtype)
    if info.nbytes <= _MOST_TRIAL_BYTES:
        with contextlib.suppress(Exception):  # a function that minds what the values are
            result = np.asarray(transform(np.zeros(info.shape, info.dtype)))
            return result.shape, result.dtype
    return None


def _likeliest(row: PlanRow, free: list[TensorInfo]) -> tuple[str, ...]:
    """The free tensors most like a missing variable: of its shape first, then by likeness of the names."""
    same = [info.name for info in free if info.shape == row.shape]
    others = [info.name for info in free if info.shape != row.shape]
    wanted = row.source or row.target
    best = sorted(same[:_MOST_CANDIDATES], key=lambda name: -_likeness(name, wanted, row.target))
    if len(best) < _MOST_SUGGESTIONS:
        close = [name for name in others[:_MOST_CANDIDATES] if _likeness(name, wanted, row.target) > 0.8]
        best += sorted(close, key=lambda name: -_likeness(name, wanted, row.target))
    return tuple(best[:_MOST_SUGGESTIONS])


def _likeness(name: str, wanted: str, target: str) -> float:
    """From 0 to 2: how alike the names are, and one more for the same last component."""
    alike = max(difflib.SequenceMatcher(None, name, other, autojunk=False).ratio() for other in {wanted, target})
    ends = {wanted.rsplit("/", 1)[-1], target.rsplit("/", 1)[-1]}
    return alike + (name.rsplit("/", 1)[-1] in ends)

"""One variable against one tensor: do shape and dtype fit, and if there is none, what may be meant."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.formats.random_keys import stored_form
from jaxvars.checkpoint.mapping import Want
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.errors import InvalidArgumentError
from jaxvars.rules.steps import Described, ValueTransform
from jaxvars.spec import VariableSpec
from jaxvars.variables import Variables

__all__ = ["PlanRow", "make_rows", "narrowed_dtype", "transform_text"]

Transform: TypeAlias = Callable[[Any], Any]

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
      sources: the names in the file: one, several that a transform makes one of, none where it is left as it is.
      kind: "restore", "narrow" (64 to 32 bits), "cast", "left", or a problem: "missing", "shape", "dtype",
        "unreadable".
      shape: the variable's shape.
      dtype: the variable's dtype.
      file_shape: the (first) tensor's shape, None where there is none.
      file_dtype: the (first) tensor's dtype as the file calls it, "" where there is none.
      nbytes: bytes to read for it; a tensor that several variables take counts at the first of them.
      transform: the rule's function, or None.
      defined_at: where the variable was defined, "" if not known.
      note: why the tensor cannot be read, or what goes wrong.
      suggestions: for a missing one, the likeliest names in the file.
    """

    target: str
    sources: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    dtype: str
    file_shape: tuple[int, ...] | None = None
    file_dtype: str = ""
    nbytes: int = 0
    transform: Transform | None = None
    defined_at: str = ""
    note: str = ""
    suggestions: tuple[str, ...] = ()

    @property
    def source(self) -> str | None:
        """The name in the file, several of them separated by commas, None where the variable is left as it is."""
        return ", ".join(self.sources) if self.sources else None

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
        return "" if self.transform is None else transform_text(self.transform)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["shape"] = list(self.shape)
        fields["sources"] = list(self.sources)
        fields["file_shape"] = None if self.file_shape is None else list(self.file_shape)
        fields["transform"] = self.transform_name
        fields["suggestions"] = list(self.suggestions)
        return fields


def transform_text(transform: Transform) -> str:
    """Return a short name of a transform."""
    return getattr(transform, "__name__", repr(transform))


def make_rows(reader: CheckpointReader, into: Variables, wants: Mapping[str, Want], cast: bool) -> list[PlanRow]:
    """Return a row for each variable of `into`."""
    counted: set[str] = set()
    rows = [_row(reader, spec, wants[name], cast, counted) for name, spec in into.variable_specs.items()]
    missing = [number for number, row in enumerate(rows) if row.kind == "missing"][:_MOST_SUGGESTED_FOR]
    if missing:
        used = {source for row in rows if row.kind != "missing" for source in row.sources}
        free = [info for name, info in reader.tensors.items() if name not in used]
        for number in missing:
            rows[number] = dataclasses.replace(rows[number], suggestions=_likeliest(rows[number], free))
    return rows


def _row(reader: CheckpointReader, spec: VariableSpec, want: Want, cast: bool, counted: set[str]) -> PlanRow:
    def row(kind: str, sources: tuple[str, ...], infos: Sequence[TensorInfo] = (), note: str = "") -> PlanRow:
        return PlanRow(
            spec.key,
            sources,
            kind,
            spec.shape,
            _dtype_text(spec.dtype),
            infos[0].shape if infos else None,
            infos[0].type_name if infos else "",
            _newly_read(infos, counted),
            want.transform,
            spec.defined_at,
            note,
        )

    if not want.sources:
        return row("left", ())
    absent = tuple(name for name in want.sources if name not in reader)
    if absent:
        return row("missing", absent)
    infos = [reader.tensors[reader.resolve(name)] for name in want.sources]
    kind, note = _compared(infos, spec, want.transform, cast)
    return row(kind, tuple([info.name for info in infos]), infos, note)


@functools.cache
def _dtype_text(dtype: Any) -> str:
    return str(dtype)  # slow in NumPy


def _newly_read(infos: Sequence[TensorInfo], counted: set[str]) -> int:
    """Bytes of the tensors that no earlier row counts."""
    nbytes = 0
    for info in infos:
        if info.name not in counted:
            counted.add(info.name)
            nbytes += info.nbytes
    return nbytes


def _compared(
    infos: Sequence[TensorInfo], spec: VariableSpec, transform: Transform | None, cast: bool
) -> tuple[str, str]:
    """The kind of a row, and a note: whether shape and dtype of what arrives are those of the variable."""
    for info in infos:
        if info.problem:
            return "unreadable", info.problem
    shape, dtype, note = infos[0].shape, infos[0].dtype, ""
    if transform is not None:
        try:
            found = _after_transform(transform, infos)
        except InvalidArgumentError as error:
            return "shape", str(error)
        if found is None:  # it works on values only: checked when they are there
            return "restore", ""
        shape, dtype = found
        note = f"{transform_text(transform)} makes it {list(shape)} {dtype}"
    want_shape, want_dtype = stored_form(spec.shape, spec.dtype)
    if shape != want_shape:
        return "shape", note
    return _dtype_kind(dtype, want_dtype, cast), note


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


def _after_transform(transform: Transform, infos: Sequence[TensorInfo]) -> Described | None:
    """Shape and dtype of what `transform` makes of tensors, None where that shows only on real values.

    Raises:
      InvalidArgumentError: one of our own transforms does not work on tensors of these shapes.
    """
    if isinstance(transform, ValueTransform):
        made = transform.described([Described(info.shape, info.dtype) for info in infos])
        if made is not None:
            if len(made) != 1:
                raise InvalidArgumentError(f"{transform} leaves {len(made)} tensors: add stack() or concat()")
            return made[0]
    if any(info.dtype == np.dtype(object) for info in infos):
        return None
    if all(narrowed_dtype(info.dtype) == info.dtype for info in infos):
        with contextlib.suppress(Exception):  # a function of NumPy arrays only
            given = [jax.ShapeDtypeStruct(info.shape, info.dtype) for info in infos]
            # A fresh function: JAX keeps traces by function, and crashes on NumPy's compiled ones.
            result = jax.eval_shape(lambda x: transform(x), given if len(given) > 1 else given[0])
            return Described(tuple(result.shape), np.dtype(result.dtype))
    if sum(info.nbytes for info in infos) <= _MOST_TRIAL_BYTES:
        with contextlib.suppress(Exception):  # a function that minds what the values are
            zeros = [np.zeros(info.shape, info.dtype) for info in infos]
            result = np.asarray(transform(zeros if len(zeros) > 1 else zeros[0]))
            return Described(result.shape, result.dtype)
    return None


def _likeliest(row: PlanRow, free: list[TensorInfo]) -> tuple[str, ...]:
    """The free tensors most like a missing variable: of its shape first, then by likeness of the names."""
    same = [info.name for info in free if info.shape == row.shape]
    others = [info.name for info in free if info.shape != row.shape]
    wanted = row.sources[0] if row.sources else row.target
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

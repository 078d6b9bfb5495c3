"""`jv.checkpoint.diff`: what two checkpoints or states have in common and where they differ, whatever their formats."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.comparison import Comparison, compare
from jaxvars.checkpoint.formats.base import TensorInfo
from jaxvars.checkpoint.progress import Progress, progress_meter
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.checkpoint.renaming import Renamed, renamed
from jaxvars.checkpoint.state_source import StateSource
from jaxvars.errors import InvalidArgumentError
from jaxvars.variables import Variables

__all__ = ["CheckpointDiff", "TensorDifference", "diff"]

_MOST_BYTES_AT_ONCE = 1 << 27  # small tensors are read in groups; some formats have a high price per call
_LEVELS = ("names", "specs", "values")


@dataclasses.dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor that is in both checkpoints and is not the same.

    Attributes:
      name: the name in B.
      name_a: the name in A; another one only where rules gave it that of B.
      kind: "shape", "dtype", "values", or "unreadable". Where the dtypes differ the values are compared too.
      shape_a: the shape in A (after the rule's transform).
      shape_b: the shape in B.
      dtype_a: the dtype in A, as the format calls it.
      dtype_b: the dtype in B.
      different: how many values differ.
      max_abs: the largest absolute difference.
      max_rel: the largest difference in proportion to the larger of the two absolute values.
      note: why a tensor cannot be read.
    """

    name: str
    name_a: str
    kind: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    dtype_a: str
    dtype_b: str
    different: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    note: str = ""

    @property
    def size(self) -> int:
        """Number of elements in B."""
        return int(np.prod(self.shape_b, dtype=np.int64))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {**dataclasses.asdict(self), "shape_a": list(self.shape_a), "shape_b": list(self.shape_b)}

    def __str__(self) -> str:
        values = ""
        if self.different:
            values = f"{self.different:,} of {self.size:,} differ"
            values += f", by at most {self.max_abs:.6g} (relative {self.max_rel:.3g})" if self.max_abs else ""
        if self.kind == "shape":
            return f"{list(self.shape_a)} in A, {list(self.shape_b)} in B"
        if self.kind == "dtype":
            return f"{self.dtype_a} in A, {self.dtype_b} in B" + (f"; {values}" if values else "")
        return self.note if self.kind == "unreadable" else values


@dataclasses.dataclass(frozen=True)
class CheckpointDiff:
    """What two checkpoints have in common and where they differ. Prints as one line for each difference.

    Attributes:
      path_a: the first checkpoint, as it was asked for; "jv.Variables" for a state.
      path_b: the second.
      format_a: the first one's format; "variables" for a state.
      format_b: the second one's.
      level: "names", "specs" (names, shapes and dtypes) or "values" (all of it).
      only_in_a: names that only A has, as A calls them.
      only_in_b: names that only B has.
      differences: the tensors that are in both and differ.
      equal: names, as B calls them, of the tensors that are the same, as far as `level` goes.
      renamed: {name in A: other name} for the names that the rules changed.
    """

    path_a: str
    path_b: str
    format_a: str
    format_b: str
    level: str
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    differences: tuple[TensorDifference, ...]
    equal: tuple[str, ...]
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_in_a or self.only_in_b or self.differences)

    def of_kind(self, kind: str) -> tuple[TensorDifference, ...]:
        """Return the differences of one kind: "shape", "dtype", "values" or "unreadable"."""
        return tuple(difference for difference in self.differences if difference.kind == kind)

    def lines(self) -> list[tuple[str, str, str]]:
        """Return (what, name, details) of all that differs, ordered by what."""
        rows = [("only in A", name, self._alias(name)) for name in self.only_in_a]
        rows += [("only in B", name, "") for name in self.only_in_b]
        for kind in ("unreadable", "shape", "dtype", "values"):
            rows += [(kind, item.name, f"{item}{self._alias(item.name_a)}") for item in self.of_kind(kind)]
        return rows

    def _alias(self, name_a: str) -> str:
        return f" (by the rules {self.renamed[name_a]})" if name_a in self.renamed else ""

    def summary(self) -> str:
        """Return one line: how much is equal, how much differs."""
        what = {"names": "names", "specs": "names with shape and dtype"}.get(self.level, "tensors")
        parts = [f"{len(self.equal):,} {what} equal", f"{len(self.differences):,} different"]
        parts += [f"{len(self.only_in_a):,} only in A ({self.path_a})"] * bool(self.only_in_a)
        parts += [f"{len(self.only_in_b):,} only in B ({self.path_b})"] * bool(self.only_in_b)
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dicts, lists, strings and numbers."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["differences"] = [difference.to_dict() for difference in self.differences]
        fields |= {name: list(fields[name]) for name in ("only_in_a", "only_in_b", "equal")}
        return {**fields, "renamed": dict(self.renamed), "same": self.same}

    def __str__(self) -> str:
        rows = self.lines()
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines = [f"{what:<{widths[0]}}  {name:<{widths[1]}}  {details}".rstrip() for what, name, details in rows]
        return "\n".join([*lines, *[""] * bool(lines), self.summary()])

    def __repr__(self) -> str:
        return f"<CheckpointDiff of {self.path_a!r} and {self.path_b!r}: {self.summary()}>"


def diff(
    path_a: str | os.PathLike[str] | Variables,
    path_b: str | os.PathLike[str] | Variables,
    rules: Any = None,
    rtol: float = 0.0,
    atol: float = 0.0,
    level: Literal["names", "specs", "values"] = "values",
    progress: Progress = None,
) -> CheckpointDiff:
    r"""Compare two checkpoints, in any formats, or states: names, shapes, dtypes and values.

    ``==`` between states asks whether they are the same object; this compares what they hold. Values are read in groups
    of small tensors, or one large tensor at a time.

    Args:
      path_a: the first checkpoint (A), as for `jv.checkpoint.open`; or variables. A value that was narrowed when it
        was restored (int64 to int32) equals that of the file.
      path_b: the second (B).
      rules: (pattern, replacement[, function]) triples that give A's names those of B, as for `Variables.rename`: the
        pattern matches the name in A, the replacement is the name in B.
      rtol: values agree that differ by at most ``atol + rtol * larger``, where `larger` is the larger of the two
        absolute values. By default they must be equal; NaN equals NaN.
      atol: see `rtol`.
      level: what to compare: "names", "specs" (names, shapes and dtypes), or "values" as well.
      progress: as for `jv.checkpoint.restore`.

    Returns:
      A `CheckpointDiff`: print it, or ask whether it is `same`.

    Raises:
      NotFoundError: there is no such checkpoint, or a rule matches no name of A.
      InvalidArgumentError: the rules give two tensors one name.
      DataLossError: a file is damaged.

    Example:
      >>> import tempfile, numpy as np, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> old = jv.checkpoint.save(jv.Variables({"tower/w": np.ones(3, np.float32)}), folder.name + "/old")
      >>> new = jv.checkpoint.save(jv.Variables({"conv1/w": np.full(3, 1.5, np.float32)}), folder.name + "/new")
      >>> result = jv.checkpoint.diff(old, new, rules=[(r"tower/(.*)", r"conv1/\1")])
      >>> result.same
      False
      >>> print(result.differences[0])
      3 of 3 differ, by at most 0.5 (relative 0.333)
      >>> jv.checkpoint.diff(new, jv.Variables({"conv1/w": np.full(3, 1.5, np.float32)})).same
      True
      >>> folder.cleanup()
    """
    _check_options(level, rtol, atol)
    with _opened(path_a) as reader_a, _opened(path_b) as reader_b:
        items = renamed({name: reader_a.tensors[name] for name in reader_a}, rules, "jv.checkpoint.diff")
        pairs = [(item, reader_b.tensors[item.name]) for item in items if item.name in reader_b.tensors]
        pairs.sort(key=lambda pair: pair[0].name)
        common = {item.name for item, _ in pairs}
        found: list[TensorDifference] = []
        if level != "names":
            found = list(_differences(reader_a, reader_b, pairs, level == "values", (rtol, atol), progress))
            found = [difference for difference in found if not _is_narrowing(difference, reader_a, reader_b)]
        differ = {difference.name for difference in found}
        return CheckpointDiff(
            reader_a.path if isinstance(path_a, Variables) else os.fspath(path_a),
            reader_b.path if isinstance(path_b, Variables) else os.fspath(path_b),
            reader_a.format,
            reader_b.format,
            level,
            tuple(item.info.name for item in items if item.name not in common),
            tuple(name for name in reader_b if name not in common),
            tuple(found),
            tuple(item.name for item, _ in pairs if item.name not in differ),
            {item.info.name: item.name for item in items if item.name != item.info.name},
        )


def _opened(what: str | os.PathLike[str] | Variables) -> CheckpointReader:
    return CheckpointReader(StateSource(what)) if isinstance(what, Variables) else open_checkpoint(what)


def _is_narrowing(difference: TensorDifference, a: CheckpointReader, b: CheckpointReader) -> bool:
    """Whether nothing differs but that a state has the file's 64 bits in 32, as it noted when they were restored."""
    if difference.kind != "dtype" or difference.different:
        return False
    names = (difference.name_a, difference.name)
    (wide_a, dtype_a), (wide_b, dtype_b) = (_noted_dtype(*pair) for pair in zip((a, b), names, strict=True))
    return wide_a == dtype_b or wide_b == dtype_a


def _noted_dtype(reader: CheckpointReader, name: str) -> tuple[str, str]:
    """The dtype that a state notes of the file it came from, "" where there is none; and the tensor's own."""
    source = reader.source
    noted = source.specs[name].file_dtype if isinstance(source, StateSource) else ""
    return noted, str(reader.tensors[name].dtype)


def _check_options(level: str, rtol: float, atol: float) -> None:
    if level not in _LEVELS:
        raise InvalidArgumentError(
            f"jv.checkpoint.diff: level is one of {', '.join(map(repr, _LEVELS))}, not {level!r}."
        )
    if not (rtol >= 0 and atol >= 0):
        raise InvalidArgumentError(f"jv.checkpoint.diff: rtol and atol are not negative, got {rtol} and {atol}.")


_Pair = tuple[Renamed, TensorInfo]


def _differences(
    a: CheckpointReader,
    b: CheckpointReader,
    pairs: Sequence[_Pair],
    values: bool,
    tolerances: tuple[float, float],
    progress: Progress,
) -> Iterator[TensorDifference]:
    """Yield what differs between tensors of one name, in the order of the names."""
    total = sum(item.info.nbytes + info.nbytes for item, info in pairs) if values else 0
    with progress_meter(progress, total, "diff") as meter:
        for group in _groups(pairs):
            arrays = _arrays_of_a(a, group, values)
            rows = {item.name: _specs_differ(item, arrays.get(item.name), info) for item, info in group}
            members = {item.name: (item, info) for item, info in group}
            comparable = [name for name, row in rows.items() if values and _is_comparable(row, arrays.get(name))]
            for name, array in b.source.read_many(comparable):
                found = compare(arrays.pop(name), array, *tolerances)
                rows[name] = _with_values(rows[name], members[name], found)
            yield from (row for row in rows.values() if row is not None)
            for item, info in group:
                meter(item.name, item.info.nbytes + info.nbytes if values else 0)


def _groups(pairs: Sequence[_Pair]) -> Iterator[list[_Pair]]:
    group: list[_Pair] = []
    size = 0
    for item, info in pairs:
        group.append((item, info))
        size += item.info.nbytes + info.nbytes
        if size >= _MOST_BYTES_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _arrays_of_a(a: CheckpointReader, group: Sequence[_Pair], values: bool) -> dict[str, npt.NDArray[Any]]:
    """The values in A that are needed, by their new names. What a transform gives shows only on values."""
    wanted = {
        item.info.name: item
        for item, info in group
        if not (item.info.problem or info.problem)
        and (item.transform is not None or (values and item.info.shape == info.shape))
    }
    return {wanted[name].name: wanted[name].transformed(array) for name, array in a.source.read_many(wanted)}


def _specs_differ(item: Renamed, array: npt.NDArray[Any] | None, info: TensorInfo) -> TensorDifference | None:
    """The difference in shape or dtype, None if there is none. `array` is A's, where it was read."""
    shape, dtype, type_name = item.info.shape, item.info.dtype, item.info.type_name
    if array is not None and item.transform is not None:
        shape, dtype, type_name = array.shape, array.dtype, array.dtype.name
    row = TensorDifference(info.name, item.info.name, "", shape, info.shape, type_name, info.type_name)
    problems = [f"in {which}: {text}" for which, text in (("A", item.info.problem), ("B", info.problem)) if text]
    if problems:
        return dataclasses.replace(row, kind="unreadable", note="; ".join(problems))
    if shape != info.shape:
        return dataclasses.replace(row, kind="shape")
    return dataclasses.replace(row, kind="dtype") if dtype != info.dtype else None


def _is_comparable(row: TensorDifference | None, array: npt.NDArray[Any] | None) -> bool:
    """Whether B's values are worth reading."""
    return array is not None and (row is None or row.kind == "dtype")


def _with_values(row: TensorDifference | None, pair: _Pair, found: Comparison) -> TensorDifference | None:
    if row is None:
        if not found.different:
            return None
        item, info = pair
        names = (info.name, item.info.name)
        row = TensorDifference(*names, "values", info.shape, info.shape, info.type_name, info.type_name)
    return dataclasses.replace(row, different=found.different, max_abs=found.max_abs, max_rel=found.max_rel)

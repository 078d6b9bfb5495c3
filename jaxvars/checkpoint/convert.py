"""`jv.checkpoint.convert`: a checkpoint in another format, under other names, with nothing lost on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxvars.checkpoint.arriving import arriving
from jaxvars.checkpoint.departing import Departure, cast_dtype, departing
from jaxvars.checkpoint.formats.files import RangedFile, shard_files
from jaxvars.checkpoint.formats.random_keys import is_key_dtype
from jaxvars.checkpoint.formats.registry import format_to_write
from jaxvars.checkpoint.formats.safetensors_index import is_index, read_index
from jaxvars.checkpoint.matching import PlanRow
from jaxvars.checkpoint.paths import local_path
from jaxvars.checkpoint.plan import as_variables, make_plan
from jaxvars.checkpoint.plan_text import shown, size
from jaxvars.checkpoint.progress import Progress, progress_meter
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.checkpoint.renaming import renamed
from jaxvars.checkpoint.restore import file_dtypes
from jaxvars.checkpoint.save import check_place, write
from jaxvars.errors import DataLossError, InvalidArgumentError, some_names
from jaxvars.rules import parse_patterns
from jaxvars.spec import is_hole
from jaxvars.variables import Variables

__all__ = ["Conversion", "convert"]

_OP = "jv.checkpoint.convert"
_MOST_LEFT_OUT = 8  # names that are printed


@dataclasses.dataclass(frozen=True, repr=False)
class Conversion:
    """What `jv.checkpoint.convert` did. Prints as one line, and one for what was left out.

    Attributes:
      path: the new checkpoint.
      format: its format.
      source_path: the old one.
      source_format: the old one's format.
      sources: {name in the new checkpoint: names in the old one that its values come from}.
      left_out: names in the old checkpoint of which nothing is in the new one.
      nbytes: bytes of values written.
      verified: whether the new checkpoint was read back and compared.
    """

    path: str
    format: str
    source_path: str
    source_format: str
    sources: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...]
    nbytes: int
    verified: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain dicts, lists, strings and numbers."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        sources = {name: list(names) for name, names in self.sources.items()}
        return {**fields, "sources": sources, "left_out": list(self.left_out)}

    def summary(self) -> str:
        """Return one line: how much was written, from where and to where."""
        count = len(self.sources)
        noun = "variable" if count == 1 else "variables"
        ways = f"{self.source_path} ({self.source_format}) -> {self.path} ({self.format})"
        return f"{count:,} {noun}, {size(self.nbytes)}: {ways}" + (", verified" if self.verified else "")

    def __str__(self) -> str:
        lines = [self.summary()]
        if self.left_out:
            lines.append(f"left out: {some_names(self.left_out, _MOST_LEFT_OUT)}")
        return "\n".join(map(shown, lines))

    def __repr__(self) -> str:
        return f"<Conversion: {self.summary()}>"


def convert(
    source_path: str | os.PathLike[str],
    target_path: str | os.PathLike[str],
    *,
    rules: Any = None,
    format: str | None = None,
    into: Variables | None = None,
    only: Any = None,
    drop: Any = None,
    cast: str | None = None,
    aliases: bool = False,
    verify: bool = True,
    progress: Progress = None,
) -> Conversion:
    r"""Write a checkpoint of any format in another one, or under other names.

    Nothing is lost: 64-bit numbers, strings and bfloat16 stay what they are, and what jaxvars noted of variables
    (trainable flags, collections) comes along. Values go from file to file one by one, through no device.

    Args:
      source_path: the checkpoint, in any format, as for `jv.checkpoint.open`.
      target_path: where to. A checkpoint of the same format that is there is replaced when the new one is complete;
        anything else is refused.
      rules: (pattern, replacement[, function]) triples as for ``Variables.rename``: the pattern matches the present
        name, the replacement is the new name; the function gets the values as a NumPy array. With `into` they have
        the direction of `jv.checkpoint.restore` instead.
      format: "orbax", "tf", "safetensors" or "npz"; None chooses by the suffix of `target_path`, else Orbax.
      into: the variables that the new checkpoint is to have, such as ``model.specs(...)``: then all of them must be
        in the old one (rules may stack or join several tensors to one), or have a value in `into`.
      only: a pattern, or a list of patterns, of the names to take, as for ``Variables.select``.
      drop: a pattern, or a list of patterns, of the names to leave out. With `into` both are about its names.
      cast: a dtype for all floating tensors ("bfloat16"), all others stay as they are; with `into`, "model" converts
        within families of dtypes to those of `into`.
      aliases: whether to call tensors by the other names that the format knows of them: TF1's, in the checkpoints of
        TensorFlow 2. Patterns of `rules`, `only` and `drop` then match these.
      verify: whether to read the new checkpoint back and compare names, shapes, dtypes and values.
      progress: as for `jv.checkpoint.restore`.

    Returns:
      A `Conversion`.

    Raises:
      NotFoundError: there is no such checkpoint; a rule or pattern matches no name; names of `into` are missing.
      InvalidArgumentError: two tensors get one name; something is in the way; tensors cannot be read, or not be held
        by the format.
      DataLossError: the old checkpoint is damaged, or the new one is not what was written.
      FailedPreconditionError: the disk refuses.

    Example:
      >>> import tempfile, numpy as np, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> old = jv.checkpoint.save(jv.Variables({"tower/w": np.ones(3, np.float32)}), folder.name + "/old")
      >>> rules = [(r"tower/(.*)", r"conv1/\1")]
      >>> done = jv.checkpoint.convert(old, folder.name + "/new.safetensors", rules=rules)
      >>> done.format, jv.train.list_variables(done.path)
      ('safetensors', [('conv1/w', [3])])
      >>> folder.cleanup()
    """
    target = local_path(target_path)
    chosen = format_to_write(format, target)
    with open_checkpoint(source_path) as reader:
        _check_paths(reader, target, chosen)
        is_new = not _is_there(target, chosen)
        making = _Making(reader, os.fspath(source_path), rules, only, drop, cast, aliases)
        departures, sources = making.renamed() if into is None else making.restored(into)
        if not departures:
            raise InvalidArgumentError(f"{_OP}: nothing of {reader.path} is left to write.")
        nbytes = sum(departure.item.nbytes for departure in departures)
        with progress_meter(progress, nbytes * (2 if verify else 1), "convert") as meter:
            for departure in departures:
                departure.meter = meter
            write([departure.item for departure in departures], target, chosen)
            if verify:
                with _removed_on_failure(target, chosen, is_new):
                    _verify(departures, target)
    used = {name for names in sources.values() for name in names}
    return Conversion(
        os.fspath(target_path),
        chosen,
        os.fspath(source_path),
        reader.format,
        sources,
        tuple(name for name in reader if name not in used),
        nbytes,
        verify,
    )


_Made = tuple[list[Departure], dict[str, tuple[str, ...]]]


@dataclasses.dataclass(frozen=True)
class _Making:
    """What the new checkpoint is to hold, by the user's arguments."""

    reader: CheckpointReader
    path: str
    rules: Any
    only: Any
    drop: Any
    cast: str | None
    aliases: bool

    def renamed(self) -> _Made:
        """All tensors of the old checkpoint, or those chosen, under their new names."""
        dtype = None if self.cast is None else cast_dtype(self.cast)
        # Files have orders of their own; the record of variables has that of their creation.
        present = {name: name for name in getattr(self.reader.source, "specs", None) or self.reader.tensors}
        if self.aliases:
            present |= {name: alias for alias, name in sorted(self.reader.aliases.items(), reverse=True)}
        tensors = {present[name]: self.reader.tensors[name] for name in present}
        chosen = self._chosen(tensors)
        bad = [f"{name} ({tensors[name].problem})" for name in chosen if tensors[name].problem]
        if bad:
            raise InvalidArgumentError(
                f"{_OP}: {len(bad)} of {len(chosen)} tensors of {self.path} cannot be read: {some_names(bad)}. "
                "Leave them out: drop=[names]."
            )
        items = renamed({name: tensors[name] for name in chosen}, self.rules, _OP)
        return departing(self.reader, items, dtype), {item.name: (item.info.name,) for item in items}

    def restored(self, into: Variables) -> _Made:
        """The variables of `into`, or those chosen, with the values that a restore would give them."""
        if self.cast not in (None, "model"):
            raise InvalidArgumentError(f"{_OP}: with into=, cast is 'model' or None, not {self.cast!r:.80}.")
        into = as_variables(self.path, into, "convert")
        plan = make_plan(self.reader, self.path, into, self.rules, None, self.cast == "model", "convert")
        chosen = set(self._chosen(into))
        plan = dataclasses.replace(plan, rows=tuple(row for row in plan if row.target in chosen))
        error = plan.error()
        if error is not None:
            raise error
        noted = file_dtypes(self.reader, [row for row in plan if row.is_restored], into)
        into = into._renewed(into._layout.with_file_dtypes(noted), into._leaves)
        specs, rows = into.variable_specs, {row.target: row for row in plan}
        departures: list[Departure] = []
        sources: dict[str, tuple[str, ...]] = {}
        for name in filter(rows.__contains__, into._layout.creation_order):
            row, value = rows[name], into[name]
            if row.is_restored or not is_hole(value):
                read = _reading(self.reader, row, value) if row.is_restored else _constant(value)
                departures.append(Departure(specs[name], read))
                sources[name] = row.sources if row.is_restored else ()
        return departures, sources

    def _chosen(self, names: Iterable[str]) -> list[str]:
        chosen = list(names)
        if self.only is not None:
            matches = parse_patterns(self.only, op=f"{_OP} only").resolve(chosen)
            chosen = [name for name in chosen if matches[name] is not None]
        if self.drop is not None:
            matches = parse_patterns(self.drop, op=f"{_OP} drop").resolve(chosen)
            chosen = [name for name in chosen if matches[name] is None]
        return chosen


def _reading(reader: CheckpointReader, row: PlanRow, value: Any) -> Callable[[], Any]:
    return lambda: next(arriving(reader, [row], {row.target: value}))[1]


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: np.asarray(jax.random.key_data(value) if is_key_dtype(value.dtype) else value)


def _check_paths(reader: CheckpointReader, target: str, format: str) -> None:
    """Refuse to write over the checkpoint that is read, into it, around it, or over anything that is none."""
    old, new = os.path.realpath(reader.path), os.path.realpath(target)
    files = set(map(os.path.realpath, _files_of(reader)))
    inside = os.path.isdir(old) and os.path.commonpath([old, new]) == old
    around = os.path.isdir(new) and os.path.commonpath([old, new]) == new and format == "orbax"
    if new in files or inside or around:
        raise InvalidArgumentError(
            f"{_OP}: {target} is the checkpoint that is converted, or a part of it. Choose another path."
        )
    check_place(target, format)


def _files_of(reader: CheckpointReader) -> Iterator[str]:
    """The paths that the checkpoint consists of, as far as its name tells; some need not be there."""
    path = reader.path
    yield from (path, path + ".index", *shard_files(path), *shard_files(path + ".data"))
    if reader.format == "safetensors":
        with RangedFile(path) as file:
            yield from read_index(file).values() if is_index(file) else ()


def _is_there(target: str, format: str) -> bool:
    return os.path.lexists(target + ".index" if format == "tf" else target)


def _verify(departures: Sequence[Departure], target: str) -> None:
    """Read the new checkpoint back, and compare it with what its writer was given."""
    by_name = {departure.item.name: departure for departure in departures}
    with open_checkpoint(target) as reader:
        if set(reader) != set(by_name):
            differing = sorted(set(reader) ^ set(by_name))
            raise DataLossError(f"{target} does not hold the names that were written: {some_names(differing)}.")
        for name, values in reader.source.read_many(list(by_name)):
            departure = by_name[name]
            item = departure.item
            # TensorFlow's own checkpoints have the global step in 64 bits.
            dtypes = {item.dtype, item.plain_dtype} | ({np.dtype(np.int64)} if item.plain_dtype.kind == "i" else set())
            if values.shape != item.shape or values.dtype not in dtypes or not departure.matches(values):
                raise DataLossError(f"{target}: {name} does not read back as it was written.")


@contextlib.contextmanager
def _removed_on_failure(target: str, format: str, is_new: bool) -> Any:
    """Leave nothing behind that was not verified, unless it replaced a checkpoint."""
    try:
        yield
    except BaseException:
        if is_new:
            _remove(target, format)
        raise


def _remove(target: str, format: str) -> None:
    if format == "orbax":
        shutil.rmtree(target, ignore_errors=True)
        return
    data = shard_files(f"{target}.data") if format == "tf" else []
    for path in (target + ".index", *data) if format == "tf" else (target,):
        with contextlib.suppress(OSError):
            os.unlink(path)

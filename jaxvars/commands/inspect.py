"""``jaxvars inspect``: what a checkpoint holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxvars import checkpoint
from jaxvars.checkpoint import CheckpointReader
from jaxvars.checkpoint.formats.random_keys import is_key_dtype
from jaxvars.checkpoint.plan_text import shown, size
from jaxvars.checkpoint.progress import progress_meter
from jaxvars.checkpoint.statistics import Statistics, statistics
from jaxvars.commands.arguments import Commands, add_json, add_progress, pattern
from jaxvars.commands.output import FAILED, OK, emit, emit_json, use_cpu
from jaxvars.errors import InvalidArgumentError
from jaxvars.spec import VariableSpec
from jaxvars.tour.report import table

__all__ = ["add"]

_TEXT = (
    "Lists name, shape and dtype of everything in a checkpoint: TensorFlow's (no TensorFlow needed), ours, or another "
    "program's. PATH is what a Saver was given or returned, such as old/model.ckpt-1200."
)
_STATISTICS = ("min", "max", "mean", "std", "zeros", "nan", "inf", "crc32c")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("inspect", allow_abbrev=False, help="list what a checkpoint holds", description=_TEXT)
    parser.add_argument("path", metavar="PATH", help="the checkpoint")
    parser.add_argument("--filter", type=pattern, metavar="REGEX", help="only names in which REGEX is found")
    parser.add_argument(
        "--stats", action="store_true", help="read the values too: range, mean, deviation, zeros, NaNs, checksum"
    )
    parser.add_argument("--aliases", action="store_true", help="list other names that the format has for a tensor")
    parser.add_argument("--values", metavar="NAME", help="print the values of this tensor instead")
    parser.add_argument("--full", action="store_true", help="with --values: all of them, however many")
    add_json(parser)
    add_progress(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    listing = options.filter is not None or options.stats or options.aliases
    if options.values is not None and listing:
        raise InvalidArgumentError("--values prints one tensor: it goes with --full and --json only")
    if options.full and options.values is None:
        raise InvalidArgumentError("--full goes with --values NAME")
    use_cpu()
    with checkpoint.open(options.path) as reader:
        if options.values is not None:
            _print_values(reader, options)
        else:
            return _print_list(reader, options)
    return OK


def _print_list(reader: CheckpointReader, options: argparse.Namespace) -> int:
    """Print the list, and return the exit code: whether anything of it can be read."""
    aliases = _aliases(reader)
    names = [name for name in reader if _is_wanted(name, aliases.get(name, ()), options)]
    found = _statistics(reader, names, options.progress) if options.stats else {}
    unreadable = [name for name in names if reader.tensors[name].problem]
    code = FAILED if names and len(unreadable) == len(names) else OK
    if options.json:
        emit_json(_as_json(reader, names, aliases if options.aliases else {}, found, options))
        return code
    header = ["name", "shape", "dtype", *(_STATISTICS if options.stats else ())]
    header += ["also called"] * options.aliases
    reasons = {reader.tensors[name].problem for name in unreadable}
    problems = len(reasons) > 1 or 0 < len(unreadable) < len(names)  # one reason for all is said once, below
    header += ["problem"] * problems
    shapes = _shapes(reader, names)
    rows: list[list[object]] = []
    for name in names:
        info = reader.tensors[name]
        row: list[object] = [shown(name), shapes[name], info.type_name]
        row += _statistics_cells(found.get(name)) if options.stats else []
        row += [", ".join(map(shown, aliases.get(name, ())))] * options.aliases
        row += [info.problem] * problems
        rows.append(row)
    if options.filter is not None and not names:
        emit(f"No name matches {options.filter.pattern}.")
    else:
        emit(table(header, rows, right=_STATISTICS[:-1]))
    emit(f"\n{_totals(reader, names, options)}")
    if unreadable:
        why = f": {reasons.pop()}" if len(reasons) == 1 else ""
        emit(f"{len(unreadable):,} of {len(names):,} cannot be read{why}")
    return code


def _shapes(reader: CheckpointReader, names: Sequence[str]) -> dict[str, list[int]]:
    """The shapes that go with the dtypes in the list: of random keys, not of the numbers behind them."""
    saved = _saved_specs(reader)
    keys = {name for name in names if name in saved and is_key_dtype(saved[name].dtype)}
    return {name: list((saved if name in keys else reader.tensors)[name].shape) for name in names}


def _saved_specs(reader: CheckpointReader) -> Mapping[str, VariableSpec]:
    return getattr(reader.source, "specs", None) or {}


def _is_wanted(name: str, aliases: Iterable[str], options: argparse.Namespace) -> bool:
    if options.filter is None:
        return True
    return any(options.filter.search(each) for each in (name, *(aliases if options.aliases else ())))


def _aliases(reader: CheckpointReader) -> dict[str, list[str]]:
    """The other names of each tensor that has some."""
    found: dict[str, list[str]] = {}
    for other, name in sorted(reader.aliases.items()):
        found.setdefault(name, []).append(other)
    return found


def _statistics(reader: CheckpointReader, names: Sequence[str], progress: bool | None) -> dict[str, Statistics]:
    found: dict[str, Statistics] = {}
    with progress_meter(progress, sum(reader.tensors[name].nbytes for name in names), "inspect") as meter:
        for name, result in statistics(reader, names):
            found[name] = result
            meter(name, reader.tensors[name].nbytes)
    return found


def _statistics_cells(found: Statistics | None) -> list[str]:
    if found is None:  # it cannot be read
        return [""] * len(_STATISTICS)
    numbers = (found.min, found.max, found.mean, found.std)
    counts = (found.zeros, found.nans, found.infinities)
    return [*map(_number, numbers), *map(str, counts), f"{found.crc32c:08x}"]


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"


def _totals(reader: CheckpointReader, names: Sequence[str], options: argparse.Namespace) -> str:
    infos = [reader.tensors[name] for name in names]
    count = f"{len(names)} of {len(reader)}" if options.filter is not None else str(len(names))
    noun = "variable" if len(reader) == 1 else "variables"
    elements, nbytes = sum(info.size for info in infos), sum(info.nbytes for info in infos)
    counted = f"{elements:,} {'element' if elements == 1 else 'elements'}"
    return f"{count} {noun} in {options.path} ({reader.format}): {counted}, {size(nbytes)}"


def _as_json(
    reader: CheckpointReader,
    names: Sequence[str],
    aliases: Mapping[str, list[str]],
    found: Mapping[str, Statistics],
    options: argparse.Namespace,
) -> dict[str, Any]:
    saved, shapes = _saved_specs(reader), _shapes(reader, names)
    variables: list[dict[str, Any]] = []
    for name in names:
        info = reader.tensors[name]
        row: dict[str, Any] = {"name": name, "shape": shapes[name], "dtype": info.type_name}
        if name in saved:
            row |= {"trainable": saved[name].trainable, "collections": list(saved[name].collections)}
        if name in aliases:
            row["aliases"] = aliases[name]
        if info.problem:
            row["problem"] = info.problem
        if name in found:
            row |= found[name].to_dict()
        variables.append(row)
    infos = [reader.tensors[name] for name in names]
    return {
        "path": options.path,
        "format": reader.format,
        "elements": sum(info.size for info in infos),
        "bytes": sum(info.nbytes for info in infos),
        "variables": variables,
    }


def _print_values(reader: CheckpointReader, options: argparse.Namespace) -> None:
    name = reader.resolve(options.values)
    info = reader.tensors[name]
    if info.problem:
        raise InvalidArgumentError(f"{name} cannot be read: {info.problem}")
    values = reader.source.read(name)
    if options.json:
        fields = {"name": name, "shape": list(info.shape), "dtype": info.type_name, "values": _listed(values)}
        emit_json({"path": options.path, **fields})
        return
    emit(f"{shown(name)} {info.type_name} {list(info.shape)}")
    threshold = values.size + 1 if options.full else None
    emit(np.array2string(values, threshold=threshold) if values.ndim else str(values))


def _listed(values: npt.NDArray[Any]) -> Any:
    """The values as lists of what JSON has: bytes as text, complex numbers as pairs."""
    if values.dtype == np.dtype(object):
        texts = np.empty(values.shape, object)
        for index, item in np.ndenumerate(values):
            texts[index] = _text(item)
        return texts.tolist()
    if values.dtype.kind == "c":
        return np.stack([np.real(values), np.imag(values)], axis=-1).tolist()
    if values.dtype.kind not in "biuf":  # bfloat16 and its kind
        return values.astype(np.float64).tolist()
    return values.tolist()


def _text(item: Any) -> Any:
    return item.decode("utf-8", "backslashreplace") if isinstance(item, bytes) else item

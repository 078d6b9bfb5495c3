"""A restore plan as text, as HTML, for rich, and as the text of the error that it leads to."""

from __future__ import annotations

import html as html_module
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jaxvars.checkpoint.matching import PlanRow
from jaxvars.errors import some_names
from jaxvars.summary import rich_tables

if TYPE_CHECKING:
    from jaxvars.checkpoint.plan import RestorePlan

__all__ = ["html", "problems", "rich", "shown", "size", "table", "totals"]

_HEADINGS = ("", "variable", "shape", "dtype", "bytes", "from")
_MOST_ROWS = 2000
_MOST_UNUSED = 4
_MOST_LEFT = 4
_MOST_PROBLEMS = 20
_MOST_SOURCES = 3
_LONGEST_RULE = 50


def table(plan: RestorePlan) -> str:
    """Return the plan as a plain table with a line of totals."""
    rows = [_cells(row, plan) for row in plan.rows[:_MOST_ROWS]]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    dashes = tuple("-" * min(width, _LONGEST_RULE) for width in widths)
    lines = [_line(cells, widths) for cells in [_HEADINGS, dashes, *rows]]
    more = [f"  {_more(plan)}"] if _more(plan) else []
    return "\n".join([_title(plan), "", *lines, *more, "", *_last_lines(plan)])


def rich(plan: RestorePlan) -> Any:
    """Return the plan as the package rich prints it."""
    rows = [_cells(row, plan) for row in plan.rows[:_MOST_ROWS]]
    last = "\n".join(filter(None, [_more(plan), *_last_lines(plan)]))
    return rich_tables(_title(plan), (_HEADINGS, rows), last, right={"bytes"})


def _title(plan: RestorePlan) -> str:
    return f"restore from {plan.path} ({plan.format}, {_count(plan.num_tensors, 'tensor')})"


def _more(plan: RestorePlan) -> str:
    more = len(plan.rows) - _MOST_ROWS
    return f"... and {more} more" if more > 0 else ""


def _last_lines(plan: RestorePlan) -> list[str]:
    unused = [f"not used: {shown(some_names(plan.unused, _MOST_UNUSED))}"] if plan.unused else []
    return [totals(plan), *_left_lines(plan), *unused]


def _left_lines(plan: RestorePlan) -> list[str]:
    """Why the rules that are proposed leave variables as they are."""
    reasons = {} if plan.suggestion is None else plan.suggestion.reasons
    lines = [shown(f"{name} is left as it is: {reason}") for name, reason in [*reasons.items()][:_MOST_LEFT]]
    more = len(reasons) - _MOST_LEFT
    return [*lines, f"... and {more} more are left, as nothing fits"] if more > 0 else lines


def totals(plan: RestorePlan) -> str:
    """Return one line: how many variables get what."""
    parts = [f"{len(plan.restored)} of {_count(len(plan.rows), 'variable')} restored ({size(plan.nbytes)})"]
    counted = (
        (plan.left, "left as they are"),
        (plan.narrowed, "narrowed to 32 bits"),
        (plan.missing, "missing"),
        (plan.mismatched, "mismatched"),
        (plan.unreadable, "unreadable"),
    )
    parts += [f"{len(names)} {text}" for names, text in counted if names]
    if plan.unused:
        parts.append(f"{_count(len(plan.unused), 'tensor')} of the file not used")
    return ", ".join(parts)


def problems(plan: RestorePlan, bad: Sequence[PlanRow]) -> str:
    """Return the text of the error for these rows: all of them, and what to write."""
    lines = [f"Cannot restore {_count(len(bad), 'variable')} of {len(plan.rows)} from {plan.path} ({plan.format}):"]
    lines += [f"  {_problem(row, plan)}" for row in bad[:_MOST_PROBLEMS]]
    if len(bad) > _MOST_PROBLEMS:
        lines.append(f"  ... and {len(bad) - _MOST_PROBLEMS} more")
    lines.append("Nothing was restored.")
    return "\n".join([*lines, *_advice(plan, bad)])


def _advice(plan: RestorePlan, bad: Sequence[PlanRow]) -> Iterator[str]:
    """Yield the lines to write instead, for the kinds of problems there are."""
    first = {row.kind: row for row in reversed(bad)}
    if "missing" in first and not plan.mapped:
        row = first["missing"]
        pair = f'("{row.target}", "{row.suggestions[0] if row.suggestions else "name in the file"}")'
        listed = _rules(plan, pair + (", ..." if len(plan.missing) > 1 else ""))
        yield f"Give the names in the file: {listed}; or keep what is missing as it is: strict=False."
        if len(plan.missing) > 1 and plan.suggestion is None:
            call = f"jv.checkpoint.plan({plan.path!r}, into, {'rules=rules, ' if plan.rules else ''}suggest=True)"
            yield f"Let rules be proposed: print({call}.suggestion)."
    if "shape" in first and not plan.mapped:
        yield from _shape_advice(plan, first["shape"])
    if "dtype" in first:
        yield "Convert between floating dtypes, or between integer dtypes: cast=True."


def _shape_advice(plan: RestorePlan, row: PlanRow) -> Iterator[str]:
    """Yield what to write for a variable of another shape; for its whole scope, if that has nothing but such ones."""
    scope = row.target[: row.target.rfind("/") + 1]
    inside = [other for other in plan.rows if other.target.startswith(scope)]
    left = scope if scope and all(other.kind == "shape" for other in inside) else row.target
    rule = f'("{left}", None)'
    yield f"Leave variables as they are: {_rules(plan, rule)}."
    file_shape = row.file_shape or ()
    grown = len(row.shape) == len(file_shape) and all(n >= m for n, m in zip(row.shape, file_shape, strict=True))
    if grown and row.transform is None:
        rule = f'("{row.target}", "{row.source}", jv.rules.pad(fill="initializer"))'
        yield f"Fill up what is new: {_rules(plan, rule)}."


def _rules(plan: RestorePlan, new: str) -> str:
    """New rules as an argument: before those that were given, as the first that matches wins."""
    return f"rules=[{new}{', *rules' if plan.rules else ''}]"


def _problem(row: PlanRow, plan: RestorePlan) -> str:
    where = f" (defined at {row.defined_at})" if row.defined_at else ""
    if row.kind == "missing":
        likely = f" Likeliest: {', '.join(row.suggestions)}." if row.suggestions else ""
        if plan.mapped:
            return f"{row.target}{where}: Tensor {row.source} is not found in {plan.path} checkpoint.{likely}"
        return f"{row.target}{where}: Key {row.source} not found in checkpoint.{likely}"
    if row.kind == "unreadable":
        return f"{row.target}{where}: tensor {row.source} cannot be read: {row.note}."
    note = f"; {row.note}" if row.note else ""
    if row.kind == "shape":
        return (
            f"Shape of variable {row.target} ({list(row.shape)}) doesn't match with shape of tensor "
            f"{row.source} ({list(row.file_shape or ())}){note}{where}"
        )
    return (
        f"Variable {row.target} is {row.dtype}, tensor {row.source} is {row.file_dtype}: expected dtype "
        f"{row.dtype} does not equal original dtype {row.file_dtype}{note}{where}"
    )


def _cells(row: PlanRow, plan: RestorePlan) -> tuple[str, ...]:
    mark = "!" if plan.is_problem(row) else ""
    nbytes = size(row.nbytes) if row.is_restored else ""
    return (mark, shown(row.target), str(list(row.shape)), row.dtype, nbytes, shown(_origin(row)))


def _origin(row: PlanRow) -> str:
    if row.kind == "left":
        return "(left as it is)"
    if row.kind == "missing":
        likely = f"; likeliest: {', '.join(row.suggestions)}" if row.suggestions else ""
        return f"MISSING {some_names(row.sources, _MOST_SOURCES)}{likely}"
    name = some_names(row.sources, _MOST_SOURCES)
    if row.transform is not None:
        name += f" via {row.transform_name}"
    if row.kind == "shape":
        return f"SHAPE {name} {list(row.file_shape or ())}"
    if row.kind == "dtype":
        return f"DTYPE {name} {row.file_dtype}"
    if row.kind == "unreadable":
        return f"UNREADABLE {name}: {row.note}"
    return f"{name} ({row.file_dtype} to {row.dtype})" if row.kind in ("narrow", "cast") else name


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if number == 4 else cell.ljust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def html(plan: RestorePlan) -> str:
    """Return the plan as an HTML table."""
    escape = html_module.escape
    head = "".join(f"<th style='text-align:left'>{escape(text)}</th>" for text in _HEADINGS)
    body: list[str] = []
    for row in plan.rows[:_MOST_ROWS]:
        style = " style='color:#b00020'" if plan.is_problem(row) else ""
        cells = "".join(f"<td style='text-align:left'>{escape(text)}</td>" for text in _cells(row, plan))
        body.append(f"<tr{style}>{cells}</tr>")
    rest = f"<p>{_more(plan)}</p>" if _more(plan) else ""
    left = "".join(f"<p>{escape(line)}</p>" for line in _left_lines(plan))
    unused = f"<p>not used: {escape(some_names(plan.unused, _MOST_UNUSED))}</p>" if plan.unused else ""
    return (
        f"<p>restore from <code>{escape(plan.path)}</code> ({escape(plan.format)})</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>{rest}"
        f"<p>{escape(totals(plan))}</p>{left}{unused}"
    )


def size(nbytes: int) -> str:
    """Return a number of bytes as a person reads it: ``"3.2 KB"``."""
    amount = float(nbytes)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{nbytes} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")


def shown(name: str) -> str:
    r"""Return a name as it can be shown on one line: what moves a cursor or ends a line is spelled out (``\n``).

    Example:
      >>> print(shown("a/b\n\x1b[2J"))
      a/b\n\x1b[2J
    """
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")

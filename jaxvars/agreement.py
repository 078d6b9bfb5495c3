"""Do given variables fit what a model asks for? Every problem at once, with the line that mends it."""

from __future__ import annotations

from typing import Any

from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, nearest_names
from jaxvars.frames import Mismatch
from jaxvars.spec import is_hole
from jaxvars.variables import Variables

__all__ = ["check_agreement", "mismatch_error"]

_HINTS = 10  # missing names for which the nearest are searched: each search goes through all names


def check_agreement(model: Any, wanted: Variables, given: Variables) -> None:
    """Raise one error for all values of `given` whose shape or dtype `model` does not ask for."""
    for name in wanted:
        if name in given:
            problem = _disagreement(wanted[name], given[name])
            if problem:
                raise mismatch_error(model, Mismatch(name, problem), wanted, given, missing_is_fine=True)


def _disagreement(wanted: Any, found: Any) -> str:
    if tuple(wanted.shape) != tuple(found.shape):
        return f"has shape {tuple(found.shape)}, and the model asks for {tuple(wanted.shape)}"
    if wanted.dtype != found.dtype:
        return f"has dtype {found.dtype}, and the model asks for {wanted.dtype}"
    return ""


def mismatch_error(
    model: Any, first: Mismatch, wanted: Variables, given: Variables, missing_is_fine: bool = False
) -> Exception:
    """Return the error that lists every way in which `given` does not fit `wanted`, `first` among them."""
    problems: dict[str, str] = {first.key: first.problem}
    for name in wanted:
        if name not in given:
            if not missing_is_fine:
                problems[name] = "missing"
        elif is_hole(given[name]) and not missing_is_fine:
            problems[name] = "uninitialized"
        elif problem := _disagreement(wanted[name], given[name]):
            problems[name] = problem
    specs = wanted.variable_specs
    lines: list[str] = []
    searches = 0
    for name, problem in problems.items():
        near: list[str] = []
        if problem == "missing" and searches < _HINTS:
            searches += 1
            near = nearest_names(name, given)
        hint = f" (there is {', '.join(near)})" if near else ""
        site = specs[name].defined_at if name in specs else ""
        lines.append(f"    {name}: {problem}{hint}{f', asked for at {site}' if site else ''}")
    kinds = {p if p in ("missing", "uninitialized") else "differs" for p in problems.values()}
    text = (
        f"{len(problems)} {'variable does' if len(problems) == 1 else 'variables do'} not fit {model!r}:\n"
        + "\n".join(lines)
        + "\nWrite:\n"
        + _remedy([name for name, p in problems.items() if p not in ("missing", "uninitialized")])
    )
    if kinds == {"missing"}:
        return NotFoundError(text)
    if kinds == {"uninitialized"}:
        return FailedPreconditionError(f"Attempting to use uninitialized values. {text}")
    return InvalidArgumentError(text)


def _remedy(differing: list[str]) -> str:
    if not differing:
        return (
            "    variables = model.init(0, *args, variables=variables)    # makes what is missing, keeps what is there"
        )
    return (
        f"    kept = variables.select(lambda key, spec: key not in {differing!r})\n"
        "    variables = model.init(0, *args, variables=kept)    # makes the others anew"
    )

"""`jv.checkpoint.plan`: what a restore would do, before it reads any values."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxvars.checkpoint import plan_text
from jaxvars.checkpoint.formats.random_keys import stored_form
from jaxvars.checkpoint.mapping import AssignmentMap, wanted
from jaxvars.checkpoint.matching import PlanRow, make_rows, transform_text
from jaxvars.checkpoint.reader import CheckpointReader
from jaxvars.checkpoint.reader import open as open_checkpoint
from jaxvars.errors import DataLossError, InvalidArgumentError, InvalidTypeError, JaxvarsError, NotFoundError
from jaxvars.rules import parse_rules
from jaxvars.variables import Variables

if TYPE_CHECKING:
    from jaxvars.checkpoint.suggest import Suggestion

__all__ = ["RestorePlan", "as_variables", "make_plan", "plan"]


@dataclasses.dataclass(frozen=True)
class RestorePlan:
    """What `jv.checkpoint.restore` would do: one row per variable, and what is wrong.

    Prints as a table, shows as one in a notebook, and goes to JSON.

    Attributes:
      path: the checkpoint, as it was asked for.
      format: its format.
      rows: one `PlanRow` per variable of `into`, in the order of their names.
      unused: names in the file that no variable takes (no problem in itself).
      num_tensors: how many tensors the file holds.
      mapped: whether an assignment_map chose the variables.
      rules: the rules that were given; with ``suggest=True`` those that are proposed, for `restore` or a rules file.
      suggestion: with ``suggest=True`` what is proposed, which prints as lines to paste, unsure ones marked.
      strict: whether a variable whose tensor is not in the file is a problem, as in `restore`.
    """

    path: str
    format: str
    rows: tuple[PlanRow, ...]
    unused: tuple[str, ...]
    num_tensors: int
    mapped: bool = False
    rules: tuple[Any, ...] = ()
    suggestion: Suggestion | None = None
    strict: bool = True

    def _names(self, *kinds: str) -> tuple[str, ...]:
        return tuple(row.target for row in self.rows if row.kind in kinds)

    @property
    def restored(self) -> tuple[str, ...]:
        """Variables that get values from the file."""
        return tuple(row.target for row in self.rows if row.is_restored)

    @property
    def left(self) -> tuple[str, ...]:
        """Variables that the rules or the assignment_map leave as they are."""
        return self._names("left")

    @property
    def missing(self) -> tuple[str, ...]:
        """Variables whose tensor is not in the file."""
        return self._names("missing")

    @property
    def mismatched(self) -> tuple[str, ...]:
        """Variables whose tensor has another shape or dtype."""
        return self._names("shape", "dtype")

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Variables whose tensor is in the file but cannot be read."""
        return self._names("unreadable")

    @property
    def narrowed(self) -> tuple[str, ...]:
        """Variables whose 64-bit tensor becomes 32-bit, because JAX runs without x64."""
        return self._names("narrow")

    @property
    def nbytes(self) -> int:
        """Bytes of values to read."""
        return sum(row.nbytes for row in self.rows if row.is_restored)

    @property
    def ok(self) -> bool:
        """Whether a restore has nothing against it (as far as shows without reading values)."""
        return self.error() is None

    def is_problem(self, row: PlanRow) -> bool:
        """Return whether a restore refuses because of this row."""
        return row.is_problem and (self.strict or row.kind != "missing")

    def error(self) -> JaxvarsError | None:
        """Return the error that `restore` raises, with all problems in its text; None if there is none."""
        bad = list(filter(self.is_problem, self.rows))
        if not bad:
            return None
        kinds = {row.kind for row in bad}
        text = plan_text.problems(self, bad)
        if kinds & {"shape", "dtype"} or (self.mapped and "missing" in kinds and "unreadable" not in kinds):
            return InvalidArgumentError(text)
        return NotFoundError(text) if "missing" in kinds else DataLossError(text)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain dicts, lists, strings and numbers."""
        return {
            "path": self.path,
            "format": self.format,
            "tensors": self.num_tensors,
            "rows": [row.to_dict() for row in self.rows],
            "missing": list(self.missing),
            "mismatched": list(self.mismatched),
            "unreadable": list(self.unreadable),
            "narrowed": list(self.narrowed),
            "unused": list(self.unused),
            "rules": [_plain_rule(rule) for rule in self.rules],
            "bytes": self.nbytes,
            "ok": self.ok,
        }

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def __iter__(self) -> Iterator[PlanRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return plan_text.table(self)

    def __repr__(self) -> str:
        return f"<RestorePlan {self.path!r}: {plan_text.totals(self)}>"

    def _repr_html_(self) -> str:
        return plan_text.html(self)

    def __rich__(self) -> Any:
        return plan_text.rich(self)


def plan(
    path: str | os.PathLike[str],
    into: Variables,
    rules: Any = None,
    assignment_map: AssignmentMap | None = None,
    cast: bool = False,
    suggest: bool = False,
    strict: bool = True,
) -> RestorePlan:
    r"""Say what `jv.checkpoint.restore` with the same arguments would do; reads names and shapes, no values.

    Args:
      path: the checkpoint, as for `jv.checkpoint.open`.
      into: the variables to restore into, or ``model.specs(...)``.
      rules: (pattern of the variable's name, name in the file) pairs; None as the name leaves it as it is.
      assignment_map: TF1's map {name or scope in the file: variable or scope}.
      cast: as for `restore`.
      suggest: whether to propose rules for the whole model, by likeness of names among tensors of the same shape. The
        plan is then that of these rules, and `plan.suggestion` prints them. They are guesses: look at them, and pass
        them on yourself, ``restore(path, into, rules=plan.rules)``. Names that `rules` match are not guessed, and
        the others are judged by them. What nothing in the file fits is left as it is: `plan.suggestion.left`.
      strict: as for `restore`: with False a name that is not in the file is no problem.

    Returns:
      A `RestorePlan`: print it. Problems are in it, all of them; nothing is raised for them.

    Raises:
      NotFoundError: there is no checkpoint, or a rule matches no variable.
      InvalidArgumentError: the path is something else, or the assignment_map makes no sense.
      InvalidTypeError: path and into are swapped.

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> old = jv.Variables({"tower/weights": jax.numpy.ones((2, 3)), "logits/bias": jax.numpy.ones(3)})
      >>> path = jv.checkpoint.save(old, folder.name + "/model.ckpt")
      >>> new = jv.Variables({"conv1/weights": jax.ShapeDtypeStruct((2, 3), "float32")})
      >>> plan = jv.checkpoint.plan(path, new, rules=[(r"conv1/(.*)", r"tower/\1")])
      >>> plan.ok, plan.restored, plan.unused
      (True, ('conv1/weights',), ('logits/bias',))
      >>> jv.checkpoint.plan(path, new, suggest=True).rules
      (('conv1/weights', 'tower/weights'),)
      >>> folder.cleanup()
    """
    into = as_variables(path, into, "plan")
    with open_checkpoint(path) as reader:
        text = os.fspath(path)
        if not suggest:
            return make_plan(reader, text, into, rules, assignment_map, cast, "plan", strict)
        if assignment_map is not None:
            raise InvalidArgumentError("jv.checkpoint.plan: suggest=True goes with rules=, not with assignment_map=.")
        return _suggested_plan(reader, text, into, rules, cast, strict)


def _suggested_plan(
    reader: CheckpointReader, path: str, into: Variables, rules: Any, cast: bool, strict: bool
) -> RestorePlan:
    """The plan of the rules that names and shapes suggest, after those that are given."""
    from jaxvars.checkpoint.suggest import suggest_rules

    given = () if rules is None else parse_rules(rules, op="jv.checkpoint.plan", several=True).rules
    matched = {} if rules is None else wanted(into, rules, None, "jv.checkpoint.plan", True, reader)
    taken = {reader.resolve(name) for want in matched.values() for name in want.sources if name in reader}
    known = {
        target: reader.resolve(want.sources[0])
        for target, want in matched.items()
        if len(want.sources) == 1 and want.sources[0] in reader
    }
    free = {
        name: stored_form(spec.shape, spec.dtype)[0]
        for name, spec in into.variable_specs.items()
        if name not in matched or name in known
    }
    offered = {
        name: info.shape
        for name, info in reader.tensors.items()
        if name in known.values() or not (name in taken or info.problem)
    }
    for alias, name in reader.aliases.items():
        if name in offered:  # TensorFlow 1's names are those that people gave
            offered[alias] = offered.pop(name)
            known = {target: alias if source == name else source for target, source in known.items()}
    suggestion = suggest_rules(free, offered, known)
    plan = make_plan(reader, path, into, [*given, *suggestion.rules] or None, None, cast, "plan", strict)
    return dataclasses.replace(plan, suggestion=suggestion)


def make_plan(
    reader: CheckpointReader,
    path: str,
    into: Variables,
    rules: Any,
    assignment_map: AssignmentMap | None,
    cast: bool,
    op: str,
    strict: bool = True,
) -> RestorePlan:
    """Return the plan for an open checkpoint. `path` is what the user called it."""
    wants = wanted(into, rules, assignment_map, f"jv.checkpoint.{op}", in_file=reader)
    rows = make_rows(reader, into, wants, cast)
    used = {source for row in rows for source in row.sources}
    unused = tuple(name for name in reader if name not in used)
    given = () if rules is None else parse_rules(rules, op=f"jv.checkpoint.{op}", several=True).rules
    shown = tuple(tuple(rule) if rule.transform is not None else tuple(rule)[:2] for rule in given)
    mapped = assignment_map is not None
    return RestorePlan(path, reader.format, tuple(rows), unused, len(reader), mapped, shown, strict=strict)


def _plain_rule(rule: tuple[Any, ...]) -> list[Any]:
    """A rule as JSON has it: as in a rules file."""
    pattern, names, *transform = rule
    shown = [transform_text(each) for each in transform]
    return [pattern, list(names) if isinstance(names, tuple) else names, *shown]


def as_variables(path: Any, into: Any, op: str) -> Variables:
    """Return `into` if it is a state; say so if the arguments are swapped or it is something else."""
    if isinstance(into, Variables):
        return into
    if isinstance(into, (str, os.PathLike)) and not isinstance(path, (str, os.PathLike)):
        raise InvalidTypeError(
            f"jv.checkpoint.{op}: path and into are swapped. Write: jv.checkpoint.{op}({os.fspath(into)!r}, into)"
        )
    raise InvalidTypeError(
        f"jv.checkpoint.{op}: into is Variables, such as model.specs(...) or the result of model.init(...), "
        f"not {type(into).__name__}."
    )

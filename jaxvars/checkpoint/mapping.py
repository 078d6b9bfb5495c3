"""Which tensor of the file each variable wants: by rules, or by TF1's assignment_map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from jaxvars.checkpoint.slices import are_slices, whole_of
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, nearest_names
from jaxvars.rules import Match, parse_rules
from jaxvars.state import key_of
from jaxvars.variables import Variables

__all__ = ["AssignmentMap", "Want", "wanted"]

AssignmentMap: TypeAlias = "Mapping[str, Any] | Sequence[tuple[str, Any]]"

_DIRECTION = "In restore and plan a pattern matches the name in `into`; the replacement is the name in the file."


class Want(NamedTuple):
    """What one variable is to get.

    Attributes:
      sources: the names in the file, none to leave the variable as it is.
      transform: applied to the values on the way (to a list of them, where there are several sources), or None.
    """

    sources: tuple[str, ...]
    transform: Callable[[Any], Any] | None = None


def wanted(
    into: Variables,
    rules: Any,
    assignment_map: AssignmentMap | None,
    op: str,
    only_matched: bool = False,
    in_file: Iterable[str] = (),
) -> dict[str, Want]:
    """Return for each variable what it is to get.

    Args:
      into: the variables.
      rules: rules over the variables' names, or None.
      assignment_map: TF1's map {name in the file: variable}, or None. Only mapped variables are touched.
      op: the user's function, for errors.
      only_matched: whether to leave out the names that no rule matches, instead of looking them up as they are.
      in_file: the names in the file, for errors.

    Raises:
      InvalidArgumentError: both are given, or the map is not one that TF1 would take.
      NotFoundError: a rule matches no variable.
    """
    names = list(into)
    if assignment_map is not None:
        if rules is not None:
            raise InvalidArgumentError(f"{op}: give rules= or assignment_map=, not both.")
        mapped = _from_assignment_map(names, assignment_map, op)
        return {name: Want((mapped[name],) if name in mapped else ()) for name in names}
    if rules is None:
        return {name: Want((name,)) for name in names}
    matches = parse_rules(rules, op=op, direction=_DIRECTION, several=True).resolve(names, in_file=in_file)
    return {name: _want(name, match, into) for name, match in matches.items() if match or not only_matched}


def _want(name: str, match: Match | None, into: Variables) -> Want:
    if match is None:
        return Want((name,))
    sources = match.replacement
    if sources is None:
        return Want(())
    return Want(
        sources if isinstance(sources, tuple) else (sources,),
        match.transform_for(name, into._leaf(into._layout.index[name])),
    )


def _from_assignment_map(names: list[str], assignment_map: AssignmentMap, op: str) -> dict[str, str]:
    """Return {variable: name in the file}; all problems of the map in one error."""
    known = set(names)
    sources: dict[str, str] = {}
    problems: list[str] = []
    for in_file, target in _pairs(assignment_map, op):
        try:
            pairs = list(_expand(in_file, target, known, op))
        except InvalidArgumentError as error:
            problems.append(str(error))
            continue
        for name, source in pairs:
            if sources.get(name, source) != source:
                problems.append(f"Variable {name} is mapped twice: to {sources[name]} and to {source}.")
            sources[name] = source
    if problems:
        raise InvalidArgumentError("\n".join(problems))
    return sources


def _pairs(assignment_map: AssignmentMap, op: str) -> Iterator[tuple[str, Any]]:
    """The map's pairs in sorted order of the names in the file, as TF1 goes through them."""
    items = assignment_map.items() if isinstance(assignment_map, Mapping) else assignment_map
    checked: list[tuple[str, Any]] = []
    for item in cast("Iterable[Any]", items):
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[0], str):
            raise InvalidTypeError(
                f"{op}: assignment_map is {{name in the file: variable}} or a list of such pairs, not {item!r:.80}."
            )
        checked.append((item[0], item[1]))
    yield from sorted(checked, key=lambda pair: pair[0])


def _expand(in_file: str, target: Any, known: set[str], op: str) -> Iterator[tuple[str, str]]:
    """Yield (variable, name in the file) for one pair of the map."""
    name = whole_of(target) if are_slices(target) else key_of(target)
    if name is None:
        raise InvalidTypeError(
            f"{op}: assignment_map maps {in_file!r} to a {type(target).__name__}; it takes a name or a variable."
        )
    variable = name.removesuffix(":0")
    if variable in known:
        if in_file.endswith("/"):
            raise InvalidArgumentError(
                f"Assignment map with scope {in_file!r} maps to the variable {variable!r}. "
                "Should be 'scope/': 'other_scope/' or 'name': 'other_name'."
            )
        yield variable, in_file.removesuffix(":0")
        return
    if not in_file.endswith("/"):
        raise InvalidArgumentError(_not_a_scope(in_file, name, known))
    if not name.endswith("/"):
        raise InvalidArgumentError(
            f"Assignment map maps the scope {in_file!r} to {name!r}, which is no variable and no scope. "
            f"Should be 'scope/': 'other_scope/'. Write: {{{in_file!r}: {name + '/'!r}}}"
        )
    inside = sorted(key for key in known if name == "/" or key.startswith(name))
    if not inside:
        near = nearest_names(name, {key[: i + 1] for key in known for i, char in enumerate(key) if char == "/"})
        hint = f" Nearest scopes: {', '.join(near)}." if near else ""
        raise InvalidArgumentError(f"Assignment map: no variable is in the scope {name!r}.{hint}")
    for key in inside:
        rest = key if name == "/" else key[len(name) :]
        yield key, rest if in_file == "/" else in_file + rest


def _not_a_scope(in_file: str, name: str, known: set[str]) -> str:
    scope = name.rsplit("/", 1)[0] if "/" in name else ""
    near = nearest_names(name, known)
    hint = f" There is no variable {name!r}" + (f"; nearest: {', '.join(near)}." if near else ".")
    return (
        f"Assignment map with scope only name {scope} should map to scope only {in_file}. "
        f"Should be 'scope/': 'other_scope/'.{hint}"
    )

"""TF1's explicit initialization on states: fill the holes, report them, ask for one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jaxvars.errors import FailedPreconditionError, InvalidTypeError, JaxvarsError, NotFoundError
from jaxvars.filling import fill
from jaxvars.refusals import at_site
from jaxvars.spec import GLOBAL_VARIABLES, LOCAL_VARIABLES, is_hole
from jaxvars.store import get_collection
from jaxvars.variable import Variable
from jaxvars.variables import Variables

__all__ = [
    "assert_variables_initialized",
    "global_variables_initializer",
    "is_variable_initialized",
    "local_variables_initializer",
    "report_uninitialized_variables",
    "variables_initializer",
]


def variables_initializer(variables: Variables, rng: Any, names: Iterable[Any] | None = None) -> Variables:
    """Return the state with its uninitialized variables filled (TF1: ``tf.variables_initializer``).

    What has a value keeps it, so a restored state can be completed. A value depends on `rng` and the
    variable's name only, not on which others are filled.

    Args:
      variables: the state.
      rng: a random key or an int seed; None where no initializer is random.
      names: names, handles, specs or a view of the variables to fill; None for all.

    Raises:
      NotFoundError: some names do not exist; all are listed.
      FailedPreconditionError: a hole without initializer, such as a plain `jax.ShapeDtypeStruct`.

    Example:
      >>> import jaxvars as jv
      >>> from jaxvars.spec import Hole
      >>> hole = Hole((2,), "float32", initializer=jv.ones_initializer())
      >>> jv.variables_initializer(jv.Variables({"w": hole, "step": 3}), 0)
      Variables(2 variables, 3 elements: step int32[], w float32[2])
    """
    wanted = variables._layout.keys if names is None else _resolved(variables, names)
    return _filled(variables, rng, wanted)


def global_variables_initializer(variables: Variables, rng: Any) -> Variables:
    """Return the state with the holes of collection GLOBAL_VARIABLES filled; see `variables_initializer`.

    Example:
      >>> import jaxvars as jv
      >>> jv.global_variables_initializer(jv.Variables({"w": 1.0}), 0)["w"]
      Array(1., dtype=float32)
    """
    return _filled(variables, rng, variables.collection(GLOBAL_VARIABLES))


def local_variables_initializer(variables: Variables, rng: Any) -> Variables:
    """Return the state with the holes of collection LOCAL_VARIABLES filled; see `variables_initializer`.

    Example:
      >>> import jaxvars as jv
      >>> jv.local_variables_initializer(jv.Variables({"w": 1.0}), 0)["w"]
      Array(1., dtype=float32)
    """
    return _filled(variables, rng, variables.collection(LOCAL_VARIABLES))


def report_uninitialized_variables(variables: Any = None, names: Iterable[Any] | None = None) -> list[str]:
    """Return the names of variables without a value (TF1: ``tf.report_uninitialized_variables``).

    Args:
      variables: the state. Inside a model TF1's only argument: a list of handles, or None for GLOBAL_VARIABLES and
        LOCAL_VARIABLES.
      names: names, handles or specs to look at; None for GLOBAL_VARIABLES and then LOCAL_VARIABLES.

    Returns:
      The names, each once, in the order of creation (or of `names`).

    Raises:
      NotFoundError: a name that does not exist.
      FailedPreconditionError: outside of a model, without a state.

    Example:
      >>> import jax, jaxvars as jv
      >>> variables = jv.Variables({"w": jax.ShapeDtypeStruct((2,), "float32"), "b": 0})
      >>> jv.report_uninitialized_variables(variables)
      ['w']
    """
    if not isinstance(variables, Variables):
        return list(dict.fromkeys(handle.key for handle in _handles(variables) if not _has_value(handle)))
    if names is not None:
        looked_at = _resolved(variables, names)
    else:
        members = [variables.collection(key) for key in (GLOBAL_VARIABLES, LOCAL_VARIABLES)]
        looked_at = [key for view in members for key in view._layout.creation_order]
    holes = set(variables.uninitialized)
    return [key for key in dict.fromkeys(looked_at) if key in holes]


def assert_variables_initialized(variables: Any = None, names: Iterable[Any] | None = None) -> None:
    """Raise unless all variables have values (TF1: ``tf.assert_variables_initialized``).

    Args:
      variables: as in `report_uninitialized_variables`.
      names: the same.

    Raises:
      FailedPreconditionError: some have none; all are listed, with the line that initializes them.
      NotFoundError: there are no such variables.

    Example:
      >>> import jaxvars as jv
      >>> jv.assert_variables_initialized(jv.Variables({"w": 1.0}))
    """
    missing = report_uninitialized_variables(variables, names)
    if missing:
        raise FailedPreconditionError(
            f"Attempting to use uninitialized value {', '.join(missing)}{at_site()}. Write:\n"
            f"    variables = jv.variables_initializer(variables, 0, {missing!r})"
        )


def is_variable_initialized(variables: Any, ref: Any = None) -> bool:
    """Return whether a variable has a value (TF1: ``tf.is_variable_initialized``).

    Args:
      variables: the state. Inside a model the handle, as TF1's only argument.
      ref: name, handle or spec of the variable.

    Raises:
      NotFoundError: there is no such variable.

    Example:
      >>> import jaxvars as jv
      >>> jv.is_variable_initialized(jv.Variables({"w": 1.0}), "w")
      True
    """
    if isinstance(variables, Variables):
        return not is_hole(variables._leaf(variables._position(ref)))
    return _has_value(_handles([variables])[0])


def _handles(handles: Any) -> list[Variable]:
    """The handles of a list, by default all global and local ones."""
    if handles is None:
        handles = [*get_collection(GLOBAL_VARIABLES), *get_collection(LOCAL_VARIABLES)]
    wrong = [item for item in handles if not isinstance(item, Variable)]
    if wrong:
        raise InvalidTypeError(
            f"expected jv.Variables, or inside a model handles, got {type(wrong[0]).__name__}{at_site()}. "
            "Write: jv.report_uninitialized_variables(variables)"
        )
    return list(handles)


def _has_value(handle: Variable) -> bool:
    slot = getattr(handle._slot, "whole", handle._slot)
    slot.frame.check_open(slot, "is_variable_initialized")
    return slot.ref is not None or not is_hole(slot.value)


def _resolved(variables: Variables, names: Any) -> list[str]:
    """The keys of all refs, or one error that lists the refs that do not exist."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidTypeError(f"names is a list of variables, got {names!r:.60}. Write: [{names!r:.60}]")
    keys: list[str] = []
    problems: list[JaxvarsError] = []
    for ref in names:
        try:
            keys.append(variables._resolve(ref))
        except JaxvarsError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise NotFoundError("\n".join(["several variables do not exist:", *(f"  {p}" for p in problems)]))
    return keys


def _filled(variables: Variables, rng: Any, keys: Iterable[str]) -> Variables:
    index = variables._layout.index
    holes = {key: leaf for key in keys if is_hole(leaf := variables._leaf(index[key]))}
    if not holes:
        return variables
    if variables._layout.placed:
        from jaxvars.placement.homes import fill_homes

        fill_homes(holes, variables)
    leaves = list(variables._leaves)
    for key, value in fill(holes, rng).items():
        leaves[index[key]] = value
    return variables._with_leaves(leaves)

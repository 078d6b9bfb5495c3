"""What wrapping a jaxvars model as a module of another library has in common, whichever the library is."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from jaxvars.errors import InvalidTypeError
from jaxvars.interop._calls import MAX_CALLS, AbstractCall, looked_up
from jaxvars.interop.collections import PARAMS, STATE
from jaxvars.transform import Model, transform
from jaxvars.variables import Variables

__all__ = ["as_model", "given", "grouped", "specs_of"]


def as_model(model: Any, what: str) -> Model:
    """Return a model, made of its function where it is one.

    Raises:
      InvalidTypeError: neither.
    """
    if isinstance(model, Model):
        return model
    if callable(model):
        return transform(model)
    raise InvalidTypeError(f"jv.interop.{what} takes a jv.Model or a function, got {type(model).__name__}.")


def grouped(variables: Variables) -> dict[str, dict[str, Any]]:
    """Return values by name, the trainable ones under ``params``, the others under ``state``; no empty group."""
    groups = {PARAMS: dict(variables.trainable), STATE: dict(variables.non_trainable)}
    return {group: values for group, values in groups.items() if values}


def specs_of(model: Model, args: Any, kwargs: Any) -> Variables:
    """Return ``model.specs`` of calls like this one, which is looked up where it was asked for before."""
    return looked_up(_specs_of, model, AbstractCall.of(args, kwargs))


@functools.lru_cache(maxsize=MAX_CALLS)
def _specs_of(model: Model, call: AbstractCall) -> Variables:
    args, kwargs = call.arguments
    return model.specs(*args, **kwargs)


def given(specs: Variables, groups: Mapping[str, Mapping[str, Any]]) -> Variables:
    """Return a model's variables with the values of groups as `grouped` makes them, and their flags.

    A value that is not there leaves a hole, which ``model.apply`` refuses with all others.
    """
    found = {name: (value, group == PARAMS) for group, values in groups.items() for name, value in values.items()}
    pairs = [(spec, found[name][0] if name in found else specs[name]) for name, spec in specs.variable_specs.items()]
    variables = Variables.from_specs(pairs)
    flags = {
        re.escape(name): found[name][1]
        for name, spec in specs.variable_specs.items()
        if name in found and found[name][1] != spec.trainable
    }
    return variables.with_trainable(flags) if flags else variables

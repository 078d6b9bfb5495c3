"""Whose slot a variable is: ``"w/Adam"`` is that of ``"w"``, and so is ``"w/ExponentialMovingAverage"``."""

from __future__ import annotations

from collections.abc import Mapping

from jaxvars.spec import VariableSpec

__all__ = ["owners"]


def owners(specs: Mapping[str, VariableSpec]) -> dict[str, str]:
    """Return slot -> its variable, by their names: a slot is not trainable and has its variable's shape.

    Optimizers and moving averages put their label behind the name of the variable, and the name scope that they were
    made in before it.

    Args:
      specs: the specs of a state.

    Example:
      >>> from jaxvars.spec import VariableSpec
      >>> specs = [VariableSpec("a/w", (2,), "float32"), VariableSpec("train/a/w/Adam_1", (2,), "float32", False)]
      >>> owners({spec.key: spec for spec in specs})
      {'train/a/w/Adam_1': 'a/w'}
    """
    found: dict[str, str] = {}
    for key, spec in specs.items():
        if not spec.trainable and (owner := _owner(key, spec, specs)):
            found[key] = owner
    return {key: found.get(owner, owner) for key, owner in found.items()}  # the shadow of a slot goes with them


def _owner(key: str, spec: VariableSpec, specs: Mapping[str, VariableSpec]) -> str | None:
    parts = key.split("/")
    for begin in range(len(parts) - 1):
        for end in range(len(parts) - 1, begin, -1):
            candidate = specs.get("/".join(parts[begin:end]))
            if candidate is not None and candidate.shape == spec.shape:
                return candidate.key
    return None

"""`TF1Optimizer`: what the optimizers of TF1 share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxvars.errors import InvalidArgumentError
from jaxvars.gradients import subset
from jaxvars.initializers import constant_initializer
from jaxvars.spec import is_hole
from jaxvars.train.optimizer import Optimizer
from jaxvars.train.slots import StateLeaf, TF1Names
from jaxvars.train.transformations import Rule, transformation
from jaxvars.variables import Variables

__all__ = ["TF1Optimizer"]


class TF1Optimizer(Optimizer):
    """What TF1's optimizers share: one update rule per variable and TF1's names of slots."""

    def __init__(
        self,
        state_type: type[Any],
        rule: Rule,
        learning_rate: Any,
        slots: Mapping[str, float],
        *,
        name: str,
        var_list: Any,
        number: int | None,
        scope: str,
        powers: Mapping[str, Any] | None = None,
        adjust: Callable[..., Any] | None = None,
        bases: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            transformation(state_type, rule, learning_rate, slots, powers, adjust),
            name,
            var_list,
            number=number,
            scope=scope,
            elementwise=True,
        )
        self._names = TF1Names(name, number, dict(bases or dict.fromkeys(slots, name)), self._prefix)
        self._wants_step = callable(learning_rate)
        self._first_values = {**slots, **(powers or {})}

    def _initial_values(self, params: Variables, leaves: Sequence[StateLeaf]) -> list[Any]:
        """As for any optimizer, but a hole knows how to fill itself: slots start from constants."""
        values = super()._initial_values(params, leaves)
        return [
            value.update(initializer=constant_initializer(self._first_values[leaf.field])) if is_hole(value) else value
            for leaf, value in zip(leaves, values, strict=True)
        ]

    def get_slot(self, variables: Variables, ref: Any, name: str) -> Any:
        """Return the slot of a variable (TF1: `optimizer.get_slot(var, name)`).

        Args:
          variables: variables after `init`.
          ref: the variable's name or handle.
          name: the slot's name in TF1, such as "m" or "v" of Adam.

        Raises:
          NotFoundError: no such variable.
          InvalidArgumentError: no slot of that name.
          FailedPreconditionError: slots are missing.
        """
        params = subset(variables, (variables._resolve(ref),))
        state = self._read_state(variables, params)[0]
        fields = self.get_slot_names()
        if name not in fields:
            raise InvalidArgumentError(f"{self.name} has no slot {name!r}, only {', '.join(fields) or 'none'}")
        return getattr(state, name)[params._layout.keys[0]]

    def get_slot_names(self) -> list[str]:
        """Return TF1's names of the slots that each variable has."""
        return list(self._names._bases) if isinstance(self._names, TF1Names) else []

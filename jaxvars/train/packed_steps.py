"""Steps of an `Optimizer` over packed variables: each buffer is changed as a whole, like one variable.

A thousand small variables and their slots are then a few kernels instead of some thousand. That is right where the
change of an element depends on that element alone; other optimizers see the variables one by one, and the result is
packed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxvars.gradients import subset
from jaxvars.placement.packed import PackedVariables
from jaxvars.spec import VariableSpec, is_hole
from jaxvars.train import updates
from jaxvars.train.global_steps import find_global_step
from jaxvars.train.slots import StateLeaf, state_leaves
from jaxvars.variables import Variables

if TYPE_CHECKING:
    from jaxvars.train.optimizer import Optimizer

__all__ = ["apply_packed"]


def apply_packed(
    optimizer: Optimizer, grads: Any, variables: Any, global_step: Any, extra: Mapping[str, Any]
) -> Variables:
    """The work of `Optimizer.apply_gradients` over packed variables."""
    result = None
    if optimizer._elementwise and isinstance(grads, PackedVariables):
        result = _on_buffers(optimizer, grads, variables, global_step, extra)
    if result is None:
        plain = grads.unpacked() if isinstance(grads, Variables) else grads
        after = optimizer.apply_gradients(plain, variables.unpacked(), global_step, **extra)
        result = variables._with_leaves(after._leaves)
    return result


def _on_buffers(
    optimizer: Optimizer, grads: PackedVariables, variables: PackedVariables, global_step: Any, extra: Mapping[str, Any]
) -> Variables | None:
    """One step, or None where gradients or slots do not lie as their variables do."""
    if any(key not in variables for key in grads):
        return None  # the ordinary way has the words for it
    if optimizer._var_list is not None:
        updates.check_within(grads, optimizer._managed(variables), optimizer.name)
    counter = None if global_step is None else updates.counter_key(global_step, variables)
    params = subset(variables, tuple(grads))
    if not isinstance(params, PackedVariables) or params._packing != grads._packing:
        return None
    leaves = state_leaves(optimizer._template(params))
    places = _places(variables, leaves, optimizer._found(variables, leaves))
    whole = _as_variables(params)
    template = optimizer._template(whole)
    parts = state_leaves(template)
    if places is None or any(is_hole(places.value(leaf)) for leaf in parts):
        return None
    values = [updates.live(places.value(leaf), leaf.struct) for leaf in parts]
    state = jax.tree.unflatten(jax.tree.structure(template), values)
    if optimizer._wants_step:
        extra = {"step": variables[counter or find_global_step(variables, optimizer.name)], **extra}
    gradients = whole._with_leaves(_as_variables(grads)._leaves)
    changes, state = optimizer.transformation.update(gradients, state, whole, **extra)
    changed = dict(updates.updated(whole, changes))
    after = variables._with_children({places.child(key): value for key, value in changed.items()})
    for leaf, value in zip(parts, jax.tree.leaves(state), strict=True):
        after = places.put(after, leaf, updates.stored(value))
    return after if counter is None else after._set(counter, variables[counter] + 1)


class _Places(NamedTuple):
    """Where an optimizer's state lies in a packed state: whole buffers of slots, and variables that all share.

    Attributes:
      variables: the packed state.
      buffers: field -> child of the variables -> child of their slots.
      shared: field -> name of the variable.
    """

    variables: PackedVariables
    buffers: dict[str, dict[int, int]]
    shared: dict[str, str]

    def child(self, key: str) -> int:
        """The child that holds a variable."""
        number, place = self.variables._packing.where[self.variables._layout.index[key]]
        return place if number is None else number

    def value(self, leaf: StateLeaf) -> Any:
        """The value of a leaf of the state, whose primary stands for all variables of its buffer."""
        if leaf.primary is None:
            return self.variables[self.shared[leaf.field]]
        return self.variables._children[self.buffers[leaf.field][self.child(leaf.primary)]]

    def put(self, after: PackedVariables, leaf: StateLeaf, value: jax.Array) -> PackedVariables:
        """Return `after` with this leaf changed, in the dtype it had."""
        value = value.astype(self.value(leaf).dtype)
        if leaf.primary is None:
            return after._set(self.shared[leaf.field], value)
        return after._with_children({self.buffers[leaf.field][self.child(leaf.primary)]: value})


def _places(variables: PackedVariables, leaves: Sequence[StateLeaf], slots: Sequence[str]) -> _Places | None:
    """Find the buffers of the slots; None where some lie otherwise than their variables."""
    shared: dict[str, str] = {}
    partners: dict[str, dict[str, str]] = {}
    for leaf, slot in zip(leaves, slots, strict=True):
        if leaf.primary is None:
            shared[leaf.field] = slot
        else:
            partners.setdefault(leaf.field, {})[leaf.primary] = slot
    buffers: dict[str, dict[int, int]] = {}
    for field, names in partners.items():
        pairs = variables._paired(names)
        if pairs is None:
            return None
        buffers[field] = pairs
    return _Places(variables, buffers, shared)


def _as_variables(params: PackedVariables) -> Variables:
    """Each buffer as one variable, under the name of the first variable in it."""
    packing, layout = params._packing, params._layout
    pairs: list[tuple[VariableSpec, Any]] = []
    for number, child in enumerate(params._children):
        position = packing.members(number)[0]
        pairs.append((layout.spec(position, child.shape, child.dtype), child))
    return Variables.from_specs(pairs)

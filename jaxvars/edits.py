"""Edits of a state: replacing values, merging states, copying, renaming and casting variables.

Each returns a new state or raises with nothing changed, lists all problems at once, and copies where two
names would otherwise share a buffer.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxvars.buffers import buffer_id, copied, is_concrete, unshared
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, JaxvarsError, NotFoundError
from jaxvars.scopes.device_scope import device_text
from jaxvars.spec import TRAINABLE_VARIABLES, Hole, VariableSpec, is_hole, leaf_dtype, leaf_shape
from jaxvars.state import State, checked_key
from jaxvars.values import prepare
from jaxvars.views import in_scope

__all__ = ["cast", "copy_scope", "in_collections", "merge", "moved", "rename", "replace", "with_flags"]

S = TypeVar("S", bound=State)

_HINTS = 10  # problems for which the nearest names are searched: each search goes through all names


def replace(state: S, values: Mapping[Any, Any]) -> S:
    """Return `state` with these values in place of the old ones, after the checks of `jv.assign`."""
    if not isinstance(typing.cast(object, values), Mapping):
        raise InvalidTypeError(
            f"replace takes a mapping from names to values, got {type(values).__name__}. "
            'Write: variables.replace({"a/b": value})'
        )
    ready: dict[int, Any] = {}
    problems: list[JaxvarsError] = []
    for ref, value in values.items():
        try:
            position = state._position(ref) if len(problems) < _HINTS else _known_position(state, ref)
            if position in ready:
                raise InvalidArgumentError(f'"{state._layout.keys[position]}" is given twice.')
            ready[position] = _replacement(state, position, value)
        except JaxvarsError as error:
            problems.append(error)
    _raise_all("replace", problems)
    leaves = list(state._leaves)
    kept = {buffer_id(leaf) for i, leaf in enumerate(leaves) if i not in ready}
    for position, value in ready.items():
        number = buffer_id(value)
        leaves[position] = copied(value) if number is not None and number in kept else value
        kept.add(number)
    return state._with_leaves(leaves)


def _known_position(state: State, ref: Any) -> int:
    """The position of `ref`, or an error that does not search for names like it."""
    position = state._find(ref)
    if position is None:
        raise NotFoundError(f'variable "{checked_key(ref)}" does not exist.')
    return position


def _replacement(state: State, position: int, value: Any) -> Any:
    """`value` checked against the variable and on the device; a hole in its place makes it uninitialized."""
    layout, current = state._layout, state._leaf(position)
    key, site = layout.keys[position], layout.defined_at[position]
    shape, dtype = leaf_shape(current), leaf_dtype(current)
    if is_hole(value):
        if value.shape != shape or value.dtype != dtype:
            raise InvalidArgumentError(
                f'replace of "{key}": the variable is {dtype} {shape}, the hole {value.dtype} {value.shape}.'
            )
        return value
    array = prepare("replace", key, shape, dtype, value, site)
    if isinstance(array, jax.Array):
        return array
    placed = is_hole(current) or (is_concrete(current) and current.committed)
    return jax.device_put(array, current.sharding if placed else None, may_alias=False)


def _raise_all(op: str, problems: list[JaxvarsError]) -> None:
    """Raise one error that lists all problems; its class is that of the gravest: name, shape, then dtype."""
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    gravity = (NotFoundError, InvalidArgumentError, InvalidTypeError)
    kind = next((kind for kind in gravity if any(isinstance(p, kind) for p in problems)), type(problems[0]))
    lines = "\n".join(f"  {problem}" for problem in problems)
    raise kind(f"{op}: {len(problems)} problems, nothing was changed:\n{lines}")


def merge(left: S, right: State, *, keep_specs: bool = False) -> S:
    """Return the union: the right value wins, but a hole never wins over a value.

    A variable comes with the description (trainable, collections) of the side its value is from;
    with `keep_specs`, which is for a plain dict on the right, with that of the left where it has the name.
    """
    layout, other = left._layout, right._layout
    takes = [
        not (is_hole(leaf) and key in layout.index and not is_hole(left._leaf(layout.index[key])))
        for key, leaf in zip(other.keys, right._leaves, strict=True)
    ]
    # Layouts are compared by what matters only, but the notes of the merged one are those of these two.
    plan = ("merge", id(other), tuple(takes), keep_specs)
    _, merged, sources = layout.cached(plan, lambda: _merge_plan(left, right, takes, keep_specs))
    sides = (left._leaves, right._leaves)
    return left._renewed(merged, unshared(sides[side][i] for side, i in sources))


def _merge_plan(left: State, right: State, takes: list[bool], keep_specs: bool) -> tuple[Any, Any, Any]:
    """(the right layout, kept so that its id stays its own; the merged layout; side and position per key)."""
    specs, others = left.variable_specs, right.variable_specs
    sources = {key: (0, i) for i, key in enumerate(left._layout.keys)}
    chosen = {key: specs[key] for key in left._layout.creation_order}
    for key in right._layout.creation_order:
        position = right._layout.index[key]
        if takes[position]:
            sources[key] = (1, position)
            if not (keep_specs and key in specs):
                chosen[key] = others[key]
    shell = left.from_specs((spec, None) for spec in chosen.values())
    return right._layout, shell._layout, tuple(sources[key] for key in shell._layout.keys)


def copy_scope(state: S, source: str, target: str, trainable: bool | None) -> S:
    """Return `state` with a copy of everything in scope `source` under `target`."""
    start, goal = source.strip("/"), checked_key(target.strip("/"))
    if not start or f"{goal}/".startswith(f"{start}/") or f"{start}/".startswith(f"{goal}/"):
        raise InvalidArgumentError(f'copy_scope("{source}", "{target}"): one scope lies in the other.')
    specs = state.variable_specs
    pairs = {key: (specs[key], state[key]) for key in state._layout.creation_order}
    below = {state._layout.keys[i] for i in in_scope(state, start)}
    problems: list[JaxvarsError] = []
    for key in [key for key in state._layout.creation_order if key in below]:
        spec, value = pairs[key]
        name = goal + key[len(start) :]
        present = specs.get(name)
        if present is None:
            pairs[name] = (_flagged(dataclasses.replace(spec, key=name), trainable), copied(value))
        elif present.shape != spec.shape or present.dtype != spec.dtype:
            problems.append(
                InvalidArgumentError(
                    f'"{name}" is {present.dtype} {present.shape}, "{key}" is {spec.dtype} {spec.shape}.'
                )
            )
        else:
            pairs[name] = (_flagged(present, trainable), copied(value))
    _raise_all(f'copy_scope("{source}", "{target}")', problems)
    return state.from_specs(pairs.values())


def rename(state: S, rules: Any, *, allow_unmatched: bool) -> S:
    """Return `state` under the names that `rules` give, all changed at once."""
    from jaxvars.rules import new_name, parse_rules, rename_map  # here: `import jaxvars` does without

    direction = "In rename the pattern matches the present name, the replacement is the new one."
    parsed = parse_rules(rules, op="rename", direction=direction)
    layout, specs = state._layout, state.variable_specs
    matches = rename_map(layout.keys, parsed, allow_unmatched=allow_unmatched)
    pairs: list[tuple[VariableSpec, Any]] = []
    for key in layout.creation_order:
        match, leaf = matches[key], state._leaf(layout.index[key])
        if match is not None and match.rule.transform is not None:
            leaf = _transformed(key, leaf, match.transform_for(key, leaf))
        pairs.append((dataclasses.replace(specs[key], key=new_name(key, match)), leaf))
    renamed = state.from_specs(pairs)
    return renamed._with_leaves(unshared(renamed._leaves))


def _transformed(key: str, leaf: Any, transform: Any) -> Any:
    """The transform of one value; of a hole, the shape and dtype that the transform would give."""
    try:
        if is_hole(leaf):
            result = jax.eval_shape(transform, leaf)
            return Hole(result.shape, result.dtype)
        return jnp.asarray(transform(leaf))
    except JaxvarsError:
        raise
    except Exception as error:
        name = getattr(transform, "__name__", repr(transform))
        raise InvalidArgumentError(
            f'rename: {name} fails on "{key}", {leaf_dtype(leaf)} {leaf_shape(leaf)}: {error}'
        ) from error


def with_flags(state: S, flags: Mapping[int, bool]) -> S:
    """Return `state` with the trainable flag of these positions set, their collections following."""
    layout, specs = state._layout, state.variable_specs
    pairs: list[tuple[VariableSpec, Any]] = []
    for key in layout.creation_order:
        position = layout.index[key]
        pairs.append((_flagged(specs[key], flags.get(position)), state._leaf(position)))
    return state.from_specs(pairs)


def in_collections(state: S, members: Collection[tuple[str, str]]) -> S:
    """Return `state` with these (key, collection) memberships added; keys that it does not have are passed over."""
    if not members:
        return state
    specs, index = state.variable_specs, state._layout.index
    added = [(key, name) for key, name in members if key in index and name not in specs[key].collections]
    if not added:
        return state
    for key, name in added:
        spec = specs[key]
        specs[key] = dataclasses.replace(spec, collections=(*spec.collections, name))
    return state.from_specs([(specs[key], state._leaf(index[key])) for key in state._layout.creation_order])


def _flagged(spec: VariableSpec, trainable: bool | None) -> VariableSpec:
    if trainable is None or trainable == spec.trainable:
        return spec
    others = tuple(name for name in spec.collections if name != TRAINABLE_VARIABLES)
    collections = (*others, TRAINABLE_VARIABLES) if trainable else others
    return dataclasses.replace(spec, trainable=trainable, collections=collections)


def cast(state: S, dtypes: Mapping[int, Any]) -> S:
    """Return `state` with these positions in other dtypes."""
    leaves = list(state._leaves)
    for position, wanted in dtypes.items():
        dtype = jnp.dtype(wanted)
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise InvalidArgumentError(
                f'astype: "{state._layout.keys[position]}" in {dtype} needs 64-bit JAX. '
                'Write: jax.config.update("jax_enable_x64", True)'
            )
        if leaf_dtype(leaves[position]) != dtype:
            leaves[position] = _cast_leaf(state, position, dtype)
    return state._with_leaves(leaves)


def _cast_leaf(state: State, position: int, dtype: Any) -> Any:
    leaf = state._leaf(position)
    if is_hole(leaf):
        return leaf.update(dtype=dtype)
    return jnp.asarray(state[state._layout.keys[position]]).astype(dtype)


def moved(state: S, targets: Mapping[int, Any]) -> S:
    """Return `state` with these positions on other devices or shardings, holes included."""
    for target in targets.values():
        if not isinstance(target, jax.Device | jax.sharding.Sharding):
            raise InvalidTypeError(
                f"to takes a jax.Device or a Sharding, or rules that give one, got {target!r:.80}. "
                "Write: variables.to(jax.devices()[0])"
            )
    leaves = list(state._leaves)
    values = [i for i in targets if not is_hole(leaves[i])]
    arrays = [state[state._layout.keys[i]] for i in values]
    for i, array in zip(values, jax.device_put(arrays, [targets[i] for i in values]), strict=True):
        leaves[i] = array
    for i in targets.keys() - set(values):
        leaves[i] = leaves[i].update(sharding=_sharding(targets[i]))
    layout = state._layout.with_placement({i: _note(target) for i, target in targets.items()})
    return state._renewed(layout, leaves)


def _sharding(target: Any) -> Any:
    return jax.sharding.SingleDeviceSharding(target) if isinstance(target, jax.Device) else target


def _note(target: Any) -> Any:
    """What the spec of a variable says of its new home."""
    return device_text(target) if isinstance(target, jax.Device) else getattr(target, "spec", None)

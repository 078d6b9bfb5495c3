"""`apply`: a state, or the specs of one, spread over a mesh."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar, cast

import jax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.fitting import fit
from jaxvars.keeping import lies, spread
from jaxvars.placement.mesh_rule import MeshRule, parse_policy
from jaxvars.placement.owners import owners
from jaxvars.rules import Match
from jaxvars.spec import is_hole
from jaxvars.variables import Variables

__all__ = ["apply"]

V = TypeVar("V", bound=Variables)


class _Op(NamedTuple):
    """What a strategy is asked of a variable that exists: the parts of a `VariableOp` that are known of it."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    partitions: tuple[int, ...] | None
    device: str = ""
    type: str = "VariableV2"


def apply(variables: V, mesh: Any, rules_or_strategy: Any = None, *, allow_unmatched: bool = False) -> V:
    """Return a state spread over a mesh: values are moved, holes will be filled there.

    For a state that exists: after a restore, before training goes on with other devices, or to serve a model. A model
    that names its placement itself (`rule`) needs no call of this.

    Optimizer slots and moving averages follow their variable: ``"w/Adam"`` is spread as ``"w"`` is, unless a rule
    matches the slot and not the variable.

    Args:
      variables: values, or what ``model.specs(...)`` returns, or some of both.
      mesh: of devices, or for specs a `jax.sharding.AbstractMesh`.
      rules_or_strategy: as for `rule`; None for what each variable's spec notes already, to go to another mesh.
      allow_unmatched: accept rules that match no variable.

    Returns:
      The same state, of the same type. A value that lies right already is not copied; one that is spread over another
      mesh is spread anew. Under ``jit`` the shardings are constraints.

    Raises:
      NotFoundError: a rule matches no variable.
      InvalidArgumentError: rules name axes that the mesh lacks, or values and a mesh without devices.
      InvalidTypeError: not `Variables`, not a mesh, or not rules.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> mesh = jv.placement.mesh(data=-1)
      >>> variables = jv.Variables({"w": jnp.ones([64, 3]), "b": jnp.ones([3])})
      >>> spread = jv.placement.apply(variables, mesh, jv.placement.fsdp(min_size=4))
      >>> spread["w"].sharding.spec, spread["b"].sharding.spec
      (P('data',), P())
    """
    if not isinstance(cast(object, variables), Variables):
        raise InvalidTypeError(
            f"jv.placement.apply takes Variables, a state or the specs of one, got {type(variables).__name__}. Write: "
            "jv.placement.apply(variables, mesh, jv.placement.fsdp())"
        )
    noted = rules_or_strategy is None
    bound = parse_policy(mesh, PartitionSpec() if noted else rules_or_strategy, "jv.placement.apply")
    wanted = _noted(variables) if noted else _wanted(variables, bound, allow_unmatched)
    leaves = list(variables._leaves)
    if not isinstance(mesh, jax.sharding.Mesh):
        _refuse_values(variables, wanted)
    for position, spec in wanted.items():
        leaves[position] = _put(leaves[position], variables, position, mesh, spec)
    return variables._renewed(variables._layout.with_placement(wanted), leaves)


def _noted(variables: Variables) -> dict[int, PartitionSpec]:
    """Position -> the spec that is noted, of all variables that have no device of their own."""
    specs = variables.variable_specs
    owner_of = owners(specs)
    result: dict[int, PartitionSpec] = {}
    for position, (key, spec) in enumerate(specs.items()):
        note = spec.placement
        if note is None and key in owner_of:
            note = specs[owner_of[key]].placement
        if not isinstance(note, str):
            result[position] = PartitionSpec() if note is None else note
    return result


def _wanted(variables: Variables, bound: MeshRule, allow_unmatched: bool) -> dict[int, PartitionSpec]:
    """Position -> the spec that is wanted, of all variables that do not stay where they are."""
    specs = variables.variable_specs
    matches = bound.rules.resolve(specs, allow_unmatched=allow_unmatched)
    owner_of = owners(specs)
    result: dict[int, PartitionSpec] = {}
    for position, (key, spec) in enumerate(specs.items()):
        owner = owner_of.get(key)
        if owner is not None and not _is_of_its_own(matches[key], bound, owner):
            key, spec = owner, specs[owner]
        partitions = None
        if spec.partition is not None:
            axis, count = spec.partition
            partitions = tuple(count if i == axis else 1 for i in range(len(spec.shape)))
        said = bound.said(matches[key], _Op(key, spec.shape, spec.dtype, partitions))
        if said is not None:
            result[position] = said
    return result


def _is_of_its_own(match: Match | None, bound: MeshRule, owner: str) -> bool:
    """Whether a slot was matched by a rule that is not its variable's too, as a catch-all is."""
    return match is not None and bound.rules.match_of(match.number, owner) is None


def _put(leaf: Any, variables: Variables, position: int, mesh: Any, wanted: PartitionSpec) -> Any:
    """The value or hole with its sharding, as its shape can have it."""
    target = NamedSharding(mesh, fit(wanted, tuple(leaf.shape), mesh.shape)[0])
    if is_hole(leaf):
        return leaf.update(sharding=target)
    value = variables[variables._layout.keys[position]]
    if isinstance(value, Tracer):
        return spread(value, target)
    if lies(value, target):
        return leaf
    if value.is_fully_addressable and not target.is_fully_addressable:
        # Every process has the whole, of which it gives its own pieces.
        return jax.make_array_from_callback(value.shape, target, lambda index: value[index])
    return jax.device_put(value, target)


def _refuse_values(variables: Variables, wanted: dict[int, PartitionSpec]) -> None:
    values = [variables._layout.keys[i] for i in wanted if not is_hole(variables._leaf(i))]
    if values:
        raise InvalidArgumentError(
            f"jv.placement.apply: {', '.join(values[:5])}{', ...' if len(values) > 5 else ''} have values, which need "
            "devices, and an AbstractMesh has none. Write:\n"
            "    mesh = jv.placement.mesh(data=-1)    # a mesh of the devices of this machine"
        )

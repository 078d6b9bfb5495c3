"""`rule`: rules or a strategy, bound to a mesh: the device function of `jv.device`, and what `apply` asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.fitting import axes_of
from jaxvars.placement.meshes import axes_text, nearest_axes
from jaxvars.rules import Match, RuleSet, parse_values

__all__ = ["MeshRule", "Policy", "parse_policy", "rule"]

#: What one rule says: a spec, a strategy or function of an op, or None for "leave it where it is".
Policy: TypeAlias = "PartitionSpec | Callable[..., Any] | None"


@dataclasses.dataclass(frozen=True, eq=False)
class MeshRule:
    """A device function that spreads variables over a mesh; see `rule`.

    Attributes:
      mesh: the mesh, of devices or abstract.
      rules: the rules; a strategy alone is one rule for all names.
      given: the rules or the strategy as they were given.
    """

    mesh: Mesh | AbstractMesh
    rules: RuleSet
    given: Any

    #: A partitioned variable is one array: it is asked for as a whole and not slice by slice.
    takes_whole = True

    def __call__(self, op: Any) -> NamedSharding | str:
        """Return the sharding that is wanted for a variable; its device where a block inside names one."""
        spec = None if op.device else self.wanted(op)
        return op.device if spec is None else NamedSharding(self.mesh, spec)

    def wanted(self, op: Any) -> PartitionSpec | None:
        """Return the spec that is wanted for an op-like object, None where it stays where it is."""
        return self.said(self.rules.match(op.name), op)

    def said(self, match: Match | None, op: Any) -> PartitionSpec | None:
        """Return what a rule says of an op; without one it is whole everywhere."""
        if match is None:
            return PartitionSpec()
        policy = match.replacement
        if policy is None or isinstance(policy, PartitionSpec):
            return policy
        spec = policy(op, self.mesh.shape) if hasattr(policy, "axes") else policy(op)
        if spec is None or isinstance(spec, PartitionSpec):
            return spec
        raise InvalidTypeError(
            f"The placement function {_called(policy)} returned {spec!r:.60} for variable {op.name}: it must return a "
            "PartitionSpec, or None to leave it where it is."
        )

    def __repr__(self) -> str:
        return f"jv.placement.rule(mesh({axes_text(self.mesh)}), {self.given!r})"


def rule(mesh: Mesh | AbstractMesh, rules_or_strategy: Any) -> MeshRule:
    """Bind rules or a strategy to a mesh, for ``with jv.device(...)``.

    TF1's counterpart is a device function such as `jv.train.replica_device_setter` returns. The specs of the model
    carry a sharding, `init` and `checkpoint.restore` fill each piece where it lives, and the values are the same to the
    bit as without. What a rule wants is kept in ``VariableSpec.placement``; what a shape cannot have of that (an axis
    that does not divide its dimension, entries beyond the rank) is left out, and `Variables.summary` says so.

    Args:
      mesh: of devices (`mesh`), or a `jax.sharding.AbstractMesh`, with which specs can be made but no values.
      rules_or_strategy: a strategy such as `fsdp`; a `PartitionSpec` for all; a function of an op-like object
        (``.name``, ``.shape``, ``.dtype``, ``.partitions``) that returns a spec; or a dict or list of rules (pattern,
        one of these): the first that matches wins, None leaves a variable where it is, and a variable that no rule
        matches is whole on every device.

    Returns:
      The device function. A device string of a block inside wins over it.

    Raises:
      InvalidArgumentError: rules that name axes that the mesh lacks; all are listed.
      InvalidTypeError: not a mesh, or not rules.

    Example:
      >>> import jaxvars as jv
      >>> from jax.sharding import PartitionSpec as P
      >>> mesh = jv.placement.mesh(data=1, model=-1)
      >>> def net():
      ...     with jv.device(jv.placement.rule(mesh, [(".*kernel", P(None, "model"))])):
      ...         return jv.get_variable("kernel", [4, 8]), jv.get_variable("bias", [8])
      >>> specs = jv.transform(net).specs()
      >>> specs["kernel"].sharding.spec, specs["bias"].sharding.spec
      (P(None, 'model'), P())
    """
    return parse_policy(mesh, rules_or_strategy, "jv.placement.rule")


def parse_policy(mesh: Any, given: Any, op: str) -> MeshRule:
    """Return rules or a strategy bound to a mesh, after the checks of `rule`; `op` is the function they came to."""
    if not isinstance(mesh, Mesh | AbstractMesh):
        raise InvalidTypeError(
            f"{op}: the mesh comes first, got {mesh!r:.60} ({type(mesh).__name__}). Write: "
            f"{op}(jv.placement.mesh(data=-1), jv.placement.fsdp())"
        )
    if isinstance(given, MeshRule):
        given = given.given
    # A PartitionSpec is a sequence as well, in some versions of JAX a tuple.
    alone = isinstance(given, PartitionSpec) or callable(given)
    written: Any = [(".*", given)] if alone else given
    rules = parse_values(written, op=op)
    wrong = [f"  rule {rule}" for rule in rules.rules if not _is_policy(rule.replacement)]
    if wrong:
        raise InvalidTypeError(
            "\n".join(
                [
                    f"{op}: a rule says a jax.sharding.PartitionSpec, a strategy, a function of an op, or None for a "
                    "variable that stays where it is; not:",
                    *wrong,
                    'Write for example: (".*/kernel", PartitionSpec(None, "model"))',
                ]
            )
        )
    _check_axes(mesh, rules, op, alone)
    return MeshRule(mesh, rules, given)


def _is_policy(value: Any) -> bool:
    return value is None or isinstance(value, PartitionSpec) or callable(value)


def _check_axes(mesh: Any, rules: RuleSet, op: str, alone: bool) -> None:
    """Refuse rules that name an axis that the mesh lacks, or one axis twice."""
    problems: list[str] = []
    for number, rule in enumerate(rules.rules):
        policy = rule.replacement
        named: Sequence[str] = tuple(axes_of(policy)) if isinstance(policy, PartitionSpec) else _axes(policy)
        where = repr(policy) if alone else f"rule {number + 1} {rule}"
        for name in dict.fromkeys(named):
            if name not in mesh.shape:
                problems.append(f"  {where}: no axis {name!r}{nearest_axes(name, mesh.axis_names)}")
            if isinstance(policy, PartitionSpec) and named.count(name) > 1:
                problems.append(f"  {where}: axis {name!r} is named twice, for two dimensions of one array")
    if problems:
        raise InvalidArgumentError("\n".join([f"{op}: the mesh has axes {axes_text(mesh)}:", *problems]))


def _axes(policy: Any) -> tuple[str, ...]:
    return tuple(cast("Sequence[str]", getattr(policy, "axes", ())))


def _called(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)

"""The state of an optimizer as variables: which names its leaves have.

An optax state is a pytree. Where it holds something per variable it holds a `Variables` (optax maps over the
parameters it was given), and everything else in it is shared by all. Each leaf becomes one variable.

TF1's optimizers name them as TF1 did: ``<variable>/Adam``, ``<variable>/Adam_1``, the bare ``beta1_power``. A
second Adam in the same state takes the next free names, such as ``beta1_power_1``. To know later which
optimizer these belong to, such variables also carry the collection ``optimizer/<label>``; the plain names of
the first need no mark. Other transformations use ``<variable>/<label>/<field>`` and ``<label>/<field>``.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax

from jaxvars.variables import Variables

__all__ = ["Claim", "FieldNames", "SlotNames", "StateLeaf", "TF1Names", "state_leaves"]

_GLOBAL = "variables"
_MARK = "optimizer/"


class StateLeaf(NamedTuple):
    """One leaf of an optimizer's state.

    Attributes:
      field: its place in the state, such as ``"mu"``; the same for all variables.
      primary: the variable it belongs to, or None when it is shared by all.
      struct: its shape and dtype.
    """

    field: str
    primary: str | None
    struct: jax.ShapeDtypeStruct


class Claim(NamedTuple):
    """Where a leaf lives, or will live: the name and collections of its variable."""

    key: str
    collections: tuple[str, ...] = (_GLOBAL,)


class SlotNames(Protocol):
    """A way of naming the leaves of one optimizer's state."""

    def find(self, variables: Variables, leaves: Sequence[StateLeaf]) -> list[str | None]:
        """The variable that holds each leaf, None where there is none."""
        ...

    def claim(self, variables: Variables, leaves: Sequence[StateLeaf]) -> list[Claim]:
        """As `find`, with a free name for each leaf that has no variable."""
        ...


def state_leaves(state: Any) -> list[StateLeaf]:
    """The leaves of an optax state, or of its shapes, in the order of ``jax.tree.leaves``."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_variables)
    short = Counter(_field(path, with_indices=False) for path, _ in nodes)
    leaves: list[StateLeaf] = []
    for path, node in nodes:
        field = _field(path, with_indices=False)
        if short[field] > 1 or not field:
            field = _field(path, with_indices=True) or "state"
        if not isinstance(node, Variables):
            leaves.append(StateLeaf(field, None, node))
            continue
        for primary, child in zip(node, node._leaves, strict=True):
            below, _ = jax.tree_util.tree_flatten_with_path(child)
            for sub_path, leaf in below:
                parts = [field, _field(sub_path, with_indices=True)]
                leaves.append(StateLeaf("/".join(filter(None, parts)), primary, leaf))
    return leaves


def _is_variables(node: Any) -> bool:
    return isinstance(node, Variables)


def _field(path: Sequence[Any], with_indices: bool) -> str:
    """A key path as text; without indices only the names of fields and dictionary keys are in it."""
    parts: list[str] = []
    for entry in path:
        match entry:
            case jax.tree_util.GetAttrKey(name):
                parts.append(name)
            case jax.tree_util.DictKey(key):
                parts.append(str(key))
            case _ if with_indices:
                parts.append(str(getattr(entry, "idx", getattr(entry, "key", entry))))
            case _:
                pass
    return "/".join(parts)


class FieldNames:
    """``<variable>/<label>/<field>`` and ``<label>/<field>``, for any transformation.

    Args:
      name: the optimizer's name. The label is the name, or ``<name>_1``, ... for further ones.
      number: the number in the label, or None to find it: the first whose slots these variables have.
      prefix: comes before each name, such as ``"train/"``.
    """

    def __init__(self, name: str, number: int | None, prefix: str = "") -> None:
        self._name = name
        self._number = number
        self._prefix = prefix

    def find(self, variables: Variables, leaves: Sequence[StateLeaf]) -> list[str | None]:
        """See `SlotNames`."""
        keys = [self._key(leaf, self._label(variables, leaves)) for leaf in leaves]
        return [key if key in variables else None for key in keys]

    def claim(self, variables: Variables, leaves: Sequence[StateLeaf]) -> list[Claim]:
        """See `SlotNames`."""
        label = self._label(variables, leaves)
        return [Claim(self._key(leaf, label)) for leaf in leaves]

    def _key(self, leaf: StateLeaf, label: str) -> str:
        inside = f"{label}/{leaf.field}"
        return self._prefix + (inside if leaf.primary is None else f"{leaf.primary}/{inside}")

    def _label(self, variables: Variables, leaves: Sequence[StateLeaf]) -> str:
        """The label whose variables these are; the first that nobody has when there is none."""
        if self._number is not None:
            return _numbered(self._name, self._number)
        has_slots = any(leaf.primary is not None for leaf in leaves)
        for label in _labels(self._name):
            present = [leaf for leaf in leaves if self._key(leaf, label) in variables]
            ours = any(leaf.primary is not None for leaf in present) if has_slots else bool(present)
            if ours or not present:
                return label
        raise AssertionError("unreachable: labels do not end")


class TF1Names:
    """TF1's names: ``<variable>/<base>``, ``<variable>/<base>_1``, ... and bare names for shared leaves.

    Args:
      name: the optimizer's name.
      number: which optimizer of that name it is, or None to find it by the slots these variables have.
      bases: the base name of each field that is kept per variable, in TF1's order of creation.
      prefix: comes before each name, such as ``"train/"``.
    """

    def __init__(self, name: str, number: int | None, bases: dict[str, str], prefix: str = "") -> None:
        self._name = name
        self._number = number
        self._bases = bases
        self._prefix = prefix

    def find(self, variables: Variables, leaves: Sequence[StateLeaf]) -> list[str | None]:
        """See `SlotNames`."""
        label = self._own_label(variables, leaves)
        return [None if label is None else self._existing(variables, leaf, label) for leaf in leaves]

    def claim(self, variables: Variables, leaves: Sequence[StateLeaf]) -> list[Claim]:
        """See `SlotNames`."""
        found = self.find(variables, leaves)
        label = self._own_label(variables, leaves) or self._new_label(variables, leaves)
        taken = set(variables)
        claims: list[Claim] = []
        for leaf, key in zip(leaves, found, strict=True):
            claims.append(self._free(leaf, label, taken) if key is None else Claim(key))
            taken.add(claims[-1].key)
        return claims

    def _own_label(self, variables: Variables, leaves: Sequence[StateLeaf]) -> str | None:
        """The label of the optimizer that these leaves' variables already have, None for no optimizer.

        Only slots of their own tell: the bare ``beta1_power`` may be that of another optimizer.
        """
        slots = [leaf for leaf in leaves if leaf.primary is not None]
        for label in [self._name, *sorted(_marked(variables))]:
            if self._may_be(label) and any(self._existing(variables, slot, label) for slot in slots):
                return label
        return None

    def _may_be(self, label: str) -> bool:
        if self._number is not None:
            return label == _numbered(self._name, self._number)
        return re.fullmatch(rf"{re.escape(self._name)}(_\d+)?", label) is not None

    def _new_label(self, variables: Variables, leaves: Sequence[StateLeaf]) -> str:
        """A label for one more optimizer. Without shared leaves the first is as good: names cannot clash."""
        if self._number is not None:
            return _numbered(self._name, self._number)
        shared = [leaf for leaf in leaves if leaf.primary is None]
        if not shared:
            return self._name
        marked = _marked(variables)
        endings = tuple(f"/{base}" for base in self._bases.values())
        plain_is_taken = any(key.endswith(endings) for key in variables) and any(
            self._existing(variables, leaf, self._name) for leaf in shared
        )
        for label in _labels(self._name):
            if label not in marked and not (label == self._name and plain_is_taken):
                return label
        raise AssertionError("unreachable: labels do not end")

    def _existing(self, variables: Variables, leaf: StateLeaf, label: str) -> str | None:
        """The variable that holds `leaf` for the optimizer `label`."""
        base, ordinal = self._base(leaf)
        groups = _marked(variables)
        members = groups.get(label, {}).get(base, ())
        if members:
            return members[ordinal] if ordinal < len(members) else None
        plain = _numbered(base, ordinal)
        others = any(plain in group.get(plain, ()) for group in groups.values())
        return plain if label == self._name and plain in variables and not others else None

    def _free(self, leaf: StateLeaf, label: str, taken: set[str]) -> Claim:
        base, ordinal = self._base(leaf)
        key = next(name for name in _labels(base) if name not in taken)
        if label == self._name and key == _numbered(base, ordinal):
            return Claim(key)
        return Claim(key, (_GLOBAL, _MARK + label))

    def _base(self, leaf: StateLeaf) -> tuple[str, int]:
        """The name of the leaf without number, and its number among those of the same name."""
        if leaf.primary is None:
            return self._prefix + leaf.field, 0
        base = self._bases[leaf.field]
        same = [field for field, other in self._bases.items() if other == base]
        return f"{self._prefix}{leaf.primary}/{base}", same.index(leaf.field)


def _marked(variables: Variables) -> dict[str, dict[str, tuple[str, ...]]]:
    """Label -> base name -> the variables ``base``, ``base_1``, ... that carry the label's mark, in order."""
    layout = variables._layout

    def collect() -> dict[str, dict[str, tuple[str, ...]]]:
        groups: dict[str, dict[str, list[tuple[int, str]]]] = {}
        for key, collections in zip(layout.keys, layout.collections, strict=True):
            for name in collections:
                if name.startswith(_MARK):
                    group = groups.setdefault(name[len(_MARK) :], {})
                    for base, number in _readings(key):
                        group.setdefault(base, []).append((number, key))
        return {
            label: {base: tuple(key for _, key in sorted(members)) for base, members in group.items()}
            for label, group in groups.items()
        }

    return layout.cached("jaxvars.train.slots", collect)


def _readings(key: str) -> Iterator[tuple[str, int]]:
    """A key as base and number: ``w/Adam_1`` may be number 1 of ``w/Adam`` or number 0 of ``w/Adam_1``."""
    yield key, 0
    base, _, number = key.rpartition("_")
    if base and number.isdecimal():
        yield base, int(number)


def _labels(name: str) -> Iterator[str]:
    """``name``, ``name_1``, ``name_2``, ... as TF1 makes names unique."""
    return (_numbered(name, number) for number in itertools.count())


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name

"""The three kinds of frame: one that records specs, one that applies given values, one that is kept by hand.

All three follow one algorithm for `get_variable`, TF1's (`DefiningFrame.get`), and differ in what making a
variable means: noting its spec, looking up its given value, or filling it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars import _compat, refusals
from jaxvars._arguments import as_dtype
from jaxvars._source import user_site
from jaxvars.definition import Definition, Made, define, expected
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, TransformError, nearest_names
from jaxvars.filling import fill
from jaxvars.frame import Frame, Slot
from jaxvars.initializers import needs_key
from jaxvars.scopes import GraphKeys, variable_collections
from jaxvars.spec import Hole, VariableSpec, is_hole, leaf_dtype, leaf_shape
from jaxvars.variable import Variable
from jaxvars.variables import Variables

__all__ = ["ApplyFrame", "DefiningFrame", "HandFrame", "InitialValuesFrame", "Mismatch", "SpecsFrame"]


class Mismatch(Exception):
    """The given variables do not fit what the model asks for; `apply` turns it into a full list."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key
        self.problem = problem


class PendingLoss(NamedTuple):
    """An entry of REGULARIZATION_LOSSES: evaluated when the collection is read, at frame level."""

    handle: Variable
    regularizer: Callable[[Any], Any]

    @property
    def name(self) -> str:
        """TF1's name of the loss, which scope filters match."""
        return f"{self.handle.key}/Regularizer/"


class DefiningFrame(Frame):
    """TF1's algorithm of `get_variable` and ``tf.Variable``, over abstract making.

    Attributes:
      results: the values that the run wrote, by key, once it has ended well.
    """

    results: Mapping[str, Any] = MappingProxyType({})

    def holds(self, key: str) -> bool:
        """Whether a value was given from outside under this name."""
        return False

    def make(self, definition: Definition, key: str, store_key: str | None) -> Slot:
        """Make the slot of a variable that this frame has not seen."""
        raise InvalidArgumentError(f"{type(self).__name__} cannot make variable {key}.")

    def check_given(self, slot: Slot, shape: tuple[int, ...] | None, dtype: Any) -> None:
        """Check a slot whose value was given from outside against what the code asks for."""

    # get_variable

    def get(
        self,
        name: str,
        *,
        shape: Any,
        dtype: Any,
        initializer: Any = None,
        regularizer: Any = None,
        trainable: bool = True,
        collections: Sequence[str] | None = None,
        constraint: Any = None,
        reuse: Any = False,
        **ignored: Any,
    ) -> Variable:
        """Return the variable of this full name: TF1's rules of reuse, in TF1's order of checks."""
        self.touch()
        slot = self._by_store_key.get(name)
        known_shape, known_dtype = expected(name, shape, dtype, initializer)
        if slot is not None and slot.gotten:
            if not reuse:
                raise InvalidArgumentError(_already_exists(slot))
            self._check_sharing(slot, shape, known_shape, dtype)
            return slot.handle
        if reuse is True and slot is None and not self.holds(name):
            raise InvalidArgumentError(self._does_not_exist(name))
        if slot is None:
            wanted = variable_collections(collections, trainable)
            definition = Definition(name, shape, dtype, initializer, wanted, trainable, constraint)
            key = self._key_of(name)
            slot = self.make(definition, key, name)
            self._by_store_key[name] = slot
            self.slots[slot.key] = slot
        if reuse:
            self._check_sharing(slot, shape, known_shape, dtype)
        else:
            self.check_given(slot, known_shape, known_dtype)
        self._join(slot, regularizer)
        return slot.handle

    def _key_of(self, name: str) -> str:
        op_name = self.graph.variable_op_name(name)
        if self.tf1_op_names:
            return op_name
        taken = self.slots.get(name)
        if taken is not None and taken.store_key is None:
            raise InvalidArgumentError(
                f"Variable {name} cannot be made by get_variable{_at(user_site())}: a jv.Variable of that name was made"
                f"{_at(taken.defined_at)}. TF1 would call this one {op_name!r} in checkpoints: use "
                "tf1_op_names=True for that, or give one of them another name."
            )
        return name

    def _join(self, slot: Slot, regularizer: Any) -> None:
        handle = Variable.of(slot)
        self.note(slot)
        for key in slot.collections:
            self.graph.collections.add(key, handle)
        if regularizer is not None:
            self.graph.collections.add(GraphKeys.REGULARIZATION_LOSSES, PendingLoss(handle, regularizer))

    def _check_sharing(
        self, slot: Slot, shape: Any, known_shape: tuple[int | None, ...] | None, dtype: Any
    ) -> None:
        if shape is not None and not _compatible(known_shape, slot.shape):
            raise InvalidArgumentError(
                f"Trying to share variable {slot.key}, but specified shape {known_shape} and found shape {slot.shape}."
                f"{_defined(slot)}"
            )
        if as_dtype(dtype) != slot.dtype:
            raise InvalidArgumentError(
                f"Trying to share variable {slot.key}, but specified dtype {as_dtype(dtype).name} and found dtype "
                f"{slot.dtype.name}.{_defined(slot)} Write:\n"
                f"    jv.get_variable({slot.key.rsplit('/', 1)[-1]!r}, dtype={slot.dtype.name!r}, ...)    "
                "# TF1 compares with the scope's dtype, float32, when none is given"
            )

    def _does_not_exist(self, name: str) -> str:
        near = nearest_names(name, self._names_held())
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        return (
            f"Variable {name} does not exist, or was not created with jv.get_variable().{hint} The scope says "
            f"reuse=True{_at(user_site())}. Did you mean to set reuse=jv.AUTO_REUSE in variable_scope?"
        )

    def _names_held(self) -> Iterable[str]:
        return self._by_store_key

    # tf.Variable

    def create_variable(
        self,
        *,
        initial_value: Any,
        trainable: bool | None = None,
        collections: Sequence[str] | None = None,
        validate_shape: bool = True,
        caching_device: Any = None,
        name: str | None = None,
        dtype: Any = None,
        constraint: Any = None,
        **ignored: Any,
    ) -> Variable:
        """Make a variable with a unique name under the current name scope, as ``tf.Variable`` did."""
        if initial_value is None:
            raise InvalidArgumentError(
                f"initial_value must be specified{_at(user_site())}: jv.Variable(initial_value, name=...)."
            )
        self.touch()
        trainable = True if trainable is None else bool(trainable)
        wanted = variable_collections(collections, trainable)
        key = self.graph.unique_variable_name(name)
        definition = Definition(key, None, dtype, initial_value, wanted, trainable, constraint, converts=True)
        slot = self.slots.get(key)
        if slot is not None and slot.gotten:
            raise InvalidArgumentError(_already_exists(slot))
        if slot is None:
            slot = self.make(definition, key, None)
            self.slots[key] = slot
        self.check_given(slot, *expected(key, None, dtype, initial_value, converts=True))
        self._join(slot, None)
        return slot.handle

    # Collections of values

    def collect(self, name: str, value: Any) -> None:
        """Add a value to a collection; one that belongs to an inner trace is refused."""
        for leaf in jax.tree.leaves(value):
            if _compat.is_leaked(leaf, self.trace):
                raise FailedPreconditionError(refusals.collected_inside(name, value))
        self.graph.collections.add(name, value)

    def collected(self, name: str, scope: str | None) -> list[Any]:
        """Return a collection, regularization losses evaluated under the frame's own trace."""
        found: list[Any] = []
        for item in self.graph.collections.get(name, scope):
            if isinstance(item, PendingLoss):
                with self.at_frame_level():
                    item = item.regularizer(item.handle)
                if item is None:
                    continue
            found.append(item)
        return found

    def _slot(self, definition: Definition, key: str, store_key: str | None, value: Any) -> Slot:
        return Slot(
            self,
            key,
            store_key,
            leaf_shape(value),
            leaf_dtype(value),
            value,
            trainable=definition.trainable,
            collections=definition.collections,
            defined_at=user_site(),
            constraint=definition.constraint,
        )


class SpecsFrame(DefiningFrame):
    """Records every variable; runs under `jax.eval_shape`, so nothing is computed.

    Attributes:
      holes: per key the hole to fill, or None for a value that the model itself computes.
    """

    def __init__(self, given: Variables | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.given = given
        self.holes: dict[str, Hole | None] = {}
        self.records: list[VariableSpec] = []

    def holds(self, key: str) -> bool:
        return self.given is not None and key in self.given

    def _names_held(self) -> Iterable[str]:
        return [*self._by_store_key, *(self.given or ())]

    def make(self, definition: Definition, key: str, store_key: str | None) -> Slot:
        made = define(definition, self.at_frame_level, self.trace)
        slot = self._slot(definition, key, store_key, made.hole)
        self.holes[key] = None if made.value is not None else made.hole
        self._record(slot)
        slot.value = self._stand_in(made, key)
        return slot

    def _record(self, slot: Slot) -> None:
        self.records.append(
            VariableSpec(
                slot.key,
                slot.shape,
                slot.dtype,
                trainable=slot.trainable,
                collections=slot.collections,
                defined_at=slot.defined_at,
                constraint=slot.constraint,
            )
        )

    def _stand_in(self, made: Made, key: str) -> Any:
        if made.value is not None:
            return made.value
        with self.at_frame_level():
            return jnp.zeros(made.hole.shape, made.hole.dtype)

    def write(self, slot: Slot, value: Any) -> None:
        """Only note that the variable is written, and where: writes made while specs run are discarded."""
        self.check_open(slot, "assign")
        if _compat.current_trace() is not self.trace:
            if _compat.current_trace() not in self._seen:
                self.touch()
            refusals.check_inner_write(self, slot)
            self.written.add(slot.key)
        elif _compat.is_leaked(value, self.trace):
            raise TransformError(refusals.leaked(slot))

    def _back_by_ref(self, slot: Slot) -> None:
        """A stand-in needs no ref: nothing is written."""


class InitialValuesFrame(SpecsFrame):
    """Runs the model with real values, to compute the initial values that the model's own code makes."""

    def __init__(self, values: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.values = values
        self.computed: dict[str, Any] = {}

    def _stand_in(self, made: Made, key: str) -> Any:
        if key in self.values:
            return self.values[key]
        if made.value is not None:
            self.computed[key] = made.value
            return made.value
        return super()._stand_in(made, key)


class ApplyFrame(DefiningFrame):
    """Runs the model over given values; the layout never changes."""

    may_stage = True

    def __init__(self, variables: Variables, **options: Any) -> None:
        super().__init__(**options)
        self.given = variables

    def holds(self, key: str) -> bool:
        return key in self.given._layout.index

    def _names_held(self) -> Iterable[str]:
        return self.given._layout.keys

    def make(self, definition: Definition, key: str, store_key: str | None) -> Slot:
        position = self.given._layout.index.get(key)
        if position is None:
            raise Mismatch(key, "missing")
        return self._given_slot(position, key, store_key)

    def _given_slot(self, position: int, key: str, store_key: str | None) -> Slot:
        layout = self.given._layout
        value = self.given._leaves[position]
        core = layout.core
        return Slot(
            self,
            key,
            store_key,
            leaf_shape(value),
            leaf_dtype(value),
            value,
            trainable=core.trainable[position],
            collections=core.collections[position],
            defined_at=layout.defined_at[position],
            constraint=core.constraints[position],
            placement=layout.placement[position],
        )

    def check_given(self, slot: Slot, shape: tuple[int, ...] | None, dtype: Any) -> None:
        if is_hole(slot.value):
            raise Mismatch(slot.key, "uninitialized")
        if shape is not None and not _compatible(shape, slot.shape):
            raise Mismatch(slot.key, f"has shape {slot.shape}, and the model asks for {shape}")
        if dtype is not None and dtype != slot.dtype:
            raise Mismatch(slot.key, f"has dtype {slot.dtype}, and the model asks for {dtype}")


class HandFrame(ApplyFrame):
    """The frame of a `VariableStore`: makes what is new, keeps what is there."""

    may_stage = False

    def __init__(self, variables: Variables, **options: Any) -> None:
        super().__init__(variables, **options)
        self.made: list[tuple[VariableSpec, Slot]] = []

    def make(self, definition: Definition, key: str, store_key: str | None) -> Slot:
        position = self.given._layout.index.get(key)
        if position is not None:
            return self._given_slot(position, key, store_key)
        made = define(definition, self.at_frame_level, self.trace)
        slot = self._slot(definition, key, store_key, made.hole)
        with self.at_frame_level():
            slot.value = made.value if made.value is not None else self._filled(made.hole, key)
        slot.written = True
        self.made.append((slot_spec(slot), slot))
        return slot

    def _filled(self, hole: Hole, key: str) -> Any:
        if self.rng is None and hole.initializer is not None and needs_key(hole.initializer):
            return hole
        return fill({key: hole}, self.rng)[key]

    def check_given(self, slot: Slot, shape: tuple[int, ...] | None, dtype: Any) -> None:
        problem = ""
        if shape is not None and not _compatible(shape, slot.shape):
            problem = f"shape {slot.shape}, and the code now asks for {shape}"
        elif dtype is not None and dtype != slot.dtype:
            problem = f"dtype {slot.dtype}, and the code now asks for {dtype}"
        if problem:
            raise InvalidArgumentError(
                f"Variable {slot.key} in this store has {problem}.{_defined(slot)} To begin anew with it, write:\n"
                "    store = jv.VariableStore(0)    # or keep the rest: store.variables = "
                "store.variables.select(lambda key, spec: key != ...)"
            )

    def _learn_write(self, slot: Slot) -> None:
        raise FailedPreconditionError(
            f"Variable {slot.key} is written inside a JAX transform after it was read plainly inside one, and a "
            f"VariableStore cannot run your code a second time to arrange for that.{_defined(slot)} Write:\n"
            "    model = jv.transform(fn); out, variables = model.apply(variables, ...)"
        )


def with_values(variables: Variables, values: Mapping[str, Any]) -> Variables:
    """Return `variables` with some values replaced, unchecked; the same object where there are none."""
    if not values:
        return variables
    index = variables._layout.index
    leaves = list(variables._leaves)
    for key, value in values.items():
        leaves[index[key]] = value
    return variables._with_leaves(leaves)


def slot_spec(slot: Slot) -> VariableSpec:
    """Return the spec of a slot."""
    return VariableSpec(
        slot.key,
        slot.shape,
        slot.dtype,
        trainable=slot.trainable,
        collections=slot.collections,
        placement=slot.placement,
        defined_at=slot.defined_at,
        constraint=slot.constraint,
    )


def _compatible(asked: Sequence[int | None] | None, found: tuple[int, ...]) -> bool:
    if asked is None:
        return True
    return len(asked) == len(found) and all(a is None or a == b for a, b in zip(asked, found, strict=True))


def _already_exists(slot: Slot) -> str:
    return (
        f"Variable {slot.key} already exists, disallowed{_at(user_site())}. Did you mean to set reuse=True or "
        f"reuse=jv.AUTO_REUSE in variable_scope?{_defined(slot)}"
    )


def _defined(slot: Slot) -> str:
    return f" Originally defined at {slot.defined_at}." if slot.defined_at else ""


def _at(site: str) -> str:
    return f" at {site}" if site else ""

"""The three kinds of frame: one that records specs, one that applies given values, one that is kept by hand.

They differ in what making a variable means: noting its spec, looking up its given value, or filling it at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxvars import _compat, refusals
from jaxvars._source import user_site
from jaxvars.buffers import is_concrete
from jaxvars.defining import DefiningFrame
from jaxvars.definition import Definition, Made, at_home, compatible, define, plainly_defined
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, TransformError
from jaxvars.frame import Facts, Slot, trace_key
from jaxvars.initializers import needs_key
from jaxvars.layout import Layout
from jaxvars.scopes.collections import variable_collections
from jaxvars.scopes.device_scope import open_devices
from jaxvars.spec import Hole, VariableSpec, is_hole, leaf_dtype, leaf_shape
from jaxvars.variables import Variables

if TYPE_CHECKING:
    from jaxvars.scopes.slicing import Partitioning

__all__ = ["ApplyFrame", "HandFrame", "InitialValuesFrame", "Mismatch", "SpecsFrame", "slot_spec", "with_values"]

_NONE = Variables({})


class Mismatch(Exception):
    """The given variables do not fit what the model asks for; `apply` turns it into a full list."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key
        self.problem = problem


class SpecsFrame(DefiningFrame):
    """Records every variable; runs under `jax.eval_shape`, so nothing is computed.

    Attributes:
      holes: per key the hole to fill; without initializer for a value that the model itself computes.
    """

    def __init__(self, given: Variables | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.given = given
        self.holes: dict[str, Hole] = {}
        self.records: list[VariableSpec] = []
        self._zeros: dict[tuple[tuple[int, ...], Any], Any] = {}

    def holds(self, key: str) -> bool:
        """Whether a value was given under this name."""
        return self.given is not None and key in self.given

    def _names_held(self) -> Iterable[str]:
        return [*self._by_store_key, *(self.given or ())]

    def make(self, definition: Definition, key: str, store_key: str | None) -> Slot:
        """Note the spec; the value is a stand-in."""
        if definition.shape is definition.initializer is None and self.given is not None and key in self.given:
            # Shared with what was given, by a scope with reuse=True: no shape needs to be named.
            definition = definition._replace(shape=self.given[key].shape, dtype=self.given[key].dtype)
        made = define(definition, self.at_frame_level, self.trace)
        made = at_home(made, key, self.graph, definition.partitioning)
        return self._recorded(definition, key, store_key, made)

    def make_plain(self, definition: Definition) -> Slot | None:
        """Note the spec of a variable that an initializer of ours fills, on no device of its own."""
        name = definition.name
        if self.given is not None or self.tf1_op_names or name in self.slots or open_devices.get() is not None:
            return None
        made = plainly_defined(definition)
        return None if made is None else self._recorded(definition, name, name, made)

    def _recorded(self, definition: Definition, key: str, store_key: str | None, made: Made) -> Slot:
        slot = self._slot(definition, key, store_key, made)
        self.holes[key] = made.hole
        self.records.append(slot_spec(slot, definition.partitioning))
        slot.value = self._stand_in(made, key)
        return slot

    def _stand_in(self, made: Made, key: str) -> Any:
        if made.value is not None:
            return made.value
        # Nothing is computed, so variables of one shape share a value.
        hole = made.hole
        found = self._zeros.get((hole.shape, hole.dtype))
        if found is None:
            with self.at_frame_level():
                found = self._zeros[hole.shape, hole.dtype] = jnp.zeros(hole.shape, hole.dtype)
        return found

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

    def forget(self, slot: Slot) -> None:
        """Take the variable off the records."""
        self.holes.pop(slot.key, None)
        self.records = [spec for spec in self.records if spec.key != slot.key]

    def _back_by_ref(self, slot: Slot) -> None:
        """A stand-in needs no ref: nothing is written."""

    def close(self) -> None:
        """End the frame, and let go of what it was given."""
        super().close()
        self.given = None
        self._zeros.clear()


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

    def close(self) -> None:
        """End the frame, and let go of what it was given."""
        super().close()
        self.values: dict[str, Any] = {}


class ApplyFrame(DefiningFrame):
    """Runs the model over given values; the layout never changes."""

    may_stage = True

    def __init__(self, variables: Variables, **options: Any) -> None:
        super().__init__(**options)
        self.given = variables
        self._facts = _facts(variables._layout)

    def belongs(self, slot: Slot, collection: str) -> bool:
        """Whether a given variable was added to the collection before the frame began."""
        return collection in slot.collections and collection not in variable_collections(slot.asked, slot.trainable)

    def holds(self, key: str) -> bool:
        """Whether a value was given under this name."""
        return key in self.given._layout.index

    def _names_held(self) -> Iterable[str]:
        return self.given._layout.keys

    def given_slot(self, name: str) -> Slot | None:
        """Look up the given value: the way of almost every read, so without a `Definition`."""
        position = self.given._layout.index.get(name)
        if position is None or name in self.slots or self.tf1_op_names:
            return None
        return self._given_slot(position, name, name)

    def make(self, definition: Definition, key: str, store_key: str | None) -> Slot:
        """Look up the given value."""
        position = self.given._layout.index.get(key)
        if position is None:
            raise Mismatch(key, "missing")
        return self._given_slot(position, key, store_key)

    def _given_slot(self, position: int, key: str, store_key: str | None) -> Slot:
        given = self.given
        flat = given._flat
        value = given._leaf(position) if flat is None else flat[position]
        if is_concrete(value) and value.is_deleted():
            given._raise_deleted(position, value)
        aval = getattr(value, "aval", None)  # the short way for arrays and tracers
        shape = leaf_shape(value) if aval is None else aval.shape
        dtype = leaf_dtype(value) if aval is None else aval.dtype
        return Slot(self, key, store_key, shape, dtype, value, self._facts[position])

    def check_given(self, slot: Slot, shape: tuple[int | None, ...] | None, dtype: Any) -> None:
        """Check that the given value fits what the code asks for."""
        if is_hole(slot.value):
            raise Mismatch(slot.key, "uninitialized")
        if shape is not None and shape != slot.shape and not compatible(shape, slot.shape):
            raise Mismatch(slot.key, f"has shape {slot.shape}, and the model asks for {shape}")
        if dtype is not None and dtype != slot.dtype:
            raise Mismatch(slot.key, f"has dtype {slot.dtype}, and the model asks for {dtype}")

    def close(self) -> None:
        """End the frame, and let go of what it was given."""
        super().close()
        self.given: Variables = _NONE  # handles keep their frame, and a frame must not keep arrays


def _facts(layout: Layout) -> tuple[Facts, ...]:
    """What a layout knows about its variables, kept with it."""

    def collect() -> tuple[Facts, ...]:
        core, notes = layout.core, layout.notes
        columns = (core.trainable, core.collections, notes.defined_at, core.constraints, notes.placement)
        return tuple(map(Facts._make, zip(*columns, strict=True)))

    return layout.cached("facts of slots", collect)


class HandFrame(ApplyFrame):
    """The frame of a `VariableStore`: makes what is new, keeps what is there."""

    may_stage = False

    def __init__(self, variables: Variables, **options: Any) -> None:
        super().__init__(variables, **options)
        self.made: list[tuple[VariableSpec, Slot]] = []
        self._homes: dict[str, Any] = {}

    def _names_held(self) -> Iterable[str]:
        return [*self._by_store_key, *self.given._layout.keys]

    def make(self, definition: Definition, key: str, store_key: str | None) -> Slot:
        """Take the value that is there, or fill it now."""
        position = self.given._layout.index.get(key)
        if position is not None:
            return self._given_slot(position, key, store_key)
        made = define(definition, self.at_frame_level, self.trace)
        made = at_home(made, key, self.graph, definition.partitioning)
        slot = self._slot(definition, key, store_key, made)
        with self.at_frame_level():
            slot.value = self._made_value(made, slot)
            self._bring(slot)
        slot.written = True
        self.made.append((slot_spec(slot, definition.partitioning), slot))
        return slot

    def forget(self, slot: Slot) -> None:
        """Take the variable off the list of those that this frame made."""
        self.made = [(spec, made) for spec, made in self.made if made is not slot]

    def _made_value(self, made: Made, slot: Slot) -> Any:
        hole = made.hole
        if isinstance(made.placement, str) and self.rng is not None and self.eager:
            from jaxvars.placement.homes import shardings_of

            found = shardings_of({slot.key: made.placement}, {slot.key: slot.defined_at})
            hole = hole.update(sharding=found.get(slot.key))
        if made.value is None:
            return self._filled(hole, slot.key)
        return made.value if hole.sharding is None else jax.device_put(made.value, hole.sharding)

    def _given_slot(self, position: int, key: str, store_key: str | None) -> Slot:
        slot = super()._given_slot(position, key, store_key)
        if slot.placement is not None:
            with self.at_frame_level():
                self._bring(slot)
        return slot

    def _bring(self, slot: Slot) -> None:
        """Bring a value to the device that computes, for as long as the frame is open."""
        if slot.placement is None or not self.eager:
            return
        from jaxvars.placement.edge import computing_device, is_elsewhere

        target = computing_device()
        if is_elsewhere(slot.value, target):
            self._homes[slot.key] = slot.value.sharding
            slot.value = jax.device_put(slot.value, target)

    def current_values(self) -> dict[str, Any]:
        """Return the values that were made or written, at home."""
        values = super().current_values()
        for key in self._homes.keys() & values.keys():
            values[key] = jax.device_put(values[key], self._homes[key])
        return values

    def _filled(self, hole: Hole, key: str) -> Any:
        if self.rng is None and hole.initializer is not None and needs_key(hole.initializer):
            return hole
        with trace_key(None):  # the executables that fill are shared with all other frames
            from jaxvars.filling import fill  # here: `import jaxvars` does without

            return fill({key: hole}, self.rng)[key]

    def check_given(self, slot: Slot, shape: tuple[int | None, ...] | None, dtype: Any) -> None:
        """Check that the given value fits what the code asks for."""
        problem = ""
        if shape is not None and not compatible(shape, slot.shape):
            problem = f"shape {slot.shape}, and the code now asks for {shape}"
        elif dtype is not None and dtype != slot.dtype:
            problem = f"dtype {slot.dtype}, and the code now asks for {dtype}"
        if problem:
            raise InvalidArgumentError(
                f"Variable {slot.key} in this store has {problem} at {user_site()}.{refusals.defined(slot)} "
                "To make it anew and keep the rest, write before the block:\n"
                f"    store.variables = store.variables.select(lambda key, spec: key != {slot.key!r})"
            )

    def _learn_write(self, slot: Slot) -> None:
        raise FailedPreconditionError(
            f"Variable {slot.key} is written inside a JAX transform after it was read plainly inside one, and a "
            f"VariableStore cannot run your code a second time to arrange for that.{refusals.defined(slot)} Write:\n"
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


def slot_spec(slot: Slot, cut: Partitioning | None) -> VariableSpec:
    """Return the spec of a slot, which a partitioner cut like this."""
    trainable, collections, defined_at, constraint, placement = slot.facts
    partition = None if cut is None or (slices := cut.partitions[cut.axis]) == 1 else (cut.axis, slices)
    return VariableSpec(
        slot.key,
        slot.shape,
        slot.dtype,
        trainable,
        collections,
        placement,
        defined_at,
        constraint,
        "",
        partition,
    )

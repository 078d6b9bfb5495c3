"""`DefiningFrame`: TF1's algorithm of `get_variable` and ``tf.Variable``, whatever making a variable means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from jaxvars import _compat, refusals
from jaxvars._arguments import as_dtype, shape_as_tuple
from jaxvars._source import user_site
from jaxvars.definition import Definition, Made, asked_for, compatible, expected
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, nearest_names
from jaxvars.frame import Facts, Frame, Slot
from jaxvars.initializers import is_constant
from jaxvars.refusals import at_site, defined, reusing
from jaxvars.scopes.collections import GraphKeys, Pending, variable_collections
from jaxvars.scopes.getters import create_variable, has_creators
from jaxvars.scopes.names import check_variable_name
from jaxvars.scopes.request import in_name_scope, root_name_scope
from jaxvars.scopes.reuse import AUTO_REUSE
from jaxvars.scopes.synchronization import resolve_trainable
from jaxvars.variable import Variable

__all__ = ["DefiningFrame", "is_literal_scalar"]

Check: TypeAlias = Callable[[Slot], None]


class PendingLoss(Pending):
    """An entry of REGULARIZATION_LOSSES: evaluated when the collection is read, at frame level."""

    __slots__ = ("handle", "regularizer")

    def __init__(self, handle: Variable, regularizer: Callable[[Any], Any]) -> None:
        self.handle: Variable = handle
        self.regularizer: Callable[[Any], Any] = regularizer

    @property
    def name(self) -> str:
        """TF1's name of the loss, which scope filters match."""
        return f"{self.handle.op.name}/Regularizer/"

    def resolve(self) -> Any:
        """Return the loss, or None for no loss."""
        with self.handle._slot.frame.at_frame_level():
            return in_name_scope(self.name[:-1], self.regularizer, self.handle)


class DefiningFrame(Frame):
    """TF1's algorithm of `get_variable` and ``tf.Variable``, over abstract making."""

    #: Who notes what the body of `scan_layers` asks for while it runs: then each call goes the long way.
    recording: Any = None

    def holds(self, key: str) -> bool:
        """Whether a value was given from outside under this name."""
        return False

    def given_slot(self, name: str) -> Slot | None:
        """Return a slot, not kept yet, of a variable whose value was given, where a glance tells that none is made."""
        return None

    def make_plain(self, definition: Definition) -> Slot | None:
        """Make a slot, not kept yet, where a glance tells that none of the model's code has to run for it."""
        return None

    def make(self, definition: Definition, key: str, store_key: str | None) -> Slot:
        """Make the slot of a variable that this frame has not seen."""
        raise InvalidArgumentError(f"{type(self).__name__} cannot make variable {key}.")

    def check_given(self, slot: Slot, shape: tuple[int | None, ...] | None, dtype: Any) -> None:
        """Check a slot whose value was given from outside against what the code asks for."""

    # get_variable

    def get(
        self,
        name: str,
        # Custom getters may pass these by position, in TF1's order.
        shape: Any = None,
        dtype: Any = "float32",
        initializer: Any = None,
        regularizer: Any = None,
        reuse: Any = None,
        trainable: bool = True,
        collections: Sequence[str] | None = None,
        *,
        constraint: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        validate_shape: bool = True,
        use_resource: bool | None = None,
        synchronization: Any = None,
        aggregation: Any = None,
    ) -> Variable:
        """Return the variable of this full name: TF1's rules of reuse, in TF1's order of checks.

        A custom getter that passes no `reuse` on makes or shares, as in TF1. `caching_device` and those after
        `partitioner` have no effect; they are spelled out because collecting them would cost as much as the rest.
        """
        self.touch()
        if reuse is None:
            reuse = AUTO_REUSE
        if regularizer is not None and not callable(regularizer):
            raise InvalidTypeError(
                f"The regularizer of variable {name} is not callable, got {regularizer!r:.60}: it is a function of the "
                "value that returns a loss, such as jv.regularizers.l2_regularizer(1e-4)."
            )
        if partitioner is not None and not is_literal_scalar(shape):
            from jaxvars import partitioning  # here, as below: few programs cut variables

            asked = Definition(name, shape, dtype, initializer, collections, trainable, constraint)
            return partitioning.get_partitioned(self, asked, partitioner, reuse, regularizer)
        slot = self._by_store_key.get(name)
        if slot is not None and slot.partitioning is not None:
            if slot.gotten:
                from jaxvars import partitioning

                return partitioning.share_without_partitioner(slot, shape, dtype, partitioner is None and reuse)
            slot.partitioning = slot.handle = None  # of an earlier run of this body
        known_shape, known_dtype = expected(name, shape, dtype, initializer)
        if slot is not None and slot.gotten:
            if not reuse:
                raise InvalidArgumentError(_already_exists(slot))
            self._check_sharing(slot, shape, known_shape, dtype)
            return slot.handle
        if reuse is True and slot is None and not self.holds(name):
            self._refuse_lone_slice(name)
            raise InvalidArgumentError(self._does_not_exist(name))
        given: Slot | None = None
        creators = slot is None and has_creators()
        if slot is None and (creators or (slot := (given := self.given_slot(name))) is None):
            self._refuse_lone_slice(name)
            definition = Definition(name, shape, dtype, initializer, collections, trainable, constraint)
            if creators:
                return self._create_through_scopes(definition, name, regularizer)

            def check(made: Slot) -> None:
                if reuse is True:
                    self._check_sharing(made, shape, known_shape, dtype)
                else:
                    self.check_given(made, known_shape, known_dtype)

            slot = self._new_slot(definition, name, check)
        elif reuse is True:
            self._check_sharing(slot, shape, known_shape, dtype)
        else:
            self.check_given(slot, known_shape, known_dtype)
        if given is not None:
            self.graph.variable_op_name(name)
            self._by_store_key[name] = self.slots[name] = given
        slot.asked = collections
        self._join(slot, regularizer)
        return slot.handle

    def _refuse_lone_slice(self, name: str) -> None:
        """Refuse to make a variable `name` next to a variable ``name/part_0``, which TF1 takes for a slice of it."""
        part = self._by_store_key.get(f"{name}/part_0")
        if part is not None and part.gotten:
            from jaxvars import partitioning

            partitioning.refuse_missing_partitioner(name, part)

    def _create_through_scopes(self, definition: Definition, store_key: str | None, regularizer: Any) -> Variable:
        """Make a variable through the open creator scopes."""

        def create(**changed: Any) -> Variable:
            return self._create(definition, changed, store_key, regularizer)

        if store_key is None:
            return create_variable(create, **_asked(definition))
        return root_name_scope(create_variable, create, **_asked(definition))

    def _create(
        self, definition: Definition, changed: Mapping[str, Any], store_key: str | None, regularizer: Any = None
    ) -> Variable:
        """Make a variable as the creator scopes changed it."""
        fields = {k: v for k, v in changed.items() if k in Definition._fields}
        fields["name"] = changed.get("name") or definition.name or "Variable"
        value = changed.get("initial_value", definition.initializer)
        wanted = None
        if value is not definition.initializer and is_constant(value):
            # A value in place of the initializer has to fit the shape, and takes the dtype, that were asked for.
            wanted = shape_as_tuple(fields.get("shape", definition.shape))
            fields |= {"shape": None, "converts": True}
        definition = definition._replace(initializer=value, **fields)

        def check(made: Slot) -> None:
            if not compatible(wanted, made.shape):
                raise InvalidArgumentError(
                    f"Shapes must be equal: variable {definition.name} was asked for with shape {wanted}, but a "
                    f"variable_creator_scope gave it an initial_value of shape {made.shape}{at_site()}."
                )
            self.check_given(made, *asked_for(definition))

        slot = self._new_slot(definition, store_key, check)
        slot.asked = definition.collections
        self._join(slot, regularizer)
        return slot.handle

    def _new_slot(self, definition: Definition, store_key: str | None, check: Check) -> Slot:
        """Make a slot; its name is taken only once that has worked and `check` has found that it fits."""
        name = definition.name
        if store_key is None:
            key = self._free_key(name, self.graph.unique_variable_name)
            slot = self.make_fitting(definition._replace(name=key), key, None, check)
            self._take_key(name, self.graph.unique_variable_name)
        elif definition.partitioning is not None:
            from jaxvars import partitioning

            return partitioning.new_slot(self, definition, store_key, check)
        else:
            key = self._key_of(name)
            slot = self.make_fitting(definition, key, store_key, check)
            if self.tf1_op_names:
                self._take_key(name, self.graph.variable_op_name)
            else:
                self.graph.variable_op_name(name)
            self._by_store_key[store_key] = slot
        self.slots[key] = slot
        return slot

    def make_fitting(self, definition: Definition, key: str, store_key: str | None, check: Check) -> Slot:
        """Make a slot, and let go of it if it does not fit."""
        slot = self.make(definition, key, store_key)
        try:
            check(slot)
        except BaseException:
            self.forget(slot)
            raise
        return slot

    def _clashes(self, key: str) -> bool:
        """Whether a partitioned variable has this key, whose name is free to others.

        TF1's graph knows the slices of a partitioned variable only, and lets a second one have its name: no Saver took
        both. A key stands for one variable.
        """
        slot = self.slots.get(key)
        return slot is not None and slot.partitioning is not None

    def _free_key(self, name: str, unique: Callable[..., str]) -> str:
        """The key that a new variable of this name would have; `unique` makes op names."""
        key = unique(name, take=False)
        if not self._clashes(key):
            return key
        before = self.graph.snapshot()
        while self._clashes(key):
            unique(name)
            key = unique(name, take=False)
        self.graph.restore(before)
        return key

    def _take_key(self, name: str, unique: Callable[..., str]) -> None:
        """Take the name that `_free_key` returns."""
        while self._clashes(unique(name)):
            pass

    def _key_of(self, name: str) -> str:
        if self.tf1_op_names:
            return self._free_key(name, self.graph.variable_op_name)
        check_variable_name(name)
        taken = self.slots.get(name)
        if taken is not None and taken.store_key is None:
            op_name = self.graph.variable_op_name(name, take=False)
            raise InvalidArgumentError(
                f"Variable {name} cannot be made by get_variable{at_site()}: a jv.Variable of that name was made"
                f"{at_site(taken.defined_at)}. TF1 would call this one {op_name!r} in checkpoints: use "
                "tf1_op_names=True for that, or give one of them another name."
            )
        return name

    def _join(self, slot: Slot, regularizer: Any) -> None:
        self.note(slot)
        if slot.partitioning is not None:
            for part in slot.handle:  # each slice joins, as in TF1
                self._join(part._slot, regularizer)
            return
        handle = Variable.of(slot)
        self.graph.collections.add_plain(slot.facts.collections, handle)
        if regularizer is not None:
            self.graph.collections.add(GraphKeys.REGULARIZATION_LOSSES, PendingLoss(handle, regularizer))

    def _check_sharing(self, slot: Slot, shape: Any, known_shape: tuple[int | None, ...] | None, dtype: Any) -> None:
        if shape is not None and not compatible(known_shape, slot.shape):
            raise InvalidArgumentError(
                f"Trying to share variable {slot.key}, but specified shape {known_shape} and found shape {slot.shape}"
                f"{at_site()}.{defined(slot)} Leave out shape= to share it, or make another one "
                "under another name or scope."
            )
        if as_dtype(dtype) != slot.dtype:
            raise InvalidArgumentError(
                f"Trying to share variable {slot.key}, but specified dtype {as_dtype(dtype).name} and found dtype "
                f"{slot.dtype.name}{at_site()}.{defined(slot)} Write:\n"
                f"    jv.get_variable({slot.key.rsplit('/', 1)[-1]!r}, dtype={slot.dtype.name!r}, ...)    "
                "# TF1 compares with the scope's dtype, float32, when none is given"
            )

    def _does_not_exist(self, name: str) -> str:
        near = nearest_names(name, self._names_held())
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        return (
            f"Variable {name} does not exist, or was not created with jv.get_variable().{hint} It was asked for"
            f"{at_site()}, in a scope with reuse=True. Did you mean to set reuse=jv.AUTO_REUSE in "
            f"variable_scope? Write:\n    {reusing()}"
            "    # makes what does not exist"
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
        name: str | None = None,
        dtype: Any = None,
        constraint: Any = None,
        synchronization: Any = None,
        aggregation: Any = None,
        **ignored: Any,
    ) -> Variable:
        """Make a variable with a unique name under the current name scope, as ``tf.Variable`` did."""
        if initial_value is None:
            raise InvalidArgumentError(
                f"initial_value must be specified{at_site()}: jv.Variable(initial_value, name=...)."
            )
        if name is not None and not isinstance(name, str):
            raise InvalidTypeError(f"The name of a variable is a string, got {name!r:.60}{at_site()}.")
        self.touch()
        trainable = resolve_trainable(trainable, synchronization, aggregation, name or "Variable")
        definition = Definition(
            name or "Variable", None, dtype, initial_value, collections, trainable, constraint, converts=True
        )
        slot = self.slots.get(self._free_key(definition.name, self.graph.unique_variable_name))
        if slot is not None:  # a body that runs a second time within one JAX call
            self._take_key(definition.name, self.graph.unique_variable_name)
            self._join(slot, None)
            return slot.handle
        if has_creators():
            return self._create_through_scopes(definition._replace(name=name or ""), None, None)
        slot = self._new_slot(definition, None, lambda made: self.check_given(made, *asked_for(definition)))
        slot.asked = collections
        self._join(slot, None)
        return slot.handle

    # Collections of values

    def collect(self, name: str, value: Any) -> None:
        """Add a value to a collection; one that belongs to an inner trace is refused."""
        # A handle is a name, not its value, which it may not even have yet.
        for leaf in jax.tree.leaves(value, is_leaf=_is_handle):
            if not _is_handle(leaf) and _compat.is_leaked(leaf, self.trace):
                raise FailedPreconditionError(refusals.collected_inside(name, value))
        if not (isinstance(value, Variable) and self._is_member_already(name, value)):
            self.graph.collections.add(name, value)

    def _is_member_already(self, name: str, handle: Variable) -> bool:
        """Note a membership, which outlives the frame; whether the handle has it from an earlier frame.

        That one joined the collection when the variable was gotten, and the same line of code adds it here again.
        """
        handles = self.joined.setdefault((handle.key, name), set())
        first = handle.name not in handles
        handles.add(handle.name)
        return first and self.belongs(handle._slot, name)

    def belongs(self, slot: Slot, collection: str) -> bool:
        """Whether a given variable was added to the collection before the frame began."""
        return False

    def collected(self, name: str, scope: str | None) -> list[Any]:
        """Return a collection, regularization losses evaluated under the frame's own trace."""
        return self.graph.collections.get(name, scope)

    def _slot(self, definition: Definition, key: str, store_key: str | None, made: Made) -> Slot:
        collections = variable_collections(definition.collections, definition.trainable)
        facts = Facts(definition.trainable, collections, user_site(), definition.constraint, made.placement)
        return Slot(self, key, store_key, made.hole.shape, made.hole.dtype, made.hole, facts)


def _asked(definition: Definition) -> dict[str, Any]:
    """The keywords that a creator scope sees, under TF1's names."""
    asked = definition._asdict()
    asked["initial_value"] = asked.pop("initializer")
    asked["name"] = definition.name or None  # a jv.Variable may come without one
    del asked["converts"]
    return asked


def _already_exists(slot: Slot) -> str:
    return (
        f"Variable {slot.key} already exists, disallowed{at_site()}. Did you mean to set reuse=True or "
        f"reuse=jv.AUTO_REUSE in variable_scope?{defined(slot)} Write one of:\n"
        f"    {reusing()}    # to share it\n"
        "    with jv.variable_scope('another'): ...    # to make a second one"
    )


def _is_handle(value: object) -> bool:
    return isinstance(value, Variable)


def is_literal_scalar(shape: Any) -> bool:
    """Whether a partitioner is ignored: for the shape ``[]`` or ``()``, as in TF1."""
    return isinstance(shape, Sequence) and not shape

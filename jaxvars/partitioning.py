"""How `get_variable` makes and shares partitioned variables: TF1's rules, in TF1's order of checks.

TF1 kept the slices as variables of their own and knew the whole by its name only. Here the whole is the variable; the
slices are handles into it, registered under TF1's names, so that ``get_variable("part_0")`` in a scope ``w`` finds one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import jax

from jaxvars._arguments import (
    as_dtype,
    cast_host_value,
    check_dtype_change,
    is_fully_defined,
    shape_as_tuple,
    value_as_array,
)
from jaxvars.definition import Definition, asked_for, compatible
from jaxvars.errors import InvalidArgumentError
from jaxvars.frame import Slot, current_frame
from jaxvars.initializers import is_constant
from jaxvars.partitioned import PartitionedVariable, PartSlot, Slice, SliceConstraint, part_slots
from jaxvars.refusals import at_site, defined, reusing
from jaxvars.scopes.getters import has_creators
from jaxvars.scopes.names import check_variable_name
from jaxvars.scopes.request import root_name_scope
from jaxvars.scopes.scope import get_variable_scope
from jaxvars.scopes.slicing import Partitioner, Partitioning, call_partitioner
from jaxvars.scopes.variable_scope import variable_scope

if TYPE_CHECKING:
    from jaxvars.defining import DefiningFrame

__all__ = [
    "create_partitioned_variables",
    "get_partitioned",
    "new_slot",
    "refuse_missing_partitioner",
    "share_without_partitioner",
]


def get_partitioned(frame: DefiningFrame, asked: Definition, partitioner: Any, reuse: Any, regularizer: Any) -> Any:
    """Return the partitioned variable of this full name, made or shared.

    Args:
      frame: the frame.
      asked: the arguments of the call, as they were given.
      partitioner: a function ``(shape, dtype) -> counts``.
      reuse: False, True or AUTO_REUSE.
      regularizer: applied to each slice, or None.

    Returns:
      A `PartitionedVariable`; what a creator scope returned, where one is open.

    Raises:
      InvalidArgumentError: TF1's ``ValueError`` cases; nothing is changed.
      InvalidTypeError: an initializer or answer of the partitioner of the wrong kind.
    """
    name = asked.name
    if not callable(partitioner):
        raise InvalidArgumentError(
            f"Partitioner must be callable, but received: {partitioner!r:.60}{_for(name)} "
            "Write: partitioner=jv.fixed_size_partitioner(2)"
        )
    slot = frame._by_store_key.get(name)
    if slot is not None and slot.gotten and slot.partitioning is None:
        raise InvalidArgumentError(
            "A partitioner was provided, but an unpartitioned version of the variable was found: "
            f"{name}{_for(name)}{defined(slot)} Perhaps a variable of the same name was already created "
            "without partitioning? Leave out partitioner= (and the scope's) to share it, or give this one another name."
        )
    shape = _whole_shape(asked)
    cut = call_partitioner(cast(Partitioner, partitioner), shape, as_dtype(asked.dtype), _for(name))
    if slot is not None and slot.gotten:
        return _share(slot, shape, asked.dtype, cut, reuse)
    if slot is None and reuse is True and not frame.holds(name):
        raise InvalidArgumentError(f"Partitioned{frame._does_not_exist(name)}")
    _refuse_plain_slices(frame, name, cut, reuse)
    constraint = asked.constraint and SliceConstraint(asked.constraint, cut)
    definition = asked._replace(shape=shape, constraint=constraint, partitioning=cut)
    if is_constant(asked.initializer):
        definition = definition._replace(shape=None, initializer=_constant(asked, shape))
    if slot is None:
        if has_creators():
            return root_name_scope(frame._create_through_scopes, definition, name, regularizer)

        def check(made: Slot) -> None:
            if reuse is True:
                frame._check_sharing(made, shape, shape, asked.dtype)
            else:
                frame.check_given(made, *asked_for(definition))

        slot = frame._new_slot(definition, name, check)
    elif slot.partitioning != cut:  # gotten in an earlier run of this body, otherwise
        _slice(frame, slot, name, cut)
    for part in slot.handle:
        part._slot.asked = asked.collections
    frame._join(slot, regularizer)
    return slot.handle


def _whole_shape(asked: Definition) -> tuple[int, ...]:
    """The shape of the whole: the one given, or that of a JAX array as initializer."""
    shape = shape_as_tuple(asked.shape)
    if isinstance(asked.initializer, jax.Array):
        own = tuple(asked.initializer.shape)
        if not compatible(shape, own):
            raise InvalidArgumentError(
                f"Shapes {shape} and {own} are not compatible: the initializer{_for(asked.name)} has the second one. "
                "Leave out shape=."
            )
        return own
    if not is_fully_defined(shape):
        raise InvalidArgumentError(
            f"Shape of a new partitioned variable must be fully defined, but instead was {shape or '<unknown>'}"
            f"{_for(asked.name)} A partitioner needs it, also to share one; to share it as it is, leave out "
            "partitioner= in a scope with reuse=True."
        )
    return shape


def _constant(asked: Definition, shape: tuple[int, ...]) -> Any:
    """The value of the whole: a JAX array keeps its dtype, anything else takes the variable's, as in TF1."""
    value = asked.initializer
    if isinstance(value, jax.Array):
        return value
    array = value_as_array(value)
    if tuple(array.shape) != shape:
        raise InvalidArgumentError(
            f"The initial value has shape {tuple(array.shape)}, and the whole has shape {shape}{_for(asked.name)} "
            "For one number everywhere write initializer=jv.constant_initializer(value)."
        )
    dtype = as_dtype(asked.dtype)
    if not isinstance(array, jax.Array):
        return cast_host_value(array, dtype)
    check_dtype_change(array.dtype, dtype)
    return array.astype(dtype)


def _share(slot: Slot, shape: tuple[int | None, ...] | None, dtype: Any, cut: Partitioning | None, reuse: Any) -> Any:
    """Return the handle of an existing one, if it is what was asked for."""
    if not reuse:
        raise InvalidArgumentError(
            f"Partitioned variable with name {slot.key} already exists{at_site()}. Did you mean to set reuse=True "
            f"or reuse=jv.AUTO_REUSE in variable_scope?{defined(slot)} Write one of:\n"
            f"    {reusing()}    # to share it\n"
            "    with jv.variable_scope('another'): ...    # to make a second one"
        )
    found = slot.partitioning
    assert found is not None
    problem = ""
    if shape is not None and not compatible(shape, slot.shape):
        problem = f"shape {shape} and found shape {slot.shape}"
    elif as_dtype(dtype) != slot.dtype:
        problem = f"dtype {as_dtype(dtype).name} and found dtype {slot.dtype.name}"
    elif cut is not None and cut.partitions != found.partitions:
        problem = f"partitions {list(cut.partitions)} and found partitions {list(found.partitions)}"
    if problem:
        raise InvalidArgumentError(
            f"Trying to reuse partitioned variable {slot.key}, but specified {problem}{at_site()}.{defined(slot)} "
            "Ask for it as it was made; in a scope with reuse=True its partitioner may be left out."
        )
    return slot.handle


def share_without_partitioner(slot: Slot, shape: Any, dtype: Any, reuse: Any) -> Any:
    """Return an existing partitioned variable to a call without partitioner: with ``reuse=True`` only, as in TF1.

    Raises:
      InvalidArgumentError: `reuse` is False or AUTO_REUSE, or shape or dtype differ.
    """
    if reuse is not True:
        refuse_missing_partitioner(slot.key, slot)
    return _share(slot, shape_as_tuple(shape), dtype, None, reuse)


def refuse_missing_partitioner(name: str, found: Slot) -> NoReturn:
    """Raise for a call without partitioner, of a variable of which `found` is the whole or the first slice."""
    raise InvalidArgumentError(
        "No partitioner was provided, but a partitioned version of the variable was found: "
        f"{name}/part_0{_for(name)}{defined(found)} Perhaps a variable of the same name was already created with "
        "partitioning? Give the same partitioner=, or share it in a scope with reuse=True."
    )


def _refuse_plain_slices(frame: DefiningFrame, name: str, cut: Partitioning, reuse: Any) -> None:
    """Refuse to cut a variable into slices of which some exist as variables of their own."""
    slots = frame._by_store_key
    count = len(cut.parts)
    found = [number for number in range(count + 1) if _is_plain(slots.get(f"{name}/part_{number}"))]
    if not found or found == [count]:
        return
    last, extra = f"{name}/part_{count - 1}", f"{name}/part_{count}"
    if 0 in found and (count - 1 not in found or count in found):
        what = f"so was the extra shard {extra}" if count in found else f"{last} was not"
        raise InvalidArgumentError(
            "Partitioner returned a different partitioning than what was already found. Partitioner returned "
            f"{count} shards, and shard {name}/part_0 was found, but {what}{_for(name)}"
        )
    part = slots[f"{name}/part_{found[0]}"]
    raise InvalidArgumentError(
        f"Variable {part.key} already exists, disallowed{_for(name)}{defined(part)} A partitioned variable is one "
        "array here, and does not take over variables that were made as such: give one of them another name."
    )


def _is_plain(slot: Slot | None) -> bool:
    return slot is not None and slot.gotten and not isinstance(slot, PartSlot)


def new_slot(frame: DefiningFrame, definition: Definition, store_key: str, check: Callable[[Slot], None]) -> Slot:
    """Make the slot of the whole and those of its slices; names are taken only once that has worked."""
    key = definition.name  # never an op's name: TF1 saved the slices under the name that was asked for
    check_variable_name(key)
    taken = frame.slots.get(key)
    if taken is not None:
        raise InvalidArgumentError(
            f"Partitioned variable {key} cannot be made{at_site()}: another variable has that name.{defined(taken)} "
            "TF1 could not save the two in one checkpoint: give one of them another name."
        )
    cut = definition.partitioning
    assert cut is not None

    def check_all(made: Slot) -> None:
        if made.shape != cut.shape:
            frame.check_given(made, cut.shape, None)
        check(made)

    slot = frame.make_fitting(definition, key, store_key, check_all)
    _slice(frame, slot, store_key, cut)
    frame._by_store_key[store_key] = frame.slots[key] = slot
    return slot


def _slice(frame: DefiningFrame, slot: Slot, store_key: str, cut: Partitioning) -> None:
    """Give the slot of a whole its slices, and take their op names."""
    wanted = [f"{store_key}/part_{number}" for number in range(len(cut.parts))]
    taken = [frame.graph.variable_op_name(name) for name in wanted]
    parts = part_slots(slot, taken if frame.tf1_op_names else wanted, cut)
    slot.partitioning = cut
    PartitionedVariable.over(slot, parts, cut)
    for name, part in zip(wanted, parts, strict=True):
        frame._by_store_key[name] = part


def create_partitioned_variables(
    shape: Any,
    slicing: Sequence[int],
    initializer: Any,
    dtype: Any = "float32",
    trainable: bool = True,
    collections: Sequence[str] | None = None,
    name: str | None = None,
    reuse: Any = None,
) -> list[Slice]:
    """Make or share a partitioned variable and return its slices. TF1: ``tf.create_partitioned_variables``.

    Newer code calls `get_variable` with a partitioner, whose result is one handle for all of them.

    Args:
      shape: the shape of the whole.
      slicing: how many slices along each axis; one count may exceed 1.
      initializer: as for `get_variable`; of an array, whose dtype counts, each slice gets its part.
      dtype: the dtype.
      trainable: whether optimizers and `jv.grad` touch it.
      collections: names of the collections that the slices join (default ``["variables"]``).
      name: its name; by default ``PartitionedVariable``, made unique.
      reuse: True to share, `jv.AUTO_REUSE` for either, None for the scope's.

    Returns:
      The slices, in order.

    Raises:
      InvalidArgumentError: `shape` and `slicing` do not fit, the scope has a custom getter, or as `get_variable`.
      FailedPreconditionError: outside a frame.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0) as store:
      ...     parts = jv.create_partitioned_variables([5, 2], [2, 1], jv.ones_initializer(), name="table")
      >>> [part.name for part in parts], [part.shape for part in parts], list(store.variables)
      (['table/part_0:0', 'table/part_1:0'], [(3, 2), (2, 2)], ['table'])
    """
    frame = cast("DefiningFrame", current_frame("jv.create_partitioned_variables"))
    what = _for(name or "PartitionedVariable")
    dims = shape_as_tuple(shape)
    if dims is None or len(dims) != len(slicing):
        raise InvalidArgumentError(
            f"The 'shape' and 'slicing' of a partitioned Variable must have the same length: shape: {dims}, "
            f"slicing: {slicing!r}{what}"
        )
    if is_fully_defined(dims):
        call_partitioner(lambda **_: slicing, dims, as_dtype(dtype), what)
    getter = get_variable_scope().custom_getter
    if getter is not None:
        raise InvalidArgumentError(
            "create_partitioned_variables is not allowed when a custom getter is set. Current custom getter: "
            f"{getter!r}{what} Write: jv.get_variable(name, shape, partitioner=...)"
        )
    with variable_scope(name, "PartitionedVariable", reuse=reuse) as scope:
        given = scope.initializer if initializer is None else initializer
        found = root_name_scope(
            frame.get, scope.name, dims, dtype, given, scope.regularizer, scope.reuse, bool(trainable), collections,
            partitioner=lambda **_: slicing,
        )  # fmt: skip
        return list(cast(PartitionedVariable, found))


def _for(name: str) -> str:
    return f", for variable {name}{at_site()}."

"""How `jaxvars.assign` works: find the variable, check, run the jitted update, put the result in place."""

from __future__ import annotations

from typing import Any, NoReturn, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import SingleDeviceSharding

from jaxvars._arguments import value_as_array
from jaxvars._compat import is_committed, sharding_of
from jaxvars._source import user_site
from jaxvars.buffers import copied, is_concrete, note_donation
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, OutOfRangeError
from jaxvars.keeping import kept
from jaxvars.scatter import prepare_scatter
from jaxvars.spec import is_hole, leaf_dtype, leaf_shape
from jaxvars.updates import jitted, jitted_sharded
from jaxvars.values import defined_text, is_number, prepare, prepare_limit
from jaxvars.variables import Variables

__all__ = ["counted", "set_other_shape", "set_value", "scattered", "updated"]

# Python numbers in a variable's dtype: (type, value, dtype) -> NumPy array, from the second use on a device
# array, which saves a transfer at each call. Loops add the same 1 or 1.0 over and over.
_numbers: dict[tuple[type, Any, Any], Any] = {}
_MAX_NUMBERS = 256
_NUMBER_TYPES = frozenset({int, float})


def _target(variables: Variables, ref: Any, op: str) -> tuple[int, Any]:
    """Position and present value of the variable that `ref` names; a deleted value raises."""
    if not isinstance(cast(object, variables), Variables):
        raise InvalidTypeError(
            f"{op} takes the variables first, got {type(variables).__name__}. "
            f"Write: variables = jv.{op}(variables, ref, ...)"
        )
    position = variables._layout.index.get(ref) if type(ref) is str else None
    if position is None:
        position = variables._position(ref)
        if hasattr(type(ref), "within"):
            _refuse_slice(ref, op)
    current = variables._leaf(position)
    if is_concrete(current) and current.is_deleted():
        variables._raise_deleted(position, current)
    return position, current


def _refuse_slice(ref: Any, op: str) -> NoReturn:
    where = ", ".join(f"{cut.start}:{cut.stop}" for cut in ref.part.where)
    raise InvalidArgumentError(
        f'{op} of {ref.op.name}: outside of its frame a slice is a part of the array "{ref.key}". Write:\n'
        f'    whole = variables["{ref.key}"].at[{where}].set(value)\n'
        f'    variables = jv.assign(variables, "{ref.key}", whole)'
    )


def _initialized(variables: Variables, ref: Any, op: str) -> tuple[int, Any]:
    position, current = _target(variables, ref, op)
    if is_hole(current):
        _raise_uninitialized(variables, position, op)
    return position, current


def _raise_uninitialized(variables: Variables, position: int, op: str) -> NoReturn:
    key = variables._layout.keys[position]
    raise FailedPreconditionError(
        f"Attempting to use uninitialized value {key}: {op} needs its present value. "
        f'Write: variables = jv.variables_initializer(variables, 0, ["{key}"])'
        + defined_text(variables._layout.defined_at[position])
    )


def updated(op: str, variables: Variables, ref: Any, value: Any, donate: bool) -> Variables:
    if type(ref) is str and not donate and isinstance(variables, Variables):  # pyright: ignore[reportUnnecessaryIsInstance]
        position = variables._layout.index.get(ref)
        if position is not None:
            new = _quick(op, variables._leaf(position), value)
            if new is not None:
                return variables._set_at(position, new)
    position, current = _target(variables, ref, op)
    if is_hole(current):
        _raise_uninitialized(variables, position, op)
    return _run(variables, position, op, current, (_value(variables, position, op, current, value),), donate)


def _quick(op: str, current: Any, value: Any) -> Any:
    """The result for the two common cases, or None: nothing to convert, and all on the default device.

    Worth its lines: these few attribute reads decide whether an assignment costs a tenth or half as much
    again as the addition itself. What is fixed about two arrays is their `aval`, one and the same object at
    each turn of a loop, so it is looked at once.
    """
    kind = type(value)
    if kind in _NUMBER_TYPES:
        value = _numbers.get((kind, value, getattr(current, "dtype", None)))
        kind = type(value)
    known, target, given, function = _plans.get(op, _NO_PLAN)
    if known is not kind or known is not type(current) or given is not value.aval or target is not current.aval:
        function = _planned(op, current, value)
        if function is None:
            return None
    if type(sharding_of(current)) is not SingleDeviceSharding or is_committed(value):
        return None
    try:
        return function(current, value)
    except (RuntimeError, ValueError):
        if current.is_deleted():
            return None  # the long way names the variable
        raise


# Operation -> type, both `aval` and the function of its last call.
_plans: dict[str, tuple[Any, Any, Any, Any]] = {}
_NO_PLAN = (None, None, None, None)


def _planned(op: str, current: Any, value: Any) -> Any:
    """The jitted function for two arrays of one shape and dtype, kept for the next call; else None."""
    if not is_concrete(current) or type(current) is not type(value):
        return None
    target, given = current.aval, value.aval
    alike = given.shape == target.shape and given.dtype is target.dtype and not given.weak_type
    alike = alike and given.memory_space == target.memory_space
    if not alike or not is_number(target.dtype):
        return None
    function = jitted(op, False)
    _plans[op] = (type(current), target, given, function)
    return function


def _value(variables: Variables, position: int, op: str, current: Any, value: Any) -> Any:
    """`value` checked and in the variable's dtype. Numbers that come again are kept on the device."""
    layout, dtype = variables._layout, leaf_dtype(current)
    key, site = layout.keys[position], layout.defined_at[position]
    array = prepare(op, key, leaf_shape(current), dtype, value, site)
    # 0.0 and -0.0 are one dictionary key, and nan is never found again.
    if type(value) not in _NUMBER_TYPES or value == 0 or value != value:
        return array
    name = (type(value), value, dtype)
    if name in _numbers:
        return _promoted(name, array)
    if len(_numbers) >= _MAX_NUMBERS:
        _numbers.clear()
    _numbers[name] = array
    return array


def _promoted(name: tuple[type, Any, Any], number: Any) -> Any:
    array = jnp.asarray(number)
    if is_concrete(array):  # under a trace it may be a tracer, which must not outlive the trace
        _numbers[name] = array
    return array


def scattered(op: str, variables: Variables, ref: Any, indices: Any, updates: Any, donate: bool) -> Variables:
    position, current = _initialized(variables, ref, op)
    layout = variables._layout
    arguments = prepare_scatter(
        op,
        layout.keys[position],
        leaf_shape(current),
        leaf_dtype(current),
        indices,
        updates,
        layout.defined_at[position],
    )
    return _run(variables, position, op, current, arguments, donate)


def _run(
    variables: Variables, position: int, op: str, current: Any, arguments: tuple[Any, ...], donate: bool
) -> Variables:
    """Run the jitted update and put its result in place."""
    if is_concrete(current):
        home = current.sharding
        single = type(home) is SingleDeviceSharding
        if current.aval.memory_space != jax.memory.Space.Device:
            return _run_near(variables, position, op, current, arguments)
        if any(is_concrete(argument) and argument.committed for argument in arguments):
            arguments = tuple(_at(home, item) for item in arguments)
        if not (single or current.size):
            # XLA gives the shards of an empty array wrong shapes: no `out_shardings` here, and nothing to donate.
            return variables._set_at(position, jax.device_put(jitted(op, False)(current, *arguments), home))
        function = jitted(op, donate) if single else jitted_sharded(op, donate, home)
    else:
        function = jitted(op, donate)
    if not donate:
        new = function(current, *arguments)
        if isinstance(new, Tracer) and variables._layout.placed:
            new = kept(variables._layout.placement[position], current, new)
        return variables._set_at(position, new)
    # One buffer cannot be both donated and read.
    new = function(current, *(copied(item) if item is current else item for item in arguments))
    if is_concrete(current) and current.is_deleted():
        note_donation(current, f"donated by {op}(..., donate=True)" + _at_site())
    return variables._set_at(position, new)


def _at(home: Any, argument: Any) -> Any:
    """`argument` on the devices of the variable, where it is committed to others."""
    if not is_concrete(argument) or argument.sharding.device_set == home.device_set:
        return argument
    single = type(home) is SingleDeviceSharding
    whole = home if single else jax.sharding.NamedSharding(home.mesh, jax.sharding.PartitionSpec())
    return jax.device_put(argument, whole)


def _run_near(variables: Variables, position: int, op: str, current: Any, arguments: tuple[Any, ...]) -> Variables:
    """Update a variable that is kept in the memory of the host: JAX computes with values of one memory only."""
    near = jax.device_put(current, current.sharding.with_memory_kind("device"))
    after = _run(variables, position, op, near, arguments, False)
    return after._set_at(position, jax.device_put(after._leaf(position), current.sharding))


def _at_site() -> str:
    site = user_site()
    return f" at {site}" if site else ""


def _home(current: Any) -> Any:
    """Where a new value goes: the sharding of the old one, or the default device if it was not committed."""
    return current.sharding if current.committed or len(current.sharding.device_set) > 1 else None


def _filled(variables: Variables, position: int, hole: Any, value: Any) -> Any:
    """`value` for a variable that had none, placed where its hole says."""
    layout = variables._layout
    array = prepare("assign", layout.keys[position], hole.shape, hole.dtype, value, layout.defined_at[position])
    if isinstance(array, Tracer):
        return array
    return jax.device_put(array, hole.sharding, may_alias=False)


def set_value(variables: Variables, ref: Any, value: Any, donate: bool) -> Variables:
    """The work of `jaxvars.assign.assign`."""
    position, current = _target(variables, ref, "assign")
    if is_hole(current):
        return variables._set_at(position, _filled(variables, position, current, value))
    array = _value(variables, position, "assign", current, value)
    if not donate and not isinstance(array, Tracer) and is_concrete(current):
        home = current.sharding
        if not is_concrete(array) or array.sharding != home:
            place = home if is_concrete(array) and array.committed else _home(current)
            return variables._set_at(position, jax.device_put(array, place, may_alias=False))
    return _run(variables, position, "assign", current, (array,), donate)


def set_other_shape(variables: Variables, ref: Any, value: Any, donate: bool) -> Variables:
    """As `set_value`, for a value that may have another shape than the variable."""
    position, current = _target(variables, ref, "assign")
    shape = tuple(value_as_array(value).shape)
    if shape == leaf_shape(current):
        return set_value(variables, ref, value, donate)
    layout = variables._layout
    array = prepare("assign", layout.keys[position], shape, leaf_dtype(current), value, layout.defined_at[position])
    return variables._set_at(position, jnp.copy(array))


def counted(variables: Variables, ref: Any, limit: Any, donate: bool) -> Variables:
    """The work of `jaxvars.assign.count_up_to`."""
    position, current = _initialized(variables, ref, "count_up_to")
    key, site = variables._layout.keys[position], variables._layout.defined_at[position]
    bound = prepare_limit(key, leaf_shape(current), leaf_dtype(current), limit, site)
    known = not isinstance(current, Tracer) and not isinstance(bound, Tracer)
    if known and int(current) >= int(bound):
        raise OutOfRangeError(f'count_up_to on "{key}": Reached limit of {int(bound)}.' + defined_text(site))
    return _run(variables, position, "count_up_to", current, (bound,), donate)

"""What a `get_variable` call defines: from its arguments to a hole that can be filled, or a value the model made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.core import Tracer

from jaxvars import _compat, refusals
from jaxvars._arguments import as_dtype, shape_as_tuple, value_dtype
from jaxvars._source import user_site
from jaxvars.errors import InvalidArgumentError, JaxvarsError, TransformError
from jaxvars.fitting import fitted
from jaxvars.initializers import (
    Initializer,
    Normalized,
    as_initializer,
    check_constant_without_shape,
    default_initializer,
    is_constant,
)
from jaxvars.initializers._calling import ZeroArgument
from jaxvars.scopes.device_scope import VariableOp, current_home
from jaxvars.scopes.names import is_variable_name
from jaxvars.scopes.request import in_name_scope
from jaxvars.spec import Hole, Placement
from jaxvars.values import prepare

if TYPE_CHECKING:
    from jaxvars.scopes.slicing import Partitioning

__all__ = ["Definition", "Made", "asked_for", "at_home", "compatible", "define", "expected", "plainly_defined"]


class Definition(NamedTuple):
    """The arguments that decide what a new variable is.

    Attributes:
      name: the full name.
      shape: as the user gave it.
      dtype: the one given, else the scope's.
      initializer: as the user gave it; for ``jv.Variable`` the initial value.
      collections: the collections it joins.
      trainable: whether optimizers touch it.
      constraint: applied by optimizers, or None.
      converts: whether the value takes `dtype` (``tf.Variable``) instead of keeping its own (``get_variable``).
      partitioning: the slices of a partitioned variable, or None.
    """

    name: str
    shape: Any
    dtype: Any
    initializer: Any
    collections: Sequence[str] | None
    trainable: bool
    constraint: Callable[[Any], Any] | None = None
    converts: bool = False
    partitioning: Partitioning | None = None


class Made(NamedTuple):
    """A defined variable: its hole, its value where only the running model knows it, and a note of its home."""

    hole: Hole
    value: Any
    placement: Placement = None


def expected(
    name: str, shape: Any, dtype: Any, initializer: Any, converts: bool = False
) -> tuple[tuple[int | None, ...] | None, Any]:
    """Return the shape and dtype that a call asks for, None where it leaves them open.

    Raises:
      InvalidArgumentError: a constant initializer and a shape, which TF1 checks before anything else.
    """
    if initializer is None or callable(initializer):
        if converts:
            return None, None if dtype is None else as_dtype(dtype)
        return shape_as_tuple(shape), None if shape is None else as_dtype(dtype)
    check_constant_without_shape(initializer, shape, name)
    found = value_dtype(initializer)
    if converts and dtype is not None:
        found = as_dtype(dtype)
    return _constant_shape(initializer), found


def asked_for(definition: Definition) -> tuple[tuple[int | None, ...] | None, Any]:
    """Return what `expected` does, for the arguments of a definition."""
    shape, dtype = definition.shape, definition.dtype
    return expected(definition.name, shape, dtype, definition.initializer, definition.converts)


def _constant_shape(value: Any) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    return tuple(shape) if shape is not None else None


def define(definition: Definition, frame_level: Callable[[], AbstractContextManager[Any]], trace: Any) -> Made:
    """Work out shape, dtype and initializer of a new variable, with TF1's checks.

    Args:
      definition: the arguments of the call.
      frame_level: opens the frame's own trace, where initial values are computed.
      trace: that trace.

    Returns:
      The hole, whose initializer fills it; or the value itself where the running model computed it.

    Raises:
      InvalidArgumentError: no shape, no initializer, a value that does not fit; names the variable.
      TransformError: an initial value computed inside a JAX transform.
    """
    if is_constant(definition.initializer):
        _refuse_inner(definition.initializer, definition.name, trace)
    with frame_level():
        made = in_name_scope(f"{definition.name}/Initializer", _normalized, definition)
        if definition.converts and definition.dtype is not None:
            made = _converted(made, definition)
    value = getattr(made.initializer, "value", None)
    if isinstance(value, Tracer):
        _refuse_inner(value, definition.name, trace)
        with frame_level():
            return Made(Hole(made.shape, made.dtype), made.initializer(None, made.shape, made.dtype))
    home = getattr(made.initializer, "placement", None)
    return Made(Hole(made.shape, made.dtype, initializer=made.initializer), None, home)


@functools.cache
def _usual_default(dtype: Any) -> Initializer | None:
    """The default initializer of the dtypes that almost every variable has; None for others."""
    return default_initializer(dtype, "") if str(dtype) in ("float32", "int32") else None


def plainly_defined(definition: Definition) -> Made | None:
    """Return what `define` does for a plain shape and an initializer of ours, None for anything else or a mistake."""
    shape, initializer = definition.shape, definition.initializer
    if type(shape) is not list and type(shape) is not tuple:
        return None
    for size in shape:
        if type(size) is not int or size < 0:
            return None
    if not is_variable_name(definition.name):
        return None
    dtype = as_dtype(definition.dtype)
    if initializer is None:
        initializer = _usual_default(dtype)
    if not isinstance(initializer, Initializer) or isinstance(getattr(initializer, "value", None), Tracer):
        return None
    shape = tuple(shape)
    try:
        initializer.check(shape, dtype)
    except JaxvarsError:
        return None
    return Made(Hole(shape, dtype, initializer=initializer), None, initializer.placement)


def _normalized(definition: Definition) -> Normalized:
    """The initializer; functions without arguments, which may read variables of this frame, are called here and now."""
    name, initializer, dtype = definition.name, definition.initializer, definition.dtype
    if definition.partitioning is not None and not is_constant(initializer):
        from jaxvars.initializers._sliced import sliced_initializer  # here: few programs cut variables

        return sliced_initializer(initializer, definition.partitioning, dtype, name)
    made = as_initializer(initializer, definition.shape, dtype, name)
    if not isinstance(made.initializer, ZeroArgument):
        return made
    value = as_initializer(made.initializer.function(), None, None, name)
    wanted = shape_as_tuple(definition.shape)
    if not compatible(wanted, value.shape):
        raise InvalidArgumentError(
            f"Variable {name}: the initializer returned a value of shape {value.shape}, but shape={wanted} was asked "
            "for: leave out shape=."
        )
    return value


def at_home(made: Made, key: str, graph: Any, partitioning: Partitioning | None) -> Made:
    """Return a variable that is being made with the home that the `jv.device` blocks around it give.

    A device string is only noted; a sharding is where the hole will be filled, and the note keeps what was wanted.
    Device functions are asked for each slice of a partitioned variable, as in TF1, where each took a task of its own;
    the one array lives with the first. A rule over a mesh is asked for the whole.

    Args:
      made: the variable.
      key: its key.
      graph: the names of its frame.
      partitioning: its slices, or None.

    Raises:
      InvalidArgumentError: a device function returned a malformed string.
      InvalidTypeError: one returned no string or sharding.
    """
    shape, dtype = made.hole.shape, made.hole.dtype
    if partitioning is None:
        home = current_home(key, shape, dtype, graph)
    else:
        whole = VariableOp(key, "", shape, dtype, graph, partitions=partitioning.partitions)
        names = [f"{key}/part_{number}" for number in range(len(partitioning.parts))]
        slices = zip(names, partitioning.parts, strict=True)
        home, *_ = [current_home(name, part.shape, dtype, graph, whole) for name, part in slices]
    if home is None:
        return made
    if home.sharding is None:
        return made._replace(placement=home.note)
    hole = made.hole.update(sharding=fitted(home.sharding, shape))
    return made._replace(hole=hole, placement=getattr(home.sharding, "spec", None))


def _converted(made: Normalized, definition: Definition) -> Normalized:
    value = getattr(made.initializer, "value", None)
    dtype = as_dtype(definition.dtype)
    if value is None or dtype == made.dtype:
        return made
    return as_initializer(prepare("Variable", definition.name, made.shape, dtype, value), None, dtype, definition.name)


def _refuse_inner(value: Any, name: str, trace: Any) -> None:
    leaves = jax.tree.leaves(value)
    if any(_compat.is_leaked(leaf, trace) for leaf in leaves):
        raise TransformError(refusals.initial_value_inside(name, user_site()))


def compatible(asked: Sequence[int | None] | None, found: tuple[int, ...]) -> bool:
    """Whether a shape fits what was asked for; None is open, as a whole or in one dimension."""
    if asked is None or asked == found:
        return True
    return len(asked) == len(found) and all(a is None or a == b for a, b in zip(asked, found, strict=True))

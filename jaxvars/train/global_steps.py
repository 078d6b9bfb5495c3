"""The counter of training steps: an integer scalar named ``global_step``, not trainable.

TF1 made it in the graph. Here it is made either in the model (the forms without arguments, inside a frame,
which return the handle) or beside it (the forms that take the `Variables` and return a value). It is int32,
or int64 with ``jax_enable_x64``; TensorFlow files hold it as int64 either way.
"""

from __future__ import annotations

from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars._source import user_site
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.spec import VariableSpec, is_hole
from jaxvars.train.beside import beside, note_beside
from jaxvars.variables import Variables

__all__ = [
    "create_global_step",
    "find_global_step",
    "get_global_step",
    "get_or_create_global_step",
    "global_step",
]

_NAME = "global_step"  # of the variable and of the collection
_COLLECTIONS = ("variables", _NAME)
_MADE_BY = "The step counter is made by jv.train.get_or_create_global_step; another variable needs another name."


@overload
def create_global_step(variables: None = None) -> Any: ...
@overload
def create_global_step(variables: Variables) -> Variables: ...
def create_global_step(variables: Variables | None = None) -> Any:
    """Make the step counter, 0 (`tf.train.create_global_step`).

    Args:
      variables: the state to add it to; None inside a frame.

    Returns:
      The state with ``global_step``; inside a frame the handle.

    Raises:
      InvalidArgumentError: there is one already.
      FailedPreconditionError: without argument outside of a frame.

    Example:
      >>> import jaxvars as jv
      >>> variables = jv.train.create_global_step(jv.Variables({}))
      >>> print(variables["global_step"], variables.variable_specs["global_step"].trainable)
      0 False
    """
    if _found(variables, "jv.train.create_global_step") is not None:
        raise InvalidArgumentError(
            '"global_step" already exists. Write: jv.train.get_or_create_global_step'
            + ("()" if variables is None else "(variables)")
        )
    if variables is None:
        return _create_in_frame()
    dtype = _dtype()
    specs = variables.variable_specs
    pairs: list[tuple[VariableSpec, Any]] = [
        (specs[key], variables._leaves[variables._layout.index[key]]) for key in variables._layout.creation_order
    ]
    (value,) = beside(variables, [None], [jnp.zeros((), dtype)])
    spec = VariableSpec(_NAME, (), dtype, False, _COLLECTIONS, note_beside(specs, None, value), defined_at=user_site())
    return variables._alike(Variables.from_specs([*pairs, (spec, value)]))


@overload
def get_or_create_global_step(variables: None = None) -> Any: ...
@overload
def get_or_create_global_step(variables: Variables) -> Variables: ...
def get_or_create_global_step(variables: Variables | None = None) -> Any:
    """Return the step counter, made when there is none (`tf.train.get_or_create_global_step`).

    Args:
      variables: the state to look in and add it to; None inside a frame.

    Returns:
      The state with a step counter; inside a frame the handle.

    Raises:
      InvalidTypeError: there is one that is not an integer scalar.
      FailedPreconditionError: without argument outside of a frame.

    Example:
      >>> import jaxvars as jv
      >>> variables = jv.train.get_or_create_global_step(jv.Variables({}))
      >>> jv.train.get_or_create_global_step(variables) is variables
      True
    """
    found = _found(variables, "jv.train.get_or_create_global_step")
    if variables is None:
        return _create_in_frame() if found is None else found
    return create_global_step(variables) if found is None else variables


def get_global_step(variables: Variables | None = None) -> Any:
    """Return the step counter, or None (`tf.train.get_global_step`).

    Looks in the collection "global_step", then for the name.

    Args:
      variables: the state to look in; None inside a frame.

    Returns:
      The value, an integer scalar; inside a frame the handle; None where there is none.

    Raises:
      InvalidTypeError: it is not an integer scalar.
      InvalidArgumentError: the collection holds several.
      FailedPreconditionError: without argument outside of a frame.

    Example:
      >>> import jaxvars as jv
      >>> print(jv.train.get_global_step(jv.Variables({})))
      None
    """
    return _found(variables, "jv.train.get_global_step")


def global_step(variables: Variables, ref: Any = None) -> int:
    """Return the step counter as an int (`tf.train.global_step(sess, tensor)`).

    Args:
      variables: the state, with concrete values.
      ref: the counter's name or handle; None finds it.

    Raises:
      FailedPreconditionError: there is none, or it has no value.
      NotFoundError: no variable of that name.

    Example:
      >>> import jaxvars as jv
      >>> variables = jv.train.create_global_step(jv.Variables({}))
      >>> jv.train.global_step(jv.assign_add(variables, "global_step", 3))
      3
    """
    key = find_global_step(variables, "jv.train.global_step") if ref is None else variables._resolve(ref)
    value = _checked(variables[key], key)
    if is_hole(value):
        raise FailedPreconditionError(f'"{key}" has no value. Write: variables = jv.assign(variables, "{key}", 0)')
    return int(value)


def find_global_step(variables: Variables, user: str) -> str:
    """The key of the step counter that `user` needs; an error that says how to make one."""
    key = _key(variables)
    if key is None:
        raise FailedPreconditionError(
            f"{user} needs the step counter, and there is none. Write: variables = "
            "jv.train.create_global_step(variables), and count in it: "
            'optimizer.apply_gradients(grads, variables, global_step="global_step")'
        )
    _checked(variables[key], key)
    return key


def _key(variables: Variables) -> str | None:
    rows = zip(variables, variables._layout.collections, strict=True)
    members = [key for key, collections in rows if _NAME in collections]
    if len(members) > 1:
        raise InvalidArgumentError(
            f'several variables are in the collection "global_step": {", ".join(members)}. Name one'
        )
    if members:
        return members[0]
    return _NAME if _NAME in variables else None


def _found(variables: Variables | None, call: str) -> Any:
    """The counter's value, or in a frame its handle; None where there is none. `call` is who asks."""
    if variables is None:
        return _find_in_frame(call)
    key = _key(variables)
    return None if key is None else _checked(variables[key], key)


def _find_in_frame(call: str) -> Any:
    from jaxvars.frame import current_frame
    from jaxvars.store import get_collection, global_variables

    current_frame(call)
    members = get_collection(_NAME)
    if len(members) > 1:
        names = ", ".join(handle.key for handle in members)
        raise InvalidArgumentError(f'several variables are in the collection "global_step": {names}')
    named = members or [handle for handle in global_variables() if handle.key == _NAME]
    return _checked(named[0], named[0].key) if named else None


def _create_in_frame() -> Any:
    from jaxvars.initializers import zeros_initializer
    from jaxvars.store import get_variable

    return get_variable(
        _NAME,
        shape=[],
        dtype=_dtype(),
        initializer=zeros_initializer(),
        trainable=False,
        collections=list(_COLLECTIONS),
    )


def _dtype() -> Any:
    return jax.dtypes.canonicalize_dtype(np.int64)


def _checked(value: Any, key: str) -> Any:
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise InvalidTypeError(f'Existing "{key}" does not have integer type: {value.dtype}. {_MADE_BY}')
    if tuple(value.shape) != ():
        raise InvalidTypeError(f'Existing "{key}" is not scalar: {tuple(value.shape)}. {_MADE_BY}')
    return value

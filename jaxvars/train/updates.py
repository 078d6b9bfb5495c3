"""The checks and small steps around an optimizer's update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.keeping import kept
from jaxvars.spec import is_hole
from jaxvars.variables import Variables

__all__ = [
    "check_inexact",
    "check_within",
    "combined",
    "counter_key",
    "live",
    "named_gradients",
    "replaced",
    "shortened",
    "stored",
    "stored_shape",
    "updated",
]


def named_gradients(grads: Any, variables: Variables) -> dict[str, jax.Array]:
    """The gradients that are there, by key, in the dtypes of their variables; all problems in one error."""
    pairs = list(_pairs(grads))
    if not pairs:
        raise InvalidArgumentError("no variables provided: the gradients are empty")
    unknown: list[str] = []
    given: dict[str, Any] = {}
    twice: list[str] = []
    for ref, gradient in pairs:
        try:
            key = variables._resolve(ref)
        except NotFoundError as error:
            unknown.append(f"  {error}")
            continue
        if key in given:
            twice.append(key)
        if gradient is not None:
            given[key] = gradient
    if unknown:
        raise NotFoundError("gradients for variables that do not exist:\n" + "\n".join(unknown))
    if twice:
        raise InvalidArgumentError(f"more than one gradient for: {shortened(twice)}. Add them up first")
    if not given:
        names = shortened([str(getattr(ref, "key", ref)) for ref, _ in pairs])
        raise InvalidArgumentError(f"no gradients provided for any variable: {names}")
    check_inexact(variables, given)
    _check_gradients(given, variables)
    return {key: jnp.asarray(gradient).astype(variables[key].dtype) for key, gradient in given.items()}


def _pairs(grads: Any) -> Iterator[tuple[Any, Any]]:
    """(variable, gradient) pairs of a mapping, or of TF1's list of (gradient, variable)."""
    if isinstance(grads, Mapping):
        yield from cast("Mapping[Any, Any]", grads).items()
        return
    hint = "gradients are a Variables from jv.grad, a mapping from names, or a list of (gradient, name) pairs"
    if isinstance(grads, jax.Array | np.ndarray) or not isinstance(grads, Iterable):
        raise InvalidTypeError(f"{hint}, not {type(grads).__name__}")
    for pair in cast("Iterable[Any]", grads):
        if not (isinstance(pair, tuple | list) and len(cast("Sequence[Any]", pair)) == 2):
            raise InvalidTypeError(
                f"{hint}; got one with a {type(pair).__name__}. Of value, grads = "
                "jv.value_and_grad(...)(variables) pass grads"
            )
        gradient, ref = cast("Sequence[Any]", pair)
        if not (isinstance(ref, str) or hasattr(ref, "key")):
            raise InvalidTypeError(f"{hint}; got a pair whose second is a {type(ref).__name__}")
        yield ref, gradient


def _check_gradients(given: Mapping[str, Any], variables: Variables) -> None:
    holes = [key for key in given if is_hole(variables[key])]
    if holes:
        raise FailedPreconditionError(
            f"gradients for variables without a value: {shortened(holes)}. Initialize them first: "
            "variables = model.init(0, *args, variables=variables)"
        )
    problems: list[str] = []
    for key, gradient in given.items():
        value = variables[key]
        if is_hole(gradient):
            problems.append(f"  {key}: the gradient is a hole, a shape without value")
        elif np.shape(gradient) != value.shape:
            problems.append(f"  {key}: shape {value.shape}, gradient {np.shape(gradient)}")
        elif jnp.iscomplexobj(gradient) and not jnp.iscomplexobj(value):
            problems.append(f"  {key}: dtype {value.dtype}, gradient {jnp.result_type(gradient)}")
    if problems:
        raise InvalidArgumentError("gradients that do not fit their variables:\n" + "\n".join(problems))


def check_inexact(variables: Variables, keys: Iterable[str]) -> None:
    """Raise where a key holds integers or booleans."""
    problems = [
        f"  {key}: {variables[key].dtype}" for key in keys if not jnp.issubdtype(variables[key].dtype, jnp.inexact)
    ]
    if problems:
        raise InvalidTypeError(
            "only variables of a floating or complex dtype can be optimized; leave out:\n" + "\n".join(problems)
        )


def check_within(given: Mapping[str, Any], managed: Sequence[str], name: str) -> None:
    """Raise where a gradient belongs to a variable outside of the optimizer's var_list."""
    allowed = set(managed)
    outside = [key for key in given if key not in allowed]
    if outside:
        raise InvalidArgumentError(
            f"gradients for variables outside of the var_list of {name}: {shortened(outside)}. "
            "Pass the same selection as wrt= to jv.value_and_grad"
        )


def counter_key(ref: Any, variables: Variables) -> str:
    """The key of the step counter that `ref` names; an error unless it is an integer scalar."""
    if not (isinstance(ref, str) or hasattr(ref, "key")):
        raise InvalidTypeError(
            f"global_step is the name or handle of a variable, not {type(ref).__name__}. "
            'Write: global_step="global_step"'
        )
    try:
        key = variables._resolve(ref)
    except NotFoundError as error:
        raise NotFoundError(f"{error} To make it: variables = jv.train.create_global_step(variables)") from None
    value = variables[key]
    if is_hole(value):
        raise FailedPreconditionError(f'"{key}" has no value. Write: variables = jv.assign(variables, "{key}", 0)')
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise InvalidTypeError(f'Existing "{key}" does not have integer type: {value.dtype}')
    if value.shape != ():
        raise InvalidTypeError(f'Existing "{key}" is not scalar: {value.shape}')
    return key


def updated(params: Variables, changes: Variables) -> Iterator[tuple[str, jax.Array]]:
    """Each variable after its change and its constraint, in its own dtype."""
    constraints = params._layout.constraints
    rows = zip(params, params._leaves, jax.tree.leaves(changes), constraints, strict=True)
    for key, value, change, constraint in rows:
        new = (value + change).astype(value.dtype)
        yield key, new if constraint is None else _constrained(key, new, constraint)


def _constrained(key: str, value: jax.Array, constraint: Any) -> jax.Array:
    result = jnp.asarray(constraint(value))
    if result.shape != value.shape:
        raise InvalidArgumentError(
            f'the constraint of "{key}" must keep the shape; it turned {value.shape} into {result.shape}'
        )
    return result.astype(value.dtype)


def replaced(variables: Variables, changed: Mapping[str, Any]) -> Variables:
    """The variables with these values, in the dtypes they had and spread as they were."""
    index, notes = variables._layout.index, variables._layout.placement
    leaves = list(variables._leaves)
    for key, value in changed.items():
        position = index[key]
        new = stored(value)
        old = leaves[position]
        leaves[position] = kept(notes[position], old, new if new.dtype == old.dtype else new.astype(old.dtype))
    return variables._with_leaves(leaves)


def combined(variables: Variables, partners: Mapping[str, str], function: Callable[[Any, Any], Any]) -> Variables:
    """The variables with ``function(value, value of its partner)`` under each name of `partners`.

    The function works element by element: packed variables are taken buffer by buffer.
    """
    buffers = variables._paired(partners)
    if buffers is None:
        return replaced(variables, {key: function(variables[key], variables[of]) for key, of in partners.items()})
    packed: Any = variables
    children = packed._children
    return packed._with_children({i: function(children[i], children[j]) for i, j in buffers.items()})


def stored(leaf: Any) -> jax.Array:
    """A leaf of an optax state as a variable holds it: a strong-typed array, random keys as their bits."""
    array = jnp.asarray(leaf)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(array)
    return jax.lax.convert_element_type(array, array.dtype) if array.weak_type else array


def stored_shape(struct: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of the variable that holds a leaf of this shape and dtype."""
    if jnp.issubdtype(struct.dtype, jax.dtypes.prng_key):
        bits = jax.eval_shape(jax.random.key_data, struct)
        return bits.shape, bits.dtype
    return struct.shape, struct.dtype


def live(value: jax.Array, struct: Any) -> jax.Array:
    """The inverse of `stored`."""
    if jnp.issubdtype(struct.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(value, impl=_key_impl(struct))
    return value


def _key_impl(struct: Any) -> Any:
    """The random generator that keys of this dtype belong to; JAX tells it of keys and tracers only."""
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), struct)
    return found[0]


def shortened(names: Sequence[str], limit: int = 10) -> str:
    """Names for an error text, the first few of many."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")

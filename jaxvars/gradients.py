"""Gradients with respect to the trainable variables, and to nothing else.

`jax.grad` differentiates a whole argument; a TF1 program differentiates its trainable variables and leaves
moving averages, counters and frozen layers alone. `grad` and `value_and_grad` do that for loss functions of
a `Variables`: what is not selected is held constant, and gradients come back under the variables' names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars import refusals
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.spec import is_hole
from jaxvars.variables import Variables

__all__ = ["grad", "value_and_grad"]


def value_and_grad(
    loss_fn: Callable[..., Any], has_aux: bool = False, wrt: Any = None
) -> Callable[..., tuple[Any, Variables]]:
    """Make a function that computes a loss and its gradients by variable name.

    The counterpart of TF1's `optimizer.compute_gradients(loss, var_list)`. Works inside `jit`, `vmap` and
    `scan`, as `jax.value_and_grad` does.

    Args:
      loss_fn: ``loss_fn(variables, *args, **kwargs)``, which returns a real scalar, or ``(scalar, aux)``
        with `has_aux`. `aux` may be any pytree, such as the `Variables` that ``model.apply`` returned.
      has_aux: whether `loss_fn` returns such a pair.
      wrt: what to differentiate. None: every trainable variable of a floating or complex dtype. Else a name
        or handle, a list of them, a pattern or rules as in `Variables.select`, or a view such as
        ``variables.scope("head")``. Patterns and views choose among the trainable variables; those named in full, and
        a view of which none is trainable, need not be.

    Returns:
      A function of the same arguments that returns ``(value, gradients)``, where `value` is what `loss_fn`
      returned and `gradients` a `Variables` of just the selected keys, with the same shapes and dtypes.

    Raises:
      NotFoundError: a name that is not among the variables.
      InvalidArgumentError: nothing to differentiate, or a loss that is not a real scalar.
      InvalidTypeError: a selected variable of an integer or boolean dtype, or a loss function that returns
        a tuple without `has_aux`.
      FailedPreconditionError: a variable without a value.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"w": jnp.array([1.0, 2.0]), "step": jnp.array(3)})
      >>> loss, gradients = jv.value_and_grad(lambda v, x: jnp.sum(v["w"] ** 2 * x))(variables, 2.0)
      >>> print(loss, gradients["w"], list(gradients))
      10.0 [4. 8.] ['w']
    """
    wrt = without_values(wrt)

    @functools.wraps(loss_fn)
    def wrapped(variables: Variables, *args: Any, **kwargs: Any) -> tuple[Any, Variables]:
        check_variables(variables, "jv.value_and_grad(loss_fn)(variables, ...)")
        keys = differentiable_keys(variables, wrt)
        (loss, aux), gradients = differentiate(loss_fn, variables, keys, args, kwargs, _splitter(has_aux))
        return ((loss, aux) if has_aux else loss), gradients

    return wrapped


def grad(
    loss_fn: Callable[..., Any], has_aux: bool = False, wrt: Any = None
) -> Callable[..., Variables | tuple[Variables, Any]]:
    """Make a function that computes the gradients of a loss by variable name.

    As `value_and_grad`, without the value.

    Args:
      loss_fn: ``loss_fn(variables, *args, **kwargs)``, which returns a real scalar, or ``(scalar, aux)``.
      has_aux: whether `loss_fn` returns such a pair.
      wrt: what to differentiate, as in `value_and_grad`.

    Returns:
      A function that returns the gradients as a `Variables`, or ``(gradients, aux)`` with `has_aux`.

    Raises:
      NotFoundError, InvalidArgumentError, InvalidTypeError, FailedPreconditionError: as `value_and_grad`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"a/w": jnp.array(3.0), "b/w": jnp.array(5.0)})
      >>> gradients = jv.grad(lambda v: v["a/w"] * v["b/w"], wrt="a/w")(variables)
      >>> print(gradients["a/w"], list(gradients))
      5.0 ['a/w']
    """
    both = value_and_grad(loss_fn, has_aux, wrt)

    @functools.wraps(loss_fn)
    def wrapped(variables: Variables, *args: Any, **kwargs: Any) -> Variables | tuple[Variables, Any]:
        value, gradients = both(variables, *args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return wrapped


def differentiate(
    loss_fn: Callable[..., Any],
    variables: Variables,
    keys: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    split: Callable[[Any], tuple[Any, Any]],
) -> tuple[tuple[Any, Any], Variables]:
    """Differentiate by `keys`; `split` makes ``(loss, aux)`` of what `loss_fn` returns."""
    if variables._layout.placed:
        from jaxvars.placement.edge import gathered

        found = gathered(variables, (args, kwargs))
        if found is not None:
            (loss, aux), gradients = _differentiate(loss_fn, found.variables, keys, args, kwargs, split)
            return (loss, found.sent_home(aux)), found.sent_home(gradients)
    return _differentiate(loss_fn, variables, keys, args, kwargs, split)


def _differentiate(
    loss_fn: Callable[..., Any],
    variables: Variables,
    keys: tuple[str, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    split: Callable[[Any], tuple[Any, Any]],
) -> tuple[tuple[Any, Any], Variables]:
    positions = [variables._layout.index[key] for key in keys]

    def inner(selected: Variables) -> tuple[jax.Array, Any]:
        loss, aux = split(loss_fn(variables._with_part(positions, selected), *args, **kwargs))
        return _scalar(loss, loss_fn), aux

    try:
        return jax.value_and_grad(inner, has_aux=True)(subset(variables, keys))
    except Exception as error:
        # A model that is jitted inside `loss_fn` is refused by JAX only now, after its frame has ended.
        ours = refusals.explained(error)
        if ours is None:
            raise
        raise ours from error


def subset(variables: Variables, keys: tuple[str, ...]) -> Variables:
    """The variables of these sorted keys, as a `Variables` with the same flags."""
    layout = variables._layout
    positions = [layout.index[key] for key in keys]
    part = layout.cached(("jaxvars.gradients.subset", keys), lambda: layout.subset(positions))
    return variables._part(positions, part)


def check_variables(variables: Any, call: str) -> None:
    """Raise unless `variables` is a `Variables`."""
    if not isinstance(variables, Variables):
        raise InvalidTypeError(
            f"{call} takes a Variables first, not {type(variables).__name__}: pass what model.init returned, "
            "or wrap a dict: jv.Variables({...})"
        )


def differentiable_keys(variables: Variables, wrt: Any) -> tuple[str, ...]:
    """The sorted keys that `wrt` selects, all of them with a value that has a gradient."""
    keys = selected_keys(variables, wrt, "wrt")
    if not keys:
        raise InvalidArgumentError(_nothing_selected(variables, wrt))
    problems = [
        f"  {key}: dtype {variables[key].dtype} has no gradient; leave it out of wrt"
        for key in keys
        if not _is_inexact(variables[key])
    ]
    if problems:
        raise InvalidTypeError("cannot differentiate by:\n" + "\n".join(problems))
    holes = [key for key in variables if is_hole(variables[key])]
    if holes:
        raise FailedPreconditionError(
            f"variables without a value: {', '.join(holes)}. Initialize them first: "
            "variables = model.init(0, *args, variables=variables)"
        )
    return keys


def without_values(selection: Any) -> Any:
    """A selection to keep for later: of a view only the names, so that its arrays can go."""
    if isinstance(selection, Variables):
        return selection._with_leaves([None] * len(selection))
    return selection


def selected_keys(variables: Variables, selection: Any, op: str) -> tuple[str, ...]:
    """The sorted keys of a `wrt` or `var_list`: None, a name, handle, list, pattern, rules or view."""
    if selection is None:
        rows = zip(variables, variables._layout.trainable, variables._leaves, strict=True)
        return tuple(key for key, trainable, leaf in rows if trainable and _is_inexact(leaf))
    if isinstance(selection, Variables):
        keys = tuple(sorted(variables._resolve(key) for key in selection))
        trainable = set(selected_keys(variables, None, op))
        # A scope holds moving averages beside weights; a view of nothing trainable was chosen by hand.
        return tuple(key for key in keys if key in trainable) or keys
    if callable(selection) and not hasattr(selection, "key"):
        return tuple(variables.select(selection))
    from jaxvars.rules import parse_patterns  # here: `import jaxvars` does without

    matches = parse_patterns(selection, op=op).resolve(variables)
    trainable = set(selected_keys(variables, None, op))
    # A pattern means trainable variables, as TF1's collection with a scope does: slots and moving averages carry the
    # names of their variables. Only a full name means a variable whatever it is.
    return tuple(
        key
        for key, match in matches.items()
        if match is not None and match.replacement and (key in trainable or match.rule.pattern == key)
    )


def _is_inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _nothing_selected(variables: Variables, wrt: Any) -> str:
    if wrt is not None:
        return (
            f"nothing to differentiate: wrt={wrt!r} selects none of the {len(variables)} variables. A pattern chooses "
            "among trainable ones of a floating or complex dtype; name others in full"
        )
    rows = [
        f"  {key}: {'trainable' if spec.trainable else 'not trainable'}, {spec.dtype}"
        for key, spec in list(variables.variable_specs.items())[:10]
    ]
    found = "\n".join(rows) if rows else "  (no variables at all)"
    return (
        "nothing to differentiate: no variable is both trainable and of a floating or complex dtype. Name "
        "some with wrt=, or make them trainable: variables.with_trainable({name: True}). Found:\n" + found
    )


def _splitter(has_aux: bool) -> Callable[[Any], tuple[Any, Any]]:
    return _split_pair if has_aux else _split_loss


def _split_pair(result: Any) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise InvalidTypeError(
            f"with has_aux=True the loss function returns (loss, aux), not {type(result).__name__}"
            + (f" of {len(result)}" if isinstance(result, tuple) else "")
        )
    return result[0], result[1]


def _split_loss(result: Any) -> tuple[Any, Any]:
    if isinstance(result, tuple | list):
        raise InvalidTypeError(
            f"the loss function returned a {type(result).__name__} of {len(result)}. If it is (loss, aux), "
            "write jv.value_and_grad(loss_fn, has_aux=True)"
        )
    return result, None


def _scalar(loss: Any, loss_fn: Callable[..., Any]) -> jax.Array:
    """The loss as an array; an error unless it is one real floating number."""
    name = getattr(loss_fn, "__name__", "loss_fn")
    try:
        value = jnp.asarray(loss)
    except (TypeError, ValueError):
        raise InvalidTypeError(
            f"the loss that {name} returned is a {type(loss).__name__}, not a number. If it holds the loss, "
            "return the loss itself, or (loss, aux) with has_aux=True"
        ) from None
    if value.shape != ():
        raise InvalidArgumentError(
            f"the loss that {name} returned has shape {value.shape}, not a scalar: reduce it, say by jnp.mean"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise InvalidArgumentError(
            f"the loss that {name} returned has dtype {value.dtype}: gradients need a real floating number"
        )
    return value

"""What JAX cannot carry, and every way to use a variable at the wrong time: the checks and their texts.

JAX refuses some uses of a mutable value inside its transforms. Each of them raises a `TransformError` that names
the variable, the transform, where the variable was defined, and what to write instead. What can be seen before
JAX is asked is checked here (`check_inner_write`, ...); what only JAX can tell is recognised in the exception it
raises (`explained`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax

from jaxvars import _compat
from jaxvars._calls import CUSTOM_RULE, LOOPS, jax_calls
from jaxvars._source import layer_called, user_site
from jaxvars.errors import JaxvarsError, TransformError
from jaxvars.scopes.scope import get_variable_scope

if TYPE_CHECKING:
    from jaxvars.frame import Frame, Slot

_MAPS = frozenset({"jax.vmap", "jax.shard_map", "jax.pmap", "jax.jacobian"})
_ASSOCIATIVE = "jax.lax.associative_scan"
_SHARDS = frozenset({"jax.shard_map", "jax.pmap"})


def closed_frame(slot: Slot, what: str) -> str:
    """Text for the use of a handle whose frame has ended."""
    return (
        f"{_variable(slot)}: `{what}` needs the frame in which get_variable returned this handle, and that frame has "
        "ended. Outside a model a value lives in `variables`. Write:\n"
        "    variables[v]                                  # to read it\n"
        "    variables = jv.assign(variables, v, value)    # to change it"
    )


def uninitialized(slot: Slot) -> str:
    """Text for reading a variable without a value."""
    return (
        f"Attempting to use uninitialized value {slot.key}: {_variable(slot)} has a shape and dtype but no value yet. "
        "Write one of:\n"
        "    store.variables = jv.global_variables_initializer(store.variables, 0)    # before the block\n"
        "    with jv.VariableStore(0) as store: ...    # a store with a random seed fills what it makes"
    )


def leaked(slot: Slot) -> str:
    """Text for an assigned value that belongs to a transform which is over."""
    return (
        f"{_variable(slot)}: the assigned value was computed inside a JAX transform (jit, scan, grad, ...) that has "
        "ended, so it has no value any more. Assign inside that function, or return the value from it first."
    )


def initial_value_inside(key: str, site: str) -> str:
    """Text for an initial value that belongs to an inner trace."""
    return (
        f"The initial value of variable {key}{_at(site)} is computed inside a JAX transform (jit, scan, cond, "
        "vmap, ...), and a variable outlives that. Compute it outside the transform, or pass an initializer "
        "function: initializer=lambda key, shape, dtype: ..."
    )


def collected_inside(name: str, value: Any) -> str:
    """Text for a value of an inner trace added to a collection."""
    return (
        f"add_to_collection({name!r}, ...) got a value computed inside a JAX transform (jit, scan, cond, vmap, ...): "
        f"{value}. A collection lives as long as the frame, the value only as long as the transformed function. "
        "Return the value from that function and add it outside."
    )


def no_rng() -> str:
    """Text for a random key where none was given."""
    return (
        f"jv.next_rng_key{_at(user_site())} needs a random key, and this frame has none. Write:\n"
        "    out, variables = model.apply(variables, *args, rng=key)    # a JAX key or an int\n"
        "    with jv.VariableStore(0) as store: ..."
    )


def below_map(frame: Frame) -> bool:
    """Whether the running code is under a vmap, shard_map or pmap that began inside the frame."""
    if any(_compat.is_batch_trace(t) for t in _compat.enclosing_traces(_compat.current_trace(), frame.trace)):
        return True
    return bool(_MAPS.intersection(_transforms(frame)))


def check_inner_write(frame: Frame, slot: Slot) -> None:
    """Raise where a write cannot be carried out of the running transform."""
    transforms = _transforms(frame)
    if CUSTOM_RULE in transforms:
        raise TransformError(
            f"{_variable(slot)} is written in a jax.custom_vjp or custom_jvp function or in its rule. JAX runs the one "
            "or the other, depending on whether it differentiates: the write would be lost. Return the new value "
            "from the function and assign it outside."
        )
    if not _SHARDS.isdisjoint(transforms):
        raise TransformError(
            f"{_variable(slot)} is written inside {_outermost(transforms, _SHARDS)}, where each shard would write "
            "a value of its own. Return the new value from the function and assign it outside (reads are fine inside)."
        )
    if _ASSOCIATIVE in transforms:
        raise TransformError(
            f"{_variable(slot)} is written inside {_ASSOCIATIVE}, which calls its function as often as it likes, "
            "not once per element. Use jax.lax.scan, or assign the result outside."
        )
    if below_map(frame):
        raise TransformError(
            f"{_variable(slot)} is written inside {_outermost(transforms, _MAPS) or 'jax.vmap'}, where each example "
            "would write a value of its own. Return the new values from the mapped function and assign once outside, "
            f"reduced as you mean it:\n    v.assign(jnp.mean(jax.vmap(f)(x), axis=0))"
        )


def check_inner_read(frame: Frame, slot: Slot) -> None:
    """Raise where a variable that is also written inside transforms cannot be read."""
    if in_loop_condition(frame):
        # JAX would evaluate the condition with the value from before the loop, for ever.
        raise TransformError(
            f"{_variable(slot)} is read in the condition of a jax.lax.while_loop and written inside a transform. "
            "Carry its value through the loop, and assign it after:\n"
            "    count, x = jax.lax.while_loop(lambda s: s[0] < limit, body, (v.read_value(), x)); v.assign(count)"
        )
    shards = _SHARDS.intersection(_transforms(frame))
    if shards:
        raise TransformError(
            f"{_variable(slot)} is read inside {next(iter(shards))} and written inside another transform of the same "
            "frame. Read it before, and pass the value to the mapped function: value = v.read_value()"
        )


def in_loop_condition(frame: Frame) -> bool:
    """Whether the running code is the condition of a while_loop that began inside the frame."""
    traces = _compat.enclosing_traces(_compat.current_trace(), frame.trace)
    return any(_compat.is_loop_condition(trace) for trace in traces)


def check_inner_key(frame: Frame, axis_name: Any) -> None:
    """Raise where a random key cannot be drawn."""
    transforms = _transforms(frame)
    if not _SHARDS.isdisjoint(transforms):
        raise TransformError(
            f"jv.next_rng_key(){_at(user_site())} is called inside {_outermost(transforms, _SHARDS)}, which cannot "
            "count the keys drawn. Draw it outside and pass it in:\n"
            "    key = jv.next_rng_key(); jax.shard_map(f, ...)(key, x)    # fold_in(key, axis_index) inside"
        )
    if CUSTOM_RULE in transforms:
        raise TransformError(
            f"jv.next_rng_key(){_at(user_site())} is called in a jax.custom_vjp or custom_jvp function or in its rule, "
            "of which JAX runs one or the other. Draw the key outside and pass it as an argument."
        )
    if not below_map(frame):
        return
    within = transforms[: len(transforms) - transforms[::-1].index("jax.vmap")] if "jax.vmap" in transforms else ()
    if axis_name is not None and not LOOPS.isdisjoint(within):
        raise TransformError(
            f"jv.next_rng_key(axis_name={axis_name!r}){_at(user_site())} is called in a loop inside jax.vmap, where "
            "its steps cannot be counted. Draw the keys outside and pass them in:\n"
            "    keys = jax.random.split(jv.next_rng_key(), (n, steps)); jax.vmap(f)(x, keys)"
        )
    if axis_name is None:
        raise TransformError(
            f"jv.next_rng_key(){_at(user_site())} is called inside {_outermost(transforms, _MAPS) or 'jax.vmap'}: "
            "every example would get the same key. Write one of:\n"
            "    keys = jax.random.split(jv.next_rng_key(), n); jax.vmap(f)(x, keys)\n"
            "    jv.next_rng_key(axis_name='batch')    # with jax.vmap(f, axis_name='batch')"
        )


def guard_closure(frame: Frame, slot: Slot, value: Any) -> Any:
    """Return `value` as a function with a derivative rule of its own may read it: refusing to be differentiated."""
    if CUSTOM_RULE not in _transforms(frame):
        return value
    with frame.at_frame_level():
        return _guarded(
            value,
            f"{_variable(slot)} is read by closure in a jax.custom_vjp or custom_jvp function that is differentiated, "
            "and its rule knows nothing of it. Pass it to that function as an argument:\n"
            "    f(x, v.read_value())    # with a rule that returns a gradient for it too",
        )


def guard(slot: Slot, value: Any) -> Any:
    """Return `value` in such a way that differentiating with respect to it raises our error."""
    return _guarded(value, _differentiated(slot))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _guarded(value: Any, text: str) -> Any:
    return value


@_guarded.defjvp
def _refuse_to_differentiate(text: str, primals: Any, tangents: Any) -> Any:
    raise TransformError(text)


def _differentiated(slot: Slot) -> str:
    return (
        f"{_variable(slot)} is written inside a JAX transform (scan, cond, jit, ...) and differentiated: a gradient "
        "would not see those writes. Differentiate the other variables only:\n"
        "    jv.grad(loss)(variables)    # takes trainable ones: make this one with trainable=False\n"
        f"    jv.grad(loss, wrt=...)      # or choose the names without {slot.key!r}"
    )


# What JAX says when it refuses, and what that means for a variable.
_REFUSALS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("State effect not supported in vmap-of-cond", "vmap-of-cond", "effects not supported in vmap"),
        "is written (or a random key is drawn) in a jax.lax.cond or switch under jax.vmap. Write it outside of the "
        "branch, with the value chosen by jnp.where; draw random keys before the cond.",
    ),
    (
        (
            "cond partial-eval",
            "Effects not supported in partial-eval of `cond`",
            "State effect not supported in cond",
        ),
        "is written (or a random key is drawn) in a jax.lax.cond or switch inside a loop that is differentiated. "
        "Write it outside of the branch, with the value chosen by jnp.where; draw random keys before the cond.",
    ),
    (
        ("vmapped value on an unbatched array reference", "unbatched ref"),
        "is written inside jax.vmap with a value that differs between examples. Return the values from the mapped "
        "function and assign once outside.",
    ),
)


def explained(error: Exception, frame: Frame | None = None) -> TransformError | None:
    """Return our error for a refusal of JAX that is about a variable, or None if it is not.

    Args:
      error: what JAX raised.
      frame: the frame in which it was raised; None where it was raised outside, by ``grad`` of a jitted model.
    """
    if isinstance(error, JaxvarsError):
        return None
    text = str(error)
    for phrases, meaning in _REFUSALS:
        if any(phrase in text for phrase in phrases):
            names = frame.refs_in_use() if frame is not None else ""
            return TransformError(f"{names or 'A variable'} {meaning}\n(JAX says: {text.splitlines()[0][:200]})")
    return None


def _transforms(frame: Frame) -> tuple[str, ...]:
    return tuple(name for call in jax_calls(frame.root) for name in call.transforms)


def _outermost(transforms: tuple[str, ...], among: frozenset[str]) -> str:
    return next((name for name in reversed(transforms) if name in among), "")


def _variable(slot: Slot) -> str:
    return f"Variable {slot.key}{_at(slot.defined_at, 'defined at ')}"


def _at(site: str, verb: str = "at ") -> str:
    return f" ({verb}{site})" if site else ""


def at_site(site: str | None = None) -> str:
    """``" at file.py:line"`` of the user's call, or of the given place; "" where that is not known."""
    site = user_site() if site is None else site
    return f" at {site}" if site else ""


def defined(slot: Slot) -> str:
    """The end of an error text: where the variable was first made."""
    return f" Originally defined at {slot.defined_at}." if slot.defined_at else ""


def reusing() -> str:
    """The line that shares what exists: the ``with`` of the user's own scope, or the call of the layer."""
    *outer, own = get_variable_scope().name.split("/")
    layer = layer_called()
    if layer and not outer:
        return f"jv.layers.{layer}(..., name={own!r}, reuse=jv.AUTO_REUSE)"
    # A layer opens a scope of its own, which no line of the user's names.
    return f"with jv.variable_scope({(outer[-1] if layer else own)!r}, reuse=jv.AUTO_REUSE): ..."

"""The few JAX names outside JAX's stable surface, in one place.

`set_current_trace` and `take_current_trace` live in ``jax.extend.core``; `make_user_context` and `new_ref` are
public but young. Which trace is current is read on every access to a variable, so it goes through a private
attribute where that exists (0.1 instead of 0.6 microseconds). A JAX without these names cannot run jaxvars,
and says so at import.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.core import Tracer

from jaxvars.errors import UnavailableError

try:
    from jax import make_user_context, new_ref

    try:
        # These of `jax.extend.core`, which imports Pallas with it: half of what `import jaxvars` would take.
        from jax._src.core import set_current_trace, take_current_trace
    except ImportError:
        from jax.extend.core import set_current_trace, take_current_trace
except ImportError as error:
    raise UnavailableError(
        f"jaxvars needs jax>=0.10.0 (this is {jax.__version__}): {error}. Run: pip install -U 'jax>=0.10'"
    ) from error

try:
    from jax._src import core as _core

    if hasattr(_core, "trace_state_strong_ref"):
        _trace_state = _core.trace_state_strong_ref

        def current_trace() -> Any:
            """Return the trace that JAX operations are bound to now."""
            return _trace_state.value  # what the property below reads

    else:
        _trace_context = _core.trace_ctx

        def current_trace() -> Any:
            """Return the trace that JAX operations are bound to now."""
            return _trace_context.trace

    current_trace()
except (ImportError, AttributeError):

    def current_trace() -> Any:
        """Return the trace that JAX operations are bound to now."""
        with take_current_trace() as trace:
            return trace


__all__ = [
    "abandon",
    "current_trace",
    "distributed_client",
    "enclosing_traces",
    "free_ref",
    "is_batch_trace",
    "is_committed",
    "is_eager",
    "is_leaked",
    "is_loop_condition",
    "make_user_context",
    "new_ref",
    "outside_maps",
    "own_trace",
    "refuse_as_operand",
    "set_current_trace",
    "sharding_of",
    "used_arguments",
]


def _read_of_arrays(name: str) -> Callable[[Any], Any]:
    """What reads a property of a concrete array, past the Python code before it where JAX has it so."""
    try:
        from jax._src.array import ArrayImpl
    except ImportError:
        return operator.attrgetter(name)
    return operator.attrgetter(f"_{name}" if hasattr(ArrayImpl, f"_{name}") else name)


sharding_of = _read_of_arrays("sharding")
is_committed = _read_of_arrays("committed")


def refuse_as_operand(kind: type, refuse: Callable[[Any], Any]) -> None:
    """Let `refuse` raise where a bare ``jax.lax`` primitive is given an object of this type.

    JAX refuses such an object in any case, but cannot name it.
    """
    try:
        from jax._src.core import pytype_aval_mappings
        from jax._src.dtypes import canonicalize_value_handlers
    except ImportError:
        return
    pytype_aval_mappings[kind] = refuse
    canonicalize_value_handlers[kind] = refuse


def is_eager(trace: Any) -> bool:
    """Whether operations under this trace run at once, outside every transform."""
    return type(trace).__name__ == "EvalTrace"


def is_batch_trace(trace: Any) -> bool:
    """Whether this is the trace of a ``jax.vmap``."""
    return type(trace).__name__ == "BatchTrace"


def enclosing_traces(inner: Any, outer: Any) -> Iterator[Any]:
    """Yield `inner` and the traces around it, innermost first, up to `outer`, which is left out."""
    trace = inner
    while trace is not None and trace is not outer:
        yield trace
        trace = getattr(trace, "parent_trace", None)


def outside_maps(inner: Any, outer: Any) -> Any:
    """Return the trace around the outermost ``vmap`` between `inner` and `outer`; `inner` where there is none."""
    traces = list(enclosing_traces(inner, outer))
    maps = [trace for trace in traces if is_batch_trace(trace)]
    return maps[-1].parent_trace if maps else inner


def is_loop_condition(trace: Any) -> bool:
    """Whether this is the trace of the condition of a ``jax.lax.while_loop``."""
    frame = getattr(trace, "frame", None)
    return getattr(getattr(frame, "debug_info", None), "traced_for", None) == "while_cond"


def is_leaked(value: Any, trace: Any) -> bool:
    """Whether `value` is a tracer of another trace than `trace` and those around it."""
    if not isinstance(value, Tracer):
        return False
    return all(value._trace is not t for t in enclosing_traces(trace, None))


def own_trace(value: Any) -> Any:
    """Return a context manager under which operations belong to the trace that `value` belongs to."""
    return set_current_trace(value._trace) if isinstance(value, Tracer) else jax.ensure_compile_time_eval()


def abandon(trace: Any) -> None:
    """Let go of what a trace holds that an exception ended.

    JAX does so at the end of a trace that succeeds. One that raised, JAX keeps for ever (its finalizers refer to it,
    and it to what they wait for), with every array that the traced function closed over.
    """
    if type(trace).__name__ == "DynamicJaxprTrace":
        trace.invalidate()


def used_arguments(lowered: Any) -> list[int] | None:
    """Return which arguments a lowered program uses, by position; None where this JAX does not say.

    Asking ``jax.jit(keep_unused=True)`` to keep all instead would keep, on jax 0.12, what programs close over for ever.
    """
    try:
        return sorted(lowered._lowering.compile_args["kept_var_idx"])
    except (AttributeError, KeyError):
        return None


def distributed_client() -> Any:
    """Return the client of the service that joins the processes; None before `jax.distributed.initialize`."""
    from jax._src.distributed import global_state

    return global_state.client


def before_threads_end(callback: Callable[[], None]) -> None:
    """Call `callback` when the program ends, while thread pools still take work; `atexit` comes after that.

    Python has a function for it that is not public; without it nothing is called.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(callback)


def free_ref(ref: Any) -> None:
    """Release the buffer of an eager ref, which JAX's trace caches may keep for long."""
    # What `freeze` returns is a copy on jax 0.10, the very buffer from 0.12 on.
    buffer = getattr(getattr(ref, "_refs", None), "_buf", None)
    value = jax.freeze(ref) if buffer is None else buffer
    if isinstance(value, jax.Array) and not isinstance(value, Tracer):
        value.delete()

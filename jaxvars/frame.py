"""`Frame`: the place in which `get_variable` runs, and the one rule of each access to a value.

A frame is opened by `init`, `apply`, `specs` or a `VariableStore`, under whatever JAX trace is current then: its
own trace. Code of the model may run under other, inner traces (the body of a ``scan``, a ``jit``, a ``cond``):

* A variable made in an inner trace is made under the frame's own trace, so nothing leaks.
* JAX caches inner traces by function identity, and a cached body would not run again. The first touch of a frame
  in each inner trace therefore replaces a token that sits in JAX's cache keys.
* A write in an inner trace goes through a `jax.Ref`, made at frame level, read back at its end. Which variables
  need one is learned: the first such write to a variable that was read plainly before starts the frame over.
* One JAX call may run one body several times (a ``scan`` whose carry changes dtype). That is one visit: names and
  counters start over as they were when the call began.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterable
from contextvars import ContextVar, Token
from types import FrameType
from typing import Any

import jax
import numpy as np

from jaxvars import _compat, refusals
from jaxvars._calls import is_jax, jax_calls
from jaxvars._keys import name_hash
from jaxvars.errors import FailedPreconditionError, TransformError
from jaxvars.scopes import Collections, NameGraph, outside_frame
from jaxvars.slot import Facts, Slot
from jaxvars.spec import is_hole
from jaxvars.visits import Visits

__all__ = ["Facts", "Frame", "NeedsStaging", "Restart", "Slot", "current_frame", "open_frame", "trace_key"]

_current: ContextVar[Frame | None] = ContextVar("jaxvars_frame", default=None)
# Sits in JAX's trace cache keys; None outside of frames.
trace_key: Any = _compat.make_user_context(None)


class _TraceToken:
    """Part of JAX's trace cache key while a frame is open; compared by identity."""


class _Tokens:
    """The two tokens that are good to go on with: under neither has JAX cached a body that touches a variable.

    What JAX caches under the inner one, while a body is traced, are the functions that touch no variable, such as
    those of `jax.numpy`: the next body finds them traced.
    """

    def __init__(self) -> None:
        self.outer = _TraceToken()
        self.inner = _TraceToken()


class _ThreadTokens(threading.local, _Tokens):
    """Those of the thread, which go from one of its frames to the next."""


_thread = _ThreadTokens()


class Restart(BaseException):
    """Start the frame over, now knowing that this variable is written inside a transform."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class NeedsStaging(BaseException):
    """Run this eager frame as one compiled program: it touches variables inside a transform."""


class Frame:
    """Values, names and traces of one run of a model function. See the module's docstring.

    Args:
      rng: a JAX key for `next_rng_key` and random initial values, or None.
      written: keys known to be written inside transforms.
      tf1_op_names: name variables as TensorFlow names their ops.
      keys_drawn: how many random keys were drawn from `rng` before.
    """

    #: Whether an eager frame may ask to be run as one compiled program instead.
    may_stage = False

    def __init__(
        self,
        *,
        rng: Any = None,
        written: Iterable[str] = (),
        tf1_op_names: bool = False,
        keys_drawn: int = 0,
    ) -> None:
        self.graph: NameGraph = NameGraph(on_enter=self.touch)
        self.rng: Any = rng
        self.tf1_op_names = tf1_op_names
        self.slots: dict[str, Slot] = {}
        self.is_open = False
        self.trace: Any = None
        self.eager = False
        self.written: set[str] = set(written)
        self._by_store_key: dict[str, Slot] = {}
        self._visits = Visits(self.graph)
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self.root: FrameType | None = None
        self.keys_drawn: int = keys_drawn
        self._key_ref: Any = None
        self._outer: Token[Frame | None] | None = None
        self._left = False
        self._names: Any = None
        self._token: Any = None
        self._tokens: _Tokens = _thread
        self._inner_token = False
        # (key of a variable, collection that its handle was added to) -> names of the handles.
        self.joined: dict[tuple[str, str], set[str]] = {}

    # Opening and closing

    def open(self, root: FrameType | None) -> None:
        """Make this the current frame of the context; `root` is the stack frame that runs the user's function."""
        nested = open_frame() is not None
        self.trace = _compat.current_trace()
        self.eager: bool = _compat.is_eager(self.trace)
        self.root = root
        # On closing, the token of the frame around it is back, so a frame must not wear out any of that one's.
        self._tokens = _Tokens() if nested else _thread
        self._token = trace_key(self._tokens.outer)
        self._token.__enter__()
        self._names = self.graph.as_current()
        self._names.__enter__()
        self._outer = _current.set(self)
        self.is_open = True

    def current_values(self) -> dict[str, Any]:
        """Return the values that were written, by key, as they are now."""
        written = (slot for slot in self.slots.values() if slot.written)
        return {slot.key: slot.value if slot.ref is None else slot.ref[...] for slot in written}

    def close(self) -> None:
        """End the frame, also after an exception. Nothing stays alive through it: no array, trace or stack."""
        if self._key_ref is not None and self.eager:
            self.keys_drawn = int(self._key_ref[...])
        refs = [slot.ref for slot in self.slots.values() if slot.ref is not None]
        if self._key_ref is not None:
            refs.append(self._key_ref)
        for slot in self.slots.values():
            slot.value = slot.ref = slot.handle = None
        # Nothing refers in circles any more: what the user does not keep is freed here and now.
        self.slots.clear()
        self._by_store_key.clear()
        self.is_open: bool = False
        self._key_ref = self.root = self.trace = self.rng = None
        self._visits.clear()
        self.graph.collections = Collections()
        self.graph.on_enter = None
        if _current.get() is self:  # else closed out of order: left when the frames opened inside it are
            self._leave()
        if self.eager:
            for ref in refs:
                _compat.free_ref(ref)

    def abandon_inner_traces(self) -> None:
        """Let go of the traces in which the frame's function was when it raised."""
        for touched in list(self._seen):
            for trace in _compat.enclosing_traces(touched, self.trace):
                _compat.abandon(trace)

    def _leave(self) -> None:
        """Make current again what was before this frame."""
        assert self._outer is not None
        before = self._outer.old_value
        # An asyncio task may hold a copy of the context in which the frame was opened: there reset() would refuse.
        _current.set(None if before is Token.MISSING else before)
        if not self._left:
            self._left = True
            self._names.__exit__(None, None, None)
            self._token.__exit__(None, None, None)

    def create_variable(self, **arguments: Any) -> Any:
        """Make a variable as ``tf.Variable`` did; frames that define variables override it."""
        raise FailedPreconditionError(f"{type(self).__name__} makes no variables.")

    def forget(self, slot: Slot) -> None:
        """Let go of a variable whose making is taken back; frames that note what they made override it."""

    def refs_in_use(self) -> str:
        """Return the variables that are written inside transforms, for error texts."""
        names = [f"Variable {slot.key}" for slot in self.slots.values() if slot.key in self.written]
        if self._key_ref is not None:
            names.append("the count of jv.next_rng_key")
        return ", ".join(names)

    # Where an access comes from

    def touch(self, skip: int = 2) -> None:
        """Note the JAX calls that the running code is in, at each access that makes or names something.

        Args:
          skip: how many of the innermost stack frames to pass over, known to be our own.
        """
        code: FrameType | None = sys._getframe(skip)
        root = self.root
        while code is not root and code is not None and not is_jax[code.f_code.co_filename]:
            code = code.f_back
        if (code is not root and code is not None) or self._visits.going_on:
            self._visits.update(jax_calls(root, skip=skip + 1))
        trace = _compat.current_trace()
        if trace is not self.trace:
            self._new_trace(trace)
        elif self._inner_token:
            self._use_token(inner=False)

    def _new_trace(self, trace: Any) -> None:
        """Replace the token at the first touch in each inner trace, so that its body is traced anew each time.

        The body was called under the present token, which is never used again.
        """
        if trace in self._seen:
            return
        self._seen.add(trace)
        if self._inner_token:
            self._tokens.inner = _TraceToken()
        else:
            self._tokens.outer = _TraceToken()
        self._use_token(inner=True)

    def _use_token(self, inner: bool) -> None:
        self._inner_token = inner
        self._token.__exit__(None, None, None)
        self._token = trace_key(self._tokens.inner if inner else self._tokens.outer)
        self._token.__enter__()

    def touch_python_state(self) -> None:
        """As `touch`, for code that depends on Python state which JAX does not see, such as an `arg_scope`."""
        trace = _compat.current_trace()
        if trace is not self.trace and trace not in self._seen:
            self.touch()
            if self.eager and self.may_stage and self._is_cached_by_jax(trace):
                raise NeedsStaging

    def note(self, slot: Slot) -> None:
        """Mark a variable as gotten in this run of the visited function."""
        if not slot.gotten:
            slot.gotten = True
            self._visits.gotten.append(slot)

    def at_frame_level(self) -> Any:
        """Return a context manager under which JAX operations belong to the frame's own trace."""
        return _compat.set_current_trace(self.trace)

    # Values

    def check_open(self, slot: Slot, what: str) -> None:
        """Raise unless the frame is open."""
        if not self.is_open:
            raise FailedPreconditionError(refusals.closed_frame(slot, what))

    def read(self, slot: Slot) -> Any:
        """Return the current value of a variable, an array or tracer usable where the caller runs."""
        if not self.is_open:
            self.check_open(slot, "value")
        if _compat.current_trace() is not self.trace:
            return self._read_inside(slot)
        if slot.ref is not None:
            return slot.ref[...]
        value = slot.value
        if is_hole(value):
            raise FailedPreconditionError(refusals.uninitialized(slot))
        return value

    def _read_inside(self, slot: Slot) -> Any:
        trace = _compat.current_trace()
        if trace not in self._seen:
            self.touch()
        if slot.ref is None:
            self._before_inner_read(slot, trace)
        if slot.ref is not None:
            refusals.check_inner_read(self, slot)
            return slot.ref[...]
        slot.read_inside = True
        if is_hole(slot.value):
            raise FailedPreconditionError(refusals.uninitialized(slot))
        return refusals.guard_closure(self, slot, slot.value)

    def _before_inner_read(self, slot: Slot, trace: Any) -> None:
        if slot.key in self.written:
            self._back_by_ref(slot)
            return
        if not (self.eager and self._is_cached_by_jax(trace)):
            return
        if self.may_stage:
            raise NeedsStaging
        if not refusals.below_map(self) and not refusals.in_loop_condition(self):
            # JAX's trace caches keep what a traced body closed over: a ref can be emptied at the end.
            self._back_by_ref(slot)

    def _is_cached_by_jax(self, trace: Any) -> bool:
        traces = _compat.enclosing_traces(trace, self.trace)
        return any(type(t).__name__ == "DynamicJaxprTrace" for t in traces)

    def write(self, slot: Slot, value: Any) -> None:
        """Set the value of a variable; `value` has its shape and dtype."""
        self.check_open(slot, "assign")
        slot.written = True
        if _compat.current_trace() is not self.trace:
            self._write_inside(slot, value)
            return
        if _compat.is_leaked(value, self.trace):
            raise TransformError(refusals.leaked(slot))
        if slot.ref is not None:
            slot.ref[...] = value
        else:
            slot.value = value

    def _write_inside(self, slot: Slot, value: Any) -> None:
        if _compat.current_trace() not in self._seen:
            self.touch()
        refusals.check_inner_write(self, slot)
        if slot.ref is None:
            if self.eager and self.may_stage:
                raise NeedsStaging
            if slot.read_inside and slot.key not in self.written:
                self._learn_write(slot)
            self._back_by_ref(slot)
        self.written.add(slot.key)
        ref: Any = slot.ref
        ref[...] = jax.lax.stop_gradient(value)

    def _learn_write(self, slot: Slot) -> None:
        raise Restart(slot.key)

    def _back_by_ref(self, slot: Slot) -> None:
        if is_hole(slot.value):
            raise FailedPreconditionError(refusals.uninitialized(slot))
        with self.at_frame_level():
            guarded = refusals.guard(slot, slot.value)
            slot.ref = _compat.new_ref(guarded, kind="no_grad_no_remat")

    # Random keys

    def next_key(self, stream: str | None, axis_name: Any) -> Any:
        """Return a fresh random key; inside a loop a fresh one in each step."""
        self.touch()
        if self.rng is None:
            raise FailedPreconditionError(refusals.no_rng())
        base = jax.random.fold_in(self.rng, name_hash(f"next_rng_key:{stream or ''}"))
        key = jax.random.fold_in(base, self._count_key(axis_name))
        if axis_name is None:
            return key
        axes = axis_name if isinstance(axis_name, tuple) else (axis_name,)
        for axis in axes:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        return key

    def _count_key(self, axis_name: Any) -> Any:
        inside = _compat.current_trace() is not self.trace
        if self._key_ref is None and not inside:
            self.keys_drawn += 1
            return self._key_number(self.keys_drawn - 1)
        if inside and self.eager and self.may_stage:
            raise NeedsStaging
        refusals.check_inner_key(self, axis_name)
        counter = self._key_counter()
        with _compat.set_current_trace(_compat.outside_maps(_compat.current_trace(), self.trace)):
            count = counter[...]
            counter[...] = count + np.uint32(1)
        return count

    def _key_number(self, drawn: int) -> Any:
        """The number of a random key before which this frame drew so many."""
        return np.uint32(drawn)

    def _key_counter(self) -> Any:
        """The ref that counts random keys where they are drawn inside transforms."""
        if self._key_ref is None:
            with self.at_frame_level():
                start = jax.numpy.uint32(self._key_number(self.keys_drawn))
                self._key_ref = _compat.new_ref(start, kind="no_grad_no_remat")
        return self._key_ref


def current_frame(what: str = "jv.get_variable") -> Frame:
    """Return the open frame of this context.

    Args:
      what: what needs it, as its author wrote it, for the error text.

    Raises:
      FailedPreconditionError: outside every frame; says what to wrap.
    """
    frame = open_frame()
    if frame is None:
        raise outside_frame(what)
    return frame


def open_frame() -> Frame | None:
    """Return the open frame of this context, or None."""
    frame = _current.get()
    while frame is not None and not frame.is_open:  # closed out of order, or in another thread
        frame._leave()
        frame = _current.get()
    return frame

"""`make_template`: a function that makes its variables at the first call and shares them at all later ones.

What a template knows about a frame (its scope there, whether it has been called) lies among that frame's collections:
it ends with the frame, and goes back with the other names when JAX runs a body again. So a template may live at module
level and serve any number of frames, each of which is a fresh graph to it.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

from jaxvars._source import user_site
from jaxvars.defining import DefiningFrame
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.frame import Frame, current_frame, open_frame
from jaxvars.scopes import GraphKeys, VariableScope, variable_scope
from jaxvars.store import get_collection
from jaxvars.undoing import go_back, mark

__all__ = ["Template", "make_template"]

_serials = itertools.count()


def make_template(
    name_: str,
    func_: Callable[..., Any],
    create_scope_now_: bool = False,
    unique_name_: str | None = None,
    custom_getter_: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> Template:
    """Wrap a function so that it makes its variables once and shares them afterwards. TF1: ``tf.make_template``.

    The first call in a frame opens the scope, `name_` or ``name__1``, ..., below the scope of the call, and runs the
    function, whose `get_variable` calls make variables. Later calls, from wherever, enter that same scope with
    ``reuse=True``. Another frame (the next `init` or `apply`) is a fresh graph: there the next call is a first one.

    Args:
      name_: name of the scope, made unique as a default name is.
      func_: the function.
      create_scope_now_: open the scope here instead of at the first call. Outside of a frame there is no scope to open
        it in: then it stands at the root, under `name_` itself.
      unique_name_: name of the scope, taken as it is: a second template of that name fails with "already exists".
      custom_getter_: custom getter of the scope.
      **kwargs: keyword arguments bound to `func_`.

    Returns:
      The template: call it as the function.

    Raises:
      InvalidArgumentError: `name_` is None. Later, when called: a later call asks for a variable that the first one
        did not make ("does not exist"), or makes a trainable one with ``jv.Variable``. The text of an error in a
        template ends in where the template was defined. A call that raises leaves no scope, counter or variable.
      InvalidTypeError: `func_` is not callable, or a name is not a string.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> def scale(x, name):
      ...     return x * jv.get_variable(name, [], initializer=jv.ones_initializer())
      >>> by_y = jv.make_template("scale_by_y", scale, name="y")
      >>> model = jv.transform(lambda a, b: by_y(a) + by_y(b))      # one variable, used twice
      >>> list(model.init(0, 1.0, 2.0))
      ['scale_by_y/y']
    """
    if name_ is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise InvalidArgumentError("name cannot be None. Write: jv.make_template('name', function)")
    for argument, name in (("name_", name_), ("unique_name_", unique_name_ or "")):
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTypeError(f"{argument} of make_template is a string, got {name!r:.80}.")
    if not callable(func_):
        raise InvalidTypeError(
            f"make_template({name_!r}) takes a function, got {func_!r:.80}. Write: jv.make_template({name_!r}, fn)"
        )
    function = functools.partial(func_, **kwargs) if kwargs else func_
    return Template(name_, function, create_scope_now_, unique_name_, custom_getter_)


class _State(NamedTuple):
    """What a template knows of one frame."""

    scope: VariableScope
    started: bool = False
    finished: bool = False


class Template:
    """A function with a variable scope of its own; made by `make_template`."""

    def __init__(
        self,
        name: str,
        func: Callable[..., Any],
        create_scope_now: bool = False,
        unique_name: str | None = None,
        custom_getter: Callable[..., Any] | None = None,
    ) -> None:
        """See `make_template`."""
        self._name = name
        self._func = func
        self._unique_name = unique_name
        self._custom_getter = custom_getter
        self._defined_at = user_site()
        self._key = f"jaxvars/template/{next(_serials)}"
        self._made_scope = self._scope_of_now() if create_scope_now else None

    def _scope_of_now(self) -> VariableScope:
        if open_frame() is None:
            return VariableScope(name=self._unique_name or self._name, custom_getter=self._custom_getter)
        # Ops come later: the name scope stays untaken until the first call. TF1 inherits all but the dtype here.
        with variable_scope(
            self._unique_name,
            self._name,
            custom_getter=self._custom_getter,
            dtype="float32",
            auxiliary_name_scope=False,
        ) as scope:
            return scope

    def __repr__(self) -> str:
        return f"<jv.Template {self._name!r} of {getattr(self._func, '__name__', self._func)!r}>"

    # Calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function in the template's scope; see `make_template`."""
        frame = current_frame(f"the template {self._name!r}")
        _note_body(frame)
        before = mark(frame)
        try:
            return self._call(frame, len(frame.slots), args, kwargs)
        except Exception as error:
            if frame.is_open:
                go_back(frame, before)
            self._say_where(error)
            raise

    def _call(self, frame: Frame, slots: int, args: Any, kwargs: Any) -> Any:
        with self._in_scope(frame) as state:
            if not state.started:
                self._set(frame, state._replace(started=True))
            out = self._func(*args, **kwargs)
            if state.finished:
                _refuse_trainable(frame, slots)
            elif not state.started:
                self._set(frame, state._replace(started=True, finished=True))
        return out

    @contextmanager
    def _in_scope(self, frame: Frame) -> Generator[_State]:
        state = self._state(frame)
        if state is not None:
            with variable_scope(state.scope, reuse=state.started):
                yield state
            return
        with variable_scope(self._unique_name, self._name, custom_getter=self._custom_getter) as scope:
            yield _State(scope)

    def _state(self, frame: Frame | None) -> _State | None:
        found = frame.graph.collections.get(self._key) if frame is not None else []
        if found:
            return found[-1]
        return None if self._made_scope is None else _State(self._made_scope)

    def _set(self, frame: Frame, state: _State) -> None:
        frame.graph.collections.add(self._key, state)

    def _say_where(self, error: Exception) -> None:
        """Append to an error's text where this template was defined."""
        where = f"originally defined at:\n  {self._defined_at} (template {self._name!r})"
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (f"{error.args[0]}\n\n{where}",)
        else:  # a text that its class composes from several arguments
            error.add_note(where)

    # What it is and has

    @property
    def name(self) -> str:
        """The name that was given."""
        return self._name

    @property
    def func(self) -> Callable[..., Any]:
        """The function, with its bound keyword arguments."""
        return self._func

    @property
    def variable_scope(self) -> VariableScope | None:
        """The scope in this frame; None before the first call."""
        state = self._state(open_frame())
        return None if state is None else state.scope

    @property
    def var_scope(self) -> VariableScope | None:
        """The old name of `variable_scope`."""
        return self.variable_scope

    @property
    def variable_scope_name(self) -> str | None:
        """The name of the scope with a "/" behind it; None before the first call."""
        scope = self.variable_scope
        return None if scope is None else scope.prefix

    @property
    def variables(self) -> list[Any]:
        """The handles of the global and then the local variables of this frame; none before the first call."""
        return self.global_variables + self.local_variables

    @property
    def global_variables(self) -> list[Any]:
        """The handles of the global variables."""
        return self._collection(GraphKeys.GLOBAL_VARIABLES)

    @property
    def local_variables(self) -> list[Any]:
        """The handles of the local variables."""
        return self._collection(GraphKeys.LOCAL_VARIABLES)

    @property
    def trainable_variables(self) -> list[Any]:
        """The handles of the trainable variables."""
        return self._collection(GraphKeys.TRAINABLE_VARIABLES)

    @property
    def non_trainable_variables(self) -> list[Any]:
        """The handles of the global variables that are not trainable."""
        trainable = set(self.trainable_variables)
        return [handle for handle in self.global_variables if handle not in trainable]

    @property
    def weights(self) -> list[Any]:
        """The same as `variables`."""
        return self.variables

    @property
    def trainable_weights(self) -> list[Any]:
        """The same as `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The same as `non_trainable_variables`."""
        return self.non_trainable_variables

    def _collection(self, key: str) -> list[Any]:
        state = self._state(current_frame(f"the variables of template {self._name!r}"))
        if state is None or not state.finished:
            return []
        return get_collection(key, re.escape(state.scope.prefix))


def _note_body(frame: Frame) -> None:
    """Let the frame see whether JAX runs a body again: then the names, and the state here, are those of before.

    A function of its own, because the frame passes over the innermost stack frames, and `Template.__call__` may be the
    body: ``jax.lax.scan(template, ...)``.
    """
    frame.touch()


def _refuse_trainable(frame: Frame, slots: int) -> None:
    """Raise where a later call made a trainable variable: it would have made another one at every call."""
    assert isinstance(frame, DefiningFrame)
    made = [
        slot
        for slot in list(frame.slots.values())[slots:]
        # What `get_variable` shared in this frame for the first time was given, not made.
        if slot.trainable and (slot.store_key is None or not frame.holds(slot.key))
    ]
    if made:
        names = ", ".join(f"{slot.key} (at {slot.defined_at})" for slot in made)
        raise InvalidArgumentError(
            "Trainable variable created when calling a template after the first time, perhaps you used jv.Variable "
            f"when you meant jv.get_variable: {names}. Write jv.get_variable({made[0].key.rsplit('/', 1)[-1]!r}, ...) "
            "to share one, or jv.Variable(..., trainable=False) for one of each call."
        )

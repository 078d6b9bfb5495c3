"""`VariableScope`: a name with the defaults that `get_variable` takes from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from jaxvars.scopes.collections import GraphKeys
from jaxvars.scopes.context import current, outside_frame
from jaxvars.scopes.reuse import Reuse, check_reuse

__all__ = ["ROOT_DEFAULTS", "Defaults", "VariableScope", "get_variable_scope"]


class Defaults(NamedTuple):
    """What a scope supplies for arguments of `get_variable` that are not given."""

    initializer: Any = None
    regularizer: Any = None
    caching_device: Any = None
    partitioner: Any = None
    custom_getter: Any = None
    dtype: Any = "float32"
    use_resource: Any = None
    constraint: Any = None  # the one default that scopes do not inherit


ROOT_DEFAULTS: Final = Defaults()
"""The defaults of a frame's root scope. Scopes that change nothing share this one object."""


class VariableScope:
    """A variable scope: its name, its reuse mode and its defaults (``tf.VariableScope``).

    A scope is what ``with jv.variable_scope(...) as scope`` yields. It is an inert object: it can be kept
    after its frame has closed, and entered again in another one by ``jv.variable_scope(scope)``. The setters
    change this object only; they are seen by later ``get_variable`` calls in the scope and by later
    re-entries through the object, not by scopes that were opened inside before.

    Args:
      reuse: ``False`` or ``None``, ``True`` or `AUTO_REUSE`.
      name: the full name, "" for a root scope.
      initializer: default initializer.
      regularizer: default regularizer.
      caching_device: default caching device (kept, without effect in JAX).
      partitioner: default partitioner.
      custom_getter: custom getter, see ``variable_scope``.
      name_scope: the original name scope, with its trailing "/".
      dtype: default dtype.
      use_resource: kept, without effect in JAX.
      constraint: default constraint.

    Raises:
      InvalidArgumentError: `reuse` is none of the above.

    Example:
      >>> scope = VariableScope(reuse=False, name="tower", dtype="bfloat16")
      >>> scope.name, scope.reuse, scope.dtype
      ('tower', False, 'bfloat16')
    """

    __slots__ = ("__weakref__", "_defaults", "_name", "_original_name_scope", "_reuse", "prefix")

    prefix: str
    """What comes before the name of a variable of this scope: "" or the scope's name and "/"."""

    def __init__(
        self,
        reuse: Reuse | None = None,
        name: str = "",
        initializer: Any = None,
        regularizer: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        custom_getter: Any = None,
        name_scope: str = "",
        dtype: Any = "float32",
        use_resource: bool | None = None,
        constraint: Callable[[Any], Any] | None = None,
    ) -> None:
        self._name = name
        self.prefix = name + "/" if name else ""
        self._reuse: Reuse = check_reuse(reuse)
        self._original_name_scope = name_scope
        self._defaults = Defaults(
            initializer,
            regularizer,
            caching_device,
            partitioner,
            custom_getter,
            dtype,
            use_resource,
            constraint,
        )

    def __repr__(self) -> str:
        return f"<VariableScope {self._name!r} reuse={self._reuse!r}>"

    @property
    def name(self) -> str:
        """The full name, "" for a root scope."""
        return self._name

    @property
    def original_name_scope(self) -> str:
        """The name scope opened with the scope at first, with "/": ``name_scope`` re-enters it exactly."""
        return self._original_name_scope

    @property
    def reuse(self) -> Reuse:
        """``False``: make variables; ``True``: return existing ones; `AUTO_REUSE`: either."""
        return self._reuse

    @property
    def initializer(self) -> Any:
        """The default initializer."""
        return self._defaults.initializer

    @property
    def regularizer(self) -> Any:
        """The default regularizer."""
        return self._defaults.regularizer

    @property
    def caching_device(self) -> Any:
        """The default caching device; without effect in JAX."""
        return self._defaults.caching_device

    @property
    def partitioner(self) -> Any:
        """The default partitioner."""
        return self._defaults.partitioner

    @property
    def custom_getter(self) -> Any:
        """The custom getter, composed with those of the enclosing scopes."""
        return self._defaults.custom_getter

    @property
    def dtype(self) -> Any:
        """The default dtype, as it was given; ``"float32"`` unless set."""
        return self._defaults.dtype

    @property
    def use_resource(self) -> Any:
        """Kept as given; without effect in JAX."""
        return self._defaults.use_resource

    @property
    def constraint(self) -> Any:
        """The default constraint. Scopes inside do not inherit it, as in TF1."""
        return self._defaults.constraint

    def reuse_variables(self) -> None:
        """Return existing variables from here on. There is no way back for this scope, as in TF1."""
        _remember(partial(_set_reuse, self, self._reuse))
        self._reuse = True

    def set_initializer(self, initializer: Any) -> None:
        """Set the default initializer."""
        self._set(initializer=initializer)

    def set_regularizer(self, regularizer: Any) -> None:
        """Set the default regularizer; ``jv.no_regularizer`` disables an inherited one."""
        self._set(regularizer=regularizer)

    def set_caching_device(self, caching_device: Any) -> None:
        """Set the default caching device; without effect in JAX."""
        self._set(caching_device=caching_device)

    def set_partitioner(self, partitioner: Any) -> None:
        """Set the default partitioner."""
        self._set(partitioner=partitioner)

    def set_custom_getter(self, custom_getter: Any) -> None:
        """Replace the custom getter, with those of the enclosing scopes."""
        self._set(custom_getter=custom_getter)

    def set_dtype(self, dtype: Any) -> None:
        """Set the default dtype."""
        self._set(dtype=dtype)

    def set_use_resource(self, use_resource: bool | None) -> None:
        """Keep the flag; it has no effect in JAX."""
        self._set(use_resource=use_resource)

    def get_collection(self, name: str) -> list[Any]:
        """Return the items of the collection `name` that are in this scope or below it.

        Args:
          name: the collection's key.

        Returns:
          The items whose name begins with this scope's name and "/"; for a root scope, all of them.

        Raises:
          FailedPreconditionError: outside a frame; there, ``variables.collection(name, scope)`` answers.
        """
        context = current.get()
        if context is None:
            raise outside_frame(f"jv.VariableScope.get_collection({name!r})")
        return context.graph.collections.get(name, re.escape(self.prefix))

    def global_variables(self) -> list[Any]:
        """Return this scope's global variables."""
        return self.get_collection(GraphKeys.GLOBAL_VARIABLES)

    def trainable_variables(self) -> list[Any]:
        """Return this scope's trainable variables."""
        return self.get_collection(GraphKeys.TRAINABLE_VARIABLES)

    def local_variables(self) -> list[Any]:
        """Return this scope's local variables."""
        return self.get_collection(GraphKeys.LOCAL_VARIABLES)

    def _set(self, **values: Any) -> None:
        _remember(partial(_set_defaults, self, self._defaults))
        self._defaults = self._defaults._replace(**values)


def get_variable_scope() -> VariableScope:
    """Return the current scope (``tf.get_variable_scope``).

    Raises:
      FailedPreconditionError: outside a frame.

    Example:
      >>> from jaxvars.scopes import NameGraph, variable_scope
      >>> with NameGraph().as_current(), variable_scope("conv1"):
      ...     get_variable_scope().name
      'conv1'
    """
    context = current.get()
    if context is None:
        raise outside_frame("jv.get_variable_scope()")
    return context.scope


def new_scope(name: str, reuse: Reuse, original_name_scope: str, defaults: Defaults) -> VariableScope:
    """Make a scope from parts that are known to be good, in a third of the constructor's time."""
    scope = object.__new__(VariableScope)
    scope._name = name
    scope.prefix = name + "/" if name else ""
    scope._reuse = reuse
    scope._original_name_scope = original_name_scope
    scope._defaults = defaults
    return scope


def _remember(undo: Callable[[], None]) -> None:
    """Note how to undo a change of a scope, while the current graph has a snapshot to go back to."""
    context = current.get()
    if context is not None and (journal := context.graph.names.journal) is not None:
        journal.append(undo)


def _set_reuse(scope: VariableScope, reuse: Reuse) -> None:
    scope._reuse = reuse


def _set_defaults(scope: VariableScope, defaults: Defaults) -> None:
    scope._defaults = defaults

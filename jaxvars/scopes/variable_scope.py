"""`variable_scope`: the context manager that names variables and passes on defaults, in TF1's three forms."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

from jaxvars._source import user_site
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.scopes.context import Context, current, improper_nesting, leave, outside_frame
from jaxvars.scopes.counters import Counts, close, open_default, open_scope
from jaxvars.scopes.decorator import ScopeDecorator
from jaxvars.scopes.getters import Getter, compose_getters
from jaxvars.scopes.reuse import Reuse, check_reuse
from jaxvars.scopes.scope import Defaults, VariableScope, new_scope

__all__ = ["variable_op_scope", "variable_scope"]


class _First(NamedTuple):
    """What a `variable_scope` object keeps from its first entry in a graph."""

    serial: int
    name: str
    reuse: Reuse
    original_name_scope: str


class variable_scope(ScopeDecorator):
    """Context manager that opens a variable scope and yields it (``tf.variable_scope``).

    Three forms:

    * a string: the new name is the parent's, "/" and the string, which is not made unique. Defaults and reuse
      come from the parent.
    * ``None`` with `default_name`: the same with the default name, made unique in its parent: ``layer``,
      ``layer_1``, ...
    * a `VariableScope`: that scope's own name, wherever it is entered, and its own defaults and reuse.

    Arguments given here win over what would be inherited. `constraint` alone is never inherited. `reuse` can
    be switched on, never off: ``False`` and ``None`` both mean "inherit". The scope also opens a name scope
    of its last component, made unique. Works as a decorator too.

    Args:
      name_or_scope: a string, a `VariableScope`, or ``None`` for the default name.
      default_name: used, and made unique, when `name_or_scope` is ``None``.
      values: ignored; TF1 found the graph with it.
      initializer: default initializer.
      regularizer: default regularizer.
      caching_device: default caching device (kept, without effect in JAX).
      partitioner: default partitioner.
      custom_getter: called as ``custom_getter(getter, name, **kwargs)`` in place of `get_variable`; composed
        with the one inherited, which ``getter`` then runs.
      reuse: ``True``: variables must exist; `AUTO_REUSE`: made where missing; ``None`` or ``False``: inherit.
      dtype: default dtype.
      use_resource: kept, without effect in JAX.
      constraint: default constraint.
      auxiliary_name_scope: ``False`` opens no name scope.

    Raises:
      InvalidTypeError: neither name nor default is given, or an argument has a wrong type.
      InvalidArgumentError: a bad `reuse`, ``reuse=True`` without a name, or an illegal name.
      FailedPreconditionError: on entry outside a frame; on exit out of order ("Improper nesting of
        variable_scope."). A failing entry or exit changes nothing.

    Example:
      >>> from jaxvars.scopes import NameGraph
      >>> with NameGraph().as_current():
      ...     with variable_scope("net", dtype="bfloat16"):
      ...         with variable_scope(None, "layer") as first:
      ...             pass
      ...         with variable_scope(None, "layer", reuse=None) as second:
      ...             print(first.name, second.name, second.dtype)
      ...     with variable_scope(first, reuse=True) as again:
      ...         print(again.name, again.reuse)
      net/layer net/layer_1 bfloat16
      net/layer True
    """

    __slots__ = ("_auxiliary", "_default_name", "_first", "_overrides", "_reuse", "_target")

    def __init__(
        self,
        name_or_scope: str | VariableScope | None,
        default_name: str | None = None,
        values: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        custom_getter: Getter | None = None,
        reuse: Reuse | None = None,
        dtype: Any = None,
        use_resource: bool | None = None,
        constraint: Callable[[Any], Any] | None = None,
        auxiliary_name_scope: bool = True,
    ) -> None:
        if name_or_scope is None and default_name is None:
            raise InvalidTypeError(
                f"If default_name is None then name_or_scope is required{_at()}: "
                "write jv.variable_scope('layer') or jv.variable_scope(None, default_name='layer')."
            )
        self._target: object = name_or_scope
        self._default_name: object = default_name
        self._reuse = check_reuse(reuse) if reuse is not None else False
        if auxiliary_name_scope is not True and auxiliary_name_scope is not False:
            raise InvalidTypeError(
                f"The auxiliary_name_scope must be `True` or `False`, got {auxiliary_name_scope!r}{_at()}."
            )
        self._auxiliary = auxiliary_name_scope
        # Most scopes give no defaults. `is`, because an array as initializer has an `==` of its own.
        plain = initializer is regularizer is caching_device is partitioner is custom_getter is None
        if plain and dtype is use_resource is constraint is None:
            self._overrides = None
        else:
            self._overrides = Defaults(
                initializer,
                regularizer,
                caching_device,
                partitioner,
                custom_getter,
                dtype,
                use_resource,
                constraint,
            )
        # What the first entry came to, and in which graph: entering again keeps it, as in TF1.
        self._first: _First | None = None

    def __enter__(self) -> VariableScope:
        context = current.get()
        if context is None:
            raise outside_frame(f"jv.variable_scope({self._describe()})")
        if context.graph.on_enter is not None:
            context.graph.on_enter()
            context = current.get() or context
        target = self._target
        if isinstance(target, str):
            name = context.scope.prefix + target
            stack = self._open_name_scope(context, target)
            return self._open(context, target, target, stack, open_scope(context.counts, name, "/" in target))
        if isinstance(target, VariableScope):
            return self._enter_captured(context, target)
        return self._enter_default(context)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        context = current.get()
        if context is None or context.owner is not self or context.parent is None:
            closed = f"variable_scope({self._describe()})"
            raise improper_nesting(f"Improper nesting of variable_scope. {closed} is being closed", context)
        if isinstance(self._target, VariableScope):
            counts = context.opened
        else:
            counts = close(context.counts, context.opened, context.scope.name)
        leave(context.parent, counts)

    def _enter_default(self, context: Context) -> VariableScope:
        default = self._default_name
        if self._target is not None:
            raise InvalidTypeError(
                "variable_scope: name_or_scope must be a string or VariableScope, got "
                f"{self._target!r} ({type(self._target).__name__}){_at()}."
            )
        if self._reuse:
            raise InvalidArgumentError(
                f"reuse=True cannot be used without a name_or_scope{_at()}: a default name is always new.\n"
                f"Name the scope to share: jv.variable_scope({default!r}, reuse=...)."
            )
        if not isinstance(default, str):
            raise InvalidTypeError(f"default_name must be a string, got {default!r}{_at()}.")
        if not default:
            raise InvalidArgumentError(f"default_name must not be empty{_at()}; write for example 'layer'.")
        prefix = context.scope.prefix
        first = self._first
        if first is not None and first.serial == context.graph.serial:
            name = first.name
            counts = open_scope(context.counts, prefix + name, "/" in name)
        else:
            name, counts = open_default(context.counts, prefix, default)
        stack = self._open_name_scope(context, default)
        return self._open(context, name, default, stack, counts)

    def _enter_captured(self, context: Context, captured: VariableScope) -> VariableScope:
        """Enter an existing scope: its name, defaults and reuse, read now; the parent gives nothing."""
        name = captured.name
        stack = self._open_name_scope(context, name.rpartition("/")[2])
        scope = new_scope(
            name,
            self._reuse or captured.reuse,
            captured.original_name_scope,
            self._defaults(captured._defaults),
        )
        return self._push(context, scope, stack, open_scope(context.counts, name, jump=True))

    def _open(self, context: Context, name: str, given: str, stack: str, counts: Counts) -> VariableScope:
        """Enter a scope that inherits from the current one; its `name` is relative to that one's."""
        parent = context.scope
        first = self._first
        if first is None or first.serial != context.graph.serial:
            # Without a name to open, an auxiliary name scope is not opened, and TF1 then records none.
            original = stack + "/" if stack and (given or not self._auxiliary) else ""
            first = self._first = _First(context.graph.serial, name, self._reuse or parent._reuse, original)
        reuse = first.reuse or parent._reuse
        scope = new_scope(parent.prefix + name, reuse, first.original_name_scope, self._defaults(parent._defaults))
        return self._push(context, scope, stack, counts)

    def _push(self, context: Context, scope: VariableScope, stack: str, counts: Counts) -> VariableScope:
        current.set(Context(context.graph, scope, stack, counts, counts, context.creators, context, self))
        return scope

    def _open_name_scope(self, context: Context, name: str) -> str:
        if name and self._auxiliary:
            return context.graph.enter_name(name, context.name_scope)
        return context.name_scope

    def _defaults(self, inherited: Defaults) -> Defaults:
        """What the new scope supplies: the inherited defaults, less the constraint, and the given ones."""
        if self._overrides is None:
            return inherited if inherited.constraint is None else inherited._replace(constraint=None)
        base = inherited._replace(constraint=None)
        overrides = self._overrides
        pairs = zip(base, overrides, strict=True)
        merged = Defaults._make(old if new is None else new for old, new in pairs)
        if overrides.custom_getter is None:
            return merged
        return merged._replace(custom_getter=compose_getters(overrides.custom_getter, base.custom_getter))

    def _describe(self) -> str:
        if self._target is None:
            return f"None, {self._default_name!r}"
        return repr(self._target)

    def _again(self) -> Self:
        other = object.__new__(type(self))
        other._target = self._target
        other._default_name = self._default_name
        other._reuse = self._reuse
        other._auxiliary = self._auxiliary
        other._overrides = self._overrides
        other._first = None
        return other


def _at() -> str:
    site = user_site()
    return f" at {site}" if site else ""


def variable_op_scope(
    values: Any,
    name_or_scope: str | VariableScope | None,
    default_name: str | None = None,
    initializer: Any = None,
    regularizer: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    custom_getter: Getter | None = None,
    reuse: Reuse | None = None,
    dtype: Any = None,
    use_resource: bool | None = None,
    constraint: Callable[[Any], Any] | None = None,
) -> variable_scope:
    """Return ``variable_scope`` with TF 0.x's order of arguments (``tf.variable_op_scope``).

    Args:
      values: ignored.
      name_or_scope: as in `variable_scope`, like all that follow.
      default_name: used when `name_or_scope` is ``None``.
      initializer: default initializer.
      regularizer: default regularizer.
      caching_device: default caching device.
      partitioner: default partitioner.
      custom_getter: custom getter.
      reuse: reuse mode.
      dtype: default dtype.
      use_resource: kept, without effect.
      constraint: default constraint.

    Returns:
      The context manager.

    Example:
      >>> from jaxvars.scopes import NameGraph
      >>> with NameGraph().as_current(), variable_op_scope([], None, "op") as scope:
      ...     scope.name
      'op'
    """
    return variable_scope(
        name_or_scope,
        default_name,
        values,
        initializer,
        regularizer,
        caching_device,
        partitioner,
        custom_getter,
        reuse,
        dtype,
        use_resource,
        constraint,
    )

"""The part of `get_variable` that needs no arrays: full name, defaults of the scope, custom getter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from jaxvars._source import user_site
from jaxvars.errors import InvalidArgumentError
from jaxvars.scopes.context import Context, current, leave, outside_frame
from jaxvars.scopes.getters import Getter, accepts
from jaxvars.scopes.names import reject_variable_name
from jaxvars.scopes.scope import ROOT_DEFAULTS
from jaxvars.scopes.synchronization import resolve_trainable

__all__ = ["in_name_scope", "request_variable", "root_name_scope"]

_R = TypeVar("_R")


def request_variable(
    true_getter: Getter,
    name: str,
    *,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: bool | None = None,
    custom_getter: Getter | None = None,
    constraint: Callable[[Any], Any] | None = None,
    synchronization: Any = None,
    aggregation: Any = None,
    check: Callable[[Any, Any], None] | None = None,
) -> Any:
    """Ask `true_getter` for the variable `name` of the current scope, through the custom getters.

    The steps are TF1's, in its order: what is ``None`` comes from the scope (of a non-callable initializer
    given together with a dtype, `check` is asked first); the custom getter is checked and called; it calls
    the true getter, or does something else.

    Args:
      true_getter: called as ``true_getter(name=full_name, shape=, dtype=, initializer=, regularizer=, reuse=,
        trainable=, collections=, caching_device=, partitioner=, validate_shape=, use_resource=, constraint=,
        synchronization=, aggregation=)``. A custom getter may leave out all of these but the name.
        ``dtype`` is the one asked for or else the scope's default; ``trainable`` is a bool.
      name: the name within the scope.
      shape: passed on, like every argument that is not named here.
      dtype: the dtype asked for.
      initializer: the initializer asked for.
      regularizer: the regularizer asked for.
      trainable: ``None`` means yes, unless `synchronization` is ``ON_READ``.
      collections: passed on.
      caching_device: from the scope when ``None``.
      partitioner: from the scope when ``None``.
      validate_shape: passed on.
      use_resource: from the scope when ``None``.
      custom_getter: replaces the scope's getter.
      constraint: from the scope when ``None``.
      synchronization: ``None`` or a `VariableSynchronization`.
      aggregation: ``None`` or a `VariableAggregation`.
      check: ``check(dtype, initializer)``, called when both were given and the initializer is a constant:
        raises when the constant's own dtype is another one.

    Returns:
      What the getters return.

    Raises:
      FailedPreconditionError: outside a frame.
      InvalidArgumentError: an empty name, or a custom getter that is not callable.
      InvalidTypeError: a name that is not a string.

    Example:
      >>> from jaxvars.scopes import NameGraph, variable_scope
      >>> def true_getter(name, **kwargs):
      ...     return name, kwargs["dtype"], kwargs["reuse"]
      >>> with NameGraph().as_current(), variable_scope("net", dtype="bfloat16"):
      ...     request_variable(true_getter, "w", shape=[2])
      ('net/w', 'bfloat16', False)
    """
    context = current.get()
    if context is None:
        raise outside_frame(f"jv.get_variable({name!r})")
    if not name or not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        reject_variable_name(name)
    scope = context.scope
    full_name = scope.prefix + name
    defaults = scope._defaults
    if check is not None and dtype is not None and initializer is not None and not callable(initializer):
        check(dtype, initializer)
    if defaults is ROOT_DEFAULTS:
        if dtype is None:
            dtype = "float32"
    else:
        if dtype is None:
            dtype = defaults.dtype
        if initializer is None:
            initializer = defaults.initializer
        if regularizer is None:
            regularizer = defaults.regularizer
        if caching_device is None:
            caching_device = defaults.caching_device
        if partitioner is None:
            partitioner = defaults.partitioner
        if use_resource is None:
            use_resource = defaults.use_resource
        if constraint is None:
            constraint = defaults.constraint
        if custom_getter is None:
            custom_getter = defaults.custom_getter
    if synchronization is aggregation is None:  # the common case, without a call
        trainable = True if trainable is None else bool(trainable)
    else:
        trainable = resolve_trainable(trainable, synchronization, aggregation, full_name)
    if custom_getter is None:
        return true_getter(
            name=full_name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            regularizer=regularizer,
            reuse=scope._reuse,
            trainable=trainable,
            collections=collections,
            caching_device=caching_device,
            partitioner=partitioner,
            validate_shape=validate_shape,
            use_resource=use_resource,
            constraint=constraint,
            synchronization=synchronization,
            aggregation=aggregation,
        )
    if not callable(custom_getter):
        raise InvalidArgumentError(_not_callable(custom_getter, full_name))
    arguments: dict[str, Any] = {
        "getter": true_getter,
        "name": full_name,
        "shape": shape,
        "dtype": dtype,
        "initializer": initializer,
        "regularizer": regularizer,
        "reuse": scope._reuse,
        "trainable": trainable,
        "collections": collections,
        "caching_device": caching_device,
        "partitioner": partitioner,
        "validate_shape": validate_shape,
        "use_resource": use_resource,
        "synchronization": synchronization,
        "aggregation": aggregation,
    }
    if accepts(custom_getter, "constraint"):  # getters older than the argument do not know it
        arguments["constraint"] = constraint
    return root_name_scope(custom_getter, **arguments)


def root_name_scope(function: Callable[..., _R], /, *args: Any, **kwargs: Any) -> _R:
    """Call `function` with the name scope reset to the root, as TF1 runs getters and creators.

    The variable scope stays, and scopes that `function` opens are counted.

    Args:
      function: what to call.
      *args: its positional arguments.
      **kwargs: its keyword arguments.

    Returns:
      What it returns.
    """
    return in_name_scope("", function, *args, **kwargs)


def in_name_scope(name: str, function: Callable[..., _R], /, *args: Any, **kwargs: Any) -> _R:
    """Call `function` in this very name scope, wherever the call is, as TF1 runs initializers and regularizers.

    Args:
      name: the whole name scope, without trailing "/"; it is not made unique.
      function: what to call; see `root_name_scope`.
      *args: its positional arguments.
      **kwargs: its keyword arguments.

    Returns:
      What it returns.

    Example:
      >>> from jaxvars.scopes import NameGraph, get_current_name_scope
      >>> with NameGraph().as_current():
      ...     in_name_scope("w/Initializer", get_current_name_scope)
      'w/Initializer'
    """
    context = current.get()
    if context is None or context.name_scope == name:
        return function(*args, **kwargs)
    owner = object()
    current.set(
        Context(
            context.graph,
            context.scope,
            name,
            context.counts,
            context.opened,
            context.creators,
            context,
            owner,
        )
    )
    try:
        return function(*args, **kwargs)
    finally:
        inner = current.get()
        # A scope that `function` left open is dropped, with what it counted.
        leave(context, inner.counts if inner is not None and inner.owner is owner else context.counts)


def _not_callable(custom_getter: object, full_name: str) -> str:
    site = user_site()
    return (
        f"Passed a custom_getter which is not callable: {custom_getter!r}, for variable {full_name}"
        f"{f' at {site}' if site else ''}.\n"
        "Write a function: def custom_getter(getter, name, **kwargs): return getter(name, **kwargs)"
    )

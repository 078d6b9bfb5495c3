"""`get_variable` and its relatives, and `VariableStore`, the frame that a notebook keeps by hand."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import jax

from jaxvars import _compat
from jaxvars._keys import as_key
from jaxvars._source import user_site
from jaxvars.defining import DefiningFrame
from jaxvars.edits import in_collections
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, TransformError
from jaxvars.frame import current_frame, open_frame
from jaxvars.frames import HandFrame, with_values
from jaxvars.initializers import check_constant_dtype
from jaxvars.keeping import kept_values
from jaxvars.quick import quick_get
from jaxvars.scopes import GraphKeys, get_variable_scope, local_collections, request_variable
from jaxvars.variable import Variable
from jaxvars.variables import Variables

__all__ = [
    "VariableStore",
    "add_to_collection",
    "add_to_collections",
    "get_collection",
    "get_collection_ref",
    "get_local_variable",
    "get_variable",
    "global_variables",
    "local_variables",
    "model_variables",
    "moving_average_variables",
    "next_rng_key",
    "trainable_variables",
]


def _frame(what: str) -> DefiningFrame:
    frame = current_frame(f"jv.{what}")
    assert isinstance(frame, DefiningFrame)
    return frame


def get_variable(
    name: str,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Callable[[Any], Any] | None = None,
    trainable: bool | None = None,
    collections: Sequence[str] | None = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: bool | None = None,
    custom_getter: Callable[..., Any] | None = None,
    constraint: Callable[[Any], Any] | None = None,
    synchronization: Any = None,
    aggregation: Any = None,
) -> Variable:
    """Make or share the variable `name` of the current variable scope. TF1: ``tf.get_variable``.

    Whether it makes or shares is up to the scope's ``reuse``: False makes and refuses a name that exists, True
    shares and refuses one that does not, `jv.AUTO_REUSE` does what fits. What is None comes from the scope.

    Args:
      name: the name within the scope; the full name is ``scope/name``. Name scopes do not count.
      shape: an int or a sequence of ints; not given with a constant initializer.
      dtype: a dtype or its name; float32 unless the scope says otherwise. A constant keeps its own.
      initializer: a `jv.initializers` or `jax.nn.initializers` function ``(key, shape, dtype)``, a TF1-style function
        ``(shape, dtype)``, a function without arguments, an initializer class, or a constant (array, number, list).
        Default: glorot_uniform for floats, zeros for ints and bools.
      regularizer: ``value -> loss or None``; joins REGULARIZATION_LOSSES once, ignored when sharing.
      trainable: whether optimizers and `jv.grad` touch it (default True).
      collections: names of the collections it joins (default ``["variables"]``).
      caching_device: accepted for TF1's sake, without effect.
      partitioner: ``(shape, dtype) -> counts``, how many slices along each axis, such as `jv.fixed_size_partitioner`:
        the handle is then a `jv.PartitionedVariable`. Ignored for the shape ``[]``.
      validate_shape: accepted for TF1's sake; shapes are always known here.
      use_resource: accepted for TF1's sake, without effect.
      custom_getter: called as ``custom_getter(getter, name, ...)`` instead of the scope's.
      constraint: ``value -> value``, applied by optimizers after each update.
      synchronization: accepted for TF1's sake; ``ON_READ`` makes it not trainable.
      aggregation: accepted for TF1's sake, without effect.

    Returns:
      The handle of the variable, the same object for the same variable of one frame.

    Raises:
      FailedPreconditionError: outside a frame.
      InvalidArgumentError: TF1's ``ValueError`` cases: the name exists or does not, shape, dtype or slices differ from
        the shared variable's, no shape can be known, a constant comes with a shape, an illegal name.
      InvalidTypeError: an initializer or dtype of the wrong kind.

    Example:
      >>> import jaxvars as jv
      >>> def net(x):
      ...     with jv.variable_scope("layer"):
      ...         w = jv.get_variable("w", [2, 3])
      ...     return x @ w
      >>> variables = jv.transform(net).init(0, jax.numpy.ones([1, 2]))
      >>> list(variables), variables["layer/w"].shape
      (['layer/w'], (2, 3))
    """
    try:
        frame: Any = open_frame() or _frame("get_variable")
        if partitioner is custom_getter is synchronization is aggregation is None:
            handle = quick_get(frame, name, shape, dtype, initializer, regularizer, trainable, collections, constraint)
            if handle is not None:
                return handle
        return request_variable(
            frame.get,
            name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            regularizer=regularizer,
            trainable=trainable,
            collections=collections,
            caching_device=caching_device,
            partitioner=partitioner,
            validate_shape=validate_shape,
            use_resource=use_resource,
            custom_getter=custom_getter,
            constraint=constraint,
            synchronization=synchronization,
            aggregation=aggregation,
            check=lambda wanted, value: check_constant_dtype(value, wanted, name),
        )
    except (InvalidArgumentError, InvalidTypeError) as error:
        _say_where(error, name)
        raise


def _say_where(error: Exception, name: Any) -> None:
    """Add the variable and the line that asked for it to an error that does not name that line."""
    site = user_site()
    text = str(error)
    if site and site not in text and "asked for at" not in text:
        error.args = (f"{text}\n  Variable {get_variable_scope().prefix}{name} was asked for at {site}.",)


def get_local_variable(
    name: str,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Callable[[Any], Any] | None = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: bool | None = None,
    custom_getter: Callable[..., Any] | None = None,
    constraint: Callable[[Any], Any] | None = None,
    synchronization: Any = None,
    aggregation: Any = None,
) -> Variable:
    """Make or share a variable that is not trainable, in LOCAL_VARIABLES. TF1: ``tf.get_local_variable``.

    Takes the arguments of `get_variable`; `trainable` is always False, and LOCAL_VARIABLES joins `collections`.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     seen = jv.get_local_variable("seen", [], initializer=jv.zeros_initializer())
      ...     seen.trainable, seen.collections
      (False, ('local_variables',))
    """
    return get_variable(
        name,
        shape=shape,
        dtype=dtype,
        initializer=initializer,
        regularizer=regularizer,
        trainable=False,
        collections=local_collections(collections),
        caching_device=caching_device,
        partitioner=partitioner,
        validate_shape=validate_shape,
        use_resource=use_resource,
        custom_getter=custom_getter,
        constraint=constraint,
        synchronization=synchronization,
        aggregation=aggregation,
    )


def next_rng_key(stream: str | None = None, axis_name: Any = None) -> jax.Array:
    """Return a fresh random key: another one at each call, and in each step of a loop.

    Args:
      stream: a name; keys of different streams do not depend on each other's use.
      axis_name: name(s) of the ``jax.vmap`` axes the call is under: each example gets a key of its own.

    Returns:
      A JAX PRNG key, derived from the ``rng`` that `init`, `apply` or `VariableStore` was given.

    Raises:
      FailedPreconditionError: outside a frame, or the frame was given no ``rng``.
      TransformError: under ``vmap`` without `axis_name`, or under ``shard_map``.

    Example:
      >>> import jaxvars as jv
      >>> def noisy(x):
      ...     return x + jax.random.normal(jv.next_rng_key(), x.shape)
      >>> out, _ = jv.transform(noisy).apply(jv.Variables({}), jax.numpy.ones(2), rng=0)
      >>> out.shape
      (2,)
    """
    return _frame("next_rng_key").next_key(stream, axis_name)


# Collections


def add_to_collection(name: str, value: Any) -> None:
    """Add a value to a collection of this frame. TF1: ``tf.add_to_collection``.

    A collection of values lives as long as the frame: compute a loss that needs it inside the model function.

    Raises:
      FailedPreconditionError: outside a frame, or a value computed inside a JAX transform (return it instead).

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0):
      ...     jv.add_to_collection("seen", "anything")
      ...     jv.get_collection("seen")
      ['anything']
    """
    _frame("add_to_collection").collect(name, value)


def add_to_collections(names: Sequence[str] | str, value: Any) -> None:
    """Add a value to several collections, once each. TF1: ``tf.add_to_collections``."""
    frame = _frame("add_to_collections")
    for name in dict.fromkeys([names] if isinstance(names, str) else names):
        frame.collect(name, value)


def get_collection(name: str, scope: str | None = None) -> list[Any]:
    """Return what is in a collection, in the order it was added. TF1: ``tf.get_collection``.

    Args:
      name: the collection, such as ``jv.GraphKeys.TRAINABLE_VARIABLES``.
      scope: a regular expression matched at the beginning of each item's name; items without one are left out.

    Returns:
      A new list. Regularization losses come as values at frame level.

    Raises:
      FailedPreconditionError: outside a frame; there `variables.trainable` and `variables.collection(name)` serve.
    """
    return _frame("get_collection").collected(name, scope)


def get_collection_ref(name: str) -> list[Any]:
    """Return the live list of a collection, made if there is none. TF1: ``tf.get_collection_ref``."""
    return _frame("get_collection_ref").graph.collections.get_ref(name)


def global_variables(scope: str | None = None) -> list[Variable]:
    """Return the handles in GLOBAL_VARIABLES of this frame. TF1: ``tf.global_variables``."""
    return _frame("global_variables").collected(GraphKeys.GLOBAL_VARIABLES, scope)


def local_variables(scope: str | None = None) -> list[Variable]:
    """Return the handles in LOCAL_VARIABLES of this frame. TF1: ``tf.local_variables``."""
    return _frame("local_variables").collected(GraphKeys.LOCAL_VARIABLES, scope)


def trainable_variables(scope: str | None = None) -> list[Variable]:
    """Return the handles in TRAINABLE_VARIABLES of this frame. TF1: ``tf.trainable_variables``.

    Outside a frame write ``variables.trainable``.
    """
    return _frame("trainable_variables").collected(GraphKeys.TRAINABLE_VARIABLES, scope)


def model_variables(scope: str | None = None) -> list[Variable]:
    """Return the handles in MODEL_VARIABLES of this frame. TF1: ``tf.model_variables``."""
    return _frame("model_variables").collected(GraphKeys.MODEL_VARIABLES, scope)


def moving_average_variables(scope: str | None = None) -> list[Variable]:
    """Return the handles in MOVING_AVERAGE_VARIABLES of this frame. TF1: ``tf.moving_average_variables``."""
    return _frame("moving_average_variables").collected(GraphKeys.MOVING_AVERAGE_VARIABLES, scope)


class VariableStore:
    """A frame kept by hand, for notebooks: inside ``with store:`` code reads as TF1's did.

    Entering again, in the next cell, is a fresh graph over the values so far: the same `get_variable` finds its
    variable again, so any cell may run twice. After an exception the values are those of before the block.

    Args:
      rng: a key or int seed for initial values and `next_rng_key`. Without it random values stay holes.
      variables: values to begin with.
      tf1_op_names: name variables as TensorFlow named their ops (``a/w_1`` where a scope took ``a/w``).

    Attributes:
      variables: the values, settable.

    Example:
      >>> import jaxvars as jv
      >>> store = jv.VariableStore(0)
      >>> with store:
      ...     w = jv.get_variable("w", [2], initializer=jv.ones_initializer())
      ...     _ = w.assign_add([1.0, 2.0])
      >>> store.variables["w"]
      Array([2., 3.], dtype=float32)
      >>> with store:                       # the next cell
      ...     jv.get_variable("w", [2]) + 1
      Array([3., 4.], dtype=float32)
    """

    def __init__(self, rng: Any = None, variables: Variables | None = None, tf1_op_names: bool = False) -> None:
        self._key = None if rng is None else as_key(rng)
        self._tf1_op_names = tf1_op_names
        self._frame: HandFrame | None = None
        # Each block draws other random keys than the one before, as one long TF1 session would.
        self._keys_drawn = 0
        self._values = Variables({})
        self._home = weakref.ref(_compat.current_trace())
        if variables is not None:
            self.variables = variables

    @property
    def variables(self) -> Variables:
        """The values: inside the block as they are now, outside as the last block left them."""
        return self._values if self._frame is None else self._merged(self._frame)

    @variables.setter
    def variables(self, variables: Variables) -> None:
        if not isinstance(variables, Variables):
            raise InvalidTypeError(
                f"store.variables must be jv.Variables, got {type(variables).__name__}. "
                "Write: store.variables = jv.Variables.from_nested(tree)"
            )
        if self._frame is not None:
            raise FailedPreconditionError(
                "store.variables cannot be replaced inside `with store:`. Assign to the handles there "
                "(v.assign(value)), or set it after the block."
            )
        self._values = variables

    def __enter__(self) -> VariableStore:
        if self._frame is not None:
            raise FailedPreconditionError(
                "This VariableStore is open already: `with store:` cannot be nested in itself."
            )
        frame = HandFrame(self._values, rng=self._key, tf1_op_names=self._tf1_op_names, keys_drawn=self._keys_drawn)
        frame.open(sys._getframe(1))
        self._frame = frame
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        frame = self._frame
        if frame is None:
            raise FailedPreconditionError("This VariableStore is not open. Write: with store: ...")
        in_order = open_frame() is frame
        try:
            merged = self._merged(frame) if kind is None and in_order else self._values
            self._refuse_inner(frame, merged)
        finally:
            self._frame = None
            frame.close()
        if not in_order:
            raise FailedPreconditionError(
                f"Improper nesting of VariableStore at {user_site()}: closed while a frame opened in it is open, or in "
                "another thread or task. Its block counts for nothing. Do not yield inside `with store:`."
            )
        if kind is None:
            self._values = merged
            self._keys_drawn = frame.keys_drawn

    def _refuse_inner(self, frame: HandFrame, merged: Variables) -> None:
        """Raise where the block ran in a JAX transform that began after the store was made, and left values of it."""
        home = self._home()
        if home is None or home is frame.trace:
            return
        for key, leaf in zip(merged, merged._leaves, strict=True):
            if _compat.is_leaked(leaf, home):
                raise TransformError(
                    f"Variable {key} was made or written by `with store:` inside a JAX transform (jit, grad, scan, ...)"
                    f" at {user_site()}, with which its value ends. The store was made outside and keeps what it had. "
                    "Write:\n    model = jv.transform(fn); out, variables = model.apply(variables, *args)"
                )

    def _merged(self, frame: HandFrame) -> Variables:
        changed = frame.current_values()
        made = Variables.from_specs([(spec, changed.pop(slot.key)) for spec, slot in frame.made])
        values = with_values(self._values, kept_values(self._values, changed))
        return in_collections(values | made if len(made) else values, frame.joined)

    def __repr__(self) -> str:
        return f"<jv.VariableStore {self.variables!r}>"

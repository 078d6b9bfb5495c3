"""`Variable`: the handle that `get_variable` returns, a name that computes as an array does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxvars import _compat
from jaxvars._operators import ArrayOperators
from jaxvars.buffers import copied, is_concrete
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, OutOfRangeError
from jaxvars.frame import Slot, current_frame
from jaxvars.scatter import prepare_scatter
from jaxvars.scopes.device_scope import SOFT
from jaxvars.updates import UPDATES
from jaxvars.values import check_operation, prepare, prepare_limit

__all__ = ["Operation", "Shape", "Variable", "register_handle"]


class Shape(tuple[int, ...]):
    """A shape that also answers TF1's ``as_list()``.

    Example:
      >>> Shape((2, 3)).as_list()
      [2, 3]
    """

    __slots__ = ()

    def as_list(self) -> list[int]:
        """Return the dimensions as a list, as ``tf.TensorShape.as_list`` did."""
        return list(self)


class Operation:
    """What ``variable.op`` is here: a holder of the name without ``:0``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name: str = name

    def __repr__(self) -> str:
        return f"<jaxvars.Operation {self.name!r}>"


class Variable(ArrayOperators):
    """A variable of the running model: a name with a current value. TF1: ``tf.Variable``.

    `jv.get_variable` returns handles; calling ``jv.Variable(initial_value, name=...)`` makes a variable under the
    current name scope, with a unique name, as ``tf.Variable`` did. A handle goes wherever an array goes: into
    ``jnp`` and ``jax.nn`` functions, operators, NumPy, and as an argument of ``jit``, ``grad``, ``vmap`` and
    ``scan``, which all see its current value. Bare ``jax.lax`` primitives want ``v.value``. Program order is what
    control dependencies were: a read after an assign sees the new value.

    After its frame has ended a handle is a name: a key of dicts and of `Variables`, an entry of a `Saver`.

    Args:
      initial_value: an array, a Python number or list, or a function without arguments that returns one.
      trainable: whether optimizers and `jv.grad` touch it (default True).
      collections: names of the collections it joins (default ``["variables"]``).
      validate_shape: accepted for TF1's sake; shapes are always known here.
      caching_device: accepted for TF1's sake, without effect.
      name: its name below the current name scope (default ``"Variable"``), made unique.
      variable_def: accepted for TF1's sake, without effect, as are `expected_shape`, `import_scope`, `use_resource`.
      dtype: converts the initial value.
      expected_shape: see `variable_def`.
      import_scope: see `variable_def`.
      constraint: applied by optimizers after each update.
      use_resource: see `variable_def`.
      synchronization: as in `jv.get_variable`: ``ON_READ`` makes it not trainable.
      aggregation: accepted for TF1's sake, without effect.

    Raises:
      FailedPreconditionError: outside a frame.
      InvalidArgumentError: no initial value, or an illegal name.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0) as store:
      ...     counter = jv.Variable(0, name="counter")
      ...     step = counter.assign_add(1)
      >>> counter.name, counter.shape, store.variables[counter]
      ('counter:0', (), Array(1, dtype=int32))
    """

    __slots__ = ("__weakref__", "_slot")
    _slot: Slot

    def __new__(
        cls,
        initial_value: Any = None,
        trainable: bool | None = None,
        collections: Sequence[str] | None = None,
        validate_shape: bool = True,
        caching_device: Any = None,
        name: str | None = None,
        variable_def: Any = None,
        dtype: Any = None,
        expected_shape: Any = None,
        import_scope: str | None = None,
        constraint: Callable[[Any], Any] | None = None,
        use_resource: bool | None = None,
        synchronization: Any = None,
        aggregation: Any = None,
    ) -> Variable:
        """Make a variable in the current frame; see the class."""
        return current_frame("jv.Variable").create_variable(
            initial_value=initial_value,
            trainable=trainable,
            collections=collections,
            name=name,
            dtype=dtype,
            constraint=constraint,
            synchronization=synchronization,
            aggregation=aggregation,
        )

    @classmethod
    def of(cls, slot: Slot) -> Variable:
        """Return the handle of a slot, always the same one."""
        if slot.handle is None:
            handle = object.__new__(cls)
            handle._slot = slot
            slot.handle = handle
        return slot.handle

    # Names and static facts

    @property
    def key(self) -> str:
        """The name in `Variables`, checkpoints and rules, such as ``"conv1/weights"``."""
        return self._slot.key

    @property
    def name(self) -> str:
        """TF1's name, such as ``"conv1/weights:0"``."""
        return f"{self._slot.key}:0"

    @property
    def op(self) -> Operation:
        """``v.op.name`` is the key, as in TF1."""
        return Operation(self._slot.key)

    @property
    def shape(self) -> Shape:
        """The shape, a tuple with TF1's ``as_list()``."""
        return Shape(self._slot.shape)

    def get_shape(self) -> Shape:
        """Return the shape, as in TF1."""
        return self.shape

    @property
    def dtype(self) -> Any:
        """The dtype, a `numpy.dtype`."""
        return self._slot.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._slot.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self._slot.shape, dtype=np.int64))

    @property
    def trainable(self) -> bool:
        """Whether optimizers and `jv.grad` touch it."""
        return self._slot.trainable

    @property
    def collections(self) -> tuple[str, ...]:
        """Names of the collections it belongs to."""
        return self._slot.collections

    @property
    def constraint(self) -> Callable[[Any], Any] | None:
        """What optimizers apply after each update, or None."""
        return self._slot.constraint

    @property
    def device(self) -> str:
        """The canonical device string of its home, "" if none was given."""
        placement = self._slot.placement
        return placement.removesuffix(SOFT) if isinstance(placement, str) else ""

    # Reading

    @property
    def value(self) -> jax.Array:
        """The current value: an array or tracer."""
        return self._slot.frame.read(self._slot)

    @value.setter
    def value(self, value: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise InvalidTypeError(f"{self.key}.value is read only. Write: v.assign(value)")

    def read_value(self) -> jax.Array:
        """Return the current value, as in TF1."""
        return self._slot.frame.read(self._slot)

    def eval(self, session: Any = None) -> jax.Array:
        """Return the current value; TF1's session is not needed."""
        return self._slot.frame.read(self._slot)

    def initialized_value(self) -> jax.Array:
        """Return the value, for use in the initial value of another variable, as in TF1."""
        return self._slot.frame.read(self._slot)

    @property
    def initial_value(self) -> jax.Array:
        """TF1's name for what `initialized_value` returns."""
        return self.initialized_value()

    @property
    def initializer(self) -> Any:
        """TF1's initializer op; there is none here.

        Raises:
          FailedPreconditionError: always, naming the replacement.
        """
        raise FailedPreconditionError(
            f"{self.key}.initializer is an op of TF1's graph. Here init fills what has no value. Write:\n"
            "    variables = model.init(0, *args, variables=variables)\n"
            f"    variables = jv.variables_initializer(variables, 0, names=[{self.key!r}])"
        )

    # Writing

    def _update(self, op: str, value: Any) -> jax.Array:
        slot = self._slot
        frame = slot.frame
        frame.check_open(slot, op)
        check_operation(op, slot.key, slot.dtype, slot.defined_at)
        delta = prepare(op, slot.key, slot.shape, slot.dtype, value, slot.defined_at)
        # A copy, because no two variables may share a buffer: donating one would delete the other.
        new = copied(jnp.asarray(delta)) if op == "assign" else UPDATES[op](frame.read(slot), delta)
        frame.write(slot, new)
        return new

    def assign(self, value: Any, use_locking: Any = None, name: Any = None, read_value: bool = True) -> jax.Array:
        """Set the value and return it. Shapes must be equal and floats do not become ints, as in TF1.

        Inside ``lax.scan``, ``cond``, ``jit``, ``checkpoint`` the write happens when the transformed code runs. The
        other arguments are accepted for TF1's sake, without effect.

        Raises:
          InvalidArgumentError: the shape differs.
          InvalidTypeError: the dtype does not convert.
          TransformError: under ``vmap`` or ``shard_map``.
        """
        return self._update("assign", value)

    def assign_add(self, delta: Any, use_locking: Any = None, name: Any = None, read_value: bool = True) -> jax.Array:
        """Add `delta` and return the new value; see `assign`."""
        return self._update("assign_add", delta)

    def assign_sub(self, delta: Any, use_locking: Any = None, name: Any = None, read_value: bool = True) -> jax.Array:
        """Subtract `delta` and return the new value; see `assign`."""
        return self._update("assign_sub", delta)

    def load(self, value: Any, session: Any = None) -> None:
        """Set the value, as TF1's ``v.load(value, session)``."""
        self._update("assign", value)

    def count_up_to(self, limit: int) -> jax.Array:
        """Add 1 unless the value has reached `limit`; return the value before, as in TF1.

        Raises:
          OutOfRangeError: at the limit, where the value is concrete. A traced counter stays at the limit.
          InvalidTypeError: the variable or the limit is not an integer.
          InvalidArgumentError: the variable or the limit is not of shape ().
        """
        slot = self._slot
        bound = prepare_limit(slot.key, slot.shape, slot.dtype, limit, slot.defined_at)
        before = slot.frame.read(slot)
        if is_concrete(before) and not isinstance(bound, Tracer) and int(before) >= int(bound):
            raise OutOfRangeError(f"Reached limit of {int(bound)}: count_up_to on variable {slot.key}.")
        slot.frame.write(slot, UPDATES["count_up_to"](before, jnp.asarray(bound)))
        return before

    def _scatter(self, op: str, indices: Any, updates: Any) -> jax.Array:
        slot = self._slot
        slot.frame.check_open(slot, op)
        check_operation(op, slot.key, slot.dtype, slot.defined_at)
        where, what = prepare_scatter(op, slot.key, slot.shape, slot.dtype, indices, updates, slot.defined_at)
        new = UPDATES[op](slot.frame.read(slot), where, what)
        slot.frame.write(slot, new)
        return new

    def scatter_update(self, indices: Any, updates: Any) -> jax.Array:
        """Set rows; of equal indices the last wins. See `jv.scatter_update`."""
        return self._scatter("scatter_update", indices, updates)

    def scatter_add(self, indices: Any, updates: Any) -> jax.Array:
        """Add to rows; equal indices accumulate. See `jv.scatter_add`."""
        return self._scatter("scatter_add", indices, updates)

    def scatter_sub(self, indices: Any, updates: Any) -> jax.Array:
        """Subtract from rows; equal indices accumulate. See `jv.scatter_sub`."""
        return self._scatter("scatter_sub", indices, updates)

    def scatter_mul(self, indices: Any, updates: Any) -> jax.Array:
        """Multiply rows; equal indices accumulate. See `jv.scatter_mul`."""
        return self._scatter("scatter_mul", indices, updates)

    def scatter_div(self, indices: Any, updates: Any) -> jax.Array:
        """Divide rows; equal indices accumulate. See `jv.scatter_div`."""
        return self._scatter("scatter_div", indices, updates)

    def scatter_min(self, indices: Any, updates: Any) -> jax.Array:
        """Take the minimum of rows and updates. See `jv.scatter_min`."""
        return self._scatter("scatter_min", indices, updates)

    def scatter_max(self, indices: Any, updates: Any) -> jax.Array:
        """Take the maximum of rows and updates. See `jv.scatter_max`."""
        return self._scatter("scatter_max", indices, updates)

    def scatter_nd_update(self, indices: Any, updates: Any) -> jax.Array:
        """Set elements or slices by index vectors. See `jv.scatter_nd_update`."""
        return self._scatter("scatter_nd_update", indices, updates)

    def scatter_nd_add(self, indices: Any, updates: Any) -> jax.Array:
        """Add to elements or slices by index vectors. See `jv.scatter_nd_add`."""
        return self._scatter("scatter_nd_add", indices, updates)

    def scatter_nd_sub(self, indices: Any, updates: Any) -> jax.Array:
        """Subtract from elements or slices by index vectors. See `jv.scatter_nd_sub`."""
        return self._scatter("scatter_nd_sub", indices, updates)

    # Computing as the value does

    def __getattr__(self, name: str) -> Any:
        if name in _ARRAY_ATTRIBUTES:
            return getattr(self.value, name)
        raise AttributeError(
            f"A Variable handle has no attribute {name!r} (variable {self.key}). It has those of a jax.Array, "
            "and name, key, op, value, assign, ..."
        )

    def __jax_array__(self) -> jax.Array:
        return self._slot.frame.read(self._slot)  # not through `value`: each operator of a tracer asks here

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.value, dtype)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Variable | str) or other is None:
            return self is other
        return self.value == other

    def __ne__(self, other: object) -> Any:
        if isinstance(other, Variable | str) or other is None:
            return self is not other
        return self.value != other

    def __hash__(self) -> int:
        return id(self)

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise InvalidTypeError(
            f"Variable {self.key} does not support item assignment. Write: v.assign(v.at[index].set(value)), or "
            "v.scatter_update(rows, values)"
        )

    def __copy__(self) -> Variable:
        return self  # a handle is a name; to copy the value, write jnp.copy(v)

    def __deepcopy__(self, memo: Any) -> Variable:
        return self

    def __reduce__(self) -> NoReturn:
        raise InvalidTypeError(
            f"The handle of variable {self.key} belongs to one run of a model and cannot be pickled. Pickle the "
            f"variables (they hold its value) or its name: v.key"
        )

    def __repr__(self) -> str:
        slot = self._slot
        state = self._shown_value() if slot.frame.is_open else ", frame ended"
        return f"<jv.Variable {slot.key!r} shape={slot.shape} dtype={slot.dtype}{state}>"

    def _shown_value(self) -> str:
        value = self._slot.value
        if self._slot.ref is not None or not is_concrete(value):
            return ""
        text = np.array2string(np.asarray(value), threshold=20, precision=4)
        return f" value=\n{text}" if "\n" in text else f" value={text}"


# What jax.Array declares, and what only concrete arrays have.
_ARRAY_ATTRIBUTES = frozenset(name for name in dir(jax.Array) if not name.startswith("_")) | {
    "block_until_ready",
    "devices",
    "tobytes",
    "tolist",
}


def _flatten(handle: Variable) -> tuple[tuple[jax.Array], None]:
    return (handle.value,), None


def _unflatten(_: None, children: Any) -> Any:
    return children[0]


def _refuse_as_operand(handle: Variable) -> NoReturn:
    # JAX would rewrite a TypeError; the one of its own that this replaces is a ValueError too.
    raise InvalidArgumentError(
        f"Variable {handle.key} was given to a jax.lax function, or used as an index, where only arrays will do. "
        "Write v.value:\n    jax.lax.exp(v.value)    # or jnp.exp(v)\n    table[v.value]"
    )


def register_handle(kind: type[Variable]) -> None:
    """Let JAX take handles of this type for the arrays that they stand for.

    A handle is a container of one leaf, its value, and becomes that value wherever a tree is rebuilt: so transforms,
    jnp functions and tree maps see an array.
    """
    jax.tree_util.register_pytree_node(kind, _flatten, _unflatten)
    _compat.refuse_as_operand(kind, _refuse_as_operand)


register_handle(Variable)

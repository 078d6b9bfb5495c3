"""`State`: how `Variables` holds its values. The public class with its views and edits is in `variables`.

One flat tuple of leaves in key order, and one interned `Layout`. To set one of many values without copying
all of them, larger states also keep the leaves in chunks of about sqrt(N); the flat tuple is made again when
it is asked for.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.buffers import donated_by, is_concrete, is_weak, unshared
from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    NotFoundError,
    nearest_names,
)
from jaxvars.layout import Layout, make_layout
from jaxvars.spec import VariableSpec, is_hole, leaf_dtype, leaf_nbytes, leaf_shape, leaf_size

_new = object.__new__

__all__ = ["State", "as_leaf", "checked_key", "key_of", "missing_name_text"]


def key_of(ref: Any) -> str | None:
    """Return the text of `ref`, a name, ``name:0``, handle or spec; None for other types."""
    if isinstance(ref, str):
        return ref
    key = getattr(ref, "key", None)
    return key if isinstance(key, str) else None


def missing_name_text(name: str, keys: Iterable[str]) -> str:
    """Say that `name` does not exist and what its author may have meant."""
    keys = list(keys)
    text = f'variable "{name}" does not exist among these {len(keys)} variables.'
    below = name.rstrip("/") + "/"
    if any(key.startswith(below) for key in keys):
        return f'{text} It is a scope: write variables.scope("{name.rstrip("/")}").'
    near = nearest_names(name, keys)
    return f"{text} Nearest: {', '.join(near)}." if near else text


class State(Mapping[str, jax.Array]):
    """Immutable mapping from names to values, one pytree node. Use it as `Variables`."""

    __slots__ = ("__weakref__", "_chunks", "_flat", "_layout")

    #: Whether variables share buffers; see `Variables.packed`.
    _is_packed: ClassVar[bool] = False

    _layout: Layout
    _flat: tuple[Any, ...] | None
    _chunks: tuple[tuple[Any, ...], ...] | None

    def __init__(self, values: Mapping[str, Any] | None = None, /) -> None:
        values = {} if values is None else values
        if isinstance(values, State):
            self._layout, self._flat, self._chunks = values._layout, values._leaves, None
            return
        if not isinstance(cast(object, values), Mapping):
            raise InvalidTypeError(
                f"Variables takes a mapping from names to arrays, got {type(values).__name__}. "
                "Write: Variables({'a/b': array, ...}) or Variables.from_nested(tree)"
            )
        leaves: list[Any] = []
        specs: list[VariableSpec] = []
        for ref, value in values.items():
            key = checked_key(ref)
            leaf = as_leaf(key, value)
            leaves.append(leaf)
            specs.append(VariableSpec(key, leaf_shape(leaf), leaf_dtype(leaf)))
        self._fill(specs, leaves)
        self._flat = unshared(self._leaves)

    def _fill(self, specs: list[VariableSpec], leaves: list[Any]) -> None:
        keys = [spec.key for spec in specs]
        if len(set(keys)) != len(keys):
            twice = sorted(key for key, count in collections.Counter(keys).items() if count > 1)
            raise InvalidArgumentError(f"names given twice: {', '.join(twice)}. A name stands for one variable.")
        by_key = dict(zip(keys, leaves, strict=True))
        self._layout = make_layout(specs)
        self._flat = tuple(by_key[key] for key in self._layout.keys)
        self._chunks = None

    @classmethod
    def from_specs(cls, pairs: Iterable[tuple[VariableSpec, Any]]) -> Self:
        """Return the variables of these (spec, value) pairs, whose order is kept as creation order.

        Shape and dtype are those of the value; values are taken as they are.
        """
        pairs = list(pairs)
        self = cls.__new__(cls)
        self._fill([spec for spec, _ in pairs], [value for _, value in pairs])
        return self

    @classmethod
    def _of(cls, layout: Layout, leaves: tuple[Any, ...]) -> Self:
        self = _new(cls)
        self._layout = layout
        self._flat = leaves
        self._chunks = None
        return self

    # -- leaves ------------------------------------------------------------------------------------------

    @property
    def _leaves(self) -> tuple[Any, ...]:
        flat = self._flat
        if flat is None:
            assert self._chunks is not None
            flat = self._flat = tuple(itertools.chain.from_iterable(self._chunks))
        return flat

    def _leaf(self, position: int) -> Any:
        flat = self._flat
        if flat is not None:
            return flat[position]
        assert self._chunks is not None
        bits = self._layout.bits
        return self._chunks[position >> bits][position & ((1 << bits) - 1)]

    def _with_leaves(self, leaves: Iterable[Any]) -> Self:
        """Return the same layout over other leaves, given in key order; not checked."""
        return self._of(self._layout, tuple(leaves))

    def _renewed(self, layout: Layout, leaves: Iterable[Any]) -> Self:
        """Return a state of another layout and its leaves, kept as this one is: packed where this one is packed."""
        return self._of(layout, tuple(leaves))

    def _alike(self, other: Any) -> Any:
        """Return `other`, a state, kept as this one is."""
        return other

    def _abstract(self) -> Self:
        """Return the shapes and dtypes of the values, as the same layout over `jax.ShapeDtypeStruct`."""
        return self._of(self._layout, tuple([jax.ShapeDtypeStruct(x.shape, x.dtype) for x in self._leaves]))

    def _paired(self, names: Mapping[str, str]) -> dict[int, int] | None:
        """Which buffer holds the partners (name -> its partner's name) of the variables in each, in the same order.

        None where the state is not packed, or partners lie otherwise.
        """
        return None

    def _part(self, positions: Sequence[int], layout: Layout) -> Any:
        """Return the state of just these ascending positions, whose layout is `layout`."""
        leaves = self._leaves
        return self._of(layout, tuple([leaves[position] for position in positions]))

    def _with_part(self, positions: Sequence[int], part: State) -> Self:
        """Return the state with the values at `positions` replaced by those of `part`."""
        leaves = list(self._leaves)
        for position, leaf in zip(positions, part._leaves, strict=True):
            leaves[position] = leaf
        return self._with_leaves(leaves)

    def _set(self, key: str, value: Any) -> Self:
        """Return a state with the value of `key` replaced, in O(sqrt N); not checked."""
        return self._set_at(self._layout.index[key], value)

    def _set_at(self, position: int, value: Any) -> Self:
        # A list copy is the fastest way to change one entry of a tuple.
        layout = self._layout
        bits = layout.bits
        new = _new(self.__class__)
        new._layout = layout
        if not bits:
            flat = list(self._leaves)
            flat[position] = value
            new._flat = tuple(flat)
            new._chunks = None
            return new
        chunks = list(self._chunks or self._chunked())
        number = position >> bits
        chunk = list(chunks[number])
        chunk[position & ((1 << bits) - 1)] = value
        chunks[number] = tuple(chunk)
        new._flat = None
        new._chunks = tuple(chunks)
        return new

    def _chunked(self) -> tuple[tuple[Any, ...], ...]:
        flat, size = self._leaves, 1 << self._layout.bits
        chunks = tuple(flat[start : start + size] for start in range(0, len(flat), size))
        self._chunks = chunks  # the next set on this state finds them
        return chunks

    # -- mapping -----------------------------------------------------------------------------------------

    def _find(self, ref: Any) -> int | None:
        """Position of the variable that `ref` names, or None."""
        index = self._layout.index
        key = key_of(ref)
        if key is None:
            return None
        position = index.get(key)
        if position is None and key.endswith(":0"):
            position = index.get(key[:-2])
        return position

    def _position(self, ref: Any) -> int:
        position = self._find(ref)
        if position is not None:
            return position
        key = key_of(ref)
        if key is None:
            raise InvalidTypeError(
                f"a variable is looked up by its name, handle or spec, got {type(ref).__name__}: {ref!r:.80}"
            )
        raise NotFoundError(missing_name_text(key, self._layout.keys))

    def _resolve(self, ref: Any) -> str:
        """Return the key that a name, ``name:0``, handle or spec stands for, else raise `NotFoundError`."""
        return self._layout.keys[self._position(ref)]

    def __getitem__(self, ref: Any) -> jax.Array:
        position = self._layout.index.get(ref) if type(ref) is str else None
        if position is None:
            position = self._position(ref)
            within = getattr(type(ref), "within", None)
            if within is not None:  # the handle of a slice of a partitioned variable
                return within(ref, self[self._layout.keys[position]])
        value = self._leaf(position)
        if is_concrete(value) and value.is_deleted():
            self._raise_deleted(position, value)
        return value

    def _raise_deleted(self, position: int, value: Any) -> NoReturn:
        key = self._layout.keys[position]
        donor = donated_by(value) or "donated to a jitted function (donate_argnums) or deleted"
        site = self._layout.defined_at[position]
        raise FailedPreconditionError(
            f'the value of variable "{key}" is gone: it was {donor}.'
            + (f" Variable defined at {site}." if site else "")
            + " Use the state that this call returned: variables = step(variables, ...)"
        )

    def get(self, ref: Any, default: Any = None) -> Any:
        """Return the value of `ref`, or `default` where there is no such variable."""
        return default if self._find(ref) is None else self[ref]

    def __contains__(self, ref: object) -> bool:
        return self._find(ref) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.keys)

    def __len__(self) -> int:
        return len(self._layout.keys)

    # Identity, not contents: comparing arrays would be slow, ambiguous, and impossible for tracers.
    if TYPE_CHECKING:

        def __eq__(self, other: object, /) -> bool: ...
        def __hash__(self) -> int: ...
    else:
        __eq__ = object.__eq__
        __hash__ = object.__hash__

    def __setitem__(self, ref: Any, value: Any) -> NoReturn:
        raise InvalidTypeError(
            "Variables is a value and cannot be changed in place. "
            f"Write: variables = variables.replace({{{_shown(ref)}: value}}), "
            f"or variables = jv.assign(variables, {_shown(ref)}, value)"
        )

    def __delitem__(self, ref: Any) -> NoReturn:
        raise InvalidTypeError(
            "Variables is a value and cannot be changed in place. "
            f"Write: variables.select(lambda key, spec: key != {_shown(ref)})"
        )

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._layout, self._leaves)

    # -- displays ----------------------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        from jaxvars.summary import summarize  # here: `import jaxvars` does without

        return summarize(self)._repr_html_()

    def __rich__(self) -> Any:
        from jaxvars.summary import summarize

        return summarize(self)

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        from treescope import repr_lib

        values = dict(zip(self._layout.keys, self._leaves, strict=True))
        return repr_lib.render_dictionary_wrapper(type(self), values, path, subtree_renderer)

    # -- descriptions ------------------------------------------------------------------------------------

    @property
    def variable_specs(self) -> dict[str, VariableSpec]:
        """The `VariableSpec` of each variable, by name; shapes and dtypes are those of the values."""
        layout = self._layout
        return {
            key: layout.spec(i, leaf_shape(leaf), leaf_dtype(leaf))
            for i, (key, leaf) in enumerate(zip(layout.keys, self._leaves, strict=True))
        }

    @property
    def uninitialized(self) -> tuple[str, ...]:
        """Names of the variables without a value, in the order of their creation.

        Example:
          >>> import jax, jaxvars as jv
          >>> jv.Variables({"w": jax.ShapeDtypeStruct((2,), "float32"), "b": 0.0}).uninitialized
          ('w',)
        """
        index = self._layout.index
        return tuple(key for key in self._layout.creation_order if is_hole(self._leaf(index[key])))

    @property
    def size(self) -> int:
        """Number of elements of all variables, initialized or not."""
        return sum(leaf_size(leaf) for leaf in self._leaves)

    @property
    def nbytes(self) -> int:
        """Size in bytes of all variables, initialized or not."""
        return sum(leaf_nbytes(leaf) for leaf in self._leaves)


def _rebuild(cls: type[State], layout: Layout, leaves: tuple[Any, ...]) -> State:
    return cls._of(layout, leaves)


def _shown(ref: Any) -> str:
    """`ref` as its author would write it in a line of code."""
    key = key_of(ref)
    return f'"{key}"' if key is not None else repr(ref)


def checked_key(ref: Any) -> str:
    """Return the key of a name, handle or spec given for a new variable, or raise what is wrong with it."""
    key = key_of(ref)
    if key is None:
        raise InvalidTypeError(f"a variable's name is a string, got {type(ref).__name__}: {ref!r:.80}")
    key = key.removesuffix(":0")
    if not key or key.startswith("/") or key.endswith("/"):
        raise InvalidArgumentError(f'"{key}" is not a variable name: it must be non-empty, with no "/" at its ends.')
    return key


def as_leaf(key: str, value: Any) -> Any:
    """A value given by the user as a strong-typed array, tracer or hole, or an error that names `key`."""
    if is_hole(value):
        return value
    if isinstance(value, Mapping):
        raise InvalidTypeError(
            f'the value of "{key}" is a mapping. For nested values write: Variables.from_nested(tree)'
        )
    if isinstance(value, jax.Array):
        return jax.lax.convert_element_type(value, value.dtype) if is_weak(value) else value
    if callable(getattr(value, "__jax_array__", None)):
        return as_leaf(key, value.__jax_array__())
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f'the value of "{key}" is not an array: {error}') from None
    if array.dtype.kind != "b" and not jnp.issubdtype(array.dtype, np.number):
        raise InvalidTypeError(
            f'the value of "{key}" is not an array of numbers: {value!r:.60}. '
            "For a variable without value yet write: jax.ShapeDtypeStruct(shape, dtype)"
        )
    return _from_numpy(key, array)


def _from_numpy(key: str, array: np.ndarray[Any, Any]) -> Any:
    """`array` on the default device, in the dtype JAX has for it; integers that do not fit raise."""
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.dtype.kind in "iu" and dtype != array.dtype and array.size:
        info = np.iinfo(dtype)
        if int(array.min()) < info.min or int(array.max()) > info.max:
            raise InvalidArgumentError(
                f'the value of "{key}" is {array.dtype} and does not fit {dtype}, '
                'which JAX uses without x64. Write: jax.config.update("jax_enable_x64", True)'
            )
    return jnp.array(array.astype(dtype, copy=False))

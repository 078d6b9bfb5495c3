"""`PackedVariables`: a state whose small variables lie together in buffers, one array each to JAX.

Same names, same functions, fewer arrays. Reading a variable cuts it out of its buffer, setting one writes into the
buffer; both at the level of the buffer itself, so that what was cut out once serves wherever the buffer does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars import _compat
from jaxvars.buffers import is_concrete, is_deleted
from jaxvars.errors import InvalidArgumentError
from jaxvars.layout import Layout
from jaxvars.placement.packing import Group, Packing, PackingRule, home_of, packing_of
from jaxvars.spec import VariableSpec, leaf_nbytes, leaf_size
from jaxvars.state import State
from jaxvars.variables import Variables

__all__ = ["PackedVariables", "pack"]

# Pieces of a traced buffer are cut and joined in two steps of about this many: one operation of a thousand results
# takes XLA longer to compile, and its code longer to run.
_FAN = 32
# So many variables of a state are cut out one by one; who reads more reads all, and that is cheaper at once.
_FEW = 16


def pack(variables: Variables, max_bytes: Any, separate: Any) -> Variables:
    """The work of `Variables.packed`."""
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes <= 0:
        raise InvalidArgumentError(
            f"packed(max_bytes={max_bytes!r}): the size in bytes of the largest variable to pack."
        )
    pairs = separate.items() if isinstance(separate, Mapping) else separate or ()
    rule = PackingRule(max_bytes, tuple((pattern, label) for pattern, label in pairs))
    if rule.separate:
        from jaxvars.views import mapped

        mapped(variables, list(rule.separate), "packed")  # a pattern that matches nothing is refused here, once
    return _packed(variables.unpacked(), rule)


def _packed(variables: Variables, rule: PackingRule) -> PackedVariables:
    packing = packing_of(variables, rule)
    leaves = variables._leaves
    buffers = [_joined([leaves[position] for position in group.positions], group) for group in packing.groups]
    return PackedVariables._pack(packing, (*buffers, *(leaves[position] for position in packing.loose)))


class PackedVariables(Variables):
    """`Variables` made by `Variables.packed`. Its leaves are the buffers and the variables that are not packed."""

    __slots__ = ("_children", "_packing", "_pieces", "_reads")

    _is_packed: ClassVar[bool] = True

    _packing: Packing
    _children: tuple[Any, ...]
    # Per buffer what was cut out of it: all of it, or nothing.
    _pieces: list[tuple[Any, ...] | None]
    _reads: int

    def __new__(cls, values: Any = None, /) -> Any:
        """Make a state that is not packed: only `Variables.packed` packs."""
        return Variables(values)

    @classmethod
    def _of(cls, layout: Layout, leaves: tuple[Any, ...]) -> Any:
        return Variables._of(layout, leaves)

    @classmethod
    def from_specs(cls, pairs: Iterable[tuple[VariableSpec, Any]]) -> Any:
        """Make a state that is not packed."""
        return Variables.from_specs(pairs)

    @classmethod
    def _pack(
        cls, packing: Packing, children: tuple[Any, ...], pieces: list[tuple[Any, ...] | None] | None = None
    ) -> PackedVariables:
        self = object.__new__(PackedVariables)
        self._layout = packing.layout
        self._flat = self._chunks = None
        self._packing = packing
        self._children = children
        self._reads = 0
        self._pieces = [None] * len(packing.groups) if pieces is None else pieces
        return self

    # -- leaves ------------------------------------------------------------------------------------------

    @property
    def _leaves(self) -> tuple[Any, ...]:
        flat = self._flat
        if flat is None:
            found: dict[int, Any] = {}
            for number, group in enumerate(self._packing.groups):
                found.update(zip(group.positions, self._cut(number), strict=True))
            found.update(zip(self._packing.loose, self._children[len(self._pieces) :], strict=True))
            flat = self._flat = tuple([found[position] for position in range(len(found))])
        return flat

    def _leaf(self, position: int) -> Any:
        number, place = self._packing.where[position]
        if number is None:
            return self._children[place]
        buffer = self._children[number]
        if is_deleted(buffer):
            self._raise_deleted(position, buffer)
        if self._pieces[number] is None and isinstance(buffer, jax.Array) and self._reads < _FEW:
            self._reads += 1
            self._check_buffer(number)
            size, offset = self._packing.sizes[number][place], self._packing.offsets[number][place]
            with _compat.own_trace(buffer):
                return _piece(buffer, np.int32(offset), size, self._packing.groups[number].shapes[place])
        return self._cut(number)[place]

    def _cut(self, number: int) -> tuple[Any, ...]:
        """The values of all variables in a buffer."""
        pieces = self._pieces[number]
        if pieces is None:
            group, buffer = self._packing.groups[number], self._children[number]
            if is_deleted(buffer):
                self._raise_deleted(group.positions[0], buffer)
            self._check_buffer(number)
            with _compat.own_trace(buffer):
                pieces = self._pieces[number] = tuple(_cut(buffer, group, self._packing.sizes[number]))
        return pieces

    def _abstract(self) -> Any:
        found: dict[int, Any] = {}
        for child, group in zip(self._children, self._packing.groups, strict=False):
            structs = [jax.ShapeDtypeStruct((*child.shape[:-1], *shape), child.dtype) for shape in group.shapes]
            found.update(zip(group.positions, structs, strict=True))
        for position, child in zip(self._packing.loose, self._children[len(self._pieces) :], strict=True):
            found[position] = jax.ShapeDtypeStruct(child.shape, child.dtype)
        return Variables._of(self._layout, tuple([found[position] for position in range(len(found))]))

    def _check_buffer(self, number: int) -> None:
        """Refuse what a function of whole leaves has made of a buffer, such as a sum over it."""
        shape = getattr(self._children[number], "shape", None)
        size = sum(self._packing.sizes[number])
        if shape is not None and (not shape or shape[-1] != size):
            key = self._layout.keys[self._packing.groups[number].positions[0]]
            raise InvalidArgumentError(
                f'"{key}" and {len(self._packing.groups[number].positions) - 1} more variables are packed into one '
                f"buffer of {size} elements, in whose place is now an array of shape {tuple(shape)}. A function of "
                "single variables (their norms, shapes, ...) takes: variables.unpacked()"
            )

    def _with_children(self, children: Mapping[int, Any]) -> PackedVariables:
        """Return the state with these buffers and unpacked values replaced, by number; not checked."""
        pieces = [None if number in children else known for number, known in enumerate(self._pieces)]
        changed = tuple([children.get(number, child) for number, child in enumerate(self._children)])
        return self._pack(self._packing, changed, pieces)

    def _with_leaves(self, leaves: Iterable[Any]) -> Self:
        leaves = tuple(leaves)
        packing = self._packing
        children: list[Any] = []
        pieces = list(self._pieces)
        for number, group in enumerate(packing.groups):
            members = [leaves[position] for position in group.positions]
            known = self._pieces[number]
            if known is not None and all(new is old for new, old in zip(members, known, strict=True)):
                children.append(self._children[number])
                continue
            if not _fits(members, group):
                return cast(Self, _packed(Variables._of(self._layout, leaves), packing.rule))
            pieces[number] = None
            children.append(self._joined_or_same(members, group))
        children += [leaves[position] for position in packing.loose]
        return cast(Self, self._pack(packing, tuple(children), pieces))

    def _joined_or_same(self, members: list[Any], group: Group) -> Any:
        """One buffer of arrays, or what stands for all of them alike: a mask, a label, None."""
        first = members[0]
        if isinstance(first, jax.Array):
            return _joined(members, group)
        if isinstance(first, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((sum(np.prod(shape, dtype=int) for shape in group.shapes),), first.dtype)
        for position, member in zip(group.positions, members, strict=True):
            if type(member) is not type(first) or member != first:
                keys = self._layout.keys
                raise InvalidArgumentError(
                    f'"{keys[group.positions[0]]}" ({first!r}) and "{keys[position]}" ({member!r}) are packed into one '
                    "buffer and cannot be told apart. Pack them apart, by the same rules:\n"
                    "    variables = variables.packed(separate=[(pattern, label), ...])\n"
                    "or work on variables.unpacked()."
                )
        return first

    def _set_at(self, position: int, value: Any) -> Self:
        number, place = self._packing.where[position]
        if number is None:
            return cast(Self, self._with_children({place: value}))
        buffer, shape = self._children[number], self._packing.groups[number].shapes[place]
        fits = isinstance(value, jax.Array) and isinstance(buffer, jax.Array) and value.dtype == buffer.dtype
        if not fits or value.shape != (*buffer.shape[:-1], *shape):
            leaves = list(self._leaves)
            leaves[position] = value
            return self._with_leaves(leaves)
        return cast(
            Self, self._with_children({number: _written(buffer, value, np.int32(self._packing.offsets[number][place]))})
        )

    # -- other states ------------------------------------------------------------------------------------

    def _paired(self, names: Mapping[str, str]) -> dict[int, int] | None:
        layout, packing = self._layout, self._packing
        positions = tuple(sorted(layout.index[name] for name in names))
        numbers = packing.children_of(positions)
        if numbers is None:
            return None
        found: dict[int, int] = {}
        for number in numbers:
            members = packing.members(number)
            partner = packing.child_of(tuple(layout.index[names[layout.keys[position]]] for position in members))
            if partner is None:
                return None
            found[number] = partner
        return found

    def _part(self, positions: Sequence[int], layout: Layout) -> Any:
        positions = tuple(positions)
        numbers = self._packing.children_of(positions)
        if numbers is None:
            return Variables._of(layout, tuple([self._leaves[position] for position in positions]))
        part = self._packing.part(numbers, positions, layout)
        pieces = [self._pieces[n] for n in numbers if n < len(self._pieces)]
        return self._pack(part, tuple([self._children[n] for n in numbers]), pieces)

    def _with_part(self, positions: Sequence[int], part: State) -> Self:
        numbers = self._packing.children_of(tuple(positions))
        if numbers is None or not isinstance(part, PackedVariables):
            return super()._with_part(positions, part)
        return cast(Self, self._with_children(dict(zip(numbers, part._children, strict=True))))

    def _renewed(self, layout: Layout, leaves: Iterable[Any]) -> Self:
        return cast(Self, _packed(Variables._of(layout, tuple(leaves)), self._packing.rule))

    def _alike(self, other: Any) -> Any:
        return _packed(other.unpacked(), self._packing.rule)

    def unpacked(self) -> Variables:
        """Return the state with one array per variable."""
        return Variables._of(self._layout, self._leaves)

    def packed(self, max_bytes: int = 1 << 14, separate: Any = None) -> Variables:
        """Return the state packed by these rules instead of its own."""
        return pack(self.unpacked(), max_bytes, separate)

    def __or__(self, other: Any) -> Any:
        if isinstance(other, PackedVariables):
            numbers = self._same_children(other)
            if numbers is not None:
                return self._with_children(dict(zip(numbers, other._children, strict=True)))
        merged = self.unpacked() | (other.unpacked() if isinstance(other, Variables) else other)
        return self._alike(merged) if isinstance(merged, Variables) else merged

    def __ror__(self, other: Any) -> Any:
        merged = self.unpacked().__ror__(other)
        return self._alike(merged) if isinstance(merged, Variables) else merged

    def _same_children(self, other: PackedVariables) -> list[int] | None:
        """The children here that hold what those of a view of this state hold, None where it is no such view."""
        layout, part = self._layout, other._layout
        found = [layout.index.get(key) for key in part.keys]
        if None in found or any(isinstance(child, jax.ShapeDtypeStruct) for child in other._children):
            return None
        positions = tuple(cast(list[int], found))
        numbers = self._packing.children_of(positions)
        if numbers is None or self._packing.part(numbers, positions, part) != other._packing:
            return None
        return list(numbers) if layout.subset(positions) == part else None

    # -- the mapping -------------------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        return PackedVariables._pack, (self._packing, self._children)

    @property
    def size(self) -> int:
        """Number of elements of all variables, initialized or not."""
        return sum(map(leaf_size, self._children))

    @property
    def nbytes(self) -> int:
        """Size in bytes of all variables, initialized or not."""
        return sum(map(leaf_nbytes, self._children))

    def __repr__(self) -> str:
        groups, loose = self._packing.groups, self._packing.loose
        inside = sum(len(group.positions) for group in groups)
        return (
            f"Variables({len(self)} variables, {self.size:,} elements, packed: {inside} in {len(groups)} "
            f"buffer{'' if len(groups) == 1 else 's'}, {len(loose)} alone)"
        )


def _edited(method: Callable[..., Any]) -> Callable[..., Any]:
    """An edit that makes another layout: made on single variables, and the result is packed by the same rules."""

    @functools.wraps(method)
    def edited(self: PackedVariables, *args: Any, **kwargs: Any) -> Any:
        return self._alike(method(self.unpacked(), *args, **kwargs))

    return edited


for _edit in ("freeze", "with_trainable", "rename", "astype", "copy_scope", "to"):
    setattr(PackedVariables, _edit, _edited(getattr(Variables, _edit)))


# Arrays


def _fits(members: Sequence[Any], group: Group) -> bool:
    """Whether values still go into the buffer that held these variables."""
    kinds = {isinstance(member, jax.Array | jax.ShapeDtypeStruct) for member in members}
    if kinds == {False}:
        return True
    if kinds != {True} or len({isinstance(member, jax.ShapeDtypeStruct) for member in members}) > 1:
        return False
    shapes = zip(members, group.shapes, strict=True)
    leads = {member.shape[: member.ndim - len(shape)] for member, shape in shapes if _ends_in(member.shape, shape)}
    whole = all(_ends_in(member.shape, shape) for member, shape in zip(members, group.shapes, strict=True))
    return whole and len(leads) == 1 and len({member.dtype for member in members}) == 1


def _ends_in(shape: tuple[int, ...], end: tuple[int, ...]) -> bool:
    return len(shape) >= len(end) and shape[len(shape) - len(end) :] == end


def _joined(members: Sequence[Any], group: Group) -> jax.Array:
    """One buffer; dimensions that ``vmap`` put in front of the variables' own stay in front."""
    lead = members[0].shape[: members[0].ndim - len(group.shapes[0])]
    if all(is_concrete(member) and member.is_fully_addressable for member in members):
        host = np.concatenate([np.asarray(member).reshape(*lead, -1) for member in members], axis=-1)
        with jax.ensure_compile_time_eval():
            return jax.device_put(host, home_of(members[0]))
    flat = [jnp.reshape(member, (*lead, -1)) for member in members]
    while len(flat) > 1:
        flat = [jnp.concatenate(flat[start : start + _FAN], axis=-1) for start in range(0, len(flat), _FAN)]
    return flat[0]


def _cut(buffer: Any, group: Group, sizes: Sequence[int]) -> Iterable[Any]:
    """The members of a buffer; of what stands for all of them alike, that."""
    shape = getattr(buffer, "shape", None)
    if shape is None:
        return [buffer] * len(sizes)
    lead = tuple(shape[:-1])
    shapes = [(*lead, *own) for own in group.shapes]
    if not isinstance(buffer, jax.Array):
        return [jax.ShapeDtypeStruct(own, buffer.dtype) for own in shapes]
    if is_concrete(buffer) and buffer.is_fully_addressable:
        # Without compiling anything. Copies: device_put may keep the memory it is given, and a buffer may be donated.
        host = np.split(np.asarray(buffer), np.cumsum(sizes)[:-1], axis=-1)
        pieces = [np.array(piece).reshape(own) for piece, own in zip(host, shapes, strict=True)]
        return jax.device_put(pieces, home_of(buffer))
    pieces = _split(buffer, list(sizes))
    return [piece.reshape(own) for piece, own in zip(pieces, shapes, strict=True)]


def _split(buffer: Any, sizes: list[int]) -> list[Any]:
    """Split along the last axis. Its transpose is one concatenation, where slices would each pad a whole buffer."""
    if len(sizes) <= _FAN:
        return list(jax.lax.split(buffer, sizes, axis=buffer.ndim - 1))
    step = max(_FAN, -(-len(sizes) // _FAN))
    parts = [sizes[start : start + step] for start in range(0, len(sizes), step)]
    pieces = jax.lax.split(buffer, [sum(part) for part in parts], axis=buffer.ndim - 1)
    return [one for piece, part in zip(pieces, parts, strict=True) for one in _split(piece, part)]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _piece(buffer: jax.Array, offset: Any, size: int, shape: tuple[int, ...]) -> jax.Array:
    piece = jax.lax.dynamic_slice_in_dim(buffer, offset, size, axis=-1)
    return piece.reshape(*buffer.shape[:-1], *shape)


@jax.jit
def _written(buffer: jax.Array, value: jax.Array, offset: Any) -> jax.Array:
    flat = value.reshape(*buffer.shape[:-1], -1)
    return jax.lax.dynamic_update_slice_in_dim(buffer, flat, offset, axis=-1)


def _flatten(variables: PackedVariables) -> tuple[tuple[Any, ...], Packing]:
    return variables._children, variables._packing


def _flatten_with_keys(variables: PackedVariables) -> tuple[tuple[tuple[Any, Any], ...], Packing]:
    return tuple(zip(variables._packing.key_paths, variables._children, strict=True)), variables._packing


def _unflatten(packing: Packing, children: Any) -> PackedVariables:
    return PackedVariables._pack(packing, tuple(children))


jax.tree_util.register_pytree_with_keys(PackedVariables, _flatten_with_keys, _unflatten, _flatten)

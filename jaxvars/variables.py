"""`Variables`: the state of a model, an immutable mapping from names to arrays and one pytree node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp

from jaxvars import edits, nesting, views
from jaxvars.errors import InvalidArgumentError
from jaxvars.layout import Layout
from jaxvars.spec import is_hole, leaf_dtype
from jaxvars.state import State

if TYPE_CHECKING:
    from jaxvars.summary import Summary

__all__ = ["Variables"]

_UNSET: Any = object()
_SHOWN = 4  # variables named in a repr


class Variables(State):
    """The state of a model: an immutable mapping from names to arrays, and one pytree node.

    Values are read as ``variables["conv1/weights"]``, ``variables["conv1/weights:0"]`` or
    ``variables[handle]``. The value of an uninitialized variable is a `jax.ShapeDtypeStruct`. Changing means
    making a new state: `replace`, ``|``, or the functions ``jv.assign``, ``jv.assign_add``, ... Comparison is
    identity.

    As a pytree its leaves are the values in name order, under key paths ``"scope/name"``; it goes through
    ``jit``, ``grad``, ``vmap``, optax and Orbax as any tree of arrays, at the speed of a plain tuple. Two
    states have the same structure when their names, trainable flags and collections (and constraints)
    agree, whatever the order of creation.

    Args:
      values: name -> array, number or `jax.ShapeDtypeStruct`. New variables are trainable and in TF1's
        collections GLOBAL_VARIABLES and TRAINABLE_VARIABLES.

    Raises:
      InvalidTypeError: a value that is not an array of numbers.
      InvalidArgumentError: an empty name, one with "/" at its ends, or given twice.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.Variables({"dense/kernel": jnp.ones((2, 3)), "dense/bias": jnp.zeros(3)})
      >>> variables
      Variables(2 variables, 9 elements: dense/bias float32[3], dense/kernel float32[2,3])
      >>> jax.tree.map(jnp.shape, variables)["dense/kernel"]
      (2, 3)
    """

    __slots__ = ()

    # -- views -------------------------------------------------------------------------------------------

    @property
    def trainable(self) -> Self:
        """The trainable variables (TF1: ``tf.trainable_variables()``).

        Example:
          >>> import jaxvars as jv
          >>> list(jv.Variables({"w": 1.0, "step": 0}).freeze("step").trainable)
          ['w']
        """
        flags = self._layout.trainable
        return views.view(self, "trainable", lambda: [i for i, flag in enumerate(flags) if flag])

    @property
    def non_trainable(self) -> Self:
        """The variables that are not trainable: moving averages, counters, optimizer slots.

        Example:
          >>> import jaxvars as jv
          >>> list(jv.Variables({"w": 1.0, "step": 0}).freeze("step").non_trainable)
          ['step']
        """
        flags = self._layout.trainable
        return views.view(self, "non_trainable", lambda: [i for i, flag in enumerate(flags) if not flag])

    def collection(self, key: str, scope: str | None = None) -> Self:
        """Return the members of a collection (TF1: ``tf.get_collection(key, scope)``).

        Args:
          key: name of the collection. One that nobody is in gives an empty state, as in TF1.
          scope: a regular expression that the start of the name must match, as in TF1.

        Example:
          >>> import jaxvars as jv
          >>> list(jv.Variables({"conv/w": 1.0, "fc/w": 2.0}).collection("trainable_variables", scope="fc"))
          ['fc/w']
        """
        return views.view(self, ("collection", key, scope), lambda: views.in_collection(self, key, scope))

    def scope(self, name: str) -> Self:
        """Return the variables of scope `name`: exactly that name and everything below, names kept.

        Raises:
          NotFoundError: there is no such scope; the nearest are listed.

        Example:
          >>> import jaxvars as jv
          >>> list(jv.Variables({"gen/w": 1.0, "gen_2/w": 2.0}).scope("gen"))
          ['gen/w']
        """
        return views.view(self, ("scope", name), lambda: views.in_scope(self, name))

    def select(self, rules: Any, *, allow_unmatched: bool = False) -> Self:
        """Return the variables that `rules` choose.

        Args:
          rules: a pattern (a regular expression for the whole name, or ``"scope/"``), name, handle or spec; a
            list of these, in which the first that matches wins and ``(pattern, None)`` leaves out; or a
            function ``(key, spec) -> bool``.
          allow_unmatched: accept patterns that match nothing.

        Raises:
          NotFoundError: a pattern matches nothing.

        Example:
          >>> import jaxvars as jv
          >>> variables = jv.Variables({"gen/w": 1.0, "gen/bn/scale": 1.0, "disc/w": 1.0})
          >>> list(variables.select([("gen/bn/", None), "gen/"]))
          ['gen/w']
        """
        return views.taken(self, views.chosen(self, rules, "select", allow_unmatched=allow_unmatched))

    # -- edits -------------------------------------------------------------------------------------------

    def replace(self, values: Mapping[Any, Any]) -> Self:
        """Return the state with other values, checked as `jv.assign` does; all or nothing.

        Args:
          values: name, handle or spec -> value of exactly the variable's shape, or a hole.

        Raises:
          NotFoundError, InvalidArgumentError, InvalidTypeError: unknown names, other shapes, other kinds of
            dtype; all of them are listed.

        Example:
          >>> import jax.numpy as jnp
          >>> import jaxvars as jv
          >>> jv.Variables({"b": jnp.zeros(2)}).replace({"b": [1, 2]})["b"]
          Array([1., 2.], dtype=float32)
        """
        return edits.replace(self, values)

    def __or__(self, other: Any) -> Self:
        """Return the union of two states; the right wins, but a hole never wins over a value.

        Example:
          >>> import jaxvars as jv
          >>> merged = jv.Variables({"a": 1.0, "b": 1.0}) | jv.Variables({"b": 2.0, "c": 2.0})
          >>> [float(value) for value in merged.values()]
          [1.0, 2.0, 2.0]
        """
        if isinstance(other, State):
            return edits.merge(self, other)
        if isinstance(other, Mapping):
            return edits.merge(self, Variables(other), keep_specs=True)
        return NotImplemented

    def __ror__(self, other: Any) -> Self:
        if isinstance(other, Mapping):
            return edits.merge(type(self)(other), self)
        return NotImplemented

    def copy_scope(self, source: str, target: str, *, trainable: bool | None = None) -> Self:
        """Return the state with everything in scope `source` copied under `target`, as for target networks.

        Variables of `target` that exist already get the values and keep their flags.

        Args:
          source: a scope or name.
          target: the scope or name of the copy.
          trainable: the flag of the copies; None keeps what it was.

        Raises:
          NotFoundError: there is no scope `source`.
          InvalidArgumentError: an existing variable of `target` has another shape or dtype.

        Example:
          >>> import jaxvars as jv
          >>> variables = jv.Variables({"q/w": 1.0}).copy_scope("q", "q_target", trainable=False)
          >>> list(variables), list(variables.trainable)
          (['q/w', 'q_target/w'], ['q/w'])
        """
        return edits.copy_scope(self, source, target, trainable)

    def astype(self, rules: Any, *, allow_unmatched: bool = False) -> Self:
        """Return the state in other dtypes.

        Args:
          rules: a dtype, for all floating-point variables (counters stay as they are); or a dict or list of
            (pattern, dtype) for those that match, None for unchanged.
          allow_unmatched: accept patterns that match nothing.

        Raises:
          NotFoundError: a pattern matches nothing.
          InvalidArgumentError: a 64-bit dtype while JAX runs without x64.

        Example:
          >>> import jax.numpy as jnp
          >>> import jaxvars as jv
          >>> jv.Variables({"w": 1.0, "step": 0}).astype(jnp.bfloat16)
          Variables(2 variables, 2 elements: step int32[], w bfloat16[])
        """
        if isinstance(rules, Mapping | list | tuple):
            wanted = views.mapped(self, rules, "astype", allow_unmatched=allow_unmatched)
            return edits.cast(self, {i: dtype for i, dtype in wanted.items() if dtype is not None})
        floating = [i for i, leaf in enumerate(self._leaves) if jnp.issubdtype(leaf_dtype(leaf), jnp.floating)]
        return edits.cast(self, dict.fromkeys(floating, rules))

    def rename(self, rules: Any, *, allow_unmatched: bool = False) -> Self:
        r"""Return the state under other names.

        Args:
          rules: a dict or list of (pattern, replacement[, transform]): the pattern matches the present name,
            the replacement is the new one with back-references filled in, None leaves it; transform is a
            function array -> array. All names change at once, so rules may swap names.
          allow_unmatched: accept patterns that match nothing.

        Raises:
          NotFoundError: a pattern matches nothing; rules that would match turned round are shown so.
          InvalidArgumentError: two variables would get one name; all are listed.

        Example:
          >>> import jaxvars as jv
          >>> list(jv.Variables({"tower/w": 1.0, "b": 2.0}).rename([(r"tower/(.*)", r"conv1/\1")]))
          ['b', 'conv1/w']
        """
        return edits.rename(self, rules, allow_unmatched=allow_unmatched)

    def freeze(self, rules: Any, *, allow_unmatched: bool = False) -> Self:
        """Return the state with the variables that `rules` choose (as in `select`) not trainable.

        The flag of the state wins over the model's text when it is applied.

        Example:
          >>> import jaxvars as jv
          >>> list(jv.Variables({"backbone/w": 1.0, "head/w": 1.0}).freeze("backbone/").trainable)
          ['head/w']
        """
        positions = views.chosen(self, rules, "freeze", allow_unmatched=allow_unmatched)
        return edits.with_flags(self, dict.fromkeys(positions, False))

    def with_trainable(self, flags: Any, *, allow_unmatched: bool = False) -> Self:
        """Return the state with trainable flags set by a dict or list of (pattern, bool).

        Example:
          >>> import jaxvars as jv
          >>> variables = jv.Variables({"a/w": 1.0, "b/w": 1.0})
          >>> list(variables.with_trainable({"a/": True, ".*": False}).trainable)
          ['a/w']
        """
        wanted = views.mapped(self, flags, "with_trainable", allow_unmatched=allow_unmatched)
        return edits.with_flags(self, {i: bool(flag) for i, flag in wanted.items() if flag is not None})

    def labels(self, rules: Any, *, default: Any = _UNSET, allow_unmatched: bool = False) -> Self:
        """Return a tree of labels of the same structure, as for ``optax.partition``.

        Args:
          rules: a dict or list of (pattern, label).
          default: the label of variables that no rule matches.
          allow_unmatched: accept patterns that match nothing.

        Raises:
          InvalidArgumentError: no default, and variables that no rule matches; they are listed.

        Example:
          >>> import jaxvars as jv
          >>> labels = jv.Variables({"head/w": 1.0, "body/w": 1.0}).labels({"head/": "fast"}, default="slow")
          >>> labels["body/w"], labels["head/w"]
          ('slow', 'fast')
        """
        found = views.mapped(self, rules, "labels", allow_unmatched=allow_unmatched)
        missing = [key for i, key in enumerate(self._layout.keys) if i not in found]
        if missing and default is _UNSET:
            raise InvalidArgumentError(
                f"labels: no rule matches {', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}. "
                "Write: variables.labels(rules, default=label)"
            )
        return self._with_leaves(found.get(i, default) for i in range(len(self)))

    def mask(self, rules: Any, *, allow_unmatched: bool = False) -> Self:
        """Return a tree of bools of the same structure, True where `rules` choose (as in `select`).

        Example:
          >>> import jaxvars as jv
          >>> dict(jv.Variables({"w": 1.0, "bias": 1.0}).mask(".*bias"))
          {'bias': True, 'w': False}
        """
        positions = set(views.chosen(self, rules, "mask", allow_unmatched=allow_unmatched))
        return self._with_leaves(i in positions for i in range(len(self)))

    def to(self, target: Any, *, allow_unmatched: bool = False) -> Self:
        """Return the state on another device or sharding; holes will be filled there.

        Args:
          target: a `jax.Device`, a `jax.sharding.Sharding`, or a dict or list of (pattern, one of these).
          allow_unmatched: accept patterns that match nothing.

        Example:
          >>> import jax, jaxvars as jv
          >>> variables = jv.Variables({"w": 1.0}).to(jax.devices()[0])
          >>> variables["w"].committed
          True
        """
        if isinstance(target, Mapping | list | tuple):
            wanted = views.mapped(self, target, "to", allow_unmatched=allow_unmatched)
            return edits.moved(self, {i: place for i, place in wanted.items() if place is not None})
        return edits.moved(self, dict.fromkeys(range(len(self)), target))

    def packed(self, max_bytes: int = 1 << 14, separate: Any = None) -> Variables:
        """Return the state with its small variables laid together in buffers, each of which is one array to JAX.

        A step over a thousand small variables spends its time on handling arrays; packed, it does not. All goes on as
        before: names, `jv.assign`, models, `jv.grad`, checkpoints, and `jv.train` optimizers, whose slots lie in
        buffers of their own. Variables share a buffer when they agree in dtype, trainable flag and device; sharded
        ones, holes, and those with a constraint stay alone. To `jax.tree.map` and optax a buffer is one leaf: right
        for Adam and all else that treats each element by itself, wrong for what takes norms of single variables.
        Setting one variable outside of ``jit`` copies its buffer.

        Args:
          max_bytes: size of the largest variable to pack.
          separate: a dict or list of (pattern, label): variables of different labels do not share a buffer, so that
            `mask` and `labels` can tell them apart.

        Returns:
          The packed state; a state made of it by an edit is packed by the same rules.

        Raises:
          NotFoundError: a pattern matches nothing.
          InvalidArgumentError: `max_bytes` is not positive.

        Example:
          >>> import jax, jaxvars as jv
          >>> variables = jv.Variables({f"layer_{i}/bias": float(i) for i in range(100)})
          >>> packed = variables.packed()
          >>> packed
          Variables(100 variables, 100 elements, packed: 100 in 1 buffer, 0 alone)
          >>> len(jax.tree.leaves(packed)), float(packed["layer_7/bias"])
          (1, 7.0)
        """
        from jaxvars.placement.packed import pack  # here: `import jaxvars` does without

        return pack(self, max_bytes, separate)

    def unpacked(self) -> Variables:
        """Return the state with one array per variable: the inverse of `packed`.

        Example:
          >>> import jax, jaxvars as jv
          >>> packed = jv.Variables({"a": 1.0, "b": 2.0}).packed()
          >>> len(jax.tree.leaves(packed)), len(jax.tree.leaves(packed.unpacked()))
          (1, 2)
        """
        return self

    # -- trees and tables --------------------------------------------------------------------------------

    def to_nested(self, sep: str = "/") -> dict[str, Any]:
        """Return the values as nested dicts, as Haiku, Flax and plain JAX code hold them.

        Raises:
          InvalidArgumentError: a name is both a variable and a scope (``a`` and ``a/b``).

        Example:
          >>> import jaxvars as jv
          >>> jv.Variables({"dense/bias": 0.0}).to_nested()
          {'dense': {'bias': Array(0., dtype=float32)}}
        """
        return nesting.nested(self, sep)

    @classmethod
    def from_nested(cls, tree: Any, sep: str = "/") -> Self:
        """Return the variables of a nested tree: mappings, sequences, dataclasses, other pytrees.

        Raises:
          InvalidArgumentError: two leaves get one name.
          InvalidTypeError: a leaf that is not an array of numbers.

        Example:
          >>> import jaxvars as jv
          >>> list(jv.Variables.from_nested({"dense": {"bias": 0.0}, "layers": [1.0, 2.0]}))
          ['dense/bias', 'layers/0', 'layers/1']
        """
        return cls(tree if isinstance(tree, State) else nesting.flat_items(tree, sep))

    def summary(self, depth: int = 1, statistics: bool = False) -> Summary:
        """Return a table of the variables with totals per scope; print it, or show it in a notebook.

        Args:
          depth: how many parts of a name make a scope in the totals.
          statistics: whether to compute mean, standard deviation and range of each variable.

        Example:
          >>> import jax.numpy as jnp
          >>> import jaxvars as jv
          >>> jv.Variables({"dense/kernel": jnp.ones((2, 3))}).summary().totals[-1].count
          6
        """
        from jaxvars.summary import summarize  # here: `import jaxvars` does without

        return summarize(self, depth, statistics)

    def __repr__(self) -> str:
        from jaxvars.summary import describe  # here: `import jaxvars` does without

        count, leaves = len(self), self._leaves
        shown = [f"{key} {describe(leaf)}" for key, leaf in zip(self._layout.keys[:_SHOWN], leaves, strict=False)]
        holes = sum(map(is_hole, leaves))
        text = f"{count} variable{'' if count == 1 else 's'}, {self.size:,} elements"
        text += f", {holes} uninitialized" if holes else ""
        text += ": " + ", ".join(shown) if shown else ""
        return f"Variables({text}{', ...' if count > _SHOWN else ''})"


def _flatten(variables: Variables) -> tuple[tuple[Any, ...], Layout]:
    flat = variables._flat  # almost always there: without the property, which is a call more
    return (variables._leaves if flat is None else flat), variables._layout


def _flatten_with_keys(variables: Variables) -> tuple[tuple[tuple[Any, Any], ...], Layout]:
    layout = variables._layout
    return tuple(zip(layout.core.key_paths, variables._leaves, strict=True)), layout


def _unflatten(layout: Layout, children: Any) -> Variables:
    # Anything may come back in the place of a leaf (None, masks, shapes, tracers): nothing is checked.
    return Variables._of(layout, children if type(children) is tuple else tuple(children))


jax.tree_util.register_pytree_with_keys(Variables, _flatten_with_keys, _unflatten, _flatten)

"""`MetaGraph`: a model read from a file, which runs without its Python code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax

from jaxvars._keys import as_key
from jaxvars.checkpoint.formats.orbax_record import named_dtype
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.placement.edge import gathered
from jaxvars.placement.homes import fill_homes
from jaxvars.spec import Hole, VariableSpec, is_hole, leaf_dtype, leaf_shape
from jaxvars.train.graph_arguments import flat_arguments, matched, shown
from jaxvars.train.saver import Saver
from jaxvars.variables import Variables

__all__ = ["MetaGraph"]


class MetaGraph:
    """A model read from a file: its program, without its Python code. Made by `import_meta_graph`.

    Attributes:
      specs: the variables, all of them holes without initializers, to restore values into.
      saver: a `jv.train.Saver` for them.
      platforms: where the program runs.
    """

    def __init__(self, description: Mapping[str, Any], programs: Mapping[str, bytearray]) -> None:
        from jax import export

        self.specs: Variables = _decoded(description["variables"])
        self.saver: Saver = Saver()
        self.platforms: tuple[str, ...] = tuple(description["platforms"])
        self._description = description
        self._uses = [str(key) for key in description["uses"]]
        self._call = jax.jit(export.deserialize(programs["apply"]).call)
        self._init = jax.jit(export.deserialize(programs["init"]).call) if "init" in programs else None

    def __repr__(self) -> str:
        count = len(self.specs)
        arguments = ", ".join(map(shown, self._description["arguments"])) or "no arguments"
        return f"MetaGraph({count} variable{'' if count == 1 else 's'}; {arguments}; for {', '.join(self.platforms)})"

    def init(self, rng: Any, variables: Variables | None = None) -> Variables:
        """Make the model's variables, as `jv.Model.init` does: the same bits for the same `rng`.

        Args:
          rng: a JAX key or an int seed.
          variables: values to keep, such as those that `saver` restored; only what they lack or hold as holes is made.

        Returns:
          The variables; those that are not the model's own (slots, global step) stay as they are in `variables`.

        Raises:
          InvalidArgumentError: the model's initial values depend on its arguments, so none were exported; a value in
            `variables` has another shape or dtype.
        """
        if self._init is None:
            raise InvalidArgumentError(
                "The initial values of this exported model depend on its arguments, so the file has none. Restore "
                "values: variables = graph.saver.restore(graph.specs, path)"
            )
        state = self.specs.select(self._uses) if variables is None else self.specs.select(self._uses) | variables
        self._check(state, holes=True)
        holes: dict[str, Any] = {name: state[name] for name in self._uses if is_hole(state[name])}
        fill_homes(holes, self.specs, state)
        made = dict(zip(self._uses, self._init(_key_data(rng, self._description["init_rng"])), strict=True))
        index, leaves = state._layout.index, list(state._leaves)
        for name, hole in holes.items():
            leaves[index[name]] = made[name] if hole.sharding is None else jax.device_put(made[name], hole.sharding)
        return state._with_leaves(leaves)

    def apply(self, variables: Variables, *args: Any, rng: Any = None, **kwargs: Any) -> tuple[Any, Variables]:
        """Run the model, as `jv.Model.apply` does.

        Works under ``jax.jit``, ``vmap``, and under ``grad`` as often as `export_meta_graph` was told.

        Args:
          variables: a value for every variable that the model uses. Extra names pass through.
          *args: the model's arguments; what is no array was fixed on export, and can be left out.
          rng: a JAX key or int seed, if the model draws random keys.
          **kwargs: the model's keyword arguments.

        Returns:
          ``(out, variables)``, the variables in the layout that was given.

        Raises:
          NotFoundError: variables are missing.
          InvalidArgumentError: variables are uninitialized or of another shape or dtype, arguments do not fit, a random
            key is missing. All problems at once.
          InvalidTypeError: an argument of another dtype.
        """
        if not isinstance(cast(object, variables), Variables):
            raise InvalidTypeError(f"apply takes jv.Variables, got {type(variables).__name__}. Variables come first.")
        self._check(variables)
        given = flat_arguments(self._description["parameters"], args, kwargs)
        arrays = matched(self._description["arguments"], given)
        keys = self._keys(rng)
        found = gathered(variables, (args, kwargs)) if variables._layout.placed else None
        state = variables if found is None else found.variables
        out, changed = self._call([state[name] for name in self._uses], arrays, *keys)
        index, leaves = state._layout.index, list(state._leaves)
        for name, value in changed.items():
            leaves[index[name]] = value
        after = state._with_leaves(leaves)
        return out, after if found is None else found.returned(after)

    def _keys(self, rng: Any) -> list[Any]:
        """The random key as an input of the program; none where it takes none."""
        kind = self._description["rng"]
        if kind is None:
            return []
        if rng is None:
            raise InvalidArgumentError(
                "The exported model draws random keys. Write: graph.apply(variables, ..., rng=0)"
            )
        return [_key_data(rng, kind)]

    def _check(self, variables: Variables, holes: bool = False) -> None:
        """Raise one error for every variable of the program that has no fitting value, or no fitting hole."""
        missing: list[str] = []
        unfit: list[str] = []
        for name in self._uses:
            if name not in variables:
                missing.append(f"    {name}: missing")
                continue
            wanted, value = self.specs[name], variables[name]
            if is_hole(value) and not holes:
                unfit.append(f"    {name}: uninitialized")
            elif leaf_shape(value) != wanted.shape or leaf_dtype(value) != wanted.dtype:
                unfit.append(
                    f"    {name}: is {leaf_dtype(value)}{list(leaf_shape(value))}, and the model takes "
                    f"{wanted.dtype}{list(wanted.shape)}"
                )
        if missing or unfit:
            kind = InvalidArgumentError if unfit else NotFoundError
            raise kind(
                "These variables do not fit the exported model:\n" + "\n".join([*missing, *unfit]) + "\nWrite:\n"
                "    variables = graph.saver.restore(graph.specs, path)    # the values of a checkpoint\n"
                "    variables = graph.init(0, variables)    # and initial ones for the rest"
            )


def _decoded(entries: list[dict[str, Any]]) -> Variables:
    pairs: list[tuple[VariableSpec, Any]] = []
    for fields in entries:
        spec = VariableSpec(
            fields["key"],
            tuple(fields["shape"]),
            named_dtype(fields["dtype"]),
            bool(fields["trainable"]),
            tuple(fields["collections"]),
            fields["placement"],
        )
        pairs.append((spec, Hole(spec.shape, spec.dtype)))
    return Variables.from_specs(pairs)


def _key_data(rng: Any, kind: str) -> jax.Array:
    """The data of a random key of the kind that the program was exported with."""
    key = jax.random.key(rng, impl=kind) if isinstance(rng, int) else as_key(rng)
    if str(jax.random.key_impl(key)) != kind:
        raise InvalidArgumentError(
            f"The exported model takes random keys of {kind!r}, got one of {str(jax.random.key_impl(key))!r}. Write: "
            f"rng=jax.random.key(seed, impl={kind!r})"
        )
    return jax.random.key_data(key)

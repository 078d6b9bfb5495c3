"""Exported models: `export_meta_graph` writes a program, `import_meta_graph` runs it without the model's code."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax

from jaxvars.agreement import check_agreement
from jaxvars.checkpoint.formats.orbax_record import dtype_name, named_dtype
from jaxvars.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    JaxvarsError,
    NotFoundError,
    UnavailableError,
)
from jaxvars.filling import as_key
from jaxvars.placement.edge import gathered
from jaxvars.placement.homes import fill_homes
from jaxvars.spec import Hole, VariableSpec, is_hole, leaf_dtype, leaf_shape
from jaxvars.train.graph_arguments import described, flat_arguments, is_array, matched, shown
from jaxvars.train.graph_file import read_graph_file, write_graph_file
from jaxvars.train.saver import Saver
from jaxvars.transform import Model
from jaxvars.variables import Variables

__all__ = ["MetaGraph", "export_meta_graph", "import_meta_graph"]


def export_meta_graph(
    path: str | os.PathLike[str],
    model: Model,
    *args: Any,
    variables: Variables | None = None,
    platforms: Sequence[str] | None = None,
    vjp_order: int = 0,
    **kwargs: Any,
) -> str:
    """Write a model as a program, to be run without its Python code. TF1: `tf.train.export_meta_graph`.

    The file holds what `model.apply` does for these arguments, writes and random keys included, and the names, shapes,
    flags and collections of the variables, not their values: those are in checkpoints. The program is portable
    StableHLO, which `jax.export` keeps compatible for six months at least.

    Args:
      path: the file, such as ``"run/model.ckpt.meta"``; the folder is made if needed.
      model: made by `jv.transform`.
      *args: the model's arguments. Of arrays only shape and dtype count, and may be given by a `jax.ShapeDtypeStruct`,
        with symbolic dimensions too: ``jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 784"), "float32")``.
        Anything else (``training=True``) is fixed in the program.
      variables: the whole state, where it has more than the model's own variables (slots, global step): a saver of the
        exported model then restores all of it.
      platforms: where it shall run, such as ``["cpu", "cuda", "tpu"]``; None for where it is exported.
      vjp_order: how often the imported model can be differentiated.
      **kwargs: the model's keyword arguments.

    Returns:
      The path.

    Raises:
      InvalidTypeError: `model` is no model, or its result holds what a program cannot return.
      InvalidArgumentError: `variables` do not fit the model.
      FailedPreconditionError: the file cannot be written.
      UnavailableError: the package flatbuffers, which `jax.export` needs, is not installed.

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> model = jv.transform(lambda x: x @ jv.get_variable("w", [3, 2], initializer=jv.ones_initializer()))
      >>> x = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 3"), "float32")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = jv.train.export_meta_graph(folder + "/model.meta", model, x)
      ...     graph = jv.train.import_meta_graph(path)
      >>> graph
      MetaGraph(1 variable; x: float32[batch,3]; for cpu)
      >>> variables = jv.Variables({"w": jax.numpy.ones([3, 2])})
      >>> out, variables = graph.apply(variables, jax.numpy.ones([4, 3]))
      >>> out.shape
      (4, 2)
    """
    if not isinstance(cast(object, model), Model):
        raise InvalidTypeError(
            f"export_meta_graph takes a model, got {type(model).__name__}. Write: "
            "jv.train.export_meta_graph(path, jv.transform(fn), *args)"
        )
    _check_flatbuffers()
    from jax import export

    wanted = model.specs(*args, **kwargs)
    if variables is not None:
        check_agreement(model, wanted, variables)
    parameters = _parameters(model.fn)
    traced = _Traced(model, wanted, args, kwargs)
    inputs: list[Any] = [
        [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves] for leaves in (wanted._leaves, traced.arrays)
    ]
    implementation = None
    make = export.export(jax.jit(traced), platforms=None if platforms is None else tuple(platforms))
    try:
        if not traced.runs_without_key(*inputs):
            implementation = _implementation()
            inputs.append(_key_data_type())
        exported = make(*inputs)
        programs = {"apply": exported.serialize(vjp_order=vjp_order), **_initializing(model, args, kwargs, platforms)}
    except JaxvarsError:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(
            f"{model!r} cannot be exported: {error}\nA program takes and returns arrays, in dicts, lists and tuples; "
            "register other containers with jax.export.register_pytree_node_serialization."
        ) from error
    description = {
        "model": model.__name__,
        "variables": _encoded(wanted if variables is None else wanted | variables),
        "uses": list(wanted),
        "arguments": [described(argument) for argument in flat_arguments(parameters, args, kwargs)],
        "parameters": parameters,
        "rng": implementation,
        "init_rng": _implementation(),
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
    }
    path = os.fspath(path)
    if jax.process_index() == 0:
        write_graph_file(path, description, programs)
    return path


def _initializing(model: Model, args: Any, kwargs: Any, platforms: Sequence[str] | None) -> dict[str, bytearray]:
    """The program of `model.init`; none where initial values depend on the arguments."""
    from jax import export

    args, kwargs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array(leaf) else leaf, (args, kwargs)
    )

    def init(key: Any) -> list[Any]:
        return list(model.init(jax.random.wrap_key_data(key, impl=_implementation()), *args, **kwargs)._leaves)

    try:
        make = export.export(jax.jit(init), platforms=None if platforms is None else tuple(platforms))
        return {"init": make(_key_data_type()).serialize()}
    except InvalidArgumentError:
        return {}


def _key_data_type() -> Any:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))


class _Traced:
    """What is exported: ``(values, arrays[, key data]) -> (out, changed values)``."""

    def __init__(self, model: Model, wanted: Variables, args: Any, kwargs: Any) -> None:
        leaves, self._structure = jax.tree.flatten((args, kwargs))
        self._model, self._wanted, self._leaves = model, wanted, leaves
        self.arrays = [leaf for leaf in leaves if is_array(leaf)]

    def runs_without_key(self, values: list[Any], arrays: list[Any]) -> bool:
        """Whether the model draws no random key. Other errors come again, when it is exported."""
        try:
            jax.eval_shape(lambda *inputs: self(*inputs), values, arrays)
        except FailedPreconditionError:
            return False
        return True

    def __call__(self, values: list[Any], arrays: list[Any], key: Any = None) -> Any:
        remaining = iter(arrays)
        leaves = [next(remaining) if is_array(leaf) else leaf for leaf in self._leaves]
        args, kwargs = jax.tree.unflatten(self._structure, leaves)
        before = self._wanted._with_leaves(values)
        rng = None if key is None else jax.random.wrap_key_data(key, impl=_implementation())
        out, after = self._model.apply(before, *args, rng=rng, **kwargs)
        pairs = zip(after, before._leaves, after._leaves, strict=True)
        return out, {name: new for name, old, new in pairs if new is not old}


def _parameters(fn: Callable[..., Any]) -> list[str]:
    """The names of the positional parameters of a model function, as far as they are known."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _implementation() -> str:
    """The name of JAX's default generator of random keys."""
    return str(jax.random.key_impl(jax.random.key(0)))


def _check_flatbuffers() -> None:
    if importlib.util.find_spec("flatbuffers") is None:
        raise UnavailableError(
            "Exported models need the package flatbuffers, with which jax.export writes and reads programs. Run: pip "
            "install flatbuffers"
        )


def _encoded(variables: Variables) -> list[dict[str, Any]]:
    """The specs in the order of creation, as JSON."""
    specs = variables.variable_specs
    return [
        {
            "key": spec.key,
            "shape": list(spec.shape),
            "dtype": dtype_name(spec.dtype),
            "trainable": spec.trainable,
            "collections": list(spec.collections),
            "placement": spec.placement if isinstance(spec.placement, str) else None,
        }
        for spec in (specs[key] for key in variables._layout.creation_order)
    ]


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


class MetaGraph:
    """A model read from a file: its program, without its Python code. Made by `import_meta_graph`.

    Attributes:
      specs: the variables, all of them holes without initializers, to restore values into.
      saver: a `jv.train.Saver` for them.
      platforms: where the program runs.
    """

    def __init__(self, description: Mapping[str, Any], programs: Mapping[str, bytearray]) -> None:
        from jax import export

        self.specs = _decoded(description["variables"])
        self.saver = Saver()
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


def _key_data(rng: Any, kind: str) -> jax.Array:
    """The data of a random key of the kind that the program was exported with."""
    key = jax.random.key(rng, impl=kind) if isinstance(rng, int) else as_key(rng)
    if str(jax.random.key_impl(key)) != kind:
        raise InvalidArgumentError(
            f"The exported model takes random keys of {kind!r}, got one of {str(jax.random.key_impl(key))!r}. Write: "
            f"rng=jax.random.key(seed, impl={kind!r})"
        )
    return jax.random.key_data(key)


def import_meta_graph(path: str | os.PathLike[str]) -> MetaGraph:
    """Read an exported model, to run it without its Python code. TF1: `tf.train.import_meta_graph`.

    Args:
      path: the file that `export_meta_graph` wrote; or the path of a checkpoint, beside which it stands with ``.meta``
        added.

    Returns:
      The model: `specs` and `saver` to restore values, `init` to make those that were not saved, `apply` to run it.

    Raises:
      NotFoundError: there is no such file.
      InvalidArgumentError: it is another kind of file, such as TensorFlow's own.
      DataLossError: it is damaged.
      UnavailableError: the package flatbuffers is not installed.

    Example:
      >>> import tempfile, jaxvars as jv
      >>> model = jv.transform(lambda: jv.get_variable("n", [], "int32").assign_add(1))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = jv.train.Saver().save(model.init(0), folder + "/model.ckpt")
      ...     _ = jv.train.export_meta_graph(path + ".meta", model)
      ...     graph = jv.train.import_meta_graph(path)
      ...     variables = graph.saver.restore(graph.specs, path)
      >>> out, variables = graph.apply(variables)
      >>> int(variables["n"])
      1
    """
    _check_flatbuffers()
    path = os.fspath(path)
    beside = path + ".meta"
    if not os.path.isfile(path) and os.path.isfile(beside):
        path = beside
    description, programs = read_graph_file(path)
    try:
        return MetaGraph(description, programs)
    except Exception as error:  # whatever a reader meets in bytes that are not what they claim to be
        raise DataLossError(
            f"The exported model {path} was written by jax {description.get('jax')} and cannot be read by jax "
            f"{jax.__version__}: {type(error).__name__}: {error}"
        ) from error

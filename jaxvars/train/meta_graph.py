"""Exported models: `export_meta_graph` writes a program, `import_meta_graph` runs it without the model's code."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax

from jaxvars.agreement import check_agreement
from jaxvars.checkpoint.formats.orbax_record import dtype_name
from jaxvars.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    JaxvarsError,
    UnavailableError,
)
from jaxvars.train.graph_arguments import described, flat_arguments, is_array
from jaxvars.train.graph_file import read_graph_file, write_graph_file
from jaxvars.train.imported import MetaGraph
from jaxvars.transform import Model
from jaxvars.variables import Variables

__all__ = ["export_meta_graph", "import_meta_graph"]


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
            "Exported models need the package flatbuffers, with which jax.export writes and reads programs. "
            'Run: pip install "jaxvars[export]"'
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

"""The two sides of the comparison: TensorFlow itself, and jaxvars in each of its kinds of frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from tensorflow.python.ops import variable_scope
from tensorflow.python.ops.variables import PartitionedVariable

import jaxvars as jv
from parity.live import fresh_graph, tf
from parity.scope_programs import Statement

_RANDOM = ("Random", "TruncatedNormal", "Stateless")


class TensorFlow:
    """Builds a graph; effects and reads are run in the order of the program when it is complete."""

    api = tf
    values = True

    #: Whether a variable has an op name that is not its key.
    renamed: bool

    def run(self, body: Callable[[], None]) -> None:
        self._pending: list[tuple[dict[str, Any], Any, bool]] = []
        self._drawn: dict[Any, bool] = {}
        self._described: list[Any] = []
        with fresh_graph() as session:
            body()
            self.renamed = any(variable.op.name != key for key, variable in _store()._vars.items())
            # Some are in no collection and in no store.
            variables = {id(v): v for v in [*_made_variables(), *self._described]}
            session.run(tf.variables_initializer(list(variables.values())))
            for record, tensor, random in self._pending:
                try:
                    value = session.run(tensor)
                    if not random:
                        record["value"] = value
                except tf.errors.OpError as error:
                    record |= {"error": error, "late": True}

    def dtype(self, name: str) -> Any:
        # Not the name itself: TensorFlow's partitioned variables and own functions take nothing but a DType.
        return tf.float32 if name in ("np", "tf") else tf.as_dtype(name)

    def dtype_name(self, dtype: Any) -> str:
        return tf.as_dtype(dtype).name

    def name_scope(self) -> str:
        return tf.get_default_graph().get_name_scope()

    def initializer(self, kind: Statement, of: Callable[[int], Any]) -> Any:
        match kind["kind"]:
            case "zeros":
                return tf.zeros_initializer()
            case "ones":
                return tf.ones_initializer()
            case "class":
                return {"zeros": tf.zeros_initializer, "ones": tf.ones_initializer}[kind["name"]]
            case "constant":
                return tf.constant_initializer(kind["value"])
            case "tensor":
                return tf.constant(np.array(kind["value"], kind["dtype"]))
            case "function":
                return lambda: tf.constant(np.array(kind["value"], np.float32))
            case "shaped function":
                return lambda shape, dtype=None, partition_info=None: tf.ones(shape, dtype)
            case "initialized":
                return of(kind["of"]).initialized_value() + kind["add"]
            case _:
                return kind["value"]

    def regularizer(self, kind: str) -> Any:
        def l1(w: Any) -> Any:
            return 0.5 * tf.reduce_sum(tf.abs(w)) if w.dtype.is_floating else None

        def l2(w: Any) -> Any:
            return 0.5 * tf.nn.l2_loss(w) if w.dtype.is_floating else None

        known = {
            "l1": l1,
            "l2": l2,
            "none": lambda w: None,
            "no_regularizer": tf.no_regularizer,
            "scaled": lambda w: tf.reduce_sum(tf.cast(w, tf.float32)) * 0.25,
        }
        return known[kind]

    def constraint(self, kind: str) -> Any:
        return {"positive": _positive, "unit": _unit}[kind]

    def partitioner(self, kind: Statement) -> Any:
        return _partitioner(tf, kind)

    def is_partitioned(self, variable: Any) -> bool:
        return isinstance(variable, PartitionedVariable)

    def describe(self, variable: Any) -> dict[str, Any]:
        if self.is_partitioned(variable):
            return {
                "name": variable.name,
                "shape": variable.shape.as_list(),
                "dtype": variable.dtype.base_dtype.name,
                "partitions": variable._get_partitions(),
            }
        if not isinstance(variable, tf.Variable):
            return {"computed": True, "shape": variable.shape.as_list(), "dtype": variable.dtype.base_dtype.name}
        self._described.append(variable)
        fields = {
            "name": variable.name,
            "shape": variable.shape.as_list(),
            "dtype": variable.dtype.base_dtype.name,
            "trainable": variable.trainable,
            "constraint": getattr(variable.constraint, "__name__", None),
        }
        keys = [key for key, known in _store()._vars.items() if known is variable]
        return fields | ({"key": keys[0]} if keys else {})

    def effect(self, variable: Any, method: str, *arguments: Any) -> dict[str, Any]:
        tensor = variable.read_value() if method == "read" else getattr(variable, method)(*arguments)
        record: dict[str, Any] = {}
        self._pending.append((record, tensor, self._is_random(variable.initializer)))
        return record

    def losses(self) -> dict[str, Any]:
        losses = tf.losses.get_regularization_losses()
        record: dict[str, Any] = {"count": len(losses)}
        random = any(self._is_random(v.initializer) for v in _made_variables())
        if losses:
            self._pending.append((record, tf.stack([tf.cast(loss, tf.float32) for loss in losses]), random))
        return record

    @contextlib.contextmanager
    def nothing_taken_by_errors(self, statement: Statement) -> Iterator[None]:
        graph = tf.get_default_graph()
        before = dict(graph._names_in_use)
        try:
            yield
        except Exception:
            if "body" not in statement:
                nodes = {op.name.lower() for op in graph.get_operations()}
                for name in graph._names_in_use.keys() - before.keys() - nodes:
                    del graph._names_in_use[name]
            raise

    def _is_random(self, op: Any) -> bool:
        """Whether the op depends on a random number."""
        if op not in self._drawn:
            self._drawn[op] = False
            self._drawn[op] = any(word in op.type for word in _RANDOM) or any(
                self._is_random(tensor.op) for tensor in op.inputs
            )
        return self._drawn[op]


def _store() -> Any:
    return variable_scope._get_default_variable_store()


def _made_variables() -> list[Any]:
    """Every variable of the graph that works, whatever collections it is in, in the order of making."""
    graph = tf.get_default_graph()
    found = {id(v): v for v in _store()._vars.values()}
    for key in graph.get_all_collection_keys():
        found |= {id(v): v for v in graph.get_collection(key) if isinstance(v, tf.Variable)}
    return list(found.values())


def _positive(w: Any) -> Any:
    return w


def _unit(w: Any) -> Any:
    return w


def _partitioner(api: Any, kind: Statement) -> Any:
    match kind["kind"]:
        case "fixed":
            return api.fixed_size_partitioner(kind["shards"], axis=kind["axis"])
        case "bytes":
            return api.variable_axis_size_partitioner(kind["most"])
        case _:
            return api.min_max_variable_partitioner(kind["most"], min_slice_size=kind["slice"])


class Jaxvars:
    """Runs in a `jv.VariableStore`.

    Args:
      tf1_op_names: whether variables have the names of TensorFlow's ops.
    """

    api = jv

    def __init__(self, tf1_op_names: bool) -> None:
        self.tf1_op_names = tf1_op_names
        self.values = True

    def run(self, body: Callable[[], None]) -> None:
        with jv.VariableStore(rng=0, tf1_op_names=self.tf1_op_names):
            body()

    def dtype(self, name: str) -> Any:
        return {"np": np.float32, "tf": jnp.float32}.get(name, name)

    def dtype_name(self, dtype: Any) -> str:
        return jnp.dtype(dtype).name

    def name_scope(self) -> str:
        return jv.get_current_name_scope().rstrip("/")

    def initializer(self, kind: Statement, of: Callable[[int], Any]) -> Any:
        match kind["kind"]:
            case "zeros":
                return jv.zeros_initializer()
            case "ones":
                return jv.ones_initializer()
            case "class":
                return {"zeros": jv.zeros_initializer, "ones": jv.ones_initializer}[kind["name"]]
            case "constant":
                return jv.constant_initializer(kind["value"])
            case "tensor":
                return jnp.asarray(np.array(kind["value"], kind["dtype"]))
            case "function":
                return lambda: jnp.asarray(np.array(kind["value"], np.float32))
            case "shaped function":
                return lambda shape, dtype=None, partition_info=None: jnp.ones(shape, dtype)
            case "initialized":
                return of(kind["of"]).initialized_value() + kind["add"]
            case _:
                return kind["value"]

    def regularizer(self, kind: str) -> Any:
        def when_floating(regularizer: Any) -> Any:
            return lambda w: regularizer(w) if jnp.issubdtype(w.dtype, jnp.floating) else None

        known = {
            "l1": when_floating(jv.regularizers.l1_regularizer(0.5)),
            "l2": when_floating(jv.regularizers.l2_regularizer(0.5)),
            "none": lambda w: None,
            "no_regularizer": jv.no_regularizer,
            "scaled": lambda w: jnp.sum(w.astype(jnp.float32)) * 0.25,
        }
        return known[kind]

    def constraint(self, kind: str) -> Any:
        return {"positive": _positive, "unit": _unit}[kind]

    def partitioner(self, kind: Statement) -> Any:
        return _partitioner(jv, kind)

    def is_partitioned(self, variable: Any) -> bool:
        return isinstance(variable, jv.PartitionedVariable)

    def describe(self, variable: Any) -> dict[str, Any]:
        if self.is_partitioned(variable):
            return {
                "name": variable.name,
                "shape": variable.shape.as_list(),
                "dtype": variable.dtype.name,
                "partitions": variable._get_partitions(),
            }
        if not isinstance(variable, jv.Variable):
            return {"computed": True, "shape": list(variable.shape), "dtype": variable.dtype.name}
        fields = {
            "name": variable.name,
            "shape": variable.shape.as_list(),
            "dtype": variable.dtype.name,
            "trainable": variable.trainable,
            "constraint": getattr(variable.constraint, "__name__", None),
        }
        slice_or_op_name = self.tf1_op_names or type(variable) is not jv.Variable
        return fields if slice_or_op_name else fields | {"key": variable.key}

    def effect(self, variable: Any, method: str, *arguments: Any) -> dict[str, Any]:
        result = variable.value if method == "read" else getattr(variable, method)(*arguments)
        return {"value": np.asarray(result)} if self.values else {}

    def nothing_taken_by_errors(self, statement: Statement) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def losses(self) -> dict[str, Any]:
        losses = jv.losses.get_regularization_losses()
        record: dict[str, Any] = {"count": len(losses)}
        if losses and self.values:
            record["value"] = np.stack([np.asarray(loss, np.float32) for loss in losses])
        return record


class InSpecs(Jaxvars):
    """Runs in `Model.specs`, where variables have no values."""

    def run(self, body: Callable[[], None]) -> None:
        self.values = False
        jv.transform(body, tf1_op_names=self.tf1_op_names).specs()


class InApply(Jaxvars):
    """Runs in `Model.init`, then in `Model.apply` of what that made; the run in `apply` counts."""

    def run(self, body: Callable[[], None]) -> None:
        self.values = False
        model = jv.transform(body, tf1_op_names=self.tf1_op_names)
        variables = model.init(0)
        self.values = True
        model.apply(variables, rng=0)

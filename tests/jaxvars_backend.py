"""The oracle's view of jaxvars: programs run in a `VariableStore`, in `specs`, in `init` and `apply`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxvars as jv
from jaxvars.scopes import current_graph


class JaxvarsBackend:
    """Runs in a `jv.VariableStore(rng=0)`.

    Args:
      tf1_op_names: whether variables have the names of TensorFlow's ops; the store's key is then not seen.
    """

    remembers = False

    def __init__(self, tf1_op_names: bool) -> None:
        self.tf1_op_names = tf1_op_names
        self.cut_short: list[int] = []

    def run(self, body: Callable[[Any], None]) -> None:
        with jv.VariableStore(rng=0, tf1_op_names=self.tf1_op_names):
            body(jv)

    def initializer(self, kind: dict[str, Any], handle: Any) -> Any:
        match kind["k"]:
            case "zeros":
                return jv.zeros_initializer()
            case "ones":
                return jv.ones_initializer()
            case "const":
                return jv.constant_initializer(kind["v"])
            case "cls":
                return {"zeros": jv.zeros_initializer, "ones": jv.ones_initializer}[kind["v"]]
            case "tensor":
                return jnp.asarray(kind["v"], dtype=kind["d"])
            case "py":
                return kind["v"]
            case "fn":
                return lambda: jnp.asarray(kind["v"], dtype=kind["d"])
            case _:
                return handle(kind["var"]).initialized_value() + kind["add"]

    def burn(self, op_name: str) -> None:
        graph = current_graph()
        assert graph is not None
        graph.variable_op_name(op_name)

    def partitioner(self, shards: int) -> Any:
        return jv.fixed_size_partitioner(shards)

    def describe(self, variable: Any) -> dict[str, Any]:
        fields = {
            "n": variable.name,
            "s": list(variable.shape),
            "d": variable.dtype.name,
            "t": variable.trainable,
        }
        if not self.tf1_op_names or isinstance(variable, jv.PartitionedVariable):
            fields["k"] = variable.key
        if isinstance(variable, jv.PartitionedVariable):
            fields["parts"] = [[part.name, list(part.shape)] for part in variable]
        return fields

    def shards(self, variable: Any) -> list[Any]:
        return list(variable) if isinstance(variable, jv.PartitionedVariable) else [variable]

    def read(self, variable: Any) -> Any:
        return np.asarray(variable.value).tolist()


class SpecsBackend(JaxvarsBackend):
    """Runs in `Model.specs`, where variables have no values."""

    def run(self, body: Callable[[Any], None]) -> None:
        jv.transform(lambda: body(jv), tf1_op_names=self.tf1_op_names).specs()

    def read(self, variable: Any) -> Any:
        return None


class ApplyBackend(JaxvarsBackend):
    """Runs in `Model.init`, then in `Model.apply` of what that made; the run in `apply` counts."""

    remembers = True

    def run(self, body: Callable[[Any], None]) -> None:
        self.reads = False
        model = jv.transform(lambda: body(jv), tf1_op_names=self.tf1_op_names)
        variables = model.init(0)
        self.reads = True
        model.apply(variables, rng=0)

    def read(self, variable: Any) -> Any:
        return super().read(variable) if self.reads else None

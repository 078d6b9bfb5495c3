"""A store of variables without arrays: `get_variable`'s rules on shapes and dtypes, over `jaxvars.scopes`.

With it the naming rules are tested without JAX, and the oracle's programs run on scopes alone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.scopes import (
    AUTO_REUSE,
    NameGraph,
    create_variable,
    current_graph,
    get_current_name_scope,
    get_variable_scope,
    local_collections,
    name_scope,
    request_variable,
    variable_collections,
    variable_scope,
)

_KINDS = {bool: "bool", int: "int32", float: "float32"}


def kind_of(dtype: str) -> str:
    """ "float", "int" or "bool"."""
    return dtype.rstrip("0123456789").lstrip("u")


class Tensor:
    """A value of which only shape and dtype are known: a constant, not callable."""

    def __init__(self, shape: list[int], dtype: str) -> None:
        self.shape = shape
        self.dtype = dtype

    @classmethod
    def of(cls, value: Any, dtype: str | None = None) -> Tensor:
        """The tensor of a Python value."""
        if isinstance(value, Tensor):
            return value
        shape: list[int] = []
        while isinstance(value, list):
            shape.append(len(value))
            value = value[0]
        return cls(shape, dtype or _KINDS[type(value)])


class Initializer:
    """An initializer object: called with shape and dtype. `elements`: of a constant_initializer."""

    def __init__(self, elements: Any = None) -> None:
        self.elements = elements

    def __call__(self, shape: list[int], dtype: str) -> Tensor:
        if self.elements is not None:
            self.check_elements(shape, dtype)
        return Tensor(shape, dtype)

    def check_elements(self, shape: list[int], dtype: str) -> None:
        values = self.elements if isinstance(self.elements, list) else [self.elements]
        takes = {"float": (float, int), "int": (int,), "bool": (bool,)}[kind_of(dtype)]
        for value in values:
            if not isinstance(value, takes) or (isinstance(value, bool) and takes != (bool,)):
                raise InvalidTypeError(f"Expected {dtype}, but got {value} of type {type(value).__name__!r}.")
        if len(values) > math.prod(shape):
            raise InvalidArgumentError(f"Too many elements provided. Needed at most {math.prod(shape)}.")


class FakeVariable:
    """A handle."""

    def __init__(self, name: str, key: str | None, value: Tensor, trainable: bool) -> None:
        self.op_name = name
        self.name = name + ":0"
        self.key = key
        self.shape = value.shape
        self.dtype = value.dtype
        self.trainable = trainable

    def initialized_value(self) -> Tensor:
        return Tensor(self.shape, self.dtype)

    def assign(self, value: Any) -> None:
        given = Tensor.of(value)
        if kind_of(given.dtype) != kind_of(self.dtype) and (kind_of(given.dtype), kind_of(self.dtype)) != (
            "int",
            "float",
        ):
            raise InvalidTypeError(f"Expected {self.dtype}, but got {value} of type {given.dtype!r}.")
        if given.shape != self.shape:
            raise InvalidArgumentError(f"Shapes must be equal for Assign: {self.shape} and {given.shape}.")

    def assign_add(self, value: Any) -> None:
        if self.dtype == "bool":
            raise InvalidTypeError(f"Expected number, but got {value} of type 'bool'.")
        self.assign(value)

    assign_sub = assign_add


class FakePartitioned:
    """A partitioned variable: its shards, one after the other along the first axis."""

    def __init__(self, name: str, shape: list[int], shards: list[FakeVariable]) -> None:
        self.name = self.key = name
        self.shape = shape
        self.shards = shards
        self.dtype = shards[0].dtype
        self.trainable = shards[0].trainable


class FakeStore:
    """The variables of one frame, and TF1's functions on them."""

    def __init__(self) -> None:
        self.variables: dict[str, FakeVariable] = {}
        self.partitioned: dict[str, FakePartitioned] = {}

    def get_variable(self, name: str, shape: Any = None, **keywords: Any) -> Any:
        return request_variable(self.get, name, shape=shape, check=check_constant, **keywords)

    def get_local_variable(self, name: str, **keywords: Any) -> Any:
        keywords["collections"] = local_collections(keywords.get("collections"))
        return self.get_variable(name, **(keywords | {"trainable": False}))

    def variable(
        self, initial_value: Any, name: str | None = None, trainable: Any = None, collections: Any = None
    ) -> Any:
        return create_variable(
            self.make,
            key=None,
            name=name,
            initial_value=initial_value,
            trainable=trainable,
            collections=collections,
        )

    def get(
        self,
        name: str,
        shape: Any = None,
        dtype: str = "float32",
        initializer: Any = None,
        reuse: Any = None,
        partitioner: Any = None,
        **rest: Any,
    ) -> Any:
        """TF1's rules for existing and new variables, in its order."""
        if partitioner is not None and shape != []:
            return self.get_partitioned(name, shape, dtype, initializer, reuse, partitioner, rest)
        if reuse is True and partitioner is None and name in self.partitioned:
            return self.get_partitioned(name, shape, dtype, initializer, reuse, None, rest)
        if f"{name}/part_0" in self.variables:
            raise InvalidArgumentError(f"No partitioner was provided, but a partitioned {name} was found.")
        return self.get_single(name, shape, dtype, initializer, reuse, rest)

    def get_single(self, name: str, shape: Any, dtype: str, initializer: Any, reuse: Any, rest: dict[str, Any]) -> Any:
        constant = initializer is not None and not callable(initializer)
        if constant and shape is not None:
            raise InvalidArgumentError("If initializer is a constant, do not specify shape.")
        if name in self.variables:
            return self.share(self.variables[name], name, shape, dtype, reuse)
        if reuse is True:
            raise InvalidArgumentError(f"Variable {name} does not exist.")
        if initializer is None:
            if shape is None:
                raise InvalidArgumentError(f"Variable {name} did not get an initializer, so its shape must be given.")
            if kind_of(dtype) == "complex":
                raise InvalidArgumentError(f"An initializer for variable {name} of {dtype} is required")
            initializer = Initializer()
        if inspect.isclass(initializer):
            initializer = initializer()
        if constant:
            initial: Any = initializer
        elif shape is not None:
            made_by, wanted = initializer, shape

            def initial() -> Tensor:
                return made_by(wanted, dtype=dtype)
        elif isinstance(initializer, Initializer):
            raise InvalidArgumentError(f"The initializer passed is not valid for {name}: it needs a shape.")
        else:
            initial = initializer
        variable = create_variable(self.make, key=name, name=name, initial_value=initial, **rest)
        self.variables[name] = variable
        return variable

    def share(self, found: FakeVariable, name: str, shape: Any, dtype: str, reuse: Any) -> FakeVariable:
        if reuse is False:
            raise InvalidArgumentError(f"Variable {name} already exists, disallowed.")
        if shape is not None and shape != found.shape:
            raise InvalidArgumentError(f"Trying to share variable {name}, but specified shape {shape}.")
        if dtype != found.dtype:
            raise InvalidArgumentError(f"Trying to share variable {name}, but specified dtype {dtype}.")
        return found

    def get_partitioned(
        self,
        name: str,
        shape: Any,
        dtype: str,
        initializer: Any,
        reuse: Any,
        partitioner: Any,
        rest: dict[str, Any],
    ) -> FakePartitioned:
        if name in self.variables:
            raise InvalidArgumentError(f"A partitioner was provided, but an unpartitioned {name} was found.")
        if shape is None and isinstance(initializer, Tensor):
            shape = initializer.shape
        shards = 0
        if not reuse or partitioner is not None:
            if shape is None:
                raise InvalidArgumentError("Shape of a new partitioned variable must be fully defined.")
            shards = partitioner(shape)
        if name in self.partitioned:
            return self.share_partitioned(self.partitioned[name], name, shape, dtype, reuse, shards)
        if reuse is True:
            raise InvalidArgumentError(f"PartitionedVariable {name} does not exist.")
        parts: list[FakeVariable] = []
        for i in range(shards):
            rows = shape[0] // shards + (i < shape[0] % shards)
            part = [rows, *shape[1:]]
            own = initializer
            if initializer is not None and not callable(initializer):
                own, part_shape = Tensor(part, Tensor.of(initializer).dtype), None
            else:
                part_shape = part
            parts.append(self.get_single(f"{name}/part_{i}", part_shape, dtype, own, reuse, dict(rest)))
        self.partitioned[name] = FakePartitioned(name, shape, parts)
        return self.partitioned[name]

    def share_partitioned(
        self, found: FakePartitioned, name: str, shape: Any, dtype: str, reuse: Any, shards: int
    ) -> FakePartitioned:
        if reuse is False:
            raise InvalidArgumentError(f"Partitioned variable with name {name} already exists.")
        if shape is not None and shape != found.shape:
            raise InvalidArgumentError(f"Trying to reuse partitioned variable {name}, but specified shape {shape}.")
        if dtype != found.dtype:
            raise InvalidArgumentError(f"Trying to reuse partitioned variable {name}, but specified dtype {dtype}.")
        if shards and shards != len(found.shards):
            raise InvalidArgumentError(f"Trying to reuse {name}, but specified partitions {shards}.")
        return found

    def make(
        self,
        key: str | None,
        name: str | None,
        initial_value: Any,
        trainable: Any = None,
        collections: Any = None,
        **ignored: Any,
    ) -> FakeVariable:
        """Make a variable and put it into its collections."""
        graph = current_graph()
        assert graph is not None
        trainable = True if trainable is None else trainable
        keys = variable_collections(collections, trainable)
        op_name = graph.unique_variable_name(name) if key is None else graph.variable_op_name(key)
        value = Tensor.of(initial_value() if callable(initial_value) else initial_value)
        variable = FakeVariable(op_name, key, value, trainable)
        graph.collections.add_many(keys, variable)
        return variable


def check_constant(dtype: str, initializer: Any) -> None:
    """The explicit dtype must be the constant's."""
    if Tensor.of(initializer).dtype != dtype:
        raise InvalidArgumentError(f"Initializer type {Tensor.of(initializer).dtype} and explicit dtype {dtype}")


class FakeBackend:
    """The oracle's view of the store; every frame has a store of its own."""

    remembers = False

    def __init__(self) -> None:
        self.cut_short: list[int] = []

    def run(self, body: Callable[[Any], None]) -> None:
        store = FakeStore()
        graph = NameGraph()
        api = SimpleNamespace(
            AUTO_REUSE=AUTO_REUSE,
            Variable=store.variable,
            add_to_collection=graph.collections.add,
            get_collection=graph.collections.get,
            get_current_name_scope=get_current_name_scope,
            get_local_variable=store.get_local_variable,
            get_variable=store.get_variable,
            get_variable_scope=get_variable_scope,
            name_scope=name_scope,
            variable_scope=variable_scope,
        )
        with graph.as_current():
            body(api)

    def initializer(self, kind: dict[str, Any], handle: Any) -> Any:
        match kind["k"]:
            case "zeros" | "ones":
                return Initializer()
            case "const":
                return Initializer(kind["v"])
            case "cls":
                return Initializer
            case "tensor":
                return Tensor.of(kind["v"], kind["d"])
            case "py":
                return kind["v"]
            case "fn":
                return lambda: Tensor.of(kind["v"], kind["d"])
            case _:
                return handle(kind["var"]).initialized_value()

    def burn(self, op_name: str) -> None:
        """The names are taken already."""

    def partitioner(self, shards: int) -> Any:
        return lambda shape: min(shards, shape[0])

    def describe(self, variable: Any) -> dict[str, Any]:
        fields = {
            "n": variable.name,
            "k": variable.key,
            "s": variable.shape,
            "d": variable.dtype,
            "t": variable.trainable,
        }
        if isinstance(variable, FakePartitioned):
            fields["parts"] = [[shard.name, shard.shape] for shard in variable.shards]
        return fields

    def shards(self, variable: Any) -> list[Any]:
        return variable.shards if isinstance(variable, FakePartitioned) else [variable]

    def read(self, variable: Any) -> None:
        return None

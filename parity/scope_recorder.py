"""What a run of a program needs of an implementation of TF1's API, and what it writes down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from parity.scope_programs import Program, Statement

KEYS = ("variables", "trainable_variables", "local_variables", "mine")


class Side(Protocol):
    """An implementation of the API."""

    api: Any
    values: bool

    def run(self, body: Callable[[], None]) -> None:
        """Call `body` in a fresh graph, as often as need be: the last time counts."""

    def dtype(self, name: str) -> Any: ...

    def initializer(self, kind: Statement, of: Callable[[int], Any]) -> Any: ...

    def regularizer(self, kind: str) -> Any: ...

    def constraint(self, kind: str) -> Any: ...

    def partitioner(self, kind: Statement) -> Any: ...

    def name_scope(self) -> str: ...

    def describe(self, variable: Any) -> dict[str, Any]: ...

    def is_partitioned(self, variable: Any) -> bool: ...

    def effect(self, variable: Any, method: str, *arguments: Any) -> dict[str, Any]:
        """A record of what the method does to the variable; the "value" may come in after the run."""
        ...

    def losses(self) -> dict[str, Any]: ...

    def nothing_taken_by_errors(self, statement: Statement) -> AbstractContextManager[None]:
        """A wrong call in jaxvars leaves no trace; in TensorFlow it may have taken an op name, given back here."""
        ...


class Leave(Exception):
    """Leaves all blocks up to the next "try"."""


class Failing(Exception):
    """What the custom getter "raises" raises."""


class Skip(Exception):
    """The statement names something that is not there."""


class Recorder:
    """One run; `records` says what each executed statement did, in order."""

    def __init__(self, side: Side, program: Program) -> None:
        self.side = side
        self.api = side.api
        self.program = program
        side.run(self.once)

    def once(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.variables: list[Any] = []
        self.wholes: list[Any] = []
        self.scopes: list[Any] = [self.api.get_variable_scope()]
        self.managers: list[Any] = []
        self.open: list[Any] = []
        self.templates: list[Any] = []
        self.touched = False
        self.sevens = 0
        self.called = 0
        try:
            self.body(self.program)
        except Leave:
            self.records.append({"left": True})
        self.records.append({"end": True} | self.state())
        for key in KEYS:
            self.records.append({"collection": key} | self.names(self.api.get_collection(key)))
        self.records.append(self.side.losses())
        for variable in self.variables:
            self.records.append(self.side.effect(variable, "read"))

    def body(self, statements: Program) -> None:
        for statement in statements:
            getattr(self, "do_" + statement["do"])(statement)

    def attempt(self, statement: Statement, action: Callable[[], dict[str, Any]]) -> bool:
        """Record what `action` says, or the error it raises; whether it went well."""
        here = {k: v for k, v in statement.items() if k != "body"}
        try:
            with self.side.nothing_taken_by_errors(statement):
                fields = action()
        except Skip:
            return False
        except Leave:
            raise
        except Exception as error:
            fields = {"error": error}
        # The very object: TensorFlow's values come into it after the run.
        fields["statement"] = here
        self.records.append(fields)
        return "error" not in fields

    def pick(self, things: list[Any], number: int) -> Any:
        if not things:
            raise Skip
        return things[number % len(things)]

    def variable(self, number: int) -> Any:
        return self.pick(self.variables, number)

    def scope(self, statement: Statement) -> Any:
        if "scope" in statement:
            return self.pick(self.scopes, statement["scope"])
        return self.api.get_variable_scope()

    def note(self, variable: Any) -> dict[str, Any]:
        """Which variable came back: a new one is described, and numbered by the order of coming."""
        for number, known in enumerate(self.variables):
            if known is variable:
                return {"known": number}
        for number, known in enumerate(self.wholes):
            if known is variable:
                return {"known whole": number}
        fields = self.side.describe(variable)
        if self.side.is_partitioned(variable):
            self.wholes.append(variable)
            return fields | {"slices": [self.note(part) for part in variable]}
        if "computed" not in fields:
            fields["collections"] = [
                key for key in KEYS if any(item is variable for item in self.api.get_collection(key))
            ]
            self.variables.append(variable)
        return fields

    def names(self, items: list[Any]) -> dict[str, Any]:
        return {"names": [getattr(item, "name", None) or str(item) for item in items]}

    def state(self) -> dict[str, Any]:
        scope = self.api.get_variable_scope()
        # The scope of a template has none that can be entered again in TensorFlow.
        original = {} if self.called else {"original_name_scope": scope.original_name_scope}
        return original | {
            "scope": scope.name,
            "reuse": "auto" if scope.reuse is self.api.AUTO_REUSE else scope.reuse,
            "name_scope": self.side.name_scope(),
            "dtype": self.side.dtype_name(scope.dtype),
            "has": [
                what
                for what in ("initializer", "regularizer", "constraint", "custom_getter", "partitioner")
                if getattr(scope, what) is not None
            ],
        }

    # Arguments

    def keywords(self, statement: Statement) -> dict[str, Any]:
        """The keywords of a statement, as the API takes them."""
        side = self.side
        makers: dict[str, tuple[str, Callable[[Any], Any]]] = {
            "shape": ("shape", lambda shape: np.array([2]) if shape == "array" else shape),
            "dtype": ("dtype", side.dtype),
            "initializer": ("initializer", self.initializer),
            "regularizer": ("regularizer", side.regularizer),
            "trainable": ("trainable", lambda flag: flag),
            "collections": ("collections", lambda keys: list(keys) if isinstance(keys, list) else keys),
            "constraint": ("constraint", side.constraint),
            "getter": ("custom_getter", self.getter),
            "caching": ("caching_device", lambda device: device),
            "partitioner": ("partitioner", side.partitioner),
            "synchronization": ("synchronization", lambda name: self.api.VariableSynchronization[name]),
            "aggregation": ("aggregation", lambda name: self.api.VariableAggregation[name]),
            "validate_shape": ("validate_shape", lambda flag: flag),
            "reuse": ("reuse", lambda reuse: self.api.AUTO_REUSE if reuse == "auto" else reuse),
            "auxiliary": ("auxiliary_name_scope", lambda flag: flag),
            "default_name": ("default_name", lambda name: name),
        }
        return {makers[key][0]: makers[key][1](value) for key, value in statement.items() if key in makers}

    def initializer(self, kind: Statement) -> Any:
        # A value that was assigned meanwhile has no counterpart before the first session.run.
        if kind["kind"] == "initialized" and (
            self.touched or self.side.describe(self.variable(kind["of"]))["dtype"] == "bool"
        ):
            raise Skip
        return self.side.initializer(kind, self.variable)

    def getter(self, kind: str) -> Any:
        zeros = self.api.zeros_initializer()
        names = self.api

        def suffix(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            return getter(name + "_s", *args, **kwargs)

        def untrain(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            kwargs["trainable"] = False
            return getter(name, *args, **kwargs)

        def zeroed(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            kwargs["initializer"] = zeros
            return getter(name, *args, **kwargs)

        def extra(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            getter(name + "_x", *args, **kwargs)
            return getter(name, *args, **kwargs)

        def plain(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            made = getter(name, *args, **kwargs)
            return made if self.side.is_partitioned(made) else made[None]

        def narrow(
            getter: Any, name: str, shape: Any = None, dtype: Any = None, initializer: Any = None,
            regularizer: Any = None, reuse: Any = None, trainable: Any = None, collections: Any = None,
            caching_device: Any = None, partitioner: Any = None, validate_shape: Any = True, use_resource: Any = None,
            synchronization: Any = names.VariableSynchronization.AUTO,
            aggregation: Any = names.VariableAggregation.NONE,
        ) -> Any:  # fmt: skip
            return getter(
                name, shape=shape, dtype=dtype, initializer=initializer, regularizer=regularizer, reuse=reuse,
                trainable=trainable, collections=collections, caching_device=caching_device, partitioner=partitioner,
                validate_shape=validate_shape, use_resource=use_resource, synchronization=synchronization,
                aggregation=aggregation,
            )  # fmt: skip

        def raises(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            raise Failing(name)

        known = {
            "suffix": suffix,
            "untrain": untrain,
            "zeros": zeroed,
            "extra": extra,
            "plain": plain,
            "narrow": narrow,
            "raises": raises,
        }
        return known.get(kind, kind)

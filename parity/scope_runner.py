"""Runs a program of `scope_programs` through an implementation of TF1's API, and compares what two of them did."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from oracle_runner import TAKEN, category

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


class Run:
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

    # Statements

    def do_get(self, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            if self.sevens:
                raise Skip  # for Variable alone: get_variable has a shape of its own
            scope = self.api.get_variable_scope()
            inherited = scope.initializer is not None and not callable(scope.initializer)
            kind = statement.get("initializer", {"kind": "python" if inherited else ""})["kind"]
            constant = kind in ("tensor", "python", "initialized")
            sliced = "partitioner" in statement or scope.partitioner is not None
            if constant and sliced and "shape" in statement:
                raise Skip  # TensorFlow cuts slices from a value of any size
            function = self.api.get_variable if statement["do"] == "get" else self.api.get_local_variable
            return self.note(function(statement["name"], **self.keywords(statement)))

        self.attempt(statement, action)

    do_get_local = do_get

    def do_variable(self, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            if self.sevens and "dtype" in statement:
                raise Skip  # TensorFlow converts the creator's array to any dtype without a word
            if self.called and "collections" in statement:
                raise Skip  # what joins the trainable variables without being trainable
            kind = statement["initializer"]
            # In JAX an array is as good as a number: it is converted where no value is lost.
            if "dtype" in statement and (kind["kind"] != "python" or isinstance(kind["value"], bool)):
                raise Skip
            keywords = self.keywords(statement)
            if "name" in statement:
                keywords["name"] = statement["name"]
            return self.note(self.api.Variable(keywords.pop("initializer"), **keywords))

        self.attempt(statement, action)

    def do_assign(self, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            self.touched = True
            variable = self.variable(statement["of"])
            value = statement["value"]
            if value == "same":
                value = np.ones(variable.shape.as_list(), np.float32).tolist()
            return self.side.effect(variable, statement["do"], value)

        self.attempt(statement, action)

    do_assign_add = do_assign_sub = do_assign

    def do_count_up_to(self, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            self.touched = True
            variable = self.variable(statement["of"])
            if self.side.describe(variable)["dtype"] == "uint8":
                raise Skip  # every integer counts in jaxvars
            return self.side.effect(variable, "count_up_to", statement["limit"])

        self.attempt(statement, action)

    def do_read(self, statement: Statement) -> None:
        self.attempt(statement, lambda: self.side.effect(self.variable(statement["of"]), "read"))

    def do_set(self, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            what, to = statement["what"], statement["to"]
            make = {
                "initializer": self.initializer,
                "regularizer": self.side.regularizer,
                "dtype": self.side.dtype,
                "custom_getter": self.getter,
            }.get(what, lambda value: value)
            getattr(self.scope(statement), "set_" + what)(None if to is None else make(to))
            return {}

        self.attempt(statement, action)

    def do_reuse_variables(self, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            self.scope(statement).reuse_variables()
            return {}

        self.attempt(statement, action)

    def do_collection(self, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            key = statement["key"]
            if "scope" in statement:
                items = self.scope(statement).get_collection(key)
            else:
                items = self.api.get_collection(key, statement.get("pattern"))
            return {"count": len(items)} if key == "regularization_losses" else self.names(items)

        self.attempt(statement, action)

    def do_lists(self, statement: Statement) -> None:
        self.attempt(statement, lambda: self.names(getattr(self.api, statement["which"])(statement["pattern"])))

    def do_collect(self, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            if statement["key"] == "regularization_losses" or self.called:
                raise Skip  # a template takes what joins the trainable variables meanwhile for a new one
            self.api.add_to_collection(statement["key"], self.variable(statement["of"]))
            return {}

        self.attempt(statement, action)

    def do_state(self, statement: Statement) -> None:
        self.attempt(statement, self.state)

    def do_losses(self, statement: Statement) -> None:
        self.attempt(statement, self.side.losses)

    def do_capture(self, statement: Statement) -> None:
        if not self.called:
            self.scopes.append(self.api.get_variable_scope())

    def do_leave(self, statement: Statement) -> None:
        if self.called:
            return  # see `differences` for what a template leaves behind then
        self.records.append({"leave": True})
        raise Leave

    # Blocks

    def do_try(self, statement: Statement) -> None:
        try:
            self.body(statement["body"])
        except Leave:
            self.records.append({"caught": True})

    def do_scope(self, statement: Statement) -> None:
        def make() -> Any:
            match statement["target"]:
                case "captured":
                    target = self.pick(self.scopes, statement["of"])
                case "root":
                    target = self.scopes[0]
                case "default":
                    target = None
                case _:
                    target = statement["name"]
            return self.api.variable_scope(target, **self.keywords(statement))

        self.enter(statement, make, keep=statement["target"] not in ("captured", "root"))

    def do_again(self, statement: Statement) -> None:
        self.enter(statement, lambda: self.pick(self.managers, statement["of"]))

    def do_names(self, statement: Statement) -> None:
        self.enter(statement, lambda: self.api.name_scope(statement["name"]))

    def do_original(self, statement: Statement) -> None:
        self.enter(statement, lambda: self.api.name_scope(self.pick(self.scopes, statement["of"]).original_name_scope))

    def do_creator(self, statement: Statement) -> None:
        def untrain(next_creator: Any, **kwargs: Any) -> Any:
            return next_creator(**(kwargs | {"trainable": False}))

        def sevens(next_creator: Any, **kwargs: Any) -> Any:
            return next_creator(**(kwargs | {"initial_value": np.full([2], 7, np.float32)}))

        def watch(next_creator: Any, **kwargs: Any) -> Any:
            made = next_creator(**kwargs)
            if self.side.is_partitioned(made) or "/part_" in made.name:
                return made  # TensorFlow asks creators for each slice, jaxvars for the whole
            self.records.append({"creator saw": kwargs["name"] or "Variable", "trainable": made.trainable})
            return made

        known = {"untrain": untrain, "sevens": sevens, "watch": watch}
        self.sevens += statement["kind"] == "sevens"
        self.enter(statement, lambda: self.api.variable_creator_scope(known[statement["kind"]]))
        self.sevens -= statement["kind"] == "sevens"

    def enter(self, statement: Statement, make: Callable[[], Any], keep: bool = False) -> None:
        """Run the statement's body in a block. The body is not run where entering fails."""
        entered: list[Any] = []

        def action() -> dict[str, Any]:
            manager = make()
            if any(manager is other for other in self.open):
                raise Skip
            yielded = manager.__enter__()
            entered.append(manager)
            if hasattr(yielded, "original_name_scope"):
                self.scopes.append(yielded)
            return self.state() | ({"yields": yielded} if isinstance(yielded, str) else {})

        if not self.attempt(statement, action):
            return
        (manager,) = entered
        self.open.append(manager)
        try:
            self.body(statement["body"])
        except BaseException as error:
            self.open.pop()
            manager.__exit__(type(error), error, error.__traceback__)
            raise
        self.open.pop()
        manager.__exit__(None, None, None)
        if keep:
            self.managers.append(manager)

    def do_template(self, statement: Statement) -> None:
        def function() -> None:
            self.body(statement["body"])

        def action() -> dict[str, Any]:
            keywords: dict[str, Any] = {"unique_name_": statement.get("unique")}
            if "now" in statement:
                keywords["create_scope_now_"] = statement["now"]
            if "getter" in statement:
                keywords["custom_getter_"] = self.getter(statement["getter"])
            self.templates.append(self.api.make_template(statement["name"], function, **keywords))
            return {}

        if self.attempt(statement, action):
            for _ in range(statement.get("calls", 2)):
                self.call(self.templates[-1], statement)

    def do_call(self, statement: Statement) -> None:
        if self.templates and not self.called:
            self.call(self.pick(self.templates, statement["of"]), statement)

    def call(self, template: Any, statement: Statement) -> None:
        def action() -> dict[str, Any]:
            self.called += 1
            try:
                template()
            finally:
                self.called -= 1
            return {"template": template.variable_scope.name, "variables": len(template.variables)}

        self.attempt({"do": "call"}, action)


# Comparison


def is_text(error: BaseException, pattern: str) -> bool:
    return re.search(pattern, str(error)) is not None


def same_error(theirs: BaseException, ours: BaseException) -> bool:
    """Whether our error is of TensorFlow's class, and of its category where its text has a known one."""
    if isinstance(theirs, IndexError):
        return isinstance(ours, IndexError | ValueError)  # an axis that is not there
    if is_text(theirs, "Tensor conversion requested dtype"):
        # TensorFlow has a TypeError for every other value of a wrong dtype.
        return isinstance(ours, TypeError)
    if category(theirs) == "bad_collections":
        return isinstance(ours, ValueError | TypeError)  # there may be another mistake, which jaxvars sees first
    for kind in (ValueError, TypeError, RuntimeError, Failing):
        if isinstance(theirs, kind):
            if not isinstance(ours, kind):
                return False
            break
    else:
        if type(theirs).__name__ != type(ours).__name__:
            return False
    known = category(theirs)
    if known == "init_value_dtype" and is_text(ours, r"expected (a value of )?\w+, got"):
        return True
    # jaxvars refuses an illegal name, and one that a jv.Variable has, first, whatever else is wrong.
    return known.startswith("other") or category(ours) in (known, "bad_name") or TAKEN in str(ours)


def differences(theirs: Run, ours: Run) -> Iterator[str]:
    """Where two runs differ; fields that one of them does not have are not compared."""
    for number, (left, right) in enumerate(zip(theirs.records, ours.records, strict=False)):
        what = left.get("statement") or f"record {number} of {len(theirs.records)}"
        if left.get("late") and not ours.side.values:
            continue
        if "error" in left or "error" in right:
            if "error" not in left or "error" not in right or not same_error(left["error"], right["error"]):
                yield f"{what}: TensorFlow {shown(left)}, jaxvars {shown(right)}"
            elif left["statement"]["do"] == "call":
                return  # what a failed call of a template made is there in TensorFlow, and not in jaxvars
            continue
        for text in field_differences(left, right):
            yield f"{what}: {text}"
    if len(theirs.records) != len(ours.records):
        yield f"TensorFlow executed {len(theirs.records)} statements, jaxvars {len(ours.records)}"


def field_differences(left: dict[str, Any], right: dict[str, Any]) -> Iterator[str]:
    """Where two records differ, in the fields that both have."""
    for key in left.keys() & right.keys() - {"statement"}:
        if key == "slices":
            for one, other in zip(left[key], right[key], strict=True):
                yield from field_differences(one, other)
        elif not same(left[key], right[key]):
            yield f"{key}: TensorFlow {left[key]!r}, jaxvars {right[key]!r}"


def shown(record: dict[str, Any]) -> str:
    if "error" not in record:
        return repr({key: value for key, value in record.items() if key != "statement"})
    return f"{type(record['error']).__name__}: {record['error']!s:.200}"


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        left, right = np.asarray(left), np.asarray(right)
        return left.dtype == right.dtype and left.shape == right.shape and np.array_equal(left, right, equal_nan=True)
    return bool(left == right)

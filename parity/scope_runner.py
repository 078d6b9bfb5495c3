"""Runs a program of `scope_programs` through an implementation of TF1's API, statement by statement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.scope_programs import Statement
from parity.scope_recorder import Leave, Recorder, Skip


class Run(Recorder):
    """One run; ``do_<what>`` executes the statement of that name."""

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

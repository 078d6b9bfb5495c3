"""`make_template` beside TensorFlow's: the same small programs, the same names, sharing and kinds of error."""

from __future__ import annotations

from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given

import jaxvars as jv
from parity.live import examples, fresh_graph, tf


class Make(NamedTuple):
    """Make a template in a scope."""

    name: str
    now: bool
    unique: str | None
    scope: str
    body: int


class Call(NamedTuple):
    """Call one of the templates made so far in a scope."""

    number: int
    scope: str
    reuse: bool
    variable: str


class Default(NamedTuple):
    """Open a scope by default name, which counts with those of templates."""

    name: str
    scope: str


NAMES, SCOPES = st.sampled_from(["t", "s", "t_1"]), st.sampled_from(["", "", "s", "s/t"])
MAKES = st.builds(Make, NAMES, st.booleans(), st.sampled_from([None, None, None, "s", "u"]), SCOPES, st.integers(0, 4))
CALLS = st.builds(Call, st.integers(0, 3), SCOPES, st.just(False) | st.booleans(), st.sampled_from(["w", "w", "v"]))
STEPS = st.lists(MAKES | CALLS | CALLS | st.builds(Default, NAMES, SCOPES), min_size=3, max_size=14)


class Program:
    """Run the steps with one of the two libraries, which spell everything alike."""

    def __init__(self, lib: Any) -> None:
        self.lib = lib
        self.templates: list[Any] = []
        self.seen: list[Any] = []
        self.log: list[Any] = []

    def run(self, steps: list[Any]) -> list[Any]:
        """What each step gave, up to the first error."""
        for step in steps:
            try:
                # `reuse` on the root scope itself would stay for good.
                with self.lib.variable_scope(step.scope or self.lib.get_variable_scope(), reuse=self._reuse(step)):
                    getattr(self, type(step).__name__.lower())(step)
            except (ValueError, TypeError) as error:
                kind = "TypeError" if isinstance(error, TypeError) else "ValueError"
                self.log.append((kind, "originally defined at" in str(error)))
                break
        self.log.append([self._state(template) for template in self.templates])
        self.log.append(sorted(v.op.name for v in self.lib.global_variables()))
        return self.log

    def _reuse(self, step: Any) -> Any:
        return self.lib.AUTO_REUSE if getattr(step, "reuse", False) else None

    def make(self, step: Make) -> None:
        body = [self.share, self.nested, self.global_variable, self.local_variable, self.two_scopes][step.body]
        self.templates.append(
            self.lib.make_template(step.name, body, create_scope_now_=step.now, unique_name_=step.unique)
        )

    def call(self, step: Call) -> None:
        if self.templates:
            found = self.templates[step.number % len(self.templates)](step.variable)
            self.log.append([(v.op.name, self._number(v)) for v in found])

    def default(self, step: Default) -> None:
        with self.lib.variable_scope(None, step.name) as scope:
            self.log.append(scope.name)

    def _number(self, variable: Any) -> int:
        for number, other in enumerate(self.seen):
            if other is variable:
                return number
        self.seen.append(variable)
        return len(self.seen) - 1

    def _state(self, template: Any) -> Any:
        scope = template.variable_scope
        return (
            template.name,
            None if scope is None else scope.name,
            None if scope is None else str(scope.reuse),
            [v.op.name for v in template.variables],
            [v.op.name for v in template.trainable_variables],
        )

    # What the templates do

    def share(self, name: str) -> Any:
        return [self.lib.get_variable(name, [2])]

    def nested(self, name: str) -> Any:
        inner = [self.lib.make_template("inner", self.share) for _ in range(2)]
        return [inner[number](name)[0] for number in (0, 1, 0)]

    def global_variable(self, name: str) -> Any:
        return [self.lib.Variable(1.0, name=name)]

    def local_variable(self, name: str) -> Any:
        return [self.lib.Variable(1.0, name=name, trainable=False), self.lib.get_local_variable("l", [])]

    def two_scopes(self, name: str) -> Any:
        found = []
        for _ in range(2):
            with self.lib.variable_scope(None, "layer"):
                found.append(self.lib.get_variable(name, []))
        return found


@examples(250)
@given(STEPS)
def test_programs(steps: list[Any]) -> None:
    with fresh_graph():
        theirs = Program(tf).run(steps)
    with jv.VariableStore(tf1_op_names=True):
        ours = Program(jv).run(steps)
    if any(isinstance(item, tuple) for item in theirs):
        # Ours takes back what a failing call made, so only the way up to the error is the same.
        theirs, ours = theirs[:-2], ours[:-2]
    assert _plain(ours) == _plain(theirs)


def _plain(log: list[Any]) -> str:
    return repr(log).replace("_ReuseMode.", "").replace("Reuse.", "")


def test_attributes_are_those_of_tensorflow() -> None:
    with fresh_graph():
        theirs = tf.make_template("t", lambda: None)
    wanted = [name for name in dir(type(theirs)) if not name.startswith("_")]
    assert [name for name in wanted if not hasattr(jv.Template, name)] == []


@pytest.mark.parametrize("wrong", [{"name_": None}])
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    for lib in (tf, jv):
        with pytest.raises(ValueError, match="name cannot be None"):
            lib.make_template(func_=lambda: None, **wrong)

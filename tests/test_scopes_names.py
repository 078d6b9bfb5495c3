"""Name scopes, op names, default-name counters: which string comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.scopes import (
    NameGraph,
    VariableScope,
    get_current_name_scope,
    get_variable_scope,
    name_scope,
    variable_scope,
)
from jaxvars.scopes.names import NameRegistry, check_variable_name


@pytest.fixture(autouse=True)
def graph() -> Iterator[NameGraph]:
    graph = NameGraph()
    with graph.as_current():
        yield graph


def opened(*arguments: Any, **options: Any) -> str:
    """The name of a variable scope that is opened and closed."""
    with variable_scope(*arguments, **options) as scope:
        return scope.name


def opened_name_scope(*arguments: Any) -> str:
    with name_scope(*arguments) as name:
        return name


# Name scopes


def test_name_scopes_nest_and_are_made_unique() -> None:
    with name_scope("a") as outer:
        assert (outer, get_current_name_scope()) == ("a/", "a")
        assert opened_name_scope("b") == "a/b/"
        assert opened_name_scope("b") == "a/b_1/"
    assert get_current_name_scope() == ""
    assert opened_name_scope("a") == "a_1/"


def test_names_are_compared_without_regard_to_case() -> None:
    assert [opened_name_scope(name) for name in ("My", "my", "MY")] == ["My/", "my_1/", "MY_2/"]
    assert opened(None, "Dense") == "Dense"
    assert opened(None, "dense") == "dense"  # the counters of variable scopes do regard it


def test_a_taken_suffix_is_skipped() -> None:
    assert [opened_name_scope(n) for n in ("a", "a_1", "a", "a_1")] == ["a/", "a_1/", "a_2/", "a_1_1/"]


def test_only_whole_names_are_taken() -> None:
    assert [opened_name_scope(name) for name in ("a/b", "a", "a/b")] == ["a/b/", "a/", "a/b_1/"]


@pytest.mark.parametrize("name", [None, ""])
def test_none_and_empty_reset_to_the_root(name: str | None) -> None:
    with name_scope("a"), name_scope(name) as scope:
        assert (scope, get_current_name_scope()) == ("", "")
        assert opened_name_scope("b") == "b/"


def test_default_name_is_used_for_none_only() -> None:
    assert opened_name_scope(None, "d") == "d/"
    assert opened_name_scope("e", "d", [1, 2]) == "e/"
    with name_scope("a"):
        assert opened_name_scope("", "d") == ""


def test_trailing_slash_enters_exactly() -> None:
    with name_scope("a") as a:
        pass
    with name_scope("b"), name_scope(a) as again:
        assert (again, get_current_name_scope()) == ("a/", "a")
    assert opened_name_scope("x/y/") == "x/y/"
    assert opened_name_scope("x/y") == "x/y/"  # entering exactly takes no name


def test_the_same_name_scope_object_enters_again() -> None:
    manager = name_scope("z")
    assert manager.name == "z"
    with manager as first:
        pass
    with manager as second:
        pass
    assert (first, second) == ("z/", "z_1/")


def test_name_scope_as_decorator() -> None:
    @name_scope("op")
    def op() -> str:
        return get_current_name_scope()

    assert (op(), op()) == ("op", "op_1")


def test_name_scope_arguments_are_checked() -> None:
    with pytest.raises(InvalidTypeError, match="values"):
        name_scope(None, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="name of name_scope"):
        name_scope(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="'a b' is not a valid root scope name"):
        name_scope("a b").__enter__()
    with name_scope("a"), pytest.raises(InvalidArgumentError, match="'b:0' is not a valid scope name"):
        name_scope("b:0").__enter__()
    assert get_current_name_scope() == ""


def test_closing_name_scopes_out_of_order_is_refused() -> None:
    outer, inner = name_scope("a"), variable_scope("b")
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(FailedPreconditionError, match="Improper nesting of name_scope"):
        outer.__exit__(None, None, None)
    assert (get_variable_scope().name, get_current_name_scope()) == ("b", "a/b")
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)
    assert get_current_name_scope() == ""


def test_outside_a_frame() -> None:
    import threading

    seen: list[Any] = []

    def outside() -> None:
        seen.append(get_current_name_scope())
        with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
            name_scope("a").__enter__()

    thread = threading.Thread(target=outside)
    thread.start()
    thread.join()
    assert seen == [""]


# Name scopes of variable scopes


def test_variable_scope_opens_a_unique_name_scope_of_its_last_component() -> None:
    with name_scope("n"), variable_scope("a") as scope:
        assert (scope.name, scope.original_name_scope) == ("a", "n/a/")
    with variable_scope("tower4") as tower:
        pass
    with variable_scope("tower6"), variable_scope(tower) as again:
        assert (again.name, get_current_name_scope()) == ("tower4", "tower6/tower4")
    with variable_scope("x/y") as deep:
        assert get_current_name_scope() == "x/y"
    with variable_scope(deep):
        assert get_current_name_scope() == "y"


def test_default_names_and_name_scopes_count_apart() -> None:
    names = []
    for _ in range(2):
        with name_scope("n"), variable_scope(None, "d") as scope:
            names.append((scope.name, get_current_name_scope()))
    assert names == [("d", "n/d"), ("d_1", "n_1/d")]


# Op names


def test_get_variables_op_name_is_unique_and_ignores_name_scopes(graph: NameGraph) -> None:
    with variable_scope("a"), variable_scope("w"):
        pass
    with name_scope("n"):
        assert graph.variable_op_name("a/w") == "a/w_1"
        assert graph.variable_op_name("v") == "v"
        assert graph.unique_variable_name("v") == "n/v"
    assert graph.unique_variable_name("v") == "v_1"
    assert graph.variable_op_name("v") == "v_2"


def test_a_variable_takes_its_name_from_later_scopes(graph: NameGraph) -> None:
    graph.variable_op_name("a/w")
    with variable_scope("a"), variable_scope("w") as scope:
        assert (scope.name, get_current_name_scope()) == ("a/w", "a/w_1")


@pytest.mark.parametrize("name", [None, ""])
def test_variables_without_a_name_are_called_variable(graph: NameGraph, name: str | None) -> None:
    with name_scope("n"):
        assert [graph.unique_variable_name(name) for _ in range(2)] == ["n/Variable", "n/Variable_1"]


def test_a_variable_may_have_the_name_of_its_scope(graph: NameGraph) -> None:
    with name_scope("op") as name:
        assert graph.unique_variable_name(name) == "op"


def test_names_can_be_looked_up_without_taking_them(graph: NameGraph) -> None:
    for _ in range(2):
        assert graph.variable_op_name("v", take=False) == "v"
        assert graph.unique_variable_name("v", take=False) == "v"
    assert graph.variable_op_name("v") == "v"
    for _ in range(2):
        assert graph.variable_op_name("v", take=False) == "v_1"
    assert graph.unique_variable_name("v") == "v_1"


@pytest.mark.parametrize("name", ["_a", "-a", "/a", "a b", "a:0", "é", "a\n", "", "a/"])
def test_illegal_variable_names(graph: NameGraph, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not a valid root scope name"):
        graph.variable_op_name(name)
    with pytest.raises(InvalidArgumentError):
        check_variable_name(name)


@pytest.mark.parametrize("name", ["a", "a/b", ".a", "9", "a\\b", "a>b", "a//b", "A-z_.0"])
def test_legal_variable_names(graph: NameGraph, name: str) -> None:
    assert graph.variable_op_name(name) == name


def test_illegal_names_take_nothing(graph: NameGraph) -> None:
    with name_scope("n"), pytest.raises(InvalidArgumentError, match="not a valid scope name"):
        graph.unique_variable_name("a b")
    assert graph.names._used.keys() == {"n"}


@given(st.lists(st.sampled_from(["a", "A", "a_1", "A_1", "a_2", "b/a"]), max_size=30))
def test_unique_names_are_unique_without_regard_to_case(wanted: list[str]) -> None:
    registry = NameRegistry()
    got = [registry.unique(name) for name in wanted]
    assert len({name.lower() for name in got}) == len(wanted)
    for name, unique in zip(wanted, got, strict=True):
        assert unique == name or unique.startswith(name + "_")


# Counters of default names


def test_default_names_are_numbered() -> None:
    assert [opened(None, "d") for _ in range(3)] == ["d", "d_1", "d_2"]
    with variable_scope("outer"):
        assert [opened(None, "d") for _ in range(2)] == ["outer/d", "outer/d_1"]


def test_explicit_names_count_but_are_not_changed() -> None:
    assert [opened("foo"), opened("foo"), opened(None, "foo")] == ["foo", "foo", "foo_1"]
    assert opened("z_1") == "z_1"
    assert [opened(None, "z") for _ in range(3)] == ["z", "z_2", "z_3"]


def test_numbering_starts_again_on_reentry() -> None:
    for _ in range(2):
        with variable_scope("model") as scope:
            assert [opened(None, "dense") for _ in range(2)] == ["model/dense", "model/dense_1"]
    with variable_scope(scope):
        assert opened(None, "dense") == "model/dense"


def test_leaving_a_scope_forgets_what_is_below_it_only() -> None:
    with variable_scope("a"):
        assert opened(None, "x") == "a/x"
    with variable_scope("ab"):
        assert opened(None, "x") == "ab/x"
    with variable_scope("a/b"):
        pass
    with variable_scope("a"):
        assert opened(None, "b") == "a/b_1"  # "a/b" was opened from the root, and a was not left since
    with variable_scope("a"):
        assert opened(None, "b") == "a/b"


def test_interleaved_scopes_whose_names_are_prefixes() -> None:
    with variable_scope(None, "defaultScope1"):
        assert [opened(None, "layer") for _ in range(2)] == ["defaultScope1/layer", "defaultScope1/layer_1"]
    with variable_scope(None, "defaultScope"):
        assert opened(None, "layer") == "defaultScope/layer"
    with variable_scope(None, "defaultScope1") as scope:
        assert scope.name == "defaultScope1_1"
        assert opened(None, "layer") == "defaultScope1_1/layer"


def test_numbering_goes_on_after_a_jump() -> None:
    with variable_scope("jump") as jump:
        assert [opened(None, "layer") for _ in range(2)] == ["jump/layer", "jump/layer_1"]
        with variable_scope("elsewhere"):
            with variable_scope(jump):
                assert opened(None, "layer") == "jump/layer_2"
            assert opened(None, "layer") == "jump/elsewhere/layer"
        assert opened(None, "layer") == "jump/layer_2"
    with variable_scope(jump):
        assert opened(None, "layer") == "jump/layer"


def test_a_jump_is_counted_where_it_goes() -> None:
    with variable_scope("a"), variable_scope("b") as b:
        pass
    with variable_scope("other"):
        assert opened(b) == "a/b"
    with variable_scope("a"):
        assert opened(None, "b") == "a/b_1"


def test_counts_below_an_empty_scope_stay() -> None:
    with variable_scope(""):
        assert opened(None, "d") == "d"
    assert opened(None, "d") == "d_1"


def test_failing_body_restores_the_counts() -> None:
    with pytest.raises(ValueError, match="stop"), variable_scope("a"):
        assert opened(None, "d") == "a/d"
        raise ValueError("stop")
    with variable_scope("a"):
        assert opened(None, "d") == "a/d"


def test_many_default_names_are_found_quickly() -> None:
    assert [opened(None, "d") for _ in range(2000)][-1] == "d_1999"
    assert opened("d_2001") == "d_2001"
    assert [opened(None, "d") for _ in range(2)] == ["d_2000", "d_2002"]


class CountsModel:
    """TF1's counters, word for word: one table, zeroed by prefix or replaced whole."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def default(self, prefix: str, name: str) -> str:
        full = prefix + name
        if not self.counts.get(full):
            return full
        suffix = 1
        while self.counts.get(f"{full}_{suffix}"):
            suffix += 1
        return f"{full}_{suffix}"

    def open(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def close(self, name: str) -> None:
        self.counts = {k: 0 if k.startswith(name + "/") else v for k, v in self.counts.items()}


SCOPE = st.sampled_from(["a", "b", "a/b", "d", "d_1", ""])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("string"), SCOPE),
        st.tuples(st.just("default"), st.sampled_from(["d", "a", "a/b"])),
        st.tuples(st.just("captured"), st.integers(0, 30)),
        st.tuples(st.just("close"), st.just("")),
        st.tuples(st.just("close"), st.just("")),
    ),
    max_size=40,
)


@given(STEPS)
def test_counters_agree_with_tf1s_algorithm(steps: list[tuple[str, Any]]) -> None:
    model = CountsModel()
    seen: list[VariableScope] = []
    stack: list[tuple[ExitStack, str, dict[str, int] | None]] = []
    with NameGraph().as_current():
        for kind, argument in steps:
            prefix = get_variable_scope().prefix
            if kind == "close":
                if not stack:
                    continue
                opened_scope, name, saved = stack.pop()
                opened_scope.close()
                if saved is None:
                    model.close(name)
                else:
                    model.counts = saved
                continue
            target: Any = argument
            expected = prefix + str(argument)
            if kind == "default":
                expected = model.default(prefix, argument)
            elif kind == "captured":
                if not seen:
                    continue
                target = seen[argument % len(seen)]
                expected = target.name
            opened_scope = ExitStack()
            manager = variable_scope(None, argument) if kind == "default" else variable_scope(target)
            scope = opened_scope.enter_context(manager)
            assert scope.name == expected
            seen.append(scope)
            model.open(scope.name)
            stack.append((opened_scope, scope.name, dict(model.counts) if kind == "captured" else None))
        while stack:
            stack.pop()[0].close()

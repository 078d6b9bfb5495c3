"""Requests for variables: full names, defaults from the scope, custom getters, variable creators."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_store import FakeStore, Initializer, Tensor

from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.scopes import (
    AUTO_REUSE,
    NameGraph,
    VariableAggregation,
    VariableScope,
    VariableSynchronization,
    create_variable,
    get_current_name_scope,
    get_variable_scope,
    name_scope,
    request_variable,
    root_name_scope,
    variable_creator_scope,
    variable_scope,
)


@pytest.fixture(autouse=True)
def graph() -> Iterator[NameGraph]:
    graph = NameGraph()
    with graph.as_current():
        yield graph


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def record(name: str, **keywords: Any) -> dict[str, Any]:
    """A true getter that returns what it was called with."""
    return {"name": name, **keywords}


KEYWORDS = {
    "shape",
    "dtype",
    "initializer",
    "regularizer",
    "reuse",
    "trainable",
    "collections",
    "caching_device",
    "partitioner",
    "validate_shape",
    "use_resource",
    "constraint",
    "synchronization",
    "aggregation",
}


# Defaults


def test_the_true_getter_receives_every_keyword() -> None:
    got = request_variable(record, "w", shape=[2])
    assert got.keys() == KEYWORDS | {"name"}
    assert got["name"] == "w"
    assert (got["shape"], got["dtype"], got["reuse"], got["trainable"]) == ([2], "float32", False, True)
    assert (got["validate_shape"], got["initializer"], got["collections"]) == (True, None, None)


def test_what_is_none_comes_from_the_scope() -> None:
    given: dict[str, Any] = {
        "initializer": 1,
        "regularizer": abs,
        "caching_device": "c",
        "partitioner": "p",
        "dtype": "int32",
        "use_resource": False,
        "constraint": min,
    }
    with variable_scope("a/b", reuse=AUTO_REUSE, **given):
        got = request_variable(record, "w")
        assert got["name"] == "a/b/w"
        assert got["reuse"] is AUTO_REUSE
        assert {key: got[key] for key in given} == given
        own: dict[str, Any] = {key: object() for key in given if key != "initializer"}
        got = request_variable(record, "w", **own)
        assert {key: got[key] for key in own} == own


def test_a_changed_scope_is_read_at_each_request() -> None:
    scope = get_variable_scope()
    scope.set_dtype("int32")
    scope.reuse_variables()
    got = request_variable(record, "w")
    assert (got["dtype"], got["reuse"]) == ("int32", True)


def test_names_within_a_request_may_have_scopes() -> None:
    with variable_scope("a"), name_scope("ignored"):
        assert request_variable(record, "b/w")["name"] == "a/b/w"


@pytest.mark.parametrize("name", ["", None])
def test_a_name_is_needed(name: Any) -> None:
    with variable_scope("a"), pytest.raises(InvalidArgumentError, match="get_variable needs a name"):
        request_variable(record, name)


@pytest.mark.parametrize("name", [3, b"w", ["w"]])
def test_a_name_is_a_string(name: Any) -> None:
    with pytest.raises(InvalidTypeError, match="must be a string"):
        request_variable(record, name)


def test_outside_a_frame_the_error_names_the_variable() -> None:
    errors: list[str] = []

    def outside() -> None:
        with pytest.raises(FailedPreconditionError) as raised:
            request_variable(record, "weights")
        errors.append(str(raised.value))

    thread = threading.Thread(target=outside)
    thread.start()
    thread.join()
    assert errors[0].startswith("jv.get_variable('weights') was called outside of a frame")
    assert "jv.transform(fn)" in errors[0]


@pytest.mark.parametrize(
    ("trainable", "synchronization", "expected"),
    [
        (None, None, True),
        (False, None, False),
        (None, VariableSynchronization.ON_READ, False),
        (True, VariableSynchronization.ON_READ, True),
        (None, VariableSynchronization.ON_WRITE, True),
    ],
)
def test_trainable(trainable: Any, synchronization: Any, expected: bool) -> None:
    got = request_variable(record, "w", trainable=trainable, synchronization=synchronization)
    assert got["trainable"] is expected
    assert got["synchronization"] is synchronization


def test_synchronization_and_aggregation_are_checked() -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid variable synchronization mode: 3 for variable: w"):
        request_variable(record, "w", synchronization=3)
    with pytest.raises(InvalidArgumentError, match="Invalid variable aggregation mode"):
        request_variable(record, "w", aggregation="mean")
    got = request_variable(record, "w", aggregation=VariableAggregation.MEAN)
    assert got["aggregation"] is VariableAggregation.MEAN


def test_check_is_asked_about_explicit_dtype_and_constant_only() -> None:
    asked: list[tuple[Any, Any]] = []

    def check(dtype: Any, initializer: Any) -> None:
        asked.append((dtype, initializer))

    request_variable(record, "w", dtype="int32", initializer=abs, check=check)
    request_variable(record, "w", initializer=3, check=check)
    request_variable(record, "w", dtype="int32", check=check)
    with variable_scope("a", initializer=3, dtype="int32"):
        request_variable(record, "w", check=check)
        request_variable(record, "w", dtype="int32", check=check)
    assert asked == []
    request_variable(record, "w", dtype="int32", initializer=3, check=check)
    assert asked == [("int32", 3)]


def test_check_comes_before_the_custom_getter() -> None:
    def check(dtype: Any, initializer: Any) -> None:
        raise InvalidArgumentError("first")

    with pytest.raises(InvalidArgumentError, match="first"):
        request_variable(record, "w", dtype="int32", initializer=3, custom_getter=3, check=check)  # type: ignore[arg-type]


# Custom getters


def suffix(text: str) -> Callable[..., Any]:
    def custom_getter(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        return getter(name + text, *args, **kwargs)

    return custom_getter


def test_the_innermost_getter_runs_first() -> None:
    with variable_scope("x", custom_getter=suffix("_a")), variable_scope("y", custom_getter=suffix("_b")):
        assert request_variable(record, "v")["name"] == "x/y/v_b_a"
        with variable_scope("z", custom_getter=suffix("_c")):
            assert request_variable(record, "v")["name"] == "x/y/z/v_c_b_a"
        assert request_variable(record, "v")["name"] == "x/y/v_b_a"


def test_a_getter_of_the_request_replaces_the_scopes() -> None:
    with variable_scope("x", custom_getter=suffix("_a")):
        assert request_variable(record, "v", custom_getter=suffix("_r"))["name"] == "x/v_r"


def test_reentering_composes_with_the_captured_getter() -> None:
    with variable_scope("x", custom_getter=suffix("_a")) as x:
        pass
    with variable_scope("p", custom_getter=suffix("_p")), variable_scope(x, custom_getter=suffix("_b")):
        assert request_variable(record, "v")["name"] == "x/v_b_a"
    with variable_scope(x):
        assert request_variable(record, "v")["name"] == "x/v_a"


def test_a_getter_is_called_with_keywords_and_sees_the_effective_reuse() -> None:
    seen: list[dict[str, Any]] = []

    def custom_getter(*args: Any, **kwargs: Any) -> Any:
        assert args == ()
        seen.append(dict(kwargs))
        return kwargs.pop("getter")(**kwargs)

    with variable_scope("p", reuse=AUTO_REUSE), variable_scope("c", custom_getter=custom_getter):
        got = request_variable(record, "w", shape=[1])
    assert seen[0].pop("getter") is record
    assert seen[0] == got
    assert seen[0].keys() == KEYWORDS | {"name"}
    assert (got["name"], got["reuse"], got["trainable"]) == ("p/c/w", AUTO_REUSE, True)


def old_getter(
    getter: Callable[..., Any],
    name: str,
    shape: Any,
    dtype: Any,
    initializer: Any,
    regularizer: Any,
    reuse: Any,
    trainable: Any,
    collections: Any,
    caching_device: Any,
    partitioner: Any,
    validate_shape: Any,
    use_resource: Any,
    synchronization: Any,
    aggregation: Any,
) -> Any:
    """Written before there were constraints."""
    return getter(name, shape=shape, dtype=dtype)


class CallableGetter:
    def __call__(self, getter: Callable[..., Any], name: str, constraint: Any, **kwargs: Any) -> Any:
        return getter(name, constraint=constraint)


def test_constraint_is_passed_only_to_getters_that_take_it() -> None:
    assert "constraint" not in request_variable(record, "v", constraint=abs, custom_getter=old_getter)
    for getter in (CallableGetter(), functools.partial(suffix("_x")), functools.partial(CallableGetter())):
        assert request_variable(record, "v", constraint=abs, custom_getter=getter)["constraint"] is abs
    old = functools.partial(old_getter)
    assert "constraint" not in request_variable(record, "v", constraint=abs, custom_getter=old)
    with variable_scope("a", custom_getter=old_getter), variable_scope("b", custom_getter=suffix("_b")):
        assert request_variable(record, "v", constraint=abs)["name"] == "a/b/v_b"
    with variable_scope("a", custom_getter=suffix("_a")), variable_scope("b", custom_getter=old_getter):
        assert request_variable(record, "v", constraint=abs)["name"] == "a/b/v_a"


def test_getters_must_be_callable() -> None:
    text = "Passed a custom_getter which is not callable: 3, for variable "
    with pytest.raises(InvalidArgumentError, match=text + "w"):
        request_variable(record, "w", custom_getter=3)  # type: ignore[arg-type]
    with variable_scope("a", custom_getter=3), pytest.raises(InvalidArgumentError, match=text + "a/w"):  # type: ignore[arg-type]
        request_variable(record, "w")
    inner = variable_scope("b", custom_getter=3)  # type: ignore[arg-type]
    refused = pytest.raises(InvalidArgumentError, match=text + "a/b/w")
    with variable_scope("a", custom_getter=suffix("_a")), inner, refused:
        request_variable(record, "w")


def test_getters_run_at_the_root_name_scope_and_in_the_variable_scope() -> None:
    seen: list[tuple[str, str]] = []

    def custom_getter(getter: Callable[..., Any], name: str, **kwargs: Any) -> Any:
        seen.append((get_current_name_scope(), get_variable_scope().name))
        with variable_scope(None, "inner") as scope:
            return scope.name, getter(name, **kwargs)["name"]

    with variable_scope("a"):
        for suffix_of_inner in ("", "_1"):  # scopes that a getter opens are counted
            got = request_variable(record, "v", custom_getter=custom_getter)
            assert got == (f"a/inner{suffix_of_inner}", "a/v")
        assert get_current_name_scope() == "a"
    assert seen == [("", "a"), ("", "a")]


def test_a_getter_that_raises_restores_the_name_scope() -> None:
    def custom_getter(getter: Callable[..., Any], name: str, **kwargs: Any) -> Any:
        name_scope("left_open").__enter__()
        raise KeyError(name)

    with variable_scope("a"):
        with pytest.raises(KeyError):
            request_variable(record, "v", custom_getter=custom_getter)
        assert (get_variable_scope().name, get_current_name_scope()) == ("a", "a")


def test_root_name_scope_passes_arguments_and_results() -> None:
    with name_scope("n"):
        assert root_name_scope(lambda a, b: (a, b, get_current_name_scope()), 1, b=2) == (1, 2, "")
    assert root_name_scope(get_current_name_scope) == ""


def test_a_getter_may_make_two_variables_and_return_something_else(store: FakeStore) -> None:
    def custom_getter(getter: Callable[..., Any], name: str, **kwargs: Any) -> Any:
        return getter(name + "/0", **kwargs), getter(name + "/1", **kwargs)

    with variable_scope("s", custom_getter=custom_getter):
        first, second = store.get_variable("v", [1])
    assert (first.key, second.key) == ("s/v/0", "s/v/1")


def test_three_nested_getters_that_double_make_eight_variables(store: FakeStore) -> None:
    def doubling(level: str) -> Callable[..., Any]:
        def custom_getter(getter: Callable[..., Any], name: str, **kwargs: Any) -> list[Any]:
            made = [getter(f"{name}/{level}{i}", **kwargs) for i in range(2)]
            return [v for part in made for v in (part if isinstance(part, list) else [part])]

        return custom_getter

    g0, g1, g2 = (variable_scope(f"g{i}", custom_getter=doubling(f"{i}_")) for i in range(3))
    with g0, g1, g2:
        names = [v.name for v in store.get_variable("v", [1])]
    expected = [f"g0/g1/g2/v/2_{a}/1_{b}/0_{c}:0" for a in range(2) for b in range(2) for c in range(2)]
    assert names == expected


def test_a_getter_with_reuse_may_return_another_value(store: FakeStore) -> None:
    calls: list[Any] = []

    def custom_getter(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["reuse"])
        variable = getter(name, *args, **kwargs)
        return f"identity of {variable.name}" if kwargs["reuse"] else variable

    with variable_scope("s", custom_getter=custom_getter) as scope:
        assert store.get_variable("v", [1]).name == "s/v:0"
    with variable_scope(scope, reuse=True):
        assert store.get_variable("v", [1]) == "identity of s/v:0"
    store.get_variable("outside", [1])
    assert calls == [False, True]


# The store's reuse rules, at the level of names


def test_reuse_by_scope_and_by_name(store: FakeStore) -> None:
    with variable_scope("tower0") as tower:
        v = store.get_variable("v", [2])
        with pytest.raises(InvalidArgumentError, match="already exists"):
            store.get_variable("v", [2])
    with variable_scope(tower, reuse=True):
        assert store.get_variable("v", [2]) is v
    with (
        variable_scope("tower0", reuse=True),
        variable_scope("shared"),
        pytest.raises(ValueError, match="does not exist"),
    ):
        store.get_variable("w", [2])
    with variable_scope("tower0", reuse=True):
        with pytest.raises(ValueError, match="shape"):
            store.get_variable("v", [3])
        with pytest.raises(ValueError, match="dtype"):
            store.get_variable("v", [2], dtype="int32")


def test_auto_reuse_makes_first_and_shares_later(store: FakeStore) -> None:
    def layer() -> Any:
        with variable_scope("layer", reuse=AUTO_REUSE):
            return store.get_variable("v", [1])

    assert layer() is layer()


def test_an_initializer_may_open_scopes_and_make_variables(store: FakeStore) -> None:
    def initializer(shape: list[int], dtype: str) -> Tensor:
        with variable_scope("helper"):
            store.get_variable("inner", shape, initializer=Initializer())
        return Tensor(shape, dtype)

    with variable_scope("a"):
        assert store.get_variable("v", [2], initializer=initializer).name == "a/v:0"
        assert get_variable_scope().name == "a"
    assert list(store.variables) == ["a/helper/inner", "a/v"]


# Variable creators


def test_creators_run_innermost_first_and_see_both_kinds_of_variables(store: FakeStore) -> None:
    def renaming(prefix: str) -> Callable[..., Any]:
        def creator(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
            kwargs["name"] = prefix + kwargs["name"]
            if kwargs["key"] is not None:
                kwargs["key"] = kwargs["name"]
            return next_creator(**kwargs)

        return creator

    with (
        variable_creator_scope(renaming("outer_")),
        variable_scope("a"),
        variable_creator_scope(renaming("inner_")),
    ):
        assert store.variable(1.0, name="v").name == "a/outer_inner_v:0"
        assert store.get_variable("w", [1]).name == "outer_inner_a/w:0"
    assert store.variable(1.0, name="v").name == "v:0"


def test_a_creator_may_return_something_else(store: FakeStore) -> None:
    with variable_creator_scope(lambda next_creator, **kwargs: "replaced"):
        assert create_variable(dict, name="v") == "replaced"
    assert create_variable(dict, name="v") == {"name": "v"}


def test_creators_closed_out_of_order(graph: NameGraph) -> None:
    def creator(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        return next_creator(**kwargs)

    outer, inner = variable_creator_scope(creator), variable_creator_scope(creator)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="Exiting variable_creator_scope without proper nesting"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)


def test_creator_scope_as_decorator_and_its_checks() -> None:
    @variable_creator_scope(lambda next_creator, **kwargs: "made")
    def make() -> Any:
        return create_variable(dict)

    assert make() == "made"
    assert create_variable(dict) == {}
    with pytest.raises(InvalidTypeError, match="variable_creator_scope needs a function"):
        variable_creator_scope(None)  # type: ignore[arg-type]


def test_creators_end_with_their_frame() -> None:
    with variable_creator_scope(lambda next_creator, **kwargs: "made"), NameGraph().as_current():
        assert create_variable(dict) == {}


def test_a_captured_scope_with_a_getter_works_in_a_later_frame() -> None:
    scope = VariableScope(name="a", custom_getter=suffix("_x"))
    with NameGraph().as_current(), variable_scope(scope):
        assert request_variable(record, "v")["name"] == "a/v_x"

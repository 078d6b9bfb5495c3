"""Collections: adding, filtering, live lists, and which ones a variable joins."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.scopes import GraphKeys, NameGraph, VariableScope, get_variable_scope, variable_scope
from jaxvars.scopes.collections import Collections, local_collections, variable_collections


@dataclass(eq=False)
class Item:
    name: str


FOO, FOOBAR, FOO_ = Item("foo/v:0"), Item("foobar/v:0"), Item("foo_/w:0")


@pytest.fixture
def collections() -> Collections:
    collections = Collections()
    for item in (FOO, FOOBAR, FOO_, 3.5, Item("")):
        collections.add("k", item)
    return collections


def test_keys_are_tf1s() -> None:
    assert GraphKeys.GLOBAL_VARIABLES == GraphKeys.VARIABLES == "variables"
    assert GraphKeys.TRAINABLE_VARIABLES == "trainable_variables"
    assert GraphKeys.REGULARIZATION_LOSSES == "regularization_losses"
    assert GraphKeys.MOVING_AVERAGE_VARIABLES == "moving_average_variables"
    assert GraphKeys.UPDATE_OPS == "update_ops"


def test_items_come_in_order_and_may_repeat(collections: Collections) -> None:
    collections.add("k", FOO)
    assert collections.get("k")[0] is FOO
    assert collections.get("k")[-1] is FOO
    assert len(collections.get("k")) == 6


def test_scope_is_a_regular_expression_at_the_beginning(collections: Collections) -> None:
    assert collections.get("k", "foo") == [FOO, FOOBAR, FOO_]
    assert collections.get("k", "foo/") == [FOO]
    assert collections.get("k", ".*/v") == [FOO, FOOBAR]
    assert collections.get("k", "v") == []
    assert len(collections.get("k", "")) == 4  # items without a name are left out


def test_a_bad_expression_is_explained(collections: Collections) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'a\[' .*not a regular expression.*re\.escape"):
        collections.get("k", "a[")


def test_get_copies_and_ref_is_live(collections: Collections) -> None:
    collections.get("k").clear()
    assert len(collections.get("k")) == 5
    collections.get_ref("k").clear()
    assert collections.get("k") == []
    live = collections.get_ref("new")
    collections.add("new", 1)
    assert live == [1]


def test_add_many_adds_once_per_key() -> None:
    collections = Collections()
    collections.add_many(["a", "b", "a"], 1)
    collections.add_many("abc", 2)
    assert {key: collections.get(key) for key in sorted(collections.keys())} == {
        "a": [1],
        "b": [1],
        "abc": [2],
    }


def test_clear(collections: Collections) -> None:
    collections.clear("k")
    collections.clear("never there")
    assert (collections.get("k"), collections.keys()) == ([], [])


def test_snapshot_and_restore(collections: Collections) -> None:
    live = collections.get_ref("live")
    live.append(1)
    moment = collections.snapshot()
    collections.add("k", 1)
    collections.add("new", 1)
    live.clear()
    collections.clear("live")
    for _ in range(2):
        collections.restore(moment)
        assert len(collections.get("k")) == 5
        assert collections.get("new") == []
        assert collections.get_ref("live") is live
        assert live == [1]
        collections.add("k", 1)


@pytest.mark.parametrize(
    ("collections", "trainable", "expected"),
    [
        (None, True, ("variables", "trainable_variables")),
        (None, False, ("variables",)),
        ([], True, ("trainable_variables",)),
        ([], False, ()),
        (["my"], True, ("my", "trainable_variables")),
        (("my", "my"), False, ("my",)),
        (["trainable_variables"], False, ("trainable_variables",)),
        (["trainable_variables", "my"], True, ("trainable_variables", "my")),
        ({"b", "a"}, False, ("a", "b")),
    ],
)
def test_collections_of_a_variable(collections: object, trainable: bool, expected: tuple[str, ...]) -> None:
    assert variable_collections(collections, trainable) == expected


@pytest.mark.parametrize("bad", ["my", 3, {"a": 1}])
def test_collections_must_be_a_list_tuple_or_set(bad: object) -> None:
    text = "collections argument to Variable constructor must be a list, tuple, or set"
    with pytest.raises(InvalidArgumentError, match=text):
        variable_collections(bad, True)
    with pytest.raises(InvalidArgumentError, match=text):
        local_collections(bad)


def test_keys_must_be_strings() -> None:
    with pytest.raises(InvalidTypeError, match="3"):
        variable_collections(["a", 3], True)


def test_local_collections_leave_the_callers_list_alone() -> None:
    mine = ["my"]
    assert local_collections(mine) == ["my", "local_variables"]
    assert local_collections(local_collections(mine)) == ["my", "local_variables"]
    assert mine == ["my"]
    assert local_collections(None) == local_collections(()) == ["local_variables"]


def test_collections_of_a_scope_are_those_below_its_name() -> None:
    graph = NameGraph()
    with graph.as_current():
        for item in (FOO, FOOBAR, FOO_):
            for key in ("variables", "trainable_variables", "local_variables"):
                graph.collections.add(key, item)
        root = get_variable_scope()
        with variable_scope("foo") as foo, variable_scope("bar") as bar:
            pass
        for scope, expected in ((foo, [FOO]), (bar, []), (root, [FOO, FOOBAR, FOO_])):
            assert scope.get_collection("variables") == expected
            assert scope.global_variables() == expected
            assert scope.trainable_variables() == expected
            assert scope.local_variables() == expected
        assert VariableScope(name="f.o").get_collection("variables") == []  # a name, not an expression


def test_collections_of_a_scope_outside_a_frame() -> None:
    scope = VariableScope(name="a")
    with pytest.raises(FailedPreconditionError, match=r"get_collection.*outside of a frame"):
        scope.get_collection("variables")


def test_collections_are_shared_by_threads() -> None:
    graph = NameGraph()

    def work() -> None:
        with graph.as_current():
            graph.collections.add("k", 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert graph.collections.get("k") == [1, 1, 1, 1]

"""What TensorFlow's variable_scope_test.py checks of custom getters and variable creators.

A docstring names the behaviour upstream; docs/upstream-tests.md is the table of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import pytest

import jaxvars as jv

ON_READ = jv.VariableSynchronization.ON_READ


@pytest.fixture(autouse=True)
def store() -> Iterator[jv.VariableStore]:
    """Each test is a fresh graph. Without rng nothing random is drawn."""
    with jv.VariableStore() as store:
        yield store


def get(name: str, shape: Any = (1,), **options: Any) -> Any:
    """A variable of zeros, which costs nothing to make."""
    return jv.get_variable(name, shape, initializer=jv.zeros_initializer(), **options)


# Getters


def test_a_getter_that_is_no_function_is_refused() -> None:
    """Upstream: testNonCallableGetterFails."""
    with jv.variable_scope("scope0", custom_getter=3), pytest.raises(ValueError, match="which is not callable"):
        get("name0")
    with pytest.raises(ValueError, match="custom_getter which is not callable"):
        get("name0", custom_getter=3)


def test_a_getter_that_only_passes_on_changes_nothing(store: jv.VariableStore) -> None:
    """Upstream: testNoSideEffectsWithIdentityCustomGetter."""
    calls: list[str] = []

    def getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return getter(name, *args, **kwargs)

    with jv.variable_scope("scope", custom_getter=getter) as scope:
        v = get("v")
    with jv.variable_scope(scope, reuse=True):
        assert get("v") is v
    with jv.variable_scope("new_scope") as new_scope:
        v2 = get("v2")
    with jv.variable_scope(new_scope, reuse=True, custom_getter=getter):
        assert get("v2") is v2
    assert calls == ["scope/v", "scope/v", "new_scope/v2"]
    assert list(store.variables) == ["new_scope/v2", "scope/v"]


def test_synchronization_and_aggregation_reach_the_getter() -> None:
    """Upstream: testSynchronizationAndAggregationWithCustomGetter."""
    seen: list[Any] = []

    def getter(getter: Any, name: str, **kwargs: Any) -> Any:
        seen.append((kwargs["synchronization"], kwargs["aggregation"]))
        return getter(name, **kwargs)

    wanted = (ON_READ, jv.VariableAggregation.MEAN)
    with jv.variable_scope("scope", custom_getter=getter):
        get("v")
        get("w", synchronization=wanted[0], aggregation=wanted[1])
    assert seen == [(None, None), wanted]


def test_a_getter_sees_the_reuse_in_force_and_may_return_a_tensor() -> None:
    """Upstream: testCustomGetterWithReuse."""

    def getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        v = getter(name, *args, **kwargs)
        return v.value * 1.0 if kwargs["reuse"] else v

    with jv.variable_scope("scope", custom_getter=getter) as scope:
        v = get("v")
    with jv.variable_scope(scope, reuse=True):
        again = get("v")
    assert isinstance(v, jv.Variable) and isinstance(again, jax.Array)
    assert again.tolist() == v.value.tolist()


def test_a_getter_may_make_two_variables_and_return_their_sum(store: jv.VariableStore) -> None:
    """Upstream: testGetterThatCreatesTwoVariablesAndSumsThem."""

    def getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        return getter(name + "/0", *args, **kwargs) + getter(name + "/1", *args, **kwargs)

    with jv.variable_scope("custom", custom_getter=getter):
        total = jv.get_variable("v", [1, 2, 3], initializer=jv.ones_initializer())
    assert list(store.variables) == ["custom/v/0", "custom/v/1"]
    assert total.shape == (1, 2, 3) and float(total.min()) == float(total.max()) == 2.0


def test_three_nested_getters_make_eight_variables(store: jv.VariableStore) -> None:
    """Upstream: testNestedCustomGetters."""

    def doubling(prefix: str) -> Any:
        def getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            first, second = (getter(f"{name}/{prefix}_{i}", *args, **kwargs) for i in range(2))
            return first + second

        return getter

    scopes = [jv.variable_scope(name, custom_getter=doubling(f"sum_{i}")) for i, name in enumerate(("g0", "g1", "g2"))]
    with scopes[0], scopes[1], scopes[2]:
        total = jv.get_variable("v", [1], initializer=jv.ones_initializer())
    assert total.tolist() == [8.0]
    expected = [f"g0/g1/g2/v/sum_2_{a}/sum_1_{b}/sum_0_{c}" for a in "01" for b in "01" for c in "01"]
    assert list(store.variables) == expected


# Creators


def test_creator_scopes_rewrite_names_the_inner_one_first() -> None:
    """Upstream: testVariableCreator."""
    seen: list[str] = []

    def creator(suffix: str) -> Any:
        def create(next_creator: Any, **kwargs: Any) -> Any:
            seen.append(kwargs["name"])
            return next_creator(**(kwargs | {"name": kwargs["name"] + suffix}))

        return create

    with jv.variable_creator_scope(creator("_1")), jv.variable_creator_scope(creator("_2")):
        assert jv.Variable(1.0, name="one_name").name == "one_name_2_1:0"
    assert seen == ["one_name", "one_name_2"]


def test_what_a_creator_gives_has_to_fit() -> None:
    seen: list[Any] = []

    def sevens(next_creator: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["name"])
        return next_creator(**(kwargs | {"initial_value": [7.0, 7.0]}))

    with jv.variable_creator_scope(sevens):
        assert jv.Variable(1.0).shape == (2,)
        assert jv.get_variable("w", [2]).value.tolist() == [7.0, 7.0]
        with pytest.raises(ValueError, match=r"variable w3 was asked for with shape \(3,\), but .* shape \(2,\)"):
            jv.get_variable("w3", [3])
        with pytest.raises(TypeError, match="expected int32"):
            jv.get_variable("whole", [2], "int32")
    assert seen == [None, "w", "w3", "whole"]


def test_a_variable_of_a_creator_joins_collections_again() -> None:
    with jv.variable_creator_scope(lambda next_creator, **kwargs: next_creator(**kwargs)):
        local = jv.get_local_variable("local", [2])
    jv.add_to_collection("local_variables", local)
    assert jv.local_variables() == [local, local]


def test_creator_scopes_closed_out_of_order_are_refused() -> None:
    """Upstream: testVariableCreatorNestingError."""

    def creator(next_creator: Any, **kwargs: Any) -> Any:
        return next_creator(**kwargs)

    outer, inner = jv.variable_creator_scope(creator), jv.variable_creator_scope(creator)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="without proper nesting"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)

"""Whatever is passed to `get_variable`, `jv.Variable` or `variable_scope`: it works, or our error is raised and nothing
has changed: no name, counter, collection, scope or value.
"""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from test_errors_part_b import cut, prepare_all, seen

import jaxvars as jv

ZEROS = jv.zeros_initializer()
TWO = jv.fixed_size_partitioner(2)


def failing(shape: Any, dtype: Any) -> Any:
    raise ZeroDivisionError


def passing(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    return getter(name, *args, **kwargs)


NAMES = ["w", "n", "p", "flag", "plain", "layer", "p/part_0", "x/y", "new", "a b", "", None, 3]
VALUES: list[Any] = [None, ZEROS, 1.0, [1.0, 2.0], 3, True, np.ones(2), {}, "x", failing, jv.orthogonal_initializer()]
VALUES += [jv.constant_initializer([1, 2, 3]), jv.random_normal_initializer(), lambda: 1.0, lambda: None, lambda x: x]
DTYPES = [None, "float32", "int32", "bool", "complex64", "string", "x", 3]
COLLECTIONS: list[Any] = [None, [], ["a"], ["a", "a"], "a", 3, [3], [None]]
CONSTRAINTS = [None, abs, 3]

GET = {
    "shape": [None, [2], [4], (), 3, [2, 2], np.array([2]), [None, 2], [-1], "a", {}],
    "dtype": DTYPES,
    "initializer": VALUES,
    "regularizer": [None, jv.regularizers.l2_regularizer(0.1), failing, 3],
    "trainable": [None, True, False, "x"],
    "collections": COLLECTIONS,
    "partitioner": [None, TWO, cut([2]), cut([0]), cut("x"), cut([[1]]), 7],
    "custom_getter": [None, passing, 3],
    "constraint": CONSTRAINTS,
    "synchronization": [None, jv.VariableSynchronization.ON_READ, "x"],
}
MAKE = {"initial_value": VALUES, "name": NAMES, "dtype": DTYPES, "collections": COLLECTIONS, "constraint": CONSTRAINTS}
SCOPE = {
    "reuse": [None, True, False, jv.AUTO_REUSE, "x"],
    "initializer": [None, 1.0, ZEROS],
    "dtype": [None, "int32", "x"],
    "partitioner": [None, TWO, 3],
    "custom_getter": [None, passing, 3],
    "auxiliary_name_scope": [True, False, None],
}


def some(options: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in options.items()})


def get(function: Any, name: Any, options: dict[str, Any]) -> Any:
    return lambda: function(name, **options)


def make(options: dict[str, Any]) -> Any:
    return lambda: jv.Variable(**options)


def enter(name: Any, default: Any, options: dict[str, Any]) -> Any:
    def call() -> None:
        with jv.variable_scope(name, default, **options):
            pass

    return call


names = st.sampled_from(NAMES)
calls = (
    st.builds(get, st.sampled_from([jv.get_variable, jv.get_local_variable]), names, some(GET))
    | st.builds(make, some(MAKE))
    | st.builds(enter, names, names, some(SCOPE))
)
scopes = st.sampled_from(
    [{}, {"reuse": True}, {"reuse": jv.AUTO_REUSE}, {"initializer": 1.0}, {"partitioner": TWO}, {"custom_getter": 3}]
)


def check(call: Any, scope: dict[str, Any]) -> None:
    with jv.variable_scope("outer", **scope):
        before = seen()
        try:
            call()
        except (jv.JaxvarsError, ZeroDivisionError):
            assert seen() == before


def in_a_store(call: Any, scope: dict[str, Any]) -> None:
    with jv.VariableStore():
        prepare_all()
        check(call, scope)


def in_a_second_block(call: Any, scope: dict[str, Any]) -> None:
    store = jv.VariableStore()
    with store:
        prepare_all()
    with store:
        check(call, scope)


def in_specs(call: Any, scope: dict[str, Any]) -> None:
    def net() -> None:
        prepare_all()
        check(call, scope)

    jv.transform(net).specs()


WHERE = [in_a_store, in_a_second_block, in_specs]


@hypothesis.settings(max_examples=100)
@hypothesis.given(st.sampled_from(WHERE), calls, scopes)
def test_any_call_works_or_changes_nothing(where: Any, call: Any, scope: dict[str, Any]) -> None:
    where(call, scope)


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
def test_many_calls_work_or_change_nothing(where: Any) -> None:
    hypothesis.settings(max_examples=2000)(hypothesis.given(calls, scopes)(where))()

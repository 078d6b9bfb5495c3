"""What TensorFlow's variable_scope_test.py checks of `get_variable`: inherited defaults, initial values, collections.

A docstring names the behaviour upstream; docs/upstream-tests.md is the table of all.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError

ON_READ = jv.VariableSynchronization.ON_READ
ZEROS = jv.zeros_initializer()


@pytest.fixture(autouse=True)
def store() -> Iterator[jv.VariableStore]:
    """Each test is a fresh graph. Without rng nothing random is drawn."""
    with jv.VariableStore() as store:
        yield store


def get(name: str, shape: Any = (1,), **options: Any) -> Any:
    """A variable of zeros, which costs nothing to make."""
    return jv.get_variable(name, shape, initializer=ZEROS, **options)


def names(handles: list[Any]) -> list[str]:
    return [handle.key for handle in handles]


# Inherited defaults


def test_a_scopes_initializer_is_inherited_and_kept() -> None:
    """Upstream: testVarScopeInitializer."""
    with jv.variable_scope("tower", initializer=jv.constant_initializer(0.3)) as tower:
        with jv.variable_scope("foo", initializer=jv.constant_initializer(0.5)):
            assert float(jv.get_variable("v", []).value) == 0.5
        assert float(jv.get_variable("w", []).value) == pytest.approx(0.3)
        with jv.variable_scope("inner"):
            assert float(jv.get_variable("w", []).value) == pytest.approx(0.3)
    with jv.variable_scope(tower):
        assert float(jv.get_variable("w2", []).value) == pytest.approx(0.3)
    with jv.variable_scope(tower, initializer=jv.constant_initializer(4.0)):
        assert float(jv.get_variable("w3", []).value) == 4.0


def test_a_scopes_constraint_is_its_own_and_may_come_with_reentry() -> None:
    """Upstream: testVarScopeConstraint."""

    def first(x: Any) -> Any:
        return 0.5 * x

    def second(x: Any) -> Any:
        return 2.0 * x

    def constraint(name: str) -> Any:
        return jv.get_variable(name, [], initializer=ZEROS)._slot.constraint

    with jv.variable_scope("tower", constraint=first) as tower:
        assert constraint("v") is first
        with jv.variable_scope("foo", constraint=second):
            assert constraint("w") is second
    with jv.variable_scope(tower):
        assert constraint("plain") is None
    with jv.variable_scope(tower, constraint=second):
        assert constraint("again") is second


def test_a_scopes_dtype_is_inherited_and_kept() -> None:
    """Upstream: testVarScopeDType."""
    with jv.variable_scope("tower") as tower, jv.variable_scope("foo", dtype=jnp.float16):
        assert get("v").dtype == np.float16
        with jv.variable_scope("inner"):
            assert get("v").dtype == np.float16
    with jv.variable_scope(tower, dtype=jnp.float16) as again:
        assert get("w").dtype == np.float16
    with jv.variable_scope(again):
        assert get("x").dtype == np.float16


def test_a_scopes_regularizer_is_inherited_replaced_and_disabled() -> None:
    """Upstream: testVarScopeRegularizer."""

    def regularizer(scale: float) -> Any:
        return lambda v: scale * v

    def losses() -> list[float]:
        return [float(loss) for loss in jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES)]

    def one(name: str, **options: Any) -> Any:
        return jv.get_variable(name, [], initializer=jv.ones_initializer(), **options)

    with jv.variable_scope("tower", regularizer=regularizer(3.0)) as tower:
        with jv.variable_scope("foo", regularizer=regularizer(4.0)):
            one("u")
        assert losses() == [4.0]
        one("w")
        assert losses() == [4.0, 3.0]
        with jv.variable_scope("tower") as inner:
            inner.set_regularizer(regularizer(5.0))
            one("v")
            assert losses() == [4.0, 3.0, 5.0]
            one("none", regularizer=jv.no_regularizer)
            assert losses() == [4.0, 3.0, 5.0]
    with jv.variable_scope("empty", regularizer=jv.no_regularizer):
        one("x")
    with jv.variable_scope(tower, reuse=True):
        one("w")
        with jv.variable_scope("foo", regularizer=regularizer(9.0)):
            one("u")
    assert losses() == [4.0, 3.0, 5.0]


def test_a_scopes_caching_device_is_inherited_cleared_or_a_function() -> None:
    """Upstream: testVarScopeCachingDevice."""

    def asked(name: str) -> Any:
        seen: list[Any] = []

        def getter(getter: Any, name: str, caching_device: Any = None, **kwargs: Any) -> Any:
            seen.append(caching_device)
            return getter(name, caching_device=caching_device, **kwargs)

        get(name, custom_getter=getter)
        return seen[0]

    def function(op: Any) -> str:
        return op.device

    with jv.variable_scope("scope"):
        jv.get_variable_scope().set_caching_device("/job:moo")
        assert asked("v") == "/job:moo"
        with jv.variable_scope("child"):
            assert jv.get_variable_scope().caching_device == "/job:moo"
            assert asked("v") == "/job:moo"
            jv.get_variable_scope().set_caching_device(None)
            assert asked("uncached") is None
            jv.get_variable_scope().set_caching_device(function)
            assert asked("by_function") is function


# Initial values


def test_a_string_dtype_is_refused_clearly() -> None:
    """Upstream: testStringDefaultInitializer."""
    with pytest.raises(TypeError, match="JAX has no string or object arrays"):
        jv.get_variable("string", [], dtype="string")


def test_numbers_and_arrays_initialize_and_a_dict_does_not() -> None:
    """Upstream: testInitFromNonTensorValue."""
    v = jv.get_variable("v4", dtype="int32", initializer=4)
    assert int(v.value) == 4
    w = jv.get_variable("w4", dtype="int32", initializer=np.array([1, 2, 3], np.int32))
    assert w.value.tolist() == [1, 2, 3]
    with pytest.raises(TypeError, match="x4"):
        jv.get_variable("x4", initializer={})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "bool"])
def test_integers_and_bools_default_to_zeros(dtype: str) -> None:
    """Upstream: testInitFromNonInitializer."""
    value = np.asarray(jv.get_variable("x", [2], dtype))
    assert value.dtype == dtype and value.tolist() == [0, 0]


def test_a_tensor_initializes_and_settles_shape_and_dtype() -> None:
    """Upstream: testInitializeFromValue."""
    init = jnp.float32(0.1)
    assert float(jv.get_variable("v", initializer=init).value) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="If initializer is a constant, do not specify shape"):
        jv.get_variable("u", [1], initializer=init)
    with jv.variable_scope("foo", initializer=init):
        assert float(jv.get_variable("v").value) == pytest.approx(0.1)
    assert jv.get_variable("x", initializer=jnp.int32(1)).dtype == np.int32
    with pytest.raises(ValueError, match=r"[Dd]on't match|dtype"):
        jv.get_variable("y", initializer=init, dtype="int32")


def test_an_initializer_without_arguments_needs_no_shape() -> None:
    """Upstream: testGetVariableWithInitializerWhichTakesNoArgs."""
    v = jv.get_variable("foo", initializer=lambda: [2])
    assert v.name == "foo:0" and v.value.tolist() == [2]


def test_an_initializer_with_optional_arguments_needs_no_shape() -> None:
    """Upstream: testGetVariableWithInitializerWhichTakesOptionalArgs."""
    assert jv.get_variable("foo", initializer=lambda a=True: [2 if a else 3]).value.tolist() == [2]


def test_an_initializer_with_required_arguments_needs_a_shape() -> None:
    """Upstream: testGetVariableWithInitializerWhichTakesUnprovidedArgsAndNoShape."""
    with pytest.raises(ValueError, match="The initializer passed is not valid"):
        jv.get_variable("foo", initializer=lambda x: [2])


def test_the_dtype_of_another_variable_is_accepted() -> None:
    """Upstream: testGetVariableWithRefDtype."""
    v = jv.get_variable("v", [3, 4], "float16", initializer=ZEROS)
    assert jv.get_variable("u", [3, 4], v.dtype, initializer=ZEROS).dtype == np.float16
    assert jv.get_variable("t", [3, 4], "float16_ref", initializer=ZEROS).dtype == np.float16


def test_a_variable_can_be_initialized_alone_and_others_stay_unreadable() -> None:
    """Upstream: testControlDeps."""
    v0 = jv.get_variable("v0", [1], initializer=jv.random_normal_initializer())
    v1 = jv.get_variable("v1", [1], initializer=ZEROS)
    with pytest.raises(FailedPreconditionError, match="uninitialized value v0"):
        _ = v0 + 1
    assert v1.value.tolist() == [0]
    specs = jv.transform(lambda: [get("v0").shape, get("v1").shape]).specs()
    only = jv.variables_initializer(specs, 0, ["v1"])
    assert jv.report_uninitialized_variables(only) == ["v0"]
    with pytest.raises(FailedPreconditionError, match="v0"):
        jv.assign_add(only, "v0", [1.0])


def test_variables_of_the_branches_of_a_cond_are_initialized_outside() -> None:
    """Upstream: testControlFlow."""
    made: list[str] = []

    def branch(name: str) -> Any:
        def run() -> Any:
            v = jv.get_variable(name, [], initializer=jv.constant_initializer(float(name[-1])))
            made.append(v.name)
            return v + 0.0

        return run

    def net(flag: Any) -> Any:
        jv.get_variable("v0", [], initializer=ZEROS)
        return jax.lax.cond(flag, branch("var1"), branch("var2"))

    specs = jv.transform(net).specs(True)
    variables = jv.variables_initializer(specs, 0)
    assert {key: float(value) for key, value in variables.items()} == {"v0": 0.0, "var1": 1.0, "var2": 2.0}
    assert set(made) == {"var1:0", "var2:0"}


# Local variables, collections, trainable


def test_local_variables_join_their_collection_and_share() -> None:
    """Upstream: testGetLocalVar."""
    with jv.variable_scope("outer") as outer:
        with jv.variable_scope(outer, "default"):
            local = jv.get_local_variable("w", [], initializer=ZEROS, collections=["foo"])
        assert local.name == "outer/w:0"
        assert jv.get_collection("foo") == jv.get_collection(jv.GraphKeys.LOCAL_VARIABLES) == [local]
        assert jv.global_variables() == jv.trainable_variables() == []
    with jv.variable_scope(outer, reuse=True):
        assert jv.get_local_variable("w", []) is local


def test_both_functions_take_the_same_arguments() -> None:
    """Upstream: testSignatureGetVarVsGetLocalVar."""
    ours, local = (inspect.signature(f).parameters for f in (jv.get_variable, jv.get_local_variable))
    assert list(ours) == list(local)
    assert [p.default for p in ours.values()] == [p.default for p in local.values()]


def test_a_scopes_collection_is_what_lies_below_its_name() -> None:
    """Upstream: testGetCollection."""
    get("a", [])
    get("b", [], trainable=False)
    with jv.variable_scope("foo_") as other:
        get("a", [])
        get("b", [], trainable=False)
        assert names(other.get_collection(jv.GraphKeys.TRAINABLE_VARIABLES)) == ["foo_/a"]
        assert names(other.get_collection(jv.GraphKeys.GLOBAL_VARIABLES)) == ["foo_/a", "foo_/b"]
    with jv.variable_scope("foo") as foo:
        get("a", [])
        get("b", [], trainable=False)
        assert names(foo.get_collection(jv.GraphKeys.TRAINABLE_VARIABLES)) == ["foo/a"]
        assert names(foo.get_collection(jv.GraphKeys.GLOBAL_VARIABLES)) == ["foo/a", "foo/b"]
    root = jv.get_variable_scope()
    assert names(root.get_collection(jv.GraphKeys.TRAINABLE_VARIABLES)) == ["a", "foo_/a", "foo/a"]
    assert names(root.global_variables()) == ["a", "b", "foo_/a", "foo_/b", "foo/a", "foo/b"]


@pytest.mark.parametrize(
    "make",
    [
        lambda name, **options: jv.get_variable(name, [], initializer=ZEROS, **options),
        lambda name, **options: jv.Variable(1.0, name=name, **options),
    ],
    ids=["get_variable", "Variable"],
)
def test_trainable_variables_of_a_scope(make: Any) -> None:
    """Upstream: testGetTrainableVariablesWithGetVariable, testGetTrainableVariablesWithVariable."""
    make("a")
    with jv.variable_scope("foo") as foo:
        make("b")
        make("c", trainable=False)
        make("d", synchronization=ON_READ)
        make("e", trainable=True, synchronization=ON_READ)
        assert names(foo.trainable_variables()) == ["foo/b", "foo/e"]


def test_global_variables_of_a_scope() -> None:
    """Upstream: testGetGlobalVariables."""
    get("a", [])
    with jv.variable_scope("foo") as scope:
        get("b", [])
        assert names(scope.global_variables()) == ["foo/b"]


def test_local_variables_of_a_scope() -> None:
    """Upstream: testGetLocalVariables."""
    local = [jv.GraphKeys.LOCAL_VARIABLES]
    get("a", [], collections=local)
    with jv.variable_scope("foo") as scope:
        get("b", [], collections=local)
        assert names(scope.local_variables()) == ["foo/b"]
        assert names(jv.local_variables()) == ["a", "foo/b"]


def test_a_store_holds_its_variables_and_a_copy_is_independent(store: jv.VariableStore) -> None:
    """Upstream: testEagerVariableStore."""
    get("v")
    get("w", trainable=False)
    assert list(store.variables) == ["v", "w"]
    assert (list(store.variables.trainable), list(store.variables.non_trainable)) == (["v"], ["w"])
    before = copy.deepcopy(store.variables)
    jv.get_collection("variables")[0].assign([5.0])
    assert (store.variables["v"].tolist(), before["v"].tolist()) == ([5.0], [0.0])


def test_custom_collections_still_join_the_trainable_ones() -> None:
    """Upstream: testEagerVariablesStoreAddsToCollections."""
    trainable = get("v1", [], collections=["a"])
    get("v2", [], trainable=False, collections=["a", "b"])
    assert names(jv.get_collection("a")) == ["v1", "v2"]
    assert names(jv.get_collection("b")) == ["v2"]
    assert jv.get_collection(jv.GraphKeys.TRAINABLE_VARIABLES) == [trainable]
    assert jv.global_variables() == []


def test_a_device_function_sees_each_variable() -> None:
    """Upstream: testGetVarWithDevice."""
    seen: list[Any] = []

    def function(op: Any) -> str:
        seen.append((op.name, op.dtype))
        return "/device:CPU:0"

    with jv.device(function):
        x = get("x", [100, 200])
        y = get("y", [2], dtype="int32")
    assert seen == [("x", np.dtype("float32")), ("y", np.dtype("int32"))]
    assert x.device == y.device == "/device:CPU:0"

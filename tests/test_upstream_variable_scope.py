"""What TensorFlow's variable_scope_test.py checks of scopes: reuse flags, names and nesting, threads.

A docstring names the behaviour upstream; docs/upstream-tests.md is the table of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import jaxvars as jv


@pytest.fixture(autouse=True)
def store() -> Iterator[jv.VariableStore]:
    """Each test is a fresh graph. Without rng nothing random is drawn."""
    with jv.VariableStore() as store:
        yield store


def get(name: str, shape: Any = (1,), **options: Any) -> Any:
    """A variable of zeros, which costs nothing to make."""
    return jv.get_variable(name, shape, initializer=jv.zeros_initializer(), **options)


def names(handles: list[Any]) -> list[str]:
    return [handle.key for handle in handles]


def op_scope() -> str:
    """Where an op made here would stand: upstream makes a constant and looks at its name."""
    return jv.get_current_name_scope()


def at_store(reuse: Any) -> Any:
    """A custom getter that asks the store itself, with this reuse flag."""
    return lambda getter, name, **kwargs: getter(name, **(kwargs | {"reuse": reuse}))


# Store and reuse flags


def test_the_store_returns_the_same_object_without_a_reuse_flag() -> None:
    """Upstream: testGetVar."""
    assert get("v", custom_getter=at_store(None)) is get("v", custom_getter=at_store(None))
    forgetful = lambda getter, name, shape, **rest: getter(name, shape=shape)  # noqa: E731
    assert get("w", custom_getter=forgetful) is get("w", custom_getter=forgetful)


def test_store_level_reuse_checks_that_the_name_exists() -> None:
    """Upstream: testNameExists."""
    v = get("v", custom_getter=at_store(False))
    with pytest.raises(ValueError, match="already exists"):
        get("v", custom_getter=at_store(False))
    assert get("v", custom_getter=at_store(True)) is v
    with pytest.raises(ValueError, match="does not exist"):
        get("u", custom_getter=at_store(True))


def test_the_store_holds_exactly_the_names_asked_for(store: jv.VariableStore) -> None:
    """Upstream: testNamelessStore."""
    get("v1", [2])
    get("v2", [2])
    assert list(store.variables) == ["v1", "v2"]


def test_get_variable_below_a_scope_creates_reuses_and_refuses() -> None:
    """Upstream: testVarScopeGetVar."""
    with jv.variable_scope("root"):
        with jv.variable_scope("towerA") as tower_a:
            va = get("v")
            assert va.name == "root/towerA/v:0"
        with jv.variable_scope(tower_a, reuse=True):
            assert get("v") is va
        with jv.variable_scope("towerB"):
            assert get("v").name == "root/towerB/v:0"
        with pytest.raises(ValueError, match="root/towerA/v already exists"), jv.variable_scope("towerA"):
            get("v")
        with jv.variable_scope("towerA", reuse=True):
            assert get("v") is va
        with jv.variable_scope("foo"), jv.variable_scope("bar"):
            v = get("v")
            assert v.name == "root/foo/bar/v:0"
            with jv.variable_scope(tower_a, reuse=True):
                assert get("v") is va
            with jv.variable_scope(jv.get_variable_scope(), reuse=True):
                assert get("v") is v
                with pytest.raises(ValueError, match="root/foo/bar/v2 does not exist"):
                    get("v2")
        with jv.variable_scope("foo/bar", reuse=True):
            assert get("v") is v
        with jv.variable_scope(tower_a, reuse=True):
            with pytest.raises(ValueError, match=r"shape \(2,\) and found shape \(1,\)"):
                get("v", [2])
            with pytest.raises(ValueError, match="dtype int32 and found dtype float32"):
                get("v", dtype="int32")


def test_a_captured_scope_keeps_its_reuse() -> None:
    """Upstream: testVarScopeObjectReuse."""
    with jv.variable_scope("jump", reuse=True) as reusing:
        pass
    with jv.variable_scope("plain") as plain:
        pass
    for given in (None, False, True):
        with jv.variable_scope(reusing, reuse=given) as again, jv.variable_scope("inner") as inner:
            assert again.reuse is inner.reuse is True
    with jv.variable_scope(plain) as again:
        assert not again.reuse
    with jv.variable_scope(plain, reuse=True) as again:
        assert again.reuse
    with jv.variable_scope("outer", reuse=True), jv.variable_scope(plain) as again:
        assert not again.reuse


def test_auto_reuse_creates_first_and_then_shares(store: jv.VariableStore) -> None:
    """Upstream: testVarScopeGetOrCreateReuse."""

    def visit(value: float) -> Any:
        with jv.variable_scope("s", reuse=jv.AUTO_REUSE):
            v = get("var", [])
            v.assign(value)
            return v

    first = visit(3.0)
    assert visit(5.0) is first
    assert float(store.variables["s/var"]) == 5.0
    with jv.variable_scope("s2", reuse=jv.AUTO_REUSE) as scope, jv.variable_scope("deep") as deep:
        assert scope.reuse is deep.reuse is jv.AUTO_REUSE


def test_the_current_scope_can_be_changed_until_it_ends() -> None:
    """Upstream: testGetVariableScope."""
    with jv.variable_scope("a"):
        scope = jv.get_variable_scope()
        scope.set_initializer(jv.constant_initializer(0.3))
        assert scope.initializer is not None
        assert float(jv.get_variable("w", []).value) == pytest.approx(0.3)
        scope.reuse_variables()
        assert scope.reuse
        assert jv.get_variable("w", []).name == "a/w:0"
    assert jv.get_variable_scope().initializer is None
    assert not jv.get_variable_scope().reuse
    with pytest.raises(ValueError, match="already exists"), jv.variable_scope("a"):
        get("w", [])


def test_reuse_of_a_captured_outer_scope_reaches_its_children() -> None:
    """Upstream: testVarOpScopeReuse."""

    def build() -> list[Any]:
        with jv.variable_scope("tower", "default"):
            found = [get("w", [])]
        for _ in range(2):
            with jv.variable_scope(None, "default"):
                found.append(get("w", []))
        return found

    with jv.variable_scope("outer") as outer:
        first = build()
    assert names(first) == ["outer/tower/w", "outer/default/w", "outer/default_1/w"]
    with jv.variable_scope(outer, reuse=True):
        assert op_scope() == "outer_1"
        assert [a is b for a, b in zip(build(), first, strict=True)] == [True] * 3


def test_reuse_as_a_childs_argument_or_by_reuse_variables() -> None:
    """Upstream: testVarOpScopeReuseParam."""
    with jv.variable_scope("outer") as outer:
        with jv.variable_scope("tower", "default"):
            w = get("w", [])
        with jv.variable_scope(None, "default"):
            d = get("w", [])
    with jv.variable_scope(outer) as again:
        with jv.variable_scope("tower", "default", reuse=True):
            assert get("w", []) is w
        again.reuse_variables()
        with jv.variable_scope(None, "default"):
            assert get("w", []) is d


def test_reuse_needs_a_name_or_scope() -> None:
    """Upstream: testVarOpScopeReuseError."""
    with pytest.raises(ValueError, match="reuse=True cannot be used without a name_or_scope"):
        jv.variable_scope(None, "default", reuse=True).__enter__()


# Naming and nesting


def test_a_scope_is_named_by_its_path() -> None:
    """Upstream: testVarScope."""
    with jv.variable_scope("tower4") as tower:
        assert (tower.name, op_scope()) == ("tower4", "tower4")
    with jv.variable_scope("tower5"), jv.variable_scope("bar") as bar:
        assert (bar.name, op_scope()) == ("tower5/bar", "tower5/bar")
    with jv.variable_scope("tower6"), jv.variable_scope(tower) as shared:
        assert (shared.name, op_scope()) == ("tower4", "tower6/tower4")
        assert get("v").name == "tower4/v:0"


def test_each_entry_opens_another_name_scope_and_the_root_opens_none() -> None:
    """Upstream: testVarScopeNameScope."""
    with jv.name_scope("scope1"), jv.variable_scope("tower") as tower, jv.name_scope("scope2") as inner:
        assert inner == "scope1/tower/scope2/"
    with jv.variable_scope(tower):
        assert op_scope() == "tower"
    with jv.variable_scope("tower"):
        assert op_scope() == "tower_1"
    with jv.variable_scope(tower):
        assert op_scope() == "tower_2"
    root = jv.get_variable_scope()
    with jv.name_scope("here"), jv.variable_scope(root):
        assert op_scope() == "here"


def test_the_original_name_scope_survives_reentry() -> None:
    """Upstream: testVarScopeOriginalNameScope."""
    with jv.name_scope("scope1"), jv.variable_scope("tower") as tower:
        assert tower.original_name_scope == "scope1/tower/"
    with jv.name_scope("scope2"), jv.variable_scope(tower) as again:
        assert again.original_name_scope == "scope1/tower/"
        assert op_scope() == "scope2/tower"
        with jv.name_scope(again.original_name_scope) as entered:
            assert entered == "scope1/tower/"


def test_a_name_ignores_the_default_and_the_default_is_numbered() -> None:
    """Upstream: testVarOpScope."""
    with jv.variable_scope("tower", "default"):
        assert get("w").name == "tower/w:0"
    with jv.variable_scope("tower", "default"):
        with pytest.raises(ValueError, match="tower/w already exists"):
            get("w")
        assert op_scope() == "tower_1"
    for expected in ("default", "default_1"):
        with jv.variable_scope(None, "default"):
            assert get("w").name == f"{expected}/w:0"
            assert op_scope() == expected


def test_default_names_that_are_prefixes_of_each_other_count_apart() -> None:
    """Upstream: testVarOpScopeUniqueNamesInterleavedSubstringScopes."""
    made = []
    for default in ("defaultScope1", "defaultScope1", "defaultScope", "defaultScope1"):
        with jv.variable_scope(None, default):
            for _ in range(2):
                with jv.variable_scope(None, "layer"):
                    made.append(get("w", []).key)
    outer = ("defaultScope1", "defaultScope1_1", "defaultScope", "defaultScope1_2")
    assert made == [f"{scope}/{layer}/w" for scope in outer for layer in ("layer", "layer_1")]


def test_numbering_goes_on_after_a_jump_into_a_captured_scope() -> None:
    """Upstream: testVarOpScopeUniqueNamesWithJump."""

    def layers(count: int) -> list[str]:
        made = []
        for _ in range(count):
            with jv.variable_scope(None, "layer"):
                made.append(get("w", []).key)
        return made

    with jv.variable_scope("default"):
        with jv.variable_scope("elsewhere") as elsewhere:
            pass
        assert layers(2) == ["default/layer/w", "default/layer_1/w"]
        with jv.variable_scope(elsewhere):
            assert layers(1) == ["default/elsewhere/layer/w"]
        assert layers(1) == ["default/layer_2/w"]


@pytest.mark.parametrize("default", [(), ("default",)])
def test_a_captured_outer_scope_entered_again(default: tuple[str, ...]) -> None:
    """Upstream: testVarScopeOuterScope, testVarOpScopeOuterScope."""
    with jv.variable_scope("outer") as outer:
        pass
    for number, reuse in ((1, None), (2, True)):
        with jv.variable_scope(outer, *default, reuse=reuse):
            assert get("w").name == "outer/w:0"
            assert op_scope() == f"outer_{number}"
            with jv.variable_scope("default"):
                assert get("w").name == "outer/default/w:0"
                assert op_scope() == f"outer_{number}/default"


@pytest.mark.parametrize("default", [(), ("default",)])
def test_a_captured_scope_entered_inside_itself(default: tuple[str, ...]) -> None:
    """Upstream: testVarScopeNestedOuterScope, testVarOpScopeNestedOuterScope."""
    for reuse, op_name in ((None, "outer"), (True, "outer_1")):
        with jv.variable_scope("outer", reuse=reuse) as outer, jv.variable_scope(outer, *default):
            assert get("w").name == "outer/w:0"
            assert op_scope() == f"{op_name}/outer"
            with jv.variable_scope("default"):
                assert get("w").name == "outer/default/w:0"
                assert op_scope() == f"{op_name}/outer/default"


def test_scopes_closed_out_of_order_are_refused() -> None:
    """Upstream: testVarScopeNestingError."""
    with jv.variable_scope("aa"):
        scope = jv.variable_scope("bb")
        scope.__enter__()
        with jv.variable_scope("cc"):
            with pytest.raises(RuntimeError, match="Improper nesting of variable_scope"):
                scope.__exit__(None, None, None)
            assert jv.get_variable_scope().name == "aa/bb/cc"
        scope.__exit__(None, None, None)
        assert jv.get_variable_scope().name == "aa"


@pytest.mark.parametrize("arguments", [("scope",), (None, "scope")])
def test_without_auxiliary_name_scope_ops_stay_where_they_were(arguments: tuple[Any, ...]) -> None:
    """Upstream: testBasicWhenAuxiliaryNameScopeIsFalse, testCreatedByDefaultNameWhenAuxiliaryNameScopeIsFalse."""
    with jv.variable_scope(*arguments, auxiliary_name_scope=False) as scope:
        assert (scope.name, scope.original_name_scope, op_scope()) == ("scope", "", "")
        assert get("w").name == "scope/w:0"
    with jv.variable_scope(scope, auxiliary_name_scope=False):
        assert (op_scope(), get("w1").name) == ("", "scope/w1:0")
    with jv.variable_scope("outer"), jv.variable_scope(*arguments, auxiliary_name_scope=False) as inner:
        assert (inner.name, inner.original_name_scope, op_scope()) == ("outer/scope", "outer/", "outer")
        assert get("w").name == "outer/scope/w:0"
        with jv.name_scope("op") as op:
            assert op == "outer/op/"


def test_reentering_the_root_resets_the_prefix_and_keeps_the_op_scope() -> None:
    """Upstream: testReenterRootScopeWhenAuxiliaryNameScopeIsFalse."""
    root = jv.get_variable_scope()
    with jv.variable_scope(root, auxiliary_name_scope=False) as scope:
        assert (scope.original_name_scope, op_scope(), get("w").name) == ("", "", "w:0")
    with jv.variable_scope("outer"), jv.variable_scope(root, auxiliary_name_scope=False) as inner:
        assert (inner.original_name_scope, op_scope(), get("w1").name) == ("", "outer", "w1:0")


@pytest.mark.parametrize("form", ["string", "default", "scope"])
def test_auxiliary_name_scope_must_be_a_bool(form: str) -> None:
    """Upstream: testAuxiliaryNameScopeIsInvalid."""
    targets: dict[str, Any] = {"string": ("scope",), "default": (None, "scope"), "scope": (jv.get_variable_scope(),)}
    with pytest.raises(TypeError, match="auxiliary_name_scope"):
        jv.variable_scope(*targets[form], auxiliary_name_scope="invalid").__enter__()


def test_both_scopes_are_entered_again_without_a_suffix() -> None:
    """Upstream: testReuseScopeWithoutNameScopeCollision."""
    with jv.variable_scope("outer"), jv.variable_scope("inner") as inner:
        pass
    with jv.variable_scope(inner, auxiliary_name_scope=False) as scope, jv.name_scope(scope.original_name_scope):
        assert (scope.name, op_scope()) == ("outer/inner", "outer/inner")
        assert get("w").name == "outer/inner/w:0"
    again = jv.variable_scope(inner, auxiliary_name_scope=False)
    with jv.variable_scope("another"), again as scope, jv.name_scope(scope.original_name_scope):
        assert (op_scope(), get("w1").name) == ("outer/inner", "outer/inner/w1:0")


def test_an_illegal_scope_name_is_in_the_error() -> None:
    """Upstream: testTwoGraphs."""
    with pytest.raises(ValueError, match="'_' is not a valid root scope name"), jv.variable_scope("_"):
        pass

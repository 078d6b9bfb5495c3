"""`variable_scope`: its three forms, the order of its checks, inheritance, and the table of reuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.scopes import (
    AUTO_REUSE,
    NameGraph,
    VariableScope,
    get_current_name_scope,
    get_variable_scope,
    name_scope,
    variable_op_scope,
    variable_scope,
)


@pytest.fixture(autouse=True)
def graph() -> Iterator[NameGraph]:
    graph = NameGraph()
    with graph.as_current():
        yield graph


def state() -> tuple[Any, ...]:
    scope = get_variable_scope()
    return scope.name, scope.reuse, scope.original_name_scope, get_current_name_scope()


ROOT = ("", False, "", "")


# The three forms


def test_string_joins_names_and_is_not_made_unique() -> None:
    for name_scope_name in ("tower/conv", "tower_1/conv"):
        with variable_scope("tower") as outer, variable_scope("conv") as scope:
            assert scope.name == "tower/conv"
            assert scope.prefix == "tower/conv/"
            assert get_variable_scope() is scope
            assert get_current_name_scope() == name_scope_name
        assert outer.name == "tower"
    assert state() == ROOT


def test_default_name_is_ignored_when_a_name_is_given() -> None:
    with variable_scope("named", "default") as scope:
        assert scope.name == "named"
    with variable_scope(scope, "default") as again:
        assert again.name == "named"


def test_captured_scope_is_absolute() -> None:
    with variable_scope("a"), variable_scope("b", dtype="bfloat16") as captured:
        pass
    with variable_scope("other", dtype="int32", reuse=True), variable_scope(captured) as scope:
        assert scope is not captured
        assert (scope.name, scope.dtype, scope.reuse) == ("a/b", "bfloat16", False)
        assert scope.original_name_scope == "a/b/"
        assert get_current_name_scope() == "other/b"


def test_captured_scope_is_read_when_entered() -> None:
    with variable_scope("a") as captured:
        pass
    later = variable_scope(captured)
    captured.set_dtype("int32")
    captured.reuse_variables()
    with later as scope:
        assert (scope.dtype, scope.reuse) == ("int32", True)


def test_changing_a_reentered_scope_leaves_the_captured_one() -> None:
    with variable_scope("a") as captured:
        pass
    with variable_scope(captured) as scope:
        scope.reuse_variables()
        scope.set_initializer("mine")
    assert (captured.reuse, captured.initializer) == (False, None)


def test_captured_scope_reentered_inside_itself_keeps_its_name() -> None:
    with variable_scope("outer") as outer, variable_scope(outer) as inner:
        assert (inner.name, get_current_name_scope()) == ("outer", "outer/outer")


def test_captured_root_resets_the_prefix_and_opens_no_name_scope() -> None:
    root = get_variable_scope()
    with variable_scope("a"), variable_scope(root) as scope:
        assert (scope.name, scope.prefix, scope.original_name_scope) == ("", "", "")
        assert get_current_name_scope() == "a"


def test_empty_string_at_the_root_changes_defaults_only() -> None:
    with variable_scope("", reuse=AUTO_REUSE) as scope:
        assert (scope.name, scope.prefix, scope.reuse) == ("", "", AUTO_REUSE)
        assert state() == ("", AUTO_REUSE, "", "")


def test_empty_string_inside_a_scope_is_as_in_tf1() -> None:
    with variable_scope("foo"), variable_scope("") as scope:
        assert (scope.name, scope.prefix, scope.original_name_scope) == ("foo/", "foo//", "")
        assert get_current_name_scope() == "foo"


def test_scope_from_another_frame_can_be_entered() -> None:
    with variable_scope("kept", reuse=AUTO_REUSE, dtype="int32") as kept:
        pass
    with NameGraph().as_current(), variable_scope(kept) as scope:
        assert (scope.name, scope.reuse, scope.dtype) == ("kept", AUTO_REUSE, "int32")


def test_variable_op_scope_has_the_old_order_of_arguments() -> None:
    with variable_op_scope([1], "named", "default", reuse=True) as scope:
        assert (scope.name, scope.reuse) == ("named", True)
    with variable_op_scope([1], None, "default") as scope:
        assert scope.name == "default"


# Checks, and their order


def test_neither_name_nor_default_is_refused_at_construction() -> None:
    with pytest.raises(InvalidTypeError, match="If default_name is None then name_or_scope is required"):
        variable_scope(None, reuse="yes", auxiliary_name_scope=3)  # type: ignore[arg-type]


def test_bad_reuse_is_refused_at_construction() -> None:
    with pytest.raises(InvalidArgumentError, match="reuse parameter must be True or False or None"):
        variable_scope("a b", reuse="yes", auxiliary_name_scope=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="reuse parameter"):
        variable_scope("a", reuse=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [("a",), (None, "d"), (VariableScope(name="s"),)])
def test_bad_auxiliary_name_scope_is_refused_at_construction(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidTypeError, match="auxiliary_name_scope"):
        variable_scope(*arguments, auxiliary_name_scope="invalid")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [7, 3.5, b"a", True, [], object()])
def test_name_of_another_type_is_refused_on_entry(name: Any) -> None:
    manager = variable_scope(name, "default", reuse=True)
    with pytest.raises(InvalidTypeError, match="name_or_scope must be a string or VariableScope"):
        manager.__enter__()


@pytest.mark.parametrize("reuse", [True, AUTO_REUSE])
def test_reuse_without_a_name_is_refused_on_entry(reuse: Any) -> None:
    manager = variable_scope(None, "default", reuse=reuse)
    with pytest.raises(InvalidArgumentError, match="reuse=True cannot be used without a name_or_scope"):
        manager.__enter__()


def test_default_name_must_be_a_string_with_characters() -> None:
    with pytest.raises(InvalidTypeError, match="default_name"):
        variable_scope(None, 3).__enter__()  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="default_name"):
        variable_scope(None, "").__enter__()


def test_illegal_names_are_shown_with_a_legal_one() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'my layer' is not a valid root scope name.*'my_layer'"):
        variable_scope("my layer").__enter__()
    with variable_scope("a"):
        with pytest.raises(InvalidArgumentError, match="'b:0' is not a valid scope name"):
            variable_scope("b:0").__enter__()
        with variable_scope("_private") as scope:  # legal inside another scope
            assert scope.name == "a/_private"
    with pytest.raises(InvalidArgumentError, match="'_private' is not a valid root scope name"):
        variable_scope(scope).__enter__()
    with pytest.raises(InvalidArgumentError, match="'dé' is not a valid"):
        variable_scope(None, "dé").__enter__()


@pytest.mark.parametrize(
    ("target", "default", "options"),
    [("a b", None, {}), (7, None, {}), (None, "d", {"reuse": True}), (None, "d e", {}), (None, "", {})],
)
def test_failing_entry_changes_nothing(target: Any, default: Any, options: Any) -> None:
    with variable_scope("outer"):
        before = state()
        with pytest.raises((InvalidArgumentError, InvalidTypeError)):
            variable_scope(target, default, **options).__enter__()
        assert state() == before
        with variable_scope(None, "d") as scope, name_scope("a") as op_scope:
            assert (scope.name, op_scope) == ("outer/d", "outer/d/a/")


def test_entering_outside_a_frame_says_what_to_wrap() -> None:
    import threading

    errors: list[BaseException] = []

    def outside() -> None:
        manager = variable_scope("a")  # making it is fine
        for enter in (manager.__enter__, get_variable_scope):
            try:
                enter()
            except FailedPreconditionError as error:
                errors.append(error)

    thread = threading.Thread(target=outside)
    thread.start()
    thread.join()
    assert len(errors) == 2
    for error in errors:
        assert "jv.transform(fn)" in str(error)
        assert "with jv.VariableStore(" in str(error)
        assert "test_scopes_variable_scope.py:" in str(error)


# Inheritance


def test_children_inherit_all_defaults_but_the_constraint() -> None:
    given = {
        "initializer": "i",
        "regularizer": "r",
        "caching_device": "c",
        "partitioner": "p",
        "dtype": "int32",
        "use_resource": True,
    }
    with variable_scope("a", constraint=abs, **given) as parent:
        assert parent.constraint is abs
        with variable_scope("b") as child, variable_scope(None, "c") as grandchild:
            for scope in (child, grandchild):
                assert {key: getattr(scope, key) for key in given} == given
                assert scope.constraint is None
    with variable_scope(parent) as again:
        assert {key: getattr(again, key) for key in given} == given
        assert again.constraint is None


def test_given_arguments_win_over_inherited_ones() -> None:
    a = variable_scope("a", dtype="int32", initializer=1, regularizer=2)
    b = variable_scope("b", dtype="bfloat16", regularizer=3, constraint=abs)
    with a as captured, b as scope:
        assert (scope.dtype, scope.initializer, scope.regularizer) == ("bfloat16", 1, 3)
        assert scope.constraint is abs
    with variable_scope(captured, initializer=0) as scope:
        assert (scope.dtype, scope.initializer) == ("int32", 0)


def test_array_like_defaults_are_compared_by_identity() -> None:
    class Array:
        def __eq__(self, other: object) -> Any:
            raise AssertionError("compared")

        __hash__ = object.__hash__

        def __bool__(self) -> bool:
            raise AssertionError("ambiguous")

    array = Array()
    with variable_scope("a", initializer=array), variable_scope("b") as scope:
        assert scope.initializer is array


def test_setters_are_seen_in_the_scope_and_by_new_children_only() -> None:
    with variable_scope("a") as parent:
        with variable_scope("early") as early:
            parent.set_initializer("i")
            parent.set_regularizer("r")
            parent.set_caching_device("c")
            parent.set_partitioner("p")
            parent.set_custom_getter("g")
            parent.set_dtype("int32")
            parent.set_use_resource(True)
            assert (early.initializer, early.dtype) == (None, "float32")
        with variable_scope("late") as late:
            assert (late.initializer, late.regularizer, late.dtype) == ("i", "r", "int32")
            assert (late.caching_device, late.partitioner, late.custom_getter) == ("c", "p", "g")
            assert late.use_resource is True
    with variable_scope("a") as reopened:
        assert (reopened.initializer, reopened.dtype) == (None, "float32")


def test_root_defaults() -> None:
    root = get_variable_scope()
    assert (root.name, root.reuse, root.dtype, root.initializer) == ("", False, "float32", None)
    root.set_dtype("bfloat16")
    with variable_scope("a") as scope:
        assert scope.dtype == "bfloat16"
    with NameGraph().as_current():
        assert get_variable_scope().dtype == "float32"


def test_scope_attributes_are_read_only() -> None:
    scope = get_variable_scope()
    for name in ("name", "reuse", "initializer", "original_name_scope", "dtype"):
        with pytest.raises(AttributeError):
            setattr(scope, name, "x")


# Reuse


@pytest.mark.parametrize("given", [None, False, True, AUTO_REUSE])
@pytest.mark.parametrize("parent", [False, True, AUTO_REUSE])
def test_reuse_of_a_string_scope_is_its_own_or_the_parents(parent: Any, given: Any) -> None:
    with variable_scope("p", reuse=parent), variable_scope("c", reuse=given) as scope:
        assert scope.reuse is (given or parent)


@pytest.mark.parametrize("given", [None, False, True, AUTO_REUSE])
@pytest.mark.parametrize("captured", [False, True, AUTO_REUSE])
@pytest.mark.parametrize("parent", [False, True, AUTO_REUSE])
def test_reuse_of_a_captured_scope_ignores_the_parent(parent: Any, captured: Any, given: Any) -> None:
    with variable_scope("x", reuse=captured) as scope:
        pass
    with variable_scope("p", reuse=parent), variable_scope(scope, reuse=given) as again:
        assert again.reuse is (given or captured)


def test_default_name_scope_inherits_reuse() -> None:
    with variable_scope("p", reuse=True), variable_scope(None, "d") as scope:
        assert (scope.name, scope.reuse) == ("p/d", True)


def test_reuse_variables_ends_with_the_scope_when_reopened_by_name() -> None:
    with variable_scope("a") as scope:
        scope.reuse_variables()
        assert get_variable_scope().reuse is True
        with variable_scope("b") as child:
            assert child.reuse is True
    with variable_scope("a") as by_name:
        assert by_name.reuse is False
    with variable_scope(scope) as by_object:
        assert by_object.reuse is True


def test_reuse_variables_at_the_root_holds_for_the_whole_frame() -> None:
    get_variable_scope().reuse_variables()
    with variable_scope("a") as scope:
        assert scope.reuse is True
    with NameGraph().as_current():
        assert get_variable_scope().reuse is False


def test_auto_reuse_is_one_object() -> None:
    assert copy.deepcopy(AUTO_REUSE) is AUTO_REUSE
    assert pickle.loads(pickle.dumps(AUTO_REUSE)) is AUTO_REUSE
    assert repr(AUTO_REUSE) == "AUTO_REUSE"
    assert AUTO_REUSE


# The auxiliary name scope, and the original one


def test_original_name_scope_survives_reentry() -> None:
    with variable_scope("a") as a:
        assert a.original_name_scope == "a/"
        with variable_scope("b") as b:
            assert b.original_name_scope == "a/b/"
    with variable_scope("a") as a1:
        assert a1.original_name_scope == "a_1/"
        with variable_scope("b") as b1:
            assert b1.original_name_scope == "a_1/b/"
    with variable_scope("other"), variable_scope(b) as again:
        assert again.original_name_scope == "a/b/"
        with name_scope(again.original_name_scope) as entered:
            assert entered == "a/b/"


@pytest.mark.parametrize("arguments", [("b",), (None, "b")])
def test_without_auxiliary_name_scope_the_enclosing_one_stays(arguments: tuple[Any, ...]) -> None:
    with variable_scope("a"), variable_scope(*arguments, auxiliary_name_scope=False) as scope:
        assert (scope.name, scope.original_name_scope) == ("a/b", "a/")
        assert get_current_name_scope() == "a"
        with variable_scope("c") as child:  # not inherited
            assert (child.name, get_current_name_scope()) == ("a/b/c", "a/c")
    with variable_scope(*arguments, auxiliary_name_scope=False) as scope:
        assert (scope.original_name_scope, get_current_name_scope()) == ("", "")


def test_root_scope_without_auxiliary_name_scope_keeps_the_name_scope() -> None:
    root = get_variable_scope()
    with variable_scope("a"), variable_scope(root, auxiliary_name_scope=False) as scope:
        assert (scope.name, scope.original_name_scope, get_current_name_scope()) == ("", "", "a")


def test_the_idiom_that_reenters_both_scopes_without_suffix() -> None:
    with variable_scope("a") as a:
        pass
    with variable_scope(a, auxiliary_name_scope=False) as again, name_scope(again.original_name_scope):
        assert (again.name, get_current_name_scope()) == ("a", "a")


# Exit


def test_exceptions_restore_the_scope() -> None:
    with pytest.raises(KeyError), variable_scope("a"), name_scope("n"), variable_scope("b"):
        raise KeyError
    assert state() == ROOT


def test_closing_out_of_order_is_refused_and_changes_nothing() -> None:
    with variable_scope("aa"):
        scope = variable_scope("bb")
        scope.__enter__()
        with variable_scope("cc"):
            before = state()
            with pytest.raises(RuntimeError, match=r"Improper nesting of variable_scope\."):
                scope.__exit__(None, None, None)
            assert state() == before
        scope.__exit__(None, None, None)
        assert get_variable_scope().name == "aa"
    assert state() == ROOT


def test_closing_twice_or_unopened_is_refused() -> None:
    scope = variable_scope("a")
    with pytest.raises(FailedPreconditionError, match="Improper nesting"):
        scope.__exit__(None, None, None)
    with scope:
        pass
    with pytest.raises(FailedPreconditionError, match="Improper nesting"):
        scope.__exit__(None, None, None)
    assert state() == ROOT


def test_the_same_context_manager_enters_again() -> None:
    manager = variable_scope("a")
    with manager as first:
        assert get_current_name_scope() == "a"
    with manager as second:
        assert get_current_name_scope() == "a_1"
    assert (first.name, second.name) == ("a", "a")
    assert first is not second


def test_the_same_context_manager_enters_inside_itself() -> None:
    manager = variable_scope("a")
    with manager, manager as inner:
        assert (inner.name, get_current_name_scope()) == ("a/a", "a/a")
    assert state() == ROOT


def test_the_same_context_manager_keeps_its_default_name() -> None:
    manager = variable_scope(None, "layer")
    with manager as first:
        pass
    with variable_scope(None, "layer") as other:
        pass
    with manager as again:
        assert get_current_name_scope() == "layer_2"
    assert (first.name, other.name, again.name) == ("layer", "layer_1", "layer")
    with NameGraph().as_current(), variable_scope(None, "layer"), manager as elsewhere:
        assert elsewhere.name == "layer/layer"


def test_as_decorator_every_call_is_a_fresh_entry() -> None:
    @variable_scope(None, "block", reuse=None)
    def block(x: int, *, y: int = 0) -> tuple[str, int]:
        """Doc."""
        return get_variable_scope().name, x + y

    assert block(1, y=2) == ("block", 3)
    assert block(1) == ("block_1", 1)
    assert (block.__name__, block.__doc__) == ("block", "Doc.")
    with NameGraph().as_current():
        assert block(0) == ("block", 0)


def test_scope_objects_print_and_copy() -> None:
    with variable_scope("a", reuse=True, dtype="int32") as scope:
        pass
    assert repr(scope) == "<VariableScope 'a' reuse=True>"
    for other in (copy.copy(scope), pickle.loads(pickle.dumps(scope))):
        assert (other.name, other.prefix, other.reuse, other.dtype) == ("a", "a/", True, "int32")


def test_constructing_a_scope_by_hand() -> None:
    scope = VariableScope(None, "made", initializer=1, name_scope="made/", constraint=abs)
    assert (scope.name, scope.prefix, scope.reuse, scope.original_name_scope) == (
        "made",
        "made/",
        False,
        "made/",
    )
    with pytest.raises(InvalidArgumentError, match="reuse parameter"):
        VariableScope("no")  # type: ignore[arg-type]
    with variable_scope(scope) as entered:
        assert (entered.name, entered.initializer, entered.constraint) == ("made", 1, None)

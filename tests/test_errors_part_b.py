"""Every error of TF1's rules of scopes, `get_variable`, partitions, initializers and variables: its class, TF1's phrase
in it, what we add, and that the wrong call changed nothing.

The whole text of the frequent ones is settled in test_errors_golden.py; training and checkpoints are in
test_errors_part_b_files.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.scopes.context import current

HERE = os.path.basename(__file__)


class Case(NamedTuple):
    """A wrong call. `phrase` is a pattern, TF1's words; `add` what we add; `where` the frames it runs in."""

    name: str
    call: Callable[[], Any]
    kind: type[Exception]
    phrase: str
    add: str = ""
    where: tuple[str, ...] = ("store", "specs", "apply")
    scope: dict[str, Any] | None = None  # options of the scope that it runs in


def enter(*arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: jv.variable_scope(*arguments, **options).__enter__()


def get(*arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: jv.get_variable(*arguments, **options)


def of(name: str) -> Any:
    """A variable that is there."""
    return next(v for v in jv.get_collection("all") if v.key == f"outer/{name}")


SHARED: dict[str, Any] = {"reuse": True}
NEW = ("store", "specs")  # in `apply` a variable that is not given ends the run
ZEROS = jv.zeros_initializer()


def close_out_of_order(manager: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        outer = manager()
        outer.__enter__()
        with manager():
            try:
                outer.__exit__(None, None, None)
            finally:
                HELD.append(outer)

    return call


HELD: list[Any] = []  # scopes that a case left open on purpose


def creator(next_creator: Any, **options: Any) -> Any:
    return next_creator(**options)


SCOPES = [
    Case("no name", enter(None), TypeError, "If default_name is None then name_or_scope is required"),
    Case("reuse", enter("a", reuse="yes"), ValueError, "The reuse parameter must be True or False or None"),
    Case("reuse 1", enter("a", reuse=1), ValueError, "The reuse parameter must be True or False or None"),
    Case("auxiliary", enter("a", auxiliary_name_scope="no"), TypeError, "auxiliary_name_scope"),
    Case("type of name", enter(7), TypeError, "must be a string or VariableScope"),
    Case("reuse, no name", enter(None, "d", reuse=True), ValueError, "reuse=True cannot be used without a name_or"),
    Case("AUTO, no name", enter(None, "d", reuse=jv.AUTO_REUSE), ValueError, "cannot be used without a name_or_scope"),
    Case("illegal name", enter("a b"), ValueError, "'a b' is not a valid scope name", "For example: 'a_b'"),
    Case("illegal default", enter(None, "a b"), ValueError, "is not a valid scope name", "For example: 'a_b'"),
    Case("nesting", close_out_of_order(lambda: jv.variable_scope("z")), RuntimeError, "Improper nesting of var"),
    Case("name scope", lambda: jv.name_scope("a b").__enter__(), ValueError, "is not a valid scope name", "'a_b'"),
    Case("name scope type", lambda: jv.name_scope(3).__enter__(), TypeError, "name"),
    Case(
        "creators",
        close_out_of_order(lambda: jv.variable_creator_scope(creator)),
        RuntimeError,
        "Exiting variable_creator_scope without proper nesting",
    ),
    Case("collection pattern", lambda: jv.get_collection("all", "("), ValueError, r"\(", "regular expression"),
]

GET_VARIABLE = [
    Case("empty name", get("", [2]), ValueError, "name", HERE),
    Case("type of name", get(3, [2]), TypeError, "name", HERE),
    Case("illegal name", get("a b", [2]), ValueError, "is not a valid root scope name", "outer/a b"),
    Case("dtype of constant", get("new", dtype="int32", initializer=1.5), ValueError, "don't match", "float32"),
    Case("getter", get("new", [2], custom_getter=3), ValueError, "Passed a custom_getter which is not call", "def "),
    Case("scope's getter", get("new", [2]), ValueError, "custom_getter which is not call", scope={"custom_getter": 3}),
    Case(
        "constant and shape",
        get("new", [2], initializer=jnp.ones(2)),
        ValueError,
        "If initializer is a constant, do not specify shape",
    ),
    Case(
        "scope's constant and shape",
        get("new", [2]),
        ValueError,
        "If initializer is a constant, do not specify shape",
        scope={"initializer": 1.0},
    ),
    Case(
        "constant and shape before reuse",
        get("w", [2], initializer=[1.0, 2.0]),
        ValueError,
        "If initializer is a constant, do not specify shape",
        scope=SHARED,
    ),
    Case("exists", get("w", [2]), ValueError, "Variable outer/w already exists, disallowed", "Originally defined at"),
    Case("exists, local", lambda: jv.get_local_variable("w", [2]), ValueError, "outer/w already exists, disallowed"),
    Case(
        "shape of shared",
        get("w", [3]),
        ValueError,
        r"Trying to share variable outer/w, but specified shape \(3,\) and found shape \(2,\)",
        "Originally defined at",
        scope=SHARED,
    ),
    Case(
        "rank of shared", get("w", [2, 1]), ValueError, r"specified shape \(2, 1\) and found shape \(2,\)", scope=SHARED
    ),
    Case(
        "dtype of shared",
        get("w", [2], dtype="int32"),
        ValueError,
        "Trying to share variable outer/w, but specified dtype int32 and found dtype float32",
        "dtype='float32'",
        scope=SHARED,
    ),
    Case(
        "shared int without dtype",
        get("n", []),
        ValueError,
        "but specified dtype float32 and found dtype int32",
        "dtype='int32'",
        scope=SHARED,
    ),
    Case(
        "does not exist",
        get("ww", [2]),
        ValueError,
        "Variable outer/ww does not exist, or was not created with",
        "Did you mean outer/w",
        scope=SHARED,
    ),
    Case(
        "no variable of get_variable", get("plain", []), ValueError, "or was not created with", where=NEW, scope=SHARED
    ),
    Case(
        "no shape",
        get("new"),
        ValueError,
        "did not get an initializer, so its `shape` argument must be specified|must be fully defined",
        where=NEW,
    ),
    Case(
        "unknown dimension",
        get("new", [None, 2]),
        ValueError,
        r"Shape of a new variable \(outer/new\) must be fully"
        " defined",
        where=NEW,
    ),
    Case(
        "initializer with arguments",
        get("new", initializer=lambda x: x),
        ValueError,
        "initializer passed is not v",
        where=NEW,
    ),
    Case(
        "initializer without arguments",
        get("new", [2], initializer=lambda: 1.0),
        TypeError,
        "takes 0 positional",
        where=NEW,
    ),
    Case(
        "initializer's shape",
        get("new", [None, 2], initializer=lambda: 1.0),
        ValueError,
        "returned a value of shape",
        "outer/new",
        where=NEW,
    ),
    Case(
        "initializer of no kind",
        get("new", [2], initializer={}),
        (TypeError, ValueError),
        "initializer|value",
        where=NEW,
    ),
    Case(
        "failing initializer",
        get("new", [2], initializer=lambda shape, dtype: 1 / 0),
        ValueError,
        "division by zero",
        "outer/new",
        where=("store",),
    ),
    Case(
        "collections",
        get("new", [2], collections="losses", initializer=ZEROS),
        ValueError,
        "collections argument to Variable constructor must be a list, tuple, or set",
        "['losses']",
        where=NEW,
    ),
    Case(
        "complex",
        get("new", [2], "complex64"),
        ValueError,
        "An initializer for variable outer/new of complex64",
        where=NEW,
    ),
    Case("string", get("new", [2], "string"), TypeError, "string", "JAX has no string"),
    Case("no dtype", get("new", [2], "flot32"), TypeError, "flot32", HERE),
    Case("negative shape", get("new", [-1]), ValueError, "must be >= 0"),
    Case("shape of words", get("new", ["a"]), TypeError, "Dimension value must be an integer or None"),
    Case("synchronization", get("new", [2], synchronization="x"), ValueError, "Invalid variable synchronization mode"),
    Case("aggregation", get("new", [2], aggregation="x"), ValueError, "Invalid variable aggregation mode"),
    Case("regularizer", get("new", [2], regularizer=3), TypeError, "regularizer of variable outer/new is not callable"),
]

INITIALIZERS = [
    Case("scale", lambda: jv.variance_scaling_initializer(scale=0.0), ValueError, "`scale` must be a positive float"),
    Case("mode", lambda: jv.variance_scaling_initializer(mode="in"), ValueError, "Argument `mode` should be one of"),
    Case(
        "distribution",
        lambda: jv.variance_scaling_initializer(distribution="x"),
        ValueError,
        "`distribution` should",
    ),
    Case("dtype", lambda: jv.random_normal_initializer(dtype="int32"), ValueError, "is expected to be floating point"),
    Case(
        "orthogonal",
        get("new", [3], initializer=jv.orthogonal_initializer()),
        ValueError,
        "at least two-dimensional",
        "outer/new",
        NEW,
    ),
    Case(
        "identity",
        get("new", [3], initializer=jv.identity_initializer()),
        ValueError,
        "must be two-dimensional",
        "outer/new",
        NEW,
    ),
    Case(
        "too many",
        get("new", [1], initializer=jv.constant_initializer([1, 2])),
        ValueError,
        "Too many elements",
        "outer/new",
        NEW,
    ),
    Case(
        "verify_shape",
        get("new", [3], initializer=jv.constant_initializer([1, 2], verify_shape=True)),
        TypeError,
        "Expected Tensor's shape",
        "outer/new",
        NEW,
    ),
    Case(
        "float into int",
        get("new", [2], "int32", jv.constant_initializer(1.5)),
        TypeError,
        "Expected int32",
        "outer/new",
        NEW,
    ),
    Case(
        "maxval",
        get("new", [2], "int32", jv.random_uniform_initializer()),
        ValueError,
        "Must specify maxval for integer dtype",
        "outer/new",
        NEW,
    ),
    Case(
        "floats for int", get("new", [2], "int32", jv.random_normal_initializer()), TypeError, "int32", "outer/new", NEW
    ),
]

VARIABLES = [
    Case("no value", lambda: jv.Variable(), ValueError, "initial_value must be specified", HERE),
    Case("text", lambda: jv.Variable("text", name="new"), TypeError, "'text'", where=NEW),
    Case("name", lambda: jv.Variable(1.0, name="a b"), ValueError, "is not a valid scope name", where=NEW),
    Case(
        "collections",
        lambda: jv.Variable(1.0, name="new", collections="x"),
        ValueError,
        "collections argument to Variable constructor must be a list, tuple, or set",
        where=NEW,
    ),
    Case("type of name", lambda: jv.Variable(1.0, name=3), TypeError, "name of a variable is a string", HERE),
    Case("keyword", lambda: jv.Variable(1.0, name="new", trianable=False), TypeError, "trianable"),
    Case("synchronization", lambda: jv.Variable(1.0, synchronization="x"), ValueError, "Invalid variable sync"),
    Case(
        "scalar into vector",
        lambda: of("w").assign(1.0),
        ValueError,
        "Shapes must be equal rank, but are 1 and 0",
        "outer/w",
    ),
    Case("other size", lambda: of("w").assign([1.0, 2.0, 3.0]), ValueError, "[Ss]hape", "outer/w"),
    Case("broadcast add", lambda: of("w").assign_add(1.0), ValueError, "Shapes must be equal rank", "outer/w"),
    Case("broadcast sub", lambda: of("w").assign_sub(1.0), ValueError, "Shapes must be equal rank", "outer/w"),
    Case("float to int", lambda: of("n").assign(1.5), TypeError, "[Ee]xpected int32", "outer/n"),
    Case("bool to float", lambda: of("w").assign([True, False]), TypeError, "[Ee]xpected float32", "outer/w"),
    Case("number to bool", lambda: of("flag").assign(1), TypeError, "[Ee]xpected bool", "outer/flag"),
    Case("add to bool", lambda: of("flag").assign_add(True), TypeError, "bool", "outer/flag"),
    Case(
        "uninitialized add",
        lambda: of("hole").assign_add([1.0, 2.0]),
        RuntimeError,
        "Attempting to use uninitialized value outer/hole",
        where=("store",),
    ),
    Case("uninitialized read", lambda: of("hole") + 1, RuntimeError, "uninitialized value", where=("store",)),
    Case(
        "uninitialized scatter",
        lambda: of("hole").scatter_add([0], [1.0]),
        RuntimeError,
        "uninitialized value",
        where=("store",),
    ),
    Case("index", lambda: of("w").scatter_add([2], [1.0]), ValueError, r"indices\[0\] = 2 is not in", "outer/w"),
    Case(
        "negative index",
        lambda: of("w").scatter_update([-1], [1.0]),
        ValueError,
        r"indices\[0\] = -1 is not in",
        "outer/w",
    ),
    Case("float index", lambda: of("w").scatter_mul([0.5], [1.0]), TypeError, "int", "outer/w"),
    Case("updates", lambda: of("w").scatter_sub([0], [[1.0, 2.0]]), ValueError, "[Ss]hape", "outer/w"),
    Case(
        "nd index",
        lambda: of("w").scatter_nd_update([[5]], [1.0]),
        ValueError,
        "does not index into shape",
        "outer/w",
    ),
    Case("limit", lambda: of("n").count_up_to(3), IndexError, "Reached limit of 3", "/n", where=("store", "apply")),
    Case("count of floats", lambda: of("w").count_up_to(3), TypeError, "integer", "outer/w"),
    Case("initializer op", lambda: of("w").initializer, RuntimeError, "outer/w.initializer", "variables_initializer"),
]

TWO = jv.fixed_size_partitioner(2)


def cut(counts: Any) -> Any:
    """A partitioner that always answers this."""
    return lambda shape, dtype: counts


def create() -> Any:
    return jv.create_partitioned_variables([4], [2], ZEROS)


PARTITIONS = [
    Case(
        "no shape", get("new", partitioner=TWO), ValueError, "Shape of a new partitioned variable must be fully defined"
    ),
    Case(
        "no shape on reuse",
        get("p", partitioner=TWO),
        ValueError,
        "Shape of a new partitioned variable must be fully defined",
        scope=SHARED,
    ),
    Case(
        "scalar", get("new", initializer=jnp.ones(()), partitioner=TWO), ValueError, "must have rank at least 1", HERE
    ),
    Case(
        "no sequence",
        get("new", [4], partitioner=cut(2)),
        ValueError,
        "must return a sequence, but saw: 2",
        "outer/new",
    ),
    Case(
        "rank", get("new", [4], partitioner=cut([2, 1])), ValueError, "does not match the Variable's rank", "outer/new"
    ),
    Case("zero", get("new", [4], partitioner=cut([0])), ValueError, "returned zero partitions", "outer/new"),
    Case(
        "two axes",
        get("new", [4, 4], partitioner=cut([2, 2])),
        ValueError,
        "Can only slice a variable along one dimens",
    ),
    Case("too many", get("new", [4], partitioner=cut([5])), ValueError, "Expected 0 <= offset < shape", "outer/new"),
    Case("exists", get("p", [4], partitioner=TWO), ValueError, "Partitioned variable with name outer/p already exists"),
    Case(
        "other partitions",
        get("p", [4], partitioner=cut([4])),
        ValueError,
        "Trying to reuse partitioned variable outer/p, but specified partitions",
        scope=SHARED,
    ),
    Case(
        "other shape",
        get("p", [5], partitioner=TWO),
        ValueError,
        "Trying to reuse partitioned variable outer/p, but specified shape",
        scope=SHARED,
    ),
    Case(
        "other dtype",
        get("p", [4], "int32", partitioner=TWO),
        ValueError,
        "Trying to reuse partitioned variable outer/p, but specified dtype",
        scope=SHARED,
    ),
    Case(
        "unpartitioned",
        get("w", [2], partitioner=TWO),
        ValueError,
        "A partitioner was provided, but an unpartitioned version of the variable was found: outer/w",
        scope=SHARED,
    ),
    Case(
        "no partitioner", get("p", [4]), ValueError, "No partitioner was provided, but a partitioned version", "outer/p"
    ),
    Case(
        "no partitioner, AUTO_REUSE",
        get("p", [4]),
        ValueError,
        "No partitioner was provided, but a partitioned version",
        scope={"reuse": jv.AUTO_REUSE},
    ),
    Case("getter", create, ValueError, "not allowed when a custom getter is set", scope={"custom_getter": creator}),
    Case(
        "lengths",
        lambda: jv.create_partitioned_variables([4], [2, 1], ZEROS),
        ValueError,
        "The 'shape' and 'slicing' of a partitioned Variable must have the same length",
    ),
]

CASES = {
    f"{group}: {case.name}": case
    for group, cases in {
        "scopes": SCOPES, "get_variable": GET_VARIABLE, "initializers": INITIALIZERS, "variables": VARIABLES,
        "partitions": PARTITIONS,
    }.items()
    for case in cases
}  # fmt: skip


def prepare() -> None:
    """What is there before a wrong call."""
    made = [
        jv.get_variable("w", [2], initializer=ZEROS, regularizer=jv.regularizers.l2_regularizer(0.1)),
        jv.get_variable("n", [], "int32", initializer=jv.constant_initializer(3)),
        jv.get_variable("flag", [], "bool", initializer=ZEROS),
        jv.Variable(1.0, name="plain"),
        jv.get_variable("p", [4], initializer=ZEROS, partitioner=jv.fixed_size_partitioner(2)),
    ]
    with jv.variable_scope(None, "layer"):
        pass
    for v in made:
        jv.add_to_collection("all", v)


def _identity(item: Any) -> Any:
    """A handle by itself; a loss, which is computed anew when asked for, by its type."""
    return id(item) if isinstance(item, jv.Variable) else type(item)


def seen() -> dict[str, Any]:
    """All that a wrong call could have changed: names taken, counters, collections, scopes, values."""
    context = current.get()
    assert context is not None
    graph, scope = context.graph, context.scope
    values = [v.value for v in jv.get_collection("all") if v.key != "outer/hole"]
    keys = graph.collections.keys()
    return {
        "names": dict(graph.names._used),
        "collections": {key: [_identity(item) for item in graph.collections.get(key)] for key in keys},
        "counters": context.counts,
        "scope": (scope.name, scope.reuse, scope._defaults, context.name_scope, context.creators),
        "values": [None if isinstance(value, jax.core.Tracer) else np.asarray(value).tolist() for value in values],
    }


def check(case: Case) -> None:
    with jv.variable_scope("outer", **(case.scope or {})):
        before = seen()
        with pytest.raises(case.kind, match=case.phrase) as caught:
            case.call()
        while HELD:  # scopes that were opened on purpose are counted
            HELD.pop().__exit__(None, None, None)
            before |= {part: seen()[part] for part in ("names", "counters")}
        assert isinstance(caught.value, jv.JaxvarsError) or case.name == "keyword"
        assert case.add in str(caught.value), str(caught.value)
        assert seen() == before


def rows(where: str) -> list[str]:
    return [name for name, case in CASES.items() if where in case.where]


@pytest.mark.parametrize("name", rows("store"))
def test_in_a_store(name: str) -> None:
    with jv.VariableStore() as store:
        with jv.variable_scope("outer", auxiliary_name_scope=False):
            prepare()
            jv.add_to_collection("all", jv.get_variable("hole", [2], initializer=jv.random_normal_initializer()))
        keys = list(store.variables)
        check(CASES[name])
        assert list(store.variables) == keys
        with jv.variable_scope("outer"):  # every name is still free, with no number added
            assert jv.get_variable("new", [2], initializer=ZEROS).key == "outer/new"
            with jv.variable_scope(None, "layer") as scope:
                assert scope.name == "outer/layer"


@pytest.mark.parametrize("where", ["specs", "apply"])
def test_in_a_model(where: str) -> None:
    """All in one run: each finds what was there before the one that went wrong."""

    def net() -> None:
        prepare_all()
        for name in rows(where):
            try:
                check(CASES[name])
            except BaseException as error:
                error.add_note(name)
                raise

    model = jv.transform(net)
    specs = model.specs() if where == "specs" else jv.transform(prepare_all).specs()
    assert list(specs) == ["outer/flag", "outer/n", "outer/p", "outer/w", "plain"]
    if where == "apply":
        given = jv.variables_initializer(specs, 0)
        _, after = model.apply(given)
        assert all(after[key] is given[key] for key in given)


def prepare_all() -> None:
    with jv.variable_scope("outer", auxiliary_name_scope=False):
        prepare()


# Of a state, outside of frames


STATE = jv.Variables(
    {"w": np.zeros(2, "float32"), "n": np.int32(3), "b": np.zeros(2, bool), "h": jax.ShapeDtypeStruct((2,), "float32")}
)


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize(
    ("call", "arguments", "kind", "phrase"),
    [
        (jv.assign, ("z", [1.0, 2.0]), KeyError, "z"),
        (jv.assign, ("w", 1.0), ValueError, "Shapes must be equal rank, but are 1 and 0"),
        (jv.assign, ("w", [1.0, 2.0, 3.0]), ValueError, "Dimension 0 in both shapes must be equal, but are 2 and 3"),
        (jv.assign, ("n", 1.5), TypeError, "xpected int32"),
        (jv.assign, ("b", [0, 1]), TypeError, "xpected bool"),
        (jv.assign_add, ("h", [1.0, 2.0]), RuntimeError, "Attempting to use uninitialized value h"),
        (jv.assign_sub, ("w", [[1.0, 2.0]]), ValueError, "Shapes must be equal rank, but are 1 and 2"),
        (jv.assign_add, ("b", [True, True]), TypeError, "bool"),
        (jv.scatter_add, ("w", [2], [1.0]), ValueError, r"indices\[0\] = 2 is not in \[0, 2\)"),
        (jv.scatter_update, ("w", [0.5], [1.0]), TypeError, "int"),
        (jv.scatter_nd_add, ("w", [[-1]], [1.0]), ValueError, "does not index into shape"),
        (jv.count_up_to, ("n", 3), IndexError, "Reached limit of 3"),
        (jv.count_up_to, ("w", 3), TypeError, "integer"),
    ],
)
def test_of_a_state(call: Any, arguments: Any, kind: type[Exception], phrase: str, donate: bool) -> None:
    leaves = list(STATE.values())
    with pytest.raises(kind, match=phrase) as caught:
        call(STATE, *arguments, donate=donate)
    assert isinstance(caught.value, jv.JaxvarsError)
    assert all(a is b for a, b in zip(leaves, STATE.values(), strict=True))
    assert [np.asarray(STATE[name]).tolist() for name in "wnb"] == [[0, 0], 3, [False, False]]

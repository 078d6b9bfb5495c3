"""The error texts, word for word: each names the variable, where it was defined or asked for, why, and what to write.

Each case is a function that fails. The text of its error stands in ``tests/golden/errors/<case>.txt``, with
``file.py:line`` of this file replaced by the mark that stands on that very line of the source, such as
``#: defined``; a line without a mark fails the test, so the texts always point to the right line. To write the
files anew after a text has changed: ``python tests/test_errors_golden.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxvars as jv
from jaxvars import errors

pytestmark = pytest.mark.usefixtures("without_x64")

GOLDEN = Path(__file__).parent / "golden" / "errors"
SOURCE = Path(__file__).read_text(encoding="utf-8").splitlines()
CASES: dict[str, tuple[type[Exception], Callable[[], Any]]] = {}

X = jnp.ones([1, 2], "float32")


def case(kind: type[Exception], *, store: bool = False) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a function that raises `kind`; with `store` it runs in a `VariableStore`."""

    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            if not store:
                return function()
            with jv.VariableStore(0):
                return function()

        CASES[function.__name__] = (kind, run)
        return function

    return register


# Names and reuse


@case(errors.InvalidArgumentError, store=True)
def already_exists() -> None:
    with jv.variable_scope("tower"), jv.variable_scope("conv1"):
        jv.get_variable("weights", [2])  #: defined
        jv.get_variable("weights", [2])  #: asked


@case(errors.InvalidArgumentError)
def already_exists_in_a_model() -> None:
    def layer(x: Any) -> Any:
        return x @ jv.get_variable("weights", [2, 2])  #: both

    jv.transform(lambda x: layer(layer(x))).init(0, X)


@case(errors.InvalidArgumentError, store=True)
def does_not_exist() -> None:
    with jv.variable_scope("conv1"):
        jv.get_variable("weights", [2])
    with jv.variable_scope("conv1", reuse=True):
        jv.get_variable("weight", [2])  #: asked


@case(errors.InvalidArgumentError)
def does_not_exist_among_given() -> None:
    def net() -> Any:
        with jv.variable_scope("conv", reuse=True):
            return jv.get_variable("weights", [2]) + 1  #: asked

    jv.transform(net).apply(jv.Variables({"conv1/weights": jnp.ones(2)}))


@case(errors.InvalidArgumentError, store=True)
def shared_with_another_shape() -> None:
    jv.get_variable("w", [2])  #: defined
    with jv.variable_scope("", reuse=True):
        jv.get_variable("w", [3])  #: asked


@case(errors.InvalidArgumentError, store=True)
def shared_int_without_dtype() -> None:
    jv.get_variable("train/step", [], "int32")  #: defined
    with jv.variable_scope("train", reuse=True):
        jv.get_variable("step", [])  #: asked


@case(errors.InvalidArgumentError)
def another_shape_in_the_store() -> None:
    store = jv.VariableStore(0)
    with store:
        jv.get_variable("w", [2])  #: defined
    with store:
        jv.get_variable("w", [3])  #: asked


@case(errors.InvalidArgumentError, store=True)
def taken_by_a_tf_variable() -> None:
    jv.Variable(1.0, name="v")  #: defined
    jv.get_variable("v", [2])  #: asked


@case(errors.InvalidArgumentError, store=True)
def illegal_name() -> None:
    with jv.variable_scope("conv1"):
        jv.get_variable("my weights", [2])  #: asked


@case(errors.InvalidArgumentError, store=True)
def no_name() -> None:
    jv.get_variable("", [2])  #: asked


# Shape, dtype, initializer


@case(errors.InvalidArgumentError, store=True)
def constant_with_shape() -> None:
    jv.get_variable("w", [2], initializer=jnp.ones(2))  #: asked


@case(errors.InvalidArgumentError, store=True)
def constant_with_another_dtype() -> None:
    jv.get_variable("w", dtype="int32", initializer=1.5)  #: asked


@case(errors.InvalidArgumentError, store=True)
def no_shape() -> None:
    with jv.variable_scope("conv1"):
        jv.get_variable("w")  #: asked


@case(errors.InvalidArgumentError, store=True)
def shape_with_an_unknown_dimension() -> None:
    jv.get_variable("w", [None, 2])  #: asked


@case(errors.InvalidTypeError, store=True)
def no_such_dtype() -> None:
    jv.get_variable("w", [2], dtype="flot32")  #: asked


@case(errors.InvalidArgumentError, store=True)
def collections_as_a_string() -> None:
    jv.get_variable("w", [2], collections="losses")  #: asked


@case(errors.InvalidTypeError, store=True)
def regularizer_is_no_function() -> None:
    jv.get_variable("w", [2], regularizer=1e-4)  # pyright: ignore  #: asked


@case(errors.InvalidArgumentError, store=True)
def custom_getter_is_no_function() -> None:
    jv.get_variable("w", [2], custom_getter="getter")  # pyright: ignore  #: asked


# Frames


@case(errors.FailedPreconditionError)
def get_variable_outside() -> None:
    jv.get_variable("w", [2])  #: asked


@case(errors.FailedPreconditionError)
def variable_scope_outside() -> None:
    with jv.variable_scope("conv1"):  #: asked
        pass


@case(errors.FailedPreconditionError)
def trainable_variables_outside() -> None:
    jv.trainable_variables()  #: asked


@case(errors.FailedPreconditionError)
def read_after_the_frame() -> None:
    with jv.VariableStore(0):
        w = jv.get_variable("conv1/w", [2])  #: defined
    _ = w + 1


@case(errors.FailedPreconditionError)
def assign_after_the_frame() -> None:
    with jv.VariableStore(0):
        w = jv.get_variable("conv1/w", [2])  #: defined
    w.assign([1.0, 2.0])


@case(errors.FailedPreconditionError)
def store_in_itself() -> None:
    store = jv.VariableStore(0)
    with store, store:
        pass


@case(errors.FailedPreconditionError)
def variables_set_inside() -> None:
    store = jv.VariableStore(0)
    with store:
        store.variables = jv.Variables({})


@case(errors.TransformError)
def store_of_outside_written_in_jit() -> None:
    store = jv.VariableStore(0)

    @jax.jit
    def write(x: Any) -> Any:
        with store:  #: asked
            jv.Variable(x, name="made")
        return x

    write(X)


@case(errors.FailedPreconditionError)
def uninitialized() -> None:
    with jv.VariableStore():
        _ = jv.get_variable("conv1/w", [2]) + 1  #: defined


@case(errors.FailedPreconditionError)
def no_random_key() -> None:
    jv.transform(lambda: jv.next_rng_key()).apply(jv.Variables({}))  #: asked


@case(errors.FailedPreconditionError, store=True)
def collected_from_an_inner_trace() -> None:
    def f(x: Any) -> Any:
        jv.add_to_collection("losses", x * 2)
        return x

    jax.jit(f)(jnp.ones(2))


# Models


@case(errors.InvalidArgumentError)
def reserved_parameter() -> None:
    def net(x: Any, rng: Any) -> Any:  #: function
        return x, rng

    jv.transform(net)


@case(errors.InvalidArgumentError)
def reserved_parameters() -> None:
    def net(variables: Any, rng: Any) -> Any:  #: function
        return variables, rng

    jv.transform(net)


@case(errors.InvalidTypeError)
def generator_as_model() -> None:
    def net() -> Any:  #: function
        yield jv.get_variable("w", [2])

    jv.transform(net)


def net(x: Any) -> Any:
    with jv.variable_scope("a"):
        w = jv.get_variable("w", [2, 3])  #: w
        b = jv.get_variable("b", [3])  #: b
    jv.get_variable("n", [], "int32", trainable=False)  #: n
    jv.get_variable("m", [2])  #: m
    return x @ w + b[None]


@case(errors.InvalidArgumentError)
def apply_lists_all_problems() -> None:
    given = {"a/W": jnp.ones([2, 3]), "a/b": jnp.ones(4), "n": 1.0, "m": jax.ShapeDtypeStruct((2,), "float32")}
    jv.transform(net).apply(jv.Variables(given), X)


@case(errors.NotFoundError)
def apply_lists_all_missing() -> None:
    jv.transform(net).apply(jv.Variables({"a/b": jnp.ones(3), "m": jnp.ones(2)}), X)


@case(errors.FailedPreconditionError)
def apply_lists_all_uninitialized() -> None:
    model = jv.transform(net)
    model.apply(model.specs(X), X)


@case(errors.InvalidArgumentError)
def init_lists_all_that_differ() -> None:
    jv.transform(net).init(0, X, variables=jv.Variables({"a/w": jnp.ones([3, 3]), "n": 1.0}))


@case(errors.InvalidTypeError)
def apply_takes_variables() -> None:
    jv.transform(net).apply({"a/w": jnp.ones([2, 3])}, X)  # pyright: ignore


@case(errors.FailedPreconditionError)
def call_of_a_model_that_assigns() -> None:
    model = jv.transform(lambda: jv.get_variable("n", []).assign_add(1))
    model(model.init(0))


# Values


def _state() -> jv.Variables:
    def net() -> None:
        with jv.variable_scope("conv1"):
            jv.get_variable("weights", [2, 3])  #: defined
            jv.get_variable("count", [], "int32")  #: defined

    return jv.transform(net).init(0)


@case(errors.NotFoundError)
def unknown_name() -> None:
    _ = _state()["conv1/weight"]


@case(errors.NotFoundError)
def assign_unknown_name() -> None:
    jv.assign(_state(), "conv2/weights", 1.0)


@case(errors.InvalidArgumentError)
def assign_another_shape() -> None:
    jv.assign(_state(), "conv1/weights", 1.0)


@case(errors.InvalidTypeError)
def assign_float_to_int() -> None:
    jv.assign(_state(), "conv1/count", 1.5)


@case(errors.InvalidArgumentError, store=True)
def handle_assign_another_shape() -> None:
    jv.get_variable("w", [2]).assign([1.0, 2.0, 3.0])  #: defined


@case(errors.InvalidTypeError, store=True)
def handle_assign_float_to_int() -> None:
    jv.get_variable("n", [], "int32").assign(1.5)  #: defined


@case(errors.InvalidTypeError, store=True)
def handle_add_to_bool() -> None:
    jv.get_variable("flag", [], "bool").assign_add(True)  #: defined


@case(errors.InvalidTypeError, store=True)
def handle_item_assignment() -> None:
    jv.get_variable("w", [2])[0] = 1.0


@case(errors.InvalidArgumentError, store=True)
def handle_into_lax() -> None:
    jax.lax.exp(jv.get_variable("w", [2]))  # pyright: ignore


@case(errors.FailedPreconditionError, store=True)
def handle_initializer() -> None:
    _ = jv.get_variable("w", [2]).initializer


@case(errors.FailedPreconditionError)
def donated_by_assign() -> None:
    state = _state()
    jv.assign(state, "conv1/weights", jnp.zeros([2, 3]), donate=True)  #: donated
    _ = state["conv1/weights"]


@case(errors.FailedPreconditionError)
def donated_by_jit() -> None:
    model = jv.transform(net)
    variables = model.init(0, X)
    jax.jit(lambda v: jv.assign(v, "a/b", jnp.zeros(3)), donate_argnums=0)(variables)
    model.apply(variables, X)


@case(errors.InvalidTypeError)
def state_set_in_place() -> None:
    _state()["conv1/count"] = 1  # pyright: ignore


# The comparison


def _text(name: str) -> str:
    kind, run = CASES[name]
    with pytest.raises(kind) as caught:
        run()
    assert caught.type is kind

    def mark(found: re.Match[str]) -> str:
        line = SOURCE[int(found[1]) - 1]
        assert "#: " in line, f"{name}: the error points to line {found[1]}: {line.strip()}\n{caught.value}"
        return f"<{line.split('#: ')[1].strip()}>"

    return re.sub(re.escape(__file__) + r":(\d+)", mark, str(caught.value)) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_text(name: str) -> None:
    text = _text(name)
    assert text == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    assert "object at 0x" not in text and "jaxvars/" not in text


def test_every_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


@pytest.mark.parametrize(
    ("ours", "builtin"),
    [
        (errors.InvalidArgumentError, ValueError),
        (errors.InvalidTypeError, TypeError),
        (errors.NotFoundError, KeyError),
        (errors.FailedPreconditionError, RuntimeError),
        (errors.TransformError, RuntimeError),
        (errors.OutOfRangeError, IndexError),
        (errors.DataLossError, OSError),
        (errors.UnavailableError, ImportError),
    ],
)
def test_each_is_the_builtin_that_tf1_code_caught(ours: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(ours, builtin) and issubclass(ours, jv.JaxvarsError)
    assert str(ours("two\nlines")) == "two\nlines"


# What a wrong call leaves behind


WRONG_CALLS: dict[str, Callable[[], Any]] = {
    "exists": lambda: jv.get_variable("w", [2]),
    "no shape": lambda: jv.get_variable("new"),
    "bad dtype": lambda: jv.get_variable("new", [2], dtype="flot32"),
    "constant and shape": lambda: jv.get_variable("new", [2], initializer=jnp.ones(2)),
    "bad name": lambda: jv.get_variable("a b", [2]),
    "failing initializer": lambda: jv.get_variable("new", [2], initializer=lambda key, shape, dtype: 1 / 0),
    "collections": lambda: jv.get_variable("new", [2], collections="losses"),
    "regularizer": lambda: jv.get_variable("new", [2], regularizer=3),  # pyright: ignore
    "getter": lambda: jv.get_variable("new", [2], custom_getter=3),  # pyright: ignore
    "no initial value": lambda: jv.Variable(None, name="new"),
    "initial value": lambda: jv.Variable("text", name="new"),
    "scope name": lambda: jv.variable_scope("a b").__enter__(),
    "scope without name": lambda: jv.variable_scope(None).__enter__(),
    "scope reuse": lambda: jv.variable_scope("new", reuse="yes").__enter__(),  # pyright: ignore
    "shape of assign": lambda: jv.global_variables()[0].assign([1.0]),
    "dtype of assign": lambda: jv.global_variables()[0].assign("text"),
    "scatter": lambda: jv.global_variables()[0].scatter_add([9], [1.0]),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_a_wrong_call_leaves_nothing_behind(name: str) -> None:
    def seen() -> Any:
        scope = jv.get_variable_scope()
        collections = [jv.get_collection(key) for key in ("variables", "trainable_variables", "regularization_losses")]
        return scope.name, scope.reuse, jv.get_current_name_scope(), collections, [v.tolist() for v in collections[0]]

    with jv.VariableStore(0) as store:
        with jv.variable_scope("outer"):
            jv.get_variable("w", initializer=[1.0, 2.0])
            before, keys = seen(), list(store.variables)
            with pytest.raises(jv.JaxvarsError):
                WRONG_CALLS[name]()
            assert seen() == before and list(store.variables) == keys
            # Every name is still free, with no number added.
            assert jv.get_variable("new", [2]).key == "outer/new"
            assert jv.Variable(1.0, name="fresh").key == "outer/fresh"
            with jv.variable_scope(None, "new") as scope:
                assert scope.name == "outer/new"
        assert jv.get_variable_scope().name == ""


@pytest.mark.parametrize("run", ["specs", "init", "apply"])
def test_a_failing_model_leaves_nothing_behind(run: str) -> None:
    fails = [True]

    def net(x: Any) -> Any:
        with jv.variable_scope("layer"):
            w = jv.get_variable("w", [2], initializer=jv.ones_initializer())
            w.assign_add(x)
            if fails[0]:
                raise ZeroDivisionError
        return w * 1.0

    model = jv.transform(net)
    given = jv.Variables({"layer/w": jnp.ones(2)})
    calls = {
        "specs": lambda: model.specs(jnp.ones(2)),
        "init": lambda: model.init(0, jnp.ones(2), variables=given),
        "apply": lambda: model.apply(given, jnp.ones(2)),
    }
    with pytest.raises(ZeroDivisionError):
        calls[run]()
    with pytest.raises(errors.FailedPreconditionError):
        jv.get_variable_scope()
    assert given["layer/w"].tolist() == [1, 1]
    fails[0] = False
    out, after = model.apply(given, jnp.ones(2))
    assert out.tolist() == after["layer/w"].tolist() == [2, 2] and list(model.specs(jnp.ones(2))) == ["layer/w"]


def _write_all() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path in GOLDEN.glob("*.txt"):
        path.unlink()
    for name in CASES:
        (GOLDEN / f"{name}.txt").write_text(_text(name), encoding="utf-8")


if __name__ == "__main__":
    _write_all()

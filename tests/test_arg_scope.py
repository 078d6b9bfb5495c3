"""`arg_scope`: defaults of arguments for the functions called inside, as slim code used it."""

from __future__ import annotations

import gc
import inspect
import pickle
import threading
import weakref
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxvars as jv


@jv.add_arg_scope
def block(x: Any, depth: int = 1, *, rate: float = 1.0) -> tuple[Any, int, float]:
    """Return the arguments.

    Example:
      >>> 1 + 1
      2
    """
    return x, depth, rate


@jv.add_arg_scope
def anything(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return kwargs


@jv.add_arg_scope
def positional(x: int = 0, /, y: int = 0) -> tuple[int, int]:
    return x, y


def bare(x: Any, depth: int = 1) -> Any:
    return x, depth


# Which value wins


def test_without_a_scope_nothing_changes() -> None:
    assert block("a") == ("a", 1, 1.0)


def test_a_scope_gives_defaults_to_its_functions_only() -> None:
    with jv.arg_scope([block], depth=3):
        assert block("a") == ("a", 3, 1.0)
        assert anything() == {}
    assert block("a") == ("a", 1, 1.0)


def test_one_scope_serves_several_functions() -> None:
    with jv.arg_scope([block, anything], depth=3):
        assert block("a")[1] == anything()["depth"] == 3


@pytest.mark.parametrize("call", [lambda: block("a", 9), lambda: block("a", depth=9), lambda: block(x="a", depth=9)])
def test_what_a_call_passes_wins(call: Any) -> None:
    with jv.arg_scope([block], depth=3, rate=2.0):
        assert call() == ("a", 9, 2.0)


def test_the_inner_scope_wins_argument_by_argument() -> None:
    with jv.arg_scope([block], depth=3, rate=2.0):
        with jv.arg_scope([block], depth=4):
            assert block("a") == ("a", 4, 2.0)
        assert block("a") == ("a", 3, 2.0)


def test_none_is_a_value() -> None:
    with jv.arg_scope([block], depth=3), jv.arg_scope([block], depth=None):
        assert block("a")[1] is None


def test_arguments_without_default_can_be_given() -> None:
    with jv.arg_scope([block], x="given"):
        assert block() == ("given", 1, 1.0)  # pyright: ignore[reportCallIssue]
        assert block("a") == ("a", 1, 1.0)


# Captured scopes


def test_a_captured_scope_stands_alone_and_opens_again() -> None:
    def defaults() -> Any:
        with jv.arg_scope([block], depth=3), jv.arg_scope([anything], a=1) as scope:
            return scope

    captured = defaults()
    with jv.arg_scope([block], rate=7.0), jv.arg_scope(captured) as again:
        assert block("a") == ("a", 3, 1.0)
        assert anything() == {"a": 1}
        assert again == captured == jv.current_arg_scope()
        with jv.arg_scope([block], depth=5):
            assert block("a")[1] == 5
    assert jv.current_arg_scope() == {}


def test_a_captured_scope_is_a_copy() -> None:
    with jv.arg_scope([block], depth=3) as scope:
        next(iter(scope.values()))["depth"] = 99
        scope.clear()
        assert block("a")[1] == 3
    opened = jv.arg_scope(captured := {next(iter(_captured())): {"depth": 3}})
    captured.clear()
    with opened:
        assert block("a")[1] == 3


def _captured() -> Any:
    with jv.arg_scope([block], depth=3) as scope:
        return scope


def test_the_dict_of_defaults_is_not_shared_with_the_caller() -> None:
    defaults: dict[str, Any] = {"depth": 3}
    with jv.arg_scope([block], **defaults):
        defaults["depth"] = 99
        assert block("a")[1] == 3


def test_one_scope_object_opens_again_and_decorates() -> None:
    scope = jv.arg_scope([block], depth=3)
    for _ in range(2):
        with scope:
            assert block("a")[1] == 3

    @scope
    def inside() -> int:
        return block("a")[1]

    assert (inside(), block("a")[1]) == (3, 1)


# What is wrong


def _refuse(kind: type[Exception], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(kind) as caught:
        jv.arg_scope(*args, **kwargs)
    assert jv.current_arg_scope() == {}
    assert "test_arg_scope.py" in str(caught.value)
    return str(caught.value)


def test_a_function_that_is_not_decorated() -> None:
    text = _refuse(ValueError, [block, bare, len], depth=3)
    assert "bare" in text and "builtins.len" in text and "not decorated with @add_arg_scope" in text
    assert "test_arg_scope.block" not in text


def test_an_argument_that_a_function_does_not_take() -> None:
    text = _refuse(TypeError, [anything, block, jv.layers.dense], dept=3, use_bais=True)
    assert "block has no argument 'dept', did you mean depth?" in text
    assert "dense has no argument 'use_bais', did you mean use_bias?" in text
    assert "anything" not in text


def test_a_positional_only_argument_cannot_be_given() -> None:
    assert "no argument 'x'" in _refuse(TypeError, [positional], x=1)
    with jv.arg_scope([positional], y=2):
        assert positional(5) == (5, 2)


@pytest.mark.parametrize("first", [block, "conv", None])
def test_neither_a_list_nor_a_scope(first: Any) -> None:
    assert "must be a list or tuple of functions, or a captured scope" in _refuse(TypeError, first, depth=3)


def test_a_captured_scope_takes_no_arguments() -> None:
    assert "takes no further arguments" in _refuse(ValueError, _captured(), depth=3)


@pytest.mark.parametrize("what", [3, dict])
def test_only_functions_are_decorated(what: Any) -> None:
    with pytest.raises(TypeError, match="add_arg_scope decorates functions"):
        jv.add_arg_scope(what)


def test_closing_out_of_order_changes_nothing() -> None:
    outer, inner = jv.arg_scope([block], depth=3), jv.arg_scope([block], depth=4)
    with outer, inner:
        with pytest.raises(RuntimeError, match="Improper nesting of arg_scope"):
            outer.__exit__(None, None, None)
        assert block("a")[1] == 4
    assert jv.current_arg_scope() == {}
    with pytest.raises(RuntimeError, match="Improper nesting"):
        outer.__exit__(None, None, None)


def test_an_exception_closes_the_scope() -> None:
    with pytest.raises(KeyError), jv.arg_scope([block], depth=3):
        raise KeyError
    assert block("a")[1] == 1


# The decorator


def test_a_decorated_function_keeps_what_it_is() -> None:
    assert (block.__name__, block.__module__) == ("block", __name__)
    assert block.__doc__ is not None and block.__doc__.startswith("Return the arguments")
    assert list(inspect.signature(block).parameters) == ["x", "depth", "rate"]
    assert isinstance(block, FunctionType) and block.__globals__ is globals()  # doctest collects it
    assert pickle.loads(pickle.dumps(block)) is block
    assert jv.add_arg_scope(block) is block


def test_what_wraps_a_decorated_function_is_not_decorated() -> None:
    import functools

    @functools.wraps(block)
    def wrapped(x: Any) -> Any:
        return block(x)

    assert jv.has_arg_scope(block) and not jv.has_arg_scope(wrapped) and not jv.has_arg_scope(bare)


def test_arguments_that_can_be_scoped() -> None:
    assert jv.arg_scoped_arguments(block) == ("depth", "rate")
    assert jv.arg_scoped_arguments(positional) == ("y",)
    with pytest.raises(ValueError, match="not decorated"):
        jv.arg_scoped_arguments(bare)


def test_every_layer_takes_scoped_arguments() -> None:
    layers = [getattr(jv.layers, name) for name in jv.layers.__all__]
    missing = [layer.__name__ for layer in layers if isinstance(layer, FunctionType) and not jv.has_arg_scope(layer)]
    assert not missing, f"decorate with @add_arg_scope: {missing}"


def test_a_method_and_a_closure_are_functions_of_their_own() -> None:
    def make() -> Any:
        return jv.add_arg_scope(lambda depth=1: depth)

    one, two = make(), make()
    with jv.arg_scope([one], depth=2):
        assert (one(), two()) == (2, 1)


# Threads and frames


def test_a_thread_begins_without_scopes() -> None:
    seen: list[Any] = []
    with jv.arg_scope([block], depth=3):
        thread = threading.Thread(target=lambda: seen.append(block("a")[1]))
        thread.start()
        thread.join()
    assert seen == [1]


def test_eager_models_keep_nothing_that_inner_functions_close_over() -> None:
    """Once a scope was opened, layers look for one, also inside a transform: a run that is given up leaves nothing."""

    def closed_over() -> weakref.ref[Any]:
        array = jnp.ones([1, 8])

        def net(x: Any) -> Any:
            return jax.jit(lambda y: jv.layers.dense(y * array, 8))(x)

        model = jv.transform(net)
        variables = model.init(0, array)
        for _ in range(2):
            model.apply(variables, jnp.ones([1, 8]))
        return weakref.ref(array)

    with jv.arg_scope([jv.layers.dense], use_bias=False):
        array = closed_over()
    gc.collect()
    assert array() is None


def test_layers_as_slim_code_calls_them() -> None:
    def net(images: Any) -> Any:
        with (
            jv.variable_scope("tower"),
            jv.arg_scope([jv.layers.conv2d], padding="same", kernel_size=3, use_bias=False),
            jv.arg_scope([jv.layers.conv2d, jv.layers.max_pooling2d], strides=2),
        ):
            x = jv.layers.conv2d(images, 4, name="conv1")
            x = jv.layers.conv2d(x, 2, 1, strides=1, name="conv2")
            return jv.layers.max_pooling2d(x, 2)

    model, images = jv.transform(net), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    specs = model.specs(images)
    assert {key: spec.shape for key, spec in specs.items()} == {
        "tower/conv1/kernel": (3, 3, 3, 4),
        "tower/conv2/kernel": (1, 1, 4, 2),
    }
    out, _ = jax.eval_shape(model.apply, specs, images)
    assert out.shape == (1, 2, 2, 2)


@jax.jit
def _jitted(x: Any) -> Any:
    return block(x)[1] * x


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_body_that_jax_has_traced_sees_the_scope_it_is_called_in(outer: Any) -> None:
    def net(x: Any) -> Any:
        with jv.arg_scope([block], depth=2):
            two = _jitted(x)
        return two, _jitted(x)

    model = jv.transform(net)
    for _ in range(2):
        (two, one), _ = outer(model.apply)(jv.Variables({}), jnp.float32(1.0))
        assert (float(two), float(one)) == (2.0, 1.0)

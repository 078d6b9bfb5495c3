"""`VariableStore`, the frame kept by hand: cells that run again, values that survive, and every way to misuse it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, TransformError
from jaxvars.frame import open_frame
from jaxvars.scopes import current_graph

ONES = jv.ones_initializer()


@pytest.fixture(autouse=True)
def _no_frame_is_left_open() -> Iterator[None]:
    yield
    assert open_frame() is None and current_graph() is None


def _w(shape: Any = (2,), name: str = "w") -> jv.Variable:
    return jv.get_variable(name, shape, initializer=ONES)


def _key(key: Any) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


# Cells


def _cell() -> tuple[str, ...]:
    with jv.variable_scope("net"):
        w = _w()
    unnamed = jv.Variable(jnp.zeros(3))
    layer = jv.layers.dense(jnp.ones([1, 2]), 2)
    jv.add_to_collection("seen", "anything")
    assert jv.get_collection("seen") == ["anything"] and layer.shape == (1, 2)
    return w.name, unnamed.name


def test_a_cell_may_run_again() -> None:
    store = jv.VariableStore(0)
    with store:
        first = _cell()
    names, values = list(store.variables), dict(store.variables)
    for _ in range(2):
        with store:
            assert _cell() == first
    assert list(store.variables) == names == ["Variable", "dense/bias", "dense/kernel", "net/w"]
    assert all(np.array_equal(store.variables[name], values[name]) for name in names)


def test_the_next_block_is_a_fresh_graph_over_the_values() -> None:
    store = jv.VariableStore(0)
    with store, jv.variable_scope("a") as scope:
        v = _w()
        v.assign_add([1, 2])
        scope.reuse_variables()
    with store:
        assert jv.get_variable_scope().name == "" and jv.global_variables() == []
        with jv.variable_scope("a") as scope:
            assert not scope.reuse
            w = jv.get_variable("w", [2])
        assert w is not v and w.value.tolist() == [2, 3] and jv.global_variables() == [w]
        with pytest.raises(InvalidArgumentError, match="a/w already exists"), jv.variable_scope("a"):
            jv.get_variable("w", [2])


def test_reuse_finds_what_an_earlier_block_made() -> None:
    store = jv.VariableStore(0)
    with store, jv.variable_scope("a"):
        _w()
    with store, jv.variable_scope("a", reuse=True):
        assert jv.get_variable("w").value.tolist() == [1, 1]
        with pytest.raises(ValueError, match=r"a/W does not exist.*Did you mean a/w\?"):
            jv.get_variable("W")


def test_a_new_initializer_does_not_overwrite() -> None:
    store = jv.VariableStore(0)
    with store:
        _w().assign([5.0, 6.0])
    with store:
        assert jv.get_variable("w", [2], initializer=jv.zeros_initializer()).value.tolist() == [5, 6]


@pytest.mark.parametrize("change", [{"shape": [3]}, {"shape": [2], "dtype": "int32"}])
def test_another_shape_or_dtype_says_how_to_begin_anew(change: dict[str, Any]) -> None:
    store = jv.VariableStore(0)
    with store:
        _w()
        _w(name="other")
    with pytest.raises(InvalidArgumentError, match=r"Variable w in this store has (shape|dtype)") as caught, store:
        jv.get_variable("w", **change)
    line = str(caught.value).splitlines()[-1].strip()
    exec(line, {"store": store})
    assert list(store.variables) == ["other"]
    with store:
        jv.get_variable("w", **change)
    assert sorted(store.variables) == ["other", "w"]


# Exceptions


def test_an_exception_leaves_the_values_of_before() -> None:
    store = jv.VariableStore(0)
    with store:
        _w()
    before = store.variables
    with pytest.raises(ZeroDivisionError), store, jv.variable_scope("deep"):
        _w().assign([7.0, 7.0])
        with jv.variable_scope("", reuse=False):
            pass
        _ = 1 / 0
    assert store.variables is before
    with store:
        assert jv.get_variable_scope().name == "" and _w().value.tolist() == [1, 1]


def test_an_exception_caught_inside_the_block_loses_nothing() -> None:
    store = jv.VariableStore(0)
    with store:
        w = _w()
        w.assign([3.0, 4.0])
        for wrong in ([1.0], 2.0):
            with pytest.raises(InvalidArgumentError):
                w.assign(wrong)
        with pytest.raises(InvalidArgumentError), jv.variable_scope("a"):
            jv.get_variable("no shape")
        assert jv.get_variable_scope().name == "" and jv.global_variables() == [w]
    assert list(store.variables) == ["w"] and store.variables["w"].tolist() == [3, 4]


def test_an_exception_gives_the_random_keys_back() -> None:
    store = jv.VariableStore(0)
    drawn: list[Any] = []
    with pytest.raises(ZeroDivisionError), store:
        drawn.append(jv.next_rng_key())
        _ = 1 / 0
    with store:
        drawn.append(jv.next_rng_key())
    assert _key(drawn[0]) == _key(drawn[1])


# store.variables


def test_values_are_settable_outside() -> None:
    store = jv.VariableStore(0)
    store.variables = jv.Variables({"w": jnp.array([1.0, 2.0], "float32"), "unused": 3})
    with store:
        assert jv.get_variable("w", [2]).assign_add([1, 1]).tolist() == [2, 3]
        assert store.variables["w"].tolist() == [2, 3]  # inside: as they are now
    assert store.variables["w"].tolist() == [2, 3] and store.variables["unused"] == 3
    assert jv.VariableStore(0, store.variables).variables is store.variables


def test_values_given_and_values_left_are_separate() -> None:
    given = jv.Variables({"w": jnp.array([1.0, 2.0], "float32")})
    store = jv.VariableStore(0, given)
    with store:
        jv.get_variable("w", [2]).assign([9.0, 9.0])
    assert given["w"].tolist() == [1, 2] and store.variables["w"].tolist() == [9, 9]


@pytest.mark.parametrize("wrong", [{"w": 1.0}, None, [1.0]])
def test_only_variables_are_values(wrong: Any) -> None:
    store = jv.VariableStore(0)
    with pytest.raises(InvalidTypeError, match=r"jv\.Variables"):
        store.variables = wrong
    with store:
        _w()
        with pytest.raises(FailedPreconditionError, match=r"v\.assign\(value\)"):
            store.variables = jv.Variables({})
    assert list(store.variables) == ["w"]


def test_without_rng_random_values_stay_holes() -> None:
    store = jv.VariableStore()
    with store:
        _w(name="constant")
        jv.get_variable("given", initializer=[1.0, 2.0])
        random = jv.get_variable("random", [2])
        with pytest.raises(FailedPreconditionError, match="Attempting to use uninitialized value random"):
            _ = random + 1
        with pytest.raises(FailedPreconditionError, match="uninitialized value random"):
            random.assign_add([1.0, 1.0])
        with pytest.raises(FailedPreconditionError, match=r"jv.next_rng_key.*needs a random key"):
            jv.next_rng_key()
    assert store.variables.uninitialized == ("random",)
    store.variables = jv.variables_initializer(store.variables, 0)
    with jv.VariableStore(0) as seeded:
        jv.get_variable("random", [2])
    assert store.variables["random"].tolist() == seeded.variables["random"].tolist()


def test_a_hole_may_be_assigned() -> None:
    with jv.VariableStore() as store:
        v = jv.get_variable("random", [2])
        v.assign([1.0, 2.0])
        assert (v + 1).tolist() == [2, 3]
    assert store.variables["random"].tolist() == [1, 2]


def test_values_depend_on_the_name_and_not_on_the_block() -> None:
    def value(blocks: list[list[str]]) -> Any:
        store = jv.VariableStore(3)
        for names in blocks:
            with store:
                for name in names:
                    jv.get_variable(name, [2])
        return store.variables["b"].tolist()

    assert value([["a", "b"]]) == value([["b"]]) == value([["a"], ["c"], ["b", "a"]])


# Random keys


def test_keys_go_on_from_block_to_block() -> None:
    one, many = jv.VariableStore(0), jv.VariableStore(0)
    with one:
        expected = [_key(jv.next_rng_key()) for _ in range(4)]
    drawn: list[Any] = []
    for count in (1, 0, 2, 1):
        with many:
            drawn += [_key(jv.next_rng_key()) for _ in range(count)]
    assert drawn == expected and len({tuple(key) for key in drawn}) == 4


def test_keys_drawn_in_a_loop_count_too() -> None:
    store = jv.VariableStore(0)

    def body(carry: Any, _: Any) -> Any:
        return carry, jax.random.key_data(jv.next_rng_key())

    drawn: list[Any] = []
    for _ in range(2):
        with store:
            drawn += np.asarray(jax.lax.scan(body, 0, length=3)[1]).tolist()
            drawn.append(_key(jv.next_rng_key()))
    assert len({tuple(key) for key in drawn}) == 8


# Inside plain JAX transforms


def _twice(f: Callable[[Any], Any], x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (f(c), None), x, length=2)[0]


TRANSFORMS: dict[str, tuple[Callable[[Callable[[Any], Any], Any], Any], int]] = {
    "jit": (lambda f, x: jax.jit(f)(x), 1),
    "scan": (_twice, 2),
    "cond": (lambda f, x: jax.lax.cond(x[0] > 0, f, lambda y: y, x), 1),
    "switch": (lambda f, x: jax.lax.switch(0, [f, lambda y: y], x), 1),
    "checkpoint": (lambda f, x: jax.checkpoint(f)(x), 1),
    "fori_loop": (lambda f, x: jax.lax.fori_loop(0, 3, lambda i, y: f(y), x), 3),
    "while_loop": (lambda f, x: jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, f(s[1])), (0, x))[1], 2),
    "jit of scan": (lambda f, x: jax.jit(lambda y: _twice(f, y))(x), 2),
    "scan of checkpoint": (lambda f, x: _twice(jax.checkpoint(f), x), 2),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("made", ["inside", "outside"])
def test_reads_and_writes_inside(name: str, made: str) -> None:
    transform, times = TRANSFORMS[name]
    store = jv.VariableStore(0)

    def f(x: Any) -> Any:
        with jv.variable_scope("", reuse=jv.AUTO_REUSE):
            count = jv.get_variable("count", [], initializer=jv.zeros_initializer())
            count.assign_add(1.0)
            return x * _w(()) * 2.0

    for cell in (1, 2):
        with store:
            if made == "outside":
                jv.get_variable("count", [], initializer=jv.zeros_initializer())
            out = transform(f, jnp.ones(2))
            assert out.tolist() == [2.0**times] * 2
        assert store.variables["count"] == times * cell and list(store.variables) == ["count", "w"]
        assert all(type(leaf).__name__ == "ArrayImpl" for leaf in store.variables.values())


def test_a_write_after_a_plain_inner_read_is_seen_or_refused() -> None:
    store = jv.VariableStore(0)
    with store:
        w = _w(())
        read = jax.jit(lambda x: x * w)(2.0)
        try:
            jax.jit(lambda x: (w.assign_add(1.0), x)[1])(2.0)
        except FailedPreconditionError as error:
            assert "jv.transform(fn)" in str(error)
        else:
            assert w.value == 2
        assert read == 2


def test_a_jitted_function_sees_the_values_of_each_block() -> None:
    store = jv.VariableStore(0)

    @jax.jit
    def f(x: Any) -> Any:
        with jv.variable_scope("", reuse=jv.AUTO_REUSE):
            return x * _w(())

    results: list[float] = []
    for value in (2.0, 3.0):
        with store:
            _w(()).assign(value)
            results.append(float(f(1.0)))
    assert results == [2, 3]


def test_gradients_through_a_block() -> None:
    store = jv.VariableStore(0)
    with store:
        w = _w()
        assert jax.grad(lambda x: (x * w).sum())(jnp.ones(2)).tolist() == [1, 1]
        assert jax.grad(lambda value: (value**2).sum())(w).tolist() == [2, 2]


def test_a_store_of_outside_takes_no_values_of_a_transform() -> None:
    store = jv.VariableStore(0)
    with store:
        _w()

    @jax.jit
    def write(x: Any) -> Any:
        with store:
            _w().assign_add(x)
        return x

    @jax.jit
    def make(x: Any) -> Any:
        with store:
            jv.Variable(x, name="made")
        return x

    for function, name in ((write, "w"), (make, "made")):
        with pytest.raises(TransformError, match=rf"Variable {name} .*inside a JAX transform.*\n.*jv.transform\(fn\)"):
            function(jnp.ones(2))
    assert list(store.variables) == ["w"] and store.variables["w"].tolist() == [1, 1]


def test_a_store_of_outside_may_be_read_in_a_transform() -> None:
    store = jv.VariableStore(0, jv.Variables({"w": jnp.array([1.0, 2.0], "float32")}))

    @jax.jit
    def read(x: Any) -> Any:
        with store:
            return x * jv.get_variable("w", [2])

    assert read(2.0).tolist() == [2, 4] and store.variables["w"].tolist() == [1, 2]


def test_a_store_made_in_a_transform_lives_there() -> None:
    @jax.jit
    def f(x: Any) -> Any:
        store = jv.VariableStore(0)
        with store:
            _w().assign_add(x)
        with store:
            return _w() * 1.0, store.variables

    out, variables = f(jnp.array([1.0, 2.0]))
    assert out.tolist() == variables["w"].tolist() == [2, 3]


# Nesting


def test_a_model_runs_inside_a_block() -> None:
    model = jv.transform(lambda x: x * _w(name="inner").assign_add([1.0, 1.0]))
    store = jv.VariableStore(0)
    with store:
        w = _w()
        with jv.variable_scope("outer"):
            variables = model.init(0, jnp.ones(2))
            out, after = model.apply(variables, w)
            assert jv.get_variable_scope().name == "outer"
            w.assign(out)
    assert list(variables) == ["inner"] and after["inner"].tolist() == [2, 2]
    assert list(store.variables) == ["w"] and store.variables["w"].tolist() == [2, 2]


def test_a_model_runs_inside_a_model() -> None:
    inner = jv.transform(lambda x: x * _w(name="inner"))

    def net(x: Any, variables: jv.Variables) -> Any:
        w = _w(name="outer")
        out, _ = inner.apply(variables, x + w)
        return jax.jit(lambda y: y * w)(out)

    outer = jv.transform(lambda x, state: net(x, state))
    state = inner.init(0, jnp.ones(2))
    variables = outer.init(0, jnp.ones(2), state)
    assert list(variables) == ["outer"]
    for apply in (outer.apply, jax.jit(outer.apply)):
        assert apply(variables, jnp.ones(2), state)[0].tolist() == [2, 2]


def test_a_block_inside_a_model() -> None:
    def net(x: Any) -> Any:
        w = _w(name="of the model".replace(" ", "_"))
        with jv.VariableStore(0) as store:
            _w(name="of_the_store").assign_add(x)
        return w * store.variables["of_the_store"]

    model = jv.transform(net)
    variables = model.init(0, jnp.ones(2))
    assert list(variables) == ["of_the_model"]
    assert jax.jit(model)(variables, jnp.ones(2)).tolist() == [2, 2]


def test_blocks_of_two_stores_nest() -> None:
    first, second = jv.VariableStore(0), jv.VariableStore(1)
    with first, jv.variable_scope("a"):
        v = _w()
        with second:
            assert jv.get_variable_scope().name == "" and jv.global_variables() == []
            _w(name="b").assign(v + 1)
            v.assign([5.0, 5.0])  # a handle belongs to its own frame
        assert jv.get_variable_scope().name == "a"
    assert list(first.variables) == ["a/w"] and first.variables["a/w"].tolist() == [5, 5]
    assert list(second.variables) == ["b"] and second.variables["b"].tolist() == [2, 2]


def test_a_store_is_not_nested_in_itself() -> None:
    store = jv.VariableStore(0)
    with store:
        _w()
        with pytest.raises(FailedPreconditionError, match="open already"), store:
            pass
        assert jv.global_variables()[0].key == "w"
    assert list(store.variables) == ["w"]


# Misuse


def _yielding(store: jv.VariableStore, name: str) -> Iterator[None]:
    with store:
        _w(name=name)
        yield
        _w(name=f"{name}_later")


def test_generators_closed_out_of_order() -> None:
    first, second = jv.VariableStore(0), jv.VariableStore(0)
    a, b = _yielding(first, "a"), _yielding(second, "b")
    next(a)
    next(b)
    with pytest.raises(FailedPreconditionError, match=r"Improper nesting of VariableStore at .*test_store.py"):
        next(a)
    assert list(first.variables) == []
    assert next(b, None) is None
    assert "b" in second.variables
    with pytest.raises(FailedPreconditionError, match="outside of a frame"):
        _w()
    with first:
        _w()
    assert list(first.variables) == ["w"]


def test_an_abandoned_generator_counts_for_nothing() -> None:
    store = jv.VariableStore(0)
    generator = _yielding(store, "a")
    next(generator)
    del generator
    gc.collect()
    assert list(store.variables) == [] and open_frame() is None
    with store:
        _w()
    assert list(store.variables) == ["w"]


def test_exit_without_enter() -> None:
    with pytest.raises(FailedPreconditionError, match="not open"):
        jv.VariableStore(0).__exit__(None, None, None)


def test_generators_and_coroutines_are_no_model_functions() -> None:
    def generator() -> Iterator[Any]:
        yield _w()

    async def coroutine() -> Any:
        return _w()

    for function in (generator, coroutine):
        with pytest.raises(InvalidTypeError, match=rf"{function.__name__}.*generator or coroutine"):
            jv.transform(function)


# Threads and tasks


def _in_thread(f: Callable[[], Any]) -> Any:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(f())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def test_a_thread_has_no_frame_of_another() -> None:
    with jv.VariableStore(0):
        assert isinstance(_in_thread(_w), FailedPreconditionError)


def test_threads_each_with_their_own_store() -> None:
    barrier = threading.Barrier(4)
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        store = jv.VariableStore(number)
        for _ in range(3):
            with store, jv.variable_scope(f"thread{number}"):
                barrier.wait(30)
                w = _w()
                jax.jit(w.assign_add)(jnp.full(2, float(number)))
                barrier.wait(30)
                assert [v.key for v in jv.global_variables()] == [f"thread{number}/w"]
        results[number] = {name: value.tolist() for name, value in store.variables.items()}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: {f"thread{n}/w": [1 + 3 * n] * 2} for n in range(4)}


def test_a_block_is_closed_in_its_own_thread() -> None:
    store = jv.VariableStore(0)
    store.__enter__()
    _w()
    error = _in_thread(lambda: store.__exit__(None, None, None))
    assert isinstance(error, FailedPreconditionError) and "another thread" in str(error)
    with pytest.raises(FailedPreconditionError, match="outside of a frame"):
        _w()
    assert list(store.variables) == []


def test_tasks_each_with_their_own_store() -> None:
    async def work(number: int) -> Any:
        store = jv.VariableStore(0)
        for _ in range(3):
            with store, jv.variable_scope(f"task{number}"):
                await asyncio.sleep(0.001 * (number % 3))
                w = _w()
                await asyncio.sleep(0.001 * ((number + 1) % 3))
                jax.jit(w.assign_add)(jnp.full(2, float(number)))
                assert [v.key for v in jv.global_variables()] == [f"task{number}/w"]
        return {name: value.tolist() for name, value in store.variables.items()}

    async def main() -> Any:
        return await asyncio.gather(*(work(number) for number in range(5)))

    assert asyncio.run(main()) == [{f"task{n}/w": [1 + 3 * n] * 2} for n in range(5)]


def test_a_task_outlives_the_block_it_began_in() -> None:
    async def late() -> Any:
        await asyncio.sleep(0.01)
        try:
            return _w()
        except FailedPreconditionError as error:
            return error

    async def main() -> Any:
        with jv.VariableStore(0) as store:
            task = asyncio.create_task(late())
            _w(name="early")
        result = await task
        with store:
            _w(name="after")
        return result, list(store.variables)

    result, names = asyncio.run(main())
    assert isinstance(result, FailedPreconditionError) and names == ["after", "early"]


# What a block keeps alive


def test_a_closed_block_keeps_nothing_but_its_values() -> None:
    store = jv.VariableStore(0)
    with store:
        w = _w([1000])
        old = weakref.ref(w.value)
        w.assign(jnp.zeros(1000))
        jax.jit(lambda: w + 1)()
    gc.collect()
    assert old() is None
    last = weakref.ref(store.variables["w"])
    store.variables = jv.Variables({})
    gc.collect()
    assert last() is None and w.key == "w"

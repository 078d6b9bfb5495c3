"""What must not regress, as counts: traces, compilations, Python calls, live arrays. Nothing here is timed."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations, layout_comparisons, python_calls

import jaxvars as jv
from jaxvars.frame import current_frame

X = jnp.ones([4, 8])


class Interrupted(Exception):
    """What a model raises in the middle."""


def _layers(x: Any, fail: bool = False) -> Any:
    """Touches variables at frame level only."""
    steps = jv.get_variable("steps", [], "int32", initializer=jv.zeros_initializer(), trainable=False)
    steps.assign_add(1)
    for i in range(4):
        with jv.variable_scope(f"layer{i}"):
            w = jv.get_variable("w", [8, 8])
            b = jv.get_variable("b", [1, 8], initializer=jv.zeros_initializer())
            x = jnp.tanh(x @ w + b)
            if fail and i == 2:
                raise Interrupted
    return x


def _loops(x: Any, fail: bool = False) -> Any:
    """Reads and writes variables inside plain ``jit`` and ``scan``."""

    def layer(y: Any, _: Any) -> Any:
        w = jv.get_variable("w", [8, 8])
        steps = jv.get_variable("steps", [], "int32", initializer=jv.zeros_initializer(), trainable=False)
        steps.assign_add(1)
        return jnp.tanh(y @ w), None

    with jv.variable_scope("scanned"):
        x, _ = jax.lax.scan(layer, x, length=3)
    with jv.variable_scope("jitted"):
        x = jax.jit(lambda y: layer(y, None)[0])(x)
    if fail:
        raise Interrupted
    return x


MODELS = {"frame level": _layers, "inside jit and scan": _loops}


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


# States


def test_a_steady_jitted_call_neither_compares_nor_hashes_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = jv.Variables({f"v{i}": float(i) for i in range(50)})
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree))
    for _ in range(3):
        variables = step(variables)
    calls = layout_comparisons(monkeypatch)
    assert variables._layout == variables._layout
    assert calls  # they are counted
    calls.clear()
    for _ in range(10):
        variables = step(variables)
    assert calls == []


def test_one_trace_of_a_step_with_apply_and_assign() -> None:
    model = jv.transform(_loops)
    variables = model.init(0, X)
    traces = []

    @jax.jit
    def step(variables: jv.Variables) -> jv.Variables:
        traces.append(1)
        _, variables = model.apply(variables, X)
        variables = jv.assign_add(variables, "jitted/w", jnp.ones([8, 8]))
        return variables.replace({"scanned/steps": variables["scanned/steps"] + 1})

    for number in range(10):
        if number == 5:
            variables = jax.tree.map(np.asarray, variables)  # as a restored state is
        variables = step(variables)
        variables = jv.assign(variables, "jitted/steps", number)
    assert len(traces) == 1
    assert variables["scanned/steps"] == 40


def test_an_assignment_compiles_once() -> None:
    variables = jv.Variables({f"v{i}": jnp.zeros([3, 5]) for i in range(10)})
    jv.assign_add(variables, "v0", jnp.ones([3, 5]))
    with compilations() as seen:
        for i in range(10):
            variables = jv.assign_add(variables, f"v{i}", jnp.ones([3, 5]))
    assert seen == []


# Eager applies


@pytest.mark.parametrize("failing", [False, True], ids=["all succeed", "every second raises"])
@pytest.mark.parametrize("kind", MODELS)
def test_eager_applies_neither_compile_nor_grow(kind: str, failing: bool) -> None:
    model = jv.transform(MODELS[kind])
    variables = model.init(0, X)

    def apply(number: int) -> None:
        nonlocal variables
        fail = failing and number % 2 == 1
        with suppress(Interrupted):
            _, variables = model.apply(variables, X, fail)
            assert not fail

    for number in range(2):
        apply(number)
    with compilations() as seen:
        for number in range(20):
            apply(number)
        gc.collect()
        arrays, resident = len(jax.live_arrays()), _resident_bytes()
        for number in range(80):
            apply(number)
    gc.collect()
    assert seen == []
    assert len(jax.live_arrays()) == arrays
    assert _resident_bytes() - resident < 5 * 2**20


@pytest.mark.parametrize("failing", [False, True], ids=["succeeds", "raises"])
@pytest.mark.parametrize("kind", MODELS)
def test_nothing_of_a_frame_outlives_it(kind: str, failing: bool) -> None:
    frames: list[weakref.ref[Any]] = []

    def model_fn(x: Any, fail: bool = False) -> Any:
        frames.append(weakref.ref(current_frame()))
        return MODELS[kind](x, fail)

    model = jv.transform(model_fn)
    variables = model.init(0, X)
    # Values of their own, which no cache of initial values may hold.
    variables = jax.tree.map(lambda v: v + 0, variables)
    arrays = [weakref.ref(leaf) for leaf in variables._leaves]
    after = None
    with suppress(Interrupted):
        _, after = model.apply(variables, X, failing)
    if after is not None:
        arrays += [weakref.ref(leaf) for leaf in after._leaves]
    del variables, after
    gc.collect()
    assert frames
    assert [ref() for ref in frames] == [None] * len(frames)
    assert [ref() for ref in arrays] == [None] * len(arrays)


def test_a_kept_handle_keeps_no_array() -> None:
    handles: list[Any] = []

    def model_fn() -> Any:
        handles.append(jv.get_variable("w", [3], initializer=jv.ones_initializer()))
        return handles[-1] * 2

    model = jv.transform(model_fn)
    variables = jax.tree.map(lambda v: v + 0, model.init(0))
    arrays = [weakref.ref(leaf) for leaf in variables._leaves]
    model.apply(variables)
    del variables
    gc.collect()
    assert [ref() for ref in arrays] == [None]
    assert [handle.key for handle in handles] == ["w", "w"]


# Python calls on the hot path


def _reads(count: int) -> Callable[[], None]:
    def model_fn() -> None:
        with jv.variable_scope("scope"):
            for i in range(count):
                jv.get_variable(f"v{i}", [3])

    return model_fn


def test_python_calls_per_read() -> None:
    many, few = jv.transform(_reads(200)), jv.transform(_reads(100))
    variables = many.init(0)
    many.apply(variables)
    calls = python_calls(lambda: many.apply(variables)) - python_calls(lambda: few.apply(variables))
    assert calls / 100 <= 36


def test_python_calls_per_scope() -> None:
    def scopes(count: int) -> Callable[[], None]:
        def model_fn() -> None:
            for i in range(count):
                with jv.variable_scope(f"scope{i}"):
                    pass

        return model_fn

    many, few = jv.transform(scopes(200)), jv.transform(scopes(100))
    variables = jv.Variables({})
    many.apply(variables)
    calls = python_calls(lambda: many.apply(variables)) - python_calls(lambda: few.apply(variables))
    assert calls / 100 <= 25

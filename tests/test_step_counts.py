"""That a training step over `Variables` is as fast as one over a dict, in counts: its program, traces, Python calls."""

from __future__ import annotations

import pickle
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from counting import layout_comparisons

import jaxvars as jv

X = jnp.linspace(-1.0, 1.0, 32, dtype="float32").reshape(4, 8)
TX = optax.adam(1e-2)
Network = Callable[[Callable[[str, list[int]], Any], Any], Any]


def _dense(get: Any, x: Any) -> Any:
    """Layers that read their variables."""
    for i in range(3):
        x = jnp.tanh(x @ get(f"layer{i}/kernel", [8, 8]) + get(f"layer{i}/bias", [1, 8]))
    return x


def _looped(get: Any, x: Any) -> Any:
    """Layers that are read in the body of a scan and under a remat."""

    def layer(x: Any, _: Any) -> Any:
        return jnp.tanh(x @ get("scanned/kernel", [8, 8])), None

    x = jax.lax.scan(layer, x, length=3)[0]
    return jax.checkpoint(lambda x: jnp.sin(x @ get("remat/kernel", [8, 8])))(x)


NETWORKS: dict[str, Network] = {"layers": _dense, "scan and remat": _looped}


def _ours(network: Network) -> tuple[jv.Model, jv.Variables]:
    model = jv.transform(lambda x: network(jv.get_variable, x))
    return model, model.init(0, X)


def _loss_fn(model: jv.Model) -> Callable[[jv.Variables, Any], Any]:
    def loss_fn(variables: jv.Variables, x: Any) -> Any:
        out, variables = model.apply(variables, x)
        return jnp.mean(jnp.square(out)), variables

    return loss_fn


def _step_with_optax(model: jv.Model) -> Any:
    def step(state: Any, x: Any) -> Any:
        variables, slots = state
        (loss, variables), grads = jv.value_and_grad(_loss_fn(model), has_aux=True)(variables, x)
        updates, slots = TX.update(grads, slots, variables)
        return loss, (optax.apply_updates(variables, updates), slots)

    return step


def _raw_step(network: Network) -> Any:
    def step(state: Any, x: Any) -> Any:
        params, slots = state

        def loss_fn(params: Any) -> Any:
            return jnp.mean(jnp.square(network(lambda name, shape: params[name], x)))

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, slots = TX.update(grads, slots, params)
        return loss, (optax.apply_updates(params, updates), slots)

    return step


def _lowered(step: Any, state: Any) -> Any:
    return jax.jit(step, donate_argnums=0).lower(state, X)


def _operations(lowered: Any) -> Counter[str]:
    """How often each operation stands in the program that JAX gives to XLA."""
    found = Counter(re.findall(r"(?:stablehlo|chlo|func)\.\w+|\bcall\b", lowered.as_text()))
    assert found["stablehlo.dot_general"] > 3  # they are counted
    return found


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_program_of_a_step_is_the_raw_one(network: Network) -> None:
    model, variables = _ours(network)
    ours = _lowered(_step_with_optax(model), (variables, TX.init(variables)))
    params = dict(variables)
    raw = _lowered(_raw_step(network), (params, TX.init(params)))
    assert _operations(ours) == _operations(raw)
    text = ours.as_text()
    assert text.count("tf.aliasing_output") == raw.as_text().count("tf.aliasing_output") > 0  # as much is donated
    assert ours.cost_analysis() == raw.cost_analysis()


def test_our_adam_needs_no_more_operations_than_optax() -> None:
    model, variables = _ours(_dense)
    optimizer = jv.train.AdamOptimizer(1e-2)

    def step(variables: jv.Variables, x: Any) -> Any:
        (loss, variables), grads = jv.value_and_grad(_loss_fn(model), has_aux=True)(variables, x)
        return loss, optimizer.apply_gradients(grads, variables)

    ours = _lowered(step, optimizer.init(variables))
    optax_step = _lowered(_step_with_optax(model), (variables, TX.init(variables)))
    assert _operations(ours).total() <= _operations(optax_step).total()
    assert ours.as_text().count("tf.aliasing_output") == len(optimizer.init(variables))  # all of the state is donated


def test_a_moving_average_costs_what_it_computes() -> None:
    def network(x: Any) -> Any:
        average = jv.get_variable("average", [1, 8], initializer=jv.zeros_initializer(), trainable=False)
        average.assign(0.9 * average + 0.1 * x.mean(axis=0, keepdims=True))
        return x @ jv.get_variable("kernel", [8, 8])

    model = jv.transform(network)
    variables = model.init(0, X)

    def raw(params: Any, x: Any) -> Any:
        average = 0.9 * params["average"] + 0.1 * x.mean(axis=0, keepdims=True)
        return x @ params["kernel"], {"average": average, "kernel": params["kernel"]}

    ours = jax.jit(model.apply).lower(variables, X).as_text()
    theirs = jax.jit(raw).lower(dict(variables), X).as_text()
    count = Counter(re.findall(r"stablehlo\.\w+", ours))
    assert count == Counter(re.findall(r"stablehlo\.\w+", theirs))
    assert count["stablehlo.dot_general"] == 1


# The state comes back in other ways


def _pickled(variables: jv.Variables, folder: Path) -> jv.Variables:
    return pickle.loads(pickle.dumps(variables))


def _restored(variables: jv.Variables, folder: Path) -> jv.Variables:
    path = jv.checkpoint.save(variables, folder / "state.npz")
    return jv.checkpoint.restore(path, variables)


def _in_another_thread(variables: jv.Variables, folder: Path) -> jv.Variables:
    made: list[jv.Variables] = []
    thread = threading.Thread(target=lambda: made.append(pickle.loads(pickle.dumps(variables))))
    thread.start()
    thread.join()
    return made[0]


def _made_anew(variables: jv.Variables, folder: Path) -> jv.Variables:
    return _in_order(variables, variables._layout.creation_order)


def _made_in_another_order(variables: jv.Variables, folder: Path) -> jv.Variables:
    return _in_order(variables, variables._layout.creation_order[::-1])


def _in_order(variables: jv.Variables, keys: Sequence[str]) -> jv.Variables:
    specs = variables.variable_specs
    return jv.Variables.from_specs((specs[key], np.asarray(variables[key])) for key in keys)


def _assigned(variables: jv.Variables, folder: Path) -> jv.Variables:
    return jv.assign_add(variables, "layer0/bias", jnp.ones([1, 8]))


# How often a layout may be compared, in all: once per state that comes in with other notes, which are not compared.
WAYS = {_pickled: 0, _restored: 0, _in_another_thread: 0, _made_anew: 0, _assigned: 0, _made_in_another_order: 2}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_no_second_trace_and_no_python_call(way: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, variables = _ours(_dense)
    optimizer = jv.train.AdamOptimizer(1e-2)
    variables = optimizer.init(variables)
    traces: list[int] = []

    @jax.jit
    def step(variables: jv.Variables, x: Any) -> Any:
        traces.append(1)
        (loss, variables), grads = jv.value_and_grad(_loss_fn(model), has_aux=True)(variables, x)
        return loss, optimizer.apply_gradients(grads, variables)

    _, variables = step(variables, X)
    _, variables = step(variables, X)
    again = way(variables, tmp_path)
    calls = layout_comparisons(monkeypatch)
    assert again._layout == variables._layout
    assert calls  # they are counted
    calls.clear()
    results: list[Any] = []

    def steps() -> None:
        state = again
        for _ in range(3):
            loss, state = step(state, X)
        results.append(loss)

    steps()
    thread = threading.Thread(target=steps)
    thread.start()
    thread.join()
    assert len(results) == 2 and results[0] == results[1]
    assert len(traces) == 1
    assert len(calls) <= WAYS[way], calls

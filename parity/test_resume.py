"""A run begun in one of the two goes on in the other: weights, slots, averages, counters; every later step agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from parity.live import fresh_graph, tf

BEFORE, AFTER = 5, 10
X = np.random.RandomState(0).standard_normal((8, 4)).astype(np.float32)
Y = np.sin(X.sum(1, keepdims=True)).astype(np.float32)


class Run(NamedTuple):
    """How a model is trained, in words that both libraries know."""

    optimizer: Callable[[Any, Any], Any]
    decays: bool = False
    slices: int = 1


RUNS = {
    "Adam": Run(lambda train, rate: train.AdamOptimizer(rate, epsilon=1e-4)),
    "Momentum": Run(lambda train, rate: train.MomentumOptimizer(rate, 0.9)),
    "Nesterov": Run(lambda train, rate: train.MomentumOptimizer(rate, 0.9, use_nesterov=True)),
    "RMSProp": Run(lambda train, rate: train.RMSPropOptimizer(rate, momentum=0.5, epsilon=1e-3)),
    "centered RMSProp": Run(lambda train, rate: train.RMSPropOptimizer(rate, epsilon=1e-3, centered=True)),
    "Adagrad": Run(lambda train, rate: train.AdagradOptimizer(rate)),
    "Adam, rate decays": Run(lambda train, rate: train.AdamOptimizer(rate, epsilon=1e-4), decays=True),
    "Adam, partitioned": Run(lambda train, rate: train.AdamOptimizer(rate, epsilon=1e-4), slices=3),
    "Momentum, partitioned": Run(lambda train, rate: train.MomentumOptimizer(rate, 0.9), decays=True, slices=2),
}


def weights(api: Any, run: Run) -> list[Any]:
    cut = api.fixed_size_partitioner(run.slices) if run.slices > 1 else None
    with api.variable_scope("net"):
        w = api.get_variable("w", [4, 5], initializer=api.constant_initializer(0.3), partitioner=cut)
        b = api.get_variable("b", [1, 5], initializer=api.constant_initializer(0.1))
        with api.variable_scope("head"):
            return [w, b, api.get_variable("v", [5, 1], initializer=api.constant_initializer(-0.2))]


def rate(train: Any, run: Run, step: Any) -> Any:
    if not run.decays:
        return 0.05
    decay = {"decay_steps": 3, "decay_rate": 0.7, "staircase": True}
    return train.exponential_decay(0.05, step, **decay) if step is not None else train.exponential_decay(0.05, **decay)


class Theirs:
    """The run in TensorFlow, in the graph and session that are open."""

    def __init__(self, run: Run, resource: bool) -> None:
        with tf.variable_scope("", use_resource=resource):
            step = tf.train.get_or_create_global_step()
            w, b, v = map(tf.convert_to_tensor, weights(tf, run))
            loss = tf.reduce_mean(tf.square(tf.matmul(tf.tanh(tf.matmul(X, w) + b), v) - Y))
            self.train = run.optimizer(tf.train, rate(tf.train, run, step)).minimize(loss, global_step=step)
            self.average = tf.train.ExponentialMovingAverage(0.9).apply(tf.trainable_variables())
        self.session = tf.get_default_session()
        self.saver = tf.train.Saver()

    def step(self) -> None:
        self.session.run(self.train)
        self.session.run(self.average)

    def values(self) -> dict[str, np.ndarray]:
        """All variables, by the name in a checkpoint; slices joined."""
        parts: dict[str, list[np.ndarray]] = {}
        for variable in tf.global_variables():
            info = variable._get_save_slice_info()
            parts.setdefault(info.full_name if info else variable.op.name, []).append(self.session.run(variable))
        return {name: np.concatenate(found) if len(found) > 1 else found[0] for name, found in parts.items()}


class Ours:
    """The run in jaxvars."""

    def __init__(self, run: Run) -> None:
        def net(x: Any) -> Any:
            w, b, v = map(jnp.asarray, weights(jv, run))
            return jnp.tanh(x @ w + b) @ v

        self.model = jv.transform(net)
        self.optimizer = run.optimizer(jv.train, rate(jv.train, run, None))
        self.ema = jv.train.ExponentialMovingAverage(0.9)

        def loss(variables: jv.Variables) -> Any:
            return jnp.mean(jnp.square(self.model(variables, X) - Y))

        @jax.jit
        def step(variables: jv.Variables) -> jv.Variables:
            grads = jv.grad(loss)(variables)
            return self.ema.apply(self.optimizer.apply_gradients(grads, variables, global_step="global_step"))

        self.step = step

    def begun(self, variables: jv.Variables) -> jv.Variables:
        """Add what a run needs to the weights: the counter, the slots, the averages."""
        return self.ema.init(self.optimizer.init(jv.train.create_global_step(variables)))


def agree(variables: jv.Variables, theirs: dict[str, np.ndarray], when: str) -> None:
    assert set(variables) == set(theirs)
    for name, value in theirs.items():
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(variables[name], value, rtol=1e-5, atol=2e-6 * scale, err_msg=f"{name}, {when}")


def go_on(ours: Ours, variables: jv.Variables, theirs: Theirs) -> None:
    """Both sides hold the same; so do they after each further step."""
    agree(variables, theirs.values(), "restored")
    assert int(variables["global_step"]) == BEFORE
    for number in range(AFTER):
        variables = ours.step(variables)
        theirs.step()
        agree(variables, theirs.values(), f"{number + 1} steps later")


@pytest.mark.parametrize("resource", [False, True])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_tensorflow_began_goes_on_in_jaxvars(tmp_path: Path, name: str, resource: bool) -> None:
    run = RUNS[name]
    with fresh_graph() as session:
        theirs = Theirs(run, resource)
        session.run(tf.global_variables_initializer())
        for _ in range(BEFORE):
            theirs.step()
        path = theirs.saver.save(session, str(tmp_path / "model.ckpt"), global_step=BEFORE)
        ours = Ours(run)
        holes = ours.begun(ours.model.specs(X))
        go_on(ours, jv.checkpoint.restore(path, holes), theirs)
    # The graph beside the checkpoint says the same as the Python code.
    declared = jv.checkpoint.graph_variables(path)
    assert {k: (v.shape, v.dtype) for k, v in declared.items()} == {k: (v.shape, v.dtype) for k, v in holes.items()}
    assert list(declared.trainable) == list(holes.trainable)
    assert list(declared.collection("moving_average_variables")) == list(holes.collection("moving_average_variables"))


@pytest.mark.parametrize("resource", [False, True])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_jaxvars_began_goes_on_in_tensorflow(tmp_path: Path, name: str, resource: bool) -> None:
    run = RUNS[name]
    ours = Ours(run)
    variables = ours.begun(ours.model.init(0, X))
    for _ in range(BEFORE):
        variables = ours.step(variables)
    path = jv.checkpoint.save(variables, tmp_path / "model.ckpt", format="tf")
    assert tf.train.load_variable(path, "global_step").dtype == np.int64
    with fresh_graph() as session:
        theirs = Theirs(run, resource)
        theirs.saver.restore(session, path)
        go_on(ours, variables, theirs)


@pytest.mark.parametrize("name", ["Adam", "Adam, partitioned"])
def test_there_and_back_again_changes_no_bit(tmp_path: Path, name: str) -> None:
    run = RUNS[name]
    with fresh_graph() as session:
        theirs = Theirs(run, False)
        session.run(tf.global_variables_initializer())
        theirs.step()
        first = theirs.saver.save(session, str(tmp_path / "first"))
        whole = jv.checkpoint.restore(first, jv.checkpoint.graph_variables(first))
        second = jv.checkpoint.save(whole, tmp_path / "second", format="tf")
        for suffix in (".index", ".data-00000-of-00001"):
            assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()
        session.run(tf.global_variables_initializer())
        theirs.saver.restore(session, second)
        agree(whole, theirs.values(), "restored again")

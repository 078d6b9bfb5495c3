"""Names of slots made inside a variable scope, and the optimizers for sparse weights, as TensorFlow has them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from parity.live import fresh_graph, tf

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("AdamOptimizer", {"learning_rate": 0.1, "name": "MyAdam"}),
    "momentum": ("MomentumOptimizer", {"learning_rate": 0.1, "momentum": 0.9}),
    "rmsprop": ("RMSPropOptimizer", {"learning_rate": 0.1, "centered": True}),
    "adadelta": ("AdadeltaOptimizer", {"learning_rate": 0.1}),
    "ftrl": ("FtrlOptimizer", {"learning_rate": 0.1}),
    "proximal": ("ProximalGradientDescentOptimizer", {"learning_rate": 0.25, "l2_regularization_strength": 0.5}),
    "proximal, sparse": (
        "ProximalGradientDescentOptimizer",
        {"learning_rate": 0.25, "l1_regularization_strength": 0.5},
    ),
    "proximal adagrad": ("ProximalAdagradOptimizer", {"learning_rate": 0.25, "l2_regularization_strength": 0.125}),
    "proximal adagrad, sparse": (
        "ProximalAdagradOptimizer",
        {"learning_rate": 0.25, "l1_regularization_strength": 0.25, "initial_accumulator_value": 0.5},
    ),
    "dual averaging": ("AdagradDAOptimizer", {"learning_rate": 0.25, "l2_regularization_strength": 0.125}),
    "dual averaging, sparse": (
        "AdagradDAOptimizer",
        {"learning_rate": 0.25, "l1_regularization_strength": 0.125, "name": "Mine"},
    ),
}
GRADIENTS = [np.array([1.0, -0.25, 0.0], np.float32), np.array([0.5, 0.125, -2.0], np.float32)]


@pytest.mark.parametrize("scope", ["", "train", "a/b"])
@pytest.mark.parametrize("case", list(OPTIMIZERS))
def test_names_and_steps(case: str, scope: str) -> None:
    kind, arguments = OPTIMIZERS[case]
    start = {"train/w": np.ones(3, np.float32), "b": np.array([0.5, -1.0, 2.0], np.float32)}
    with fresh_graph() as session:
        made = [tf.get_variable(name, initializer=tf.constant(value)) for name, value in start.items()]
        step = tf.train.create_global_step()
        given = {"global_step": step} if kind == "AdagradDAOptimizer" else {}
        fed = [tf.placeholder(tf.float32, [3]) for _ in made]
        with tf.variable_scope(scope or tf.get_variable_scope()):
            optimizer = getattr(tf.train, kind)(**arguments, **given)
            op = optimizer.apply_gradients(list(zip(fed, made, strict=True)), step)
        session.run(tf.global_variables_initializer())
        names = [v.op.name for v in tf.global_variables()]
        theirs = []
        for gradient in (*GRADIENTS, *GRADIENTS):
            session.run(op, dict.fromkeys(fed, gradient))
            theirs.append({v.op.name: session.run(v) for v in tf.global_variables()})

    variables = jv.train.create_global_step(jv.Variables(start))
    given = {"global_step": "global_step"} if given else {}
    ours = getattr(jv.train, kind)(**arguments, **given, scope=scope)
    variables = ours.init(variables)
    assert list(variables._layout.creation_order) == names
    for gradient, wanted in zip((*GRADIENTS, *GRADIENTS), theirs, strict=True):
        grads = dict.fromkeys(start, jnp.asarray(gradient))
        variables = ours.apply_gradients(grads, variables, global_step="global_step")
        for name, value in wanted.items():
            np.testing.assert_allclose(variables[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
            assert np.array_equal(np.asarray(variables[name]) == 0, value == 0)  # exact zeros in the same places

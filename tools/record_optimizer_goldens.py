"""Record what TensorFlow 1's optimizers and schedules compute, for tests/golden/optimizers.json.

Run in an environment with tensorflow (the `parity` extra):

    python tools/record_optimizer_goldens.py

Every case feeds the same gradients, step by step, through `tf.compat.v1` and notes each variable (slots
included) after every step, under the names TensorFlow gave them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()
v1.disable_resource_variables()

OUT = Path(__file__).resolve().parent.parent / "tests" / "golden" / "optimizers.json"
STEPS = 4
RATE = 0.25
W0 = [[1.0, -2.0, 0.5], [0.0, 3.0, -0.125]]
B0 = [0.1, -0.2, 0.3]

# (name of the case, TF class, keyword arguments)
CASES = [
    ("sgd", "GradientDescentOptimizer", {"learning_rate": RATE}),
    ("momentum", "MomentumOptimizer", {"learning_rate": RATE, "momentum": 0.9}),
    ("nesterov", "MomentumOptimizer", {"learning_rate": RATE, "momentum": 0.9, "use_nesterov": True}),
    ("adam", "AdamOptimizer", {}),
    ("adam_large_epsilon", "AdamOptimizer", {"learning_rate": RATE, "beta1": 0.5, "epsilon": 0.1}),
    ("rmsprop", "RMSPropOptimizer", {"learning_rate": RATE}),
    (
        "rmsprop_momentum",
        "RMSPropOptimizer",
        {"learning_rate": RATE, "decay": 0.8, "momentum": 0.7, "epsilon": 0.01},
    ),
    (
        "rmsprop_centered",
        "RMSPropOptimizer",
        {"learning_rate": RATE, "momentum": 0.5, "centered": True, "epsilon": 1e-3},
    ),
    ("adagrad", "AdagradOptimizer", {"learning_rate": RATE}),
    ("adagrad_accumulator", "AdagradOptimizer", {"learning_rate": RATE, "initial_accumulator_value": 2.0}),
    ("adadelta", "AdadeltaOptimizer", {}),
    ("adadelta_fast", "AdadeltaOptimizer", {"learning_rate": 1.0, "rho": 0.5, "epsilon": 0.01}),
    ("ftrl", "FtrlOptimizer", {"learning_rate": RATE}),
    (
        "ftrl_regularized",
        "FtrlOptimizer",
        {
            "learning_rate": RATE,
            "l1_regularization_strength": 0.05,
            "l2_regularization_strength": 0.1,
            "initial_accumulator_value": 0.5,
        },
    ),
    (
        "ftrl_shrinkage",
        "FtrlOptimizer",
        {
            "learning_rate": RATE,
            "learning_rate_power": -0.3,
            "l1_regularization_strength": 0.01,
            "l2_shrinkage_regularization_strength": 0.2,
            "beta": 0.5,
        },
    ),
]


def gradients() -> dict[str, np.ndarray]:
    rng = np.random.RandomState(7)
    grads = {
        "net/w": rng.randn(STEPS, 2, 3).astype(np.float32),
        "net/b": rng.randn(STEPS, 3).astype(np.float32),
    }
    grads["net/w"][1, 0] = 0.0  # a row without gradient, as in an embedding
    return grads


def build() -> dict[str, tf.Variable]:
    with v1.variable_scope("net"):
        return {
            "net/w": v1.get_variable("w", initializer=tf.constant(W0)),
            "net/b": v1.get_variable("b", initializer=tf.constant(B0)),
        }


def read(session: v1.Session) -> dict[str, list]:
    return {v.op.name: session.run(v).tolist() for v in v1.global_variables()}


def trajectory(cls: str, kwargs: dict, grads: dict[str, np.ndarray]) -> dict:
    with tf.Graph().as_default(), v1.Session() as session:
        variables = build()
        feeds = {k: v1.placeholder(tf.float32, v.shape) for k, v in variables.items()}
        optimizer = getattr(v1.train, cls)(**kwargs)
        train = optimizer.apply_gradients([(feeds[k], variables[k]) for k in variables])
        session.run(v1.global_variables_initializer())
        states = [read(session)]
        for step in range(STEPS):
            session.run(train, {feeds[k]: grads[k][step] for k in variables})
            states.append(read(session))
    return {"class": cls, "arguments": kwargs, "states": states}


def names() -> dict[str, list[str]]:
    """The names of slots where several optimizers, names or scopes meet."""
    result = {}

    def record(key, make):
        with tf.Graph().as_default():
            variables = build()
            grads = {k: tf.zeros(v.shape) for k, v in variables.items()}

            def apply(optimizer, *keys):
                optimizer.apply_gradients([(grads[k], variables[k]) for k in keys])

            make(apply)
            result[key] = [v.op.name for v in v1.global_variables()]

    def twice(apply):
        apply(v1.train.AdamOptimizer(), "net/w")
        apply(v1.train.AdamOptimizer(), "net/w")

    def apart(apply):
        apply(v1.train.AdamOptimizer(), "net/w")
        apply(v1.train.AdamOptimizer(), "net/b")

    def named(apply):
        apply(v1.train.AdamOptimizer(name="Mine"), "net/w")
        apply(v1.train.MomentumOptimizer(0.1, 0.9), "net/w")
        apply(v1.train.MomentumOptimizer(0.1, 0.9), "net/w")

    def ftrl(apply):
        apply(v1.train.FtrlOptimizer(0.1, accum_name="acc", linear_name="lin"), "net/w")

    for key, make in {"twice": twice, "apart": apart, "named": named, "ftrl": ftrl}.items():
        record(key, make)
    return result


def schedules() -> list[dict]:
    steps = [0, 1, 5, 10, 25, 50, 99, 100, 101, 250]
    cases = [
        ("exponential_decay", {"learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}),
        (
            "exponential_decay",
            {"learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5, "staircase": True},
        ),
        ("piecewise_constant", {"boundaries": [5, 50], "values": [1.0, 0.5, 0.1]}),
        ("polynomial_decay", {"learning_rate": 0.1, "decay_steps": 100}),
        (
            "polynomial_decay",
            {"learning_rate": 0.1, "decay_steps": 100, "end_learning_rate": 0.01, "power": 0.5},
        ),
        ("polynomial_decay", {"learning_rate": 0.1, "decay_steps": 50, "power": 2.0, "cycle": True}),
        ("cosine_decay", {"learning_rate": 0.1, "decay_steps": 100}),
        ("cosine_decay", {"learning_rate": 0.1, "decay_steps": 100, "alpha": 0.2}),
        ("natural_exp_decay", {"learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}),
        ("inverse_time_decay", {"learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}),
        (
            "inverse_time_decay",
            {"learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5, "staircase": True},
        ),
    ]
    result = []
    for name, kwargs in cases:
        with tf.Graph().as_default(), v1.Session() as session:
            step = v1.placeholder(tf.int64, [])
            if name == "piecewise_constant":
                rate = v1.train.piecewise_constant(step, [np.int64(b) for b in kwargs["boundaries"]], kwargs["values"])
            else:
                rate = getattr(v1.train, name)(global_step=step, **kwargs)
            values = [float(session.run(rate, {step: s})) for s in steps]
        result.append({"name": name, "arguments": kwargs, "steps": steps, "values": values})
    return result


def main() -> None:
    grads = gradients()
    golden = {
        "tensorflow": tf.__version__,
        "gradients": {k: g.tolist() for k, g in grads.items()},
        "cases": {name: trajectory(cls, kwargs, grads) for name, cls, kwargs in CASES},
        "names": names(),
        "schedules": schedules(),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(golden, indent=None, separators=(",", ":")) + "\n")
    sys.stdout.write(f"wrote {OUT} ({OUT.stat().st_size} bytes)\n")


if __name__ == "__main__":
    main()

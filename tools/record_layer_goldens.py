"""Record what TensorFlow 1's `tf.nn` and `tf.layers` compute, for tests/golden/layers.json.

Run in an environment with tensorflow (the `parity` extra) and tf-keras, which holds `tf.layers`:

    python tools/record_layer_goldens.py

Inputs and variables are the values of `ramp`, which the tests compute again, so only results are stored.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()

OUT = Path(__file__).resolve().parent.parent / "tests" / "golden" / "layers.json"


def ramp(shape: tuple[int, ...] | list[int], seed: int = 0) -> np.ndarray:
    """A float32 array of the given shape, the same on every machine: no random generator is involved."""
    size = int(np.prod(shape))
    return (((np.arange(size) * 37 + 11 * seed + 5) % 101) / 25.0 - 2.0).astype(np.float32).reshape(shape)


CONVOLUTIONS = [
    {"input": [2, 7, 6, 3], "filter": [3, 3, 3, 4], "strides": [1, 1, 1, 1], "padding": "SAME"},
    {"input": [2, 7, 6, 3], "filter": [3, 2, 3, 4], "strides": [1, 1, 1, 1], "padding": "VALID"},
    {"input": [2, 7, 6, 3], "filter": [3, 3, 3, 4], "strides": [1, 2, 3, 1], "padding": "SAME"},
    {"input": [2, 8, 6, 3], "filter": [5, 5, 3, 2], "strides": [1, 2, 2, 1], "padding": "SAME"},
    {"input": [2, 7, 6, 3], "filter": [3, 3, 3, 4], "strides": [1, 2, 2, 1], "padding": "VALID"},
    {
        "input": [2, 7, 6, 3],
        "filter": [3, 3, 3, 4],
        "strides": [1, 1, 1, 1],
        "padding": "SAME",
        "dilations": [1, 2, 2, 1],
    },
    {
        "input": [1, 5, 5, 2],
        "filter": [3, 3, 2, 2],
        "strides": [1, 1, 2, 1],
        "padding": [[0, 0], [2, 1], [0, 3], [0, 0]],
    },
    {"input": [1, 5, 5, 4], "filter": [3, 3, 2, 6], "strides": [1, 1, 1, 1], "padding": "SAME"},
]

POOLS = [
    {"input": [2, 5, 6, 2], "ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"},
    {"input": [2, 5, 6, 2], "ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "SAME"},
    {"input": [2, 5, 7, 2], "ksize": [1, 3, 2, 1], "strides": [1, 1, 3, 1], "padding": "SAME"},
    {"input": [1, 4, 4, 1], "ksize": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "padding": "SAME"},
]

# (input shape, arguments of tf.layers.batch_normalization)
BATCH_NORMS = [
    ([4, 3, 2, 5], {"training": True}),
    ([4, 3, 2, 5], {"training": False}),
    ([4, 3, 2, 5], {"training": True, "fused": False, "momentum": 0.9}),
    ([4, 3, 2, 5], {"training": True, "axis": 1, "fused": False}),
    ([4, 3, 2, 5], {"training": True, "axis": 2, "fused": False}),
    ([6, 5], {"training": True, "momentum": 0.5}),
    ([6, 5], {"training": False}),
    ([3, 4, 5], {"training": True, "axis": -1}),
    ([3, 4, 5], {"training": True, "axis": 1}),
    ([4, 3, 2, 5], {"training": True, "scale": False}),
    ([4, 3, 2, 5], {"training": True, "center": False, "scale": False}),
    ([6, 5], {"training": True, "center": False}),
    ([4, 3, 2, 5], {"training": True, "epsilon": 1e-7}),
    ([6, 5], {"training": True, "epsilon": 1e-7}),
    ([1, 1, 1, 5], {"training": True, "momentum": 0.5}),
]


def run(build) -> list:
    with tf.Graph().as_default(), v1.Session() as session:
        return session.run(build()).tolist()


def convolutions() -> list[dict]:
    def case(arguments: dict) -> list:
        rest = {k: v for k, v in arguments.items() if k not in ("input", "filter")}
        return run(lambda: v1.nn.conv2d(ramp(arguments["input"]), ramp(arguments["filter"], 1), **rest))

    return [{"arguments": arguments, "output": case(arguments)} for arguments in CONVOLUTIONS]


def pools() -> list[dict]:
    def case(kind: str, arguments: dict) -> list:
        rest = {k: v for k, v in arguments.items() if k != "input"}
        return run(lambda: getattr(v1.nn, kind)(ramp(arguments["input"]), **rest))

    return [
        {"arguments": arguments, **{kind: case(kind, arguments) for kind in ("max_pool", "avg_pool")}}
        for arguments in POOLS
    ]


def batch_norms() -> list[dict]:
    results = []
    for shape, arguments in BATCH_NORMS:
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, shape)
            initializers = {
                f"{part}_initializer": lambda shape, dtype=None, partition_info=None, i=i: tf.constant(
                    np.abs(ramp(shape, i)) + 0.5
                )
                for i, part in enumerate(("beta", "gamma", "moving_mean", "moving_variance"))
            }
            y = v1.layers.batch_normalization(x, **arguments, **initializers)
            updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
            session.run(v1.global_variables_initializer())
            outputs = []
            for step in range(2):
                output, _ = session.run([y, updates], {x: ramp(shape, 7 + step)})
                outputs.append(output.tolist())
            variables = {v.op.name: session.run(v).tolist() for v in v1.global_variables()}
            trainable = [v.op.name for v in v1.trainable_variables()]
        results.append(
            {
                "input": shape,
                "arguments": arguments,
                "outputs": outputs,
                "variables": variables,
                "trainable": trainable,
            }
        )
    return results


def names() -> dict[str, list[str]]:
    """Names of variables and regularization losses for some models, in TF's order of creation."""

    def record(build) -> dict[str, list[str]]:
        with tf.Graph().as_default():
            build()
            return {
                "variables": [v.op.name for v in v1.global_variables()],
                "trainable": [v.op.name for v in v1.trainable_variables()],
                "losses": [t.op.name for t in v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)],
            }

    image, flat = ramp([2, 8, 8, 3]), ramp([2, 6])
    half = tf.keras.regularizers.l2(0.5)

    def stack():
        x = v1.layers.conv2d(image, 4, 3)
        x = v1.layers.batch_normalization(x)
        x = v1.layers.max_pooling2d(x, 2, 2)
        x = v1.layers.conv2d(x, 4, (3, 1), use_bias=False)
        x = v1.layers.batch_normalization(x, trainable=False)
        x = v1.layers.dense(v1.layers.flatten(x), 5)
        v1.layers.dense(x, 2, name="logits")

    def scoped():
        with v1.variable_scope("a"):
            v1.layers.dense(flat, 2)
            v1.layers.dense(flat, 2)
        with v1.variable_scope("a", reuse=True):
            v1.layers.dense(flat, 2)
            v1.layers.dense(flat, 2)
        with v1.variable_scope("b", regularizer=half):
            v1.layers.dense(flat, 2)
            v1.layers.dense(flat, 2, kernel_regularizer=half, activity_regularizer=half)
            v1.layers.batch_normalization(flat)

    def reused():
        v1.layers.dense(flat, 2, name="d")
        v1.layers.dense(flat, 2, name="d", reuse=True)
        v1.layers.dense(flat, 3)
        v1.layers.dense(flat, 3, reuse=True)
        v1.layers.dense(flat, 2, trainable=False)

    return {build.__name__: record(build) for build in (stack, scoped, reused)}


def main() -> None:
    golden = {
        "tensorflow": tf.__version__,
        "convolutions": convolutions(),
        "pools": pools(),
        "batch_norms": batch_norms(),
        "names": names(),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    sys.stdout.write(f"wrote {OUT} ({OUT.stat().st_size} bytes)\n")


if __name__ == "__main__":
    main()

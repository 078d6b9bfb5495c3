"""The training steps of `benchmarks.train_models` as TF1 programs, for the process of `benchmarks.tensorflow_peer`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow

from benchmarks.tensorflow_peer import serve

tf = tensorflow.compat.v1
tf.disable_v2_behavior()

CLASSES = 10
UNITS, HIDDEN_LAYERS = 128, 2
VOCABULARY, LENGTH, WIDTH, HEADS, LAYERS = 1000, 32, 128, 4, 4
CHANNELS = 32


def mlp(x: Any) -> Any:
    for number in range(HIDDEN_LAYERS):
        x = tf.nn.relu(_dense(f"layer_{number}", x, UNITS))
    return _dense("logits", x, CLASSES)


def transformer(ids: Any) -> Any:
    with tf.variable_scope("embeddings"):
        words = tf.get_variable("words", [VOCABULARY, WIDTH])
        positions = tf.get_variable("positions", [LENGTH, WIDTH])
    x = _normalized("embeddings_norm", tf.gather(words, ids) + positions)
    for number in range(LAYERS):
        layer = f"layer_{number}"
        x = _normalized(f"{layer}_attention_norm", x + _attention(layer, x))
        inner = _dense(f"{layer}_intermediate", x, 4 * WIDTH)
        inner = 0.5 * inner * (1 + tf.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = _normalized(f"{layer}_output_norm", x + _dense(f"{layer}_output", inner, WIDTH))
    return _dense("logits", tf.reduce_mean(x, axis=1), CLASSES)


def block(x: Any) -> Any:
    inner = x
    for number in range(2):
        with tf.variable_scope(f"conv_{number}"):
            kernel = tf.get_variable("kernel", [3, 3, CHANNELS, CHANNELS])
            gamma = tf.get_variable("gamma", [CHANNELS], initializer=tf.ones_initializer())
            beta = tf.get_variable("beta", [CHANNELS], initializer=tf.zeros_initializer())
        inner = tf.nn.conv2d(inner, kernel, [1, 1, 1, 1], "SAME")
        inner = _standardized(inner, [0, 1, 2]) * gamma + beta
        inner = tf.nn.relu(inner if number == 0 else inner + x)
    return _dense("logits", tf.reduce_mean(inner, axis=[1, 2]), CLASSES)


def _dense(scope: str, x: Any, units: int) -> Any:
    with tf.variable_scope(scope):
        kernel = tf.get_variable("kernel", [x.shape[-1], units])
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
    return tf.matmul(x, kernel) + bias if len(x.shape) == 2 else tf.tensordot(x, kernel, 1) + bias


def _attention(layer: str, x: Any) -> Any:
    batch, length, width = x.shape

    def by_head(name: str) -> Any:
        return tf.reshape(_dense(f"{layer}_{name}", x, width), [batch, length, HEADS, width // HEADS])

    scores = tf.einsum("bfnh,btnh->bnft", by_head("query"), by_head("key")) / math.sqrt(int(width) // HEADS)
    mixed = tf.einsum("bnft,btnh->bfnh", tf.nn.softmax(scores), by_head("value"))
    return _dense(f"{layer}_projection", tf.reshape(mixed, [batch, length, width]), width)


def _normalized(scope: str, x: Any) -> Any:
    with tf.variable_scope(scope):
        gamma = tf.get_variable("gamma", [x.shape[-1]], initializer=tf.ones_initializer())
        beta = tf.get_variable("beta", [x.shape[-1]], initializer=tf.zeros_initializer())
    return _standardized(x, [-1]) * gamma + beta


def _standardized(x: Any, axes: list[int]) -> Any:
    centered = x - tf.reduce_mean(x, axis=axes, keepdims=True)
    return centered * tf.rsqrt(tf.reduce_mean(tf.square(centered), axis=axes, keepdims=True) + 1e-5)


class Steps:
    """One session per network, made at its first step."""

    def __init__(self) -> None:
        self._ready: dict[str, Callable[[], Any]] = {}

    def step(self, name: str) -> float:
        """Seconds of one `session.run` of the loss and the training op, fed by placeholders."""
        if name not in self._ready:
            self._ready[name] = self._made(name)
        start = time.perf_counter()
        self._ready[name]()
        return time.perf_counter() - start

    def _made(self, name: str) -> Callable[[], Any]:
        drawn = np.random.default_rng(0)
        network, inputs = {
            "mlp": (mlp, drawn.standard_normal((32, 64), np.float32)),
            "bert": (transformer, drawn.integers(0, VOCABULARY, (8, LENGTH), np.int32)),
            "resnet": (block, drawn.standard_normal((8, 16, 16, CHANNELS), np.float32)),
        }[name]
        targets = drawn.integers(0, CLASSES, inputs.shape[0], np.int32)
        with tf.Graph().as_default():
            x, y = tf.placeholder(inputs.dtype, inputs.shape), tf.placeholder(tf.int32, targets.shape)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=network(x))
            loss = tf.reduce_mean(losses)
            train = tf.train.AdamOptimizer(1e-3).minimize(loss)
            session = tf.Session()
            session.run(tf.global_variables_initializer())
        return lambda: session.run([loss, train], {x: inputs, y: targets})


if __name__ == "__main__":
    serve(Steps())

"""The Siamese network as TF1 code: the twin of `examples.siamese`."""

from __future__ import annotations

from typing import Any

from parity.live import tf


def convolution(x: Any, filters: int) -> Any:
    weights = tf.get_variable("weights", [3, 3, x.shape[-1], filters])
    biases = tf.get_variable("biases", [filters], initializer=tf.zeros_initializer(), regularizer=tf.no_regularizer)
    return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weights, strides=[1, 1, 1, 1], padding="SAME"), biases))


def connected(x: Any, units: int) -> Any:
    weights = tf.get_variable("weights", [x.shape[-1], units])
    biases = tf.get_variable("biases", [units], initializer=tf.zeros_initializer(), regularizer=tf.no_regularizer)
    return tf.nn.bias_add(tf.matmul(x, weights), biases)


def tower(images: Any, width: int, dimensions: int) -> Any:
    x = images
    for number, filters in enumerate((width, 2 * width), start=1):
        with tf.variable_scope(f"conv{number}"):
            x = tf.nn.max_pool(convolution(x, filters), [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
    x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
    with tf.variable_scope("fc1"):
        x = tf.nn.relu(connected(x, 4 * width))
    with tf.variable_scope("fc2"):
        return connected(x, dimensions)


def network_scope(reuse: Any = None) -> Any:
    return tf.variable_scope(
        "siamese",
        initializer=tf.truncated_normal_initializer(stddev=0.1),
        regularizer=lambda weights: 1e-4 * tf.nn.l2_loss(weights),
        reuse=reuse,
    )


def pairs(left: Any, right: Any, width: int = 16, dimensions: int = 2) -> tuple[Any, Any]:
    with network_scope() as scope:
        left_points = tower(left, width, dimensions)
        scope.reuse_variables()
        right_points = tower(right, width, dimensions)
    return left_points, right_points


def contrastive_loss(
    left: Any, right: Any, same: Any, width: int = 16, dimensions: int = 2, margin: float = 1.0
) -> Any:
    left_points, right_points = pairs(left, right, width, dimensions)
    squared = tf.reduce_sum(tf.square(left_points - right_points), axis=1)
    repulsion = (1.0 - same) * tf.square(tf.maximum(margin - tf.sqrt(squared + 1e-6), 0.0))
    return tf.reduce_mean(same * squared + repulsion) / 2.0 + tf.losses.get_regularization_loss()


def embed(images: Any, width: int = 16, dimensions: int = 2) -> Any:
    with network_scope(reuse=tf.AUTO_REUSE):
        return tower(images, width, dimensions)

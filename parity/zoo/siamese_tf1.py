"""The Siamese network as TF1 code: the twin of `examples.siamese`."""

from __future__ import annotations

from typing import Any

from examples.siamese import LAYERS
from parity.live import tf


def convolution(x: Any, size: int, filters: int) -> Any:
    weights = tf.get_variable("weights", [size, size, x.shape[-1], filters])
    biases = tf.get_variable("biases", [filters], initializer=tf.zeros_initializer(), regularizer=tf.no_regularizer)
    return tf.nn.bias_add(tf.nn.conv2d(x, weights, strides=[1, 1, 1, 1], padding="SAME"), biases)


def tower(images: Any) -> Any:
    x = images
    for name, size, filters in LAYERS:
        with tf.variable_scope(name):
            x = convolution(x, size, filters)
        if name != "conv5":
            x = tf.nn.relu(x)
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
    return tf.reshape(x, [x.shape[0], -1])


def network_scope(reuse: Any = None) -> Any:
    return tf.variable_scope(
        tf.get_variable_scope(),
        initializer=tf.glorot_uniform_initializer(),
        regularizer=lambda weights: 1e-4 * tf.nn.l2_loss(weights),
        reuse=reuse,
    )


def pairs(left: Any, right: Any) -> tuple[Any, Any]:
    with network_scope() as scope:
        left_points = tower(left)
        scope.reuse_variables()
        right_points = tower(right)
    return left_points, right_points


def contrastive_loss(left: Any, right: Any, same: Any, margin: float = 1.0) -> Any:
    left_points, right_points = pairs(left, right)
    squared = tf.reduce_sum(tf.square(left_points - right_points), axis=1)
    repulsion = (1.0 - same) * tf.square(tf.maximum(margin - tf.sqrt(squared + 1e-6), 0.0))
    return tf.reduce_mean(same * squared + repulsion) / 2.0 + tf.losses.get_regularization_loss()


def embed(images: Any) -> Any:
    with network_scope(reuse=tf.AUTO_REUSE):
        return tower(images)

"""ResNet v1 as TF1 code, with slim's names and without slim: the twin of `examples.resnet`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from examples.resnet import RESNET_50, Block
from parity.live import tf


def conv2d(
    x: Any, depth: int, size: int, stride: int, scope: str, training: bool, decay: float, activate: bool = True
) -> Any:
    with tf.variable_scope(scope):
        weights = tf.get_variable(
            "weights",
            [size, size, x.shape[-1], depth],
            initializer=tf.initializers.he_normal(),
            regularizer=lambda weights: 0.0001 * tf.nn.l2_loss(weights),
        )
        padding = "SAME"
        if size > 1 and stride > 1:
            total = size - 1
            both = [total // 2, total - total // 2]
            x, padding = tf.pad(x, [[0, 0], both, both, [0, 0]]), "VALID"
        x = tf.nn.conv2d(x, weights, strides=[1, stride, stride, 1], padding=padding)
        x = tf.layers.batch_normalization(x, momentum=decay, epsilon=1e-5, training=training, name="BatchNorm")
        return tf.nn.relu(x) if activate else x


def bottleneck(x: Any, depth: int, narrow: int, stride: int, training: bool, decay: float) -> Any:
    with tf.variable_scope("bottleneck_v1"):
        if x.shape[-1] == depth:
            shortcut = x if stride == 1 else tf.nn.max_pool(x, [1, 1, 1, 1], [1, stride, stride, 1], "SAME")
        else:
            shortcut = conv2d(x, depth, 1, stride, "shortcut", training, decay, activate=False)
        residual = conv2d(x, narrow, 1, 1, "conv1", training, decay)
        residual = conv2d(residual, narrow, 3, stride, "conv2", training, decay)
        residual = conv2d(residual, depth, 1, 1, "conv3", training, decay, activate=False)
        return tf.nn.relu(shortcut + residual)


def resnet_v1(
    images: Any, blocks: Sequence[Block], classes: int, training: bool, root_depth: int, decay: float, scope: str
) -> Any:
    with tf.variable_scope(scope):
        x = conv2d(images, root_depth, 7, 2, "conv1", training, decay)
        x = tf.nn.max_pool(x, [1, 3, 3, 1], [1, 2, 2, 1], "SAME")
        for block in blocks:
            with tf.variable_scope(block.scope):
                for number in range(1, block.num_units + 1):
                    stride = block.stride if number == block.num_units else 1
                    with tf.variable_scope(f"unit_{number}"):
                        x = bottleneck(x, 4 * block.base_depth, block.base_depth, stride, training, decay)
        x = tf.reduce_mean(x, [1, 2], keepdims=True)
        with tf.variable_scope("logits"):
            weights = tf.get_variable(
                "weights",
                [1, 1, x.shape[-1], classes],
                regularizer=lambda weights: 0.0001 * tf.nn.l2_loss(weights),
            )
            biases = tf.get_variable("biases", [classes], initializer=tf.zeros_initializer())
            x = tf.nn.bias_add(tf.nn.conv2d(x, weights, strides=[1, 1, 1, 1], padding="SAME"), biases)
        return tf.squeeze(x, [1, 2])


def resnet_v1_50(images: Any, training: bool, classes: int = 1000) -> Any:
    return resnet_v1(images, RESNET_50, classes, training, 64, 0.997, "resnet_v1_50")


def small_loss(images: Any, labels: Any, blocks: Sequence[Block], training: bool = True) -> tuple[Any, Any]:
    large = tf.repeat(tf.repeat(images, 4, axis=1), 4, axis=2)
    logits = resnet_v1(large, blocks, 10, training, 16, 0.9, "resnet_v1_small")
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(cross_entropy) + tf.losses.get_regularization_loss(), logits

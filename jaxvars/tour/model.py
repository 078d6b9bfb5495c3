"""The digit reader written anew with jaxvars, and how its names map to those in the old checkpoint."""

from __future__ import annotations

import jax

import jaxvars as jv

__all__ = ["FROZEN", "HEAD", "OLD_NAMES", "model", "reader"]


def reader(images: jax.Array, classes: int, training: bool = False) -> jax.Array:
    """Return the logits, float32 [n, classes], of images, float32 [n, 8, 8, 1].

    The same network as in ``tools/make_digits_checkpoint.py``, under names of our own choice.
    """
    with jv.variable_scope("reader"):
        with jv.variable_scope("stem"):
            kernel = jv.get_variable("kernel", [5, 5, 1, 16], initializer=jv.glorot_uniform_initializer())
            bias = jv.get_variable("bias", [16], initializer=jv.zeros_initializer())
            x = jax.nn.relu(jv.nn.conv2d(images, kernel) + bias)
        x = jv.layers.max_pooling2d(x, 2, 2)
        x = jv.layers.conv2d(x, 32, 3, padding="same", use_bias=False, name="block")
        x = jv.layers.batch_normalization(x, momentum=0.95, training=training, name="norm")
        x = jv.layers.max_pooling2d(jax.nn.relu(x), 2, 2)
        x = jv.layers.dense(x.reshape(x.shape[0], -1), 48, activation=jax.nn.relu, name="hidden")
        return jv.layers.dense(x, classes, name="head")


model: jv.Model = jv.transform(reader)

OLD_NAMES = [
    (r"reader/stem/kernel", r"digits_net/conv1/weights"),
    (r"reader/stem/bias", r"digits_net/conv1/biases"),
    (r"reader/block/kernel", r"digits_net/conv2/weights"),
    (r"reader/norm/(.*)", r"digits_net/conv2/bn/\1"),
    (r"reader/hidden/kernel", r"digits_net/fc/weights"),
    (r"reader/hidden/bias", r"digits_net/fc/biases"),
    (r"reader/head/kernel", r"digits_net/logits/weights"),
    (r"reader/head/bias", r"digits_net/logits/biases"),
]
"""Our name, and the name in the file: the first rule whose pattern matches decides."""

HEAD = r"reader/head/.*"
"""The last layer: another task needs another one."""

FROZEN = r"reader/(stem|block|norm)/.*"
"""What fine-tuning leaves as TensorFlow trained it."""

"""DCGAN as TF1 code: the twin of `examples.dcgan`."""

from __future__ import annotations

from typing import Any

from parity.live import tf


def generator(noise: Any, training: bool, width: int = 32, side: int = 8) -> Any:
    with tf.variable_scope("generator"):
        x = tf.layers.dense(noise, (side // 4) ** 2 * 2 * width)
        x = tf.reshape(x, [-1, side // 4, side // 4, 2 * width])
        x = tf.nn.relu(tf.layers.batch_normalization(x, training=training))
        x = tf.layers.conv2d_transpose(x, width, 5, strides=2, padding="same")
        x = tf.nn.relu(tf.layers.batch_normalization(x, training=training))
        return tf.nn.tanh(tf.layers.conv2d_transpose(x, 1, 5, strides=2, padding="same", name="images"))


def discriminator(images: Any, training: bool, width: int = 32, reuse: bool | None = None) -> Any:
    with tf.variable_scope("discriminator", reuse=reuse):
        x = tf.layers.conv2d(images, width, 5, strides=2, padding="same")
        x = tf.layers.conv2d(tf.nn.leaky_relu(x, 0.2), 2 * width, 5, strides=2, padding="same")
        x = tf.nn.leaky_relu(tf.layers.batch_normalization(x, training=training), 0.2)
        return tf.layers.dense(tf.layers.flatten(x), 1, name="logits")


def losses(noise: Any, images: Any, training: bool = True, width: int = 32) -> tuple[Any, Any]:
    drawn = generator(noise, training, width, images.shape.as_list()[1])
    on_real = discriminator(images, training, width)
    # TF1 leaves open which of two updates of one moving average comes first, and what each reads: here the real
    # images' comes first. (Program order is all that jaxvars knows.)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS, scope="discriminator")):
        on_drawn = discriminator(drawn, training, width, reuse=True)

    def mean_cross_entropy(logits: Any, label: float) -> Any:
        labels = label * tf.ones_like(logits)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))

    d_loss = mean_cross_entropy(on_real, 1.0) + mean_cross_entropy(on_drawn, 0.0)
    return d_loss, mean_cross_entropy(on_drawn, 1.0)


def train_ops(d_loss: Any, g_loss: Any, rate: float, epsilon: float) -> tuple[Any, Any]:
    def minimize(loss: Any, scope: str) -> Any:
        optimizer = tf.train.AdamOptimizer(rate, beta1=0.5, epsilon=epsilon)
        return optimizer.minimize(loss, var_list=tf.trainable_variables(scope=scope))

    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        return minimize(d_loss, "discriminator"), minimize(g_loss, "generator")

"""DCGAN: a generator and a discriminator that is used twice with one set of variables.

What it shows of TF1: ``variable_scope("discriminator", reuse=True)`` on the second pass, default layer names that
start again when a scope is opened again (so the second ``conv2d`` finds the first one's kernel), batch normalization,
transposed convolutions, and two optimizers, each over the variables of one scope.

Run it: ``python -m examples.dcgan`` learns to draw scikit-learn's 8x8 digits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxvars as jv

NOISE = 32


def generator(noise: jax.Array, training: bool, width: int = 32, side: int = 8) -> jax.Array:
    """Draw images, ``[batch, side, side, 1]`` within -1 to 1, from noise, ``[batch, anything]``."""
    with jv.variable_scope("generator"):
        x = jv.layers.dense(noise, (side // 4) ** 2 * 2 * width)
        x = x.reshape(-1, side // 4, side // 4, 2 * width)
        x = jax.nn.relu(jv.layers.batch_normalization(x, training=training))
        x = jv.layers.conv2d_transpose(x, width, 5, strides=2, padding="same")
        x = jax.nn.relu(jv.layers.batch_normalization(x, training=training))
        return jnp.tanh(jv.layers.conv2d_transpose(x, 1, 5, strides=2, padding="same", name="images"))


def discriminator(images: jax.Array, training: bool, width: int = 32, reuse: bool | None = None) -> jax.Array:
    """Return a logit per image, ``[batch, 1]``: positive for what looks real."""
    with jv.variable_scope("discriminator", reuse=reuse):
        x = jv.layers.conv2d(images, width, 5, strides=2, padding="same")
        x = jv.layers.conv2d(jax.nn.leaky_relu(x, 0.2), 2 * width, 5, strides=2, padding="same")
        x = jax.nn.leaky_relu(jv.layers.batch_normalization(x, training=training), 0.2)
        return jv.layers.dense(jv.layers.flatten(x), 1, name="logits")


def losses(noise: jax.Array, images: jax.Array, training: bool = True, width: int = 32) -> tuple[jax.Array, jax.Array]:
    """Return the discriminator's and the generator's loss, scalars: the graph that the TF1 program built once."""
    drawn = generator(noise, training, width, images.shape[1])
    on_real = discriminator(images, training, width)
    on_drawn = discriminator(drawn, training, width, reuse=True)

    def mean_cross_entropy(logits: jax.Array, label: float) -> jax.Array:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, label)))

    d_loss = mean_cross_entropy(on_real, 1.0) + mean_cross_entropy(on_drawn, 0.0)
    return d_loss, mean_cross_entropy(on_drawn, 1.0)


gan = jv.transform(losses)
sampler = jv.transform(generator)


def optimizers(
    variables: jv.Variables, rate: float = 2e-4, epsilon: float = 1e-8
) -> tuple[jv.train.Optimizer, jv.train.Optimizer]:
    """One Adam per network. In TF1: ``minimize(d_loss, var_list=tf.trainable_variables(scope="discriminator"))``."""

    def adam(scope: str) -> jv.train.Optimizer:
        return jv.train.AdamOptimizer(rate, beta1=0.5, epsilon=epsilon, var_list=variables.trainable.scope(scope))

    return adam("discriminator"), adam("generator")


Step = Callable[[jv.Variables, Any, Any], tuple[jax.Array, jv.Variables]]


def steps(d_optimizer: jv.train.Optimizer, g_optimizer: jv.train.Optimizer, width: int = 32) -> tuple[Step, Step]:
    """The two training steps, ``(variables, noise, images) -> (loss, variables)``.

    Moving averages are assigned by either; TF1 ran UPDATE_OPS with either ``minimize``.
    """

    def d_loss(variables: jv.Variables, noise: jax.Array, images: jax.Array) -> tuple[jax.Array, jv.Variables]:
        (loss, _), variables = gan.apply(variables, noise, images, width=width)
        return loss, variables

    def g_loss(variables: jv.Variables, noise: jax.Array, images: jax.Array) -> tuple[jax.Array, jv.Variables]:
        (_, loss), variables = gan.apply(variables, noise, images, width=width)
        return loss, variables

    @jax.jit
    def d_step(variables: jv.Variables, noise: jax.Array, images: jax.Array) -> tuple[jax.Array, jv.Variables]:
        return d_optimizer.minimize(d_loss, variables, noise, images)

    @jax.jit
    def g_step(variables: jv.Variables, noise: jax.Array, images: jax.Array) -> tuple[jax.Array, jv.Variables]:
        return g_optimizer.minimize(g_loss, variables, noise, images)

    return d_step, g_step


def as_text(images: np.ndarray) -> str:
    """Images side by side, one character per pixel, two columns wide."""
    shades = np.array(list(" .:-=+*#%@"))
    drawn = shades[np.clip((images[..., 0] + 1) / 2 * 9.99, 0, 9).astype(int)]
    return "\n".join("   ".join("".join(2 * c for c in image[row]) for image in drawn) for row in range(drawn.shape[1]))


def main(arguments: list[str] | None = None) -> None:
    """Train on scikit-learn's digits and draw some."""
    parser = argparse.ArgumentParser(prog="python -m examples.dcgan", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args(arguments)

    from sklearn.datasets import load_digits

    pixels, _ = load_digits(return_X_y=True)
    digits = (pixels.reshape(-1, 8, 8, 1) / 8.0 - 1.0).astype(np.float32)
    random = np.random.RandomState(0)

    def batch() -> tuple[np.ndarray, np.ndarray]:
        noise = random.uniform(-1, 1, [options.batch, NOISE]).astype(np.float32)
        return noise, digits[random.randint(len(digits), size=options.batch)]

    variables = gan.init(0, *batch(), width=options.width)
    print(variables.summary())
    d_optimizer, g_optimizer = optimizers(variables, rate=1e-3)
    variables = g_optimizer.init(d_optimizer.init(variables))
    d_step, g_step = steps(d_optimizer, g_optimizer, options.width)

    print("\n  step  discriminator  generator")
    start = time.perf_counter()
    for number in range(1, options.steps + 1):
        d_loss, variables = d_step(variables, *batch())
        g_loss, variables = g_step(variables, *batch())
        if number == 1 or number % max(options.steps // 10, 1) == 0:
            print(f"{number:6d}  {d_loss:13.3f}  {g_loss:9.3f}")
    print(f"\n{options.steps} steps in {time.perf_counter() - start:.1f} s. Five drawn digits:\n")
    noise = random.uniform(-1, 1, [5, NOISE]).astype(np.float32)
    drawn = jax.jit(lambda v: sampler(v, noise, training=False, width=options.width))(variables)
    print(as_text(np.asarray(drawn)))


if __name__ == "__main__":
    main()

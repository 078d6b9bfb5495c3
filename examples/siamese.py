"""A Siamese network: one network on two inputs, trained with the contrastive loss to tell pairs apart.

What it shows of TF1: plain ``get_variable`` under an initializer and a regularizer given once, in the scope that is
open already (``variable_scope(get_variable_scope(), ...)``), ``scope.reuse_variables()`` between the two towers, and
``AUTO_REUSE`` for the same network used alone. Layers and names are those of a network that somebody trained on MNIST
and published in 2016 (github.com/ardiya/siamesenetwork-tensorflow); its checkpoint, Momentum slots included, restores.

Run it: ``python -m examples.siamese`` learns a plane on which scikit-learn's digits lie in heaps;
``--checkpoint model/model.ckpt`` starts from a checkpoint instead of random weights.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv

LAYERS = (("conv1", 7, 32), ("conv2", 5, 64), ("conv3", 3, 128), ("conv4", 1, 256), ("conv5", 1, 2))
"""Scope, size of the filters and their number, of each layer."""


def convolution(x: jax.Array, size: int, filters: int) -> jax.Array:
    """A convolution and a bias, of the current scope's variables."""
    weights = jv.get_variable("weights", [size, size, x.shape[-1], filters])
    biases = jv.get_variable("biases", [filters], initializer=jv.zeros_initializer(), regularizer=jv.no_regularizer)
    return jv.nn.bias_add(jv.nn.conv2d(x, weights, strides=1, padding="SAME"), biases)


def tower(images: jax.Array) -> jax.Array:
    """Map images, ``[batch, side, side, 1]`` with sides up to 32, to points of a plane, ``[batch, 2]``."""
    x = images
    for name, size, filters in LAYERS:
        with jv.variable_scope(name):
            x = convolution(x, size, filters)
        if name != LAYERS[-1][0]:
            x = jax.nn.relu(x)
        x = jv.nn.max_pool(x, 2, 2, "SAME")
    return x.reshape(x.shape[0], -1)


def network_scope(reuse: Any = None) -> jv.variable_scope:
    """The scope of the caller again, with an initializer and weight decay for all variables inside."""
    return jv.variable_scope(
        jv.get_variable_scope(),
        initializer=jv.glorot_uniform_initializer(),
        regularizer=jv.regularizers.l2_regularizer(1e-4),
        reuse=reuse,
    )


def pairs(left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Map both images of each pair by one network."""
    with network_scope() as scope:
        left_points = tower(left)
        scope.reuse_variables()
        right_points = tower(right)
    return left_points, right_points


def contrastive_loss(left: jax.Array, right: jax.Array, same: jax.Array, margin: float = 1.0) -> jax.Array:
    """Pull pairs with ``same == 1`` together, push others at least `margin` apart; a scalar, weight decay included."""
    left_points, right_points = pairs(left, right)
    squared = jnp.sum(jnp.square(left_points - right_points), axis=1)
    attraction = same * squared
    repulsion = (1.0 - same) * jnp.square(jnp.maximum(margin - jnp.sqrt(squared + 1e-6), 0.0))
    return jnp.mean(attraction + repulsion) / 2.0 + jv.losses.get_regularization_loss()


def embed(images: jax.Array) -> jax.Array:
    """The network alone: with AUTO_REUSE it finds the trained variables, or makes them."""
    with network_scope(reuse=jv.AUTO_REUSE):
        return tower(images)


contrastive = jv.transform(contrastive_loss)
embedding = jv.transform(embed)


def draw_pairs(
    images: np.ndarray, labels: np.ndarray, count: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw `count` pairs, half of them of one label; the third result is 1.0 for those."""
    first, second = random.randint(len(images), size=[2, count])
    for position in range(0, count, 2):
        second[position] = random.choice(np.flatnonzero(labels == labels[first[position]]))
    return images[first], images[second], (labels[first] == labels[second]).astype(np.float32)


def scatter(points: np.ndarray, labels: np.ndarray, rows: int = 22, columns: int = 66) -> str:
    """Points of a plane as text, each one its label."""
    low, high = points.min(axis=0), points.max(axis=0)
    places = ((points - low) / (high - low + 1e-9) * [columns - 1, rows - 1]).astype(int)
    canvas = [[" "] * columns for _ in range(rows)]
    for (column, row), label in zip(places, labels, strict=True):
        canvas[row][column] = str(label)
    return "\n".join("".join(line).rstrip() for line in canvas)


def accuracy(known: np.ndarray, known_labels: np.ndarray, points: np.ndarray, labels: np.ndarray) -> float:
    """How often the nearest known point has the right label."""
    squared = np.square(points[:, None, :] - known[None, :, :]).sum(axis=-1)
    return float(np.mean(known_labels[squared.argmin(axis=1)] == labels))


def main(arguments: list[str] | None = None) -> None:
    """Train on pairs of scikit-learn's digits and show where unseen digits lie."""
    parser = argparse.ArgumentParser(prog="python -m examples.siamese", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--checkpoint", help="a TF1 checkpoint to start from")
    options = parser.parse_args(arguments)

    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32)
    unseen = np.arange(len(labels)) % 5 == 0
    random = np.random.RandomState(0)

    def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return draw_pairs(images[~unseen], labels[~unseen], 32, random)

    if options.checkpoint is None:
        variables = contrastive.init(0, *batch())
    else:
        variables = jv.checkpoint.restore(options.checkpoint, contrastive.specs(*batch()))
    print(variables.summary())
    optimizer = jv.train.MomentumOptimizer(0.02, 0.9, use_nesterov=True)
    variables = optimizer.init(variables)

    @jax.jit
    def step(
        variables: jv.Variables, left: jax.Array, right: jax.Array, same: jax.Array
    ) -> tuple[jax.Array, jv.Variables]:
        return optimizer.minimize(contrastive, variables, left, right, same)

    print("\n  step    loss")
    start = time.perf_counter()
    for number in range(1, options.steps + 1):
        value, variables = step(variables, *batch())
        if number == 1 or number % max(options.steps // 10, 1) == 0:
            print(f"{number:6d}  {value:.4f}")
    print(f"\n{options.steps} steps in {time.perf_counter() - start:.1f} s")
    points = np.asarray(jax.jit(embedding)(variables, images))
    score = accuracy(points[~unseen], labels[~unseen], points[unseen], labels[unseen])
    print(f"unseen digits whose nearest neighbour is right: {score:.1%}\n")
    print(scatter(points[unseen], labels[unseen]))


if __name__ == "__main__":
    main()

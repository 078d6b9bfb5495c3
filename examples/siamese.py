"""A Siamese network: one network on two inputs, trained with the contrastive loss to tell pairs apart.

What it shows of TF1: plain ``get_variable`` under an initializer and a regularizer given once to the scope,
``scope.reuse_variables()`` between the two towers, and ``AUTO_REUSE`` for the same network used alone.

Run it: ``python -m examples.siamese`` learns a plane on which scikit-learn's digits lie in heaps.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv


def convolution(x: jax.Array, filters: int) -> jax.Array:
    """A 3x3 convolution, bias and ReLU, of the current scope's variables."""
    weights = jv.get_variable("weights", [3, 3, x.shape[-1], filters])
    biases = jv.get_variable("biases", [filters], initializer=jv.zeros_initializer(), regularizer=jv.no_regularizer)
    return jax.nn.relu(jv.nn.bias_add(jv.nn.conv2d(x, weights, strides=1, padding="SAME"), biases))


def connected(x: jax.Array, units: int) -> jax.Array:
    """A matrix product and a bias, of the current scope's variables."""
    weights = jv.get_variable("weights", [x.shape[-1], units])
    biases = jv.get_variable("biases", [units], initializer=jv.zeros_initializer(), regularizer=jv.no_regularizer)
    return jv.nn.bias_add(x @ weights, biases)


def tower(images: jax.Array, width: int = 16, dimensions: int = 2) -> jax.Array:
    """Map images, ``[batch, side, side, channels]``, to points, ``[batch, dimensions]``."""
    x = images
    for number, filters in enumerate((width, 2 * width), start=1):
        with jv.variable_scope(f"conv{number}"):
            x = jv.nn.max_pool(convolution(x, filters), 2, 2, "SAME")
    x = x.reshape(x.shape[0], -1)
    with jv.variable_scope("fc1"):
        x = jax.nn.relu(connected(x, 4 * width))
    with jv.variable_scope("fc2"):
        return connected(x, dimensions)


def network_scope(reuse: bool | jv.AUTO_REUSE | None = None) -> jv.variable_scope:
    """The scope of the network, whose variables take its initializer and its weight decay."""
    return jv.variable_scope(
        "siamese",
        initializer=jv.truncated_normal_initializer(stddev=0.1),
        regularizer=jv.regularizers.l2_regularizer(1e-4),
        reuse=reuse,
    )


def pairs(left: jax.Array, right: jax.Array, width: int = 16, dimensions: int = 2) -> tuple[jax.Array, jax.Array]:
    """Map both images of each pair by one network."""
    with network_scope() as scope:
        left_points = tower(left, width, dimensions)
        scope.reuse_variables()
        right_points = tower(right, width, dimensions)
    return left_points, right_points


def contrastive_loss(
    left: jax.Array, right: jax.Array, same: jax.Array, width: int = 16, dimensions: int = 2, margin: float = 1.0
) -> jax.Array:
    """Pull pairs with ``same == 1`` together, push others at least `margin` apart; a scalar, weight decay included."""
    left_points, right_points = pairs(left, right, width, dimensions)
    squared = jnp.sum(jnp.square(left_points - right_points), axis=1)
    distance = jnp.sqrt(squared + 1e-6)
    attraction = same * squared
    repulsion = (1.0 - same) * jnp.square(jnp.maximum(margin - distance, 0.0))
    return jnp.mean(attraction + repulsion) / 2.0 + jv.losses.get_regularization_loss()


def embed(images: jax.Array, width: int = 16, dimensions: int = 2) -> jax.Array:
    """The network alone: with AUTO_REUSE it finds the trained variables, or makes them."""
    with network_scope(reuse=jv.AUTO_REUSE):
        return tower(images, width, dimensions)


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
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args(arguments)

    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = (digits.images[..., None] / 16.0).astype(np.float32), digits.target
    unseen = np.arange(len(labels)) % 5 == 0
    random = np.random.RandomState(0)

    def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return draw_pairs(images[~unseen], labels[~unseen], 64, random)

    variables = contrastive.init(0, *batch(), width=options.width)
    print(variables.summary())
    optimizer = jv.train.AdamOptimizer(1e-3)
    variables = optimizer.init(variables)

    def loss(variables: jv.Variables, left: jax.Array, right: jax.Array, same: jax.Array) -> jax.Array:
        return contrastive(variables, left, right, same, width=options.width)

    @jax.jit
    def step(
        variables: jv.Variables, left: jax.Array, right: jax.Array, same: jax.Array
    ) -> tuple[jax.Array, jv.Variables]:
        return optimizer.minimize(loss, variables, left, right, same)

    print("\n  step    loss")
    start = time.perf_counter()
    for number in range(1, options.steps + 1):
        value, variables = step(variables, *batch())
        if number == 1 or number % max(options.steps // 10, 1) == 0:
            print(f"{number:6d}  {value:.4f}")
    known = np.asarray(embedding(variables, images[~unseen], width=options.width))
    points = np.asarray(embedding(variables, images[unseen], width=options.width))
    print(f"\n{options.steps} steps in {time.perf_counter() - start:.1f} s")
    score = accuracy(known, labels[~unseen], points, labels[unseen])
    print(f"unseen digits whose nearest neighbour is right: {score:.1%}\n")
    print(scatter(points, labels[unseen]))


if __name__ == "__main__":
    main()

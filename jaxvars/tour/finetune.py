"""Fine-tuning on the new task: which of the digits are odd."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import jaxvars as jv
from jaxvars.tour.data import Examples
from jaxvars.tour.model import model

__all__ = ["Course", "accuracy", "digest", "is_odd", "make_step", "optimizer", "run_steps"]

BATCH = 10
MEASURED_EVERY = 5

Step = Callable[[jv.Variables, Examples], tuple[jax.Array, jv.Variables]]

optimizer: jv.train.AdamOptimizer = jv.train.AdamOptimizer(3e-3)


@dataclass
class Course:
    """How a fine-tuning went: the loss of every step, and the test accuracy at some of them."""

    losses: list[float] = field(default_factory=list[float])
    measured_at: list[int] = field(default_factory=list[int])
    accuracies: list[float] = field(default_factory=list[float])


def is_odd(examples: Examples) -> Examples:
    """Return the same images labelled 1 where the digit is odd, 0 where it is even."""
    return Examples(examples.images, examples.labels % 2)


def make_step(seed: int, training: bool = False) -> Step:
    """Return the jitted training step: (variables, examples) -> (loss, variables one step further).

    The batch is drawn from `seed` and the `global_step` among the variables, so that the variables alone
    say how training goes on: a checkpoint of them resumes exactly.

    Args:
      seed: of the order in which examples are drawn.
      training: whether batch normalization uses the batch's statistics and updates its moving averages.
    """

    def loss_fn(variables: jv.Variables, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jv.Variables]:
        logits, variables = model.apply(variables, images, classes=2, training=training)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), variables

    @jax.jit
    def step(variables: jv.Variables, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jv.Variables]:
        key = jax.random.fold_in(jax.random.key(seed), variables["global_step"])
        rows = jax.random.permutation(key, len(labels))[:BATCH]
        (loss, variables), grads = jv.value_and_grad(loss_fn, has_aux=True)(variables, images[rows], labels[rows])
        return loss, optimizer.apply_gradients(grads, variables, global_step="global_step")

    return lambda variables, examples: step(variables, examples.images, examples.labels)


@jax.jit
def _correct(variables: jv.Variables, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits = model(variables, images, classes=2)
    return jnp.sum(jnp.argmax(logits, axis=-1) == labels)


def accuracy(variables: jv.Variables, examples: Examples) -> float:
    """Return the share of `examples` that the two-class reader gets right."""
    return int(_correct(variables, examples.images, examples.labels)) / len(examples)


def run_steps(
    step: Step, variables: jv.Variables, train: Examples, test: Examples, until: int, course: Course
) -> jv.Variables:
    """Train until `global_step` is `until`, with a progress bar in a terminal, and note the `course`."""
    start = int(variables["global_step"])
    # disable=None: no bar, and no control characters, where standard error is a file or a pipe.
    bar = tqdm(range(start, until), "  training", until, leave=False, initial=start, unit="step", disable=None)
    with bar:
        for number in bar:
            loss, variables = step(variables, train)
            course.losses.append(float(loss))
            if (number + 1) % MEASURED_EVERY == 0 or number + 1 == until:
                course.measured_at.append(number + 1)
                course.accuracies.append(accuracy(variables, test))
                bar.set_postfix(loss=f"{course.losses[-1]:.4f}", test=f"{course.accuracies[-1]:.1%}")
    return variables


def digest(variables: jv.Variables) -> str:
    """Return 16 hexadecimal digits that differ as soon as one bit of one variable does."""
    total = hashlib.sha256()
    for name, value in variables.items():
        array = np.asarray(value)
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()[:16]

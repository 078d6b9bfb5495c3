"""One model on many processes: data-parallel or with its variables spread (FSDP), saved, killed, resumed by others.

What it shows of TF1: a model's text that knows nothing of machines, a `Saver`, ``latest_checkpoint``, a step counter
that is a variable, so that a program which is started again goes on where it was. What TF1 needed a cluster of servers
for, JAX does with the same program started once per machine: see README.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import jaxvars as jv

BATCH, CLASSES, SIZE = 48, 10, 8

# The smallest variables stay whole: here, so that the toy has some of both kinds.
STRATEGIES = {"data_parallel": jv.placement.data_parallel(), "fsdp": jv.placement.fsdp(min_size=2048)}


def classifier(images: jax.Array, training: bool) -> jax.Array:
    """Two convolutions and a dense layer. Batch norm's moments are those of the whole batch, on any mesh."""
    with jv.variable_scope("classifier", initializer=jv.glorot_uniform_initializer()):
        x = images
        for name, filters in (("conv1", 16), ("conv2", 32)):
            x = jv.layers.conv2d(x, filters, 3, padding="same", use_bias=False, name=name)
            x = jax.nn.relu(jv.layers.batch_normalization(x, momentum=0.9, training=training, name=name + "/bn"))
            x = jv.layers.max_pooling2d(x, 2, 2)
        return jv.layers.dense(jv.layers.flatten(x), CLASSES, name="logits")


model = jv.transform(classifier)
optimizer = jv.train.MomentumOptimizer(0.05, 0.9)


def examples_of(step: int, process: int, processes: int) -> tuple[np.ndarray, np.ndarray]:
    """This process's part of the batch of a step: noisy copies of ten pictures. All parts together are one batch."""
    pictures = np.random.default_rng(0).normal(size=(CLASSES, SIZE, SIZE, 1))
    random = np.random.default_rng([1, step])
    labels = random.integers(CLASSES, size=BATCH)
    images = pictures[labels] + random.normal(scale=2.0, size=(BATCH, SIZE, SIZE, 1))
    part = slice(process * BATCH // processes, (process + 1) * BATCH // processes)
    return images[part].astype(np.float32), labels[part].astype(np.int32)


def loss(variables: jv.Variables, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jv.Variables]:
    """The mean over the whole batch."""
    logits, variables = model.apply(variables, images, training=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), variables


def train(
    strategy: str,
    steps: int,
    folder: str,
    save_every: int = 10,
    report: Callable[[int, float, jv.Variables], Any] = lambda step, loss, variables: None,
) -> jv.Variables:
    """Train to a step, from the last checkpoint of the folder if there is one; all processes call it.

    Args:
      strategy: a key of `STRATEGIES`.
      steps: the step to train to.
      folder: where the checkpoints are: one that all processes see.
      save_every: steps between checkpoints.
      report: called after each step, and after its checkpoint, with the step, its loss and the variables.

    Returns:
      The variables.
    """
    mesh = jv.placement.mesh(data=-1)  # all devices of all processes
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 1), np.float32)
    specs = jv.train.create_global_step(optimizer.init(model.specs(images, training=True)))
    specs = jv.placement.apply(specs, mesh, STRATEGIES[strategy])
    jv.placement.check_processes(specs)

    saver = jv.train.Saver()
    latest = jv.train.latest_checkpoint(folder)
    variables = saver.restore(specs, latest) if latest else jv.variables_initializer(specs, 0)

    @jax.jit
    def update(variables: jv.Variables, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jv.Variables]:
        (value, variables), gradients = jv.value_and_grad(loss, has_aux=True)(variables, images, labels)
        return value, optimizer.apply_gradients(gradients, variables, global_step="global_step")

    for step in range(jv.train.global_step(variables), steps):
        batch = examples_of(step, jax.process_index(), jax.process_count())
        value, variables = update(variables, *jv.placement.batch(mesh, batch))
        if (step + 1) % save_every == 0 or step + 1 == steps:
            saver.save(variables, os.path.join(folder, "model.ckpt"), global_step="global_step")
        report(step + 1, float(value), variables)
    return variables

"""DCGAN of `examples` against its TF1 twin: names, losses, moving averages, and steps of both optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from examples import dcgan
from parity.live import fresh_graph, tf
from parity.zoo import dcgan_tf1 as twin
from parity.zoo.twin import EPSILON, assert_close, assert_restores, our_table, randomize, table, values

RANDOM = np.random.RandomState(2)
NOISE = RANDOM.uniform(-1, 1, [5, dcgan.NOISE]).astype(np.float32)
IMAGES = RANDOM.uniform(-1, 1, [5, 8, 8, 1]).astype(np.float32)
WIDTH = 8


@pytest.fixture(autouse=True)
def _ordered_reads() -> Iterator[None]:
    """Resource variables read when the program says so; the older kind, at any time."""
    tf.enable_resource_variables()
    yield
    tf.disable_resource_variables()


def test_losses_and_steps(tmp_path: Path) -> None:
    with fresh_graph() as session:
        d_loss, g_loss = twin.losses(tf.constant(NOISE), tf.constant(IMAGES), width=WIDTH)
        specs = dcgan.gan.specs(NOISE, IMAGES, width=WIDTH)
        assert our_table(specs) == table()

        randomized = tf.global_variables()
        d_train, g_train = twin.train_ops(d_loss, g_loss, 1e-2, EPSILON)
        d_optimizer, g_optimizer = dcgan.optimizers(specs, 1e-2, EPSILON)
        specs = g_optimizer.init(d_optimizer.init(specs))
        assert sorted(our_table(specs)) == sorted(table())

        session.run(tf.global_variables_initializer())
        randomize(session, randomized)
        variables = assert_restores(session, specs, tmp_path)

        d_step, g_step = dcgan.steps(d_optimizer, g_optimizer, WIDTH)
        for train, loss, step in ((d_train, d_loss, d_step), (g_train, g_loss, g_step)) * 2:
            theirs, _ = session.run([loss, train])
            ours, variables = step(variables, NOISE, IMAGES)
            assert_close(ours, theirs)
            for name, value in values(session).items():
                assert_close(variables[name], value, name=name)


def test_inference(tmp_path: Path) -> None:
    with fresh_graph() as session:
        fetches = [*twin.losses(tf.constant(NOISE), tf.constant(IMAGES), training=False, width=WIDTH)]
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            fetches.append(twin.generator(tf.constant(NOISE), training=False, width=WIDTH))
        randomize(session, tf.global_variables())
        specs = dcgan.gan.specs(NOISE, IMAGES, width=WIDTH)
        variables = assert_restores(session, specs, tmp_path)
        theirs = session.run(fetches)
        ours = [*dcgan.gan(variables, NOISE, IMAGES, training=False, width=WIDTH)]
        ours.append(dcgan.sampler(variables, NOISE, training=False, width=WIDTH))
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine, other)

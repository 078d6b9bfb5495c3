"""The Siamese network of `examples` against its TF1 twin: names, outputs, and a step of Adam."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

import jaxvars as jv
from examples import siamese
from parity.live import fresh_graph, tf
from parity.zoo import siamese_tf1 as twin
from parity.zoo.twin import EPSILON, assert_close, assert_restores, our_table, randomize, table, values

RANDOM = np.random.RandomState(1)
LEFT, RIGHT = RANDOM.uniform(size=[2, 6, 8, 8, 1]).astype(np.float32)
SAME = np.array([1, 0, 1, 0, 1, 0], np.float32)


def test_outputs_and_a_step_of_adam(tmp_path: Path) -> None:
    with fresh_graph() as session:
        loss = twin.contrastive_loss(tf.constant(LEFT), tf.constant(RIGHT), tf.constant(SAME), margin=2.0)
        points = twin.embed(tf.constant(LEFT))
        specs = siamese.contrastive.specs(LEFT, RIGHT, SAME)
        assert our_table(specs) == table()

        train = tf.train.AdamOptimizer(1e-2, epsilon=EPSILON).minimize(loss)
        optimizer = jv.train.AdamOptimizer(1e-2, epsilon=EPSILON)
        specs = optimizer.init(specs)
        assert sorted(our_table(specs)) == sorted(table())

        session.run(tf.global_variables_initializer())
        randomize(session, tf.trainable_variables())
        variables = assert_restores(session, specs, tmp_path)

        assert_close(siamese.embedding(variables, LEFT), session.run(points))

        def our_loss(variables: jv.Variables) -> jax.Array:
            return siamese.contrastive(variables, LEFT, RIGHT, SAME, margin=2.0)

        for _ in range(2):
            theirs, _ = session.run([loss, train])
            ours, variables = jax.jit(lambda v: optimizer.minimize(our_loss, v))(variables)
            assert_close(ours, theirs)
        for name, value in values(session).items():
            assert_close(variables[name], value, name=name)


def test_the_network_alone_makes_the_same_variables() -> None:
    with fresh_graph():
        twin.embed(tf.constant(LEFT))
        assert our_table(siamese.embedding.specs(LEFT)) == table()

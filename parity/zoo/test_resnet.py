"""ResNet of `examples` against its TF1 twin: all of ResNet-50 on small images, and steps of a small one."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

import jaxvars as jv
from examples import resnet
from parity.live import fresh_graph, tf
from parity.zoo import resnet_tf1 as twin
from parity.zoo.twin import assert_close, assert_restores, our_table, randomize, table, values

RANDOM = np.random.RandomState(4)
IMAGES = RANDOM.normal(size=[2, 64, 64, 3]).astype(np.float32)
DIGITS = RANDOM.uniform(size=[8, 8, 8, 1]).astype(np.float32)
LABELS = RANDOM.randint(10, size=8).astype(np.int32)


def test_resnet_50(tmp_path: Path) -> None:
    """Names, a checkpoint, inference, training, and all 106 moving averages."""
    with fresh_graph() as session:
        inferred = twin.resnet_v1_50(tf.constant(IMAGES), training=False)
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            trained = twin.resnet_v1_50(tf.constant(IMAGES), training=True)
        specs = resnet.resnet50.specs(IMAGES)
        assert our_table(specs) == table()
        assert len(specs) == 267

        randomize(session, tf.global_variables())
        variables = assert_restores(session, specs, tmp_path)
        assert_close(resnet.resnet50(variables, IMAGES), session.run(inferred), 1e-4)

        theirs, _ = session.run([trained, tf.get_collection(tf.GraphKeys.UPDATE_OPS)])
        ours, variables = jax.jit(lambda v: resnet.resnet50.apply(v, IMAGES, is_training=True))(variables)
        assert_close(ours, theirs, 2e-4)
        for name, value in values(session).items():
            assert_close(variables[name], value, 1e-4, name)


def test_training_a_small_one(tmp_path: Path) -> None:
    """Loss with weight decay, batch statistics, Momentum: the state after two steps."""
    with fresh_graph() as session:
        loss, _ = twin.small_loss(tf.constant(DIGITS), tf.constant(LABELS), resnet.SMALL)
        randomized = tf.global_variables()
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            train = tf.train.MomentumOptimizer(0.05, 0.9).minimize(loss)
        specs = resnet.small.specs(DIGITS, LABELS)
        optimizer = jv.train.MomentumOptimizer(0.05, 0.9)
        specs = optimizer.init(specs)
        assert our_table(specs) == table()

        session.run(tf.global_variables_initializer())
        randomize(session, randomized)
        variables = assert_restores(session, specs, tmp_path)

        def our_loss(variables: jv.Variables) -> tuple[jax.Array, jv.Variables]:
            (value, _), variables = resnet.small.apply(variables, DIGITS, LABELS)
            return value, variables

        step = jax.jit(lambda v: optimizer.minimize(our_loss, v))
        for _ in range(2):
            theirs, _ = session.run([loss, train])
            ours, variables = step(variables)
            assert_close(ours, theirs)
        for name, value in values(session).items():
            assert_close(variables[name], value, 1e-4, name)

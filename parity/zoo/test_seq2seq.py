"""The translator of `examples` against its TF1 twin: names, outputs, what it writes, and steps of Adam."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvars as jv
from examples import seq2seq
from examples.seq2seq import Config
from examples.seq2seq.__main__ import draw
from parity.live import fresh_graph, tf
from parity.zoo import seq2seq_tf1 as twin
from parity.zoo.twin import EPSILON, assert_close, assert_restores, our_table, randomize, table, values

BATCH = draw(5, 4, np.random.RandomState(3))
SMALL = Config(num_units=6)
KINDS = {
    "bidirectional, normed Bahdanau": SMALL,
    "bidirectional, Bahdanau, four layers": dataclasses.replace(SMALL, attention="bahdanau", num_layers=4),
    "scaled Luong": dataclasses.replace(SMALL, attention="scaled_luong", encoder_type="uni"),
    "Luong, one layer": dataclasses.replace(SMALL, attention="luong", encoder_type="uni", num_layers=1),
}


@pytest.fixture(autouse=True)
def compiled_fast() -> Iterator[None]:
    """Small programs are sooner done slowly than they are optimized."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed")


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_steps_of_adam(kind: str, tmp_path: Path) -> None:
    config = KINDS[kind]
    with fresh_graph() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's cells warn of themselves
        results = twin.evaluate(config, *(tf.constant(array) for array in BATCH))
        specs = seq2seq.evaluation.specs(config, *BATCH)
        assert our_table(specs) == table()
        assert our_table(seq2seq.training.specs(config, *BATCH)) == table()

        train = tf.train.AdamOptimizer(1e-2, epsilon=EPSILON).minimize(results[0])
        optimizer = jv.train.AdamOptimizer(1e-2, epsilon=EPSILON)
        specs = optimizer.init(specs)
        assert sorted(our_table(specs)) == sorted(table())

        session.run(tf.global_variables_initializer())
        randomize(session, tf.trainable_variables())
        variables = assert_restores(session, specs, tmp_path)
        ours = jax.jit(lambda v: seq2seq.evaluation(v, config, *BATCH))(variables)
        loss, tokens, alignments = session.run(results)
        assert_close(ours[0], loss)
        np.testing.assert_array_equal(ours[1], tokens)
        assert_close(ours[2], alignments)

        step = jax.jit(lambda v: optimizer.minimize(lambda v: seq2seq.training(v, config, *BATCH), v))
        for _ in range(2):
            theirs, _ = session.run([results[0], train])
            value, variables = step(variables)
            assert_close(value, theirs)
        for name, value in values(session).items():
            assert_close(variables[name], value, name=name, tolerance=1e-4)

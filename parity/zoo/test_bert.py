"""BERT of `examples` against its TF1 twin: all names of BERT-base, and a small one's outputs, loss and gradients."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvars as jv
from examples import bert
from parity.live import fresh_graph, tf
from parity.zoo import bert_tf1 as twin
from parity.zoo.twin import assert_close, assert_restores, our_table, randomize, table

SMALL = dataclasses.replace(bert.SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
BATCH, WORDS, LABELS = bert.sums(np.random.RandomState(3), 6)


def constants() -> dict[str, tf.Tensor]:
    return {name: tf.constant(value) for name, value in BATCH.items()}


def test_names_of_bert_base() -> None:
    with fresh_graph():
        twin.pretraining(bert.BertConfig(), **constants())
        ours = our_table(bert.pretraining.specs(bert.BertConfig(), **BATCH))
        assert ours == table()
        assert len(ours) == 206


@pytest.mark.slow
def test_outputs_of_bert_base() -> None:
    """The whole of it: 440 MB through a checkpoint, and the scores of 30,522 words."""
    # Not in tmp_path, which pytest keeps for the last three runs.
    with fresh_graph() as session, tempfile.TemporaryDirectory() as folder:
        outputs = twin.pretraining(bert.BertConfig(), **constants())
        randomize(session, tf.global_variables())
        path = tf.train.Saver().save(session, f"{folder}/model.ckpt")
        theirs = session.run(outputs)
        variables = jv.checkpoint.restore(path, bert.pretraining.specs(bert.BertConfig(), **BATCH))
    for mine, other in zip(bert.pretraining(variables, bert.BertConfig(), **BATCH), theirs, strict=True):
        assert_close(mine, other)


@pytest.mark.parametrize("scope", [None, "encoder_of_questions"])
def test_default_and_given_scope(scope: str | None) -> None:
    with fresh_graph():
        ids = tf.constant(BATCH["input_ids"])
        for _ in range(2):
            with tf.variable_scope("twice", reuse=tf.AUTO_REUSE):
                twin.bert(SMALL, ids, tf.ones_like(ids), tf.zeros_like(ids), scope)
            twin.bert(SMALL, ids, tf.ones_like(ids), tf.zeros_like(ids), None)

        def ours() -> None:
            for _ in range(2):
                with jv.variable_scope("twice", reuse=jv.AUTO_REUSE):
                    bert.bert(SMALL, BATCH["input_ids"], scope=scope)
                bert.bert(SMALL, BATCH["input_ids"])

        assert our_table(jv.transform(ours).specs()) == table()


def test_outputs_loss_and_gradients(tmp_path: Path) -> None:
    with fresh_graph() as session:
        words, following = twin.pretraining(SMALL, **constants())
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
        loss = tf.reduce_mean(cross_entropy(labels=WORDS, logits=words))
        loss += tf.reduce_mean(cross_entropy(labels=LABELS, logits=following))
        gradients = dict(
            zip([v.op.name for v in tf.global_variables()], tf.gradients(loss, tf.global_variables()), strict=True)
        )
        # TensorFlow hands out the gradient of looked-up rows as rows and numbers.
        gradients = {name: tf.convert_to_tensor(value) for name, value in gradients.items()}
        randomize(session, tf.global_variables())
        specs = bert.pretraining.specs(SMALL, **BATCH)
        assert our_table(specs) == table()
        variables = assert_restores(session, specs, tmp_path)

        theirs = session.run([words, following])
        for training in (False, True):
            ours, after = bert.pretraining.apply(variables, SMALL, **BATCH, training=training)
            assert after["bert/pooler/dense/kernel"] is variables["bert/pooler/dense/kernel"]
            for mine, other in zip(ours, theirs, strict=True):
                assert_close(mine, other)

        value, ours = jax.jit(jv.value_and_grad(lambda v: bert.pretraining_loss(v, SMALL, BATCH, WORDS, LABELS)))(
            variables
        )
        theirs, other_value = session.run([gradients, loss])
        assert_close(value, other_value)
        assert sorted(theirs) == list(ours)
        for name, gradient in theirs.items():
            assert_close(ours[name], gradient, name=name)


def test_mixed_precision(tmp_path: Path) -> None:
    """The custom getter: float32 variables, bfloat16 results."""
    with fresh_graph() as session:
        outputs = twin.pretraining(SMALL, **constants(), dtype=tf.bfloat16)
        specs = bert.pretraining.specs(SMALL, **BATCH, dtype="bfloat16")
        assert our_table(specs) == table()
        randomize(session, tf.global_variables())
        variables = assert_restores(session, specs, tmp_path)
        ours = bert.pretraining(variables, SMALL, **BATCH, dtype="bfloat16")
        for mine, other in zip(ours, session.run(outputs), strict=True):
            assert mine.dtype == other.dtype == "bfloat16"
            assert_close(mine.astype(np.float32), other.astype(np.float32), 0.05)

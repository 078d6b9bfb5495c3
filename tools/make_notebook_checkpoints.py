"""Trains two small TensorFlow 1 programs whose checkpoints the notebook on old checkpoints takes over.

Nobody needs to run it: its output lies in `notebooks/data`. To make that again, in an environment with TensorFlow
(the `parity` extra), from the root of the clone:

    PYTHONPATH=. python tools/make_notebook_checkpoints.py

`bert` holds a BERT of three narrow layers, with Adam's slots, in TensorFlow's V2 format; `resnet` a ResNet of four
narrow units under slim's names, with Momentum's slots and averaged weights, in the V1 format of before 2017. Beside
each lies what TensorFlow itself answers: `reading.json`, the dtype, shape and SHA-256 of every tensor as
`tf.train.load_checkpoint` reads it, and `answers.npz`, inputs and outputs. The models are the twins in `parity/zoo`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from examples.bert import LENGTH, TOKENS, BertConfig, sums
from examples.resnet import Block
from parity.live import fresh_graph, tf
from parity.zoo import bert_tf1, resnet_tf1

DATA = Path(__file__).resolve().parent.parent / "notebooks" / "data"

BERT = BertConfig(
    vocab_size=len(TOKENS),
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=LENGTH,
)
BERT_STEPS, RESNET_STEPS, NEXT_STEPS = 10000, 400, 5
BLOCKS = (Block("block1", 4, 2, 2), Block("block2", 8, 2, 1))


def write_answers(folder: Path, path: str, **answers: Any) -> None:
    """Write what TensorFlow reads in the checkpoint `path`, and what it computed."""
    reader = tf.train.load_checkpoint(path)
    reading = {}
    for name in sorted(reader.get_variable_to_shape_map()):
        value = np.asarray(reader.get_tensor(name))
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        reading[name] = {"dtype": value.dtype.name, "shape": list(value.shape), "sha256": digest}
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in reading.items()]
    (folder / "reading.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    np.savez_compressed(folder / "answers.npz", **answers)


def empty_folder(name: str) -> Path:
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def bert() -> None:
    """Pre-train on sums with a hidden digit, save, and go on for some steps whose losses are recorded."""
    folder, random = empty_folder("bert"), np.random.RandomState(0)
    with fresh_graph(seed=1) as session:
        batch, words, labels = sums(random, 64)
        inputs = {name: tf.placeholder(tf.int32, value.shape) for name, value in batch.items()}
        word_labels, pair_labels = tf.placeholder(tf.int32, words.shape), tf.placeholder(tf.int32, labels.shape)
        word_logits, pair_logits = bert_tf1.pretraining(BERT, **inputs)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
        loss = tf.reduce_mean(entropy(labels=word_labels, logits=word_logits))
        loss += tf.reduce_mean(entropy(labels=pair_labels, logits=pair_logits))
        step = tf.train.get_or_create_global_step()
        train = tf.train.AdamOptimizer(2e-3).minimize(loss, global_step=step)
        saver = tf.train.Saver(save_relative_paths=True)
        session.run(tf.global_variables_initializer())

        def feed(batch: dict[str, Any], words: Any, labels: Any) -> dict[Any, Any]:
            return {**{inputs[name]: batch[name] for name in inputs}, word_labels: words, pair_labels: labels}

        for _ in range(BERT_STEPS):
            session.run(train, feed(*sums(random, 64)))
        path = saver.save(session, str(folder / "bert_model.ckpt"), global_step=step, write_meta_graph=False)
        answers = session.run([word_logits, pair_logits], feed(batch, words, labels))
        following = [sums(random, 64) for _ in range(NEXT_STEPS)]
        losses = [session.run([loss, train], feed(*examples))[0] for examples in following]

    found = np.mean(answers[0].argmax(-1) == words)
    sys.stdout.write(f"{path}: hidden digits found {found:.3f}, then losses {np.round(losses, 4)}\n")
    every = [(batch, words, labels), *following]
    write_answers(
        folder,
        path,
        **{name: np.stack([examples[0][name] for examples in every]) for name in batch},
        words=np.stack([examples[1] for examples in every]),
        labels=np.stack([examples[2] for examples in every]),
        word_logits=answers[0],
        pair_logits=answers[1],
        next_losses=np.asarray(losses, np.float32),
    )


def resnet() -> None:
    """Train on scikit-learn's digits, enlarged to 32 by 32, and save as slim's programs of 2016 did."""
    folder, random = empty_folder("resnet"), np.random.RandomState(0)
    digits = load_digits()
    pixels = (digits.images / 16.0).astype(np.float32)[..., None]
    unseen = np.arange(len(pixels)) % 5 == 0
    chosen = np.flatnonzero(~unseen)
    with fresh_graph(seed=1) as session:
        images, labels = tf.placeholder(tf.float32, [None, 8, 8, 1]), tf.placeholder(tf.int32, [None])
        large = tf.repeat(tf.repeat(images, 4, axis=1), 4, axis=2)

        def logits(training: bool) -> Any:
            with tf.variable_scope("", reuse=not training):
                return resnet_tf1.resnet_v1(large, BLOCKS, 10, training, 8, 0.9, "resnet_v1_50")

        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits(training=True))
        loss = tf.reduce_mean(entropy) + tf.losses.get_regularization_loss()
        step = tf.train.get_or_create_global_step()
        averages = tf.train.ExponentialMovingAverage(0.99, step)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            update = tf.train.MomentumOptimizer(0.05, 0.9).minimize(loss, global_step=step)
        with tf.control_dependencies([update]):
            train = averages.apply(tf.trainable_variables())
        prediction = logits(training=False)
        session.run(tf.global_variables_initializer())
        for _ in range(RESNET_STEPS):
            batch = random.choice(chosen, 64)
            session.run(train, {images: pixels[batch], labels: digits.target[batch]})

        saver = tf.train.Saver(write_version=tf.train.SaverDef.V1, save_relative_paths=True)
        path = saver.save(session, str(folder / "model.ckpt"), global_step=step, write_meta_graph=False)
        test = {images: pixels[unseen]}
        plain = session.run(prediction, test)
        tf.train.Saver(averages.variables_to_restore()).restore(session, path)
        averaged = session.run(prediction, test)

    target = digits.target[unseen].astype(np.int32)
    right = [np.mean(each.argmax(-1) == target) for each in (plain, averaged)]
    sys.stdout.write(f"{path}: test accuracy {right[0]:.3f}, of the averaged weights {right[1]:.3f}\n")
    write_answers(folder, path, images=pixels[unseen], labels=target, logits=plain, averaged_logits=averaged)


def main() -> None:
    warnings.filterwarnings("ignore", ".*is deprecated and will be removed")
    bert()
    resnet()


if __name__ == "__main__":
    main()

"""Record which variables TensorFlow 1 makes for the models of `examples`, for tests/golden/zoo/.

Run it in an environment with tensorflow and tf-keras, which holds `tf.layers` (the `parity` extra), from the root:

    PYTHONPATH=. python tools/record_zoo_goldens.py

A line holds a variable's name, shape, dtype and whether it is trainable; the order is that of creation.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from examples.bert import BertConfig
from examples.seq2seq import Config
from parity.live import fresh_graph, tf
from parity.zoo import bert_tf1, dcgan_tf1, resnet_tf1, seq2seq_tf1, siamese_tf1
from parity.zoo.twin import table

ROOT = Path(__file__).resolve().parent.parent


def siamese() -> None:
    images = tf.zeros([2, 8, 8, 1])
    siamese_tf1.contrastive_loss(images, images, tf.zeros([2]))


def dcgan() -> None:
    dcgan_tf1.losses(tf.zeros([2, 32]), tf.zeros([2, 8, 8, 1]))


def bert_base() -> None:
    ids = tf.zeros([2, 16], tf.int32)
    bert_tf1.pretraining(BertConfig(), ids, ids, ids, ids[:, :1])


def resnet_v1_50() -> None:
    resnet_tf1.resnet_v1_50(tf.zeros([1, 224, 224, 3]), training=False)


def seq2seq() -> None:
    ids, lengths = tf.zeros([2, 3], tf.int32), tf.ones([2], tf.int32)
    seq2seq_tf1.evaluate(Config(), ids, lengths, ids, lengths)


BUILDERS: tuple[Callable[[], None], ...] = (siamese, dcgan, bert_base, resnet_v1_50, seq2seq)


def main() -> None:
    warnings.filterwarnings("ignore", ".*is deprecated and will be removed")
    folder = ROOT / "tests" / "golden" / "zoo"
    folder.mkdir(parents=True, exist_ok=True)
    for build in BUILDERS:
        with fresh_graph():
            build()
            lines = table()
        (folder / f"{build.__name__}.txt").write_text("\n".join(lines) + "\n")
        sys.stdout.write(f"{build.__name__}: {len(lines)} variables\n")


if __name__ == "__main__":
    main()

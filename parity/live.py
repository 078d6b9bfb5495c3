"""TensorFlow 1 as the tests of this folder use it, and how many examples a property takes."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import hypothesis

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
tf.logging.set_verbosity(tf.logging.ERROR)

__all__ = ["FACTOR", "examples", "fresh_graph", "tf"]

#: Every property takes this many times its usual number of examples. With 1, the whole suite takes at least 2,000.
FACTOR = float(os.environ.get("JAXVARS_PARITY_EXAMPLES", "1"))


def examples(number: int) -> hypothesis.settings:
    """A decorator that goes above `given`: `number` examples, times `JAXVARS_PARITY_EXAMPLES`."""
    return hypothesis.settings(max_examples=max(1, round(number * FACTOR)))


@contextlib.contextmanager
def fresh_graph(seed: int | None = None) -> Iterator[tf.Session]:
    """A new default graph, with a session of one thread in it (the tests run on every core already)."""
    one_thread = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf.Graph().as_default(), tf.Session(config=one_thread) as session:
        if seed is not None:
            tf.set_random_seed(seed)
        yield session

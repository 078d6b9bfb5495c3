"""The digits, the packaged TensorFlow checkpoint, and what TensorFlow answered for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["CHECKPOINT", "Examples", "TensorFlowAnswers", "few_labelled", "read_digits", "tensorflow_answers"]

_FOLDER = Path(__file__).parent / "data"

CHECKPOINT = _FOLDER / "model.ckpt-1200"
"""What TensorFlow 1 code saved (tools/make_digits_checkpoint.py), named as `tf.train.Saver` names it."""


@dataclass(frozen=True)
class Examples:
    """Images, float32 [n, 8, 8, 1] from 0 to 1, and their labels, int32 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TensorFlowAnswers:
    """What TensorFlow computed from the checkpoint: logits, float32 [n, 10], of every test image."""

    logits: np.ndarray
    labels: np.ndarray
    accuracy: float


def read_digits() -> tuple[Examples, Examples]:
    """Return the training and the test digits; every fifth image is for the test, as in the TF1 program.

    The 1,797 handwritten digits come with scikit-learn: nothing is downloaded.
    """
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    images = (np.asarray(pixels) / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = np.asarray(digits).astype(np.int32)
    is_test = np.arange(len(labels)) % 5 == 0
    return Examples(images[~is_test], labels[~is_test]), Examples(images[is_test], labels[is_test])


def few_labelled(examples: Examples, per_digit: int, seed: int) -> Examples:
    """Return `per_digit` examples of each digit, drawn with `seed`, all that the new task may learn from."""
    order = np.random.RandomState(seed).permutation(len(examples))
    chosen = np.concatenate([order[examples.labels[order] == digit][:per_digit] for digit in range(10)])
    return Examples(examples.images[chosen], examples.labels[chosen])


def tensorflow_answers() -> TensorFlowAnswers:
    """Read what TensorFlow recorded beside the checkpoint."""
    with np.load(_FOLDER / "tensorflow_answers.npz") as recorded:
        return TensorFlowAnswers(recorded["logits"], recorded["labels"], float(recorded["accuracy"]))

"""The program of `docs/migration.md`: TensorFlow runs TF1's, jaxvars its own, and one checkpoint serves both."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from parity.live import fresh_graph, tf

PAGE = Path(__file__).parents[1] / "docs" / "migration.md"


def _l2_regularizer(scale: float) -> Any:
    """TF1's `tf.contrib.layers.l2_regularizer`, which TensorFlow 2 no longer has."""
    return lambda weights: scale * tf.nn.l2_loss(weights)


def test_both_programs_make_the_same_checkpoint_and_predict_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```(py|python)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    theirs = next(code for language, code in blocks if language == "py")
    data, ours = [code for language, code in blocks if language == "python"][:2]

    here: dict[str, Any] = {}
    (tmp_path / "ours").mkdir()
    monkeypatch.chdir(tmp_path / "ours")
    with jax.numpy_rank_promotion("allow"):  # documents run with JAX's defaults
        exec(data + ours, here)

    contrib = SimpleNamespace(layers=SimpleNamespace(l2_regularizer=_l2_regularizer))
    monkeypatch.setattr(tf, "contrib", contrib, raising=False)
    there = {"tf": tf, "images": here["images"], "labels": here["labels"]}
    (tmp_path / "theirs" / "run").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "theirs")
    with fresh_graph():
        exec(theirs, there)

    path = str(tmp_path / "theirs" / "run" / "model.ckpt-20")
    assert sorted(name for name, _ in tf.train.list_variables(path)) == list(here["variables"])
    assert tf.train.load_variable(path, "global_step") == here["variables"]["global_step"] == 20
    restored = here["saver"].restore(here["variables"], path)
    with jax.numpy_rank_promotion("allow"):
        predictions = here["models"]["predict"](restored, here["images"])
    np.testing.assert_allclose(predictions, there["predictions"], rtol=1e-4, atol=1e-5)

"""What all twins share: tables of variables, random checkpoints, and how results are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import jaxvars as jv
from parity.live import tf

__all__ = ["EPSILON", "assert_close", "assert_restores", "our_table", "randomize", "table", "values"]

EPSILON = 1e-4
"""Adam's in comparisons: with the default 1e-8 a gradient that is 0 but for rounding moves its weight a whole step."""


def table() -> list[str]:
    """One line per variable of the default graph, in order of creation: name, shape, dtype, whether trainable."""
    trainable = {variable.ref() for variable in tf.trainable_variables()}
    return [
        _line(v.op.name, v.shape.as_list(), v.dtype.base_dtype.name, v.ref() in trainable)
        for v in tf.global_variables()
    ]


def our_table(variables: jv.Variables) -> list[str]:
    """The same of jaxvars variables."""
    specs = variables.variable_specs
    return [
        _line(key, specs[key].shape, specs[key].dtype, specs[key].trainable) for key in variables._layout.creation_order
    ]


def _line(name: str, shape: Any, dtype: Any, trainable: bool) -> str:
    sizes = ",".join(str(n) for n in shape)
    return f"{name} [{sizes}] {np.dtype(dtype).name} {'trainable' if trainable else '-'}"


def randomize(session: tf.Session, variables: list[Any], seed: int = 0) -> None:
    """Give these variables random values: positive ones for variances, near 1 for factors, small ones for others."""
    random = np.random.RandomState(seed)
    for variable in variables:
        shape, last = variable.shape.as_list(), variable.op.name.rpartition("/")[2]
        if last in ("moving_variance", "gamma"):
            value = random.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = random.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        else:
            value = random.normal(size=shape) * 0.1
        variable.load(np.asarray(value, np.float32), session)


def values(session: tf.Session) -> dict[str, np.ndarray]:
    """The present value of every variable of the graph."""
    variables = tf.global_variables()
    return dict(zip([v.op.name for v in variables], session.run(variables), strict=True))


def assert_restores(session: tf.Session, specs: jv.Variables, folder: Path) -> jv.Variables:
    """Save all variables of the graph with TF1's Saver and restore them, without any rule, in both of our ways."""
    path = tf.train.Saver().save(session, str(folder / "model.ckpt"))
    restored = jv.train.Saver().restore(specs, path)
    again = jv.checkpoint.restore(path, specs)
    written = values(session)
    assert sorted(written) == list(restored) == list(again)
    for name, value in written.items():
        np.testing.assert_array_equal(restored[name], value, err_msg=name)
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    return restored


def assert_close(ours: Any, theirs: Any, tolerance: float = 2e-5, name: str = "") -> None:
    """Compare to float32 accuracy: relative to the largest value, as sums of different order differ by that."""
    theirs = np.asarray(theirs)
    scale = max(1.0, float(np.abs(theirs).max(initial=0.0)))
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance * scale, err_msg=name)

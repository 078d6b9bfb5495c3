"""Arrays for both sides, and how close what they compute has to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

from jaxvars.errors import InvalidArgumentError
from parity.live import fresh_graph, tf

__all__ = ["agree", "both", "normal", "seeds", "theirs", "triple"]

seeds = st.integers(0, 2**16)


def normal(seed: int, *shape: int, positive: bool = False) -> np.ndarray:
    """Random float32 numbers."""
    values = np.random.RandomState(seed % 2**32).standard_normal(shape).astype(np.float32)
    return np.abs(values) + np.float32(0.1) if positive else values


def triple(seed: int, dims: int, values: tuple[int, ...]) -> list[int]:
    """One of the values for each axis."""
    return [int(v) for v in np.random.RandomState(seed).choice(values, dims)]


def theirs(build: Callable[..., Any], *arrays: Any) -> Any:
    """What TensorFlow computes from the arrays."""
    with fresh_graph() as session:
        # Fed, not constants: TensorFlow fails to fold some operations on constants.
        places = [tf.placeholder(np.asarray(array).dtype, np.shape(array)) for array in arrays]
        return session.run(build(*places), dict(zip(places, arrays, strict=True)))


def agree(ours: Any, expected: Any, rtol: float = 2e-5, atol: float = 2e-5) -> None:
    """Both are the same to float32 accuracy, dtypes and shapes included."""
    left, right = jax.tree.leaves(ours), jax.tree.leaves(expected)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        array = np.asarray(a)
        assert array.shape == np.shape(b)
        assert array.dtype == np.asarray(b).dtype
        scale = float(np.max(np.abs(b), initial=1.0, where=np.isfinite(b)))
        np.testing.assert_allclose(array, b, rtol=rtol, atol=atol * scale)


def both(ours: Callable[..., Any], build: Callable[..., Any], *arrays: Any, **tolerances: float) -> Any:
    """Compare a call of ours with TensorFlow's; where TensorFlow refuses, ours must too."""
    try:
        expected = theirs(build, *arrays)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        try:
            ours(*arrays)
        except InvalidArgumentError:
            return None
        raise AssertionError(f"TensorFlow refuses: {error}") from error
    result = ours(*arrays)
    agree(result, expected, **tolerances)
    return result

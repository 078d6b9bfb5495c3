"""Regularizers: contrib's formulas and argument checks."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from jaxvars import regularizers as reg
from jaxvars.errors import InvalidArgumentError, InvalidTypeError

W = jnp.array([[1.0, -2.0], [3.0, 0.5]])


def test_formulas() -> None:
    assert float(reg.l1_regularizer(0.5)(W)) == pytest.approx(0.5 * 6.5)
    assert float(reg.l2_regularizer(0.5)(W)) == pytest.approx(0.5 * 14.25 / 2)
    assert float(reg.l1_l2_regularizer(0.5, 0.25)(W)) == pytest.approx(0.5 * 6.5 + 0.25 * 14.25 / 2)
    assert float(reg.l1_l2_regularizer()(W)) == pytest.approx(6.5 + 14.25 / 2)
    assert reg.no_regularizer(W) is None
    assert float(reg.l2_regularizer(1.0)(jnp.array([3 + 4j]))) == pytest.approx(12.5)
    assert float(reg.l1_regularizer(1.0)(jnp.array([3 + 4j]))) == pytest.approx(5)


@given(st.lists(st.floats(-100, 100, width=32), max_size=8), st.floats(0.125, 10, width=32))
def test_against_numpy(values: list[float], scale: float) -> None:
    w = np.array(values, np.float64)
    assert float(reg.l1_regularizer(scale)(values_of(w))) == pytest.approx(scale * np.abs(w).sum(), rel=1e-4)
    assert float(reg.l2_regularizer(scale)(values_of(w))) == pytest.approx(scale * (w**2).sum() / 2, rel=1e-4)


def values_of(w: np.ndarray[Any, Any]) -> jax.Array:
    return jnp.asarray(w, jnp.float32)


def test_dtype_is_that_of_the_weights() -> None:
    for make in (reg.l1_regularizer, reg.l2_regularizer):
        for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
            loss = make(0.1)(W.astype(dtype))
            assert loss.dtype == dtype and loss.shape == () and not loss.weak_type
    assert reg.l2_regularizer(0.1)(jnp.zeros((0, 3))) == 0


def test_gradients_and_jit() -> None:
    assert np.allclose(jax.jit(jax.grad(reg.l2_regularizer(0.5)))(W), 0.5 * W)
    assert np.allclose(jax.grad(reg.l1_regularizer(0.5))(W), 0.5 * jnp.sign(W))


def test_zero_scale_disables() -> None:
    for make in (reg.l1_regularizer, reg.l2_regularizer):
        assert make(0.0)(W) is None
        assert make(np.float32(0))(W) is None
    assert reg.l1_l2_regularizer(0.0, 0.0)(W) is None
    assert float(reg.l1_l2_regularizer(0.0, 2.0)(W)) == pytest.approx(14.25)
    assert float(reg.l1_l2_regularizer(2.0, 0.0)(W)) == pytest.approx(13)


@pytest.mark.parametrize("make", [reg.l1_regularizer, reg.l2_regularizer])
def test_scales_are_checked(make: Any) -> None:
    for scale in (1, 0, True, np.int32(2)):
        with pytest.raises(InvalidArgumentError, match="scale cannot be an integer"):
            make(scale)
    for scale in (-0.5, float("nan")):
        with pytest.raises(InvalidArgumentError, match="scale less than 0 on a regularizer"):
            make(scale)
    for scale in ("0.5", None, [0.5], jnp.ones(2), jnp.int32(1)):
        with pytest.raises(InvalidTypeError, match="scale must be a float"):
            make(scale)


def test_both_scales_are_checked() -> None:
    with pytest.raises(ValueError, match="scale_l1 cannot be an integer: 1"):
        reg.l1_l2_regularizer(1, 0.5)
    with pytest.raises(ValueError, match="scale_l2 cannot be an integer: 0"):
        reg.l1_l2_regularizer(0.5, 0)


def test_a_scale_may_be_an_array_or_traced() -> None:
    assert float(reg.l2_regularizer(jnp.float32(0.5))(W)) == pytest.approx(0.5 * 14.25 / 2)
    assert float(jax.jit(lambda s: reg.l2_regularizer(s)(W))(0.5)) == pytest.approx(0.5 * 14.25 / 2)
    assert float(jax.grad(lambda s: reg.l1_regularizer(s)(W))(0.5)) == pytest.approx(6.5)


def test_sum() -> None:
    l1, l2 = reg.l1_regularizer(0.5), reg.l2_regularizer(0.25)
    both = reg.sum_regularizer([l1, None, l2, reg.no_regularizer])
    assert both is not None and both(W) == l1(W) + l2(W)
    assert reg.sum_regularizer([]) is None
    assert reg.sum_regularizer([None]) is None
    nothing = reg.sum_regularizer([reg.no_regularizer])
    assert nothing is not None and nothing(W) is None
    with pytest.raises(InvalidTypeError, match="must be callable"):
        reg.sum_regularizer([0.5])  # type: ignore[list-item]


def test_integer_weights_are_refused() -> None:
    for make in (reg.l1_regularizer, reg.l2_regularizer):
        with pytest.raises(InvalidTypeError, match=r"floating point weights, but int32\[2\]"):
            make(0.1)(jnp.arange(2, dtype=jnp.int32))


def test_regularizers_are_values() -> None:
    for regularizer in (reg.l1_regularizer(0.5), reg.l2_regularizer(0.5), reg.l1_l2_regularizer(0.5, 0.1)):
        again = pickle.loads(pickle.dumps(regularizer))
        assert again == regularizer and hash(again) == hash(regularizer)
    assert reg.l1_regularizer(0.5) != reg.l2_regularizer(0.5)
    assert pickle.loads(pickle.dumps(reg.no_regularizer)) is reg.no_regularizer


def test_scope_is_accepted() -> None:
    assert reg.l1_regularizer(0.5, scope="l1")(W) == reg.l1_regularizer(0.5, "x")(W)
    assert reg.l1_l2_regularizer(0.5, 0.5, scope="both") == reg.l1_l2_regularizer(0.5, 0.5)


def test_a_scope_lists_its_losses_as_values():
    with jv.VariableStore(rng=0):
        with jv.variable_scope("a") as scope:
            jv.get_variable("w", initializer=jnp.ones(2), regularizer=jv.regularizers.l2_regularizer(1.0))
            jv.get_variable("b", initializer=jnp.ones(2), regularizer=jv.no_regularizer)
        jv.get_variable("ab", initializer=jnp.ones(2), regularizer=jv.regularizers.l2_regularizer(1.0))
        assert [float(loss) for loss in scope.get_collection("regularization_losses")] == [1.0]

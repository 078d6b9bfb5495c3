"""What TensorFlow's init_ops_test.py checks of initializers, where test_initializers.py does not: within a graph.

A docstring names the behaviour upstream; docs/upstream-tests.md is the table of all.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

import jaxvars as jv

RANDOM = {
    "RandomNormal": jv.random_normal_initializer(),
    "TruncatedNormal": jv.truncated_normal_initializer(),
    "RandomUniform": jv.random_uniform_initializer(-1.0, 1.0),
    "UniformUnitScaling": jv.uniform_unit_scaling_initializer(),
    "Orthogonal": jv.orthogonal_initializer(),
}


@functools.cache
def graph(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Two variables of each initializer, in a graph of this seed."""
    with jv.VariableStore(seed) as store:
        for name, initializer in RANDOM.items():
            for number in range(2):
                jv.get_variable(f"{name}/{number}", [8, 8], initializer=initializer)
    return {name: np.asarray(value) for name, value in store.variables.items()}


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_gives_identical_values(name: str) -> None:
    """Upstream: Identical of RandomNormal, TruncatedNormal, RandomUniform, UniformUnitScaling, Orthogonal."""
    again = graph.__wrapped__(1)
    assert np.array_equal(graph(1)[f"{name}/0"], again[f"{name}/0"])


@pytest.mark.parametrize("name", RANDOM)
def test_another_seed_gives_different_values(name: str) -> None:
    """Upstream: Different of RandomNormal, TruncatedNormal, RandomUniform, UniformUnitScaling, Orthogonal."""
    assert not np.isclose(graph(1)[f"{name}/0"], graph(2)[f"{name}/0"]).all()


@pytest.mark.parametrize("name", RANDOM)
def test_two_draws_from_one_initializer_differ(name: str) -> None:
    """Upstream: Duplicated of RandomNormal, TruncatedNormal, RandomUniform, UniformUnitScaling, Orthogonal."""
    assert not np.isclose(graph(1)[f"{name}/0"], graph(1)[f"{name}/1"]).all()


def test_identity_must_be_two_dimensional_and_may_be_oblong() -> None:
    """Upstream: Identity InvalidShape, NonSquare, Gain."""
    with jv.VariableStore(0):
        with pytest.raises(ValueError, match="must be two-dimensional"):
            jv.get_variable("bad", [3, 2, 2], initializer=jv.identity_initializer())
        wide = jv.get_variable("wide", [5, 10], initializer=jv.identity_initializer(gain=3.14))
        tall = jv.get_variable("tall", [10, 5], initializer=jv.identity_initializer())
        np.testing.assert_allclose(wide, 3.14 * np.eye(5, 10), rtol=1e-6)
        assert np.array_equal(tall, np.eye(10, 5))


def test_no_device_by_default() -> None:
    """Upstream: DeviceTest.testNoDevice."""
    with jv.VariableStore(0):
        v = jv.get_variable("w", [2], initializer=jv.ones_initializer())
        assert v.device == ""


def test_variables_and_initial_values_are_on_the_given_job() -> None:
    """Upstream: DeviceTest.testDevice."""

    def net() -> None:
        with jv.device("/job:ps"):
            assert jv.get_variable("w", [2], initializer=jv.ones_initializer()).device == "/job:ps"
        with jv.device("/device:CPU:1"):
            jv.get_variable("v", [2], initializer=jv.ones_initializer())

    specs = jv.transform(net).specs()
    assert specs.variable_specs["w"].placement == "/job:ps"
    filled = jv.variables_initializer(specs, 0, ["v"])["v"]
    assert filled.devices() == {jax.devices("cpu")[1]}

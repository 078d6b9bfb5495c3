"""Filling, reporting and asking for uninitialized variables of a state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars._keys import variable_key
from jaxvars.errors import FailedPreconditionError, InvalidTypeError, NotFoundError
from jaxvars.initialize import (
    assert_variables_initialized,
    global_variables_initializer,
    is_variable_initialized,
    local_variables_initializer,
    report_uninitialized_variables,
    variables_initializer,
)
from jaxvars.spec import Hole, VariableSpec
from jaxvars.variables import Variables


def state():
    normal = jv.random_normal_initializer(stddev=0.1)
    pairs = [
        (VariableSpec("w", (3,), "float32"), Hole((3,), "float32", initializer=normal)),
        (
            VariableSpec("local", (), "int32", collections=("local_variables",)),
            Hole((), "int32", initializer=jv.ones_initializer()),
        ),
        (VariableSpec("b", (2,), "float32"), Hole((2,), "float32", initializer=jv.zeros_initializer())),
        (VariableSpec("given", (), "float32"), jnp.float32(5)),
    ]
    return Variables.from_specs(pairs)


def test_all_some_or_one_collection():
    variables = state()
    assert variables_initializer(variables, 0).uninitialized == ()
    assert float(variables_initializer(variables, 0)["given"]) == 5.0
    assert variables_initializer(variables, 0, ["b:0", "given"]).uninitialized == ("w", "local")
    assert variables_initializer(variables, None, []) is variables
    assert global_variables_initializer(variables, 0).uninitialized == ("local",)
    assert local_variables_initializer(variables, None).uninitialized == ("w", "b")
    assert variables_initializer(variables, 0, variables.scope("w")).uninitialized == ("local", "b")


def test_values_depend_on_the_name_only():
    variables = state()
    alone = variables_initializer(variables, 0, ["w"])["w"]
    together = variables_initializer(variables, jax.random.key(0))["w"]
    expected = jax.jit(lambda key: jax.random.normal(variable_key(key, "w"), (3,), "float32") * 0.1)(jax.random.key(0))
    assert np.array_equal(alone, together)
    np.testing.assert_allclose(alone, expected, rtol=1e-6)
    inside = jax.jit(lambda seed: variables_initializer(variables, jax.random.key(seed))["w"])(0)
    assert np.array_equal(inside, alone)


def test_reports_in_creation_order_global_first():
    variables = state()
    assert report_uninitialized_variables(variables) == ["w", "b", "local"]
    assert report_uninitialized_variables(variables, ["b", "given"]) == ["b"]
    assert not is_variable_initialized(variables, "w:0") and is_variable_initialized(variables, "given")
    with pytest.raises(FailedPreconditionError, match=r"(?s)uninitialized value w, b, local.*variables_initializer"):
        assert_variables_initialized(variables)
    assert_variables_initialized(variables, ["given"])
    assert_variables_initialized(variables_initializer(variables, 0))


def test_what_is_wrong_is_said():
    variables = state()
    with pytest.raises(NotFoundError, match=r'(?s)several variables do not exist.*"v".*"c"'):
        variables_initializer(variables, 0, ["v", "w", "c"])
    with pytest.raises(InvalidTypeError, match=r"Write: \['w'\]"):
        variables_initializer(variables, 0, "w")
    with pytest.raises(NotFoundError):
        is_variable_initialized(variables, "v")
    with pytest.raises(FailedPreconditionError, match="h"):
        variables_initializer(Variables({"h": jax.ShapeDtypeStruct((), "float32")}), 0)

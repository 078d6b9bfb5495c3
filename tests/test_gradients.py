"""`jv.grad` and `jv.value_and_grad`: what they select, what they return, what they refuse."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    NotFoundError,
)
from jaxvars.spec import VariableSpec


def spec(key, trainable=True):
    collections = ("variables", "trainable_variables") if trainable else ("variables",)
    return VariableSpec(key, (), np.float32, trainable, collections)


@pytest.fixture
def variables():
    return jv.Variables.from_specs(
        [
            (spec("conv/w"), jnp.array([1.0, 2.0])),
            (spec("conv/b"), jnp.array(3.0)),
            (spec("head/w"), jnp.array([4.0, 5.0])),
            (spec("bn/mean", trainable=False), jnp.array(6.0)),
            (spec("count"), np.int32(7)),
        ]
    )


def loss(variables, scale=1.0):
    conv = jnp.sum(variables["conv/w"] ** 2) * variables["conv/b"]
    return scale * (conv + jnp.sum(variables["head/w"] ** 3) * variables["bn/mean"] + variables["count"])


def test_default_is_trainable_and_floating(variables):
    value, gradients = jv.value_and_grad(loss)(variables)
    assert isinstance(gradients, jv.Variables)
    assert list(gradients) == ["conv/b", "conv/w", "head/w"]
    assert float(value) == float(loss(variables))
    np.testing.assert_allclose(gradients["conv/w"], [6.0, 12.0])
    np.testing.assert_allclose(gradients["conv/b"], 5.0)
    np.testing.assert_allclose(gradients["head/w"], [288.0, 450.0])


def test_gradients_keep_flags_shapes_and_dtypes(variables):
    gradients = jv.grad(loss, wrt=["bn/mean", "conv/w"])(variables)
    specs, wanted = gradients.variable_specs, variables.variable_specs
    assert specs == {key: wanted[key] for key in ("bn/mean", "conv/w")}
    assert not specs["bn/mean"].trainable


class Handle:
    key = "conv/w"


@pytest.mark.parametrize(
    ("wrt", "keys"),
    [
        ("head/w", ["head/w"]),
        ("head/w:0", ["head/w"]),
        ("bn/mean", ["bn/mean"]),
        (Handle(), ["conv/w"]),
        ([Handle(), "head/w"], ["conv/w", "head/w"]),
        ("conv/", ["conv/b", "conv/w"]),
        (r".*/w", ["conv/w", "head/w"]),
        ([("conv/b", None), "conv/"], ["conv/w"]),
    ],
)
def test_wrt_forms(variables, wrt, keys):
    assert list(jv.grad(loss, wrt=wrt)(variables)) == keys


def test_wrt_view(variables):
    view = jv.Variables({"conv/w": jnp.zeros(2)})
    kept = weakref.ref(view["conv/w"])
    gradient = jv.grad(loss, wrt=view)
    assert list(gradient(variables)) == ["conv/w"]
    del view
    assert kept() is None  # only the names are kept


def test_a_view_chooses_among_trainable_variables_as_a_pattern_does():
    variables = jv.Variables({"n/w": jnp.ones(2), "n/mean": jnp.ones(2)}).with_trainable({"n/mean": False})

    def squares(v):
        return jnp.sum(v["n/w"] ** 2) + jnp.sum(v["n/mean"] ** 2)

    for wrt in (variables.scope("n"), "n/"):
        assert list(jv.grad(squares, wrt=wrt)(variables)) == ["n/w"]
    assert list(jv.grad(squares, wrt=variables.non_trainable)(variables)) == ["n/mean"]
    optimizer = jv.train.AdamOptimizer(var_list=variables.scope("n"))
    assert "n/mean/Adam" not in optimizer.init(variables)


def test_agrees_with_numerical_gradients(variables):
    gradients = jv.grad(loss)(variables)
    for key in gradients:
        direction = jnp.ones_like(variables[key])
        ahead, behind = (variables._set(key, variables[key] + e * direction) for e in (1e-2, -1e-2))
        slope = (loss(ahead) - loss(behind)) / 2e-2
        np.testing.assert_allclose(jnp.sum(gradients[key]), slope, rtol=1e-3)


def test_aux_of_whole_variables_passes_through(variables):
    def with_state(variables, scale):
        return loss(variables, scale), variables._set("bn/mean", variables["bn/mean"] + 1)

    (value, after), gradients = jv.value_and_grad(with_state, has_aux=True)(variables, 2.0)
    assert float(value) == 2 * float(loss(variables))
    assert float(after["bn/mean"]) == 7.0
    assert list(after) == list(variables)
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in after.values())
    only, aux = jv.grad(with_state, has_aux=True)(variables, 2.0)
    np.testing.assert_array_equal(only["head/w"], gradients["head/w"])
    assert float(aux["bn/mean"]) == 7.0


def test_keyword_arguments(variables):
    value, _ = jv.value_and_grad(loss)(variables, scale=3.0)
    assert float(value) == 3 * float(loss(variables))


def test_inside_jit_vmap_and_scan(variables):
    expected = jv.grad(loss)(variables, 2.0)
    jitted = jax.jit(jv.grad(loss))(variables, 2.0)
    np.testing.assert_allclose(jitted["head/w"], expected["head/w"])
    mapped = jax.vmap(jv.grad(loss), in_axes=(None, 0))(variables, jnp.arange(3.0))
    np.testing.assert_allclose(mapped["head/w"][2], expected["head/w"])

    def body(carry, scale):
        return carry, jv.grad(loss)(carry, scale)["conv/b"]

    _, stacked = jax.lax.scan(body, variables, jnp.arange(3.0))
    np.testing.assert_allclose(stacked[2], expected["conv/b"])


def test_second_derivatives(variables):
    def slope(variables):
        return jnp.sum(jv.grad(loss, wrt="head/w")(variables)["head/w"])

    second = jv.grad(slope, wrt="head/w")(variables)
    np.testing.assert_allclose(second["head/w"], 36 * variables["head/w"])


def test_complex_variables():
    variables = jv.Variables({"z": jnp.array(3.0 + 4.0j)})
    gradients = jv.grad(lambda v: jnp.abs(v["z"]) ** 2)(variables)
    np.testing.assert_allclose(gradients["z"], 6.0 - 8.0j, rtol=1e-6)


def test_low_precision_keeps_dtype():
    variables = jv.Variables({"w": jnp.ones(2, jnp.bfloat16)})
    gradients = jv.grad(lambda v: jnp.sum(v["w"].astype(jnp.float32) ** 2))(variables)
    assert gradients["w"].dtype == jnp.bfloat16


def test_unknown_name_lists_nearest(variables):
    with pytest.raises(NotFoundError, match=r"[Nn]earest.*conv/w"):
        jv.grad(loss, wrt="conv/weight")(variables)


def test_nothing_to_differentiate():
    with pytest.raises(InvalidArgumentError, match=r"nothing to differentiate[\s\S]*n: trainable, int32"):
        jv.grad(loss)(jv.Variables({"n": np.int32(1)}))
    with pytest.raises(InvalidArgumentError, match="nothing to differentiate"):
        jv.grad(loss, wrt=[])(jv.Variables({"w": jnp.array(1.0)}))


def test_integers_cannot_be_named(variables):
    with pytest.raises(InvalidTypeError, match="count: dtype int32 has no gradient"):
        jv.grad(loss, wrt=["count", "conv/w"])(variables)


def test_holes_are_listed():
    variables = jv.Variables({"w": jnp.ones(2), "v": jax.ShapeDtypeStruct((2,), jnp.float32)})
    with pytest.raises(FailedPreconditionError, match=r"without a value: v\. .*model\.init"):
        jv.grad(lambda v: jnp.sum(v["w"]))(variables)


@pytest.mark.parametrize(
    ("result", "error", "text"),
    [
        (lambda v: v["w"], InvalidArgumentError, r"shape \(2,\), not a scalar"),
        (lambda v: jnp.int32(1), InvalidArgumentError, "dtype int32"),
        (lambda v: (jnp.sum(v["w"]), v), InvalidTypeError, "has_aux=True"),
        (lambda v: None, InvalidTypeError, "NoneType, not a number"),
        (lambda v: {"loss": jnp.sum(v["w"])}, InvalidTypeError, "dict, not a number"),
    ],
)
def test_what_the_loss_must_be(result, error, text):
    with pytest.raises(error, match=text):
        jv.grad(result)(jv.Variables({"w": jnp.ones(2)}))


def test_aux_must_be_a_pair():
    with pytest.raises(InvalidTypeError, match=r"returns \(loss, aux\), not"):
        jv.grad(lambda v: jnp.sum(v["w"]), has_aux=True)(jv.Variables({"w": jnp.ones(2)}))


def test_takes_variables_only():
    with pytest.raises(InvalidTypeError, match=r"takes a Variables first, not dict.*jv\.Variables"):
        jv.grad(loss)({"w": jnp.ones(2)})


def test_wrapped_function_keeps_its_name():
    assert jv.grad(loss).__name__ == "loss"

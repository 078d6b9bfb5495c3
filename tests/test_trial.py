"""What three demanding users tried: nested transforms, notebook cells run again, ported TF1 programs."""

from __future__ import annotations

import contextvars
import gc
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError

X = jnp.array([1.0, 2.0, 3.0])


def _w(name: str = "w", value: float = 1.5) -> Any:
    return jv.get_variable(name, [], initializer=jv.constant_initializer(value))


def _count() -> Any:
    return jv.get_variable("n", [], "int32", initializer=jv.zeros_initializer(), trainable=False)


# Eager models that run as one program


def test_programs_that_differ_in_the_variables_they_use_are_not_confused() -> None:
    which = "a"

    def net(x: Any) -> Any:
        both = {"a": _w("a", 2.0), "b": _w("b", 5.0)}
        return jax.jit(lambda y: y * both[which])(x)

    model = jv.transform(net)
    variables = model.init(0, X)
    for which in ("a", "a", "b", "a"):
        np.testing.assert_allclose(model.apply(variables, X)[0], X * (2.0 if which == "a" else 5.0))


def test_programs_that_differ_in_a_callback_are_not_confused() -> None:
    factor = 1.0
    seen: list[float] = []

    def net(x: Any) -> Any:
        w, scale = _w(), factor
        y = jax.jit(lambda t: t * w)(x)
        jax.debug.callback(lambda z: seen.append(scale * float(z)), y[0])
        return jax.pure_callback(lambda z: np.asarray(z * scale), jax.ShapeDtypeStruct(y.shape, y.dtype), y)

    model = jv.transform(net)
    variables = model.init(0, X)
    for factor in (1.0, 1.0, 10.0):
        np.testing.assert_allclose(model.apply(variables, X)[0], X * 1.5 * factor)
    jax.effects_barrier()
    assert seen == [1.5, 1.5, 15.0]


def test_programs_on_other_devices_are_not_confused() -> None:
    def net(x: Any) -> Any:
        w = _w()
        return jax.jit(lambda y: y * w)(x)

    model = jv.transform(net)
    variables = model.init(0, X)
    devices = jax.devices()
    for used in (devices[:4], devices[4:], devices[:4][::-1]):
        mesh = Mesh(np.array(used), ("i",))
        x = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P("i")))
        out, _ = model.apply(jax.device_put(variables, NamedSharding(mesh, P())), x)
        np.testing.assert_allclose(out, np.arange(8.0) * 1.5)
        assert [shard.device for shard in out.addressable_shards] == used or out.sharding.device_set == set(used)


def test_programs_that_name_their_devices_are_not_confused() -> None:
    used = jax.devices()[:2]

    def net(x: Any) -> Any:
        w, mesh = _w(), Mesh(np.array(used), ("i",))
        return jax.lax.with_sharding_constraint(jax.jit(lambda y: y * w)(x), NamedSharding(mesh, P("i")))

    model = jv.transform(net)
    variables = model.init(0, X)
    for used in (jax.devices()[:2], jax.devices()[2:4], jax.devices()[2:4]):
        assert model.apply(variables, jnp.ones(4))[0].sharding.device_set == set(used)


def test_results_that_are_objects_hold_values_not_tracers() -> None:
    def net(x: Any) -> Any:
        w = _w()
        return types.SimpleNamespace(y=jax.jit(lambda t: t * w)(x))

    model = jv.transform(net)
    variables = model.init(0, X)
    for _ in range(2):
        np.testing.assert_allclose(model.apply(variables, X)[0].y, X * 1.5)


def test_eager_models_run_under_disable_jit() -> None:
    def net(x: Any) -> Any:
        def body(carry: Any, _: Any) -> Any:
            _count().assign_add(1)
            return carry * _w(), None

        return jax.lax.scan(body, x, length=3)[0]

    model = jv.transform(net)
    variables = model.init(0, X)
    for _ in range(2):
        with jax.disable_jit():
            out, after = model.apply(variables, X)
        np.testing.assert_allclose(out, X * 1.5**3)
        assert after["n"] == 3
        out, after = model.apply(variables, X)
        assert after["n"] == 3


def test_debug_nans_finds_them_in_eager_models() -> None:
    model = jv.transform(lambda x: jax.jit(lambda y: jnp.log(y * _w()))(x))
    variables = model.init(0, X)
    model.apply(variables, X)  # from now on as one program
    for _ in range(2):
        with jax.debug_nans(True), pytest.raises(FloatingPointError, match=r"disable_jit"):
            model.apply(variables, -X)
        with jax.debug_nans(True), jax.disable_jit(), pytest.raises(FloatingPointError, match="log"):
            model.apply(variables, -X)
    assert np.all(np.isnan(model.apply(variables, -X)[0]))


# Frames and what outlives them


def test_a_context_copied_in_a_frame_does_not_keep_it_open() -> None:
    with jv.VariableStore(0):
        context = contextvars.copy_context()
    with pytest.raises(FailedPreconditionError, match="outside of a frame"):
        context.run(jv.get_variable, "late", [1])


def test_a_store_with_a_body_that_jax_caches_keeps_no_arrays() -> None:
    def body(carry: Any, _: Any) -> Any:
        _count().assign_add(1)
        return jnp.tanh(carry * jv.get_variable("w", [3])), None

    store = jv.VariableStore(0)
    live: list[int] = []
    for _ in range(5):
        with store:
            jax.lax.scan(body, X, length=2)
        gc.collect()
        live.append(len(jax.live_arrays()))
    assert live[-1] == live[1]
    assert store.variables["n"] == 10


# Ported programs


def test_a_custom_getter_passes_the_shape_by_position() -> None:
    def weight_norm(getter: Any, name: str, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
        v = getter(f"{name}/v", shape, *args, **kwargs)
        g = getter(f"{name}/g", [shape[-1]], **(kwargs | {"initializer": jv.ones_initializer()}))
        return v.value / jnp.linalg.norm(v, axis=0, keepdims=True) * g.value[None]

    def net(x: Any) -> Any:
        with jv.variable_scope("s", custom_getter=weight_norm):
            return x @ jv.get_variable("kernel", [3, 2])

    model = jv.transform(net)
    variables = model.init(0, X[None])
    assert list(variables) == ["s/kernel/g", "s/kernel/v"]
    gradient: Any = jv.grad(lambda v: jnp.sum(model(v, X[None]) ** 2))(variables)
    assert all(np.any(np.asarray(gradient[key]) != 0) for key in variables)


def test_two_optimizers_share_one_state_by_scope_patterns() -> None:
    """A GAN's loop: slots carry the names of their variables, and patterns must not choose them."""

    def gen(z: Any) -> Any:
        with jv.variable_scope("gen"):
            return jv.layers.batch_normalization(jv.layers.dense(z, 4), training=True)

    def disc(x: Any) -> Any:
        with jv.variable_scope("disc"):
            return jv.layers.dense(x, 1)

    models = jv.multi_transform({"gen": gen, "disc": disc})
    z, x = jnp.ones((2, 3)), jnp.ones((2, 4))
    variables = models.init(0, gen=z, disc=x)
    of_gen = jv.train.AdamOptimizer(1e-2, name="G", var_list="gen/")
    of_disc = jv.train.AdamOptimizer(1e-2, name="D", var_list=r"disc/.*")
    variables = of_disc.init(of_gen.init(variables))
    before = variables

    @jax.jit
    def step(v: jv.Variables) -> jv.Variables:
        def fool(v: jv.Variables) -> Any:
            return -models["disc"](v, models["gen"].apply(v, z)[0]).mean()

        def tell(v: jv.Variables) -> Any:
            return -fool(v) - models["disc"](v, x).mean()

        v = of_disc.apply_gradients(jv.grad(tell, wrt=r"disc/.*")(v), v)
        return of_gen.apply_gradients(jv.grad(fool, wrt="gen/")(v), v)

    for _ in range(2):
        variables = step(variables)
    assert set(jv.grad(lambda v: models["disc"](v, x).mean(), wrt="disc/")(variables)) == {
        "disc/dense/bias",
        "disc/dense/kernel",
    }
    assert np.any(np.asarray(variables["disc/dense/kernel"] != before["disc/dense/kernel"]))
    np.testing.assert_array_equal(
        variables["gen/batch_normalization/moving_mean"], before["gen/batch_normalization/moving_mean"]
    )

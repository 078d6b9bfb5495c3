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

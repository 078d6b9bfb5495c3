"""Variables in the memory of the host (``memory_kind="pinned_host"``) beside others in that of the devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from placements import skip_without_results_on_the_host

import jaxvars as jv

pytestmark = pytest.mark.skipif(
    "pinned_host" not in {memory.kind for memory in jax.devices()[0].addressable_memories()},
    reason="this backend has no such memory",
)


@pytest.fixture(params=["one device", "mesh"])
def variables(request: pytest.FixtureRequest) -> jv.Variables:
    """A table on the host, its weights on the device."""
    made = jv.Variables({"table": jnp.arange(32, dtype=jnp.float32).reshape(8, 4), "w": jnp.ones([4, 2], jnp.float32)})
    if request.param == "one device":
        device = jax.devices()[1]
        host = SingleDeviceSharding(device, memory_kind="pinned_host")
        return made.to({"table": host, "w": SingleDeviceSharding(device)})
    mesh = jv.placement.mesh(data=4, model=2)
    host = NamedSharding(mesh, PartitionSpec("data"), memory_kind="pinned_host")
    return made.to({"table": host, "w": NamedSharding(mesh, PartitionSpec())})


def net(ids: Any) -> jax.Array:
    table = jax.device_put(jv.get_variable("table", [8, 4]).value, jax.memory.Space.Device)
    return table[ids] @ jv.get_variable("w", [4, 2])


ONES = np.ones([8, 4], np.float32)
ROWS = np.ones([3, 4], np.float32)
CHANGES: dict[str, Callable[[jv.Variables], jv.Variables]] = {
    "assign": lambda v: jv.assign(v, "table", ONES),
    "assign_add": lambda v: jv.assign_add(v, "table", jnp.asarray(ONES)),
    "assign_sub": lambda v: jv.assign_sub(v, "table", jax.device_put(ONES, jax.devices()[2])),
    "scatter_add": lambda v: jv.scatter_add(v, "table", [1, 7, 1], ROWS),
    "scatter_mul": lambda v: jv.scatter_mul(v, "table", [1, 7, 1], ROWS * 3),
    "scatter_update": lambda v: jv.scatter_update(v, "table", [1, 7, 1], ROWS),
    "replace": lambda v: v.replace({"table": ONES}),
    "|": lambda v: v | v.scope("table"),
    "packed": lambda v: v.packed().unpacked(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_stays_on_the_host(change: str, variables: jv.Variables) -> None:
    changed = CHANGES[change](variables)
    plain = jv.Variables({name: np.asarray(value) for name, value in variables.items()})
    np.testing.assert_array_equal(changed["table"], CHANGES[change](plain)["table"])
    for name, value in changed.items():
        home = variables[name].sharding
        assert value.sharding.memory_kind == home.memory_kind and value.sharding.is_equivalent_to(home, value.ndim)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_a_model_fetches_what_it_reads(jitted: bool, variables: jv.Variables) -> None:
    if jitted:
        skip_without_results_on_the_host()
    model, ids = jv.transform(net), np.array([1, 2])
    run = jax.jit(model.apply) if jitted else model.apply
    out, after = run(variables, ids)
    np.testing.assert_array_equal(out, np.asarray(variables["table"])[ids] @ np.ones([4, 2]))
    assert after["table"].sharding.memory_kind == "pinned_host"
    step = jv.grad(lambda variables: jnp.sum(model.apply(variables, ids)[0]))
    gradients = (jax.jit(step) if jitted else step)(variables)
    expected = np.zeros([8, 4])
    expected[ids] = 2
    np.testing.assert_array_equal(gradients["table"], expected)


def test_jax_refuses_both_memories_in_one_operation(variables: jv.Variables) -> None:
    model = jv.transform(lambda: jv.get_variable("table", [8, 4]) @ jv.get_variable("w", [4, 2]))
    with pytest.raises(ValueError, match="memory_space of all inputs"):
        jax.jit(model.apply)(variables)


def test_the_summary_names_the_memory() -> None:
    mesh = jv.placement.mesh(data=4, model=2)
    host = NamedSharding(mesh, PartitionSpec("data"), memory_kind="pinned_host")
    assert "pinned_host" in str(jv.Variables({"table": jnp.ones([8, 4])}).to(host).summary())

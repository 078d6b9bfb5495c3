"""Random meshes, shardings and states: what the tests of placement draw from.

Compiling is nearly all that these tests cost, so shapes and initializers are few, and meshes come from a short list.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxvars as jv
from jaxvars import initializers as init
from jaxvars.fitting import fit
from jaxvars.spec import Hole

# Axis names and sizes. Each is laid over devices in any of these orders, so subsets of the devices occur too.
MESHES = [
    {"data": 8},
    {"data": 4, "model": 2},
    {"data": 2, "model": 2, "pipe": 2},
    {"data": 1},
    {"data": 3},
    {"data": 2, "model": 3},
    {"data": 1, "model": 5},
    {"data": 2, "model": 1, "pipe": 2},
]
ORDERS = [(0, 1, 2, 3, 4, 5, 6, 7), (7, 6, 5, 4, 3, 2, 1, 0), (5, 2, 7, 0, 3, 6, 1, 4)]


def skip_without_results_on_the_host() -> None:
    """Skip a test whose programs put results into the memory of the host, where this JAX cannot."""
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))
    host = NamedSharding(mesh, PartitionSpec("x"), memory_kind="pinned_host")
    try:
        made = jax.jit(lambda value: value + 1, out_shardings=host)(jnp.zeros([8]))
    except (jax.errors.JaxRuntimeError, ValueError):
        pytest.skip("this JAX cannot put results into the memory of the host")
    if made.sharding.memory_kind != "pinned_host":
        pytest.skip("this JAX leaves results in the memory of the device")


def range_of_keys(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A function that is not ours, of random keys."""
    del dtype
    return jax.random.split(key, shape)


def table(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A function that is not ours, of numbers."""
    return jax.random.normal(key, shape, dtype) * 0.5 + 1


def counting(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A function that draws nothing."""
    del key
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


KEYS = jax.eval_shape(lambda: jax.random.key(0)).dtype

# Name -> shape, dtype and initializer: dimensions that divide and that do not, of 1 and of 0, and none at all.
POOL: dict[str, tuple[tuple[int, ...], Any, Any]] = {
    "a/normal": ((8, 12), "float32", init.random_normal(stddev=0.5)),
    "a/uniform": ((16,), "float32", init.random_uniform(-2.0, 1.0)),
    "a/truncated": ((7, 3), "float32", init.truncated_normal(stddev=0.1)),
    "a/scaled": ((3, 3, 4, 8), "float32", init.glorot_uniform()),
    "a/orthogonal": ((8, 4), "float32", init.orthogonal()),
    "a/one": ((1, 6), "float32", init.he_normal()),
    "a/none": ((0, 4), "float32", init.random_normal()),
    "a/scalar": ((), "float32", init.random_normal()),
    "a/function": ((4, 6), "float32", table),
    "b/small": ((8, 2), "bfloat16", init.random_normal()),
    "b/ones": ((6,), "bfloat16", init.ones()),
    "b/drawn": ((12,), "int32", init.random_uniform(0, 1000)),
    "b/counted": ((4, 2), "int32", counting),
    "b/step": ((), "int32", init.zeros()),
    "b/flags": ((5,), "bool", init.ones()),
    "b/keys": ((4,), KEYS, range_of_keys),
}
FLOATS = [name for name, (_, dtype, _) in POOL.items() if dtype == "float32"]
NUMBERS = [name for name, (_, dtype, _) in POOL.items() if dtype not in ("bool", KEYS)]


def mesh_of(axes: dict[str, int], order: tuple[int, ...], kind: AxisType = AxisType.Auto) -> Mesh:
    """A mesh over the first devices in this order."""
    devices = [jax.devices()[i] for i in order[: math.prod(axes.values())]]
    return Mesh(np.array(devices).reshape(tuple(axes.values())), tuple(axes), axis_types=(kind,) * len(axes))


def meshes() -> st.SearchStrategy[Mesh]:
    """Meshes of one to three axes over one to eight devices in any order."""
    return st.builds(mesh_of, st.sampled_from(MESHES), st.sampled_from(ORDERS))


@st.composite
def specs(draw: st.DrawFn, mesh: Mesh) -> PartitionSpec:
    """Any partition spec over the axes of a mesh: tuples of axes, and longer than most ranks."""
    order = draw(st.permutations(mesh.axis_names))
    kind = draw(st.sampled_from(["first", "second", "apart", "together", "late", "none", "long"]))
    first, *rest = order
    match kind:
        case "first":
            return PartitionSpec(first)
        case "second":
            return PartitionSpec(None, first)
        case "apart":
            return PartitionSpec(*order)
        case "together":
            return PartitionSpec(tuple(order))
        case "late":
            return PartitionSpec(None, None, None, first)
        case "long":
            return PartitionSpec(None, tuple(order), None, None, None)
        case _:
            return PartitionSpec(*[None for _ in rest])


@st.composite
def places(draw: st.DrawFn, names: Sequence[str] = tuple(POOL), most: int = 4, mesh: Mesh | None = None) -> Any:
    """Some variables of the pool, and where each lives on one mesh."""
    mesh = draw(meshes()) if mesh is None else mesh
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=most, unique=True))
    return {name: draw(place(mesh, name)) for name in sorted(chosen)}


@st.composite
def place(draw: st.DrawFn, mesh: Mesh, name: str) -> NamedSharding:
    """Where a variable of the pool lives: any spec, fitted to its shape."""
    return NamedSharding(mesh, fit(draw(specs(mesh)), POOL[name][0], mesh.shape)[0])


def holes(where: Mapping[str, Any]) -> jv.Variables:
    """These variables of the pool without values, each with its place or None."""
    return jv.Variables(
        {
            name: Hole(shape, dtype, initializer=how, sharding=where[name])
            for name, (shape, dtype, how) in POOL.items()
            if name in where
        }
    )


@functools.cache
def everything() -> jv.Variables:
    """The pool on one device."""
    return jv.variables_initializer(holes(dict.fromkeys(POOL)), 0)


def plain(names: Iterable[str]) -> jv.Variables:
    """Some variables of the pool on one device, in buffers of their own: `device_put` may share them with a copy."""
    chosen = set(names)
    return jax.tree.map(jnp.copy, everything().select(lambda key, _: key in chosen))


def bits(value: Any) -> np.ndarray[Any, Any]:
    """The bits of a value, keys included."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.asarray(value)


def assert_same(left: jv.Variables, right: jv.Variables, rounded: Collection[str] = ()) -> None:
    """The same variables, bit for bit, but for `rounded` ones, whose last bit XLA may round otherwise."""
    assert left.variable_specs == right.variable_specs
    for name in left:
        if name in rounded:
            np.testing.assert_allclose(left[name], right[name], rtol=1e-6, atol=1e-7, err_msg=name)
            continue
        one, other = bits(left[name]), bits(right[name])
        assert one.dtype == other.dtype and one.shape == other.shape, name
        assert one.tobytes() == other.tobytes(), f"{name}: {left[name].sharding}\n{one}\n{other}"


def assert_placed(variables: jv.Variables, where: Mapping[str, Any]) -> None:
    """Each variable where it should be; one without elements is nowhere."""
    for name, value in variables.items():
        if value.size:
            found = value.sharding
            assert found.is_equivalent_to(where[name], value.ndim), f"{name}: {found}, not {where[name]}"

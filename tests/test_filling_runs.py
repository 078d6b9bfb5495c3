"""Filling by runs: the bits of the initializer called directly, few compilations and launches, no needless copies."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

import jaxvars as jv
from jaxvars import _runs
from jaxvars import initializers as init
from jaxvars._keys import name_hash, variable_key
from jaxvars.filling import fill
from jaxvars.initializers._drawing import normal_of_unit, uniform, unit_of_bits
from jaxvars.initializers._runs import RUN, RUNS, numbers_of
from jaxvars.initializers._threefry import fold_in_all
from jaxvars.initializers.random import Draw, draw_of
from jaxvars.spec import Hole

FLOAT32, BFLOAT16, FLOAT16 = np.dtype("float32"), np.dtype(jnp.bfloat16), np.dtype("float16")

FAMILIES = (
    init.random_normal(),
    init.random_normal(0.3, 0.7),
    init.random_normal(-1e20, 1e25),
    init.random_normal(stddev=1e-25),
    init.random_normal(2, -3),
    init.truncated_normal(stddev=0.02),
    init.truncated_normal(1.5, -0.1),
    init.random_uniform(),
    init.random_uniform(-0.1, 0.7),
    init.random_uniform(-3, 3),
    init.random_uniform(5, 7.5),
    init.random_uniform(-1e28, 3e-28),
    init.glorot_uniform(),
    init.he_normal(),
    init.variance_scaling(2.0, "fan_out", "untruncated_normal"),
    init.uniform_unit_scaling(1.3),
)


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The families that were launched."""
    seen: list[str] = []

    def counted(rows: Any, *, family: str) -> jax.Array:
        seen.append(family)
        return _launch(rows, family=family)

    _launch = _runs.launch
    monkeypatch.setattr(_runs, "launch", counted)
    return seen


@functools.cache
def directly(initializer: Any, shape: tuple[int, ...], dtype: Any, seed: int, name: str) -> np.ndarray[Any, Any]:
    """The contract: ``initializer(fold_in(key, name_hash(name)), shape, dtype)``, compiled for this shape."""
    make = jax.jit(initializer, static_argnums=(1, 2))
    return np.asarray(make(jax.random.fold_in(jax.random.key(seed), np.uint32(name_hash(name))), shape, dtype))


def hole(initializer: Any, shape: Any, dtype: Any = FLOAT32, sharding: Any = None) -> Hole:
    return Hole(shape, dtype, sharding=sharding, initializer=initializer)


def same_bits(found: Any, expected: np.ndarray[Any, Any]) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.asarray(found).tobytes() == expected.tobytes()


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)


# Bits.


@pytest.mark.parametrize("initializer", FAMILIES, ids=repr)
def test_bits_of_each_family(initializer: Any, launches: list[str]) -> None:
    same_bits(fill({"w": hole(initializer, (5, 7, 11))}, 3)["w"], directly(initializer, (5, 7, 11), FLOAT32, 3, "w"))
    assert len(launches) == 1


def test_bits_of_sizes(launches: list[str]) -> None:
    sizes = (1, RUN - 1, RUN, RUN + 1, RUN * RUNS + 3, 5)
    names = [f"w{size}" for size in sizes]
    shapes = [(), *((size,) for size in sizes[1:])]
    initializer = init.random_normal(0.3, 0.7)
    filled = fill({name: hole(initializer, shape) for name, shape in zip(names, shapes, strict=True)}, 3)
    assert len(launches) == 2
    for name, shape in zip(names, shapes, strict=True):
        same_bits(filled[name], directly(initializer, shape, FLOAT32, 3, name))


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16], ids=str)
@pytest.mark.parametrize(
    "initializer",
    [init.random_normal(0.3, 0.7), init.truncated_normal(stddev=1e-6), init.random_uniform(-0.1, 70000.0)],
    ids=repr,
)
def test_bits_of_small_dtypes(initializer: Any, dtype: Any, launches: list[str]) -> None:
    same_bits(fill({"w": hole(initializer, (4001,), dtype)}, 0)["w"], directly(initializer, (4001,), dtype, 0, "w"))
    assert len(launches) == 1


numbers = st.one_of(
    st.floats(-100, 100, width=32),
    st.floats(1e-6, 1),
    st.sampled_from([0, 1, -1, 2.0, 1e-29, 1e29, 1e-38, 1e35, 0.1, math.pi, 2**40]),
)


@pytest.mark.slow
@settings(max_examples=40, derandomize=True)
@given(
    family=st.sampled_from(["normal", "truncated_normal", "uniform"]),
    a=numbers,
    b=numbers,
    size=st.sampled_from([1, 127, 128, 129, 1000]),
    seed=st.integers(0, 2**32 - 1),
    name=st.text(max_size=8),
)
def test_bits_of_any_numbers(family: str, a: float, b: float, size: int, seed: int, name: str) -> None:
    kind = {"normal": init.random_normal, "truncated_normal": init.truncated_normal, "uniform": init.random_uniform}
    initializer = kind[family](a, b)
    try:
        expected = directly(initializer, (size,), FLOAT32, seed, name)
    except OverflowError:  # JAX has no such integers
        return
    same_bits(fill({name: hole(initializer, (size,))}, seed)[name], expected)


@settings(max_examples=10)
@given(st.lists(st.tuples(st.sampled_from(FAMILIES), st.integers(1, 700)), min_size=1, max_size=60), st.randoms())
def test_what_shares_a_launch_changes_nothing(wanted: list[tuple[Any, int]], random: Any) -> None:
    holes = {f"v{i}": hole(initializer, (size,)) for i, (initializer, size) in enumerate(wanted)}
    together = fill(holes, 1)
    name = random.choice(list(holes))
    same_bits(together[name], np.asarray(fill({name: holes[name]}, 1)[name]))


def test_bits_far_into_a_large_variable() -> None:
    # A shard far beyond what fits into this test's memory budget, as one process of many would hold it.
    size, start = 2**32 - 5, 2**32 - 500
    how = Draw("normal", 0.0, 1.0)
    parameters = numbers_of(how, FLOAT32)
    assert parameters is not None
    key = jax.random.key(5)
    words = np.concatenate([np.asarray(jax.random.key_data(key)), parameters.view(np.uint32)])
    drawn = _runs.Drawn((size,), FLOAT32, [(None, ((start, size),))], None, "normal", words)
    found = np.asarray(_runs.draw_all({"w": drawn})["w"])
    bits = _bits(key, np.arange(start, size, dtype=np.uint32))
    expected = jax.jit(lambda bits: normal_of_unit(unit_of_bits(bits), None, math.sqrt(2), None))(bits)
    same_bits(found, np.asarray(expected))


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4, 5)])
def test_units_are_those_of_jax(shape: tuple[int, ...]) -> None:
    for key in (jax.random.key(9), jax.random.PRNGKey(9), jax.random.key(9, impl="rbg")):
        found = uniform(key, shape, np.float32, 0.0, 1.0)
        same_bits(found, np.asarray(jax.random.uniform(key, shape, np.float32)))
    keys = jax.random.split(jax.random.key(9), 3)
    found = jax.vmap(lambda key: uniform(key, shape, np.float32, 0.0, 1.0))(keys)
    same_bits(found, np.asarray(jax.vmap(lambda key: jax.random.uniform(key, shape, np.float32))(keys)))


def _bits(key: jax.Array, index: np.ndarray[Any, Any]) -> jax.Array:
    from jax.extend.random import threefry2x32_p

    first, second = jnp.broadcast_to(jax.random.key_data(key)[:, None], (2, len(index)))
    return jnp.bitwise_xor(*threefry2x32_p.bind(first, second, jnp.zeros_like(index), index))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5))
def test_keys_fold_as_jax_folds_them(seed: int, numbers: list[int]) -> None:
    key = jax.random.wrap_key_data(np.asarray([seed, seed ^ 0x12345678], np.uint32))
    expected = [np.asarray(jax.random.key_data(jax.random.fold_in(key, np.uint32(n)))) for n in numbers]
    assert np.array_equal(fold_in_all(np.asarray(jax.random.key_data(key)), numbers), expected)


# Sharded.

SPECS = (
    ((16, 6), PartitionSpec("x", "y")),
    ((16, 6), PartitionSpec(None, "y")),
    ((4, 3, 8, 600), PartitionSpec(None, None, "x", "y")),
    ((2, 4, 5), PartitionSpec("y", "x")),
    ((8, 300), PartitionSpec(("x", "y"))),
    ((3, 5), PartitionSpec()),
    ((2, 2 * RUN * RUNS), PartitionSpec(None, "y")),
)


@pytest.mark.parametrize(("shape", "spec"), SPECS, ids=str)
def test_bits_of_shards(shape: tuple[int, ...], spec: PartitionSpec, launches: list[str]) -> None:
    sharding = NamedSharding(mesh(), spec)
    for initializer in (init.random_normal(0.3, 0.7), init.glorot_uniform()):
        found = fill({"w": hole(initializer, shape, sharding=sharding)}, 0)["w"]
        assert found.sharding == sharding and found.committed
        same_bits(found, directly(initializer, shape, FLOAT32, 0, "w"))
        pointers = {shard.data.unsafe_buffer_pointer() for shard in found.addressable_shards}
        assert len(pointers) == 8  # replicas too
    assert set(launches) == {"normal", "uniform"}


def test_only_what_this_process_holds_is_drawn(monkeypatch: pytest.MonkeyPatch, launches: list[str]) -> None:
    # Four processes, seen from the one that has two of the eight devices.
    sharding = NamedSharding(mesh(), PartitionSpec("x"))
    shape = (64 * RUN, RUNS // 4)
    everywhere = sharding.addressable_devices_indices_map(shape)
    mine = dict(list(everywhere.items())[2:4])
    monkeypatch.setattr(NamedSharding, "addressable_devices_indices_map", lambda self, shape: mine)
    monkeypatch.setattr(jax, "make_array_from_single_device_arrays", lambda shape, sharding, arrays, dtype: arrays)
    arrays: Any = fill({"w": hole(init.glorot_normal(), shape, sharding=sharding)}, 0)["w"]
    assert len(launches) == math.prod(shape) // 4 // (RUN * RUNS)  # a quarter, once for both replicas
    expected = directly(init.glorot_normal(), shape, FLOAT32, 0, "w")
    for array, (device, index) in zip(arrays, mine.items(), strict=True):
        assert array.devices() == {device}
        same_bits(array, expected[index])


def test_a_single_device() -> None:
    there = SingleDeviceSharding(jax.devices()[3])
    value = fill({"w": hole(init.random_normal(), (5,), sharding=there)}, 0)["w"]
    assert value.sharding == there and value.committed
    assert not fill({"w": hole(init.random_normal(), (5,))}, 0)["w"].committed
    with jax.default_device(jax.devices()[2]):
        assert fill({"w": hole(init.random_normal(), (5,))}, 0)["w"].devices() == {jax.devices()[2]}


# Conditions.


@pytest.mark.parametrize(
    ("initializer", "shape", "dtype"),
    [
        (init.random_normal(stddev=0.0), (3,), FLOAT32),
        (init.random_normal(stddev=1e-38), (3,), FLOAT32),
        (init.random_normal(stddev=1e35), (3,), FLOAT32),
        (init.random_normal(mean=math.inf), (3,), FLOAT32),
        (init.random_uniform(1.0, 0.0), (3,), FLOAT32),
        (init.random_uniform(1.0, 1.0), (3,), FLOAT32),
        (init.random_uniform(0, 9), (3,), np.dtype("int32")),
        (init.random_normal(seed=3), (3,), FLOAT32),
        (init.orthogonal(), (3, 2), FLOAT32),
        (init.glorot_uniform(), (0, 3), FLOAT32),
        (jax.nn.initializers.glorot_uniform(), (3, 2), FLOAT32),
    ],
    ids=lambda value: getattr(value, "__qualname__", str(value)),  # the text of a function has its address
)
def test_what_runs_do_not_cover(initializer: Any, shape: Any, dtype: Any, launches: list[str]) -> None:
    found = fill({"w": hole(initializer, shape, dtype)}, 0)["w"]
    assert not launches
    same_bits(found, directly(initializer, shape, dtype, 0, "w"))


def test_a_subclass_that_draws_otherwise_is_not_taken_for_its_base(launches: list[str]) -> None:
    class Doubled(type(init.random_normal())):  # type: ignore[misc]
        def _values(self, key: Any, shape: Any, dtype: Any) -> jax.Array:
            return 2 * super()._values(key, shape, dtype)

    class Wider(type(init.random_normal())):  # type: ignore[misc]
        def draw_for(self, shape: Any) -> Draw:
            return Draw("normal", 0.0, 3.0)

    assert draw_of(Doubled(), (2,), FLOAT32) is None
    filled = fill({"w": hole(Doubled(), (2,)), "v": hole(Wider(), (2,))}, 0)
    assert np.array_equal(filled["w"], 2 * fill({"w": hole(init.random_normal(), (2,))}, 0)["w"])
    assert np.array_equal(filled["v"], fill({"v": hole(init.random_normal(stddev=3.0), (2,))}, 0)["v"])
    assert len(launches) == 3


@pytest.mark.parametrize("flag", [True, False])
def test_threefry_that_depends_on_the_shape_is_left_to_jax(flag: bool, launches: list[str]) -> None:
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", flag)
    try:
        found = fill({"w": hole(init.random_normal(), (7,))}, 0)["w"]
        expected = jax.jit(lambda key: init.random_normal()(key, (7,)))(variable_key(jax.random.key(0), "w"))
    finally:
        jax.config.update("jax_threefry_partitionable", before)
    same_bits(found, np.asarray(expected))
    assert bool(launches) is flag


def test_other_keys_and_meshes_are_left_to_jax(launches: list[str]) -> None:
    holes = {"w": hole(init.random_normal(), (8,))}
    fill(holes, jax.random.key(0, impl="rbg"))
    expected = fill(holes, 0)["w"]
    assert len(launches) == 1
    with jax.set_mesh(mesh()):
        same_bits(fill(holes, 0)["w"], np.asarray(expected))
    assert len(launches) == 1


# Counts.


def resnet(width: int = 1) -> dict[str, tuple[int, ...]]:
    """Fifty kernels of the shapes of ResNet-50, narrower."""
    shapes: list[tuple[int, ...]] = [(7, 7, 3, 4 * width)]
    inputs = 4 * width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = (4 * width) << stage
        for _ in range(blocks):
            shapes += [(1, 1, inputs, inner), (3, 3, inner, inner), (1, 1, inner, 4 * inner)]
            inputs = 4 * inner
    return {f"conv{i}": shape for i, shape in enumerate([*shapes, (inputs, 1000)])}


def test_one_program_for_fifty_shapes(launches: list[str]) -> None:
    holes = {name: hole(init.he_normal(), shape) for name, shape in resnet().items()}
    assert len(holes) == 50 and len(set(resnet().values())) > 15
    jax.clear_caches()
    with compilations() as compiled:
        jax.block_until_ready(fill(holes, 0))
        assert 1 <= len(compiled) <= 3  # the program, and the key of the seed
        compiled.clear()
        jax.block_until_ready(fill({name: hole(init.he_normal(), (3, *h.shape)) for name, h in holes.items()}, 1))
    assert not compiled
    del launches[:]
    fill(holes, 0)
    runs = sum(-(-math.prod(shape) // RUN) for shape in resnet().values())
    assert len(launches) == -(-runs // RUNS)


def test_small_variables_share_launches(launches: list[str]) -> None:
    names = [f"layer{i // 8}/w{i % 8}" for i in range(800)]
    filled = fill({name: hole(init.truncated_normal(stddev=0.02), (8, 16)) for name in names}, 0)
    assert len(launches) == 2
    assert len({value.unsafe_buffer_pointer() for value in filled.values()}) == 800


def test_values_are_not_copied_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[np.ndarray[Any, Any]] = []

    def empty(*arguments: Any) -> Any:
        made.append(_empty(*arguments))
        return made[-1]

    _empty = _runs._empty
    monkeypatch.setattr(_runs, "_empty", empty)
    value = fill({"w": hole(init.glorot_uniform(), (1001, 333))}, 0)["w"]
    assert [array.ctypes.data for array in made] == [value.unsafe_buffer_pointer()]
    made.clear()
    jax.jit(lambda x: x + 1, donate_argnums=0)(value)
    assert value.is_deleted()


def test_values_may_be_donated() -> None:
    filled = fill({name: hole(init.random_normal(), (300, 5)) for name in "ab"}, 0)
    kept = np.array(filled["b"])
    jax.block_until_ready(jax.jit(lambda x: x * 0, donate_argnums=0)(filled["a"]))
    assert np.array_equal(filled["b"], kept)


def test_a_model_is_initialized_by_runs(launches: list[str]) -> None:
    def net(x: Any) -> Any:
        return x @ jv.get_variable("w", [4, 3]) + jv.get_variable("b", [1, 3], initializer=jv.zeros_initializer())

    variables = jv.transform(net).init(0, jnp.ones([2, 4]))
    assert launches == ["uniform"]
    same_bits(variables["w"], directly(init.glorot_uniform(), (4, 3), FLOAT32, 0, "w"))


_COLD = """
import jax, sys
counts = {"compiled": 0, "found": 0}
def listen(event, duration, **_):
    counts["compiled"] += event == "/jax/core/compile/backend_compile_duration"
def found(event, **_):
    counts["found"] += event == "/jax/compilation_cache/cache_hits"
jax.monitoring.register_event_duration_secs_listener(listen)
jax.monitoring.register_event_listener(found)
import jaxvars as jv
from jaxvars.filling import fill
from jaxvars.spec import Hole
fill({f"w{n}": Hole((n,), "float32", initializer=jv.glorot_uniform_initializer()) for n in range(1, 20)}, 0)
print(counts["compiled"], counts["found"])
"""


@pytest.mark.slow
def test_the_compilation_cache_of_the_user_is_used(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    for number in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _COLD], env=environment, capture_output=True, text=True, check=True
        )
        compiled, found = map(int, done.stdout.split())
        assert compiled <= 4
        assert found == (compiled if number else 0)
    assert any("launch" in path.name for path in tmp_path.iterdir())

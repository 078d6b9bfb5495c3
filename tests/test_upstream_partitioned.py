"""What TensorFlow's tests check of partitioned variables: partitioned_variables_test.py, and parts of three others.

A docstring names the behaviour upstream; docs/upstream-tests.md is the table of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundle_writer as writer
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.scopes import slicing

ONES = jv.ones_initializer()


@pytest.fixture(autouse=True)
def store() -> Iterator[jv.VariableStore]:
    """Each test is a fresh graph."""
    with jv.VariableStore(0) as store:
        yield store


def create(*arguments: Any, **options: Any) -> list[Any]:
    return jv.create_partitioned_variables(*arguments, **options)


def specs(slices: list[Any]) -> list[str]:
    """Where the slices lie, as TensorFlow's checkpoints write it."""
    found = []
    for part in (item.part for item in slices):
        ranges = ":".join(f"{start},{size}" for start, size in zip(part.offset, part.shape, strict=True))
        found.append(ranges)
    return found


def joined(slices: list[Any], axis: int) -> Any:
    return np.concatenate([np.asarray(item) for item in slices], axis)


# Partitioners


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.usefixtures("without_x64")
def test_a_fixed_number_of_slices(dtype: str) -> None:
    """Upstream: testFixedSizePartitioner, testFixedSizePartitionerInt64."""
    with jv.variable_scope("root", partitioner=jv.fixed_size_partitioner(5, axis=0)):
        v0 = jv.get_variable("v0", (10, 10), dtype, initializer=ONES)
    assert len(list(v0)) == 5
    assert tuple(v0._get_partitions()) == (5, 1)


@pytest.mark.parametrize(
    ("arguments", "shape", "dtype", "expected"),
    [
        ({"max_shard_bytes": 32768}, (4, 8, 16, 32), "float32", [2, 1, 1, 1]),
        ({"max_shard_bytes": 16384}, (4, 8, 16, 32), "float32", [4, 1, 1, 1]),
        ({"max_shard_bytes": 5120}, (4, 8, 16, 32), "float32", [4, 1, 1, 1]),
        ({"max_shard_bytes": 1024, "axis": 1}, (4, 8, 16, 32), "float32", [1, 8, 1, 1]),
        ({"max_shard_bytes": 8192, "axis": 2}, (4, 8, 16, 32), "float32", [1, 1, 8, 1]),
        ({"max_shard_bytes": 1024}, (64,), "float64", [1]),
        ({"max_shard_bytes": 16, "max_shards": 2}, (64,), "float64", [2]),
        ({"max_shard_bytes": 64, "max_shards": 10**6}, (64,), "float32", [4]),
        ({"max_shard_bytes": 60, "axis": 1}, (3, 5), "int32", [1, 1]),
    ],
)
def test_slices_of_a_largest_size(arguments: Any, shape: Any, dtype: str, expected: list[int]) -> None:
    """Upstream: testVariableAxisSizePartitioner."""
    partitioner = jv.variable_axis_size_partitioner(**arguments)
    assert list(partitioner(shape=shape, dtype=np.dtype(dtype))) == expected


@pytest.mark.parametrize(
    ("arguments", "shape", "dtype", "expected"),
    [
        ({"max_partitions": 100, "min_slice_size": 2 << 10}, (2048,), "float32", [4]),
        ({"max_partitions": 100, "min_slice_size": 2 << 10}, (2048, 1024), "float32", [100, 1]),
        ({"max_partitions": 16}, (2048, 1024), "float32", [16, 1]),
        ({"max_partitions": 100, "axis": 1, "min_slice_size": 2 << 10}, (8, 2048), "float32", [1, 32]),
        ({"max_partitions": 100, "min_slice_size": 256 << 10}, (2048, 1024), "float32", [32, 1]),
        ({"max_partitions": 100, "min_slice_size": 2 << 10}, (1, 2048), "float32", [1, 1]),
        ({"max_partitions": 10, "min_slice_size": 128}, (5, 128), "float32", [5, 1]),
        ({"max_partitions": 10, "min_slice_size": 10**9}, (5, 128), "float32", [1, 1]),
        ({}, (2048, 1024), "float32", [1, 1]),
        ({"max_partitions": 7, "axis": 2, "min_slice_size": 8}, (2, 2, 50), "int64", [1, 1, 7]),
    ],
)
def test_slices_of_a_least_size(arguments: Any, shape: Any, dtype: str, expected: list[int]) -> None:
    """Upstream: testMinMaxVariablePartitioner."""
    partitioner = jv.min_max_variable_partitioner(**arguments)
    assert list(partitioner(shape=shape, dtype=np.dtype(dtype))) == expected


# create_partitioned_variables


def test_a_vector_is_cut_into_slices() -> None:
    """Upstream: testVecConstantInit."""
    values = create([4], [4], jnp.array([1, 2, 3, 4], jnp.int32))
    assert [item.value.tolist() for item in values] == [[1], [2], [3], [4]]
    assert {item.dtype for item in values} == {np.dtype("int32")}
    assert specs(values) == ["0,1", "1,1", "2,1", "3,1"]


def test_columns_are_cut_and_the_tensor_has_the_dtype() -> None:
    """Upstream: testConstantInit."""
    first, second = create([2, 4], [1, 2], jnp.arange(8, dtype=jnp.int32).reshape(2, 4))
    assert (first.value.tolist(), second.value.tolist()) == ([[0, 1], [4, 5]], [[2, 3], [6, 7]])
    assert first.dtype == np.dtype("int32")
    assert specs([first, second]) == ["0,2:0,2", "0,2:2,2"]


def test_names_are_numbered_below_variable_scopes_and_ignore_name_scopes() -> None:
    """Upstream: testName."""

    def first_name(**options: Any) -> str:
        return create([10, 3], [2, 1], ONES, **options)[0].name

    with jv.variable_scope("hi"):
        assert first_name() == "hi/PartitionedVariable/part_0:0"
        assert first_name() == "hi/PartitionedVariable_1/part_0:0"
    with jv.variable_scope("hola") as hola:
        made = create([10, 3], [2, 1], ONES)
    with jv.variable_scope(hola, reuse=True):
        again = create([10, 3], [2, 1], ONES)
    assert [item.name for item in made] == ["hola/PartitionedVariable/part_0:0", "hola/PartitionedVariable/part_1:0"]
    assert all(a is b for a, b in zip(made, again, strict=True))
    with jv.name_scope("ola"):
        assert first_name() == "PartitionedVariable/part_0:0"
    with jv.variable_scope("same"):
        assert create([4], [2], ONES, name="n")[1].name == "same/n/part_1:0"


@pytest.mark.parametrize(
    ("columns", "lengths"),
    [(10, [20] * 10), (1, [200]), (2, [100, 100]), (3, [67, 67, 66]), (4, [50] * 4), (200, [1] * 200)],
    ids=["ten", "one", "two", "uneven", "four", "single columns"],
)
def test_slices_rebuild_the_value(columns: int, lengths: list[int]) -> None:
    """Upstream: testRandomInitValue, testDegenerate."""
    value = np.random.default_rng(0).normal(size=(3, 200)).astype(np.float32)
    slices = create([3, 200], [1, columns], jnp.asarray(value))
    assert [item.shape[1] for item in slices] == lengths
    np.testing.assert_array_equal(joined(slices, 1), value)
    starts = np.cumsum([0, *lengths[:-1]])
    assert specs(slices) == [f"0,3:{start},{size}" for start, size in zip(starts, lengths, strict=True)]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ["0,20:0,43"]),
        (2, ["0,20:0,22", "0,20:22,21"]),
        (3, ["0,20:0,15", "0,20:15,14", "0,20:29,14"]),
        (4, ["0,20:0,11", "0,20:11,11", "0,20:22,11", "0,20:33,10"]),
        (5, ["0,20:0,9", "0,20:9,9", "0,20:18,9", "0,20:27,8", "0,20:35,8"]),
    ],
)
def test_of_uneven_slices_the_first_are_longer(count: int, expected: list[str]) -> None:
    """Upstream: testRandomInitUnevenPartitions."""
    value = np.random.default_rng(1).normal(size=(20, 43)).astype(np.float32)
    slices = create([20, 43], [1, count], jnp.asarray(value))
    assert specs(slices) == expected
    np.testing.assert_array_equal(joined(slices, 1), value)


def test_slices_of_one_row() -> None:
    """Upstream: testSliceSizeOne."""
    value = np.arange(430, dtype=np.float32).reshape(10, 43)
    slices = create([10, 43], [10, 1], jnp.asarray(value))
    assert [item.shape for item in slices] == [(1, 43)] * 10
    np.testing.assert_array_equal(joined(slices, 0), value)


def test_an_initializer_is_called_for_each_slice() -> None:
    """Upstream: testIotaInitializer."""

    def iota(shape: Any, dtype: Any = jnp.float32, partition_info: Any = None) -> Any:
        return jnp.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)

    slices = create([13, 5], [3, 1], iota)
    assert [item.shape for item in slices] == [(5, 5), (4, 5), (4, 5)]
    for item in slices:
        np.testing.assert_array_equal(item, np.arange(item.size, dtype=np.float32).reshape(item.shape))


def test_random_slices_differ_unless_seeded() -> None:
    """Upstream: testRandomInitializer."""
    first, second = create([20, 43], [1, 2][::-1], jv.random_uniform_initializer(-1.0, 1.0))
    assert not np.isclose(first, second).all()
    first, second = create([20, 43], [2, 1], jv.random_uniform_initializer(-1.0, 1.0, seed=201))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("shape", "cuts"),
    [([10], [1, 1]), ([10, 20], [1]), ([10, 43], [0, 1]), ([10, 43], [1, 50]), ([10, 43], [4, 3]), ([10, 43], [1, -1]),
     ([10], [20])],
)  # fmt: skip
def test_malformed_shapes_and_cuts_are_refused(store: jv.VariableStore, shape: Any, cuts: Any) -> None:
    """Upstream: testSomeErrors."""
    with pytest.raises(ValueError):
        create(shape, cuts, ONES)
    assert len(store.variables) == 0 and jv.global_variables() == []
    assert create([4], [2], ONES)[0].name == "PartitionedVariable/part_0:0"


def test_the_tensor_of_the_whole_is_all_slices_joined() -> None:
    """Upstream: testConcat."""
    value = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    with jv.variable_scope("scope", partitioner=jv.fixed_size_partitioner(2)):
        whole = jv.get_variable("w", [5, 3], initializer=jnp.asarray(value))
    np.testing.assert_array_equal(whole.as_tensor(), joined(list(whole), 0))
    np.testing.assert_array_equal(whole, value)


# variable_scope_test.py: get_variable with a partitioner


def cut_rows(shape: Any, dtype: Any) -> list[int]:
    return [2] + [1] * (len(shape) - 1)


def cut_columns(shape: Any, dtype: Any) -> list[int]:
    return [1, 2]


def test_the_whole_has_the_name_asked_for_and_slices_are_parts_of_it() -> None:
    """Upstream: testResultNameMatchesRequested."""
    with jv.variable_scope("scope0", partitioner=cut_rows):
        v = jv.get_variable("name0", (3, 1, 1), initializer=ONES)
    assert v.name == "scope0/name0"
    assert v.as_tensor().shape == (3, 1, 1)
    assert [item.name for item in v] == ["scope0/name0/part_0:0", "scope0/name0/part_1:0"]
    assert {item.name for item in jv.global_variables()} >= {"scope0/name0/part_0:0", "scope0/name0/part_1:0"}


def test_other_partitions_on_reuse_are_refused() -> None:
    """Upstream: testBreaksIfPartitioningChanges."""
    with jv.variable_scope("scope0", partitioner=cut_rows, reuse=False):
        jv.get_variable("name0", (3, 1, 1), initializer=ONES)
    again = jv.variable_scope("scope0", partitioner=lambda shape, dtype: [3, 1, 1], reuse=True)
    with again, pytest.raises(ValueError, match=r"Trying to reuse partitioned variable .* but specified partitions"):
        jv.get_variable("name0", (3, 1, 1))


def test_reuse_returns_the_same_partitioned_object() -> None:
    """Upstream: testReturnsExistingConcatenatedValueIfReuse."""
    with jv.variable_scope("scope0", partitioner=cut_rows):
        v = jv.get_variable("name0", (3, 1, 1), initializer=ONES)
        jv.get_variable_scope().reuse_variables()
        assert jv.get_variable("name0", (3, 1, 1)) is v


def test_reuse_needs_no_partitioner() -> None:
    """Upstream: testAllowsReuseWithoutPartitioner."""
    with jv.variable_scope("scope0", partitioner=cut_rows):
        v = jv.get_variable("name0", (3, 1, 1), initializer=ONES)
    with jv.variable_scope("scope0", reuse=True):
        assert jv.get_variable("name0") is v


def test_a_captured_scope_keeps_its_partitioner() -> None:
    """Upstream: testPropagatePartitionerOnReopening."""
    with jv.variable_scope("scope0", partitioner=cut_rows) as scope:
        assert jv.get_variable_scope().partitioner is cut_rows
    with jv.variable_scope(scope):
        assert jv.get_variable_scope().partitioner is cut_rows


def test_a_scalar_is_left_whole() -> None:
    """Upstream: testScalarIgnoresPartitioner."""
    with jv.variable_scope("scope0", partitioner=cut_rows):
        v = jv.get_variable("name0", (), initializer=ONES)
    assert v.name == "scope0/name0:0" and not isinstance(v, jv.PartitionedVariable)


def test_slices_lie_along_the_axis_that_is_cut() -> None:
    """Upstream: testPartitionConcatenatesAlongCorrectAxis."""
    with jv.variable_scope("root"):
        rows = jv.get_variable("n0", (10, 10), initializer=ONES, partitioner=lambda shape, dtype: [5, 1])
        columns = jv.get_variable("n1", (10, 10), initializer=ONES, partitioner=cut_columns)
    assert rows.shape == columns.shape == rows.as_tensor().shape == (10, 10)
    assert [item.shape for item in rows] == [(2, 10)] * 5
    assert [item.shape for item in columns] == [(10, 5)] * 2


@pytest.mark.parametrize(
    ("full", "offset", "kind"),
    [(None, [0], TypeError), ("foo", [0], TypeError), ([1], "x", TypeError), ([1], [0, 1], ValueError),
     ([4], [4], ValueError)],
)  # fmt: skip
def test_partition_info_checks_its_arguments(full: Any, offset: Any, kind: type[Exception]) -> None:
    """Upstream: PartitionInfoTest.testConstructorChecks."""
    with pytest.raises(kind):
        slicing.PartitionInfo(full, offset)
    info = slicing.PartitionInfo([4, 2], [3, 0])
    assert (info.full_shape, info.var_offset) == ([4, 2], [3, 0])


def test_the_single_offset_is_that_of_the_cut_axis() -> None:
    """Upstream: PartitionInfoTest.testSingleOffset."""
    assert slicing.PartitionInfo([9, 3], [4, 0]).single_offset([1, 3]) == 4
    assert slicing.PartitionInfo([9, 3], [0, 0]).single_offset([9, 3]) == 0
    assert slicing.PartitionInfo([9, 3], [0, 2]).single_offset([9, 1]) == 2


def test_the_single_axis_that_is_cut() -> None:
    """Upstream: PartitionInfoTest.testSingleSliceDim."""
    info = slicing.PartitionInfo([9, 3], [4, 0])
    assert info.single_slice_dim([1, 3]) == info.single_slice_dim([5, 3]) == 0
    for shape in ([1], [10, 3], [6, 3], [9, 2], [3, 2]):
        with pytest.raises(ValueError):
            info.single_slice_dim(shape)
    with pytest.raises(TypeError, match="`shape` must be a sequence"):
        info.single_slice_dim("foo")  # pyright: ignore


# init_ops_test.py, saver_test.py, checkpoint_utils_test.py


def test_identity_is_assembled_from_its_slices() -> None:
    """Upstream: Identity Partitions."""
    for name, partitioner in (("rows", cut_rows), ("columns", cut_columns)):
        v = jv.get_variable(name, [10, 5], initializer=jv.identity_initializer(), partitioner=partitioner)
        np.testing.assert_array_equal(joined(list(v), ["rows", "columns"].index(name)), np.eye(10, 5))


@pytest.mark.parametrize("form", ["list", "dict", "slices"])
def test_saved_slices_restore_into_any_others(tmp_path: Path, form: str) -> None:
    """Upstream: SaveRestoreShardedTest.testPartitionedVariable."""
    value = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)

    def saver_and_state(axis: int | None, count: int, value: Any) -> tuple[jv.train.Saver, jv.Variables]:
        partitioner = None if axis is None else jv.fixed_size_partitioner(count, axis=axis)
        with jv.VariableStore() as store:
            v = jv.get_variable("w", initializer=jnp.asarray(value), partitioner=partitioner)
        taken: Any = {"list": [v], "dict": {"stored": v}, "slices": {"stored": v if axis is None else list(v)}}[form]
        return jv.train.Saver(taken), store.variables

    saver, variables = saver_and_state(0, 3, value)
    path = saver.save(variables, tmp_path / "model")
    assert jv.train.list_variables(path) == [("w" if form == "list" else "stored", [6, 4])]
    for axis, count in ((0, 3), (0, 2), (1, 4), (None, 1)):
        saver, zeros = saver_and_state(axis, count, np.zeros((6, 4), np.float32))
        np.testing.assert_array_equal(saver.restore(zeros, path)["w"], value)


def test_a_list_of_slices_is_whole() -> None:
    """Upstream: SaverTest.testSomeErrors, what it checks of slices."""
    v, w = (jv.get_variable(name, [4], initializer=ONES, partitioner=jv.fixed_size_partitioner(2)) for name in "vw")
    jv.train.Saver([*v, w])
    with pytest.raises(ValueError, match="v has 4 elements, and the slices given have 2"):
        jv.train.Saver({"stored": [next(iter(v))]})
    with pytest.raises(ValueError, match="Slices must all be from the same variable; these are of v, w"):
        jv.train.Saver({"stored": [*v, *w]})
    with pytest.raises(ValueError, match="same name: v"):
        jv.train.Saver([*v, v])


def test_partitioned_variables_begin_with_a_checkpoint(tmp_path: Path) -> None:
    """Upstream: testInitFromPartitionVar."""
    value = np.arange(12, dtype=np.float32).reshape(6, 2)
    path = writer.write_bundle(tmp_path / "model", {"scope/my_var": value})
    for number, count in enumerate((2, 3)):
        with jv.variable_scope(f"some_scope{number}"):
            by_name, by_scope, by_slices, by_handle = (
                jv.get_variable(
                    name, [6, 2], initializer=jv.zeros_initializer(), partitioner=jv.fixed_size_partitioner(count)
                )
                for name in ("my1", "scope/my_var", "my3", "my4")
            )
        scope = f"some_scope{number}/"
        jv.train.init_from_checkpoint(path, {"scope/my_var": f"{scope}my1"})
        jv.train.init_from_checkpoint(path, {"scope/": f"{scope}scope/"})
        jv.train.init_from_checkpoint(path, [("scope/my_var", list(by_slices)), ("scope/my_var", by_handle)])
        for v in (by_name, by_scope, by_slices, by_handle):
            np.testing.assert_array_equal(v, value)
            np.testing.assert_array_equal(joined(list(v), 0), value)

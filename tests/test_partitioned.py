"""Partitioned variables: one array under one name, sliced by TF1's rules; every error of them; every kind of frame."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_transform_table import CARRIERS, X
from test_transform_table import _expected as expected_of

import jaxvars as jv
from jaxvars.partitioned import Slice
from jaxvars.scopes.context import current
from jaxvars.scopes.slicing import ElementType, FullShape, Partitioning

HALVES = jv.fixed_size_partitioner(2)
ZEROS = jv.zeros_initializer()


@pytest.fixture
def store() -> Iterator[jv.VariableStore]:
    with jv.VariableStore(0) as store:
        yield store


def table(name: str = "w", shape: Any = (4,), partitioner: Any = HALVES, **options: Any) -> Any:
    """A partitioned variable of zeros."""
    return jv.get_variable(name, shape, **{"initializer": ZEROS, "partitioner": partitioner, **options})


def answering(*counts: Any) -> Callable[..., Any]:
    """A partitioner with this answer."""
    return lambda shape, dtype: list(counts)


# What a partitioner is asked


def test_a_partitioner_is_asked_in_tf1s_terms(store: jv.VariableStore) -> None:
    asked: list[Any] = []

    def partitioner(shape: Any, dtype: Any) -> tuple[int, ...]:
        asked.extend((shape, dtype))
        return (shape[0].value // 2,) + (1,) * (shape.ndims - 1)

    w = jv.get_variable("w", [6, 2], "float16", ZEROS, partitioner=partitioner)
    shape, dtype = asked
    assert (shape.as_list(), shape.ndims, shape.rank, list(shape), len(shape)) == ([6, 2], 2, 2, [6, 2], 2)
    assert (shape.num_elements(), shape.is_fully_defined(), shape.dims[1].value, shape == (6, 2)) == (12, True, 2, True)
    assert (dtype.size, dtype.name, dtype.base_dtype, dtype == jnp.float16) == (2, "float16", dtype, True)
    assert np.dtype(dtype) == np.float16 and dtype.as_numpy_dtype is np.float16 and hash(dtype) == hash(w.dtype)
    assert repr(dtype) == repr(w.dtype) and dtype != ElementType(np.dtype("int32"))
    assert w._get_partitions() == [3, 1] and len(w) == 3


@pytest.mark.parametrize("count", range(1, 7))
def test_the_first_slices_are_longer_by_one(count: int) -> None:
    parts = Partitioning((5, 2), (min(count, 5), 1)).parts
    rows = [part.shape[0] for part in parts]
    assert sum(rows) == 5 and rows == sorted(rows, reverse=True) and max(rows) - min(rows) <= 1
    assert [part.offset[0] for part in parts] == list(np.cumsum([0, *rows[:-1]]))


def test_partitioners_take_shapes_and_dtypes_in_every_form() -> None:
    partitioner = jv.variable_axis_size_partitioner(8)
    for dtype in (np.float32, jnp.float32, "float32", np.dtype("float32"), ElementType(np.dtype("float32")), "float"):
        for shape in ((4, 2), [4, 2], FullShape([4, 2])):
            assert partitioner(shape=shape, dtype=dtype) == [4, 1]
    assert partitioner(shape=[4, 2], dtype="string") == partitioner(shape=[4, 2], dtype="float64") == [4, 1]
    assert partitioner(shape=[4, 2], dtype=bool) == [1, 1] and partitioner(shape=[4, 2], dtype="half") == [2, 1]
    assert partitioner(shape=[0, 2], dtype="half") == [1, 1]
    assert jv.fixed_size_partitioner(3, axis=-1)(shape=[4, 2], dtype="int8") == [1, 2]


@pytest.mark.parametrize(
    ("call", "phrase"),
    [
        (lambda: jv.variable_axis_size_partitioner(0), "must be positive"),
        (lambda: jv.variable_axis_size_partitioner(1, bytes_per_string_element=0), "must be positive"),
        (lambda: jv.variable_axis_size_partitioner(1, max_shards=-1), "max_shards must be positive"),
        (lambda: HALVES(shape=[], dtype="int8"), "Cannot partition variable along axis 0 when shape is only"),
        (lambda: jv.fixed_size_partitioner(2, 1)(shape=[2], dtype="int8"), "along axis 1 when shape is only"),
        (lambda: jv.min_max_variable_partitioner(2, 1)(shape=[2], dtype="int8"), "along axis 1 when shape is only"),
        (lambda: jv.variable_axis_size_partitioner(2, 1)(shape=[2], dtype="int8"), "along axis 1 when shape is only"),
    ],
)
def test_errors_of_partitioners(call: Callable[[], Any], phrase: str) -> None:
    with pytest.raises(jv.errors.InvalidArgumentError, match=phrase):
        call()


# Errors of get_variable: class, TF1's phrase, ours; nothing is changed


def state_of_names(store: jv.VariableStore) -> Any:
    frame = store._frame
    assert frame is not None
    context = current.get()
    assert context is not None
    collections = {key: list(map(id, items)) for key, items in frame.graph.collections._lists.items()}
    slots = {key: (slot.gotten, slot.partitioning) for key, slot in frame._by_store_key.items()}
    counts = (context.scope, context.scope.reuse, context.counts, dict(frame.graph.names._used))
    return counts, collections, slots, list(frame.slots), list(store.variables)


@contextmanager
def refused(store: jv.VariableStore, kind: type[Exception], phrase: str, *ours: str) -> Iterator[None]:
    before = state_of_names(store)
    with pytest.raises(kind, match=phrase) as caught:
        yield
    assert isinstance(caught.value, jv.JaxvarsError)
    for text in (*ours, "test_partitioned.py:"):
        assert text in str(caught.value)
    assert state_of_names(store) == before


ANSWERS = [
    (
        "not callable",
        [4],
        3,
        ValueError,
        "Partitioner must be callable, but received: 3",
        "jv.fixed_size_partitioner(2)",
    ),
    ("no sequence", [4], lambda **_: 2, ValueError, "Partitioner must return a sequence, but saw: 2", "[2, 1]"),
    ("a string", [4], lambda **_: "2", ValueError, "Partitioner must return a sequence", "'2'"),
    ("no ints", [4], answering(2.0), TypeError, "must return ints", "[2.0]"),
    ("bools", [4], answering(True), TypeError, "must return ints", "[True]"),
    ("rank", [4], answering(2, 1), ValueError, "does not match the Variable's rank", "[2, 1] vs. (4,)"),
    ("zero", [4], answering(0), ValueError, "Partitioner returned zero partitions for some axes", "[0]"),
    ("two axes", [4, 4], answering(2, 2), ValueError, "Can only slice a variable along one dimension", "[2, 2]"),
    ("too many", [4], answering(5), ValueError, "Expected 0 <= offset < shape but found offset=4, shape=4", "5 slices"),
    ("no rows", [0], answering(1), ValueError, "Expected 0 <= offset < shape but found offset=0, shape=0", "1 slices"),
    ("no shape", None, HALVES, ValueError, "Shape of a new partitioned variable must be fully defined", "<unknown>"),
    ("open shape", [None], HALVES, ValueError, "Shape of a new partitioned variable must be fully", "(None,)"),
    ("scalar", np.zeros(0, int), HALVES, ValueError, "A partitioned Variable must have rank at least 1", "shape=[]"),
    ("axis", [4], jv.fixed_size_partitioner(2, axis=1), ValueError, "Cannot partition variable along axis 1", "(4,)"),
]


@pytest.mark.parametrize(
    ("shape", "partitioner", "kind", "phrase", "ours"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS]
)
def test_what_a_partitioner_may_not_answer(
    store: jv.VariableStore, shape: Any, partitioner: Any, kind: type[Exception], phrase: str, ours: str
) -> None:
    with jv.variable_scope("s"), refused(store, kind, phrase, ours, "s/w"):
        jv.get_variable("w", shape, partitioner=partitioner)


INITIALIZERS = [
    ("too many for a slice", [4], jv.constant_initializer([1, 2, 3]), ValueError, "Too many elements provided"),
    (
        "value and dtype",
        [4],
        np.ones(4, "float32"),
        ValueError,
        "Initializer type 'float32' and explicit dtype 'int32' don't match",
    ),
    ("shape of an array", [5], jnp.ones(4, "int32"), ValueError, "are not compatible"),
    ("shape of a list", [4], [1, 2], ValueError, "The initial value has shape"),
    ("no arguments", [4], lambda: jnp.ones(4), TypeError, "takes 0 positional arguments"),
    ("random ints", [4], jv.random_normal_initializer(), TypeError, "int32 was asked for"),
    (
        "collections",
        [4],
        ZEROS,
        ValueError,
        "collections argument to Variable constructor must be a list, tuple, or set",
    ),
]


@pytest.mark.parametrize(
    ("shape", "initializer", "kind", "phrase"), [a[1:] for a in INITIALIZERS], ids=[a[0] for a in INITIALIZERS]
)
def test_what_cannot_be_made(
    store: jv.VariableStore, shape: Any, initializer: Any, kind: type[Exception], phrase: str
) -> None:
    collections: Any = "my" if "collections" in phrase else None
    with refused(store, kind, phrase, "w"):
        jv.get_variable("w", shape, "int32", initializer, partitioner=HALVES, collections=collections)


def test_a_dtype_without_default_initializer(store: jv.VariableStore) -> None:
    with refused(store, ValueError, "An initializer for variable w of complex64 is required"):
        jv.get_variable("w", [4], "complex64", partitioner=HALVES)


def test_reuse_rules(store: jv.VariableStore) -> None:
    with jv.variable_scope("s"):
        w = table()
        jv.get_variable("plain", [4], initializer=ZEROS)
    again, auto = {"reuse": True}, {"reuse": jv.AUTO_REUSE}
    with jv.variable_scope("s", **again):
        assert table() is table(partitioner=None) is table(shape=None, partitioner=None) is w
        with refused(store, ValueError, "Shape of a new partitioned variable must be fully defined", "leave out"):
            table(shape=None)
        with refused(store, ValueError, "PartitionedVariable s/new does not exist, or was not created with", "AUTO"):
            table("new")
        with refused(
            store,
            ValueError,
            r"A partitioner was provided, but an unpartitioned version of the variable was found: s/plain",
            "Originally defined at",
        ):
            table("plain")
        with refused(store, ValueError, "A partitioner was provided, but an unpartitioned version .* s/w/part_0"):
            table("w/part_0")
        for options, found in (
            ({"shape": [5]}, r"shape \(5,\) and found shape \(4,\)"),
            ({"dtype": "int32"}, "dtype int32 and found dtype float32"),
            ({"partitioner": answering(1)}, r"partitions \[1\] and found partitions \[2\]"),
        ):
            with refused(
                store, ValueError, f"Trying to reuse partitioned variable s/w, but specified {found}", "Originally"
            ):
                table(**options)
    with jv.variable_scope("s", **auto):
        assert table() is w and table(partitioner=lambda **_: (2,)) is w  # a tuple is a list
        with refused(
            store,
            ValueError,
            "No partitioner was provided, but a partitioned version of the variable was found: s/w/part_0",
            "reuse=True",
        ):
            table(partitioner=None)
    with jv.variable_scope("s"):
        with refused(
            store,
            ValueError,
            "Partitioned variable with name s/w already exists",
            "Originally defined at",
            "jv.AUTO_REUSE",
        ):
            table()
        for options in ({"partitioner": None}, {"shape": []}):
            with refused(store, ValueError, "No partitioner was provided, but a partitioned version"):
                table(**options)


def test_slices_are_found_by_their_names(store: jv.VariableStore) -> None:
    first, second = table()
    with jv.variable_scope("w", reuse=True):
        assert jv.get_variable("part_0", [2]) is first and jv.get_variable("part_1") is second
        with refused(store, ValueError, "Trying to share variable w/part_0, but specified shape"):
            jv.get_variable("part_0", [3])
        with refused(store, ValueError, "Variable w/part_2 does not exist"):
            jv.get_variable("part_2")
    with jv.variable_scope("w"), refused(store, ValueError, "Variable w/part_0 already exists, disallowed"):
        jv.get_variable("part_0", [2])


def test_variables_with_the_names_of_slices(store: jv.VariableStore) -> None:
    jv.get_variable("w/part_0", [2], initializer=ZEROS)
    with refused(store, ValueError, "No partitioner was provided, but a partitioned version of the variable was found"):
        jv.get_variable("w", [4])
    with jv.variable_scope("", reuse=True), refused(store, ValueError, "No partitioner was provided, but"):
        jv.get_variable("w", [4])
    with refused(store, ValueError, "Partitioner returned a different partitioning .* w/part_1 was not"):
        table()
    with refused(store, ValueError, "Variable w/part_0 already exists, disallowed", "one array"):
        table(partitioner=answering(1))
    jv.get_variable("w/part_1", [2], initializer=ZEROS)
    with refused(store, ValueError, "Partitioner returned a different partitioning .* so was the extra shard w/part_1"):
        table(partitioner=answering(1))
    with jv.variable_scope("", reuse=jv.AUTO_REUSE), refused(store, ValueError, "Variable w/part_0 already exists"):
        table()


def test_one_name_stands_for_one_variable() -> None:
    for tf1_op_names in (False, True):
        with jv.VariableStore(0, tf1_op_names=tf1_op_names) as store:
            jv.Variable(0.0, name="taken")
            with refused(store, ValueError, "Partitioned variable taken cannot be made", "Originally defined at"):
                table("taken")
            table("w")
            assert jv.Variable(0.0, name="w").key == "w_1" and jv.Variable(0.0, name="w").key == "w_2"
        assert list(store.variables) == ["taken", "w", "w_1", "w_2"]
    with jv.VariableStore(0, tf1_op_names=True) as store:
        table("v")
        table("v_1")
        jv.Variable(0.0, name="v")
        with jv.name_scope("u"):
            table("u_1")
        jv.get_variable("u", [])  # TF1 would name both u_1 in a checkpoint
    assert list(store.variables) == ["u_1", "u_2", "v", "v_1", "v_2"]


def test_op_names_of_slices_are_unique_as_in_tf1() -> None:
    with jv.VariableStore(0, tf1_op_names=True) as store:
        with jv.name_scope("w/part_0"), jv.name_scope("x"):
            pass
        with jv.variable_scope("a"):
            w = table("v")
        v = table()
        with jv.variable_scope("w") as scope:  # the name of the whole is not taken in the graph
            assert scope.original_name_scope == "w/"
    assert [part.name for part in w] == ["a/v/part_0:0", "a/v/part_1:0"]
    assert [part.name for part in v] == ["w/part_0_1:0", "w/part_1:0"]
    assert list(store.variables) == ["a/v", "w"]


# The handle


def test_the_handle_is_an_array_and_a_list_of_slices(store: jv.VariableStore) -> None:
    w = table(shape=[3, 2], initializer=jnp.arange(6.0, dtype="float32").reshape(3, 2))
    first, second = w
    assert (w.name, w.key, w.op.name, w.shape, w.get_shape().as_list(), w.dtype) == (
        "w",
        "w",
        "w",
        (3, 2),
        [3, 2],
        np.float32,
    )
    assert len(w) == 2 and w._get_variable_list() == [first, second] and isinstance(w, jv.Variable) and w.trainable
    assert [(s.name, s.op.name, s.key, s.shape, s.dtype) for s in w] == [
        ("w/part_0:0", "w/part_0", "w", (2, 2), np.float32),
        ("w/part_1:0", "w/part_1", "w", (1, 2), np.float32),
    ]
    assert isinstance(first, Slice) and isinstance(first, jv.Variable) and first.part.offset == (0, 0)
    for value in (w.value, w.as_tensor(), w + 0, 0 + w, jnp.asarray(w), np.asarray(w), jax.jit(lambda x: x)(w), w[:]):
        np.testing.assert_array_equal(value, np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(jnp.concatenate(list(w)), w.value)
    np.testing.assert_array_equal(second * 2 + second.value, [[12.0, 15.0]])
    assert (w == w) is True and (w == first) is False and len({w, first, second, w}) == 3
    assert copy.deepcopy(w) is w and copy.copy(first) is first
    assert "partitions=[2, 1]" in repr(w) and repr(first) == "<jv.Slice 'w/part_0' of 'w' shape=(2, 2) dtype=float32>"
    with pytest.raises(TypeError, match="made by get_variable"):
        jv.PartitionedVariable("w", [3], "float32", [], [])
    with pytest.raises(TypeError, match="Pickle"):
        pickle.dumps(w)
    with pytest.raises(ValueError, match=r"v\.value"):
        jax.lax.exp(second)


def test_assignments_to_slices_and_to_the_whole(store: jv.VariableStore) -> None:
    w = table()
    first, second = w
    assert first.assign([1, 2]).tolist() == [1, 2] and second.assign_add([3.0, 4.0]).tolist() == [3, 4]
    assert w.value.tolist() == [1, 2, 3, 4] and second.assign_sub(jnp.ones(2)).tolist() == [2, 3]
    assert second.scatter_add([1], [10.0]).tolist() == [2, 13]
    assert w.assign_add(jnp.ones(4)).tolist() == [2, 3, 3, 14]
    assert w.assign([[5, 6], [7, 8]]).tolist() == [5, 6, 7, 8]  # a value for each slice, as TF1 takes them
    assert w.assign(table("other")).tolist() == [0, 0, 0, 0] and w.scatter_update([3], [9.0]).tolist() == [0, 0, 0, 9]
    with pytest.raises(ValueError, match="both shapes must be equal"):
        first.assign(jnp.ones(4))
    with pytest.raises(ValueError, match="both shapes must be equal"):
        w.assign([1.0, 2.0])
    count = table("count", initializer=ZEROS, dtype="int32", shape=[1], partitioner=answering(1))
    assert count.assign([3]).tolist() == [3] and w.value.tolist() == [0, 0, 0, 9]
    first.load([4.0, 4.0])
    assert first.eval().tolist() == first.initialized_value().tolist() == [4, 4]


def test_slices_in_collections(store: jv.VariableStore) -> None:
    w = table(collections=["mine", "variables"])
    v = jv.get_variable("v", [], initializer=ZEROS)
    local = jv.get_local_variable("local", [2], initializer=ZEROS, partitioner=HALVES)
    assert jv.get_collection("mine") == list(w) and jv.trainable_variables() == [*w, v]
    assert jv.global_variables() == [*w, v] and jv.local_variables() == list(local) and not local.trainable
    assert jv.get_collection("mine", "w/part_1") == [list(w)[1]]
    with jv.variable_scope("", reuse=True):
        table()
    assert jv.get_collection("mine") == list(w)  # sharing adds nothing
    jv.add_to_collection("wholes", w)
    assert jv.get_collection("wholes") == [w]
    assert store.variables.variable_specs["w"].collections[:2] == ("mine", "variables")


def test_regularizers_and_constraints_act_on_slices() -> None:
    def net() -> Any:
        w = jv.get_variable(
            "w",
            [4],
            initializer=jnp.arange(4.0, dtype="float32"),
            partitioner=HALVES,
            regularizer=lambda v: jnp.max(v) if v.op.name == "w/part_0" else jnp.min(v),
            constraint=lambda v: v / jnp.sum(v),
        )
        assert [s.constraint is not w.constraint for s in w] == [True, True]
        losses = jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES)
        named = jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES, "w/part_1/Regularizer")
        return losses, named, jv.losses.get_regularization_loss(), jnp.sum(w)

    model = jv.transform(net)
    variables = model.init(0)
    losses, named, total, _ = model(variables)
    assert [float(loss) for loss in losses] == [1, 2] and len(named) == 1 and total == 3
    optimizer = jv.train.MomentumOptimizer(1.0, 0.9)
    variables = optimizer.init(variables)
    assert list(variables) == ["w", "w/Momentum"]
    variables = optimizer.apply_gradients(jv.grad(lambda v: model(v)[3])(variables), variables)
    np.testing.assert_allclose(variables["w"], [1, 0, 1 / 3, 2 / 3], rtol=1e-6)


# Initial values


def values_of(initializer: Any, shape: Any = (5, 2), **options: Any) -> np.ndarray[Any, Any]:
    """The value that a partitioned variable of this initializer begins with."""
    with jv.VariableStore(0):
        return np.asarray(jv.get_variable("w", shape, initializer=initializer, **{"partitioner": HALVES, **options}))


@pytest.mark.parametrize(
    "initializer",
    [None, jv.random_normal_initializer(), jax.nn.initializers.glorot_normal(), jv.identity_initializer(2.0)],
    ids=["default", "normal", "jax", "identity"],
)
def test_what_is_made_whole_has_the_bits_of_the_unpartitioned(initializer: Any) -> None:
    whole = values_of(initializer, partitioner=None)
    assert whole.tobytes() == values_of(initializer).tobytes()
    assert whole.tobytes() == values_of(initializer, partitioner=jv.fixed_size_partitioner(2, axis=1)).tobytes()


def test_what_is_made_slice_by_slice() -> None:
    assert values_of(jv.constant_initializer([1, 2]), [5]).tolist() == [1, 2, 2, 1, 2]
    assert values_of(jv.constant_initializer(3.0), [3]).tolist() == [3, 3, 3]
    assert values_of(jv.constant_initializer([1, 2], verify_shape=True), [4]).tolist() == [1, 2, 1, 2]
    seeded = values_of(jv.glorot_uniform_initializer(seed=1), [400, 2])
    np.testing.assert_array_equal(seeded[:200], seeded[200:])
    assert 0.11 < abs(seeded).max() <= np.sqrt(6 / 402)  # the fans of the whole
    for part in np.split(values_of(jv.orthogonal_initializer(), [4, 2]), 2):
        np.testing.assert_allclose(part @ part.T, np.eye(2), atol=1e-5)
    orthogonal = values_of(jv.orthogonal_initializer(), [4, 2])
    assert not np.allclose(orthogonal[:2], orthogonal[2:])
    called: list[Any] = []

    def iota(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        called.append((shape, partition_info.full_shape, partition_info.var_offset, repr(partition_info)[:13]))
        return np.arange(np.prod(shape), dtype=dtype).reshape(shape)

    assert values_of(iota, [5]).tolist() == [0, 1, 2, 0, 1]
    assert called[-2:] == [([3], [5], [0], "PartitionInfo"), ([2], [5], [3], "PartitionInfo")]
    assert values_of(lambda shape, dtype: jnp.ones(shape, dtype) * shape[0], [5]).tolist() == [3, 3, 3, 2, 2]
    with pytest.raises(ValueError, match=r"for slice part_0, of shape \(3,\), it returned shape \(5,\)"):
        values_of(lambda shape, dtype: np.ones(5), [5])


def test_values_as_initializers() -> None:
    assert values_of([1, 2, 3, 4], [4]).dtype == np.float32  # the dtype of the scope, as TF1 converts them
    assert values_of(np.arange(4), [4]).tolist() == [0, 1, 2, 3]
    assert (
        values_of(jnp.arange(3, dtype="int32"), None).tolist()
        == values_of(jnp.arange(3, dtype="int32"), [3]).tolist()
        == [0, 1, 2]
    )
    assert values_of(jnp.arange(3, dtype="int32"), None).dtype == np.int32
    assert values_of([jnp.float32(1), 2.0], [2]).tolist() == [1, 2]


# Scopes, getters, creators


def test_scopes_pass_their_partitioner_on(store: jv.VariableStore) -> None:
    with jv.variable_scope("s", partitioner=HALVES) as captured:
        w = jv.get_variable("w", [2])
        with jv.variable_scope("inner"):
            assert len(jv.get_variable("w", [2])) == 2
        scalar = jv.get_variable("scalar", [])
        plain = jv.Variable(jnp.zeros(2))
        assert not isinstance(scalar, jv.PartitionedVariable) and not isinstance(plain, jv.PartitionedVariable)
        jv.get_variable_scope().set_partitioner(jv.fixed_size_partitioner(3))
        assert len(jv.get_variable("v", [3])) == 3
        captured.set_partitioner(None)
        assert (
            isinstance(jv.get_variable("u", [2]), jv.Variable)
            and len(jv.get_variable("t", [2], partitioner=HALVES)) == 2
        )
        captured.set_partitioner(HALVES)
    with jv.variable_scope(captured, reuse=True):
        assert jv.get_variable("w", [2]) is w
    with jv.variable_scope(captured, partitioner=jv.fixed_size_partitioner(1)):
        single = jv.get_variable("single", [2])
    assert [part.name for part in single] == ["s/single/part_0:0"] and single._get_partitions() == [1]


def test_getters_and_creators(store: jv.VariableStore) -> None:
    seen: list[Any] = []

    def getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["partitioner"])
        return getter(name + "_g", *args, **kwargs)

    def creator(next_creator: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["name"], kwargs["shape"]))
        return next_creator(**kwargs | {"trainable": False})

    with jv.variable_scope("s", custom_getter=getter), jv.variable_creator_scope(creator):
        w = table()
    assert seen == [HALVES, ("s/w_g", (4,))] and [part.name for part in w] == ["s/w_g/part_0:0", "s/w_g/part_1:0"]
    assert not w.trainable and jv.trainable_variables() == []


def test_create_partitioned_variables(store: jv.VariableStore) -> None:
    parts = jv.create_partitioned_variables([4, 2], [1, 2], jnp.arange(8, dtype="int32").reshape(4, 2), name="hi")
    assert [part.name for part in parts] == ["hi/part_0:0", "hi/part_1:0"] and parts[1].value.tolist() == [
        [1],
        [3],
        [5],
        [7],
    ]
    assert jv.create_partitioned_variables([4, 2], [1, 2], ZEROS, dtype="int32", name="hi", reuse=True) == parts
    with jv.variable_scope("hi", regularizer=jnp.sum):
        named = jv.create_partitioned_variables([2], [2], None, trainable=False, collections=["mine"])
    assert [part.name for part in named] == ["hi/PartitionedVariable/part_0:0", "hi/PartitionedVariable/part_1:0"]
    assert jv.get_collection("mine") == named and len(jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES)) == 2
    for shape, slicing, phrase in (
        ([4, 2], [2], "must have the same length"),
        ([], [], "must have rank at least 1"),
        ([4], [0], "zero partitions"),
        ([4, 2], [2, 2], "along one dimension"),
        ([4], [5], "Expected 0 <= offset < shape"),
    ):
        with refused(store, ValueError, phrase):
            jv.create_partitioned_variables(shape, slicing, ZEROS)
    with (
        jv.variable_scope("s", custom_getter=lambda getter, name, **kwargs: getter(name, **kwargs)),
        refused(store, ValueError, "not allowed when a custom getter is set", "partitioner=..."),
    ):
        jv.create_partitioned_variables([2], [2], ZEROS)
    with pytest.raises(ValueError, match="already exists"):
        jv.create_partitioned_variables([4, 2], [1, 2], ZEROS, name="hi", dtype="int32")


# Every kind of frame


def count_slices(steps: Any) -> Any:
    """Writes slices inside transforms, one of them plainly read before."""
    w = table(trainable=False)
    first, second = w
    head = table("head", [2, 2], trainable=True, initializer=jv.ones_initializer())

    def body(carry: Any, step: Any) -> tuple[Any, Any]:
        second.assign(second + step)
        first.assign_add(jnp.where(step > 1, jnp.ones(2), 0.0))
        return carry * head, jnp.sum(w)

    out, sums = jax.lax.scan(jax.checkpoint(body), jnp.ones([2, 2]), steps)
    w.assign_add(jnp.ones(4))
    return jnp.sum(out), sums


def test_frames_and_transforms() -> None:
    model = jv.transform(count_slices)
    steps = jnp.arange(3.0, dtype="float32")
    assert [(k, v.shape) for k, v in model.specs(steps).items()] == [("head", (2, 2)), ("w", (4,))]
    variables = model.init(0, steps)
    run = jax.jit(model.apply, donate_argnums=0)
    for apply in (model.apply, run):
        (out, sums), after = apply(variables if apply is model.apply else model.init(0, steps), steps)
        assert after["w"].tolist() == [2, 2, 4, 4] and sums.tolist() == [0, 2, 8] and out == 4
    grads = jv.grad(lambda v: model.apply(v, steps)[0][0])(variables)
    assert list(grads) == ["head"] and grads["head"].tolist() == [[3, 3], [3, 3]]
    many = jax.vmap(model.init, (0, None))(jax.random.split(jax.random.key(0), 3), steps)
    _, after = jax.vmap(model.apply, (0, None))(many, steps)
    assert after["w"].tolist() == [[2, 2, 4, 4]] * 3
    with jv.VariableStore(0) as store:
        count_slices(steps)
    assert store.variables["w"].tolist() == [2, 2, 4, 4]
    with store:  # the next cell
        w = table()
        assert w.value.tolist() == [2, 2, 4, 4]
    assert store.variables[w].tolist() == [2, 2, 4, 4] and store.variables[next(iter(w))].tolist() == [2, 2]


def made_inside(run: Any) -> Any:
    """Makes and reads a partitioned variable inside a transform, and writes a slice of another one."""

    def layer(x: Any, writes: bool) -> Any:
        if writes:
            _, second = table("count", trainable=False)
            second.assign(second + 1.0)
        first, second = table("w", [2], initializer=[1.0, 2.0])
        return x * (first.value[0] + second.value[0]) / 2

    return lambda x, writes: run(lambda y: layer(y, writes), x)


@pytest.mark.slow
@pytest.mark.parametrize("name", CARRIERS)
def test_slices_under_every_transform(name: str) -> None:
    carrier = CARRIERS[name]
    model = jv.transform(made_inside(carrier.run))
    variables = model.init(0, X, carrier.writes)
    assert list(variables) == ["count", "w"] if carrier.writes else ["w"]
    for apply in (model.apply, jax.jit(model.apply, static_argnums=2)):
        out, after = apply(variables, X, carrier.writes)
        np.testing.assert_allclose(out, expected_of(carrier, name) * X, rtol=1e-5)
        if carrier.writes:
            assert after["count"].tolist() == [0, 0, carrier.times, carrier.times]
    if carrier.differentiable and not carrier.writes:
        grads = jv.grad(lambda v: jnp.sum(model.apply(v, X, False)[0]))(variables)
        assert np.isfinite(grads["w"]).all() and (grads["w"] != 0).all()


def test_a_write_under_vmap_is_refused() -> None:
    def net(x: Any) -> Any:
        part = next(iter(table()))
        return jax.vmap(lambda y: part.assign(jnp.ones(2) * y))(x)

    with pytest.raises(jv.errors.TransformError, match="vmap"):
        jv.transform(net).init(0, jnp.ones(2))


def test_given_values_may_have_been_cut_otherwise() -> None:
    given = jv.Variables({"w": jnp.arange(4.0, dtype="float32")}).freeze(["w"])
    for partitioner in (answering(4), answering(1), None):
        model = jv.transform(lambda p=partitioner: jnp.sum(table(partitioner=p)))
        assert model(given) == 6 and model.init(0, variables=given)["w"] is not None

    def shared() -> Any:
        with jv.variable_scope("", reuse=True):
            return [s.value for s in table()], jv.trainable_variables()

    parts, trainable = jv.transform(shared)(given)
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3]] and trainable == []
    with pytest.raises(ValueError, match=r"has shape \(4,\), and the model asks for \(5,\)"):
        jv.transform(lambda: table(shape=[5]).value).apply(given)
    with pytest.raises(KeyError, match="w"):
        jv.transform(lambda: table().value).apply(jv.Variables({}))
    store = jv.VariableStore(0, given)
    with store:
        with pytest.raises(ValueError, match=r"asks for \(5,\)"):
            table(shape=[5])
        with pytest.raises(ValueError, match="asks for int32"):
            table(dtype="int32", partitioner=answering(4))
        assert len(table()) == 2  # the failed calls left nothing
        assert jv.trainable_variables() == []


def test_a_body_that_runs_twice_finds_its_slices() -> None:
    def net() -> Any:
        def body(carry: Any, _: Any) -> Any:  # the carry becomes a float: traced twice
            w = jv.get_variable("w", [2], initializer=jv.ones_initializer(), partitioner=HALVES)
            return carry + jnp.sum(w), None

        out, _ = jax.lax.scan(body, 0, None, length=2)
        return out, [part.name for part in jv.trainable_variables()]

    model = jv.transform(net)
    assert model(model.init(0)) == (4.0, ["w/part_0:0", "w/part_1:0"])


def test_handles_after_their_frame(tmp_path: Any) -> None:
    kept: list[Any] = []
    model = jv.transform(lambda: kept.append(table(initializer=jnp.arange(4.0, dtype="float32"))))
    variables = model.init(0)
    w = kept[0]
    first, second = w
    assert variables[w].tolist() == [0, 1, 2, 3] and variables[second].tolist() == [2, 3] and first in variables
    assert model.specs()[second].shape == (2,) and variables.get(second).tolist() == [2, 3]
    assert jv.assign(variables, w, jnp.ones(4))["w"].tolist() == [1, 1, 1, 1]
    for write in (jv.assign, jv.assign_add):
        with pytest.raises(ValueError, match=r'variables\["w"\].at\[2:4\].set\(value\)'):
            write(variables, second, jnp.ones(2))
    with pytest.raises(ValueError, match="a part of the array"):
        jv.scatter_update(variables, second, [0], [1.0])
    with pytest.raises(jv.errors.FailedPreconditionError, match="that frame has ended"):
        second.value  # noqa: B018
    with pytest.raises(jv.errors.FailedPreconditionError, match="that frame has ended"):
        w.assign(jnp.ones(4))
    assert "frame ended" in repr(w) and "frame ended" in repr(second)
    for wrt in (w, list(w), first):
        assert list(jv.grad(lambda v: jnp.sum(v["w"]), wrt=wrt)(variables)) == ["w"]
    path = jv.train.Saver([w]).save(variables, str(tmp_path / "model.ckpt"))
    assert path is not None and jv.train.list_variables(path) == [("w", [4])]


def test_handles_and_frames_refer_in_no_circle() -> None:
    gone: list[Any] = []

    def net() -> None:
        w = table()
        gone.extend((weakref.ref(w), weakref.ref(w._slot.frame), weakref.ref(next(iter(w)))))

    model = jv.transform(net)
    variables = model.init(0)
    gone.clear()
    gc.collect()
    gc.disable()
    try:
        model.apply(variables)
        assert [ref() for ref in gone] == [None, None, None]
    finally:
        gc.enable()


def test_initializers_and_regularizers_run_in_tf1s_name_scopes(store: jv.VariableStore) -> None:
    found: list[str] = []

    def note(*_: Any) -> Any:
        found.append(jv.get_current_name_scope())
        return jnp.zeros(2)

    def creator(next_creator: Any, **kwargs: Any) -> Any:
        found.append(jv.get_current_name_scope())
        return next_creator(**kwargs)

    with jv.name_scope("n"), jv.variable_scope("s"):
        jv.get_variable("b", initializer=lambda: note())
        jv.Variable(lambda: note(), name="d")
        jv.get_variable("e", [2], initializer=ZEROS, regularizer=note)
        table("p", regularizer=note)
        jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES)
        with jv.variable_creator_scope(creator):
            jv.get_variable("f", [2])
            jv.Variable(1.0)
    regularizers = ["s/e/Regularizer", "s/p/part_0/Regularizer", "s/p/part_1/Regularizer"]
    assert list(dict.fromkeys(found)) == ["s/b/Initializer", "n/s/d/Initializer", *regularizers, "", "n/s"]

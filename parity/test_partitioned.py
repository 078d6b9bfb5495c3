"""Partitioned variables beside TensorFlow's: slices, names, values, losses, errors, and the checkpoints they share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.python.ops.variable_scope import _PartitionInfo

import jaxvars as jv
from jaxvars.scopes.slicing import PartitionInfo
from parity.live import examples, fresh_graph, tf

SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3)


class Cut(NamedTuple):
    """A partitioner by the name it has in both libraries, and its arguments."""

    name: str
    arguments: dict[str, Any]

    def of(self, library: Any) -> Any:
        """The partitioner itself."""
        return getattr(library, self.name)(**self.arguments)


AXES = st.integers(-3, 2)
CUTS = st.one_of(
    st.builds(
        Cut,
        st.just("fixed_size_partitioner"),
        st.fixed_dictionaries({"num_shards": st.integers(0, 8), "axis": AXES}),
    ),
    st.builds(
        Cut,
        st.just("variable_axis_size_partitioner"),
        st.fixed_dictionaries(
            {"max_shard_bytes": st.integers(1, 200), "axis": AXES, "max_shards": st.sampled_from([None, None, 1, 2, 5])}
        ),
    ),
    st.builds(
        Cut,
        st.just("min_max_variable_partitioner"),
        st.fixed_dictionaries(
            {"max_partitions": st.integers(1, 8), "axis": AXES, "min_slice_size": st.integers(1, 100)}
        ),
    ),
)  # fmt: skip


def answer(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class of its error. TensorFlow's IndexError is an accident of a wrong axis."""
    try:
        return list(call())
    except (ValueError, IndexError, TypeError) as error:
        return TypeError if isinstance(error, TypeError) else ValueError


@examples(150)
@given(CUTS, SHAPES, st.sampled_from(["float32", "float64", "int8", "bool", "bfloat16", "complex64"]))
def test_partitioners_cut_alike(cut: Cut, shape: list[int], dtype: str) -> None:
    theirs = answer(lambda: cut.of(tf)(shape=tf.TensorShape(shape), dtype=tf.as_dtype(dtype)))
    assert answer(lambda: cut.of(jv)(shape=shape, dtype=dtype)) == theirs


@examples(60)
@given(
    st.lists(st.integers(0, 4), max_size=3),
    st.lists(st.integers(-1, 4), max_size=3),
    st.lists(st.integers(0, 5), max_size=3),
)
def test_partition_infos_agree(full: list[int], offset: list[int], part: list[int]) -> None:
    def ask(kind: Any) -> Any:
        info = kind(full, offset)
        return [info.full_shape, info.var_offset, info.single_slice_dim(part), info.single_offset(part)]

    assert answer(lambda: ask(PartitionInfo)) == answer(lambda: ask(_PartitionInfo))


# Variables


def iota(library: Any) -> Callable[..., Any]:
    """An initializer that looks at the slice it makes."""

    def initializer(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        start = partition_info and 100 * sum(partition_info.var_offset) + sum(partition_info.full_shape)
        start = start or 7
        values = np.arange(start, start + np.prod(shape)).reshape(shape)
        return tf.constant(values, dtype) if library is tf else jnp.asarray(values, dtype)

    return initializer


def initializers(library: Any, shape: list[int]) -> dict[str, Any]:
    """Initializers whose values are known."""
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return {
        "zeros": library.zeros_initializer(),
        "class": library.ones_initializer,
        "constant": library.constant_initializer(2.5),
        "constants": library.constant_initializer([1, 2, 3]),
        "fitting constants": library.constant_initializer([1, 2], verify_shape=True),
        "identity": tf.initializers.identity(2.0) if library is tf else jv.identity_initializer(2.0),
        "list": values.tolist(),
        "array": values,
        "tensor": tf.constant(values) if library is tf else jnp.asarray(values),
        "ints": tf.constant(values, tf.int32) if library is tf else jnp.asarray(values, "int32"),
        "iota": iota(library),
        "no arguments": lambda: library.zeros([2]) if library is tf else jnp.zeros([2]),
    }


NAMES = st.sampled_from(sorted(initializers(jv, [1])))
PARTITIONS = st.lists(st.sampled_from([1, 1, 1, 2, 3]), min_size=1, max_size=3)


class Request(NamedTuple):
    """One ``get_variable("w", ...)`` in a scope."""

    shape: list[int] | None
    initializer: str | None
    partitions: list[int] | None
    dtype: str | None
    reuse: Any


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[int], list[Request]]:
    """A shape, and calls for variables most of which have it."""
    shape = draw(SHAPES)
    like = st.lists(st.sampled_from([1, 1, 2, 3]), min_size=len(shape), max_size=len(shape))
    call = st.builds(
        Request,
        st.sampled_from([shape, shape, shape, None, [], [7]]),
        st.one_of(NAMES, st.none()),
        st.one_of(like, like, like, PARTITIONS, st.none()),
        st.sampled_from([None, None, None, "float32", "int32"]),
        st.sampled_from([None, None, True, True, "auto"]),
    )
    return shape, draw(st.lists(call, min_size=1, max_size=4))


def told(variable: Any, value: Callable[[Any], Any]) -> list[Any]:
    """Names, shapes, dtype and values of a variable and its slices."""
    parts = list(variable) if hasattr(variable, "_get_partitions") else [variable]
    cut = list(variable._get_partitions()) if len(parts) > 1 or parts[0] is not variable else None
    dtype = np.dtype(getattr(variable.dtype, "as_numpy_dtype", variable.dtype)).name
    return [
        variable.name,
        variable.get_shape().as_list(),
        dtype,
        cut,
        [(p.name, p.get_shape().as_list(), value(p)) for p in parts],
    ]


def outcome(library: Any, shape: list[int], calls: list[Request], value: Callable[[Any], Any]) -> list[Any]:
    """What becomes of the calls, then the collections."""
    results: list[Any] = []
    drawn: dict[str, bool] = {}  # name -> whether its values are random
    for call in calls:
        dtype = tf.as_dtype(call.dtype) if library is tf and call.dtype else call.dtype
        options: dict[str, Any] = {"shape": call.shape, "dtype": dtype}
        if call.initializer is not None:
            options["initializer"] = initializers(library, shape)[call.initializer]
        if call.partitions is not None:
            options["partitioner"] = lambda cut=call.partitions, **_: cut
        reuse = library.AUTO_REUSE if call.reuse == "auto" else call.reuse
        try:
            with library.variable_scope("s", reuse=reuse, regularizer=lambda v: library_sum(library, v)):
                found = library.get_variable("w", **options)
            is_drawn = drawn.setdefault(found.name, call.initializer is None)
            results.append(told(found, (lambda _: None) if is_drawn else value))
        except (ValueError, TypeError) as error:
            results.append(TypeError if isinstance(error, TypeError) else ValueError)
            if not drawn:
                return results  # TensorFlow may have made a slice before it raised; jaxvars made nothing
    losses = [loss.name if library is tf else None for loss in library.get_collection("regularization_losses")]
    return [results, [v.name for v in library.trainable_variables()], len(losses)]


def library_sum(library: Any, variable: Any) -> Any:
    return tf.reduce_sum(tf.cast(variable, tf.float32)) if library is tf else jnp.sum(variable)


def is_lenient(calls: list[Request]) -> bool:
    """Whether TensorFlow cuts or converts a value silently that does not fit, or finds an error with a slice half made.

    jaxvars refuses all of that before anything is made.
    """
    values = {"list", "array"}
    if any(call.initializer in values and (call.shape == [7] or call.dtype == "int32") for call in calls):
        return True
    pairs = [zip(call.shape or (), call.partitions or (), strict=False) for call in calls]
    return any(count > size for pair in pairs for size, count in pair)


@examples(150)
@given(requests())
def test_variables_are_cut_named_filled_and_shared_alike(request: tuple[list[int], list[Request]]) -> None:
    shape, calls = request
    if is_lenient(calls):
        return
    with fresh_graph() as session:
        made: dict[str, Any] = {}

        def value(part: Any) -> Any:
            if part.name not in made:
                session.run(part.initializer)
                made[part.name] = np.asarray(session.run(part)).tolist()
            return made[part.name]

        theirs = outcome(tf, shape, calls, value)
    with jv.VariableStore(0, tf1_op_names=True):
        ours = outcome(jv, shape, calls, lambda part: np.asarray(part).tolist())
    assert ours == theirs


@examples(15)
@given(st.sampled_from(["glorot_uniform", "he_uniform", "lecun_uniform"]), st.integers(0, 1), st.integers(2, 6))
def test_scaling_initializers_see_the_fans_of_the_whole(name: str, axis: int, slices: int) -> None:
    shape = [60, 40]
    with fresh_graph(seed=1) as session:
        initializer = getattr(tf.initializers, name)()
        w = tf.get_variable("w", shape, initializer=initializer, partitioner=tf.fixed_size_partitioner(slices, axis))
        session.run(tf.global_variables_initializer())
        theirs = [np.asarray(part) for part in session.run(list(w))]
    with jv.VariableStore(0):
        partitioner = jv.fixed_size_partitioner(slices, axis)
        ours = list(
            map(
                np.asarray,
                jv.get_variable("w", shape, initializer=getattr(jv.initializers, name)(), partitioner=partitioner),
            )
        )
    assert [part.shape for part in ours] == [part.shape for part in theirs]
    for mine, its in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.abs(mine).max(), np.abs(its).max(), rtol=0.05)
        np.testing.assert_allclose(mine.std(), its.std(), rtol=0.12)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("name", ["random_normal", "glorot_uniform", "orthogonal", "truncated_normal"])
def test_slices_are_alike_where_tensorflows_are(name: str, seed: int | None) -> None:
    with fresh_graph() as session:
        initializer = getattr(tf.initializers, name)(seed=seed)
        w = tf.get_variable("w", [6, 3], initializer=initializer, partitioner=tf.fixed_size_partitioner(2))
        session.run(tf.global_variables_initializer())
        first, second = session.run(list(w))
    with jv.VariableStore(0):
        initializer = getattr(jv.initializers, name)(seed=seed)
        w = jv.get_variable("w", [6, 3], initializer=initializer, partitioner=jv.fixed_size_partitioner(2))
        ours = [np.asarray(part) for part in w]
    assert np.array_equal(*ours) == np.array_equal(first, second) == (seed is not None)
    orthonormal = [np.allclose(part.T @ part, np.eye(3), atol=1e-4) for part in (*ours, first)]
    assert orthonormal == [name == "orthogonal"] * 3


# Training and checkpoints


def test_constraints_and_losses_of_slices_through_a_step() -> None:
    values = np.arange(1.0, 11.0, dtype=np.float32).reshape(5, 2)
    with fresh_graph() as session:
        w = tf.get_variable(
            "w", [5, 2], initializer=tf.constant(values), partitioner=tf.fixed_size_partitioner(3),
            regularizer=lambda v: tf.reduce_max(v), constraint=lambda v: v / tf.reduce_sum(v),
        )  # fmt: skip
        loss = tf.reduce_sum(w.as_tensor() ** 2) + tf.losses.get_regularization_loss()
        step = tf.train.MomentumOptimizer(0.01, 0.9).minimize(loss)
        session.run(tf.global_variables_initializer())
        losses = []
        for _ in range(3):
            losses.append(session.run(loss))
            session.run(step)
        expected = session.run(w.as_tensor())

    def net() -> Any:
        w = jv.get_variable(
            "w", [5, 2], initializer=jnp.asarray(values), partitioner=jv.fixed_size_partitioner(3),
            regularizer=jnp.max, constraint=lambda v: v / jnp.sum(v),
        )  # fmt: skip
        return jnp.sum(w**2) + jv.losses.get_regularization_loss()

    model = jv.transform(net)
    optimizer = jv.train.MomentumOptimizer(0.01, 0.9)
    variables = optimizer.init(model.init(0))
    for loss in losses:
        np.testing.assert_allclose(model(variables), loss, rtol=1e-5)
        variables = optimizer.apply_gradients(jv.grad(model)(variables), variables)
    np.testing.assert_allclose(variables["w"], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], tuple[str, np.ndarray[Any, Any]]]:
    """A trained table, cut along an axis into a number of slices and saved by TensorFlow: path and value."""
    made: dict[tuple[int, int], tuple[str, np.ndarray[Any, Any]]] = {}
    for axis, slices in itertools.product((0, 1), (1, 2, 3)):
        with fresh_graph() as session:
            with tf.variable_scope("net", partitioner=tf.fixed_size_partitioner(slices, axis)):
                w = tf.get_variable("w", [5, 4], initializer=tf.constant(np.arange(20, dtype=np.float32).reshape(5, 4)))
            loss = tf.reduce_sum(w.as_tensor() ** 2)
            step = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
            session.run(tf.global_variables_initializer())
            session.run(step)
            folder = tmp_path_factory.mktemp(f"axis_{axis}_{slices}")
            path = tf.train.Saver().save(session, str(folder / "model.ckpt"))
            made[axis, slices] = path, session.run(w.as_tensor())
    return made


@pytest.mark.parametrize("ours", [None, 1, 2, 4])
def test_tensorflows_slices_restore_into_any_others(checkpoints: Any, ours: int | None) -> None:
    partitioner = ours and jv.fixed_size_partitioner(ours)
    handles: list[Any] = []

    def net() -> Any:
        with jv.variable_scope("net", partitioner=partitioner):
            handles.append(jv.get_variable("w", [5, 4], initializer=jv.zeros_initializer()))
            return handles[-1].read_value(), [part.read_value() for part in (handles[-1] if ours else [])]

    model = jv.transform(net)
    variables = jv.train.MomentumOptimizer(0.1, 0.9).init(model.init(0))
    assert sorted(variables) == ["net/w", "net/w/Momentum"]
    for path, expected in checkpoints.values():
        assert dict(jv.train.list_variables(path)) == {"net/w": [5, 4], "net/w/Momentum": [5, 4]}
        for saver in (jv.train.Saver(), jv.train.Saver(list(handles[0]) if ours else handles[:1])):
            restored = saver.restore(variables, path)
            whole, parts = model(restored)
            np.testing.assert_array_equal(whole, expected)
            if ours:
                np.testing.assert_array_equal(np.concatenate(parts), expected)
        np.testing.assert_allclose(
            jv.train.Saver().restore(variables, path)["net/w/Momentum"], 2 * np.arange(20).reshape(5, 4)
        )


def test_an_assignment_map_takes_slices(checkpoints: Any, tmp_path: Path) -> None:
    path, expected = checkpoints[0, 3]
    handles: list[Any] = []
    model = jv.transform(
        lambda: handles.append(jv.get_variable("mine", [5, 4], partitioner=jv.fixed_size_partitioner(2)))
    )
    variables = model.init(0)
    for target in ("mine", handles[0], list(handles[0])):
        restored = jv.checkpoint.restore(path, variables, assignment_map={"net/w": target})
        np.testing.assert_array_equal(restored["mine"], expected)

"""Assignments, scatters and counting do what TensorFlow's do; so do the questions about variables, and its files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from parity.live import examples, fresh_graph, tf

Step = tuple[Any, ...]
SHAPES = [(), (3,), (4, 2), (2, 3, 2)]
NUMBERS = {
    "float32": st.integers(-8, 8).map(lambda n: n / 4),
    "int32": st.integers(-9, 9),
    "uint8": st.integers(0, 9),
    "bool": st.booleans(),
}


@st.composite
def values(draw: st.DrawFn, shape: tuple[int, ...], dtype: str, nonzero: bool = False) -> np.ndarray:
    """An array of numbers that every order of additions keeps exact."""
    numbers = NUMBERS[dtype].map(lambda n: n or 1) if nonzero else NUMBERS[dtype]
    size = int(np.prod(shape))
    return np.array(draw(st.lists(numbers, min_size=size, max_size=size)), dtype).reshape(shape)


@st.composite
def assignments(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> Step:
    method = draw(st.sampled_from(["assign", "assign_add", "assign_sub"]))
    wrong = draw(st.integers(0, 9))
    if wrong == 0:  # another shape
        return method, draw(values(draw(st.sampled_from([s for s in SHAPES if s != shape])), dtype)).tolist()
    if wrong == 1 and dtype in ("int32", "uint8"):  # fractions
        return method, np.full(shape, 0.5).tolist()
    if wrong == 2 and dtype == "bool":
        return method, np.full(shape, 1).tolist()
    value = draw(values(shape, dtype))
    return method, draw(st.sampled_from([value, value.tolist()]))


@st.composite
def scatters(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> Step:
    # jaxvars takes minima of every number, TensorFlow not of uint8.
    extremes = ["min", "max"] if dtype != "uint8" else []
    method = "scatter_" + draw(st.sampled_from(["update", "add", "sub", "mul", "div", *extremes]))
    rows = shape[0]
    indices_shape = draw(st.sampled_from([(), (1,), (2,), (3,), (2, 2), (0,)]))
    highest = rows if draw(st.integers(0, 9)) == 0 else rows - 1
    size = int(np.prod(indices_shape))
    indices = np.array(draw(st.lists(st.integers(0, highest), min_size=size, max_size=size)), np.int32)
    wrong = draw(st.integers(0, 9))
    updates_shape = (*indices_shape, *shape[1:])
    if wrong == 0:
        updates_shape = draw(st.sampled_from([(), (2,), (*updates_shape, 1)]))
    updates = draw(values(updates_shape, dtype, nonzero=method == "scatter_div"))
    if wrong == 1 and size:
        indices = indices - 1
    return method, indices.reshape(indices_shape), updates


@st.composite
def scatters_of_points(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> Step:
    method = "scatter_nd_" + draw(st.sampled_from(["update", "add", "sub"]))
    depth = draw(st.integers(1, len(shape)))
    count = draw(st.integers(1, 3))
    over = draw(st.integers(0, 11)) == 0
    points = [[draw(st.integers(0, size if over else size - 1)) for size in shape[:depth]] for _ in range(count)]
    updates = draw(values((count, *shape[depth:]), dtype))
    return method, np.array(points, np.int32), updates


@st.composite
def programs(draw: st.DrawFn) -> tuple[np.ndarray, list[Step]]:
    """A first value, and what is done to it."""
    dtype = draw(st.sampled_from(["float32", "float32", "int32", "uint8", "bool"]))
    shape = draw(st.sampled_from(SHAPES if dtype != "bool" else SHAPES[:2]))
    kinds = [assignments(shape, dtype)]
    if dtype != "bool" and shape:
        kinds += [scatters(shape, dtype), scatters(shape, dtype), scatters_of_points(shape, dtype)]
    if dtype == "int32":
        kinds.append(st.tuples(st.just("count_up_to"), st.integers(-2, 9)))
    return draw(values(shape, dtype)), draw(st.lists(st.one_of(kinds), min_size=1, max_size=4))


def by_tensorflow(first: np.ndarray, steps: list[Step]) -> list[Any]:
    """The value after each step, up to the first error."""
    with fresh_graph() as session:
        variable = tf.get_variable("v", initializer=first)
        session.run(variable.initializer)
        found: list[Any] = []
        for method, *arguments in steps:
            try:
                if method.startswith("scatter"):
                    op = getattr(tf, method)(variable, *arguments)
                else:
                    op = getattr(variable, method)(*arguments)
                session.run(op)
            except Exception as error:
                return [*found, error]
            found.append(session.run(variable))
        return found


def by_handle(first: np.ndarray, steps: list[Step]) -> list[Any]:
    with jv.VariableStore(rng=0):
        variable = jv.get_variable("v", initializer=first)
        found: list[Any] = []
        for method, *arguments in steps:
            before = np.asarray(variable.value)
            try:
                getattr(variable, method)(*arguments)
            except Exception as error:
                np.testing.assert_array_equal(variable.value, before)
                return [*found, error]
            found.append(np.asarray(variable.value))
        return found


def by_function(first: np.ndarray, steps: list[Step]) -> list[Any]:
    variables = jv.Variables({"v": first})
    found: list[Any] = []
    for method, *arguments in steps:
        try:
            variables = getattr(jv, method)(variables, "v", *arguments)
        except Exception as error:
            return [*found, error]
        found.append(np.asarray(variables["v"]))
    return found


def check_same_error(theirs: Any, ours: Any) -> None:
    assert isinstance(ours, Exception), f"TensorFlow: {theirs!r}"
    if isinstance(theirs, tf.errors.OutOfRangeError):
        assert isinstance(ours, jv.errors.OutOfRangeError)
    else:
        kind = TypeError if isinstance(theirs, TypeError) else ValueError
        assert isinstance(ours, kind), f"TensorFlow: {theirs!r}, jaxvars: {ours!r}"


def check_same_course(theirs: list[Any], ours: list[Any]) -> None:
    for left, right in zip(theirs, ours, strict=False):
        if isinstance(left, Exception):
            check_same_error(left, right)
            continue
        assert not isinstance(right, Exception), f"jaxvars: {right!r}"
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        # Quotients and products round alike; only sums are kept exact by the choice of numbers.
        np.testing.assert_allclose(right, left, rtol=1e-6, atol=0)
    assert len(theirs) == len(ours)


@pytest.mark.parametrize("how", [by_handle, by_function])
@examples(250)
@given(programs())
def test_assignments_and_scatters(how: Any, program: tuple[np.ndarray, list[Step]]) -> None:
    first, steps = program
    check_same_course(by_tensorflow(first, steps), how(first, steps))


# Questions about variables

KEYS = ["w", "a/w", "a/b", "ab/w", "a/deep/w", "c"]
COLLECTIONS = [None, ["variables"], ["mine"], ["mine", "variables"], ["local_variables"], ["local_variables", "mine"]]


@st.composite
def nets(draw: st.DrawFn) -> list[tuple[str, list[str] | None, bool, bool]]:
    """Variables: key, collections, trainable, initialized."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=5, unique=True))
    return [(key, draw(st.sampled_from(COLLECTIONS)), draw(st.booleans()), draw(st.booleans())) for key in keys]


def build(api: Any, net: list[tuple[str, list[str] | None, bool, bool]]) -> list[Any]:
    made = []
    for key, collections, trainable, _ in net:
        scope, _, name = key.rpartition("/")
        with api.variable_scope(scope or api.get_variable_scope()):
            made.append(api.get_variable(name, [2], collections=collections, trainable=trainable))
    return made


@examples(120)
@given(nets(), st.sampled_from(["", "a", "a/", "a/deep", "c", "x", ".*b"]))
def test_collections_and_what_is_uninitialized(net: Any, scope: str) -> None:
    done = [key for key, *_, initialized in net if initialized]
    specs = jv.transform(lambda: build(jv, net) and None).specs()
    variables = jv.variables_initializer(specs, 0, done)
    with fresh_graph() as session:
        made = build(tf, net)
        session.run([variable.initializer for variable, row in zip(made, net, strict=True) if row[3]])
        left = [name.decode() for name in session.run(tf.report_uninitialized_variables())]
        assert list(dict.fromkeys(left)) == list(jv.report_uninitialized_variables(variables))
        for variable, (key, *_) in zip(made, net, strict=True):
            assert session.run(tf.is_variable_initialized(variable)) == jv.is_variable_initialized(variables, key)
        for key in ("variables", "trainable_variables", "local_variables", "mine"):
            theirs = sorted(item.op.name for item in tf.get_collection(key))
            assert sorted(variables.collection(key)) == theirs
            ours: list[str] = []

            def look(key: str = key, ours: list[str] = ours) -> None:
                build(jv, net)
                ours[:] = [item.op.name for item in jv.get_collection(key, scope)]

            jv.transform(look).specs()
            assert ours == [item.op.name for item in tf.get_collection(key, scope)]
        session.run(tf.global_variables_initializer())
        left = [name.decode() for name in session.run(tf.report_uninitialized_variables())]
        everything = jv.global_variables_initializer(variables, 0)
        assert list(dict.fromkeys(left)) == list(jv.report_uninitialized_variables(everything))


# TensorFlow's files

DTYPES = ["float32", "float32", "int32", "bool", "float16", "uint8", "int8", "int64"]


@st.composite
def files(draw: st.DrawFn) -> list[tuple[str, str | None, np.ndarray]]:
    """Variables of a file: key, another name in the file, value."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))
    rows = []
    for key in keys:
        shape = draw(st.sampled_from([(), (3,), (2, 3), (0, 2)]))
        numbers = draw(st.lists(st.integers(0, 9), min_size=6, max_size=6))
        dtype = tf.as_dtype(draw(st.sampled_from(DTYPES))).as_numpy_dtype
        value = np.resize(np.array(numbers, np.float64), shape).astype(dtype)
        rows.append((key, draw(st.sampled_from([None, f"other/{key}"])), value))
    return rows


@examples(80)
@given(files(), st.sampled_from([None, 0, 7, 1234567]), st.sampled_from(["V1", "V2", "V2"]))
def test_checkpoints(rows: Any, step: int | None, version: str) -> None:
    with fresh_graph() as session, tempfile.TemporaryDirectory() as folder:
        made = {}
        for key, other, value in rows:
            with tf.variable_scope(key.rpartition("/")[0] or tf.get_variable_scope()):
                made[other or key] = tf.get_variable(key.rpartition("/")[2], initializer=value)
        session.run(tf.global_variables_initializer())
        if any(value.dtype.name not in ("float32", "int32") for _, _, value in rows):
            version = "V2"  # the older format knows few types
        saver = tf.train.Saver(made, write_version=getattr(tf.train.SaverDef, version))
        path = saver.save(session, str(Path(folder) / "model.ckpt"), global_step=step)
        assert jv.train.latest_checkpoint(folder) == path == tf.train.latest_checkpoint(folder)
        listed = [(name, list(shape)) for name, shape in tf.train.list_variables(path)]
        assert [(name, list(shape)) for name, shape in jv.train.list_variables(path)] == listed
        for name, _ in listed:
            left, right = tf.train.load_variable(path, name), np.asarray(jv.train.load_variable(path, name))
            assert (left.dtype, left.shape) == (right.dtype, right.shape)
            np.testing.assert_array_equal(left, right)
        narrow = {"int64": "int32"}  # without 64 bits in JAX a value that fits is narrowed
        into = jv.Variables({key: np.zeros(v.shape, narrow.get(v.dtype.name, v.dtype)) for key, _, v in rows})
        saver = jv.train.Saver({other or key: key for key, other, _ in rows})
        restored = saver.restore(into, path)
        for key, _, value in rows:
            np.testing.assert_array_equal(np.asarray(restored[key]), value)
            assert restored[key].dtype == into[key].dtype

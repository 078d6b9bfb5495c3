"""Checkpoints that jaxvars writes are TensorFlow's own: the same bytes, loaded by everything that loads one there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from jaxvars.checkpoint.formats.bundle_writer import save_bundle
from jaxvars.checkpoint.formats.outgoing import Outgoing
from jaxvars.checkpoint.formats.tensor_bundle import TensorBundle
from jaxvars.spec import VariableSpec
from parity.live import examples, fresh_graph, tf

FILES = (".index", ".data-00000-of-00001")
DTYPES = [
    np.dtype(kind)
    for kind in (
        *("bool", "complex64", "complex128", "float16", "float32", "float64", "object"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *(ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn),
    )
]
# Of other types TensorFlow itself puts no slices together.
CUT = ("bool", "complex64", "complex128", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
NAMES = st.text("abcz_/.-0é\x00", min_size=1, max_size=8).filter(lambda name: name[0] != "\0")


class Tensor(NamedTuple):
    """One tensor, and into how many slices it is cut along which axis."""

    value: np.ndarray
    partition: tuple[int, int] | None


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    seed = draw(st.integers(0, 2**16))
    value = any_values(dtype, shape, np.random.default_rng(seed))
    axis = draw(st.integers(0, 2))
    cut = dtype.name in CUT and axis < len(shape) and 0 not in shape and draw(st.booleans())
    return Tensor(value, (axis, draw(st.integers(1, shape[axis]))) if cut else None)


def any_values(dtype: np.dtype, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values of any bits, NaN included."""
    count = int(np.prod(shape))
    if dtype == np.dtype(object):
        flat = np.empty(count, object)
        flat[:] = [rng.bytes(int(rng.choice([0, 1, 5, 200]))) for _ in range(count)]
        return flat.reshape(shape)
    if dtype == np.dtype(bool):
        return rng.integers(0, 2, shape).astype(bool)
    return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype).reshape(shape).copy()


def same(found: Any, expected: np.ndarray) -> None:
    found = np.asarray(found, object if expected.dtype == object else None)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.tolist() == expected.tolist() if expected.dtype == object else found.tobytes() == expected.tobytes()


def write(given: Mapping[str, Tensor], prefix: str) -> None:
    """As jaxvars writes them."""
    items = [Outgoing(VariableSpec(k, v.shape, v.dtype, partition=cut), v) for k, (v, cut) in given.items()]
    save_bundle(items, prefix)


def pieces(value: np.ndarray, partition: tuple[int, int] | None) -> Iterator[tuple[str, np.ndarray]]:
    """The slices as TensorFlow's own partitioner cuts them, with what SaveV2 is told about each."""
    if partition is None:
        yield "", value
        return
    axis, count = partition
    start = 0
    for part in np.array_split(value, count, axis):
        extents = [f"0,{dim}" for dim in value.shape]
        extents[axis] = f"{start},{part.shape[axis]}"
        start += part.shape[axis]
        yield f"{' '.join(map(str, value.shape))} {':'.join(extents)}", part


def tf_type(dtype: np.dtype) -> Any:
    return tf.string if dtype == np.dtype(object) else tf.as_dtype(dtype)


def write_theirs(given: Mapping[str, Tensor], prefix: str) -> None:
    """As TensorFlow's operation writes them."""
    rows = [(name, *piece) for name in sorted(given, key=str.encode) for piece in pieces(*given[name])]
    with fresh_graph() as session:
        places = [tf.placeholder(tf_type(value.dtype), value.shape) for _, _, value in rows]
        op = tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=[name.encode() for name, _, _ in rows],
            shape_and_slices=[where for _, where, _ in rows],
            tensors=places,
        )
        session.run(op, {place: value for place, (_, _, value) in zip(places, rows, strict=True)})


def restored(prefix: str, given: Mapping[str, Tensor]) -> list[Any]:
    """What TensorFlow's operation reads."""
    with fresh_graph() as session:
        read = tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=[name.encode() for name in given],
            shape_and_slices=[""] * len(given),
            dtypes=[tf_type(tensor.value.dtype) for tensor in given.values()],
        )
        return session.run(read)


@examples(150)
@given(st.dictionaries(NAMES, tensors(), min_size=1, max_size=6))
def test_files_are_those_that_tensorflow_writes(given: dict[str, Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = f"{folder}/ours", f"{folder}/theirs"
        write(given, ours)
        write_theirs(given, theirs)
        for suffix in FILES:
            assert Path(ours + suffix).read_bytes() == Path(theirs + suffix).read_bytes()
        bundle = TensorBundle(theirs)
        assert set(bundle.tensors) == set(given)
        for name, found in zip(given, restored(ours, given), strict=True):
            same(found, given[name].value)
            same(bundle.read(name), given[name].value)


@examples(40)
@given(st.dictionaries(NAMES, tensors(), min_size=1, max_size=6))
def test_the_checkpoint_reader_lists_and_loads_them(given: dict[str, Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(given, f"{folder}/m")
        reader = tf.train.load_checkpoint(f"{folder}/m")
        assert reader.get_variable_to_shape_map() == {name: list(t.value.shape) for name, t in given.items()}
        assert reader.get_variable_to_dtype_map() == {name: tf_type(t.value.dtype) for name, t in given.items()}
        for name, tensor in given.items():
            same(reader.get_tensor(name), tensor.value)


def test_an_index_of_many_blocks_is_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = {rng.bytes(int(rng.integers(200, 400))).hex() for _ in range(1200)}
    given = {name: Tensor(np.full(i % 3, i, np.float32), None) for i, name in enumerate(sorted(names))}
    write(given, str(tmp_path / "ours"))
    write_theirs(given, str(tmp_path / "theirs"))
    assert (tmp_path / "ours.index").stat().st_size > 2 * 262_144
    for suffix in FILES:
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


def saved_into(prefix: str, build: Any) -> dict[str, np.ndarray]:
    """Restore a checkpoint into the variables that `build` makes, with TensorFlow's Saver."""
    with fresh_graph() as session:
        build()
        saver = tf.train.Saver()
        saver.restore(session, prefix)
        found = {}
        for variable in tf.global_variables():
            info = variable._get_save_slice_info()
            name = variable.op.name if info is None else info.full_name
            found.setdefault(name, []).append((info, session.run(variable)))
        return {name: join(parts) for name, parts in found.items()}


def join(parts: list[tuple[Any, np.ndarray]]) -> np.ndarray:
    info, value = parts[0]
    if info is None:
        return value
    whole = np.empty(info.full_shape, value.dtype)
    for info, value in parts:
        whole[tuple(slice(o, o + n) for o, n in zip(info.var_offset, info.var_shape, strict=True))] = value
    return whole


@pytest.mark.parametrize("resource", [False, True])
def test_a_saver_restores_a_state(tmp_path: Path, resource: bool) -> None:
    state = jv.Variables(
        {
            "net/w": jnp.arange(12.0).reshape(4, 3),
            "net/b": jnp.arange(3, dtype="bfloat16"),
            "net/mask": jnp.array([True, False]),
            "half": jnp.float16(1.5),
            "count": jnp.uint8(7),
            "global_step": jnp.int32(1000),
        }
    )
    path = jv.checkpoint.save(state, tmp_path / "model.ckpt-1000", format="tf")

    def build() -> None:
        for name, value in state.items():
            if name != "global_step":
                tf.get_variable(name, value.shape, tf.as_dtype(value.dtype), tf.zeros_initializer())
        tf.train.get_or_create_global_step()

    with tf.Graph().as_default(), tf.variable_scope("", use_resource=resource):
        found = saved_into(path, lambda: build())
    assert found.pop("global_step") == np.int64(1000)
    assert set(found) == set(state) - {"global_step"}
    for name, value in found.items():
        same(value, np.asarray(state[name]))


def test_strings_are_restored_into_a_variable_of_strings(tmp_path: Path) -> None:
    text = np.array([b"a", b"", b"\xff\x00"], object)
    write({"text": Tensor(text, None)}, str(tmp_path / "m"))
    found = saved_into(str(tmp_path / "m"), lambda: tf.Variable(tf.constant(["", "", ""]), name="text"))
    same(found["text"], text)


@examples(40)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 1), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_partitioned_variables_are_restored_however_they_are_cut(
    rows: int, columns: int, axis: int, cut: int, other: int, into_axis: bool
) -> None:
    def net(partitioner: Any = None) -> Any:
        with jv.variable_scope("net", partitioner=partitioner):
            return jv.get_variable("emb", [rows, columns], initializer=jv.zeros_initializer())

    shape = (rows, columns)
    cut, other = min(cut, shape[axis]), min(other, shape[int(into_axis)])
    with tempfile.TemporaryDirectory() as folder:
        state = jv.transform(net).init(0, jv.fixed_size_partitioner(cut, axis))
        state = state.replace({"net/emb": np.arange(rows * columns, dtype=np.float32).reshape(shape)})
        path = jv.checkpoint.save(state, f"{folder}/m", format="tf")
        slices = [key for key in TensorBundle(path)._by_key if key.startswith(b"\0")]
        assert len(slices) == (cut if cut > 1 else 0)
        for partitioner in (
            None,
            tf.fixed_size_partitioner(cut, axis),
            tf.fixed_size_partitioner(other, int(into_axis)),
        ):

            def build(partitioner: Any = partitioner) -> None:
                with tf.variable_scope("net", partitioner=partitioner):
                    tf.get_variable("emb", shape)

            same(saved_into(path, build)["net/emb"], np.asarray(state["net/emb"]))


def test_a_checkpoint_saved_over_another_is_read_whatever_its_files_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no hard links")

    monkeypatch.setattr(os, "link", refuse)
    for number, name in enumerate(["data-00000-of-00001", "data-00000-of-00002", "data-00000-of-00001"]):
        write({"w": Tensor(np.full(3, number, np.float32), None)}, str(tmp_path / "m"))
        assert sorted(os.listdir(tmp_path)) == [f"m.{name}", "m.index"]
        found = saved_into(str(tmp_path / "m"), lambda: tf.get_variable("w", [3]))
        same(found["w"], np.full(3, number, np.float32))
        assert tf.train.checkpoint_exists(str(tmp_path / "m"))
        same(tf.train.load_variable(str(tmp_path / "m"), "w"), np.full(3, number, np.float32))


# Graphs.


class Declared(NamedTuple):
    """A variable of a graph."""

    scope: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    resource: bool
    collections: tuple[str, ...]
    slices: int


DECLARED = st.lists(
    st.builds(
        Declared,
        st.sampled_from(["", "a", "a/b"]),
        st.lists(st.integers(1, 4), max_size=3).map(tuple),
        st.sampled_from(["float32", "float32", "bfloat16", "int32", "int64", "bool"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([(), (), ("mine",), ("model_variables",), ("model_variables", "mine")]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=5,
)


def declare(declared: list[Declared]) -> None:
    for number, made in enumerate(declared):
        cut = tf.fixed_size_partitioner(made.slices) if made.slices > 1 and made.shape else None
        with tf.variable_scope(made.scope or tf.get_variable_scope()):
            variable = tf.get_variable(
                f"v{number}",
                made.shape,
                tf.as_dtype(made.dtype),
                tf.zeros_initializer(),
                trainable=made.trainable,
                use_resource=made.resource,
                collections=[tf.GraphKeys.GLOBAL_VARIABLES, *made.collections],
                partitioner=cut,
            )
        if made.dtype == "float32" and made.trainable and cut is None:
            tf.train.ExponentialMovingAverage(0.9, name=f"avg{number}").apply([variable])
    tf.train.create_global_step()
    tf.get_variable("seen", [2], collections=[tf.GraphKeys.LOCAL_VARIABLES], trainable=False)


def described(session: Any) -> list[Any]:
    """What the graph has: whole names, shapes, dtypes, flags, collections, in order."""
    rows: dict[str, Any] = {}
    trainable = tf.trainable_variables()
    keys = session.graph.get_all_collection_keys()
    named = [key for key in keys if "variable" in key or key in ("mine", "global_step")]
    for variable in tf.global_variables():
        info = variable._get_save_slice_info()
        name = variable.op.name if info is None else info.full_name
        shape = tuple(variable.shape.as_list() if info is None else info.full_shape)
        dtype = np.dtype(variable.dtype.base_dtype.as_numpy_dtype)
        collections = {key for key in named if any(v is variable for v in tf.get_collection(key))}
        rows.setdefault(name, (name, shape, dtype, any(v is variable for v in trainable), collections))
    return list(rows.values())


@examples(40)
@given(DECLARED)
def test_graph_variables_are_those_of_the_graph(declared: list[Declared]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with fresh_graph() as session:
            declare(declared)
            session.run(tf.global_variables_initializer())
            wanted = described(session)
            path = tf.train.Saver().save(session, f"{folder}/model.ckpt", global_step=7)
            exported = f"{folder}/exported"
            builder = tf.saved_model.Builder(exported)
            builder.add_meta_graph_and_variables(session, ["serve"])
            builder.save()
        for place in (path, exported):
            found = jv.checkpoint.graph_variables(place)
            specs = [found.variable_specs[key] for key in found._layout.creation_order]
            rows = [(s.key, s.shape, np.dtype(s.file_dtype or s.dtype), s.trainable, set(s.collections)) for s in specs]
            assert rows == wanted
            state = jv.checkpoint.restore(place, found)
            assert not state.uninitialized
        assert list(jv.checkpoint.graph_variables(path, local=True).collection("local_variables")) == ["seen"]

"""`jv.checkpoint.graph_variables`: what `.meta` files say of variables, from messages made here and by TensorFlow."""

from __future__ import annotations

import bundle_writer as writer
import jax
import numpy as np
import pytest
from bundle_writer import message, number
from hypothesis import given
from hypothesis import strategies as st
from shared import shared_path

import jaxvars as jv
from jaxvars.checkpoint.formats.graph_def import meta_graph_variables, saved_model_variables
from jaxvars.checkpoint.graph_variables import graph_variables
from jaxvars.errors import DataLossError, InvalidArgumentError, NotFoundError
from jaxvars.spec import Hole

X64 = jax.config.jax_enable_x64
GLOBAL, TRAINABLE, LOCAL = "variables", "trainable_variables", "local_variables"


def attribute(name, value):
    return message(5, message(1, name.encode()) + message(2, value))


def node(name, shape=(), dtype=1, op="VariableV2", more=b""):
    """A NodeDef; `shape` None for an unknown rank, or the bytes of the shape."""
    if shape is None:
        shape = number(3, 1)
    elif not isinstance(shape, bytes):
        shape = b"".join(message(2, number(1, dim)) for dim in shape)
    attributes = attribute("dtype", number(6, dtype)) + attribute("shape", message(7, shape)) + more
    return message(1, message(1, name.encode()) + message(2, op.encode()) + attributes)


def variable(name, part=b""):
    """A VariableDef."""
    return message(1, f"{name}:0".encode()) + message(2, f"{name}/Assign".encode()) + part + number(7, 1)


def part(full_name, full, start, length):
    """The SaveSliceInfoDef of a VariableDef."""
    packed = [b"".join(map(writer.varint, numbers)) for numbers in (full, start, length)]
    return message(4, message(1, full_name.encode()) + b"".join(message(i + 2, n) for i, n in enumerate(packed)))


def collection(name, entries, kind=2):
    return message(4, message(1, name.encode()) + message(2, message(kind, b"".join(message(1, e) for e in entries))))


def meta(nodes, collections, **kinds):
    graph = message(2, b"".join(nodes))
    lists = [collection(name, entries, kinds.get(name, 2)) for name, entries in collections.items()]
    return message(1, message(4, b"serve")) + graph + b"".join(lists)


NOISE = [
    message(1, message(1, b"x") + message(2, b"Placeholder") + attribute("dtype", number(6, 1))),
    message(1, message(1, b"w/read") + message(2, b"Identity") + message(3, b"VariableV2")),
]
NODES = [
    *NOISE,
    node("w", (2, 3)),
    node("step", (), 9, "VarHandleOp"),
    node("emb/part_0", (4, 3)),
    node("emb/part_1", (3, 3)),
    node("total", (), 1, "Variable"),
    node("b", (3,), 101),
    node("text", (2,), 7),
    node("half", (0, 2), 14),
]
EMB = [variable(f"emb/part_{i}", part("emb", (7, 3), (4 * i, 0), (4 - i, 3))) for i in range(2)]
COLLECTIONS = {
    "a_first": [b"w:0", b"x:0", b"no such thing"],
    "global_step": [variable("step")],
    LOCAL: [variable("total")],
    "moving_average_variables": [variable("w")],
    "queue_runners": [b"\xff\xff not a variable"],
    "train_op": [b"Adam"],
    TRAINABLE: [variable("w"), *EMB, variable("total")],
    GLOBAL: [variable(name) for name in ("w", "step")] + EMB + [variable(name) for name in ("text", "half", "b")],
}
META = meta(NODES, COLLECTIONS, a_first=1, train_op=1)


@pytest.fixture
def meta_file(tmp_path):
    path = tmp_path / "model.ckpt-7.meta"
    path.write_bytes(META)
    return path


def test_names_shapes_dtypes_flags_collections_and_order_are_the_graphs(meta_file):
    found = graph_variables(meta_file)
    specs = found.variable_specs
    assert [(name, specs[name].shape, str(specs[name].dtype)) for name in found._layout.creation_order] == [
        ("w", (2, 3), "float32"),
        ("step", (), "int64" if X64 else "int32"),
        ("emb", (7, 3), "float32"),
        ("half", (0, 2), "bfloat16"),
        ("b", (3,), "float32"),
    ]
    assert [name for name, spec in specs.items() if spec.trainable] == ["emb", "w"]
    assert specs["w"].collections == (GLOBAL, TRAINABLE, "a_first", "moving_average_variables")
    assert specs["step"].collections == (GLOBAL, "global_step") and specs["b"].collections == (GLOBAL,)
    assert specs["step"].file_dtype == ("" if X64 else "int64") and specs["w"].file_dtype == ""
    assert specs["emb"].partition == (0, 2) and specs["w"].partition is None
    assert all(isinstance(value, Hole) for value in found.values())


def test_local_variables_come_when_asked_for(meta_file):
    found = graph_variables(meta_file, local=True)
    assert "total" in found and found.variable_specs["total"].collections == (LOCAL, TRAINABLE)
    assert list(found | graph_variables(meta_file)) == list(found)


def test_the_files_that_mean_the_graph(tmp_path, meta_file):
    tensors = {"w": np.ones((2, 3), np.float32)}
    writer.write_bundle(tmp_path / "model.ckpt-7", tensors)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    (tmp_path / "model.pb").write_bytes(META)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(number(1, 1) + message(2, META))
    paths = (meta_file, tmp_path / "model.ckpt-7", tmp_path / "model.ckpt-7.index", tmp_path, tmp_path / "model.pb")
    for path in (*paths, saved, saved / "saved_model.pb"):
        assert list(graph_variables(path)) == ["b", "emb", "half", "step", "w"]


def test_a_v1_checkpoint_leads_to_its_graph(tmp_path):
    path = tmp_path / "model.ckpt"
    writer.write_v1(path, {"w": np.ones(2, np.float32)})
    with pytest.raises(NotFoundError, match=r"model.ckpt.meta does not exist.*variable_specs"):
        graph_variables(path)
    (tmp_path / "model.ckpt.meta").write_bytes(META)
    assert "emb" in graph_variables(path)


def test_a_checkpoint_is_restored_whole(tmp_path, meta_file):
    tensors = {
        "w": np.ones((2, 3), np.float32),
        "step": np.array(2**40 if X64 else 7),
        "emb": np.arange(21, dtype=np.float32).reshape(7, 3),
        "half": np.zeros((0, 2), jax.numpy.bfloat16),
        "b": np.arange(3, dtype=np.float32),
    }
    rows = [[(0, 4), (0, 3)], [(4, 3), (0, 3)]]
    path = writer.write_bundle(tmp_path / "model.ckpt-7", {k: v for k, v in tensors.items() if k != "half"})
    (tmp_path / "model.ckpt-7.meta").write_bytes(meta(NODES, COLLECTIONS | {GLOBAL: COLLECTIONS[GLOBAL][:4]}))
    for partitioned in ({}, {"emb": rows}):
        writer.write_bundle(path, {k: v for k, v in tensors.items() if k != "half"}, partitioned=partitioned)
        state = jv.checkpoint.restore(path, graph_variables(path))
        assert not state.uninitialized and list(state) == ["emb", "step", "w"]
        assert all(np.array_equal(state[name], tensors[name]) for name in state)


def test_graphs_of_several_tags_are_taken_together():
    other = meta([node("w", (9,)), node("v", (1,))], {GLOBAL: [variable("w"), variable("v")]})
    found = saved_model_variables(message(2, META) + message(2, other), "x")
    assert {v.name: v.shape for v in found}["w"] == (2, 3) and found[-1].name == "v"


def test_old_graphs_list_names_only():
    found = meta_graph_variables(meta([node("w", (2,))], {GLOBAL: [b"w:0"]}, variables=1), "x")
    assert [(v.name, v.shape, v.collections) for v in found] == [("w", (2,), [GLOBAL])]


def slices(full, *extents):
    rows = list(zip(*extents, strict=True))
    return [
        variable(f"p{i}", part("p", full, [start for start, _ in row], [size for _, size in row]))
        for i, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("entries", "partition"),
    [
        (slices((2, 7), [(0, 2), (0, 2)], [(0, 4), (4, 3)]), (1, 2)),
        (slices((2, 7), [(0, 2), (0, 2)], [(4, 3), (0, 4)]), (1, 2)),
        (slices((2, 7), [(0, 2), (0, 2)], [(0, 3), (3, 4)]), None),
        (slices((4,), [(0, 4)]), None),
        (slices((2, 2), [(0, 1), (0, 1), (1, 1), (1, 1)], [(0, 1), (1, 1), (0, 1), (1, 1)]), None),
    ],
)
def test_slices_make_one_variable(tmp_path, entries, partition):
    nodes = [node(f"p{i}", (1,)) for i in range(len(entries))]
    (tmp_path / "m.meta").write_bytes(meta(nodes, {GLOBAL: entries}))
    spec = graph_variables(tmp_path / "m").variable_specs["p"]
    assert spec.partition == partition and len(spec.shape) in (1, 2)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (slices((2, 7), [(0, 2), (0, 2)], [(0, 4), (4, 2)]), "do not cover"),
        (slices((4,), [(0, 3), (1, 1)]), "overlap"),
        (slices((4,), [(0, 3), (3, 3)]), "outside"),
        ([*slices((4,), [(0, 2)]), *slices((5,), [(0, 2)])], "do not cover"),
        ([*slices((4,), [(0, 2)]), variable("p1", part("p", (5,), [0], [3]))], "disagree"),
        ([variable("p0", part("p", (4,), [0, 0], [4]))], "does not fit"),
        ([variable("p0", part("p", (1 << 50,), [0], [4]))], "does not fit"),
        ([variable("p0", part("p", (4,), [-1], [4]))], "does not fit"),
        ([*slices((4,), [(0, 4)]), variable("p")], "a variable and a partitioned one"),
    ],
)
def test_slices_that_do_not_fit_are_refused(tmp_path, entries, text):
    (tmp_path / "m.meta").write_bytes(meta([node(n, (1,)) for n in ("p", "p0", "p1")], {GLOBAL: entries}))
    with pytest.raises((DataLossError, InvalidArgumentError), match=text):
        graph_variables(tmp_path / "m")


OPEN = meta(
    [node("w", None), node("v", message(2, number(1, -1)) + message(2, number(1, 2))), node("u", (1,))],
    {GLOBAL: [variable(name) for name in "wvu"]},
)


def test_open_shapes_come_from_the_checkpoint(tmp_path):
    (tmp_path / "m.meta").write_bytes(OPEN)
    with pytest.raises(InvalidArgumentError, match=r"shapes of w, v open .validate_shape=False.*beside"):
        graph_variables(tmp_path / "m.meta")
    for wrong in ((3, 3), (2,)):
        writer.write_bundle(tmp_path / "m", {"w": np.zeros((4, 5)), "v": np.zeros(wrong)})
        with pytest.raises(InvalidArgumentError, match="shapes of v open"):
            graph_variables(tmp_path / "m")
    writer.write_bundle(tmp_path / "m", {"w": np.zeros((4, 5)), "v": np.zeros((3, 2)), "u": np.zeros(1)})
    assert {k: v.shape for k, v in graph_variables(tmp_path / "m").items()} == {"w": (4, 5), "v": (3, 2), "u": (1,)}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x89jaxvars-graph\r\n" + bytes(60), r"import_meta_graph\('.*m.meta'\).specs"),
        (b"meta_info_def {\n  stripped_op_list {\n", "text form"),
        (b"# comment\ngraph_def { node {", "text form"),
        (meta(NODES, {}), r"lists no variables.*aliases"),
        (meta([node("total")], {LOCAL: [variable("total")]}), "lists no variables"),
        (b"", "lists no variables"),
    ],
)
def test_other_files_say_what_they_are(tmp_path, content, text):
    (tmp_path / "m.meta").write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=text):
        graph_variables(tmp_path / "m.meta")


def test_what_is_not_there_is_said(tmp_path):
    writer.write_bundle(tmp_path / "m", {"w": np.zeros(2)})
    for name in ("m", "m.index", "n", "n.meta"):
        with pytest.raises(NotFoundError, match=r"\.meta does not exist"):
            graph_variables(tmp_path / name)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/saved_model.pbtxt").write_text("saved_model_schema_version: 1\n")
    with pytest.raises(InvalidArgumentError, match="text form"):
        graph_variables(tmp_path / "saved")


@pytest.mark.parametrize(
    "data",
    [
        META[:-1],
        meta(NOISE, {GLOBAL: [variable("w")]}),
        meta([node("w")], {GLOBAL: [b""]}),
        meta([node("w")], {GLOBAL: [b"\xff"]}),
        meta([node("w", (1 << 50,))], {GLOBAL: [variable("w")]}),
        meta([node("w", [1] * 300)], {GLOBAL: [variable("w")]}),
        meta([node("w", (), 99)], {GLOBAL: [variable("w")]}),
        message(2, message(1, message(5, number(1, 3)) + b"Variable")),
    ],
)
def test_damaged_graphs_raise(data):
    with pytest.raises(DataLossError, match="it"):
        meta_graph_variables(data, "it")


@given(st.data())
def test_any_damage_gives_variables_or_our_error(data):
    changed = bytearray(META)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        meta_graph_variables(bytes(changed), "it")
    except DataLossError as error:
        assert "it" in str(error)


@pytest.mark.parametrize("name", ["s_tf1_saver_v2", "s_tf1_saver_v1", "s_tf1_saver_sharded"])
def test_graphs_that_tensorflow_wrote(name):
    path = shared_path("checkpoints") / "synth" / name
    found = graph_variables(path)
    assert {k: v.shape for k, v in found.items()} == {
        k: tensor.shape for k, tensor in jv.checkpoint.open(path).tensors.items()
    }
    assert list(found.trainable) == ["b", "net/emb"]
    assert list(found.collection("moving_average_variables")) == ["b"]
    assert list(found.collection("global_step")) == ["global_step"]
    assert found.variable_specs["net/emb"].partition == found.variable_specs["net/emb/Adam"].partition == (0, 3)
    state = jv.checkpoint.restore(path, found)
    assert not state.uninitialized
    assert state._layout == found._layout

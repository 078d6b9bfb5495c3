"""TF2 checkpoints under TF1 names: the object graph, made by hand and as real checkpoints have it."""

from __future__ import annotations

import bundle_writer as writer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared import shared_path

from jaxvars import checkpoint
from jaxvars.checkpoint.formats.object_graph import GRAPH_KEY, tf1_names
from jaxvars.checkpoint.formats.tensor_bundle import TensorBundle
from jaxvars.errors import DataLossError

VALUE = ".ATTRIBUTES/VARIABLE_VALUE"


def attribute(full_name, key, name="VARIABLE_VALUE"):
    texts = writer.message(1, name.encode()) + writer.message(2, full_name.encode()) + writer.message(3, key.encode())
    return writer.message(2, texts)


def child(number, name):
    return writer.message(1, writer.number(1, number) + writer.message(2, name.encode()))


def slot(variable, name, node):
    return writer.message(3, writer.number(1, variable) + writer.message(2, name.encode()) + writer.number(3, node))


def graph(*nodes):
    return b"".join(writer.message(1, node) for node in nodes)


KERNEL, BIAS, M, V = (f"{path}/{VALUE}" for path in ("net/kernel", "net/bias", "net/kernel/.S/adam/m", "adam/v"))
GRAPH = graph(
    child(1, "net") + child(2, "adam"),
    child(3, "kernel") + child(4, "bias"),
    child(3, "x") + slot(3, "m", 5) + slot(3, "v", 6) + slot(7, "m", 5),
    attribute("dense/kernel", KERNEL) + attribute("config", "net/.ATTRIBUTES/OBJECT_CONFIG_JSON", "OBJECT_CONFIG_JSON"),
    attribute("dense/bias", BIAS),
    attribute("", M),
    attribute("Adam/dense/kernel/v", V),
    b"",
)
TENSORS = {name: np.full(2, i, np.float32) for i, name in enumerate((KERNEL, BIAS, M, V))}


def bundle(tmp_path, data, tensors=TENSORS):
    values = tensors | {GRAPH_KEY: writer.strings(data).reshape(()) if isinstance(data, bytes) else data}
    return TensorBundle(writer.write_bundle(tmp_path / "m", values))


def test_variables_are_also_known_by_their_tf1_names(tmp_path):
    wanted = {"dense/kernel": KERNEL, "dense/bias": BIAS, "dense/kernel/m": M, "Adam/dense/kernel/v": V}
    assert tf1_names(GRAPH, "graph") == wanted
    source = bundle(tmp_path, GRAPH)
    assert source.aliases == wanted and set(source.tensors) == {*TENSORS, GRAPH_KEY}
    with checkpoint.open(tmp_path / "m") as reader:
        assert reader.get_tensor("dense/kernel:0").tolist() == [0, 0]


def test_a_name_of_several_variables_is_not_offered():
    twice = graph(attribute("Variable", "a"), attribute("Variable", "b"), attribute("c", "c"), attribute("c", "c"))
    assert tf1_names(twice, "graph") == {"c": "c"}
    clash = graph(attribute("w/m", "a"), attribute("w", "b"), attribute("", "c"), slot(1, "m", 2))
    assert tf1_names(clash, "graph") == {"w": "b"}


def test_names_without_tensor_and_names_of_tensors_are_left_out(tmp_path):
    data = graph(attribute("gone", "no such key"), attribute("w", "x"), attribute("x", "w"), attribute("ok", "w"))
    tensors = {"w": np.zeros(1), "x": np.ones(1)}
    assert bundle(tmp_path, data, tensors).aliases == {"ok": "w"}


def test_a_checkpoint_without_graph_has_no_aliases(tmp_path):
    assert TensorBundle(writer.write_bundle(tmp_path / "m", TENSORS)).aliases == {}


def test_a_graph_whose_data_file_is_missing_gives_no_aliases(tmp_path):
    prefix = writer.write_bundle(tmp_path / "m", {GRAPH_KEY: writer.strings(GRAPH), "z": np.zeros(2)}, shards=2)
    (tmp_path / "m.data-00000-of-00002").unlink()
    source = TensorBundle(prefix)
    assert source.aliases == {} and source.read("z").tolist() == [0, 0]


@pytest.mark.parametrize(
    "data",
    [
        GRAPH[:-1],
        b"\xff\xff\xff",
        graph(slot(0, "m", 9)),
        graph(slot(9, "m", 0)),
        writer.number(1, 5),
        graph(writer.number(2, 5)),
        graph(writer.message(2, writer.number(1, 5))),
        graph(writer.message(3, writer.message(1, b"x"))),
        np.zeros(3),
        writer.strings([GRAPH, GRAPH]),
    ],
)
def test_a_damaged_graph_raises_when_names_are_asked_for_and_not_before(tmp_path, data):
    source = bundle(tmp_path, data)
    assert source.read(KERNEL).tolist() == [0, 0]
    with pytest.raises(DataLossError, match=GRAPH_KEY):
        _ = source.aliases
    assert dict(source.read_many([BIAS]))[BIAS].tolist() == [1, 1]


@given(st.binary(max_size=80))
def test_any_bytes_give_names_or_our_error(data):
    try:
        tf1_names(data, "the graph")
    except DataLossError as error:
        assert "the graph is damaged" in str(error)


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("real/og_keras_lso_ckpt/ckpt", 10, {"sequential/dense/kernel": f"layer_with_weights-0/kernel/{VALUE}"}),
        ("real/og_ranking_bertlite/bert_lite_tf2.ckpt", 24, {"save_counter": f"save_counter/{VALUE}"}),
        ("real/og_gp_phi/variables", 1, {"chain_of_shift_of_softplus": None}),
        ("real/og_tf2jax_cubed/variables", 0, {}),
        ("real/og_tfx_keras/variables", 0, {}),
        ("synth/s_og/ckpt-1", 2, {"weird/name": f"model/w/{VALUE}"}),
    ],
)
def test_real_checkpoints_under_tf1_names(name, count, some):
    path = shared_path("checkpoints") / name
    with checkpoint.open(path) as reader:
        aliases = TensorBundle(str(path)).aliases
        assert len(aliases) == count
        for alias, key in some.items():
            assert alias in aliases and key in (None, aliases[alias])
        for alias, key in aliases.items():
            assert np.array_equal(reader.get_tensor(alias), reader.get_tensor(key))

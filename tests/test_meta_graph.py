"""Exported models: written, read and run without the model's Python code; damaged and other files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import DataLossError, FailedPreconditionError, InvalidArgumentError, InvalidTypeError, NotFoundError
from jaxvars.train import MetaGraph
from jaxvars.train.graph_file import _HEAD, _MAGIC

BATCH = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 3"), "float32")
X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


def _net(inputs: dict[str, Any], noise: float = 0.0, training: bool = False, note: Any = None) -> Any:
    w = jv.get_variable("w", [3, 2], initializer=jv.ones_initializer())
    seen = jv.get_local_variable("seen", [], "int32", initializer=jv.zeros_initializer())
    if training:
        jax.lax.scan(lambda carry, _: (carry, seen.assign_add(1)), None, jnp.arange(3))
    y = inputs["x"] @ w
    if noise:
        y = y + noise * jax.random.normal(jv.next_rng_key(), [1, 2])
    return {"y": y, "rest": (inputs["x"].sum(), None)}


MODEL = jv.transform(_net)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with writes and random keys, any batch size, and a state larger than its own."""
    target = tmp_path_factory.mktemp("graph") / "run" / "model.ckpt.meta"
    variables = MODEL.specs({"x": BATCH}).freeze("w") | jv.Variables({"global_step": jnp.int32(7)})
    written = jv.train.export_meta_graph(
        target, MODEL, {"x": BATCH}, 0.5, training=True, note=object, variables=variables, vjp_order=1
    )
    assert written == str(target) and os.listdir(target.parent) == ["model.ckpt.meta"]
    return written


@pytest.fixture(scope="module")
def graph(path: str) -> MetaGraph:
    return jv.train.import_meta_graph(path)


def _state() -> jv.Variables:
    return MODEL.init(0, {"x": X}) | jv.Variables({"global_step": jnp.int32(7)})


def test_specs_are_those_of_the_state(graph: MetaGraph) -> None:
    specs = graph.specs.variable_specs
    assert list(graph.specs) == ["global_step", "seen", "w"] and len(graph.specs.uninitialized) == 3
    assert specs["w"].shape == (3, 2) and not specs["w"].trainable
    assert specs["seen"].collections == ("local_variables",) and specs["seen"].dtype == "int32"
    assert graph.platforms == ("cpu",)
    assert repr(graph).startswith("MetaGraph(3 variables; inputs['x']: float32[batch,3], noise = 0.5, ")


def test_apply_is_the_models_own(graph: MetaGraph) -> None:
    variables = _state()
    expected, after = MODEL.apply(variables, {"x": X}, 0.5, training=True, rng=3)
    for call in (graph.apply, jax.jit(graph.apply)):
        out, ours = call(variables, {"x": X}, rng=jax.random.key(3))
        np.testing.assert_array_equal(out["y"], expected["y"])
        assert out["rest"][0] == 15 and out["rest"][1] is None
        assert ours["seen"] == after["seen"] == 3 and ours["global_step"] == 7
        assert ours._layout is variables._layout
    # What was fixed may be said again; another batch size needs no other file.
    out, _ = graph.apply(variables, inputs={"x": X[:1]}, noise=0.5, training=True, rng=3)
    assert out["y"].shape == (1, 2)


def test_init_makes_the_same_bits_and_keeps_what_is_there(graph: MetaGraph) -> None:
    made, expected = graph.init(5), MODEL.init(5, {"x": X})
    assert list(made) == list(expected) == ["seen", "w"]
    np.testing.assert_array_equal(made["w"], expected["w"])
    kept = graph.init(5, graph.specs | {"w": jnp.full([3, 2], 7.0, "float32")})
    assert kept["w"][0, 0] == 7 and kept["seen"] == 0 and kept.uninitialized == ("global_step",)
    with pytest.raises(InvalidArgumentError, match="w: is int32"):
        graph.init(5, jv.Variables({"w": jnp.zeros(2, "int32")}))


def test_initial_values_that_depend_on_arguments(tmp_path: Path) -> None:
    model = jv.transform(lambda x: jv.get_variable("w", initializer=x.mean()) + 1)
    graph = jv.train.import_meta_graph(jv.train.export_meta_graph(tmp_path / "m", model, X))
    with pytest.raises(InvalidArgumentError, match="depend on its arguments"):
        graph.init(0)
    assert graph.apply(jv.Variables({"w": jnp.float32(1)}), X)[0] == 2


def test_gradients_as_often_as_asked(graph: MetaGraph) -> None:
    slope = jax.grad(lambda w: graph.apply(_state().replace({"w": w}), {"x": X}, rng=0)[0]["y"].sum())
    np.testing.assert_allclose(slope(jnp.ones([3, 2])), np.repeat(X.sum(0)[:, None], 2, axis=1))


@pytest.mark.parametrize(
    ("arguments", "named", "kind", "text"),
    [
        ([{"x": X}], {"training": False}, InvalidArgumentError, "training = True was fixed"),
        (
            [{"x": X}],
            {"note": 3},
            InvalidArgumentError,
            "note = .* was fixed when the model was exported; leave it out",
        ),
        ([{"x": X, "z": X}], {}, InvalidArgumentError, r"inputs\['z'\]: the exported model has no such argument"),
        ([], {}, InvalidArgumentError, r"inputs\['x'\]: float32\[batch,3\] is missing"),
        ([{"x": X[0]}], {}, InvalidArgumentError, r"was given shape \[3\]"),
        ([{"x": X[:, :2]}], {}, InvalidArgumentError, r"was given shape \[2, 2\]"),
        ([{"x": X.astype(np.int32)}], {}, InvalidTypeError, "was given dtype int32"),
    ],
)
def test_other_arguments(graph: MetaGraph, arguments: Any, named: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        graph.apply(_state(), *arguments, rng=0, **named)
    assert "It takes inputs['x']: float32[batch,3], noise = 0.5" in str(caught.value)


def test_other_variables_and_keys(graph: MetaGraph) -> None:
    with pytest.raises(InvalidArgumentError, match=r"rng=0\)"):
        graph.apply(_state(), {"x": X})
    with pytest.raises(InvalidArgumentError, match="takes random keys of 'threefry2x32', got one of 'rbg'"):
        graph.apply(_state(), {"x": X}, rng=jax.random.key(0, impl="rbg"))
    with pytest.raises(NotFoundError, match=r"seen: missing\n    w: missing\nWrite:\n.*graph.saver.restore"):
        graph.apply(jv.Variables({"v": 1.0}), {"x": X}, rng=0)
    with pytest.raises(
        InvalidArgumentError, match=r"seen: uninitialized\n    w: is int32\[2\], and the model takes float32"
    ):
        graph.apply(graph.specs | {"w": jnp.zeros(2, "int32")}, {"x": X}, rng=0)
    with pytest.raises(InvalidTypeError, match="Variables come first"):
        graph.apply({"w": 1}, {"x": X}, rng=0)  # pyright: ignore[reportArgumentType]


def test_variables_of_several_devices(tmp_path: Path) -> None:
    def net() -> Any:
        with jv.device("/cpu:1"):
            a = jv.get_variable("a", [2], initializer=jv.ones_initializer())
        with jv.device("/cpu:2"):
            b = jv.get_variable("b", [2], initializer=jv.ones_initializer())
        return a.assign_add(b)

    model = jv.transform(net)
    graph = jv.train.import_meta_graph(jv.train.export_meta_graph(tmp_path / "m", model))
    assert graph.specs.variable_specs["a"].placement == "/device:CPU:1"
    checkpoint = jv.checkpoint.save(model.init(0), str(tmp_path / "c"))
    variables = graph.saver.restore(graph.specs, checkpoint)
    out, after = graph.apply(variables)
    assert out.tolist() == after["a"].tolist() == [2, 2]
    assert [after[name].devices() for name in "ab"] == [{jax.devices()[1]}, {jax.devices()[2]}]


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    target = tmp_path / "m"
    with pytest.raises(InvalidTypeError, match=r"jv.transform\(fn\)"):
        jv.train.export_meta_graph(target, _net, {"x": X})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError, match="cannot be exported"):
        jv.train.export_meta_graph(target, jv.transform(lambda: "a string"))
    with pytest.raises(InvalidArgumentError, match="w: has shape"):
        jv.train.export_meta_graph(target, MODEL, {"x": X}, variables=jv.Variables({"w": jnp.ones(3)}))
    with pytest.raises(FailedPreconditionError, match=r"Cannot write .*m: "):
        jv.train.export_meta_graph(__file__ + "/m", jv.transform(lambda: jv.get_variable("w", []) + 1))
    assert not target.exists()


def _rewritten(whole: bytes, change: Any) -> bytes:
    """The file with another description, its sizes and checksum right."""
    text_size = _HEAD.unpack(whole[: _HEAD.size])[2]
    text = whole[_HEAD.size : _HEAD.size + text_size]
    program = whole[_HEAD.size + text_size :]
    text, program = change(text, program)
    digest = hashlib.sha256(text + program).digest()
    return _HEAD.pack(_MAGIC, 1, len(text), len(program), digest) + text + program


def _without_variables(text: bytes, program: bytes) -> tuple[bytes, bytes]:
    return json.dumps({**json.loads(text), "variables": [{}]}).encode(), program


def _too_long(text: bytes, program: bytes) -> tuple[bytes, bytes]:
    return json.dumps({**json.loads(text), "programs": {"apply": len(program) + 1}}).encode(), program


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda whole: whole[:-1], DataLossError, "cut off or damaged"),
        (lambda whole: whole + b"x", DataLossError, "cut off or damaged"),
        (lambda whole: whole[:50], DataLossError, "cut off within its head: 50 bytes"),
        (lambda whole: whole[:5], DataLossError, "cut off within its head"),
        (lambda whole: b"", InvalidArgumentError, "no model exported by jaxvars"),
        (lambda whole: b"\n\x1f" + whole, InvalidArgumentError, "TensorFlow's own meta graph"),
        (lambda whole: b"PK" + whole, InvalidArgumentError, "no model exported by jaxvars. Write one"),
        (lambda whole: whole[:16] + b"\x02" + whole[17:], InvalidArgumentError, "has version 2"),
        (lambda whole: whole[:20] + b"\xff" * 8 + whole[28:], DataLossError, "cut off or damaged"),
        (lambda whole: _rewritten(whole, lambda text, program: (b"{", program)), DataLossError, "makes no sense"),
        (lambda whole: _rewritten(whole, _without_variables), DataLossError, "KeyError"),
        (lambda whole: _rewritten(whole, _too_long), DataLossError, "makes no sense"),
        (
            lambda whole: _rewritten(whole, lambda text, program: (text, program[::-1])),
            DataLossError,
            "cannot be read by",
        ),
    ],
)
def test_damaged_and_other_files(path: str, tmp_path: Path, change: Any, kind: Any, text: str) -> None:
    target = tmp_path / "m"
    target.write_bytes(change(Path(path).read_bytes()))
    with pytest.raises(kind, match=text) as caught:
        jv.train.import_meta_graph(target)
    assert str(target) in str(caught.value)


def test_every_flipped_bit_is_found(path: str, tmp_path: Path) -> None:
    whole = Path(path).read_bytes()
    target = tmp_path / "m"
    random = np.random.default_rng(0)
    for position in [*range(_HEAD.size), *random.integers(_HEAD.size, len(whole), 200)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(random.integers(8))
        target.write_bytes(damaged)
        with pytest.raises((DataLossError, InvalidArgumentError)):
            jv.train.import_meta_graph(target)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no exported model at .*absent"):
        jv.train.import_meta_graph(tmp_path / "absent")
    with pytest.raises(InvalidArgumentError, match="is a folder"):
        jv.train.import_meta_graph(tmp_path)


@pytest.mark.slow
def test_in_a_process_without_the_models_code(path: str, tmp_path: Path) -> None:
    checkpoint = jv.train.Saver().save(_state(), tmp_path / "model.ckpt")
    code = f"""
        import jax.numpy as jnp, jaxvars as jv
        graph = jv.train.import_meta_graph({path!r})
        variables = graph.saver.restore(graph.specs, {checkpoint!r})
        variables = graph.init(0, variables)  # a local variable is not saved
        out, variables = graph.apply(variables, {{"x": jnp.ones([4, 3])}}, rng=1)
        print(out["y"].shape, int(variables["seen"]), int(variables["global_step"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(jv.__file__).parent.parent)},
    )
    assert done.stdout.split("\n")[0] == "(4, 2) 3 7", done.stderr

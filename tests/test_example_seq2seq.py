"""`examples.seq2seq`: the names of TensorFlow and of NMT's own logs, and the program once, cut short."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from examples import seq2seq
from examples.seq2seq import Config

GOLDEN = Path(__file__).resolve().parent / "golden" / "zoo" / "seq2seq.txt"
IDS, LENGTHS = jax.ShapeDtypeStruct((2, 3), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.int32)
# What tensorflow/nmt printed in 2019 for --attention=scaled_luong --num_layers=2 --num_units=128 and two vocabularies.
LOG = """
embeddings/encoder/embedding_encoder:0, (56491, 128)
embeddings/decoder/embedding_decoder:0, (50041, 128)
dynamic_seq2seq/encoder/rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel:0, (256, 512)
dynamic_seq2seq/encoder/rnn/multi_rnn_cell/cell_0/basic_lstm_cell/bias:0, (512,)
dynamic_seq2seq/encoder/rnn/multi_rnn_cell/cell_1/basic_lstm_cell/kernel:0, (256, 512)
dynamic_seq2seq/encoder/rnn/multi_rnn_cell/cell_1/basic_lstm_cell/bias:0, (512,)
dynamic_seq2seq/decoder/memory_layer/kernel:0, (128, 128)
dynamic_seq2seq/decoder/attention/multi_rnn_cell/cell_0/basic_lstm_cell/kernel:0, (384, 512)
dynamic_seq2seq/decoder/attention/multi_rnn_cell/cell_0/basic_lstm_cell/bias:0, (512,)
dynamic_seq2seq/decoder/attention/multi_rnn_cell/cell_1/basic_lstm_cell/kernel:0, (256, 512)
dynamic_seq2seq/decoder/attention/multi_rnn_cell/cell_1/basic_lstm_cell/bias:0, (512,)
dynamic_seq2seq/decoder/attention/luong_attention/attention_g:0, ()
dynamic_seq2seq/decoder/attention/attention_layer/kernel:0, (256, 128)
dynamic_seq2seq/decoder/output_projection/kernel:0, (128, 50041)
"""


def in_order(variables: jv.Variables) -> list[tuple[str, jv.VariableSpec]]:
    specs = variables.variable_specs
    return [(key, specs[key]) for key in variables._layout.creation_order]


def test_variables_are_tensorflows() -> None:
    lines = [
        f"{key} [{','.join(map(str, spec.shape))}] {np.dtype(spec.dtype).name} {'trainable' if spec.trainable else '-'}"
        for key, spec in in_order(seq2seq.evaluation.specs(Config(), IDS, LENGTHS, IDS, LENGTHS))
    ]
    assert lines == GOLDEN.read_text().splitlines()


def test_variables_are_those_that_nmt_listed() -> None:
    config = Config(56491, 50041, 128, encoder_type="uni", attention="scaled_luong", dropout=0.2)
    specs = seq2seq.training.specs(config, IDS, LENGTHS, IDS, LENGTHS, training=True)
    assert [f"{key}:0, {spec.shape}" for key, spec in in_order(specs)] == LOG.strip().splitlines()


@pytest.fixture
def compiled_fast() -> Iterator[None]:
    """Few steps are sooner done slowly than their program is optimized."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.slow
def test_half_precision_computes_with_what_is_stored_in_float32(compiled_fast: None) -> None:
    ids, lengths = jnp.array([[3, 4, 0], [5, 0, 0]], jnp.int32), jnp.array([3, 2], jnp.int32)
    full, half = (Config(num_units=4, attention="scaled_luong", dtype=dtype) for dtype in ("float32", "bfloat16"))
    variables = seq2seq.training.init(0, full, ids, lengths, ids, lengths)
    specs = seq2seq.training.specs(half, ids, lengths, ids, lengths)
    assert in_order(specs) == in_order(variables) and {spec.dtype for spec in specs.variable_specs.values()} == {
        np.dtype(np.float32)
    }
    exact, near = (seq2seq.training(variables, config, ids, lengths, ids, lengths) for config in (full, half))
    assert exact != near
    np.testing.assert_allclose(near, exact, rtol=2e-2)


@pytest.mark.slow
def test_a_short_run(compiled_fast: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--steps", "2", "--units", "4", "--batch", "4", "--longest", "3", "--layers", "1"]
    monkeypatch.setattr(
        sys, "argv", ["seq2seq", *sizes, "--encoder", "uni", "--attention", "luong", "--dropout", "0.1"]
    )
    with jax.numpy_rank_promotion("allow"):
        runpy.run_module("examples.seq2seq", run_name="__main__")
    out = capsys.readouterr().out
    assert "dynamic_seq2seq/decoder/attention/attention_layer/kernel" in out and "nan" not in out
    assert "2 steps in" in out

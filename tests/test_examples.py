"""The models of `examples`: TensorFlow's names, shapes and flags, and each program once, cut short.

What TensorFlow computes with them is compared in parity/zoo, where the tables were recorded (tools/).
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import shared_path

import jaxvars as jv
from examples import bert, dcgan, resnet, siamese

GOLDEN = Path(__file__).resolve().parent / "golden" / "zoo"


def struct(*shape: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


IDS = struct(2, 16, dtype="int32")
SPECS = {
    "siamese": lambda: siamese.contrastive.specs(struct(2, 8, 8, 1), struct(2, 8, 8, 1), struct(2)),
    "dcgan": lambda: dcgan.gan.specs(struct(2, dcgan.NOISE), struct(2, 8, 8, 1)),
    "bert_base": lambda: bert.pretraining.specs(bert.BertConfig(), IDS, IDS, IDS, struct(2, 1, dtype="int32")),
    "resnet_v1_50": lambda: resnet.resnet50.specs(struct(1, 224, 224, 3)),
}


def table(variables: jv.Variables) -> list[str]:
    """One line per variable, in order of creation."""
    lines = []
    for key in variables._layout.creation_order:
        spec = variables.variable_specs[key]
        sizes = ",".join(map(str, spec.shape))
        lines.append(f"{key} [{sizes}] {np.dtype(spec.dtype).name} {'trainable' if spec.trainable else '-'}")
    return lines


@pytest.mark.parametrize("name", SPECS)
def test_variables_are_tensorflows(name: str) -> None:
    assert table(SPECS[name]()) == (GOLDEN / f"{name}.txt").read_text().splitlines()


@pytest.fixture
def compiled_fast() -> Iterator[None]:
    """Two steps are sooner done slowly than their program is optimized."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def run(program: str, *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``python -m examples.<program>`` prints."""
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    with jax.numpy_rank_promotion("allow"), pytest.warns(RuntimeWarning, match="sys.modules"):  # it is imported above
        runpy.run_module(f"examples.{program}", run_name="__main__")
    out = capsys.readouterr().out
    assert "nan" not in out
    return out


@pytest.mark.slow
def test_a_short_run_of_dcgan(
    compiled_fast: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run("dcgan", "--steps", "2", "--width", "2", "--batch", "4", monkeypatch=monkeypatch, capsys=capsys)
    assert "discriminator/conv2d_1/kernel" in out
    assert len(out.split("Five drawn digits:\n\n")[1].splitlines()) == 8


@pytest.mark.slow
def test_a_short_run_of_bert(
    compiled_fast: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run("bert", "--steps", "2", "--layers", "1", monkeypatch=monkeypatch, capsys=capsys)
    assert "hidden digits found" in out


@pytest.mark.slow
def test_a_short_run_of_siamese(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = run("siamese", "--steps", "60", monkeypatch=monkeypatch, capsys=capsys)
    losses = [float(line.split()[1]) for line in out.split("loss\n")[1].splitlines()[:11]]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
def test_a_short_run_of_resnet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = run("resnet", "--steps", "30", monkeypatch=monkeypatch, capsys=capsys)
    losses = [float(line.split()[1]) for line in out.split("loss\n")[1].splitlines()[:11]]
    assert losses[-1] < 0.5 * losses[0]


def test_a_step_of_the_small_resnet() -> None:
    """Batch statistics move, and inference then reads them without assigning anything."""
    images, labels = np.zeros([2, 8, 8, 1], np.float32), np.zeros([2], np.int32)
    variables = resnet.small.specs(images, labels)
    regularized = jax.eval_shape(lambda v: jv.losses.regularization_loss(resnet.small, v, images, labels), variables)
    assert regularized.shape == ()
    (loss, logits), after = jax.eval_shape(
        lambda v: resnet.small.apply(v, images, labels, is_training=False), variables
    )
    assert (loss.shape, logits.shape, list(after)) == ((), (2, 10), list(variables))


def test_bert_config_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bert_config.json"
    path.write_text('{"hidden_size": 1024, "num_hidden_layers": 24, "hidden_act": "gelu", "vocab_size": 30522}')
    config = bert.BertConfig.from_json_file(path)
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (1024, 24, 3072)


embed = jax.jit(siamese.embedding)


@pytest.mark.parametrize("name", ["v1_siamese", "v2_siamese"])
def test_a_published_siamese_network_restores_by_its_names(name: str) -> None:
    """Somebody's weights of 2016, trained on MNIST, tell scikit-learn's digits apart; slots restore as well."""
    from sklearn.datasets import load_digits

    path = shared_path(f"checkpoints/real/{name}") / "model.ckpt"
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    drawn = jnp.pad(jax.image.resize(images, (len(images), 20, 20, 1), "linear"), ((0, 0), (4, 4), (4, 4), (0, 0)))
    optimizer = jv.train.MomentumOptimizer(0.01, 0.9, use_nesterov=True)
    state = jv.checkpoint.restore(str(path), optimizer.init(siamese.embedding.specs(drawn)))
    assert len(state) == 20
    variables = state.trainable
    points = np.asarray(embed(variables, drawn))
    known = np.arange(len(points)) % 2 == 0
    found = siamese.accuracy(points[known], digits.target[known], points[~known], digits.target[~known])
    assert found > 0.65

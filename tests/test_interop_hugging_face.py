"""Model folders of Hugging Face, beside what `transformers` computed with them (tools/record_hugging_face.py)."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import flax.linen
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hugging_face_models import GOLDEN, MODELS, recorded
from jax.sharding import NamedSharding, PartitionSpec
from processes import run_processes

import jaxvars as jv
from examples.bert import ACTIVATIONS, BertConfig, encoder
from jaxvars.interop import hugging_face
from jaxvars.interop.hugging_face_roles import ROLES

BERT = MODELS["bert"]


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder, read by the library that wrote them."""
    return {
        name: value
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in safetensors.numpy.load_file(path).items()
    }


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def restored(name: str) -> jv.Variables:
    given, _ = recorded(name)
    return hugging_face.restore(GOLDEN / name, MODELS[name].specs(given), MODELS[name].names)


@pytest.mark.parametrize("name", MODELS)
def test_a_restored_model_answers_as_transformers_does(name: str) -> None:
    given, expected = recorded(name)
    answers = MODELS[name].outputs(restored(name), given)
    assert answers.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(answers[key], value, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", ["bert", "resnet"])
def test_what_was_restored_is_written_byte_for_byte(name: str, tmp_path: Path) -> None:
    variables, names = restored(name), MODELS[name].names
    hugging_face.save(variables, tmp_path, names, config=hugging_face.read_config(GOLDEN / name))
    assert (tmp_path / "model.safetensors").read_bytes() == (GOLDEN / name / "model.safetensors").read_bytes()
    assert hugging_face.read_config(tmp_path) == hugging_face.read_config(GOLDEN / name)


def test_files_in_parts(tmp_path: Path) -> None:
    variables, names = restored("gpt2"), MODELS["gpt2"].names
    hugging_face.save(variables, tmp_path, names, like=GOLDEN / "gpt2", max_shard_bytes=30_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    original = tensors(GOLDEN / "gpt2")
    assert same(tensors(tmp_path), original)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in original.values())
    assert {path.name for path in tmp_path.glob("*.safetensors")} == set(index["weight_map"].values())
    for path in tmp_path.glob("*.safetensors"):
        inside = safetensors.numpy.load_file(path)
        assert sum(value.nbytes for value in inside.values()) <= 30_000
        assert {index["weight_map"][name] for name in inside} == {path.name}
    again = hugging_face.restore(tmp_path, variables, names)
    assert all(np.array_equal(again[key], variables[key]) for key in variables)


def test_a_folder_that_is_saved_again_keeps_only_what_is_new(tmp_path: Path) -> None:
    variables, names = restored("gpt2"), MODELS["gpt2"].names
    hugging_face.save(variables, tmp_path, names, like=GOLDEN / "gpt2", max_shard_bytes=30_000)
    (tmp_path / "notes.md").write_text("mine")
    changed = jv.assign_add(variables, "model/ln_f/b", jnp.ones(32))
    hugging_face.save(changed, tmp_path, names, like=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "notes.md"]
    np.testing.assert_array_equal(
        tensors(tmp_path)["transformer.ln_f.bias"], tensors(GOLDEN / "gpt2")["transformer.ln_f.bias"] + 1
    )


def test_files_without_the_first_module_and_with_old_spellings(tmp_path: Path) -> None:
    def old(name: str) -> str:  # as the first published BERT files
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return name.removeprefix("bert.")

    source = {old(name): v for name, v in tensors(GOLDEN / "bert").items() if name.startswith("bert.")}
    source["embeddings.position_ids"] = np.arange(16)[None]
    (tmp_path / "old").mkdir()
    safetensors.numpy.save_file(source, tmp_path / "old" / "model.safetensors", {"format": "pt"})
    specs = BERT.specs(recorded("bert")[0]).scope("bert")
    variables = hugging_face.restore(tmp_path / "old", specs, hugging_face.BERT)
    full = restored("bert")
    assert not variables.uninitialized
    assert all(np.array_equal(value, full[key]) for key, value in variables.items())
    (tmp_path / "old" / "config.json").write_text("{}")
    (tmp_path / "old" / "vocab.txt").write_text("[PAD]")
    hugging_face.save(variables, tmp_path / "new", hugging_face.BERT, like=tmp_path / "old")
    assert same(tensors(tmp_path / "new"), source)
    assert (tmp_path / "new" / "vocab.txt").read_text() == "[PAD]"


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ({"model_type": "bert", "hidden_act": "gelu"}, "gelu"),  # Hugging Face: erf
        ({"model_type": "bert", "hidden_act": "gelu_new"}, "gelu_new"),
        ({"architectures": ["BertModel"], "hidden_act": "relu"}, "relu"),
        ({"hidden_act": "gelu"}, "gelu_new"),  # Google: the tanh approximation
        ({}, "gelu_new"),
    ],
)
def test_an_activation_is_what_its_author_means(entries: dict[str, Any], wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(entries))
    assert BertConfig.from_json_file(path) == BertConfig(hidden_act=wanted)


def test_the_activation_is_computed() -> None:
    config = BertConfig.from_json_file(GOLDEN / "bert" / "config.json")
    config = dataclasses.replace(config, num_hidden_layers=1)
    ids = jnp.arange(8)[None]
    variables = jv.Variables(jax.tree.map(lambda leaf: leaf * 20, dict(encoder.init(0, config, ids))))
    outs = {name: encoder(variables, dataclasses.replace(config, hidden_act=name), ids).pooled for name in ACTIVATIONS}
    default = encoder(variables, config, ids).pooled
    np.testing.assert_array_equal(default, outs["gelu_new"])
    assert 0 < np.abs(outs["gelu"] - default).max() < np.abs(outs["relu"] - default).max()
    x = np.linspace(-3, 3, 13, dtype=np.float32)
    erf = np.vectorize(math.erf)(x / math.sqrt(2))
    np.testing.assert_allclose(ACTIVATIONS["gelu"](jnp.asarray(x)), x / 2 * (1 + erf), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="hidden_act is one of gelu_new, gelu, relu, not 'swish'"):
        BertConfig(hidden_act="swish")


def test_a_new_head_is_left_as_it_is() -> None:
    specs = BERT.specs(recorded("bert")[0]).scope("bert") | {
        "output_weights": jax.ShapeDtypeStruct((3, 32), jnp.float32)
    }
    with pytest.raises(jv.errors.NotFoundError, match=r"classifier\.weight"):
        hugging_face.restore(GOLDEN / "bert", specs, hugging_face.BERT)
    variables = hugging_face.restore(GOLDEN / "bert", specs, hugging_face.BERT, strict=False)
    assert variables.uninitialized == ("output_weights",)


def test_a_plan_and_its_rules_to_change() -> None:
    specs = BERT.specs(recorded("bert")[0])
    plan = hugging_face.plan(GOLDEN / "bert", specs, hugging_face.BERT)
    assert plan.ok and len(plan.restored) == len(specs) and not plan.unused
    rules = hugging_face.rules(GOLDEN / "bert", specs, hugging_face.BERT)
    variables = jv.checkpoint.restore(GOLDEN / "bert", specs, rules=[("cls/", None), *rules])
    assert variables.uninitialized == specs.scope("cls").uninitialized


def test_half_precision(tmp_path: Path) -> None:
    variables = restored("resnet").astype(jnp.bfloat16)
    names = MODELS["resnet"].names
    hugging_face.save(variables, tmp_path, names, config={})
    assert tensors(tmp_path)["classifier.1.weight"].dtype == jnp.bfloat16
    again = hugging_face.restore(tmp_path, restored("resnet"), names, cast=True)
    assert again["logits/kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(again["logits/kernel"], variables["logits/kernel"].astype(jnp.float32))


def test_a_lone_number(tmp_path: Path) -> None:
    variables = jv.Variables({"logit_scale": 2.5})
    hugging_face.save(variables, tmp_path, config={})
    assert tensors(tmp_path)["logit_scale"].shape == ()
    assert float(hugging_face.restore(tmp_path, variables.replace({"logit_scale": 0.0}))["logit_scale"]) == 2.5


def save_together(folder: str) -> list[float]:
    """What each of two processes does with a kernel of which it holds a half."""
    devices = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    value = np.arange(32, dtype=np.float32).reshape(8, 4)
    spread = NamedSharding(devices, PartitionSpec("x"))
    kernel = jax.make_array_from_callback(value.shape, spread, value.__getitem__)
    path = hugging_face.save(jv.Variables({"fc/kernel": kernel}), folder, config={})
    hole = jv.Variables({"fc/kernel": jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=spread)})
    restored = hugging_face.restore(path, hole)["fc/kernel"]
    for shard in restored.addressable_shards:
        np.testing.assert_array_equal(shard.data, value[shard.index])
    return np.asarray(jv.checkpoint.open(path)["fc.weight"])[:, 0].tolist()


@pytest.mark.slow
def test_two_processes_save_one_folder(tmp_path: Path) -> None:
    assert run_processes(save_together, 2, str(tmp_path / "net")) == [[0.0, 1.0, 2.0, 3.0]] * 2


# -- layouts ---------------------------------------------------------------------------------------------------------

KERNELS = [
    ("kernel", (4,)), ("kernel", (4, 3)), ("kernel", (5, 4, 3)), ("kernel", (5, 3, 2, 4)), ("kernel", (2, 3, 4, 2, 5)),
    ("transposed_kernel", (3, 4)), ("plain_kernel", (3, 4)), ("plain_kernel", (1, 3, 4)),
    ("depthwise_kernel", (3, 2, 4, 2)), ("bias", (3,)), ("embedding", (5, 3)), ("parameter", (1, 1, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("role", "shape"), KERNELS)
def test_layouts_there_and_back(role: str, shape: tuple[int, ...]) -> None:
    value = np.random.default_rng(0).normal(size=shape)
    there, back = ROLES[role].to_torch(shape), ROLES[role].from_torch(shape)
    moved = value if there is None else there(value)
    np.testing.assert_array_equal(moved if back is None else back(moved), value)


def torch_convolution(x: Any, weight: Any, groups: int = 1) -> Any:
    """PyTorch's convolution without padding, by its definition: ``NC...`` and ``OI...``."""
    letters = "DHW"[-(weight.ndim - 2) :]
    numbers = (f"NC{letters}", f"OI{letters}", f"NC{letters}")
    return jax.lax.conv_general_dilated(
        x, weight, [1] * len(letters), "VALID", dimension_numbers=numbers, feature_group_count=groups
    )


@pytest.mark.parametrize(
    ("layer", "rank"), [(jv.layers.conv1d, 1), (jv.layers.conv2d, 2), (jv.layers.conv3d, 3)], ids=["1d", "2d", "3d"]
)
def test_convolutions(layer: Any, rank: int) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(4, 3, *(2, 3, 1)[:rank])).astype(np.float32)
    x = random.normal(size=(2, 3, *(5, 6, 4)[:rank])).astype(np.float32)
    model = jv.transform(lambda x: layer(x, 4, weight.shape[2:], use_bias=False, name="conv"))
    variables = from_torch(model.specs(np.moveaxis(x, 1, -1)), {"conv.weight": weight})
    answer = np.moveaxis(jax.jit(model)(variables, np.moveaxis(x, 1, -1)), -1, 1)
    np.testing.assert_allclose(answer, torch_convolution(x, weight), rtol=1e-5, atol=1e-5)


def test_transposed_convolution() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(3, 4, 2, 3)).astype(np.float32)  # [inputs, outputs, height, width]
    x = random.normal(size=(2, 3, 5, 6)).astype(np.float32)
    model = jv.transform(lambda x: jv.layers.conv2d_transpose(x, 4, (2, 3), use_bias=False, name="up"))
    variables = from_torch(model.specs(x.transpose(0, 2, 3, 1)), {"up.weight": weight})
    answer = np.moveaxis(jax.jit(model)(variables, x.transpose(0, 2, 3, 1)), -1, 1)
    # PyTorch defines it as the gradient of the convolution with the same weight.
    _, pull = jax.vjp(lambda y: torch_convolution(y, weight), jnp.zeros((2, 4, 6, 8), jnp.float32))
    np.testing.assert_allclose(answer, pull(jnp.asarray(x))[0], rtol=1e-5, atol=1e-5)


def test_depthwise_convolution() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(6, 1, 2, 3)).astype(np.float32)  # two filters for each of three channels
    x = random.normal(size=(2, 3, 5, 6)).astype(np.float32)

    def net(x: Any) -> Any:
        kernel = jv.get_variable("depthwise_kernel", [2, 3, 3, 2])
        return jv.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "VALID")

    model = jv.transform(net)
    variables = from_torch(model.specs(x.transpose(0, 2, 3, 1)), {"weight": weight})
    answer = np.moveaxis(jax.jit(model)(variables, x.transpose(0, 2, 3, 1)), -1, 1)
    np.testing.assert_allclose(answer, torch_convolution(x, weight, groups=3), rtol=1e-5, atol=1e-5)


def from_torch(specs: jv.Variables, weights: dict[str, np.ndarray]) -> jv.Variables:
    rules = hugging_face.torch_rules(specs)
    return jv.Variables({rule.pattern: (rule.transform or (lambda x: x))(weights[rule.replacement]) for rule in rules})


# -- Flax ------------------------------------------------------------------------------------------------------------


class FlaxNet(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, ids: Any, images: Any) -> Any:
        words = flax.linen.Embed(7, 4, name="words")(ids)
        x = flax.linen.Conv(4, (3, 3), name="conv")(images)
        x = flax.linen.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")(x)
        x = flax.linen.LayerNorm(epsilon=1e-12, name="scaled")(x.mean([1, 2]) + words)
        return flax.linen.Dense(3, name="head")(x)


def net(ids: Any, images: Any) -> Any:
    words = jv.get_variable("words_embedding", [7, 4]).value[ids]
    x = jv.layers.conv2d(images, 4, 3, padding="same", name="conv")
    x = jv.layers.batch_normalization(x, name="norm")
    x = jv.layers.layer_norm(x.mean([1, 2]) + words, scope="scaled")
    return jv.layers.dense(x, 3, name="head")


@pytest.mark.parametrize("whole", [True, False], ids=["with batch_stats", "params alone"])
def test_a_flax_file(whole: bool, tmp_path: Path) -> None:
    ids, images = jnp.array([1, 5]), jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 3)), jnp.float32)
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(FlaxNet().init, jax.random.key(1), ids, images)
    state = jax.tree.map(lambda x: random.uniform(0.5, 1.5, x.shape).astype(x.dtype), shapes)
    (tmp_path / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(state if whole else state["params"]))
    model = jv.transform(net)
    names = hugging_face.ModelNames(tensors=[("words_embedding", "words", "embedding")])
    variables = hugging_face.restore(tmp_path, model.specs(ids, images), names, strict=whole)
    if whole:
        expected = jax.jit(FlaxNet().apply)(state, ids, images)
        np.testing.assert_allclose(jax.jit(model)(variables, ids, images), expected, rtol=1e-5)
    else:
        assert variables.uninitialized == ("norm/moving_mean", "norm/moving_variance")


def test_flax_names_of_bert() -> None:
    specs = BERT.specs(recorded("bert")[0])
    rules = {rule.pattern: str(rule) for rule in hugging_face.flax_rules(specs, hugging_face.BERT)}
    query = "bert/encoder/layer_1/attention/self/query/kernel"
    assert rules[query] == f'("{query}", "bert/encoder/layer/1/attention/self/query/kernel")'
    next_sentence = "cls/seq_relationship/output_weights"
    assert rules[next_sentence] == f'("{next_sentence}", "cls/seq_relationship/kernel", transpose(1, 0))'
    words = "bert/embeddings/word_embeddings"
    assert rules[words] == f'("{words}", "{words}/embedding")'


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_folders_that_are_none(tmp_path: Path) -> None:
    specs = jv.Variables({"fc/bias": jax.ShapeDtypeStruct((2,), jnp.float32)})
    with pytest.raises(jv.errors.NotFoundError, match="hf download google-bert/bert-base --local-dir"):
        hugging_face.restore("google-bert/bert-base", specs)
    with pytest.raises(jv.errors.NotFoundError, match=r"has none of model\.safetensors"):
        hugging_face.open(tmp_path)
    with pytest.raises(jv.errors.NotFoundError, match=r"has no config\.json"):
        hugging_face.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(jv.errors.DataLossError, match=r"config\.json is damaged"):
        hugging_face.read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(jv.errors.DataLossError, match="holds no dictionary"):
        hugging_face.read_config(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(jv.errors.InvalidArgumentError, match="pickle, which is never loaded"):
        hugging_face.plan(tmp_path, specs)


def test_names_that_do_not_fit() -> None:
    specs = jv.Variables({"fc/kernel": jax.ShapeDtypeStruct((4, 2), jnp.float32)})
    with pytest.raises(jv.errors.InvalidArgumentError, match="no role 'linear'"):
        hugging_face.ModelNames(tensors=[("a", "b", "linear")])
    with pytest.raises(jv.errors.InvalidTypeError, match=r"\(pattern, module, role\)"):
        hugging_face.ModelNames(tensors=[("a", "b")])  # pyright: ignore[reportArgumentType]
    with pytest.raises(jv.errors.NotFoundError, match="conv/"):
        hugging_face.torch_rules(specs, hugging_face.ModelNames(rules=[("conv/", "features/")]))
    with pytest.raises(jv.errors.NotFoundError, match="fc/kernel"):
        hugging_face.restore(GOLDEN / "bert", specs)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    variables = jv.Variables({"fc/kernel": jnp.ones((2, 2)), "fc/bias": jnp.ones(2)})
    target = tmp_path / "net"

    def refused(variables: jv.Variables, error: type[Exception], match: str, **arguments: Any) -> None:
        with pytest.raises(error, match=match):
            hugging_face.save(variables, target, **{"config": {}, **arguments})
        assert not target.exists()

    slots = jv.train.AdamOptimizer(0.1).init(variables)
    refused(slots, jv.errors.InvalidArgumentError, r"fc/bias/Adam_1.*(.|\n)*variables\.select")
    refused(variables, jv.errors.InvalidArgumentError, "what kind of model", config=None)
    same_name = hugging_face.ModelNames(tensors=[(".*", "all", "parameter")])
    refused(variables, jv.errors.InvalidArgumentError, "'all' from fc/kernel, fc/bias", names=same_name)
    refused(variables | {"z": jnp.zeros(2, jnp.int4)}, jv.errors.InvalidArgumentError, r"no type for z \(int4")
    hole = {"h": jax.ShapeDtypeStruct((2,), jnp.float32)}
    refused(variables | hole, jv.errors.FailedPreconditionError, "uninitialized values: h")
    refused(variables, jv.errors.NotFoundError, "no model folder", like=tmp_path / "none")
    refused([variables], jv.errors.InvalidTypeError, "not Variables")  # pyright: ignore[reportArgumentType]


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(GOLDEN / "gpt2", tmp_path / "net")
    before = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}
    real = safetensors.numpy.save_file

    def full(values: Any, path: Path, *rest: Any) -> None:
        if "00002" in path.name:
            raise OSError(28, "No space left on device")
        real(values, path, *rest)

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(jv.errors.FailedPreconditionError, match="No space left"):
        hugging_face.save(
            restored("gpt2"), tmp_path / "net", hugging_face.GPT2, like=GOLDEN / "gpt2", max_shard_bytes=30_000
        )
    assert {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()} == before

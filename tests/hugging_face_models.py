"""Models in jaxvars for the folders of tests/golden/hugging_face, under names of their own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxvars as jv
from examples.bert import BertConfig, pretraining
from jaxvars.interop import hugging_face

GOLDEN = Path(__file__).resolve().parent / "golden" / "hugging_face"
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """One model: how to call it with what `transformers` was given, and what of its result `transformers` returns."""

    model: jv.Model
    names: hugging_face.ModelNames
    arguments: Callable[[Arrays], tuple[Any, ...]]
    answers: Callable[[Any], Arrays]

    def specs(self, given: Arrays) -> jv.Variables:
        return self.model.specs(*self.arguments(given))

    def outputs(self, variables: jv.Variables, given: Arrays) -> Arrays:
        arguments = self.arguments(given)
        return self.answers(jax.jit(lambda variables: self.model(variables, *arguments))(variables))


def recorded(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the model was given, and what it answered."""
    with np.load(GOLDEN / name / "expected.npz") as file:
        both = dict(file)
    return ({key[3:]: v for key, v in both.items() if key[:3] == "in/"},
            {key[4:]: v for key, v in both.items() if key[:4] == "out/"})  # fmt: skip


# -- GPT-2 under the names of OpenAI's program -----------------------------------------------------------------------


def linear(x: jax.Array, units: int, name: str) -> jax.Array:
    with jv.variable_scope(name):
        w = jv.get_variable("w", [1, x.shape[-1], units], initializer=jv.random_normal_initializer(stddev=0.02))
        return jv.nn.bias_add(x @ w[0], jv.get_variable("b", [units], initializer=jv.zeros_initializer()))


def norm(x: jax.Array, name: str) -> jax.Array:
    with jv.variable_scope(name):
        g = jv.get_variable("g", [x.shape[-1]], initializer=jv.ones_initializer())
        b = jv.get_variable("b", [x.shape[-1]], initializer=jv.zeros_initializer())
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return jv.nn.batch_normalization(x, mean, variance, b, g, 1e-5)


def attention(x: jax.Array, heads: int) -> jax.Array:
    batch, length, width = x.shape
    shape = [batch, length, heads, width // heads]
    query, key, value = (part.reshape(shape) for part in jnp.split(linear(x, 3 * width, "c_attn"), 3, axis=-1))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(width // heads)
    scores = jnp.where(jnp.tril(jnp.ones([length, length], bool)), scores, -jnp.inf)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)
    return linear(mixed.reshape(x.shape), width, "c_proj")


def gpt2(tokens: jax.Array, config: dict[str, Any]) -> jax.Array:
    width, heads = config["n_embd"], config["n_head"]
    with jv.variable_scope("model"):
        words = jv.get_variable("wte", [config["vocab_size"], width])
        places = jv.get_variable("wpe", [config["n_positions"], width])
        x = words.value[tokens] + places[None, : tokens.shape[1]]
        for number in range(config["n_layer"]):
            with jv.variable_scope(f"h{number}"):
                y = norm(x, "ln_1")
                with jv.variable_scope("attn"):
                    x = x + attention(y, heads)
                y = norm(x, "ln_2")
                with jv.variable_scope("mlp"):
                    y = jax.nn.gelu(linear(y, 4 * width, "c_fc"), approximate=True)
                    x = x + linear(y, width, "c_proj")
        return norm(x, "ln_f") @ words.value.T


# -- a residual network ----------------------------------------------------------------------------------------------


def convolution(x: jax.Array, filters: int, size: int, stride: int = 1) -> jax.Array:
    x = jnp.pad(x, [(0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)])  # PyTorch's padding
    x = jv.layers.conv2d(x, filters, size, stride, padding="valid", use_bias=False, name="convolution")
    return jv.layers.batch_normalization(x, epsilon=1e-5, name="normalization")


def block(x: jax.Array, filters: int, stride: int) -> jax.Array:
    with jv.variable_scope("conv_0"):
        y = jax.nn.relu(convolution(x, filters, 3, stride))
    with jv.variable_scope("conv_1"):
        y = convolution(y, filters, 3)
    if x.shape[-1] != filters or stride != 1:
        with jv.variable_scope("shortcut"):
            x = convolution(x, filters, 1, stride)
    return jax.nn.relu(x + y)


def resnet(images: jax.Array, config: dict[str, Any]) -> jax.Array:
    with jv.variable_scope("stem"):
        x = jax.nn.relu(convolution(images, config["embedding_size"], 7, 2))
    x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-jnp.inf)
    x = jv.nn.max_pool(x, [1, 3, 3, 1], [1, 2, 2, 1], "VALID")
    for stage, (filters, depth) in enumerate(zip(config["hidden_sizes"], config["depths"], strict=True)):
        for number in range(depth):
            with jv.variable_scope(f"stage_{stage}/block_{number}"):
                x = block(x, filters, 2 if stage and not number else 1)
    return jv.layers.dense(x.mean([1, 2]), len(config["id2label"]), name="logits")


RESNET = hugging_face.ModelNames(
    rules=[
        ("stem/", "resnet/embedder/embedder/"),
        (r"stage_(\d+)/block_(\d+)/conv_(\d)/(.*)", r"resnet/encoder/stages/\1/layers/\2/layer/\3/\4"),
        (r"stage_(\d+)/block_(\d+)/shortcut/(.*)", r"resnet/encoder/stages/\1/layers/\2/shortcut/\3"),
        ("logits/", "classifier/1/"),
    ],
    base="resnet",
)


# -- all of them -----------------------------------------------------------------------------------------------------


def _bert_arguments(given: Arrays) -> tuple[Any, ...]:
    ids, mask, segments = (
        jnp.asarray(given[key], jnp.int32) for key in ("input_ids", "attention_mask", "token_type_ids")
    )
    everywhere = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return BertConfig.from_json_file(GOLDEN / "bert" / "config.json"), ids, mask, segments, everywhere


MODELS = {
    "bert": Recorded(
        pretraining,
        hugging_face.BERT,
        _bert_arguments,
        lambda result: dict(zip(("prediction_logits", "seq_relationship_logits"), result, strict=True)),
    ),
    "gpt2": Recorded(
        jv.transform(gpt2),
        hugging_face.GPT2,
        lambda given: (jnp.asarray(given["input_ids"], jnp.int32), hugging_face.read_config(GOLDEN / "gpt2")),
        lambda result: {"logits": result},
    ),
    "resnet": Recorded(
        jv.transform(resnet),
        RESNET,
        lambda given: (
            jnp.asarray(given["pixel_values"].transpose(0, 2, 3, 1)),
            hugging_face.read_config(GOLDEN / "resnet"),
        ),
        lambda result: {"logits": result},
    ),
}

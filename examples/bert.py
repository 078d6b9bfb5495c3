"""BERT: the transformer encoder with its two pre-training heads, under the names of the published checkpoints.

What it shows of TF1: nested scopes, ``variable_scope(scope, default_name="bert")``, layers with default and with given
names, a variable (the word embeddings) that two parts of the model use, and mixed precision by a custom getter.
``specs`` tells all 206 names of BERT-base without computing anything, so a published checkpoint restores by

    jv.checkpoint.restore("uncased_L-12_H-768_A-12/bert_model.ckpt", pretraining.specs(BertConfig(), **batch))

Run it: ``python -m examples.bert`` teaches a small one to add.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxvars as jv

# -- the model -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT, by default those of BERT-base, uncased."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    hidden_act: str = "gelu_new"  # a name of `ACTIVATIONS`
    scan_layers: bool = False  # trace and compile the layer once: the same names, the same numbers

    def __post_init__(self) -> None:
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act is one of {', '.join(ACTIVATIONS)}, not {self.hidden_act!r}")

    @classmethod
    def from_json_file(cls, path: str | Path) -> BertConfig:
        """Read the ``bert_config.json`` beside one of Google's checkpoints, or Hugging Face's ``config.json``.

        Google's program computes "gelu" by the tanh approximation, that of Hugging Face exactly.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        entries = json.loads(Path(path).read_text())
        is_googles = not {"architectures", "model_type", "transformers_version"} & set(entries)
        if is_googles and entries.get("hidden_act") == "gelu":
            entries["hidden_act"] = "gelu_new"
        return cls(**{name: value for name, value in entries.items() if name in known})

    def initializer(self) -> jv.truncated_normal_initializer:
        """What all matrices start from."""
        return jv.truncated_normal_initializer(stddev=self.initializer_range)


class Encoded(NamedTuple):
    """What the encoder returns.

    Attributes:
      sequence: ``[batch, length, hidden]``, the last layer.
      pooled: ``[batch, hidden]``, made of the first token.
      embedding_table: the word embeddings, ``[vocab, hidden]``.
    """

    sequence: jax.Array
    pooled: jax.Array
    embedding_table: Any


def float32_storage(getter: Any, name: str, shape: Any = None, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
    """A custom getter for mixed precision: variables are float32 and enter the computation in the dtype asked for."""
    variable = getter(name, shape, jnp.float32, *args, **kwargs)
    return variable if dtype == jnp.float32 else variable.astype(dtype)


def gelu(x: jax.Array) -> jax.Array:
    """The activation of Google's BERT: GELU by its tanh approximation."""
    return jax.nn.gelu(x, approximate=True)


#: The activations, by their names in Hugging Face's configurations.
ACTIVATIONS = {"gelu_new": gelu, "gelu": functools.partial(jax.nn.gelu, approximate=False), "relu": jax.nn.relu}


def dense(x: jax.Array, units: int, config: BertConfig, activation: Any = None, name: str | None = None) -> jax.Array:
    """`jv.layers.dense` with BERT's initializer."""
    return jv.layers.dense(x, units, activation, kernel_initializer=config.initializer(), name=name)


def layer_norm(x: jax.Array) -> jax.Array:
    """Normalize the last axis; variables ``LayerNorm/beta`` and ``LayerNorm/gamma``."""
    return jv.layers.layer_norm(x, begin_norm_axis=-1)


def embeddings(
    input_ids: jax.Array, token_type_ids: jax.Array, config: BertConfig, training: bool
) -> tuple[jax.Array, Any]:
    """Sum of word, segment and position embeddings, ``[batch, length, hidden]``, and the word table."""

    def table(name: str, rows: int) -> Any:
        return jv.get_variable(name, [rows, config.hidden_size], initializer=config.initializer())

    with jv.variable_scope("embeddings"):
        words = table("word_embeddings", config.vocab_size)
        segments = table("token_type_embeddings", config.type_vocab_size)
        positions = table("position_embeddings", config.max_position_embeddings)
        x = words[input_ids] + segments[token_type_ids] + positions[None, : input_ids.shape[1]]
        x = jv.layers.dropout(layer_norm(x), config.hidden_dropout_prob, training=training)
    return x, words


def self_attention(x: jax.Array, bias: jax.Array, config: BertConfig, training: bool) -> jax.Array:
    """Attention of several heads; `bias`, ``[batch, 1, 1, length]``, is added to the scores."""
    batch, length, _ = x.shape
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads

    def by_head(name: str) -> jax.Array:
        return dense(x, config.hidden_size, config, name=name).reshape(batch, length, heads, size)

    query, key, value = by_head("query"), by_head("key"), by_head("value")
    scores = jnp.einsum("bfnh,btnh->bnft", query, key) / math.sqrt(size)
    weights = jax.nn.softmax(scores + bias)
    weights = jv.layers.dropout(weights, config.attention_probs_dropout_prob, training=training)
    return jnp.einsum("bnft,btnh->bfnh", weights, value).reshape(batch, length, config.hidden_size)


def projection(x: jax.Array, residual: jax.Array, config: BertConfig, training: bool) -> jax.Array:
    """The end of each half of a layer: a dense layer, dropout, and a normalized sum."""
    with jv.variable_scope("output"):
        x = jv.layers.dropout(dense(x, config.hidden_size, config), config.hidden_dropout_prob, training=training)
        return layer_norm(x + residual)


def encoder_layer(x: jax.Array, bias: jax.Array, config: BertConfig, training: bool) -> jax.Array:
    """One transformer layer."""
    with jv.variable_scope("attention"):
        with jv.variable_scope("self"):
            attended = self_attention(x, bias, config, training)
        x = projection(attended, x, config, training)
    with jv.variable_scope("intermediate"):
        wide = dense(x, config.intermediate_size, config, ACTIVATIONS[config.hidden_act])
    return projection(wide, x, config, training)


def bert(
    config: BertConfig,
    input_ids: jax.Array,
    input_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    training: bool = False,
    scope: str | None = None,
) -> Encoded:
    """Encode token numbers, int32 ``[batch, length]``; `input_mask` is 0 where there is only padding."""
    mask = jnp.ones_like(input_ids) if input_mask is None else jnp.asarray(input_mask)
    token_type_ids = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    with jv.variable_scope(scope, default_name="bert"):
        x, table = embeddings(input_ids, token_type_ids, config, training)
        bias = (1.0 - mask[:, None, None, :].astype(x.dtype)) * -10000.0
        with jv.variable_scope("encoder"):
            if config.scan_layers:
                layers = jv.scan_layers("layer_{}", config.num_hidden_layers)
                x = layers(encoder_layer)(x, bias, config, training)
            for number in range(0 if config.scan_layers else config.num_hidden_layers):
                with jv.variable_scope(f"layer_{number}"):
                    x = encoder_layer(x, bias, config, training)
        with jv.variable_scope("pooler"):
            pooled = dense(x[:, 0], config.hidden_size, config, jnp.tanh)
    return Encoded(x, pooled, table)


# -- the heads -----------------------------------------------------------------------------------------------------


def masked_word_logits(encoded: Encoded, positions: jax.Array, config: BertConfig) -> jax.Array:
    """Scores of all words, ``[batch, masked, vocab]``, at int32 `positions`, ``[batch, masked]``."""
    x = jnp.take_along_axis(encoded.sequence, positions[:, :, None], axis=1)
    with jv.variable_scope("cls/predictions"):
        with jv.variable_scope("transform"):
            x = layer_norm(dense(x, config.hidden_size, config, ACTIVATIONS[config.hidden_act]))
        bias = jv.get_variable("output_bias", [config.vocab_size], initializer=jv.zeros_initializer())
        return jv.nn.bias_add(x @ encoded.embedding_table.T, bias)


def next_sentence_logits(encoded: Encoded, config: BertConfig) -> jax.Array:
    """Scores, ``[batch, 2]``: 0 means that the second sentence follows the first."""
    with jv.variable_scope("cls/seq_relationship"):
        weights = jv.get_variable("output_weights", [2, config.hidden_size], initializer=config.initializer())
        bias = jv.get_variable("output_bias", [2], initializer=jv.zeros_initializer())
        return jv.nn.bias_add(encoded.pooled @ weights.T, bias)


def pretraining_logits(
    config: BertConfig,
    input_ids: jax.Array,
    input_mask: jax.Array,
    segment_ids: jax.Array,
    masked_lm_positions: jax.Array,
    training: bool = False,
    dtype: Any = jnp.float32,
) -> tuple[jax.Array, jax.Array]:
    """Encode, and return the scores of both heads; computes in `dtype`, say bfloat16, with float32 variables."""
    with jv.variable_scope(jv.get_variable_scope(), dtype=dtype, custom_getter=float32_storage):
        encoded = bert(config, input_ids, input_mask, segment_ids, training)
        return masked_word_logits(encoded, masked_lm_positions, config), next_sentence_logits(encoded, config)


encoder = jv.transform(bert)
pretraining = jv.transform(pretraining_logits)


def pretraining_loss(
    variables: jv.Variables,
    config: BertConfig,
    batch: dict[str, jax.Array],
    words: jax.Array,
    next_sentence_labels: jax.Array,
    rng: Any = None,
    training: bool = True,
) -> jax.Array:
    """Mean cross entropy of the masked words and of the next-sentence labels, added."""
    (word_logits, next_logits), _ = pretraining.apply(variables, config, **batch, training=training, rng=rng)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    return cross_entropy(word_logits, words).mean() + cross_entropy(next_logits, next_sentence_labels).mean()


# -- a language small enough to learn in a minute ------------------------------------------------------------------

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "+", "=", *"0123456789"]
PAD, CLS, SEP, MASK, PLUS, EQUALS, ZERO = range(7)
LENGTH = 16


def sums(random: np.random.RandomState, count: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Pairs of additions with one digit hidden, such as ``7+?=15 8+7=15``; half are one addition, turned round.

    Returns:
      The arguments of `pretraining`, the hidden digits, ``[count, 1]``, and the labels, ``[count]``.
    """
    first = random.randint(10, size=[count, 2])
    label = random.randint(2, size=count)
    second = np.where(label[:, None] == 0, first[:, ::-1], random.randint(10, size=[count, 2]))

    def sentence(terms: np.ndarray) -> list[np.ndarray]:
        left, right = terms.T
        total = left + right
        same = np.ones(count, int)
        return [
            ZERO + left,
            PLUS * same,
            ZERO + right,
            EQUALS * same,
            ZERO + total // 10,
            ZERO + total % 10,
            SEP * same,
        ]

    ids = np.stack([np.full(count, CLS), *sentence(first), *sentence(second), np.full(count, PAD)], axis=1)
    positions = random.choice([1, 3, 5, 6], size=[count, 1])
    words = np.take_along_axis(ids, positions, axis=1)
    np.put_along_axis(ids, positions, MASK, axis=1)
    batch = {
        "input_ids": ids,
        "input_mask": (ids != PAD).astype(int),
        "segment_ids": np.broadcast_to((np.arange(LENGTH) > 7).astype(int), ids.shape),
        "masked_lm_positions": positions,
    }
    return {name: value.astype(np.int32) for name, value in batch.items()}, words, label


SMALL = BertConfig(
    vocab_size=len(TOKENS),
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    hidden_dropout_prob=0.05,
    attention_probs_dropout_prob=0.05,
    max_position_embeddings=LENGTH,
)


def main(arguments: list[str] | None = None) -> None:
    """Pre-train a small BERT on additions with a hidden digit."""
    parser = argparse.ArgumentParser(prog="python -m examples.bert", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=SMALL.num_hidden_layers)
    options = parser.parse_args(arguments)
    config = dataclasses.replace(SMALL, num_hidden_layers=options.layers)
    random = np.random.RandomState(0)

    variables = pretraining.init(0, config, **sums(random, 2)[0])
    print(variables.summary(depth=2))
    optimizer = jv.train.AdamOptimizer(jv.train.polynomial_decay(2e-3, None, options.steps, 1e-4))
    variables = optimizer.init(jv.train.create_global_step(variables))

    @jax.jit
    def step(variables: jv.Variables, batch: Any, words: Any, label: Any) -> tuple[jax.Array, jv.Variables]:
        rng = jax.random.fold_in(jax.random.key(0), variables["global_step"])
        return optimizer.minimize(
            pretraining_loss, variables, config, batch, words, label, rng=rng, global_step="global_step"
        )

    print("\n  step    loss")
    start = time.perf_counter()
    for number in range(1, options.steps + 1):
        loss, variables = step(variables, *sums(random, 128))
        if number == 1 or number % max(options.steps // 10, 1) == 0:
            print(f"{number:6d}  {loss:.4f}")
    print(f"\n{options.steps} steps in {time.perf_counter() - start:.1f} s")

    batch, words, label = sums(random, 1000)
    word_logits, next_logits = jax.jit(lambda v: pretraining(v, config, **batch))(variables)
    guesses, follows = np.argmax(word_logits, axis=-1), np.argmax(next_logits, axis=-1)
    print(
        f"hidden digits found: {np.mean(guesses == words):.1%}; pairs judged rightly: {np.mean(follows == label):.1%}\n"
    )
    for ids, guess, follow in list(zip(batch["input_ids"], guesses[:, 0], follows, strict=True))[:5]:
        text = "".join(TOKENS[i] for i in ids[1:14]).replace("[SEP]", "   ").replace("[MASK]", "?")
        print(f"  {text}  ? is {TOKENS[guess]}, {'the same sum' if follow == 0 else 'another sum'}")


if __name__ == "__main__":
    main()

"""The network: embeddings, encoder, decoder with attention, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import jaxvars as jv
from examples.seq2seq.attention import AttentionMechanism, AttentionWrapper, BahdanauAttention, LuongAttention

cells = jv.nn.rnn_cell
END, START = 0, 1
"""Token that ends a sequence (and fills up what is behind it), and token that the decoder begins with."""


@dataclass(frozen=True)
class Config:
    """The options of NMT that change its variables, under its names."""

    src_vocab_size: int = 12
    tgt_vocab_size: int = 12
    num_units: int = 64
    num_layers: int = 2
    encoder_type: str = "bi"
    attention: str = "normed_bahdanau"
    forget_bias: float = 1.0
    dropout: float = 0.0
    init_weight: float = 0.1
    dtype: str = "float32"


def float32_variable_storage_getter(
    getter: Callable[..., Any], name: str, shape: Any = None, dtype: Any = None, trainable: bool = True, **kwargs: Any
) -> Any:
    """Compute in `dtype`, but keep what is trained in float32: small steps are lost in 16 bits."""
    storage = "float32" if trainable else dtype
    variable = getter(name, shape=shape, dtype=storage, trainable=trainable, **kwargs)
    return variable if jnp.dtype(dtype) == storage else jnp.asarray(variable, dtype)


def embedding(name: str, vocabulary: int, config: Config) -> Any:
    """The table of one language, ``[vocabulary, units]``."""
    return jv.get_variable(f"embedding_{name}", [vocabulary, config.num_units])


def stack(config: Config, num_layers: int, training: bool) -> Any:
    """Some layers of LSTM, in a `MultiRNNCell` unless it is one."""

    def layer() -> Any:
        cell = cells.BasicLSTMCell(config.num_units, forget_bias=config.forget_bias)
        if training and config.dropout > 0:
            return cells.DropoutWrapper(cell, input_keep_prob=1.0 - config.dropout)
        return cell

    layers = [layer() for _ in range(num_layers)]
    return layers[0] if num_layers == 1 else cells.MultiRNNCell(layers)


def encoder(config: Config, inputs: jax.Array, lengths: jax.Array, training: bool) -> tuple[jax.Array, Any]:
    """The memory that the decoder will look at, and the state that it begins with."""
    with jv.variable_scope("encoder"):
        if config.encoder_type == "uni":
            cell = stack(config, config.num_layers, training)
            return jv.nn.dynamic_rnn(cell, inputs, lengths, dtype=inputs.dtype)
        half = config.num_layers // 2
        outputs, (fw, bw) = jv.nn.bidirectional_dynamic_rnn(
            stack(config, half, training), stack(config, half, training), inputs, lengths, dtype=inputs.dtype
        )
        # The decoder's layers begin with the states of both directions by turns.
        state = (fw, bw) if half == 1 else tuple(one[i] for i in range(half) for one in (fw, bw))
        return jnp.concatenate(outputs, axis=2), state


def mechanism(config: Config, memory: jax.Array, lengths: jax.Array) -> AttentionMechanism:
    """The attention that the configuration names."""
    if config.attention in ("luong", "scaled_luong"):
        return LuongAttention(config.num_units, memory, lengths, scale=config.attention == "scaled_luong")
    if config.attention in ("bahdanau", "normed_bahdanau"):
        return BahdanauAttention(config.num_units, memory, lengths, normalize=config.attention == "normed_bahdanau")
    raise ValueError(f"Unknown attention {config.attention!r}")


def network(
    config: Config, source: jax.Array, lengths: jax.Array, decode: Callable[..., Any], training: bool = False
) -> Any:
    """Encode `source`, and give ``decode(cell, state, table, scope)`` what a decoder needs, in the decoder's scope."""
    jv.get_variable_scope().set_initializer(jv.random_uniform_initializer(-config.init_weight, config.init_weight))
    getter = None if config.dtype == "float32" else float32_variable_storage_getter
    with jv.variable_scope("embeddings", dtype=config.dtype, custom_getter=getter):
        with jv.variable_scope("encoder"):
            source_table = embedding("encoder", config.src_vocab_size, config)
        with jv.variable_scope("decoder"):
            target_table = embedding("decoder", config.tgt_vocab_size, config)
    with jv.variable_scope("dynamic_seq2seq", dtype=config.dtype, custom_getter=getter):
        memory, state = encoder(config, jv.nn.embedding_lookup(source_table, source), lengths, training)
        with jv.variable_scope("decoder") as scope:
            inner = stack(config, config.num_layers, training)
            attention = mechanism(config, memory, lengths)
            cell = AttentionWrapper(inner, attention, config.num_units, name="attention")
            start = cell.zero_state(source.shape[0], memory.dtype)._replace(cell_state=state)
            return decode(cell, start, target_table, scope)


def project(config: Config, outputs: jax.Array) -> jax.Array:
    """Scores of the target vocabulary."""
    return jv.layers.dense(outputs, config.tgt_vocab_size, use_bias=False, name="output_projection")


def logits(
    config: Config,
    source: jax.Array,
    source_lengths: jax.Array,
    inputs: jax.Array,
    lengths: jax.Array,
    training: bool = False,
) -> jax.Array:
    """Scores of each next token, ``[batch, time, vocabulary]``, when the decoder is told the right ones before."""

    def decode(cell: Any, state: Any, table: Any, scope: jv.VariableScope) -> jax.Array:
        inside = jv.nn.embedding_lookup(table, inputs)
        outputs, _ = jv.nn.dynamic_rnn(cell, inside, lengths, initial_state=state, scope=scope)
        return project(config, outputs)

    return network(config, source, source_lengths, decode, training)


def loss(
    config: Config,
    source: jax.Array,
    source_lengths: jax.Array,
    target: jax.Array,
    target_lengths: jax.Array,
    training: bool = False,
) -> jax.Array:
    """Cross entropy of the targets and their ends, summed over time, averaged over the batch; a scalar.

    `target` is ``[batch, time]`` and has its ends in it; `target_lengths` count them.
    """
    inputs = jnp.concatenate([jnp.full_like(target[:, :1], START), target[:, :-1]], axis=1)
    scores = logits(config, source, source_lengths, inputs, target_lengths, training)
    entropy = jv.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=scores.astype(jnp.float32))
    there = jnp.arange(target.shape[1])[None, :] < target_lengths[:, None]
    return jnp.sum(jnp.where(there, entropy, 0.0)) / target.shape[0]


def greedy(config: Config, source: jax.Array, source_lengths: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """Write `steps` tokens, each the likeliest after those before.

    Returns:
      The tokens, ``[batch, steps]``, and where the decoder looked, ``[batch, steps, source time]``.
    """

    def decode(cell: Any, state: Any, table: Any, scope: jv.VariableScope) -> tuple[jax.Array, jax.Array]:
        def step(carry: Any, _: None) -> Any:
            token, state = carry
            output, state = cell(jv.nn.embedding_lookup(table, token), state)
            token = jnp.argmax(project(config, output), axis=1).astype(token.dtype)
            return (token, state), (token, state.alignments)

        begin = jnp.full([source.shape[0]], START, source.dtype)
        _, (tokens, alignments) = jax.lax.scan(step, (begin, state), length=steps)
        return tokens.swapaxes(0, 1), alignments.swapaxes(0, 1)

    return network(config, source, source_lengths, decode)


def evaluate(
    config: Config, source: jax.Array, source_lengths: jax.Array, target: jax.Array, target_lengths: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss, and what the network writes by itself, by one set of variables."""
    value = loss(config, source, source_lengths, target, target_lengths)
    with jv.variable_scope(jv.get_variable_scope(), reuse=True):
        tokens, alignments = greedy(config, source, source_lengths, target.shape[1])
    return value, tokens, alignments


training = jv.transform(loss)
evaluation = jv.transform(evaluate)

"""BERT as TF1 code: the twin of `examples.bert`, without dropout, whose random numbers no other program has."""

from __future__ import annotations

import math
from typing import Any

from examples.bert import BertConfig
from parity.live import tf


def gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * tf.pow(x, 3))))


def initializer(config: BertConfig) -> Any:
    return tf.truncated_normal_initializer(stddev=config.initializer_range)


def dense(x: Any, units: int, config: BertConfig, activation: Any = None, name: str | None = None) -> Any:
    return tf.layers.dense(x, units, activation, kernel_initializer=initializer(config), name=name)


def layer_norm(x: Any) -> Any:
    with tf.variable_scope("LayerNorm"):
        beta = tf.get_variable("beta", x.shape[-1:], x.dtype, initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", x.shape[-1:], x.dtype, initializer=tf.ones_initializer())
    mean, variance = tf.nn.moments(x, [-1], keep_dims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-12)


def embeddings(input_ids: Any, segment_ids: Any, config: BertConfig) -> tuple[Any, Any]:
    def table(name: str, rows: int) -> Any:
        return tf.get_variable(name, [rows, config.hidden_size], initializer=initializer(config))

    with tf.variable_scope("embeddings"):
        words = table("word_embeddings", config.vocab_size)
        x = tf.nn.embedding_lookup(words, input_ids)
        x += tf.gather(table("token_type_embeddings", config.type_vocab_size), segment_ids)
        x += table("position_embeddings", config.max_position_embeddings)[tf.newaxis, : input_ids.shape[1]]
        return layer_norm(x), words


def self_attention(x: Any, bias: Any, config: BertConfig) -> Any:
    batch, length, _ = x.shape.as_list()
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads

    def by_head(name: str) -> Any:
        flat = dense(x, config.hidden_size, config, name=name)
        return tf.transpose(tf.reshape(flat, [batch, length, heads, size]), [0, 2, 1, 3])

    query, key, value = by_head("query"), by_head("key"), by_head("value")
    scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(size)
    attended = tf.matmul(tf.nn.softmax(scores + bias), value)
    return tf.reshape(tf.transpose(attended, [0, 2, 1, 3]), [batch, length, config.hidden_size])


def projection(x: Any, residual: Any, config: BertConfig) -> Any:
    with tf.variable_scope("output"):
        return layer_norm(dense(x, config.hidden_size, config) + residual)


def encoder_layer(x: Any, bias: Any, config: BertConfig) -> Any:
    with tf.variable_scope("attention"):
        with tf.variable_scope("self"):
            attended = self_attention(x, bias, config)
        x = projection(attended, x, config)
    with tf.variable_scope("intermediate"):
        wide = dense(x, config.intermediate_size, config, gelu)
    return projection(wide, x, config)


def bert(
    config: BertConfig, input_ids: Any, input_mask: Any, segment_ids: Any, scope: str | None = None
) -> tuple[Any, Any, Any]:
    with tf.variable_scope(scope, default_name="bert"):
        x, table = embeddings(input_ids, segment_ids, config)
        bias = (1.0 - tf.cast(input_mask[:, tf.newaxis, tf.newaxis, :], x.dtype)) * -10000.0
        with tf.variable_scope("encoder"):
            for number in range(config.num_hidden_layers):
                with tf.variable_scope(f"layer_{number}"):
                    x = encoder_layer(x, bias, config)
        with tf.variable_scope("pooler"):
            pooled = dense(x[:, 0], config.hidden_size, config, tf.tanh)
    return x, pooled, table


def masked_word_logits(sequence: Any, table: Any, positions: Any, config: BertConfig) -> Any:
    x = tf.gather(sequence, positions, batch_dims=1)
    with tf.variable_scope("cls/predictions"):
        with tf.variable_scope("transform"):
            x = layer_norm(dense(x, config.hidden_size, config, gelu))
        bias = tf.get_variable("output_bias", [config.vocab_size], initializer=tf.zeros_initializer())
        return tf.nn.bias_add(tf.tensordot(x, table, [[2], [1]]), bias)


def next_sentence_logits(pooled: Any, config: BertConfig) -> Any:
    with tf.variable_scope("cls/seq_relationship"):
        weights = tf.get_variable("output_weights", [2, config.hidden_size], initializer=initializer(config))
        bias = tf.get_variable("output_bias", [2], initializer=tf.zeros_initializer())
        return tf.nn.bias_add(tf.matmul(pooled, weights, transpose_b=True), bias)


def float32_storage(getter: Any, name: str, shape: Any = None, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
    variable = getter(name, shape, tf.float32, *args, **kwargs)
    return variable if dtype == tf.float32 else tf.cast(variable, dtype)


def pretraining(
    config: BertConfig,
    input_ids: Any,
    input_mask: Any,
    segment_ids: Any,
    masked_lm_positions: Any,
    dtype: Any = tf.float32,
) -> tuple[Any, Any]:
    with tf.variable_scope(tf.get_variable_scope(), dtype=dtype, custom_getter=float32_storage):
        sequence, pooled, table = bert(config, input_ids, input_mask, segment_ids)
        words = masked_word_logits(sequence, table, masked_lm_positions, config)
        return words, next_sentence_logits(pooled, config)

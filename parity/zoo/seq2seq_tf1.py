"""The translator of `examples.seq2seq` as TF1 code: its twin."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

from examples.seq2seq.model import START, Config
from parity.live import tf

cells = tf.nn.rnn_cell
AttentionState = namedtuple("AttentionState", ["cell_state", "attention", "alignments"])


class Mechanism:
    """Luong's and Bahdanau's attention, as tf.contrib.seq2seq named their variables."""

    def __init__(self, kind: str, num_units: int, memory: Any, lengths: Any) -> None:
        self.kind, self.num_units = kind, num_units
        self.mask = tf.sequence_mask(lengths, tf.shape(memory)[1])
        self.values = memory * tf.expand_dims(tf.cast(self.mask, memory.dtype), 2)
        self.keys = tf.layers.dense(self.values, num_units, use_bias=False, name="memory_layer")

    def __call__(self, query: Any) -> Any:
        score = self.luong(query) if "luong" in self.kind else self.bahdanau(query)
        return tf.nn.softmax(tf.where(self.mask, score, tf.fill(tf.shape(score), float("-inf"))))

    def luong(self, query: Any) -> Any:
        with tf.variable_scope(None, "luong_attention", [query]):
            score = tf.squeeze(tf.matmul(tf.expand_dims(query, 1), self.keys, transpose_b=True), [1])
            if self.kind == "scaled_luong":
                score *= tf.get_variable("attention_g", shape=(), dtype=query.dtype, initializer=tf.ones_initializer())
            return score

    def bahdanau(self, query: Any) -> Any:
        with tf.variable_scope(None, "bahdanau_attention", [query]):
            query = tf.expand_dims(tf.layers.dense(query, self.num_units, use_bias=False, name="query_layer"), 1)
            v = tf.get_variable("attention_v", [self.num_units], dtype=query.dtype)
            if self.kind != "normed_bahdanau":
                return tf.reduce_sum(v * tf.tanh(self.keys + query), [2])
            start = tf.constant_initializer((1.0 / self.num_units) ** 0.5)
            g = tf.get_variable("attention_g", shape=(), dtype=query.dtype, initializer=start)
            b = tf.get_variable("attention_b", [self.num_units], query.dtype, initializer=tf.zeros_initializer())
            normed_v = g * v * tf.rsqrt(tf.reduce_sum(tf.square(v)))
            return tf.reduce_sum(normed_v * tf.tanh(self.keys + query + b), [2])


class AttentionWrapper(cells.RNNCell):
    def __init__(self, cell: Any, mechanism: Mechanism, size: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self._cell, self._mechanism, self._size = cell, mechanism, size

    @property
    def state_size(self) -> Any:
        return AttentionState(self._cell.state_size, self._size, self._mechanism.keys.shape[1])

    @property
    def output_size(self) -> int:
        return self._size

    def call(self, inputs: Any, state: Any) -> Any:
        output, cell_state = self._cell(tf.concat([inputs, state.attention], -1), state.cell_state)
        alignments = self._mechanism(output)
        context = tf.squeeze(tf.matmul(tf.expand_dims(alignments, 1), self._mechanism.values), [1])
        attention = tf.layers.dense(tf.concat([output, context], 1), self._size, use_bias=False, name="attention_layer")
        return attention, AttentionState(cell_state, attention, alignments)


def stack(config: Config, num_layers: int) -> Any:
    layers = [cells.BasicLSTMCell(config.num_units, forget_bias=config.forget_bias) for _ in range(num_layers)]
    return layers[0] if num_layers == 1 else cells.MultiRNNCell(layers)


def encoder(config: Config, inputs: Any, lengths: Any) -> tuple[Any, Any]:
    with tf.variable_scope("encoder"):
        if config.encoder_type == "uni":
            return tf.nn.dynamic_rnn(stack(config, config.num_layers), inputs, lengths, dtype=tf.float32)
        half = config.num_layers // 2
        outputs, states = tf.nn.bidirectional_dynamic_rnn(
            stack(config, half), stack(config, half), inputs, lengths, dtype=tf.float32
        )
        if half == 1:
            return tf.concat(outputs, -1), states
        state = []
        for layer in range(half):
            state += [states[0][layer], states[1][layer]]
        return tf.concat(outputs, -1), tuple(state)


def network(config: Config, source: Any, lengths: Any, decode: Callable[..., Any]) -> Any:
    weight = config.init_weight
    tf.get_variable_scope().set_initializer(tf.random_uniform_initializer(-weight, weight))
    with tf.variable_scope("embeddings"):
        with tf.variable_scope("encoder"):
            source_table = tf.get_variable("embedding_encoder", [config.src_vocab_size, config.num_units])
        with tf.variable_scope("decoder"):
            target_table = tf.get_variable("embedding_decoder", [config.tgt_vocab_size, config.num_units])
    with tf.variable_scope("dynamic_seq2seq"):
        memory, state = encoder(config, tf.nn.embedding_lookup(source_table, source), lengths)
        with tf.variable_scope("decoder") as scope:
            inner = stack(config, config.num_layers)
            mechanism = Mechanism(config.attention, config.num_units, memory, lengths)
            cell = AttentionWrapper(inner, mechanism, config.num_units, name="attention")
            start = cell.zero_state(source.shape[0], tf.float32)._replace(cell_state=state)
            return decode(cell, start, target_table, scope)


def project(config: Config, outputs: Any) -> Any:
    return tf.layers.dense(outputs, config.tgt_vocab_size, use_bias=False, name="output_projection")


def logits(config: Config, source: Any, source_lengths: Any, inputs: Any, lengths: Any) -> Any:
    def decode(cell: Any, state: Any, table: Any, scope: Any) -> Any:
        inside = tf.nn.embedding_lookup(table, inputs)
        outputs, _ = tf.nn.dynamic_rnn(cell, inside, lengths, initial_state=state, dtype=tf.float32, scope=scope)
        return project(config, outputs)

    return network(config, source, source_lengths, decode)


def loss(config: Config, source: Any, source_lengths: Any, target: Any, target_lengths: Any) -> Any:
    inputs = tf.concat([tf.fill([target.shape[0], 1], START), target[:, :-1]], 1)
    scores = logits(config, source, source_lengths, inputs, target_lengths)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=scores)
    weights = tf.sequence_mask(target_lengths, target.shape[1], dtype=tf.float32)
    return tf.reduce_sum(entropy * weights) / tf.cast(target.shape[0], tf.float32)


def greedy(config: Config, source: Any, source_lengths: Any, steps: int) -> tuple[Any, Any]:
    def decode(cell: Any, state: Any, table: Any, scope: Any) -> Any:
        token = tf.fill([source.shape[0]], START)
        tokens, alignments = [], []
        for step in range(steps):
            if step > 0:
                scope.reuse_variables()
            output, state = cell(tf.nn.embedding_lookup(table, token), state)
            token = tf.argmax(project(config, output), axis=1, output_type=tf.int32)
            tokens.append(token)
            alignments.append(state.alignments)
        return tf.stack(tokens, 1), tf.stack(alignments, 1)

    return network(config, source, source_lengths, decode)


def evaluate(config: Config, source: Any, source_lengths: Any, target: Any, target_lengths: Any) -> tuple[Any, ...]:
    value = loss(config, source, source_lengths, target, target_lengths)
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        tokens, alignments = greedy(config, source, source_lengths, target.shape[1])
    return value, tokens, alignments

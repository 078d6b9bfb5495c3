"""Attention over the encoder's outputs, under the names of ``tf.contrib.seq2seq``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxvars as jv


class AttentionMechanism:
    """What both kinds share: keys, values, and weights that are 0 behind the end of the memory.

    Args:
      num_units: the size of the keys.
      memory: what is looked at, ``[batch, time, depth]``.
      lengths: how much of it there is, ``[batch]``.
    """

    def __init__(self, num_units: int, memory: jax.Array, lengths: jax.Array) -> None:
        self.num_units = num_units
        self.there = jnp.arange(memory.shape[1])[None, :] < lengths[:, None]
        self.values = jnp.where(self.there[:, :, None], memory, 0)
        self.keys = jv.layers.dense(self.values, num_units, use_bias=False, name="memory_layer")

    def score(self, query: jax.Array) -> jax.Array:
        """How well each key fits the query, ``[batch, time]``."""
        raise AssertionError("a mechanism has a score")

    def __call__(self, query: jax.Array) -> jax.Array:
        """The weights of the memory's steps for a query ``[batch, units]``: ``[batch, time]``."""
        return jax.nn.softmax(jnp.where(self.there, self.score(query), -jnp.inf), axis=1)


class LuongAttention(AttentionMechanism):
    """Multiplicative attention (Luong et al. 2015), with a factor for the scores if `scale`."""

    def __init__(self, num_units: int, memory: jax.Array, lengths: jax.Array, scale: bool = False) -> None:
        super().__init__(num_units, memory, lengths)
        self.scale = scale

    def score(self, query: jax.Array) -> jax.Array:
        """The product of query and keys."""
        with jv.variable_scope(None, default_name="luong_attention"):
            score = jnp.einsum("bd,btd->bt", query, self.keys)
            if self.scale:
                score *= jv.get_variable("attention_g", [], query.dtype, initializer=jv.ones_initializer())
            return score


class BahdanauAttention(AttentionMechanism):
    """Additive attention (Bahdanau et al. 2015), with weight normalization if `normalize`."""

    def __init__(self, num_units: int, memory: jax.Array, lengths: jax.Array, normalize: bool = False) -> None:
        super().__init__(num_units, memory, lengths)
        self.normalize = normalize

    def score(self, query: jax.Array) -> jax.Array:
        """A small network of query and keys."""
        size = self.num_units
        with jv.variable_scope(None, default_name="bahdanau_attention"):
            hidden = self.keys + jv.layers.dense(query, size, use_bias=False, name="query_layer")[:, None, :]
            v = jnp.asarray(jv.get_variable("attention_v", [size], query.dtype))
            if self.normalize:
                start = jv.constant_initializer(size**-0.5)
                v = v * jv.get_variable("attention_g", [], query.dtype, initializer=start) / jnp.linalg.norm(v)
                bias = jv.get_variable("attention_b", [size], query.dtype, initializer=jv.zeros_initializer())
                hidden = hidden + jnp.reshape(bias, [1, 1, -1])
            return jnp.tanh(hidden) @ v


class AttentionState(NamedTuple):
    """The state of an `AttentionWrapper`: the inner cell's, what it saw last, and with which weights."""

    cell_state: Any
    attention: Any
    alignments: Any


class AttentionWrapper(jv.nn.rnn_cell.RNNCell):
    """A cell that looks at a memory after each step, and sees at the next step what it saw.

    Args:
      cell: the cell inside.
      mechanism: says where to look.
      size: the number of outputs.
      name: the scope's name.
    """

    def __init__(self, cell: Any, mechanism: AttentionMechanism, size: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.cell = cell
        self.mechanism = mechanism
        self.size = size

    @property
    def state_size(self) -> AttentionState:
        """The inner cell's, the outputs', and the memory's length."""
        return AttentionState(self.cell.state_size, self.size, self.mechanism.keys.shape[1])

    @property
    def output_size(self) -> int:
        """The number of outputs."""
        return self.size

    def call(self, inputs: jax.Array, state: AttentionState) -> tuple[jax.Array, AttentionState]:
        """Run the inner cell, then look at the memory."""
        output, cell_state = self.cell(jnp.concatenate([inputs, state.attention], axis=1), state.cell_state)
        alignments = self.mechanism(output)
        context = jnp.einsum("bt,btd->bd", alignments, self.mechanism.values)
        seen = jnp.concatenate([output, context], axis=1)
        attention = jv.layers.dense(seen, self.size, use_bias=False, name="attention_layer")
        return attention, AttentionState(cell_state, attention, alignments)

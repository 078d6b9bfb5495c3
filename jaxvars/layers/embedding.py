"""Embeddings: a table of vectors, looked up by number."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.errors import InvalidTypeError
from jaxvars.layers._arguments import positive
from jaxvars.layers.base import Function, Layer, WeightRules
from jaxvars.scopes import get_variable_scope

__all__ = ["Embedding", "embed_sequence", "embedding"]


class Embedding(Layer):
    """Look up vectors by number: `embedding` as an object, whose calls share its table.

    Args:
      vocab_size: the number of vectors.
      embed_dim: their length.
      initializer: as in `embedding`, as what follows.
      regularizer: likewise.
      constraint: likewise.
      trainable: likewise.
      name: the scope's name, made unique: ``embedding``, ``embedding_1``, ...
      dtype: of the table; None for the scope's, by default float32.

    Raises:
      InvalidArgumentError: a size that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(source, target):
      ...     words = jv.layers.Embedding(100, 8, name="words")
      ...     return words(source), words(target)
      >>> list(jv.transform(net).specs(jnp.zeros([2, 5], int), jnp.zeros([2, 7], int)))
      ['words/embeddings']
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        initializer: Any = None,
        regularizer: Function | None = None,
        constraint: Function | None = None,
        trainable: bool = True,
        name: str | None = None,
        dtype: Any = None,
        *,
        _scope: Any = None,
        _reuse: Any = None,
    ) -> None:
        super().__init__(trainable, name, dtype, _scope=_scope, _reuse=_reuse)
        self.vocab_size: int = positive(vocab_size, "embedding: vocab_size")
        self.embed_dim: int = positive(embed_dim, "embedding: embed_dim")
        self._table = WeightRules(initializer, regularizer, constraint)

    @property
    def embeddings(self) -> Any:
        """The handle of the table, after the first call."""
        return self._weight("embeddings")

    def check(self, inputs: Any) -> jax.Array:
        """Refuse ids that are no ints."""
        ids = jnp.asarray(inputs)
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise InvalidTypeError(f"embedding: ids are ints, got {ids.dtype}. Cast: ids.astype(jnp.int32)")
        return ids

    def build(self, input_shape: Any) -> None:
        """Make the table."""
        dtype = self.dtype or get_variable_scope().dtype
        shape = (self.vocab_size, self.embed_dim)
        self._add("embeddings", shape, self._table, dtype)

    def call(self, inputs: jax.Array) -> jax.Array:
        """Look up."""
        # As one table: the parts of a partitioned one lie one after the other.
        return nn.embedding_lookup(jnp.asarray(self.embeddings), inputs)


@add_arg_scope
def embedding(
    ids: Any,
    vocab_size: int,
    embed_dim: int,
    initializer: Any = None,
    regularizer: Function | None = None,
    constraint: Function | None = None,
    trainable: bool = True,
    name: str | None = None,
    reuse: Any = None,
) -> jax.Array:
    """Look up vectors by number.

    Variable ``<scope>/embeddings`` ``[vocab_size, embed_dim]``; the scope is `name`, or ``embedding``, ``embedding_1``,
    ... `embed_sequence` is the same under the names of `tf.contrib.layers`.

    Args:
      ids: ints of any shape, in ``[0, vocab_size)``; the vector of another number is nan.
      vocab_size: the number of vectors.
      embed_dim: their length.
      initializer: None for the scope's, by default glorot_uniform.
      regularizer: ``value -> loss``, added to the scope's own.
      constraint: ``value -> value``, applied by optimizers after each update.
      trainable: whether optimizers touch the table.
      name: the scope's name, taken as it is: a second use needs `reuse`.
      reuse: True to share a table that exists, `jv.AUTO_REUSE` to make or share it.

    Returns:
      ``ids.shape + [embed_dim]``.

    Raises:
      InvalidArgumentError: a size that is not positive, or what `get_variable` refuses.
      InvalidTypeError: ids that are no ints.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda ids: jv.layers.embedding(ids, 10, 4))
      >>> ids = jnp.array([[1, 2, 3]])
      >>> variables = jv.Variables({"embedding/embeddings": jnp.ones([10, 4])})
      >>> model(variables, ids).shape
      (1, 3, 4)
    """
    layer = Embedding(
        vocab_size, embed_dim, initializer, regularizer, constraint, trainable, name, _scope=name, _reuse=reuse
    )
    return layer(ids)


@add_arg_scope
def embed_sequence(
    ids: Any,
    vocab_size: int,
    embed_dim: int,
    unique: bool = False,
    initializer: Any = None,
    regularizer: Function | None = None,
    trainable: bool = True,
    scope: Any = None,
    reuse: Any = None,
) -> jax.Array:
    """Look up vectors by number (`tf.contrib.layers.embed_sequence`).

    As `embedding`; the scope is `scope`, or ``EmbedSequence``, ``EmbedSequence_1``, ... `unique`, which saved TF1 some
    memory, has no effect.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda ids: jv.layers.embed_sequence(ids, 10, 4))
      >>> list(model.specs(jnp.array([[1, 2, 3]])))
      ['EmbedSequence/embeddings']
    """
    del unique
    layer = Embedding(
        vocab_size, embed_dim, initializer, regularizer, None, trainable, "EmbedSequence", _scope=scope, _reuse=reuse
    )
    return layer(ids)

"""`DropoutWrapper`: dropout of what goes into a cell, comes out of it, and stays in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars._keys import name_hash
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError
from jaxvars.nn._explicit import spread_as
from jaxvars.nn.rnn_cell.base import dims
from jaxvars.nn.rnn_cell.lstm import LSTMStateTuple
from jaxvars.nn.rnn_cell.wrappers import CellWrapper
from jaxvars.scopes import current_graph
from jaxvars.store import next_rng_key

__all__ = ["DropoutWrapper"]


class DropoutWrapper(CellWrapper):
    """A cell with dropout of its inputs, outputs and state (``tf.nn.rnn_cell.DropoutWrapper``).

    What is kept is scaled up by ``1 / keep_prob``. The random numbers come from `jv.next_rng_key`: pass ``rng=`` to
    ``model.apply``. TensorFlow has another generator, so the masks are not TensorFlow's. Each step and each sequence
    has masks of its own, also inside `dynamic_rnn` and your own ``lax.scan``. With `variational_recurrent` the masks
    are drawn when the wrapper is made, once for all steps and, as in TF1, for all sequences: make it in the model.

    Args:
      cell: the cell.
      input_keep_prob: the part of the inputs that is kept: a number in [0, 1] or a traced scalar. The number 1 needs
        no random key.
      output_keep_prob: likewise, of the outputs.
      state_keep_prob: likewise, of the new state; by default not of the memory ``c`` of an `LSTMStateTuple`.
      variational_recurrent: whether all steps have the same masks.
      input_size: the depth of the inputs, or a structure of depths; needed for variational input dropout.
      dtype: of inputs, outputs and state; needed for variational dropout.
      seed: an int that tells the masks of this cell from others of the same key.
      dropout_state_filter_visitor: called with the state and, where it says True, with its parts; returns a bool, or
        a structure of bools for the parts: whether there is dropout.

    Raises:
      InvalidTypeError: `cell` is no cell, or the visitor no function.
      InvalidArgumentError: a probability outside of [0, 1], or something that variational dropout needs is missing.
      FailedPreconditionError: variational dropout outside of a frame; dropout without ``rng``.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x, keep_prob):
      ...     cell = jv.nn.rnn_cell.DropoutWrapper(jv.nn.rnn_cell.LSTMCell(8), output_keep_prob=keep_prob)
      ...     return jv.nn.dynamic_rnn(cell, x, dtype="float32")[0]
      >>> model = jv.transform(net)
      >>> x = jnp.ones([2, 5, 4])
      >>> variables = model.init(0, x, 1.0)
      >>> outputs, _ = model.apply(variables, x, 0.5, rng=1)
      >>> bool(jnp.any(outputs == 0)), bool(jnp.any(model(variables, x, 1.0) == 0))
      (True, False)
    """

    def __init__(
        self,
        cell: Any,
        input_keep_prob: Any = 1.0,
        output_keep_prob: Any = 1.0,
        state_keep_prob: Any = 1.0,
        variational_recurrent: bool = False,
        input_size: Any = None,
        dtype: Any = None,
        seed: int | None = None,
        dropout_state_filter_visitor: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(cell, dtype)
        if dropout_state_filter_visitor is not None and not callable(dropout_state_filter_visitor):
            raise InvalidTypeError(
                f"dropout_state_filter_visitor must be callable. Received: {dropout_state_filter_visitor!r}"
            )
        self._visitor = dropout_state_filter_visitor or _all_but_memories
        self._seed = seed
        self._keep = {
            name: _probability(value, f"{name}_keep_prob")
            for name, value in (("input", input_keep_prob), ("state", state_keep_prob), ("output", output_keep_prob))
        }
        self._noise: dict[str, list[jax.Array]] | None = None
        if variational_recurrent:
            self._draw_noise(input_size, dtype)

    def _draw_noise(self, input_size: Any, dtype: Any) -> None:
        if dtype is None:
            raise InvalidArgumentError("When variational_recurrent=True, dtype must be provided: dtype=inputs.dtype")
        drops = {name for name, keep in self._keep.items() if _drops(keep)}
        if "input" in drops and input_size is None:
            raise InvalidArgumentError(
                "When variational_recurrent=True and input_keep_prob < 1.0 or is unknown, input_size must be "
                "provided: input_size=inputs.shape[-1]"
            )
        self._noise = {}
        self._graph = current_graph()
        sizes = {"input": input_size, "state": self.cell.state_size, "output": self.cell.output_size}
        key = next_rng_key() if drops else None
        for name in drops:
            self._noise[name] = [
                jax.random.uniform(self._salted(key, name, i), (1, *dims(size)), dtype)
                for i, size in enumerate(jax.tree.leaves(sizes[name]))
            ]

    def _around(self, step: Callable[[Any, Any], tuple[Any, Any]], inputs: Any, state: Any) -> tuple[Any, Any]:
        key = next_rng_key() if self._noise is None and any(map(_drops, self._keep.values())) else None
        if self._noise and self._graph is not current_graph():
            raise FailedPreconditionError(
                "The masks of this DropoutWrapper were drawn in another frame: with variational_recurrent=True, make "
                "the wrapper inside the model function that calls it."
            )
        output, new_state = step(self._dropped(key, "input", inputs), state)
        chosen = _flags(self._visitor, new_state) if _drops(self._keep["state"]) else None
        return self._dropped(key, "output", output), self._dropped(key, "state", new_state, chosen)

    def _dropped(self, key: Any, name: str, values: Any, chosen: list[bool] | None = None) -> Any:
        """Dropout of each array of a structure, or of those that are chosen."""
        keep = self._keep[name]
        if not _drops(keep):
            return values
        leaves, structure = jax.tree.flatten(values)
        return jax.tree.unflatten(
            structure,
            [
                self._drop(key, name, i, jnp.asarray(leaf), keep) if chosen is None or chosen[i] else leaf
                for i, leaf in enumerate(leaves)
            ],
        )

    def _drop(self, key: Any, name: str, index: int, x: jax.Array, keep: Any) -> jax.Array:
        if isinstance(keep, float) and keep <= 0:
            raise InvalidArgumentError(
                f"DropoutWrapper: rate must be in the range [0, 1), got 1: {name}_keep_prob is 0, so nothing would be "
                "left to scale up."
            )
        keep = jnp.asarray(keep, x.dtype)
        if self._noise is None:
            mask = jax.random.bernoulli(
                self._salted(key, name, index), keep, x.shape, out_sharding=spread_as(x, x.shape)
            )
        else:
            mask = self._noise[name][index] < keep
        return jnp.where(mask, x / keep, jnp.zeros_like(x))

    def _salted(self, key: Any, name: str, index: int) -> jax.Array:
        """A key for each array of inputs, state and outputs."""
        return jax.random.fold_in(key, name_hash(f"{'' if self._seed is None else self._seed}{name}_{index}"))


def _probability(value: Any, argument: str) -> Any:
    """A float where the value is known, else an array."""
    if isinstance(value, jax.Array):
        return value
    if not isinstance(value, int | float | np.number | np.ndarray) or np.ndim(value):
        raise InvalidTypeError(f"Parameter {argument} is a number or a traced scalar, got {value!r:.60}")
    if not 0 <= value <= 1:
        raise InvalidArgumentError(f"Parameter {argument} must be between 0 and 1. Received {value}")
    return float(value)


def _drops(keep: Any) -> bool:
    return not isinstance(keep, float) or keep < 1


def _all_but_memories(state: Any) -> Any:
    """TF1's choice: everything but the memory of an LSTM."""
    return LSTMStateTuple(c=False, h=True) if isinstance(state, LSTMStateTuple) else True


def _flags(visitor: Callable[[Any], Any], state: Any) -> list[bool]:
    """What the visitor says of each array of the state."""
    parts = jax.tree.leaves(state, is_leaf=lambda part: part is not state)
    is_array = len(parts) == 1 and parts[0] is state
    said = visitor(state)
    wanted = [said] * len(parts) if isinstance(said, bool) else jax.tree.leaves(said)
    if len(wanted) != len(parts) or not all(isinstance(w, bool) for w in wanted) or (is_array and wanted != [said]):
        raise InvalidTypeError(
            f"dropout_state_filter_visitor returns a bool, or one for each of the {len(parts)} parts of "
            f"{jax.tree.map(jnp.shape, state)!r:.100}; it returned {said!r:.60}"
        )
    if is_array:
        return wanted
    flags: list[bool] = []
    for part, want in zip(parts, wanted, strict=True):
        flags += _flags(visitor, part) if want else [False] * len(jax.tree.leaves(part))
    return flags

"""The LSTM cells and their state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.initializers import zeros_initializer
from jaxvars.nn.rnn_cell.base import Function
from jaxvars.nn.rnn_cell.cells import affine
from jaxvars.nn.rnn_cell.layer_cell import LayerRNNCell
from jaxvars.scopes.partitioners import fixed_size_partitioner

__all__ = ["BasicLSTMCell", "LSTMCell", "LSTMStateTuple"]


class LSTMStateTuple(NamedTuple):
    """The state of an LSTM cell: memory `c` and output `h` (``tf.nn.rnn_cell.LSTMStateTuple``).

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> state = jv.nn.rnn_cell.LSTMStateTuple(c=jnp.zeros([2, 3]), h=jnp.ones([2, 3]))
      >>> state.dtype
      dtype('float32')
    """

    c: Any
    h: Any

    @property
    def dtype(self) -> Any:
        """The type of both arrays."""
        c, h = jnp.result_type(self.c), jnp.result_type(self.h)
        if c != h:
            raise InvalidTypeError(f"Inconsistent dtypes for internal state: {c} vs {h}")
        return c


class _LSTM(LayerRNNCell):
    """What both LSTM cells share: a memory, an output, and how the state holds them."""

    _num_units: int
    _forget_bias: float
    _state_is_tuple: bool
    _activation: Function

    @property
    def state_size(self) -> Any:
        """``LSTMStateTuple(num_units, output_size)``, or their sum without `state_is_tuple`."""
        sizes = LSTMStateTuple(self._num_units, self.output_size)
        return sizes if self._state_is_tuple else sizes.c + sizes.h

    @property
    def output_size(self) -> int:
        """The size of the output."""
        return self._num_units

    def _split(self, inputs: Any, state: Any) -> list[jax.Array]:
        """Inputs, memory and output of the step before."""
        units, size = self._num_units, self.output_size
        if not self._state_is_tuple:
            x, both = self._checked(inputs, (state, units + size))
            return [x, both[:, :units], both[:, units:]]
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise InvalidTypeError(
                f"Expected state to be a tuple of length 2, but received: {_described(state)}. {self.name} has "
                "state_is_tuple=True; write: jv.nn.rnn_cell.LSTMStateTuple(c, h)"
            )
        return self._checked(inputs, (state[0], units), (state[1], size))

    def _joined(self, c: jax.Array, h: jax.Array) -> Any:
        return LSTMStateTuple(c, h) if self._state_is_tuple else jnp.concatenate([c, h], axis=1)


class BasicLSTMCell(_LSTM):
    """The basic LSTM cell, after Zaremba et al. 2014 (``tf.nn.rnn_cell.BasicLSTMCell``).

    Variables ``basic_lstm_cell/kernel`` ``[depth + units, 4 * units]`` and ``bias`` ``[4 * units]`` (zeros), in the
    order input gate, candidate, forget gate, output gate.

    Args:
      num_units: the size of memory and output.
      forget_bias: added to the forget gate. Set it to 0 for weights that come from cuDNN.
      state_is_tuple: whether the state is an `LSTMStateTuple`, or one array of both side by side.
      activation: a function such as `jax.nn.relu`, its name, or None for tanh.
      reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them.
      name: the scope's name instead of ``basic_lstm_cell``.
      dtype: of the variables; by default the inputs'.
      trainable: whether optimizers touch the variables.

    Raises:
      InvalidArgumentError: `num_units` is negative; in a call, inputs or state that do not fit.
      InvalidTypeError: in a call, a state that is no pair.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> cell = jv.nn.rnn_cell.BasicLSTMCell(3)
      >>> model = jv.transform(lambda x: jv.nn.dynamic_rnn(cell, x, dtype="float32"))
      >>> variables = model.init(0, jnp.ones([2, 5, 4]))
      >>> list(variables), variables["rnn/basic_lstm_cell/kernel"].shape
      (['rnn/basic_lstm_cell/bias', 'rnn/basic_lstm_cell/kernel'], (7, 12))
    """

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(trainable, name, dtype, _reuse=reuse)
        self._num_units = self._units(num_units)
        self._forget_bias = forget_bias
        self._state_is_tuple = state_is_tuple
        self._activation = self._function(activation)

    def call(self, inputs: Any, state: Any) -> tuple[jax.Array, Any]:
        """Compute ``(output, new_state)``."""
        x, c, h = self._split(inputs, state)
        units = self._num_units
        kernel = self.add_weight("kernel", [x.shape[1] + units, 4 * units])
        bias = self.add_weight("bias", [4 * units], initializer=zeros_initializer)
        i, j, f, o = jnp.split(affine([x, h], kernel, bias), 4, axis=1)
        c = c * jax.nn.sigmoid(f + self._forget_bias) + jax.nn.sigmoid(i) * self._activation(j)
        h = self._activation(c) * jax.nn.sigmoid(o)
        return h, self._joined(c, h)


class LSTMCell(_LSTM):
    """The LSTM cell with peepholes, clipping and projection, after Sak et al. 2014 (``tf.nn.rnn_cell.LSTMCell``).

    Variables ``lstm_cell/kernel`` ``[depth + outputs, 4 * units]`` and ``bias`` ``[4 * units]`` (zeros), in the
    order input gate, candidate, forget gate, output gate; with peepholes ``w_f_diag``, ``w_i_diag``, ``w_o_diag``
    ``[units]``; with a projection ``projection/kernel`` ``[units, num_proj]``.

    Args:
      num_units: the size of the memory.
      use_peepholes: whether the gates see the memory.
      cell_clip: the memory is clipped to ``[-cell_clip, cell_clip]``; None for not.
      initializer: of all variables but the bias; None for the scope's.
      num_proj: the size of the output, which is then a projection; None for `num_units` and none.
      proj_clip: the projection is clipped to ``[-proj_clip, proj_clip]``; None for not.
      num_unit_shards: splits the kernel, as ``fixed_size_partitioner`` does. Give the scope a partitioner instead.
      num_proj_shards: likewise, for the projection.
      forget_bias: added to the forget gate. Set it to 0 for weights that come from cuDNN.
      state_is_tuple: whether the state is an `LSTMStateTuple`, or one array of both side by side.
      activation: a function such as `jax.nn.relu`, its name, or None for tanh.
      reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them.
      name: the scope's name instead of ``lstm_cell``.
      dtype: of the variables; by default the inputs'.
      trainable: whether optimizers touch the variables.

    Raises:
      InvalidArgumentError: a size is negative; in a call, inputs or state that do not fit.
      InvalidTypeError: in a call, a state that is no pair.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> cell = jv.nn.rnn_cell.LSTMCell(8, use_peepholes=True, num_proj=3)
      >>> model = jv.transform(lambda x: jv.nn.dynamic_rnn(cell, x, dtype="float32"))
      >>> variables = model.init(0, jnp.ones([2, 5, 4]))
      >>> outputs, state = model(variables, jnp.ones([2, 5, 4]))
      >>> outputs.shape, state.c.shape, variables["rnn/lstm_cell/projection/kernel"].shape
      ((2, 5, 3), (2, 8), (8, 3))
    """

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: int | None = None,
        num_proj_shards: int | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(trainable, name, dtype, _reuse=reuse)
        self._num_units = self._units(num_units)
        self._use_peepholes = use_peepholes
        self._cell_clip = _clip(cell_clip, "cell_clip")
        self._initializer = initializer
        self._num_proj = None if num_proj is None else self._units(num_proj, "num_proj")
        self._proj_clip = _clip(proj_clip, "proj_clip")
        self._num_unit_shards = num_unit_shards
        self._num_proj_shards = num_proj_shards
        self._forget_bias = forget_bias
        self._state_is_tuple = state_is_tuple
        self._activation = self._function(activation)

    @property
    def output_size(self) -> int:
        """`num_proj`, or `num_units` without a projection."""
        return self._num_units if self._num_proj is None else self._num_proj

    def call(self, inputs: Any, state: Any) -> tuple[jax.Array, Any]:
        """Compute ``(output, new_state)``."""
        x, c, h = self._split(inputs, state)
        kernel, bias, (w_f, w_i, w_o), projection = self._make(x.shape[1])
        sigmoid, activation = jax.nn.sigmoid, self._activation
        i, j, f, o = jnp.split(affine([x, h], kernel, bias), 4, axis=1)
        forget = sigmoid(_seeing(f + self._forget_bias, w_f, c))
        c = forget * c + sigmoid(_seeing(i, w_i, c)) * activation(j)
        if self._cell_clip is not None:
            c = jnp.clip(c, -self._cell_clip, self._cell_clip)
        h = sigmoid(_seeing(o, w_o, c)) * activation(c)
        if projection is not None:
            h = h @ jnp.asarray(projection)
            if self._proj_clip is not None:
                h = jnp.clip(h, -self._proj_clip, self._proj_clip)
        return h, self._joined(c, h)

    def _make(self, depth: int) -> tuple[Any, Any, tuple[Any, ...], Any]:
        """Kernel, bias, peepholes and projection, in TF1's order; None for what there is not."""
        units = self._num_units
        kernel = self.add_weight(
            "kernel",
            [depth + self.output_size, 4 * units],
            initializer=self._initializer,
            partitioner=_partitioner(self._num_unit_shards),
        )
        bias = self.add_weight("bias", [4 * units], initializer=zeros_initializer)
        peepholes = tuple(
            self.add_weight(f"w_{gate}_diag", [units], initializer=self._initializer) if self._use_peepholes else None
            for gate in "fio"
        )
        projection = None
        if self._num_proj is not None:
            projection = self.add_weight(
                "projection/kernel",
                [units, self._num_proj],
                initializer=self._initializer,
                partitioner=_partitioner(self._num_proj_shards),
            )
        return kernel, bias, peepholes, projection


def _seeing(gate: jax.Array, peephole: Any, c: jax.Array) -> jax.Array:
    """A gate that sees the memory through its peephole, if there is one."""
    return gate if peephole is None else gate + jnp.asarray(peephole).reshape(1, -1) * c


def _partitioner(shards: int | None) -> Any:
    return None if shards is None else fixed_size_partitioner(shards)


def _clip(value: Any, argument: str) -> Any:
    if isinstance(value, int | float) and value < 0:
        raise InvalidArgumentError(f"LSTMCell: {argument} is a number >= 0, got {value!r}")
    return value


def _described(state: Any) -> str:
    return f"shape {jnp.shape(state)}" if hasattr(state, "shape") else f"{state!r:.60}"

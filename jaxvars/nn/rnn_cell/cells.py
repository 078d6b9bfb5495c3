"""The plain cells: `BasicRNNCell` and `GRUCell`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.initializers import constant_initializer, zeros_initializer
from jaxvars.nn.rnn_cell.base import Function
from jaxvars.nn.rnn_cell.layer_cell import LayerRNNCell

__all__ = ["BasicRNNCell", "GRUCell", "affine"]


def affine(parts: list[jax.Array], kernel: Any, bias: Any) -> jax.Array:
    """Multiply the parts, side by side, by the kernel, and add the bias."""
    return jnp.concatenate(parts, axis=1) @ jnp.asarray(kernel) + jnp.asarray(bias).reshape(1, -1)


class BasicRNNCell(LayerRNNCell):
    """The most basic cell: ``act([inputs, state] @ kernel + bias)`` (``tf.nn.rnn_cell.BasicRNNCell``).

    Variables ``basic_rnn_cell/kernel`` ``[depth + units, units]`` and ``bias`` ``[units]``.

    Args:
      num_units: the size of state and output.
      activation: a function such as `jax.nn.relu`, its name, or None for tanh.
      reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them.
      name: the scope's name instead of ``basic_rnn_cell``.
      dtype: of the variables; by default the inputs'.
      trainable: whether optimizers touch the variables.

    Raises:
      InvalidArgumentError: `num_units` is negative; in a call, inputs or state that do not fit.

    Example:
      >>> import jaxvars as jv
      >>> with jv.VariableStore(0) as store:
      ...     cell = jv.nn.rnn_cell.BasicRNNCell(3)
      ...     output, state = cell(jax.numpy.ones([2, 4]), cell.zero_state(2, "float32"))
      >>> output.shape, list(store.variables)
      ((2, 3), ['basic_rnn_cell/bias', 'basic_rnn_cell/kernel'])
    """

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(trainable, name, dtype, _reuse=reuse)
        self._num_units = self._units(num_units)
        self._activation: Function = self._function(activation)

    @property
    def state_size(self) -> int:
        """The number of units."""
        return self._num_units

    @property
    def output_size(self) -> int:
        """The number of units."""
        return self._num_units

    def call(self, inputs: Any, state: Any) -> tuple[jax.Array, jax.Array]:
        """Compute ``(output, new_state)``, which are the same."""
        units = self._num_units
        x, h = self._checked(inputs, (state, units))
        kernel = self.add_weight("kernel", [x.shape[1] + units, units])
        bias = self.add_weight("bias", [units], initializer=zeros_initializer)
        output = self._activation(affine([x, h], kernel, bias))
        return output, output


class GRUCell(LayerRNNCell):
    """The gated recurrent unit of Cho et al. 2014 (``tf.nn.rnn_cell.GRUCell``).

    The reset gate is applied before the matrix product, unlike in cuDNN's and Flax's units. Variables
    ``gru_cell/gates/kernel`` ``[depth + units, 2 * units]`` (reset, then update), ``gates/bias`` (ones),
    ``candidate/kernel`` ``[depth + units, units]``, ``candidate/bias`` (zeros).

    Args:
      num_units: the size of state and output.
      activation: a function such as `jax.nn.relu`, its name, or None for tanh.
      reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them.
      kernel_initializer: of both kernels; None for the scope's.
      bias_initializer: of both biases; None for ones and zeros.
      name: the scope's name instead of ``gru_cell``.
      dtype: of the variables; by default the inputs'.
      trainable: whether optimizers touch the variables.

    Raises:
      InvalidArgumentError: `num_units` is negative; in a call, inputs or state that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> cell = jv.nn.rnn_cell.GRUCell(3)
      >>> model = jv.transform(lambda x: jv.nn.dynamic_rnn(cell, x, dtype="float32"))
      >>> for name, value in model.init(0, jnp.ones([2, 5, 4])).items():
      ...     print(name, value.shape)
      rnn/gru_cell/candidate/bias (3,)
      rnn/gru_cell/candidate/kernel (7, 3)
      rnn/gru_cell/gates/bias (6,)
      rnn/gru_cell/gates/kernel (7, 6)
    """

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(trainable, name, dtype, _reuse=reuse)
        self._num_units = self._units(num_units)
        self._activation: Function = self._function(activation)
        self._kernel_initializer = kernel_initializer
        self._bias_initializer = bias_initializer

    @property
    def state_size(self) -> int:
        """The number of units."""
        return self._num_units

    @property
    def output_size(self) -> int:
        """The number of units."""
        return self._num_units

    def call(self, inputs: Any, state: Any) -> tuple[jax.Array, jax.Array]:
        """Compute ``(output, new_state)``, which are the same."""
        units = self._num_units
        x, h = self._checked(inputs, (state, units))
        gates = jax.nn.sigmoid(affine([x, h], *self._pair("gates", x, 2 * units, constant_initializer(1.0))))
        reset, update = jnp.split(gates, 2, axis=1)
        candidate = affine([x, reset * h], *self._pair("candidate", x, units, zeros_initializer))
        output = update * h + (1 - update) * self._activation(candidate)
        return output, output

    def _pair(self, name: str, x: jax.Array, columns: int, bias_initializer: Any) -> tuple[Any, Any]:
        given = self._bias_initializer
        rows = x.shape[1] + self._num_units
        return (
            self.add_weight(f"{name}/kernel", [rows, columns], initializer=self._kernel_initializer),
            self.add_weight(f"{name}/bias", [columns], initializer=bias_initializer if given is None else given),
        )

"""`LayerRNNCell`: what TF1's own cells have in common."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.nn.rnn_cell.base import Function, RNNCell

__all__ = ["LayerRNNCell"]

_ACTIVATIONS: dict[str, Function] = {
    "linear": lambda x: x,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
}


class LayerRNNCell(RNNCell):
    """What TF1's own cells have in common: matrices in, and a scope that is counted as a layer's is."""

    _enters_surroundings = False

    def _checked(self, inputs: Any, *states: tuple[Any, int]) -> list[jax.Array]:
        """`inputs` and states as matrices of one batch and dtype; each state comes with its size."""
        x = jnp.asarray(inputs)
        if x.ndim != 2:
            raise InvalidArgumentError(
                f'Input 0 of layer "{self.name}" is incompatible with the layer: expected ndim=2, found '
                f"ndim={x.ndim}. Full shape received: {x.shape}. A cell takes one step, [batch, depth]; "
                "jv.nn.dynamic_rnn takes [batch, time, depth]."
            )
        found = [x]
        for given, size in states:
            state = jnp.asarray(given)
            if state.shape != (x.shape[0], size):
                raise InvalidArgumentError(
                    f"{self.name}: dimensions must be equal: the state is [batch, units] = [{x.shape[0]}, {size}] for "
                    f"inputs {x.shape}, and got shape {state.shape}. Write: cell.zero_state(batch_size, dtype)"
                )
            found.append(state)
        for array in found:
            if not jnp.issubdtype(array.dtype, jnp.inexact):
                raise InvalidArgumentError(
                    f"RNN cell only supports floating point inputs, but received dtype: {array.dtype}. Write: "
                    "jnp.asarray(inputs, jnp.float32)"
                )
        dtypes = {array.dtype for array in found} | ({jnp.dtype(self._dtype)} if self._dtype else set())
        if len(dtypes) > 1:
            raise InvalidTypeError(
                f"{self.name}: inputs, state and variables must have one type, got {x.dtype} inputs that do not match "
                f"{', '.join(str(d) for d in dtypes if d != x.dtype)}. Cast: inputs.astype(...), or "
                f'cell.zero_state(batch_size, "{x.dtype}")'
            )
        return found

    def _units(self, value: Any, argument: str = "num_units") -> int:
        if not isinstance(value, int | np.integer) or value < 0:
            raise InvalidArgumentError(f"{type(self).__name__}: {argument} is an int >= 0, got {value!r}")
        return int(value)

    def _function(self, activation: Any) -> Function:
        """The activation: a function, TF's name of one, or None for tanh."""
        function = _ACTIVATIONS.get(activation) if isinstance(activation, str) else activation or jnp.tanh
        if not callable(function):
            raise InvalidTypeError(
                f"{type(self).__name__}: activation is a function such as jax.nn.relu, or one of "
                f"{', '.join(_ACTIVATIONS)}; got {activation!r}"
            )
        return function

"""What layers with a kernel share: a bias, an activation, and which inputs they take."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.layers.base import Function, Layer, WeightRules
from jaxvars.scopes import GraphKeys, VariableScope
from jaxvars.store import add_to_collection

__all__ = ["KernelLayer", "checked_input"]


class KernelLayer(Layer):
    """What dense layers and convolutions share: a kernel, a bias, an activation."""

    def __init__(
        self,
        activation: Function | None,
        use_bias: bool,
        kernel: WeightRules,
        bias: WeightRules,
        activity_regularizer: Function | None,
        trainable: bool,
        name: str | None,
        dtype: Any,
        *,
        _scope: str | VariableScope | None = None,
        _reuse: Any = None,
    ) -> None:
        super().__init__(trainable, name, dtype, _scope=_scope, _reuse=_reuse)
        self.activation = activation
        self.use_bias = use_bias
        self.activity_regularizer = activity_regularizer
        self._kernel = kernel
        self._bias = bias

    @property
    def kernel(self) -> Any:
        """The handle of the kernel, after the first call."""
        return self._weight("kernel")

    @property
    def bias(self) -> Any:
        """The handle of the bias, after the first call; None without one."""
        return self._weight("bias") if self.use_bias else None

    def _finish(self, x: jax.Array) -> jax.Array:
        """Apply the activation, and collect the loss of the activity regularizer."""
        if self.activation is not None:
            x = self.activation(x)
        if self.activity_regularizer is not None:
            loss = self.activity_regularizer(x)
            if loss is not None:
                add_to_collection(GraphKeys.REGULARIZATION_LOSSES, loss)
        return x

    def _checked(self, inputs: Any, ndim: int, *, exactly: bool = False) -> jax.Array:
        """The input as an array, after a check of what can be wrong before anything is made."""
        if self.activation is not None and not callable(self.activation):
            raise InvalidTypeError(
                f"{self._kind}: activation is a function such as jax.nn.relu, or None, not {self.activation!r}"
            )
        return checked_input(inputs, self._kind, ndim, exactly=exactly, dtype=self.dtype)


def checked_input(inputs: Any, layer: str, min_ndim: int, *, exactly: bool = False, dtype: Any = None) -> jax.Array:
    """Return `inputs` as a floating array, after a check of its rank; of `dtype`, where that is given."""
    x = jnp.asarray(inputs)
    if x.ndim < min_ndim or (exactly and x.ndim != min_ndim):
        kind = "ndim" if exactly else "min_ndim"
        raise InvalidArgumentError(
            f"{layer}: the input is incompatible with the layer: expected {kind}={min_ndim}, found "
            f"ndim={x.ndim}. Full shape received: {x.shape}"
        )
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise InvalidTypeError(f"{layer} takes floating numbers, got {x.dtype}. Cast: inputs.astype(jnp.float32)")
    return x if dtype is None else x.astype(dtype)

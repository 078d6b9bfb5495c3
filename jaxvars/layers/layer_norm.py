"""Layer normalization (`tf.contrib.layers.layer_norm`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars import nn
from jaxvars.arg_scope import add_arg_scope
from jaxvars.errors import InvalidArgumentError
from jaxvars.initializers import ones_initializer, zeros_initializer
from jaxvars.layers._kernel import checked_input
from jaxvars.layers.base import Function, Layer
from jaxvars.scopes import GraphKeys
from jaxvars.store import add_to_collections

__all__ = ["LayerNorm", "layer_norm"]


class LayerNorm(Layer):
    """Normalize each example on its own: `layer_norm` as an object, whose calls share its variables.

    Args:
      center: as in `layer_norm`, as what follows.
      scale: likewise.
      activation_fn: likewise.
      trainable: likewise.
      begin_norm_axis: likewise.
      begin_params_axis: likewise.
      name: the scope's name, made unique: ``LayerNorm``, ``LayerNorm_1``, ...
      dtype: of the variables; None for the input's.
      variables_collections: as in `layer_norm`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.LayerNorm()(x))
      >>> list(model.specs(jnp.ones([2, 3])))
      ['LayerNorm/beta', 'LayerNorm/gamma']
    """

    def __init__(
        self,
        center: bool = True,
        scale: bool = True,
        activation_fn: Function | None = None,
        trainable: bool = True,
        begin_norm_axis: int = 1,
        begin_params_axis: int = -1,
        name: str | None = None,
        dtype: Any = None,
        *,
        variables_collections: Sequence[str] = (),
        _scope: Any = None,
        _reuse: Any = None,
    ) -> None:
        super().__init__(trainable, name or "LayerNorm", dtype, _scope=_scope, _reuse=_reuse)
        self.center = center
        self.scale = scale
        self.activation_fn = activation_fn
        self.begin_norm_axis = begin_norm_axis
        self.begin_params_axis = begin_params_axis
        self._collections = [GraphKeys.GLOBAL_VARIABLES, GraphKeys.MODEL_VARIABLES, *variables_collections]

    @property
    def gamma(self) -> Any:
        """The handle of the factor, after the first call; None without one."""
        return self._weight("gamma") if self.scale else None

    @property
    def beta(self) -> Any:
        """The handle of the offset, after the first call; None without one."""
        return self._weight("beta") if self.center else None

    def check(self, inputs: Any) -> jax.Array:
        """Refuse integers and axes out of range."""
        x = checked_input(inputs, "layer_norm", 1, dtype=self.dtype)
        for argument in ("begin_norm_axis", "begin_params_axis"):
            axis = getattr(self, argument)
            if not -x.ndim <= axis < x.ndim:
                raise InvalidArgumentError(
                    f"layer_norm: {argument} ({axis}) must be < rank(inputs) ({x.ndim}). inputs {x.shape}"
                )
        return x

    def build(self, input_shape: Any) -> None:
        """Make beta and gamma."""
        shape = tuple(input_shape)[self.begin_params_axis :]
        if self.center:
            self.add_weight("beta", shape, None, zeros_initializer, collections=self._collections)
        if self.scale:
            self.add_weight("gamma", shape, None, ones_initializer, collections=self._collections)

    def call(self, inputs: jax.Array) -> jax.Array:
        """Normalize."""
        wide = inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32))
        first = self.begin_norm_axis % wide.ndim
        mean, variance = nn.moments(wide, range(first, wide.ndim), keepdims=True)
        # A variance in float16 cannot tell smaller numbers from 0; contrib's figures.
        epsilon = 1e-3 if inputs.dtype == jnp.float16 else 1e-12
        offset, factor = (None if v is None else jnp.asarray(v).astype(wide.dtype) for v in (self.beta, self.gamma))
        y = nn.batch_normalization(wide - mean, 0.0, variance, offset, factor, epsilon).astype(inputs.dtype)
        return y if self.activation_fn is None else self.activation_fn(y)


@add_arg_scope
def layer_norm(
    inputs: Any,
    center: bool = True,
    scale: bool = True,
    activation_fn: Function | None = None,
    reuse: Any = None,
    variables_collections: Sequence[str] | None = None,
    outputs_collections: str | Sequence[str] | None = None,
    trainable: bool = True,
    begin_norm_axis: int = 1,
    begin_params_axis: int = -1,
    scope: Any = None,
) -> jax.Array:
    """Normalize each example by its own mean and variance (`tf.contrib.layers.layer_norm`).

    Variables ``<scope>/beta`` and ``<scope>/gamma``, of the shape of the axes from `begin_params_axis` on; the scope
    is `scope`, or ``LayerNorm``, ``LayerNorm_1``, ... BERT normalizes over the last axis only: ``begin_norm_axis=-1``.

    Args:
      inputs: ``[batch, ...]``, floating; the variables have its dtype.
      center: whether there is an offset, beta.
      scale: whether there is a factor, gamma.
      activation_fn: a function such as `jax.nn.relu`, or None.
      reuse: True to share variables that exist, `jv.AUTO_REUSE` to make or share them.
      variables_collections: collections that the variables join, besides GLOBAL_VARIABLES and MODEL_VARIABLES.
      outputs_collections: names of collections that the result joins.
      trainable: whether optimizers touch the variables.
      begin_norm_axis: the first axis that is averaged over, with all that follow.
      begin_params_axis: the first axis along which beta and gamma differ.
      scope: the scope's name, taken as it is, or a captured scope.

    Returns:
      An array like `inputs`.

    Raises:
      InvalidArgumentError: an axis out of range, or what `get_variable` refuses.
      InvalidTypeError: integer inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> model = jv.transform(lambda x: jv.layers.layer_norm(x, begin_norm_axis=-1))
      >>> x = jnp.array([[1.0, 3.0], [10.0, 30.0]])
      >>> variables = model.init(0, x)
      >>> print(list(variables), model(variables, x))
      ['LayerNorm/beta', 'LayerNorm/gamma'] [[-1.  1.]
       [-1.  1.]]
    """
    layer = LayerNorm(
        center,
        scale,
        activation_fn,
        trainable,
        begin_norm_axis,
        begin_params_axis,
        variables_collections=variables_collections or (),
        _scope=scope,
        _reuse=reuse,
    )
    y = layer(inputs)
    if outputs_collections is not None:
        add_to_collections(outputs_collections, y)
    return y

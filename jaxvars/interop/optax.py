"""optax by name rules: masks and labels as functions, for wherever optax takes one, and a factor for each variable.

optax asks for a mask before the variables exist, or for one that fits whatever it is given: so it takes a function of
the parameters. `Variables.mask` and `Variables.labels` give the same for variables that are at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxvars.errors import InvalidTypeError
from jaxvars.train.transformations import require_optax
from jaxvars.variables import Variables

__all__ = ["labels", "mask", "scale_by_name"]

_UNSET: Any = object()


def mask(rules: Any, *, allow_unmatched: bool = False) -> Callable[[Any], Variables]:
    """Return a function that marks variables by name, for ``mask=`` of ``optax.adamw``, ``masked``, ``freeze``, ...

    Args:
      rules: as for `Variables.select`: a pattern, or a list in which ``(pattern, None)`` leaves out.
      allow_unmatched: accept patterns that match nothing.

    Returns:
      ``variables -> tree of bools``. It raises what `Variables.mask` raises, and InvalidTypeError for other trees.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import jaxvars as jv
      >>> decayed = jv.interop.optax.mask(".*/kernel")
      >>> optimizer = jv.train.Optimizer(optax.adamw(1e-3, weight_decay=0.1, mask=decayed), name="AdamW")
      >>> variables = jv.Variables({"fc/kernel": jnp.ones((2, 2)), "fc/bias": jnp.ones(2)})
      >>> dict(decayed(variables))
      {'fc/bias': False, 'fc/kernel': True}
      >>> variables = optimizer.init(variables)
    """

    def marks(variables: Any) -> Variables:
        return _checked(variables, "mask").mask(rules, allow_unmatched=allow_unmatched)

    return marks


def labels(rules: Any, *, default: Any = _UNSET, allow_unmatched: bool = False) -> Callable[[Any], Variables]:
    """Return a function that labels variables by name, for ``optax.partition``.

    Args:
      rules: a dict or list of (pattern, label).
      default: the label of variables that no rule matches.
      allow_unmatched: accept patterns that match nothing.

    Returns:
      ``variables -> tree of labels``. It raises what `Variables.labels` raises, and InvalidTypeError for other trees.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import jaxvars as jv
      >>> parts = jv.interop.optax.labels({"head/": "head"}, default="body")
      >>> transformation = optax.partition({"head": optax.adam(1e-3), "body": optax.sgd(1e-2)}, parts)
      >>> variables = jv.Variables({"head/bias": jnp.ones(2), "conv/bias": jnp.ones(2)})
      >>> optimizer = jv.train.Optimizer(transformation, name="Parts")
      >>> [name for name in optimizer.init(variables) if "/mu" in name]
      ['head/bias/Parts/inner_states/head/inner_state/mu']
    """
    given = {} if default is _UNSET else {"default": default}

    def labelled(variables: Any) -> Variables:
        return _checked(variables, "labels").labels(rules, allow_unmatched=allow_unmatched, **given)

    return labelled


def scale_by_name(rules: Any, *, default: Any = 1.0, allow_unmatched: bool = False) -> Any:
    """Return the optax transformation that multiplies the updates of each variable by a factor: learning rates by name.

    It comes after the optimizer in a chain, and has no state.

    Args:
      rules: a dict or list of (pattern, factor); a factor of 0 leaves the variables as they are.
      default: the factor of variables that no rule matches.
      allow_unmatched: accept patterns that match nothing.

    Raises:
      UnavailableError: optax is not installed.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import jaxvars as jv
      >>> slower = jv.interop.optax.scale_by_name({"body/": 0.1})
      >>> optimizer = jv.train.Optimizer(optax.chain(optax.sgd(1.0), slower))
      >>> variables = jv.Variables({"body/bias": jnp.ones(2), "head/bias": jnp.ones(2)})
      >>> variables = optimizer.apply_gradients(variables, optimizer.init(variables))
      >>> print(variables["body/bias"], variables["head/bias"])
      [0.9 0.9] [0. 0.]
    """
    factors = labels(rules, default=default, allow_unmatched=allow_unmatched)

    def scaled(factor: Any, update: Any) -> Any:
        # Below optax.masked an update may be a node without leaves.
        return jax.tree.map(lambda u: u * factor, update)

    return require_optax().stateless(lambda updates, params: jax.tree.map(scaled, factors(updates), updates))


def _checked(variables: Any, what: str) -> Variables:
    if not isinstance(variables, Variables):
        raise InvalidTypeError(
            f"{what} by name rules is for Variables, got {type(variables).__name__}. "
            "Give optax variables.trainable, or Variables.from_nested(params)"
        )
    return variables

"""Between `Variables` and the variable dicts of Flax Linen: ``{"params": {...}, "batch_stats": {...}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxvars.errors import InvalidTypeError
from jaxvars.interop.collections import flat, from_collections, nested, to_collections
from jaxvars.interop.linen_modules import unboxed
from jaxvars.interop.trees import check_variables
from jaxvars.variables import Variables

__all__ = ["from_linen", "to_linen"]


def from_linen(tree: Any, prefix: str = "") -> Variables:
    """Return what ``module.init`` of Flax Linen returns as variables, under the names that `linen` gives them.

    Args:
      tree: collection -> nested dicts of arrays; boxed values lose their box.
      prefix: the scope of the module.

    Returns:
      ``"Dense_0/kernel"`` for ``{"params": {"Dense_0": {"kernel": x}}}``. Those of ``params`` are trainable; all are in
      a collection of their collection's name. Where two collections have one path, the name of the second begins with
      its collection: ``"cache/attention/kernel"``.

    Raises:
      InvalidTypeError: `tree` is no dict of dicts, or a key is no string or contains "/".
      InvalidArgumentError: two arrays get one name.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> import jaxvars as jv
      >>> variables = jv.interop.from_linen(nn.BatchNorm(True).init(jax.random.key(0), jnp.ones([1, 2])), "norm")
      >>> list(variables), list(variables.trainable)
      (['norm/bias', 'norm/mean', 'norm/scale', 'norm/var'], ['norm/bias', 'norm/scale'])
    """
    if not isinstance(tree, Mapping) or not all(isinstance(branch, Mapping) for branch in tree.values()):
        raise InvalidTypeError(
            f"from_linen takes a dict of collections, as module.init returns it, got {_shown(tree)}. Write: "
            'jv.interop.from_linen({"params": params})'
        )
    branches = {str(name): flat(branch, "from_linen") for name, branch in tree.items()}
    leaves = {(name, path): unboxed(leaf) for name, branch in branches.items() for path, leaf in branch.items()}
    return from_collections(leaves, prefix)


def to_linen(variables: Variables, prefix: str = "") -> dict[str, Any]:
    """Return variables as Flax Linen holds them, for ``module.apply``: the inverse of `from_linen`.

    Variables of jaxvars' own models, and such as optimizer slots, are told apart by `trainable`: they are in ``params``
    or in ``state``.

    Args:
      variables: the state.
      prefix: the scope of the module, taken off the names; the variables outside of it are left out.

    Returns:
      Collection -> nested dicts. The arrays are those of `variables`, not copies.

    Raises:
      NotFoundError: there is no such scope.
      InvalidArgumentError: within one collection a name is both a variable and a scope.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.interop.to_linen(jv.Variables({"net/fc/bias": jnp.zeros(1)}), "net")
      {'params': {'fc': {'bias': Array([0.], dtype=float32)}}}
    """
    check_variables(variables, "to_linen")
    found = to_collections(variables, prefix)
    return {collection: nested(values, "to_linen") for collection, values in found.items()}


def _shown(tree: Any) -> str:
    if isinstance(tree, Mapping):
        leaves = [str(key) for key, branch in tree.items() if not isinstance(branch, Mapping)]
        return f"one with arrays at the top: {', '.join(leaves[:5])}"
    return type(tree).__name__

"""Between `Variables` and the variable dicts of Flax Linen: ``{"params": {...}, "batch_stats": {...}}``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxvars.errors import InvalidTypeError
from jaxvars.interop.collections import PARAMS, STATE, flat, from_collections, nested, to_collections
from jaxvars.interop.linen_modules import unboxed
from jaxvars.interop.trees import check_variables
from jaxvars.variables import Variables

__all__ = ["from_linen", "to_linen"]

# Names of collections in Flax and in much that is built on it: a dict with none of them is one of modules.
_COLLECTIONS = frozenset(
    {PARAMS, STATE, "batch_stats", "cache", "intermediates", "losses", "metrics", "params_axes", "perturbations"}
)


def from_linen(tree: Any, prefix: str = "", *, copy: bool = True) -> Variables:
    """Return what ``module.init`` of Flax Linen returns as variables, under the names that `linen` gives them.

    Args:
      tree: collection -> nested dicts of arrays; boxed values lose their box.
      prefix: the scope of the module.
      copy: whether the arrays are copies. Without, they are those of the tree: half the memory, and a step that
        donates the variables deletes them there too.

    Returns:
      ``"Dense_0/kernel"`` for ``{"params": {"Dense_0": {"kernel": x}}}``. Those of ``params`` are trainable; all are in
      a collection of their collection's name. Where two collections have one path, the name of the second begins with
      its collection: ``"cache/attention/kernel"``.

    Raises:
      InvalidTypeError: `tree` is no dict of dicts, or has modules where collections belong; a key is no string or
        contains "/".
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
    if tree and not _COLLECTIONS & set(map(str, tree)):
        raise InvalidTypeError(
            f'from_linen got no collection "params", but {_listed(tree)}. Write: '
            'jv.interop.from_linen({"params": tree}), or where these are collections: '
            'jv.interop.from_linen({"params": {}, **tree})'
        )
    branches = {str(name): flat(branch, "from_linen") for name, branch in tree.items()}
    leaves = {(name, path): unboxed(leaf) for name, branch in branches.items() for path, leaf in branch.items()}
    return from_collections(leaves, prefix, copy)


def to_linen(variables: Variables, prefix: str = "", *, copy: bool = True) -> dict[str, Any]:
    """Return variables as Flax Linen holds them, for ``module.apply``: the inverse of `from_linen`.

    Variables of jaxvars' own models, and such as optimizer slots, are told apart by `trainable`: they are in ``params``
    or in ``state``. Of a state that was trained take the model's variables first, without slots and counters:
    ``variables.select(list(model.specs(*args)))``.

    Args:
      variables: the state.
      prefix: the scope of the module, taken off the names; the variables outside of it are left out.
      copy: whether the arrays are copies. Without, they are those of `variables`: a step that donates the one deletes
        the other.

    Returns:
      Collection -> nested dicts.

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
    found = to_collections(variables, prefix, copy)
    return {collection: nested(values, "to_linen") for collection, values in found.items()}


def _shown(tree: Any) -> str:
    if isinstance(tree, Mapping):
        leaves = [str(key) for key, branch in tree.items() if not isinstance(branch, Mapping)]
        return f"one with arrays at the top: {_listed(leaves)}"
    return type(tree).__name__


def _listed(keys: Iterable[Any]) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

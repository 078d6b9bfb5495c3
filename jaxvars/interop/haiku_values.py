"""Between `Variables` and Haiku's dicts of parameters and state: ``{"mlp/~/linear_0": {"w": x}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxvars.errors import InvalidTypeError
from jaxvars.interop.collections import PARAMS, STATE, from_collections, to_collections
from jaxvars.interop.trees import check_variables
from jaxvars.variables import Variables

__all__ = ["from_haiku", "to_haiku"]

# Where Haiku keeps what is made outside of all modules.
_TOP = "~"


def from_haiku(params: Any, state: Any = None, prefix: str = "", *, copy: bool = True) -> Variables:
    """Return Haiku's parameters and state as variables, under the names that `haiku` gives them.

    Args:
      params: module name -> parameter name -> array.
      state: the same, or None.
      prefix: a scope for the names.
      copy: whether the arrays are copies. Without, they are those of the dicts: half the memory, and a step that
        donates the variables deletes them there too.

    Returns:
      ``"mlp/~/linear_0/w"`` for ``{"mlp/~/linear_0": {"w": x}}``. Parameters are trainable; state is not, and is in the
      collection ``"state"``. A state of the name of a parameter is ``"state/..."``.

    Raises:
      InvalidTypeError: not dicts of dicts, or the name of a parameter contains "/"; all such are listed.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> list(jv.interop.from_haiku({"mlp/~/linear_0": {"w": jnp.ones(2)}}, prefix="net"))
      ['net/mlp/~/linear_0/w']
    """
    leaves: dict[tuple[str, str], Any] = {}
    problems: list[str] = []
    for collection, tree in ((PARAMS, params), (STATE, {} if state is None else state)):
        if not isinstance(tree, Mapping) or not all(isinstance(branch, Mapping) for branch in tree.values()):
            raise InvalidTypeError(
                "from_haiku takes dicts {module: {name: array}}, as hk.transform_with_state(fn).init returns two of: "
                "jv.interop.from_haiku(params, state)"
            )
        for module, branch in tree.items():
            problems += [f"  {name!r} of {module!r}" for name in branch if "/" in name]
            leaves |= {(collection, f"{module}/{name}"): leaf for name, leaf in branch.items()}
    if problems:
        lines = ["from_haiku: names of parameters without '/', so that they come back as they were:", *problems]
        raise InvalidTypeError("\n".join(lines))
    return from_collections(leaves, prefix, copy)


def to_haiku(variables: Variables, prefix: str = "", *, copy: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``(params, state)`` as Haiku holds them: the inverse of `from_haiku`.

    Args:
      variables: the state; of jaxvars' own models the trainable ones are parameters, the others state.
      prefix: the scope, taken off the names; the variables outside of it are left out.
      copy: whether the arrays are copies. Without, they are those of `variables`: a step that donates the one deletes
        the other.

    Returns:
      Two dicts, module name -> parameter name -> array; a name without a scope is in the module ``"~"``.

    Raises:
      NotFoundError: there is no such scope.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> jv.interop.to_haiku(jv.Variables({"net/linear/b": jnp.zeros(1)}), "net")
      ({'linear': {'b': Array([0.], dtype=float32)}}, {})
    """
    check_variables(variables, "to_haiku")
    found = to_collections(variables, prefix, copy)
    return _by_module(found.get(PARAMS, {})), _by_module(found.get(STATE, {}))


def _by_module(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        module, _, name = path.rpartition("/")
        tree.setdefault(module or _TOP, {})[name] = value
    return tree

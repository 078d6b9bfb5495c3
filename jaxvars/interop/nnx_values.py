"""Between `Variables` and the state of Flax NNX modules, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxvars.interop.collections import STATE, module_spec
from jaxvars.interop.trees import check_values, check_variables, is_array, joined, owned
from jaxvars.variables import Variables

if TYPE_CHECKING:
    from flax import nnx

__all__ = ["collection_name", "flat_state", "from_nnx", "named_state", "to_nnx", "value_of", "with_value"]


def from_nnx(module: nnx.Module | nnx.State[Any, Any], prefix: str = "", *, copy: bool = True) -> Variables:
    """Return the state of a Flax NNX module as variables, under the names that `interop.nnx` gives them.

    Args:
      module: a module, or its state, or a part of it such as ``nnx.state(module, nnx.Param)``.
      prefix: a scope for the names.
      copy: whether the arrays are copies. Without, they are those of the module: half the memory, and a step that
        donates the variables deletes them there too.

    Returns:
      ``"layers/0/kernel"`` for ``module.layers[0].kernel``. Those of type ``nnx.Param`` are trainable; each is in a
      collection of its type's name, ``params``, ``batch_stats``, .... References that are shared are one variable.

    Example:
      >>> from flax import nnx
      >>> import jaxvars as jv
      >>> variables = jv.interop.from_nnx(nnx.BatchNorm(2, rngs=nnx.Rngs(0)), prefix="norm")
      >>> list(variables), list(variables.trainable)
      (['norm/bias', 'norm/mean', 'norm/scale', 'norm/var'], ['norm/bias', 'norm/scale'])
    """
    from flax import nnx

    leaves = {joined(prefix, name): leaf for name, leaf in named_state(nnx.state(module)).items()}
    values = Variables(owned({name: value_of(leaf) for name, leaf in leaves.items()}, copy))
    pairs = [
        (module_spec(name, values[name], collection_name(leaf), isinstance(leaf, nnx.Param)), values[name])
        for name, leaf in leaves.items()
    ]
    return Variables.from_specs(pairs)


def to_nnx(
    variables: Variables, like: nnx.Module | nnx.State[Any, Any], prefix: str = "", *, copy: bool = True
) -> nnx.State[Any, Any]:
    """Return a state for ``nnx.update(module, state)``, or for ``nnx.merge``: the inverse of `from_nnx`.

    Args:
      variables: the state; what `like` has no place for is passed over.
      like: a module or state of the same structure; ``nnx.eval_shape(lambda: Net(rngs=nnx.Rngs(0)))`` will do.
      prefix: the scope of the names.
      copy: whether the arrays are copies. Without, they are those of `variables`: a step that donates the one deletes
        the other.

    Returns:
      The state of `like`, of the same types and metadata, with the values of `variables`.

    Raises:
      NotFoundError: variables are missing.
      InvalidArgumentError: a shape or dtype differs. Either error lists all differences.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import jaxvars as jv
      >>> module = nnx.Linear(1, 2, rngs=nnx.Rngs(0))
      >>> variables = jv.assign(jv.interop.from_nnx(module), "bias", jnp.ones(2))
      >>> nnx.update(module, jv.interop.to_nnx(variables, module))
      >>> module.bias[...]
      Array([1., 1.], dtype=float32)
    """
    from flax import nnx

    check_variables(variables, "to_nnx")
    state = nnx.state(like)
    wanted = {joined(prefix, name): value_of(leaf) for name, leaf in named_state(state).items()}
    check_values(variables, wanted, "to_nnx")
    values = {name: variables[joined(prefix, name)] for name in named_state(state)}
    return with_value(state, owned(values, copy))


def named_state(state: nnx.State[Any, Any]) -> dict[str, Any]:
    """Return path -> leaf of a state, an ``nnx.Variable`` or an array, of all that hold an array."""
    return {name: leaf for name, leaf in flat_state(state).items() if is_array(value_of(leaf))}


def flat_state(state: nnx.State[Any, Any]) -> dict[str, Any]:
    """Return path -> leaf of a state, whatever it holds."""
    from flax import nnx

    return {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}


def with_value(state: nnx.State[Any, Any], values: Mapping[str, Any]) -> nnx.State[Any, Any]:
    """Return a state with these values, by path, in the place of its own."""
    from flax import nnx

    def leaf(path: Any, old: Any) -> Any:
        name = "/".join(map(str, path))
        if name not in values:
            return old
        return old.replace(values[name]) if isinstance(old, nnx.Variable) else values[name]

    return nnx.from_flat_state([(path, leaf(path, old)) for path, old in nnx.to_flat_state(state)])


def value_of(leaf: Any) -> Any:
    """Return the value of an ``nnx.Variable``; an array is its own."""
    from flax import nnx

    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def collection_name(leaf: Any) -> str:
    """Return what Flax calls the collection of a variable: by its type, such as ``batch_stats``."""
    from flax import nnx

    if not isinstance(leaf, nnx.Variable):
        return STATE
    try:
        return nnx.variable_name_from_type(type(leaf))
    except ValueError:  # a type that has no other name
        return type(leaf).__name__

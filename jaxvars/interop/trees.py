"""Between `Variables` and the arrays of any pytree, by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxvars._arguments import as_dtype
from jaxvars.buffers import copied
from jaxvars.errors import InvalidArgumentError, InvalidTypeError, NotFoundError, nearest_names
from jaxvars.spec import is_hole
from jaxvars.variables import Variables

__all__ = ["check_values", "check_variables", "from_tree", "is_array", "joined", "owned", "path_name", "to_tree"]

_ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


def from_tree(tree: Any, prefix: str = "", *, copy: bool = True) -> Variables:
    """Return the arrays of a pytree as variables, each under its path: ``{"a": [x]}`` gives ``"a/0"``.

    Arrays are those of JAX and NumPy, random keys, and `jax.ShapeDtypeStruct`, which becomes a hole. All else (Python
    numbers, functions, strings) is no variable and stays in the tree: `to_tree` finds it there.

    Args:
      tree: any pytree, such as an Equinox module, a dataclass, a state of optax.
      prefix: a scope for the names.
      copy: whether the arrays are copies. Without, they are those of the tree: half the memory, and a step that
        donates the variables deletes them there too.

    Returns:
      The variables, trainable; an array that is in the tree twice is copied anyway: each name has its own buffer.

    Raises:
      InvalidArgumentError: two leaves have one name, such as ``{"a/b": x, "a": {"b": y}}``; all are listed.
      InvalidTypeError: the tree is a single array, and there is no `prefix` to name it.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> list(jv.interop.from_tree({"layers": [jnp.zeros(2), jnp.ones(2)], "rate": 0.1}, prefix="net"))
      ['net/layers/0', 'net/layers/1']
    """
    leaves = list(_named_arrays(tree, prefix))
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    for name, place, leaf in leaves:
        if name in found:
            problems.append(f'  "{name}" from {places[name]} and from {place}')
        found[name], places[name] = leaf, place
    if problems:
        raise InvalidArgumentError("\n".join(["from_tree: several leaves get one name:", *problems]))
    return Variables(owned(found, copy))


def to_tree(variables: Variables, like: Any, prefix: str = "", *, copy: bool = True) -> Any:
    """Return a pytree with the values of variables in the places of its arrays: the inverse of `from_tree`.

    Args:
      variables: the state; what `like` has no place for is passed over.
      like: a tree of the same structure, such as the module that `from_tree` was given. Its arrays say where a value
        goes and of what shape and dtype it is; `jax.ShapeDtypeStruct` will do. All else in it is taken as it is.
      prefix: the scope of the names.
      copy: whether the arrays are copies. Without, they are those of `variables`: a step that donates the one deletes
        the other.

    Returns:
      A tree of the structure of `like`.

    Raises:
      NotFoundError: variables are missing.
      InvalidArgumentError: a shape or dtype differs. Either error lists all differences.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> tree = {"layers": [jnp.zeros(2), jnp.ones(2)], "rate": 0.1}
      >>> variables = jv.assign(jv.interop.from_tree(tree), "layers/0", jnp.full(2, 7.0))
      >>> jv.interop.to_tree(variables, tree)
      {'layers': [Array([7., 7.], dtype=float32), Array([1., 1.], dtype=float32)], 'rate': 0.1}
    """
    check_variables(variables, "to_tree")
    wanted = {name: leaf for name, _, leaf in _named_arrays(like, prefix)}
    check_values(variables, wanted, "to_tree")

    def value(path: Any, leaf: Any) -> Any:
        return values[joined(prefix, path_name(path))] if is_array(leaf) else leaf

    values = owned({name: variables[name] for name in wanted}, copy)
    return jax.tree_util.tree_map_with_path(value, like)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is a variable's value or stands for one."""
    return isinstance(leaf, _ARRAYS)


def path_name(path: Any) -> str:
    """Return a JAX key path as a name: its keys, indices and attributes, joined by "/"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def owned(values: Mapping[str, Any], copy: bool) -> dict[str, Any]:
    """Return values by name as they are, or with arrays of their own."""
    return {name: copied(value) if copy else value for name, value in values.items()}


def joined(prefix: str, name: str) -> str:
    """Return a name in a scope; either may be empty, and a scope may end in "/"."""
    prefix = prefix.removesuffix("/")
    return f"{prefix}/{name}" if prefix and name else prefix or name


def _named_arrays(tree: Any, prefix: str) -> Iterator[tuple[str, str, Any]]:
    """The arrays of a tree: their names, their places for errors, themselves."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_array(leaf):
            continue
        name = joined(prefix, path_name(path))
        if not name:
            raise InvalidTypeError(
                f"from_tree takes a tree, got a single {type(leaf).__name__}, which has no name. Write: "
                'jv.interop.from_tree(array, prefix="name")'
            )
        yield name, f"the tree{jax.tree_util.keystr(path)}", leaf


def check_variables(variables: Any, what: str) -> None:
    """Refuse anything that is not `Variables`."""
    if not isinstance(variables, Variables):
        raise InvalidTypeError(f"jv.interop.{what} takes jv.Variables first, got {type(variables).__name__}.")


def check_values(variables: Variables, wanted: dict[str, Any], what: str) -> None:
    """Raise one error that lists every name that is missing and every shape or dtype that differs.

    Args:
      variables: the state.
      wanted: name -> array or ShapeDtypeStruct, of the shape and dtype that are wanted.
      what: the public function, for the error text.

    Raises:
      NotFoundError: something is missing.
      InvalidArgumentError: all are there, and some differ.
    """
    missing = [name for name in wanted if name not in variables]
    lines: list[str] = []
    for name in missing:
        near = nearest_names(name, variables)
        lines.append(f"  {name}: missing{f'; did you mean {near[0]}?' if near else ''}")
    lines += [f"  {name}: {problem}" for name in wanted if (problem := _mismatch(variables, name, wanted[name]))]
    if lines:
        kind = NotFoundError if missing else InvalidArgumentError
        raise kind("\n".join([f"{what}: {len(lines)} of {len(wanted)} variables do not fit:", *lines]))


def _mismatch(variables: Variables, name: str, wanted: Any) -> str:
    """Return how a variable differs from what is wanted, "" where it does not or is missing."""
    if name not in variables:
        return ""
    spec = variables.variable_specs[name]
    if spec.shape != tuple(wanted.shape):
        return f"has shape {spec.shape}, and {tuple(wanted.shape)} is wanted"
    if spec.dtype != (dtype := as_dtype(wanted.dtype)):
        return f"has dtype {spec.dtype.name}, and {dtype.name} is wanted"
    if is_hole(variables[name]) and not is_hole(wanted):
        return "has no value yet"
    return ""

"""Between the names of variables and the collections of other libraries: ``{"params": {"dense": {"kernel": x}}}``.

The collection of an array is no part of its name: ``params`` and ``batch_stats`` of ``"bn"`` are ``"bn/scale"`` and
``"bn/mean"``, as TF1 has them. A variable remembers where it is from: it joins a collection of that name. Only where
two collections have one path, the second variable is called by its collection too: ``"cache/bn/scale"``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.interop.trees import joined, owned, path_name
from jaxvars.scopes import GraphKeys
from jaxvars.spec import VariableSpec, leaf_dtype, leaf_shape
from jaxvars.variables import Variables

__all__ = [
    "PARAMS",
    "STATE",
    "collection_leaves",
    "collection_of",
    "flat",
    "from_collections",
    "module_spec",
    "names_of",
    "nested",
    "own_path",
    "to_collections",
]

#: Where the trainable variables of jaxvars' own models go, and the others.
PARAMS, STATE = "params", "state"
# What is no collection of another library.
_OWN = frozenset(value for key, value in vars(GraphKeys).items() if key.isupper())


def collection_leaves(tree: Any) -> dict[tuple[str, str], Any]:
    """Return (collection, path) -> leaf of a dict of collections, in the order of the tree's leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {(str(path[0].key), path_name(path[1:])): leaf for path, leaf in leaves}


def names_of(paths: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the name of each (collection, path): the path, or where that is taken the collection and the path.

    A path that itself begins with the name of its collection gets it once more, so that the way back is exact.
    ``params`` comes first, the others in the order of their names.

    Raises:
      InvalidArgumentError: two have one name all the same; all are listed.

    Example:
      >>> names_of([("params", "bn/scale"), ("cache", "bn/scale"), ("cache", "bn/mean")])
      {('params', 'bn/scale'): 'bn/scale', ('cache', 'bn/mean'): 'bn/mean', ('cache', 'bn/scale'): 'cache/bn/scale'}
    """
    names: dict[tuple[str, str], str] = {}
    taken: dict[str, tuple[str, str]] = {}
    clashes: list[str] = []
    for collection, path in sorted(paths, key=lambda each: (each[0] != PARAMS, *each)):
        own = collection != PARAMS and (path in taken or path.startswith(f"{collection}/"))
        name = f"{collection}/{path}" if own else path
        if name in taken:
            clashes.append(f'  "{name}": {"/".join(taken[name])} and {collection}/{path}')
        names[collection, path] = name
        taken[name] = (collection, path)
    if clashes:
        raise InvalidArgumentError("\n".join(["arrays of several collections get one name:", *clashes]))
    return names


def own_path(name: str, collection: str) -> str:
    """Return the path within its collection of a variable of this name below the scope: the inverse of `names_of`."""
    return name if collection == PARAMS else name.removeprefix(f"{collection}/")


def collection_of(spec: VariableSpec) -> str:
    """Return the collection that a variable is from; for one of jaxvars' own ``params`` or ``state``."""
    if spec.trainable or PARAMS in spec.collections:  # also when it has been frozen
        return PARAMS
    return next((name for name in spec.collections if name not in _OWN), STATE)


def from_collections(leaves: Mapping[tuple[str, str], Any], prefix: str, copy: bool) -> Variables:
    """Return variables of (collection, path) -> array, or of copies; those of ``params`` are trainable.

    Raises:
      InvalidArgumentError: two get one name.
      InvalidTypeError: a leaf is no array or number.
    """
    names = {where: joined(prefix, name) for where, name in names_of(leaves).items()}
    values = Variables(owned({name: leaves[where] for where, name in names.items()}, copy))
    collections = {name: collection for (collection, _), name in names.items()}
    pairs = [
        (module_spec(name, values[name], collection, collection == PARAMS), values[name])
        for name, collection in collections.items()
    ]
    return Variables.from_specs(pairs)


def module_spec(name: str, value: Any, collection: str, trainable: bool) -> VariableSpec:
    """Return the spec that `get_variable` gives a variable of such a collection."""
    own = (GraphKeys.TRAINABLE_VARIABLES,) if trainable else ()
    collections = (GraphKeys.GLOBAL_VARIABLES, collection, *own)
    return VariableSpec(name, leaf_shape(value), leaf_dtype(value), trainable, collections)


def to_collections(variables: Variables, prefix: str, copy: bool) -> dict[str, dict[str, Any]]:
    """Return collection -> path -> value: the inverse of `from_collections`, for the variables below `prefix`."""
    prefix = prefix.removesuffix("/")
    chosen = variables.scope(prefix) if prefix else variables
    values = owned({name: chosen[name] for name in chosen}, copy)
    found: dict[str, dict[str, Any]] = {}
    for name, spec in chosen.variable_specs.items():
        collection = collection_of(spec)
        path = name.removeprefix(f"{prefix}/") if prefix else name
        found.setdefault(collection, {})[own_path(path, collection)] = values[name]
    return found


def nested(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return path -> value as nested dicts.

    Raises:
      InvalidArgumentError: a path is both a value and a scope; all such are listed.
    """
    tree: dict[str, Any] = {}
    clashes = [f'  "{up}" and "{path}"' for path in values for up in _scopes_of(path) if up in values]
    if clashes:
        lines = [f"{what}: a name cannot be both a variable and a scope in nested dicts:", *clashes]
        lines += [
            "Write one of:",
            "    variables.select(list(model.specs(*args)))    # the model's own, without slots and averages",
            "    variables.rename([(name, other_name)])",
        ]
        raise InvalidArgumentError("\n".join(lines))
    for path, value in values.items():
        *scopes, last = path.split("/")
        node = tree
        for scope in scopes:
            node = node.setdefault(scope, {})
        node[last] = value
    return tree


def _scopes_of(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def flat(tree: Any, what: str) -> dict[str, Any]:
    """Return path -> leaf of nested mappings: the inverse of `nested`.

    Raises:
      InvalidTypeError: keys that are no strings, or that contain "/"; all are listed.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if not isinstance(node, Mapping):
            found["/".join(path)] = node
            return
        for key, child in node.items():
            if not isinstance(key, str) or not key or "/" in key:
                problems.append(f"  {key!r} at {'/'.join(path) or 'the top'}")
            walk(child, (*path, str(key)))

    walk(tree, ())
    if problems:
        lines = [f"{what}: keys are strings without '/', so that they come back as they were:", *problems]
        raise InvalidTypeError("\n".join(lines))
    return found

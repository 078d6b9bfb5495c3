"""Collections: lists under a key, such as the trainable variables, and TF1's names for the keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias, cast

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["Collections", "GraphKeys", "Pending", "local_collections", "variable_collections"]


class GraphKeys:
    """The standard names of collections, as in ``tf.GraphKeys``.

    Example:
      >>> GraphKeys.TRAINABLE_VARIABLES
      'trainable_variables'
    """

    GLOBAL_VARIABLES: Final = "variables"
    LOCAL_VARIABLES: Final = "local_variables"
    METRIC_VARIABLES: Final = "metric_variables"
    MODEL_VARIABLES: Final = "model_variables"
    TRAINABLE_VARIABLES: Final = "trainable_variables"
    MOVING_AVERAGE_VARIABLES: Final = "moving_average_variables"
    CONCATENATED_VARIABLES: Final = "concatenated_variables"
    TRAINABLE_RESOURCE_VARIABLES: Final = "trainable_resource_variables"
    REGULARIZATION_LOSSES: Final = "regularization_losses"
    LOSSES: Final = "losses"
    UPDATE_OPS: Final = "update_ops"
    WEIGHTS: Final = "weights"
    BIASES: Final = "biases"
    ACTIVATIONS: Final = "activations"
    SUMMARIES: Final = "summaries"
    SUMMARY_OP: Final = "summary_op"
    GLOBAL_STEP: Final = "global_step"
    EVAL_STEP: Final = "eval_step"
    TRAIN_OP: Final = "train_op"
    INIT_OP: Final = "init_op"
    LOCAL_INIT_OP: Final = "local_init_op"
    READY_OP: Final = "ready_op"
    READY_FOR_LOCAL_INIT_OP: Final = "ready_for_local_init_op"
    SAVERS: Final = "savers"
    SAVEABLE_OBJECTS: Final = "saveable_objects"
    RESOURCES: Final = "resources"
    LOCAL_RESOURCES: Final = "local_resources"
    ASSET_FILEPATHS: Final = "asset_filepaths"
    QUEUE_RUNNERS: Final = "queue_runners"
    TABLE_INITIALIZERS: Final = "table_initializer"
    COND_CONTEXT: Final = "cond_context"
    WHILE_CONTEXT: Final = "while_context"
    VARIABLES: Final = "variables"
    """The old name of `GLOBAL_VARIABLES`."""


# Per key: the live list, and how to bring it back: its length, or a copy where a caller holds the list.
CollectionsSnapshot: TypeAlias = dict[str, tuple[list[Any], int | list[Any]]]


class Pending:
    """An item whose value is worked out when its collection is read.

    Not an abstract class: `isinstance` of one runs Python code, and each variable is asked when it joins.
    """

    __slots__ = ()

    def resolve(self) -> Any:
        """Return the value; ``None`` where there is none, and then the item is left out."""
        return None


class Collections:
    """The collections of one frame: key -> list of items, in the order they were added.

    Example:
      >>> collections = Collections()
      >>> collections.add_many(["losses", "mine", "losses"], 3.5)
      >>> collections.get("losses"), collections.get("no such key")
      ([3.5], [])
    """

    __slots__ = ("_handed_out", "_lists", "_pending")

    def __init__(self) -> None:
        self._lists: dict[str, list[Any]] = {}
        self._pending: set[str] = set()  # keys of collections that may hold a `Pending`
        self._handed_out: set[str] = set()  # keys whose live list a caller may change behind our back

    def add(self, key: str, item: Any) -> None:
        """Append `item` to the collection `key`, which is made when it does not exist."""
        if isinstance(item, Pending):
            self._pending.add(key)
        self._lists.setdefault(key, []).append(item)

    def add_plain(self, keys: Iterable[str], item: Any) -> None:
        """Append `item`, which is no `Pending`, to each of the collections `keys`."""
        lists = self._lists
        for key in keys:
            found = lists.get(key)
            if found is None:
                found = lists.setdefault(key, [])
            found.append(item)

    def add_many(self, keys: str | Iterable[str], item: Any) -> None:
        """Append `item` to each of `keys`, once to a key listed twice (``tf.add_to_collections``)."""
        for key in (keys,) if isinstance(keys, str) else dict.fromkeys(keys):
            self.add(key, item)

    def get(self, key: str, scope: str | None = None) -> list[Any]:
        """Return a copy of the collection, empty when there is none (``tf.get_collection``).

        Args:
          key: the collection's name.
          scope: a regular expression; only items whose ``name`` begins with a match are returned, and items
            without a name are left out. So ``"foo"`` matches ``foo/w:0`` and ``foobar/w:0``.

        Returns:
          The items, in the order they were added; of a `Pending` its value.

        Raises:
          InvalidArgumentError: `scope` is not a regular expression.
        """
        items = self._named(key, scope)
        if key not in self._pending:
            return items
        values = ((item, item.resolve() if isinstance(item, Pending) else item) for item in items)
        return [value for item, value in values if value is not None or not isinstance(item, Pending)]

    def _named(self, key: str, scope: str | None) -> list[Any]:
        """The items as they are, of which `scope` matches the name."""
        items = self._lists.get(key, [])
        if scope is None:
            return list(items)
        try:
            matches = re.compile(scope).match
        except re.error as error:
            raise InvalidArgumentError(
                f"The scope {scope!r} of get_collection({key!r}) is not a regular expression: {error}. "
                f"For a plain prefix write scope=re.escape({scope!r})."
            ) from error
        return [item for item in items if isinstance(name := getattr(item, "name", None), str) and matches(name)]

    def get_ref(self, key: str) -> list[Any]:
        """Return the live list itself, made when it does not exist (``tf.get_collection_ref``)."""
        self._handed_out.add(key)
        return self._lists.setdefault(key, [])

    def clear(self, key: str) -> None:
        """Drop the collection; a list that `get_ref` returned before is no longer part of it."""
        self._lists.pop(key, None)

    def keys(self) -> list[str]:
        """Return the keys of the collections that exist (``Graph.get_all_collection_keys``)."""
        return list(self._lists)

    def snapshot(self) -> CollectionsSnapshot:
        """Remember the present state, at the cost of one entry per key: lists only grow by appending."""
        return {
            key: (items, list(items) if key in self._handed_out else len(items)) for key, items in self._lists.items()
        }

    def restore(self, snapshot: CollectionsSnapshot) -> None:
        """Go back to the state that `snapshot` remembers; the live lists stay the same objects."""
        for items, state in snapshot.values():
            if isinstance(state, int):
                del items[state:]
            else:
                items[:] = state
        self._lists = {key: items for key, (items, _) in snapshot.items()}


def variable_collections(collections: object, trainable: bool) -> tuple[str, ...]:
    """Return the keys of the collections that a new variable joins, by TF1's rules.

    Args:
      collections: the ``collections`` argument: ``None`` (the global variables), or a list, tuple or set.
      trainable: whether the variable is trainable, which adds the trainable variables.

    Returns:
      The keys, each once.

    Raises:
      InvalidArgumentError: `collections` is of another type, such as a single string.
      InvalidTypeError: a key is not a string.

    Example:
      >>> variable_collections(None, True)
      ('variables', 'trainable_variables')
      >>> variable_collections(["mine", "mine"], False)
      ('mine',)
    """
    if collections is None:
        return _GLOBAL_TRAINABLE if trainable else _GLOBAL
    keys = _collection_keys(collections)
    if trainable:
        keys.append(GraphKeys.TRAINABLE_VARIABLES)
    return tuple(dict.fromkeys(keys))


def local_collections(collections: object) -> list[str]:
    """Return the ``collections`` argument that ``get_local_variable`` passes on: the local variables added.

    TF1 appended to the caller's own list, so that a list used twice grew; here that list is left alone.

    Args:
      collections: the user's argument; ``None`` or empty gives the local variables only.

    Returns:
      The keys, with `GraphKeys.LOCAL_VARIABLES` last.

    Raises:
      InvalidArgumentError: `collections` is not a list, tuple or set.
      InvalidTypeError: a key is not a string.

    Example:
      >>> local_collections(None), local_collections(["mine"])
      (['local_variables'], ['mine', 'local_variables'])
    """
    keys = [] if collections is None else _collection_keys(collections)
    if GraphKeys.LOCAL_VARIABLES not in keys:
        keys.append(GraphKeys.LOCAL_VARIABLES)
    return keys


_GLOBAL: Final = (GraphKeys.GLOBAL_VARIABLES,)
_GLOBAL_TRAINABLE: Final = (GraphKeys.GLOBAL_VARIABLES, GraphKeys.TRAINABLE_VARIABLES)


def _collection_keys(collections: object) -> list[str]:
    """The keys of a list, tuple or set, as a new list; a set is sorted, so that runs agree."""
    if not isinstance(collections, (list, tuple, set, frozenset)):
        kind = type(collections).__name__
        raise InvalidArgumentError(
            "collections argument to Variable constructor must be a list, tuple, or set. "
            f"Got {collections!r} ({kind}); write collections=[{collections!r}]."
        )
    keys: list[str] = []
    for key in cast("Iterable[object]", collections):
        if not isinstance(key, str):
            raise InvalidTypeError(f"The keys of collections are strings, got {key!r} in {collections!r}.")
        keys.append(key)
    return sorted(keys) if isinstance(collections, (set, frozenset)) else keys

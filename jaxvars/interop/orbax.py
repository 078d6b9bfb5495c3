"""`Variables` through Orbax's own checkpointers: ``CheckpointManager``, alone or beside other items, asynchronous.

``StandardSave(variables)`` and ``StandardRestore(variables)`` work too, as for any tree. What `save_args` and
`restore_args` add: holes and random keys, variables without elements, packed variables under their names; and in a
restore name rules, a comparison of all names, shapes and dtypes before anything is read (Orbax turns float32 into int32
without a word), and errors that name the variables.
"""

from __future__ import annotations

from typing import Any

from jaxvars.checkpoint.save import check_values
from jaxvars.errors import InvalidTypeError
from jaxvars.variables import Variables

__all__ = ["restore_args", "save_args"]


def save_args(variables: Variables) -> Any:
    """Return the ``args`` with which a ``CheckpointManager`` or ``Checkpointer`` saves variables.

    The checkpoint holds one flat tree of arrays; programs without jaxvars read it by ``StandardRestore()``.

    Args:
      variables: the variables; none may be a hole.

    Raises:
      InvalidTypeError: these are no `Variables`.
      FailedPreconditionError: variables are uninitialized, donated, or under a JAX transformation.

    Example:
      >>> import tempfile, jax, jaxvars as jv
      >>> import orbax.checkpoint as ocp
      >>> folder = tempfile.TemporaryDirectory()
      >>> variables = jv.Variables({"dense/bias": 1.0})
      >>> with ocp.CheckpointManager(folder.name, options=ocp.CheckpointManagerOptions(max_to_keep=2)) as manager:
      ...     saved = manager.save(100, args=jv.interop.orbax.save_args(variables))
      ...     manager.wait_until_finished()
      ...     again = manager.restore(100, args=jv.interop.orbax.restore_args(variables))
      >>> again
      Variables(1 variable, 1 elements: dense/bias float32[])
      >>> folder.cleanup()
    """
    from jaxvars.interop._orbax_handler import VariablesSave

    _check(variables, "save_args(variables)")
    check_values(variables)
    return VariablesSave(variables.unpacked())


def restore_args(into: Variables, rules: Any = None, *, strict: bool = True, cast: bool = False) -> Any:
    r"""Return the ``args`` with which a ``CheckpointManager`` or ``Checkpointer`` restores into variables.

    It reads what `save_args` wrote, and what any program saved by ``StandardSave`` or ``PyTreeSave``: a nested tree is
    read as flat names, such as ``params/dense/kernel``. A manager keeps to the kind of arguments it was used with first
    for an item: use a new one after ``StandardRestore``. Without a manager, `jv.checkpoint.restore` reads the folder.

    Args:
      into: the variables, or ``model.specs(...)``: holes are filled, values replaced. Names, flags and placement are
        theirs.
      rules: as for `jv.checkpoint.restore`: (pattern for the name here, name in the checkpoint[, transform]).
      strict: whether a name that the checkpoint lacks is an error.
      cast: whether to convert where the dtype differs but is of the same family.

    Raises:
      InvalidTypeError: these are no `Variables`.
      As `jv.checkpoint.restore`, when the manager restores.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxvars as jv
      >>> import orbax.checkpoint as ocp
      >>> folder = tempfile.TemporaryDirectory()
      >>> with ocp.CheckpointManager(folder.name) as manager:
      ...     saved = manager.save(0, args=ocp.args.StandardSave({"params": {"dense": {"bias": jnp.ones(2)}}}))
      >>> variables = jv.Variables({"net/dense/bias": jnp.zeros(2)})
      >>> with ocp.CheckpointManager(folder.name) as manager:
      ...     args = jv.interop.orbax.restore_args(variables, rules=[("net/", "params/")])
      ...     print(manager.restore(0, args=args)["net/dense/bias"])
      [1. 1.]
      >>> folder.cleanup()
    """
    from jaxvars.interop._orbax_handler import VariablesRestore

    _check(into, "restore_args(into)")
    return VariablesRestore(into, rules, strict, cast)


def _check(variables: Any, call: str) -> None:
    if not isinstance(variables, Variables):
        raise InvalidTypeError(
            f"{call}: expected Variables, got {type(variables).__name__}. For a tree write "
            "ocp.args.StandardSave(tree), or Variables.from_nested(tree)"
        )

"""Orbax's view of `Variables`: arguments for its checkpointers, and the handler behind them. Imports Orbax."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxvars.checkpoint.formats.random_keys import is_key_dtype
from jaxvars.checkpoint.restore import restore
from jaxvars.rules import parse_rules
from jaxvars.spec import is_hole, leaf_size
from jaxvars.variables import Variables

__all__ = ["VariablesHandler", "VariablesRestore", "VariablesSave"]


class VariablesHandler(ocp.StandardCheckpointHandler):
    """Saves variables as a flat dict of arrays, as Orbax itself would, and restores by jaxvars' rules and checks."""

    async def async_save(self, directory: Any, item: Any = None, save_args: Any = None, args: Any = None) -> Any:
        """Save the values of `VariablesSave`; those without elements, which Orbax refuses, need none."""
        del item, save_args
        variables = args.variables
        tree = {name: _plain(variables[name]) for name in variables if leaf_size(variables[name])}
        return await super().async_save(directory, args=ocp.args.StandardSave(tree))

    def restore(self, directory: Any, item: Any = None, args: Any = None) -> Any:
        """Return the variables of `VariablesRestore` with the values of the checkpoint."""
        del item
        into: Variables = args.into
        empty = [name for name in into if not leaf_size(into[name])]
        rules = parse_rules(args.rules or (), op="restore", several=True).rules
        restored = restore(
            str(directory),
            into,
            rules=[*((name, None) for name in empty), *rules],
            strict=args.strict,
            progress=False,
            cast=args.cast,
        )
        holes = [name for name in empty if is_hole(restored[name])]
        return restored.replace({name: jnp.zeros(restored[name].shape, restored[name].dtype) for name in holes})


def _plain(value: Any) -> Any:
    return jax.random.key_data(value) if is_key_dtype(value.dtype) else value


@ocp.args.register_with_handler(VariablesHandler, for_save=True)
@dataclasses.dataclass
class VariablesSave(ocp.args.CheckpointArgs):
    """What to save."""

    variables: Variables


@ocp.args.register_with_handler(VariablesHandler, for_restore=True)
@dataclasses.dataclass
class VariablesRestore(ocp.args.CheckpointArgs):
    """What to restore into, and how; as the arguments of `jv.checkpoint.restore`."""

    into: Variables
    rules: Any = None
    strict: bool = True
    cast: bool = False

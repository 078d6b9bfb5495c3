"""Rules between checkpoints with a variable per layer and models that keep all layers in one variable, or back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from jaxvars.rules.engine import Rule
from jaxvars.rules.transforms import stack, unstack

__all__ = ["stack_layers", "unstack_layers"]


def stack_layers(name_format: str, n: int | Iterable[Any], stacked: str) -> list[Rule]:
    """Return the rules that restore a variable per layer into a model with ``jv.scan_layers(..., stacked=...)``.

    Args:
      name_format: the scopes of the layers in the file, such as ``"layer_{}"``.
      n: how many layers, or what stands in for the ``{}``, as for `jv.scan_layers`.
      stacked: the scope of the stacked variables in the model.

    Returns:
      Rules for `jv.checkpoint.restore` and `jv.checkpoint.plan`, wherever in the model the layers are. Other names
      stay as they are.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> layers = jv.Variables({f"encoder/layer_{i}/w": jnp.full([2], i) for i in range(3)})
      >>> path = jv.checkpoint.save(layers, folder.name + "/layers.npz")
      >>> model = jv.Variables({"encoder/layers/w": jnp.zeros([3, 2], "int32")})
      >>> rules = jv.rules.stack_layers("layer_{}", 3, "layers")
      >>> print(jv.checkpoint.restore(path, model, rules=rules)["encoder/layers/w"])
      [[0 0]
       [1 1]
       [2 2]]
      >>> folder.cleanup()
    """
    layers = [_literal(name_format.format(number)) for number in (range(n) if isinstance(n, int) else n)]
    names = [rf"\g<around>{layer}/\g<name>" for layer in layers]
    return [Rule(rf"(?P<around>(?:.*/)?){re.escape(stacked)}/(?P<name>.*)", names, stack())]


def unstack_layers(name_format: str, n: int | Iterable[Any], stacked: str) -> list[Rule]:
    """Return the rules that restore variables of stacked layers into a model with a variable per layer.

    The inverse of `stack_layers`: the pattern matches the names of the model, as in all rules of a restore.

    Args:
      name_format: the scopes of the layers in the model, such as ``"layer_{}"``.
      n: how many layers, or what stands in for the ``{}``.
      stacked: the scope of the stacked variables in the file.

    Returns:
      A rule for each layer, for `jv.checkpoint.restore` and `jv.checkpoint.plan`.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxvars as jv
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = jv.checkpoint.save(jv.Variables({"layers/w": jnp.array([[0, 0], [1, 1]])}), folder.name + "/a.npz")
      >>> model = jv.Variables({f"layer_{i}/w": jnp.zeros([2], "int32") for i in range(2)})
      >>> restored = jv.checkpoint.restore(path, model, rules=jv.rules.unstack_layers("layer_{}", 2, "layers"))
      >>> print(restored["layer_1/w"])
      [1 1]
      >>> folder.cleanup()
    """
    whole = rf"\g<around>{_literal(stacked)}/\g<name>"
    layers = [name_format.format(number) for number in (range(n) if isinstance(n, int) else n)]
    return [
        Rule(rf"(?P<around>(?:.*/)?){re.escape(layer)}/(?P<name>.*)", whole, unstack(number))
        for number, layer in enumerate(layers)
    ]


def _literal(name: str) -> str:
    r"""The name as it is written in a replacement, where a "\\" is special."""
    return name.replace("\\", "\\\\")

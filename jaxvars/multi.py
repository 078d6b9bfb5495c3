"""`multi_transform`: several model functions over one state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxvars._keys import as_key
from jaxvars.agreement import check_agreement
from jaxvars.errors import InvalidArgumentError
from jaxvars.transform import Model
from jaxvars.variables import Variables

__all__ = ["MultiModel", "multi_transform"]


class MultiModel(dict[str, Model]):
    """Several models over one state: a dict of models, with the specs and init of their union."""

    def specs(self, **arguments: Any) -> Variables:
        """Return the holes of all models.

        Args:
          **arguments: per model name the tuple of its arguments (or a single one).
        """
        merged = Variables({})
        for name, args in self._calls(arguments):
            wanted = self[name].specs(*args)
            check_agreement(self[name], wanted, merged)
            merged = wanted | merged
        return merged

    def init(self, rng: Any, variables: Variables | None = None, **arguments: Any) -> Variables:
        """Make the variables of all models; those of one name are shared.

        Args:
          rng: a JAX key or an int seed.
          variables: values to keep.
          **arguments: per model name the tuple of its arguments (or a single one).

        Returns:
          The variables of all models.

        Raises:
          InvalidArgumentError: two models ask for one name with different shapes or dtypes.
        """
        key = as_key(rng)
        merged = variables
        for name, args in self._calls(arguments):
            merged = self[name].init(key, *args, variables=merged)
        return Variables({}) if merged is None else merged

    def _calls(self, arguments: Mapping[str, Any]) -> list[tuple[str, tuple[Any, ...]]]:
        unknown = [name for name in arguments if name not in self]
        lacking = [name for name in self if name not in arguments]
        if unknown or lacking:
            raise InvalidArgumentError(
                f"Give one tuple of arguments per model ({', '.join(self)})"
                + (f"; unknown: {', '.join(unknown)}" if unknown else "")
                + (f"; lacking: {', '.join(lacking)}" if lacking else "")
                + ". Write: models.init(0, name=(x, y), other=(z,))"
            )
        return [(n, arguments[n] if isinstance(arguments[n], tuple) else (arguments[n],)) for n in self]


def multi_transform(fns: Mapping[str, Callable[..., Any]], *, tf1_op_names: bool = False) -> MultiModel:
    """Make models of several functions that share their variables by name. Haiku: ``multi_transform``.

    Args:
      fns: the functions by name.
      tf1_op_names: see `transform`.

    Returns:
      A dict of models, whose own `specs` and `init` are those of the union.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> def encode(x):
      ...     return x @ jv.get_variable("embedding", [3, 2])
      >>> def decode(y):
      ...     return y @ jv.get_variable("embedding", [3, 2]).T
      >>> models = jv.multi_transform({"encode": encode, "decode": decode})
      >>> variables = models.init(0, encode=jnp.ones([1, 3]), decode=jnp.ones([1, 2]))
      >>> list(variables), models["decode"](variables, jnp.ones([1, 2])).shape
      (['embedding'], (1, 3))
    """
    return MultiModel({name: Model(fn, tf1_op_names=tf1_op_names) for name, fn in fns.items()})

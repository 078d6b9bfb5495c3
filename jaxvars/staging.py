"""Eager `apply` of a model that touches variables inside JAX transforms, without a compilation per call.

Where an eager ``jit``, ``scan`` or ``cond`` closes over a variable, its body must be traced anew each time, and JAX
would compile it anew and keep every executable with the arrays it closed over. So such a model runs as one
program instead: the Python code is traced at every call, as eager code should be (a changed global or argument
counts), and what it lowers to is looked up by its text. Only a text never seen before is compiled.

A model that needs concrete values (``if x > 0``, ``np.asarray(x)``) cannot be traced whole; it runs eagerly.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxvars import _compat
from jaxvars.frames import with_values
from jaxvars.variables import Variables

__all__ = ["Staging"]

_MOST = 128
_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)

_executables: OrderedDict[bytes, Any] = OrderedDict()
_lock = threading.Lock()


class Staging:
    """How one model runs eagerly.

    Args:
      apply: ``(variables, args, kwargs, key) -> (out, variables)``, run under the trace of the program.
    """

    def __init__(self, apply: Callable[..., tuple[Any, Variables]]) -> None:
        self._apply = apply
        self._wanted = False
        self.possible = True

    @property
    def preferred(self) -> bool:
        """Whether this call should run as one program from the start."""
        return self._wanted and self.possible and _is_eager_now()

    def run(self, variables: Variables, args: Any, kwargs: Any, key: Any) -> tuple[Any, Variables]:
        """Run `apply` as one program, or eagerly where that cannot be."""
        self._wanted = True
        try:
            return self._run(variables, args, kwargs, key)
        except _UNTRACEABLE:
            self.possible = False
        return self._apply(variables, args, kwargs, key)

    def _run(self, variables: Variables, args: Any, kwargs: Any, key: Any) -> tuple[Any, Variables]:
        leaves, structure = jax.tree.flatten((variables, args, kwargs, key))
        where = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
        arrays = [leaf for leaf, dynamic in zip(leaves, where, strict=True) if dynamic]
        made: dict[str, Any] = {}

        def program(arrays: list[Any]) -> list[Any]:
            remaining = iter(arrays)
            full = [next(remaining) if d else leaf for leaf, d in zip(leaves, where, strict=True)]
            out, after = self._apply(*jax.tree.unflatten(structure, full))
            changed = {
                name: new
                for name, old, new in zip(
                    after, jax.tree.unflatten(structure, full)[0]._leaves, after._leaves, strict=True
                )
                if new is not old
            }
            results, made["structure"] = jax.tree.flatten((out, changed))
            made["static"] = [None if isinstance(r, jax.Array) else r for r in results]
            made["where"] = [isinstance(r, jax.Array) for r in results]
            return [r for r in results if isinstance(r, jax.Array)]

        results = iter(_execute(program, arrays))
        whole = [next(results) if d else s for d, s in zip(made["where"], made["static"], strict=True)]
        out, changed = jax.tree.unflatten(made["structure"], whole)
        return out, with_values(variables, changed)


def _execute(program: Callable[[list[Any]], list[Any]], arrays: list[Any]) -> list[Any]:
    lowered = jax.jit(program).lower(arrays)
    where = [str(getattr(a, "sharding", "")) + str(getattr(a, "committed", "")) for a in arrays]
    digest = hashlib.sha256("\n".join([*where, lowered.as_text()]).encode()).digest()
    with _lock:
        executable = _executables.get(digest)
    if executable is None:
        executable = lowered.compile()
    with _lock:
        _executables[digest] = executable
        _executables.move_to_end(digest)
        while len(_executables) > _MOST:
            _executables.popitem(last=False)
    return executable(arrays)


def _is_eager_now() -> bool:
    return _compat.is_eager(_compat.current_trace())

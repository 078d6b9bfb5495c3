"""Eager `apply` of a model that touches variables inside JAX transforms, without a compilation per call.

Where an eager ``jit``, ``scan`` or ``cond`` closes over a variable, its body must be traced anew each time, and JAX
would compile it anew and keep every executable with the arrays it closed over. So such a model runs as one
program instead: the Python code is traced at every call, as eager code should be (a changed global or argument
counts), and what it lowers to is looked up by its text. Only a text never seen before is compiled.

A model that needs concrete values (``if x > 0``, ``np.asarray(x)``) cannot be traced whole; it runs eagerly.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxvars import _compat
from jaxvars.frames import with_values
from jaxvars.variables import Variables

__all__ = ["UNTRACEABLE", "Staging"]

_MOST = 128
# What JAX raises where Python needs a concrete value.
UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)

# What results may hold beside arrays; any other object may hide a tracer of the program.
_PLAIN = (bool, int, float, complex, str, bytes, np.ndarray, np.generic, type, np.dtype)
# A call back into Python stands in the text by number only: such a program is never looked up.
_CALLBACK = re.compile(r"custom_call @\w*callback|stablehlo\.(send|recv)\b")

_executables: OrderedDict[bytes, Any] = OrderedDict()
_lock = threading.Lock()


class _HoldsObjects(Exception):
    """The results hold an object that a program cannot return."""


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
        return self._wanted and self.can_stage

    @property
    def can_stage(self) -> bool:
        """Whether this call may run as one program."""
        config: Any = jax.config
        return self.possible and not config.jax_disable_jit and _compat.is_eager(_compat.current_trace())

    def run(self, variables: Variables, args: Any, kwargs: Any, key: Any) -> tuple[Any, Variables]:
        """Run `apply` as one program, or eagerly where that cannot be."""
        self._wanted = True
        try:
            return self._run(variables, args, kwargs, key)
        except (*UNTRACEABLE, _HoldsObjects):
            self.possible: bool = False
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
            if not all(array or isinstance(r, _PLAIN) for array, r in zip(made["where"], results, strict=True)):
                raise _HoldsObjects
            return [r for r in results if isinstance(r, jax.Array)]

        results = iter(_execute(program, arrays))
        whole = [next(results) if d else s for d, s in zip(made["where"], made["static"], strict=True)]
        out, changed = jax.tree.unflatten(made["structure"], whole)
        return out, with_values(variables, changed)


def _execute(program: Callable[[list[Any]], list[Any]], arrays: list[Any]) -> list[Any]:
    traced = jax.jit(program).trace(arrays)
    lowered = traced.lower()
    text = lowered.as_text()
    used = _compat.used_arguments(lowered)
    if used is None or _CALLBACK.search(text):
        return _call(lowered.compile(), arrays)
    # What the text leaves out: which arguments are used, devices, and the types of results as JAX sees them (keys,
    # weak types).
    places = [(str(getattr(a, "committed", "")), str(_devices(getattr(a, "sharding", None)))) for a in arrays]
    rest = (used, places, str(traced.jaxpr.out_avals), sorted(set(map(str, _inner_devices(traced.jaxpr.jaxpr)))))
    digest = hashlib.sha256(f"{rest}\n{text}".encode()).digest()
    with _lock:
        executable = _executables.get(digest)
    if executable is None:
        executable = lowered.compile()
    with _lock:
        _executables[digest] = executable
        _executables.move_to_end(digest)
        while len(_executables) > _MOST:
            _executables.popitem(last=False)
    return _call(executable, arrays)


def _call(executable: Any, arrays: list[Any]) -> list[Any]:
    try:
        return executable(arrays)
    except Exception as error:
        if type(error).__name__ != "InternalFloatingPointError":
            raise
        # What jax.debug_nans raises for a compiled program; JAX itself would run the Python code once more.
        raise FloatingPointError(
            f"invalid value ({error.args[-1]}) in the result of a model applied eagerly, as one program. "
            "To see which operation makes it, add: with jax.disable_jit(): ..."
        ) from None


def _devices(place: Any) -> tuple[Any, ...]:
    """A sharding, mesh or device as something whose text tells devices apart, which its own does not."""
    mesh = getattr(place, "mesh", place)
    if isinstance(mesh, jax.sharding.AbstractMesh):  # the devices are those of the arguments
        return (str(place),)
    if isinstance(mesh, jax.sharding.Mesh):
        return str(place), mesh.devices.tolist()
    if isinstance(place, jax.sharding.Sharding):
        return str(place), sorted(device.id for device in place.device_set)
    return (str(place),)


def _inner_devices(jaxpr: Any) -> Iterator[tuple[Any, ...]]:
    """The devices that a program itself names: meshes, shardings and devices in its equations."""
    for equation in jaxpr.eqns:
        parts = list(equation.params.values())
        while parts:
            part = parts.pop()
            if isinstance(part, tuple | list):
                parts.extend(part)
            elif isinstance(part, jax.sharding.Sharding | jax.sharding.Mesh | jax.Device):
                yield _devices(part)
            elif hasattr(part, "eqns"):
                yield from _inner_devices(getattr(part, "jaxpr", part))

"""The edge of an eager call: variables that live on several devices are brought together, and sent home after it.

JAX computes with arrays of one device only. TF1 copied between devices wherever an op needed it; here the state is
copied once per call of `model.apply` or `jv.value_and_grad`; gradients and what the model assigned are copied back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvars import _compat
from jaxvars._making import placed
from jaxvars.buffers import is_concrete
from jaxvars.errors import InvalidArgumentError
from jaxvars.placement.homes import Device
from jaxvars.variables import Variables

__all__ = ["Gathered", "computed_at_home", "computing_device", "devices_error", "gathered", "is_elsewhere", "together"]


class Gathered(NamedTuple):
    """A state whose values are on one device.

    Attributes:
      variables: that state.
      homes: the state it was made from.
    """

    variables: Variables
    homes: Variables

    def returned(self, after: Variables) -> Variables:
        """Return the state after a call: what changed on its home device, all else untouched."""
        leaves = zip(self.homes._leaves, self.variables._leaves, after._leaves, strict=True)
        return after._with_leaves(
            home if new is old else jax.device_put(new, home.sharding) if home is not old else new
            for home, old, new in leaves
        )

    def sent_home(self, tree: Any) -> Any:
        """Return a tree whose `Variables` (gradients, the state after a call) have each value on its home device."""

        def home(node: Any) -> Any:
            if not isinstance(node, Variables):
                return node
            index = self.homes._layout.index
            pairs = [(leaf, self.homes._leaf(index[key]) if key in index else leaf) for key, leaf in _items(node)]
            return node._with_leaves(
                jax.device_put(leaf, own.sharding) if _is_bound(own) and is_concrete(leaf) else leaf
                for leaf, own in pairs
            )

        return jax.tree.map(home, tree, is_leaf=lambda node: isinstance(node, Variables))


def _items(variables: Variables) -> Iterable[tuple[str, Any]]:
    return zip(variables, variables._leaves, strict=True)


def gathered(variables: Variables, arguments: Any) -> Gathered | None:
    """Bring a state that lives on several devices to one: that of the arguments, else JAX's default device.

    Args:
      variables: the state.
      arguments: the arguments and keyword arguments of the call, any tree.

    Returns:
      None where nothing has to be moved, or cannot be: under a JAX transform, with values that are spread or that
      live with another process.
    """
    moved = together(variables._leaves, arguments)
    return None if moved is None else Gathered(variables._with_leaves(moved), variables)


def together(leaves: Sequence[Any], arguments: Any = None) -> list[Any] | None:
    """Return values that live on several devices on one device, as `gathered` does for a state."""
    if not _compat.is_eager(_compat.current_trace()):
        return None
    own = _committed_devices(leaves)
    given = _committed_devices(jax.tree.leaves(arguments))
    if own is None or given is None or len(own | given) < 2:
        return None
    target = next(iter(given)) if len(given) == 1 else computing_device()
    positions = [i for i, leaf in enumerate(leaves) if is_elsewhere(leaf, target)]
    result = list(leaves)
    for position, value in zip(positions, jax.device_put([leaves[i] for i in positions], target), strict=True):
        result[position] = value
    return result


def computed_at_home(
    compute: Callable[..., dict[str, Any]], known: Mapping[str, Any], leaves: Any, key: Any, holes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return initial values that a model computes from others, each where its hole says.

    Args:
      compute: ``(known, leaves, key) -> values``, compiled.
      known: name -> value, possibly on several devices.
      leaves: the arrays among the model's arguments.
      key: the random key.
      holes: name -> hole, of which the sharding counts.
    """
    names, values = list(known), list(known.values())
    values = together(values, leaves) or values
    made = compute(dict(zip(names, values, strict=True)), leaves, key)
    return {name: placed(value, holes[name].sharding) for name, value in made.items()}


def computing_device() -> Device:
    """Return the device on which JAX computes with what has no place of its own."""
    return next(iter(jnp.zeros(()).devices()))


def is_elsewhere(value: Any, target: Device) -> bool:
    """Return whether `value` is an array that was put on one device, another than `target`."""
    return _is_bound(value) and value.devices() != {target}


def _is_bound(value: Any) -> bool:
    """Whether `value` is an array that was put where it is, so that JAX does not move it."""
    return is_concrete(value) and value.committed and not value.is_deleted()


def _committed_devices(leaves: Iterable[Any]) -> set[Device] | None:
    """The devices to which arrays among the leaves are bound; None where one is spread, or of another process."""
    found: set[Device] = set()
    for leaf in leaves:
        if _is_bound(leaf):
            devices = leaf.devices()
            if len(devices) > 1 or not leaf.is_fully_addressable:
                return None
            found |= devices
    return found


def devices_error(error: Exception, variables: Variables) -> InvalidArgumentError:
    """Return our error for JAX's refusal to compute with arrays of several devices."""
    homes: dict[str, list[str]] = {}
    for position, (key, leaf) in enumerate(zip(variables, variables._leaves, strict=True)):
        homes.setdefault(_place_text(leaf, variables._layout.placement[position]), []).append(key)
    lines = [f"    {place}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}" for place, keys in homes.items()]
    return InvalidArgumentError(
        "JAX computes with arrays of one device or mesh only, and the variables and arguments of this call live on "
        "several:\n" + "\n".join(lines) + "\nBring them together first. Write:\n"
        "    variables = variables.to(jax.devices()[0])    # or a jax.sharding.Sharding\n"
        f"JAX says: {error}"
    )


def _place_text(leaf: Any, note: Any) -> str:
    """Where a value is; of a tracer, where it is at home."""
    if is_concrete(leaf):
        names = sorted(f"{device.platform}:{device.id}" for device in leaf.sharding.device_set)
        return ", ".join(names) if leaf.committed else "anywhere"
    return "anywhere" if note is None else str(note)

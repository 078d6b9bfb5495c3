"""One layer of `scan_layers` as a program: traced once, run for each layer with that layer's values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxvars import _compat
from jaxvars.defining import DefiningFrame
from jaxvars.frame import Slot
from jaxvars.layer_frame import LayerFrame
from jaxvars.layer_recording import Recording
from jaxvars.layer_storage import Storage

__all__ = ["LayerProgram", "Results", "trace_layer"]


class Results(NamedTuple):
    """What one layer comes to.

    Attributes:
      carry: leaves of what goes to the next layer.
      ys: leaves of the layer's own result.
      written: the values of the variables that it wrote.
      key: the number of the next random key.
    """

    carry: list[Any]
    ys: list[Any]
    written: list[Any]
    key: Any


@dataclasses.dataclass
class LayerProgram:
    """The body of one layer, as it computes.

    Attributes:
      jaxpr: the program; its constants are `consts`.
      consts: what it closes over.
      slots: by position among those the variable of the layer that is meant, or None.
      carry: the types of what comes out, leaf by leaf.
      carry_tree: the structure of that.
      ys_tree: the structure of the layer's own result.
      written: the variables that it writes.
      draws_keys: whether it draws random keys.
      drawn: how many, or None where only running it tells.
      recording: what it asked of the frame of the model.
    """

    jaxpr: Any
    consts: list[Any]
    slots: list[Slot | None]
    carry: list[Any]
    carry_tree: Any
    ys_tree: Any
    written: list[Slot]
    draws_keys: bool
    drawn: int | None
    recording: Recording

    @property
    def read(self) -> list[Slot]:
        """The variables of the layer that it reads."""
        return list(dict.fromkeys(slot for slot in self.slots if slot is not None))

    def __call__(self, values: Mapping[Slot, Any], carry: list[Any], x: list[Any], key: Any) -> Results:
        """Run it.

        Args:
          values: those of the layer, by the variables in `read`.
          carry: leaves of what the layer before returned.
          x: leaves of what comes in for this layer.
          key: the number of the next random key.
        """
        pairs = zip(self.consts, self.slots, strict=True)
        consts = [const if slot is None else values[slot] for const, slot in pairs]
        out = jaxpr_as_fun(ClosedJaxpr(self.jaxpr, consts))(*carry, *x, key)
        width = len(self.carry)
        ys = width + self.ys_tree.num_leaves
        return Results(out[:width], out[width:ys], out[ys:-1], out[-1])


def trace_layer(
    frame: DefiningFrame,
    storage: Storage,
    step: Callable[[Any, Any], tuple[Any, Any]],
    prefix: str,
    carry: tuple[list[Any], Any],
    x: tuple[list[Any], Any],
) -> LayerProgram:
    """Run the body for one layer, abstractly, in its scope, which is open.

    Args:
      frame: the frame of the model.
      storage: how variables are kept.
      step: ``(carry, x) -> (carry, y)``.
      prefix: the scope, with "/".
      carry: leaves and structure.
      x: leaves, ``[layers, ...]``, and structure.

    Returns:
      The program.
    """
    around = _compat.current_trace()
    found: list[LayerProgram] = []

    # Two traces: values of the layer are stand-ins of the outer one, which the program then closes over by name.
    def stand_ins_here() -> None:
        outer = _compat.current_trace()
        shown: dict[str, Any] = {}

        def program(leaves: list[Any], x_leaves: list[Any], first: Any) -> list[Any]:
            layer = LayerFrame(frame, around, outer, storage.sliced, storage.layer_shape, first)
            recording = shown["recording"] = Recording(frame, layer, prefix, storage)
            try:
                with recording.in_front():
                    out, y = step(jax.tree.unflatten(carry[1], leaves), jax.tree.unflatten(x[1], x_leaves))
                leaves, shown["carry_tree"] = jax.tree.flatten(out)
                y_leaves, shown["ys_tree"] = jax.tree.flatten(y)
                written = layer.results()
                key, shown["drawn"] = layer.keys_after()
                shown["draws_keys"] = layer.draws_keys
                shown["written"] = list(written)
                stand_ins.update({id(value): slot for slot, value in layer.stand_ins.items()})
                return [*leaves, *y_leaves, *written.values(), key]
            finally:
                layer.release()

        stand_ins: dict[int, Slot] = {}
        sliced = [jax.lax.index_in_dim(leaf, 0, keepdims=False) for leaf in x[0]]
        closed = jax.make_jaxpr(program)(carry[0], sliced, jnp.uint32(0))
        slots = [stand_ins.get(id(const)) for const in closed.consts]
        consts = [const if slot is None else None for const, slot in zip(closed.consts, slots, strict=True)]
        types = closed.out_avals[: shown["carry_tree"].num_leaves]
        found.append(LayerProgram(closed.jaxpr, consts, slots, types, **shown))

    jax.eval_shape(stand_ins_here)
    return found[0]

"""Where `scan_layers` keeps the variables of its layers: under a name per layer, or stacked under one name.

What differs is the scope in which the body runs, what its `get_variable` means for the model, and how values go into
the scan and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxvars import _compat, refusals
from jaxvars._source import user_site
from jaxvars.defining import DefiningFrame, is_literal_scalar
from jaxvars.errors import InvalidArgumentError, TransformError
from jaxvars.frame import Slot
from jaxvars.initializers import as_initializer
from jaxvars.initializers._calling import ZeroArgument
from jaxvars.initializers._stacked import Stacked
from jaxvars.refusals import at_site
from jaxvars.spec import is_hole

__all__ = ["AllLayers", "PerLayer", "StackedVariables", "Storage", "check_alike"]

# The parameters of the true getter that custom getters may give by position, in TF1's order.
_BY_POSITION = ("shape", "dtype", "initializer", "regularizer", "reuse", "trainable", "collections")


class Storage:
    """How the variables of the layers are kept.

    Args:
      frame: the frame of the model.
      layers: the scopes of the layers, relative to the one around.
    """

    def __init__(self, frame: DefiningFrame, layers: Sequence[str]) -> None:
        self.frame = frame
        self.layers: tuple[str, ...] = tuple(layers)

    @property
    def scopes(self) -> Sequence[str]:
        """The scopes that variables are defined in, in order; the body runs in the first."""
        raise AssertionError(self)

    def ask(
        self, get: Callable[..., Any], prefix: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Ask the model for the variable that the body asks for: the arguments of the true getter."""
        del prefix
        return get(name, *args, **kwargs)

    def layer_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that a variable has in the body."""
        raise AssertionError(self)

    def sliced(self, value: Any) -> Any:
        """Return the value of one layer, of what one variable holds."""
        raise AssertionError(self)

    def stacked(self, slots: Sequence[Slot]) -> Any:
        """Return the values of all layers, ``[layers, ...]``."""
        raise AssertionError(self)

    def write(self, slots: Sequence[Slot], values: Any) -> None:
        """Assign the values of all layers, ``[layers, ...]``."""
        raise AssertionError(self)


class PerLayer(Storage):
    """A variable for each layer, under the layer's name."""

    @property
    def scopes(self) -> Sequence[str]:
        """Those of the layers."""
        return self.layers

    def layer_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same."""
        return shape

    def sliced(self, value: Any) -> Any:
        """A stand-in of the very same type."""
        return jax.lax.optimization_barrier(value)

    def stacked(self, slots: Sequence[Slot]) -> Any:
        """Read each, and stack them."""
        return jnp.stack([slot.frame.read(slot) for slot in slots])

    def write(self, slots: Sequence[Slot], values: Any) -> None:
        """Assign to each."""
        for slot, value in zip(slots, jnp.unstack(values), strict=True):
            slot.frame.write(slot, value)


class StackedVariables(Storage):
    """One variable for all layers, ``[layers, ...]``, in a scope of its own.

    Args:
      frame: the frame of the model.
      layers: the scopes of the layers, whose names give the initial values.
      scope: the scope of the stacked variables.
    """

    def __init__(self, frame: DefiningFrame, layers: Sequence[str], scope: str) -> None:
        super().__init__(frame, layers)
        self._scope = scope

    @property
    def scopes(self) -> Sequence[str]:
        """The one scope."""
        return (self._scope,)

    def layer_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """All but the first dimension."""
        return shape[1:]

    def sliced(self, value: Any) -> Any:
        """The first layer's."""
        return jax.lax.index_in_dim(value, 0, keepdims=False)

    def stacked(self, slots: Sequence[Slot]) -> Any:
        """What the variable holds."""
        (slot,) = slots
        return slot.frame.read(slot)

    def write(self, slots: Sequence[Slot], values: Any) -> None:
        """Assign to the variable."""
        (slot,) = slots
        slot.frame.write(slot, values)

    def ask(
        self, get: Callable[..., Any], prefix: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Ask for all layers at once."""
        asked: dict[str, Any] = {**dict(zip(_BY_POSITION, args, strict=False)), **kwargs}
        shape = asked.get("shape")
        if asked.get("partitioner") is not None and not is_literal_scalar(shape):
            raise InvalidArgumentError(
                f"Variable {name} has a partitioner{at_site()}, and jv.scan_layers keeps its layers stacked in one "
                "variable, which no partitioner cuts. Leave out stacked=, or the partitioner."
            )
        if name.startswith(prefix) and not (shape is None and asked.get("initializer") is None):
            asked |= self._for_all(name, name.removeprefix(prefix), prefix, asked)
        return get(name, **asked)

    def _for_all(self, name: str, own: str, prefix: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        count = len(self.layers)
        made = as_initializer(asked.get("initializer"), asked.get("shape"), asked.get("dtype", "float32"), name)
        if isinstance(made.initializer, ZeroArgument):
            raise InvalidArgumentError(
                f"The initializer of variable {name} is a function without arguments{at_site()}, which jv.scan_layers "
                "cannot call for each layer where they are kept stacked. Leave out stacked=, or write: "
                f"jv.get_variable({own!r}, shape, initializer=lambda key, shape, dtype: ...)"
            )
        regularizer, constraint = asked.get("regularizer"), asked.get("constraint")
        changed = {
            "dtype": made.dtype,
            "regularizer": AllLayers(regularizer, summed=True) if callable(regularizer) else regularizer,
            "constraint": AllLayers(constraint) if callable(constraint) else constraint,
        }
        value = getattr(made.initializer, "value", None)
        if isinstance(value, Tracer):
            if _compat.is_leaked(value, self.frame.trace):
                raise TransformError(refusals.initial_value_inside(name, user_site()))
            with self.frame.at_frame_level():
                return {**changed, "shape": None, "initializer": jnp.stack([value] * count)}
        around = prefix.removesuffix(f"{self._scope}/")
        layers = [f"{around}{layer}/" for layer in self.layers]
        initializer = Stacked.of(made.initializer, prefix, layers, own)
        return {**changed, "shape": (count, *made.shape), "initializer": initializer}


@dataclass(frozen=True)
class AllLayers:
    """A regularizer or constraint of one layer, for a variable that holds all layers.

    Args:
      function: of the value of one layer.
      summed: whether its results are added up.

    Example:
      >>> import jax.numpy as jnp
      >>> float(AllLayers(jnp.max, summed=True)(jnp.array([[1.0, 2.0], [3.0, 4.0]])))
      6.0
    """

    function: Callable[[Any], Any]
    summed: bool = False

    def __call__(self, value: Any) -> Any:
        """Apply it to each layer."""
        results = jax.vmap(self.function)(jnp.asarray(value))
        return jnp.sum(results) if self.summed and results is not None else results


def check_alike(first: Slot, other: Slot) -> None:
    """Raise where the variables of two layers cannot be stacked.

    Raises:
      InvalidArgumentError: their shapes or dtypes differ.
    """
    if first.shape == other.shape and first.dtype == other.dtype:
        return
    given = "" if is_hole(other.value) else ", as given"
    raise InvalidArgumentError(
        f"jv.scan_layers runs one body over all layers, whose variables must be alike: {first.key} is "
        f"{first.dtype}{list(first.shape)}, and {other.key} is {other.dtype}{list(other.shape)}{given}{at_site()}."
        f"{refusals.defined(first)} Call the layers that differ outside of it, or use a Python loop:\n"
        "    with jv.variable_scope(f'layer_{i}'): x = body(x)"
    )

"""`scan_layers`: one body over layers that are alike, so that a deep model is traced and compiled as one layer is.

The body runs once, abstractly, in the scope of the first layer, and becomes the body of a ``lax.scan`` over the values
of all layers. The variables are those that a Python loop over the layers would make.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.defining import DefiningFrame
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.frame import Frame, NeedsStaging, Slot, current_frame
from jaxvars.frames import SpecsFrame
from jaxvars.layer_frame import advance_keys, first_key
from jaxvars.layer_program import LayerProgram, trace_layer
from jaxvars.layer_recording import Asked
from jaxvars.layer_storage import PerLayer, StackedVariables, Storage
from jaxvars.refusals import at_site
from jaxvars.scopes import variable_scope

__all__ = ["scan_layers"]


def scan_layers(
    name_format: str,
    n: int | Iterable[Any],
    *,
    stacked: str | None = None,
    xs: Any = None,
    has_ys: bool = False,
    remat: bool | Callable[..., Any] = False,
    unroll: int | bool = 1,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run one body over `n` layers that are alike. TF1: a loop over ``variable_scope("layer_0")``, ``"layer_1"``, ...

    ``jv.scan_layers("layer_{}", 12)(body)(x, mask)`` computes what this loop does::

        for i in range(12):
            with jv.variable_scope(f"layer_{i}"):
                x = body(x, mask)

    with the same variables, initial values, collections, assignments, random keys and gradients, and so on the same
    checkpoints. But `body` is traced and compiled once, as the body of a ``lax.scan``, and not once per layer.
    Haiku: ``hk.layer_stack``; Flax: ``nn.scan``.

    Args:
      name_format: names the scopes of the layers, such as ``"layer_{}"``.
      n: how many layers; or what stands in for the ``{}``, in order: ``range(1, 13)``, ``["low", "high"]``.
      stacked: None keeps a variable per layer, under the layer's name. A name keeps one for all layers, of shape
        ``[n, ...]``, in that scope: ``"layers"``. The initial values are those of the layers' own names;
        `jv.rules.stack_layers` and `jv.rules.unstack_layers` lead checkpoints from one form to the other.
      xs: what differs by layer, an array or tree of arrays of shape ``[n, ...]``: ``body(carry, x, *args)``.
      has_ys: whether `body` returns ``(carry, y)``; the result is then ``(carry, ys)``, with ys of shape ``[n, ...]``.
      remat: recompute each layer in the backward pass (``jax.checkpoint``); or a checkpoint policy.
      unroll: as of ``lax.scan``.

    Returns:
      A function that makes of `body` a function of the same arguments. ``body(carry, *args, **kwargs)`` returns the
      next carry, of the same shapes and dtypes; the other arguments are the same for all layers.

    Raises:
      InvalidArgumentError: a format without ``{}``, no layers; when called: a carry that changes its shape or dtype,
        layers whose variables differ in shape or dtype, or what `get_variable` refuses.
      InvalidTypeError: a carry that is no array.
      TransformError: regularization losses read in the body, or a value added to a collection there (return it).
      FailedPreconditionError: called outside a frame.

    Example:
      >>> import jax.numpy as jnp, jaxvars as jv
      >>> def block(x):
      ...     return jnp.tanh(jv.layers.dense(x, 4, name="dense"))
      >>> model = jv.transform(lambda x: jv.scan_layers("layer_{}", 3)(block)(x))
      >>> variables = model.init(0, jnp.ones([2, 4]))
      >>> print(*variables.scope("layer_2"), model(variables, jnp.ones([2, 4])).shape)
      layer_2/dense/bias layer_2/dense/kernel (2, 4)
    """
    layers = _names(name_format, n)
    for leaf in jax.tree.leaves(xs):
        if jnp.shape(leaf)[:1] != (len(layers),):
            raise InvalidArgumentError(
                f"jv.scan_layers(xs=...){at_site()} takes arrays with one entry for each of the {len(layers)} layers, "
                f"and got one of shape {jnp.shape(leaf)}."
            )

    def scanned(body: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(body)
        def call(carry: Any, *args: Any, **kwargs: Any) -> Any:
            frame = current_frame("jv.scan_layers")
            assert isinstance(frame, DefiningFrame)
            if frame.eager and frame.may_stage:
                raise NeedsStaging
            storage = PerLayer(frame, layers) if stacked is None else StackedVariables(frame, layers, stacked)

            def step(carry: Any, x: Any) -> tuple[Any, Any]:
                given = (carry,) if xs is None else (carry, x)
                out = body(*given, *args, **kwargs)
                return _pair(out, body) if has_ys else (out, None)

            carry, ys = _Scan(frame, storage, step)(carry, xs, unroll, _checkpoint(remat))
            return (carry, ys) if has_ys else carry

        return call

    return scanned


class _Scan:
    """One call of a function that `scan_layers` made.

    Args:
      frame: the frame of the model.
      storage: how variables are kept.
      step: ``(carry, x) -> (carry, y)``.
    """

    def __init__(self, frame: DefiningFrame, storage: Storage, step: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        self._frame = frame
        self._storage = storage
        self._step = step
        #: Counts the random keys: around a layer that scans layers itself, that layer.
        self._keys: Frame = frame if frame.recording is None else frame.recording.layer

    def __call__(self, carry: Any, xs: Any, unroll: int | bool, wrap: Callable[..., Any]) -> tuple[Any, Any]:
        """Define the variables of all layers, and run them."""
        leaves, tree = jax.tree.flatten(carry)
        x = jax.tree.flatten(jax.tree.map(jnp.asarray, xs))
        leaves, program = self._traced([_array(leaf) for leaf in leaves], tree, x)
        _check_carry(leaves, tree, program)
        slots = self._defined(program, lambda prefix: self._trace(prefix, leaves, tree, x))
        out, ys = self._scanned(program, slots, leaves, x[0], unroll, wrap)
        return jax.tree.unflatten(tree, out), jax.tree.unflatten(program.ys_tree, ys)

    def _trace(self, prefix: str, leaves: list[Any], tree: Any, x: tuple[list[Any], Any]) -> LayerProgram:
        return trace_layer(self._frame, self._storage, self._step, prefix, (leaves, tree), x)

    def _traced(self, leaves: list[Any], tree: Any, x: tuple[list[Any], Any]) -> tuple[list[Any], LayerProgram]:
        """Run the body for the first layer; returns the carry that goes in, and the program."""
        with variable_scope(self._storage.scopes[0]) as scope:
            before = len(self._frame._visits.gotten), self._frame.graph.snapshot()
            program = self._trace(scope.prefix, leaves, tree, x)
            while (promoted := _promoted(leaves, program)) is not None:
                # As ``lax.scan`` does with a carry that begins as a Python number: the body runs again.
                leaves = promoted
                self._start_over(*before)
                program = self._trace(scope.prefix, leaves, tree, x)
        return leaves, program

    def _start_over(self, gotten: int, names: Any) -> None:
        for slot in self._frame._visits.gotten[gotten:]:
            slot.gotten = False
        del self._frame._visits.gotten[gotten:]
        self._frame.graph.restore(names)

    def _defined(self, program: LayerProgram, trace: Callable[[str], LayerProgram]) -> dict[Slot, list[Slot]]:
        """Define the variables of the other layers; returns by variable of the first one those of all layers."""
        frame, first = self._frame, program.recording
        found = {event.slot: [event.slot] for event in first.events if isinstance(event, Asked) and event.of_layer}
        for number, name in enumerate(self._storage.scopes[1:], 1):
            with variable_scope(name) as scope:
                own = scope.prefix
                written = [key for key in frame.written if key.startswith(first.prefix)]
                frame.written.update(own + key.removeprefix(first.prefix) for key in written)
                # Specs run the body for a second layer too, to see whether it does depend on the layer.
                if first.tells and not (number == 1 and isinstance(frame, SpecsFrame)):
                    pairs = first.replayed(own)
                else:
                    pairs = first.matched(trace(own).recording)
            for slot, other in pairs.items():
                found[slot].append(other)
        return found

    def _scanned(
        self,
        program: LayerProgram,
        slots: dict[Slot, list[Slot]],
        leaves: list[Any],
        xs: list[Any],
        unroll: int | bool,
        wrap: Callable[..., Any],
    ) -> tuple[list[Any], list[Any]]:
        """Run all layers, and write back what they wrote."""
        layers = len(self._storage.layers)

        def step(carry: tuple[list[Any], Any], each: tuple[list[Any], list[Any]]) -> tuple[Any, Any]:
            values = dict(zip(program.read, each[0], strict=True))
            done = program(values, carry[0], each[1], carry[1])
            return (done.carry, done.key), (done.ys, done.written)

        values = [self._storage.stacked(slots[slot]) for slot in program.read]
        key = first_key(self._keys) if program.draws_keys else jnp.uint32(0)
        (out, key), (ys, written) = jax.lax.scan(wrap(step), (leaves, key), (values, xs), length=layers, unroll=unroll)
        for slot, value in zip(program.written, written, strict=True):
            self._storage.write(slots[slot], value)
        if program.draws_keys:
            advance_keys(self._keys, key, None if program.drawn is None else program.drawn * layers)
        return out, ys


def _names(name_format: str, n: int | Iterable[Any]) -> tuple[str, ...]:
    """The scopes of the layers."""
    if not isinstance(name_format, str) or name_format.format("") == name_format:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError(
            f"jv.scan_layers({name_format!r}, ...){at_site()}: the name of a layer has a {{}} for its number. "
            'Write: jv.scan_layers("layer_{}", n)'
        )
    names = tuple(name_format.format(number) for number in (range(n) if isinstance(n, int) else n))
    if not names or len(set(names)) < len(names):
        raise InvalidArgumentError(
            f"jv.scan_layers({name_format!r}, {n!r:.60}){at_site()}: at least one layer, and each with a name of its "
            f"own, got {list(names[:10])}."
        )
    return names


def _checkpoint(remat: bool | Callable[..., Any]) -> Callable[..., Any]:
    if remat is False:
        return lambda step: step
    # Between the steps of a scan there is nothing that XLA could merge.
    return functools.partial(jax.checkpoint, prevent_cse=False, policy=None if remat is True else remat)


def _pair(out: Any, body: Callable[..., Any]) -> tuple[Any, Any]:
    if not (isinstance(out, tuple) and len(out) == 2):
        raise InvalidTypeError(
            f"With has_ys=True the body of jv.scan_layers returns (carry, y), and {getattr(body, '__name__', body)!r} "
            f"returned {type(out).__name__}."
        )
    return out


def _array(leaf: Any) -> Any:
    try:
        return jnp.asarray(leaf)
    except (TypeError, ValueError):
        raise InvalidTypeError(
            f"The first argument of a function of jv.scan_layers is what goes from layer to layer: an array or a tree "
            f"of arrays, which {leaf!r:.60} ({type(leaf).__name__}) is not{at_site()}. Pass it after that one."
        ) from None


def _promoted(leaves: list[Any], program: LayerProgram) -> list[Any] | None:
    """The carry in the dtypes that come out of the body, where it came in weakly typed; None where nothing changes."""
    if len(leaves) != len(program.carry):
        return None
    changed = [
        jax.lax.convert_element_type(leaf, aval.dtype) if leaf.weak_type and leaf.dtype != aval.dtype else leaf
        for leaf, aval in zip(leaves, program.carry, strict=True)
    ]
    return None if all(new is old for new, old in zip(changed, leaves, strict=True)) else changed


def _check_carry(leaves: list[Any], tree: Any, program: LayerProgram) -> None:
    """Raise unless the body returned what the next layer takes."""
    if tree != program.carry_tree:
        raise InvalidArgumentError(
            f"The body of jv.scan_layers returns what the next layer takes as its first argument{at_site()}, but got "
            f"{tree} and returned {program.carry_tree}."
        )
    wrong = [
        f"{leaf.dtype}{list(leaf.shape)} came in and {aval.dtype}{list(aval.shape)} came out"
        for leaf, aval in zip(leaves, program.carry, strict=True)
        if leaf.shape != aval.shape or leaf.dtype != aval.dtype
    ]
    if wrong:
        raise InvalidArgumentError(
            "The body of jv.scan_layers returns what the next layer takes as its first argument, of the same shapes "
            f"and dtypes{at_site()}: {'; '.join(wrong)}. Call the layer that changes them before or after, or cast in "
            "the body: return y.astype(x.dtype)"
        )

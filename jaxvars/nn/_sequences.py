"""What loops over sequences share: their inputs, lengths and states, checked as TF1 checked them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "as_lengths",
    "check_state_or_dtype",
    "checked_state",
    "initial_state_of",
    "lifted",
    "reversed_list",
    "reversed_time",
    "select",
    "step_inputs",
    "swapped",
    "time_major_inputs",
]


def time_major_inputs(inputs: Any, time_major: bool) -> tuple[Any, int, int]:
    """The inputs as ``[time, batch, ...]``, the number of steps and of sequences."""
    arrays = jax.tree.map(jnp.asarray, inputs)
    flat = jax.tree.leaves(arrays)
    if not flat:
        raise InvalidArgumentError("dynamic_rnn: argument `inputs` must not be empty.")
    for array in flat:
        if array.ndim < 3:
            raise InvalidArgumentError(
                f"dynamic_rnn: the inputs' shape {array.shape} must have rank at least 3: [batch, time, depth], or "
                "[time, batch, depth] with time_major=True. For numbers in a row: inputs[..., None]"
            )
    if not time_major:
        arrays = jax.tree.map(swapped, arrays)
    steps, batch = jax.tree.leaves(arrays)[0].shape[:2]
    for array in jax.tree.leaves(arrays):
        if array.shape[0] != steps:
            raise InvalidArgumentError(
                "Time steps is not the same for all the elements in the input in a batch. Received time "
                f"steps={array.shape[0]}, and {steps} before."
            )
        if array.shape[1] != batch:
            raise InvalidArgumentError(
                "Batch_size is not the same for all the elements in the input. Received batch size="
                f"{array.shape[1]}, and {batch} before."
            )
    return arrays, steps, batch


def step_inputs(inputs: Any) -> tuple[list[Any], int]:
    """A list of inputs as arrays, and the number of sequences."""
    if not isinstance(inputs, list | tuple):
        raise InvalidTypeError(
            f"Argument `inputs` must be a sequence. Received: {type(inputs).__name__}. Write: "
            "[x[:, t] for t in range(x.shape[1])], or jv.nn.dynamic_rnn(cell, x)"
        )
    xs = [jax.tree.map(jnp.asarray, x) for x in inputs]
    flat = jax.tree.leaves(xs)
    if not flat:
        raise InvalidArgumentError("Argument `inputs` must not be empty.")
    batches = {x.shape[0] if x.ndim else None for x in flat}
    if len(batches) > 1 or None in batches:
        raise InvalidArgumentError(
            f"static_rnn: the inputs are [batch, depth] with one batch size, got shapes {[x.shape for x in flat]}"
        )
    return xs, flat[0].shape[0]


def as_lengths(sequence_length: Any, batch: int) -> jax.Array | None:
    """The lengths as ``[batch]`` int32, or None."""
    if sequence_length is None:
        return None
    lengths = jnp.asarray(sequence_length)
    if lengths.ndim != 1:
        raise InvalidArgumentError(
            "Argument sequence_length must be a vector of length batch_size. Received sequence_length of shape: "
            f"{lengths.shape}"
        )
    if lengths.shape[0] != batch:
        raise InvalidArgumentError(
            f"Expected shape for sequence_length is [{batch}] but saw shape: [{lengths.shape[0]}]. It has one number "
            "for each sequence of the batch."
        )
    return lengths.astype(jnp.int32)


def check_state_or_dtype(given: Any, dtype: Any) -> None:
    """Raise unless there is something to start from."""
    if given is None and dtype is None:
        raise InvalidArgumentError(
            'If no initial_state is provided, argument `dtype` must be specified: dtype="float32"'
        )


def initial_state_of(cell: Any, given: Any, batch: int, dtype: Any) -> Any:
    """The given state, or the cell's own, as arrays."""
    if given is None:
        if hasattr(cell, "get_initial_state"):
            given = cell.get_initial_state(inputs=None, batch_size=batch, dtype=dtype)
        else:
            given = cell.zero_state(batch, dtype)
    # Strong types: with a weak one, scan would trace the cell a second time.
    return jax.tree.map(lambda x: jax.lax.convert_element_type(jnp.asarray(x), jnp.result_type(x)), given)


def checked_state(new_state: Any, state: Any, cell: Any) -> Any:
    """The new state, once it has the structure, shapes and dtypes of the old one."""
    name = type(cell).__name__
    if jax.tree.structure(new_state) != jax.tree.structure(state):
        raise InvalidArgumentError(
            f"The two structures don't have the same nested structure: the state that went into {name} is "
            f"{_shapes(state)}, and what came out is {_shapes(new_state)}."
        )
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(new_state), strict=True):
        if jnp.shape(new) != old.shape or jnp.result_type(new) != old.dtype:
            raise InvalidArgumentError(
                f"The state of {name} changes: it went in as {old.dtype}{list(old.shape)} and came out as "
                f"{jnp.result_type(new)}{list(jnp.shape(new))}. Its state_size is {cell.state_size}."
            )
    return new_state


def _shapes(state: Any) -> str:
    return f"{jax.tree.map(jnp.shape, state)!r:.150}"


def select(finished: jax.Array, old: Any, new: Any) -> Any:
    """Where a sequence has ended the old values, else the new ones; scalars always are the new ones."""

    def choose(a: Any, b: Any) -> jax.Array:
        return jnp.where(lifted(finished, b), a, b) if jnp.ndim(b) else jnp.asarray(b)

    return jax.tree.map(choose, old, new)


def lifted(flags: jax.Array, array: Any) -> jax.Array:
    """`flags` with trailing axes of length 1, up to the rank of `array`."""
    return flags.reshape(flags.shape + (1,) * (jnp.ndim(array) - flags.ndim))


def swapped(x: jax.Array) -> jax.Array:
    """`x` with its first two axes exchanged."""
    return x.swapaxes(0, 1) if x.ndim > 1 else x


def reversed_time(xs: Any, lengths: jax.Array | None) -> Any:
    """Each sequence of ``[time, batch, ...]`` turned round, up to its length."""
    if lengths is None:
        return jax.tree.map(lambda x: jnp.flip(x, 0), xs)

    def turn(x: jax.Array) -> jax.Array:
        time = jnp.arange(x.shape[0])[:, None]
        source = jnp.where(time < lengths[None, :], lengths[None, :] - 1 - time, time)
        return jnp.take_along_axis(x, lifted(source, x), axis=0)

    return jax.tree.map(turn, xs)


def reversed_list(xs: list[Any], lengths: jax.Array | None) -> list[Any]:
    """The same for a list of steps."""
    if lengths is None:
        return xs[::-1]
    stacked = jax.tree.map(lambda *steps: jnp.stack(steps), *xs)
    turned = reversed_time(stacked, lengths)
    return [jax.tree.map(lambda x, t=t: x[t], turned) for t in range(len(xs))]

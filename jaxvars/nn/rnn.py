"""Recurrent networks over whole sequences: `dynamic_rnn` and its relatives, on ``lax.scan``.

The loops call the cell as TF1's did, in the scope "rnn", so variables are made, named and shared by the rules of
`jaxvars.nn.rnn_cell`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError
from jaxvars.nn._sequences import (
    as_lengths,
    check_state_or_dtype,
    checked_state,
    initial_state_of,
    lifted,
    reversed_list,
    reversed_time,
    select,
    step_inputs,
    swapped,
    time_major_inputs,
)
from jaxvars.nn.rnn_cell.base import check_cell
from jaxvars.scopes import VariableScope, variable_scope

__all__ = ["bidirectional_dynamic_rnn", "dynamic_rnn", "reverse_sequence", "static_bidirectional_rnn", "static_rnn"]


def dynamic_rnn(
    cell: Any,
    inputs: Any,
    sequence_length: Any = None,
    initial_state: Any = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | VariableScope | None = None,
) -> tuple[Any, Any]:
    """Run a cell over the time axis of its inputs, by ``lax.scan`` (``tf.nn.dynamic_rnn``).

    From the end of a sequence on its outputs are 0, and its state stays as it is.

    Args:
      cell: a cell of `jv.nn.rnn_cell`, or your own.
      inputs: ``[batch, time, depth, ...]``, or a structure of such; the cell gets the same structure, one step of it.
      sequence_length: ``[batch]`` ints, or None for full length.
      initial_state: in the structure of ``cell.state_size``; None for zeros of `dtype`.
      dtype: of the initial state; needed without `initial_state`.
      parallel_iterations: accepted for TF1's sake, without effect.
      swap_memory: likewise.
      time_major: whether inputs and outputs are ``[time, batch, ...]``.
      scope: the variable scope instead of "rnn".

    Returns:
      ``(outputs, state)``: outputs ``[batch, time, size]`` in the structure of the cell's output, and the state after
      each sequence's last step.

    Raises:
      InvalidTypeError: `cell` is no cell.
      InvalidArgumentError: neither `initial_state` nor `dtype`; shapes, lengths or structures that do not fit.
      FailedPreconditionError: outside of a frame.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x, lengths):
      ...     return jv.nn.dynamic_rnn(jv.nn.rnn_cell.LSTMCell(8), x, lengths, dtype="float32")
      >>> model = jv.transform(net)
      >>> x, lengths = jnp.ones([2, 5, 4]), jnp.array([5, 3])
      >>> variables = model.init(0, x, lengths)
      >>> outputs, state = model(variables, x, lengths)
      >>> list(variables), outputs.shape, bool(jnp.any(outputs[1, 3:]))
      (['rnn/lstm_cell/bias', 'rnn/lstm_cell/kernel'], (2, 5, 8), False)
      >>> bool(jnp.all(state.h[1] == outputs[1, 2]))
      True
    """
    del parallel_iterations, swap_memory
    check_cell("cell", cell)
    check_state_or_dtype(initial_state, dtype)
    xs, steps, batch = time_major_inputs(inputs, time_major)
    lengths = as_lengths(sequence_length, batch)
    with variable_scope(scope or "rnn"):
        state = initial_state_of(cell, initial_state, batch, dtype)

        def step(state: Any, now: Any) -> tuple[Any, Any]:
            time, x = now
            output, new_state = cell(x, state)
            new_state = checked_state(new_state, state, cell)
            return new_state if lengths is None else select(time >= lengths, state, new_state), output

        state, outputs = jax.lax.scan(step, state, (jnp.arange(steps), xs), length=steps)
    if lengths is not None:
        running = jnp.arange(steps)[:, None] < lengths[None, :]
        outputs = jax.tree.map(lambda y: jnp.where(lifted(running, y), y, 0) if y.ndim > 1 else y, outputs)
    return outputs if time_major else jax.tree.map(swapped, outputs), state


def bidirectional_dynamic_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Any,
    sequence_length: Any = None,
    initial_state_fw: Any = None,
    initial_state_bw: Any = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | VariableScope | None = None,
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Run one cell forwards and one backwards over the time axis (``tf.nn.bidirectional_dynamic_rnn``).

    The variables are below ``bidirectional_rnn/fw`` and ``bidirectional_rnn/bw``. With `sequence_length` the backward
    cell begins at the end of each sequence.

    Args:
      cell_fw: the forward cell.
      cell_bw: the backward cell.
      inputs: as in `dynamic_rnn`, like all that follow.
      sequence_length: ``[batch]`` ints, or None.
      initial_state_fw: of the forward cell; None for zeros of `dtype`.
      initial_state_bw: of the backward cell.
      dtype: needed without initial states.
      parallel_iterations: accepted for TF1's sake, without effect.
      swap_memory: likewise.
      time_major: whether inputs and outputs are ``[time, batch, ...]``.
      scope: the variable scope instead of "bidirectional_rnn".

    Returns:
      ``((outputs_fw, outputs_bw), (state_fw, state_bw))``; the backward outputs stand at the steps they are of.

    Raises:
      InvalidTypeError: an argument is no cell.
      InvalidArgumentError: as `dynamic_rnn`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(x):
      ...     cells = [jv.nn.rnn_cell.GRUCell(3) for _ in range(2)]
      ...     outputs, _ = jv.nn.bidirectional_dynamic_rnn(*cells, x, dtype="float32")
      ...     return jnp.concatenate(outputs, axis=2)
      >>> model = jv.transform(net)
      >>> variables = model.init(0, jnp.ones([2, 5, 4]))
      >>> list(variables)[0], model(variables, jnp.ones([2, 5, 4])).shape
      ('bidirectional_rnn/bw/gru_cell/candidate/bias', (2, 5, 6))
    """
    check_cell("cell_fw", cell_fw)
    check_cell("cell_bw", cell_bw)
    xs, _, batch = time_major_inputs(inputs, time_major)
    lengths = as_lengths(sequence_length, batch)
    del inputs, parallel_iterations, swap_memory
    with variable_scope(scope or "bidirectional_rnn"):
        with variable_scope("fw") as fw:
            out_fw, state_fw = dynamic_rnn(cell_fw, xs, lengths, initial_state_fw, dtype, time_major=True, scope=fw)
        with variable_scope("bw") as bw:
            reverse = reversed_time(xs, lengths)
            out_bw, state_bw = dynamic_rnn(
                cell_bw, reverse, lengths, initial_state_bw, dtype, time_major=True, scope=bw
            )
    outputs = (out_fw, reversed_time(out_bw, lengths))
    return outputs if time_major else jax.tree.map(swapped, outputs), (state_fw, state_bw)


def static_rnn(
    cell: Any,
    inputs: Sequence[Any],
    initial_state: Any = None,
    dtype: Any = None,
    sequence_length: Any = None,
    scope: str | VariableScope | None = None,
) -> tuple[list[Any], Any]:
    """Run a cell over a list of inputs, one after the other, without a loop in the program (``tf.nn.static_rnn``).

    For short sequences: what XLA compiles grows with their length. `dynamic_rnn` gives the same variables and values.

    Args:
      cell: a cell of `jv.nn.rnn_cell`, or your own.
      inputs: a list of ``[batch, depth, ...]``, or of structures of such.
      initial_state: in the structure of ``cell.state_size``; None for zeros of `dtype`.
      dtype: of the initial state; needed without `initial_state`.
      sequence_length: ``[batch]`` ints, or None for full length.
      scope: the variable scope instead of "rnn".

    Returns:
      ``(outputs, state)``: a list as long as `inputs`, and the state after each sequence's last step.

    Raises:
      InvalidTypeError: `cell` is no cell, or `inputs` no list.
      InvalidArgumentError: as `dynamic_rnn`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> cell = jv.nn.rnn_cell.GRUCell(3)
      >>> model = jv.transform(lambda xs: jv.nn.static_rnn(cell, xs, dtype="float32")[0])
      >>> xs = [jnp.ones([2, 4])] * 5
      >>> variables = model.init(0, xs)
      >>> len(model(variables, xs)), list(variables)[0]
      (5, 'rnn/gru_cell/candidate/bias')
    """
    check_cell("cell", cell)
    check_state_or_dtype(initial_state, dtype)
    xs, batch = step_inputs(inputs)
    lengths = as_lengths(sequence_length, batch)
    outputs: list[Any] = []
    with variable_scope(scope or "rnn") as entered:
        state = initial_state_of(cell, initial_state, batch, dtype)
        for time, x in enumerate(xs):
            if time > 0:
                entered.reuse_variables()
            output, new_state = cell(x, state)
            new_state = checked_state(new_state, state, cell)
            if lengths is not None:
                new_state = select(time >= lengths, state, new_state)
                output = select(time >= lengths, jax.tree.map(jnp.zeros_like, output), output)
            state = new_state
            outputs.append(output)
    return outputs, state


def static_bidirectional_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Sequence[Any],
    initial_state_fw: Any = None,
    initial_state_bw: Any = None,
    dtype: Any = None,
    sequence_length: Any = None,
    scope: str | VariableScope | None = None,
) -> tuple[list[Any], Any, Any]:
    """Run one cell forwards and one backwards over a list of inputs (``tf.nn.static_bidirectional_rnn``).

    Args:
      cell_fw: the forward cell.
      cell_bw: the backward cell.
      inputs: as in `static_rnn`, like all that follow.
      initial_state_fw: of the forward cell; None for zeros of `dtype`.
      initial_state_bw: of the backward cell.
      dtype: needed without initial states.
      sequence_length: ``[batch]`` ints, or None.
      scope: the variable scope instead of "bidirectional_rnn".

    Returns:
      ``(outputs, state_fw, state_bw)``; each output is the forward and the backward one side by side.

    Raises:
      InvalidTypeError: an argument is no cell, or `inputs` no list.
      InvalidArgumentError: as `dynamic_rnn`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> def net(xs):
      ...     cells = [jv.nn.rnn_cell.GRUCell(3) for _ in range(2)]
      ...     return jv.nn.static_bidirectional_rnn(*cells, xs, dtype="float32")[0]
      >>> model = jv.transform(net)
      >>> xs = [jnp.ones([2, 4])] * 5
      >>> len(model(model.init(0, xs), xs))
      5
    """
    check_cell("cell_fw", cell_fw)
    check_cell("cell_bw", cell_bw)
    xs, batch = step_inputs(inputs)
    lengths = as_lengths(sequence_length, batch)
    with variable_scope(scope or "bidirectional_rnn"):
        with variable_scope("fw") as fw:
            out_fw, state_fw = static_rnn(cell_fw, xs, initial_state_fw, dtype, lengths, scope=fw)
        with variable_scope("bw") as bw:
            out_bw, state_bw = static_rnn(cell_bw, reversed_list(xs, lengths), initial_state_bw, dtype, lengths, bw)
    out_bw = reversed_list(out_bw, lengths)
    outputs = [
        jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), forward, backward)
        for forward, backward in zip(out_fw, out_bw, strict=True)
    ]
    return outputs, state_fw, state_bw


def reverse_sequence(
    input: Any,
    seq_lengths: Any,
    seq_axis: int | None = None,
    batch_axis: int | None = None,
    name: str | None = None,
) -> jax.Array:
    """Reverse the first ``seq_lengths[i]`` elements of each sequence, and keep the rest (``tf.reverse_sequence``).

    Args:
      input: any array.
      seq_lengths: ``[batch]`` ints, between 0 and the length of the sequence axis.
      seq_axis: the axis that is reversed.
      batch_axis: the axis of the sequences; 0 when not given.
      name: accepted for TF1's sake, without effect.

    Returns:
      An array like `input`.

    Raises:
      InvalidArgumentError: axes or lengths that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> print(jv.nn.reverse_sequence(jnp.array([[1, 2, 3], [4, 5, 6]]), [2, 3], seq_axis=1))
      [[2 1 3]
       [6 5 4]]
    """
    del name
    x = jnp.asarray(input)
    axes = (seq_axis, batch_axis or 0)
    if seq_axis is None or len({axis % x.ndim for axis in axes if axis is not None and -x.ndim <= axis < x.ndim}) < 2:
        raise InvalidArgumentError(
            f"reverse_sequence: seq_axis and batch_axis are two axes of the input {x.shape}, got {axes}"
        )
    moved = jnp.moveaxis(x, (seq_axis, batch_axis or 0), (0, 1))
    turned = reversed_time(moved, as_lengths(seq_lengths, moved.shape[1]))
    return jnp.moveaxis(turned, (0, 1), (seq_axis, batch_axis or 0))

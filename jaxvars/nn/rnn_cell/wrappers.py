"""Cells made of cells: `MultiRNNCell`, `ResidualWrapper` and `DeviceWrapper`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.nn.rnn_cell.base import RNNCell, check_cell
from jaxvars.scopes import VariableScope, device, variable_scope
from jaxvars.variable import Variable

__all__ = ["CellWrapper", "DeviceWrapper", "MultiRNNCell", "ResidualWrapper"]


class MultiRNNCell(RNNCell):
    """Cells on top of each other, as one cell (``tf.nn.rnn_cell.MultiRNNCell``).

    The variables of the i-th cell are below ``multi_rnn_cell/cell_<i>``. A cell object that stands in the list
    several times shares its variables.

    Args:
      cells: the cells, lowest first.
      state_is_tuple: whether the state is a tuple of the cells' states, or one array of all side by side.

    Raises:
      InvalidArgumentError: no cells, or cells with states of several arrays without `state_is_tuple`.
      InvalidTypeError: `cells` is no list or tuple, or holds something that is no cell.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> cells = [jv.nn.rnn_cell.BasicRNNCell(n) for n in (4, 2)]
      >>> model = jv.transform(lambda x: jv.nn.dynamic_rnn(jv.nn.rnn_cell.MultiRNNCell(cells), x, dtype="float32"))
      >>> for name in model.init(0, jnp.ones([2, 5, 3])):
      ...     print(name)
      rnn/multi_rnn_cell/cell_0/basic_rnn_cell/bias
      rnn/multi_rnn_cell/cell_0/basic_rnn_cell/kernel
      rnn/multi_rnn_cell/cell_1/basic_rnn_cell/bias
      rnn/multi_rnn_cell/cell_1/basic_rnn_cell/kernel
    """

    def __init__(self, cells: Sequence[Any], state_is_tuple: bool = True) -> None:
        super().__init__()
        if not isinstance(cells, list | tuple):
            raise InvalidTypeError(
                f"cells must be a list or tuple, but received: {cells!r:.80}. Write: MultiRNNCell([cell])"
            )
        if not cells:
            raise InvalidArgumentError(
                "Must specify at least one cell for MultiRNNCell. Write for example: MultiRNNCell([LSTMCell(128)])"
            )
        for i, cell in enumerate(cells):
            check_cell(f"cells[{i}]", cell)
        self._cells = tuple(cells)
        self._state_is_tuple = state_is_tuple
        sizes = [cell.state_size for cell in cells]
        if not state_is_tuple and not all(isinstance(size, int) for size in sizes):
            raise InvalidArgumentError(
                "Some cells return tuples of states, but the flag state_is_tuple is not set. State sizes are: "
                f"{sizes}. Leave out state_is_tuple=False, or give it to the cells too."
            )

    @property
    def state_size(self) -> Any:
        """The tuple of the cells' sizes, or their sum without `state_is_tuple`."""
        sizes = tuple(cell.state_size for cell in self._cells)
        return sizes if self._state_is_tuple else sum(sizes)

    @property
    def output_size(self) -> Any:
        """The output size of the last cell."""
        return self._cells[-1].output_size

    def zero_state(self, batch_size: int, dtype: Any) -> Any:
        """Return the cells' own zero states."""
        if not self._state_is_tuple:
            return super().zero_state(batch_size, dtype)
        return tuple(cell.zero_state(batch_size, dtype) for cell in self._cells)

    @property
    def variables(self) -> list[Variable]:
        """The variables of all cells."""
        found = {id(v): v for cell in self._cells for v in getattr(cell, "variables", [])}
        return list(found.values())

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """Compute ``(output of the last cell, new states)``."""
        states = self._split(state)
        new_states: list[Any] = []
        for i, (cell, old) in enumerate(zip(self._cells, states, strict=True)):
            with variable_scope(f"cell_{i}"):
                inputs, new = cell(inputs, old)
            new_states.append(new)
        return inputs, tuple(new_states) if self._state_is_tuple else jnp.concatenate(new_states, axis=1)

    def _split(self, state: Any) -> Sequence[Any]:
        if self._state_is_tuple:
            if not isinstance(state, tuple | list) or len(state) != len(self._cells):
                raise InvalidArgumentError(
                    f"Expected state to be a tuple of length {len(self._cells)}, but received: "
                    f"{jax.tree.map(jnp.shape, state)!r:.200}. Write: cell.zero_state(batch_size, dtype)"
                )
            return state
        ends = [sum(cell.state_size for cell in self._cells[: i + 1]) for i in range(len(self._cells))]
        array = jnp.asarray(state)
        if array.ndim != 2 or array.shape[1] != ends[-1]:
            raise InvalidArgumentError(
                f"Expected state to be [batch, {ends[-1]}], the states of all cells side by side, but received shape "
                f"{array.shape}."
            )
        return jnp.split(array, ends[:-1], axis=1)


class CellWrapper(RNNCell):
    """A cell that does something around another one. It has no scope of its own, as in TF1.

    Args:
      cell: any cell.
      dtype: as `RNNCell` takes it.
    """

    def __init__(self, cell: Any, dtype: Any = None) -> None:
        super().__init__(dtype=dtype)
        check_cell("cell", cell)
        self.cell = cell

    @property
    def wrapped_cell(self) -> Any:
        """The cell inside."""
        return self.cell

    @property
    def state_size(self) -> Any:
        """The inner cell's."""
        return self.cell.state_size

    @property
    def output_size(self) -> Any:
        """The inner cell's."""
        return self.cell.output_size

    @property
    def variables(self) -> list[Variable]:
        """The inner cell's."""
        return self.cell.variables

    def zero_state(self, batch_size: int, dtype: Any) -> Any:
        """Return the inner cell's zero state."""
        return self.cell.zero_state(batch_size, dtype)

    def __call__(self, inputs: Any, state: Any, scope: str | VariableScope | None = None) -> tuple[Any, Any]:
        """Run one step of the inner cell, and what is around it."""

        def step(inputs: Any, state: Any) -> tuple[Any, Any]:
            return self.cell(inputs, state) if scope is None else self.cell(inputs, state, scope=scope)

        return self._around(step, inputs, state)

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """The same as a call of the wrapper."""
        return self(inputs, state)

    def _around(self, step: Callable[[Any, Any], tuple[Any, Any]], inputs: Any, state: Any) -> tuple[Any, Any]:
        """Compute ``(output, new_state)``; `step` runs the inner cell."""
        return step(inputs, state)


class ResidualWrapper(CellWrapper):
    """A cell whose inputs are added to its outputs (``tf.nn.rnn_cell.ResidualWrapper``).

    Args:
      cell: the cell.
      residual_fn: ``(inputs, outputs) -> outputs``, in place of the sum of the two.

    Raises:
      InvalidTypeError: `cell` is no cell; in a call, inputs and outputs have different structures.
      InvalidArgumentError: in a call, inputs and outputs have different shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> cell = jv.nn.rnn_cell.ResidualWrapper(jv.nn.rnn_cell.GRUCell(4))
      >>> model = jv.transform(lambda x: jv.nn.dynamic_rnn(cell, x, dtype="float32")[0])
      >>> list(model.specs(jnp.ones([2, 5, 4])))[0]
      'rnn/gru_cell/candidate/bias'
    """

    def __init__(self, cell: Any, residual_fn: Callable[[Any, Any], Any] | None = None) -> None:
        super().__init__(cell)
        self._residual_fn = residual_fn

    def _around(self, step: Callable[[Any, Any], tuple[Any, Any]], inputs: Any, state: Any) -> tuple[Any, Any]:
        outputs, new_state = step(inputs, state)
        return (self._residual_fn or _sum)(inputs, outputs), new_state


class DeviceWrapper(CellWrapper):
    """A cell whose variables live on a device (``tf.nn.rnn_cell.DeviceWrapper``): its calls are under `jv.device`.

    Args:
      cell: the cell.
      device: what `jv.device` takes.

    Raises:
      InvalidTypeError: `cell` is no cell.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxvars as jv
      >>> cell = jv.nn.rnn_cell.DeviceWrapper(jv.nn.rnn_cell.GRUCell(4), "/cpu:0")
      >>> def net(x):
      ...     outputs, _ = jv.nn.dynamic_rnn(cell, x, dtype="float32")
      ...     print(cell.variables[0].device)
      ...     return outputs
      >>> specs = jv.transform(net).specs(jnp.ones([2, 5, 4]))
      /device:CPU:0
    """

    def __init__(self, cell: Any, device: Any) -> None:
        super().__init__(cell)
        self._device = device

    def _around(self, step: Callable[[Any, Any], tuple[Any, Any]], inputs: Any, state: Any) -> tuple[Any, Any]:
        with device(self._device):
            return step(inputs, state)


def _sum(inputs: Any, outputs: Any) -> Any:
    if jax.tree.structure(inputs) != jax.tree.structure(outputs):
        raise InvalidTypeError(
            "ResidualWrapper: The two structures don't have the same nested structure: inputs "
            f"{jax.tree.map(jnp.shape, inputs)}, outputs {jax.tree.map(jnp.shape, outputs)}. Give it a residual_fn."
        )
    for given, computed in zip(jax.tree.leaves(inputs), jax.tree.leaves(outputs), strict=True):
        if jnp.shape(given) != jnp.shape(computed):
            raise InvalidArgumentError(
                f"ResidualWrapper: Shapes {jnp.shape(given)} and {jnp.shape(computed)} are incompatible: inputs are "
                "added to outputs, so a cell has as many units as its inputs. Or give it a residual_fn."
            )
    return jax.tree.map(operator.add, inputs, outputs)

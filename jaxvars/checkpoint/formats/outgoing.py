"""What every format is given to write: variables with their descriptions, whose values come when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from jaxvars.checkpoint.formats.random_keys import is_key_dtype, stored_form
from jaxvars.errors import InvalidArgumentError, some_names
from jaxvars.spec import VariableSpec
from jaxvars.variables import Variables

__all__ = ["Outgoing", "outgoing", "refuse_strings"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One variable on its way into a file.

    Attributes:
      spec: the variable. Its dtype may be a random key's, or `object` for strings (elements are bytes).
      value: a JAX or NumPy array, or a function without arguments that returns a NumPy array.
    """

    spec: VariableSpec
    value: Any

    @property
    def name(self) -> str:
        """The name in the file."""
        return self.spec.key

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what `array` returns (of random keys: of the numbers behind them)."""
        return stored_form(self.spec.shape, self.spec.dtype)[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of what `array` returns: that of the file the variable came from, where it was narrowed."""
        plain = self.plain_dtype
        wide = np.dtype(self.spec.file_dtype or plain)
        return wide if wide.kind == plain.kind and wide.itemsize == 2 * plain.itemsize else plain

    @property
    def plain_dtype(self) -> np.dtype[Any]:
        """The dtype of the variable itself (of random keys: of the numbers behind them)."""
        return stored_form(self.spec.shape, self.spec.dtype)[1]

    @property
    def nbytes(self) -> int:
        """Bytes of what `array` returns."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def array(self) -> npt.NDArray[Any]:
        """Return the values on the host, in C order, in `dtype`; they may share memory with the variable."""
        return self.plain_array().astype(self.dtype, order="C", copy=False)

    def plain_array(self) -> npt.NDArray[Any]:
        """Return the values on the host, in C order, in `plain_dtype`."""
        value: Any = self.value() if callable(self.value) else self.value
        if is_key_dtype(getattr(value, "dtype", None) or np.dtype(object)):
            value = jax.random.key_data(value)
        return np.asarray(value, order="C")


def outgoing(variables: Variables) -> list[Outgoing]:
    """Return the variables of a state in the order of their creation."""
    specs = variables.variable_specs
    return [Outgoing(specs[name], variables[name]) for name in variables._layout.creation_order]


def refuse_strings(items: Iterable[Outgoing], what: str) -> None:
    """Refuse strings, all at once.

    Args:
      items: what is to be written.
      what: the format, as in ``"A .npz file"``.

    Raises:
      InvalidArgumentError: some are strings.
    """
    names = [item.name for item in items if item.dtype == np.dtype(object)]
    if names:
        raise InvalidArgumentError(
            f"{what} cannot hold strings: {some_names(names)}. "
            'Leave them out, or write TensorFlow\'s format: format="tf".'
        )


Writer = Callable[[Sequence[Outgoing], str], None]

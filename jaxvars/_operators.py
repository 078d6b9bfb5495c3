"""The operators of a handle: those of its current value."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["ArrayOperators"]


def _plain(operand: Any) -> Any:
    return operand.value if isinstance(operand, ArrayOperators) else operand


def _left(operand: Any) -> Any:
    # NumPy on the left would try to swallow a tracer; JAX's own operators take NumPy.
    return jnp.asarray(operand) if isinstance(operand, np.ndarray | np.generic) else operand


class ArrayOperators:
    """Arithmetic, comparison and indexing through ``self.value``."""

    __slots__ = ()
    __array_priority__ = 1000  # NumPy operands let these operators answer

    @property
    def value(self) -> jax.Array:
        """The current value."""
        raise AttributeError("value")

    def __add__(self, other: Any) -> jax.Array:
        return self.value + _plain(other)

    def __radd__(self, other: Any) -> jax.Array:
        return _left(other) + self.value

    def __sub__(self, other: Any) -> jax.Array:
        return self.value - _plain(other)

    def __rsub__(self, other: Any) -> jax.Array:
        return _left(other) - self.value

    def __mul__(self, other: Any) -> jax.Array:
        return self.value * _plain(other)

    def __rmul__(self, other: Any) -> jax.Array:
        return _left(other) * self.value

    def __truediv__(self, other: Any) -> jax.Array:
        return self.value / _plain(other)

    def __rtruediv__(self, other: Any) -> jax.Array:
        return _left(other) / self.value

    def __floordiv__(self, other: Any) -> jax.Array:
        return self.value // _plain(other)

    def __rfloordiv__(self, other: Any) -> jax.Array:
        return _left(other) // self.value

    def __mod__(self, other: Any) -> jax.Array:
        return self.value % _plain(other)

    def __rmod__(self, other: Any) -> jax.Array:
        return _left(other) % self.value

    def __pow__(self, other: Any) -> jax.Array:
        return self.value ** _plain(other)

    def __rpow__(self, other: Any) -> jax.Array:
        return _left(other) ** self.value

    def __matmul__(self, other: Any) -> jax.Array:
        return self.value @ _plain(other)

    def __rmatmul__(self, other: Any) -> jax.Array:
        return _left(other) @ self.value

    def __and__(self, other: Any) -> jax.Array:
        return self.value & _plain(other)

    def __rand__(self, other: Any) -> jax.Array:
        return _left(other) & self.value

    def __or__(self, other: Any) -> jax.Array:
        return self.value | _plain(other)

    def __ror__(self, other: Any) -> jax.Array:
        return _left(other) | self.value

    def __xor__(self, other: Any) -> jax.Array:
        return self.value ^ _plain(other)

    def __rxor__(self, other: Any) -> jax.Array:
        return _left(other) ^ self.value

    def __lshift__(self, other: Any) -> jax.Array:
        return self.value << _plain(other)

    def __rlshift__(self, other: Any) -> jax.Array:
        return _left(other) << self.value

    def __rshift__(self, other: Any) -> jax.Array:
        return self.value >> _plain(other)

    def __rrshift__(self, other: Any) -> jax.Array:
        return _left(other) >> self.value

    def __lt__(self, other: Any) -> jax.Array:
        return self.value < _plain(other)

    def __le__(self, other: Any) -> jax.Array:
        return self.value <= _plain(other)

    def __gt__(self, other: Any) -> jax.Array:
        return self.value > _plain(other)

    def __ge__(self, other: Any) -> jax.Array:
        return self.value >= _plain(other)

    def __divmod__(self, other: Any) -> tuple[jax.Array, jax.Array]:
        return divmod(self.value, _plain(other))

    def __rdivmod__(self, other: Any) -> tuple[jax.Array, jax.Array]:
        return divmod(_left(other), self.value)

    def __neg__(self) -> jax.Array:
        return -self.value

    def __pos__(self) -> jax.Array:
        return +self.value

    def __invert__(self) -> jax.Array:
        return ~self.value

    def __abs__(self) -> jax.Array:
        return abs(self.value)

    def __getitem__(self, index: Any) -> jax.Array:
        return self.value[index]

    def __bool__(self) -> bool:
        return bool(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Any:
        return iter(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __complex__(self) -> complex:
        return complex(self.value)

    def __index__(self) -> int:
        return self.value.__index__()

    def __round__(self, ndigits: int | None = None) -> jax.Array:
        return jnp.round(self.value, ndigits or 0)

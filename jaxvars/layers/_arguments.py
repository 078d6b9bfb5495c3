"""Arguments that several layers check: sizes, padding, data formats."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvars.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["layout_of", "padding_of", "positive", "sizes", "training_flag"]

_LAYOUTS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


def positive(value: Any, argument: str) -> int:
    """Return a positive int."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{argument} is a positive int, got {value!r}") from None
    if number < 1 or number != value:
        raise InvalidArgumentError(f"{argument} is a positive int, got {value!r}")
    return number


def sizes(value: Any, dims: int, argument: str) -> tuple[int, ...]:
    """Return one positive int per spatial axis, of an int or that many."""
    given = (value,) * dims if isinstance(value, int | np.integer) else tuple(value)
    if len(given) != dims or any(size != int(size) or size < 1 for size in given):
        several = {1: "a list of one", 2: "a pair of them", 3: "three of them"}[dims]
        raise InvalidArgumentError(f"{argument} is a positive int or {several}, got {value!r}")
    return tuple(int(size) for size in given)


def layout_of(data_format: str, dims: int, layer: str) -> str:
    """Return the format of `jv.nn` for "channels_last" or "channels_first"."""
    formats = ("channels_last", "channels_first")
    if data_format not in formats:
        raise InvalidArgumentError(f'{layer}: data_format is "channels_last" or "channels_first", got {data_format!r}')
    return _LAYOUTS[dims][formats.index(data_format)]


def padding_of(padding: Any, layer: str, causal: bool = False) -> str:
    """Return "VALID", "SAME", or "CAUSAL" where that has a meaning."""
    known = ("valid", "same", "causal") if causal else ("valid", "same")
    if not isinstance(padding, str) or padding.lower() not in known:
        ways = " or ".join(f'"{way}"' for way in known)
        raise InvalidArgumentError(f"{layer}: padding is {ways}, got {padding!r}")
    return padding.upper()


def training_flag(training: Any) -> bool | jax.Array:
    """Return a bool where `training` is known when the model is traced, else a bool array."""
    if training is None or isinstance(training, bool | int | np.bool_):
        return bool(training)
    return jnp.asarray(training, bool)

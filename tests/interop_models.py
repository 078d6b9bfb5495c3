"""A model that the tests of other libraries hand over: layers, moving averages, random numbers."""

from __future__ import annotations

from typing import Any

import jax

import jaxvars as jv


def tower(x: Any, training: bool = False) -> Any:
    """Two layers with batch normalization; noise when it trains."""
    with jv.variable_scope("tower"):
        x = jv.layers.dense(x, 4, name="fc")
        x = jv.layers.batch_normalization(x, training=training, name="norm")
    if training:
        x = x + jax.random.normal(jv.next_rng_key(), x.shape, x.dtype)
    return jv.layers.dense(x, 2, name="head")

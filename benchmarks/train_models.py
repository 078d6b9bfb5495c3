"""Three small networks for training steps, written once: each framework says how parameters are got.

A network is ``network(get, inputs) -> logits``, and ``get(scope, name=shape, ...)`` returns the parameters of one scope
by name. So every framework runs the same operations, and what differs is the framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Get = Callable[..., Mapping[str, Any]]

CLASSES = 10
UNITS, HIDDEN_LAYERS = 128, 2
VOCABULARY, LENGTH, WIDTH, HEADS, LAYERS = 1000, 32, 128, 4, 4
CHANNELS = 32


class Problem(NamedTuple):
    """A network, what it is called, and what it is trained on."""

    title: str
    network: Callable[[Get, Any], Any]
    inputs: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]

    def parameters(self) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
        """Initial values, by scope and name."""
        drawn, found = np.random.default_rng(0), {}

        def get(scope: str, **shapes: tuple[int, ...]) -> dict[str, Any]:
            found[scope] = {name: _initial(drawn, name, shape) for name, shape in shapes.items()}
            return found[scope]

        jax.eval_shape(lambda inputs: self.network(get, inputs), self.inputs)
        return found


def _initial(drawn: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if name == "gamma":
        return np.ones(shape, np.float32)
    scale = 0.0 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[:-1]))
    return (scale * drawn.standard_normal(shape)).astype(np.float32)


def problems() -> dict[str, Problem]:
    """By the name under which TensorFlow's process knows it."""
    drawn = np.random.default_rng(1)

    def problem(title: str, network: Callable[[Get, Any], Any], inputs: Any) -> Problem:
        return Problem(title, network, inputs, drawn.integers(0, CLASSES, inputs.shape[0], np.int32))

    def normal(*shape: int) -> Any:
        return drawn.standard_normal(shape, np.float32)

    return {
        "mlp": problem(f"MLP of {HIDDEN_LAYERS + 1} layers of {UNITS}, batch 32", mlp, normal(32, 64)),
        "bert": problem(
            f"BERT-mini: {LAYERS} layers of width {WIDTH}, batch 8 x {LENGTH}",
            transformer,
            drawn.integers(0, VOCABULARY, (8, LENGTH), np.int32),
        ),
        "resnet": problem(f"ResNet block of {CHANNELS} channels, batch 8 x 16^2", block, normal(8, 16, 16, CHANNELS)),
    }


def loss_of(logits: Any, labels: Any) -> Any:
    """The mean cross entropy."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen.mean()


def mlp(get: Get, x: Any) -> Any:
    """Dense layers with ReLU between them."""
    for number in range(HIDDEN_LAYERS):
        x = jax.nn.relu(_dense(get, f"layer_{number}", x, UNITS))
    return _dense(get, "logits", x, CLASSES)


def transformer(get: Get, ids: Any) -> Any:
    """An encoder as BERT's, and a classifier of the mean."""
    tables = get("embeddings", words=(VOCABULARY, WIDTH), positions=(LENGTH, WIDTH))
    x = _normalized(get, "embeddings_norm", jnp.asarray(tables["words"])[ids] + tables["positions"])
    for number in range(LAYERS):
        layer = f"layer_{number}"
        x = _normalized(get, f"{layer}_attention_norm", x + _attention(get, layer, x))
        inner = jax.nn.gelu(_dense(get, f"{layer}_intermediate", x, 4 * WIDTH))
        x = _normalized(get, f"{layer}_output_norm", x + _dense(get, f"{layer}_output", inner, WIDTH))
    return _dense(get, "logits", x.mean(axis=1), CLASSES)


def block(get: Get, x: Any) -> Any:
    """Two convolutions with batch normalization around a shortcut, and a classifier of the mean."""
    inner = x
    for number in range(2):
        p = get(f"conv_{number}", kernel=(3, 3, CHANNELS, CHANNELS), gamma=(CHANNELS,), beta=(CHANNELS,))
        inner = jax.lax.conv_general_dilated(
            inner, jnp.asarray(p["kernel"]), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        inner = _standardized(inner, (0, 1, 2)) * p["gamma"] + p["beta"]
        inner = jax.nn.relu(inner if number == 0 else inner + x)
    return _dense(get, "logits", inner.mean(axis=(1, 2)), CLASSES)


def _dense(get: Get, scope: str, x: Any, units: int) -> Any:
    p = get(scope, kernel=(x.shape[-1], units), bias=(units,))
    return x @ p["kernel"] + p["bias"]


def _attention(get: Get, layer: str, x: Any) -> Any:
    batch, length, width = x.shape
    q, k, v = (
        _dense(get, f"{layer}_{name}", x, width).reshape(batch, length, HEADS, -1) for name in ("query", "key", "value")
    )
    weights = jax.nn.softmax(jnp.einsum("bfnh,btnh->bnft", q, k) / math.sqrt(width // HEADS))
    mixed = jnp.einsum("bnft,btnh->bfnh", weights, v).reshape(batch, length, width)
    return _dense(get, f"{layer}_projection", mixed, width)


def _normalized(get: Get, scope: str, x: Any) -> Any:
    p = get(scope, gamma=(x.shape[-1],), beta=(x.shape[-1],))
    return _standardized(x, (-1,)) * p["gamma"] + p["beta"]


def _standardized(x: Any, axes: tuple[int, ...]) -> Any:
    centered = x - x.mean(axis=axes, keepdims=True)
    return centered * jax.lax.rsqrt(jnp.square(centered).mean(axis=axes, keepdims=True) + 1e-5)

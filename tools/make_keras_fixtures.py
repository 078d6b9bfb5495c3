"""Write small files with the real Keras 3 and tf-keras, for tests/golden/keras.

Run in an environment with tensorflow (the `parity` extra), which brings both:

    python tools/make_keras_fixtures.py

Beside the files, expected.json holds the values of each under the names that the library gives its variables.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tf_keras

OUT = Path(__file__).resolve().parent.parent / "tests" / "golden" / "keras"


def fill(variables: list[Any], seed: int) -> None:
    """Give each variable values of its own, the same on every machine."""
    for number, variable in enumerate(variables):
        size = int(np.prod(variable.shape))
        values = ((np.arange(size) * 37 + 11 * (number + seed) + 5) % 101) / 32.0 - 1.5
        if "int" in str(variable.dtype):
            values = np.full(size, 7 + number)
        variable.assign(values.reshape(tuple(variable.shape)))


def listed(values: Any) -> Any:
    return np.asarray(values).astype(np.float64).tolist()


def keras_3() -> tuple[Any, dict[str, Any]]:
    source = keras.Input((4, 3), name="words")
    hidden = keras.layers.LSTM(2, name="memory")(source)
    hidden = keras.layers.Dense(3, name="first")(hidden)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    model = keras.Model(source, keras.layers.Dense(2, name="dense", dtype="bfloat16")(hidden), name="small")
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    fill(model.variables, 0)
    fill(model.optimizer.variables, 50)
    saved = {v.path: v for v in model.variables if "seed_generator" not in v.path}  # used by dropout, which is off
    saved |= {f"optimizer/vars/{number}": v for number, v in enumerate(model.optimizer.variables)}
    return model, {name: listed(keras.ops.cast(v, "float32")) for name, v in saved.items()}


def keras_2() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    layers = [
        tf_keras.layers.Input((3,)),
        tf_keras.layers.Dense(4, name="first"),
        tf_keras.layers.BatchNormalization(name="norm"),
        tf_keras.layers.Dense(2, name="head"),
    ]
    model = tf_keras.Sequential(layers, name="small")
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    fill(model.variables, 0)
    fill(model.optimizer.variables, 50)
    weights, slots = (
        {v.name.removesuffix(":0"): listed(v.numpy()) for v in variables}
        for variables in (model.variables, model.optimizer.variables)
    )
    return model, weights, slots


def main() -> None:
    warnings.simplefilter("ignore")
    OUT.mkdir(parents=True, exist_ok=True)
    expected: dict[str, Any] = {}
    model, values = keras_3()
    model.save(OUT / "keras3.keras")
    model.save_weights(OUT / "keras3.weights.h5")
    expected["keras3"] = values
    model, weights, slots = keras_2()
    model.save_weights(OUT / "keras2_weights.h5", save_format="h5")
    model.save(OUT / "keras2_model.h5", save_format="h5")
    expected["keras2_weights"] = weights
    expected["keras2_model"] = weights | slots
    (OUT / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()

"""What is said outside of a frame names what was called, as its author wrote it, whoever asks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError

X = jnp.ones([2, 3])


class Mine(jv.layers.Dense):
    """A layer of the user's own."""


def _template(x: Any) -> Any:
    return jv.layers.dense(x, 2)


TEMPLATE = jv.make_template("t", _template)
CELL = jv.nn.rnn_cell.BasicLSTMCell(2)

CALLS: dict[str, Callable[[], Any]] = {
    "jv.get_variable": lambda: jv.get_variable("w", [1]),
    "jv.Variable": lambda: jv.Variable(1.0),
    "jv.get_variable_scope()": jv.get_variable_scope,
    "jv.variable_scope('a')": lambda: jv.variable_scope("a").__enter__(),
    "jv.name_scope('a')": lambda: jv.name_scope("a").__enter__(),
    "jv.trainable_variables": jv.trainable_variables,
    "jv.get_collection": lambda: jv.get_collection("a"),
    "jv.next_rng_key": jv.next_rng_key,
    "jv.scan_layers": lambda: jv.scan_layers("layer_{}", 2)(lambda x: x)(X),
    "jv.create_partitioned_variables": lambda: jv.create_partitioned_variables([4], [2], jv.zeros_initializer()),
    "jv.layers.Dense": lambda: jv.layers.Dense(2)(X),
    "jv.layers.Dense.scope_name": lambda: jv.layers.Dense(2).scope_name,
    "jv.layers.Dense.variables": lambda: jv.layers.Dense(2).variables,
    "jv.layers.BatchNormalization.add_weight": lambda: jv.layers.BatchNormalization().add_weight("w", [1]),
    "Mine": lambda: Mine(2)(X),
    "jv.nn.rnn_cell.BasicLSTMCell": lambda: CELL(X, CELL.zero_state(2, "float32")),
    "jv.nn.rnn_cell.BasicLSTMCell.variables": lambda: CELL.variables,
    "jv.train.ExponentialMovingAverage.average": lambda: jv.train.ExponentialMovingAverage(0.9).average("w"),
    "the template 't'": lambda: TEMPLATE(X),
    "the variables of template 't'": lambda: TEMPLATE.variables,
    "the module 'e' of jv.interop": lambda: jv.interop.linen(nn.Dense(2), "e")(X),
    "the module 'linear' of jv.interop": lambda: jv.interop.nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))(X),
}


@pytest.mark.parametrize("subject", CALLS)
def test_what_was_called_is_the_subject(subject: str) -> None:
    with pytest.raises(FailedPreconditionError) as caught:
        CALLS[subject]()
    text = str(caught.value)
    assert text.startswith(f"{subject} was called outside of a frame")
    assert "test_outside_frame.py" in text.splitlines()[0]
    if subject.startswith("jv."):  # it can be found under this name
        found: Any = jv
        for part in re.split(r"[.(]", subject)[1:]:
            if not part.isidentifier():
                break
            found = getattr(found, part)


def test_a_state_answers_in_the_place_of_a_frame() -> None:
    with pytest.raises(FailedPreconditionError, match=r"variables\.trainable "):
        jv.trainable_variables()

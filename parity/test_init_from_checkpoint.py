"""`init_from_checkpoint`: the same values from TensorFlow's own file, by the same assignment maps, and the same errors.

Two things that TensorFlow does without a word are errors here: a scope in which there is no variable, and a variable
that is mapped twice to different tensors. A shape that does not fit is an error here at once, and there, in a scope,
only when the initializer runs.
"""

from __future__ import annotations

import functools
import tempfile
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from parity.live import examples, fresh_graph, tf

SHAPES = {"w": [2], "b": [3], "a/w": [2], "a/b": [3], "a/c/w": [2], "ab/w": [2], "c/w": [2], "c/b": [2]}
SCOPES = ["/", "a/", "a/c/", "ab/", "c/", "none/"]
SILENT_IN_TENSORFLOW = ("no variable is in the scope", "is mapped twice")

names = st.sampled_from(sorted(SHAPES))
models = st.dictionaries(names, st.sampled_from([[2], [3]]), min_size=1, max_size=4).flatmap(
    lambda other: st.sampled_from([other, {name: SHAPES[name] for name in other}])
)
entries = st.tuples(names | st.sampled_from([*SCOPES, "none", "a"]), names | st.sampled_from([*SCOPES, "none", "a"]))
likely = st.sampled_from(SCOPES).map(lambda scope: (scope, scope)) | names.map(lambda name: (name, name)) | entries
maps = st.lists(likely, min_size=1, max_size=3, unique_by=lambda pair: pair[0])


@functools.cache
def checkpoint() -> str:
    """A file that TensorFlow wrote, once per run; the folder goes with the process."""
    folder = tempfile.TemporaryDirectory()
    checkpoint.folder = folder  # type: ignore[attr-defined]
    with fresh_graph() as session:
        for number, (name, shape) in enumerate(sorted(SHAPES.items())):
            tf.get_variable(name, shape, initializer=tf.constant_initializer(float(number + 1)))
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, folder.name + "/model")


def theirs(model: dict[str, Any], pairs: list[tuple[str, str]]) -> Any:
    with fresh_graph() as session:
        made = {name: tf.get_variable(name, shape, initializer=tf.zeros_initializer()) for name, shape in model.items()}
        try:
            tf.train.init_from_checkpoint(checkpoint(), pairs)
            session.run(tf.global_variables_initializer())
        except (ValueError, tf.errors.InvalidArgumentError):
            return ValueError
        return {name: value.tolist() for name, value in session.run(made).items()}


def ours(model: dict[str, Any], pairs: list[tuple[str, str]]) -> Any:
    def net() -> None:
        for name, shape in model.items():
            jv.get_variable(name, shape, initializer=jv.zeros_initializer())
        jv.train.init_from_checkpoint(checkpoint(), pairs)

    try:
        variables = jv.transform(net).init(0)
    except ValueError as error:
        return error
    return {name: np.asarray(value).tolist() for name, value in variables.items()}


@examples(150)
@given(models, maps)
def test_values_and_errors(model: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
    mine, wanted = ours(model, pairs), theirs(model, pairs)
    if isinstance(mine, ValueError):
        assert wanted is ValueError or any(text in str(mine) for text in SILENT_IN_TENSORFLOW), f"{mine}\n{wanted}"
    else:
        assert mine == wanted

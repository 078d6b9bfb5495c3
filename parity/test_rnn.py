"""Recurrent cells and loops beside TensorFlow's: names, refusals, values and gradients."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import jaxvars as jv
from parity.live import examples, fresh_graph, tf
from parity.rnn_programs import PROGRAMS, REFUSED, Api
from parity.zoo.twin import assert_close, our_table, table

THEIRS = Api(
    tf.nn.rnn_cell,
    tf.nn,
    tf.variable_scope,
    tf.get_variable,
    tf.AUTO_REUSE,
    tf.ones_initializer,
    tf.zeros,
    tf.cast,
    tf.float32,
    tf.int32,
)
OURS = Api(
    jv.nn.rnn_cell,
    jv.nn,
    jv.variable_scope,
    jv.get_variable,
    jv.AUTO_REUSE,
    jv.ones_initializer,
    jnp.zeros,
    lambda x, dtype: x.astype(dtype),
    "float32",
    "int32",
)
X = np.linspace(-1, 1, 40, dtype=np.float32).reshape(2, 5, 4)


@pytest.fixture(autouse=True, scope="module")
def compiled_fast() -> Iterator[None]:
    """Small programs are sooner done slowly than they are optimized."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the deprecation warnings that TensorFlow's cells give of themselves, at the caller's line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("tf1_op_names", [False, True], ids=["", "op names"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_names_shapes_and_order(name: str, tf1_op_names: bool) -> None:
    with fresh_graph(), quietly():
        PROGRAMS[name](THEIRS, tf.constant(X))
        expected = table()
    model = jv.transform(lambda x: PROGRAMS[name](OURS, x) and None, tf1_op_names=tf1_op_names)
    assert our_table(model.specs(X)) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    program, phrase = REFUSED[name]
    with fresh_graph(), quietly(), pytest.raises((ValueError, TypeError, NotImplementedError)) as theirs:
        program(THEIRS, tf.constant(X))
    with pytest.raises(jv.JaxvarsError) as ours:
        jv.transform(lambda x: program(OURS, x)).specs(X)
    kind = ValueError if isinstance(theirs.value, ValueError) else TypeError
    assert isinstance(ours.value, kind)
    assert phrase in str(theirs.value), theirs.value
    assert phrase in str(ours.value), ours.value


# Values


_cells = st.deferred(lambda: _plain | _residual | _stack)
_units = st.integers(1, 4)
_plain = st.one_of(
    st.fixed_dictionaries({"kind": st.just("BasicRNNCell"), "num_units": _units}),
    st.fixed_dictionaries({"kind": st.just("GRUCell"), "num_units": _units}),
    st.fixed_dictionaries(
        {
            "kind": st.just("BasicLSTMCell"),
            "num_units": _units,
            "forget_bias": st.sampled_from([0.0, 1.0]),
            "state_is_tuple": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("LSTMCell"),
            "num_units": _units,
            "use_peepholes": st.booleans(),
            "cell_clip": st.sampled_from([None, 0.3]),
            "num_proj": st.none() | st.integers(1, 3),
            "proj_clip": st.sampled_from([None, 0.2]),
            "forget_bias": st.sampled_from([0.5, 1.0]),
            "state_is_tuple": st.booleans(),
        }
    ),
)
_residual = st.fixed_dictionaries({"kind": st.just("residual"), "cell": _plain})
_stack = st.fixed_dictionaries(
    {"kind": st.just("stack"), "cells": st.lists(_plain | _residual, min_size=1, max_size=2)}
)
_networks = st.fixed_dictionaries(
    {
        "loop": st.sampled_from(["dynamic"] * 4 + ["bidirectional"] * 2 + ["static", "static bidirectional"]),
        "cells": st.tuples(_cells, _cells),
        "activation": st.sampled_from([None, "relu"]),
        "batch": st.integers(1, 3),
        "time": st.integers(1, 4),
        "depth": st.integers(1, 4),
        "lengths": st.none() | st.lists(st.integers(0, 5), min_size=3, max_size=3),
        "time_major": st.booleans(),
        "initial": st.booleans(),
        "seed": st.integers(0, 10**6),
    }
)


def make_cell(api: Api, spec: Any, activation: Any, depth: int) -> Any:
    """Build what a strategy drew. A residual cell has as many outputs as inputs."""
    arguments = {name: value for name, value in spec.items() if name != "kind"}
    if spec["kind"] == "stack":
        cells = []
        for inner in spec["cells"]:
            cells.append(make_cell(api, inner, activation, depth))
            depth = cells[-1].output_size
        return api.cells.MultiRNNCell(cells)
    if spec["kind"] == "residual":
        inner = {**spec["cell"], "num_units": depth}
        if "num_proj" in inner:
            inner["num_proj"] = None
        wrapped = api.cells.ResidualWrapper(make_cell(api, inner, activation, depth))
        return api.cells.DropoutWrapper(wrapped, 1.0, output_keep_prob=1.0)
    return getattr(api.cells, spec["kind"])(activation=activation, **arguments)


def random_like(sizes: Any, batch: int, random: np.random.RandomState) -> Any:
    return jax.tree.map(lambda n: random.normal(size=[batch, n]).astype(np.float32), sizes)


def run_network(api: Api, network: Any, x: Any, lengths: Any, states: Any) -> tuple[list[Any], list[Any]]:
    """Outputs and final states, each as a flat list."""
    fw, bw = (make_cell(api, spec, network["activation"], network["depth"]) for spec in network["cells"])
    states = (
        [None, None] if states is None else [_as_state(api, cell, s) for cell, s in zip((fw, bw), states, strict=True)]
    )
    loop = network["loop"]
    common = {"sequence_length": lengths, "dtype": api.float32}
    if loop == "dynamic":
        out, state = api.nn.dynamic_rnn(fw, x, initial_state=states[0], time_major=network["time_major"], **common)
    elif loop == "bidirectional":
        out, state = api.nn.bidirectional_dynamic_rnn(
            fw,
            bw,
            x,
            initial_state_fw=states[0],
            initial_state_bw=states[1],
            time_major=network["time_major"],
            **common,
        )
    else:
        steps = [x[t] if network["time_major"] else x[:, t] for t in range(network["time"])]
        if loop == "static":
            out, state = api.nn.static_rnn(fw, steps, initial_state=states[0], **common)
        else:
            out, *state = api.nn.static_bidirectional_rnn(
                fw, bw, steps, initial_state_fw=states[0], initial_state_bw=states[1], **common
            )
    flatten = tf.nest.flatten if api is THEIRS else jax.tree.leaves
    return flatten(out), flatten(state)


def _as_state(api: Api, cell: Any, values: list[np.ndarray]) -> Any:
    if api is THEIRS:
        return tf.nest.pack_sequence_as(cell.state_size, [tf.constant(value) for value in values])
    return jax.tree.unflatten(jax.tree.structure(cell.state_size), values)


@examples(80)
@hypothesis.given(_networks)
def test_networks(network: Any) -> None:
    random = np.random.RandomState(network["seed"])
    batch, time = network["batch"], network["time"]
    shape = [time, batch] if network["time_major"] else [batch, time]
    x = random.normal(size=[*shape, network["depth"]]).astype(np.float32)
    lengths = None if network["lengths"] is None else np.minimum(network["lengths"][:batch], time).astype(np.int32)
    states: Any = None
    if network["initial"]:
        cells = [make_cell(OURS, spec, None, network["depth"]) for spec in network["cells"]]
        states = [jax.tree.leaves(random_like(cell.state_size, batch, random)) for cell in cells]

    def weighted(arrays: list[Any], cos: Any) -> list[Any]:
        """A different weight for each result, so that none can stand for another."""
        return [cos(a * (i + 1.0) + 0.5) for i, a in enumerate(arrays)]

    with fresh_graph() as session, quietly():
        given = tf.constant(x)
        out, state = run_network(THEIRS, network, given, lengths, states)
        expected_table = table()
        weights = tf.trainable_variables()
        values = [(random.normal(size=v.shape.as_list()) * 0.7).astype(np.float32) for v in weights]
        for variable, value in zip(weights, values, strict=True):
            variable.load(value, session)
        loss = tf.add_n([tf.reduce_sum(y) for y in weighted(out + state, tf.cos)])
        theirs = session.run((out, state, tf.gradients(loss, [*weights, given])))
        names = [v.op.name for v in weights]

    model = jv.transform(lambda x: run_network(OURS, network, x, lengths, states))
    specs = model.specs(x)
    assert our_table(specs) == expected_table
    variables = specs.replace(dict(zip(names, values, strict=True)))

    def ours_of(variables: jv.Variables, x: Any) -> Any:
        out, state = model(variables, x)
        return sum(jnp.sum(y) for y in weighted(out + state, jnp.cos)), (out, state)

    gradients, (out, state) = jax.jit(jax.grad(ours_of, argnums=(0, 1), has_aux=True))(variables, x)
    for ours, wanted in zip([*out, *state], [*theirs[0], *theirs[1]], strict=True):
        assert_close(ours, wanted)
    for ours, wanted, name in zip(
        [*(gradients[0][n] for n in names), gradients[1]], theirs[2], [*names, "inputs"], strict=True
    ):
        assert_close(ours, np.zeros(ours.shape) if wanted is None else wanted, name=name)

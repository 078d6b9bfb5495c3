"""`dynamic_rnn` and its relatives: names, values, refusals; parity/test_rnn.py compares them with TensorFlow itself."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError
from parity.rnn_programs import PROGRAMS, REFUSED, Api

cells = jv.nn.rnn_cell
API = Api(
    cells,
    jv.nn,
    jv.variable_scope,
    jv.get_variable,
    jv.AUTO_REUSE,
    jv.ones_initializer,
    lambda shape: jnp.zeros(shape, "float32"),
    lambda x, dtype: x.astype(dtype),
    "float32",
    "int32",
)
GOLDEN = json.loads((Path(__file__).resolve().parent / "golden" / "rnn.json").read_text())
X = np.linspace(-1, 1, 40, dtype=np.float32).reshape(2, 5, 4)
LENGTHS = np.array([5, 2], np.int32)


@pytest.fixture(autouse=True, scope="module")
def compiled_fast():
    """Small programs are sooner done slowly than they are optimized."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def table(variables):
    lines = []
    for key in variables._layout.creation_order:
        spec = variables.variable_specs[key]
        sizes = ",".join(map(str, spec.shape))
        lines.append(f"{key} [{sizes}] {np.dtype(spec.dtype).name} {'trainable' if spec.trainable else '-'}")
    return lines


# -- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_variables_are_tensorflows(name):
    model = jv.transform(lambda x: PROGRAMS[name](API, x) and None)
    assert table(model.specs(X)) == GOLDEN[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_tensorflow_refuses(name):
    program, phrase = REFUSED[name]
    with pytest.raises(jv.JaxvarsError) as raised:
        jv.transform(lambda x: program(API, x)).specs(X)
    assert phrase in str(raised.value)


def test_a_refused_call_leaves_names_as_they_were():
    def net(x):
        for wrong in ({}, {"dtype": "float32", "sequence_length": [1]}):
            with pytest.raises(InvalidArgumentError):
                jv.nn.dynamic_rnn(cells.GRUCell(3), x, **wrong)
        with pytest.raises(InvalidArgumentError):
            jv.nn.bidirectional_dynamic_rnn(cells.GRUCell(3), cells.GRUCell(3), x[0], dtype="float32")
        cell = cells.GRUCell(3)
        with pytest.raises(InvalidArgumentError), jv.variable_scope("wrong"):
            cell(x, API.zeros([2, 3]))
        assert jv.global_variables() == [] and cell.variables == []
        cell(x[:, 0], API.zeros([2, 3]))
        with jv.variable_scope(None, default_name="rnn") as scope:
            assert scope.name == "rnn"
        assert cell.scope_name == "gru_cell"

    jv.transform(net).specs(X)


# -- values ----------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_in_numpy(x, kernel, bias, lengths):
    """An LSTM written down step by step, one sequence after the other."""
    units = bias.size // 4
    outputs = np.zeros([*x.shape[:2], units])
    state = np.zeros([2, len(x), units])
    for b, sequence in enumerate(x):
        c, h = state[:, b]
        for t in range(lengths[b]):
            i, j, f, o = np.split(np.concatenate([sequence[t], h]) @ kernel + bias, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
            h = sigmoid(o) * np.tanh(c)
            outputs[b, t] = h
        state[:, b] = c, h
    return outputs, state


def test_lstm_over_sequences_of_different_lengths():
    def net(x, lengths):
        cell = cells.LSTMCell(3)
        outputs, state = jv.nn.dynamic_rnn(cell, x, lengths, dtype="float32")
        unrolled, last = jv.nn.static_rnn(cell, list(x.swapaxes(0, 1)), dtype="float32", sequence_length=lengths)
        return (outputs, state), (jnp.stack(unrolled, 1), last)

    model = jv.transform(net)
    variables = model.init(0, X, LENGTHS).replace({"rnn/lstm_cell/bias": np.linspace(-1, 1, 12, dtype=np.float32)})
    expected, (c, h) = lstm_in_numpy(
        X, np.asarray(variables["rnn/lstm_cell/kernel"]), np.asarray(variables["rnn/lstm_cell/bias"]), LENGTHS
    )
    for outputs, state in model(variables, X, LENGTHS):
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.c, c, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.h, h, rtol=1e-5, atol=1e-6)
        assert isinstance(state, cells.LSTMStateTuple) and not np.any(outputs[1, 2:])


@pytest.mark.slow
def test_both_directions():
    """The backward network is the forward one on the sequence turned round, up to its length."""

    def net(x, lengths):
        fw, bw = cells.GRUCell(3, name="one"), cells.GRUCell(3, name="one")
        (first, second), states = jv.nn.bidirectional_dynamic_rnn(fw, bw, x, lengths, dtype="float32")
        turned = jv.nn.reverse_sequence(x, lengths, seq_axis=1)
        again, last = jv.nn.dynamic_rnn(bw, turned, lengths, dtype="float32")
        unrolled, *_ = jv.nn.static_bidirectional_rnn(
            fw, bw, list(x.swapaxes(0, 1)), dtype="float32", sequence_length=lengths
        )
        both = jnp.concatenate([first, second], axis=2)
        return second, jv.nn.reverse_sequence(again, lengths, 1), states[1], last, both, jnp.stack(unrolled, 1)

    model = jv.transform(net)
    variables = model.init(0, X, LENGTHS)
    second, again, state, last, both, unrolled = model(variables, X, LENGTHS)
    np.testing.assert_allclose(second, again, rtol=1e-6)
    np.testing.assert_allclose(state, last, rtol=1e-6)
    np.testing.assert_allclose(both, unrolled, rtol=1e-5, atol=1e-6)
    assert not np.any(second[1, 2:]) and np.all(second[1, :2])


class Pair(cells.RNNCell):
    """A cell of structures: inputs, states and outputs are several, of several ranks."""

    output_size = (1, jax.ShapeDtypeStruct((2, 3), np.float32))

    @property
    def state_size(self):
        return {"sum": jax.ShapeDtypeStruct((2, 3), np.float32), "count": 1}

    def call(self, inputs, state):
        one, many = inputs
        count = state["count"] + 1
        total = state["sum"] + many * jv.get_variable("w", [1, 2, 3], initializer=jv.ones_initializer())
        return (count * one, total), {"sum": total, "count": count}


def test_structures_of_any_rank():
    def net(one, many):
        start = jax.tree.map(lambda x: x + 1, Pair().zero_state(2, "float32"))
        return jv.nn.dynamic_rnn(Pair(), (one, many), [1, 2], initial_state=start)

    model = jv.transform(net)
    arguments = np.full([2, 3, 1], 2.0, np.float32), np.ones([2, 3, 2, 3], np.float32)
    variables = model.init(0, *arguments)
    assert list(variables) == ["rnn/pair/w"]
    (first, second), state = model(variables, *arguments)
    np.testing.assert_array_equal(first[..., 0], [[4, 0, 0], [4, 6, 0]])
    np.testing.assert_array_equal(second[:, :, 1, 2], [[2, 0, 0], [2, 3, 0]])
    np.testing.assert_array_equal(state["count"], [[2], [3]])
    assert state["sum"].shape == (2, 2, 3)


def test_the_state_may_be_a_variable_and_sequences_may_be_empty():
    def net(x):
        start = jv.get_variable("start", [2, 3], initializer=jv.ones_initializer())
        return jv.nn.dynamic_rnn(cells.GRUCell(3), x, initial_state=start)

    model = jv.transform(net)
    outputs, state = model(model.init(0, X[:, :0]), X[:, :0])
    assert outputs.shape == (2, 0, 3)
    np.testing.assert_array_equal(state, np.ones([2, 3]))


# -- under transforms ------------------------------------------------------------------------------------


def test_losses_of_regularizers_come_out_of_the_loop():
    def net(x):
        with jv.variable_scope("s", regularizer=jv.regularizers.l2_regularizer(0.5)):
            jv.nn.dynamic_rnn(cells.GRUCell(3), x, dtype="float32")
        assert len(jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES)) == 4
        return jv.losses.get_regularization_loss()

    model = jv.transform(net)
    variables = model.init(0, X)
    expected = sum(0.25 * np.sum(np.square(value)) for value in variables.values())
    np.testing.assert_allclose(model(variables, X), expected, rtol=1e-5)


def test_a_cell_is_traced_once():
    """A weak type, or a structure that changes, would make scan trace the body again."""
    seen = []

    class Counted(cells.GRUCell):
        def call(self, inputs, state):
            seen.append(self.name)
            return super().call(inputs, state)

    model = jv.transform(lambda x: jv.nn.dynamic_rnn(Counted(3), x, initial_state=API.zeros([2, 3]) + 0.0)[0])
    variables = model.init(0, X)
    assert len(seen) == 1
    jax.eval_shape(model.apply, variables, X)
    assert len(seen) == 2


def test_in_the_users_own_scan_and_vmap():
    """Truncated backpropagation: the state is carried from piece to piece, by one set of variables."""

    def pieces(x):
        cell = cells.GRUCell(3)

        def piece(state, part):
            outputs, state = jv.nn.dynamic_rnn(cell, part, initial_state=state)
            return state, outputs

        parts = x.reshape(2, 2, 2, 4).swapaxes(0, 1)
        return jax.lax.scan(piece, cell.zero_state(2, "float32"), parts)[1].swapaxes(0, 1).reshape(2, 4, 3)

    def whole(x):
        return jv.nn.dynamic_rnn(cells.GRUCell(3), x, dtype="float32")[0]

    def mapped(x):
        return jax.vmap(lambda one: jv.nn.dynamic_rnn(cells.GRUCell(3), one[None], dtype="float32")[0][0])(x)

    x = X[:, :4]
    variables = jv.transform(whole).init(0, x)
    expected = jv.transform(whole)(variables, x)
    for fn in (pieces, mapped):
        model = jv.transform(fn)
        assert list(model.specs(x)) == list(variables)
        np.testing.assert_allclose(model(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_errors_name_the_way_out():
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        jv.nn.dynamic_rnn(cells.GRUCell(3), X, dtype="float32")
    with pytest.raises(InvalidArgumentError, match="seq_axis and batch_axis are two axes"):
        jv.nn.reverse_sequence(X, [1, 1], 0)

    class Growing(cells.RNNCell):
        state_size = output_size = 3

        def call(self, inputs, state):
            return state, jnp.concatenate([state, state], axis=1)

    class Forked(Growing):
        def call(self, inputs, state):
            return state, (state, state)

    for cell, text in ((Growing(), r"float32\[2, 3\] and came out as float32\[2, 6\]"), (Forked(), "nested structure")):
        with pytest.raises(InvalidArgumentError, match=text):
            jv.transform(lambda x, cell=cell: jv.nn.dynamic_rnn(cell, x, dtype="float32")).specs(X)

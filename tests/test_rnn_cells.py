"""`jv.nn.rnn_cell`: where cells live, what they compute, wrappers and dropout. Loops over time are in test_rnn.py."""

import copy
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError

cells = jv.nn.rnn_cell
ONES = np.ones([2, 4], np.float32)


@pytest.fixture(autouse=True, scope="module")
def compiled_fast():
    """Small programs are sooner done slowly than they are optimized."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def step(cell, x=ONES):
    return cell(x, cell.zero_state(len(x), "float32"))


class Add(cells.RNNCell):
    """Adds its inputs up; knows nothing of ``super().__init__``."""

    def __init__(self, size):
        self.size = size

    @property
    def state_size(self):
        return self.size

    @property
    def output_size(self):
        return self.size

    def call(self, inputs, state):
        state = state + inputs * jv.get_variable("w", [], initializer=jv.ones_initializer())
        return state, state


class Built(cells.RNNCell):
    """Makes its variables beforehand and keeps the handles, as layers do."""

    state_size = output_size = 3

    def build(self, input_shape):
        double = jv.regularizers.l2_regularizer(2.0)
        self.kernel = self.add_variable("kernel", [input_shape[1], 3], regularizer=double)
        self.scale = self.add_weight("scale", [], trainable=False, initializer=jv.ones_initializer())

    def call(self, inputs, state, scope=None):
        assert scope.name.endswith("built")
        return inputs @ self.kernel * self.scale, state


# -- frames ----------------------------------------------------------------------------------------------


def test_a_cell_serves_many_frames():
    cell = cells.MultiRNNCell([cells.GRUCell(3), Add(3)])
    model = jv.transform(lambda x: step(cell, x)[0])
    variables = model.init(0, ONES)
    scope = "multi_rnn_cell/cell_"
    assert {f"{scope}0/gru_cell/gates/kernel", f"{scope}1/add/w"} < set(variables)
    first = model(variables, ONES)
    np.testing.assert_array_equal(jax.jit(model)(variables, ONES), first)
    with jv.VariableStore(variables=variables):
        np.testing.assert_allclose(step(cell)[0], first, rtol=1e-6)
        with jv.VariableStore(1) as other:  # a frame inside a frame, over the same cell
            step(cell)
        np.testing.assert_allclose(step(cell)[0], first, rtol=1e-6)
        assert {v.key for v in cell.variables} == set(variables) == set(other.variables)
    gc.collect()
    assert not cell._places and not cell.__dict__.get("_keys_by_graph"), "something kept a frame alive"


def test_what_a_cell_built_belongs_to_the_frame():
    cell = Built()
    model = jv.transform(lambda x: step(cell, x)[0])
    variables = model.init(0, ONES)
    with jv.VariableStore(variables=variables):
        first = step(cell)[0]
        model.apply(variables, ONES)
        np.testing.assert_array_equal(step(cell)[0], first)
        assert len(jv.global_variables()) == 2


def test_a_first_call_that_fails_fixes_nothing():
    class Failing(cells.GRUCell):
        fails = True

        def call(self, inputs, state):
            if self.fails:
                raise KeyError("not yet")
            return super().call(inputs, state)

    def net():
        cell = Failing(3)
        with pytest.raises(KeyError), jv.variable_scope("a"):
            step(cell)
        cell.fails = False
        with jv.variable_scope("b"):
            step(cell)

    assert next(iter(jv.transform(net).specs())) == "b/failing/candidate/bias"


def test_copies_are_cells_of_their_own():
    def net():
        cell = cells.BasicRNNCell(3)
        twin = copy.deepcopy(cell)
        step(cell)
        step(twin)

    assert list(jv.transform(net).specs()) == [
        "basic_rnn_cell/bias",
        "basic_rnn_cell/kernel",
        "basic_rnn_cell_1/bias",
        "basic_rnn_cell_1/kernel",
    ]


def test_a_body_that_jax_traces_twice_finds_its_variables():
    """A carry that begins as an int: both runs of the body are one call of the cell."""

    def net(x):
        cell = cells.GRUCell(4)

        def body(total, _):
            return total + jnp.sum(step(cell, x)[0]) + jnp.sum(step(cells.GRUCell(4, name="inside"), x)[0]), None

        return jax.lax.scan(body, 0, length=3)[0]

    assert {name.split("/")[0] for name in jv.transform(net).specs(ONES)} == {"gru_cell", "inside"}


def test_what_a_cell_says_of_itself():
    with jv.VariableStore(0):
        cell = Built(name="built")
        assert (cell.name, cell.trainable, cell.variables) == ("built", True, [])
        with pytest.raises(InvalidArgumentError, match="has not been used yet"):
            print(cell.scope_name)
        with jv.variable_scope("given"):
            step(cell)
        assert cell.scope_name == "given/built"
        assert [v.key for v in cell.weights] == ["given/built/kernel", "given/built/scale"]
        assert cell.trainable_weights == cell.trainable_variables == [cell.kernel]
        assert cell.non_trainable_weights == cell.non_trainable_variables == [cell.scale]
        assert len(jv.get_collection(jv.GraphKeys.REGULARIZATION_LOSSES)) == 1
        wrapped = cells.ResidualWrapper(cells.MultiRNNCell([cell, cell]))
        assert [v.key for v in wrapped.variables] == ["given/built/kernel", "given/built/scale"]


# -- computation -----------------------------------------------------------------------------------------


def test_activations_by_name_and_dtypes():
    with jv.VariableStore(0), jv.variable_scope("s", initializer=jv.ones_initializer()):
        np.testing.assert_array_equal(step(cells.BasicRNNCell(3, "relu"))[0], np.full([2, 3], 4.0))
        half = ONES.astype(jnp.bfloat16)
        cell = cells.LSTMCell(3, state_is_tuple=False, num_unit_shards=2)
        output, state = cell(half, cell.zero_state(2, jnp.bfloat16))
        assert output.dtype == state.dtype == jnp.bfloat16 and state.shape == (2, 6)
        assert {v.dtype for v in cell.variables} == {jnp.dtype(jnp.bfloat16)}
        np.testing.assert_array_equal(output, state[:, 3:])
        assert isinstance(cell.variables[0], jv.PartitionedVariable)


def test_states_to_start_from():
    cell = cells.MultiRNNCell([cells.LSTMCell(3, num_proj=2), cells.GRUCell(4)])
    assert cell.state_size == ((3, 2), 4) and cell.output_size == 4
    (lstm, gru) = cell.get_initial_state(inputs=ONES)
    assert (lstm.c.shape, lstm.h.shape, gru.shape, lstm.dtype) == ((2, 3), (2, 2), (2, 4), np.float32)
    for wrong, text in (
        ({"inputs": ONES, "batch_size": 3}, "batch size from input tensor is different"),
        ({"inputs": ONES, "dtype": "int32"}, "dtype from input tensor is different"),
        ({"batch_size": 3}, "batch_size and dtype cannot be None"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            cell.get_initial_state(**wrong)
    with pytest.raises(InvalidTypeError, match="Inconsistent dtypes"):
        print(cells.LSTMStateTuple(np.zeros(1, np.float32), np.zeros(1, np.int32)).dtype)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: cells.GRUCell(-1), InvalidArgumentError, "num_units is an int >= 0, got -1"),
        (lambda: cells.LSTMCell(3, cell_clip=-1.0), InvalidArgumentError, "cell_clip is a number >= 0"),
        (lambda: cells.GRUCell(3, activation="tan"), InvalidTypeError, "one of linear, tanh, sigmoid"),
        (lambda: step(cells.RNNCell()), InvalidTypeError, "RNNCell has no state_size"),
        (lambda: jv.nn.dynamic_rnn(cells.GRUCell, ONES[None]), InvalidTypeError, "is not an RNNCell: it is a class"),
        (lambda: step(cells.GRUCell(3), ONES.astype("int32")), InvalidArgumentError, "only supports floating point"),
        (lambda: step(cells.GRUCell(3), ONES.astype("float16")), InvalidTypeError, "must have one type, got float16"),
        (lambda: step(cells.GRUCell(3, dtype="float16")), InvalidTypeError, "must have one type, got float32"),
        (lambda: cells.LSTMCell(3)(ONES, ONES), InvalidTypeError, r"write: jv\.nn\.rnn_cell\.LSTMStateTuple"),
        (lambda: cells.GRUCell(3)(ONES, ONES), InvalidArgumentError, r"\[batch, units\] = \[2, 3\]"),
        (lambda: cells.MultiRNNCell([cells.GRUCell(3), 3]), InvalidTypeError, r"'cells\[1\]' \(3\) is not an RNNCell"),
        (
            lambda: cells.MultiRNNCell([cells.GRUCell(3)], state_is_tuple=False)(ONES, ONES),
            InvalidArgumentError,
            r"Expected state to be \[batch, 3\]",
        ),
        (lambda: cells.DropoutWrapper(cells.GRUCell(3), "half"), InvalidTypeError, "input_keep_prob is a number"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text), jv.VariableStore(0):
        call()


def test_outside_of_a_frame():
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        step(cells.GRUCell(3))
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        cells.DropoutWrapper(cells.GRUCell(3), output_keep_prob=0.5, variational_recurrent=True, dtype="float32")
    assert cells.GRUCell(3).zero_state(2, "float32").shape == (2, 3)


# -- wrappers --------------------------------------------------------------------------------------------


def test_residual_cells():
    with jv.VariableStore(0):
        output, _ = step(cells.ResidualWrapper(Add(4)))
        np.testing.assert_array_equal(output, 2 * ONES)
        with jv.variable_scope("other"):
            output, _ = step(cells.ResidualWrapper(Add(4), lambda x, y: x - y), ONES * 3)
        np.testing.assert_array_equal(output, 0 * ONES)
        assert [v.key for v in jv.global_variables()] == ["add/w", "other/add/w"]


@pytest.fixture(scope="module")
def dropped():
    """What dropout leaves of ones, in a store: output and states of a cell that passes everything on."""

    class Pass(cells.RNNCell):
        state_size = (cells.LSTMStateTuple(64, 64), 64)
        output_size = 64

        def call(self, inputs, state):
            return inputs, state

    def run(rng=0, calls=1, **arguments):
        with jv.VariableStore(rng):
            cell = cells.DropoutWrapper(Pass(), **arguments)
            ones = jnp.ones([3, 64])
            state = cells.LSTMStateTuple(ones, ones), ones
            return [jax.tree.map(np.asarray, cell(ones, state)) for _ in range(calls)]

    return run


def test_what_is_dropped(dropped):
    (output, ((c, h), s)), (other, _) = dropped(calls=2, input_keep_prob=0.5, state_keep_prob=0.25)
    assert set(np.unique(output)) == {0, 2} and set(np.unique(h)) == {0, 4} and np.all(c == 1)
    assert np.any(output != other) and np.any(h != s) and len(np.unique(output, axis=0)) == 3
    [(output, ((c, h), s))] = dropped(output_keep_prob=jnp.float32(0.5))
    assert set(np.unique(output)) == {0, 2} and np.all(h == 1)


def test_random_numbers_come_from_the_key_and_the_seed(dropped):
    def output(**arguments):
        return dropped(output_keep_prob=0.5, **arguments)[0][0]

    np.testing.assert_array_equal(output(), output())
    assert np.any(output() != output(rng=1)) and np.any(output() != output(seed=1))
    with pytest.raises(FailedPreconditionError, match="rng"):
        output(rng=None)
    dropped(rng=None, output_keep_prob=1.0, variational_recurrent=True, dtype="float32")  # needs no key


def test_variational_dropout(dropped):
    (first, ((c, h), s)), (second, _) = dropped(
        calls=2,
        input_keep_prob=0.5,
        state_keep_prob=0.5,
        output_keep_prob=0.5,
        variational_recurrent=True,
        input_size=64,
        dtype="float32",
    )
    np.testing.assert_array_equal(first, second)
    assert set(np.unique(first)) == {0, 4} and len(np.unique(first, axis=0)) == 1
    assert np.all(c == 1) and set(np.unique(h)) == {0, 2} and np.any(h != s)


def test_which_states_are_dropped(dropped):
    def untouched(visitor):
        [(_, ((c, h), s))] = dropped(state_keep_prob=0.5, dropout_state_filter_visitor=visitor)
        return [bool(np.all(part == 1)) for part in (c, h, s)]

    assert untouched(lambda state: True) == [False, False, False]
    assert untouched(lambda state: False) == [True, True, True]
    assert untouched(lambda state: (True, False) if isinstance(state, tuple) else True) == [False, True, True]
    with pytest.raises(InvalidTypeError, match="one for each of the 2 parts"):
        untouched(lambda state: [True])


def test_dropout_that_keeps_nothing_or_outlives_its_frame():
    with pytest.raises(InvalidArgumentError, match=r"range \[0, 1\), got 1"), jv.VariableStore(0):
        step(cells.DropoutWrapper(cells.GRUCell(3), output_keep_prob=0))
    with jv.VariableStore(0):
        cell = cells.DropoutWrapper(cells.GRUCell(3), output_keep_prob=0.5, variational_recurrent=True, dtype="float32")
    with pytest.raises(FailedPreconditionError, match="drawn in another frame"), jv.VariableStore(0):
        step(cell)

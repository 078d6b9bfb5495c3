"""Programs that call cells and loops in TF1's ways, written once and run by both libraries.

Each is a function ``(api, x)``; `Api` holds what they need of a library, and `x` is ``[2, 5, 4]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["PROGRAMS", "REFUSED", "Api"]


class Api(NamedTuple):
    """The names of one library."""

    cells: Any
    nn: Any
    variable_scope: Any
    get_variable: Any
    auto_reuse: Any
    ones: Any
    zeros: Any
    cast: Any
    float32: Any
    int32: Any

    def run(self, cell: Any, x: Any, **arguments: Any) -> Any:
        return self.nn.dynamic_rnn(cell, x, dtype=self.float32, **arguments)

    def step(self, cell: Any, x: Any, time: int = 0, **arguments: Any) -> Any:
        return cell(x[:, time], cell.zero_state(2, self.float32), **arguments)

    def own(self, **arguments: Any) -> Any:
        api = self

        class MyOwnCell(api.cells.RNNCell):
            @property
            def state_size(self) -> int:
                return 3

            @property
            def output_size(self) -> int:
                return 3

            def call(self, inputs: Any, state: Any) -> Any:
                weights = api.get_variable("w", [4, 3])
                return inputs @ weights + state, state

        return MyOwnCell(**arguments)


Program = Callable[[Api, Any], Any]
PROGRAMS: dict[str, Program] = {}
REFUSED: dict[str, tuple[Program, str]] = {}
"""Programs that both refuse, with the phrase that both texts hold."""


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


def refused(phrase: str) -> Callable[[Program], Program]:
    def register(function: Program) -> Program:
        REFUSED[function.__name__] = (function, phrase)
        return function

    return register


# Which names


@program
def each_cell(a: Api, x: Any) -> None:
    for number, cell in enumerate(
        [
            a.cells.BasicRNNCell(3),
            a.cells.GRUCell(3),
            a.cells.BasicLSTMCell(3),
            a.cells.LSTMCell(3),
            a.cells.LSTMCell(3, use_peepholes=True, num_proj=2),
            a.cells.LSTMCell(3, state_is_tuple=False),
            a.own(),
            a.own(name="named"),
            a.cells.GRUCell(3, name="named"),
        ]
    ):
        a.run(cell, x, scope=f"s{number}")


@program
def default_scope(a: Api, x: Any) -> None:
    a.run(a.cells.LSTMCell(3), x)


@program
def default_names_are_counted(a: Api, x: Any) -> None:
    for _ in range(3):
        a.step(a.cells.BasicLSTMCell(3), x)
    for _ in range(2):
        a.step(a.cells.GRUCell(3, name="given"), x)


@program
def one_cell_in_two_scopes(a: Api, x: Any) -> None:
    cell = a.cells.LSTMCell(3)
    a.run(cell, x, scope="a")
    a.run(cell, x, scope="b")
    with a.variable_scope("c"):
        a.step(cell, x)


@program
def one_cell_twice(a: Api, x: Any) -> None:
    cell = a.cells.LSTMCell(3)
    a.run(cell, x)
    a.run(cell, x)


@program
def reuse_of_cells(a: Api, x: Any) -> None:
    for reuse in (None, True, a.auto_reuse):
        a.step(a.cells.BasicLSTMCell(3, reuse=reuse), x)
    for reuse in (a.auto_reuse, True):
        a.step(a.cells.GRUCell(3, name="foo", reuse=reuse), x)


@program
def reuse_of_scopes(a: Api, x: Any) -> None:
    for reuse in (None, True, a.auto_reuse):
        with a.variable_scope("model", reuse=reuse):
            a.run(a.cells.LSTMCell(3), x)
            a.run(a.own(), x, scope="second")


@program
def scope_argument(a: Api, x: Any) -> None:
    cell = a.cells.GRUCell(3)
    a.step(cell, x, scope="given")
    a.step(cell, x, 1, scope="ignored")
    own = a.own()
    a.step(own, x, scope="own")
    a.step(own, x, 1, scope="ignored")


@program
def captured_scope(a: Api, x: Any) -> None:
    with a.variable_scope("outer") as scope:
        pass
    a.run(a.cells.GRUCell(3), x, scope=scope)
    with a.variable_scope(scope):
        a.run(a.cells.GRUCell(2), x, scope="inner")


@program
def stacked(a: Api, x: Any) -> None:
    a.run(a.cells.MultiRNNCell([a.cells.BasicLSTMCell(3), a.cells.GRUCell(4), a.own()]), x)
    shared = a.cells.GRUCell(4)
    a.run(a.cells.MultiRNNCell([shared, shared]), x, scope="shared")
    cells = [a.cells.GRUCell(n) for n in (3, 2)]
    a.run(a.cells.MultiRNNCell(cells, state_is_tuple=False), x, scope="flat")


@program
def wrapped(a: Api, x: Any) -> None:
    inner = a.cells.ResidualWrapper(a.cells.GRUCell(4))
    a.run(a.cells.DropoutWrapper(inner, output_keep_prob=0.5), x)
    layers = [a.cells.DropoutWrapper(a.cells.LSTMCell(4), state_keep_prob=0.5) for _ in range(2)]
    a.run(a.cells.ResidualWrapper(a.cells.MultiRNNCell(layers)), x, scope="stack")


@program
def a_wrapper_and_its_cell_are_one(a: Api, x: Any) -> None:
    cell = a.cells.GRUCell(4)
    a.run(a.cells.ResidualWrapper(cell), x, scope="a")
    a.run(cell, x, scope="b")


@program
def bidirectional(a: Api, x: Any) -> None:
    a.nn.bidirectional_dynamic_rnn(a.cells.GRUCell(3), a.cells.LSTMCell(2), x, dtype=a.float32)
    cell = a.cells.GRUCell(3)
    a.nn.bidirectional_dynamic_rnn(cell, cell, x, dtype=a.float32, scope="shared")


@program
def unrolled(a: Api, x: Any) -> None:
    steps = [x[:, 0], x[:, 1], x[:, 2]]
    a.nn.static_rnn(a.cells.LSTMCell(3), steps, dtype=a.float32)
    a.nn.static_rnn(a.own(), steps, dtype=a.float32, scope="own")
    a.nn.static_rnn(a.cells.MultiRNNCell([a.cells.GRUCell(3), a.cells.GRUCell(3)]), steps, dtype=a.float32, scope="st")
    a.nn.static_bidirectional_rnn(a.cells.GRUCell(3), a.cells.GRUCell(3), steps, dtype=a.float32)


@program
def encoder_and_decoder(a: Api, x: Any) -> None:
    with a.variable_scope("encoder"):
        _, state = a.run(a.cells.LSTMCell(3), x)
    with a.variable_scope("decoder") as scope:
        a.nn.dynamic_rnn(a.cells.LSTMCell(3), x, initial_state=state, scope=scope)
        scope.reuse_variables()
        a.nn.dynamic_rnn(a.cells.LSTMCell(3, reuse=True), x, initial_state=state, scope=scope)


@program
def defaults_of_the_scope(a: Api, x: Any) -> None:
    with a.variable_scope("s", initializer=a.ones(), regularizer=lambda v: None):
        a.run(a.cells.GRUCell(3), x)
        a.run(a.cells.LSTMCell(3, use_peepholes=True), x, scope="t")


@program
def not_trainable(a: Api, x: Any) -> None:
    a.run(a.cells.GRUCell(3, trainable=False), x)


@program
def getters_see_the_full_name(a: Api, x: Any) -> None:
    def getter(getter: Any, name: str, **arguments: Any) -> Any:
        return getter(name + "_got", **arguments)

    with a.variable_scope("g", custom_getter=getter):
        a.run(a.cells.LSTMCell(3), x)
        a.run(a.own(), x, scope="own")


@program
def surroundings_go_on_counting(a: Api, x: Any) -> None:
    for _ in range(2):
        with a.variable_scope(None, default_name="gru_cell"):
            a.get_variable("v", [1])
        a.step(a.cells.GRUCell(3), x)
    a.step(a.own(), x)
    with a.variable_scope(None, default_name="my_own_cell"):
        a.get_variable("v", [1])


@program
def odd_class_names(a: Api, x: Any) -> None:
    for name in [
        "LayerNormBasicLSTMCell",
        "Conv2DLSTMCell",
        "_Hidden",
        "lower",
        "ABCell",
        "A1Cell",
        "GRU2",
        "Own_Cell",
    ]:
        type(name, (a.cells.GRUCell,), {})(3)(x[:, 0], a.zeros([2, 3]))


# What is refused


@refused("rnn/lstm_cell/kernel already exists")
def two_cells_in_one_scope(a: Api, x: Any) -> None:
    a.run(a.cells.LSTMCell(3), x)
    a.run(a.cells.LSTMCell(3), x)


@refused("sc/kernel already exists")
def scope_argument_twice(a: Api, x: Any) -> None:
    for _ in range(2):
        a.step(a.cells.BasicLSTMCell(3), x, scope="sc")


@refused("my_own_cell/w already exists")
def own_cells_are_not_counted(a: Api, x: Any) -> None:
    for _ in range(2):
        a.step(a.own(), x)


@refused("multi_rnn_cell/cell_0/gru_cell/gates/kernel already exists")
def stacks_are_not_counted(a: Api, x: Any) -> None:
    for _ in range(2):
        a.step(a.cells.MultiRNNCell([a.cells.GRUCell(3)]), x)


@refused("gru_cell/gates/kernel does not exist")
def reuse_of_nothing(a: Api, x: Any) -> None:
    a.step(a.cells.GRUCell(3, reuse=True), x)


@refused("If no initial_state is provided, argument `dtype` must be specified")
def no_dtype(a: Api, x: Any) -> None:
    a.nn.dynamic_rnn(a.cells.GRUCell(3), x)


@refused("If no initial_state is provided, argument `dtype` must be specified")
def no_dtype_unrolled(a: Api, x: Any) -> None:
    a.nn.static_rnn(a.cells.GRUCell(3), [x[:, 0]])


@refused(
    "is not an RNNCell: 'output_size' property is missing, 'state_size' property is missing, either 'zero_state' or "
    "'get_initial_state' method is required, is not callable."
)
def no_cell(a: Api, x: Any) -> None:
    a.run(3, x)


@refused("is not an RNNCell")
def no_cell_to_wrap(a: Api, x: Any) -> None:
    a.cells.DropoutWrapper(3)


@refused("sequence_length must be a vector of length batch_size. Received sequence_length")
def lengths_of_rank_two(a: Api, x: Any) -> None:
    a.run(a.cells.GRUCell(3), x, sequence_length=[[1, 2]])


@refused("")
def lengths_of_another_batch(a: Api, x: Any) -> None:
    a.run(a.cells.GRUCell(3), x, sequence_length=[1, 2, 3])


@refused("must have rank at least 3")
def inputs_of_rank_two(a: Api, x: Any) -> None:
    a.run(a.cells.GRUCell(3), x[:, 0])


@refused("RNN cell only supports floating point inputs, but received dtype")
def inputs_of_ints(a: Api, x: Any) -> None:
    a.run(a.cells.GRUCell(3), a.cast(x, a.int32))


@refused("")
def state_of_another_size(a: Api, x: Any) -> None:
    a.nn.dynamic_rnn(a.cells.GRUCell(3), x, initial_state=a.zeros([2, 7]))


@refused("")
def state_of_another_batch(a: Api, x: Any) -> None:
    a.nn.dynamic_rnn(a.cells.GRUCell(3), x, initial_state=a.zeros([3, 3]))


@refused("")
def state_of_another_structure(a: Api, x: Any) -> None:
    a.nn.dynamic_rnn(a.cells.GRUCell(3), x, initial_state=(a.zeros([2, 3]), a.zeros([2, 3])))


@refused("")
def lstm_state_that_is_no_pair(a: Api, x: Any) -> None:
    a.nn.dynamic_rnn(a.cells.LSTMCell(3), x, initial_state=a.zeros([2, 6]))


@refused("Expected state to be a tuple of length 1, but received")
def stack_state_that_is_no_tuple(a: Api, x: Any) -> None:
    a.nn.dynamic_rnn(a.cells.MultiRNNCell([a.cells.GRUCell(3)]), x, initial_state=a.zeros([2, 3]))


@refused("Time steps is not the same for all the elements in the input in a batch.")
def inputs_of_different_lengths(a: Api, x: Any) -> None:
    a.run(a.cells.GRUCell(3), (x, x[:, :3]))


@refused("Batch_size is not the same for all the elements in the input.")
def inputs_of_different_batches(a: Api, x: Any) -> None:
    a.run(a.cells.GRUCell(3), (x, x[:1]))


@refused("Must specify at least one cell for MultiRNNCell.")
def empty_stack(a: Api, x: Any) -> None:
    a.cells.MultiRNNCell([])


@refused("cells must be a list or tuple, but received")
def stack_of_no_list(a: Api, x: Any) -> None:
    a.cells.MultiRNNCell(a.cells.GRUCell(3))


@refused("Some cells return tuples of states, but the flag state_is_tuple is not set. State sizes are:")
def flat_stack_of_tuples(a: Api, x: Any) -> None:
    a.cells.MultiRNNCell([a.cells.LSTMCell(3)], state_is_tuple=False)


@refused("Parameter output_keep_prob must be between 0 and 1. Received 1.5")
def probability_above_one(a: Api, x: Any) -> None:
    a.cells.DropoutWrapper(a.cells.GRUCell(3), output_keep_prob=1.5)


@refused("When variational_recurrent=True, dtype must be provided")
def variational_without_dtype(a: Api, x: Any) -> None:
    a.cells.DropoutWrapper(a.cells.GRUCell(3), variational_recurrent=True)


@refused("When variational_recurrent=True and input_keep_prob < 1.0 or is unknown, input_size must be provided")
def variational_without_input_size(a: Api, x: Any) -> None:
    a.cells.DropoutWrapper(a.cells.GRUCell(3), 0.5, variational_recurrent=True, dtype=a.float32)


@refused("dropout_state_filter_visitor must be callable.")
def visitor_that_is_none(a: Api, x: Any) -> None:
    a.cells.DropoutWrapper(a.cells.GRUCell(3), dropout_state_filter_visitor=3)


@refused("Shapes (2, 4) and (2, 3) are incompatible")
def residual_of_another_size(a: Api, x: Any) -> None:
    a.run(a.cells.ResidualWrapper(a.cells.GRUCell(3)), x)


@refused("Argument `inputs` must be a sequence.")
def unrolled_of_no_list(a: Api, x: Any) -> None:
    a.nn.static_rnn(a.cells.GRUCell(3), x, dtype=a.float32)


@refused("Argument `inputs` must not be empty.")
def unrolled_of_nothing(a: Api, x: Any) -> None:
    a.nn.static_rnn(a.cells.GRUCell(3), [], dtype=a.float32)


@refused("is incompatible with the layer: expected ndim=2, found ndim=3.")
def step_of_rank_three(a: Api, x: Any) -> None:
    cell = a.cells.GRUCell(3)
    cell(x, cell.zero_state(2, a.float32))


@refused("")
def other_depth_in_a_later_call(a: Api, x: Any) -> None:
    cell = a.cells.GRUCell(3)
    a.step(cell, x)
    a.step(cell, x[:, :, :2])


@refused("")
def negative_units(a: Api, x: Any) -> None:
    a.step(a.cells.GRUCell(-1), x)


@refused("batch_size and dtype cannot be None while constructing initial state")
def initial_state_of_nothing(a: Api, x: Any) -> None:
    a.cells.GRUCell(3).get_initial_state()

"""Moving averages beside TensorFlow's: names, flags, collections, values of several steps, what is restored to what."""

from __future__ import annotations

from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from tensorflow.python.training import moving_averages

import jaxvars as jv
from parity.live import examples, fresh_graph, tf

DTYPES = ("float32", "float32", "bfloat16", "float16")
SCOPES = st.sampled_from(["", "train", "a", "a/b"])
# 0.9999 is not exact in float32, 1.0 never moves.
DECAYS = st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99, 0.9999, 1.0])


class Variable(NamedTuple):
    """A variable, and the number that each step adds to it."""

    scope: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    step: float


class Average(NamedTuple):
    """One `ExponentialMovingAverage` and what it is applied to: positions of variables, and of values made of them."""

    scope: str
    decay: float
    num_updates: int | None
    zero_debias: bool
    name: str
    variables: tuple[int, ...]
    values: tuple[int, ...]


VARIABLES = st.lists(
    st.builds(
        Variable, SCOPES, st.sampled_from([(), (3,), (2, 2)]), st.sampled_from(DTYPES), st.booleans(),
        st.sampled_from([-1.0, 0.5, 2.0]),
    ),
    min_size=1, max_size=3,
)  # fmt: skip
POSITIONS = st.lists(st.integers(0, 2), max_size=3, unique=True).map(tuple)
AVERAGES = st.lists(
    st.builds(
        Average, SCOPES, DECAYS, st.sampled_from([None, None, 0, 1, 50]), st.booleans(),
        st.sampled_from(["ExponentialMovingAverage", "avg"]), POSITIONS, POSITIONS,
    ),
    min_size=1, max_size=2,
)  # fmt: skip


class Side:
    """The same program on one of the two sides."""

    lib: Any = None

    def __init__(self, variables: list[Variable], averages: list[Average]) -> None:
        self.asked = averages
        self.variables: list[Any] = []
        self.restored: list[dict[str, str]] = []
        self.named: list[list[str]] = []
        for number, variable in enumerate(variables):
            with self.lib.variable_scope(variable.scope or self.lib.get_variable_scope()):
                self.variables.append(self.make(variable, number))

    def averaged(self) -> None:
        """Make all averages, and apply them."""
        count = len(self.variables)
        for asked in self.asked:
            ema = self.lib.train.ExponentialMovingAverage(
                asked.decay, num_updates=asked.num_updates, zero_debias=asked.zero_debias, name=asked.name
            )
            chosen = [self.variables[i % count] for i in asked.variables]
            named = {f"t{i}": self.variables[i % count] for i in asked.values}
            with self.lib.variable_scope(asked.scope or self.lib.get_variable_scope()):
                self.named.append([ema.average_name(v) for v in chosen])
                self.apply(ema, list({id(v): v for v in chosen}.values()), named)
            self.named.append([ema.average_name(v) for v in chosen])
            restored = ema.variables_to_restore()
            self.restored.append({name: v.op.name for name, v in restored.items()})

    def make(self, variable: Variable, number: int) -> Any:
        raise AssertionError

    def apply(self, ema: Any, chosen: list[Any], named: dict[str, Any]) -> None:
        raise AssertionError

    def described(self) -> list[Any]:
        """Names, shapes, dtypes and flags in the order of creation; members of the collection."""
        rows = [
            (v.op.name, tuple(v.shape.as_list()), str(np.dtype(self.dtype_of(v))), bool(v.trainable))
            for v in self.lib.global_variables()
        ]
        return [rows, sorted({v.op.name for v in self.lib.moving_average_variables()})]

    def dtype_of(self, variable: Any) -> Any:
        raise AssertionError


class Theirs(Side):
    """TensorFlow: a graph, run step by step."""

    lib = tf

    def make(self, variable: Variable, number: int) -> Any:
        ones = tf.constant_initializer(1.0)
        return tf.get_variable(f"v{number}", variable.shape, variable.dtype, ones, trainable=variable.trainable)

    def apply(self, ema: Any, chosen: list[Any], named: dict[str, Any]) -> None:
        with tf.name_scope(None):
            values = [tf.multiply(v, tf.constant(2.0, v.dtype.base_dtype), name=name) for name, v in named.items()]
        self.names = [value.op.name for value in values]
        self.ops = [*getattr(self, "ops", []), ema.apply([*chosen, *values])]
        self.all_names = [*getattr(self, "all_names", []), self.names]

    def dtype_of(self, variable: Any) -> Any:
        return variable.dtype.base_dtype.as_numpy_dtype

    def run(self, session: Any, deltas: list[float]) -> dict[str, Any]:
        """One step: first the variables, then one average after another."""
        for v, delta in zip(self.variables, deltas, strict=True):
            session.run(v.assign_add(tf.fill(v.shape, tf.constant(delta, v.dtype.base_dtype))))
        for op in self.ops:
            session.run(op)
        return {v.op.name: np.asarray(session.run(v), np.float32) for v in tf.global_variables()}


class Ours(Side):
    """jaxvars: a model whose call is one step."""

    lib = jv
    value_names: list[list[str]]

    def make(self, variable: Variable, number: int) -> Any:
        ones = jv.ones_initializer()
        return jv.get_variable(f"v{number}", variable.shape, variable.dtype, ones, trainable=variable.trainable)

    def apply(self, ema: Any, chosen: list[Any], named: dict[str, Any]) -> None:
        values = dict(zip(self.value_names.pop(0), [v * 2.0 for v in named.values()], strict=True))
        ema.apply({f"#{i}": v for i, v in enumerate(chosen)} | values)

    def dtype_of(self, variable: Any) -> Any:
        return variable.dtype


@examples(30)
@given(VARIABLES, AVERAGES)
def test_programs(variables: list[Variable], averages: list[Average]) -> None:
    deltas = [variable.step for variable in variables]
    with fresh_graph() as session:
        theirs = Theirs(variables, averages)
        try:
            theirs.averaged()
        except ValueError as error:  # the same name twice, in a scope that is entered again
            assert "already exists" in str(error)
            wanted: Any = None
        else:
            wanted = [theirs.described(), theirs.restored, theirs.named]
            session.run(tf.global_variables_initializer())
            steps = [theirs.run(session, deltas) for _ in range(3)]
        names = getattr(theirs, "all_names", [])

    store = jv.VariableStore(0)
    for number in range(3):
        with store:
            ours = Ours(variables, averages)
            ours.value_names = [list(group) for group in names]
            if wanted is None:
                ours.value_names += [[f"t{i}" for i in average.values] for average in averages[len(names) :]]
                try:
                    ours.averaged()
                except ValueError as error:
                    assert "already exists" in str(error)
                    return
                raise AssertionError("TensorFlow refuses this program")
            if number == 0:
                ours.averaged()
                assert [ours.described(), ours.restored, ours.named] == wanted
                # TF1 makes the shadows from the initial values, before the first step.
                state = store.variables
    model = jv.transform(lambda: _step(variables, averages, names, deltas))
    state = state.replace({v.key: np.ones(v.shape, v.dtype) for v in ours.variables})
    state = state.replace(
        {key: np.zeros(value.shape, value.dtype) for key, value in state.items() if _starts_at_zero(key, names)}
        | {key: np.ones(value.shape, value.dtype) for key, value in state.items() if _is_shadow(key, names, ours)}
    )
    for wanted_values in steps:
        _, state = model.apply(state)
        for key, value in wanted_values.items():
            near = 1e-5 if state[key].dtype == "float32" else 2e-2
            np.testing.assert_allclose(np.asarray(state[key], np.float32), value, rtol=near, atol=near, err_msg=key)


def _step(variables: list[Variable], averages: list[Average], names: list[list[str]], deltas: list[float]) -> None:
    ours = Ours(variables, averages)
    ours.value_names = [list(group) for group in names]
    for v, delta in zip(ours.variables, deltas, strict=True):
        v.assign_add(jnp.full(v.shape, delta, v.dtype))
    ours.averaged()


def _starts_at_zero(key: str, names: list[list[str]]) -> bool:
    parts = key.split("/")
    return any(name in parts for group in names for name in group)


def _is_shadow(key: str, names: list[list[str]], ours: Ours) -> bool:
    return key not in {v.key for v in ours.variables} and not _starts_at_zero(key, names)


@examples(20)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), DECAYS.filter(lambda d: d < 1), st.booleans(), SCOPES
)
def test_assign_moving_average(values: list[float], decay: float, zero_debias: bool, scope: str) -> None:
    with fresh_graph() as session:
        fed = tf.placeholder(tf.float32, [])
        with tf.variable_scope(scope or tf.get_variable_scope()):
            mean = tf.get_variable("mean", [], initializer=tf.zeros_initializer(), trainable=False)
            op = moving_averages.assign_moving_average(mean, fed, decay, zero_debias=zero_debias)
            weighted = moving_averages.weighted_moving_average(fed, decay, fed * fed + 1.0)
        session.run(tf.global_variables_initializer())
        wanted = [session.run([op, weighted], {fed: value}) for value in values]
        names = [v.op.name for v in tf.global_variables()]

    def net(value: Any) -> Any:
        with jv.variable_scope(scope or jv.get_variable_scope()):
            mean = jv.get_variable("mean", [], initializer=jv.zeros_initializer(), trainable=False)
            found = jv.train.assign_moving_average(mean, value, decay, zero_debias=zero_debias)
            return found, jv.train.weighted_moving_average(value, decay, value * value + 1.0)

    model, value = jv.transform(net), jnp.float32(0)
    state = model.init(0, value)
    assert list(state._layout.creation_order) == names
    for value, pair in zip(values, wanted, strict=True):
        out, state = model.apply(state, jnp.float32(value))
        np.testing.assert_allclose(out, pair, rtol=1e-5, atol=1e-6)


@examples(20)
@given(DECAYS, st.sampled_from([None, 0, 3, 1000]), st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3))
def test_beside_a_model(decay: float, num_updates: int | None, values: list[float]) -> None:
    with fresh_graph() as session:
        w, step = tf.get_variable("w", [2]), tf.train.create_global_step()
        ema = tf.train.ExponentialMovingAverage(decay, None if num_updates is None else step)
        op = ema.apply()
        session.run([w.assign([1.0, -1.0]), step.assign(num_updates or 0)])
        session.run(ema.average(w).assign(w))
        wanted = []
        for value in values:
            session.run([w.assign([value, 1.0]), step.assign_add(1)])
            session.run(op)
            wanted.append(session.run(ema.average(w)))
        restored = {name: v.op.name for name, v in ema.variables_to_restore().items()}

    ours = jv.train.ExponentialMovingAverage(decay, None if num_updates is None else "global_step")
    state = jv.train.create_global_step(jv.Variables({"w": jnp.array([1.0, -1.0])}))
    state = ours.init(jv.assign(state, "global_step", num_updates or 0))
    assert ours.variables_to_restore(state) == restored
    for value, average in zip(values, wanted, strict=True):
        state = ours.apply(jv.assign_add(jv.assign(state, "w", [value, 1.0]), "global_step", 1))
        np.testing.assert_allclose(ours.average(state, "w"), average, rtol=1e-6, atol=1e-7)

"""Optimizers step as TensorFlow's do: values, slots and their names, the counter, constraints, checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from parity.live import examples, fresh_graph, tf

RATES = st.integers(1, 64).map(lambda n: n / 128)
FACTORS = st.integers(1, 31).map(lambda n: n / 32)
SMALL = st.sampled_from([1e-8, 1e-6, 1e-3, 0.1])
STRENGTHS = st.integers(0, 16).map(lambda n: n / 64)

ARGUMENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # class -> (always given, sometimes given)
    "GradientDescentOptimizer": ({"learning_rate": RATES}, {}),
    "MomentumOptimizer": ({"learning_rate": RATES, "momentum": FACTORS}, {"use_nesterov": st.booleans()}),
    "AdamOptimizer": ({}, {"learning_rate": RATES, "beta1": FACTORS, "beta2": FACTORS, "epsilon": SMALL}),
    "RMSPropOptimizer": (
        {"learning_rate": RATES},
        {"decay": FACTORS, "momentum": FACTORS, "epsilon": SMALL, "centered": st.booleans()},
    ),
    "AdagradOptimizer": ({"learning_rate": RATES}, {"initial_accumulator_value": FACTORS}),
    "AdadeltaOptimizer": ({}, {"learning_rate": RATES, "rho": FACTORS, "epsilon": SMALL}),
    "FtrlOptimizer": (
        {"learning_rate": RATES},
        {
            "learning_rate_power": st.sampled_from([-0.5, -0.25, 0.0]),
            "initial_accumulator_value": FACTORS,
            "l1_regularization_strength": STRENGTHS,
            "l2_regularization_strength": STRENGTHS,
            "l2_shrinkage_regularization_strength": STRENGTHS,
            "beta": STRENGTHS,
        },
    ),
}
SCHEDULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "exponential_decay": (
        {"learning_rate": RATES, "decay_steps": st.integers(1, 5), "decay_rate": FACTORS},
        {"staircase": st.booleans()},
    ),
    "natural_exp_decay": (
        {"learning_rate": RATES, "decay_steps": st.integers(1, 5), "decay_rate": FACTORS},
        {"staircase": st.booleans()},
    ),
    "inverse_time_decay": (
        {"learning_rate": RATES, "decay_steps": st.integers(1, 5), "decay_rate": FACTORS},
        {"staircase": st.booleans()},
    ),
    "polynomial_decay": (
        {"learning_rate": RATES, "decay_steps": st.integers(1, 5)},
        {
            "end_learning_rate": st.sampled_from([0.0, 0.001, 0.01]),
            "power": st.sampled_from([0.5, 1.0, 2.0]),
            "cycle": st.booleans(),
        },
    ),
    "cosine_decay": ({"learning_rate": RATES, "decay_steps": st.integers(1, 5)}, {"alpha": FACTORS}),
}
SHAPES = [(), (3,), (2, 3)]
CONSTRAINTS = {
    "positive": (lambda w: tf.maximum(w, 0.0), lambda w: jnp.maximum(w, 0.0)),
    "bounded": (lambda w: tf.clip_by_value(w, -0.5, 0.5), lambda w: jnp.clip(w, -0.5, 0.5)),
}


class Made(NamedTuple):
    """A variable of the model."""

    key: str
    shape: tuple[int, ...]
    constraint: str | None
    trained: bool


class Trained(NamedTuple):
    """An optimizer over some of the variables."""

    kind: str
    arguments: dict[str, Any]
    schedule: tuple[str, dict[str, Any]] | None
    counts: bool


@st.composite
def arguments(draw: st.DrawFn, table: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(sorted(table)))
    always, sometimes = table[kind]
    chosen = draw(st.lists(st.sampled_from([*sometimes, ""]), max_size=3, unique=True))
    return kind, {n: draw(s) for n, s in always.items()} | {n: draw(sometimes[n]) for n in chosen if n}


@st.composite
def optimizers(draw: st.DrawFn) -> Trained:
    kind, given = draw(arguments(ARGUMENTS))
    if draw(st.integers(0, 4)) == 0:
        given["name"] = draw(st.sampled_from(["Mine", "Adam", "my/opt"]))
    schedule = draw(arguments(SCHEDULES)) if draw(st.integers(0, 3)) == 0 else None
    return Trained(kind, given, schedule, schedule is not None or draw(st.booleans()))


KEYS = ["w", "a/w", "a/b", "scope/deep/w"]


@st.composite
def models(draw: st.DrawFn) -> list[Made]:
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    made = [
        Made(key, draw(st.sampled_from(SHAPES)), draw(st.sampled_from([None, None, *CONSTRAINTS])), draw(st.booleans()))
        for key in keys
    ]
    return [made[0]._replace(trained=True), *made[1:]]


def build(api: Any, side: int, model: list[Made], values: dict[str, np.ndarray]) -> list[Any]:
    """Make the variables, and the step counter."""
    made = []
    for key, _, constraint, _ in model:
        scope, _, name = key.rpartition("/")
        with api.variable_scope(scope or api.get_variable_scope()):
            made.append(
                api.get_variable(
                    name,
                    initializer=values[key],
                    constraint=None if constraint is None else CONSTRAINTS[constraint][side],
                )
            )
    api.train.get_or_create_global_step()
    return made


class TensorFlow:
    """A graph that takes a step with each of the optimizers in turn."""

    def __init__(self, session: Any, model: list[Made], trained: list[Trained], values: dict[str, Any]) -> None:
        self.session = session
        variables = build(tf, 0, model, values)
        step = tf.train.get_global_step()
        pairs = [(made, variable) for made, variable in zip(model, variables, strict=True) if made.trained]
        self.feeds = {made.key: tf.placeholder(tf.float32, made.shape) for made, _ in pairs}
        self.ops = []
        for one in trained:
            given = dict(one.arguments)
            if one.schedule is not None:
                name, keywords = one.schedule
                given["learning_rate"] = getattr(tf.train, name)(global_step=step, **keywords)
            optimizer = getattr(tf.train, one.kind)(**given)
            gradients = [(self.feeds[made.key], variable) for made, variable in pairs]
            self.ops.append(optimizer.apply_gradients(gradients, global_step=step if one.counts else None))
        self.saver = tf.train.Saver()
        session.run(tf.global_variables_initializer())

    def step(self, number: int, gradients: dict[str, np.ndarray]) -> None:
        self.session.run(self.ops[number % len(self.ops)], {self.feeds[key]: value for key, value in gradients.items()})

    def state(self) -> dict[str, np.ndarray]:
        return dict(zip(self.names(), self.session.run(tf.global_variables()), strict=True))

    def names(self) -> list[str]:
        return [variable.op.name for variable in tf.global_variables()]

    def trainable(self) -> set[str]:
        return {variable.op.name for variable in tf.trainable_variables()}


class Jaxvars:
    """The same, over a value."""

    def __init__(self, model: list[Made], trained: list[Trained], values: dict[str, Any]) -> None:
        self.model = jv.transform(lambda: build(jv, 1, model, values) and None)
        self.variables = self.model.init(0)
        self.keys = [made.key for made in model if made.trained]
        self.counts = [one.counts for one in trained]
        self.optimizers = []
        for one in trained:
            given = dict(one.arguments)
            if one.schedule is not None:
                name, keywords = one.schedule
                given["learning_rate"] = getattr(jv.train, name)(**keywords)
            optimizer = getattr(jv.train, one.kind)(**given, var_list=self.keys)
            # Two optimizers of one name over the same variables say which is which.
            number = sum(before.name == optimizer.name for before in self.optimizers)
            if number:
                optimizer = getattr(jv.train, one.kind)(**given, var_list=self.keys, number=number)
            self.optimizers.append(optimizer)
        self.variables = self.with_slots(self.variables)

    def with_slots(self, variables: jv.Variables) -> jv.Variables:
        for optimizer in self.optimizers:
            variables = optimizer.init(variables)
        return variables

    def step(self, number: int, gradients: dict[str, np.ndarray]) -> None:
        position = number % len(self.optimizers)
        self.variables = self.optimizers[position].apply_gradients(
            gradients, self.variables, global_step="global_step" if self.counts[position] else None
        )


def check_state(theirs: TensorFlow, ours: Jaxvars) -> None:
    state = theirs.state()
    assert sorted(state) == list(ours.variables)
    for key, value in state.items():
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(ours.variables[key], value, rtol=3e-5, atol=3e-6 * scale, err_msg=key)


def numbers(seed: int, model: list[Made]) -> tuple[dict[str, np.ndarray], Any]:
    """Initial values, and a function that draws gradients."""
    rng = np.random.default_rng(seed)
    values = {made.key: rng.normal(size=made.shape).astype(np.float32) for made in model}

    def gradients() -> dict[str, np.ndarray]:
        drawn = {made.key: rng.normal(size=made.shape).astype(np.float32) for made in model if made.trained}
        return {key: value * rng.choice([0.0, 0.1, 1.0, 1.0]).astype(np.float32) for key, value in drawn.items()}

    return values, gradients


def check_run(model: list[Made], trained: list[Trained], seed: int, steps: int) -> None:
    values, gradients = numbers(seed, model)
    with fresh_graph() as session:
        theirs, ours = TensorFlow(session, model, trained, values), Jaxvars(model, trained, values)
        assert list(ours.variables._layout.creation_order) == theirs.names()
        specs = ours.variables.variable_specs
        assert {key for key, spec in specs.items() if spec.trainable} == theirs.trainable()
        check_state(theirs, ours)
        for number in range(steps):
            drawn = gradients()
            theirs.step(number, drawn)
            ours.step(number, drawn)
            check_state(theirs, ours)


@examples(100)
@given(models(), optimizers(), st.integers(0, 2**20), st.integers(1, 4))
def test_steps(model: list[Made], trained: Trained, seed: int, steps: int) -> None:
    check_run(model, [trained], seed, steps)


@examples(40)
@given(models(), st.lists(optimizers(), min_size=2, max_size=3), st.integers(0, 2**20))
def test_several_optimizers_over_the_same_variables(model: list[Made], trained: list[Trained], seed: int) -> None:
    check_run(model, trained, seed, 2 * len(trained))


@examples(40)
@given(models(), st.lists(optimizers(), min_size=1, max_size=2), st.integers(0, 2**20), st.integers(0, 2))
def test_a_run_goes_on_from_a_checkpoint(model: list[Made], trained: list[Trained], seed: int, steps: int) -> None:
    """From TensorFlow's checkpoint of a run the next step is TensorFlow's next step."""
    values, gradients = numbers(seed, model)
    with fresh_graph() as session, tempfile.TemporaryDirectory() as folder:
        theirs, ours = TensorFlow(session, model, trained, values), Jaxvars(model, trained, values)
        for number in range(steps):
            theirs.step(number, gradients())
        path = theirs.saver.save(session, str(Path(folder) / "theirs"), global_step=steps)
        found = {name: tuple(shape) for name, shape in tf.train.list_variables(path)}
        assert {name: tuple(shape) for name, shape in jv.train.list_variables(path)} == found
        ours.variables = jv.train.Saver().restore(ours.with_slots(ours.model.specs()), path)
        check_state(theirs, ours)
        drawn = gradients()
        theirs.step(steps, drawn)
        ours.step(steps, drawn)
        check_state(theirs, ours)


@examples(120)
@given(arguments(SCHEDULES), st.lists(st.integers(0, 30), min_size=1, max_size=5))
def test_schedules(schedule: tuple[str, dict[str, Any]], steps: list[int]) -> None:
    name, keywords = schedule
    with fresh_graph() as session:
        step = tf.placeholder(tf.int64, [])
        rate = getattr(tf.train, name)(global_step=step, **keywords)
        left = [session.run(rate, {step: number}) for number in steps]
    ours = getattr(jv.train, name)
    right = ours(**keywords)
    for number, value in zip(steps, left, strict=True):
        np.testing.assert_allclose(right(number), value, rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(ours(global_step=number, **keywords), value, rtol=2e-5, atol=1e-7)


@examples(40)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4, unique=True).map(sorted),
    st.lists(st.integers(0, 32), min_size=1, max_size=5),
    st.lists(RATES, min_size=5, max_size=5),
)
def test_piecewise_constant(boundaries: list[int], steps: list[int], rates: list[float]) -> None:
    values = rates[: len(boundaries) + 1]
    with fresh_graph() as session:
        x = tf.placeholder(tf.int32, [])
        rate = tf.train.piecewise_constant(x, boundaries, values)
        left = [session.run(rate, {x: number}) for number in steps]
    schedule = jv.train.piecewise_constant(boundaries=boundaries, values=values)
    np.testing.assert_allclose([schedule(number) for number in steps], left, rtol=1e-6)


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("AdagradOptimizer", {"learning_rate": 0.1, "initial_accumulator_value": 0.0}),
    ("AdagradOptimizer", {"learning_rate": 0.1, "initial_accumulator_value": -1.0}),
    ("FtrlOptimizer", {"learning_rate": 0.1, "learning_rate_power": 0.5}),
    ("FtrlOptimizer", {"learning_rate": 0.1, "initial_accumulator_value": -0.1}),
    ("FtrlOptimizer", {"learning_rate": 0.1, "l1_regularization_strength": -0.1}),
    ("FtrlOptimizer", {"learning_rate": 0.1, "l2_regularization_strength": -0.1}),
    ("FtrlOptimizer", {"learning_rate": 0.1, "l2_shrinkage_regularization_strength": -0.1}),
    ("GradientDescentOptimizer", {"learning_rate": 0.1, "name": ""}),
]


@examples(16)
@given(st.sampled_from(WRONG))
def test_wrong_arguments(wrong: tuple[str, dict[str, Any]]) -> None:
    kind, keywords = wrong
    failed = []
    for api in (tf, jv):
        try:
            getattr(api.train, kind)(**keywords)
        except ValueError:
            failed.append(api)
    assert failed == [tf, jv]

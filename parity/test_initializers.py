"""Initializers: TensorFlow's values where they are fixed, its distribution where they are drawn, its errors.

The law of a drawn value (family, mean, deviation, support) is written down here once, from the arguments; both
TensorFlow's sample and ours must obey it, and the two must look alike.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

import jaxvars as jv
from parity.live import examples, fresh_graph, tf

TENSORFLOW = {
    "zeros": tf.zeros_initializer,
    "ones": tf.ones_initializer,
    "constant": tf.constant_initializer,
    "identity": tf.initializers.identity,
    "random_uniform": tf.random_uniform_initializer,
    "random_normal": tf.random_normal_initializer,
    "truncated_normal": tf.truncated_normal_initializer,
    "variance_scaling": tf.variance_scaling_initializer,
    "uniform_unit_scaling": tf.uniform_unit_scaling_initializer,
    "glorot_uniform": tf.glorot_uniform_initializer,
    "glorot_normal": tf.glorot_normal_initializer,
    "he_uniform": tf.initializers.he_uniform,
    "he_normal": tf.initializers.he_normal,
    "lecun_uniform": tf.initializers.lecun_uniform,
    "lecun_normal": tf.initializers.lecun_normal,
    "orthogonal": tf.orthogonal_initializer,
}
SCALED = {
    "glorot_uniform": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"},
    "glorot_normal": {"scale": 1.0, "mode": "fan_avg", "distribution": "truncated_normal"},
    "he_uniform": {"scale": 2.0, "mode": "fan_in", "distribution": "uniform"},
    "he_normal": {"scale": 2.0, "mode": "fan_in", "distribution": "truncated_normal"},
    "lecun_uniform": {"scale": 1.0, "mode": "fan_in", "distribution": "uniform"},
    "lecun_normal": {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"},
}
# In TensorFlow these are functions, so that they cannot be given without being called.
FUNCTIONS = ["he_uniform", "he_normal", "lecun_uniform", "lecun_normal"]
DRAWN = ["random_uniform", "random_normal", "truncated_normal", "variance_scaling", "uniform_unit_scaling", *SCALED]
DEVIATION_OF_TRUNCATED = 0.87962566103423978

# Few shapes, because each costs a compilation; the larger ones tell distributions apart.
SMALL_SHAPES = [(), (5,), (3, 4), (2, 3, 2, 4, 6)]
LARGE_SHAPES = [(2000,), (40, 60), (60, 40), (3, 3, 8, 24), (5, 4, 3, 60)]


class Law(NamedTuple):
    """How values are distributed; the bounds hold for every single one."""

    mean: float
    deviation: float
    least: float
    most: float


def uniform(least: float, most: float) -> Law:
    return Law((least + most) / 2, (most - least) / math.sqrt(12), least, most)


def truncated(mean: float, stddev: float) -> Law:
    bound = 2 * abs(stddev)
    return Law(mean, abs(stddev) * DEVIATION_OF_TRUNCATED, mean - bound, mean + bound)


def law(kind: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> Law:
    """The law of the initializer `kind` for a variable of this shape."""
    if kind == "random_uniform":
        most = arguments.get("maxval")
        return uniform(arguments.get("minval", 0.0), 1.0 if most is None else most)
    if kind == "random_normal":
        return Law(arguments.get("mean", 0.0), abs(arguments.get("stddev", 1.0)), -math.inf, math.inf)
    if kind == "truncated_normal":
        return truncated(arguments.get("mean", 0.0), arguments.get("stddev", 1.0))
    if kind == "uniform_unit_scaling":
        limit = math.sqrt(3 / max(1, math.prod(shape[:-1]))) * arguments.get("factor", 1.0)
        return uniform(-limit, limit)
    given = {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"} | SCALED.get(kind, arguments)
    fan_in, fan_out = fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[given["mode"]]
    deviation = math.sqrt(given["scale"] / max(1, fan))
    if given["distribution"] == "uniform":
        return uniform(-math.sqrt(3) * deviation, math.sqrt(3) * deviation)
    if given["distribution"] == "untruncated_normal":
        return Law(0, deviation, -math.inf, math.inf)
    return truncated(0, deviation / DEVIATION_OF_TRUNCATED)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2:
        return (1, 1) if not shape else (shape[0], shape[0])
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


class Case(NamedTuple):
    """An initializer as a user writes it, for a variable of this shape and dtype."""

    kind: str
    arguments: dict[str, Any]
    form: str
    shape: tuple[int, ...]
    dtype: str | None


FLOATS = st.integers(-20, 20).map(lambda n: n / 8)
POSITIVE = st.integers(1, 24).map(lambda n: n / 8)
ARGUMENTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "random_uniform": {"minval": st.integers(-9, 3).map(lambda n: n / 4), "maxval": st.integers(4, 20).map(float)},
    "random_normal": {"mean": FLOATS, "stddev": POSITIVE},
    "truncated_normal": {"mean": FLOATS, "stddev": POSITIVE},
    "variance_scaling": {
        "scale": POSITIVE,
        "mode": st.sampled_from(["fan_in", "fan_out", "fan_avg"]),
        "distribution": st.sampled_from(["uniform", "normal", "truncated_normal", "untruncated_normal"]),
    },
    "uniform_unit_scaling": {"factor": POSITIVE},
    "orthogonal": {"gain": FLOATS},
    "identity": {"gain": FLOATS},
}
WRONG: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "variance_scaling": {
        "scale": st.sampled_from([0.0, -1.0]),
        "mode": st.sampled_from(["fan", "FAN_IN", ""]),
        "distribution": st.sampled_from(["gauss", "Uniform"]),
    },
    "random_normal": {"dtype": st.sampled_from(["int32", "bool"])},
    "orthogonal": {"dtype": st.sampled_from(["int32"])},
    "identity": {"dtype": st.sampled_from(["int32"])},
    "truncated_normal": {"dtype": st.sampled_from(["uint8"])},
    "random_uniform": {"maxval": st.just(None)},
}


@st.composite
def cases(draw: st.DrawFn, kinds: list[str], shapes: list[tuple[int, ...]], dtypes: list[str | None]) -> Case:
    kind = draw(st.sampled_from(kinds))
    each = ARGUMENTS.get(kind, {})
    arguments = {name: draw(each[name]) for name in draw(st.lists(st.sampled_from([*each, ""]), unique=True)) if name}
    form = draw(
        st.sampled_from(["object", "function", "scope"] + ([] if arguments or kind in FUNCTIONS else ["class"]))
    )
    return Case(kind, arguments, form, draw(st.sampled_from(shapes)), draw(st.sampled_from(dtypes)))


def made(api: Any, initializer: Any, case: Case) -> Any:
    """The variable of the case."""
    form = case.form
    if form != "class":
        initializer = initializer(**case.arguments)
    if form == "function":
        inner = initializer

        def initializer(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
            return inner(shape, dtype=dtype)

    with api.variable_scope("scope", initializer=initializer if form == "scope" else None):
        initializer = None if form == "scope" else initializer
        return api.get_variable("w", list(case.shape), dtype=case.dtype, initializer=initializer)


def outcome(make: Any) -> Any:
    """The value, or the error."""
    try:
        return np.asarray(make())
    except Exception as error:
        return error


def theirs(case: Case, seed: int = 0) -> Any:
    with fresh_graph(seed) as session:

        def make() -> Any:
            variable = made(tf, TENSORFLOW[case.kind], case)
            session.run(variable.initializer)
            return session.run(variable)

        return outcome(make)


def ours(case: Case, seed: int = 0) -> Any:
    initializer = getattr(jv.initializers, case.kind + "_initializer")
    if case.form == "function":
        # An initializer of jaxvars takes a key; a function in TF1's manner brings its own.
        return outcome(lambda: value_by_key(initializer(**case.arguments), case, seed))
    return outcome(lambda: value_in_store(initializer, case, seed))


def value_in_store(initializer: Any, case: Case, seed: int) -> Any:
    with jv.VariableStore(rng=seed):
        return made(jv, initializer, case).value


def value_by_key(initializer: Any, case: Case, seed: int) -> Any:
    with jv.VariableStore(rng=seed):
        return jv.get_variable("w", list(case.shape), dtype=case.dtype, initializer=lambda *a: initializer(*a)).value


def check_alike(left: Any, right: Any) -> None:
    """Both are errors of one class, or values of one shape and dtype."""
    if isinstance(left, Exception) or isinstance(right, Exception):
        assert isinstance(right, Exception), f"TensorFlow: {left!r}"
        assert isinstance(left, Exception), f"jaxvars: {right!r}"
        kind = TypeError if isinstance(left, TypeError) else ValueError
        assert isinstance(right, kind), f"TensorFlow: {left!r}"
        return
    assert (left.shape, left.dtype) == (right.shape, right.dtype)


def check_law(sample: np.ndarray, expected: Law) -> None:
    values = sample.astype(np.float64).ravel()
    slack = 1e-6 + 2 * float(jnp.finfo(sample.dtype).eps) * max(abs(expected.least), abs(expected.most), 1e-3)
    if math.isfinite(slack):
        assert expected.least - slack <= values.min()
        assert values.max() <= expected.most + slack
    if values.size < 1000:
        return
    # Six standard errors: one failure in 10^8 checks.
    assert abs(values.mean() - expected.mean) <= 6 * expected.deviation / math.sqrt(values.size) + 1e-3 * abs(
        expected.mean
    )
    assert abs(values.std() / expected.deviation - 1) <= 6 * math.sqrt(0.5 / values.size) + 1e-3


def check_same_distribution(left: np.ndarray, right: np.ndarray) -> None:
    """Kolmogorov and Smirnov's distance of two samples."""
    if left.size < 1000:
        return
    both = np.concatenate([left.ravel(), right.ravel()]).astype(np.float64)
    both.sort()
    below = [
        np.searchsorted(np.sort(part.ravel().astype(np.float64)), both, "right") / part.size for part in (left, right)
    ]
    assert np.abs(below[0] - below[1]).max() <= 3 * math.sqrt(2 / left.size)


@examples(80)
@given(cases(DRAWN, SMALL_SHAPES + LARGE_SHAPES * 2, ["float32", "float32", None, "float16"]), st.integers(0, 2**20))
def test_drawn_values_obey_one_law(case: Case, seed: int) -> None:
    left, right = theirs(case, seed), ours(case, seed)
    check_alike(left, right)
    for sample in (left, right):
        check_law(sample, law(case.kind, case.arguments, case.shape))
    check_same_distribution(left, right)


@examples(40)
@given(
    cases(["orthogonal", "identity"], [(3, 4), (4, 3), (5, 5), (2, 3, 4), (5,), ()], ["float32", None]),
    st.integers(0, 2**20),
)
def test_matrices(case: Case, seed: int) -> None:
    left, right = theirs(case, seed), ours(case, seed)
    check_alike(left, right)
    if isinstance(left, Exception):
        return
    if case.kind == "identity":
        np.testing.assert_array_equal(left, right)
        return
    gain = case.arguments.get("gain", 1.0)
    for value in (left, right):
        matrix = value.reshape(-1, value.shape[-1]).astype(np.float64)
        matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        np.testing.assert_allclose(matrix.T @ matrix, gain**2 * np.eye(matrix.shape[1]), atol=1e-5 * max(1, gain**2))


FLOATING = [None, "float32", "float16", "bfloat16"]
NUMBERS = st.one_of(st.integers(-9, 9), FLOATS, st.booleans())
CONSTANTS = st.one_of(
    NUMBERS,
    st.lists(st.integers(-9, 9), min_size=1, max_size=8),
    st.lists(FLOATS, min_size=1, max_size=8),
    st.lists(st.lists(FLOATS, min_size=2, max_size=2), min_size=1, max_size=3),
    st.lists(st.integers(-9, 9), min_size=1, max_size=6).map(lambda values: np.array(values, np.int64)),
    st.lists(FLOATS, min_size=4, max_size=6).map(lambda values: np.array(values, np.float64)),
)


@examples(120)
@given(
    st.sampled_from(["constant", "constant", "constant", "zeros", "ones"]),
    CONSTANTS,
    st.sampled_from([None, None, True, False]),
    st.sampled_from(["object", "scope", "class"]),
    st.sampled_from([(), (1,), (2,), (3, 2), (6,), (2, 2, 2)]),
    st.sampled_from([None, "float32", "float16", "bfloat16", "int32", "uint8", "bool", "int8"]),
)
def test_fixed_values(
    kind: str, value: Any, verify: bool | None, form: str, shape: tuple[int, ...], dtype: str | None
) -> None:
    arguments: dict[str, Any] = {}
    if kind == "constant":
        arguments = {"value": value} | ({} if verify is None else {"verify_shape": verify})
        form = "object" if form == "class" else form
        # TensorFlow converts an array to any dtype without a word, but refuses the same numbers in a list.
        kinds = {"f": FLOATING, "i": [*FLOATING, "int32", "int8"]}
        assume(not isinstance(value, np.ndarray) or dtype in kinds[value.dtype.kind])
    case = Case(kind, arguments, form, shape, dtype)
    left, right = theirs(case), ours(case)
    if isinstance(left, ValueError) and isinstance(right, TypeError):
        assert "Too many elements" in str(left)  # of two mistakes, jaxvars sees the other first
        return
    if "does not fit" in str(right):
        assert dtype == "uint8" and np.min(value) < 0  # TensorFlow wraps a number around, jaxvars never does
        return
    check_alike(left, right)
    if not isinstance(left, Exception):
        np.testing.assert_array_equal(left, right)


@examples(40)
@given(
    st.sampled_from(sorted(WRONG)).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.sampled_from(sorted(WRONG[kind])).flatmap(lambda n: st.tuples(st.just(n), WRONG[kind][n]))
        )
    ),
    st.sampled_from(["float32", "int32"]),
)
def test_wrong_arguments(wrong: tuple[str, tuple[str, Any]], dtype: str) -> None:
    kind, (name, value) = wrong
    case = Case(kind, {name: value}, "object", (3, 3), dtype)
    check_alike(theirs(case), ours(case))


@examples(30)
@given(
    st.sampled_from([*DRAWN, "orthogonal"]),
    st.sampled_from(["int32", "bool", "uint8"]),
    st.sampled_from([(3, 3), (2,)]),
)
def test_drawn_integers(kind: str, dtype: str, shape: tuple[int, ...]) -> None:
    case = Case(kind, {}, "object", shape, dtype)
    left, right = theirs(case), ours(case)
    assert isinstance(left, Exception) == isinstance(right, Exception), (left, right)
    two_mistakes = kind == "orthogonal" and len(shape) == 1
    if dtype == "int32" and not two_mistakes:  # elsewhere TensorFlow's own class depends on the kernel that refuses
        check_alike(left, right)


@examples(20)
@given(st.integers(-30, 0), st.integers(1, 30), st.sampled_from([(2000,), (40, 60)]), st.integers(0, 2**20))
def test_uniform_integers(least: int, span: int, shape: tuple[int, ...], seed: int) -> None:
    case = Case("random_uniform", {"minval": least, "maxval": least + span}, "object", shape, "int32")
    left, right = theirs(case, seed), ours(case, seed)
    check_alike(left, right)
    for sample in (left, right):
        assert sample.min() >= least
        assert sample.max() < least + span
    check_same_distribution(left, right)


@examples(30)
@given(st.sampled_from(DRAWN), st.integers(0, 2**31 - 1), st.sampled_from([(5,), (3, 4)]))
def test_equal_seeds_give_equal_values(kind: str, seed: int, shape: tuple[int, ...]) -> None:
    with fresh_graph() as session:
        left = [tf.get_variable(name, list(shape), initializer=TENSORFLOW[kind](seed=seed)) for name in ("a", "b")]
        session.run(tf.global_variables_initializer())
        np.testing.assert_array_equal(*session.run(left))
    with jv.VariableStore(rng=0):
        initializer = getattr(jv.initializers, kind + "_initializer")
        a, b = (jv.get_variable(name, list(shape), initializer=initializer(seed=seed)).value for name in ("a", "b"))
        np.testing.assert_array_equal(a, b)


@examples(30)
@given(st.sampled_from(["float32", "float16", "int32", "uint8", "bool", "int8", "complex64"]), st.booleans())
def test_the_default_initializer(dtype: str, from_scope: bool) -> None:
    def make(api: Any, run: Any) -> Any:
        with api.variable_scope("s", dtype=dtype if from_scope else None):
            return run(api.get_variable("w", [40, 60], dtype=None if from_scope else dtype))

    with fresh_graph() as session:

        def run(variable: Any) -> Any:
            session.run(variable.initializer)
            return session.run(variable)

        left = outcome(lambda: make(tf, run))
    with jv.VariableStore(rng=0):
        right = outcome(lambda: make(jv, lambda variable: variable.value))
    check_alike(left, right)
    if isinstance(left, Exception) or dtype not in ("float32", "float16"):
        np.testing.assert_array_equal(*((0, 0) if isinstance(left, Exception) else (left, right)))
        return
    for sample in (left, right):
        check_law(sample, law("glorot_uniform", {}, (40, 60)))

"""The initializers: distributions, TF1's constants and rules, seeds and dtypes, the objects."""

from __future__ import annotations

import functools
import math
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

import jaxvars as jv
from jaxvars import initializers as init
from jaxvars.errors import InvalidArgumentError, InvalidTypeError
from jaxvars.filling import fill
from jaxvars.initializers._drawing import _inverse_erf as inverse_erf
from jaxvars.initializers.matrices import orthogonalize
from jaxvars.initializers.random import Draw
from jaxvars.initializers.scaling import compute_fans
from jaxvars.spec import Hole

KEY = jax.random.key(7)
SHAPE = (40, 60, 20)  # 48,000 elements
FLOAT32 = np.dtype(np.float32)
TRUNCATED_STDDEV = 0.87962566103423978

FLOATS = {
    "random_normal": init.random_normal(stddev=0.5),
    "truncated_normal": init.truncated_normal(stddev=0.5),
    "random_uniform": init.random_uniform(-1.0, 3.0),
    "variance_scaling": init.variance_scaling(),
    "uniform_unit_scaling": init.uniform_unit_scaling(),
    "glorot_uniform": init.glorot_uniform(),
    "glorot_normal": init.glorot_normal(),
    "he_normal": init.he_normal(),
    "he_uniform": init.he_uniform(),
    "lecun_normal": init.lecun_normal(),
    "lecun_uniform": init.lecun_uniform(),
    "orthogonal": init.orthogonal(),
}
every_float = pytest.mark.parametrize("initializer", FLOATS.values(), ids=FLOATS.keys())


@functools.cache
def sample(initializer: Any, shape: tuple[int, ...] = SHAPE, dtype: Any = FLOAT32) -> np.ndarray:
    made = jax.jit(lambda key: initializer(key, shape, dtype))(KEY)
    assert made.shape == shape and made.dtype == dtype and not made.weak_type
    return np.asarray(made).astype(np.float64)


def distance(values: np.ndarray, cdf: Any) -> float:
    """The Kolmogorov-Smirnov distance times sqrt(n): above 1.95 about once in 1,000 samples."""
    ordered = np.sort(values.reshape(-1))
    steps = np.arange(ordered.size + 1) / ordered.size
    at = cdf(ordered)
    return max(np.abs(at - steps[1:]).max(), np.abs(at - steps[:-1]).max()) * math.sqrt(ordered.size)


def uniform_cdf(low: float, high: float) -> Any:
    return lambda x: np.clip((x - low) / (high - low), 0, 1)


def normal_cdf(mean: float, stddev: float) -> Any:
    return lambda x: ndtr((x - mean) / stddev)


def truncated_cdf(mean: float, stddev: float) -> Any:
    low, high = ndtr(-2.0), ndtr(2.0)
    return lambda x: np.clip((ndtr((x - mean) / stddev) - low) / (high - low), 0, 1)


# Distributions, with TF1's constants.


# upstream 6: test_uniform, test_normal, test_truncated_normal
def test_plain_distributions() -> None:
    assert distance(sample(init.random_uniform(-1.0, 3.0)), uniform_cdf(-1, 3)) < 1.95
    assert distance(sample(init.random_uniform()), uniform_cdf(0, 1)) < 1.95
    assert distance(sample(init.random_normal(0.5, 2.0)), normal_cdf(0.5, 2)) < 1.95
    truncated = sample(init.truncated_normal(0.5, 2.0))
    assert distance(truncated, truncated_cdf(0.5, 2)) < 1.95
    assert truncated.min() >= 0.5 - 4 and truncated.max() <= 0.5 + 4
    assert truncated.std() == pytest.approx(2 * TRUNCATED_STDDEV, rel=0.01)  # not rescaled


FAN_IN, FAN_OUT = 40 * 60, 40 * 20


# The inverse error function is our own, for the sake of equal bits.
def test_normal_values_are_accurate() -> None:
    x = 2 * np.asarray(jax.random.uniform(KEY, (1_000_000,), "float32")).astype(np.float64) - (1 - 2.0**-23)
    exact = ndtri((1 + x) / 2)
    values = sample(init.random_normal(), (1_000_000,))
    assert np.max(np.abs(values / exact - 1)) < 5e-7
    assert np.max(np.abs(values)) > 4.5
    ends = np.array([0, 1 - 2.0**-23, 0.5, 2.0**-23], np.float32)  # the ends of jax.random.uniform
    assert np.all(np.isfinite(inverse_erf(2 * ends - np.float32(1 - 2.0**-23))))
    assert inverse_erf(np.float32(1 - 2.0**-23)) == pytest.approx(ndtri(1 - 2.0**-24) / math.sqrt(2), rel=1e-6)


FANS = {"fan_in": FAN_IN, "fan_out": FAN_OUT, "fan_avg": (FAN_IN + FAN_OUT) / 2}


# upstream 6: testTruncatedNormalDistribution, testNormalDistribution, testUntruncatedNormalDistribution,
# testUniformDistribution
@pytest.mark.parametrize("mode", FANS)
@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncated_normal", "untruncated_normal"])
def test_variance_scaling(mode: str, distribution: str) -> None:
    values = sample(init.variance_scaling(3.0, mode, distribution))
    stddev = math.sqrt(3.0 / FANS[mode])
    assert values.std() == pytest.approx(stddev, rel=0.01)
    assert abs(values.mean()) < 5 * stddev / math.sqrt(values.size)
    if distribution == "uniform":
        limit = math.sqrt(3) * stddev
        assert distance(values, uniform_cdf(-limit, limit)) < 1.95
        assert np.abs(values).max() <= np.float32(limit)
    elif distribution == "untruncated_normal":
        assert distance(values, normal_cdf(0, stddev)) < 1.95
    else:
        assert distance(values, truncated_cdf(0, stddev / TRUNCATED_STDDEV)) < 1.95
        assert np.abs(values).max() <= 2 * np.float32(stddev / TRUNCATED_STDDEV)


# upstream 6: test_glorot_uniform_initializer, test_glorot_normal_initializer, test_he_uniform,
# test_he_normal, test_lecun_uniform, test_lecun_normal
@pytest.mark.parametrize(
    ("initializer", "scale", "mode", "distribution"),
    [
        (init.glorot_uniform(), 1.0, "fan_avg", "uniform"),
        (init.glorot_normal(), 1.0, "fan_avg", "truncated_normal"),
        (init.he_uniform(), 2.0, "fan_in", "uniform"),
        (init.he_normal(), 2.0, "fan_in", "truncated_normal"),
        (init.lecun_uniform(), 1.0, "fan_in", "uniform"),
        (init.lecun_normal(), 1.0, "fan_in", "truncated_normal"),
    ],
)
def test_presets_are_variance_scaling(initializer: Any, scale: float, mode: str, distribution: str) -> None:
    assert np.array_equal(sample(initializer), sample(init.variance_scaling(scale, mode, distribution)))


def test_documented_limits() -> None:
    assert init.glorot_uniform().draw_for((100, 50)) == Draw("uniform", -0.2, 0.2)
    assert init.he_uniform().draw_for((6, 5)) == Draw("uniform", -1.0, 1.0)
    assert init.lecun_uniform().draw_for((3, 5)) == Draw("uniform", -1.0, 1.0)
    assert init.he_normal().draw_for((2, 5)) == Draw("truncated_normal", 0.0, 1 / TRUNCATED_STDDEV)
    assert init.uniform_unit_scaling(2.0).draw_for((3, 4, 9)) == Draw("uniform", -1.0, 1.0)
    # fans below 1 count as 1, so the scale never exceeds that of a scalar
    assert init.lecun_uniform().draw_for((0, 5)) == Draw("uniform", -math.sqrt(3), math.sqrt(3))
    assert init.random_normal().stddev == 1.0  # Keras has 0.05


def test_fans() -> None:
    assert compute_fans(()) == (1, 1)
    assert compute_fans((7,)) == (7, 7)
    assert compute_fans((3, 5)) == (3, 5)
    assert compute_fans((5, 5, 3, 32)) == (75, 800)
    assert compute_fans((2, 0, 4)) == (0, 8)


# upstream 6: UniformUnitScaling (5)
def test_uniform_unit_scaling() -> None:
    limit = 1.5 * math.sqrt(3 / (40 * 60))
    assert distance(sample(init.uniform_unit_scaling(1.5)), uniform_cdf(-limit, limit)) < 1.95
    assert init.uniform_unit_scaling()(KEY, (0, 2)).shape == (0, 2)


# upstream 6: Orthogonal ShapesValues, Gain; test_Orthogonal
@pytest.mark.parametrize("shape", [(10, 10), (10, 4), (4, 10), (2, 3, 5), (5, 3, 2), (7, 1), (1, 7), (2, 3, 4, 5)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    values = sample(init.orthogonal(2.0), shape).reshape(-1, shape[-1]) / 2
    rows, columns = values.shape
    product = values.T @ values if rows >= columns else values @ values.T
    assert np.allclose(product, np.eye(min(rows, columns)), atol=1e-5)


def test_orthogonal_signs_are_those_of_tf1() -> None:
    # TF1 multiplies Q's columns by the signs of R's diagonal: Q times a positive triangle is then the input.
    matrix = jax.random.normal(KEY, (6, 4))
    q = np.asarray(orthogonalize(matrix))
    triangle = q.T @ np.asarray(matrix)
    assert np.all(np.diag(triangle) > 0)
    assert np.allclose(np.tril(triangle, -1), 0, atol=1e-5)
    assert np.allclose(q @ triangle, matrix, atol=1e-5)


@pytest.mark.slow
def test_orthogonal_is_uniform_over_rotations() -> None:
    # Every entry of a random orthogonal matrix has mean 0 and variance 1/n.
    many = jax.vmap(lambda key: init.orthogonal()(key, (4, 4)))(jax.random.split(KEY, 4000))
    assert np.allclose(np.mean(many, 0), 0, atol=0.04)
    assert np.allclose(np.var(many, 0), 1 / 4, atol=0.02)


# upstream 6: Identity (5), test_Identity
def test_identity() -> None:
    assert np.array_equal(init.identity(2.0)(None, (2, 3)), [[2, 0, 0], [0, 2, 0]])
    assert np.array_equal(init.identity(gain=3)(None, (2, 2), "int32"), [[3, 0], [0, 3]])
    assert init.identity()(None, (2, 2), "complex64").dtype == np.complex64
    assert init.identity()(None, (0, 2)).shape == (0, 2)
    for shape in [(), (3,), (3, 2, 2)]:
        with pytest.raises(InvalidArgumentError, match="must be two-dimensional"):
            init.identity()(None, shape)
    with pytest.raises(InvalidTypeError, match="Expected int32"):
        init.identity()(None, (2, 2), "int32")


@pytest.mark.parametrize("shape", [(), (3,)])
def test_orthogonal_needs_two_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be at least two-dimensional"):
        init.orthogonal()(KEY, shape)


# Constants.


# upstream 6: testZerosInitializer, testOnesInitializer, test_Zeros, test_Ones
def test_zeros_and_ones() -> None:
    for dtype in ("float32", "int32", "uint8", "bfloat16", "complex64"):
        assert np.array_equal(init.zeros()(None, (2, 3), dtype), np.zeros((2, 3)))
        assert np.array_equal(init.ones()(None, (2, 3), dtype), np.ones((2, 3)))
    assert init.ones()(None, (2,), bool).tolist() == [True, True]
    assert init.zeros()(None, (2,), bool).tolist() == [False, False]
    assert init.zeros(dtype="int32")(None, 2).dtype == np.int32


# upstream 6: testConstantZeroInitializer, testConstantOneInitializer, testConstantIntInitializer,
# test_constant
def test_constant_scalar() -> None:
    assert init.constant(0.0)(None, (2, 2)).tolist() == [[0, 0], [0, 0]]
    assert init.constant(1.5)(None, (3,)).tolist() == [1.5] * 3
    assert init.constant(7)(None, (2,), "int32").dtype == np.int32
    assert init.constant(7)(None, ()).tolist() == 7.0
    assert init.constant(True)(None, (2,)).tolist() == [1.0, 1.0]
    assert init.constant(np.float64(2))(None, (2,)).dtype == np.float32


# upstream 6: testNDimConstantInitializer, testNDimConstantInitializerLessValues
@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        ([1, 2, 3, 4], (2, 2), [[1, 2], [3, 4]]),
        (np.array([1, 2, 3, 4]), (2, 2), [[1, 2], [3, 4]]),
        (np.array([[1, 2], [3, 4]]), (4,), [1, 2, 3, 4]),
        ([1, 2, 3], (2, 2), [[1, 2], [3, 3]]),
        ([[1, 2], [3, 4]], (2, 3), [[1, 2, 3], [4, 4, 4]]),
        ([5], (2, 2), [[5, 5], [5, 5]]),
        ([], (2,), [0, 0]),
        ([3.0], (0,), []),
        (3.0, (0, 2), np.zeros((0, 2))),
    ],
)
def test_constant_elements(value: Any, shape: tuple[int, ...], expected: Any) -> None:
    assert np.array_equal(init.constant(value)(None, shape), expected)
    filled = fill({"c": Hole(shape, "float32", initializer=init.constant(value))}, None)["c"]
    assert np.array_equal(filled, expected)


# upstream 6: testNDimConstantInitializerMoreValues
def test_constant_too_many_elements() -> None:
    with pytest.raises(ValueError, match=r"Too many elements provided. Takes at most 2 .* got 3"):
        init.constant([1, 2, 3])(None, (2,))


@pytest.mark.parametrize("value", [1, [1, 2, 3, 4]])
def test_constant_verify_shape(value: Any) -> None:
    with pytest.raises(TypeError, match=r"Expected Tensor's shape: \(2, 2\)"):
        init.constant(value, verify_shape=True)(None, (2, 2))
    exact = init.constant([[1, 2], [3, 4]], verify_shape=True)
    assert exact(None, (2, 2)).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (1.5, "int32", "Expected int32"),
        (1.0, "int32", "Expected int32"),
        ([1.5, 2], "int32", "Expected int32"),
        (np.array([1.5]), "int32", "Expected int32"),
        (1, "bool", "Expected bool"),
        (1j, "float32", "Expected float32"),
    ],
)
def test_constant_refuses_lossy_dtypes(value: Any, dtype: str, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        init.constant(value)(None, (2,), dtype)


@pytest.mark.parametrize(
    ("value", "dtype"), [(300, "int8"), (-1, "uint8"), (1e6, "float16"), (1e300, "float32"), (2**40, "int32")]
)
def test_constant_refuses_numbers_that_do_not_fit(value: Any, dtype: str) -> None:
    with pytest.raises(InvalidArgumentError, match="does not fit"):
        init.constant(value)(None, (2,), dtype)


@pytest.mark.parametrize("value", ["a", None, {}, object(), ["a"]])
def test_constant_refuses_what_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match="Invalid type for initial value"):
        init.constant(value)


def test_constant_keeps_a_copy() -> None:
    array = np.ones(2)
    initializer = init.constant(array)
    array[:] = 5
    assert initializer(None, (2,)).tolist() == [1, 1]


# dtypes and seeds.


@every_float
def test_low_precision_is_rounded_float32(initializer: Any) -> None:
    for dtype in (jnp.bfloat16, jnp.float16):
        low = sample(initializer, (30, 40), np.dtype(dtype))
        full = sample(initializer, (30, 40))
        eps = float(jnp.finfo(dtype).eps)
        assert np.all(np.abs(low - full) <= eps * np.abs(full) + 1e-6)


def test_uniform_excludes_its_upper_end() -> None:
    for dtype in (jnp.bfloat16, jnp.float8_e4m3fn):
        values = sample(init.random_uniform(), SHAPE, np.dtype(dtype))
        assert values.max() < 1 and values.min() >= 0
    # 4.001 rounds to 4.0 in bfloat16, which is below the end and may come out
    assert sample(init.random_uniform(3.5, 4.001), SHAPE, np.dtype(jnp.bfloat16)).max() <= 4.0


@every_float
def test_float64_under_x64(initializer: Any) -> None:
    single = sample(initializer, (30, 40))
    with jax.enable_x64(True):
        assert initializer(KEY, (3, 4)).dtype == np.float32  # TF1's default, not JAX's under x64
        double = np.asarray(jax.jit(lambda key: initializer(key, (30, 40), "float64"))(KEY))
        assert np.array_equal(jax.jit(lambda key: initializer(key, (30, 40)))(KEY), single)
    assert double.dtype == np.float64
    assert np.any(double != double.astype(np.float32))  # really drawn in double precision
    assert double.std() == pytest.approx(single.std(), rel=0.1)


@every_float
def test_float_initializers_refuse_other_dtypes(initializer: Any) -> None:
    for dtype in ("int32", "bool", "complex64"):
        if dtype == "int32" and isinstance(initializer, init.random_uniform):
            continue
        with pytest.raises(TypeError):
            initializer(KEY, (2, 2), dtype)


# upstream 6: InvalidDataType of every class
@pytest.mark.parametrize("dtype", ["int32", "string", "complex64", bool])
@pytest.mark.parametrize("name", [*FLOATS, "identity"])
def test_constructors_refuse_other_dtypes(name: str, dtype: Any) -> None:
    if name == "random_uniform":
        return
    with pytest.raises(ValueError, match="Argument `dtype` is expected to be floating point"):
        getattr(init, name)(dtype=dtype)


# upstream 6: Identical, Different, Duplicated of every class
@every_float
def test_seeds(initializer: Any) -> None:
    kind = type(initializer)
    fixed = {} if kind is not init.random_uniform else {"minval": -1.0, "maxval": 3.0}
    one, same, other = kind(seed=1, **fixed), kind(seed=1, **fixed), kind(seed=2, **fixed)
    assert not one.needs_key and initializer.needs_key
    assert np.array_equal(one(None, (8, 8)), same(KEY, (8, 8)))
    assert not np.array_equal(one(None, (8, 8)), other(None, (8, 8)))
    # without a seed, two keys give two values, and one key the same
    a, b = jax.random.split(KEY)
    assert not np.array_equal(initializer(a, (8, 8)), initializer(b, (8, 8)))
    assert np.array_equal(initializer(a, (8, 8)), initializer(a, (8, 8)))


def test_two_variables_with_one_seed_are_equal() -> None:
    hole = Hole((3, 4), "float32", initializer=init.random_normal(seed=5))
    filled = fill({"a": hole, "b/c": hole}, None)
    assert np.array_equal(filled["a"], filled["b/c"])
    assert filled["a"].unsafe_buffer_pointer() != filled["b/c"].unsafe_buffer_pointer()
    assert np.array_equal(filled["a"], fill({"a": hole}, 99)["a"])


@pytest.mark.parametrize(
    ("seed", "error"),
    [("a", TypeError), (1.5, TypeError), (True, TypeError), (2**32, ValueError), (2**70, ValueError)],
)
@pytest.mark.usefixtures("without_x64")
def test_bad_seeds(seed: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"[sS]eed"):
        init.random_normal(seed=seed)
    with pytest.raises(error, match=r"[sS]eed"):
        init.random_uniform(seed=seed)


def test_random_needs_a_key() -> None:
    with pytest.raises(InvalidArgumentError, match=r"init\(key, shape, dtype\)"):
        init.glorot_uniform()(None, (2, 2))
    with pytest.raises(InvalidArgumentError, match="fully defined shape"):
        init.glorot_uniform()(KEY, (None, 2))


# upstream 6: RandomUniform int dtypes
@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8", "uint32"])
def test_integer_uniform(dtype: str) -> None:
    values = sample(init.random_uniform(2, 9), SHAPE, np.dtype(dtype))
    counts = np.bincount(values.astype(int).reshape(-1), minlength=10)
    assert set(np.unique(values)) == set(range(2, 9))
    assert np.all(np.abs(counts[2:9] - values.size / 7) < 5 * math.sqrt(values.size / 7))


def test_integer_uniform_over_a_whole_dtype() -> None:
    assert set(np.unique(sample(init.random_uniform(0, 256), SHAPE, np.dtype(np.uint8)))) == set(range(256))


@pytest.mark.parametrize(
    ("initializer", "error", "text"),
    [
        (init.random_uniform(), ValueError, "Must specify maxval for integer dtype int32"),
        (init.random_uniform(10, 1), ValueError, "Need minval < maxval"),
        (init.random_uniform(1, 1), ValueError, "Need minval < maxval"),
        (init.random_uniform(0, 2**40), ValueError, "Need minval < maxval within int32"),
        (init.random_uniform(0.0, 10.0), TypeError, "Expected int32"),
    ],
)
def test_integer_uniform_refuses(initializer: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        initializer(KEY, (3,), "int32")


@pytest.mark.parametrize("shape", [(), (3,), (0,), (0, 2), (2, 0), (3, 0, 2)])
@every_float
def test_small_shapes(initializer: Any, shape: tuple[int, ...]) -> None:
    if isinstance(initializer, init.orthogonal) and len(shape) < 2:
        return
    value = initializer(KEY, shape)
    assert value.shape == shape and np.all(np.isfinite(value))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"scale": 0}, "`scale` must be a positive float. Received: 0"),
        ({"scale": -1.0}, "`scale` must be a positive float"),
        ({"scale": float("nan")}, "`scale` must be a positive float"),
        ({"mode": "FAN_IN"}, "`mode` should be one of"),
        ({"distribution": "uni"}, "`distribution` should be one of"),
    ],
)
def test_variance_scaling_refuses(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        init.variance_scaling(**arguments)


def test_variance_scaling_takes_capital_distributions() -> None:
    assert init.variance_scaling(distribution="Uniform") == init.variance_scaling(distribution="uniform")


def test_hyper_parameters_may_be_scalar_arrays() -> None:
    assert init.random_normal(stddev=np.float32(0.5)) == init.random_normal(stddev=0.5)
    assert init.random_normal(stddev=jnp.float32(0.5)) == init.random_normal(stddev=0.5)
    with pytest.raises(InvalidTypeError, match="`stddev` must be a number"):
        init.random_normal(stddev="0.5")
    with pytest.raises(InvalidTypeError, match="traced"):
        jax.jit(lambda s: init.random_normal(stddev=s)(KEY, (2,)))(0.5)


# The objects.

OBJECTS = [
    *FLOATS.values(),
    init.zeros(),
    init.ones("int32"),
    init.constant([1.0, float("nan")]),
    init.identity(2),
    init.random_normal(seed=3, dtype=jnp.bfloat16),
]


@pytest.mark.parametrize("initializer", OBJECTS, ids=repr)
def test_objects_are_values(initializer: Any) -> None:
    again = pickle.loads(pickle.dumps(initializer))
    assert again == initializer and hash(again) == hash(initializer) and repr(again) == repr(initializer)
    assert initializer != init.variance_scaling(9.0)
    with pytest.raises(AttributeError):
        initializer.dtype = None


def test_repr_is_the_call() -> None:
    assert repr(init.random_normal(stddev=0.1)) == "jv.initializers.random_normal(stddev=0.1)"
    assert repr(init.glorot_uniform(seed=1, dtype="bfloat16")) == (
        "jv.initializers.glorot_uniform(seed=1, dtype=bfloat16)"
    )
    assert repr(init.constant([1, 2])) == "jv.initializers.constant([1, 2])"
    assert repr(init.constant(np.zeros((9, 9)))) == "jv.initializers.constant(<81 elements, shape (9, 9)>)"


def test_constants_differ_by_value_dtype_and_rule() -> None:
    assert init.constant(0.0) != init.constant(-0.0)
    assert init.constant([1, 2]) != init.constant([2, 1])
    assert init.constant([1, 2]) == init.constant(np.array([1, 2]))
    assert init.constant([1, 2]) != init.constant([1, 2], verify_shape=True)
    assert init.constant(1) != init.zeros()


def test_tf1_spellings_are_the_classes() -> None:
    spelled = [name for name in init.__all__ if name.endswith("_initializer") and name[:2] not in ("as", "de")]
    assert len(spelled) == 16
    for name in spelled:
        assert getattr(jv, name) is getattr(init, name) is getattr(init, name.removesuffix("_initializer"))
        assert isinstance(getattr(init, name)(), init.Initializer)


def test_all_matches_jax_signature() -> None:
    # Interchangeable with jax.nn.initializers: by position, and by JAX's own keywords.
    for initializer in OBJECTS:
        if isinstance(initializer, init.constant):
            continue
        assert initializer(key=KEY, shape=(2, 2), dtype=jnp.float32).shape == (2, 2)


@given(st.lists(st.floats(-1e6, 1e6, width=32), max_size=12), st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_constant_repeats_the_last(values: list[float], shape: list[int]) -> None:
    size = math.prod(shape)
    if len(values) > size > 0:
        with pytest.raises(ValueError, match="Too many elements"):
            init.constant(values)(None, shape)
        return
    flat = np.asarray(init.constant(values)(None, shape)).reshape(-1)
    expected = [*values, *([values[-1]] * size if values else [0.0] * size)][:size]
    assert flat.tolist() == expected

"""What a user may pass as ``initializer=``, ``shape=`` and ``dtype=``, and TF1's checks of them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from widths import COMPLEX, FLOAT, INT

from jaxvars import initializers as init
from jaxvars._arguments import as_dtype, is_fully_defined, shape_as_tuple, value_dtype
from jaxvars.errors import InvalidTypeError
from jaxvars.filling import fill
from jaxvars.spec import Hole

KEY = jax.random.key(7)


def made(initializer: Any, shape: Any = None, dtype: Any = "float32") -> Any:
    normalized = init.as_initializer(initializer, shape, dtype, "scope/x")
    hole = Hole(normalized.shape, normalized.dtype, initializer=normalized.initializer)
    return fill({"scope/x": hole}, 0)["scope/x"]


# upstream 1: testInitFromNonInitializer
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "bool"])
def test_integers_and_bools_default_to_zeros(dtype: str) -> None:
    assert made(None, [2], dtype).tolist() == [0, 0]
    assert made(None, [2], dtype).dtype == dtype


def test_floats_default_to_glorot_uniform() -> None:
    for dtype in ("float32", "float16", "bfloat16"):
        assert init.default_initializer(dtype, "x") == init.glorot_uniform()
        assert made(None, [3, 4], dtype).dtype == dtype


def test_complex_has_no_default() -> None:
    with pytest.raises(ValueError, match="An initializer for variable scope/x of complex64 is required"):
        made(None, [2], "complex64")


# upstream 1: testStringDefaultInitializer (B): JAX has no strings
def test_strings_are_refused() -> None:
    for dtype in ("string", str, np.dtype("U3"), object):
        with pytest.raises(TypeError, match=r"no string|not a dtype|number or bool"):
            made(None, [2], dtype)
    with pytest.raises(TypeError, match="scope/x"):
        made("abc")


# upstream 1: testInitFromNonTensorValue
def test_values() -> None:
    assert made(7).dtype == np.int32 and made(7).shape == ()
    assert made(1.5).dtype == np.float32
    assert made(True).dtype == np.bool_
    assert made([23, 42]).tolist() == [23, 42]
    assert made([1, 2.5]).dtype == np.float32
    assert made([np.float64(1)]).dtype == np.float32
    assert made([True]).dtype == np.bool_
    assert made([]).shape == (0,)
    assert made(((1, 2), (3, 4))).shape == (2, 2)
    assert made(np.arange(3, dtype=np.int16)).dtype == np.int16
    assert made(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
    assert made([jnp.float32(1), 2.0]).tolist() == [1, 2]
    for bad in ({}, {"a": 1}, object(), {1, 2}):
        with pytest.raises(TypeError, match=r'variable "scope/x".*is not a value'):
            made(bad)
    with pytest.raises(ValueError, match="rows differ in length"):
        made([[1], [1, 2]])


def test_random_keys_are_values() -> None:
    key = jax.random.key(3)
    assert jnp.issubdtype(made(key).dtype, jax.dtypes.prng_key)
    assert np.array_equal(jax.random.key_data(made(key)), jax.random.key_data(key))


# upstream 1: testInitializeFromValue; part A rows 8, 9
def test_values_and_shapes_and_dtypes() -> None:
    with pytest.raises(ValueError, match="If initializer is a constant, do not specify shape"):
        made(np.zeros(2), [2])
    with pytest.raises(ValueError, match="If initializer is a constant, do not specify shape"):
        init.check_constant_without_shape(1.0, [], "x")
    init.check_constant_without_shape(1.0, None, "x")
    init.check_constant_without_shape(init.zeros(), [2], "x")
    with pytest.raises(ValueError, match=r"Initializer type 'int32' and explicit dtype 'float32' don't match"):
        init.check_constant_dtype(3, jnp.float32, "x")
    init.check_constant_dtype(3, "int32", "x")
    init.check_constant_dtype(3, None, "x")
    init.check_constant_dtype(init.zeros, "int32", "x")
    with jax.enable_x64(False):
        init.check_constant_dtype(np.zeros(2), "float32", "x")  # float64 is float32 without x64
    with jax.enable_x64(True):
        with pytest.raises(ValueError, match="don't match"):
            init.check_constant_dtype(np.zeros(2), "float32", "x")
        assert made(np.zeros(2)).dtype == np.float64
        assert made(3).dtype == np.int32 and made(3.0).dtype == np.float32
        assert made(2**40).dtype == np.int64
    assert [init.is_constant(i) for i in (None, init.zeros, init.zeros(), len, 0, [1], np.ones(2))] == (
        [False] * 4 + [True] * 3
    )


@pytest.mark.usefixtures("without_x64")
def test_values_that_do_not_fit_are_refused() -> None:
    for value in (2**40, [2**40], np.array([2**40]), np.array([1e300]), np.uint64(2**63)):
        with pytest.raises(ValueError, match=r"scope/x.*does not fit.*jax_enable_x64"):
            made(value)
    assert made(np.array([2**30])).dtype == np.int32
    assert made(np.array([np.inf])).tolist() == [np.inf]


def test_a_value_is_copied() -> None:
    array = np.ones((1 << 16,), np.float32)
    normalized = init.as_initializer(array, None, "float32", "x")
    array[:] = 5
    hole = Hole(normalized.shape, normalized.dtype, initializer=normalized.initializer)
    first, second = fill({"x": hole}, None)["x"], fill({"x": hole}, None)["x"]
    assert first[0] == 1
    assert first.unsafe_buffer_pointer() != second.unsafe_buffer_pointer()


# part A row 7
def test_classes_are_instantiated() -> None:
    assert made(init.zeros, [2], "int32").dtype == np.int32
    assert made(init.glorot_uniform, [2, 3]).shape == (2, 3)

    class NeedsArguments:
        def __init__(self, a: int) -> None: ...

    with pytest.raises(TypeError, match="NeedsArguments, which cannot be made without arguments"):
        made(NeedsArguments, [2])


def test_no_initializer_and_no_shape() -> None:
    with pytest.raises(ValueError, match="did not get an initializer, so its `shape` argument must be specified"):
        made(None)
    with pytest.raises(ValueError, match=r"Shape of a new variable \(scope/x\) must be fully defined"):
        made(None, [None, 2])


# upstream 1: testGetVariableWithInitializerWhichTakesNoArgs, ...OptionalArgs
def test_callables_without_arguments() -> None:
    assert made(lambda: jnp.ones((2, 3))).shape == (2, 3)
    assert made(lambda a=1, b=2: [a, b]).tolist() == [1, 2]
    assert made(lambda *a, **k: 1.5).dtype == np.float32
    assert made(lambda: 1).dtype == np.int32  # its value decides, not the dtype argument: as in TF1
    assert made(lambda: np.float64(1)).dtype == FLOAT
    assert made(lambda: jax.random.normal(KEY, (4,))).shape == (4,)
    with jax.enable_x64(True):
        assert made(lambda: 1.5).dtype == np.float32


# upstream 1: testGetVariableWithInitializerWhichTakesUnprovidedArgsAndNoShape
@pytest.mark.parametrize("shape", [None, [None, 2]])
@pytest.mark.parametrize(
    "initializer",
    [lambda s: 1.0, lambda shape, dtype: 1.0, init.zeros, init.zeros(), jax.nn.initializers.zeros],
)
def test_callables_with_arguments_need_a_shape(initializer: Any, shape: Any) -> None:
    with pytest.raises(ValueError, match=r'The initializer passed is not valid. Variable "scope/x"'):
        made(initializer, shape)


def test_a_callable_without_arguments_takes_no_shape() -> None:
    with pytest.raises(TypeError, match=r'"scope/x".*takes 0 positional arguments'):
        made(lambda: 1.0, [2])


def seen(record: list[Any], *names: str) -> Any:
    """An initializer whose parameters have these names, and which records what it gets."""
    scope: dict[str, Any] = {"record": record, "jnp": jnp}
    bare = [name.split("=")[0].strip("*") for name in names]
    source = f"""
def initializer({", ".join(names)}):
    record.append(dict({", ".join(f"{name}={name}" for name in bare)}))
    return jnp.zeros((2, 3))
"""
    exec(source, scope)
    return scope["initializer"]


@pytest.mark.parametrize(
    "names",
    [
        ("key", "shape", "dtype"),
        ("key", "shape"),
        ("rng", "shape", "dtype=None", "out_sharding=None"),
        ("k", "s", "d"),
        ("a", "b"),
    ],
)
def test_jax_style_callables(names: tuple[str, ...]) -> None:
    record: list[Any] = []
    made(seen(record, *names), [2, 3])
    got = list(record[0].values())
    assert jnp.issubdtype(got[0].dtype, jax.dtypes.prng_key) and got[1] == (2, 3)
    assert len(names) < 3 or got[2] == np.float32


@pytest.mark.parametrize(
    "names",
    [
        ("shape", "dtype", "partition_info"),
        ("shape", "dtype=None", "partition_info=None"),
        ("shape", "dtype"),
        ("shape", "**kwargs"),
        ("size", "dtype"),
        ("shape",),
    ],
)
def test_tf1_style_callables(names: tuple[str, ...]) -> None:
    record: list[Any] = []
    made(seen(record, *names), [2, 3])
    got = record[0]
    assert got.get("shape", got.get("size")) == [2, 3]
    assert got.get("dtype", np.float32) == np.float32
    assert got.get("partition_info") is None


def test_other_peoples_initializers() -> None:
    assert made(jax.nn.initializers.he_normal(), [3, 4], "bfloat16").dtype == jnp.bfloat16
    assert made(jax.nn.initializers.zeros, [2]).tolist() == [0, 0]
    assert made(jnp.ones, [2], "int32").dtype == np.int32
    assert made(np.ones, [2], "int32").dtype == np.int32
    assert made(np.zeros, [2], "int32").dtype == np.int32
    assert made(jax.random.normal, [2, 2]).shape == (2, 2)
    assert made(functools.partial(jax.random.truncated_normal, lower=-2, upper=2), [2, 2]).shape == (2, 2)
    assert not init.needs_key(init.as_initializer(jax.nn.initializers.zeros, [2], "float32", "x").initializer)


def test_forgotten_parentheses() -> None:
    for shape in ([2, 2], None):
        with pytest.raises(TypeError, match=r"parentheses missing"):
            made(jax.nn.initializers.glorot_uniform, shape)


def test_unreadable_parameters() -> None:
    with pytest.raises(ValueError, match=r"takes \(key\): it should take \(key, shape, dtype\)"):
        made(lambda key: 1.0, [2])


# upstream 1: testGetVariableWithRefDtype
def test_dtype_from_another_variable() -> None:
    assert made(None, [2], jnp.zeros((), jnp.int32)).dtype == np.int32


def test_check_errors_name_the_variable() -> None:
    with pytest.raises(TypeError, match=r'Variable "scope/x".*int32 was asked for'):
        init.as_initializer(init.random_normal(), [2], "int32", "scope/x")
    with pytest.raises(ValueError, match='Variable "scope/x": Too many elements'):
        init.as_initializer(init.constant([1, 2, 3]), [2], "float32", "scope/x")


# dtypes and shapes as users write them.


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("float32", np.float32),
        ("float", np.float32),
        (float, np.float32),
        ("double", FLOAT),
        (np.float64, FLOAT),
        ("half", np.float16),
        (int, np.int32),
        ("int64", INT),
        ("int", np.int32),
        (np.uint64, "u" + INT),
        (bool, np.bool_),
        (complex, COMPLEX),
        ("bfloat16", jnp.bfloat16),
        (jnp.bfloat16, jnp.bfloat16),
        (jnp.float32, np.float32),
        (jnp.dtype("int8"), np.int8),
        ("float32_ref", np.float32),
        (jax.ShapeDtypeStruct((), np.int16), np.int16),
        (np.zeros(2, np.uint8), np.uint8),
    ],
)
def test_as_dtype(written: Any, expected: Any) -> None:
    assert as_dtype(written) == np.dtype(expected)
    assert isinstance(as_dtype(written), np.dtype)


def test_as_dtype_under_x64() -> None:
    with jax.enable_x64(True):
        assert as_dtype("float64") == np.float64 and as_dtype("int64") == np.int64
        assert as_dtype(float) == np.float32 and as_dtype(int) == np.int32  # TF1's meaning
        assert as_dtype(complex) == np.complex128


def test_as_dtype_of_tensorflow_objects() -> None:
    class DType:
        as_numpy_dtype = np.float16

    assert as_dtype(DType()) == np.float16


@pytest.mark.parametrize("bad", [None, "nope", 3, [], object(), "string", "datetime64[s]", np.dtype("S3")])
def test_as_dtype_refuses(bad: Any) -> None:
    with pytest.raises(InvalidTypeError):
        as_dtype(bad)


def test_shapes() -> None:
    class TensorShape:
        rank = 2

        def as_list(self) -> list[int | None]:
            return [None, 3]

    class UnknownRank(TensorShape):
        rank = None

    assert shape_as_tuple(None) is None
    assert shape_as_tuple(3) == (3,)
    assert shape_as_tuple([]) == ()
    assert shape_as_tuple(np.array([3, 2])) == (3, 2)
    assert shape_as_tuple(np.int64(3)) == (3,)
    assert shape_as_tuple(jnp.array([3, 2])) == (3, 2)
    assert shape_as_tuple((np.int32(1), None)) == (1, None)
    assert shape_as_tuple(TensorShape()) == (None, 3)
    assert shape_as_tuple(UnknownRank()) is None
    assert all(type(d) is int for d in shape_as_tuple(np.array([3, 2])))
    assert is_fully_defined((1, 2)) and not is_fully_defined((None,)) and not is_fully_defined(None)


@pytest.mark.parametrize("bad", [2.0, [2.5], "ab", True, [True], {}, [[1, 2]], object()])
def test_shapes_refuse_types(bad: Any) -> None:
    with pytest.raises(TypeError):
        shape_as_tuple(bad)


def test_shapes_refuse_values() -> None:
    with pytest.raises(ValueError, match="Dimension -1 must be >= 0"):
        shape_as_tuple([-1])
    with pytest.raises(TypeError, match="traced value"):
        jax.jit(lambda n: shape_as_tuple([n]))(3)


numbers = st.integers(-(2**31), 2**31 - 1) | st.booleans()


@given(st.recursive(numbers, lambda inner: st.lists(inner, min_size=1, max_size=1)))
def test_integer_lists_are_int32_or_bool(value: Any) -> None:
    leaf = value
    while isinstance(leaf, list):
        leaf = leaf[0]
    assert value_dtype(value) == (np.bool_ if isinstance(leaf, bool) else np.int32)

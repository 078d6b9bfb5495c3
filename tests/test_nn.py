"""`jv.nn`: convolution, pooling, bias and moments against TensorFlow's figures.

`tools/record_layer_goldens.py` made tests/golden/layers.json with `tf.compat.v1`.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import InvalidArgumentError, InvalidTypeError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "layers.json").read_text())


def ramp(shape, seed=0):
    """The inputs that the recording script used."""
    size = int(np.prod(shape))
    return (((np.arange(size) * 37 + 11 * seed + 5) % 101) / 25.0 - 2.0).astype(np.float32).reshape(shape)


def names(case):
    return "-".join(str(v) for v in case["arguments"].values()).replace(" ", "")


def to_nchw(value):
    """Four numbers or pairs in NHWC order, or an array, in NCHW order."""
    if isinstance(value, list):
        return [value[i] for i in (0, 3, 1, 2)]
    return np.moveaxis(value, 3, 1)


@pytest.mark.parametrize("case", GOLDEN["convolutions"], ids=names)
def test_conv2d_is_tensorflows(case):
    arguments = dict(case["arguments"])
    x, kernel = ramp(arguments.pop("input")), ramp(arguments.pop("filter"), 1)
    expected = np.float32(case["output"])
    result = jv.nn.conv2d(x, kernel, **arguments)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)

    other = {k: v if isinstance(v, str) else to_nchw(v) for k, v in arguments.items()}
    result = jv.nn.conv2d(to_nchw(x), kernel, data_format="NCHW", **other)
    np.testing.assert_allclose(result, to_nchw(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("case", GOLDEN["pools"], ids=names)
def test_pooling_is_tensorflows(case, kind):
    arguments = dict(case["arguments"])
    x = ramp(arguments.pop("input"))
    pool = getattr(jv.nn, kind)
    np.testing.assert_allclose(pool(x, **arguments), np.float32(case[kind]), rtol=1e-6, atol=1e-6)
    other = {k: v if isinstance(v, str) else to_nchw(v) for k, v in arguments.items()}
    result = jax.jit(lambda x: pool(x, data_format="NCHW", **other))(to_nchw(x))
    np.testing.assert_allclose(result, to_nchw(np.float32(case[kind])), rtol=1e-6, atol=1e-6)


def test_forms_of_strides_and_padding():
    x, kernel = ramp([1, 6, 6, 2]), ramp([3, 3, 2, 2], 1)
    expected = jv.nn.conv2d(x, kernel, strides=[1, 2, 2, 1], padding="VALID")
    for strides in (2, [2], [2, 2], (2, 2), np.int64(2)):
        np.testing.assert_array_equal(jv.nn.conv2d(x, kernel, strides, "valid"), expected)
    explicit = jv.nn.conv2d(x, kernel, padding=[[1, 1], [1, 1]])
    np.testing.assert_allclose(explicit, jv.nn.conv2d(x, kernel), rtol=1e-6)
    padded = jv.nn.avg_pool(jnp.ones([1, 2, 2, 1]), 2, 1, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(padded, np.ones([1, 3, 1, 1]))
    lowest = jv.nn.max_pool(-jnp.ones([1, 2, 2, 1]), 2, 1, [[0, 0], [1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(lowest, -np.ones([1, 3, 1, 1]))


def test_pooling_of_integers():
    x = jnp.arange(16, dtype=jnp.int32).reshape(1, 4, 4, 1)
    result = jv.nn.max_pool(x, 2, 2, "VALID")
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result.ravel(), [5, 7, 13, 15])
    with pytest.raises(InvalidTypeError, match="floating"):
        jv.nn.avg_pool(x, 2, 2, "VALID")


def test_gradients_of_pooling():
    def loss(x):
        return jnp.sum(jv.nn.avg_pool(x, 2, 2, "SAME") ** 2) + jnp.sum(jv.nn.max_pool(x, 3, 2, "SAME") ** 2)

    x = ramp([1, 5, 5, 1])
    gradient = jax.grad(loss)(x)
    direction = ramp([1, 5, 5, 1], 3)
    slope = (loss(x + 1e-2 * direction) - loss(x - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(jnp.sum(gradient * direction), slope, rtol=1e-2)


def test_bias_add():
    x = ramp([2, 3, 4])
    np.testing.assert_allclose(jv.nn.bias_add(x, np.arange(4.0)), x + np.arange(4, dtype=np.float32).reshape(1, 1, 4))
    second = jv.nn.bias_add(x, np.arange(3.0), "NCW")
    np.testing.assert_allclose(second, x + np.arange(3, dtype=np.float32).reshape(1, 3, 1))
    np.testing.assert_allclose(jv.nn.bias_add(x[0], np.arange(4.0), "NC"), x[0] + np.arange(4, dtype=np.float32)[None])
    with pytest.raises(InvalidArgumentError, match=r"value \(2, 3, 4\), bias \(3,\)"):
        jv.nn.bias_add(x, np.arange(3.0))
    with pytest.raises(InvalidArgumentError, match="data_format"):
        jv.nn.bias_add(x, np.arange(3.0), "HWD")


def test_moments_and_batch_normalization():
    x = ramp([4, 3, 5])
    mean, variance = jv.nn.moments(x, [0, 1])
    np.testing.assert_allclose(mean, x.mean((0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, x.var((0, 1)), rtol=1e-5)
    kept, _ = jv.nn.moments(x, -1, keep_dims=True)
    assert kept.shape == (4, 3, 1)
    half, _ = jv.nn.moments(jnp.full((100_000,), 0.1, jnp.float16), [0])
    assert half.dtype == jnp.float16
    np.testing.assert_allclose(half, 0.1, rtol=1e-3)
    y = jv.nn.batch_normalization(x, mean, variance, 1.0, 2.0 * np.ones(5, np.float32), 1e-3)
    expected = (x - x.mean((0, 1))[None, None]) / np.sqrt(x.var((0, 1)) + 1e-3)[None, None] * 2 + 1
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_handles_are_arrays():
    def net(x):
        w = jv.get_variable("w", [3, 3, 2, 2])
        b = jv.get_variable("b", [2])
        x = jv.nn.bias_add(jv.nn.conv2d(x, w), b)
        mean = jv.get_variable("mean", [2])
        return jv.nn.max_pool(jv.nn.batch_normalization(x, mean, mean + 4.0, b, None, 0.1), 2, 2, "VALID")

    model = jv.transform(net)
    variables = model.init(0, ramp([1, 6, 6, 2]))
    assert model(variables, ramp([1, 6, 6, 2])).shape == (1, 3, 3, 2)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x, k: jv.nn.conv2d(x[0], k),
            InvalidArgumentError,
            r"N, H, W, C, of rank 4; got shape \(6, 6, 2\)",
        ),
        (lambda x, k: jv.nn.conv2d(x, k[0]), InvalidArgumentError, r"in_channels, out_channels\], got shape"),
        (
            lambda x, k: jv.nn.conv2d(x[..., :1], k),
            InvalidArgumentError,
            r"depth of input \(1\) is not a multiple",
        ),
        (lambda x, k: jv.nn.conv2d(x.astype(np.uint8), k), InvalidTypeError, r'input.astype\("float32"\)'),
        (lambda x, k: jv.nn.conv2d(x, k, data_format="HWCN"), InvalidArgumentError, "data_format"),
        (lambda x, k: jv.nn.conv2d(x, k, padding="FULL"), InvalidArgumentError, '"SAME", "VALID"'),
        (lambda x, k: jv.nn.conv2d(x, k, padding=[[1, 1]]), InvalidArgumentError, "top, bottom"),
        (
            lambda x, k: jv.nn.conv2d(x, k, padding=[[1, 0], [0, 0], [0, 0], [0, 0]]),
            InvalidArgumentError,
            "batch",
        ),
        (lambda x, k: jv.nn.conv2d(x, k, strides=[2, 1, 1, 1]), InvalidArgumentError, "strides of batch"),
        (lambda x, k: jv.nn.conv2d(x, k, dilations=0), InvalidArgumentError, "dilations is a positive int"),
        (lambda x, k: jv.nn.max_pool(x, [1, 2, 3], 1, "SAME"), InvalidArgumentError, "ksize"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(ramp([1, 6, 6, 2]), ramp([3, 3, 2, 2]))

"""The rest of `jv.nn`: shapes, a few values by hand, errors. parity/test_nn.py compares with TensorFlow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from test_nn import ramp

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError

nn = jv.nn
SEQUENCE, IMAGE, VOLUME = ramp([2, 6, 4]), ramp([2, 6, 5, 4]), ramp([1, 4, 4, 4, 2])
LOGITS = ramp([3, 4])


def shape(function, *arrays):
    """The shape of a result; nothing is compiled."""
    return jax.eval_shape(function, *arrays).shape


@pytest.mark.parametrize(
    ("function", "arrays", "expected"),
    [
        (lambda x, w: nn.conv1d(x, w, 2, "VALID"), (SEQUENCE, ramp([3, 4, 5])), (2, 2, 5)),
        (lambda x, w: nn.conv1d(x, w, [1, 2, 1], "same", data_format="NHWC"), (SEQUENCE, ramp([3, 4, 5])), (2, 3, 5)),
        (lambda x, w: nn.conv1d(x, w, data_format="NCW"), (SEQUENCE, ramp([3, 6, 5])), (2, 5, 4)),
        (lambda x, w: nn.conv3d(x, w, [1, 1, 2, 2, 1], "VALID"), (VOLUME, ramp([1, 3, 3, 2, 5])), (1, 4, 1, 1, 5)),
        (lambda x, w: nn.conv3d(x, w, 1, [[1, 1], [0, 0], [0, 2]]), (VOLUME, ramp([1, 1, 1, 2, 5])), (1, 6, 4, 6, 5)),
        (lambda x, w: nn.convolution(x, w, "SAME", [1, 2]), (IMAGE, ramp([3, 3, 4, 5])), (2, 6, 3, 5)),
        (lambda x, w: nn.atrous_conv2d(x, w, 2, "VALID"), (IMAGE, ramp([3, 3, 4, 5])), (2, 2, 1, 5)),
        (lambda x, w: nn.depthwise_conv2d(x, w, [1, 2, 2, 1], "SAME"), (IMAGE, ramp([3, 3, 4, 2])), (2, 3, 3, 8)),
        (lambda x, w: nn.depthwise_conv2d(x, w, data_format="NCHW"), (IMAGE, ramp([3, 3, 6, 2])), (2, 12, 5, 4)),
        (
            lambda x, w: nn.conv2d_transpose(x, w, [2, 12, 9, 3], [1, 2, 2, 1]),
            (IMAGE, ramp([3, 3, 3, 4])),
            (2, 12, 9, 3),
        ),
        (lambda x, w: nn.conv1d_transpose(x, w, [2, 11, 3], 2), (SEQUENCE, ramp([3, 3, 4])), (2, 11, 3)),
        (
            lambda x, w: nn.conv3d_transpose(x, w, np.array([1, 9, 4, 6, 5]), (2, 1, 1), "VALID"),
            (VOLUME, ramp([3, 1, 3, 5, 2])),
            (1, 9, 4, 6, 5),
        ),
        (lambda x: nn.max_pool1d(x, 3, 1, "VALID"), (SEQUENCE,), (2, 4, 4)),
        (lambda x: nn.max_pool2d(x, 3, 2, [[1, 0], [0, 0]], "NCHW"), (IMAGE,), (2, 6, 2, 1)),
        (lambda x: nn.max_pool3d(x, [1, 2, 2, 2, 1], 2, "SAME"), (VOLUME,), (1, 2, 2, 2, 2)),
        (lambda x: nn.avg_pool1d(x, [3], [2], "SAME", "NCW"), (SEQUENCE,), (2, 6, 2)),
        (lambda x: nn.avg_pool2d(x, 3, 1, "VALID"), (IMAGE,), (2, 4, 3, 4)),
        (lambda x: nn.avg_pool3d(x, 2, 1, "VALID"), (VOLUME,), (1, 3, 3, 3, 2)),
        (lambda x: nn.pool(x, [2, 2], "AVG", "VALID", [2, 3]), (IMAGE,), (2, 4, 2, 4)),
        (lambda x: nn.pool(x, [2], "MAX", "SAME", strides=[2]), (SEQUENCE,), (2, 3, 4)),
    ],
)  # fmt: skip
def test_shapes(function, arrays, expected):
    assert shape(function, *arrays) == expected
    if not any("transpose" in name for name in function.__code__.co_names):  # those are told the size of the batch
        assert shape(function, arrays[0][:0], *arrays[1:]) == (0, *expected[1:])


def test_a_transposed_convolution_is_the_gradient():
    kernel, wanted = ramp([3, 2, 3, 4], 1), (2, 11, 9, 3)

    @jax.jit
    def both(x):
        gradient = jax.vjp(lambda y: nn.conv2d(y, kernel, 2), jnp.zeros(wanted, jnp.float32))[1](x)[0]
        return gradient, nn.conv2d_transpose(x, kernel, wanted, 2)

    gradient, transposed = both(IMAGE)
    np.testing.assert_allclose(transposed, gradient, rtol=1e-5, atol=1e-5)


def test_values():
    """All in one program."""
    half = np.float32([[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]])

    @jax.jit
    def ours(x):
        return {
            "softmax": nn.softmax_cross_entropy_with_logits(labels=half, logits=x),
            "sparse": nn.sparse_softmax_cross_entropy_with_logits(labels=np.array([0, 4, -1]), logits=x),
            "sigmoid": nn.sigmoid_cross_entropy_with_logits(labels=half, logits=x),
            "weighted": nn.weighted_cross_entropy_with_logits(half, x, 3.0),
            "poisson": nn.log_poisson_loss(np.float32([[0, 1, 2, 3]] * 3), x, compute_full_loss=True),
            "l2_normalize": nn.l2_normalize(x, [0]),
            "lrn": nn.lrn(x.reshape(1, 1, 3, 4), 1, 2.0, 0.5, 0.75),
            "in_top_k": nn.in_top_k(x, np.array([1, 9, -1]), 3),
            "crelu": nn.crelu(x, axis=0),
            "leaky": nn.leaky_relu(x),
            "leaky int": nn.leaky_relu(np.array([-5, 5])),
            "zeros": nn.zero_fraction(jnp.maximum(x, 0)),
            "l2": nn.l2_loss(x),
        }

    x = LOGITS
    logs = x - np.log(np.exp(x).sum(1, keepdims=True))
    p = 1 / (1 + np.exp(-x))
    counts = np.float32([[0, 1, 2, 3]])
    stirling = np.float32([0, 0, 2 * np.log(2) - 2 + np.log(4 * np.pi) / 2, 3 * np.log(3) - 3 + np.log(6 * np.pi) / 2])
    near = np.stack([(x[:, max(0, i - 1) : i + 2] ** 2).sum(1) for i in range(4)], 1)
    expected = {
        "softmax": -(half * logs).sum(1),
        "sparse": [-logs[0, 0], np.nan, np.nan],
        "sigmoid": -half * np.log(p) - (1 - half) * np.log(1 - p),
        "weighted": -3 * half * np.log(p) - (1 - half) * np.log(1 - p),
        "poisson": np.exp(x) - counts * x + stirling[None],
        "l2_normalize": x / np.sqrt((x**2).sum(0)),
        "lrn": (x / (2 + 0.5 * near) ** 0.75).reshape(1, 1, 3, 4),
        "in_top_k": [np.argsort(-x[0]).tolist().index(1) < 3, False, False],
        "crelu": np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)]),
        "leaky": np.maximum(x, 0.2 * x),
        "leaky int": [-1.0, 5.0],
        "zeros": (x <= 0).mean(),
        "l2": (x**2).sum() / 2,
    }
    for name, value in ours(x).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_handles_are_arrays():
    def net(x):
        w = jv.get_variable("w", [3, 3, 4, 2])
        p = jv.get_variable("p", [1, 1, 8, 3])
        y = nn.separable_conv2d(nn.convolution(x, w, "SAME") @ jnp.ones([2, 4], "float32"), w, p)
        y = nn.conv2d_transpose(y, jv.get_variable("t", [2, 2, 5, 3]), [2, 12, 10, 5], 2)
        labels = jv.get_variable("labels", [5], "int32")
        return nn.embedding_lookup(jv.get_variable("table", [4, 3]), labels), nn.l2_normalize(p), nn.leaky_relu(y)

    rows, p, y = jax.eval_shape(lambda x: jv.transform(net).apply(jv.transform(net).init(0, x), x)[0], IMAGE)
    assert (rows.shape, p.shape, y.shape) == ((5, 3), (1, 1, 8, 3), (2, 12, 10, 5))


def test_slopes_where_logits_are_0():
    x = jnp.zeros(2)
    z = np.float32([0, 1])
    loss = jax.grad(lambda x: jnp.sum(nn.sigmoid_cross_entropy_with_logits(labels=z, logits=x)))
    np.testing.assert_allclose(loss(x), [0.5, -0.5])
    slopes = jax.grad(lambda x: jnp.sum(nn.weighted_cross_entropy_with_logits(z, x, 3.0)))(x)
    np.testing.assert_allclose(slopes, [0.5, -1.5])


def test_embedding_lookup():
    table, ids = ramp([7, 2]), np.array([[0, 6], [3, 4]])
    parts = {"mod": [table[i::3] for i in range(3)], "div": np.array_split(table, 3)}

    @functools.partial(jax.jit, static_argnames="strategy")
    def lookup(tables, ids, strategy):
        return nn.embedding_lookup(tables, ids, strategy)

    for strategy, tables in parts.items():
        np.testing.assert_array_equal(lookup(tables, ids, strategy), table[ids])
        assert np.isnan(lookup(tables, np.array([[7, -1], [99, -99]]), strategy)).all()
    assert np.isnan(nn.embedding_lookup(table, np.array([7, -1]))).all()
    rows = nn.embedding_lookup(table, ids, max_norm=1.0)
    assert np.all(np.linalg.norm(rows, axis=-1) <= 1 + 1e-6)


def test_embedding_lookup_of_a_partitioned_variable():
    """As in TF1 it is its list of parts: "div" finds the rows of the whole."""
    table = ramp([5, 2])

    def net():
        w = jv.get_variable("w", [5, 2], partitioner=jv.fixed_size_partitioner(2))
        return nn.embedding_lookup(w, [3, 0], "div"), nn.embedding_lookup(w, [3, 0])

    div, mod = jv.transform(net)(jv.Variables({"w": table}))
    np.testing.assert_array_equal(div, table[[3, 0]])
    np.testing.assert_array_equal(mod, table[[4, 0]])


def test_embedding_lookup_sparse_of_no_ids():
    ids = BCOO((jnp.array([2, 0]), jnp.array([[0, 0], [2, 0]])), shape=(3, 1))
    rows = nn.embedding_lookup_sparse(ramp([4, 2]), ids, None)
    np.testing.assert_array_equal(rows[1], [0, 0])
    with pytest.raises(InvalidTypeError, match=r"BCOO.*jv\.nn\.embedding_lookup"):
        nn.embedding_lookup_sparse(ramp([4, 2]), np.array([1]), None)


def dropped(**arguments):
    return jv.transform(lambda x: nn.dropout(x, **arguments)).apply(jv.Variables({}), jnp.ones([8, 64]), rng=0)[0]


def test_dropout():
    kept = dropped(keep_prob=0.75)
    np.testing.assert_array_equal(kept, dropped(rate=0.25))
    assert 0.15 < np.mean(np.asarray(kept) == 0) < 0.35
    assert {len(set(row.tolist())) for row in dropped(rate=0.5, noise_shape=[None, 1])} == {1}
    np.testing.assert_array_equal(nn.dropout(np.ones(3, np.float32), keep_prob=1.0), np.ones(3))


def test_fused_batch_norm_mixes_moments():
    x = ramp([4, 2, 2, 3])

    @jax.jit
    def norm(x, mean, variance):
        return nn.fused_batch_norm(x, jnp.ones(3), jnp.zeros(3), mean, variance, exponential_avg_factor=0.5)

    _, mean, variance = norm(x, np.float32([1, 2, 3]), np.ones(3, np.float32))
    np.testing.assert_allclose(mean, (np.array([1, 2, 3]) + x.mean((0, 1, 2))) / 2, rtol=1e-5)
    np.testing.assert_allclose(variance, (1 + x.var((0, 1, 2)) * 16 / 15) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nn.conv1d(SEQUENCE, ramp([3, 4, 5]), data_format="NHC"), InvalidArgumentError, '"NWC" or "NCW"'),
        (lambda: nn.conv1d(SEQUENCE, ramp([3, 4, 5]), [1, 2]), InvalidArgumentError, r"strides is .* \[w\] or three"),
        (lambda: nn.conv3d(VOLUME, ramp([3, 2, 5])), InvalidArgumentError, r"\[depth, height, width, in_channels"),
        (lambda: nn.conv2d(IMAGE, ramp([3, 3, 3, 2])), InvalidArgumentError, r"depth of input \(4\) is not"),
        (lambda: nn.conv2d(IMAGE, ramp([3, 3, 2, 3])), InvalidArgumentError, "groups do not divide"),
        (lambda: nn.conv2d(IMAGE, ramp([7, 1, 4, 2]), 1, "VALID"), InvalidArgumentError, "subtracting 7 from 6"),
        (lambda: nn.conv2d(IMAGE, ramp([3, 3, 4, 2]), 1, "VALID", "NHWC", 3), InvalidArgumentError, "7 from 6"),
        (lambda: nn.convolution(IMAGE, ramp([3]), "SAME"), InvalidArgumentError, "one to three spatial axes"),
        (
            lambda: nn.convolution(IMAGE, ramp([3, 3, 4, 2]), "SAME", 2, 2),
            InvalidArgumentError,
            "`strides > 1` not supported in conjunction with `dilation_rate > 1`",
        ),
        (lambda: nn.depthwise_conv2d(IMAGE, ramp([3, 3, 2, 2])), InvalidArgumentError, "the 4 channels"),
        (
            lambda: nn.depthwise_conv2d(IMAGE, ramp([3, 3, 4, 2]), rate=1, dilations=1),
            InvalidArgumentError,
            "Cannot specify both",
        ),
        (
            lambda: nn.separable_conv2d(IMAGE, ramp([3, 3, 4, 2]), ramp([1, 1, 4, 2])),
            InvalidArgumentError,
            r"\[1, 1, in_channels \* multiplier, out_channels\]",
        ),
        (
            lambda: nn.conv2d_transpose(IMAGE, ramp([3, 3, 2, 4]), [2, 13, 10, 2], 2),
            InvalidArgumentError,
            r"doesn't match computed: .* sizes \[2, 7, 5\], the input has \[2, 6, 5\]",
        ),
        (
            lambda: nn.conv2d_transpose(IMAGE, ramp([3, 3, 2, 4]), [2, 6, 5, 3]),
            InvalidArgumentError,
            "output_shape does not match the filter's output channels",
        ),
        (lambda: nn.conv2d_transpose(IMAGE, ramp([3, 3, 2, 4]), [6, 5]), InvalidArgumentError, "is 4 ints in NHWC"),
        (
            lambda: jax.eval_shape(lambda n: nn.conv2d_transpose(IMAGE, ramp([3, 3, 2, 4]), n), jnp.ones(4, int)),
            InvalidArgumentError,
            "Take sizes from x.shape",
        ),
        (lambda: nn.max_pool3d(VOLUME, 5, 1, "VALID"), InvalidArgumentError, "larger than the depth"),
        (lambda: nn.pool(IMAGE, [2, 2], "SUM", "SAME"), InvalidArgumentError, '"AVG" or "MAX"'),
        (lambda: nn.pool(IMAGE, [2, 2], "MAX", "SAME", [2, 2]), InvalidArgumentError, "'SAME' padding is not impl"),
        (lambda: nn.pool(IMAGE, [2, 2], "MAX", "VALID", [2, 2], [2, 2]), InvalidArgumentError, "in conjunction"),
        (lambda: nn.pool(IMAGE, [2, 2], "MAX", "SAME", strides=[3, 1]), InvalidArgumentError, "`strides` > `window"),
        (lambda: nn.pool(IMAGE.astype(int), [2, 2], "AVG", "SAME"), InvalidTypeError, "floating"),
        (lambda: nn.moments(IMAGE, [0], keep_dims=True, keepdims=True), InvalidArgumentError, "Cannot specify both"),
        (lambda: nn.l2_normalize(IMAGE, 0, dim=0), InvalidArgumentError, "Cannot specify both"),
        (lambda: nn.lrn(IMAGE, -1), InvalidArgumentError, "depth_radius is at least 0"),
        (
            lambda: nn.fused_batch_norm(IMAGE, 1, 0, is_training=False),
            InvalidArgumentError,
            "mean and variance must be given",
        ),
        (lambda: nn.embedding_lookup([], [1]), InvalidArgumentError, "Need at least one param"),
        (lambda: nn.embedding_lookup(LOGITS, [1.0]), InvalidTypeError, "ids are ints"),
        (lambda: nn.embedding_lookup(LOGITS, [1], "round"), InvalidArgumentError, "Unrecognized partition strategy"),
        (lambda: nn.embedding_lookup([LOGITS, LOGITS[:, :1]], [1]), InvalidArgumentError, "of one width"),
        (
            lambda: nn.softmax_cross_entropy_with_logits(LOGITS, LOGITS),
            InvalidArgumentError,
            r"with named arguments: jv\.nn",
        ),
        (lambda: nn.sigmoid_cross_entropy_with_logits(labels=LOGITS), InvalidArgumentError, "Both labels and logits"),
        (
            lambda: nn.softmax_cross_entropy_with_logits_v2(LOGITS[:2], LOGITS),
            InvalidArgumentError,
            r"logits_size=\(3, 4\) labels_size=\(2, 4\)",
        ),
        (lambda: nn.softmax_cross_entropy_with_logits_v2(LOGITS, LOGITS, 2), InvalidArgumentError, "out of range"),
        (
            lambda: nn.sparse_softmax_cross_entropy_with_logits(labels=np.ones([3, 1], int), logits=LOGITS),
            InvalidArgumentError,
            "`labels.shape.rank` must equal",
        ),
        (
            lambda: nn.weighted_cross_entropy_with_logits(LOGITS, LOGITS, 1, targets=LOGITS),
            InvalidArgumentError,
            "both 'labels' and 'targets'",
        ),
        (lambda: nn.log_poisson_loss(LOGITS, LOGITS.astype(int)), InvalidTypeError, "log_input are floating"),
        (lambda: nn.top_k(LOGITS, 5), InvalidArgumentError, "at least k columns"),
        (lambda: nn.in_top_k(LOGITS, np.zeros(2, int), 1), InvalidArgumentError, r"\(3, 4\) and \(2,\)"),
        (lambda: nn.xw_plus_b(LOGITS, LOGITS, np.ones(4)), InvalidArgumentError, "Matrix size-incompatible"),
        (lambda: nn.dropout(LOGITS), InvalidArgumentError, "`rate` must be provided"),
        (lambda: nn.dropout(LOGITS, 0.5, rate=0.5), InvalidArgumentError, "'keep_prob' and 'rate'"),
        (lambda: nn.dropout(LOGITS, 0.0), InvalidArgumentError, r"range \[0, 1\).*keep_prob=0"),
        (lambda: nn.dropout(LOGITS, rate=0.5, noise_shape=[2, 1]), InvalidArgumentError, "must broadcast"),
        (lambda: nn.dropout(LOGITS, rate=0.5), FailedPreconditionError, "next_rng_key"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_what_jax_has_is_named():
    with pytest.raises(AttributeError, match=r"'relu': JAX has it, write jax\.nn\.relu"):
        _ = nn.relu
    with pytest.raises(AttributeError, match=r"no attribute 'erosion2d'"):
        _ = nn.erosion2d

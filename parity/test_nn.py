"""`jv.nn` computes what `tf.nn` computes, for random arguments."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental.sparse import BCOO

import jaxvars as jv
from parity.arrays import agree, both, normal, seeds, theirs, triple
from parity.live import examples, tf

BATCHES = st.sampled_from([0, 1, 2])
DIMS = st.sampled_from([1, 2, 3])
PADDINGS = st.sampled_from(["SAME", "VALID"])
LAYOUTS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
CONVOLUTIONS = {1: (jv.nn.conv1d, tf.nn.conv1d), 2: (jv.nn.conv2d, tf.nn.conv2d), 3: (jv.nn.conv3d, tf.nn.conv3d)}


def channels_first(array):
    return np.moveaxis(array, -1, 1)


def full(sizes):
    return [1, *sizes, 1]


@examples(30)
@given(seeds, DIMS, BATCHES, PADDINGS, st.booleans())
def test_convolutions(seed, dims, batch, padding, dilated):
    sizes, kernel = triple(seed, dims, (4, 5, 7)), triple(seed + 1, dims, (1, 2, 3))
    steps = triple(seed + 2, dims, (1, 2, 3))
    rates = triple(seed + 3, dims, (1, 2)) if dilated and dims < 3 else [1] * dims
    x, filters = normal(seed, batch, *sizes, 3), normal(seed + 1, *kernel, 3, 2)
    ours, his = CONVOLUTIONS[dims]
    spread = steps[0] if dims == 1 else full(steps)
    result = both(
        lambda x, w: ours(x, w, spread, padding, dilations=full(rates)),
        lambda x, w: his(x, w, spread, padding, dilations=rates[0] if dims == 1 else full(rates)),
        x,
        filters,
    )
    if result is not None and batch == 1:
        other = LAYOUTS[dims].replace("C", "").replace("N", "NC")
        first = ours(channels_first(x), filters, steps, padding, data_format=other, dilations=rates)
        agree(first, channels_first(result))


@examples(10)
@given(seeds, st.integers(0, 2), st.integers(0, 2), st.sampled_from([1, 2]))
def test_explicit_padding_and_groups(seed, before, after, groups):
    pads = [[0, 0], [before, after], [after, before], [0, 0]]
    x, filters = normal(seed, 2, 6, 5, 4), normal(seed, 3, 2, 4 // groups, 2)
    both(lambda x, w: jv.nn.conv2d(x, w, 2, pads), lambda x, w: tf.nn.conv2d(x, w, [1, 2, 2, 1], pads), x, filters)


@examples(12)
@given(seeds, DIMS, PADDINGS, st.booleans())
def test_convolution(seed, dims, padding, dilated):
    sizes, kernel = triple(seed, dims, (5, 6)), triple(seed + 1, dims, (1, 2, 3))
    arguments = {"dilation_rate" if dilated else "strides": triple(seed + 2, dims, (1, 2))}
    both(
        lambda x, w: jv.nn.convolution(x, w, padding, **arguments),
        lambda x, w: tf.nn.convolution(x, w, padding, **arguments),
        normal(seed, 1, *sizes, 2),
        normal(seed + 1, *kernel, 2, 2),
    )


@examples(20)
@given(seeds, DIMS, BATCHES, PADDINGS)
def test_transposed_convolutions(seed, dims, batch, padding):
    ours, his = {
        1: (jv.nn.conv1d_transpose, tf.nn.conv1d_transpose),
        2: (jv.nn.conv2d_transpose, tf.nn.conv2d_transpose),
        3: (jv.nn.conv3d_transpose, tf.nn.conv3d_transpose),
    }[dims]
    wanted, kernel = triple(seed, dims, (4, 5, 7)), triple(seed + 1, dims, (1, 2, 3))
    steps = triple(seed + 2, dims, (1, 2, 3))
    lost = [k - 1 if padding == "VALID" else 0 for k in kernel]
    sizes = [-(-(w - less) // s) for w, less, s in zip(wanted, lost, steps, strict=True)]
    spread = steps[0] if dims == 1 else full(steps)
    x, filters = normal(seed, batch, *sizes, 3), normal(seed + 1, *kernel, 2, 3)
    result = both(
        lambda x, w: ours(x, w, [batch, *wanted, 2], spread, padding),
        lambda x, w: his(x, w, [batch, *wanted, 2], spread, padding),
        x,
        filters,
    )
    if result is not None and batch == 1:
        other = LAYOUTS[dims].replace("C", "").replace("N", "NC")
        first = ours(channels_first(x), filters, [batch, 2, *wanted], steps, padding, data_format=other)
        agree(first, channels_first(result))


@examples(8)
@given(seeds, st.sampled_from([1, 2]), PADDINGS)
def test_atrous_convolutions(seed, rate, padding):
    x, filters = normal(seed, 1, 7, 6, 2), normal(seed, 3, 2, 2, 3)
    both(
        lambda x, w: jv.nn.atrous_conv2d(x, w, rate, padding),
        lambda x, w: tf.nn.atrous_conv2d(x, w, rate, padding),
        x,
        filters,
    )
    lost = 0 if padding == "SAME" else rate
    shape = [1, 7 + 2 * lost, 6 + lost, 2]
    both(
        lambda x, w: jv.nn.atrous_conv2d_transpose(x, w, shape, rate, padding),
        lambda x, w: tf.nn.atrous_conv2d_transpose(x, w, shape, rate, padding),
        normal(seed, 1, 7, 6, 3),
        filters,
    )


@examples(12)
@given(seeds, BATCHES, st.sampled_from([1, 2, 3]), PADDINGS, st.booleans(), st.sampled_from([1, 2]))
def test_depthwise_convolutions(seed, batch, step, padding, dilated, multiplier):
    steps = [1, 1, 1, 1] if dilated else [1, step, step, 1]
    rate = [2, 2] if dilated else None
    x, depthwise = normal(seed, batch, 6, 7, 2), normal(seed, 3, 2, 2, multiplier)
    both(
        lambda x, w: jv.nn.depthwise_conv2d(x, w, steps, padding, rate),
        lambda x, w: tf.nn.depthwise_conv2d(x, w, steps, padding, rate),
        x,
        depthwise,
    )
    both(
        lambda x, w, p: jv.nn.separable_conv2d(x, w, p, steps, padding, rate),
        lambda x, w, p: tf.nn.separable_conv2d(x, w, p, steps, padding, rate),
        x,
        depthwise,
        normal(seed, 1, 1, 2 * multiplier, 3),
    )


POOLS = {
    ("MAX", 1): (jv.nn.max_pool1d, tf.nn.max_pool1d),
    ("MAX", 2): (jv.nn.max_pool, tf.nn.max_pool),
    ("MAX", 3): (jv.nn.max_pool3d, tf.nn.max_pool3d),
    ("AVG", 1): (jv.nn.avg_pool1d, tf.nn.avg_pool1d),
    ("AVG", 2): (jv.nn.avg_pool, tf.nn.avg_pool),
    ("AVG", 3): (jv.nn.avg_pool3d, tf.nn.avg_pool3d),
}


@examples(24)
@given(seeds, st.sampled_from(sorted(POOLS)), st.sampled_from([1, 2]), PADDINGS)
def test_pooling(seed, kind, batch, padding):
    dims = kind[1]
    sizes, window = triple(seed, dims, (3, 4, 5)), triple(seed + 1, dims, (1, 2, 3, 4))
    steps = triple(seed + 2, dims, (1, 2, 3))
    if dims == 3:  # else TensorFlow's CPU kernel pads a negative number of planes, other than its GPU's and its 2d ones
        steps = [min(pair) for pair in zip(steps, window, strict=True)]
    ours, his = POOLS[kind]
    both(
        lambda x: ours(x, full(window), full(steps), padding),
        lambda x: his(x, full(window), full(steps), padding),
        normal(seed, batch, *sizes, 2),
    )


@examples(12)
@given(seeds, DIMS, st.sampled_from(["MAX", "AVG"]), PADDINGS, st.booleans())
def test_pool(seed, dims, kind, padding, dilated):
    sizes, window = triple(seed, dims, (5, 6)), triple(seed + 1, dims, (1, 2, 3))
    arguments = {"dilations" if dilated else "strides": triple(seed + 2, dims, (1, 2))}
    ours = {"dilation_rate" if dilated else "strides": triple(seed + 2, dims, (1, 2))}
    both(
        lambda x: jv.nn.pool(x, window, kind, padding, **ours),
        lambda x: tf.nn.pool(x, window, kind, padding, **arguments),
        normal(seed, 1, *sizes, 2),
    )


@examples(12)
@given(seeds, st.sampled_from([[0], [-1], [0, 1], [1, 2], [0, 1, 2]]), st.booleans())
def test_moments(seed, axes, keep):
    x = normal(seed, 3, 2, 4) + 3
    both(
        lambda x: jv.nn.moments(x, axes, keep_dims=keep), lambda x: tf.nn.moments(x, axes, keep_dims=keep), x, rtol=1e-4
    )
    weights = np.random.RandomState(seed).randint(0, 3, [(1, 3)[seed % 2], 2, 4]).astype(np.float32) + 0.5
    both(
        lambda x, w: jv.nn.weighted_moments(x, axes, w, keep_dims=keep),
        lambda x, w: tf.nn.weighted_moments(x, axes, w, keep_dims=keep),
        x,
        weights,
        rtol=1e-4,
    )
    both(lambda x: jv.nn.l2_normalize(x, axes), lambda x: tf.nn.l2_normalize(x, axes), x)


@examples(10)
@given(seeds, st.integers(1, 3), st.floats(0.5, 2), st.sampled_from([0.5, 0.75, 1.0]))
def test_local_response_normalization(seed, radius, bias, beta):
    both(
        lambda x: jv.nn.lrn(x, radius, bias, 0.3, beta),
        lambda x: tf.nn.lrn(x, radius, bias, 0.3, beta),
        normal(seed, 2, 2, 1, 5),
        rtol=1e-4,
    )


@examples(12)
@given(seeds, st.booleans(), st.sampled_from([1e-3, 1e-7]))
def test_batch_normalization(seed, is_training, epsilon):
    x, scale, offset = normal(seed, 3, 2, 2, 4), normal(seed + 1, 4), normal(seed + 2, 4)
    mean, variance = normal(seed + 3, 4), normal(seed + 4, 4, positive=True)
    both(
        lambda *args: jv.nn.batch_normalization(*args, epsilon),
        lambda *args: tf.nn.batch_normalization(*args, epsilon),
        x, mean, variance, offset, scale, rtol=1e-4,
    )  # fmt: skip
    given_moments = () if is_training else (mean, variance)
    both(
        lambda *args: jv.nn.fused_batch_norm(*args, epsilon=epsilon, is_training=is_training),
        lambda *args: tf.nn.fused_batch_norm(*args, epsilon=epsilon, is_training=is_training),
        x, scale, offset, *given_moments, rtol=1e-4,
    )  # fmt: skip


@examples(16)
@given(seeds, st.sampled_from(["mod", "div"]), st.sampled_from([1, 2, 3]), st.sampled_from([None, 1.0]))
def test_embedding_lookup(seed, strategy, parts, max_norm):
    table = normal(seed, 7, 3)
    if strategy == "mod":
        tables = [table[i::parts] for i in range(parts)]
    else:
        tables = np.array_split(table, parts)
    ids = np.random.RandomState(seed).randint(0, 7, [2, 4]).astype(np.int32)
    result = both(
        lambda *args: jv.nn.embedding_lookup(list(args[1:]), args[0], strategy, max_norm=max_norm),
        lambda *args: tf.nn.embedding_lookup(list(args[1:]), args[0], strategy, max_norm=max_norm),
        ids,
        *tables,
    )
    if max_norm is None:
        agree(result, table[ids])


@examples(10)
@given(seeds, st.sampled_from(["sum", "mean", "sqrtn"]), st.booleans())
def test_embedding_lookup_sparse(seed, combiner, weighted):
    random = np.random.RandomState(seed)
    rows = np.sort(np.concatenate([np.arange(3), random.randint(0, 3, 3)]))  # TensorFlow leaves out empty last rows
    indices = np.stack([rows, np.arange(6)], 1).astype(np.int64)
    ids, weights = random.randint(0, 5, 6).astype(np.int32), random.rand(6).astype(np.float32) + 0.1

    def ours(table, ids, weights):
        sparse = BCOO((jnp.asarray(ids), jnp.asarray(indices, np.int32)), shape=(3, 6))
        scales = BCOO((jnp.asarray(weights), jnp.asarray(indices, np.int32)), shape=(3, 6))
        return jv.nn.embedding_lookup_sparse(table, sparse, scales if weighted else None, combiner=combiner)

    def his(table, ids, weights):
        sparse, scales = (tf.SparseTensor(indices, values, [3, 6]) for values in (ids, weights))
        return tf.nn.embedding_lookup_sparse(table, sparse, scales if weighted else None, combiner=combiner)

    both(ours, his, normal(seed, 5, 3), ids, weights)


@examples(24)
@given(seeds, st.sampled_from(["softmax", "v2", "sparse", "sigmoid", "weighted", "poisson"]), st.booleans())
def test_cross_entropies(seed, kind, flag):
    logits = 5 * normal(seed, 3, 4)
    labels = normal(seed + 1, 3, 4, positive=True)
    labels /= labels.sum(1, keepdims=True)
    axis = 0 if flag else -1
    if kind == "softmax":
        both(
            lambda a, b: jv.nn.softmax_cross_entropy_with_logits(labels=a, logits=b, dim=axis),
            lambda a, b: tf.nn.softmax_cross_entropy_with_logits(labels=a, logits=b, dim=axis),
            labels,
            logits,
        )
    elif kind == "v2":
        rows = labels[:1] if flag else labels
        both(jv.nn.softmax_cross_entropy_with_logits_v2, tf.nn.softmax_cross_entropy_with_logits_v2, rows, logits)
    elif kind == "sparse":
        numbers = np.random.RandomState(seed).randint(0, 4, [3, 2] if flag else [3]).astype(np.int32)
        scores = normal(seed, 3, 2, 4) if flag else logits
        both(
            lambda a, b: jv.nn.sparse_softmax_cross_entropy_with_logits(labels=a, logits=b),
            lambda a, b: tf.nn.sparse_softmax_cross_entropy_with_logits(labels=a, logits=b),
            numbers,
            scores,
        )
    elif kind == "sigmoid":
        both(
            lambda a, b: jv.nn.sigmoid_cross_entropy_with_logits(labels=a, logits=b),
            lambda a, b: tf.nn.sigmoid_cross_entropy_with_logits(labels=a, logits=b),
            labels,
            20 * logits,
        )
    elif kind == "weighted":
        weight = normal(seed, 4, positive=True) if flag else np.float32(3)
        both(jv.nn.weighted_cross_entropy_with_logits, tf.nn.weighted_cross_entropy_with_logits, labels, logits, weight)
    else:
        both(
            lambda a, b: jv.nn.log_poisson_loss(a, b, flag),
            lambda a, b: tf.nn.log_poisson_loss(a, b, flag),
            np.random.RandomState(seed).poisson(2, [3, 4]).astype(np.float32),
            logits / 5,
        )


@pytest.mark.parametrize("kind", ["sparse", "softmax", "sigmoid", "log_softmax of labels"])
def test_gradients_of_cross_entropies(kind):
    """Also where logits are far apart."""
    import jax

    logits, numbers = np.float32([[1e3, -1e3, 0], [1, 2, 3]]), np.int32([1, 2])
    labels = np.eye(3, dtype=np.float32)[numbers]
    name = {"sparse": "sparse_softmax", "sigmoid": "sigmoid"}.get(kind, "softmax") + "_cross_entropy_with_logits"
    truth = numbers if kind == "sparse" else labels
    ours, his = getattr(jv.nn, name), getattr(tf.nn, name)
    gradient = jax.grad(lambda x: jnp.sum(ours(labels=truth, logits=x)))(logits)
    agree(gradient, theirs(lambda x: tf.gradients(his(labels=truth, logits=x), x)[0], logits))


@examples(16)
@given(seeds, st.integers(1, 4), st.booleans())
def test_ranking(seed, k, ties):
    scores = np.random.RandomState(seed).randint(0, 3, [5, 4]).astype(np.float32) if ties else normal(seed, 5, 4)
    targets = np.random.RandomState(seed).randint(-1, 5, [5]).astype(np.int32)
    both(lambda x, t: jv.nn.in_top_k(x, t, k), lambda x, t: tf.nn.in_top_k(x, t, k), scores, targets)
    both(lambda x: tuple(jv.nn.top_k(x, k)), lambda x: tuple(tf.nn.top_k(x, k)), scores)


@examples(10)
@given(seeds, st.sampled_from([0.2, 0.01, 1.0]))
def test_small_operations(seed, alpha):
    x, w, b = normal(seed, 3, 4), normal(seed + 1, 4, 2), normal(seed + 2, 2)
    both(lambda x: jv.nn.leaky_relu(x, alpha), lambda x: tf.nn.leaky_relu(x, alpha), x)
    both(lambda x: jv.nn.crelu(x, axis=seed % 2), lambda x: tf.nn.crelu(x, axis=seed % 2), x)
    both(jv.nn.xw_plus_b, tf.nn.xw_plus_b, x, w, b)
    both(jv.nn.relu_layer, tf.nn.relu_layer, x, w, b)
    both(jv.nn.l2_loss, tf.nn.l2_loss, x)
    both(jv.nn.zero_fraction, tf.nn.zero_fraction, np.maximum(x, 0))

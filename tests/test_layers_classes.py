"""Layer objects: what their calls share, in which scopes, in which frames; parity/test_layers.py has the figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_nn import ramp

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError

FLAT, SEQUENCE, IMAGE, VOLUME = ramp([2, 4]), ramp([2, 6, 4]), ramp([2, 6, 6, 4]), ramp([1, 4, 4, 4, 2])


def names(fn, *args):
    """The keys that a model makes, in order; no values are computed."""
    return list(jv.transform(fn).specs(*args)._layout.creation_order)


def shapes(fn, *args):
    return {key: leaf.shape for key, leaf in jv.transform(fn).specs(*args).items()}


# -- what calls share ------------------------------------------------------------------------------------


def test_calls_share_wherever_they_are():
    def net():
        shared = jv.layers.Dense(4)
        with jv.variable_scope("a"):
            shared(FLAT)
        with jv.variable_scope("b"):
            shared(FLAT)
            jv.layers.dense(FLAT, 4)
        shared(FLAT)
        assert shared.scope_name == "a/dense"
        assert shared.name == "dense"
        assert [v.name for v in shared.variables] == ["a/dense/kernel:0", "a/dense/bias:0"]
        assert shared.kernel is shared.trainable_weights[0]
        assert shared.bias.shape == (4,)
        assert shared.count_params() == 20
        assert shared.built and shared.updates == [] and shared.non_trainable_variables == []

    assert names(net) == ["a/dense/kernel", "a/dense/bias", "b/dense/kernel", "b/dense/bias"]


def test_names_of_classes_are_made_unique_and_those_of_functions_are_not():
    def net():
        jv.layers.Dense(4, name="d")(FLAT)
        second = jv.layers.Dense(4, name="d")
        second(FLAT)
        assert (second.name, second.scope_name) == ("d", "d_1")
        jv.layers.dense(FLAT, 4, name="d_2")
        jv.layers.Dense(4, name="d")(FLAT)
        jv.layers.Conv1D(2, 1)(SEQUENCE, scope="e")

    assert [key for key in names(net) if key.endswith("kernel")] == [
        "d/kernel",
        "d_1/kernel",
        "d_2/kernel",
        "d_3/kernel",
        "e/kernel",
    ]


def test_reuse_of_a_class():
    def net():
        jv.layers.Dense(4)(FLAT)
        jv.layers.Dense(4, _reuse=True)(FLAT)
        jv.layers.Dense(4, name="auto", _reuse=jv.AUTO_REUSE)(FLAT)
        jv.layers.Dense(4, name="auto", _reuse=jv.AUTO_REUSE)(FLAT)
        jv.layers.Dense(4, _scope="dense", _reuse=True).apply(FLAT)

    assert names(net) == ["dense/kernel", "dense/bias", "auto/kernel", "auto/bias"]


def test_a_layer_made_outside_of_the_model_starts_anew_in_each_run():
    dense = jv.layers.Dense(4, use_bias=False)

    def net(x):
        return dense(dense(x))

    model = jv.transform(net)
    variables = jv.Variables({"dense/kernel": 2 * jnp.eye(4, dtype=jnp.float32)})
    assert list(model.specs(FLAT)) == ["dense/kernel"]
    for _ in range(2):
        np.testing.assert_allclose(model(variables, FLAT), 4 * FLAT)
    np.testing.assert_allclose(jax.jit(model)(variables, FLAT), 4 * FLAT)

    def inside(x):
        y = dense(x)
        np.testing.assert_allclose(model(variables, FLAT), 4 * FLAT)  # another frame, within this one
        return y + dense(x) + jnp.sum(dense.kernel)

    with jv.VariableStore(0, variables):
        np.testing.assert_allclose(inside(jnp.asarray(FLAT)), 4 * FLAT + 8)
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        dense(FLAT)


def test_a_first_call_that_fails_fixes_nothing():
    dense = jv.layers.Dense(4, name="d")
    with jv.VariableStore():
        jv.get_variable("d/kernel", [3, 3])
        with pytest.raises(InvalidArgumentError, match="already exists"):
            dense(FLAT)
        with pytest.raises(InvalidArgumentError, match="has not been used yet"):
            _ = dense.scope_name
        with pytest.raises(InvalidArgumentError, match="expected min_ndim=2"):
            jv.layers.Dense(2)(np.ones(3, np.float32))
        assert dense.variables == []
    assert names(lambda: jv.layers.Dense(4)(FLAT)) == ["dense/kernel", "dense/bias"]


def test_attributes_before_the_first_call():
    with jv.VariableStore(), pytest.raises(FailedPreconditionError, match="Call the layer first"):
        _ = jv.layers.Dense(4).kernel
    assert jv.layers.Dense(4).name == "dense"
    assert jv.layers.SeparableConv2D(4, 3, name="s").name == "s"


def test_layers_in_transforms():
    """Shared by the steps of a scan, whose carry changes its dtype, under remat."""

    def net(x):
        dense = jv.layers.Dense(4, use_bias=False)
        norm = jv.layers.BatchNormalization(momentum=0.5, center=False, scale=False)

        def body(carry, _):
            y = jax.checkpoint(lambda z: norm(dense(z), training=True))(x)
            return carry + jnp.sum(y) * 0 + 1, None

        return jax.lax.scan(body, 0, length=3)[0], dense(x)

    model = jv.transform(net)
    assert names(net, FLAT) == [
        "dense/kernel",
        "batch_normalization/moving_mean",
        "batch_normalization/moving_variance",
    ]
    variables = model.specs(FLAT).replace(
        {
            "dense/kernel": jnp.eye(4),
            "batch_normalization/moving_mean": jnp.zeros(4),
            "batch_normalization/moving_variance": jnp.ones(4),
        }
    )
    (count, y), after = model.apply(variables, FLAT)
    assert count == 3.0
    np.testing.assert_allclose(y, FLAT)
    np.testing.assert_allclose(after["batch_normalization/moving_mean"], 0.875 * FLAT.mean(0), rtol=1e-5)


# -- layers of one's own ---------------------------------------------------------------------------------


class Scale(jv.layers.Layer):
    def build(self, input_shape):
        self.factor = self.add_weight("factor", input_shape[-1:], initializer=jv.ones_initializer())
        self.count = self.add_variable("count", [], "int32", jv.zeros_initializer(), trainable=False)
        self.built = True

    def call(self, inputs, times=1):
        self.count.assign_add(1)
        return inputs * self.factor.value.reshape(1, -1) ** times


def test_a_layer_of_ones_own():
    scale = Scale(name="mine")

    def net(x):
        return scale(scale(x), times=2)

    model = jv.transform(net)
    variables = model.init(0, FLAT)
    assert variables.variable_specs["mine/count"].trainable is False
    variables = variables.replace({"mine/factor": jnp.full(4, 2.0)})
    y, after = model.apply(variables, FLAT)
    np.testing.assert_allclose(y, 8 * FLAT)
    assert after["mine/count"] == 2
    frozen = jv.transform(lambda x: Scale(trainable=False)(x)).specs(FLAT)
    assert not frozen.variable_specs["scale/factor"].trainable


def test_weights_are_made_in_build_or_call():
    with jv.VariableStore(), pytest.raises(FailedPreconditionError, match="def build"):
        Scale().add_weight("w", [1])


def test_losses_of_a_layer():
    with jv.VariableStore(0):
        half = jv.regularizers.l2_regularizer(1.0)
        dense = jv.layers.Dense(4, kernel_initializer=jv.ones_initializer(), kernel_regularizer=half)
        other = jv.layers.Dense(4, kernel_initializer=jv.ones_initializer(), kernel_regularizer=half)
        dense(FLAT), other(FLAT)
        assert [float(loss) for loss in dense.losses] == [8.0]
        assert jv.get_collection(jv.GraphKeys.UPDATE_OPS) == []


# -- shapes and names of each kind -----------------------------------------------------------------------


def test_shapes_of_convolutions():
    def net():
        assert jv.layers.conv1d(SEQUENCE, 3, 3).shape == (2, 4, 3)
        assert jv.layers.conv2d(IMAGE, 3, 3, 2, "same").shape == (2, 3, 3, 3)
        assert jv.layers.conv3d(VOLUME, 3, (1, 2, 3)).shape == (1, 4, 3, 2, 3)
        assert jv.layers.conv2d_transpose(IMAGE, 3, 5, 2).shape == (2, 15, 15, 3)
        assert jv.layers.conv2d_transpose(IMAGE, 3, 1, 2, "same").shape == (2, 12, 12, 3)
        assert jv.layers.conv3d_transpose(VOLUME, 3, 2).shape == (1, 5, 5, 5, 3)
        assert jv.layers.separable_conv1d(SEQUENCE, 3, 3, 2, depth_multiplier=2).shape == (2, 2, 3)
        assert jv.layers.separable_conv2d(IMAGE, 3, 3, use_bias=False).shape == (2, 4, 4, 3)

    assert shapes(net) == {
        "conv1d/kernel": (3, 4, 3),
        "conv1d/bias": (3,),
        "conv2d/kernel": (3, 3, 4, 3),
        "conv2d/bias": (3,),
        "conv3d/kernel": (1, 2, 3, 2, 3),
        "conv3d/bias": (3,),
        "conv2d_transpose/kernel": (5, 5, 3, 4),
        "conv2d_transpose/bias": (3,),
        "conv2d_transpose_1/kernel": (1, 1, 3, 4),
        "conv2d_transpose_1/bias": (3,),
        "conv3d_transpose/kernel": (2, 2, 2, 3, 2),
        "conv3d_transpose/bias": (3,),
        "separable_conv1d/depthwise_kernel": (3, 4, 2),
        "separable_conv1d/pointwise_kernel": (1, 8, 3),
        "separable_conv1d/bias": (3,),
        "separable_conv2d/depthwise_kernel": (3, 3, 4, 1),
        "separable_conv2d/pointwise_kernel": (1, 1, 4, 3),
    }


@pytest.mark.parametrize(
    "kind", ["conv1d", "conv2d_transpose", "separable_conv1d", "max_pooling1d", "average_pooling3d"]
)
def test_channels_first_is_the_same_moved(kind):
    x = {"1": SEQUENCE, "2": IMAGE, "3": VOLUME}[kind.replace("_transpose", "")[-2]]
    sizes = (2, 1) if "pooling" in kind else (2, 2, 1)
    model = jv.transform(lambda x, data_format: getattr(jv.layers, kind)(x, *sizes, "same", data_format))
    specs = model.specs(x, "channels_last")
    variables = specs.replace({key: ramp(leaf.shape, i) for i, (key, leaf) in enumerate(specs.items())})
    last = jax.jit(lambda v, x: model(v, x, "channels_last"))(variables, x)
    first = jax.jit(lambda v, x: model(v, x, "channels_first"))(variables, np.moveaxis(x, -1, 1))
    np.testing.assert_allclose(first, np.moveaxis(last, -1, 1), rtol=1e-5, atol=1e-5)


def test_an_empty_batch():
    def net(x):
        x = jv.layers.conv2d(x, 2, 3)
        x = jv.layers.conv2d_transpose(x, 2, 3, 2)
        x = jv.layers.max_pooling2d(jv.layers.batch_normalization(x), 2, 2)
        return jv.layers.dense(jv.layers.flatten(x), 3)

    assert jax.eval_shape(lambda x: jv.transform(net).init(0, x), IMAGE[:0]) is not None
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jv.transform(net).specs(IMAGE[:0]))
    assert jv.transform(net)(variables, IMAGE[:0]).shape == (0, 3)


# -- normalization and embeddings ------------------------------------------------------------------------


def test_variables_of_renorm_and_virtual_batches():
    def net():
        four = jv.constant_initializer(4.0)
        jv.layers.batch_normalization(IMAGE, renorm=True, moving_variance_initializer=four)
        jv.layers.batch_normalization(IMAGE, virtual_batch_size=2, center=False)

    model = jv.transform(net)
    expected = ["gamma", "beta", "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev"]
    second = ["gamma", "moving_mean", "moving_variance"]
    assert names(net) == [
        *(f"batch_normalization/{part}" for part in expected),
        *(f"batch_normalization_1/{part}" for part in second),
    ]
    variables = model.init(0)
    np.testing.assert_array_equal(variables["batch_normalization/moving_stddev"], np.full(4, 2.0))
    np.testing.assert_array_equal(variables["batch_normalization/renorm_stddev"], np.full(4, 2.0))
    assert variables["batch_normalization_1/gamma"].shape == (1, 1, 1, 1, 4)
    assert variables.variable_specs["batch_normalization/renorm_mean"].trainable is False


def test_renorm_moves_in_a_scan():
    def net(x):
        def body(carry, _):
            y = jv.layers.batch_normalization(x, renorm=True, renorm_momentum=0.5, training=True, name="n")
            return carry, y

        return jax.lax.scan(body, None, length=2)[1]

    model = jv.transform(net)
    x = ramp([8, 3])
    _, after = model.apply(model.init(0, x), x)
    np.testing.assert_allclose(after["n/renorm_mean"], 0.75 * x.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after["n/moving_mean"], (1 - 0.99**2) * x.mean(0), rtol=1e-4, atol=1e-6)


def test_moving_averages_are_not_partitioned():
    def net():
        with jv.variable_scope("s", partitioner=jv.fixed_size_partitioner(2)):
            jv.layers.batch_normalization(FLAT, training=True)
            jv.layers.dense(FLAT, 3)
            return [v.name for v in jv.global_variables()]

    seen = []
    jv.transform(lambda: seen.extend(net())).specs()
    assert "s/batch_normalization/gamma/part_0:0" in seen
    assert "s/batch_normalization/moving_mean:0" in seen
    assert "s/dense/kernel/part_1:0" in seen


def test_layer_norm():
    def net(x):
        x = jv.layers.layer_norm(x, begin_norm_axis=-1)
        return jv.layers.layer_norm(x, scope="all", begin_params_axis=1, activation_fn=jnp.abs)

    x = ramp([2, 3, 5])
    assert names(net, x) == ["LayerNorm/beta", "LayerNorm/gamma", "all/beta", "all/gamma"]
    variables = jv.transform(net).init(0, x)
    assert variables["all/gamma"].shape == (3, 5)
    assert jv.GraphKeys.MODEL_VARIABLES in variables.variable_specs["all/gamma"].collections
    y = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    y = np.abs(y - y.mean((1, 2), keepdims=True)) / y.std((1, 2), keepdims=True)
    np.testing.assert_allclose(jv.transform(net)(variables, x), y, rtol=1e-4, atol=1e-5)


def test_embeddings():
    ids = np.array([[1, 0], [2, 2]])

    def net():
        words = jv.layers.Embedding(3, 2, name="words")
        first = words(ids)
        jv.layers.embed_sequence(ids, 5, 4)
        return first, jv.layers.embedding(ids, 3, 2, name="words", reuse=True)

    assert names(net) == ["words/embeddings", "EmbedSequence/embeddings"]
    table = ramp([3, 2])
    variables = jv.Variables({"words/embeddings": table, "EmbedSequence/embeddings": np.zeros([5, 4], np.float32)})
    for rows in jv.transform(net)(variables):
        np.testing.assert_array_equal(rows, table[ids])


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "error", "text"),
    [
        (lambda: jv.layers.conv1d(IMAGE, 2, 3), InvalidArgumentError, "expected ndim=3, found ndim=4"),
        (lambda: jv.layers.conv2d(IMAGE, 2, 7), InvalidArgumentError, "caused by subtracting 7 from 6"),
        (lambda: jv.layers.conv2d(IMAGE, 2, 3, 2, dilation_rate=2), InvalidArgumentError, "not supported in conj"),
        (lambda: jv.layers.conv2d(IMAGE, 2, 3, padding="causal"), InvalidArgumentError, '"valid" or "same"'),
        (lambda: jv.layers.conv1d(SEQUENCE, 2, 3, padding="full"), InvalidArgumentError, '"same" or "causal"'),
        (lambda: jv.layers.conv3d(VOLUME, 2, (3, 3)), InvalidArgumentError, "a positive int or three of them"),
        (lambda: jv.layers.conv2d(IMAGE, 0, 3), InvalidArgumentError, "filters is a positive int"),
        (lambda: jv.layers.conv2d_transpose(IMAGE, "a", 3), InvalidTypeError, "filters is a positive int"),
        (lambda: jv.layers.separable_conv2d(IMAGE, 2, 3, depth_multiplier=0), InvalidArgumentError, "depth_multipl"),
        (lambda: jv.layers.max_pooling1d(IMAGE, 2, 2), InvalidArgumentError, "N, W, C, of rank 3"),
        (lambda: jv.layers.max_pooling3d(VOLUME, 5, 1), InvalidArgumentError, "larger than the depth"),
        (
            lambda: jv.layers.batch_normalization(IMAGE, renorm=True, renorm_clipping={"max": 1}),
            InvalidArgumentError,
            "invalid keys for `renorm_clipping`.*'max'",
        ),
        (
            lambda: jv.layers.batch_normalization(IMAGE, virtual_batch_size=3),
            InvalidArgumentError,
            "must divide the batch",
        ),
        (
            lambda: jv.layers.batch_normalization(IMAGE, virtual_batch_size=2, adjustment=lambda s: (1, 0)),
            InvalidArgumentError,
            "adjustment cannot be specified",
        ),
        (lambda: jv.layers.layer_norm(FLAT, begin_norm_axis=2), InvalidArgumentError, r"must be < rank\(inputs\)"),
        (lambda: jv.layers.embedding(FLAT, 3, 2), InvalidTypeError, "ids are ints"),
        (lambda: jv.layers.embedding([1], 0, 2), InvalidArgumentError, "vocab_size is a positive int"),
        (lambda: jv.layers.Flatten("NHWC"), InvalidArgumentError, "channels_last"),
        (lambda: jv.layers.Dropout(1.5), InvalidArgumentError, r"range \[0, 1\)"),
    ],
)
def test_errors(layer, error, text):
    with jv.VariableStore() as store:
        with pytest.raises(error, match=text):
            layer()
        with jv.variable_scope(None, "conv2d") as scope:
            assert scope.name == "conv2d"  # no counter moved
        assert list(store.variables) == []

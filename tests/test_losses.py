"""`jv.losses`: values by hand, weights, what the collections hold. parity/test_losses.py compares with TensorFlow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_nn import ramp

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError

Y, X = ramp([3, 4]), ramp([3, 4], 1)
R = jv.losses.Reduction


def test_reductions():
    losses, weights = np.float32([[1, 2], [3, 4]]), np.float32([[2], [0]])
    weighted = np.float32([[2, 4], [0, 0]])
    expected = {R.NONE: weighted, R.SUM: 6, R.SUM_OVER_BATCH_SIZE: 1.5, R.MEAN: 1.5, R.SUM_BY_NONZERO_WEIGHTS: 3}
    for reduction, value in expected.items():
        np.testing.assert_array_equal(
            jv.losses.compute_weighted_loss(losses, weights, reduction=reduction), np.float32(value)
        )
    assert set(expected) == set(R.all())
    assert R.SUM_OVER_NONZERO_WEIGHTS == R.SUM_BY_NONZERO_WEIGHTS


@pytest.mark.parametrize("reduction", R.all())
def test_nothing_to_reduce(reduction):
    for losses, weights in ((np.ones([0, 3], np.float32), 1.0), (np.ones([2, 3], np.float32), 0.0)):
        loss = jv.losses.compute_weighted_loss(losses, weights, reduction=reduction)
        np.testing.assert_array_equal(loss, np.zeros(loss.shape))
        slope = jax.grad(lambda x: jnp.sum(jv.losses.compute_weighted_loss(x, weights, reduction=reduction)))(losses)  # noqa: B023
        np.testing.assert_array_equal(slope, np.zeros(losses.shape))


def test_values():
    """All in one program: each would be compiled on its own."""
    truth = (Y > 0).astype(np.float32)

    @jax.jit
    def losses(y, x):
        return {
            "absolute": jv.losses.absolute_difference(y, x),
            "squared": jv.losses.mean_squared_error(y, x),
            "huber": jv.losses.huber_loss(y, x, delta=0.5),
            "hinge": jv.losses.hinge_loss(truth, x),
            "cosine": jv.losses.cosine_distance(y, x, axis=1),
            "pairs": jv.losses.mean_pairwise_squared_error(y, x),
        }

    error = X - Y
    size = np.abs(error)
    expected = {
        "absolute": size.mean(),
        "squared": (error**2).mean(),
        "huber": np.where(size < 0.5, size**2 / 2, 0.5 * (size - 0.25)).mean(),
        "hinge": np.maximum(0, 1 - np.sign(Y) * X).mean(),
        "cosine": (1 - (X * Y).sum(1)).mean(),
        "pairs": np.sum([((e[:, None] - e[None]) ** 2).sum() / 12 for e in error]),
    }
    for name, loss in losses(Y, X).items():
        np.testing.assert_allclose(loss, expected[name], rtol=1e-5, err_msg=name)


def test_values_of_classes():
    logs = X - np.log(np.exp(X).sum(1, keepdims=True))
    p = 1 / (1 + np.exp(-X))
    numbers = np.array([0, 3, 1])
    hot = np.eye(4, dtype=np.float32)[numbers]
    weights = np.float32([1, 0, 2])

    @jax.jit
    def losses(x, p):
        column = numbers[:, None]
        return {
            "softmax": jv.losses.softmax_cross_entropy(hot, x, weights),
            "smooth softmax": jv.losses.softmax_cross_entropy(hot, x, label_smoothing=0.2),
            "sparse": jv.losses.sparse_softmax_cross_entropy(numbers, x, weights, reduction=R.NONE),
            "column": jv.losses.sparse_softmax_cross_entropy(column, x, weights[:, None], reduction=R.NONE),
            "smooth sigmoid": jv.losses.sigmoid_cross_entropy(hot, x, label_smoothing=0.2),
            "log": jv.losses.log_loss(hot, p, epsilon=0),
        }

    def two_sided(labels):
        return -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()

    each = -(hot * logs).sum(1) * weights
    expected = {
        "softmax": each.sum() / 2,
        "smooth softmax": -((0.8 * hot + 0.05) * logs).sum(1).mean(),
        "sparse": each,
        "column": each,
        "smooth sigmoid": two_sided(0.8 * hot + 0.1),
        "log": two_sided(hot),
    }
    for name, loss in losses(X, p).items():
        np.testing.assert_allclose(loss, expected[name], rtol=1e-5, err_msg=name)


def test_dtypes():
    half = jnp.full([100_000], 0.1, jnp.bfloat16)
    assert jv.losses.compute_weighted_loss(half).dtype == jnp.bfloat16
    np.testing.assert_allclose(jv.losses.compute_weighted_loss(half).astype(np.float32), 0.1, rtol=1e-2)
    assert jv.losses.mean_squared_error(half, half).dtype == np.float32
    assert jv.losses.mean_squared_error(np.array([1, 2]), np.array([1, 4])) == 2.0


def test_no_gradient_flows_into_labels_of_a_softmax():
    hot = np.eye(4, dtype=np.float32)[[0, 1, 2]]
    np.testing.assert_array_equal(jax.grad(jv.losses.softmax_cross_entropy)(hot, X), np.zeros([3, 4]))


# -- collections -----------------------------------------------------------------------------------------


def collected():
    half = jv.regularizers.l2_regularizer(1.0)
    with jv.variable_scope("tower_0"):
        jv.get_variable("w", [2], initializer=jv.ones_initializer(), regularizer=half)
        jv.losses.mean_squared_error(Y, X)
        jv.losses.mean_squared_error(Y, X, scope="mine")
    jv.losses.mean_squared_error(Y, X, loss_collection=None)
    jv.losses.absolute_difference(Y, X, loss_collection="others")
    jv.losses.add_loss(2.0)
    jv.losses.add_loss(2.0, loss_collection=None)


def test_the_collection():
    square = np.float32(((X - Y) ** 2).mean())

    def net():
        collected()
        assert len(jv.losses.get_losses(loss_collection="others")) == 1
        assert len(jv.losses.get_losses("tower_0/mine/")) == 1
        assert jv.losses.get_losses("tower_1") == []
        assert len(jv.get_collection(jv.GraphKeys.LOSSES)) == 3
        parts = jv.losses.get_losses("tower_0/")
        whole = jv.losses.get_total_loss(), jv.losses.get_total_loss(False), jv.losses.get_total_loss(scope="tower_0")
        return parts, whole

    model = jv.transform(net)
    (parts, whole), _ = jax.jit(model.apply)(model.init(0))
    np.testing.assert_allclose(parts, [square, square], rtol=1e-6)
    np.testing.assert_allclose(whole, [2 * square + 3, 2 * square + 2, 2 * square + 1], rtol=1e-6)


def test_outside_of_a_model_losses_are_plain_functions():
    assert jv.losses.mean_squared_error(Y, X).shape == ()
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        jv.losses.get_losses()
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        jv.losses.add_loss(1.0)


def test_a_loss_of_an_inner_trace_is_refused():
    def net(collection):
        def body(carry, _):
            return carry, jv.losses.mean_squared_error(Y, carry, loss_collection=collection)

        return jax.lax.scan(body, jnp.asarray(X), length=2)[1]

    with pytest.raises(FailedPreconditionError, match="losses"):
        jv.transform(lambda: net("losses")).init(0)
    out, _ = jv.transform(lambda: net(None)).apply(jv.Variables({}))
    assert out.shape == (2,)


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: jv.losses.mean_squared_error(Y, X[:2]), InvalidArgumentError, r"\(2, 4\) and \(3, 4\) are incompat"),
        (lambda: jv.losses.mean_squared_error(None, X), InvalidArgumentError, "labels must not be None"),
        (lambda: jv.losses.softmax_cross_entropy(Y, None), InvalidArgumentError, "logits must not be None"),
        (lambda: jv.losses.sparse_softmax_cross_entropy(None, X), InvalidArgumentError, "labels must not be None"),
        (
            lambda: jv.losses.mean_squared_error(Y, X, weights=np.ones(3)),
            InvalidArgumentError,
            r"weights can not be broadcast to values. values.rank=2. weights.rank=1.*jnp.reshape",
        ),
        (lambda: jv.losses.huber_loss(Y, X, reduction="mean"), InvalidArgumentError, "Invalid Reduction Key mean"),
        (lambda: jv.losses.cosine_distance(Y, X), InvalidArgumentError, "specify argument `axis`"),
        (lambda: jv.losses.cosine_distance(Y, X, axis=1, dim=1), InvalidArgumentError, "Cannot specify both"),
        (lambda: jv.losses.cosine_distance(Y, X, axis=2), InvalidArgumentError, "out of range"),
        (lambda: jv.losses.mean_pairwise_squared_error(1.0, 2.0), InvalidArgumentError, "a scalar"),
        (lambda: jv.losses.sparse_softmax_cross_entropy(Y[:, 0], X), InvalidTypeError, "labels are ints"),
        (lambda: jv.losses.get_total_loss(), InvalidArgumentError, "no losses in the collections"),
    ],
)
def test_errors(call, error, text):
    with jv.VariableStore():
        with pytest.raises(error, match=text):
            call()
        assert jv.losses.get_losses() == []


def test_a_loss_that_is_not_collected_takes_its_name():
    with jv.VariableStore(0):
        jv.losses.absolute_difference([1.0], [2.0], loss_collection=None)
        jv.losses.absolute_difference([1.0], [4.0])
        assert [float(loss) for loss in jv.losses.get_losses(scope="absolute_difference_1")] == [3.0]

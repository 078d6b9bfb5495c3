"""`jv.metrics`: what counts, where, and how to begin anew; parity/test_metrics.py has TensorFlow's figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, TransformError

LABELS, GUESSES = np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1])


def evaluate(labels, guesses):
    with jv.variable_scope("eval"):
        right, update = jv.metrics.accuracy(labels, guesses)
        jv.metrics.precision(labels, guesses, updates_collections=jv.GraphKeys.UPDATE_OPS)
        jv.metrics.accuracy(labels, guesses, name="mine")
    assert right is update
    assert len(jv.get_collection(jv.GraphKeys.UPDATE_OPS)) == 1
    return right


def test_names_and_collections():
    specs = jv.transform(evaluate).specs(LABELS, GUESSES)
    assert list(specs._layout.creation_order) == [
        "eval/accuracy/total",
        "eval/accuracy/count",
        "eval/precision/true_positives/count",
        "eval/precision/false_positives/count",
        "eval/mine/total",
        "eval/mine/count",
    ]
    assert not specs.trainable
    assert len(specs.collection(jv.GraphKeys.METRIC_VARIABLES)) == len(specs) == 6
    assert len(specs.collection(jv.GraphKeys.LOCAL_VARIABLES)) == 6


def test_batches_add_up_also_in_a_scan_and_reset_begins_anew():
    def batches(labels, guesses):
        return jax.lax.scan(lambda c, pair: (c, jv.metrics.accuracy(*pair)[0]), None, (labels, guesses))[1]

    model = jv.transform(batches)
    labels, guesses = LABELS.reshape(2, 2), GUESSES.reshape(2, 2)
    variables = model.init(0, labels, guesses)
    values, variables = model.apply(variables, labels, guesses)
    np.testing.assert_allclose(values, [1.0, 0.75])
    assert variables["accuracy/count"] == 4
    variables = jv.metrics.reset(variables)
    assert not any(np.any(value) for value in variables.values())


def test_nothing_counted_is_0():
    def empty():
        none = np.zeros([0, 2], np.float32)
        return jv.metrics.mean(none)[0], jv.metrics.recall(none, none)[0], jv.metrics.auc(none, none)[0]

    model = jv.transform(empty)
    mean, recall, _ = jax.jit(model.apply)(model.init(0))[0]
    assert (mean, recall) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: jv.metrics.accuracy(LABELS, GUESSES[:2]), InvalidArgumentError, r"\(2,\) and \(4,\) are incompatible"),
        (lambda: jv.metrics.accuracy(None, GUESSES), InvalidArgumentError, "must not be None"),
        (lambda: jv.metrics.mean(LABELS, np.ones(3)), InvalidArgumentError, "weights can not be broadcast"),
        (lambda: jv.metrics.auc(LABELS, GUESSES, curve="P"), InvalidArgumentError, "curve must be either ROC or PR"),
        (
            lambda: jv.metrics.auc(LABELS, GUESSES, summation_method="careful_interpolation"),
            InvalidArgumentError,
            "for curve='PR'",
        ),
    ],
)
def test_errors(call, error, text):
    with jv.VariableStore() as store:
        with pytest.raises(error, match=text):
            call()
        assert not store.variables


def test_where_metrics_cannot_count():
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        jv.metrics.mean(1.0)
    with pytest.raises(InvalidTypeError, match=r"jv\.Variables"):
        jv.metrics.reset({"mean/total": 1.0})
    with pytest.raises(TransformError, match="vmap"):
        jv.transform(lambda x: jax.vmap(lambda y: jv.metrics.mean(y)[0])(x)).init(0, jnp.ones(3))

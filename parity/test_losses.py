"""`jv.losses` computes what `tf.losses` computes, and collects what it collects, for random arguments."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from parity.arrays import agree, both, normal, seeds
from parity.live import examples, fresh_graph, tf

REDUCTIONS = st.sampled_from(jv.losses.Reduction.all())
# Without empty ones: TensorFlow's process ends with a floating point exception at some of them.
SHAPES = st.sampled_from([(3,), (3, 4), (2, 3, 2)])
ELEMENTWISE = ["absolute_difference", "mean_squared_error", "huber_loss", "log_loss", "hinge_loss"]
ELEMENTWISE += ["sigmoid_cross_entropy"]


def weights_for(seed, shape):
    """Weights of one of the shapes that broadcast, some of them 0; and of one that may not."""
    random = np.random.RandomState(seed)
    shapes = [(), (1,) * len(shape), (*shape[:1], *(1,) * (len(shape) - 1)), shape, shape[-1:]]
    return np.float32(random.choice([0, 1, 2.5], shapes[random.randint(len(shapes))]))


def test_reductions_are_tensorflows():
    assert set(jv.losses.Reduction.all()) == set(tf.losses.Reduction.all())


@examples(50)
@given(seeds, st.sampled_from(ELEMENTWISE), SHAPES, REDUCTIONS)
def test_losses_of_elements(seed, name, shape, reduction):
    labels, guesses = np.float32(np.random.RandomState(seed).rand(2, *shape))
    guesses = guesses if name == "log_loss" else 4 * guesses - 2
    extra = {}
    if name == "huber_loss":
        extra["delta"] = 0.5 + seed % 2
    elif name == "log_loss":
        extra["epsilon"] = 1e-3
    elif name == "sigmoid_cross_entropy":
        extra["label_smoothing"] = 0.1 * (seed % 3)
    ours, his = getattr(jv.losses, name), getattr(tf.losses, name)
    both(
        lambda a, b, w: ours(a, b, w, reduction=reduction, **extra),
        lambda a, b, w: his(a, b, w, reduction=reduction, **extra),
        labels,
        guesses,
        weights_for(seed, shape),
    )


@examples(30)
@given(seeds, st.sampled_from(["softmax", "sparse", "cosine", "pairwise"]), REDUCTIONS)
def test_losses_of_examples(seed, kind, reduction):
    labels, logits = np.float32(np.random.RandomState(seed).rand(2, 3, 4))
    weights = weights_for(seed, (3,))
    if kind == "softmax":
        smoothing = 0.1 * (seed % 3)
        both(
            lambda a, b, w: jv.losses.softmax_cross_entropy(a, b, w, smoothing, reduction=reduction),
            lambda a, b, w: tf.losses.softmax_cross_entropy(a, b, w, smoothing, reduction=reduction),
            labels / labels.sum(1, keepdims=True),
            logits,
            weights,
        )
    elif kind == "sparse":
        column = seed % 2 == 0
        numbers = np.random.RandomState(seed).randint(0, 4, [3, 1] if column else [3])
        weights = weights.reshape(3, 1) if column and weights.shape == (3,) else weights
        both(
            lambda a, b, w: jv.losses.sparse_softmax_cross_entropy(a, b, w, reduction=reduction),
            lambda a, b, w: tf.losses.sparse_softmax_cross_entropy(a, b, w, reduction=reduction),
            numbers.astype(np.int32),
            logits,
            weights,
        )
    elif kind == "cosine":
        axis = (0, 1, -1)[seed % 3]
        weights = weights_for(seed, (1, 4) if axis == 0 else (3, 1))
        both(
            lambda a, b, w: jv.losses.cosine_distance(a, b, axis, w, reduction=reduction),
            lambda a, b, w: tf.losses.cosine_distance(a, b, axis, w, reduction=reduction),
            labels,
            logits,
            weights,
        )
    else:
        shape = [(3, 4), (3, 2, 2), (12,)][seed % 3]
        weights = np.float32(np.random.RandomState(seed).choice([0, 1, 2.5], (shape[0], *(1,) * (len(shape) - 1))))
        both(
            jv.losses.mean_pairwise_squared_error,
            tf.losses.mean_pairwise_squared_error,
            labels.reshape(shape),
            logits.reshape(shape),
            weights if seed % 2 else np.float32(2),
            rtol=1e-4,
        )


NAMES = ["absolute_difference", "hinge_loss", "sigmoid_cross_entropy", "softmax_cross_entropy"]
LOSSES = st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from(NAMES), st.booleans()), max_size=4)


@examples(15)
@given(LOSSES, st.sampled_from([None, "a/", "b/abs", ".*_1", "sigmoid"]))
def test_the_collection(losses, scope):
    x, y = normal(0, 2, 3), normal(1, 2, 3)

    def build(library, layers):
        for place, name, collected in losses:
            with library.variable_scope(place):
                getattr(layers, name)(y, x, loss_collection="losses" if collected else None)
        with library.variable_scope("w", regularizer=lambda w: library_sum(w)):
            library.get_variable("v", [2], initializer=library.ones_initializer())

    def library_sum(w):
        return 0.5 * (w[0] + w[1])

    def results(layers):
        try:
            total = layers.get_total_loss(scope=scope)
        except ValueError:
            total = np.float32(-1)
        return layers.get_losses(scope), total, layers.get_regularization_loss(scope)

    with fresh_graph() as session:
        build(tf, tf.losses)
        found = results(tf.losses)
        session.run(tf.global_variables_initializer())
        losses_found, total, regularization = found
        expected = session.run([losses_found, tf.convert_to_tensor(total), regularization])
    with jv.VariableStore(0):
        build(jv, jv.losses)
        ours = results(jv.losses)
    agree(ours[0], expected[0])
    np.testing.assert_allclose(ours[1:], expected[1:], rtol=1e-5)

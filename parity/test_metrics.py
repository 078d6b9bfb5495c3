"""`jv.metrics` counts what `tf.metrics` counts, in the same variables, over several batches."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import jaxvars as jv
from parity.arrays import agree, seeds
from parity.live import examples, fresh_graph, tf

KINDS = ["mean", "mean_tensor", "percentage_below", "accuracy", "mean_absolute_error", "mean_squared_error"]
KINDS += ["root_mean_squared_error", "mean_relative_error", "mean_cosine_distance", "true_positives"]
KINDS += ["true_negatives", "false_positives", "false_negatives", "precision", "recall", "mean_per_class_accuracy"]
KINDS += ["mean_iou", "auc"]


def arguments_for(kind, seed):
    """Batches of the metric's first arguments, and what follows them."""
    random = np.random.RandomState(seed)
    numbers = [random.rand(2, 4, 3).astype(np.float32) for _ in range(2)]
    classes = [random.randint(0, 3, [2, 6]).astype(np.int32) for _ in range(2)]
    if kind in ("mean", "mean_tensor"):
        return [batch[:1] for batch in numbers], ()
    if kind == "percentage_below":
        return [batch[:1] for batch in numbers], (0.5,)
    if kind == "mean_relative_error":
        return numbers, (np.float32(random.choice([0, 1, 2], [4, 3])),)
    if kind == "mean_cosine_distance":
        return numbers, (1,)
    if kind in ("mean_per_class_accuracy", "mean_iou"):
        return classes, (4,)
    if kind == "accuracy":
        return classes, ()
    if kind == "auc":
        return [np.stack([batch[0] > 0.5, batch[1]]).astype(np.float32) for batch in numbers], ()
    if kind in ("mean_absolute_error", "mean_squared_error", "root_mean_squared_error"):
        return numbers, ()
    return [(batch > 0).astype(np.int32) for batch in classes], ()


CURVES = [{}, {"curve": "PR"}, {"summation_method": "minoring"}, {"summation_method": "majoring"}]
CURVES += [{"curve": "PR", "summation_method": "careful_interpolation"}]


@examples(45)
@given(seeds, st.sampled_from(KINDS), st.sampled_from([None, "m"]), st.booleans())
def test_metrics(seed, kind, name, weighted):
    batches, rest = arguments_for(kind, seed)
    shape = batches[0].shape[1:]
    if kind == "mean_cosine_distance":
        shape = (shape[0], 1)
    random = np.random.RandomState(seed)
    if kind != "mean_iou":  # which takes in TensorFlow nothing but one weight for each element
        shape = [shape, (1,) * len(shape), ()][seed % 3]
    weights = np.float32(random.choice([0, 1, 2.5], shape)) if weighted else None
    extra = {"num_thresholds": 7, **CURVES[seed % len(CURVES)]} if kind == "auc" else {}

    def make(metrics, batch, tensor=lambda array: array):
        factors = None if weights is None else tensor(weights)  # TensorFlow takes no arrays for some metrics
        parts = [batch[i] for i in range(batches[0].shape[0])]
        if kind in ("mean", "mean_tensor", "percentage_below"):
            result = getattr(metrics, kind)(parts[0], *rest, weights=factors, name=name)
        else:
            result = getattr(metrics, kind)(*parts, *rest, weights=factors, name=name, **extra)
        metrics.mean(parts[0], name="other")
        metrics.mean(parts[0], name="other")
        return result

    with fresh_graph() as session:
        place = tf.placeholder(batches[0].dtype, batches[0].shape)
        value, update = make(tf.metrics, place, tf.constant)
        handles = tf.local_variables()
        assert tf.get_collection(tf.GraphKeys.METRIC_VARIABLES) == handles
        session.run(tf.local_variables_initializer())
        expected = []
        for batch in batches:
            session.run(update, {place: batch})
            expected.append(session.run(value))
        names = [v.op.name for v in handles]
        # TensorFlow runs what the value needs: not the others, nor a count that this curve has no use for.
        idle = "true_negatives" if extra.get("curve") == "PR" else "nothing"
        counted = [v for v in handles if not v.op.name.startswith("other") and not v.op.name.endswith(idle)]
        after = {v.op.name: v.eval().astype(np.float32) for v in counted}

    model = jv.transform(lambda batch: make(jv.metrics, batch))
    variables = model.init(0, batches[0])
    assert list(variables._layout.creation_order) == names
    assert list(variables.collection("metric_variables")) == sorted(names)
    assert not variables.trainable
    apply = jax.jit(model.apply)
    for batch, value in zip(batches, expected, strict=True):
        (result, _), variables = apply(variables, batch)
        agree(result, np.float32(value), rtol=1e-4)
    agree({key: variables[key] for key in after}, after)
    assert not any(np.any(value) for value in jv.metrics.reset(variables).values())

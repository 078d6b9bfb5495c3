"""`tf.metrics`: figures over all batches, kept in local variables that count.

Each call counts its batch at once and returns ``(value, update_op)`` as TF1 did; both are the value with this batch.
"""

from jaxvars.metrics._running import reset
from jaxvars.metrics.counts import (
    auc,
    false_negatives,
    false_positives,
    mean_iou,
    mean_per_class_accuracy,
    precision,
    recall,
    true_negatives,
    true_positives,
)
from jaxvars.metrics.means import (
    accuracy,
    mean,
    mean_absolute_error,
    mean_cosine_distance,
    mean_relative_error,
    mean_squared_error,
    mean_tensor,
    percentage_below,
    root_mean_squared_error,
)

__all__ = [
    "accuracy",
    "auc",
    "false_negatives",
    "false_positives",
    "mean",
    "mean_absolute_error",
    "mean_cosine_distance",
    "mean_iou",
    "mean_per_class_accuracy",
    "mean_relative_error",
    "mean_squared_error",
    "mean_tensor",
    "percentage_below",
    "precision",
    "recall",
    "reset",
    "root_mean_squared_error",
    "true_negatives",
    "true_positives",
]

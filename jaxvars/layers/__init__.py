"""`tf.layers`: functions that make their own variables, under TF1's names."""

from jaxvars.layers.core import dense, dropout, flatten
from jaxvars.layers.images import average_pooling2d, conv2d, max_pooling2d
from jaxvars.layers.normalization import batch_normalization

__all__ = [
    "average_pooling2d",
    "batch_normalization",
    "conv2d",
    "dense",
    "dropout",
    "flatten",
    "max_pooling2d",
]

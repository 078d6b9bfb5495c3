"""`tf.layers`: functions that make their own variables, under TF1's names, and the classes they are made of.

A function is one call of its class: ``dense(x, 10)`` is ``Dense(10)(x)``, but that a `name` given to a function is
taken as it is (and needs `reuse` the second time), while a class makes its own unique, as in TF1.
"""

from typing import NoReturn

from jaxvars.layers.base import Layer
from jaxvars.layers.convolutions import Conv1D, Conv2D, Conv3D, conv1d, conv2d, conv3d
from jaxvars.layers.core import Dense, Dropout, Flatten, dense, dropout, flatten
from jaxvars.layers.embedding import Embedding, embed_sequence, embedding
from jaxvars.layers.layer_norm import LayerNorm, layer_norm
from jaxvars.layers.normalization import BatchNormalization, batch_normalization
from jaxvars.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
    average_pooling1d,
    average_pooling2d,
    average_pooling3d,
    max_pooling1d,
    max_pooling2d,
    max_pooling3d,
)
from jaxvars.layers.separable import SeparableConv1D, SeparableConv2D, separable_conv1d, separable_conv2d
from jaxvars.layers.transposed import Conv2DTranspose, Conv3DTranspose, conv2d_transpose, conv3d_transpose

__all__ = [
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BatchNormalization",
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNorm",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "SeparableConv1D",
    "SeparableConv2D",
    "average_pooling1d",
    "average_pooling2d",
    "average_pooling3d",
    "batch_normalization",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "dense",
    "dropout",
    "embed_sequence",
    "embedding",
    "flatten",
    "layer_norm",
    "max_pooling1d",
    "max_pooling2d",
    "max_pooling3d",
    "separable_conv1d",
    "separable_conv2d",
]


def __getattr__(name: str) -> NoReturn:
    from jaxvars._absent import absent

    raise absent(__name__, name)

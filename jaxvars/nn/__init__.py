"""The `tf.nn` operations whose names, defaults or arguments differ from JAX's.

Convolutions and pooling take TF1's strides, paddings and data formats; losses, lookups, moments and normalization take
TF1's arguments. What `jax.nn` has under the same name and with the same meaning is not repeated here: write
``jax.nn.relu``, ``relu6``, ``elu``, ``selu``, ``sigmoid``, ``softplus``, ``soft_sign``, ``softmax``, ``log_softmax``,
and ``jnp.tanh``. Every argument that is an array may be a `jv.Variable` handle.
"""

from typing import NoReturn

from jaxvars.nn import rnn_cell
from jaxvars.nn.basics import bias_add, crelu, dropout, l2_loss, leaky_relu, relu_layer, xw_plus_b, zero_fraction
from jaxvars.nn.convolutions import (
    atrous_conv2d,
    conv1d,
    conv2d,
    conv3d,
    convolution,
    depthwise_conv2d,
    depthwise_conv2d_native,
    separable_conv2d,
)
from jaxvars.nn.cross_entropies import (
    log_poisson_loss,
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits_v2,
    sparse_softmax_cross_entropy_with_logits,
    weighted_cross_entropy_with_logits,
)
from jaxvars.nn.embedding import embedding_lookup, embedding_lookup_sparse
from jaxvars.nn.normalization import (
    batch_normalization,
    fused_batch_norm,
    l2_normalize,
    local_response_normalization,
    lrn,
    moments,
    weighted_moments,
)
from jaxvars.nn.pooling import (
    avg_pool,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    pool,
)
from jaxvars.nn.ranking import in_top_k, top_k
from jaxvars.nn.rnn import (
    bidirectional_dynamic_rnn,
    dynamic_rnn,
    reverse_sequence,
    static_bidirectional_rnn,
    static_rnn,
)
from jaxvars.nn.transposed import atrous_conv2d_transpose, conv1d_transpose, conv2d_transpose, conv3d_transpose

__all__ = [
    "atrous_conv2d",
    "atrous_conv2d_transpose",
    "avg_pool",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_normalization",
    "bias_add",
    "bidirectional_dynamic_rnn",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "convolution",
    "crelu",
    "depthwise_conv2d",
    "depthwise_conv2d_native",
    "dropout",
    "dynamic_rnn",
    "embedding_lookup",
    "embedding_lookup_sparse",
    "fused_batch_norm",
    "in_top_k",
    "l2_loss",
    "l2_normalize",
    "leaky_relu",
    "local_response_normalization",
    "log_poisson_loss",
    "lrn",
    "max_pool",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "moments",
    "pool",
    "relu_layer",
    "reverse_sequence",
    "rnn_cell",
    "separable_conv2d",
    "sigmoid_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits_v2",
    "sparse_softmax_cross_entropy_with_logits",
    "static_bidirectional_rnn",
    "static_rnn",
    "top_k",
    "weighted_cross_entropy_with_logits",
    "weighted_moments",
    "xw_plus_b",
    "zero_fraction",
]


def __getattr__(name: str) -> NoReturn:
    from jaxvars._absent import absent

    raise absent(__name__, name)

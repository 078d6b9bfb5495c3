"""ResNet-50 v1 as TF-Slim built it, under the names of the published ``resnet_v1_50.ckpt``.

What it shows of TF1: slim's layer functions as user code over ``get_variable`` (``weights``, ``biases``,
``BatchNorm``), whose defaults come from ``arg_scope``; nested scopes with default names; weight decay by regularizers.
``specs`` tells all 267 names without computing anything, so a checkpoint of slim's restores by

    jv.checkpoint.restore("resnet_v1_50.ckpt", resnet50.specs(images))

Run it: ``python -m examples.resnet`` trains a small one on scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxvars as jv

# -- slim's layers -------------------------------------------------------------------------------------------------


@jv.add_arg_scope
def batch_norm(
    inputs: jax.Array,
    decay: float = 0.999,
    scale: bool = False,
    epsilon: float = 0.001,
    is_training: bool = True,
    scope: str | None = None,
) -> jax.Array:
    """Batch normalization in the scope ``BatchNorm``."""
    with jv.variable_scope(scope, "BatchNorm", [inputs]) as norm_scope:
        return jv.layers.batch_normalization(
            inputs, momentum=decay, epsilon=epsilon, scale=scale, training=is_training, name=norm_scope
        )


@jv.add_arg_scope
def conv2d(
    inputs: jax.Array,
    num_outputs: int,
    kernel_size: int,
    stride: int = 1,
    padding: str = "SAME",
    activation_fn: Callable[[jax.Array], jax.Array] | None = jax.nn.relu,
    normalizer_fn: Callable[..., jax.Array] | None = None,
    weights_initializer: Any = jv.glorot_uniform_initializer,
    weights_regularizer: Callable[[jax.Array], jax.Array] | None = None,
    biases_initializer: Any = jv.zeros_initializer,
    scope: str | None = None,
) -> jax.Array:
    """Convolve, then normalize or add biases, then activate; variables ``weights`` and ``biases``."""
    with jv.variable_scope(scope, "Conv", [inputs]):
        weights = jv.get_variable(
            "weights",
            [kernel_size, kernel_size, inputs.shape[-1], num_outputs],
            initializer=weights_initializer,
            regularizer=weights_regularizer,
        )
        x = jv.nn.conv2d(inputs, weights, strides=stride, padding=padding)
        if normalizer_fn is not None:
            x = normalizer_fn(x)
        else:
            x = jv.nn.bias_add(x, jv.get_variable("biases", [num_outputs], initializer=biases_initializer))
        return x if activation_fn is None else activation_fn(x)


@jv.add_arg_scope
def max_pool2d(inputs: jax.Array, kernel_size: int, stride: int = 2, padding: str = "VALID") -> jax.Array:
    """Maximum over windows."""
    return jv.nn.max_pool(inputs, kernel_size, stride, padding)


def conv2d_same(inputs: jax.Array, num_outputs: int, kernel_size: int, stride: int, scope: str) -> jax.Array:
    """A convolution whose padding does not depend on the image's size; "SAME" pads less before an even side."""
    if stride == 1:
        return conv2d(inputs, num_outputs, kernel_size, stride=1, padding="SAME", scope=scope)
    total = kernel_size - 1
    both = (total // 2, total - total // 2)
    padded = jnp.pad(inputs, ((0, 0), both, both, (0, 0)))
    return conv2d(padded, num_outputs, kernel_size, stride=stride, padding="VALID", scope=scope)


def subsample(inputs: jax.Array, factor: int) -> jax.Array:
    """Every `factor`-th pixel."""
    return inputs if factor == 1 else max_pool2d(inputs, 1, stride=factor)


# -- the network ---------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Several units; the last one has the stride."""

    scope: str
    base_depth: int
    num_units: int
    stride: int

    def strides(self) -> list[int]:
        """The stride of each unit."""
        return [1] * (self.num_units - 1) + [self.stride]


RESNET_50 = (
    Block("block1", 64, 3, 2),
    Block("block2", 128, 4, 2),
    Block("block3", 256, 6, 2),
    Block("block4", 512, 3, 1),
)


def bottleneck(inputs: jax.Array, depth: int, depth_bottleneck: int, stride: int) -> jax.Array:
    """A residual unit of three convolutions."""
    with jv.variable_scope(None, "bottleneck_v1", [inputs]):
        if inputs.shape[-1] == depth:
            shortcut = subsample(inputs, stride)
        else:
            shortcut = conv2d(inputs, depth, 1, stride=stride, activation_fn=None, scope="shortcut")
        residual = conv2d(inputs, depth_bottleneck, 1, scope="conv1")
        residual = conv2d_same(residual, depth_bottleneck, 3, stride, scope="conv2")
        residual = conv2d(residual, depth, 1, activation_fn=None, scope="conv3")
        return jax.nn.relu(shortcut + residual)


def stack_blocks(x: jax.Array, blocks: Sequence[Block]) -> jax.Array:
    """All units of all blocks, ``block1/unit_1`` and so on."""
    for block in blocks:
        with jv.variable_scope(block.scope, "block", [x]):
            for number, stride in enumerate(block.strides(), start=1):
                with jv.variable_scope(f"unit_{number}", values=[x]):
                    x = bottleneck(x, 4 * block.base_depth, block.base_depth, stride)
    return x


def resnet_v1(
    images: jax.Array,
    blocks: Sequence[Block],
    num_classes: int | None = None,
    is_training: bool = True,
    root_depth: int = 64,
    reuse: Any = None,
    scope: str | None = None,
) -> jax.Array:
    """Logits, ``[batch, num_classes]``, or the pooled features without `num_classes`, of ``[batch, h, w, 3]``."""
    with (
        jv.variable_scope(scope, "resnet_v1", [images], reuse=reuse),
        jv.arg_scope([batch_norm], is_training=is_training),
    ):
        x = conv2d_same(images, root_depth, 7, stride=2, scope="conv1")
        x = max_pool2d(x, 3, stride=2)
        x = stack_blocks(x, blocks)
        x = jnp.mean(x, axis=(1, 2), keepdims=True)
        if num_classes is not None:
            x = conv2d(x, num_classes, 1, activation_fn=None, normalizer_fn=None, scope="logits")
        return x.reshape(x.shape[0], -1)


def resnet_arg_scope(weight_decay: float = 0.0001, decay: float = 0.997) -> dict[Any, Any]:
    """The defaults of slim's ResNets: weight decay, He's initializer, batch norm after each convolution."""
    with (
        jv.arg_scope(
            [conv2d],
            weights_regularizer=jv.regularizers.l2_regularizer(weight_decay),
            weights_initializer=jv.he_normal_initializer(),
            activation_fn=jax.nn.relu,
            normalizer_fn=batch_norm,
        ),
        jv.arg_scope([batch_norm], decay=decay, epsilon=1e-5, scale=True),
        jv.arg_scope([max_pool2d], padding="SAME") as scope,
    ):
        return scope


def resnet_v1_50(
    images: jax.Array,
    num_classes: int | None = 1000,
    is_training: bool = False,
    reuse: Any = None,
    scope: str = "resnet_v1_50",
) -> jax.Array:
    """ResNet-50; `images` as slim's preprocessing gives them, ``[batch, 224, 224, 3]``, less the mean colour."""
    with jv.arg_scope(resnet_arg_scope()):
        return resnet_v1(images, RESNET_50, num_classes, is_training, reuse=reuse, scope=scope)


resnet50 = jv.transform(resnet_v1_50)

# -- a small one ---------------------------------------------------------------------------------------------------

SMALL = (Block("block1", 8, 2, 2), Block("block2", 16, 2, 1))


def small_loss(images: jax.Array, labels: jax.Array, is_training: bool = True) -> tuple[jax.Array, jax.Array]:
    """Mean cross entropy plus weight decay, and the logits, of digits, ``[batch, 8, 8, 1]``, four times larger."""
    large = jnp.repeat(jnp.repeat(images, 4, axis=1), 4, axis=2)
    with jv.arg_scope(resnet_arg_scope(decay=0.9)):
        logits = resnet_v1(large, SMALL, 10, is_training, root_depth=16, scope="resnet_v1_small")
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return cross_entropy + jv.losses.get_regularization_loss(), logits


small = jv.transform(small_loss)


def main(arguments: list[str] | None = None) -> None:
    """Train a small ResNet on scikit-learn's digits, and list what ResNet-50 consists of."""
    parser = argparse.ArgumentParser(prog="python -m examples.resnet", description=main.__doc__)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args(arguments)

    from sklearn.datasets import load_digits

    totals = resnet50.specs(jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)).summary(depth=2).totals
    print("ResNet-50:")
    for total in totals:
        print(f"  {total.scope:20} {total.variables:3} variables {total.count:12,} numbers")

    pixels, target = load_digits(return_X_y=True)
    images, labels = (pixels.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32), target.astype(np.int32)
    unseen = np.arange(len(labels)) % 5 == 0
    random = np.random.RandomState(0)
    chosen = np.flatnonzero(~unseen)

    variables = small.init(0, images[:1], labels[:1])
    optimizer = jv.train.MomentumOptimizer(jv.train.cosine_decay(0.1, None, options.steps), 0.9)
    variables = optimizer.init(jv.train.create_global_step(variables))
    print(f"\na small one:\n{variables.scope('resnet_v1_small/block1/unit_1').trainable.summary(depth=4)}")

    def loss(variables: jv.Variables, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jv.Variables]:
        (value, _), variables = small.apply(variables, images, labels)
        return value, variables

    @jax.jit
    def step(variables: jv.Variables, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jv.Variables]:
        return optimizer.minimize(loss, variables, images, labels, global_step="global_step")

    print("\n  step    loss")
    start = time.perf_counter()
    for number in range(1, options.steps + 1):
        batch = random.choice(chosen, 64)
        value, variables = step(variables, images[batch], labels[batch])
        if number == 1 or number % max(options.steps // 10, 1) == 0:
            print(f"{number:6d}  {value:.4f}")
    print(f"\n{options.steps} steps in {time.perf_counter() - start:.1f} s")
    _, logits = jax.jit(lambda v: small(v, images[unseen], labels[unseen], is_training=False))(variables)
    print(f"unseen digits read rightly: {np.mean(np.argmax(logits, axis=-1) == labels[unseen]):.1%}")


if __name__ == "__main__":
    main()

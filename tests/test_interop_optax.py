"""optax over `Variables`: by itself, and as `jv.train.Optimizer`, packed, saved and restored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxvars as jv
from jaxvars.interop.optax import labels, mask, scale_by_name

MODEL = ("body/bias", "body/kernel", "head/bias", "head/kernel")
KERNELS = mask(".*/kernel")
PARTS = labels({"head/": "head"}, default="body")
HEAD = mask("head/")

USUAL: dict[str, Callable[[], Any]] = {
    "adamw, decay by name": lambda: optax.adamw(1e-2, weight_decay=0.1, mask=KERNELS),
    "masked": lambda: optax.masked(optax.sgd(0.1, momentum=0.9), KERNELS),
    "partition": lambda: optax.partition({"head": optax.adam(1e-2), "body": optax.sgd(0.1)}, PARTS),
    "rates by name": lambda: optax.chain(optax.adam(1e-2), scale_by_name({"body/": 0.1, "head/bias": 0.0})),
}
OTHERS: dict[str, Callable[[], Any]] = {
    "partition, frozen": lambda: optax.partition({"head": optax.adam(1e-2), "body": optax.set_to_zero()}, PARTS),
    "frozen by name": lambda: optax.chain(optax.adam(1e-2), optax.transforms.freeze(HEAD)),
    "selective": lambda: optax.transforms.selective_transform(optax.adam(1e-2), freeze_mask=HEAD),
    "added decay": lambda: optax.chain(optax.add_decayed_weights(0.1, mask=KERNELS), optax.sgd(0.1)),
    "rates by name, masked": lambda: optax.masked(optax.chain(optax.sgd(1.0), scale_by_name({"head/": 0.1})), KERNELS),
    "lion": lambda: optax.lion(1e-2, mask=KERNELS),
    "lamb": lambda: optax.lamb(1e-2, mask=KERNELS),
    "adafactor": lambda: optax.adafactor(1e-2, weight_decay_rate=0.1, weight_decay_mask=KERNELS),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
    "averaged": lambda: optax.chain(optax.adam(1e-2), optax.ema(0.9)),
    "several steps": lambda: optax.MultiSteps(optax.adam(1e-2), 2),
    "injected rate": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "injected schedule": lambda: optax.inject_hyperparams(optax.adamw, static_args=("mask",))(
        learning_rate=optax.cosine_decay_schedule(0.1, 10), mask=KERNELS
    ),
    "if finite": lambda: optax.apply_if_finite(optax.adam(1e-2), 3),
    "schedule free": lambda: optax.contrib.schedule_free_adamw(1e-2),
    "muon": lambda: optax.contrib.muon(1e-2),
    "plateau": lambda: optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=1)),
    "l-bfgs": lambda: optax.lbfgs(1e-2, linesearch=None),
}  # fmt: skip
TABLE = [*map(pytest.param, USUAL.values()), *(pytest.param(make, marks=pytest.mark.slow) for make in OTHERS.values())]
NAMES = [*USUAL, *OTHERS]


@pytest.fixture
def variables() -> jv.Variables:
    values = {
        "body/kernel": jnp.arange(1.0, 7.0, dtype=jnp.float32).reshape(3, 2),
        "body/bias": jnp.ones(2, jnp.float32),
        "head/kernel": jnp.full((2, 2), 0.5, jnp.float32),
        "head/bias": jnp.full(2, -1.0, jnp.float32),
        "step": jnp.int32(0),
    }
    return jv.Variables(values).freeze("step")


def loss(variables: Any) -> Any:
    return sum(jnp.sum((variables[key] - 0.3) ** 2) for key in MODEL)


def close(a: jv.Variables, b: jv.Variables, keys: Any) -> None:
    for key in keys:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-5, atol=1e-6, err_msg=key)


def plain_steps(make: Callable[[], Any], params: jv.Variables, count: int) -> jv.Variables:
    transformation = optax.with_extra_args_support(make())

    @jax.jit
    def step(params: jv.Variables, state: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = transformation.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    state = transformation.init(params)
    for _ in range(count):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("make", TABLE, ids=NAMES)
def test_as_optimizer_saved_and_restored(
    make: Callable[[], Any], packed: bool, variables: jv.Variables, tmp_path: Path
) -> None:
    expected = plain_steps(make, variables.trainable, 3)
    optimizer = jv.train.Optimizer(make(), name="Any")

    @jax.jit
    def step(variables: jv.Variables) -> jv.Variables:
        value, grads = jv.value_and_grad(loss)(variables)
        return optimizer.apply_gradients(grads, variables, value=value)

    start = variables.packed() if packed else variables
    now = step(step(optimizer.init(start)))
    path = jv.train.Saver().save(now, str(tmp_path / "model.ckpt"))
    again = jv.train.Saver().restore(optimizer.init(start), path)
    assert list(again) == list(now)
    close(step(again), expected, expected)


def test_masks_and_labels_are_those_of_the_variables(variables: jv.Variables) -> None:
    assert dict(KERNELS(variables)) == dict(variables.mask(".*/kernel"))
    assert dict(PARTS(variables)) == dict(variables.labels({"head/": "head"}, default="body"))
    assert mask("nothing", allow_unmatched=True)(variables)["step"] is False
    assert labels({"x": 1}, default=0, allow_unmatched=True)(variables)["step"] == 0


def test_factors_by_name(variables: jv.Variables) -> None:
    updates, _ = scale_by_name({"body/": 0.5, "head/bias": 0}).update(variables.trainable, optax.EmptyState())
    close(updates, variables.replace({"head/bias": jnp.zeros(2)}), ["head/kernel", "head/bias"])
    np.testing.assert_array_equal(updates["body/bias"], variables["body/bias"] * 0.5)


def test_what_does_not_fit(variables: jv.Variables) -> None:
    with pytest.raises(jv.errors.NotFoundError, match="boddy/"):
        optax.adamw(1e-2, mask=mask("boddy/")).init(variables.trainable)
    with pytest.raises(jv.errors.InvalidArgumentError, match=r"no rule matches body/bias, body/kernel"):
        labels({"head/": 1})(variables.trainable)
    with pytest.raises(jv.errors.InvalidTypeError, match=r"got dict\. Give optax variables\.trainable"):
        optax.masked(optax.sgd(0.1), KERNELS).init({"head": {"kernel": jnp.ones(2)}})
    with pytest.raises(jv.errors.InvalidTypeError, match="got dict"):
        scale_by_name({"head/": 1.0}).update({"head": 1.0}, optax.EmptyState())


def test_lookahead_has_two_copies_of_the_parameters(variables: jv.Variables) -> None:
    """`optax.lookahead` changes the parameters' own type, so it goes without `jv.train.Optimizer`."""
    transformation = optax.lookahead(optax.sgd(0.1), sync_period=2, slow_step_size=0.5)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = transformation.update(jax.grad(loss)(params.fast), state, params)
        return optax.apply_updates(params, updates), state

    params = optax.LookaheadParams.init_synced(variables.trainable)
    state = transformation.init(params)
    for _ in range(2):
        params, state = step(params, state)
    close(params.slow, params.fast, variables.trainable)
    assert float(loss(params.slow)) < float(loss(variables.trainable))

"""`make_step` is the ten lines of JAX that it stands for: same bits, one trace, one state in memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from counting import compilations
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError, NotFoundError

X = np.random.default_rng(0).normal(size=[8, 4]).astype(np.float32)
Y = np.arange(8) % 3


@pytest.fixture(autouse=True)
def _rank_promotion() -> Iterator[None]:
    """The layers add biases to matrices."""
    with jax.numpy_rank_promotion("allow"):
        yield


def _net(x: Any, training: bool = False) -> Any:
    x = jv.layers.dense(x, 6, activation=jax.nn.relu, name="hidden")
    x = jv.layers.batch_normalization(x, training=training, name="norm")
    return jv.layers.dense(x, 3, name="logits")


def _cross_entropy(logits: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


MODEL = jv.transform(_net)


def _loss(variables: jv.Variables, x: Any, y: Any) -> Any:
    logits, variables = MODEL.apply(variables, x, training=True)
    return _cross_entropy(logits, y), variables


def _start() -> jv.Variables:
    return MODEL.init(0, X)


def _linear_loss(variables: jv.Variables, x: Any, y: Any) -> Any:
    """A loss that compiles fast, for what does not depend on the model."""
    return _cross_entropy(x @ variables["w"] + variables["b"], y)


def _linear(**options: Any) -> jv.train.Step:
    return jv.train.make_step(_linear_loss, jv.train.MomentumOptimizer(0.1, 0.9), **options)


def _linear_start() -> jv.Variables:
    return jv.Variables({"w": jnp.ones([4, 3]), "b": jnp.zeros([3])})


def _assert_equal(ours: jv.Variables, theirs: jv.Variables) -> None:
    assert list(ours) == list(theirs)
    for name in ours:
        np.testing.assert_array_equal(np.asarray(ours[name]), np.asarray(theirs[name]), err_msg=name)


def _steps(step: Any, variables: jv.Variables, count: int = 3) -> tuple[list[float], jv.Variables]:
    losses: list[float] = []
    for _ in range(count):
        loss, variables = step(variables, X, Y)
        losses.append(float(loss))
    return losses, variables


# The same as what one writes by hand


def _clipped(gradients: Any) -> Any:
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(jnp.abs(g))) for g in jax.tree.leaves(gradients)))
    scale = jnp.where(jnp.isfinite(norm), 0.5 * jnp.minimum(1 / norm, 1 / 0.5), jnp.nan)
    return jax.tree.map(lambda g: g * scale, gradients)


MAKERS = [
    pytest.param(lambda: jv.train.AdamOptimizer(1e-2), id="tf1"),
    pytest.param(lambda: jv.train.Optimizer(optax.adamw(1e-2)), id="optax", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_bits_as_the_step_by_hand(make: Any) -> None:
    optimizer, ema = make(), jv.train.ExponentialMovingAverage(0.9, num_updates="global_step")

    @partial(jax.jit, donate_argnums=0)
    def by_hand(variables: jv.Variables, x: Any, y: Any) -> Any:
        (loss, variables), gradients = jv.value_and_grad(_loss, has_aux=True)(variables, x, y)
        variables = optimizer.apply_gradients(_clipped(gradients), variables, global_step="global_step")
        return loss, ema.apply(variables)

    step = jv.train.make_step(_loss, make(), clip=0.5, ema=ema)
    theirs = ema.init(optimizer.init(jv.train.get_or_create_global_step(_start())))
    losses, ours = _steps(step, step.init(_start()))
    expected, theirs = _steps(by_hand, theirs)
    assert losses == expected and losses[-1] < losses[0]
    _assert_equal(ours, theirs)
    assert jv.train.global_step(ours) == 3


def test_the_same_bits_as_plain_jax_and_optax() -> None:
    params = {"w": jnp.ones([4, 3]), "b": jnp.zeros([3])}
    tx = optax.chain(optax.clip(0.01), optax.sgd(0.1, momentum=0.9))

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        return _cross_entropy(x @ params["w"] + params["b"], y)

    @jax.jit
    def plain(state: Any, x: Any, y: Any) -> Any:
        params, slots = state
        loss, gradients = jax.value_and_grad(loss_of)(params, x, y)
        updates, slots = tx.update(gradients, slots, params)
        return loss, (optax.apply_updates(params, updates), slots)

    step = jv.train.make_step(loss_of, optax.sgd(0.1, momentum=0.9), clip=optax.clip(0.01), global_step=None)
    losses, ours = _steps(step, step.init(jv.Variables(jax.tree.map(jnp.copy, params))))
    expected, (params, slots) = _steps(plain, (params, tx.init(params)))
    assert losses == expected
    for name in params:
        np.testing.assert_array_equal(ours[name], params[name])
        np.testing.assert_array_equal(ours[f"{name}/Optimizer/trace"], slots[1][0].trace[name])
    assert "global_step" not in ours


def test_one_trace_and_one_compilation() -> None:
    traces: list[int] = []

    def loss_fn(variables: jv.Variables, x: Any, y: Any) -> Any:
        traces.append(1)
        return _linear_loss(variables, x, y)

    ema = jv.train.ExponentialMovingAverage(0.9)
    step = jv.train.make_step(loss_fn, jv.train.AdamOptimizer(1e-2), ema=ema)
    _, variables = step(step.init(_linear_start()), X, Y)
    with compilations() as compiled:
        for _ in range(3):
            _, variables = step(variables, X, Y)
    assert len(traces) == 1 and not compiled


def test_schedules_follow_the_global_step() -> None:
    rate = jv.train.piecewise_constant(boundaries=[0, 1], values=[1.0, 0.5, 0.0])
    step = jv.train.make_step(lambda v: v["w"], jv.train.GradientDescentOptimizer(rate))
    variables = step.init(jv.Variables({"w": jnp.array(0.0)}))
    seen = []
    for _ in range(4):
        _, variables = step(variables)
        seen.append(float(variables["w"]))
    assert seen == [-1.0, -1.5, -1.5, -1.5]


def test_the_optimizer_is_told_the_loss() -> None:
    step = jv.train.make_step(
        lambda v: jnp.square(v["w"]) + 1.0,
        optax.chain(optax.sgd(0.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=1)),
    )
    variables = step.init(jv.Variables({"w": jnp.array(1.0)}))
    for _ in range(3):
        _, variables = step(variables)
    assert float(variables["Optimizer/best_value"]) == 2.0 and float(variables["Optimizer/scale"]) < 1.0


OPTIMIZERS = {
    "adadelta": lambda: jv.train.AdadeltaOptimizer(0.1),
    "adagrad": lambda: jv.train.AdagradOptimizer(0.1),
    "adagrad_da": lambda: jv.train.AdagradDAOptimizer(0.1, "global_step"),
    "ftrl": lambda: jv.train.FtrlOptimizer(0.1),
    "proximal": lambda: jv.train.ProximalAdagradOptimizer(0.1),
    "rms_prop": lambda: jv.train.RMSPropOptimizer(0.1),
    "optax": lambda: optax.MultiSteps(optax.adamw(0.1), every_k_schedule=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer_makes_a_step(make: Any) -> None:
    step = jv.train.make_step(_linear_loss, make())
    losses, _ = _steps(step, step.init(_linear_start()), 6)
    assert losses[-1] < losses[0]


# What a loss function may return, and draw


def test_metrics_are_returned_third() -> None:
    def loss_fn(variables: jv.Variables, x: Any, y: Any) -> Any:
        return _linear_loss(variables, x, y), variables, {"sum": jnp.sum(variables["w"])}

    step = jv.train.make_step(loss_fn, jv.train.MomentumOptimizer(0.1, 0.9))
    loss, variables, metrics = step(step.init(_linear_start()), X, Y)
    expected, without = _linear()(step.init(_linear_start()), X, Y)
    assert loss == expected and metrics["sum"] == 12
    _assert_equal(variables, without)


def _draws(variables: jv.Variables, rng: Any) -> Any:
    noise = jax.random.normal(rng, [])
    return variables["w"] * 0.0 + noise, variables


def test_each_step_draws_from_a_key_of_its_own(tmp_path: Path) -> None:
    def run(variables: jv.Variables, count: int) -> tuple[list[float], jv.Variables]:
        step = jv.train.make_step(_draws, jv.train.GradientDescentOptimizer(0.0), rng=7)
        variables, losses = step.init(variables), []
        for _ in range(count):
            loss, variables = step(variables)
            losses.append(float(loss))
        return losses, variables

    start = jv.Variables({"w": jnp.array(1.0)})
    whole, _ = run(start.replace({}), 4)
    assert len(set(whole)) == 4
    first, variables = run(jv.Variables({"w": jnp.array(1.0)}), 2)
    path = jv.train.Saver().save(variables, tmp_path / "model.ckpt")
    resumed, _ = run(jv.train.Saver().restore(variables, path), 2)
    assert first + resumed == whole
    assert whole[1] == float(jax.random.normal(jax.random.fold_in(jax.random.key(7), 1), []))


# Where it runs


def test_on_a_mesh() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    step = _linear(clip=0.5, ema=jv.train.ExponentialMovingAverage(0.9))
    variables = step.init(jv.placement.apply(_linear_start(), mesh, jv.placement.replicated()))
    x, y = jax.device_put((X, Y), jax.sharding.NamedSharding(mesh, P("data")))
    _, variables = step(variables, x, y)
    with compilations() as compiled:
        loss, variables = step(variables, x, y)
    assert not compiled
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(variables))
    expected, alone = _steps(step, step.init(_linear_start()), 2)
    np.testing.assert_allclose(float(loss), expected[-1], rtol=1e-5)
    np.testing.assert_allclose(variables["w"], alone["w"], rtol=1e-5)


@pytest.mark.parametrize("clip", [0.5, optax.clip(0.01)], ids=["norm", "optax"])
def test_packed(clip: Any) -> None:
    step = _linear(clip=clip, ema=jv.train.ExponentialMovingAverage(0.9))
    packed = step.init(_linear_start()).packed()
    assert len(jax.tree.leaves(packed)) < len(packed)
    losses, packed = _steps(step, packed)
    expected, plain = _steps(step, step.init(_linear_start()))
    assert packed._is_packed
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for name in plain:
        np.testing.assert_allclose(packed[name], plain[name], rtol=1e-5, atol=1e-6)


def test_inside_of_scan() -> None:
    step = _linear()

    def body(variables: jv.Variables, _: Any) -> Any:
        loss, variables = step(variables, X, Y)
        return variables, loss

    variables, losses = jax.lax.scan(body, step.init(_linear_start()), None, 3)
    expected, _ = _steps(step, step.init(_linear_start()))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert jv.train.global_step(variables) == 3


# Donation


@pytest.mark.parametrize("pack", [False, True])
def test_a_step_overwrites_its_variables(pack: bool) -> None:
    step = _linear()
    before = step.init(_linear_start())
    if pack:
        before = before.packed()
    _, after = step(before, X, Y)
    with pytest.raises(FailedPreconditionError, match=r'"w" is gone: it was donated|"b" is gone: it was donated'):
        before["w"]
    with pytest.raises(FailedPreconditionError, match="is gone: it was donated"):
        step(before, X, Y)
    aliased = step.jitted.lower(after, X, Y).as_text().count("tf.aliasing_output")
    assert aliased == len(jax.tree.leaves(after))  # all of the state is written in place


def test_the_error_says_how_to_keep_them() -> None:
    step = _linear()
    before = step.init(_linear_start())
    step(before, X, Y)
    with pytest.raises(FailedPreconditionError, match=r"make_step\(\.\.\., donate=False\)"):
        before["w"]


def test_without_donation() -> None:
    step = _linear(donate=False)
    before = step.init(_linear_start())
    first, _ = step(before, X, Y)
    assert step(before, X, Y)[0] == first


# Clipping


def test_clip_by_global_norm_as_tensorflow() -> None:
    gradients = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(12.0, jnp.bfloat16)}
    clipped, norm = jv.train.clip_by_global_norm(gradients, 6.5)
    assert norm == 13 == jv.train.global_norm(gradients) and clipped["b"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(clipped["a"], [1.5, -2.0])
    same, _ = jv.train.clip_by_global_norm(gradients, 16.0)
    np.testing.assert_array_equal(same["a"], gradients["a"])
    zero, norm = jv.train.clip_by_global_norm(jnp.zeros(2), 1.0)
    assert norm == 0 and not zero.any()
    for bad in (jnp.inf, jnp.nan):
        spoiled, _ = jv.train.clip_by_global_norm([jnp.array([1.0]), jnp.array(bad)], 1.0)
        assert all(jnp.isnan(leaf).all() for leaf in spoiled)


def test_a_norm_of_half_precision_does_not_overflow() -> None:
    assert jnp.isfinite(jv.train.global_norm(jnp.full([1000], 300.0, jnp.float16)))


# Errors


def test_what_is_refused() -> None:
    adam = jv.train.AdamOptimizer(1e-2)
    with pytest.raises(InvalidTypeError, match=r"loss_fn\(variables, \*batch\), not float"):
        jv.train.make_step(1.0, adam)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError, match=r"ema=jv\.train\.ExponentialMovingAverage\(0\.999\)"):
        jv.train.make_step(_loss, adam, ema=0.999)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError, match="not str"):
        jv.train.make_step(_loss, adam, clip="norm")
    with pytest.raises(InvalidArgumentError, match="positive"):
        jv.train.make_step(_loss, adam, clip=0)
    with pytest.raises(InvalidTypeError, match="optax transformation"):
        jv.train.make_step(_loss, "adam")
    with pytest.raises(InvalidArgumentError, match="Leave out global_step=None"):
        jv.train.make_step(_loss, adam, rng=0, global_step=None)
    with pytest.raises(InvalidArgumentError, match="seed"):
        jv.train.make_step(_loss, adam, rng="seed")


def test_a_loss_function_takes_the_key_that_it_is_given() -> None:
    sgd = jv.train.GradientDescentOptimizer(0.1)

    def loss(variables: jv.Variables, x: Any, weight: float = 1.0) -> Any:
        return (variables["w"] * x).sum() * weight

    with pytest.raises(InvalidTypeError, match=r"def loss\(variables, x, weight=1\.0, rng=None\): \.\.\. .*rng=rng"):
        jv.train.make_step(loss, sgd, rng=0)
    with pytest.raises(InvalidTypeError, match=r"def loss_fn\(v, rng=None\)"):
        jv.train.make_step(lambda v: v["w"], sgd, rng=0)
    for taking in (partial(_draws), jax.jit(_draws), lambda v, **kwargs: _draws(v, **kwargs)):
        step = jv.train.make_step(taking, sgd, rng=0)
        assert len(step(step.init(jv.Variables({"w": jnp.array(1.0)})))) == 2


def test_clip_with_state_belongs_to_the_optimizer() -> None:
    step = _linear(clip=optax.trace(0.9))
    with pytest.raises(InvalidArgumentError, match=r"Optimizer\(optax\.chain\(clip, "):
        step(step.init(_linear_start()), X, Y)


def test_variables_that_are_not_ready() -> None:
    step = _linear()
    with pytest.raises(FailedPreconditionError, match=r"variables = step\.init\(variables\)"):
        step(_linear_start(), X, Y)
    with pytest.raises(InvalidTypeError, match="takes a Variables first, not dict"):
        step({}, X, Y)  # pyright: ignore[reportArgumentType]
    with pytest.raises(NotFoundError, match="steps"):
        _linear(global_step="steps").init(_linear_start())


def test_a_loss_function_that_returns_something_else() -> None:
    for result in ((1.0, 2.0), (1.0, {}, {}), (1.0,)):
        step = jv.train.make_step(lambda v, result=result: result, optax.sgd(0.1))
        with pytest.raises(InvalidTypeError, match=r"It returns the loss, \(loss, variables\) or"):
            step(step.init(jv.Variables({"w": jnp.array(1.0)})))


def test_variables_on_several_devices() -> None:
    devices = jax.devices()
    variables = jv.Variables({"a": jnp.array(1.0), "b": jnp.array(2.0)})
    step = jv.train.make_step(lambda v: v["a"] * v["b"], optax.sgd(0.1), global_step=None)
    variables = step.init(variables)
    spread = variables.replace(
        {"a": jax.device_put(variables["a"], devices[1]), "b": jax.device_put(variables["b"], devices[2])}
    )
    with pytest.raises(InvalidArgumentError, match=r"variables\.to\("):
        step(spread)


def test_a_counter_of_another_name() -> None:
    step = jv.train.make_step(lambda v: v["w"], optax.sgd(0.1), global_step="train/steps")
    variables = jv.Variables({"w": jnp.array(1.0), "train/steps": jnp.array(0)})
    _, variables = step(step.init(variables))
    assert variables["train/steps"] == 1 and "global_step" not in variables


def test_the_function_of_a_model_is_no_loss_function() -> None:
    def losses(x: Any, y: Any) -> Any:
        return _cross_entropy(_net(x), y)

    model = jv.transform(losses)
    made = jv.train.make_step(losses, jv.train.GradientDescentOptimizer(0.1))
    variables = made.init(model.init(0, X, Y))
    with pytest.raises(InvalidTypeError, match=r"3 in all, and losses\(x.*y.*pass model\.apply: .*transform\(losses\)"):
        made(variables, X, Y)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'z'"):  # Python's to say
        jv.train.make_step(lambda v, x, y, z: x, jv.train.GradientDescentOptimizer(0.1))(variables, X, Y)
    with pytest.raises(TypeError, match="takes no rng"):
        jv.train.make_step(lambda v, x, y=None: x, jv.train.GradientDescentOptimizer(0.1), rng=0)(variables, X, Y)
    step = jv.train.make_step(model.apply, jv.train.GradientDescentOptimizer(0.1), donate=False)
    loss, after = step(variables, X, Y)
    assert loss == losses_of(model, variables) and after["global_step"] == 1


def losses_of(model: Any, variables: jv.Variables) -> Any:
    return jax.jit(model)(variables, X, Y)

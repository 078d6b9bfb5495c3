"""`jv.layers` and `jv.losses` against TensorFlow's names and figures; test_nn.py says how they were made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_nn import GOLDEN, ramp

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError

FLAT, IMAGE = ramp([2, 6]), ramp([2, 8, 8, 3])


def half(value):
    return 0.5 * jnp.sum(jnp.square(value))


# -- names -----------------------------------------------------------------------------------------------


def stack():
    x = jv.layers.conv2d(IMAGE, 4, 3)
    x = jv.layers.batch_normalization(x)
    x = jv.layers.max_pooling2d(x, 2, 2)
    x = jv.layers.conv2d(x, 4, (3, 1), use_bias=False)
    x = jv.layers.batch_normalization(x, trainable=False)
    x = jv.layers.dense(jv.layers.flatten(x), 5)
    jv.layers.dense(x, 2, name="logits")


def scoped():
    with jv.variable_scope("a"):
        jv.layers.dense(FLAT, 2)
        jv.layers.dense(FLAT, 2)
    with jv.variable_scope("a", reuse=True):
        jv.layers.dense(FLAT, 2)
        jv.layers.dense(FLAT, 2)
    with jv.variable_scope("b", regularizer=half):
        jv.layers.dense(FLAT, 2)
        jv.layers.dense(FLAT, 2, kernel_regularizer=half, activity_regularizer=half)
        jv.layers.batch_normalization(FLAT)


def reused():
    jv.layers.dense(FLAT, 2, name="d")
    jv.layers.dense(FLAT, 2, name="d", reuse=True)
    jv.layers.dense(FLAT, 3)
    jv.layers.dense(FLAT, 3, reuse=True)
    jv.layers.dense(FLAT, 2, trainable=False)


@pytest.mark.parametrize("build", [stack, scoped, reused])
def test_names_are_tensorflows(build):
    golden = GOLDEN["names"][build.__name__]
    variables = jv.transform(build).specs()
    assert list(variables._layout.creation_order) == golden["variables"]
    trainable = [key for key in variables._layout.creation_order if variables.variable_specs[key].trainable]
    assert trainable == golden["trainable"]


def test_regularizers_add_to_the_scopes():
    """TF makes two losses of a kernel with both regularizers; ours is one, the sum."""

    def with_losses():
        scoped()
        losses = jv.losses.get_regularization_losses()
        return losses, jv.losses.get_regularization_loss(), jv.losses.get_regularization_loss("b/dense_1")

    model = jv.transform(with_losses)
    variables = model.init(0)
    (losses, total, part), _ = model.apply(variables)
    assert len(losses) == len(GOLDEN["names"]["scoped"]["losses"]) - 1
    kernel, bias = variables["b/dense_1/kernel"], variables["b/dense_1/bias"]
    np.testing.assert_allclose(part, 2 * half(kernel) + half(bias), rtol=1e-6)
    activity = half(FLAT @ kernel)
    scope = sum(half(variables[key]) for key in variables if key.startswith("b/"))
    np.testing.assert_allclose(total, scope + half(kernel) + activity, rtol=1e-5)


# -- batch normalization ---------------------------------------------------------------------------------


def normalizer(case):
    arguments = dict(case["arguments"])
    for i, part in enumerate(("beta", "gamma", "moving_mean", "moving_variance")):
        arguments[f"{part}_initializer"] = lambda key, shape, dtype, i=i: jnp.asarray(np.abs(ramp(shape, i)) + 0.5)
    return arguments


FORMS = [(case, "jit") for case in GOLDEN["batch_norms"]]
FORMS += [(case, form) for case in GOLDEN["batch_norms"][:7:2] for form in ("eager", "traced training", "scan")]


@pytest.mark.parametrize(
    ("case", "form"),
    FORMS,
    ids=[f"{len(c['input'])}d-{c['arguments']}-{form}".replace(" ", "") for c, form in FORMS],
)
def test_batch_normalization_is_tensorflows(case, form):
    arguments = normalizer(case)
    training = arguments.pop("training")
    batches = jnp.stack([ramp(case["input"], 7 + step) for step in range(2)])

    def net(x, training):
        return jv.layers.batch_normalization(x, training=training, **arguments)

    model = jv.transform(net)
    variables = model.init(0, batches[0], training)
    assert sorted(k for k in variables if variables.variable_specs[k].trainable) == sorted(case["trainable"])
    if form == "scan":

        def twice(batches, training):
            return jax.lax.scan(lambda c, x: (c, net(x, training)), None, batches)[1]

        outputs, variables = jv.transform(twice).apply(variables, batches, training)
    else:
        apply = {
            "eager": lambda v, x: model.apply(v, x, training),
            "jit": jax.jit(lambda v, x: model.apply(v, x, training)),
            "traced training": lambda v, x: jax.jit(model.apply)(v, x, jnp.array(training)),
        }[form]
        outputs = []
        for x in batches:
            y, variables = apply(variables, x)
            outputs.append(y)
    np.testing.assert_allclose(np.stack(outputs), np.float32(case["outputs"]), rtol=2e-4, atol=2e-4)
    assert sorted(variables) == sorted(case["variables"])
    for key, value in case["variables"].items():
        np.testing.assert_allclose(variables[key], np.float32(value), rtol=1e-5, atol=1e-6, err_msg=key)


def test_batch_normalization_over_several_axes():
    model = jv.transform(lambda x: jv.layers.batch_normalization(x, axis=[1, -1], training=True))
    x = ramp([4, 3, 2, 5])
    variables = model.init(0, x)
    assert variables["batch_normalization/gamma"].shape == (1, 3, 1, 5)
    y, after = model.apply(variables, x)
    np.testing.assert_allclose(y.mean((0, 2)), np.zeros((3, 5)), atol=1e-5)
    expected = 0.01 * x.mean((0, 2), keepdims=True)
    np.testing.assert_allclose(after["batch_normalization/moving_mean"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [[4, 3, 3, 5], [8, 5]])
def test_batch_normalization_of_low_precision(shape):
    model = jv.transform(lambda x: jv.layers.batch_normalization(x, training=True))
    x = jnp.asarray(ramp(shape), jnp.bfloat16)
    variables = model.init(0, x)
    assert {leaf.dtype for leaf in variables.values()} == {np.dtype(np.float32)}
    y, after = model.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    assert after["batch_normalization/moving_mean"].dtype == jnp.float32


def test_batch_normalization_gradients_and_state_together():
    def net(x):
        x = jv.layers.batch_normalization(x, training=True, momentum=0.5)
        return jnp.sum(jnp.tanh(x) ** 2)

    model = jv.transform(net)
    x = ramp([6, 3])
    variables = model.init(0, x)
    (_, after), gradients = jv.value_and_grad(model.apply, has_aux=True)(variables, x)
    assert sorted(gradients) == ["batch_normalization/beta", "batch_normalization/gamma"]
    np.testing.assert_allclose(after["batch_normalization/moving_mean"], 0.5 * x.mean(0), rtol=1e-5, atol=1e-6)
    for key in gradients:
        ahead, behind = (variables._set(key, variables[key] + e) for e in (1e-2, -1e-2))
        slope = (model.apply(ahead, x)[0] - model.apply(behind, x)[0]) / 2e-2
        np.testing.assert_allclose(jnp.sum(gradients[key]), slope, rtol=1e-2, atol=1e-3)


def test_batch_normalization_shared_by_two_calls_remembers_both():
    def net(x):
        jv.layers.batch_normalization(x, training=True, name="bn", momentum=0.5)
        jv.layers.batch_normalization(3 * x, training=True, name="bn", momentum=0.5, reuse=True)

    model = jv.transform(net)
    x = jnp.ones([4, 2])
    _, after = model.apply(model.init(0, x), x)
    np.testing.assert_allclose(after["bn/moving_mean"], [1.75, 1.75])


# -- the other layers ------------------------------------------------------------------------------------


def test_dense():
    def net(x):
        return jv.layers.dense(x, 4, activation=jax.nn.relu, bias_initializer=jv.ones_initializer())

    model = jv.transform(net)
    x = ramp([2, 3, 5])
    variables = model.init(0, x)
    kernel = variables["dense/kernel"]
    assert kernel.shape == (5, 4)
    limit = np.sqrt(6 / 9)
    assert np.all(np.abs(kernel) <= limit)
    np.testing.assert_array_equal(variables["dense/bias"], np.ones(4))
    expected = np.maximum(x @ np.asarray(kernel) + 1, 0)
    np.testing.assert_allclose(model(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_conv2d_both_formats_have_the_same_variables():
    def net(x, data_format):
        return jv.layers.conv2d(
            x,
            4,
            3,
            strides=2,
            padding="SAME",
            data_format=data_format,
            bias_initializer=jv.ones_initializer(),
        )

    model = jv.transform(net)
    variables = model.init(0, IMAGE, "channels_last")
    last = model(variables, IMAGE, "channels_last")
    first = model(variables, np.moveaxis(IMAGE, 3, 1), "channels_first")
    assert last.shape == (2, 4, 4, 4)
    np.testing.assert_allclose(first, np.moveaxis(last, 3, 1), rtol=1e-5, atol=1e-5)
    expected = jv.nn.conv2d(IMAGE, variables["conv2d/kernel"], 2) + 1
    np.testing.assert_allclose(last, expected, rtol=1e-6)


def test_flatten_and_pooling():
    assert jv.layers.flatten(IMAGE).shape == (2, 192)
    assert jv.layers.flatten(np.ones(3)).shape == (3, 1)
    assert jv.layers.flatten(np.ones([0, 3, 2])).shape == (0, 6)
    first = jv.layers.flatten(np.moveaxis(IMAGE, 3, 1), data_format="channels_first")
    np.testing.assert_array_equal(first, jv.layers.flatten(IMAGE))
    pooled = jv.layers.average_pooling2d(IMAGE, 2, 2)
    np.testing.assert_allclose(pooled, IMAGE.reshape(2, 4, 2, 4, 2, 3).mean((2, 4)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        jv.layers.max_pooling2d(IMAGE, (2, 2), (2, 2), "same"), IMAGE.reshape(2, 4, 2, 4, 2, 3).max((2, 4))
    )


def dropped(x, rng=0, **kwargs):
    out, _ = jv.transform(lambda x: jv.layers.dropout(x, **kwargs)).apply(jv.Variables({}), x, rng=rng)
    return np.asarray(out)


def test_dropout():
    x = jnp.ones([200, 50])
    y = dropped(x, rate=0.2, training=True)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1.25)}
    assert 0.17 < np.mean(y == 0) < 0.23
    np.testing.assert_array_equal(dropped(x, rate=0.2, training=True), y)
    assert np.any(dropped(x, rng=1, rate=0.2, training=True) != y)
    assert np.any(dropped(x, rate=0.2, training=True, seed=7) != y)
    np.testing.assert_array_equal(dropped(x, rate=0.2), x)
    np.testing.assert_array_equal(dropped(x, rate=0.2, training=jnp.array(True)), y)
    np.testing.assert_array_equal(dropped(x, rate=0.2, training=jnp.array(False)), x)
    np.testing.assert_array_equal(dropped(x, rate=jnp.array(0.2), training=True), y)
    rows = dropped(x, rate=0.5, training=True, noise_shape=[None, 1])
    assert all(len(set(row.tolist())) == 1 for row in rows)


def test_dropout_without_training_needs_no_random_key():
    jv.transform(lambda x: jv.layers.dropout(x)).apply(jv.Variables({}), jnp.ones(3))


def test_constraints_and_regularizers_reach_the_variables():
    def clip(value):
        return jnp.clip(value, -1, 1)

    def net(x):
        return jv.layers.dense(x, 2, kernel_constraint=clip, bias_regularizer=half)

    model = jv.transform(net)
    variables = model.init(0, FLAT)
    assert variables.variable_specs["dense/kernel"].constraint is clip
    variables = variables.replace({"dense/bias": [1.0, 2.0]})
    np.testing.assert_allclose(jv.losses.regularization_loss(model, variables, FLAT), 2.5)
    gradients = jv.grad(lambda v: jv.losses.regularization_loss(model, v, FLAT))(variables)
    np.testing.assert_allclose(gradients["dense/bias"], [1.0, 2.0])
    np.testing.assert_allclose(gradients["dense/kernel"], np.zeros((6, 2)))


def test_no_regularizers_no_loss():
    model = jv.transform(lambda x: jv.layers.dense(x, 2))
    loss = jv.losses.regularization_loss(model, model.init(0, FLAT), FLAT)
    assert (float(loss), loss.dtype) == (0.0, np.float32)
    with pytest.raises(InvalidTypeError, match=r"from jv\.transform first"):
        jv.losses.regularization_loss(lambda x: x, model.init(0, FLAT), FLAT)


def test_a_small_network_learns():
    def net(x, training):
        x = jv.layers.conv2d(x, 8, 3, activation=jax.nn.relu)
        x = jv.layers.batch_normalization(x, training=training)
        x = jv.layers.max_pooling2d(x, 2, 2)
        x = jv.layers.dropout(jv.layers.flatten(x), 0.1, training=training)
        return jv.layers.dense(x, 2, name="logits")

    model = jv.transform(net)
    x = jnp.asarray(np.random.RandomState(0).randn(32, 8, 8, 3), jnp.float32)
    target = jax.nn.one_hot((x.mean((1, 2, 3)) > 0).astype(jnp.int32), 2)

    def loss(variables, rng):
        logits, variables = model.apply(variables, x, True, rng=rng)
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)), variables

    optimizer = jv.train.AdamOptimizer(0.01)

    @jax.jit
    def step(variables, rng):
        (value, variables), grads = jv.value_and_grad(loss, has_aux=True)(variables, rng)
        return value, optimizer.apply_gradients(grads, variables)

    variables = optimizer.init(model.init(0, x, True))
    losses = []
    for number in range(30):
        value, variables = step(variables, number)
        losses.append(float(value))
    assert losses[-1] < 0.4 * losses[0]
    assert np.all(np.asarray(variables["batch_normalization/moving_variance"]) != 1.0)
    assert model(variables, x, False).shape == (32, 2)


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "error", "text"),
    [
        (
            lambda: jv.layers.dense(np.ones(3, np.float32), 2),
            InvalidArgumentError,
            "expected min_ndim=2, found ndim=1",
        ),
        (
            lambda: jv.layers.dense(np.ones([2, 3], np.int32), 2),
            InvalidTypeError,
            "takes floating numbers, got int32",
        ),
        (lambda: jv.layers.dense(FLAT, 0), InvalidArgumentError, "units is a positive int"),
        (lambda: jv.layers.dense(FLAT, 2, activation="relu"), InvalidTypeError, r"such as jax\.nn\.relu"),
        (lambda: jv.layers.conv2d(IMAGE[0], 2, 3), InvalidArgumentError, "expected ndim=4, found ndim=3"),
        (
            lambda: jv.layers.conv2d(IMAGE, 2, [3]),
            InvalidArgumentError,
            "kernel_size is a positive int or a pair",
        ),
        (lambda: jv.layers.conv2d(IMAGE, 2, 3, padding="full"), InvalidArgumentError, '"valid" or "same"'),
        (lambda: jv.layers.conv2d(IMAGE, 2, 3, data_format="NHWC"), InvalidArgumentError, "channels_last"),
        (
            lambda: jv.layers.batch_normalization(FLAT, axis=2),
            InvalidArgumentError,
            "axis is one or several of 0 to 1",
        ),
        (lambda: jv.layers.dropout(FLAT, 1.0, training=True), InvalidArgumentError, r"range \[0, 1\), got 1"),
        (
            lambda: jv.layers.dropout(FLAT, training=True, noise_shape=[3, 1]),
            InvalidArgumentError,
            "must broadcast",
        ),
        (lambda: jv.layers.flatten(1.0), InvalidArgumentError, "needs a batch axis"),
    ],
)
def test_errors(layer, error, text):
    with pytest.raises(error, match=text), jv.VariableStore(0):
        layer()


def test_a_name_is_taken_as_it_is():
    def twice():
        jv.layers.dense(FLAT, 2, name="d")
        jv.layers.dense(FLAT, 2, name="d")

    with pytest.raises(InvalidArgumentError, match="d/kernel already exists"):
        jv.transform(twice).init(0)
    with pytest.raises(InvalidArgumentError, match="d/kernel does not exist"):
        jv.transform(lambda: jv.layers.dense(FLAT, 2, name="d", reuse=True)).init(0)


def test_outside_of_a_frame():
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        jv.layers.dense(FLAT, 2)
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        jv.losses.get_regularization_loss()


# -- custom getters -----------------------------------------------------------------------------------------


def test_a_getter_may_return_something_else_than_the_handle():
    """Mixed precision as TF1 code did it: float32 variables, used as what the inputs are; also in a loop, and after."""

    def float32_storage(getter, name, shape=None, dtype=None, *args, **kwargs):
        return getter(name, shape, "float32", *args, **kwargs).astype(dtype)

    def net(x):
        layer = jv.layers.Dense(6)
        with jv.variable_scope("half", custom_getter=float32_storage):
            y, _ = jax.lax.scan(lambda carry, _: (layer(carry), None), x, None, length=2)
            return jv.layers.layer_norm(layer(y))

    model = jv.transform(net)
    x = jnp.asarray(FLAT, jnp.bfloat16)
    variables = jv.Variables(
        {"half/dense/kernel": jnp.eye(6), "half/dense/bias": jnp.zeros(6)}
        | {"half/LayerNorm/gamma": jnp.ones(6), "half/LayerNorm/beta": jnp.ones(6)}
    ).astype("float32")
    specs = model.specs(x)
    assert list(specs) == list(variables)
    assert {str(hole.dtype) for hole in specs.values()} == {"float32"}
    out = model(variables, x)
    assert out.dtype == jnp.bfloat16
    expected = (FLAT - FLAT.mean(1, keepdims=True)) / FLAT.std(1, keepdims=True) + 1.0
    np.testing.assert_allclose(out.astype(np.float32), expected, atol=0.03)


def test_a_variable_is_defined_where_it_is_asked_for_not_in_its_getter():
    def outer(getter, *args, **kwargs):
        return getter(*args, **kwargs)

    def inner(getter, *args, **kwargs):
        return getter(*args, **kwargs)

    def net(x):
        with jv.variable_scope("a", custom_getter=outer), jv.variable_scope("b", custom_getter=inner):
            return jv.layers.dense(x, 2)

    model = jv.transform(net)
    line = net.__code__.co_firstlineno + 2
    assert {spec.defined_at for spec in model.specs(FLAT).variable_specs.values()} == {f"{__file__}:{line}"}


# -- errors name what the user wrote ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scope", "line"),
    [
        ("d", None, "    jv.layers.dense(..., name='d', reuse=jv.AUTO_REUSE)    # to share it"),
        (None, "s", "    with jv.variable_scope('s', reuse=jv.AUTO_REUSE): ...    # to share it"),
        ("d", "s", "    with jv.variable_scope('s', reuse=jv.AUTO_REUSE): ...    # to share it"),
    ],
)
def test_a_layer_that_exists_already(name, scope, line):
    def net(x):
        for _ in range(2):
            with jv.variable_scope(scope or jv.get_variable_scope()):
                jv.layers.dense(x, 2, name=name)

    with pytest.raises(InvalidArgumentError) as caught:
        jv.transform(net).specs(FLAT)
    assert line in str(caught.value).splitlines()

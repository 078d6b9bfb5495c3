"""The table: (create, read, write, key) x JAX transforms x how `apply` is run, values and gradients included.

Every model here computes ``x * w`` for a variable ``w`` inside one transform. `CARRIERS` are the transforms, each a
function ``(f, x) -> y`` that applies `f` to `x` through that transform, `times` times over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars._keys import name_hash
from jaxvars.errors import TransformError

X = jnp.array([1.0, 2.0, 3.0])


class Carrier(NamedTuple):
    """A way to run ``f`` inside a transform; `times` is how often f runs, `writes` whether it may write."""

    run: Callable[[Callable[[Any], Any], Any], Any]
    times: int = 1
    writes: bool = True
    differentiable: bool = True
    mapped_outside: bool = True


def _scan(f: Any, x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (f(c), None), x, length=3)[0]


def _scan_widening(f: Any, x: Any) -> Any:
    # The carry begins as an int and becomes a float: JAX traces the body twice.
    return x * jax.lax.scan(lambda c, _: (c + jnp.sum(f(x)), None), 0, length=3)[0] / jnp.sum(x)


def _fori(f: Any, x: Any) -> Any:
    return jax.lax.fori_loop(0, 3, lambda i, c: f(c), x)


def _while(f: Any, x: Any) -> Any:
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, f(s[1])), (0, x))[1]


def _shard_map(f: Any, x: Any) -> Any:
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(f, mesh=mesh, in_specs=P("i"), out_specs=P("i"))(x)


def _custom_vjp(f: Any, x: Any) -> Any:
    return x * jax.lax.stop_gradient(f(jnp.ones_like(x)))


def _grad(f: Any, x: Any) -> Any:
    return jax.grad(lambda y: jnp.sum(f(y)))(x) * x


def _module_jit(f: Any, x: Any) -> Any:
    _called_by_module[0] = f
    return _module_level_jit(x)


_called_by_module: list[Any] = [None]


@jax.jit
def _module_level_jit(x: Any) -> Any:
    return _called_by_module[0](x)


@jax.checkpoint
def _module_level_checkpoint(x: Any) -> Any:
    return _called_by_module[0](x)


def _module_checkpoint(f: Any, x: Any) -> Any:
    _called_by_module[0] = f
    return _module_level_checkpoint(x)


CARRIERS: dict[str, Carrier] = {
    "plain": Carrier(lambda f, x: f(x)),
    "jit": Carrier(lambda f, x: jax.jit(f)(x)),
    "module jit": Carrier(_module_jit),
    "checkpoint": Carrier(lambda f, x: jax.checkpoint(f)(x)),
    "module checkpoint": Carrier(_module_checkpoint),
    "scan": Carrier(_scan, times=3),
    "scan traced twice": Carrier(_scan_widening, times=3),
    "fori_loop": Carrier(_fori, times=3),
    "while_loop": Carrier(_while, times=3, differentiable=False),
    "cond": Carrier(lambda f, x: jax.lax.cond(x.sum() > 0, f, lambda y: y, x), mapped_outside=False),
    "switch": Carrier(lambda f, x: jax.lax.switch(jnp.int32(x.sum() > 0), [lambda y: y, f], x), mapped_outside=False),
    "lax.map": Carrier(lambda f, x: jax.lax.map(f, x[None])[0]),
    "lax.map batched": Carrier(lambda f, x: jax.lax.map(f, jnp.stack([x] * 3), batch_size=2)[0], writes=False),
    "associative_scan": Carrier(
        lambda f, x: jax.lax.associative_scan(lambda a, b: f(b), jnp.stack([x, x]))[1], writes=False
    ),
    "vmap": Carrier(lambda f, x: jax.vmap(f)(x[None])[0], writes=False),
    "vmap(jit)": Carrier(lambda f, x: jax.vmap(jax.jit(f))(x[None])[0], writes=False),
    "shard_map": Carrier(_shard_map, writes=False),
    "grad": Carrier(_grad),
    "jvp": Carrier(lambda f, x: jax.jvp(f, (x,), (x,))[1]),
    "linearize": Carrier(lambda f, x: jax.linearize(f, x)[1](x)),
    "vjp": Carrier(lambda f, x: jax.vjp(f, x)[1](x)[0]),
    "hessian": Carrier(lambda f, x: jax.hessian(lambda y: 0.5 * jnp.sum(y * f(y)))(x) @ x, writes=False),
    "scan(checkpoint)": Carrier(lambda f, x: _scan(jax.checkpoint(f), x), times=3),
    "checkpoint(scan)": Carrier(lambda f, x: jax.checkpoint(lambda y: _scan(f, y))(x), times=3),
    "jit(scan(cond))": Carrier(
        lambda f, x: jax.jit(lambda y: _scan(lambda c: jax.lax.cond(c.sum() > 0, f, lambda z: z, c), y))(x),
        times=3,
        differentiable=False,
        mapped_outside=False,
    ),
    "cond(scan)": Carrier(
        lambda f, x: jax.lax.cond(x.sum() > 0, lambda y: _scan(f, y), lambda y: y, x),
        times=3,
        mapped_outside=False,
    ),
    "scan(scan)": Carrier(lambda f, x: _scan(lambda c: _scan(f, c), x), times=9),
    "jit(jit)": Carrier(lambda f, x: jax.jit(jax.jit(f))(x)),
}
WRITING = {name: carrier for name, carrier in CARRIERS.items() if carrier.writes}
W = 1.5


def _layer(x: Any) -> Any:
    return x * jv.get_variable("w", [], initializer=jv.constant_initializer(W))


def _carried() -> Any:
    """`_layer`, a function of the module, as users have them; under JAX's leak check one that is not kept."""
    return (lambda x: _layer(x)) if jax.config.jax_check_tracer_leaks else _layer


def _reader(run: Any) -> Any:
    """Create and read inside the transform only."""

    def model(x: Any) -> Any:
        with jv.variable_scope("outer"):
            return run(_carried(), x)

    return model


def _writer(run: Any) -> Any:
    """Read a parameter, count the calls and keep a running value, all inside the transform."""

    def model(x: Any) -> Any:
        def layer(y: Any) -> Any:
            count = jv.get_variable("count", [], "int32", initializer=jv.zeros_initializer(), trainable=False)
            mean = jv.get_variable("mean", [], initializer=jv.zeros_initializer(), trainable=False)
            count.assign_add(1)
            mean.assign(0.5 * mean + 1.0)  # read, then written: what the first trace cannot know
            return _layer(y)

        return run(layer, x)

    return model


def _expected(carrier: Carrier, name: str) -> float:
    return float(W**carrier.times) if name != "scan traced twice" else 3 * W


def _apply(mode: str, model: jv.Model, variables: jv.Variables, x: Any) -> tuple[Any, jv.Variables]:
    if mode == "eager":
        return model.apply(variables, x)
    if mode == "eager again":
        model.apply(variables, x)
        return model.apply(variables, x)
    if mode == "jit":
        return jax.jit(model.apply)(variables, x)
    if mode == "jit after eager":
        model.apply(variables, x)
        return jax.jit(model.apply)(variables, x)
    if mode == "donated":
        own = jax.tree.map(jnp.copy, variables)
        return jax.jit(model.apply, donate_argnums=0)(own, x)
    assert mode == "vmap"
    out, after = jax.vmap(model.apply, in_axes=(None, 0))(variables, x[None])
    return jax.tree.map(lambda leaf: leaf[0], (out, after))


MODES = ["eager", "eager again", "jit", "jit after eager", "donated", "vmap"]
QUICK_MODES = {"eager again", "jit"}
# Each resembles another one; what these show beyond `QUICK_MODES` the slower suites show.
ALIKE = {
    "module checkpoint", "fori_loop", "switch", "lax.map batched", "associative_scan", "vmap(jit)", "jvp", "linearize",
    "vjp", "hessian", "scan(checkpoint)", "checkpoint(scan)", "cond(scan)", "scan(scan)", "jit(jit)",
}  # fmt: skip


def _cases(names: Iterable[str]) -> list[Any]:
    """All pairs of a carrier and a mode."""
    return [
        pytest.param(name, mode, marks=pytest.mark.slow if name in ALIKE and mode not in QUICK_MODES else ())
        for name in names
        for mode in MODES
    ]


def _hessian_slow() -> list[Any]:
    """All carriers; the hessian, which compiles for seconds, in the slower suites."""
    return [pytest.param(name, marks=pytest.mark.slow if name == "hessian" else ()) for name in CARRIERS]


@pytest.mark.parametrize(("name", "mode"), _cases(CARRIERS))
def test_create_and_read(name: str, mode: str) -> None:
    carrier = CARRIERS[name]
    model = jv.transform(_reader(carrier.run))
    variables = model.init(0, X)
    assert list(variables) == ["outer/w"]
    out, after = _apply(mode, model, variables, X)
    np.testing.assert_allclose(out, _expected(carrier, name) * X, rtol=1e-6)
    np.testing.assert_array_equal(after["outer/w"], W)


@pytest.mark.parametrize(("name", "mode"), _cases(WRITING))
def test_write(name: str, mode: str) -> None:
    carrier = CARRIERS[name]
    if mode == "vmap" and not carrier.mapped_outside:
        return  # what JAX refuses: test_refusals
    for learn_first in (True, False):
        model = jv.transform(_writer(carrier.run))
        variables = model.init(0, X)
        if not learn_first:
            model = jv.transform(_writer(carrier.run))  # has not seen specs: learns of the write while it runs
        out, after = _apply(mode, model, variables, X)
        np.testing.assert_allclose(out, _expected(carrier, name) * X, rtol=1e-6)
        mean = 0.0
        for _ in range(carrier.times):
            mean = 0.5 * mean + 1.0
        assert after["count"] == carrier.times
        np.testing.assert_allclose(after["mean"], mean, rtol=1e-6)
        assert variables["count"] == 0


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", [n for n, c in WRITING.items() if c.differentiable])
def test_gradient_beside_writes(name: str, jitted: bool) -> None:
    carrier = CARRIERS[name]
    model = jv.transform(_writer(carrier.run))
    variables = model.init(0, X)

    def loss(w: Any, rest: jv.Variables) -> tuple[Any, jv.Variables]:
        out, after = model.apply(rest.replace({"w": w}), X)
        return jnp.sum(out), after

    step = jax.value_and_grad(loss, has_aux=True)
    (value, after), grad = (jax.jit(step) if jitted else step)(variables["w"], variables)
    assert after["count"] == carrier.times
    power = 1 if name == "scan traced twice" else carrier.times
    expected = 3 * 6.0 if name == "scan traced twice" else power * W ** (power - 1) * 6.0
    np.testing.assert_allclose(grad, expected, rtol=1e-5)
    np.testing.assert_allclose(value, _expected(carrier, name) * 6.0, rtol=1e-5)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", [n for n, c in CARRIERS.items() if c.differentiable])
def test_gradient_of_reads(name: str, jitted: bool) -> None:
    carrier = CARRIERS[name]
    model = jv.transform(_reader(carrier.run))
    variables = model.init(0, X)

    def loss(variables: jv.Variables) -> Any:
        return jnp.sum(model.apply(variables, X)[0])

    grad = (jax.jit(jax.grad(loss)) if jitted else jax.grad(loss))(variables)["outer/w"]
    expected = 3 * 6.0 if name == "scan traced twice" else carrier.times * W ** (carrier.times - 1) * 6.0
    np.testing.assert_allclose(grad, expected, rtol=1e-5)


@pytest.mark.parametrize("name", _hessian_slow())
def test_stale_values_do_not_survive(name: str) -> None:
    """What closed-over variables give in other libraries: the value of an earlier call."""
    carrier = CARRIERS[name]
    model = jv.transform(_reader(carrier.run))
    variables = model.init(0, X)
    for apply in (model.apply, jax.jit(model.apply), model.apply):
        for w in (2.0, 3.0):
            out, _ = apply(variables.replace({"outer/w": w}), X)
            factor = 3 * w if name == "scan traced twice" else w**carrier.times
            np.testing.assert_allclose(out, factor * X, rtol=1e-5)


@pytest.mark.parametrize("name", _hessian_slow())
def test_two_scopes_over_one_function(name: str) -> None:
    carrier = CARRIERS[name]

    def model_fn(x: Any) -> Any:
        layer = _carried()
        for scope in ("b0", "b1"):
            with jv.variable_scope(scope):
                x = carrier.run(layer, x)
        return x

    model = jv.transform(model_fn)
    variables = model.init(0, X)
    assert list(variables) == ["b0/w", "b1/w"]
    variables = variables.replace({"b0/w": 2.0})
    factor = {"scan traced twice": lambda w: 3 * w}.get(name, lambda w: w**carrier.times)
    for apply in (model.apply, jax.jit(model.apply)):
        out, _ = apply(variables, X)
        np.testing.assert_allclose(out, factor(2.0) * factor(W) * X, rtol=1e-5)


@pytest.mark.parametrize("name", CARRIERS)
def test_a_second_call_is_refused_as_in_tf1(name: str) -> None:
    carrier = CARRIERS[name]
    model = jv.transform(lambda x: carrier.run(_layer, carrier.run(_layer, x)))
    with pytest.raises(ValueError, match="Variable w already exists"):
        model.init(0, X)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", [n for n, c in CARRIERS.items() if c.writes])
def test_random_keys(name: str, jitted: bool) -> None:
    """A key per step of a loop, the same eagerly and jitted."""
    carrier = CARRIERS[name]

    def total(x: Any) -> Any:
        seen = jv.get_variable("seen", [3], initializer=jv.zeros_initializer(), trainable=False)

        def layer(y: Any) -> Any:
            seen.assign_add(jax.random.uniform(jv.next_rng_key(), [3]))
            return y

        return carrier.run(layer, x)

    model = jv.transform(total)
    variables = model.init(0, X)
    _, after = (jax.jit(model.apply) if jitted else model.apply)(variables, X, rng=7)
    base = jax.random.fold_in(jax.random.key(7), name_hash("next_rng_key:"))
    keys = [jax.random.fold_in(base, i) for i in range(carrier.times)]
    np.testing.assert_allclose(after["seen"], sum(jax.random.uniform(k, [3]) for k in keys), rtol=1e-6)


class _Scale(jv.nn.rnn_cell.RNNCell):
    """A cell whose output is its inputs, times a weight."""

    state_size = output_size = 3

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        return inputs * jv.get_variable("w", [], initializer=jv.constant_initializer(W)), state


def _dropout(x: Any) -> Any:
    """Two sequences of four ones through dropout, step by step and with one mask; adds up all, keeps what it saw."""
    seen = jv.get_variable("seen", [3, 2, 2, 4, 3], initializer=jv.zeros_initializer(), trainable=False)
    count = jv.get_variable("count", [], "int32", initializer=jv.zeros_initializer(), trainable=False)
    outputs: list[Any] = []
    for variational in (False, True):
        cell = jv.nn.rnn_cell.DropoutWrapper(
            _Scale(name="scale"), output_keep_prob=0.5, variational_recurrent=variational, dtype="float32"
        )
        with jv.variable_scope("net", reuse=jv.AUTO_REUSE):
            outputs.append(jv.nn.dynamic_rnn(cell, jnp.ones([2, 4, 3], "float32"), dtype="float32")[0])
    seen.assign(seen.at[count.value].set(jax.lax.stop_gradient(jnp.stack(outputs))))
    count.assign_add(1)
    return x + sum(jnp.sum(y, (0, 1)) for y in outputs)


# The transforms that give `_dropout`'s own result, not its derivative.
RECURRENT = ["plain", "jit", "checkpoint", "scan", "cond", "while_loop", "scan(checkpoint)", "cond(scan)"]


@pytest.mark.parametrize("mode", ["eager", "jit", "grad"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "scan" else pytest.mark.slow) for n in RECURRENT])
def test_dropout_in_dynamic_rnn(name: str, mode: str) -> None:
    """A mask per call, step and sequence; a variational one per call. The gradient has the masks of the values."""
    carrier = CARRIERS[name]
    model = jv.transform(lambda x: carrier.run(lambda y: _dropout(y), x))
    variables = model.init(0, X)
    assert list(variables.trainable) == ["net/rnn/scale/w"]

    def total(w: Any) -> tuple[Any, jv.Variables]:
        out, after = model.apply(variables.replace({"net/rnn/scale/w": w}), X, rng=3)
        return jnp.sum(out), after

    if mode != "grad":
        value, after = (total if mode == "eager" else jax.jit(total))(W)
    elif carrier.differentiable:
        (value, after), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(W)
        np.testing.assert_allclose(slope, (value - jnp.sum(X)) / W, rtol=1e-5)
    else:
        return
    seen = np.asarray(after["seen"])[: carrier.times]
    assert set(np.unique(seen)) == {np.float32(0), np.float32(2 * W)}
    np.testing.assert_allclose(value, np.sum(X) + np.sum(seen), rtol=1e-5)
    stepwise, variational = seen[:, 0].reshape(-1, 3), seen[:, 1]
    assert len(np.unique(seen[:, 0].reshape(carrier.times, -1), axis=0)) == carrier.times
    assert len(np.unique(stepwise, axis=0)) > 4
    assert np.all(variational == variational[:, :1, :1])


def test_refused_writes_say_so() -> None:
    for name in ("vmap", "vmap(jit)", "lax.map batched", "shard_map"):
        model = jv.transform(_writer(CARRIERS[name].run))
        with pytest.raises(TransformError, match="Variable count"):
            model.init(0, X)

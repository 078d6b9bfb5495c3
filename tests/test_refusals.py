"""What JAX refuses raises our error: it names the variable, the transform, and what to write; eagerly and jitted."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, TransformError

X = jnp.array([1.0, 2.0, 3.0], jnp.float32)
VALUES = jv.Variables({"w": np.float32(1), "count": np.float32(0)})
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def _w() -> Any:
    return jv.get_variable("w", [], initializer=jv.ones_initializer())


def _count() -> Any:
    return jv.get_variable("count", [], initializer=jv.zeros_initializer(), trainable=False)


def _scan(f: Any, x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (f(c), None), x, length=3)[0]


def _branch(f: Any, x: Any) -> Any:
    return jax.lax.cond(x.sum() > 0, f, lambda y: y, x)


def _shard(f: Any, x: Any) -> Any:
    return jax.shard_map(f, mesh=MESH, in_specs=P("i"), out_specs=P("i"))(x)


def _add_one(x: Any) -> Any:
    _count().assign_add(1.0)
    return x * _w()


def _draw(x: Any) -> Any:
    return x * _w() * jax.random.uniform(jv.next_rng_key(), dtype="float32")


def _condition_reads_what_the_body_writes(x: Any) -> Any:
    count = _count()

    def body(y: Any) -> Any:
        count.assign_add(1.0)
        return y * 1.5

    return jax.lax.while_loop(lambda y: count < 3.0, body, x)


def _ruled(primal: Any, forward: Any) -> Any:
    function = jax.custom_vjp(primal)
    function.defvjp(forward, lambda residual, cotangent: (cotangent,))
    return function


def _write_in_forward_rule(x: Any) -> Any:
    _count()

    def forward(y: Any) -> Any:
        _scan(lambda z: z, y)
        with jv.variable_scope("", reuse=True):
            _count().assign_add(1.0)
        return y, None

    return _ruled(lambda y: y, forward)(x * _w())


def _closure_in_custom_vjp(x: Any) -> Any:
    w = _w()
    return _ruled(lambda y: y * w, lambda y: (y * 2.0, None))(x)


def _read_in_shard_map_what_a_scan_writes(x: Any) -> Any:
    count = _count()
    _scan(lambda y: (count.assign_add(1.0), y)[1], x)
    return _shard(lambda y: y * count, x)


# name: (model, part of the error text)
ALWAYS = {
    "write under vmap": (lambda x: jax.vmap(_add_one)(x), "Variable count .*is written inside jax.vmap"),
    "write under vmap(jit)": (lambda x: jax.vmap(jax.jit(_add_one))(x), "Variable count .*inside jax.vmap"),
    "write under scan(vmap)": (lambda x: _scan(jax.vmap(_add_one), x), "Variable count .*inside jax.vmap"),
    "write in shard_map": (lambda x: _shard(_add_one, x), "Variable count .*inside jax.shard_map"),
    "write in pmap": (lambda x: jax.pmap(_add_one)(x[None])[0], "Variable count .*inside jax.pmap"),
    "key under vmap": (lambda x: jax.vmap(_draw)(x), r"next_rng_key.*split\(jv.next_rng_key\(\), n\)"),
    "key in shard_map": (lambda x: _shard(_draw, x), "next_rng_key.*jax.shard_map"),
    "key in a scan under vmap": (
        lambda x: jax.vmap(
            lambda y: _scan(lambda z: z * jax.random.uniform(jv.next_rng_key(axis_name="b")), y), axis_name="b"
        )(x),
        "next_rng_key.*in a loop inside jax.vmap",
    ),
    "assigned value of an ended trace": (
        lambda x: _count().assign(_escaped(x)),
        "Variable count.*computed inside a JAX transform",
    ),
    "initial value of an inner trace": (
        lambda x: jax.jit(lambda y: y * jv.get_variable("k", initializer=y))(x),
        "initial value of variable k .*computed inside a JAX transform",
    ),
    "collection of an inner trace": (
        lambda x: jax.jit(lambda y: (jv.add_to_collection("losses", y.sum()), y)[1])(x),
        "add_to_collection.*Return the value",
    ),
}
APPLIED = {
    "condition reads what the body writes": (
        _condition_reads_what_the_body_writes,
        "condition of a jax.lax.while_loop",
    ),
    "shard_map reads what a scan writes": (_read_in_shard_map_what_a_scan_writes, "Variable count .*jax.shard_map"),
}
DIFFERENTIATED = {
    "write in a forward rule": (_write_in_forward_rule, "Variable count .*custom_vjp.*write would be lost"),
    "closure in custom_vjp": (_closure_in_custom_vjp, "Variable w .*read by closure.*v.read_value"),
    "write in a branch of a loop": (lambda x: _scan(lambda y: _branch(_add_one, y), x), "count .*inside a loop"),
    "key in a branch of a loop": (lambda x: _scan(lambda y: _branch(_draw, y), x), "draw random keys before the cond"),
}
MAPPED = {
    "write in a branch": (lambda x: _branch(_add_one, x), "Variable count .*under jax.vmap"),
    "key in a branch": (lambda x: _branch(_draw, x), "draw random keys before the cond"),
}


def _escaped(x: Any) -> Any:
    seen: list[Any] = []
    jax.jit(lambda y: (seen.append(y.sum()), y)[1])(x)
    return seen[0]


def _apply(model: jv.Model) -> Any:
    return lambda variables, x: model.apply(variables, x, rng=0)


def _loss(model: jv.Model) -> Any:
    def loss(w: Any, x: Any) -> Any:
        out, after = model.apply(VALUES.replace({"w": w}), x, rng=0)
        return jnp.sum(out), after

    return loss


def _refused(text: str) -> Any:
    return pytest.raises((TransformError, FailedPreconditionError), match=f"(?s){text}")


@pytest.mark.parametrize("case", ALWAYS)
def test_refused_when_making(case: str) -> None:
    fn, text = ALWAYS[case]
    with _refused(text):
        jv.transform(fn).init(0, X)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("case", [c for c in ALWAYS if "initial value" not in c] + list(APPLIED))
def test_refused_when_applied(case: str, jitted: bool) -> None:
    fn, text = (ALWAYS | APPLIED)[case]
    apply = _apply(jv.transform(fn))
    with _refused(text):
        (jax.jit(apply) if jitted else apply)(VALUES, X)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("case", DIFFERENTIATED)
def test_refused_when_differentiated(case: str, jitted: bool) -> None:
    fn, text = DIFFERENTIATED[case]
    model = jv.transform(fn)
    out, _ = model.apply(VALUES, X, rng=0)  # fine as long as nothing is differentiated
    assert out.shape == X.shape
    grad = jax.grad(_loss(model), has_aux=True)
    with _refused(text):
        (jax.jit(grad) if jitted else grad)(1.0, X)


@pytest.mark.parametrize("case", DIFFERENTIATED)
def test_our_grad_explains_what_jax_says_outside(case: str) -> None:
    """Where the model is jitted inside, JAX refuses after the frame has ended; `jv.grad` still explains."""
    fn, text = DIFFERENTIATED[case]
    model = jv.transform(fn)
    apply = jax.jit(_apply(model))

    def loss(variables: jv.Variables, x: Any) -> Any:
        return jnp.sum(apply(variables, x)[0])

    short = "frame" if "rule" in case else text.split(" .*")[-1]
    with _refused(f"{short}|in a jax.lax.cond"):
        jv.grad(loss, wrt="w")(VALUES, X)


@pytest.mark.parametrize("case", MAPPED)
def test_refused_when_mapped(case: str) -> None:
    fn, text = MAPPED[case]
    model = jv.transform(fn)
    model.apply(VALUES, X, rng=0)
    with _refused(text):
        jax.vmap(_apply(model), in_axes=(None, 0))(VALUES, jnp.stack([X, -X]))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit inside"])
def test_a_variable_written_inside_has_no_gradient(wrap: Any) -> None:
    def fn(x: Any) -> Any:
        count = jv.get_variable("count", [], initializer=jv.zeros_initializer())
        return _scan(lambda y: (count.assign_add(1.0), y * count)[1], x)

    apply = wrap(jv.transform(fn).apply)
    for transform in (jax.grad, jax.jacfwd, lambda f: jax.jit(jax.grad(f))):
        with _refused("Variable count .*differentiated.*trainable=False"):
            transform(lambda v: jnp.sum(apply(VALUES.replace({"count": v}), X)[0]))(0.0)


def test_refusals_leave_nothing_behind() -> None:
    """After a refusal the same model, scopes and values work on."""
    fail = True

    def fn(x: Any) -> Any:
        with jv.variable_scope("a"):
            return jax.vmap(_add_one)(x) if fail else _add_one(x)

    values = jv.Variables({"a/w": np.float32(2), "a/count": np.float32(0)})
    model = jv.transform(fn)
    for apply in (model.apply, jax.jit(model.apply)):
        fail = True
        with _refused("count"):
            apply(values, X)
        fail = False
        out, after = apply(values, X)
        np.testing.assert_array_equal(out, 2 * X)
        assert after["a/count"] == 1.0 and values["a/count"] == 0.0
    with pytest.raises(FailedPreconditionError, match="outside of a frame"):
        jv.get_variable("w", [1])


def test_what_is_near_the_refusals_works() -> None:
    def keys_per_example(x: Any) -> Any:
        one = jax.vmap(lambda y: y * jax.random.uniform(jv.next_rng_key(axis_name="b")), axis_name="b")
        two = jax.vmap(lambda y, k: y * jax.random.uniform(k))
        return one(x), _scan(one, x), two(x, jax.random.split(jv.next_rng_key(), 3))

    model = jv.transform(keys_per_example)
    eager, _ = model.apply(jv.Variables({}), jnp.ones(3), rng=0)
    jitted, _ = jax.jit(_apply(model))(jv.Variables({}), jnp.ones(3))
    for a, b in zip(eager, jitted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        assert len(set(np.asarray(a).tolist())) == 3

    def closure_passed(x: Any) -> Any:
        function = jax.custom_vjp(lambda y, w: y * w)
        function.defvjp(lambda y, w: (y * w, (y, w)), lambda r, ct: (ct * r[1], jnp.sum(ct * r[0])))
        return function(x, _w().value)

    model = jv.transform(closure_passed)
    assert jax.grad(lambda w: jnp.sum(model.apply(VALUES.replace({"w": w}), X)[0]))(1.0) == 6.0

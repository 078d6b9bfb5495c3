"""Any pytree to variables and back, and Equinox modules in a scope, with the real library."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxvars as jv

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)

_arrays = st.builds(
    lambda n, dtype: np.arange(n).astype(dtype), st.integers(0, 3), st.sampled_from(["f4", "i4", "c8", jnp.bfloat16])
)
_leaves = _arrays | st.sampled_from([0.5, 3, True, "relu", None])
_keys = st.sampled_from(["a", "b", "w", "0", "a/b"])
_trees = st.recursive(
    _leaves,
    lambda t: (
        st.dictionaries(_keys, t, max_size=3) | st.lists(t, max_size=3) | st.tuples(t, t).map(lambda pair: tuple(pair))
    ),
    max_leaves=8,
)


def _equal(first: Any, second: Any) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert getattr(one, "dtype", type(one)) == getattr(other, "dtype", type(other))
        np.testing.assert_array_equal(one, other)


@settings(max_examples=100, deadline=None)
@given(_trees, st.sampled_from(["", "net", "a/b"]))
def test_trees_come_back_as_they_were(tree: Any, prefix: str) -> None:
    try:
        variables = jv.interop.from_tree(tree, prefix)
    except jv.errors.InvalidArgumentError as error:
        assert "several leaves get one name" in str(error)
        return
    except jv.errors.InvalidTypeError as error:
        assert isinstance(tree, np.ndarray)
        assert 'prefix="name"' in str(error)
        return
    assert all(name.startswith(prefix) for name in variables)
    _equal(jv.interop.to_tree(variables, tree, prefix), tree)


def test_what_is_no_array_stays_in_the_tree() -> None:
    tree = {"w": X, "rate": 0.1, "act": jax.nn.relu, "key": jax.random.key(0), "hole": jax.ShapeDtypeStruct((2,), "f4")}
    variables = jv.interop.from_tree(tree)
    assert list(variables) == ["hole", "key", "w"]
    assert list(variables.uninitialized) == ["hole"]
    back = jv.interop.to_tree(variables.replace({"hole": jnp.ones(2)}), tree)
    assert (back["rate"], back["act"]) == (0.1, jax.nn.relu)


def test_values_of_one_buffer_become_two() -> None:
    tied = jnp.ones(3)
    variables = jv.interop.from_tree({"encoder": tied, "decoder": tied})
    pointers = {value.unsafe_buffer_pointer() for value in variables.values()}
    assert len(pointers) == 2
    jax.jit(lambda v: v, donate_argnums=0)(variables)  # XLA refuses a buffer that is donated twice


def test_a_step_that_donates_leaves_the_tree_whole() -> None:
    take = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    tree = {"w": jnp.ones(3)}
    take(jv.interop.from_tree(tree))
    variables = jv.interop.from_tree(tree, copy=False)
    take(jv.interop.to_tree(variables, tree))
    assert not variables["w"].is_deleted() and not tree["w"].is_deleted()
    take(jv.interop.to_tree(variables, tree, copy=False))
    assert tree["w"].is_deleted()


def test_all_differences_are_listed() -> None:
    zeros = np.zeros(2, np.float32)
    variables = jv.interop.from_tree({"a": zeros, "b": zeros, "c": jax.ShapeDtypeStruct((2,), "f4")})
    like = {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.int32), "c": zeros, "aa": zeros}
    with pytest.raises(jv.errors.NotFoundError) as caught:
        jv.interop.to_tree(variables, like)
    text = str(caught.value)
    assert "to_tree: 4 of 4 variables do not fit:" in text
    for line in (
        "aa: missing; did you mean a?",
        "a: has shape (2,), and (3,) is wanted",
        "b: has dtype float32, and int32 is wanted",
        "c: has no value yet",
    ):
        assert f"  {line}" in text
    del like["aa"]
    with pytest.raises(jv.errors.InvalidArgumentError, match="3 of 3"):
        jv.interop.to_tree(variables, like)
    with pytest.raises(jv.errors.InvalidArgumentError, match='several leaves get one name:\n  "a/b" from the tree'):
        jv.interop.from_tree({"a/b": X, "a": {"b": X}})
    with pytest.raises(jv.errors.InvalidTypeError, match=r"takes jv\.Variables first, got dict"):
        jv.interop.to_tree({}, like)  # pyright: ignore[reportArgumentType]


# Equinox


def test_an_equinox_module_comes_back() -> None:
    eqx = pytest.importorskip("equinox")
    module = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    variables = jv.interop.from_tree(module, prefix="mlp")
    assert list(variables)[:2] == ["mlp/layers/0/bias", "mlp/layers/0/weight"]
    like = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(1))
    back = jv.interop.to_tree(variables, like, prefix="mlp")
    assert eqx.tree_equal(back, module)
    np.testing.assert_array_equal(jax.vmap(back)(X), jax.vmap(module)(X))


def test_an_equinox_module_in_a_scope() -> None:
    eqx = pytest.importorskip("equinox")

    def make(key: Any) -> Any:
        return eqx.nn.MLP(3, 2, 4, 1, key=key)

    def net(x: Any) -> Any:
        with jv.variable_scope("model"):
            layer = jv.interop.equinox(make, "mlp")
            return jax.vmap(layer)(x)

    model = jv.transform(net)
    variables = model.init(5, X)
    own = jax.jit(lambda: eqx.filter(make(jv.interop.module_key(5, "model/mlp")), eqx.is_array))()
    for name, value in jv.interop.from_tree(own, "model/mlp").items():
        np.testing.assert_array_equal(variables[name], value)
    module = jv.interop.to_tree(variables, make(jax.random.key(0)), "model/mlp")
    np.testing.assert_allclose(model(variables, X), jax.vmap(module)(X), rtol=1e-6)
    grads = jv.grad(lambda v: (model(v, X) ** 2).sum())(variables)
    theirs = eqx.filter_grad(lambda module: (jax.vmap(module)(X) ** 2).sum())(module)
    for name, value in jv.interop.from_tree(theirs, "model/mlp").items():
        np.testing.assert_allclose(grads[name], value, rtol=1e-5, atol=1e-6)


def test_values_of_an_equinox_module_are_taken_and_copied() -> None:
    eqx = pytest.importorskip("equinox")
    module = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    model = jv.transform(lambda x: jax.vmap(jv.interop.equinox(module))(x))
    variables = model.init(0, X)
    assert list(variables) == ["linear/bias", "linear/weight"]
    jax.jit(lambda v: jax.tree.map(lambda x: x + 1, v), donate_argnums=0)(variables)
    np.testing.assert_array_equal(model.init(0, X)["linear/weight"], module.weight)  # donation left it whole
    with pytest.raises(jv.errors.InvalidTypeError, match="function of a key"):
        jv.interop.equinox(3)  # pyright: ignore[reportArgumentType]

"""The handle: an array wherever one is asked for, a name after its frame, identity where TF1 had identity."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, InvalidArgumentError, InvalidTypeError

VALUE = np.array([1.0, 2.0, 4.0], np.float32)


def _v(name: str = "scope/v") -> jv.Variable:
    return jv.get_variable(name, initializer=jnp.asarray(VALUE))


def _both(f: Callable[[Any], Any]) -> tuple[Any, Any]:
    """`f` of the handle, in a model that is run eagerly and jitted."""
    model = jv.transform(lambda: f(_v()))
    variables = model.init(0)
    return model.apply(variables)[0], jax.jit(model.apply)(variables)[0]


def _scan_body(c: Any, x: Any) -> Any:
    return c + x, c * x


ARRAY_USES: dict[str, Callable[[Any], Any]] = {
    "jnp.sin": jnp.sin,
    "jnp.dot": lambda v: jnp.dot(v, v),
    "jnp.stack": lambda v: jnp.stack([v, v]),
    "jnp.concatenate": lambda v: jnp.concatenate([v, v]),
    "jnp.where": lambda v: jnp.where(v > 1, v, 0),
    "jnp.einsum": lambda v: jnp.einsum("i,j->ij", v, v),
    "jnp.asarray": jnp.asarray,
    "jnp.linalg.norm": jnp.linalg.norm,
    "jnp.zeros_like": jnp.zeros_like,
    "jax.nn.relu": jax.nn.relu,
    "jax.nn.softmax": jax.nn.softmax,
    "jax.nn.gelu": jax.nn.gelu,
    "jax.jit": jax.jit(lambda x: x * 2),
    "jax.vmap": jax.vmap(lambda x: x * 2),
    "jax.grad": jax.grad(lambda x: (x * x).sum()),
    "jax.value_and_grad": jax.value_and_grad(lambda x: (x * x).sum()),
    "jax.vjp": lambda v: jax.vjp(jnp.sin, v)[1](jnp.ones(3, v.dtype)),
    "jax.checkpoint": jax.checkpoint(jnp.sin),
    "jax.lax.scan over it": lambda v: jax.lax.scan(_scan_body, 0.0, v),
    "jax.lax.scan from it": lambda v: jax.lax.scan(_scan_body, v, jnp.arange(2, dtype=v.dtype)),
    "jax.lax.cond": lambda v: jax.lax.cond(True, jnp.sin, jnp.cos, v),
    "jax.lax.fori_loop": lambda v: jax.lax.fori_loop(0, 2, lambda i, x: x * 2, v),
    "jax.lax.while_loop": lambda v: jax.lax.while_loop(lambda x: x[0] < 9, lambda x: x * 2, v),
    "jax.lax.map": lambda v: jax.lax.map(jnp.sin, v),
    "jax.tree.map": lambda v: jax.tree.map(jnp.sin, {"a": v, "b": [v]}),
    "jax.tree.leaves": lambda v: jax.tree.leaves({"a": v}),
    "v[0]": operator.itemgetter(0),
    "v[1:]": lambda v: v[1:],
    "v[None]": lambda v: v[None],
    "v[array]": lambda v: v[jnp.array([2, 0])],
    "v.T": lambda v: v.T,
    "v.at": lambda v: v.at[0].set(9.0),
    "v.reshape": lambda v: v.reshape(3, 1),
    "v.astype": lambda v: v.astype("int32"),
    "v.sum": lambda v: v.sum(),
    "v.mean": lambda v: v.mean(axis=0, keepdims=True),
    "v.max": lambda v: v.max(),
    "v.flatten": lambda v: v.flatten(),
    "divmod": lambda v: divmod(v, 2),
    "round": lambda v: round(v),
    "-v": operator.neg,
    "+v": operator.pos,
    "abs": abs,
    "list(v)": list,
    "sum(v)": sum,
}


@pytest.mark.parametrize("name", ARRAY_USES)
def test_it_is_an_array_to(name: str) -> None:
    expected = ARRAY_USES[name](jnp.asarray(VALUE))
    for out in _both(ARRAY_USES[name]):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), out, expected)


@pytest.mark.parametrize(
    "read",
    [
        lambda v: v.value,
        lambda v: v.read_value(),
        lambda v: v.eval(),
        lambda v: v.initialized_value(),
        lambda v: v.initial_value,
        lambda v: jax.lax.mul(v.value, np.float32(1)),
        lambda v: jax.jvp(jnp.positive, (v.value,), (jnp.ones(3, v.dtype),))[0],
    ],
)
def test_the_bare_value(read: Any) -> None:
    for out in _both(read):
        assert isinstance(out, jax.Array) and out.tolist() == VALUE.tolist()


BINARY = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
    operator.matmul,
]
OTHERS = {"number": 2.0, "numpy": VALUE + 1, "jax": jnp.asarray(VALUE) + 1, "numpy scalar": np.float32(2)}


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
@pytest.mark.parametrize("kind", OTHERS)
def test_operators_on_both_sides(op: Any, kind: str) -> None:
    other = OTHERS[kind]
    if op is operator.matmul and np.ndim(other) == 0:
        return
    value = jnp.asarray(VALUE)
    for out in _both(lambda v: (op(v, other), op(other, v))):
        np.testing.assert_allclose(out[0], op(value, other), rtol=1e-6)
        np.testing.assert_allclose(out[1], op(other, value), rtol=1e-6)
        assert all(isinstance(x, jax.Array) for x in out)


@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift])
def test_operators_on_integers(op: Any) -> None:
    with jv.VariableStore():
        v = jv.get_variable("v", initializer=jnp.array([1, 2, 3]))
        w = jv.get_variable("w", initializer=jnp.array([3, 2, 1]))
        expected = op(np.array([1, 2, 3]), np.array([3, 2, 1]))
        for left, right in ((v, w), (v, np.array([3, 2, 1])), (np.array([1, 2, 3]), w), (v, w.value)):
            assert np.array_equal(op(left, right), expected)
        assert np.array_equal(~v, ~np.array([1, 2, 3]))


def test_two_handles_in_one_expression() -> None:
    with jv.VariableStore():
        v, w = _v("v"), _v("w")
        assert np.array_equal(v * w + v, VALUE * VALUE + VALUE)
        assert np.array_equal(jax.jit(lambda a, b: a + b)(v, w), 2 * VALUE)


def test_numpy_sees_an_array() -> None:
    with jv.VariableStore():
        v = _v()
        assert isinstance(np.asarray(v), np.ndarray) and np.array_equal(np.asarray(v), VALUE)
        assert np.array(v, dtype=np.float64).dtype == np.float64
        assert np.array_equal(np.sin(v), np.sin(VALUE)) and np.sum(v) == 7
        assert v.tolist() == [1, 2, 4]
        n = jv.get_variable("n", [], "int32")
        assert (float(n), int(n), complex(n), bool(n), [5, 6][n], range(3)[n]) == (0.0, 0, 0j, False, 5, 0)
        assert len(v) == 3 and 2.0 in v and [float(x) for x in v] == [1, 2, 4]


def test_equality_is_identity_among_handles() -> None:
    with jv.VariableStore():
        v, w = _v("v"), _v("w")
        with jv.variable_scope("", reuse=True):
            again = jv.get_variable("v")
        assert again is v and (v == again) is True and (v == w) is False
        assert (v != again) is False and (v != w) is True
        assert (v == "v", v != "v", v == None, v != None) == (False, True, False, True)  # noqa: E711
        assert v in [w, v] and [w, v].index(v) == 1 and v not in [w]
        assert {v: "v", w: "w"}[again] == "v" and len({v, again, w}) == 2


def test_equality_with_values_is_elementwise() -> None:
    with jv.VariableStore():
        v = _v()
        for other in (2.0, np.full(3, 2.0), jnp.full(3, 2.0)):
            assert (v == other).tolist() == (other == v).tolist() == [False, True, False]
            assert (v != other).tolist() == [True, False, True]


def test_repr_shows_matrices_aligned() -> None:
    with jv.VariableStore():
        row = jv.get_variable("row", initializer=jnp.array([1, 2], jnp.int32))
        assert repr(row) == "<jv.Variable 'row' shape=(2,) dtype=int32 value=[1 2]>"
        matrix = jv.get_variable("matrix", initializer=jnp.array([[1, 2], [3, 4]], jnp.int32))
        assert repr(matrix) == "<jv.Variable 'matrix' shape=(2, 2) dtype=int32 value=\n[[1 2]\n [3 4]]>"


@pytest.mark.parametrize("open_", [True, False])
def test_names_and_static_facts(open_: bool) -> None:
    def check(v: jv.Variable) -> None:
        assert (v.name, v.key, v.op.name) == ("scope/v:0", "scope/v", "scope/v")
        assert v.shape == (3,) and v.get_shape().as_list() == v.shape.as_list() == [3]
        assert (v.ndim, v.size, v.dtype) == (1, 3, np.dtype("float32"))
        assert (v.trainable, v.collections) == (True, ("variables", "trainable_variables"))
        assert v.device == "" and v.constraint is None
        assert "scope/v" in repr(v) and ("frame ended" in repr(v)) != open_
        assert jnp.zeros(v.shape, v.dtype).shape == (3,)

    with jv.VariableStore():
        v = _v()
        if open_:
            check(v)
    if not open_:
        check(v)


def test_after_its_frame_it_is_a_name() -> None:
    with jv.VariableStore() as store:
        v, w = _v("v"), _v("w")
    variables = store.variables
    assert variables[v] is variables["v"] and v in variables
    assert {v: 1, w: 2}[w] == 2 and v == v and v != w and v != "v"
    changed = jv.assign(variables, v, [5.0, 6.0, 7.0])
    assert changed[v].tolist() == [5, 6, 7] and variables[v].tolist() == [1, 2, 4]
    assert jv.assign_add(changed, v, variables[w])[v].tolist() == [6, 8, 11]
    assert changed.replace({v: VALUE})[v].tolist() == [1, 2, 4]
    assert jv.grad(lambda variables: (variables["v"] * variables["w"]).sum(), wrt=v)(variables)[v].tolist() == [1, 2, 4]


ENDED: dict[str, Callable[[Any], Any]] = {
    "value": lambda v: v.value,
    "read_value": lambda v: v.read_value(),
    "eval": lambda v: v.eval(),
    "+": lambda v: v + 1,
    "r+": lambda v: np.ones(3) + v,
    "== 1": lambda v: v == 1,
    "jnp": jnp.sin,
    "numpy": np.asarray,
    "jit": lambda v: jax.jit(jnp.sin)(v),
    "tree": lambda v: jax.tree.leaves(v),
    "[0]": lambda v: v[0],
    ".T": lambda v: v.T,
    "len": len,
    "bool": bool,
    "assign": lambda v: v.assign(VALUE),
    "assign_add": lambda v: v.assign_add(VALUE),
    "load": lambda v: v.load(VALUE),
    "scatter_add": lambda v: v.scatter_add([0], [1.0]),
}


@pytest.mark.parametrize("use", ENDED)
@pytest.mark.parametrize("made_by", ["store", "model"])
def test_after_its_frame_it_has_no_value(use: str, made_by: str) -> None:
    kept: list[Any] = []
    if made_by == "store":
        with jv.VariableStore():
            kept.append(_v())
    else:
        jv.transform(lambda: kept.append(_v())).init(0)
    with pytest.raises(FailedPreconditionError) as caught:
        ENDED[use](kept[0])
    text = str(caught.value)
    assert "scope/v" in text and "variables[v]" in text and "jv.assign(variables, v, value)" in text
    assert f"{__file__}:" in text


def test_what_a_model_returns_is_a_value() -> None:
    def net() -> Any:
        v = _v()
        return v, {"a": [v]}

    model = jv.transform(net)
    variables = model.init(0)
    for out in (model(variables), model.apply(variables)[0], jax.jit(model.apply)(variables)[0]):
        assert all(isinstance(leaf, jax.Array) for leaf in (out[0], out[1]["a"][0]))
    gradients = jax.grad(lambda variables: model(variables)[0].sum())(variables)
    assert gradients["scope/v"].tolist() == [1, 1, 1]


def test_a_result_without_handles_is_the_very_object() -> None:
    class Opaque:
        pass

    opaque, array = Opaque(), jnp.ones(2)
    out, _ = jv.transform(lambda: (opaque, array, None, "text", 3)).apply(jv.Variables({}))
    assert out[0] is opaque and out[1] is array and out[2:] == (None, "text", 3)


@pytest.mark.parametrize(
    "use",
    [
        jax.lax.exp,
        lambda v: jax.lax.add(v, jnp.ones(3)),
        lambda v: jax.lax.dot(jnp.ones(3), v),
        lambda v: jnp.eye(9)[v],
    ],
)
@pytest.mark.parametrize("jitted", [False, True])
def test_bare_lax_functions_and_indices_want_the_value(use: Any, jitted: bool) -> None:
    def net() -> Any:
        return use(jv.get_variable("scope/v", initializer=jnp.array([1, 2, 4])))

    model = jv.transform(net)
    variables = jv.Variables({"scope/v": jnp.array([1, 2, 4])})
    with pytest.raises(InvalidArgumentError, match=r"Variable scope/v .* Write v.value"):
        (jax.jit(model.apply) if jitted else model.apply)(variables)


def test_in_place_operators_rebind_and_do_not_assign() -> None:
    with jv.VariableStore() as store:
        v = kept = _v()
        v += 1
        assert isinstance(v, jax.Array) and v.tolist() == [2, 3, 5] and kept.value.tolist() == [1, 2, 4]
    assert store.variables["scope/v"].tolist() == [1, 2, 4]


def test_wrong_writes_show_the_line_to_write() -> None:
    with jv.VariableStore():
        v: Any = _v()
        with pytest.raises(InvalidTypeError, match=r"scope/v .*v.assign\(v.at\[index\].set\(value\)\)"):
            v[0] = 1.0
        with pytest.raises(InvalidTypeError, match=r"scope/v.*v.assign\(value\)"):
            v.value = 1.0
        with pytest.raises(AttributeError, match="weights"):
            v.weights = 1.0
        with pytest.raises(AttributeError, match=r"no attribute 'valeu' \(variable scope/v\)"):
            _ = v.valeu
        assert v.value.tolist() == [1, 2, 4]


def test_copies_are_the_handle_and_pickles_are_refused() -> None:
    with jv.VariableStore():
        v = _v()
        assert copy.copy(v) is v and copy.deepcopy({"v": v})["v"] is v
        with pytest.raises(InvalidTypeError, match=r"scope/v .*cannot be pickled"):
            pickle.dumps(v)


def test_assignments_return_the_new_value() -> None:
    with jv.VariableStore():
        v = _v()
        assert v.assign(VALUE * 2).tolist() == v.value.tolist() == [2, 4, 8]
        assert v.assign_add([1, 1, 1]).tolist() == v.value.tolist() == [3, 5, 9]
        assert v.assign_sub(jnp.ones(3)).tolist() == v.value.tolist() == [2, 4, 8]
        assert v.load([0, 0, 0]) is None and not v.value.any()
        w = _v("w")
        assert v.assign(w).tolist() == v.value.tolist() == [1, 2, 4]
        v.assign_add(v)
        assert v.value.tolist() == [2, 4, 8] and w.value.tolist() == [1, 2, 4]

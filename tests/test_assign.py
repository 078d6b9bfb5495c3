"""`jv.assign` and its family: TF1's answers and strictness, donation, placement, transforms."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

import jaxvars as ops
from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    NotFoundError,
    OutOfRangeError,
    TransformError,
)
from jaxvars.spec import Hole, VariableSpec
from jaxvars.updates import UPDATES, jitted
from jaxvars.variables import Variables


def one(value, dtype=None):
    return Variables({"v": np.asarray(value, dtype)})


# -- dense -----------------------------------------------------------------------------------------------


def test_assign_family_changes_one_value_of_a_new_state():
    variables = Variables({"w": jnp.ones(2), "step": 0})
    assert ops.assign(variables, "w", [3, 4])["w"].tolist() == [3.0, 4.0]
    assert ops.assign_add(variables, "w:0", np.ones(2))["w"].tolist() == [2.0, 2.0]
    assert ops.assign_sub(variables, variables.variable_specs["step"], 2)["step"] == -2
    assert variables["w"].tolist() == [1.0, 1.0]
    assert ops.assign_add(variables, "step", 1)["w"] is variables["w"]


@pytest.mark.parametrize(
    ("dtype", "value", "stored"),
    [
        ("float32", 2, 2.0),
        ("float32", np.int64(3), 3.0),
        ("float32", 2**70, 2.0**70),
        ("float32", np.float64(0.5), 0.5),
        ("float32", 1e300, np.inf),
        ("float32", jnp.asarray(3), 3.0),
        ("float32", jnp.bfloat16(1.5), 1.5),
        ("bfloat16", np.float32(1.5), 1.5),
        ("bfloat16", 1.5, 1.5),
        ("complex64", 1.5, 1.5 + 0j),
        ("int32", np.int64(7), 7),
        ("int8", -128, -128),
        ("uint8", 255, 255),
        ("int8", jnp.asarray(3), 3),  # weakly typed, as a Python number is
        ("int32", jnp.int8(3), 3),
        ("bool", True, True),
    ],
)
def test_values_that_convert(dtype, value, stored):
    new = ops.assign(one(0, dtype), "v", value)["v"]
    assert new.dtype == dtype and not new.weak_type and new == stored


@pytest.mark.parametrize(
    ("dtype", "value", "error", "text"),
    [
        ("int32", 1.5, InvalidTypeError, "expected int32, got a Python float.*pass: int"),
        ("int32", np.float32(1), InvalidTypeError, "expected int32, got float32"),
        ("int32", jnp.float32(1), InvalidTypeError, "expected int32, got float32"),
        ("float32", 1j, InvalidTypeError, "expected float32, got a Python complex"),
        ("float32", True, InvalidTypeError, "expected float32, got a Python bool"),
        ("bool", 1, InvalidTypeError, "expected bool, got a Python int"),
        ("bool", jnp.int32(1), InvalidTypeError, "expected bool, got int32"),
        ("int8", jnp.int32(1), InvalidTypeError, "expected int8, got int32"),
        ("float32", "text", InvalidTypeError, "expected a value of float32"),
        ("float32", None, InvalidTypeError, "expected a value of float32"),
        ("int8", 300, InvalidArgumentError, "300 does not fit int8, which holds -128 to 127"),
        ("uint8", -1, InvalidArgumentError, "-1 does not fit uint8"),
        ("int32", 2**40, InvalidArgumentError, "does not fit int32"),
        ("int32", 2**70, InvalidArgumentError, "does not fit int32"),
        ("float32", [[1.0], [1.0, 2.0]], InvalidArgumentError, "not an array"),
        ("float32", [1.0], InvalidArgumentError, "Shapes must be equal rank, but are 0 and 1"),
    ],
)
def test_values_that_do_not(dtype, value, error, text):
    variables = one(0, dtype)
    with pytest.raises(error, match=text) as caught:
        ops.assign(variables, "v", value)
    assert '"v"' in str(caught.value)


def test_nothing_is_broadcast():
    variables = one([1.0, 2.0])
    with pytest.raises(ValueError, match=re.escape("pass: jnp.broadcast_to(value, (2,))")):
        ops.assign(variables, "v", 1.0)
    with pytest.raises(ValueError, match="Dimension 0 in both shapes must be equal, but are 2 and 3"):
        ops.assign_add(variables, "v", np.ones(3))
    with pytest.raises(ValueError, match="equal rank, but are 1 and 2"):
        ops.assign_sub(variables, "v", np.ones((1, 2)))


def test_errors_name_where_the_variable_was_defined():
    spec = VariableSpec("v", (2,), "float32", defined_at="model.py:12")
    variables = Variables.from_specs([(spec, jnp.ones(2))])
    for wrong in (1.0, [True, False], [1.0]):
        with pytest.raises(Exception, match=r"Variable defined at model\.py:12"):
            ops.assign(variables, "v", wrong)


def test_unknown_name_and_wrong_first_argument():
    with pytest.raises(KeyError, match="Nearest: dense/bias"):
        ops.assign(Variables({"dense/bias": 1.0}), "dense/biass", 1.0)
    with pytest.raises(InvalidTypeError, match=r"takes the variables first, got str"):
        ops.assign_add("v", one(1.0), 1.0)


def test_add_and_sub_are_not_defined_on_bools():
    with pytest.raises(TypeError, match="not defined for dtype bool"):
        ops.assign_add(one(True), "v", True)
    assert ops.scatter_update(one([True, True]), "v", [0], [False])["v"].tolist() == [False, True]


def test_an_uninitialized_variable_can_be_assigned_only():
    device = jax.devices()[2]
    sharding = jax.sharding.SingleDeviceSharding(device)
    variables = Variables({"v": Hole((2,), "float32", sharding=sharding)})
    filled = ops.assign(variables, "v", [1, 2])
    assert filled["v"].devices() == {device} and filled["v"].tolist() == [1.0, 2.0]
    for op in (ops.assign_add, ops.assign_sub, ops.scatter_add):
        arguments = ([0], [1.0]) if op is ops.scatter_add else ([1.0, 1.0],)
        with pytest.raises(FailedPreconditionError) as caught:
            op(variables, "v", *arguments)
        assert "Attempting to use uninitialized value v" in str(caught.value)
        assert 'jv.variables_initializer(variables, 0, ["v"])' in str(caught.value)


def test_a_random_key_can_be_assigned_not_added():
    variables = Variables({"rng": jax.random.key(0)})
    new = ops.assign(variables, "rng", jax.random.key(7))
    assert jax.random.key_data(new["rng"]).tolist() == jax.random.key_data(jax.random.key(7)).tolist()
    for op in (ops.assign, ops.assign_add):
        with pytest.raises(InvalidTypeError):
            op(variables, "rng", 1)


def test_assign_owns_its_buffer():
    value = jnp.arange(3.0)
    variables = ops.assign(Variables({"a": jnp.zeros(3), "b": jnp.zeros(3)}), "a", value)
    variables = ops.assign(variables, "b", variables["a"])
    pointers = {x.unsafe_buffer_pointer() for x in (value, variables["a"], variables["b"])}
    assert len(pointers) == 3
    host = np.arange(3.0, dtype=np.float32)
    variables = ops.assign(variables, "a", host)
    host[:] = 9
    assert variables["a"].tolist() == [0.0, 1.0, 2.0]


# -- donation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["assign", "assign_add", "scatter_add", "scatter_update"])
def test_donation_reuses_the_buffer_and_the_old_state_says_so(op):
    variables = Variables({"a/w": jnp.ones(1000), "b": jnp.ones(2)})
    jax.block_until_ready(variables)
    pointer = variables["a/w"].unsafe_buffer_pointer()
    arguments = ([0], [1.0]) if op.startswith("scatter") else (jnp.ones(1000),)
    new = getattr(ops, op)(variables, "a/w", *arguments, donate=True)
    assert new["a/w"].unsafe_buffer_pointer() == pointer
    text = rf'"a/w" is gone: it was donated by {op}\(\.\.\., donate=True\) at .*test_assign\.py:\d+'
    with pytest.raises(FailedPreconditionError, match=text):
        variables["a/w"]
    with pytest.raises(FailedPreconditionError, match=text):
        ops.assign_add(variables, "a/w", jnp.ones(1000))
    with pytest.raises(FailedPreconditionError, match=text):
        dict(variables.select("a/"))
    assert variables["b"].tolist() == [1.0, 1.0] and new["b"] is variables["b"]


def test_donating_a_value_to_itself_and_failing_calls():
    variables = one([1.0, 2.0])
    assert ops.assign_add(variables, "v", variables["v"], donate=True)["v"].tolist() == [2.0, 4.0]
    variables = one([1.0, 2.0])
    with pytest.raises(InvalidArgumentError):
        ops.assign_add(variables, "v", 1.0, donate=True)
    assert variables["v"].tolist() == [1.0, 2.0]


# -- placement -------------------------------------------------------------------------------------------


def test_the_result_lies_where_the_variable_lay():
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    device = jax.devices()[5]
    elsewhere = jax.device_put(jnp.ones(8), jax.devices()[1])
    for place in (sharding, device):
        variables = Variables({"v": jnp.zeros(8)}).to(place)
        home = variables["v"].sharding
        for new in (
            ops.assign(variables, "v", elsewhere),
            ops.assign(variables, "v", np.ones(8)),
            ops.assign_add(variables, "v", elsewhere),
            ops.assign_add(variables, "v", np.ones(8), donate=False),
            ops.scatter_add(variables, "v", list(range(8)), elsewhere),
            ops.scatter_update(variables, "v", [[0, 1], [2, 3]], 1.0),
        ):
            assert new["v"].sharding == home
        assert ops.assign(variables, "v", elsewhere, donate=True)["v"].sharding == home
    at_home = Variables({"v": jnp.zeros(8)})
    assert ops.assign(at_home, "v", elsewhere)["v"].devices() == {jax.devices()[0]}
    scalar = Variables({"v": 0.0}).to(device)
    assert ops.assign_add(scalar, "v", 1.0)["v"].devices() == {device}
    assert ops.assign_add(Variables({"v": jnp.zeros(8)}), "v", elsewhere)["v"].devices() == {jax.devices()[0]}


# -- scatter: answers of tensorflow 2.21, compat.v1 ------------------------------------------------------

TF_FLOAT = {
    "update": [4.0, 20.0, 5.0],
    "add": [16.0, 20.0, 35.0],
    "sub": [4.0, 20.0, 25.0],
    "mul": [80.0, 20.0, 150.0],
    "div": [1.25, 20.0, 6.0],
    "min": [2.0, 20.0, 5.0],
    "max": [10.0, 20.0, 30.0],
}
TF_INT = {
    "update": [2, 20, 4],
    "add": [-5, 20, 34],
    "sub": [-15, 20, 26],
    "mul": [-60, 20, 120],
    "div": [-1, 20, 7],
    "min": [-10, 20, 4],
    "max": [3, 20, 30],
}
TF_SCALAR = {
    "update": [2.0, 2.0],
    "add": [14.0, 24.0],
    "sub": [6.0, 16.0],
    "mul": [40.0, 80.0],
    "div": [2.5, 5.0],
    "min": [2.0, 2.0],
    "max": [10.0, 20.0],
}


@pytest.mark.parametrize("name", list(TF_FLOAT))
def test_scatter_answers_as_tensorflow_does(name):
    op = getattr(ops, f"scatter_{name}")
    assert op(one([10.0, 20.0, 30.0], "float32"), "v", [0, 0, 2], [2.0, 4.0, 5.0])["v"].tolist() == TF_FLOAT[name]
    assert op(one([-10, 20, 30], "int32"), "v", [0, 0, 2], [3, 2, 4])["v"].tolist() == TF_INT[name]
    table = one([[10.0, 20.0], [30.0, 3.0]], "float32")
    assert op(table, "v", [0, 0], 2.0)["v"].tolist() == [TF_SCALAR[name], [30.0, 3.0]]


def test_scatter_nd_answers_as_tensorflow_does():
    table = one([[10.0, 20.0], [30.0, 3.0]], "float32")
    for name, expected in (("update", 4.0), ("add", 26.0), ("sub", 14.0)):
        op = getattr(ops, f"scatter_nd_{name}")
        assert op(table, "v", [[0, 1], [0, 1]], [2.0, 4.0])["v"].tolist() == [[10.0, expected], [30.0, 3.0]]
    rows = ops.scatter_nd_update(table, "v", [[1], [1]], [[1.0, 1.0], [2.0, 5.0]])
    assert rows["v"].tolist() == [[10.0, 20.0], [2.0, 5.0]]


@pytest.mark.parametrize(
    ("op", "arguments", "error", "text"),
    [
        ("scatter_add", ([0, 3], [1.0, 1.0]), InvalidArgumentError, r"indices\[1\] = 3 is not in \[0, 3\)"),
        (
            "scatter_add",
            ([[0, 1], [-1, 0]], np.ones((2, 2))),
            InvalidArgumentError,
            r"indices\[1, 0\] = -1 is not",
        ),
        ("scatter_add", (jnp.int32(3), 1.0), InvalidArgumentError, r"indices = 3 is not in \[0, 3\)"),
        (
            "scatter_add",
            ([0, 1], [1.0, 1.0, 1.0]),
            InvalidArgumentError,
            "Must have updates.shape = indices.shape",
        ),
        ("scatter_add", ([0.0], [1.0]), InvalidTypeError, "indices must be integers"),
        ("scatter_add", ([True], [1.0]), InvalidTypeError, "indices must be integers"),
        ("scatter_add", ([0], [True]), InvalidTypeError, "expected float32, got bool"),
        (
            "scatter_nd_add",
            ([[0], [3]], [1.0, 1.0]),
            InvalidArgumentError,
            r"indices\[1\] = \[3\] does not index",
        ),
        ("scatter_nd_add", ([[0], [2]], 2.0), InvalidArgumentError, "Must have updates.shape"),
        ("scatter_nd_add", ([[0, 1]], [2.0]), InvalidArgumentError, "saw: 2 vs. 1"),
        ("scatter_nd_add", (0, 2.0), InvalidArgumentError, "saw: 0 vs. 1"),
    ],
)
def test_scatter_refuses(op, arguments, error, text):
    variables = one([10.0, 20.0, 30.0], "float32")
    with pytest.raises(error, match=text):
        getattr(ops, op)(variables, "v", *arguments)


def test_scatter_edges():
    variables = one([10.0, 20.0], "float32")
    assert ops.scatter_add(variables, "v", [], np.zeros(0))["v"].tolist() == [10.0, 20.0]
    assert ops.scatter_add(variables, "v", 1, 5.0)["v"].tolist() == [10.0, 25.0]
    with pytest.raises(InvalidArgumentError, match="rank at least 1"):
        ops.scatter_add(one(1.0), "v", [0], [1.0])
    with pytest.raises(InvalidArgumentError, match="Integer division by zero"):
        ops.scatter_div(one([1, 2]), "v", [0], [0])


def test_traced_indices_out_of_range_are_dropped():
    def run(op, indices):
        return jax.jit(lambda v, i: op(v, "v", i, jnp.full(i.shape[:1], 5.0)))(one([1.0, 2.0]), indices)["v"]

    for op in (ops.scatter_add, ops.scatter_update, ops.scatter_mul, ops.scatter_max):
        assert run(op, jnp.array([-1, 2, 7])).tolist() == [1.0, 2.0]
    assert run(ops.scatter_nd_update, jnp.array([[-1], [2], [1]])).tolist() == [1.0, 5.0]


SEQUENTIAL = {
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "min": min,
    "max": max,
}


@given(
    st.sampled_from(sorted(SEQUENTIAL)),
    st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=9),
)
@settings(max_examples=60, deadline=None)
def test_scatter_is_one_update_after_the_other(name, writes):
    expected = [1, 2, 3, 4, 5]
    for row, value in writes:
        expected[row] = SEQUENTIAL[name](expected[row], value)
    padded = [*writes, *[(0, None)] * 0]
    rows = np.array([row for row, _ in padded], np.int32)
    new = np.array([value for _, value in padded], np.int32)
    op = getattr(ops, f"scatter_{name}")
    assert op(one([1, 2, 3, 4, 5], "int32"), "v", rows, new)["v"].tolist() == expected


# -- count_up_to -----------------------------------------------------------------------------------------


def test_count_up_to():
    variables = one(2, "int32")
    variables = ops.count_up_to(variables, "v", 3)
    assert int(variables["v"]) == 3
    with pytest.raises(OutOfRangeError, match="Reached limit of 3"):
        ops.count_up_to(variables, "v", 3)
    assert int(jax.jit(lambda v: ops.count_up_to(v, "v", 3))(variables)["v"]) == 3
    with pytest.raises(InvalidTypeError, match="must be an integer"):
        ops.count_up_to(one(1.0), "v", 3)
    with pytest.raises(InvalidTypeError):
        ops.count_up_to(variables, "v", 3.5)
    with pytest.raises(InvalidArgumentError, match="integer of shape"):
        ops.count_up_to(one(np.zeros(2, np.int32)), "v", 3)


def test_a_handle_counts_by_the_same_rules():
    with ops.VariableStore(rng=0):
        whole = ops.get_variable("whole", [], "int32")
        assert [int(whole.count_up_to(2)), int(whole.count_up_to(2))] == [0, 1]
        with pytest.raises(OutOfRangeError, match="Reached limit of 2"):
            whole.count_up_to(2)
        with pytest.raises(InvalidTypeError, match="count_up_to"):
            whole.count_up_to(2.5)
        with pytest.raises(InvalidTypeError, match="must be an integer of shape"):
            ops.get_variable("half", []).count_up_to(2)
        with pytest.raises(InvalidArgumentError, match="must be an integer of shape"):
            ops.get_variable("row", [2], "int32").count_up_to(2)


# -- transforms ------------------------------------------------------------------------------------------


def test_inside_jit_scan_vmap_and_outside_with_a_traced_value():
    variables = Variables({"v": jnp.zeros(2), "n": 0})

    def step(v, x):
        return ops.assign_add(ops.assign_add(v, "n", 1), "v", x * jnp.ones(2)), v["n"]

    last, seen = jax.jit(lambda v, xs: jax.lax.scan(step, v, xs))(variables, jnp.arange(3.0))
    assert last["v"].tolist() == [3.0, 3.0] and int(last["n"]) == 3 and seen.tolist() == [0, 1, 2]
    many = jax.vmap(lambda x: ops.assign(variables, "v", jnp.stack([x, x])), out_axes=0)(jnp.arange(3.0))
    assert many["v"].shape == (3, 2)
    assert jax.jit(lambda x: ops.assign_add(variables, "v", x))(jnp.ones(2))["v"].tolist() == [1.0, 1.0]
    with pytest.raises(InvalidArgumentError, match="Nothing is broadcast"):
        jax.jit(lambda x: ops.assign(variables, "v", x))(1.0)


@pytest.mark.parametrize("name", list(TF_FLOAT))
def test_gradients_flow_through_scatter(name):
    def loss(table, new):
        variables = Variables.from_specs([(VariableSpec("v", (3,), "float32"), table)])
        return (getattr(ops, f"scatter_{name}")(variables, "v", [0, 0, 2], new)["v"] ** 2).sum()

    table, new = jnp.array([1.5, 2.0, 3.0]), jnp.array([0.5, 2.5, 4.0])
    check_grads(loss, (table, new), order=1, modes=("rev",), atol=2e-2, rtol=2e-2)


def test_python_numbers_share_one_executable():
    variables = one(0.0, "float32")
    jitted("assign_add", False).clear_cache()
    for delta in (1.0, 1, np.float32(1), np.float64(1), jnp.float32(1), 1.0, 1, 2, 2.5):
        variables = ops.assign_add(variables, "v", delta)
    # A NumPy and a device argument are two entries of JAX's fast path, over one compilation.
    assert jitted("assign_add", False)._cache_size() <= 2
    assert float(variables["v"]) == 11.5
    for zero in (0.0, -0.0):
        assert np.signbit(ops.assign(variables, "v", zero)["v"]) == np.signbit(zero)


def test_numbers_kept_on_the_device_do_not_leak_tracers():
    variables = one(0.0, "float32")

    @jax.jit
    def traced(x):
        new = variables
        for _ in range(3):
            new = ops.assign_add(new, "v", 0.8125)
        return new["v"] + x

    assert float(traced(1.0)) == 3.4375
    assert float(ops.assign_add(variables, "v", 0.8125)["v"]) == 0.8125


def test_updates_are_offered_for_frames():
    assert set(UPDATES) == {
        "assign",
        "assign_add",
        "assign_sub",
        "count_up_to",
        *(f"scatter_{name}" for name in TF_FLOAT),
        "scatter_nd_update",
        "scatter_nd_add",
        "scatter_nd_sub",
    }
    with pytest.raises(NotFoundError):
        ops.assign(Variables(), "v", 1.0)


# -- inside a model, with handles ------------------------------------------------------------------------

ON_HANDLES = {
    "assign": ([5.0, 6.0],),
    "assign_add": ([1.0, 2.0],),
    "assign_sub": ([1.0, 2.0],),
    **{f"scatter_{name}": ([0, 1], [2.0, 3.0]) for name in ("update", "add", "sub", "mul", "div", "min", "max")},
    **{f"scatter_nd_{name}": ([[1]], [3.0]) for name in ("update", "add", "sub")},
}


@pytest.mark.parametrize("op", list(ON_HANDLES))
def test_functions_take_a_handle_as_in_tf1(op):
    function, arguments = getattr(ops, op), ON_HANDLES[op]
    variables = one([1.0, 2.0], "float32")
    store = ops.VariableStore(variables=variables)
    with store:
        new = function(ops.get_variable("v", [2]), *arguments, use_locking=True, name="update")
    after = function(variables, "v", *arguments)
    assert store.variables["v"].tolist() == new.tolist() == after["v"].tolist()


def test_count_up_to_takes_a_handle_as_in_tf1():
    with ops.VariableStore() as store:
        count = ops.Variable(0, name="n")
        assert int(ops.count_up_to(count, 1)) == 0
        with pytest.raises(OutOfRangeError, match="Reached limit of 1"):
            ops.count_up_to(count, 1)
    assert int(store.variables["n"]) == 1


def test_functions_over_handles_inside_a_scan():
    def net(xs):
        total = ops.get_variable("total", [], initializer=ops.zeros_initializer(), trainable=False)
        return jax.lax.scan(lambda carry, x: (carry, ops.assign_add(total, x)), None, xs)[1]

    out, variables = ops.transform(net).apply(Variables({"total": jnp.float32(0)}), jnp.arange(3.0, dtype=jnp.float32))
    assert out.tolist() == [0.0, 1.0, 3.0] and float(variables["total"]) == 3.0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda v: ops.assign_add(v, 1.0, donate=True), InvalidArgumentError, "donate= is for states"),
        (lambda v: ops.assign("v", 1.0), InvalidTypeError, "takes the variables first, got str"),
        (lambda v: ops.scatter_add("v", [0], [1.0]), InvalidTypeError, "takes the variables first, got str"),
        (lambda v: ops.assign(one(1.0), "v"), InvalidTypeError, "the last argument is missing"),
        (lambda v: ops.assign(v, "v", 1.0), InvalidTypeError, "takes the variables first"),
        (lambda v: ops.assign(v, [1.0, 2.0]), InvalidArgumentError, "Shapes must be equal rank"),
        (lambda v: ops.is_variable_initialized("v"), InvalidTypeError, "inside a model handles, got str"),
        (lambda v: ops.report_uninitialized_variables(["v"]), InvalidTypeError, "got str"),
    ],
)
def test_wrong_arguments_beside_handles(call, error, text):
    with ops.VariableStore():
        v = ops.Variable(1.0, name="v")
        with pytest.raises(error, match=text):
            call(v)
        assert float(v) == 1.0


def test_a_value_of_another_shape():
    variables = one([1.0, 2.0], "float32")
    wider = ops.assign(variables, "v", [[1, 2, 3]], validate_shape=False)
    assert wider["v"].tolist() == [[1.0, 2.0, 3.0]] and wider["v"].dtype == jnp.float32
    assert wider._layout is variables._layout
    same = ops.assign(variables, "v", given := jnp.ones(2), validate_shape=False)
    assert same["v"].unsafe_buffer_pointer() != given.unsafe_buffer_pointer()
    other = ops.assign(variables, "v", given := jnp.ones(3), validate_shape=False)
    assert other["v"].unsafe_buffer_pointer() != given.unsafe_buffer_pointer()
    with pytest.raises(InvalidTypeError, match="not converted silently"):
        ops.assign(one([1, 2], "int32"), "v", [1.5], validate_shape=False)


def test_a_value_of_another_shape_inside_a_model():
    def net():
        v = ops.get_variable("v", [2], initializer=ops.zeros_initializer())
        assert ops.assign(v, [1.0, 2.0, 3.0], validate_shape=False).shape == (3,)
        assert v.shape == (3,)
        return v * 2.0

    model = ops.transform(net)
    variables = model.init(0)
    assert variables["v"].shape == (2,)
    out, after = model.apply(variables)
    assert out.tolist() == [2.0, 4.0, 6.0] and after["v"].tolist() == [1.0, 2.0, 3.0]

    def inside():
        v = ops.get_variable("v", [2], initializer=ops.zeros_initializer())
        return jax.jit(lambda: ops.assign(v, [1.0], validate_shape=False))()

    with pytest.raises(TransformError, match="where shapes are fixed"):
        ops.transform(inside).init(0)


def test_questions_about_handles():
    store = ops.VariableStore()  # no seed: what is random stays without value
    with store:
        empty, full = ops.get_variable("empty", [2]), ops.Variable(1.0, name="full")
        local = ops.get_local_variable("local", [2])
        assert not ops.is_variable_initialized(empty) and ops.is_variable_initialized(full)
        assert ops.report_uninitialized_variables() == ["empty", "local"]
        assert ops.report_uninitialized_variables([full, local]) == ["local"]
        with pytest.raises(FailedPreconditionError, match="uninitialized value empty, local"):
            ops.assert_variables_initialized()
        ops.assert_variables_initialized([full])
        ops.assign(empty, [1.0, 2.0])
        assert ops.report_uninitialized_variables() == ["local"]
    assert ops.report_uninitialized_variables(store.variables) == ["local"]
    assert ops.variables_initializer(store.variables, 0, []) is store.variables
    with pytest.raises(FailedPreconditionError, match=r"jv\.transform"):
        ops.report_uninitialized_variables()
    with pytest.raises(FailedPreconditionError, match="frame has ended"):
        ops.is_variable_initialized(full)

"""`Variables` as a mapping, a value and a pytree node."""

import copy
import gc
import pickle
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from widths import FLOAT, INT

from jaxvars.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidTypeError,
    NotFoundError,
)
from jaxvars.layout import Layout
from jaxvars.spec import Hole, VariableSpec, is_hole
from jaxvars.variables import Variables

NAMES = st.lists(st.from_regex(r"[a-z0-9_]{1,3}(/[a-z0-9_]{1,3}){0,2}", fullmatch=True), unique=True, max_size=8)


def make(**values):
    return Variables({key.replace("__", "/"): value for key, value in values.items()})


def numbered(names):
    return Variables({name: np.float32(i) for i, name in enumerate(names)})


# -- construction and mapping ----------------------------------------------------------------------------


def test_reads_by_name_tf_name_handle_and_spec():
    variables = make(conv__w=jnp.ones((2, 3), jnp.float32), b=2)
    spec = variables.variable_specs["conv/w"]
    assert variables["conv/w"] is variables["conv/w:0"] is variables[spec]
    assert spec == VariableSpec("conv/w", (2, 3), "float32")
    assert "b:0" in variables and spec in variables and "c" not in variables and 3 not in variables
    assert list(variables) == ["b", "conv/w"] and len(variables) == 2
    assert variables.get("c") is None and variables.get("b:0") is variables["b"]


def test_numbers_become_strong_arrays_of_jax_dtypes():
    variables = make(f=1.0, i=1, b=True, l=[1, 2], n=np.ones(2), w=jnp.asarray(1.0))
    assert {key: str(value.dtype) for key, value in variables.items()} == {
        "f": FLOAT,
        "i": INT,
        "b": "bool",
        "l": INT,
        "n": FLOAT,
        "w": FLOAT,
    }
    assert not any(value.weak_type for value in variables.values())


@pytest.mark.parametrize("value", ["text", None, {"b": 1.0}, [[1], [1, 2]], object()])
def test_refuses_what_is_no_array_and_names_it(value):
    with pytest.raises(InvalidTypeError, match='"a/b"'):
        Variables({"a/b": value})


@pytest.mark.parametrize("name", ["", "/a", "a/", ":0"])
def test_refuses_bad_names(name):
    with pytest.raises(InvalidArgumentError, match="not a variable name"):
        Variables({name: 1.0})


def test_refuses_a_name_given_twice_and_what_is_no_mapping():
    with pytest.raises(InvalidArgumentError, match="names given twice: a"):
        Variables({"a": 1.0, "a:0": 2.0})
    with pytest.raises(InvalidTypeError, match="from_nested"):
        Variables([1.0])


@pytest.mark.usefixtures("without_x64")
def test_an_integer_that_does_not_fit_raises_rather_than_wraps():
    with pytest.raises(InvalidArgumentError, match=r'"step".*does not fit int32'):
        Variables({"step": np.int64(2**40)})


def test_missing_name_lists_the_nearest_and_knows_scopes():
    variables = make(conv1__weights=1.0, conv1__biases=1.0)
    with pytest.raises(KeyError, match="Nearest: conv1/weights") as caught:
        variables["conv1/weight"]
    assert isinstance(caught.value, NotFoundError) and "does not exist" in str(caught.value)
    with pytest.raises(NotFoundError, match=r'variables\.scope\("conv1"\)'):
        variables["conv1"]
    with pytest.raises(InvalidTypeError, match="name, handle or spec"):
        variables[3]


def test_setting_an_item_shows_what_to_write():
    variables = make(w=1.0)
    with pytest.raises(TypeError, match=r'variables\.replace\(\{"w": value\}\).*jv\.assign\(variables, "w"'):
        variables["w"] = 2.0
    with pytest.raises(TypeError, match="select"):
        del variables["w"]
    with pytest.raises(AttributeError):
        variables.note = 1


def test_comparison_and_hash_are_identity():
    one, other = make(w=1.0), make(w=1.0)
    assert one == one and one != other and len({one, other}) == 2


def test_the_same_array_under_two_names_is_copied():
    value = jnp.ones(3)
    variables = Variables({"a": value, "b": value, "c": jax.device_put(value, value.sharding)})
    pointers = {leaf.unsafe_buffer_pointer() for leaf in variables.values()}
    assert len(pointers) == 3
    jax.block_until_ready(jax.jit(lambda v: jax.tree.map(lambda x: x + 1, v), donate_argnums=0)(variables))


def test_repr_is_one_line():
    variables = make(a=jnp.ones((2, 3), "float32"), b=np.int32(1), c=Hole((4,), "float16"), d=np.float32(1), e=1.0)
    assert repr(variables) == (
        "Variables(5 variables, 13 elements, 1 uninitialized: "
        "a float32[2,3], b int32[], c float16[4], d float32[], ...)"
    )
    assert repr(Variables()) == "Variables(0 variables, 0 elements)"
    assert "a 'fast'" in repr(variables.labels({".*": "fast"}))


def test_a_deleted_value_says_who_took_it():
    variables = make(w=jnp.ones(3, jnp.float32), b=1.0)
    jax.block_until_ready(jax.jit(lambda w: w + 1, donate_argnums=0)(variables["w"]))
    with pytest.raises(FailedPreconditionError, match=r'"w" is gone.*donate_argnums.*variables = step'):
        variables["w"]
    assert float(variables["b"]) == 1.0
    assert "w float32[3]" in repr(variables)


# -- structure -------------------------------------------------------------------------------------------


def specs_of(*pairs):
    return Variables.from_specs((VariableSpec(key, (), "float32", **more), np.float32(0)) for key, more in pairs)


def test_structure_does_not_depend_on_creation_order_or_notes():
    one = specs_of(("a", {}), ("b", {"defined_at": "x.py:1", "placement": "/cpu:0"}))
    other = specs_of(("b", {}), ("a", {"defined_at": "y.py:2"}))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert hash(one._layout) == hash(other._layout) and one._layout == other._layout
    assert one._layout.creation_order == ("a", "b") and other._layout.creation_order == ("b", "a")
    assert one.variable_specs["b"].defined_at == "x.py:1"


def test_structure_depends_on_names_flags_collections_and_constraints():
    def nonneg(x):
        return jnp.maximum(x, 0)

    states = [
        specs_of(("a", {})),
        specs_of(("b", {})),
        specs_of(("a", {"trainable": False})),
        specs_of(("a", {"collections": ("variables",)})),
        specs_of(("a", {"constraint": nonneg})),
    ]
    assert len({jax.tree.structure(state) for state in states}) == len(states)


def test_a_constraint_written_as_lambda_in_a_model_is_the_same_in_each_run():
    def run(bound=None):
        if bound is None:
            return specs_of(("a", {"constraint": lambda x: x + 1}))
        return specs_of(("a", {"constraint": lambda x: x + bound}))

    assert run()._layout is run()._layout
    assert run(1)._layout != run(2)._layout  # a closure: not known to be the same


def test_layouts_are_interned_and_die_with_their_last_user():
    names = [f"only_here/{i}" for i in range(3)]
    one, other = numbered(names), numbered(names)
    assert one._layout is other._layout
    found = [None] * 8

    def build(i):
        found[i] = numbered(names)._layout

    threads = [threading.Thread(target=build, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(layout is one._layout for layout in found)
    del one, other
    found.clear()
    gc.collect()
    alive = [o for o in gc.get_objects() if isinstance(o, Layout) and "only_here/0" in o.keys]
    assert not alive


def test_pickle_copy_and_deepcopy_keep_the_layout():
    variables = make(a__b=jnp.arange(3.0), c=Hole((2,), "float32")).freeze("c")
    for twin in (pickle.loads(pickle.dumps(variables)), copy.copy(variables), copy.deepcopy(variables)):
        assert twin._layout is variables._layout
        assert np.array_equal(twin["a/b"], variables["a/b"]) and is_hole(twin["c"])
    assert copy.deepcopy(variables)["a/b"] is not variables["a/b"]


def test_pickle_into_another_process_keeps_values_and_structure():
    variables = make(a__b=jnp.arange(3.0), c=1).freeze("c")
    script = (
        "import pickle, sys, jax, jaxvars.variables as m\n"
        "v = pickle.load(sys.stdin.buffer)\n"
        "w = m.Variables({'c': 1, 'a/b': jax.numpy.arange(3.0)}).freeze('c')\n"
        "assert v._layout is w._layout or v._layout == w._layout\n"
        "assert jax.tree.structure(v) == jax.tree.structure(w)\n"
        "sys.stdout.buffer.write(pickle.dumps(jax.tree.map(lambda x: x + 1, v)))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(variables), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    back = pickle.loads(done.stdout)
    assert back._layout is variables._layout
    assert back["a/b"].tolist() == [1.0, 2.0, 3.0] and int(back["c"]) == 2


# -- pytree ----------------------------------------------------------------------------------------------


def test_key_paths_are_names():
    variables = make(scope__w=1.0, b=1.0)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
    assert [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths] == ["b", "scope/w"]
    assert paths[1] == (jax.tree_util.DictKey("scope/w"),)


@pytest.mark.parametrize("filler", [None, "text", True, object(), (2, 3)])
def test_unflatten_accepts_anything(filler):
    variables = make(a=1.0, b=2.0)
    changed = jax.tree.unflatten(jax.tree.structure(variables), [filler, filler])
    assert changed._leaves == (filler, filler) and changed["a"] is filler
    repr(changed), str(changed.summary()), changed.size, changed.variable_specs


def test_goes_through_the_transforms():
    variables = make(w=jnp.arange(3.0), step=1)

    def loss(v, x):
        return (v["w"] * x).sum()

    grads = jax.jit(jax.grad(loss, allow_int=True))(variables, 2.0)
    assert grads["w"].tolist() == [2.0, 2.0, 2.0]
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), variables)
    assert stacked._layout is variables._layout
    assert jax.vmap(loss, (0, None))(stacked, 1.0).tolist() == [3.0, 3.0]
    last, _ = jax.lax.scan(lambda v, _: (jax.tree.map(lambda x: x + 1, v), None), variables, None, 4)
    assert last["w"].tolist() == [4.0, 5.0, 6.0] and int(last["step"]) == 5
    shapes = jax.eval_shape(lambda v: v, make(w=Hole((2, 3), "float32"), b=1.0))
    assert shapes.uninitialized == ("w", "b") and shapes["w"].shape == (2, 3)


def test_a_steady_jitted_call_neither_compares_nor_hashes_the_layout(monkeypatch):
    variables = numbered([f"layer{i}/w" for i in range(50)])
    traces = []

    @jax.jit
    def step(v):
        traces.append(1)
        return jax.tree.map(lambda x: x + 1, v)

    variables = step(step(variables))
    calls = []
    real_eq, real_hash = Layout.__eq__, Layout.__hash__
    monkeypatch.setattr(Layout, "__eq__", lambda self, other: calls.append("eq") or real_eq(self, other))
    monkeypatch.setattr(Layout, "__hash__", lambda self: calls.append("hash") or real_hash(self))
    for _ in range(5):
        variables = step(variables)
    assert calls == [] and len(traces) == 1
    pickled = pickle.loads(pickle.dumps(variables))
    step(pickled)
    assert calls == [] and len(traces) == 1


def test_registering_the_class_again_on_reload_is_harmless():
    script = (
        "import importlib, jax, jaxvars.variables as m\n"
        "old = m.Variables({'a': 1.0})\n"
        "m = importlib.reload(m)\n"
        "new = m.Variables({'a': 1.0})\n"
        "print(len(jax.tree.leaves(old)), len(jax.tree.leaves(new)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "1"], done.stderr


@given(NAMES, st.randoms())
@settings(max_examples=40, deadline=None)
def test_any_names_round_trip_whatever_the_order(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    values = {name: np.float32(i) for i, name in enumerate(names)}
    one = Variables.from_specs((VariableSpec(n, (), "float32"), values[n]) for n in names)
    other = Variables.from_specs((VariableSpec(n, (), "float32"), values[n]) for n in shuffled)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert one._leaves == other._leaves
    leaves, structure = jax.tree.flatten(one)
    assert jax.tree.unflatten(structure, leaves)._leaves == one._leaves
    paths = jax.tree_util.tree_leaves_with_path(one)
    assert [path[0].key for path, _ in paths] == sorted(names) == list(one)
    assert [leaf for _, leaf in paths] == leaves


@given(st.integers(1, 700), st.lists(st.tuples(st.integers(0, 699), st.integers()), max_size=12))
@settings(max_examples=40, deadline=None)
def test_set_then_get_at_every_size(size, writes):
    model = {f"v{i:03}": i for i in range(size)}
    state = Variables.from_specs((VariableSpec(key, (), "int32"), value) for key, value in model.items())
    first = dict(model)
    for place, value in writes:
        key = f"v{place % size:03}"
        model[key] = value
        state = state._set(key, value)
        assert state[key] == value
    assert dict(state) == model and state._leaves == tuple(model.values())
    assert jax.tree.leaves(state) == list(model.values())
    untouched = Variables.from_specs((VariableSpec(k, (), "int32"), v) for k, v in first.items())
    assert untouched._layout is state._layout

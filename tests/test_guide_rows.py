"""The 78 statements of the TF1 guides, one test each; `docs/guide-rows.md` is the table of them.

The rows are those of the reference's part A; `test_every_row_is_tested` keeps count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError

TABLE = Path(__file__).parent.parent / "docs" / "guide-rows.md"


@pytest.fixture(autouse=True)
def _rank_promotion() -> Iterator[None]:
    """The guides add vectors to matrices, as TF1 code does."""
    with jax.numpy_rank_promotion("allow"):
        yield


class Row(NamedTuple):
    """One row of the table; `state` is "holds: `test_...`"."""

    number: int
    statement: str
    theirs: str
    ours: str
    state: str


def _rows() -> list[Row]:
    text = TABLE.read_text(encoding="utf-8")
    cell = r"(.*?)\n\n</td>"
    code = r"```python\n(.*?)\n```\n\n</td>"
    pattern = rf"<tr><td>(\d+)</td><td>\n\n{cell}<td>\n\n{code}<td>\n\n{code}<td>\n\n{cell}</tr>"
    found = re.findall(pattern, text, flags=re.DOTALL)
    return [Row(int(number), statement, theirs, ours, state) for number, statement, theirs, ours, state in found]


ROWS = _rows()


def test_every_row_is_tested() -> None:
    tests = {name for name in globals() if name.startswith("test_row_")}
    assert [row.number for row in ROWS] == list(range(1, 79))
    assert all(row.state.startswith(f"holds: `test_row_{row.number:02d}_") for row in ROWS)
    assert {row.state.removeprefix("holds: ").strip("`") for row in ROWS} == tests and len(tests) == 78
    assert "All 78 rows hold" in TABLE.read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_x64")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row_{row.number:02d}")
def test_the_tables_snippet_runs(row: Row, tmp_path: Path) -> None:
    exec(
        compile(row.ours, f"guide-rows.md row {row.number}", "exec"),
        {"jv": jv, "jax": jax, "jnp": jnp, "np": np, "folder": str(tmp_path)},
    )


# What a variable is


def _store() -> jv.VariableStore:
    return jv.VariableStore(0)


def _zeros(name: str, shape: Any = ()) -> jv.Variable:
    return jv.get_variable(name, shape, initializer=jv.zeros_initializer())


def _specs(*names: str) -> jv.Variables:
    return jv.transform(lambda: [jv.get_variable(name, [2]) for name in names]).specs()


def _list(variables: jv.Variables, name: str) -> Any:
    return np.asarray(variables[name]).tolist()


def test_row_01_outlives_one_call() -> None:
    model = jv.transform(lambda: _zeros("n").assign_add(1))
    variables = model.init(0)
    seen = []
    for _ in range(3):
        out, variables = jax.jit(model.apply)(variables)
        seen.append((float(out), float(variables["n"])))
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_row_02_one_state_for_several_models() -> None:
    train = jv.transform(lambda: _zeros("v").assign_add(1))
    read = jv.transform(lambda: _zeros("v").read_value())
    _, variables = train.apply(train.init(0))
    assert read(variables) == 1


@pytest.mark.parametrize("name", [None, ""])
def test_row_03_name_is_required_and_identifies(name: Any) -> None:
    with _store() as store:
        with pytest.raises((TypeError, ValueError), match="needs a name"):
            jv.get_variable(name, [1])
        v = jv.get_variable("v", [1])
    assert store.variables[v] is store.variables["v"] is store.variables["v:0"]


def test_row_04_returns_existing_variable() -> None:
    with _store() as store:
        v = jv.get_variable("v", [1])
        with jv.variable_scope("", reuse=True):
            assert jv.get_variable("v", [1]) is v
    assert list(store.variables) == ["v"]


def test_row_05_get_variable_with_shape() -> None:
    with _store() as store:
        v = jv.get_variable("my_variable", [1, 2, 3])
        assert (v.name, v.shape, v.get_shape().as_list()) == ("my_variable:0", (1, 2, 3), [1, 2, 3])
    assert store.variables["my_variable"].shape == (1, 2, 3)


def test_row_06_default_dtype_and_initializer() -> None:
    def glorot() -> Any:
        return jv.get_variable("v", [30, 20], initializer=jv.glorot_uniform_initializer())

    variables = jv.transform(lambda: jv.get_variable("v", [30, 20])).init(0)
    assert variables["v"].dtype == jnp.float32
    assert jnp.all(variables["v"] == jv.transform(glorot).init(0)["v"])
    limit = (6 / 50) ** 0.5
    assert 0.9 * limit < float(jnp.max(jnp.abs(variables["v"]))) <= limit


def test_row_07_initializer_class() -> None:
    with _store() as store:
        jv.get_variable("my_int_variable", [1, 2, 3], dtype=jnp.int32, initializer=jv.zeros_initializer)
    value = store.variables["my_int_variable"]
    assert value.shape == (1, 2, 3) and value.dtype == jnp.int32 and not value.any()


def test_row_08_initialized_from_a_tensor() -> None:
    with _store() as store:
        v = jv.get_variable("other_variable", dtype=jnp.int32, initializer=jnp.array([23, 42], jnp.int32))
        assert v.shape == (2,) and v.dtype == jnp.int32
    assert _list(store.variables, "other_variable") == [23, 42]


def test_row_09_no_shape_with_a_tensor() -> None:
    with _store(), pytest.raises(ValueError, match="If initializer is a constant, do not specify shape"):
        jv.get_variable("v", [2], initializer=jnp.array([23.0, 42.0]))


def test_row_10_convenient_initializers() -> None:
    for initializer in (
        jv.zeros_initializer,
        jv.ones_initializer,
        jv.constant_initializer,
        jv.random_normal_initializer,
        jv.random_uniform_initializer,
        jv.truncated_normal_initializer,
        jv.glorot_normal_initializer,
        jv.glorot_uniform_initializer,
        jv.he_normal_initializer,
        jv.he_uniform_initializer,
        jv.lecun_normal_initializer,
        jv.lecun_uniform_initializer,
        jv.uniform_unit_scaling_initializer,
        jv.variance_scaling_initializer,
        jv.orthogonal_initializer,
        jv.identity_initializer,
    ):
        with _store() as store:
            jv.get_variable("v", [4, 4], initializer=initializer)
        assert jnp.all(jnp.isfinite(store.variables["v"])), initializer


def test_row_11_collections_are_named_lists() -> None:
    with _store():
        for item in (1, 1, "one", jnp.ones(2)):
            jv.add_to_collection("things", item)
        assert [type(item).__name__ for item in jv.get_collection("things")] == ["int", "int", "str", "ArrayImpl"]


def test_row_12_default_collections() -> None:
    with _store():
        v = jv.get_variable("v", [1])
        assert v.collections == ("variables", "trainable_variables")
        assert jv.get_collection(jv.GraphKeys.GLOBAL_VARIABLES) == [v]
        assert jv.get_collection(jv.GraphKeys.TRAINABLE_VARIABLES) == [v]
        assert jv.get_collection(jv.GraphKeys.LOCAL_VARIABLES) == []


def test_row_13_local_collection() -> None:
    with _store() as store:
        v = jv.get_variable("my_local", shape=(), collections=[jv.GraphKeys.LOCAL_VARIABLES])
        assert (jv.local_variables(), jv.global_variables(), jv.trainable_variables()) == ([v], [], [v])
        assert not jv.get_local_variable("really_local", shape=()).trainable
    assert list(store.variables.trainable) == ["my_local"]


def test_row_14_trainable_false() -> None:
    with _store():
        v = jv.get_variable("my_non_trainable", shape=(), trainable=False)
        assert v.trainable is False
        assert (jv.global_variables(), jv.trainable_variables()) == ([v], [])


def test_row_15_any_string_names_a_collection() -> None:
    with _store():
        assert jv.get_collection("no such thing") == []
        v = jv.get_variable("v", [1], collections=["of my own"])
        assert jv.get_collection("of my own") == [v]


def test_row_16_add_to_collection() -> None:
    with _store():
        my_local = jv.get_local_variable("my_local", shape=())
        jv.add_to_collection("my_collection_name", my_local)
        jv.add_to_collection("my_collection_name", my_local)
        assert jv.get_collection("my_collection_name") == [my_local, my_local]


def test_row_17_get_collection() -> None:
    with _store():
        jv.add_to_collection("mine", "first")
        jv.add_to_collection("mine", "second")
        copy = jv.get_collection("mine")
        copy.clear()
        assert jv.get_collection("mine") == ["first", "second"]


# Initialization


def _home_of(variables: jv.Variables, name: str) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
    (device,) = variables[name].devices()
    return device


@pytest.mark.parametrize("text", ["/cpu:1", "/device:CPU:1"])
def test_row_18_place_on_a_device(text: str) -> None:
    with _store() as store, jv.device(text):
        v = jv.get_variable("v", [1])
    assert v.device == "/device:CPU:1"
    assert _home_of(store.variables, "v") == jax.devices("cpu")[1]


def test_row_19_canonical_device_string() -> None:
    with jv.VariableStore():  # without a seed nothing is placed, so the device need not be here
        with jv.device("/gpu:1"):
            v = jv.get_variable("v", [1])
        with jv.device("/device:GPU:1"):
            assert jv.get_variable("w", [1]).device == v.device == "/device:GPU:1"
    with _store(), jv.device("/gpu:1"), pytest.raises(ValueError, match="Cannot assign a device for operation v"):
        jv.get_variable("v", [1])


def test_row_20_placement_matters() -> None:
    def net(x: Any) -> Any:
        with jv.device("/cpu:1"):
            w = _zeros("w", [2])
        with jv.device("/cpu:2"):
            n = _zeros("n")
        n.assign_add(1.0)
        return x + w + n

    model = jv.transform(net)
    out, variables = model.apply(model.init(0, jnp.ones(2)), jnp.ones(2))
    assert out.tolist() == [2, 2] and variables["n"] == 1
    assert [_home_of(variables, name).id for name in "nw"] == [2, 1]
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = variables.to(jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    assert jax.jit(model.apply)(spread, jnp.ones(2))[1]["n"] == 2


def test_row_21_replica_device_setter() -> None:
    setter = jv.train.replica_device_setter(cluster={"ps": ["ps0:2222", "ps1:2222"], "worker": ["worker0:2222"]})
    with _store(), jv.device(setter):
        devices = [_zeros(name).device for name in "abc"]
    assert devices == ["/job:ps/task:0", "/job:ps/task:1", "/job:ps/task:0"]


def test_row_22_uninitialized_read_raises() -> None:
    with jv.VariableStore():
        v = jv.get_variable("scope/v", [2, 2])
        with pytest.raises(FailedPreconditionError, match="Attempting to use uninitialized value scope/v"):
            v.read_value()
    model = jv.transform(lambda: jv.get_variable("v", [2]) + 1)
    with pytest.raises(FailedPreconditionError, match="v: uninitialized"):
        model.apply(model.specs())


def test_row_23_init_initializes_everything() -> None:
    model = jv.transform(lambda x: jv.layers.batch_normalization(jv.layers.dense(x, 2)))
    variables = model.init(0, jnp.ones([1, 3]))
    assert not variables.uninitialized and len(variables) == 6


def test_row_24_restored_values_run_no_initializer() -> None:
    runs = []

    def expensive(key: Any, shape: Any, dtype: Any) -> Any:
        runs.append(shape)
        return jnp.zeros(shape, dtype)

    def net() -> None:
        for name in ("old", "new"):
            jv.get_variable(name, [2] if name == "old" else [3], initializer=expensive)

    variables = jv.transform(net).init(0, variables=jv.Variables({"old": np.ones(2, np.float32)}))
    assert _list(variables, "old") == [1, 1] and set(map(tuple, runs)) == {(3,)}


def test_row_25_global_variables_initializer() -> None:
    def net() -> None:
        jv.get_variable("w", [2])
        jv.get_variable("frozen", [2], trainable=False)
        jv.get_local_variable("seen", [2])

    variables = jv.transform(net).specs()
    assert jv.global_variables_initializer(variables, 0).uninitialized == ("seen",)
    assert jv.local_variables_initializer(variables, 0).uninitialized == ("w", "frozen")


def test_row_26_initialize_one_variable() -> None:
    variables = jv.variables_initializer(_specs("my_variable", "w"), 0, names=["my_variable"])
    assert variables.uninitialized == ("w",)
    with _store(), pytest.raises(FailedPreconditionError, match=r"jv.variables_initializer\(.*'my_variable'"):
        _ = jv.get_variable("my_variable", [2]).initializer


def test_row_27_report_uninitialized_variables() -> None:
    def net() -> None:
        jv.get_local_variable("seen", [2])
        jv.get_variable("w", [2])
        jv.get_variable("b", [2])

    variables = jv.transform(net).specs()
    assert jv.report_uninitialized_variables(variables) == ["w", "b", "seen"]
    assert jv.report_uninitialized_variables(jv.variables_initializer(variables, 0)) == []


def test_row_28_initialization_has_no_order() -> None:
    def net(names: Any) -> Any:
        return [jv.get_variable(name, [2]) for name in names]

    model = jv.transform(net)
    there, back = model.init(0, "ab"), model.init(0, "ba")
    assert all(jnp.all(there[name] == back[name]) for name in "ab")


def test_row_29_initialized_value() -> None:
    def net() -> Any:
        v = _zeros("v")
        return jv.get_variable("w", initializer=v.initialized_value() + 1)

    variables = jv.transform(net).init(0)
    assert (variables["v"], variables["w"]) == (0, 1)


# Use


def test_row_30_variable_in_an_expression() -> None:
    with _store():
        v = _zeros("v")
        w = v + 1
        assert isinstance(w, jax.Array) and not isinstance(w, jv.Variable) and w == 1
        v.assign(5.0)
        assert w == 1


def test_row_31_assignment_is_a_value() -> None:
    with _store() as store:
        assignment = _zeros("v").assign_add(1)
        assert not hasattr(assignment, "run")
    assert assignment == store.variables["v"] == 1


def test_row_32_assignment_returns_the_new_value() -> None:
    with _store():
        v = _zeros("v")
        assert [float(v.assign_add(1)) for _ in range(3)] == [1, 2, 3]


def test_row_33_assign_and_friends() -> None:
    with _store() as store:
        v = _zeros("v", [3])
        v.assign([1, 2, 3])
        v.assign_sub([1, 1, 1])
        v.scatter_add([0, 0], [1, 1])
        v.scatter_update([2], [9])
        v.load([10, 20, 30])
        count = jv.get_variable("count", [], "int32")
        assert [int(count.count_up_to(2)) for _ in range(2)] == [0, 1]
        with pytest.raises(IndexError, match="Reached limit of 2"):
            count.count_up_to(2)
    assert _list(store.variables, "v") == [10, 20, 30] and store.variables["count"] == 2
    variables = jv.scatter_sub(store.variables, v, [1], [5])
    assert _list(variables, "v") == [10, 15, 30] and _list(store.variables, "v") == [10, 20, 30]


def test_row_34_optimizers_update() -> None:
    optimizer = jv.train.AdamOptimizer(0.1)
    variables = optimizer.init(jv.Variables({"v": 1.0}))
    gradients = jv.grad(lambda variables: variables["v"] ** 2)(variables)
    variables = optimizer.apply_gradients(gradients, variables)
    assert variables["v"] < 1 and {"v/Adam", "v/Adam_1"} < set(variables)


def test_row_35_read_after_assign() -> None:
    def net() -> Any:
        v = _zeros("v")
        before = v.read_value()
        v.assign_add(1)
        return before, v.read_value()

    model = jv.transform(net)
    (before, after), _ = jax.jit(model.apply)(model.init(0))
    assert (before, after) == (0, 1)


# Saver


def _save(folder: Path, saver: jv.train.Saver | None = None, **values: Any) -> str:
    variables = jv.Variables({name: jnp.asarray(value, jnp.float32) for name, value in values.items()})
    path = (saver or jv.train.Saver()).save(variables, folder / "model.ckpt")
    assert path == str(folder / "model.ckpt")
    return path


def test_row_36_saver_saves_all_or_some(tmp_path: Path) -> None:
    assert jv.train.list_variables(_save(tmp_path, v1=[1] * 3, v2=[1] * 5)) == [("v1", [3]), ("v2", [5])]
    path = _save(tmp_path / "some", jv.train.Saver(["v1"]), v1=[1] * 3, v2=[1] * 5)
    assert jv.train.list_variables(path) == [("v1", [3])]


def test_row_37_restore_without_the_code(tmp_path: Path) -> None:
    """Another process, without the code, runs in tests/test_meta_graph.py."""
    path = _save(tmp_path, w=[1.0, 2.0])
    written = jv.train.export_meta_graph(path + ".meta", jv.transform(lambda: jv.get_variable("w", [2]) * 2))
    graph = jv.train.import_meta_graph(path)  # with or without ".meta"
    variables = graph.saver.restore(graph.specs, path)
    assert written == path + ".meta" and graph.apply(variables)[0].tolist() == [2, 4]


def test_row_38_checkpoint_maps_names_to_values(tmp_path: Path) -> None:
    path = _save(tmp_path, v1=[1, 2, 3], v2=7)
    with jv.checkpoint.open(path) as reader:
        assert {name: np.asarray(reader[name]).tolist() for name in reader} == {"v1": [1, 2, 3], "v2": 7}


def test_row_39_names_in_the_checkpoint(tmp_path: Path) -> None:
    variables = jv.Variables({"scope/v": jnp.ones(3)})
    own = jv.train.Saver().save(variables, tmp_path / "own.ckpt")
    chosen = jv.train.Saver({"chosen": "scope/v:0"}).save(variables, tmp_path / "chosen.ckpt")
    assert own and jv.train.list_variables(own) == [("scope/v", [3])]
    assert chosen and jv.train.list_variables(chosen) == [("chosen", [3])]


def test_row_40_inspect_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _save(tmp_path, v1=[1, 1, 1], v2=[0, 0])
    jv.checkpoint.inspect(path, tensor_name="v1")
    assert capsys.readouterr().out.startswith("tensor: v1 (float32) [3]\n[1. 1. 1.]\n")
    jv.checkpoint.inspect(path)
    assert "tensor: v2 (float32) [2]" in capsys.readouterr().out


def test_row_41_save(tmp_path: Path) -> None:
    with _store() as store:
        v1 = jv.get_variable("v1", shape=[3], initializer=jv.zeros_initializer)
        v2 = jv.get_variable("v2", shape=[5], initializer=jv.zeros_initializer)
        v1.assign(v1 + 1)
        v2.assign(v2 - 1)
    path = jv.train.Saver().save(store.variables, tmp_path / "model.ckpt")
    assert path == str(tmp_path / "model.ckpt")
    assert jv.train.load_variable(path, "v1").tolist() == [1] * 3
    assert jv.train.load_variable(path, "v2").tolist() == [-1] * 5


def test_row_42_restore(tmp_path: Path) -> None:
    path = _save(tmp_path, v1=[1] * 3, v2=[-1] * 5)
    with jv.VariableStore() as store:
        v1 = jv.get_variable("v1", shape=[3])
        jv.get_variable("v2", shape=[5])
    store.variables = jv.train.Saver().restore(store.variables, path)
    assert store.variables[v1].tolist() == [1] * 3 and _list(store.variables, "v2") == [-1] * 5
    with store:
        assert jv.get_variable("v1", shape=[3]).eval().tolist() == [1] * 3


def test_row_43_restored_need_no_initialization(tmp_path: Path) -> None:
    path = _save(tmp_path, a=[1, 2], b=[3, 4])
    variables = jv.train.Saver().restore(_specs("a", "b"), path)
    assert jv.report_uninitialized_variables(variables) == []


def test_row_44_saver_without_arguments(tmp_path: Path) -> None:
    with _store() as store:
        with jv.variable_scope("scope"):
            jv.get_variable("v", [3])
        jv.get_variable("frozen", [], trainable=False)
        jv.get_local_variable("seen", [])
    path = jv.train.Saver().save(store.variables, tmp_path / "model.ckpt")
    assert path and jv.train.list_variables(path) == [("frozen", []), ("scope/v", [3])]


def test_row_45_rename_on_restore(tmp_path: Path) -> None:
    path = _save(tmp_path, weights=[1, 2])
    with _store() as store:
        params = _zeros("params", [2])
    variables = jv.train.Saver({"weights": params}).restore(store.variables, path)
    assert _list(variables, "params") == [1, 2]


def test_row_46_restore_a_subset(tmp_path: Path) -> None:
    five = [f"layer{i}" for i in range(5)]
    path = _save(tmp_path, **dict.fromkeys(five, 1))
    six = jv.Variables({name: np.float32(0) for name in [*five, "layer5"]})
    variables = jv.train.Saver(five).restore(six, path)
    assert [float(variables[name]) for name in six] == [1, 1, 1, 1, 1, 0]
    with pytest.raises(KeyError, match="layer5"):
        jv.train.Saver().restore(six, path)


@pytest.mark.parametrize("wrong", [3, "v1", 1.5])
def test_row_47_var_list_is_list_or_dict(wrong: Any) -> None:
    jv.train.Saver(["v1"])
    jv.train.Saver({"v1": "v1"})
    with pytest.raises(TypeError, match="Variables to save should be passed in a dict or a list"):
        jv.train.Saver(wrong)


def test_row_48_restore_one_initialize_the_other(tmp_path: Path) -> None:
    path = _save(tmp_path, v1=[1] * 3, v2=[1] * 5)
    with jv.VariableStore() as store:
        v1 = jv.get_variable("v1", [3])
        v2 = jv.get_variable("v2", [5])
    variables = jv.train.Saver({"v2": v2}).restore(store.variables, path)
    assert variables.uninitialized == ("v1",)
    variables = jv.variables_initializer(variables, 0, names=[v1])
    assert not variables.uninitialized and _list(variables, "v2") == [1] * 5


def test_row_49_save_one_under_another_name(tmp_path: Path) -> None:
    path = _save(tmp_path, jv.train.Saver({"my_v2": "v2"}), v1=[1] * 3, v2=[1] * 5)
    assert jv.train.list_variables(path) == [("my_v2", [5])]


def test_row_50_several_savers(tmp_path: Path) -> None:
    path = _save(tmp_path, v1=1, v2=2)
    first, both = jv.train.Saver(["v1"]), jv.train.Saver(["v1", "v2"])
    changed = jv.Variables({"v1": np.float32(0), "v2": np.float32(0)})
    assert [float(x) for x in first.restore(changed, path).values()] == [1, 0]
    assert [float(x) for x in both.restore(changed, path).values()] == [1, 2]
    assert [float(x) for x in changed.values()] == [0, 0]


def test_row_51_initialize_the_rest(tmp_path: Path) -> None:
    path = _save(tmp_path, v=[1, 1])
    model = jv.transform(lambda: [jv.get_variable(name, [2]) for name in ("v", "head")])
    restored = jv.train.Saver(["v"]).restore(model.specs(), path)
    for variables in (model.init(0, variables=restored), jv.variables_initializer(restored, 0)):
        assert not variables.uninitialized and _list(variables, "v") == [1, 1]
        assert jnp.all(variables["head"] == model.init(0)["head"])


# Sharing


def test_row_52_two_ways_of_sharing() -> None:
    def layer(x: Any, weights: Any = None) -> Any:
        return x * (jv.get_variable("weights", [2]) if weights is None else weights)

    with _store() as store:
        weights = jv.get_variable("weights", [2])
        passed = layer(jnp.ones(2), weights)
        with jv.variable_scope("", reuse=True):
            assert jnp.all(layer(jnp.ones(2)) == passed)
    assert list(store.variables) == ["weights"]


def test_row_53_layers_share_by_scope() -> None:
    def net(x: Any) -> Any:
        with jv.variable_scope("model"):
            y = jv.layers.dense(x, 2)
        with jv.variable_scope("model", reuse=True):
            return y - jv.layers.dense(x, 2)

    model = jv.transform(net)
    variables = model.init(0, jnp.ones([1, 3]))
    assert list(variables) == ["model/dense/bias", "model/dense/kernel"]
    assert not jnp.any(model(variables, jnp.ones([1, 3])))


def test_row_54_scopes_name_and_reuse() -> None:
    with _store(), jv.variable_scope("a"), jv.variable_scope("b") as scope:
        assert jv.get_variable("v", [1]).name == "a/b/v:0"
        assert (scope.name, scope.reuse) == ("a/b", False)
        scope.reuse_variables()
        assert scope.reuse and jv.get_variable("v").name == "a/b/v:0"


def _conv_relu(images: Any, kernel_shape: Any, bias_shape: Any) -> Any:
    weights = jv.get_variable("weights", kernel_shape, initializer=jv.random_normal_initializer())
    biases = jv.get_variable("biases", bias_shape, initializer=jv.constant_initializer(0.0))
    return jax.nn.relu(jv.nn.conv2d(images, weights, strides=[1, 1, 1, 1], padding="SAME") + biases)


def _my_image_filter(images: Any) -> Any:
    with jv.variable_scope("conv1"):
        relu1 = _conv_relu(images, [5, 5, 4, 4], [4])
    with jv.variable_scope("conv2"):
        return _conv_relu(relu1, [5, 5, 4, 4], [4])


IMAGES = jax.ShapeDtypeStruct((1, 8, 8, 4), "float32")
FILTER = ["conv1/biases", "conv1/weights", "conv2/biases", "conv2/weights"]


def test_row_55_conv_relu() -> None:
    model = jv.transform(_conv_relu)
    images = jnp.linspace(-1, 1, 8 * 8 * 4, dtype="float32").reshape(1, 8, 8, 4)
    variables = model.init(0, images, [5, 5, 4, 6], [6])
    out = model(variables, images, [5, 5, 4, 6], [6])
    expected = jax.lax.conv_general_dilated(
        images, variables["weights"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert out.shape == (1, 8, 8, 6) and not variables["biases"].any()
    np.testing.assert_allclose(out, jax.nn.relu(expected), rtol=1e-5, atol=1e-5)


def test_row_56_twice_in_one_scope_raises() -> None:
    def net(images: Any) -> Any:
        return _conv_relu(_conv_relu(images, [5, 5, 4, 4], [4]), [5, 5, 4, 4], [4])

    with pytest.raises(ValueError, match="Variable weights already exists, disallowed"):
        jv.transform(net).specs(IMAGES)


def test_row_57_my_image_filter() -> None:
    specs = jv.transform(_my_image_filter).specs(IMAGES)
    assert list(specs) == FILTER
    assert [specs[name].shape for name in FILTER] == [(4,), (5, 5, 4, 4)] * 2


def _model_twice(second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`_my_image_filter` in scope "model", and once more as `second` says, given the scope."""

    def net(images: Any) -> Any:
        with jv.variable_scope("model") as scope:
            _my_image_filter(images)
            if second is jv.VariableScope.reuse_variables:
                scope.reuse_variables()
                return _my_image_filter(images)
        with second(scope):
            return _my_image_filter(images)

    return net


@pytest.mark.parametrize("second", [lambda _: jv.variable_scope("model", reuse=True)])
def test_row_58_reuse_true(second: Any) -> None:
    specs = jv.transform(_model_twice(second)).specs(IMAGES)
    assert list(specs) == [f"model/{name}" for name in FILTER]


def test_row_59_reuse_variables() -> None:
    specs = jv.transform(_model_twice(jv.VariableScope.reuse_variables)).specs(IMAGES)
    assert list(specs) == [f"model/{name}" for name in FILTER]


def test_row_60_captured_scope() -> None:
    specs = jv.transform(_model_twice(lambda scope: jv.variable_scope(scope, reuse=True))).specs(IMAGES)
    assert list(specs) == [f"model/{name}" for name in FILTER]
    with pytest.raises(ValueError, match="already exists"):
        jv.transform(_model_twice(jv.variable_scope)).specs(IMAGES)


# tf.Variable


def test_row_61_shape_of_the_initial_value() -> None:
    with _store() as store:
        v = jv.Variable(jnp.zeros([200]))
        assert v.get_shape().as_list() == [200]
        with pytest.raises(ValueError, match="200"):
            v.assign(jnp.zeros([100]))
    assert store.variables[v].shape == (200,)


def test_row_62_initial_values() -> None:
    with _store() as store:
        weights = jv.Variable(0.35 * jax.random.normal(jv.next_rng_key(), [784, 200]), name="weights")
        biases = jv.Variable(jnp.zeros([200]), name="biases")
        assert (weights.name, biases.name) == ("weights:0", "biases:0")
    assert abs(float(jnp.std(store.variables[weights])) - 0.35) < 0.01
    assert not store.variables[biases].any()


def test_row_63_variable_returns_a_variable() -> None:
    with _store() as store:
        v = jv.Variable(0.0, name="v")
        assert isinstance(v, jv.Variable) and v.op.name == v.key == "v"
        assert jv.global_variables() == jv.trainable_variables() == [v]
    assert list(store.variables) == ["v"]


def test_row_64_initialize_all() -> None:
    model = jv.transform(lambda: jv.Variable(1.0, name="v") + jv.Variable(2.0, name="w"))
    assert model(model.init(0)) == 3


def test_row_65_initialized_from_another() -> None:
    def net(stddev: Any) -> None:
        weights = jv.get_variable("weights", [784, 200], initializer=jv.random_normal_initializer(stddev=stddev))
        jv.Variable(weights.initialized_value(), name="w2")
        jv.Variable(weights.initialized_value() * 0.2, name="w_twice")

    variables = jv.transform(net).init(0, 0.35)
    assert jnp.all(variables["w2"] == variables["weights"])
    np.testing.assert_allclose(variables["w_twice"], variables["weights"] * 0.2, rtol=1e-6)


def test_row_66_custom_initialization() -> None:
    variables = jv.variables_initializer(_specs("v1", "v2"), 0, names=["v1"])
    assert jv.is_variable_initialized(variables, "v1") and not jv.is_variable_initialized(variables, "v2")


def test_row_67_parameters_and_state() -> None:
    def net() -> Any:
        jv.get_variable("learning_rate", initializer=0.1, trainable=False)
        return jv.train.get_or_create_global_step().assign_add(1)

    model = jv.transform(net)
    step, variables = model.apply(model.init(0))
    assert step == variables["global_step"] == 1 and list(variables.trainable) == []


def test_row_68_counter() -> None:
    with _store() as store:
        counter = jv.Variable(0, name="counter")
        counter.assign(counter + 1)
    variables = jv.assign(store.variables, counter, store.variables[counter] + 1)
    assert variables["counter"] == 2 and variables["counter"].dtype == jnp.int32


def test_row_69_variable_twice() -> None:
    with _store():
        v1, v2 = jv.Variable(10, name="name1"), jv.Variable(10, name="name1")
        assert v1 is not v2 and (v1.name, v2.name) == ("name1:0", "name1_1:0")


def _affine(x: Any, shape: Any) -> Any:
    w = jv.Variable(jnp.ones(shape))
    b = jv.Variable(jnp.zeros([shape[1]]))
    return jax.nn.relu(x @ w + b)


def _affine_reuseable(x: Any, shape: Any) -> Any:
    w = jv.get_variable("W", shape, initializer=jv.random_normal_initializer())
    b = jv.get_variable("b", [shape[1]], initializer=jv.constant_initializer(0.0))
    return jax.nn.relu(x @ w + b)


def test_row_70_affine_makes_two_sets() -> None:
    def net(x: Any) -> None:
        for _ in range(2):
            with jv.variable_scope("n1"):
                _affine(x, [784, 500])

    specs = jv.transform(net).specs(jax.ShapeDtypeStruct((1, 784), "float32"))
    assert list(specs) == ["n1/Variable", "n1/Variable_1", "n1_1/Variable", "n1_1/Variable_1"]
    assert [hole.shape for hole in specs.values()] == [(784, 500), (500,)] * 2


def test_row_71_affine_reuseable_shares() -> None:
    def net(x: Any) -> Any:
        with jv.variable_scope("n2"):
            nn1 = _affine_reuseable(x, [784, 500])
        with jv.variable_scope("n2", reuse=True):
            return nn1 - _affine_reuseable(x, [784, 500])

    model = jv.transform(net)
    variables = model.init(0, jnp.ones([1, 784]))
    assert list(variables) == ["n2/W", "n2/b"] and not model(variables, jnp.ones([1, 784])).any()


@pytest.mark.parametrize("reuse", [True, jv.AUTO_REUSE])
def test_row_72_existing_name_is_returned(reuse: Any) -> None:
    with _store():
        with jv.variable_scope("scope"):
            v = jv.get_variable("name", [2])
        with jv.variable_scope("scope", reuse=reuse):
            assert jv.get_variable("name", [2]) is v


@pytest.mark.parametrize("reuse", [None, False])
def test_row_73_already_exists(reuse: Any) -> None:
    with _store(), jv.variable_scope("foo", reuse=reuse):
        jv.get_variable("v", [1])
        with pytest.raises(ValueError, match="Variable foo/v already exists"):
            jv.get_variable("v")


def test_row_74_does_not_exist() -> None:
    text = "Variable foo/v does not exist, or was not created with jv.get_variable"
    with _store(), jv.variable_scope("foo", reuse=True), pytest.raises(ValueError, match=text):
        jv.get_variable("v")


def test_row_75_make_then_share() -> None:
    with _store():
        with jv.variable_scope("foo"):
            v = jv.get_variable("v2", [1])
        with jv.variable_scope("foo", reuse=True):
            v1 = jv.get_variable("v2")
        assert v1 == v and v1 is v
        with jv.variable_scope("foo") as scope:
            v = jv.get_variable("v3", [1])
            scope.reuse_variables()
            assert jv.get_variable("v3") is v


def test_row_76_nested_scopes() -> None:
    with _store(), jv.variable_scope("foo"), jv.variable_scope("bar"):
        assert jv.get_variable("v", [1]).name == "foo/bar/v:0"


def test_row_77_name_scope() -> None:
    with _store():
        with jv.name_scope("foo1"):
            v1, v2 = jv.get_variable("v", [1]), jv.Variable(1, name="v2")
        with jv.variable_scope("foo2"):
            v3, v4 = jv.get_variable("v", [1]), jv.Variable(1, name="v2")
        assert [v.name for v in (v1, v2, v3, v4)] == ["v:0", "foo1/v2:0", "foo2/v:0", "foo2/v2:0"]


def test_row_78_share_by_variable_scope() -> None:
    with _store() as store:
        for reuse in (None, True):
            with jv.name_scope("any"), jv.variable_scope("foo", reuse=reuse):
                jv.get_variable("shared", [1])
                jv.Variable(1.0, name="own")
    assert list(store.variables) == ["any/foo/own", "any_1/foo/own", "foo/shared"]

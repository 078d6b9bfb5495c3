"""What TensorFlow's checkpoint_utils_test.py checks: reading a checkpoint, and `init_from_checkpoint`.

A docstring names the behaviour upstream; docs/upstream-tests.md is the table of all.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import bundle_writer as writer
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvars as jv
from jaxvars.errors import FailedPreconditionError, NotFoundError

STORED = {
    "var1": np.array([[1.0, 2.0, 3.0]], np.float32),
    "var2": np.arange(4, dtype=np.float32).reshape(2, 2),
    "useful_scope/var4": np.full((2, 2), 4, np.float32),
    "useful_scope_1/var4": np.full((2, 2), 5, np.float32),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return str(writer.write_bundle(tmp_path / "model", STORED))


def get(name: str, stored: str, **options: Any) -> Any:
    """A variable of zeros with the shape of a stored one."""
    return jv.get_variable(name, STORED[stored].shape, initializer=jv.zeros_initializer(), **options)


def check(variable: Any, stored: str) -> None:
    np.testing.assert_array_equal(variable, STORED[stored])


# Reading


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """Upstream: testNoCheckpoints."""
    missing = str(tmp_path / "no_checkpoints")
    for ask in (jv.train.list_variables, lambda path: jv.train.load_variable(path, "var1")):
        with pytest.raises(NotFoundError, match="Failed to find any matching files for"):
            ask(missing)


def test_an_unknown_key_is_an_error(checkpoint: str) -> None:
    """Upstream: testNoTensor."""
    with pytest.raises(NotFoundError, match="Key var5 not found in checkpoint"):
        jv.train.load_variable(checkpoint, "var5")


def test_each_stored_array_is_loaded_by_its_name(checkpoint: str) -> None:
    """Upstream: testGetTensor."""
    for name, value in STORED.items():
        np.testing.assert_array_equal(jv.train.load_variable(checkpoint, name), value)


def test_all_variables_are_listed_in_order(checkpoint: str) -> None:
    """Upstream: testGetAllVariables."""
    expected = [(name, list(STORED[name].shape)) for name in sorted(STORED)]
    assert jv.train.list_variables(checkpoint) == expected


def test_pathlib_paths_are_accepted(checkpoint: str) -> None:
    """Upstream: testFSPath."""
    path = Path(checkpoint)
    reader = jv.train.load_checkpoint(path)
    np.testing.assert_array_equal(reader.get_tensor("var1"), STORED["var1"])
    assert "var2" in dict(jv.train.list_variables(path))
    np.testing.assert_array_equal(jv.train.load_variable(path, "var2"), STORED["var2"])


def test_waiting_returns_none_after_the_timeout(tmp_path: Path) -> None:
    """Upstream: WaitForNewCheckpointTest.testReturnsNoneAfterTimeout."""
    start = time.time()
    assert jv.train.wait_for_new_checkpoint(tmp_path, "foo", timeout=0.05, seconds_to_sleep=0.02) is None
    assert time.time() >= start + 0.02


def test_new_checkpoints_are_yielded_once_each(tmp_path: Path) -> None:
    saver, seen, timeouts = jv.train.Saver(), [], []

    def timed_out() -> bool:
        timeouts.append(1)
        if len(timeouts) == 1:
            saver.save(jv.Variables({"w": jnp.ones(1)}), tmp_path / "model", global_step=2)
        return len(timeouts) > 1

    first = saver.save(jv.Variables({"w": jnp.ones(1)}), tmp_path / "model", global_step=1)
    for path in jv.train.checkpoints_iterator(tmp_path, timeout=0, timeout_fn=timed_out):
        seen.append(path)
    assert seen == [first, first.removesuffix("1") + "2"] and len(timeouts) == 2


# init_from_checkpoint


def test_names_scopes_and_pairs_are_mapped(checkpoint: str) -> None:
    """Upstream: testInitFromCheckpoint."""
    with jv.VariableStore() as store:
        with jv.variable_scope("some_scope"):
            my1, my2, my3 = get("my1", "var1"), get("my2", "var2"), get("my3", "var2")
            with jv.variable_scope("some_other_scope"):
                my4 = get("var4", "useful_scope/var4")
        unmapped = get("unmapped", "var1")
        jv.train.init_from_checkpoint(
            checkpoint, {"var1": "some_scope/my1", "useful_scope/": "some_scope/some_other_scope/"}
        )
        jv.train.init_from_checkpoint(checkpoint, [("var2", "some_scope/my2"), ("var2", my3)])
        check(my1, "var1")
        check(my2, "var2")
        check(my3, "var2")
        check(my4, "useful_scope/var4")
        assert not np.any(unmapped)
    assert not np.any(store.variables["unmapped"])


def test_the_initial_value_is_that_of_the_checkpoint_after_the_call(checkpoint: str) -> None:
    """Upstream: testInitialValueComesFromCheckpoint."""
    with jv.VariableStore():
        my1 = get("my1", "var1")
        before = my1.initialized_value()
        jv.train.init_from_checkpoint(checkpoint, {"var1": my1})
        assert not np.any(before)
        check(my1.initialized_value(), "var1")

    def net() -> Any:
        my1 = get("my1", "var1")
        jv.train.init_from_checkpoint(checkpoint, {"var1": "my1"})
        return jv.get_variable("twice", initializer=my1.initialized_value() * 2.0) + my1

    model = jv.transform(net)
    specs = model.specs()
    assert jv.report_uninitialized_variables(specs) == ["my1", "twice"]  # nothing was read yet
    check(jv.variables_initializer(specs, 0, ["my1"])["my1"], "var1")
    variables = model.init(0)
    check(variables["my1"], "var1")
    np.testing.assert_array_equal(variables["twice"], 2 * STORED["var1"])
    given = jv.assign(variables, "my1", jnp.zeros((1, 3)))
    assert not np.any(model.init(0, variables=given)["my1"])  # what has a value keeps it
    np.testing.assert_array_equal(model(given), 2 * STORED["var1"])


def test_a_scope_does_not_capture_its_suffixes(checkpoint: str) -> None:
    """Upstream: testInitWithScopeDoesNotCaptureSuffixes."""
    with jv.VariableStore():
        with jv.variable_scope("useful_scope"):
            mine = get("var4", "useful_scope/var4")
        with jv.variable_scope("useful_scope_1"):
            other = get("var5", "useful_scope_1/var4")
        jv.train.init_from_checkpoint(checkpoint, {"useful_scope/": "useful_scope/"})
        check(mine, "useful_scope/var4")
        assert not np.any(other)


def test_variables_of_a_device_get_their_values_there(checkpoint: str) -> None:
    """Upstream: testRestoreRunsOnSameDevice."""

    def net() -> None:
        with jv.device("/device:CPU:1"), jv.variable_scope("useful_scope"):
            get("var4", "useful_scope/var4")
        jv.train.init_from_checkpoint(checkpoint, {"useful_scope/": "useful_scope/"})

    value = jv.transform(net).init(0)["useful_scope/var4"]
    check(value, "useful_scope/var4")
    assert value.devices() == {jax.devices("cpu")[1]}


def test_the_root_of_the_file_goes_into_a_scope(checkpoint: str) -> None:
    """Upstream: testInitFromRootCheckpoint."""
    with jv.VariableStore():
        with jv.variable_scope("some_scope"):
            my1, my2 = get("var1", "var1"), get("var2", "var2")
        jv.train.init_from_checkpoint(checkpoint, {"/": "some_scope/"})
        check(my1, "var1")
        check(my2, "var2")


def test_the_root_of_the_file_goes_to_the_root(checkpoint: str) -> None:
    """Upstream: testInitToRootCheckpoint."""
    with jv.VariableStore():
        made = {name: get(name, name) for name in STORED}
        jv.train.init_from_checkpoint(checkpoint, {"/": "/"})
        for name, variable in made.items():
            check(variable, name)


@pytest.mark.parametrize(
    ("assignment_map", "text"),
    [
        ({"no_var": "some_scope/my1"}, "Tensor no_var is not found in .* checkpoint"),
        ({"var1": "some_scope/no_var"}, "scope only name some_scope should map to scope only var1"),
        ({"var1": "some_scope/my2"}, r"Shape of variable some_scope/my2 .* doesn't match with shape of tensor var1"),
        ({"useful_scope/": "some_scope/"}, "Tensor useful_scope/my1 is not found"),
        ({"useful_scope": "some_scope/"}, "should map to scope only useful_scope"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(checkpoint: str, assignment_map: Any, text: str) -> None:
    """Upstream: testInitFromCheckpointMissing."""
    with jv.VariableStore() as store:
        with jv.variable_scope("some_scope"):
            get("my1", "var1")
            get("my2", "var2")
        get("fits", "var1")
        with pytest.raises(ValueError, match=text):
            jv.train.init_from_checkpoint(checkpoint, [*assignment_map.items(), ("var1", "fits")])
        with pytest.raises(KeyError, match="Failed to find any matching files"):
            jv.train.init_from_checkpoint(checkpoint + "/no_dir", {"var1": "some_scope/my1"})
        assert not any(np.any(value) for value in store.variables.values())


def test_init_from_checkpoint_has_its_place(checkpoint: str) -> None:
    with pytest.raises(FailedPreconditionError, match=r"variables = jv\.checkpoint\.restore\('.*model', variables"):
        jv.train.init_from_checkpoint(checkpoint, {"var1": "my1"})
    store = jv.VariableStore()
    for _ in range(2):  # the same cell, run again: what was trained meanwhile stays
        with store:
            my1 = get("my1", "var1")
            jv.train.init_from_checkpoint(checkpoint, {"var1": "my1"})
            value = my1.assign_add(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(value, STORED["var1"] + 2)


def test_checkpoints_that_change_before_they_are_read_are_refused(checkpoint: str, tmp_path: Path) -> None:
    def net() -> Any:
        my1 = get("my1", "var1")
        jv.train.init_from_checkpoint(checkpoint, {"var1": "my1"})
        return my1.value

    specs = jv.transform(net).specs()
    writer.write_bundle(tmp_path / "model", {"var1": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match=r"var1[\s\S]*\[2, 2\]"):
        jv.variables_initializer(specs, 0)
